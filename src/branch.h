/*-------------------------------------------------------------------------
 *
 * branch.h
 *	  What a node may say of the nodes below it, as a pure decision.
 *
 * Owns: which rows of a report are believed.  A report is one node's word; the
 * rows in it may be about itself and what hangs below it, and about nobody
 * else: not about a primary, not about those whom the receiver knows better.
 *
 * Not here: whom the receiver knows better, and what becomes of the rows
 * (registry.c).
 *
 * Locking: none, and no allocation, so that it can be used under a lock.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_BRANCH_H
#define CRELAY_BRANCH_H

#include "node.h"

typedef enum CrelayBelief
{
	CRELAY_BELIEF_OPEN = 0,
	CRELAY_BELIEF_WALKED,		/* on the way that is being looked at */
	CRELAY_BELIEVED,
	CRELAY_DISBELIEVED
} CrelayBelief;

/* A row's place in the order of incarnations. */
typedef struct CrelayBranchKey
{
	uint32_t	incarnation;
	int			at;
} CrelayBranchKey;

/* The rows of one report.  All arrays are the caller's, with room for n. */
typedef struct CrelayBranch
{
	int			n;
	CrelayNode *nodes;
	CrelayBelief *beliefs;
	CrelayBranchKey *keys;		/* sorted */
} CrelayBranch;

extern void crelay_branch_begin(CrelayBranch *branch);
extern void crelay_branch_disbelieve(CrelayBranch *branch, uint32_t incarnation);
extern int	crelay_branch_finish(CrelayBranch *branch, uint32_t incarnation);

#endif							/* CRELAY_BRANCH_H */
