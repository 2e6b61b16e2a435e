/*-------------------------------------------------------------------------
 *
 * bookmark.c
 *	  Causal read tokens, as pure text and pure decisions.
 *
 * Owns, leaves out and locks: see bookmark.h.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/bookmark.h"

#include <stdio.h>

/*
 * Writes a bookmark; an empty text if either half of it is not known.  digits is
 * the least number of digits after the slash, as the server prints an LSN.
 */
void
crelay_bookmark_format(char *token, size_t size, uint32_t timeline, uint64_t lsn,
					   int digits)
{
	if (timeline == 0 || lsn == 0)
		token[0] = '\0';
	else
		snprintf(token, size, "%u:%X/%0*X", (unsigned int) timeline,
				 (unsigned int) (lsn >> 32), digits, (unsigned int) lsn);
}

/* The value of a digit, 16 if it is none. */
static uint32_t
digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return 16;
}

/*
 * Reads digits up to the given end character, which is skipped.  False without
 * any digit, or with more than 32 bits of them.
 */
static bool
parse_number(const char **digits, uint32_t base, char end, uint32_t *number)
{
	const char *at = *digits;
	uint64_t	value = 0;

	for (; digit_value(*at) < base; at++)
	{
		value = value * base + digit_value(*at);
		if (value > UINT32_MAX)
			return false;
	}
	if (at == *digits || *at != end)
		return false;
	*number = (uint32_t) value;
	*digits = at + 1;
	return true;
}

/*
 * Reads a bookmark.  Nothing may stand around it; neither its timeline nor its
 * LSN may be 0.
 */
bool
crelay_bookmark_parse(const char *token, CrelayBookmark *bookmark)
{
	uint32_t	high;
	uint32_t	low;

	if (!parse_number(&token, 10, ':', &bookmark->timeline) ||
		!parse_number(&token, 16, '/', &high) ||
		!parse_number(&token, 16, '\0', &low))
		return false;
	bookmark->lsn = (uint64_t) high << 32 | low;
	return bookmark->timeline != 0 && bookmark->lsn != 0;
}

/*
 * Where a history left an earlier one of its timelines, NULL if it has not
 * been on it as far as it is known.
 */
static const CrelaySwitch *
find_switch(const CrelayHistory *history, uint32_t timeline)
{
	for (uint32_t i = 0; i < history->n; i++)
	{
		if (history->left[i].timeline == timeline)
			return &history->left[i];
	}
	return NULL;
}

/*
 * Whether a node that has replayed up to an LSN on a timeline has what the
 * bookmark stands for.  The history may be that of any node whose timelines
 * include the node's; what it does not know, it does not guess.  Timelines
 * from before the part of it that is known are taken to be common.
 *
 * A bookmark of a later timeline than the node's is not yet reached, whatever
 * its LSN: that timeline began somewhere, perhaps before where the node is.
 *
 * left_at is set for CRELAY_SERVES_NEVER: where the bookmark's timeline was
 * left, 0 if the node has never been on it.
 */
CrelayServes
crelay_bookmark_judge(const CrelayBookmark *bookmark, const CrelayHistory *history,
					  uint32_t timeline, uint64_t lsn, uint64_t *left_at)
{
	const CrelaySwitch *left;
	CrelayServes by_lsn = lsn >= bookmark->lsn ? CRELAY_SERVES_NOW : CRELAY_SERVES_NOT_YET;

	*left_at = 0;
	if (timeline == 0 || lsn == 0)
		return CRELAY_SERVES_UNKNOWN;
	if (bookmark->timeline == timeline)
		return by_lsn;
	if (bookmark->timeline > timeline)
		return CRELAY_SERVES_NOT_YET;

	/* the node's timeline is not the first: a history must know before it */
	if (history->n == 0 ||
		(history->timeline != timeline && find_switch(history, timeline) == NULL))
		return CRELAY_SERVES_UNKNOWN;
	left = find_switch(history, bookmark->timeline);
	if (left != NULL)
	{
		*left_at = bookmark->lsn > left->lsn ? left->lsn : 0;
		return bookmark->lsn > left->lsn ? CRELAY_SERVES_NEVER : by_lsn;
	}
	if (history->n == CRELAY_MAX_HISTORY &&
		bookmark->timeline < history->left[history->n - 1].timeline)
		return by_lsn;
	return CRELAY_SERVES_NEVER;
}
