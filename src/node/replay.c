/*-------------------------------------------------------------------------
 *
 * replay.c
 *	  Reading what the replay of this node is doing.
 *
 * Owns, leaves out and locks: see replay.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "postmaster/bgworker_internals.h"
#include "replication/walsender.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/backend_status.h"
#include "utils/wait_event.h"

#include "node/replay.h"
#include "server/compat.h"

/*
 * The startup process, or NULL.  Its pid is looked up once: a server has one as
 * long as it is in recovery.
 */
static PGPROC *
find_startup(void)
{
	static pid_t startup_pid;
	PGPROC	   *proc = startup_pid != 0 ? AuxiliaryPidGetProc(startup_pid) : NULL;
	PgBackendStatus *status;

	if (proc != NULL)
		return proc;
	pgstat_clear_backend_activity_snapshot();
	for (int i = 1; (status = crelay_backend_status(i)) != NULL; i++)
	{
		if (status->st_backendType == B_STARTUP)
			startup_pid = status->st_procpid;
	}
	return startup_pid != 0 ? AuxiliaryPidGetProc(startup_pid) : NULL;
}

/*
 * Returns true if replay has nothing to do until WAL comes: it waits for the
 * walreceiver, or has tried all sources in vain and waits to try again.
 */
bool
crelay_replay_waits(void)
{
	PGPROC	   *startup = find_startup();
	uint32		event;

	if (startup == NULL)
		return false;
	event = *(volatile uint32 *) &startup->wait_event_info;
	return event == WAIT_EVENT_RECOVERY_WAL_STREAM ||
		event == WAIT_EVENT_RECOVERY_RETRIEVE_RETRY_INTERVAL;
}

/*
 * Returns true if a setting of this standby is lower than the primary's, as the
 * control file has it.  Then replay paused by itself, and will not go on before
 * a restart.
 */
static bool
lacks_settings(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	bool		lacks = crc_ok &&
	(MaxConnections < control->MaxConnections ||
	 max_worker_processes < control->max_worker_processes ||
	 max_wal_senders < control->max_wal_senders ||
	 max_prepared_xacts < control->max_prepared_xacts ||
	 max_locks_per_xact < control->max_locks_per_xact);

	pfree(control);
	return lacks;
}

/*
 * Whether replay is paused, and why.  The control file is read once for each
 * pause.
 */
CrelayPause
crelay_replay_pause(void)
{
	static CrelayPause last = CRELAY_PAUSE_NO;

	if (!RecoveryInProgress())
		return CRELAY_PAUSE_UNKNOWN;
	if (GetRecoveryPauseState() == RECOVERY_NOT_PAUSED)
		last = CRELAY_PAUSE_NO;
	else if (!crelay_pause_is_on(last))
	{
		if (lacks_settings())
			last = CRELAY_PAUSE_SETTINGS;
		else if (recoveryTarget != RECOVERY_TARGET_UNSET)
			last = CRELAY_PAUSE_TARGET;
		else
			last = CRELAY_PAUSE_ASKED;
	}
	return last;
}
