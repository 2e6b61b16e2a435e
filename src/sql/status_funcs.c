/*-------------------------------------------------------------------------
 *
 * status_funcs.c
 *	  cascade_status() and cascade_downstreams(): this node.
 *
 * Owns: arguments and tuples of these functions.
 *
 * Not here: how the figures come about; the same functions that the worker
 * calls compute them anew for each call.
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
#include "miscadmin.h"

#include "decide/bookmark.h"
#include "decide/frontier.h"
#include "decide/topology.h"
#include "node/bounds.h"
#include "node/downstream.h"
#include "registry/registry.h"
#include "server/compat.h"
#include "server/guc.h"
#include "sql/tuple.h"

PG_FUNCTION_INFO_V1(cascade_status);
PG_FUNCTION_INFO_V1(cascade_downstreams);

static const char *
upstream_state_text(CrelayUpstreamState state)
{
	switch (state)
	{
		case CRELAY_UPSTREAM_NONE:
			return "none";
		case CRELAY_UPSTREAM_CONNECTING:
			return "connecting";
		case CRELAY_UPSTREAM_CONNECTED:
			return "connected";
		case CRELAY_UPSTREAM_WAITING:
			return "waiting";
		case CRELAY_UPSTREAM_REFUSED:
			return "refused";
	}
	return NULL;
}

static void
put_bookmark(CrelayTuple *tuple, uint32 timeline, uint64 lsn)
{
	char		bookmark[CRELAY_BOOKMARK_LEN];

	crelay_bookmark_format(bookmark, sizeof(bookmark), timeline, lsn,
						   CRELAY_LSN_DIGITS);
	crelay_put_text(tuple, bookmark);
}

/*
 * cascade_status() returns one row: what this node knows of itself.
 */
Datum
cascade_status(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CrelayLocal *local = palloc(sizeof(CrelayLocal));
	CrelayPosition position;
	CrelaySettings settings;
	CrelayTuple tuple = {0};
	uint32		root_age;

	crelay_registry_require();
	InitMaterializedSRF(fcinfo, 0);
	crelay_registry_get_local(local);
	crelay_read_position(&position);
	crelay_guc_copy(&settings);

	root_age = crelay_local_root_age_ms(local);
	crelay_put_text(&tuple, settings.node_name);
	crelay_put_incarnation(&tuple, local->node.incarnation);
	crelay_put_text(&tuple, position.in_recovery ? "standby" : "primary");
	crelay_put_int(&tuple, (int32) position.timeline, position.timeline != 0);
	crelay_put_lsn(&tuple, position.applied_lsn);
	crelay_put_lsn(&tuple, local->node.frontier_lsn);
	put_bookmark(&tuple, local->node.timeline, local->node.frontier_lsn);
	crelay_put_pin(&tuple, &local->node.pin);
	crelay_put_lsn(&tuple, local->hold_target_lsn);
	crelay_put_text(&tuple, local->upstream_name);
	crelay_put_text(&tuple, upstream_state_text(local->upstream_state));
	crelay_put_lsn(&tuple, local->upstream_held_lsn);
	crelay_put_truth(&tuple, local->ready &&
					 (!position.in_recovery ||
					  crelay_local_knows_root(local, settings.stale_timeout_ms)) ?
					 local->node.protected : CRELAY_UNKNOWN);
	crelay_put_time(&tuple, local->last_report_time);
	crelay_put_bigint(&tuple, (int64) local->reports_sent, true);
	crelay_put_bigint(&tuple, (int64) local->reports_failed, true);
	crelay_put_bigint(&tuple, (int64) local->reports_received, true);
	crelay_put_text(&tuple, local->last_error);
	crelay_put_time(&tuple, local->last_error_time);
	crelay_put_int(&tuple, local->worker_pid, local->worker_pid != 0);
	crelay_put_text(&tuple, crelay_message_software());
	crelay_put_interval(&tuple, root_age == CRELAY_AGE_UNKNOWN ? -1 : (int64) root_age * 1000);
	crelay_tuple_store(&tuple, rsinfo);
	return (Datum) 0;
}

static const char *
kind_text(CrelayDownstreamKind kind)
{
	switch (kind)
	{
		case CRELAY_KIND_SLOT:
			return "slot";
		case CRELAY_KIND_WALSENDER:
			return "walsender";
		case CRELAY_KIND_HOLD:
			return "hold";
	}
	return NULL;
}

/*
 * The server's own verdict on a slot's WAL, in its own words.
 */
static const char *
wal_status_text(const CrelayDownstream *d)
{
	if (d->invalidated)
		return "lost";
	switch (GetWALAvailability(d->restart_lsn))
	{
		case WALAVAIL_INVALID_LSN:
			return NULL;
		case WALAVAIL_RESERVED:
			return "reserved";
		case WALAVAIL_EXTENDED:
			return "extended";
		case WALAVAIL_UNRESERVED:
			return "unreserved";
		case WALAVAIL_REMOVED:
			return "lost";
	}
	return NULL;
}

/*
 * How much WAL is here because of a downstream.  What keeps none is known to
 * keep none: in descending order it comes last.
 */
static void
put_retained(CrelayTuple *tuple, const CrelayDownstream *d, uint64 own_lsn)
{
	bool		keeps = d->slot_name[0] != '\0' && d->restart_lsn != 0 && !d->invalidated;

	crelay_put_bigint(tuple, keeps && own_lsn > d->restart_lsn ?
					  (int64) (own_lsn - d->restart_lsn) : 0, own_lsn != 0);
}

static void
fill_downstream(CrelayTuple *tuple, const CrelayDownstream *d,
				const CrelaySettings *settings, uint64 own_lsn)
{
	bool		is_slot = d->slot_name[0] != '\0';
	int64		safe = crelay_bounds_safe_size(d, settings, own_lsn);

	crelay_put_text(tuple, d->name);
	crelay_put_text(tuple, kind_text(d->kind));
	crelay_put_text(tuple, d->slot_name);
	crelay_put_bool(tuple, d->pid != 0);
	crelay_put_int(tuple, d->pid, d->pid != 0);
	crelay_put_text(tuple, crelay_state_text(d->state));
	crelay_put_lsn(tuple, d->sent_lsn);
	crelay_put_lsn(tuple, d->restart_lsn);
	put_retained(tuple, d, own_lsn);
	crelay_put_text(tuple, is_slot ? wal_status_text(d) : NULL);
	crelay_put_bigint(tuple, safe, safe != PG_INT64_MAX);
	crelay_put_pin(tuple, &d->pin);
	crelay_put_bool(tuple, d->counted);
	crelay_put_text(tuple, crelay_reason_text(d->reason));
	crelay_put_time(tuple, d->last_report_time);
	crelay_put_lsn(tuple, d->pid != 0 ? d->replay_lsn : 0);
	crelay_put_interval(tuple, d->pid != 0 ? d->replay_lag : -1);
}

/*
 * cascade_downstreams() returns one row for each slot and slotless walsender,
 * and for each managed child without a hold.
 */
Datum
cascade_downstreams(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CrelaySnapshot snapshot;
	CrelayDownstream *downstreams;
	CrelayFrontier frontier;
	CrelayPosition position;
	CrelaySettings settings;
	CrelayOwn	own;
	int			n;

	crelay_registry_require();
	InitMaterializedSRF(fcinfo, 0);
	crelay_guc_copy(&settings);
	crelay_registry_snapshot(&snapshot, false);
	downstreams = crelay_downstream_collect(&snapshot, true, &n);
	crelay_read_position(&position);
	own.name = settings.node_name;
	own.applied_lsn = position.applied_lsn;
	own.restart_redo = position.restart_redo;
	own.segment_size = wal_segment_size;
	crelay_frontier_compute(&own, downstreams, n, &frontier);

	for (int i = 0; i < n; i++)
	{
		CrelayTuple tuple = {0};

		fill_downstream(&tuple, &downstreams[i], &settings, position.flush_lsn);
		crelay_tuple_store(&tuple, rsinfo);
	}
	return (Datum) 0;
}
