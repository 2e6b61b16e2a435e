/*-------------------------------------------------------------------------
 *
 * branch.c
 *	  What a node may say of the nodes below it, as a pure decision.
 *
 * Owns, leaves out and locks: see branch.h.
 *
 * Nodes go by their incarnations here: names can change between two reports.
 *
 *-------------------------------------------------------------------------
 */
#include "branch.h"

#include <stdlib.h>

static int
compare_keys(const void *a, const void *b)
{
	const CrelayBranchKey *left = a;
	const CrelayBranchKey *right = b;

	if (left->incarnation != right->incarnation)
		return left->incarnation < right->incarnation ? -1 : 1;
	return left->at < right->at ? -1 : left->at > right->at;
}

/*
 * Makes the rows ready to be judged.  Nothing below another node is a primary.
 */
void
crelay_branch_begin(CrelayBranch *branch)
{
	for (int i = 0; i < branch->n; i++)
	{
		branch->keys[i].incarnation = branch->nodes[i].incarnation;
		branch->keys[i].at = i;
		branch->beliefs[i] = branch->nodes[i].role == CRELAY_ROLE_PRIMARY ?
			CRELAY_DISBELIEVED : CRELAY_BELIEF_OPEN;
	}
	if (branch->n > 1)
		qsort(branch->keys, branch->n, sizeof(CrelayBranchKey), compare_keys);
}

/*
 * The place in the keys of the first row with that incarnation, or where it
 * would be.
 */
static int
find_key(const CrelayBranch *branch, uint32_t incarnation)
{
	int			low = 0;
	int			high = branch->n;

	while (low < high)
	{
		int			mid = low + (high - low) / 2;

		if (branch->keys[mid].incarnation < incarnation)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/*
 * Nothing that is said of that node, which the receiver knows better, counts.
 */
void
crelay_branch_disbelieve(CrelayBranch *branch, uint32_t incarnation)
{
	if (incarnation == 0)
		return;
	for (int k = find_key(branch, incarnation);
		 k < branch->n && branch->keys[k].incarnation == incarnation; k++)
		branch->beliefs[branch->keys[k].at] = CRELAY_DISBELIEVED;
}

/*
 * The row of a node's upstream, -1 if there is none that may be believed.
 */
static int
find_upstream(const CrelayBranch *branch, int row)
{
	uint32_t	incarnation = branch->nodes[row].upstream_incarnation;

	if (incarnation == 0)
		return -1;
	for (int k = find_key(branch, incarnation);
		 k < branch->n && branch->keys[k].incarnation == incarnation; k++)
	{
		if (branch->beliefs[branch->keys[k].at] != CRELAY_DISBELIEVED)
			return branch->keys[k].at;
	}
	return -1;
}

/*
 * Whether the way up from a row leads to the sender: not into nowhere, not
 * over a row that is not believed, and not round in a circle.
 */
static CrelayBelief
walk_up(CrelayBranch *branch, int row, uint32_t sender)
{
	for (;;)
	{
		branch->beliefs[row] = CRELAY_BELIEF_WALKED;
		if (branch->nodes[row].upstream_incarnation == sender)
			return CRELAY_BELIEVED;
		row = find_upstream(branch, row);
		if (row < 0 || branch->beliefs[row] == CRELAY_BELIEF_WALKED)
			return CRELAY_DISBELIEVED;
		if (branch->beliefs[row] == CRELAY_BELIEVED)
			return CRELAY_BELIEVED;
	}
}

/*
 * Judges what is left: what hangs below the sender, which has that
 * incarnation, is believed.  Returns how many rows are.
 */
int
crelay_branch_finish(CrelayBranch *branch, uint32_t incarnation)
{
	int			believed = 0;

	/* of itself it speaks in the report, not in a row */
	crelay_branch_disbelieve(branch, incarnation);
	for (int i = 0; i < branch->n; i++)
	{
		CrelayBelief belief;

		if (branch->beliefs[i] != CRELAY_BELIEF_OPEN)
			continue;
		belief = walk_up(branch, i, incarnation);
		for (int row = i; row >= 0 && branch->beliefs[row] == CRELAY_BELIEF_WALKED;)
		{
			int			up = find_upstream(branch, row);

			branch->beliefs[row] = belief;
			row = up;
		}
	}
	for (int i = 0; i < branch->n; i++)
		believed += branch->beliefs[i] == CRELAY_BELIEVED;
	return believed;
}
