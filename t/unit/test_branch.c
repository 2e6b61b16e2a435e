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
#include "branch.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

#define SENDER		0xf
#define MAX_ROWS	64

static CrelayNode nodes[MAX_ROWS];
static CrelayBelief beliefs[MAX_ROWS];
static CrelayBranchKey keys[MAX_ROWS];
static CrelayBranch branch;

static void
start(void)
{
	memset(nodes, 0, sizeof(nodes));
	branch.n = 0;
	branch.nodes = nodes;
	branch.beliefs = beliefs;
	branch.keys = keys;
}

/* A row with one letter for a name; incarnation 0 is an unmanaged node. */
static void
add(char name, uint32_t incarnation, uint32_t upstream)
{
	CrelayNode *node = &nodes[branch.n++];

	node->name[0] = name;
	node->incarnation = incarnation;
	node->upstream_incarnation = upstream;
	node->managed = incarnation != 0;
	node->role = CRELAY_ROLE_STANDBY;
}

/* The names of those believed, after not believing some incarnations. */
static const char *
believed(uint32_t not_a, uint32_t not_b)
{
	static char names[MAX_ROWS + 1];
	int			n = 0;
	int			said;

	crelay_branch_begin(&branch);
	crelay_branch_disbelieve(&branch, not_a);
	crelay_branch_disbelieve(&branch, not_b);
	said = crelay_branch_finish(&branch, SENDER);
	for (int i = 0; i < branch.n; i++)
	{
		if (beliefs[i] == CRELAY_BELIEVED)
			names[n++] = nodes[i].name[0];
	}
	names[n] = '\0';
	return said == n ? names : "not the number that was returned";
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
}

/* The same by looking again and again. */
static void
compare_random(void)
{
	bool		good[MAX_ROWS];
	bool		again = true;
	uint32_t	not_this = random_below(12);
	const char *got;
	char		expected[MAX_ROWS + 1];
	int			n = 0;

	start();
	for (int rows = (int) random_below(16); rows > 0; rows--)
	{
		uint32_t	incarnation = (uint32_t) rows;
		uint32_t	upstream = random_below(4) == 0 ? SENDER : random_below(18);

		add((char) ('a' + rows), random_below(5) == 0 ? 0 : incarnation, upstream);
	}
	got = believed(not_this, 0);

	memset(good, 0, sizeof(good));
	while (again)
	{
		again = false;
		for (int i = 0; i < branch.n; i++)
		{
			bool		hangs = nodes[i].upstream_incarnation == SENDER;

			for (int j = 0; j < branch.n; j++)
			{
				if (good[j] && nodes[j].incarnation != 0 &&
					nodes[j].incarnation == nodes[i].upstream_incarnation)
					hangs = true;
			}
			if (good[i] || !hangs || nodes[i].incarnation == SENDER ||
				(not_this != 0 && nodes[i].incarnation == not_this))
				continue;
			good[i] = again = true;
		}
	}
	for (int i = 0; i < branch.n; i++)
	{
		if (good[i])
			expected[n++] = nodes[i].name[0];
	}
	expected[n] = '\0';
	if (strcmp(got, expected) != 0)
		is_text(got, expected, "a random report");
}

int
main(void)
{
	int			before;

	test_stories();
	before = failures;
	for (int i = 0; i < 20000; i++)
		compare_random();
	ok(failures == before, "20000 random reports");
	return done_testing();
}
