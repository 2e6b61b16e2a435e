/*-------------------------------------------------------------------------
 *
 * repoint.h
 *	  The two settings that say where this server streams from.
 *
 * Owns: primary_conninfo and primary_slot_name in postgresql.auto.conf -
 * whether they may be changed here and now, what they were, setting them and
 * putting them back, and making the server read them; and that a password in
 * one of them does not get into the server's log on the way.
 *
 * Not here: what to set them to, and when (follow.c).
 *
 * Locking: AutoFileLock, taken by the server's own ALTER SYSTEM.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_REPOINT_H
#define CRELAY_REPOINT_H

#include "postgres.h"

#include "utils/elog.h"

/* What postgresql.auto.conf says about one of them. */
typedef struct CrelaySavedSetting
{
	bool		present;
	char	   *value;
} CrelaySavedSetting;

/* Both, as the file has them. */
typedef struct CrelayRepointFile
{
	CrelaySavedSetting conninfo;
	CrelaySavedSetting slot_name;
} CrelayRepointFile;

/* Both, in memory that lives until it is freed. */
typedef struct CrelayRepoint
{
	CrelayRepointFile before;	/* as they were */
	CrelayRepointFile ours;		/* as they were set */
	bool		changed;		/* they may not be what they were any more */
} CrelayRepoint;

extern void crelay_repoint_check_rights(void);
extern void crelay_repoint_check_effect(void);
extern void crelay_repoint_check_manager(void);

extern void crelay_repoint_save(CrelayRepoint *saved);
extern bool crelay_repoint_changes(const CrelayRepoint *saved,
								   const char *conninfo, const char *slot_name);
extern void crelay_repoint_set(CrelayRepoint *saved, const char *conninfo,
							   const char *slot_name);
extern void crelay_repoint_restore(CrelayRepoint *saved);
extern void crelay_repoint_forget(CrelayRepoint *saved);

extern void crelay_repoint_redact(ErrorData *edata);

#endif							/* CRELAY_REPOINT_H */
