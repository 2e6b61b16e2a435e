/*-------------------------------------------------------------------------
 *
 * upstream_session.c
 *	  A short conversation with another node, for a session of this server.
 *
 * Owns, leaves out, fails and locks: see upstream_session.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "libpq-fe.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/fd.h"
#include "storage/latch.h"

#include "server/compat.h"
#include "upstream/upstream_internal.h"
#include "upstream/upstream_session.h"

/*
 * How long the other server lets a conversation be idle.  Nothing else there
 * knows of it, and a smart shutdown waits for it.
 */
#define IDLE_MS				10000

struct CrelaySession
{
	CrelaySessionKind kind;
	PGconn	   *conn;			/* not NULL: an external FD is reserved */
	PGresult   *result;			/* the last answer */
	int			naddresses;		/* of the host's name */
	bool		timed_out;		/* the last failure was one of time */
	char		schema[2 * NAMEDATALEN + 3];
	CrelayComplaint complaint;	/* of the last failure */
	CrelayFailure failure;
};

/* How long something may take, from a start on. */
typedef struct Deadline
{
	instr_time	start;
	int			timeout_ms;
} Deadline;

CrelaySession *
crelay_session_create(MemoryContext context)
{
	return MemoryContextAllocZero(context, sizeof(CrelaySession));
}

bool
crelay_session_is_open(const CrelaySession *session)
{
	return session->conn != NULL;
}

/* Also safe after an error was thrown in the middle of anything here. */
void
crelay_session_close(CrelaySession *session)
{
	PGresult   *result = session->result;
	PGconn	   *conn = session->conn;

	session->result = NULL;
	session->conn = NULL;
	PQclear(result);
	if (conn != NULL)
	{
		PQfinish(conn);
		ReleaseExternalFD();
	}
}

/*-------------------------------------------------------------------------
 * Failing
 *-------------------------------------------------------------------------
 */

/*
 * What upstream_error.c advises is for the connection of the reports; one for
 * replication meets other lines of pg_hba.conf and of the password file, and
 * another limit.
 */
static void
advise_replication(CrelaySession *session, const CrelayPeer *peer)
{
	const char *sqlstate = session->complaint.sqlstate;
	char		error[CRELAY_ERROR_LEN];
	char		hint[CRELAY_HINT_LEN];

	if (strcmp(sqlstate, "28000") == 0)
		snprintf(hint, sizeof(hint),
				 "Role \"%s\" must exist there with LOGIN and REPLICATION, and pg_hba.conf there must let it connect from this server to database \"replication\".",
				 peer->user);
	else if (strcmp(sqlstate, "28P01") == 0 || peer->needs_password)
		snprintf(hint, sizeof(hint),
				 "The password of role \"%s\" comes from primary_conninfo, or from an entry for database \"replication\" of that host in the password file.",
				 peer->user);
	else if (strcmp(sqlstate, "53300") == 0)
		snprintf(hint, sizeof(hint),
				 "Raise \"%s\" there and restart that server, or end a walsender that nobody needs.",
				 "max_wal_senders");
	else
		return;
	strlcpy(error, session->failure.error, sizeof(error));
	crelay_failure_words(&session->failure, peer, error, hint);
}

/* The failure on the complaint that is there. */
static bool
fail_complaint(CrelaySession *session, CrelayLinkState state)
{
	CrelayPeer	peer;

	crelay_peer_read(&peer, session->conn);
	crelay_failure_complaint(&session->failure, &peer, state,
							 &session->complaint);
	if (session->kind == CRELAY_SESSION_REPLICATION)
		advise_replication(session, &peer);
	crelay_peer_free(&peer);
	if (session->conn == NULL || PQstatus(session->conn) == CONNECTION_BAD)
		crelay_session_close(session);
	return false;
}

static bool
fail_connect(CrelaySession *session)
{
	crelay_complaint_read_connect(&session->complaint,
								  PQerrorMessage(session->conn));
	fail_complaint(session, CRELAY_LINK_CONNECTING);
	crelay_session_close(session);
	return false;
}

static bool
fail_lost(CrelaySession *session)
{
	crelay_complaint_read_lost(&session->complaint,
							   PQerrorMessage(session->conn));
	fail_complaint(session, CRELAY_LINK_BUSY);
	crelay_session_close(session);
	return false;
}

static bool
fail_timeout(CrelaySession *session, CrelayLinkState state, int timeout_ms)
{
	CrelayPeer	peer;

	session->timed_out = true;
	memset(&session->complaint, 0, sizeof(session->complaint));
	crelay_peer_read(&peer, session->conn);
	crelay_failure_timeout(&session->failure, &peer, state, timeout_ms);
	crelay_peer_free(&peer);
	crelay_session_close(session);
	return false;
}

static bool
fail_ourselves(CrelaySession *session, const char *error, const char *hint)
{
	CrelayPeer	peer;

	memset(&session->complaint, 0, sizeof(session->complaint));
	crelay_peer_read(&peer, session->conn);
	crelay_failure_words(&session->failure, &peer, error, hint);
	crelay_peer_free(&peer);
	crelay_session_close(session);
	return false;
}

static bool
fail_missing(CrelaySession *session)
{
	CrelayPeer	peer;

	memset(&session->complaint, 0, sizeof(session->complaint));
	crelay_peer_read(&peer, session->conn);
	crelay_failure_missing(&session->failure, &peer);
	crelay_peer_free(&peer);
	crelay_session_close(session);
	return false;
}

/*-------------------------------------------------------------------------
 * Waiting
 *-------------------------------------------------------------------------
 */

/*
 * Waits for the socket, or an interrupt, or the deadline; false for that.
 * *ready says whether it was the socket: libpq waits by itself, and deafly, if
 * it is called too early.
 */
static bool
wait_socket(const CrelaySession *session, int events, const Deadline *deadline,
			bool *ready)
{
	instr_time	now;
	double		left;
	int			occurred;

	CHECK_FOR_INTERRUPTS();
	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, deadline->start);
	left = deadline->timeout_ms - INSTR_TIME_GET_MILLISEC(now);
	if (left <= 0)
		return false;
	occurred = WaitLatchOrSocket(MyLatch,
								 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_TIMEOUT | events,
								 PQsocket(session->conn), (long) left + 1,
								 crelay_wait_event_follow());
	if (occurred & WL_LATCH_SET)
		ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	*ready = (occurred & events) != 0;
	return true;
}

static bool
finish_connect(CrelaySession *session, const Deadline *deadline)
{
	int			events = WL_SOCKET_WRITEABLE;

	for (;;)
	{
		bool		ready;

		if (PQsocket(session->conn) == PGINVALID_SOCKET)
			return fail_connect(session);
		if (!wait_socket(session, events, deadline, &ready))
			return fail_timeout(session, CRELAY_LINK_CONNECTING, deadline->timeout_ms);
		if (!ready)
			continue;
		switch (PQconnectPoll(session->conn))
		{
			case PGRES_POLLING_READING:
				events = WL_SOCKET_READABLE;
				break;
			case PGRES_POLLING_WRITING:
				events = WL_SOCKET_WRITEABLE;
				break;
			case PGRES_POLLING_OK:
				return true;
			case PGRES_POLLING_FAILED:
			case PGRES_POLLING_ACTIVE:
				return fail_connect(session);
		}
	}
}

/*
 * Takes the results of the question that was sent, the last of which stays.
 * False if the connection is lost, or too slow.
 */
static bool
collect(CrelaySession *session, const Deadline *deadline)
{
	for (;;)
	{
		int			unsent = PQflush(session->conn);
		bool		ready;

		while (!PQisBusy(session->conn))
		{
			PGresult   *result = PQgetResult(session->conn);

			if (result == NULL)
				return true;
			PQclear(session->result);
			session->result = result;

			/* no other state is expected to end, and none is asked for */
			if (PQresultStatus(result) != PGRES_TUPLES_OK &&
				PQresultStatus(result) != PGRES_COMMAND_OK &&
				PQresultStatus(result) != PGRES_FATAL_ERROR)
				return fail_ourselves(session, "the answer is of an unexpected kind", "");
		}
		if (PQstatus(session->conn) == CONNECTION_BAD)
			return fail_lost(session);
		if (!wait_socket(session,
						 WL_SOCKET_READABLE | (unsent > 0 ? WL_SOCKET_WRITEABLE : 0),
						 deadline, &ready))
			return fail_timeout(session, CRELAY_LINK_BUSY, deadline->timeout_ms);
		if (ready && !PQconsumeInput(session->conn))
		{
			/* the server's last words may be in the buffer still */
			PGresult   *result = PQisBusy(session->conn) ? NULL : PQgetResult(session->conn);

			if (result == NULL || PQresultErrorField(result, PG_DIAG_SQLSTATE) == NULL)
			{
				PQclear(result);
				return fail_lost(session);
			}
			PQclear(session->result);
			session->result = result;
			return true;
		}
	}
}

/*-------------------------------------------------------------------------
 * Asking
 *-------------------------------------------------------------------------
 */

/* Nothing is printed; a notice is nobody's business here. */
static void
ignore_notice(void *arg, const PGresult *result)
{
}

/*
 * Lets libpq begin, with the address whose turn it is.  Nothing between building
 * the parameters and freeing them throws.
 */
static bool
start_connect(CrelaySession *session, const CrelayTarget *target, int timeout_ms,
			  int turn)
{
	CrelayParams params;
	const char *error = "out of memory";
	const char *hint = "";
	bool		several = false;

	if (!AcquireExternalFD())
		return fail_ourselves(session, "too many open files on this server",
							  "Raise max_files_per_process or \"ulimit -n\".");
	if (crelay_params_build(&params, target, timeout_ms, IDLE_MS, turn, &error, &hint))
	{
		if (session->kind == CRELAY_SESSION_REPLICATION)
			crelay_params_set_replication(&params);
		error = "out of memory";
		session->conn = PQconnectStartParams(params.keywords, params.values, 0);
		several = session->conn != NULL && params.naddresses < 2 &&
			crelay_conn_chooses_host(session->conn);
	}
	session->naddresses = params.naddresses;
	crelay_params_free(&params);
	if (session->conn == NULL)
	{
		ReleaseExternalFD();
		return fail_ourselves(session, error, hint);
	}
	if (several)
		return fail_ourselves(session, "the connection string names several hosts", "");
	if (PQstatus(session->conn) == CONNECTION_BAD)
		return fail_connect(session);

	/* Verbose, because only so a refused connect tells its SQLSTATE. */
	PQsetErrorVerbosity(session->conn, PQERRORS_VERBOSE);
	PQsetNoticeReceiver(session->conn, ignore_notice, NULL);
	return true;
}

/*
 * Connects to one address of the target after the other, until one answers.
 */
static bool
connect_in_turn(CrelaySession *session, const CrelayTarget *target, int timeout_ms)
{
	for (int turn = 0;; turn++)
	{
		Deadline	deadline;

		session->timed_out = false;
		if (!start_connect(session, target, timeout_ms, turn))
			return false;
		INSTR_TIME_SET_CURRENT(deadline.start);
		deadline.timeout_ms = crelay_connect_share_ms(timeout_ms, session->naddresses,
													  crelay_conn_timeout_ms(session->conn));
		if (finish_connect(session, &deadline))
			return true;
		if (!session->timed_out || turn + 1 >= session->naddresses)
			return false;
	}
}

bool
crelay_session_open(CrelaySession *session, CrelaySessionKind kind,
					const CrelayTarget *target, int timeout_ms)
{
	const char *schema;

	crelay_session_close(session);
	session->kind = kind;
	timeout_ms = Max(timeout_ms, 1);
	if (!connect_in_turn(session, target, timeout_ms))
		return false;
	if (PQsetnonblocking(session->conn, 1) != 0)
		return fail_lost(session);
	if (kind == CRELAY_SESSION_REPLICATION)
		return true;

	if (!crelay_session_ask(session, crelay_lookup_query, 0, NULL, timeout_ms))
	{
		crelay_session_close(session);
		return false;
	}
	schema = crelay_session_value(session, 0, 0);
	if (schema == NULL)
		return fail_missing(session);
	strlcpy(session->schema, schema, sizeof(session->schema));
	return true;
}

bool
crelay_session_ask(CrelaySession *session, const char *query, int nparams,
				   const char *const *params, int timeout_ms)
{
	Deadline	deadline;
	bool		sent;

	PQclear(session->result);
	session->result = NULL;
	if (session->conn == NULL)
		return fail_ourselves(session, "the connection was lost", "");
	deadline.timeout_ms = Max(timeout_ms, 1);
	INSTR_TIME_SET_CURRENT(deadline.start);
	if (session->kind == CRELAY_SESSION_REPLICATION)
		sent = PQsendQuery(session->conn, query);
	else
		sent = PQsendQueryParams(session->conn, query, nparams, NULL, params,
								 NULL, NULL, 0);
	if (!sent)
		return fail_lost(session);
	if (!collect(session, &deadline))
		return false;
	if (session->result == NULL)
		return fail_lost(session);
	if (PQresultStatus(session->result) == PGRES_FATAL_ERROR)
	{
		crelay_complaint_read_result(&session->complaint, session->result);
		return fail_complaint(session, CRELAY_LINK_BUSY);
	}
	return true;
}

/*-------------------------------------------------------------------------
 * What a session says about itself
 *-------------------------------------------------------------------------
 */

int
crelay_session_rows(const CrelaySession *session)
{
	return PQntuples(session->result);
}

const char *
crelay_session_value(const CrelaySession *session, int row, int column)
{
	if (row >= PQntuples(session->result) || column >= PQnfields(session->result) ||
		PQgetisnull(session->result, row, column))
		return NULL;
	return PQgetvalue(session->result, row, column);
}

const char *
crelay_session_schema(const CrelaySession *session)
{
	return session->schema;
}

const char *
crelay_session_error(const CrelaySession *session)
{
	return session->failure.error;
}

const char *
crelay_session_hint(const CrelaySession *session)
{
	return session->failure.hint;
}

const char *
crelay_session_sqlstate(const CrelaySession *session)
{
	return session->complaint.sqlstate;
}

bool
crelay_session_lacks_extension(const CrelaySession *session)
{
	return session->failure.lacks_extension;
}
