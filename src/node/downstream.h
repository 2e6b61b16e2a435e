/*-------------------------------------------------------------------------
 *
 * downstream.h
 *	  Reading this node's own position, its slots and its walsenders.
 *
 * Owns: turning PostgreSQL's shared memory into plain arrays, and telling
 * which slot and which walsender belongs to which managed child.
 *
 * Not here: whether a downstream counts (frontier.c), changing any slot
 * (hold.c).
 *
 * Locking: ReplicationSlotControlLock shared and each entry's spinlock, taken
 * one after the other and never together with the registry's lock; memory is
 * allocated before.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_DOWNSTREAM_H
#define CRELAY_DOWNSTREAM_H

#include "postgres.h"

#include <netdb.h>

#include "decide/node.h"
#include "registry/registry.h"

/* Where this node is. */
typedef struct CrelayPosition
{
	bool		in_recovery;
	uint32		timeline;
	uint64		applied_lsn;	/* replayed; on a primary flushed */
	uint64		flush_lsn;		/* the end of the WAL that is on disk here */
	uint64		restart_redo;	/* of the last checkpoint or restartpoint */
} CrelayPosition;

/* What this node's own walreceiver is doing. */
typedef struct CrelayReceiver
{
	bool		running;		/* there is a walreceiver process */
	pid_t		pid;
	bool		streaming;		/* and it is connected */
	char		slot_name[CRELAY_SLOT_LEN];
	char		host[NI_MAXHOST];	/* of the connection; empty unknown */
	int			port;
	bool		heard;			/* this one has got something from there */
	uint64		start_lsn;		/* where it asked to begin */
} CrelayReceiver;

extern void crelay_read_position(CrelayPosition *position);
extern void crelay_read_receiver(CrelayReceiver *receiver);
extern const CrelayHistory *crelay_read_history(uint32 timeline);
extern int	crelay_read_wal_files(CrelayWalFile *files, int room, uint64 *end);
extern void crelay_read_unarchived(CrelayWalFile *files, int n);
extern uint64 crelay_read_lowest_slot(char *slot_name);
extern uint64 crelay_read_oldest_wal(void);
extern bool crelay_read_wal_disk(uint64 *total, uint64 *avail);
extern uint32 crelay_read_own_xmin(void);
extern void crelay_read_room(CrelayRoom *room);
extern void crelay_read_sync_names(CrelaySyncNames *sync_names);

extern CrelayDownstream *crelay_downstream_collect(const CrelaySnapshot *snapshot,
												   bool fresh_names, int *n);
extern bool crelay_hold_name_parse(const char *slot_name, char *node_name,
								   uint32 *incarnation);
extern bool crelay_adopted_name_parse(const char *slot_name, char *node_name);
extern void crelay_session_address(char *addr, Size size);
extern bool crelay_session_is_local(void);

#endif							/* CRELAY_DOWNSTREAM_H */
