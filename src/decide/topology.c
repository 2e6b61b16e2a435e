/*-------------------------------------------------------------------------
 *
 * topology.c
 *	  Assembling the tree from what is known of its nodes, as a pure decision.
 *
 * Owns, leaves out and locks: see topology.h.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/topology.h"

#include <stdlib.h>
#include <string.h>

/* In links[].row: not to be drawn, if nothing hangs below it. */
#define NOT_DRAWN		(-2)

static int
compare_key(const char *name_a, uint32_t inc_a, const char *name_b, uint32_t inc_b)
{
	int			c = strcmp(name_a, name_b);

	if (c != 0)
		return c;
	return inc_a < inc_b ? -1 : inc_a > inc_b;
}

/*
 * Nodes by name, then incarnation; two rows of one key (unmanaged namesakes
 * below different nodes) by their upstream, so that the order is total.
 */
static int
compare_nodes(const CrelayNode *a, const CrelayNode *b)
{
	int			c = compare_key(a->name, a->incarnation, b->name, b->incarnation);

	if (c != 0)
		return c;
	return compare_key(a->upstream_name, a->upstream_incarnation,
					   b->upstream_name, b->upstream_incarnation);
}

/*
 * Sorts the node numbers in links[].sorted: a bottom-up merge sort, because
 * qsort() would need the nodes in a global, and the order must be stable.
 * links[].row serves as the second half of its workspace.
 */
static void
sort_nodes(const CrelayNode *nodes, int n, CrelayTreeLink *links)
{
	for (int i = 0; i < n; i++)
		links[i].sorted = i;

	for (int width = 1; width < n; width *= 2)
	{
		for (int low = 0; low < n; low += 2 * width)
		{
			int			mid = low + width < n ? low + width : n;
			int			high = mid + width < n ? mid + width : n;
			int			a = low;
			int			b = mid;

			for (int i = low; i < high; i++)
			{
				bool		take_a = a < mid &&
				(b >= high || compare_nodes(&nodes[links[a].sorted],
											&nodes[links[b].sorted]) <= 0);

				links[i].row = links[take_a ? a++ : b++].sorted;
			}
		}
		for (int i = 0; i < n; i++)
			links[i].sorted = links[i].row;
	}
}

/*
 * Whether row a is the better source about a node that two rows speak of, as
 * while a managed one moves from one upstream to another: who sees it connected,
 * and then whoever was given first, because the nodes that were looked at
 * directly come before hearsay.  Of two that do not see it, who saw it last.
 */
static bool
is_better_row(const CrelayNode *nodes, int row_a, int row_b)
{
	const CrelayNode *a = &nodes[row_a];
	const CrelayNode *b = &nodes[row_b];

	if (crelay_node_is_away(a) != crelay_node_is_away(b))
		return crelay_node_is_away(b);
	if (!crelay_node_is_away(a))
		return row_a < row_b;
	return a->observed_at > b->observed_at;
}

/*
 * Whether two rows, neighbours in the sorted order, speak of one node.  One
 * without cascade_relay is known by its name below the node that feeds it, and
 * nowhere else.
 */
static bool
is_same_node(const CrelayNode *a, const CrelayNode *b)
{
	if (a->incarnation == 0 && a->upstream_incarnation == 0)
		return false;
	return a->incarnation == 0 ? compare_nodes(a, b) == 0 :
		compare_key(a->name, a->incarnation, b->name, b->incarnation) == 0;
}

/*
 * Leaves one row of each node in the sorted order; returns how many rows are
 * left.
 */
static int
drop_duplicates(const CrelayNode *nodes, int n, CrelayTreeLink *links)
{
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		const CrelayNode *node = &nodes[links[i].sorted];
		const CrelayNode *last = kept > 0 ? &nodes[links[kept - 1].sorted] : NULL;

		if (last == NULL || !is_same_node(node, last))
			links[kept++].sorted = links[i].sorted;
		else if (is_better_row(nodes, links[i].sorted, links[kept - 1].sorted))
			links[kept - 1].sorted = links[i].sorted;
	}
	return kept;
}

/*
 * The managed node with that key, or -1.  Unmanaged nodes feed nobody that we
 * know of.
 */
static int
find_node(const CrelayNode *nodes, int n, const CrelayTreeLink *links,
		  const char *name, uint32_t incarnation)
{
	int			low = 0;
	int			high = n;

	if (name[0] == '\0' || incarnation == 0)
		return -1;
	while (low < high)
	{
		int			mid = low + (high - low) / 2;
		const CrelayNode *node = &nodes[links[mid].sorted];
		int			c = compare_key(node->name, node->incarnation, name, incarnation);

		if (c == 0)
			return links[mid].sorted;
		if (c < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return -1;
}

/*
 * Returns the node that feeds a managed one which reports elsewhere: the one that
 * has seen a walsender under its name, without knowing whose it is.  -1 if there is
 * none, or more than one.  Namesakes without cascade_relay come before it in the
 * sorted order.
 */
static int
find_feeder(const CrelayNode *nodes, int n, const CrelayTreeLink *links, int at)
{
	const CrelayNode *node = &nodes[links[at].sorted];
	int			feeder = -1;

	for (int i = at - 1; i >= 0; i--)
	{
		const CrelayNode *other = &nodes[links[i].sorted];

		if (strcmp(other->name, node->name) != 0)
			break;
		if (other->incarnation != 0 || crelay_node_is_away(other))
			continue;
		if (feeder >= 0)
			return -1;
		feeder = find_node(nodes, n, links, other->upstream_name,
						   other->upstream_incarnation);
	}
	return feeder != links[at].sorted ? feeder : -1;
}

/*
 * Finds the upstream of every node, or the node that feeds it if that is known to
 * be another one.
 */
static void
find_parents(const CrelayNode *nodes, int n, CrelayTreeLink *links)
{
	for (int i = 0; i < n; i++)
	{
		CrelayTreeLink *link = &links[links[i].sorted];
		const CrelayNode *node = &nodes[links[i].sorted];

		link->parent = (node->warnings & CRELAY_WARN_REPORTS_ELSEWHERE) != 0 ?
			find_feeder(nodes, n, links, i) : -1;
		if (link->parent < 0)
			link->parent = find_node(nodes, n, links, node->upstream_name,
									 node->upstream_incarnation);
	}
}

/*
 * Hangs every node under its parent.  Going backward through the sorted order and
 * putting each in front leaves the siblings in order.
 */
static void
link_children(int n, CrelayTreeLink *links)
{
	for (int i = 0; i < n; i++)
	{
		CrelayTreeLink *link = &links[links[i].sorted];

		link->row = -1;
		link->first_child = -1;
		link->next_sibling = -1;
	}
	for (int i = n - 1; i >= 0; i--)
	{
		int			node = links[i].sorted;
		int			parent = links[node].parent;

		if (parent >= 0 && parent != node)
		{
			links[node].next_sibling = links[parent].first_child;
			links[parent].first_child = node;
		}
	}
}

/*
 * Marks the rows that nobody has had news of, of nodes that are live under the
 * same name in another incarnation: they were rebuilt, or rewound, and all that
 * could be said of them before is over.  Namesakes are neighbours in the sorted
 * order.
 */
static void
mark_former_lives(const CrelayNode *nodes, int n, CrelayTreeLink *links)
{
	int			end;

	for (int begin = 0; begin < n; begin = end)
	{
		const char *name = nodes[links[begin].sorted].name;
		bool		lives = false;

		for (end = begin; end < n && strcmp(nodes[links[end].sorted].name, name) == 0; end++)
		{
			const CrelayNode *node = &nodes[links[end].sorted];

			if (node->incarnation != 0 && crelay_state_is_live(node->state))
				lives = true;
		}
		for (int i = begin; lives && i < end; i++)
		{
			int			node = links[i].sorted;

			if (nodes[node].incarnation != 0 && nodes[node].state == CRELAY_STATE_STALE)
				links[node].row = NOT_DRAWN;
		}
	}
}

/*
 * Marks the rows of nodes without cascade_relay that a managed one of that name
 * has beside it: it streams from there, and whoever feeds it has not had its
 * reports, as on a cycle.  Siblings are in the sorted order.
 */
static void
mark_doubles(const CrelayNode *nodes, int n, CrelayTreeLink *links)
{
	for (int i = 0; i < n; i++)
	{
		CrelayTreeLink *link = &links[links[i].sorted];
		const CrelayNode *node = &nodes[links[i].sorted];

		if (node->incarnation != 0 || link->parent < 0)
			continue;
		for (int next = link->next_sibling;
			 next >= 0 && strcmp(nodes[next].name, node->name) == 0 && link->row != NOT_DRAWN;
			 next = links[next].next_sibling)
		{
			if (!crelay_node_is_away(&nodes[next]))
				link->row = NOT_DRAWN;
		}
	}
}

/*
 * Takes doubles and former lives out of the sorted order, unless something else is
 * known to hang below them; returns how many nodes are left.
 */
static int
drop_not_drawn(const CrelayNode *nodes, int n, CrelayTreeLink *links)
{
	int			kept = 0;

	mark_doubles(nodes, n, links);
	mark_former_lives(nodes, n, links);
	for (int i = 0; i < n; i++)
	{
		if (links[links[i].sorted].row == NOT_DRAWN)
			continue;
		for (int up = links[links[i].sorted].parent;
			 up >= 0 && links[up].row == NOT_DRAWN; up = links[up].parent)
			links[up].row = -1;
	}
	for (int i = 0; i < n; i++)
	{
		if (links[links[i].sorted].row != NOT_DRAWN)
			links[kept++].sorted = links[i].sorted;
	}
	return kept;
}

/*
 * Draws a node and everything below it, without recursion: a chain may be as
 * long as somebody likes.  Returns the number of rows drawn in all.
 */
static int
draw_subtree(int top, int depth, bool below_cycle, CrelayTreeLink *links,
			 CrelayTreeRow *rows, int nrows)
{
	int			node = top;

	for (;;)
	{
		CrelayTreeRow *row = &rows[nrows];

		row->node = node;
		row->parent = node == top ? -1 : links[links[node].parent].row;
		row->depth = node == top ? depth : rows[row->parent].depth + 1;
		row->has_next = node != top && links[node].next_sibling >= 0;
		row->cyclic = false;
		row->below_cycle = below_cycle;
		links[node].row = nrows++;

		/* down; else to the side; else up until there is a side */
		if (links[node].first_child >= 0)
		{
			node = links[node].first_child;
			continue;
		}
		while (node != top && links[node].next_sibling < 0)
			node = links[node].parent;
		if (node == top)
			return nrows;
		node = links[node].next_sibling;
	}
}

/*
 * Cuts the cycle that the given node lies on or below, and returns the node
 * that is its top from now on: the first by name.  *bottom is the node that
 * feeds it, the last one on the cycle.  Upstreams lead from every undrawn node
 * into exactly one cycle, where the fast walker meets the slow.
 */
static int
cut_cycle(const CrelayNode *nodes, int node, CrelayTreeLink *links, int *bottom)
{
	int			slow = node;
	int			fast = links[node].parent;
	int			top;
	int		   *link;

	while (slow != fast)
	{
		slow = links[slow].parent;
		fast = links[links[fast].parent].parent;
	}
	top = slow;
	for (int i = links[slow].parent; i != slow; i = links[i].parent)
	{
		if (compare_nodes(&nodes[i], &nodes[top]) < 0)
			top = i;
	}

	*bottom = links[top].parent;
	link = &links[*bottom].first_child;
	while (*link >= 0 && *link != top)
		link = &links[*link].next_sibling;
	if (*link == top)
		*link = links[top].next_sibling;
	links[top].parent = -1;
	links[top].next_sibling = -1;
	return top;
}

/*
 * Draws the cycle that the given node lies on or below, and what hangs from
 * it.
 */
static int
draw_cycle(const CrelayNode *nodes, int node, CrelayTreeLink *links,
		   CrelayTreeRow *rows, int nrows)
{
	int			bottom;
	int			top = cut_cycle(nodes, node, links, &bottom);

	nrows = draw_subtree(top, 1, true, links, rows, nrows);
	for (int row = links[bottom].row; row >= 0; row = rows[row].parent)
	{
		rows[row].cyclic = true;
		rows[row].below_cycle = false;
	}
	return nrows;
}

/*
 * Puts the tree in its order.  links and rows have room for n; the result says
 * how many rows there are, every node that is not a second row or a double of
 * another one, nor a former life of one that is live, exactly once:
 *
 *	- the primaries that are live with all that hangs below them, by name,
 *	- then those that nobody has news of, as an old primary after a failover,
 *	- then the tops of parts whose upstream nobody knows, likewise,
 *	- then what is left: nodes on a cycle, cut at the first by name.
 */
int
crelay_topology_assemble(const CrelayNode *nodes, int n,
						 CrelayTreeLink *links, CrelayTreeRow *rows)
{
	int			nrows = 0;
	int			kept;

	sort_nodes(nodes, n, links);
	n = drop_duplicates(nodes, n, links);
	find_parents(nodes, n, links);
	link_children(n, links);
	kept = drop_not_drawn(nodes, n, links);
	if (kept < n)
		link_children(kept, links);
	n = kept;

	for (int live = 1; live >= 0; live--)
	{
		for (int i = 0; i < n; i++)
		{
			int			node = links[i].sorted;

			if (links[node].parent < 0 && nodes[node].role == CRELAY_ROLE_PRIMARY &&
				crelay_state_is_live(nodes[node].state) == (live == 1))
				nrows = draw_subtree(node, 0, false, links, rows, nrows);
		}
	}
	for (int i = 0; i < n; i++)
	{
		int			node = links[i].sorted;

		if (links[node].parent < 0 && links[node].row < 0)
			nrows = draw_subtree(node, 1, false, links, rows, nrows);
	}
	for (int i = 0; i < n; i++)
	{
		int			node = links[i].sorted;

		if (links[node].row < 0)
			nrows = draw_cycle(nodes, node, links, rows, nrows);
	}
	return nrows;
}

/*
 * Marks the nodes of which there is no news for stale_after microseconds, or for
 * longer where the way is long: news goes up to the root at most, and down the
 * path of this node, whose report intervals are own_path_ms.  A node that is
 * known to be down stays so.
 */
void
crelay_topology_age(CrelayNode *nodes, int n, int64_t now, int64_t stale_after,
					uint32_t own_path_ms)
{
	for (int i = 0; i < n; i++)
	{
		int64_t		limit = crelay_news_limit(stale_after,
											  (uint64_t) nodes[i].path_interval_ms + own_path_ms);

		if (nodes[i].state != CRELAY_STATE_DOWN && now - nodes[i].observed_at > limit)
			nodes[i].state = CRELAY_STATE_STALE;
	}
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp((*(const CrelayNode *const *) a)->name,
				  (*(const CrelayNode *const *) b)->name);
}

/*
 * The first of the sorted nodes that has that name, or where it would be.
 */
static int
find_name(const CrelayNode *const *nodes, int n, const char *name)
{
	int			low = 0;
	int			high = n;

	while (low < high)
	{
		int			mid = low + (high - low) / 2;

		if (strcmp(nodes[mid]->name, name) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/*
 * Returns true if one of the sorted nodes, which are live and protected, is the
 * awaited one: its counter was raised, or it is another life of it.  A node
 * without an incarnation is known by its name.
 */
static bool
is_back(const CrelayNode *awaited, const CrelayNode *const *back, int n)
{
	for (int i = find_name(back, n, awaited->name);
		 i < n && strcmp(back[i]->name, awaited->name) == 0; i++)
	{
		if (awaited->incarnation == 0 || back[i]->incarnation != awaited->incarnation ||
			(awaited->moves != 0 && back[i]->moves > awaited->moves))
			return true;
	}
	return false;
}

/*
 * Counts the nodes that the former upstream told of, those from first_above on,
 * which have not come back below this one, and finds the first of them by name.
 * A node is back when it is live, protected and has moved; the slot that it
 * streams through does not matter.  A node that was not protected before had
 * nothing to lose.  There is room for n pointers.
 */
int
crelay_topology_awaited(const CrelayNode *nodes, int n, int first_above,
						const CrelayNode **room, const char **first)
{
	int			back = 0;
	int			awaited = 0;

	*first = NULL;
	for (int i = 0; i < first_above; i++)
	{
		if (crelay_state_is_live(nodes[i].state) && nodes[i].protected == CRELAY_TRUE)
			room[back++] = &nodes[i];
	}
	qsort((void *) room, (size_t) back, sizeof(*room), compare_names);
	for (int i = first_above; i < n; i++)
	{
		const CrelayNode *node = &nodes[i];

		if (node->protected == CRELAY_FALSE || is_back(node, room, back))
			continue;
		awaited++;
		if (*first == NULL || strcmp(node->name, *first) < 0)
			*first = node->name;
	}
	return awaited;
}

/*
 * Whether a node takes part in the cascade now, so that its position is news.
 */
bool
crelay_state_is_live(CrelayState state)
{
	switch (state)
	{
		case CRELAY_STATE_RUNNING:
		case CRELAY_STATE_STREAMING:
		case CRELAY_STATE_CATCHUP:
		case CRELAY_STATE_ARCHIVE:
		case CRELAY_STATE_DISCONNECTED:
			return true;
		case CRELAY_STATE_UNKNOWN:
		case CRELAY_STATE_STALE:
		case CRELAY_STATE_DOWN:
		case CRELAY_STATE_DIVERGED:
		case CRELAY_STATE_DUPLICATE:
		case CRELAY_STATE_CYCLE:
			break;
	}
	return false;
}

const char *
crelay_state_text(CrelayState state)
{
	switch (state)
	{
		case CRELAY_STATE_UNKNOWN:
			return NULL;
		case CRELAY_STATE_RUNNING:
			return "running";
		case CRELAY_STATE_STREAMING:
			return "streaming";
		case CRELAY_STATE_CATCHUP:
			return "catchup";
		case CRELAY_STATE_ARCHIVE:
			return "archive";
		case CRELAY_STATE_STALE:
			return "stale";
		case CRELAY_STATE_DOWN:
			return "down";
		case CRELAY_STATE_DIVERGED:
			return "diverged";
		case CRELAY_STATE_DUPLICATE:
			return "duplicate";
		case CRELAY_STATE_CYCLE:
			return "cycle";
		case CRELAY_STATE_DISCONNECTED:
			return "disconnected";
	}
	return NULL;
}

const char *
crelay_role_text(CrelayRole role)
{
	switch (role)
	{
		case CRELAY_ROLE_UNKNOWN:
			return NULL;
		case CRELAY_ROLE_PRIMARY:
			return "primary";
		case CRELAY_ROLE_STANDBY:
			return "standby";
	}
	return NULL;
}

const char *
crelay_class_text(CrelayClass replica_class)
{
	switch (replica_class)
	{
		case CRELAY_CLASS_UNKNOWN:
			return NULL;
		case CRELAY_CLASS_VOTING:
		case CRELAY_CLASS_ANY:
			return "voting";
		case CRELAY_CLASS_READ_REPLICA:
			return "read_replica";
	}
	return NULL;
}

/*
 * The code of one warning bit, or NULL for a bit that a newer node sent.
 */
const char *
crelay_warning_text(uint32_t bit)
{
	switch (bit)
	{
		case CRELAY_WARN_DUPLICATE_NAME:
			return "duplicate_name";
		case CRELAY_WARN_CYCLE:
			return "cycle";
		case CRELAY_WARN_UNPROTECTED:
			return "unprotected";
		case CRELAY_WARN_NO_FREE_SLOT:
			return "no_free_slot";
		case CRELAY_WARN_UPSTREAM_REFUSED:
			return "upstream_refused";
		case CRELAY_WARN_UPSTREAM_SILENT:
			return "upstream_silent";
		case CRELAY_WARN_HOLD_DROPPED:
			return "hold_dropped";
		case CRELAY_WARN_HOLD_CLAMPED:
			return "hold_clamped";
		case CRELAY_WARN_STALE_NODE:
			return "stale_node";
		case CRELAY_WARN_REGISTRY_FULL:
			return "registry_full";
		case CRELAY_WARN_NOT_PRELOADED:
			return "not_preloaded";
		case CRELAY_WARN_HOLD_INVALIDATED:
			return "hold_invalidated";
		case CRELAY_WARN_NOT_STREAMING:
			return "not_streaming";
		case CRELAY_WARN_REPLAY_PAUSED:
			return "replay_paused";
		case CRELAY_WARN_REPORTS_ELSEWHERE:
			return "reports_elsewhere";
	}
	return NULL;
}
