/*-------------------------------------------------------------------------
 *
 * feed.c
 *	  Whether anything feeds a standby with WAL, as a pure decision.
 *
 * Owns, leaves out and locks: see feed.h.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/feed.h"

/*
 * Microseconds for which one walreceiver must have streamed until it counts as
 * a feed.  One that is refused, or whose WAL cannot be replayed, looks
 * connected for a moment with each attempt.
 */
#define STEADY_US	INT64_C(1000000)

/*
 * Enters a look.  A standby is hungry from the first look at which its replay
 * waits for WAL until WAL comes: replay moves on, from whatever source, or one
 * walreceiver goes on streaming.  Replay that is paused or delayed, or busy with
 * one long record, or that waits for a query or for restore_command, does not
 * wait for WAL, and so makes nobody hungry.
 *
 * The feed is cut once that has lasted for stale_after, at a look that finds
 * replay waiting and no walreceiver connected: during a long restore_command,
 * or in the first moments of a new walreceiver, the answer is still to come.
 */
void
crelay_feed_look(CrelayFeedWatch *watch, const CrelayFeedSample *sample,
				 int64_t stale_after)
{
	bool		moved = sample->replay_lsn != watch->replay_lsn;

	if (!sample->streaming || sample->receiver_pid != watch->receiver_pid)
		watch->streamed = 0;
	else
		watch->streamed += sample->elapsed;
	watch->receiver_pid = sample->streaming ? sample->receiver_pid : 0;
	watch->replay_lsn = sample->replay_lsn;

	if (!sample->in_recovery || sample->paused || moved || watch->streamed >= STEADY_US)
	{
		watch->hungry = false;
		watch->starved = 0;
		watch->cut = false;
		return;
	}
	if (watch->hungry)
		watch->starved += sample->elapsed;
	else
		watch->hungry = sample->waits;
	if (watch->starved > stale_after && sample->waits && !sample->streaming)
		watch->cut = true;
}

/*
 * Says what feeds the node, and if nothing does, why.
 *
 * A standby that has an archive may wait for the next file as long as less than
 * a segment is there for it to get; but not if it has stood where it is since
 * before the root was behind it.  Without an archive, nothing but a walreceiver can
 * bring WAL.
 */
CrelayFeed
crelay_feed_judge(const CrelayFeedWatch *watch, const CrelayFeedFacts *facts)
{
	uint64_t	segment = facts->replay_lsn / facts->segment_size;

	if (!watch->cut)
		return watch->streamed >= STEADY_US ? CRELAY_FEED_STREAMS : CRELAY_FEED_OTHER;
	if (facts->wants_stream && facts->upstream_known && facts->replay_lsn != 0)
	{
		if (facts->oldest_wal_lsn / facts->segment_size > segment)
			return CRELAY_FEED_WAL_GONE;
		if (facts->has_slot && facts->slot_fate == CRELAY_SLOT_MISSING)
			return CRELAY_FEED_SLOT_MISSING;
		if (facts->has_slot && facts->slot_fate == CRELAY_SLOT_LOST)
			return CRELAY_FEED_SLOT_LOST;
	}
	if (!facts->has_archive)
		return CRELAY_FEED_NOTHING;
	if (facts->root_lsn > facts->replay_lsn)
		return facts->root_lsn - facts->replay_lsn > facts->segment_size ?
			CRELAY_FEED_NOTHING : CRELAY_FEED_OTHER;
	return facts->root_lsn != 0 && facts->root_lsn < facts->replay_lsn &&
		facts->root_age < watch->starved ? CRELAY_FEED_NOTHING : CRELAY_FEED_OTHER;
}
