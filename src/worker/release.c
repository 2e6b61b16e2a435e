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
#include "utils/memutils.h"

#include "node/hold.h"
#include "node/tree.h"
#include "server/compat.h"
#include "server/state_file.h"
#include "worker/release.h"

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
 * Reads back what was released before the server was restarted, as far as the
 * slots still exist.
 */
static void
load_released(void)
{
	char	   *lines = crelay_state_read(CRELAY_SECTION_RELEASED);
	char	   *line;

	StaticAssertStmt(CRELAY_SLOT_LEN == 64, "the width below is that of the buffer");
	while ((line = crelay_state_next(&lines)) != NULL)
	{
		char		key[CRELAY_SLOT_LEN];
		uint32		high;
		uint32		low;

		if (sscanf(line, "%63s %8X/%8X", key, &high, &low) == 3 &&
			is_slot_name(key) && SearchNamedReplicationSlot(key, true) != NULL)
			(void) crelay_registry_release(key, (uint64) high << 32 | low);
	}
}

static void
render_released(StringInfo lines)
{
	CrelaySnapshot snapshot;

	crelay_registry_snapshot(&snapshot, false);
	for (int i = 0; i < snapshot.nreleased; i++)
	{
		if (is_slot_name(snapshot.released[i].key))
			appendStringInfo(lines, "%s " CRELAY_LSN_FORMAT "\n", snapshot.released[i].key,
							 LSN_FORMAT_ARGS(snapshot.released[i].lsn));
	}
}

/*
 * Writes down what is released, for a command that depends on it.  Raises an
 * error if that cannot be done.
 */
void
crelay_release_save(void)
{
	crelay_state_write(CRELAY_SECTION_RELEASED, render_released);
}

/*
 * Likewise, for a command that has failed already; what cannot be written now is
 * written by the worker.
 */
void
crelay_release_try_save(void)
{
	(void) crelay_state_try(CRELAY_SECTION_RELEASED, render_released);
}

/*
 * The worker's start.  After one of the server the registry has no releases yet,
 * and gets those of the state file.
 */
void
crelay_release_start(MemoryContext context, bool new_server)
{
	leavers = MemoryContextAllocZero(context, sizeof(Leaver) * Max(max_replication_slots, 1));
	n_leavers = 0;
	if (new_server)
		load_released();
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
 * Drops the slot of a node that has moved, which vouches for all below it.  With
 * a hold goes what is known here of its node; so the slot that was adopted for it
 * has to go before, while its user is known.
 */
static void
let_go(const CrelayDownstream *d, const CrelayDownstream *downstreams, int n)
{
	if (d->kind != CRELAY_KIND_HOLD)
	{
		(void) drop(d, still_left);
		return;
	}
	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *slot = &downstreams[i];

		/* a walsender that lingers would be taken for another node's */
		if (slot->child >= 0 && slot->child == d->child &&
			(slot->pid != 0 || (slot->adopted && !drop(slot, still_left))))
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
watch_leavers(const CrelaySettings *settings, const CrelayDownstream *downstreams, int n,
			  int64 elapsed)
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
			let_go(d, downstreams, n);
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
		watch_leavers(settings, downstreams, n, elapsed);
	if (snapshot->released_seq != saved_seq)
	{
		saved_seq = snapshot->released_seq;
		(void) crelay_state_keep(CRELAY_SECTION_RELEASED, render_released);
	}
}
