/*-------------------------------------------------------------------------
 *
 * downstream.c
 *	  Reading this node's own position, its slots and its walsenders.
 *
 * Owns, leaves out and locks: see downstream.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netdb.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "access/timeline.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "common/ip.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "replication/syncrep.h"
#include "replication/walreceiver.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/fd.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/backend_status.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "decide/address.h"
#include "node/downstream.h"
#include "server/compat.h"
#include "server/guc.h"

/*
 * So many of the signs in count_signs() must be there for a walsender to be a
 * child's for certain, and so many for it to be likely.
 */
#define SURE_SIGNS		3
#define LIKELY_SIGNS	2

/*
 * So many hashes are spent on one look at this node, for all that is said of
 * nodes that are away together; and so many on each of those whatever the others
 * take, which is enough for a node that has really moved.
 */
#define HASHES_ALL		(2 * CRELAY_PROOF_REACH)
#define HASHES_EACH		16

/* How long it may take at least until a child's reports say that it streams. */
#define MIN_GRACE_MS	INT64CONST(3000)

/* A walsender's name tag, which only the backend status array knows. */
typedef struct SenderName
{
	pid_t		pid;
	TimestampTz started;		/* with the pid: which process it is */
	bool		had_slot;		/* at this look, or an earlier one */
	uint32		confirmed;		/* of the child that it was taken for while
								 * that went on saying that it streams; 0 none */
	char		application_name[CRELAY_SLOT_LEN];
	char		client_addr[CRELAY_SLOT_LEN];
} SenderName;

/* A copy of one walsender's entry. */
typedef struct Sender
{
	pid_t		pid;
	WalSndState state;
	bool		claimed;		/* its slot, or its child, is known */
	int			sync_priority;
	uint64		sent;
	uint64		flush;
	uint64		apply;
	int64		apply_lag;
	int64		reply_time;
	SenderName *name;
} Sender;

/* The tags of all walsenders, looked up again when the set of pids changes. */
static SenderName *sender_names;
static int	n_sender_names;

/* ---- this node itself ---- */

void
crelay_read_position(CrelayPosition *position)
{
	TimeLineID	tli = 0;
	TimeLineID	redo_tli;
	XLogRecPtr	redo;

	position->in_recovery = RecoveryInProgress();
	if (position->in_recovery)
	{
		XLogRecPtr	received = GetWalRcvFlushRecPtr(NULL, NULL);

		position->applied_lsn = GetXLogReplayRecPtr(&tli);

		/* what was received starts at a segment, and may lie behind */
		position->flush_lsn = Max(received, position->applied_lsn);
	}
	else
	{
		position->applied_lsn = GetFlushRecPtr(&tli);
		position->flush_lsn = position->applied_lsn;
	}
	position->timeline = tli;
	GetOldestRestartPoint(&redo, &redo_tli);
	position->restart_redo = redo;
}

/*
 * Reads how many more standbys could attach to this server.
 */
void
crelay_read_room(CrelayRoom *room)
{
	int			senders = max_wal_senders;
	int			slots = max_replication_slots;

	for (int i = 0; i < max_wal_senders; i++)
	{
		WalSnd	   *sender = &WalSndCtl->walsnds[i];

		SpinLockAcquire(&sender->mutex);
		senders -= sender->pid != 0;
		SpinLockRelease(&sender->mutex);
	}
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
		slots -= ReplicationSlotCtl->replication_slots[i].in_use;
	LWLockRelease(ReplicationSlotControlLock);
	room->known = true;
	room->senders = (uint16) Min(senders, PG_UINT16_MAX);
	room->slots = (uint16) Min(slots, PG_UINT16_MAX);
}

/*
 * The standbys that synchronous_standby_names lists by name; "*" is nobody's.
 */
void
crelay_read_sync_names(CrelaySyncNames *sync_names)
{
	const char *name;

	memset(sync_names, 0, sizeof(CrelaySyncNames));
	sync_names->known = true;
	if (SyncRepConfig == NULL)
		return;
	name = SyncRepConfig->member_names;
	for (int i = 0; i < SyncRepConfig->nmembers; i++)
	{
		if (strcmp(name, "*") != 0 && sync_names->n < CRELAY_MAX_SYNC_NAMES)
			strlcpy(sync_names->names[sync_names->n++], name, CRELAY_SLOT_LEN);
		name += strlen(name) + 1;
	}
}

void
crelay_read_receiver(CrelayReceiver *receiver)
{
	WalRcvData *walrcv = WalRcv;

	memset(receiver, 0, sizeof(CrelayReceiver));
	SpinLockAcquire(&walrcv->mutex);
	receiver->pid = walrcv->pid;
	receiver->running = walrcv->pid != 0;

	/* it says so from its start on, connected or not */
	receiver->streaming = walrcv->walRcvState == WALRCV_STREAMING &&
		walrcv->ready_to_display;
	if (receiver->running)
	{
		strlcpy(receiver->slot_name, walrcv->slotname, sizeof(receiver->slot_name));

		/* they are those of the last connection until this one stands */
		if (walrcv->ready_to_display)
		{
			strlcpy(receiver->host, walrcv->sender_host, sizeof(receiver->host));
			receiver->port = walrcv->sender_port;
			receiver->start_lsn = walrcv->receiveStart;

			/* a new one starts with the same time for both */
			receiver->heard = walrcv->lastMsgSendTime != walrcv->lastMsgReceiptTime;
		}
	}
	SpinLockRelease(&walrcv->mutex);
}

/*
 * The timelines that this server has been on, from its history file; kept
 * until it is on another one.
 */
const CrelayHistory *
crelay_read_history(uint32 timeline)
{
	static CrelayHistory history;
	List	   *entries;
	ListCell   *lc;

	if (history.timeline == timeline)
		return &history;
	entries = readTimeLineHistory(timeline);
	memset(&history, 0, sizeof(history));
	foreach(lc, entries)
	{
		TimeLineHistoryEntry *entry = lfirst(lc);

		/* the first is the current one, which has no end */
		if (entry->tli == timeline || history.n == CRELAY_MAX_HISTORY)
			continue;
		history.left[history.n].timeline = entry->tli;
		history.left[history.n++].lsn = entry->end;
	}
	list_free_deep(entries);
	history.timeline = timeline;
	return &history;
}

static int
compare_wal_files(const void *a, const void *b)
{
	const CrelayWalFile *first = a;
	const CrelayWalFile *second = b;

	if (first->start_lsn != second->start_lsn)
		return first->start_lsn < second->start_lsn ? -1 : 1;
	return first->timeline < second->timeline ? -1 : first->timeline > second->timeline;
}

/*
 * The end of the last WAL file in the folder, which may be there for WAL to come;
 * and the oldest files, in order, as many as there is room for.  The array must
 * have twice that room.  Errors are the caller's to survive: a folder that cannot
 * be read is one.
 */
int
crelay_read_wal_files(CrelayWalFile *files, int room, uint64 *end)
{
	DIR		   *dir = AllocateDir(XLOGDIR);
	struct dirent *entry;
	XLogSegNo	last = 0;
	int			n = 0;

	while ((entry = ReadDir(dir, XLOGDIR)) != NULL)
	{
		TimeLineID	tli;
		XLogSegNo	segno;

		if (!IsXLogFileName(entry->d_name))
			continue;
		XLogFromFileName(entry->d_name, &tli, &segno, wal_segment_size);
		last = Max(last, segno);
		if (n == 2 * room)
		{
			qsort(files, n, sizeof(CrelayWalFile), compare_wal_files);
			n = room;
		}
		files[n].start_lsn = segno * wal_segment_size;
		files[n].timeline = tli;
		files[n++].unarchived = false;
	}
	FreeDir(dir);
	qsort(files, n, sizeof(CrelayWalFile), compare_wal_files);
	*end = last != 0 ? (last + 1) * wal_segment_size : 0;
	return Min(n, room);
}

/*
 * The start of the oldest WAL file, 0 if there is none.
 */
uint64
crelay_read_oldest_wal(void)
{
	CrelayWalFile files[2];
	uint64		end;

	return crelay_read_wal_files(files, 1, &end) > 0 ? files[0].start_lsn : 0;
}

/*
 * Marks the files that the server keeps until they are archived.  On a standby
 * that does not archive always none is.
 */
void
crelay_read_unarchived(CrelayWalFile *files, int n)
{
	if (!XLogArchivingActive() ||
		(!XLogArchivingAlways() && GetRecoveryState() == RECOVERY_STATE_ARCHIVE))
		return;
	for (int i = 0; i < n; i++)
	{
		char		name[MAXFNAMELEN];
		char		path[MAXPGPATH];
		struct stat st;

		XLogFileName(name, files[i].timeline, files[i].start_lsn / wal_segment_size,
					 wal_segment_size);
		StatusFilePath(path, name, ".done");
		files[i].unarchived = stat(path, &st) != 0;
	}
}

/*
 * The lowest restart_lsn of all slots but holds, and the slot's name; 0 if none
 * keeps WAL.
 */
uint64
crelay_read_lowest_slot(char *slot_name)
{
	uint64		lowest = 0;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		char		node_name[CRELAY_NODE_NAME_MAX + 1];
		uint32		incarnation;
		uint64		restart_lsn;
		bool		invalidated;

		if (!slot->in_use)
			continue;
		SpinLockAcquire(&slot->mutex);
		restart_lsn = slot->data.restart_lsn;
		invalidated = crelay_slot_data_invalidated(&slot->data);
		SpinLockRelease(&slot->mutex);
		if (restart_lsn == 0 || invalidated || (lowest != 0 && restart_lsn >= lowest) ||
			(SlotIsPhysical(slot) &&
			 crelay_hold_name_parse(NameStr(slot->data.name), node_name, &incarnation)))
			continue;
		lowest = restart_lsn;
		strlcpy(slot_name, NameStr(slot->data.name), CRELAY_SLOT_LEN);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return lowest;
}

/*
 * The size of the file system that pg_wal is on, and what is free of it to
 * this server's user.  False if it does not say; it is asked again anyhow.
 */
bool
crelay_read_wal_disk(uint64 *total, uint64 *avail)
{
	struct statvfs fs;

	if (statvfs(XLOGDIR, &fs) != 0 || fs.f_blocks == 0)
		return false;
	*total = (uint64) fs.f_blocks * fs.f_frsize;
	*avail = (uint64) fs.f_bavail * fs.f_frsize;
	return true;
}

/*
 * The oldest xmin of this node's own snapshots, 0 if there is none: not that
 * of walsenders, which is their downstreams', nor that of a vacuum, which
 * keeps nothing from being vacuumed.  Read without ProcArrayLock: it is shown,
 * and decides nothing.
 */
uint32
crelay_read_own_xmin(void)
{
	TransactionId oldest = InvalidTransactionId;

	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		PGPROC	   *proc = &ProcGlobal->allProcs[i];
		TransactionId xmin = proc->xmin;

		if (proc->pid == 0 || !TransactionIdIsNormal(xmin) ||
			(proc->statusFlags & (PROC_AFFECTS_ALL_HORIZONS | PROC_IN_VACUUM)) != 0)
			continue;
		if (oldest == InvalidTransactionId || TransactionIdPrecedes(xmin, oldest))
			oldest = xmin;
	}
	return oldest;
}

/* ---- walsenders ---- */

/*
 * An address as pg_stat_replication shows it, without a look-up, "[local]" for
 * a Unix socket.
 */
static void
format_address(const SockAddr *addr, char *text, Size size)
{
	char		host[NI_MAXHOST] = "";

	if (addr->addr.ss_family == AF_UNIX || addr->salen == 0)
		strlcpy(text, "[local]", size);
	else if (pg_getnameinfo_all(&addr->addr, addr->salen, host, sizeof(host),
								NULL, 0, NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		strlcpy(text, host, size);
	else
		strlcpy(text, "unknown", size);
}

/*
 * Where the client of this session is, in the same form.
 */
void
crelay_session_address(char *addr, Size size)
{
	format_address(&MyBEEntry->st_clientaddr, addr, size);
}

/*
 * Returns true if the client of this session is on this machine, as far as the
 * connection tells.
 */
bool
crelay_session_is_local(void)
{
	char		addr[NI_MAXHOST];

	crelay_session_address(addr, sizeof(addr));
	return addr[0] == '[' || crelay_host_is_local(addr);
}

static SenderName *
find_sender_name(pid_t pid)
{
	for (int i = 0; i < n_sender_names; i++)
	{
		if (sender_names[i].pid == pid)
			return &sender_names[i];
	}
	return NULL;
}

/*
 * Takes over what is known of this very process from earlier looks.
 */
static void
recall_sender(SenderName *name, const SenderName *known, int n_known)
{
	name->had_slot = false;
	name->confirmed = 0;
	for (int i = 0; i < n_known; i++)
	{
		if (known[i].pid != name->pid || known[i].started != name->started)
			continue;
		name->had_slot = known[i].had_slot;
		name->confirmed = known[i].confirmed;
	}
}

/*
 * Looks up the tags of these walsenders in the backend status array.
 */
static void
refresh_sender_names(const Sender *senders, int n)
{
	PgBackendStatus *status;
	SenderName *known;
	int			n_known = n_sender_names;

	if (sender_names == NULL)
		sender_names = MemoryContextAllocZero(TopMemoryContext,
											  sizeof(SenderName) * Max(max_wal_senders, 1));
	known = palloc_array(SenderName, n_known + 1);
	memcpy(known, sender_names, sizeof(SenderName) * n_known);
	n_sender_names = 0;
	for (int i = 1; (status = crelay_backend_status(i)) != NULL; i++)
	{
		for (int j = 0; j < n; j++)
		{
			SenderName *name;

			if (status->st_procpid != senders[j].pid ||
				n_sender_names >= max_wal_senders)
				continue;
			name = &sender_names[n_sender_names++];
			name->pid = senders[j].pid;
			name->started = status->st_proc_start_timestamp;
			recall_sender(name, known, n_known);
			strlcpy(name->application_name, status->st_appname,
					sizeof(name->application_name));
			format_address(&status->st_clientaddr, name->client_addr,
						   sizeof(name->client_addr));
		}
	}
	pfree(known);
}

/*
 * Copies the walsenders that feed somebody.  With fresh_names the tags are
 * looked up anew whatever happens; without, only for a new set of processes,
 * and then from a new snapshot of the status array.
 */
static int
read_senders(Sender *senders, bool fresh_names)
{
	int			n = 0;
	bool		known = true;

	for (int i = 0; i < max_wal_senders; i++)
	{
		WalSnd	   *walsnd = &WalSndCtl->walsnds[i];
		Sender	   *sender = &senders[n];

		SpinLockAcquire(&walsnd->mutex);
		sender->pid = walsnd->pid;
		sender->state = walsnd->state;
		sender->sync_priority = walsnd->sync_standby_priority;
		sender->sent = walsnd->sentPtr;
		sender->flush = walsnd->flush;
		sender->apply = walsnd->apply;
		sender->apply_lag = walsnd->applyLag;
		sender->reply_time = walsnd->replyTime;
		SpinLockRelease(&walsnd->mutex);
		if (sender->pid == 0)
			continue;
		sender->claimed = false;
		if (find_sender_name(sender->pid) == NULL)
			known = false;
		n++;
	}

	if (fresh_names || !known || n != n_sender_names)
	{
		if (!fresh_names)
			pgstat_clear_backend_activity_snapshot();
		refresh_sender_names(senders, n);
	}
	for (int i = 0; i < n; i++)
		senders[i].name = find_sender_name(senders[i].pid);
	return n;
}

static CrelayState
sender_state(WalSndState state)
{
	switch (state)
	{
		case WALSNDSTATE_STARTUP:
		case WALSNDSTATE_CATCHUP:
			return CRELAY_STATE_CATCHUP;
		case WALSNDSTATE_STREAMING:
		case WALSNDSTATE_STOPPING:
			return CRELAY_STATE_STREAMING;
		case WALSNDSTATE_BACKUP:
			break;				/* nothing streams */
	}
	return CRELAY_STATE_UNKNOWN;
}

static void
apply_sender(CrelayDownstream *d, Sender *sender)
{
	sender->claimed = true;
	d->pid = sender->pid;
	d->state = sender_state(sender->state);
	d->backup = sender->state == WALSNDSTATE_BACKUP;
	d->sync_standby = sender->sync_priority > 0 && sender->flush != 0;
	d->sent_lsn = sender->sent;
	d->flush_lsn = sender->flush;
	d->replay_lsn = sender->apply;
	d->replay_lag = sender->apply_lag;
	d->reply_time = sender->reply_time;
	if (sender->name != NULL)
	{
		strlcpy(d->application_name, sender->name->application_name,
				sizeof(d->application_name));
		strlcpy(d->client_addr, sender->name->client_addr, sizeof(d->client_addr));
	}
}

/* ---- slots ---- */

/*
 * Takes a hold's slot name apart: prefix, node name, underscore, eight hex
 * digits.
 */
bool
crelay_hold_name_parse(const char *slot_name, char *node_name, uint32 *incarnation)
{
	size_t		prefix = strlen(CRELAY_HOLD_PREFIX);
	size_t		len = strlen(slot_name);
	size_t		name_len;
	const char *hex;

	if (strncmp(slot_name, CRELAY_HOLD_PREFIX, prefix) != 0 || len < prefix + 10)
		return false;
	name_len = len - prefix - 9;
	if (name_len > CRELAY_NODE_NAME_MAX || slot_name[len - 9] != '_')
		return false;
	hex = slot_name + len - 8;
	if (strspn(hex, "0123456789abcdef") != 8)
		return false;
	*incarnation = (uint32) strtoul(hex, NULL, 16);
	memcpy(node_name, slot_name + prefix, name_len);
	node_name[name_len] = '\0';
	return *incarnation != 0;
}

/*
 * Takes the name of a slot apart that cascade_adopt has made: prefix, node
 * name.
 */
bool
crelay_adopted_name_parse(const char *slot_name, char *node_name)
{
	size_t		prefix = strlen(CRELAY_ADOPTED_PREFIX);

	if (strncmp(slot_name, CRELAY_ADOPTED_PREFIX, prefix) != 0 ||
		!crelay_node_name_is_valid(slot_name + prefix))
		return false;
	strlcpy(node_name, slot_name + prefix, CRELAY_NODE_NAME_MAX + 1);
	return true;
}

/*
 * Copies one slot in use into a downstream, under its spinlock.
 */
static void
copy_slot(CrelayDownstream *d, ReplicationSlot *slot)
{
	memset(d, 0, sizeof(CrelayDownstream));
	SpinLockAcquire(&slot->mutex);
	strlcpy(d->slot_name, NameStr(slot->data.name), sizeof(d->slot_name));
	d->pid = crelay_slot_active_pid(slot);
	d->logical = SlotIsLogical(slot);
	d->temporary = slot->data.persistency == RS_TEMPORARY;
	d->invalidated = crelay_slot_data_invalidated(&slot->data);
	d->invalidated_by = crelay_slot_data_invalidated_by(&slot->data);
	d->restart_lsn = slot->data.restart_lsn;
	d->backend_xmin = slot->data.xmin;
	SpinLockRelease(&slot->mutex);
	d->kind = CRELAY_KIND_SLOT;
	d->replay_lag = -1;
	d->child = -1;
}

static int
read_slots(CrelayDownstream *downstreams)
{
	int			n = 0;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		if (slot->in_use)
			copy_slot(&downstreams[n++], slot);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return n;
}

/*
 * What a slot is and is called by itself, whoever uses it.
 */
static void
name_slot(CrelayDownstream *d)
{
	bool		lasts = !d->logical && !d->temporary;

	d->incarnation = 0;
	d->kind = CRELAY_KIND_SLOT;
	d->adopted = false;
	if (lasts && crelay_hold_name_parse(d->slot_name, d->name, &d->incarnation))
		d->kind = CRELAY_KIND_HOLD;
	else if (lasts && crelay_adopted_name_parse(d->slot_name, d->name))
		d->adopted = true;
	else
		strlcpy(d->name, d->slot_name, sizeof(d->name));
}

/*
 * Which slots are holds, what everybody is called, and which walsender serves
 * which slot.
 */
static void
identify_slots(CrelayDownstream *downstreams, int n, Sender *senders, int nsenders)
{
	for (int i = 0; i < n; i++)
	{
		CrelayDownstream *d = &downstreams[i];

		name_slot(d);
		for (int j = 0; d->pid != 0 && j < nsenders; j++)
		{
			if (senders[j].pid != d->pid)
				continue;
			apply_sender(d, &senders[j]);
			if (senders[j].name != NULL)
				senders[j].name->had_slot = true;
		}
	}
}

/*
 * What the feedback of a standby without a slot holds back.
 */
static uint32
sender_xmin(pid_t pid)
{
	PGPROC	   *proc = BackendPidGetProc(pid);

	return proc != NULL ? proc->xmin : InvalidTransactionId;
}

/*
 * What a walsender without a slot is called, by itself.
 */
static const char *
slotless_name(const CrelayDownstream *d)
{
	return d->application_name[0] != '\0' ? d->application_name : "walreceiver";
}

/*
 * Adds the walsenders that serve no slot.  One that has lost its slot, as a
 * process does that is about to end, is not one of them: it would look like a
 * standby without a slot.
 */
static int
add_slotless(CrelayDownstream *downstreams, int n, Sender *senders, int nsenders)
{
	for (int j = 0; j < nsenders; j++)
	{
		CrelayDownstream *d = &downstreams[n];
		const SenderName *name = senders[j].name;

		if (senders[j].claimed || (name != NULL && name->had_slot))
			continue;
		memset(d, 0, sizeof(CrelayDownstream));
		d->kind = CRELAY_KIND_WALSENDER;
		d->child = -1;
		apply_sender(d, &senders[j]);
		d->restart_lsn = d->flush_lsn;
		d->backend_xmin = sender_xmin(d->pid);
		strlcpy(d->name, slotless_name(d), sizeof(d->name));
		n++;
	}
	return n;
}

/*
 * Two slotless walsenders of one name get their pid to tell them apart.
 */
static void
name_slotless(CrelayDownstream *downstreams, int n)
{
	for (int i = 0; i < n; i++)
	{
		CrelayDownstream *d = &downstreams[i];
		bool		unique = true;

		if (d->kind != CRELAY_KIND_WALSENDER || d->managed)
			continue;
		for (int j = 0; j < n; j++)
		{
			const CrelayDownstream *other = &downstreams[j];

			if (j != i && !other->managed &&
				strcmp(other->kind == CRELAY_KIND_WALSENDER ? slotless_name(other) : other->name,
					   slotless_name(d)) == 0)
				unique = false;
		}
		if (!unique)
			snprintf(d->name, sizeof(d->name), "%s#%d", slotless_name(d), d->pid);
	}
}

/* ---- who streamed through a slot last ---- */

/*
 * Says of each slot which managed node was seen to stream through it last.
 */
static void
mark_users(CrelayDownstream *downstreams, int n, const CrelaySlotUser *users, int n_users)
{
	for (int i = 0; i < n; i++)
	{
		CrelayDownstream *d = &downstreams[i];

		if (d->kind != CRELAY_KIND_SLOT || d->logical || d->temporary)
			continue;
		for (int u = 0; u < n_users; u++)
		{
			if (strcmp(users[u].slot_name, d->slot_name) != 0)
				continue;
			d->last_user = users[u].incarnation;
			d->taken = d->last_user == 0;
		}
	}
}

/*
 * One that nobody streams through now is that node's, also when it has not called
 * since this node's start, or says that it streams through another one.
 */
static void
identify_users(CrelayDownstream *downstreams, int n, const CrelaySlotUser *users, int n_users)
{
	for (int i = 0; i < n; i++)
	{
		CrelayDownstream *d = &downstreams[i];

		if (d->pid != 0 || d->incarnation != 0 || d->last_user == 0)
			continue;
		for (int u = 0; u < n_users; u++)
		{
			if (strcmp(users[u].slot_name, d->slot_name) != 0)
				continue;
			strlcpy(d->name, users[u].node_name, sizeof(d->name));
			d->incarnation = users[u].incarnation;
		}
	}
}

/* ---- managed children ---- */

/*
 * Gives a child's hold what the child has reported, or adds a downstream for a
 * child that has no hold.  Returns which one it is.
 */
static int
attach_reports(CrelayDownstream *downstreams, int *n, const CrelayChild *child, int index)
{
	CrelayDownstream *hold = NULL;

	for (int i = 0; i < *n; i++)
	{
		if (downstreams[i].kind == CRELAY_KIND_HOLD &&
			strcmp(downstreams[i].slot_name, child->hold_name) == 0)
			hold = &downstreams[i];
	}
	if (hold == NULL)
	{
		hold = &downstreams[(*n)++];
		memset(hold, 0, sizeof(CrelayDownstream));
		hold->kind = CRELAY_KIND_HOLD;
		strlcpy(hold->name, child->node.name, sizeof(hold->name));
		strlcpy(hold->key, child->hold_name, sizeof(hold->key));
		hold->incarnation = child->node.incarnation;
		hold->replay_lag = -1;
	}
	hold->child = index;
	hold->last_report_time = child->last_report;
	hold->silent = child->silent;
	hold->reports_seen = child->silent_reports;
	hold->lapsed_lsn = child->lapsed_lsn;
	if (child->reported && !child->diverged)
	{
		hold->reported = true;
		hold->reported_frontier = child->node.frontier_lsn;
		hold->reported_target = child->hold_target_lsn;
		strlcpy(hold->reported_xmin_pinned_by, child->node.xmin_pinned_by,
				sizeof(hold->reported_xmin_pinned_by));
		hold->reported_pin = child->node.pin;
	}
	return (int) (hold - downstreams);
}

/*
 * Whether a child would know by now whether it streams through what has been there
 * since then.
 */
static bool
would_know(const CrelayChild *child, TimestampTz since)
{
	int64		grace_ms = Max((int64) child->report_interval_ms * 3, MIN_GRACE_MS);

	return child->last_report - since > grace_ms * 1000;
}

/*
 * What streams so is not drawn as a node of its own: it is the child, whose needs
 * count by that entry.  That is remembered of a walsender once the child has said
 * for long enough that it streams.
 */
static void
draw_as_child(CrelayDownstream *d, const CrelayChild *child, int index, int counts_by)
{
	SenderName *name = find_sender_name(d->pid);

	if (d->kind == CRELAY_KIND_SLOT && name != NULL && child->session_pid != 0 &&
		child->streams_since != 0 && would_know(child, Max(name->started, child->streams_since)))
		name->confirmed = child->node.incarnation;
	if (d->kind == CRELAY_KIND_SLOT)
		name_slot(d);
	d->managed = true;
	d->child = index;
	d->counts_by = counts_by;
}

/*
 * The same if it is known to be the child's: then it goes by the child's name,
 * and goes with the child.
 */
static void
take_for_child(CrelayDownstream *d, const CrelayChild *child, int index, int counts_by)
{
	draw_as_child(d, child, index, counts_by);
	d->incarnation = child->node.incarnation;
	strlcpy(d->name, child->node.name, sizeof(d->name));
}

/*
 * Whether this very walsender was taken for the child's while that was here, and
 * went on reporting that it streams: one that tries in vain says so for a moment.
 * The walsender may outlive the session, and two of the signs end with that; and
 * if the network was cut, it stays until it notices, whatever the node does by
 * then, and wherever it is.
 */
static bool
was_confirmed(const CrelayDownstream *d, const CrelayChild *child)
{
	const SenderName *name = find_sender_name(d->pid);

	return name != NULL && name->confirmed == child->node.incarnation;
}

/*
 * Whether a child has said that it does not stream, while that walsender was at
 * work: for so long that it would know, and it has never said that it does.
 */
static bool
denies(const CrelayChild *child, const CrelayDownstream *d)
{
	const SenderName *name = find_sender_name(d->pid);

	return !crelay_child_says_it_streams(child) && name != NULL &&
		!was_confirmed(d, child) && would_know(child, name->started);
}

static bool
is_candidate(const CrelayDownstream *d, const CrelayChild *child)
{
	return d->kind == CRELAY_KIND_WALSENDER && !d->managed && !d->backup &&
		strcmp(d->application_name, child->application_name) == 0 &&
		strcmp(d->client_addr, child->client_addr) == 0 && !denies(child, d);
}

/*
 * The role that a process has logged in as, 0 if there is none.
 */
static Oid
login_role(pid_t pid)
{
	PGPROC	   *proc = pid != 0 ? BackendPidGetProc(pid) : NULL;

	return proc != NULL ? proc->roleId : InvalidOid;
}

/*
 * How much speaks for it that a walsender is that of a child which says so: the
 * name and the address that it connects with, that it was seen there before,
 * and the role.  Each of them can be different although it is, because the child
 * reports on another way than it streams on.
 */
static int
count_signs(const CrelayDownstream *d, const CrelayChild *child)
{
	int			n = 0;
	Oid			role;

	if (strcmp(d->application_name, child->application_name) == 0)
		n++;
	if (strcmp(d->client_addr, child->client_addr) == 0)
		n++;
	if (d->last_user == child->node.incarnation)
		n++;
	if (n >= SURE_SIGNS)
		return n;
	role = login_role(d->pid);
	if (role != InvalidOid && role == login_role(child->session_pid))
		n++;
	return n;
}

/*
 * Returns true if a node that was here is live and protected below another node,
 * and its counter there is higher than the one it told here.  child: what it
 * said here since this node's start, or NULL.  by: else, the first node that it
 * is said to be live below; or empty.
 */
static bool
lives_elsewhere(const char *name, uint32 incarnation, const CrelayChild *child,
				uint32 told, char *by)
{
	CrelaySettings settings;
	CrelayElsewhere found;
	TimestampTz since;

	by[0] = '\0';
	if (child != NULL && child->session_pid != 0)
		return false;
	crelay_guc_copy(&settings);
	since = GetCurrentTimestamp() - (int64) settings.stale_timeout_ms * 1000;
	crelay_registry_find_elsewhere(name, incarnation, told, since, &found);
	if (!found.moved)
		strlcpy(by, found.upstream_name, CRELAY_NAME_LEN);
	return found.moved;
}

/*
 * Returns the highest counter that a node has told here: the child itself since
 * this node's start, or what was kept from before.
 */
static uint32
find_told(uint32 incarnation, const CrelayChild *child, const CrelayTold *told, int n_told)
{
	uint32		moves = child != NULL ? child->node.moves : 0;

	for (int i = 0; i < n_told; i++)
	{
		if (told[i].incarnation == incarnation)
			moves = Max(moves, told[i].moves);
	}
	return moves;
}

/*
 * Whether somebody else streams through the slot that a child has last reported,
 * because the child has gone elsewhere, and that is not what it has left behind.
 */
static bool
is_taken_over(const CrelayDownstream *d, const CrelayChild *child)
{
	char		by[CRELAY_NAME_LEN];

	return d->pid != 0 && !was_confirmed(d, child) &&
		lives_elsewhere(child->node.name, child->node.incarnation, child,
						child->node.moves, by);
}

/*
 * Finds the slot that a child streams through, by the name that it reports.
 * That alone makes it nobody's: a child that was copied with its settings names
 * the slot of another node, and so can whoever reports.  While it is in use the
 * walsender must fit; else it must have been seen to be that child's.  When the
 * child has gone elsewhere, somebody else may have taken it over.
 *
 * With half of the signs it is only not drawn a second time: that does no more
 * harm than to the drawing if it is wrong, and without it a child would be drawn
 * twice that reports as another role, say.  Of those who are there, that is: one
 * that is not may be what another was before.  So it is with what was known to be
 * the child's when there were more signs.
 */
static void
match_slot(CrelayDownstream *downstreams, int n, const CrelaySnapshot *snapshot,
		   int index, int counts_by)
{
	const CrelayChild *child = &snapshot->children[index];

	for (int i = 0; i < n; i++)
	{
		CrelayDownstream *d = &downstreams[i];
		bool		absent;		/* is whose it was taken to be so far */
		int			signs;

		if (d->kind != CRELAY_KIND_SLOT || d->logical ||
			strcmp(d->slot_name, child->slot_name) != 0)
			continue;
		if (d->pid == 0)
		{
			/* that of a clone which has yet to stream was used for the copy */
			if (d->last_user == child->node.incarnation)
				take_for_child(d, child, index, counts_by);
			else if (!d->taken && d->last_user == 0 && !crelay_child_says_it_streams(child))
				draw_as_child(d, child, index, counts_by);
			continue;
		}
		if (denies(child, d) || is_taken_over(d, child))
			continue;
		absent = d->managed && snapshot->children[d->child].session_pid == 0;
		signs = count_signs(d, child);
		if (signs >= SURE_SIGNS &&
			(absent || crelay_child_says_it_streams(child) ||
			 d->last_user == child->node.incarnation))
			take_for_child(d, child, index, counts_by);
		else if (signs >= LIKELY_SIGNS || was_confirmed(d, child))
		{
			if (!d->managed || (absent && child->session_pid != 0))
				draw_as_child(d, child, index, counts_by);
		}
	}
}

/*
 * The same for all children: those that are there after those that are not, such
 * as the former life of a node that has been rebuilt, and streams through the slot
 * that it had before.
 */
static void
match_slots(CrelayDownstream *downstreams, int n, const CrelaySnapshot *snapshot,
			const int *counts_by)
{
	for (int there = 0; there <= 1; there++)
	{
		for (int i = 0; i < snapshot->nchildren; i++)
		{
			const CrelayChild *child = &snapshot->children[i];

			if (child->has_about && child->slot_name[0] != '\0' &&
				(child->session_pid != 0) == (there == 1))
				match_slot(downstreams, n, snapshot, i, counts_by[i]);
		}
	}
}

/*
 * Finds the walsender of a child that streams without a slot, by the name and
 * the address that it connects with.  If several fit, as many are taken as
 * there are such children, so that none of them is drawn a second time as a
 * node of its own.  Whose is whose does not matter then: one that needs more
 * than the child it is taken for counts by itself.
 */
static void
match_slotless(CrelayDownstream *downstreams, int n, const CrelayChild *child, int index,
			   int counts_by)
{
	for (int i = 0; i < n; i++)
	{
		if (is_candidate(&downstreams[i], child))
		{
			take_for_child(&downstreams[i], child, index, counts_by);
			return;
		}
	}
}

/*
 * The child that a slot was seen to be used by, and is not any more, or NULL.
 */
static const CrelayChild *
find_child(const CrelaySnapshot *snapshot, const CrelayDownstream *d)
{
	for (int i = 0; i < snapshot->nchildren; i++)
	{
		const CrelayNode *node = &snapshot->children[i].node;

		if (node->incarnation == d->incarnation && strcmp(node->name, d->name) == 0)
			return &snapshot->children[i];
	}
	return NULL;
}

static uint64
find_released(const CrelaySnapshot *snapshot, const CrelayDownstream *d)
{
	for (int i = 0; i < snapshot->nreleased; i++)
	{
		if (strcmp(snapshot->released[i].key, d->key) == 0)
			return snapshot->released[i].lsn;
	}
	return d->lapsed_lsn;
}

/*
 * Whether the node that a hold or a slot is for has gone to another upstream
 * and is protected there, since it was last heard of here.
 */
static void
mark_elsewhere(CrelayDownstream *d, const CrelaySnapshot *snapshot,
			   const CrelayTold *told, int n_told)
{
	const CrelayChild *child;

	if (d->incarnation == 0)
		return;
	child = d->child >= 0 ? &snapshot->children[d->child] : find_child(snapshot, d);
	d->moves = find_told(d->incarnation, child, told, n_told);
	d->elsewhere = d->pid == 0 &&
		lives_elsewhere(d->name, d->incarnation, child, d->moves, d->claimed_by);
}

static bool
is_valid_hold(const CrelayDownstream *d)
{
	return d->slot_name[0] != '\0' && d->restart_lsn != 0 && !d->invalidated;
}

/*
 * What the worker remembers of a hold.
 */
static void
apply_note(CrelayDownstream *d, const CrelayHoldNote *notes, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(notes[i].slot_name, d->key) != 0)
			continue;
		d->clamped = notes[i].clamped;
		d->clamped_by_disk = notes[i].clamped_by_disk;
		d->silent = notes[i].silent;
		d->reports_seen = notes[i].reports_seen;
		d->missed = notes[i].lsn != 0 && !is_valid_hold(d);
		d->dropped_at = notes[i].dropped_at;
		d->dropped_by_server = notes[i].dropped_by_server;
		d->remembered_need = notes[i].need;
		if (d->missed || d->dropped_at != 0)
			d->remembered_lsn = notes[i].lsn;
	}
}

/*
 * What an invalidated slot kept before, while it counts by that.
 */
static void
apply_need(CrelayDownstream *d, const CrelaySlotNeed *needs, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(needs[i].slot_name, d->slot_name) == 0)
			d->remembered_lsn = needs[i].lsn;
	}
}

/*
 * Adds the holds that somebody else has dropped, of nodes of which nothing else
 * is known here: each is as if the slot were there still, and hides no other
 * node any more than that would.
 */
static int
add_missed(CrelayDownstream *downstreams, int n, const CrelayHoldNote *notes, int nnotes)
{
	int			known = n;

	for (int i = 0; i < nnotes; i++)
	{
		CrelayDownstream *d = &downstreams[n];
		bool		found = notes[i].lsn == 0;

		for (int j = 0; j < known && !found; j++)
			found = downstreams[j].kind == CRELAY_KIND_HOLD &&
				strcmp(downstreams[j].slot_name[0] != '\0' ? downstreams[j].slot_name :
					   downstreams[j].key, notes[i].slot_name) == 0;
		if (found)
			continue;
		memset(d, 0, sizeof(CrelayDownstream));
		d->kind = CRELAY_KIND_HOLD;
		d->replay_lag = -1;
		d->child = -1;
		strlcpy(d->key, notes[i].slot_name, sizeof(d->key));
		if (crelay_hold_name_parse(notes[i].slot_name, d->name, &d->incarnation))
			n++;
	}
	return n;
}

/*
 * Marks this node's own local hold, and those of its former lives.  No child may
 * have this node's name, so a hold of that name is its own in any case.
 */
static void
mark_own(CrelayDownstream *d, const CrelayLocal *local)
{
	bool		present = d->incarnation == local->node.incarnation;

	if (d->kind != CRELAY_KIND_HOLD)
		return;
	d->former = !present && strcmp(d->name, local->node.name) == 0;
	for (int i = 0; i < local->nformer; i++)
	{
		if (d->incarnation == local->former[i].incarnation &&
			strcmp(d->name, local->former[i].name) == 0)
			d->former = true;
	}
	d->own = present || d->former;
}

/*
 * The facts that need this node's settings, path, notes and released names.
 */
static void
mark_circumstances(CrelayDownstream *downstreams, int n, const CrelaySnapshot *snapshot,
				   const CrelayHoldNote *notes, int nnotes)
{
	const CrelayLocal *local = &snapshot->local;
	CrelayTold *told = palloc_array(CrelayTold, max_replication_slots + 1);
	int			n_told = crelay_registry_get_told(told);
	CrelaySlotNeed *needs = palloc_array(CrelaySlotNeed, max_replication_slots + 1);
	int			nneeds = crelay_registry_get_needs(needs);

	for (int i = 0; i < n; i++)
	{
		CrelayDownstream *d = &downstreams[i];

		/* a hold that somebody has dropped goes by its slot's name still */
		if (d->key[0] == '\0')
			strlcpy(d->key, d->slot_name[0] != '\0' ? d->slot_name : d->name,
					sizeof(d->key));
		if (d->kind == CRELAY_KIND_HOLD)
			apply_note(d, notes, nnotes);
		else if (d->invalidated_by != NULL)
			apply_need(d, needs, nneeds);
		d->released_lsn = find_released(snapshot, d);
		mark_elsewhere(d, snapshot, told, n_told);
		mark_own(d, local);
		d->ignored = crelay_guc_ignores(d->name) ||
			(d->slot_name[0] != '\0' && crelay_guc_ignores(d->slot_name)) ||
			(d->kind == CRELAY_KIND_WALSENDER && !d->managed &&
			 crelay_guc_ignores(slotless_name(d)));
		for (int h = 0; d->incarnation != 0 && h < local->nhops; h++)
		{
			if (local->hops[h].incarnation == d->incarnation &&
				strcmp(local->hops[h].name, d->name) == 0)
				d->ancestor = true;
		}
	}
	pfree(told);
	pfree(needs);
}

/*
 * Everything downstream of this node: one entry for each slot, each slotless
 * walsender, and each managed node that has no hold: a child, or one whose hold
 * somebody else has dropped.  The verdicts are not there yet: see
 * crelay_frontier_compute().
 *
 * Allocates in the current memory context.  fresh_names is for callers inside
 * a transaction, which may not throw away its snapshot of the backend status.
 */
CrelayDownstream *
crelay_downstream_collect(const CrelaySnapshot *snapshot, bool fresh_names, int *n)
{
	int			capacity = 2 * max_replication_slots + max_wal_senders + snapshot->nchildren;
	CrelayDownstream *downstreams = palloc_array(CrelayDownstream, capacity + 1);
	Sender	   *senders = palloc_array(Sender, max_wal_senders + 1);
	int			nsenders = read_senders(senders, fresh_names);
	CrelaySlotUser *users = palloc_array(CrelaySlotUser, max_replication_slots + 1);
	int			n_users = crelay_registry_get_users(users);
	CrelayHoldNote *notes = palloc_array(CrelayHoldNote, max_replication_slots + 1);
	int			nnotes = crelay_registry_get_notes(notes);
	int		   *counts_by = palloc_array(int, snapshot->nchildren + 1);
	int			count = read_slots(downstreams);

	identify_slots(downstreams, count, senders, nsenders);
	mark_users(downstreams, count, users, n_users);
	count = add_slotless(downstreams, count, senders, nsenders);
	for (int i = 0; i < snapshot->nchildren; i++)
		counts_by[i] = attach_reports(downstreams, &count, &snapshot->children[i], i);
	match_slots(downstreams, count, snapshot, counts_by);
	for (int i = 0; i < snapshot->nchildren; i++)
	{
		const CrelayChild *child = &snapshot->children[i];

		if (child->has_about && child->slot_name[0] == '\0' && child->session_pid != 0)
			match_slotless(downstreams, count, child, i, counts_by[i]);
	}
	count = add_missed(downstreams, count, notes, nnotes);
	name_slotless(downstreams, count);
	identify_users(downstreams, count, users, n_users);
	mark_circumstances(downstreams, count, snapshot, notes, nnotes);
	pfree(counts_by);
	pfree(notes);
	pfree(users);
	pfree(senders);
	*n = count;
	return downstreams;
}
