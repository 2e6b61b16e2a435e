/*-------------------------------------------------------------------------
 *
 * registry_slots.c
 *	  What the registry knows of this node's slots, one by one.
 *
 * Owns: who streams through each, what its node has shown, since when it can
 * cover another, and what the worker remembers of each hold.
 *
 * Not here: the slots themselves (downstream.c, hold.c).
 *
 * Locking: see registry.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "replication/slot.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "registry/registry_internal.h"

/* ---- who streams through them ---- */

/*
 * Copies whose the slots are; there is room for max_replication_slots.
 */
int
crelay_registry_get_users(CrelaySlotUser *users)
{
	int			n;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	n = crelay_shared->nusers;
	memcpy(users, crelay_shared->users, sizeof(CrelaySlotUser) * n);
	LWLockRelease(crelay_shared->lock);
	return n;
}

/*
 * Lets everybody know whose the slots are.  False if something has been forgotten
 * since the worker has looked: then it is to look again.
 */
bool
crelay_registry_publish_users(const CrelaySlotUser *users, int n, uint64 forgotten_seq)
{
	bool		published;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	published = crelay_shared->forgotten_seq == forgotten_seq;
	if (published)
	{
		crelay_shared->nusers = Min(n, max_replication_slots);
		memcpy(crelay_shared->users, users, sizeof(CrelaySlotUser) * crelay_shared->nusers);
	}
	LWLockRelease(crelay_shared->lock);
	return published;
}

/* ---- what they keep, or have kept ---- */

/*
 * Copies what ordinary slots keep, or kept before they were invalidated; there is
 * room for max_replication_slots.
 */
int
crelay_registry_get_needs(CrelaySlotNeed *needs)
{
	int			n;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	n = crelay_shared->nneeds;
	memcpy(needs, crelay_shared->needs, sizeof(CrelaySlotNeed) * n);
	LWLockRelease(crelay_shared->lock);
	return n;
}

void
crelay_registry_publish_needs(const CrelaySlotNeed *needs, int n)
{
	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	crelay_shared->nneeds = Min(n, max_replication_slots);
	memcpy(crelay_shared->needs, needs, sizeof(CrelaySlotNeed) * crelay_shared->nneeds);
	LWLockRelease(crelay_shared->lock);
}

/* ---- what their nodes have told of their moves ---- */

static CrelayTold *
find_told(uint32 incarnation)
{
	for (int i = 0; i < crelay_shared->ntold; i++)
	{
		if (crelay_shared->told[i].incarnation == incarnation)
			return &crelay_shared->told[i];
	}
	return NULL;
}

/*
 * Copies the counters that children have told; there is room for
 * max_replication_slots.
 */
int
crelay_registry_get_told(CrelayTold *told)
{
	int			n;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	n = crelay_shared->ntold;
	memcpy(told, crelay_shared->told, sizeof(CrelayTold) * n);
	LWLockRelease(crelay_shared->lock);
	return n;
}

/*
 * Replaces them.  One that a session has raised meanwhile stays so, in the
 * caller's copy as well.  Returns true if anything has changed.
 */
bool
crelay_registry_publish_told(CrelayTold *told, int n)
{
	bool		changed;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		const CrelayTold *now = find_told(told[i].incarnation);

		if (now != NULL && now->moves > told[i].moves)
			told[i].moves = now->moves;
	}
	changed = n != crelay_shared->ntold ||
		memcmp(told, crelay_shared->told, sizeof(CrelayTold) * n) != 0;
	crelay_shared->ntold = n;
	memcpy(crelay_shared->told, told, sizeof(CrelayTold) * n);
	LWLockRelease(crelay_shared->lock);
	return changed;
}

/*
 * Raises the counter of a child; returns true if it was lower.  A node that the
 * worker has not entered, because nothing is kept for it, has none; the caller
 * holds the lock.
 */
bool
crelay_told_raise(uint32 incarnation, uint32 moves)
{
	CrelayTold *told = find_told(incarnation);

	if (told == NULL || told->moves >= moves)
		return false;
	told->moves = moves;
	return true;
}

/* ---- covers ---- */

/*
 * These slots were there before the server started, and are restored before it
 * can begin a checkpoint: wherever the worker finds them first, every checkpoint
 * has counted them there, or lower.  Called while nobody else is there yet.
 */
void
crelay_registry_begin_covers(char (*slot_names)[NAMEDATALEN], int n)
{
	for (int i = 0; i < n; i++)
		strlcpy(crelay_shared->covers[i].slot_name, slot_names[i], CRELAY_SLOT_LEN);
	crelay_shared->ncovers = n;
}

/*
 * Remembers which slots stand where, and since which redo pointer: given is
 * where they stand, and the redo pointer of now.  A slot that is new, or has
 * gone back, is fresh again.
 */
void
crelay_registry_publish_covers(const CrelayCover *slots, int n)
{
	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		for (int j = i; j < crelay_shared->ncovers; j++)
		{
			CrelayCover known = crelay_shared->covers[j];

			if (strcmp(known.slot_name, slots[i].slot_name) != 0)
				continue;
			/* those found so far are kept in the front */
			crelay_shared->covers[j] = crelay_shared->covers[i];
			crelay_shared->covers[i] = known;
			break;
		}
		if (i >= crelay_shared->ncovers ||
			strcmp(crelay_shared->covers[i].slot_name, slots[i].slot_name) != 0)
		{
			/* what stood here is looked for further on, or gone */
			if (i < crelay_shared->ncovers && crelay_shared->ncovers < max_replication_slots)
				crelay_shared->covers[crelay_shared->ncovers++] = crelay_shared->covers[i];
			crelay_shared->covers[i] = slots[i];
			crelay_shared->ncovers = Max(crelay_shared->ncovers, i + 1);
		}
		else if (slots[i].restart_lsn < crelay_shared->covers[i].restart_lsn)
			crelay_shared->covers[i] = slots[i];
		else
			crelay_shared->covers[i].restart_lsn = slots[i].restart_lsn;
	}
	crelay_shared->ncovers = n;
	LWLockRelease(crelay_shared->lock);
}

/*
 * Finds the lowest of the slots, other than the given one, that have stood where
 * they are since before the checkpoint that the given redo pointer belongs to
 * began.  Returns where it stands, 0 if there is none.
 */
uint64
crelay_registry_lowest_cover(uint64 redo, const char *not_slot, char *slot_name)
{
	uint64		lowest = 0;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	for (int i = 0; i < crelay_shared->ncovers; i++)
	{
		const CrelayCover *cover = &crelay_shared->covers[i];

		if (cover->restart_lsn == 0 || (lowest != 0 && cover->restart_lsn >= lowest) ||
			cover->seen_at_redo >= redo || strcmp(cover->slot_name, not_slot) == 0)
			continue;
		strlcpy(slot_name, cover->slot_name, CRELAY_SLOT_LEN);
		lowest = cover->restart_lsn;
	}
	LWLockRelease(crelay_shared->lock);
	return lowest;
}

static int
compare_covers(const void *a, const void *b)
{
	const CrelayCover *first = a;
	const CrelayCover *second = b;

	if (first->restart_lsn != second->restart_lsn)
		return first->restart_lsn > second->restart_lsn ? -1 : 1;
	return strcmp(first->slot_name, second->slot_name);
}

/*
 * All of them, the highest first.
 */
CrelayCover *
crelay_registry_covers(uint64 redo, const char *not_slot, int *n)
{
	CrelayCover *covers = palloc_array(CrelayCover, max_replication_slots + 1);

	*n = 0;
	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	for (int i = 0; i < crelay_shared->ncovers; i++)
	{
		if (crelay_shared->covers[i].seen_at_redo < redo &&
			strcmp(crelay_shared->covers[i].slot_name, not_slot) != 0)
			covers[(*n)++] = crelay_shared->covers[i];
	}
	LWLockRelease(crelay_shared->lock);
	qsort(covers, *n, sizeof(CrelayCover), compare_covers);
	return covers;
}

/* ---- notes of holds ---- */

/*
 * What the worker remembers of a hold whose loss it would miss, or NULL; the
 * caller holds the lock.
 */
CrelayHoldNote *
crelay_registry_find_note(const char *hold_name)
{
	for (int i = 0; i < crelay_shared->nnotes; i++)
	{
		if (crelay_shared->notes[i].lsn != 0 &&
			strcmp(crelay_shared->notes[i].slot_name, hold_name) == 0)
			return &crelay_shared->notes[i];
	}
	return NULL;
}

/*
 * Nobody is to miss that hold; the caller holds the lock.
 */
void
crelay_registry_remove_note(const char *hold_name)
{
	CrelayHoldNote *note = crelay_registry_find_note(hold_name);

	if (note != NULL)
		*note = crelay_shared->notes[--crelay_shared->nnotes];
}

/*
 * Copies what the worker remembers of the holds; there is room for all slots.
 */
int
crelay_registry_get_notes(CrelayHoldNote *notes)
{
	int			n;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	n = crelay_shared->nnotes;
	memcpy(notes, crelay_shared->notes, sizeof(CrelayHoldNote) * n);
	LWLockRelease(crelay_shared->lock);
	return n;
}

/*
 * Replaces what the worker remembers of the holds; there is room for all slots.
 * Not if a node was forgotten since it looked, which would bring it back.
 */
void
crelay_registry_publish_notes(const CrelayHoldNote *notes, int n, uint64 forgotten_seq)
{
	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	if (crelay_shared->forgotten_seq == forgotten_seq)
	{
		crelay_shared->nnotes = Min(n, max_replication_slots);
		memcpy(crelay_shared->notes, notes, sizeof(CrelayHoldNote) * crelay_shared->nnotes);
	}
	LWLockRelease(crelay_shared->lock);
}

/*
 * Whether a bound has kept a hold from what was wanted of it, and still does.
 */
bool
crelay_registry_is_clamped(const char *slot_name)
{
	bool		clamped = false;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	for (int i = 0; i < crelay_shared->nnotes && !clamped; i++)
		clamped = crelay_shared->notes[i].clamped &&
			strcmp(crelay_shared->notes[i].slot_name, slot_name) == 0;
	LWLockRelease(crelay_shared->lock);
	return clamped;
}

/*
 * Whether a hold that is gone is still the worker's to place again: it is not
 * if its node was forgotten, or speaks for itself, under whatever name, or is on
 * another history.
 */
bool
crelay_registry_is_missed(const char *hold_name, TimestampTz now)
{
	const char *incarnation = hold_name + strlen(hold_name) - 8;
	bool		missed;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	missed = crelay_registry_find_note(hold_name) != NULL;
	for (int i = 0; i < crelay_shared->nchildren && missed; i++)
	{
		const CrelayChild *child = &crelay_shared->children[i];
		const char *other = child->hold_name;

		if (!child->in_use || strcmp(other + strlen(other) - 8, incarnation) != 0)
			continue;
		missed = !crelay_child_is_live(child, now) &&
			!(child->diverged && strcmp(other, hold_name) == 0);
	}
	LWLockRelease(crelay_shared->lock);
	return missed;
}

/*
 * Remembers that the worker has placed a hold again.  False if its node was
 * forgotten meanwhile.
 */
bool
crelay_registry_note_replaced(const char *hold_name, uint64 held_lsn,
							  CrelayRefusal reason, bool by_server, TimestampTz now)
{
	CrelayHoldNote *note;
	int			child;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	note = crelay_registry_find_note(hold_name);
	child = crelay_registry_find_hold(hold_name);
	if (note != NULL)
	{
		note->dropped_at = now;
		note->dropped_by_server = by_server;
	}
	if (note != NULL && child >= 0)
	{
		crelay_shared->children[child].hold_dropped_at = now;
		crelay_shared->children[child].hold_dropped_by_server = by_server;
		crelay_shared->children[child].held_lsn = held_lsn;
		crelay_shared->children[child].hold_gone = false;
		crelay_shared->children[child].hold_reason = reason;
	}
	LWLockRelease(crelay_shared->lock);
	return note != NULL;
}
