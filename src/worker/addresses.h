/*-------------------------------------------------------------------------
 *
 * addresses.h
 *	  Where other nodes are, remembered across restarts.
 *
 * Owns: a small file beside the replication slots with the names of nodes and
 * where they can be found; and the newest primary among them.  What a node knows of the tree lies in
 * shared memory, and comes from its upstream: a standby that starts when its
 * upstream is gone would know nobody whom it could follow instead.
 *
 * Not here: whom to follow (policy.c), and whether an address is still right,
 * which shows when it is used (follow.c).
 *
 * Locking: none.  The worker writes the file, so that it is whole or was not
 * there; anybody reads it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_ADDRESSES_H
#define CRELAY_ADDRESSES_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "registry/registry.h"

/* for the worker */
extern void crelay_places_start(MemoryContext context, CrelayLocal *local);
extern void crelay_places_keep(TimestampTz now, CrelayLocal *local);

/* The address of a node, false if none is remembered. */
extern bool crelay_places_find(const char *name, char *conninfo, Size size);

#endif							/* CRELAY_ADDRESSES_H */
