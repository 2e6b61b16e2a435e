/*-------------------------------------------------------------------------
 *
 * registry_rows.c
 *	  Lists of rows in the registry, which share one pool.
 *
 * Owns: the free list, and who gets how much of a pool that is too small.
 *
 * Not here: what is believed of what a row says (registry_children.c).
 *
 * Locking: the caller holds the registry's lock exclusively, for the digest at
 * least shared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "registry/registry_internal.h"

void
crelay_rows_free(CrelayRowList *list)
{
	if (list->n == 0)
		return;
	crelay_shared->rows[list->last].next = crelay_shared->first_free;
	crelay_shared->first_free = list->first;
	crelay_shared->nrows -= list->n;
	list->first = -1;
	list->n = 0;
}

/*
 * Takes rows away from the end of a list, where the deepest are.  Who they were
 * is forgotten, but not that there were some.
 */
static void
cut_rows(CrelayRowList *list, int n)
{
	CrelayRowList tail;
	int			keep = list->n - n;

	list->cut = true;
	if (keep <= 0)
	{
		crelay_rows_free(list);
		return;
	}
	tail = *list;
	tail.n = n;
	for (int i = 0; i < keep; i++)
	{
		list->last = tail.first;
		tail.first = crelay_shared->rows[tail.first].next;
	}
	crelay_shared->rows[list->last].next = -1;
	list->n = keep;
	crelay_rows_free(&tail);
}

/*
 * A new row at the end of a list, or NULL if there is no free one.  Its node is
 * the caller's to fill in.
 */
CrelayRow *
crelay_rows_add(CrelayRowList *list)
{
	int			row = crelay_shared->first_free;

	if (row < 0)
		return NULL;
	crelay_shared->first_free = crelay_shared->rows[row].next;
	crelay_shared->rows[row].next = -1;
	crelay_shared->rows[row].contested = false;
	if (list->n == 0)
		list->first = row;
	else
		crelay_shared->rows[list->last].next = row;
	list->last = row;
	list->n++;
	crelay_shared->nrows++;
	return &crelay_shared->rows[row];
}

/*
 * Remembers that there was no room, and who had the most, for the worker to
 * say.
 */
void
crelay_rows_note_full(int most, const char *by, TimestampTz now)
{
	CrelayFull *full = &crelay_shared->local.full;

	full->at = now;
	full->rows = most;
	strlcpy(full->by, by, sizeof(full->by));
	full->role[0] = '\0';
}

/*
 * The longest list of rows, and whose it is: empty for what this node has seen
 * by itself or heard from above.
 */
static CrelayRowList *
longest_list(const char **owner)
{
	CrelayRowList *longest = &crelay_shared->unmanaged;

	*owner = "";
	if (crelay_shared->upstream.n > longest->n)
		longest = &crelay_shared->upstream;
	for (int i = 0; i < crelay_shared->nchildren; i++)
	{
		CrelayChild *child = &crelay_shared->children[i];

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
void
crelay_rows_make_room(int wanted, const char *owner, TimestampTz now)
{
	for (;;)
	{
		int			free = crelay_shared->max_nodes - crelay_shared->nrows;
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
				crelay_rows_note_full(wanted, owner, now);
			else
				crelay_rows_note_full(longest->n, longest_owner, now);
			return;
		}
		crelay_rows_note_full(longest->n, longest_owner, now);
		cut_rows(longest, n);
	}
}

/*
 * A digest of who is in a list, in what state, and whether that is drawn: when
 * it changes, the tree has changed.
 */
uint64
crelay_rows_digest(const CrelayRowList *list)
{
	uint64		digest = 0;

	for (int row = list->first; row >= 0; row = crelay_shared->rows[row].next)
	{
		const CrelayNode *node = &crelay_shared->rows[row].node;

		/* a sum, because the order does not matter */
		digest += hash_bytes_extended((const unsigned char *) node->name,
									  (int) strlen(node->name),
									  ((uint64) node->incarnation << 8) | node->state |
									  (crelay_shared->rows[row].contested ? 0x80 : 0));
		digest += hash_bytes_extended((const unsigned char *) node->upstream_name,
									  (int) strlen(node->upstream_name),
									  node->upstream_incarnation);
	}
	return digest;
}

/*
 * Whether a row says that its node lives, as a standby.
 */
bool
crelay_row_is_live(const CrelayNode *node)
{
	return node->state == CRELAY_STATE_STREAMING ||
		node->state == CRELAY_STATE_CATCHUP ||
		node->state == CRELAY_STATE_ARCHIVE ||
		node->state == CRELAY_STATE_DISCONNECTED;
}
