/*-------------------------------------------------------------------------
 *
 * lost_slots.c
 *	  Slots that the server has invalidated, and what they kept before.
 *
 * Owns, leaves out and locks: see lost_slots.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog_internal.h"
#include "lib/stringinfo.h"
#include "replication/slot.h"
#include "utils/memutils.h"

#include "decide/frontier.h"
#include "node/hold.h"
#include "server/compat.h"
#include "server/state_file.h"
#include "worker/lost_slots.h"

/* As the state file has them. */
static CrelaySlotNeed *saved;
static int	n_saved;
static uint64 saved_at_redo;

/* ---- the state file: a line for each slot, with the LSN that it keeps ---- */

/*
 * Reads the slots of the time before the server stopped.  A line that cannot be
 * understood is left out.
 */
static int
read_needs(CrelaySlotNeed *needs)
{
	char	   *lines = crelay_state_read(CRELAY_SECTION_SLOT);
	char	   *line;
	int			n = 0;

	StaticAssertStmt(CRELAY_SLOT_LEN == 64, "the width below is that of the buffer");
	while (n < max_replication_slots && (line = crelay_state_next(&lines)) != NULL)
	{
		CrelaySlotNeed *need = &needs[n];
		uint32		high;
		uint32		low;

		memset(need, 0, sizeof(CrelaySlotNeed));
		if (sscanf(line, "%63s %8X/%8X", need->slot_name, &high, &low) != 3)
			continue;
		need->lsn = (uint64) high << 32 | low;
		if (need->lsn != 0)
			n++;
	}
	return n;
}

static void
render_needs(StringInfo lines)
{
	CrelaySlotNeed *needs = palloc_array(CrelaySlotNeed, max_replication_slots + 1);
	int			n = crelay_registry_get_needs(needs);

	for (int i = 0; i < n; i++)
		appendStringInfo(lines, "%s " CRELAY_LSN_FORMAT "\n", needs[i].slot_name,
						 LSN_FORMAT_ARGS(needs[i].lsn));
	pfree(needs);
}

/*
 * The worker's start.  After one of the server the registry has no needs yet, and
 * gets those of the state file.
 */
void
crelay_lost_slots_start(MemoryContext context, bool new_server)
{
	Size		room = Max(max_replication_slots, 1);

	saved = MemoryContextAllocZero(context, sizeof(CrelaySlotNeed) * room);
	n_saved = 0;
	saved_at_redo = 0;
	if (new_server)
	{
		CrelaySlotNeed *needs = palloc_array(CrelaySlotNeed, room);

		crelay_registry_publish_needs(needs, read_needs(needs));
		pfree(needs);
	}
}

/*
 * Returns true if the file has other slots, or if one was left by its user or
 * invalidated since.
 */
static bool
has_changed(const CrelaySlotNeed *needs, int n)
{
	if (n != n_saved)
		return true;
	for (int i = 0; i < n; i++)
	{
		if (strcmp(needs[i].slot_name, saved[i].slot_name) != 0 ||
			needs[i].invalidated != saved[i].invalidated ||
			(saved[i].in_use && !needs[i].in_use))
			return true;
		saved[i].in_use = needs[i].in_use;
	}
	return false;
}

static bool
has_moved(const CrelaySlotNeed *needs, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (needs[i].lsn != saved[i].lsn)
			return true;
	}
	return false;
}

/*
 * Writes the file when a slot came or went, was left by its user or was invalidated;
 * for where the slots stand, with each checkpoint, as the server does, or if all is
 * to be saved.
 */
static void
save(const CrelaySlotNeed *needs, int n, bool all)
{
	uint64		redo = crelay_hold_redo();
	bool		changed = has_changed(needs, n);

	if (!changed && ((redo == saved_at_redo && !all) || !has_moved(needs, n)))
		return;
	memcpy(saved, needs, sizeof(CrelaySlotNeed) * n);
	n_saved = n;
	saved_at_redo = redo;
	(void) crelay_state_keep(CRELAY_SECTION_SLOT, render_needs);
}

/*
 * The worker ends: the next one is to find what is so now.
 */
void
crelay_lost_slots_stop(void)
{
	CrelaySlotNeed *needs = palloc_array(CrelaySlotNeed, max_replication_slots + 1);

	save(needs, crelay_registry_get_needs(needs), true);
	pfree(needs);
}

/* ---- what is seen ---- */

static const CrelaySlotNeed *
find_need(const CrelaySlotNeed *needs, int n, const char *slot_name)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(needs[i].slot_name, slot_name) == 0)
			return &needs[i];
	}
	return NULL;
}

/*
 * Returns true if each node above says what it holds for this branch, and none has
 * the segment of that LSN.
 */
static bool
is_given_up_above(const CrelayLocal *local, uint64 lsn)
{
	if (local->upstream_state != CRELAY_UPSTREAM_CONNECTED || local->nhops == 0)
		return false;
	for (int i = 0; i < local->nhops; i++)
	{
		if (local->hops[i].held_lsn == 0 ||
			crelay_segment_covers(local->hops[i].held_lsn, lsn, wal_segment_size))
			return false;
	}
	return true;
}

/*
 * Carries the need of an invalidated slot on.  Returns false, and logs why, if it
 * does not count any more.
 */
static bool
still_counts(CrelaySlotNeed *need, const CrelaySettings *settings, const CrelayLocal *local,
			 bool in_recovery, int64 elapsed)
{
	const char *why = NULL;

	need->given_up_for = is_given_up_above(local, need->lsn) ?
		need->given_up_for + elapsed : 0;
	if (need->invalidated)
		need->lost_for += elapsed;
	if (!in_recovery)
		why = "this node is a primary";
	else if (need->given_up_for > (int64) settings->stale_timeout_ms * 1000)
		why = "no node above holds it";
	else if (settings->hold_timeout_s > 0 &&
			 need->lost_for >= (int64) settings->hold_timeout_s * 1000000)
		why = "\"cascade_relay.hold_timeout\" has passed";
	if (why != NULL)
		ereport(LOG,
				(errmsg("cascade_relay: WAL from " CRELAY_LSN_FORMAT " on is not asked for any more for the invalidated slot \"%s\": %s",
						LSN_FORMAT_ARGS(need->lsn), need->slot_name, why)));
	else if (!need->invalidated)
		ereport(LOG,
				(errmsg("cascade_relay: replication slot \"%s\" was invalidated by the server; the nodes above are asked to keep WAL from " CRELAY_LSN_FORMAT " on for it",
						need->slot_name, LSN_FORMAT_ARGS(need->lsn))));
	need->invalidated = true;
	return why == NULL;
}

/*
 * Fills in what is remembered of a slot.  Returns false if that is nothing.
 */
static bool
need_of(const CrelayDownstream *d, const CrelaySlotNeed *known, const CrelaySettings *settings,
		const CrelayLocal *local, bool in_recovery, int64 elapsed, CrelaySlotNeed *need)
{
	if (d->kind != CRELAY_KIND_SLOT || d->logical || d->temporary)
		return false;
	if (d->invalidated)
	{
		if (known == NULL || d->invalidated_by == NULL)
			return false;
		*need = *known;
		need->in_use = false;
		return still_counts(need, settings, local, in_recovery, elapsed);
	}
	memset(need, 0, sizeof(CrelaySlotNeed));
	strlcpy(need->slot_name, d->slot_name, sizeof(need->slot_name));
	need->lsn = d->restart_lsn;
	need->in_use = d->pid != 0;
	return need->lsn != 0;
}

/*
 * One pass.  elapsed is the time since the last one, in microseconds; 0 while no
 * time is counted.
 */
void
crelay_lost_slots_run(const CrelaySettings *settings, const CrelayLocal *local,
					  const CrelayDownstream *downstreams, int n,
					  bool in_recovery, int64 elapsed)
{
	CrelaySlotNeed *known = palloc_array(CrelaySlotNeed, max_replication_slots + 1);
	CrelaySlotNeed *needs = palloc_array(CrelaySlotNeed, n + 1);
	int			n_known = crelay_registry_get_needs(known);
	int			n_needs = 0;

	for (int i = 0; i < n && n_needs < max_replication_slots; i++)
	{
		const CrelayDownstream *d = &downstreams[i];

		if (need_of(d, find_need(known, n_known, d->slot_name), settings, local, in_recovery,
					settings->enabled ? elapsed : 0, &needs[n_needs]))
			n_needs++;
	}
	crelay_registry_publish_needs(needs, n_needs);
	save(needs, n_needs, false);
}
