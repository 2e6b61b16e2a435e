/*-------------------------------------------------------------------------
 *
 * metrics.c
 *	  What this node tells a monitor, as a pure decision.
 *
 * Owns, leaves out and locks: see metrics.h.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Seconds from 1970, which monitors count from, to 2000. */
#define EPOCH_SECONDS	946684800.0

/* In the order in which they are told, so that all samples of one are together. */
typedef enum Metric
{
	M_UP,
	M_NODE_INFO,
	M_PROTECTED,
	M_UPSTREAM_CONNECTED,
	M_WAL_POSITION,
	M_FRONTIER_POSITION,
	M_RETAINED,
	M_PINNED,
	M_SAFE_WAL,
	M_LAST_REPORT,
	M_REPORTS_SENT,
	M_REPORTS_FAILED,
	M_REPORTS_RECEIVED,
	M_MEMBER_UP,
	M_MEMBER_PROTECTED,
	M_MEMBER_AGE,
	M_EDGE_LAG_BYTES,
	M_EDGE_LAG_SECONDS,
	M_FINDING
} Metric;

static const CrelayMetric metrics[] = {
	[M_UP] = {"cascade_up", "gauge",
	"1 if the worker of cascade_relay runs on this node, else 0."},
	[M_NODE_INFO] = {"cascade_node_info", "gauge",
	"1, with the role, the state and the upstream of this node as labels."},
	[M_PROTECTED] = {"cascade_protected", "gauge",
	"1 if the root holds all WAL that this node would need there, 0 if not; absent if unknown."},
	[M_UPSTREAM_CONNECTED] = {"cascade_upstream_connected", "gauge",
	"1 if the upstream takes the reports of this node, 0 if not; absent if there is none."},
	[M_WAL_POSITION] = {"cascade_wal_position_bytes", "gauge",
	"LSN that this node has replayed, on a primary flushed, in bytes."},
	[M_FRONTIER_POSITION] = {"cascade_frontier_position_bytes", "gauge",
	"LSN from which on this node, or a node below it, needs WAL, in bytes."},
	[M_RETAINED] = {"cascade_retained_bytes", "gauge",
	"WAL that this node keeps for its downstreams: that of the one that is furthest back."},
	[M_PINNED] = {"cascade_pinned_bytes", "gauge",
	"WAL that this node keeps, by the node below that needs it."},
	[M_SAFE_WAL] = {"cascade_safe_wal_bytes", "gauge",
	"WAL that may yet be written before the nearest bound of a slot or hold is met; absent without a bound."},
	[M_LAST_REPORT] = {"cascade_last_report_timestamp_seconds", "gauge",
	"When the upstream last answered a report, in seconds since 1970."},
	[M_REPORTS_SENT] = {"cascade_reports_sent_total", "counter",
	"Reports that this node has sent."},
	[M_REPORTS_FAILED] = {"cascade_reports_failed_total", "counter",
	"Reports that were not answered, or could not be sent."},
	[M_REPORTS_RECEIVED] = {"cascade_reports_received_total", "counter",
	"Reports that this node has taken."},
	[M_MEMBER_UP] = {"cascade_member_up", "gauge",
	"Of each node below: 1 if it is seen, 0 if it is down; absent if there is no news of it."},
	[M_MEMBER_PROTECTED] = {"cascade_member_protected", "gauge",
	"Of each node below: 1 if it is protected, 0 if not; absent if unknown, or without news."},
	[M_MEMBER_AGE] = {"cascade_member_observed_age_seconds", "gauge",
	"Of each node below: age of the news of it; absent if there is none any more."},
	[M_EDGE_LAG_BYTES] = {"cascade_edge_replay_lag_bytes", "gauge",
	"Of each node that streams from here: WAL that it has not replayed, by its walsender."},
	[M_EDGE_LAG_SECONDS] = {"cascade_edge_replay_lag_seconds", "gauge",
	"Of each node that streams from here: replay_lag of its walsender; absent when idle."},
	[M_FINDING] = {"cascade_finding", "gauge",
	"Rows of cascade_check about this node and those below it: 0 ok, 1 warning, 2 critical."}
};

typedef struct Telling
{
	const CrelayMetricsFacts *facts;
	CrelayMetricsSink sink;
	void	   *sink_arg;
} Telling;

/* ---- one sample ---- */

static CrelaySample
sample_of(const Telling *telling, Metric metric, double value)
{
	CrelaySample sample = {0};

	sample.metric = &metrics[metric];
	sample.labels[CRELAY_LABEL_NODE] = telling->facts->name;
	sample.value = value;
	return sample;
}

static void
tell(const Telling *telling, Metric metric, double value)
{
	CrelaySample sample = sample_of(telling, metric, value);

	telling->sink(telling->sink_arg, &sample);
}

static void
tell_lsn(const Telling *telling, Metric metric, uint64_t lsn)
{
	if (lsn != 0)
		tell(telling, metric, (double) lsn);
}

static void
tell_truth(const Telling *telling, Metric metric, CrelayTruth truth)
{
	if (truth != CRELAY_UNKNOWN)
		tell(telling, metric, truth == CRELAY_TRUE ? 1 : 0);
}

/* ---- this node ---- */

static void
tell_self(const Telling *telling)
{
	const CrelayMetricsFacts *facts = telling->facts;
	CrelaySample info = sample_of(telling, M_NODE_INFO, 1);

	info.labels[CRELAY_LABEL_ROLE] = facts->role;
	info.labels[CRELAY_LABEL_STATE] = facts->state;
	info.labels[CRELAY_LABEL_UPSTREAM] = facts->upstream;
	telling->sink(telling->sink_arg, &info);
	if (facts->up)
		tell_truth(telling, M_PROTECTED, facts->protected);
	if (facts->has_upstream)
		tell(telling, M_UPSTREAM_CONNECTED, facts->connected ? 1 : 0);
	tell_lsn(telling, M_WAL_POSITION, facts->applied_lsn);
	tell_lsn(telling, M_FRONTIER_POSITION, facts->frontier_lsn);
}

static void
tell_reports(const Telling *telling)
{
	const CrelayMetricsFacts *facts = telling->facts;

	if (facts->last_report_time != 0)
		tell(telling, M_LAST_REPORT, (double) facts->last_report_time / 1000000 + EPOCH_SECONDS);
	tell(telling, M_REPORTS_SENT, (double) facts->reports_sent);
	tell(telling, M_REPORTS_FAILED, (double) facts->reports_failed);
	tell(telling, M_REPORTS_RECEIVED, (double) facts->reports_received);
}

/* ---- what it keeps, and for which node ---- */

static uint64_t
kept(const CrelayMetricsFacts *facts, const CrelayDownstream *d)
{
	bool		keeps = d->counted && d->slot_name[0] != '\0' && d->restart_lsn != 0 && !d->invalidated;

	return keeps && facts->own_lsn > d->restart_lsn ? facts->own_lsn - d->restart_lsn : 0;
}

static int
compare_pins(const void *a, const void *b)
{
	return strcmp(((const CrelayMetricsEdge *) a)->downstream->pin.by,
				  ((const CrelayMetricsEdge *) b)->downstream->pin.by);
}

static void
tell_pins(const Telling *telling)
{
	const CrelayMetricsFacts *facts = telling->facts;
	int			end;

	for (int i = 0; i < facts->nedges; i = end)
	{
		const char *name = facts->edges[i].downstream->pin.by;
		CrelaySample sample = sample_of(telling, M_PINNED, 0);
		bool		counted = false;

		for (end = i; end < facts->nedges &&
			 strcmp(facts->edges[end].downstream->pin.by, name) == 0; end++)
		{
			double		bytes = (double) kept(facts, facts->edges[end].downstream);

			counted |= facts->edges[end].downstream->counted;
			if (bytes > sample.value)
				sample.value = bytes;
		}
		sample.labels[CRELAY_LABEL_PINNED_BY] = name;
		if (counted && name[0] != '\0')
			telling->sink(telling->sink_arg, &sample);
	}
}

static void
tell_kept(const Telling *telling)
{
	const CrelayMetricsFacts *facts = telling->facts;
	uint64_t	most = 0;
	int64_t		least = -1;

	for (int i = 0; i < facts->nedges; i++)
	{
		const CrelayMetricsEdge *edge = &facts->edges[i];
		uint64_t	bytes = kept(facts, edge->downstream);

		if (bytes > most)
			most = bytes;
		if (edge->downstream->counted && edge->safe_bytes >= 0 &&
			(least < 0 || edge->safe_bytes < least))
			least = edge->safe_bytes;
	}
	tell(telling, M_RETAINED, (double) most);
	qsort(facts->edges, (size_t) facts->nedges, sizeof(*facts->edges), compare_pins);
	tell_pins(telling);
	if (least >= 0)
		tell(telling, M_SAFE_WAL, (double) least);
}

/* ---- the nodes below ---- */

/*
 * Whether there is news of a node at all.
 */
static bool
is_heard_of(const CrelayMetricsMember *member)
{
	return member->state != CRELAY_STATE_STALE && member->state != CRELAY_STATE_UNKNOWN;
}

/*
 * By name and upstream; of the lives of one node the one that is up first.
 */
static int
compare_members(const void *a, const void *b)
{
	const CrelayMetricsMember *first = a;
	const CrelayMetricsMember *second = b;
	int			c = strcmp(first->node->name, second->node->name);

	if (c == 0)
		c = strcmp(first->upstream ? first->upstream : "", second->upstream ? second->upstream : "");
	if (c == 0)
		c = (int) second->node->managed - (int) first->node->managed;
	if (c == 0)
		c = (int) is_heard_of(second) - (int) is_heard_of(first);
	if (c == 0)
		c = (first->state == CRELAY_STATE_DOWN) - (second->state == CRELAY_STATE_DOWN);
	return c;
}

static bool
is_same_member(const CrelayMetricsMember *a, const CrelayMetricsMember *b)
{
	return strcmp(a->node->name, b->node->name) == 0 && a->node->managed == b->node->managed &&
		strcmp(a->upstream ? a->upstream : "", b->upstream ? b->upstream : "") == 0;
}

/*
 * One metric of each node below that there is news of.
 */
static void
tell_members(const Telling *telling, Metric metric)
{
	const CrelayMetricsFacts *facts = telling->facts;

	for (int i = 0; i < facts->nmembers; i++)
	{
		const CrelayMetricsMember *member = &facts->members[i];
		const CrelayNode *node = member->node;
		CrelaySample sample = sample_of(telling, metric, 0);

		if (!is_heard_of(member) || (i > 0 && is_same_member(member - 1, member)))
			continue;
		sample.labels[CRELAY_LABEL_MEMBER] = node->name;
		sample.labels[CRELAY_LABEL_KIND] = node->managed ? "managed" : "unmanaged";
		sample.labels[CRELAY_LABEL_UPSTREAM] = member->upstream;
		if (metric == M_MEMBER_UP)
			sample.value = member->state != CRELAY_STATE_DOWN ? 1 : 0;
		else if (metric == M_MEMBER_PROTECTED)
			sample.value = node->protected == CRELAY_TRUE ? 1 : 0;
		else
			sample.value = facts->now > node->observed_at ?
				(double) (facts->now - node->observed_at) / 1000000 : 0;
		if ((metric == M_MEMBER_PROTECTED && node->protected == CRELAY_UNKNOWN) ||
			(metric == M_MEMBER_AGE && node->observed_at == 0))
			continue;
		telling->sink(telling->sink_arg, &sample);
	}
}

/* ---- the walsenders ---- */

/*
 * By name; of a node with two the one that sends, and has sent most, first.
 */
static int
compare_edges(const void *a, const void *b)
{
	const CrelayDownstream *first = ((const CrelayMetricsEdge *) a)->downstream;
	const CrelayDownstream *second = ((const CrelayMetricsEdge *) b)->downstream;
	int			c = strcmp(first->name, second->name);

	if (c == 0)
		c = (second->pid != 0) - (first->pid != 0);
	if (c == 0)
		c = (second->replay_lsn > first->replay_lsn) - (second->replay_lsn < first->replay_lsn);
	return c;
}

static void
tell_edges(const Telling *telling, Metric metric)
{
	const CrelayMetricsFacts *facts = telling->facts;
	const char *last = NULL;

	for (int i = 0; i < facts->nedges; i++)
	{
		const CrelayDownstream *d = facts->edges[i].downstream;
		CrelaySample sample = sample_of(telling, metric, 0);

		if (d->pid == 0 || d->logical || d->backup || d->replay_lsn == 0 ||
			(last != NULL && strcmp(last, d->name) == 0))
			continue;
		last = d->name;
		sample.labels[CRELAY_LABEL_MEMBER] = d->name;
		if (metric == M_EDGE_LAG_BYTES && facts->own_lsn != 0)
			sample.value = facts->own_lsn > d->replay_lsn ? (double) (facts->own_lsn - d->replay_lsn) : 0;
		else if (metric == M_EDGE_LAG_SECONDS && d->replay_lag >= 0)
			sample.value = (double) d->replay_lag / 1000000;
		else
			continue;
		telling->sink(telling->sink_arg, &sample);
	}
}

/* ---- the findings ---- */

static int
compare_findings(const void *a, const void *b)
{
	const CrelayMetricsFinding *first = a;
	const CrelayMetricsFinding *second = b;
	int			c = strcmp(first->code, second->code);

	if (c == 0)
		c = strcmp(first->member, second->member);
	return c != 0 ? c : second->level - first->level;
}

/*
 * One sample of each code and node, the worst.
 */
static void
tell_findings(const Telling *telling)
{
	const CrelayMetricsFacts *facts = telling->facts;

	for (int i = 0; i < facts->nfindings; i++)
	{
		const CrelayMetricsFinding *finding = &facts->findings[i];
		CrelaySample sample = sample_of(telling, M_FINDING, finding->level);

		if (i > 0 && strcmp(finding[-1].code, finding->code) == 0 &&
			strcmp(finding[-1].member, finding->member) == 0)
			continue;
		sample.labels[CRELAY_LABEL_CODE] = finding->code;
		sample.labels[CRELAY_LABEL_MEMBER] = finding->member;
		sample.labels[CRELAY_LABEL_SEVERITY] = finding->severity;
		telling->sink(telling->sink_arg, &sample);
	}
}

/*
 * Hands every sample to the sink.  A sample is good until the sink returns.
 */
void
crelay_metrics_run(CrelayMetricsFacts *facts, CrelayMetricsSink sink, void *sink_arg)
{
	Telling		telling = {facts, sink, sink_arg};

	tell(&telling, M_UP, facts->up ? 1 : 0);
	if (!facts->loaded)
		return;
	tell_self(&telling);
	tell_kept(&telling);
	tell_reports(&telling);
	qsort(facts->members, (size_t) facts->nmembers, sizeof(*facts->members), compare_members);
	tell_members(&telling, M_MEMBER_UP);
	tell_members(&telling, M_MEMBER_PROTECTED);
	tell_members(&telling, M_MEMBER_AGE);
	qsort(facts->edges, (size_t) facts->nedges, sizeof(*facts->edges), compare_edges);
	tell_edges(&telling, M_EDGE_LAG_BYTES);
	tell_edges(&telling, M_EDGE_LAG_SECONDS);
	qsort(facts->findings, (size_t) facts->nfindings, sizeof(*facts->findings), compare_findings);
	tell_findings(&telling);
}

/* ---- the text format ---- */

const char *
crelay_label_text(CrelayLabel label)
{
	switch (label)
	{
		case CRELAY_LABEL_NODE:
			return "node";
		case CRELAY_LABEL_MEMBER:
			return "member";
		case CRELAY_LABEL_KIND:
			return "kind";
		case CRELAY_LABEL_PINNED_BY:
			return "pinned_by";
		case CRELAY_LABEL_UPSTREAM:
			return "upstream";
		case CRELAY_LABEL_ROLE:
			return "role";
		case CRELAY_LABEL_STATE:
			return "state";
		case CRELAY_LABEL_CODE:
			return "code";
		case CRELAY_LABEL_SEVERITY:
			return "severity";
	}
	return NULL;
}

/*
 * In a label's value a backslash, a quote and a line feed are escaped.
 */
static size_t
format_label(char *line, size_t size, size_t at, const char *name, const char *value)
{
	at += (size_t) snprintf(line + at, size - at, "%s=\"", name);
	for (const char *p = value; *p != '\0' && at + 4 < size; p++)
	{
		if (*p == '\\' || *p == '"' || *p == '\n')
			line[at++] = '\\';
		line[at++] = *p == '\n' ? 'n' : *p;
	}
	line[at++] = '"';
	line[at] = '\0';
	return at;
}

/*
 * The line of a sample; there must be room for CRELAY_METRICS_LINE bytes.
 */
void
crelay_metrics_format(const CrelaySample *sample, char *line, size_t size)
{
	size_t		at = (size_t) snprintf(line, size, "%s", sample->metric->name);
	char		between = '{';

	for (int i = 0; i < CRELAY_LABELS; i++)
	{
		if (sample->labels[i] == NULL || sample->labels[i][0] == '\0')
			continue;
		line[at++] = between;
		at = format_label(line, size, at, crelay_label_text((CrelayLabel) i), sample->labels[i]);
		between = ',';
	}
	snprintf(line + at, size - at, "%s %.16g", between == ',' ? "}" : "", sample->value);
}
