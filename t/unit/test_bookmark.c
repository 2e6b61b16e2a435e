/*-------------------------------------------------------------------------
 *
 * test_bookmark.c
 *	  Tests of bookmarks, as a plain program that prints TAP.
 *
 * Owns: what bookmark.h promises, seen from outside: what is a bookmark and
 * what is not, and who has what one stands for.  The judgement is compared
 * with an oracle that walks from parent to parent through random histories.
 *
 *	  cc -std=gnu99 -Isrc -It/unit -g -fsanitize=address,undefined \
 *		  t/unit/test_bookmark.c src/bookmark.c -o test_bookmark && ./test_bookmark
 *
 *-------------------------------------------------------------------------
 */
#include "decide/bookmark.h"
#include "tap.h"

#include <stdlib.h>

/* ---- text ---- */

static void
reads(const char *token, uint32_t timeline, uint64_t lsn, const char *written)
{
	CrelayBookmark bookmark = {0};
	char		again[CRELAY_BOOKMARK_LEN];

	ok(crelay_bookmark_parse(token, &bookmark) && bookmark.timeline == timeline &&
	   bookmark.lsn == lsn, "\"%s\" is a bookmark", token);
	crelay_bookmark_format(again, sizeof(again), bookmark.timeline, bookmark.lsn, 1);
	is_text(again, written, "  and is written so");
}

static void
test_text(void)
{
	static const char *const junk[] = {
		"", " ", "1", "1:", ":", "1:0", "1:0/", "1:/1", ":0/1", "0/1", "1:0:1", "1/0/1",
		" 1:0/1", "1:0/1 ", "1: 0/1", "1:0 /1", "1:0/1\n", "+1:0/1", "-1:0/1", "1:-0/1",
		"1:0x0/1", "0x1:0/1", "a:0/1", "1:g/1", "1:0/g", "1:0/1/2", "1:0/1x", "1.0:0/1",
		"0:0/1", "1:0/0", "0:0/0", "4294967296:0/1", "1:100000000/0", "1:0/100000000",
		"99999999999999999999999999999999999999:0/1",
		"1:0/FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF", "1:0\\1", "\xff:0/1", "1:0/\xc3\xa9",
		"bookmark", "NULL", "1:0/1;", "'1:0/1'"
	};
	char		token[CRELAY_BOOKMARK_LEN];

	reads("1:0/3000060", 1, 0x3000060, "1:0/3000060");
	reads("1:0/03000060", 1, 0x3000060, "1:0/3000060");
	reads("1:0/1", 1, 1, "1:0/1");
	reads("2:16/b374d848", 2, UINT64_C(0x16B374D848), "2:16/B374D848");
	reads("7:1/0", 7, UINT64_C(0x100000000), "7:1/0");
	reads("007:00000000000/0001", 7, 1, "7:0/1");
	reads("4294967295:FFFFFFFF/FFFFFFFF", UINT32_MAX, UINT64_MAX,
		  "4294967295:FFFFFFFF/FFFFFFFF");

	for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++)
	{
		CrelayBookmark bookmark;

		ok(!crelay_bookmark_parse(junk[i], &bookmark), "junk %zu is no bookmark", i);
	}

	crelay_bookmark_format(token, sizeof(token), 0, 1, 1);
	is_text(token, "", "without a timeline there is none");
	crelay_bookmark_format(token, sizeof(token), 1, 0, 1);
	is_text(token, "", "without an LSN there is none");
	crelay_bookmark_format(token, sizeof(token), 1, 0x3000060, 8);
	is_text(token, "1:0/03000060", "a server may print eight digits");
}

/*
 * Whatever is cut off or changed somewhere is read or is not, and never past
 * its end; what is read is written in a way that is read the same.
 */
static void
test_mutations(void)
{
	int			bad = 0;
	int			read = 0;

	for (int i = 0; i < 200000; i++)
	{
		static const char alphabet[] = "0123456789abcdefABCDEF:/ +-x\n";
		size_t		length = random_below(24);
		char	   *token = malloc(length + 1);
		char		again[CRELAY_BOOKMARK_LEN];
		CrelayBookmark one;
		CrelayBookmark two;

		if (token == NULL)
			abort();
		snprintf(again, sizeof(again), "%u:%X/%X", 1 + random_below(20),
				 random_below(300), 1 + random_below(UINT32_MAX));
		memset(token, 0, length + 1);
		memcpy(token, again, strlen(again) < length ? strlen(again) : length);
		for (uint32_t n = random_below(3); n > 0 && length > 0; n--)
			token[random_below((uint32_t) length)] = alphabet[random_below(sizeof(alphabet) - 1)];

		if (crelay_bookmark_parse(token, &one))
		{
			read++;
			crelay_bookmark_format(again, sizeof(again), one.timeline, one.lsn, i % 2 ? 1 : 8);
			if (!crelay_bookmark_parse(again, &two) || one.timeline != two.timeline ||
				one.lsn != two.lsn || one.timeline == 0 || one.lsn == 0)
				bad++;
		}
		free(token);
	}
	ok(bad == 0 && read > 1000, "%d mutated bookmarks are read, %d differ when written", read, bad);
}

/* ---- judgement ---- */

static const char *
serves_text(CrelayServes serves)
{
	switch (serves)
	{
		case CRELAY_SERVES_UNKNOWN:
			return "unknown";
		case CRELAY_SERVES_NOT_YET:
			return "not yet";
		case CRELAY_SERVES_NOW:
			return "now";
		case CRELAY_SERVES_NEVER:
			return "never";
	}
	return "?";
}

static void
judges(const char *token, const CrelayHistory *history, uint32_t timeline, uint64_t lsn,
	   const char *expected, uint64_t expected_left)
{
	CrelayBookmark bookmark;
	uint64_t	left = 12345;
	const char *got;

	if (!crelay_bookmark_parse(token, &bookmark))
		abort();
	got = serves_text(crelay_bookmark_judge(&bookmark, history, timeline, lsn, &left));
	ok(strcmp(got, expected) == 0 && left == expected_left,
	   "at %u:%llX on %u, %s: %s", timeline, (unsigned long long) lsn, history->timeline,
	   token, expected);
	if (strcmp(got, expected) != 0 || left != expected_left)
		printf("#   got: %s, %llX\n", got, (unsigned long long) left);
}

static void
test_judgement(void)
{
	/* 1, to 2 at 0x200, to 4 at 0x400; timeline 3 is somebody else's */
	CrelayHistory first = {1, 0, {{0}}};
	CrelayHistory second = {2, 1, {{1, 0x200}}};
	CrelayHistory fourth = {4, 2, {{2, 0x400}, {1, 0x200}}};
	CrelayHistory lost_file = {4, 0, {{0}}};
	CrelayHistory deep = {100, CRELAY_MAX_HISTORY, {{0}}};

	/* one timeline: the LSN, both ends included */
	judges("1:0/100", &first, 1, 0xFF, "not yet", 0);
	judges("1:0/100", &first, 1, 0x100, "now", 0);
	judges("1:0/100", &first, 1, 0x101, "now", 0);

	/* a timeline that is not known yet, whatever the LSN */
	judges("2:0/100", &first, 1, 0x100, "not yet", 0);
	judges("2:0/100", &first, 1, 0x1000, "not yet", 0);
	judges("5:0/1", &fourth, 4, 0x1000, "not yet", 0);

	/* a timeline that was left: up to its end it is common */
	judges("1:0/1FF", &second, 2, 0x210, "now", 0);
	judges("1:0/200", &second, 2, 0x210, "now", 0);
	judges("1:0/201", &second, 2, 0x210, "never", 0x200);
	judges("1:0/201", &second, 2, 0x201, "never", 0x200);
	judges("1:0/FFFFFFFF", &fourth, 4, 0x410, "never", 0x200);
	judges("2:0/400", &fourth, 4, 0x410, "now", 0);
	judges("2:0/401", &fourth, 4, 0x410, "never", 0x400);

	/* nothing has been replayed of the new one yet, nor up to its start */
	judges("1:0/1FF", &second, 2, 0x180, "not yet", 0);

	/* a timeline that it was never on */
	judges("3:0/1", &fourth, 4, 0x410, "never", 0);

	/* another node, on an earlier part of the same history, or on a later one */
	judges("1:0/200", &fourth, 2, 0x210, "now", 0);
	judges("1:0/201", &fourth, 2, 0x210, "never", 0x200);
	judges("2:0/210", &fourth, 2, 0x210, "now", 0);
	judges("4:0/210", &fourth, 2, 0x210, "not yet", 0);
	judges("2:0/300", &fourth, 3, 0x310, "unknown", 0);
	judges("1:0/100", &second, 4, 0x410, "unknown", 0);
	judges("4:0/410", &second, 4, 0x410, "now", 0);
	judges("4:0/411", &second, 4, 0x410, "not yet", 0);

	/* what is not known is not guessed */
	judges("1:0/100", &first, 0, 0x100, "unknown", 0);
	judges("1:0/100", &first, 1, 0, "unknown", 0);
	judges("1:0/100", &lost_file, 4, 0x410, "unknown", 0);
	judges("4:0/400", &lost_file, 4, 0x410, "now", 0);

	/* a history longer than is kept: what is before it is common */
	for (uint32_t i = 0; i < CRELAY_MAX_HISTORY; i++)
	{
		deep.left[i].timeline = 99 - i;
		deep.left[i].lsn = 0x10000 - 0x100 * i;
	}
	judges("1:0/100", &deep, 100, 0x20000, "now", 0);
	judges("68:0/E101", &deep, 100, 0x20000, "never", 0xE100);
	judges("67:0/E101", &deep, 100, 0x20000, "now", 0);
	judges("67:0/E101", &deep, 100, 0xE000, "not yet", 0);
}

/* Timelines by number: where each one left its parent. */
#define MAX_TIMELINES	12

static uint32_t parents[MAX_TIMELINES + 1];
static uint64_t begins[MAX_TIMELINES + 1];

static CrelayHistory
history_of(uint32_t timeline)
{
	CrelayHistory history = {0};

	history.timeline = timeline;
	for (uint32_t t = timeline; parents[t] != 0; t = parents[t])
	{
		history.left[history.n].timeline = parents[t];
		history.left[history.n++].lsn = begins[t];
	}
	return history;
}

/*
 * Whether WAL that ends at (mark, mark_lsn) is part of the WAL that ends at
 * (timeline, lsn): go back from there until it is met or passed.
 */
static bool
includes(uint32_t timeline, uint64_t lsn, uint32_t mark, uint64_t mark_lsn)
{
	while (timeline != 0 && timeline != mark)
	{
		lsn = begins[timeline] < lsn ? begins[timeline] : lsn;
		timeline = parents[timeline];
	}
	return timeline != 0 && mark_lsn <= lsn;
}

/*
 * Whether it can still become part of it, by replay on the same timeline or on
 * one that begins there later.
 */
static bool
may_include(uint32_t timeline, uint32_t mark, uint64_t mark_lsn)
{
	return mark > timeline || includes(timeline, UINT64_MAX, mark, mark_lsn);
}

static void
test_oracle(void)
{
	int			wrong = 0;
	int			seen[4] = {0};

	for (int i = 0; i < 200000; i++)
	{
		uint32_t	n = 1 + random_below(MAX_TIMELINES);
		uint32_t	timeline = 1 + random_below(n);
		CrelayHistory history;
		CrelayBookmark mark;
		CrelayServes got;
		CrelayServes expected;
		uint64_t	lsn;
		uint64_t	left;

		for (uint32_t t = 1; t <= n; t++)
		{
			parents[t] = t == 1 ? 0 : 1 + random_below(t - 1);
			begins[t] = t == 1 ? 1 : begins[parents[t]] + random_below(20);
		}
		lsn = begins[timeline] + random_below(30);
		mark.timeline = 1 + random_below(n);
		mark.lsn = begins[mark.timeline] + random_below(30);
		history = history_of(timeline);

		if (includes(timeline, lsn, mark.timeline, mark.lsn))
			expected = CRELAY_SERVES_NOW;
		else if (may_include(timeline, mark.timeline, mark.lsn))
			expected = CRELAY_SERVES_NOT_YET;
		else
			expected = CRELAY_SERVES_NEVER;
		got = crelay_bookmark_judge(&mark, &history, timeline, lsn, &left);
		seen[got]++;
		if (got != expected)
			wrong++;
	}
	ok(wrong == 0 && seen[CRELAY_SERVES_NOW] > 1000 && seen[CRELAY_SERVES_NOT_YET] > 1000 &&
	   seen[CRELAY_SERVES_NEVER] > 1000 && seen[CRELAY_SERVES_UNKNOWN] == 0,
	   "random histories: %d now, %d not yet, %d never; %d are judged otherwise by the oracle",
	   seen[CRELAY_SERVES_NOW], seen[CRELAY_SERVES_NOT_YET], seen[CRELAY_SERVES_NEVER], wrong);
}

int
main(void)
{
	test_text();
	test_mutations();
	test_judgement();
	test_oracle();
	return done_testing();
}
