/*-------------------------------------------------------------------------
 *
 * state_file.h
 *	  Small files of our own in pg_replslot.
 *
 * Owns: how one is written, and that one is written later that could not be at
 * once.  They lie beside the slots, so they live and die with them: base backups
 * and pg_rewind leave both behind.
 *
 * Not here: what is in them, and reading it: that is with whoever needs it.
 *
 * Locking: none; each file has one writer.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_STATE_FILE_H
#define CRELAY_STATE_FILE_H

#include "postgres.h"

#include "datatype/timestamp.h"

/*
 * A file that follows something that changes.  Static, for a disk that is full
 * is full for longer than a pass; beside the path all of it begins as zero.
 */
typedef struct CrelayStateFile
{
	const char *path;
	char	   *due;			/* what could not be written yet; or NULL */
	TimestampTz tried_at;		/* when that failed last */
	struct CrelayStateFile *next;	/* of those that have something due */
} CrelayStateFile;

extern bool crelay_state_file_write(const char *path, const char *text, int elevel);
extern bool crelay_state_file_keep(CrelayStateFile *file, const char *text);
extern void crelay_state_files_retry(TimestampTz now);

#endif							/* CRELAY_STATE_FILE_H */
