/*-------------------------------------------------------------------------
 *
 * hold.c
 *	  Creating, moving, verifying, saving and dropping hold slots.
 *
 * Owns, leaves out and locks: see hold.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

#include "node/hold.h"
#include "server/advisory.h"
#include "server/compat.h"

/* What a look at the slot array, without acquiring anything, says. */
typedef struct SlotFacts
{
	bool		exists;
	bool		physical;		/* and persistent */
	bool		invalidated;
	bool		being_made;
	pid_t		active_pid;
	XLogRecPtr	restart_lsn;
	int			free_slots;
} SlotFacts;

static void
look_at_slot(const char *name, SlotFacts *facts)
{
	memset(facts, 0, sizeof(SlotFacts));
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		if (!slot->in_use)
		{
			facts->free_slots++;
			continue;
		}
		if (strcmp(NameStr(slot->data.name), name) != 0)
			continue;
		SpinLockAcquire(&slot->mutex);
		facts->exists = true;
		facts->invalidated = crelay_slot_data_invalidated(&slot->data);
		facts->active_pid = crelay_slot_active_pid(slot);
		/* one that is being made will be persistent, and is in use until then */
		facts->being_made = slot->data.persistency == RS_EPHEMERAL && facts->active_pid != 0;
		facts->physical = SlotIsPhysical(slot) &&
			(slot->data.persistency == RS_PERSISTENT || facts->being_made);
		facts->restart_lsn = slot->data.restart_lsn;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
}

static bool
wal_file_exists(uint32 timeline, XLogSegNo segno)
{
	char		path[MAXPGPATH];
	struct stat st;

	XLogFilePath(path, timeline, segno, wal_segment_size);
	return stat(path, &st) == 0;
}

/*
 * Whether the WAL from lsn on is really here.  Call after the server's minimum
 * was computed with the slot in place, so that what is seen stays.
 *
 * The counter of removed segments starts anew with the server, so the file is
 * looked at as well; it may lie on any timeline of this server's history.  At
 * or beyond the end of the own WAL there is no file yet, and none is missing.
 */
static bool
wal_is_here(XLogRecPtr lsn, const CrelayPosition *position)
{
	const CrelayHistory *history;
	XLogSegNo	segno;

	XLByteToSeg(lsn, segno, wal_segment_size);
	if (segno <= XLogGetLastRemovedSegno())
		return false;
	if (lsn >= position->flush_lsn)
		return true;

	if (wal_file_exists(position->timeline, segno))
		return true;
	history = crelay_read_history(position->timeline);
	for (uint32 i = 0; i < history->n; i++)
	{
		if (wal_file_exists(history->left[i].timeline, segno))
			return true;
	}
	return false;
}

/*
 * Creates the slot of a new hold, ephemeral and acquired, if that many slots
 * are free, nobody has made it since it was looked for, and the server may have
 * slots at all.
 */
static CrelayRefusal
create_if_free(const char *slot_name, int free_slots)
{
	SlotFacts	facts;

	look_at_slot(slot_name, &facts);
	if (facts.exists)
		return CRELAY_HELD_BUSY;
	/* a server that has a slot does not start with this */
	if (wal_level < WAL_LEVEL_REPLICA)
		return CRELAY_HELD_WAL_LEVEL;
	if (facts.free_slots < free_slots)
		return CRELAY_HELD_NO_FREE_SLOT;
	crelay_slot_create(slot_name, RS_EPHEMERAL);
	return CRELAY_REFUSE_NONE;
}

/*
 * The same, one at a time: two that look at the last two free slots together
 * would take both.  If it is to replace the slot that is acquired, that is dropped
 * within the same turn, or whoever wants to create it, too, would take it for one
 * that somebody has dropped.  An error lets go of either lock.
 */
static CrelayRefusal
create_acquired(const char *slot_name, bool replace, int free_slots, bool unloaded)
{
	CrelayRefusal refusal;

	if (unloaded)
	{
		LOCKTAG		tag;

		crelay_advisory_tag(&tag, CRELAY_ADVISORY_CREATE, 0);
		(void) LockAcquire(&tag, ExclusiveLock, false, false);
		if (replace)
			crelay_slot_drop_acquired();
		refusal = create_if_free(slot_name, free_slots);
		LockRelease(&tag, ExclusiveLock, false);
	}
	else
	{
		LWLock	   *lock = &GetNamedLWLockTranche("cascade_relay")[CRELAY_LOCK_HOLD].lock;

		LWLockAcquire(lock, LW_EXCLUSIVE);
		if (replace)
			crelay_slot_drop_acquired();
		refusal = create_if_free(slot_name, free_slots);
		LWLockRelease(lock);
	}
	return refusal;
}

/*
 * Places a new hold where the server reserves WAL: at its redo pointer.  That
 * is serialised against checkpoints; anything lower is not (a checkpoint that
 * runs would remove the WAL, and more).  Ephemeral until it stands, so that an
 * error on the way leaves nothing behind.
 */
static void
place_acquired(void)
{
	ReplicationSlotReserveWal();
	ReplicationSlotPersist();
}

/*
 * Moves the acquired hold forward.  It is not saved: should a crash, or on a
 * standby even a clean restart, bring back the older value, more is kept than
 * need be, and checkpoints remove nothing before they have saved.
 */
static XLogRecPtr
advance_acquired(XLogRecPtr target)
{
	ReplicationSlot *slot = MyReplicationSlot;
	bool		moved = false;

	SpinLockAcquire(&slot->mutex);
	if (target > slot->data.restart_lsn && slot->data.restart_lsn != InvalidXLogRecPtr)
	{
		slot->data.restart_lsn = target;
		moved = true;
	}
	SpinLockRelease(&slot->mutex);
	if (moved)
	{
		ReplicationSlotMarkDirty();
		ReplicationSlotsComputeRequiredLSN();
	}
	return slot->data.restart_lsn;
}

/*
 * A hold that was to be placed when an error came may be persistent here and
 * not on disk, so that a crash would lose it unseen.  As an ephemeral slot it
 * goes when it is released.
 */
static void
unplace_acquired(void)
{
	SpinLockAcquire(&MyReplicationSlot->mutex);
	MyReplicationSlot->data.persistency = RS_EPHEMERAL;
	SpinLockRelease(&MyReplicationSlot->mutex);
}

/*
 * Sets the acquired hold's restart_lsn, wherever it stood, and lets the server
 * know.
 */
static void
set_acquired(XLogRecPtr lsn)
{
	ReplicationSlot *slot = MyReplicationSlot;

	SpinLockAcquire(&slot->mutex);
	slot->data.restart_lsn = lsn;
	SpinLockRelease(&slot->mutex);
	ReplicationSlotMarkDirty();
	ReplicationSlotsComputeRequiredLSN();
}

static bool
covers(const char *slot_name, XLogRecPtr lsn)
{
	SlotFacts	facts;

	look_at_slot(slot_name, &facts);
	return facts.exists && !facts.invalidated &&
		facts.restart_lsn != InvalidXLogRecPtr && facts.restart_lsn <= lsn;
}

/*
 * Saves the acquired slot, which has stood elsewhere before and is now where the
 * disk does not have it: with a cover, if that is there still, and the WAL.  If it
 * fails it goes back to where it was: who comes next would find it where it is to
 * be, not save it, and say that it is held.
 */
static void
save_acquired(XLogRecPtr before, const char *cover, const CrelayPosition *position)
{
	XLogRecPtr	now = MyReplicationSlot->data.restart_lsn;

	PG_TRY();
	{
		if (cover != NULL && (!covers(cover, now) || !wal_is_here(now, position)))
			set_acquired(before);
		ReplicationSlotSave();
	}
	PG_CATCH();
	{
		set_acquired(before);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * Moves the acquired hold back, under cover: while another slot stands at or
 * below the target, and stood there before the last checkpoint began, every
 * checkpoint that runs has read a minimum that keeps the target's WAL.  The
 * caller has made sure that the cover stood at cover_lsn then, or lower; if it has
 * gone back since, it covers nothing below that.  Every later checkpoint sees the
 * hold itself, as soon as the minimum was computed with it; so if the cover is
 * still there then, nothing was lost in between.  If it is not, the hold goes
 * forward again, for a checkpoint may have begun that would invalidate it where it
 * is now.
 *
 * A hold that has gone back must be saved: a crash would bring back the higher
 * value.  On 15 and 17 a move without cover can cost what the hold protected
 * before.
 */
static void
retreat_acquired(XLogRecPtr target, const char *cover, XLogRecPtr cover_lsn,
				 const CrelayPosition *position)
{
	XLogRecPtr	before = MyReplicationSlot->data.restart_lsn;

	if (cover == NULL || target < cover_lsn ||
		target / wal_segment_size >= before / wal_segment_size ||
		!covers(cover, target))
		return;
	set_acquired(target);
	save_acquired(before, cover, position);
}

/*
 * Where a hold that is placed anew may go back to: to its target; or, if it was
 * dropped by somebody while its node is away, as near to that as the cover stands,
 * which may have gone on since, but is no cover for less than it was.  What is
 * covered is worth having then, even if it is not all.
 */
static XLogRecPtr
lowest_covered(const CrelayHoldRequest *request)
{
	SlotFacts	cover;

	if (!request->again || request->cover == NULL || request->cover_lsn <= request->target)
		return request->target;
	look_at_slot(request->cover, &cover);
	return Max(cover.restart_lsn, request->cover_lsn);
}

/*
 * The part of apply that may fail with a slot acquired.
 */
static void
apply_guarded(const CrelayHoldRequest *request, const CrelayPosition *position,
			  const SlotFacts *facts, CrelayHoldResult *result)
{
	XLogRecPtr	lowest = request->target;
	XLogRecPtr	held;

	if (facts->exists)
		crelay_slot_acquire(request->slot_name);
	if (request->fence != NULL && !request->fence(request->fence_arg))
	{
		if (MyReplicationSlot != NULL)
			ReplicationSlotRelease();
		result->ousted = true;
		return;
	}
	/* an invalidated one protects nothing, and cannot be revived */
	result->replaced = facts->exists &&
		(MyReplicationSlot->data.restart_lsn == InvalidXLogRecPtr ||
		 crelay_slot_data_invalidated(&MyReplicationSlot->data));
	if (result->replaced && !request->create)
	{
		crelay_slot_drop_acquired();
		result->reason = CRELAY_HELD_NO_WAL;
		return;
	}
	if (result->replaced || !facts->exists)
	{
		/* one that takes the place of another may have that one's slot */
		result->reason = create_acquired(request->slot_name, result->replaced,
										 facts->exists ? 1 : 2, request->unloaded);
		if (result->reason != CRELAY_REFUSE_NONE)
			return;
		result->created = true;
		place_acquired();
		lowest = lowest_covered(request);
	}
	retreat_acquired(lowest, request->cover, request->cover_lsn, position);
	held = advance_acquired(Min(request->target, position->flush_lsn));

	/* still acquired, so nobody can drop it between the look and the answer */
	if (wal_is_here(held, position))
		result->held_lsn = held;
	else
		result->reason = CRELAY_HELD_NO_WAL;
	ReplicationSlotRelease();
}

/*
 * A session can have one slot acquired, and not even look after another one
 * then.
 */
static void
require_free_hands(void)
{
	if (MyReplicationSlot != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("this session has replication slot \"%s\" acquired",
						NameStr(MyReplicationSlot->data.name)),
				 errhint("Use a session of its own for cascade_relay.")));
}

/*
 * Brings a hold to where it is wanted, as far as that is safe, and says what
 * is really held afterwards.  It is created if need be, at the server's redo
 * pointer, unless that would take the last free slot, which a replacement
 * standby must be able to have; it is moved forward, and back only under cover.
 *
 * A hold that does not move is acquired all the same: the server may drop
 * slots that nobody has touched for long.
 *
 * An error leaves no slot acquired behind, even if a subtransaction catches
 * it.
 */
void
crelay_hold_apply(const CrelayHoldRequest *request,
				  const CrelayPosition *position, CrelayHoldResult *result)
{
	SlotFacts	facts;

	memset(result, 0, sizeof(CrelayHoldResult));
	require_free_hands();

	look_at_slot(request->slot_name, &facts);
	if (facts.exists && !facts.physical)
	{
		result->reason = CRELAY_HELD_FOREIGN_SLOT;
		return;
	}
	if (request->impossible)
	{
		/* one that is there stays, until the server gives it up */
		result->reason = CRELAY_HELD_KEEP_SIZE;
		return;
	}
	if (facts.active_pid != 0 && facts.active_pid != MyProcPid)
	{
		/* it stays where it is; what it holds cannot be looked at safely */
		result->reason = CRELAY_HELD_BUSY;
		return;
	}
	if (!facts.exists && !request->create)
	{
		result->reason = CRELAY_HELD_NO_WAL;
		return;
	}
	PG_TRY();
	{
		apply_guarded(request, position, &facts, result);
	}
	PG_CATCH();
	{
		if (result->created && MyReplicationSlot != NULL)
			unplace_acquired();
		crelay_hold_abandon();
		PG_RE_THROW();
	}
	PG_END_TRY();

	/* WAL is kept, and asked for, by whole segments */
	if (result->reason == CRELAY_REFUSE_NONE &&
		result->held_lsn / wal_segment_size > request->target / wal_segment_size)
		result->reason = CRELAY_HELD_LATER;
}

/*
 * Says what has become of a hold, if that is worth a line; had_hold: there was one
 * before.
 */
void
crelay_hold_log(const char *slot_name, const CrelayHoldResult *result, bool had_hold)
{
	if (result->replaced && result->created)
		ereport(LOG,
				(errmsg("cascade_relay: hold \"%s\" had been invalidated by the server, and was placed again at " CRELAY_LSN_FORMAT,
						slot_name, LSN_FORMAT_ARGS(result->held_lsn)),
				 crelay_slot_idle_timeout() > 0 ?
				 errhint("Check \"%s\" and \"%s\": WAL that it protected may be gone.",
						 "max_slot_wal_keep_size", "idle_replication_slot_timeout") :
				 errhint("Check \"%s\": WAL that it protected may be gone.",
						 "max_slot_wal_keep_size")));
	else if (result->created && had_hold)
		ereport(LOG,
				(errmsg("cascade_relay: hold \"%s\" had been dropped by somebody else, and was placed again at " CRELAY_LSN_FORMAT,
						slot_name, LSN_FORMAT_ARGS(result->held_lsn)),
				 errhint("An HA manager may drop slots that it does not know; doc/failure-modes.md says how to exempt them.")));
	else if (result->created)
		ereport(LOG,
				(errmsg("cascade_relay: placed hold \"%s\" at " CRELAY_LSN_FORMAT,
						slot_name, LSN_FORMAT_ARGS(result->held_lsn))));
}

/*
 * The same for the worker, where an error with one slot must not keep it from
 * the others: it is logged, and false returned.  Not to be used inside a
 * transaction.
 */
bool
crelay_hold_try(const CrelayHoldRequest *request,
				const CrelayPosition *position, CrelayHoldResult *result)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool done = false;

	PG_TRY();
	{
		crelay_hold_apply(request, position, result);
		done = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (!request->quiet)
			EmitErrorReport();
		FlushErrorState();
	}
	PG_END_TRY();
	return done;
}

/* ---- slots to stream through ---- */

static bool
reaches(XLogRecPtr restart_lsn, XLogRecPtr need)
{
	return restart_lsn / wal_segment_size <= need / wal_segment_size;
}

/*
 * Makes sure that the acquired slot reserves WAL from the need on.  A slot that
 * reserves none yet begins where the server lets it, at the redo pointer; from
 * there it goes back under one of the covers, the best first.
 */
static void
adopt_acquired(const CrelayAdoptRequest *request, const CrelayPosition *position,
			   CrelayAdoptResult *result)
{
	ReplicationSlot *slot = MyReplicationSlot;
	XLogRecPtr	need = request->need;

	if (slot->data.restart_lsn == InvalidXLogRecPtr)
	{
		ReplicationSlotReserveWal();
		ReplicationSlotMarkDirty();
		save_acquired(InvalidXLogRecPtr, NULL, position);
	}
	for (int i = 0; i < request->ncovers && !reaches(slot->data.restart_lsn, need); i++)
	{
		const CrelayCover *cover = &request->covers[i];
		SlotFacts	now;

		/* it may have gone on since, but is no cover for less than it was */
		look_at_slot(cover->slot_name, &now);
		now.restart_lsn = Max(now.restart_lsn, cover->restart_lsn);
		if (reaches(now.restart_lsn, need))
			retreat_acquired(now.restart_lsn, cover->slot_name, cover->restart_lsn,
							 position);
	}
	result->restart_lsn = slot->data.restart_lsn;
	if (!reaches(result->restart_lsn, need))
		result->verdict = wal_is_here(need, position) ?
			CRELAY_ADOPT_NOT_COVERED : CRELAY_ADOPT_NO_WAL;
	else if (!wal_is_here(result->restart_lsn, position))
		result->verdict = CRELAY_ADOPT_NO_WAL;
}

/*
 * The part of adopt that may fail with a slot acquired.  What does not end
 * well leaves everything as it was.
 */
static void
adopt_guarded(const CrelayAdoptRequest *request, const CrelayPosition *position,
			  bool exists, CrelayAdoptResult *result)
{
	XLogRecPtr	before;

	if (exists)
		crelay_slot_acquire(request->slot_name);
	else
	{
		CrelayRefusal refusal = create_acquired(request->slot_name, false, 1, false);

		if (refusal != CRELAY_REFUSE_NONE)
		{
			result->verdict = refusal == CRELAY_HELD_BUSY ? CRELAY_ADOPT_ACTIVE :
				refusal == CRELAY_HELD_WAL_LEVEL ? CRELAY_ADOPT_WAL_LEVEL :
				CRELAY_ADOPT_NO_FREE_SLOT;
			return;
		}
		result->created = true;
	}
	before = MyReplicationSlot->data.restart_lsn;
	adopt_acquired(request, position, result);
	if (result->verdict != CRELAY_ADOPT_OK)
	{
		if (!result->created && MyReplicationSlot->data.restart_lsn != before)
		{
			set_acquired(before);
			ReplicationSlotSave();
		}
	}
	else if (result->created)
		ReplicationSlotPersist();
	else
		result->moved = MyReplicationSlot->data.restart_lsn != before;
	ReplicationSlotRelease();
}

/*
 * What speaks against a slot that is there already, whatever it reserves.
 */
static CrelayAdoptVerdict
judge_existing(const CrelayAdoptRequest *request, const SlotFacts *facts,
			   const CrelayPosition *position)
{
	if (!facts->physical)
		return CRELAY_ADOPT_NOT_PHYSICAL;
	if (facts->invalidated)
		return CRELAY_ADOPT_INVALIDATED;
	if (facts->active_pid == 0)
		return CRELAY_ADOPT_OK;

	/* the node streams through it already: nothing can be done, nor need be */
	if (facts->active_pid == request->user_pid &&
		(!request->strict || reaches(facts->restart_lsn, request->need)) &&
		wal_is_here(facts->restart_lsn, position))
		return CRELAY_ADOPT_OK;
	return CRELAY_ADOPT_ACTIVE;
}

/*
 * Makes a slot for a node to stream through, or sees to it that the one of
 * that name is fit, so that WAL is kept from what the node needs on.  Unlike a
 * hold it may take the last free slot: that is what it was left for.
 *
 * A slot that the node itself streams through is only looked at.
 */
void
crelay_hold_adopt(const CrelayAdoptRequest *request,
				  const CrelayPosition *position, CrelayAdoptResult *result)
{
	SlotFacts	facts;

	memset(result, 0, sizeof(CrelayAdoptResult));
	require_free_hands();
	look_at_slot(request->slot_name, &facts);
	if (facts.exists)
		result->verdict = judge_existing(request, &facts, position);
	result->pid = facts.active_pid;
	result->restart_lsn = facts.restart_lsn;
	if (result->verdict != CRELAY_ADOPT_OK || facts.active_pid != 0)
		return;

	PG_TRY();
	{
		adopt_guarded(request, position, facts.exists, result);
	}
	PG_CATCH();
	{
		if (result->created && MyReplicationSlot != NULL)
			unplace_acquired();
		crelay_hold_abandon();
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * Whether a hold is there that keeps WAL, or is just being made.
 */
bool
crelay_hold_is_there(const char *slot_name)
{
	SlotFacts	facts;

	look_at_slot(slot_name, &facts);
	return facts.physical && !facts.invalidated &&
		(facts.being_made || facts.restart_lsn != InvalidXLogRecPtr);
}

/*
 * Drops a slot of ours that is not needed any more, if the fence, asked when
 * nobody else can acquire it any more, does not object.  False if somebody has
 * acquired it, or the fence says no: then it stays.
 */
bool
crelay_hold_drop_if(const char *slot_name, CrelayHoldFence fence, void *fence_arg)
{
	SlotFacts	facts;
	volatile bool dropped = false;

	require_free_hands();
	look_at_slot(slot_name, &facts);
	if (!facts.exists || !facts.physical || facts.active_pid != 0)
		return false;
	PG_TRY();
	{
		crelay_slot_acquire(slot_name);
		if (fence == NULL || fence(fence_arg))
		{
			crelay_slot_drop_acquired();
			dropped = true;
		}
		else
			ReplicationSlotRelease();
	}
	PG_CATCH();
	{
		crelay_hold_abandon();
		PG_RE_THROW();
	}
	PG_END_TRY();
	return dropped;
}

bool
crelay_hold_drop(const char *slot_name)
{
	return crelay_hold_drop_if(slot_name, NULL, NULL);
}

/*
 * The same for the worker, where an error with one slot must not keep it from
 * the others: it is logged, and false returned.
 */
bool
crelay_hold_drop_try(const char *slot_name, CrelayHoldFence fence, void *fence_arg)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool dropped = false;

	PG_TRY();
	{
		dropped = crelay_hold_drop_if(slot_name, fence, fence_arg);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
	}
	PG_END_TRY();
	return dropped;
}

/*
 * After an error: lets go of whatever slot is acquired.  The lock that slot.c
 * may have failed under goes first, or releasing would wait for ourselves.
 */
void
crelay_hold_abandon(void)
{
	LWLockReleaseAll();
	ConditionVariableCancelSleep();
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();
}

/*
 * Where a new hold would be placed now.
 */
uint64
crelay_hold_redo(void)
{
	return GetRedoRecPtr();
}

/*
 * Acquires one hold, saves it if that is wanted, and lets go of it; an error is
 * logged, and the next one's turn comes.
 */
static void
visit_hold(const char *slot_name, bool save)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		crelay_slot_acquire(slot_name);
		if (save)
			ReplicationSlotSave();
		ReplicationSlotRelease();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		crelay_hold_abandon();
		EmitErrorReport();
		FlushErrorState();
	}
	PG_END_TRY();
}

/*
 * Saves every hold that has moved since it was last saved, so that a clean
 * restart finds it where it stood.  Returns how many were looked at; one that
 * somebody has acquired is left alone.
 */
int
crelay_hold_save_all(void)
{
	char		(*names)[NAMEDATALEN] = palloc(sizeof(*names) * Max(max_replication_slots, 1));
	int			n = 0;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		char		node_name[CRELAY_NODE_NAME_MAX + 1];
		uint32		incarnation;
		bool		idle;

		SpinLockAcquire(&slot->mutex);
		idle = crelay_slot_active_pid(slot) == 0;
		SpinLockRelease(&slot->mutex);
		if (slot->in_use && SlotIsPhysical(slot) && slot->dirty && idle &&
			crelay_hold_name_parse(NameStr(slot->data.name), node_name, &incarnation))
			strlcpy(names[n++], NameStr(slot->data.name), NAMEDATALEN);
	}
	LWLockRelease(ReplicationSlotControlLock);

	for (int i = 0; i < n; i++)
		visit_hold(names[i], true);
	pfree(names);
	return n;
}

/*
 * Keeps the server from taking a hold for one that nobody uses any more.
 */
void
crelay_hold_touch(const char *slot_name)
{
	SlotFacts	facts;

	look_at_slot(slot_name, &facts);
	if (facts.physical && !facts.invalidated && facts.active_pid == 0)
		visit_hold(slot_name, false);
}
