/*-------------------------------------------------------------------------
 *
 * slot_user.h
 *	  Which managed node streamed through which slot, over restarts.
 *
 * Owns: a section of the state file, and when an entry is made or forgotten.
 *
 * Without it a slot that is not in use is anybody's after a restart: that of
 * the node that this one streams from now, after a switchover, or of one that
 * has moved, would pin the frontier for good.  An entry says whose a slot is
 * only as long as nobody else was seen streaming through it: a slot's name alone
 * proves nothing, for another node may use the same one elsewhere.
 *
 * Not here: what an entry means for what counts (downstream.c, frontier.c).
 *
 * Locking: none of its own.  Runs in the worker only; others read the copy in
 * the registry.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_SLOT_USER_H
#define CRELAY_SLOT_USER_H

#include "postgres.h"

#include "node/downstream.h"
#include "registry/registry.h"

extern void crelay_slot_users_save(void);
extern void crelay_slot_users_try_save(void);
extern void crelay_slot_users_start(MemoryContext context, bool new_server);
extern void crelay_slot_users_run(const CrelaySnapshot *snapshot,
								  const CrelayDownstream *downstreams, int n);

#endif							/* CRELAY_SLOT_USER_H */
