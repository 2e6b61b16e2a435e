/*-------------------------------------------------------------------------
 *
 * places.c
 *	  Where other nodes are, remembered across restarts.
 *
 * Owns, leaves out and locks: see places.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "storage/fd.h"

#include "message.h"
#include "places.h"
#include "policy.h"
#include "state_file.h"
#include "tree.h"

#define PLACES_FILE		"pg_replslot/cascade_relay.places"

/* Of more nodes the addresses are not remembered. */
#define MAX_PLACES		256

/* How often it is looked whether there is something new. */
#define KEEP_EVERY_MS	1000

typedef struct Remembered
{
	char		name[CRELAY_NODE_NAME_MAX + 1];
	char		conninfo[CRELAY_CONNINFO_LEN];
} Remembered;

/*
 * Reads the file; one that is missing, or has been tampered with, has nothing.
 */
static int
read_file(Remembered *places)
{
	FILE	   *file = AllocateFile(PLACES_FILE, "r");
	char		line[CRELAY_NODE_NAME_MAX + CRELAY_CONNINFO_LEN + 2];
	int			n = 0;

	if (file == NULL)
		return 0;
	while (n < MAX_PLACES && fgets(line, sizeof(line), file) != NULL)
	{
		char	   *tab = strchr(line, '\t');

		line[strcspn(line, "\n")] = '\0';
		if (tab == NULL)
			continue;
		*tab = '\0';
		if (!crelay_node_name_is_valid(line) || tab[1] == '\0')
			continue;
		strlcpy(places[n].name, line, sizeof(places[n].name));
		strlcpy(places[n++].conninfo, tab + 1, sizeof(places[0].conninfo));
	}
	FreeFile(file);
	return n;
}

/*
 * Takes a node in, in place of what was known of that name.
 */
static int
take(Remembered *places, int n, const CrelayNode *node, const char *conninfo)
{
	int			i;

	if (!node->managed || conninfo == NULL || strpbrk(conninfo, "\t\r\n") != NULL ||
		strlen(conninfo) >= sizeof(places[0].conninfo) ||
		!crelay_node_name_is_valid(node->name))
		return n;
	for (i = 0; i < n && strcmp(places[i].name, node->name) != 0; i++)
		 /* look for it */ ;
	if (i == MAX_PLACES)
		return n;
	strlcpy(places[i].name, node->name, sizeof(places[i].name));
	strlcpy(places[i].conninfo, conninfo, sizeof(places[i].conninfo));
	return Max(n, i + 1);
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(((const Remembered *) a)->name, ((const Remembered *) b)->name);
}

/*
 * What is not written is only not remembered: that is logged once, and tried
 * again when there is something new.
 */
static void
write_file(const char *content)
{
	static bool failed;

	failed = !crelay_state_file_write(PLACES_FILE, content, failed ? DEBUG1 : LOG);
}

/*
 * Writes down where all nodes are that are known now, as far as the policy
 * trusts it, if something is new.  Nobody is forgotten because he is not known
 * at the moment.
 */
void
crelay_places_keep(MemoryContext context, TimestampTz now)
{
	static Remembered *places;	/* as they are in the file */
	static char *content;
	static int	n;
	static TimestampTz kept_at;
	CrelayPolicyTree policy;
	StringInfoData text;
	int			own = -1;

	if (now >= kept_at && now - kept_at < KEEP_EVERY_MS * INT64CONST(1000))
		return;
	kept_at = now;
	if (places == NULL)
	{
		places = MemoryContextAlloc(context, sizeof(Remembered) * MAX_PLACES);
		n = read_file(places);
	}
	(void) crelay_tree_for_policy(&policy);
	own = crelay_policy_here(&policy);
	for (int row = 0; row < policy.nrows; row++)
	{
		if (row != own)
			n = take(places, n, &policy.nodes[policy.rows[row].node],
					 crelay_policy_address(&policy, own, row));
	}
	qsort(places, n, sizeof(Remembered), compare_names);

	initStringInfo(&text);
	for (int i = 0; i < n; i++)
		appendStringInfo(&text, "%s\t%s\n", places[i].name, places[i].conninfo);
	if (n == 0 || (content != NULL && strcmp(content, text.data) == 0))
		return;
	write_file(text.data);
	if (content != NULL)
		pfree(content);
	content = MemoryContextStrdup(context, text.data);
}

bool
crelay_places_find(const char *name, char *conninfo, Size size)
{
	Remembered *places = palloc(sizeof(Remembered) * MAX_PLACES);
	int			n = read_file(places);
	bool		found = false;

	for (int i = 0; i < n && !found; i++)
	{
		found = strcmp(places[i].name, name) == 0;
		if (found)
			strlcpy(conninfo, places[i].conninfo, size);
	}
	pfree(places);
	return found;
}
