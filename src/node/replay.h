/*-------------------------------------------------------------------------
 *
 * replay.h
 *	  Reading what the replay of this node is doing.
 *
 * Owns: whether the startup process waits for WAL, and whether replay is paused,
 * and why.
 *
 * Not here: how far replay is (downstream.c), what follows from it (feed.c,
 * check.c).
 *
 * Locking: none; the startup process's entry is read without a lock.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_REPLAY_H
#define CRELAY_REPLAY_H

#include "postgres.h"

#include "decide/node.h"

extern bool crelay_replay_waits(void);
extern CrelayPause crelay_replay_pause(void);

#endif							/* CRELAY_REPLAY_H */
