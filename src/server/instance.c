/*-------------------------------------------------------------------------
 *
 * instance.c
 *	  Who this instance is, and whether it stops.
 *
 * Owns, leaves out and locks: see instance.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/pidfile.h"

#include "decide/message.h"
#include "server/guc.h"
#include "server/instance.h"
#include "server/state_file.h"

/* What is in the state file, for the render function. */
static CrelayIdentity saved;

/*
 * Reads the section of the state file: a line "NAME INCARNATION" for each life,
 * the present one first.
 */
static void
parse_lives(char *lines, CrelayIdentity *identity)
{
	char	   *line;
	int			n = 0;

	StaticAssertStmt(CRELAY_NODE_NAME_MAX == 40, "the width below is that of the buffer");
	memset(identity, 0, sizeof(CrelayIdentity));
	while ((line = crelay_state_next(&lines)) != NULL && n <= CRELAY_FORMER_LIVES)
	{
		CrelayLife *life = n == 0 ? &identity->now : &identity->former[n - 1];

		if (sscanf(line, "%40s %8x", life->name, &life->incarnation) != 2 ||
			life->incarnation == 0 || !crelay_node_name_is_valid(life->name))
			memset(life, 0, sizeof(CrelayLife));
		else
			n++;
	}
	identity->nformer = Max(n - 1, 0);
}

static void
render_life(StringInfo lines, const CrelayLife *life)
{
	appendStringInfo(lines, "%s %08x\n", life->name, life->incarnation);
}

static void
render_lives(StringInfo lines)
{
	render_life(lines, &saved.now);
	for (int i = 0; i < saved.nformer; i++)
		render_life(lines, &saved.former[i]);
}

/*
 * Makes the name in the state file the one that this node goes by while
 * cascade_relay.node_name is not set.  For a starting server, or a session of
 * one that does not preload the library.
 */
void
crelay_instance_keep_name(void)
{
	CrelayIdentity kept;

	parse_lives(crelay_state_peek(CRELAY_SECTION_NODE), &kept);
	crelay_guc_keep_node_name(kept.now.name);
}

static uint32
new_incarnation(void)
{
	uint32		incarnation = 0;

	while (incarnation == 0)
	{
		if (!pg_strong_random(&incarnation, sizeof(incarnation)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
	}
	return incarnation;
}

/*
 * Begins another life under a name.  The one before, if any, is remembered; the
 * oldest is dropped where there is no room.
 */
static void
begin_life(CrelayIdentity *identity, const char *name, uint32 incarnation)
{
	if (identity->now.incarnation != 0)
	{
		memmove(&identity->former[1], &identity->former[0],
				sizeof(CrelayLife) * (CRELAY_FORMER_LIVES - 1));
		identity->former[0] = identity->now;
		identity->nformer = Min(identity->nformer + 1, CRELAY_FORMER_LIVES);
	}
	strlcpy(identity->now.name, name, sizeof(identity->now.name));
	identity->now.incarnation = incarnation;
}

/*
 * Tells who this instance is.  An identity that is new is on disk before this
 * returns, and so before anybody hears of it; an error is raised if it cannot be
 * written.  known: the incarnation that this server has had since its start, 0
 * if none; it is kept although the state file may have got lost meanwhile.
 */
void
crelay_instance_identity(CrelayIdentity *identity, uint32 known)
{
	CrelaySettings settings;

	crelay_guc_copy(&settings);
	crelay_state_own();
	parse_lives(crelay_state_read(CRELAY_SECTION_NODE), &saved);
	if (saved.now.incarnation == 0 || strcmp(saved.now.name, settings.node_name) != 0)
	{
		CrelayLife	before = saved.now;

		begin_life(&saved, settings.node_name, known != 0 ? known : new_incarnation());
		crelay_state_write(CRELAY_SECTION_NODE, render_lives);
		ereport(LOG,
				(errmsg("cascade_relay: this node is \"%s\", incarnation %08x",
						saved.now.name, saved.now.incarnation),
				 before.incarnation == 0 ? 0 :
				 errdetail("It was \"%s\", incarnation %08x. What is held for that stays, until it is released with %s.",
						   before.name, before.incarnation, "cascade_forget()")));
	}
	*identity = saved;
}

/*
 * Whether the postmaster has been told to stop.  A smart shutdown waits for
 * the sessions of other nodes' workers, and tells its own workers only when
 * they are gone; the status line of its pid file is the only place that says
 * so before.
 */
bool
crelay_instance_is_stopping(void)
{
	FILE	   *file = AllocateFile("postmaster.pid", "r");
	char		line[MAXPGPATH];
	bool		stopping = false;

	if (file == NULL)
		return false;
	for (int i = 1; fgets(line, sizeof(line), file) != NULL; i++)
	{
		if (i == LOCK_FILE_LINE_PM_STATUS)
			stopping = strncmp(line, PM_STATUS_STOPPING,
							   strlen("stopping")) == 0;
	}
	FreeFile(file);
	return stopping;
}

/*
 * The slots that the server will restore, up to max of them.  A folder that
 * cannot be read is the server's to complain about.
 */
int
crelay_instance_saved_slots(char (*names)[NAMEDATALEN], int max)
{
	DIR		   *dir = AllocateDir("pg_replslot");
	struct dirent *entry;
	int			n = 0;

	if (dir == NULL)
		return 0;
	while (n < max && (entry = ReadDirExtended(dir, "pg_replslot", LOG)) != NULL)
	{
		size_t		len = strlen(entry->d_name);

		/* what is being created or dropped has a dot in it, like our files */
		if (len < NAMEDATALEN &&
			strspn(entry->d_name, "abcdefghijklmnopqrstuvwxyz0123456789_") == len)
			strlcpy(names[n++], entry->d_name, NAMEDATALEN);
	}
	FreeDir(dir);
	return n;
}
