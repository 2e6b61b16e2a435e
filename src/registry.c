/*-------------------------------------------------------------------------
 *
 * registry.c
 *	  What this node knows, in fixed shared memory.
 *
 * Owns, leaves out and locks: see registry.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "history.h"
#include "proof.h"
#include "registry.h"

/* A session is not ousted faster than this, however often it reports. */
#define MIN_LIVE_MS		1000

/*
 * How long a duplicate is shown after its last attempt; a refused node tries
 * again at least every ten seconds or so.
 */
#define DUPLICATE_SHOWN_US	INT64CONST(30000000)

/*
 * News of the tree go to all children together not more often than once in so
 * much time for each.
 */
#define TELL_PAUSE_MS	20

/* One node that is neither this one nor a direct managed child. */
typedef struct Row
{
	CrelayNode	node;
	int			next;			/* in its list, or in the free list; -1 last */
} Row;

/* A refusal that was logged already. */
typedef struct LoggedRefusal
{
	uint32		incarnation;
	CrelayRefusal refusal;
} LoggedRefusal;

#define LOGGED_REFUSALS 16

typedef struct Registry
{
	LWLock	   *lock;			/* guards everything below */
	PGPROC	   *worker_proc;	/* whose latch wakes the worker, or NULL */
	uint64		floor_seq;		/* moves when a need was added or lowered */
	uint64		membership_seq;
	uint64		below_seq;		/* moves with each tree part from below */
	uint64		above_seq;		/* and with each from the upstream */
	CrelayLocal local;
	LoggedRefusal logged[LOGGED_REFUSALS];
	int			nreleased;
	CrelayReleased released[CRELAY_MAX_RELEASED];
	uint64		released_seq;
	uint64		forgotten_seq;
	int			max_nodes;
	int			nchildren;		/* slots used so far, holes included */
	int			nrows;
	int			first_free;
	CrelayRowList unmanaged;
	CrelayRowList upstream;
	Row		   *rows;			/* [max_nodes] */
	int			ncovers;
	CrelayCover *covers;		/* [max_replication_slots] */
	int			nusers;
	CrelaySlotUser *users;		/* [max_replication_slots] */
	int			nshown;
	CrelayShown *shown;			/* [max_replication_slots] */
	int			nnotes;
	CrelayHoldNote *notes;		/* [max_replication_slots] */
	CrelayChild children[FLEXIBLE_ARRAY_MEMBER];	/* [max_nodes] */
} Registry;

static Registry *registry;

Size
crelay_registry_size(void)
{
	Size		n = (Size) crelay_guc_max_nodes();
	Size		size = offsetof(Registry, children);

	size = add_size(size, mul_size(n, sizeof(CrelayChild)));
	size = add_size(MAXALIGN(size), mul_size(n, sizeof(Row)));
	size = add_size(MAXALIGN(size), mul_size(max_replication_slots, sizeof(CrelayCover)));
	size = add_size(MAXALIGN(size), mul_size(max_replication_slots, sizeof(CrelaySlotUser)));
	size = add_size(MAXALIGN(size), mul_size(max_replication_slots, sizeof(CrelayShown)));
	return add_size(MAXALIGN(size),
					mul_size(max_replication_slots, sizeof(CrelayHoldNote)));
}

/*
 * Finds or makes the segment; says whether it was made.  The caller holds
 * AddinShmemInitLock.
 */
bool
crelay_registry_init(void)
{
	Size		children_end;
	bool		found;

	registry = ShmemInitStruct("cascade_relay", crelay_registry_size(), &found);
	if (found)
		return false;

	memset(registry, 0, crelay_registry_size());
	registry->lock = &GetNamedLWLockTranche("cascade_relay")[CRELAY_LOCK_REGISTRY].lock;
	registry->max_nodes = crelay_guc_max_nodes();
	children_end = offsetof(Registry, children) +
		sizeof(CrelayChild) * registry->max_nodes;
	registry->rows = (Row *) ((char *) registry + MAXALIGN(children_end));
	registry->covers = (CrelayCover *)
		((char *) registry->rows + MAXALIGN(sizeof(Row) * registry->max_nodes));
	registry->users = (CrelaySlotUser *)
		((char *) registry->covers + MAXALIGN(sizeof(CrelayCover) * max_replication_slots));
	registry->shown = (CrelayShown *)
		((char *) registry->users + MAXALIGN(sizeof(CrelaySlotUser) * max_replication_slots));
	registry->notes = (CrelayHoldNote *)
		((char *) registry->shown + MAXALIGN(sizeof(CrelayShown) * max_replication_slots));
	for (int i = 0; i < registry->max_nodes; i++)
		registry->rows[i].next = i + 1 < registry->max_nodes ? i + 1 : -1;
	registry->first_free = 0;
	registry->unmanaged.first = -1;
	registry->upstream.first = -1;
	return true;
}

bool
crelay_registry_is_there(void)
{
	return registry != NULL;
}

/*
 * The polite error of every function that needs the shared memory.
 */
void
crelay_registry_require(void)
{
	if (registry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cascade_relay must be loaded via \"%s\"",
						"shared_preload_libraries"),
				 errhint("Add cascade_relay to \"%s\" in postgresql.conf and restart this server.",
						 "shared_preload_libraries")));
}

/* ---- lists of rows; the caller holds the lock exclusively ---- */

static void
free_rows(CrelayRowList *list)
{
	if (list->n == 0)
		return;
	registry->rows[list->last].next = registry->first_free;
	registry->first_free = list->first;
	registry->nrows -= list->n;
	list->first = -1;
	list->n = 0;
}

/*
 * Takes rows away from the end of a list, where the deepest are.
 */
static void
cut_rows(CrelayRowList *list, int n)
{
	CrelayRowList tail;
	int			keep = list->n - n;

	if (keep <= 0)
	{
		free_rows(list);
		return;
	}
	tail = *list;
	tail.n = n;
	for (int i = 0; i < keep; i++)
	{
		list->last = tail.first;
		tail.first = registry->rows[tail.first].next;
	}
	registry->rows[list->last].next = -1;
	list->n = keep;
	free_rows(&tail);
}

/*
 * A new row at the end of a list, or NULL if there is no free one.
 */
static CrelayNode *
add_row(CrelayRowList *list)
{
	int			row = registry->first_free;

	if (row < 0)
		return NULL;
	registry->first_free = registry->rows[row].next;
	registry->rows[row].next = -1;
	if (list->n == 0)
		list->first = row;
	else
		registry->rows[list->last].next = row;
	list->last = row;
	list->n++;
	registry->nrows++;
	return &registry->rows[row].node;
}

/*
 * Counts what there was no room for, and remembers who had the most, for the
 * worker to say.
 */
static void
note_full(uint64 dropped, int most, const char *by, TimestampTz now)
{
	CrelayLocal *local = &registry->local;

	local->rows_dropped += dropped;
	local->full_at = now;
	local->full_rows = most;
	strlcpy(local->full_by, by, sizeof(local->full_by));
	local->full_role[0] = '\0';
}

/*
 * The same for the places of children: the role that speaks for more than half
 * of them, if there is one.
 */
static void
note_full_children(TimestampTz now)
{
	const char *role = "";
	int			lead = 0;
	int			n = 0;

	for (int i = 0; i < registry->nchildren; i++)
	{
		const char *other = registry->children[i].role_name;

		if (lead == 0)
			role = other;
		lead += strcmp(role, other) == 0 ? 1 : -1;
	}
	for (int i = 0; i < registry->nchildren; i++)
		n += strcmp(role, registry->children[i].role_name) == 0;
	note_full(1, n, "", now);
	if (n > registry->nchildren / 2)
		strlcpy(registry->local.full_role, role, sizeof(registry->local.full_role));
}

/*
 * The longest list of rows, and whose it is: empty for what this node has seen
 * by itself or heard from above.
 */
static CrelayRowList *
longest_list(const char **owner)
{
	CrelayRowList *longest = &registry->unmanaged;

	*owner = "";
	if (registry->upstream.n > longest->n)
		longest = &registry->upstream;
	for (int i = 0; i < registry->nchildren; i++)
	{
		CrelayChild *child = &registry->children[i];

		if (!child->in_use || child->rows.n <= longest->n)
			continue;
		longest = &child->rows;
		*owner = child->node.name;
	}
	return longest;
}

/*
 * Makes room for that many rows of a list that has none now.  If there is not
 * enough, whoever has more than this one would get gives some away, so that no
 * source can crowd out another: each gets what it wants, or no less than
 * anybody else.  Each round halves the difference to the longest, so there are
 * few.
 */
static void
make_room(int wanted, const char *owner, TimestampTz now)
{
	for (;;)
	{
		int			free = registry->max_nodes - registry->nrows;
		const char *longest_owner;
		CrelayRowList *longest;
		int			n;

		if (free >= wanted)
			return;
		longest = longest_list(&longest_owner);
		n = Min(wanted - free, (longest->n - free) / 2);
		if (n <= 0)
		{
			if (free >= longest->n)
				note_full(wanted - free, wanted, owner, now);
			else
				note_full(wanted - free, longest->n, longest_owner, now);
			return;
		}
		note_full(n, longest->n, longest_owner, now);
		cut_rows(longest, n);
	}
}

/*
 * A digest of who is in a list and in what state: when it changes, the tree
 * has changed.
 */
static uint64
rows_digest(const CrelayRowList *list)
{
	uint64		digest = 0;

	for (int row = list->first; row >= 0; row = registry->rows[row].next)
	{
		const CrelayNode *node = &registry->rows[row].node;

		/* a sum, because the order does not matter */
		digest += hash_bytes_extended((const unsigned char *) node->name,
									  (int) strlen(node->name),
									  ((uint64) node->incarnation << 8) | node->state);
		digest += hash_bytes_extended((const unsigned char *) node->upstream_name,
									  (int) strlen(node->upstream_name),
									  node->upstream_incarnation);
	}
	return digest;
}

/* ---- reading ---- */

/*
 * Copies one list of rows; the caller has made sure of the room.
 */
static void
copy_rows(CrelaySnapshot *snapshot, const CrelayRowList *list, int origin)
{
	for (int row = list->first; row >= 0; row = registry->rows[row].next)
	{
		snapshot->rows[snapshot->nrows] = registry->rows[row].node;
		snapshot->row_origins[snapshot->nrows++] = origin;
	}
}

/*
 * Copies what a child has said of the nodes below it.  While the child itself
 * is down, nobody has news of them.
 */
static void
copy_child_rows(CrelaySnapshot *snapshot, int child_slot)
{
	int			from = snapshot->nrows;

	copy_rows(snapshot, &registry->children[child_slot].rows, child_slot);
	if (registry->children[child_slot].node.state != CRELAY_STATE_DOWN)
		return;
	for (int i = from; i < snapshot->nrows; i++)
	{
		if (snapshot->rows[i].state != CRELAY_STATE_DOWN)
			snapshot->rows[i].state = CRELAY_STATE_STALE;
	}
}

/*
 * Copies what the upstream has said of the rest of the tree.  Once this node
 * has been promoted there is nobody left to bring news of that.
 */
static void
copy_upstream_rows(CrelaySnapshot *snapshot)
{
	int			from = snapshot->nrows;

	copy_rows(snapshot, &registry->upstream, CRELAY_ORIGIN_UPSTREAM);
	if (registry->local.node.role != CRELAY_ROLE_PRIMARY)
		return;
	for (int i = from; i < snapshot->nrows; i++)
	{
		if (snapshot->rows[i].state != CRELAY_STATE_DOWN)
			snapshot->rows[i].state = CRELAY_STATE_STALE;
	}
}

static void
copy_under_lock(CrelaySnapshot *snapshot, bool with_rows)
{
	snapshot->local = registry->local;
	snapshot->floor_seq = registry->floor_seq;
	snapshot->membership_seq = registry->membership_seq;
	snapshot->below_seq = registry->below_seq;
	snapshot->above_seq = registry->above_seq;
	snapshot->nreleased = registry->nreleased;
	snapshot->released_seq = registry->released_seq;
	snapshot->forgotten_seq = registry->forgotten_seq;
	memcpy(snapshot->released, registry->released, sizeof(snapshot->released));
	snapshot->nchildren = 0;
	snapshot->nrows = 0;
	for (int i = 0; i < registry->nchildren; i++)
	{
		if (!registry->children[i].in_use)
			continue;
		snapshot->children[snapshot->nchildren] = registry->children[i];
		snapshot->child_slots[snapshot->nchildren++] = i;
		if (with_rows)
			copy_child_rows(snapshot, i);
	}
	if (with_rows)
	{
		copy_rows(snapshot, &registry->unmanaged, CRELAY_ORIGIN_UNMANAGED);
		copy_upstream_rows(snapshot);
	}
}

/*
 * Copies the registry.  Memory is allocated before the lock is taken, so it is
 * tried again if more has come in between.
 */
void
crelay_registry_snapshot(CrelaySnapshot *snapshot, bool with_rows)
{
	for (;;)
	{
		int			nchildren;
		int			nrows;
		bool		fits;

		LWLockAcquire(registry->lock, LW_SHARED);
		nchildren = registry->nchildren;
		nrows = with_rows ? registry->nrows : 0;
		LWLockRelease(registry->lock);

		nchildren += 8;
		nrows += 32;
		snapshot->children = palloc_array(CrelayChild, nchildren);
		snapshot->child_slots = palloc_array(int, nchildren);
		snapshot->rows = palloc_array(CrelayNode, nrows);
		snapshot->row_origins = palloc_array(int, nrows);

		LWLockAcquire(registry->lock, LW_SHARED);
		fits = registry->nchildren <= nchildren &&
			(!with_rows || registry->nrows <= nrows);
		if (fits)
			copy_under_lock(snapshot, with_rows);
		LWLockRelease(registry->lock);
		if (fits)
			return;
	}
}

void
crelay_registry_get_local(CrelayLocal *local)
{
	LWLockAcquire(registry->lock, LW_SHARED);
	*local = registry->local;
	LWLockRelease(registry->lock);
}

/*
 * What the worker has last found the disk to leave for holds.
 */
void
crelay_registry_get_disk(CrelayDiskBound *disk)
{
	LWLockAcquire(registry->lock, LW_SHARED);
	*disk = registry->local.disk;
	LWLockRelease(registry->lock);
}

/*
 * Copies what the worker remembers of the holds; there is room for all slots.
 */
int
crelay_registry_get_notes(CrelayHoldNote *notes)
{
	int			n;

	LWLockAcquire(registry->lock, LW_SHARED);
	n = registry->nnotes;
	memcpy(notes, registry->notes, sizeof(CrelayHoldNote) * n);
	LWLockRelease(registry->lock);
	return n;
}

/*
 * Whether a bound has kept a hold from what was wanted of it, and still does.
 */
bool
crelay_registry_is_clamped(const char *slot_name)
{
	bool		clamped = false;

	LWLockAcquire(registry->lock, LW_SHARED);
	for (int i = 0; i < registry->nnotes && !clamped; i++)
		clamped = registry->notes[i].clamped &&
			strcmp(registry->notes[i].slot_name, slot_name) == 0;
	LWLockRelease(registry->lock);
	return clamped;
}

bool
crelay_registry_is_stopping(void)
{
	bool		stopping;

	LWLockAcquire(registry->lock, LW_SHARED);
	stopping = registry->local.stopping;
	LWLockRelease(registry->lock);
	return stopping;
}

/*
 * Adds what a list of rows says of a node that is live below somebody else; the
 * caller holds the lock.
 */
static void
collect_claims(const CrelayRowList *list, const char *name, uint32 incarnation,
			   const CrelayProof *known, TimestampTz since, CrelayClaims *claims)
{
	for (int row = list->first; row >= 0; row = registry->rows[row].next)
	{
		const CrelayNode *node = &registry->rows[row].node;

		if (node->incarnation != incarnation ||
			node->upstream_incarnation == registry->local.node.incarnation ||
			node->observed_at <= since ||
			(node->state != CRELAY_STATE_STREAMING &&
			 node->state != CRELAY_STATE_CATCHUP &&
			 node->state != CRELAY_STATE_ARCHIVE) ||
			strcmp(node->name, name) != 0)
			continue;
		if (claims->live++ == 0)
			strlcpy(claims->upstream_name, node->upstream_name,
					sizeof(claims->upstream_name));
		if (node->protected == CRELAY_TRUE && claims->n < CRELAY_MAX_CLAIMS &&
			crelay_proof_may_follow(known, &node->proof))
			claims->proofs[claims->n++] = node->proof;
	}
}

/*
 * What is said of a node that once was ours: where it was seen after the given
 * time, live, below somebody else; and for each time that it is said to be
 * protected there, what it shows, as far as that could follow from what is
 * known of it.
 */
void
crelay_registry_get_claims(const char *name, uint32 incarnation,
						   const CrelayProof *known, TimestampTz since,
						   CrelayClaims *claims)
{
	claims->live = 0;
	claims->n = 0;
	claims->upstream_name[0] = '\0';
	LWLockAcquire(registry->lock, LW_SHARED);
	collect_claims(&registry->upstream, name, incarnation, known, since, claims);
	for (int i = 0; i < registry->nchildren; i++)
	{
		if (registry->children[i].in_use)
			collect_claims(&registry->children[i].rows, name, incarnation, known,
						   since, claims);
	}
	LWLockRelease(registry->lock);
}

/* ---- for the sessions that children report through ---- */

/*
 * Whether the session that owns a child has been heard of lately.  A session
 * that ended is not live at once; one that was cut silently after three of its
 * own intervals.
 */
static bool
is_live(const CrelayChild *child, TimestampTz now)
{
	int64		allowed = (int64) child->report_interval_ms * 3;
	TimestampTz heard = Max(child->connected_at, child->last_report);

	if (child->session_pid == 0)
		return false;
	if (allowed < MIN_LIVE_MS)
		allowed = MIN_LIVE_MS;
	return now - heard <= allowed * 1000;
}

/*
 * What speaks against a node as our child, before any other child is looked
 * at.
 */
static CrelayRefusal
refuse_stranger(const CrelayHello *hello, char *detail, Size detail_size)
{
	const CrelayLocal *local = &registry->local;

	if (!local->ready)
		return CRELAY_REFUSE_NO_WORKER;
	if (hello->system_identifier != local->system_identifier)
	{
		snprintf(detail, detail_size, "its system identifier is " UINT64_FORMAT,
				 local->system_identifier);
		return CRELAY_REFUSE_SYSTEM;
	}
	if (hello->incarnation == local->node.incarnation)
		return CRELAY_REFUSE_SELF;
	if (strcmp(hello->node_name, local->node.name) == 0)
		return CRELAY_REFUSE_OWN_NAME;
	for (int i = 0; i < local->nhops; i++)
	{
		if (local->hops[i].incarnation == hello->incarnation)
			return CRELAY_REFUSE_CYCLE;
	}
	return CRELAY_REFUSE_NONE;
}

/*
 * Finds the entry that a hello may take, -1 if a new one is needed.  A node
 * that is live under the same name, or with the same incarnation, is never
 * taken over, unless the very same worker says hello again.
 */
static CrelayRefusal
find_claim(const CrelayHello *hello, TimestampTz now, CrelayClaim *claim)
{
	claim->child_slot = -1;
	for (int i = 0; i < registry->nchildren; i++)
	{
		CrelayChild *child = &registry->children[i];
		bool		same_name;
		bool		same_incarnation;

		if (!child->in_use)
			continue;
		same_name = strcmp(child->node.name, hello->node_name) == 0;
		same_incarnation = child->node.incarnation == hello->incarnation;
		if (!same_name && !same_incarnation)
			continue;
		if (child->start_id != hello->start_id && is_live(child, now))
		{
			child->duplicate_seen = now;
			snprintf(claim->detail, sizeof(claim->detail),
					 "node \"%s\" with incarnation %08x is connected from %s",
					 child->node.name, child->node.incarnation, child->client_addr);
			return CRELAY_REFUSE_DUPLICATE;
		}
		if (same_name && same_incarnation)
			claim->child_slot = i;
		else if (child->start_id == hello->start_id)
			child->session_pid = 0; /* it has changed its name */
	}
	return CRELAY_REFUSE_NONE;
}

/*
 * The child with that hold, -1 if there is none; the caller holds the lock.
 */
static int
find_hold(const char *hold_name)
{
	for (int i = 0; i < registry->nchildren; i++)
	{
		if (registry->children[i].in_use &&
			strcmp(registry->children[i].hold_name, hold_name) == 0)
			return i;
	}
	return -1;
}

/*
 * What the worker remembers of a hold whose loss it would miss, or NULL; the
 * caller holds the lock.
 */
static CrelayHoldNote *
find_note(const char *hold_name)
{
	for (int i = 0; i < registry->nnotes; i++)
	{
		if (registry->notes[i].lsn != 0 &&
			strcmp(registry->notes[i].slot_name, hold_name) == 0)
			return &registry->notes[i];
	}
	return NULL;
}

/*
 * Forgets a child that nobody speaks for and nothing is held for, the one that
 * was heard of longest ago, so that whoever only says hello cannot fill the
 * registry.  One that has never reported goes before one that has.  Returns
 * its place, -1 if there is none.
 */
static int
evict_child(void)
{
	const CrelayChild *oldest = NULL;
	int			slot = -1;

	for (int i = 0; i < registry->nchildren; i++)
	{
		const CrelayChild *child = &registry->children[i];

		if (!child->in_use || child->session_pid != 0 || child->held_lsn != 0)
			continue;
		if (oldest != NULL &&
			(child->reported != oldest->reported ? child->reported :
			 Max(child->connected_at, child->last_report) >=
			 Max(oldest->connected_at, oldest->last_report)))
			continue;
		oldest = child;
		slot = i;
	}
	if (slot >= 0)
	{
		free_rows(&registry->children[slot].rows);
		registry->children[slot].in_use = false;
		registry->membership_seq++;
	}
	return slot;
}

static int
new_child(const CrelayHello *hello)
{
	CrelayChild *child;
	CrelayHoldNote *note;
	int			slot;

	for (slot = 0; slot < registry->nchildren; slot++)
	{
		if (!registry->children[slot].in_use)
			break;
	}
	if (slot >= registry->max_nodes)
		slot = evict_child();
	if (slot < 0)
		return -1;
	if (slot == registry->nchildren)
		registry->nchildren++;

	child = &registry->children[slot];
	memset(child, 0, sizeof(CrelayChild));
	child->in_use = true;
	child->rows.first = -1;
	snprintf(child->hold_name, sizeof(child->hold_name), "%s%s_%08x",
			 CRELAY_HOLD_PREFIX, hello->node_name, hello->incarnation);
	strlcpy(child->node.name, hello->node_name, sizeof(child->node.name));
	child->node.incarnation = hello->incarnation;
	child->node.managed = true;
	child->node.role = CRELAY_ROLE_STANDBY;
	child->node.replay_lag = -1;
	if ((note = find_note(child->hold_name)) != NULL)
		child->hold_dropped_at = note->dropped_at;
	return slot;
}

/*
 * Enters a node that has not called since this server's start, but is held:
 * should somebody drop the hold before it calls, it is known that there was one.
 * Not if a node was forgotten since the hold was looked at; and not if there is
 * no room, then it is known by its hold alone.  Tells whether it is entered.
 */
bool
crelay_registry_expect(const CrelayDownstream *hold, const CrelayNode *self,
					   uint64 forgotten_seq)
{
	CrelayHello hello = {0};
	CrelayChild *child;
	int			slot = -1;

	strlcpy(hello.node_name, hold->name, sizeof(hello.node_name));
	hello.incarnation = hold->incarnation;
	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	if (registry->forgotten_seq == forgotten_seq && find_hold(hold->slot_name) < 0)
		slot = new_child(&hello);
	if (slot >= 0)
	{
		child = &registry->children[slot];
		child->held_lsn = hold->restart_lsn;
		child->node.state = CRELAY_STATE_DOWN;
		strlcpy(child->node.upstream_name, self->name,
				sizeof(child->node.upstream_name));
		child->node.upstream_incarnation = self->incarnation;
		registry->membership_seq++;
	}
	LWLockRelease(registry->lock);
	return slot >= 0;
}

/*
 * Whether that refusal is news for the log: a refused node tries again and
 * again.
 */
static bool
is_news(uint32 incarnation, CrelayRefusal refusal)
{
	LoggedRefusal *logged = &registry->logged[incarnation % LOGGED_REFUSALS];

	if (logged->incarnation == incarnation && logged->refusal == refusal)
		return false;
	logged->incarnation = incarnation;
	logged->refusal = refusal;
	return refusal != CRELAY_REFUSE_NONE;
}

/*
 * Makes this session the owner of the node that says hello, or says why not,
 * and whether that is news.  The latest accepted hello owns the node.
 */
CrelayRefusal
crelay_registry_claim(const CrelayHello *hello, pid_t pid,
					  const char *client_addr, const char *role_name,
					  TimestampTz now, CrelayClaim *claim)
{
	CrelayRefusal refusal;

	memset(claim, 0, sizeof(CrelayClaim));
	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	refusal = refuse_stranger(hello, claim->detail, sizeof(claim->detail));
	if (refusal == CRELAY_REFUSE_NONE)
		refusal = find_claim(hello, now, claim);
	if (refusal == CRELAY_REFUSE_NONE && claim->child_slot < 0)
	{
		claim->child_slot = new_child(hello);
		if (claim->child_slot < 0)
		{
			refusal = CRELAY_REFUSE_FULL;
			note_full_children(now);
		}
	}
	if (refusal == CRELAY_REFUSE_NONE)
	{
		CrelayChild *child = &registry->children[claim->child_slot];

		if (strcmp(child->role_name, role_name) != 0)
			strlcpy(claim->former_role, child->role_name, sizeof(claim->former_role));
		child->session_pid = pid;
		child->start_id = hello->start_id;
		child->report_interval_ms = hello->report_interval_ms;
		child->connected_at = now;
		strlcpy(child->client_addr, client_addr, sizeof(child->client_addr));
		strlcpy(child->role_name, role_name, sizeof(child->role_name));
		strlcpy(child->node.upstream_name, registry->local.node.name,
				sizeof(child->node.upstream_name));
		child->node.upstream_incarnation = registry->local.node.incarnation;
		registry->membership_seq++;
	}
	claim->news = is_news(hello->incarnation, refusal);
	LWLockRelease(registry->lock);
	return refusal;
}

/*
 * The child, if that session still owns it; the caller holds the lock.
 */
static CrelayChild *
owned_child(int child_slot, uint32 incarnation, pid_t pid)
{
	CrelayChild *child = &registry->children[child_slot];

	if (!child->in_use || child->session_pid != pid ||
		child->node.incarnation != incarnation)
		return NULL;
	return child;
}

bool
crelay_registry_owns(int child_slot, uint32 incarnation, pid_t pid)
{
	bool		owns;

	LWLockAcquire(registry->lock, LW_SHARED);
	owns = owned_child(child_slot, incarnation, pid) != NULL;
	LWLockRelease(registry->lock);
	return owns;
}

/*
 * Whether the child is on another history than this node.  Its position lies
 * on its current timeline; where it came from it said with its tree part.
 */
static bool
is_diverged(const CrelayChild *child, const CrelayReport *report,
			const CrelayHistory *own_history, uint64 own_lsn)
{
	CrelayHistory theirs = {0};

	if (report->timeline == 0 || own_history->timeline == 0)
		return false;
	if (report->has_tree && report->history.timeline == report->timeline)
		theirs = report->history;
	else if (child->history.timeline == report->timeline)
		theirs = child->history;
	theirs.timeline = report->timeline;
	return !crelay_history_agrees(own_history, own_lsn, &theirs, report->replay_lsn);
}

/*
 * Takes over what changes with every report.
 */
static void
accept_values(CrelayChild *child, const CrelayReport *report, TimestampTz now)
{
	CrelayNode *node = &child->node;

	node->timeline = report->timeline;
	node->flush_lsn = report->flush_lsn;
	node->replay_lsn = report->replay_lsn;
	node->frontier_lsn = report->frontier_lsn;
	node->oldest_wal_lsn = report->oldest_wal_lsn;
	node->protected = report->protected;
	node->hot_standby_feedback = report->hot_standby_feedback;
	node->warnings = report->warnings;
	node->backend_xmin = report->backend_xmin;
	strlcpy(node->xmin_pinned_by, report->xmin_pinned_by, sizeof(node->xmin_pinned_by));
	strlcpy(node->pinned_by, report->pinned_by, sizeof(node->pinned_by));
	node->observed_at = now;
	child->own_state = report->state;
	child->own_class = report->replica_class;
	if (!child->reported)
	{
		/* until the worker has looked at its walsender */
		node->state = report->state;
		node->replica_class = report->replica_class;
	}
	child->hold_target_lsn = report->hold_target_lsn;
	child->report_interval_ms = report->report_interval_ms;
	child->last_report = now;
	child->reported = true;
	child->reports++;
}

/*
 * What a list says of nodes that are live there is not to be said by somebody
 * else: as with a hello, nobody takes over what is live.  When a node has
 * moved, its former upstream says so.
 */
static void
disbelieve_live(CrelayBranch *branch, const CrelayRowList *list)
{
	for (int row = list->first; row >= 0; row = registry->rows[row].next)
	{
		const CrelayNode *node = &registry->rows[row].node;

		if (node->state == CRELAY_STATE_STREAMING ||
			node->state == CRELAY_STATE_CATCHUP ||
			node->state == CRELAY_STATE_ARCHIVE)
			crelay_branch_disbelieve(branch, node->incarnation);
	}
}

/*
 * Settles which rows of a child's report count: none about this node or one
 * above it, none about a node that speaks for itself here or is live in
 * another branch, and none that does not hang below the child.  Returns how
 * many do.
 */
static int
judge_rows(const CrelayChild *child, CrelayBranch *branch, TimestampTz now)
{
	const CrelayLocal *local = &registry->local;

	crelay_branch_disbelieve(branch, local->node.incarnation);
	for (int i = 0; i < local->nhops; i++)
		crelay_branch_disbelieve(branch, local->hops[i].incarnation);
	for (int i = 0; i < registry->nchildren && branch->n > 0; i++)
	{
		const CrelayChild *other = &registry->children[i];

		if (!other->in_use || other == child || !is_live(other, now))
			continue;
		crelay_branch_disbelieve(branch, other->node.incarnation);
		disbelieve_live(branch, &other->rows);
	}
	if (branch->n > 0 && local->upstream_state == CRELAY_UPSTREAM_CONNECTED)
		disbelieve_live(branch, &registry->upstream);
	return crelay_branch_finish(branch, child->node.incarnation);
}

/*
 * Takes over the tree part: what is rarely said of the child itself, and the
 * rows below it that are believed.
 */
static void
accept_tree(CrelayChild *child, const CrelayReport *report,
			CrelayBranch *branch, TimestampTz now)
{
	uint64		before = rows_digest(&child->rows);

	registry->below_seq++;
	child->has_about = true;
	child->history = report->history;
	strlcpy(child->slot_name, report->about.slot_name, sizeof(child->slot_name));
	strlcpy(child->application_name, report->about.application_name,
			sizeof(child->application_name));
	strlcpy(child->node.location, report->about.location,
			sizeof(child->node.location));
	strlcpy(child->node.conninfo, report->about.conninfo,
			sizeof(child->node.conninfo));
	strlcpy(child->node.version, report->about.version,
			sizeof(child->node.version));
	strlcpy(child->node.upstream_address, report->about.upstream_address,
			sizeof(child->node.upstream_address));
	child->node.proof = report->about.proof;

	free_rows(&child->rows);
	make_room(judge_rows(child, branch, now) + (int) report->nrows - branch->n,
			  child->node.name, now);
	for (int i = 0; i < branch->n; i++)
	{
		CrelayNode *to;

		if (branch->beliefs[i] != CRELAY_BELIEVED)
			continue;
		to = add_row(&child->rows);
		if (to == NULL)
			break;
		*to = branch->nodes[i];
	}
	if (rows_digest(&child->rows) != before)
		registry->membership_seq++;
}

/*
 * Takes a report.  False if the session does not own the node any more; then
 * nothing has changed.  Wakes the worker if what the child needs has moved by
 * a segment or more.  Says whether the child is on another history: then its
 * figures are shown, but count for nothing, and its hold is to stay.
 */
bool
crelay_registry_accept(int child_slot, uint32 incarnation, pid_t pid,
					   const CrelayReport *report, CrelayBranch *branch,
					   const CrelayHistory *own_history, uint64 own_lsn,
					   uint64 segment_size, TimestampTz now, bool *diverged)
{
	CrelayChild *child;
	bool		wake;

	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	child = owned_child(child_slot, incarnation, pid);
	if (child == NULL)
	{
		LWLockRelease(registry->lock);
		return false;
	}
	*diverged = is_diverged(child, report, own_history, own_lsn);
	wake = !child->reported || child->diverged != *diverged ||
		child->node.frontier_lsn / segment_size != report->frontier_lsn / segment_size ||
		child->hold_target_lsn / segment_size != report->hold_target_lsn / segment_size;
	if (!child->reported || child->diverged != *diverged ||
		report->hold_target_lsn < child->hold_target_lsn)
		registry->floor_seq++;
	if (!child->reported || child->diverged != *diverged)
		registry->membership_seq++;
	child->diverged = *diverged;
	accept_values(child, report, now);
	if (report->has_tree)
		accept_tree(child, report, branch, now);
	registry->local.reports_received++;
	LWLockRelease(registry->lock);

	if (wake)
		crelay_registry_wake_worker();
	return true;
}

/*
 * Remembers what the child is being told about its hold; returns what it was
 * told before.
 */
uint64
crelay_registry_set_held(int child_slot, pid_t pid, uint64 held_lsn,
						 CrelayRefusal reason)
{
	CrelayChild *child;
	uint64		before = 0;

	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	child = &registry->children[child_slot];
	if (child->in_use && child->session_pid == pid)
	{
		before = child->held_lsn;

		/* a hold that was just placed, or lost, is a new need */
		if ((child->held_lsn == 0) != (held_lsn == 0))
			registry->floor_seq++;
		child->held_lsn = held_lsn;
		child->hold_reason = reason;
	}
	LWLockRelease(registry->lock);
	return before;
}

/*
 * Remembers that somebody else dropped the child's hold, so that it is told for
 * a while.
 */
void
crelay_registry_note_dropped(int child_slot, pid_t pid, TimestampTz now)
{
	CrelayChild *child;

	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	child = &registry->children[child_slot];
	if (child->in_use && child->session_pid == pid)
		child->hold_dropped_at = now;
	LWLockRelease(registry->lock);
}

/*
 * Whether the reply to the session's report brings the tree: if it was asked
 * for, or if there is news since the child was last told.  News go down at
 * once, or what is seen at the far end would grow older with each node between
 * by a whole round; but not to many children all the time.
 */
bool
crelay_registry_tell_tree(int child_slot, pid_t pid, bool asked, TimestampTz now)
{
	CrelayChild *child = &registry->children[child_slot];
	uint64		news;
	int64		pause_ms;
	bool		tell;

	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	news = registry->above_seq + registry->membership_seq;
	pause_ms = Max((int64) child->report_interval_ms,
				   (int64) registry->nchildren * TELL_PAUSE_MS);
	tell = child->session_pid == pid &&
		(asked || (news != child->told_seq && now - child->told_at >= pause_ms * 1000));
	if (tell)
	{
		child->told_seq = news;
		child->told_at = now;
	}
	LWLockRelease(registry->lock);
	return tell;
}

/*
 * Nobody is to miss that hold; the caller holds the lock.
 */
static void
remove_note(const char *hold_name)
{
	CrelayHoldNote *note = find_note(hold_name);

	if (note != NULL)
		*note = registry->notes[--registry->nnotes];
}

/*
 * Forgets what the session's node was called before: entries of its
 * incarnation under another name, that nobody speaks for any more, and the hold
 * that it had then.
 */
void
crelay_registry_forget_former(int child_slot, pid_t pid, const char *hold_name)
{
	const CrelayChild *child = &registry->children[child_slot];

	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	for (int i = 0; child->session_pid == pid && i < registry->nchildren; i++)
	{
		CrelayChild *former = &registry->children[i];

		if (!former->in_use || i == child_slot || former->session_pid != 0 ||
			former->node.incarnation != child->node.incarnation)
			continue;
		free_rows(&former->rows);
		former->in_use = false;
		registry->floor_seq++;
		registry->membership_seq++;
	}
	registry->forgotten_seq++;
	remove_note(hold_name);
	LWLockRelease(registry->lock);
}

/*
 * A session ends: what it owned is not connected any more.
 */
void
crelay_registry_leave(pid_t pid)
{
	bool		owned = false;

	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	for (int i = 0; i < registry->nchildren; i++)
	{
		CrelayChild *child = &registry->children[i];

		if (child->in_use && child->session_pid == pid)
		{
			child->session_pid = 0;
			registry->membership_seq++;
			owned = true;
		}
	}
	LWLockRelease(registry->lock);
	if (owned)
		crelay_registry_wake_worker();
}

/*
 * Finds the lowest of the slots, other than the given one, that have stood where
 * they are since before the checkpoint that the given redo pointer belongs to
 * began.  Returns where it stands, 0 if there is none.
 */
uint64
crelay_registry_lowest_cover(uint64 redo, const char *not_slot, char *slot_name)
{
	uint64		lowest = 0;

	LWLockAcquire(registry->lock, LW_SHARED);
	for (int i = 0; i < registry->ncovers; i++)
	{
		const CrelayCover *cover = &registry->covers[i];

		if (cover->restart_lsn == 0 || (lowest != 0 && cover->restart_lsn >= lowest) ||
			cover->seen_at_redo >= redo || strcmp(cover->slot_name, not_slot) == 0)
			continue;
		strlcpy(slot_name, cover->slot_name, CRELAY_SLOT_LEN);
		lowest = cover->restart_lsn;
	}
	LWLockRelease(registry->lock);
	return lowest;
}

static int
compare_covers(const void *a, const void *b)
{
	const CrelayCover *first = a;
	const CrelayCover *second = b;

	if (first->restart_lsn != second->restart_lsn)
		return first->restart_lsn > second->restart_lsn ? -1 : 1;
	return strcmp(first->slot_name, second->slot_name);
}

/*
 * All of them, the highest first.
 */
CrelayCover *
crelay_registry_covers(uint64 redo, const char *not_slot, int *n)
{
	CrelayCover *covers = palloc_array(CrelayCover, max_replication_slots + 1);

	*n = 0;
	LWLockAcquire(registry->lock, LW_SHARED);
	for (int i = 0; i < registry->ncovers; i++)
	{
		if (registry->covers[i].seen_at_redo < redo &&
			strcmp(registry->covers[i].slot_name, not_slot) != 0)
			covers[(*n)++] = registry->covers[i];
	}
	LWLockRelease(registry->lock);
	qsort(covers, *n, sizeof(CrelayCover), compare_covers);
	return covers;
}

/*
 * Wakes the worker, if there is one.  A latch of a process that is gone may be
 * set without harm.
 */
void
crelay_registry_wake_worker(void)
{
	PGPROC	   *proc;

	LWLockAcquire(registry->lock, LW_SHARED);
	proc = registry->worker_proc;
	LWLockRelease(registry->lock);
	if (proc != NULL)
		SetLatch(&proc->procLatch);
}

/*
 * The name of a child's hold.
 */
void
crelay_registry_hold_name(int child_slot, char *name)
{
	LWLockAcquire(registry->lock, LW_SHARED);
	strlcpy(name, registry->children[child_slot].hold_name, CRELAY_SLOT_LEN);
	LWLockRelease(registry->lock);
}

/*
 * What a reply says of this node and its path, and of the child (-1: none) as
 * seen from here.  Answer, refusal, sequence and held LSN are the caller's.
 *
 * The LSN that an upper node holds for this branch can move up to what this
 * node has already sent, so that is what the child may rely on.  This is read
 * after the child was registered: from then on publish_target() lets nothing
 * be sent that does not count it.
 */
void
crelay_registry_fill_reply(int child_slot, CrelayReply *reply)
{
	const CrelayLocal *local = &registry->local;
	CrelaySettings settings;
	int64		dropped_shown_us;

	crelay_guc_copy(&settings);
	dropped_shown_us = (int64) settings.stale_timeout_ms * 1000 * CRELAY_LONG_TIMEOUTS;
	reply->replay_lag = -1;
	LWLockAcquire(registry->lock, LW_SHARED);
	if (!local->ready)
	{
		/* before the worker's first pass there is nothing to say */
		strlcpy(reply->node_name, CRELAY_UNKNOWN_NODE, sizeof(reply->node_name));
		LWLockRelease(registry->lock);
		return;
	}
	strlcpy(reply->node_name, local->node.name, sizeof(reply->node_name));
	reply->incarnation = local->node.incarnation;
	if (child_slot >= 0)
	{
		const CrelayChild *child = &registry->children[child_slot];

		reply->state = child->node.state;
		reply->replica_class = child->node.replica_class;
		reply->replay_lag = child->node.replay_lag;
		if (child->duplicate_seen != 0 &&
			GetCurrentTimestamp() - child->duplicate_seen < DUPLICATE_SHOWN_US)
			reply->warnings |= CRELAY_WARN_DUPLICATE_NAME;
		if (child->hold_dropped_at != 0 &&
			GetCurrentTimestamp() - child->hold_dropped_at < dropped_shown_us)
			reply->warnings |= CRELAY_WARN_HOLD_DROPPED;
	}
	reply->root_known = local->root_known;
	/* without news from the root, nobody below knows how far behind it is */
	if (local->node.role == CRELAY_ROLE_PRIMARY ||
		local->upstream_state == CRELAY_UPSTREAM_CONNECTED)
		reply->root_lsn = local->root_lsn;
	reply->sync_names = local->sync_names;
	reply->tree_hold_lsn = local->tree_hold_lsn;
	reply->nhops = 0;
	for (int i = 0; i < local->nhops && i < CRELAY_MAX_DEPTH - 1; i++)
	{
		CrelayHop  *hop = &reply->hops[reply->nhops++];

		*hop = local->hops[i];
		if (hop->held_lsn != 0 && local->sent_target_lsn > hop->held_lsn)
			hop->held_lsn = local->sent_target_lsn;
	}
	strlcpy(reply->hops[reply->nhops].name, local->node.name,
			sizeof(reply->hops[0].name));
	reply->hops[reply->nhops].incarnation = local->node.incarnation;
	reply->hops[reply->nhops++].held_lsn = reply->held_lsn;
	LWLockRelease(registry->lock);
}

/* ---- for the worker ---- */

void
crelay_registry_worker_start(uint64 system_identifier, uint64 start_id)
{
	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	registry->worker_proc = MyProc;
	registry->local.worker_pid = MyProcPid;
	registry->local.system_identifier = system_identifier;
	registry->local.start_id = start_id;
	/* while no worker was there, nobody has listened */
	for (int i = 0; i < registry->nnotes; i++)
		registry->notes[i].silent = 0;
	LWLockRelease(registry->lock);
}

void
crelay_registry_worker_stop(void)
{
	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	registry->worker_proc = NULL;
	registry->local.worker_pid = 0;
	registry->local.upstream_state = CRELAY_UPSTREAM_NONE;
	LWLockRelease(registry->lock);
}

void
crelay_registry_set_stopping(bool stopping)
{
	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	registry->local.stopping = stopping;
	LWLockRelease(registry->lock);
}

/*
 * The processes that children report through, up to max of them.
 */
int
crelay_registry_sessions(pid_t *pids, int max)
{
	int			n = 0;

	LWLockAcquire(registry->lock, LW_SHARED);
	for (int i = 0; i < registry->nchildren && n < max; i++)
	{
		if (registry->children[i].in_use && registry->children[i].session_pid != 0)
			pids[n++] = registry->children[i].session_pid;
	}
	LWLockRelease(registry->lock);
	return n;
}

/*
 * Makes a hold target, computed from a snapshot with that floor_seq, the one
 * that will be sent.  False if a need was added or lowered since: the caller
 * must compute again, because a child may have been told already that nothing
 * above its need will be sent.
 */
bool
crelay_registry_publish_target(uint64 hold_target, uint64 floor_seq)
{
	bool		current;

	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	current = registry->floor_seq == floor_seq;
	if (current)
		registry->local.sent_target_lsn = hold_target;
	LWLockRelease(registry->lock);
	return current;
}

/*
 * Publishes what the worker knows of this node.  Counters and flags that
 * others write stay as they are.  A promotion, or another upstream, is news for
 * the whole tree.
 */
void
crelay_registry_publish_local(const CrelayLocal *local)
{
	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	{
		bool		stopping = registry->local.stopping;
		uint64		sent_target = registry->local.sent_target_lsn;
		uint64		received = registry->local.reports_received;
		uint64		dropped = registry->local.rows_dropped;
		TimestampTz full_at = registry->local.full_at;
		int			full_rows = registry->local.full_rows;
		char		full_by[CRELAY_NAME_LEN];
		char		full_role[CRELAY_SLOT_LEN];

		if (registry->local.node.role != local->node.role ||
			registry->local.node.timeline != local->node.timeline ||
			registry->local.node.upstream_incarnation != local->node.upstream_incarnation)
			registry->membership_seq++;
		strlcpy(full_by, registry->local.full_by, sizeof(full_by));
		strlcpy(full_role, registry->local.full_role, sizeof(full_role));
		registry->local = *local;
		registry->local.stopping = stopping;
		registry->local.sent_target_lsn = sent_target;
		registry->local.reports_received = received;
		registry->local.rows_dropped = dropped;
		registry->local.full_at = full_at;
		registry->local.full_rows = full_rows;
		strlcpy(registry->local.full_by, full_by, sizeof(full_by));
		strlcpy(registry->local.full_role, full_role, sizeof(full_role));
		registry->local.ready = true;
	}
	LWLockRelease(registry->lock);
}

/*
 * Publishes why a pass has failed, and nothing else: the rest is half done.
 */
void
crelay_registry_publish_error(const CrelayLocal *local)
{
	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	registry->local.upstream_state = local->upstream_state;
	strlcpy(registry->local.last_error, local->last_error,
			sizeof(registry->local.last_error));
	registry->local.last_error_time = local->last_error_time;
	LWLockRelease(registry->lock);
}

/*
 * These slots were there before the server started, and are restored before it
 * can begin a checkpoint: wherever the worker finds them first, every checkpoint
 * has counted them there, or lower.  Called while nobody else is there yet.
 */
void
crelay_registry_begin_covers(char (*slot_names)[NAMEDATALEN], int n)
{
	for (int i = 0; i < n; i++)
		strlcpy(registry->covers[i].slot_name, slot_names[i], CRELAY_SLOT_LEN);
	registry->ncovers = n;
}

/*
 * Copies whose the slots are; there is room for max_replication_slots.
 */
int
crelay_registry_get_users(CrelaySlotUser *users)
{
	int			n;

	LWLockAcquire(registry->lock, LW_SHARED);
	n = registry->nusers;
	memcpy(users, registry->users, sizeof(CrelaySlotUser) * n);
	LWLockRelease(registry->lock);
	return n;
}

/*
 * Lets everybody know whose the slots are.
 */
void
crelay_registry_publish_users(const CrelaySlotUser *users, int n)
{
	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	registry->nusers = Min(n, max_replication_slots);
	memcpy(registry->users, users, sizeof(CrelaySlotUser) * registry->nusers);
	LWLockRelease(registry->lock);
}

/*
 * Copies what the nodes that slots are kept for have shown last; there is room
 * for max_replication_slots.
 */
int
crelay_registry_get_shown(CrelayShown *shown)
{
	int			n;

	LWLockAcquire(registry->lock, LW_SHARED);
	n = registry->nshown;
	memcpy(shown, registry->shown, sizeof(CrelayShown) * n);
	LWLockRelease(registry->lock);
	return n;
}

/*
 * Lets everybody know what they have.
 */
void
crelay_registry_publish_shown(const CrelayShown *shown, int n)
{
	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	registry->nshown = Min(n, max_replication_slots);
	memcpy(registry->shown, shown, sizeof(CrelayShown) * registry->nshown);
	LWLockRelease(registry->lock);
}

/*
 * Remembers which slots stand where, and since which redo pointer: given is
 * where they stand, and the redo pointer of now.  A slot that is new, or has
 * gone back, is fresh again.
 */
void
crelay_registry_publish_covers(const CrelayCover *slots, int n)
{
	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		for (int j = i; j < registry->ncovers; j++)
		{
			CrelayCover known = registry->covers[j];

			if (strcmp(known.slot_name, slots[i].slot_name) != 0)
				continue;
			/* those found so far are kept in the front */
			registry->covers[j] = registry->covers[i];
			registry->covers[i] = known;
			break;
		}
		if (i >= registry->ncovers ||
			strcmp(registry->covers[i].slot_name, slots[i].slot_name) != 0)
		{
			/* what stood here is looked for further on, or gone */
			if (i < registry->ncovers && registry->ncovers < max_replication_slots)
				registry->covers[registry->ncovers++] = registry->covers[i];
			registry->covers[i] = slots[i];
			registry->ncovers = Max(registry->ncovers, i + 1);
		}
		else if (slots[i].restart_lsn < registry->covers[i].restart_lsn)
			registry->covers[i] = slots[i];
		else
			registry->covers[i].restart_lsn = slots[i].restart_lsn;
	}
	registry->ncovers = n;
	LWLockRelease(registry->lock);
}

/*
 * Replaces what the worker remembers of the holds; there is room for all slots.
 * Not if a node was forgotten since it looked, which would bring it back.
 */
void
crelay_registry_publish_notes(const CrelayHoldNote *notes, int n, uint64 forgotten_seq)
{
	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	if (registry->forgotten_seq == forgotten_seq)
	{
		registry->nnotes = Min(n, max_replication_slots);
		memcpy(registry->notes, notes, sizeof(CrelayHoldNote) * registry->nnotes);
	}
	LWLockRelease(registry->lock);
}

/*
 * Whether a hold that is gone is still the worker's to place again: it is not
 * if its node was forgotten, or speaks for itself, under whatever name, or is on
 * another history.
 */
bool
crelay_registry_is_missed(const char *hold_name, TimestampTz now)
{
	const char *incarnation = hold_name + strlen(hold_name) - 8;
	bool		missed;

	LWLockAcquire(registry->lock, LW_SHARED);
	missed = find_note(hold_name) != NULL;
	for (int i = 0; i < registry->nchildren && missed; i++)
	{
		const CrelayChild *child = &registry->children[i];
		const char *other = child->hold_name;

		if (!child->in_use || strcmp(other + strlen(other) - 8, incarnation) != 0)
			continue;
		missed = !is_live(child, now) && !(child->diverged && strcmp(other, hold_name) == 0);
	}
	LWLockRelease(registry->lock);
	return missed;
}

/*
 * Remembers that the worker has placed a hold again.  False if its node was
 * forgotten meanwhile.
 */
bool
crelay_registry_note_replaced(const char *hold_name, uint64 held_lsn,
							  CrelayRefusal reason, TimestampTz now)
{
	CrelayHoldNote *note;
	int			child;

	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	note = find_note(hold_name);
	child = find_hold(hold_name);
	if (note != NULL)
		note->dropped_at = now;
	if (note != NULL && child >= 0)
	{
		registry->children[child].hold_dropped_at = now;
		registry->children[child].held_lsn = held_lsn;
		registry->children[child].hold_reason = reason;
	}
	LWLockRelease(registry->lock);
	return note != NULL;
}

/*
 * Publishes what the worker sees of the children's walsenders.
 */
void
crelay_registry_publish_children(const CrelayChildView *views, int n)
{
	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		CrelayChild *child = &registry->children[views[i].child_slot];

		if (!child->in_use || child->node.incarnation != views[i].incarnation)
			continue;
		if (child->node.state != views[i].state)
			registry->membership_seq++;
		child->node.state = views[i].state;
		child->node.replica_class = views[i].replica_class;
		child->node.replay_lag = views[i].replay_lag;
		if (child->session_pid != 0)
			continue;			/* it says so by itself */
		if (((child->node.warnings & CRELAY_WARN_HOLD_DROPPED) != 0) != views[i].hold_dropped)
			registry->membership_seq++;
		child->node.warnings &= ~CRELAY_WARN_HOLD_DROPPED;
		if (views[i].hold_dropped)
			child->node.warnings |= CRELAY_WARN_HOLD_DROPPED;
	}
	LWLockRelease(registry->lock);
}

/*
 * Replaces the nodes that do not speak for themselves: those without
 * cascade_relay, and managed ones that have not called yet.  Not if one was
 * forgotten since they were looked at, which would bring it back.
 */
void
crelay_registry_publish_unmanaged(const CrelayNode *nodes, int n, uint64 forgotten_seq)
{
	uint64		before;

	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	if (registry->forgotten_seq != forgotten_seq)
	{
		LWLockRelease(registry->lock);
		return;
	}
	before = rows_digest(&registry->unmanaged);
	free_rows(&registry->unmanaged);
	make_room(n, "", GetCurrentTimestamp());
	for (int i = 0; i < n; i++)
	{
		CrelayNode *to = add_row(&registry->unmanaged);

		if (to == NULL)
			break;
		*to = nodes[i];
	}
	if (rows_digest(&registry->unmanaged) != before)
		registry->membership_seq++;
	LWLockRelease(registry->lock);
}

/*
 * Replaces what the upstream says of the rest of the tree.  This node and its
 * children are known better here.
 */
void
crelay_registry_put_upstream_rows(CrelayCursor *rows, TimestampTz now,
								  const char *own_name, uint32 own_incarnation)
{
	CrelayNode	row;

	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	registry->above_seq++;
	free_rows(&registry->upstream);
	make_room((int) rows->rows, "", now);
	while (crelay_message_get_row(rows, &row, now))
	{
		CrelayNode *to;

		if (row.incarnation == own_incarnation && strcmp(row.name, own_name) == 0)
			continue;
		to = add_row(&registry->upstream);
		if (to == NULL)
			break;
		*to = row;
	}
	LWLockRelease(registry->lock);
}

/* ---- for cascade_release, cascade_forget and cascade_adopt ---- */

/*
 * How many reports the child with that hold has sent, 0 if there is none.
 */
static uint64
reports_of(const char *hold_name)
{
	int			child = find_hold(hold_name);

	return child >= 0 ? registry->children[child].reports : 0;
}

/*
 * Lets a downstream count no more until it has reached lsn.  False if the list
 * of released names is full.
 */
bool
crelay_registry_release(const char *key, uint64 lsn)
{
	int			i;
	bool		done;

	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	for (i = 0; i < registry->nreleased; i++)
	{
		if (strcmp(registry->released[i].key, key) == 0)
			break;
	}
	done = i < CRELAY_MAX_RELEASED;
	if (done)
	{
		strlcpy(registry->released[i].key, key, CRELAY_NAME_LEN);
		registry->released[i].lsn = lsn;
		registry->released[i].reports = reports_of(key);
		registry->released_seq++;
		if (i == registry->nreleased)
			registry->nreleased++;
	}
	LWLockRelease(registry->lock);
	if (done)
		crelay_registry_wake_worker();
	return done;
}

static void
remove_released(const char *key)
{
	for (int i = 0; i < registry->nreleased; i++)
	{
		if (strcmp(registry->released[i].key, key) == 0)
		{
			registry->released[i] = registry->released[--registry->nreleased];
			registry->released_seq++;
			registry->floor_seq++;
			break;
		}
	}
}

/*
 * A released downstream has caught up, and counts again.
 */
void
crelay_registry_unrelease(const char *key)
{
	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	remove_released(key);
	LWLockRelease(registry->lock);
}

/*
 * Whether somebody speaks for the node with that hold: its session, if it has
 * not been silent for so long that the worker calls it stale.
 */
static bool
is_spoken_for(const CrelayChild *child)
{
	return child->session_pid != 0 && child->node.state != CRELAY_STATE_STALE;
}

/*
 * Erases the child with that hold, and all that it has said of the nodes below
 * it.  Its session, should it have one, has to say hello again.  False if
 * somebody speaks for it.
 *
 * Nobody else can bring it back: what is below this node is in no reply to it,
 * and what the other children report is their own.
 */
bool
crelay_registry_forget(const char *hold_name)
{
	bool		forgotten = true;

	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	for (int i = 0; i < registry->nchildren; i++)
	{
		CrelayChild *child = &registry->children[i];

		if (!child->in_use || strcmp(child->hold_name, hold_name) != 0)
			continue;
		if (is_spoken_for(child))
		{
			forgotten = false;
			break;
		}
		free_rows(&child->rows);
		child->in_use = false;
		child->session_pid = 0;
		registry->floor_seq++;
		registry->membership_seq++;
	}
	if (forgotten)
	{
		/* whatever a worker that has looked before this is about to publish */
		registry->forgotten_seq++;
		remove_released(hold_name);
		remove_note(hold_name);
	}
	LWLockRelease(registry->lock);
	return forgotten;
}

/*
 * Whether it is still so, as a fence for dropping the hold: a node that has
 * said hello since will be told that it is held.  That the worker has seen the
 * hold meanwhile does not matter.
 */
bool
crelay_registry_is_forgotten(const char *hold_name)
{
	bool		forgotten = true;

	LWLockAcquire(registry->lock, LW_SHARED);
	for (int i = 0; i < registry->nchildren && forgotten; i++)
	{
		const CrelayChild *child = &registry->children[i];

		if (child->in_use && child->connected_at != 0 &&
			strcmp(child->hold_name, hold_name) == 0)
			forgotten = false;
	}
	LWLockRelease(registry->lock);
	return forgotten;
}

/*
 * Takes the nodes of that name out that do not speak for themselves, if they
 * are down; the worker, which remembers them, follows.
 */
void
crelay_registry_forget_unmanaged(const char *name)
{
	CrelayRowList kept = {-1, -1, 0};
	int			next;

	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	for (int row = registry->unmanaged.first; row >= 0; row = next)
	{
		Row		   *it = &registry->rows[row];

		next = it->next;
		if (it->node.state == CRELAY_STATE_DOWN && strcmp(it->node.name, name) == 0)
		{
			it->next = registry->first_free;
			registry->first_free = row;
			registry->nrows--;
			registry->forgotten_seq++;
			continue;
		}
		it->next = -1;
		if (kept.n++ == 0)
			kept.first = row;
		else
			registry->rows[kept.last].next = row;
		kept.last = row;
	}
	if (kept.n < registry->unmanaged.n)
		registry->membership_seq++;
	registry->unmanaged = kept;
	LWLockRelease(registry->lock);
}

/*
 * A slot is for somebody else from now on, or for the same node when it comes
 * back: who streamed through it before and is not connected says nothing about
 * it any more.
 */
void
crelay_registry_forget_slot(const char *slot_name)
{
	LWLockAcquire(registry->lock, LW_EXCLUSIVE);
	for (int i = 0; i < registry->nchildren; i++)
	{
		CrelayChild *child = &registry->children[i];

		if (child->in_use && child->session_pid == 0 &&
			strcmp(child->slot_name, slot_name) == 0)
			child->slot_name[0] = '\0';
	}
	LWLockRelease(registry->lock);
}
