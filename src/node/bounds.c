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
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "decide/frontier.h"
#include "node/bounds.h"
#include "registry/registry.h"
#include "server/compat.h"

/*
 * Number of files, the oldest first, that may be given up before the next
 * checkpoint: to see whether they are archived costs a look at each.
 */
#define MAX_FILES		4096

/*
 * The folder is read again when it may have changed unseen, but for at most a
 * hundredth of the time.
 */
#define READ_SHARE		100

/* The folder as it was last read.  In the worker, or where there is none. */
static CrelayWalFile *wal_files;
static int	n_wal_files;
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

static uint64
oldest_wal(void)
{
	return n_wal_files > 0 ? wal_files[0].start_lsn : 0;
}

/*
 * Reads the folder again when WAL was removed since.  The server counts a file
 * as removed before it does so, and older ones may come after it: as long as
 * there are such, and while the disk is short, it is read now and then.  True
 * if it was read.
 */
static bool
look_at_files(bool short_of_room, bool with_archiver, TimestampTz now)
{
	XLogSegNo	removed = XLogGetLastRemovedSegno();
	bool		unsure = short_of_room || oldest_wal() / wal_segment_size <= removed;

	if (n_wal_files != 0 && removed == removed_then &&
		!(unsure && (now >= read_again_at || now < read_at)))
		return false;
	read_at = GetCurrentTimestamp();
	if (wal_files == NULL)
		wal_files = MemoryContextAlloc(TopMemoryContext, sizeof(CrelayWalFile) * 2 * MAX_FILES);
	n_wal_files = 0;
	n_wal_files = crelay_read_wal_files(wal_files, MAX_FILES, &end_of_wal);
	if (with_archiver)
		crelay_read_unarchived(wal_files, n_wal_files);
	read_again_at = GetCurrentTimestamp();
	read_again_at += (read_again_at - read_at) * READ_SHARE;
	removed_then = removed;
	return true;
}

static void
judge_disk(const CrelaySettings *settings, const CrelayPosition *position,
		   const CrelayDisk *seen, CrelayDiskBound *disk)
{
	crelay_disk_bound(seen, settings->min_free_percent, position->flush_lsn,
					  position->restart_redo, (int64) max_wal_size_mb * 1024 * 1024,
					  wal_segment_size, disk);
}

/*
 * Where no hold may stand lower on a disk that is short: for that it matters what
 * else keeps WAL.
 */
static void
find_floor(const CrelaySettings *settings, const CrelayPosition *position,
		   CrelayDisk *seen, CrelayDiskBound *disk)
{
	char		slot_name[CRELAY_SLOT_LEN] = "";

	seen->nfiles = n_wal_files;
	seen->files = wal_files;
	seen->slot_lsn = crelay_read_lowest_slot(slot_name);
	seen->slot_name = slot_name;
	seen->max_slot_keep = max_slot_keep();
	seen->wal_keep = (int64) wal_keep_size_mb * 1024 * 1024;
	seen->unsummarized_lsn = crelay_oldest_unsummarized();
	judge_disk(settings, position, seen, disk);
}

/*
 * For the worker, or a session that has none: looks at the files and the disk.
 * disk has what was found the last time, and gets what is found now.  Returns the
 * start of the oldest WAL file.
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

	read_anew = look_at_files(disk->known && disk->left < (int64) disk->reserve / 2,
							  settings->min_free_percent > 0, now);
	if (settings->min_free_percent > 0 &&
		!crelay_read_wal_disk(&seen.total, &seen.free))
		seen.total = 0;
	seen.end_lsn = end_of_wal;
	judge_disk(settings, position, &seen, disk);
	if (disk->left < 0)
		find_floor(settings, position, &seen, disk);
	floor = disk->floor_lsn;
	disk->floor_lsn = Min(floor, floor_before);
	*look_again = read_anew && floor > floor_before;
	if (read_anew)
		floor_before = floor;
	return oldest_wal();
}

/*
 * How much more WAL can be written before the nearest bound of a slot is
 * reached; PG_INT64_MAX without a bound, or where nothing is kept.  Only the
 * server's own bounds other slots than holds.
 */
int64
crelay_bounds_safe_size(const CrelayDownstream *d, const CrelaySettings *settings,
						uint64 own_lsn)
{
	CrelayDiskBound disk;
	uint64		retained = own_lsn > d->restart_lsn ? own_lsn - d->restart_lsn : 0;
	int64		safe = PG_INT64_MAX;

	if (d->restart_lsn == 0 || d->slot_name[0] == '\0')
		return PG_INT64_MAX;
	if (max_slot_wal_keep_size_mb >= 0)
		safe = (int64) max_slot_wal_keep_size_mb * 1024 * 1024 - (int64) retained;
	if (d->kind == CRELAY_KIND_HOLD)
	{
		if (settings->max_hold_size >= 0)
			safe = Min(safe, settings->max_hold_size - (int64) retained);
		crelay_registry_get_disk(&disk);
		if (disk.floor_lsn != 0)
			safe = Min(safe, (int64) (d->restart_lsn - disk.floor_lsn));
		else if (disk.known)
			safe = Min(safe, Max(disk.left, 0));
	}
	return safe;
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
