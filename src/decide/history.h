/*-------------------------------------------------------------------------
 *
 * history.h
 *	  Whether two nodes are on one history of timelines, as a pure decision.
 *
 * Owns: the rule by which LSNs of two nodes may be compared at all, and what a
 * timeline history file says.
 *
 * Not here: reading history files (downstream.c), or getting them from another
 * node (follow.c).
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_HISTORY_H
#define CRELAY_HISTORY_H

#include "decide/node.h"

extern void crelay_history_parse(CrelayHistory *history, uint32_t timeline,
								 const char *content);
extern bool crelay_history_contains(const CrelayHistory *history,
									uint32_t timeline, uint64_t lsn);
extern bool crelay_history_agrees(const CrelayHistory *ours, uint64_t our_lsn,
								  const CrelayHistory *theirs,
								  uint64_t their_lsn);
extern bool crelay_history_lacks(uint32_t our_timeline, uint64_t our_end,
								 uint32_t their_timeline, uint64_t their_end);

#endif							/* CRELAY_HISTORY_H */
