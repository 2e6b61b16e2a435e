/*-------------------------------------------------------------------------
 *
 * tree.h
 *	  The tree as this node knows it, for the SQL functions that read it.
 *
 * Owns: bringing together what the registry knows and the order that
 * topology.c gives it, and what a row's state and lag are when it is shown.
 *
 * Not here: any SQL.
 *
 * Locking: none of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_TREE_H
#define CRELAY_TREE_H

#include "postgres.h"

#include "decide/departed.h"
#include "decide/policy.h"
#include "decide/topology.h"
#include "node/downstream.h"
#include "registry/registry.h"

/* The assembled tree; once local.ready, nodes[0] is this node. */
typedef struct CrelayTree
{
	CrelayLocal local;
	int			nrows;
	CrelayTreeRow *rows;
	CrelayNode *nodes;
	int			nnodes;
	int			first_above;	/* of the nodes that the upstream told of */
	bool		heard_above;	/* it has told of them, since the start, and
								 * all have found room */
} CrelayTree;

extern CrelayTree *crelay_tree_read(void);
extern CrelayTree *crelay_tree_for_policy(CrelayPolicyTree *policy);
extern void crelay_tree_judge(const CrelayTree *tree, CrelayPolicyTree *policy);
extern void crelay_tree_newest_primary(const CrelayPolicyTree *policy,
									   CrelayNewestPrimary *newest);
extern CrelayKnown *crelay_tree_known(CrelaySnapshot *snapshot, int *n);
extern bool crelay_tree_knows_below(const CrelaySnapshot *snapshot, int child);
extern bool crelay_tree_is_local(const CrelayTree *tree, const CrelayTreeRow *row);
extern CrelayState crelay_tree_state(const CrelayTree *tree,
									 const CrelayTreeRow *row);
extern uint32 crelay_tree_warnings(const CrelayTree *tree, const CrelayTreeRow *row);
extern char **crelay_tree_ids(const CrelayTree *tree);
extern CrelayPlanReason crelay_tree_breach(const CrelayTree *tree, int row);
extern int64 crelay_tree_lag(const CrelayTree *tree, const CrelayTreeRow *row);

#endif							/* CRELAY_TREE_H */
