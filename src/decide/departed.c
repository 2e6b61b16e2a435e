/*-------------------------------------------------------------------------
 *
 * departed.c
 *	  Where a node lives that was seen below a departed one, as a pure decision.
 *
 * Owns, leaves out and locks: see departed.h.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/departed.h"

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
 * Returns true if a row is about a node that was below a departed one, comes
 * from another source than the given one, and shows the node live.  A row below
 * the departed node is an old one.
 */
static bool
lives_apart(const CrelayKnown *row, const CrelayNode *departed, int origin)
{
	const CrelayNode *other = row->node;

	return row->origin != origin && crelay_state_is_live(other->state) &&
		(other->upstream_incarnation != departed->incarnation ||
		 strcmp(other->upstream_name, departed->name) != 0);
}

/*
 * Returns true if a live row shows that a node needs nothing of what was kept
 * for it before.  Its counter was raised since; or it is another life of the
 * node, which was rebuilt; or it is a node without cascade_relay, whose feeder
 * decides.
 */
static bool
has_moved(const CrelayNode *before, const CrelayNode *now)
{
	if (now->protected != CRELAY_TRUE)
		return false;
	if (before->incarnation == 0 || now->incarnation != before->incarnation)
		return true;
	return before->moves != 0 && now->moves > before->moves;
}

/*
 * Finds where a node lives now that was below a departed one: a row by which it
 * has moved and is protected, then *safe is set; else any other row in which it
 * is live; NULL if there is none.  node: the row by which it was known before.
 */
const CrelayNode *
crelay_departed_find(const CrelayKnown *known, int n, const CrelayNode *node,
					 const CrelayNode *departed, int origin, bool *safe)
{
	const CrelayNode *found = NULL;

	*safe = false;
	for (int i = find_name(known, n, node->name);
		 i < n && strcmp(known[i].node->name, node->name) == 0; i++)
	{
		const CrelayNode *now = known[i].node;

		if (!lives_apart(&known[i], departed, origin))
			continue;
		if (has_moved(node, now))
		{
			*safe = true;
			return now;
		}
		if (found == NULL)
			found = now;
	}
	return found;
}
