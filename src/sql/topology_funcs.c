/*-------------------------------------------------------------------------
 *
 * topology_funcs.c
 *	  cascade_topology() and cascade_tree(): the tree as rows and as a drawing.
 *
 * Owns: arguments, tuples and lines of these functions.
 *
 * Not here: the tree itself (tree.c, topology.c).
 *
 * Locking: none of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"

#include "decide/frontier.h"
#include "decide/topology.h"
#include "node/tree.h"
#include "sql/tuple.h"

PG_FUNCTION_INFO_V1(cascade_topology);
PG_FUNCTION_INFO_V1(cascade_tree);

/*
 * The row's upstream; "unknown" above the top of an orphaned part.
 */
static const char *
upstream_name(const CrelayTree *tree, const CrelayTreeRow *row)
{
	if (row->parent >= 0)
		return tree->nodes[tree->rows[row->parent].node].name;
	return row->depth == 0 ? NULL : CRELAY_UNKNOWN_NODE;
}

static const char *
upstream_id(const CrelayTree *tree, const CrelayTreeRow *row, char **ids)
{
	if (row->parent >= 0)
		return ids[row->parent];
	return row->depth == 0 ? NULL : CRELAY_UNKNOWN_NODE;
}

/*
 * From the root, or from "unknown", down to the row itself, both included.
 */
static Datum
path_of(const CrelayTree *tree, int row)
{
	int			length = tree->rows[row].depth + 1;
	Datum	   *names = palloc_array(Datum, length);
	int			at = length;

	for (int r = row; r >= 0; r = tree->rows[r].parent)
		names[--at] = CStringGetTextDatum(tree->nodes[tree->rows[r].node].name);
	if (at > 0)
		names[--at] = CStringGetTextDatum(CRELAY_UNKNOWN_NODE);
	return PointerGetDatum(construct_array(names, length, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

static Datum
warnings_of(uint32 warnings)
{
	Datum		codes[32];
	int			n = 0;

	for (int bit = 0; bit < 32; bit++)
	{
		const char *code = NULL;

		if (warnings & (UINT32_C(1) << bit))
			code = crelay_warning_text(UINT32_C(1) << bit);
		if (code != NULL)
			codes[n++] = CStringGetTextDatum(code);
	}
	return PointerGetDatum(construct_array(codes, n, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/*
 * Whether the node's replay is paused.  A standby that tells also tells its
 * recovery_min_apply_delay.
 */
static CrelayTruth
is_paused(const CrelayNode *node)
{
	if (node->pause == CRELAY_PAUSE_UNKNOWN)
		return CRELAY_UNKNOWN;
	return crelay_pause_is_on(node->pause) ? CRELAY_TRUE : CRELAY_FALSE;
}

static void
fill_row(CrelayTuple *tuple, const CrelayTree *tree, char **ids, int r)
{
	const CrelayTreeRow *row = &tree->rows[r];
	const CrelayNode *node = &tree->nodes[row->node];
	int64		lag = crelay_tree_lag(tree, row);

	crelay_put_text(tuple, node->name);
	crelay_put_text(tuple, upstream_name(tree, row));
	crelay_put_int(tuple, row->depth, true);
	crelay_put(tuple, path_of(tree, r), true);
	crelay_put_text(tuple, crelay_role_text(node->role));
	crelay_put_text(tuple, crelay_class_text(node->replica_class));
	crelay_put_text(tuple, crelay_state_text(crelay_tree_state(tree, row)));
	crelay_put_bool(tuple, node->managed);
	crelay_put_bool(tuple, crelay_tree_is_local(tree, row));
	crelay_put_int(tuple, (int32) node->timeline, node->timeline != 0);
	crelay_put_lsn(tuple, node->flush_lsn);
	crelay_put_lsn(tuple, node->replay_lsn);
	crelay_put_lsn(tuple, node->frontier_lsn);
	crelay_put_pin(tuple, &node->pin);
	crelay_put_lsn(tuple, node->oldest_wal_lsn);
	crelay_put_truth(tuple, node->protected);
	crelay_put_bigint(tuple, lag, lag >= 0);
	crelay_put_interval(tuple, lag >= 0 ? node->replay_lag : -1);
	crelay_put_xid(tuple, node->backend_xmin);
	crelay_put_text(tuple, node->xmin_pinned_by);
	crelay_put_truth(tuple, node->hot_standby_feedback);
	crelay_put_text(tuple, node->location);
	crelay_put_text(tuple, node->conninfo);
	crelay_put_text(tuple, crelay_plan_reason_text(crelay_tree_breach(tree, r)));
	crelay_put(tuple, warnings_of(crelay_tree_warnings(tree, row)), true);
	crelay_put_truth(tuple, is_paused(node));
	crelay_put_interval(tuple, is_paused(node) != CRELAY_UNKNOWN ? (int64) node->apply_delay_ms * 1000 : -1);
	crelay_put_time(tuple, node->observed_at);
	crelay_put_incarnation(tuple, node->incarnation);
	crelay_put_text(tuple, node->version);
	crelay_put_text(tuple, ids[r]);
	crelay_put_text(tuple, upstream_id(tree, row, ids));
}

/*
 * cascade_topology() returns the tree, one row for each node.
 */
Datum
cascade_topology(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CrelayTree *tree = crelay_tree_read();
	char	  **ids = crelay_tree_ids(tree);
	MemoryContext memory = crelay_row_memory();

	InitMaterializedSRF(fcinfo, 0);
	for (int r = 0; r < tree->nrows; r++)
	{
		CrelayTuple tuple;

		crelay_tuple_begin(&tuple, memory);
		fill_row(&tuple, tree, ids, r);
		crelay_tuple_store(&tuple, rsinfo);
	}
	return (Datum) 0;
}

/* ---- the drawing ---- */

static void
append_bytes(StringInfo line, int64 bytes)
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
	int			unit = 0;

	while (bytes >= 10240 && unit < (int) lengthof(units) - 1)
	{
		bytes = (bytes + 512) / 1024;
		unit++;
	}
	appendStringInfo(line, INT64_FORMAT " %s", bytes, units[unit]);
}

/*
 * The branches in front of a name, from the left: a line goes on at each level
 * whose node has more siblings to come.
 */
static void
append_branches(StringInfo line, const CrelayTree *tree, int r)
{
	int			levels[CRELAY_MAX_DEPTH];
	int			n = 0;

	for (int up = r; tree->rows[up].parent >= 0 && n < CRELAY_MAX_DEPTH;
		 up = tree->rows[up].parent)
		levels[n++] = up;
	for (int i = n - 1; i > 0; i--)
		appendStringInfoString(line, tree->rows[levels[i]].has_next ? "|  " : "   ");
	if (n > 0)
		appendStringInfoString(line, tree->rows[r].has_next ? "|- " : "`- ");
	else if (tree->rows[r].depth > 0)
		appendStringInfoString(line, "? ");
}

/*
 * Where a pin is, without what goes without saying: what is not said to be
 * elsewhere stands on the node itself.
 */
static void
append_pin(StringInfo line, const CrelayPin *pin, const char *node_name)
{
	if (pin->by[0] == '\0' || crelay_pin_is_own(pin, node_name))
		return;
	appendStringInfoString(line, " pinned by ");
	switch (pin->kind)
	{
		case CRELAY_PIN_NODE:
			appendStringInfoString(line, pin->by);
			return;
		case CRELAY_PIN_SLOT:
			appendStringInfo(line, "slot %s", pin->slot);
			break;
		case CRELAY_PIN_HOLD:
			appendStringInfo(line, "hold for %s", pin->by);
			break;
		case CRELAY_PIN_WALSENDER:
			appendStringInfo(line, "walsender of %s", pin->by);
			break;
	}
	if (strcmp(pin->on, node_name) != 0)
		appendStringInfo(line, " on %s", pin->on);
}

static void
append_marks(StringInfo line, const CrelayTree *tree, int r)
{
	const CrelayTreeRow *row = &tree->rows[r];
	const CrelayNode *node = &tree->nodes[row->node];
	uint32		warnings = crelay_tree_warnings(tree, row) & ~CRELAY_WARN_UNPROTECTED;

	if (node->protected == CRELAY_FALSE)
		appendStringInfoString(line, " UNPROTECTED");
	if (!node->managed)
		appendStringInfoString(line, " unmanaged");
	append_pin(line, &node->pin, node->name);
	if (node->apply_delay_ms != 0)
		appendStringInfo(line, " delayed %u s", (node->apply_delay_ms + 999) / 1000);
	for (int bit = 0; bit < 32; bit++)
	{
		const char *code = NULL;

		if (warnings & (UINT32_C(1) << bit))
			code = crelay_warning_text(UINT32_C(1) << bit);
		if (code != NULL)
			appendStringInfo(line, " !%s", code);
	}
}

static int
name_width(const CrelayTree *tree)
{
	int			width = 4;

	for (int r = 0; r < tree->nrows; r++)
	{
		int			here = 3 * tree->rows[r].depth + 1 +
		(int) strlen(tree->nodes[tree->rows[r].node].name);

		width = Max(width, here);
	}
	return Min(width, 40);
}

static int
state_width(const CrelayTree *tree)
{
	int			width = 9;

	for (int r = 0; r < tree->nrows; r++)
	{
		const char *state = crelay_state_text(crelay_tree_state(tree, &tree->rows[r]));

		width = Max(width, state ? (int) strlen(state) : 1);
	}
	return width;
}

static void
draw_row(StringInfo line, const CrelayTree *tree, int r, int width, int states)
{
	const CrelayTreeRow *row = &tree->rows[r];
	const CrelayNode *node = &tree->nodes[row->node];
	const char *role = crelay_role_text(node->role);
	const char *state = crelay_state_text(crelay_tree_state(tree, row));
	int64		lag = crelay_tree_lag(tree, row);
	StringInfoData lag_text;

	resetStringInfo(line);
	append_branches(line, tree, r);
	appendStringInfo(line, "%s%s", node->name,
					 crelay_tree_is_local(tree, row) ? "*" : "");
	while (line->len < width)
		appendStringInfoChar(line, ' ');

	initStringInfo(&lag_text);
	if (lag >= 0)
		append_bytes(&lag_text, lag);
	else
		appendStringInfoChar(&lag_text, '-');
	appendStringInfo(line, " %-7s %-*s %9s", role ? role : "-", states, state ? state : "-",
					 lag_text.data);
	pfree(lag_text.data);
	append_marks(line, tree, r);
}

/*
 * cascade_tree() returns the tree as lines for a terminal.
 */
Datum
cascade_tree(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CrelayTree *tree = crelay_tree_read();
	MemoryContext memory = crelay_row_memory();
	int			width = name_width(tree);
	int			states = state_width(tree);
	StringInfoData line;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	initStringInfo(&line);
	for (int r = 0; r < tree->nrows; r++)
	{
		CrelayTuple tuple;

		crelay_tuple_begin(&tuple, memory);
		draw_row(&line, tree, r, width, states);
		crelay_put_text(&tuple, line.data);
		crelay_tuple_store(&tuple, rsinfo);
	}
	return (Datum) 0;
}
