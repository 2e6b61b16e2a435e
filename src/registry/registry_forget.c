/*-------------------------------------------------------------------------
 *
 * registry_forget.c
 *	  Letting go of what the registry knows.
 *
 * Owns: the names that were released, and taking nodes out, for
 * cascade_release, cascade_forget and cascade_adopt.
 *
 * Not here: whether that may be (forget_funcs.c, release.c).
 *
 * Locking: see registry.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "replication/slot.h"
#include "replication/walsender.h"
#include "storage/lwlock.h"

#include "registry/registry_internal.h"

/*
 * How many reports the child with that hold has sent, 0 if there is none.
 */
static uint64
reports_of(const char *hold_name)
{
	int			child = crelay_registry_find_hold(hold_name);

	return child >= 0 ? crelay_shared->children[child].reports : 0;
}

/*
 * So many there can be at a time: slots, the holds that somebody else has dropped,
 * and nodes without a slot.
 */
int
crelay_max_released(void)
{
	return 2 * max_replication_slots + max_wal_senders;
}

static CrelayReleased *
find_released(const char *key)
{
	for (int i = 0; i < crelay_shared->nreleased; i++)
	{
		if (strcmp(crelay_shared->released[i].key, key) == 0)
			return &crelay_shared->released[i];
	}
	return NULL;
}

static void remove_released(const char *key);

static bool
add_released(const char *key)
{
	if (crelay_shared->nreleased == crelay_max_released())
		return false;
	strlcpy(crelay_shared->released[crelay_shared->nreleased++].key, key, CRELAY_NAME_LEN);
	return true;
}

/*
 * Lets these downstreams count no more until they have reached lsn.  False, and
 * nothing is changed, if the list of released names has no room for them all.
 */
static bool
release_all(const char *const *keys, int n, uint64 lsn)
{
	int			before;
	bool		done = true;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	before = crelay_shared->nreleased;
	for (int i = 0; i < n && done; i++)
		done = find_released(keys[i]) != NULL || add_released(keys[i]);
	for (int i = 0; i < n && done; i++)
	{
		CrelayReleased *released = find_released(keys[i]);

		released->lsn = lsn;
		released->reports = reports_of(keys[i]);
		crelay_shared->released_seq++;
	}
	if (!done)
		crelay_shared->nreleased = before;
	LWLockRelease(crelay_shared->lock);
	if (done && n > 0)
		crelay_registry_wake_worker();
	return done;
}

/*
 * The same of one.
 */
bool
crelay_registry_release(const char *key, uint64 lsn)
{
	return release_all(&key, 1, lsn);
}

/*
 * The same of one that has been silent since it had sent that many reports.  False
 * if it has called meanwhile: then it has been told what is held for it.
 */
bool
crelay_registry_release_silent(const char *key, uint64 lsn, uint64 reports)
{
	bool		done;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	done = reports_of(key) == reports;
	if (done && find_released(key) == NULL)
	{
		done = add_released(key);
		if (done)
		{
			CrelayReleased *released = find_released(key);

			released->lsn = lsn;
			released->reports = reports;
			crelay_shared->released_seq++;
		}
	}
	LWLockRelease(crelay_shared->lock);
	return done;
}

/*
 * The LSN that a released downstream has to reach, 0 if it was not released; the
 * caller holds the lock.
 */
uint64
crelay_released_lsn(const char *key)
{
	const CrelayReleased *released = find_released(key);

	return released != NULL ? released->lsn : 0;
}

uint64
crelay_registry_released_lsn(const char *key)
{
	uint64		lsn;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	lsn = crelay_released_lsn(key);
	LWLockRelease(crelay_shared->lock);
	return lsn;
}

/*
 * The same of several, or an error.
 */
void
crelay_registry_require_release(const char *const *keys, int n, uint64 lsn)
{
	if (!release_all(keys, n, lsn))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many released nodes"),
				 errdetail("At most %d nodes may be released at a time.",
						   crelay_max_released())));
}

/*
 * Undoes a release: sets the LSN of before, 0 for none.
 */
void
crelay_registry_restore_release(const char *key, uint64 lsn)
{
	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	if (lsn == 0)
		remove_released(key);
	else if (find_released(key) != NULL || add_released(key))
	{
		find_released(key)->lsn = lsn;
		crelay_shared->released_seq++;
		crelay_shared->floor_seq++;
	}
	LWLockRelease(crelay_shared->lock);
}

static void
remove_released(const char *key)
{
	CrelayReleased *released = find_released(key);

	if (released == NULL)
		return;
	*released = crelay_shared->released[--crelay_shared->nreleased];
	crelay_shared->released_seq++;
	crelay_shared->floor_seq++;
}

/*
 * Replaces the list by those of it that still do not count.  Not if it has
 * changed since it was looked at: who was released meanwhile is to stay so.
 */
void
crelay_registry_publish_released(const CrelayReleased *released, int n, uint64 released_seq)
{
	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	if (crelay_shared->released_seq == released_seq)
	{
		memcpy(crelay_shared->released, released, sizeof(CrelayReleased) * n);
		crelay_shared->nreleased = n;
		crelay_shared->released_seq++;
		crelay_shared->floor_seq++;
	}
	LWLockRelease(crelay_shared->lock);
}

/*
 * Whether somebody speaks for the node with that hold: its session, if it has
 * not been silent for so long that the worker calls it stale.
 */
static bool
is_spoken_for(const CrelayChild *child)
{
	return child->session_pid != 0 && child->node.state != CRELAY_STATE_STALE;
}

/*
 * Erases the child with that hold, and all that it has said of the nodes below
 * it.  Its session, should it have one, has to say hello again.  False if
 * somebody speaks for it.
 *
 * Nobody else can bring it back: what is below this node is in no reply to it,
 * and what the other children report is their own.
 */
bool
crelay_registry_forget(const char *hold_name)
{
	bool		forgotten = true;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < crelay_shared->nchildren; i++)
	{
		CrelayChild *child = &crelay_shared->children[i];

		if (!child->in_use || strcmp(child->hold_name, hold_name) != 0)
			continue;
		if (is_spoken_for(child))
		{
			forgotten = false;
			break;
		}
		crelay_rows_free(&child->rows);
		crelay_child_end_session(child);
		child->in_use = false;
		crelay_shared->floor_seq++;
		crelay_shared->membership_seq++;
	}
	if (forgotten)
	{
		/* whatever a worker that has looked before this is about to publish */
		crelay_shared->forgotten_seq++;
		remove_released(hold_name);
		crelay_registry_remove_note(hold_name);
	}
	LWLockRelease(crelay_shared->lock);
	return forgotten;
}

/*
 * Whether it is still so, as a fence for dropping the hold: a node that has
 * said hello since will be told that it is held.  That the worker has seen the
 * hold meanwhile does not matter.
 */
bool
crelay_registry_is_forgotten(void *hold_name)
{
	bool		forgotten = true;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	for (int i = 0; i < crelay_shared->nchildren && forgotten; i++)
	{
		const CrelayChild *child = &crelay_shared->children[i];

		if (child->in_use && child->connected_at != 0 &&
			strcmp(child->hold_name, hold_name) == 0)
			forgotten = false;
	}
	LWLockRelease(crelay_shared->lock);
	return forgotten;
}

/*
 * Takes the nodes of that name out that do not speak for themselves, if they
 * are down; the worker, which remembers them, follows.
 */
void
crelay_registry_forget_unmanaged(const char *name)
{
	CrelayRowList kept = {-1, -1, 0, crelay_shared->unmanaged.cut};
	int			next;

	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	for (int row = crelay_shared->unmanaged.first; row >= 0; row = next)
	{
		CrelayRow  *it = &crelay_shared->rows[row];

		next = it->next;
		if (it->node.state == CRELAY_STATE_DOWN && strcmp(it->node.name, name) == 0)
		{
			it->next = crelay_shared->first_free;
			crelay_shared->first_free = row;
			crelay_shared->nrows--;
			crelay_shared->forgotten_seq++;
			continue;
		}
		it->next = -1;
		if (kept.n++ == 0)
			kept.first = row;
		else
			crelay_shared->rows[kept.last].next = row;
		kept.last = row;
	}
	if (kept.n < crelay_shared->unmanaged.n)
		crelay_shared->membership_seq++;
	crelay_shared->unmanaged = kept;
	LWLockRelease(crelay_shared->lock);
}

/*
 * A slot gets another user, or the same node when it comes back.  Forgets the
 * child that streamed through it before and is not connected, the user that the
 * worker remembers, and that a slot of that name was released.  before: what is
 * forgotten, for crelay_registry_restore_slot().
 */
void
crelay_registry_forget_slot(const char *slot_name, CrelaySlotMemory *before)
{
	memset(before, 0, sizeof(CrelaySlotMemory));
	strlcpy(before->slot_name, slot_name, sizeof(before->slot_name));
	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	before->released_lsn = crelay_released_lsn(slot_name);
	for (int i = 0; i < crelay_shared->nchildren; i++)
	{
		CrelayChild *child = &crelay_shared->children[i];

		if (child->in_use && child->session_pid == 0 &&
			strcmp(child->slot_name, slot_name) == 0)
		{
			before->child = child->node.incarnation;
			child->slot_name[0] = '\0';
		}
	}
	for (int i = 0; i < crelay_shared->nusers; i++)
	{
		if (crelay_shared->users[i].incarnation != 0 &&
			strcmp(crelay_shared->users[i].slot_name, slot_name) == 0)
		{
			before->user = crelay_shared->users[i];
			crelay_shared->users[i--] = crelay_shared->users[--crelay_shared->nusers];
		}
	}
	/* a worker that has looked before this is not to bring it back */
	crelay_shared->forgotten_seq++;
	remove_released(slot_name);
	LWLockRelease(crelay_shared->lock);
}

/*
 * Undoes that, for a command that has failed.
 */
void
crelay_registry_restore_slot(const CrelaySlotMemory *before)
{
	LWLockAcquire(crelay_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; before->child != 0 && i < crelay_shared->nchildren; i++)
	{
		CrelayChild *child = &crelay_shared->children[i];

		if (child->in_use && child->node.incarnation == before->child &&
			child->slot_name[0] == '\0')
			strlcpy(child->slot_name, before->slot_name, sizeof(child->slot_name));
	}
	if (before->user.incarnation != 0 && crelay_shared->nusers < max_replication_slots)
		crelay_shared->users[crelay_shared->nusers++] = before->user;
	/* a worker that has looked in between is not to publish that */
	crelay_shared->forgotten_seq++;
	LWLockRelease(crelay_shared->lock);
	if (before->released_lsn != 0)
		crelay_registry_restore_release(before->slot_name, before->released_lsn);
}

/*
 * Whether that has not happened to a slot, as a fence for dropping it because its
 * node has left it.
 */
bool
crelay_registry_has_user(const char *slot_name)
{
	bool		found = false;

	LWLockAcquire(crelay_shared->lock, LW_SHARED);
	for (int i = 0; i < crelay_shared->nusers && !found; i++)
		found = crelay_shared->users[i].incarnation != 0 &&
			strcmp(crelay_shared->users[i].slot_name, slot_name) == 0;
	for (int i = 0; i < crelay_shared->nchildren && !found; i++)
		found = crelay_shared->children[i].in_use &&
			strcmp(crelay_shared->children[i].slot_name, slot_name) == 0;
	LWLockRelease(crelay_shared->lock);
	return found;
}
