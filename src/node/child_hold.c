/*-------------------------------------------------------------------------
 *
 * child_hold.c
 *	  Where a managed child's hold is wanted, under which rules.
 *
 * Owns, leaves out and locks: see child_hold.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"

#include "node/bounds.h"
#include "node/child_hold.h"
#include "server/compat.h"

/* How often at most a hold is touched that no report touches. */
#define TOUCH_US		INT64CONST(10000000)

/*
 * Fills in the request for a hold that is wanted at that LSN: as low as the
 * bounds and a release let it stand, under the best cover that there is.  A fence
 * is the caller's to add.
 */
void
crelay_child_hold_want(CrelayChildHold *hold, const char *slot_name,
					   uint64 wanted, const CrelayPosition *position)
{
	CrelayHoldRequest *request = &hold->request;
	CrelaySettings settings;
	CrelayBounds bounds;
	uint64		released_lsn;

	memset(hold, 0, sizeof(CrelayChildHold));
	crelay_guc_copy(&settings);
	crelay_bounds_get(&settings, position->flush_lsn, &bounds);
	request->slot_name = slot_name;
	request->create = true;
	request->target = Max(wanted, bounds.floor_lsn);
	request->impossible = !bounds.can_hold;
	hold->bounded = bounds.can_hold && request->target != wanted;
	/* what was let go of is not to come back by the next report */
	released_lsn = crelay_registry_released_lsn(slot_name);
	hold->released = released_lsn / wal_segment_size > request->target / wal_segment_size;
	request->target = Max(request->target, released_lsn);
	request->cover_lsn = crelay_registry_lowest_cover(crelay_hold_redo(), slot_name,
													  hold->cover);
	if (request->cover_lsn != 0)
		request->cover = hold->cover;
}

/*
 * Touches the holds that no report has touched for a while, where the server gives
 * up slots that nobody uses.  A hold is in use as long as it counts: it waits for a
 * node that may be away, and "cascade_relay.hold_timeout" says for how long.  What
 * was released is left to the server.
 */
void
crelay_child_hold_touch(const CrelayDownstream *downstreams, int n, TimestampTz now)
{
	static TimestampTz touched_at;
	int64		pause = Min(TOUCH_US, (int64) crelay_slot_idle_timeout() * 1000000 / 4);

	if (pause == 0 || (now >= touched_at && now - touched_at < pause))
		return;
	touched_at = now;
	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];

		if (d->kind == CRELAY_KIND_HOLD && d->slot_name[0] != '\0' &&
			(d->own || d->released_lsn == 0) &&
			(!d->reported || now - d->last_report_time >= pause))
			crelay_hold_touch(d->slot_name);
	}
}
