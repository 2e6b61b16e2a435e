/*-------------------------------------------------------------------------
 *
 * addresses.c
 *	  Where other nodes are, remembered across restarts.
 *
 * Owns, leaves out and locks: see addresses.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "decide/message.h"
#include "decide/policy.h"
#include "node/tree.h"
#include "registry/registry.h"
#include "server/state_file.h"
#include "worker/addresses.h"

/* Of more nodes the addresses are not remembered. */
#define MAX_PLACES		256

/*
 * How often it is looked whether there is something new: for days there is
 * nothing, and to look means to put the whole tree in order.
 */
#define KEEP_EVERY_MS	5000

StaticAssertDecl(CRELAY_ADDRESS_LEN >= CRELAY_CONNINFO_LEN,
				 "an advertised conninfo has to fit where an address does");

typedef struct Remembered
{
	char		name[CRELAY_NODE_NAME_MAX + 1];
	char		conninfo[CRELAY_ADDRESS_LEN];
} Remembered;

/* As they are in the state file, or are to be; the worker's. */
static Remembered *kept;
static int	n_kept;
static CrelayNewestPrimary kept_primary;

/* A managed node of the tree, by the row that its name stands for. */
typedef struct Present
{
	int			row;
	bool		clear;			/* nobody else has that name */
} Present;

/*
 * Reads lines of a name, a tab, and an address.  One that cannot be understood
 * is left out.
 */
static int
parse_places(char *lines, Remembered *places)
{
	char	   *line;
	int			n = 0;

	while (n < MAX_PLACES && (line = crelay_state_next(&lines)) != NULL)
	{
		char	   *tab = strchr(line, '\t');

		if (tab == NULL)
			continue;
		*tab = '\0';
		if (!crelay_node_name_is_valid(line) || tab[1] == '\0')
			continue;
		strlcpy(places[n].name, line, sizeof(places[n].name));
		strlcpy(places[n++].conninfo, tab + 1, sizeof(places[0].conninfo));
	}
	return n;
}

static int
find(const Remembered *places, int n, const char *name)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(places[i].name, name) == 0)
			return i;
	}
	return -1;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(((const Remembered *) a)->name, ((const Remembered *) b)->name);
}

static const CrelayNode *
node_of(const CrelayPolicyTree *policy, int row)
{
	return &policy->nodes[policy->rows[row].node];
}

/*
 * By name, and of one name the row first that it stands for.
 */
static int
compare_rows(const void *a, const void *b, void *arg)
{
	const CrelayPolicyTree *policy = arg;
	int			first = *(const int *) a;
	int			second = *(const int *) b;
	int			c = strcmp(node_of(policy, first)->name, node_of(policy, second)->name);

	if (c != 0 || first == second)
		return c;
	return crelay_policy_prefers(policy, first, second) ? -1 : 1;
}

/*
 * From the root down, so that if there is not room for all, whoever makes up
 * nodes below itself displaces nobody who is nearer to the root.
 */
static int
compare_present(const void *a, const void *b, void *arg)
{
	const CrelayPolicyTree *policy = arg;
	int			first = ((const Present *) a)->row;
	int			second = ((const Present *) b)->row;

	if (policy->rows[first].depth != policy->rows[second].depth)
		return policy->rows[first].depth < policy->rows[second].depth ? -1 : 1;
	return first < second ? -1 : first > second;
}

/*
 * The managed nodes of the tree but this one, each name once.
 */
static int
find_present(const CrelayPolicyTree *policy, int own, Present *present)
{
	int		   *rows = palloc_array(int, policy->nrows + 1);
	int			n = 0;
	int			next;

	for (int i = 0; i < policy->nrows; i++)
		rows[i] = i;
	qsort_arg(rows, policy->nrows, sizeof(int), compare_rows, (void *) policy);
	for (int i = 0; i < policy->nrows; i = next)
	{
		const CrelayNode *node = node_of(policy, rows[i]);
		bool		clear = true;
		bool		is_own = false;

		for (next = i; next < policy->nrows &&
			 strcmp(node_of(policy, rows[next])->name, node->name) == 0; next++)
		{
			const CrelayNode *other = node_of(policy, rows[next]);

			if (other->managed && other->incarnation != node->incarnation &&
				crelay_state_is_live(other->state))
				clear = false;
			is_own = is_own || rows[next] == own;
		}
		if (is_own || !node->managed || !crelay_node_name_is_valid(node->name))
			continue;
		present[n].row = rows[i];
		present[n++].clear = clear;
	}
	qsort_arg(present, n, sizeof(Present), compare_present, (void *) policy);
	return n;
}

static bool
is_usable(const char *conninfo)
{
	return conninfo != NULL && strpbrk(conninfo, "\t\r\n") == NULL &&
		strlen(conninfo) < CRELAY_ADDRESS_LEN;
}

/*
 * What is remembered from now on: where the nodes of the tree are, as far as the
 * policy trusts what they say; and where those were that are not there at the
 * moment, as long as there is room.  A login will be sent there: whose name
 * another live node has is left where he was before.
 */
static int
remember(const CrelayPolicyTree *policy, Remembered *places, int n)
{
	int			own = crelay_policy_here(policy);
	Present    *present = palloc_array(Present, policy->nrows + 1);
	int			n_present = find_present(policy, own, present);
	Remembered *next = palloc_array(Remembered, MAX_PLACES);
	bool	   *seen = palloc0_array(bool, MAX_PLACES);
	int			n_next = 0;

	for (int i = 0; i < n_present && n_next < MAX_PLACES; i++)
	{
		const char *name = node_of(policy, present[i].row)->name;
		const char *conninfo = crelay_policy_address(policy, own, present[i].row);
		int			before = find(places, n, name);

		if (before >= 0)
			seen[before] = true;
		if (!present[i].clear || !is_usable(conninfo))
			conninfo = before >= 0 ? places[before].conninfo : NULL;
		if (conninfo == NULL)
			continue;
		strlcpy(next[n_next].name, name, sizeof(next[n_next].name));
		strlcpy(next[n_next++].conninfo, conninfo, sizeof(next[0].conninfo));
	}
	for (int i = 0; i < n && n_next < MAX_PLACES; i++)
	{
		if (!seen[i])
			next[n_next++] = places[i];
	}
	memcpy(places, next, sizeof(Remembered) * n_next);
	qsort(places, n_next, sizeof(Remembered), compare_names);
	return n_next;
}

/*
 * Returns true if the same is kept as before.  Names and addresses are compared
 * as strings, because the buffers have garbage behind them.
 */
static bool
same_places(const Remembered *before, int n_before)
{
	if (n_before != n_kept)
		return false;
	for (int i = 0; i < n_kept; i++)
	{
		if (strcmp(before[i].name, kept[i].name) != 0 ||
			strcmp(before[i].conninfo, kept[i].conninfo) != 0)
			return false;
	}
	return true;
}

static void
render_places(StringInfo lines)
{
	for (int i = 0; i < n_kept; i++)
		appendStringInfo(lines, "%s\t%s\n", kept[i].name, kept[i].conninfo);
}

/*
 * Returns true if the upstream, or its address, is another one than at the last
 * call.  Such an address is written down at once: the next move may follow
 * immediately, and the way back needs it.
 */
static bool
has_new_upstream(const CrelayLocal *local)
{
	static char name[CRELAY_NAME_LEN];
	static char address[CRELAY_ADDRESS_LEN];
	const CrelayNode *node = &local->node;

	if (local->upstream_state != CRELAY_UPSTREAM_CONNECTED ||
		node->upstream_name[0] == '\0' || node->upstream_address[0] == '\0' ||
		(strcmp(name, node->upstream_name) == 0 &&
		 strcmp(address, node->upstream_address) == 0))
		return false;
	strlcpy(name, node->upstream_name, sizeof(name));
	strlcpy(address, node->upstream_address, sizeof(address));
	return true;
}

static void
render_primary(StringInfo lines)
{
	if (kept_primary.timeline != 0)
		appendStringInfo(lines, "%u\t%s\n", kept_primary.timeline, kept_primary.name);
}

/*
 * Reads the newest primary; what cannot be understood is none.
 */
static void
parse_primary(char *lines, CrelayNewestPrimary *primary)
{
	char	   *line = crelay_state_next(&lines);
	char	   *name = line;
	unsigned long timeline = line != NULL ? strtoul(line, &name, 10) : 0;

	memset(primary, 0, sizeof(*primary));
	if (timeline == 0 || timeline > PG_UINT32_MAX || *name != '\t')
		return;
	primary->timeline = (uint32) timeline;
	strlcpy(primary->name, name + 1, sizeof(primary->name));
}

static void
keep_primary(const CrelayPolicyTree *policy, CrelayLocal *local)
{
	crelay_tree_newest_primary(policy, &local->newest_primary);
	if (local->newest_primary.timeline == kept_primary.timeline &&
		strcmp(local->newest_primary.name, kept_primary.name) == 0)
		return;
	kept_primary = local->newest_primary;
	(void) crelay_state_keep(CRELAY_SECTION_PRIMARY, render_primary);
}

/*
 * The worker's start.
 */
void
crelay_places_start(MemoryContext context, CrelayLocal *local)
{
	kept = MemoryContextAlloc(context, sizeof(Remembered) * MAX_PLACES);
	n_kept = parse_places(crelay_state_read(CRELAY_SECTION_ADDRESS), kept);
	parse_primary(crelay_state_read(CRELAY_SECTION_PRIMARY), &kept_primary);
	local->newest_primary = kept_primary;
}

/*
 * Writes down where the others are, if something is new.
 */
void
crelay_places_keep(TimestampTz now, CrelayLocal *local)
{
	static TimestampTz kept_at;
	static uint64 kept_seq;
	CrelayPolicyTree policy;
	Remembered *before;
	int			n_before = n_kept;
	uint64		seq;

	if (has_new_upstream(local))
		kept_seq = 0;
	else if (now >= kept_at && now - kept_at < KEEP_EVERY_MS * INT64CONST(1000))
		return;
	kept_at = now;
	seq = crelay_registry_tree_seq();
	if (seq == kept_seq)
		return;
	kept_seq = seq;
	before = palloc(sizeof(Remembered) * MAX_PLACES);
	memcpy(before, kept, sizeof(Remembered) * n_before);
	(void) crelay_tree_for_policy(&policy);
	keep_primary(&policy, local);
	n_kept = remember(&policy, kept, n_kept);
	if (!same_places(before, n_before))
		(void) crelay_state_keep(CRELAY_SECTION_ADDRESS, render_places);
}

bool
crelay_places_find(const char *name, char *conninfo, Size size)
{
	Remembered *places = palloc(sizeof(Remembered) * MAX_PLACES);
	int			n = parse_places(crelay_state_peek(CRELAY_SECTION_ADDRESS), places);
	int			i = find(places, n, name);

	if (i >= 0)
		strlcpy(conninfo, places[i].conninfo, size);
	pfree(places);
	return i >= 0;
}
