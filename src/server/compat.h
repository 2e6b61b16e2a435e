/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Every difference between the supported PostgreSQL versions.
 *
 * Owns: inline wrappers that take the newest version's view.  Names of core
 * are never redefined.
 *
 * Not here: anything that is the same everywhere.  PG_VERSION_NUM is tested in
 * this file and nowhere else.
 *
 * Locking: that of the functions wrapped.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_COMPAT_H
#define CRELAY_COMPAT_H

#include "postgres.h"

#include "replication/slot.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/backend_status.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "cascade_relay needs PostgreSQL 15 or newer"
#endif

#if PG_VERSION_NUM >= 170000
#include "postmaster/walsummarizer.h"
#endif
#if PG_VERSION_NUM >= 160000
#include "varatt.h"				/* in postgres.h before */
#endif
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

/*
 * How the server prints an LSN, for LSN_FORMAT_ARGS(), and for files without a
 * PostgreSQL header the least number of digits after the slash.
 */
#if PG_VERSION_NUM >= 190000
#define CRELAY_LSN_FORMAT	"%X/%08X"
#define CRELAY_LSN_DIGITS	8
#else
#define CRELAY_LSN_FORMAT	"%X/%X"
#define CRELAY_LSN_DIGITS	1
#endif

/*
 * A physical slot for this process, neither failover-enabled nor synced.
 */
static inline void
crelay_slot_create(const char *name, ReplicationSlotPersistency persistency)
{
#if PG_VERSION_NUM >= 190000
	ReplicationSlotCreate(name, false, persistency, false, false, false, false);
#elif PG_VERSION_NUM >= 170000
	ReplicationSlotCreate(name, false, persistency, false, false, false);
#else
	ReplicationSlotCreate(name, false, persistency, false);
#endif
}

/*
 * An error if no slot of a user may have that name.
 */
static inline void
crelay_slot_check_name(const char *name)
{
#if PG_VERSION_NUM >= 190000
	(void) ReplicationSlotValidateName(name, false, ERROR);
#else
	(void) ReplicationSlotValidateName(name, ERROR);
#endif
}

/*
 * Acquires without waiting; an invalidated slot too, so that it can be dropped.
 */
static inline void
crelay_slot_acquire(const char *name)
{
#if PG_VERSION_NUM >= 180000
	ReplicationSlotAcquire(name, true, false);
#else
	ReplicationSlotAcquire(name, true);
#endif
}

/*
 * Drops the slot that this process has acquired, or raises an error, and then it is
 * there still, acquired by nobody.  Before 17 nobody outside of slot.c could; but
 * who has a slot may acquire it again, and it does not become free in between.
 */
static inline void
crelay_slot_drop_acquired(void)
{
#if PG_VERSION_NUM >= 190000
	ReplicationSlotDropAcquired(false);
#elif PG_VERSION_NUM >= 170000
	ReplicationSlotDropAcquired();
#else
	const char *name = NameStr(MyReplicationSlot->data.name);

	MyReplicationSlot = NULL;
	ReplicationSlotDrop(name, true);
#endif
}

/*
 * The process that has a slot acquired, 0 for none.  Call with the slot's
 * spinlock held.
 */
static inline pid_t
crelay_slot_active_pid(const ReplicationSlot *slot)
{
#if PG_VERSION_NUM >= 190000
	if (slot->active_proc == INVALID_PROC_NUMBER)
		return 0;
	return GetPGProcByNumber(slot->active_proc)->pid;
#else
	return slot->active_pid;
#endif
}

/*
 * Whether the server gave the slot up.  Call with its spinlock held, or on a
 * copy.
 */
static inline bool
crelay_slot_data_invalidated(const ReplicationSlotPersistentData *data)
{
#if PG_VERSION_NUM >= 160000
	return data->invalidated != RS_INVAL_NONE;
#else
	return data->restart_lsn == InvalidXLogRecPtr &&
		data->invalidated_at != InvalidXLogRecPtr;
#endif
}

/*
 * The setting that has made the server give a physical slot up, NULL if none has.
 * Call with the slot's spinlock held, or on a copy.
 */
static inline const char *
crelay_slot_data_invalidated_by(const ReplicationSlotPersistentData *data)
{
#if PG_VERSION_NUM >= 180000
	if (data->invalidated == RS_INVAL_IDLE_TIMEOUT)
		return "idle_replication_slot_timeout";
#endif
#if PG_VERSION_NUM >= 160000
	return data->invalidated == RS_INVAL_WAL_REMOVED ? "max_slot_wal_keep_size" : NULL;
#else
	return crelay_slot_data_invalidated(data) ? "max_slot_wal_keep_size" : NULL;
#endif
}

/*
 * After how many seconds the server gives up a slot that nobody has acquired, 0 if
 * it does not.
 */
static inline int
crelay_slot_idle_timeout(void)
{
#if PG_VERSION_NUM >= 180000
	return idle_replication_slot_timeout_secs;
#else
	return 0;
#endif
}

/*
 * From where on WAL is kept until it is summarized, 0 if none is.
 */
static inline XLogRecPtr
crelay_oldest_unsummarized(void)
{
#if PG_VERSION_NUM >= 170000
	return GetOldestUnsummarizedLSN(NULL, NULL);
#else
	return InvalidXLogRecPtr;
#endif
}

/*
 * Whether this process holds that lock in that mode.
 */
static inline bool
crelay_lock_is_mine(const LOCKTAG *tag, LOCKMODE mode)
{
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(tag, mode, false);
#else
	return LockHeldByMe(tag, mode);
#endif
}

/*
 * The i-th (from 1) live entry of the backend status array, or NULL behind the
 * last.
 */
static inline PgBackendStatus *
crelay_backend_status(int i)
{
	LocalPgBackendStatus *local;

#if PG_VERSION_NUM >= 160000
	local = pgstat_get_local_beentry_by_index(i);
#else
	local = pgstat_fetch_stat_local_beentry(i);
#endif
	return local ? &local->backendStatus : NULL;
}

/*
 * A wait event set that lives until it is freed.
 */
static inline WaitEventSet *
crelay_create_wait_event_set(int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);
#else
	return CreateWaitEventSet(TopMemoryContext, nevents);
#endif
}

/*
 * What pg_stat_activity shows while the worker waits.
 */
static inline uint32
crelay_wait_event(void)
{
#if PG_VERSION_NUM >= 170000
	static uint32 event = 0;

	if (event == 0)
		event = WaitEventExtensionNew("CascadeRelayMain");
	return event;
#else
	return PG_WAIT_EXTENSION;
#endif
}

/*
 * The same for a session that waits for replay.
 */
static inline uint32
crelay_wait_event_replay(void)
{
#if PG_VERSION_NUM >= 170000
	static uint32 event = 0;

	if (event == 0)
		event = WaitEventExtensionNew("CascadeRelayWaitFor");
	return event;
#else
	return PG_WAIT_EXTENSION;
#endif
}

/*
 * The same for a session that talks to another node, or waits for the
 * walreceiver to stream from it.
 */
static inline uint32
crelay_wait_event_follow(void)
{
#if PG_VERSION_NUM >= 170000
	static uint32 event = 0;

	if (event == 0)
		event = WaitEventExtensionNew("CascadeRelayFollow");
	return event;
#else
	return PG_WAIT_EXTENSION;
#endif
}

/*
 * Whether a value was given on the server's command line, or in another way
 * that no configuration file overrides.
 */
static inline bool
crelay_setting_is_overridden(const char *name)
{
	struct config_generic *record = NULL;

#if PG_VERSION_NUM >= 160000
	record = find_option(name, false, true, DEBUG1);
#else
	struct config_generic **records = get_guc_variables();

	for (int i = 0; i < GetNumConfigOptions() && record == NULL; i++)
	{
		if (strcmp(records[i]->name, name) == 0)
			record = records[i];
	}
#endif
	return record != NULL && record->source > PGC_S_FILE;
}

/*
 * Whether the server takes ALTER SYSTEM at all.
 */
static inline bool
crelay_alter_system_is_allowed(void)
{
#if PG_VERSION_NUM >= 170000
	return AllowAlterSystem;
#else
	return true;
#endif
}

#endif							/* CRELAY_COMPAT_H */
