/*-------------------------------------------------------------------------
 *
 * report_funcs.c
 *	  cascade_report(): what a node does with a report from below.
 *
 * Owns: the session of a reporting child - its permission, which node it
 * speaks for, and the order in which a report takes effect: registered first,
 * held second, answered last.
 *
 * Not here: the wire format (message.c), who may claim a node (registry.c),
 * how a hold is moved (hold.c).
 *
 * Locking: none of its own; the registry's lock is never held while a slot is
 * worked on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "decide/address.h"
#include "decide/message.h"
#include "node/child_hold.h"
#include "node/downstream.h"
#include "node/hold.h"
#include "registry/registry.h"
#include "server/compat.h"
#include "server/guc.h"
#include "sql/not_preloaded.h"
#include "worker/moves.h"

PG_FUNCTION_INFO_V1(cascade_report);

/* The node that this session speaks for, -1 none yet. */
static int	my_child_slot = -1;
static uint32 my_incarnation;
static char my_node_name[CRELAY_NODE_NAME_MAX + 1];
static bool exit_callback_registered;

/*
 * Whatever this session has got to: the registry may know of it before the
 * variables above do.
 */
static void
leave_on_exit(int code, Datum arg)
{
	crelay_registry_leave(MyProcPid);
}

static void
check_permission(void)
{
	if (!superuser() && !has_rolreplication(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to report to cascade_relay"),
				 errdetail("Only roles with the %s attribute may report.",
						   "REPLICATION"),
				 errhint("The reporting node connects as the user of its \"%s\".",
						 "primary_conninfo")));
}

static void
malformed(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("invalid cascade_relay message"),
			 errdetail_internal("%c%s.", pg_toupper((unsigned char) why[0]), why + 1)));
}

/*
 * Two versions that cannot talk.  An error and not a reply, because that is
 * read by any version.
 */
static void
check_fit(CrelayFit fit)
{
	switch (fit)
	{
		case CRELAY_FIT_OK:
			break;
		case CRELAY_FIT_READER_TOO_OLD:
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("the cascade_relay of the upstream is too old for that of the reporting node"),
					 errdetail("The upstream has version %s.", crelay_message_software()),
					 errhint("Upgrade cascade_relay on the upstream, and restart it. What it holds stays held.")));
			break;
		case CRELAY_FIT_SENDER_TOO_OLD:
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("the cascade_relay of the reporting node is too old for that of the upstream"),
					 errdetail("The upstream has version %s.", crelay_message_software()),
					 errhint("Upgrade cascade_relay on the reporting node, and restart it. What the upstream holds stays held.")));
			break;
	}
}

/*
 * A session reports for one node.  Two workers that share one, because there
 * is a connection pooler between, would move each other's holds.
 */
static void
other_node(const char *node_name, uint32 incarnation)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("this session speaks for node \"%s\" with incarnation %08x",
					my_node_name, my_incarnation),
			 errdetail("It was used by node \"%s\" with incarnation %08x.",
					   node_name, incarnation),
			 errhint("Let each node connect directly, without a connection pooler.")));
}

/*
 * Registers this session as the one that speaks for the node.
 */
static void
answer_hello(const CrelayHello *hello, CrelayReply *reply)
{
	char		addr[CRELAY_SLOT_LEN];
	const char *role_name;
	CrelayClaim claim;

	if (!crelay_node_name_is_valid(hello->node_name))
	{
		reply->refusal = CRELAY_REFUSE_NAME;
		return;
	}
	if (!exit_callback_registered)
	{
		before_shmem_exit(leave_on_exit, (Datum) 0);
		exit_callback_registered = true;
	}
	if (my_child_slot >= 0 && (hello->incarnation != my_incarnation ||
							   strcmp(hello->node_name, my_node_name) != 0))
		other_node(hello->node_name, hello->incarnation);
	if (my_child_slot >= 0)
	{
		crelay_registry_leave(MyProcPid);
		my_child_slot = -1;
	}
	crelay_session_address(addr, sizeof(addr));
	role_name = GetUserNameFromId(GetUserId(), false);
	reply->refusal = crelay_registry_claim(hello, MyProcPid, addr, role_name,
										   GetCurrentTimestamp(), &claim);
	/* before anything is logged, for that may be where this session ends */
	if (reply->refusal == CRELAY_REFUSE_NONE)
	{
		my_child_slot = claim.child_slot;
		my_incarnation = hello->incarnation;
		strlcpy(my_node_name, hello->node_name, sizeof(my_node_name));
	}
	strlcpy(reply->detail, claim.detail, sizeof(reply->detail));
	if (claim.news)
		ereport(LOG,
				(errmsg("cascade_relay: refused node \"%s\" with incarnation %08x from %s",
						hello->node_name, hello->incarnation, addr),
				 errdetail_internal("What it is told: %s%s%s.",
									crelay_refusal_text(reply->refusal),
									reply->detail[0] ? "; " : "", reply->detail)));
	if (reply->refusal != CRELAY_REFUSE_NONE)
		return;
	if (claim.former_role[0] != '\0')
		ereport(LOG,
				(errmsg("cascade_relay: role \"%s\" at %s speaks for node \"%s\" now, and no longer role \"%s\"",
						role_name, addr, hello->node_name, claim.former_role)));
	reply->answer = CRELAY_ANSWER_OK;
}

static bool
still_owner(void *arg)
{
	return crelay_registry_owns(my_child_slot, my_incarnation, MyProcPid);
}

/*
 * Puts the child's hold where its report wants it, as far as the bounds and
 * the server allow, and fills in what the reply says of it.
 */
static void
serve_hold(const CrelayReport *report, const char *slot_name,
		   const CrelayPosition *position, CrelayReply *reply)
{
	CrelayChildHold hold;
	CrelayHoldResult result;
	bool		had_hold;

	crelay_child_hold_want(&hold, slot_name, report->hold_target_lsn, position);
	hold.request.fence = still_owner;
	crelay_hold_apply(&hold.request, position, &result);
	if (result.ousted)
	{
		reply->answer = CRELAY_ANSWER_REFUSED;
		reply->refusal = CRELAY_REFUSE_OUSTED;
		return;
	}
	if (hold.bounded ||
		(result.held_lsn > report->hold_target_lsn && crelay_registry_is_clamped(slot_name)))
		reply->warnings |= CRELAY_WARN_HOLD_CLAMPED;
	if (hold.released && result.reason == CRELAY_REFUSE_NONE)
		result.reason = CRELAY_HELD_LATER;
	reply->held_lsn = result.held_lsn;
	reply->refusal = result.reason;
	had_hold = crelay_registry_set_held(my_child_slot, MyProcPid,
										result.held_lsn, result.reason);
	crelay_hold_log(slot_name, &result, had_hold);
	if (result.replaced || (result.created && had_hold))
		crelay_registry_note_dropped(my_child_slot, MyProcPid, result.replaced,
									 GetCurrentTimestamp());
}

/*
 * The rows of a report, for judging.  What there would be no room for anyway
 * is left unread.
 */
static CrelayBranch *
read_branch(CrelayCursor *rows)
{
	CrelayBranch *branch = palloc0(sizeof(CrelayBranch));
	int			room = (int) Min(rows->rows, (uint32) crelay_guc_max_nodes());
	TimestampTz now = GetCurrentTimestamp();

	branch->nodes = palloc_array(CrelayNode, room + 1);
	branch->beliefs = palloc_array(CrelayBelief, room + 1);
	branch->keys = palloc_array(CrelayBranchKey, room + 1);
	branch->below = palloc_array(CrelayBranchKey, room + 1);
	branch->work = palloc_array(CrelayBranchWork, room + 1);
	while (branch->n < room &&
		   crelay_message_get_row(rows, &branch->nodes[branch->n], now))
		branch->n++;
	crelay_branch_begin(branch);
	return branch;
}

/*
 * Takes a report: from here on the child counts, then it is held, and only
 * then told so.
 */
static void
answer_report(const CrelayReport *report, CrelayCursor *rows, CrelayReply *reply)
{
	char		slot_name[CRELAY_SLOT_LEN];
	CrelayPosition position;
	bool		diverged;
	bool		raised;

	reply->sequence = report->sequence;
	if (my_child_slot < 0)
	{
		reply->refusal = CRELAY_REFUSE_NO_HELLO;
		return;
	}
	if (report->incarnation != 0 && report->incarnation != my_incarnation)
		other_node(CRELAY_UNKNOWN_NODE, report->incarnation);
	crelay_read_position(&position);
	if (!crelay_registry_accept(my_child_slot, my_incarnation, MyProcPid,
								report, read_branch(rows),
								crelay_read_history(position.timeline),
								position.applied_lsn, !position.in_recovery,
								wal_segment_size,
								GetCurrentTimestamp(), &diverged, &raised))
	{
		my_child_slot = -1;
		reply->refusal = CRELAY_REFUSE_OUSTED;
		return;
	}
	if (raised)
		crelay_moves_save_told();
	reply->answer = CRELAY_ANSWER_OK;
	crelay_registry_hold_name(my_child_slot, slot_name);
	if (diverged)
	{
		/* it stays where it is: what it holds is all that is sure */
		reply->refusal = CRELAY_HELD_DIVERGED;
		(void) crelay_registry_set_held(my_child_slot, MyProcPid, 0,
										CRELAY_HELD_DIVERGED);
	}
	else if (report->hold_target_lsn != 0)
		serve_hold(report, slot_name, &position, reply);
	reply->has_tree = reply->answer == CRELAY_ANSWER_OK &&
		crelay_registry_tell_tree(my_child_slot, MyProcPid, report->has_tree,
								  GetCurrentTimestamp());
}

/*
 * The same on a server that does not preload the library.
 */
static void
unloaded_hello(const CrelayHello *hello, CrelayReply *reply)
{
	if (my_incarnation != 0 && (hello->incarnation != my_incarnation ||
								strcmp(hello->node_name, my_node_name) != 0))
		other_node(hello->node_name, hello->incarnation);
	crelay_unloaded_answer_hello(hello, reply);
	if (reply->answer != CRELAY_ANSWER_OK)
		return;
	my_incarnation = hello->incarnation;
	strlcpy(my_node_name, hello->node_name, sizeof(my_node_name));
}

static void
unloaded_report(const CrelayReport *report, CrelayReply *reply)
{
	if (my_incarnation != 0 && report->incarnation != 0 &&
		report->incarnation != my_incarnation)
		other_node(CRELAY_UNKNOWN_NODE, report->incarnation);
	crelay_unloaded_answer_report(report, reply);
}

/*
 * Answers a hello, or else the report.
 */
static void
answer_unloaded(const CrelayHello *hello, const CrelayReport *report,
				CrelayReply *reply)
{
	if (crelay_unloaded_may_serve(reply))
	{
		if (hello == NULL)
			unloaded_report(report, reply);
		else if (crelay_node_name_is_valid(hello->node_name))
			unloaded_hello(hello, reply);
		else
			reply->refusal = CRELAY_REFUSE_NAME;
	}
	crelay_unloaded_fill_reply(reply);
}

/*
 * The tree as this node knows it, without the part that the child itself has
 * reported.
 */
static void
put_tree(CrelayCursor *cur, const CrelaySnapshot *snapshot, TimestampTz now)
{
	CrelayNode	row;

	if (!crelay_registry_is_there())
	{
		crelay_unloaded_fill_row(&row);
		crelay_message_put_row(cur, &row, now);
		return;
	}
	crelay_message_put_row(cur, &snapshot->local.node, now);
	for (int i = 0; i < snapshot->nchildren; i++)
	{
		if (snapshot->child_slots[i] != my_child_slot)
			crelay_message_put_row(cur, &snapshot->children[i].node, now);
	}
	for (int i = 0; i < snapshot->nrows; i++)
	{
		if (snapshot->row_origins[i] != my_child_slot)
			crelay_message_put_row(cur, &snapshot->rows[i], now);
	}
}

static bytea *
encode_reply(CrelayReply *reply)
{
	CrelaySnapshot snapshot = {0};
	CrelayCursor cur;
	bytea	   *result;
	size_t		size;
	size_t		len;

	if (reply->has_tree && crelay_registry_is_there())
		crelay_registry_snapshot(&snapshot, true);
	size = crelay_message_size_bound(1 + snapshot.nchildren + snapshot.nrows);
	result = palloc(VARHDRSZ + size);
	crelay_message_begin_reply(&cur, (uint8_t *) VARDATA(result), size, reply);
	cur.other_machine = !crelay_session_is_local();
	if (reply->has_tree)
		put_tree(&cur, &snapshot, GetCurrentTimestamp());
	len = crelay_message_end(&cur);
	if (len == 0 && reply->has_tree)
	{
		/* too large, or a row that cannot be sent: what is held matters more */
		reply->has_tree = false;
		crelay_message_begin_reply(&cur, (uint8_t *) VARDATA(result), size, reply);
		len = crelay_message_end(&cur);
	}
	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg_internal("could not encode the reply: %s", cur.error)));
	SET_VARSIZE(result, VARHDRSZ + len);
	return result;
}

/*
 * cascade_report(bytea) returns bytea
 *
 * A hello or a report from the worker of a downstream node, and the reply to
 * it.  A malformed message is an error and changes nothing; a refusal is a
 * reply with a reason.
 */
Datum
cascade_report(PG_FUNCTION_ARGS)
{
	bytea	   *message = PG_GETARG_BYTEA_PP(0);
	const uint8_t *data = (const uint8_t *) VARDATA_ANY(message);
	size_t		len = VARSIZE_ANY_EXHDR(message);
	CrelayHello hello;
	CrelayReport report;
	CrelayCursor rows;
	CrelayReply *reply;
	CrelaySettings settings;
	CrelayMessageKind kind;
	const char *error = NULL;
	bool		ok = false;

	check_permission();
	check_fit(crelay_message_fit(data, len));

	kind = crelay_message_kind(data, len, &error);
	if (kind == CRELAY_MSG_HELLO)
		ok = crelay_message_get_hello(data, len, &hello, &error);
	else if (kind == CRELAY_MSG_REPORT)
		ok = crelay_message_get_report(data, len, &report, &rows, &error);
	else if (kind == CRELAY_MSG_REPLY)
		error = "a reply is not accepted here";
	if (!ok)
		malformed(error);

	if (kind == CRELAY_MSG_REPORT && !crelay_session_is_local())
	{
		rows.other_machine = true;
		crelay_address_forget_local(report.about.conninfo);
		crelay_address_forget_local(report.about.upstream_address);
	}

	reply = palloc0(sizeof(CrelayReply));
	reply->answer = CRELAY_ANSWER_REFUSED;
	if (!crelay_registry_is_there())
	{
		answer_unloaded(kind == CRELAY_MSG_HELLO ? &hello : NULL, &report, reply);
		PG_RETURN_BYTEA_P(encode_reply(reply));
	}
	crelay_guc_copy(&settings);
	if (crelay_registry_is_stopping())
		reply->answer = CRELAY_ANSWER_CLOSING;
	else if (!settings.enabled)
		reply->refusal = CRELAY_REFUSE_DISABLED;
	else if (kind == CRELAY_MSG_HELLO)
		answer_hello(&hello, reply);
	else
		answer_report(&report, &rows, reply);

	crelay_registry_fill_reply(my_child_slot, reply);
	PG_RETURN_BYTEA_P(encode_reply(reply));
}
