/*-------------------------------------------------------------------------
 *
 * state_file.c
 *	  Small files of our own in pg_replslot.
 *
 * Owns, leaves out and locks: see state_file.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "state_file.h"

/* How often at most a file is tried again. */
#define RETRY_US		INT64CONST(2000000)

/* Those that have something due. */
static CrelayStateFile *due_files;

/*
 * Writes a file so that it is either whole on disk or the one before.  What keeps
 * it from being written is reported with that level; false if it was not.
 */
bool
crelay_state_file_write(const char *path, const char *text, int elevel)
{
	char		tmp[MAXPGPATH];
	size_t		len = strlen(text);
	int			fd;
	bool		written = false;

	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	fd = OpenTransientFile(tmp, O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);
	if (fd >= 0)
	{
		errno = 0;
		written = write(fd, text, len) == (ssize_t) len;
		/* if it does not say why, there is no room */
		if (!written && errno == 0)
			errno = ENOSPC;
	}
	if (!written)
		ereport(elevel,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", tmp)));
	if (fd >= 0)
		CloseTransientFile(fd);
	/* it is synced on the way */
	return written && durable_rename(tmp, path, elevel) == 0;
}

/*
 * The file is to have that content from now on.  If it cannot be written, that is
 * said once, and it is tried again in later passes, until it goes well or there is
 * something newer; false then.
 */
bool
crelay_state_file_keep(CrelayStateFile *file, const char *text)
{
	bool		again = file->due != NULL;
	char	   *due;

	if (crelay_state_file_write(file->path, text, again ? DEBUG1 : LOG))
	{
		/* it leaves the list with the next look at that */
		if (again)
			pfree(file->due);
		file->due = NULL;
		return true;
	}
	due = MemoryContextStrdup(TopMemoryContext, text);
	if (again)
		pfree(file->due);
	file->due = due;
	file->tried_at = GetCurrentTimestamp();
	for (CrelayStateFile *f = due_files; f != NULL; f = f->next)
	{
		if (f == file)
			return false;
	}
	file->next = due_files;
	due_files = file;
	return false;
}

/*
 * One pass of the worker, which writes them all.
 */
void
crelay_state_files_retry(TimestampTz now)
{
	CrelayStateFile **link = &due_files;

	while (*link != NULL)
	{
		CrelayStateFile *file = *link;

		if (file->due != NULL && (now < file->tried_at || now - file->tried_at >= RETRY_US))
		{
			file->tried_at = now;
			if (crelay_state_file_write(file->path, file->due, DEBUG1))
			{
				pfree(file->due);
				file->due = NULL;
			}
		}
		if (file->due == NULL)
			*link = file->next;
		else
			link = &file->next;
	}
}
