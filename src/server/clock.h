/*-------------------------------------------------------------------------
 *
 * clock.h
 *	  A clock that nobody sets.
 *
 * Owns: the monotonic time of this machine, in microseconds.  All processes of
 * a server read the same clock, so that a value may lie in shared memory.  It
 * means nothing on another machine, and nothing after a restart of this one.
 *
 * Not here: times that are shown (TimestampTz), and decisions about ages.
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_CLOCK_H
#define CRELAY_CLOCK_H

#include "postgres.h"

#include "portability/instr_time.h"

static inline int64
crelay_clock_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

#endif							/* CRELAY_CLOCK_H */
