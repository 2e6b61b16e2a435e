/*-------------------------------------------------------------------------
 *
 * not_preloaded.h
 *	  Taking reports on a server that does not preload the library.
 *
 * Owns: placing and moving the hold of a child without any shared memory of
 * ours, for servers that cannot be restarted yet.  A replication slot needs
 * none; what is missing is the tree (a child learns of this node alone, and on a
 * standby of no root), the frontier (nothing is reported further up), cover (a
 * hold never goes back), and the worker that keeps to our bounds while a child
 * is away: so max_slot_wal_keep_size has to be set, and the server itself keeps
 * to that.
 *
 * Fencing is by advisory locks, which go with the session: one session speaks
 * for a node's name, and for its incarnation.
 *
 * Not here: the wire format (message.c), moving a hold (hold.c).
 *
 * Locking: advisory locks of the session, see advisory.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_NOT_PRELOADED_H
#define CRELAY_NOT_PRELOADED_H

#include "postgres.h"

#include "decide/message.h"

extern void crelay_unloaded_answer_hello(const CrelayHello *hello,
										 CrelayReply *reply);
extern void crelay_unloaded_answer_report(const CrelayReport *report,
										  CrelayReply *reply);
extern bool crelay_unloaded_may_serve(CrelayReply *reply);
extern void crelay_unloaded_fill_reply(CrelayReply *reply);
extern void crelay_unloaded_fill_row(CrelayNode *row);

#endif							/* CRELAY_NOT_PRELOADED_H */
