/*-------------------------------------------------------------------------
 *
 * topology.h
 *	  Assembling the tree from what is known of its nodes, as a pure decision.
 *
 * Owns: the order of the rows (root first, then depth first, siblings by
 * name), depth, paths, and what to do with nodes whose upstream is not there
 * or that lie on a cycle; whom a node that was promoted still waits for.  Also
 * the texts of the row's enums.
 *
 * Not here: where the nodes come from (registry.c), how a row looks in SQL
 * (topology_funcs.c).
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_TOPOLOGY_H
#define CRELAY_TOPOLOGY_H

#include "decide/node.h"

/* One row of the assembled tree; the links are indexes, -1 for none. */
typedef struct CrelayTreeRow
{
	int			node;			/* in the array that was given */
	int			parent;			/* row of its upstream, -1 at the top */
	int			depth;			/* 0: the root; 1: top of an orphaned part */
	bool		has_next;		/* another one below its upstream follows */
	bool		cyclic;			/* lies on a cycle of upstreams */
	bool		below_cycle;	/* not on it, but fed by one that is */
} CrelayTreeRow;

/* Workspace of the assembly, one for each node. */
typedef struct CrelayTreeLink
{
	int			sorted;			/* nodes in the order of their keys */
	int			parent;			/* node */
	int			first_child;
	int			next_sibling;
	int			row;			/* where it was drawn, -1 not yet */
} CrelayTreeLink;

extern int	crelay_topology_assemble(const CrelayNode *nodes, int n,
									 CrelayTreeLink *links,
									 CrelayTreeRow *rows);
extern void crelay_topology_age(CrelayNode *nodes, int n, int64_t now,
								int64_t stale_after, uint32_t own_path_ms);
extern int	crelay_topology_awaited(const CrelayNode *nodes, int n, int first_above,
									const CrelayNode **room, const char **first);
extern bool crelay_state_is_live(CrelayState state);
extern const char *crelay_state_text(CrelayState state);
extern const char *crelay_role_text(CrelayRole role);
extern const char *crelay_class_text(CrelayClass replica_class);
extern const char *crelay_warning_text(uint32_t bit);

#endif							/* CRELAY_TOPOLOGY_H */
