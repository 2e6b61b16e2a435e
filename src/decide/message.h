/*-------------------------------------------------------------------------
 *
 * message.h
 *	  The report that a node sends its upstream, and the reply to it.
 *
 * Owns: the wire format, both directions.  Everything arrives from another
 * machine and is taken for hostile: every length, enum, name and index is
 * checked before it is believed, and nothing is allocated.
 *
 * Not here: what a message means to the receiver (report_funcs.c), and how
 * it travels (upstream.c).  No PostgreSQL header, so that a fuzzer links it.
 *
 * Locking: none; all state is the caller's.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_MESSAGE_H
#define CRELAY_MESSAGE_H

#include "decide/node.h"

/*
 * What this library speaks, and the oldest reader that can understand what it
 * sends.  A newer sender adds sections, fields and values of enums, which older
 * readers skip or take for unknown, and raises the second number only when that
 * would be wrong.
 */
#ifndef CRELAY_MESSAGE_VERSION
#define CRELAY_MESSAGE_VERSION		1
#endif
#ifndef CRELAY_MESSAGE_READER
#define CRELAY_MESSAGE_READER		1
#endif

/* The oldest sender that this library understands. */
#ifndef CRELAY_MESSAGE_OLDEST
#define CRELAY_MESSAGE_OLDEST		1
#endif

#define CRELAY_MESSAGE_MAX		(16 * 1024 * 1024)
#define CRELAY_MESSAGE_MAX_ROWS 65535
#define CRELAY_DETAIL_LEN		200

/* An age that stands for "never seen"; the oldest real one is one less. */
#define CRELAY_AGE_UNKNOWN		UINT32_MAX

typedef enum CrelayMessageKind
{
	CRELAY_MSG_HELLO = 1,		/* who I am; before any LSN */
	CRELAY_MSG_REPORT,
	CRELAY_MSG_REPLY
} CrelayMessageKind;

/* How the upstream took a message. */
typedef enum CrelayAnswer
{
	CRELAY_ANSWER_OK = 1,
	CRELAY_ANSWER_REFUSED,
	CRELAY_ANSWER_CLOSING		/* the server is stopping: hang up */
} CrelayAnswer;

/* Why it refused, or why it holds less than was asked for. */
typedef enum CrelayRefusal
{
	CRELAY_REFUSE_NONE = 0,
	CRELAY_REFUSE_SYSTEM,		/* another cluster's system_identifier */
	CRELAY_REFUSE_SELF,			/* the same incarnation: it called itself */
	CRELAY_REFUSE_OWN_NAME,		/* another node with the receiver's name */
	CRELAY_REFUSE_DUPLICATE,	/* another live node has that name */
	CRELAY_REFUSE_CYCLE,		/* the sender is on the receiver's path */
	CRELAY_REFUSE_NAME,			/* not a node name */
	CRELAY_REFUSE_FULL,			/* the registry has no room */
	CRELAY_REFUSE_DISABLED,		/* cascade_relay.enabled is off there */
	CRELAY_REFUSE_NO_HELLO,		/* a report from a session that owns no node */
	CRELAY_REFUSE_OUSTED,		/* a newer session owns the node */
	CRELAY_REFUSE_NO_WORKER,	/* no worker has set that node up yet */
	CRELAY_HELD_NO_FREE_SLOT,	/* accepted, but not held: the last free slot */
	CRELAY_HELD_NO_WAL,			/* accepted, but the WAL is not there */
	CRELAY_HELD_LATER,			/* accepted, but held from a later LSN only */
	CRELAY_HELD_FOREIGN_SLOT,	/* accepted, but the slot is not one of ours */
	CRELAY_HELD_BUSY,			/* accepted, but somebody has the slot */
	CRELAY_HELD_DIVERGED,		/* accepted, but on another history */
	CRELAY_REFUSE_UNBOUNDED,	/* not preloaded, and no bound for slots */
	CRELAY_HELD_WAL_LEVEL,		/* accepted, but no slots with its wal_level */
	CRELAY_HELD_KEEP_SIZE		/* accepted, but its server keeps no WAL for
								 * slots */
} CrelayRefusal;

#define CRELAY_REFUSAL_LAST		CRELAY_HELD_KEEP_SIZE

/* First message of a session. */
typedef struct CrelayHello
{
	uint64_t	system_identifier;
	uint64_t	start_id;		/* random, one for each start of a worker */
	uint32_t	incarnation;
	uint32_t	report_interval_ms;
	char		node_name[CRELAY_NAME_LEN]; /* not checked: the refusal is */
} CrelayHello;

/* Sent with the tree part: what changes rarely. */
typedef struct CrelayAbout
{
	char		slot_name[CRELAY_SLOT_LEN]; /* it streams through this one */
	char		application_name[CRELAY_SLOT_LEN];
	char		location[CRELAY_LOCATION_LEN];
	char		conninfo[CRELAY_CONNINFO_LEN];
	char		upstream_address[CRELAY_ADDRESS_LEN];
	char		version[CRELAY_VERSION_LEN];	/* may be empty */
	CrelayRoom	room;
} CrelayAbout;

typedef struct CrelayReport
{
	uint64_t	sequence;
	uint32_t	report_interval_ms;
	uint32_t	timeline;
	CrelayState state;
	CrelayClass replica_class;
	CrelayTruth protected;
	CrelayTruth hot_standby_feedback;
	uint32_t	warnings;
	uint32_t	backend_xmin;
	uint64_t	flush_lsn;
	uint64_t	replay_lsn;
	uint64_t	frontier_lsn;
	uint64_t	hold_target_lsn;
	uint64_t	oldest_wal_lsn;
	CrelayPin	pin;			/* of frontier_lsn */
	char		xmin_pinned_by[CRELAY_NAME_LEN];	/* of backend_xmin */
	uint32_t	incarnation;	/* of the sender; 0 if it does not say */
	uint32_t	moves;			/* the sender's counter, see moves.h */
	CrelayFeed	feed;
	CrelayPause pause;
	uint32_t	apply_delay_ms;
	bool		has_tree;		/* about, and nrows rows follow */
	CrelayAbout about;
	CrelayHistory history;		/* with the tree part */
	uint32_t	nrows;
} CrelayReport;

typedef struct CrelayReply
{
	CrelayAnswer answer;
	CrelayRefusal refusal;
	char		detail[CRELAY_DETAIL_LEN];
	uint64_t	sequence;		/* of the report; 0 answers a hello */
	uint64_t	held_lsn;		/* 0: nothing is held */
	char		node_name[CRELAY_NODE_NAME_MAX + 1];	/* who answers */
	uint32_t	incarnation;
	CrelayState state;			/* of the receiver, as seen by its walsender */
	CrelayClass replica_class;	/* likewise */
	int64_t		replay_lag;		/* likewise; microseconds, -1 unknown */
	uint32_t	warnings;		/* for the receiver: e.g. a duplicate of it */
	bool		root_known;		/* the path begins with a managed primary */
	uint32_t	root_age_ms;	/* since then; CRELAY_AGE_UNKNOWN: never */
	uint32_t	path_interval_ms;	/* of the answering node's path */
	uint64_t	root_lsn;		/* the root's own LSN, as last heard */
	uint64_t	oldest_wal_lsn; /* of the answering node; 0 unknown */
	CrelaySlotFate slot_fate;	/* of the slot that the receiver named */
	uint32_t	nhops;			/* root first, the answering node last */
	CrelayHop	hops[CRELAY_MAX_DEPTH];
	CrelaySyncNames sync_names; /* of the root, as last heard */
	uint64_t	tree_hold_lsn;	/* what the whole tree needs, as the root last
								 * said; 0 not known */
	bool		has_tree;
	uint32_t	nrows;
} CrelayReply;

/* A place in a buffer, for writing or reading. */
typedef struct CrelayCursor
{
	uint8_t    *data;
	size_t		size;			/* of the buffer, or of the message */
	size_t		at;
	const char *error;			/* NULL while all is well */
	size_t		section_end;	/* reader: where the rows end */
	size_t		section_start;	/* writer: where the length of it goes */
	bool		newer;			/* reader: of a sender that may know more */
	bool		other_machine;	/* the other end is not on this one: rows are
								 * without addresses that mean something on
								 * one machine only.  Set by the caller,
								 * before the first row. */
	uint32_t	rows;			/* writer: written; reader: left */
	uint32_t	rows_total;
} CrelayCursor;

/*
 * Writing.  begin_* writes the fixed part; rows, if the message has a tree
 * part, follow one by one; end returns the length, or 0 if it did not fit or
 * the reader would refuse it: then cur->error says why.
 * nrows of the struct is not used: the rows are counted.
 */
extern size_t crelay_message_put_hello(uint8_t *buf, size_t size, const CrelayHello *hello);
extern void crelay_message_begin_report(CrelayCursor *cur, uint8_t *buf, size_t size, const CrelayReport *report);
extern void crelay_message_begin_reply(CrelayCursor *cur, uint8_t *buf, size_t size, const CrelayReply *reply);
extern void crelay_message_put_row(CrelayCursor *cur, const CrelayNode *row, int64_t now);
extern size_t crelay_message_end(CrelayCursor *cur);

/*
 * An upper bound of what a message with that many rows takes, for allocating
 * the buffer.
 */
extern size_t crelay_message_size_bound(uint32_t nrows);

/* Whether two libraries can talk at all, as a message tells. */
typedef enum CrelayFit
{
	CRELAY_FIT_OK = 0,
	CRELAY_FIT_READER_TOO_OLD,
	CRELAY_FIT_SENDER_TOO_OLD
} CrelayFit;

/*
 * For a message that kind() does not accept: is that because of the versions?
 * What is no message at all fits.
 */
extern CrelayFit crelay_message_fit(const uint8_t *buf, size_t size);

/* The version of this library, as others are told. */
extern const char *crelay_message_software(void);

/*
 * Reading.  kind() checks the envelope: magic, versions, length; it returns 0
 * and sets *error if it is not a message that this library can read.  get_*
 * return false and set *error (a constant text) if anything in it is wrong,
 * rows included: they are walked and checked at once, so that get_row()
 * cannot fail afterwards.  get_row() returns false when no row is left.
 */
extern CrelayMessageKind crelay_message_kind(const uint8_t *buf, size_t size, const char **error);
extern bool crelay_message_get_hello(const uint8_t *buf, size_t size, CrelayHello *hello, const char **error);
extern bool crelay_message_get_report(const uint8_t *buf, size_t size, CrelayReport *report, CrelayCursor *rows, const char **error);
extern bool crelay_message_get_reply(const uint8_t *buf, size_t size, CrelayReply *reply, CrelayCursor *rows, const char **error);
extern bool crelay_message_get_row(CrelayCursor *cur, CrelayNode *row, int64_t now);

/* What a refusal means to the one who is refused, and what to do about it. */
extern const char *crelay_refusal_text(CrelayRefusal refusal);
extern const char *crelay_refusal_hint(CrelayRefusal refusal);

/* An address that may be shown to everybody, and used as it is. */
extern bool crelay_conninfo_is_public(const char *conninfo);

/* A node name of our own: slot-name characters, 1 to CRELAY_NODE_NAME_MAX. */
extern bool crelay_node_name_is_valid(const char *name);

#endif							/* CRELAY_MESSAGE_H */
