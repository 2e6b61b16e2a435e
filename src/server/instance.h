/*-------------------------------------------------------------------------
 *
 * instance.h
 *	  Who this instance is, and whether it stops.
 *
 * Owns: the identity (node name and incarnation) and its section of the state
 * file; reading the postmaster's status; reading which slots there are before
 * the server has read them.
 *
 * The name is fixed when the server starts: an explicit cascade_relay.node_name,
 * else the name in the state file, else a default made of the host name.  So a
 * host name that changes later changes nothing.  The incarnation is a random
 * number that goes with the name: an explicit other name is another incarnation,
 * and so a renamed node, or a copy of this one's volume, neither takes over nor
 * costs what is held for the former life.  Former lives stay in the file, since
 * what they held is released by a person only, with cascade_forget().
 *
 * Not here: the setting (guc.c).
 *
 * Locking: none.  The worker alone makes an incarnation; where the library is
 * not preloaded, sessions do so one at a time, under an advisory lock.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_INSTANCE_H
#define CRELAY_INSTANCE_H

#include "postgres.h"

#include "decide/node.h"

extern void crelay_instance_keep_name(void);
extern void crelay_instance_identity(CrelayIdentity *identity, uint32 known);
extern bool crelay_instance_is_stopping(void);
extern int	crelay_instance_saved_slots(char (*names)[NAMEDATALEN], int max);

#endif							/* CRELAY_INSTANCE_H */
