/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The background worker: one for each instance.
 *
 * Owns, leaves out and locks: see worker.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "replication/slot.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "node/hold.h"
#include "registry/registry.h"
#include "server/compat.h"
#include "server/guc.h"
#include "server/instance.h"
#include "worker/addresses.h"
#include "worker/exchange.h"
#include "worker/lost_holds.h"
#include "worker/lost_slots.h"
#include "worker/moves.h"
#include "worker/release.h"
#include "worker/slot_user.h"
#include "worker/survey.h"
#include "worker/worker.h"

/*
 * How often to look while something moves, how long that lasts after the last
 * movement, and how often at least while children report here: a server that
 * is told to stop does not tell its workers until those sessions have ended.
 */
#define WATCH_MS			100
#define WATCH_FOR_MS		2000
#define STOPPING_CHECK_MS	500
#define LONGEST_PAUSE_MS	1000

/* How often at most while a hold is near its bound. */
#define NEAR_BOUND_MS		10

/* After an error in a pass. */
#define ERROR_PAUSE_MS		1000

static MemoryContext worker_context;
static MemoryContext pass_context;
static MemoryContext state_context; /* what was read from the state file */
static CrelayLocal local;
static CrelaySettings settings;
static WaitEventSet *wait_set;
static uint64 wait_generation;
static pgsocket wait_socket = PGINVALID_SOCKET;
static int	wait_socket_pos;
static int	wait_socket_events;
static bool rows_dropped_logged;

/* What the pass before has failed with, empty if it has not. */
static char last_failure[256];

/*
 * Full membership of the process array, without a database: replication slots
 * may be acquired by such a process only.
 */
void
crelay_worker_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "cascade_relay", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "crelay_worker_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "cascade_relay", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "cascade_relay", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

/* ---- a server that stops ---- */

/*
 * Ends the sessions that children report through, if the server is to stop;
 * they try again elsewhere, or when it is back.  This comes before anything
 * that may fail, or a smart shutdown would wait for them for as long as it
 * does.
 */
static void
check_stopping(void)
{
	bool		stopping;

	if (!crelay_registry_has_sessions())
		return;
	stopping = crelay_instance_is_stopping();
	crelay_registry_set_stopping(stopping);
	if (stopping)
		crelay_registry_end_sessions();
}

/* ---- sleeping ---- */

static void
free_wait_set(void)
{
	if (wait_set != NULL)
		FreeWaitEventSet(wait_set);
	wait_set = NULL;
}

/*
 * The set of what to wait for, made anew whenever the upstream's socket may be
 * another one: a closed descriptor's number can be in use again.
 */
static void
prepare_wait_set(void)
{
	CrelayLink *link = crelay_exchange_link();
	int			events = 0;
	pgsocket	sock = crelay_link_socket(link, &events);

	if (wait_set == NULL || wait_generation != crelay_link_generation(link) ||
		sock != wait_socket)
	{
		free_wait_set();
		wait_set = crelay_create_wait_event_set(3);
		AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		if (sock != PGINVALID_SOCKET)
			wait_socket_pos = AddWaitEventToSet(wait_set, events, sock, NULL, NULL);
		wait_generation = crelay_link_generation(link);
		wait_socket = sock;
		wait_socket_events = events;
	}
	else if (sock != PGINVALID_SOCKET && events != wait_socket_events)
	{
		ModifyWaitEvent(wait_set, wait_socket_pos, events, NULL);
		wait_socket_events = events;
	}
}

/*
 * Not longer than a pass is ever put off: the clock may have been set back
 * since that time was settled.
 */
static void
sleep_until(TimestampTz wake_at)
{
	WaitEvent	event;
	long		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), wake_at);

	prepare_wait_set();
	(void) WaitEventSetWait(wait_set, Min(timeout, LONGEST_PAUSE_MS), &event, 1,
							crelay_wait_event());
	ResetLatch(MyLatch);
}

/*
 * The same error would only come again at once.  This needs nothing but the
 * latch: there may be no descriptor left to wait with.
 */
static void
pause_after_error(void)
{
	instr_time	start;

	INSTR_TIME_SET_CURRENT(start);
	while (!ShutdownRequestPending)
	{
		instr_time	passed;
		long		left;

		INSTR_TIME_SET_CURRENT(passed);
		INSTR_TIME_SUBTRACT(passed, start);
		left = ERROR_PAUSE_MS - (long) INSTR_TIME_GET_MILLISEC(passed);
		if (left <= 0)
			break;
		CHECK_FOR_INTERRUPTS();
		check_stopping();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, crelay_wait_event());
		ResetLatch(MyLatch);
	}
}

/*
 * In how long, at the rate of the last two passes, that many bytes of WAL will
 * have been written: a hold near its bound is looked at before.
 */
static int64
pause_near_bound(const CrelaySurvey *survey, TimestampTz now)
{
	static TimestampTz last_at;
	static uint64 last_lsn;
	int64		elapsed = now - last_at;
	int64		written = (int64) (survey->position.flush_lsn - last_lsn);
	int64		pause = WATCH_MS;

	if (elapsed > 0 && written > 0)
		pause = Min(pause, (int64) ((double) survey->watch_bytes / written * elapsed / 1000));
	last_at = now;
	last_lsn = survey->position.flush_lsn;
	return Max(pause, NEAR_BOUND_MS);
}

/*
 * When to look again: soon while something moves here or below, because
 * nothing wakes us when it does; else when a report is due.
 */
static TimestampTz
next_pass(const CrelaySurvey *survey, TimestampTz now)
{
	static TimestampTz moved_at;
	TimestampTz next = crelay_exchange_next();
	int64		pause = settings.report_interval_ms;

	if (survey->moved)
		moved_at = now;
	if (now >= moved_at && now - moved_at < WATCH_FOR_MS * INT64CONST(1000))
		pause = Min(pause, WATCH_MS);
	if (survey->has_sessions)
		pause = Min(pause, STOPPING_CHECK_MS);
	if (survey->watch_bytes >= 0)
		pause = Min(pause, pause_near_bound(survey, now));
	pause = Min(pause, LONGEST_PAUSE_MS);
	if (next == 0 || next > now + pause * 1000)
		next = now + pause * 1000;
	return next;
}

/* ---- the loop ---- */

/*
 * One line when the registry has become too small, not one for each node.
 */
static void
log_dropped_rows(void)
{
	CrelayLocal *shared = palloc(sizeof(CrelayLocal));

	crelay_registry_get_local(shared);
	if (shared->full.at == 0 ||
		GetCurrentTimestamp() - shared->full.at > (int64) settings.stale_timeout_ms * 1000)
	{
		local.node.warnings &= ~CRELAY_WARN_REGISTRY_FULL;
		rows_dropped_logged = false;
		return;
	}
	local.node.warnings |= CRELAY_WARN_REGISTRY_FULL;
	if (rows_dropped_logged)
		return;
	rows_dropped_logged = true;
	ereport(LOG,
			(errmsg("cascade_relay: more nodes than \"%s\" (%d); some are not shown",
					"cascade_relay.max_nodes", crelay_guc_max_nodes()),
			 shared->full.by[0] ? errdetail("Node \"%s\" has reported %d of them.",
											shared->full.by, shared->full.rows) :
			 shared->full.role[0] ? errdetail("Role \"%s\" speaks for %d of them.",
											  shared->full.role, shared->full.rows) : 0,
			 errhint("Raise \"%s\" and restart this server.",
					 "cascade_relay.max_nodes")));
}

/*
 * Loads the state file, before anything is said to another node.  If only the
 * worker is new, shared memory has what the file may lack.  An error leaves it to
 * the next pass.
 */
static void
load_state(void)
{
	CrelayLocal *shared = palloc(sizeof(CrelayLocal));
	CrelayIdentity identity;
	bool		new_server;

	crelay_registry_get_local(shared);
	new_server = !shared->ready;
	crelay_instance_identity(&identity, shared->node.incarnation);
	MemoryContextReset(state_context);
	crelay_moves_start(state_context, new_server);
	crelay_release_start(state_context, new_server);
	crelay_slot_users_start(state_context, new_server);
	crelay_lost_slots_start(state_context, new_server);
	crelay_missed_start(state_context, new_server);
	crelay_places_start(state_context, &local);
	local.nformer = identity.nformer;
	memcpy(local.former, identity.former, sizeof(local.former));
	local.node.incarnation = identity.now.incarnation;
}

static TimestampTz
run_pass(void)
{
	CrelaySurvey survey;
	TimestampTz now = GetCurrentTimestamp();

	if (local.node.incarnation == 0)
		load_state();
	crelay_exchange_forget_stale(&settings, &local);
	crelay_survey_run(&settings, now, &local, &survey);
	crelay_moves_count(&local);
	crelay_exchange_run(&settings, &survey, now, &local);
	log_dropped_rows();
	crelay_registry_publish_local(&local);
	crelay_places_keep(now, &local);
	return next_pass(&survey, now);
}

/*
 * Errors of a pass end here.  The same one again, in a row, is not logged again.
 */
static void
survive_error(void)
{
	ErrorData  *error;

	error_context_stack = NULL;
	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(worker_context);
	error = CopyErrorData();
	if (strncmp(last_failure, error->message ? error->message : "",
				sizeof(last_failure) - 1) != 0)
	{
		strlcpy(last_failure, error->message ? error->message : "", sizeof(last_failure));
		EmitErrorReport();
	}
	FreeErrorData(error);
	FlushErrorState();

	crelay_hold_abandon();
	pgstat_report_wait_end();
	AtEOXact_Files(false);
	crelay_exchange_abort(&local, last_failure);
	crelay_registry_publish_error(&local);
	free_wait_set();
	MemoryContextReset(pass_context);
	RESUME_INTERRUPTS();
}

/*
 * Leaves in order: what was moved is saved, so that a clean restart finds the
 * holds where they stood.
 */
static void
finish(void)
{
	static bool tried;

	crelay_link_close(crelay_exchange_link());
	free_wait_set();

	/* an error here ends in survive_error(), and must not keep us from ending */
	if (!tried)
	{
		tried = true;
		(void) crelay_hold_save_all();
		crelay_missed_stop();
		crelay_lost_slots_stop();
	}
}

static void
stop_on_exit(int code, Datum arg)
{
	crelay_registry_worker_stop();
}

static void
start(void)
{
	uint64		start_id = 0;
	CrelayLocal *shared;

	worker_context = AllocSetContextCreate(TopMemoryContext, "cascade_relay",
										   ALLOCSET_DEFAULT_SIZES);
	state_context = AllocSetContextCreate(worker_context, "cascade_relay state",
										  ALLOCSET_DEFAULT_SIZES);
	pass_context = AllocSetContextCreate(worker_context, "cascade_relay pass",
										 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(pass_context);
	crelay_guc_copy(&settings);

	(void) pg_strong_random(&start_id, sizeof(start_id));
	before_shmem_exit(stop_on_exit, (Datum) 0);
	crelay_registry_worker_start(GetSystemIdentifier(), start_id);

	/* counters go on from where the worker before has left them */
	shared = palloc(sizeof(CrelayLocal));
	crelay_registry_get_local(shared);
	local = *shared;
	local.upstream_state = CRELAY_UPSTREAM_NONE;
	local.node.incarnation = 0;
	local.node.replay_lag = -1;
	pfree(shared);

	crelay_survey_start(worker_context);
	crelay_exchange_start(worker_context);
}

void
crelay_worker_main(Datum arg)
{
	sigjmp_buf	error_jump;
	volatile bool failed = false;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	start();
	if (sigsetjmp(error_jump, 1) != 0)
	{
		survive_error();
		failed = true;
	}
	PG_exception_stack = &error_jump;

	while (!ShutdownRequestPending)
	{
		TimestampTz next;

		MemoryContextSwitchTo(pass_context);
		CHECK_FOR_INTERRUPTS();
		if (failed)
		{
			failed = false;
			pause_after_error();
		}
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			crelay_guc_copy(&settings);
		}
		check_stopping();
		next = run_pass();
		last_failure[0] = '\0';
		MemoryContextReset(pass_context);
		sleep_until(next);
	}

	finish();

	/* not 0, which would retire the worker until the next server start */
	proc_exit(1);
}
