/*-------------------------------------------------------------------------
 *
 * cascade_relay.c
 *	  The module: its magic block and its only installer of hooks.
 *
 * A map of src/.  A folder includes its own headers and those of the folders
 * that are listed below it; tools/borders checks that.  The comment at the head of
 * each file says what the file owns.
 *
 *	sql/		SQL-callable functions: arguments, permissions, tuples
 *				follow.c	 a move to another upstream, or back if it fails
 *				repoint.c	 the settings that say where to stream from
 *				not_preloaded.c	taking reports without shared memory
 *				*_funcs.c	 one file for each family of functions
 *	worker/		the background worker
 *				worker.c	 the loop
 *				survey.c	 one look at this node
 *				exchange.c	 reports to the upstream, and its replies
 *				lost_holds.c holds that another program has dropped
 *				lost_slots.c WAL that invalidated slots kept before
 *				local_hold.c what a failover candidate holds on itself
 *				awaited.c	 the nodes that a new primary waits for
 *				release.c	 holds and slots that are let go of
 *				slot_user.c	 which node streamed through which slot
 *				moves.c		 how often nodes have moved
 *				addresses.c	 where other nodes are, after a restart too
 *	node/		this node
 *				downstream.c slots, walsenders, the own position
 *				replay.c	 what replay is doing
 *				hold.c		 places and moves hold slots
 *				child_hold.c where the holds of managed children are wanted
 *				bounds.c	 what bounds the WAL that holds keep
 *				tree.c		 the tree as it is shown
 *	upstream/	the connection to another node; no other folder sees libpq
 *				upstream.c	 its life
 *				upstream_target.c	its parameters
 *				upstream_error.c	its errors
 *				upstream_session.c	asking another node, and waiting for it
 *	registry/	shared memory: children, rows of nodes, slots, status
 *	server/		guc.c, compat.h, clock.h, advisory.h
 *				instance.c	 the identity of this instance, whether it stops
 *				state_file.c what is remembered over a restart
 *	decide/		pure decisions, without a PostgreSQL header
 *				node.h		 the words that all share
 *				frontier.c	 what counts, the minimum, what pins it
 *				topology.c	 the tree, its order, cycles
 *				policy.c	 where a node should stream from
 *				history.c	 whether two nodes may compare LSNs
 *				bookmark.c	 whether a node has what a bookmark stands for
 *				message.c	 reports and replies on the wire
 *				branch.c	 what a node may say of those below it
 *				backoff.c	 how long to wait after failures
 *				departed.c	 where a node lives that was below a departed one
 *				feed.c		 whether anything feeds a standby with WAL
 *				address.c	 addresses of nodes
 *				check.c		 what is wrong, and what to do
 *				metrics.c	 what a monitor is told
 *				diagram*.c	 the tree as a picture
 *
 * Owns: _PG_init, the shared memory hooks, and the one that keeps passwords in
 * connection strings out of the log.
 *
 * Not here: anything else.
 *
 * Locking: AddinShmemInitLock while the registry is made.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "registry/registry.h"
#include "server/guc.h"
#include "server/instance.h"
#include "server/state_file.h"
#include "sql/repoint.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

static shmem_request_hook_type previous_shmem_request_hook;
static shmem_startup_hook_type previous_shmem_startup_hook;
static emit_log_hook_type previous_emit_log_hook;

/* Less than this is nothing to speak of. */
#define LARGE_SHMEM		((Size) 64 * 1024 * 1024)

/*
 * Should the server get no memory for so large a registry, its own error names
 * only its own settings: so ours is named before.
 */
static void
request_shmem(void)
{
	Size		size = crelay_registry_size();

	if (previous_shmem_request_hook)
		previous_shmem_request_hook();
	if (size >= LARGE_SHMEM)
		ereport(LOG,
				(errmsg("cascade_relay: \"%s\" (%d) takes %zu MB of shared memory",
						"cascade_relay.max_nodes", crelay_guc_max_nodes(),
						size / (1024 * 1024)),
				 errhint("Lower it if the server cannot start for want of memory.")));
	RequestAddinShmemSpace(size);
	RequestNamedLWLockTranche("cascade_relay", CRELAY_LOCKS);
}

static void
startup_shmem(void)
{
	char		(*slots)[NAMEDATALEN] = palloc(sizeof(*slots) * Max(max_replication_slots, 1));
	int			n = crelay_instance_saved_slots(slots, max_replication_slots);

	if (previous_shmem_startup_hook)
		previous_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	crelay_state_use_lock(&GetNamedLWLockTranche("cascade_relay")[CRELAY_LOCK_STATE].lock);
	if (crelay_registry_init())
		crelay_registry_begin_covers(slots, n);
	LWLockRelease(AddinShmemInitLock);
	pfree(slots);
}

static void
emit_log(ErrorData *edata)
{
	crelay_repoint_redact(edata);
	if (previous_emit_log_hook)
		previous_emit_log_hook(edata);
}

void
_PG_init(void)
{
	crelay_guc_define(process_shared_preload_libraries_in_progress);
	crelay_instance_keep_name();

	/* without preloading, the functions say politely what is missing */
	if (!process_shared_preload_libraries_in_progress)
		return;

	if (!EnableHotStandby)
		ereport(LOG,
				(errmsg("cascade_relay: as a standby this server would not report: \"%s\" is off",
						"hot_standby"),
				 errhint("Set \"%s\" to on.", "hot_standby")));

	previous_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	previous_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
	previous_emit_log_hook = emit_log_hook;
	emit_log_hook = emit_log;
	crelay_worker_register();
}
