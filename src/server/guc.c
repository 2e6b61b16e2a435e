/*-------------------------------------------------------------------------
 *
 * guc.c
 *	  The settings of cascade_relay, and a plain copy of them.
 *
 * Owns, leaves out and locks: see guc.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <limits.h>
#include <unistd.h>

#include "catalog/pg_collation.h"
#include "common/hashfn.h"
#include "postmaster/postmaster.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/varlena.h"

#include "decide/message.h"
#include "server/guc.h"

static char *node_name_setting;
static char *upstream_conninfo_setting;
static char *location_setting;
static char *advertised_conninfo_setting;
static char *ignore_slots_setting;
static int	report_interval_setting;
static int	stale_timeout_setting;
static int	replica_class_setting;
static int	max_nodes_setting;
static int	max_hold_size_setting;
static int	min_free_percent_setting;
static int	hold_timeout_setting;
static bool enabled_setting;

/* The default node name, made once in the postmaster. */
static char default_node_name[CRELAY_NODE_NAME_MAX + 1];

/* The name in the state file, empty if there is none. */
static char kept_node_name[CRELAY_NODE_NAME_MAX + 1];

/* Number of characters kept of the end of a host name that is too long. */
#define NAME_END_LEN	12

/* The port that needs no mention, however the server was configured. */
#define USUAL_PORT	5432

/* ignore_slots as a list of patterns, and whether it is the present one. */
static List *ignore_patterns;
static bool ignore_parsed;
static MemoryContext ignore_context;

static const struct config_enum_entry replica_class_options[] = {
	{"auto", CRELAY_CLASS_SETTING_AUTO, false},
	{"voting", CRELAY_CLASS_SETTING_VOTING, false},
	{"read_replica", CRELAY_CLASS_SETTING_READ_REPLICA, false},
	{NULL, 0, false}
};

/*
 * Appends a text to a name, with every character that a node name may not have
 * as an underscore.
 */
static void
append_as_name(char *name, size_t size, const char *text, size_t len)
{
	size_t		at = strlen(name);

	for (size_t i = 0; i < len && at + 1 < size; i++)
	{
		unsigned char c = (unsigned char) pg_ascii_tolower((unsigned char) text[i]);

		name[at++] = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? (char) c : '_';
	}
	name[at] = '\0';
}

/*
 * Makes the default name: the short host name and, unless it is the usual one,
 * the port, which tells the instances of a site apart.  cluster_name is no choice,
 * because HA managers and packages give all nodes of a cluster the same.  Of a
 * host name that is too long the middle is replaced by a hash of the whole: names
 * of one cluster differ at the end, names of several clusters at the beginning.
 */
static void
make_default_node_name(void)
{
	char		host[256];
	char		port[16] = "";
	char		middle[16];
	size_t		room;
	size_t		len;
	uint32		hash;

	if (gethostname(host, sizeof(host)) != 0 || host[0] == '\0' || host[0] == '.')
		strlcpy(host, "node", sizeof(host));
	host[sizeof(host) - 1] = '\0';
	len = strcspn(host, ".");
	if (PostPortNumber != USUAL_PORT)
		snprintf(port, sizeof(port), "_%d", PostPortNumber);

	default_node_name[0] = '\0';
	room = CRELAY_NODE_NAME_MAX - strlen(port);
	if (len <= room)
		append_as_name(default_node_name, sizeof(default_node_name), host, len);
	else
	{
		hash = hash_bytes((const unsigned char *) host, (int) len);
		snprintf(middle, sizeof(middle), "_%06x_", hash & 0xffffff);
		append_as_name(default_node_name, sizeof(default_node_name), host,
					   room - strlen(middle) - NAME_END_LEN);
		strlcat(default_node_name, middle, sizeof(default_node_name));
		append_as_name(default_node_name, sizeof(default_node_name),
					   &host[len - NAME_END_LEN], NAME_END_LEN);
	}
	strlcat(default_node_name, port, sizeof(default_node_name));
}

/*
 * The name that this node goes by while cascade_relay.node_name is not set; an
 * empty one leaves it to the default.
 */
void
crelay_guc_keep_node_name(const char *name)
{
	strlcpy(kept_node_name, name, sizeof(kept_node_name));
}

static const char *
unset_node_name(void)
{
	return kept_node_name[0] != '\0' ? kept_node_name : default_node_name;
}

static bool
is_node_name_set(void)
{
	return node_name_setting != NULL && node_name_setting[0] != '\0';
}

static const char *
show_node_name(void)
{
	return is_node_name_set() ? node_name_setting : unset_node_name();
}

/*
 * Returns the default name if this node goes on under another one only because
 * that is in its state file; else NULL.
 */
const char *
crelay_guc_passed_over_name(void)
{
	return !is_node_name_set() && strcmp(unset_node_name(), default_node_name) != 0 ?
		default_node_name : NULL;
}

static bool
check_node_name(char **newval, void **extra, GucSource source)
{
	if (**newval == '\0' || crelay_node_name_is_valid(*newval))
		return true;
	GUC_check_errdetail("A node name has 1 to %d characters, each a lower case letter, a digit or an underscore.",
						CRELAY_NODE_NAME_MAX);
	return false;
}

/*
 * Texts that travel to other nodes: printable ASCII, because databases there
 * may have any encoding, and short enough for a row.
 */
static bool
check_wire_text(const char *value, size_t room)
{
	if (strlen(value) >= room)
	{
		GUC_check_errdetail("It must be shorter than %zu characters.", room);
		return false;
	}
	for (const char *p = value; *p != '\0'; p++)
	{
		if (*p < 0x20 || *p > 0x7e)
		{
			GUC_check_errdetail("Only printable ASCII characters are allowed.");
			return false;
		}
	}
	return true;
}

static bool
check_location(char **newval, void **extra, GucSource source)
{
	return check_wire_text(*newval, CRELAY_LOCATION_LEN);
}

/*
 * Everybody in the tree can read this one, so a password has no place in it,
 * and is looked for first: other complaints repeat the value.
 */
static bool
check_advertised_conninfo(char **newval, void **extra, GucSource source)
{
	if (!crelay_conninfo_is_public(*newval))
	{
		/* instead of the message that would repeat the value */
		GUC_check_errmsg("invalid value for parameter \"%s\"",
						 "cascade_relay.advertised_conninfo");
		GUC_check_errdetail("It is shown to every node, so it must be in keyword and value form and without a password.");
		return false;
	}
	return check_wire_text(*newval, CRELAY_CONNINFO_LEN);
}

static bool
check_ignore_slots(char **newval, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*newval);
	List	   *patterns = NIL;
	ListCell   *lc;

	/* this splits in place, and keeps the case of quoted names only */
	if (!SplitIdentifierString(copy, ',', &patterns))
	{
		GUC_check_errdetail("It must be a comma-separated list of LIKE patterns; quote a pattern that has a space or a comma.");
		return false;
	}
	foreach(lc, patterns)
	{
		const char *pattern = lfirst(lc);
		size_t		trailing = 0;

		for (size_t at = strlen(pattern); at > 0 && pattern[at - 1] == '\\'; at--)
			trailing++;
		if (trailing % 2 == 1)
		{
			GUC_check_errdetail("LIKE pattern must not end with escape character.");
			return false;
		}
	}
	list_free(patterns);
	pfree(copy);
	return true;
}

static void
assign_ignore_slots(const char *newval, void *extra)
{
	/* parsed when it is next used: an assign hook must not fail */
	if (ignore_context != NULL)
		MemoryContextReset(ignore_context);
	ignore_patterns = NIL;
	ignore_parsed = false;
}

/*
 * Defines all parameters.  In a session of a server that does not preload the
 * library, what its files say of them is taken over; a parameter for server
 * start cannot be added then, and stays what it was before, unknown.
 */
void
crelay_guc_define(bool preloading)
{
	make_default_node_name();

	DefineCustomStringVariable("cascade_relay.node_name",
							   "The name of this node in the cascade.",
							   "If it is not set: the name of before, else one that is made of the host name, and of the port if that is not the usual one.",
							   &node_name_setting, "",
							   preloading ? PGC_POSTMASTER : PGC_SIGHUP, 0,
							   check_node_name, NULL, show_node_name);
	DefineCustomStringVariable("cascade_relay.upstream_conninfo",
							   "Where the upstream's cascade_relay is reached.",
							   "Its keywords override those of primary_conninfo one by one.",
							   &upstream_conninfo_setting, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomIntVariable("cascade_relay.report_interval",
							"Time between two reports to the upstream.",
							"A report that frees or needs a segment goes at once.",
							&report_interval_setting, 1000, 10, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("cascade_relay.stale_timeout",
							"Time without news after which a node is shown as stale.",
							NULL,
							&stale_timeout_setting, 30000, 100, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomEnumVariable("cascade_relay.replica_class",
							 "Whether this node is on the durability path.",
							 "A voting node streams from the primary itself; a read_replica may cascade.",
							 &replica_class_setting, CRELAY_CLASS_SETTING_AUTO,
							 replica_class_options,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
	DefineCustomStringVariable("cascade_relay.location",
							   "Where this node is: a region, a data centre, a rack.",
							   NULL,
							   &location_setting, "default",
							   PGC_SIGHUP, 0,
							   check_location, NULL, NULL);
	DefineCustomStringVariable("cascade_relay.advertised_conninfo",
							   "How other nodes and clients reach this node.",
							   "It is shown in the tree on every node, so it must not have a password.",
							   &advertised_conninfo_setting, "",
							   PGC_SIGHUP, 0,
							   check_advertised_conninfo, NULL, NULL);
	DefineCustomStringVariable("cascade_relay.ignore_slots",
							   "LIKE patterns of slots and nodes that do not count in the retention frontier.",
							   NULL,
							   &ignore_slots_setting, "",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_ignore_slots, assign_ignore_slots, NULL);
	DefineCustomIntVariable("cascade_relay.max_hold_size",
							"How much WAL a hold may keep on this node.",
							"-1 means no bound of its own; max_slot_wal_keep_size bounds it all the same.",
							&max_hold_size_setting, -1, -1, MAX_KILOBYTES,
							PGC_SIGHUP, GUC_UNIT_MB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("cascade_relay.min_free_percent",
							"How much of the file system of pg_wal holds leave free, in percent.",
							"Besides, they leave room for the WAL that comes before the next checkpoint. 0 means no such bound.",
							&min_free_percent_setting, 10, 0, 100,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("cascade_relay.hold_timeout",
							"Time without a report after which a node's hold is released.",
							"0 means never.",
							&hold_timeout_setting, 0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomBoolVariable("cascade_relay.enabled",
							 "Whether this node reports, and moves the holds of its downstreams.",
							 "While it is off, holds stay where they are, within their bounds.",
							 &enabled_setting, true,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);

	if (!preloading)
		return;

	DefineCustomIntVariable("cascade_relay.max_nodes",
							"How many other nodes this node can know.",
							NULL,
							&max_nodes_setting, 1024, 8, 65000,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	MarkGUCPrefixReserved("cascade_relay");
}

/*
 * The settings as they are now.  upstream_conninfo points into the parameter
 * itself and is good until the next reload.
 */
void
crelay_guc_copy(CrelaySettings *settings)
{
	strlcpy(settings->node_name, show_node_name(), sizeof(settings->node_name));
	strlcpy(settings->location, location_setting, sizeof(settings->location));
	strlcpy(settings->advertised_conninfo, advertised_conninfo_setting,
			sizeof(settings->advertised_conninfo));
	settings->upstream_conninfo = upstream_conninfo_setting;
	settings->report_interval_ms = report_interval_setting;
	settings->stale_timeout_ms = stale_timeout_setting;
	settings->replica_class = (CrelayClassSetting) replica_class_setting;
	settings->max_hold_size = max_hold_size_setting < 0 ? -1 :
		(int64) max_hold_size_setting * 1024 * 1024;
	settings->min_free_percent = min_free_percent_setting;
	settings->hold_timeout_s = hold_timeout_setting;
	settings->enabled = enabled_setting;
}

int
crelay_guc_max_nodes(void)
{
	return max_nodes_setting;
}

static void
parse_ignore_slots(void)
{
	MemoryContext old;

	if (ignore_context == NULL)
		ignore_context = AllocSetContextCreate(TopMemoryContext,
											   "cascade_relay ignore_slots",
											   ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(ignore_context);
	(void) SplitIdentifierString(pstrdup(ignore_slots_setting), ',',
								 &ignore_patterns);
	MemoryContextSwitchTo(old);
	ignore_parsed = true;
}

/*
 * Whether a slot or node of that name was opted out.  Leaks a little into the
 * current memory context.
 */
bool
crelay_guc_ignores(const char *name)
{
	ListCell   *lc;

	if (ignore_slots_setting == NULL || *ignore_slots_setting == '\0')
		return false;
	if (!ignore_parsed)
		parse_ignore_slots();
	foreach(lc, ignore_patterns)
	{
		Datum		match = DirectFunctionCall2Coll(textlike, C_COLLATION_OID,
													CStringGetTextDatum(name),
													CStringGetTextDatum((char *) lfirst(lc)));

		if (DatumGetBool(match))
			return true;
	}
	return false;
}
