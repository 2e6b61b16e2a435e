/*-------------------------------------------------------------------------
 *
 * local_hold.c
 *	  The hold that a failover candidate keeps on itself for the whole tree.
 *
 * Owns, leaves out and locks: see local_hold.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"

#include "decide/topology.h"
#include "node/hold.h"
#include "node/tree.h"
#include "server/compat.h"
#include "worker/awaited.h"
#include "worker/local_hold.h"

/*
 * How often a hold that does not move is touched: later versions drop slots
 * that nobody has acquired for long.  How often one that stands too high is
 * tried again.  And how often a new primary looks whether all are back.
 */
#define TOUCH_US		INT64CONST(10000000)
#define RETRY_US		INT64CONST(1000000)
#define REUNION_US		INT64CONST(1000000)

/* The most that one pass adds to a time: a clock that steps is no time. */
#define PASS_MAX_US		INT64CONST(2000000)

/* Times are summed from pass to pass, so they begin anew with the worker. */
static TimestampTz last_pass;
static TimestampTz touched_at;
static TimestampTz looked_at;
static int64 unheard_us;		/* since the root was heard last */
static int64 cascades_us;		/* since the upstream is a standby */
static int64 waited_us;
static int64 path_us;
static uint32 path_root;
static CrelayRefusal logged_reason;

static void
hold_name(const CrelayLocal *local, char *name)
{
	snprintf(name, CRELAY_SLOT_LEN, "%s%s_%08x", CRELAY_HOLD_PREFIX,
			 local->node.name, local->node.incarnation);
}

static const CrelayDownstream *
find_own(const CrelayDownstream *downstreams, int n)
{
	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];

		if (d->own && !d->former && d->slot_name[0] != '\0' && d->restart_lsn != 0 &&
			!d->invalidated)
			return d;
	}
	return NULL;
}

static bool
in_same_segment(uint64 a, uint64 b)
{
	return a / wal_segment_size == b / wal_segment_size;
}

/*
 * Whether there is nothing to do about a hold that was looked at a while ago.
 */
static bool
may_rest(const CrelayDownstream *downstreams, int n, const char *name, uint64 target,
		 int64 rested)
{
	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];

		if (strcmp(d->slot_name, name) != 0)
			continue;
		if (in_same_segment(d->restart_lsn, target))
			return rested >= 0 && rested < TOUCH_US;
		return d->restart_lsn > target && rested >= 0 && rested < RETRY_US;
	}
	return false;
}

/*
 * What cannot be dropped stays, and the next pass tries again; that is logged once,
 * until one can.
 */
static void
drop(const char *slot_name, const char *why)
{
	static bool failed;
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		if (crelay_hold_drop(slot_name))
		{
			failed = false;
			ereport(LOG,
					(errmsg("cascade_relay: dropped hold \"%s\", because %s",
							slot_name, why)));
		}
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (!failed)
			EmitErrorReport();
		failed = true;
		FlushErrorState();
	}
	PG_END_TRY();
}

static void
drop_own(const CrelayDownstream *downstreams, int n, const char *why)
{
	for (int i = 0; i < n; i++)
	{
		if (downstreams[i].own && !downstreams[i].former && downstreams[i].slot_name[0] != '\0')
			drop(downstreams[i].slot_name, why);
	}
}

/* ---- on a standby ---- */

static void
log_placed(const char *slot_name, const CrelayHoldResult *result)
{
	if (result->created)
		ereport(LOG,
				(errmsg("cascade_relay: placed hold \"%s\" at " CRELAY_LSN_FORMAT ", for when this node is promoted",
						slot_name, LSN_FORMAT_ARGS(result->held_lsn))));
	if (result->reason == CRELAY_HELD_NO_FREE_SLOT && logged_reason != result->reason)
		ereport(LOG,
				(errmsg("cascade_relay: there is no replication slot to spare for hold \"%s\"",
						slot_name),
				 errdetail("If this node is promoted, nodes that lag may not find their WAL here."),
				 errhint("Raise \"%s\" and restart this server; the last free slot is left for a replacement standby.",
						 "max_replication_slots")));
	if (result->reason == CRELAY_HELD_WAL_LEVEL && logged_reason != result->reason)
		ereport(LOG,
				(errmsg("cascade_relay: \"%s\" is too low for hold \"%s\"", "wal_level", slot_name),
				 errdetail("If this node is promoted, nodes that lag may not find their WAL here."),
				 errhint("Set it to \"%s\" and restart this server.", "replica")));
	if (result->reason == CRELAY_HELD_KEEP_SIZE && logged_reason != result->reason)
		ereport(LOG,
				(errmsg("cascade_relay: \"%s\" is too low for hold \"%s\"",
						"max_slot_wal_keep_size", slot_name),
				 errdetail("If this node is promoted, nodes that lag may not find their WAL here."),
				 errhint("Set it to several WAL segments at least, or to -1, and reload.")));
	logged_reason = result->reason;
}

/*
 * Brings the local hold to where the tree needs it, under the rules for every
 * hold: placed where the server reserves WAL, back only under cover.  An error is
 * logged once, until it goes well again.
 */
static void
keep(const CrelayPosition *position, const CrelayBounds *bounds,
	 const CrelayDownstream *downstreams, int n, TimestampTz now,
	 const CrelayLocal *local)
{
	static bool failed;
	CrelayHoldRequest request = {0};
	CrelayHoldResult result;
	char		name[CRELAY_SLOT_LEN];
	char		cover[CRELAY_SLOT_LEN];
	int64		rested = now - touched_at;

	hold_name(local, name);
	request.slot_name = name;
	request.create = true;
	request.impossible = !bounds->can_hold;
	request.target = Max(local->tree_hold_lsn, bounds->floor_lsn);
	if (failed ? rested >= 0 && rested < RETRY_US :
		may_rest(downstreams, n, name, request.target, rested))
		return;
	request.cover_lsn = crelay_registry_lowest_cover(crelay_hold_redo(), name, cover);
	if (request.cover_lsn != 0)
		request.cover = cover;
	touched_at = now;
	request.quiet = failed;
	failed = !crelay_hold_try(&request, position, &result);
	if (!failed)
		log_placed(name, &result);
}

/*
 * Why a standby gives its local hold up, NULL if it does not.  A node that is
 * not synchronous for a while, as when synchronous_standby_names is rewritten,
 * keeps it.
 */
static const char *
reason_to_drop(const CrelaySettings *settings, int64 passed, const CrelayLocal *local)
{
	bool		heard = local->upstream_state == CRELAY_UPSTREAM_CONNECTED &&
	local->root_known;

	unheard_us = heard ? 0 : unheard_us + passed;
	cascades_us = heard && local->nhops > 1 ? cascades_us + passed : heard ? 0 : cascades_us;
	if (settings->replica_class == CRELAY_CLASS_SETTING_READ_REPLICA)
		return "\"cascade_relay.replica_class\" is \"read_replica\"";
	if (cascades_us > (int64) settings->stale_timeout_ms * 1000 * CRELAY_LONG_TIMEOUTS)
		return "this node streams from a standby";
	if (settings->hold_timeout_s > 0 &&
		unheard_us >= (int64) settings->hold_timeout_s * 1000000)
		return "the root was not heard for \"cascade_relay.hold_timeout\"";
	return NULL;
}

static void
run_standby(const CrelaySettings *settings, const CrelayPosition *position,
			const CrelayBounds *bounds, const CrelayDownstream *downstreams, int n,
			int64 passed, TimestampTz now, CrelayLocal *local)
{
	const CrelayDownstream *own = find_own(downstreams, n);
	const char *reason = reason_to_drop(settings, passed, local);

	waited_us = 0;
	if (reason != NULL)
		drop_own(downstreams, n, reason);
	else if (local->tree_hold_lsn != 0 &&
			 (own != NULL || crelay_class_votes(local->node.replica_class)))
		keep(position, bounds, downstreams, n, now, local);
	if (own == NULL || reason != NULL || local->tree_hold_lsn == 0 ||
		own->restart_lsn / wal_segment_size <= local->tree_hold_lsn / wal_segment_size)
		local->local_hold_high_since = 0;
	else if (local->local_hold_high_since == 0)
		local->local_hold_high_since = now;
}

/* ---- on a primary ---- */

static void
run_primary(const CrelaySettings *settings, const CrelayDownstream *downstreams,
			int n, int64 passed, TimestampTz now, CrelayLocal *local)
{
	const CrelayDownstream *own = find_own(downstreams, n);
	CrelayAwaited awaited;
	CrelayTree *tree;

	local->local_hold_high_since = 0;
	/* those who are not back yet need what it keeps for them, of others too */
	local->tree_hold_lsn = local->hold_target_lsn;
	if (own == NULL)
	{
		crelay_awaited_drop();
		return;
	}
	waited_us += passed;
	if (own->restart_lsn < local->tree_hold_lsn)
		local->tree_hold_lsn = own->restart_lsn;
	if (now >= looked_at && now - looked_at < REUNION_US)
		return;
	looked_at = now;
	tree = crelay_tree_read();
	crelay_awaited_keep(tree);
	crelay_awaited_find(tree, &awaited);
	if (settings->hold_timeout_s > 0 &&
		waited_us >= (int64) settings->hold_timeout_s * 1000000)
		drop_own(downstreams, n,
				 "\"cascade_relay.hold_timeout\" has passed since this node was promoted");
	else if (awaited.known && awaited.n == 0)
		drop_own(downstreams, n,
				 "every node that was known before the promotion is protected here");
}

/* ---- nodes that this one streams from now ---- */

/*
 * After a switchover the old primary has a hold for the node that it streams
 * from.  Nothing asks for it any more.  A path that has led to a root for a
 * while is none that is on its way to a cycle.
 */
static void
drop_ancestors(const CrelaySettings *settings, const CrelayDownstream *downstreams,
			   int n, int64 passed, const CrelayLocal *local)
{
	uint32		root = 0;

	if (local->root_known && !local->in_cycle && local->nhops > 0 &&
		local->node.role == CRELAY_ROLE_STANDBY &&
		local->upstream_state == CRELAY_UPSTREAM_CONNECTED)
		root = local->hops[0].incarnation;
	path_us = root != 0 && root == path_root ? path_us + passed : 0;
	path_root = root;
	if (path_us <= (int64) settings->stale_timeout_ms * 1000)
		return;
	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];

		if (d->kind == CRELAY_KIND_HOLD && d->ancestor && !d->own &&
			d->slot_name[0] != '\0' && d->pid == 0)
			drop(d->slot_name, "this node streams from its node now");
	}
}

/*
 * One pass, after this node's own figures were computed.  Errors with a slot
 * are logged, and keep nothing else from being done.
 */
void
crelay_local_hold_run(const CrelaySettings *settings, const CrelayPosition *position,
					  const CrelayBounds *bounds,
					  const CrelayDownstream *downstreams, int n,
					  TimestampTz now, CrelayLocal *local)
{
	int64		passed = last_pass != 0 ? now - last_pass : 0;

	passed = Max(0, Min(passed, PASS_MAX_US));
	last_pass = now;
	if (!settings->enabled)
		return;
	if (position->in_recovery)
		run_standby(settings, position, bounds, downstreams, n, passed, now, local);
	else
		run_primary(settings, downstreams, n, passed, now, local);
	drop_ancestors(settings, downstreams, n, passed, local);
}
