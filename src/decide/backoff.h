/*-------------------------------------------------------------------------
 *
 * backoff.h
 *	  How long to wait before trying again, as a pure decision.
 *
 * Owns: the schedule after failures.  Many nodes lose one upstream at the same
 * moment: they must not come back in step, nor all at once.
 *
 * Not here: what a failure is (exchange.c), and chance, which is an argument.
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_BACKOFF_H
#define CRELAY_BACKOFF_H

#include "decide/node.h"

extern int64_t crelay_backoff_us(int failures, double chance);
extern int64_t crelay_backoff_max_us(void);
extern int64_t crelay_backoff_soon_us(double chance);

#endif							/* CRELAY_BACKOFF_H */
