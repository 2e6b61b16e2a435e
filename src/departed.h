/*-------------------------------------------------------------------------
 *
 * departed.h
 *	  Whether what a node left behind may go, as a pure decision.
 *
 * Owns: where the nodes are now that were below somebody who is gone, and
 * whether a whole branch is protected where it is, as its nodes have proven.
 *
 * Not here: where the nodes come from (registry.c), and what is done about it
 * (forget_funcs.c, release.c, check.c).  No clock, no lock, no setting is read:
 * everything is an argument.
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_DEPARTED_H
#define CRELAY_DEPARTED_H

#include "node.h"
#include "proof.h"
#include "topology.h"

/*
 * Of so many rows that say where a node lives now, one that it has proven is
 * found.
 */
#define CRELAY_DEPARTED_CLAIMS	256

/* A row about a node, and who has said so. */
typedef struct CrelayKnown
{
	const CrelayNode *node;
	int			origin;
} CrelayKnown;

/* A node that has left, and what it and those below it showed before. */
typedef struct CrelayDeparted
{
	const char *name;
	uint32_t	incarnation;
	CrelayProof proof;
	const CrelayKnown *known;	/* sorted; of that origin are its own rows */
	int			nknown;
	int			origin;
	bool		incomplete;		/* there were others below it, or are now */
} CrelayDeparted;

extern void crelay_departed_sort(CrelayKnown *known, int n);
extern const CrelayNode *crelay_departed_find(const CrelayKnown *known, int n,
											  const CrelayNode *node,
											  const CrelayNode *departed,
											  int origin, bool *safe);
extern bool crelay_departed_branch_is_safe(const CrelayNode *nodes,
										   const CrelayTreeRow *rows, int nrows,
										   const CrelayDeparted *departed,
										   uint32_t here);

#endif							/* CRELAY_DEPARTED_H */
