/*-------------------------------------------------------------------------
 *
 * lost_holds.c
 *	  Holds that somebody else has dropped, of nodes that are away.
 *
 * Owns, leaves out and locks: see lost_holds.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog_internal.h"
#include "lib/stringinfo.h"
#include "replication/slot.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "decide/message.h"
#include "node/child_hold.h"
#include "node/hold.h"
#include "server/compat.h"
#include "server/state_file.h"
#include "worker/lost_holds.h"

/* How often at most it is tried to place a hold again. */
#define RETRY_US		INT64CONST(1000000)

/* A hold that could not be placed again. */
typedef struct Attempt
{
	char		slot_name[CRELAY_SLOT_LEN];
	TimestampTz at;
	CrelayRefusal reason;		/* NONE: it ended in an error */
} Attempt;

/* A hold as the file has it. */
typedef struct Saved
{
	char		slot_name[CRELAY_SLOT_LEN];
	uint64		lsn;
	uint64		need;			/* of its node, as it last said; 0 unknown */
} Saved;

static Attempt *attempts;
static int	n_attempts;
static Saved *saved;
static int	n_saved;
static uint64 saved_at_redo;

/* ---- the state file: a line for each hold ---- */

/*
 * Reads the holds of the time before the server stopped: slot name, LSN, and the
 * need of its node.  A line that cannot be understood is left out.
 */
static int
read_holds(CrelayHoldNote *notes)
{
	char	   *lines = crelay_state_read(CRELAY_SECTION_HOLD);
	char	   *line;
	int			n = 0;

	StaticAssertStmt(CRELAY_SLOT_LEN == 64, "the width below is that of the buffer");
	while (n < max_replication_slots && (line = crelay_state_next(&lines)) != NULL)
	{
		CrelayHoldNote *note = &notes[n];
		char		node_name[CRELAY_NODE_NAME_MAX + 1];
		uint32		incarnation;
		uint32		high[2];
		uint32		low[2];

		memset(note, 0, sizeof(CrelayHoldNote));
		if (sscanf(line, "%63s %8X/%8X %8X/%8X", note->slot_name, &high[0], &low[0],
				   &high[1], &low[1]) != 5 ||
			!crelay_hold_name_parse(note->slot_name, node_name, &incarnation) ||
			!crelay_node_name_is_valid(node_name))
			continue;
		note->lsn = (uint64) high[0] << 32 | low[0];
		note->need = (uint64) high[1] << 32 | low[1];
		if (note->lsn != 0)
			n++;
	}
	return n;
}

/* Holds that a command of this session takes away. */
static const char *const *left_out;
static int	n_left_out;

static bool
is_left_out(const char *slot_name)
{
	for (int i = 0; i < n_left_out; i++)
	{
		if (strcmp(left_out[i], slot_name) == 0)
			return true;
	}
	return false;
}

static void
render_holds(StringInfo lines)
{
	CrelayHoldNote *notes = palloc_array(CrelayHoldNote, max_replication_slots + 1);
	int			n = crelay_registry_get_notes(notes);

	for (int i = 0; i < n; i++)
	{
		if (notes[i].lsn != 0 && !is_left_out(notes[i].slot_name))
			appendStringInfo(lines, "%s " CRELAY_LSN_FORMAT " " CRELAY_LSN_FORMAT "\n", notes[i].slot_name,
							 LSN_FORMAT_ARGS(notes[i].lsn), LSN_FORMAT_ARGS(notes[i].need));
	}
	pfree(notes);
}

/*
 * Writes down which holds there are but for some, for a command that takes those
 * away next: after a crash they are not missed.  Raises an error if that cannot
 * be done.
 */
void
crelay_missed_save_without(const char *const *slot_names, int n)
{
	left_out = slot_names;
	n_left_out = n;
	PG_TRY();
	{
		crelay_state_write(CRELAY_SECTION_HOLD, render_holds);
	}
	PG_FINALLY();
	{
		n_left_out = 0;
	}
	PG_END_TRY();
}

/*
 * The worker's start.  After one of the server the registry has no notes yet,
 * and gets those of the state file.
 */
void
crelay_missed_start(MemoryContext context, bool new_server)
{
	Size		room = Max(max_replication_slots, 1);
	CrelayHoldNote *notes = palloc_array(CrelayHoldNote, room);
	CrelaySnapshot snapshot;

	attempts = MemoryContextAllocZero(context, sizeof(Attempt) * room);
	saved = MemoryContextAllocZero(context, sizeof(Saved) * room);
	n_attempts = 0;
	n_saved = 0;
	saved_at_redo = 0;
	crelay_registry_snapshot(&snapshot, false);
	if (new_server)
		crelay_registry_publish_notes(notes, read_holds(notes), snapshot.forgotten_seq);
	pfree(notes);
}

/* ---- what there was ---- */

/*
 * Says in a note what a hold keeps, so that it is missed if it goes.  While its
 * node has not called since it was lost and placed again, it needs no less than
 * it did before, but what a bound has given up.
 */
void
crelay_missed_note(const CrelayDownstream *d, const CrelayBounds *bounds,
				   CrelayHoldNote *note)
{
	note->dropped_at = d->dropped_at;
	note->dropped_by_server = d->dropped_by_server;
	note->need = d->reported ? d->reported_frontier : d->remembered_need;
	if (d->own || d->ancestor || d->released_lsn != 0)
		note->lsn = 0;
	else if (d->restart_lsn == 0 || d->invalidated)
		note->lsn = d->missed ? d->remembered_lsn : 0;
	else if (!d->reported && d->remembered_lsn != 0)
		note->lsn = Min(d->restart_lsn, Max(d->remembered_lsn, bounds->floor_lsn));
	else
		note->lsn = d->restart_lsn;
}

static bool
same_holds(const CrelayHoldNote *notes, int n)
{
	int			k = 0;

	for (int i = 0; i < n; i++)
	{
		if (notes[i].lsn == 0)
			continue;
		if (k == n_saved || strcmp(saved[k++].slot_name, notes[i].slot_name) != 0)
			return false;
	}
	return k == n_saved;
}

/*
 * Writes the file when there are other holds than before; for where they stand,
 * with each checkpoint, as the server does, or if all is to be saved.
 */
void
crelay_missed_save(const CrelayHoldNote *notes, int n, bool all)
{
	uint64		redo = crelay_hold_redo();
	bool		moved = false;
	int			k = 0;

	if (!all && redo == saved_at_redo && same_holds(notes, n))
		return;
	if (!same_holds(notes, n))
		moved = true;
	for (int i = 0; i < n && k < max_replication_slots; i++)
	{
		if (notes[i].lsn == 0)
			continue;
		if (saved[k].lsn != notes[i].lsn || saved[k].need != notes[i].need)
			moved = true;
		strlcpy(saved[k].slot_name, notes[i].slot_name, CRELAY_SLOT_LEN);
		saved[k].lsn = notes[i].lsn;
		saved[k++].need = notes[i].need;
	}
	n_saved = k;
	saved_at_redo = redo;
	if (moved)
		(void) crelay_state_keep(CRELAY_SECTION_HOLD, render_holds);
}

/*
 * The worker ends: the next one is to find what is so now.
 */
void
crelay_missed_stop(void)
{
	CrelayHoldNote *notes = palloc_array(CrelayHoldNote, max_replication_slots + 1);

	crelay_missed_save(notes, crelay_registry_get_notes(notes), true);
	pfree(notes);
}

/* ---- placing one again ---- */

static Attempt *
find_attempt(const char *slot_name)
{
	for (int i = 0; i < n_attempts; i++)
	{
		if (strcmp(attempts[i].slot_name, slot_name) == 0)
			return &attempts[i];
	}
	return NULL;
}

/*
 * Remembers an attempt that came to nothing, and says so, unless the one before
 * did for the same reason.  An error was logged by itself.
 */
static void
note_failure(const CrelayDownstream *d, bool error, CrelayRefusal reason, TimestampTz now)
{
	const char *slot_name = d->key;
	Attempt    *attempt = find_attempt(slot_name);
	bool		news = attempt == NULL || attempt->reason != reason;

	if (attempt == NULL)
	{
		/* those of long ago are not missed any more, or soon entered again */
		if (n_attempts == max_replication_slots)
			n_attempts = 0;
		attempt = &attempts[n_attempts++];
		strlcpy(attempt->slot_name, slot_name, sizeof(attempt->slot_name));
	}
	attempt->at = now;
	attempt->reason = reason;
	if (news && !error)
		ereport(LOG,
				(d->invalidated ?
				 errmsg("cascade_relay: hold \"%s\" was invalidated by the server, and cannot be placed again: %s",
						slot_name, crelay_refusal_text(reason)) :
				 errmsg("cascade_relay: hold \"%s\" was dropped by somebody else, and cannot be placed again: %s",
						slot_name, crelay_refusal_text(reason)),
				 errhint("%s", crelay_refusal_hint(reason))));
}

static void
forget_failure(const char *slot_name)
{
	Attempt    *attempt = find_attempt(slot_name);

	if (attempt != NULL)
		*attempt = attempts[--n_attempts];
}

static bool
is_ours(void *arg)
{
	return crelay_registry_is_missed(arg, GetCurrentTimestamp());
}

/*
 * What the node was last known to need: what it has asked for; else what was held
 * for it.
 */
static uint64
wanted_lsn(const CrelayDownstream *d)
{
	return d->reported && d->reported_target != 0 ? d->reported_target : d->remembered_lsn;
}

/*
 * Takes over what has become of it.  If its node was forgotten in the very same
 * moment, it goes again.
 */
static void
settle(CrelayDownstream *d, const CrelayHoldResult *result, TimestampTz now)
{
	forget_failure(d->key);
	crelay_hold_log(d->key, result, true);
	if (!crelay_registry_note_replaced(d->key, result->held_lsn, result->reason,
									   result->replaced, now))
	{
		(void) crelay_hold_drop_try(d->key, crelay_registry_is_forgotten, d->key);
		return;
	}
	strlcpy(d->slot_name, d->key, sizeof(d->slot_name));
	d->restart_lsn = result->held_lsn;
	d->invalidated = false;
	d->missed = false;
	d->dropped_at = now;
	d->dropped_by_server = result->replaced;
}

/*
 * Places a hold again that is missed, by the rules of cascade_report(), unless
 * its node speaks for itself, has been released, is live and protected elsewhere,
 * or is above this one.
 */
void
crelay_missed_place(CrelayDownstream *d, const CrelaySnapshot *snapshot,
					const CrelayPosition *position, TimestampTz now)
{
	const Attempt *before = find_attempt(d->key);
	CrelayChildHold hold;
	CrelayHoldResult result = {0};
	bool		done;

	if (!d->missed || d->own || d->ancestor || d->released_lsn != 0 || d->elsewhere ||
		(before != NULL && now >= before->at && now - before->at < RETRY_US) ||
		!is_ours(d->key))
		return;
	crelay_child_hold_want(&hold, d->key, wanted_lsn(d), position);
	hold.request.again = true;
	hold.request.fence = is_ours;
	hold.request.fence_arg = d->key;
	hold.request.quiet = before != NULL && before->reason == CRELAY_REFUSE_NONE;
	done = crelay_hold_try(&hold.request, position, &result);
	/* its node has called just now, or somebody else has it and will let go */
	if (result.ousted ||
		(result.reason == CRELAY_HELD_BUSY && crelay_hold_is_there(d->key)))
		return;
	/* what stands there and holds nothing does not make up for what is missed */
	if (done && result.held_lsn != 0)
		settle(d, &result, now);
	else
		note_failure(d, !done, result.reason, now);
}
