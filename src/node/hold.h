/*-------------------------------------------------------------------------
 *
 * hold.h
 *	  Creating, moving, verifying, saving and dropping hold slots.
 *
 * Owns: every change that this extension makes to a replication slot.  It drops
 * only slots with its own prefixes, and moves no other unless somebody names it
 * in a call of cascade_adopt.
 *
 * Two kinds of slots are ours.  CRELAY_HOLD_PREFIX begins a hold: nothing ever
 * streams through it, and it never has an xmin.  CRELAY_ADOPTED_PREFIX begins
 * the slot that cascade_adopt makes for a node to stream through, unless it is
 * told another name: an ordinary streaming slot otherwise, counted like any
 * other, but known to be ours, so that it may be dropped when its node has left
 * it.  No name is both.
 *
 * Not here: where a hold should stand (frontier.c) and when (report_funcs.c,
 * worker.c).  A hold is moved back, and a streaming slot placed below the redo
 * pointer, only under cover of another slot.
 *
 * Locking: that of slot.c.  A slot is acquired for the length of one call and
 * released on every way out, errors included.  One lock of its own makes the
 * creation of holds wait for one another, with the drop of what they replace,
 * over slot.c's locks and I/O; where the library is not preloaded, an advisory
 * one.  The registry's lock is never
 * held around a call.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_HOLD_H
#define CRELAY_HOLD_H

#include "postgres.h"

#include "decide/message.h"
#include "node/downstream.h"

/*
 * Asked once the slot is acquired, before anything is changed: does the caller
 * still speak for it?  Without it a session that was ousted while it waited
 * could move the hold of its successor.
 */
typedef bool (*CrelayHoldFence) (void *arg);

typedef struct CrelayHoldRequest
{
	const char *slot_name;
	uint64		target;			/* wanted restart_lsn */
	bool		create;			/* place it if it is not there */
	const char *cover;			/* a slot under which it may go back, or NULL */
	uint64		cover_lsn;		/* from where on it is one */
	bool		again;			/* it was there: what the cover has of it will
								 * do, if that is not all */
	bool		impossible;		/* the server would give it up at once */
	bool		unloaded;		/* this server does not preload the library */
	bool		quiet;			/* an error is not logged by
								 * crelay_hold_try(): it was, when it came
								 * first */
	CrelayHoldFence fence;		/* NULL: none */
	void	   *fence_arg;
} CrelayHoldRequest;

typedef struct CrelayHoldResult
{
	uint64		held_lsn;		/* seen to be held; 0 nothing */
	CrelayRefusal reason;		/* why nothing, or less */
	bool		created;
	bool		replaced;		/* the server had invalidated it */
	bool		ousted;			/* the fence said no: nothing was changed */
} CrelayHoldResult;

/*
 * What is asked of a slot for a node to stream through.
 */
typedef struct CrelayAdoptRequest
{
	const char *slot_name;
	uint64		need;			/* WAL is kept from its segment on, or earlier */
	bool		strict;			/* also if the node streams through it now */
	int32		user_pid;		/* the walsender of that node, 0 none */
	int			ncovers;		/* slots under which it may be placed below */
	const CrelayCover *covers;	/* the redo pointer, the best first */
} CrelayAdoptRequest;

typedef enum CrelayAdoptVerdict
{
	CRELAY_ADOPT_OK = 0,
	CRELAY_ADOPT_NOT_PHYSICAL,	/* a slot of that name is something else */
	CRELAY_ADOPT_INVALIDATED,
	CRELAY_ADOPT_ACTIVE,		/* somebody else has it */
	CRELAY_ADOPT_NO_FREE_SLOT,
	CRELAY_ADOPT_WAL_LEVEL,		/* too low for slots */
	CRELAY_ADOPT_NOT_COVERED,	/* the WAL is there, but cannot be kept */
	CRELAY_ADOPT_NO_WAL
} CrelayAdoptVerdict;

typedef struct CrelayAdoptResult
{
	CrelayAdoptVerdict verdict;
	uint64		restart_lsn;	/* of the slot, or where it would stand */
	int32		pid;			/* who has it */
	bool		created;
	bool		moved;			/* it was there, and reserves more now */
} CrelayAdoptResult;

extern void crelay_hold_apply(const CrelayHoldRequest *request,
							  const CrelayPosition *position,
							  CrelayHoldResult *result);
extern bool crelay_hold_try(const CrelayHoldRequest *request,
							const CrelayPosition *position,
							CrelayHoldResult *result);
extern void crelay_hold_adopt(const CrelayAdoptRequest *request,
							  const CrelayPosition *position,
							  CrelayAdoptResult *result);
extern void crelay_hold_log(const char *slot_name,
							const CrelayHoldResult *result, bool had_hold);
extern bool crelay_hold_is_there(const char *slot_name);
extern bool crelay_hold_drop(const char *slot_name);
extern bool crelay_hold_drop_if(const char *slot_name, CrelayHoldFence fence,
								void *fence_arg);
extern bool crelay_hold_drop_try(const char *slot_name, CrelayHoldFence fence,
								 void *fence_arg);
extern int	crelay_hold_save_all(void);
extern void crelay_hold_touch(const char *slot_name);
extern uint64 crelay_hold_redo(void);
extern void crelay_hold_abandon(void);

#endif							/* CRELAY_HOLD_H */
