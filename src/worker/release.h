/*-------------------------------------------------------------------------
 *
 * release.h
 *	  What a node lets go of by itself, and what it remembers of releases.
 *
 * Owns: dropping the hold of a node, and the slot that cascade_adopt had made
 * for it, when it has been live and protected elsewhere for stale_timeout; and
 * the file that lets releases survive a restart of the server.
 *
 * A hold is for a whole branch.  So not only the node itself must be protected
 * where it is, but all that is known to be below it.
 *
 * Protected there is protected without this hold: what another node holds was
 * placed, looked at after the move and answered before anybody called himself
 * protected by it, so that the slot under whose cover it was placed may go the
 * moment after (see hold.c).
 *
 * Not here: what counts in the meantime (frontier.c), whether a node has moved
 * (downstream.c), dropping a slot (hold.c).
 *
 * Locking: none of its own.  Runs in the worker only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_RELEASE_H
#define CRELAY_RELEASE_H

#include "postgres.h"

#include "registry/registry.h"
#include "server/guc.h"

extern void crelay_release_start(MemoryContext context, bool new_server);
extern void crelay_release_save(void);
extern void crelay_release_try_save(void);
extern void crelay_release_run(const CrelaySettings *settings,
							   const CrelaySnapshot *snapshot,
							   const CrelayDownstream *downstreams, int n,
							   int64 elapsed);

#endif							/* CRELAY_RELEASE_H */
