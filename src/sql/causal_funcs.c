/*-------------------------------------------------------------------------
 *
 * causal_funcs.c
 *	  Causal reads: cascade_bookmark(), cascade_can_serve(),
 *	  cascade_nodes_serving() and cascade_wait_for().
 *
 * Owns: arguments and tuples of these functions; the wait, and what it gives
 * up before it begins.
 *
 * Not here: what a bookmark is and who has it (bookmark.c), the tree (tree.c).
 *
 * Locking: none of its own.  cascade_wait_for() sleeps on the latch of its
 * process; it holds no lock and no snapshot meanwhile, but for the heavyweight
 * locks that its transaction took before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/latch.h"
#include "tcop/pquery.h"
#include "utils/pgstat_internal.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "decide/bookmark.h"
#include "node/downstream.h"
#include "node/tree.h"
#include "server/compat.h"
#include "sql/tuple.h"

PG_FUNCTION_INFO_V1(cascade_bookmark);
PG_FUNCTION_INFO_V1(cascade_can_serve);
PG_FUNCTION_INFO_V1(cascade_nodes_serving);
PG_FUNCTION_INFO_V1(cascade_wait_for);

/* ---- bookmarks ---- */

/*
 * Up to where this server has applied WAL: what every new snapshot sees.
 */
static uint64
read_applied(uint32 *timeline)
{
	TimeLineID	tli = 0;
	XLogRecPtr	lsn;

	if (RecoveryInProgress())
		lsn = GetXLogReplayRecPtr(&tli);
	else
		lsn = GetFlushRecPtr(&tli);
	*timeline = tli;
	return lsn;
}

static void
parse_bookmark(const text *argument, CrelayBookmark *bookmark)
{
	char	   *string = text_to_cstring(argument);

	if (!crelay_bookmark_parse(string, bookmark))
	{
		int			length = (int) strlen(string);
		int			shown = pg_mbcliplen(string, length, 64);

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid bookmark: \"%.*s\"%s", shown, string,
						shown < length ? "..." : ""),
				 errhint("A bookmark is what %s returns, a timeline and an LSN, as in \"%s\".",
						 "cascade_bookmark()", "1:0/3000060")));
	}
	pfree(string);
}

/*
 * The end of the last WAL record that was inserted.  The server's insert
 * position lies behind the header of the next page when the record has filled
 * its own: there is nothing to flush yet, and nothing that a standby could
 * replay up to.
 */
static XLogRecPtr
inserted_end(void)
{
	XLogRecPtr	lsn = GetXLogInsertRecPtr();

	if (XLogSegmentOffset(lsn, wal_segment_size) == SizeOfXLogLongPHD)
		return lsn - SizeOfXLogLongPHD;
	if (lsn % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		return lsn - SizeOfXLogShortPHD;
	return lsn;
}

/*
 * The end of a record that covers what cascade_bookmark() promises, on disk,
 * and the timeline of this primary.
 *
 * The end of what is on disk may lie within a record, where a page or a
 * segment ends: no standby replays up to there before the rest of the record
 * is on disk too, and nobody need be in a hurry with that.
 */
static XLogRecPtr
flush_bookmark(TimeLineID *timeline)
{
	XLogRecPtr	lsn = GetFlushRecPtr(timeline);

	if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF || lsn % XLOG_BLCKSZ == 0)
		lsn = inserted_end();
	else
		lsn = Max(lsn, XactLastCommitEnd);
	XLogFlush(lsn);
	return lsn;
}

/*
 * Returns true if this transaction has changed a table, a system catalog
 * included, as far as the statistics tell.  A row lock takes a transaction ID as
 * a change does, and leaves nothing to be covered.
 */
static bool
has_changes(void)
{
	const PgStat_SubXactStatus *level;

	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return false;
	if (!pgstat_track_counts)
		return true;
	for (level = pgstat_get_xact_stack_level(GetCurrentTransactionNestLevel());
		 level != NULL; level = level->prev)
	{
		for (const PgStat_TableXactStatus *table = level->first; table != NULL;
			 table = table->next)
		{
			if (table->tuples_inserted != 0 || table->tuples_updated != 0 ||
				table->tuples_deleted != 0 || table->truncdropped)
				return true;
		}
	}
	return false;
}

/*
 * cascade_bookmark() returns text
 *
 * On a primary: a position that covers whatever this session has committed,
 * and what any other one had committed with synchronous_commit on.  With
 * synchronous_commit off here, what others committed like that too.  It is on
 * disk then, so that a crash cannot lose it and give its LSN to other changes;
 * as a rule it is there already and this costs nothing.
 *
 * On a standby: what it has replayed, which is what this session can have
 * seen.
 */
Datum
cascade_bookmark(PG_FUNCTION_ARGS)
{
	char		bookmark[CRELAY_BOOKMARK_LEN];
	TimeLineID	timeline = 0;
	XLogRecPtr	lsn;

	if (RecoveryInProgress())
		lsn = GetXLogReplayRecPtr(&timeline);
	else
	{
		if (has_changes())
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("a bookmark cannot cover changes that are not committed yet"),
					 errhint("Call %s after the commit, in the same session.",
							 "cascade_bookmark()")));
		lsn = flush_bookmark(&timeline);
	}
	crelay_bookmark_format(bookmark, sizeof(bookmark), timeline, lsn,
						   CRELAY_LSN_DIGITS);
	if (bookmark[0] == '\0')
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(bookmark));
}

/* ---- who can serve one ---- */

/*
 * The tree, with this node's own row as of now.  The history is this node's;
 * it is the others' too, as far as their timelines are on it.
 */
static CrelayTree *
read_tree(const CrelayHistory **history)
{
	CrelayTree *tree = crelay_tree_read();
	uint32		timeline;
	uint64		lsn = read_applied(&timeline);

	if (tree->local.ready)
	{
		tree->nodes[0].timeline = timeline;
		tree->nodes[0].replay_lsn = lsn;
		tree->nodes[0].observed_at = GetCurrentTimestamp();
	}
	*history = crelay_read_history(timeline);
	return tree;
}

static CrelayServes
row_serves(const CrelayTree *tree, const CrelayTreeRow *row,
		   const CrelayBookmark *bookmark, const CrelayHistory *history)
{
	const CrelayNode *node = &tree->nodes[row->node];
	uint64		left_at;

	if (!crelay_state_is_live(crelay_tree_state(tree, row)))
		return CRELAY_SERVES_UNKNOWN;
	return crelay_bookmark_judge(bookmark, history, node->timeline,
								 node->replay_lsn, &left_at);
}

/*
 * cascade_can_serve(node_name text, bookmark text) returns bool
 *
 * Whether the node, where it was last seen, had what the bookmark stands for.
 * NULL if nobody can say: it is not live, or its position or its timeline is
 * not known here.  A name may have several rows, those of former lives; a live
 * one decides.
 */
Datum
cascade_can_serve(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	CrelayBookmark bookmark;
	const CrelayHistory *history;
	CrelayTree *tree;
	CrelayServes best = CRELAY_SERVES_UNKNOWN;
	bool		found = false;

	parse_bookmark(PG_GETARG_TEXT_PP(1), &bookmark);
	tree = read_tree(&history);
	for (int r = 0; r < tree->nrows; r++)
	{
		CrelayServes serves;

		if (strcmp(tree->nodes[tree->rows[r].node].name, name) != 0)
			continue;
		found = true;
		serves = row_serves(tree, &tree->rows[r], &bookmark, history);
		if (best != CRELAY_SERVES_NOW && serves != CRELAY_SERVES_UNKNOWN)
			best = serves;
	}
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("node \"%s\" is not known here", name),
				 errhint("%s lists the nodes that are.", "cascade_topology")));
	if (best == CRELAY_SERVES_UNKNOWN)
		PG_RETURN_NULL();
	PG_RETURN_BOOL(best == CRELAY_SERVES_NOW);
}

/*
 * cascade_nodes_serving(bookmark text) returns the live nodes that have what
 * the bookmark stands for, in the order of the tree.
 */
Datum
cascade_nodes_serving(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CrelayBookmark bookmark;
	const CrelayHistory *history;
	MemoryContext memory = crelay_row_memory();
	CrelayTree *tree;

	parse_bookmark(PG_GETARG_TEXT_PP(0), &bookmark);
	tree = read_tree(&history);
	InitMaterializedSRF(fcinfo, 0);
	for (int r = 0; r < tree->nrows; r++)
	{
		const CrelayNode *node = &tree->nodes[tree->rows[r].node];
		CrelayTuple tuple;

		CHECK_FOR_INTERRUPTS();
		if (row_serves(tree, &tree->rows[r], &bookmark, history) != CRELAY_SERVES_NOW)
			continue;
		crelay_tuple_begin(&tuple, memory);
		crelay_put_text(&tuple, node->name);
		crelay_put_text(&tuple, node->conninfo);
		crelay_put_lsn(&tuple, node->replay_lsn);
		crelay_put_time(&tuple, node->observed_at);
		crelay_tuple_store(&tuple, rsinfo);
	}
	return (Datum) 0;
}

/* ---- waiting ---- */

/*
 * A timeout in microseconds.  What is too long to count is as long as can be
 * counted, the infinite interval of later versions too.
 */
static int64
timeout_microseconds(const Interval *timeout)
{
	double		us = (double) timeout->time +
	((double) timeout->day + (double) timeout->month * DAYS_PER_MONTH) * USECS_PER_DAY;

	if (us < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative"),
				 errhint("A timeout of 0 looks once and does not wait.")));
	return us < (double) (PG_INT64_MAX / 2) ? (int64) us : PG_INT64_MAX / 2;
}

/*
 * Gives up the snapshots that the server took for this very statement.  One of
 * them would hold back, on a standby with hot_standby_feedback off, the replay
 * of a cleanup record: the waiter would wait for itself.
 *
 * A statement has one active snapshot, and as it returns a row a registered
 * one too; the portal knows both, and gets on without either, as when a
 * procedure commits.  Any other snapshot belongs to somebody who still needs
 * it, and is an error.
 */
static void
give_up_snapshots(void)
{
	Portal		portal = ActivePortal;

	if (portal != NULL && portal->createSubid == GetCurrentSubTransactionId() &&
		portal->portalSnapshot != NULL && ActiveSnapshotSet() &&
		portal->portalSnapshot == GetActiveSnapshot())
	{
		PopActiveSnapshot();
		portal->portalSnapshot = NULL;
		if (portal->holdSnapshot != NULL)
		{
			if (portal->resowner != NULL)
				UnregisterSnapshotFromOwner(portal->holdSnapshot, portal->resowner);
			portal->holdSnapshot = NULL;
		}
	}
	InvalidateCatalogSnapshot();
	if (HaveRegisteredOrActiveSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot wait while its transaction holds a snapshot",
						"cascade_wait_for"),
				 errdetail("The snapshot could hold back the very replay that is waited for."),
				 errhint("Call it as a statement of its own, in a transaction that is READ COMMITTED and has no open cursor; not in a function, nor in a block with an EXCEPTION clause.")));
}

/*
 * The bookmark is not on this server's history.
 */
static void
report_lost(const CrelayBookmark *bookmark, uint32 timeline, uint64 left_at)
{
	char		lost[CRELAY_BOOKMARK_LEN];

	crelay_bookmark_format(lost, sizeof(lost), bookmark->timeline, bookmark->lsn,
						   CRELAY_LSN_DIGITS);
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_ROLLBACK),
			 errmsg("bookmark \"%s\" was lost in a failover", lost),
			 left_at != 0 ?
			 errdetail("The history of this server left timeline %u at " CRELAY_LSN_FORMAT ", before the bookmark.",
					   bookmark->timeline, LSN_FORMAT_ARGS(left_at)) :
			 errdetail("This server is on timeline %u, whose history does not contain timeline %u.",
					   timeline, bookmark->timeline),
			 errhint("What was committed there last is missing here: look for it, and take a new bookmark.")));
}

/*
 * Waits until this server has what the bookmark stands for; false if it has
 * not after the timeout.  Looks often when the wait is young, as most are
 * short, and every 10 ms at least: nothing in the server wakes a backend when
 * WAL is replayed.  Where recovery ends meanwhile, the wait goes on against
 * the primary that this server has become.
 */
static bool
wait_for(const CrelayBookmark *bookmark, int64 timeout)
{
	instr_time	start;

	INSTR_TIME_SET_CURRENT(start);
	for (;;)
	{
		instr_time	now;
		int64		waited;
		uint32		timeline;
		uint64		lsn;
		uint64		left_at;
		long		pause;

		CHECK_FOR_INTERRUPTS();
		lsn = read_applied(&timeline);
		switch (crelay_bookmark_judge(bookmark, crelay_read_history(timeline),
									  timeline, lsn, &left_at))
		{
			case CRELAY_SERVES_NOW:
				return true;
			case CRELAY_SERVES_NEVER:
				report_lost(bookmark, timeline, left_at);
				break;
			case CRELAY_SERVES_NOT_YET:
			case CRELAY_SERVES_UNKNOWN:
				break;
		}

		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		waited = (int64) INSTR_TIME_GET_MICROSEC(now);
		if (waited >= timeout)
			return false;
		pause = (long) Max(1, Min(10, waited / 10000));
		pause = (long) Min(pause, (timeout - waited) / 1000 + 1);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 pause, crelay_wait_event_replay());
		ResetLatch(MyLatch);
	}
}

/*
 * CALL cascade_wait_for(bookmark text, timeout interval, INOUT reached bool)
 *
 * A procedure, because a function cannot give up the snapshot of the query
 * that it is called in.
 */
Datum
cascade_wait_for(PG_FUNCTION_ARGS)
{
	CrelayBookmark bookmark;
	TupleDesc	tupdesc;
	int64		timeout;
	Datum		reached;
	bool		isnull = false;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("bookmark must not be null")));
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("timeout must not be null"),
				 errhint("A timeout of 0 looks once and does not wait.")));
	parse_bookmark(PG_GETARG_TEXT_PP(0), &bookmark);
	timeout = timeout_microseconds(PG_GETARG_INTERVAL_P(1));

	/* catalogs are read before the snapshots go */
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("%s must be declared with one output argument",
						"cascade_wait_for")));
	tupdesc = BlessTupleDesc(tupdesc);
	give_up_snapshots();
	reached = BoolGetDatum(wait_for(&bookmark, timeout));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(tupdesc, &reached, &isnull)));
}
