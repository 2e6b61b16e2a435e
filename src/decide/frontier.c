/*-------------------------------------------------------------------------
 *
 * frontier.c
 *	  The retention frontier of a node, as a pure decision.
 *
 * Owns, leaves out and locks: see frontier.h.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/frontier.h"

#include <stdio.h>
#include <string.h>

/*
 * A hold's reason.  It is a slot of ours, so everything that disqualifies a
 * slot is looked at first; then whose it is decides.
 */
static CrelayReason
hold_reason(const CrelayDownstream *d)
{
	if (d->own)
		return CRELAY_NOT_OWN;
	if (d->ancestor)
		return CRELAY_NOT_ANCESTOR;
	if (d->released_lsn != 0)
		return CRELAY_NOT_RELEASED;
	if (d->elsewhere)
		return CRELAY_NOT_ELSEWHERE;
	if (d->reported)
		return CRELAY_COUNTS_REPORTED;
	if (d->remembered_lsn != 0)
		return CRELAY_COUNTS_HOLD;
	if (d->invalidated)
		return CRELAY_NOT_INVALIDATED;
	if (d->restart_lsn == 0)
		return CRELAY_NOT_RESERVED;
	return CRELAY_COUNTS_HOLD;
}

static CrelayReason
slot_reason(const CrelayDownstream *d)
{
	if (d->logical)
		return CRELAY_NOT_LOGICAL;
	if (d->temporary)
		return CRELAY_NOT_TEMPORARY;
	if (d->ignored)
		return CRELAY_NOT_IGNORED;
	if (d->invalidated && d->remembered_lsn == 0)
		return CRELAY_NOT_INVALIDATED;
	if (!d->invalidated && d->restart_lsn == 0)
		return CRELAY_NOT_RESERVED;
	if (d->ancestor)
		return CRELAY_NOT_ANCESTOR;
	if (d->released_lsn != 0)
		return CRELAY_NOT_RELEASED;
	if (d->elsewhere && d->pid == 0)
		return CRELAY_NOT_ELSEWHERE;
	if (d->managed && d->spare)
		return CRELAY_NOT_MANAGED;
	return d->invalidated ? CRELAY_COUNTS_LOST : CRELAY_COUNTS_SLOT;
}

static CrelayReason
walsender_reason(const CrelayDownstream *d)
{
	if (d->backup)
		return CRELAY_NOT_BACKUP;
	if (d->logical)
		return CRELAY_NOT_LOGICAL;
	if (d->ignored)
		return CRELAY_NOT_IGNORED;
	if (d->ancestor)
		return CRELAY_NOT_ANCESTOR;
	if (d->managed && d->spare)
		return CRELAY_NOT_MANAGED;
	if (d->released_lsn != 0)
		return CRELAY_NOT_RELEASED;
	if (d->restart_lsn == 0)
		return CRELAY_NOT_REPLIED;
	return CRELAY_COUNTS_WALSENDER;
}

/*
 * Whether a downstream counts, and why or why not.
 */
CrelayReason
crelay_frontier_reason(const CrelayDownstream *d)
{
	switch (d->kind)
	{
		case CRELAY_KIND_HOLD:
			return hold_reason(d);
		case CRELAY_KIND_SLOT:
			return slot_reason(d);
		case CRELAY_KIND_WALSENDER:
			return walsender_reason(d);
	}
	return CRELAY_NOT_RESERVED;
}

/*
 * The reason as cascade_downstreams shows it.
 */
const char *
crelay_reason_text(CrelayReason reason)
{
	switch (reason)
	{
		case CRELAY_COUNTS_SLOT:
			return "physical slot";
		case CRELAY_COUNTS_WALSENDER:
			return "connected without a slot";
		case CRELAY_COUNTS_REPORTED:
			return "managed, by its last report";
		case CRELAY_COUNTS_HOLD:
			return "managed, by its hold until it calls";
		case CRELAY_COUNTS_LOST:
			return "invalidated slot, by what it kept before";
		case CRELAY_NOT_TEMPORARY:
			return "temporary slot";
		case CRELAY_NOT_BACKUP:
			return "base backup";
		case CRELAY_NOT_RESERVED:
			return "no restart_lsn";
		case CRELAY_NOT_INVALIDATED:
			return "invalidated slot";
		case CRELAY_NOT_LOGICAL:
			return "logical slot";
		case CRELAY_NOT_REPLIED:
			return "has not confirmed any LSN";
		case CRELAY_NOT_IGNORED:
			return "matches ignore_slots";
		case CRELAY_NOT_ANCESTOR:
			return "belongs to a node on the own path";
		case CRELAY_NOT_ELSEWHERE:
			return "its node is live and protected elsewhere";
		case CRELAY_NOT_RELEASED:
			return "released";
		case CRELAY_NOT_OWN:
			return "the node's own hold";
		case CRELAY_NOT_MANAGED:
			return "managed, counted by its hold";
	}
	return "unknown";
}

/*
 * What a slot holds, and what its node is known to need.  A hold that somebody else
 * has dropped, of a node that has not called since, says what it held before that:
 * wherever it stands since it was placed again, the nodes above may have what was
 * lost here.  So they may what a bound of this node has given up of a hold, and what
 * the server has given up by invalidating a slot.
 */
uint64_t
crelay_downstream_lsn(const CrelayDownstream *d)
{
	uint64_t	lsn = d->restart_lsn;

	if (d->remembered_lsn != 0 && (lsn == 0 || d->remembered_lsn < lsn))
		lsn = d->remembered_lsn;
	if (d->kind == CRELAY_KIND_HOLD && !d->reported && d->remembered_need != 0 &&
		d->remembered_need < lsn)
		lsn = d->remembered_need;
	return lsn;
}

/*
 * What a counted downstream says about the frontier: the LSN that it has
 * confirmed for itself and everything below it.
 */
static uint64_t
confirmed_lsn(const CrelayDownstream *d)
{
	if (d->reason == CRELAY_COUNTS_REPORTED && d->reported_frontier != 0)
		return d->reported_frontier;
	return crelay_downstream_lsn(d);
}

/*
 * What it says about the hold target.  A managed child is taken at the lower
 * of what it asked for and what is held for it here: should this node restart,
 * the hold is all that is left of its need, so what was promised upward may
 * never lie above it.
 */
static uint64_t
target_lsn(const CrelayDownstream *d)
{
	if (d->reason != CRELAY_COUNTS_REPORTED || d->reported_target == 0)
		return crelay_downstream_lsn(d);
	if (d->restart_lsn != 0 && d->restart_lsn < d->reported_target)
		return d->restart_lsn;
	return d->reported_target;
}

/*
 * Whether what counts for the child that a slot or a walsender is taken for keeps
 * as much WAL as that needs itself.  Then it is left out.  It always is so of a
 * child that says what is true, whose need is not above what it has confirmed:
 * but for a while after it has got on without streaming, and whoever only says
 * that it streams through somebody's slot does not make that count less.
 *
 * With a child that was released goes what it was seen to stream through; but not
 * while that is in use and has caught up: it may stream without a report for ever.
 */
static bool
is_spare(const CrelayDownstream *d, const CrelayDownstream *downstreams,
		 uint64_t segment_size)
{
	const CrelayDownstream *by;

	if (d->counts_by < 0)
		return false;
	by = &downstreams[d->counts_by];
	if (by->reason == CRELAY_NOT_RELEASED)
		return d->incarnation != 0 &&
			(d->pid == 0 || d->restart_lsn < by->released_lsn);
	if (!by->counted)
		return false;
	return d->restart_lsn == 0 ||
		crelay_segment_covers(confirmed_lsn(by), d->restart_lsn, segment_size);
}

/*
 * Writes the verdicts: of what stands for a node first, then of what may be left
 * out because of that.
 */
static void
judge(CrelayDownstream *downstreams, int n, uint64_t segment_size)
{
	for (int pass = 0; pass < 2; pass++)
	{
		for (int i = 0; i < n; i++)
		{
			CrelayDownstream *d = &downstreams[i];

			if (d->managed != (pass == 1))
				continue;
			d->spare = d->managed && is_spare(d, downstreams, segment_size);
			d->reason = crelay_frontier_reason(d);
			d->counted = CRELAY_REASON_IS_COUNTED(d->reason);
		}
	}
}

/*
 * Returns true if a pin is the given managed node's own position.
 */
bool
crelay_pin_is_own(const CrelayPin *pin, const char *node_name)
{
	return pin->kind == CRELAY_PIN_NODE && strcmp(pin->by, node_name) == 0;
}

static void
set_pin(CrelayPin *pin, CrelayPinKind kind, const char *by, const char *on,
		const char *slot)
{
	pin->kind = kind;
	snprintf(pin->by, sizeof(pin->by), "%s", by);
	snprintf(pin->on, sizeof(pin->on), "%s", on);
	snprintf(pin->slot, sizeof(pin->slot), "%s", slot);
}

/*
 * The place of what a counted downstream has confirmed: the one that a child has
 * reported, which may be far below it; else this node, where the slot or the
 * walsender stands.
 */
static void
set_pin_of(CrelayDownstream *d, const char *own_name)
{
	if (d->reason == CRELAY_COUNTS_REPORTED && d->reported_pin.by[0] != '\0')
		d->pin = d->reported_pin;
	else if (d->reason == CRELAY_COUNTS_REPORTED)
		set_pin(&d->pin, CRELAY_PIN_NODE, d->name, d->name, "");
	else if (d->kind == CRELAY_KIND_WALSENDER)
		set_pin(&d->pin, CRELAY_PIN_WALSENDER, d->name, own_name, "");
	else
		set_pin(&d->pin, d->kind == CRELAY_KIND_HOLD ? CRELAY_PIN_HOLD : CRELAY_PIN_SLOT,
				d->name, own_name, d->slot_name);
}

/*
 * The minimum of the own position and of every counted downstream, where it
 * comes from, and the hold target.  Writes each downstream's verdict (counted,
 * reason, pin) on the way.
 *
 * Equal LSNs: the own node pins before a downstream, and the first downstream
 * before a later one, so that a tree that keeps up is pinned by nobody else.
 * An LSN of 0 is unknown, and never the minimum.
 */
void
crelay_frontier_compute(const CrelayOwn *own, CrelayDownstream *downstreams,
						int n, CrelayFrontier *result)
{
	uint64_t	frontier = own->applied_lsn;
	uint64_t	target = own->applied_lsn;

	result->pinned_via = NULL;
	if (own->restart_redo != 0 && own->restart_redo < target)
		target = own->restart_redo;

	judge(downstreams, n, own->segment_size);
	for (int i = 0; i < n; i++)
	{
		CrelayDownstream *d = &downstreams[i];
		uint64_t	confirmed;
		uint64_t	wanted;

		memset(&d->pin, 0, sizeof(d->pin));
		if (!d->counted)
			continue;
		set_pin_of(d, own->name);
		confirmed = confirmed_lsn(d);
		if (confirmed != 0 && confirmed < frontier)
		{
			frontier = confirmed;
			result->pinned_via = d;
		}
		wanted = target_lsn(d);
		if (wanted != 0 && wanted < target)
			target = wanted;
	}

	if (frontier < target)
		target = frontier;
	result->frontier_lsn = frontier;
	result->hold_target_lsn = target;
	if (result->pinned_via != NULL)
		result->pin = result->pinned_via->pin;
	else
		set_pin(&result->pin, CRELAY_PIN_NODE, own->name, own->name, "");
}

/*
 * Returns true if max_slot_wal_keep_size lets a slot keep WAL at all.  The server
 * takes whole segments of it: with less than one it invalidates, at each
 * checkpoint, every slot that does not stand in the segment being written.
 */
bool
crelay_can_hold(int64_t max_slot_keep, uint64_t segment_size)
{
	return max_slot_keep < 0 || max_slot_keep >= (int64_t) segment_size;
}

/*
 * How far behind its node's own position a hold may stay, in bytes, or -1 for
 * no bound.  max_hold_size is taken as it is.  max_slot_wal_keep_size is the
 * server's own bound, at which it invalidates a slot; it counts in whole
 * segments.  A margin is kept: two segments, because a checkpoint can come
 * between two of our passes, and an eighth of it for what is written in that
 * time.  Of that bound at least one segment is always left.  If nothing can be
 * held under it, it bounds nothing: the server itself will see to that.
 */
int64_t
crelay_hold_limit(int64_t max_hold_size, int64_t max_slot_keep,
				  uint64_t segment_size)
{
	int64_t		limit = max_hold_size;

	if (max_slot_keep >= 0 && crelay_can_hold(max_slot_keep, segment_size))
	{
		int64_t		segments = max_slot_keep / (int64_t) segment_size;
		int64_t		bound = segments - segments / 8 - 2;

		bound = (bound < 1 ? 1 : bound) * (int64_t) segment_size;
		if (limit < 0 || bound < limit)
			limit = bound;
	}
	return limit;
}

/*
 * The target, or what the bound leaves of it.
 */
uint64_t
crelay_hold_clamp(uint64_t target, uint64_t own_lsn, int64_t limit)
{
	uint64_t	floor;

	if (limit < 0 || own_lsn <= (uint64_t) limit)
		return target;
	floor = own_lsn - (uint64_t) limit;
	return target > floor ? target : floor;
}

/*
 * How much room the file system of pg_wal must have besides the reserve: for
 * the WAL that will come before the next checkpoint has removed any.  The
 * server aims at having done so when it is max_wal_size beyond the last one.
 * Files that are there already, made for WAL to come, need no more room.
 *
 * Both what is needed and what is free go down as WAL is written, so that what
 * is left changes with a checkpoint only, and no burst of writes can outrun
 * it: the holds are moved before the checkpoint that removes WAL.
 */
static uint64_t
room_to_checkpoint(const CrelayDisk *disk, uint64_t own_lsn, uint64_t redo_lsn,
				   int64_t max_wal_size)
{
	uint64_t	expected = redo_lsn + (uint64_t) (max_wal_size > 0 ? max_wal_size : 0);
	uint64_t	made = disk->end_lsn > own_lsn ? disk->end_lsn : own_lsn;

	return redo_lsn != 0 && expected > made ? expected - made : 0;
}

/*
 * From which segment on something other than holds keeps the WAL, as the server
 * computes it at a checkpoint: the archiver aside, which keeps single files.
 */
static uint64_t
kept_segment(const CrelayDisk *disk, uint64_t own_segment, uint64_t segment_size,
			 CrelayKeeper *keeper)
{
	uint64_t	kept = own_segment;
	uint64_t	segments = (uint64_t) disk->wal_keep / segment_size;

	*keeper = CRELAY_KEPT_BY_NOTHING;
	if (disk->slot_lsn != 0 && disk->slot_lsn / segment_size < kept)
	{
		uint64_t	most = (uint64_t) disk->max_slot_keep / segment_size;

		kept = disk->slot_lsn / segment_size;
		if (disk->max_slot_keep >= 0 && own_segment - kept > most)
			kept = own_segment - most;
		*keeper = CRELAY_KEPT_BY_SLOT;
	}
	if (segments > own_segment - kept)
	{
		kept = segments < own_segment ? own_segment - segments : 0;
		*keeper = CRELAY_KEPT_BY_KEEP_SIZE;
	}
	if (disk->unsummarized_lsn != 0 && disk->unsummarized_lsn / segment_size < kept)
	{
		kept = disk->unsummarized_lsn / segment_size;
		*keeper = CRELAY_KEPT_BY_SUMMARY;
	}
	return kept;
}

/*
 * Where no hold may stand lower, so that the next checkpoint frees that many
 * files; 0 if it would free none.  Only files count that nothing else keeps.  If
 * there are too few, all of them are to go, and keeper says what keeps the rest.
 */
static uint64_t
floor_to_free(const CrelayDisk *disk, uint64_t own_lsn, uint64_t nwanted,
			  uint64_t segment_size, CrelayKeeper *keeper)
{
	uint64_t	own_segment = own_lsn / segment_size;
	uint64_t	kept = kept_segment(disk, own_segment, segment_size, keeper);
	uint64_t	floor = 0;

	for (int i = 0; i < disk->nfiles && nwanted > 0; i++)
	{
		const CrelayWalFile *file = &disk->files[i];

		if (file->start_lsn / segment_size >= kept)
			break;
		if (file->unarchived)
		{
			*keeper = CRELAY_KEPT_BY_ARCHIVER;
			continue;
		}
		floor = file->start_lsn + segment_size;
		nwanted--;
	}
	if (nwanted == 0)
		*keeper = CRELAY_KEPT_BY_NOTHING;
	return floor;
}

/*
 * What the file system of pg_wal leaves for holds: how many more bytes they
 * may keep, and where no hold may stand lower if they keep too many.  That is
 * counted from the oldest file on: moving a hold frees nothing before the next
 * checkpoint, and until then the same must come out, not more each time.
 *
 * Unknown figures bound nothing.
 */
void
crelay_disk_bound(const CrelayDisk *disk, int min_free_percent, uint64_t own_lsn,
				  uint64_t redo_lsn, int64_t max_wal_size, uint64_t segment_size,
				  CrelayDiskBound *bound)
{
	uint64_t	needed;
	uint64_t	missing;

	memset(bound, 0, sizeof(CrelayDiskBound));
	if (min_free_percent <= 0 || disk->total == 0)
		return;
	bound->known = true;
	bound->free = disk->free;
	bound->reserve = disk->total / 100 * (uint64_t) min_free_percent;
	needed = bound->reserve + room_to_checkpoint(disk, own_lsn, redo_lsn, max_wal_size);
	bound->left = (int64_t) (disk->free - needed);
	if (bound->left >= 0 || disk->nfiles == 0)
		return;
	missing = (uint64_t) -bound->left;
	bound->floor_lsn = floor_to_free(disk, own_lsn, (missing + segment_size - 1) / segment_size,
									 segment_size, &bound->kept_by);
	if (bound->kept_by == CRELAY_KEPT_BY_SLOT)
		snprintf(bound->kept_slot, sizeof(bound->kept_slot), "%s", disk->slot_name);
}

/*
 * Whether holding one LSN keeps the WAL from another one on: WAL is removed in
 * whole segments.
 */
bool
crelay_segment_covers(uint64_t held, uint64_t need, uint64_t segment_size)
{
	return held != 0 && need != 0 && held / segment_size <= need / segment_size;
}

/*
 * Whether everything above keeps the WAL from the given LSN on for this
 * branch.  The root must, or the node could not re-attach there; and every
 * node between must too, because what it holds is all that it remembers of
 * the branch after a restart.  Unknown without a managed root.
 */
CrelayTruth
crelay_hops_protect(const CrelayHop *hops, int nhops, bool root_known,
					uint64_t need, uint64_t segment_size)
{
	if (!root_known || need == 0)
		return CRELAY_UNKNOWN;
	for (int i = 0; i < nhops; i++)
	{
		if (!crelay_segment_covers(hops[i].held_lsn, need, segment_size))
			return CRELAY_FALSE;
	}
	return CRELAY_TRUE;
}
