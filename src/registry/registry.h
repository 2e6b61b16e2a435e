/*-------------------------------------------------------------------------
 *
 * registry.h
 *	  What this node knows, in fixed shared memory.
 *
 * Owns: the shared memory segment and its one lock; who the direct children
 * are and which session speaks for each; every other node heard of; what this
 * node says of itself; the names that were released.
 *
 * Not here: replication slots (hold.c, downstream.c), any decision on what to
 * hold (frontier.c), any message (message.c: rows are read from a cursor that
 * is already checked).
 *
 * Locking: one LWLock.  Every function takes and releases it by itself, and
 * while it is held there is no I/O, no other lock and no allocation.  Readers
 * copy out and decide on their copy.  A signal may be sent: the lock is what
 * keeps the pid of a session from being used again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_REGISTRY_H
#define CRELAY_REGISTRY_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "decide/branch.h"
#include "decide/message.h"
#include "decide/node.h"

#define CRELAY_LAST_ERROR_LEN	1100

/* Where a row came from, when not from a managed child. */
#define CRELAY_ORIGIN_UNMANAGED (-1)	/* seen by this node's slots,
										 * walsenders */
#define CRELAY_ORIGIN_UPSTREAM	(-2)	/* from the upstream's replies */
#define CRELAY_ORIGIN_NOBODY	(-3)	/* no row has it */

typedef enum CrelayUpstreamState
{
	CRELAY_UPSTREAM_NONE,
	CRELAY_UPSTREAM_CONNECTING,
	CRELAY_UPSTREAM_CONNECTED,
	CRELAY_UPSTREAM_WAITING,
	CRELAY_UPSTREAM_REFUSED
} CrelayUpstreamState;

/* Rows that came from one source, in the order in which they came. */
typedef struct CrelayRowList
{
	int			first;			/* -1 none */
	int			last;
	int			n;
	bool		cut;			/* there were more, that have found no room */
} CrelayRowList;

/* A managed direct downstream.  Written by the session that owns it. */
typedef struct CrelayChild
{
	bool		in_use;
	bool		reported;		/* since this node's start */
	bool		has_about;		/* slot_name etc. are known */
	bool		diverged;		/* its LSNs mean nothing here */
	bool		ahead;			/* because it has WAL that this primary has
								 * not written */
	uint64		start_id;		/* of the worker that said hello */
	pid_t		session_pid;	/* 0: nobody is connected */
	uint32		report_interval_ms;
	TimestampTz connected_at;	/* 0: has not called, and is only held */
	TimestampTz last_report;
	TimestampTz duplicate_seen; /* another live node asked for its name */
	TimestampTz unfed_since;	/* it streams, but not from here; 0 not so */
	TimestampTz hold_dropped_at;	/* its hold was lost, and placed again */
	bool		hold_dropped_by_server; /* which had invalidated it; else
										 * somebody else has dropped it */
	uint64		reports;
	uint64		hold_target_lsn;
	uint64		told_seq;		/* what of the tree it was last told */
	TimestampTz told_at;
	uint64		held_lsn;		/* what the last reply said */
	bool		had_hold;		/* whether any reply has said so */
	bool		hold_gone;		/* since then, as the worker sees, for good */
	CrelayRefusal hold_reason;
	char		hold_name[CRELAY_SLOT_LEN];
	char		slot_name[CRELAY_SLOT_LEN];
	char		application_name[CRELAY_SLOT_LEN];
	char		client_addr[CRELAY_SLOT_LEN];
	char		role_name[CRELAY_SLOT_LEN]; /* that its session logged in as */
	CrelayHistory history;		/* timeline 0: not known */
	int64		silent;			/* microseconds without a report, as the
								 * worker has counted them */
	uint64		silent_reports; /* how many there were then */
	uint64		lapsed_lsn;		/* not 0: silent for too long, without a hold;
								 * it counts no more until it reports, nor
								 * does its slot until it is in use beyond
								 * this */
	CrelayState own_state;		/* as the child says */
	TimestampTz streams_since;	/* each of its reports has said that it
								 * streams; 0: not the last one */
	CrelayClass own_class;		/* likewise; UNKNOWN leaves it to us */
	CrelaySlotFate slot_fate;	/* of slot_name, while it does not stream */
	CrelayNode	node;			/* its own row; state is set by the worker */
	CrelayRowList rows;			/* below it */
} CrelayChild;

/*
 * A downstream whose need does not count until it has reached that LSN.  A
 * slot goes by its own name: two lives of a node have a hold each.
 */
typedef struct CrelayReleased
{
	char		key[CRELAY_NAME_LEN];	/* of the downstream */
	uint64		lsn;
	uint64		reports;		/* of a managed child until then */
} CrelayReleased;

/* That there was no room.  Written by whoever wanted it. */
typedef struct CrelayFull
{
	TimestampTz at;				/* when that happened last; 0 never */
	int			rows;			/* how many whoever had most had then, */
	char		by[CRELAY_NAME_LEN];	/* and which node; or empty */
	char		role[CRELAY_SLOT_LEN];	/* of children, which role */
} CrelayFull;

/* The primary on the newest timeline that this node has known. */
typedef struct CrelayNewestPrimary
{
	uint32		timeline;		/* 0: none */
	char		name[CRELAY_NAME_LEN];
} CrelayNewestPrimary;

/*
 * What this node says of itself.  Written by the worker; by others only what
 * crelay_registry_publish_local() leaves as it is.
 */
typedef struct CrelayLocal
{
	bool		ready;			/* the worker has filled in the identity */
	bool		stopping;		/* the server is shutting down */
	uint64		system_identifier;
	uint64		start_id;
	CrelayNode	node;
	int			nformer;		/* former lives of this node */
	CrelayLife	former[CRELAY_FORMER_LIVES];
	TimestampTz pinned_since;	/* the frontier's segment has stood still,
								 * pinned by another node; 0: not so */
	TimestampTz local_hold_high_since;	/* the local hold stands above what
										 * the tree needs; 0: not so */
	TimestampTz xmin_since;		/* node.backend_xmin has; 0: there is none */
	uint64		hold_target_lsn;
	uint64		sent_target_lsn;	/* of the last report sent; 0 none */
	CrelayDiskBound disk;
	uint64		tree_hold_lsn;	/* the least that anybody in the tree needs,
								 * as the root says; 0 unknown */
	CrelayUpstreamState upstream_state;
	char		upstream_name[CRELAY_NAME_LEN];
	uint32		upstream_incarnation;
	bool		upstream_lacks_extension;	/* that is why it refused */
	CrelayRefusal upstream_refusal; /* its last one */
	uint64		upstream_held_lsn;
	CrelayRefusal upstream_held_reason;
	CrelaySlotFate slot_fate;	/* of the own slot there; UNKNOWN if WAL is to
								 * come from another node */
	uint64		upstream_oldest_lsn;	/* of the WAL there, likewise 0 */
	bool		root_known;
	bool		in_cycle;
	uint64		root_lsn;		/* as last heard; on a primary its own */
	int64		root_heard;		/* when, by clock.h, what is known of the root
								 * was so for certain; 0 never */
	TimestampTz heard_at;		/* when the hops below were said */
	int			nhops;
	CrelayHop	hops[CRELAY_MAX_DEPTH];
	CrelaySyncNames sync_names; /* of the root; on a primary its own */
	CrelayNewestPrimary newest_primary;
	TimestampTz last_report_time;
	uint64		reports_sent;
	uint64		reports_failed;
	uint64		reports_received;
	CrelayFull	full;
	char		last_error[CRELAY_LAST_ERROR_LEN];
	TimestampTz last_error_time;
	pid_t		worker_pid;
} CrelayLocal;

/*
 * Which managed node was last seen streaming through a slot; incarnation 0:
 * none any more, somebody else has taken it over.
 */
typedef struct CrelaySlotUser
{
	char		slot_name[CRELAY_SLOT_LEN];
	char		node_name[CRELAY_NODE_NAME_MAX + 1];
	uint32		incarnation;
} CrelaySlotUser;

/* The highest move counter that a child has told here, see moves.h. */
typedef struct CrelayTold
{
	uint32		incarnation;
	uint32		moves;
} CrelayTold;

/* What other nodes say of a node that was a child of this one. */
typedef struct CrelayElsewhere
{
	int			live;			/* rows in which it is live below another node */
	char		upstream_name[CRELAY_NAME_LEN]; /* in the first of them */
	bool		moved;			/* one of them is protected, and its counter
								 * was raised */
} CrelayElsewhere;

/*
 * A copy of the registry, in the memory context that was current.  Rows are
 * the nodes that are neither this one nor direct managed children.
 */
typedef struct CrelaySnapshot
{
	CrelayLocal local;
	int			nchildren;
	CrelayChild *children;
	int		   *child_slots;	/* index of each in shared memory */
	int			nrows;
	int			ncontested;		/* behind them: rows that are not part of the
								 * tree, but evidence of a node that is said
								 * to be elsewhere by another row */
	CrelayNode *rows;
	int		   *row_origins;	/* a child's slot, or CRELAY_ORIGIN_* */
	bool		upstream_cut;	/* not all that the upstream has said is there */
	int			nreleased;
	CrelayReleased *released;
	uint64		released_seq;	/* moves with that list */
	uint64		forgotten_seq;	/* moves when a node is forgotten, or whose a
								 * slot is */
	uint64		floor_seq;		/* see crelay_registry_publish_target() */
	uint64		membership_seq; /* moves when the set of nodes changes */
	uint64		below_seq;		/* moves with each tree part from below */
	uint64		above_seq;		/* and with each from the upstream; 0: none
								 * yet */
} CrelaySnapshot;

/*
 * A slot as a possible cover for moving a hold back.  It is one for LSNs from
 * its own on once the redo pointer has moved since it was first seen there.
 */
typedef struct CrelayCover
{
	char		slot_name[CRELAY_SLOT_LEN];
	uint64		restart_lsn;	/* when last looked at */
	uint64		seen_at_redo;	/* when first seen there, or lower */
} CrelayCover;

/* What the worker remembers of an ordinary slot from one pass to the next. */
typedef struct CrelaySlotNeed
{
	char		slot_name[CRELAY_SLOT_LEN];
	uint64		lsn;			/* its restart_lsn, the last while it was
								 * valid */
	bool		in_use;
	bool		invalidated;
	int64		lost_for;		/* microseconds since then, as counted */
	int64		given_up_for;	/* no node above has been known to have it */
} CrelaySlotNeed;

/* What the worker remembers of a hold from one pass to the next. */
typedef struct CrelayHoldNote
{
	char		slot_name[CRELAY_SLOT_LEN];
	bool		clamped;
	bool		clamped_by_disk;
	int64		silent;
	uint64		reports_seen;
	uint64		lsn;			/* what it holds, or has held before somebody
								 * else dropped it; 0: nobody misses it */
	uint64		need;			/* what its node had confirmed when it last
								 * called; 0 unknown */
	TimestampTz dropped_at;		/* when it was placed again then; 0 never */
	bool		dropped_by_server;	/* it had been invalidated then */
} CrelayHoldNote;

/* What the worker found out about a child by looking at its walsender. */
typedef struct CrelayChildView
{
	int			child_slot;
	uint32		incarnation;
	CrelayState state;
	CrelayClass replica_class;
	CrelaySlotFate slot_fate;
	int64		replay_lag;
	bool		unfed;			/* it streams, but not from here */
	bool		by_sender;		/* it streams, and does not say itself: */
	uint64		flush_lsn;
	uint64		replay_lsn;
	uint32		hold_lost;		/* of one that is not connected: the warning,
								 * if that was not long ago */
	int64		silent;
	uint64		silent_reports;
	uint64		lapsed_lsn;
	uint64		reports;		/* that it had sent until then */
	bool		held;			/* its hold was there, or is missed */
} CrelayChildView;

extern Size crelay_registry_size(void);
extern bool crelay_registry_init(void);
extern void crelay_registry_begin_covers(char (*slot_names)[NAMEDATALEN], int n);
extern bool crelay_registry_is_there(void);
extern void crelay_registry_require(void);

extern void crelay_registry_snapshot(CrelaySnapshot *snapshot, bool with_rows);
extern void crelay_registry_get_local(CrelayLocal *local);
extern void crelay_registry_get_disk(CrelayDiskBound *disk);
extern int	crelay_registry_get_notes(CrelayHoldNote *notes);
extern bool crelay_registry_is_clamped(const char *slot_name);
extern bool crelay_registry_is_stopping(void);
extern uint64 crelay_registry_tree_seq(void);
extern bool crelay_local_knows_root(const CrelayLocal *local, int stale_timeout_ms);
extern uint32 crelay_local_root_age_ms(const CrelayLocal *local);
extern void crelay_registry_find_elsewhere(const char *name, uint32 incarnation,
										   uint32 told, TimestampTz since,
										   CrelayElsewhere *found);

/* What a hello came to, beside the refusal. */
typedef struct CrelayClaim
{
	int			child_slot;
	bool		news;			/* the refusal was not logged yet */
	char		detail[CRELAY_DETAIL_LEN];	/* of the refusal */
	char		former_role[CRELAY_SLOT_LEN];	/* who spoke for it before, if
												 * that was another role */
} CrelayClaim;

/* Number of refused nodes that are remembered. */
#define CRELAY_MAX_REFUSED		16

extern int	crelay_registry_get_refused(TimestampTz now, CrelayRefused *refused);
extern bool crelay_registry_has_double(TimestampTz now);

/* for the sessions that children report through */
extern CrelayRefusal crelay_registry_claim(const CrelayHello *hello, pid_t pid,
										   const char *client_addr,
										   const char *role_name,
										   TimestampTz now, CrelayClaim *claim);
extern bool crelay_registry_expect(const CrelayDownstream *hold,
								   const CrelayNode *self,
								   uint64 forgotten_seq);
extern bool crelay_child_says_it_streams(const CrelayChild *child);
extern bool crelay_registry_owns(int child_slot, uint32 incarnation, pid_t pid);
extern bool crelay_registry_accept(int child_slot, uint32 incarnation, pid_t pid,
								   const CrelayReport *report,
								   CrelayBranch *branch,
								   const CrelayHistory *own_history,
								   uint64 own_lsn, bool own_is_primary,
								   uint64 segment_size,
								   TimestampTz now, bool *diverged,
								   bool *raised);
extern bool crelay_registry_set_held(int child_slot, pid_t pid, uint64 held_lsn,
									 CrelayRefusal reason);
extern void crelay_registry_note_dropped(int child_slot, pid_t pid, bool by_server,
										 TimestampTz now);
extern void crelay_registry_hold_name(int child_slot, char *name);
extern bool crelay_registry_tell_tree(int child_slot, pid_t pid, bool asked,
									  TimestampTz now);
extern void crelay_registry_leave(pid_t pid);
extern uint64 crelay_registry_lowest_cover(uint64 redo, const char *not_slot,
										   char *slot_name);
extern CrelayCover *crelay_registry_covers(uint64 redo, const char *not_slot, int *n);
extern void crelay_registry_wake_worker(void);
extern void crelay_registry_fill_reply(int child_slot, CrelayReply *reply);

/* for the worker */
extern void crelay_registry_worker_start(uint64 system_identifier, uint64 start_id);
extern void crelay_registry_worker_stop(void);
extern void crelay_registry_set_stopping(bool stopping);
extern bool crelay_registry_has_sessions(void);
extern void crelay_registry_end_sessions(void);
extern void crelay_local_set_target(CrelayLocal *local, uint64 hold_target);
extern bool crelay_registry_publish_target(uint64 hold_target, uint64 floor_seq);
extern void crelay_registry_publish_local(const CrelayLocal *local);
extern void crelay_registry_publish_error(const CrelayLocal *local);
extern int	crelay_registry_get_needs(CrelaySlotNeed *needs);
extern void crelay_registry_publish_needs(const CrelaySlotNeed *needs, int n);
extern int	crelay_registry_get_users(CrelaySlotUser *users);
extern bool crelay_registry_publish_users(const CrelaySlotUser *users, int n,
										  uint64 forgotten_seq);
extern int	crelay_registry_get_told(CrelayTold *told);
extern bool crelay_registry_publish_told(CrelayTold *told, int n);
extern void crelay_registry_publish_covers(const CrelayCover *slots, int n);
extern void crelay_registry_publish_notes(const CrelayHoldNote *notes, int n,
										  uint64 forgotten_seq);
extern void crelay_registry_publish_released(const CrelayReleased *released, int n,
											 uint64 released_seq);
extern bool crelay_registry_is_missed(const char *hold_name, TimestampTz now);
extern bool crelay_registry_note_replaced(const char *hold_name, uint64 held_lsn,
										  CrelayRefusal reason, bool by_server,
										  TimestampTz now);
extern void crelay_registry_publish_children(const CrelayChildView *views, int n,
											 TimestampTz heard_since);
extern void crelay_registry_publish_unmanaged(const CrelayNode *nodes, int n,
											  uint64 forgotten_seq);
extern void crelay_registry_put_upstream_rows(CrelayCursor *rows, TimestampTz now,
											  const char *own_name,
											  uint32 own_incarnation);

/* What was known of a slot before cascade_adopt. */
typedef struct CrelaySlotMemory
{
	char		slot_name[CRELAY_SLOT_LEN];
	uint64		released_lsn;	/* 0: it was not released */
	uint32		child;			/* incarnation of the child that named it; 0
								 * none */
	CrelaySlotUser user;		/* incarnation 0: none */
} CrelaySlotMemory;

/* for cascade_release, cascade_forget and cascade_adopt */
extern bool crelay_registry_release(const char *key, uint64 lsn);
extern bool crelay_registry_release_silent(const char *key, uint64 lsn, uint64 reports);
extern uint64 crelay_registry_released_lsn(const char *key);
extern void crelay_registry_require_release(const char *const *keys, int n,
											uint64 lsn);
extern bool crelay_registry_forget(const char *hold_name);
extern bool crelay_registry_is_forgotten(void *hold_name);
extern void crelay_registry_forget_unmanaged(const char *name);
extern void crelay_registry_forget_slot(const char *slot_name, CrelaySlotMemory *before);
extern void crelay_registry_restore_slot(const CrelaySlotMemory *before);
extern void crelay_registry_restore_release(const char *key, uint64 lsn);
extern bool crelay_registry_has_user(const char *slot_name);

#endif							/* CRELAY_REGISTRY_H */
