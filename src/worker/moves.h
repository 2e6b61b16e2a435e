/*-------------------------------------------------------------------------
 *
 * moves.h
 *	  The move counters: this node's own, and what its children have told.
 *
 * Owns: two sections of the state file.
 *
 * A node's counter says how often it has become protected on another path to
 * the root.  It is raised once the path (names and incarnations) has been
 * another one in between, however briefly, and every node above holds this
 * node's frontier, so the need of all that is below it as well.  It is on disk
 * before it is shown.  A node with a hold or a slot for a node that has left
 * compares the counter in that node's row with the highest one which that node
 * has told it directly.  A higher one means: after the node was here, it has been
 * protected elsewhere, with all below it; what is kept for it here may go.  No
 * clock is compared, and no age.
 *
 * What a child tells is on disk before its report is answered, or else a crash
 * could make a counter look raised that was told before.  A child that has told
 * nothing releases nothing.
 *
 * Not here: the comparison (downstream.c), and what is dropped (release.c).
 *
 * Locking: none of its own; the counters that children have told live in the
 * registry.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_MOVES_H
#define CRELAY_MOVES_H

#include "postgres.h"

#include "node/downstream.h"
#include "registry/registry.h"

extern void crelay_moves_start(MemoryContext context, bool new_server);
extern void crelay_moves_count(CrelayLocal *local);
extern void crelay_moves_keep_told(const CrelayDownstream *downstreams, int n);
extern void crelay_moves_save_told(void);

#endif							/* CRELAY_MOVES_H */
