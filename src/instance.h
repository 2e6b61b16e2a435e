/*-------------------------------------------------------------------------
 *
 * instance.h
 *	  What this instance keeps in files: who it is, and whether it stops.
 *
 * Owns: the incarnation, and reading the postmaster's status and which slots
 * there are before the server has read them.
 *
 * Not here: the node's name (guc.c).
 *
 * Locking: none.  The worker alone makes an incarnation; where it is not
 * preloaded, the callers see to it that they do so one at a time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_INSTANCE_H
#define CRELAY_INSTANCE_H

#include "postgres.h"

extern uint32 crelay_instance_incarnation(void);
extern bool crelay_instance_is_stopping(void);
extern int	crelay_instance_saved_slots(char (*names)[NAMEDATALEN], int max);

#endif							/* CRELAY_INSTANCE_H */
