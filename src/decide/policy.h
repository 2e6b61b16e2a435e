/*-------------------------------------------------------------------------
 *
 * policy.h
 *	  Where a node should stream from, as a pure decision.
 *
 * Owns: the rules by which one node may stream from another, their order of
 * precedence, the plan for a request, the ranking of all candidates, and
 * whether a node's actual upstream breaks the rules; also the oldest LSN that
 * anybody in a tree still needs.
 *
 * Not here: where the tree comes from (tree.c), how an answer looks in SQL
 * and what commands go with it (policy_funcs.c).
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_POLICY_H
#define CRELAY_POLICY_H

#include "decide/history.h"
#include "decide/node.h"
#include "decide/topology.h"

/*
 * Why a node may not stream from another one, in the order of precedence: if
 * several apply, the first is the reason given.  What no other class and no
 * later moment would change comes first, then what the class forbids, then
 * what may pass.
 */
typedef enum CrelayPlanReason
{
	CRELAY_PLAN_OK = 0,
	CRELAY_PLAN_SELF_REFERENCE,
	CRELAY_PLAN_CYCLE,
	CRELAY_PLAN_UNKNOWN_UPSTREAM,
	CRELAY_PLAN_TWO_PRIMARIES,
	CRELAY_PLAN_VOTING_DIRECT_ONLY,
	CRELAY_PLAN_TIMELINE_DIVERGED,
	CRELAY_PLAN_NOT_AVAILABLE,
	CRELAY_PLAN_WAL_UNAVAILABLE,
	CRELAY_PLAN_NO_ROOM
} CrelayPlanReason;

#define CRELAY_PLAN_REASON_LAST CRELAY_PLAN_NO_ROOM

/* What is not known of a choice that nothing is known to speak against. */
typedef enum CrelayUnproven
{
	CRELAY_UNPROVEN_NONE = 0,
	CRELAY_UNPROVEN_CLASS,		/* whether the node is voting */
	CRELAY_UNPROVEN_ANY,		/* whether others vote when it has left */
	CRELAY_UNPROVEN_TIMELINE,	/* whether the histories agree */
	CRELAY_UNPROVEN_WAL			/* whether the WAL is there */
} CrelayUnproven;

/* An assembled tree, and what it takes to judge it. */
typedef struct CrelayPolicyTree
{
	const CrelayNode *nodes;
	const CrelayTreeRow *rows;
	int			nrows;
	bool		has_here;		/* nodes[0] is the node that shows this tree */
	const CrelayHistory *history;	/* one that is known, or NULL */
	uint32_t	newest_primary; /* highest timeline of a primary, 0 unknown */
	uint64_t	segment_size;
	CrelayRoom *left;			/* places left on each row's node, as those
								 * who move take them; NULL: as the nodes say */
} CrelayPolicyTree;

typedef struct CrelayPlanQuestion
{
	const char *node_name;		/* need not be in the tree */
	CrelayClass replica_class;
	const char *requested;		/* NULL or empty: nothing is asked for */
	bool		has_conninfo;	/* of what is requested */

	/* what the requested node itself has answered; UNKNOWN: not asked */
	CrelayRole	seen_role;
	uint32_t	seen_timeline;
} CrelayPlanQuestion;

typedef struct CrelayPlan
{
	int			upstream;		/* row, -1: none, or not in the tree */
	bool		as_requested;	/* what was asked for is granted */
	bool		is_cascade;
	CrelayPlanReason refusal;
} CrelayPlan;

typedef enum CrelayVerdict
{
	CRELAY_VERDICT_SAFE,
	CRELAY_VERDICT_UNPROVEN,	/* nothing speaks against it, but not all is
								 * known */
	CRELAY_VERDICT_REFUSED
} CrelayVerdict;

typedef struct CrelayCandidateQuestion
{
	const char *node_name;
	const char *without;		/* NULL: everybody is there */
	const char *location;		/* NULL: where the node says it is */
} CrelayCandidateQuestion;

typedef struct CrelayCandidate
{
	int			upstream;		/* row */
	int			rank;			/* from 1; 0: not a safe choice */
	CrelayVerdict verdict;
	CrelayPlanReason reason;	/* why it is refused */
	CrelayUnproven unproven;	/* why it is not proven */
	bool		current;		/* the node streams from it now */
	CrelayTruth same_location;
	int			hops;			/* from the root to the node; -1 unknown */
	int64_t		missing_wal;	/* bytes; -1 unknown */

	/* workspace */
	bool		rooted;			/* the way from there to a primary will last */
	bool		below;			/* it lies below the node */
	int			top;			/* row that its part of the tree hangs from */
} CrelayCandidate;

extern const char *crelay_plan_reason_text(CrelayPlanReason reason);
extern const char *crelay_plan_reason_hint(CrelayPlanReason reason);
extern const char *crelay_verdict_text(CrelayVerdict verdict);
extern const char *crelay_unproven_text(CrelayUnproven unproven);

extern int	crelay_policy_here(const CrelayPolicyTree *tree);
extern bool crelay_policy_prefers(const CrelayPolicyTree *tree, int row,
								  int other);
extern int	crelay_policy_find(const CrelayPolicyTree *tree, const char *name);
extern bool crelay_policy_is_ambiguous(const CrelayPolicyTree *tree,
									   const char *name);
extern const char *crelay_policy_address(const CrelayPolicyTree *tree, int row,
										 int upstream);
extern int	crelay_policy_primary(const CrelayPolicyTree *tree, const char *without);
extern int	crelay_policy_newest_primary(const CrelayPolicyTree *tree);
extern void crelay_policy_plan(const CrelayPolicyTree *tree,
							   const CrelayPlanQuestion *question,
							   CrelayPlan *plan);
extern int	crelay_policy_candidates(const CrelayPolicyTree *tree,
									 const CrelayCandidateQuestion *question,
									 CrelayCandidate *candidates);
extern void crelay_policy_count_room(CrelayPolicyTree *tree, CrelayRoom *left,
									 const char *without);
extern void crelay_policy_take_room(const CrelayPolicyTree *tree, int row,
									const CrelayCandidate *best);
extern CrelayPlanReason crelay_policy_breach(const CrelayNode *node, bool cyclic,
											 CrelayTruth cascades);
extern CrelayPlanReason crelay_policy_row_breach(const CrelayPolicyTree *tree,
												 int row);
extern uint64_t crelay_policy_oldest_need(const CrelayPolicyTree *tree, int own,
										  uint64_t own_target);

#endif							/* CRELAY_POLICY_H */
