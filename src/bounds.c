/*-------------------------------------------------------------------------
 *
 * bounds.c
 *	  What bounds the WAL that holds may keep on this node.
 *
 * Owns, leaves out and locks: see bounds.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "utils/timestamp.h"

#include "bounds.h"
#include "frontier.h"
#include "registry.h"

/*
 * The folder is read again when it may have changed unseen, but for at most a
 * hundredth of the time.
 */
#define READ_SHARE		100

/* The folder as it was last read.  In the worker, or where there is none. */
static uint64 oldest_wal;
static uint64 end_of_wal;
static XLogSegNo removed_then;
static TimestampTz read_at;
static TimestampTz read_again_at;

/* Where the floor would have been by the reading before. */
static uint64 floor_before;

/*
 * max_slot_wal_keep_size in bytes, -1 for none.
 */
static int64
max_slot_keep(void)
{
	return max_slot_wal_keep_size_mb < 0 ? -1 :
		(int64) max_slot_wal_keep_size_mb * 1024 * 1024;
}

/*
 * The bounds, with what the disk leaves as given.
 */
void
crelay_bounds_of(const CrelaySettings *settings, uint64 own_lsn,
				 const CrelayDiskBound *disk, CrelayBounds *bounds)
{
	bounds->can_hold = crelay_can_hold(max_slot_keep(), wal_segment_size);
	bounds->limit = crelay_hold_limit(settings->max_hold_size, max_slot_keep(),
									  wal_segment_size);
	bounds->disk = *disk;
	bounds->floor_lsn = crelay_hold_clamp(disk->floor_lsn, own_lsn, bounds->limit);
}

/*
 * The bounds as they are now; of the disk what the worker has last seen, so
 * that a report costs no look at it.
 */
void
crelay_bounds_get(const CrelaySettings *settings, uint64 own_lsn, CrelayBounds *bounds)
{
	CrelayDiskBound disk;

	crelay_registry_get_disk(&disk);
	crelay_bounds_of(settings, own_lsn, &disk, bounds);
}

/*
 * Reads the folder again when WAL was removed since.  The server counts a file
 * as removed before it does so, and older ones may come after it: as long as
 * there are such, and while the disk is short, it is read now and then.  True
 * if it was read.
 */
static bool
look_at_files(bool short_of_room, TimestampTz now)
{
	XLogSegNo	removed = XLogGetLastRemovedSegno();
	bool		unsure = short_of_room || oldest_wal / wal_segment_size <= removed;

	if (oldest_wal != 0 && removed == removed_then &&
		!(unsure && (now >= read_again_at || now < read_at)))
		return false;
	read_at = GetCurrentTimestamp();
	crelay_read_wal_files(&oldest_wal, &end_of_wal);
	read_again_at = GetCurrentTimestamp();
	read_again_at += (read_again_at - read_at) * READ_SHARE;
	removed_then = removed;
	return true;
}

/*
 * For the worker, or a session that has none: looks at the files and the disk.  disk has what was found the
 * last time, and gets what is found now.  Returns the start of the oldest WAL
 * file.
 *
 * A floor is believed when two readings of the folder agree on it, so after the
 * first one it is to be looked at again soon: files that are just being removed
 * and made ready for reuse may be seen neither as the one nor as the other.
 */
uint64
crelay_bounds_look(const CrelaySettings *settings, const CrelayPosition *position,
				   TimestampTz now, CrelayDiskBound *disk, bool *look_again)
{
	CrelayDisk	seen = {0};
	uint64		floor;
	bool		read_anew;

	read_anew = look_at_files(disk->known && disk->left < (int64) disk->reserve / 2, now);
	if (settings->min_free_percent > 0 &&
		!crelay_read_wal_disk(&seen.total, &seen.free))
		seen.total = 0;
	seen.oldest_lsn = oldest_wal;
	seen.end_lsn = end_of_wal;
	crelay_disk_bound(&seen, settings->min_free_percent, position->flush_lsn,
					  position->restart_redo,
					  (int64) max_wal_size_mb * 1024 * 1024,
					  wal_segment_size, disk);
	floor = disk->floor_lsn;
	disk->floor_lsn = Min(floor, floor_before);
	*look_again = read_anew && floor > floor_before;
	if (read_anew)
		floor_before = floor;
	return oldest_wal;
}

/*
 * How much WAL may be written before the worker must have looked again, so
 * that the server has no reason to invalidate a hold; -1 if none is near.  Its
 * own bound is further away than ours by a margin; a hold is near when it is
 * less than that from ours.
 */
int64
crelay_bounds_watch(uint64 own_lsn, const CrelayDownstream *downstreams, int n)
{
	int64		keep = max_slot_keep() / wal_segment_size * wal_segment_size;
	int64		margin = keep - crelay_hold_limit(-1, keep, wal_segment_size);
	int64		nearest = PG_INT64_MAX;

	if (max_slot_keep() < 0 || !crelay_can_hold(max_slot_keep(), wal_segment_size))
		return -1;
	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];
		int64		kept = own_lsn > d->restart_lsn ? (int64) (own_lsn - d->restart_lsn) : 0;

		if (d->kind == CRELAY_KIND_HOLD && d->restart_lsn != 0)
			nearest = Min(nearest, keep - kept);
	}
	return nearest <= 2 * margin ? Max(nearest / 2, 1) : -1;
}
