/*-------------------------------------------------------------------------
 *
 * not_preloaded.c
 *	  Taking reports on a server that does not preload the library.
 *
 * Owns, leaves out and locks: see not_preloaded.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/procarray.h"
#include "utils/timestamp.h"

#include "decide/history.h"
#include "node/bounds.h"
#include "node/downstream.h"
#include "node/hold.h"
#include "server/advisory.h"
#include "server/compat.h"
#include "server/guc.h"
#include "server/instance.h"
#include "sql/not_preloaded.h"

/* Of this server; 0 as long as it has served nobody from this session. */
static uint32 own_incarnation;

/* The node that this session speaks for; an incarnation of 0: none. */
static char my_node_name[CRELAY_NODE_NAME_MAX + 1];
static uint32 my_incarnation;
static uint64 my_start_id;

/* What it has said of the timelines that it was on. */
static CrelayHistory my_history;

/* What it was told, and when somebody else had dropped its hold. */
static bool my_hold_was_there;
static bool my_child_is_ahead;
static TimestampTz my_hold_dropped_at;
static bool my_hold_dropped_by_server;

/* ---- who may speak for a node ---- */

static bool
take_lock(CrelayAdvisory kind, uint64 key, bool wait)
{
	LOCKTAG		tag;

	crelay_advisory_tag(&tag, kind, key);
	switch (LockAcquire(&tag, ExclusiveLock, true, !wait))
	{
		case LOCKACQUIRE_NOT_AVAIL:
			return false;
		case LOCKACQUIRE_ALREADY_HELD:
		case LOCKACQUIRE_ALREADY_CLEAR:
			/* counted twice now */
			(void) LockRelease(&tag, ExclusiveLock, true);
			return true;
		case LOCKACQUIRE_OK:
			return true;
	}
	return false;
}

static void
unlock(CrelayAdvisory kind, uint64 key)
{
	LOCKTAG		tag;

	crelay_advisory_tag(&tag, kind, key);
	if (crelay_lock_is_mine(&tag, ExclusiveLock))
		(void) LockRelease(&tag, ExclusiveLock, true);
}

static uint64
name_key(const char *node_name)
{
	return hash_bytes_extended((const unsigned char *) node_name,
							   (int) strlen(node_name), 0);
}

/*
 * The process that holds such a lock, 0 for none.
 */
static pid_t
lock_holder(CrelayAdvisory kind, uint64 key)
{
	LockData   *data = GetLockStatusData();
	pid_t		pid = 0;
	LOCKTAG		tag;

	crelay_advisory_tag(&tag, kind, key);
	for (int i = 0; i < data->nelements && pid == 0; i++)
	{
		if (data->locks[i].holdMask != 0 &&
			memcmp(&data->locks[i].locktag, &tag, sizeof(tag)) == 0)
			pid = data->locks[i].pid;
	}
	return pid;
}

static void
leave(void)
{
	if (my_incarnation == 0)
		return;
	unlock(CRELAY_ADVISORY_WORKER, my_start_id);
	unlock(CRELAY_ADVISORY_INCARNATION, my_incarnation);
	unlock(CRELAY_ADVISORY_NAME, name_key(my_node_name));
	my_incarnation = 0;
}

/*
 * Whether this session still, or again, is the only one that speaks for its
 * node: whoever uses it may have let go of all advisory locks.
 */
static bool
speaks_for_node(bool wait)
{
	return take_lock(CRELAY_ADVISORY_WORKER, my_start_id, wait) &&
		take_lock(CRELAY_ADVISORY_INCARNATION, my_incarnation, wait) &&
		take_lock(CRELAY_ADVISORY_NAME, name_key(my_node_name), wait);
}

/*
 * The very same worker says hello again, because its connection was cut without
 * a word: its earlier session, which has not noticed yet, is ended.  False if
 * there is none; else it is to be waited for, lock by lock, no longer than the
 * session's lock_timeout.
 */
static bool
oust_earlier_session(void)
{
	pid_t		pid = lock_holder(CRELAY_ADVISORY_WORKER, my_start_id);

	if (pid == 0 || pid == MyProcPid)
		return false;
	if (BackendPidGetProc(pid) != NULL)
		(void) kill(pid, SIGTERM);
	return true;
}

/* ---- this node ---- */

/*
 * Who this instance is.  Two sessions that find that it has no incarnation yet
 * make one together.
 */
static void
establish_identity(void)
{
	CrelayIdentity identity;
	LOCKTAG		tag;

	if (own_incarnation != 0)
		return;
	crelay_advisory_tag(&tag, CRELAY_ADVISORY_IDENTITY, 0);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	crelay_instance_keep_name();
	crelay_instance_identity(&identity, 0);
	own_incarnation = identity.now.incarnation;
	LockRelease(&tag, ExclusiveLock, false);
}

static CrelayRefusal
refuse_stranger(const CrelayHello *hello, char *detail, Size detail_size)
{
	CrelaySettings settings;

	establish_identity();
	crelay_guc_copy(&settings);
	if (hello->system_identifier != GetSystemIdentifier())
	{
		snprintf(detail, detail_size, "its system identifier is " UINT64_FORMAT,
				 GetSystemIdentifier());
		return CRELAY_REFUSE_SYSTEM;
	}
	if (hello->incarnation == own_incarnation)
		return CRELAY_REFUSE_SELF;
	if (strcmp(hello->node_name, settings.node_name) == 0)
		return CRELAY_REFUSE_OWN_NAME;
	return CRELAY_REFUSE_NONE;
}

/*
 * Whether anything can be done for a child now; the reply says why not.  Nobody
 * wakes up here to move a hold that has grown too large: unless the server
 * itself gives it up then, the disk would be at the mercy of a child that is
 * away.
 */
bool
crelay_unloaded_may_serve(CrelayReply *reply)
{
	CrelaySettings settings;

	crelay_guc_copy(&settings);
	if (crelay_instance_is_stopping())
		reply->answer = CRELAY_ANSWER_CLOSING;
	else if (!settings.enabled)
		reply->refusal = CRELAY_REFUSE_DISABLED;
	else if (max_slot_wal_keep_size_mb < 0)
		reply->refusal = CRELAY_REFUSE_UNBOUNDED;
	else
		return true;
	return false;
}

/*
 * Makes this session the one that speaks for the node.
 */
void
crelay_unloaded_answer_hello(const CrelayHello *hello, CrelayReply *reply)
{
	leave();
	reply->refusal = refuse_stranger(hello, reply->detail, sizeof(reply->detail));
	if (reply->refusal != CRELAY_REFUSE_NONE)
		return;

	strlcpy(my_node_name, hello->node_name, sizeof(my_node_name));
	my_incarnation = hello->incarnation;
	my_start_id = hello->start_id;
	memset(&my_history, 0, sizeof(my_history));
	my_hold_was_there = false;
	my_child_is_ahead = false;
	my_hold_dropped_at = 0;
	if (speaks_for_node(false) || (oust_earlier_session() && speaks_for_node(true)))
		reply->answer = CRELAY_ANSWER_OK;
	else
	{
		leave();
		reply->refusal = CRELAY_REFUSE_DUPLICATE;
	}
}

/* ---- the hold ---- */

/*
 * Whether the child is on another history than this node.  Where it has been
 * it says with its tree part, of which its first report is one.
 */
static bool
is_diverged(const CrelayReport *report, const CrelayPosition *position)
{
	CrelayHistory theirs = {0};

	if (report->timeline == 0)
		return false;
	if (report->has_tree)
		my_history = report->history;
	if (my_history.timeline == report->timeline)
		theirs = my_history;
	theirs.timeline = report->timeline;
	/* once so, it stays so for this session: see is_ahead() of the registry */
	my_child_is_ahead = !position->in_recovery &&
		report->timeline == position->timeline &&
		((my_child_is_ahead && report->feed != CRELAY_FEED_STREAMS) ||
		 crelay_history_lacks(position->timeline, position->applied_lsn, report->timeline,
							  Max(report->flush_lsn, report->replay_lsn)));
	return my_child_is_ahead || !crelay_history_agrees(crelay_read_history(position->timeline),
													   position->applied_lsn, &theirs, report->replay_lsn);
}

static void
my_hold_name(char *name)
{
	snprintf(name, CRELAY_SLOT_LEN, "%s%s_%08x",
			 CRELAY_HOLD_PREFIX, my_node_name, my_incarnation);
}

/*
 * Leaves the hold where it is, and keeps the server from taking it for one that
 * nobody uses any more.
 */
static void
keep_hold(const CrelayPosition *position)
{
	CrelayHoldRequest request = {0};
	CrelayHoldResult result;
	char		slot_name[CRELAY_SLOT_LEN];

	my_hold_name(slot_name);
	request.slot_name = slot_name;
	request.unloaded = true;
	crelay_hold_apply(&request, position, &result);
}

/*
 * Puts the child's hold where its report wants it, as far as the bounds allow;
 * never back, because nobody here knows what covers it.  No other session can
 * touch it, for none else speaks for the node.
 */
static void
serve_hold(const CrelayReport *report, const CrelayPosition *position,
		   CrelayReply *reply)
{
	static CrelayDiskBound disk;
	CrelayHoldRequest request = {0};
	CrelayHoldResult result;
	CrelayBounds bounds;
	CrelaySettings settings;
	char		slot_name[CRELAY_SLOT_LEN];
	bool		look_again;

	crelay_guc_copy(&settings);
	my_hold_name(slot_name);
	(void) crelay_bounds_look(&settings, position, GetCurrentTimestamp(), &disk, &look_again);
	crelay_bounds_of(&settings, position->flush_lsn, &disk, &bounds);
	request.slot_name = slot_name;
	request.create = true;
	request.unloaded = true;
	request.target = Max(report->hold_target_lsn, bounds.floor_lsn);
	request.impossible = !bounds.can_hold;
	if (!request.impossible && request.target != report->hold_target_lsn)
		reply->warnings |= CRELAY_WARN_HOLD_CLAMPED;

	crelay_hold_apply(&request, position, &result);
	reply->held_lsn = result.held_lsn;
	reply->refusal = result.reason;
	crelay_hold_log(slot_name, &result, my_hold_was_there);
	if (result.replaced || (result.created && my_hold_was_there))
	{
		my_hold_dropped_at = GetCurrentTimestamp();
		my_hold_dropped_by_server = result.replaced;
	}
	my_hold_was_there |= result.held_lsn != 0;
}

void
crelay_unloaded_answer_report(const CrelayReport *report, CrelayReply *reply)
{
	CrelayPosition position;

	reply->sequence = report->sequence;
	if (my_incarnation == 0)
	{
		reply->refusal = CRELAY_REFUSE_NO_HELLO;
		return;
	}
	if (!speaks_for_node(false))
	{
		leave();
		reply->refusal = CRELAY_REFUSE_OUSTED;
		return;
	}
	reply->answer = CRELAY_ANSWER_OK;
	reply->has_tree = report->has_tree;
	crelay_read_position(&position);
	if (is_diverged(report, &position))
	{
		reply->refusal = CRELAY_HELD_DIVERGED;
		keep_hold(&position);
	}
	else if (report->hold_target_lsn != 0)
		serve_hold(report, &position, reply);
}

/* ---- what is said of this node ---- */

/*
 * The path to the root is this node alone: a primary is a root, and holds WAL
 * as well as one that preloads the library; a standby cannot know of one.
 */
void
crelay_unloaded_fill_reply(CrelayReply *reply)
{
	CrelayPosition position;
	CrelaySettings settings;
	int64		dropped_shown_us;

	crelay_guc_copy(&settings);
	crelay_read_position(&position);
	strlcpy(reply->node_name, settings.node_name, sizeof(reply->node_name));
	reply->incarnation = own_incarnation;
	reply->root_known = !position.in_recovery;
	/* all of this is read for each reply */
	reply->root_age_ms = position.in_recovery ? CRELAY_AGE_UNKNOWN : 0;
	if (!position.in_recovery)
	{
		reply->root_lsn = position.flush_lsn;
		crelay_read_sync_names(&reply->sync_names);
	}
	dropped_shown_us = (int64) settings.stale_timeout_ms * 1000 * CRELAY_LONG_TIMEOUTS;
	if (my_hold_dropped_at != 0 &&
		GetCurrentTimestamp() - my_hold_dropped_at < dropped_shown_us)
		reply->warnings |= my_hold_dropped_by_server ?
			CRELAY_WARN_HOLD_INVALIDATED : CRELAY_WARN_HOLD_DROPPED;
	strlcpy(reply->hops[0].name, settings.node_name, sizeof(reply->hops[0].name));
	reply->hops[0].incarnation = reply->incarnation;
	reply->hops[0].held_lsn = reply->held_lsn;
	reply->nhops = 1;
}

/*
 * This node as a row of the tree, which says what it lacks.
 */
void
crelay_unloaded_fill_row(CrelayNode *row)
{
	CrelayPosition position;
	CrelayReceiver receiver;
	CrelaySettings settings;

	crelay_guc_copy(&settings);
	crelay_read_position(&position);
	crelay_read_receiver(&receiver);
	memset(row, 0, sizeof(CrelayNode));
	strlcpy(row->name, settings.node_name, sizeof(row->name));
	row->incarnation = own_incarnation;
	row->managed = true;
	row->timeline = position.timeline;
	row->flush_lsn = position.flush_lsn;
	row->replay_lsn = position.applied_lsn;
	row->replay_lag = -1;
	crelay_read_room(&row->room);
	row->warnings = CRELAY_WARN_NOT_PRELOADED;
	row->observed_at = GetCurrentTimestamp();
	strlcpy(row->location, settings.location, sizeof(row->location));
	strlcpy(row->conninfo, settings.advertised_conninfo, sizeof(row->conninfo));
	strlcpy(row->version, crelay_message_software(), sizeof(row->version));
	if (position.in_recovery)
	{
		row->role = CRELAY_ROLE_STANDBY;
		row->state = receiver.streaming ? CRELAY_STATE_STREAMING : CRELAY_STATE_ARCHIVE;
	}
	else
	{
		row->role = CRELAY_ROLE_PRIMARY;
		row->state = CRELAY_STATE_RUNNING;
		row->protected = CRELAY_TRUE;
	}
}
