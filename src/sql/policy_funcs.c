/*-------------------------------------------------------------------------
 *
 * policy_funcs.c
 *	  Where nodes should stream from, for SQL: the plan for a request, the
 *	  candidates with the commands to go there, the whole policy of a tree as
 *	  a table, and the oldest WAL file that anybody still needs.
 *
 * Owns: arguments and tuples of these functions, the notation of a tree as
 * text, and the commands.
 *
 * Not here: the decisions (policy.c).
 *
 * Names and addresses come from other machines.  In a command they are quoted
 * as SQL literals or as words of a shell.  An address that might carry a password
 * is not used, and of any other only host, hostaddr and port.
 *
 * Locking: none of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"

#include "decide/address.h"
#include "decide/message.h"
#include "decide/policy.h"
#include "node/downstream.h"
#include "node/tree.h"
#include "server/compat.h"
#include "sql/tuple.h"

PG_FUNCTION_INFO_V1(cascade_plan_upstream);
PG_FUNCTION_INFO_V1(cascade_upstream_candidates);
PG_FUNCTION_INFO_V1(cascade_policy);
PG_FUNCTION_INFO_V1(cascade_oldest_wal_file);

/* ---- arguments ---- */

/*
 * A text argument, NULL for NULL and for an empty one.
 */
static const char *
text_argument(FunctionCallInfo fcinfo, int n)
{
	const char *value;

	if (PG_ARGISNULL(n))
		return NULL;
	value = text_to_cstring(PG_GETARG_TEXT_PP(n));
	return value[0] != '\0' ? value : NULL;
}

static CrelayClass
class_by_name(const char *name)
{
	if (strcmp(name, "voting") == 0)
		return CRELAY_CLASS_VOTING;
	if (strcmp(name, "read_replica") == 0)
		return CRELAY_CLASS_READ_REPLICA;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized replica class: \"%s\"", name),
			 errhint("It is one of \"%s\" and \"%s\".", "voting", "read_replica")));
}

/* ---- trees ---- */

/*
 * Maximum number of nodes of a tree whose policy is shown: the rows are twice its
 * square.  Maximum length of the description of one.
 */
#define POLICY_MAX_NODES	500
#define POLICY_MAX_TEXT		(1024 * 1024)

static void
check_policy_size(int n)
{
	if (n > POLICY_MAX_NODES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many nodes for a table of all questions"),
				 errdetail("The tree has %d nodes; at most %d are possible.", n, POLICY_MAX_NODES),
				 errhint("Ask for one node at a time with %s.", "cascade_plan_upstream()")));
}

static void
bad_tree(const char *what, const char *where)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid description of a tree"),
			 errdetail("%s: \"%s\".", what, where),
			 errhint("Write \"name [< upstream] [key=value ...]\" for each node, with semicolons between them; the keys are class, state, timeline, replay, oldest, location and room (free walsenders/free slots).")));
}

static CrelayState
state_by_name(const char *name)
{
	for (int state = CRELAY_STATE_UNKNOWN + 1; state <= CRELAY_STATE_LAST; state++)
	{
		if (strcmp(name, crelay_state_text((CrelayState) state)) == 0)
			return (CrelayState) state;
	}
	bad_tree("This is not a state", name);
	return CRELAY_STATE_UNKNOWN;
}

static uint64
lsn_by_name(const char *name)
{
	return DatumGetLSN(DirectFunctionCall1(pg_lsn_in, CStringGetDatum(name)));
}

static void
copy_word(char *to, Size size, const char *word)
{
	if (word[0] == '\0' || strlen(word) >= size)
		bad_tree("This is empty or too long", word);
	strlcpy(to, word, size);
}

static void
take_room(CrelayRoom *room, char *value)
{
	char	   *slots = strchr(value, '/');

	if (slots == NULL)
		bad_tree("This is not two numbers with a slash between", value);
	*slots++ = '\0';
	room->known = true;
	room->senders = (uint16) pg_strtoint16(value);
	room->slots = (uint16) pg_strtoint16(slots);
}

static void
take_pair(CrelayNode *node, char *word)
{
	char	   *value = strchr(word, '=');

	if (value == NULL)
		bad_tree("This is not a key and its value", word);
	*value++ = '\0';
	if (strcmp(word, "class") == 0)
		node->replica_class = class_by_name(value);
	else if (strcmp(word, "state") == 0)
		node->state = state_by_name(value);
	else if (strcmp(word, "timeline") == 0)
		node->timeline = (uint32) pg_strtoint32(value);
	else if (strcmp(word, "replay") == 0)
		node->replay_lsn = lsn_by_name(value);
	else if (strcmp(word, "oldest") == 0)
		node->oldest_wal_lsn = lsn_by_name(value);
	else if (strcmp(word, "room") == 0)
		take_room(&node->room, value);
	else if (strcmp(word, "location") == 0)
		copy_word(node->location, sizeof(node->location), value);
	else
		bad_tree("This key is not known", word);
}

/*
 * One node out of its description.  What is not said is as on a healthy one.
 */
static void
take_node(CrelayNode *node, char *text)
{
	static const char *const spaces = " \t\r\n";
	char	   *rest;
	char	   *word = strtok_r(text, spaces, &rest);
	bool		named = false;

	memset(node, 0, sizeof(CrelayNode));
	node->managed = true;
	node->role = CRELAY_ROLE_PRIMARY;
	node->state = CRELAY_STATE_RUNNING;
	node->timeline = 1;
	node->replay_lsn = UINT64CONST(0x5000000);
	node->oldest_wal_lsn = UINT64CONST(0x1000000);
	strlcpy(node->location, "default", sizeof(node->location));

	for (; word != NULL; word = strtok_r(NULL, spaces, &rest))
	{
		if (!named)
			copy_word(node->name, sizeof(node->name), word);
		else if (strcmp(word, "<") == 0 && node->upstream_name[0] == '\0')
		{
			word = strtok_r(NULL, spaces, &rest);
			copy_word(node->upstream_name, sizeof(node->upstream_name),
					  word != NULL ? word : "");
			node->role = CRELAY_ROLE_STANDBY;
			node->state = CRELAY_STATE_STREAMING;
			node->replica_class = CRELAY_CLASS_READ_REPLICA;
		}
		else
			take_pair(node, word);
		named = true;
	}
}

static int
find_described(const CrelayNode *nodes, int n, const char *name)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(nodes[i].name, name) == 0)
			return i;
	}
	return -1;
}

/*
 * A tree out of text, as in 'p; i < p; l < i class=voting'.
 */
static void
parse_tree(const char *text, CrelayPolicyTree *policy)
{
	char	   *copy = pstrdup(text);
	CrelayNode *nodes;
	CrelayTreeLink *links;
	CrelayTreeRow *rows;
	int			n = 0;
	int			room = 1;

	for (const char *p = text; *p != '\0'; p++)
		room += *p == ';';
	/* what is between two semicolons may be nothing */
	nodes = palloc_array(CrelayNode, Min(room, POLICY_MAX_NODES + 1));
	while (copy != NULL)
	{
		char	   *end = strchr(copy, ';');

		CHECK_FOR_INTERRUPTS();
		check_policy_size(n);
		if (end != NULL)
			*end = '\0';
		if (strspn(copy, " \t\r\n") < strlen(copy))
		{
			take_node(&nodes[n], copy);
			if (find_described(nodes, n, nodes[n].name) >= 0)
				bad_tree("This node is there twice", nodes[n].name);
			nodes[n].incarnation = n + 1;
			n++;
		}
		copy = end != NULL ? end + 1 : NULL;
	}
	for (int i = 0; i < n; i++)
	{
		int			upstream = find_described(nodes, n, nodes[i].upstream_name);

		/* an upstream that is not described is one that nobody knows */
		if (nodes[i].upstream_name[0] != '\0')
			nodes[i].upstream_incarnation = upstream >= 0 ? upstream + 1 : n + 1;
	}

	links = palloc_array(CrelayTreeLink, n + 1);
	rows = palloc_array(CrelayTreeRow, n + 1);
	policy->nrows = crelay_topology_assemble(nodes, n, links, rows);
	policy->nodes = nodes;
	policy->rows = rows;
	policy->has_here = false;
	policy->history = NULL;
	policy->segment_size = UINT64CONST(16) * 1024 * 1024;
	policy->left = NULL;
	policy->newest_primary = 0;
	n = crelay_policy_newest_primary(policy);
	if (n >= 0)
		policy->newest_primary = nodes[rows[n].node].timeline;
}

static const CrelayNode *
policy_node(const CrelayPolicyTree *policy, int row)
{
	return &policy->nodes[policy->rows[row].node];
}

/* ---- the plan ---- */

/*
 * upstream_name, is_cascade, refusal.
 */
static void
put_plan(CrelayTuple *tuple, const CrelayPolicyTree *policy,
		 const CrelayPlanQuestion *question, const CrelayPlan *plan)
{
	if (plan->upstream >= 0)
		crelay_put_text(tuple, policy_node(policy, plan->upstream)->name);
	else
		crelay_put_text(tuple, plan->as_requested ? question->requested : NULL);
	crelay_put_bool(tuple, plan->is_cascade);
	crelay_put_text(tuple, crelay_plan_reason_text(plan->refusal));
}

/*
 * The class that a node is known to have.
 */
static CrelayClass
known_class(const CrelayPolicyTree *policy, const char *node_name)
{
	int			row = crelay_policy_find(policy, node_name);

	return row >= 0 ? policy_node(policy, row)->replica_class : CRELAY_CLASS_UNKNOWN;
}

/*
 * cascade_plan_upstream(node_name, replica_class, requested, requested_conninfo)
 *
 * Always answers; NULL and empty texts are what has not been said.
 */
Datum
cascade_plan_upstream(PG_FUNCTION_ARGS)
{
	const char *class_name = text_argument(fcinfo, 1);
	const char *conninfo = text_argument(fcinfo, 3);
	CrelayPlanQuestion question = {0};
	CrelayPolicyTree policy;
	CrelayPlan	plan;
	CrelayTuple tuple = {0};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("function returning record called in context that cannot accept type record")));

	question.node_name = text_argument(fcinfo, 0);
	question.replica_class = class_name != NULL ? class_by_name(class_name) :
		CRELAY_CLASS_UNKNOWN;
	question.requested = text_argument(fcinfo, 2);
	question.has_conninfo = conninfo != NULL;
	(void) crelay_tree_for_policy(&policy);
	if (class_name == NULL)
		question.replica_class = known_class(&policy, question.node_name);
	crelay_policy_plan(&policy, &question, &plan);

	put_plan(&tuple, &policy, &question, &plan);
	if (plan.as_requested && conninfo != NULL)
		crelay_put_text(&tuple, conninfo);
	else
		crelay_put_text(&tuple, plan.upstream >= 0 ?
						policy_node(&policy, plan.upstream)->conninfo : NULL);
	crelay_tuple_finish(&tuple, desc);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  tuple.values, tuple.nulls)));
}

/* ---- the policy as a table ---- */

static void
put_policy_row(ReturnSetInfo *rsinfo, MemoryContext memory, const CrelayPolicyTree *policy,
			   const CrelayPlanQuestion *question)
{
	CrelayTuple tuple;
	CrelayPlan	plan;

	crelay_tuple_begin(&tuple, memory);
	crelay_policy_plan(policy, question, &plan);
	crelay_put_text(&tuple, question->node_name);
	crelay_put_text(&tuple, crelay_class_text(question->replica_class));
	crelay_put_text(&tuple, question->requested);
	crelay_put_bool(&tuple, question->has_conninfo);
	put_plan(&tuple, policy, question, &plan);
	crelay_tuple_store(&tuple, rsinfo);
}

/*
 * cascade_policy(tree) returns the plan for every question that can be asked
 * about a tree: each node, and one that is not there yet (NULL), in both
 * classes, asking for nothing, for each node, and for an unknown one without
 * and with its conninfo.
 */
Datum
cascade_policy(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext memory = crelay_row_memory();
	CrelayPolicyTree policy;

	if (PG_ARGISNULL(0))
		(void) crelay_tree_for_policy(&policy);
	else
	{
		text	   *tree = PG_GETARG_TEXT_PP(0);

		if (VARSIZE_ANY_EXHDR(tree) > POLICY_MAX_TEXT)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("the description of a tree is longer than %d bytes", POLICY_MAX_TEXT)));
		parse_tree(text_to_cstring(tree), &policy);
	}
	check_policy_size(policy.nrows);

	InitMaterializedSRF(fcinfo, 0);
	for (int node = 0; node <= policy.nrows; node++)
	{
		for (int class = CRELAY_CLASS_VOTING; class <= CRELAY_CLASS_READ_REPLICA; class++)
		{
			CrelayPlanQuestion question = {0};

			if (node < policy.nrows)
				question.node_name = policy_node(&policy, node)->name;
			question.replica_class = (CrelayClass) class;
			put_policy_row(rsinfo, memory, &policy, &question);
			for (int row = 0; row < policy.nrows; row++)
			{
				question.requested = policy_node(&policy, row)->name;
				put_policy_row(rsinfo, memory, &policy, &question);
			}
			question.requested = CRELAY_UNKNOWN_NODE;
			put_policy_row(rsinfo, memory, &policy, &question);
			question.has_conninfo = true;
			put_policy_row(rsinfo, memory, &policy, &question);
		}
	}
	return (Datum) 0;
}

/* ---- commands ---- */

/*
 * A name for a comment: nothing in it ends the line.
 */
static char *
plain_name(const char *name)
{
	char	   *copy = pstrdup(name);

	for (char *p = copy; *p != '\0'; p++)
	{
		if ((unsigned char) *p < 0x20 || *p == 0x7f)
			*p = '?';
	}
	return copy;
}

/*
 * The slot that a node gets on its new upstream.  A node without cascade_relay
 * may have any name; what is not a slot name is made one that stays its own.
 */
static char *
slot_for(const char *node_name)
{
	char	   *slot;

	if (crelay_node_name_is_valid(node_name))
		return pstrdup(node_name);
	slot = psprintf("%.40s_%08x", node_name,
					hash_bytes((const unsigned char *) node_name,
							   (int) strlen(node_name)));
	for (char *p = slot; *p != '\0'; p++)
	{
		*p = pg_tolower((unsigned char) *p);
		if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9')))
			*p = '_';
	}
	return slot;
}

/*
 * Finds the address at which a node (a row, -1 for a node that does not exist
 * yet) reaches an upstream.  Returns false if no usable address is known.  Only
 * host, hostaddr and port are taken from an advertised conninfo: its other
 * keywords would override what the operator has configured.
 */
static bool
find_address(const CrelayPolicyTree *policy, int row, int upstream, CrelayAddress *address)
{
	const char *conninfo = crelay_policy_address(policy, row, upstream);

	return conninfo != NULL && crelay_conninfo_is_public(conninfo) &&
		crelay_address_read(conninfo, address);
}

static void
append_shell_word(StringInfo line, const char *word)
{
	appendStringInfoChar(line, '\'');
	for (const char *p = word; *p != '\0'; p++)
	{
		if (*p == '\'')
			appendStringInfoString(line, "'\\''");
		else
			appendStringInfoChar(line, *p);
	}
	appendStringInfoChar(line, '\'');
}

static void
append_conninfo_word(StringInfo text, const char *keyword, const char *value)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@+";

	appendStringInfo(text, "%s%s=", text->len > 0 ? " " : "", keyword);
	if (value[0] != '\0' && value[strspn(value, plain)] == '\0')
	{
		appendStringInfoString(text, value);
		return;
	}
	appendStringInfoChar(text, '\'');
	for (const char *p = value; *p != '\0'; p++)
	{
		if (*p == '\'' || *p == '\\')
			appendStringInfoChar(text, '\\');
		appendStringInfoChar(text, *p);
	}
	appendStringInfoChar(text, '\'');
}

static void
append_uri_word(StringInfo text, const char *keyword, const char *value)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";

	appendStringInfo(text, "%s%s=", text->len > 0 ? "&" : "", keyword);
	for (const char *p = value; *p != '\0'; p++)
	{
		if (strchr(plain, *p) != NULL)
			appendStringInfoChar(text, *p);
		else
			appendStringInfo(text, "%%%02X", (unsigned char) *p);
	}
}

static char *
clone_command(const char *node_name, const CrelayNode *upstream, const CrelayAddress *address)
{
	StringInfoData conninfo;
	StringInfoData line;

	initStringInfo(&conninfo);
	if (address == NULL)
		append_conninfo_word(&conninfo, "host", psprintf("ADDRESS_OF_%s", plain_name(upstream->name)));
	else
	{
		if (address->host[0] != '\0')
			append_conninfo_word(&conninfo, "host", address->host);
		if (address->hostaddr[0] != '\0')
			append_conninfo_word(&conninfo, "hostaddr", address->hostaddr);
		if (address->port[0] != '\0')
			append_conninfo_word(&conninfo, "port", address->port);
	}
	initStringInfo(&line);
	appendStringInfoString(&line, "pg_basebackup -D \"$PGDATA\" -d ");
	append_shell_word(&line, conninfo.data);
	appendStringInfoString(&line, " -X stream -c fast -C -S ");
	append_shell_word(&line, slot_for(node_name));
	appendStringInfoString(&line, " -R");
	return line.data;
}

/*
 * Appends the statements that point primary_conninfo of a node at an address.
 * The address is appended in the form that the setting has, as keywords or as
 * parameters of a URI, because a later value overrides an earlier one.  The
 * statement that psql runs then may contain a password, so it is not logged.
 */
static void
append_redirection(StringInfo text, const CrelayAddress *address)
{
	StringInfoData words;
	StringInfoData uri;

	initStringInfo(&words);
	append_conninfo_word(&words, "host", address->host);
	append_conninfo_word(&words, "hostaddr", address->hostaddr);
	append_conninfo_word(&words, "port", address->port);
	initStringInfo(&uri);
	append_uri_word(&uri, "host", address->host);
	append_uri_word(&uri, "hostaddr", address->hostaddr);
	append_uri_word(&uri, "port", address->port);

	appendStringInfoString(text,
						   "SET log_statement = 'none';\n"
						   "SET log_min_duration_statement = -1;\n"
						   "SET log_min_error_statement = 'panic';\n");
	appendStringInfo(text,
					 "SELECT pg_catalog.format('ALTER SYSTEM SET primary_conninfo = %%L', pg_catalog.concat(c,"
					 " CASE WHEN c OPERATOR(pg_catalog.~) '^postgres(ql)?://'"
					 " THEN pg_catalog.concat(CASE WHEN c OPERATOR(pg_catalog.~) '[?]' THEN '&' ELSE '?' END,"
					 " pg_catalog.concat_ws('&', %s, any_host))"
					 " ELSE pg_catalog.concat_ws(' ', '', %s, any_host) END))",
					 quote_literal_cstr(uri.data), quote_literal_cstr(words.data));
	appendStringInfoString(text,
						   " FROM pg_catalog.current_setting('primary_conninfo') c,"
						   " LATERAL (SELECT CASE WHEN c OPERATOR(pg_catalog.~) 'target_session_attrs'"
						   " THEN 'target_session_attrs=any' END) a(any_host) \\gexec\n"
						   "RESET log_statement;\n"
						   "RESET log_min_duration_statement;\n"
						   "RESET log_min_error_statement;\n");
}

/*
 * What to run in psql, first on the new upstream, then on the node, where that
 * one cannot do it by itself.  The rest of the node's primary_conninfo - user,
 * service, password - stays what it is and is not looked at here.
 */
static char *
move_by_hand(const char *schema, const CrelayNode *node, const CrelayNode *upstream,
			 const CrelayAddress *address)
{
	static const CrelayAddress to_fill_in = {"ADDRESS", "", ""};
	const char *slot = quote_literal_cstr(slot_for(node->name));
	StringInfoData text;

	initStringInfo(&text);
	if (address == NULL)
		appendStringInfo(&text, "-- replace ADDRESS: %s has no cascade_relay.advertised_conninfo\n",
						 plain_name(upstream->name));
	appendStringInfo(&text, "-- on %s:\n", plain_name(upstream->name));
	if (!upstream->managed)
		appendStringInfo(&text, "SELECT pg_catalog.pg_create_physical_replication_slot(%s, true);\n", slot);
	else if (node->replay_lsn == 0)
		appendStringInfo(&text, "SELECT %s.cascade_adopt(%s, %s);\n", schema,
						 quote_literal_cstr(node->name), slot);
	else
		appendStringInfo(&text, "SELECT %s.cascade_adopt(%s, %s, '" CRELAY_LSN_FORMAT "');\n",
						 schema, quote_literal_cstr(node->name), slot,
						 LSN_FORMAT_ARGS(node->replay_lsn));
	appendStringInfo(&text, "-- on %s:\n", plain_name(node->name));
	if (!node->managed)
		appendStringInfoString(&text, "-- its log shows settings that a reload changes: no password should be in primary_conninfo, but in a password file\n");
	append_redirection(&text, address != NULL ? address : &to_fill_in);
	appendStringInfo(&text, "ALTER SYSTEM SET primary_slot_name = %s;\n", slot);
	appendStringInfoString(&text, "SELECT pg_catalog.pg_reload_conf();");
	return text.data;
}

/*
 * What to run on the node, if it can move itself.
 */
static char *
move_command(const char *schema, const CrelayNode *node, const CrelayNode *upstream,
			 const CrelayAddress *address)
{
	if (node->managed && upstream->managed && address != NULL)
		return psprintf("SELECT %s.cascade_follow(%s);", schema,
						quote_literal_cstr(upstream->name));
	return move_by_hand(schema, node, upstream, address);
}

/* ---- candidates ---- */

static const char *
candidate_reason(const CrelayCandidate *candidate)
{
	if (candidate->verdict == CRELAY_VERDICT_UNPROVEN)
		return crelay_unproven_text(candidate->unproven);
	return crelay_plan_reason_text(candidate->reason);
}

/*
 * Nothing has to be run to stay, and nothing should be for what is refused.
 */
static const char *
candidate_command(const char *schema, const CrelayPolicyTree *policy, const char *node_name,
				  int self, const CrelayCandidate *candidate)
{
	const CrelayNode *upstream = policy_node(policy, candidate->upstream);
	CrelayAddress place;
	const CrelayAddress *address = find_address(policy, self, candidate->upstream, &place) ?
	&place : NULL;

	if (candidate->verdict == CRELAY_VERDICT_REFUSED || candidate->current)
		return NULL;
	if (self < 0)
		return clone_command(node_name, upstream, address);
	return move_command(schema, policy_node(policy, self), upstream, address);
}

/*
 * Works out the candidates of a node, and puts them out unless rsinfo is NULL.
 * The place that the node will take on the best one is taken from then on.
 */
static void
put_candidates(ReturnSetInfo *rsinfo, const char *schema, MemoryContext memory,
			   const CrelayPolicyTree *policy,
			   const CrelayCandidateQuestion *question, int self,
			   CrelayCandidate *candidates)
{
	int			n = crelay_policy_candidates(policy, question, candidates);

	if (self >= 0 && n > 0)
		crelay_policy_take_room(policy, self, &candidates[0]);
	for (int i = 0; rsinfo != NULL && i < n; i++)
	{
		const CrelayCandidate *candidate = &candidates[i];
		const CrelayNode *upstream = policy_node(policy, candidate->upstream);
		CrelayTuple tuple;

		crelay_tuple_begin(&tuple, memory);
		crelay_put_text(&tuple, question->node_name);
		crelay_put_int(&tuple, candidate->rank, candidate->rank > 0);
		crelay_put_text(&tuple, upstream->name);
		crelay_put_text(&tuple, crelay_verdict_text(candidate->verdict));
		crelay_put_text(&tuple, candidate_reason(candidate));
		crelay_put_int(&tuple, candidate->hops, candidate->hops >= 0);
		crelay_put_truth(&tuple, candidate->same_location);
		crelay_put_lsn(&tuple, upstream->oldest_wal_lsn);
		crelay_put_bigint(&tuple, candidate->missing_wal, candidate->missing_wal >= 0);
		crelay_put_text(&tuple, candidate_command(schema, policy, question->node_name,
												  self, candidate));
		crelay_tuple_store(&tuple, rsinfo);
	}
}

/*
 * A node that streams from nobody has no candidates, and neither has the one
 * that is taken to be gone.
 */
static bool
needs_upstream(const CrelayPolicyTree *policy, int row, const char *without)
{
	const CrelayNode *node = policy_node(policy, row);

	return node->role != CRELAY_ROLE_PRIMARY &&
		(without == NULL || strcmp(node->name, without) != 0);
}

/*
 * Whether a node has to move if the one to do without is gone.
 */
static bool
hangs_from(const CrelayPolicyTree *policy, int row, const char *without)
{
	int			parent = policy->rows[row].parent;

	return without != NULL && parent >= 0 &&
		strcmp(policy_node(policy, parent)->name, without) == 0;
}

/*
 * Puts out the candidates of one row, or of all (-1).  Those who have to move
 * besides take their places before, in the order of the tree: each alone could
 * go where not all of them can.
 */
static void
put_rows(ReturnSetInfo *rsinfo, const char *schema, const CrelayPolicyTree *policy,
		 CrelayCandidateQuestion *question, int only)
{
	MemoryContext memory = crelay_row_memory();
	CrelayCandidate *candidates = palloc_array(CrelayCandidate, policy->nrows + 1);

	for (int row = 0; row < policy->nrows; row++)
	{
		bool		shown = only < 0 || row == only;

		CHECK_FOR_INTERRUPTS();
		question->node_name = policy_node(policy, row)->name;
		if ((shown || (row < only && hangs_from(policy, row, question->without))) &&
			needs_upstream(policy, row, question->without) &&
			crelay_policy_find(policy, question->node_name) == row)
			put_candidates(shown ? rsinfo : NULL, schema, memory, policy, question, row, candidates);
	}
}

/*
 * cascade_upstream_candidates(node_name, without, location) returns for that
 * node, or for each one, what it could stream from, the best first.
 */
Datum
cascade_upstream_candidates(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const char *schema = crelay_schema_of(fcinfo->flinfo->fn_oid);
	CrelayCandidateQuestion question;
	CrelayPolicyTree policy;
	const char *node_name = text_argument(fcinfo, 0);
	int			self = -1;

	question.without = text_argument(fcinfo, 1);
	question.location = text_argument(fcinfo, 2);
	(void) crelay_tree_for_policy(&policy);
	if (question.without != NULL && crelay_policy_find(&policy, question.without) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("node \"%s\" does not exist in the tree", question.without)));

	InitMaterializedSRF(fcinfo, 0);
	crelay_policy_count_room(&policy, palloc_array(CrelayRoom, policy.nrows + 1),
							 question.without);
	if (node_name != NULL)
	{
		self = crelay_policy_find(&policy, node_name);
		if (self < 0 && !crelay_node_name_is_valid(node_name))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" is not a node of the tree, and no name for a new one",
							node_name),
					 errhint("A node name has at most %d lower case letters, digits and underscores.",
							 CRELAY_NODE_NAME_MAX)));
	}
	question.node_name = node_name;
	if (node_name != NULL && self < 0)
		put_candidates(rsinfo, schema, crelay_row_memory(), &policy, &question, self,
					   palloc_array(CrelayCandidate, policy.nrows + 1));
	else
		put_rows(rsinfo, schema, &policy, &question, self);
	return (Datum) 0;
}

/* ---- the oldest WAL file ---- */

/*
 * Whether the server gave up a slot here of somebody whose position nobody
 * knows.
 */
static bool
has_lost_slot(const CrelayPolicyTree *policy)
{
	CrelaySnapshot snapshot;
	CrelayDownstream *downstreams;
	int			n;

	crelay_registry_snapshot(&snapshot, false);
	downstreams = crelay_downstream_collect(&snapshot, true, &n);
	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];
		int			row;

		if (d->kind != CRELAY_KIND_SLOT || !d->invalidated || d->logical ||
			d->temporary || d->ignored || d->own)
			continue;
		row = crelay_policy_find(policy, d->name);
		if (row < 0 || policy_node(policy, row)->replay_lsn == 0)
			return true;
	}
	return false;
}

/*
 * The timeline on which an LSN of this history lies.
 */
static TimeLineID
timeline_of(const CrelayHistory *history, uint64 lsn)
{
	TimeLineID	timeline = history->timeline;

	for (uint32 i = 0; i < history->n && lsn < history->left[i].lsn; i++)
		timeline = history->left[i].timeline;
	return timeline;
}

/*
 * cascade_oldest_wal_file() returns the name of the oldest WAL file that
 * anybody in the tree still needs, NULL if that is not known.
 */
Datum
cascade_oldest_wal_file(PG_FUNCTION_ARGS)
{
	CrelayPolicyTree policy;
	CrelayTree *tree;
	XLogSegNo	segno;
	char		name[MAXFNAMELEN];
	uint64		need = 0;
	int			own;

	tree = crelay_tree_for_policy(&policy);
	if (!tree->local.ready || tree->local.worker_pid == 0 ||
		tree->local.hold_target_lsn == 0 || policy.history == NULL)
		PG_RETURN_NULL();
	own = crelay_policy_here(&policy);
	if (own >= 0)
		need = crelay_policy_oldest_need(&policy, own, tree->local.hold_target_lsn);
	if (need == 0 || has_lost_slot(&policy))
		PG_RETURN_NULL();

	XLByteToSeg(need, segno, wal_segment_size);
	XLogFileName(name, timeline_of(policy.history, need), segno, wal_segment_size);
	PG_RETURN_TEXT_P(cstring_to_text(name));
}
