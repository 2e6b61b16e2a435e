/*-------------------------------------------------------------------------
 *
 * test_topology.c
 *	  Tests of the tree's assembly, as a plain program that prints TAP.
 *
 * Owns: what topology.h promises, seen from outside: order and depth, what
 * becomes of orphans, cycles and second rows, and the ageing of rows.
 *
 *	  cc -std=gnu99 -Isrc -It/unit -g -fsanitize=address,undefined \
 *		  t/unit/test_topology.c src/topology.c -o test_topology && ./test_topology
 *
 * A tree is written as text, one "name:incarnation<upstream:incarnation" for
 * each node, and compared as text: the rows in order, indented by their depth.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/topology.h"
#include "tap.h"

#include <stdlib.h>
#include <time.h>

#define NOW				INT64_C(800000000000000)
#define SECOND			INT64_C(1000000)
#define MAX_NODES		64

typedef struct Tree
{
	int			n;
	CrelayNode *nodes;
	CrelayTreeLink *links;
	CrelayTreeRow *rows;
	int			nrows;
} Tree;

static Tree
tree_of(int capacity)
{
	Tree		tree = {0};

	/* exactly as much as is promised to be enough */
	tree.nodes = calloc(capacity, sizeof(CrelayNode));
	tree.links = calloc(capacity, sizeof(CrelayTreeLink));
	tree.rows = calloc(capacity, sizeof(CrelayTreeRow));
	if (tree.nodes == NULL || tree.links == NULL || tree.rows == NULL)
		abort();
	memset(tree.links, 0x55, capacity * sizeof(CrelayTreeLink));
	memset(tree.rows, 0x55, capacity * sizeof(CrelayTreeRow));
	return tree;
}

static void
free_tree(Tree *tree)
{
	free(tree->nodes);
	free(tree->links);
	free(tree->rows);
}

static CrelayNode *
add(Tree *tree, const char *name, uint32_t incarnation, const char *upstream,
	uint32_t upstream_incarnation)
{
	CrelayNode *node = &tree->nodes[tree->n++];

	snprintf(node->name, sizeof(node->name), "%s", name);
	node->incarnation = incarnation;
	snprintf(node->upstream_name, sizeof(node->upstream_name), "%s", upstream);
	node->upstream_incarnation = upstream_incarnation;
	node->managed = incarnation != 0;
	node->role = CRELAY_ROLE_STANDBY;
	node->state = CRELAY_STATE_STREAMING;
	node->observed_at = NOW;
	return node;
}

static CrelayNode *
add_primary(Tree *tree, const char *name, uint32_t incarnation)
{
	CrelayNode *node = add(tree, name, incarnation, "", 0);

	node->role = CRELAY_ROLE_PRIMARY;
	node->state = CRELAY_STATE_RUNNING;
	return node;
}

static void
assemble(Tree *tree)
{
	tree->nrows = crelay_topology_assemble(tree->nodes, tree->n, tree->links,
										   tree->rows);
}

/*
 * The rows as text: a dot for each step of depth, an exclamation mark on a
 * cycle and a tilde below one, the name, the incarnation, and in brackets the
 * parent's row.
 */
static const char *
drawn(const Tree *tree)
{
	static char drawing[16384];
	size_t		at = 0;

	drawing[0] = '\0';
	for (int r = 0; r < tree->nrows; r++)
	{
		const CrelayTreeRow *row = &tree->rows[r];

		at += snprintf(drawing + at, sizeof(drawing) - at, "%s%.*s%s%s:%u(%d)",
					   r > 0 ? " " : "", row->depth,
					   "................................................................",
					   row->cyclic ? "!" : row->below_cycle ? "~" : "", tree->nodes[row->node].name,
					   tree->nodes[row->node].incarnation, row->parent);
	}
	return drawing;
}

static void
is_tree(Tree *tree, const char *expected, const char *what)
{
	assemble(tree);
	is_text(drawn(tree), expected, what);
	free_tree(tree);
}

/* ---- order and depth ---- */

static void
test_order(void)
{
	Tree		tree = tree_of(7);

	/* as it comes from shared memory: in no order at all */
	add(&tree, "l2", 5, "i", 2);
	add(&tree, "z", 4, "p", 1);
	add(&tree, "l10", 6, "i", 2);
	add_primary(&tree, "p", 1);
	add(&tree, "deep", 7, "l2", 5);
	add(&tree, "i", 2, "p", 1);
	add(&tree, "a", 3, "p", 1);
	is_tree(&tree, "p:1(-1) .a:3(0) .i:2(0) ..l10:6(2) ..l2:5(2) ...deep:7(4) .z:4(0)",
			"the root first, depth first, siblings by name");

	tree = tree_of(1);
	is_tree(&tree, "", "no node at all");

	tree = tree_of(1);
	add_primary(&tree, "p", 1);
	is_tree(&tree, "p:1(-1)", "a primary alone");

	tree = tree_of(4);
	add_primary(&tree, "q", 9);
	add_primary(&tree, "b", 1);
	add(&tree, "x", 2, "q", 9);
	add(&tree, "a", 3, "b", 1);
	is_tree(&tree, "b:1(-1) .a:3(0) q:9(-1) .x:2(2)", "two primaries, each with its own");

	/* the same name, two lives */
	tree = tree_of(5);
	add_primary(&tree, "p", 1);
	add(&tree, "i", 8, "p", 1);
	add(&tree, "i", 2, "p", 1);
	add(&tree, "l", 4, "i", 2);
	add(&tree, "m", 5, "i", 8);
	is_tree(&tree, "p:1(-1) .i:2(0) ..l:4(1) .i:8(0) ..m:5(3)",
			"a namesake of another incarnation is another node");
}

static void
test_orphans(void)
{
	Tree		tree = tree_of(5);

	add(&tree, "l", 3, "i", 2);
	add(&tree, "i", 2, "gone", 9);
	add_primary(&tree, "z", 1);
	add(&tree, "b", 4, "", 0);
	add(&tree, "c", 5, "z", 7);
	is_tree(&tree, "z:1(-1) .b:4(-1) .c:5(-1) .i:2(-1) ..l:3(3)",
			"parts without a known upstream follow the root, by name, at depth 1");

	tree = tree_of(2);
	add(&tree, "l", 3, "i", 2);
	add(&tree, "i", 2, "p", 1);
	is_tree(&tree, ".i:2(-1) ..l:3(0)", "no root at all");

	/* a primary that still says whom it once streamed from */
	tree = tree_of(2);
	add_primary(&tree, "p", 1);
	snprintf(add_primary(&tree, "a", 2)->upstream_name, CRELAY_NAME_LEN, "p");
	tree.nodes[1].upstream_incarnation = 1;
	is_tree(&tree, "p:1(-1) .a:2(0)", "a primary with an upstream hangs where it says");
}

static void
test_unmanaged(void)
{
	Tree		tree = tree_of(7);

	add_primary(&tree, "p", 1);
	add(&tree, "a", 2, "p", 1);
	add(&tree, "b", 3, "p", 1);
	add(&tree, "backup", 0, "b", 3);
	add(&tree, "backup", 0, "a", 2);
	add(&tree, "below", 4, "backup", 0);
	add(&tree, "backup", 0, "p", 1);
	is_tree(&tree,
			"p:1(-1) .a:2(0) ..backup:0(1) .b:3(0) ..backup:0(3) .backup:0(0) .below:4(-1)",
			"unmanaged namesakes below different nodes are all drawn, and feed nobody");

	tree = tree_of(3);
	add_primary(&tree, "p", 1);
	add(&tree, "w", 0, "p", 1);
	add(&tree, "w", 0, "p", 1);
	is_tree(&tree, "p:1(-1) .w:0(0)", "two below one node are one: its name is its own there");

	/*
	 * the feeder has come back, and its former upstream's rows are still
	 * there
	 */
	tree = tree_of(4);
	add_primary(&tree, "s", 1);
	add(&tree, "i", 2, "s", 1);
	add(&tree, "w", 0, "i", 2)->state = CRELAY_STATE_STALE;
	add(&tree, "w", 0, "i", 2)->flush_lsn = 7;
	assemble(&tree);
	ok(tree.nrows == 3 && tree.nodes[tree.rows[2].node].flush_lsn == 7,
	   "of two rows of an unmanaged node the one that has news");
	free_tree(&tree);

	/* whose feeder nobody knows may be two */
	tree = tree_of(2);
	add(&tree, "w", 0, "", 0);
	add(&tree, "w", 0, "", 0);
	is_tree(&tree, ".w:0(-1) .w:0(-1)", "those that are fed by nobody known are two");
}

/*
 * A node reports to p, and i sees its walsender: it hangs where it is fed, with all
 * that is below it.
 */
static void
test_elsewhere(void)
{
	Tree		tree = tree_of(5);

	add_primary(&tree, "p", 1);
	add(&tree, "i", 2, "p", 1);
	add(&tree, "l", 3, "p", 1)->warnings = CRELAY_WARN_REPORTS_ELSEWHERE;
	add(&tree, "l", 0, "i", 2);
	add(&tree, "m", 4, "l", 3);
	is_tree(&tree, "p:1(-1) .i:2(0) ..l:3(1) ...m:4(2)", "a node is drawn once, where it streams from");

	tree = tree_of(4);
	add_primary(&tree, "p", 1);
	add(&tree, "i", 2, "p", 1);
	add(&tree, "l", 3, "p", 1);
	add(&tree, "l", 0, "i", 2);
	is_tree(&tree, "p:1(-1) .i:2(0) ..l:0(1) .l:3(0)", "a name alone moves nobody");

	tree = tree_of(5);
	add_primary(&tree, "p", 1);
	add(&tree, "i", 2, "p", 1);
	add(&tree, "l", 3, "p", 1)->warnings = CRELAY_WARN_REPORTS_ELSEWHERE;
	add(&tree, "l", 0, "i", 2);
	add(&tree, "l", 0, "p", 1);
	is_tree(&tree, "p:1(-1) .i:2(0) ..l:0(1) .l:3(0)", "nor do two that bear it");

	tree = tree_of(3);
	add_primary(&tree, "p", 1);
	add(&tree, "l", 3, "p", 1)->warnings = CRELAY_WARN_REPORTS_ELSEWHERE;
	add(&tree, "l", 0, "l", 3);
	is_tree(&tree, "p:1(-1) .l:3(0) ..l:0(1)", "a node never feeds itself");
}

/* ---- second rows ---- */

static void
test_duplicates(void)
{
	static const struct
	{
		CrelayState first_state;
		int			first_age;
		CrelayState second_state;
		int			second_age;
		bool		second_wins;
		const char *what;
	}			cases[] =
	{
		{CRELAY_STATE_STREAMING, 5, CRELAY_STATE_STREAMING, 1, false, "the first given of two live, however old"},
		{CRELAY_STATE_CATCHUP, 1, CRELAY_STATE_ARCHIVE, 5, false, "likewise in other states"},
		{CRELAY_STATE_DOWN, 1, CRELAY_STATE_STREAMING, 9, true, "who sees it connected, however old"},
		{CRELAY_STATE_CATCHUP, 9, CRELAY_STATE_DOWN, 1, false, "who sees it connected, given first"},
		{CRELAY_STATE_STALE, 1, CRELAY_STATE_ARCHIVE, 9, true, "who has news, however old"},
		{CRELAY_STATE_STALE, 5, CRELAY_STATE_DOWN, 1, true, "the newer of two gone"},
		{CRELAY_STATE_DOWN, 1, CRELAY_STATE_STALE, 5, false, "the newer of two gone, given first"},
		{CRELAY_STATE_DOWN, 1, CRELAY_STATE_DOWN, 1, false, "the first in order, all else equal"}
	};

	Tree		tree;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		CrelayNode *node;

		tree = tree_of(4);
		add_primary(&tree, "p", 1);
		add(&tree, "q", 2, "p", 1);
		node = add(&tree, "x", 3, "p", 1);
		node->state = cases[i].first_state;
		node->observed_at = NOW - cases[i].first_age * SECOND;
		node = add(&tree, "x", 3, "q", 2);
		node->state = cases[i].second_state;
		node->observed_at = NOW - cases[i].second_age * SECOND;
		is_tree(&tree, cases[i].second_wins ?
				"p:1(-1) .q:2(0) ..x:3(1)" : "p:1(-1) .q:2(0) .x:3(0)",
				cases[i].what);
	}

	/* in the order of keys the row of q comes last */
	tree = tree_of(4);
	add_primary(&tree, "p", 1);
	add(&tree, "x", 3, "q", 2);
	add(&tree, "x", 3, "p", 1);
	add(&tree, "q", 2, "p", 1);
	is_tree(&tree, "p:1(-1) .q:2(0) ..x:3(1)", "the first given, not the first in order");
}

/* ---- after a failover ---- */

static void
test_former(void)
{
	Tree		tree = tree_of(6);

	add_primary(&tree, "a", 1)->state = CRELAY_STATE_STALE;
	add(&tree, "z", 2, "a", 1)->state = CRELAY_STATE_STALE;
	add_primary(&tree, "b", 3)->state = CRELAY_STATE_DOWN;
	add_primary(&tree, "s", 4);
	add(&tree, "l", 5, "s", 4);
	add(&tree, "o", 6, "gone", 9);
	is_tree(&tree, "s:4(-1) .l:5(0) a:1(-1) .z:2(2) b:3(-1) .o:6(-1)",
			"the live root first, then old primaries, then orphans");

	/* the old primary is back, rewound */
	tree = tree_of(3);
	add_primary(&tree, "s", 4);
	add_primary(&tree, "p", 1)->state = CRELAY_STATE_STALE;
	add(&tree, "p", 2, "s", 4);
	is_tree(&tree, "s:4(-1) .p:2(0)", "the former life of a live node is not drawn");

	/* it streams from there, and may not report there */
	tree = tree_of(4);
	add_primary(&tree, "s", 4);
	add(&tree, "p", 0, "s", 4);
	add(&tree, "p", 2, "s", 4)->state = CRELAY_STATE_CYCLE;
	add(&tree, "q", 0, "s", 4);
	is_tree(&tree, "s:4(-1) .p:2(0) .q:0(0)", "nor one twice that does not report to who feeds it");
	tree = tree_of(3);
	add_primary(&tree, "s", 4);
	add(&tree, "p", 0, "s", 4);
	add(&tree, "p", 2, "s", 4)->state = CRELAY_STATE_STALE;
	is_tree(&tree, "s:4(-1) .p:0(0) .p:2(0)", "unless nobody has had news of it");

	tree = tree_of(3);
	add_primary(&tree, "s", 4);
	add_primary(&tree, "p", 1)->state = CRELAY_STATE_STALE;
	add(&tree, "p", 2, "s", 4)->state = CRELAY_STATE_DOWN;
	is_tree(&tree, "s:4(-1) .p:2(0) p:1(-1)", "unless the present one is away");

	tree = tree_of(3);
	add_primary(&tree, "s", 4);
	add(&tree, "p", 1, "s", 4)->state = CRELAY_STATE_DOWN;
	add(&tree, "p", 2, "s", 4);
	is_tree(&tree, "s:4(-1) .p:1(0) .p:2(0)", "one whose upstream says that it is down has a hold there");

	tree = tree_of(6);
	add_primary(&tree, "s", 4);
	add_primary(&tree, "p", 1)->state = CRELAY_STATE_STALE;
	add(&tree, "i", 6, "p", 1)->state = CRELAY_STATE_STALE;
	add(&tree, "x", 5, "i", 6)->state = CRELAY_STATE_STALE;
	add(&tree, "p", 2, "s", 4);
	add(&tree, "i", 7, "s", 4);
	is_tree(&tree, "s:4(-1) .i:7(0) .p:2(0) p:1(-1) .i:6(3) ..x:5(4)",
			"unless somebody else was last seen below it");

	tree = tree_of(5);
	add_primary(&tree, "s", 4);
	add_primary(&tree, "p", 1)->state = CRELAY_STATE_STALE;
	add(&tree, "i", 6, "p", 1)->state = CRELAY_STATE_STALE;
	add(&tree, "p", 2, "s", 4);
	add(&tree, "i", 7, "s", 4);
	is_tree(&tree, "s:4(-1) .i:7(0) .p:2(0)", "when the last below it has come back, it goes, too");
}

static void
test_awaited(void)
{
	const CrelayNode *room[8];
	const char *first;
	Tree		tree = tree_of(8);

	/* what s sees itself, and from the fifth on what its upstream had said */
	add_primary(&tree, "s", 4)->protected = CRELAY_TRUE;
	add(&tree, "i", 7, "s", 4)->protected = CRELAY_TRUE;
	add(&tree, "l", 3, "i", 7)->protected = CRELAY_FALSE;
	add(&tree, "x", 0, "i", 7)->protected = CRELAY_TRUE;
	add_primary(&tree, "p", 1)->protected = CRELAY_TRUE;
	add(&tree, "l", 3, "i", 6)->protected = CRELAY_TRUE;
	tree.nodes[5].moves = 1;
	tree.nodes[2].moves = 2;
	add(&tree, "i", 6, "p", 1)->protected = CRELAY_UNKNOWN;
	add(&tree, "x", 0, "p", 1)->protected = CRELAY_TRUE;

	is_number(crelay_topology_awaited(tree.nodes, tree.n, 4, room, &first), 2,
			  "whom a new primary has not got back");
	is_text(first, "l", "the first of them by name, attached but not protected yet");

	tree.nodes[2].protected = CRELAY_TRUE;
	is_number(crelay_topology_awaited(tree.nodes, tree.n, 4, room, &first), 1,
			  "one less when it is protected");
	is_text(first, "p", "the old primary is one of them");

	tree.nodes[2].state = CRELAY_STATE_DOWN;
	is_number(crelay_topology_awaited(tree.nodes, tree.n, 4, room, &first), 2,
			  "who is away again is awaited again");

	tree.nodes[2].state = CRELAY_STATE_CATCHUP;
	tree.nodes[4].protected = CRELAY_FALSE;
	is_number(crelay_topology_awaited(tree.nodes, tree.n, 4, room, &first), 0,
			  "who had nothing to lose is not awaited");
	ok(first == NULL, "and then nobody is the first");
	is_number(crelay_topology_awaited(tree.nodes, 4, 4, room, &first), 0,
			  "without an upstream there was nobody");

	/* of a node that has told its counter a higher one is expected */
	tree.nodes[5].moves = 5;
	is_number(crelay_topology_awaited(tree.nodes, tree.n, 4, room, &first), 1,
			  "a node that shows no counter is not back");
	is_text(first, "l", "and is awaited");
	tree.nodes[2].moves = 5;
	is_number(crelay_topology_awaited(tree.nodes, tree.n, 4, room, &first), 1,
			  "nor is one whose counter is what it was");
	tree.nodes[2].moves = 6;
	is_number(crelay_topology_awaited(tree.nodes, tree.n, 4, room, &first), 0,
			  "a raised one says that it is back");
	tree.nodes[2].moves = 0;
	tree.nodes[2].incarnation = 33;
	is_number(crelay_topology_awaited(tree.nodes, tree.n, 4, room, &first), 0,
			  "a former life of a node that is live and protected is not awaited");
	free_tree(&tree);
}

/* ---- cycles ---- */

static void
test_cycles(void)
{
	Tree		tree = tree_of(2);

	add_primary(&tree, "p", 1);
	add(&tree, "a", 2, "a", 2);
	is_tree(&tree, "p:1(-1) .!a:2(-1)", "a node that streams from itself");

	tree = tree_of(2);
	add(&tree, "b", 2, "a", 1);
	add(&tree, "a", 1, "b", 2);
	is_tree(&tree, ".!a:1(-1) ..!b:2(0)", "two that stream from one another");

	tree = tree_of(8);
	add_primary(&tree, "p", 1);
	add(&tree, "d", 14, "c", 13);
	add(&tree, "b", 12, "d", 14);
	add(&tree, "c", 13, "b", 12);
	add(&tree, "a", 11, "tail", 15);	/* below the cycle, first by name */
	add(&tree, "tail", 15, "c", 13);
	add(&tree, "aa", 16, "b", 12);
	add(&tree, "i", 17, "p", 1);
	is_tree(&tree,
			"p:1(-1) .i:17(0) .!b:12(-1) ..~aa:16(2) ..!c:13(2) ...!d:14(4) ...~tail:15(4) ....~a:11(6)",
			"three in a cycle with tails: cut at the first by name of the cycle itself");

	tree = tree_of(4);
	add(&tree, "a", 1, "d", 4);
	add(&tree, "d", 4, "a", 1);
	add(&tree, "b", 2, "c", 3);
	add(&tree, "c", 3, "b", 2);
	is_tree(&tree, ".!a:1(-1) ..!d:4(0) .!b:2(-1) ..!c:3(2)", "two cycles");

	/* primaries do not protect from it */
	tree = tree_of(2);
	add(&tree, "a", 1, "b", 2)->role = CRELAY_ROLE_PRIMARY;
	add(&tree, "b", 2, "a", 1);
	is_tree(&tree, ".!a:1(-1) ..!b:2(0)", "a primary on a cycle");
}

/* ---- a second, slower opinion ---- */

typedef struct Oracle
{
	const Tree *tree;
	int			kept[MAX_NODES];	/* in order */
	int			n;
	int			parent[MAX_NODES];	/* by node */
	bool		done[MAX_NODES];
	CrelayTreeRow rows[MAX_NODES];
	int			nrows;
} Oracle;

static int
compare(const CrelayNode *a, const CrelayNode *b, bool upstream_too)
{
	int			c = strcmp(a->name, b->name);

	if (c == 0 && a->incarnation != b->incarnation)
		c = a->incarnation < b->incarnation ? -1 : 1;
	if (c == 0 && upstream_too)
		c = strcmp(a->upstream_name, b->upstream_name);
	if (c == 0 && upstream_too && a->upstream_incarnation != b->upstream_incarnation)
		c = a->upstream_incarnation < b->upstream_incarnation ? -1 : 1;
	return c;
}

static bool
gone(const CrelayNode *node)
{
	return node->state == CRELAY_STATE_DOWN || node->state == CRELAY_STATE_STALE;
}

/*
 * Whether another row tells more about the same node.
 */
static bool
is_beaten(const Tree *tree, int i)
{
	const CrelayNode *a = &tree->nodes[i];

	for (int j = 0; j < tree->n; j++)
	{
		const CrelayNode *b = &tree->nodes[j];
		int			c;

		if (j == i || compare(a, b, a->incarnation == 0) != 0 ||
			(a->incarnation == 0 && a->upstream_incarnation == 0))
			continue;
		if (gone(a) != gone(b))
		{
			if (gone(a))
				return true;
			continue;
		}
		if (!gone(a))
		{
			if (j < i)
				return true;
			continue;
		}
		if (a->observed_at != b->observed_at)
		{
			if (a->observed_at < b->observed_at)
				return true;
			continue;
		}
		c = compare(b, a, true);
		if (c < 0 || (c == 0 && j < i))
			return true;
	}
	return false;
}

static bool
live(const CrelayNode *node)
{
	return node->state == CRELAY_STATE_STREAMING || node->state == CRELAY_STATE_CATCHUP ||
		node->state == CRELAY_STATE_RUNNING;
}

/*
 * Whether it is a former life, and so is everything below it.
 */
static bool
is_over(const Oracle *o, int i)
{
	const CrelayNode *node = &o->tree->nodes[i];
	bool		lives = false;

	for (int j = 0; j < o->n; j++)
	{
		const CrelayNode *other = &o->tree->nodes[o->kept[j]];

		if (other->incarnation != 0 && live(other) && strcmp(other->name, node->name) == 0)
			lives = true;
	}
	return lives && node->incarnation != 0 && node->state == CRELAY_STATE_STALE;
}

static bool
all_over(const Oracle *o, int i)
{
	for (int j = 0; j < o->n; j++)
	{
		int			up = o->kept[j];

		for (int step = 0; step <= o->n && up >= 0; step++)
		{
			if (up == i && !is_over(o, o->kept[j]))
				return false;
			up = o->parent[up];
		}
	}
	return true;
}

/*
 * Whether a managed node of that name is beside one without an incarnation.
 */
static bool
is_double(const Oracle *o, int i)
{
	const CrelayNode *node = &o->tree->nodes[i];

	for (int j = 0; j < o->n; j++)
	{
		const CrelayNode *other = &o->tree->nodes[o->kept[j]];

		if (node->incarnation == 0 && other->incarnation != 0 && o->parent[i] >= 0 &&
			o->parent[i] == o->parent[o->kept[j]] && o->parent[i] != o->kept[j] && strcmp(other->name, node->name) == 0 &&
			other->state != CRELAY_STATE_DOWN && other->state != CRELAY_STATE_STALE)
			return true;
	}
	return false;
}

static void
oracle_drop_former(Oracle *o)
{
	int			kept[MAX_NODES];
	int			n = 0;

	for (int i = 0; i < o->n; i++)
	{
		if (!all_over(o, o->kept[i]) && !is_double(o, o->kept[i]))
			kept[n++] = o->kept[i];
	}
	memcpy(o->kept, kept, sizeof(int) * n);
	o->n = n;
}

/*
 * Whether the upstreams lead from a node back to itself.
 */
static bool
oracle_is_cyclic(const Oracle *o, int node)
{
	int			up = o->parent[node];

	for (int step = 0; step < o->n && up >= 0 && up != node; step++)
		up = o->parent[up];
	return up == node;
}

static void
oracle_draw(Oracle *o, int node, int parent_row, int depth, bool below_cycle)
{
	int			row = o->nrows++;

	o->rows[row].node = node;
	o->rows[row].parent = parent_row;
	o->rows[row].depth = depth;
	o->rows[row].cyclic = below_cycle && oracle_is_cyclic(o, node);
	o->rows[row].below_cycle = below_cycle && !o->rows[row].cyclic;
	o->done[node] = true;
	for (int i = 0; i < o->n; i++)
	{
		if (o->parent[o->kept[i]] == node && !o->done[o->kept[i]])
			oracle_draw(o, o->kept[i], row, depth + 1, below_cycle);
	}
}

static void
oracle_assemble(Oracle *o, const Tree *tree)
{
	memset(o, 0, sizeof(*o));
	o->tree = tree;
	for (int i = 0; i < tree->n; i++)
	{
		int			at = o->n;

		if (is_beaten(tree, i))
			continue;
		while (at > 0 && compare(&tree->nodes[o->kept[at - 1]], &tree->nodes[i], true) > 0)
		{
			o->kept[at] = o->kept[at - 1];
			at--;
		}
		o->kept[at] = i;
		o->n++;
	}
	for (int i = 0; i < o->n; i++)
	{
		const CrelayNode *node = &tree->nodes[o->kept[i]];

		o->parent[o->kept[i]] = -1;
		for (int j = 0; j < o->n; j++)
		{
			const CrelayNode *up = &tree->nodes[o->kept[j]];

			if (up->incarnation != 0 && up->incarnation == node->upstream_incarnation &&
				strcmp(up->name, node->upstream_name) == 0)
				o->parent[o->kept[i]] = o->kept[j];
		}
	}
	oracle_drop_former(o);
	for (int pass = 0; pass < 3; pass++)
	{
		for (int i = 0; i < o->n; i++)
		{
			int			node = o->kept[i];

			if (o->parent[node] < 0 && !o->done[node] &&
				(pass == 2 || (tree->nodes[node].role == CRELAY_ROLE_PRIMARY &&
							   (pass == 1 || live(&tree->nodes[node])))))
				oracle_draw(o, node, -1, pass == 2 ? 1 : 0, false);
		}
	}
	for (int i = 0; i < o->n; i++)
	{
		int			node = o->kept[i];
		int			top;

		if (o->done[node])
			continue;
		/* after that many steps up it is on the cycle */
		for (int step = 0; step < o->n; step++)
			node = o->parent[node];
		top = node;
		for (int on = o->parent[node]; on != node; on = o->parent[on])
		{
			if (compare(&tree->nodes[on], &tree->nodes[top], true) < 0)
				top = on;
		}
		oracle_draw(o, top, -1, 1, true);
	}
}

/*
 * Whether another node that is drawn below the same one follows.
 */
static bool
oracle_has_next(const Oracle *o, int row)
{
	for (int r = row + 1; o->rows[row].parent >= 0 && r < o->nrows; r++)
	{
		if (o->rows[r].parent == o->rows[row].parent)
			return true;
	}
	return false;
}

static bool
same_rows(const Oracle *o, const Tree *tree)
{
	if (o->nrows != tree->nrows)
		return false;
	for (int r = 0; r < o->nrows; r++)
	{
		if (o->rows[r].node != tree->rows[r].node ||
			o->rows[r].parent != tree->rows[r].parent ||
			o->rows[r].depth != tree->rows[r].depth ||
			oracle_has_next(o, r) != tree->rows[r].has_next ||
			o->rows[r].cyclic != tree->rows[r].cyclic ||
			o->rows[r].below_cycle != tree->rows[r].below_cycle)
			return false;
	}
	return true;
}

/*
 * Random trees.  With orderly, each node hangs below an earlier one: then
 * everything must be below the root.  Without, upstreams are any node, or none
 * that exists, and some nodes have several rows.
 */
static void
random_tree(Tree *tree, bool orderly)
{
	static const CrelayState states[] = {
		CRELAY_STATE_STREAMING, CRELAY_STATE_CATCHUP, CRELAY_STATE_DOWN,
		CRELAY_STATE_STALE
	};
	int			n = 1 + (int) random_below(MAX_NODES);
	int			names = orderly ? MAX_NODES : 1 + (int) random_below(MAX_NODES);

	*tree = tree_of(n);
	add_primary(tree, "n0", 1);
	while (tree->n < n)
	{
		int			me = orderly ? tree->n : (int) random_below(names);
		int			up = orderly ? (int) random_below(tree->n) : (int) random_below(names + 2);
		char		name[16];
		char		upstream[16];
		CrelayNode *node;

		/* an order of names that is not the order of making */
		snprintf(name, sizeof(name), "n%d", me == 0 ? 0 : me * 37 % 101);
		snprintf(upstream, sizeof(upstream), "n%d", up == 0 ? 0 : up * 37 % 101);
		node = add(tree, name, me + 1, upstream, up + 1);
		if (orderly)
			continue;
		if (random_below(5) == 0)
			node->incarnation = 0;
		else if (random_below(5) == 0)
			node->incarnation += 1000;
		if (random_below(20) == 0)
			node->role = CRELAY_ROLE_PRIMARY;
		node->state = states[random_below(4)];
		node->observed_at -= random_below(3) * SECOND;
	}
	/* given in any order */
	for (int i = n - 1; i > 0; i--)
	{
		int			j = (int) random_below(i + 1);
		CrelayNode	swap = tree->nodes[i];

		tree->nodes[i] = tree->nodes[j];
		tree->nodes[j] = swap;
	}
}

static void
test_random(bool orderly, int rounds, const char *what)
{
	static Oracle oracle;
	int			wrong = 0;
	int			cyclic = 0;
	int			second_rows = 0;

	for (int round = 0; round < rounds; round++)
	{
		Tree		tree;

		random_tree(&tree, orderly);
		assemble(&tree);
		oracle_assemble(&oracle, &tree);
		if (!same_rows(&oracle, &tree) ||
			(orderly && (tree.nrows != tree.n || tree.rows[0].depth != 0)))
		{
			if (wrong++ == 0)
				printf("# round %d: %s\n", round, drawn(&tree));
		}
		if (tree.nrows < tree.n)
			second_rows++;
		for (int r = 0; r < tree.nrows; r++)
		{
			if (tree.rows[r].cyclic)
			{
				cyclic++;
				break;
			}
		}
		free_tree(&tree);
	}
	ok(wrong == 0, "%d random trees, %s: as the slower way says", rounds, what);
	if (!orderly)
		ok(cyclic > rounds / 10 && second_rows > rounds / 10,
		   "%d of them had cycles, %d second rows", cyclic, second_rows);
}

/*
 * As large as it gets, in the shapes that hurt: one long chain, all below one,
 * one long cycle.  Recursion, or anything quadratic, would show.
 */
static void
test_large(const char *shape)
{
	enum
	{
		LARGE = 65000
	};
	Tree		tree = tree_of(LARGE);
	bool		right = true;
	clock_t		start;

	for (int i = 0; i < LARGE; i++)
	{
		char		name[16];
		char		upstream[16];
		int			up = i - 1;

		if (strcmp(shape, "star") == 0)
			up = 0;
		if (strcmp(shape, "cycle") == 0)
			up = (i + LARGE - 1) % LARGE;
		snprintf(name, sizeof(name), "n%05d", i);
		snprintf(upstream, sizeof(upstream), "n%05d", up);
		if (i == 0 && strcmp(shape, "cycle") != 0)
			add_primary(&tree, name, 1);
		else
			add(&tree, name, i + 1, upstream, up + 1);
	}
	start = clock();
	assemble(&tree);
	for (int r = 0; r < tree.nrows; r++)
	{
		int			depth = r;

		if (strcmp(shape, "star") == 0)
			depth = r > 0;
		if (strcmp(shape, "cycle") == 0)
			depth = r + 1;
		if (tree.rows[r].node != r || tree.rows[r].depth != depth ||
			tree.rows[r].has_next != (strcmp(shape, "star") == 0 && r > 0 && r < LARGE - 1))
			right = false;
	}
	ok(right && tree.nrows == LARGE, "a %s of %d nodes", shape, LARGE);
	ok(clock() - start < 5 * CLOCKS_PER_SEC, "a %s takes no time", shape);
	free_tree(&tree);
}

/* ---- ageing and texts ---- */

static void
test_age(void)
{
	Tree		tree = tree_of(6);

	add(&tree, "fresh", 1, "", 0)->observed_at = NOW - 29 * SECOND;
	add(&tree, "edge", 2, "", 0)->observed_at = NOW - 30 * SECOND;
	add(&tree, "old", 3, "", 0)->observed_at = NOW - 30 * SECOND - 1;
	add(&tree, "never", 4, "", 0)->observed_at = 0;
	add(&tree, "down", 5, "", 0)->observed_at = 0;
	tree.nodes[4].state = CRELAY_STATE_DOWN;
	add(&tree, "ahead", 6, "", 0)->observed_at = NOW + 99 * SECOND;
	crelay_topology_age(tree.nodes, tree.n, NOW, 30 * SECOND, 0);

	is_text(crelay_state_text(tree.nodes[0].state), "streaming", "heard of a while ago");
	is_text(crelay_state_text(tree.nodes[1].state), "streaming", "just in time");
	is_text(crelay_state_text(tree.nodes[2].state), "stale", "too long ago");
	is_text(crelay_state_text(tree.nodes[3].state), "stale", "never heard of");
	is_text(crelay_state_text(tree.nodes[4].state), "down", "what is down stays so");
	is_text(crelay_state_text(tree.nodes[5].state), "streaming", "a clock that went back");
	free_tree(&tree);

	/* three times the report intervals up from the node and down to this one */
	tree = tree_of(4);
	add(&tree, "far", 1, "", 0)->observed_at = NOW - 120 * SECOND;
	tree.nodes[0].path_interval_ms = 30000;
	add(&tree, "gone", 2, "", 0)->observed_at = NOW - 120 * SECOND - 1;
	tree.nodes[1].path_interval_ms = 30000;
	add(&tree, "near", 3, "", 0)->observed_at = NOW - 31 * SECOND;
	add(&tree, "liar", 4, "", 0)->observed_at = NOW - INT64_C(3) * CRELAY_MAX_PATH_MS * 1000 - 1;
	tree.nodes[3].path_interval_ms = UINT32_MAX;
	crelay_topology_age(tree.nodes, tree.n, NOW, 30 * SECOND, 10000);
	is_text(crelay_state_text(tree.nodes[0].state), "streaming", "news that had a long way");
	is_text(crelay_state_text(tree.nodes[1].state), "stale", "but not for ever");
	is_text(crelay_state_text(tree.nodes[2].state), "stale", "or from next door");
	is_text(crelay_state_text(tree.nodes[3].state), "stale", "no way is longer than the longest");
	free_tree(&tree);
}

static void
test_texts(void)
{
	bool		named = true;
	int			warnings = 0;

	for (int i = CRELAY_STATE_RUNNING; i <= CRELAY_STATE_LAST; i++)
	{
		if (crelay_state_text(i) == NULL)
			named = false;
	}
	ok(named, "every state has a name");
	ok(crelay_state_text(CRELAY_STATE_UNKNOWN) == NULL &&
	   crelay_role_text(CRELAY_ROLE_UNKNOWN) == NULL &&
	   crelay_class_text(CRELAY_CLASS_UNKNOWN) == NULL, "unknown is NULL");
	ok(crelay_state_text((CrelayState) 99) == NULL &&
	   crelay_role_text((CrelayRole) 99) == NULL &&
	   crelay_class_text((CrelayClass) 99) == NULL, "and so is what a newer node says");
	for (int bit = 0; bit < 32; bit++)
	{
		if (crelay_warning_text(UINT32_C(1) << bit) != NULL)
			warnings++;
	}
	is_number(warnings, 15, "fifteen warnings have a code");
	is_text(crelay_role_text(CRELAY_ROLE_PRIMARY), "primary", "the primary's role");
	is_text(crelay_class_text(CRELAY_CLASS_READ_REPLICA), "read_replica", "a class");
	is_text(crelay_warning_text(CRELAY_WARN_REGISTRY_FULL), "registry_full", "a warning");
}

int
main(void)
{
	test_order();
	test_orphans();
	test_unmanaged();
	test_elsewhere();
	test_duplicates();
	test_former();
	test_awaited();
	test_cycles();
	test_random(true, 4000, "all below one root");
	test_random(false, 8000, "anything anywhere");
	test_large("chain");
	test_large("star");
	test_large("cycle");
	test_age();
	test_texts();
	return done_testing();
}
