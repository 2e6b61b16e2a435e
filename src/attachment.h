/*-------------------------------------------------------------------------
 *
 * attachment.h
 *	  What this node shows of its moves, and what others have shown here.
 *
 * Owns: two files that live and die with the slots, as the incarnation does.
 * pg_replslot/cascade_relay.seed has what this node proves its moves with, and
 * leaves it with nobody else: a message carries what was made of it, and only
 * when it is time.  pg_replslot/cascade_relay.shown has, for each node that a
 * slot is kept for here, what it has shown last, so that after a restart, too,
 * only that node can say that it has left.
 *
 * A node shows its next value once it is protected in a new place: below
 * another upstream, or on another path to the root, for then everything above
 * it has changed; or without any, as a primary.  Until then it shows what it
 * has shown before: who was here, and is not protected anywhere, has not left.
 *
 * Not here: what follows from it (proof.c), and what is let go of (departed.c,
 * downstream.c).
 *
 * Locking: none of its own.  Runs in the worker only; others read the copy in
 * the registry.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_ATTACHMENT_H
#define CRELAY_ATTACHMENT_H

#include "postgres.h"

#include "downstream.h"
#include "registry.h"

extern void crelay_attachment_start(MemoryContext context);
extern void crelay_attachment_show(CrelayLocal *local);
extern void crelay_attachment_keep(const CrelayDownstream *downstreams, int n,
								   TimestampTz now);

#endif							/* CRELAY_ATTACHMENT_H */
