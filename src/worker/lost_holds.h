/*-------------------------------------------------------------------------
 *
 * lost_holds.h
 *	  Holds that somebody else has dropped, of nodes that are away.
 *
 * Owns: which holds there were, from one pass to the next and over restarts; and
 * placing one again that is gone.  A node that reports gets its hold back with
 * the next report.  One that is away cannot ask for it, and that is when it
 * matters: an HA manager drops the slots that it does not know when nobody uses
 * them.
 *
 * What is remembered is no node of the tree, nor a child: it stands for the slot
 * that was there, and takes part as that did.  So it cannot hide a node that is
 * above this one in truth, when this one does not know that yet.
 *
 * Nobody misses what this node has let go of by itself, or for whoever asked it
 * to: the hold of a node that was released or forgotten, or is above this one.
 *
 * The state file says which holds there were when the server stopped, for those
 * that are dropped before this process has looked around.
 *
 * Not here: where the hold is wanted (child_hold.c), doing it (hold.c), and what
 * is said of it (check.c).
 *
 * Locking: none of its own.  Runs in the worker only; others read the copy in
 * the registry.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_LOST_HOLDS_H
#define CRELAY_LOST_HOLDS_H

#include "postgres.h"

#include "node/bounds.h"
#include "node/downstream.h"
#include "registry/registry.h"

extern void crelay_missed_start(MemoryContext context, bool new_server);
extern void crelay_missed_save_without(const char *const *slot_names, int n);
extern void crelay_missed_place(CrelayDownstream *d, const CrelaySnapshot *snapshot,
								const CrelayPosition *position, TimestampTz now);
extern void crelay_missed_note(const CrelayDownstream *d, const CrelayBounds *bounds,
							   CrelayHoldNote *note);
extern void crelay_missed_save(const CrelayHoldNote *notes, int n, bool all);
extern void crelay_missed_stop(void);

#endif							/* CRELAY_LOST_HOLDS_H */
