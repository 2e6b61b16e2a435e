/*-------------------------------------------------------------------------
 *
 * history.c
 *	  Whether two nodes are on one history of timelines, as a pure decision.
 *
 * Owns, leaves out and locks: see history.h.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/history.h"

#include <stdio.h>
#include <string.h>

/*
 * One line of a history file: a timeline, where it was left, and why.  False
 * for a comment, an empty line, or nonsense.
 */
static bool
parse_line(const char *line, CrelaySwitch *left)
{
	unsigned int timeline;
	unsigned int high;
	unsigned int low;

	if (sscanf(line, "%u %X/%X", &timeline, &high, &low) != 3 || timeline == 0)
		return false;
	left->timeline = timeline;
	left->lsn = (uint64_t) high << 32 | low;
	return true;
}

/*
 * Reads the history file of a timeline, which lists its ancestors, the oldest
 * first; of too many the latest are kept.  An empty text is that of the first
 * timeline.
 */
void
crelay_history_parse(CrelayHistory *history, uint32_t timeline, const char *content)
{
	memset(history, 0, sizeof(*history));
	history->timeline = timeline;
	while (content != NULL && *content != '\0')
	{
		const char *end = strchr(content, '\n');
		CrelaySwitch left;

		if (*content != '\n' && parse_line(content, &left))
		{
			if (history->n < CRELAY_MAX_HISTORY)
				history->n++;
			memmove(&history->left[1], &history->left[0],
					sizeof(CrelaySwitch) * (history->n - 1));
			history->left[0] = left;
		}
		content = end != NULL ? end + 1 : NULL;
	}
}

/*
 * Whether a history leads through a position: one on its current timeline, or
 * on an earlier one before that was left.  Timelines from before the part of
 * the history that is known are taken to be common.
 */
bool
crelay_history_contains(const CrelayHistory *history, uint32_t timeline, uint64_t lsn)
{
	if (timeline == history->timeline)
		return true;
	for (uint32_t i = 0; i < history->n; i++)
	{
		if (history->left[i].timeline == timeline)
			return lsn <= history->left[i].lsn;
	}
	return history->n == CRELAY_MAX_HISTORY &&
		timeline < history->left[history->n - 1].timeline;
}

/*
 * Whether the two may compare LSNs: one of them has been, or can get, where
 * the other one is.
 */
bool
crelay_history_agrees(const CrelayHistory *ours, uint64_t our_lsn,
					  const CrelayHistory *theirs, uint64_t their_lsn)
{
	return crelay_history_contains(ours, theirs->timeline, their_lsn) ||
		crelay_history_contains(theirs, ours->timeline, our_lsn);
}

/*
 * Whether another node has WAL that this one, a primary, will never have.
 * our_end must have been read after the other node had told its own: a
 * walsender sends only what is flushed, so a standby is never ahead then, unless
 * this primary was set back.
 */
bool
crelay_history_lacks(uint32_t our_timeline, uint64_t our_end,
					 uint32_t their_timeline, uint64_t their_end)
{
	return our_timeline == their_timeline && their_end > our_end;
}
