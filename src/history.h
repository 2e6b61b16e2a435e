/*-------------------------------------------------------------------------
 *
 * history.h
 *	  Whether two nodes are on one history of timelines, as a pure decision.
 *
 * Owns: the rule by which LSNs of two nodes may be compared at all.
 *
 * Not here: reading history files (downstream.c).
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_HISTORY_H
#define CRELAY_HISTORY_H

#include "node.h"

extern bool crelay_history_contains(const CrelayHistory *history,
									uint32_t timeline, uint64_t lsn);
extern bool crelay_history_agrees(const CrelayHistory *ours, uint64_t our_lsn,
								  const CrelayHistory *theirs,
								  uint64_t their_lsn);

#endif							/* CRELAY_HISTORY_H */
