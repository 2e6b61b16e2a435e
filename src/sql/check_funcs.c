/*-------------------------------------------------------------------------
 *
 * check_funcs.c
 *	  cascade_check(): what is wrong in the cascade, and what to do.
 *
 * Owns, leaves out and locks: see check_funcs.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/syscache.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "decide/check.h"
#include "decide/frontier.h"
#include "node/bounds.h"
#include "node/downstream.h"
#include "node/tree.h"
#include "registry/registry.h"
#include "server/compat.h"
#include "server/guc.h"
#include "sql/check_funcs.h"
#include "sql/tuple.h"
#include "worker/awaited.h"

PG_FUNCTION_INFO_V1(cascade_check);

/* Of so many nodes below one that has left, the names are told. */
#define MAX_NAMES	10

/* Where findings go. */
typedef struct Output
{
	ReturnSetInfo *rsinfo;
	MemoryContext memory;
} Output;

static void
put_finding(void *arg, const CrelayFinding *finding)
{
	Output	   *output = arg;
	CrelayTuple tuple;

	crelay_tuple_begin(&tuple, output->memory);
	crelay_put_text(&tuple, crelay_severity_text(finding->severity));
	crelay_put_int(&tuple, (int32) finding->severity, true);
	crelay_put_text(&tuple, crelay_check_code_text(finding->code));
	crelay_put_text(&tuple, finding->node_name);
	crelay_put_text(&tuple, finding->message);
	crelay_put_text(&tuple, finding->hint);
	crelay_put_bool(&tuple, finding->below);
	crelay_tuple_store(&tuple, output->rsinfo);
}

/*
 * The node that a node which nothing feeds had best follow, NULL if none is safe
 * for it.
 */
static const char *
find_better(const CrelayPolicyTree *policy, const char *node_name)
{
	CrelayCandidate *candidates = palloc_array(CrelayCandidate, policy->nrows + 1);
	CrelayCandidateQuestion question = {0};
	int			n;

	question.node_name = node_name;
	n = crelay_policy_candidates(policy, &question, candidates);
	if (n == 0 || candidates[0].rank != 1)
		return NULL;
	return policy->nodes[policy->rows[candidates[0].upstream].node].name;
}

static void
add_rows(CrelayCheckFacts *facts, const CrelayTree *tree, const CrelayPolicyTree *policy)
{
	CrelayCheckRow *rows = palloc_array(CrelayCheckRow, tree->nrows + 1);

	for (int r = 0; r < tree->nrows; r++)
	{
		CHECK_FOR_INTERRUPTS();
		rows[r].node = &tree->nodes[tree->rows[r].node];
		rows[r].state = crelay_tree_state(tree, &tree->rows[r]);
		rows[r].depth = tree->rows[r].depth;
		rows[r].fed_by = tree->rows[r].parent >= 0 ?
			tree->nodes[tree->rows[tree->rows[r].parent].node].name : CRELAY_UNKNOWN_NODE;
		rows[r].local = crelay_tree_is_local(tree, &tree->rows[r]);
		rows[r].voting_cascades = crelay_tree_breach(tree, r) == CRELAY_PLAN_VOTING_DIRECT_ONLY;
		rows[r].better = rows[r].node->feed == CRELAY_FEED_WAL_GONE ?
			find_better(policy, rows[r].node->name) : NULL;
	}
	facts->nrows = tree->nrows;
	facts->rows = rows;
	facts->by_name = palloc_array(const CrelayCheckRow *, tree->nrows + 1);
	facts->by_address = palloc_array(const CrelayCheckRow *, tree->nrows + 1);
	facts->feedback_below = palloc_array(const CrelayCheckRow *, tree->nrows + 1);
}

/*
 * Which nodes were last seen below a child, if each of them is protected
 * elsewhere; NULL if not, or if there is none that is known, or more than are.
 */
static const char *
find_leavers(const CrelaySnapshot *snapshot, const CrelayKnown *known, int nknown, int child)
{
	StringInfoData names;
	int			origin = snapshot->child_slots[child];
	int			n = 0;

	if (!crelay_tree_knows_below(snapshot, child))
		return NULL;
	initStringInfo(&names);
	for (int i = 0; i < snapshot->nrows + snapshot->ncontested; i++)
	{
		const CrelayNode *now;
		bool		safe;

		if (snapshot->row_origins[i] != origin)
			continue;
		now = crelay_departed_find(known, nknown, &snapshot->rows[i],
								   &snapshot->children[child].node, origin, &safe);
		if (!safe)
			return NULL;
		if (n++ < MAX_NAMES)
			appendStringInfo(&names, "%s%s", n > 1 ? ", " : "", now->name);
	}
	if (n > MAX_NAMES)
		appendStringInfo(&names, " and %d more", n - MAX_NAMES);
	return n > 0 ? names.data : NULL;
}

static bool
is_away(const CrelayChild *child)
{
	return child->session_pid == 0 && child->node.state == CRELAY_STATE_DOWN;
}

/*
 * Reads the registry, with the rows only if some child is away: as a rule none
 * is.
 */
static void
read_children(CrelaySnapshot *snapshot)
{
	crelay_registry_snapshot(snapshot, false);
	for (int i = 0; i < snapshot->nchildren; i++)
	{
		if (is_away(&snapshot->children[i]))
		{
			crelay_registry_snapshot(snapshot, true);
			return;
		}
	}
}

/*
 * The children, the slots and the walsenders of this node, with what they are
 * worth.
 */
static void
add_downstreams(CrelayCheckFacts *facts, const CrelaySettings *settings,
				const CrelayPosition *position)
{
	CrelaySnapshot snapshot;
	CrelayDownstream *downstreams;
	CrelayCheckChild *children;
	CrelayFrontier frontier;
	CrelayKnown *known;
	int			nknown;
	CrelayOwn	own;
	int			n;

	read_children(&snapshot);
	downstreams = crelay_downstream_collect(&snapshot, true, &n);
	own.name = settings->node_name;
	own.applied_lsn = position->applied_lsn;
	own.restart_redo = position->restart_redo;
	own.segment_size = wal_segment_size;
	crelay_frontier_compute(&own, downstreams, n, &frontier);

	children = palloc_array(CrelayCheckChild, snapshot.nchildren + 1);
	known = crelay_tree_known(&snapshot, &nknown);
	for (int i = 0; i < snapshot.nchildren; i++)
	{
		CHECK_FOR_INTERRUPTS();
		children[i].away = is_away(&snapshot.children[i]);
		children[i].held = snapshot.children[i].held_lsn != 0;
		children[i].left_by = children[i].away ?
			find_leavers(&snapshot, known, nknown, i) : NULL;
	}
	facts->slots_total = max_replication_slots;
	for (int i = 0; i < n; i++)
	{
		if (downstreams[i].slot_name[0] != '\0')
			facts->slots_used++;
	}
	facts->pin = frontier.pin;
	facts->pinned_via = frontier.pinned_via != NULL ? frontier.pinned_via->name : NULL;
	facts->ndownstreams = n;
	facts->downstreams = downstreams;
	facts->children = children;
}

static void
add_bounds(CrelayCheckFacts *facts, const CrelaySettings *settings)
{
	CrelayBounds bounds;

	crelay_bounds_get(settings, facts->own_lsn, &bounds);
	facts->can_hold = bounds.can_hold;
	facts->size_limit = bounds.limit;
	facts->disk = bounds.disk;
	facts->hold_timeout = (int64) settings->hold_timeout_s * 1000000;
	facts->max_wal_size = (int64) max_wal_size_mb * 1024 * 1024;
}

static void
add_awaited(CrelayCheckFacts *facts, const CrelayTree *tree)
{
	CrelayAwaited awaited;

	crelay_awaited_find(tree, &awaited);
	facts->knows_awaited = awaited.known;
	facts->awaited = awaited.n;
	facts->first_awaited = awaited.first;
}

static void
add_refused(CrelayCheckFacts *facts)
{
	CrelayRefused *refused = palloc_array(CrelayRefused, CRELAY_MAX_REFUSED);

	facts->nturned_away = crelay_registry_get_refused(facts->now, refused);
	facts->turned_away = refused;
}

static void
add_upstream(CrelayCheckFacts *facts, const CrelayLocal *local,
			 const CrelaySettings *settings)
{
	uint32		root_age = crelay_local_root_age_ms(local);

	facts->has_target = (PrimaryConnInfo != NULL && PrimaryConnInfo[0] != '\0') ||
		(settings->upstream_conninfo != NULL && settings->upstream_conninfo[0] != '\0');
	facts->refused = local->upstream_state == CRELAY_UPSTREAM_REFUSED;
	facts->lacks_extension = local->upstream_lacks_extension;
	facts->waiting = local->upstream_state == CRELAY_UPSTREAM_WAITING;
	facts->heard_at = local->heard_at;
	facts->answers = local->upstream_state == CRELAY_UPSTREAM_CONNECTED;
	facts->root_known = local->root_known || local->in_cycle;
	facts->root_age = root_age == CRELAY_AGE_UNKNOWN ? -1 : (int64) root_age * 1000;
	facts->path_interval_ms = local->node.path_interval_ms;
	facts->upstream_held_lsn = local->upstream_held_lsn;
	facts->last_error = local->last_error;
	facts->last_error_at = local->last_error_time;
	facts->held_text = "";
	facts->held_hint = "";
	if (local->upstream_held_reason != CRELAY_REFUSE_NONE)
	{
		facts->held_text = crelay_refusal_text(local->upstream_held_reason);
		facts->held_hint = crelay_refusal_hint(local->upstream_held_reason);
	}
}

/*
 * The version of the SQL objects in this database, empty if they were not made
 * by CREATE EXTENSION.
 */
static char *
read_sql_version(void)
{
	Relation	extensions = table_open(ExtensionRelationId, AccessShareLock);
	char	   *version = pstrdup("");
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("cascade_relay"));
	scan = systable_beginscan(extensions, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		is_null;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(extensions), &is_null);

		if (!is_null)
			version = TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(extensions, AccessShareLock);
	return version;
}

/*
 * Returns true if a role can do everything anyway.  The owner of the database
 * stands behind pg_database_owner.
 */
static bool
is_trusted(Oid role)
{
	HeapTuple	tuple;
	bool		trusted;

	if (role != ROLE_PG_DATABASE_OWNER)
		return superuser_arg(role);
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	if (!HeapTupleIsValid(tuple))
		return false;
	trusted = superuser_arg(((Form_pg_database) GETSTRUCT(tuple))->datdba);
	ReleaseSysCache(tuple);
	return trusted;
}

/*
 * Finds a role without superuser rights that may create in the schema of the
 * extension.
 */
static void
add_schema(CrelayCheckFacts *facts, Oid function)
{
	Oid			schema = get_func_namespace(function);
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	bool		is_null;
	Oid			owner;
	Datum		value;

	facts->schema = crelay_schema_of(function);
	if (!HeapTupleIsValid(tuple))
		return;
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	if (!is_trusted(owner))
		facts->schema_open_to = quote_identifier(GetUserNameFromId(owner, false));
	value = SysCacheGetAttr(NAMESPACEOID, tuple, Anum_pg_namespace_nspacl, &is_null);
	if (!is_null && facts->schema_open_to == NULL)
	{
		Acl		   *acl = DatumGetAclPCopy(value);

		/* an ACL has no nulls; ACL_DAT() would ask, and mix signs */
		AclItem    *items = (AclItem *) ((char *) acl + ARR_OVERHEAD_NONULLS(1));

		for (int i = 0; i < ACL_NUM(acl); i++)
		{
			Oid			grantee = items[i].ai_grantee;

			if ((ACLITEM_GET_PRIVS(items[i]) & ACL_CREATE) == 0 ||
				(grantee != ACL_ID_PUBLIC && is_trusted(grantee)))
				continue;
			facts->schema_granted = true;
			facts->schema_open_to = grantee == ACL_ID_PUBLIC ? "PUBLIC" :
				quote_identifier(GetUserNameFromId(grantee, false));
		}
	}
	ReleaseSysCache(tuple);
}

static void
add_self(CrelayCheckFacts *facts, const CrelayLocal *local,
		 const CrelaySettings *settings, const CrelayPosition *position)
{
	facts->full_by = local->full.by;
	facts->full_role = local->full.role;
	facts->full_rows = local->full.rows;
	facts->lsn_digits = CRELAY_LSN_DIGITS;
	facts->name = settings->node_name;
	facts->incarnation = local->node.incarnation;
	facts->version = crelay_message_software();
	facts->sql_version = read_sql_version();
	facts->server_version = atoi(GetConfigOption("server_version_num", false, false));
	facts->at_work = local->ready && local->worker_pid != 0;
	facts->passed_at = local->node.observed_at;
	facts->in_recovery = position->in_recovery;
	facts->local_hold_high_since = local->local_hold_high_since;
	facts->tree_hold_lsn = local->tree_hold_lsn;
	facts->passed_over_name = crelay_guc_passed_over_name();
	facts->nformer = local->nformer;
	facts->former = local->former;
	facts->enabled = settings->enabled;
	facts->oldest_wal_lsn = local->node.oldest_wal_lsn;
	facts->primary_slot_name = PrimarySlotName;
	facts->own_lsn = position->flush_lsn;
	facts->frontier_lsn = local->node.frontier_lsn;
	facts->pinned_since = local->pinned_since;
	facts->xmin_pinned_by = local->node.xmin_pinned_by;
	facts->xmin_since = local->xmin_since;
	if (TransactionIdIsNormal(local->node.backend_xmin))
		facts->xmin_age = (int32) (ReadNextTransactionId() - local->node.backend_xmin);
}

/*
 * Hands the findings about a tree and this server to the sink, the worst first,
 * and one that says ok if there is none.  function: one of ours, in whose schema
 * the others are.
 */
void
crelay_check_tree(const CrelayTree *tree, Oid function, CrelayCheckSink sink, void *sink_arg)
{
	CrelayPolicyTree policy = {0};
	CrelayCheckFacts facts = {0};
	CrelaySettings settings;
	CrelayPosition position;

	crelay_guc_copy(&settings);
	crelay_read_position(&position);
	facts.now = GetCurrentTimestamp();
	add_schema(&facts, function);
	facts.stale_after = (int64) settings.stale_timeout_ms * 1000;
	facts.started_at = PgStartTime;
	facts.segment_size = wal_segment_size;
	add_self(&facts, &tree->local, &settings, &position);
	add_upstream(&facts, &tree->local, &settings);
	add_bounds(&facts, &settings);
	crelay_tree_judge(tree, &policy);
	add_rows(&facts, tree, &policy);
	add_awaited(&facts, tree);
	add_refused(&facts);
	add_downstreams(&facts, &settings, &position);
	crelay_check_run(&facts, sink, sink_arg);
}

/*
 * cascade_check() returns one row for each finding, the worst first, and one
 * that says ok if there is none.
 */
Datum
cascade_check(PG_FUNCTION_ARGS)
{
	Output		output;
	CrelayTree *tree = crelay_tree_read();

	InitMaterializedSRF(fcinfo, 0);
	output.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	output.memory = crelay_row_memory();
	crelay_check_tree(tree, fcinfo->flinfo->fn_oid, put_finding, &output);
	return (Datum) 0;
}
