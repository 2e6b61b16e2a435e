/*-------------------------------------------------------------------------
 *
 * instance.c
 *	  What this instance keeps in files: who it is, and whether it stops.
 *
 * Owns, leaves out and locks: see instance.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/pidfile.h"

#include "instance.h"
#include "state_file.h"

#define INCARNATION_FILE	"pg_replslot/cascade_relay.incarnation"

/*
 * Reads the incarnation, 0 if there is no valid one yet.
 */
static uint32
read_incarnation(void)
{
	FILE	   *file = AllocateFile(INCARNATION_FILE, "r");
	uint32		incarnation = 0;

	if (file == NULL)
	{
		if (errno != ENOENT)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not open file \"%s\": %m", INCARNATION_FILE)));
		return 0;
	}
	if (fscanf(file, "%8x", &incarnation) != 1)
		incarnation = 0;
	FreeFile(file);
	return incarnation;
}

/*
 * Makes a new incarnation.  It is on disk before anybody hears of it.
 */
static uint32
create_incarnation(void)
{
	uint32		incarnation = 0;
	char		content[16];

	while (incarnation == 0)
	{
		if (!pg_strong_random(&incarnation, sizeof(incarnation)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
	}
	snprintf(content, sizeof(content), "%08x\n", incarnation);
	(void) crelay_state_file_write(INCARNATION_FILE, content, ERROR);
	return incarnation;
}

/*
 * The incarnation of this instance, made if there is none yet.
 */
uint32
crelay_instance_incarnation(void)
{
	uint32		incarnation = read_incarnation();

	if (incarnation == 0)
	{
		incarnation = create_incarnation();
		ereport(LOG,
				(errmsg("cascade_relay: this node begins as incarnation %08x",
						incarnation)));
	}
	return incarnation;
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
