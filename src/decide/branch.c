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
#include "decide/branch.h"

#include <stdlib.h>
#include <string.h>

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
 * Makes the rows ready to be judged.  All that takes long is done here, because
 * what comes next is done under a lock.
 */
void
crelay_branch_begin(CrelayBranch *branch)
{
	for (int i = 0; i < branch->n; i++)
	{
		branch->keys[i].incarnation = branch->nodes[i].incarnation;
		branch->keys[i].at = i;
		branch->below[i].incarnation = branch->nodes[i].upstream_incarnation;
		branch->below[i].at = i;
		branch->beliefs[i] = CRELAY_DISBELIEVED;
		branch->work[i].doubt = CRELAY_DOUBT_NONE;
	}
	branch->contested = 0;
	branch->too_deep = false;
	if (branch->n == 0)
		return;
	qsort(branch->keys, (size_t) branch->n, sizeof(CrelayBranchKey), compare_keys);
	qsort(branch->below, (size_t) branch->n, sizeof(CrelayBranchKey), compare_keys);
	for (int k = 0, first = 0; k < branch->n; k++)
	{
		if (branch->keys[k].incarnation != branch->keys[first].incarnation)
			first = k;
		branch->work[branch->keys[k].at].first_key = first;
	}
}

/*
 * The place of the first key with that incarnation, or where it would be.
 */
static int
find_key(const CrelayBranchKey *keys, int n, uint32_t incarnation)
{
	int			low = 0;
	int			high = n;

	while (low < high)
	{
		int			mid = low + (high - low) / 2;

		if (keys[mid].incarnation < incarnation)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void
doubt(CrelayBranch *branch, uint32_t incarnation, CrelayBranchDoubt how)
{
	int			first = find_key(branch->keys, branch->n, incarnation);

	if (incarnation != 0 && first < branch->n &&
		branch->keys[first].incarnation == incarnation &&
		branch->work[first].doubt < how)
		branch->work[first].doubt = how;
}

/*
 * Nothing that is said of that node, which the receiver knows better, counts.
 */
void
crelay_branch_disbelieve(CrelayBranch *branch, uint32_t incarnation)
{
	doubt(branch, incarnation, CRELAY_DOUBT_ALL);
}

/*
 * That node is live in another branch, and is not taken over.  What is said of
 * it all the same is kept apart: who is right is not known, and each of the two
 * may be the one that tells what the node needs, or what it has proven.
 */
void
crelay_branch_contest(CrelayBranch *branch, uint32_t incarnation)
{
	doubt(branch, incarnation, CRELAY_DOUBT_ELSEWHERE);
}

/*
 * Finds the rows that hang directly below an incarnation, and, if they may be
 * followed, lines them up behind the others; returns how long the queue is.
 * With contested rows all are found, and those that were not before are that;
 * without them what hangs below one that is live elsewhere is not, because it
 * would be drawn there; but a row that says that its node is away takes over
 * nothing.  Nothing below another node is a primary.  What is above them has
 * that name, whatever it was called when they last said so.
 */
static int
walk_below(CrelayBranch *branch, uint32_t incarnation, const char *name,
		   bool with_contested, int queued)
{
	for (int k = find_key(branch->below, branch->n, incarnation);
		 k < branch->n && branch->below[k].incarnation == incarnation; k++)
	{
		int			row = branch->below[k].at;
		CrelayNode *node = &branch->nodes[row];
		CrelayBranchWork *own = &branch->work[branch->work[row].first_key];

		if (node->role == CRELAY_ROLE_PRIMARY || own->doubt == CRELAY_DOUBT_ALL ||
			(own->doubt == CRELAY_DOUBT_ELSEWHERE && !with_contested &&
			 !crelay_node_is_away(node)))
			continue;
		if (branch->beliefs[row] == CRELAY_DISBELIEVED)
		{
			branch->beliefs[row] = with_contested ? CRELAY_BELIEF_CONTESTED : CRELAY_BELIEVED;
			memcpy(node->upstream_name, name, sizeof(node->upstream_name));
		}
		if (node->incarnation == 0 || own->walked ||
			(own->doubt == CRELAY_DOUBT_ELSEWHERE && !with_contested))
			continue;
		own->walked = true;
		branch->work[queued++].queued = row;
	}
	return queued;
}

/*
 * Whether anything that counts hangs below an incarnation.
 */
static bool
has_below(const CrelayBranch *branch, uint32_t incarnation)
{
	for (int k = find_key(branch->below, branch->n, incarnation);
		 k < branch->n && branch->below[k].incarnation == incarnation; k++)
	{
		int			row = branch->below[k].at;

		if (branch->nodes[row].role != CRELAY_ROLE_PRIMARY &&
			branch->work[branch->work[row].first_key].doubt != CRELAY_DOUBT_ALL)
			return true;
	}
	return false;
}

/*
 * Goes down from the sender, level by level: what hangs nowhere, below somebody
 * who is not believed, or on a circle, is never reached.  What is deeper than
 * any path is left out; a tree so deep costs whoever draws it too much.
 */
static void
walk_down(CrelayBranch *branch, const CrelayNode *sender, bool with_contested)
{
	int			queued;
	int			from = 0;

	for (int i = 0; i < branch->n; i++)
		branch->work[i].walked = false;
	queued = walk_below(branch, sender->incarnation, sender->name, with_contested, 0);
	for (int depth = 1; from < queued && depth < CRELAY_MAX_DEPTH; depth++)
	{
		int			end = queued;

		for (; from < end; from++)
		{
			const CrelayNode *above = &branch->nodes[branch->work[from].queued];

			queued = walk_below(branch, above->incarnation, above->name, with_contested,
								queued);
		}
	}
	for (; from < queued && !branch->too_deep; from++)
		branch->too_deep = has_below(branch, branch->nodes[branch->work[from].queued].incarnation);
}

/*
 * Judges the rows: what hangs below the sender is believed.  Returns how many rows
 * are; how many are contested is in the branch then.
 */
int
crelay_branch_finish(CrelayBranch *branch, const CrelayNode *sender)
{
	int			believed = 0;

	/* of itself it speaks in the report, not in a row */
	crelay_branch_disbelieve(branch, sender->incarnation);
	walk_down(branch, sender, false);
	walk_down(branch, sender, true);
	for (int i = 0; i < branch->n; i++)
	{
		believed += branch->beliefs[i] == CRELAY_BELIEVED;
		branch->contested += branch->beliefs[i] == CRELAY_BELIEF_CONTESTED;
	}
	return believed;
}
