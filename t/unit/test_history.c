/*-------------------------------------------------------------------------
 *
 * test_history.c
 *	  Tests of the histories of timelines, as a plain program that prints TAP.
 *
 * Owns: what history.h promises, seen from outside: which positions a history
 * leads through, also where it is known in part only, and which two nodes may
 * compare their LSNs.
 *
 *	  cc -std=gnu99 -Isrc -It/unit -g -fsanitize=address,undefined \
 *		  t/unit/test_history.c src/history.c -o test_history && ./test_history
 *
 *-------------------------------------------------------------------------
 */
#include "history.h"
#include "tap.h"

#define END		UINT64_MAX

/*
 * A history: the current timeline, and pairs of an earlier one and its end, the
 * latest first, until a timeline of 0.
 */
static CrelayHistory
history_of(uint32_t timeline, const CrelaySwitch *left)
{
	CrelayHistory history = {0};

	history.timeline = timeline;
	for (; left != NULL && left->timeline != 0; left++)
		history.left[history.n++] = *left;
	return history;
}

/* ---- where a history leads ---- */

static void
test_contains(void)
{
	/* 1 was left at 100 for 3, and that at 250 for 4; 2 was somebody else's */
	static const CrelaySwitch left[] = {{3, 250}, {1, 100}, {0, 0}};
	CrelayHistory history = history_of(4, left);
	CrelayHistory first = history_of(1, NULL);
	CrelayHistory unknown = {0};

	struct
	{
		uint32_t	timeline;
		uint64_t	lsn;
		bool		there;
		const char *what;
	}			cases[] =
	{
		{4, 0, true, "the current timeline from its first byte"},
		{4, END, true, "the current timeline has no end"},
		{3, 250, true, "an earlier one up to where it was left"},
		{3, 251, false, "and not one byte further"},
		{3, 0, true, "its beginning is not looked at: what lies before is common"},
		{1, 100, true, "the earliest up to where it was left"},
		{1, 101, false, "and not one byte further"},
		{1, 250, false, "the end of another timeline is not its own"},
		{2, 1, false, "a timeline that was never on the way"},
		{5, 1, false, "one that is yet to come"},
		{0, 1, false, "none at all"},
		{END & 0xffffffff, END, false, "the last number that there is"}
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		ok(crelay_history_contains(&history, cases[i].timeline, cases[i].lsn) == cases[i].there,
		   "%s", cases[i].what);

	ok(crelay_history_contains(&first, 1, END), "who was never promoted is on timeline 1 for good");
	ok(!crelay_history_contains(&first, 2, 0), "and on no other");
	ok(!crelay_history_contains(&unknown, 1, 1), "a history that is not known leads nowhere");
}

/*
 * There is room for so many switches; of a longer history the latest are known.
 */
static void
test_truncated(void)
{
	CrelayHistory history = {0};

	history.timeline = 1000;
	history.n = CRELAY_MAX_HISTORY;
	for (uint32_t i = 0; i < history.n; i++)
	{
		history.left[i].timeline = 999 - i * 2;
		history.left[i].lsn = 9000 - i * 100;
	}
	/* the last one known is 999 - 62 = 937, left at 5900 */
	ok(crelay_history_contains(&history, 937, 5900), "the earliest that is known, up to its end");
	ok(!crelay_history_contains(&history, 937, 5901), "and no further");
	ok(!crelay_history_contains(&history, 938, 1), "one between two that are known was never on the way");
	ok(crelay_history_contains(&history, 936, 1), "what lies before is taken to be common");
	ok(crelay_history_contains(&history, 1, END), "however far it went");
	ok(!crelay_history_contains(&history, 1001, 1), "what lies after is not");

	/* one less: then everything is known */
	history.n--;
	ok(!crelay_history_contains(&history, 937, 5900), "a history that fits has nothing before it");
	ok(!crelay_history_contains(&history, 1, 1), "not even the first timeline, if it is not in it");
}

/* ---- whether two may compare ---- */

typedef struct Place
{
	const char *who;
	uint32_t	timeline;
	CrelaySwitch left[3];
	uint64_t	lsn;
} Place;

static void
test_agrees(void)
{
	/*
	 * Timeline 1 goes on to 200 and further with its old primary; it was left
	 * at 100 for 2, and that at 150 for 3.  4 was made of 1, too, at 120.
	 */
	static const Place places[] = {
		{"the old primary before the switch", 1, {{0, 0}}, 90},
		{"a node at the switch", 1, {{0, 0}}, 100},
		{"the old primary, gone on", 1, {{0, 0}}, 130},
		{"a node on 2", 2, {{1, 100}, {0, 0}}, 140},
		{"the end of 2", 2, {{1, 100}, {0, 0}}, 150},
		{"2, gone on", 2, {{1, 100}, {0, 0}}, 151},
		{"a node on 3", 3, {{2, 150}, {1, 100}, {0, 0}}, 300},
		{"a node on 4", 4, {{1, 120}, {0, 0}}, 300}
	};

	/* row and column: as above */
	static const char *const together[] = {
		"********",
		"********",
		"***.....",
		"**.****.",
		"**.****.",
		"**.***..",
		"**.**.*.",
		"**.....*"
	};
	int			n = sizeof(places) / sizeof(places[0]);

	for (int a = 0; a < n; a++)
	{
		CrelayHistory ours = history_of(places[a].timeline, places[a].left);

		for (int b = 0; b < n; b++)
		{
			CrelayHistory theirs = history_of(places[b].timeline, places[b].left);
			bool		expected = together[a][b] == '*';

			ok(crelay_history_agrees(&ours, places[a].lsn, &theirs, places[b].lsn) == expected,
			   "%s and %s: %s", places[a].who, places[b].who, expected ? "one history" : "two");
		}
	}
}

/*
 * A child says where it left the old timeline with its tree part only; its
 * current timeline is known with every report.
 */
static void
test_current_alone(void)
{
	static const CrelaySwitch left[] = {{1, 100}, {0, 0}};
	CrelayHistory promoted = history_of(2, left);
	CrelayHistory alone = history_of(2, NULL);
	CrelayHistory behind = history_of(1, NULL);

	ok(crelay_history_agrees(&promoted, 140, &behind, 100),
	   "a child that has not followed yet needs no history");
	ok(!crelay_history_agrees(&promoted, 140, &behind, 101), "nor does one that never will");
	ok(crelay_history_agrees(&behind, 100, &promoted, 140),
	   "a child ahead of its feeder is known by its history");
	ok(!crelay_history_agrees(&behind, 101, &promoted, 140),
	   "and so is one that the feeder cannot follow any more");
	ok(!crelay_history_agrees(&behind, 90, &alone, 140),
	   "without its history nothing shows that it is ahead");
	ok(crelay_history_agrees(&alone, 90, &alone, 140), "on one timeline nothing else is looked at");
}

/*
 * The order of the two does not matter, and a node always agrees with itself.
 */
static void
test_random(void)
{
	int			wrong = 0;
	int			agreed = 0;

	for (int round = 0; round < 20000; round++)
	{
		CrelayHistory h[2];
		uint64_t	lsn[2];
		bool		agrees;

		for (int i = 0; i < 2; i++)
		{
			memset(&h[i], 0, sizeof(h[i]));
			h[i].timeline = 1 + random_below(6);
			lsn[i] = random_below(100);
			for (uint32_t t = h[i].timeline - 1; t > 0; t--)
			{
				if (random_below(3) == 0)
					continue;
				h[i].left[h[i].n].timeline = t;
				h[i].left[h[i].n++].lsn = random_below(100);
			}
		}
		agrees = crelay_history_agrees(&h[0], lsn[0], &h[1], lsn[1]);
		agreed += agrees;
		if (agrees != crelay_history_agrees(&h[1], lsn[1], &h[0], lsn[0]) ||
			!crelay_history_agrees(&h[0], lsn[0], &h[0], lsn[0]))
			wrong++;
	}
	ok(wrong == 0, "it does not matter who asks");
	ok(agreed > 2000 && agreed < 18000, "%d of 20000 agreed", agreed);
}

int
main(void)
{
	test_contains();
	test_truncated();
	test_agrees();
	test_current_alone();
	test_random();
	return done_testing();
}
