/*-------------------------------------------------------------------------
 *
 * test_policy.c
 *	  Tests of where nodes should stream from, as a plain program that prints
 *	  TAP.
 *
 * Owns: the ranking of candidates, who may be the first of them, breaches, and
 * the oldest LSN that anybody needs.  The plan for a request is printed whole
 * by sql/policy.sql.
 *
 * A tree is written as text, one "name<upstream" with marks for each node:
 *	  v voting, d down, s stale, x diverged, n nothing feeds it (N: for no known cause), ? its position is not known,
 *	  u unmanaged, @here the location, :N timeline, =N replayed up to segment N,
 *	  ^N oldest segment, %N observed at, c its class is not known
 *
 *-------------------------------------------------------------------------
 */
#include "decide/policy.h"
#include "tap.h"

#include <stdlib.h>
#include <time.h>

#define MAX_NODES		40
#define SEGMENT			UINT64_C(0x1000000)

typedef struct Tree
{
	int			n;
	CrelayNode	nodes[MAX_NODES];
	CrelayTreeLink links[MAX_NODES];
	CrelayTreeRow rows[MAX_NODES];
	CrelayHistory history;
	CrelayPolicyTree policy;
} Tree;

static void
assemble(Tree *tree)
{
	CrelayPolicyTree *policy = &tree->policy;

	for (int i = 0; i < tree->n; i++)
	{
		CrelayNode *node = &tree->nodes[i];

		node->upstream_incarnation = 0;
		for (int u = 0; u < tree->n; u++)
		{
			if (strcmp(tree->nodes[u].name, node->upstream_name) == 0)
				node->upstream_incarnation = tree->nodes[u].incarnation;
		}
	}
	policy->nodes = tree->nodes;
	policy->rows = tree->rows;
	policy->history = tree->history.timeline != 0 ? &tree->history : NULL;
	policy->segment_size = SEGMENT;
	policy->nrows = crelay_topology_assemble(tree->nodes, tree->n, tree->links, tree->rows);
}

static void
take_mark(CrelayNode *node, const char *mark)
{
	int			number = atoi(mark + 1);

	switch (mark[0])
	{
		case 'v':
			node->replica_class = CRELAY_CLASS_VOTING;
			break;
		case 'd':
			node->state = CRELAY_STATE_DOWN;
			break;
		case 's':
			node->state = CRELAY_STATE_STALE;
			break;
		case 'x':
			node->state = CRELAY_STATE_DIVERGED;
			break;
		case 'n':
			node->state = CRELAY_STATE_DISCONNECTED;
			node->feed = CRELAY_FEED_SLOT_MISSING;
			break;
		case 'N':
			node->state = CRELAY_STATE_DISCONNECTED;
			node->feed = CRELAY_FEED_NOTHING;
			break;
		case '?':
			node->replay_lsn = 0;
			node->frontier_lsn = 0;
			break;
		case 'u':
			node->managed = false;
			node->incarnation = 0;
			node->oldest_wal_lsn = 0;
			node->frontier_lsn = 0;
			break;
		case '@':
			snprintf(node->location, sizeof(node->location), "%s", mark + 1);
			break;
		case ':':
			node->timeline = (uint32_t) number;
			break;
		case '=':
			node->replay_lsn = number * SEGMENT + 1000;
			node->frontier_lsn = node->replay_lsn;
			break;
		case '^':
			node->oldest_wal_lsn = number * SEGMENT;
			break;
		case '%':
			node->observed_at = number;
			break;
		case 'c':
			node->replica_class = CRELAY_CLASS_UNKNOWN;
			break;
		case 'r':
			node->room.known = true;
			node->room.senders = (uint16_t) number;
			node->room.slots = (uint16_t) atoi(strchr(mark, '/') + 1);
			break;
		case '&':
			snprintf(node->upstream_address, sizeof(node->upstream_address), "host=%d", number);
			break;
		case '!':
			snprintf(node->conninfo, sizeof(node->conninfo), "host=%d", number);
			break;
		default:
			abort();
	}
}

static Tree *
tree_of(const char *text)
{
	static Tree tree;
	char		copy[1000];
	char	   *rest;

	memset(&tree, 0, sizeof(tree));
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *word = strtok_r(copy, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
	{
		char	   *next;
		char	   *name = strtok_r(word, ",", &next);
		char	   *upstream = strchr(name, '<');
		CrelayNode *node = &tree.nodes[tree.n++];

		if (upstream != NULL)
			*upstream++ = '\0';
		snprintf(node->name, sizeof(node->name), "%s", name);
		snprintf(node->upstream_name, sizeof(node->upstream_name), "%s", upstream ? upstream : "");
		node->incarnation = (uint32_t) tree.n;
		node->managed = true;
		node->role = upstream ? CRELAY_ROLE_STANDBY : CRELAY_ROLE_PRIMARY;
		node->state = upstream ? CRELAY_STATE_STREAMING : CRELAY_STATE_RUNNING;
		node->replica_class = upstream ? CRELAY_CLASS_READ_REPLICA : CRELAY_CLASS_UNKNOWN;
		node->timeline = 1;
		snprintf(node->location, sizeof(node->location), "here");
		take_mark(node, "=9");
		take_mark(node, "^5");
		for (char *mark = strtok_r(NULL, ",", &next); mark != NULL; mark = strtok_r(NULL, ",", &next))
			take_mark(node, mark);
	}
	assemble(&tree);
	return &tree;
}

/* "1:p 2:i -:l(reason)": the candidates as a line, "~" for what is unproven */
static const char *
candidates_at(Tree *tree, const char *name, const char *without, const char *location)
{
	static char line[1000];
	CrelayCandidateQuestion question = {name, without, location};
	CrelayCandidate candidates[MAX_NODES];
	int			n = crelay_policy_candidates(&tree->policy, &question, candidates);

	line[0] = '\0';
	for (int i = 0; i < n; i++)
	{
		const CrelayCandidate *c = &candidates[i];
		const char *to = tree->nodes[tree->rows[c->upstream].node].name;
		char		word[200];

		if (c->verdict == CRELAY_VERDICT_SAFE)
			snprintf(word, sizeof(word), "%d:%s", c->rank, to);
		else if (c->verdict == CRELAY_VERDICT_UNPROVEN)
			snprintf(word, sizeof(word), "~:%s", to);
		else
			snprintf(word, sizeof(word), "-:%s(%s)", to, crelay_plan_reason_text(c->reason));
		if ((c->rank > 0) != (c->verdict == CRELAY_VERDICT_SAFE))
			snprintf(word, sizeof(word), "!:%s", to);
		strcat(line, i > 0 ? " " : "");
		strcat(line, word);
	}
	return line;
}

static void
test_ranks(void)
{
	Tree	   *t = tree_of("p s<p,v i<p l1<i l2<i");

	is_text(candidates_at(t, "l1", NULL, NULL), "1:i 2:p 3:s 4:l2",
			"a node stays where it is, then comes who is near the root");
	is_text(candidates_at(t, "s", NULL, NULL),
			"1:p -:i(voting-member-direct-only) -:l1(voting-member-direct-only) -:l2(voting-member-direct-only)",
			"a voting node streams from the primary");
	is_text(candidates_at(t, "i", NULL, NULL),
			"1:p 2:s -:l1(would-create-cycle) -:l2(would-create-cycle)",
			"nobody streams from below");
	is_text(candidates_at(t, "l1", "i", NULL),
			"1:p 2:s -:l2(upstream-not-available)",
			"without the upstream: not to a sibling that lost it too");
	is_text(candidates_at(t, "s", "i", NULL),
			"1:p -:l1(voting-member-direct-only) -:l2(voting-member-direct-only)",
			"who does not need the one that is gone stays");
	is_text(candidates_at(t, "new", NULL, NULL), "1:p 2:i 3:s 4:l1 5:l2", "a new node");

	t = tree_of("p i<p a<i b<a");
	is_text(candidates_at(t, "b", "i", NULL), "1:a 2:p", "who hangs below a node that moves moves with it");
	is_text(candidates_at(t, "a", "i", NULL), "1:p -:b(would-create-cycle)", "... which moves itself");

	t = tree_of("p i<p l<i,d");
	is_text(candidates_at(t, "l", "i", NULL), "1:p", "a node that is down will need somebody too");
	t = tree_of("p i<p,d l<i,s");
	is_text(candidates_at(t, "l", NULL, NULL), "1:p -:i(upstream-not-available)",
			"nobody has to be said to be gone who is");
	is_text(candidates_at(t, "l", "i", NULL), "1:p", "... but may");
	t = tree_of("p i<p l<i");
	is_text(candidates_at(t, "l", "p", NULL), "1:i", "without a primary: stay");
	is_text(candidates_at(t, "i", "p", NULL), "-:l(would-create-cycle)",
			"... and nobody to go to for the one that fed from it");
}

/*
 * What each node does that has to move, in the order of the tree: where it goes,
 * or "-" and why not to p.
 */
static const char *
moves_at(Tree *tree, const char *without)
{
	static char line[1000];
	CrelayRoom	left[MAX_NODES];
	CrelayPolicyTree policy = tree->policy;

	line[0] = '\0';
	crelay_policy_count_room(&policy, left, without);
	for (int row = 0; row < policy.nrows; row++)
	{
		const CrelayNode *node = &tree->nodes[tree->rows[row].node];
		CrelayCandidateQuestion question = {node->name, without, NULL};
		CrelayCandidate candidates[MAX_NODES];
		char		word[200];

		if (node->role == CRELAY_ROLE_PRIMARY || strcmp(node->name, without) == 0 ||
			crelay_policy_candidates(&policy, &question, candidates) == 0)
			continue;
		crelay_policy_take_room(&policy, row, &candidates[0]);
		if (candidates[0].rank == 1)
			snprintf(word, sizeof(word), " %s>%s", node->name,
					 tree->nodes[tree->rows[candidates[0].upstream].node].name);
		else
			snprintf(word, sizeof(word), " %s-%s", node->name,
					 crelay_plan_reason_text(candidates[0].reason));
		strcat(line, word);
	}
	return line;
}

static void
test_room(void)
{
	is_text(moves_at(tree_of("p,r2/9 i<p a<i b<i c<i d<i"), "i"), " a>p b>p c>p d-no-room",
			"two walsenders are free, and the one of the node that is gone");
	is_text(moves_at(tree_of("p,r9/4 i<p a<i b<i c<i d<i"), "i"), " a>p b>p c>p d-no-room",
			"a managed node takes a slot and a hold, but not the last slot for a hold");
	is_text(moves_at(tree_of("p,r9/4 i<p a<i,u,=5,^1 b<i,u c<i,u d<i,u"), "i"), " a>p b>p c>p d>p",
			"an unmanaged one has no hold");
	is_text(moves_at(tree_of("p,r0/0 i<p a<i b<a s<p"), "i"), " a>s b>a s>p",
			"a node that stays needs no room, and may have some");
	is_text(candidates_at(tree_of("p,r0/5 i<p,r5/5 l<i"), "l", NULL, NULL), "1:i -:p(no-room)",
			"a node that is full is no choice");
	is_text(candidates_at(tree_of("p,r0/5 i<p"), "new", NULL, NULL), "1:i -:p(no-room)",
			"... for a new one neither");
}

static void
test_unknown_class(void)
{
	is_text(candidates_at(tree_of("p i<p l<i,c"), "l", NULL, NULL), "1:p ~:i",
			"a node whose class is not known is not refused what it has");
	is_text(candidates_at(tree_of("p i<p j<p l<i,c"), "l", "i", NULL), "1:p ~:j",
			"... nor anything else, but the primary is the safe choice");
}

/* The plan of a node that asks for another one, which has answered for itself. */
static const char *
plan_seen(Tree *tree, const char *name, const char *requested, CrelayRole role, uint32_t timeline)
{
	CrelayPlanQuestion question = {0};
	CrelayPlan	plan;
	int			self = crelay_policy_find(&tree->policy, name);
	int			newest = crelay_policy_newest_primary(&tree->policy);

	tree->policy.newest_primary = newest >= 0 ?
		tree->nodes[tree->rows[newest].node].timeline : 0;
	question.node_name = name;
	question.replica_class = tree->nodes[tree->rows[self].node].replica_class;
	question.requested = requested;
	question.seen_role = role;
	question.seen_timeline = timeline;
	crelay_policy_plan(&tree->policy, &question, &plan);
	if (plan.refusal != CRELAY_PLAN_OK)
		return crelay_plan_reason_text(plan.refusal);
	return plan.is_cascade ? "cascade" : "primary";
}

static void
test_seen(void)
{
	const CrelayRole primary = CRELAY_ROLE_PRIMARY;
	const CrelayRole standby = CRELAY_ROLE_STANDBY;

	is_text(plan_seen(tree_of("p,s s<p v<p,v"), "v", "s", primary, 2), "primary", "a voting node follows its promoted sibling");
	is_text(plan_seen(tree_of("p,s s<p v<p,v"), "v", "s", standby, 1), "voting-member-direct-only", "... and not one that is a standby still");
	is_text(plan_seen(tree_of("p,s i<p l<i"), "i", "l", primary, 2), "primary", "an intermediate follows its promoted leaf");
	is_text(plan_seen(tree_of("p,s i<p l<i"), "i", "l", standby, 1), "would-create-cycle", "... and not one that is a standby still");
	is_text(plan_seen(tree_of("p s<p v<p,v"), "v", "p", standby, 1), "voting-member-direct-only", "a primary that has become a standby is one");
	is_text(plan_seen(tree_of("p s<p l<s"), "l", "p", standby, 1), "cascade", "... which a read replica may follow");
	is_text(plan_seen(tree_of("s,:2 p,:1 v<s,:2"), "v", "p", primary, 1), "two-primaries", "the old primary is refused");
	is_text(plan_seen(tree_of("s,:2,s v<s"), "v", "v", primary, 3), "self-reference", "a node never follows itself");
	is_text(plan_seen(tree_of("p,s s<p m<p,x l<m"), "m", "s", primary, 2), "timeline-diverged", "WAL that the primary lacks is foreign to each");
	is_text(plan_seen(tree_of("p,s s<p m<p,x l<m"), "l", "s", primary, 2), "timeline-diverged", "... below such a node, too");
	is_text(plan_seen(tree_of("p s<p,:2 v<p,x,:2"), "v", "s", primary, 2), "primary", "below a primary of another timeline it is not");
}

static void
test_locations(void)
{
	Tree	   *t = tree_of("p,@east i<p,@west l1<i,@west l2<p,@west");

	is_text(candidates_at(t, "l1", NULL, NULL), "1:i 2:l2 3:p", "who is in the same place comes first");
	is_text(candidates_at(t, "l2", NULL, NULL), "1:p 2:i 3:l1", "... but is no reason to move");
	is_text(candidates_at(t, "l2", NULL, "west"), "1:i 2:l1 3:p", "... unless that is what is asked");
	is_text(candidates_at(t, "l1", NULL, "east"), "1:p 2:i 3:l2", "as if it were elsewhere");
	is_text(candidates_at(t, "new", NULL, "west"), "1:i 2:l2 3:l1 4:p", "a new node in a place");
	is_text(candidates_at(t, "new", NULL, "mars"), "1:p 2:i 3:l2 4:l1", "a new node where nobody is");
	is_text(candidates_at(t, "l1", "i", NULL), "1:l2 2:p", "without the upstream: the neighbour");
}

static void
test_wal(void)
{
	is_text(candidates_at(tree_of("p,^5 i<p l<i,=5"), "l", "i", NULL), "1:p", "the first segment is there");
	is_text(candidates_at(tree_of("p,^6 i<p l<i,=5"), "l", "i", NULL), "-:p(wal-unavailable)", "the first segment is gone");
	is_text(candidates_at(tree_of("p,^6 i<p,^6 l<i,=5"), "l", NULL, NULL), "1:i -:p(wal-unavailable)",
			"who streams has what it needs");
	is_text(candidates_at(tree_of("p i<p l<i,?"), "l", "i", NULL), "~:p", "who knows what it needs");
	is_text(candidates_at(tree_of("p,^0 i<p l<i"), "l", "i", NULL), "~:p", "who knows what is there");
	is_text(candidates_at(tree_of("p u<p,u l<p"), "l", NULL, NULL), "1:p ~:u", "an unmanaged node may have it");
}

static void
test_timelines(void)
{
	Tree	   *t = tree_of("s,:2 p,s l<p,=9 m<p,=7");

	is_text(candidates_at(t, "l", "p", NULL), "~:s -:m(upstream-not-available)",
			"a new timeline of which nothing is known");
	t->history.timeline = 2;
	t->history.n = 1;
	t->history.left[0].timeline = 1;
	t->history.left[0].lsn = 8 * SEGMENT;
	assemble(t);
	is_text(candidates_at(t, "l", "p", NULL), "-:s(timeline-diverged) -:m(upstream-not-available)",
			"it replayed more of the old one than the new one has");
	is_text(candidates_at(t, "m", "p", NULL), "1:s -:l(upstream-not-available)", "it did not");
	is_text(candidates_at(t, "m", NULL, NULL), "1:s -:p(upstream-not-available) -:l(upstream-not-available)",
			"nobody goes to the old primary any more");

	is_text(candidates_at(tree_of("p i<p l<i,:0"), "l", "i", NULL), "~:p",
			"a timeline that nobody knows");
	is_text(candidates_at(tree_of("p i<p,c l<i"), "l", NULL, NULL), "1:i 2:p",
			"who may stay where it is although its class is not known has a root");
	is_text(candidates_at(tree_of("p i<p,x l<i m<p,x"), "l", NULL, NULL),
			"-:i(timeline-diverged) -:p(timeline-diverged) -:m(timeline-diverged)", "not from a diverged node, nor from one that lacks its WAL");
	is_text(candidates_at(tree_of("p i<p,x l<i m<p,x"), "m", NULL, NULL),
			"-:p(timeline-diverged) -:i(timeline-diverged) -:l(timeline-diverged)",
			"a diverged node has nowhere to go");
	is_text(candidates_at(tree_of("p i<p,x l<i m<p"), "l", NULL, NULL),
			"-:i(timeline-diverged) -:p(timeline-diverged) -:m(timeline-diverged)",
			"nor has what is below it");
	is_text(candidates_at(tree_of("p i<p,x l<i m<i"), "m", NULL, NULL),
			"-:i(timeline-diverged) -:p(timeline-diverged) -:l(upstream-not-available)",
			"but a node there may have its WAL, when it has a root");
	is_text(candidates_at(tree_of("p i<p,n l<i m<p"), "i", NULL, NULL), "1:p 2:m -:l(would-create-cycle)",
			"what nothing feeds may find WAL elsewhere");
	is_text(candidates_at(tree_of("p i<p,n l<i m<p"), "l", NULL, NULL), "1:p 2:m -:i(upstream-not-available)",
			"and nobody finds any there");
	is_text(candidates_at(tree_of("p i<p,N l<i m<p"), "i", NULL, NULL), "~:p ~:m -:l(would-create-cycle)",
			"it may have other WAL, if nobody knows why");
	is_text(candidates_at(tree_of("p i<p,N l<i m<p"), "l", NULL, NULL), "~:p ~:m -:i(upstream-not-available)",
			"and so may what is below it");
}

/*
 * Whatever a tree looks like: answers are total, in order, and everybody may
 * follow its first candidate at the same time without meeting in a circle.
 */
static void
random_tree(Tree *tree)
{
	static const char *const marks[] = {"v", "d", "s", "x", "?", "@there", ":2", "=3", "^7", "u"};

	memset(tree, 0, sizeof(Tree));
	tree->n = 1 + random_below(12);
	for (int i = 0; i < tree->n; i++)
	{
		CrelayNode *node = &tree->nodes[i];
		uint32_t	up = random_below(tree->n + 1);

		snprintf(node->name, sizeof(node->name), "n%d", i);
		if (i > 0 || random_below(4) == 0)
			snprintf(node->upstream_name, sizeof(node->upstream_name), "n%u",
					 random_below(3) == 0 ? up : random_below(i + 1));
		node->incarnation = (uint32_t) i + 1;
		node->managed = true;
		node->role = node->upstream_name[0] ? CRELAY_ROLE_STANDBY : CRELAY_ROLE_PRIMARY;
		node->state = node->upstream_name[0] ? CRELAY_STATE_STREAMING : CRELAY_STATE_RUNNING;
		node->replica_class = CRELAY_CLASS_READ_REPLICA;
		node->timeline = 1;
		snprintf(node->location, sizeof(node->location), "here");
		take_mark(node, "=9");
		take_mark(node, "^5");
		for (uint32_t m = random_below(6); m > 3; m--)
			take_mark(node, marks[random_below(sizeof(marks) / sizeof(marks[0]))]);
	}
	assemble(tree);
}

static int
row_of(const Tree *tree, const char *name)
{
	return crelay_policy_find(&tree->policy, name);
}

static bool
follow_all(Tree *tree, const char *without, int *moved)
{
	int			to[MAX_NODES];

	for (int row = 0; row < tree->policy.nrows; row++)
	{
		const CrelayNode *node = &tree->nodes[tree->rows[row].node];
		CrelayCandidateQuestion question = {node->name, without, NULL};
		CrelayCandidate candidates[MAX_NODES];
		int			n;

		to[row] = -1;
		if (node->role == CRELAY_ROLE_PRIMARY ||
			(without != NULL && strcmp(node->name, without) == 0))
			continue;
		n = crelay_policy_candidates(&tree->policy, &question, candidates);
		for (int i = 0; i < n; i++)
		{
			bool		safe = candidates[i].verdict == CRELAY_VERDICT_SAFE;

			if (candidates[i].rank != (safe ? i + 1 : 0) ||
				(candidates[i].verdict == CRELAY_VERDICT_REFUSED) != (candidates[i].reason != CRELAY_PLAN_OK) ||
				(safe && without != NULL &&
				 candidates[i].upstream == row_of(tree, without)))
				return false;
		}
		if (n > 0 && candidates[0].rank == 1)
		{
			to[row] = candidates[0].upstream;
			*moved += to[row] != tree->rows[row].parent;
		}
	}
	for (int row = 0; row < tree->policy.nrows; row++)
	{
		int			at = row;

		for (int steps = 0; at >= 0; steps++, at = to[at])
		{
			if (steps > tree->policy.nrows)
				return false;
		}
	}
	return true;
}

static bool
plans_are_safe(Tree *tree)
{
	char		name[20];

	for (int i = -1; i < tree->n; i++)
	{
		for (int r = -1; r <= tree->n; r++)
		{
			CrelayPlanQuestion question = {0};
			CrelayPlan	plan;

			snprintf(name, sizeof(name), "n%d", r);
			question.node_name = i < 0 ? NULL : tree->nodes[i].name;
			question.replica_class = (CrelayClass) random_below(3);
			question.requested = r < 0 ? NULL : name;
			question.has_conninfo = random_below(2) == 0;
			crelay_policy_plan(&tree->policy, &question, &plan);
			if (plan.is_cascade && question.replica_class == CRELAY_CLASS_VOTING)
				return false;
			if (plan.refusal != CRELAY_PLAN_OK && (plan.as_requested || plan.is_cascade))
				return false;
			if (plan.refusal == CRELAY_PLAN_OK && r >= 0 && !plan.as_requested)
				return false;
			/* never itself, never somebody below */
			for (int up = plan.upstream; i >= 0 && up >= 0; up = tree->rows[up].parent)
			{
				if (strcmp(tree->nodes[tree->rows[up].node].name, question.node_name) == 0)
					return false;
			}
		}
	}
	return true;
}

static void
test_random(void)
{
	static Tree tree;
	int			circles = 0;
	int			unsafe = 0;
	int			moved = 0;

	for (int i = 0; i < 20000; i++)
	{
		char		without[20];

		random_tree(&tree);
		snprintf(without, sizeof(without), "n%u", random_below(tree.n));
		circles += !follow_all(&tree, NULL, &moved);
		circles += !follow_all(&tree, without, &moved);
		unsafe += !plans_are_safe(&tree);
	}
	is_number(circles, 0, "20,000 trees: all may follow their first candidate at once");
	is_number(unsafe, 0, "... and every plan is safe");
	ok(moved > 1000, "... and many had to move (%d)", moved);
}

/*
 * Whether the candidates of every node know who lies below it as the plan for
 * each request does.
 */
static bool
same_below(Tree *tree)
{
	for (int self = 0; self < tree->policy.nrows; self++)
	{
		const char *name = tree->nodes[tree->rows[self].node].name;
		CrelayCandidateQuestion question = {name, NULL, NULL};
		CrelayCandidate candidates[MAX_NODES];
		int			n = crelay_policy_candidates(&tree->policy, &question, candidates);

		if (row_of(tree, name) != self)
			continue;
		for (int i = 0; i < n; i++)
		{
			CrelayPlanQuestion request = {0};
			CrelayPlan	plan;
			int			row = candidates[i].upstream;

			request.node_name = name;
			request.replica_class = CRELAY_CLASS_READ_REPLICA;
			request.requested = tree->nodes[tree->rows[row].node].name;
			crelay_policy_plan(&tree->policy, &request, &plan);
			if (row_of(tree, request.requested) == row &&
				row != crelay_policy_primary(&tree->policy, NULL) &&
				candidates[i].below != (plan.refusal == CRELAY_PLAN_CYCLE))
				return false;
		}
	}
	return true;
}

static void
test_below(void)
{
	static Tree tree;
	int			wrong = 0;

	for (int i = 0; i < 20000; i++)
	{
		random_tree(&tree);
		wrong += !same_below(&tree);
	}
	is_number(wrong, 0, "20,000 trees: who lies below whom, the candidates know as the plan does");
}

/*
 * A cycle as long as it gets: anything quadratic would show.
 */
static void
test_large(void)
{
	enum
	{
		LARGE = 40000
	};
	CrelayNode *nodes = calloc(LARGE, sizeof(CrelayNode));
	CrelayTreeLink *links = calloc(LARGE, sizeof(CrelayTreeLink));
	CrelayTreeRow *rows = calloc(LARGE, sizeof(CrelayTreeRow));
	CrelayCandidate *candidates = calloc(LARGE, sizeof(CrelayCandidate));
	CrelayPolicyTree policy = {0};
	CrelayCandidateQuestion question = {"n00007", NULL, NULL};
	clock_t		start;
	int			below = 0;
	int			n;

	if (nodes == NULL || links == NULL || rows == NULL || candidates == NULL)
		abort();
	for (int i = 0; i < LARGE; i++)
	{
		int			up = (i + LARGE - 1) % LARGE;

		snprintf(nodes[i].name, sizeof(nodes[i].name), "n%05d", i);
		snprintf(nodes[i].upstream_name, sizeof(nodes[i].upstream_name), "n%05d", up);
		nodes[i].incarnation = (uint32_t) i + 1;
		nodes[i].upstream_incarnation = (uint32_t) up + 1;
		nodes[i].managed = true;
		nodes[i].role = CRELAY_ROLE_STANDBY;
		nodes[i].state = CRELAY_STATE_STREAMING;
	}
	policy.nodes = nodes;
	policy.rows = rows;
	policy.segment_size = SEGMENT;
	policy.nrows = crelay_topology_assemble(nodes, LARGE, links, rows);
	start = clock();
	n = crelay_policy_candidates(&policy, &question, candidates);
	ok(clock() - start < 5 * CLOCKS_PER_SEC, "the candidates on a cycle of %d nodes take no time", LARGE);
	for (int i = 0; i < n; i++)
		below += candidates[i].below;
	is_number((uint64_t) below, LARGE - 1, "all of them are below it");
	free(candidates);
	free(rows);
	free(links);
	free(nodes);
}

static const char *
breach_of(const char *text, const char *name)
{
	Tree	   *t = tree_of(text);
	const char *reason = crelay_plan_reason_text(crelay_policy_row_breach(&t->policy, row_of(t, name)));

	return reason != NULL ? reason : "none";
}

static void
test_breaches(void)
{
	is_text(breach_of("p s<p,v i<p l<i", "p"), "none", "a primary");
	is_text(breach_of("p s<p,v i<p l<i", "s"), "none", "a voting node below the primary");
	is_text(breach_of("p s<p,v i<p l<i", "l"), "none", "a read replica below an intermediate");
	is_text(breach_of("p i<p l<i,v", "l"), "voting-member-direct-only", "a voting node below an intermediate");
	is_text(breach_of("p i<p l<i,v,d", "l"), "none", "... that is down is nowhere");
	is_text(breach_of("p l<gone,v", "l"), "none", "below somebody unknown");
	is_text(breach_of("i<gone l<i,v", "l"), "voting-member-direct-only", "an intermediate without a root is one still");
	is_text(breach_of("p a<b b<a", "a"), "would-create-cycle", "on a cycle");
	is_text(breach_of("p a<b b<a", "b"), "would-create-cycle", "... every one of them");
	is_text(breach_of("p a<a", "a"), "self-reference", "below itself");
	is_text(breach_of("p a<p,x", "a"), "timeline-diverged", "diverged");
}

static const char *
address_for(const char *text, const char *node, const char *upstream)
{
	Tree	   *t = tree_of(text);
	const char *address = crelay_policy_address(&t->policy, row_of(t, node), row_of(t, upstream));

	return address != NULL ? address : "none";
}

static void
test_addresses(void)
{
	const char *tree = "p i<p,&1 l<i,&2 h<p,&9 b<i,!4";
	Tree	   *t;

	is_text(address_for(tree, "l", "i"), "host=2", "a node has found its own upstream");
	is_text(address_for(tree, "l", "p"), "host=1", "and its upstream has found the next");
	is_text(address_for(tree, "l", "b"), "host=4", "who is elsewhere has to advertise itself");
	is_text(address_for(tree, "l", "h"), "none", "... or cannot be found");
	is_text(address_for("p h<p,&9 i<p l<i,&2", "l", "p"), "none", "who is not above is not believed");
	is_text(address_for("p,!7 i<p,&1 l<i,&2", "l", "p"), "host=7", "what is advertised comes first");
	is_text(address_for("a<b,&1 b<a,&2", "a", "b"), "none", "on a cycle nobody is above");
	t = tree_of(tree);
	ok(crelay_policy_address(&t->policy, -1, row_of(t, "p")) == NULL, "who is not there yet is below nobody");
}

/* The place in the text of the node that a name stands for, -1 if none does. */
static int
meant(const char *text, const char *name)
{
	Tree	   *t = tree_of(text);
	int			row = crelay_policy_find(&t->policy, name);

	return row < 0 ? -1 : t->rows[row].node;
}

static bool
is_ambiguous(const char *text, const char *name)
{
	return crelay_policy_is_ambiguous(&tree_of(text)->policy, name);
}

static int
here_in(const char *text, bool has_here)
{
	Tree	   *t = tree_of(text);
	int			row;

	t->policy.has_here = has_here;
	row = crelay_policy_here(&t->policy);

	return row < 0 ? -1 : t->rows[row].node;
}

static int
primary_of(const char *text, const char *without)
{
	Tree	   *t = tree_of(text);
	int			row = crelay_policy_primary(&t->policy, without);

	return row < 0 ? -1 : t->rows[row].node;
}

static void
test_names(void)
{
	is_number(meant("p l<p,d x<p l<x", "l"), 3, "of two with a name the one that is there");
	is_number(meant("p l<p x<p l<x,s", "l"), 1, "... whichever comes first");
	is_number(meant("p l<p,u x<p l<x", "l"), 3, "... then the managed one");
	is_number(meant("p x<p l<x l<p", "l"), 3, "... then the one near the root");
	is_number(meant("p x<p l<x,%1 y<p l<y,%9", "l"), 2, "... then the first in the tree, ever so old");
	is_number(meant("p y<p l<y,%9 x<p l<x,%1", "l"), 4, "... whichever is given first");
	is_number(meant("p l<p,s,%1 x<p l<x,s,%2", "l"), 3, "of two that are gone the one seen last");
	is_number(meant("p l<p,s,%2 x<p l<x,s,%1", "l"), 1, "... whichever comes first");
	ok(meant("p", "l") == -1 && meant("p", "") == -1 && meant("p", NULL) == -1, "or nobody");

	ok(is_ambiguous("p x<p l<x y<p l<y", "l"), "two live nodes have one name");
	ok(is_ambiguous("p l<p x<p l<x", "l"), "... at any depth");
	ok(!is_ambiguous("p l<p x<p l<x,d", "l"), "one that is down is no second one");
	ok(!is_ambiguous("p l<p x<p l<x,u", "l"), "nor one that is not managed");
	ok(!is_ambiguous("p l<p,d x<p l<x,s", "l") && !is_ambiguous("p", "l"), "nor nobody");

	is_number(here_in("l<p,d p l<p", true), 0, "this node is itself, whoever has its name");
	ok(here_in("l<p,d p l<p", false) == -1, "... and nobody else, before it knows its own");

	is_number(primary_of("p,s q", NULL), 1, "of two primaries the one that is there");
	is_number(primary_of("p q,s", NULL), 0, "... whichever comes first");
	is_number(primary_of("p,:1 q,:2", NULL), 1, "... then the one on the later timeline");
	is_number(primary_of("p,:1 q,:2", "q"), 0, "... or the other one, without it");
	ok(primary_of("p", "p") == -1, "or none");
}

static uint64_t
need_of(const char *text, const char *own, uint64_t target)
{
	Tree	   *t = tree_of(text);

	return crelay_policy_oldest_need(&t->policy, row_of(t, own), target * SEGMENT) / SEGMENT;
}

static void
test_need(void)
{
	is_number(need_of("p i<p l<i", "p", 8), 8, "on the root: its hold target");
	is_number(need_of("p i<p l<i", "p", 9), 9, "... and nothing else if nobody is behind");
	is_number(need_of("p i<p l<i,=3", "p", 8), 3, "who does not count for a hold counts here");
	is_number(need_of("p i<p l<i,=3,d", "p", 8), 3, "... and one that is down");
	is_number(need_of("p i<p l<i,=3,u", "p", 8), 3, "... and one that is not managed");
	is_number(need_of("p i<p l<i,?,d", "p", 8), 0, "one that has not called");
	is_number(need_of("p l<p,?,u", "p", 8), 8, "an unmanaged one counts where it is fed");
	is_number(need_of("p i<p l<i", "l", 8), 5, "elsewhere: nobody's redo lies before its WAL");
	is_number(need_of("p i<p l<i,^2", "l", 8), 5, "... the own is known");
	is_number(need_of("p i<p s<p,^2 l<i", "l", 8), 2, "... a sibling's is not");
	is_number(need_of("p i<p s<p,^0 l<i", "l", 8), 0, "... or not known");
	is_number(need_of("p,u,? l<p", "l", 8), 0, "an unmanaged one that nobody knows anything of");
	is_number(need_of("i<gone l<i", "l", 8), 0, "without a root: who knows who else there is");
	is_number(need_of("p a<b b<a", "a", 8), 0, "on a cycle");
}

int
main(void)
{
	test_ranks();
	test_locations();
	test_wal();
	test_room();
	test_seen();
	test_unknown_class();
	test_timelines();
	test_random();
	test_below();
	test_large();
	test_breaches();
	test_addresses();
	test_names();
	test_need();
	return done_testing();
}
