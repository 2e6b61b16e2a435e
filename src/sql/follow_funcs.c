/*-------------------------------------------------------------------------
 *
 * follow_funcs.c
 *	  cascade_follow(): this node is to stream from another one.
 *
 * Owns: arguments, and what the statement gives up before it waits.
 *
 * Not here: the move (follow.c).
 *
 * Locking: none of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/execdesc.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "nodes/plannodes.h"
#include "nodes/primnodes.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "registry/registry.h"
#include "sql/follow.h"

PG_FUNCTION_INFO_V1(cascade_follow);

/*-------------------------------------------------------------------------
 * Snapshots
 *-------------------------------------------------------------------------
 */

/*
 * Whether an expression is a call of that function with plain arguments, in
 * which nothing else can run.
 */
static bool
is_plain_call(const Node *expr, Oid funcid)
{
	const FuncExpr *call = (const FuncExpr *) expr;
	ListCell   *lc;

	if (expr == NULL || !IsA(expr, FuncExpr) || call->funcid != funcid)
		return false;
	foreach(lc, call->args)
	{
		if (!IsA(lfirst(lc), Const) && !IsA(lfirst(lc), Param))
			return false;
	}
	return true;
}

/*
 * Whether a statement is nothing but the call: SELECT f(...), or SELECT ...
 * FROM f(...).  Such a plan has opened nothing with its snapshot, and looks at
 * nothing with it.
 */
static bool
is_nothing_but(const PlannedStmt *statement, Oid funcid)
{
	const Plan *plan = statement->planTree;

	if (statement->commandType != CMD_SELECT || statement->subplans != NIL ||
		list_length(plan->targetlist) != 1 || plan->qual != NIL ||
		plan->lefttree != NULL || plan->righttree != NULL)
		return false;
	if (IsA(plan, Result))
		return is_plain_call((Node *) linitial_node(TargetEntry, plan->targetlist)->expr,
							 funcid);
	if (IsA(plan, FunctionScan))
	{
		const FunctionScan *scan = (const FunctionScan *) plan;

		return list_length(scan->functions) == 1 &&
			IsA(linitial_node(TargetEntry, plan->targetlist)->expr, Var) &&
			is_plain_call(linitial_node(RangeTblFunction, scan->functions)->funcexpr,
						  funcid);
	}
	return false;
}

/*
 * The query whose snapshots may be given up while this function runs, or NULL.
 */
static QueryDesc *
query_alone(FunctionCallInfo fcinfo)
{
	Portal		portal = ActivePortal;
	QueryDesc  *query = portal != NULL ? portal->queryDesc : NULL;

	if (query == NULL || portal->strategy != PORTAL_ONE_SELECT ||
		portal->createSubid != GetCurrentSubTransactionId() ||
		portal->holdStore != NULL || portal->resowner == NULL ||
		query->estate == NULL || query->snapshot == NULL ||
		query->estate->es_snapshot != query->snapshot ||
		!ActiveSnapshotSet() || GetActiveSnapshot() != query->snapshot ||
		!is_nothing_but(query->plannedstmt, fcinfo->flinfo->fn_oid))
		return NULL;
	return query;
}

/*
 * Gives up the three references that a running SELECT has to its snapshot:
 * one active, two registered.  On a standby the snapshot would hold back
 * replay, so that either the server cancels the move because of a conflict, or
 * the startup process waits for it and does not see the new settings.
 */
static void
release_snapshots(QueryDesc *query)
{
	Snapshot	snapshot = query->snapshot;

	query->snapshot = NULL;
	query->estate->es_snapshot = NULL;
	PopActiveSnapshot();
	UnregisterSnapshotFromOwner(snapshot, ActivePortal->resowner);
	UnregisterSnapshotFromOwner(snapshot, ActivePortal->resowner);
	InvalidateCatalogSnapshot();
}

/*
 * The statement goes on with a new one, which its end will give up.
 */
static void
renew_snapshots(QueryDesc *query)
{
	PushActiveSnapshot(GetTransactionSnapshot());
	query->snapshot = RegisterSnapshotOnOwner(GetActiveSnapshot(), ActivePortal->resowner);
	query->estate->es_snapshot = RegisterSnapshotOnOwner(GetActiveSnapshot(),
														 ActivePortal->resowner);
}

/*-------------------------------------------------------------------------
 * The function
 *-------------------------------------------------------------------------
 */

/*
 * A timeout in milliseconds, at most some 24 days.
 */
static int
timeout_milliseconds(const Interval *timeout)
{
	double		ms = (double) timeout->time / 1000 +
	((double) timeout->day + (double) timeout->month * DAYS_PER_MONTH) * SECS_PER_DAY * 1000;

	if (ms < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must be positive")));
	return ms < PG_INT32_MAX ? (int) ms : PG_INT32_MAX;
}

/*
 * cascade_follow(upstream_name text, conninfo text, timeout interval,
 * dry_run bool) returns text
 *
 * Moves this node to that upstream, or leaves it where it is, with the reason.
 */
Datum
cascade_follow(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"upstream_name", "conninfo", "timeout", "dry_run"};
	const char *target;
	const char *conninfo = NULL;
	int			timeout_ms;
	bool		dry_run;
	QueryDesc  *query;
	char	   *answer;

	crelay_registry_require();
	for (int i = 0; i < (int) lengthof(names); i++)
	{
		/* no conninfo: where the tree says */
		if (i != 1 && PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null", names[i])));
	}
	target = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!PG_ARGISNULL(1))
		conninfo = text_to_cstring(PG_GETARG_TEXT_PP(1));
	timeout_ms = timeout_milliseconds(PG_GETARG_INTERVAL_P(2));
	dry_run = PG_GETARG_BOOL(3);
	query = query_alone(fcinfo);
	if (query != NULL)
		release_snapshots(query);
	answer = crelay_follow(target, conninfo, timeout_ms, dry_run);
	if (query != NULL)
		renew_snapshots(query);
	PG_RETURN_TEXT_P(cstring_to_text(answer));
}
