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

#include "state_file.h"

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
