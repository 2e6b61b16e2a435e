/*-------------------------------------------------------------------------
 *
 * state_file.h
 *	  The state file: all that this node remembers over a restart.
 *
 * Owns: the file pg_replslot/cascade_relay.state, its format, its one reader
 * and its one writer.  The file lies beside the slots and shares their life: a
 * base backup does not carry it, pg_rewind deletes it.
 *
 * The file is text.  The first line names the version, the last one has a
 * CRC-32C of all lines before it.  Each other line begins with the keyword of
 * its section; the lines of one section have one owner, which writes and reads
 * them:
 *
 *	node		instance.c		name and incarnation; then those of former lives
 *	moves		moves.c			this node's own move counter
 *	told		told.c			the highest counter that each child has told
 *	hold		lost_holds.c		holds of children, to notice one that is dropped
 *	slot		lost_slots.c		what ordinary slots keep, or kept before they were lost
 *	user		slot_user.c		the managed node that streamed through a slot
 *	released	release.c		downstreams that do not count
 *	address		addresses.c		addresses of other nodes
 *	primary		addresses.c		the primary on the newest timeline that was known
 *	awaited		awaited.c		nodes that a new primary waits for
 *
 * A section is replaced as a whole: the writer reads the file, takes the lines
 * of the other sections over, and renames a synced copy into place.  So a crash
 * leaves the old file or the new one.
 *
 * What cannot be written is reported once.  The worker keeps such a section in
 * memory and tries again; a command fails.  A file that cannot be read is an
 * error, and the caller tries again later.  A damaged file (wrong CRC) is set
 * aside as cascade_relay.state.damaged, reported, and taken for a missing one, by
 * the worker alone: what the node has in shared memory is written anew then.
 *
 * Not here: the meaning of a line, see its owner.
 *
 * Locking: the state lock, CRELAY_LOCK_STATE, from before the file is read
 * until the new one is in place.  The caller's render function runs under it
 * and may take the registry lock.  Where the library is not preloaded there is
 * no such lock; sessions there serialise by an advisory lock.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_STATE_FILE_H
#define CRELAY_STATE_FILE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "storage/lwlock.h"

#define CRELAY_STATE_FILE		"pg_replslot/cascade_relay.state"

typedef enum CrelaySection
{
	CRELAY_SECTION_NODE,
	CRELAY_SECTION_MOVES,
	CRELAY_SECTION_TOLD,
	CRELAY_SECTION_HOLD,
	CRELAY_SECTION_SLOT,
	CRELAY_SECTION_USER,
	CRELAY_SECTION_RELEASED,
	CRELAY_SECTION_ADDRESS,
	CRELAY_SECTION_PRIMARY,
	CRELAY_SECTION_AWAITED
} CrelaySection;

#define CRELAY_SECTIONS			(CRELAY_SECTION_AWAITED + 1)

/*
 * Appends the lines of a section, each with its newline and without the
 * keyword.
 */
typedef void (*CrelayRender) (StringInfo lines);

extern void crelay_state_use_lock(LWLock *lock);
extern void crelay_state_own(void);

extern char *crelay_state_read(CrelaySection section);
extern char *crelay_state_peek(CrelaySection section);
extern char *crelay_state_next(char **lines);

extern void crelay_state_write(CrelaySection section, CrelayRender render);
extern bool crelay_state_try(CrelaySection section, CrelayRender render);
extern bool crelay_state_keep(CrelaySection section, CrelayRender render);
extern void crelay_state_retry(TimestampTz now);

#endif							/* CRELAY_STATE_FILE_H */
