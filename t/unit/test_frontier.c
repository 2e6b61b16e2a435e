/*-------------------------------------------------------------------------
 *
 * test_frontier.c
 *	  Tests of the retention frontier, as a plain program that prints TAP.
 *
 * Owns: what frontier.h promises, seen from outside: what counts and why, the
 * minimum and who pins it, the hold target, the bound, and what protects.
 *
 *	  cc -std=gnu99 -Isrc -It/unit -g -fsanitize=address,undefined \
 *		  t/unit/test_frontier.c src/frontier.c -o test_frontier && ./test_frontier
 *
 *-------------------------------------------------------------------------
 */
#include "decide/frontier.h"
#include "tap.h"

#include <stdlib.h>

#define MB				UINT64_C(1048576)
#define NO_LIMIT		(-1)

/* ---- what counts ---- */

/*
 * One fact about a downstream, and the reason that it gives.  The rules of a
 * kind stand in order: of the facts that are true, the first one is the reason.
 */
typedef struct Rule
{
	size_t		fact;			/* offset of a bool */
	CrelayReason reason;
} Rule;

#define FACT(name) offsetof(CrelayDownstream, name)

/* restart_lsn stands for "there is none" */
static const Rule hold_rules[] = {
	{FACT(own), CRELAY_NOT_OWN},
	{FACT(ancestor), CRELAY_NOT_ANCESTOR},
	{FACT(released_lsn), CRELAY_NOT_RELEASED},
	{FACT(elsewhere), CRELAY_NOT_ELSEWHERE},
	{FACT(reported), CRELAY_COUNTS_REPORTED},
	{FACT(invalidated), CRELAY_NOT_INVALIDATED},
	{FACT(restart_lsn), CRELAY_NOT_RESERVED}
};

static const Rule slot_rules[] = {
	{FACT(logical), CRELAY_NOT_LOGICAL},
	{FACT(temporary), CRELAY_NOT_TEMPORARY},
	{FACT(ignored), CRELAY_NOT_IGNORED},
	{FACT(invalidated), CRELAY_NOT_INVALIDATED},
	{FACT(restart_lsn), CRELAY_NOT_RESERVED},
	{FACT(ancestor), CRELAY_NOT_ANCESTOR},
	{FACT(released_lsn), CRELAY_NOT_RELEASED},
	{FACT(elsewhere), CRELAY_NOT_ELSEWHERE},
	{FACT(spare), CRELAY_NOT_MANAGED}
};

static const Rule walsender_rules[] = {
	{FACT(backup), CRELAY_NOT_BACKUP},
	{FACT(logical), CRELAY_NOT_LOGICAL},
	{FACT(ignored), CRELAY_NOT_IGNORED},
	{FACT(ancestor), CRELAY_NOT_ANCESTOR},
	{FACT(spare), CRELAY_NOT_MANAGED},
	{FACT(released_lsn), CRELAY_NOT_RELEASED},
	{FACT(restart_lsn), CRELAY_NOT_REPLIED}
};

static CrelayDownstream
downstream(CrelayDownstreamKind kind, const char *name, uint64_t lsn)
{
	CrelayDownstream d;

	memset(&d, 0, sizeof(d));
	d.kind = kind;
	d.restart_lsn = lsn;
	d.child = -1;
	d.counts_by = -1;
	snprintf(d.name, sizeof(d.name), "%s", name);
	return d;
}

static void
set_fact(CrelayDownstream *d, size_t fact)
{
	if (fact == FACT(restart_lsn))
		d->restart_lsn = 0;
	else if (fact == FACT(released_lsn))
		d->released_lsn = 8 * MB;
	else if (fact == FACT(spare))
		d->spare = d->managed = true;
	else
		*(bool *) ((char *) d + fact) = true;
}

/*
 * Every combination of the facts that matter for a kind.
 */
static void
test_rules(CrelayDownstreamKind kind, const Rule *rules, int n,
		   CrelayReason otherwise, const char *what)
{
	int			wrong = 0;

	for (unsigned set = 0; set < 1u << n; set++)
	{
		CrelayDownstream d = downstream(kind, "x", 7 * MB);
		CrelayReason expected = otherwise;
		CrelayReason got;

		for (int i = n - 1; i >= 0; i--)
		{
			if (set & (1u << i))
			{
				set_fact(&d, rules[i].fact);
				expected = rules[i].reason;
			}
		}
		got = crelay_frontier_reason(&d);
		if (got != expected && wrong++ == 0)
			printf("# facts %x: got \"%s\", expected \"%s\"\n", set,
				   crelay_reason_text(got), crelay_reason_text(expected));
	}
	ok(wrong == 0, "every combination of facts gives %s its reason", what);
}

/*
 * The user of a slot is known to be elsewhere, but somebody uses it here.
 */
static void
test_active_elsewhere(void)
{
	CrelayDownstream d = downstream(CRELAY_KIND_SLOT, "x", 7 * MB);

	d.elsewhere = true;
	d.pid = 4711;
	is_text(crelay_reason_text(crelay_frontier_reason(&d)), "physical slot",
			"an active slot counts although its node is protected elsewhere");
}

/*
 * A reported child whose hold is gone, or could not be placed, still counts.
 */
static void
test_reported_without_hold(void)
{
	CrelayDownstream d = downstream(CRELAY_KIND_HOLD, "x", 0);

	d.reported = true;
	d.invalidated = true;
	ok(crelay_frontier_reason(&d) == CRELAY_COUNTS_REPORTED,
	   "a child that reports counts without its hold");
}

static void
test_texts(void)
{
	bool		counted_first = true;
	bool		distinct = true;

	for (int i = 0; i <= CRELAY_NOT_MANAGED; i++)
	{
		if (CRELAY_REASON_IS_COUNTED(i) != (i <= CRELAY_COUNTS_LOST))
			counted_first = false;
		if (strcmp(crelay_reason_text(i), "unknown") == 0)
			distinct = false;
		for (int j = 0; j < i; j++)
		{
			if (strcmp(crelay_reason_text(i), crelay_reason_text(j)) == 0)
				distinct = false;
		}
	}
	ok(counted_first, "five reasons to count, the others are reasons not to");
	ok(distinct, "every reason has a text of its own");
	is_text(crelay_reason_text((CrelayReason) 99), "unknown", "an impossible reason");
}

/* ---- the minimum ---- */

static CrelayFrontier
compute(uint64_t applied, uint64_t redo, CrelayDownstream *downstreams, int n)
{
	CrelayOwn	own = {"own", applied, redo, MB};
	CrelayFrontier result;

	memset(&result, 0xff, sizeof(result));
	crelay_frontier_compute(&own, downstreams, n, &result);
	return result;
}

/*
 * A slot that was invalidated counts by what it kept before, as long as that is
 * remembered.
 */
static void
test_lost_slot(void)
{
	CrelayDownstream d = downstream(CRELAY_KIND_SLOT, "x", 0);
	CrelayFrontier got;

	d.invalidated = true;
	d.remembered_lsn = 7 * MB;
	is_text(crelay_reason_text(crelay_frontier_reason(&d)),
			"invalidated slot, by what it kept before", "a lost slot that is remembered");
	got = compute(9 * MB, 9 * MB, &d, 1);
	ok(got.frontier_lsn == 7 * MB && got.hold_target_lsn == 7 * MB, "it lowers both");
	d.restart_lsn = 8 * MB;
	got = compute(9 * MB, 9 * MB, &d, 1);
	ok(got.frontier_lsn == 7 * MB, "whatever it says itself");
	d.released_lsn = 9 * MB;
	is_text(crelay_reason_text(crelay_frontier_reason(&d)), "released", "it can be released");
}

/*
 * A hold that a bound has moved, of a node that has not called since the start.
 */
static void
test_bounded_hold(void)
{
	CrelayDownstream d = downstream(CRELAY_KIND_HOLD, "x", 7 * MB);
	CrelayFrontier got;

	d.remembered_need = 8 * MB;
	got = compute(9 * MB, 9 * MB, &d, 1);
	ok(got.frontier_lsn == 7 * MB, "a hold below what its node needs counts");
	d.remembered_need = 6 * MB;
	got = compute(9 * MB, 9 * MB, &d, 1);
	ok(got.frontier_lsn == 6 * MB && got.hold_target_lsn == 6 * MB,
	   "what a node needs counts below its hold");
	d.reported = true;
	d.reported_frontier = 8 * MB;
	d.reported_target = 8 * MB;
	got = compute(9 * MB, 9 * MB, &d, 1);
	ok(got.frontier_lsn == 8 * MB && got.hold_target_lsn == 7 * MB, "until it calls");
}

static void
is_frontier(CrelayFrontier got, uint64_t frontier, const char *pinned_by,
			uint64_t target, const char *what)
{
	bool		same = got.frontier_lsn == frontier &&
	got.hold_target_lsn == target &&
	strcmp(got.pin.by, pinned_by) == 0;

	ok(same, "%s", what);
	if (!same)
		printf("#   got: frontier %llx by %s, target %llx\n"
			   "#   expected: frontier %llx by %s, target %llx\n",
			   (unsigned long long) got.frontier_lsn, got.pin.by,
			   (unsigned long long) got.hold_target_lsn,
			   (unsigned long long) frontier, pinned_by,
			   (unsigned long long) target);
}

static CrelayDownstream
reported(const char *name, uint64_t hold, uint64_t frontier, uint64_t target,
		 const char *pinned_by)
{
	CrelayDownstream d = downstream(CRELAY_KIND_HOLD, name, hold);

	d.reported = true;
	d.reported_frontier = frontier;
	d.reported_target = target;
	snprintf(d.reported_pin.by, sizeof(d.reported_pin.by), "%s", pinned_by);
	return d;
}

static void
test_alone(void)
{
	is_frontier(compute(9 * MB, 0, NULL, 0), 9 * MB, "own", 9 * MB,
				"alone, the frontier is the own position");
	is_frontier(compute(9 * MB, 4 * MB, NULL, 0), 9 * MB, "own", 4 * MB,
				"the last restartpoint lowers the hold target only");
	is_frontier(compute(9 * MB, 12 * MB, NULL, 0), 9 * MB, "own", 9 * MB,
				"a redo ahead of the own position raises nothing");
	is_frontier(compute(0, 4 * MB, NULL, 0), 0, "own", 0,
				"without an own position nothing is known");
	is_frontier(compute(0, 0, NULL, 0), 0, "own", 0, "nothing known at all");
}

static void
test_minimum(void)
{
	CrelayDownstream d[3];

	d[0] = downstream(CRELAY_KIND_SLOT, "slot", 6 * MB);
	d[1] = downstream(CRELAY_KIND_WALSENDER, "sender", 5 * MB);
	d[2] = downstream(CRELAY_KIND_HOLD, "hold", 4 * MB);
	is_frontier(compute(9 * MB, 0, d, 3), 4 * MB, "hold", 4 * MB,
				"the lowest of slot, walsender and hold");
	ok(d[0].counted && d[1].counted && d[2].counted, "all three are counted");
	ok(strcmp(d[0].pin.by, "slot") == 0 && strcmp(d[1].pin.by, "sender") == 0 &&
	   strcmp(d[2].pin.by, "hold") == 0, "each is pinned by itself");

	d[2].released_lsn = UINT64_MAX;
	is_frontier(compute(9 * MB, 0, d, 3), 5 * MB, "sender", 5 * MB,
				"without the released one, the next");
	ok(!d[2].counted && d[2].reason == CRELAY_NOT_RELEASED &&
	   d[2].pin.by[0] == '\0', "the released one is said to be so");

	is_frontier(compute(3 * MB, 0, d, 3), 3 * MB, "own", 3 * MB,
				"the own position can be the lowest");
	is_frontier(compute(0, 0, d, 3), 0, "own", 0,
				"downstreams do not make an unknown own position known");
}

/*
 * A hold that somebody has dropped, of a node that has not called since.
 */
static void
test_remembered(void)
{
	CrelayDownstream d = downstream(CRELAY_KIND_HOLD, "hold", 0);

	is_frontier(compute(9 * MB, 0, &d, 1), 9 * MB, "own", 9 * MB, "a hold that is gone says nothing");
	d.remembered_lsn = 4 * MB;
	is_frontier(compute(9 * MB, 0, &d, 1), 4 * MB, "hold", 4 * MB, "what it held is still needed");
	ok(d.reason == CRELAY_COUNTS_HOLD, "and is said to be what a hold keeps");
	d.restart_lsn = 7 * MB;
	is_frontier(compute(9 * MB, 0, &d, 1), 4 * MB, "hold", 4 * MB, "also when it was placed again above");
	d.restart_lsn = 3 * MB;
	is_frontier(compute(9 * MB, 0, &d, 1), 3 * MB, "hold", 3 * MB, "below, it is what it keeps now");
	d.restart_lsn = 0;
	d.reported = true;
	d.reported_frontier = d.reported_target = 6 * MB;
	is_frontier(compute(9 * MB, 0, &d, 1), 6 * MB, "hold", 6 * MB, "when its node has called, that counts");
	d.released_lsn = UINT64_MAX;
	is_frontier(compute(9 * MB, 0, &d, 1), 9 * MB, "own", 9 * MB, "released, it does not");
}

static void
test_ties(void)
{
	CrelayDownstream d[3];

	d[0] = downstream(CRELAY_KIND_SLOT, "first", 9 * MB);
	d[1] = downstream(CRELAY_KIND_SLOT, "second", 9 * MB);
	is_frontier(compute(9 * MB, 0, d, 2), 9 * MB, "own", 9 * MB,
				"all equal: the own node pins");

	d[0].restart_lsn = d[1].restart_lsn = 7 * MB;
	is_frontier(compute(9 * MB, 0, d, 2), 7 * MB, "first", 7 * MB,
				"equal downstreams: the first one pins");

	d[2] = downstream(CRELAY_KIND_SLOT, "third", 7 * MB - 1);
	is_frontier(compute(9 * MB, 0, d, 3), 7 * MB - 1, "third", 7 * MB - 1,
				"one byte less is less");
}

static void
test_zero(void)
{
	CrelayDownstream d[2];

	d[0] = reported("quiet", 0, 0, 0, "");
	d[1] = downstream(CRELAY_KIND_WALSENDER, "new", 0);
	is_frontier(compute(9 * MB, 0, d, 2), 9 * MB, "own", 9 * MB,
				"an LSN of 0 is never the minimum");
	ok(d[0].counted, "a child that reports 0 counts, with nothing to say");
	ok(!d[1].counted, "a walsender before its first reply does not");
}

static bool
is_place(const CrelayPin *pin, CrelayPinKind kind, const char *by, const char *on,
		 const char *slot)
{
	return pin->kind == kind && strcmp(pin->by, by) == 0 &&
		strcmp(pin->on, on) == 0 && strcmp(pin->slot, slot) == 0;
}

/*
 * A pin is a place: names may be those of other nodes, or this node's own.
 */
static void
test_places(void)
{
	CrelayDownstream d[4];
	CrelayFrontier f;

	d[0] = downstream(CRELAY_KIND_SLOT, "own", 6 * MB);
	strcpy(d[0].slot_name, "own");
	d[1] = downstream(CRELAY_KIND_WALSENDER, "own", 5 * MB);
	d[2] = downstream(CRELAY_KIND_HOLD, "child", 4 * MB);
	strcpy(d[2].slot_name, "cascade_relay_child_00000001");
	d[3] = reported("child2", 3 * MB, 3 * MB, 3 * MB, "");
	f = compute(9 * MB, 0, d, 0);
	ok(is_place(&f.pin, CRELAY_PIN_NODE, "own", "own", "") && f.pinned_via == NULL &&
	   crelay_pin_is_own(&f.pin, "own"), "the own position");
	f = compute(9 * MB, 0, d, 1);
	ok(is_place(&f.pin, CRELAY_PIN_SLOT, "own", "own", "own") && f.pinned_via == &d[0] &&
	   !crelay_pin_is_own(&f.pin, "own"), "a slot that is called like this node");
	f = compute(9 * MB, 0, d, 2);
	ok(is_place(&f.pin, CRELAY_PIN_WALSENDER, "own", "own", "") && f.pinned_via == &d[1] &&
	   !crelay_pin_is_own(&f.pin, "own"), "a walsender that is called like this node");
	f = compute(9 * MB, 0, d, 3);
	ok(is_place(&f.pin, CRELAY_PIN_HOLD, "child", "own", "cascade_relay_child_00000001"),
	   "the hold of a child that has not called");
	f = compute(9 * MB, 0, d, 4);
	ok(is_place(&f.pin, CRELAY_PIN_NODE, "child2", "child2", ""), "a child that does not say more");
	d[3].reported_pin.kind = CRELAY_PIN_SLOT;
	strcpy(d[3].reported_pin.by, "own");
	strcpy(d[3].reported_pin.on, "deep");
	strcpy(d[3].reported_pin.slot, "own");
	f = compute(9 * MB, 0, d, 4);
	ok(is_place(&f.pin, CRELAY_PIN_SLOT, "own", "deep", "own") && f.pinned_via == &d[3],
	   "a slot far below that is called like this node");
}

static void
test_reported(void)
{
	CrelayDownstream d[1];

	d[0] = reported("child", 3 * MB, 6 * MB, 5 * MB, "leaf");
	is_frontier(compute(9 * MB, 8 * MB, d, 1), 6 * MB, "leaf", 3 * MB,
				"the frontier by the report, the target by the hold below it");
	is_text(d[0].pin.by, "leaf", "pinned by whom the child names");

	d[0] = reported("child", 5 * MB + 1, 6 * MB, 5 * MB, "");
	is_frontier(compute(9 * MB, 8 * MB, d, 1), 6 * MB, "child", 5 * MB,
				"the target by the report below its hold; unnamed, the child itself pins");

	d[0] = reported("child", 0, 6 * MB, 5 * MB, "");
	is_frontier(compute(9 * MB, 8 * MB, d, 1), 6 * MB, "child", 5 * MB,
				"a report counts in full before it has a hold");

	d[0] = reported("child", 7 * MB, 0, 5 * MB, "");
	is_frontier(compute(9 * MB, 8 * MB, d, 1), 7 * MB, "child", 5 * MB,
				"a child that knows no frontier yet: by its hold");
	d[0] = reported("child", 7 * MB, 8 * MB, 0, "");
	is_frontier(compute(9 * MB, 8 * MB, d, 1), 8 * MB, "child", 7 * MB,
				"a child that knows no target yet: likewise");
	d[0] = reported("child", 7 * MB, 6 * MB, 0, "");
	is_frontier(compute(9 * MB, 8 * MB, d, 1), 6 * MB, "child", 6 * MB,
				"the target is never above the frontier");

	/* until it has called, its hold is all that is known */
	d[0] = reported("child", 3 * MB, 6 * MB, 5 * MB, "leaf");
	d[0].reported = false;
	is_frontier(compute(9 * MB, 8 * MB, d, 1), 3 * MB, "child", 3 * MB,
				"by the hold until the child calls");

	/* huge LSNs harm nobody else */
	d[0] = reported("child", 4 * MB, UINT64_MAX, UINT64_MAX, "leaf");
	is_frontier(compute(9 * MB, 8 * MB, d, 1), 9 * MB, "own", 4 * MB,
				"a huge report pins nothing, but what is held stays asked for");
}

/*
 * A slot that a child is said to stream through, beside what counts for the
 * child.
 */
static void
test_spare(void)
{
	CrelayDownstream d[2];

	d[0] = downstream(CRELAY_KIND_SLOT, "slot", 6 * MB);
	d[0].managed = true;
	d[0].incarnation = 1;
	d[0].counts_by = 1;
	d[1] = reported("child", 5 * MB, 7 * MB - 1, 5 * MB, "leaf");
	is_frontier(compute(9 * MB, 0, d, 2), 7 * MB - 1, "leaf", 5 * MB,
				"the slot of a child that has confirmed as much is left out");
	is_text(crelay_reason_text(d[0].reason), "managed, counted by its hold", "and that is said");

	d[1].reported_frontier = 7 * MB;
	is_frontier(compute(9 * MB, 0, d, 2), 6 * MB, "slot", 5 * MB,
				"it counts when the child asks for a segment less than is in it");
	is_text(crelay_reason_text(d[0].reason), "physical slot", "as anybody's slot");

	d[1].reported_frontier = d[1].reported_target = UINT64_MAX;
	d[1].restart_lsn = 0;
	is_frontier(compute(9 * MB, 0, d, 2), 6 * MB, "slot", 6 * MB,
				"whatever is reported for it");
	d[0].kind = CRELAY_KIND_WALSENDER;
	is_frontier(compute(9 * MB, 0, d, 2), 6 * MB, "slot", 6 * MB,
				"so does a walsender without a slot");
	d[0].restart_lsn = 0;
	compute(9 * MB, 0, d, 2);
	is_text(crelay_reason_text(d[0].reason), "managed, counted by its hold",
			"which says nothing before its first reply");

	d[0] = downstream(CRELAY_KIND_SLOT, "slot", 6 * MB);
	d[0].managed = true;
	d[0].incarnation = 1;
	d[0].counts_by = 1;
	d[1] = reported("child", 4 * MB, 0, 0, "");
	is_frontier(compute(9 * MB, 0, d, 2), 4 * MB, "child", 4 * MB,
				"a child that knows no frontier yet counts by its hold");
	ok(!d[0].counted, "which is enough");
	d[1].reported = false;
	is_frontier(compute(9 * MB, 0, d, 2), 4 * MB, "child", 4 * MB,
				"and so does one that has not called, or is diverged");
	ok(!d[0].counted, "likewise");
	d[1].restart_lsn = 0;
	is_frontier(compute(9 * MB, 0, d, 2), 6 * MB, "slot", 6 * MB,
				"without a hold there is but the slot");
	d[1] = reported("child", 3 * MB, 3 * MB, 3 * MB, "");
	d[1].released_lsn = UINT64_MAX;
	is_frontier(compute(9 * MB, 0, d, 2), 9 * MB, "own", 9 * MB,
				"with a child that is released goes its slot");
	d[0].pid = 7;
	d[1].released_lsn = 6 * MB + 1;
	is_frontier(compute(9 * MB, 0, d, 2), 9 * MB, "own", 9 * MB,
				"in use, up to where it has to come");
	d[1].released_lsn = 6 * MB;
	is_frontier(compute(9 * MB, 0, d, 2), 6 * MB, "slot", 6 * MB,
				"and not beyond: it may stream without a report");
	d[0].pid = 0;
	is_frontier(compute(9 * MB, 0, d, 2), 9 * MB, "own", 9 * MB,
				"wherever it is, if it is not in use");
	d[0].incarnation = 0;
	is_frontier(compute(9 * MB, 0, d, 2), 6 * MB, "slot", 6 * MB,
				"but none that it was not seen to stream through");
	d[1].released_lsn = 0;
	d[1].elsewhere = true;
	is_frontier(compute(9 * MB, 0, d, 2), 6 * MB, "slot", 6 * MB,
				"nor does a child elsewhere keep a slot from counting that is in use");
	d[0].counts_by = -1;
	is_frontier(compute(9 * MB, 0, d, 1), 6 * MB, "slot", 6 * MB,
				"a child of which nothing is there");
}

/*
 * Random downstreams against a second, slower opinion.
 */
static void
test_random(void)
{
	int			wrong = 0;

	for (int round = 0; round < 20000; round++)
	{
		CrelayDownstream d[8];
		int			n = random_below(9);
		uint64_t	applied = random_below(20) * MB;
		uint64_t	redo = random_below(20) * MB;
		uint64_t	frontier = applied;
		uint64_t	target = applied;
		CrelayFrontier got;

		if (redo != 0 && redo < target)
			target = redo;
		for (int i = 0; i < n; i++)
		{
			uint64_t	confirmed;
			uint64_t	wanted;

			d[i] = downstream(random_below(3), "d", random_below(20) * MB);
			d[i].released_lsn = random_below(4) == 0 ? UINT64_MAX : 0;
			d[i].reported = random_below(2) == 0;
			d[i].reported_frontier = random_below(20) * MB;
			d[i].reported_target = random_below(20) * MB;

			if (!CRELAY_REASON_IS_COUNTED(crelay_frontier_reason(&d[i])))
				continue;
			confirmed = wanted = d[i].restart_lsn;
			if (d[i].kind == CRELAY_KIND_HOLD && d[i].reported)
			{
				if (d[i].reported_frontier != 0)
					confirmed = d[i].reported_frontier;
				if (wanted == 0 || (d[i].reported_target != 0 &&
									d[i].reported_target < wanted))
					wanted = d[i].reported_target;
			}
			if (confirmed != 0 && confirmed < frontier)
				frontier = confirmed;
			if (wanted != 0 && wanted < target)
				target = wanted;
		}
		if (frontier < target)
			target = frontier;
		got = compute(applied, redo, d, n);
		if (got.frontier_lsn != frontier || got.hold_target_lsn != target ||
			got.hold_target_lsn > got.frontier_lsn)
			wrong++;
	}
	ok(wrong == 0, "random downstreams: the minimum, and the target never above it");
}

/* ---- the bound ---- */

static void
is_limit(int64_t max_hold, int64_t max_keep, int64_t expected, const char *what)
{
	int64_t		got = crelay_hold_limit(max_hold, max_keep, MB);

	ok(got == expected, "%s", what);
	if (got != expected)
		printf("#   got: %lld\n#   expected: %lld\n", (long long) got,
			   (long long) expected);
}

static void
test_limit(void)
{
	const int64_t mb = (int64_t) MB;

	is_limit(NO_LIMIT, NO_LIMIT, NO_LIMIT, "no bound at all");
	is_limit(5 * mb, NO_LIMIT, 5 * mb, "max_hold_size as it is");
	is_limit(0, NO_LIMIT, 0, "max_hold_size of nothing");
	is_limit(NO_LIMIT, 80 * mb, 68 * mb,
			 "max_slot_wal_keep_size less an eighth and two segments");
	is_limit(60 * mb, 80 * mb, 60 * mb, "the smaller of both: max_hold_size");
	is_limit(70 * mb, 80 * mb, 68 * mb, "the smaller of both: max_slot_wal_keep_size");
	is_limit(NO_LIMIT, 3 * mb, mb, "one segment is left of a small max_slot_wal_keep_size");
	is_limit(NO_LIMIT, mb, mb, "or of a single one");
	is_limit(NO_LIMIT, 4 * mb + mb / 2, 2 * mb, "the server counts whole segments");
	is_limit(NO_LIMIT, mb - 1, NO_LIMIT, "what lets nothing be held bounds nothing");
	is_limit(7 * mb, 0, 7 * mb, "nor does it where there is another bound");
	ok(crelay_can_hold(-1, MB) && crelay_can_hold(mb, MB) && crelay_can_hold(INT64_MAX, MB),
	   "a segment can be held, or more");
	ok(!crelay_can_hold(0, MB) && !crelay_can_hold(mb - 1, MB) &&
	   !crelay_can_hold(512 * mb, 1024 * MB), "less than a segment cannot");
	is_limit(0, 80 * mb, 0, "max_hold_size of nothing is no less beside another bound");
	is_limit(10, 0, 10, "nor is one below a segment");
	is_limit(INT64_MAX, INT64_MAX, INT64_MAX - INT64_MAX / 8 - 2 * mb, "no overflow");
}

static void
test_clamp(void)
{
	is_number(crelay_hold_clamp(3 * MB, 9 * MB, NO_LIMIT), 3 * MB, "no limit, no clamp");
	is_number(crelay_hold_clamp(3 * MB, 9 * MB, 6 * MB), 3 * MB, "exactly at the limit");
	is_number(crelay_hold_clamp(3 * MB - 1, 9 * MB, 6 * MB), 3 * MB, "one byte beyond");
	is_number(crelay_hold_clamp(8 * MB, 9 * MB, 6 * MB), 8 * MB, "well within");
	is_number(crelay_hold_clamp(3 * MB, 9 * MB, 0), 9 * MB, "a limit of nothing");
	is_number(crelay_hold_clamp(1, 6 * MB, 6 * MB), 1, "an own position within the limit");
	is_number(crelay_hold_clamp(1, 0, 0), 1, "an unknown own position clamps nothing");
	is_number(crelay_hold_clamp(UINT64_MAX, 9 * MB, 6 * MB), UINT64_MAX,
			  "a target ahead of the own position is another's concern");
	is_number(crelay_hold_clamp(1, UINT64_MAX, INT64_MAX), UINT64_MAX - INT64_MAX,
			  "no overflow");
}

/* The files of a disk, from that one on. */
static CrelayWalFile files[64];

static void
put_files(CrelayDisk *disk, uint64_t oldest_lsn, uint64_t end_lsn)
{
	disk->files = files;
	disk->nfiles = 0;
	disk->end_lsn = end_lsn;
	for (uint64_t lsn = oldest_lsn; lsn < end_lsn; lsn += MB)
	{
		files[disk->nfiles].unarchived = false;
		files[disk->nfiles++].start_lsn = lsn;
	}
}

/*
 * A disk of 1000 MB of which 100 are to stay free: the last checkpoint's redo
 * is at 90 MB, this node at 95, files go from 40 to 99, and max_wal_size is 20.
 */
static const CrelayDisk usual_disk = {.total = 1000 * MB,.free = 111 * MB,.max_slot_keep = -1};

static void
is_disk(const CrelayDisk *disk, int percent, uint64_t own_lsn, uint64_t redo_lsn,
		int64_t left, uint64_t floor_lsn, const char *what)
{
	CrelayDiskBound bound;

	crelay_disk_bound(disk, percent, own_lsn, redo_lsn, 20 * MB, MB, &bound);
	ok(bound.left == left && bound.floor_lsn == floor_lsn, what);
	if (bound.left != left || bound.floor_lsn != floor_lsn)
		printf("#   got: %lld, %llu, expected: %lld, %llu\n", (long long) bound.left,
			   (unsigned long long) bound.floor_lsn, (long long) left,
			   (unsigned long long) floor_lsn);
}

static void
test_disk(void)
{
	const int64_t mb = MB;
	CrelayDisk	disk = usual_disk;
	CrelayDisk	later;
	CrelayDiskBound bound;

	put_files(&disk, 40 * MB, 99 * MB);

	is_disk(&disk, 10, 95 * MB, 90 * MB, 0, 0, "the reserve, and what WAL needs until the next checkpoint");
	is_disk(&disk, 9, 95 * MB, 90 * MB, 10 * mb, 0, "a smaller reserve leaves more");
	is_disk(&disk, 0, 95 * MB, 90 * MB, 0, 0, "switched off");
	disk.free--;
	is_disk(&disk, 10, 95 * MB, 90 * MB, -1, 41 * MB, "for one byte that is missing a segment goes");
	disk.free = 101 * MB;
	is_disk(&disk, 10, 95 * MB, 90 * MB, -10 * mb, 50 * MB, "counted from the oldest file");
	disk.free = 0;
	is_disk(&disk, 10, 95 * MB, 90 * MB, -111 * mb, 95 * MB, "never beyond the own position");
	disk.nfiles = 0;
	is_disk(&disk, 10, 95 * MB, 90 * MB, -111 * mb, 0, "without files nothing can go");
	put_files(&disk, 40 * MB, 99 * MB);
	disk.total = 0;
	is_disk(&disk, 10, 95 * MB, 90 * MB, 0, 0, "an unknown disk bounds nothing");
	disk.total = 1000 * MB;
	disk.free = 100 * MB;
	is_disk(&disk, 10, 95 * MB, 0, 0, 0, "an unknown redo position needs no room");
	is_disk(&disk, 10, 110 * MB, 90 * MB, 0, 0, "nor does a checkpoint that is overdue");
	is_disk(&disk, 10, 109 * MB, 90 * MB, -1 * mb, 41 * MB, "up to there every byte counts");
	is_disk(&disk, 100, 95 * MB, 90 * MB, -911 * mb, 95 * MB, "all of the disk");

	/* WAL is written, into files that are there and into new ones: the same */
	disk.free = 105 * MB;
	later = disk;
	later.free -= 4 * MB;
	later.end_lsn += 4 * MB;
	is_disk(&disk, 10, 95 * MB, 90 * MB, -6 * mb, 46 * MB, "before a burst");
	is_disk(&disk, 10, 99 * MB, 90 * MB, -6 * mb, 46 * MB, "a burst into files that were there");
	is_disk(&later, 10, 103 * MB, 90 * MB, -6 * mb, 46 * MB, "and beyond");
	/* a checkpoint that removes the six, or keeps them for reuse */
	later = disk;
	put_files(&later, 46 * MB, 99 * MB);
	later.free += 6 * MB;
	is_disk(&later, 10, 95 * MB, 90 * MB, 0, 0, "six were removed");
	later.free -= 6 * MB;
	later.end_lsn += 6 * MB;
	is_disk(&later, 10, 95 * MB, 90 * MB, 0, 0, "six were kept for reuse");

	crelay_disk_bound(&disk, 10, 95 * MB, 90 * MB, 20 * mb, MB, &bound);
	ok(bound.known && bound.reserve == 100 * MB && bound.free == 105 * MB, "what is told of it");
	crelay_disk_bound(&disk, 0, 95 * MB, 90 * MB, 20 * mb, MB, &bound);
	ok(!bound.known, "and nothing when it is switched off");
}

/*
 * The same disk, with ten files missing: what is not freed by holds.
 */
static void
is_kept(const CrelayDisk *disk, uint64_t floor_lsn, CrelayKeeper keeper, const char *what)
{
	CrelayDiskBound bound;

	crelay_disk_bound(disk, 10, 95 * MB, 90 * MB, 20 * MB, MB, &bound);
	ok(bound.left == -10 * (int64_t) MB && bound.floor_lsn == floor_lsn && bound.kept_by == keeper &&
	   (keeper == CRELAY_KEPT_BY_SLOT) == (bound.kept_slot[0] != '\0'), what);
	if (bound.floor_lsn != floor_lsn || bound.kept_by != keeper)
		printf("#   got: %llu, %d, expected: %llu, %d\n", (unsigned long long) bound.floor_lsn,
			   (int) bound.kept_by, (unsigned long long) floor_lsn, (int) keeper);
}

static void
test_kept(void)
{
	CrelayDisk	disk = usual_disk;

	put_files(&disk, 40 * MB, 99 * MB);
	disk.free = 101 * MB;
	disk.slot_name = "s";
	is_kept(&disk, 50 * MB, CRELAY_KEPT_BY_NOTHING, "only holds keep WAL");

	disk.slot_lsn = 60 * MB;
	is_kept(&disk, 50 * MB, CRELAY_KEPT_BY_NOTHING, "a slot that stands high enough");
	disk.slot_lsn = 50 * MB;
	is_kept(&disk, 50 * MB, CRELAY_KEPT_BY_NOTHING, "a slot just there");
	disk.slot_lsn = 50 * MB - 1;
	is_kept(&disk, 49 * MB, CRELAY_KEPT_BY_SLOT, "a slot one byte lower keeps a file");
	disk.slot_lsn = 40 * MB + 1;
	is_kept(&disk, 0, CRELAY_KEPT_BY_SLOT, "a slot in the oldest file keeps all");
	disk.max_slot_keep = 60 * MB;
	is_kept(&disk, 0, CRELAY_KEPT_BY_SLOT, "and may");
	disk.max_slot_keep = 50 * MB;
	is_kept(&disk, 45 * MB, CRELAY_KEPT_BY_SLOT, "but for what the server gives up");
	disk.max_slot_keep = 40 * MB + 7;
	is_kept(&disk, 50 * MB, CRELAY_KEPT_BY_NOTHING, "which is enough");

	disk.slot_lsn = 0;
	disk.wal_keep = 45 * MB;
	is_kept(&disk, 50 * MB, CRELAY_KEPT_BY_NOTHING, "wal_keep_size up to there");
	disk.wal_keep = 46 * MB;
	is_kept(&disk, 49 * MB, CRELAY_KEPT_BY_KEEP_SIZE, "wal_keep_size of one file more");
	disk.wal_keep = 55 * MB;
	is_kept(&disk, 0, CRELAY_KEPT_BY_KEEP_SIZE, "wal_keep_size keeps all");
	disk.wal_keep = 500 * MB;
	is_kept(&disk, 0, CRELAY_KEPT_BY_KEEP_SIZE, "and more than there ever was");

	disk.wal_keep = MB - 1;
	disk.unsummarized_lsn = 45 * MB + 5;
	is_kept(&disk, 45 * MB, CRELAY_KEPT_BY_SUMMARY, "what is not summarized");
	disk.slot_lsn = 44 * MB;
	disk.max_slot_keep = -1;
	is_kept(&disk, 44 * MB, CRELAY_KEPT_BY_SLOT, "of two the lower one is named");

	disk = usual_disk;
	put_files(&disk, 40 * MB, 99 * MB);
	disk.free = 101 * MB;
	for (int i = 0; i < disk.nfiles; i++)
		files[i].unarchived = i >= 5;
	is_kept(&disk, 45 * MB, CRELAY_KEPT_BY_ARCHIVER, "what is archived is freed");
	files[3].unarchived = true;
	files[20].unarchived = false;
	is_kept(&disk, 61 * MB, CRELAY_KEPT_BY_ARCHIVER, "wherever it is");
	for (int i = 0; i < disk.nfiles; i++)
		files[i].unarchived = i < 3;
	is_kept(&disk, 53 * MB, CRELAY_KEPT_BY_NOTHING, "or further up, if need be");
	for (int i = 0; i < disk.nfiles; i++)
		files[i].unarchived = true;
	is_kept(&disk, 0, CRELAY_KEPT_BY_ARCHIVER, "nothing is archived");
	disk.slot_lsn = 40 * MB;
	disk.slot_name = "s";
	is_kept(&disk, 0, CRELAY_KEPT_BY_SLOT, "nor would it help");
}

/* ---- what protects ---- */

static void
test_covers(void)
{
	ok(crelay_segment_covers(3 * MB, 3 * MB, MB), "the same LSN");
	ok(crelay_segment_covers(4 * MB - 1, 3 * MB, MB), "later, in the same segment");
	ok(!crelay_segment_covers(4 * MB, 4 * MB - 1, MB), "one byte later, in the next segment");
	ok(crelay_segment_covers(MB, 9 * MB, MB), "earlier");
	ok(!crelay_segment_covers(0, 9 * MB, MB), "nothing is held");
	ok(!crelay_segment_covers(MB, 0, MB), "the need is unknown");
}

static void
test_hops(void)
{
	static const struct
	{
		int			nhops;
		uint64_t	held[3];
		bool		root_known;
		uint64_t	need;
		CrelayTruth expected;
		const char *what;
	}			cases[] =
	{
		{1, {5 * MB}, true, 5 * MB, CRELAY_TRUE, "the root holds just this"},
		{1, {6 * MB}, true, 5 * MB, CRELAY_FALSE, "the root holds from the next segment on"},
		{1, {6 * MB - 1}, true, 5 * MB, CRELAY_TRUE, "the root holds within the segment"},
		{1, {0}, true, 5 * MB, CRELAY_FALSE, "the root holds nothing"},
		{3, {3 * MB, 4 * MB, 5 * MB}, true, 5 * MB, CRELAY_TRUE, "all three hold it"},
		{3, {6 * MB, 4 * MB, 5 * MB}, true, 5 * MB, CRELAY_FALSE, "the root does not"},
		{3, {3 * MB, 6 * MB, 5 * MB}, true, 5 * MB, CRELAY_FALSE, "the one between does not"},
		{3, {3 * MB, 4 * MB, 0}, true, 5 * MB, CRELAY_FALSE, "the feeder has not said"},
		{3, {3 * MB, 4 * MB, 5 * MB}, false, 5 * MB, CRELAY_UNKNOWN, "no root is known"},
		{1, {6 * MB}, false, 5 * MB, CRELAY_UNKNOWN, "an unknown root is not a no"},
		{1, {5 * MB}, true, 0, CRELAY_UNKNOWN, "the need is unknown"},
		{0, {0}, true, 5 * MB, CRELAY_TRUE, "the root itself"},
		{0, {0}, false, 5 * MB, CRELAY_UNKNOWN, "nobody above, and no root"}
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		CrelayHop	hops[3];

		memset(hops, 0, sizeof(hops));
		for (int h = 0; h < 3; h++)
			hops[h].held_lsn = cases[i].held[h];
		ok(crelay_hops_protect(hops, cases[i].nhops, cases[i].root_known,
							   cases[i].need, MB) == cases[i].expected,
		   "protected: %s", cases[i].what);
	}
}

int
main(void)
{
	test_rules(CRELAY_KIND_HOLD, hold_rules,
			   sizeof(hold_rules) / sizeof(Rule), CRELAY_COUNTS_HOLD, "a hold");
	test_rules(CRELAY_KIND_SLOT, slot_rules,
			   sizeof(slot_rules) / sizeof(Rule), CRELAY_COUNTS_SLOT, "a slot");
	test_rules(CRELAY_KIND_WALSENDER, walsender_rules,
			   sizeof(walsender_rules) / sizeof(Rule), CRELAY_COUNTS_WALSENDER,
			   "a walsender");
	test_active_elsewhere();
	test_lost_slot();
	test_bounded_hold();
	test_reported_without_hold();
	test_texts();
	test_alone();
	test_minimum();
	test_remembered();
	test_ties();
	test_zero();
	test_reported();
	test_places();
	test_spare();
	test_random();
	test_limit();
	test_clamp();
	test_disk();
	test_kept();
	test_covers();
	test_hops();
	return done_testing();
}
