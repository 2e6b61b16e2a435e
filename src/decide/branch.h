/*-------------------------------------------------------------------------
 *
 * branch.h
 *	  What a node may say of the nodes below it, as a pure decision.
 *
 * Owns: which rows of a report are believed.  A report is one node's word; the
 * rows in it may be about itself and what hangs below it, and about nobody
 * else: not about a primary, not about those whom the receiver knows better.
 * That a node is live somewhere is not to be said by two; that it is away may
 * be said by anybody whom it has left.
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

#include "decide/node.h"

/* What a row counts for. */
typedef enum CrelayBelief
{
	CRELAY_DISBELIEVED = 0,		/* nothing */
	CRELAY_BELIEF_CONTESTED,	/* its node, or one that it hangs below, is
								 * known to live elsewhere: evidence, and not
								 * to be drawn */
	CRELAY_BELIEVED
} CrelayBelief;

/* What the receiver knows of an incarnation. */
typedef enum CrelayBranchDoubt
{
	CRELAY_DOUBT_NONE = 0,
	CRELAY_DOUBT_ELSEWHERE,		/* it is live in another branch */
	CRELAY_DOUBT_ALL			/* nothing that is said of it counts */
} CrelayBranchDoubt;

/* A row's place in an order of incarnations: its own, or its upstream's. */
typedef struct CrelayBranchKey
{
	uint32_t	incarnation;
	int			at;
} CrelayBranchKey;

/* Workspace: of a row, and, where its keys begin, of an incarnation. */
typedef struct CrelayBranchWork
{
	int			first_key;		/* of the row's own incarnation */
	int			queued;			/* what is found, in the order in which it is */
	CrelayBranchDoubt doubt;
	bool		walked;			/* what hangs below that incarnation is found */
} CrelayBranchWork;

/* The rows of one report.  All arrays are the caller's, with room for n. */
typedef struct CrelayBranch
{
	int			n;
	CrelayNode *nodes;
	CrelayBelief *beliefs;
	CrelayBranchKey *keys;		/* sorted */
	CrelayBranchKey *below;		/* likewise, by the upstream */
	CrelayBranchWork *work;
	int			contested;		/* so many rows are */
	bool		too_deep;		/* rows were left out for that */
} CrelayBranch;

extern void crelay_branch_begin(CrelayBranch *branch);
extern void crelay_branch_disbelieve(CrelayBranch *branch, uint32_t incarnation);
extern void crelay_branch_contest(CrelayBranch *branch, uint32_t incarnation);
extern int	crelay_branch_finish(CrelayBranch *branch, const CrelayNode *sender);

#endif							/* CRELAY_BRANCH_H */
