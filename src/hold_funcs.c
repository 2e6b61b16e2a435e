/*-------------------------------------------------------------------------
 *
 * hold_funcs.c
 *	  SQL functions that act on holds: cascade_release().
 *
 * Owns: arguments, and what is done in which order.
 *
 * Not here: moving a slot (hold.c), counting again (survey.c).
 *
 * Locking: none of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"

#include "downstream.h"
#include "hold.h"
#include "registry.h"

PG_FUNCTION_INFO_V1(cascade_release);

static bool
is_meant(const CrelayDownstream *d, const char *name)
{
	return (strcmp(d->name, name) == 0 || strcmp(d->slot_name, name) == 0) &&
		!d->own && !d->logical;
}

/*
 * A slot that a managed node streams through stands for that node.
 */
static const char *
node_of_slot(const CrelayDownstream *downstreams, int n, const char *name)
{
	for (int i = 0; i < n; i++)
	{
		if (downstreams[i].managed && downstreams[i].incarnation != 0 &&
			strcmp(downstreams[i].slot_name, name) == 0)
			return downstreams[i].name;
	}
	return name;
}

/*
 * Moves a hold forward to where it was released.
 */
static void
release_hold(const CrelayDownstream *d, uint64 redo, const CrelayPosition *position)
{
	CrelayHoldRequest request = {0};
	CrelayHoldResult result;

	request.slot_name = d->slot_name;
	request.target = redo;
	crelay_hold_apply(&request, position, &result);
	if (result.reason == CRELAY_HELD_BUSY)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("hold \"%s\" is acquired by process %d", d->slot_name, d->pid),
				 errhint("Nothing may stream through a hold; end that process and try again.")));
}

/*
 * cascade_release(node_name text) returns pg_lsn
 *
 * Lets go of what a direct downstream of this node needs: neither its hold nor
 * its slot counts until the node has reached the LSN that is returned, this
 * node's redo pointer, and its hold moves there.
 */
Datum
cascade_release(PG_FUNCTION_ARGS)
{
	const char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	CrelaySnapshot snapshot;
	CrelayDownstream *downstreams;
	CrelayPosition position;
	const char **keys;
	uint64		redo;
	bool		found = false;
	int			nkeys = 0;
	int			n;

	crelay_registry_require();
	crelay_registry_snapshot(&snapshot, false);
	downstreams = crelay_downstream_collect(&snapshot, true, &n);
	crelay_read_position(&position);
	redo = crelay_hold_redo();

	name = node_of_slot(downstreams, n, name);
	keys = palloc_array(const char *, n + 1);
	for (int i = 0; i < n; i++)
	{
		if (!is_meant(&downstreams[i], name))
			continue;
		found = true;
		/* of one that streams through it, its hold counts in its place */
		if (!downstreams[i].managed || downstreams[i].incarnation == 0)
			keys[nkeys++] = downstreams[i].key;
	}
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("node \"%s\" is not a direct downstream of this node", name),
				 errhint("Call %s on the node that it streams from; %s lists the direct downstreams.",
						 "cascade_release", "cascade_downstreams")));
	crelay_registry_require_release(keys, nkeys, redo);
	for (int i = 0; i < n; i++)
	{
		if (is_meant(&downstreams[i], name) && downstreams[i].kind == CRELAY_KIND_HOLD &&
			downstreams[i].restart_lsn != 0)
			release_hold(&downstreams[i], redo, &position);
	}
	PG_RETURN_LSN(redo);
}
