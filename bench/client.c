/*-------------------------------------------------------------------------
 *
 * client.c
 *	  What bench/measure.pl needs and a script is too slow for.
 *
 * Owns: four small programs.  Each takes connection strings, prints raw figures,
 * one on a line, and ends when its input ends, or when it is done.
 *
 *	  client report CONNINFO CHILDREN BELOW INTERVAL_MS SECONDS HOLD
 *		CHILDREN nodes report, each through a session of its own, each with
 *		BELOW nodes below it, and a tree in every fifth report, as a worker
 *		sends it.  INTERVAL_MS 0: the next report follows the reply.  SECONDS 0:
 *		until the input ends.  HOLD 1: each asks for a hold.  INTERVAL_MS -1:
 *		each reports once, and leaves.
 *	  client time CONNINFO ROUNDS SECONDS QUERY ...
 *		How long each query takes until its last row is here, the queries in turn.
 *	  client watch LEAF ROOT CHILD
 *		When the leaf's replay, and the frontier and the xmin of CHILD as the
 *		root sees them, have changed.
 *	  client senders CONNINFO N
 *		N walsenders without a slot, that confirm nothing.
 *
 * The messages are written and read by the extension's own message.c.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/message.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define BYTEAOID		17
#define TREE_EVERY		5
#define FAN_OUT			8		/* children of a simulated node */
#define EPOCH_SHIFT		INT64_C(946684800000000)	/* 1970 to 2000 */

typedef struct Child
{
	PGconn	   *conn;
	CrelayReport report;
	char		name[CRELAY_NODE_NAME_MAX + 1];
	uint32_t	incarnation;
	bool		busy;
	int64_t		next_at;
} Child;

static uint8_t buf[CRELAY_MESSAGE_MAX];
static char call[256];			/* the query that hands a message over */
static uint64_t system_identifier;
static uint64_t current_lsn;
static uint32_t timeline;
static int	below;
static int	interval_ms;
static bool wants_hold;

static long reports;
static long trees_told;
static long rows_told;
static size_t plain_bytes;		/* of a report without tree */

/* ---- helpers ---- */

static void
fail(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

/* Microseconds since 1970. */
static int64_t
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static PGconn *
open_connection(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
		fail("%s", PQerrorMessage(conn));
	return conn;
}

/* The result of a query that must succeed. */
static PGresult *
ask(PGconn *conn, const char *query)
{
	PGresult   *result = PQexec(conn, query);

	if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
		fail("%s: %s", query, PQerrorMessage(conn));
	return result;
}

static uint64_t
parse_lsn(const char *text)
{
	unsigned int high;
	unsigned int low;

	return sscanf(text, "%X/%X", &high, &low) == 2 ? (uint64_t) high << 32 | low : 0;
}

static bool
input_ended(void)
{
	struct pollfd in = {STDIN_FILENO, POLLIN, 0};
	char		c;

	return poll(&in, 1, 0) > 0 && read(STDIN_FILENO, &c, 1) <= 0;
}

static int
number(const char *text)
{
	char	   *end;
	long		value = strtol(text, &end, 10);

	if (*text == '\0' || *end != '\0')
		fail("not a number: %s", text);
	return (int) value;
}

/* ---- report ---- */

static void
learn(const char *conninfo)
{
	PGconn	   *conn = open_connection(conninfo);
	PGresult   *result = ask(conn, "SELECT quote_ident(n.nspname), s.system_identifier, pg_current_wal_flush_lsn(), "
							 "c.timeline_id FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace, "
							 "pg_control_system() s, pg_control_checkpoint() c WHERE e.extname = 'cascade_relay'");

	if (PQntuples(result) != 1)
		fail("the extension cascade_relay is not there");
	snprintf(call, sizeof(call), "SELECT OPERATOR(%s.@<-) $1::pg_catalog.bytea", PQgetvalue(result, 0, 0));
	system_identifier = strtoull(PQgetvalue(result, 0, 1), NULL, 10);
	current_lsn = parse_lsn(PQgetvalue(result, 0, 2));
	timeline = strtoul(PQgetvalue(result, 0, 3), NULL, 10);
	PQclear(result);
	PQfinish(conn);
}

static void
fill_report(Child *child)
{
	CrelayReport *report = &child->report;

	report->report_interval_ms = interval_ms > 0 ? interval_ms : 1000;
	report->timeline = timeline;
	report->state = CRELAY_STATE_STREAMING;
	report->replica_class = CRELAY_CLASS_READ_REPLICA;
	report->protected = CRELAY_TRUE;
	report->hot_standby_feedback = CRELAY_TRUE;
	report->flush_lsn = current_lsn;
	report->replay_lsn = current_lsn;
	report->frontier_lsn = current_lsn;
	report->hold_target_lsn = wants_hold ? current_lsn : 0;
	report->oldest_wal_lsn = current_lsn;
	report->incarnation = child->incarnation;
	report->feed = CRELAY_FEED_STREAMS;
	report->pause = CRELAY_PAUSE_NO;
	snprintf(report->pin.by, sizeof(report->pin.by), "%s", child->name);
	snprintf(report->pin.on, sizeof(report->pin.on), "%s", child->name);
	snprintf(report->about.application_name, sizeof(report->about.application_name), "%s", child->name);
	snprintf(report->about.location, sizeof(report->about.location), "rack%d", (int) child->incarnation % 10);
	snprintf(report->about.conninfo, sizeof(report->about.conninfo), "host=%s.example.org port=5432", child->name);
	snprintf(report->about.upstream_address, sizeof(report->about.upstream_address), "root.example.org:5432");
	snprintf(report->about.version, sizeof(report->about.version), "%s", crelay_message_software());
	report->about.room = (CrelayRoom)
	{
		true, 10, 10
	};
	report->history.timeline = timeline;
}

/* The node that stands i-th below a child; the child itself is the 0-th. */
static void
fill_identity(const Child *child, int i, char *name, size_t size, uint32_t *incarnation)
{
	if (i == 0)
		snprintf(name, size, "%s", child->name);
	else
		snprintf(name, size, "%s_%05d", child->name, i);
	*incarnation = child->incarnation + (uint32_t) i;
}

static void
put_rows(CrelayCursor *cur, const Child *child)
{
	int64_t		now = now_us() - EPOCH_SHIFT;
	CrelayNode	row = {0};

	row.role = CRELAY_ROLE_STANDBY;
	row.replica_class = CRELAY_CLASS_READ_REPLICA;
	row.state = CRELAY_STATE_STREAMING;
	row.managed = true;
	row.protected = CRELAY_TRUE;
	row.hot_standby_feedback = CRELAY_TRUE;
	row.timeline = timeline;
	row.flush_lsn = row.replay_lsn = row.frontier_lsn = row.oldest_wal_lsn = current_lsn;
	row.feed = CRELAY_FEED_STREAMS;
	row.pause = CRELAY_PAUSE_NO;
	row.room = (CrelayRoom)
	{
		true, 10, 10
	};
	row.path_interval_ms = 2000;
	row.observed_at = now;
	snprintf(row.version, sizeof(row.version), "%s", crelay_message_software());
	for (int i = 1; i <= below; i++)
	{
		fill_identity(child, (i - 1) / FAN_OUT, row.upstream_name, sizeof(row.upstream_name),
					  &row.upstream_incarnation);
		fill_identity(child, i, row.name, sizeof(row.name), &row.incarnation);
		snprintf(row.pin.by, sizeof(row.pin.by), "%s", row.name);
		snprintf(row.pin.on, sizeof(row.pin.on), "%.*s", CRELAY_NODE_NAME_MAX, row.name);
		snprintf(row.location, sizeof(row.location), "rack%d", i % 10);
		snprintf(row.conninfo, sizeof(row.conninfo), "host=%s.example.org port=5432", row.name);
		crelay_message_put_row(cur, &row, now);
	}
}

static size_t
encode(Child *child)
{
	CrelayReport *report = &child->report;
	CrelayCursor cur;
	size_t		len;

	report->has_tree = report->sequence % TREE_EVERY == 0;
	report->sequence++;
	crelay_message_begin_report(&cur, buf, sizeof(buf), report);
	if (report->has_tree)
		put_rows(&cur, child);
	len = crelay_message_end(&cur);
	if (len == 0)
		fail("cannot encode a report: %s", cur.error);
	if (!report->has_tree)
		plain_bytes = len;
	return len;
}

static void
send_message(Child *child, size_t len)
{
	const Oid	types[1] = {BYTEAOID};
	const char *const values[1] = {(const char *) buf};
	const int	lengths[1] = {(int) len};
	const int	formats[1] = {1};

	if (!PQsendQueryParams(child->conn, call, 1, types, values, lengths, formats, 1))
		fail("%s", PQerrorMessage(child->conn));
	child->busy = true;
}

static void
take_answer(Child *child)
{
	PGresult   *result = PQgetResult(child->conn);
	CrelayReply reply;
	CrelayCursor rows;
	const char *error;

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		fail("%s", PQerrorMessage(child->conn));
	if (!crelay_message_get_reply((const uint8_t *) PQgetvalue(result, 0, 0), PQgetlength(result, 0, 0),
								  &reply, &rows, &error))
		fail("%s", error);
	if (reply.answer != CRELAY_ANSWER_OK)
		fail("%s was refused: %s %s", child->name, crelay_refusal_text(reply.refusal), reply.detail);
	if (reply.has_tree)
	{
		trees_told++;
		rows_told += reply.nrows;
	}
	PQclear(result);
	while ((result = PQgetResult(child->conn)) != NULL)
		PQclear(result);
	child->busy = false;
}

/* Says hello and reports once, with everything below. */
static void
join(Child *child, int i, const char *conninfo)
{
	CrelayHello hello = {0};

	child->conn = open_connection(conninfo);
	child->incarnation = 0x10000000 + (uint32_t) i * 0x10000;
	snprintf(child->name, sizeof(child->name), "node%04d", i);
	hello.system_identifier = system_identifier;
	hello.start_id = (uint64_t) getpid() << 32 | (uint32_t) i;
	hello.incarnation = child->incarnation;
	hello.report_interval_ms = interval_ms > 0 ? interval_ms : 1000;
	snprintf(hello.node_name, sizeof(hello.node_name), "%s", child->name);
	send_message(child, crelay_message_put_hello(buf, sizeof(buf), &hello));
	take_answer(child);
	fill_report(child);
	send_message(child, encode(child));
	take_answer(child);
}

/* What has gone over the connection, either way, as TCP has counted it. */
static void
count_bytes(const Child *child, uint64_t *sent, uint64_t *received)
{
	struct tcp_info info = {0};
	socklen_t	size = sizeof(info);

	if (getsockopt(PQsocket(child->conn), IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
		fail("TCP_INFO: %s", strerror(errno));
	*sent += info.tcpi_bytes_acked;
	*received += info.tcpi_bytes_received;
}

/* Reports until the time is over. */
static void
exchange(Child *children, int n, int64_t until)
{
	struct pollfd *fds = calloc((size_t) n, sizeof(struct pollfd));

	for (;;)
	{
		int64_t		now = now_us();
		int64_t		wake = now + 100000;

		if (until != 0 ? now >= until : input_ended())
			break;
		for (int i = 0; i < n; i++)
		{
			Child	   *child = &children[i];

			if (!child->busy && now >= child->next_at)
				send_message(child, encode(child));
			if (!child->busy && child->next_at < wake)
				wake = child->next_at;
			fds[i].fd = child->busy ? PQsocket(child->conn) : -1;
			fds[i].events = POLLIN;
		}
		if (poll(fds, (nfds_t) n, wake > now ? (int) ((wake - now) / 1000) + 1 : 0) < 0)
			fail("poll: %s", strerror(errno));
		for (int i = 0; i < n; i++)
		{
			Child	   *child = &children[i];

			if (!child->busy || fds[i].revents == 0)
				continue;
			if (!PQconsumeInput(child->conn))
				fail("%s", PQerrorMessage(child->conn));
			if (PQisBusy(child->conn))
				continue;
			take_answer(child);
			reports++;
			child->next_at = interval_ms == 0 ? 0 : child->next_at + (int64_t) interval_ms * 1000;
		}
	}
	for (int i = 0; i < n; i++)
	{
		if (children[i].busy)
			take_answer(&children[i]);
	}
	free(fds);
}

static void
run_report(char **argv)
{
	int			n = number(argv[1]);
	int			seconds;
	Child	   *children = calloc((size_t) n, sizeof(Child));
	uint64_t	before[2] = {0, 0};
	uint64_t	after[2] = {0, 0};
	int64_t		start;

	below = number(argv[2]);
	interval_ms = number(argv[3]);
	seconds = number(argv[4]);
	wants_hold = number(argv[5]) != 0;
	learn(argv[0]);
	for (int i = 0; i < n; i++)
	{
		join(&children[i], i, argv[0]);
		if (interval_ms < 0)
			PQfinish(children[i].conn);
	}
	printf("ready\n");
	fflush(stdout);
	if (interval_ms < 0)
		return;
	start = now_us();
	/* spread over the interval, and the trees over the reports */
	for (int i = 0; i < n; i++)
	{
		children[i].next_at = start + (int64_t) interval_ms * 1000 * i / n;
		children[i].report.sequence += (uint64_t) (i % TREE_EVERY);
	}
	/* until each has been told the whole tree */
	if (seconds > 0)
	{
		start += (int64_t) TREE_EVERY * interval_ms * 1000;
		exchange(children, n, start);
		for (int i = 0; i < n; i++)
			count_bytes(&children[i], &before[0], &before[1]);
	}
	reports = trees_told = rows_told = 0;
	exchange(children, n, seconds > 0 ? start + (int64_t) seconds * 1000000 : 0);
	for (int i = 0; i < n; i++)
		count_bytes(&children[i], &after[0], &after[1]);
	printf("seconds %.3f\nreports %ld\nbytes_up %" PRIu64 "\nbytes_down %" PRIu64 "\ntrees_down %ld\nrows_down %ld\nmessage_bytes %zu\n",
		   (double) (now_us() - start) / 1e6, reports, after[0] - before[0], after[1] - before[1],
		   trees_told, rows_told, plain_bytes);
}

/* ---- time ---- */

static void
run_time(int argc, char **argv)
{
	PGconn	   *conn = open_connection(argv[0]);
	int			rounds = number(argv[1]);
	int64_t		end = now_us() + (int64_t) number(argv[2]) * 1000000;

	for (int round = 0; round < rounds && (round == 0 || now_us() < end); round++)
	{
		for (int i = 3; i < argc; i++)
		{
			int64_t		start = now_us();
			PGresult   *result = PQexec(conn, argv[i]);
			bool		ok = PQresultStatus(result) == PGRES_TUPLES_OK;
			const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

			if (!ok && sqlstate == NULL)
				fail("%s: %s", argv[i], PQerrorMessage(conn));
			printf("%d %s %.3f %d\n", i - 3, ok ? "ms" : sqlstate, (double) (now_us() - start) / 1000.0,
				   ok ? PQntuples(result) : 0);
			/* an error is only told once */
			if (!ok)
				argv[i] = "SELECT 1 WHERE false";
			PQclear(result);
		}
		fflush(stdout);
	}
}

/* ---- watch ---- */

/* Prints what a prepared query says, if that has changed. */
static void
note_change(PGconn *conn, const char *what, char *last, size_t size)
{
	PGresult   *result = PQexecPrepared(conn, what, 0, NULL, NULL, NULL, 0);
	const char *value;

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		fail("%s: %s", what, PQerrorMessage(conn));
	value = PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "";
	if (strcmp(last, value) != 0)
	{
		printf("%s %s %.6f\n", what, value, (double) now_us() / 1e6);
		snprintf(last, size, "%s", value);
	}
	PQclear(result);
}

static void
prepare(PGconn *conn, const char *name, const char *query)
{
	PGresult   *result = PQprepare(conn, name, query, 0, NULL);

	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		fail("%s", PQerrorMessage(conn));
	PQclear(result);
}

static void
run_watch(char **argv)
{
	PGconn	   *leaf = open_connection(argv[0]);
	PGconn	   *root = open_connection(argv[1]);
	char		query[512];
	char		replayed[64] = "";
	char		frontier[64] = "";
	char		xmin[64] = "";

	prepare(leaf, "leaf", "SELECT pg_last_wal_replay_lsn()");
	snprintf(query, sizeof(query), "SELECT frontier_lsn FROM cascade_topology() WHERE node_name = '%s'", argv[2]);
	prepare(root, "root", query);
	snprintf(query, sizeof(query), "SELECT xmin FROM pg_replication_slots WHERE slot_name = '%s'", argv[2]);
	prepare(root, "xmin", query);
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (!input_ended())
	{
		note_change(leaf, "leaf", replayed, sizeof(replayed));
		note_change(root, "root", frontier, sizeof(frontier));
		note_change(root, "xmin", xmin, sizeof(xmin));
		usleep(1000);
	}
}

/* ---- senders ---- */

static void
run_senders(char **argv)
{
	int			n = number(argv[1]);
	PGconn	   *conn = open_connection(argv[0]);
	PGresult   *result = ask(conn, "SELECT pg_current_wal_flush_lsn()");
	char		start[128];
	char		conninfo[1024];

	snprintf(start, sizeof(start), "START_REPLICATION %s", PQgetvalue(result, 0, 0));
	PQfinish(conn);
	snprintf(conninfo, sizeof(conninfo), "%s replication=true", argv[0]);
	for (int i = 0; i < n; i++)
	{
		PGconn	   *sender = open_connection(conninfo);

		if (PQresultStatus(PQexec(sender, start)) != PGRES_COPY_BOTH)
			fail("%s", PQerrorMessage(sender));
	}
	printf("ready\n");
	fflush(stdout);
	while (!input_ended())
		usleep(100000);
}

int
main(int argc, char **argv)
{
	struct rlimit files = {65536, 65536};

	(void) setrlimit(RLIMIT_NOFILE, &files);
	if (argc == 8 && strcmp(argv[1], "report") == 0)
		run_report(argv + 2);
	else if (argc > 5 && strcmp(argv[1], "time") == 0)
		run_time(argc - 2, argv + 2);
	else if (argc == 5 && strcmp(argv[1], "watch") == 0)
		run_watch(argv + 2);
	else if (argc == 4 && strcmp(argv[1], "senders") == 0)
		run_senders(argv + 2);
	else
		fail("usage: see the head of client.c");
	return 0;
}
