/*-------------------------------------------------------------------------
 *
 * test_check.c
 *	  Tests of the findings of cascade_check, as a plain program that prints
 *	  TAP.
 *
 * Owns: what check.h promises, seen from outside.  One healthy cascade,
 *
 *		p -- i -- l
 *
 * seen by p or by i, about which there is nothing to say; and a table of
 * things that happen to it, with the findings that must come of each and no
 * other.  Every case begins with the healthy one, so each code is shown to be
 * there and to be gone.
 *
 *	  cc -std=gnu99 -Isrc -It/unit -g -fsanitize=address,undefined \
 *		  t/unit/test_check.c src/check.c -o test_check && ./test_check
 *
 *-------------------------------------------------------------------------
 */
#include "decide/check.h"
#include "tap.h"

#include <stdlib.h>
#include <time.h>

#define NOW			INT64_C(800000000000000)
#define SECOND		INT64_C(1000000)
#define MB			UINT64_C(1048576)
#define LSN(mb)		((uint64_t) (mb) * MB)
#define STALE		(30 * SECOND)
#define LONG		(CRELAY_LONG_TIMEOUTS * STALE)

enum
{
	P, I, L, X, MAX_ROWS
};

/* What is seen, and everything that it points to. */
typedef struct Scene
{
	CrelayCheckFacts facts;
	CrelayNode	nodes[MAX_ROWS];
	CrelayCheckRow rows[MAX_ROWS];
	const CrelayCheckRow *by_name[MAX_ROWS];
	const CrelayCheckRow *by_address[MAX_ROWS];
	const CrelayCheckRow *feedback_below[MAX_ROWS];
	CrelayDownstream downstreams[4];
	CrelayCheckChild children[2];
} Scene;

static void
put_name(char *to, const char *name)
{
	snprintf(to, CRELAY_NAME_LEN, "%s", name);
}

static void
put_version(CrelayNode *node, const char *version)
{
	snprintf(node->version, CRELAY_VERSION_LEN, "%s", version);
}

static void
set_pin(CrelayPin *pin, CrelayPinKind kind, const char *by, const char *on, const char *slot)
{
	pin->kind = kind;
	put_name(pin->by, by);
	snprintf(pin->on, sizeof(pin->on), "%s", on);
	snprintf(pin->slot, sizeof(pin->slot), "%s", slot);
}

static void
add_row(Scene *s, int at, const char *name, int upstream)
{
	CrelayNode *node = &s->nodes[at];

	put_name(node->name, name);
	node->incarnation = (uint32_t) at + 1;
	node->managed = true;
	node->observed_at = NOW - SECOND;
	put_version(node, "1.9");
	node->protected = CRELAY_TRUE;
	node->timeline = 1;
	node->frontier_lsn = LSN(100);
	set_pin(&node->pin, CRELAY_PIN_NODE, name, name, "");
	s->rows[at].node = node;
	s->rows[at].fed_by = upstream < 0 ? "unknown" : s->nodes[upstream].name;
	if (upstream < 0)
	{
		node->role = CRELAY_ROLE_PRIMARY;
		s->rows[at].state = CRELAY_STATE_RUNNING;
	}
	else
	{
		node->role = CRELAY_ROLE_STANDBY;
		put_name(node->upstream_name, s->nodes[upstream].name);
		node->upstream_incarnation = s->nodes[upstream].incarnation;
		node->hot_standby_feedback = CRELAY_FALSE;
		s->rows[at].state = CRELAY_STATE_STREAMING;
		s->rows[at].depth = s->rows[upstream].depth + 1;
	}
	s->facts.nrows = at + 1;
}

/* A node's hold and the slot that it streams through. */
static void
add_child(Scene *s, int of)
{
	CrelayDownstream *hold = &s->downstreams[0];
	CrelayDownstream *slot = &s->downstreams[1];

	hold->kind = CRELAY_KIND_HOLD;
	put_name(hold->name, s->nodes[of].name);
	snprintf(hold->slot_name, sizeof(hold->slot_name), "cascade_relay_%s_%08x",
			 s->nodes[of].name, (unsigned) s->nodes[of].incarnation);
	hold->incarnation = s->nodes[of].incarnation;
	hold->restart_lsn = LSN(98);
	hold->reported = true;
	hold->reported_frontier = LSN(100);
	hold->reported_target = LSN(98);
	hold->counted = true;
	set_pin(&hold->pin, CRELAY_PIN_NODE, s->nodes[of].name, s->nodes[of].name, "");

	slot->kind = CRELAY_KIND_SLOT;
	put_name(slot->name, s->nodes[of].name);
	snprintf(slot->slot_name, sizeof(slot->slot_name), "%s", s->nodes[of].name);
	slot->incarnation = s->nodes[of].incarnation;
	slot->managed = true;
	slot->pid = 4711;
	slot->restart_lsn = LSN(100);
	s->facts.ndownstreams = 2;
	s->children[0].held = true;
}

/* An idle slot that keeps WAL. */
static CrelayDownstream *
add_slot(Scene *s, const char *name)
{
	CrelayDownstream *slot = &s->downstreams[s->facts.ndownstreams++];

	put_name(slot->name, name);
	snprintf(slot->slot_name, sizeof(slot->slot_name), "%s", name);
	slot->kind = CRELAY_KIND_SLOT;
	slot->child = -1;
	slot->counted = true;
	slot->restart_lsn = LSN(90);
	return slot;
}

static void
set_healthy(Scene *s, int local)
{
	CrelayCheckFacts *facts = &s->facts;

	memset(s, 0, sizeof(Scene));
	add_row(s, P, "p", -1);
	add_row(s, I, "i", P);
	s->nodes[I].replica_class = CRELAY_CLASS_VOTING;
	add_row(s, L, "l", I);
	add_child(s, local == P ? I : L);
	s->rows[local].local = true;

	facts->now = NOW;
	facts->stale_after = STALE;
	facts->started_at = NOW - 1000 * LONG;
	facts->segment_size = MB;
	facts->schema = "cr";
	facts->lsn_digits = 1;
	facts->can_hold = true;
	facts->name = s->nodes[local].name;
	facts->incarnation = s->nodes[local].incarnation;
	facts->version = "1.9";
	facts->sql_version = "1.9";
	facts->server_version = 180006;
	facts->at_work = true;
	facts->passed_at = NOW - SECOND;
	facts->in_recovery = local != P;
	facts->enabled = true;
	facts->slots_used = 2;
	facts->slots_total = 10;
	facts->own_lsn = LSN(100);
	facts->frontier_lsn = LSN(100);
	set_pin(&facts->pin, CRELAY_PIN_NODE, facts->name, facts->name, "");
	facts->xmin_pinned_by = "";
	facts->size_limit = 80 * MB;
	facts->max_wal_size = 10 * MB;
	facts->has_target = local != P;
	facts->heard_at = NOW - SECOND;
	facts->upstream_held_lsn = LSN(98);
	facts->last_error = "";
	facts->held_text = "";
	facts->held_hint = "";
	facts->rows = s->rows;
	facts->downstreams = s->downstreams;
	facts->children = s->children;
	facts->by_name = s->by_name;
	facts->by_address = s->by_address;
	facts->feedback_below = s->feedback_below;
}

/* ---- what can happen ---- */

/* A node is not connected any more. */
static void
leave(Scene *s, int at, int64_t ago)
{
	s->rows[at].state = CRELAY_STATE_DOWN;
	s->nodes[at].observed_at = NOW - ago;
	if (strcmp(s->downstreams[0].name, s->nodes[at].name) == 0)
	{
		s->downstreams[1].pid = 0;
		s->children[0].away = true;
	}
}

static void
healthy(Scene *s)
{
}

static void
no_worker(Scene *s)
{
	s->facts.at_work = false;
	/* nothing of this is believed then */
	s->nodes[I].protected = CRELAY_FALSE;
	s->facts.slots_used = 10;
}

static void
stuck_worker(Scene *s)
{
	s->facts.passed_at = NOW - STALE - SECOND;
	s->facts.last_error = "could not open directory \"pg_wal\": Permission denied";
	s->facts.last_error_at = NOW - SECOND;
}

/* It does not fail, it does not get on; what there is to read is old. */
static void
hanging_worker(Scene *s)
{
	stuck_worker(s);
	s->facts.last_error_at = s->facts.passed_at;
}

/* It may have been the server that was not there. */
static void
late_worker(Scene *s)
{
	s->facts.passed_at = NOW - STALE - SECOND;
	s->facts.started_at = NOW - STALE;
}

static void
lacks_extension(Scene *s)
{
	s->facts.refused = true;
	s->facts.lacks_extension = true;
	s->facts.last_error = "extension \"cascade_relay\" does not exist HINT: Run CREATE EXTENSION.";
}

static void
refused(Scene *s)
{
	s->facts.refused = true;
	s->facts.last_error = "it is another cluster";
}

static void
refused_above(Scene *s)
{
	s->nodes[I].warnings = CRELAY_WARN_UPSTREAM_REFUSED;
}

static void
refused_long_ago(Scene *s)
{
	refused_above(s);
	leave(s, I, SECOND);
}

static void
silent(Scene *s)
{
	s->facts.waiting = true;
	s->facts.heard_at = NOW - STALE - SECOND;
	s->facts.last_error = "connection refused HINT: Is it there?";
}

static void
silent_for_a_moment(Scene *s)
{
	s->facts.waiting = true;
	s->facts.heard_at = NOW - STALE;
}

static void
never_heard(Scene *s)
{
	s->facts.waiting = true;
	s->facts.heard_at = 0;
}

static void
just_started(Scene *s)
{
	never_heard(s);
	s->facts.started_at = NOW - STALE;
	/* a managed child that has not called yet */
	leave(s, L, 0);
	s->nodes[L].observed_at = 0;
	/* a slot that its node has not come back to */
	add_slot(s, "x");
}

static void
old_news_but_connected(Scene *s)
{
	s->facts.heard_at = NOW - LONG;
}

/* The worker of i was stopped: its sessions answer. */
static void
old_root(Scene *s)
{
	s->facts.ndownstreams = 0;
	s->facts.answers = true;
	s->facts.root_known = false;
	s->facts.root_age = STALE + SECOND;
	s->facts.path_interval_ms = 3000;
	s->rows[I].state = CRELAY_STATE_STALE;
	s->nodes[I].observed_at = NOW - STALE - SECOND;
}

static void
slow_root(Scene *s)
{
	old_root(s);
	s->facts.path_interval_ms = 30000;
	s->rows[I].state = CRELAY_STATE_STREAMING;
}

static void
root_out_of_reach(Scene *s)
{
	old_root(s);
	s->rows[I].state = CRELAY_STATE_STREAMING;
	s->nodes[I].observed_at = NOW - SECOND;
	s->nodes[I].warnings = CRELAY_WARN_UPSTREAM_SILENT;
}

static void
mute_child(Scene *s)
{
	s->nodes[I].observed_at = NOW - STALE - SECOND;
}

static void
slow_child(Scene *s)
{
	mute_child(s);
	s->nodes[I].path_interval_ms = 11000;
}

static void
silent_above(Scene *s)
{
	s->nodes[I].warnings = CRELAY_WARN_UPSTREAM_SILENT;
}
static void
disabled(Scene *s)
{
	s->facts.enabled = false;
}
static void
no_target(Scene *s)
{
	s->facts.has_target = false;
}

static void
told_of_duplicate(Scene *s)
{
	s->nodes[L].warnings = CRELAY_WARN_DUPLICATE_NAME;
}

static void
namesake(Scene *s)
{
	add_row(s, X, "l", P);
}

static void
rebuilt(Scene *s)
{
	namesake(s);
	leave(s, L, SECOND);
}

static void
unmanaged_namesake(Scene *s)
{
	add_row(s, X, "l", P);
	s->nodes[X].incarnation = 0;
	s->nodes[X].managed = false;
}

static void
elsewhere(Scene *s)
{
	put_name(s->nodes[L].upstream_name, "p");
	s->nodes[L].warnings = CRELAY_WARN_REPORTS_ELSEWHERE;
}

static void
was_elsewhere(Scene *s)
{
	elsewhere(s);
	leave(s, L, STALE + SECOND);
}

static void
one_address(Scene *s)
{
	snprintf(s->nodes[P].conninfo, CRELAY_CONNINFO_LEN, "host=a port=1");
	snprintf(s->nodes[I].conninfo, CRELAY_CONNINFO_LEN, "host=b");
	snprintf(s->nodes[L].conninfo, CRELAY_CONNINFO_LEN, "host=a port=1");
}

static void
was_at_one_address(Scene *s)
{
	one_address(s);
	leave(s, L, STALE + SECOND);
}

static void
cyclic(Scene *s)
{
	s->rows[I].state = CRELAY_STATE_CYCLE;
	s->nodes[L].warnings = CRELAY_WARN_CYCLE;
}

static void
diverged(Scene *s)
{
	s->rows[I].state = CRELAY_STATE_DIVERGED;
}

static void
voting(Scene *s)
{
	s->rows[L].voting_cascades = true;
}

static void
unprotected(Scene *s)
{
	s->nodes[L].protected = CRELAY_FALSE;
}
static void
unprotected_unknown(Scene *s)
{
	s->nodes[L].protected = CRELAY_UNKNOWN;
}

static void
unprotected_away(Scene *s)
{
	unprotected(s);
	leave(s, L, SECOND);
}

static void
unprotected_and_rebuilt(Scene *s)
{
	unprotected_away(s);
	namesake(s);
}

/* Whoever else has the name of a slot says nothing of its node. */
static void
unmanaged_unprotected_away(Scene *s)
{
	unprotected_and_rebuilt(s);
	s->nodes[L].managed = false;
	s->nodes[L].incarnation = 0;
}

static void
unprotected_here(Scene *s)
{
	s->nodes[I].protected = CRELAY_FALSE;
	s->facts.held_text = "the WAL that this node needs is not there";
	s->facts.held_hint = "It will be.";
}

static void
one_slot(Scene *s)
{
	s->facts.slots_used = 9;
}
static void
two_slots(Scene *s)
{
	s->facts.slots_used = 8;
}
static void
no_slot(Scene *s)
{
	s->facts.slots_used = 10;
}

static void
no_slots_needed(Scene *s)
{
	s->facts.slots_used = 0;
	s->facts.slots_total = 0;
}

static void
no_slot_for(Scene *s)
{
	s->nodes[I].warnings = CRELAY_WARN_NO_FREE_SLOT;
}

/* Another leaf below i, and that many places on p. */
static void
places(Scene *s, int senders, int slots)
{
	add_row(s, X, "x", I);
	s->nodes[P].room.known = true;
	s->nodes[P].room.senders = (uint16_t) senders;
	s->nodes[P].room.slots = (uint16_t) slots;
}

/* The walsender of i is free once i is gone. */
static void
two_places(Scene *s)
{
	places(s, 1, 3);
}

static void
one_sender(Scene *s)
{
	places(s, 0, 9);
}

static void
one_sender_above(Scene *s)
{
	one_sender(s);
	s->facts.ndownstreams = 0;
}

static void
one_slot_for_two(Scene *s)
{
	places(s, 9, 1);
}

/* Each managed node takes a hold too, but for the last slot. */
static void
slots_for_two(Scene *s)
{
	places(s, 9, 2);
}

static void
one_place_and_one_away(Scene *s)
{
	places(s, 0, 9);
	s->rows[X].state = CRELAY_STATE_DOWN;
}

static void
places_unknown(Scene *s)
{
	places(s, 0, 0);
	s->nodes[P].room.known = false;
}

static void
drops(Scene *s)
{
	s->nodes[I].warnings = CRELAY_WARN_HOLD_DROPPED;
}

static void
dropped_while_away(Scene *s)
{
	leave(s, I, SECOND);
	s->downstreams[0].slot_name[0] = '\0';
	s->downstreams[0].restart_lsn = 0;
}

/* of a node of which nothing was known but that hold */
static void
dropped_after_restart(Scene *s)
{
	dropped_while_away(s);
	s->downstreams[0].child = -1;
	s->downstreams[0].missed = true;
}

/* placed again by the worker, where it was; the node's row says so */
static void
placed_again(Scene *s)
{
	leave(s, I, SECOND);
	s->downstreams[0].dropped_at = s->facts.now;
	s->downstreams[0].restart_lsn = LSN(96);
	s->downstreams[0].reported = true;
	s->downstreams[0].reported_frontier = LSN(97);
	s->nodes[I].warnings = CRELAY_WARN_HOLD_DROPPED;
}

static void
placed_too_high(Scene *s)
{
	placed_again(s);
	s->downstreams[0].restart_lsn = LSN(99);
}

static void
placed_too_high_after_restart(Scene *s)
{
	placed_too_high(s);
	s->downstreams[0].child = -1;
	s->downstreams[0].reported = false;
	s->downstreams[0].remembered_lsn = LSN(96);
}

static void
placed_high_enough_after_restart(Scene *s)
{
	placed_too_high_after_restart(s);
	s->downstreams[0].remembered_need = LSN(99);
}

static void
placed_again_and_rebuilt(Scene *s)
{
	placed_too_high(s);
	add_row(s, X, "i", P);
}

static void
dropped_just_now(Scene *s)
{
	dropped_while_away(s);
	s->rows[I].state = CRELAY_STATE_STREAMING;
	s->children[0].away = false;
}

static void
never_held(Scene *s)
{
	dropped_while_away(s);
	s->children[0].held = false;
}

static void
dropped_and_released(Scene *s)
{
	dropped_while_away(s);
	s->downstreams[0].released_lsn = UINT64_MAX;
}

static void
dropped_and_rebuilt(Scene *s)
{
	dropped_while_away(s);
	add_row(s, X, "i", P);
}

static void
invalidated_while_away(Scene *s)
{
	leave(s, I, SECOND);
	s->downstreams[0].invalidated = true;
	s->downstreams[0].child = -1;
}

/* and was placed again: the bit says whose work it was */
static void
invalidated(Scene *s)
{
	s->nodes[I].warnings = CRELAY_WARN_HOLD_INVALIDATED;
}

/* a slot of a node without cascade_relay */
static CrelayDownstream *
lost(Scene *s)
{
	CrelayDownstream *slot = add_slot(s, "x");

	slot->restart_lsn = 0;
	slot->invalidated = true;
	slot->invalidated_by = "max_slot_wal_keep_size";
	return slot;
}

static void
lost_for_good(Scene *s)
{
	(void) lost(s);
}

static void
lost_and_asked_for(Scene *s)
{
	lost(s)->remembered_lsn = LSN(90);
}

static void
lost_by_a_child(Scene *s)
{
	lost(s)->incarnation = 3;
}

static void
lost_and_released(Scene *s)
{
	lost(s)->released_lsn = UINT64_MAX;
}

/* max_slot_wal_keep_size is less than a segment */
static void
cannot_hold(Scene *s)
{
	invalidated_while_away(s);
	s->facts.can_hold = false;
}

static void
needs_not_hold(Scene *s)
{
	cannot_hold(s);
	s->facts.ndownstreams = 0;
}

static void
clamped(Scene *s)
{
	s->downstreams[0].clamped = true;
	s->downstreams[0].restart_lsn = LSN(99);
}

static void
clamped_for_good(Scene *s)
{
	clamped(s);
	s->downstreams[0].reported_frontier = LSN(99) - 1;
	set_pin(&s->downstreams[0].pin, CRELAY_PIN_NODE, "l", "l", "");
}

static void
just_clamped_for_good(Scene *s)
{
	clamped(s);
	s->downstreams[0].reported_frontier = LSN(99);
}

static void
clamped_not_counted(Scene *s)
{
	clamped_for_good(s);
	s->downstreams[0].counted = false;
}

/* It joined further behind: that no hold was there is nobody's bound. */
static void
just_not_clamped(Scene *s)
{
	clamped_for_good(s);
	s->downstreams[0].clamped = false;
}

static void
clamped_before_it_called(Scene *s)
{
	clamped(s);
	leave(s, I, SECOND);
	s->downstreams[0].reported = false;
	s->downstreams[0].reported_frontier = 0;
	s->downstreams[0].reported_target = 0;
}

static void
near_limit(Scene *s)
{
	s->downstreams[0].restart_lsn = LSN(40) - 1;
}

static void
just_not_near_limit(Scene *s)
{
	s->downstreams[0].restart_lsn = LSN(40);
}

static void
near_no_limit(Scene *s)
{
	near_limit(s);
	s->facts.size_limit = -1;
	s->facts.disk.known = true;
	s->facts.disk.left = 99 * MB;
}

/* The disk of which 20 MB are to stay free leaves so much for holds. */
static void
disk(Scene *s, int64_t left)
{
	s->facts.disk.known = true;
	s->facts.disk.reserve = 20 * MB;
	s->facts.disk.free = 33 * MB;
	s->facts.disk.left = left;
	s->downstreams[0].restart_lsn = LSN(90) - 1;
}

static void
disk_hardly(Scene *s)
{
	disk(s, 10 * MB - 1);
}

static void
disk_enough(Scene *s)
{
	disk(s, 10 * MB);
}

static void
disk_hardly_for_little(Scene *s)
{
	disk_hardly(s);
	s->downstreams[0].restart_lsn++;
}

static void
disk_none(Scene *s)
{
	disk(s, -1);
	s->facts.disk.floor_lsn = LSN(30);
}

/* something else keeps the WAL, so that no hold is given up for it */
static void
disk_kept(Scene *s)
{
	disk(s, -1);
	s->facts.disk.kept_by = CRELAY_KEPT_BY_ARCHIVER;
}

static void
disk_kept_in_part(Scene *s)
{
	disk_none(s);
	clamped_for_good(s);
	s->downstreams[0].clamped_by_disk = true;
	s->facts.disk.kept_by = CRELAY_KEPT_BY_SLOT;
	snprintf(s->facts.disk.kept_slot, sizeof(s->facts.disk.kept_slot), "other");
}

static void
disk_none_without_holds(Scene *s)
{
	disk_none(s);
	s->facts.ndownstreams = 0;
}

static void
disk_given_up(Scene *s)
{
	disk_none(s);
	clamped_for_good(s);
	s->downstreams[0].clamped_by_disk = true;
}

static void
disk_given_up_once(Scene *s)
{
	disk_given_up(s);
	s->facts.disk.left = 10 * MB;
}

/* What another bound has cost is not the disk's fault. */
static void
disk_none_but_size_given_up(Scene *s)
{
	disk_given_up(s);
	s->downstreams[0].clamped_by_disk = false;
}

static void
silent_for(Scene *s, int64_t silent)
{
	s->facts.hold_timeout = 100 * SECOND;
	s->downstreams[0].silent = silent;
}

static void
half_timed_out(Scene *s)
{
	silent_for(s, 50 * SECOND + 1);
}

static void
not_half_timed_out(Scene *s)
{
	silent_for(s, 50 * SECOND);
}

static void
timed_out(Scene *s)
{
	silent_for(s, 100 * SECOND);
	s->downstreams[0].released_lsn = UINT64_MAX;
	s->downstreams[0].counted = false;
}

static void
timed_out_in_vain(Scene *s)
{
	silent_for(s, 100 * SECOND);
}

static void
half_timed_out_without_hold(Scene *s)
{
	half_timed_out(s);
	s->downstreams[0].slot_name[0] = '\0';
}

static void
timed_out_without_hold(Scene *s)
{
	timed_out(s);
	s->downstreams[0].slot_name[0] = '\0';
	s->downstreams[0].lapsed_lsn = s->downstreams[0].released_lsn;
}

static void
timed_out_elsewhere(Scene *s)
{
	timed_out(s);
	s->downstreams[0].elsewhere = true;
}

static void
no_timeout(Scene *s)
{
	timed_out(s);
	s->facts.hold_timeout = 0;
}

static void
clamped_here(Scene *s)
{
	s->nodes[I].warnings = CRELAY_WARN_HOLD_CLAMPED;
}

static void
clamped_for_good_here(Scene *s)
{
	clamped_here(s);
	s->facts.frontier_lsn = LSN(90);
}

static void
clamped_for_good_below(Scene *s)
{
	s->nodes[L].warnings = CRELAY_WARN_HOLD_CLAMPED;
	s->nodes[L].protected = CRELAY_FALSE;
}

static void
pinned(Scene *s)
{
	set_pin(&s->facts.pin, CRELAY_PIN_NODE, "l", "l", "");
	s->facts.frontier_lsn = LSN(90);
	s->facts.pinned_since = NOW - LONG - 1;
}

static void
pinned_not_long(Scene *s)
{
	pinned(s);
	s->facts.pinned_since = NOW - LONG;
}

/* More than max_wal_size. */
static CrelayDownstream *
add_big_slot(Scene *s, const char *name)
{
	CrelayDownstream *slot = add_slot(s, name);

	slot->restart_lsn = LSN(80);
	return slot;
}

static void
big_logical(Scene *s)
{
	add_big_slot(s, "debezium")->logical = true;
}

static void
big_ignored(Scene *s)
{
	add_big_slot(s, "barman")->ignored = true;
}

static void
big_in_use(Scene *s)
{
	big_logical(s);
	s->downstreams[2].pid = 4711;
}

static void
big_unknown(Scene *s)
{
	add_big_slot(s, "forgotten");
}

static void
big_own_hold(Scene *s)
{
	CrelayDownstream *hold = add_big_slot(s, "p");

	hold->kind = CRELAY_KIND_HOLD;
	hold->ancestor = true;
	hold->incarnation = 9;
}

static void
own_double(Scene *s)
{
	static const CrelayRefused refused = {
		.incarnation = 9,.is_double = true,.name = "p",.addr = "10.0.0.9"
	};

	s->facts.nturned_away = 1;
	s->facts.turned_away = &refused;
}

static void
double_of_child(Scene *s)
{
	static const CrelayRefused refused = {
		.incarnation = 2,.is_double = true,.name = "x",.addr = "10.0.0.9"
	};

	s->facts.nturned_away = 1;
	s->facts.turned_away = &refused;
}

static void
foreigner(Scene *s)
{
	static const CrelayRefused refused = {
		.incarnation = 9,.is_foreign = true,.name = "p",.addr = "10.0.0.9"
	};

	s->facts.nturned_away = 1;
	s->facts.turned_away = &refused;
}

static void
open_schema(Scene *s)
{
	s->facts.schema_open_to = "joe";
}

static void
unknown_slot(Scene *s)
{
	add_slot(s, "forgotten");
}
static void
unknown_slot_in_use(Scene *s)
{
	add_slot(s, "x")->pid = 1;
}
static void
unknown_slot_ignored(Scene *s)
{
	add_slot(s, "x")->ignored = true;
}
static void
unknown_slot_logical(Scene *s)
{
	add_slot(s, "x")->logical = true;
}
static void
unknown_slot_temporary(Scene *s)
{
	add_slot(s, "x")->temporary = true;
}
static void
unknown_slot_unreserved(Scene *s)
{
	add_slot(s, "x")->restart_lsn = 0;
}
static void
unknown_slot_new(Scene *s)
{
	add_slot(s, "x")->restart_lsn = LSN(100);
}

static void
own_hold(Scene *s)
{
	CrelayDownstream *hold = add_slot(s, "cascade_relay_i_00000002");

	hold->kind = CRELAY_KIND_HOLD;
	hold->own = true;
	hold->incarnation = 2;
	put_name(hold->name, "gone");
}

static void
slot_of_moved(Scene *s)
{
	add_slot(s, "l");
}
static void
slot_beside(Scene *s)
{
	add_slot(s, "i");
}

static void
slot_of_known(Scene *s)
{
	leave(s, I, SECOND);
	s->downstreams[1].restart_lsn = LSN(90);
}

static void
hold_of_moved(Scene *s)
{
	/* p's child has gone below somebody else */
	s->downstreams[1].pid = 0;
	s->nodes[I].upstream_incarnation = 99;
}

static void
hold_of_claimed(Scene *s)
{
	hold_of_moved(s);
	put_name(s->downstreams[0].claimed_by, "h");
}

static void
hold_of_former(Scene *s)
{
	rebuilt(s);
	add_slot(s, "cascade_relay_l_00000003");
	put_name(s->downstreams[2].name, "l");
	s->downstreams[2].kind = CRELAY_KIND_HOLD;
	s->downstreams[2].incarnation = 3;
}

/* This node was called l before, in another incarnation. */
static const CrelayLife former_l = {"l", 3};

static void
hold_of_own_former_life(Scene *s)
{
	CrelayDownstream *hold = add_slot(s, "cascade_relay_p_000000ff");

	hold->kind = CRELAY_KIND_HOLD;
	hold->own = true;
	hold->former = true;
	hold->counted = false;
}

static void
row_of_own_former_life(Scene *s)
{
	s->facts.nformer = 1;
	s->facts.former = &former_l;
}

static void
other_former_life(Scene *s)
{
	static const CrelayLife other = {"l", 77};

	s->facts.nformer = 1;
	s->facts.former = &other;
}

static void
local_hold_high(Scene *s)
{
	s->facts.local_hold_high_since = NOW - STALE;
	s->facts.tree_hold_lsn = LSN(90);
}

static void
local_hold_high_for_a_moment(Scene *s)
{
	local_hold_high(s);
	s->facts.local_hold_high_since = NOW - STALE + SECOND;
}

static void
asynchronous(Scene *s)
{
	s->nodes[I].replica_class = CRELAY_CLASS_READ_REPLICA;
}

static void
asynchronous_with_one_standby(Scene *s)
{
	asynchronous(s);
	s->facts.nrows = L;
}

static void
renamed_host(Scene *s)
{
	s->facts.passed_over_name = "host_5433";
}

/* p was promoted, and holds on itself what others may need. */
static void
promoted(Scene *s)
{
	add_slot(s, "cascade_relay_p_00000001");
	put_name(s->downstreams[2].name, "p");
	s->downstreams[2].kind = CRELAY_KIND_HOLD;
	s->downstreams[2].incarnation = 1;
	s->downstreams[2].own = true;
	s->downstreams[2].counted = false;
	s->facts.knows_awaited = true;
	s->facts.awaited = 2;
	s->facts.first_awaited = "x";
}

static void
promoted_all_back(Scene *s)
{
	promoted(s);
	s->facts.awaited = 0;
	s->facts.first_awaited = NULL;
}

static void
promoted_after_restart(Scene *s)
{
	promoted_all_back(s);
	s->facts.knows_awaited = false;
}

static void
promoted_without_need(Scene *s)
{
	promoted(s);
	s->downstreams[2].restart_lsn = s->facts.own_lsn;
}

static void
hold_of_absent(Scene *s)
{
	leave(s, I, SECOND);
	s->downstreams[0].restart_lsn = LSN(60);
	s->downstreams[0].child = -1;
}

/* i is away, and its leaf has gone to p. */
static void
left_by_all(Scene *s)
{
	leave(s, I, SECOND);
	s->downstreams[1].restart_lsn = LSN(90);
	s->children[0].left_by = "l";
}

static void
left_by_all_without_hold(Scene *s)
{
	left_by_all(s);
	s->downstreams[0].slot_name[0] = '\0';
	s->children[0].held = false;
}

/* i was forgotten, but for the slot that somebody has made for it. */
static void
slot_of_forgotten(Scene *s)
{
	add_slot(s, "forgotten")->released_lsn = UINT64_MAX;
}

static void
stale(Scene *s)
{
	s->rows[L].state = CRELAY_STATE_STALE;
	s->nodes[L].observed_at = NOW - STALE - SECOND;
}

static void
down_for_a_moment(Scene *s)
{
	leave(s, L, STALE);
}
static void
down(Scene *s)
{
	leave(s, L, STALE + 1);
}
static void
never_called(Scene *s)
{
	leave(s, L, NOW);
}

static void
released(Scene *s)
{
	leave(s, I, LONG);
	s->downstreams[0].released_lsn = UINT64_MAX;
	s->downstreams[1].released_lsn = UINT64_MAX;
}

static void
another_released(Scene *s)
{
	released(s);
	add_row(s, X, "x", P);
	leave(s, X, LONG);
}

static void
former_life_released(Scene *s)
{
	released(s);
	s->downstreams[1].released_lsn = 0;
	s->downstreams[0].incarnation = 77;
}

static void
vacuum(Scene *s)
{
	s->facts.xmin_pinned_by = "l";
	s->facts.xmin_since = NOW - LONG - 1;
	s->facts.xmin_age = 1;
}

static void
vacuum_not_long(Scene *s)
{
	vacuum(s);
	s->facts.xmin_since = NOW - LONG;
}

static void
vacuum_of_nothing(Scene *s)
{
	vacuum(s);
	s->facts.xmin_age = 0;
}

static void
own_vacuum(Scene *s)
{
	vacuum(s);
	s->facts.xmin_pinned_by = "p";
}

static void
feedback_ends(Scene *s)
{
	s->nodes[L].hot_standby_feedback = CRELAY_TRUE;
}

static void
feedback_of_unmanaged(Scene *s)
{
	s->nodes[L].managed = false;
	s->nodes[L].hot_standby_feedback = CRELAY_UNKNOWN;
	s->nodes[L].backend_xmin = 700;
}

static void
feedback_passes(Scene *s)
{
	feedback_ends(s);
	s->nodes[I].hot_standby_feedback = CRELAY_TRUE;
}

static void
feedback_beside(Scene *s)
{
	add_row(s, X, "x", P);
	s->nodes[X].hot_standby_feedback = CRELAY_TRUE;
}

static void
no_feedback_of_unmanaged(Scene *s)
{
	feedback_of_unmanaged(s);
	s->nodes[L].backend_xmin = 0;
}

static void
feedback_below_the_absent(Scene *s)
{
	feedback_ends(s);
	leave(s, I, SECOND);
}

static void
feedback_of_none_below(Scene *s)
{
	s->nodes[I].hot_standby_feedback = CRELAY_TRUE;
}
static void
delayed(Scene *s)
{
	s->nodes[L].apply_delay_ms = 3600000;
}

/* Its delay keeps the WAL and the xmin that it does for as long. */
static void
pinned_by_delay(Scene *s)
{
	delayed(s);
	pinned(s);
	vacuum(s);
}

static void
pinned_for_longer_than_the_delay(Scene *s)
{
	pinned_by_delay(s);
	s->facts.pinned_since -= INT64_C(3600) * SECOND;
}

static void
replay_paused(Scene *s)
{
	s->nodes[L].pause = CRELAY_PAUSE_ASKED;
}

static void
pinned_by_pause(Scene *s)
{
	replay_paused(s);
	pinned(s);
	vacuum(s);
}

static void
paused_and_away(Scene *s)
{
	replay_paused(s);
	leave(s, L, SECOND);
}

static void
cut_off(Scene *s)
{
	s->rows[I].state = CRELAY_STATE_DISCONNECTED;
	s->nodes[I].feed = CRELAY_FEED_NOTHING;
}

static void
cut_off_and_away(Scene *s)
{
	cut_off(s);
	leave(s, I, SECOND);
}

static void
cut_off_and_diverged(Scene *s)
{
	cut_off(s);
	diverged(s);
}

static void
cut_off_by_silence(Scene *s)
{
	cut_off(s);
	silent(s);
}

static void
cut_off_by_silence_above(Scene *s)
{
	cut_off(s);
	s->nodes[I].warnings |= CRELAY_WARN_UPSTREAM_SILENT;
}

static void
wal_gone(Scene *s)
{
	s->rows[L].state = CRELAY_STATE_DISCONNECTED;
	s->nodes[L].feed = CRELAY_FEED_WAL_GONE;
	s->nodes[L].protected = CRELAY_FALSE;
	s->nodes[L].replay_lsn = LSN(50);
	s->nodes[I].oldest_wal_lsn = LSN(90);
	s->facts.oldest_wal_lsn = LSN(90);
	pinned(s);
	s->facts.frontier_lsn = LSN(50);
}

static void
unbounded(Scene *s)
{
	s->facts.size_limit = -1;
}

static void
unbounded_and_much(Scene *s)
{
	unbounded(s);
	s->downstreams[0].restart_lsn = LSN(90) - 1;
}

static void
unbounded_without_holds(Scene *s)
{
	unbounded(s);
	s->facts.ndownstreams = 0;
}

static void
one_upgraded(Scene *s)
{
	put_version(&s->nodes[I], "1.10");
}

static void
two_upgraded(Scene *s)
{
	one_upgraded(s);
	put_version(&s->nodes[L], "1.10");
}

static void
one_left_behind(Scene *s)
{
	put_version(&s->nodes[L], "1.9beta");
	put_version(&s->nodes[P], "1.9rc");
	put_version(&s->nodes[I], "1.9rc");
}

static void
server_15_18(Scene *s)
{
	s->facts.server_version = 150018;
}

static void
server_15_19(Scene *s)
{
	s->facts.server_version = 150019;
}

static void
server_16_14(Scene *s)
{
	s->facts.server_version = 160014;
}

static void
server_17_10(Scene *s)
{
	s->facts.server_version = 170010;
}

static void
server_17_11(Scene *s)
{
	s->facts.server_version = 170011;
}

static void
server_18_5(Scene *s)
{
	s->facts.server_version = 180005;
}

static void
server_19(Scene *s)
{
	s->facts.server_version = 190000;
}

static void
server_unknown(Scene *s)
{
	s->facts.server_version = 0;
}

static void
upgraded_and_away(Scene *s)
{
	one_upgraded(s);
	leave(s, I, SECOND);
}

static void
version_untold(Scene *s)
{
	put_version(&s->nodes[I], "");
	put_version(&s->nodes[L], "1.10");
	s->nodes[L].managed = false;
	s->nodes[L].incarnation = 0;
}

static void
objects_behind(Scene *s)
{
	s->facts.sql_version = "1.8.1";
}

static void
objects_ahead(Scene *s)
{
	s->facts.sql_version = "1.9.1";
}

static void
objects_unknown(Scene *s)
{
	s->facts.sql_version = "";
}

static void
unloaded_primary(Scene *s)
{
	s->nodes[P].warnings = CRELAY_WARN_NOT_PRELOADED;
}

static void
unloaded_standby(Scene *s)
{
	s->nodes[I].warnings = CRELAY_WARN_NOT_PRELOADED;
}

static void
full(Scene *s)
{
	s->nodes[I].warnings = CRELAY_WARN_REGISTRY_FULL;
}

static void
all_bits(Scene *s)
{
	s->nodes[L].warnings = UINT32_MAX;
}

static void
bits_of_the_absent(Scene *s)
{
	all_bits(s);
	leave(s, L, SECOND);
}

static void
two_kinds(Scene *s)
{
	no_slot(s);
	unbounded(s);
	pinned(s);
}

static void
nobody(Scene *s)
{
	s->facts.nrows = 0;
	s->facts.ndownstreams = 0;
}

/*
 * What happens, seen from which node, and the findings in their order.
 */
static const struct
{
	const char *what;
	int			local;
	void		(*happens) (Scene *s);
	const char *findings;
}			cases[] = {
	{"nothing, seen from the primary", P, healthy, "ok ok p"},
	{"nothing, seen from the standby", I, healthy, "ok ok i"},
	{"no worker: nothing else is said", P, no_worker, "critical no_free_worker p"},
	{"a worker that fails each time", P, stuck_worker, "critical no_free_worker p"},
	{"... or whose server was not there", P, late_worker, "ok ok p"},

	{"the upstream lacks the extension", I, lacks_extension, "critical extension_missing i"},
	{"a primary has no upstream", P, lacks_extension, "ok ok p"},
	{"the upstream refuses", I, refused, "critical upstream_refused i"},
	{"another node's upstream refuses", P, refused_above, "critical upstream_refused i"},
	{"that was before it left", P, refused_long_ago, "ok ok p"},
	{"the upstream is silent", I, silent, "critical upstream_silent i"},
	{"for no longer than stale_timeout", I, silent_for_a_moment, "ok ok i"},
	{"it has never answered", I, never_heard, "critical upstream_silent i"},
	{"just after the start nothing is long ago", I, just_started, "ok ok i"},
	{"a long report_interval is no silence", I, old_news_but_connected, "ok ok i"},
	{"the upstream answers with old news", L, old_root, "critical upstream_silent l; warning stale_node i"},
	{"news of the root has a long way", L, slow_root, "ok ok l"},
	{"a node above says why", L, root_out_of_reach, "critical upstream_silent i"},
	{"a child streams, and does not report", P, mute_child, "warning stale_node i"},
	{"... but its interval is long", P, slow_child, "ok ok p"},
	{"another node's upstream is silent", P, silent_above, "critical upstream_silent i"},
	{"reports are off", I, disabled, "warning upstream_silent i"},
	{"nobody to report to", I, no_target, "warning upstream_silent i"},

	{"a node was told of a duplicate", P, told_of_duplicate, "critical duplicate_name l"},
	{"two live nodes of one name", P, namesake, "critical duplicate_name l; critical duplicate_name l"},
	{"one of them is a former life", P, rebuilt, "ok ok p"},
	{"names of slots are nobody's identity", P, unmanaged_namesake, "ok ok p"},
	{"a node reports elsewhere", P, elsewhere, "warning reports_elsewhere l"},
	{"... as long as it is there", P, was_elsewhere, "warning stale_node l"},
	{"two nodes at one address", P, one_address, "warning duplicate_address l"},
	{"... of which one is not there any more", P, was_at_one_address, "warning stale_node l"},
	{"a cycle", P, cyclic, "critical cycle i; critical cycle l"},
	{"a diverged node", P, diverged, "critical diverged i"},

	{"a voting node that cascades", P, voting, "warning voting_cascades l"},
	{"a node is not protected", P, unprotected, "warning unprotected l"},
	{"unknown is not unprotected", P, unprotected_unknown, "ok ok p"},
	{"an absent node is not protected", P, unprotected_away, "critical unprotected l"},
	{"it has been rebuilt since", P, unprotected_and_rebuilt, "ok ok p"},
	{"of one without cascade_relay nobody can say that", P, unmanaged_unprotected_away, "critical unprotected l"},
	{"this node is not protected", I, unprotected_here, "warning unprotected i"},
	{"one slot left", P, one_slot, "warning no_free_slot p"},
	{"two slots left", P, two_slots, "ok ok p"},
	{"no slot left", P, no_slot, "critical no_free_slot p"},
	{"no slots, and no need for any", P, no_slots_needed, "ok ok p"},
	{"a node has no hold for want of a slot", P, no_slot_for, "critical no_free_slot i"},

	{"room for all without i", P, two_places, "ok ok p"},
	{"too few walsenders", P, one_sender, "warning no_room i"},
	{"... as a node below knows too", L, one_sender_above, "warning no_room i"},
	{"too few slots", P, one_slot_for_two, "warning no_room i"},
	{"just enough slots", P, slots_for_two, "ok ok p"},
	{"a node that is away does not come", P, one_place_and_one_away, "ok ok p"},
	{"of an older library it is not known", P, places_unknown, "ok ok p"},

	{"a hold was dropped, and placed again", P, drops, "warning hold_dropped i"},
	{"a hold was dropped while its node is away", P, dropped_while_away, "critical hold_dropped i"},
	{"so it was of one that has not called", P, dropped_after_restart, "critical hold_dropped i"},
	{"it was placed again for it", P, placed_again, "warning hold_dropped i"},
	{"above what it needs", P, placed_too_high, "critical hold_dropped i"},
	{"above what was held before", P, placed_too_high_after_restart, "critical hold_dropped i"},
	{"but not above what it needs", P, placed_high_enough_after_restart, "warning hold_dropped i"},
	{"its node was rebuilt since", P, placed_again_and_rebuilt, "warning orphan_slot i"},
	{"its node will place it again at once", P, dropped_just_now, "ok ok p"},
	{"there was no hold", P, never_held, "ok ok p"},
	{"it was released", P, dropped_and_released, "ok ok p"},
	{"its node was rebuilt", P, dropped_and_rebuilt, "ok ok p"},
	{"the server has invalidated it", P, invalidated_while_away, "critical hold_dropped i"},
	{"an ordinary slot was lost", P, lost_for_good, "critical slot_lost x"},
	{"what it kept is asked for above", I, lost_and_asked_for, "warning slot_lost x"},
	{"a child's slot was lost, but not its hold", P, lost_by_a_child, "warning slot_lost x"},
	{"nobody needs it", P, lost_and_released, "ok ok p"},
	{"it was placed again", P, invalidated, "warning hold_dropped i"},
	{"the server invalidates every slot", P, cannot_hold, "critical keep_size_too_low p"},
	{"and nobody is to be held", P, needs_not_hold, "ok ok p"},
	{"a bound cuts what clones need", P, clamped, "warning hold_clamped i"},
	{"a bound cuts what a node needs", P, clamped_for_good, "critical hold_clamped i"},
	{"a bound in the segment that a node needs", P, just_clamped_for_good, "warning hold_clamped i"},
	{"nobody waits for it", P, clamped_not_counted, "ok ok p"},
	{"not by a bound", P, just_not_clamped, "ok ok p"},
	{"a bound was met before the node called", P, clamped_before_it_called, "critical hold_clamped i"},
	{"a hold near its size limit", P, near_limit, "warning hold_clamped i"},
	{"not so near", P, just_not_near_limit, "ok ok p"},
	{"no size limit to be near", P, near_no_limit, "ok ok p"},
	{"the disk has hardly room", P, disk_hardly, "warning disk_reserve p"},
	{"the disk has room", P, disk_enough, "ok ok p"},
	{"what holds keep is not the reason", P, disk_hardly_for_little, "ok ok p"},
	{"the disk has no room for more", P, disk_none, "warning disk_reserve p"},
	{"nobody loses by it", P, disk_none_without_holds, "ok ok p"},
	{"something else keeps the WAL", P, disk_kept, "critical disk_reserve p"},
	{"and not all of it", P, disk_kept_in_part,
	"critical hold_clamped i; critical disk_reserve p; critical disk_reserve p"},
	{"the disk takes what is needed", P, disk_given_up, "critical hold_clamped i; critical disk_reserve p"},
	{"it took what is needed, and has room again", P, disk_given_up_once, "critical hold_clamped i"},
	{"it is not the disk that takes it", P, disk_none_but_size_given_up,
	"critical hold_clamped i; warning disk_reserve p"},
	{"a node has been silent for half of the timeout", P, half_timed_out, "warning hold_timeout i"},
	{"for all of it, and was not released yet", P, timed_out_in_vain, "warning hold_timeout i"},
	{"half of it, without a hold", P, half_timed_out_without_hold, "warning hold_timeout i"},
	{"all of it, without a hold", P, timed_out_without_hold, "critical hold_timeout i"},
	{"not for half of it", P, not_half_timed_out, "ok ok p"},
	{"for all of it", P, timed_out, "critical hold_timeout i"},
	{"it has gone elsewhere", P, timed_out_elsewhere, "ok ok p"},
	{"there is no timeout", P, no_timeout, "ok ok p"},
	{"the upstream's bound cuts what clones need", I, clamped_here, "warning hold_clamped i"},
	{"the upstream's bound cuts what is needed here", I, clamped_for_good_here, "critical hold_clamped i"},
	{"a bound further down cuts what is needed", P, clamped_for_good_below, "critical hold_clamped l; warning unprotected l"},
	{"pinned for long", P, pinned, "warning pinned_long l"},
	{"pinned, but not for long", P, pinned_not_long, "ok ok p"},

	{"a logical slot keeps more than max_wal_size", P, big_logical, "warning idle_slot debezium"},
	{"so does an ignored one", P, big_ignored, "warning idle_slot barman"},
	{"what is in use is not idle", P, big_in_use, "ok ok p"},
	{"one finding is enough", P, big_unknown, "warning orphan_slot forgotten"},
	{"a hold is no slot of others", P, big_own_hold, "warning orphan_slot p"},
	{"a node with this one's name was refused", P, own_double, "critical duplicate_name p"},
	{"a node with the incarnation of a child was refused", P, double_of_child, "critical duplicate_name i"},
	{"a node of another cluster was refused", P, foreigner, "warning upstream_refused p"},
	{"a role may create in the schema", P, open_schema, "warning schema_open p"},
	{"a slot that nobody knows", P, unknown_slot, "warning orphan_slot forgotten"},
	{"in use", P, unknown_slot_in_use, "ok ok p"},
	{"ignored", P, unknown_slot_ignored, "ok ok p"},
	{"logical", P, unknown_slot_logical, "ok ok p"},
	{"temporary", P, unknown_slot_temporary, "ok ok p"},
	{"keeping nothing", P, unknown_slot_unreserved, "ok ok p"},
	{"keeping nothing yet", P, unknown_slot_new, "ok ok p"},
	{"a failover candidate's own hold", I, own_hold, "ok ok i"},
	{"a slot of a node that streams from elsewhere", P, slot_of_moved, "warning orphan_slot l"},
	{"a slot of a node that streams without it", P, slot_beside, "warning orphan_slot i"},
	{"the slot of a node that is away", P, slot_of_known, "ok ok p"},
	{"the hold of a node that has moved", P, hold_of_moved, "warning orphan_slot i"},
	{"the hold of a node that is said to have moved", P, hold_of_claimed, "warning orphan_slot i"},
	{"the hold of a former life", P, hold_of_former, "warning orphan_slot l"},
	{"the hold of a node that is away", P, hold_of_absent, "ok ok p"},
	{"an absent node that nobody streams from any more", P, left_by_all, "warning orphan_slot i"},
	{"of which nothing is held", P, left_by_all_without_hold, "ok ok p"},
	{"the slot of a node that was forgotten", P, slot_of_forgotten, "warning orphan_slot forgotten"},
	{"a new primary waits for the others", P, promoted, "warning orphan_slot p"},
	{"all are back", P, promoted_all_back, "ok ok p"},
	{"it does not know any more for whom", P, promoted_after_restart, "warning orphan_slot p"},
	{"what it holds is here in any case", P, promoted_without_need, "ok ok p"},

	{"a stale node", P, stale, "warning stale_node l"},
	{"a node that is down for a moment", P, down_for_a_moment, "ok ok p"},
	{"a node that is down", P, down, "warning stale_node l"},
	{"a node that has not called since the start", P, never_called, "warning stale_node l"},
	{"nobody waits for the released", P, released, "ok ok p"},

	{"but for others", P, another_released, "warning stale_node x"},
	{"another life of it was released", P, former_life_released, "warning stale_node i"},

	{"a leaf holds back vacuum", P, vacuum, "warning vacuum_held_back l"},
	{"not for long", P, vacuum_not_long, "ok ok p"},
	{"nothing to vacuum", P, vacuum_of_nothing, "ok ok p"},
	{"the node's own transactions show by themselves", P, own_vacuum, "ok ok p"},
	{"on a standby there is no vacuum", I, vacuum, "ok ok i"},
	{"feedback that ends on the way", P, feedback_ends, "warning feedback_off i"},
	{"feedback of a node without cascade_relay", P, feedback_of_unmanaged, "warning feedback_off i"},
	{"none of it", P, no_feedback_of_unmanaged, "ok ok p"},
	{"feedback beside", P, feedback_beside, "ok ok p"},
	{"feedback below an absent node", P, feedback_below_the_absent, "ok ok p"},
	{"feedback all the way", P, feedback_passes, "ok ok p"},
	{"a leaf that gives none", P, feedback_of_none_below, "ok ok p"},
	{"a local hold of a former life of this node", P, hold_of_own_former_life, "warning former_life p"},
	{"what is held above for a former life of this node", I, row_of_own_former_life, "warning former_life i"},
	{"another life of that name", I, other_former_life, "ok ok i"},
	{"a candidate whose local hold is too high", I, local_hold_high, "warning local_hold_high i"},
	{"for a moment", I, local_hold_high_for_a_moment, "ok ok i"},
	{"an asynchronous cascade", P, asynchronous, "ok no_candidate p"},
	{"as a standby sees it", I, asynchronous, "ok ok i"},
	{"with a single standby", P, asynchronous_with_one_standby, "ok ok p"},
	{"another host name", P, renamed_host, "ok kept_name p"},
	{"a delayed standby", I, delayed, "ok delayed_standby l"},
	{"seen from the primary", P, delayed, "ok delayed_standby l"},
	{"what it keeps on purpose", P, pinned_by_delay, "ok delayed_standby l"},
	{"what it keeps for longer", P, pinned_for_longer_than_the_delay, "warning pinned_long l; ok delayed_standby l"},
	{"paused replay", P, replay_paused, "warning replay_paused l"},
	{"it explains what it keeps", P, pinned_by_pause, "warning replay_paused l"},
	{"it was so before that node left", P, paused_and_away, "ok ok p"},
	{"nothing feeds a node", P, cut_off, "critical not_streaming i"},
	{"nothing feeds this node", I, cut_off, "critical not_streaming i"},
	{"it was so before that node left", P, cut_off_and_away, "ok ok p"},
	{"it has diverged", P, cut_off_and_diverged, "critical diverged i"},
	{"its upstream is silent", I, cut_off_by_silence, "critical upstream_silent i"},
	{"as it says", P, cut_off_by_silence_above, "critical upstream_silent i"},
	{"its WAL is gone", P, wal_gone, "critical not_streaming l; warning unprotected l; warning pinned_long l"},
	{"no bound", P, unbounded, "ok unbounded p"},
	{"no bound, and much WAL", P, unbounded_and_much, "warning unbounded p"},
	{"no bound, and no hold", P, unbounded_without_holds, "ok ok p"},
	{"one node has a newer library", P, one_upgraded, "warning version_mixed p; warning version_mixed l"},
	{"the others follow", I, two_upgraded, "warning version_mixed p"},
	{"one is left behind", P, one_left_behind, "warning version_mixed l"},
	{"what an absent node had does not matter", P, upgraded_and_away, "ok ok p"},
	{"nor one that does not tell, or has none", P, version_untold, "ok ok p"},
	{"the SQL objects are older", P, objects_behind, "warning version_mixed p"},
	{"the SQL objects are newer", I, objects_ahead, "warning version_mixed i"},
	{"there are SQL objects of no version", P, objects_unknown, "ok ok p"},
	{"a server with a fault that 15.19 has not", P, server_15_18, "warning server_outdated p"},
	{"15.19 itself", P, server_15_19, "ok ok p"},
	{"a standby of 16", I, server_16_14, "warning server_outdated i"},
	{"one of 17", I, server_17_10, "warning server_outdated i"},
	{"17.11 itself", I, server_17_11, "ok ok i"},
	{"one of 18", P, server_18_5, "warning server_outdated p"},
	{"no 19 has that fault", P, server_19, "ok ok p"},
	{"a server that does not tell its version", P, server_unknown, "ok ok p"},
	{"a primary that does not preload", I, unloaded_primary, "warning not_preloaded p"},
	{"a standby that does not", P, unloaded_standby, "warning not_preloaded i"},
	{"more nodes than room", P, full, "warning registry_full i"},

	{"all bits, also those of newer versions", P, all_bits,
		"critical upstream_refused l; critical upstream_silent l; critical duplicate_name l; critical cycle l; "
	"critical no_free_slot l; warning reports_elsewhere l; warning hold_dropped l; warning hold_clamped l; warning not_preloaded l; warning registry_full l"},
	{"what an absent node once said is old, but for what its upstream says", P, bits_of_the_absent, "warning hold_dropped l"},
	{"the worst first", P, two_kinds,
	"critical no_free_slot p; warning pinned_long l; ok unbounded p"},
	{"an empty tree", P, nobody, "ok ok p"},
};

/* ---- the table at work ---- */

typedef struct Findings
{
	char		list[2048];
	char		message[CRELAY_CHECK_TEXT_LEN];
	char		hint[CRELAY_CHECK_TEXT_LEN];
	int			n;
	bool		clear;			/* each says something, and what to do */
} Findings;

static void
collect(void *arg, const CrelayFinding *finding)
{
	Findings   *findings = arg;
	size_t		at = strlen(findings->list);

	snprintf(findings->list + at, sizeof(findings->list) - at, "%s%s %s %s",
			 at > 0 ? "; " : "", crelay_severity_text(finding->severity),
			 crelay_check_code_text(finding->code), finding->node_name);
	if (finding->message[0] == '\0' ||
		(finding->code != CRELAY_CHECK_OK && finding->hint[0] == '\0'))
		findings->clear = false;
	snprintf(findings->message, sizeof(findings->message), "%s", finding->message);
	snprintf(findings->hint, sizeof(findings->hint), "%s", finding->hint);
	findings->n++;
}

static void
look(Scene *s, Findings *findings)
{
	memset(findings, 0, sizeof(Findings));
	findings->clear = true;
	crelay_check_run(&s->facts, collect, findings);
}

static bool produced[CRELAY_CHECK_OK + 1];

static void
note_codes(const char *list)
{
	for (int code = 0; code <= CRELAY_CHECK_OK; code++)
	{
		char		word[64];

		snprintf(word, sizeof(word), " %s ", crelay_check_code_text((CrelayCheckCode) code));
		if (strstr(list, word) != NULL)
			produced[code] = true;
	}
}

static void
test_cases(void)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		Scene		scene;
		Findings	findings;

		set_healthy(&scene, cases[i].local);
		cases[i].happens(&scene);
		look(&scene, &findings);
		is_text(findings.list, cases[i].findings, cases[i].what);
		if (!findings.clear)
			ok(false, "%s: says something, and what to do", cases[i].what);
		note_codes(findings.list);
	}
	for (int code = 0; code <= CRELAY_CHECK_OK; code++)
		ok(produced[code], "a case produces %s",
		   crelay_check_code_text((CrelayCheckCode) code));
}

/*
 * "code node" of each finding that is about this node or one below, then a bar,
 * then those that are not.
 */
static void
collect_below(void *arg, const CrelayFinding *finding)
{
	char	   *lists = (char *) arg + (finding->below ? 0 : 500);
	size_t		at = strlen(lists);

	snprintf(lists + at, 500 - at, "%s %s;", crelay_check_code_text(finding->code), finding->node_name);
}

static void
test_below(void)
{
	Scene		scene;
	char		lists[1000];

	set_healthy(&scene, I);
	add_row(&scene, X, "x", P);
	for (int r = 0; r < scene.facts.nrows; r++)
		scene.rows[r].state = CRELAY_STATE_DIVERGED;
	put_version(&scene.nodes[P], "1.8");
	/* of a node that is not in the tree, and not below: but the slot is here */
	add_slot(&scene, "gone");
	scene.facts.slots_used = scene.facts.slots_total;

	memset(lists, 0, sizeof(lists));
	crelay_check_run(&scene.facts, collect_below, lists);
	is_text(lists, "diverged i;diverged l;no_free_slot i;orphan_slot gone;",
			"below are this node, its subtree and what is found on this server");
	is_text(lists + 500, "diverged p;diverged x;version_mixed p;",
			"the nodes above and beside it are not");

	for (int r = 0; r < scene.facts.nrows; r++)
		scene.rows[r].local = false;
	memset(lists, 0, sizeof(lists));
	crelay_check_run(&scene.facts, collect_below, lists);
	is_text(lists + 500, "", "without a row of its own nothing is left out");
}

static void
test_words(void)
{
	static char long_error[4000];
	Scene		scene;
	Findings	findings;

	set_healthy(&scene, I);
	lacks_extension(&scene);
	look(&scene, &findings);
	is_text(findings.message, "the upstream lacks what takes reports: extension \"cascade_relay\" does not exist",
			"the message has the error");
	is_text(findings.hint, "Run CREATE EXTENSION.", "and its hint is the hint");

	set_healthy(&scene, I);
	silent(&scene);
	look(&scene, &findings);
	is_text(findings.message, "no reply from the upstream for 31 s: connection refused", "how long, and why");

	set_healthy(&scene, I);
	silent(&scene);
	scene.facts.last_error = "";
	look(&scene, &findings);
	is_text(findings.message, "no reply from the upstream for 31 s", "without an error there is none");

	set_healthy(&scene, P);
	stuck_worker(&scene);
	look(&scene, &findings);
	is_text(findings.message, "the worker of cascade_relay has got nothing done for 31 s: could not open directory \"pg_wal\": Permission denied",
			"why a worker gets nothing done");

	set_healthy(&scene, P);
	hanging_worker(&scene);
	look(&scene, &findings);
	is_text(findings.message, "the worker of cascade_relay has got nothing done for 31 s",
			"an error that it has survived is not why");

	set_healthy(&scene, I);
	unprotected_here(&scene);
	look(&scene, &findings);
	is_text(findings.message, "this node is not protected: of its upstream, the WAL that this node needs is not there",
			"why this node is not protected");
	is_text(findings.hint, "It will be.", "and what to do");

	set_healthy(&scene, P);
	slot_of_moved(&scene);
	look(&scene, &findings);
	is_text(findings.message, "replication slot \"l\" keeps 10 MB of WAL and is not in use: node \"l\" streams from \"i\", not from here",
			"why a slot of a known node is an orphan");

	set_healthy(&scene, P);
	hold_of_claimed(&scene);
	look(&scene, &findings);
	is_text(findings.message, "replication slot \"cascade_relay_i_00000002\" keeps 2048 kB of WAL and is not in use: its node is seen below \"h\", and its move is not confirmed",
			"why a hold stays whose node is said to be elsewhere");
	is_text(findings.hint, "Look at that node. If it streams and is protected there: SELECT cr.cascade_forget('cascade_relay_i_00000002', true);",
			"and the command if it is true");

	set_healthy(&scene, P);
	unknown_slot(&scene);
	look(&scene, &findings);
	is_text(findings.message, "replication slot \"forgotten\" keeps 10 MB of WAL and is not in use: no known node uses it",
			"how much a slot keeps, and why it is an orphan");
	is_text(findings.hint, "If nobody will come back for it: SELECT pg_catalog.pg_drop_replication_slot('forgotten');",
			"and the command");

	set_healthy(&scene, P);
	hold_of_former(&scene);
	look(&scene, &findings);
	is_text(findings.hint, "If nobody will come back for it: SELECT cr.cascade_forget('cascade_relay_l_00000003');",
			"a hold is dropped with what is known of its node");

	set_healthy(&scene, P);
	left_by_all(&scene);
	look(&scene, &findings);
	is_text(findings.message, "node \"i\" is away, and all that streamed from it (l) is protected elsewhere: its hold keeps 2048 kB of WAL for it alone",
			"what nobody waits for any more");
	is_text(findings.hint, "If it will not come back: SELECT cr.cascade_forget('i'); SELECT pg_catalog.pg_drop_replication_slot('i');",
			"and the commands, also for what others have made");

	set_healthy(&scene, P);
	never_called(&scene);
	look(&scene, &findings);
	is_text(findings.message, "no news of node \"l\" for at least 83 h", "as long as this server can know");

	set_healthy(&scene, P);
	pinned(&scene);
	look(&scene, &findings);
	is_text(findings.message, "node \"l\" has been keeping this node from removing WAL for 5 min; 10 MB are kept for it",
			"who pins what for how long");
	is_text(findings.hint, "Find out why node \"l\" does not go on. To let go of its WAL, on node \"i\": SELECT cr.cascade_release('l');",
			"and where that can be ended");
	set_pin(&scene.facts.pin, CRELAY_PIN_SLOT, "l", "x", "l");
	scene.facts.pinned_via = "i";
	look(&scene, &findings);
	is_text(findings.message, "slot \"l\" on node \"x\", by way of \"i\", has been keeping this node from removing WAL for 5 min; 10 MB are kept for it",
			"a slot that is called like a live node is a place");
	is_text(findings.hint, "No node is seen to stream through it, whatever it is called. If it is not needed, on node \"x\": SELECT pg_catalog.pg_drop_replication_slot('l'); or list it there in cascade_relay.ignore_slots.",
			"and the live node is not to blame");
	set_pin(&scene.facts.pin, CRELAY_PIN_SLOT, "l", "i", "l_slot");
	look(&scene, &findings);
	is_text(findings.message, "slot \"l_slot\" on node \"i\" has been keeping this node from removing WAL for 5 min; 10 MB are kept for it",
			"the way is not said twice");
	is_text(findings.hint, "Find out why \"l\" does not go on.", "one that is in use is not dropped");
	set_pin(&scene.facts.pin, CRELAY_PIN_HOLD, "l", "i", "cascade_relay_l_00000003");
	look(&scene, &findings);
	is_text(findings.message, "the hold for node \"l\" on node \"i\" has been keeping this node from removing WAL for 5 min; 10 MB are kept for it",
			"a hold whose node has not called");
	set_pin(&scene.facts.pin, CRELAY_PIN_WALSENDER, "p", "p", "");
	scene.facts.pinned_via = "p";
	look(&scene, &findings);
	is_text(findings.message, "the walsender of \"p\" on node \"p\" has been keeping this node from removing WAL for 5 min; 10 MB are kept for it",
			"a walsender that is called like this node");

	set_healthy(&scene, P);
	open_schema(&scene);
	look(&scene, &findings);
	is_text(findings.hint, "On the primary: CREATE SCHEMA cascade_relay; ALTER EXTENSION cascade_relay SET SCHEMA cascade_relay;",
			"what to do about the owner of the schema");
	scene.facts.schema_granted = true;
	look(&scene, &findings);
	is_text(findings.hint, "On the primary: REVOKE CREATE ON SCHEMA cr FROM joe;", "and about a grant");

	set_healthy(&scene, P);
	big_logical(&scene);
	look(&scene, &findings);
	is_text(findings.message, "logical slot \"debezium\" is not in use, and keeps 20 MB of WAL on this disk, more than max_wal_size (10 MB)",
			"what fills the disk");

	set_healthy(&scene, P);
	own_double(&scene);
	look(&scene, &findings);
	is_text(findings.message, "two live nodes have the name or the incarnation of \"p\" (00000001); only one of them can be protected: the other one (00000009) calls from 10.0.0.9, and is refused",
			"where the other one is");

	set_healthy(&scene, P);
	drops(&scene);
	look(&scene, &findings);
	is_text(findings.message, "the hold of node \"i\" on \"p\" was dropped by somebody else, and was placed again: WAL may have been lost",
			"a hold that was dropped");
	scene.nodes[I].warnings |= CRELAY_WARN_HOLD_INVALIDATED;
	look(&scene, &findings);
	is_text(findings.message, "the hold of node \"i\" on \"p\" was invalidated by the server (max_slot_wal_keep_size), and was placed again: WAL may have been lost",
			"one that the server gave up");
	ok(strstr(findings.hint, "HA manager") == NULL, "which no HA manager did");

	set_healthy(&scene, P);
	near_limit(&scene);
	look(&scene, &findings);
	is_text(findings.message, "the hold of node \"i\" keeps 60 MB of at most 80 MB, pinned by node \"i\": soon WAL is given up",
			"how near a hold is to its limit");

	set_healthy(&scene, P);
	disk_none(&scene);
	look(&scene, &findings);
	is_text(findings.message, "with 33 MB free on the file system of pg_wal, holds may keep no more than the 10 MB that they do: who falls behind will not be protected",
			"what the disk leaves");

	set_healthy(&scene, P);
	half_timed_out(&scene);
	look(&scene, &findings);
	is_text(findings.message, "node \"i\" has not reported for 50 s; in another 49 s its hold is released",
			"how long a node may yet be silent");

	set_healthy(&scene, P);
	timed_out_without_hold(&scene);
	look(&scene, &findings);
	is_text(findings.message, "node \"i\", which has no hold, has not reported for 100 s: WAL that it or a node below it needs is not asked for any more",
			"what becomes of one without a hold");

	set_healthy(&scene, I);
	delayed(&scene);
	look(&scene, &findings);
	is_text(findings.message, "node \"l\" replays 60 min late on purpose, and all nodes above it keep the WAL of that time",
			"by how much it is delayed");

	set_healthy(&scene, P);
	pinned_by_pause(&scene);
	look(&scene, &findings);
	is_text(findings.message, "replay of node \"l\" is paused at 0/0; this node keeps 10 MB of WAL for it; it holds back vacuum by 1 transactions",
			"what a pause costs");
	is_text(findings.hint, "On node \"l\": SELECT pg_catalog.pg_wal_replay_resume();", "and how it ends");

	set_healthy(&scene, P);
	replay_paused(&scene);
	scene.nodes[L].pause = CRELAY_PAUSE_SETTINGS;
	look(&scene, &findings);
	is_text(findings.message, "replay of node \"l\" is paused at 0/0, because a setting is lower there than on the primary",
			"why it is paused");

	set_healthy(&scene, I);
	cut_off(&scene);
	scene.facts.primary_slot_name = "i_slot";
	scene.nodes[I].feed = CRELAY_FEED_SLOT_MISSING;
	look(&scene, &findings);
	is_text(findings.message, "node \"i\" gets no WAL: its replication slot \"i_slot\" does not exist on its upstream \"p\"",
			"which slot is missing where");
	is_text(findings.hint, "On node \"i\": SELECT cr.cascade_follow('p'); gives it a slot there.", "and what to do");

	set_healthy(&scene, P);
	wal_gone(&scene);
	look(&scene, &findings);
	is_text(findings.message, "what node \"l\" needs from 0/3200000 on is gone here (the oldest is 0/5A00000); 10 MB of later WAL are kept for it",
			"what is gone is not kept");
	scene.rows[L].better = "p";
	scene.facts.pinned_since = 0;
	scene.nodes[L].protected = CRELAY_TRUE;
	look(&scene, &findings);
	is_text(findings.message, "node \"l\" gets no WAL: what it needs from 0/3200000 on is gone on its upstream \"i\" (the oldest there is 0/5A00000)",
			"what is gone where");
	is_text(findings.hint, "Node \"p\" still has it. On node \"l\": SELECT cr.cascade_follow('p');", "and where it is");

	set_healthy(&scene, P);
	diverged(&scene);
	look(&scene, &findings);
	is_text(findings.message, "node \"i\" has WAL, up to 0/0, that its upstream \"p\" does not have and will never have: both are on timeline 1",
			"a primary that was set back");

	set_healthy(&scene, P);
	two_upgraded(&scene);
	look(&scene, &findings);
	is_text(findings.message, "node \"p\" runs cascade_relay 1.9, and node \"i\" runs 1.10",
			"10 is more than 9");

	set_healthy(&scene, P);
	objects_behind(&scene);
	look(&scene, &findings);
	is_text(findings.hint, "When all nodes have the new library, run on the primary: ALTER EXTENSION cascade_relay UPDATE;",
			"what to do about old objects");

	set_healthy(&scene, P);
	server_15_18(&scene);
	look(&scene, &findings);
	is_text(findings.message, "PostgreSQL 15.18 has a fault with cascades: a standby that reconnects can be refused with \"requested starting point is ahead of the WAL flush position\"",
			"what an old minor release does");
	is_text(findings.hint, "Install PostgreSQL 15.19 or a later minor release, and restart this server.",
			"and which one to install");

	set_healthy(&scene, I);
	objects_ahead(&scene);
	look(&scene, &findings);
	is_text(findings.hint, "Install the same version of cascade_relay on this node too, and restart it.",
			"and about an old library");

	set_healthy(&scene, P);
	unloaded_primary(&scene);
	look(&scene, &findings);
	ok(strstr(findings.message, "only max_slot_wal_keep_size bounds it") != NULL,
	   "what a primary lacks without preloading");
	unloaded_standby(&scene);
	scene.nodes[P].warnings = 0;
	look(&scene, &findings);
	ok(strstr(findings.message, "reports nothing further up") != NULL,
	   "what a standby lacks");

	/* longer than there is room for */
	memset(long_error, 'x', sizeof(long_error) - 1);
	set_healthy(&scene, I);
	refused(&scene);
	scene.facts.last_error = long_error;
	look(&scene, &findings);
	is_number(strlen(findings.message), CRELAY_CHECK_TEXT_LEN - 1, "a message that is too long is cut");
}

/*
 * Which of two versions is the older one.
 */
static void
test_versions(void)
{
	static const char *const pairs[][2] = {
		{"1.9", "1.10"},
		{"1.9", "1.9.1"},
		{"1.9", "2"},
		{"1.9.9", "1.10"},
		{"1.0beta", "1.0"},
		{"1.0-rc1", "1.0"},
		{"1.0beta", "1.0rc"},
		{"1.0beta9", "1.0beta10"},
		{"1.0beta", "1.0beta2"},
		{"1.0rc1", "1.0.1"},
		{"0.9", "1.0beta"},
		{"devel", "1.0"}
	};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
	{
		Scene		scene;
		Findings	findings;

		for (int older = P; older <= I; older++)
		{
			set_healthy(&scene, P);
			scene.facts.nrows = 2;
			put_version(&scene.nodes[older], pairs[i][0]);
			put_version(&scene.nodes[I - older], pairs[i][1]);
			look(&scene, &findings);
			is_text(findings.list, older == P ? "warning version_mixed p" : "warning version_mixed i",
					pairs[i][0]);
		}
	}
}

/*
 * A chain as long as it gets, all of it without feedback: anything quadratic
 * would show.
 */
static void
test_large(void)
{
	enum
	{
		LARGE = 40000
	};
	CrelayNode *nodes = calloc(LARGE, sizeof(CrelayNode));
	CrelayCheckRow *rows = calloc(LARGE, sizeof(CrelayCheckRow));
	const CrelayCheckRow **room = calloc(2 * LARGE, sizeof(*room));
	Scene		scene;
	Findings	findings;
	clock_t		start;

	if (nodes == NULL || rows == NULL || room == NULL)
		abort();
	set_healthy(&scene, P);
	for (int i = 0; i < LARGE; i++)
	{
		nodes[i] = scene.nodes[i == 0 ? P : I];
		snprintf(nodes[i].name, sizeof(nodes[i].name), "n%05d", i);
		nodes[i].incarnation = (uint32_t) i + 1;
		nodes[i].upstream_incarnation = (uint32_t) i;
		rows[i] = scene.rows[i == 0 ? P : I];
		rows[i].node = &nodes[i];
		rows[i].depth = i;
	}
	scene.facts.ndownstreams = 0;
	scene.facts.nrows = LARGE;
	scene.facts.rows = rows;
	scene.facts.by_name = room;
	scene.facts.feedback_below = room + LARGE;
	start = clock();
	look(&scene, &findings);
	ok(clock() - start < 5 * CLOCKS_PER_SEC, "a chain of %d nodes takes no time", LARGE);
	is_text(findings.list, "ok ok p", "and nothing is wrong with it");
	nodes[LARGE - 1].hot_standby_feedback = CRELAY_TRUE;
	look(&scene, &findings);
	is_number((uint64_t) findings.n, LARGE - 2, "feedback from its end does not pass any of them");
	free(room);
	free(rows);
	free(nodes);
}

int
main(void)
{
	test_cases();
	test_below();
	test_large();
	test_versions();
	test_words();
	return done_testing();
}
