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
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"

#include "node/downstream.h"
#include "node/hold.h"
#include "registry/registry.h"
#include "worker/release.h"

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
 * A release in progress: what it is about, and the LSNs of former releases, for
 * undoing it.
 */
typedef struct Release
{
	const CrelayDownstream **holds;
	int			nholds;
	const char **keys;
	uint64	   *before;
	int			nkeys;
	uint64		redo;
} Release;

static void
undo(const Release *release)
{
	for (int i = 0; i < release->nkeys; i++)
		crelay_registry_restore_release(release->keys[i], release->before[i]);
}

static void
refuse_busy(const CrelayDownstream *hold, const char *moved)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 hold->pid != 0 ?
			 errmsg("hold \"%s\" is acquired by process %d", hold->slot_name, hold->pid) :
			 errmsg("hold \"%s\" is acquired by another process", hold->slot_name),
			 moved[0] == '\0' ? errdetail("Nothing was released.") :
			 errdetail("Released already, and not undone: %s.", moved),
			 errhint("Nothing may stream through a hold; end that process and try again.")));
}

/*
 * Moves the holds forward to where they were released.  One that another process
 * has acquired since it was looked at ends that.
 */
static void
move_holds(Release *release, const CrelayPosition *position)
{
	StringInfoData moved;

	initStringInfo(&moved);
	for (int i = 0; i < release->nholds; i++)
	{
		CrelayHoldRequest request = {0};
		CrelayHoldResult result;

		request.slot_name = release->holds[i]->slot_name;
		request.target = release->redo;
		crelay_hold_apply(&request, position, &result);
		if (result.reason == CRELAY_HELD_BUSY)
			refuse_busy(release->holds[i], moved.data);
		appendStringInfo(&moved, "%s%s", moved.len > 0 ? ", " : "", request.slot_name);
	}
}

/*
 * All checks come first.  Then the release is written down, and last the holds
 * move; an error before that leaves all as it was.
 */
static void
carry_out(Release *release, const CrelayPosition *position)
{
	for (int i = 0; i < release->nholds; i++)
	{
		if (release->holds[i]->pid != 0)
			refuse_busy(release->holds[i], "");
	}
	for (int i = 0; i < release->nkeys; i++)
		release->before[i] = crelay_registry_released_lsn(release->keys[i]);
	crelay_registry_require_release(release->keys, release->nkeys, release->redo);
	PG_TRY();
	{
		crelay_release_save();
		move_holds(release, position);
	}
	PG_CATCH();
	{
		undo(release);
		PG_RE_THROW();
	}
	PG_END_TRY();
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
	Release		release = {0};
	bool		found = false;
	int			n;

	crelay_registry_require();
	crelay_registry_snapshot(&snapshot, false);
	downstreams = crelay_downstream_collect(&snapshot, true, &n);
	crelay_read_position(&position);
	release.redo = crelay_hold_redo();
	release.keys = palloc_array(const char *, n + 1);
	release.before = palloc_array(uint64, n + 1);
	release.holds = palloc_array(const CrelayDownstream *, n + 1);

	name = node_of_slot(downstreams, n, name);
	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];

		if (!is_meant(d, name))
			continue;
		found = true;
		/* of one that streams through it, its hold counts in its place */
		if (!d->managed || d->incarnation == 0)
			release.keys[release.nkeys++] = d->key;
		if (d->kind == CRELAY_KIND_HOLD && d->restart_lsn != 0)
			release.holds[release.nholds++] = d;
	}
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("node \"%s\" is not a direct downstream of this node", name),
				 errhint("Call %s on the node that it streams from; %s lists the direct downstreams.",
						 "cascade_release", "cascade_downstreams")));
	carry_out(&release, &position);
	PG_RETURN_LSN(release.redo);
}
