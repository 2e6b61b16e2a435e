/*-------------------------------------------------------------------------
 *
 * lost_slots.h
 *	  Slots that the server has invalidated, and what they kept before.
 *
 * Owns: what ordinary slots keep, from one pass to the next and over restarts; and
 * how long an invalidated slot goes on counting by that.  Its WAL may be gone here;
 * the nodes above have it as long as this node asks for it, and the slot's node can
 * be pointed at one of them.
 *
 * A slot is remembered only if it was seen while it was valid.  The memory ends when
 * the slot is missing or valid again, so that one that is made anew under its name
 * inherits nothing; on a primary, which has no node above; when no node above holds
 * that WAL any more; and hold_timeout after the slot was lost.
 *
 * Not here: whether a slot counts (frontier.c), and what is said of a lost one
 * (check.c).
 *
 * Locking: none of its own.  Runs in the worker only; others read the copy in
 * the registry.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_LOST_SLOTS_H
#define CRELAY_LOST_SLOTS_H

#include "postgres.h"

#include "node/downstream.h"
#include "registry/registry.h"
#include "server/guc.h"

extern void crelay_lost_slots_start(MemoryContext context, bool new_server);
extern void crelay_lost_slots_run(const CrelaySettings *settings, const CrelayLocal *local,
								  const CrelayDownstream *downstreams, int n,
								  bool in_recovery, int64 elapsed);
extern void crelay_lost_slots_stop(void);

#endif							/* CRELAY_LOST_SLOTS_H */
