/*-------------------------------------------------------------------------
 *
 * attachment.c
 *	  What this node shows of its moves, and what others have shown here.
 *
 * Owns, leaves out and locks: see attachment.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "replication/slot.h"
#include "storage/fd.h"

#include "attachment.h"
#include "frontier.h"
#include "proof.h"
#include "state_file.h"

#define SEED_FILE		"pg_replslot/cascade_relay.seed"
#define SHOWN_FILE		"pg_replslot/cascade_relay.shown"

/* Two digits for each byte, and a zero. */
#define HEX_LEN			(2 * CRELAY_PROOF_SIZE + 1)

/*
 * What this node proves its moves with, and where it has shown that last.  With
 * a count of 0 it has no seed yet, or could not write it down.
 */
typedef struct Attachment
{
	uint32		incarnation;	/* whose seed it is */
	uint8		seed[CRELAY_PROOF_SIZE];
	uint32		count;
	uint8		value[CRELAY_PROOF_SIZE];	/* that goes with it */
	uint32		upstream;		/* incarnation; 0 none */
	uint64		path;			/* a digest of the way to the root */
	bool		moving;			/* the next value is to be shown there */
} Attachment;

static Attachment own;

static CrelayShown *shown;
static int	n_shown;

/* Not all of that is in the file; when it was tried last to write it. */
static bool shown_unsaved;
static TimestampTz shown_tried_at;

#define SAVE_AGAIN_US	INT64CONST(10000000)

/* ---- files ---- */

static void
to_hex(const uint8 *bytes, char *text)
{
	for (int i = 0; i < CRELAY_PROOF_SIZE; i++)
		snprintf(&text[2 * i], 3, "%02x", bytes[i]);
}

static bool
from_hex(const char *text, uint8 *bytes)
{
	if (strspn(text, "0123456789abcdef") != 2 * CRELAY_PROOF_SIZE)
		return false;
	for (int i = 0; i < CRELAY_PROOF_SIZE; i++)
	{
		unsigned int byte;

		if (sscanf(&text[2 * i], "%2x", &byte) != 1)
			return false;
		bytes[i] = (uint8) byte;
	}
	return true;
}

/*
 * What keeps one from being written is said once, until it goes well again.
 */
static bool
write_file(const char *path, const char *text, bool *failed)
{
	*failed = !crelay_state_file_write(path, text, *failed ? DEBUG1 : LOG);
	return !*failed;
}

/*
 * What cannot be understood is as good as not there: then the node begins a
 * new chain, and what was held for it before takes somebody to let go of.
 */
static void
read_seed(void)
{
	FILE	   *file = AllocateFile(SEED_FILE, "r");
	Attachment	saved = {0};
	char		seed[HEX_LEN];
	char		value[HEX_LEN];
	uint32		high;
	uint32		low;
	int			moving;

	StaticAssertStmt(HEX_LEN == 33, "the width below is that of the buffer");
	if (file == NULL)
		return;
	if (fscanf(file, "%8x %32s %u %32s %8x %8x%8x %d", &saved.incarnation, seed,
			   &saved.count, value, &saved.upstream, &high, &low, &moving) == 8 &&
		from_hex(seed, saved.seed) && from_hex(value, saved.value) &&
		saved.count <= CRELAY_PROOF_MAX)
	{
		saved.path = (uint64) high << 32 | low;
		saved.moving = moving != 0;
		own = saved;
	}
	FreeFile(file);
}

static bool
write_seed(const Attachment *next)
{
	static bool failed;
	char		seed[HEX_LEN];
	char		value[HEX_LEN];
	char		line[160];

	to_hex(next->seed, seed);
	to_hex(next->value, value);
	snprintf(line, sizeof(line), "%08x %s %u %s %08x %08x%08x %d\n",
			 next->incarnation, seed, next->count, value, next->upstream,
			 (uint32) (next->path >> 32), (uint32) next->path,
			 next->moving ? 1 : 0);
	return write_file(SEED_FILE, line, &failed);
}

static void
read_shown(void)
{
	FILE	   *file = AllocateFile(SHOWN_FILE, "r");
	char		value[HEX_LEN];
	CrelayShown next = {0};

	if (file == NULL)
		return;
	while (n_shown < max_replication_slots &&
		   fscanf(file, "%8x %u %32s", &next.incarnation, &next.proof.count, value) == 3)
	{
		if (next.incarnation != 0 && next.proof.count != 0 &&
			from_hex(value, next.proof.value))
			shown[n_shown++] = next;
	}
	FreeFile(file);
}

static bool
write_shown(void)
{
	static bool failed;
	StringInfoData text;
	bool		written;

	initStringInfo(&text);
	for (int i = 0; i < n_shown; i++)
	{
		char		value[HEX_LEN];

		to_hex(shown[i].proof.value, value);
		appendStringInfo(&text, "%08x %u %s\n", shown[i].incarnation,
						 shown[i].proof.count, value);
	}
	written = write_file(SHOWN_FILE, text.data, &failed);
	pfree(text.data);
	return written;
}

/*
 * A new start of the worker.  What it remembers of others is known before any
 * of them can be heard.  If only the worker is new, the registry knows better
 * than the file, which it may not have been possible to write.
 */
void
crelay_attachment_start(MemoryContext context)
{
	CrelayLocal local;

	crelay_registry_get_local(&local);
	shown = MemoryContextAllocZero(context, sizeof(CrelayShown) * Max(max_replication_slots, 1));
	n_shown = 0;
	shown_unsaved = local.ready;
	memset(&own, 0, sizeof(own));
	if (local.ready)
		n_shown = crelay_registry_get_shown(shown);
	else
	{
		read_shown();
		crelay_registry_publish_shown(shown, n_shown);
	}
	read_seed();
}

/* ---- what this node shows ---- */

/*
 * The way to the root, as far as its upstream is the one that it ends at: what
 * a former one has said is not the way any more.  False if it is not known.
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
		*path = hash_bytes_uint32_extended(local->hops[i].incarnation, *path);
	return true;
}

/*
 * Begins a chain.  What has been shown of the last one leads nowhere then.
 */
static bool
begin_chain(Attachment *next, uint32 incarnation)
{
	if (next->count > CRELAY_PROOF_MAX)
		ereport(LOG,
				(errmsg("cascade_relay: this node has moved %d times, and proves its moves with a new seed from now on",
						CRELAY_PROOF_MAX),
				 errdetail("What is held for it on nodes that it has left before does not go by itself.")));
	next->count = 1;
	next->incarnation = incarnation;
	return pg_strong_random(next->seed, sizeof(next->seed));
}

/*
 * Whether those above hold what this node and all below it need: for all of that
 * the nodes that it has left let go as soon as they see what it shows.
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
 * One pass, after this node's verdict on its protection and before anybody is
 * told of it.  The next value is on disk before it is shown: shown a second time,
 * in another place, it would prove nothing.
 */
void
crelay_attachment_show(CrelayLocal *local)
{
	CrelayNode *node = &local->node;
	Attachment	next = own;
	uint64		path;
	bool		known = read_path(local, &path);
	bool		placed = node->upstream_incarnation != 0 || known;
	bool		changed = false;

	/* without its incarnation a cloned volume is another node */
	if (next.count == 0 || next.incarnation != node->incarnation)
	{
		if (!begin_chain(&next, node->incarnation))
			return;
		changed = true;
	}
	if (placed && (next.upstream != node->upstream_incarnation ||
				   (known && next.path != path)))
	{
		next.upstream = node->upstream_incarnation;
		if (known)
			next.path = path;
		next.moving = true;
		changed = true;
	}
	if (next.moving && known && is_held(local))
	{
		next.moving = false;
		changed = true;
		if (++next.count > CRELAY_PROOF_MAX && !begin_chain(&next, node->incarnation))
			return;
	}
	if (next.count != own.count || next.incarnation != own.incarnation)
	{
		CrelayProof proof;

		crelay_proof_make(next.seed, next.incarnation, next.count, &proof);
		if (proof.count == 0)
			return;
		memcpy(next.value, proof.value, CRELAY_PROOF_SIZE);
	}
	if (changed && write_seed(&next))
		own = next;
	node->proof.count = own.count;
	memcpy(node->proof.value, own.value, CRELAY_PROOF_SIZE);
}

/* ---- what others have shown ---- */

static int
find_shown(const CrelayShown *from, int n, uint32 incarnation)
{
	for (int i = 0; i < n; i++)
	{
		if (from[i].incarnation == incarnation)
			return i;
	}
	return -1;
}

/*
 * Whether a value is what is remembered of that node, or only it can have shown
 * it since.
 */
static bool
continues(uint32 incarnation, const CrelayProof *proof)
{
	int			s = find_shown(shown, n_shown, incarnation);

	return s < 0 || memcmp(&shown[s].proof, proof, sizeof(CrelayProof)) == 0 ||
		crelay_proof_follows(&shown[s].proof, proof, incarnation);
}

/*
 * Whether the second of two entries for one incarnation is to be believed more.
 * One without a child only says what was remembered before; of two children,
 * which a node is that has another name now, or somebody pretends to be, it is
 * the one that goes on from there.
 */
static bool
says_more(const CrelayDownstream *first, const CrelayDownstream *second)
{
	if (first->child < 0 || second->child < 0)
		return first->child < 0 && second->child >= 0;
	if (memcmp(&first->proof, &second->proof, sizeof(CrelayProof)) == 0)
		return false;
	return !continues(first->incarnation, &first->proof) &&
		continues(second->incarnation, &second->proof);
}

/*
 * One pass.  The file is written when something has changed, which is when nodes
 * come, move or go; and again after a while if that was not possible.
 */
void
crelay_attachment_keep(const CrelayDownstream *downstreams, int n, TimestampTz now)
{
	CrelayShown *seen = palloc0_array(CrelayShown, max_replication_slots + 1);
	const CrelayDownstream **from = palloc_array(const CrelayDownstream *,
												 max_replication_slots + 1);
	int			n_seen = 0;
	bool		changed;

	for (int i = 0; i < n; i++)
	{
		const CrelayDownstream *d = &downstreams[i];
		int			s;

		if ((d->slot_name[0] == '\0' && !d->missed) || d->incarnation == 0 || d->own ||
			d->proof.count == 0)
			continue;
		s = find_shown(seen, n_seen, d->incarnation);
		if (s >= 0 ? !says_more(from[s], d) : n_seen == max_replication_slots)
			continue;
		if (s < 0)
			s = n_seen++;
		seen[s].incarnation = d->incarnation;
		seen[s].proof = d->proof;
		from[s] = d;
	}
	changed = n_seen != n_shown || memcmp(seen, shown, sizeof(CrelayShown) * n_seen) != 0;
	if (changed)
	{
		memcpy(shown, seen, sizeof(CrelayShown) * n_seen);
		n_shown = n_seen;
		crelay_registry_publish_shown(shown, n_shown);
	}
	else if (!shown_unsaved ||
			 (now >= shown_tried_at && now - shown_tried_at < SAVE_AGAIN_US))
		return;
	shown_tried_at = now;
	shown_unsaved = !write_shown();
}
