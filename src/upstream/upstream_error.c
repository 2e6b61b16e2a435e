/*-------------------------------------------------------------------------
 *
 * upstream_error.c
 *	  What went wrong with the upstream node, in words.
 *
 * Owns: taking a complaint apart into SQLSTATE, message and detail; whether it
 * is a refusal, which needs somebody's hand, or a failure, which passes; the
 * hint that says what to do.  Every word that leaves this file is printable
 * ASCII on one line, and free of passwords.
 *
 * Not here: libpq.  What it said and what it knows arrive as strings.
 *
 * Failing: nothing throws or allocates.
 *
 * Locking: none; nothing blocks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "upstream/upstream_internal.h"

/*-------------------------------------------------------------------------
 * Reading a complaint
 *-------------------------------------------------------------------------
 */

void
crelay_complaint_set(CrelayComplaint *complaint, const char *sqlstate,
					 const char *message, const char *detail, const char *hint)
{
	strlcpy(complaint->sqlstate, sqlstate ? sqlstate : "",
			sizeof(complaint->sqlstate));
	strlcpy(complaint->message, message ? message : "",
			sizeof(complaint->message));
	strlcpy(complaint->detail, detail ? detail : "",
			sizeof(complaint->detail));
	strlcpy(complaint->hint, hint ? hint : "", sizeof(complaint->hint));
}

/*
 * Where the message begins in a line like "...: FATAL:  28000: message", in
 * any language, or NULL.  The SQLSTATE stands before what is returned.
 */
static const char *
find_message(const char *line)
{
	static const char sqlstate_letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

	while ((line = strstr(line, ":  ")) != NULL)
	{
		line += 3;
		if (strspn(line, sqlstate_letters) == CRELAY_SQLSTATE_LEN &&
			strncmp(line + CRELAY_SQLSTATE_LEN, ": ", 2) == 0)
			return line + CRELAY_SQLSTATE_LEN + 2;
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
		const char *sqlstate = message - 2 - CRELAY_SQLSTATE_LEN;

		*current = complaint->sqlstate[0] == '\0' ||
			(strcmp(complaint->sqlstate, "28000") == 0 &&
			 strncmp(sqlstate, "28000", CRELAY_SQLSTATE_LEN) != 0);
		if (!*current)
			return;
		memset(complaint, 0, sizeof(*complaint));
		memcpy(complaint->sqlstate, sqlstate, CRELAY_SQLSTATE_LEN);
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
void
crelay_complaint_read_connect(CrelayComplaint *complaint, const char *account)
{
	bool		current = false;
	char		line[1024];

	memset(complaint, 0, sizeof(*complaint));
	while (*account != '\0')
	{
		Size		len = strcspn(account, "\n");

		strlcpy(line, account, Min(len + 1, sizeof(line)));
		if (line[0] != '\0')
			read_connect_line(complaint, line, &current);
		account += len;
		account += (*account == '\n');
	}
}

/* What follows libpq's first line are the consequences. */
void
crelay_complaint_read_lost(CrelayComplaint *complaint, const char *message)
{
	memset(complaint, 0, sizeof(*complaint));
	strlcpy(complaint->message, message,
			Min(strcspn(message, "\n") + 1, sizeof(complaint->message)));
}

/*-------------------------------------------------------------------------
 * Hints
 *-------------------------------------------------------------------------
 */

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
hint_hba(const CrelayPeer *peer, const CrelayComplaint *complaint, char *dst,
		 Size size)
{
	char		database[160];
	char		user[160];
	char		address[80];

	quote_hba(database, sizeof(database), peer->database);
	quote_hba(user, sizeof(user), peer->user);
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
hint_authorization(const CrelayPeer *peer, const CrelayComplaint *complaint,
				   char *dst, Size size)
{
	if (strstr(complaint->message, "pg_hba.conf") != NULL)
		hint_hba(peer, complaint, dst, size);
	else
		snprintf(dst, size,
				 "On the upstream, role \"%s\" must exist with LOGIN and REPLICATION,"
				 " and pg_hba.conf must authenticate it in a way that this server can answer.",
				 peer->user);
}

static void
hint_password(const CrelayPeer *peer, char *dst, Size size)
{
	const char *host = peer->host;
	char		fields[4][256];

	if (peer->password_given)
		snprintf(dst, size,
				 "The password given in the connection string is not the one that role \"%s\" has on the upstream.",
				 peer->user);
	else
	{
		if (host[0] == '\0' || strcmp(host, DEFAULT_PGSOCKET_DIR) == 0)
			host = "localhost";
		escape_passfile(fields[0], sizeof(fields[0]), host);
		escape_passfile(fields[1], sizeof(fields[1]),
						peer->port[0] ? peer->port : DEF_PGPORT_STR);
		escape_passfile(fields[2], sizeof(fields[2]), peer->database);
		escape_passfile(fields[3], sizeof(fields[3]), peer->user);
		snprintf(dst, size,
				 "An entry for database \"replication\" does not match this connection."
				 " The password file %s (mode 0600) of this server needs the line: %s:%s:%s:%s:<password>",
				 peer->passfile ? peer->passfile : "~/.pgpass",
				 fields[0], fields[1], fields[2], fields[3]);
	}
}

static void
hint_connections(const CrelayPeer *peer, char *dst, Size size)
{
	snprintf(dst, size,
			 "Raise max_connections on the upstream, or the connection limit of role \"%s\" or database \"%s\".",
			 peer->user, peer->database);
}

static void
hint_privilege(const CrelayPeer *peer, const CrelayComplaint *complaint,
			   char *dst, Size size)
{
	char		user[160];
	char		database[160];

	quote_name(user, sizeof(user), peer->user);
	quote_name(database, sizeof(database), peer->database);
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

/* The hints that need to know no names. */
static const struct
{
	const char *sqlstate;
	const char *hint;
}			fixed_hints[] = {
	{"3D000", "Name the database that has the extension in cascade_relay.upstream_conninfo, as dbname."},
	{"55P03", "The upstream did not finish in the time that this connection allows it."},
	{"57014", "The upstream did not finish in the time that this connection allows it."},
	{"57P03", "The upstream is starting, stopping, or runs with hot_standby = off."},
	{"58P01", "Install the files of cascade_relay on the upstream, too."}
};

static bool
is_sqlstate(const CrelayComplaint *complaint, const char *sqlstate)
{
	return strcmp(complaint->sqlstate, sqlstate) == 0;
}

static bool
is_not_preloaded(const CrelayComplaint *complaint)
{
	return is_sqlstate(complaint, "55000") &&
		strstr(complaint->message, "shared_preload_libraries") != NULL;
}

/* Ours, else the server's own. */
static void
write_hint(const CrelayPeer *peer, const CrelayComplaint *complaint, char *dst,
		   Size size)
{
	if (is_sqlstate(complaint, "28000"))
		hint_authorization(peer, complaint, dst, size);
	else if (is_sqlstate(complaint, "28P01"))
		hint_password(peer, dst, size);
	else if (is_sqlstate(complaint, "42501"))
		hint_privilege(peer, complaint, dst, size);
	else if (is_sqlstate(complaint, "53300"))
		hint_connections(peer, dst, size);
	else if (is_not_preloaded(complaint))
		strlcpy(dst,
				"Add cascade_relay to shared_preload_libraries on the upstream, and restart it.",
				size);
	else
	{
		const char *hint = complaint->hint;

		for (int i = 0; i < (int) lengthof(fixed_hints); i++)
		{
			if (is_sqlstate(complaint, fixed_hints[i].sqlstate))
				hint = fixed_hints[i].hint;
		}
		strlcpy(dst, hint, size);
	}
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

/*-------------------------------------------------------------------------
 * Verdicts
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

/* Whether a password occurs in the text.  In doubt it does. */
static bool
reveals_secret(const CrelayPeer *peer, const char *str)
{
	for (int i = 0; i < peer->secret_count; i++)
	{
		if (strstr(str, peer->secrets[i]) != NULL)
			return true;
	}
	return peer->more_secrets;
}

/* All failures are written here, so nothing unclean leaves. */
static void
write_failure(CrelayFailure *failure, const CrelayPeer *peer, bool refused,
			  const char *sqlstate, const char *error, const char *hint)
{
	char		generic[128];

	if (reveals_secret(peer, error))
	{
		snprintf(generic, sizeof(generic),
				 "the upstream %s%s%s, in words that contain a password",
				 refused ? "refused" : "failed",
				 sqlstate[0] ? " with SQLSTATE " : "", sqlstate);
		error = generic;
	}
	if (reveals_secret(peer, hint))
		hint = "";
	failure->refused = refused;
	failure->lacks_extension = false;
	copy_clean(failure->error, error, sizeof(failure->error));
	copy_clean(failure->hint, hint, sizeof(failure->hint));
}

void
crelay_failure_words(CrelayFailure *failure, const CrelayPeer *peer,
					 const char *error, const char *hint)
{
	write_failure(failure, peer, false, "", error, hint);
}

void
crelay_failure_missing(CrelayFailure *failure, const CrelayPeer *peer)
{
	char		error[256];

	snprintf(error, sizeof(error),
			 "extension \"cascade_relay\" does not exist in database \"%s\" of the upstream",
			 peer->database);
	write_failure(failure, peer, true, "", error,
				  "Run CREATE EXTENSION cascade_relay in that database on the primary, or name another database in cascade_relay.upstream_conninfo.");
	failure->lacks_extension = true;
}

void
crelay_failure_timeout(CrelayFailure *failure, const CrelayPeer *peer,
					   CrelayLinkState state, int step_ms)
{
	char		error[128];
	const char *step = "waiting for a reply";

	if (state == CRELAY_LINK_CONNECTING)
		step = "connecting";
	else if (state == CRELAY_LINK_LOOKUP)
		step = "looking up the extension";
	snprintf(error, sizeof(error),
			 "no answer from the upstream within %g s while %s",
			 step_ms / 1000.0, step);
	write_failure(failure, peer, false, "", error, "");
}

void
crelay_failure_complaint(CrelayFailure *failure, const CrelayPeer *peer,
						 CrelayLinkState state,
						 const CrelayComplaint *complaint)
{
	char		error[sizeof(complaint->message) + sizeof(complaint->detail) + 8];
	char		hint[1024] = "";
	bool		refused = false;

	/* The extension can be dropped, or moved, after its schema was asked for. */
	if (state == CRELAY_LINK_BUSY &&
		(is_sqlstate(complaint, "42883") || is_sqlstate(complaint, "3F000")))
	{
		crelay_failure_missing(failure, peer);
		return;
	}

	if (complaint->message[0] == '\0')
		strlcpy(error, peer->lost ?
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
		refused = !is_passing(complaint->sqlstate);
		write_hint(peer, complaint, hint, sizeof(hint));
	}
	else if (peer->needs_password)
	{
		refused = true;
		hint_password(peer, hint, sizeof(hint));
	}
	write_failure(failure, peer, refused, complaint->sqlstate, error, hint);
	failure->lacks_extension = is_sqlstate(complaint, "58P01") ||
		is_not_preloaded(complaint);
}
