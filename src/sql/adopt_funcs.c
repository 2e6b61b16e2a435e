/*-------------------------------------------------------------------------
 *
 * adopt_funcs.c
 *	  cascade_adopt(): a slot here for a node that is to stream from here.
 *
 * Owns: arguments, permission, what the node needs, and the words for why it
 * cannot be had.
 *
 * Not here: making and placing the slot (hold.c), whether the node should
 * stream from here (policy.c).
 *
 * Locking: none of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"

#include "node/downstream.h"
#include "node/hold.h"
#include "node/tree.h"
#include "registry/registry.h"
#include "server/compat.h"
#include "server/guc.h"
#include "worker/release.h"
#include "worker/slot_user.h"

PG_FUNCTION_INFO_V1(cascade_adopt);
PG_FUNCTION_INFO_V1(cascade_adopt_at);

static void
check_permission(void)
{
	if (!superuser() && !has_rolreplication(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to adopt a node"),
				 errdetail("Only roles with the %s attribute may make replication slots.",
						   "REPLICATION")));
}

/*
 * The row of a node in the tree, the one last heard of if there are several;
 * NULL for none that has said where it is.  This node itself is not meant.
 */
static const CrelayNode *
find_node(const CrelayTree *tree, const char *name)
{
	const CrelayNode *found = NULL;

	for (int i = 0; i < tree->nrows; i++)
	{
		const CrelayNode *node = &tree->nodes[tree->rows[i].node];

		if (!crelay_tree_is_local(tree, &tree->rows[i]) && node->replay_lsn != 0 &&
			strcmp(node->name, name) == 0 &&
			(found == NULL || node->observed_at > found->observed_at))
			found = node;
	}
	return found;
}

/*
 * Where the lowest hold stands, 0 if there is none.  What is held at all is
 * held there, so that a clone taken from any node below can go on from it.
 */
static uint64
lowest_hold(const CrelayDownstream *downstreams, int n)
{
	uint64		lowest = 0;

	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];

		if (d->kind == CRELAY_KIND_HOLD && d->slot_name[0] != '\0' && !d->invalidated &&
			d->restart_lsn != 0 && (lowest == 0 || d->restart_lsn < lowest))
			lowest = d->restart_lsn;
	}
	return lowest;
}

/*
 * The process that streams to that node through that slot, 0 for none.
 */
static int32
streams_through(const CrelayDownstream *downstreams, int n, const char *node_name,
				const char *slot_name)
{
	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];

		if (strcmp(d->slot_name, slot_name) == 0 &&
			(strcmp(d->name, node_name) == 0 ||
			 (!d->managed && strcmp(d->application_name, node_name) == 0)))
			return d->pid;
	}
	return 0;
}

/*
 * From where on WAL has to be kept: as the caller says; else from where the
 * node was last seen; else as low as anything is held.
 */
static uint64
find_need(FunctionCallInfo fcinfo, const CrelayTree *tree, const char *node_name,
		  const CrelayDownstream *downstreams, int n)
{
	const CrelayNode *node;
	uint64		lowest;
	uint64		redo = crelay_hold_redo();

	if (!PG_ARGISNULL(2))
		return PG_GETARG_LSN(2);
	node = find_node(tree, node_name);
	if (node != NULL)
		return node->replay_lsn;
	lowest = lowest_hold(downstreams, n);
	return lowest != 0 ? Min(lowest, redo) : redo;
}

/* ---- what is said ---- */

static char *
lsn_text(uint64 lsn)
{
	return psprintf(CRELAY_LSN_FORMAT, LSN_FORMAT_ARGS(lsn));
}

static void
explain_no_wal(const char *node_name, uint64 need)
{
	uint64		oldest = crelay_read_oldest_wal();

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot adopt node \"%s\": WAL from %s on is not here",
					node_name, lsn_text(need)),
			 errdetail("The oldest WAL file of this server begins at %s.", lsn_text(oldest)),
			 errhint("%s lists the nodes that it can stream from.",
					 "cascade_upstream_candidates")));
}

/*
 * Turns a verdict into the error that says what is missing.
 */
static void
explain(const char *node_name, const CrelayAdoptRequest *request,
		const CrelayAdoptResult *result)
{
	switch (result->verdict)
	{
		case CRELAY_ADOPT_OK:
			return;
		case CRELAY_ADOPT_NOT_PHYSICAL:
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("replication slot \"%s\" is not a persistent physical slot",
							request->slot_name),
					 errhint("Name another slot, or none.")));
			break;
		case CRELAY_ADOPT_INVALIDATED:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("replication slot \"%s\" was invalidated by the server",
							request->slot_name),
					 errhint("Drop it, and try again: SELECT pg_catalog.pg_drop_replication_slot(%s);",
							 quote_literal_cstr(request->slot_name))));
			break;
		case CRELAY_ADOPT_ACTIVE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("replication slot \"%s\" is in use by process %d",
							request->slot_name, result->pid),
					 errdetail("It keeps WAL from %s on; node \"%s\" needs it from %s on.",
							   lsn_text(result->restart_lsn), node_name,
							   lsn_text(request->need)),
					 errhint("Name another slot, or none.")));
			break;
		case CRELAY_ADOPT_NO_FREE_SLOT:
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("cannot adopt node \"%s\": all replication slots are in use",
							node_name),
					 errhint("Drop one that nobody uses, or raise \"%s\" and restart this server.",
							 "max_replication_slots")));
			break;
		case CRELAY_ADOPT_WAL_LEVEL:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot adopt node \"%s\": \"%s\" is too low for replication slots",
							node_name, "wal_level"),
					 errhint("Set it to \"%s\" and restart this server.", "replica")));
			break;
		case CRELAY_ADOPT_NOT_COVERED:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot adopt node \"%s\": WAL from %s on is here, but cannot be kept",
							node_name, lsn_text(request->need)),
					 errdetail("No slot has stood there since before the last checkpoint, so that one that runs now may be removing it."),
					 errhint("If a hold stands there, try again after a checkpoint. Else the node must catch up where it is, as far as %s.",
							 lsn_text(crelay_hold_redo()))));
			break;
		case CRELAY_ADOPT_NO_WAL:
			explain_no_wal(node_name, request->need);
			break;
	}
}

/* ---- arguments ---- */

/*
 * The slot's name, by default one that says that it is ours.
 */
static const char *
choose_slot(FunctionCallInfo fcinfo, const char *node_name)
{
	char		holder[CRELAY_NODE_NAME_MAX + 1];
	uint32		incarnation;
	const char *slot_name;

	if (PG_ARGISNULL(1))
	{
		if (!crelay_node_name_is_valid(node_name))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_NAME),
					 errmsg("\"%s\" is not a node name", node_name),
					 errdetail("A node name has 1 to %d lower case letters, digits and underscores.",
							   CRELAY_NODE_NAME_MAX),
					 errhint("Of a node without cascade_relay, give the name of its slot too.")));
		return psprintf("%s%s", CRELAY_ADOPTED_PREFIX, node_name);
	}
	slot_name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	crelay_slot_check_name(slot_name);
	if (crelay_hold_name_parse(slot_name, holder, &incarnation))
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("replication slot \"%s\" is a hold for node \"%s\"",
						slot_name, holder),
				 errdetail("Nothing may stream through a hold.")));
	return slot_name;
}

static const char *
node_argument(FunctionCallInfo fcinfo)
{
	CrelaySettings settings;
	const char *node_name;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("node_name must not be null")));
	node_name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	crelay_guc_copy(&settings);
	if (strcmp(node_name, settings.node_name) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("node \"%s\" cannot adopt itself", node_name)));
	return node_name;
}

/*
 * Adopts, or raises an error and leaves all as it was.  That the slot's former
 * user is forgotten comes first, because the worker drops a slot whose user has
 * left it; that it is on disk comes before anything is promised.
 */
static void
adopt(const char *node_name, const CrelayAdoptRequest *request,
	  const CrelayPosition *position, CrelayAdoptResult *result)
{
	CrelaySlotMemory before;
	volatile bool written = false;

	crelay_registry_forget_slot(request->slot_name, &before);
	PG_TRY();
	{
		if (before.released_lsn != 0)
			crelay_release_save();
		if (before.user.incarnation != 0)
			crelay_slot_users_save();
		written = true;
		crelay_hold_adopt(request, position, result);
		explain(node_name, request, result);
	}
	PG_CATCH();
	{
		crelay_registry_restore_slot(&before);
		if (written && before.released_lsn != 0)
			crelay_release_try_save();
		if (written && before.user.incarnation != 0)
			crelay_slot_users_try_save();
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * cascade_adopt(node_name text, slot_name text, lsn pg_lsn) returns pg_lsn
 *
 * Makes a slot for that node to stream from here, or makes sure that the one
 * that is there is fit, and returns from where on it keeps WAL.
 */
Datum
cascade_adopt(PG_FUNCTION_ARGS)
{
	CrelayAdoptRequest request = {0};
	CrelayAdoptResult result;
	CrelaySnapshot snapshot;
	CrelayPosition position;
	CrelayDownstream *downstreams;
	CrelayTree *tree;
	const char *node_name;
	int			n;

	check_permission();
	crelay_registry_require();
	node_name = node_argument(fcinfo);
	request.slot_name = choose_slot(fcinfo, node_name);

	tree = crelay_tree_read();
	crelay_registry_snapshot(&snapshot, false);
	downstreams = crelay_downstream_collect(&snapshot, true, &n);
	request.need = find_need(fcinfo, tree, node_name, downstreams, n);
	request.strict = !PG_ARGISNULL(2);
	request.user_pid = streams_through(downstreams, n, node_name, request.slot_name);
	request.covers = crelay_registry_covers(crelay_hold_redo(), request.slot_name,
											&request.ncovers);
	crelay_read_position(&position);
	if (request.need == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is not a position in the WAL", "0/0")));

	adopt(node_name, &request, &position, &result);
	if (result.created || result.moved)
	{
		ereport(LOG,
				(errmsg("cascade_relay: adopted node \"%s\": replication slot \"%s\" keeps WAL from %s on",
						node_name, request.slot_name, lsn_text(result.restart_lsn))));
		crelay_registry_wake_worker();
	}
	PG_RETURN_LSN(result.restart_lsn);
}

/*
 * cascade_adopt_at(node_name text, lsn pg_lsn) returns pg_lsn
 *
 * The same with the slot of the node's name, behind an operator: see the
 * install script.
 */
Datum
cascade_adopt_at(PG_FUNCTION_ARGS)
{
	LOCAL_FCINFO(adopt, 3);
	Datum		lsn;

	InitFunctionCallInfoData(*adopt, fcinfo->flinfo, 3, InvalidOid, NULL, NULL);
	adopt->args[0] = fcinfo->args[0];
	adopt->args[1].value = (Datum) 0;
	adopt->args[1].isnull = true;
	adopt->args[2] = fcinfo->args[1];
	lsn = cascade_adopt(adopt);
	fcinfo->isnull = adopt->isnull;
	return lsn;
}
