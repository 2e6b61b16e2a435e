/*-------------------------------------------------------------------------
 *
 * upstream.c
 *	  The connection to the upstream node, as a state machine.
 *
 * Owns: one libpq connection per link - which host it goes to, what it waits
 * for and until when, and what is said about it when it fails.  Every word
 * that leaves this file is printable ASCII on one line, because it is shown in
 * databases of any encoding, and free of passwords.
 *
 * Not here: what the bytes mean (message.c), when to connect, to send and to
 * try again (worker.c), the clock (now is an argument).  No other file sees
 * libpq.
 *
 * Failing: nothing here throws for a network's or a server's fault; they end
 * in REFUSED or FAILED.  Whatever libpq allocates hangs on the link, so that
 * crelay_link_close() after an error thrown elsewhere leaves nothing behind;
 * the conninfo arrays live only where nothing can throw.
 *
 * Locking: none; a link belongs to one process.  Nothing blocks, except name
 * resolution in PQconnectStartParams() when no hostaddr is known.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <poll.h>

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "libpq-fe.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "node.h"
#include "upstream.h"

/* Larger answers are not believed; message.h has the same bound. */
#define CRELAY_ANSWER_MAX		(16 * 1024 * 1024)

/* libpq knows about fifty keywords. */
#define CRELAY_PARAMS_MAX		128

/* Transitions of a connecting socket per call, should it never run dry. */
#define CRELAY_POLLS_MAX		64

/* Reads per call that an encrypted connection may need; see read_input(). */
#define CRELAY_ENCRYPTED_READS	8

#define SQLSTATE_LEN			5

#define DEFAULT_DATABASE		"postgres"

/* A server's complaint, taken apart.  Without sqlstate it is libpq's own. */
typedef struct CrelayComplaint
{
	char		sqlstate[SQLSTATE_LEN + 1];
	char		message[1024];
	char		detail[1024];
	char		hint[512];
} CrelayComplaint;

struct CrelayLink
{
	MemoryContext context;		/* of the answer; reset with each message */
	CrelayLinkState state;
	PGconn	   *conn;			/* not NULL: an external FD is reserved */
	PGresult   *result;			/* of the query in flight, as far as known */
	int			events;			/* WL_SOCKET_* to wait for */
	int			deadline_ms;	/* for each step */
	int			step_ms;		/* for the current step */
	TimestampTz deadline;		/* of the current step, 0 none */
	uint64		generation;
	uint8	   *answer;
	Size		answer_len;
	char		query[2 * NAMEDATALEN + 128];	/* the call of cascade_report */
	CrelayComplaint notice;		/* what the server said while idle */
	char		error[CRELAY_ERROR_LEN];
	char		hint[CRELAY_HINT_LEN];
};

/* Keywords and values for libpq; they point into what was parsed, or here. */
typedef struct CrelayParams
{
	const char *keywords[CRELAY_PARAMS_MAX + 1];
	const char *values[CRELAY_PARAMS_MAX + 1];
	int			count;
	char		host[MAXPGPATH];
	char		hostaddr[MAXPGPATH];
	char		port[32];
	char		options[512];
} CrelayParams;

/* Both settings of a target, parsed; either may be NULL. */
typedef struct CrelaySources
{
	PQconninfoOption *primary;
	PQconninfoOption *upstream;
} CrelaySources;

typedef enum CrelayCollect
{
	CRELAY_COLLECT_WAITING,
	CRELAY_COLLECT_DONE,		/* the result is complete, or an error */
	CRELAY_COLLECT_BROKEN		/* the connection is gone */
} CrelayCollect;

static const char lookup_query[] =
"SELECT pg_catalog.quote_ident(n.nspname)"
" FROM pg_catalog.pg_extension e"
" JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace"
" WHERE e.extname OPERATOR(pg_catalog.=) 'cascade_relay'";

/*-------------------------------------------------------------------------
 * Connection strings
 *-------------------------------------------------------------------------
 */

static bool
is_blank(const char *str)
{
	return str == NULL || str[strspn(str, " \t\r\n\f\v")] == '\0';
}

/*
 * Parses a conninfo, or URI, into malloc'ed options (NULL for a blank one).
 * Returns false if it is malformed; libpq's message is thrown away, because it
 * can quote a piece of a password.
 */
static bool
parse_conninfo(const char *conninfo, PQconninfoOption **options)
{
	char	   *message = NULL;

	*options = NULL;
	if (is_blank(conninfo))
		return true;
	*options = PQconninfoParse(conninfo, &message);
	if (message != NULL)
		PQfreemem(message);
	return *options != NULL;
}

/* The value of a keyword, NULL if it is not given; libpq ignores empty ones. */
static const char *
option_value(const PQconninfoOption *options, const char *keyword)
{
	if (options == NULL)
		return NULL;
	for (; options->keyword != NULL; options++)
	{
		if (strcmp(options->keyword, keyword) == 0)
			return (options->val && options->val[0]) ? options->val : NULL;
	}
	return NULL;
}

/* Elements of a list that libpq separates by commas; 0 if it is not given. */
static int
list_elements(const char *list)
{
	int			count = 1;

	if (list == NULL)
		return 0;
	for (; *list != '\0'; list++)
		count += (*list == ',');
	return count;
}

/*
 * Copies the n-th element (from 0) of such a list; empty if there is none, or
 * if it does not fit.
 */
static void
list_element(const char *list, int n, char *dst, Size size)
{
	Size		len;

	dst[0] = '\0';
	if (n >= list_elements(list))
		return;
	while (n-- > 0)
		list = strchr(list, ',') + 1;
	len = strcspn(list, ",");
	if (len < size)
	{
		memcpy(dst, list, len);
		dst[len] = '\0';
	}
}

static int
count_hosts(const PQconninfoOption *options)
{
	return Max(list_elements(option_value(options, "host")),
			   list_elements(option_value(options, "hostaddr")));
}

/* Whether these options alone decide about the host. */
static bool
names_host(const PQconninfoOption *options)
{
	return count_hosts(options) > 0 || option_value(options, "service") != NULL;
}

/* Sets one parameter, replacing an earlier value. */
static void
params_set(CrelayParams *params, const char *keyword, const char *value)
{
	int			i;

	for (i = 0; i < params->count; i++)
	{
		if (strcmp(params->keywords[i], keyword) == 0)
			break;
	}
	if (i == CRELAY_PARAMS_MAX)
		return;
	params->keywords[i] = keyword;
	params->values[i] = value;
	if (i == params->count)
		params->count++;
	params->keywords[params->count] = NULL;
	params->values[params->count] = NULL;
}

static bool
params_have(const CrelayParams *params, const char *keyword)
{
	for (int i = 0; i < params->count; i++)
	{
		if (strcmp(params->keywords[i], keyword) == 0)
			return true;
	}
	return false;
}

/* What is ours to decide, and where to, which is decided apart. */
static bool
is_reserved_keyword(const char *keyword)
{
	static const char *const reserved[] = {
		"application_name", "client_encoding", "dbname",
		"fallback_application_name", "host", "hostaddr", "options", "port",
		"replication", "target_session_attrs"
	};

	for (int i = 0; i < (int) lengthof(reserved); i++)
	{
		if (strcmp(keyword, reserved[i]) == 0)
			return true;
	}
	return false;
}

static void
params_copy(CrelayParams *params, const PQconninfoOption *options)
{
	if (options == NULL)
		return;
	for (; options->keyword != NULL; options++)
	{
		if (options->val != NULL && options->val[0] != '\0' &&
			!is_reserved_keyword(options->keyword))
			params_set(params, options->keyword, options->val);
	}
}

static void
params_copy_one(CrelayParams *params, const PQconninfoOption *options,
				const char *keyword)
{
	const char *value = option_value(options, keyword);

	if (value != NULL)
		params_set(params, keyword, value);
}

/* Goes to host and port as the walreceiver names them. */
static void
params_set_live_host(CrelayParams *params, const CrelayTarget *target)
{
	strlcpy(params->host, target->host, sizeof(params->host));
	params_set(params, "host", params->host);
	if (target->port > 0)
	{
		snprintf(params->port, sizeof(params->port), "%d", target->port);
		params_set(params, "port", params->port);
	}
}

/*
 * Of several hosts, the one that the walreceiver is connected to, with its
 * hostaddr if exactly one entry of the list has that host and port.
 */
static void
params_choose_host(CrelayParams *params, const PQconninfoOption *primary,
				   const CrelayTarget *target)
{
	const char *hosts = option_value(primary, "host");
	const char *addrs = option_value(primary, "hostaddr");
	const char *ports = option_value(primary, "port");
	int			matches = 0;
	int			match = 0;

	if (list_elements(ports) == 1)
		params_set(params, "port", ports);
	params_set_live_host(params, target);
	for (int i = 0; i < count_hosts(primary); i++)
	{
		char		host[MAXPGPATH];
		char		port[32];

		list_element(hosts, i, host, sizeof(host));
		if (host[0] == '\0')
			list_element(addrs, i, host, sizeof(host));
		list_element(ports, list_elements(ports) == 1 ? 0 : i,
					 port, sizeof(port));
		if (strcmp(host, target->host) == 0 &&
			(port[0] ? atoi(port) : DEF_PGPORT) == target->port)
		{
			matches++;
			match = i;
		}
	}
	if (matches == 1)
	{
		list_element(addrs, match, params->hostaddr, sizeof(params->hostaddr));
		if (params->hostaddr[0] != '\0')
			params_set(params, "hostaddr", params->hostaddr);
	}
}

/*
 * Where to.  The keys of upstream_conninfo go over those of primary_conninfo;
 * a host of the former replaces host and hostaddr of the latter together.
 */
static void
params_set_host(CrelayParams *params, const CrelaySources *sources,
				const CrelayTarget *target)
{
	const PQconninfoOption *from = sources->primary;

	if (names_host(sources->upstream))
	{
		from = sources->upstream;
		if (list_elements(option_value(sources->primary, "port")) == 1 &&
			option_value(from, "service") == NULL)
			params_copy_one(params, sources->primary, "port");
	}
	if (from == sources->primary && count_hosts(from) > 1)
		params_choose_host(params, from, target);
	else
	{
		params_copy_one(params, from, "host");
		params_copy_one(params, from, "hostaddr");
		params_copy_one(params, from, "port");
	}
	params_copy_one(params, sources->upstream, "port");
}

/*
 * The session's own settings.  The server gives up before this side does, so
 * that its reason arrives; why it ends a session at once is only a warning.  A
 * database or role may default to serializable, which a hot standby refuses.
 * The keepalives rid the upstream of sessions whose node has vanished.
 */
static void
params_set_session(CrelayParams *params, int deadline_ms)
{
	snprintf(params->options, sizeof(params->options),
			 "-c statement_timeout=%d -c lock_timeout=%d"
			 " -c idle_session_timeout=0"
			 " -c idle_in_transaction_session_timeout=0"
			 " -c search_path= -c client_min_messages=warning"
			 " -c default_transaction_isolation=read\\ committed"
			 " -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10"
			 " -c tcp_keepalives_count=3",
			 Max(deadline_ms / 4 * 3, 1), Max(deadline_ms / 2, 1));
	params_set(params, "options", params->options);
	params_set(params, "application_name", "cascade_relay");
	params_set(params, "target_session_attrs", "any");

	/* No conversion can fail so, and names come back as they were sent. */
	params_set(params, "client_encoding", "SQL_ASCII");
}

static void
params_set_keepalives(CrelayParams *params)
{
	if (params_have(params, "service") ||
		params_have(params, "keepalives") ||
		params_have(params, "keepalives_idle") ||
		params_have(params, "keepalives_interval") ||
		params_have(params, "keepalives_count"))
		return;
	params_set(params, "keepalives_idle", "30");
	params_set(params, "keepalives_interval", "10");
	params_set(params, "keepalives_count", "3");
}

/*
 * All parameters of a connection.  Explicit keys beat those of a service, so a
 * service in upstream_conninfo takes the place of primary_conninfo as a whole:
 * else the keys of the latter would override it.
 */
static void
params_build(CrelayParams *params, const CrelaySources *sources,
			 const CrelayTarget *target, int deadline_ms)
{
	const char *dbname = option_value(sources->upstream, "dbname");

	params->count = 0;
	if (option_value(sources->upstream, "service") == NULL)
		params_copy(params, sources->primary);
	params_copy(params, sources->upstream);
	params_set_host(params, sources, target);
	params_set(params, "dbname", dbname ? dbname : DEFAULT_DATABASE);
	params_set_session(params, deadline_ms);
	params_set_keepalives(params);
	if (params_have(params, "service"))
		params_set(params, "replication", "false");
}

/*-------------------------------------------------------------------------
 * What went wrong, in words
 *-------------------------------------------------------------------------
 */

/*
 * Copies a string as one line of printable ASCII: control characters become one
 * space, anything else a question mark.
 */
static void
copy_clean(char *dst, const char *src, Size size)
{
	Size		len = 0;

	for (; *src != '\0' && len < size - 1; src++)
	{
		unsigned char c = (unsigned char) *src;

		if (c < 32 || c == 127)
		{
			if (len > 0 && dst[len - 1] != ' ')
				dst[len++] = ' ';
		}
		else
			dst[len++] = c > 127 ? '?' : (char) c;
	}
	while (len > 0 && dst[len - 1] == ' ')
		len--;
	dst[len] = '\0';
}

/* Whether libpq would not show this option either. */
static bool
is_secret_option(const PQconninfoOption *option)
{
	return (option->dispchar != NULL && option->dispchar[0] == '*') ||
		strcmp(option->keyword, "scram_client_key") == 0 ||
		strcmp(option->keyword, "scram_server_key") == 0;
}

/*
 * Whether a password, from wherever this connection has it, occurs in the
 * text.  In doubt it does.
 */
static bool
reveals_secret(PGconn *conn, const char *str)
{
	const char *password;
	PQconninfoOption *options;
	bool		found = false;

	if (conn == NULL)
		return false;
	password = PQpass(conn);
	if (password != NULL && password[0] != '\0' &&
		strstr(str, password) != NULL)
		return true;
	options = PQconninfo(conn);
	if (options == NULL)
		return true;
	for (PQconninfoOption *o = options; o->keyword != NULL && !found; o++)
		found = is_secret_option(o) && o->val != NULL && o->val[0] != '\0' &&
			strstr(str, o->val) != NULL;
	PQconninfoFree(options);
	return found;
}

/*
 * Keeps error and hint, closes, and returns the event.  Both may point into
 * the connection.
 */
static CrelayLinkEvent
fail_sqlstate(CrelayLink *link, CrelayLinkEvent event, const char *sqlstate,
			  const char *error, const char *hint)
{
	char		generic[128];

	if (reveals_secret(link->conn, error))
	{
		snprintf(generic, sizeof(generic),
				 "the upstream %s%s%s, in words that contain a password",
				 event == CRELAY_LINK_REFUSED ? "refused" : "failed",
				 sqlstate[0] ? " with SQLSTATE " : "", sqlstate);
		error = generic;
	}
	copy_clean(link->error, error, sizeof(link->error));
	if (reveals_secret(link->conn, hint))
		link->hint[0] = '\0';
	else
		copy_clean(link->hint, hint, sizeof(link->hint));
	crelay_link_close(link);
	return event;
}

static CrelayLinkEvent
fail(CrelayLink *link, CrelayLinkEvent event, const char *error,
	 const char *hint)
{
	return fail_sqlstate(link, event, "", error, hint);
}

/* A name in double quotes, as SQL and pg_hba.conf take it. */
static void
quote_name(char *dst, Size size, const char *name)
{
	Size		len = 0;

	dst[len++] = '"';
	for (; *name != '\0' && len + 3 < size; name++)
	{
		if (*name == '"')
			dst[len++] = '"';
		dst[len++] = *name;
	}
	dst[len++] = '"';
	dst[len] = '\0';
}

/* A name as pg_hba.conf takes it, quoted if it must be. */
static void
quote_hba(char *dst, Size size, const char *name)
{
	static const char *const special[] = {
		"all", "sameuser", "samerole", "samegroup", "replication"
	};
	static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
	"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
	bool		quote = name[0] == '\0' || name[strspn(name, plain)] != '\0';

	for (int i = 0; i < (int) lengthof(special); i++)
		quote |= strcmp(name, special[i]) == 0;
	if (quote)
		quote_name(dst, size, name);
	else
		strlcpy(dst, name, size);
}

/* A field of a password file, with its colons and backslashes escaped. */
static void
escape_passfile(char *dst, Size size, const char *value)
{
	Size		len = 0;

	for (; *value != '\0' && len + 2 < size; value++)
	{
		if (*value == ':' || *value == '\\')
			dst[len++] = '\\';
		dst[len++] = *value;
	}
	dst[len] = '\0';
}

/*
 * The client's address as the server sees it, with its mask, from any
 * language's message; "local" for a Unix socket.  False if there is none.
 */
static bool
find_client_address(const char *message, char *dst, Size size)
{
	const char *p = message;

	if (strstr(message, "[local]") != NULL)
	{
		strlcpy(dst, "local", size);
		return true;
	}
	while (*p != '\0')
	{
		Size		len = strspn(p, "0123456789abcdefABCDEF.:");
		char		word[64];
		unsigned char binary[16];

		if (len > 0 && len < sizeof(word))
		{
			memcpy(word, p, len);
			word[len] = '\0';
			if (inet_pton(AF_INET, word, binary) == 1)
			{
				snprintf(dst, size, "%s/32", word);
				return true;
			}
			if (strchr(word, ':') && inet_pton(AF_INET6, word, binary) == 1)
			{
				snprintf(dst, size, "%s/128", word);
				return true;
			}
		}
		p += Max(len, 1);
	}
	return false;
}

static void
hint_hba(PGconn *conn, const CrelayComplaint *complaint, char *dst, Size size)
{
	char		database[160];
	char		user[160];
	char		address[80];

	quote_hba(database, sizeof(database), PQdb(conn));
	quote_hba(user, sizeof(user), PQuser(conn));
	if (!find_client_address(complaint->message, address, sizeof(address)))
		strlcpy(address, "<address of this server>", sizeof(address));
	snprintf(dst, size,
			 "Lines for database \"replication\" do not match this connection."
			 " Add this line to pg_hba.conf on the upstream%s, and reload there: ",
			 strstr(complaint->message, "rejects") ?
			 ", above the line that rejects the connection" : "");
	size -= strlen(dst);
	dst += strlen(dst);
	if (strcmp(address, "local") == 0)
		snprintf(dst, size, "local   %s    %s    scram-sha-256",
				 database, user);
	else
		snprintf(dst, size, "host    %s    %s    %s    scram-sha-256",
				 database, user, address);
}

static void
hint_authorization(PGconn *conn, const CrelayComplaint *complaint, char *dst,
				   Size size)
{
	if (strstr(complaint->message, "pg_hba.conf") != NULL)
		hint_hba(conn, complaint, dst, size);
	else
		snprintf(dst, size,
				 "On the upstream, role \"%s\" must exist with LOGIN and REPLICATION,"
				 " and pg_hba.conf must authenticate it in a way that this server can answer.",
				 PQuser(conn));
}

static void
hint_password(PGconn *conn, const CrelayComplaint *complaint, char *dst,
			  Size size)
{
	PQconninfoOption *options = PQconninfo(conn);
	const char *passfile = option_value(options, "passfile");
	const char *host = PQhost(conn);
	const char *port = PQport(conn);
	char		fields[4][256];

	if (option_value(options, "password") != NULL)
		snprintf(dst, size,
				 "The password given in the connection string is not the one that role \"%s\" has on the upstream.",
				 PQuser(conn));
	else
	{
		if (host[0] == '\0' || strcmp(host, DEFAULT_PGSOCKET_DIR) == 0)
			host = "localhost";
		escape_passfile(fields[0], sizeof(fields[0]), host);
		escape_passfile(fields[1], sizeof(fields[1]),
						port[0] ? port : DEF_PGPORT_STR);
		escape_passfile(fields[2], sizeof(fields[2]), PQdb(conn));
		escape_passfile(fields[3], sizeof(fields[3]), PQuser(conn));
		snprintf(dst, size,
				 "An entry for database \"replication\" does not match this connection."
				 " The password file %s (mode 0600) of this server needs the line: %s:%s:%s:%s:<password>",
				 passfile ? passfile : "~/.pgpass",
				 fields[0], fields[1], fields[2], fields[3]);
	}
	PQconninfoFree(options);
}

static void
hint_database(PGconn *conn, const CrelayComplaint *complaint, char *dst,
			  Size size)
{
	snprintf(dst, size,
			 "Name the database that has the extension in cascade_relay.upstream_conninfo, as dbname.");
}

static void
hint_connections(PGconn *conn, const CrelayComplaint *complaint, char *dst,
				 Size size)
{
	snprintf(dst, size,
			 "Raise max_connections on the upstream, or the connection limit of role \"%s\" or database \"%s\".",
			 PQuser(conn), PQdb(conn));
}

static void
hint_not_up(PGconn *conn, const CrelayComplaint *complaint, char *dst,
			Size size)
{
	snprintf(dst, size,
			 "The upstream is starting, stopping, or runs with hot_standby = off.");
}

static void
hint_privilege(PGconn *conn, const CrelayComplaint *complaint, char *dst,
			   Size size)
{
	char		user[160];
	char		database[160];

	quote_name(user, sizeof(user), PQuser(conn));
	quote_name(database, sizeof(database), PQdb(conn));
	if (strstr(complaint->message, "for schema") != NULL)
		snprintf(dst, size,
				 "Grant USAGE on that schema to role %s, in database %s on the primary.",
				 user, database);
	else if (strstr(complaint->message, "for database") != NULL)
		snprintf(dst, size,
				 "Run on the primary: GRANT CONNECT ON DATABASE %s TO %s;",
				 database, user);
	else
		snprintf(dst, size,
				 "Reports need the REPLICATION attribute. Run on the primary: ALTER ROLE %s REPLICATION;",
				 user);
}

static void
hint_timeout(PGconn *conn, const CrelayComplaint *complaint, char *dst,
			 Size size)
{
	snprintf(dst, size,
			 "The upstream did not finish in the time that this connection allows it.");
}

static void
hint_library(PGconn *conn, const CrelayComplaint *complaint, char *dst,
			 Size size)
{
	snprintf(dst, size,
			 "Install the files of cascade_relay on the upstream, too.");
}

typedef struct CrelayHintRule
{
	const char *sqlstate;
	void		(*write) (PGconn *conn, const CrelayComplaint *complaint,
						  char *dst, Size size);
} CrelayHintRule;

static const CrelayHintRule hint_rules[] = {
	{"28000", hint_authorization},
	{"28P01", hint_password},
	{"3D000", hint_database},
	{"42501", hint_privilege},
	{"53300", hint_connections},
	{"55P03", hint_timeout},
	{"57014", hint_timeout},
	{"57P03", hint_not_up},
	{"58P01", hint_library}
};

/* Ours, else the server's own. */
static void
write_hint(PGconn *conn, const CrelayComplaint *complaint, char *dst, Size size)
{
	for (int i = 0; i < (int) lengthof(hint_rules); i++)
	{
		if (strcmp(complaint->sqlstate, hint_rules[i].sqlstate) == 0)
		{
			hint_rules[i].write(conn, complaint, dst, size);
			return;
		}
	}
	strlcpy(dst, complaint->hint, size);
}

/*
 * Whether the server only cannot answer now: out of resources, cancelled by a
 * conflict or a timeout, going down, I/O.
 */
static bool
is_passing(const char *sqlstate)
{
	if (strcmp(sqlstate, "53300") == 0 || strcmp(sqlstate, "58P01") == 0)
		return false;
	return strncmp(sqlstate, "40", 2) == 0 ||
		strncmp(sqlstate, "53", 2) == 0 ||
		strcmp(sqlstate, "55P03") == 0 ||
		strncmp(sqlstate, "57", 2) == 0 ||
		strncmp(sqlstate, "58", 2) == 0;
}

static CrelayLinkEvent
fail_missing(CrelayLink *link)
{
	char		error[256];

	snprintf(error, sizeof(error),
			 "extension \"cascade_relay\" does not exist in database \"%s\" of the upstream",
			 PQdb(link->conn));
	return fail(link, CRELAY_LINK_REFUSED, error,
				"Run CREATE EXTENSION cascade_relay in that database on the primary, or name another database in cascade_relay.upstream_conninfo.");
}

/* The server's complaint, or libpq's, decides about event, error and hint. */
static CrelayLinkEvent
fail_complaint(CrelayLink *link, const CrelayComplaint *complaint)
{
	char		error[sizeof(complaint->message) + sizeof(complaint->detail) + 8];
	char		hint[1024] = "";
	CrelayLinkEvent event = CRELAY_LINK_FAILED;

	/* The extension can be dropped, or moved, after its schema was asked for. */
	if (link->state == CRELAY_LINK_BUSY &&
		(strcmp(complaint->sqlstate, "42883") == 0 ||
		 strcmp(complaint->sqlstate, "3F000") == 0))
		return fail_missing(link);

	if (complaint->message[0] == '\0')
		strlcpy(error, PQstatus(link->conn) == CONNECTION_BAD ?
				"the connection to the upstream was lost" :
				"the upstream's answer is of an unexpected kind",
				sizeof(error));
	else if (complaint->detail[0] != '\0')
		snprintf(error, sizeof(error), "%s (%s)", complaint->message,
				 complaint->detail);
	else
		strlcpy(error, complaint->message, sizeof(error));

	if (complaint->sqlstate[0] != '\0')
	{
		if (!is_passing(complaint->sqlstate))
			event = CRELAY_LINK_REFUSED;
		write_hint(link->conn, complaint, hint, sizeof(hint));
	}
	else if (PQconnectionNeedsPassword(link->conn))
	{
		event = CRELAY_LINK_REFUSED;
		hint_password(link->conn, complaint, hint, sizeof(hint));
	}
	return fail_sqlstate(link, event, complaint->sqlstate, error, hint);
}

static CrelayLinkEvent
fail_timeout(CrelayLink *link)
{
	char		error[128];
	const char *step = "waiting for a reply";

	if (link->state == CRELAY_LINK_CONNECTING)
		step = "connecting";
	else if (link->state == CRELAY_LINK_LOOKUP)
		step = "looking up the extension";
	snprintf(error, sizeof(error),
			 "no answer from the upstream within %g s while %s",
			 link->step_ms / 1000.0, step);
	return fail(link, CRELAY_LINK_FAILED, error, "");
}

/*
 * Where the message begins in a line like "...: FATAL:  28000: message", in
 * any language, or NULL.  The SQLSTATE stands before what is returned.
 */
static const char *
find_message(const char *line)
{
	while ((line = strstr(line, ":  ")) != NULL)
	{
		line += 3;
		if (strspn(line, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == SQLSTATE_LEN &&
			strncmp(line + SQLSTATE_LEN, ": ", 2) == 0)
			return line + SQLSTATE_LEN + 2;
	}
	return NULL;
}

/* Whether a line ends like "auth.c:534", which only says where in the server. */
static bool
is_location(const char *line)
{
	const char *colon = strrchr(line, ':');

	return colon != NULL && colon - line > 2 &&
		strncmp(colon - 2, ".c:", 3) == 0 &&
		colon[1 + strspn(colon + 1, "0123456789")] == '\0';
}

static void
append_text(char *dst, Size size, const char *separator, const char *str)
{
	if (dst[0] != '\0')
		strlcat(dst, separator, size);
	strlcat(dst, str, size);
}

/* A line after a server's message: "LABEL:  text", or a remark of libpq's. */
static void
read_extra_line(CrelayComplaint *complaint, const char *line)
{
	const char *str = strstr(line, ":  ");

	if (is_location(line))
		return;
	if (strncmp(line, "HINT:  ", 7) == 0)
		strlcpy(complaint->hint, line + 7, sizeof(complaint->hint));
	else
		append_text(complaint->detail, sizeof(complaint->detail), "; ",
					str ? str + 3 : line);
}

/*
 * One line of the account of a failed connect.  *current says whether the
 * server's message that the complaint was taken from is still being read.
 *
 * libpq may have tried several ways in (SSL or not, addresses), and tells of
 * all.  A server that answered is worth more than one that did not, and any
 * other answer more than that pg_hba.conf did not want one of those ways.
 */
static void
read_connect_line(CrelayComplaint *complaint, const char *line, bool *current)
{
	const char *message = find_message(line);

	if (message != NULL)
	{
		*current = complaint->sqlstate[0] == '\0' ||
			(strcmp(complaint->sqlstate, "28000") == 0 &&
			 strncmp(message - 2 - SQLSTATE_LEN, "28000", SQLSTATE_LEN) != 0);
		if (!*current)
			return;
		memset(complaint, 0, sizeof(*complaint));
		memcpy(complaint->sqlstate, message - 2 - SQLSTATE_LEN, SQLSTATE_LEN);
		strlcpy(complaint->message, message, sizeof(complaint->message));
	}
	else if (*current)
		read_extra_line(complaint, line);
	else if (complaint->sqlstate[0] == '\0' && line[0] != '\t')
		append_text(complaint->message, sizeof(complaint->message), "; ", line);
}

/*
 * Takes libpq's account of a failed connect apart.  This is the only way to
 * the SQLSTATE before there are results; verbose errors carry it.  Lines that
 * begin with a tab are libpq's advice to a human at a terminal.
 */
static void
read_connect_text(CrelayComplaint *complaint, const char *str)
{
	bool		current = false;
	char		line[1024];

	memset(complaint, 0, sizeof(*complaint));
	while (*str != '\0')
	{
		Size		len = strcspn(str, "\n");

		strlcpy(line, str, Min(len + 1, sizeof(line)));
		if (line[0] != '\0')
			read_connect_line(complaint, line, &current);
		str += len;
		str += (*str == '\n');
	}
}

static void
copy_field(char *dst, Size size, const PGresult *result, int field)
{
	const char *value = PQresultErrorField(result, field);

	strlcpy(dst, value ? value : "", size);
}

static void
read_result(CrelayComplaint *complaint, const PGresult *result)
{
	copy_field(complaint->sqlstate, sizeof(complaint->sqlstate), result,
			   PG_DIAG_SQLSTATE);
	copy_field(complaint->message, sizeof(complaint->message), result,
			   PG_DIAG_MESSAGE_PRIMARY);
	copy_field(complaint->detail, sizeof(complaint->detail), result,
			   PG_DIAG_MESSAGE_DETAIL);
	copy_field(complaint->hint, sizeof(complaint->hint), result,
			   PG_DIAG_MESSAGE_HINT);
}

/*
 * The connection is of no use any more: by the server's last words, if it said
 * any, else by libpq's.  Once connected, what follows libpq's first line are
 * the consequences.
 */
static CrelayLinkEvent
fail_conn(CrelayLink *link)
{
	const char *str = PQerrorMessage(link->conn);
	CrelayComplaint complaint;

	if (link->notice.sqlstate[0] != '\0')
		return fail_complaint(link, &link->notice);
	memset(&complaint, 0, sizeof(complaint));
	if (PQstatus(link->conn) == CONNECTION_OK ||
		link->state == CRELAY_LINK_CLOSED ||
		link->state == CRELAY_LINK_CONNECTING)
		read_connect_text(&complaint, str);
	else
		strlcpy(complaint.message, str,
				Min(strcspn(str, "\n") + 1, sizeof(complaint.message)));
	return fail_complaint(link, &complaint);
}

/* A query that did not end in rows: by its result, else by the connection. */
static CrelayLinkEvent
fail_result(CrelayLink *link)
{
	CrelayComplaint complaint;

	if (link->result == NULL ||
		PQresultErrorField(link->result, PG_DIAG_SQLSTATE) == NULL)
		return fail_conn(link);
	read_result(&complaint, link->result);
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
		read_result(&link->notice, result);
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
 * Parses and checks both settings.  Returns false, with error and hint set, if
 * they do not name one place to go to.
 */
static bool
read_sources(CrelayLink *link, const CrelayTarget *target,
			 CrelaySources *sources)
{
	const char *error = NULL;
	const char *hint = "";

	if (is_blank(target->primary_conninfo) &&
		is_blank(target->upstream_conninfo))
	{
		error = "neither primary_conninfo nor cascade_relay.upstream_conninfo is set";
		hint = "Set cascade_relay.upstream_conninfo to the node that this one should report to.";
	}
	else if (!parse_conninfo(target->primary_conninfo, &sources->primary))
	{
		error = "primary_conninfo cannot be parsed";
		hint = "Check its quoting: a value with spaces, quotes or backslashes needs single quotes and escapes.";
	}
	else if (!parse_conninfo(target->upstream_conninfo, &sources->upstream))
	{
		error = "cascade_relay.upstream_conninfo cannot be parsed";
		hint = "Check its quoting: a value with spaces, quotes or backslashes needs single quotes and escapes.";
	}
	else if (count_hosts(sources->upstream) > 1)
	{
		error = "upstream_conninfo must name one host";
		hint = "Set cascade_relay.upstream_conninfo to the one node that this one should report to.";
	}
	else if (count_hosts(sources->primary) > 1 &&
			 !names_host(sources->upstream) && target->host == NULL)
	{
		error = "several hosts in primary_conninfo, and the WAL receiver has not connected to any of them yet";
		hint = "If this server does not stream, name its upstream in cascade_relay.upstream_conninfo.";
	}
	if (error != NULL)
		fail(link, CRELAY_LINK_FAILED, error, hint);
	return error == NULL;
}

/*
 * Whether libpq would choose among hosts that neither string showed, because
 * they come from a service or the environment.
 */
static bool
chooses_host(PGconn *conn)
{
	PQconninfoOption *options = PQconninfo(conn);
	bool		several = count_hosts(options) > 1;

	PQconninfoFree(options);
	return several;
}

/* connect_timeout as libpq knows it, in ms, or more than any deadline. */
static int
connect_timeout_ms(PGconn *conn)
{
	PQconninfoOption *options = PQconninfo(conn);
	const char *value = option_value(options, "connect_timeout");
	long		seconds = value ? strtol(value, NULL, 10) : 0;

	PQconninfoFree(options);
	return (seconds > 0 && seconds < PG_INT32_MAX / 1000) ?
		(int) seconds * 1000 : PG_INT32_MAX;
}

/*
 * Lets libpq begin.  An external FD is reserved.  Returns NULL, with error and
 * hint set and nothing reserved, if it may not, or does not know where to.
 */
static PGconn *
start_conn(CrelayLink *link, const CrelayTarget *target,
		   const CrelaySources *sources)
{
	CrelayParams params;
	PGconn	   *conn;
	const char *error = "out of memory";
	const char *hint = "";

	if (!AcquireExternalFD())
	{
		fail(link, CRELAY_LINK_FAILED,
			 "too many open files on this server",
			 "Raise max_files_per_process or \"ulimit -n\".");
		return NULL;
	}
	params_build(&params, sources, target, link->deadline_ms);
	conn = PQconnectStartParams(params.keywords, params.values, 0);
	if (conn != NULL && chooses_host(conn))
	{
		PQfinish(conn);
		conn = NULL;
		if (target->host != NULL && !names_host(sources->upstream))
		{
			params_set_live_host(&params, target);
			conn = PQconnectStartParams(params.keywords, params.values, 0);
		}
		else
		{
			error = "the service or environment of the connection names several hosts";
			hint = "Name the upstream in cascade_relay.upstream_conninfo, as host and port.";
		}
	}
	if (conn == NULL)
	{
		ReleaseExternalFD();
		fail(link, CRELAY_LINK_FAILED, error, hint);
	}
	return conn;
}

bool
crelay_link_open(CrelayLink *link, const CrelayTarget *target,
				 int deadline_ms, TimestampTz now)
{
	CrelaySources sources = {NULL, NULL};

	crelay_link_close(link);
	link->deadline_ms = Max(deadline_ms, 1);

	/* Nothing between here and PQconninfoFree() throws. */
	if (read_sources(link, target, &sources))
		link->conn = start_conn(link, target, &sources);
	PQconninfoFree(sources.primary);
	PQconninfoFree(sources.upstream);
	if (link->conn == NULL)
		return false;

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
	begin_step(link, CRELAY_LINK_CONNECTING,
			   Min(link->deadline_ms, connect_timeout_ms(link->conn)), now);
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
		!PQsendQueryParams(link->conn, lookup_query, 0, NULL, NULL, NULL, NULL,
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
		if (PQresultStatus(result) != PGRES_TUPLES_OK)
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
				   "SELECT %s.cascade_report($1::pg_catalog.bytea)",
				   PQgetvalue(link->result, 0, 0));
	if (len < 0 || len >= (int) sizeof(link->query))
		return fail(link, CRELAY_LINK_FAILED,
					"the upstream names an impossible schema", "");
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
		return fail(link, CRELAY_LINK_FAILED,
					"the upstream's answer is not one bytea of at most 16 MB",
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
	return link->error;
}

const char *
crelay_link_hint(const CrelayLink *link)
{
	return link->hint;
}

/*-------------------------------------------------------------------------
 * What a target says
 *-------------------------------------------------------------------------
 */

/* Whether host and port of the walreceiver decide where this target lies. */
static bool
follows_walreceiver(const CrelayTarget *target)
{
	CrelaySources sources = {NULL, NULL};
	bool		follows = false;

	if (parse_conninfo(target->primary_conninfo, &sources.primary) &&
		parse_conninfo(target->upstream_conninfo, &sources.upstream) &&
		!names_host(sources.upstream))
	{
		int			hosts = count_hosts(sources.primary);

		/* What a service names is not known here. */
		follows = hosts > 1 ||
			(hosts == 0 && option_value(sources.primary, "service") != NULL);
	}
	PQconninfoFree(sources.primary);
	PQconninfoFree(sources.upstream);
	return follows;
}

static uint64
hash_text(const char *str, uint64 seed)
{
	if (str == NULL)
		str = "";
	return hash_bytes_extended((const unsigned char *) str,
							   (int) strlen(str), seed);
}

uint64
crelay_target_fingerprint(const CrelayTarget *target)
{
	uint64		hash = hash_text(target->primary_conninfo, 0);

	hash = hash_text(target->upstream_conninfo, hash);
	if (follows_walreceiver(target))
	{
		char		port[32];

		snprintf(port, sizeof(port), "%d", target->port);
		hash = hash_text(target->host, hash);
		hash = hash_text(port, hash);
	}
	return hash;
}

/*
 * As libpq and the server treat it: an empty name in the string is a name, and
 * only printable ASCII arrives.  A service is not looked into.
 */
void
crelay_target_application_name(const char *primary_conninfo, char *name,
							   Size size)
{
	PQconninfoOption *options;
	const char *value = NULL;

	(void) parse_conninfo(primary_conninfo, &options);
	for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++)
	{
		if (strcmp(o->keyword, "application_name") == 0)
			value = o->val;
	}
	if (value == NULL)
		value = getenv("PGAPPNAME");
	if (value == NULL)
		value = (cluster_name && cluster_name[0]) ? cluster_name : "walreceiver";
	strlcpy(name, value, size);
	for (char *p = name; *p != '\0'; p++)
	{
		if (*p < 32 || *p > 126)
			*p = '?';
	}
	PQconninfoFree(options);
}
