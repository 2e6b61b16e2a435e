/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The background worker: one for each instance.
 *
 * Owns: its registration, its start and end, the incarnation, the loop and
 * what it sleeps on, and ending the report sessions of a server that stops.
 *
 * Not here: what a pass does (survey.c, exchange.c).
 *
 * Locking: none of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_WORKER_H
#define CRELAY_WORKER_H

#include "postgres.h"

extern void crelay_worker_register(void);
extern PGDLLEXPORT void crelay_worker_main(Datum arg);

#endif							/* CRELAY_WORKER_H */
