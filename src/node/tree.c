/*-------------------------------------------------------------------------
 *
 * tree.c
 *	  The tree as this node knows it, for the SQL functions that read it.
 *
 * Owns, leaves out and locks: see tree.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "access/xlog.h"
#include "lib/stringinfo.h"
#include "utils/timestamp.h"

#include "node/downstream.h"
#include "node/tree.h"
#include "server/guc.h"

/*
 * Takes back what this node's worker has said on the strength of news of the root
 * that is too old by now: the worker itself may have been stopped since.
 */
static void
forget_root(CrelaySnapshot *snapshot)
{
	snapshot->local.root_known = false;
	if (snapshot->local.node.role == CRELAY_ROLE_PRIMARY)
		return;
	snapshot->local.node.protected = CRELAY_UNKNOWN;
	for (int i = 0; i < snapshot->nrows; i++)
	{
		if (snapshot->row_origins[i] == CRELAY_ORIGIN_UNMANAGED &&
			snapshot->rows[i].protected == CRELAY_TRUE)
			snapshot->rows[i].protected = CRELAY_UNKNOWN;
	}
}

/*
 * Reads what is known and puts it in order.
 */
CrelayTree *
crelay_tree_read(void)
{
	CrelayTree *tree = palloc(sizeof(CrelayTree));
	CrelaySnapshot snapshot;
	CrelaySettings settings;
	CrelayTreeLink *links;
	int			n = 0;

	crelay_registry_require();
	crelay_guc_copy(&settings);
	crelay_registry_snapshot(&snapshot, true);
	crelay_topology_age(snapshot.rows, snapshot.nrows, GetCurrentTimestamp(),
						(int64) settings.stale_timeout_ms * 1000,
						snapshot.local.node.path_interval_ms);
	if (!crelay_local_knows_root(&snapshot.local, settings.stale_timeout_ms))
		forget_root(&snapshot);

	tree->local = snapshot.local;
	tree->nodes = palloc_array(CrelayNode, 1 + snapshot.nchildren + snapshot.nrows);
	if (snapshot.local.ready)
		tree->nodes[n++] = snapshot.local.node;
	for (int i = 0; i < snapshot.nchildren; i++)
		tree->nodes[n++] = snapshot.children[i].node;
	tree->first_above = n;
	memcpy(&tree->nodes[n], snapshot.rows, sizeof(CrelayNode) * snapshot.nrows);
	for (int i = 0; i < snapshot.nrows; i++)
	{
		if (snapshot.row_origins[i] != CRELAY_ORIGIN_UPSTREAM)
			tree->first_above = n + i + 1;
	}
	n += snapshot.nrows;
	tree->nnodes = n;
	tree->heard_above = snapshot.above_seq != 0 && !snapshot.upstream_cut;

	links = palloc_array(CrelayTreeLink, n + 1);
	tree->rows = palloc_array(CrelayTreeRow, n + 1);
	tree->nrows = crelay_topology_assemble(tree->nodes, n, links, tree->rows);
	pfree(links);
	return tree;
}

/*
 * Fills in what it takes to decide about a tree.
 */
void
crelay_tree_judge(const CrelayTree *tree, CrelayPolicyTree *policy)
{
	uint32		timeline = tree->local.node.timeline;
	CrelayNewestPrimary newest = tree->local.newest_primary;

	policy->nodes = tree->nodes;
	policy->rows = tree->rows;
	policy->nrows = tree->nrows;
	policy->has_here = tree->local.ready;
	policy->history = timeline != 0 ? crelay_read_history(timeline) : NULL;
	policy->segment_size = wal_segment_size;
	policy->left = NULL;
	crelay_tree_newest_primary(policy, &newest);

	/* what this node has replayed came from a primary, too */
	policy->newest_primary = Max(newest.timeline, timeline);
}

/*
 * The tree, with what it takes to decide about it.
 */
CrelayTree *
crelay_tree_for_policy(CrelayPolicyTree *policy)
{
	CrelayTree *tree = crelay_tree_read();

	crelay_tree_judge(tree, policy);
	return tree;
}

/*
 * Returns true if a node of that name is there, and is a standby.
 */
static bool
is_live_standby(const CrelayPolicyTree *policy, const char *name)
{
	int			row = crelay_policy_find(policy, name);
	const CrelayNode *node = row >= 0 ? &policy->nodes[policy->rows[row].node] : NULL;

	return node != NULL && node->role == CRELAY_ROLE_STANDBY &&
		crelay_state_is_live(node->state);
}

/*
 * Brings newest, the primary on the newest timeline that was known before, up
 * to the tree.  A primary that has become a standby again, because it was
 * rewound, has taken its timeline with it.
 */
void
crelay_tree_newest_primary(const CrelayPolicyTree *policy, CrelayNewestPrimary *newest)
{
	int			row = crelay_policy_newest_primary(policy);
	const CrelayNode *node = row >= 0 ? &policy->nodes[policy->rows[row].node] : NULL;

	if (newest->timeline != 0 && is_live_standby(policy, newest->name))
		memset(newest, 0, sizeof(CrelayNewestPrimary));
	if (node == NULL || node->timeline < newest->timeline)
		return;
	newest->timeline = node->timeline;
	strlcpy(newest->name, node->name, sizeof(newest->name));
}

/*
 * All that a snapshot with rows says of nodes, for departed.h: by name, and
 * with a child's slot for what that child has said, itself included.  Rows that
 * contradict others are among them, because what a node has proven it has proven,
 * wherever the tree shows it.
 */
CrelayKnown *
crelay_tree_known(CrelaySnapshot *snapshot, int *n)
{
	int			nrows = snapshot->nrows + snapshot->ncontested;
	CrelayKnown *known = palloc_array(CrelayKnown, 1 + snapshot->nchildren + nrows);
	CrelaySettings settings;

	*n = 0;
	crelay_guc_copy(&settings);
	crelay_topology_age(snapshot->rows, nrows, GetCurrentTimestamp(),
						(int64) settings.stale_timeout_ms * 1000,
						snapshot->local.node.path_interval_ms);
	known[*n].node = &snapshot->local.node;
	known[(*n)++].origin = CRELAY_ORIGIN_UNMANAGED;
	for (int i = 0; i < snapshot->nchildren; i++)
	{
		known[*n].node = &snapshot->children[i].node;
		known[(*n)++].origin = snapshot->child_slots[i];
	}
	for (int i = 0; i < nrows; i++)
	{
		known[*n].node = &snapshot->rows[i];
		known[(*n)++].origin = snapshot->row_origins[i];
	}
	crelay_departed_sort(known, *n);
	return known;
}

/*
 * Whether all that is below a child is known here: neither was there no room for
 * some of it, nor had anybody there too little, as far as they have said.
 */
bool
crelay_tree_knows_below(const CrelaySnapshot *snapshot, int child)
{
	if (!snapshot->children[child].has_about || snapshot->children[child].rows.cut ||
		(snapshot->children[child].node.warnings & CRELAY_WARN_REGISTRY_FULL))
		return false;
	for (int i = 0; i < snapshot->nrows; i++)
	{
		if (snapshot->row_origins[i] == snapshot->child_slots[child] &&
			(snapshot->rows[i].warnings & CRELAY_WARN_REGISTRY_FULL))
			return false;
	}
	return true;
}

/*
 * Whether a row is this node's.  It has none before the worker has said for the
 * first time who it is.
 */
bool
crelay_tree_is_local(const CrelayTree *tree, const CrelayTreeRow *row)
{
	return tree->local.ready && row->node == 0;
}

CrelayState
crelay_tree_state(const CrelayTree *tree, const CrelayTreeRow *row)
{
	return row->cyclic ? CRELAY_STATE_CYCLE : tree->nodes[row->node].state;
}

/*
 * What is wrong with a node, its state and its place included.
 */
uint32
crelay_tree_warnings(const CrelayTree *tree, const CrelayTreeRow *row)
{
	uint32		warnings = tree->nodes[row->node].warnings;

	if (crelay_tree_state(tree, row) == CRELAY_STATE_STALE)
		warnings |= CRELAY_WARN_STALE_NODE;
	if (crelay_state_is_live(crelay_tree_state(tree, row)) &&
		crelay_feed_is_cut(tree->nodes[row->node].feed))
		warnings |= CRELAY_WARN_NOT_STREAMING;
	if (crelay_state_is_live(crelay_tree_state(tree, row)) &&
		crelay_pause_is_on(tree->nodes[row->node].pause))
		warnings |= CRELAY_WARN_REPLAY_PAUSED;
	if (row->cyclic)
		warnings |= CRELAY_WARN_CYCLE;
	return warnings;
}

/* ---- an identifier for each row ---- */

typedef struct RowId
{
	uint32		incarnation;
	char	   *id;
	int			row;
} RowId;

static int
compare_lives(const void *a, const void *b)
{
	const RowId *first = a;
	const RowId *second = b;

	if (first->incarnation != second->incarnation)
		return first->incarnation < second->incarnation ? -1 : 1;
	return first->row - second->row;
}

static int
compare_ids(const void *a, const void *b)
{
	const RowId *first = a;
	const RowId *second = b;
	int			c = strcmp(first->id, second->id);

	return c != 0 ? c : first->row - second->row;
}

/*
 * Appends a name with all but plain characters as in a URL.
 */
static void
append_encoded(StringInfo id, const char *name)
{
	for (const char *p = name; *p != '\0'; p++)
	{
		if (isalnum((unsigned char) *p) || *p == '_' || *p == '-')
			appendStringInfoChar(id, *p);
		else
			appendStringInfo(id, "%%%02X", (unsigned char) *p);
	}
}

/*
 * Gives each node that has an incarnation that as its identifier.  A second node
 * with the same one, as after a volume was cloned, gets its name behind it.
 */
static void
identify_managed(const CrelayTree *tree, char **ids, RowId *work)
{
	int			n = 0;

	for (int r = 0; r < tree->nrows; r++)
	{
		work[n].incarnation = tree->nodes[tree->rows[r].node].incarnation;
		work[n].row = r;
		n += work[n].incarnation != 0;
	}
	qsort(work, n, sizeof(*work), compare_lives);
	for (int i = 0; i < n; i++)
	{
		StringInfoData id;

		initStringInfo(&id);
		appendStringInfo(&id, "%08x", work[i].incarnation);
		if (i > 0 && work[i - 1].incarnation == work[i].incarnation)
		{
			appendStringInfoChar(&id, '.');
			append_encoded(&id, tree->nodes[tree->rows[work[i].row].node].name);
		}
		ids[work[i].row] = id.data;
	}
}

/*
 * Gives each other node the identifier of its upstream and its name; of two
 * with the same, the second one a number, too.
 */
static void
identify_unmanaged(const CrelayTree *tree, char **ids, RowId *work)
{
	int			n = 0;
	int			copies = 1;

	for (int r = 0; r < tree->nrows; r++)
	{
		StringInfoData id;

		if (ids[r] != NULL)
			continue;
		initStringInfo(&id);
		appendStringInfo(&id, "%s/", tree->rows[r].parent >= 0 ? ids[tree->rows[r].parent] :
						 CRELAY_UNKNOWN_NODE);
		append_encoded(&id, tree->nodes[tree->rows[r].node].name);
		ids[r] = id.data;
		work[n].id = id.data;
		work[n++].row = r;
	}
	qsort(work, n, sizeof(*work), compare_ids);
	for (int i = 1; i < n; i++)
	{
		copies = strcmp(work[i - 1].id, work[i].id) == 0 ? copies + 1 : 1;
		if (copies > 1)
			ids[work[i].row] = psprintf("%s#%d", work[i].id, copies);
	}
}

/*
 * An identifier for each row, without spaces and unique among them.  It stays
 * the same while the node lives, and where a node is known by its name only,
 * while it streams from there.
 */
char	  **
crelay_tree_ids(const CrelayTree *tree)
{
	char	  **ids = palloc0_array(char *, tree->nrows + 1);
	RowId	   *work = palloc_array(RowId, tree->nrows + 1);

	identify_managed(tree, ids, work);
	identify_unmanaged(tree, ids, work);
	pfree(work);
	return ids;
}

/*
 * Returns true if a node, or one between it and the root, has WAL that the
 * root will never have: then LSNs of the two cannot be compared.
 */
static bool
is_on_other_history(const CrelayTree *tree, const CrelayTreeRow *row)
{
	for (;;)
	{
		if (crelay_tree_state(tree, row) == CRELAY_STATE_DIVERGED)
			return true;
		if (row->parent < 0)
			return false;
		row = &tree->rows[row->parent];
	}
}

/*
 * Which rule a node breaks by streaming from where it does.
 */
CrelayPlanReason
crelay_tree_breach(const CrelayTree *tree, int row)
{
	CrelayPolicyTree policy = {0};

	policy.nodes = tree->nodes;
	policy.rows = tree->rows;
	policy.nrows = tree->nrows;
	return crelay_policy_row_breach(&policy, row);
}

/*
 * The bytes that a node has to replay before it is where the root was when it
 * was last heard of.  Unknown for a node that nobody has news of.
 */
int64
crelay_tree_lag(const CrelayTree *tree, const CrelayTreeRow *row)
{
	const CrelayNode *node = &tree->nodes[row->node];

	if (!crelay_state_is_live(crelay_tree_state(tree, row)))
		return -1;
	if (is_on_other_history(tree, row))
		return -1;
	if (!tree->local.root_known || tree->local.root_lsn == 0 || node->replay_lsn == 0)
		return -1;
	/* what the root's LSN was before the upstream was lost says nothing now */
	if (tree->local.node.role != CRELAY_ROLE_PRIMARY &&
		tree->local.upstream_state != CRELAY_UPSTREAM_CONNECTED)
		return -1;
	return tree->local.root_lsn > node->replay_lsn ?
		(int64) (tree->local.root_lsn - node->replay_lsn) : 0;
}
