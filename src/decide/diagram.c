/*-------------------------------------------------------------------------
 *
 * diagram.c
 *	  A picture of the tree as text: folding, layout, and the words on it.
 *
 * Owns, leaves out and locks: see diagram.h.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/diagram_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "decide/frontier.h"
#include "decide/topology.h"

/* Rows of cards from which on siblings of which there is nothing to tell are folded. */
#define MAX_ROWS		40
#define SHOWN_SIBLINGS	2

/* Names in the line of counts. */
#define MAX_NAMES		4

const unsigned crelay_diagram_signs[SIGN_LAST + 1] = {'?', 0xb7, 0x2026, 0x25c2, 0x2014, 0x21bb};

/* ---- text ---- */

void
crelay_text_add(Text *text, const char *fmt,...)
{
	va_list		args;
	int			len;

	va_start(args, fmt);
	len = vsnprintf(text->s + text->len, (size_t) (TEXT_LEN - text->len), fmt, args);
	va_end(args);
	if (len > 0)
		text	  ->len = text->len + len < TEXT_LEN ? text->len + len : TEXT_LEN - 1;
}

static void
add_char(Text *text, char c)
{
	if (text->len + 1 >= TEXT_LEN)
		return;
	text	  ->s[text->len++] = c;
	text	  ->s[text->len] = '\0';
}

/*
 * Adds a name of at most that many characters.  A longer one loses its middle,
 * because names of one site often differ at their ends.  A byte that is not
 * printable ASCII becomes a question mark.
 */
void
crelay_text_name(Text *text, const char *name, int most)
{
	int			len = (int) strlen(name);
	int			tail = len > most ? most / 3 : 0;
	int			head = len > most ? most - 1 - tail : len;

	for (int i = 0; i < len; i++)
	{
		char		c = name[i];

		if (i == head)
			add_char(text, SIGN_CUT[0]);
		if (i >= head && i < len - tail)
			continue;
		add_char(text, c < 0x20 || c > 0x7e ? '?' : c);
	}
}

void
crelay_scene_put(const Scene *scene, const char *fmt,...)
{
	char		buf[2 * TEXT_LEN];
	va_list		args;
	int			len;

	va_start(args, fmt);
	len = vsnprintf(buf, sizeof(buf), fmt, args);
	va_end(args);
	if (len > 0)
		scene->sink(scene->sink_arg, buf, (size_t) len < sizeof(buf) ? (size_t) len : sizeof(buf) - 1);
}

/* ---- what a node looks like ---- */

bool
crelay_diagram_is_away(const CrelayDiagramNode *n)
{
	return n->state == CRELAY_STATE_DOWN || n->state == CRELAY_STATE_STALE ||
		n->state == CRELAY_STATE_UNKNOWN;
}

Mood
crelay_diagram_mood(const CrelayDiagramNode *n)
{
	switch (n->state)
	{
		case CRELAY_STATE_RUNNING:
		case CRELAY_STATE_STREAMING:
			return MOOD_GOOD;
		case CRELAY_STATE_CATCHUP:
		case CRELAY_STATE_ARCHIVE:
			return MOOD_WAITING;
		case CRELAY_STATE_DOWN:
		case CRELAY_STATE_DIVERGED:
		case CRELAY_STATE_DUPLICATE:
		case CRELAY_STATE_CYCLE:
		case CRELAY_STATE_DISCONNECTED:
			return MOOD_BAD;
		case CRELAY_STATE_STALE:
		case CRELAY_STATE_UNKNOWN:
			break;
	}
	return MOOD_SILENT;
}

EdgeStyle
crelay_diagram_edge(const CrelayDiagramNode *n)
{
	switch (crelay_diagram_mood(n))
	{
		case MOOD_GOOD:
			return EDGE_SOLID;
		case MOOD_WAITING:
			return EDGE_DASHED;
		case MOOD_BAD:
		case MOOD_SILENT:
			break;
	}
	return n->state == CRELAY_STATE_DIVERGED || n->state == CRELAY_STATE_DUPLICATE ?
		EDGE_DASHED : EDGE_DOTTED;
}

/*
 * The WAL that a node keeps for others, in bytes.  0 for up to a segment: that
 * much comes and goes with every report.
 */
uint64_t
crelay_diagram_kept(const Scene *scene, const CrelayDiagramNode *n)
{
	const CrelayNode *node = n->node;
	uint64_t	end = node->flush_lsn != 0 ? node->flush_lsn : node->replay_lsn;

	if (crelay_diagram_is_away(n) || node->frontier_lsn == 0 || end <= node->frontier_lsn ||
		node->pin.by[0] == '\0' || crelay_pin_is_own(&node->pin, node->name))
		return 0;
	return end - node->frontier_lsn > scene->diagram->segment_size ? end - node->frontier_lsn : 0;
}

/* ---- the story: for which node the root's disk fills ---- */

static int
subtree_end(const Scene *scene, int top)
{
	int			i = top + 1;

	while (i < scene->n && scene->nodes[i].depth > scene->nodes[top].depth)
		i++;
	return i;
}

/*
 * Returns true if a pin is of that node, which streams from the node on which
 * the slot or the walsender stands.  A slot's name alone proves nothing.
 */
static bool
is_pinned_by(const Scene *scene, const CrelayPin *pin, const CrelayDiagramNode *n)
{
	const char *on = pin->kind == CRELAY_PIN_NODE ? n->node->name :
	n->parent >= 0 ? scene->nodes[n->parent].node->name : "";

	return strcmp(n->node->name, pin->by) == 0 && strcmp(on, pin->on) == 0;
}

/*
 * Finds the node for which the root keeps WAL, or, where that is no node, the
 * one on which the slot stands that says so, and the path down to it.
 */
static void
find_story(Scene *scene)
{
	int			top = scene->root >= 0 ? scene->root : scene->local;
	int			place = -1;
	int			end;

	scene->keeper = -1;
	scene->pinner = -1;
	if (top < 0 || crelay_diagram_kept(scene, &scene->nodes[top]) == 0)
		return;
	scene->keeper = top;
	end = subtree_end(scene, top);
	for (int i = top + 1; i < end; i++)
	{
		const CrelayPin *pin = &scene->nodes[top].node->pin;

		if (is_pinned_by(scene, pin, &scene->nodes[i]) &&
			(scene->pinner < 0 || crelay_diagram_is_away(&scene->nodes[i])))
			scene->pinner = i;
		if (strcmp(scene->nodes[i].node->name, pin->on) == 0 && scene->nodes[i].node->managed)
			place = i;
	}
	if (scene->pinner >= 0)
		scene->nodes[scene->pinner].pins = true;
	for (int i = scene->pinner >= 0 ? scene->pinner : place; i >= 0 && i != top;
		 i = scene->nodes[i].parent)
		scene->nodes[i].on_path = true;
}

/* ---- folding ---- */

static bool
is_quiet(const CrelayDiagramNode *n)
{
	return crelay_diagram_mood(n) == MOOD_GOOD && !n->local && !n->on_path &&
		n->node->protected != CRELAY_FALSE && n->warnings == 0;
}

/*
 * Sums up what lies below each node.  Backward, so that the children of a node
 * are done before the node itself.
 */
static void
sum_up(Scene *scene)
{
	for (int i = scene->n - 1; i >= 0; i--)
	{
		CrelayDiagramNode *n = &scene->nodes[i];

		n->quiet = n->quiet && is_quiet(n);
		if (n->lag > n->worst_lag)
			n->worst_lag = n->lag;
		if (n->parent < 0)
			continue;
		scene->nodes[n->parent].quiet &= n->quiet;
		scene->nodes[n->parent].size += n->size;
		if (n->worst_lag > scene->nodes[n->parent].worst_lag)
			scene->nodes[n->parent].worst_lag = n->worst_lag;
	}
}

/*
 * Returns true if a node may disappear in a card "… more".  Level 1: leaves of
 * which there is nothing to tell; level 2: branches of such nodes, too.
 */
static bool
may_fold(const CrelayDiagramNode *n, int level)
{
	return n->parent >= 0 && n->quiet && (level > 1 || n->size == 1);
}

/* Level 3 also folds, among themselves, leaves that have been cut off. */
static bool
may_fold_silent(const CrelayDiagramNode *n, int level)
{
	return level > 2 && n->parent >= 0 && n->size == 1 && n->state == CRELAY_STATE_STALE &&
		!n->local && !n->on_path && n->node->protected != CRELAY_FALSE &&
		(n->warnings & ~CRELAY_WARN_STALE_NODE) == 0;
}

/*
 * Folds the siblings that the predicate lets go, but for the first ones, and
 * only where that saves a row.
 */
static void
fold_siblings(Scene *scene, int level, bool (*may) (const CrelayDiagramNode *n, int level))
{
	CrelayDiagramNode *nodes = scene->nodes;

	for (int i = 0; i < scene->n; i++)
	{
		nodes[i].shown = 0;
		nodes[i].fold = -1;
	}
	for (int i = 0; i < scene->n; i++)
	{
		if (may(&nodes[i], level))
			nodes[nodes[i].parent].shown++;
	}
	for (int i = 0; i < scene->n; i++)
		nodes[i].shown = nodes[i].shown >= SHOWN_SIBLINGS + 2 ? SHOWN_SIBLINGS : scene->n;
	for (int i = 0; i < scene->n; i++)
	{
		CrelayDiagramNode *n = &nodes[i];
		CrelayDiagramNode *parent = n->parent >= 0 ? &nodes[n->parent] : NULL;

		if (parent == NULL || !may(n, level) || parent->shown-- > 0)
			continue;
		if (parent->fold < 0)
		{
			parent->fold = i;
			n->folded = n->size;
			continue;
		}
		n->hidden = true;
		nodes[parent->fold].folded += n->size;
		if (n->worst_lag > nodes[parent->fold].worst_lag)
			nodes[parent->fold].worst_lag = n->worst_lag;
	}
}

/*
 * Hides what lies below folded nodes; the number of rows that are left.
 */
static int
count_rows(Scene *scene)
{
	CrelayDiagramNode *nodes = scene->nodes;
	int			rows = 0;

	for (int i = 0; i < scene->n; i++)
	{
		int			parent = nodes[i].parent;

		nodes[i].has_children = false;
		if (parent < 0)
			continue;
		if (nodes[parent].hidden || nodes[parent].folded > 0)
			nodes[i].hidden = true;
		if (!nodes[i].hidden)
			nodes[parent].has_children = true;
	}
	for (int i = 0; i < scene->n; i++)
		rows += !nodes[i].hidden && !nodes[i].has_children;
	return rows;
}

static void
fold(Scene *scene)
{
	for (int level = 1; level <= 3 && count_rows(scene) > MAX_ROWS; level++)
	{
		for (int i = 0; i < scene->n; i++)
		{
			scene->nodes[i].hidden = false;
			scene->nodes[i].folded = 0;
		}
		fold_siblings(scene, level, may_fold);
		if (level > 2)
			fold_siblings(scene, level, may_fold_silent);
	}
	count_rows(scene);
}

/* ---- words ---- */

void
crelay_words_bytes(uint64_t bytes, Text *text)
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
	double		value = (double) bytes;
	int			unit = 0;

	while (value >= 1000 && unit < 6)
	{
		value /= 1024;
		unit++;
	}
	crelay_text_add(text, unit > 0 && value < 9.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

static void
add_duration(Text *text, int64_t microseconds)
{
	long long	seconds = microseconds > 0 ? (long long) (microseconds / 1000000) : 0;

	if (seconds < 120)
		crelay_text_add(text, "%lld s", seconds);
	else if (seconds < 120 * 60)
		crelay_text_add(text, "%lld min", seconds / 60);
	else if (seconds < 48 * 3600)
		crelay_text_add(text, "%lld h", seconds / 3600);
	else
		crelay_text_add(text, "%lld days", seconds / 86400);
}

static const char *
state_word(CrelayState state)
{
	const char *word = crelay_state_text(state);

	return word != NULL ? word : "not known";
}

static int
count_primaries(const Scene *scene)
{
	int			primaries = 0;

	for (int i = 0; i < scene->n; i++)
		primaries += scene->nodes[i].depth == 0 && !crelay_diagram_is_away(&scene->nodes[i]);
	return primaries;
}

void
crelay_words_title(const Scene *scene, Text *text)
{
	int			primaries = count_primaries(scene);

	if (scene->n == 0)
		crelay_text_add(text, "Nothing is known of the cascade yet");
	else if (scene->root >= 0)
	{
		crelay_text_add(text, "Cascade of ");
		crelay_text_name(text, scene->nodes[scene->root].node->name, 40);
		if (primaries > 1)
			crelay_text_add(text, ", and %d primaries at once", primaries);
	}
	else
		crelay_text_add(text, "Cascade without a known primary");
}

static void
add_unprotected(const Scene *scene, Text *text)
{
	int			found = 0;

	for (int i = 0; i < scene->n; i++)
	{
		if (scene->nodes[i].node->protected != CRELAY_FALSE || found++ >= MAX_NAMES)
			continue;
		crelay_text_add(text, found > 1 ? ", " : " %s ", SIGN_DASH);
		crelay_text_name(text, scene->nodes[i].node->name, 24);
	}
	if (found > MAX_NAMES)
		crelay_text_add(text, " and %d more", found - MAX_NAMES);
	if (found > 0)
		crelay_text_add(text, " unprotected");
}

/*
 * How many nodes there are, in which states, and which are unprotected.
 */
void
crelay_words_counts(const Scene *scene, Text *text)
{
	/* in the order in which they are told */
	static const CrelayState states[] = {CRELAY_STATE_RUNNING, CRELAY_STATE_STREAMING,
		CRELAY_STATE_CATCHUP, CRELAY_STATE_ARCHIVE, CRELAY_STATE_DISCONNECTED, CRELAY_STATE_DIVERGED,
		CRELAY_STATE_DUPLICATE, CRELAY_STATE_CYCLE, CRELAY_STATE_DOWN,
	CRELAY_STATE_STALE, CRELAY_STATE_UNKNOWN};
	int			counts[CRELAY_STATE_LAST + 1] = {0};
	int			unprotected = 0;
	int			unknown = 0;
	int			away = 0;
	const char *before = ":";

	for (int i = 0; i < scene->n; i++)
	{
		const CrelayDiagramNode *n = &scene->nodes[i];

		if ((unsigned) n->state <= CRELAY_STATE_LAST)
			counts[n->state]++;
		unprotected += n->node->protected == CRELAY_FALSE;
		unknown += n->node->protected == CRELAY_UNKNOWN;
		away += crelay_diagram_is_away(n);
	}
	crelay_text_add(text, "%d node%s", scene->n, scene->n == 1 ? "" : "s");
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
	{
		if (counts[states[i]] == 0)
			continue;
		crelay_text_add(text, "%s %d %s", before, counts[states[i]], state_word(states[i]));
		before = ",";
	}
	if (unprotected > 0)
		add_unprotected(scene, text);
	else if (unknown > 0)
		crelay_text_add(text, " %s protection not known of %d", SIGN_DASH, unknown);
	else if (scene->n > 0)
		crelay_text_add(text, " %s all protected%s", SIGN_DASH, away > 0 ? " when last seen" : "");
}

/*
 * How the pinning node is, after its name and a comma.
 */
static void
add_predicament(const Scene *scene, const CrelayDiagramNode *n, Text *text)
{
	switch (n->state)
	{
		case CRELAY_STATE_RUNNING:
		case CRELAY_STATE_STREAMING:
			if (n->warnings & CRELAY_WARN_REPLAY_PAUSED)
				crelay_text_add(text, ", whose replay is paused");
			else if (n->node->apply_delay_ms > 0)
			{
				crelay_text_add(text, ", which replays ");
				add_duration(text, (int64_t) n->node->apply_delay_ms * 1000);
				crelay_text_add(text, " late");
			}
			else if (n->lag > (int64_t) scene->diagram->segment_size)
			{
				crelay_text_add(text, ", which is ");
				crelay_words_bytes((uint64_t) n->lag, text);
				crelay_text_add(text, " behind");
			}
			return;
		case CRELAY_STATE_CATCHUP:
			crelay_text_add(text, ", which is catching up");
			return;
		case CRELAY_STATE_ARCHIVE:
			crelay_text_add(text, ", which recovers from the archive");
			return;
		case CRELAY_STATE_DISCONNECTED:
			crelay_text_add(text, ", which gets no WAL");
			return;
		case CRELAY_STATE_DOWN:
			crelay_text_add(text, ", which is down");
			return;
		case CRELAY_STATE_DIVERGED:
			crelay_text_add(text, ", which has diverged");
			return;
		case CRELAY_STATE_DUPLICATE:
			crelay_text_add(text, ", whose name is not unique");
			return;
		case CRELAY_STATE_CYCLE:
			crelay_text_add(text, ", which is on a cycle");
			return;
		case CRELAY_STATE_STALE:
		case CRELAY_STATE_UNKNOWN:
			crelay_text_add(text, ", of which there is no news");
			return;
	}
}

/*
 * What a pin is that no node that is drawn is behind, and on which node it is.
 */
static void
add_place(const CrelayPin *pin, const char *keeper, Text *text)
{
	switch (pin->kind)
	{
		case CRELAY_PIN_NODE:
			crelay_text_name(text, pin->by, 40);
			return;
		case CRELAY_PIN_SLOT:
			crelay_text_add(text, "slot ");
			crelay_text_name(text, pin->slot, 40);
			break;
		case CRELAY_PIN_HOLD:
			crelay_text_add(text, "the hold of ");
			crelay_text_name(text, pin->by, 40);
			break;
		case CRELAY_PIN_WALSENDER:
			crelay_text_add(text, "the walsender of ");
			crelay_text_name(text, pin->by, 40);
			break;
	}
	if (strcmp(pin->on, keeper) != 0)
	{
		crelay_text_add(text, " on ");
		crelay_text_name(text, pin->on, 40);
	}
}

/*
 * Whose disk keeps how much WAL, and for which node; nothing if it is little.
 */
void
crelay_words_story(const Scene *scene, Text *text)
{
	const CrelayDiagramNode *keeper;

	if (scene->keeper < 0)
		return;
	keeper = &scene->nodes[scene->keeper];
	crelay_text_name(text, keeper->node->name, 40);
	crelay_text_add(text, " keeps ");
	crelay_words_bytes(crelay_diagram_kept(scene, keeper), text);
	crelay_text_add(text, " of WAL on its disk for ");
	if (scene->pinner >= 0)
	{
		crelay_text_name(text, keeper->node->pin.by, 40);
		add_predicament(scene, &scene->nodes[scene->pinner], text);
	}
	else
		add_place(&keeper->node->pin, keeper->node->name, text);
}

void
crelay_words_seen_by(const Scene *scene, Text *text)
{
	crelay_text_add(text, "as ");
	if (scene->local >= 0)
	{
		crelay_text_name(text, scene->nodes[scene->local].node->name, 40);
		crelay_text_add(text, " %s ", SIGN_HERE);
	}
	else
		crelay_text_add(text, "this node ");
	crelay_text_add(text, "saw it, %s", scene->diagram->time);
}

void
crelay_words_state(const CrelayDiagramNode *n, Text *text)
{
	if (n->node->role == CRELAY_ROLE_PRIMARY && n->state == CRELAY_STATE_RUNNING)
		crelay_text_add(text, "primary %s ", SIGN_DOT);
	crelay_text_add(text, "%s", state_word(n->state));
	if (crelay_class_votes(n->node->replica_class) && n->node->role != CRELAY_ROLE_PRIMARY)
		crelay_text_add(text, " %s voting", SIGN_DOT);
}

/*
 * How far behind a node is, or when it was last seen.
 */
void
crelay_words_distance(const Scene *scene, const CrelayDiagramNode *n, Text *text)
{
	if (crelay_diagram_is_away(n))
	{
		if (n->node->observed_at == 0)
			crelay_text_add(text, "not seen yet");
		else
		{
			crelay_text_add(text, "seen ");
			add_duration(text, scene->diagram->now - n->node->observed_at);
			crelay_text_add(text, " ago");
		}
	}
	else if (n->node->role == CRELAY_ROLE_PRIMARY || n->lag < 0)
		return;
	else if (n->lag <= (int64_t) scene->diagram->segment_size)
		crelay_text_add(text, "level");
	else
	{
		crelay_words_bytes((uint64_t) n->lag, text);
		crelay_text_add(text, " behind");
	}
}

/*
 * Adds a piece to the line of remarks, if there is room for it.
 */
static void
add_piece(Text *text, const Text *piece, int most)
{
	if (text->len > 0 && text->len + 3 + piece->len > most)
		return;
	crelay_text_add(text, "%s%s%s%s", text->len > 0 ? " " : "", text->len > 0 ? SIGN_DOT : "",
					text->len > 0 ? " " : "", piece->s);
}

/*
 * What else is to be told of a node, of at most so many characters.  Returns
 * true if it is something to worry about.
 */
bool
crelay_words_remark(const Scene *scene, const CrelayDiagramNode *n, int most, Text *text)
{
	uint64_t	kept = crelay_diagram_kept(scene, n);
	bool		worry;

	if (n->pins)
		crelay_text_add(text, "pins the WAL of all above");
	if (kept > 0)
	{
		Text		piece = {0};

		crelay_text_add(&piece, "keeps ");
		crelay_words_bytes(kept, &piece);
		add_piece(text, &piece, most);
	}
	for (int bit = 0; bit < 32; bit++)
	{
		uint32_t	warning = UINT32_C(1) << bit;
		const char *code = n->warnings & warning ? crelay_warning_text(warning) : NULL;
		Text		piece = {0};

		/* the pill and the state say these */
		if (code == NULL || (warning & (CRELAY_WARN_UNPROTECTED | CRELAY_WARN_STALE_NODE |
										CRELAY_WARN_CYCLE)) != 0)
			continue;
		crelay_text_add(&piece, "! %s", code);
		add_piece(text, &piece, most);
	}
	worry = text->len > 0;

	if (n->node->apply_delay_ms > 0)
	{
		Text		piece = {0};

		crelay_text_add(&piece, "replays ");
		add_duration(&piece, (int64_t) n->node->apply_delay_ms * 1000);
		crelay_text_add(&piece, " late");
		add_piece(text, &piece, most);
	}
	if (!n->node->managed)
	{
		Text		piece = {0};

		crelay_text_add(&piece, "without cascade_relay");
		add_piece(text, &piece, most);
	}
	return worry;
}

void
crelay_words_fold(const Scene *scene, const CrelayDiagramNode *n, Text *first, Text *second)
{
	crelay_text_add(first, "%d more", n->folded);
	if (n->state == CRELAY_STATE_STALE)
		crelay_text_add(second, "no news of them");
	else if (n->worst_lag <= (int64_t) scene->diagram->segment_size)
		crelay_text_add(second, "streaming, none behind");
	else
	{
		crelay_text_add(second, "streaming, at most ");
		crelay_words_bytes((uint64_t) n->worst_lag, second);
		crelay_text_add(second, " behind");
	}
}

/*
 * All that is known of a node, one thing a line.
 */
void
crelay_words_full(const Scene *scene, const CrelayDiagramNode *n, Text *text)
{
	const CrelayNode *node = n->node;
	const char *role = crelay_role_text(node->role);

	crelay_text_name(text, node->name, CRELAY_NAME_LEN);
	crelay_text_add(text, "\n%s, %s, ", role != NULL ? role : "role not known", state_word(n->state));
	crelay_text_add(text, node->protected == CRELAY_TRUE ? "protected" :
					node->protected == CRELAY_FALSE ? "UNPROTECTED" : "protection not known");
	if (node->replay_lsn != 0)
		crelay_text_add(text, "\ntimeline %u, replayed %X/%0*X", (unsigned) node->timeline,
						(unsigned) (node->replay_lsn >> 32), scene->diagram->lsn_digits,
						(unsigned) node->replay_lsn);
	if (node->location[0] != '\0')
	{
		crelay_text_add(text, "\nlocation ");
		crelay_text_name(text, node->location, CRELAY_LOCATION_LEN);
	}
	for (int bit = 0; bit < 32; bit++)
	{
		const char *code = n->warnings & (UINT32_C(1) << bit) ?
		crelay_warning_text(UINT32_C(1) << bit) : NULL;

		if (code != NULL)
			crelay_text_add(text, "\n! %s", code);
	}
	if (node->observed_at != 0)
	{
		crelay_text_add(text, "\nseen ");
		add_duration(text, scene->diagram->now - node->observed_at);
		crelay_text_add(text, " ago");
	}
}

/* ---- all of it ---- */

bool
crelay_diagram_format_parse(const char *name, CrelayDiagramFormat *format)
{
	if (strcmp(name, "svg") == 0)
		*format = CRELAY_DIAGRAM_SVG;
	else if (strcmp(name, "dot") == 0)
		*format = CRELAY_DIAGRAM_DOT;
	else if (strcmp(name, "mermaid") == 0)
		*format = CRELAY_DIAGRAM_MERMAID;
	else
		return false;
	return true;
}

static void
begin(Scene *scene)
{
	scene->root = -1;
	scene->local = -1;
	for (int i = 0; i < scene->n; i++)
	{
		CrelayDiagramNode *n = &scene->nodes[i];

		n->quiet = true;
		n->hidden = false;
		n->pins = false;
		n->on_path = false;
		n->folded = 0;
		n->size = 1;
		n->worst_lag = 0;
		if (scene->root < 0 && n->depth == 0)
			scene->root = i;
		if (n->local)
			scene->local = i;
	}
}

/*
 * Hands the picture to the sink, piece by piece.
 */
void
crelay_diagram_draw(CrelayDiagram *diagram, CrelayDiagramFormat format,
					CrelayDiagramSink sink, void *sink_arg)
{
	Scene		scene = {0};

	scene.diagram = diagram;
	scene.nodes = diagram->nodes;
	scene.n = diagram->n;
	scene.sink = sink;
	scene.sink_arg = sink_arg;
	begin(&scene);
	find_story(&scene);
	sum_up(&scene);
	fold(&scene);
	switch (format)
	{
		case CRELAY_DIAGRAM_SVG:
			crelay_diagram_svg(&scene);
			break;
		case CRELAY_DIAGRAM_DOT:
			crelay_diagram_dot(&scene);
			break;
		case CRELAY_DIAGRAM_MERMAID:
			crelay_diagram_mermaid(&scene);
			break;
	}
}
