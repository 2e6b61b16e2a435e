/*-------------------------------------------------------------------------
 *
 * follow.c
 *	  Moving this standby to another upstream, or leaving it where it was.
 *
 * Owns, leaves out, fails and locks: see follow.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "replication/walreceiver.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "decide/history.h"
#include "node/downstream.h"
#include "node/tree.h"
#include "server/compat.h"
#include "server/guc.h"
#include "sql/follow.h"
#include "sql/repoint.h"
#include "upstream/upstream_session.h"
#include "worker/addresses.h"

/* One step on the target may take this long, if the timeout allows it. */
#define STEP_MS				10000

/* What may be spent on cleaning up, here and at the upstream that is left. */
#define CLEANUP_MS			3000

/* How often the target is asked how it goes: seldom, after a few times. */
#define ASK_FIRST_MS		10
#define ASK_EVERY_MS		200

/* Where a move stands.  It outlives the transaction that is to be undone. */
typedef struct Move
{
	char		target[CRELAY_NAME_LEN];
	char		node_name[CRELAY_NODE_NAME_MAX + 1];
	char		slot_name[CRELAY_SLOT_LEN];
	char		remembered[CRELAY_ADDRESS_LEN]; /* its address, once */
	bool		address_given;	/* by who asks for the move */
	CrelayPlace place;
	CrelayRole	target_role;	/* as it has answered; UNKNOWN: not asked */
	uint32		target_timeline;
	uint64		target_lsn;
	CrelayPosition position;	/* of this node, as the move began */
	instr_time	start;
	int			timeout_ms;

	/* connection strings may carry a password */
	char		conninfo[MAXCONNINFO];	/* the new primary_conninfo */
	char		upstream_conninfo[MAXCONNINFO]; /* what goes over it for SQL */
	char		old_conninfo[MAXCONNINFO];

	/* where it streamed from until now */
	char		old_name[CRELAY_NAME_LEN];
	char		old_slot[CRELAY_SLOT_LEN];
	CrelayReceiver old_receiver;
	bool		old_reachable;

	pid_t		stopped_pid;	/* of the walreceiver that the new settings
								 * end; 0: they change nothing */

	/* what has to be undone */
	CrelayRepoint repoint;
	CrelaySession *session;		/* SQL on the target */
	CrelaySession *probe;		/* what a walreceiver would meet there */
	bool		adopted;		/* its slot was not there before */
} Move;

/*-------------------------------------------------------------------------
 * Refusing
 *-------------------------------------------------------------------------
 */

/*
 * SQLSTATEs of refusals, for programs.  The class is free for implementations;
 * what a class of PostgreSQL's own describes has an SQLSTATE from there.
 */
#define REFUSED_SELF_REFERENCE		MAKE_SQLSTATE('R', 'L', '0', '0', '1')
#define REFUSED_CYCLE				MAKE_SQLSTATE('R', 'L', '0', '0', '2')
#define REFUSED_UNKNOWN_UPSTREAM	MAKE_SQLSTATE('R', 'L', '0', '0', '3')
#define REFUSED_TWO_PRIMARIES		MAKE_SQLSTATE('R', 'L', '0', '0', '4')
#define REFUSED_VOTING_DIRECT_ONLY	MAKE_SQLSTATE('R', 'L', '0', '0', '5')
#define REFUSED_TIMELINE_DIVERGED	MAKE_SQLSTATE('R', 'L', '0', '0', '6')
#define REFUSED_NOT_AVAILABLE		MAKE_SQLSTATE('R', 'L', '0', '0', '7')
#define REFUSED_WAL_UNAVAILABLE		MAKE_SQLSTATE('R', 'L', '0', '0', '8')
#define REFUSED_NO_ADDRESS			MAKE_SQLSTATE('R', 'L', '0', '0', '9')
#define REFUSED_OTHER_NODE			MAKE_SQLSTATE('R', 'L', '0', '1', '0')
#define REFUSED_OTHER_CLUSTER		MAKE_SQLSTATE('R', 'L', '0', '1', '1')

static void
refuse(const Move *move, int sqlstate, const char *why, const char *detail,
	   const char *hint)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("cannot follow \"%s\": %s", move->target, why),
			 detail != NULL && detail[0] != '\0' ? errdetail("%s", detail) : 0,
			 hint != NULL && hint[0] != '\0' ? errhint("%s", hint) : 0));
	pg_unreachable();
}

static int
reason_sqlstate(CrelayPlanReason reason)
{
	switch (reason)
	{
		case CRELAY_PLAN_OK:
			break;
		case CRELAY_PLAN_SELF_REFERENCE:
			return REFUSED_SELF_REFERENCE;
		case CRELAY_PLAN_CYCLE:
			return REFUSED_CYCLE;
		case CRELAY_PLAN_UNKNOWN_UPSTREAM:
			return REFUSED_UNKNOWN_UPSTREAM;
		case CRELAY_PLAN_TWO_PRIMARIES:
			return REFUSED_TWO_PRIMARIES;
		case CRELAY_PLAN_VOTING_DIRECT_ONLY:
			return REFUSED_VOTING_DIRECT_ONLY;
		case CRELAY_PLAN_TIMELINE_DIVERGED:
			return REFUSED_TIMELINE_DIVERGED;
		case CRELAY_PLAN_NOT_AVAILABLE:
			return REFUSED_NOT_AVAILABLE;
		case CRELAY_PLAN_WAL_UNAVAILABLE:
			return REFUSED_WAL_UNAVAILABLE;
		case CRELAY_PLAN_NO_ROOM:
			return ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
	}
	return ERRCODE_INTERNAL_ERROR;
}

/*
 * Says in words why a plan was refused.
 */
static const char *
explain_reason(CrelayPlanReason reason)
{
	switch (reason)
	{
		case CRELAY_PLAN_OK:
			break;
		case CRELAY_PLAN_SELF_REFERENCE:
			return "it is this node";
		case CRELAY_PLAN_CYCLE:
			return "it streams, directly or not, from this node";
		case CRELAY_PLAN_UNKNOWN_UPSTREAM:
			return "this node does not know a node of that name";
		case CRELAY_PLAN_TWO_PRIMARIES:
			return "it is a primary on an older timeline than one that has been known here";
		case CRELAY_PLAN_VOTING_DIRECT_ONLY:
			return "it is a standby, and this node is on the durability path and streams from the primary alone";
		case CRELAY_PLAN_TIMELINE_DIVERGED:
			return "it is on another history of timelines";
		case CRELAY_PLAN_NOT_AVAILABLE:
			return "it cannot be reached, or leads to no primary";
		case CRELAY_PLAN_WAL_UNAVAILABLE:
			return "it no longer has the WAL that this node would ask for";
		case CRELAY_PLAN_NO_ROOM:
			return "it has no walsender or no replication slot free";
	}
	return NULL;
}

/*
 * Refuses for a reason of the policy, whose code goes into the detail, before
 * what else there is to say.
 */
static void
refuse_reason(const Move *move, CrelayPlanReason reason, const char *why,
			  const char *detail, const char *hint)
{
	refuse(move, reason_sqlstate(reason), why,
		   psprintf("The reason is \"%s\".%s%s", crelay_plan_reason_text(reason),
					detail != NULL ? " " : "", detail != NULL ? detail : ""),
		   hint);
}

static void
refuse_plan(const Move *move, CrelayPlanReason reason)
{
	const char *hint = crelay_plan_reason_hint(reason);

	if (reason == CRELAY_PLAN_UNKNOWN_UPSTREAM)
		hint = "Check the name, or give its host and port as conninfo.";
	refuse_reason(move, reason, explain_reason(reason), NULL, hint);
}

/*
 * The target, or the way to it, has failed.
 */
static void
refuse_session(const Move *move, const CrelaySession *session, const char *asked)
{
	const char *sqlstate = crelay_session_sqlstate(session);
	const char *detail = psprintf("%s.", crelay_session_error(session));
	const char *hint = crelay_session_hint(session);

	if (crelay_session_lacks_extension(session))
		refuse(move, ERRCODE_UNDEFINED_OBJECT, "it has no cascade_relay where it was asked",
			   psprintf("%c%s", pg_toupper((unsigned char) detail[0]), detail + 1), hint);
	else if (sqlstate[0] == '\0' || strncmp(sqlstate, "57P", 3) == 0)
		refuse_reason(move, CRELAY_PLAN_NOT_AVAILABLE, "it cannot be reached",
					  psprintf("%c%s", pg_toupper((unsigned char) detail[0]), detail + 1), hint);
	else if (strncmp(sqlstate, "28", 2) == 0)
		refuse(move, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, "it refuses the login",
			   detail, hint);
	else if (strcmp(sqlstate, "53300") == 0)
		refuse(move, ERRCODE_TOO_MANY_CONNECTIONS,
			   session == move->probe ? "it has no free walsender" :
			   "it has no free connection", detail, hint);
	else if (strcmp(sqlstate, "53400") == 0)
		refuse(move, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, "it has no free replication slot",
			   detail, hint);
	refuse(move, ERRCODE_CONNECTION_FAILURE, asked, detail, hint);
}

/*-------------------------------------------------------------------------
 * Time
 *-------------------------------------------------------------------------
 */

static int
elapsed_ms(const instr_time *start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, *start);
	return (int) Min(INSTR_TIME_GET_MILLISEC(now), PG_INT32_MAX);
}

static int
left_ms(const Move *move)
{
	return Max(move->timeout_ms - elapsed_ms(&move->start), 0);
}

static int
step_ms(const Move *move)
{
	return Max(Min(left_ms(move), STEP_MS), 1);
}

static void
nap(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 ms, crelay_wait_event_follow());
	ResetLatch(MyLatch);
}

/*-------------------------------------------------------------------------
 * Planning
 *-------------------------------------------------------------------------
 */

/*
 * Returns true if the target is where this node reports to, by the one address in
 * primary_conninfo.
 */
static bool
is_upstream(const CrelayPolicyTree *policy, int target, const CrelaySettings *settings)
{
	int			here = crelay_policy_here(policy);
	CrelayPlace place;
	const char *error;

	return here >= 0 && policy->rows[here].parent == target &&
		!crelay_conninfo_names_host(settings->upstream_conninfo) &&
		PrimaryConnInfo != NULL && crelay_place_read(&place, PrimaryConnInfo, &error);
}

/*
 * Returns the address of the target, NULL if it is not known: the one that is
 * given, else the one that the policy trusts, else the one that it trusted
 * before, when this node streamed from there or the upstream was not gone yet;
 * and of the upstream itself, which may let this node report and not stream, the
 * one that it is reported to at.
 */
static const char *
find_address(Move *move, const CrelayPolicyTree *policy, const char *conninfo,
			 const CrelaySettings *settings)
{
	int			target = crelay_policy_find(policy, move->target);

	if (conninfo == NULL && crelay_policy_is_ambiguous(policy, move->target))
		refuse(move, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   "more than one live node has that name",
			   "A login would be sent to one of them, and it may not be the one that is meant.",
			   "Give the host and port of the right one as conninfo.");
	if (conninfo == NULL && target >= 0)
		conninfo = crelay_policy_address(policy, crelay_policy_here(policy), target);
	if (conninfo == NULL &&
		crelay_places_find(move->target, move->remembered, sizeof(move->remembered)))
		conninfo = move->remembered;
	if (conninfo == NULL && target >= 0 && is_upstream(policy, target, settings))
		conninfo = PrimaryConnInfo;
	return conninfo;
}

/*
 * Refuses the target if the policy does.  As long as the target itself can
 * still be asked for its role, only for what its answer cannot change.
 *
 * The tree is as old as the last reply, and an upstream that has just died
 * gives none any more.  So the target's role is as the target has answered, and
 * whether it is there, and has room, is left to finding out.
 */
static void
check_plan(const Move *move, const CrelayPolicyTree *policy, const char *address)
{
	int			self = crelay_policy_here(policy);
	int			target = crelay_policy_find(policy, move->target);
	CrelayPlanQuestion question = {0};
	CrelayPlan	answer;

	question.node_name = move->node_name;
	question.requested = move->target;
	question.has_conninfo = address != NULL;
	question.replica_class = self >= 0 ?
		policy->nodes[policy->rows[self].node].replica_class : CRELAY_CLASS_UNKNOWN;
	question.seen_role = move->target_role;
	question.seen_timeline = move->target_timeline;
	crelay_policy_plan(policy, &question, &answer);
	if (answer.refusal == CRELAY_PLAN_OK || answer.refusal == CRELAY_PLAN_NO_ROOM ||
		(move->target_role == CRELAY_ROLE_UNKNOWN && address != NULL &&
		 answer.refusal != CRELAY_PLAN_SELF_REFERENCE))
		return;
	if (answer.refusal != CRELAY_PLAN_NOT_AVAILABLE || policy->rows[target].cyclic ||
		policy->rows[target].below_cycle)
		refuse_plan(move, answer.refusal);
}

/*
 * What goes over primary_conninfo for SQL at a place: the reports may go to a
 * host of their own, which is not to be taken for that.  False, with error set,
 * if it cannot be led there.
 */
static bool
lead_upstream_conninfo(const CrelayPlace *place, const CrelaySettings *settings,
					   char *dst, Size size, const char **error)
{
	if (crelay_conninfo_names_host(settings->upstream_conninfo))
		return crelay_place_redirect(place, settings->upstream_conninfo, dst, size,
									 error);
	strlcpy(dst, settings->upstream_conninfo, size);
	return true;
}

/*
 * Raises an error unless the given conninfo consists of host, hostaddr and port.
 * A keyword that is dropped silently would seem to be in effect.
 */
static void
check_given(const char *conninfo)
{
	char		keyword[64];
	CrelayPlace place;
	const char *error;

	if (!crelay_place_read(&place, conninfo, &error))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid conninfo: %s", error),
				 errhint("Give the host, the hostaddr or both, and the port, of one node.")));
	if (crelay_conninfo_exceeds_place(conninfo, keyword, sizeof(keyword)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("conninfo must not set \"%s\"", keyword),
				 errdetail("Only host, hostaddr and port are taken from it; all else stays as in \"%s\".",
						   "primary_conninfo"),
				 errhint("Change \"%s\" first, and reload.", "primary_conninfo")));
}

/*
 * Where the target is, and the connection strings that lead there.
 */
static void
choose_conninfo(Move *move, const char *address, const CrelaySettings *settings)
{
	const char *error;

	if (address == NULL)
		refuse(move, REFUSED_NO_ADDRESS, "it does not say where it is", NULL,
			   psprintf("Set \"%s\" on \"%s\" to its host and port, and reload there; or give them to %s as conninfo.",
						"cascade_relay.advertised_conninfo", move->target,
						"cascade_follow"));
	if (!crelay_place_read(&move->place, address, &error))
		refuse(move, REFUSED_NO_ADDRESS, "its address is of no use", psprintf("As a connection string, %s.", error),
			   psprintf("Set \"%s\" on \"%s\" to its host and port, and reload there; or give them to %s as conninfo.",
						"cascade_relay.advertised_conninfo", move->target,
						"cascade_follow"));
	if (!crelay_place_redirect(&move->place, PrimaryConnInfo ? PrimaryConnInfo : "",
							   move->conninfo, sizeof(move->conninfo), &error))
		refuse(move, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   "\"primary_conninfo\" cannot be changed to lead there",
			   psprintf("As it is now, %s.", error), NULL);
	if (!lead_upstream_conninfo(&move->place, settings, move->upstream_conninfo,
								sizeof(move->upstream_conninfo), &error))
		refuse(move, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   "\"cascade_relay.upstream_conninfo\" cannot be changed to lead there",
			   psprintf("As it is now, %s.", error), NULL);
}

/*
 * Remembers what will be left.  Of the slot the walreceiver knows best: this
 * session reads the settings anew only between two of its statements.
 */
static void
note_old_place(Move *move, const CrelayLocal *local)
{
	crelay_read_receiver(&move->old_receiver);
	strlcpy(move->old_conninfo, PrimaryConnInfo ? PrimaryConnInfo : "",
			sizeof(move->old_conninfo));
	if (move->old_receiver.running)
		strlcpy(move->old_slot, move->old_receiver.slot_name, sizeof(move->old_slot));
	else
		strlcpy(move->old_slot, PrimarySlotName ? PrimarySlotName : "",
				sizeof(move->old_slot));
	strlcpy(move->old_name, local->upstream_name, sizeof(move->old_name));
	move->old_reachable = move->old_receiver.host[0] != '\0' ||
		local->upstream_state == CRELAY_UPSTREAM_CONNECTED;
}

static void
check_recovery(const Move *move)
{
	if (!RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recovery is not in progress"),
				 errhint("Only a standby follows another node; %s is for a node that is to become one.",
						 "pg_rewind")));
	if (GetRecoveryPauseState() != RECOVERY_NOT_PAUSED)
		refuse(move, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   "recovery is paused here",
			   "The server changes its upstream as it replays.",
			   "Run pg_wal_replay_resume() first.");
}

/*-------------------------------------------------------------------------
 * The target
 *-------------------------------------------------------------------------
 */

static bool
open_probe(Move *move, int timeout_ms)
{
	CrelayTarget target = {0};

	target.primary_conninfo = move->conninfo;
	target.upstream_conninfo = "";
	return crelay_session_open(move->probe, CRELAY_SESSION_REPLICATION, &target,
							   timeout_ms);
}

static bool
open_session(Move *move, int timeout_ms)
{
	CrelayTarget target = {0};

	target.primary_conninfo = move->conninfo;
	target.upstream_conninfo = move->upstream_conninfo;
	return crelay_session_open(move->session, CRELAY_SESSION_SQL, &target,
							   timeout_ms);
}

static uint64
parse_lsn(const char *str)
{
	uint32		high;
	uint32		low;

	if (str == NULL || sscanf(str, "%X/%X", &high, &low) != 2)
		return 0;
	return (uint64) high << 32 | low;
}

/*
 * The target's history of timelines, from the file that a walreceiver would
 * ask for.
 */
static void
read_history(Move *move, uint32 timeline, CrelayHistory *history)
{
	const char *content = "";

	if (timeline > 1)
	{
		if (!crelay_session_ask(move->probe, psprintf("TIMELINE_HISTORY %u", timeline),
								0, NULL, step_ms(move)))
			refuse_session(move, move->probe, "it does not give its history of timelines");
		content = crelay_session_value(move->probe, 0, 1);
	}
	crelay_history_parse(history, timeline, content ? content : "");
}

static void
check_history(Move *move)
{
	uint32		timeline = move->target_timeline;
	uint64		lsn = move->target_lsn;
	const CrelayHistory *ours = crelay_read_history(move->position.timeline);
	CrelayHistory theirs;
	char	   *detail;

	read_history(move, timeline, &theirs);
	detail = psprintf("It is on timeline %u at " CRELAY_LSN_FORMAT ", and this node on timeline %u at " CRELAY_LSN_FORMAT ".",
					  timeline, LSN_FORMAT_ARGS(lsn), ours->timeline,
					  LSN_FORMAT_ARGS(move->position.applied_lsn));
	if (!crelay_history_agrees(ours, move->position.applied_lsn, &theirs, lsn))
		refuse_reason(move, CRELAY_PLAN_TIMELINE_DIVERGED,
					  explain_reason(CRELAY_PLAN_TIMELINE_DIVERGED), detail,
					  crelay_plan_reason_hint(CRELAY_PLAN_TIMELINE_DIVERGED));
	if (timeline < ours->timeline)
		refuse(move, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
			   "it has not reached this node's timeline yet", detail,
			   "Wait until it has followed the failover, or choose another node.");
}

/*
 * Asks the target who it is: its cluster, position and role.
 */
static void
identify_target(Move *move)
{
	const char *identifier;
	const char *timeline;
	const char *standby;

	if (!crelay_session_ask(move->probe, "IDENTIFY_SYSTEM", 0, NULL, step_ms(move)))
		refuse_session(move, move->probe, "it does not say who it is");
	identifier = crelay_session_value(move->probe, 0, 0);
	timeline = crelay_session_value(move->probe, 0, 1);
	move->target_lsn = parse_lsn(crelay_session_value(move->probe, 0, 2));
	if (identifier == NULL || timeline == NULL || move->target_lsn == 0)
		refuse(move, ERRCODE_PROTOCOL_VIOLATION, "it does not say who it is", NULL, NULL);
	if (strtou64(identifier, NULL, 10) != GetSystemIdentifier())
		refuse(move, REFUSED_OTHER_CLUSTER, "it belongs to another database cluster",
			   psprintf("Its system identifier is %s, and that of this node " UINT64_FORMAT ".",
						identifier, GetSystemIdentifier()),
			   psprintf("Check \"%s\" on \"%s\".", "cascade_relay.advertised_conninfo",
						move->target));
	move->target_timeline = (uint32) strtoul(timeline, NULL, 10);

	if (!crelay_session_ask(move->probe, "SHOW in_hot_standby", 0, NULL, step_ms(move)))
		refuse_session(move, move->probe, "it does not say whether it is a standby");
	standby = crelay_session_value(move->probe, 0, 0);
	move->target_role = standby != NULL && strcmp(standby, "off") == 0 ?
		CRELAY_ROLE_PRIMARY : CRELAY_ROLE_STANDBY;
}

/*
 * Looks at the target with the connection that the walreceiver will make: who
 * lets that in, and has a walsender for it, will do so again.
 */
static void
check_target(Move *move, const CrelayPolicyTree *policy, const char *address)
{
	if (!open_probe(move, step_ms(move)))
		refuse_session(move, move->probe, "it does not let this node in");
	identify_target(move);
	check_plan(move, policy, address);
	check_history(move);

	/* its walsender is free again by the time that the real one comes */
	crelay_session_close(move->probe);
}

/*
 * Asks the node at the other end of the session for its name; NULL if it has
 * none.  False if it does not answer.
 */
static bool
ask_name(Move *move, int timeout_ms, const char **name)
{
	if (!crelay_session_ask(move->session,
							"SELECT nullif(pg_catalog.current_setting('cascade_relay.node_name', true), '')",
							0, NULL, timeout_ms))
		return false;
	*name = crelay_session_value(move->session, 0, 0);
	return true;
}

/*
 * An address may lead to somebody else than who advertises it.
 */
static void
check_name(Move *move)
{
	const char *name;

	if (!ask_name(move, step_ms(move), &name))
		refuse_session(move, move->session, "it does not say who it is");
	if (name != NULL && strcmp(name, move->target) != 0)
		refuse(move, REFUSED_OTHER_NODE, "its address leads to another node",
			   psprintf("That node is called \"%s\".", name),
			   psprintf("Check \"%s\" on \"%s\".", "cascade_relay.advertised_conninfo",
						move->target));
}

/*
 * Has the target make a slot that keeps what this node will ask for, or find
 * the one that is there fit.
 *
 * Streaming begins anew at the segment in which the server reads WAL for
 * replay, which is not before what it has replayed.
 */
static void
adopt(Move *move)
{
	const char *params[2];

	snprintf(move->slot_name, sizeof(move->slot_name), "%s%s",
			 CRELAY_ADOPTED_PREFIX, move->node_name);
	params[0] = move->slot_name;
	if (!crelay_session_ask(move->session,
							"SELECT 1 FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
							1, params, step_ms(move)))
		refuse_session(move, move->session, "it does not show its replication slots");

	/* from here on the slot may be there, whatever the answer will be */
	move->adopted = crelay_session_rows(move->session) == 0;
	params[0] = move->node_name;
	params[1] = psprintf(CRELAY_LSN_FORMAT, LSN_FORMAT_ARGS(move->position.applied_lsn));
	if (!crelay_session_ask(move->session,
							psprintf("SELECT $1::pg_catalog.text OPERATOR(%s.@<-) $2::pg_catalog.pg_lsn",
									 crelay_session_schema(move->session)),
							2, params, step_ms(move)))
		refuse_session(move, move->session, "it cannot adopt this node");
}

/*-------------------------------------------------------------------------
 * Waiting
 *-------------------------------------------------------------------------
 */

/*
 * Whether that is the address of the target.
 */
static bool
is_target_address(const Move *move, const char *host, int port)
{
	const char *target = move->place.host[0] != '\0' ? move->place.host : move->place.hostaddr;

	return strcmp(host, target) == 0 && port == atoi(move->place.port);
}

/*
 * Whether the walreceiver is connected to the target, with the slot there.
 */
static bool
is_connected(const Move *move, const CrelayReceiver *receiver)
{
	return receiver->running && receiver->streaming &&
		receiver->pid != move->stopped_pid &&
		strcmp(receiver->slot_name, move->slot_name) == 0 &&
		is_target_address(move, receiver->host, receiver->port);
}

/*
 * Whether the first value of the answer is that one.  Whoever answers may have
 * sent none.
 */
static bool
answer_is(const CrelaySession *session, const char *expected)
{
	const char *value = crelay_session_value(session, 0, 0);

	return value != NULL && strcmp(value, expected) == 0;
}

/*
 * Whether the target has a walsender on the slot, and nothing to send: then
 * nothing will come before somebody writes.  A walsender that cannot serve
 * what it was asked for has failed by then.
 */
static bool
has_nothing_to_send(Move *move)
{
	const char *params[1] = {move->slot_name};
	CrelayPosition position;
	uint64		lsn;

	if ((!crelay_session_is_open(move->session) && !open_session(move, step_ms(move))) ||
		!crelay_session_ask(move->session,
							"SELECT active, CASE WHEN pg_catalog.pg_is_in_recovery()"
							" THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())"
							" ELSE pg_catalog.pg_current_wal_flush_lsn() END"
							" FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
							1, params, step_ms(move)) ||
		!answer_is(move->session, "t"))
		return false;
	lsn = parse_lsn(crelay_session_value(move->session, 0, 1));
	crelay_read_position(&position);
	return lsn != 0 && lsn <= position.flush_lsn;
}

/*
 * The time is up.  Says what is known about why.
 */
static void
give_up(Move *move)
{
	const char *why = psprintf("no streaming within %g s", move->timeout_ms / 1000.0);
	CrelayReceiver receiver;
	CrelayPosition position;

	crelay_read_receiver(&receiver);
	crelay_read_position(&position);
	if (GetRecoveryPauseState() != RECOVERY_NOT_PAUSED)
		refuse(move, ERRCODE_QUERY_CANCELED, why, "Recovery is paused here.",
			   "Run pg_wal_replay_resume() first.");
	if (is_connected(move, &receiver))
		refuse(move, ERRCODE_QUERY_CANCELED, why,
			   "The WAL receiver is connected to it, but nothing has come.",
			   psprintf("See the log of \"%s\", and of this server.", move->target));
	if (strcmp(receiver.slot_name, move->slot_name) != 0 &&
		receiver.running && position.applied_lsn < position.flush_lsn)
		refuse(move, ERRCODE_QUERY_CANCELED, why,
			   psprintf("Replay is at " CRELAY_LSN_FORMAT ". The server changes its upstream when it needs another WAL file, and what it has received ends at " CRELAY_LSN_FORMAT ".",
						LSN_FORMAT_ARGS(position.applied_lsn),
						LSN_FORMAT_ARGS(position.flush_lsn)),
			   "See what holds up replay here: \"recovery_min_apply_delay\", or a query that conflicts with it.");
	if (!open_probe(move, CLEANUP_MS))
		refuse(move, ERRCODE_QUERY_CANCELED, why,
			   psprintf("Now it says: %s.", crelay_session_error(move->probe)),
			   crelay_session_hint(move->probe));
	refuse(move, ERRCODE_QUERY_CANCELED, why,
		   "The WAL receiver does not stay connected to it, or was not started.",
		   "See the log of this server.");
}

/*
 * Waits until WAL comes from the target through the slot there.  Nothing tells
 * a session about its walreceiver, so it looks, often at first.
 */
static void
wait_for_streaming(Move *move, CrelayReceiver *receiver)
{
	instr_time	asked;
	int			pause = ASK_FIRST_MS;

	INSTR_TIME_SET_CURRENT(asked);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		crelay_read_receiver(receiver);
		if (is_connected(move, receiver))
		{
			if (receiver->heard)
				return;
			if (elapsed_ms(&asked) >= pause)
			{
				if (has_nothing_to_send(move))
					return;
				INSTR_TIME_SET_CURRENT(asked);
				pause = Min(2 * pause, ASK_EVERY_MS);
			}
		}
		if (!RecoveryInProgress())
			refuse(move, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				   "this node was promoted meanwhile", NULL, NULL);
		if (left_ms(move) == 0)
			give_up(move);
		InvalidateCatalogSnapshot();
		nap(Max(1, Min(20, elapsed_ms(&move->start) / 100)));
	}
}

/*-------------------------------------------------------------------------
 * Leaving
 *-------------------------------------------------------------------------
 */

/*
 * Drops a slot over there as soon as nobody uses it.
 */
static bool
drop_slot(CrelaySession *session, const char *slot_name, int timeout_ms)
{
	const char *params[1] = {slot_name};
	instr_time	start;

	INSTR_TIME_SET_CURRENT(start);
	for (;;)
	{
		int			left = timeout_ms - elapsed_ms(&start);

		if (left <= 0 || !crelay_session_is_open(session))
			return false;
		if (crelay_session_ask(session,
							   "SELECT active, CASE WHEN NOT active THEN"
							   " pg_catalog.pg_drop_replication_slot(slot_name)::pg_catalog.text END"
							   " FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
							   1, params, left) &&
			(crelay_session_rows(session) == 0 || answer_is(session, "f")))
			return true;
		nap(20);
	}
}

/*
 * Reads the address of the upstream that was left: where the walreceiver was
 * connected, else where primary_conninfo led.  This session may know an older
 * primary_conninfo than the walreceiver; then the hostaddr is missing.
 */
static bool
read_old_place(const Move *move, CrelayPlace *place)
{
	const CrelayReceiver *receiver = &move->old_receiver;
	char		address[CRELAY_ADDRESS_LEN];
	const char *error;

	if (receiver->host[0] == '\0')
		return crelay_place_read(place, move->old_conninfo, &error);
	if (crelay_target_address(move->old_conninfo, receiver->host, receiver->port,
							  address, sizeof(address)))
		return crelay_place_read(place, address, &error);
	memset(place, 0, sizeof(CrelayPlace));
	snprintf(place->port, sizeof(place->port), "%d", receiver->port);
	return strlcpy(place->host, receiver->host, sizeof(place->host)) < sizeof(place->host);
}

/*
 * Opens the session to the upstream that was left: where the walreceiver was
 * connected, else where primary_conninfo led.
 */
static bool
open_old_place(Move *move, const CrelaySettings *settings)
{
	CrelayTarget target = {0};
	CrelayPlace place = {0};
	char	   *primary_conninfo = palloc(2 * MAXCONNINFO);
	char	   *upstream_conninfo = primary_conninfo + MAXCONNINFO;
	const char *error;
	bool		opened;

	opened = read_old_place(move, &place) &&
		crelay_place_redirect(&place, move->old_conninfo, primary_conninfo,
							  MAXCONNINFO, &error) &&
		lead_upstream_conninfo(&place, settings, upstream_conninfo, MAXCONNINFO, &error);
	if (opened)
	{
		target.primary_conninfo = primary_conninfo;
		target.upstream_conninfo = upstream_conninfo;
		opened = crelay_session_open(move->session, CRELAY_SESSION_SQL, &target,
									 CLEANUP_MS);
	}
	explicit_bzero(primary_conninfo, 2 * MAXCONNINFO);
	pfree(primary_conninfo);
	return opened;
}

/* Where the slot is that this node has used until now. */
typedef enum OldSlot
{
	OLD_SLOT_GONE,				/* it was temporary, or never there */
	OLD_SLOT_STAYS,
	OLD_SLOT_UNKNOWN			/* the old upstream could not be asked */
} OldSlot;

/*
 * Asks the old upstream about a slot that cascade_adopt has not made.  That of a
 * walreceiver without primary_slot_name goes with its walsender.
 */
static OldSlot
find_old_slot(Move *move, const CrelaySettings *settings)
{
	static const char temporary[] = "pg_walreceiver_";
	const char *params[] = {move->old_slot};
	OldSlot		found = OLD_SLOT_UNKNOWN;

	if (strncmp(move->old_slot, temporary, strlen(temporary)) == 0)
		return OLD_SLOT_GONE;
	if (move->old_reachable && open_old_place(move, settings) &&
		crelay_session_ask(move->session,
						   "SELECT temporary FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
						   1, params, CLEANUP_MS))
		found = crelay_session_rows(move->session) == 1 && answer_is(move->session, "f") ?
			OLD_SLOT_STAYS : OLD_SLOT_GONE;
	crelay_session_close(move->session);
	return found;
}

/*
 * The slot that this node used until now goes if it was made for it by
 * cascade_adopt.  That must not fail what has succeeded, and is short: not to
 * be interrupted.
 */
static void
leave_old_place(Move *move, const CrelaySettings *settings)
{
	const char *name = move->old_name[0] != '\0' ?
	psprintf("\"%s\"", move->old_name) : "the old upstream";
	bool		same_slot = strcmp(move->old_slot, move->slot_name) == 0;
	bool		reached;
	const char *reached_name;

	if (move->old_slot[0] == '\0' ||
		(same_slot && is_target_address(move, move->old_receiver.host, move->old_receiver.port)))
		return;
	if (strncmp(move->old_slot, CRELAY_ADOPTED_PREFIX, strlen(CRELAY_ADOPTED_PREFIX)) != 0)
	{
		OldSlot		found = find_old_slot(move, settings);

		if (found == OLD_SLOT_GONE)
			return;
		ereport(NOTICE,
				(found == OLD_SLOT_STAYS ?
				 errmsg("replication slot \"%s\" stays on %s, where it keeps WAL",
						move->old_slot, name) :
				 errmsg("replication slot \"%s\" may stay on %s, which could not be asked",
						move->old_slot, name),
				 errhint("If nobody needs it, run there: SELECT pg_catalog.pg_drop_replication_slot('%s');",
						 move->old_slot)));
		return;
	}
	reached = move->old_reachable && open_old_place(move, settings);

	/* by another address it may be the target: then that slot is in use now */
	if (reached && same_slot && ask_name(move, CLEANUP_MS, &reached_name) &&
		reached_name != NULL && strcmp(reached_name, move->target) == 0)
	{
		crelay_session_close(move->session);
		return;
	}
	if (!reached || !drop_slot(move->session, move->old_slot, CLEANUP_MS))
		ereport(NOTICE,
				(errmsg("replication slot \"%s\" is left behind on %s",
						move->old_slot, name),
				 errdetail("That node could not be told."),
				 errhint("If it comes back, run there: SELECT pg_catalog.pg_drop_replication_slot('%s');",
						 move->old_slot)));
	crelay_session_close(move->session);
}

static void
warn_about_reports(const CrelaySettings *settings)
{
	if (crelay_conninfo_names_host(settings->upstream_conninfo))
		ereport(WARNING,
				(errmsg("this node goes on reporting to the host in \"%s\"",
						"cascade_relay.upstream_conninfo"),
				 errhint("Change it, or take the host out of it.")));
}

/*-------------------------------------------------------------------------
 * Undoing
 *-------------------------------------------------------------------------
 */

/*
 * Drops the slot that the target has made.  The target may have ended the
 * session meanwhile, because it was idle.
 */
static bool
drop_on_target(Move *move)
{
	for (int attempt = 0; attempt < 2; attempt++)
	{
		if (!crelay_session_is_open(move->session) && !open_session(move, CLEANUP_MS))
			return false;
		if (drop_slot(move->session, move->slot_name, CLEANUP_MS))
			return true;
		if (crelay_session_is_open(move->session))
			return false;
	}
	return false;
}

static void
drop_adopted(Move *move)
{
	if (!move->adopted)
		return;
	move->adopted = false;
	if (!drop_on_target(move))
		ereport(WARNING,
				(errmsg("replication slot \"%s\" may be left behind on \"%s\"",
						move->slot_name, move->target),
				 errhint("Look there, and run: SELECT pg_catalog.pg_drop_replication_slot('%s');",
						 move->slot_name)));
}

/*
 * The session is ending.  Errors in here would only end it again, so there is
 * nothing to catch.
 */
static void
undo_at_exit(int code, Datum arg)
{
	Move	   *move = (Move *) DatumGetPointer(arg);

	crelay_repoint_restore(&move->repoint);
	drop_adopted(move);
	crelay_session_close(move->session);
	crelay_session_close(move->probe);
}

/*
 * Puts the settings back.  If even that fails it is said, and the first error
 * is still the one that is thrown.  The caller holds interrupts.
 */
static void
undo_settings(Move *move)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		crelay_repoint_restore(&move->repoint);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		/* the error has let go of the interrupts, which the caller holds */
		HOLD_INTERRUPTS();
		ereport(WARNING,
				(errmsg("could not restore \"%s\" and \"%s\": %s",
						"primary_conninfo", "primary_slot_name", error->message),
				 errhint("Set them to what they were, and reload.")));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}

/*
 * After an error.  Not to be interrupted: it is short, and the next cancel
 * would only be meant for what has been cancelled already.
 */
static void
undo(Move *move)
{
	HOLD_INTERRUPTS();
	undo_settings(move);
	if (!move->repoint.changed)
		drop_adopted(move);
	else if (move->adopted)
		ereport(WARNING,
				(errmsg("replication slot \"%s\" stays on \"%s\"",
						move->slot_name, move->target),
				 errdetail("The settings may name it."),
				 errhint("Once they do not, run there: SELECT pg_catalog.pg_drop_replication_slot('%s');",
						 move->slot_name)));
	RESUME_INTERRUPTS();
}

static void
end_move(Move *move)
{
	crelay_session_close(move->session);
	crelay_session_close(move->probe);
	crelay_repoint_forget(&move->repoint);
	pfree(move->session);
	pfree(move->probe);
	explicit_bzero(move, sizeof(Move));
	pfree(move);
}

/*-------------------------------------------------------------------------
 * The move
 *-------------------------------------------------------------------------
 */

static char *
describe(const Move *move, const CrelayReceiver *receiver)
{
	return psprintf("streaming from \"%s\" with slot \"%s\" from " CRELAY_LSN_FORMAT,
					move->target, receiver->slot_name,
					LSN_FORMAT_ARGS(receiver->start_lsn));
}

static char *
describe_place(const CrelayPlace *place)
{
	const char *host = place->host[0] != '\0' ? place->host : place->hostaddr;

	if (place->host[0] != '\0' && place->hostaddr[0] != '\0')
		return psprintf("host \"%s\" (%s), port %s", host, place->hostaddr, place->port);
	return psprintf("host \"%s\", port %s", host, place->port);
}

/*
 * Returns true if the node already streams from the given host, hostaddr and port.
 */
static bool
is_old_place(const Move *move)
{
	CrelayPlace old;
	const char *error;

	return is_target_address(move, move->old_receiver.host, move->old_receiver.port) &&
		crelay_place_read(&old, move->old_conninfo, &error) &&
		strcmp(old.host, move->place.host) == 0 &&
		strcmp(old.hostaddr, move->place.hostaddr) == 0 &&
		strcmp(old.port, move->place.port) == 0;
}

/*
 * Whether the node is where it should go to, as both ends say.  Who takes the
 * reports is who feeds it, unless a setting sends them somewhere else.
 */
static bool
is_there(const Move *move, const CrelayLocal *local, const CrelaySettings *settings)
{
	const CrelayReceiver *receiver = &move->old_receiver;

	if (local->upstream_state != CRELAY_UPSTREAM_CONNECTED ||
		strcmp(local->upstream_name, move->target) != 0 ||
		!receiver->streaming || !receiver->heard || receiver->slot_name[0] == '\0')
		return false;
	if (move->address_given)
		return is_old_place(move);
	return !crelay_conninfo_names_host(settings->upstream_conninfo) ||
		is_target_address(move, receiver->host, receiver->port);
}

/*
 * Sets both.  The server replaces its walreceiver if either of them changes.
 */
static void
change_settings(Move *move)
{
	crelay_repoint_save(&move->repoint);
	if (crelay_repoint_changes(&move->repoint, move->conninfo, move->slot_name))
		move->stopped_pid = move->old_receiver.pid;
	crelay_repoint_set(&move->repoint, move->conninfo, move->slot_name);
}

static char *
run(Move *move, const char *conninfo, bool dry_run)
{
	CrelaySettings settings;
	CrelayPolicyTree policy;
	CrelayTree *tree;
	CrelayReceiver receiver;

	check_recovery(move);
	crelay_repoint_check_manager();
	crelay_repoint_check_effect();
	crelay_guc_copy(&settings);
	strlcpy(move->node_name, settings.node_name, sizeof(move->node_name));
	tree = crelay_tree_for_policy(&policy);
	conninfo = find_address(move, &policy, conninfo, &settings);
	check_plan(move, &policy, conninfo);
	choose_conninfo(move, conninfo, &settings);
	note_old_place(move, &tree->local);
	if (is_there(move, &tree->local, &settings))
		return psprintf("already %s", describe(move, &move->old_receiver));

	crelay_read_position(&move->position);
	check_target(move, &policy, conninfo);
	if (!open_session(move, step_ms(move)))
		refuse_session(move, move->session, "it does not let this node in");
	check_name(move);
	if (dry_run)
		return psprintf("would stream from \"%s\" at %s with slot \"%s%s\"; nothing was changed",
						move->target, describe_place(&move->place), CRELAY_ADOPTED_PREFIX,
						move->node_name);
	adopt(move);

	change_settings(move);
	wait_for_streaming(move, &receiver);

	/* done: nothing of it is undone any more */
	move->repoint.changed = false;
	move->adopted = false;
	ereport(LOG,
			(errmsg("cascade_relay: this node follows \"%s\" now, with slot \"%s\" from " CRELAY_LSN_FORMAT,
					move->target, move->slot_name, LSN_FORMAT_ARGS(receiver.start_lsn))));
	HOLD_INTERRUPTS();
	leave_old_place(move, &settings);
	RESUME_INTERRUPTS();
	warn_about_reports(&settings);
	return describe(move, &receiver);
}

/*
 * Runs the move in a subtransaction, so that what is to be undone after an
 * error finds a transaction in order.
 */
static char *
run_guarded(Move *move, const char *conninfo, bool dry_run)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	char	   *volatile answer = NULL;

	before_shmem_exit(undo_at_exit, PointerGetDatum(move));
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		answer = run(move, conninfo, dry_run);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		undo(move);
		cancel_before_shmem_exit(undo_at_exit, PointerGetDatum(move));
		end_move(move);
		ReThrowError(error);
	}
	PG_END_TRY();
	cancel_before_shmem_exit(undo_at_exit, PointerGetDatum(move));
	end_move(move);
	return answer;
}

/*
 * Moves this node to the target, whose address may be given (else NULL), and
 * returns a sentence that says so, once it streams from there.  A dry run stops
 * before anything is changed, here or on the target.
 */
char *
crelay_follow(const char *target, const char *conninfo, int timeout_ms, bool dry_run)
{
	LOCKTAG		tag;
	Move	   *move;
	char	   *answer;

	crelay_registry_require();
	crelay_repoint_check_rights();

	/* elsewhere than the tree says, by a role that may not know the password */
	if (conninfo != NULL && !superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to give %s an address", "cascade_follow"),
				 errdetail("The password in \"%s\" would be sent there.",
						   "primary_conninfo"),
				 errhint("Only a superuser may; others follow the nodes that the tree knows.")));
	if (conninfo != NULL)
		check_given(conninfo);

	/* no database, and a kind of its own: in no advisory lock's way */
	SET_LOCKTAG_ADVISORY(tag, InvalidOid, 0x43524c59, 0, 3);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another session is moving this node already")));

	move = MemoryContextAllocZero(TopMemoryContext, sizeof(Move));
	move->session = crelay_session_create(TopMemoryContext);
	move->probe = crelay_session_create(TopMemoryContext);
	strlcpy(move->target, target, sizeof(move->target));
	move->timeout_ms = timeout_ms;
	move->address_given = conninfo != NULL;
	INSTR_TIME_SET_CURRENT(move->start);
	answer = run_guarded(move, conninfo, dry_run);
	LockRelease(&tag, ExclusiveLock, false);
	return answer;
}
