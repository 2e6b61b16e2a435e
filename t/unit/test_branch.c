/*-------------------------------------------------------------------------
 *
 * test_branch.c
 *	  Tests of which rows of a report are believed, as a plain program.
 *
 * Owns: what branch.h promises, seen from outside, and against a second way to
 * find out, on random rows.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/branch.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

#define SENDER		0xf
#define MAX_ROWS	20000

static CrelayNode nodes[MAX_ROWS];
static CrelayBelief beliefs[MAX_ROWS];
static CrelayBranchKey keys[MAX_ROWS];
static CrelayBranchKey below[MAX_ROWS];
static CrelayBranchWork work[MAX_ROWS];
static CrelayBranch branch;
static const CrelayNode sender = {.name = "S",.incarnation = SENDER};

static void
start(void)
{
	memset(nodes, 0, sizeof(CrelayNode) * branch.n);
	branch.n = 0;
	branch.nodes = nodes;
	branch.beliefs = beliefs;
	branch.keys = keys;
	branch.below = below;
	branch.work = work;
}

/* A row with one letter for a name; incarnation 0 is an unmanaged node. */
static CrelayNode *
add(char name, uint32_t incarnation, uint32_t upstream)
{
	CrelayNode *node = &nodes[branch.n++];

	node->name[0] = name;
	node->incarnation = incarnation;
	node->upstream_incarnation = upstream;
	node->managed = incarnation != 0;
	node->role = CRELAY_ROLE_STANDBY;
	node->state = CRELAY_STATE_STREAMING;
	return node;
}

static const char *
names_of(CrelayBelief belief, int expected)
{
	static char names[2][MAX_ROWS + 1];
	char	   *to = names[belief == CRELAY_BELIEVED];
	int			n = 0;

	for (int i = 0; i < branch.n; i++)
	{
		if (beliefs[i] == belief)
			to[n++] = nodes[i].name[0];
	}
	to[n] = '\0';
	return n == expected ? to : "not the number that was returned";
}

/* The names of those believed, after not believing some incarnations. */
static const char *
believed(uint32_t not_a, uint32_t not_b)
{
	int			said;

	crelay_branch_begin(&branch);
	crelay_branch_disbelieve(&branch, not_a);
	crelay_branch_disbelieve(&branch, not_b);
	said = crelay_branch_finish(&branch, &sender);
	return names_of(CRELAY_BELIEVED, said);
}

/* The same, and of those contested, when some are live elsewhere. */
static const char *
believed_beside(uint32_t live_a, uint32_t live_b)
{
	static char both[2 * MAX_ROWS + 2];
	int			said;

	crelay_branch_begin(&branch);
	crelay_branch_contest(&branch, live_a);
	crelay_branch_contest(&branch, live_b);
	said = crelay_branch_finish(&branch, &sender);
	snprintf(both, sizeof(both), "%s/%s", names_of(CRELAY_BELIEVED, said),
			 names_of(CRELAY_BELIEF_CONTESTED, branch.contested));
	return both;
}

/*
 * A node goes by its incarnation; below it they may not have heard yet what it is
 * called now.
 */
static void
test_renamed(void)
{
	start();
	snprintf(add('i', 1, SENDER)->upstream_name, CRELAY_NAME_LEN, "before");
	snprintf(add('l', 2, 1)->upstream_name, CRELAY_NAME_LEN, "long before");
	is_text(believed(0, 0), "il", "names of those above do not matter");
	is_text(nodes[0].upstream_name, "S", "the sender's is the one that it has now");
	is_text(nodes[1].upstream_name, "i", "and so is that of a row");
}

static void
test_stories(void)
{
	start();
	is_text(believed(0, 0), "", "no row");

	start();
	add('l', 3, 2);
	add('i', 2, SENDER);
	add('u', 0, 3);
	add('v', 0, SENDER);
	is_text(believed(0, 0), "liuv", "what hangs below the sender, in any order");
	is_text(believed(2, 0), "v", "nobody hangs below one that is not believed");
	is_text(believed(3, 0), "iv", "one that is not believed, and what is below it");
	is_text(believed(7, 9), "liuv", "not to believe in nobody");

	start();
	add('a', 4, 0);
	add('b', 5, 99);
	add('c', 6, 5);
	is_text(believed(0, 0), "", "what hangs nowhere, or below somebody else");

	start();
	add('a', 4, 5);
	add('b', 5, 6);
	add('c', 6, 4);
	add('d', 7, 4);
	add('e', 8, 8);
	add('f', 9, SENDER);
	is_text(believed(0, 0), "f", "cycles, and what hangs below them");

	start();
	add('s', SENDER, 2);
	add('t', SENDER, SENDER);
	add('l', 3, SENDER);
	is_text(believed(0, 0), "l", "the sender has no row");

	start();
	add('p', 4, SENDER);
	add('l', 5, 4);
	nodes[0].role = CRELAY_ROLE_PRIMARY;
	is_text(believed(0, 0), "", "nothing below it is a primary");

	start();
	add('o', 4, 77);
	add('n', 4, SENDER);
	add('l', 5, 4);
	is_text(believed(0, 0), "nl", "of two rows of one node, the one that hangs somewhere");

	start();
	add('l', 5, 4);
	add('o', 4, 77);
	add('n', 4, SENDER);
	is_text(believed(0, 0), "ln", "in whatever order they come");
}

static void
test_contested(void)
{
	CrelayNode *l;

	start();
	add('i', 2, SENDER);
	l = add('l', 3, 2);
	add('x', 4, 3);
	add('u', 0, 3);
	is_text(believed_beside(0, 0), "ilxu/", "nobody is live elsewhere");
	is_text(believed_beside(3, 0), "i/lxu", "one that is, and what is below it, is evidence");
	is_text(believed_beside(2, 0), "/ilxu", "so is all that is below");
	is_text(believed_beside(9, 4), "ilu/x", "or the last of them");
	l->state = CRELAY_STATE_DOWN;
	is_text(believed_beside(3, 0), "il/xu",
			"that it has left takes over nothing, but nobody is drawn below it then");
	l->state = CRELAY_STATE_STALE;
	is_text(believed_beside(3, 0), "il/xu", "nor that nobody has news of it");
	l->state = CRELAY_STATE_DIVERGED;
	is_text(believed_beside(3, 0), "i/lxu", "every other state would");
	l->state = CRELAY_STATE_RUNNING;
	is_text(believed_beside(3, 0), "i/lxu", "even one that a standby cannot have");

	start();
	add('i', 2, SENDER);
	add('l', 3, 2)->state = CRELAY_STATE_DOWN;
	add('m', 4, SENDER);
	add('L', 3, 4);
	is_text(believed_beside(0, 0), "ilmL/", "it has left i, and is below m");
	is_text(believed_beside(3, 0), "ilm/L", "it has left i, and is not below m");

	crelay_branch_begin(&branch);
	crelay_branch_contest(&branch, 3);
	crelay_branch_disbelieve(&branch, 3);
	crelay_branch_contest(&branch, 3);
	(void) crelay_branch_finish(&branch, &sender);
	is_text(names_of(CRELAY_BELIEF_CONTESTED, branch.contested), "",
			"what is not believed is no evidence either");
}

static void
test_depth(void)
{
	start();
	for (int i = 0; i < MAX_ROWS; i++)
		add('c', 100 + (uint32_t) i, i == 0 ? SENDER : 99 + (uint32_t) i);
	(void) believed(0, 0);
	is_number(strlen(believed(0, 0)), CRELAY_MAX_DEPTH, "of a chain without end only so much");
	ok(branch.too_deep, "which is said");
	branch.n = CRELAY_MAX_DEPTH;
	is_number(strlen(believed(0, 0)), CRELAY_MAX_DEPTH, "a chain that just fits");
	ok(!branch.too_deep, "is all there is");
	branch.n = CRELAY_MAX_DEPTH + 1;
	nodes[CRELAY_MAX_DEPTH].incarnation = SENDER;
	(void) believed(0, 0);
	ok(!branch.too_deep, "nothing is left out that does not count anyway");
}

/*
 * What once took the square of the number of rows: many of one node that are
 * not believed, and as many below it.
 */
static void
test_many(void)
{
	start();
	add('i', 2, SENDER);
	while (branch.n < MAX_ROWS / 2)
		add('l', 3, 2);
	while (branch.n < MAX_ROWS)
		add('x', 4, 3);
	crelay_branch_begin(&branch);
	for (int again = 0; again < MAX_ROWS; again++)
	{
		crelay_branch_contest(&branch, 3);
		crelay_branch_disbelieve(&branch, 4);
	}
	is_number((uint64_t) crelay_branch_finish(&branch, &sender), 1, "as many rows as one likes");
	is_number((uint64_t) branch.contested, MAX_ROWS / 2 - 1, "are judged at once");
}

enum
{
	FREE, LIVE, NOTHING
};

/*
 * How deep each row hangs, 0 if nowhere, by looking again and again.
 */
static void
look_for(bool evidence, const int *doubts, int *depths)
{
	bool		again = true;

	memset(depths, 0, sizeof(int) * branch.n);
	while (again)
	{
		again = false;
		for (int i = 0; i < branch.n; i++)
		{
			bool		gone = nodes[i].state == CRELAY_STATE_DOWN;
			int			depth = nodes[i].upstream_incarnation == SENDER ? 1 : 0;

			for (int j = 0; j < branch.n; j++)
			{
				if (depths[j] > 0 && nodes[j].incarnation != 0 &&
					nodes[j].incarnation == nodes[i].upstream_incarnation &&
					(evidence || doubts[nodes[j].incarnation] == FREE) &&
					(depth == 0 || depths[j] + 1 < depth))
					depth = depths[j] + 1;
			}
			if (depth == 0 || nodes[i].role == CRELAY_ROLE_PRIMARY ||
				doubts[nodes[i].incarnation] == NOTHING ||
				(doubts[nodes[i].incarnation] == LIVE && !gone && !evidence) ||
				(depths[i] > 0 && depths[i] <= depth))
				continue;
			depths[i] = depth;
			again = true;
		}
	}
}

/* The same in another way. */
static void
compare_random(void)
{
	static char expected[64];
	int			doubts[SENDER + 1] = {0};
	int			drawn[32];
	int			known[32];
	int			n = 0;

	start();
	for (int rows = (int) random_below(24); rows > 0; rows--)
	{
		uint32_t	incarnation = random_below(8);
		uint32_t	upstream = random_below(4) == 0 ? SENDER : random_below(10);
		CrelayNode *node = add((char) ('a' + rows), incarnation, upstream);

		if (random_below(3) == 0)
			node->state = CRELAY_STATE_DOWN;
		if (random_below(20) == 0)
			node->role = CRELAY_ROLE_PRIMARY;
		if (random_below(20) == 0)
			node->incarnation = SENDER;
	}
	for (int i = 1; i < 8; i++)
		doubts[i] = (int) random_below(5) - 2;
	crelay_branch_begin(&branch);
	for (int i = 1; i < 8; i++)
	{
		doubts[i] = doubts[i] < 0 ? FREE : doubts[i];
		if (doubts[i] == LIVE)
			crelay_branch_contest(&branch, (uint32_t) i);
		else if (doubts[i] == NOTHING)
			crelay_branch_disbelieve(&branch, (uint32_t) i);
	}
	doubts[SENDER] = NOTHING;
	(void) crelay_branch_finish(&branch, &sender);
	look_for(false, doubts, drawn);
	look_for(true, doubts, known);
	for (int i = 0; i < branch.n; i++)
	{
		CrelayBelief belief = drawn[i] > 0 ? CRELAY_BELIEVED :
		known[i] > 0 ? CRELAY_BELIEF_CONTESTED : CRELAY_DISBELIEVED;

		if (beliefs[i] != belief)
			expected[n++] = nodes[i].name[0];
	}
	expected[n] = '\0';
	if (n > 0)
		is_text(expected, "", "a random report");
}

int
main(void)
{
	int			before;

	test_stories();
	test_renamed();
	test_contested();
	test_depth();
	test_many();
	before = failures;
	for (int i = 0; i < 20000; i++)
		compare_random();
	ok(failures == before, "20000 random reports");
	return done_testing();
}
