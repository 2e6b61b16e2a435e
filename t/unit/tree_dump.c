/*-------------------------------------------------------------------------
 *
 * tree_dump.c
 *	  Random trees, and what the pure sources say about them, as text for COPY.
 *
 *	  tree_dump SEED TREES
 *
 * Owns: the making of trees that no sane person would run - cycles, orphans,
 * namesakes, second rows of one node, primaries below standbys, unknown and
 * equal LSNs - and the walk from the leaves up in which each node reports to
 * the one above it.  One line for each node; t/019_oracle.pl names the columns.
 *
 * Not here: any opinion on what is right.  That is the oracle's, in SQL.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/frontier.h"
#include "decide/topology.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NODES		80

/* What is drawn by lot for a node beside its row in the tree. */
typedef struct Lot
{
	uint64_t	applied_lsn;
	uint64_t	restart_redo;
	CrelayDownstream edge;		/* how its upstream sees it */
} Lot;

typedef struct Tree
{
	int			n;
	bool		calm;			/* few oddities, so that it grows deep */
	CrelayNode	nodes[MAX_NODES];
	Lot			lots[MAX_NODES];
	int			upstream[MAX_NODES];	/* -1: none that is known */
	int			row[MAX_NODES]; /* -1: another row of the same node */
	CrelayTreeLink links[MAX_NODES];
	CrelayTreeRow rows[MAX_NODES];
	bool		done[MAX_NODES];
	CrelayFrontier frontiers[MAX_NODES];
} Tree;

static uint64_t random_state;

static uint32_t
random_number(void)
{
	/* splitmix64 */
	uint64_t	z = (random_state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (uint32_t) ((z ^ (z >> 31)) >> 32);
}

static int
below(int n)
{
	return (int) (random_number() % (uint32_t) n);
}

static bool
percent(int p)
{
	return below(100) < p;
}

/*
 * An LSN of few, so that many are equal; some unknown; in one tree of eight
 * high ones, where a signed or a short number would go wrong.
 */
static uint64_t
random_lsn(uint64_t base, int unknown_percent)
{
	if (percent(unknown_percent))
		return 0;
	return base + (uint64_t) (1 + below(12)) * UINT64_C(0x100000) + (uint64_t) below(2);
}

static uint32_t
random_incarnation(void)
{
	static const uint32_t incarnations[] = {1, 2, 0x7fffffff, 0x80000000, 0xffffffff};

	return incarnations[below(5)];
}

/* ---- making a tree ---- */

static void
make_edge(const CrelayNode *node, CrelayDownstream *edge, uint64_t base, bool calm)
{
	bool		released = false;
	bool	   *flags[] = {
		&released, &edge->elsewhere, &edge->invalidated, &edge->own,
		&edge->logical, &edge->temporary, &edge->ignored, &edge->backup,
		&edge->managed
	};

	memcpy(edge->name, node->name, sizeof(edge->name));
	edge->kind = node->managed ? CRELAY_KIND_HOLD :
		percent(50) ? CRELAY_KIND_SLOT : CRELAY_KIND_WALSENDER;
	edge->restart_lsn = random_lsn(base, 10);
	edge->reported = node->managed && percent(calm ? 97 : 85);
	edge->pid = percent(50) ? 1 + below(1000) : 0;
	edge->child = -1;
	edge->counts_by = -1;
	if (percent(calm ? 4 : 20))
		*flags[below(9)] = true;
	edge->released_lsn = released ? UINT64_MAX : 0;
	if (percent(5))
		*flags[below(9)] = true;
	edge->released_lsn = released ? UINT64_MAX : 0;
}

/*
 * The upstream of node i: anybody, or an earlier one (no cycle), or the one
 * before (a chain), or itself, or a life that nobody has seen.
 */
static void
make_upstream(Tree *tree, int i, int shape)
{
	CrelayNode *node = &tree->nodes[i];
	int			odd = tree->calm ? 0 : 4;
	int			j;

	if (i == 0 ? percent(70) : percent(odd))
		return;
	if (percent(odd))
		j = i;
	else if (shape == 0 || percent(odd))
		j = below(tree->n);
	else if (i == 0)
		return;
	else
		j = shape == 1 ? below(i) : i - 1 - below(i < 2 ? 1 : 2);

	memmove(node->upstream_name, tree->nodes[j].name, sizeof(node->upstream_name));
	node->upstream_incarnation = tree->nodes[j].incarnation;
	if (percent(odd))
		node->upstream_incarnation = random_incarnation();
	if (percent(odd))
		snprintf(node->upstream_name, sizeof(node->upstream_name), "nobody");
}

static void
make_tree(Tree *tree, int number)
{
	static const char *const prefixes[] = {"n", "N", "n_", "_", "n1", "Z"};
	static const CrelayState states[] = {
		CRELAY_STATE_STREAMING, CRELAY_STATE_CATCHUP, CRELAY_STATE_RUNNING,
		CRELAY_STATE_DOWN, CRELAY_STATE_STALE, CRELAY_STATE_CYCLE
	};
	int			shape = below(4);
	uint64_t	base = percent(12) ? UINT64_C(0x7ffffff000000000) : 0;

	memset(tree, 0, sizeof(*tree));
	tree->calm = percent(50);
	tree->n = number % 50 == 0 ? MAX_NODES - below(20) : 1 + below(14);

	for (int i = 0; i < tree->n; i++)
	{
		CrelayNode *node = &tree->nodes[i];

		if (i > 0 && percent(14))
		{
			/* a namesake, or another row of the same one */
			*node = tree->nodes[below(i)];
			if (percent(60))
				node->incarnation = random_incarnation();
			memset(node->upstream_name, 0, sizeof(node->upstream_name));
			node->upstream_incarnation = 0;
		}
		else
		{
			snprintf(node->name, sizeof(node->name), "%s%d", prefixes[below(6)],
					 below(4 * tree->n));
			node->incarnation = percent(tree->calm ? 95 : 80) ? random_incarnation() : 0;
		}
		node->managed = node->incarnation != 0;
		node->role = percent(i == 0 ? 80 : 10) ? CRELAY_ROLE_PRIMARY : CRELAY_ROLE_STANDBY;
		node->state = states[below(6)];
		node->observed_at = 1 + below(4);
		tree->lots[i].applied_lsn = random_lsn(base, 4);
		tree->lots[i].restart_redo = random_lsn(base, 25);
		make_edge(node, &tree->lots[i].edge, base, tree->calm);
	}
	for (int i = 0; i < tree->n; i++)
		make_upstream(tree, i, shape);
}

/* ---- asking ---- */

static void
ask_topology(Tree *tree)
{
	int			nrows = crelay_topology_assemble(tree->nodes, tree->n,
												 tree->links, tree->rows);

	for (int i = 0; i < tree->n; i++)
		tree->row[i] = tree->upstream[i] = -1;
	for (int i = 0; i < nrows; i++)
		tree->row[tree->rows[i].node] = i;

	/* who streams from whom: as the nodes say, cycles and all */
	for (int i = 0; i < tree->n; i++)
	{
		const CrelayNode *node = &tree->nodes[i];

		for (int j = 0; j < tree->n; j++)
		{
			if (tree->row[i] >= 0 && tree->row[j] >= 0 && tree->nodes[j].managed &&
				tree->nodes[j].incarnation == node->upstream_incarnation &&
				strcmp(tree->nodes[j].name, node->upstream_name) == 0)
				tree->upstream[i] = j;
		}
	}
}

static bool
is_on_path(const Tree *tree, int node, int of)
{
	for (int hops = 0; of >= 0 && hops <= tree->n; hops++)
	{
		if (of == node)
			return true;
		of = tree->upstream[of];
	}
	return false;
}

/*
 * The frontier of a managed node, after every node below it has reported its
 * own to the one above.
 */
static const CrelayFrontier *
ask_frontier(Tree *tree, int node)
{
	CrelayOwn	own = {
		tree->nodes[node].name, tree->lots[node].applied_lsn,
		tree->lots[node].restart_redo, 1
	};
	CrelayDownstream downstreams[MAX_NODES];
	int			children[MAX_NODES];
	int			n = 0;

	if (tree->done[node])
		return &tree->frontiers[node];
	for (int i = 0; i < tree->n; i++)
	{
		CrelayDownstream *d = &tree->lots[i].edge;

		if (tree->upstream[i] != node)
			continue;
		d->ancestor = is_on_path(tree, i, node);
		if (d->reported && !d->ancestor)
		{
			const CrelayFrontier *report = ask_frontier(tree, i);

			d->reported_frontier = report->frontier_lsn;
			d->reported_target = report->hold_target_lsn;
			d->reported_pin = report->pin;
		}
		children[n] = i;
		downstreams[n++] = *d;
	}
	crelay_frontier_compute(&own, downstreams, n, &tree->frontiers[node]);
	for (int i = 0; i < n; i++)
		tree->lots[children[i]].edge = downstreams[i];
	tree->done[node] = true;
	return &tree->frontiers[node];
}

/* ---- printing ---- */

static void
print_number(int value)
{
	if (value < 0)
		printf("\t\\N");
	else
		printf("\t%d", value);
}

static void
print_node(const Tree *tree, int number, int i)
{
	static const char *const kinds[] = {"slot", "walsender", "hold"};
	const CrelayNode *node = &tree->nodes[i];
	const Lot  *lot = &tree->lots[i];
	const CrelayDownstream *d = &lot->edge;
	const CrelayTreeRow *row = tree->row[i] < 0 ? NULL : &tree->rows[tree->row[i]];
	const CrelayFrontier *f = tree->done[i] ? &tree->frontiers[i] : NULL;

	printf("%d\t%d\t%s\t%" PRIu32 "\t%s\t%" PRIu32, number, i, node->name,
		   node->incarnation, node->upstream_name, node->upstream_incarnation);
	printf("\t%d\t%s\t%" PRIi64, node->role == CRELAY_ROLE_PRIMARY,
		   crelay_state_text(node->state), node->observed_at);
	printf("\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%s", lot->applied_lsn,
		   lot->restart_redo, d->restart_lsn, kinds[d->kind]);
	printf("\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d", d->pid != 0, d->reported,
		   d->released_lsn != 0, d->elsewhere, d->invalidated, d->own, d->logical,
		   d->temporary, d->ignored, d->backup, d->managed);

	/* the answers */
	print_number(tree->row[i]);
	print_number(row == NULL || row->parent < 0 ? -1 : tree->rows[row->parent].node);
	print_number(row == NULL ? -1 : row->depth);
	print_number(row == NULL ? -1 : row->cyclic);
	print_number(tree->upstream[i] < 0 ? -1 : d->counted);
	if (f != NULL)
		printf("\t%" PRIu64 "\t%" PRIu64 "\t%s", f->frontier_lsn,
			   f->hold_target_lsn, f->pin.by);
	else
		printf("\t\\N\t\\N\t\\N");
	putchar('\n');
}

int
main(int argc, char **argv)
{
	static Tree tree;
	int			ntrees;

	if (argc != 3)
	{
		fprintf(stderr, "usage: tree_dump SEED TREES\n");
		return 2;
	}
	random_state = strtoull(argv[1], NULL, 10);
	ntrees = atoi(argv[2]);

	for (int number = 0; number < ntrees; number++)
	{
		make_tree(&tree, number);
		ask_topology(&tree);
		for (int i = 0; i < tree.n; i++)
		{
			if (tree.row[i] >= 0 && tree.nodes[i].managed)
				ask_frontier(&tree, i);
		}
		for (int i = 0; i < tree.n; i++)
			print_node(&tree, number, i);
	}
	return 0;
}
