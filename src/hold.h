/*-------------------------------------------------------------------------
 *
 * hold.h
 *	  Creating, moving, verifying, saving and dropping hold slots.
 *
 * Owns: every change that this extension makes to a replication slot, and only
 * to slots with its own prefix.
 *
 * Not here: where a hold should stand (frontier.c) and when (report_funcs.c,
 * worker.c).  A hold is moved back only under cover of another slot, never has
 * an xmin, and nothing ever streams through it.
 *
 * Locking: that of slot.c.  A slot is acquired for the length of one call and
 * released on every way out, errors included.  One lock of its own makes the
 * creation of holds wait for one another, over slot.c's locks and I/O.  The
 * registry's lock is never held around a call.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_HOLD_H
#define CRELAY_HOLD_H

#include "postgres.h"

#include "downstream.h"
#include "message.h"

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

extern void crelay_hold_apply(const CrelayHoldRequest *request,
							  const CrelayPosition *position,
							  CrelayHoldResult *result);
extern bool crelay_hold_try(const CrelayHoldRequest *request,
							const CrelayPosition *position,
							CrelayHoldResult *result);
extern bool crelay_hold_find_former(const char *slot_name, uint32 incarnation,
									char *former);
extern bool crelay_hold_drop(const char *slot_name);
extern int	crelay_hold_save_all(void);
extern uint64 crelay_hold_redo(void);
extern void crelay_hold_abandon(void);

#endif							/* CRELAY_HOLD_H */
