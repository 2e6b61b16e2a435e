/*-------------------------------------------------------------------------
 *
 * release.c
 *	  What a node lets go of by itself, and what it remembers of releases.
 *
 * Owns, leaves out and locks: see release.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "compat.h"
#include "hold.h"
#include "release.h"
#include "state_file.h"
#include "tree.h"

/*
 * It lies beside the slots that it speaks of, and goes with them: base backups
 * and pg_rewind leave both behind.
 */
#define RELEASED_FILE	"pg_replslot/cascade_relay.released"

/* A slot whose node has left, and for how long that has been seen. */
typedef struct Leaver
{
	char		slot_name[CRELAY_SLOT_LEN];
	int64		seen_for;		/* microseconds, summed pass by pass */
	bool		seen;			/* in this pass */
} Leaver;

static Leaver *leavers;
static int	n_leavers;
static uint64 saved_seq;
static CrelayStateFile released_file = {.path = RELEASED_FILE};

/* ---- what was released survives a restart ---- */

/*
 * A name that only a slot can have; a walsender's says nothing after a restart.
 */
static bool
is_slot_name(const char *key)
{
	return key[0] != '\0' && strlen(key) < CRELAY_SLOT_LEN &&
		strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(key);
}

/*
 * Reads back what was released before the server was restarted, as far as its
 * slots are there still.  A file that cannot be understood releases nothing.
 */
static void
load_released(void)
{
	FILE	   *file = AllocateFile(RELEASED_FILE, "r");
	char		key[CRELAY_SLOT_LEN];
	uint32		high;
	uint32		low;

	if (file == NULL)
	{
		if (errno != ENOENT)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not open file \"%s\": %m", RELEASED_FILE)));
		return;
	}
	while (fscanf(file, "%8X/%8X %63s", &high, &low, key) == 3)
	{
		if (is_slot_name(key) && SearchNamedReplicationSlot(key, true) != NULL)
			(void) crelay_registry_release(key, (uint64) high << 32 | low);
	}
	FreeFile(file);
}

/*
 * Writes what is released now.  Until that goes well a restart forgets a release,
 * which keeps WAL and loses none; or brings one back that is over, until its node
 * calls.
 */
static void
save_released(const CrelaySnapshot *snapshot)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < snapshot->nreleased; i++)
	{
		if (is_slot_name(snapshot->released[i].key))
			appendStringInfo(&text, CRELAY_LSN_FORMAT " %s\n", LSN_FORMAT_ARGS(snapshot->released[i].lsn),
							 snapshot->released[i].key);
	}
	(void) crelay_state_file_keep(&released_file, text.data);
	pfree(text.data);
}

/*
 * A new start of the worker.  After one of the server the registry has no
 * releases yet, and gets those of the file.
 */
void
crelay_release_start(MemoryContext context)
{
	CrelaySnapshot snapshot;

	leavers = MemoryContextAllocZero(context, sizeof(Leaver) * Max(max_replication_slots, 1));
	n_leavers = 0;
	crelay_registry_snapshot(&snapshot, false);
	if (snapshot.released_seq == 0)
		load_released();
	/* the last worker may not have saved what it was told last */
	saved_seq = 0;
}

/* ---- those who have left ---- */

static Leaver *
find_leaver(const char *slot_name)
{
	for (int i = 0; i < n_leavers; i++)
	{
		if (strcmp(leavers[i].slot_name, slot_name) == 0)
			return &leavers[i];
	}
	return NULL;
}

/*
 * Whether a slot is ours, and idle because its node is elsewhere.  So is a hold
 * that somebody else has dropped: nobody is to miss it any more.
 */
static bool
is_left_behind(const CrelayDownstream *d)
{
	return (d->kind == CRELAY_KIND_HOLD || d->adopted) &&
		(d->slot_name[0] != '\0' || d->missed) &&
		d->elsewhere && d->pid == 0 && !d->own && !d->ancestor;
}

/*
 * A slot that has been adopted meanwhile is nobody's any more, until somebody
 * comes.
 */
static bool
still_left(void *arg)
{
	return crelay_registry_has_user(arg);
}

static bool
drop(const CrelayDownstream *d, CrelayHoldFence fence)
{
	if (d->slot_name[0] == '\0' ||
		!crelay_hold_drop_try(d->slot_name, fence, (void *) d->key))
		return false;
	ereport(LOG,
			(errmsg("cascade_relay: dropped replication slot \"%s\": node \"%s\" is live and protected elsewhere",
					d->slot_name, d->name)));
	return true;
}

/*
 * Looks again, at the whole branch, and lets the slot go.  With a hold goes what
 * is known here of its node, which says itself where it is; so the slot that was
 * made for it has to go before, while it is known whose it is.
 */
static void
let_go(const CrelaySnapshot *snapshot, const CrelayDownstream *d,
	   const CrelayDownstream *downstreams, int n)
{
	if (!crelay_tree_is_safe_elsewhere(d, d->child >= 0 ? snapshot->child_slots[d->child] :
									   CRELAY_ORIGIN_NOBODY))
		return;
	if (d->kind != CRELAY_KIND_HOLD)
	{
		(void) drop(d, still_left);
		return;
	}
	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *slot = &downstreams[i];

		if (slot->adopted && slot->child >= 0 && slot->child == d->child &&
			(slot->pid != 0 || !drop(slot, still_left)))
			return;
	}
	if (crelay_registry_forget(d->key))
		(void) drop(d, crelay_registry_is_forgotten);
}

/*
 * Sums up for how long each of them has been seen to be elsewhere, steadily:
 * one pass in which it is not begins anew.
 */
static void
watch_leavers(const CrelaySettings *settings, const CrelaySnapshot *snapshot,
			  const CrelayDownstream *downstreams, int n, int64 elapsed)
{
	int			kept = 0;

	for (int i = 0; i < n_leavers; i++)
		leavers[i].seen = false;
	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];
		Leaver	   *leaver;

		if (!is_left_behind(d))
			continue;
		leaver = find_leaver(d->key);
		if (leaver == NULL && n_leavers < max_replication_slots)
		{
			leaver = &leavers[n_leavers++];
			memset(leaver, 0, sizeof(Leaver));
			strlcpy(leaver->slot_name, d->key, sizeof(leaver->slot_name));
		}
		else if (leaver != NULL)
			leaver->seen_for += elapsed;
		if (leaver == NULL)
			continue;
		leaver->seen = true;
		if (leaver->seen_for >= (int64) settings->stale_timeout_ms * 1000)
		{
			leaver->seen_for = 0;
			let_go(snapshot, d, downstreams, n);
		}
	}
	for (int i = 0; i < n_leavers; i++)
	{
		if (leavers[i].seen)
			leavers[kept++] = leavers[i];
	}
	n_leavers = kept;
}

/*
 * One pass, with what the survey has found; elapsed is the time since the last
 * one, in microseconds, as far as this process was there to look.
 */
void
crelay_release_run(const CrelaySettings *settings, const CrelaySnapshot *snapshot,
				   const CrelayDownstream *downstreams, int n, int64 elapsed)
{
	if (settings->enabled)
		watch_leavers(settings, snapshot, downstreams, n, elapsed);
	if (snapshot->released_seq != saved_seq)
	{
		save_released(snapshot);
		saved_seq = snapshot->released_seq;
	}
}
