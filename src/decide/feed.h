/*-------------------------------------------------------------------------
 *
 * feed.h
 *	  Whether anything feeds a standby with WAL, as a pure decision.
 *
 * Owns: for how long a standby has waited for WAL in vain, when that is worth
 * a finding, and its cause.
 *
 * Not here: reading the walreceiver and the startup process (downstream.c), what
 * the upstream knows (exchange.c), the words of the finding (check.c).  No clock,
 * no lock, no setting is read: everything is an argument.
 *
 * Locking: none.  A watch belongs to the worker, and begins anew with it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_FEED_H
#define CRELAY_FEED_H

#include "decide/node.h"

/* One look at how this node gets its WAL. */
typedef struct CrelayFeedSample
{
	int64_t		elapsed;		/* microseconds since the look before */
	bool		in_recovery;
	bool		streaming;		/* a walreceiver is connected */
	int32_t		receiver_pid;	/* which one */
	bool		waits;			/* replay waits for WAL, from wherever */
	bool		paused;
	uint64_t	replay_lsn;
} CrelayFeedSample;

/* What is kept from one look to the next. */
typedef struct CrelayFeedWatch
{
	uint64_t	replay_lsn;
	int32_t		receiver_pid;	/* that was streaming; 0 none was */
	int64_t		streamed;		/* microseconds that it has done so */
	bool		hungry;			/* nothing has come since it was seen to wait */
	int64_t		starved;		/* microseconds since then */
	bool		cut;			/* and that is for too long */
} CrelayFeedWatch;

/* What it takes to name the cause. */
typedef struct CrelayFeedFacts
{
	uint64_t	replay_lsn;
	uint64_t	segment_size;
	bool		has_archive;	/* restore_command is set */
	bool		wants_stream;	/* primary_conninfo is set */
	bool		has_slot;		/* primary_slot_name is */
	bool		upstream_known; /* what follows was said by the upstream that
								 * WAL is to be streamed from */
	CrelaySlotFate slot_fate;
	uint64_t	oldest_wal_lsn; /* there; 0 unknown */
	uint64_t	root_lsn;		/* 0 unknown */
	int64_t		root_age;		/* microseconds since it was so */
} CrelayFeedFacts;

extern void crelay_feed_look(CrelayFeedWatch *watch, const CrelayFeedSample *sample,
							 int64_t stale_after);
extern CrelayFeed crelay_feed_judge(const CrelayFeedWatch *watch,
									const CrelayFeedFacts *facts);

#endif							/* CRELAY_FEED_H */
