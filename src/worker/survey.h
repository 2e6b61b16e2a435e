/*-------------------------------------------------------------------------
 *
 * survey.h
 *	  One look of the worker at its own node: snapshot, decide, act, publish.
 *
 * Owns: the order of a pass - read position, slots, walsenders and reports;
 * compute the frontier; clamp and unclamp; publish what was seen in the
 * registry - and the memory of nodes without cascade_relay that have left.
 *
 * Not here: the upstream (exchange.c), the loop around a pass (worker.c).
 *
 * Locking: none of its own.  Runs in the worker only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_SURVEY_H
#define CRELAY_SURVEY_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "decide/frontier.h"
#include "node/downstream.h"
#include "registry/registry.h"
#include "server/guc.h"

/* What a pass found out, for the exchange with the upstream. */
typedef struct CrelaySurvey
{
	CrelayPosition position;
	CrelayReceiver receiver;
	CrelayFrontier frontier;
	uint64		floor_seq;		/* of the snapshot it was computed from */
	uint64		membership_seq;
	uint64		below_seq;
	int64		watch_bytes;	/* of WAL that may be written unseen; -1 any */
	bool		moved;			/* something has moved since the last pass */
	bool		has_sessions;	/* children report to this node */
} CrelaySurvey;

extern void crelay_survey_start(MemoryContext context);
extern void crelay_survey_run(const CrelaySettings *settings, TimestampTz now,
							  CrelayLocal *local, CrelaySurvey *survey);

#endif							/* CRELAY_SURVEY_H */
