/*-------------------------------------------------------------------------
 *
 * departed.h
 *	  Where a node lives that was seen below a departed one, as a pure decision.
 *
 * Owns: whether such a node needs nothing any more of what is kept here: it is
 * live and protected elsewhere, and it has moved since.
 *
 * Not here: where the rows come from (tree.c), what is kept (downstream.c), and
 * what is done about it (forget_funcs.c, check.c).
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_DEPARTED_H
#define CRELAY_DEPARTED_H

#include "decide/node.h"
#include "decide/topology.h"

/* A row about a node, and the source of it. */
typedef struct CrelayKnown
{
	const CrelayNode *node;
	int			origin;
} CrelayKnown;

extern void crelay_departed_sort(CrelayKnown *known, int n);
extern const CrelayNode *crelay_departed_find(const CrelayKnown *known, int n,
											  const CrelayNode *node,
											  const CrelayNode *departed,
											  int origin, bool *safe);

#endif							/* CRELAY_DEPARTED_H */
