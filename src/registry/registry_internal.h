/*-------------------------------------------------------------------------
 *
 * registry_internal.h
 *	  What the files of the registry say to each other.
 *
 * For registry*.c only; everyone else includes registry.h.
 *
 *	registry.c			the segment, reading it, what the worker publishes
 *	registry_children.c	the managed direct downstreams
 *	registry_rows.c		lists of rows, which share one pool
 *	registry_slots.c	what is known slot by slot
 *	registry_forget.c	letting go
 *
 * Locking: nothing declared here takes the lock.  The caller holds it,
 * exclusively for whatever changes something.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_REGISTRY_INTERNAL_H
#define CRELAY_REGISTRY_INTERNAL_H

#include "postgres.h"

#include "storage/lwlock.h"
#include "storage/proc.h"

#include "registry/registry.h"

/* One node that is neither this one nor a direct managed child. */
typedef struct CrelayRow
{
	CrelayNode	node;
	int			next;			/* in its list, or in the free list; -1 last */
	bool		contested;		/* said of a node that is live elsewhere; see
								 * branch.h */
} CrelayRow;

typedef struct CrelayRegistry
{
	LWLock	   *lock;			/* guards everything below */
	PGPROC	   *worker_proc;	/* whose latch wakes the worker, or NULL */
	uint64		floor_seq;		/* moves when a need was added or lowered */
	uint64		membership_seq;
	uint64		below_seq;		/* moves with each tree part from below */
	uint64		above_seq;		/* and with each from the upstream */
	CrelayLocal local;
	CrelayRefused refused[CRELAY_MAX_REFUSED];	/* the latest, by incarnation */
	uint64		released_seq;
	uint64		forgotten_seq;
	int			max_nodes;
	int			nchildren;		/* slots used so far, holes included */
	int			nconnected;		/* children, as the worker has last seen */
	int			nrows;
	int			first_free;
	CrelayRowList unmanaged;
	CrelayRowList upstream;
	CrelayRow  *rows;			/* [max_nodes] */
	int			nreleased;
	CrelayReleased *released;	/* [crelay_max_released()] */
	int			ncovers;
	CrelayCover *covers;		/* [max_replication_slots] */
	int			nusers;
	CrelaySlotUser *users;		/* [max_replication_slots] */
	int			ntold;
	CrelayTold *told;			/* [max_replication_slots] */
	int			nneeds;
	CrelaySlotNeed *needs;		/* [max_replication_slots] */
	int			nnotes;
	CrelayHoldNote *notes;		/* [max_replication_slots] */
	CrelayChild children[FLEXIBLE_ARRAY_MEMBER];	/* [max_nodes] */
} CrelayRegistry;

extern CrelayRegistry *crelay_shared;

/* registry.c */
extern int	crelay_registry_find_hold(const char *hold_name);

/* registry_children.c */
extern bool crelay_child_is_live(const CrelayChild *child, TimestampTz now);
extern void crelay_child_remove(CrelayChild *child);
extern void crelay_child_end_session(CrelayChild *child);

/* registry_forget.c */
extern int	crelay_max_released(void);
extern uint64 crelay_released_lsn(const char *key);

/* registry_rows.c */
extern CrelayRow *crelay_rows_add(CrelayRowList *list);
extern void crelay_rows_free(CrelayRowList *list);
extern void crelay_rows_make_room(int wanted, const char *owner, TimestampTz now);
extern void crelay_rows_note_full(int most, const char *by, TimestampTz now);
extern uint64 crelay_rows_digest(const CrelayRowList *list);
extern bool crelay_row_is_live(const CrelayNode *node);

/* registry_slots.c */
extern bool crelay_told_raise(uint32 incarnation, uint32 moves);
extern CrelayHoldNote *crelay_registry_find_note(const char *hold_name);
extern void crelay_registry_remove_note(const char *hold_name);

#endif							/* CRELAY_REGISTRY_INTERNAL_H */
