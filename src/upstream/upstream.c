/*-------------------------------------------------------------------------
 *
 * upstream.c
 *	  The connection to the upstream node, as a state machine.
 *
 * Owns: one libpq connection per link - what it waits for and until when, the
 * message it carries, and when it has failed.
 *
 * Not here: where it goes to (upstream_target.c), what is said about a failure
 * (upstream_error.c), what the bytes mean (message.c), when to connect, to
 * send and to try again (worker.c), the clock (now is an argument).
 *
 * Failing: nothing here throws for a network's or a server's fault; they end
 * in REFUSED or FAILED.  Whatever libpq allocates hangs on the link, so that
 * crelay_link_close() after an error thrown elsewhere leaves nothing behind;
 * parameters and peers live only where nothing can throw.
 *
 * Locking: none; a link belongs to one process.  Nothing blocks, except name
 * resolution in PQconnectStartParams() when no hostaddr is known.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <poll.h>

#include "catalog/pg_type.h"
#include "libpq-fe.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "decide/address.h"
#include "upstream/upstream_internal.h"

/* Larger answers are not believed; message.h has the same bound. */
#define CRELAY_ANSWER_MAX		(16 * 1024 * 1024)

/* Transitions of a connecting socket per call, should it never run dry. */
#define CRELAY_POLLS_MAX		64

/* Reads per call that an encrypted connection may need; see read_input(). */
#define CRELAY_ENCRYPTED_READS	8

struct CrelayLink
{
	MemoryContext context;		/* of the answer; reset with each message */
	CrelayLinkState state;
	PGconn	   *conn;			/* not NULL: an external FD is reserved */
	PGresult   *result;			/* of the query in flight, as far as known */
	int			events;			/* WL_SOCKET_* to wait for */
	int			deadline_ms;	/* for each step */
	int			naddresses;		/* of the host's name */
	int			turn;			/* of the address to begin with */
	int			step_ms;		/* for the current step */
	TimestampTz deadline;		/* of the current step, 0 none */
	uint64		generation;
	uint8	   *answer;
	Size		answer_len;
	char		query[2 * NAMEDATALEN + 128];	/* the call of cascade_report */
	CrelayComplaint notice;		/* what the server said while idle */
	CrelayFailure failure;		/* on the last failure */
};

typedef enum CrelayCollect
{
	CRELAY_COLLECT_WAITING,
	CRELAY_COLLECT_DONE,		/* the result is complete, or an error */
	CRELAY_COLLECT_BROKEN		/* the connection is gone */
} CrelayCollect;

/* The schema that the extension lives in over there. */
const char	crelay_lookup_query[] =
"SELECT pg_catalog.quote_ident(n.nspname)"
" FROM pg_catalog.pg_extension e"
" JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace"
" WHERE e.extname OPERATOR(pg_catalog.=) 'cascade_relay'";

/*-------------------------------------------------------------------------
 * Failing
 *-------------------------------------------------------------------------
 */

/* The end of each function below: closes, and says how it ended. */
static CrelayLinkEvent
close_failed(CrelayLink *link, CrelayPeer *peer)
{
	crelay_peer_free(peer);
	crelay_link_close(link);
	return link->failure.refused ? CRELAY_LINK_REFUSED : CRELAY_LINK_FAILED;
}

static CrelayLinkEvent
fail(CrelayLink *link, const char *error, const char *hint)
{
	CrelayPeer	peer;

	crelay_peer_read(&peer, link->conn);
	crelay_failure_words(&link->failure, &peer, error, hint);
	return close_failed(link, &peer);
}

static CrelayLinkEvent
fail_missing(CrelayLink *link)
{
	CrelayPeer	peer;

	crelay_peer_read(&peer, link->conn);
	crelay_failure_missing(&link->failure, &peer);
	return close_failed(link, &peer);
}

static CrelayLinkEvent
fail_timeout(CrelayLink *link)
{
	CrelayPeer	peer;

	/* an address that does not answer is the last to be tried next time */
	if (link->state == CRELAY_LINK_CONNECTING && link->naddresses > 1)
		link->turn = (link->turn + 1) % link->naddresses;
	crelay_peer_read(&peer, link->conn);
	crelay_failure_timeout(&link->failure, &peer, link->state, link->step_ms);
	return close_failed(link, &peer);
}

static CrelayLinkEvent
fail_complaint(CrelayLink *link, const CrelayComplaint *complaint)
{
	CrelayPeer	peer;

	crelay_peer_read(&peer, link->conn);
	crelay_failure_complaint(&link->failure, &peer, link->state, complaint);
	return close_failed(link, &peer);
}

/*
 * The connection is of no use any more: by the server's last words, if it said
 * any, else by libpq's.
 */
static CrelayLinkEvent
fail_conn(CrelayLink *link)
{
	const char *str = PQerrorMessage(link->conn);
	CrelayComplaint complaint;

	if (link->notice.sqlstate[0] != '\0')
		return fail_complaint(link, &link->notice);
	if (PQstatus(link->conn) == CONNECTION_OK ||
		link->state == CRELAY_LINK_CLOSED ||
		link->state == CRELAY_LINK_CONNECTING)
		crelay_complaint_read_connect(&complaint, str);
	else
		crelay_complaint_read_lost(&complaint, str);
	return fail_complaint(link, &complaint);
}

void
crelay_complaint_read_result(CrelayComplaint *complaint, const PGresult *result)
{
	crelay_complaint_set(complaint,
						 PQresultErrorField(result, PG_DIAG_SQLSTATE),
						 PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY),
						 PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL),
						 PQresultErrorField(result, PG_DIAG_MESSAGE_HINT));
}

/* A query that did not end in rows: by its result, else by the connection. */
static CrelayLinkEvent
fail_result(CrelayLink *link)
{
	CrelayComplaint complaint;

	if (link->result == NULL ||
		PQresultErrorField(link->result, PG_DIAG_SQLSTATE) == NULL)
		return fail_conn(link);
	crelay_complaint_read_result(&complaint, link->result);
	return fail_complaint(link, &complaint);
}

/*
 * Nothing is printed.  What a server says before it ends an idle session
 * arrives here and nowhere else; in an immediate shutdown it is a warning.
 */
static void
receive_notice(void *arg, const PGresult *result)
{
	CrelayLink *link = (CrelayLink *) arg;
	const char *severity = PQresultErrorField(result,
											  PG_DIAG_SEVERITY_NONLOCALIZED);
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (severity == NULL || sqlstate == NULL)
		return;
	if (strcmp(severity, "ERROR") == 0 || strcmp(severity, "FATAL") == 0 ||
		strcmp(severity, "PANIC") == 0 || strncmp(sqlstate, "57P", 3) == 0)
		crelay_complaint_read_result(&link->notice, result);
}

/*-------------------------------------------------------------------------
 * Opening and closing
 *-------------------------------------------------------------------------
 */

CrelayLink *
crelay_link_create(MemoryContext context)
{
	CrelayLink *link = MemoryContextAllocZero(context, sizeof(CrelayLink));

	link->state = CRELAY_LINK_CLOSED;
	link->context = AllocSetContextCreate(context, "cascade_relay upstream",
										  ALLOCSET_START_SMALL_SIZES);
	return link;
}

static void
forget_answer(CrelayLink *link)
{
	link->answer = NULL;
	link->answer_len = 0;
	MemoryContextReset(link->context);
}

/* Also safe after an error was thrown in the middle of anything here. */
void
crelay_link_close(CrelayLink *link)
{
	PGresult   *result = link->result;
	PGconn	   *conn = link->conn;

	link->generation++;
	link->state = CRELAY_LINK_CLOSED;
	link->deadline = 0;
	link->events = 0;
	link->result = NULL;
	link->conn = NULL;
	memset(&link->notice, 0, sizeof(link->notice));
	PQclear(result);
	if (conn != NULL)
	{
		PQfinish(conn);
		ReleaseExternalFD();
	}
	forget_answer(link);
}

static void
begin_step(CrelayLink *link, CrelayLinkState state, int ms, TimestampTz now)
{
	link->state = state;
	link->step_ms = ms;
	link->deadline = now + ms * INT64CONST(1000);
}

/*
 * Lets libpq begin.  An external FD is reserved.  Returns NULL, with error and
 * hint set and nothing reserved, if it may not, or does not know where to.
 */
static PGconn *
start_conn(CrelayParams *params, const char **error, const char **hint)
{
	PGconn	   *conn;

	if (!AcquireExternalFD())
	{
		*error = "too many open files on this server";
		*hint = "Raise max_files_per_process or \"ulimit -n\".";
		return NULL;
	}
	*error = "out of memory";
	*hint = "";
	conn = PQconnectStartParams(params->keywords, params->values, 0);
	if (conn != NULL && params->naddresses < 2 && crelay_conn_chooses_host(conn))
	{
		PQfinish(conn);
		conn = NULL;
		if (crelay_params_follow_walreceiver(params))
			conn = PQconnectStartParams(params->keywords, params->values, 0);
		else
		{
			*error = "the service or environment of the connection names several hosts";
			*hint = "Name the upstream in cascade_relay.upstream_conninfo, as host and port.";
		}
	}
	if (conn == NULL)
		ReleaseExternalFD();
	return conn;
}

bool
crelay_link_open(CrelayLink *link, const CrelayTarget *target,
				 int deadline_ms)
{
	CrelayParams params;
	const char *error;
	const char *hint;

	crelay_link_close(link);
	link->deadline_ms = Max(deadline_ms, 1);

	/* Nothing between here and crelay_params_free() throws. */
	if (crelay_params_build(&params, target, link->deadline_ms, 0, link->turn, &error, &hint))
		link->conn = start_conn(&params, &error, &hint);
	link->naddresses = params.naddresses;
	crelay_params_free(&params);
	if (link->conn == NULL)
	{
		fail(link, error, hint);
		return false;
	}
	if (PQstatus(link->conn) == CONNECTION_BAD)
	{
		fail_conn(link);
		return false;
	}

	/* Verbose, because only so a refused connect tells its SQLSTATE. */
	PQsetErrorVerbosity(link->conn, PQERRORS_VERBOSE);
	PQsetNoticeReceiver(link->conn, receive_notice, link);
	link->events = WL_SOCKET_WRITEABLE;
	link->generation++;

	/* its time begins with the first step: names were resolved up to now */
	link->state = CRELAY_LINK_CONNECTING;
	link->step_ms = crelay_connect_share_ms(link->deadline_ms, link->naddresses,
											crelay_conn_timeout_ms(link->conn));
	link->deadline = 0;
	return true;
}

/*-------------------------------------------------------------------------
 * Moving on
 *-------------------------------------------------------------------------
 */

/*
 * Whether the socket is ready, now.  libpq's PQconnectPoll() waits for it when
 * called too early, and the worker has other reasons to wake up.
 */
static bool
is_socket_ready(pgsocket sock, int events)
{
	struct pollfd fd;

	if (sock == PGINVALID_SOCKET)
		return true;
	fd.fd = sock;
	fd.events = (events & WL_SOCKET_READABLE) ? POLLIN : POLLOUT;
	fd.revents = 0;
	return poll(&fd, 1, 0) > 0;
}

/* Sends what is left to send, and says what to wait for. */
static void
flush_output(CrelayLink *link)
{
	/* A failure to write shows when reading; the reason may lie there. */
	link->events = WL_SOCKET_READABLE;
	if (PQflush(link->conn) > 0)
		link->events |= WL_SOCKET_WRITEABLE;
}

static CrelayLinkEvent
start_lookup(CrelayLink *link, TimestampTz now)
{
	if (PQsetnonblocking(link->conn, 1) != 0 ||
		!PQsendQueryParams(link->conn, crelay_lookup_query, 0, NULL, NULL, NULL, NULL,
						   0))
		return fail_conn(link);
	begin_step(link, CRELAY_LINK_LOOKUP, link->deadline_ms, now);
	return CRELAY_LINK_NOTHING;
}

static CrelayLinkEvent
step_connecting(CrelayLink *link, TimestampTz now)
{
	for (int i = 0; i < CRELAY_POLLS_MAX; i++)
	{
		if (!is_socket_ready(PQsocket(link->conn), link->events))
			return CRELAY_LINK_NOTHING;

		/* The next address may get the number of a socket just closed. */
		link->generation++;
		switch (PQconnectPoll(link->conn))
		{
			case PGRES_POLLING_READING:
				link->events = WL_SOCKET_READABLE;
				break;
			case PGRES_POLLING_WRITING:
				link->events = WL_SOCKET_WRITEABLE;
				break;
			case PGRES_POLLING_OK:
				return start_lookup(link, now);
			case PGRES_POLLING_FAILED:
			case PGRES_POLLING_ACTIVE:
				return fail_conn(link);
		}
	}
	return CRELAY_LINK_NOTHING;
}

/*
 * Reads what is there.  False if the connection is gone.  Where libpq does not
 * drain the encryption layer, one read can leave bytes there that the socket
 * does not tell of: read until there is nothing, in practice.
 */
static bool
read_input(PGconn *conn)
{
	int			reads = 1;

	if (PQsslInUse(conn) || PQgssEncInUse(conn))
		reads = CRELAY_ENCRYPTED_READS;
	while (reads-- > 0)
	{
		if (!PQconsumeInput(conn))
			return false;
		if (!PQisBusy(conn))
			break;
	}
	return true;
}

/* Collects the result of the query in flight into link->result. */
static CrelayCollect
collect_result(CrelayLink *link)
{
	flush_output(link);
	if (!read_input(link->conn))
	{
		/*
		 * The server's reason may be in the buffer still.  PQgetResult() does
		 * not wait on a socket that is closed.
		 */
		if (link->result == NULL && PQstatus(link->conn) == CONNECTION_BAD)
			link->result = PQgetResult(link->conn);
		return CRELAY_COLLECT_BROKEN;
	}
	while (!PQisBusy(link->conn))
	{
		PGresult   *result = PQgetResult(link->conn);

		if (result == NULL)
			return CRELAY_COLLECT_DONE;
		PQclear(link->result);
		link->result = result;
		/* to leave before the server is done would be an error in its log */
		if (PQresultStatus(result) != PGRES_TUPLES_OK &&
			PQresultStatus(result) != PGRES_FATAL_ERROR)
			return CRELAY_COLLECT_DONE;
	}

	/* Reading may have made room for writing. */
	flush_output(link);
	return CRELAY_COLLECT_WAITING;
}

static void
become_ready(CrelayLink *link)
{
	PQclear(link->result);
	link->result = NULL;
	link->state = CRELAY_LINK_READY;
	link->deadline = 0;
	link->events = WL_SOCKET_READABLE;
}

static CrelayLinkEvent
step_lookup(CrelayLink *link)
{
	CrelayCollect collect = collect_result(link);
	int			len;

	if (collect == CRELAY_COLLECT_WAITING)
		return CRELAY_LINK_NOTHING;
	if (collect == CRELAY_COLLECT_BROKEN ||
		PQresultStatus(link->result) != PGRES_TUPLES_OK)
		return fail_result(link);
	if (PQntuples(link->result) == 0)
		return fail_missing(link);

	len = snprintf(link->query, sizeof(link->query),
				   "SELECT OPERATOR(%s.@<-) $1::pg_catalog.bytea",
				   PQgetvalue(link->result, 0, 0));
	if (len < 0 || len >= (int) sizeof(link->query))
		return fail(link, "the upstream names an impossible schema", "");
	become_ready(link);
	return CRELAY_LINK_OPENED;
}

/* Takes the answer out of the result; false if it is none. */
static bool
take_answer(CrelayLink *link)
{
	PGresult   *result = link->result;
	int			len;

	if (PQntuples(result) != 1 || PQnfields(result) != 1 ||
		PQftype(result, 0) != BYTEAOID || PQfformat(result, 0) != 1 ||
		PQgetisnull(result, 0, 0))
		return false;
	len = PQgetlength(result, 0, 0);
	if (len > CRELAY_ANSWER_MAX)
		return false;
	link->answer = MemoryContextAllocExtended(link->context, Max(len, 1),
											  MCXT_ALLOC_NO_OOM);
	if (link->answer == NULL)
		return false;
	memcpy(link->answer, PQgetvalue(result, 0, 0), len);
	link->answer_len = len;
	return true;
}

static CrelayLinkEvent
step_busy(CrelayLink *link)
{
	CrelayCollect collect = collect_result(link);

	if (collect == CRELAY_COLLECT_WAITING)
		return CRELAY_LINK_NOTHING;
	if (collect == CRELAY_COLLECT_BROKEN ||
		PQresultStatus(link->result) != PGRES_TUPLES_OK)
		return fail_result(link);
	if (!take_answer(link))
		return fail(link, "the upstream's answer is not one bytea of at most 16 MB",
					"");
	become_ready(link);
	return CRELAY_LINK_ANSWERED;
}

/* Nothing is expected, but the end may come. */
static CrelayLinkEvent
step_ready(CrelayLink *link)
{
	bool		alive = read_input(link->conn);

	/* This call parses, which hands a last message to receive_notice(). */
	(void) PQisBusy(link->conn);
	if (link->notice.sqlstate[0] != '\0')
		return fail_complaint(link, &link->notice);
	if (!alive || PQstatus(link->conn) == CONNECTION_BAD)
		return fail_conn(link);
	return CRELAY_LINK_NOTHING;
}

static CrelayLinkEvent
check_deadline(CrelayLink *link, TimestampTz now)
{
	int64		allowed = link->step_ms * INT64CONST(1000);

	if (link->deadline == 0)
		return CRELAY_LINK_NOTHING;
	if (now >= link->deadline)
		return fail_timeout(link);

	/* The clock was set back: wait no longer than from now on. */
	if (link->deadline - now > allowed)
		link->deadline = now + allowed;
	return CRELAY_LINK_NOTHING;
}

CrelayLinkEvent
crelay_link_step(CrelayLink *link, TimestampTz now)
{
	CrelayLinkEvent event = CRELAY_LINK_NOTHING;

	switch (link->state)
	{
		case CRELAY_LINK_CLOSED:
			break;
		case CRELAY_LINK_CONNECTING:
			if (link->deadline == 0)
				begin_step(link, CRELAY_LINK_CONNECTING, link->step_ms, now);
			event = step_connecting(link, now);
			if (link->state == CRELAY_LINK_LOOKUP)
				event = step_lookup(link);
			break;
		case CRELAY_LINK_LOOKUP:
			event = step_lookup(link);
			break;
		case CRELAY_LINK_READY:
			event = step_ready(link);
			break;
		case CRELAY_LINK_BUSY:
			event = step_busy(link);
			break;
	}
	if (event == CRELAY_LINK_NOTHING)
		event = check_deadline(link, now);
	return event;
}

bool
crelay_link_send(CrelayLink *link, const uint8 *data, Size len,
				 TimestampTz now)
{
	const Oid	types[1] = {BYTEAOID};
	const char *const values[1] = {(const char *) data};
	const int	lengths[1] = {(int) len};
	const int	formats[1] = {1};

	Assert(link->state == CRELAY_LINK_READY);
	Assert(len <= CRELAY_ANSWER_MAX);
	if (link->state != CRELAY_LINK_READY)
		return false;
	forget_answer(link);
	if (!PQsendQueryParams(link->conn, link->query, 1, types, values, lengths,
						   formats, 1))
	{
		fail_conn(link);
		return false;
	}
	begin_step(link, CRELAY_LINK_BUSY, link->deadline_ms, now);
	flush_output(link);
	return true;
}

/*-------------------------------------------------------------------------
 * What a link says about itself
 *-------------------------------------------------------------------------
 */

const uint8 *
crelay_link_answer(CrelayLink *link, Size *len)
{
	*len = link->answer_len;
	return link->answer;
}

CrelayLinkState
crelay_link_state(const CrelayLink *link)
{
	return link->state;
}

pgsocket
crelay_link_socket(const CrelayLink *link, int *events)
{
	*events = link->events;
	return link->conn ? PQsocket(link->conn) : PGINVALID_SOCKET;
}

bool
crelay_link_is_local(const CrelayLink *link)
{
	const char *host = PQhost(link->conn);
	const char *hostaddr = PQhostaddr(link->conn);

	if (hostaddr != NULL && hostaddr[0] != '\0')
		host = hostaddr;
	return host != NULL && crelay_host_is_local(host);
}

TimestampTz
crelay_link_deadline(const CrelayLink *link)
{
	return link->deadline;
}

uint64
crelay_link_generation(const CrelayLink *link)
{
	return link->generation;
}

const char *
crelay_link_error(const CrelayLink *link)
{
	return link->failure.error;
}

const char *
crelay_link_hint(const CrelayLink *link)
{
	return link->failure.hint;
}

bool
crelay_link_lacks_extension(const CrelayLink *link)
{
	return link->failure.lacks_extension;
}
