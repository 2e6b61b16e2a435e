/*-------------------------------------------------------------------------
 *
 * policy.c
 *	  Where a node should stream from, as a pure decision.
 *
 * Owns, leaves out and locks: see policy.h.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/policy.h"

#include <string.h>

const char *
crelay_plan_reason_text(CrelayPlanReason reason)
{
	switch (reason)
	{
		case CRELAY_PLAN_OK:
			return NULL;
		case CRELAY_PLAN_SELF_REFERENCE:
			return "self-reference";
		case CRELAY_PLAN_CYCLE:
			return "would-create-cycle";
		case CRELAY_PLAN_UNKNOWN_UPSTREAM:
			return "unknown-upstream";
		case CRELAY_PLAN_TWO_PRIMARIES:
			return "two-primaries";
		case CRELAY_PLAN_VOTING_DIRECT_ONLY:
			return "voting-member-direct-only";
		case CRELAY_PLAN_TIMELINE_DIVERGED:
			return "timeline-diverged";
		case CRELAY_PLAN_NOT_AVAILABLE:
			return "upstream-not-available";
		case CRELAY_PLAN_WAL_UNAVAILABLE:
			return "wal-unavailable";
		case CRELAY_PLAN_NO_ROOM:
			return "no-room";
	}
	return NULL;
}

/*
 * What to do about a node that streams from where it should not.
 */
const char *
crelay_plan_reason_hint(CrelayPlanReason reason)
{
	switch (reason)
	{
		case CRELAY_PLAN_OK:
			return NULL;
		case CRELAY_PLAN_SELF_REFERENCE:
			return "Point primary_conninfo at another node.";
		case CRELAY_PLAN_CYCLE:
			return "Point primary_conninfo of one of the nodes on the cycle at a node outside of it.";
		case CRELAY_PLAN_UNKNOWN_UPSTREAM:
			return "Check the name, or say where that node will be.";
		case CRELAY_PLAN_TWO_PRIMARIES:
			return "Follow the primary on the newest timeline, and stop the older one: what is committed there is lost.";
		case CRELAY_PLAN_VOTING_DIRECT_ONLY:
			return "Point primary_conninfo at the primary, take the node out of synchronous_standby_names there, or set cascade_relay.replica_class to read_replica.";
		case CRELAY_PLAN_TIMELINE_DIVERGED:
			return "Rewind the node with pg_rewind, or rebuild it.";
		case CRELAY_PLAN_NOT_AVAILABLE:
			return "Choose a node that streams.";
		case CRELAY_PLAN_WAL_UNAVAILABLE:
			return "Choose a node that still has the WAL, or rebuild this one.";
		case CRELAY_PLAN_NO_ROOM:
			return "Raise max_wal_senders or max_replication_slots there, or drop a slot that is not used.";
	}
	return NULL;
}

const char *
crelay_verdict_text(CrelayVerdict verdict)
{
	switch (verdict)
	{
		case CRELAY_VERDICT_SAFE:
			return "safe";
		case CRELAY_VERDICT_UNPROVEN:
			return "unproven";
		case CRELAY_VERDICT_REFUSED:
			return "refused";
	}
	return NULL;
}

const char *
crelay_unproven_text(CrelayUnproven unproven)
{
	switch (unproven)
	{
		case CRELAY_UNPROVEN_NONE:
			return NULL;
		case CRELAY_UNPROVEN_CLASS:
			return "class-unknown";
		case CRELAY_UNPROVEN_ANY:
			return "voting-by-asterisk";
		case CRELAY_UNPROVEN_TIMELINE:
			return "timeline-unknown";
		case CRELAY_UNPROVEN_WAL:
			return "wal-unknown";
	}
	return NULL;
}

/* ---- looking things up ---- */

static const CrelayNode *
node_of(const CrelayPolicyTree *tree, int row)
{
	return &tree->nodes[tree->rows[row].node];
}

static bool
is_named(const CrelayPolicyTree *tree, int row, const char *name)
{
	return name != NULL && strcmp(node_of(tree, row)->name, name) == 0;
}

static bool
is_primary(const CrelayPolicyTree *tree, int row)
{
	return tree->rows[row].depth == 0 &&
		node_of(tree, row)->role == CRELAY_ROLE_PRIMARY;
}

/*
 * Whether the way up from a row leads into a cycle, and to no root.
 */
static bool
is_adrift(const CrelayPolicyTree *tree, int row)
{
	return tree->rows[row].cyclic || tree->rows[row].below_cycle;
}

/*
 * Whether somebody could connect to that node and be fed.
 */
static bool
is_available(const CrelayPolicyTree *tree, int row)
{
	return !is_adrift(tree, row) && crelay_state_is_live(node_of(tree, row)->state);
}

/*
 * The row of the node that shows this tree; -1 if it is not in it.
 */
int
crelay_policy_here(const CrelayPolicyTree *tree)
{
	for (int row = 0; tree->has_here && row < tree->nrows; row++)
	{
		if (tree->rows[row].node == 0)
			return row;
	}
	return -1;
}

/*
 * Whether a row is meant by its name rather than another one of that name (an
 * earlier life of the node, an unmanaged namesake): the one that is there, then
 * one that speaks for itself.  Of those that are not there, the one heard of
 * last.  Of those that are, the one nearest to the root, then the first in the
 * tree: nobody takes the name of a node above by using it, and who was heard of
 * last does not matter, because anybody can always be that.
 */
bool
crelay_policy_prefers(const CrelayPolicyTree *tree, int row, int other)
{
	const CrelayNode *a = node_of(tree, row);
	const CrelayNode *b = node_of(tree, other);
	bool		is_there = is_available(tree, row);

	if (is_there != is_available(tree, other))
		return is_there;
	if (a->managed != b->managed)
		return a->managed;
	if (!is_there && a->observed_at != b->observed_at)
		return a->observed_at > b->observed_at;
	if (is_there && tree->rows[row].depth != tree->rows[other].depth)
		return tree->rows[row].depth < tree->rows[other].depth;
	return row < other;
}

/*
 * The row of a name, -1 if there is none.
 */
int
crelay_policy_find(const CrelayPolicyTree *tree, const char *name)
{
	int			best = -1;

	if (name == NULL || name[0] == '\0')
		return -1;
	for (int row = 0; row < tree->nrows; row++)
	{
		if (is_named(tree, row, name) &&
			(best < 0 || crelay_policy_prefers(tree, row, best)))
			best = row;
	}
	return best;
}

/*
 * Whether more than one node is there that speaks for itself under that name.
 * Then the name does not say which is meant, whichever would be found.
 */
bool
crelay_policy_is_ambiguous(const CrelayPolicyTree *tree, const char *name)
{
	const CrelayNode *first = NULL;

	for (int row = 0; row < tree->nrows; row++)
	{
		const CrelayNode *node = node_of(tree, row);

		if (!node->managed || !is_named(tree, row, name) || !is_available(tree, row))
			continue;
		if (first != NULL && first->incarnation != node->incarnation)
			return true;
		first = node;
	}
	return false;
}

/*
 * The row of the primary, -1 if none is known.  Of several, as after a
 * failover, the one that is there, then the one on the latest timeline.
 */
int
crelay_policy_primary(const CrelayPolicyTree *tree, const char *without)
{
	int			best = -1;

	for (int row = 0; row < tree->nrows; row++)
	{
		if (!is_primary(tree, row) || is_named(tree, row, without))
			continue;
		if (best < 0 ||
			(is_available(tree, row) != is_available(tree, best) ?
			 is_available(tree, row) :
			 node_of(tree, row)->timeline > node_of(tree, best)->timeline))
			best = row;
	}
	return best;
}

/*
 * The row of the primary on the newest timeline, -1 if no primary is known.
 * Whether it is still there does not matter: it has committed what an older
 * primary does not have.
 */
int
crelay_policy_newest_primary(const CrelayPolicyTree *tree)
{
	int			newest = -1;

	for (int row = 0; row < tree->nrows; row++)
	{
		if (is_primary(tree, row) &&
			(newest < 0 || node_of(tree, row)->timeline > node_of(tree, newest)->timeline))
			newest = row;
	}
	return newest;
}

static int
top_of(const CrelayPolicyTree *tree, int row)
{
	while (tree->rows[row].parent >= 0)
		row = tree->rows[row].parent;
	return row;
}

/*
 * Whether the row lies below the node of that name, which is in row self, -1
 * for none.  A cycle is drawn cut open, but everything on it lies below
 * everything else.
 */
static bool
is_below(const CrelayPolicyTree *tree, int row, const char *name, int self)
{
	for (int up = tree->rows[row].parent; up >= 0; up = tree->rows[up].parent)
	{
		if (is_named(tree, up, name))
			return true;
	}
	return is_adrift(tree, row) && self >= 0 && tree->rows[self].cyclic &&
		top_of(tree, self) == top_of(tree, row);
}

/*
 * Where a node can look for an upstream, or NULL: as that one advertises it;
 * else, of a node above, where the next one on the way down has found it.  What
 * anybody else says of it is not taken: a login would be sent there.
 */
const char *
crelay_policy_address(const CrelayPolicyTree *tree, int row, int upstream)
{
	if (node_of(tree, upstream)->conninfo[0] != '\0')
		return node_of(tree, upstream)->conninfo;
	if (row < 0 || is_adrift(tree, row))
		return NULL;
	while (row >= 0 && tree->rows[row].parent != upstream)
		row = tree->rows[row].parent;
	if (row < 0 || node_of(tree, row)->upstream_address[0] == '\0')
		return NULL;
	return node_of(tree, row)->upstream_address;
}

/* ---- the rules about two nodes ---- */

/*
 * Whether a node can follow another one without leaving its history.  What is
 * known is where one history of timelines leads; both must be on it, unless
 * they are on the same timeline anyway.  Behind a switch that the upstream has
 * not made yet is no place to follow from, if the upstream never will.
 */
static CrelayTruth
can_follow(const CrelayPolicyTree *tree, int row, int upstream)
{
	const CrelayNode *node = node_of(tree, row);
	const CrelayNode *above = node_of(tree, upstream);
	const CrelayHistory *history = tree->history;
	bool		node_on;
	bool		above_on;

	if (node->timeline == 0 || above->timeline == 0)
		return CRELAY_UNKNOWN;
	if (node->timeline == above->timeline)
		return CRELAY_TRUE;
	if (node->timeline > above->timeline && is_primary(tree, upstream))
		return CRELAY_FALSE;
	if (history == NULL || history->timeline == 0 ||
		node->timeline > history->timeline || above->timeline > history->timeline)
		return CRELAY_UNKNOWN;
	node_on = crelay_history_contains(history, node->timeline, node->replay_lsn);
	above_on = crelay_history_contains(history, above->timeline, above->replay_lsn);
	if (node_on && above_on)
		return CRELAY_TRUE;
	/* of two that are both elsewhere nothing is known */
	return node_on || above_on ? CRELAY_FALSE : CRELAY_UNKNOWN;
}

/*
 * Whether the upstream has the WAL that the node would ask for first, and how
 * many bytes are missing (-1 unknown).
 */
static CrelayTruth
has_wal(const CrelayPolicyTree *tree, int row, int upstream, int64_t *missing)
{
	uint64_t	oldest = node_of(tree, upstream)->oldest_wal_lsn;
	uint64_t	need = node_of(tree, row)->replay_lsn;

	*missing = -1;
	if (oldest == 0 || need == 0)
		return CRELAY_UNKNOWN;
	need -= need % tree->segment_size;
	*missing = oldest > need ? (int64_t) (oldest - need) : 0;
	return *missing == 0 ? CRELAY_TRUE : CRELAY_FALSE;
}

/*
 * Returns true if one more standby could attach to a node, as far as is known.
 */
static bool
has_room(const CrelayPolicyTree *tree, int upstream)
{
	CrelayRoom	room = tree->left != NULL ? tree->left[upstream] :
	node_of(tree, upstream)->room;

	return crelay_room_take(&room, false);
}

static bool
is_connected_to(const CrelayPolicyTree *tree, int row, int upstream)
{
	CrelayState state = node_of(tree, row)->state;

	return tree->rows[row].parent == upstream && !is_adrift(tree, row) &&
		(state == CRELAY_STATE_STREAMING || state == CRELAY_STATE_CATCHUP);
}

/*
 * Whether what a node has follows on the WAL of another one, as far as the nodes
 * above it tell.  One that has diverged takes all below it along, so that only a
 * node that is there too is on their history; and where nothing can be streamed for
 * a cause that is not known, neither is that.
 */
static CrelayTruth
shares_history(const CrelayPolicyTree *tree, int row, int upstream)
{
	CrelayTruth shares = CRELAY_TRUE;

	for (int up = row; up >= 0; up = tree->rows[up].parent)
	{
		const CrelayNode *node = node_of(tree, up);
		int			there = upstream;

		if (node->state != CRELAY_STATE_DIVERGED && node->feed != CRELAY_FEED_NOTHING)
			continue;
		while (there >= 0 && there != up)
			there = tree->rows[there].parent;
		if (there >= 0)
			break;
		if (node->state == CRELAY_STATE_DIVERGED)
			return CRELAY_FALSE;
		shares = CRELAY_UNKNOWN;
	}
	return shares;
}

/*
 * Returns true if a node, or a node above it, has diverged from its upstream on
 * one timeline.  Positions do not show that, so such a node may follow no
 * primary.  A node whose upstream is on another timeline may: a primary on its
 * own timeline is the cure.
 */
static bool
has_foreign_wal(const CrelayPolicyTree *tree, int row)
{
	for (; row >= 0; row = tree->rows[row].parent)
	{
		const CrelayNode *node = node_of(tree, row);
		int			parent = tree->rows[row].parent;

		if (node->state == CRELAY_STATE_DIVERGED &&
			(parent < 0 || node_of(tree, parent)->timeline == node->timeline))
			return true;
	}
	return false;
}

/*
 * Judges a target that has answered that it is a primary.  Histories of different
 * timelines are compared elsewhere (follow.c).
 */
static CrelayPlanReason
judge_seen_primary(const CrelayPolicyTree *tree, int row, uint32_t timeline)
{
	if (timeline < tree->newest_primary)
		return CRELAY_PLAN_TWO_PRIMARIES;
	return has_foreign_wal(tree, row) ? CRELAY_PLAN_TIMELINE_DIVERGED : CRELAY_PLAN_OK;
}

/*
 * What speaks against a node (row -1: not in the tree) streaming from another
 * one, by order of precedence.  below: that one lies below the node; primary:
 * it is out of recovery.  Says too what is not known of all that could speak
 * against it.  A node of an unknown class is not refused for it: what forbids an
 * upstream is a class that is known.
 */
static CrelayPlanReason
judge(const CrelayPolicyTree *tree, const char *name, int row,
	  CrelayClass replica_class, int upstream, bool below, bool primary,
	  CrelayUnproven *unproven, int64_t *missing)
{
	CrelayTruth follows = CRELAY_TRUE;
	CrelayTruth wal = CRELAY_TRUE;

	*unproven = CRELAY_UNPROVEN_NONE;
	*missing = row < 0 ? 0 : -1;
	if (row >= 0 && is_connected_to(tree, row, upstream))
		*missing = 0;			/* it does what is asked about */
	else if (row >= 0)
	{
		follows = shares_history(tree, row, upstream);
		if (follows == CRELAY_TRUE)
			follows = can_follow(tree, row, upstream);
		wal = has_wal(tree, row, upstream, missing);
	}
	if (wal == CRELAY_UNKNOWN)
		*unproven = CRELAY_UNPROVEN_WAL;
	else if (follows == CRELAY_UNKNOWN)
		*unproven = CRELAY_UNPROVEN_TIMELINE;
	else if (replica_class == CRELAY_CLASS_UNKNOWN && !primary)
		*unproven = CRELAY_UNPROVEN_CLASS;
	else if (replica_class == CRELAY_CLASS_ANY && !primary)
		*unproven = CRELAY_UNPROVEN_ANY;

	if (is_named(tree, upstream, name))
		return CRELAY_PLAN_SELF_REFERENCE;
	if (below)
		return CRELAY_PLAN_CYCLE;
	if (primary && node_of(tree, upstream)->timeline < tree->newest_primary)
		return CRELAY_PLAN_TWO_PRIMARIES;
	if (replica_class == CRELAY_CLASS_VOTING && !primary)
		return CRELAY_PLAN_VOTING_DIRECT_ONLY;
	if (follows == CRELAY_FALSE ||
		node_of(tree, upstream)->state == CRELAY_STATE_DIVERGED)
		return CRELAY_PLAN_TIMELINE_DIVERGED;
	if (!is_available(tree, upstream) ||
		node_of(tree, upstream)->state == CRELAY_STATE_DISCONNECTED)
		return CRELAY_PLAN_NOT_AVAILABLE;
	if (wal == CRELAY_FALSE)
		return CRELAY_PLAN_WAL_UNAVAILABLE;
	/* a node that is there already has its place */
	if ((row < 0 || tree->rows[row].parent != upstream) && !has_room(tree, upstream))
		return CRELAY_PLAN_NO_ROOM;
	return CRELAY_PLAN_OK;
}

/* ---- the plan for a request ---- */

/*
 * Always a safe choice: the primary, unless something else was asked for and
 * nothing speaks against it.  A node that is the primary itself streams from
 * nobody, and neither does anybody while no primary is known.
 *
 * A tree that lost its root shows roles and places as they were then.  What the
 * requested node itself has answered since therefore goes before its row: out
 * of recovery it takes any node, unless a newer primary has been known.
 */
void
crelay_policy_plan(const CrelayPolicyTree *tree, const CrelayPlanQuestion *question,
				   CrelayPlan *plan)
{
	int			primary = crelay_policy_primary(tree, NULL);
	int			self = crelay_policy_find(tree, question->node_name);
	int			requested = crelay_policy_find(tree, question->requested);
	CrelayUnproven unproven;
	int64_t		missing;

	plan->upstream = primary >= 0 && is_named(tree, primary, question->node_name) ? -1 : primary;
	plan->as_requested = false;
	plan->is_cascade = false;
	plan->refusal = CRELAY_PLAN_OK;

	if (question->requested == NULL || question->requested[0] == '\0')
		return;
	if (question->node_name != NULL &&
		strcmp(question->requested, question->node_name) == 0)
		plan->refusal = CRELAY_PLAN_SELF_REFERENCE;
	else if (requested < 0 && !question->has_conninfo)
		plan->refusal = CRELAY_PLAN_UNKNOWN_UPSTREAM;
	else if (question->seen_role == CRELAY_ROLE_PRIMARY)
		plan->refusal = judge_seen_primary(tree, self, question->seen_timeline);
	else if (requested < 0 && primary >= 0 &&
			 question->replica_class == CRELAY_CLASS_VOTING)
		plan->refusal = CRELAY_PLAN_VOTING_DIRECT_ONLY;
	else if (requested >= 0 &&
			 (requested != primary || question->seen_role == CRELAY_ROLE_STANDBY))
		plan->refusal = judge(tree, question->node_name, self,
							  question->replica_class, requested,
							  is_below(tree, requested, question->node_name, self),
							  question->seen_role == CRELAY_ROLE_UNKNOWN &&
							  is_primary(tree, requested),
							  &unproven, &missing);
	if (plan->refusal != CRELAY_PLAN_OK)
		return;
	plan->upstream = requested;
	plan->as_requested = true;
	if (question->seen_role != CRELAY_ROLE_UNKNOWN)
		plan->is_cascade = question->seen_role == CRELAY_ROLE_STANDBY;
	else
		plan->is_cascade = requested < 0 ? primary >= 0 : !is_primary(tree, requested);
}

/* ---- all candidates ---- */

/*
 * Whether the way from a node up to a primary is one that will last: every
 * node on it is there, is where it may be, and is not the one to do without.
 * What hangs elsewhere has to move itself, and is no place to move to: so
 * nodes that all follow their first candidate cannot meet in a circle.
 * parent_rooted is the answer for the node above.
 */
static bool
is_rooted(const CrelayPolicyTree *tree, int row, bool parent_rooted,
		  const char *without)
{
	const CrelayNode *node = node_of(tree, row);
	int			parent = tree->rows[row].parent;
	CrelayUnproven unproven;
	int64_t		missing;

	if (!is_available(tree, row) || is_named(tree, row, without) ||
		node->state == CRELAY_STATE_DISCONNECTED)
		return false;
	if (parent < 0)
		return is_primary(tree, row);
	return parent_rooted &&
		judge(tree, node->name, row, node->replica_class, parent, false,
			  is_primary(tree, parent), &unproven, &missing) == CRELAY_PLAN_OK;
}

static CrelayTruth
compare_locations(const char *a, const char *b)
{
	if (a[0] == '\0' || b[0] == '\0')
		return CRELAY_UNKNOWN;
	return strcmp(a, b) == 0 ? CRELAY_TRUE : CRELAY_FALSE;
}

/*
 * Whether a comes before b: what is safe, then what is not proven; then where
 * the node is, unless it was asked for another location; then who is near;
 * then who is near the root, and the order of the tree.
 */
static bool
is_better(const CrelayCandidate *a, const CrelayCandidate *b, bool may_stay)
{
	if (a->verdict != b->verdict)
		return a->verdict < b->verdict;
	if (may_stay && a->current != b->current)
		return a->current;
	if ((a->same_location == CRELAY_TRUE) != (b->same_location == CRELAY_TRUE))
		return a->same_location == CRELAY_TRUE;
	if (a->current != b->current)
		return a->current;
	if (a->hops != b->hops)
		return b->hops < 0 || (a->hops >= 0 && a->hops < b->hops);
	return a->upstream < b->upstream;
}

/* Heap sort: no allocation, no recursion, and never quadratic. */
static void
sift_down(CrelayCandidate *heap, int at, int n, bool may_stay)
{
	for (;;)
	{
		int			child = 2 * at + 1;
		CrelayCandidate swap;

		if (child >= n)
			return;
		if (child + 1 < n && is_better(&heap[child], &heap[child + 1], may_stay))
			child++;
		if (!is_better(&heap[at], &heap[child], may_stay))
			return;
		swap = heap[at];
		heap[at] = heap[child];
		heap[child] = swap;
		at = child;
	}
}

static void
sort_candidates(CrelayCandidate *candidates, int n, bool may_stay)
{
	for (int i = n / 2 - 1; i >= 0; i--)
		sift_down(candidates, i, n, may_stay);
	for (int i = n - 1; i > 0; i--)
	{
		CrelayCandidate swap = candidates[0];

		candidates[0] = candidates[i];
		candidates[i] = swap;
		sift_down(candidates, 0, i, may_stay);
	}
}

/*
 * Fills in the candidate of one row; those of the rows above it are there.
 * self_top: the top of the cycle that the node lies on, all of which lies below
 * it; -1 if it is on none.
 */
static void
fill_candidate(const CrelayPolicyTree *tree, const CrelayCandidateQuestion *question,
			   int self, int self_top, int upstream, CrelayCandidate *candidates)
{
	CrelayCandidate *candidate = &candidates[upstream];
	const CrelayNode *node = self >= 0 ? node_of(tree, self) : NULL;
	const char *location = question->location != NULL ? question->location :
	node != NULL ? node->location : "";
	CrelayClass replica_class = node != NULL ? node->replica_class :
	CRELAY_CLASS_READ_REPLICA;
	int			parent = tree->rows[upstream].parent;

	candidate->upstream = upstream;
	candidate->rank = 0;
	candidate->rooted = is_rooted(tree, upstream,
								  parent >= 0 && candidates[parent].rooted,
								  question->without);
	candidate->top = parent >= 0 ? candidates[parent].top : upstream;
	candidate->below = candidate->top == self_top ||
		(parent >= 0 &&
		 (candidates[parent].below || is_named(tree, parent, question->node_name)));
	candidate->current = self >= 0 && tree->rows[self].parent == upstream;
	candidate->same_location = compare_locations(location,
												 node_of(tree, upstream)->location);
	candidate->hops = candidate->rooted ? tree->rows[upstream].depth + 1 : -1;
	candidate->reason = judge(tree, question->node_name, self, replica_class,
							  upstream, candidate->below,
							  is_primary(tree, upstream), &candidate->unproven,
							  &candidate->missing_wal);

	/*
	 * A node whose own upstream is gone moves with all that hangs below it,
	 * but nobody else should come to it.
	 */
	if (candidate->reason == CRELAY_PLAN_OK && !candidate->rooted &&
		!(candidate->current && is_connected_to(tree, self, upstream)))
		candidate->reason = CRELAY_PLAN_NOT_AVAILABLE;
	if (candidate->reason != CRELAY_PLAN_OK)
		candidate->verdict = CRELAY_VERDICT_REFUSED;
	else
		candidate->verdict = candidate->unproven == CRELAY_UNPROVEN_NONE ?
			CRELAY_VERDICT_SAFE : CRELAY_VERDICT_UNPROVEN;
}

/*
 * All nodes that a node could be pointed at, the best first; candidates has
 * room for every row.  Only safe choices have a rank.  A node that is not in
 * the tree yet is taken for a read replica that will be cloned from wherever
 * it is to stream from.
 */
int
crelay_policy_candidates(const CrelayPolicyTree *tree,
						 const CrelayCandidateQuestion *question,
						 CrelayCandidate *candidates)
{
	int			self = crelay_policy_find(tree, question->node_name);
	int			self_top = self >= 0 && tree->rows[self].cyclic ? top_of(tree, self) : -1;
	int			n = 0;
	int			rank = 0;

	/* a row's upstream is drawn before it */
	for (int row = 0; row < tree->nrows; row++)
		fill_candidate(tree, question, self, self_top, row, candidates);
	for (int row = 0; row < tree->nrows; row++)
	{
		if (!is_named(tree, row, question->node_name) &&
			!is_named(tree, row, question->without))
			candidates[n++] = candidates[row];
	}
	sort_candidates(candidates, n, question->location == NULL);
	for (int i = 0; i < n && candidates[i].verdict == CRELAY_VERDICT_SAFE; i++)
		candidates[i].rank = ++rank;
	return n;
}

/*
 * Counts the places of every node from now on in left, which has one for each
 * row.  The node to do without leaves a walsender free, but its slots stay.
 */
void
crelay_policy_count_room(CrelayPolicyTree *tree, CrelayRoom *left, const char *without)
{
	tree->left = left;
	for (int row = 0; row < tree->nrows; row++)
		left[row] = node_of(tree, row)->room;
	for (int row = 0; row < tree->nrows; row++)
	{
		int			parent = tree->rows[row].parent;

		if (parent >= 0 && is_named(tree, row, without) && is_connected_to(tree, row, parent))
			left[parent].senders++;
	}
}

/*
 * Takes the place that the node of a row will have if it follows its best
 * candidate.  A node that stays takes none.
 */
void
crelay_policy_take_room(const CrelayPolicyTree *tree, int row, const CrelayCandidate *best)
{
	if (best->rank == 1 && !best->current)
		(void) crelay_room_take(&tree->left[best->upstream], node_of(tree, row)->managed);
}

/* ---- where nodes actually are ---- */

/*
 * Which rule a running node breaks by being where it is.  cascades: whether
 * its upstream is a standby.  A node that is away is nowhere.  What may pass by itself - an upstream that is
 * away, WAL that is missing - is no breach: it has codes of its own.
 */
CrelayPlanReason
crelay_policy_breach(const CrelayNode *node, bool cyclic, CrelayTruth cascades)
{
	if (node->role == CRELAY_ROLE_PRIMARY)
		return CRELAY_PLAN_OK;
	if (node->incarnation != 0 && node->incarnation == node->upstream_incarnation &&
		strcmp(node->name, node->upstream_name) == 0)
		return CRELAY_PLAN_SELF_REFERENCE;
	if (cyclic || node->state == CRELAY_STATE_CYCLE ||
		(node->warnings & CRELAY_WARN_CYCLE) != 0)
		return CRELAY_PLAN_CYCLE;
	if (crelay_node_is_away(node))
		return CRELAY_PLAN_OK;
	if (node->replica_class == CRELAY_CLASS_VOTING && cascades == CRELAY_TRUE)
		return CRELAY_PLAN_VOTING_DIRECT_ONLY;
	if (node->state == CRELAY_STATE_DIVERGED)
		return CRELAY_PLAN_TIMELINE_DIVERGED;
	return CRELAY_PLAN_OK;
}

CrelayPlanReason
crelay_policy_row_breach(const CrelayPolicyTree *tree, int row)
{
	int			parent = tree->rows[row].parent;
	CrelayTruth cascades = CRELAY_UNKNOWN;

	if (parent >= 0)
		cascades = node_of(tree, parent)->role == CRELAY_ROLE_PRIMARY ?
			CRELAY_FALSE : CRELAY_TRUE;
	return crelay_policy_breach(node_of(tree, row), tree->rows[row].cyclic, cascades);
}

/* ---- what is needed of a shared archive ---- */

/*
 * The oldest LSN that any node of the tree still needs, 0 if that is not
 * known.  own is this node's row and own_target its hold target.
 *
 * Who counts for no hold, because it was released or has left, counts here: an
 * archive is what it comes back by.  A node that has not said where it is
 * since its upstream's start may be behind its own hold, so then nothing is
 * known; one without cascade_relay counts where it is fed.
 *
 * On the root the own hold target is that of the whole tree.  Elsewhere the
 * redo of other nodes' restartpoints is not known, but it cannot lie before
 * the oldest WAL file that they have.
 */
uint64_t
crelay_policy_oldest_need(const CrelayPolicyTree *tree, int own, uint64_t own_target)
{
	uint64_t	oldest = own_target;
	bool		at_root = is_primary(tree, own);

	if (!is_primary(tree, top_of(tree, own)))
		return 0;
	for (int row = 0; row < tree->nrows; row++)
	{
		const CrelayNode *node = node_of(tree, row);
		int			parent = tree->rows[row].parent;
		uint64_t	lsns[3] = {node->replay_lsn, node->frontier_lsn, 0};

		if (row == own)
			continue;
		if (node->managed)
		{
			if (node->replay_lsn == 0)
				return 0;
			if (!at_root && node->oldest_wal_lsn == 0)
				return 0;
			if (!at_root)
				lsns[2] = node->oldest_wal_lsn;
		}
		else if (node->replay_lsn == 0 &&
				 (parent < 0 || node_of(tree, parent)->frontier_lsn == 0))
			return 0;
		for (int i = 0; i < 3; i++)
		{
			if (lsns[i] != 0 && lsns[i] < oldest)
				oldest = lsns[i];
		}
	}
	return oldest;
}
