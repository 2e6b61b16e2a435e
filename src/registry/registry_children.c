/*-------------------------------------------------------------------------
 *
 * registry_children.c
 *	  The managed direct downstreams in the registry.
 *
 * Owns: which session speaks for which node, what is believed of its reports,
 * and what it is told.
 *
 * Not here: the slots that are held for them (registry_slots.c), and forgetting
 * them (registry_forget.c).
 *
 * Locking: see registry.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "decide/history.h"
#include "registry/registry_internal.h"
#include "server/guc.h"

/* A session is not ousted faster than this, however often it reports. */
#define MIN_LIVE_MS		1000

/*
 * What a node says of its interval is taken up to what the setting allows, so
 * that nobody is live for months without a word.
 */
#define MAX_INTERVAL_MS	(3600 * 1000)

/*
 * How long a duplicate is shown after its last attempt; a refused node tries
 * again at least every ten seconds or so.
 */
#define DUPLICATE_SHOWN_US	INT64CONST(30000000)

/*
 * So much later than it called here a node must have been heard of elsewhere to
 * be there twice.
 */
#define DOUBLE_PAUSE_US			INT64CONST(5000000)

/*
 * News of the tree go to all children together not more often than once in so
 * much time for each that is connected.
 */
#define TELL_PAUSE_MS	20

/* ---- who speaks for a node ---- */

/*
 * Whether the session that owns a child has been heard of lately.  A session
 * that ended is not live at once; one that was cut silently after three of its
 * own intervals.
 */
bool
crelay_child_is_live(const CrelayChild *child, TimestampTz now)
{
	int64		allowed = (int64) child->report_interval_ms * 3;
	TimestampTz heard = Max(child->connected_at, child->last_report);

	if (child->session_pid == 0)
		return false;
	if (allowed < MIN_LIVE_MS)
		allowed = MIN_LIVE_MS;
	return now - heard <= allowed * 1000;
}

/*
 * What speaks against a node as our child, before any other child is looked
 * at.
 */
static CrelayRefusal
refuse_stranger(const CrelayHello *hello, char *detail, Size detail_size)
{
	const CrelayLocal *local = &crelay_shared->local;

	if (!local->ready)
		return CRELAY_REFUSE_NO_WORKER;
	if (hello->system_identifier != local->system_identifier)
	{
		snprintf(detail, detail_size, "its system identifier is " UINT64_FORMAT,
				 local->system_identifier);
		return CRELAY_REFUSE_SYSTEM;
	}
	if (hello->incarnation == local->node.incarnation && hello->start_id == local->start_id)
		return CRELAY_REFUSE_SELF;
	if (hello->incarnation == local->node.incarnation)
	{
		snprintf(detail, detail_size, "the upstream itself is node \"%s\" with incarnation %08x",
				 local->node.name, local->node.incarnation);
		return CRELAY_REFUSE_DUPLICATE;
	}
	if (strcmp(hello->node_name, local->node.name) == 0)
		return CRELAY_REFUSE_OWN_NAME;
	for (int i = 0; i < local->nhops; i++)
	{
		if (local->hops[i].incarnation == hello->incarnation)
			return CRELAY_REFUSE_CYCLE;
	}
	return CRELAY_REFUSE_NONE;
}

/*
 * Ends the session that speaks for a child, because the node has another session
 * by now, or needs none.  Left alone, a session whose client has vanished would
 * hold up a smart shutdown.
 *
 * The caller holds the lock.  A session takes itself out under that lock before
 * its process ends, so that the pid is still that of the session.
 */
void
crelay_child_end_session(CrelayChild *child)
{
	if (child->session_pid != 0 && child->session_pid != MyProcPid)
		(void) kill(child->session_pid, SIGTERM);
	child->session_pid = 0;
}

/*
 * Finds the entry that a hello may take, -1 if a new one is needed.  A node
 * that is live under the same name, or with the same incarnation, is never
 * taken over, unless the very same worker says hello again.
 */
static CrelayRefusal
find_claim(const CrelayHello *hello, TimestampTz now, CrelayClaim *claim)
{
	claim->child_slot = -1;
	for (int i = 0; i < crelay_shared->nchildren; i++)
	{
		CrelayChild *child = &crelay_shared->children[i];
		bool		same_name;
		bool		same_incarnation;

		if (!child->in_use)
			continue;
		same_name = strcmp(child->node.name, hello->node_name) == 0;
		same_incarnation = child->node.incarnation == hello->incarnation;
		if (!same_name && !same_incarnation)
			continue;
		if (child->start_id != hello->start_id && crelay_child_is_live(child, now))
		{
			child->duplicate_seen = now;
			snprintf(claim->detail, sizeof(claim->detail),
					 "node \"%s\" with incarnation %08x is connected from %s",
					 child->node.name, child->node.incarnation, child->client_addr);
			return CRELAY_REFUSE_DUPLICATE;
		}
		if (same_name && same_incarnation)
			claim->child_slot = i;
		else if (child->start_id == hello->start_id)
			crelay_child_end_session(child);	/* it has changed its name */
	}
	return CRELAY_REFUSE_NONE;
}

/*
 * Takes a child out, with all that it has said of the nodes below it.
 */
void
crelay_child_remove(CrelayChild *child)
{
	crelay_rows_free(&child->rows);
	child->in_use = false;
	crelay_shared->membership_seq++;
}

/*
 * Forgets a child that nobody speaks for and nothing is held for, the one that
 * was heard of longest ago, so that whoever only says hello cannot fill the
 * registry, nor whoever drops what is held for it.  One that has never reported
 * goes before one that has.  Returns its place, -1 if there is none.
 */
static int
evict_child(void)
{
	const CrelayChild *oldest = NULL;
	int			slot = -1;

	for (int i = 0; i < crelay_shared->nchildren; i++)
	{
		const CrelayChild *child = &crelay_shared->children[i];

		if (!child->in_use || child->session_pid != 0 ||
			(child->held_lsn != 0 && !child->hold_gone))
			continue;
		if (oldest != NULL &&
			(child->reported != oldest->reported ? child->reported :
			 Max(child->connected_at, child->last_report) >=
			 Max(oldest->connected_at, oldest->last_report)))
			continue;
		oldest = child;
		slot = i;
	}
	if (slot >= 0)
		crelay_child_remove(&crelay_shared->children[slot]);
	return slot;
}

static int
new_child(const CrelayHello *hello)
{
	CrelayChild *child;
	CrelayHoldNote *note;
	int			slot;

	for (slot = 0; slot < crelay_shared->nchildren; slot++)
	{
		if (!crelay_shared->children[slot].in_use)
			break;
	}
	if (slot >= crelay_shared->max_nodes)
		slot = evict_child();
	if (slot < 0)
		return -1;
	if (slot == crelay_shared->nchildren)
		crelay_shared->nchildren++;

	child = &crelay_shared->children[slot];
	memset(child, 0, sizeof(CrelayChild));
	child->in_use = true;
	child->rows.first = -1;
	snprintf(child->hold_name, sizeof(child->hold_name), "%s%s_%08x",
			 CRELAY_HOLD_PREFIX, hello->node_name, hello->incarnation);
	strlcpy(child->node.name, hello->node_name, sizeof(child->node.name));
	child->node.incarnation = hello->incarnation;
	child->node.managed = true;
	child->node.role = CRELAY_ROLE_STANDBY;
	child->node.replay_lag = -1;
	if ((note = crelay_registry_find_note(child->hold_name)) != NULL)
	{
		child->hold_dropped_at = note->dropped_at;
		child->hold_dropped_by_server = note->dropped_by_server;
	}
	return slot;
}

/*
 * Enters a node that has not called since this server's start, but is held:
 * should somebody drop the hold before it calls, it is known that there was one.
 * Not if a node was forgotten since the hold was looked at; and not if there is
 * no room, then it is known by its hold alone.  Tells whether it is entered.
 */
bool
crelay_registry_expect(const CrelayDownstream *hold, const CrelayNode *self,
					   uint64 forgotten_seq)
{
	CrelayHello hello = {0};
	CrelayChild *child;
	int			slot = -1;

	strlcpy(hello.node_name, hold->name, sizeof(hello.node_name));
	hello.incarnation = hold->incarnation;
	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	if (crelay_shared->forgotten_seq == forgotten_seq &&
		crelay_registry_find_hold(hold->slot_name) < 0)
		slot = new_child(&hello);
	if (slot >= 0)
	{
		child = &crelay_shared->children[slot];
		child->held_lsn = hold->restart_lsn;
		child->had_hold = true;
		child->node.moves = hold->moves;
		child->node.state = CRELAY_STATE_DOWN;
		strlcpy(child->node.upstream_name, self->name,
				sizeof(child->node.upstream_name));
		child->node.upstream_incarnation = self->incarnation;
		crelay_shared->membership_seq++;
	}
	LWLockRelease(crelay_shared->lock);
	return slot >= 0;
}

/*
 * Remembers whether a node was refused.  Returns true if that is news for the
 * log: a refused node tries again and again.
 */
static bool
note_refused(const CrelayHello *hello, CrelayRefusal refusal, const char *client_addr,
			 TimestampTz now)
{
	CrelayRefused *refused = &crelay_shared->refused[hello->incarnation % CRELAY_MAX_REFUSED];
	bool		same = refused->incarnation == hello->incarnation;
	bool		news = refusal != CRELAY_REFUSE_NONE && (!same || refused->reason != (int) refusal);

	if (refusal == CRELAY_REFUSE_NONE && !same)
		return false;
	refused->incarnation = hello->incarnation;
	refused->reason = refusal;
	refused->is_double = refusal == CRELAY_REFUSE_OWN_NAME || refusal == CRELAY_REFUSE_DUPLICATE;
	refused->is_foreign = refusal == CRELAY_REFUSE_SYSTEM;
	refused->seen_at = now;
	strlcpy(refused->name, hello->node_name, sizeof(refused->name));
	strlcpy(refused->addr, client_addr, sizeof(refused->addr));
	return news;
}

static bool
is_refused_lately(const CrelayRefused *refused, TimestampTz now)
{
	return refused->reason != CRELAY_REFUSE_NONE &&
		now - refused->seen_at < DUPLICATE_SHOWN_US;
}

/*
 * Copies the nodes that were refused lately into an array with room for
 * CRELAY_MAX_REFUSED, and returns their number.
 */
int
crelay_registry_get_refused(TimestampTz now, CrelayRefused *refused)
{
	int			n = 0;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	for (int i = 0; i < CRELAY_MAX_REFUSED; i++)
	{
		if (is_refused_lately(&crelay_shared->refused[i], now))
			refused[n++] = crelay_shared->refused[i];
	}
	LWLockRelease(crelay_shared->lock);
	return n;
}

/*
 * Returns true if a node with the name or the incarnation of this one was
 * refused lately.
 */
bool
crelay_registry_has_double(TimestampTz now)
{
	CrelayRefused refused[CRELAY_MAX_REFUSED];
	int			n = crelay_registry_get_refused(now, refused);
	uint32		own = crelay_shared->local.node.incarnation;

	for (int i = 0; i < n; i++)
	{
		if (refused[i].reason == CRELAY_REFUSE_OWN_NAME ||
			(refused[i].is_double && refused[i].incarnation == own))
			return true;
	}
	return false;
}

/*
 * The same for the places of children: the role that speaks for more than half
 * of them, if there is one.
 */
static void
note_full_children(TimestampTz now)
{
	const char *role = "";
	int			lead = 0;
	int			n = 0;

	for (int i = 0; i < crelay_shared->nchildren; i++)
	{
		const char *other = crelay_shared->children[i].role_name;

		if (lead == 0)
			role = other;
		lead += strcmp(role, other) == 0 ? 1 : -1;
	}
	for (int i = 0; i < crelay_shared->nchildren; i++)
		n += strcmp(role, crelay_shared->children[i].role_name) == 0;
	crelay_rows_note_full(n, "", now);
	if (n > crelay_shared->nchildren / 2)
		strlcpy(crelay_shared->local.full.role, role,
				sizeof(crelay_shared->local.full.role));
}

/*
 * Makes this session the owner of the node that says hello, or says why not,
 * and whether that is news.  The latest accepted hello owns the node.
 */
CrelayRefusal
crelay_registry_claim(const CrelayHello *hello, pid_t pid,
					  const char *client_addr, const char *role_name,
					  TimestampTz now, CrelayClaim *claim)
{
	CrelayRefusal refusal;

	memset(claim, 0, sizeof(CrelayClaim));
	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	refusal = refuse_stranger(hello, claim->detail, sizeof(claim->detail));
	if (refusal == CRELAY_REFUSE_NONE)
		refusal = find_claim(hello, now, claim);
	if (refusal == CRELAY_REFUSE_NONE && claim->child_slot < 0)
	{
		claim->child_slot = new_child(hello);
		if (claim->child_slot < 0)
		{
			refusal = CRELAY_REFUSE_FULL;
			note_full_children(now);
		}
	}
	if (refusal == CRELAY_REFUSE_NONE)
	{
		CrelayChild *child = &crelay_shared->children[claim->child_slot];

		/* one that has been elsewhere did not count, and will */
		if (child->session_pid == 0)
			crelay_shared->floor_seq++;
		if (strcmp(child->role_name, role_name) != 0)
			strlcpy(claim->former_role, child->role_name, sizeof(claim->former_role));
		crelay_child_end_session(child);
		child->session_pid = pid;
		child->start_id = hello->start_id;
		child->report_interval_ms = Min(hello->report_interval_ms, MAX_INTERVAL_MS);
		child->connected_at = now;
		child->streams_since = 0;
		strlcpy(child->client_addr, client_addr, sizeof(child->client_addr));
		strlcpy(child->role_name, role_name, sizeof(child->role_name));
		strlcpy(child->node.upstream_name, crelay_shared->local.node.name,
				sizeof(child->node.upstream_name));
		child->node.upstream_incarnation = crelay_shared->local.node.incarnation;
		crelay_shared->membership_seq++;
	}
	claim->news = note_refused(hello, refusal, client_addr, now);
	LWLockRelease(crelay_shared->lock);
	return refusal;
}

/*
 * The child, if that session still owns it; the caller holds the lock.
 */
static CrelayChild *
owned_child(int child_slot, uint32 incarnation, pid_t pid)
{
	CrelayChild *child = &crelay_shared->children[child_slot];

	if (!child->in_use || child->session_pid != pid ||
		child->node.incarnation != incarnation)
		return NULL;
	return child;
}

bool
crelay_registry_owns(int child_slot, uint32 incarnation, pid_t pid)
{
	bool		owns;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	owns = owned_child(child_slot, incarnation, pid) != NULL;
	LWLockRelease(crelay_shared->lock);
	return owns;
}

/*
 * A session ends: what it owned is not connected any more.
 */
void
crelay_registry_leave(pid_t pid)
{
	bool		owned = false;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < crelay_shared->nchildren; i++)
	{
		CrelayChild *child = &crelay_shared->children[i];

		if (child->in_use && child->session_pid == pid)
		{
			child->session_pid = 0;
			crelay_shared->membership_seq++;
			owned = true;
		}
	}
	LWLockRelease(crelay_shared->lock);
	if (owned)
		crelay_registry_wake_worker();
}

/*
 * Returns true if any child reports through a session.
 */
bool
crelay_registry_has_sessions(void)
{
	bool		found = false;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	for (int i = 0; i < crelay_shared->nchildren && !found; i++)
		found = crelay_shared->children[i].in_use &&
			crelay_shared->children[i].session_pid != 0;
	LWLockRelease(crelay_shared->lock);
	return found;
}

/*
 * Tells the sessions that children report through to end.  They take
 * themselves out when they do.
 */
void
crelay_registry_end_sessions(void)
{
	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	for (int i = 0; i < crelay_shared->nchildren; i++)
	{
		const CrelayChild *child = &crelay_shared->children[i];

		/* its pid is its own: see crelay_child_end_session() */
		if (child->in_use && child->session_pid != 0)
			(void) kill(child->session_pid, SIGTERM);
	}
	LWLockRelease(crelay_shared->lock);
}

/* ---- what it reports ---- */

/*
 * Whether the child is on another history than this node.  Its position lies
 * on its current timeline; where it came from it said with its tree part.
 */
static bool
is_diverged(const CrelayChild *child, const CrelayReport *report,
			const CrelayHistory *own_history, uint64 own_lsn)
{
	CrelayHistory theirs = {0};

	if (report->timeline == 0 || own_history->timeline == 0)
		return false;
	if (report->has_tree && report->history.timeline == report->timeline)
		theirs = report->history;
	else if (child->history.timeline == report->timeline)
		theirs = child->history;
	theirs.timeline = report->timeline;
	return !crelay_history_agrees(own_history, own_lsn, &theirs, report->replay_lsn);
}

/*
 * Whether a child has WAL that this node, a primary, will never have.  That
 * stays so when this node has passed the child with other WAL, until the child
 * streams steadily again: what it has does not go away.
 */
static bool
is_ahead(const CrelayChild *child, const CrelayReport *report, uint32 own_timeline,
		 uint64 own_lsn, bool own_is_primary)
{
	if (!own_is_primary || report->timeline != own_timeline)
		return false;
	return (child->ahead && report->feed != CRELAY_FEED_STREAMS) ||
		crelay_history_lacks(own_timeline, own_lsn, report->timeline,
							 Max(report->flush_lsn, report->replay_lsn));
}

/*
 * Whether a child has not said otherwise.
 */
bool
crelay_child_says_it_streams(const CrelayChild *child)
{
	return child->own_state != CRELAY_STATE_ARCHIVE &&
		child->own_state != CRELAY_STATE_DISCONNECTED &&
		child->own_state != CRELAY_STATE_RUNNING;
}

/*
 * Takes over what changes with every report.
 */
static void
accept_values(CrelayChild *child, const CrelayReport *report, TimestampTz now)
{
	CrelayNode *node = &child->node;

	node->timeline = report->timeline;
	node->flush_lsn = report->flush_lsn;
	node->replay_lsn = report->replay_lsn;
	node->frontier_lsn = report->frontier_lsn;
	node->oldest_wal_lsn = report->oldest_wal_lsn;
	node->protected = report->protected;
	node->hot_standby_feedback = report->hot_standby_feedback;
	node->warnings = report->warnings;
	node->moves = report->moves;
	node->feed = report->feed;
	node->pause = report->pause;
	node->apply_delay_ms = report->apply_delay_ms;
	node->backend_xmin = report->backend_xmin;
	strlcpy(node->xmin_pinned_by, report->xmin_pinned_by, sizeof(node->xmin_pinned_by));
	node->pin = report->pin;
	node->path_interval_ms = crelay_shared->local.node.path_interval_ms +
		Min(report->report_interval_ms, MAX_INTERVAL_MS);
	node->observed_at = now;
	child->own_state = report->state;
	child->own_class = report->replica_class;
	if (!crelay_child_says_it_streams(child))
		child->streams_since = 0;
	else if (child->streams_since == 0)
		child->streams_since = now;
	if (!child->reported)
	{
		/* until the worker has looked at its walsender */
		node->state = report->state;
		node->replica_class = report->replica_class;
	}
	child->hold_target_lsn = report->hold_target_lsn;
	child->report_interval_ms = Min(report->report_interval_ms, MAX_INTERVAL_MS);
	child->last_report = now;
	child->reported = true;
	child->lapsed_lsn = 0;
	child->reports++;
}

/*
 * Who is live in a list is not to be taken over by somebody else: as with a
 * hello.  When a node has moved, its former upstream says so.
 */
static void
contest_live(CrelayBranch *branch, const CrelayRowList *list)
{
	for (int row = list->first; row >= 0; row = crelay_shared->rows[row].next)
	{
		const CrelayRow *it = &crelay_shared->rows[row];

		if (!it->contested && crelay_row_is_live(&it->node))
			crelay_branch_contest(branch, it->node.incarnation);
	}
}

/*
 * Settles which rows of a child's report count: none about this node or one
 * above it, and none that does not hang below the child.  Those about a node
 * that speaks for itself here, or is live in another branch, count as evidence
 * only, unless they say that it has left.  Returns how many are believed.
 */
static int
judge_rows(const CrelayChild *child, CrelayBranch *branch, TimestampTz now)
{
	const CrelayLocal *local = &crelay_shared->local;

	crelay_branch_disbelieve(branch, local->node.incarnation);
	for (int i = 0; i < local->nhops; i++)
		crelay_branch_disbelieve(branch, local->hops[i].incarnation);
	for (int i = 0; i < crelay_shared->nchildren && branch->n > 0; i++)
	{
		const CrelayChild *other = &crelay_shared->children[i];

		if (!other->in_use || other == child || !crelay_child_is_live(other, now))
			continue;
		crelay_branch_contest(branch, other->node.incarnation);
		contest_live(branch, &other->rows);
	}
	if (branch->n > 0 && local->upstream_state == CRELAY_UPSTREAM_CONNECTED)
		contest_live(branch, &crelay_shared->upstream);
	return crelay_branch_finish(branch, &child->node);
}

/*
 * Notes which of our children speak to another upstream as well: there are two of
 * each, from a copy of a volume.  A node that has moved was heard of there
 * before it called here; the pause is for what was on its way then.
 */
static void
note_doubles(const CrelayBranch *branch, TimestampTz now)
{
	for (int i = 0; i < branch->n && branch->contested > 0; i++)
	{
		const CrelayNode *node = &branch->nodes[i];

		if (branch->beliefs[i] != CRELAY_BELIEF_CONTESTED || !crelay_row_is_live(node))
			continue;
		for (int c = 0; c < crelay_shared->nchildren; c++)
		{
			CrelayChild *child = &crelay_shared->children[c];

			if (child->in_use && child->node.incarnation == node->incarnation &&
				crelay_child_is_live(child, now) &&
				node->observed_at > child->connected_at + DOUBLE_PAUSE_US)
				child->duplicate_seen = now;
		}
	}
}

/*
 * Enters the rows of a report that are believed, or those that are contested,
 * as far as there is room.
 */
static void
add_rows(CrelayRowList *list, const CrelayBranch *branch, CrelayBelief belief)
{
	for (int i = 0; i < branch->n; i++)
	{
		CrelayRow  *to;

		if (branch->beliefs[i] != belief)
			continue;
		to = crelay_rows_add(list);
		if (to == NULL)
		{
			list->cut = true;
			break;
		}
		to->node = branch->nodes[i];
		to->contested = belief == CRELAY_BELIEF_CONTESTED;
	}
}

/*
 * Takes what an earlier upstream said of the unmanaged nodes below a child out of
 * the tree: as after a switchover, the child says for itself what it feeds.
 */
static void
overrule_upstream(const CrelayChild *child)
{
	for (int row = crelay_shared->upstream.first; row >= 0; row = crelay_shared->rows[row].next)
	{
		CrelayRow  *it = &crelay_shared->rows[row];

		if (!it->node.managed && it->node.upstream_incarnation == child->node.incarnation)
			it->contested = true;
	}
}

/*
 * Takes over the tree part: what is rarely said of the child itself, and the
 * rows below it that are believed.
 */
static void
accept_tree(CrelayChild *child, const CrelayReport *report,
			CrelayBranch *branch, TimestampTz now)
{
	uint64		before = crelay_rows_digest(&child->rows);
	int			unread = (int) report->nrows - branch->n;
	int			believed;

	crelay_shared->below_seq++;
	child->has_about = true;
	child->history = report->history;
	strlcpy(child->slot_name, report->about.slot_name, sizeof(child->slot_name));
	strlcpy(child->application_name, report->about.application_name,
			sizeof(child->application_name));
	strlcpy(child->node.location, report->about.location,
			sizeof(child->node.location));
	strlcpy(child->node.conninfo, report->about.conninfo,
			sizeof(child->node.conninfo));
	strlcpy(child->node.version, report->about.version,
			sizeof(child->node.version));
	strlcpy(child->node.upstream_address, report->about.upstream_address,
			sizeof(child->node.upstream_address));
	child->node.room = report->about.room;

	crelay_rows_free(&child->rows);
	overrule_upstream(child);
	believed = judge_rows(child, branch, now);
	note_doubles(branch, now);
	crelay_rows_make_room(believed + branch->contested, child->node.name, now);
	/* nobody else is to make room for what was not even read */
	if (unread > 0)
		crelay_rows_note_full((int) report->nrows, child->node.name, now);
	child->rows.cut = unread > 0 || branch->too_deep;
	add_rows(&child->rows, branch, CRELAY_BELIEVED);
	/* last, so that they go first where there is no room */
	add_rows(&child->rows, branch, CRELAY_BELIEF_CONTESTED);
	if (crelay_rows_digest(&child->rows) != before)
		crelay_shared->membership_seq++;
}

/*
 * Takes a report.  False if the session does not own the node any more; then
 * nothing has changed.  Wakes the worker if what the child needs has moved by
 * a segment or more.  Says whether the child is on another history: then its
 * figures are shown, but count for nothing, and its hold is to stay.  Says
 * whether the child has told a higher move counter, which is to be saved.
 */
bool
crelay_registry_accept(int child_slot, uint32 incarnation, pid_t pid,
					   const CrelayReport *report, CrelayBranch *branch,
					   const CrelayHistory *own_history, uint64 own_lsn,
					   bool own_is_primary, uint64 segment_size,
					   TimestampTz now, bool *diverged,
					   bool *raised)
{
	CrelayChild *child;
	bool		wake;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	child = owned_child(child_slot, incarnation, pid);
	if (child == NULL)
	{
		LWLockRelease(crelay_shared->lock);
		return false;
	}
	child->ahead = is_ahead(child, report, own_history->timeline, own_lsn, own_is_primary);
	*diverged = child->ahead || is_diverged(child, report, own_history, own_lsn);
	wake = !child->reported || child->lapsed_lsn != 0 || child->diverged != *diverged ||
		child->node.frontier_lsn / segment_size != report->frontier_lsn / segment_size ||
		child->hold_target_lsn / segment_size != report->hold_target_lsn / segment_size;
	if (!child->reported || child->lapsed_lsn != 0 || child->diverged != *diverged ||
		report->hold_target_lsn < child->hold_target_lsn)
		crelay_shared->floor_seq++;
	if (!child->reported || child->diverged != *diverged)
		crelay_shared->membership_seq++;
	child->diverged = *diverged;
	/* whatever is kept for the node elsewhere is released by that */
	if (child->node.moves != report->moves)
		crelay_shared->membership_seq++;
	accept_values(child, report, now);
	*raised = crelay_told_raise(incarnation, report->moves);
	if (report->has_tree)
		accept_tree(child, report, branch, now);
	crelay_shared->local.reports_received++;
	LWLockRelease(crelay_shared->lock);

	if (wake)
		crelay_registry_wake_worker();
	return true;
}

/* ---- what it is told ---- */

/*
 * The name of a child's hold.
 */
void
crelay_registry_hold_name(int child_slot, char *name)
{
	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	strlcpy(name, crelay_shared->children[child_slot].hold_name, CRELAY_SLOT_LEN);
	LWLockRelease(crelay_shared->lock);
}

/*
 * Remembers what the child is being told about its hold; returns whether it has
 * had one before, and be it that it could not be looked at last time.
 */
bool
crelay_registry_set_held(int child_slot, pid_t pid, uint64 held_lsn,
						 CrelayRefusal reason)
{
	CrelayChild *child;
	bool		had_hold = false;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	child = &crelay_shared->children[child_slot];
	if (child->in_use && child->session_pid == pid)
	{
		had_hold = child->had_hold;

		/* a hold that was just placed, or lost, is a new need */
		if ((child->held_lsn == 0) != (held_lsn == 0))
			crelay_shared->floor_seq++;
		child->held_lsn = held_lsn;
		child->had_hold |= held_lsn != 0;
		child->hold_gone = false;
		child->hold_reason = reason;
	}
	LWLockRelease(crelay_shared->lock);
	return had_hold;
}

/*
 * Remembers that somebody else dropped the child's hold, or that the server had
 * invalidated it, so that it is told for a while.
 */
void
crelay_registry_note_dropped(int child_slot, pid_t pid, bool by_server, TimestampTz now)
{
	CrelayChild *child;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	child = &crelay_shared->children[child_slot];
	if (child->in_use && child->session_pid == pid)
	{
		child->hold_dropped_at = now;
		child->hold_dropped_by_server = by_server;
	}
	LWLockRelease(crelay_shared->lock);
}

/*
 * Whether the reply to the session's report brings the tree: if it was asked
 * for, or if there is news since the child was last told.  News go down at
 * once, or what is seen at the far end would grow older with each node between
 * by a whole round; but not to many children all the time.
 */
bool
crelay_registry_tell_tree(int child_slot, pid_t pid, bool asked, TimestampTz now)
{
	CrelayChild *child = &crelay_shared->children[child_slot];
	uint64		news;
	int64		pause_ms;
	bool		tell;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	news = crelay_shared->above_seq + crelay_shared->membership_seq;
	pause_ms = Max((int64) child->report_interval_ms,
				   (int64) crelay_shared->nconnected * TELL_PAUSE_MS);
	tell = child->session_pid == pid &&
		(asked || (news != child->told_seq && now - child->told_at >= pause_ms * 1000));
	if (tell)
	{
		child->told_seq = news;
		child->told_at = now;
	}
	LWLockRelease(crelay_shared->lock);
	return tell;
}

/*
 * What a reply says of this node and its path, and of the child (-1: none) as
 * seen from here.  Answer, refusal, sequence and held LSN are the caller's.
 *
 * The LSN that an upper node holds for this branch can move up to what this
 * node has already sent, so that is what the child may rely on.  This is read
 * after the child was registered: from then on publish_target() lets nothing
 * be sent that does not count it.  One that was released is not counted until
 * the worker has seen that it has caught up: nobody above holds for it.  Nor may
 * anybody below rely on that while this node itself cannot.
 */
void
crelay_registry_fill_reply(int child_slot, CrelayReply *reply)
{
	const CrelayLocal *local = &crelay_shared->local;
	CrelaySettings settings;
	int64		dropped_shown_us;
	bool		counts = true;

	crelay_guc_copy(&settings);
	dropped_shown_us = (int64) settings.stale_timeout_ms * 1000 * CRELAY_LONG_TIMEOUTS;
	reply->replay_lag = -1;
	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	if (!local->ready)
	{
		/* before the worker's first pass there is nothing to say */
		strlcpy(reply->node_name, CRELAY_UNKNOWN_NODE, sizeof(reply->node_name));
		LWLockRelease(crelay_shared->lock);
		return;
	}
	strlcpy(reply->node_name, local->node.name, sizeof(reply->node_name));
	reply->incarnation = local->node.incarnation;
	if (child_slot >= 0)
	{
		const CrelayChild *child = &crelay_shared->children[child_slot];

		reply->state = child->node.state;
		reply->replica_class = child->node.replica_class;
		reply->replay_lag = child->node.replay_lag;
		reply->slot_fate = child->slot_fate;
		if (child->duplicate_seen != 0 &&
			GetCurrentTimestamp() - child->duplicate_seen < DUPLICATE_SHOWN_US)
			reply->warnings |= CRELAY_WARN_DUPLICATE_NAME;
		if (child->unfed_since != 0 && GetCurrentTimestamp() - child->unfed_since >
			(int64) settings.stale_timeout_ms * 1000)
			reply->warnings |= CRELAY_WARN_REPORTS_ELSEWHERE;
		if (child->hold_dropped_at != 0 &&
			GetCurrentTimestamp() - child->hold_dropped_at < dropped_shown_us)
			reply->warnings |= child->hold_dropped_by_server ?
				CRELAY_WARN_HOLD_INVALIDATED : CRELAY_WARN_HOLD_DROPPED;
		counts = crelay_released_lsn(child->hold_name) == 0;
	}
	reply->root_known = crelay_local_knows_root(local, settings.stale_timeout_ms);
	reply->root_age_ms = crelay_local_root_age_ms(local);
	reply->path_interval_ms = local->node.path_interval_ms;
	reply->oldest_wal_lsn = local->node.oldest_wal_lsn;
	/* without news from the root, nobody below knows how far behind it is */
	if (reply->root_known &&
		(local->node.role == CRELAY_ROLE_PRIMARY ||
		 local->upstream_state == CRELAY_UPSTREAM_CONNECTED))
		reply->root_lsn = local->root_lsn;
	reply->sync_names = local->sync_names;
	reply->tree_hold_lsn = local->tree_hold_lsn;
	reply->nhops = 0;
	for (int i = 0; i < local->nhops && i < CRELAY_MAX_DEPTH - 1; i++)
	{
		CrelayHop  *hop = &reply->hops[reply->nhops++];

		*hop = local->hops[i];
		if (!counts || !crelay_feed_is_promise(local->node.feed))
			hop->held_lsn = 0;
		else if (hop->held_lsn != 0 && local->sent_target_lsn > hop->held_lsn)
			hop->held_lsn = local->sent_target_lsn;
	}
	strlcpy(reply->hops[reply->nhops].name, local->node.name,
			sizeof(reply->hops[0].name));
	reply->hops[reply->nhops].incarnation = local->node.incarnation;
	reply->hops[reply->nhops++].held_lsn = reply->held_lsn;
	LWLockRelease(crelay_shared->lock);
}
