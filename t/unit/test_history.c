/*-------------------------------------------------------------------------
 *
 * test_history.c
 *	  Unit tests for src/history.c.
 *
 * What a timeline history file says, as another server hands it out.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/history.h"

#include <stdio.h>
#include <string.h>

#include "tap.h"

static CrelayHistory history;

static void
test_lines(void)
{
	crelay_history_parse(&history, 4,
						 "1\t0/3000060\tno recovery target specified\n"
						 "\n# a remark\n"
						 "2\t0/5000000\tbefore 2000-01-01\n"
						 "3\tA/B000C\tno\n");
	is_number(history.timeline, 4, "the timeline");
	is_number(history.n, 3, "its ancestors");
	is_number(history.left[0].timeline, 3, "the latest first");
	is_number(history.left[0].lsn, UINT64_C(0xA000B000C), "... and where it was left");
	is_number(history.left[2].timeline, 1, "the oldest last");
	is_number(history.left[2].lsn, 0x3000060, "... and where that was left");
	ok(crelay_history_contains(&history, 2, 0x5000000), "it leads through there");
	ok(!crelay_history_contains(&history, 2, 0x5000001), "... and not beyond");
}

static void
test_nonsense(void)
{
	crelay_history_parse(&history, 1, "");
	is_number(history.n, 0, "the first timeline has no file");
	crelay_history_parse(&history, 2, "1\t0/30");
	is_number(history.n, 1, "no line break at the end");
	crelay_history_parse(&history, 2, "x\n1\n0\t0/1\tno\n1 0-1\n\n\n");
	is_number(history.n, 0, "no line that is none");
}

static void
test_many(void)
{
	char		content[4096] = "";

	for (int i = 1; i <= CRELAY_MAX_HISTORY + 5; i++)
		snprintf(content + strlen(content), sizeof(content) - strlen(content), "%d\t0/%X\tno\n", i, i * 16);
	crelay_history_parse(&history, CRELAY_MAX_HISTORY + 6, content);
	is_number(history.n, CRELAY_MAX_HISTORY, "of too many as many as there is room for");
	is_number(history.left[0].timeline, CRELAY_MAX_HISTORY + 5, "... the latest");
	is_number(history.left[CRELAY_MAX_HISTORY - 1].timeline, 6, "... and not the oldest");
	ok(crelay_history_contains(&history, 3, 0x1000000), "who is older is taken to be common");
}

static void
test_agreement(void)
{
	CrelayHistory other;

	crelay_history_parse(&history, 2, "1\t0/5000000\tno\n");
	crelay_history_parse(&other, 1, "");
	ok(crelay_history_agrees(&history, 0x6000000, &other, 0x4000000), "who has not come to the switch yet can get there");
	ok(!crelay_history_agrees(&history, 0x6000000, &other, 0x5000001), "... who is past it cannot");
	ok(crelay_history_agrees(&other, 0x4000000, &history, 0x6000000), "the same from the other side");
	ok(!crelay_history_agrees(&other, 0x5000001, &history, 0x6000000), "... and that");
	crelay_history_parse(&other, 3, "1\t0/4000000\tno\n");
	ok(!crelay_history_agrees(&history, 0x6000000, &other, 0x6000000), "two that left the first one at different places");
}

/*
 * A primary that was set back has less than its standby, on one timeline.
 */
static void
test_lacks(void)
{
	ok(!crelay_history_lacks(3, 100, 3, 100), "what both have, neither lacks");
	ok(!crelay_history_lacks(3, 100, 3, 99), "a standby may be behind");
	ok(crelay_history_lacks(3, 100, 3, 101), "... and not ahead");
	ok(!crelay_history_lacks(3, 100, 2, 101), "positions on two timelines say nothing");
}

int
main(void)
{
	test_lacks();
	test_lines();
	test_nonsense();
	test_many();
	test_agreement();
	return done_testing();
}
