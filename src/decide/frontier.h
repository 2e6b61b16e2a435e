/*-------------------------------------------------------------------------
 *
 * frontier.h
 *	  The retention frontier of a node, as a pure decision.
 *
 * Owns: what counts, the minimum and who pins it, the hold target, and the
 * bound that a hold is clamped to.
 *
 * Not here: where the values come from (downstream.c, registry.c), and what
 * is done with the result (worker.c, report_funcs.c).  No clock, no lock, no
 * setting is read: everything is an argument.
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_FRONTIER_H
#define CRELAY_FRONTIER_H

#include "decide/node.h"

/* This node's own part in the minimum. */
typedef struct CrelayOwn
{
	const char *name;
	uint64_t	applied_lsn;	/* replayed, or flushed on a primary */
	uint64_t	restart_redo;	/* of the last restartpoint; 0 unknown */
	uint64_t	segment_size;
} CrelayOwn;

typedef struct CrelayFrontier
{
	uint64_t	frontier_lsn;	/* 0: not even the own position is known */
	uint64_t	hold_target_lsn;
	CrelayPin	pin;			/* of the frontier */
	const CrelayDownstream *pinned_via; /* the downstream that says so; NULL:
										 * the node's own position is the
										 * minimum */
} CrelayFrontier;

/* The file system that pg_wal is on, and the files in there. */
typedef struct CrelayDisk
{
	uint64_t	total;			/* bytes; 0 unknown */
	uint64_t	free;			/* to an ordinary user */
	uint64_t	end_lsn;		/* end of the last file, made for WAL to come */
	int			nfiles;
	const CrelayWalFile *files; /* the oldest ones, in order */
	uint64_t	slot_lsn;		/* lowest of all slots but holds; 0 none */
	const char *slot_name;		/* that stands there */
	int64_t		max_slot_keep;	/* beyond which slots keep nothing; -1 none */
	int64_t		wal_keep;		/* bytes that are kept in any case */
	uint64_t	unsummarized_lsn;	/* WAL from here on is kept; 0 none */
} CrelayDisk;

extern bool crelay_pin_is_own(const CrelayPin *pin, const char *node_name);
extern CrelayReason crelay_frontier_reason(const CrelayDownstream *d);
extern const char *crelay_reason_text(CrelayReason reason);
extern uint64_t crelay_downstream_lsn(const CrelayDownstream *d);
extern void crelay_frontier_compute(const CrelayOwn *own,
									CrelayDownstream *downstreams, int n,
									CrelayFrontier *result);

extern bool crelay_can_hold(int64_t max_slot_keep, uint64_t segment_size);
extern int64_t crelay_hold_limit(int64_t max_hold_size, int64_t max_slot_keep,
								 uint64_t segment_size);
extern uint64_t crelay_hold_clamp(uint64_t target, uint64_t own_lsn,
								  int64_t limit);
extern void crelay_disk_bound(const CrelayDisk *disk, int min_free_percent,
							  uint64_t own_lsn, uint64_t redo_lsn,
							  int64_t max_wal_size, uint64_t segment_size,
							  CrelayDiskBound *bound);
extern bool crelay_segment_covers(uint64_t held, uint64_t need,
								  uint64_t segment_size);
extern CrelayTruth crelay_hops_protect(const CrelayHop *hops, int nhops,
									   bool root_known, uint64_t need,
									   uint64_t segment_size);

#endif							/* CRELAY_FRONTIER_H */
