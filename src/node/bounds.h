/*-------------------------------------------------------------------------
 *
 * bounds.h
 *	  What bounds the WAL that holds may keep on this node.
 *
 * Owns: bringing together the settings, the server's own bound and the disk,
 * and for the worker looking at the disk.
 *
 * Not here: the arithmetic (frontier.c), moving a hold (hold.c), when
 * (survey.c, report_funcs.c).
 *
 * Locking: none of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_BOUNDS_H
#define CRELAY_BOUNDS_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "decide/node.h"
#include "node/downstream.h"
#include "server/guc.h"

typedef struct CrelayBounds
{
	bool		can_hold;		/* else the server gives every slot up */
	int64		limit;			/* bytes behind the own position, -1 none */
	CrelayDiskBound disk;		/* as the worker last saw it */
	uint64		floor_lsn;		/* of both: no hold may stand lower; 0 none */
} CrelayBounds;

extern void crelay_bounds_get(const CrelaySettings *settings, uint64 own_lsn,
							  CrelayBounds *bounds);
extern void crelay_bounds_of(const CrelaySettings *settings, uint64 own_lsn,
							 const CrelayDiskBound *disk, CrelayBounds *bounds);
extern uint64 crelay_bounds_look(const CrelaySettings *settings,
								 const CrelayPosition *position,
								 TimestampTz now, CrelayDiskBound *disk,
								 bool *look_again);

extern int64 crelay_bounds_safe_size(const CrelayDownstream *d, const CrelaySettings *settings,
									 uint64 own_lsn);
extern int64 crelay_bounds_watch(uint64 own_lsn, const CrelayDownstream *downstreams, int n);

#endif							/* CRELAY_BOUNDS_H */
