/*-------------------------------------------------------------------------
 *
 * bookmark.h
 *	  Causal read tokens, as pure text and pure decisions.
 *
 * Owns: how a bookmark is written and read, and whether a node at some
 * position has what the bookmark stands for.
 *
 * Not here: taking one, waiting for one (causal_funcs.c).
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_BOOKMARK_H
#define CRELAY_BOOKMARK_H

#include "decide/node.h"

/* "4294967295:FFFFFFFF/FFFFFFFF" and the zero */
#define CRELAY_BOOKMARK_LEN		32

/* Everything up to an LSN, on the history that leads to it on a timeline. */
typedef struct CrelayBookmark
{
	uint32_t	timeline;
	uint64_t	lsn;
} CrelayBookmark;

typedef enum CrelayServes
{
	CRELAY_SERVES_UNKNOWN = 0,	/* nobody can say */
	CRELAY_SERVES_NOT_YET,
	CRELAY_SERVES_NOW,
	CRELAY_SERVES_NEVER			/* its history left the bookmark's before it */
} CrelayServes;

extern void crelay_bookmark_format(char *token, size_t size,
								   uint32_t timeline, uint64_t lsn, int digits);
extern bool crelay_bookmark_parse(const char *token, CrelayBookmark *bookmark);
extern CrelayServes crelay_bookmark_judge(const CrelayBookmark *bookmark,
										  const CrelayHistory *history,
										  uint32_t timeline, uint64_t lsn,
										  uint64_t *left_at);

#endif							/* CRELAY_BOOKMARK_H */
