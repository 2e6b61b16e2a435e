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

/*
 * So many hashes are spent on a branch: a node that moves is a step ahead, and
 * whoever makes up longer ways can take nobody's time.
 */
#define HASHES_ALL		(16 * CRELAY_PROOF_REACH)

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
 * Whether a row tells where a node lives now that was below a departed one, and
 * comes from somebody else than the given origin.  Without an incarnation it is
 * known by its name alone, and may have got one since.  A row below the
 * departed node is an old one.
 */
static bool
lives_apart(const CrelayKnown *row, const CrelayNode *node,
			const CrelayNode *departed, int origin)
{
	const CrelayNode *other = row->node;

	return row->origin != origin && crelay_state_is_live(other->state) &&
		(node->incarnation == 0 || other->incarnation == node->incarnation) &&
		(other->upstream_incarnation != departed->incarnation ||
		 strcmp(other->upstream_name, departed->name) != 0);
}

/*
 * Where a node lives now that was below a departed one: a row that is
 * protected, and that the node has proven, if there is one; then *safe is set.
 * Else any other, or NULL if nobody has seen it live.  What the node had shown
 * is in the row that is given.
 */
const CrelayNode *
crelay_departed_find(const CrelayKnown *known, int n, const CrelayNode *node,
					 const CrelayNode *departed, int origin, bool *safe)
{
	const CrelayNode *found = NULL;
	const CrelayProof *claims[CRELAY_DEPARTED_CLAIMS];
	const CrelayNode *claimed[CRELAY_DEPARTED_CLAIMS];
	int			nclaims = 0;
	int			proven;

	for (int i = find_name(known, n, node->name);
		 i < n && strcmp(known[i].node->name, node->name) == 0; i++)
	{
		const CrelayNode *other = known[i].node;

		if (!lives_apart(&known[i], node, departed, origin))
			continue;
		if (found == NULL)
			found = other;
		if (other->protected != CRELAY_TRUE || nclaims == CRELAY_DEPARTED_CLAIMS ||
			!crelay_proof_may_follow(&node->proof, &other->proof))
			continue;
		claims[nclaims] = &other->proof;
		claimed[nclaims++] = other;
	}
	proven = crelay_proof_find(&node->proof, node->incarnation, claims, nclaims);
	*safe = proven >= 0;
	return *safe ? claimed[proven] : found;
}

/*
 * Whether a row of the departed node's branch is as safe as it says: what was
 * below that node when it was here, and has shown something then, must have
 * shown since that it is somewhere else, as far as that takes no more hashes than
 * are left.
 */
static bool
is_proven(const CrelayDeparted *departed, const CrelayNode *node, uint32_t *left)
{
	const CrelayProof *claim = &node->proof;

	for (int i = find_name(departed->known, departed->nknown, node->name);
		 i < departed->nknown && strcmp(departed->known[i].node->name, node->name) == 0; i++)
	{
		const CrelayKnown *former = &departed->known[i];

		if (former->origin == departed->origin && node->incarnation != 0 &&
			former->node->incarnation == node->incarnation &&
			crelay_proof_find_within(&former->node->proof, node->incarnation, &claim, 1,
									 left) < 0)
			return false;
	}
	return true;
}

/*
 * Whether a node that is not below this one (here) any more is live, and it and
 * everything below it is protected, so that nobody needs what is kept for it
 * here.  The rows are those of the assembled tree; where some are missing, there
 * may be anybody.
 */
bool
crelay_departed_branch_is_safe(const CrelayNode *nodes, const CrelayTreeRow *rows,
							   int nrows, const CrelayDeparted *departed,
							   uint32_t here)
{
	const CrelayNode *node = NULL;
	uint32_t	left = HASHES_ALL;
	int			top;

	if (departed->incomplete)
		return false;
	for (top = 0; top < nrows; top++)
	{
		node = &nodes[rows[top].node];
		if (node->incarnation == departed->incarnation &&
			strcmp(node->name, departed->name) == 0)
			break;
	}
	if (top == nrows || rows[top].cyclic || !crelay_state_is_live(node->state) ||
		node->upstream_incarnation == here ||
		!crelay_proof_follows(&departed->proof, &node->proof, departed->incarnation))
		return false;
	for (int row = top; row < nrows && (row == top || rows[row].depth > rows[top].depth); row++)
	{
		node = &nodes[rows[row].node];
		if (node->protected != CRELAY_TRUE || (row != top && !is_proven(departed, node, &left)))
			return false;
	}
	return true;
}
