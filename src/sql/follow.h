/*-------------------------------------------------------------------------
 *
 * follow.h
 *	  Moving this standby to another upstream, or leaving it where it was.
 *
 * Owns: the order of the steps - look at the target as a walreceiver would,
 * plan with what it has answered, have it adopt this node, set, wait until it streams, leave the old
 * place - and their undoing if one fails.
 *
 * Not here: whether the target is a good choice (policy.c), the slot there
 * (cascade_adopt, which the target runs), the settings (repoint.c), the
 * connection (upstream_session.c).
 *
 * Failing: every way out that is not success leaves the settings as they were
 * and no slot behind on the target: an error, cancel, terminate.  What cannot
 * be cleaned up within a few seconds is said.  A crash leaves the node where
 * the settings say by then, with the slot for it.
 *
 * Locking: one heavyweight lock, so that there is one move at a time.  Nothing
 * else is held while it waits, and no snapshot.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_FOLLOW_H
#define CRELAY_FOLLOW_H

#include "postgres.h"

extern char *crelay_follow(const char *target, const char *conninfo,
						   int timeout_ms, bool dry_run);

#endif							/* CRELAY_FOLLOW_H */
