/*-------------------------------------------------------------------------
 *
 * test_departed.c
 *	  Tests of what a node left behind, as a plain program that prints TAP.
 *
 * Owns: what departed.h promises, seen from outside: where the nodes are now
 * that were below one that is gone, and whether a branch is safe where it is.
 *
 *	  cc -std=gnu99 -Isrc -It/unit -g -fsanitize=address,undefined \
 *		  t/unit/test_departed.c src/departed.c src/proof.c src/topology.c \
 *		  -o test_departed && ./test_departed
 *
 *-------------------------------------------------------------------------
 */
#include "departed.h"
#include "tap.h"

#define MAX_NODES	8
#define HERE		1			/* incarnation of the node that looks */

enum
{
	FROM_I = 0, FROM_OTHERS, FROM_UPSTREAM = -2
};

static CrelayNode nodes[MAX_NODES];
static CrelayKnown known[MAX_NODES];
static int	n;

static CrelayNode *
add(const char *name, uint32_t incarnation, const char *upstream,
	uint32_t upstream_incarnation, CrelayState state, CrelayTruth protected, int origin)
{
	CrelayNode *node = &nodes[n];

	memset(node, 0, sizeof(*node));
	snprintf(node->name, sizeof(node->name), "%s", name);
	node->incarnation = incarnation;
	snprintf(node->upstream_name, sizeof(node->upstream_name), "%s", upstream);
	node->upstream_incarnation = upstream_incarnation;
	node->role = upstream[0] ? CRELAY_ROLE_STANDBY : CRELAY_ROLE_PRIMARY;
	node->state = state;
	node->protected = protected;
	known[n].node = node;
	known[n++].origin = origin;
	return node;
}

/*
 * p has lost i, and what i said of a node with that name and incarnation is
 * old.  What is known of it otherwise?
 */
static CrelayProof shown;

static const char *
where_is(const char *name, uint32_t incarnation)
{
	static char place[CRELAY_NAME_LEN + 64];
	bool		safe;
	CrelayNode	old = {0};
	CrelayNode	gone = {0};
	const CrelayNode *found;

	snprintf(old.name, sizeof(old.name), "%s", name);
	old.incarnation = incarnation;
	old.proof = shown;
	snprintf(gone.name, sizeof(gone.name), "i");
	gone.incarnation = 2;
	crelay_departed_sort(known, n);
	found = crelay_departed_find(known, n, &old, &gone, FROM_I, &safe);
	if (found == NULL)
		return "nowhere";
	snprintf(place, sizeof(place), "below %s%s%s", found->upstream_name,
			 found->protected == CRELAY_TRUE ? "" : ", unprotected",
			 found->protected == CRELAY_TRUE && !safe ? ", unproven" : "");
	return place;
}

static void
test_find(void)
{
	n = 0;
	is_text(where_is("l", 3), "nowhere", "nobody knows anything");

	n = 0;
	add("p", HERE, "", 0, CRELAY_STATE_RUNNING, CRELAY_TRUE, FROM_OTHERS);
	add("i", 2, "p", HERE, CRELAY_STATE_DOWN, CRELAY_TRUE, FROM_I);
	add("l", 3, "i", 2, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_I);
	is_text(where_is("l", 3), "nowhere", "what the one who is gone has said does not count");

	add("l", 3, "i", 2, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_UPSTREAM);
	is_text(where_is("l", 3), "nowhere", "nor that it is below him, as others have heard");

	add("l", 3, "j", 4, CRELAY_STATE_DOWN, CRELAY_TRUE, FROM_OTHERS);
	is_text(where_is("l", 3), "nowhere", "who is down is nowhere");

	add("l", 3, "j", 4, CRELAY_STATE_CATCHUP, CRELAY_FALSE, FROM_OTHERS);
	is_text(where_is("l", 3), "below j, unprotected", "it lives, but is not protected");

	add("l", 3, "p", HERE, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_OTHERS);
	is_text(where_is("l", 3), "below p", "it lives and is protected");
	is_text(where_is("l", 9), "nowhere", "another life of it is another node");
	is_text(where_is("l", 0), "below p", "a node without incarnation goes by its name");
	is_text(where_is("k", 0), "nowhere", "and a name is all of it");

	n = 0;
	add("u", 0, "p", HERE, CRELAY_STATE_STREAMING, CRELAY_UNKNOWN, FROM_OTHERS);
	is_text(where_is("u", 0), "below p, unprotected", "unknown is not protected");
}

static bool incomplete;

static bool
is_safe(const char *name, uint32_t incarnation)
{
	CrelayTreeLink links[MAX_NODES];
	CrelayTreeRow rows[MAX_NODES];
	int			nrows = crelay_topology_assemble(nodes, n, links, rows);

	CrelayDeparted departed = {name, incarnation, shown, known, n, FROM_I, incomplete};

	crelay_departed_sort(known, n);
	return crelay_departed_branch_is_safe(nodes, rows, nrows, &departed, HERE);
}

static void
test_branch(void)
{
	CrelayNode *leaf;
	CrelayNode *top;

	n = 0;
	add("p", 7, "", 0, CRELAY_STATE_RUNNING, CRELAY_TRUE, FROM_UPSTREAM);
	add("i", HERE, "p", 7, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_OTHERS);
	add("k", 9, "p", 7, CRELAY_STATE_STREAMING, CRELAY_FALSE, FROM_UPSTREAM);
	top = add("j", 3, "p", 7, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_UPSTREAM);
	add("l", 4, "j", 3, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_UPSTREAM);
	leaf = add("m", 5, "l", 4, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_UPSTREAM);
	ok(is_safe("j", 3), "all of the branch is protected, whatever there is beside it");
	incomplete = true;
	ok(!is_safe("j", 3), "not all of what was below it is known");
	incomplete = false;
	ok(!is_safe("j", 4), "another life of it is not known");
	ok(!is_safe("x", 3), "nor is another node");
	ok(!is_safe("p", 7), "below the root there is one who is not");
	leaf->protected = CRELAY_FALSE;
	ok(!is_safe("j", 3), "a leaf far below is not");
	leaf->protected = CRELAY_UNKNOWN;
	ok(!is_safe("j", 3), "of a leaf it is not known");
	leaf->protected = CRELAY_TRUE;
	leaf->state = CRELAY_STATE_DOWN;
	ok(is_safe("j", 3), "a leaf is away, and was");
	top->state = CRELAY_STATE_STALE;
	ok(!is_safe("j", 3), "nobody has news of it");
	top->state = CRELAY_STATE_CATCHUP;
	ok(is_safe("j", 3), "it catches up");
	top->upstream_incarnation = HERE;
	snprintf(top->upstream_name, sizeof(top->upstream_name), "i");
	ok(!is_safe("j", 3), "it has come back");
	top->upstream_incarnation = 4;
	snprintf(top->upstream_name, sizeof(top->upstream_name), "l");
	ok(!is_safe("j", 3), "it is on a cycle");
}

/* ---- what has to be proven ---- */

static const uint8_t seed[CRELAY_PROOF_SIZE] = "whatever it is";

static CrelayProof
nth(uint32_t incarnation, uint32_t count)
{
	CrelayProof proof;

	crelay_proof_make(seed, incarnation, count, &proof);
	return proof;
}

static void
test_unproven(void)
{
	CrelayNode *claim;

	n = 0;
	shown = nth(3, 7);
	claim = add("l", 3, "h", 66, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_OTHERS);
	is_text(where_is("l", 3), "below h, unproven", "somebody says where it is, and shows nothing");
	claim->proof = nth(3, 7);
	is_text(where_is("l", 3), "below h, unproven", "or what it has shown before");
	claim->proof = nth(3, 6);
	is_text(where_is("l", 3), "below h, unproven", "or what it had shown before that");
	claim->proof.count = 8;
	is_text(where_is("l", 3), "below h, unproven", "or something made up");
	claim->proof = nth(3, 8);
	is_text(where_is("l", 3), "below h", "only the node itself shows what comes next");

	n = 0;
	claim = add("l", 3, "a", 50, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_OTHERS);
	add("l", 3, "b", 51, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_OTHERS)->proof = nth(3, 8);
	add("l", 3, "c", 52, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_UPSTREAM);
	is_text(where_is("l", 3), "below b", "one that is proven is found among those that are not");

	n = 0;
	shown.count = 0;
	add("l", 3, "h", 66, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_OTHERS);
	is_text(where_is("l", 3), "below h", "of who has never shown anything all is believed");
}

static void
test_branch_unproven(void)
{
	CrelayNode *former;
	CrelayNode *top;
	CrelayNode *leaf;

	n = 0;
	add("p", HERE, "", 0, CRELAY_STATE_RUNNING, CRELAY_TRUE, FROM_UPSTREAM);
	former = add("l", 4, "j", 3, CRELAY_STATE_STALE, CRELAY_TRUE, FROM_I);
	add("k", 9, "p", HERE, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_OTHERS);
	top = add("j", 3, "k", 9, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_OTHERS);
	leaf = add("l", 4, "j", 3, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_OTHERS);
	shown = nth(3, 1);
	ok(!is_safe("j", 3), "who is said to be elsewhere has to prove it");
	top->proof = nth(3, 2);
	ok(is_safe("j", 3), "and its leaf, if it has never shown anything, does not");
	former->proof = nth(4, 5);
	ok(!is_safe("j", 3), "a leaf that has, has to, too");
	leaf->proof = nth(4, 5);
	ok(!is_safe("j", 3), "once more the same is nothing");
	leaf->proof = nth(4, 6);
	ok(is_safe("j", 3), "both have proven it");
	shown.count = 0;
}

int
main(void)
{
	test_find();
	test_branch();
	test_unproven();
	test_branch_unproven();
	return done_testing();
}
