/*-------------------------------------------------------------------------
 *
 * node.h
 *	  Plain values that every room of cascade_relay shares.
 *
 * Owns: the words of the design as C types - a node of the tree, a downstream
 * of this node, the outcome of a frontier computation, and the enums for
 * states and reasons with their names.
 *
 * Not here: any behaviour, any PostgreSQL header.  The pure rooms (frontier,
 * topology, message) see nothing but this file and the C library, so that a
 * test or a fuzzer can link them alone.  LSNs are uint64_t with 0 for unknown,
 * times are int64_t microseconds as TimestampTz counts them, with 0 for never.
 *
 * Locking: none; who guards a copy of these is said where the copy lives.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_NODE_H
#define CRELAY_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of this library; see crelay_message_software(). */
#ifndef CRELAY_VERSION
#define CRELAY_VERSION			"1.0"
#endif
#define CRELAY_VERSION_LEN		32	/* buffer for anybody's */

/* The locks, by number in the tranche "cascade_relay". */
#define CRELAY_LOCK_REGISTRY	0
#define CRELAY_LOCK_HOLD		1
#define CRELAY_LOCK_STATE		2
#define CRELAY_LOCKS			3

/*
 * The slots that this extension owns begin so, see hold.h; nothing else is
 * touched.  Neither is the beginning of the other, or a hold of node "adopted"
 * could be taken for a slot that was adopted.
 */
#define CRELAY_HOLD_PREFIX		"cascade_relay_"
#define CRELAY_ADOPTED_PREFIX	"cascade_adopted_"

#define CRELAY_NODE_NAME_MAX	40	/* of a managed node, without the zero */
#define CRELAY_NAME_LEN			80	/* buffer for any name, "#pid" included */
#define CRELAY_SLOT_LEN			64	/* buffer for a slot name */
#define CRELAY_LOCATION_LEN		64
#define CRELAY_CONNINFO_LEN		256
#define CRELAY_ADDRESS_LEN		320
#define CRELAY_MAX_DEPTH		64	/* hops of a path; longer is a cycle */

/*
 * How many stale_timeouts it takes until something has lasted long, and for how
 * many an event that is over at once is shown.
 */
#define CRELAY_LONG_TIMEOUTS	10

/* The root of a path whose upstream nobody has heard of. */
#define CRELAY_UNKNOWN_NODE		"unknown"

/*
 * A life of a node: its name, and the random number that was made for it.  A node
 * is known by both.
 */
typedef struct CrelayLife
{
	char		name[CRELAY_NODE_NAME_MAX + 1];
	uint32_t	incarnation;
} CrelayLife;

/* Number of former lives that a node remembers, the latest ones. */
#define CRELAY_FORMER_LIVES		8

typedef struct CrelayIdentity
{
	CrelayLife	now;
	int			nformer;
	CrelayLife	former[CRELAY_FORMER_LIVES];	/* the latest first */
} CrelayIdentity;

/* What a pin is. */
typedef enum CrelayPinKind
{
	CRELAY_PIN_NODE = 0,		/* a managed node, by what it has applied */
	CRELAY_PIN_SLOT,			/* a slot that is no hold */
	CRELAY_PIN_HOLD,			/* of a node that has not called yet */
	CRELAY_PIN_WALSENDER		/* without a slot */
} CrelayPinKind;

#define CRELAY_PIN_LAST			CRELAY_PIN_WALSENDER

/*
 * The place where a frontier comes from.  A name alone is none: a slot may be
 * called like a node that lives somewhere else, or like any other slot.
 */
typedef struct CrelayPin
{
	CrelayPinKind kind;
	char		by[CRELAY_NAME_LEN];	/* the node, or whoever the slot or
										 * the walsender is for; empty: no pin */
	char		on[CRELAY_NODE_NAME_MAX + 1];	/* the managed node on which
												 * the slot or walsender
												 * stands, or the node itself */
	char		slot[CRELAY_SLOT_LEN];	/* the slot there; empty without one */
} CrelayPin;

/* Places for more standbys on a node, as it last said. */
typedef struct CrelayRoom
{
	bool		known;
	uint16_t	senders;		/* free walsenders */
	uint16_t	slots;			/* free replication slots */
} CrelayRoom;

/*
 * Takes a place for a standby.  Returns false if there is none.  A managed one
 * gets a hold besides, unless that would take the last free slot.
 */
static inline bool
crelay_room_take(CrelayRoom *room, bool managed)
{
	if (!room->known)
		return true;
	if (room->senders == 0 || room->slots == 0)
		return false;
	room->senders--;
	room->slots--;
	if (managed && room->slots > 1)
		room->slots--;
	return true;
}

/* Three-valued truth: unknown is shown as NULL, never as false. */
typedef enum CrelayTruth
{
	CRELAY_UNKNOWN = 0,
	CRELAY_FALSE,
	CRELAY_TRUE
} CrelayTruth;

typedef enum CrelayRole
{
	CRELAY_ROLE_UNKNOWN = 0,
	CRELAY_ROLE_PRIMARY,
	CRELAY_ROLE_STANDBY
} CrelayRole;

typedef enum CrelayClass
{
	CRELAY_CLASS_UNKNOWN = 0,
	CRELAY_CLASS_VOTING,
	CRELAY_CLASS_READ_REPLICA,
	CRELAY_CLASS_ANY			/* voting, as whoever streams from the primary
								 * is; once it has left, it is not */
} CrelayClass;

#define CRELAY_CLASS_LAST		CRELAY_CLASS_ANY

static inline bool
crelay_class_votes(CrelayClass replica_class)
{
	return replica_class == CRELAY_CLASS_VOTING || replica_class == CRELAY_CLASS_ANY;
}

/* What a node is doing, as its row in the tree says. */
typedef enum CrelayState
{
	CRELAY_STATE_UNKNOWN = 0,
	CRELAY_STATE_RUNNING,		/* a primary */
	CRELAY_STATE_STREAMING,
	CRELAY_STATE_CATCHUP,
	CRELAY_STATE_ARCHIVE,		/* recovering without a walreceiver */
	CRELAY_STATE_STALE,			/* no news for stale_timeout */
	CRELAY_STATE_DOWN,			/* known, not connected */
	CRELAY_STATE_DIVERGED,
	CRELAY_STATE_DUPLICATE,
	CRELAY_STATE_CYCLE,
	CRELAY_STATE_DISCONNECTED	/* up, and nothing feeds it; see feed.h */
} CrelayState;

#define CRELAY_STATE_LAST		CRELAY_STATE_DISCONNECTED

/* How a standby gets its WAL, as far as it knows; see feed.h. */
typedef enum CrelayFeed
{
	CRELAY_FEED_UNKNOWN = 0,
	CRELAY_FEED_STREAMS,		/* one walreceiver has streamed for a while */
	CRELAY_FEED_OTHER,			/* in another way, or it needs none just now */
	CRELAY_FEED_NOTHING,		/* from nowhere, and the cause is not known */
	CRELAY_FEED_SLOT_MISSING,	/* from nowhere: its upstream lacks its slot */
	CRELAY_FEED_SLOT_LOST,		/* its upstream's server invalidated that */
	CRELAY_FEED_WAL_GONE		/* its upstream has removed what it needs */
} CrelayFeed;

#define CRELAY_FEED_LAST		CRELAY_FEED_WAL_GONE

static inline bool
crelay_feed_is_cut(CrelayFeed feed)
{
	return feed >= CRELAY_FEED_NOTHING;
}

/*
 * Returns true if a node that is fed like that can use the WAL that is held for
 * it.  A node that cannot be fed, for no cause that its upstream knows of, may
 * have WAL of its own, on which what is held does not follow.
 */
static inline bool
crelay_feed_is_promise(CrelayFeed feed)
{
	return feed != CRELAY_FEED_NOTHING;
}

/* The slot that a node says it streams through, as its upstream sees it. */
typedef enum CrelaySlotFate
{
	CRELAY_SLOT_UNKNOWN = 0,	/* or it streams without one */
	CRELAY_SLOT_THERE,
	CRELAY_SLOT_MISSING,
	CRELAY_SLOT_LOST			/* invalidated by the server */
} CrelaySlotFate;

#define CRELAY_SLOT_FATE_LAST	CRELAY_SLOT_LOST

/* Whether a standby's replay is paused, and why. */
typedef enum CrelayPause
{
	CRELAY_PAUSE_UNKNOWN = 0,
	CRELAY_PAUSE_NO,
	CRELAY_PAUSE_ASKED,			/* by a command */
	CRELAY_PAUSE_SETTINGS,		/* a setting is lower than on the primary */
	CRELAY_PAUSE_TARGET			/* its recovery target has been reached */
} CrelayPause;

#define CRELAY_PAUSE_LAST		CRELAY_PAUSE_TARGET

static inline bool
crelay_pause_is_on(CrelayPause pause)
{
	return pause >= CRELAY_PAUSE_ASKED;
}

/* Warnings of a node's row, as a bit set; named after cascade_check's codes. */
#define CRELAY_WARN_DUPLICATE_NAME		(1u << 0)
#define CRELAY_WARN_CYCLE				(1u << 1)
#define CRELAY_WARN_UNPROTECTED			(1u << 2)
#define CRELAY_WARN_NO_FREE_SLOT		(1u << 3)
#define CRELAY_WARN_UPSTREAM_REFUSED	(1u << 4)
#define CRELAY_WARN_UPSTREAM_SILENT		(1u << 5)
#define CRELAY_WARN_HOLD_DROPPED		(1u << 6)
#define CRELAY_WARN_HOLD_CLAMPED		(1u << 7)
#define CRELAY_WARN_STALE_NODE			(1u << 8)
#define CRELAY_WARN_REGISTRY_FULL		(1u << 9)
#define CRELAY_WARN_NOT_PRELOADED		(1u << 10)
#define CRELAY_WARN_HOLD_INVALIDATED	(1u << 11)
#define CRELAY_WARN_NOT_STREAMING		(1u << 12)	/* only shown: see feed */
#define CRELAY_WARN_REPLAY_PAUSED		(1u << 13)	/* only shown: see pause */
#define CRELAY_WARN_REPORTS_ELSEWHERE	(1u << 14)

/* Why a hold had to be placed again: somebody dropped it, or the server gave it up. */
#define CRELAY_WARN_HOLD_LOST \
	(CRELAY_WARN_HOLD_DROPPED | CRELAY_WARN_HOLD_INVALIDATED)

/*
 * One node of the tree.  Key and parent are (name, incarnation); an unmanaged
 * node has incarnation 0 and therefore never a child of its own.
 */
typedef struct CrelayNode
{
	char		name[CRELAY_NAME_LEN];
	uint32_t	incarnation;
	char		upstream_name[CRELAY_NAME_LEN]; /* empty: none, or unknown */
	uint32_t	upstream_incarnation;
	CrelayRole	role;
	CrelayClass replica_class;
	CrelayState state;
	bool		managed;
	CrelayTruth protected;
	CrelayTruth hot_standby_feedback;
	uint32_t	timeline;
	uint32_t	warnings;
	uint64_t	flush_lsn;
	uint64_t	replay_lsn;
	uint64_t	frontier_lsn;
	uint64_t	oldest_wal_lsn;
	int64_t		replay_lag;		/* microseconds, -1 unknown */
	CrelayFeed	feed;
	CrelayPause pause;
	uint32_t	apply_delay_ms; /* recovery_min_apply_delay; 0 none */
	uint32_t	backend_xmin;	/* oldest that it, or a node below, needs */
	char		xmin_pinned_by[CRELAY_NAME_LEN];
	CrelayPin	pin;			/* of frontier_lsn */
	char		location[CRELAY_LOCATION_LEN];
	char		conninfo[CRELAY_CONNINFO_LEN];	/* advertised; no password */
	char		upstream_address[CRELAY_ADDRESS_LEN];	/* where it found its
														 * upstream */
	char		version[CRELAY_VERSION_LEN];	/* of its library */
	uint32_t	moves;			/* how often it has become protected on
								 * another path to the root, see moves.h; 0:
								 * it does not say */
	CrelayRoom	room;
	uint32_t	path_interval_ms;	/* sum of the report intervals from the
									 * root down to it; 0 unknown */
	int64_t		observed_at;
} CrelayNode;

/* Whether nobody sees it any more, or nobody who sees it is heard. */
static inline bool
crelay_node_is_away(const CrelayNode *node)
{
	return node->state == CRELAY_STATE_DOWN || node->state == CRELAY_STATE_STALE;
}

/* Maximum sum of report intervals on one path: each is an hour at most. */
#define CRELAY_MAX_PATH_MS		(CRELAY_MAX_DEPTH * 3600 * 1000)

/*
 * The time, in microseconds, for which news is good that comes along a path
 * with that sum of report intervals.  Each node on the path may have waited for
 * one of its intervals before it passed the news on; two more may have failed.
 */
static inline int64_t
crelay_news_limit(int64_t stale_after, uint64_t path_ms)
{
	int64_t		limit;

	if (path_ms > CRELAY_MAX_PATH_MS)
		path_ms = CRELAY_MAX_PATH_MS;
	limit = 3 * (int64_t) path_ms * 1000;
	return limit > stale_after ? limit : stale_after;
}

/*
 * The timelines that a node has been on: the current one, and where it left
 * the earlier ones, the latest first.
 */
#define CRELAY_MAX_HISTORY		32

typedef struct CrelaySwitch
{
	uint32_t	timeline;
	uint64_t	lsn;			/* its end */
} CrelaySwitch;

typedef struct CrelayHistory
{
	uint32_t	timeline;		/* 0: not known */
	uint32_t	n;
	CrelaySwitch left[CRELAY_MAX_HISTORY];
} CrelayHistory;

/* Whom the root's synchronous_standby_names lists by name. */
#define CRELAY_MAX_SYNC_NAMES	16

typedef struct CrelaySyncNames
{
	bool		known;
	uint32_t	n;				/* those beyond the room are left out */
	char		names[CRELAY_MAX_SYNC_NAMES][CRELAY_SLOT_LEN];
} CrelaySyncNames;

/* One node between here and the root, and what it holds for this branch. */
typedef struct CrelayHop
{
	char		name[CRELAY_NODE_NAME_MAX + 1];
	uint32_t	incarnation;
	uint64_t	held_lsn;		/* 0: holds nothing, or nobody has seen it */
} CrelayHop;

/* A file in pg_wal. */
typedef struct CrelayWalFile
{
	uint64_t	start_lsn;
	uint32_t	timeline;
	bool		unarchived;		/* the server keeps it until it is archived */
} CrelayWalFile;

/* What keeps WAL on this node that no hold needs to keep. */
typedef enum CrelayKeeper
{
	CRELAY_KEPT_BY_NOTHING = 0,
	CRELAY_KEPT_BY_SLOT,		/* which is no hold */
	CRELAY_KEPT_BY_KEEP_SIZE,	/* wal_keep_size */
	CRELAY_KEPT_BY_SUMMARY,		/* it is not summarized yet */
	CRELAY_KEPT_BY_ARCHIVER		/* it is not archived yet */
} CrelayKeeper;

/* A node whose hello was refused. */
typedef struct CrelayRefused
{
	uint32_t	incarnation;	/* 0: there is none */
	int			reason;			/* a CrelayRefusal of message.h */
	bool		is_double;		/* for its name, or its incarnation */
	bool		is_foreign;		/* for its cluster */
	int64_t		seen_at;
	char		name[CRELAY_NODE_NAME_MAX + 1];
	char		addr[CRELAY_SLOT_LEN];	/* where it called from */
} CrelayRefused;

/* What the file system of pg_wal leaves for holds; see crelay_disk_bound(). */
typedef struct CrelayDiskBound
{
	bool		known;			/* else it is no bound, or not looked at */
	int64_t		left;			/* bytes until it bites; negative: missing */
	uint64_t	reserve;		/* bytes that are to stay free */
	uint64_t	free;
	uint64_t	floor_lsn;		/* no hold may stand lower; 0 no bound */
	CrelayKeeper kept_by;		/* why giving up holds frees too little, or
								 * nothing */
	char		kept_slot[CRELAY_SLOT_LEN]; /* the slot that keeps it */
} CrelayDiskBound;

typedef enum CrelayDownstreamKind
{
	CRELAY_KIND_SLOT,
	CRELAY_KIND_WALSENDER,
	CRELAY_KIND_HOLD
} CrelayDownstreamKind;

/* Why a downstream counts in the frontier, or why it does not. */
typedef enum CrelayReason
{
	CRELAY_COUNTS_SLOT = 0,
	CRELAY_COUNTS_WALSENDER,
	CRELAY_COUNTS_REPORTED,		/* a managed child, by its last report */
	CRELAY_COUNTS_HOLD,			/* a managed child that has not called yet */
	CRELAY_COUNTS_LOST,			/* a slot that the server has invalidated, by
								 * what it kept before */
	CRELAY_NOT_TEMPORARY,
	CRELAY_NOT_BACKUP,
	CRELAY_NOT_RESERVED,		/* a slot without a restart_lsn */
	CRELAY_NOT_INVALIDATED,
	CRELAY_NOT_LOGICAL,
	CRELAY_NOT_REPLIED,			/* a walsender before its first reply */
	CRELAY_NOT_IGNORED,			/* matches ignore_slots */
	CRELAY_NOT_ANCESTOR,		/* belongs to a node on the own path */
	CRELAY_NOT_ELSEWHERE,		/* its user is live and protected elsewhere */
	CRELAY_NOT_RELEASED,
	CRELAY_NOT_OWN,				/* the node's own local hold */
	CRELAY_NOT_MANAGED			/* the child's reports count instead */
} CrelayReason;

#define CRELAY_REASON_IS_COUNTED(r) ((r) <= CRELAY_COUNTS_LOST)

/*
 * One downstream of this node: a slot, or a walsender without one.  The facts
 * are read from shared memory (downstream.c), the verdict is written by
 * crelay_frontier_compute().
 */
typedef struct CrelayDownstream
{
	/* facts */
	char		name[CRELAY_NAME_LEN];
	CrelayDownstreamKind kind;
	char		slot_name[CRELAY_SLOT_LEN]; /* empty: slotless */
	char		key[CRELAY_NAME_LEN];	/* tells it apart from the others */
	char		application_name[CRELAY_SLOT_LEN];
	char		client_addr[CRELAY_SLOT_LEN];
	uint32_t	incarnation;	/* of a hold: from its name; of a slot: of
								 * whom it is known to be; else 0 */
	uint32_t	last_user;		/* of a slot: of the node that was last seen
								 * streaming through it; 0 none, or unmanaged */
	bool		taken;			/* somebody else has used it since a managed
								 * node */
	int32_t		pid;			/* 0: not active */
	CrelayState state;			/* of its walsender; UNKNOWN without one */
	bool		sync_standby;	/* its walsender has a sync priority */
	bool		temporary;
	bool		logical;
	bool		invalidated;
	const char *invalidated_by; /* the setting; NULL none, or another cause */
	bool		backup;
	bool		ignored;
	bool		ancestor;
	bool		elsewhere;		/* its node has moved, and is protected there */
	uint32_t	moves;			/* that its node last told here; 0: none */
	char		claimed_by[CRELAY_NAME_LEN];	/* its node is live below this
												 * one, and its move counter
												 * has not been raised; else
												 * empty */
	uint64_t	released_lsn;	/* it does not count until it has reached
								 * this; 0: it does */
	bool		own;
	bool		former;			/* own, and of a former life of this node */
	bool		managed;		/* a managed child streams through it */
	int			counts_by;		/* index of what counts for that child
								 * instead, or -1 */
	bool		adopted;		/* a slot that cascade_adopt has made */
	uint64_t	restart_lsn;	/* a slot's, or a walsender's flush */
	uint64_t	sent_lsn;
	uint64_t	flush_lsn;
	uint64_t	replay_lsn;
	uint32_t	backend_xmin;	/* of the slot, else of the walsender */
	int64_t		replay_lag;		/* microseconds, -1 unknown */
	int64_t		reply_time;

	/* of a hold whose child has called since this node's start */
	bool		reported;
	uint64_t	reported_frontier;
	uint64_t	reported_target;
	CrelayPin	reported_pin;
	char		reported_xmin_pinned_by[CRELAY_NAME_LEN];
	int64_t		last_report_time;
	int			child;			/* index in the registry's copy, or -1 */
	uint64_t	lapsed_lsn;		/* released_lsn of one that has no hold, and
								 * was silent for too long */

	/* what the worker remembers of a hold */
	bool		clamped;		/* a bound keeps it from what is wanted of it */
	bool		clamped_by_disk;
	int64_t		silent;			/* microseconds without a report, as counted */
	uint64_t	reports_seen;	/* of its child then */
	bool		missed;			/* somebody else has dropped it, or the server
								 * has invalidated it */
	int64_t		dropped_at;		/* when it was placed again after that; 0
								 * never */
	bool		dropped_by_server;	/* it had been invalidated then */
	uint64_t	remembered_lsn; /* what it held before that; of a slot, what
								 * it kept before it was invalidated, while
								 * that counts; 0 nothing */
	uint64_t	remembered_need;	/* what its node had confirmed when it
									 * last called; 0 unknown */

	/* verdict */
	bool		spare;			/* what counts for its child keeps as much */
	bool		counted;
	CrelayReason reason;
	CrelayPin	pin;			/* of what it has confirmed; empty if it does
								 * not count */
} CrelayDownstream;

#endif							/* CRELAY_NODE_H */
