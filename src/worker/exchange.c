/*-------------------------------------------------------------------------
 *
 * exchange.c
 *	  The exchange of reports and replies with the upstream.
 *
 * Owns, leaves out and locks: see exchange.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "common/pg_prng.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "decide/address.h"
#include "decide/backoff.h"
#include "decide/message.h"
#include "decide/policy.h"
#include "decide/topology.h"
#include "server/clock.h"
#include "upstream/upstream_session.h"
#include "worker/exchange.h"

/* How long any one step may take on the way to the upstream and back. */
#define STEP_DEADLINE_MS	10000

/*
 * How often a report waits for a need that came up meanwhile.  A node below
 * that changes its mind all the time must not keep the others from being heard.
 */
#define HELD_UP_MAX			20

/*
 * The tree goes along with every so many reports, if nothing changes, and at
 * least so often within stale_timeout: rows may not grow stale between.
 */
#define TREE_EVERY			5
#define TREES_UNTIL_STALE	3

typedef struct Exchange
{
	CrelayLink *link;
	uint64		fingerprint;	/* of the target in use */
	char	   *host;			/* where the walreceiver was last connected */
	int			port;
	bool		was_streaming;

	bool		established;	/* the hello was accepted */
	uint64		sequence;
	TimestampTz sent_at;
	int64		sent_clock;		/* likewise, by clock.h */
	uint64		sent_frontier_seg;
	uint64		sent_target_seg;
	int			held_up;		/* computed again so often, in a row */
	TimestampTz tree_at;
	uint64		tree_membership;
	uint64		tree_below;
	uint32		tree_timeline;

	int			failures;		/* in a row */
	TimestampTz retry_at;
	TimestampTz next;			/* when something is due */

	CrelayRefusal logged_held;	/* why the upstream holds nothing */
	CrelayPlanReason logged_breach; /* of the plan, by the way to the root */
	CrelayUpstreamState logged_state;
	char		logged_error[CRELAY_LAST_ERROR_LEN];
} Exchange;

static Exchange ex;
static MemoryContext exchange_context;

void
crelay_exchange_start(MemoryContext context)
{
	memset(&ex, 0, sizeof(ex));
	exchange_context = context;
	ex.link = crelay_link_create(context);
}

/*
 * After an error somewhere in a pass: the connection may be in any state, and
 * nothing is reported until a pass gets to the end.
 */
void
crelay_exchange_abort(CrelayLocal *local, const char *error)
{
	crelay_link_close(ex.link);
	ex.established = false;
	if (local->upstream_state == CRELAY_UPSTREAM_CONNECTING ||
		local->upstream_state == CRELAY_UPSTREAM_CONNECTED)
		local->upstream_state = CRELAY_UPSTREAM_WAITING;
	strlcpy(local->last_error, error, sizeof(local->last_error));
	local->last_error_time = GetCurrentTimestamp();
}

CrelayLink *
crelay_exchange_link(void)
{
	return ex.link;
}

/*
 * When the next run is due; 0 if nothing is.
 */
TimestampTz
crelay_exchange_next(void)
{
	TimestampTz deadline = crelay_link_deadline(ex.link);

	if (deadline != 0 && (ex.next == 0 || deadline < ex.next))
		return deadline;
	return ex.next;
}

/* ---- what is shown and logged ---- */

/*
 * One line in the log for each change, however often the same thing happens.
 */
static void
log_change(const CrelayLocal *local, const char *error, const char *hint)
{
	bool		bad = local->upstream_state == CRELAY_UPSTREAM_WAITING ||
	local->upstream_state == CRELAY_UPSTREAM_REFUSED;

	/* on the way there and back again there is nothing to say */
	if (local->upstream_state == CRELAY_UPSTREAM_CONNECTING)
		return;
	if (local->upstream_state == ex.logged_state &&
		(!bad || strcmp(ex.logged_error, error) == 0))
		return;
	ex.logged_state = local->upstream_state;
	strlcpy(ex.logged_error, error, sizeof(ex.logged_error));

	switch (local->upstream_state)
	{
		case CRELAY_UPSTREAM_NONE:
			break;
		case CRELAY_UPSTREAM_CONNECTING:
			break;
		case CRELAY_UPSTREAM_CONNECTED:
			ereport(LOG,
					(errmsg("cascade_relay: reporting to upstream \"%s\"",
							local->upstream_name)));
			break;
		case CRELAY_UPSTREAM_WAITING:
			ereport(LOG,
					(errmsg("cascade_relay: cannot report to the upstream: %s", error),
					 hint[0] ? errhint("%s", hint) : 0));
			break;
		case CRELAY_UPSTREAM_REFUSED:
			ereport(LOG,
					(errmsg("cascade_relay: the upstream refused to take reports: %s", error),
					 hint[0] ? errhint("%s", hint) : 0));
			break;
	}
}

static double
chance(void)
{
	return pg_prng_double(&pg_global_prng_state);
}

static void
note_failure(CrelayLocal *local, CrelayUpstreamState state, const char *error,
			 const char *hint, TimestampTz now)
{
	crelay_link_close(ex.link);
	ex.established = false;
	ex.failures++;
	ex.retry_at = now + crelay_backoff_us(ex.failures, chance());

	local->upstream_state = state;
	local->upstream_lacks_extension = false;
	local->upstream_refusal = CRELAY_REFUSE_NONE;
	local->node.warnings &= ~(CRELAY_WARN_UPSTREAM_REFUSED | CRELAY_WARN_DUPLICATE_NAME);
	if (state == CRELAY_UPSTREAM_REFUSED)
		local->node.warnings |= CRELAY_WARN_UPSTREAM_REFUSED;
	local->reports_failed++;
	if (hint[0] != '\0')
		snprintf(local->last_error, sizeof(local->last_error), "%s HINT: %s", error, hint);
	else
		strlcpy(local->last_error, error, sizeof(local->last_error));
	local->last_error_time = now;
	log_change(local, error, hint);
}

/*
 * One line when this node begins to stream from where it should not.  Nothing
 * changes while the way to the root is not known.
 */
static void
log_breach(const CrelayLocal *local)
{
	const CrelayNode *node = &local->node;
	CrelayTruth cascades = CRELAY_UNKNOWN;
	CrelayPlanReason reason;

	if (local->nhops > 1)
		cascades = CRELAY_TRUE;
	else if (local->root_known)
		cascades = CRELAY_FALSE;
	reason = crelay_policy_breach(node, local->in_cycle, cascades);
	if (reason == ex.logged_breach ||
		(reason == CRELAY_PLAN_OK && cascades == CRELAY_UNKNOWN))
		return;
	ex.logged_breach = reason;
	if (reason != CRELAY_PLAN_OK)
		ereport(WARNING,
				(errmsg("cascade_relay: node \"%s\" should not stream from upstream \"%s\": %s",
						node->name,
						node->upstream_name[0] ? node->upstream_name : CRELAY_UNKNOWN_NODE,
						crelay_plan_reason_text(reason)),
				 errhint("%s", crelay_plan_reason_hint(reason))));
}

/* ---- connecting ---- */

/*
 * The node has no upstream, or may not talk to it.
 */
static void
stay_alone(CrelayLocal *local, const CrelaySurvey *survey)
{
	crelay_link_close(ex.link);
	ex.established = false;
	ex.failures = 0;
	ex.retry_at = 0;
	local->upstream_state = CRELAY_UPSTREAM_NONE;
	local->upstream_name[0] = '\0';
	local->upstream_incarnation = 0;
	local->upstream_held_lsn = 0;
	local->upstream_held_reason = CRELAY_REFUSE_NONE;
	local->slot_fate = CRELAY_SLOT_UNKNOWN;
	local->upstream_oldest_lsn = 0;
	local->node.warnings &= ~(CRELAY_WARN_UPSTREAM_REFUSED | CRELAY_WARN_UPSTREAM_SILENT);
	if (survey->position.in_recovery)
	{
		local->root_known = false;
		local->nhops = 0;
		local->tree_hold_lsn = 0;
	}
	log_change(local, "", "");
}

/*
 * Notes the address at which the walreceiver has reached the upstream.  A node
 * further down uses it once this node is gone, if the upstream advertises no
 * address.  The address is kept while there is no connection.
 */
static void
note_address(const CrelayReceiver *receiver, CrelayNode *node)
{
	char		address[CRELAY_ADDRESS_LEN];

	if (receiver->streaming && receiver->host[0] != '\0' &&
		crelay_target_address(PrimaryConnInfo ? PrimaryConnInfo : "", receiver->host,
							  receiver->port, address, sizeof(address)) &&
		crelay_conninfo_is_public(address))
		strlcpy(node->upstream_address, address, sizeof(node->upstream_address));
}

/*
 * Remembers where the walreceiver is connected: after it has lost the
 * connection, that is still the upstream.  When it finds one again, there is
 * no reason to wait longer.
 */
static void
follow_receiver(const CrelayReceiver *receiver, TimestampTz now)
{
	if (receiver->streaming && receiver->host[0] != '\0' &&
		(ex.host == NULL || strcmp(ex.host, receiver->host) != 0 ||
		 ex.port != receiver->port))
	{
		if (ex.host != NULL)
			pfree(ex.host);
		ex.host = MemoryContextStrdup(exchange_context, receiver->host);
		ex.port = receiver->port;
	}
	if (receiver->streaming && !ex.was_streaming)
	{
		if (ex.failures > 0)
			ex.retry_at = Min(ex.retry_at, now + crelay_backoff_soon_us(chance()));
		ex.failures = 0;
	}
	ex.was_streaming = receiver->streaming;
}

static void
make_target(const CrelaySettings *settings, CrelayTarget *target)
{
	target->host = ex.host;
	target->port = ex.port;
	target->primary_conninfo = PrimaryConnInfo ? PrimaryConnInfo : "";
	target->upstream_conninfo = settings->upstream_conninfo ? settings->upstream_conninfo : "";
}

/*
 * A changed target is left at once, and the new one tried at once.  What the
 * old one said of the way to the root is not true any more.
 */
static void
follow_target(const CrelayTarget *target, CrelayLocal *local, TimestampTz now)
{
	uint64		fingerprint = crelay_target_fingerprint(target);

	if (fingerprint == ex.fingerprint)
		return;
	ex.fingerprint = fingerprint;
	crelay_link_close(ex.link);
	ex.established = false;
	ex.failures = 0;
	ex.retry_at = now;
	local->root_known = false;
	local->nhops = 0;
	local->tree_hold_lsn = 0;
	local->upstream_held_lsn = 0;
	local->upstream_held_reason = CRELAY_REFUSE_NONE;
	local->slot_fate = CRELAY_SLOT_UNKNOWN;
	local->upstream_oldest_lsn = 0;
	local->in_cycle = false;
	local->node.warnings &= ~CRELAY_WARN_CYCLE;
	local->node.upstream_name[0] = '\0';
	local->node.upstream_incarnation = 0;
	local->node.upstream_address[0] = '\0';
	local->node.replay_lag = -1;
}

static void
open_link(const CrelayTarget *target, CrelayLocal *local, TimestampTz now)
{
	if (now < ex.retry_at)
		return;
	ex.established = false;
	if (!crelay_link_open(ex.link, target, STEP_DEADLINE_MS))
	{
		note_failure(local, CRELAY_UPSTREAM_WAITING, crelay_link_error(ex.link),
					 crelay_link_hint(ex.link), now);
		return;
	}
	if (local->upstream_state != CRELAY_UPSTREAM_REFUSED &&
		local->upstream_state != CRELAY_UPSTREAM_WAITING)
		local->upstream_state = CRELAY_UPSTREAM_CONNECTING;
}

/* ---- sending ---- */

static void
send_hello(const CrelaySettings *settings, CrelayLocal *local, TimestampTz now)
{
	CrelayHello hello = {0};
	uint8_t		buf[512];
	size_t		len;

	hello.system_identifier = local->system_identifier;
	hello.start_id = local->start_id;
	hello.incarnation = local->node.incarnation;
	hello.report_interval_ms = settings->report_interval_ms;
	strlcpy(hello.node_name, settings->node_name, sizeof(hello.node_name));
	len = crelay_message_put_hello(buf, sizeof(buf), &hello);
	ex.tree_at = 0;
	if (!crelay_link_send(ex.link, buf, len, now))
		note_failure(local, CRELAY_UPSTREAM_WAITING, crelay_link_error(ex.link),
					 crelay_link_hint(ex.link), now);
}

static void
fill_report(const CrelaySettings *settings, const CrelaySurvey *survey,
			const CrelayLocal *local, CrelayReport *report)
{
	const CrelayNode *node = &local->node;

	memset(report, 0, sizeof(CrelayReport));
	report->sequence = ++ex.sequence;
	report->report_interval_ms = settings->report_interval_ms;
	report->timeline = node->timeline;
	report->state = node->state;
	if (settings->replica_class != CRELAY_CLASS_SETTING_AUTO)
		report->replica_class = node->replica_class;
	report->protected = node->protected;
	report->hot_standby_feedback = node->hot_standby_feedback;
	report->warnings = node->warnings;
	report->feed = node->feed;
	report->pause = node->pause;
	report->apply_delay_ms = node->apply_delay_ms;
	report->backend_xmin = node->backend_xmin;
	strlcpy(report->xmin_pinned_by, node->xmin_pinned_by, sizeof(report->xmin_pinned_by));
	report->incarnation = node->incarnation;
	report->moves = node->moves;
	report->flush_lsn = node->flush_lsn;
	report->replay_lsn = node->replay_lsn;
	report->frontier_lsn = survey->frontier.frontier_lsn;
	report->hold_target_lsn = survey->frontier.hold_target_lsn;
	report->oldest_wal_lsn = node->oldest_wal_lsn;
	report->history = *crelay_read_history(node->timeline);
	report->pin = node->pin;

	if (survey->receiver.running)
		strlcpy(report->about.slot_name, survey->receiver.slot_name,
				sizeof(report->about.slot_name));
	else if (PrimarySlotName != NULL)
		strlcpy(report->about.slot_name, PrimarySlotName,
				sizeof(report->about.slot_name));
	crelay_target_application_name(PrimaryConnInfo ? PrimaryConnInfo : "",
								   report->about.application_name,
								   sizeof(report->about.application_name));
	strlcpy(report->about.location, node->location, sizeof(report->about.location));
	strlcpy(report->about.conninfo, node->conninfo, sizeof(report->about.conninfo));
	strlcpy(report->about.version, node->version, sizeof(report->about.version));
	report->about.room = node->room;
	strlcpy(report->about.upstream_address, node->upstream_address,
			sizeof(report->about.upstream_address));
	if (!crelay_link_is_local(ex.link))
	{
		crelay_address_forget_local(report->about.conninfo);
		crelay_address_forget_local(report->about.upstream_address);
	}
}

/*
 * Encodes a report, with everything that is known below this node if it is
 * time for the tree.  Returns the length, 0 if it cannot be encoded.
 */
static size_t
encode_report(CrelayReport *report, const CrelaySettings *settings,
			  TimestampTz now, uint8_t **buf)
{
	CrelaySnapshot snapshot = {0};
	CrelayCursor cur;
	size_t		size;

	if (report->has_tree)
	{
		crelay_registry_snapshot(&snapshot, true);
		crelay_topology_age(snapshot.rows, snapshot.nrows, now,
							(int64) settings->stale_timeout_ms * 1000,
							snapshot.local.node.path_interval_ms);
	}
	size = crelay_message_size_bound(snapshot.nchildren + snapshot.nrows);
	*buf = palloc(size);
	crelay_message_begin_report(&cur, *buf, size, report);
	cur.other_machine = !crelay_link_is_local(ex.link);
	for (int i = 0; report->has_tree && i < snapshot.nchildren; i++)
		crelay_message_put_row(&cur, &snapshot.children[i].node, now);
	for (int i = 0; report->has_tree && i < snapshot.nrows; i++)
	{
		if (snapshot.row_origins[i] != CRELAY_ORIGIN_UPSTREAM)
			crelay_message_put_row(&cur, &snapshot.rows[i], now);
	}
	return crelay_message_end(&cur);
}

static bool
tree_is_due(const CrelaySettings *settings, const CrelaySurvey *survey,
			const CrelayLocal *local, TimestampTz now)
{
	int64		interval = (int64) settings->report_interval_ms * 1000;
	int64		every = Min(interval * TREE_EVERY,
							(int64) settings->stale_timeout_ms * 1000 / TREES_UNTIL_STALE);

	/* where it left the old timeline travels with the tree */
	if (survey->position.timeline != ex.tree_timeline)
		return true;
	if (ex.tree_at == 0 || now - ex.tree_at >= every)
		return true;
	/* what changed, or came from below, within one interval goes together */
	return (survey->membership_seq != ex.tree_membership ||
			survey->below_seq != ex.tree_below) && now - ex.tree_at >= interval;
}

/*
 * Sends a report if it is time: at once when the segment of the frontier or of
 * the hold target has changed, else once in an interval.
 */
static void
send_report_if_due(const CrelaySettings *settings, const CrelaySurvey *survey,
				   CrelayLocal *local, TimestampTz now)
{
	uint64		frontier_seg = survey->frontier.frontier_lsn / wal_segment_size;
	uint64		target_seg = survey->frontier.hold_target_lsn / wal_segment_size;
	int64		interval = (int64) settings->report_interval_ms * 1000;
	uint64		hold_target;
	CrelayReport report;
	uint8_t    *buf;
	size_t		len;

	if (frontier_seg == ex.sent_frontier_seg && target_seg == ex.sent_target_seg &&
		now - ex.sent_at < interval)
		return;

	/* somebody below has come or fallen back meanwhile: look again first */
	hold_target = survey->frontier.hold_target_lsn;
	if (crelay_registry_publish_target(hold_target, survey->floor_seq))
		crelay_local_set_target(local, hold_target);
	else if (++ex.held_up < HELD_UP_MAX)
	{
		ex.next = now;
		return;
	}
	else
		/* asking for what was asked for before breaks no promise */
		hold_target = Min(hold_target, local->sent_target_lsn);
	ex.held_up = 0;

	fill_report(settings, survey, local, &report);
	report.hold_target_lsn = hold_target;
	report.has_tree = tree_is_due(settings, survey, local, now);
	len = encode_report(&report, settings, now, &buf);
	if (len == 0 && report.has_tree)
	{
		/* one bad row must not cost the branch its protection */
		ereport(DEBUG1,
				(errmsg_internal("cascade_relay: the tree could not be encoded")));
		report.has_tree = false;
		ex.tree_at = now;
		len = encode_report(&report, settings, now, &buf);
	}
	if (report.has_tree)
	{
		ex.tree_at = now;
		ex.tree_membership = survey->membership_seq;
		ex.tree_below = survey->below_seq;
		ex.tree_timeline = survey->position.timeline;
	}
	ex.sent_at = now;
	ex.sent_clock = crelay_clock_us();
	ex.sent_frontier_seg = frontier_seg;
	ex.sent_target_seg = target_seg;
	if (crelay_link_send(ex.link, buf, len, now))
		local->reports_sent++;
	else
		note_failure(local, CRELAY_UPSTREAM_WAITING, crelay_link_error(ex.link),
					 crelay_link_hint(ex.link), now);
	pfree(buf);
}

/* ---- replies ---- */

/*
 * Takes over the way to the root.  A path that this node is on is a cycle: it
 * leads to no root, and nobody on it may pin anybody else.
 */
static void
take_path(const CrelaySettings *settings, const CrelayReply *reply,
		  CrelayLocal *local, TimestampTz now)
{
	int			from = 0;

	for (int i = 0; i < (int) reply->nhops; i++)
	{
		if (reply->hops[i].incarnation == local->node.incarnation)
			from = i + 1;
	}
	local->in_cycle = from > 0;
	local->root_known = reply->root_known && !local->in_cycle;
	local->root_lsn = reply->root_lsn;
	/* the reply was true at some time after the report was sent */
	if (reply->root_age_ms != CRELAY_AGE_UNKNOWN)
		local->root_heard = ex.sent_clock - (int64) reply->root_age_ms * 1000;
	local->node.path_interval_ms = Min(reply->path_interval_ms, CRELAY_MAX_PATH_MS) +
		settings->report_interval_ms;
	if (reply->sync_names.known)
		local->sync_names = reply->sync_names;
	local->heard_at = now;
	local->nhops = reply->nhops - from;
	memcpy(local->hops, &reply->hops[from], sizeof(CrelayHop) * local->nhops);
}

static void
take_reply(const CrelaySettings *settings, const CrelayReply *reply,
		   CrelayCursor *rows, CrelayLocal *local, TimestampTz now)
{
	CrelayNode *node = &local->node;

	strlcpy(local->upstream_name, reply->node_name, sizeof(local->upstream_name));
	local->upstream_incarnation = reply->incarnation;
	strlcpy(node->upstream_name, reply->node_name, sizeof(node->upstream_name));
	node->upstream_incarnation = reply->incarnation;
	/* what it is set to here, the upstream may not have heard yet */
	if (settings->replica_class == CRELAY_CLASS_SETTING_AUTO &&
		(node->replica_class == CRELAY_CLASS_UNKNOWN || reply->replica_class != CRELAY_CLASS_UNKNOWN))
		node->replica_class = reply->replica_class;
	if (reply->state == CRELAY_STATE_CATCHUP || reply->state == CRELAY_STATE_STREAMING)
		node->state = reply->state;
	node->replay_lag = reply->replay_lag;
	node->warnings = reply->warnings;

	/* a hello is answered before anything is held: what was known still is */
	if (reply->sequence == 0)
		return;
	take_path(settings, reply, local, now);
	if (local->in_cycle)
		node->warnings |= CRELAY_WARN_CYCLE;
	/* an LSN of another history, or from nowhere, says nothing here */
	local->tree_hold_lsn = local->root_known && reply->refusal != CRELAY_HELD_DIVERGED ?
		reply->tree_hold_lsn : 0;
	local->upstream_held_lsn = reply->held_lsn;
	local->upstream_held_reason = reply->refusal;
	if (settings->upstream_conninfo == NULL ||
		!crelay_conninfo_names_host(settings->upstream_conninfo))
	{
		local->slot_fate = reply->slot_fate;
		local->upstream_oldest_lsn = reply->oldest_wal_lsn;
	}
	if (reply->refusal == CRELAY_HELD_NO_FREE_SLOT)
		node->warnings |= CRELAY_WARN_NO_FREE_SLOT;
	local->last_report_time = now;
	if (reply->has_tree)
	{
		rows->other_machine = !crelay_link_is_local(ex.link);
		crelay_registry_put_upstream_rows(rows, now, node->name, node->incarnation);
	}
}

/*
 * Says once, and shows, that the upstream takes the reports but does not hold
 * what they ask for.
 */
static void
note_held_less(const CrelayReply *reply, CrelayLocal *local, TimestampTz now)
{
	const char *text = crelay_refusal_text(reply->refusal);
	const char *hint = crelay_refusal_hint(reply->refusal);
	bool		changed = reply->refusal != ex.logged_held;

	ex.logged_held = reply->refusal;
	if (reply->refusal == CRELAY_REFUSE_NONE || reply->refusal == CRELAY_HELD_LATER)
		return;
	snprintf(local->last_error, sizeof(local->last_error), "%s HINT: %s", text, hint);
	local->last_error_time = now;
	if (changed)
		ereport(LOG,
				(errmsg("cascade_relay: upstream \"%s\" does not hold WAL for this node: %s",
						local->upstream_name, text),
				 errhint("%s", hint)));
}

static void
take_refusal(const CrelayReply *reply, CrelayLocal *local, TimestampTz now)
{
	char		error[CRELAY_ERROR_LEN];
	const char *text = crelay_refusal_text(reply->refusal);

	if (reply->detail[0] != '\0')
		snprintf(error, sizeof(error), "%s (%s)", text, reply->detail);
	else
		strlcpy(error, text, sizeof(error));
	if (reply->refusal == CRELAY_REFUSE_CYCLE || reply->refusal == CRELAY_REFUSE_SELF)
	{
		local->node.warnings |= CRELAY_WARN_CYCLE;
		/* who refused is the upstream all the same: the tree shows the cycle */
		strlcpy(local->node.upstream_name, reply->node_name,
				sizeof(local->node.upstream_name));
		local->node.upstream_incarnation = reply->incarnation;
	}
	if (reply->refusal == CRELAY_REFUSE_NO_WORKER ||
		reply->refusal == CRELAY_REFUSE_OUSTED ||
		reply->refusal == CRELAY_REFUSE_NO_HELLO)
		note_failure(local, CRELAY_UPSTREAM_WAITING, error,
					 crelay_refusal_hint(reply->refusal), now);
	else
		note_failure(local, CRELAY_UPSTREAM_REFUSED, error,
					 crelay_refusal_hint(reply->refusal), now);
	if (reply->refusal == CRELAY_REFUSE_DUPLICATE ||
		reply->refusal == CRELAY_REFUSE_OWN_NAME)
		local->node.warnings |= CRELAY_WARN_DUPLICATE_NAME;
	local->upstream_lacks_extension = reply->refusal == CRELAY_REFUSE_UNBOUNDED;
	local->upstream_refusal = reply->refusal;
}

/*
 * A reply that is of no use: what was held before the versions drifted apart
 * is held still.
 */
static void
take_unreadable(CrelayFit fit, CrelayLocal *local, TimestampTz now)
{
	switch (fit)
	{
		case CRELAY_FIT_OK:
			note_failure(local, CRELAY_UPSTREAM_WAITING,
						 "the upstream's reply cannot be read",
						 "Run compatible versions of cascade_relay on both nodes.", now);
			break;
		case CRELAY_FIT_READER_TOO_OLD:
			note_failure(local, CRELAY_UPSTREAM_REFUSED,
						 "the cascade_relay of this node is too old for that of its upstream",
						 "Upgrade cascade_relay on this node, and restart it. What the upstream holds stays held.", now);
			break;
		case CRELAY_FIT_SENDER_TOO_OLD:
			note_failure(local, CRELAY_UPSTREAM_REFUSED,
						 "the cascade_relay of the upstream is too old for that of this node",
						 "Upgrade cascade_relay on the upstream, and restart it. What it holds stays held.", now);
			break;
	}
}

static void
take_answer(const CrelaySettings *settings, CrelayLocal *local, TimestampTz now)
{
	CrelayReply *reply = palloc(sizeof(CrelayReply));
	CrelayCursor rows;
	const uint8 *data;
	const char *error;
	Size		len;

	data = crelay_link_answer(ex.link, &len);
	if (!crelay_message_get_reply(data, len, reply, &rows, &error))
	{
		take_unreadable(crelay_message_fit(data, len), local, now);
		return;
	}
	switch (reply->answer)
	{
		case CRELAY_ANSWER_OK:
			take_reply(settings, reply, &rows, local, now);
			if (reply->sequence == 0)
			{
				/* the first report goes at once, with the tree */
				ex.established = true;
				ex.sent_at = 0;
				ex.tree_at = 0;
				break;
			}
			ex.failures = 0;
			local->upstream_state = CRELAY_UPSTREAM_CONNECTED;
			log_change(local, "", "");
			note_held_less(reply, local, now);
			break;
		case CRELAY_ANSWER_REFUSED:
			take_refusal(reply, local, now);
			break;
		case CRELAY_ANSWER_CLOSING:
			note_failure(local, CRELAY_UPSTREAM_WAITING,
						 "the upstream is shutting down", "", now);
			break;
	}
	pfree(reply);
}

/* ---- one run ---- */

static void
step_link(const CrelaySettings *settings, CrelayLocal *local, TimestampTz now)
{
	switch (crelay_link_step(ex.link, now))
	{
		case CRELAY_LINK_NOTHING:
			break;
		case CRELAY_LINK_OPENED:
			send_hello(settings, local, now);
			break;
		case CRELAY_LINK_ANSWERED:
			take_answer(settings, local, now);
			break;
		case CRELAY_LINK_REFUSED:
			note_failure(local, CRELAY_UPSTREAM_REFUSED,
						 crelay_link_error(ex.link), crelay_link_hint(ex.link), now);
			local->upstream_lacks_extension = crelay_link_lacks_extension(ex.link);
			break;
		case CRELAY_LINK_FAILED:
			note_failure(local, CRELAY_UPSTREAM_WAITING,
						 crelay_link_error(ex.link), crelay_link_hint(ex.link), now);
			break;
	}
}

/*
 * Forgets what was last heard of the root once that is too old, whether the
 * upstream answers or not.  To be called before a pass uses it.
 */
void
crelay_exchange_forget_stale(const CrelaySettings *settings, CrelayLocal *local)
{
	if (!crelay_local_knows_root(local, settings->stale_timeout_ms))
		local->root_known = false;
}

/*
 * Lets the nodes below know of an upstream that does not answer.  A reply
 * brings warnings of its own.
 */
static void
mark_silence(const CrelaySettings *settings, CrelayLocal *local, TimestampTz now)
{
	TimestampTz since = Max(local->heard_at, PgStartTime);

	if (local->upstream_state == CRELAY_UPSTREAM_WAITING &&
		now - since > (int64) settings->stale_timeout_ms * 1000)
		local->node.warnings |= CRELAY_WARN_UPSTREAM_SILENT;
	else
		local->node.warnings &= ~CRELAY_WARN_UPSTREAM_SILENT;
}

/*
 * The clock may have been set back: whatever was noted ahead of it would hold
 * up all that waits for it, for as long as the step was.
 */
static void
heed_clock(CrelayLocal *local, TimestampTz now)
{
	if (ex.sent_at > now)
		ex.sent_at = 0;
	if (ex.tree_at > now)
		ex.tree_at = 0;
	ex.retry_at = Min(ex.retry_at, now + crelay_backoff_max_us());
	local->heard_at = Min(local->heard_at, now);
}

/*
 * Moves the exchange on as far as it goes without waiting.  Fills in the parts
 * of local that tell of the upstream.
 */
void
crelay_exchange_run(const CrelaySettings *settings, const CrelaySurvey *survey,
					TimestampTz now, CrelayLocal *local)
{
	CrelayTarget target;

	ex.next = 0;
	heed_clock(local, now);
	follow_receiver(&survey->receiver, now);
	make_target(settings, &target);
	if (!survey->position.in_recovery || !settings->enabled ||
		(target.primary_conninfo[0] == '\0' && target.upstream_conninfo[0] == '\0'))
	{
		stay_alone(local, survey);
		return;
	}

	follow_target(&target, local, now);
	note_address(&survey->receiver, &local->node);
	mark_silence(settings, local, now);
	if (crelay_link_state(ex.link) == CRELAY_LINK_CLOSED)
	{
		/* what "now" is may be old after it: the next pass goes on */
		open_link(&target, local, now);
		if (crelay_link_state(ex.link) != CRELAY_LINK_CLOSED)
			ex.next = now;
	}
	else
		step_link(settings, local, now);
	if (crelay_link_state(ex.link) == CRELAY_LINK_READY && ex.established)
		send_report_if_due(settings, survey, local, now);
	log_breach(local);

	if (ex.next == 0)
	{
		if (crelay_link_state(ex.link) == CRELAY_LINK_CLOSED)
			ex.next = ex.retry_at;
		else if (crelay_link_state(ex.link) == CRELAY_LINK_READY && ex.established)
			ex.next = ex.sent_at + (int64) settings->report_interval_ms * 1000;
	}
}
