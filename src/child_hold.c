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

#include "bounds.h"
#include "child_hold.h"
#include "guc.h"
#include "registry.h"

/*
 * Fills in the request for a hold that is wanted at that LSN: as low as the
 * bounds let it stand, under the best cover that there is.  A fence is the
 * caller's to add.
 */
void
crelay_child_hold_want(CrelayChildHold *hold, const char *slot_name,
					   uint64 wanted, const CrelayPosition *position)
{
	CrelayHoldRequest *request = &hold->request;
	CrelaySettings settings;
	CrelayBounds bounds;

	memset(hold, 0, sizeof(CrelayChildHold));
	crelay_guc_copy(&settings);
	crelay_bounds_get(&settings, position->flush_lsn, &bounds);
	request->slot_name = slot_name;
	request->create = true;
	request->target = Max(wanted, bounds.floor_lsn);
	hold->bounded = request->target != wanted;
	request->cover_lsn = crelay_registry_lowest_cover(crelay_hold_redo(), slot_name,
													  hold->cover);
	if (request->cover_lsn != 0)
		request->cover = hold->cover;
}
