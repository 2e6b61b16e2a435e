/*-------------------------------------------------------------------------
 *
 * forget_funcs.c
 *	  cascade_forget(): letting go of a node that will not come back.
 *
 * Owns: arguments, what is meant by them, what speaks against it, and what is
 * done in which order.
 *
 * Not here: dropping a slot (hold.c), the tree's rows (registry.c), where the
 * nodes are that were below (departed.c).
 *
 * Locking: none of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlogdefs.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "replication/slot.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "decide/topology.h"
#include "node/downstream.h"
#include "node/hold.h"
#include "node/tree.h"
#include "registry/registry.h"
#include "server/compat.h"
#include "sql/tuple.h"
#include "worker/lost_holds.h"
#include "worker/release.h"

PG_FUNCTION_INFO_V1(cascade_forget);

/* What is known here, and what is asked. */
typedef struct Forget
{
	const char *schema;			/* of the extension, for commands */
	const char *argument;
	const char *name;			/* of the node */
	const char *hold_name;		/* only the life with that hold; or NULL */
	bool		force;
	CrelaySnapshot snapshot;
	CrelayDownstream *downstreams;
	int			n;
	bool		found;
	bool		live;			/* a life of it is live here */
	StringInfoData dropped;		/* slots that are gone already, by name */
} Forget;

/* ---- what is meant ---- */

static const CrelayChild *
child_of(const Forget *forget, const CrelayDownstream *d)
{
	return d->child >= 0 ? &forget->snapshot.children[d->child] : NULL;
}

/*
 * A hold's slot name means that life of its node alone; another slot's name the
 * node that streams through it.
 */
static void
read_argument(Forget *forget)
{
	forget->name = forget->argument;
	for (int i = 0; i < forget->n; i++)
	{
		const CrelayDownstream *d = &forget->downstreams[i];

		if (d->kind == CRELAY_KIND_HOLD && strcmp(d->key, forget->argument) == 0)
		{
			forget->hold_name = d->key;
			forget->name = d->name;
			return;
		}
		if (d->kind == CRELAY_KIND_SLOT && !d->logical && !d->temporary &&
			strcmp(d->slot_name, forget->argument) == 0)
			forget->name = d->name;
	}
}

static bool
is_meant(const Forget *forget, const CrelayDownstream *d)
{
	const CrelayChild *child = child_of(forget, d);

	if (d->logical || d->temporary || d->backup)
		return false;
	/* a local hold goes by its slot's name alone: the node itself is live */
	if (d->own)
		return forget->hold_name != NULL && strcmp(d->key, forget->hold_name) == 0;
	if (forget->hold_name == NULL)
		return strcmp(d->name, forget->name) == 0 ||
			strcmp(d->slot_name, forget->name) == 0;
	return strcmp(d->key, forget->hold_name) == 0 ||
		(child != NULL && strcmp(child->hold_name, forget->hold_name) == 0);
}

/*
 * Whether that downstream is at work here: it streams, or reports.  A node that
 * streams without a word may not be managed any more, so it can be forced to go
 * without its hold.
 */
static bool
is_live(const Forget *forget, const CrelayDownstream *d)
{
	const CrelayChild *child = child_of(forget, d);

	if (child != NULL && child->node.state != CRELAY_STATE_STALE &&
		(child->session_pid != 0 ||
		 (crelay_state_is_live(child->node.state) &&
		  !(forget->force && d->kind == CRELAY_KIND_HOLD))))
		return true;
	return d->kind != CRELAY_KIND_HOLD && d->pid != 0;
}

/*
 * Looks whether there is anything to forget.  What belongs to a life that is
 * live does not count.
 */
static void
look_around(Forget *forget)
{
	bool		gone = false;

	for (int i = 0; i < forget->n; i++)
	{
		const CrelayDownstream *d = &forget->downstreams[i];

		if (!is_meant(forget, d))
			continue;
		forget->found = true;
		if (!is_live(forget, d))
			gone = true;
		else
			forget->live = true;
	}
	for (int i = 0; i < forget->snapshot.nrows; i++)
	{
		const CrelayNode *row = &forget->snapshot.rows[i];

		if (forget->snapshot.row_origins[i] != CRELAY_ORIGIN_UNMANAGED ||
			strcmp(row->name, forget->name) != 0)
			continue;
		forget->found = true;
		if (row->state == CRELAY_STATE_DOWN)
			gone = true;
	}
	if (!forget->found)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("node \"%s\" is not a direct downstream of this node", forget->argument),
				 errhint("Call %s on the node that it streamed from; %s lists the direct downstreams.",
						 "cascade_forget", "cascade_downstreams")));
	if (!gone)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("node \"%s\" is live", forget->name),
				 errdetail("It streams from this node, or reports to it."),
				 forget->force ?
				 errhint("Stop it, or attach it elsewhere, first.") :
				 errhint("Stop it, or attach it elsewhere, first. If it does not report any more, because cascade_relay was taken out: SELECT %s.cascade_forget(%s, true);",
						 forget->schema, quote_literal_cstr(forget->argument))));
}

/* ---- what speaks against it ---- */

static void
add_blocker(StringInfo blockers, const char *name, const char *how)
{
	appendStringInfo(blockers, "%s%s (%s)", blockers->len > 0 ? ", " : "", name, how);
}

/*
 * Why a node that others say is live may need what is kept here.
 */
static const char *
not_safe(const CrelayNode *now)
{
	return now->protected != CRELAY_TRUE ? "not protected where it is" :
		psprintf("seen below \"%s\", its move not confirmed", now->upstream_name);
}

/*
 * What speaks against it if the node that a hold or a slot was made for lives
 * somewhere else: it may be on its way.
 */
static void
find_user(Forget *forget, const CrelayKnown *known, int nknown,
		  const CrelayDownstream *d, int origin, StringInfo blockers)
{
	CrelayNode	node = {0};
	const CrelayNode *now;
	bool		safe;

	strlcpy(node.name, d->name, sizeof(node.name));
	node.incarnation = d->incarnation;
	node.moves = d->moves;
	now = crelay_departed_find(known, nknown, &node, &forget->snapshot.local.node,
							   origin, &safe);
	if (now != NULL && !safe)
		add_blocker(blockers, now->name, not_safe(now));
}

/*
 * Lists the nodes that were last seen below that child, and are not protected
 * elsewhere.
 */
static void
find_blockers(Forget *forget, const CrelayKnown *known, int nknown,
			  const CrelayChild *child, int origin, StringInfo blockers)
{
	const CrelaySnapshot *snapshot = &forget->snapshot;

	for (int i = 0; i < snapshot->nrows + snapshot->ncontested; i++)
	{
		const CrelayNode *row = &snapshot->rows[i];
		const CrelayNode *now;
		bool		safe;

		if (snapshot->row_origins[i] != origin)
			continue;
		now = crelay_departed_find(known, nknown, row, &child->node, origin, &safe);
		if (now == NULL)
			add_blocker(blockers, row->name, crelay_state_text(row->state));
		else if (!safe)
			add_blocker(blockers, row->name, not_safe(now));
	}
}

/*
 * Refuses while somebody may still need what is held for the node.  What it has
 * not said since this server's start is not known, nor what has found no room:
 * there may be anybody below.
 */
static void
require_free(Forget *forget)
{
	StringInfoData blockers;
	CrelayKnown *known;
	int			nknown;

	initStringInfo(&blockers);
	known = crelay_tree_known(&forget->snapshot, &nknown);
	for (int i = 0; i < forget->n; i++)
	{
		const CrelayDownstream *d = &forget->downstreams[i];
		const CrelayChild *child = child_of(forget, d);
		int			origin = child != NULL ? forget->snapshot.child_slots[d->child] :
		CRELAY_ORIGIN_NOBODY;
		bool		knows_below;

		if (!is_meant(forget, d) || is_live(forget, d) || d->own)
			continue;
		if (d->adopted && child == NULL)
			find_user(forget, known, nknown, d, origin, &blockers);
		if (d->kind != CRELAY_KIND_HOLD)
			continue;
		/* a node that has moved vouches for all that is below it */
		if (d->elsewhere)
			continue;
		knows_below = child != NULL && crelay_tree_knows_below(&forget->snapshot, d->child);
		if (!knows_below)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("node \"%s\" cannot be forgotten: it is not known what streamed from it",
							forget->name),
					 child == NULL || !child->has_about ?
					 errdetail("It has not reported since this server was started.") :
					 errdetail("There were more nodes below it than there was room for."),
					 errhint("If all that streamed from it is attached elsewhere: SELECT %s.cascade_forget(%s, true);",
							 forget->schema, quote_literal_cstr(forget->argument))));
		find_user(forget, known, nknown, d, origin, &blockers);
		find_blockers(forget, known, nknown, child, origin, &blockers);
	}
	if (blockers.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" cannot be forgotten: what is held for it may be needed",
						forget->name),
				 errdetail("Not protected elsewhere: %s.", blockers.data),
				 errhint("Attach them elsewhere and wait until they are protected, or give them up: SELECT %s.cascade_forget(%s, true);",
						 forget->schema, quote_literal_cstr(forget->argument))));
}

/* ---- doing it ---- */

/*
 * Returns true if a downstream is a hold, or a slot that cascade_adopt has made,
 * which this call drops.
 */
static bool
is_dropped(const Forget *forget, const CrelayDownstream *d)
{
	if (!is_meant(forget, d) || is_live(forget, d))
		return false;
	return d->kind == CRELAY_KIND_HOLD ||
		(d->kind == CRELAY_KIND_SLOT && d->adopted && !forget->live);
}

static void
refuse_busy(const Forget *forget, const CrelayDownstream *d)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("replication slot \"%s\" of node \"%s\" is in use",
					d->slot_name, forget->name),
			 forget->dropped.len == 0 ? errdetail("Nothing was dropped.") :
			 errdetail("Dropped already, and not undone: %s.", forget->dropped.data),
			 errhint("The node may be coming back. Look at %s, and try again.",
					 "cascade_downstreams")));
}

/*
 * Drops one of them.  A slot that is gone already is what was wanted.
 */
static void
drop_slot(Forget *forget, const CrelayDownstream *d)
{
	CrelayHoldFence fence = d->kind == CRELAY_KIND_HOLD && !d->own ?
	crelay_registry_is_forgotten : NULL;

	if (d->slot_name[0] == '\0')
		return;
	if (!crelay_hold_drop_if(d->slot_name, fence, (void *) d->key))
	{
		if (SearchNamedReplicationSlot(d->slot_name, true) == NULL)
			return;
		refuse_busy(forget, d);
	}
	appendStringInfo(&forget->dropped, "%s\"%s\"", forget->dropped.len > 0 ? ", " : "",
					 d->slot_name);
	ereport(LOG,
			(errmsg("cascade_relay: dropped replication slot \"%s\": node \"%s\" was forgotten",
					d->slot_name, forget->name)));
}

/*
 * Whether it is a slot of the node that others have made, and that keeps WAL:
 * it is theirs to drop.
 */
static bool
is_left(const Forget *forget, const CrelayDownstream *d)
{
	return d->kind == CRELAY_KIND_SLOT && !d->adopted && d->restart_lsn != 0 &&
		is_meant(forget, d) && !is_live(forget, d);
}

/*
 * Lets such slots count no more, and writes down that, and that the holds are
 * gone: a crash brings nothing back.  An error leaves all as it was.
 */
static void
write_down(Forget *forget)
{
	const char **left = palloc_array(const char *, forget->n + 1);
	const char **holds = palloc_array(const char *, forget->n + 1);
	uint64	   *before = palloc_array(uint64, forget->n + 1);
	int			nleft = 0;
	int			nholds = 0;

	for (int i = 0; i < forget->n; i++)
	{
		const CrelayDownstream *d = &forget->downstreams[i];

		if (is_left(forget, d))
		{
			before[nleft] = crelay_registry_released_lsn(d->key);
			left[nleft++] = d->key;
		}
		else if (d->kind == CRELAY_KIND_HOLD && is_dropped(forget, d))
			holds[nholds++] = d->key;
	}
	crelay_registry_require_release(left, nleft, crelay_hold_redo());
	PG_TRY();
	{
		if (nleft > 0)
			crelay_release_save();
		crelay_missed_save_without(holds, nholds);
	}
	PG_CATCH();
	{
		for (int i = 0; i < nleft; i++)
			crelay_registry_restore_release(left[i], before[i]);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static Datum
tell_left(const CrelayDownstream *d)
{
	ereport(NOTICE,
			(errmsg("replication slot \"%s\" still keeps WAL from " CRELAY_LSN_FORMAT " on",
					d->slot_name, LSN_FORMAT_ARGS(d->restart_lsn)),
			 errhint("If nobody will come back for it: SELECT pg_catalog.pg_drop_replication_slot(%s);",
					 quote_literal_cstr(d->slot_name))));
	return CStringGetTextDatum(d->slot_name);
}

/*
 * Forgets the node of a hold, so that a session that ends up late has to
 * introduce itself again, and drops the hold.
 */
static void
forget_hold(Forget *forget, const CrelayDownstream *d)
{
	if (!d->own && !crelay_registry_forget(d->key))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("node \"%s\" is live", forget->name),
				 errdetail("It has just come back.")));
	drop_slot(forget, d);
	/* the worker may have seen the hold in between */
	(void) crelay_registry_forget(d->key);
}

/*
 * Checks first, then writes down, then acts; returns the slots that are left.
 */
static ArrayType *
forget_all(Forget *forget)
{
	Datum	   *left = palloc_array(Datum, forget->n + 1);
	int			nleft = 0;

	initStringInfo(&forget->dropped);
	for (int i = 0; i < forget->n; i++)
	{
		if (is_dropped(forget, &forget->downstreams[i]) && forget->downstreams[i].pid != 0)
			refuse_busy(forget, &forget->downstreams[i]);
	}
	write_down(forget);
	for (int i = 0; i < forget->n; i++)
	{
		const CrelayDownstream *d = &forget->downstreams[i];

		if (d->kind == CRELAY_KIND_HOLD && is_dropped(forget, d))
			forget_hold(forget, d);
	}
	for (int i = 0; i < forget->n; i++)
	{
		const CrelayDownstream *d = &forget->downstreams[i];

		if (is_left(forget, d))
			left[nleft++] = tell_left(d);
		else if (d->kind == CRELAY_KIND_SLOT && is_dropped(forget, d))
			drop_slot(forget, d);
	}
	crelay_registry_forget_unmanaged(forget->name);
	crelay_registry_wake_worker();
	return construct_array(left, nleft, TEXTOID, -1, false, TYPALIGN_INT);
}

/*
 * cascade_forget(node_name text, force bool) returns text[]
 *
 * Lets go of a direct downstream that is not live, and of all that this node
 * knows of it.  Returns the names of the slots that still keep WAL for it, which
 * are not ours to drop.
 */
Datum
cascade_forget(PG_FUNCTION_ARGS)
{
	Forget		forget = {0};

	crelay_registry_require();
	forget.schema = crelay_schema_of(fcinfo->flinfo->fn_oid);
	forget.argument = text_to_cstring(PG_GETARG_TEXT_PP(0));
	forget.force = PG_GETARG_BOOL(1);
	crelay_registry_snapshot(&forget.snapshot, true);
	forget.downstreams = crelay_downstream_collect(&forget.snapshot, true, &forget.n);

	read_argument(&forget);
	look_around(&forget);
	if (!forget.force)
		require_free(&forget);
	PG_RETURN_ARRAYTYPE_P(forget_all(&forget));
}
