/*-------------------------------------------------------------------------
 *
 * test_backoff.c
 *	  Tests of the waiting after failures, as a plain program that prints TAP.
 *
 * Owns: what backoff.h promises, seen from outside: the bounds of each wait,
 * and fifty nodes that lose one upstream at the same moment.
 *
 *	  cc -std=gnu99 -Isrc -It/unit -g -fsanitize=address,undefined \
 *		  t/unit/test_backoff.c src/backoff.c -o test_backoff && ./test_backoff
 *
 *-------------------------------------------------------------------------
 */
#include "decide/backoff.h"
#include "tap.h"

#include <limits.h>
#include <stdlib.h>

#define ALMOST_ONE		0.9999999
#define MS				INT64_C(1000)
#define SECOND			INT64_C(1000000)

#define NODES			50
#define WINDOW			(10 * MS)
#define MAX_ATTEMPTS	4096

static uint64_t random_state;

static double
chance(void)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (double) (random_state >> 11) / (double) (UINT64_C(1) << 53);
}

static void
is_between(int64_t got, int64_t low, int64_t high, const char *what)
{
	ok(got >= low && got <= high, "%s: %lld us", what, (long long) got);
}

static void
test_bounds(void)
{
	static const int64_t middle[] = {250, 500, 1000, 2000, 4000, 8000, 10000, 10000};

	for (int i = 0; i < (int) (sizeof(middle) / sizeof(middle[0])); i++)
	{
		is_between(crelay_backoff_us(i + 1, 0), middle[i] * MS * 3 / 4, middle[i] * MS * 3 / 4,
				   "no less than a quarter less");
		is_between(crelay_backoff_us(i + 1, ALMOST_ONE), middle[i] * MS, middle[i] * MS * 5 / 4,
				   "no more than a quarter more");
	}
	is_between(crelay_backoff_us(INT_MAX, 0.5), 10 * SECOND, 10 * SECOND, "however often it failed");
	is_between(crelay_backoff_us(0, 0.5), 250 * MS, 250 * MS, "and if it never did");
	is_between(crelay_backoff_us(INT_MIN, 0.5), 250 * MS, 250 * MS, "or less than that");
	is_between(crelay_backoff_soon_us(0), 0, 0, "soon is now");
	is_between(crelay_backoff_soon_us(ALMOST_ONE), 249 * MS, 250 * MS, "or a quarter of a second later");
}

static int
compare_times(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

/* The most attempts within one window. */
static int
densest(int64_t *at, int n)
{
	int			first = 0;
	int			most = 0;

	qsort(at, (size_t) n, sizeof(at[0]), compare_times);
	for (int i = 0; i < n; i++)
	{
		while (at[i] - at[first] >= WINDOW)
			first++;
		if (i - first + 1 > most)
			most = i - first + 1;
	}
	return most;
}

/*
 * An upstream that goes away for a while.  All notice at once; each tries again
 * by its own clock until the upstream is back.
 */
static void
test_outage(int64_t away)
{
	static int64_t at[MAX_ATTEMPTS];
	int64_t		last = 0;
	int			n = 0;

	for (int node = 0; node < NODES; node++)
	{
		int64_t		now = 0;

		for (int failures = 1; n < MAX_ATTEMPTS; failures++)
		{
			now += crelay_backoff_us(failures, chance());
			at[n++] = now;
			if (now >= away)
				break;
		}
		if (now > last)
			last = now;
	}
	ok(n < MAX_ATTEMPTS && n <= NODES * (8 + away / (7 * SECOND)),
	   "away for %lld ms: %d attempts in all", (long long) (away / MS), n);
	ok(last <= away + 12500 * MS, "all are back %lld ms after it", (long long) ((last - away) / MS));
	ok(densest(at, n) <= 14, "at most %d of them came within 10 ms", densest(at, n));
}

/*
 * One that comes back, and all see their WAL come back first.
 */
static void
test_return(void)
{
	int64_t		at[NODES];

	for (int node = 0; node < NODES; node++)
		at[node] = crelay_backoff_soon_us(chance());
	ok(densest(at, NODES) <= 10, "when all are called back, at most %d come within 10 ms",
	   densest(at, NODES));
}

int
main(void)
{
	test_bounds();
	for (random_state = 1; random_state <= 5; random_state++)
	{
		uint64_t	seed = random_state;

		printf("# seed %llu\n", (unsigned long long) seed);
		test_outage(1 * MS);
		test_outage(SECOND);
		test_outage(10 * SECOND);
		test_outage(300 * SECOND);
		test_return();
		random_state = seed;
	}
	return done_testing();
}
