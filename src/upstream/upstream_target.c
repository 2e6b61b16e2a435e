/*-------------------------------------------------------------------------
 *
 * upstream_target.c
 *	  The parameters of the connection to the upstream node.
 *
 * Owns: what primary_conninfo, cascade_relay.upstream_conninfo and the
 * walreceiver's host say together - which host it is, which keys win, what the
 * session sets - and what libpq then knows about the connection: names, and
 * the secrets that nobody may see.
 *
 * Not here: connecting (upstream.c), words about a failure (upstream_error.c;
 * the constants for a target that names no place are here).  It only asks
 * libpq to parse, a connection about itself, and the resolver for the addresses
 * of a name.
 *
 * Failing: nothing throws.  libpq's arrays hang on CrelayParams or CrelayPeer,
 * which their owner frees.
 *
 * Locking: none.  Nothing blocks, except name resolution when no hostaddr is
 * known.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#ifndef WIN32
#include <netinet/tcp.h>
#endif

#include "common/hashfn.h"
#include "libpq-fe.h"
#include "utils/guc.h"

#include "upstream/upstream_internal.h"
#include "upstream/upstream_session.h"

#define DEFAULT_DATABASE		"postgres"

/*
 * How a connection notices that the other end has vanished: within 25 s while
 * it is idle, and within 30 s while something is on its way.
 */
#define KEEPALIVES_IDLE			"10"	/* seconds */
#define KEEPALIVES_INTERVAL		"5"
#define KEEPALIVES_COUNT		"3"
#define USER_TIMEOUT			"30000" /* milliseconds */

/* Minimum time for an attempt to connect to one of several addresses. */
#define MIN_SHARE_MS			2000

static const char quoting_hint[] =
"Check its quoting: a value with spaces, quotes or backslashes needs single quotes and escapes.";

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

/*-------------------------------------------------------------------------
 * Parameters
 *-------------------------------------------------------------------------
 */

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
params_set_live_host(CrelayParams *params)
{
	const CrelayTarget *target = params->target;

	strlcpy(params->host, target->host, sizeof(params->host));
	params_set(params, "host", params->host);
	if (target->port > 0)
	{
		snprintf(params->port, sizeof(params->port), "%d", target->port);
		params_set(params, "port", params->port);
	}
}

/*
 * How many entries of a list of hosts are that host and port, with the hostaddr
 * of the last of them.
 */
static int
match_host(const PQconninfoOption *options, const char *wanted, int wanted_port,
		   char *hostaddr, Size size)
{
	const char *hosts = option_value(options, "host");
	const char *addrs = option_value(options, "hostaddr");
	const char *ports = option_value(options, "port");
	int			matches = 0;

	hostaddr[0] = '\0';
	for (int i = 0; i < count_hosts(options); i++)
	{
		char		host[MAXPGPATH];
		char		port[32];

		list_element(hosts, i, host, sizeof(host));
		if (host[0] == '\0')
			list_element(addrs, i, host, sizeof(host));
		list_element(ports, list_elements(ports) == 1 ? 0 : i,
					 port, sizeof(port));
		if (strcmp(host, wanted) == 0 &&
			(port[0] ? atoi(port) : DEF_PGPORT) == wanted_port)
		{
			matches++;
			list_element(addrs, i, hostaddr, size);
		}
	}
	return matches;
}

/*
 * Of several hosts, the one that the walreceiver is connected to, with its
 * hostaddr if exactly one entry of the list has that host and port.
 */
static void
params_choose_host(CrelayParams *params)
{
	const CrelayTarget *target = params->target;
	const char *ports = option_value(params->primary, "port");

	if (list_elements(ports) == 1)
		params_set(params, "port", ports);
	params_set_live_host(params);
	if (match_host(params->primary, target->host, target->port,
				   params->hostaddr, sizeof(params->hostaddr)) == 1 &&
		params->hostaddr[0] != '\0')
		params_set(params, "hostaddr", params->hostaddr);
}

/*
 * Where to.  The keys of upstream_conninfo go over those of primary_conninfo;
 * a host of the former replaces host and hostaddr of the latter together.
 */
static void
params_set_host(CrelayParams *params)
{
	const PQconninfoOption *from = params->primary;

	if (names_host(params->upstream))
	{
		from = params->upstream;
		if (list_elements(option_value(params->primary, "port")) == 1 &&
			option_value(from, "service") == NULL)
			params_copy_one(params, params->primary, "port");
	}
	if (from == params->primary && count_hosts(from) > 1)
		params_choose_host(params);
	else
	{
		params_copy_one(params, from, "host");
		params_copy_one(params, from, "hostaddr");
		params_copy_one(params, from, "port");
	}
	params_copy_one(params, params->upstream, "port");
}

/* The value of a parameter, NULL if it is not set. */
static const char *
params_value(const CrelayParams *params, const char *keyword)
{
	for (int i = 0; i < params->count; i++)
	{
		if (strcmp(params->keywords[i], keyword) == 0)
			return params->values[i];
	}
	return NULL;
}

/*
 * Looks up the addresses of a host, each once.  Returns how many there are; 0
 * leaves it to libpq to say what is wrong.
 */
static int
resolve(const char *host, char (*addresses)[64])
{
	struct addrinfo hints = {0};
	struct addrinfo *list = NULL;
	int			n = 0;

	hints.ai_family = AF_UNSPEC;
	hints.ai_socktype = SOCK_STREAM;
	if (getaddrinfo(host, NULL, &hints, &list) != 0)
		return 0;
	for (const struct addrinfo *a = list; a != NULL && n < CRELAY_ADDRESSES_MAX; a = a->ai_next)
	{
		bool		known = false;

		if (getnameinfo(a->ai_addr, a->ai_addrlen, addresses[n], sizeof(addresses[n]),
						NULL, 0, NI_NUMERICHOST) != 0)
			continue;
		for (int i = 0; i < n; i++)
			known = known || strcmp(addresses[i], addresses[n]) == 0;
		n += known ? 0 : 1;
	}
	freeaddrinfo(list);
	return n;
}

/*
 * Replaces a name that has several addresses by the list of its addresses,
 * rotated by turn.  Each address keeps the name, which TLS and the password file
 * need.
 */
static void
params_set_addresses(CrelayParams *params, int turn)
{
	const char *host = params_value(params, "host");
	char		addresses[CRELAY_ADDRESSES_MAX][64];

	if (host == NULL || host[0] == '/' || host[0] == '@' || strchr(host, ',') != NULL ||
		strlen(host) >= NI_MAXHOST || params_have(params, "hostaddr"))
		return;
	params->naddresses = resolve(host, addresses);
	if (params->naddresses < 2)
		return;
	for (int i = 0; i < params->naddresses; i++)
	{
		if (i > 0)
		{
			strlcat(params->hosts, ",", sizeof(params->hosts));
			strlcat(params->hostaddrs, ",", sizeof(params->hostaddrs));
		}
		strlcat(params->hosts, host, sizeof(params->hosts));
		strlcat(params->hostaddrs, addresses[(turn + i) % params->naddresses],
				sizeof(params->hostaddrs));
	}
	params_set(params, "host", params->hosts);
	params_set(params, "hostaddr", params->hostaddrs);
}

/*
 * The session's own settings.  The server gives up before this side does, so
 * that its reason arrives; why it ends a session at once is only a warning.  A
 * database or role may default to serializable, which a hot standby refuses.
 *
 * The rest rids the other server of a session whose node has vanished: what is
 * idle by keepalives, what waits for an acknowledgement by a timeout of its
 * own, which not every platform has; and by idle_session_timeout where nothing
 * else there knows of the session.
 */
static void
params_set_session(CrelayParams *params, int deadline_ms, int idle_ms)
{
	snprintf(params->options, sizeof(params->options),
			 "-c statement_timeout=%d -c lock_timeout=%d"
			 " -c idle_session_timeout=%d"
			 " -c idle_in_transaction_session_timeout=0"
			 " -c search_path= -c client_min_messages=warning"
			 " -c default_transaction_isolation=read\\ committed"
			 " -c tcp_keepalives_idle=" KEEPALIVES_IDLE
			 " -c tcp_keepalives_interval=" KEEPALIVES_INTERVAL
			 " -c tcp_keepalives_count=" KEEPALIVES_COUNT
#ifdef TCP_USER_TIMEOUT
			 " -c tcp_user_timeout=" USER_TIMEOUT
#endif
			 ,
			 Max(deadline_ms / 4 * 3, 1), Max(deadline_ms / 2, 1), idle_ms);
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
		params_have(params, "keepalives_count") ||
		params_have(params, "tcp_user_timeout"))
		return;
	params_set(params, "keepalives_idle", KEEPALIVES_IDLE);
	params_set(params, "keepalives_interval", KEEPALIVES_INTERVAL);
	params_set(params, "keepalives_count", KEEPALIVES_COUNT);
	params_set(params, "tcp_user_timeout", USER_TIMEOUT);
}

/*
 * Parses and checks both settings.  Returns NULL, or what is wrong, with hint
 * set, if they do not name one place to go to.
 */
static const char *
params_parse(CrelayParams *params, const char **hint)
{
	const CrelayTarget *target = params->target;

	*hint = "";
	if (is_blank(target->primary_conninfo) &&
		is_blank(target->upstream_conninfo))
	{
		*hint = "Set cascade_relay.upstream_conninfo to the node that this one should report to.";
		return "neither primary_conninfo nor cascade_relay.upstream_conninfo is set";
	}
	if (!parse_conninfo(target->primary_conninfo, &params->primary))
	{
		*hint = quoting_hint;
		return "primary_conninfo cannot be parsed";
	}
	if (!parse_conninfo(target->upstream_conninfo, &params->upstream))
	{
		*hint = quoting_hint;
		return "cascade_relay.upstream_conninfo cannot be parsed";
	}
	if (count_hosts(params->upstream) > 1)
	{
		*hint = "Set cascade_relay.upstream_conninfo to the one node that this one should report to.";
		return "upstream_conninfo must name one host";
	}
	if (count_hosts(params->primary) > 1 && !names_host(params->upstream) &&
		target->host == NULL)
	{
		*hint = "If this server does not stream, name its upstream in cascade_relay.upstream_conninfo.";
		return "several hosts in primary_conninfo, and the WAL receiver has not connected to any of them yet";
	}
	return NULL;
}

/*
 * Explicit keys beat those of a service, so a service in upstream_conninfo
 * takes the place of primary_conninfo as a whole: else the keys of the latter
 * would override it.
 */
bool
crelay_params_build(CrelayParams *params, const CrelayTarget *target,
					int deadline_ms, int idle_ms, int turn,
					const char **error, const char **hint)
{
	const char *dbname;

	memset(params, 0, sizeof(*params));
	params->target = target;
	*error = params_parse(params, hint);
	if (*error != NULL)
		return false;

	dbname = option_value(params->upstream, "dbname");
	if (option_value(params->upstream, "service") == NULL)
		params_copy(params, params->primary);
	params_copy(params, params->upstream);
	params_set_host(params);
	params_set_addresses(params, turn);
	params_set(params, "dbname", dbname ? dbname : DEFAULT_DATABASE);
	params_set_session(params, deadline_ms, idle_ms);
	params_set_keepalives(params);
	if (params_have(params, "service"))
		params_set(params, "replication", "false");
	return true;
}

bool
crelay_params_follow_walreceiver(CrelayParams *params)
{
	if (params->target->host == NULL || names_host(params->upstream))
		return false;
	params_set_live_host(params);
	return true;
}

/* Database and password file entry are those that walreceiver.c asks for. */
void
crelay_params_set_replication(CrelayParams *params)
{
	params_set(params, "replication", "true");
	params_set(params, "dbname", "replication");
}

void
crelay_params_free(CrelayParams *params)
{
	PQconninfoFree(params->primary);
	PQconninfoFree(params->upstream);
	params->primary = NULL;
	params->upstream = NULL;
}

/*-------------------------------------------------------------------------
 * What libpq made of them
 *-------------------------------------------------------------------------
 */

bool
crelay_conn_chooses_host(PGconn *conn)
{
	PQconninfoOption *options = PQconninfo(conn);
	bool		several = count_hosts(options) > 1;

	PQconninfoFree(options);
	return several;
}

/*
 * Each address of a name has its share of the time, which suffices for a login
 * that takes long.  connect_timeout is for one address, as in libpq.
 */
int
crelay_connect_share_ms(int deadline_ms, int naddresses, int connect_timeout_ms)
{
	int			share = deadline_ms / Max(naddresses, 1);

	return Min(Max(share, Min(deadline_ms, MIN_SHARE_MS)), connect_timeout_ms);
}

int
crelay_conn_timeout_ms(PGconn *conn)
{
	PQconninfoOption *options = PQconninfo(conn);
	const char *value = option_value(options, "connect_timeout");
	long		seconds = value ? strtol(value, NULL, 10) : 0;

	PQconninfoFree(options);
	return (seconds > 0 && seconds < PG_INT32_MAX / 1000) ?
		(int) seconds * 1000 : PG_INT32_MAX;
}

/* Whether libpq would not show this option either. */
static bool
is_secret_option(const PQconninfoOption *option)
{
	return (option->dispchar != NULL && option->dispchar[0] == '*') ||
		strcmp(option->keyword, "scram_client_key") == 0 ||
		strcmp(option->keyword, "scram_server_key") == 0;
}

static const char *
or_empty(const char *str)
{
	return str ? str : "";
}

static void
peer_add_secret(CrelayPeer *peer, const char *secret)
{
	if (secret == NULL || secret[0] == '\0')
		return;
	if (peer->secret_count < CRELAY_SECRETS_MAX)
		peer->secrets[peer->secret_count++] = secret;
	else
		peer->more_secrets = true;
}

void
crelay_peer_read(CrelayPeer *peer, PGconn *conn)
{
	memset(peer, 0, sizeof(*peer));
	peer->options = PQconninfo(conn);
	peer->user = or_empty(PQuser(conn));
	peer->database = or_empty(PQdb(conn));
	peer->host = or_empty(PQhost(conn));
	peer->port = or_empty(PQport(conn));
	peer->passfile = option_value(peer->options, "passfile");
	peer->password_given = option_value(peer->options, "password") != NULL;
	peer->needs_password = PQconnectionNeedsPassword(conn) != 0;
	peer->lost = PQstatus(conn) == CONNECTION_BAD;

	/* A password from a password file is not among the options. */
	peer_add_secret(peer, PQpass(conn));
	for (PQconninfoOption *o = peer->options; o && o->keyword; o++)
	{
		if (is_secret_option(o))
			peer_add_secret(peer, o->val);
	}
	if (conn != NULL && peer->options == NULL)
		peer->more_secrets = true;
}

void
crelay_peer_free(CrelayPeer *peer)
{
	PQconninfoFree(peer->options);
	peer->options = NULL;
}

/*-------------------------------------------------------------------------
 * What a target says
 *-------------------------------------------------------------------------
 */

/* Whether host and port of the walreceiver decide where this target lies. */
static bool
follows_walreceiver(const CrelayTarget *target)
{
	PQconninfoOption *primary = NULL;
	PQconninfoOption *upstream = NULL;
	bool		follows = false;

	if (parse_conninfo(target->primary_conninfo, &primary) &&
		parse_conninfo(target->upstream_conninfo, &upstream) &&
		!names_host(upstream))
	{
		int			hosts = count_hosts(primary);

		/* What a service names is not known here. */
		follows = hosts > 1 ||
			(hosts == 0 && option_value(primary, "service") != NULL);
	}
	PQconninfoFree(primary);
	PQconninfoFree(upstream);
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

/*-------------------------------------------------------------------------
 * Places
 *-------------------------------------------------------------------------
 */

bool
crelay_conninfo_names_host(const char *conninfo)
{
	PQconninfoOption *options;
	bool		named;

	named = parse_conninfo(conninfo, &options) && names_host(options);
	PQconninfoFree(options);
	return named;
}

bool
crelay_conninfo_exceeds_place(const char *conninfo, char *keyword, Size size)
{
	PQconninfoOption *options;
	bool		exceeds = false;

	(void) parse_conninfo(conninfo, &options);
	for (PQconninfoOption *o = options; !exceeds && o != NULL && o->keyword != NULL; o++)
	{
		if (o->val == NULL || strcmp(o->keyword, "host") == 0 ||
			strcmp(o->keyword, "hostaddr") == 0 || strcmp(o->keyword, "port") == 0)
			continue;
		strlcpy(keyword, o->keyword, size);
		exceeds = true;
	}
	PQconninfoFree(options);
	return exceeds;
}

static bool
place_copy(char *dst, Size size, const char *value)
{
	return strlcpy(dst, value ? value : "", size) < size;
}

bool
crelay_place_read(CrelayPlace *place, const char *conninfo, const char **error)
{
	PQconninfoOption *options;
	const char *port;

	*error = NULL;
	memset(place, 0, sizeof(*place));
	if (!parse_conninfo(conninfo, &options))
		*error = "it cannot be parsed";
	else if (count_hosts(options) == 0)
		*error = "it names no host";
	else if (count_hosts(options) > 1)
		*error = "it names several hosts";
	else
	{
		port = option_value(options, "port");
		if (!place_copy(place->host, sizeof(place->host), option_value(options, "host")) ||
			!place_copy(place->hostaddr, sizeof(place->hostaddr), option_value(options, "hostaddr")) ||
			!place_copy(place->port, sizeof(place->port), port ? port : DEF_PGPORT_STR) ||
			list_elements(port) > 1)
			*error = "its address is too long, or its port is none";
	}
	PQconninfoFree(options);
	return *error == NULL;
}

/* A buffer that a conninfo is written into. */
typedef struct Writer
{
	char	   *dst;
	Size		size;
	Size		len;
	bool		full;
} Writer;

static void
write_char(Writer *writer, char c)
{
	if (writer->len + 1 >= writer->size)
	{
		writer->full = true;
		return;
	}
	writer->dst[writer->len++] = c;
	writer->dst[writer->len] = '\0';
}

static void
write_string(Writer *writer, const char *str)
{
	for (; *str != '\0'; str++)
		write_char(writer, *str);
}

/* A keyword and its value, quoted if it has to be. */
static void
write_option(Writer *writer, const char *keyword, const char *value)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
	"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@+";
	bool		quote = value[0] == '\0' || value[strspn(value, plain)] != '\0';

	if (writer->len > 0)
		write_char(writer, ' ');
	write_string(writer, keyword);
	write_char(writer, '=');
	if (quote)
		write_char(writer, '\'');
	for (; *value != '\0'; value++)
	{
		if (*value == '\'' || *value == '\\')
			write_char(writer, '\\');
		write_char(writer, *value);
	}
	if (quote)
		write_char(writer, '\'');
}

/*
 * A host that nothing in primary_conninfo names comes from a service or the
 * environment.  One that is a number is not told twice.
 */
bool
crelay_target_address(const char *primary_conninfo, const char *host, int port,
					  char *address, Size size)
{
	Writer		writer = {address, size, 0, false};
	PQconninfoOption *options;
	char		hostaddr[MAXPGPATH];
	char		port_text[16];
	int			matches;
	bool		found;

	address[0] = '\0';
	found = parse_conninfo(primary_conninfo, &options);
	matches = match_host(options, host, port, hostaddr, sizeof(hostaddr));
	found = found && (matches > 0 || count_hosts(options) == 0);
	PQconninfoFree(options);
	if (!found)
		return false;
	snprintf(port_text, sizeof(port_text), "%d", port);
	write_option(&writer, "host", host);
	if (matches == 1 && hostaddr[0] != '\0' && strcmp(hostaddr, host) != 0)
		write_option(&writer, "hostaddr", hostaddr);
	write_option(&writer, "port", port_text);
	return !writer.full;
}

/* What says where to go to, or which of several hosts to take. */
static bool
is_place_keyword(const char *keyword)
{
	static const char *const words[] = {
		"host", "hostaddr", "port", "target_session_attrs", "load_balance_hosts"
	};

	for (int i = 0; i < (int) lengthof(words); i++)
	{
		if (strcmp(keyword, words[i]) == 0)
			return true;
	}
	return false;
}

static bool
has_line_break(const PQconninfoOption *options)
{
	for (; options != NULL && options->keyword != NULL; options++)
	{
		if (options->val != NULL && strpbrk(options->val, "\r\n") != NULL)
			return true;
	}
	return false;
}

/*
 * A service would go on saying where to, in whatever the string does not: so
 * with one, host and hostaddr are both given, if need be as empty.
 */
bool
crelay_place_redirect(const CrelayPlace *place, const char *conninfo,
					  char *dst, Size size, const char **error)
{
	Writer		writer = {dst, size, 0, false};
	PQconninfoOption *options;
	bool		service;

	dst[0] = '\0';
	*error = NULL;
	if (!parse_conninfo(conninfo, &options))
		*error = "it cannot be parsed";
	else if (has_line_break(options))
		*error = "it contains a line break";
	else
	{
		service = option_value(options, "service") != NULL;
		if (place->host[0] != '\0' || service)
			write_option(&writer, "host", place->host);
		if (place->hostaddr[0] != '\0' || service)
			write_option(&writer, "hostaddr", place->hostaddr);
		write_option(&writer, "port", place->port);
		for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++)
		{
			if (o->val != NULL && !is_place_keyword(o->keyword))
				write_option(&writer, o->keyword, o->val);
		}
		if (writer.full)
			*error = "it would be too long";
	}
	PQconninfoFree(options);
	return *error == NULL;
}
