/*-------------------------------------------------------------------------
 *
 * local_hold.h
 *	  The hold that a failover candidate keeps on itself for the whole tree.
 *
 * Owns: when a voting standby places its local hold, where it stands, and when
 * it goes; what a node tells those below about how far back the tree needs WAL;
 * and letting go of what this node held for nodes that it streams from now.
 *
 * A node's local hold is named after the node itself.  It is not counted, so
 * that it asks for nothing upward, and it never makes anybody protected: it is
 * there for the time after a promotion, when the root that held all WAL is gone
 * and the others have not attached yet.
 *
 * Not here: moving slots (hold.c), and what the tree's minimum is made of
 * (frontier.c, on the root).
 *
 * Locking: none of its own.  Runs in the worker only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_LOCAL_HOLD_H
#define CRELAY_LOCAL_HOLD_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "node/bounds.h"
#include "node/downstream.h"
#include "registry/registry.h"
#include "server/guc.h"

extern void crelay_local_hold_run(const CrelaySettings *settings,
								  const CrelayPosition *position,
								  const CrelayBounds *bounds,
								  const CrelayDownstream *downstreams, int n,
								  TimestampTz now, CrelayLocal *local);

#endif							/* CRELAY_LOCAL_HOLD_H */
