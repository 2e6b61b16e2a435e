/*-------------------------------------------------------------------------
 *
 * diagram_funcs.c
 *	  cascade_diagram(): the tree as a picture.
 *
 * Owns: the argument, and bringing the facts together.
 *
 * Not here: the picture (diagram.c).
 *
 * Locking: none of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "decide/diagram.h"
#include "node/downstream.h"
#include "node/tree.h"
#include "registry/registry.h"
#include "server/compat.h"

PG_FUNCTION_INFO_V1(cascade_diagram);

/* A node that its walsender saw less far behind than this is level, in microseconds. */
#define LEVEL_LAG	INT64CONST(1000000)

static int
compare_names(const void *a, const void *b)
{
	return strcmp((*(const CrelayDownstream *const *) a)->name,
				  (*(const CrelayDownstream *const *) b)->name);
}

/*
 * The walsenders of this node by the names of what they feed.
 */
static CrelayDownstream **
read_senders(int *nsenders)
{
	CrelaySnapshot snapshot;
	CrelayDownstream *downstreams;
	CrelayDownstream **senders;
	int			n;

	crelay_registry_snapshot(&snapshot, false);
	downstreams = crelay_downstream_collect(&snapshot, true, &n);
	senders = palloc_array(CrelayDownstream *, n + 1);
	*nsenders = 0;
	for (int i = 0; i < n; i++)
	{
		if (downstreams[i].pid != 0 && !downstreams[i].logical && downstreams[i].replay_lsn != 0)
			senders[(*nsenders)++] = &downstreams[i];
	}
	qsort(senders, *nsenders, sizeof(*senders), compare_names);
	return senders;
}

/*
 * How far behind a node is, in bytes; -1 unknown.  A node that streams from
 * here is measured by its walsender.  News of the other nodes is some
 * seconds old, and on a busy primary that makes megabytes; so a short time,
 * which a walsender has measured, wins over the bytes.
 */
static int64
lag_of(const CrelayTree *tree, int r, CrelayDownstream **senders, int nsenders, uint64 own_lsn)
{
	const CrelayTreeRow *row = &tree->rows[r];
	const CrelayNode *node = &tree->nodes[row->node];
	int64		lag = crelay_tree_lag(tree, row);

	if (lag >= 0 && row->parent >= 0 && crelay_tree_is_local(tree, &tree->rows[row->parent]))
	{
		CrelayDownstream key;
		CrelayDownstream *wanted = &key;
		CrelayDownstream **found;

		strlcpy(key.name, node->name, sizeof(key.name));
		found = bsearch(&wanted, senders, nsenders, sizeof(*senders), compare_names);
		if (found != NULL)
			return own_lsn > (*found)->replay_lsn ? (int64) (own_lsn - (*found)->replay_lsn) : 0;
	}
	return lag > 0 && node->replay_lag >= 0 && node->replay_lag < LEVEL_LAG ? 0 : lag;
}

static void
add_nodes(CrelayDiagram *diagram, const CrelayTree *tree)
{
	CrelayPosition position;
	CrelayDownstream **senders;
	int			nsenders;

	crelay_read_position(&position);
	senders = read_senders(&nsenders);
	diagram->n = tree->nrows;
	diagram->nodes = palloc0_array(CrelayDiagramNode, tree->nrows + 1);
	for (int r = 0; r < tree->nrows; r++)
	{
		CrelayDiagramNode *n = &diagram->nodes[r];

		CHECK_FOR_INTERRUPTS();
		n->node = &tree->nodes[tree->rows[r].node];
		n->state = crelay_tree_state(tree, &tree->rows[r]);
		n->parent = tree->rows[r].parent;
		n->depth = tree->rows[r].depth;
		n->local = crelay_tree_is_local(tree, &tree->rows[r]);
		n->warnings = crelay_tree_warnings(tree, &tree->rows[r]);
		n->lag = lag_of(tree, r, senders, nsenders, position.flush_lsn);
	}
}

/*
 * The time in UTC, whatever TimeZone is: a picture travels.
 */
static const char *
utc_text(TimestampTz now)
{
	pg_time_t	time = timestamptz_to_time_t(now);
	struct pg_tm *tm = pg_gmtime(&time);

	return psprintf("%04d-%02d-%02d %02d:%02d:%02d UTC", tm->tm_year + 1900, tm->tm_mon + 1,
					tm->tm_mday, tm->tm_hour, tm->tm_min, tm->tm_sec);
}

static void
append(void *arg, const char *text, size_t len)
{
	appendBinaryStringInfo((StringInfo) arg, text, (int) len);
}

/*
 * cascade_diagram() returns the tree as SVG, DOT or Mermaid.
 */
Datum
cascade_diagram(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	CrelayDiagram diagram = {0};
	CrelayDiagramFormat format;
	StringInfoData result;

	if (!crelay_diagram_format_parse(name, &format))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized diagram format \"%s\"", name),
				 errhint("Valid formats are \"svg\", \"dot\", and \"mermaid\".")));
	diagram.now = GetCurrentTimestamp();
	diagram.time = utc_text(diagram.now);
	diagram.segment_size = wal_segment_size;
	diagram.lsn_digits = CRELAY_LSN_DIGITS;
	add_nodes(&diagram, crelay_tree_read());
	initStringInfo(&result);
	crelay_diagram_draw(&diagram, format, append, &result);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(result.data, result.len));
}
