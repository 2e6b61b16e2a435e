/*-------------------------------------------------------------------------
 *
 * advisory.h
 *	  Advisory locks of our own, for servers that do not preload the library.
 *
 * Owns: their keys.  They belong to no database, so that they meet neither
 * those of a user nor are told apart by where the extension was created; on a
 * standby they work as on a primary.
 *
 * Not here: who takes them (not_preloaded.c, hold.c).
 *
 * Locking: see LockAcquire().
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_ADVISORY_H
#define CRELAY_ADVISORY_H

#include "postgres.h"

#include "storage/lock.h"

/* What is locked; users' locks have 1 or 2 here, and a database. */
typedef enum CrelayAdvisory
{
	CRELAY_ADVISORY_CREATE = 0x6301,	/* the making of a hold */
	CRELAY_ADVISORY_IDENTITY,	/* the making of an incarnation */
	CRELAY_ADVISORY_WORKER,		/* speaking for a worker, by its start_id */
	CRELAY_ADVISORY_INCARNATION,	/* for a node, by its incarnation */
	CRELAY_ADVISORY_NAME		/* and by a hash of its name */
} CrelayAdvisory;

static inline void
crelay_advisory_tag(LOCKTAG *tag, CrelayAdvisory kind, uint64 key)
{
	SET_LOCKTAG_ADVISORY(*tag, InvalidOid, (uint32) (key >> 32), (uint32) key, kind);
}

#endif							/* CRELAY_ADVISORY_H */
