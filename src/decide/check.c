/*-------------------------------------------------------------------------
 *
 * check.c
 *	  What is wrong in the cascade, and what to do, as a pure decision.
 *
 * Owns, leaves out and locks: see check.h.
 *
 * What each code says.  "Tree" is looked for in every row of the tree that
 * this node shows, so the same finding is there on other nodes too; "here" is
 * about this node alone.  C: critical, W: warning, -: worth knowing only.
 *
 *	code			 where	what it means
 *	no_free_worker	 here	C  no worker of ours runs; nothing else is known,
 *							   so nothing else is said
 *							C  it runs, and has got nothing done for stale_timeout
 *	extension_missing here	C  the upstream lacks the files, the preloading or
 *							   the extension: nobody takes our reports
 *	upstream_refused here	C  the upstream takes no reports, for the reason in
 *							   last_error; tree: C
 *							W  a node of another cluster reports here
 *	upstream_silent	 here	C  no reply for stale_timeout; tree: C
 *							C  replies, but no news of the root in them
 *							W  there is nobody to report to, or reports are
 *							   switched off
 *	duplicate_name	 tree	C  two live nodes have one name, or a node was told
 *							   that another asked for its name
 *	reports_elsewhere tree	W  a node streams from one node, and reports to
 *							   another
 *	duplicate_address tree	W  two live nodes advertise one address
 *	cycle			 tree	C  upstreams that lead back to where they began
 *	diverged		 tree	C  a node on another history than its upstream, on
 *							   another timeline or on one
 *	not_streaming	 tree	C  a standby gets no WAL, from wherever
 *	replay_paused	 tree	W  a standby gets WAL, and does not replay it
 *	voting_cascades	 tree	W  a voting node does not stream from the primary
 *	unprotected		 tree	W  the root does not hold what the node would need
 *							C  and the node is away
 *	no_free_slot	 tree	C  a node has no hold for want of a slot
 *					 here	W  the last free slot is left, none for a hold
 *							C  no slot is left, none for a new standby either
 *	keep_size_too_low here	C  the server gives every slot up, so that nothing
 *							   can be held
 *	no_room			 tree	W  the root has fewer places than there are nodes
 *							   below one of its children
 *	hold_dropped	 tree	W  somebody else dropped a hold, or the server gave
 *							   it up; it was placed again
 *					 here	C  its node is away and cannot place it again
 *	slot_lost		 here	W  the server gave a slot up, and nodes above keep
 *							   the WAL that its node needs
 *							W  its node is held here; it needs another slot
 *							C  nobody is known to keep the WAL
 *	hold_clamped	 here	W  a hold keeps nearly as much as it may
 *					 tree	W  the bound lets a hold keep less than it should
 *							C  less than a node needs
 *	disk_reserve	 here	W  the disk has hardly room for what holds keep, or
 *							   none, so that whoever falls behind is given up
 *							C  WAL that a node needs was given up for it
 *							C  giving up holds would free too little: something
 *							   else keeps the WAL, which is named
 *	hold_timeout	 here	W  a node has been silent for half of the time
 *							C  and for all of it: its hold was released
 *	pinned_long		 here	W  another node has kept the same WAL for long; not
 *							   if its replay is paused, or delayed for as long
 *	orphan_slot		 here	W  an idle slot or hold keeps WAL, and its node is
 *							   unknown, or lives without it, or is said to
 *							   live elsewhere and has not confirmed it; or it is
 *							   away, and all that was below it lives elsewhere;
 *							   or this node was promoted, and not all nodes
 *							   have come back
 *	idle_slot		 here	W  a slot that no process reads, counted or not, keeps
 *							   more than max_wal_size
 *	former_life		 here	W  this node was renamed, and what is held for it
 *							   under its former name still stands
 *	local_hold_high	 here	W  the local hold of a failover candidate stands
 *							   above what the tree needs, for long
 *	no_candidate	 here	-  on the root: no standby is voting, so nothing is
 *							   kept for the root's death
 *	kept_name		 here	-  the host name has changed; the node name has not
 *	stale_node		 tree	W  no news of a node for stale_timeout
 *					 here	W  a child streams, but does not report
 *	vacuum_held_back here	W  on the primary: another node's xmin has stood
 *							   still for long while transactions went on; not
 *							   if its replay is paused, or delayed for as long
 *	feedback_off	 tree	W  a standby without hot_standby_feedback above one
 *							   with it: it ends there
 *	delayed_standby	 tree	-  recovery_min_apply_delay keeps WAL that long
 *	unbounded		 here	-  nothing bounds what holds may keep
 *							W  and they keep more than max_wal_size
 *	schema_open		 here	W  others may create in the schema of the extension
 *	version_mixed	 tree	W  a node's library is older than another's
 *					 here	W  the SQL objects are not of the library's version
 *	server_outdated	 here	W  this server is of a minor release with a fault that
 *							   breaks cascades
 *	not_preloaded	 tree	W  a node takes reports without preloading the
 *							   library: there is less that it can do
 *	registry_full	 tree	W  more nodes than max_nodes; not all are shown
 *
 * "For long" is CRELAY_LONG_TIMEOUTS times stale_timeout.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One look through everything, for the findings of one severity. */
typedef struct Look
{
	const CrelayCheckFacts *facts;
	CrelaySeverity severity;
	CrelayCheckSink sink;
	void	   *sink_arg;
	int			found;			/* of all severities so far */
	const CrelayCheckRow *row;	/* that is looked at; NULL: this server */
	int			first_below;	/* rows of this node and its subtree */
	int			end_below;
} Look;

#define SIZE_LEN	32
#define PLACE_LEN	(CRELAY_NAME_LEN + CRELAY_SLOT_LEN + 64)
#define LSN_LEN		20

/* What a bound takes from a branch, the worst last. */
typedef enum Cost
{
	COST_NOTHING,
	COST_CLONES,				/* from a standby that may be cloned there */
	COST_NODES					/* from somebody who is there */
} Cost;

static void report(Look *look, CrelaySeverity severity, CrelayCheckCode code,
				   const char *node_name, const char *hint,
				   const char *message,...) __attribute__((format(printf, 6, 7)));

/* ---- words ---- */

const char *
crelay_severity_text(CrelaySeverity severity)
{
	switch (severity)
	{
		case CRELAY_SEVERITY_OK:
			return "ok";
		case CRELAY_SEVERITY_WARNING:
			return "warning";
		case CRELAY_SEVERITY_CRITICAL:
			return "critical";
	}
	return NULL;
}

const char *
crelay_check_code_text(CrelayCheckCode code)
{
	switch (code)
	{
		case CRELAY_CHECK_NO_FREE_WORKER:
			return "no_free_worker";
		case CRELAY_CHECK_EXTENSION_MISSING:
			return "extension_missing";
		case CRELAY_CHECK_UPSTREAM_REFUSED:
			return "upstream_refused";
		case CRELAY_CHECK_UPSTREAM_SILENT:
			return "upstream_silent";
		case CRELAY_CHECK_DUPLICATE_NAME:
			return "duplicate_name";
		case CRELAY_CHECK_REPORTS_ELSEWHERE:
			return "reports_elsewhere";
		case CRELAY_CHECK_DUPLICATE_ADDRESS:
			return "duplicate_address";
		case CRELAY_CHECK_CYCLE:
			return "cycle";
		case CRELAY_CHECK_DIVERGED:
			return "diverged";
		case CRELAY_CHECK_NOT_STREAMING:
			return "not_streaming";
		case CRELAY_CHECK_REPLAY_PAUSED:
			return "replay_paused";
		case CRELAY_CHECK_VOTING_CASCADES:
			return "voting_cascades";
		case CRELAY_CHECK_UNPROTECTED:
			return "unprotected";
		case CRELAY_CHECK_NO_FREE_SLOT:
			return "no_free_slot";
		case CRELAY_CHECK_KEEP_SIZE_TOO_LOW:
			return "keep_size_too_low";
		case CRELAY_CHECK_NO_ROOM:
			return "no_room";
		case CRELAY_CHECK_HOLD_DROPPED:
			return "hold_dropped";
		case CRELAY_CHECK_SLOT_LOST:
			return "slot_lost";
		case CRELAY_CHECK_HOLD_CLAMPED:
			return "hold_clamped";
		case CRELAY_CHECK_DISK_RESERVE:
			return "disk_reserve";
		case CRELAY_CHECK_HOLD_TIMEOUT:
			return "hold_timeout";
		case CRELAY_CHECK_PINNED_LONG:
			return "pinned_long";
		case CRELAY_CHECK_ORPHAN_SLOT:
			return "orphan_slot";
		case CRELAY_CHECK_IDLE_SLOT:
			return "idle_slot";
		case CRELAY_CHECK_FORMER_LIFE:
			return "former_life";
		case CRELAY_CHECK_LOCAL_HOLD_HIGH:
			return "local_hold_high";
		case CRELAY_CHECK_NO_CANDIDATE:
			return "no_candidate";
		case CRELAY_CHECK_KEPT_NAME:
			return "kept_name";
		case CRELAY_CHECK_STALE_NODE:
			return "stale_node";
		case CRELAY_CHECK_VACUUM_HELD_BACK:
			return "vacuum_held_back";
		case CRELAY_CHECK_FEEDBACK_OFF:
			return "feedback_off";
		case CRELAY_CHECK_DELAYED_STANDBY:
			return "delayed_standby";
		case CRELAY_CHECK_UNBOUNDED:
			return "unbounded";
		case CRELAY_CHECK_SCHEMA_OPEN:
			return "schema_open";
		case CRELAY_CHECK_VERSION_MIXED:
			return "version_mixed";
		case CRELAY_CHECK_SERVER_OUTDATED:
			return "server_outdated";
		case CRELAY_CHECK_NOT_PRELOADED:
			return "not_preloaded";
		case CRELAY_CHECK_REGISTRY_FULL:
			return "registry_full";
		case CRELAY_CHECK_OK:
			return "ok";
	}
	return NULL;
}

/*
 * Returns true if what is found now is about this server or about a node of its
 * subtree.  What was found on this server is about its own disk and its own
 * slots, whichever node it names.  Before the worker has said who it is, there
 * is no subtree, and nothing is left out.
 */
static bool
is_about_below(const Look *look)
{
	long		at = look->row != NULL ? (long) (look->row - look->facts->rows) : 0;

	return look->row == NULL || look->end_below == 0 ||
		(at >= look->first_below && at < look->end_below);
}

/*
 * A finding, if it is of the severity that is looked for.
 */
static void
report(Look *look, CrelaySeverity severity, CrelayCheckCode code,
	   const char *node_name, const char *hint, const char *message,...)
{
	CrelayFinding finding;
	va_list		args;

	if (severity != look->severity)
		return;
	look->found++;
	finding.severity = severity;
	finding.code = code;
	finding.node_name = node_name;
	finding.below = is_about_below(look);
	va_start(args, message);
	vsnprintf(finding.message, sizeof(finding.message), message, args);
	va_end(args);
	snprintf(finding.hint, sizeof(finding.hint), "%s", hint);
	look->sink(look->sink_arg, &finding);
}

/*
 * The same with the words of an error, which may bring their own hint along.
 */
static void
report_error(Look *look, CrelayCheckCode code, const char *what, const char *error,
			 const char *or_hint)
{
	const char *hint = strstr(error, " HINT: ");
	int			len = (int) (hint != NULL ? (size_t) (hint - error) : strlen(error));

	report(look, CRELAY_SEVERITY_CRITICAL, code, look->facts->name,
		   hint != NULL ? hint + strlen(" HINT: ") : or_hint,
		   "%s%s%.*s", what, len > 0 ? ": " : "", len, error);
}

static const char *
size_text(char *text, uint64_t bytes)
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
	int			unit = 0;

	while (bytes >= 10240 && unit < 5)
	{
		bytes = (bytes + 512) / 1024;
		unit++;
	}
	snprintf(text, SIZE_LEN, "%llu %s", (unsigned long long) bytes, units[unit]);
	return text;
}

static const char *
time_text(char *text, int64_t microseconds)
{
	long long	seconds = microseconds > 0 ? (long long) (microseconds / 1000000) : 0;

	if (seconds < 120)
		snprintf(text, SIZE_LEN, "%lld s", seconds);
	else if (seconds < 120 * 60)
		snprintf(text, SIZE_LEN, "%lld min", seconds / 60);
	else
		snprintf(text, SIZE_LEN, "%lld h", seconds / 3600);
	return text;
}

/*
 * A pin as a place.
 */
static const char *
place_text(char *text, const CrelayPin *pin)
{
	const char *on = pin->on[0] != '\0' ? pin->on : CRELAY_UNKNOWN_NODE;

	switch (pin->kind)
	{
		case CRELAY_PIN_NODE:
			snprintf(text, PLACE_LEN, "node \"%s\"", pin->by);
			break;
		case CRELAY_PIN_SLOT:
			snprintf(text, PLACE_LEN, "slot \"%s\" on node \"%s\"", pin->slot, on);
			break;
		case CRELAY_PIN_HOLD:
			snprintf(text, PLACE_LEN, "the hold for node \"%s\" on node \"%s\"", pin->by, on);
			break;
		case CRELAY_PIN_WALSENDER:
			snprintf(text, PLACE_LEN, "the walsender of \"%s\" on node \"%s\"", pin->by, on);
			break;
	}
	return text;
}

/*
 * An LSN as the server prints it.
 */
static const char *
lsn_text(char *text, const CrelayCheckFacts *facts, uint64_t lsn)
{
	snprintf(text, LSN_LEN, "%X/%0*X", (unsigned) (lsn >> 32), facts->lsn_digits,
			 (unsigned) lsn);
	return text;
}

/*
 * A name as a string constant of SQL.  What an application or another node
 * calls itself may have quotes in it.
 */
static const char *
quote_name(char *quoted, size_t size, const char *name)
{
	size_t		at = 0;

	quoted[at++] = '\'';
	for (; *name != '\0' && at + 4 < size; name++)
	{
		if (*name == '\'')
			quoted[at++] = '\'';
		quoted[at++] = *name;
	}
	quoted[at++] = '\'';
	quoted[at] = '\0';
	return quoted;
}

#define QUOTED_LEN	(2 * CRELAY_NAME_LEN + 4)
#define COMMAND_LEN (CRELAY_SLOT_LEN + 2 * CRELAY_SLOT_LEN + 64)

/*
 * The command that ends what a slot of this node keeps.  force: of a hold whose
 * node is known to be somewhere else.
 */
static const char *
drop_command(const CrelayCheckFacts *facts, const CrelayDownstream *d, bool force,
			 char *command)
{
	if (d->kind == CRELAY_KIND_HOLD)
		snprintf(command, COMMAND_LEN, "SELECT %s.cascade_forget('%s'%s);", facts->schema,
				 d->slot_name, force ? ", true" : "");
	else
		snprintf(command, COMMAND_LEN, "SELECT pg_catalog.pg_drop_replication_slot('%s');",
				 d->slot_name);
	return command;
}

/* ---- rows ---- */

/*
 * By name, and namesakes in the order of the tree.
 */
static int
compare_rows(const void *a, const void *b)
{
	const CrelayCheckRow *first = *(const CrelayCheckRow *const *) a;
	const CrelayCheckRow *second = *(const CrelayCheckRow *const *) b;
	int			c = strcmp(first->node->name, second->node->name);

	if (c != 0)
		return c;
	return first < second ? -1 : first > second;
}

/*
 * The first row of that name in by_name, -1 for none.
 */
static int
find_name(const CrelayCheckFacts *facts, const char *name)
{
	int			low = 0;
	int			high = facts->nrows;

	while (low < high)
	{
		int			mid = low + (high - low) / 2;

		if (strcmp(facts->by_name[mid]->node->name, name) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	if (low < facts->nrows && strcmp(facts->by_name[low]->node->name, name) == 0)
		return low;
	return -1;
}

/*
 * Whether the row tells of now: what was said by a node that is away is old.
 */
static bool
is_live(const CrelayCheckRow *row)
{
	if (row->local)
		return true;
	switch (row->state)
	{
		case CRELAY_STATE_RUNNING:
		case CRELAY_STATE_STREAMING:
		case CRELAY_STATE_CATCHUP:
		case CRELAY_STATE_ARCHIVE:
		case CRELAY_STATE_DISCONNECTED:
		case CRELAY_STATE_DIVERGED:
		case CRELAY_STATE_DUPLICATE:
		case CRELAY_STATE_CYCLE:
			return true;
		case CRELAY_STATE_UNKNOWN:
		case CRELAY_STATE_STALE:
		case CRELAY_STATE_DOWN:
			break;
	}
	return false;
}

/*
 * The live row of a name, NULL if there is none.
 */
static const CrelayCheckRow *
find_live(const CrelayCheckFacts *facts, const char *name)
{
	for (int i = find_name(facts, name);
		 i >= 0 && i < facts->nrows && strcmp(facts->by_name[i]->node->name, name) == 0; i++)
	{
		if (is_live(facts->by_name[i]))
			return facts->by_name[i];
	}
	return NULL;
}

/*
 * The node that a row's node streams from, NULL if the tree does not have it.
 */
static const CrelayNode *
upstream_of(const CrelayCheckFacts *facts, const CrelayCheckRow *row)
{
	const char *name = row->node->upstream_name;

	for (int i = name[0] != '\0' ? find_name(facts, name) : -1;
		 i >= 0 && i < facts->nrows && strcmp(facts->by_name[i]->node->name, name) == 0; i++)
	{
		if (facts->by_name[i]->node->incarnation == row->node->upstream_incarnation)
			return facts->by_name[i]->node;
	}
	return NULL;
}

static const char *
upstream_name(const CrelayCheckRow *row)
{
	return row->node->upstream_name[0] ? row->node->upstream_name : CRELAY_UNKNOWN_NODE;
}

/*
 * The live row of the node that the pinning slot or walsender feeds, or of the
 * node that pins by its own position; NULL if there is none.
 */
static const CrelayNode *
find_pinning(const CrelayCheckFacts *facts, const CrelayPin *pin)
{
	for (int i = find_name(facts, pin->by);
		 i >= 0 && i < facts->nrows && strcmp(facts->by_name[i]->node->name, pin->by) == 0; i++)
	{
		const CrelayNode *node = facts->by_name[i]->node;

		if (is_live(facts->by_name[i]) &&
			(pin->kind == CRELAY_PIN_NODE ? node->managed :
			 strcmp(node->upstream_name, pin->on) == 0))
			return node;
	}
	return NULL;
}

static bool
warns(const CrelayCheckRow *row, uint32_t bit)
{
	return is_live(row) && (row->node->warnings & bit) != 0;
}

static bool
is_below_us(const CrelayCheckFacts *facts, const CrelayCheckRow *row)
{
	return !row->local && row->node->upstream_incarnation == facts->incarnation;
}

/*
 * For how long nothing was heard: before this server's start, nothing could be.
 */
static int64_t
silence(const CrelayCheckFacts *facts, int64_t heard_at)
{
	return facts->now - (heard_at > facts->started_at ? heard_at : facts->started_at);
}

static uint64_t
kept_bytes(const CrelayCheckFacts *facts, uint64_t lsn)
{
	return lsn != 0 && facts->own_lsn > lsn ? facts->own_lsn - lsn : 0;
}

/* ---- the exchange ---- */

/*
 * A worker that fails each time, or hangs.  An error that is no newer than what
 * it last got done is not why.
 */
static void
check_worker(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	int64_t		silent = silence(facts, facts->passed_at);
	char		ago[SIZE_LEN];
	char		what[100];

	if (silent <= facts->stale_after)
		return;
	snprintf(what, sizeof(what), "the worker of cascade_relay has got nothing done for %s",
			 time_text(ago, silent));
	report_error(look, CRELAY_CHECK_NO_FREE_WORKER, what,
				 facts->last_error_at > facts->passed_at ? facts->last_error : "",
				 "Look for cascade_relay in this server's log.");
}

/*
 * The nearest node above this one that has no news any more; NULL if each of
 * them is heard of.  One that says itself that it gets no answer is found too.
 */
static const CrelayCheckRow *
find_silent_above(const CrelayCheckFacts *facts)
{
	int			depth = 0;

	for (int i = facts->nrows - 1; i >= 0; i--)
	{
		const CrelayCheckRow *row = &facts->rows[i];

		if (row->local)
			depth = row->depth;
		else if (row->depth < depth)
		{
			if (row->state == CRELAY_STATE_STALE ||
				warns(row, CRELAY_WARN_UPSTREAM_SILENT | CRELAY_WARN_UPSTREAM_REFUSED))
				return row;
			depth = row->depth;
		}
	}
	return NULL;
}

/*
 * An upstream that answers with old news: a worker above was stopped, or hangs.
 * Where a node above says itself that its upstream is silent, that is enough.
 */
static void
check_root(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	const CrelayCheckRow *above = find_silent_above(facts);
	char		ago[SIZE_LEN];

	if (!facts->in_recovery || !facts->answers || facts->root_known || facts->root_age <
		crelay_news_limit(facts->stale_after, facts->path_interval_ms) ||
		(above != NULL && above->state != CRELAY_STATE_STALE))
		return;
	time_text(ago, facts->root_age);
	if (above != NULL)
		report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_UPSTREAM_SILENT, facts->name,
			   "Look for cascade_relay in that server's log; its worker may be ended with pg_terminate_backend, and starts again by itself.",
			   "no news of the primary for %s: the worker of cascade_relay on node \"%s\" has got nothing done; whether this node is protected is not known",
			   ago, above->node->name);
	else
		report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_UPSTREAM_SILENT, facts->name,
			   "See cascade_check on each node between this one and the primary.",
			   "no news of the primary for %s, although the upstream answers; whether this node is protected is not known",
			   ago);
}

static void
check_upstream(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	int64_t		silent = silence(facts, facts->heard_at);
	char		ago[SIZE_LEN];
	char		what[64];

	if (!facts->in_recovery)
		return;
	if (facts->refused && facts->lacks_extension)
		report_error(look, CRELAY_CHECK_EXTENSION_MISSING,
					 "the upstream lacks what takes reports", facts->last_error,
					 "Install, preload and create cascade_relay there.");
	else if (facts->refused)
		report_error(look, CRELAY_CHECK_UPSTREAM_REFUSED,
					 "the upstream does not take reports", facts->last_error,
					 "Look at the upstream's log.");
	else if (!facts->enabled)
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_UPSTREAM_SILENT, facts->name,
			   "Set cascade_relay.enabled to on and reload.",
			   "reports are switched off: holds above this node do not move");
	else if (!facts->has_target)
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_UPSTREAM_SILENT, facts->name,
			   "Set cascade_relay.upstream_conninfo to where the WAL comes from, and reload.",
			   "this standby does not know whom to report to: primary_conninfo is empty");
	else if (facts->waiting && silent > facts->stale_after)
	{
		snprintf(what, sizeof(what), "no reply from the upstream for %s",
				 time_text(ago, silent));
		report_error(look, CRELAY_CHECK_UPSTREAM_SILENT, what, facts->last_error,
					 "Check that the upstream runs, and that this server can reach it.");
	}
}

/*
 * The same of another node, which says only that it is so.
 */
static void
check_upstream_of(Look *look, const CrelayCheckRow *row)
{
	const char *name = row->node->name;

	if (row->local)
		return;
	if (warns(row, CRELAY_WARN_UPSTREAM_REFUSED))
		report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_UPSTREAM_REFUSED, name,
			   "See last_error in cascade_status on that node.",
			   "node \"%s\" says that its upstream does not take its reports", name);
	if (warns(row, CRELAY_WARN_UPSTREAM_SILENT))
		report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_UPSTREAM_SILENT, name,
			   "See last_error in cascade_status on that node.",
			   "node \"%s\" says that its upstream does not answer", name);
}

/* ---- who is who ---- */

static bool
is_claimant(const CrelayCheckRow *row)
{
	return row->node->managed && row->node->incarnation != 0 && is_live(row);
}

/*
 * Whether another live managed node has that name.
 */
static bool
has_namesake(const CrelayCheckFacts *facts, const CrelayCheckRow *row)
{
	if (!is_claimant(row))
		return false;
	for (int i = find_name(facts, row->node->name);
		 i >= 0 && i < facts->nrows &&
		 strcmp(facts->by_name[i]->node->name, row->node->name) == 0; i++)
	{
		const CrelayCheckRow *other = facts->by_name[i];

		if (is_claimant(other) && other->node->incarnation != row->node->incarnation)
			return true;
	}
	return false;
}

/*
 * The node that this one has refused because it has the name or the incarnation
 * of a row, of this node's own or of a child's; NULL for none.
 */
static const CrelayRefused *
find_double(const CrelayCheckFacts *facts, const CrelayCheckRow *row)
{
	if (!row->local && !is_below_us(facts, row))
		return NULL;
	for (int i = 0; i < facts->nturned_away; i++)
	{
		const CrelayRefused *refused = &facts->turned_away[i];

		if (refused->is_double &&
			(refused->incarnation == row->node->incarnation ||
			 strcmp(refused->name, row->node->name) == 0))
			return refused;
	}
	return NULL;
}

static void
check_duplicate(Look *look, const CrelayCheckRow *row)
{
	const CrelayRefused *other = find_double(look->facts, row);
	char		from[CRELAY_SLOT_LEN + 64] = "";

	if (!warns(row, CRELAY_WARN_DUPLICATE_NAME) && !has_namesake(look->facts, row) &&
		(other == NULL || !is_claimant(row)))
		return;
	if (other != NULL)
		snprintf(from, sizeof(from), ": the other one (%08x) calls from %s, and is refused",
				 (unsigned) other->incarnation, other->addr);
	report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_DUPLICATE_NAME, row->node->name,
		   "Give each node a cascade_relay.node_name of its own; for a cloned volume, stop the clone, remove pg_replslot/cascade_relay.state there and start it.",
		   "two live nodes have the name or the incarnation of \"%s\" (%08x); only one of them can be protected%s",
		   row->node->name, (unsigned) row->node->incarnation, from);
}

/*
 * A node that calls here and belongs somewhere else.
 */
static void
check_refused(Look *look)
{
	for (int i = 0; i < look->facts->nturned_away; i++)
	{
		const CrelayRefused *refused = &look->facts->turned_away[i];

		if (refused->is_foreign)
			report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_UPSTREAM_REFUSED, refused->name,
				   "Check primary_conninfo and cascade_relay.upstream_conninfo of that server.",
				   "node \"%s\" calls from %s, and is refused: it belongs to another cluster",
				   refused->name, refused->addr);
	}
}

/*
 * A node that was cloned with its source's upstream_conninfo.
 */
static void
check_elsewhere(Look *look, const CrelayCheckRow *row)
{
	const CrelayNode *node = row->node;
	bool		found = strcmp(row->fed_by, node->upstream_name) != 0;

	if (!warns(row, CRELAY_WARN_REPORTS_ELSEWHERE))
		return;
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_REPORTS_ELSEWHERE, node->name,
		   "Set cascade_relay.upstream_conninfo on that node to where it streams from. Where primary_conninfo says that, it need not be set: ALTER SYSTEM SET cascade_relay.upstream_conninfo = ''; SELECT pg_catalog.pg_reload_conf();",
		   "node \"%s\" reports to \"%s\", but streams from %s%s%s", node->name,
		   node->upstream_name, found ? "\"" : "another node",
		   found ? row->fed_by : "", found ? "\"" : "");
}

/*
 * By the address that they advertise, and in the order of the tree.
 */
static int
compare_addresses(const void *a, const void *b)
{
	const CrelayCheckRow *first = *(const CrelayCheckRow *const *) a;
	const CrelayCheckRow *second = *(const CrelayCheckRow *const *) b;
	int			c = strcmp(first->node->conninfo, second->node->conninfo);

	if (c != 0)
		return c;
	return first < second ? -1 : first > second;
}

/*
 * A node that was cloned with its source's advertised_conninfo: whoever looks for
 * one of the two finds the other.
 */
static void
check_addresses(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	const CrelayCheckRow *first = NULL;
	int			n = 0;

	for (int i = 0; i < facts->nrows; i++)
	{
		if (is_claimant(&facts->rows[i]) && facts->rows[i].node->conninfo[0] != '\0')
			facts->by_address[n++] = &facts->rows[i];
	}
	qsort((void *) facts->by_address, (size_t) n, sizeof(*facts->by_address), compare_addresses);
	for (int i = 0; i < n; i++)
	{
		const CrelayCheckRow *row = facts->by_address[i];

		if (first == NULL || strcmp(first->node->conninfo, row->node->conninfo) != 0)
		{
			first = row;
			continue;
		}
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_DUPLICATE_ADDRESS, row->node->name,
			   "Set cascade_relay.advertised_conninfo on each of them to its own address, and reload.",
			   "nodes \"%s\" and \"%s\" advertise one address: %s", first->node->name,
			   row->node->name, row->node->conninfo);
	}
}

static void
check_cycle(Look *look, const CrelayCheckRow *row)
{
	if (row->state != CRELAY_STATE_CYCLE && !warns(row, CRELAY_WARN_CYCLE))
		return;
	report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_CYCLE, row->node->name,
		   "Point primary_conninfo (or cascade_relay.upstream_conninfo) of one of the nodes on the cycle at a node outside of it.",
		   "following the upstreams from node \"%s\" leads back to where it began, not to a primary",
		   row->node->name);
}

static void
check_diverged(Look *look, const CrelayCheckRow *row)
{
	const CrelayNode *node = row->node;
	const CrelayNode *above = upstream_of(look->facts, row);
	char		lsn[LSN_LEN];

	if (row->state != CRELAY_STATE_DIVERGED)
		return;
	if (above != NULL && above->timeline == node->timeline)
		report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_DIVERGED, node->name,
			   "Its upstream was set back, as by a restored snapshot. Rebuild the node, and those below it; or, if its WAL is the one to keep, promote it. pg_rewind does nothing on one timeline.",
			   "node \"%s\" has WAL, up to %s, that its upstream \"%s\" does not have and will never have: both are on timeline %u",
			   node->name, lsn_text(lsn, look->facts, node->replay_lsn), upstream_name(row),
			   (unsigned) node->timeline);
	else
		report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_DIVERGED, node->name,
			   "One of the two has WAL that the other one will never have: rewind it with pg_rewind, or rebuild it.",
			   "node \"%s\" (timeline %u) is on another history than its upstream \"%s\"",
			   node->name, (unsigned) node->timeline, upstream_name(row));
}

/* ---- what feeds a standby ---- */

/*
 * Whether what a node needs first is gone on its upstream, as far as the two
 * have said.  A node that streams has found it.
 */
static const CrelayNode *
lost_on(const CrelayCheckFacts *facts, const CrelayCheckRow *row)
{
	const CrelayNode *above = upstream_of(facts, row);

	if (above == NULL || row->node->replay_lsn == 0 ||
		row->state == CRELAY_STATE_STREAMING || row->state == CRELAY_STATE_CATCHUP ||
		above->oldest_wal_lsn / facts->segment_size <= row->node->replay_lsn / facts->segment_size)
		return NULL;
	return above;
}

/*
 * Whether it is said already that the upstream of a node does not answer: then
 * nothing comes from there either.
 */
static bool
is_upstream_silent(const CrelayCheckFacts *facts, const CrelayCheckRow *row)
{
	if (!row->local)
		return warns(row, CRELAY_WARN_UPSTREAM_SILENT);
	return facts->waiting && silence(facts, facts->heard_at) > facts->stale_after;
}

/*
 * A standby that nothing feeds, because the WAL is gone where it looks for it.
 */
static void
report_wal_gone(Look *look, const CrelayCheckRow *row)
{
	const CrelayNode *node = row->node;
	const CrelayNode *above = upstream_of(look->facts, row);
	char		hint[COMMAND_LEN + CRELAY_NAME_LEN * 2 + 200];
	char		oldest[64] = "";
	char		lsn[LSN_LEN];

	if (row->better != NULL)
		snprintf(hint, sizeof(hint), "Node \"%s\" still has it. On node \"%s\": SELECT %s.cascade_follow('%s');",
				 row->better, node->name, look->facts->schema, row->better);
	else
		snprintf(hint, sizeof(hint),
				 "No node that it could follow has it any more. Restore it from an archive with restore_command, or rebuild node \"%s\".",
				 node->name);
	if (above != NULL && above->oldest_wal_lsn != 0)
		snprintf(oldest, sizeof(oldest), " (the oldest there is %s)",
				 lsn_text(lsn, look->facts, above->oldest_wal_lsn));
	report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_NOT_STREAMING, node->name, hint,
		   "node \"%s\" gets no WAL: what it needs from %s on is gone on its upstream \"%s\"%s",
		   node->name, lsn_text(lsn, look->facts, node->replay_lsn), upstream_name(row), oldest);
}

static void
check_not_streaming(Look *look, const CrelayCheckRow *row)
{
	const CrelayNode *node = row->node;
	const char *slot_name = row->local ? look->facts->primary_slot_name : NULL;
	char		hint[COMMAND_LEN + CRELAY_NAME_LEN * 2 + 200];
	char		slot[CRELAY_SLOT_LEN + 4] = "";
	char		lsn[LSN_LEN];

	if (!is_live(row) || row->state == CRELAY_STATE_DIVERGED ||
		is_upstream_silent(look->facts, row))
		return;
	if (slot_name != NULL && slot_name[0] != '\0')
		snprintf(slot, sizeof(slot), " \"%s\"", slot_name);
	snprintf(hint, sizeof(hint), "On node \"%s\": SELECT %s.cascade_follow('%s'); gives it a slot there.",
			 node->name, look->facts->schema, upstream_name(row));
	switch (node->feed)
	{
		case CRELAY_FEED_UNKNOWN:
		case CRELAY_FEED_STREAMS:
		case CRELAY_FEED_OTHER:
			break;
		case CRELAY_FEED_NOTHING:
			report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_NOT_STREAMING, node->name,
				   "That server's log has what its walreceiver and its restore_command say. If they say that WAL is invalid, or ahead of the flush position, the node has other WAL than its upstream: rebuild it.",
				   "node \"%s\" gets no WAL: nothing streams or is restored, and replay stands at %s",
				   node->name, lsn_text(lsn, look->facts, node->replay_lsn));
			break;
		case CRELAY_FEED_SLOT_MISSING:
			report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_NOT_STREAMING, node->name, hint,
				   "node \"%s\" gets no WAL: its replication slot%s does not exist on its upstream \"%s\"",
				   node->name, slot, upstream_name(row));
			break;
		case CRELAY_FEED_SLOT_LOST:
			report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_NOT_STREAMING, node->name, hint,
				   "node \"%s\" gets no WAL: its replication slot%s was invalidated by its upstream \"%s\"",
				   node->name, slot, upstream_name(row));
			break;
		case CRELAY_FEED_WAL_GONE:
			report_wal_gone(look, row);
			break;
	}
}

/* ---- what keeps replay back ---- */

/*
 * For how long a node may keep the same WAL, or the same xmin, beyond what is
 * long for others: its delay on purpose; for ever while its replay is paused,
 * which is a finding of its own.
 */
static int64_t
excuse(const CrelayNode *node)
{
	if (node == NULL)
		return 0;
	if (crelay_pause_is_on(node->pause))
		return INT64_MAX / 2;
	return (int64_t) node->apply_delay_ms * 1000;
}

/*
 * What this node keeps for another one that is the cause of it: WAL that is
 * there, and not what was removed since; and vacuum, on the primary.
 */
static const char *
kept_text(const CrelayCheckFacts *facts, const CrelayNode *node, char *buf, size_t size)
{
	uint64_t	from = facts->frontier_lsn > facts->oldest_wal_lsn ?
	facts->frontier_lsn : facts->oldest_wal_lsn;
	char		kept[SIZE_LEN];

	buf[0] = '\0';
	if (facts->pinned_since != 0 && find_pinning(facts, &facts->pin) == node)
		snprintf(buf, size, "; this node keeps %s of WAL for it",
				 size_text(kept, kept_bytes(facts, from)));
	if (!facts->in_recovery && facts->xmin_since != 0 && facts->xmin_age > 0 &&
		strcmp(facts->xmin_pinned_by, node->name) == 0)
		snprintf(buf + strlen(buf), size - strlen(buf), "; it holds back vacuum by %lld transactions",
				 (long long) facts->xmin_age);
	return buf;
}

static void
check_paused(Look *look, const CrelayCheckRow *row)
{
	const char *name = row->node->name;
	char		hint[CRELAY_NAME_LEN + 300];
	char		kept[160];
	char		lsn[LSN_LEN];
	const char *why = "";

	if (!is_live(row) || !crelay_pause_is_on(row->node->pause))
		return;
	switch (row->node->pause)
	{
		case CRELAY_PAUSE_UNKNOWN:
		case CRELAY_PAUSE_NO:
			return;
		case CRELAY_PAUSE_ASKED:
			snprintf(hint, sizeof(hint), "On node \"%s\": SELECT pg_catalog.pg_wal_replay_resume();", name);
			break;
		case CRELAY_PAUSE_SETTINGS:
			why = ", because a setting is lower there than on the primary";
			snprintf(hint, sizeof(hint),
					 "Raise max_connections, max_worker_processes, max_wal_senders, max_prepared_transactions and max_locks_per_transaction on node \"%s\" to what the primary has, and restart it. To resume replay before that shuts it down.",
					 name);
			break;
		case CRELAY_PAUSE_TARGET:
			why = ", because it has reached its recovery target";
			snprintf(hint, sizeof(hint),
					 "To resume replay would end recovery on node \"%s\", and promote it. To let it go on as a standby, take its recovery_target settings out and restart it.",
					 name);
			break;
	}
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_REPLAY_PAUSED, name, hint,
		   "replay of node \"%s\" is paused at %s%s%s", name,
		   lsn_text(lsn, look->facts, row->node->replay_lsn), why,
		   kept_text(look->facts, row->node, kept, sizeof(kept)));
}

static void
check_delayed(Look *look, const CrelayCheckRow *row)
{
	const char *name = row->node->name;
	char		hint[CRELAY_NAME_LEN + 120];
	char		time[SIZE_LEN];
	char		kept[160];

	if (!is_live(row) || row->node->apply_delay_ms == 0)
		return;
	snprintf(hint, sizeof(hint),
			 "If that is not wanted, set recovery_min_apply_delay to 0 on node \"%s\" and reload.", name);
	report(look, CRELAY_SEVERITY_OK, CRELAY_CHECK_DELAYED_STANDBY, name, hint,
		   "node \"%s\" replays %s late on purpose, and all nodes above it keep the WAL of that time%s",
		   name, time_text(time, (int64_t) row->node->apply_delay_ms * 1000),
		   kept_text(look->facts, row->node, kept, sizeof(kept)));
}

static void
check_voting(Look *look, const CrelayCheckRow *row)
{
	if (!row->voting_cascades)
		return;
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_VOTING_CASCADES, row->node->name,
		   "Let it stream from the primary, or make it a read_replica: cascade_relay.replica_class there, synchronous_standby_names on the primary.",
		   "node \"%s\" is on the durability path, and streams from \"%s\", not from the primary",
		   row->node->name, row->node->upstream_name);
}

/*
 * Whether somebody has said, with cascade_release, that a downstream of ours
 * is not waited for.
 */
static bool
is_released(const CrelayCheckFacts *facts, const CrelayNode *node)
{
	for (int i = 0; i < facts->ndownstreams; i++)
	{
		const CrelayDownstream *d = &facts->downstreams[i];

		if (d->released_lsn != 0 && strcmp(d->name, node->name) == 0 &&
			(d->incarnation == 0 || d->incarnation == node->incarnation))
			return true;
	}
	return false;
}

/*
 * Whether a live node has the name of one that is away: it has moved, or was
 * rebuilt.
 */
static bool
lives_again(const CrelayCheckFacts *facts, const char *name)
{
	return find_live(facts, name) != NULL;
}

/*
 * A child that streams, so that it is not stale, and has not reported for long.
 */
static void
check_mute(Look *look, const CrelayCheckRow *row)
{
	const CrelayCheckFacts *facts = look->facts;
	const CrelayNode *node = row->node;
	char		since[SIZE_LEN];

	if (!node->managed || !is_below_us(facts, row) || !is_live(row) ||
		silence(facts, node->observed_at) <=
		crelay_news_limit(facts->stale_after, node->path_interval_ms))
		return;
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_STALE_NODE, node->name,
		   "See cascade_check on that node; what is held for it stays held.",
		   "node \"%s\" streams, but has not reported for %s", node->name,
		   time_text(since, silence(facts, node->observed_at)));
}

static void
check_stale(Look *look, const CrelayCheckRow *row)
{
	const CrelayCheckFacts *facts = look->facts;
	const CrelayNode *node = row->node;
	char		hint[CRELAY_CHECK_TEXT_LEN] = "Look at that server and its log.";
	char		quoted[QUOTED_LEN];
	char		since[SIZE_LEN];

	if (row->local ||
		(row->state != CRELAY_STATE_STALE &&
		 (row->state != CRELAY_STATE_DOWN ||
		  silence(facts, node->observed_at) <= facts->stale_after)))
		return;
	/* what is left of a node that lives is its slot: see orphan_slot */
	if (lives_again(facts, node->name) ||
		(is_below_us(facts, row) && is_released(facts, node)))
		return;
	if (node->upstream_name[0] != '\0')
		snprintf(hint, sizeof(hint),
				 "Look at that server and its log. If it is gone for good, on node \"%s\": SELECT %s.cascade_forget(%s);",
				 node->upstream_name, facts->schema,
				 quote_name(quoted, sizeof(quoted), node->name));
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_STALE_NODE, node->name, hint,
		   "no news of node \"%s\" for %s%s", node->name,
		   node->observed_at < facts->started_at ? "at least " : "",
		   time_text(since, silence(facts, node->observed_at)));
}

/* ---- what is held ---- */

static void
check_unprotected(Look *look, const CrelayCheckRow *row)
{
	const CrelayCheckFacts *facts = look->facts;
	const CrelayNode *node = row->node;
	const char *hint = "It is protected as soon as it has caught up, if the nodes above it can hold WAL for it: see the other findings.";
	const CrelayNode *lost = lost_on(facts, row);
	char		lsn[LSN_LEN];
	char		oldest[LSN_LEN];

	if (node->protected != CRELAY_FALSE)
		return;
	/* what a former life lacked when it ended, nobody can give it any more */
	if (row->state == CRELAY_STATE_DOWN && node->managed && lives_again(facts, node->name))
		return;
	if (crelay_feed_is_cut(node->feed) && is_live(row))
		hint = "First it must get WAL: see the other findings.";
	if (lost != NULL)
		report(look, row->state == CRELAY_STATE_DOWN ? CRELAY_SEVERITY_CRITICAL : CRELAY_SEVERITY_WARNING,
			   CRELAY_CHECK_UNPROTECTED, node->name,
			   "It must get that WAL from a node that still has it, see cascade_upstream_candidates, or from an archive; or it must be rebuilt.",
			   "node \"%s\" is not protected: what it needs from %s on is gone on its upstream \"%s\" (the oldest there is %s)",
			   node->name, lsn_text(lsn, facts, node->replay_lsn), lost->name,
			   lsn_text(oldest, facts, lost->oldest_wal_lsn));
	else if (row->local && facts->held_text[0] != '\0')
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_UNPROTECTED, node->name,
			   facts->held_hint,
			   "this node is not protected: of its upstream, %s", facts->held_text);
	else if (row->state == CRELAY_STATE_DOWN)
		report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_UNPROTECTED, node->name,
			   "Bring it back soon, while its upstream may still have the WAL; give it a slot, or cascade_relay.",
			   "node \"%s\" is away, and the WAL that it needs is not held", node->name);
	else
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_UNPROTECTED, node->name,
			   node->managed ? hint : "Give it a replication slot, or cascade_relay.",
			   "the WAL that node \"%s\" would need without its upstream is not held",
			   node->name);
}

static void
check_slots_of(Look *look, const CrelayCheckRow *row)
{
	if (!warns(row, CRELAY_WARN_NO_FREE_SLOT))
		return;
	report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_NO_FREE_SLOT, row->node->name,
		   "Raise max_replication_slots on that upstream and restart it, or drop a slot that nobody uses.",
		   "upstream \"%s\" has no replication slot to spare for a hold of node \"%s\"",
		   row->node->upstream_name, row->node->name);
}

static void
check_slots(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	int			left = facts->slots_total - facts->slots_used;
	const char *hint = "Raise max_replication_slots and restart this server, or drop a slot that nobody uses.";

	/* who feeds nobody needs none */
	if (facts->slots_used == 0 || left > 1)
		return;
	if (left == 1)
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_NO_FREE_SLOT, facts->name, hint,
			   "one of %d replication slots is free; it is left for a replacement standby, so a new node could not be protected",
			   facts->slots_total);
	else
		report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_NO_FREE_SLOT, facts->name, hint,
			   "all of %d replication slots are in use; no standby could attach here",
			   facts->slots_total);
}

/*
 * Whether all nodes below a child of the root could attach to the root if that
 * child were lost.  Its walsender would be free then; its slots stay.
 */
static void
check_room(Look *look, const CrelayCheckRow *row)
{
	const CrelayCheckFacts *facts = look->facts;
	const CrelayCheckRow *root = row;
	const CrelayCheckRow *end = facts->rows + facts->nrows;
	CrelayRoom	room;
	int			below = 0;
	int			placed = 0;

	while (root > facts->rows && root->depth > 0)
		root--;
	if (row->depth != 1 || !is_live(row) || root->node->role != CRELAY_ROLE_PRIMARY ||
		!is_live(root) || !root->node->room.known)
		return;
	room = root->node->room;
	room.senders += row->state == CRELAY_STATE_STREAMING || row->state == CRELAY_STATE_CATCHUP;
	for (const CrelayCheckRow *node = row + 1; node < end && node->depth > 1; node++)
	{
		if (node->depth != 2 || !is_live(node))
			continue;
		below++;
		placed += crelay_room_take(&room, node->node->managed);
	}
	if (placed < below)
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_NO_ROOM, row->node->name,
			   room.senders == 0 ?
			   "Raise max_wal_senders, on the standbys first, and restart; or drop a walsender that is not needed." :
			   "Raise max_replication_slots and restart that server, or drop a slot that is not used; a managed standby takes two.",
			   "without node \"%s\", only %d of the %d nodes that stream from it would find a place on \"%s\", which has %u free walsenders and %u free replication slots",
			   row->node->name, placed, below, root->node->name,
			   (unsigned) root->node->room.senders, (unsigned) root->node->room.slots);
}

static const CrelayCheckChild *
child_of(const CrelayCheckFacts *facts, const CrelayDownstream *d)
{
	return d->child >= 0 ? &facts->children[d->child] : NULL;
}

/*
 * Whether a hold was dropped by somebody else while its node was away, and could
 * not be placed again where that node, or one below it, needs it.
 */
static bool
is_placed_too_high(const CrelayCheckFacts *facts, const CrelayDownstream *d)
{
	uint64_t	need = d->reported ? d->reported_frontier : d->remembered_need;

	if (need == 0)
		need = d->remembered_lsn;
	return d->kind == CRELAY_KIND_HOLD && d->dropped_at > d->last_report_time &&
		d->restart_lsn != 0 && !d->clamped &&
		need / facts->segment_size < d->restart_lsn / facts->segment_size;
}

/*
 * Of each node that should be held here, its own finding says that it is not.
 */
static void
check_keep_size(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	bool		wanted = false;

	for (int i = 0; i < facts->ndownstreams; i++)
	{
		const CrelayDownstream *d = &facts->downstreams[i];

		if (d->kind == CRELAY_KIND_HOLD && !d->ancestor && d->released_lsn == 0)
			wanted = true;
	}
	if (facts->can_hold || !wanted)
		return;
	report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_KEEP_SIZE_TOO_LOW, facts->name,
		   "Set max_slot_wal_keep_size to what the disk can bear, several WAL segments at least, or to -1, and reload.",
		   "max_slot_wal_keep_size is less than one WAL segment: the server gives up every replication slot that lags, and this node can hold nothing");
}

/*
 * A hold that was dropped is placed again, and its node, or this one for a node
 * that is away, says so.  Here it is about what could not be done.
 */
static void
check_dropped(Look *look, const CrelayDownstream *d)
{
	const CrelayCheckFacts *facts = look->facts;
	const CrelayCheckChild *child = child_of(facts, d);
	bool		gone = d->slot_name[0] == '\0' && (d->missed || (child != NULL && child->held));
	bool		too_high = is_placed_too_high(facts, d);
	char		lsn[LSN_LEN];

	if (d->kind != CRELAY_KIND_HOLD || (!gone && !d->invalidated && !too_high) ||
		!facts->can_hold || (child != NULL && !child->away) || d->released_lsn != 0 || d->own || d->ancestor ||
		lives_again(facts, d->name))
		return;
	if (too_high)
	{
		report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_HOLD_DROPPED, d->name,
			   d->dropped_by_server ?
			   "Bring the node back soon, if its WAL is still there. Raise max_slot_wal_keep_size, if there is room for the WAL." :
			   "Bring the node back soon, if its WAL is still there. An HA manager may drop slots that it does not know: exempt those whose names begin with cascade_relay_.",
			   "the hold of node \"%s\", which is away, was %s, and could be placed again only at %s: WAL that it may need before that is not held any more",
			   d->name, d->dropped_by_server ? "invalidated by the server (max_slot_wal_keep_size)" : "dropped by somebody else",
			   lsn_text(lsn, facts, d->restart_lsn));
		return;
	}
	report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_HOLD_DROPPED, d->name,
		   gone ? "Bring the node back soon. An HA manager may drop slots that it does not know: exempt those whose names begin with cascade_relay_." :
		   "Bring the node back soon. Raise max_slot_wal_keep_size, if there is room for the WAL.",
		   gone ? "the hold of node \"%s\", which is away, was dropped by somebody else: its WAL is not held any more" :
		   "the hold of node \"%s\", which is away, was invalidated by the server (max_slot_wal_keep_size): its WAL is not held any more",
		   d->name);
}

static void
check_dropped_of(Look *look, const CrelayCheckRow *row)
{
	const CrelayCheckFacts *facts = look->facts;
	bool		by_server;

	/* of a node that is away, its upstream says so in its row */
	if (!warns(row, CRELAY_WARN_HOLD_LOST) &&
		(row->state != CRELAY_STATE_DOWN || lives_again(facts, row->node->name) ||
		 (row->node->warnings & CRELAY_WARN_HOLD_LOST) == 0))
		return;
	for (int i = 0; i < facts->ndownstreams; i++)
	{
		/* that says more */
		if (is_placed_too_high(facts, &facts->downstreams[i]) &&
			facts->downstreams[i].incarnation == row->node->incarnation)
			return;
	}
	by_server = (row->node->warnings & CRELAY_WARN_HOLD_INVALIDATED) != 0;
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_HOLD_DROPPED, row->node->name,
		   by_server ? "Raise max_slot_wal_keep_size there, if there is room for the WAL." :
		   "An HA manager may drop slots that it does not know: exempt those whose names begin with cascade_relay_.",
		   "the hold of node \"%s\" on \"%s\" was %s, and was placed again: WAL may have been lost",
		   row->node->name, row->node->upstream_name,
		   by_server ? "invalidated by the server (max_slot_wal_keep_size)" : "dropped by somebody else");
}

/*
 * Of a slot that is no hold: nobody but its node's owner can mend that.
 */
static void
check_lost(Look *look, const CrelayDownstream *d)
{
	const CrelayCheckFacts *facts = look->facts;
	char		hint[CRELAY_SLOT_LEN + 300];

	if (d->kind != CRELAY_KIND_SLOT || d->invalidated_by == NULL || d->logical ||
		d->temporary || d->ignored || d->ancestor || d->released_lsn != 0 || d->elsewhere)
		return;
	if (d->incarnation != 0)
	{
		snprintf(hint, sizeof(hint),
				 "SELECT pg_catalog.pg_drop_replication_slot('%s'); and make it again before the node comes back, or point the node elsewhere with cascade_follow().",
				 d->slot_name);
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_SLOT_LOST, d->name, hint,
			   "replication slot \"%s\" was invalidated by the server (%s): node \"%s\" cannot stream through it any more",
			   d->slot_name, d->invalidated_by, d->name);
		return;
	}
	if (d->remembered_lsn != 0)
	{
		snprintf(hint, sizeof(hint),
				 "Point the node at a node above this one, where cascade_adopt() makes a slot for it, and then: SELECT pg_catalog.pg_drop_replication_slot('%s');",
				 d->slot_name);
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_SLOT_LOST, d->name, hint,
			   "replication slot \"%s\" was invalidated by the server (%s): node \"%s\" cannot stream from here, but the nodes above are asked to keep the WAL that it needs",
			   d->slot_name, d->invalidated_by, d->name);
		return;
	}
	snprintf(hint, sizeof(hint),
			 "Rebuild the node, unless it finds its WAL elsewhere; see whether %s is right; and then: SELECT pg_catalog.pg_drop_replication_slot('%s');",
			 d->invalidated_by, d->slot_name);
	report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_SLOT_LOST, d->name, hint,
		   facts->in_recovery ?
		   "replication slot \"%s\" was invalidated by the server (%s): no node is known to keep the WAL that node \"%s\" needs" :
		   "replication slot \"%s\" was invalidated by the server (%s): the WAL that node \"%s\" needs is not kept any more",
		   d->slot_name, d->invalidated_by, d->name);
}

/*
 * The bytes that the hold that keeps most keeps; 0 without any hold.
 */
static uint64_t
kept_by_holds(const CrelayCheckFacts *facts)
{
	uint64_t	kept = 0;

	for (int i = 0; i < facts->ndownstreams; i++)
	{
		const CrelayDownstream *d = &facts->downstreams[i];

		if (d->kind == CRELAY_KIND_HOLD && d->slot_name[0] != '\0' &&
			kept_bytes(facts, d->restart_lsn) > kept)
			kept = kept_bytes(facts, d->restart_lsn);
	}
	return kept;
}

/*
 * What it costs a branch of ours that a bound has moved its hold.  Of a node
 * that has not called yet nothing is known but that hold.
 */
static Cost
cost_of(const CrelayCheckFacts *facts, const CrelayDownstream *d)
{
	uint64_t	held_segment = d->restart_lsn / facts->segment_size;

	if (d->kind != CRELAY_KIND_HOLD || !d->counted || !d->clamped)
		return COST_NOTHING;
	if (!d->reported ||
		(d->reported_frontier != 0 && d->reported_frontier / facts->segment_size < held_segment))
		return COST_NODES;
	return COST_CLONES;
}

/*
 * Whether a hold keeps more than three quarters of what it may.
 */
static bool
is_near_limit(const CrelayCheckFacts *facts, const CrelayDownstream *d)
{
	return d->kind == CRELAY_KIND_HOLD && d->counted && d->slot_name[0] != '\0' &&
		facts->size_limit > 0 && kept_bytes(facts, d->restart_lsn) >
		(uint64_t) (facts->size_limit - facts->size_limit / 4);
}

static void
check_clamped(Look *look, const CrelayDownstream *d)
{
	const CrelayCheckFacts *facts = look->facts;
	const char *hint = "Raise cascade_relay.max_hold_size or max_slot_wal_keep_size, if there is room for the WAL.";
	char		kept[SIZE_LEN];
	char		limit[SIZE_LEN];
	char		place[PLACE_LEN];

	place_text(place, &d->pin);
	if (d->clamped_by_disk)
		hint = "Give pg_wal more room: see disk_reserve.";
	switch (cost_of(facts, d))
	{
		case COST_NODES:
			report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_HOLD_CLAMPED, d->name, hint,
				   "the hold of node \"%s\" has reached its size limit: WAL that %s needs was given up",
				   d->name, place);
			break;
		case COST_CLONES:
			report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_HOLD_CLAMPED, d->name, hint,
				   "the hold of node \"%s\" has reached its size limit: a standby cloned from there would not be protected",
				   d->name);
			break;
		case COST_NOTHING:
			if (is_near_limit(facts, d))
				report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_HOLD_CLAMPED, d->name, hint,
					   "the hold of node \"%s\" keeps %s of at most %s, pinned by %s: soon WAL is given up",
					   d->name, size_text(kept, kept_bytes(facts, d->restart_lsn)),
					   size_text(limit, (uint64_t) facts->size_limit), place);
			break;
	}
}

/*
 * The disk is short, and not by holds alone: they are not given up for nothing.
 */
static void
check_kept(Look *look, const char *room)
{
	const CrelayCheckFacts *facts = look->facts;
	const char *hint = "";
	char		drop[CRELAY_SLOT_LEN + 200];
	char		keeper[CRELAY_SLOT_LEN + 32];

	switch (facts->disk.kept_by)
	{
		case CRELAY_KEPT_BY_NOTHING:
			return;
		case CRELAY_KEPT_BY_SLOT:
			snprintf(keeper, sizeof(keeper), "replication slot \"%s\"", facts->disk.kept_slot);
			snprintf(drop, sizeof(drop),
					 "Give pg_wal more room, or see to it that the slot moves on. If nobody needs it: SELECT pg_catalog.pg_drop_replication_slot('%s');",
					 facts->disk.kept_slot);
			hint = drop;
			break;
		case CRELAY_KEPT_BY_KEEP_SIZE:
			snprintf(keeper, sizeof(keeper), "wal_keep_size");
			hint = "Give pg_wal more room, or lower wal_keep_size and reload.";
			break;
		case CRELAY_KEPT_BY_SUMMARY:
			snprintf(keeper, sizeof(keeper), "the WAL summarizer");
			hint = "Give pg_wal more room, and see in the log why the WAL summarizer does not get on; summarize_wal = off switches it off.";
			break;
		case CRELAY_KEPT_BY_ARCHIVER:
			snprintf(keeper, sizeof(keeper), "the archiver");
			hint = "Give pg_wal more room, and see in the log and in pg_stat_archiver why WAL is not archived.";
			break;
	}
	report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_DISK_RESERVE, facts->name, hint,
		   "with %s free on the file system of pg_wal, holds cannot make enough room: %s keeps the WAL all the same",
		   room, keeper);
}

/*
 * What the disk costs, or is about to.  What fills it need not be a hold; but
 * only where there is one, somebody loses by it.
 */
static void
check_disk(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	const CrelayDiskBound *disk = &facts->disk;
	char		hint[CRELAY_CHECK_TEXT_LEN];
	uint64_t	kept = kept_by_holds(facts);
	bool		near = disk->left < (int64_t) (disk->reserve / 2);
	Cost		cost = COST_NOTHING;
	char		size[SIZE_LEN];
	char		room[SIZE_LEN];

	if (!disk->known || kept == 0)
		return;
	for (int i = 0; i < facts->ndownstreams; i++)
	{
		const CrelayDownstream *d = &facts->downstreams[i];

		if (d->clamped_by_disk && cost_of(facts, d) > cost)
			cost = cost_of(facts, d);
	}
	size_text(size, kept);
	size_text(room, disk->free);
	snprintf(hint, sizeof(hint),
			 "Give pg_wal more room, or bring back the nodes that it is kept for: SELECT * FROM %s.cascade_downstreams ORDER BY retained_bytes DESC; What is to stay free is cascade_relay.min_free_percent, and what WAL needs until the next checkpoint, up to max_wal_size.",
			 facts->schema);
	if (cost == COST_NODES && near)
		report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_DISK_RESERVE, facts->name, hint,
			   "with %s free on the file system of pg_wal, holds keep %s and not what is needed",
			   room, size);
	else if (disk->left < 0 && disk->kept_by == CRELAY_KEPT_BY_NOTHING)
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_DISK_RESERVE, facts->name, hint,
			   "with %s free on the file system of pg_wal, holds may keep no more than the %s that they do: who falls behind will not be protected",
			   room, size);
	else if (disk->left >= 0 && near && kept > (uint64_t) facts->max_wal_size)
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_DISK_RESERVE, facts->name, hint,
			   "with %s free on the file system of pg_wal, holds that keep %s must soon give up WAL",
			   room, size);
	check_kept(look, room);
}

/*
 * The same of nodes that are not below this one.
 */
static void
check_clamped_of(Look *look, const CrelayCheckRow *row)
{
	const CrelayCheckFacts *facts = look->facts;
	const CrelayNode *node = row->node;
	bool		given_up = node->protected == CRELAY_FALSE;
	char		place[PLACE_LEN];

	if (!warns(row, CRELAY_WARN_HOLD_CLAMPED) || is_below_us(facts, row))
		return;
	if (row->local && facts->frontier_lsn != 0 &&
		facts->upstream_held_lsn / facts->segment_size > facts->frontier_lsn / facts->segment_size)
		given_up = true;
	report(look, given_up ? CRELAY_SEVERITY_CRITICAL : CRELAY_SEVERITY_WARNING,
		   CRELAY_CHECK_HOLD_CLAMPED, node->name,
		   "See cascade_check on that upstream: cascade_relay.max_hold_size, max_slot_wal_keep_size or the room on its disk is the limit.",
		   "the hold of node \"%s\" on \"%s\" has reached its size limit%s%s", node->name,
		   node->upstream_name, given_up ? ": WAL that is needed was given up, pinned by " : "",
		   given_up ? place_text(place, &node->pin) : "");
}

/*
 * A node whose silence costs it its hold, or is about to.
 */
static void
check_silent(Look *look, const CrelayDownstream *d)
{
	const CrelayCheckFacts *facts = look->facts;
	bool		has_hold = d->slot_name[0] != '\0' || d->missed;
	char		silent[SIZE_LEN];
	char		left[SIZE_LEN];

	/* a released one whose slots somebody has dropped is done with */
	if (facts->hold_timeout == 0 || d->kind != CRELAY_KIND_HOLD ||
		(!has_hold && (d->child < 0 || d->released_lsn != d->lapsed_lsn)) ||
		d->own || d->ancestor || d->elsewhere || d->silent <= facts->hold_timeout / 2)
		return;
	time_text(silent, d->silent);
	time_text(left, d->silent < facts->hold_timeout ? facts->hold_timeout - d->silent : 0);
	if (d->lapsed_lsn != 0)
		report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_HOLD_TIMEOUT, d->name,
			   "Bring the node back soon, while the WAL may still be there; if it is gone for good, forget it.",
			   "node \"%s\", which has no hold, has not reported for %s: WAL that it or a node below it needs is not asked for any more",
			   d->name, silent);
	else if (d->released_lsn != 0 && d->silent >= facts->hold_timeout)
		report(look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_HOLD_TIMEOUT, d->name,
			   "Bring the node back soon, while the WAL may still be there; if it is gone for good, drop its slots.",
			   "the hold of node \"%s\" was released, because it has not reported for %s: WAL that it or a node below it needs is not kept any more",
			   d->name, silent);
	else
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_HOLD_TIMEOUT, d->name,
			   "Bring the node back, or raise cascade_relay.hold_timeout.",
			   "node \"%s\" has not reported for %s; in another %s %s",
			   d->name, silent, left,
			   has_hold ? "its hold is released" : "what it needs does not count any more");
}

/*
 * What to do about a pin, on the node where that works.
 */
static void
advise_pin(const CrelayCheckFacts *facts, const CrelayPin *pin, char *hint, size_t size)
{
	const CrelayNode *node = find_pinning(facts, pin);

	if (pin->kind == CRELAY_PIN_HOLD)
		snprintf(hint, size, "Bring node \"%s\" back. If it will not come back, on node \"%s\": SELECT %s.cascade_forget('%s');",
				 pin->by, pin->on, facts->schema, pin->slot);
	else if (pin->kind == CRELAY_PIN_SLOT && node == NULL)
		snprintf(hint, size, "No node is seen to stream through it, whatever it is called. If it is not needed, on node \"%s\": SELECT pg_catalog.pg_drop_replication_slot('%s'); or list it there in cascade_relay.ignore_slots.",
				 pin->on, pin->slot);
	else if (pin->kind == CRELAY_PIN_NODE && node != NULL && node->upstream_name[0] != '\0')
		snprintf(hint, size, "Find out why node \"%s\" does not go on. To let go of its WAL, on node \"%s\": SELECT %s.cascade_release('%s');",
				 pin->by, node->upstream_name, facts->schema, pin->by);
	else
		snprintf(hint, size, "Find out why \"%s\" does not go on.", pin->by);
}

static void
check_pinned(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	const CrelayPin *pin = &facts->pin;
	int64_t		since = facts->now - facts->pinned_since;
	char		hint[CRELAY_CHECK_TEXT_LEN];
	char		via[CRELAY_NAME_LEN + 32] = "";
	char		place[PLACE_LEN];
	char		size[SIZE_LEN];
	char		time[SIZE_LEN];
	char		lsn[LSN_LEN];
	char		oldest[LSN_LEN];

	if (facts->pinned_since == 0 ||
		since - excuse(find_pinning(facts, pin)) <= facts->stale_after * CRELAY_LONG_TIMEOUTS)
		return;
	if (facts->pinned_via != NULL && strcmp(pin->on, facts->name) != 0 &&
		strcmp(pin->on, facts->pinned_via) != 0)
		snprintf(via, sizeof(via), ", by way of \"%s\",", facts->pinned_via);
	advise_pin(facts, pin, hint, sizeof(hint));
	if (facts->frontier_lsn / facts->segment_size < facts->oldest_wal_lsn / facts->segment_size)
	{
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_PINNED_LONG, pin->by, hint,
			   "what %s%s needs from %s on is gone here (the oldest is %s); %s of later WAL are kept for it",
			   place_text(place, pin), via, lsn_text(lsn, facts, facts->frontier_lsn),
			   lsn_text(oldest, facts, facts->oldest_wal_lsn),
			   size_text(size, kept_bytes(facts, facts->oldest_wal_lsn)));
		return;
	}
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_PINNED_LONG, pin->by, hint,
		   "%s%s has been keeping this node from removing WAL for %s; %s are kept for it",
		   place_text(place, pin), via, time_text(time, since),
		   size_text(size, kept_bytes(facts, facts->frontier_lsn)));
}

#define REASON_LEN	(2 * CRELAY_NAME_LEN + 64)

/*
 * Where a live node is that does not stream from here.
 */
static const char *
lives_where(char *reason, const CrelayCheckRow *row)
{
	if (row->local)
		snprintf(reason, REASON_LEN, "it is called like this node, which does not stream from itself");
	else if (row->node->upstream_name[0] != '\0')
		snprintf(reason, REASON_LEN, "node \"%s\" streams from \"%s\", not from here",
				 row->node->name, row->node->upstream_name);
	else
		snprintf(reason, REASON_LEN, "node \"%s\" does not stream from here", row->node->name);
	return reason;
}

/*
 * Why a slot that is not in use will probably not be used again; NULL if its
 * node is known and only away.  reason: room for words that name nodes.
 */
static const char *
orphan_reason(const CrelayCheckFacts *facts, const CrelayDownstream *d, char *reason)
{
	bool		known = d->kind == CRELAY_KIND_HOLD || d->managed;
	bool		rebuilt = false;

	for (int i = find_name(facts, d->name);
		 i >= 0 && i < facts->nrows && strcmp(facts->by_name[i]->node->name, d->name) == 0; i++)
	{
		const CrelayCheckRow *row = facts->by_name[i];
		bool		below_us = is_below_us(facts, row);

		known = true;
		if (!is_live(row))
			continue;
		/* the node itself: where is it? */
		if (d->incarnation != 0 && row->node->incarnation == d->incarnation)
		{
			if (!below_us)
				return lives_where(reason, row);
			return d->kind == CRELAY_KIND_SLOT && !d->managed ? "its node streams without it" : NULL;
		}
		if (d->incarnation != 0)
			rebuilt = row->node->managed || rebuilt;
		else if (!below_us)
			return lives_where(reason, row);
		else if (row->node->managed)
			return "its node streams without it";
		else
			return NULL;
	}
	if (rebuilt)
		return "it was for an earlier life of its node, which was rebuilt";
	return known ? NULL : "no known node uses it";
}

/*
 * A slot whose node is live below another one, and has not raised its move
 * counter: it is on its way, or a node above it does not hold its frontier yet.
 */
static void
check_claimed(Look *look, const CrelayDownstream *d)
{
	const CrelayCheckFacts *facts = look->facts;
	char		hint[COMMAND_LEN + 100];
	char		command[COMMAND_LEN];
	char		size[SIZE_LEN];

	snprintf(hint, sizeof(hint), "Look at that node. If it streams and is protected there: %s",
			 drop_command(facts, d, true, command));
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_ORPHAN_SLOT, d->name, hint,
		   "replication slot \"%s\" keeps %s of WAL and is not in use: its node is seen below \"%s\", and its move is not confirmed",
		   d->slot_name, size_text(size, kept_bytes(facts, d->restart_lsn)), d->claimed_by);
}

/*
 * Returns true if a slot keeps WAL that no process reads.  After a start every
 * node gets the time to come back.
 */
static bool
is_idle(const CrelayCheckFacts *facts, const CrelayDownstream *d)
{
	return d->slot_name[0] != '\0' && d->pid == 0 && !d->temporary && !d->invalidated &&
		d->restart_lsn != 0 &&
		d->restart_lsn / facts->segment_size < facts->own_lsn / facts->segment_size &&
		facts->now - facts->started_at > facts->stale_after;
}

/*
 * Returns true if a slot is idle, and its node will probably not use it again.
 * *reason says why, as long as room lasts; NULL if another node says so, and the
 * slot's own has not proven it.
 */
static bool
is_orphan(const CrelayCheckFacts *facts, const CrelayDownstream *d, char *room,
		  const char **reason)
{
	/* a released hold moves on, but what others have made stays where it is */
	if (!is_idle(facts, d) || d->logical || d->ignored || d->own ||
		(d->released_lsn != 0 && d->kind == CRELAY_KIND_HOLD))
		return false;
	*reason = NULL;
	if (d->claimed_by[0] != '\0')
		return true;
	*reason = orphan_reason(facts, d, room);
	return *reason != NULL;
}

static void
check_orphan(Look *look, const CrelayDownstream *d)
{
	const CrelayCheckFacts *facts = look->facts;
	const char *reason;
	char		room[REASON_LEN];
	char		hint[COMMAND_LEN + 100];
	char		command[COMMAND_LEN];
	char		size[SIZE_LEN];

	if (!is_orphan(facts, d, room, &reason))
		return;
	if (reason == NULL)
	{
		check_claimed(look, d);
		return;
	}
	snprintf(hint, sizeof(hint), "If nobody will come back for it: %s",
			 drop_command(facts, d, false, command));
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_ORPHAN_SLOT, d->name, hint,
		   "replication slot \"%s\" keeps %s of WAL and is not in use: %s",
		   d->slot_name, size_text(size, kept_bytes(facts, d->restart_lsn)), reason);
}

/*
 * An idle slot that fills the disk, whether it counts or not: a logical one, one
 * of ignore_slots, one of a node that is away.  What the extension holds is
 * bounded, and has findings of its own.
 */
static void
check_idle(Look *look, const CrelayDownstream *d)
{
	const CrelayCheckFacts *facts = look->facts;
	const char *reason;
	char		room[REASON_LEN];
	char		hint[COMMAND_LEN + 100];
	char		command[COMMAND_LEN];
	char		size[SIZE_LEN];
	char		limit[SIZE_LEN];

	if (d->kind == CRELAY_KIND_HOLD || !is_idle(facts, d) ||
		kept_bytes(facts, d->restart_lsn) <= (uint64_t) facts->max_wal_size ||
		is_orphan(facts, d, room, &reason))
		return;
	snprintf(hint, sizeof(hint), "Start what reads it. If that is gone for good: %s",
			 drop_command(facts, d, false, command));
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_IDLE_SLOT, d->name, hint,
		   "%s slot \"%s\" is not in use, and keeps %s of WAL on this disk, more than max_wal_size (%s)",
		   d->logical ? "logical" : "replication", d->slot_name,
		   size_text(size, kept_bytes(facts, d->restart_lsn)),
		   size_text(limit, (uint64_t) facts->max_wal_size));
}

/*
 * What this node held on itself as a standby stays until everybody is back
 * after its promotion.  That can be for ever, if nobody says otherwise.
 */
static void
check_local_hold(Look *look, const CrelayDownstream *d)
{
	const CrelayCheckFacts *facts = look->facts;
	char		hint[COMMAND_LEN + 200];
	char		who[CRELAY_NAME_LEN + 64];
	char		size[SIZE_LEN];

	if (!d->own || d->former || facts->in_recovery || d->slot_name[0] == '\0' || d->restart_lsn == 0 ||
		d->restart_lsn / facts->segment_size >= facts->own_lsn / facts->segment_size ||
		(facts->knows_awaited && facts->awaited == 0))
		return;
	if (!facts->knows_awaited)
		snprintf(who, sizeof(who), "nodes that it does not know any more since its restart");
	else if (facts->awaited == 1)
		snprintf(who, sizeof(who), "node \"%s\"", facts->first_awaited);
	else
		snprintf(who, sizeof(who), "node \"%s\" and %d more", facts->first_awaited,
				 facts->awaited - 1);
	snprintf(hint, sizeof(hint),
			 "It goes by itself when all of them are protected here again. If they will not come back: SELECT %s.cascade_forget('%s');",
			 facts->schema,
			 d->slot_name);
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_ORPHAN_SLOT, facts->name, hint,
		   "since this node was promoted, hold \"%s\" keeps %s of WAL for %s",
		   d->slot_name, size_text(size, kept_bytes(facts, d->restart_lsn)), who);
}

/*
 * A local hold of a former life of this node: nothing moves it any more.
 */
static void
check_former_hold(Look *look, const CrelayDownstream *d)
{
	const CrelayCheckFacts *facts = look->facts;
	char		hint[COMMAND_LEN + 100];
	char		size[SIZE_LEN];

	if (!d->former || d->slot_name[0] == '\0' || d->restart_lsn == 0)
		return;
	snprintf(hint, sizeof(hint), "It is not needed any more: SELECT %s.cascade_forget('%s');",
			 facts->schema, d->slot_name);
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_FORMER_LIFE, facts->name, hint,
		   "local hold \"%s\" keeps %s of WAL on this node for the name that it had before",
		   d->slot_name, size_text(size, kept_bytes(facts, d->restart_lsn)));
}

/*
 * A row that is a former life of this node: the node above it holds WAL for it.
 */
static void
check_former_life(Look *look, const CrelayCheckRow *row)
{
	const CrelayCheckFacts *facts = look->facts;
	const CrelayNode *node = row->node;
	char		hint[COMMAND_LEN + 2 * CRELAY_NAME_LEN + 100];

	for (int i = 0; i < facts->nformer; i++)
	{
		const CrelayLife *life = &facts->former[i];

		if (node->incarnation != life->incarnation || strcmp(node->name, life->name) != 0 ||
			node->upstream_name[0] == '\0')
			continue;
		snprintf(hint, sizeof(hint),
				 "When this node is protected under its present name, on node \"%s\": SELECT %s.cascade_forget('%s%s_%08x', true);",
				 node->upstream_name, facts->schema, CRELAY_HOLD_PREFIX, life->name, (unsigned) life->incarnation);
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_FORMER_LIFE, facts->name, hint,
			   "this node was called \"%s\" before, and node \"%s\" goes on holding WAL for that",
			   life->name, node->upstream_name);
	}
}

/*
 * A candidate whose local hold is above what the tree needs: as after it was
 * placed anew, until the nodes that lag have passed it.
 */
static void
check_local_hold_high(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;

	if (facts->local_hold_high_since == 0 ||
		facts->now - facts->local_hold_high_since < facts->stale_after)
		return;
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_LOCAL_HOLD_HIGH, facts->name,
		   "It comes down by itself when a slot that covers the move stands there; else wait until the nodes that lag have caught up, and do not promote this node before.",
		   "if this node is promoted, nodes that need WAL from %X/%0*X on may not find it here",
		   (unsigned) (facts->tree_hold_lsn >> 32), facts->lsn_digits,
		   (unsigned) facts->tree_hold_lsn);
}

/*
 * A root without a failover candidate.  With a single standby nobody else could
 * lack WAL after a promotion.
 */
static void
check_candidate(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	int			standbys = 0;

	if (facts->in_recovery)
		return;
	for (int i = 0; i < facts->nrows; i++)
	{
		if (facts->rows[i].node->role == CRELAY_ROLE_PRIMARY)
			continue;
		if (crelay_class_votes(facts->rows[i].node->replica_class))
			return;
		standbys++;
	}
	if (standbys > 1)
		report(look, CRELAY_SEVERITY_OK, CRELAY_CHECK_NO_CANDIDATE, facts->name,
			   "On a standby that streams from this node and may be promoted: ALTER SYSTEM SET cascade_relay.replica_class = 'voting'; then reload. It keeps on its own disk what the whole tree needs.",
			   "no standby is voting: if this node dies, the WAL that it holds for nodes that lag dies with it");
}

static void
check_name(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;

	if (facts->passed_over_name != NULL)
		report(look, CRELAY_SEVERITY_OK, CRELAY_CHECK_KEPT_NAME, facts->name,
			   "If it is to be called so for good, set cascade_relay.node_name to that. Another name makes it another node for those that hold WAL for it.",
			   "this node goes on as \"%s\"; by its host name and port it would be \"%s\"",
			   facts->name, facts->passed_over_name);
}

/*
 * The slots of others that keep WAL for a child that is away, as commands.
 */
static void
add_slot_commands(const CrelayCheckFacts *facts, int child, char *hint, size_t size)
{
	for (int i = 0; i < facts->ndownstreams; i++)
	{
		const CrelayDownstream *d = &facts->downstreams[i];
		size_t		len = strlen(hint);

		if (d->kind == CRELAY_KIND_SLOT && d->child == child && d->pid == 0 &&
			!d->adopted && d->restart_lsn != 0)
			snprintf(hint + len, size - len, " SELECT pg_catalog.pg_drop_replication_slot('%s');",
					 d->slot_name);
	}
}

/*
 * A node that is away, and that nobody waits for any more.
 */
static void
check_left(Look *look, const CrelayDownstream *d)
{
	const CrelayCheckFacts *facts = look->facts;
	const CrelayCheckChild *child = child_of(facts, d);
	char		hint[CRELAY_CHECK_TEXT_LEN];
	char		size[SIZE_LEN];

	if (d->kind != CRELAY_KIND_HOLD || d->slot_name[0] == '\0' || d->own ||
		child == NULL || child->left_by == NULL)
		return;
	snprintf(hint, sizeof(hint), "If it will not come back: SELECT %s.cascade_forget('%s');",
			 facts->schema, d->name);
	add_slot_commands(facts, d->child, hint, sizeof(hint));
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_ORPHAN_SLOT, d->name, hint,
		   "node \"%s\" is away, and all that streamed from it (%s) is protected elsewhere: its hold keeps %s of WAL for it alone",
		   d->name, child->left_by, size_text(size, kept_bytes(facts, d->restart_lsn)));
}

static void
check_bounds(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	uint64_t	kept = kept_by_holds(facts);
	bool		holds = false;
	char		size[SIZE_LEN];

	for (int i = 0; i < facts->ndownstreams; i++)
	{
		if (facts->downstreams[i].kind == CRELAY_KIND_HOLD &&
			facts->downstreams[i].slot_name[0] != '\0')
			holds = true;
	}
	if (facts->size_limit >= 0 || facts->disk.known || !holds)
		return;
	report(look, kept > (uint64_t) facts->max_wal_size ?
		   CRELAY_SEVERITY_WARNING : CRELAY_SEVERITY_OK,
		   CRELAY_CHECK_UNBOUNDED, facts->name,
		   "Set cascade_relay.min_free_percent, cascade_relay.max_hold_size (both for holds alone) or max_slot_wal_keep_size to what the disk can bear.",
		   "nothing bounds the WAL that holds may keep on this node; now it is %s",
		   size_text(size, kept));
}

/*
 * Whoever may create in the schema of the extension can give what is called
 * there an overload.  What nodes call of one another is not found by its name.
 */
static void
check_schema(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	char		hint[CRELAY_CHECK_TEXT_LEN];

	if (facts->schema_open_to == NULL)
		return;
	if (facts->schema_granted)
		snprintf(hint, sizeof(hint), "On the primary: REVOKE CREATE ON SCHEMA %s FROM %s;",
				 facts->schema, facts->schema_open_to);
	else
		snprintf(hint, sizeof(hint), "On the primary: CREATE SCHEMA cascade_relay; ALTER EXTENSION cascade_relay SET SCHEMA cascade_relay;");
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_SCHEMA_OPEN, facts->name, hint,
		   "%s may create in schema %s, where cascade_relay is, and so interfere with what is called there",
		   facts->schema_open_to, facts->schema);
}

/* ---- vacuum and delays ---- */

static void
check_vacuum(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	int64_t		since = facts->now - facts->xmin_since;
	const CrelayCheckRow *row = find_live(facts, facts->xmin_pinned_by);
	char		time[SIZE_LEN];

	if (facts->in_recovery || facts->xmin_since == 0 || facts->xmin_age <= 0 ||
		strcmp(facts->xmin_pinned_by, facts->name) == 0 ||
		since - excuse(row != NULL ? row->node : NULL) <=
		facts->stale_after * CRELAY_LONG_TIMEOUTS)
		return;
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_VACUUM_HELD_BACK, facts->xmin_pinned_by,
		   "Look for old transactions on that node; if it is gone for good, drop its slot.",
		   "node \"%s\" has held back vacuum for %s, now by %lld transactions",
		   facts->xmin_pinned_by, time_text(time, since), (long long) facts->xmin_age);
}

static bool
gives_feedback(const CrelayCheckRow *row)
{
	return is_live(row) && (row->node->hot_standby_feedback == CRELAY_TRUE ||
							(!row->node->managed && row->node->backend_xmin != 0));
}

/*
 * Finds the first row below each one that gives feedback.  From the end on, so
 * that it is the last one seen, unless a row that is no deeper has come between.
 */
static void
find_feedback(const CrelayCheckFacts *facts)
{
	const CrelayCheckRow *gives = NULL;
	int			least_depth = 0;	/* from the next row up to that one */

	for (int i = facts->nrows - 1; i >= 0; i--)
	{
		const CrelayCheckRow *row = &facts->rows[i];

		facts->feedback_below[i] = gives != NULL && least_depth > row->depth ? gives : NULL;
		if (gives_feedback(row))
		{
			gives = row;
			least_depth = row->depth;
		}
		else if (row->depth < least_depth)
			least_depth = row->depth;
	}
}

/*
 * A standby passes on the feedback of others only if it gives its own.
 */
static void
check_feedback(Look *look, const CrelayCheckRow *row)
{
	const CrelayCheckFacts *facts = look->facts;
	const CrelayCheckRow *below = facts->feedback_below[row - facts->rows];

	if (!is_live(row) || row->node->role != CRELAY_ROLE_STANDBY ||
		row->node->hot_standby_feedback != CRELAY_FALSE || below == NULL)
		return;
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_FEEDBACK_OFF, row->node->name,
		   "Set hot_standby_feedback to on there too and reload, or to off below.",
		   "hot_standby_feedback is on at node \"%s\", but off at \"%s\" above it, where it ends: vacuum can cancel queries on \"%s\"",
		   below->node->name, row->node->name, below->node->name);
}

/* ---- versions ---- */

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/*
 * What comes where one version goes on and another one ends: more numbers make
 * a later one, words an earlier one, as "beta" and "rc" do.
 */
static int
version_rank(char c)
{
	if (c == '\0')
		return 1;
	return c == '.' || is_digit(c) ? 2 : 0;
}

/*
 * Orders versions like "1.9", "1.10beta2", "1.10" and "1.10.1": numbers by
 * their value, the rest as text.
 */
static int
compare_versions(const char *a, const char *b)
{
	for (;;)
	{
		if (is_digit(*a) && is_digit(*b))
		{
			char	   *a_end;
			char	   *b_end;
			unsigned long x = strtoul(a, &a_end, 10);
			unsigned long y = strtoul(b, &b_end, 10);

			if (x != y)
				return x < y ? -1 : 1;
			a = a_end;
			b = b_end;
		}
		else if (*a != *b)
			break;
		else if (*a++ == '\0')
			return 0;
		else
			b++;
	}
	if (version_rank(*a) != version_rank(*b))
		return version_rank(*a) - version_rank(*b);
	return (unsigned char) *a < (unsigned char) *b ? -1 : 1;
}

static bool
tells_version(const CrelayCheckRow *row)
{
	return row->node->managed && row->node->version[0] != '\0' && is_live(row);
}

/*
 * The first node with the newest library, NULL if nobody tells.
 */
static const CrelayNode *
find_newest(const CrelayCheckFacts *facts)
{
	const CrelayNode *newest = NULL;

	for (int i = 0; i < facts->nrows; i++)
	{
		const CrelayCheckRow *row = &facts->rows[i];

		if (tells_version(row) &&
			(newest == NULL || compare_versions(row->node->version, newest->version) > 0))
			newest = row->node;
	}
	return newest;
}

static void
check_versions(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	const CrelayNode *newest = find_newest(facts);

	for (int i = 0; i < facts->nrows && newest != NULL; i++)
	{
		const CrelayCheckRow *row = &facts->rows[i];

		if (!tells_version(row) ||
			compare_versions(row->node->version, newest->version) == 0)
			continue;
		look->row = row;
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_VERSION_MIXED, row->node->name,
			   "Install the same version of cascade_relay on that node too, and restart it.",
			   "node \"%s\" runs cascade_relay %s, and node \"%s\" runs %s",
			   row->node->name, row->node->version, newest->name, newest->version);
	}
	look->row = NULL;
	if (facts->sql_version[0] == '\0' ||
		compare_versions(facts->sql_version, facts->version) == 0)
		return;
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_VERSION_MIXED, facts->name,
		   compare_versions(facts->sql_version, facts->version) < 0 ?
		   "When all nodes have the new library, run on the primary: ALTER EXTENSION cascade_relay UPDATE;" :
		   "Install the same version of cascade_relay on this node too, and restart it.",
		   "this server runs cascade_relay %s, and the SQL objects are of version %s",
		   facts->version, facts->sql_version);
}

/*
 * The first minor release of each major in which a standby that reconnects to
 * another standby is not refused with "requested starting point ... is ahead of
 * the WAL flush position".  Majors after these never had that fault.
 */
static const struct
{
	int			major;
	int			minor;
}			required_releases[] = {
	{15, 19},
	{16, 15},
	{17, 11},
	{18, 6}
};

static void
check_server(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	int			major = facts->server_version / 10000;
	int			minor = facts->server_version % 10000;
	char		hint[CRELAY_CHECK_TEXT_LEN];

	for (size_t i = 0; i < sizeof(required_releases) / sizeof(required_releases[0]); i++)
	{
		if (major != required_releases[i].major || minor >= required_releases[i].minor)
			continue;
		snprintf(hint, sizeof(hint), "Install PostgreSQL %d.%d or a later minor release, and restart this server.",
				 major, required_releases[i].minor);
		report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_SERVER_OUTDATED, facts->name, hint,
			   "PostgreSQL %d.%d has a fault with cascades: a standby that reconnects can be refused with \"requested starting point is ahead of the WAL flush position\"",
			   major, minor);
	}
}

static void
check_preloaded(Look *look, const CrelayCheckRow *row)
{
	if (!warns(row, CRELAY_WARN_NOT_PRELOADED))
		return;
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_NOT_PRELOADED, row->node->name,
		   "When it suits, add cascade_relay to shared_preload_libraries there, and restart it.",
		   row->node->role == CRELAY_ROLE_PRIMARY ?
		   "node \"%s\" holds WAL without preloading cascade_relay: only max_slot_wal_keep_size bounds it, a hold never goes back, and each branch sees only itself in the tree" :
		   "node \"%s\" holds WAL without preloading cascade_relay, but reports nothing further up: what lies below it is not protected by the nodes above it",
		   row->node->name);
}

static void
check_full(Look *look, const CrelayCheckRow *row)
{
	const CrelayCheckFacts *facts = look->facts;
	char		who[CRELAY_NAME_LEN + 64] = "";

	if (!warns(row, CRELAY_WARN_REGISTRY_FULL))
		return;
	if (row->local && facts->full_by != NULL && facts->full_by[0] != '\0')
		snprintf(who, sizeof(who), "; node \"%s\" has reported %d of them",
				 facts->full_by, facts->full_rows);
	else if (row->local && facts->full_role != NULL && facts->full_role[0] != '\0')
		snprintf(who, sizeof(who), "; role \"%s\" speaks for %d of them",
				 facts->full_role, facts->full_rows);
	report(look, CRELAY_SEVERITY_WARNING, CRELAY_CHECK_REGISTRY_FULL, row->node->name,
		   "Raise cascade_relay.max_nodes on that node and restart it, unless they are not real.",
		   "node \"%s\" knows of more nodes than it has room for; some are not shown%s",
		   row->node->name, who);
}

/* ---- all of it ---- */

static void
each_row(Look *look, void (*check) (Look *look, const CrelayCheckRow *row))
{
	for (int i = 0; i < look->facts->nrows; i++)
	{
		look->row = &look->facts->rows[i];
		check(look, look->row);
	}
	look->row = NULL;
}

static void
each_downstream(Look *look, void (*check) (Look *look, const CrelayDownstream *d))
{
	for (int i = 0; i < look->facts->ndownstreams; i++)
		check(look, &look->facts->downstreams[i]);
}

/*
 * The rows of this node and of all that is below it are neighbours.
 */
static void
find_subtree(Look *look)
{
	const CrelayCheckFacts *facts = look->facts;
	int			i = 0;

	while (i < facts->nrows && !facts->rows[i].local)
		i++;
	if (i == facts->nrows)
		return;
	look->first_below = i++;
	while (i < facts->nrows && facts->rows[i].depth > facts->rows[look->first_below].depth)
		i++;
	look->end_below = i;
}

/*
 * Everything of one severity, in the order of the codes.
 */
static void
look_at_all(Look *look)
{
	check_worker(look);
	check_upstream(look);
	check_root(look);
	each_row(look, check_upstream_of);
	check_refused(look);
	each_row(look, check_duplicate);
	each_row(look, check_elsewhere);
	check_addresses(look);
	each_row(look, check_cycle);
	each_row(look, check_diverged);
	each_row(look, check_not_streaming);
	each_row(look, check_paused);
	each_row(look, check_voting);
	each_row(look, check_unprotected);
	check_slots(look);
	each_row(look, check_slots_of);
	each_row(look, check_room);
	check_keep_size(look);
	each_downstream(look, check_dropped);
	each_row(look, check_dropped_of);
	each_downstream(look, check_lost);
	each_downstream(look, check_clamped);
	each_row(look, check_clamped_of);
	check_disk(look);
	each_downstream(look, check_silent);
	check_pinned(look);
	each_downstream(look, check_orphan);
	each_downstream(look, check_idle);
	each_downstream(look, check_local_hold);
	each_downstream(look, check_left);
	each_downstream(look, check_former_hold);
	each_row(look, check_former_life);
	check_local_hold_high(look);
	check_candidate(look);
	check_name(look);
	each_row(look, check_stale);
	each_row(look, check_mute);
	check_vacuum(look);
	each_row(look, check_feedback);
	each_row(look, check_delayed);
	check_bounds(look);
	check_schema(look);
	check_versions(look);
	check_server(look);
	each_row(look, check_preloaded);
	each_row(look, check_full);
}

/*
 * Hands every finding to the sink, the worst first; one that says so if there
 * is none.  A finding is good until the sink returns.
 */
void
crelay_check_run(const CrelayCheckFacts *facts, CrelayCheckSink sink, void *sink_arg)
{
	Look		look = {0};

	look.facts = facts;
	look.sink = sink;
	look.sink_arg = sink_arg;

	if (!facts->at_work)
	{
		look.severity = CRELAY_SEVERITY_CRITICAL;
		report(&look, CRELAY_SEVERITY_CRITICAL, CRELAY_CHECK_NO_FREE_WORKER, facts->name,
			   "It needs a free slot in max_worker_processes; look for cascade_relay in this server's log.",
			   "the worker of cascade_relay is not running: nothing is reported, and nothing else is known");
		return;
	}
	for (int i = 0; i < facts->nrows; i++)
		facts->by_name[i] = &facts->rows[i];
	qsort((void *) facts->by_name, (size_t) facts->nrows, sizeof(*facts->by_name), compare_rows);
	find_feedback(facts);
	find_subtree(&look);

	for (int severity = CRELAY_SEVERITY_CRITICAL; severity >= CRELAY_SEVERITY_OK; severity--)
	{
		look.severity = (CrelaySeverity) severity;
		look_at_all(&look);
	}
	if (look.found == 0)
		report(&look, CRELAY_SEVERITY_OK, CRELAY_CHECK_OK, facts->name, "",
			   "no findings");
}
