/*-------------------------------------------------------------------------
 *
 * departed.c
 *	  Whether what a node left behind may go, as a pure decision.
 *
 * Owns, leaves out and locks: see departed.h.
 *
 *-------------------------------------------------------------------------
 */
#include "departed.h"

#include <stdlib.h>
#include <string.h>

static int
compare_known(const void *a, const void *b)
{
	const CrelayNode *first = ((const CrelayKnown *) a)->node;
	const CrelayNode *second = ((const CrelayKnown *) b)->node;
	int			c = strcmp(first->name, second->name);

	if (c != 0)
		return c;
	return first->incarnation < second->incarnation ? -1 :
		first->incarnation > second->incarnation;
}

void
crelay_departed_sort(CrelayKnown *known, int n)
{
	qsort(known, (size_t) n, sizeof(CrelayKnown), compare_known);
}

/*
 * The first row of that name.
 */
static int
find_name(const CrelayKnown *known, int n, const char *name)
{
	int			low = 0;
	int			high = n;

	while (low < high)
	{
		int			mid = low + (high - low) / 2;

		if (strcmp(known[mid].node->name, name) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/*
 * Where a node lives now that was below a departed one, as others than the
 * given origin say: the live row of it that is protected, else one that is
 * not, else NULL.  Without an incarnation it is known by its name alone, and
 * may have got one since.  A row below the departed node is an old one.
 */
const CrelayNode *
crelay_departed_find(const CrelayKnown *known, int n, const CrelayNode *node,
					 const CrelayNode *departed, int origin)
{
	const CrelayNode *found = NULL;

	for (int i = find_name(known, n, node->name);
		 i < n && strcmp(known[i].node->name, node->name) == 0; i++)
	{
		const CrelayNode *other = known[i].node;

		if (known[i].origin == origin || !crelay_state_is_live(other->state) ||
			(node->incarnation != 0 && other->incarnation != node->incarnation) ||
			(other->upstream_incarnation == departed->incarnation &&
			 strcmp(other->upstream_name, departed->name) == 0))
			continue;
		if (other->protected == CRELAY_TRUE)
			return other;
		found = other;
	}
	return found;
}

/*
 * Whether a node that is not below this one (here) any more is live, and it and
 * everything below it is protected, so that nobody needs what is kept for it
 * here.  The rows are those of the assembled tree.
 */
bool
crelay_departed_branch_is_safe(const CrelayNode *nodes, const CrelayTreeRow *rows,
							   int nrows, const char *name, uint32_t incarnation,
							   uint32_t here)
{
	int			top;

	for (top = 0; top < nrows; top++)
	{
		const CrelayNode *node = &nodes[rows[top].node];

		if (node->incarnation == incarnation && strcmp(node->name, name) == 0)
			break;
	}
	if (top == nrows || rows[top].cyclic ||
		!crelay_state_is_live(nodes[rows[top].node].state) ||
		nodes[rows[top].node].upstream_incarnation == here)
		return false;
	for (int row = top; row < nrows && (row == top || rows[row].depth > rows[top].depth); row++)
	{
		if (nodes[rows[row].node].protected != CRELAY_TRUE)
			return false;
	}
	return true;
}
