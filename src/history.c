/*-------------------------------------------------------------------------
 *
 * history.c
 *	  Whether two nodes are on one history of timelines, as a pure decision.
 *
 * Owns, leaves out and locks: see history.h.
 *
 *-------------------------------------------------------------------------
 */
#include "history.h"

/*
 * Whether a history leads through a position: one on its current timeline, or
 * on an earlier one before that was left.  Timelines from before the part of
 * the history that is known are taken to be common.
 */
bool
crelay_history_contains(const CrelayHistory *history, uint32_t timeline, uint64_t lsn)
{
	if (timeline == history->timeline)
		return true;
	for (uint32_t i = 0; i < history->n; i++)
	{
		if (history->left[i].timeline == timeline)
			return lsn <= history->left[i].lsn;
	}
	return history->n == CRELAY_MAX_HISTORY &&
		timeline < history->left[history->n - 1].timeline;
}

/*
 * Whether the two may compare LSNs: one of them has been, or can get, where
 * the other one is.
 */
bool
crelay_history_agrees(const CrelayHistory *ours, uint64_t our_lsn,
					  const CrelayHistory *theirs, uint64_t their_lsn)
{
	return crelay_history_contains(ours, theirs->timeline, their_lsn) ||
		crelay_history_contains(theirs, ours->timeline, our_lsn);
}
