/*-------------------------------------------------------------------------
 *
 * diagram_svg.c
 *	  The picture of the tree as SVG.
 *
 * Owns: the geometry, the style sheet, and escaping for XML.
 *
 * Not here: the words, and which nodes are folded (diagram.c).
 *
 * The picture is one file of its own: CSS classes only, light or dark as the
 * reader's browser prefers, no script, no font and no image from elsewhere.
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/diagram_internal.h"

#include <stdio.h>
#include <string.h>

/* pixels */
#define MARGIN		28
#define HEAD		96			/* from the top to the first card */
#define HEAD_PLAIN	78			/* without the line of the story */
#define CARD_W		236
#define CARD_H		66
#define ROW_H		84
#define COLUMN_W	348
#define TOP_GAP		14			/* between parts that do not hang together */
#define TRUNK		34			/* from a card to where its edges part */
#define BULB		13			/* radius of the circle above an orphan */
#define FOOT		86			/* from the last card to the bottom */
#define ELBOW		8

/* characters that fit on a card */
#define NAME_LEN	18
#define PLACE_LEN	12
#define REMARK_LEN	36
#define LINE_LEN	34

static const char *const style =
"svg{background:#fff}"
".b{fill:#fff}"
"text{font:12px system-ui,-apple-system,'Segoe UI','DejaVu Sans',Helvetica,Arial,sans-serif;fill:#49566a}"
".t{font-size:19px;font-weight:700;fill:#1a2233}"
".h{font-size:13px}"
".w{font-weight:700;fill:#a84f06}"
".n{font-size:15px;font-weight:700;fill:#1a2233}"
".p{font-size:10.5px;text-anchor:end}"
".e{text-anchor:end}"
".m{font-size:11px}"
".f{font-size:11px}"
".k{fill:#fff;stroke:#c0c7d1}"
".x{stroke:#c0392b;stroke-width:2.5}"
".d{stroke-dasharray:4 3}"
".G{fill:#2e8b57}.A{fill:#c99700}.R{fill:#c0392b}.S{fill:#b4bcc8}"
".q{fill:none;stroke:#c0392b;stroke-width:3.4;stroke-linecap:round}"
".o{fill:none;stroke:#8c96a6;stroke-width:2.6;stroke-dasharray:3 2.2}"
".F{opacity:.62}"
".u{fill:none;stroke:#7b869b;stroke-width:1.8}"
".u1{stroke-dasharray:6 4}"
".u2{stroke:#a9b1be;stroke-dasharray:2 4.5}"
".v{fill:none;stroke:#fff;stroke-width:8}"
".z{fill:none;stroke:#dd7711;stroke-width:4}"
".z1{stroke-dasharray:8 4}"
".z2{stroke-dasharray:4 3.5}"
".i{fill:#c0392b}"
".j{font-size:10px;font-weight:700;fill:#fff;text-anchor:middle}"
".c{text-anchor:middle;font-size:13px}"
"@media(prefers-color-scheme:dark){"
"svg{background:#14181d}"
".b{fill:#14181d}"
"text{fill:#a9b4c2}"
".t,.n{fill:#eef2f7}"
".w{fill:#f2a24b}"
".k{fill:#1e252d;stroke:#46515e}"
".x{stroke:#e0574a}"
".G{fill:#37a46a}.A{fill:#d6a615}.R{fill:#e0574a}.S{fill:#59636f}"
".q{stroke:#e0574a}"
".o{stroke:#7d8896}"
".u{stroke:#6f7c8c}"
".u2{stroke:#566170}"
".v{stroke:#14181d}"
".z{stroke:#e8851f}"
".j{fill:#fff}}";

/*
 * The signs, also for the legend; and for each mood the left edge of a card with
 * its sign.
 */
static const char *const shapes =
"<path id=\"s\" d=\"M7 0A7 7 0 0 0 0 7V59A7 7 0 0 0 7 66Z\"/>"
"<circle id=\"g\" class=\"G\" r=\"5.5\"/>"
"<path id=\"a\" class=\"A\" d=\"M0-6L6.5 5.2H-6.5Z\"/>"
"<path id=\"r\" class=\"q\" d=\"M-4.4-4.4L4.4 4.4M4.4-4.4L-4.4 4.4\"/>"
"<circle id=\"o\" class=\"o\" r=\"4.8\"/>"
"<g id=\"G\"><use href=\"#s\" class=\"G\"/><use href=\"#g\" x=\"22\" y=\"19\"/></g>"
"<g id=\"A\"><use href=\"#s\" class=\"A\"/><use href=\"#a\" x=\"22\" y=\"19\"/></g>"
"<g id=\"R\"><use href=\"#s\" class=\"R\"/><use href=\"#r\" x=\"22\" y=\"19\"/></g>"
"<g id=\"O\"><use href=\"#s\" class=\"S\"/><use href=\"#o\" x=\"22\" y=\"19\"/></g>";

static const char *const edges_of_cards[] = {
	[MOOD_GOOD] = "G",[MOOD_WAITING] = "A",[MOOD_BAD] = "R",[MOOD_SILENT] = "O"
};

/* ---- text ---- */

static void
put_text(const Scene *scene, const Text *text)
{
	char		escaped[8 * TEXT_LEN];
	size_t		len = 0;

	for (int i = 0; i < text->len; i++)
	{
		unsigned char c = (unsigned char) text->s[i];

		if (c == '&' || c == '<' || c == '>' || c == '"' || c == '\'' || c == '\n')
			len += (size_t) snprintf(escaped + len, sizeof(escaped) - len, "&#%u;", c);
		else if (c >= 1 && c <= SIGN_LAST)
			len += (size_t) snprintf(escaped + len, sizeof(escaped) - len, "&#%u;",
									 crelay_diagram_signs[c]);
		else
			escaped[len++] = (char) c;
	}
	scene->sink(scene->sink_arg, escaped, len);
}

static void
put_line(const Scene *scene, const char *classes, int x, int y, const Text *text)
{
	if (text->len == 0)
		return;
	crelay_scene_put(scene, "<text%s%s%s x=\"%d\" y=\"%d\">", classes[0] ? " class=\"" : "",
					 classes, classes[0] ? "\"" : "", x, y);
	put_text(scene, text);
	crelay_scene_put(scene, "</text>");
}

/* Pixels that a text takes at most, of characters of a tenth of a pixel. */
static int
width_of(const Text *text, int tenths)
{
	return text->len * tenths / 10 + 1;
}

/* ---- places ---- */

static int
left_of(const Scene *scene, const CrelayDiagramNode *n)
{
	/* without a root, column 0 has nothing but the circles */
	return MARGIN + n->depth * COLUMN_W - (scene->root >= 0 ? 0 : COLUMN_W - 70);
}

/*
 * One row for each leaf, and a node beside the middle of its children.
 */
static void
place(Scene *scene)
{
	CrelayDiagramNode *nodes = scene->nodes;
	int			y = scene->keeper >= 0 ? HEAD : HEAD_PLAIN;
	bool		first = true;

	scene->bottom = y;
	scene->columns = 0;
	for (int i = 0; i < scene->n; i++)
	{
		if (nodes[i].hidden)
			continue;
		if (nodes[i].parent < 0 && !first)
			y += TOP_GAP;
		first = false;
		if (nodes[i].depth > scene->columns)
			scene->columns = nodes[i].depth;
		nodes[i].first_y = -1;
		if (nodes[i].has_children)
			continue;
		nodes[i].y = y;
		scene->bottom = y + CARD_H;
		y += ROW_H;
	}
	for (int i = scene->n - 1; i >= 0; i--)
	{
		CrelayDiagramNode *n = &nodes[i];

		if (n->hidden)
			continue;
		if (n->has_children)
			n->y = (n->first_y + n->last_y) / 2;
		if (n->parent < 0)
			continue;
		if (nodes[n->parent].first_y < 0)
			nodes[n->parent].last_y = n->y;
		nodes[n->parent].first_y = n->y;
	}
}

/* ---- edges ---- */

/*
 * The path from a card to the trunk, along it, and to the next column.
 */
static void
put_path(const Scene *scene, const char *classes, int style_number, int x, int y, int to_x, int to_y)
{
	int			trunk = x + TRUNK;
	int			down = to_y > y ? 1 : -1;
	int			elbow = (to_y - y) * down / 2 < ELBOW ? (to_y - y) * down / 2 : ELBOW;

	crelay_scene_put(scene, "<path class=\"%s", classes);
	if (style_number != EDGE_SOLID)
		crelay_scene_put(scene, " %s%d", classes, style_number);
	crelay_scene_put(scene, "\" d=\"M%d %dH", x, y);
	if (to_y != y)
		crelay_scene_put(scene, "%dQ%d %d %d %dV%dQ%d %d %d %dH", trunk - elbow, trunk, y, trunk,
						 y + elbow * down, to_y - elbow * down, trunk, to_y, trunk + elbow, to_y);
	crelay_scene_put(scene, "%d\"/>", to_x);
}

static void
put_edge(const Scene *scene, const CrelayDiagramNode *n)
{
	const CrelayDiagramNode *parent = &scene->nodes[n->parent];
	int			x = left_of(scene, parent) + CARD_W;
	int			y = parent->y + CARD_H / 2;
	int			to_y = n->y + CARD_H / 2;
	EdgeStyle	edge = crelay_diagram_edge(n);
	Text		bytes = {0};

	if (!n->on_path)
	{
		put_path(scene, "u", (int) edge, x, y, left_of(scene, n), to_y);
		return;
	}
	if (edge != EDGE_SOLID)
		put_path(scene, "v", EDGE_SOLID, x, y, left_of(scene, n), to_y);
	put_path(scene, "z", (int) edge, x, y, left_of(scene, n), to_y);
	if (crelay_diagram_kept(scene, parent) == 0)
		return;
	crelay_words_bytes(crelay_diagram_kept(scene, parent), &bytes);
	put_line(scene, "w", x + TRUNK + 10, to_y - 7, &bytes);
}

/*
 * The circle that the top of an orphaned part, or of a cycle, hangs from.
 */
static void
put_bulb(const Scene *scene, const CrelayDiagramNode *n)
{
	int			x = left_of(scene, n);
	int			y = n->y + CARD_H / 2;
	int			center = x - 56;
	Text		sign = {0};

	crelay_text_add(&sign, "%s", n->state == CRELAY_STATE_CYCLE ? SIGN_CYCLE : "?");
	crelay_scene_put(scene, "<path class=\"u u2\" d=\"M%d %dH%d\"/>", center + BULB, y, x);
	crelay_scene_put(scene, "<circle class=\"k d\" cx=\"%d\" cy=\"%d\" r=\"%d\"/>", center, y, BULB);
	put_line(scene, "c", center, y + 5, &sign);
}

/*
 * Those on the path of the story last, so that they lie above the others.
 */
static void
put_edges(const Scene *scene)
{
	for (int pass = 0; pass < 2; pass++)
	{
		for (int i = 0; i < scene->n; i++)
		{
			const CrelayDiagramNode *n = &scene->nodes[i];

			if (n->hidden || n->on_path != (pass == 1))
				continue;
			if (n->parent >= 0)
				put_edge(scene, n);
			else if (n->depth > 0)
				put_bulb(scene, n);
		}
	}
}

/* ---- cards ---- */

static void
put_pill(const Scene *scene)
{
	Text		word = {0};

	crelay_text_add(&word, "UNPROTECTED");
	crelay_scene_put(scene, "<rect class=\"i\" x=\"136\" y=\"-9\" width=\"92\" height=\"18\" rx=\"9\"/>");
	put_line(scene, "j", 182, 4, &word);
}

/*
 * Name and location share the first line.
 */
static void
put_name(const Scene *scene, const CrelayDiagramNode *n)
{
	const char *location = n->node->location;
	Text		name = {0};
	Text		place = {0};

	/* the default says nothing */
	if (strcmp(location, "default") != 0)
		crelay_text_name(&place, location, PLACE_LEN);
	crelay_text_name(&name, n->node->name, place.len > 4 ? NAME_LEN - (place.len - 3) / 2 : NAME_LEN);
	if (n->local)
		crelay_text_add(&name, " %s", SIGN_HERE);
	put_line(scene, "n", 35, 24, &name);
	put_line(scene, "p", 224, 22, &place);
}

static void
put_card_text(const Scene *scene, const CrelayDiagramNode *n)
{
	Text		state = {0};
	Text		distance = {0};
	Text		remark = {0};
	bool		worry;

	put_name(scene, n);
	crelay_words_state(n, &state);
	crelay_words_distance(scene, n, &distance);
	if (state.len + distance.len > LINE_LEN)
		distance.len = 0;
	put_line(scene, "", 16, 43, &state);
	put_line(scene, "e", 224, 43, &distance);
	worry = crelay_words_remark(scene, n, REMARK_LEN, &remark);
	put_line(scene, worry ? "m w" : "m", 16, 58, &remark);
}

static void
put_fold_text(const Scene *scene, const CrelayDiagramNode *n)
{
	Text		first = {0};
	Text		second = {0};

	crelay_words_fold(scene, n, &first, &second);
	put_line(scene, "n", 35, 24, &first);
	put_line(scene, "", 16, 43, &second);
}

static void
put_card(const Scene *scene, const CrelayDiagramNode *n)
{
	Mood		mood = crelay_diagram_mood(n);
	int			x = left_of(scene, n);
	Text		full = {0};

	crelay_scene_put(scene, "<g%s transform=\"translate(%d,%d)\">",
					 mood == MOOD_SILENT ? " class=\"F\"" : "", x, n->y);
	/* the stack behind a card that stands for several */
	if (n->folded > 0)
		crelay_scene_put(scene, "<rect class=\"k\" x=\"5\" y=\"5\" width=\"%d\" height=\"%d\" rx=\"7\"/>",
						 CARD_W, CARD_H);
	else
	{
		crelay_words_full(scene, n, &full);
		crelay_scene_put(scene, "<title>");
		put_text(scene, &full);
		crelay_scene_put(scene, "</title>");
	}
	crelay_scene_put(scene, "<rect class=\"k%s%s\" width=\"%d\" height=\"%d\" rx=\"7\"/>",
					 mood == MOOD_BAD ? " x" : "", !n->node->managed && n->folded == 0 ? " d" : "",
					 CARD_W, CARD_H);
	crelay_scene_put(scene, "<use href=\"#%s\"/>", edges_of_cards[mood]);
	if (n->folded > 0)
		put_fold_text(scene, n);
	else
		put_card_text(scene, n);
	if (n->node->protected == CRELAY_FALSE && n->folded == 0)
		put_pill(scene);
	crelay_scene_put(scene, "</g>\n");
}

/* ---- head and foot ---- */

static void
put_legend(const Scene *scene, int y)
{
	static const struct
	{
		const char *sign;
		const char *words;
		int			width;
	}			entries[] = {
		{"g", "streaming", 96},
		{"a", "catching up, archive", 160},
		{"r", "down, or wrong", 124},
		{"o", "no news", 88}
	};
	int			x = MARGIN + 5;
	Text		words = {0};

	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++)
	{
		Text		entry = {0};

		crelay_text_add(&entry, "%s", entries[i].words);
		crelay_scene_put(scene, "<use href=\"#%s\" x=\"%d\" y=\"%d\"/>", entries[i].sign, x, y - 4);
		put_line(scene, "f", x + 11, y, &entry);
		x += entries[i].width;
	}
	crelay_scene_put(scene, "<path class=\"z\" d=\"M%d %dH%d\"/>", x, y - 4, x + 26);
	crelay_text_add(&words, "WAL kept for");
	put_line(scene, "f", x + 34, y, &words);
	words.len = 0;
	crelay_words_seen_by(scene, &words);
	put_line(scene, "f", MARGIN, y + 19, &words);
}

static int
most(int a, int b)
{
	return a > b ? a : b;
}

void
crelay_diagram_svg(const Scene *drawn)
{
	Scene		scene = *drawn;
	Text		title = {0};
	Text		counts = {0};
	Text		story = {0};
	int			width;
	int			height;

	place(&scene);
	crelay_words_title(&scene, &title);
	crelay_words_counts(&scene, &counts);
	crelay_words_story(&scene, &story);
	width = scene.columns * COLUMN_W + CARD_W - (scene.root >= 0 ? 0 : COLUMN_W - 70);
	width = most(most(width, 600), width_of(&title, 124));
	width = 2 * MARGIN + most(width, most(width_of(&counts, 74), width_of(&story, 84)));
	height = scene.bottom + FOOT;

	crelay_scene_put(&scene, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\">\n<title>",
					 width, height, width, height);
	put_text(&scene, &title);
	crelay_scene_put(&scene, "</title>\n<style>");
	scene.sink(scene.sink_arg, style, strlen(style));
	crelay_scene_put(&scene, "</style>\n<defs>");
	scene.sink(scene.sink_arg, shapes, strlen(shapes));
	crelay_scene_put(&scene, "</defs>\n<rect class=\"b\" width=\"%d\" height=\"%d\"/>\n", width, height);
	put_line(&scene, "t", MARGIN, 38, &title);
	put_line(&scene, "h", MARGIN, 59, &counts);
	put_line(&scene, "h w", MARGIN, 78, &story);
	put_edges(&scene);
	crelay_scene_put(&scene, "\n");
	for (int i = 0; i < scene.n; i++)
	{
		if (!scene.nodes[i].hidden)
			put_card(&scene, &scene.nodes[i]);
	}
	put_legend(&scene, scene.bottom + FOOT - 33);
	crelay_scene_put(&scene, "</svg>\n");
}
