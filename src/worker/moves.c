/*-------------------------------------------------------------------------
 *
 * moves.c
 *	  The move counters: this node's own, and what its children have told.
 *
 * Owns, leaves out and locks: see moves.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "common/hashfn.h"
#include "replication/slot.h"

#include "decide/frontier.h"
#include "server/state_file.h"
#include "worker/moves.h"

/* This node's counter, and the place where it was raised last. */
typedef struct Moves
{
	uint32		incarnation;	/* whose counter it is */
	uint32		count;
	uint32		upstream;		/* incarnation; 0 none */
	uint64		path;			/* a hash of the path to the root */
	bool		moving;			/* the path has changed since, so the counter
								 * is raised when the node is protected */
} Moves;

static Moves own;

/* What children have told, as the worker last wrote it, or will. */
static CrelayTold *saved;
static int	n_saved;

/* ---- this node's counter ---- */

static void
render_moves(StringInfo lines)
{
	appendStringInfo(lines, "%08x %u %08x %08x%08x %d\n",
					 own.incarnation, own.count, own.upstream, (uint32) (own.path >> 32),
					 (uint32) own.path, own.moving ? 1 : 0);
}

static void
read_moves(void)
{
	char	   *lines = crelay_state_read(CRELAY_SECTION_MOVES);
	char	   *line = crelay_state_next(&lines);
	Moves		read = {0};
	uint32		high;
	uint32		low;
	int			moving;

	memset(&own, 0, sizeof(own));
	if (line == NULL ||
		sscanf(line, "%8x %u %8x %8x%8x %d", &read.incarnation, &read.count,
			   &read.upstream, &high, &low, &moving) != 6)
		return;
	read.path = (uint64) high << 32 | low;
	read.moving = moving != 0;
	own = read;
}

static uint64
hash_hop(const CrelayHop *hop, uint64 seed)
{
	seed = hash_bytes_extended((const unsigned char *) hop->name,
							   (int) strlen(hop->name), seed);
	return hash_bytes_uint32_extended(hop->incarnation, seed);
}

/*
 * Hashes the path to the root.  Returns false if it is not known: what a former
 * upstream has said of it does not count.
 */
static bool
read_path(const CrelayLocal *local, uint64 *path)
{
	*path = 0;
	if (local->node.role == CRELAY_ROLE_PRIMARY)
		return true;
	if (!local->root_known || local->in_cycle || local->nhops == 0 ||
		local->hops[local->nhops - 1].incarnation != local->node.upstream_incarnation)
		return false;
	for (int i = 0; i < local->nhops; i++)
		*path = hash_hop(&local->hops[i], *path);
	return true;
}

/*
 * Returns true if every node above holds what this node and all below it need.
 */
static bool
is_held(const CrelayLocal *local)
{
	const CrelayNode *node = &local->node;

	return node->protected == CRELAY_TRUE &&
		(node->role == CRELAY_ROLE_PRIMARY ||
		 crelay_hops_protect(local->hops, local->nhops, local->root_known,
							 node->frontier_lsn, wal_segment_size) == CRELAY_TRUE);
}

/*
 * One pass, after this node's verdict on its protection and before it is sent.
 * The counter that is shown is the one on disk.
 */
void
crelay_moves_count(CrelayLocal *local)
{
	CrelayNode *node = &local->node;
	Moves		before = own;
	uint64		path;
	bool		known = read_path(local, &path);
	bool		placed = node->upstream_incarnation != 0 || known;

	if (own.incarnation != node->incarnation)
	{
		memset(&own, 0, sizeof(own));
		own.incarnation = node->incarnation;
		own.count = 1;
	}
	if (placed && (own.upstream != node->upstream_incarnation || (known && own.path != path)))
	{
		own.upstream = node->upstream_incarnation;
		if (known)
			own.path = path;
		own.moving = true;
	}
	if (own.moving && known && is_held(local))
	{
		own.moving = false;
		own.count++;
	}
	if (memcmp(&own, &before, sizeof(own)) != 0 &&
		!crelay_state_keep(CRELAY_SECTION_MOVES, render_moves))
		own = before;
	node->moves = own.count;
}

/* ---- what children have told ---- */

static void
render_told(StringInfo lines)
{
	CrelayTold *told = palloc_array(CrelayTold, max_replication_slots + 1);
	int			n = crelay_registry_get_told(told);

	for (int i = 0; i < n; i++)
		appendStringInfo(lines, "%08x %u\n", told[i].incarnation, told[i].moves);
	pfree(told);
}

static int
read_told(CrelayTold *told)
{
	char	   *lines = crelay_state_read(CRELAY_SECTION_TOLD);
	char	   *line;
	int			n = 0;

	while (n < max_replication_slots && (line = crelay_state_next(&lines)) != NULL)
	{
		if (sscanf(line, "%8x %u", &told[n].incarnation, &told[n].moves) == 2 &&
			told[n].incarnation != 0 && told[n].moves != 0)
			n++;
	}
	return n;
}

/*
 * Returns true if something is kept here for the node of a downstream, so that
 * its counter matters.
 */
static bool
is_kept_for(const CrelayDownstream *d)
{
	return (d->slot_name[0] != '\0' || d->missed) && d->incarnation != 0 && !d->own;
}

/*
 * One pass: enters the counters of children that have got a slot, and removes
 * those of nodes that have none any more.  What a session has raised and could
 * not write down is written as well.
 */
void
crelay_moves_keep_told(const CrelayDownstream *downstreams, int n)
{
	CrelayTold *told = palloc_array(CrelayTold, max_replication_slots + 1);
	int			n_told = 0;

	for (int i = 0; i < n && n_told < max_replication_slots; i++)
	{
		const CrelayDownstream *d = &downstreams[i];
		bool		found = d->moves == 0 || !is_kept_for(d);

		for (int k = 0; k < n_told && !found; k++)
			found = told[k].incarnation == d->incarnation;
		if (found)
			continue;
		told[n_told].incarnation = d->incarnation;
		told[n_told++].moves = d->moves;
	}
	if (crelay_registry_publish_told(told, n_told) || n_told != n_saved ||
		memcmp(told, saved, sizeof(CrelayTold) * n_told) != 0)
	{
		memcpy(saved, told, sizeof(CrelayTold) * n_told);
		n_saved = n_told;
		(void) crelay_state_keep(CRELAY_SECTION_TOLD, render_told);
	}
	pfree(told);
}

/*
 * Writes the counters down, for a session whose child has told a higher one.
 * If that fails the worker tries again.
 */
void
crelay_moves_save_told(void)
{
	(void) crelay_state_try(CRELAY_SECTION_TOLD, render_told);
}

/* ---- the worker's start ---- */

/*
 * What children told before is known before any of them can be heard.  If only
 * the worker is new, the registry has it already.
 */
void
crelay_moves_start(MemoryContext context, bool new_server)
{
	saved = MemoryContextAlloc(context, sizeof(CrelayTold) * (max_replication_slots + 1));
	n_saved = read_told(saved);
	if (new_server)
		(void) crelay_registry_publish_told(saved, n_saved);
	read_moves();
}
