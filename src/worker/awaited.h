/*-------------------------------------------------------------------------
 *
 * awaited.h
 *	  The nodes that a new primary waits for, over restarts.
 *
 * Owns: a section of the state file.  When a standby is promoted it still knows
 * the nodes that its former upstream told of.  They may need WAL that only this
 * node's local hold keeps, until they are back below it.  Their names and move
 * counters are written down with the first pass as a primary, so that a restart
 * does not make this node wait for ever.
 *
 * Not here: when a node is back (topology.c), and what is done about it
 * (local_hold.c, check.c).
 *
 * Locking: none of its own.  The worker writes; any process reads.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_AWAITED_H
#define CRELAY_AWAITED_H

#include "postgres.h"

#include "node/tree.h"

typedef struct CrelayAwaited
{
	bool		known;			/* false: it was promoted before this node
								 * could write them down */
	int			n;
	const char *first;			/* by name; NULL: none */
} CrelayAwaited;

extern void crelay_awaited_find(const CrelayTree *tree, CrelayAwaited *awaited);
extern void crelay_awaited_keep(const CrelayTree *tree);
extern void crelay_awaited_drop(void);

#endif							/* CRELAY_AWAITED_H */
