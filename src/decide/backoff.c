/*-------------------------------------------------------------------------
 *
 * backoff.c
 *	  How long to wait before trying again, as a pure decision.
 *
 * Owns, leaves out and locks: see backoff.h.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/backoff.h"

/* Doubled with each failure, within these bounds, and a quarter more or less. */
#define MIN_MS		250
#define MAX_MS		10000
#define LEAST		0.75
#define SPREAD		0.5

/*
 * How long to wait after that many failures in a row.  Chance is from 0 to less
 * than 1.
 */
int64_t
crelay_backoff_us(int failures, double chance)
{
	int64_t		ms = MIN_MS;

	for (int i = 1; i < failures && ms < MAX_MS; i++)
		ms *= 2;
	if (ms > MAX_MS)
		ms = MAX_MS;
	return (int64_t) ((double) ms * 1000 * (LEAST + SPREAD * chance));
}

/*
 * The longest wait of all.
 */
int64_t
crelay_backoff_max_us(void)
{
	return (int64_t) (MAX_MS * 1000.0 * (LEAST + SPREAD));
}

/*
 * How long to wait when something has happened that others will have seen too,
 * and that makes it likely that the next attempt succeeds.
 */
int64_t
crelay_backoff_soon_us(double chance)
{
	return (int64_t) (MIN_MS * 1000 * chance);
}
