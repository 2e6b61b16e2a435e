/*-------------------------------------------------------------------------
 *
 * awaited.c
 *	  The nodes that a new primary waits for, over restarts.
 *
 * Owns, leaves out and locks: see awaited.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "decide/topology.h"
#include "server/state_file.h"
#include "worker/awaited.h"

/* What the section has, or is to have; the worker's.  NULL: not looked at yet. */
static char *wanted;

static void
render_awaited(StringInfo lines)
{
	appendStringInfoString(lines, wanted);
}

/*
 * Makes that the section from now on.
 */
static void
want(const char *lines)
{
	char	   *before = wanted;

	if (before != NULL && strcmp(before, lines) == 0)
		return;
	wanted = MemoryContextStrdup(TopMemoryContext, lines);
	if (before != NULL)
		pfree(before);
	(void) crelay_state_keep(CRELAY_SECTION_AWAITED, render_awaited);
}

/*
 * Appends the nodes that were written down to a list.  Returns their number.
 */
static int
parse_awaited(char *lines, CrelayNode *nodes, int max)
{
	char	   *line;
	int			n = 0;

	StaticAssertStmt(CRELAY_NAME_LEN == 80, "the width below is that of the buffer");
	while (n < max && (line = crelay_state_next(&lines)) != NULL)
	{
		CrelayNode *node = &nodes[n];

		memset(node, 0, sizeof(CrelayNode));
		if (sscanf(line, "%8x %u %79[^\n]", &node->incarnation, &node->moves, node->name) == 3)
			n++;
	}
	return n;
}

static int
count_lines(const char *lines)
{
	int			n = 0;

	for (; *lines != '\0'; lines++)
		n += *lines == '\n';
	return n;
}

/*
 * Counts the nodes that are not back below this one: as its former upstream has
 * told of them, or as they were written down before a restart.
 */
void
crelay_awaited_find(const CrelayTree *tree, CrelayAwaited *awaited)
{
	CrelayNode *nodes = tree->nodes;
	const CrelayNode **room;
	int			n = tree->nnodes;

	memset(awaited, 0, sizeof(CrelayAwaited));
	awaited->known = tree->heard_above;
	if (!tree->heard_above)
	{
		char	   *lines = crelay_state_peek(CRELAY_SECTION_AWAITED);
		int			max = count_lines(lines);

		if (max == 0)
			return;
		awaited->known = true;
		nodes = palloc_array(CrelayNode, tree->first_above + max);
		memcpy(nodes, tree->nodes, sizeof(CrelayNode) * tree->first_above);
		n = tree->first_above + parse_awaited(lines, &nodes[tree->first_above], max);
	}
	room = palloc_array(const CrelayNode *, n + 1);
	awaited->n = crelay_topology_awaited(nodes, n, tree->first_above, room, &awaited->first);
}

/*
 * Writes down the nodes that a primary has been told of: incarnation, move
 * counter, and the name, which may have spaces if the node has no cascade_relay.
 */
void
crelay_awaited_keep(const CrelayTree *tree)
{
	StringInfoData lines;

	if (!tree->heard_above)
		return;
	initStringInfo(&lines);
	for (int i = tree->first_above; i < tree->nnodes; i++)
	{
		const CrelayNode *node = &tree->nodes[i];

		if (node->protected != CRELAY_FALSE)
			appendStringInfo(&lines, "%08x %u %s\n", node->incarnation, node->moves,
							 node->name);
	}
	want(lines.data);
	pfree(lines.data);
}

/*
 * Nothing is waited for any more.
 */
void
crelay_awaited_drop(void)
{
	if (wanted == NULL && *crelay_state_peek(CRELAY_SECTION_AWAITED) == '\0')
		wanted = MemoryContextStrdup(TopMemoryContext, "");
	want("");
}
