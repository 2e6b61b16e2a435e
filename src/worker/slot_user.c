/*-------------------------------------------------------------------------
 *
 * slot_user.c
 *	  Which managed node streamed through which slot, over restarts.
 *
 * Owns, leaves out and locks: see slot_user.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "replication/slot.h"
#include "utils/memutils.h"

#include "decide/message.h"
#include "registry/registry.h"
#include "server/state_file.h"
#include "worker/slot_user.h"

/* As they are in the file, or are to be. */
static CrelaySlotUser *users;
static int	n_users;

/* ---- the state file: a line for each slot, with the node and its incarnation ---- */

/*
 * A line that cannot be understood is left out: the slot has no known user then,
 * and counts.
 */
static void
read_users(void)
{
	char	   *lines = crelay_state_read(CRELAY_SECTION_USER);
	char	   *line;

	StaticAssertStmt(CRELAY_SLOT_LEN == 64 && CRELAY_NODE_NAME_MAX == 40,
					 "the widths below are those of the buffers");
	n_users = 0;
	while (n_users < max_replication_slots && (line = crelay_state_next(&lines)) != NULL)
	{
		CrelaySlotUser *user = &users[n_users];

		memset(user, 0, sizeof(CrelaySlotUser));
		if (sscanf(line, "%63s %40s %8x", user->slot_name, user->node_name,
				   &user->incarnation) == 3 &&
			user->incarnation != 0 && crelay_node_name_is_valid(user->node_name))
			n_users++;
	}
}

static void
render_users(StringInfo lines)
{
	CrelaySlotUser *known = palloc_array(CrelaySlotUser, max_replication_slots + 1);
	int			n_known = crelay_registry_get_users(known);

	for (int i = 0; i < n_known; i++)
	{
		/* of a slot that was taken over nothing is known after a restart */
		if (known[i].incarnation != 0)
			appendStringInfo(lines, "%s %s %08x\n", known[i].slot_name,
							 known[i].node_name, known[i].incarnation);
	}
	pfree(known);
}

/*
 * Writes down who streamed through which slot, for a command that depends on it.
 * Raises an error if that cannot be done.
 */
void
crelay_slot_users_save(void)
{
	crelay_state_write(CRELAY_SECTION_USER, render_users);
}

/*
 * Likewise, for a command that has failed already; what cannot be written now is
 * written by the worker.
 */
void
crelay_slot_users_try_save(void)
{
	(void) crelay_state_try(CRELAY_SECTION_USER, render_users);
}

/*
 * The worker's start.  After one of the server the registry has no users yet,
 * and gets those of the state file.
 */
void
crelay_slot_users_start(MemoryContext context, bool new_server)
{
	CrelaySnapshot snapshot;

	users = MemoryContextAllocZero(context,
								   sizeof(CrelaySlotUser) * Max(max_replication_slots, 1));
	read_users();
	do
		crelay_registry_snapshot(&snapshot, false);
	while (new_server &&
		   !crelay_registry_publish_users(users, n_users, snapshot.forgotten_seq));
}

/* ---- what is seen ---- */

static const CrelaySlotUser *
find_user(const CrelaySlotUser *known, int n_known, const char *slot_name)
{
	for (int i = 0; i < n_known; i++)
	{
		if (strcmp(known[i].slot_name, slot_name) == 0)
			return &known[i];
	}
	return NULL;
}

/*
 * Whether a slot counts although its child was released: the node streams on
 * without a word.
 */
static bool
is_on_its_own(const CrelaySnapshot *snapshot, const CrelayDownstream *downstreams,
			  const CrelayDownstream *d)
{
	return d->counted && d->counts_by >= 0 &&
		downstreams[d->counts_by].released_lsn != 0 &&
		snapshot->children[d->child].session_pid == 0;
}

/*
 * Whose a slot is: of the managed child that streams through it; while nobody
 * does, of whom it was before; and not of that node any more as soon as
 * somebody else does, or that one goes on without a word after it was released,
 * even when it has left again.
 */
static bool
user_of(const CrelaySnapshot *snapshot, const CrelayDownstream *downstreams,
		const CrelayDownstream *d, const CrelaySlotUser *known, CrelaySlotUser *user)
{
	bool		likely = d->managed && d->incarnation == 0;

	if (d->kind != CRELAY_KIND_SLOT || d->logical || d->temporary)
		return false;
	/* what is only likely to be a child's says nothing new of that child */
	if (d->pid == 0 ||
		(likely && (known == NULL ||
					known->incarnation == snapshot->children[d->child].node.incarnation)))
	{
		if (known != NULL)
			*user = *known;
		return known != NULL;
	}
	if (!d->managed && known == NULL)
		return false;
	memset(user, 0, sizeof(CrelaySlotUser));
	strlcpy(user->slot_name, d->slot_name, sizeof(user->slot_name));
	if (d->managed && !likely && !is_on_its_own(snapshot, downstreams, d))
	{
		strlcpy(user->node_name, d->name, sizeof(user->node_name));
		user->incarnation = d->incarnation;
	}
	return true;
}

static bool
same_users(const CrelaySlotUser *a, int na, const CrelaySlotUser *b, int nb)
{
	return na == nb && memcmp(a, b, sizeof(CrelaySlotUser) * na) == 0;
}

/*
 * One pass.  What is known is what the registry has, for cascade_adopt may have
 * taken something out.  The file is written when something has changed, which is
 * when nodes come, move or go.
 */
void
crelay_slot_users_run(const CrelaySnapshot *snapshot,
					  const CrelayDownstream *downstreams, int n)
{
	CrelaySlotUser *known = palloc_array(CrelaySlotUser, max_replication_slots + 1);
	CrelaySlotUser *seen = palloc0_array(CrelaySlotUser, n + 1);
	int			n_known = crelay_registry_get_users(known);
	int			n_seen = 0;

	for (int i = 0; i < n && n_seen < max_replication_slots; i++)
	{
		const CrelayDownstream *d = &downstreams[i];

		if (user_of(snapshot, downstreams, d, find_user(known, n_known, d->slot_name),
					&seen[n_seen]))
			n_seen++;
	}
	if (same_users(seen, n_seen, known, n_known) && same_users(seen, n_seen, users, n_users))
		return;
	if (!crelay_registry_publish_users(seen, n_seen, snapshot->forgotten_seq))
		return;
	memcpy(users, seen, sizeof(CrelaySlotUser) * n_seen);
	n_users = n_seen;
	(void) crelay_state_keep(CRELAY_SECTION_USER, render_users);
}
