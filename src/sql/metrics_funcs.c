/*-------------------------------------------------------------------------
 *
 * metrics_funcs.c
 *	  cascade_metrics() and cascade_openmetrics(): what monitors collect.
 *
 * Owns: gathering the facts, and the tuples.  Neither function raises an error
 * where the library is not preloaded: that is a sample, too.
 *
 * Not here: which samples there are (metrics.c).
 *
 * Locking: none of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "fmgr.h"
#include "funcapi.h"

#include "decide/frontier.h"
#include "decide/metrics.h"
#include "node/bounds.h"
#include "node/downstream.h"
#include "node/tree.h"
#include "registry/registry.h"
#include "server/guc.h"
#include "sql/check_funcs.h"
#include "sql/tuple.h"

PG_FUNCTION_INFO_V1(cascade_metrics);
PG_FUNCTION_INFO_V1(cascade_openmetrics);

/* Where samples go. */
typedef struct Output
{
	ReturnSetInfo *rsinfo;
	MemoryContext memory;
	const CrelayMetric *last;	/* whose help was told */
} Output;

/* ---- gathering ---- */

static void
add_status(CrelayMetricsFacts *facts, const CrelayLocal *local, const CrelayPosition *position)
{
	facts->up = local->ready && local->worker_pid != 0;
	facts->role = crelay_role_text(position->in_recovery ? CRELAY_ROLE_STANDBY : CRELAY_ROLE_PRIMARY);
	facts->state = local->ready ? crelay_state_text(local->node.state) : NULL;
	facts->upstream = local->upstream_name;
	facts->has_upstream = position->in_recovery && local->upstream_state != CRELAY_UPSTREAM_NONE;
	facts->connected = local->upstream_state == CRELAY_UPSTREAM_CONNECTED;
	facts->protected = local->node.protected;
	facts->applied_lsn = position->applied_lsn;
	facts->own_lsn = position->flush_lsn;
	facts->frontier_lsn = local->node.frontier_lsn;
	facts->last_report_time = local->last_report_time;
	facts->reports_sent = local->reports_sent;
	facts->reports_failed = local->reports_failed;
	facts->reports_received = local->reports_received;
}

/*
 * The rows below this node follow its own.
 */
static void
add_members(CrelayMetricsFacts *facts, const CrelayTree *tree)
{
	int			local = 0;

	while (local < tree->nrows && !crelay_tree_is_local(tree, &tree->rows[local]))
		local++;
	facts->members = palloc_array(CrelayMetricsMember, tree->nrows + 1);
	for (int r = local + 1; r < tree->nrows && tree->rows[r].depth > tree->rows[local].depth; r++)
	{
		CrelayMetricsMember *member = &facts->members[facts->nmembers++];

		member->node = &tree->nodes[tree->rows[r].node];
		member->state = crelay_tree_state(tree, &tree->rows[r]);
		member->upstream = tree->nodes[tree->rows[tree->rows[r].parent].node].name;
	}
}

static void
add_edges(CrelayMetricsFacts *facts, const CrelaySettings *settings, const CrelayPosition *position)
{
	CrelaySnapshot snapshot;
	CrelayDownstream *downstreams;
	CrelayFrontier frontier;
	CrelayOwn	own;

	crelay_registry_snapshot(&snapshot, false);
	downstreams = crelay_downstream_collect(&snapshot, true, &facts->nedges);
	own.name = settings->node_name;
	own.applied_lsn = position->applied_lsn;
	own.restart_redo = position->restart_redo;
	own.segment_size = wal_segment_size;
	crelay_frontier_compute(&own, downstreams, facts->nedges, &frontier);
	facts->edges = palloc_array(CrelayMetricsEdge, facts->nedges + 1);
	for (int i = 0; i < facts->nedges; i++)
	{
		int64		safe = crelay_bounds_safe_size(&downstreams[i], settings, position->flush_lsn);

		facts->edges[i].downstream = &downstreams[i];
		facts->edges[i].safe_bytes = safe == PG_INT64_MAX ? -1 : Max(safe, 0);
	}
}

/* The findings so far, and for how many there is room. */
typedef struct Findings
{
	CrelayMetricsFacts *facts;
	int			room;
} Findings;

static void
add_finding(void *arg, const CrelayFinding *finding)
{
	Findings   *findings = arg;
	CrelayMetricsFacts *facts = findings->facts;
	CrelayMetricsFinding *added;

	if (!finding->below || finding->code == CRELAY_CHECK_OK)
		return;
	if (facts->nfindings == findings->room)
	{
		findings->room *= 2;
		facts->findings = repalloc_array(facts->findings, CrelayMetricsFinding, findings->room);
	}
	added = &facts->findings[facts->nfindings++];
	added->code = crelay_check_code_text(finding->code);
	added->severity = crelay_severity_text(finding->severity);
	added->member = pstrdup(finding->node_name);
	added->level = (int) finding->severity;
}

static void
tell_all(Oid function, CrelayMetricsSink sink, void *sink_arg)
{
	CrelayMetricsFacts facts = {0};
	CrelaySettings settings;

	crelay_guc_copy(&settings);
	facts.name = settings.node_name;
	facts.loaded = crelay_registry_is_there();
	if (facts.loaded)
	{
		CrelayTree *tree = crelay_tree_read();
		Findings	findings = {&facts, 32};
		CrelayPosition position;

		crelay_read_position(&position);
		facts.now = GetCurrentTimestamp();
		add_status(&facts, &tree->local, &position);
		add_members(&facts, tree);
		add_edges(&facts, &settings, &position);
		facts.findings = palloc_array(CrelayMetricsFinding, findings.room);
		crelay_check_tree(tree, function, add_finding, &findings);
	}
	crelay_metrics_run(&facts, sink, sink_arg);
}

/* ---- tuples ---- */

/*
 * There is no NULL in a row, because collectors stumble over it.
 */
static void
put_filled(CrelayTuple *tuple, const char *value)
{
	crelay_put(tuple, CStringGetTextDatum(value != NULL ? value : ""), true);
}

static void
put_sample(void *arg, const CrelaySample *sample)
{
	Output	   *output = arg;
	CrelayTuple tuple;

	crelay_tuple_begin(&tuple, output->memory);
	put_filled(&tuple, sample->metric->name);
	put_filled(&tuple, sample->metric->type);
	put_filled(&tuple, sample->metric->help);
	for (int i = 0; i < CRELAY_LABELS; i++)
		put_filled(&tuple, sample->labels[i]);
	crelay_put(&tuple, Float8GetDatum(sample->value), true);
	crelay_tuple_store(&tuple, output->rsinfo);
}

static void
put_line(Output *output, const char *line)
{
	CrelayTuple tuple;

	crelay_tuple_begin(&tuple, output->memory);
	crelay_put_text(&tuple, line);
	crelay_tuple_store(&tuple, output->rsinfo);
}

static void
put_sample_line(void *arg, const CrelaySample *sample)
{
	Output	   *output = arg;
	char		line[CRELAY_METRICS_LINE];

	if (output->last != sample->metric)
	{
		output->last = sample->metric;
		snprintf(line, sizeof(line), "# HELP %s %s", sample->metric->name, sample->metric->help);
		put_line(output, line);
		snprintf(line, sizeof(line), "# TYPE %s %s", sample->metric->name, sample->metric->type);
		put_line(output, line);
	}
	crelay_metrics_format(sample, line, sizeof(line));
	put_line(output, line);
}

static void
begin_output(FunctionCallInfo fcinfo, Output *output, uint32 flags)
{
	InitMaterializedSRF(fcinfo, flags);
	output->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	output->memory = crelay_row_memory();
	output->last = NULL;
}

/*
 * cascade_metrics() returns one row for each sample.
 */
Datum
cascade_metrics(PG_FUNCTION_ARGS)
{
	Output		output;

	begin_output(fcinfo, &output, 0);
	tell_all(fcinfo->flinfo->fn_oid, put_sample, &output);
	return (Datum) 0;
}

/*
 * cascade_openmetrics() returns the samples as lines of Prometheus's text
 * format.
 */
Datum
cascade_openmetrics(PG_FUNCTION_ARGS)
{
	Output		output;

	begin_output(fcinfo, &output, MAT_SRF_USE_EXPECTED_DESC);
	tell_all(fcinfo->flinfo->fn_oid, put_sample_line, &output);
	return (Datum) 0;
}
