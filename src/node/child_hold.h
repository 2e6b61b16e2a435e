/*-------------------------------------------------------------------------
 *
 * child_hold.h
 *	  Where a managed child's hold is wanted, under which rules.
 *
 * Owns: what is asked of hold.c for a child - how far the bounds let it reach
 * back, and under which cover.  A report asks so, and so does the worker when
 * it places a hold again that somebody else has dropped, so that both go by the
 * same rules.  And that the server does not take a hold that counts for idle.
 *
 * Not here: whether it is asked at all (report_funcs.c, lost_holds.c), and doing it
 * (hold.c).
 *
 * Locking: none of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_CHILD_HOLD_H
#define CRELAY_CHILD_HOLD_H

#include "postgres.h"

#include "node/hold.h"
#include "registry/registry.h"
#include "server/guc.h"

typedef struct CrelayChildHold
{
	CrelayHoldRequest request;
	char		cover[CRELAY_SLOT_LEN]; /* what the request may point to */
	bool		bounded;		/* a bound keeps it from what is wanted */
	bool		released;		/* a release does */
} CrelayChildHold;

extern void crelay_child_hold_want(CrelayChildHold *hold, const char *slot_name,
								   uint64 wanted, const CrelayPosition *position);
extern void crelay_child_hold_touch(const CrelayDownstream *downstreams, int n,
									TimestampTz now);

#endif							/* CRELAY_CHILD_HOLD_H */
