/*-------------------------------------------------------------------------
 *
 * diagram_internal.h
 *	  What the parts of the diagram share.
 *
 * Owns: the scene, that is the laid out tree with its story, and the words on
 * it, which are the same in each format.
 *
 *	diagram.c		folding, layout, story, words
 *	diagram_svg.c	SVG
 *	diagram_text.c	DOT and Mermaid
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_DIAGRAM_INTERNAL_H
#define CRELAY_DIAGRAM_INTERNAL_H

#include "decide/diagram.h"

/*
 * Signs that are not ASCII, as one byte in a Text.  Each format writes them in
 * its own way; a name has none of these bytes, see crelay_text_name().
 */
#define SIGN_DOT		"\1"	/* middle dot */
#define SIGN_CUT		"\2"	/* ellipsis */
#define SIGN_HERE		"\3"	/* small triangle to the left */
#define SIGN_DASH		"\4"	/* em dash */
#define SIGN_CYCLE		"\5"	/* open circle arrow */
#define SIGN_LAST		5

extern const unsigned crelay_diagram_signs[SIGN_LAST + 1];	/* code points */

#define TEXT_LEN		512

typedef struct Text
{
	char		s[TEXT_LEN];
	int			len;
} Text;

/* What is wrong with a node, as its colour and its sign say. */
typedef enum Mood
{
	MOOD_GOOD = 0,
	MOOD_WAITING,				/* up, and not streaming */
	MOOD_BAD,
	MOOD_SILENT					/* no news */
} Mood;

typedef enum EdgeStyle
{
	EDGE_SOLID,
	EDGE_DASHED,				/* catches up, or does not stream */
	EDGE_DOTTED					/* away */
} EdgeStyle;

typedef struct Scene
{
	const CrelayDiagram *diagram;
	CrelayDiagramNode *nodes;
	int			n;
	int			root;			/* -1: none is known */
	int			local;			/* -1: none */
	int			keeper;			/* the node whose WAL the story is about: the
								 * root, else the asked one; -1 no story */
	int			pinner;			/* the node that it is kept for; -1 not drawn */
	int			columns;
	int			bottom;			/* lower edge of the lowest card */

	CrelayDiagramSink sink;
	void	   *sink_arg;
} Scene;

extern void crelay_text_add(Text *text, const char *fmt,...) __attribute__((format(printf, 2, 3)));
extern void crelay_text_name(Text *text, const char *name, int most);
extern void crelay_scene_put(const Scene *scene, const char *fmt,...) __attribute__((format(printf, 2, 3)));

extern Mood crelay_diagram_mood(const CrelayDiagramNode *n);
extern EdgeStyle crelay_diagram_edge(const CrelayDiagramNode *n);
extern uint64_t crelay_diagram_kept(const Scene *scene, const CrelayDiagramNode *n);
extern bool crelay_diagram_is_away(const CrelayDiagramNode *n);

extern void crelay_words_title(const Scene *scene, Text *text);
extern void crelay_words_counts(const Scene *scene, Text *text);
extern void crelay_words_story(const Scene *scene, Text *text);
extern void crelay_words_seen_by(const Scene *scene, Text *text);
extern void crelay_words_state(const CrelayDiagramNode *n, Text *text);
extern void crelay_words_distance(const Scene *scene, const CrelayDiagramNode *n, Text *text);
extern bool crelay_words_remark(const Scene *scene, const CrelayDiagramNode *n, int most, Text *text);
extern void crelay_words_fold(const Scene *scene, const CrelayDiagramNode *n, Text *first, Text *second);
extern void crelay_words_bytes(uint64_t bytes, Text *text);
extern void crelay_words_full(const Scene *scene, const CrelayDiagramNode *n, Text *text);

extern void crelay_diagram_svg(const Scene *scene);
extern void crelay_diagram_dot(const Scene *scene);
extern void crelay_diagram_mermaid(const Scene *scene);

#endif							/* CRELAY_DIAGRAM_INTERNAL_H */
