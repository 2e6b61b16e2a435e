/*-------------------------------------------------------------------------
 *
 * survey.c
 *	  One look of the worker at its own node: snapshot, decide, act, publish.
 *
 * Owns, leaves out and locks: see survey.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "portability/instr_time.h"
#include "replication/slot.h"
#include "replication/walreceiver.h"
#include "utils/memutils.h"

#include "decide/feed.h"
#include "node/bounds.h"
#include "node/child_hold.h"
#include "node/hold.h"
#include "node/replay.h"
#include "server/clock.h"
#include "server/compat.h"
#include "server/state_file.h"
#include "worker/local_hold.h"
#include "worker/lost_holds.h"
#include "worker/lost_slots.h"
#include "worker/moves.h"
#include "worker/release.h"
#include "worker/slot_user.h"
#include "worker/survey.h"

/* A pass counts for at most so much silence: two of the longest pauses. */
#define LISTEN_MAX_US	INT64CONST(2000000)

/* A node without cascade_relay that was seen streaming from here. */
typedef struct Unmanaged
{
	CrelayNode	node;
	char		slot_name[CRELAY_SLOT_LEN]; /* empty: slotless */
	char		application_name[CRELAY_SLOT_LEN];
	char		client_addr[CRELAY_SLOT_LEN];
	int32		pid;
	TimestampTz since;			/* when that process was first seen */
	TimestampTz reply_time;		/* as its walsender has it, by that node's
								 * clock */
	TimestampTz heard_at;		/* when that was last seen to change */
	bool		seen;			/* in this pass */
} Unmanaged;

static Unmanaged *unmanaged;
static int	n_unmanaged;
static int	unmanaged_room;
static MemoryContext survey_context;
static uint64 forgotten_seq;	/* what has been forgotten until then is not
								 * among them */

/* A name of synchronous_standby_names that a standby of this node had. */
typedef struct ServedName
{
	char		name[CRELAY_SLOT_LEN];
	TimestampTz at;				/* when it was last seen to stream */
} ServedName;

static ServedName served_names[CRELAY_MAX_SYNC_NAMES];

/* On a primary, all names that it lists. */
static CrelaySyncNames listed_names;

/* When the last pass was, by a clock that nobody sets; 0 there was none. */
static instr_time last_pass;

/* How this node has got its WAL so far. */
static CrelayFeedWatch feed_watch;

/* What the last pass saw, to tell whether anything moves. */
static uint64 last_movement;


/*
 * Takes the application name of a slotless walsender, and its process, from the
 * name of its node, see name_slotless() in downstream.c.
 */
static void
recall_process(Unmanaged *u)
{
	char	   *mark;

	strlcpy(u->application_name, u->node.name, sizeof(u->application_name));
	mark = strrchr(u->application_name, '#');
	if (mark == NULL || mark[1] == '\0' || strspn(mark + 1, "0123456789") != strlen(mark + 1))
		return;
	u->pid = atoi(mark + 1);
	*mark = '\0';
}

/*
 * A new start of the worker: the nodes without cascade_relay that the one
 * before knew are in the registry still.
 */
void
crelay_survey_start(MemoryContext context)
{
	CrelaySnapshot snapshot;

	survey_context = context;
	unmanaged_room = 16;
	unmanaged = MemoryContextAllocZero(context, sizeof(Unmanaged) * unmanaged_room);
	n_unmanaged = 0;
	INSTR_TIME_SET_ZERO(last_pass);
	memset(&feed_watch, 0, sizeof(feed_watch));
	crelay_registry_snapshot(&snapshot, true);
	forgotten_seq = snapshot.forgotten_seq;
	for (int i = 0; i < snapshot.nrows; i++)
	{
		Unmanaged  *u;

		if (snapshot.row_origins[i] != CRELAY_ORIGIN_UNMANAGED ||
			snapshot.rows[i].managed)
			continue;
		if (n_unmanaged == unmanaged_room)
		{
			unmanaged_room *= 2;
			unmanaged = repalloc(unmanaged, sizeof(Unmanaged) * unmanaged_room);
		}
		u = &unmanaged[n_unmanaged++];
		memset(u, 0, sizeof(Unmanaged));
		u->node = snapshot.rows[i];
		recall_process(u);
	}
}

/* ---- nodes without cascade_relay ---- */

static bool
is_drawable(const CrelayDownstream *d)
{
	return (d->kind == CRELAY_KIND_SLOT || d->kind == CRELAY_KIND_WALSENDER) &&
		!d->managed && !d->logical && !d->backup;
}

/*
 * A slot that was never seen streaming is not drawn as a node, and neither is
 * a base backup's stream: it replays nothing, whatever it has written.  It has
 * a temporary slot, or none: for a moment even when it had, because the slot
 * goes before the walsender does.
 */
static bool
is_node_at_first_sight(const CrelayDownstream *d)
{
	if (d->state == CRELAY_STATE_UNKNOWN)
		return false;
	return d->replay_lsn != 0 || (d->kind == CRELAY_KIND_SLOT && !d->temporary);
}

/*
 * Returns the entry of a slotless walsender that was seen in the pass before, or
 * NULL.  Its name may be another one by now: that depends on whether a namesake is
 * connected.
 */
static Unmanaged *
find_process(const CrelayDownstream *d)
{
	if (d->kind != CRELAY_KIND_WALSENDER)
		return NULL;
	for (int i = 0; i < n_unmanaged; i++)
	{
		if (!unmanaged[i].seen && unmanaged[i].slot_name[0] == '\0' &&
			unmanaged[i].pid == d->pid &&
			strcmp(unmanaged[i].application_name, d->application_name) == 0)
			return &unmanaged[i];
	}
	return NULL;
}

/*
 * Returns the entry of any other downstream, or NULL, once all processes that
 * were there before have found theirs.  A slotless walsender that has come back
 * under its old application name is a node that has left, from the same address
 * if there is one.
 */
static Unmanaged *
find_unmanaged(const CrelayDownstream *d)
{
	Unmanaged  *found = NULL;

	for (int i = 0; i < n_unmanaged; i++)
	{
		if (!unmanaged[i].seen && strcmp(unmanaged[i].node.name, d->name) == 0)
			return &unmanaged[i];
	}
	if (d->kind != CRELAY_KIND_WALSENDER)
		return NULL;
	for (int i = 0; i < n_unmanaged; i++)
	{
		Unmanaged  *u = &unmanaged[i];

		if (u->seen || u->slot_name[0] != '\0' ||
			strcmp(u->application_name, d->application_name) != 0)
			continue;
		if (found == NULL || strcmp(u->client_addr, d->client_addr) == 0)
			found = u;
	}
	return found;
}

static Unmanaged *
add_unmanaged(const CrelayDownstream *d, int max_nodes)
{
	Unmanaged  *u;

	/* one more than there is room for, so that the registry says so */
	if (n_unmanaged > max_nodes)
		return NULL;
	if (n_unmanaged == unmanaged_room)
	{
		unmanaged_room *= 2;
		unmanaged = repalloc(unmanaged, sizeof(Unmanaged) * unmanaged_room);
	}
	u = &unmanaged[n_unmanaged++];
	memset(u, 0, sizeof(Unmanaged));
	u->node.role = CRELAY_ROLE_STANDBY;
	u->node.replay_lag = -1;
	return u;
}

/*
 * Whether the root has what a node without cascade_relay needs: its feeder,
 * this node, decides.  On the root its own slot holds, and nothing else does.
 * Below, all that counts here is held above, as far as the last reply said,
 * and as far as no report that is under way asks for less.
 */
static CrelayTruth
unmanaged_protected(const CrelayDownstream *d, const CrelayLocal *local, bool in_recovery)
{
	uint64		need = crelay_downstream_lsn(d);
	CrelayTruth above;

	if (!in_recovery)
		return d->slot_name[0] != '\0' && !d->temporary && d->restart_lsn != 0 ?
			CRELAY_TRUE : CRELAY_FALSE;
	if (!local->root_known)
		return CRELAY_UNKNOWN;
	if (!d->counted)
		return CRELAY_FALSE;
	above = crelay_hops_protect(local->hops, local->nhops, local->root_known,
								need, wal_segment_size);
	if (above == CRELAY_TRUE && !crelay_segment_covers(local->sent_target_lsn,
													   need, wal_segment_size))
		return CRELAY_FALSE;
	return above;
}

static bool
is_listed(const CrelaySyncNames *sync_names, const char *application_name)
{
	for (uint32 i = 0; i < sync_names->n; i++)
	{
		if (pg_strcasecmp(sync_names->names[i], application_name) == 0)
			return true;
	}
	return false;
}

/*
 * What a node is by how it streams from here: voting while its walsender has a
 * sync priority, by its name or by "*".  A standby's walsenders have none, so that what it feeds is
 * voting if the root asks for it by name.  Until that is known the class stays
 * what it was last.
 */
static CrelayClass
streaming_class(const CrelayDownstream *d, const CrelayLocal *local, CrelayClass last)
{
	const CrelaySyncNames *sync_names = &local->sync_names;

	/* more names than there is room for may be listed */
	if (d->sync_standby)
		return listed_names.n == CRELAY_MAX_SYNC_NAMES ||
			is_listed(&listed_names, d->application_name) ?
			CRELAY_CLASS_VOTING : CRELAY_CLASS_ANY;
	if (local->node.role == CRELAY_ROLE_PRIMARY)
		return CRELAY_CLASS_READ_REPLICA;
	if (!sync_names->known && last != CRELAY_CLASS_UNKNOWN)
		return last;
	return is_listed(sync_names, d->application_name) ?
		CRELAY_CLASS_VOTING : CRELAY_CLASS_READ_REPLICA;
}

static void
update_unmanaged(Unmanaged *u, const CrelayDownstream *d, const CrelayLocal *local,
				 bool in_recovery, TimestampTz now)
{
	CrelayNode *node = &u->node;

	u->seen = true;
	if (u->pid != d->pid)
		u->since = now;
	if (u->pid != d->pid || u->reply_time != d->reply_time)
		u->heard_at = now;
	u->reply_time = d->reply_time;
	u->pid = d->pid;
	strlcpy(u->slot_name, d->temporary ? "" : d->slot_name, sizeof(u->slot_name));
	strlcpy(node->name, d->name, sizeof(node->name));
	strlcpy(node->upstream_name, local->node.name, sizeof(node->upstream_name));
	node->upstream_incarnation = local->node.incarnation;
	node->timeline = local->node.timeline;
	node->path_interval_ms = local->node.path_interval_ms;
	node->protected = unmanaged_protected(d, local, in_recovery);
	if (d->state == CRELAY_STATE_UNKNOWN)
	{
		node->state = CRELAY_STATE_DOWN;
		node->replay_lag = -1;
		return;
	}
	strlcpy(u->application_name, d->application_name, sizeof(u->application_name));
	strlcpy(u->client_addr, d->client_addr, sizeof(u->client_addr));
	node->state = d->state;
	node->replica_class = streaming_class(d, local, node->replica_class);
	node->flush_lsn = d->flush_lsn;
	node->replay_lsn = d->replay_lsn;
	node->replay_lag = d->replay_lag;
	node->backend_xmin = d->backend_xmin;
	strlcpy(node->xmin_pinned_by, d->backend_xmin != 0 ? d->name : "",
			sizeof(node->xmin_pinned_by));
	node->observed_at = now;
}

/*
 * Of the nodes without a slot that have left, as many are remembered as can be
 * connected: whoever comes again and again under new names replaces those that
 * left before, and nobody else.
 */
static void
forget_departed(void)
{
	for (;;)
	{
		int			departed = 0;
		int			oldest = -1;

		for (int i = 0; i < n_unmanaged; i++)
		{
			if (unmanaged[i].node.state != CRELAY_STATE_DOWN ||
				unmanaged[i].slot_name[0] != '\0')
				continue;
			departed++;
			if (oldest < 0 ||
				unmanaged[i].node.observed_at < unmanaged[oldest].node.observed_at)
				oldest = i;
		}
		if (departed <= max_wal_senders)
			return;
		unmanaged[oldest] = unmanaged[--n_unmanaged];
	}
}

/*
 * Returns true if a slotless walsender that has ended was only what was left of a
 * connection: it had not been heard for stale_after when another one of its name
 * came from its address.  A node that is there is heard more often.
 */
static bool
was_left_behind(const Unmanaged *u, int64 stale_after)
{
	for (int i = 0; i < n_unmanaged; i++)
	{
		const Unmanaged *other = &unmanaged[i];

		if (other->seen && other->slot_name[0] == '\0' &&
			other->since - u->heard_at > stale_after &&
			strcmp(other->application_name, u->application_name) == 0 &&
			strcmp(other->client_addr, u->client_addr) == 0)
			return true;
	}
	return false;
}

/*
 * Forgets what was left of connections, before settle_absent() has settled who is
 * there.
 */
static void
forget_left_behind(int64 stale_after)
{
	for (int i = n_unmanaged - 1; i >= 0; i--)
	{
		const Unmanaged *u = &unmanaged[i];

		if (!u->seen && u->pid != 0 && u->slot_name[0] == '\0' &&
			was_left_behind(u, stale_after))
			unmanaged[i] = unmanaged[--n_unmanaged];
	}
}

/*
 * What becomes of the nodes that were not found in this pass.  One whose slot
 * was dropped while it was away has been taken out on purpose; one without a
 * slot is down, and nothing holds WAL for it; one that now reports by itself
 * is drawn as a managed node.
 */
static void
settle_absent(const CrelaySnapshot *snapshot)
{
	int			kept = 0;

	for (int i = 0; i < n_unmanaged; i++)
	{
		Unmanaged  *u = &unmanaged[i];
		bool		gone = false;

		if (!u->seen)
		{
			gone = u->slot_name[0] != '\0';
			for (int c = 0; c < snapshot->nchildren; c++)
			{
				if (strcmp(snapshot->children[c].node.name, u->node.name) == 0 ||
					(snapshot->children[c].has_about &&
					 strcmp(snapshot->children[c].application_name,
							u->application_name) == 0 &&
					 strcmp(snapshot->children[c].client_addr, u->client_addr) == 0))
					gone = true;
			}
			u->pid = 0;
			u->node.state = CRELAY_STATE_DOWN;
			u->node.protected = CRELAY_FALSE;
			u->node.replay_lag = -1;
		}
		u->seen = false;
		if (!gone)
			unmanaged[kept++] = *u;
	}
	n_unmanaged = kept;
}

/*
 * Forgets the nodes that somebody has taken out of the registry.
 */
static void
settle_forgotten(void)
{
	CrelaySnapshot snapshot;
	int			kept = 0;

	crelay_registry_snapshot(&snapshot, true);
	for (int i = 0; i < n_unmanaged; i++)
	{
		bool		known = unmanaged[i].node.state != CRELAY_STATE_DOWN;

		for (int r = 0; r < snapshot.nrows && !known; r++)
			known = snapshot.row_origins[r] == CRELAY_ORIGIN_UNMANAGED &&
				strcmp(snapshot.rows[r].name, unmanaged[i].node.name) == 0;
		if (known)
			unmanaged[kept++] = unmanaged[i];
	}
	n_unmanaged = kept;
	forgotten_seq = snapshot.forgotten_seq;
}

/*
 * Whether a hold may be taken for that of a child that is away.  On a standby it
 * may be of a node above this one, as an old primary has them, or on a cycle
 * with it, and who is above is not known for certain.
 */
static bool
is_expected(const CrelayDownstream *d, bool in_recovery)
{
	return !in_recovery && d->restart_lsn != 0 && !d->invalidated;
}

/*
 * The same of one that has been taken for a child's.
 */
static void
settle_uncalled(const CrelaySnapshot *snapshot, const CrelayDownstream *d)
{
	if (d->child >= 0 && snapshot->children[d->child].connected_at == 0 &&
		(d->ancestor || d->own))
		(void) crelay_registry_forget(d->key);
}

/*
 * The warning about a hold that was placed again, if that was not long ago.
 */
static uint32
hold_lost(TimestampTz dropped_at, bool by_server, TimestampTz now, int64 stale_after)
{
	if (dropped_at == 0 || now - dropped_at >= stale_after * CRELAY_LONG_TIMEOUTS)
		return 0;
	return by_server ? CRELAY_WARN_HOLD_INVALIDATED : CRELAY_WARN_HOLD_DROPPED;
}

/*
 * A managed child that has not called since this node's start: all that is
 * known of it is its hold, and that is enough to draw it.
 */
static void
fill_uncalled(CrelayNode *node, const CrelayDownstream *hold, const CrelayLocal *local,
			  uint32 warnings)
{
	memset(node, 0, sizeof(CrelayNode));
	strlcpy(node->name, hold->name, sizeof(node->name));
	node->incarnation = hold->incarnation;
	node->moves = hold->moves;
	strlcpy(node->upstream_name, local->node.name, sizeof(node->upstream_name));
	node->upstream_incarnation = local->node.incarnation;
	node->managed = true;
	node->role = CRELAY_ROLE_STANDBY;
	node->state = CRELAY_STATE_DOWN;
	node->replay_lag = -1;
	node->warnings = warnings;
}

static void
survey_unmanaged(const CrelaySnapshot *snapshot, const CrelayDownstream *downstreams,
				 int n, const CrelayLocal *local, bool in_recovery,
				 TimestampTz now, int64 stale_after)
{
	CrelayNode *nodes;
	bool	   *known = palloc_array(bool, n + 1);
	int			max_nodes = crelay_guc_max_nodes();
	int			n_nodes = 0;

	if (snapshot->forgotten_seq != forgotten_seq)
		settle_forgotten();
	for (int i = 0; i < n; i++)
	{
		Unmanaged  *u = is_drawable(&downstreams[i]) ? find_process(&downstreams[i]) : NULL;

		known[i] = u != NULL;
		if (u != NULL)
			update_unmanaged(u, &downstreams[i], local, in_recovery, now);
	}
	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];
		Unmanaged  *u;

		if (!is_drawable(d) || known[i])
			continue;
		u = find_unmanaged(d);
		if (u == NULL && is_node_at_first_sight(d))
			u = add_unmanaged(d, max_nodes);
		if (u != NULL)
			update_unmanaged(u, d, local, in_recovery, now);
	}
	forget_left_behind(stale_after);
	settle_absent(snapshot);
	forget_departed();

	nodes = palloc_array(CrelayNode, n_unmanaged + n + 1);
	for (int i = 0; i < n_unmanaged; i++)
		nodes[n_nodes++] = unmanaged[i].node;
	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];

		if (d->kind != CRELAY_KIND_HOLD)
			continue;
		settle_uncalled(snapshot, d);
		if (d->child < 0 && !d->own && !d->ancestor &&
			(!is_expected(d, in_recovery) ||
			 !crelay_registry_expect(d, &local->node, snapshot->forgotten_seq)))
			fill_uncalled(&nodes[n_nodes++], d, local,
						  hold_lost(d->dropped_at, d->dropped_by_server, now, stale_after));
	}
	crelay_registry_publish_unmanaged(nodes, n_nodes, forgotten_seq);
}

/* ---- managed children ---- */

/*
 * A child's state: from its walsender while one is seen, else from what it
 * says itself while it says something.
 */
static CrelayState
child_state(const CrelayChild *child, const CrelayDownstream *sender,
			TimestampTz now, int64 stale_after)
{
	bool		heard;

	if (child->diverged && child->session_pid != 0)
		return CRELAY_STATE_DIVERGED;
	heard = child->session_pid != 0 &&
		now - Max(child->last_report, child->connected_at) <=
		crelay_news_limit(stale_after, child->report_interval_ms);
	/* one that tries in vain has a walsender for a moment each time */
	if (heard && child->own_state == CRELAY_STATE_DISCONNECTED)
		return CRELAY_STATE_DISCONNECTED;
	if (sender != NULL && sender->state != CRELAY_STATE_UNKNOWN)
		return sender->state;
	if (child->session_pid == 0)
		return CRELAY_STATE_DOWN;
	if (!heard)
		return CRELAY_STATE_STALE;
	/* so it was until just now; that its reports are taken it says next time */
	if (child->own_state == CRELAY_STATE_DUPLICATE)
		return CRELAY_STATE_ARCHIVE;
	return child->own_state;
}

/*
 * A child's class: what it is set to; else what its walsender says; else what
 * it was last.
 */
static CrelayClass
child_class(const CrelayChild *child, const CrelayDownstream *sender,
			const CrelayLocal *local)
{
	if (child->own_class != CRELAY_CLASS_UNKNOWN)
		return child->own_class;
	if (sender != NULL && sender->state != CRELAY_STATE_UNKNOWN)
		return streaming_class(sender, local, child->node.replica_class);
	return child->node.replica_class;
}

/*
 * What became of the slot that a child says it streams through, of one that says
 * it does not stream.
 */
static CrelaySlotFate
slot_fate(const CrelayChild *child, const CrelayDownstream *downstreams, int n)
{
	if (!child->has_about || child->slot_name[0] == '\0' || crelay_child_says_it_streams(child))
		return CRELAY_SLOT_UNKNOWN;
	for (int i = 0; i < n; i++)
	{
		if (strcmp(downstreams[i].slot_name, child->slot_name) == 0)
			return downstreams[i].invalidated ? CRELAY_SLOT_LOST : CRELAY_SLOT_THERE;
	}
	return CRELAY_SLOT_MISSING;
}

/*
 * What its walsender tells of a child that streams without saying anything.
 */
static void
view_sender(const CrelayChild *child, const CrelayDownstream *sender, TimestampTz now,
			int64 stale_after, CrelayChildView *view)
{
	view->by_sender = false;
	if (sender == NULL || sender->state == CRELAY_STATE_UNKNOWN || sender->replay_lsn == 0 ||
		(child->session_pid != 0 && now - child->last_report <= stale_after))
		return;
	view->by_sender = true;
	view->flush_lsn = sender->flush_lsn;
	view->replay_lsn = sender->replay_lsn;
}

/*
 * Returns true if a child says that it streams, and no walsender here can be its
 * own: none serves its slot, nor, if it has no slot, anything under its name or at
 * its address.
 */
static bool
is_unfed(const CrelayChild *child, const CrelayDownstream *downstreams, int n)
{
	if (child->session_pid == 0 || !child->has_about || child->streams_since == 0)
		return false;
	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];

		if (d->pid == 0)
			continue;
		if (child->slot_name[0] != '\0' ? strcmp(d->slot_name, child->slot_name) == 0 :
			d->slot_name[0] == '\0' &&
			(strcmp(d->application_name, child->application_name) == 0 ||
			 strcmp(d->client_addr, child->client_addr) == 0))
			return false;
	}
	return true;
}

static void
survey_children(const CrelaySnapshot *snapshot, const CrelayDownstream *downstreams,
				int n, const CrelayLocal *local, TimestampTz now,
				int64 stale_after)
{
	CrelayChildView *views = palloc_array(CrelayChildView, snapshot->nchildren + 1);
	const CrelayDownstream **senders = palloc0_array(const CrelayDownstream *,
													 snapshot->nchildren + 1);
	const CrelayDownstream **holds = palloc0_array(const CrelayDownstream *,
												   snapshot->nchildren + 1);

	for (int i = 0; i < n; i++)
	{
		if (downstreams[i].child < 0)
			continue;
		if (downstreams[i].managed)
			senders[downstreams[i].child] = &downstreams[i];
		if (downstreams[i].kind == CRELAY_KIND_HOLD)
			holds[downstreams[i].child] = &downstreams[i];
	}
	for (int i = 0; i < snapshot->nchildren; i++)
	{
		const CrelayChild *child = &snapshot->children[i];

		views[i].child_slot = snapshot->child_slots[i];
		views[i].incarnation = child->node.incarnation;
		views[i].state = child_state(child, senders[i], now, stale_after);
		views[i].replica_class = child_class(child, senders[i], local);
		views[i].slot_fate = slot_fate(child, downstreams, n);
		views[i].replay_lag = senders[i] != NULL ? senders[i]->replay_lag : -1;
		views[i].unfed = senders[i] == NULL && is_unfed(child, downstreams, n);
		views[i].hold_lost = hold_lost(child->hold_dropped_at, child->hold_dropped_by_server,
									   now, stale_after);
		view_sender(child, senders[i], now, stale_after, &views[i]);
		/* each has one, and be it without a slot */
		views[i].silent = holds[i]->silent;
		views[i].silent_reports = holds[i]->reports_seen;
		views[i].lapsed_lsn = holds[i]->lapsed_lsn;
		views[i].reports = child->reports;
		views[i].held = holds[i]->slot_name[0] != '\0' || holds[i]->missed;
	}
	crelay_registry_publish_children(views, snapshot->nchildren, now - stale_after);
}

/* ---- holds ---- */

/*
 * Whether a hold that a bound has moved still suffers from it: as long as a
 * node needs what was given up; else until it stands clear of the bound, so
 * that nothing is said with each segment.  Of a node that has not called yet
 * nothing is known but its hold.
 */
static bool
still_clamped(const CrelayDownstream *d, const CrelayBounds *bounds)
{
	const CrelayDiskBound *disk = &bounds->disk;
	uint64		held = d->restart_lsn / wal_segment_size;

	if (!d->reported || d->reported_frontier / wal_segment_size < held)
		return true;
	return d->reported_target / wal_segment_size < held &&
		(d->restart_lsn <= bounds->floor_lsn + 2 * (uint64) wal_segment_size ||
		 (d->clamped_by_disk && disk->known && disk->left < (int64) disk->reserve / 2));
}

/*
 * Remembers whether a bound keeps a hold from what is wanted of it, and says
 * when that begins and ends.
 */
static void
note_clamped(CrelayDownstream *d, bool moved, const CrelayBounds *bounds)
{
	bool		before = d->clamped;
	bool		bites = moved ||
	(d->reported && d->reported_target / wal_segment_size <
	 bounds->floor_lsn / wal_segment_size);

	if (bites)
		d->clamped_by_disk = bounds->floor_lsn == bounds->disk.floor_lsn;
	d->clamped = d->counted && d->restart_lsn != 0 &&
		(bites || (before && still_clamped(d, bounds)));
	if (d->clamped && !before)
		ereport(LOG,
				(errmsg("cascade_relay: hold \"%s\" was moved to " CRELAY_LSN_FORMAT " by its size limit",
						d->slot_name, LSN_FORMAT_ARGS(d->restart_lsn)),
				 errdetail("Node \"%s\" is not protected until it has caught up.",
						   d->pin.by),
				 d->clamped_by_disk ?
				 errhint("The file system of pg_wal has less free than \"%s\" leaves.",
						 "cascade_relay.min_free_percent") : 0));
	else if (before && !d->clamped)
		ereport(LOG,
				(errmsg("cascade_relay: hold \"%s\" is within its size limit again",
						d->slot_name)));
}

/*
 * Moves a hold that has fallen behind the bounds up to them, so that the server
 * has no reason to invalidate it, and the disk does not fill: its child may be
 * away.
 */
static void
clamp_hold(CrelayDownstream *d, const CrelayBounds *bounds,
		   const CrelayPosition *position)
{
	CrelayHoldRequest request = {0};
	CrelayHoldResult result = {0};

	request.slot_name = d->slot_name;
	request.target = bounds->floor_lsn;
	if (d->restart_lsn != 0 &&
		request.target / wal_segment_size > d->restart_lsn / wal_segment_size &&
		crelay_hold_try(&request, position, &result) && result.held_lsn != 0)
		d->restart_lsn = result.held_lsn;
	note_clamped(d, result.held_lsn != 0, bounds);
}

/*
 * How long the last pass is ago, as far as it counts as silence.  Time in which
 * this process did not run, because it was stopped or the machine slept, says
 * nothing of others: a pass counts for no more than the longest pause between
 * two of them, twice.
 */
static int64
listened_us(void)
{
	instr_time	now;
	instr_time	elapsed;
	int64		us = 0;

	INSTR_TIME_SET_CURRENT(now);
	if (!INSTR_TIME_IS_ZERO(last_pass))
	{
		elapsed = now;
		INSTR_TIME_SUBTRACT(elapsed, last_pass);
		us = (int64) INSTR_TIME_GET_MICROSEC(elapsed);
	}
	last_pass = now;
	return Max(0, Min(us, LISTEN_MAX_US));
}

/* A node that is to be released, if it has not called since it was looked at. */
typedef struct Silent
{
	const char *key;
	uint64		lsn;
	uint64		reports;
	bool		released;
} Silent;

static bool
release_if_silent(void *arg)
{
	Silent	   *silent = arg;

	silent->released = crelay_registry_release_silent(silent->key, silent->lsn,
													  silent->reports);
	return silent->released;
}

/*
 * Lets go of what a node needs that has been silent for too long, as
 * cascade_release does, and keeps its hold from keeping anything as long as
 * that lasts.  A report that comes in between finds the hold where it was, or
 * what was released.
 */
static void
release_silent(const CrelayDownstream *d, uint64 reports, const CrelaySettings *settings,
			   const CrelayPosition *position)
{
	Silent		silent = {d->key, crelay_hold_redo(), reports, false};
	CrelayHoldRequest request = {0};
	CrelayHoldResult result;

	request.slot_name = d->slot_name;
	request.target = silent.lsn;
	request.fence = release_if_silent;
	request.fence_arg = &silent;
	if (d->restart_lsn != 0 &&
		request.target / wal_segment_size > d->restart_lsn / wal_segment_size)
		(void) crelay_hold_try(&request, position, &result);
	else
		(void) release_if_silent(&silent);
	if (silent.released && d->released_lsn == 0)
		ereport(LOG,
				(errmsg("cascade_relay: released hold \"%s\", because node \"%s\" has not reported for %lld s",
						d->key, d->name, (long long) (d->silent / 1000000)),
				 errdetail("\"%s\" is %d s; WAL from " CRELAY_LSN_FORMAT " on is not kept for that node any more.",
						   "cascade_relay.hold_timeout", settings->hold_timeout_s,
						   LSN_FORMAT_ARGS(d->restart_lsn != 0 ? d->restart_lsn : d->remembered_lsn))));
}

/*
 * The same of a node without a hold: what it needs is asked for of the nodes
 * above by its last report alone.  It counts again with the next one; the list of
 * what was released is for slots, of which there are only so many.
 */
static void
lapse_silent(CrelayDownstream *d, const CrelaySettings *settings)
{
	if (d->lapsed_lsn != 0 || !d->counted)
		return;
	d->lapsed_lsn = crelay_hold_redo();
	ereport(LOG,
			(errmsg("cascade_relay: node \"%s\" does not count any more, because it has not reported for %lld s",
					d->name, (long long) (d->silent / 1000000)),
			 errdetail("\"%s\" is %d s; it has no hold, and WAL from " CRELAY_LSN_FORMAT " on is not asked for any more.",
					   "cascade_relay.hold_timeout", settings->hold_timeout_s,
					   LSN_FORMAT_ARGS(d->reported_frontier))));
}

/*
 * Counts how long a child has been silent, or the node of a hold: from zero after
 * each start, and with each report.  While no reports are taken nobody can be
 * heard.
 */
static void
count_silence(CrelayDownstream *d, const CrelaySnapshot *snapshot, int64 elapsed,
			  const CrelaySettings *settings, const CrelayPosition *position)
{
	uint64		reports = d->child >= 0 ? snapshot->children[d->child].reports : 0;
	int64		timeout = (int64) settings->hold_timeout_s * 1000000;

	if (reports != d->reports_seen || d->own || d->ancestor)
		d->silent = 0;
	else
		d->silent += elapsed;
	d->reports_seen = reports;
	if (timeout <= 0 || d->silent < timeout)
		return;
	if (d->slot_name[0] != '\0' || d->missed)
		release_silent(d, reports, settings, position);
	else
		lapse_silent(d, settings);
}

/*
 * What becomes of the holds, and of children that have none, without a report.
 */
static void
survey_holds(const CrelaySettings *settings, const CrelaySnapshot *snapshot,
			 const CrelayBounds *bounds, const CrelayPosition *position,
			 int64 elapsed, TimestampTz now, CrelayDownstream *downstreams, int n)
{
	CrelayHoldNote *notes = palloc0_array(CrelayHoldNote, n + 1);
	int			n_notes = 0;

	for (int i = 0; i < n; i++)
	{
		CrelayDownstream *d = &downstreams[i];
		CrelayHoldNote *note = &notes[n_notes];

		if (d->kind != CRELAY_KIND_HOLD)
			continue;
		if (settings->enabled)
			crelay_missed_place(d, snapshot, position, now);
		/* the bounds of the disk hold also while reports are off */
		if (d->slot_name[0] != '\0')
			clamp_hold(d, bounds, position);
		if (settings->enabled)
			count_silence(d, snapshot, elapsed, settings, position);
		if (d->slot_name[0] == '\0' && !d->missed)
			continue;
		strlcpy(note->slot_name, d->key, sizeof(note->slot_name));
		note->clamped = d->clamped;
		note->clamped_by_disk = d->clamped_by_disk;
		note->silent = d->silent;
		note->reports_seen = d->reports_seen;
		crelay_missed_note(d, bounds, note);
		n_notes++;
	}
	n_notes = Min(n_notes, max_replication_slots);
	crelay_registry_publish_notes(notes, n_notes, snapshot->forgotten_seq);
	crelay_missed_save(notes, n_notes, false);
	crelay_child_hold_touch(downstreams, n, now);
}

/*
 * Lets the report sessions know which slots may cover a hold that goes back:
 * all that the server itself counts in its minimum, and that survive a crash.
 */
static void
survey_covers(const CrelayDownstream *downstreams, int n)
{
	CrelayCover *covers = palloc0_array(CrelayCover, n + 1);
	uint64		redo = crelay_hold_redo();
	int			n_covers = 0;

	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];

		if (d->slot_name[0] == '\0' || d->restart_lsn == 0 || d->temporary ||
			d->invalidated)
			continue;
		strlcpy(covers[n_covers].slot_name, d->slot_name, CRELAY_SLOT_LEN);
		covers[n_covers].restart_lsn = d->restart_lsn;
		covers[n_covers++].seen_at_redo = redo;
	}
	crelay_registry_publish_covers(covers, n_covers);
}

static bool
has_called_since(const CrelaySnapshot *snapshot, const CrelayDownstream *d,
				 const CrelayReleased *released)
{
	return d->reported && d->child >= 0 &&
		snapshot->children[d->child].reports != released->reports;
}

/*
 * Whether a node without a slot has left, and may come back under that name.
 */
static bool
has_left(const char *name)
{
	for (int i = 0; i < n_unmanaged; i++)
	{
		if (unmanaged[i].slot_name[0] == '\0' && strcmp(unmanaged[i].node.name, name) == 0)
			return true;
	}
	return false;
}

/*
 * Whether a release lasts.  A downstream counts again once it has confirmed the
 * LSN that it was released at.  A hold whose node has not called since proves
 * nothing: it was moved there by the release itself, and a node that is gone for
 * good, with nothing to catch up, is not to count for ever.
 *
 * With a slot goes its release: one that somebody makes under its name is for
 * somebody else.  All slots are seen in each pass; a node without one only while
 * it is connected, so its release lasts as long as it is remembered.
 */
static bool
stays_released(const CrelaySnapshot *snapshot, const CrelayDownstream *downstreams, int n,
			   const CrelayReleased *released)
{
	bool		found = false;

	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];
		uint64		confirmed;

		if (strcmp(d->key, released->key) != 0)
			continue;
		found = true;
		if (d->kind == CRELAY_KIND_HOLD)
			confirmed = has_called_since(snapshot, d, released) ?
				d->reported_frontier : 0;
		else
			confirmed = d->restart_lsn;
		if (confirmed < released->lsn)
			return true;
	}
	return !found && has_left(released->key);
}

static void
recount_released(const CrelaySnapshot *snapshot, const CrelayDownstream *downstreams, int n)
{
	CrelayReleased *kept = palloc_array(CrelayReleased, snapshot->nreleased + 1);
	int			n_kept = 0;

	for (int r = 0; r < snapshot->nreleased; r++)
	{
		if (stays_released(snapshot, downstreams, n, &snapshot->released[r]))
			kept[n_kept++] = snapshot->released[r];
	}
	if (n_kept < snapshot->nreleased)
		crelay_registry_publish_released(kept, n_kept, snapshot->released_seq);
}

/* ---- who holds back vacuum ---- */

/*
 * The oldest xmin that this node, or a node below it, keeps vacuum from
 * passing, and whose it is.  A managed child has said whether it is its own or
 * that of a node further down.
 */
static void
survey_xmin(const CrelaySnapshot *snapshot, const CrelayDownstream *downstreams,
			int n, TimestampTz now, CrelayLocal *local)
{
	CrelayNode *node = &local->node;
	TransactionId oldest = crelay_read_own_xmin();
	const char *name = node->name;

	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];
		const CrelayNode *child = d->child >= 0 ? &snapshot->children[d->child].node : NULL;

		if (d->logical || !TransactionIdIsNormal(d->backend_xmin) ||
			(TransactionIdIsNormal(oldest) &&
			 !TransactionIdPrecedes(d->backend_xmin, oldest)))
			continue;
		oldest = d->backend_xmin;
		name = child != NULL && child->xmin_pinned_by[0] != '\0' ?
			child->xmin_pinned_by : d->name;
	}
	if (oldest == InvalidTransactionId)
		local->xmin_since = 0;
	else if (oldest != node->backend_xmin || local->xmin_since == 0)
		local->xmin_since = now;
	node->backend_xmin = oldest;
	strlcpy(node->xmin_pinned_by, oldest != InvalidTransactionId ? name : "",
			sizeof(node->xmin_pinned_by));
}

/* ---- this node ---- */

static CrelayClass
own_class(const CrelaySettings *settings, const CrelayLocal *local)
{
	switch (settings->replica_class)
	{
		case CRELAY_CLASS_SETTING_VOTING:
			return CRELAY_CLASS_VOTING;
		case CRELAY_CLASS_SETTING_READ_REPLICA:
			return CRELAY_CLASS_READ_REPLICA;
		case CRELAY_CLASS_SETTING_AUTO:
			break;
	}
	/* what the upstream's walsender says came with the last reply */
	return local->node.replica_class;
}

/*
 * Whether the upstream takes this node for the double of another one.  The one
 * that the name belongs to is warned too, but its reports are taken.
 */
static bool
is_duplicate(const CrelayLocal *local)
{
	return local->upstream_state == CRELAY_UPSTREAM_REFUSED &&
		(local->upstream_refusal == CRELAY_REFUSE_DUPLICATE ||
		 local->upstream_refusal == CRELAY_REFUSE_OWN_NAME);
}

static CrelayState
own_state(const CrelaySurvey *survey, const CrelayLocal *local)
{
	if (!survey->position.in_recovery)
		return CRELAY_STATE_RUNNING;
	if (local->in_cycle)
		return CRELAY_STATE_CYCLE;
	if (local->upstream_held_reason == CRELAY_HELD_DIVERGED)
		return CRELAY_STATE_DIVERGED;
	if (is_duplicate(local))
		return CRELAY_STATE_DUPLICATE;
	if (crelay_feed_is_cut(local->node.feed))
		return CRELAY_STATE_DISCONNECTED;
	if (!survey->receiver.streaming)
		return CRELAY_STATE_ARCHIVE;
	return local->node.state == CRELAY_STATE_CATCHUP ? CRELAY_STATE_CATCHUP :
		CRELAY_STATE_STREAMING;
}

static bool
is_set(const char *value)
{
	return value != NULL && value[0] != '\0';
}

/*
 * Whether anything feeds this node with WAL, and what its replay is doing.
 */
static void
survey_feed(const CrelaySettings *settings, const CrelaySurvey *survey,
			int64 elapsed, CrelayLocal *local)
{
	bool		in_recovery = survey->position.in_recovery;
	CrelayFeedSample sample = {0};
	CrelayFeedFacts facts = {0};

	local->node.pause = crelay_replay_pause();
	local->node.apply_delay_ms = in_recovery ? recovery_min_apply_delay : 0;

	sample.elapsed = elapsed;
	sample.in_recovery = in_recovery;
	sample.streaming = survey->receiver.streaming;
	sample.receiver_pid = survey->receiver.pid;
	sample.waits = in_recovery && crelay_replay_waits();
	sample.paused = crelay_pause_is_on(local->node.pause);
	sample.replay_lsn = survey->position.applied_lsn;
	crelay_feed_look(&feed_watch, &sample, (int64) settings->stale_timeout_ms * 1000);

	facts.replay_lsn = survey->position.applied_lsn;
	facts.segment_size = wal_segment_size;
	facts.has_archive = is_set(recoveryRestoreCommand);
	facts.wants_stream = is_set(PrimaryConnInfo);
	facts.has_slot = is_set(PrimarySlotName);
	facts.upstream_known = local->upstream_state == CRELAY_UPSTREAM_CONNECTED;
	facts.slot_fate = local->slot_fate;
	facts.oldest_wal_lsn = local->upstream_oldest_lsn;
	if (facts.upstream_known && crelay_local_knows_root(local, settings->stale_timeout_ms))
		facts.root_lsn = local->root_lsn;
	facts.root_age = (int64) crelay_local_root_age_ms(local) * 1000;
	local->node.feed = in_recovery ? crelay_feed_judge(&feed_watch, &facts) : CRELAY_FEED_UNKNOWN;
}

/*
 * Since when another node has kept the same segment from being removed here.
 * The frontier in local is still that of the last pass.
 */
static void
survey_pin(const CrelaySurvey *survey, const char *own_name, TimestampTz now,
		   CrelayLocal *local)
{
	uint64		segment = survey->frontier.frontier_lsn / wal_segment_size;

	if (crelay_pin_is_own(&survey->frontier.pin, own_name) ||
		segment >= survey->position.applied_lsn / wal_segment_size)
		local->pinned_since = 0;
	else if (local->pinned_since == 0 ||
			 segment != local->node.frontier_lsn / wal_segment_size)
		local->pinned_since = now;
}

static void
survey_self(const CrelaySettings *settings, const CrelaySurvey *survey,
			TimestampTz now, CrelayLocal *local)
{
	CrelayNode *node = &local->node;

	strlcpy(node->name, settings->node_name, sizeof(node->name));
	strlcpy(node->location, settings->location, sizeof(node->location));
	strlcpy(node->conninfo, settings->advertised_conninfo, sizeof(node->conninfo));
	strlcpy(node->version, crelay_message_software(), sizeof(node->version));
	node->managed = true;
	node->role = survey->position.in_recovery ? CRELAY_ROLE_STANDBY : CRELAY_ROLE_PRIMARY;
	node->timeline = survey->position.timeline;
	node->flush_lsn = survey->position.flush_lsn;
	node->replay_lsn = survey->position.applied_lsn;
	node->frontier_lsn = survey->frontier.frontier_lsn;
	node->pin = survey->frontier.pin;
	crelay_read_room(&node->room);
	node->observed_at = now;
	node->state = own_state(survey, local);
	/* what the upstream's walsender measured came with the last reply */
	if (node->state != CRELAY_STATE_STREAMING && node->state != CRELAY_STATE_CATCHUP)
		node->replay_lag = -1;
	local->hold_target_lsn = survey->frontier.hold_target_lsn;

	if (!survey->position.in_recovery)
	{
		node->replica_class = settings->replica_class == CRELAY_CLASS_SETTING_AUTO ?
			CRELAY_CLASS_UNKNOWN : own_class(settings, local);
		node->hot_standby_feedback = CRELAY_UNKNOWN;
		node->protected = CRELAY_TRUE;
		node->upstream_name[0] = '\0';
		node->upstream_incarnation = 0;
		node->upstream_address[0] = '\0';
		local->root_known = true;
		local->root_lsn = survey->position.flush_lsn;
		local->root_heard = crelay_clock_us();
		/* a pass comes at least as often as a report would */
		node->path_interval_ms = settings->report_interval_ms;
		local->heard_at = now;
		local->nhops = 0;
		local->in_cycle = false;
		node->warnings = 0;
		return;
	}
	node->replica_class = own_class(settings, local);
	/* the next reply says what the rest of the path is like */
	node->path_interval_ms = Max(node->path_interval_ms, (uint32) settings->report_interval_ms);
	node->hot_standby_feedback = hot_standby_feedback ? CRELAY_TRUE : CRELAY_FALSE;
	node->protected = crelay_hops_protect(local->hops, local->nhops,
										  local->root_known,
										  survey->position.applied_lsn,
										  wal_segment_size);
	if (node->protected == CRELAY_TRUE && !crelay_feed_is_promise(node->feed))
		node->protected = CRELAY_FALSE;
	if (node->protected == CRELAY_FALSE)
		node->warnings |= CRELAY_WARN_UNPROTECTED;
	else
		node->warnings &= ~CRELAY_WARN_UNPROTECTED;
}

/*
 * Returns true if a synchronous standby of that name streams from here, or has
 * done so within stale_after: one that restarts keeps its name.
 */
static bool
is_served(const char *name, const CrelayDownstream *downstreams, int n,
		  TimestampTz now, int64 stale_after)
{
	ServedName *served = &served_names[0];

	for (int i = 0; i < CRELAY_MAX_SYNC_NAMES; i++)
	{
		if (served_names[i].at < served->at)
			served = &served_names[i];
	}
	for (int i = 0; i < CRELAY_MAX_SYNC_NAMES; i++)
	{
		if (pg_strcasecmp(served_names[i].name, name) == 0)
			served = &served_names[i];
	}
	for (int i = 0; i < n; i++)
	{
		if (!downstreams[i].sync_standby || downstreams[i].pid == 0 ||
			pg_strcasecmp(downstreams[i].application_name, name) != 0)
			continue;
		strlcpy(served->name, name, sizeof(served->name));
		served->at = now;
	}
	return pg_strcasecmp(served->name, name) == 0 && now - served->at <= stale_after;
}

/*
 * The names that a cascaded node may be voting by: those that the primary asks
 * for, and that no standby of its own has.  Where one has the name, another node
 * of that name further down is probably not meant.
 */
static void
survey_sync_names(const CrelayDownstream *downstreams, int n, TimestampTz now,
				  int64 stale_after, CrelaySyncNames *sync_names)
{
	uint32		kept = 0;

	crelay_read_sync_names(&listed_names);
	*sync_names = listed_names;
	for (uint32 i = 0; i < sync_names->n; i++)
	{
		if (is_served(sync_names->names[i], downstreams, n, now, stale_after))
			continue;
		if (kept < i)
			memcpy(sync_names->names[kept], sync_names->names[i], CRELAY_SLOT_LEN);
		kept++;
	}
	sync_names->n = kept;
}

/*
 * A number that changes when this node or one of its downstreams moves.
 */
static uint64
movement(const CrelaySurvey *survey, const CrelayDownstream *downstreams, int n)
{
	uint64		sum = survey->position.applied_lsn;

	for (int i = 0; i < n; i++)
		sum = sum * 31 + downstreams[i].restart_lsn + downstreams[i].pid;
	return sum;
}

/*
 * One pass.  local carries over what the exchange with the upstream has
 * learned, and is completed; survey is for the exchange.
 */
void
crelay_survey_run(const CrelaySettings *settings, TimestampTz now,
				  CrelayLocal *local, CrelaySurvey *survey)
{
	CrelaySnapshot snapshot;
	CrelayDownstream *downstreams;
	CrelayBounds bounds;
	CrelayOwn	own;
	bool		look_again;
	uint64		moved;
	int64		elapsed;
	int			n;

	crelay_registry_snapshot(&snapshot, false);
	local->sent_target_lsn = snapshot.local.sent_target_lsn;
	/* not published yet in the first pass: the own hold would be a stranger's */
	snapshot.local.node.incarnation = local->node.incarnation;
	survey->floor_seq = snapshot.floor_seq;
	survey->membership_seq = snapshot.membership_seq;
	survey->below_seq = snapshot.below_seq;
	survey->has_sessions = false;
	for (int i = 0; i < snapshot.nchildren; i++)
	{
		if (snapshot.children[i].session_pid != 0)
			survey->has_sessions = true;
	}

	crelay_read_receiver(&survey->receiver);
	downstreams = crelay_downstream_collect(&snapshot, false, &n);

	/*
	 * The own position is read last: a downstream cannot have confirmed what
	 * this node did not have when it was looked at.
	 */
	crelay_read_position(&survey->position);
	local->node.oldest_wal_lsn = crelay_bounds_look(settings, &survey->position,
													now, &local->disk,
													&look_again);
	crelay_bounds_of(settings, survey->position.flush_lsn, &local->disk, &bounds);
	survey->watch_bytes = look_again ? 0 :
		crelay_bounds_watch(survey->position.flush_lsn, downstreams, n);

	own.name = settings->node_name;
	own.applied_lsn = survey->position.applied_lsn;
	own.restart_redo = survey->position.restart_redo;
	own.segment_size = wal_segment_size;
	crelay_frontier_compute(&own, downstreams, n, &survey->frontier);

	elapsed = listened_us();
	survey_covers(downstreams, n);	/* that a hold may be placed under */
	survey_holds(settings, &snapshot, &bounds, &survey->position, elapsed, now,
				 downstreams, n);
	recount_released(&snapshot, downstreams, n);
	crelay_release_run(settings, &snapshot, downstreams, n, elapsed);

	survey_pin(survey, settings->node_name, now, local);
	survey_feed(settings, survey, elapsed, local);
	survey_self(settings, survey, now, local);
	if (!survey->position.in_recovery)
		survey_sync_names(downstreams, n, now,
						  (int64) settings->stale_timeout_ms * 1000, &local->sync_names);
	/* seen here, and said on every node above and below */
	if (crelay_registry_has_double(now))
		local->node.warnings |= CRELAY_WARN_DUPLICATE_NAME;
	crelay_slot_users_run(&snapshot, downstreams, n);
	crelay_moves_keep_told(downstreams, n);
	crelay_lost_slots_run(settings, local, downstreams, n, survey->position.in_recovery, elapsed);
	crelay_local_hold_run(settings, &survey->position, &bounds, downstreams, n,
						  now, local);
	survey_xmin(&snapshot, downstreams, n, now, local);
	survey_children(&snapshot, downstreams, n, local, now,
					(int64) settings->stale_timeout_ms * 1000);
	survey_unmanaged(&snapshot, downstreams, n, local,
					 survey->position.in_recovery, now,
					 (int64) settings->stale_timeout_ms * 1000);

	crelay_state_retry(now);
	moved = movement(survey, downstreams, n);
	survey->moved = moved != last_movement;
	last_movement = moved;
}
