/*-------------------------------------------------------------------------
 *
 * check.h
 *	  What is wrong in the cascade, and what to do, as a pure decision.
 *
 * Owns: the findings of cascade_check - which facts make one, how bad it is,
 * and its words.
 *
 * Not here: where the facts come from (check_funcs.c).  No clock, no lock, no
 * setting is read: everything is an argument.
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_CHECK_H
#define CRELAY_CHECK_H

#include "decide/node.h"

typedef enum CrelaySeverity
{
	CRELAY_SEVERITY_OK = 0,		/* nothing, or only worth knowing */
	CRELAY_SEVERITY_WARNING,
	CRELAY_SEVERITY_CRITICAL
} CrelaySeverity;

/* In the order in which findings of one severity are told. */
typedef enum CrelayCheckCode
{
	CRELAY_CHECK_NO_FREE_WORKER = 0,
	CRELAY_CHECK_EXTENSION_MISSING,
	CRELAY_CHECK_UPSTREAM_REFUSED,
	CRELAY_CHECK_UPSTREAM_SILENT,
	CRELAY_CHECK_DUPLICATE_NAME,
	CRELAY_CHECK_REPORTS_ELSEWHERE,
	CRELAY_CHECK_DUPLICATE_ADDRESS,
	CRELAY_CHECK_CYCLE,
	CRELAY_CHECK_DIVERGED,
	CRELAY_CHECK_NOT_STREAMING,
	CRELAY_CHECK_REPLAY_PAUSED,
	CRELAY_CHECK_VOTING_CASCADES,
	CRELAY_CHECK_UNPROTECTED,
	CRELAY_CHECK_NO_FREE_SLOT,
	CRELAY_CHECK_KEEP_SIZE_TOO_LOW,
	CRELAY_CHECK_NO_ROOM,
	CRELAY_CHECK_HOLD_DROPPED,
	CRELAY_CHECK_SLOT_LOST,
	CRELAY_CHECK_HOLD_CLAMPED,
	CRELAY_CHECK_DISK_RESERVE,
	CRELAY_CHECK_HOLD_TIMEOUT,
	CRELAY_CHECK_PINNED_LONG,
	CRELAY_CHECK_ORPHAN_SLOT,
	CRELAY_CHECK_IDLE_SLOT,
	CRELAY_CHECK_FORMER_LIFE,
	CRELAY_CHECK_LOCAL_HOLD_HIGH,
	CRELAY_CHECK_NO_CANDIDATE,
	CRELAY_CHECK_KEPT_NAME,
	CRELAY_CHECK_STALE_NODE,
	CRELAY_CHECK_VACUUM_HELD_BACK,
	CRELAY_CHECK_FEEDBACK_OFF,
	CRELAY_CHECK_DELAYED_STANDBY,
	CRELAY_CHECK_UNBOUNDED,
	CRELAY_CHECK_SCHEMA_OPEN,
	CRELAY_CHECK_VERSION_MIXED,
	CRELAY_CHECK_SERVER_OUTDATED,
	CRELAY_CHECK_NOT_PRELOADED,
	CRELAY_CHECK_REGISTRY_FULL,
	CRELAY_CHECK_OK				/* there is no finding */
} CrelayCheckCode;

#define CRELAY_CHECK_TEXT_LEN	1200

typedef struct CrelayFinding
{
	CrelaySeverity severity;
	CrelayCheckCode code;
	const char *node_name;		/* the node that it is about */
	bool		below;			/* it is about this server, or about a node of
								 * its subtree */
	char		message[CRELAY_CHECK_TEXT_LEN];
	char		hint[CRELAY_CHECK_TEXT_LEN];	/* empty: none */
} CrelayFinding;

/* One row of the tree, in the tree's order. */
typedef struct CrelayCheckRow
{
	const CrelayNode *node;
	CrelayState state;			/* as it is shown */
	int			depth;
	bool		local;
	const char *fed_by;			/* the node that it is drawn below */
	bool		voting_cascades;	/* the policy refuses its upstream */
	const char *better;			/* of one that nothing feeds: the node that it
								 * had best follow; NULL none */
} CrelayCheckRow;

/* A managed child; a downstream's index in .child leads to it. */
typedef struct CrelayCheckChild
{
	bool		away;			/* neither reports nor streams */
	bool		held;			/* was told that its WAL is held */
	const char *left_by;		/* away, and these nodes, all that streamed
								 * from it, are protected elsewhere; NULL not
								 * so */
} CrelayCheckChild;

typedef struct CrelayCheckFacts
{
	int64_t		now;
	int64_t		stale_after;	/* microseconds */
	int64_t		started_at;		/* of this server */
	uint64_t	segment_size;
	const char *schema;			/* of the extension, quoted, for commands */
	const char *schema_open_to; /* who may create there, quoted; NULL: only
								 * superusers */
	bool		schema_granted; /* by a grant, not as the owner */
	int			lsn_digits;		/* the server prints at least so many after
								 * the slash of an LSN */

	/* this node */
	const char *name;
	uint32_t	incarnation;
	const char *version;		/* of its library */
	const char *sql_version;	/* of the SQL objects; empty unknown */
	int			server_version; /* of PostgreSQL, as 150020; 0 unknown */
	bool		at_work;		/* its worker runs, and has looked around */
	int64_t		passed_at;		/* when that last got to the end of it */
	bool		in_recovery;
	const char *passed_over_name;	/* what the host name would make of this
									 * node's name; NULL: the same, or it is
									 * set */
	int			nformer;		/* former lives of this node */
	const CrelayLife *former;
	int64_t		local_hold_high_since;	/* above what the tree needs; 0 not */
	uint64_t	tree_hold_lsn;	/* that is this */
	bool		enabled;
	int			slots_used;
	int			slots_total;
	uint64_t	own_lsn;		/* the end of its WAL */
	uint64_t	oldest_wal_lsn; /* the start of it; 0 unknown */
	const char *primary_slot_name;
	uint64_t	frontier_lsn;
	CrelayPin	pin;
	const char *pinned_via;		/* the direct downstream that the pin was
								 * heard of from; NULL for none */
	int64_t		pinned_since;	/* 0: pinned by its own position */
	const char *xmin_pinned_by;
	int64_t		xmin_since;		/* the oldest xmin has not moved; 0 none */
	int64_t		xmin_age;		/* transactions */

	/* the bounds of its holds */
	bool		can_hold;		/* else the server gives every slot up */
	int64_t		size_limit;		/* bytes, -1 none */
	CrelayDiskBound disk;
	int64_t		hold_timeout;	/* microseconds; 0 never */
	int64_t		max_wal_size;	/* bytes */

	/* whom it has not got back since it was promoted */
	bool		knows_awaited;	/* not after a restart */
	int			awaited;
	const char *first_awaited;	/* one of them, NULL for none */

	/* its upstream */
	bool		has_target;		/* it is known where to report to */
	bool		refused;
	bool		lacks_extension;	/* that is why */
	bool		waiting;		/* to try again after a failure */
	int64_t		heard_at;		/* last reply; 0 none since the start */
	bool		answers;		/* takes the reports */
	bool		root_known;		/* and news of the root comes from it */
	int64_t		root_age;		/* of the last such news; -1 none ever */
	uint32_t	path_interval_ms;	/* see node.h */
	uint64_t	upstream_held_lsn;
	const char *last_error;		/* with " HINT: " in it, if there is one */
	int64_t		last_error_at;
	const char *held_text;		/* why less is held than needed; or empty */
	const char *held_hint;

	/* the nodes that this one has refused lately */
	int			nturned_away;
	const CrelayRefused *turned_away;

	/* who has filled the registry, a node or a role; empty unknown */
	const char *full_by;
	const char *full_role;
	int			full_rows;

	int			nrows;
	const CrelayCheckRow *rows;
	int			ndownstreams;
	const CrelayDownstream *downstreams;	/* with their verdicts */
	const CrelayCheckChild *children;

	/* workspace, room for nrows: filled by crelay_check_run() */
	const CrelayCheckRow **by_name;
	const CrelayCheckRow **by_address;
	const CrelayCheckRow **feedback_below;	/* the first below each row that
											 * gives it, or NULL */
} CrelayCheckFacts;

typedef void (*CrelayCheckSink) (void *arg, const CrelayFinding *finding);

extern void crelay_check_run(const CrelayCheckFacts *facts,
							 CrelayCheckSink sink, void *sink_arg);
extern const char *crelay_check_code_text(CrelayCheckCode code);
extern const char *crelay_severity_text(CrelaySeverity severity);

#endif							/* CRELAY_CHECK_H */
