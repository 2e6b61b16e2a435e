/*-------------------------------------------------------------------------
 *
 * metrics.h
 *	  What this node tells a monitor, as a pure decision.
 *
 * Owns: the metrics with their types and their help, which samples there are,
 * and the text format of Prometheus.
 *
 * Not here: where the figures come from (metrics_funcs.c).  A figure that
 * is unknown has no sample: a 0 would be a claim.  No two samples of one call
 * have the same metric and labels, because collectors refuse that.
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_METRICS_H
#define CRELAY_METRICS_H

#include "decide/node.h"

typedef enum CrelayLabel
{
	CRELAY_LABEL_NODE = 0,
	CRELAY_LABEL_MEMBER,
	CRELAY_LABEL_KIND,
	CRELAY_LABEL_PINNED_BY,
	CRELAY_LABEL_UPSTREAM,
	CRELAY_LABEL_ROLE,
	CRELAY_LABEL_STATE,
	CRELAY_LABEL_CODE,
	CRELAY_LABEL_SEVERITY
} CrelayLabel;

#define CRELAY_LABELS	(CRELAY_LABEL_SEVERITY + 1)

typedef struct CrelayMetric
{
	const char *name;
	const char *type;			/* gauge or counter */
	const char *help;
} CrelayMetric;

typedef struct CrelaySample
{
	const CrelayMetric *metric;
	const char *labels[CRELAY_LABELS];	/* NULL: has none */
	double		value;
} CrelaySample;

/* A node below this one. */
typedef struct CrelayMetricsMember
{
	const CrelayNode *node;
	CrelayState state;			/* as it is shown */
	const char *upstream;		/* NULL unknown */
} CrelayMetricsMember;

/* A downstream, with what the pure rooms cannot find out. */
typedef struct CrelayMetricsEdge
{
	const CrelayDownstream *downstream;
	int64_t		safe_bytes;		/* until the nearest bound, -1 none */
} CrelayMetricsEdge;

/* A row of cascade_check about this node, or about one below. */
typedef struct CrelayMetricsFinding
{
	const char *code;
	const char *severity;
	const char *member;
	int			level;
} CrelayMetricsFinding;

typedef struct CrelayMetricsFacts
{
	const char *name;			/* of this node; "" unknown */
	bool		up;				/* its worker runs, and has looked around */
	bool		loaded;			/* the library is preloaded: else all below is
								 * unknown */
	int64_t		now;
	const char *role;
	const char *state;			/* NULL unknown */
	const char *upstream;		/* NULL none, or unknown */
	bool		has_upstream;	/* it reports, or tries to */
	bool		connected;
	CrelayTruth protected;
	uint64_t	applied_lsn;
	uint64_t	own_lsn;		/* the end of its WAL */
	uint64_t	frontier_lsn;
	int64_t		last_report_time;	/* 0 never */
	uint64_t	reports_sent;
	uint64_t	reports_failed;
	uint64_t	reports_received;

	/* these are sorted in place */
	int			nmembers;
	CrelayMetricsMember *members;
	int			nedges;
	CrelayMetricsEdge *edges;
	int			nfindings;
	CrelayMetricsFinding *findings;
} CrelayMetricsFacts;

typedef void (*CrelayMetricsSink) (void *arg, const CrelaySample *sample);

/* Room for any line of the text format. */
#define CRELAY_METRICS_LINE		2400

extern void crelay_metrics_run(CrelayMetricsFacts *facts, CrelayMetricsSink sink, void *sink_arg);
extern const char *crelay_label_text(CrelayLabel label);
extern void crelay_metrics_format(const CrelaySample *sample, char *line, size_t size);

#endif							/* CRELAY_METRICS_H */
