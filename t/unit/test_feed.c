/*-------------------------------------------------------------------------
 *
 * test_feed.c
 *	  Tests of whether anything feeds a standby, as a plain program that prints
 *	  TAP.
 *
 * Owns: what feed.h promises, seen from outside, for each thing that a standby
 * can wait for.
 *
 *	  cc -std=gnu99 -Isrc -It/unit -g -fsanitize=address,undefined \
 *		  t/unit/test_feed.c src/feed.c -o test_feed && ./test_feed
 *
 *-------------------------------------------------------------------------
 */
#include "decide/feed.h"
#include "tap.h"

#define SECOND		INT64_C(1000000)
#define STALE		(30 * SECOND)
#define MB			UINT64_C(1048576)

static CrelayFeedWatch watch;
static CrelayFeedSample sample;
static CrelayFeedFacts facts;

/* A standby without an archive, which waits for WAL and does not get any. */
static void
begin(void)
{
	memset(&watch, 0, sizeof(watch));
	memset(&sample, 0, sizeof(sample));
	memset(&facts, 0, sizeof(facts));
	sample.elapsed = SECOND;
	sample.in_recovery = true;
	sample.waits = true;
	sample.replay_lsn = 50 * MB;
	facts.segment_size = MB;
	facts.wants_stream = true;
	facts.upstream_known = true;
	crelay_feed_look(&watch, &sample, STALE);	/* the first look */
}

static CrelayFeed
after(int seconds)
{
	for (int i = 0; i < seconds; i++)
		crelay_feed_look(&watch, &sample, STALE);
	facts.replay_lsn = sample.replay_lsn;
	return crelay_feed_judge(&watch, &facts);
}

static void
is_feed(CrelayFeed got, CrelayFeed expected, const char *what)
{
	is_number((uint64_t) got, (uint64_t) expected, what);
}

static void
test_nothing(void)
{
	begin();
	is_feed(after(31), CRELAY_FEED_OTHER, "for stale_timeout a standby may wait");
	is_feed(after(1), CRELAY_FEED_NOTHING, "and no longer");
	sample.streaming = true;
	sample.receiver_pid = 7;
	is_feed(after(1), CRELAY_FEED_NOTHING, "a walreceiver that has just connected does not change that");
	is_feed(after(1), CRELAY_FEED_STREAMS, "one that goes on streaming does");
	sample.streaming = false;
	is_feed(after(31), CRELAY_FEED_OTHER, "after it has ended all begins anew");
	is_feed(after(2), CRELAY_FEED_NOTHING, "and ends as before");
	sample.replay_lsn++;
	is_feed(after(1), CRELAY_FEED_OTHER, "WAL has come, from wherever");
}

static void
test_no_alarm(void)
{
	begin();
	sample.waits = false;
	is_feed(after(1000), CRELAY_FEED_OTHER, "one long record, a query in the way, a slow restore_command");
	begin();
	(void) after(20);
	sample.waits = false;
	is_feed(after(1000), CRELAY_FEED_OTHER, "that begins when it has waited for a while");
	begin();
	sample.paused = true;
	is_feed(after(1000), CRELAY_FEED_OTHER, "replay is paused");
	begin();
	sample.in_recovery = false;
	is_feed(after(1000), CRELAY_FEED_OTHER, "a primary");
	begin();
	sample.streaming = true;
	sample.receiver_pid = 7;
	is_feed(after(1000), CRELAY_FEED_STREAMS, "nothing is written on the primary");
	begin();
	for (int i = 0; i < 1000; i++)
	{
		sample.replay_lsn++;
		(void) after(20);
	}
	is_feed(after(1), CRELAY_FEED_OTHER, "a file of the archive every 20 s");
}

/* What streams for a moment, each time with another process. */
static void
test_flapping(void)
{
	begin();
	for (int i = 0; i < 20; i++)
	{
		sample.streaming = true;
		sample.receiver_pid++;
		(void) after(1);
		sample.streaming = false;
		(void) after(1);
	}
	is_feed(after(0), CRELAY_FEED_NOTHING, "a walreceiver that comes and goes feeds nobody");
}

static void
test_causes(void)
{
	begin();
	facts.has_slot = true;
	facts.slot_fate = CRELAY_SLOT_MISSING;
	is_feed(after(10), CRELAY_FEED_OTHER, "no cause makes it sooner");
	is_feed(after(30), CRELAY_FEED_SLOT_MISSING, "its slot is missing");
	facts.slot_fate = CRELAY_SLOT_LOST;
	is_feed(after(0), CRELAY_FEED_SLOT_LOST, "its slot was invalidated");
	facts.oldest_wal_lsn = 51 * MB;
	is_feed(after(0), CRELAY_FEED_WAL_GONE, "and what it needs is gone");
	facts.oldest_wal_lsn = 50 * MB;
	is_feed(after(0), CRELAY_FEED_SLOT_LOST, "no, that is there");
	facts.slot_fate = CRELAY_SLOT_THERE;
	is_feed(after(0), CRELAY_FEED_NOTHING, "nor is it the slot");
	facts.slot_fate = CRELAY_SLOT_MISSING;
	facts.has_slot = false;
	is_feed(after(0), CRELAY_FEED_NOTHING, "it asks for no slot any more");
	facts.has_slot = true;
	facts.upstream_known = false;
	is_feed(after(0), CRELAY_FEED_NOTHING, "what another node says does not count");
}

static void
test_archive(void)
{
	begin();
	facts.has_archive = true;
	is_feed(after(1000), CRELAY_FEED_OTHER, "with an archive it may wait, whoever knows no root");
	facts.root_lsn = 51 * MB;
	is_feed(after(0), CRELAY_FEED_OTHER, "for the end of the segment");
	facts.root_lsn++;
	is_feed(after(0), CRELAY_FEED_NOTHING, "for no more than that");
	facts.root_lsn = 50 * MB - 1;
	facts.root_age = 2000 * SECOND;
	is_feed(after(0), CRELAY_FEED_OTHER, "it may be ahead of what was heard long ago");
	facts.root_age = SECOND;
	is_feed(after(0), CRELAY_FEED_NOTHING, "and not of what was heard since");
	facts.root_lsn = 0;
	facts.slot_fate = CRELAY_SLOT_MISSING;
	facts.has_slot = true;
	is_feed(after(0), CRELAY_FEED_SLOT_MISSING, "nor if it is to stream, and cannot");
	facts.wants_stream = false;
	is_feed(after(0), CRELAY_FEED_OTHER, "it is to live on its archive");
}

int
main(void)
{
	test_nothing();
	test_no_alarm();
	test_flapping();
	test_causes();
	test_archive();
	return done_testing();
}
