/*-------------------------------------------------------------------------
 *
 * registry.c
 *	  What this node knows, in fixed shared memory.
 *
 * Owns: making the segment; reading it; what the worker publishes of this
 * node, and the rows that no child has reported.
 *
 * Not here: the children (registry_children.c), what is known slot by slot
 * (registry_slots.c), the lists of rows (registry_rows.c), and what is let go
 * of (registry_forget.c).
 *
 * Locking: see registry.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "registry/registry_internal.h"
#include "server/clock.h"
#include "server/guc.h"

CrelayRegistry *crelay_shared;

Size
crelay_registry_size(void)
{
	Size		n = (Size) crelay_guc_max_nodes();
	Size		size = offsetof(CrelayRegistry, children);

	size = add_size(size, mul_size(n, sizeof(CrelayChild)));
	size = add_size(MAXALIGN(size), mul_size(n, sizeof(CrelayRow)));
	size = add_size(MAXALIGN(size), mul_size(crelay_max_released(), sizeof(CrelayReleased)));
	size = add_size(MAXALIGN(size), mul_size(max_replication_slots, sizeof(CrelayCover)));
	size = add_size(MAXALIGN(size), mul_size(max_replication_slots, sizeof(CrelaySlotUser)));
	size = add_size(MAXALIGN(size), mul_size(max_replication_slots, sizeof(CrelayTold)));
	size = add_size(MAXALIGN(size), mul_size(max_replication_slots, sizeof(CrelaySlotNeed)));
	return add_size(MAXALIGN(size),
					mul_size(max_replication_slots, sizeof(CrelayHoldNote)));
}

/*
 * The next array in the segment.
 */
static void *
carve(char **next, Size n, Size size)
{
	void	   *array = *next;

	*next += MAXALIGN(n * size);
	return array;
}

/*
 * Finds or makes the segment; says whether it was made.  The caller holds
 * AddinShmemInitLock.
 */
bool
crelay_registry_init(void)
{
	int			max_nodes = crelay_guc_max_nodes();
	char	   *next;
	bool		found;

	crelay_shared = ShmemInitStruct("cascade_relay", crelay_registry_size(), &found);
	if (found)
		return false;

	memset(crelay_shared, 0, crelay_registry_size());
	crelay_shared->lock = &GetNamedLWLockTranche("cascade_relay")[CRELAY_LOCK_REGISTRY].lock;
	crelay_shared->max_nodes = max_nodes;
	next = (char *) crelay_shared +
		MAXALIGN(offsetof(CrelayRegistry, children) + sizeof(CrelayChild) * max_nodes);
	crelay_shared->rows = carve(&next, max_nodes, sizeof(CrelayRow));
	crelay_shared->released = carve(&next, crelay_max_released(), sizeof(CrelayReleased));
	crelay_shared->covers = carve(&next, max_replication_slots, sizeof(CrelayCover));
	crelay_shared->users = carve(&next, max_replication_slots, sizeof(CrelaySlotUser));
	crelay_shared->told = carve(&next, max_replication_slots, sizeof(CrelayTold));
	crelay_shared->needs = carve(&next, max_replication_slots, sizeof(CrelaySlotNeed));
	crelay_shared->notes = carve(&next, max_replication_slots, sizeof(CrelayHoldNote));
	for (int i = 0; i < max_nodes; i++)
		crelay_shared->rows[i].next = i + 1 < max_nodes ? i + 1 : -1;
	crelay_shared->first_free = 0;
	crelay_shared->unmanaged.first = -1;
	crelay_shared->upstream.first = -1;
	return true;
}

bool
crelay_registry_is_there(void)
{
	return crelay_shared != NULL;
}

/*
 * The polite error of every function that needs the shared memory.
 */
void
crelay_registry_require(void)
{
	if (crelay_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cascade_relay must be loaded via \"%s\"",
						"shared_preload_libraries"),
				 errhint("Add cascade_relay to \"%s\" in postgresql.conf and restart this server.",
						 "shared_preload_libraries")));
}

/*
 * The child with that hold, -1 if there is none; the caller holds the lock.
 */
int
crelay_registry_find_hold(const char *hold_name)
{
	for (int i = 0; i < crelay_shared->nchildren; i++)
	{
		if (crelay_shared->children[i].in_use &&
			strcmp(crelay_shared->children[i].hold_name, hold_name) == 0)
			return i;
	}
	return -1;
}

/* ---- reading ---- */

/*
 * Copies the rows of one list that are contested, or those that are not, behind
 * what there is; the caller has made sure of the room.  Returns how many.
 */
static int
copy_rows(CrelaySnapshot *snapshot, const CrelayRowList *list, int origin, bool contested)
{
	int			from = snapshot->nrows + snapshot->ncontested;
	int			n = from;

	for (int row = list->first; row >= 0; row = crelay_shared->rows[row].next)
	{
		if (crelay_shared->rows[row].contested != contested)
			continue;
		snapshot->rows[n] = crelay_shared->rows[row].node;
		snapshot->row_origins[n++] = origin;
	}
	return n - from;
}

/*
 * From here on nobody has news of those rows.
 */
static void
make_stale(CrelaySnapshot *snapshot, int from, int n)
{
	for (int i = from; i < from + n; i++)
	{
		if (snapshot->rows[i].state != CRELAY_STATE_DOWN)
			snapshot->rows[i].state = CRELAY_STATE_STALE;
	}
}

/*
 * Copies what a child has said of the nodes below it.  While the child itself
 * is down, nobody has news of them.
 */
static int
copy_child_rows(CrelaySnapshot *snapshot, int child_slot, bool contested)
{
	const CrelayChild *child = &crelay_shared->children[child_slot];
	int			from = snapshot->nrows + snapshot->ncontested;
	int			n = copy_rows(snapshot, &child->rows, child_slot, contested);

	if (child->node.state == CRELAY_STATE_DOWN)
		make_stale(snapshot, from, n);
	return n;
}

/*
 * Copies what the upstream has said of the rest of the tree.  Once this node
 * has been promoted there is nobody left to bring news of that.
 */
static int
copy_upstream_rows(CrelaySnapshot *snapshot)
{
	int			from = snapshot->nrows;
	int			n = copy_rows(snapshot, &crelay_shared->upstream, CRELAY_ORIGIN_UPSTREAM,
							  false);

	if (crelay_shared->local.node.role == CRELAY_ROLE_PRIMARY)
		make_stale(snapshot, from, n);
	return n;
}

static void
copy_under_lock(CrelaySnapshot *snapshot, bool with_rows)
{
	snapshot->local = crelay_shared->local;
	snapshot->floor_seq = crelay_shared->floor_seq;
	snapshot->membership_seq = crelay_shared->membership_seq;
	snapshot->below_seq = crelay_shared->below_seq;
	snapshot->above_seq = crelay_shared->above_seq;
	snapshot->nreleased = crelay_shared->nreleased;
	snapshot->released_seq = crelay_shared->released_seq;
	snapshot->forgotten_seq = crelay_shared->forgotten_seq;
	memcpy(snapshot->released, crelay_shared->released,
		   sizeof(CrelayReleased) * snapshot->nreleased);
	snapshot->nchildren = 0;
	snapshot->nrows = 0;
	snapshot->ncontested = 0;
	snapshot->upstream_cut = crelay_shared->upstream.cut;
	for (int i = 0; i < crelay_shared->nchildren; i++)
	{
		if (!crelay_shared->children[i].in_use)
			continue;
		snapshot->children[snapshot->nchildren] = crelay_shared->children[i];
		snapshot->child_slots[snapshot->nchildren++] = i;
		if (with_rows)
			snapshot->nrows += copy_child_rows(snapshot, i, false);
	}
	if (!with_rows)
		return;
	snapshot->nrows += copy_rows(snapshot, &crelay_shared->unmanaged,
								 CRELAY_ORIGIN_UNMANAGED, false);
	snapshot->nrows += copy_upstream_rows(snapshot);
	for (int i = 0; i < snapshot->nchildren; i++)
		snapshot->ncontested += copy_child_rows(snapshot, snapshot->child_slots[i], true);
}

/*
 * Copies the registry.  Memory is allocated before the lock is taken, so it is
 * tried again if more has come in between.
 */
void
crelay_registry_snapshot(CrelaySnapshot *snapshot, bool with_rows)
{
	for (;;)
	{
		int			nchildren;
		int			nrows;
		bool		fits;

		LWLockAcquire(crelay_shared->lock, LW_SHARED);
		nchildren = crelay_shared->nchildren;
		nrows = with_rows ? crelay_shared->nrows : 0;
		LWLockRelease(crelay_shared->lock);

		nchildren += 8;
		nrows += 32;
		snapshot->children = palloc_array(CrelayChild, nchildren);
		snapshot->child_slots = palloc_array(int, nchildren);
		snapshot->rows = palloc_array(CrelayNode, nrows);
		snapshot->released = palloc_array(CrelayReleased, crelay_max_released());
		snapshot->row_origins = palloc_array(int, nrows);

		LWLockAcquire(crelay_shared->lock, LW_SHARED);
		fits = crelay_shared->nchildren <= nchildren &&
			(!with_rows || crelay_shared->nrows <= nrows);
		if (fits)
			copy_under_lock(snapshot, with_rows);
		LWLockRelease(crelay_shared->lock);
		if (fits)
			return;
	}
}

void
crelay_registry_get_local(CrelayLocal *local)
{
	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	*local = crelay_shared->local;
	LWLockRelease(crelay_shared->lock);
}

/*
 * What the worker has last found the disk to leave for holds.
 */
void
crelay_registry_get_disk(CrelayDiskBound *disk)
{
	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	*disk = crelay_shared->local.disk;
	LWLockRelease(crelay_shared->lock);
}

bool
crelay_registry_is_stopping(void)
{
	bool		stopping;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	stopping = crelay_shared->local.stopping;
	LWLockRelease(crelay_shared->lock);
	return stopping;
}

/*
 * The age of what a node knows of its root, from the moment on when the root was
 * so for certain.
 */
uint32
crelay_local_root_age_ms(const CrelayLocal *local)
{
	int64		age = (crelay_clock_us() - local->root_heard) / 1000;

	if (local->root_heard == 0)
		return CRELAY_AGE_UNKNOWN;
	return (uint32) Max(0, Min(age, (int64) CRELAY_AGE_UNKNOWN - 1));
}

/*
 * Returns true if a node knows its root, and what it knows is not too old.  Others
 * than the worker ask this too: what a worker has left when it was stopped says
 * for ever what was so then.
 */
bool
crelay_local_knows_root(const CrelayLocal *local, int stale_timeout_ms)
{
	int64		limit = crelay_news_limit((int64) stale_timeout_ms * 1000,
										  local->node.path_interval_ms);

	return local->root_known && local->root_heard != 0 &&
		crelay_clock_us() - local->root_heard <= limit;
}

/*
 * A number that moves with all that is known of the tree.
 */
uint64
crelay_registry_tree_seq(void)
{
	uint64		seq;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	seq = crelay_shared->membership_seq + crelay_shared->below_seq + crelay_shared->above_seq;
	LWLockRelease(crelay_shared->lock);
	return seq;
}

/*
 * Adds what a list of rows says of a node that is live below another node; the
 * caller holds the lock.
 */
static void
find_in_rows(const CrelayRowList *list, const char *name, uint32 incarnation,
			 uint32 told, TimestampTz since, CrelayElsewhere *found)
{
	for (int row = list->first; row >= 0; row = crelay_shared->rows[row].next)
	{
		const CrelayNode *node = &crelay_shared->rows[row].node;

		if (node->incarnation != incarnation ||
			node->upstream_incarnation == crelay_shared->local.node.incarnation ||
			node->observed_at <= since ||
			!crelay_row_is_live(node) ||
			strcmp(node->name, name) != 0)
			continue;
		if (found->live++ == 0)
			strlcpy(found->upstream_name, node->upstream_name,
					sizeof(found->upstream_name));
		if (node->protected == CRELAY_TRUE && told != 0 && node->moves > told)
			found->moved = true;
	}
}

/*
 * Looks for a node that was a child of this one in what other nodes have said
 * since that time.  told: the highest counter that it has told here.
 */
void
crelay_registry_find_elsewhere(const char *name, uint32 incarnation, uint32 told,
							   TimestampTz since, CrelayElsewhere *found)
{
	memset(found, 0, sizeof(CrelayElsewhere));
	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	find_in_rows(&crelay_shared->upstream, name, incarnation, told, since, found);
	for (int i = 0; i < crelay_shared->nchildren; i++)
	{
		if (crelay_shared->children[i].in_use)
			find_in_rows(&crelay_shared->children[i].rows, name, incarnation, told,
						 since, found);
	}
	LWLockRelease(crelay_shared->lock);
}

/* ---- what the worker publishes ---- */

void
crelay_registry_worker_start(uint64 system_identifier, uint64 start_id)
{
	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	crelay_shared->worker_proc = MyProc;
	crelay_shared->local.worker_pid = MyProcPid;
	crelay_shared->local.system_identifier = system_identifier;
	crelay_shared->local.start_id = start_id;
	/* while no worker was there, nobody has listened */
	for (int i = 0; i < crelay_shared->nnotes; i++)
		crelay_shared->notes[i].silent = 0;
	for (int i = 0; i < crelay_shared->nchildren; i++)
		crelay_shared->children[i].silent = 0;
	LWLockRelease(crelay_shared->lock);
}

void
crelay_registry_worker_stop(void)
{
	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	crelay_shared->worker_proc = NULL;
	crelay_shared->local.worker_pid = 0;
	crelay_shared->local.upstream_state = CRELAY_UPSTREAM_NONE;
	LWLockRelease(crelay_shared->lock);
}

/*
 * Wakes the worker, if there is one.  A latch of a process that is gone may be
 * set without harm.
 */
void
crelay_registry_wake_worker(void)
{
	PGPROC	   *proc;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	proc = crelay_shared->worker_proc;
	LWLockRelease(crelay_shared->lock);
	if (proc != NULL)
		SetLatch(&proc->procLatch);
}

void
crelay_registry_set_stopping(bool stopping)
{
	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	crelay_shared->local.stopping = stopping;
	LWLockRelease(crelay_shared->lock);
}

/*
 * Sets the target that is sent.  Where it was higher before, those above may have
 * moved up to that, even if the reply which says so was lost.
 */
void
crelay_local_set_target(CrelayLocal *local, uint64 hold_target)
{
	for (int i = 0; i < local->nhops && hold_target < local->sent_target_lsn; i++)
	{
		if (local->hops[i].held_lsn != 0)
			local->hops[i].held_lsn = Max(local->hops[i].held_lsn, local->sent_target_lsn);
	}
	local->sent_target_lsn = hold_target;
}

/*
 * Makes a hold target, computed from a snapshot with that floor_seq, the one
 * that will be sent.  False if a need was added or lowered since: the caller
 * must compute again, because a child may have been told already that nothing
 * above its need will be sent.
 */
bool
crelay_registry_publish_target(uint64 hold_target, uint64 floor_seq)
{
	bool		current;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	current = crelay_shared->floor_seq == floor_seq;
	if (current)
		crelay_local_set_target(&crelay_shared->local, hold_target);
	LWLockRelease(crelay_shared->lock);
	return current;
}

/*
 * Publishes what the worker knows of this node.  What others write stays as it
 * is.  A promotion, or another upstream, is news for the whole tree.
 */
void
crelay_registry_publish_local(const CrelayLocal *local)
{
	CrelayLocal *shared = &crelay_shared->local;
	bool		stopping;
	uint64		sent_target;
	uint64		received;
	CrelayFull	full;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	if (shared->node.role != local->node.role ||
		shared->node.timeline != local->node.timeline ||
		shared->node.upstream_incarnation != local->node.upstream_incarnation)
		crelay_shared->membership_seq++;
	stopping = shared->stopping;
	sent_target = shared->sent_target_lsn;
	received = shared->reports_received;
	full = shared->full;
	*shared = *local;
	shared->stopping = stopping;
	shared->sent_target_lsn = sent_target;
	shared->reports_received = received;
	shared->full = full;
	shared->ready = true;
	LWLockRelease(crelay_shared->lock);
}

/*
 * Publishes why a pass has failed, and nothing else: the rest is half done.
 */
void
crelay_registry_publish_error(const CrelayLocal *local)
{
	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	crelay_shared->local.upstream_state = local->upstream_state;
	strlcpy(crelay_shared->local.last_error, local->last_error,
			sizeof(crelay_shared->local.last_error));
	crelay_shared->local.last_error_time = local->last_error_time;
	LWLockRelease(crelay_shared->lock);
}

/*
 * Whether a child has said hello, before that time, and nothing more.
 */
static bool
has_lapsed(const CrelayChild *child, TimestampTz heard_since)
{
	return !child->reported && child->held_lsn == 0 && child->connected_at != 0 &&
		child->connected_at < heard_since;
}

/*
 * Publishes what the worker sees of the children's walsenders, and of their
 * holds.  Whoever has only said hello, and not since the given time, is not a
 * node of the tree for that.
 */
void
crelay_registry_publish_children(const CrelayChildView *views, int n,
								 TimestampTz heard_since)
{
	int			connected = 0;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		CrelayChild *child = &crelay_shared->children[views[i].child_slot];

		if (!child->in_use || child->node.incarnation != views[i].incarnation)
			continue;
		if (child->node.state != views[i].state)
			crelay_shared->membership_seq++;
		child->node.state = views[i].state;
		child->node.replica_class = views[i].replica_class;
		child->slot_fate = views[i].slot_fate;
		child->node.replay_lag = views[i].replay_lag;
		if (!views[i].unfed)
			child->unfed_since = 0;
		else if (child->unfed_since == 0)
			child->unfed_since = GetCurrentTimestamp();
		child->silent = views[i].silent;
		child->silent_reports = views[i].silent_reports;
		child->lapsed_lsn = child->reports == views[i].silent_reports ?
			views[i].lapsed_lsn : 0;
		if (views[i].by_sender && child->reports == views[i].reports)
		{
			child->node.flush_lsn = views[i].flush_lsn;
			child->node.replay_lsn = views[i].replay_lsn;
		}
		if (child->session_pid != 0)
		{
			connected++;
			continue;			/* it says the rest by itself */
		}
		if ((child->node.warnings & CRELAY_WARN_HOLD_LOST) != views[i].hold_lost)
			crelay_shared->membership_seq++;
		child->node.warnings &= ~CRELAY_WARN_HOLD_LOST;
		child->node.warnings |= views[i].hold_lost;
		/* one that has reported since may have got another */
		child->hold_gone = !views[i].held && child->reports == views[i].reports;
		if (!views[i].held && has_lapsed(child, heard_since))
			crelay_child_remove(child);
	}
	crelay_shared->nconnected = connected;
	LWLockRelease(crelay_shared->lock);
}

/*
 * Replaces the nodes that do not speak for themselves: those without
 * cascade_relay, and managed ones that have not called yet.  Not if one was
 * forgotten since they were looked at, which would bring it back.
 */
void
crelay_registry_publish_unmanaged(const CrelayNode *nodes, int n, uint64 forgotten_seq)
{
	uint64		before;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	if (crelay_shared->forgotten_seq != forgotten_seq)
	{
		LWLockRelease(crelay_shared->lock);
		return;
	}
	before = crelay_rows_digest(&crelay_shared->unmanaged);
	crelay_rows_free(&crelay_shared->unmanaged);
	crelay_rows_make_room(n, "", GetCurrentTimestamp());
	for (int i = 0; i < n; i++)
	{
		CrelayRow  *to = crelay_rows_add(&crelay_shared->unmanaged);

		if (to == NULL)
			break;
		to->node = nodes[i];
	}
	if (crelay_rows_digest(&crelay_shared->unmanaged) != before)
		crelay_shared->membership_seq++;
	LWLockRelease(crelay_shared->lock);
}

/*
 * Replaces what the upstream says of the rest of the tree.  This node and its
 * children are known better here.
 */
void
crelay_registry_put_upstream_rows(CrelayCursor *rows, TimestampTz now,
								  const char *own_name, uint32 own_incarnation)
{
	CrelayNode	row;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	crelay_shared->above_seq++;
	crelay_rows_free(&crelay_shared->upstream);
	crelay_shared->upstream.cut = false;
	crelay_rows_make_room((int) rows->rows, "", now);
	while (crelay_message_get_row(rows, &row, now))
	{
		CrelayRow  *to;

		if (row.incarnation == own_incarnation && strcmp(row.name, own_name) == 0)
			continue;
		to = crelay_rows_add(&crelay_shared->upstream);
		if (to == NULL)
		{
			crelay_shared->upstream.cut = true;
			break;
		}
		to->node = row;
	}
	LWLockRelease(crelay_shared->lock);
}
