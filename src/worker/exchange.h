/*-------------------------------------------------------------------------
 *
 * exchange.h
 *	  The exchange of reports and replies with the upstream.
 *
 * Owns: when to connect and how long to wait after a failure, what is said and
 * when, what a reply teaches, and what is logged and shown of all that.
 *
 * Not here: the connection itself (upstream.c), the wire format (message.c),
 * what is reported (survey.c).
 *
 * Locking: none of its own.  Runs in the worker only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_EXCHANGE_H
#define CRELAY_EXCHANGE_H

#include "postgres.h"

#include "upstream/upstream.h"
#include "worker/survey.h"

extern void crelay_exchange_start(MemoryContext context);
extern void crelay_exchange_run(const CrelaySettings *settings,
								const CrelaySurvey *survey, TimestampTz now,
								CrelayLocal *local);
extern void crelay_exchange_abort(CrelayLocal *local, const char *error);
extern void crelay_exchange_forget_stale(const CrelaySettings *settings,
										 CrelayLocal *local);
extern CrelayLink *crelay_exchange_link(void);
extern TimestampTz crelay_exchange_next(void);

#endif							/* CRELAY_EXCHANGE_H */
