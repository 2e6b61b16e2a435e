/*-------------------------------------------------------------------------
 *
 * state_file.h
 *	  Small files of our own in pg_replslot.
 *
 * Owns: how one is written.  They lie beside the slots, so they live and die with
 * them: base backups and pg_rewind leave both behind.
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

extern bool crelay_state_file_write(const char *path, const char *text, int elevel);

#endif							/* CRELAY_STATE_FILE_H */
