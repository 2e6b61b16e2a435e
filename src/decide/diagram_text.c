/*-------------------------------------------------------------------------
 *
 * diagram_text.c
 *	  The picture of the tree as DOT and as Mermaid.
 *
 * Owns: the syntax of both, and escaping for them.  Other programs lay these
 * out.
 *
 * Not here: the words, and which nodes are folded (diagram.c).
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/diagram_internal.h"

#include <stdio.h>
#include <string.h>

/* Makes the texts of a node's label: name, state and distance, remarks. */
static void
label(const Scene *scene, const CrelayDiagramNode *n, Text *lines)
{
	Text		distance = {0};
	Text		remark = {0};

	if (n->folded > 0)
	{
		Text		second = {0};

		crelay_words_fold(scene, n, lines, &second);
		crelay_text_add(lines, "\n%s", second.s);
		return;
	}
	crelay_text_name(lines, n->node->name, CRELAY_NODE_NAME_MAX);
	if (n->local)
		crelay_text_add(lines, " %s", SIGN_HERE);
	crelay_text_add(lines, "\n");
	crelay_words_state(n, lines);
	crelay_words_distance(scene, n, &distance);
	if (distance.len > 0)
		crelay_text_add(lines, ", %s", distance.s);
	if (n->node->protected == CRELAY_FALSE)
		crelay_text_add(lines, "\nUNPROTECTED");
	crelay_words_remark(scene, n, CRELAY_NODE_NAME_MAX, &remark);
	if (remark.len > 0)
		crelay_text_add(lines, "\n%s", remark.s);
}

static void
head(const Scene *scene, Text *lines)
{
	Text		story = {0};

	crelay_words_title(scene, lines);
	crelay_text_add(lines, "\n");
	crelay_words_counts(scene, lines);
	crelay_words_story(scene, &story);
	if (story.len > 0)
		crelay_text_add(lines, "\n%s", story.s);
	crelay_text_add(lines, "\n");
	crelay_words_seen_by(scene, lines);
}

/* ---- DOT ---- */

/*
 * In a quoted string a backslash begins an escape, and an ampersand an entity.
 */
static void
put_dot(const Scene *scene, const Text *text)
{
	char		escaped[8 * TEXT_LEN];
	size_t		len = 0;

	for (int i = 0; i < text->len; i++)
	{
		unsigned char c = (unsigned char) text->s[i];

		if (c == '\n')
			len += (size_t) snprintf(escaped + len, sizeof(escaped) - len, "\\n");
		else if (c >= 1 && c <= SIGN_LAST)
			len += (size_t) snprintf(escaped + len, sizeof(escaped) - len, "&#%u;",
									 crelay_diagram_signs[c]);
		else if (strchr("&<>\"'\\", c) != NULL)
			len += (size_t) snprintf(escaped + len, sizeof(escaped) - len, "&#%u;", c);
		else
			escaped[len++] = (char) c;
	}
	scene->sink(scene->sink_arg, escaped, len);
}

static void
put_dot_node(const Scene *scene, int i)
{
	static const char *const colors[] = {
		[MOOD_GOOD] = "#2e8b57",[MOOD_WAITING] = "#c99700",
		[MOOD_BAD] = "#c0392b",[MOOD_SILENT] = "#8c96a6"
	};
	const CrelayDiagramNode *n = &scene->nodes[i];
	Text		lines = {0};

	label(scene, n, &lines);
	crelay_scene_put(scene, "  n%d [label=\"", i);
	put_dot(scene, &lines);
	crelay_scene_put(scene, "\", color=\"%s\"%s%s];\n", colors[crelay_diagram_mood(n)],
					 n->folded == 0 && !n->node->managed ? ", style=\"rounded,dashed\"" : "",
					 n->node->protected == CRELAY_FALSE ? ", penwidth=3" : "");
}

static void
put_dot_edge(const Scene *scene, int i)
{
	static const char *const styles[] = {
		[EDGE_SOLID] = "solid",[EDGE_DASHED] = "dashed",[EDGE_DOTTED] = "dotted"
	};
	const CrelayDiagramNode *n = &scene->nodes[i];

	if (n->parent < 0 && n->depth == 0)
		return;
	if (n->parent < 0)
	{
		crelay_scene_put(scene, "  u%d [label=\"%s\", shape=circle, style=dashed];\n", i,
						 n->state == CRELAY_STATE_CYCLE ? "&#8635;" : "?");
		crelay_scene_put(scene, "  u%d -> n%d [style=dotted];\n", i, i);
		return;
	}
	crelay_scene_put(scene, "  n%d -> n%d [style=%s", n->parent, i, styles[crelay_diagram_edge(n)]);
	if (n->on_path)
	{
		Text		bytes = {0};

		crelay_scene_put(scene, ", color=\"#dd7711\", penwidth=4");
		if (crelay_diagram_kept(scene, &scene->nodes[n->parent]) > 0)
		{
			crelay_words_bytes(crelay_diagram_kept(scene, &scene->nodes[n->parent]), &bytes);
			crelay_scene_put(scene, ", label=\"%s\", fontcolor=\"#a84f06\"", bytes.s);
		}
	}
	crelay_scene_put(scene, "];\n");
}

void
crelay_diagram_dot(const Scene *scene)
{
	Text		lines = {0};

	head(scene, &lines);
	crelay_scene_put(scene, "digraph cascade {\n  rankdir=LR;\n  labelloc=t;\n  fontname=\"sans-serif\";\n  label=\"");
	put_dot(scene, &lines);
	crelay_scene_put(scene, "\";\n  node [shape=box, style=rounded, fontname=\"sans-serif\", fontsize=11];\n  edge [fontname=\"sans-serif\", fontsize=11, arrowsize=0.6];\n");
	for (int i = 0; i < scene->n; i++)
	{
		if (!scene->nodes[i].hidden)
			put_dot_node(scene, i);
	}
	for (int i = 0; i < scene->n; i++)
	{
		if (!scene->nodes[i].hidden)
			put_dot_edge(scene, i);
	}
	crelay_scene_put(scene, "}\n");
}

/* ---- Mermaid ---- */

static bool
is_plain(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		(c != '\0' && strchr(" _-.,:/", c) != NULL);
}

/*
 * Mermaid has many characters with a meaning of their own, even in quotes: all
 * that might be one is written as its number.
 */
static void
put_mermaid(const Scene *scene, const Text *text)
{
	char		escaped[8 * TEXT_LEN];
	size_t		len = 0;

	for (int i = 0; i < text->len; i++)
	{
		unsigned char c = (unsigned char) text->s[i];

		if (c == '\n')
			len += (size_t) snprintf(escaped + len, sizeof(escaped) - len, "<br/>");
		else if (c >= 1 && c <= SIGN_LAST)
			len += (size_t) snprintf(escaped + len, sizeof(escaped) - len, "#%u;",
									 crelay_diagram_signs[c]);
		else if (!is_plain(c))
			len += (size_t) snprintf(escaped + len, sizeof(escaped) - len, "#%u;", c);
		else
			escaped[len++] = (char) c;
	}
	scene->sink(scene->sink_arg, escaped, len);
}

static void
put_mermaid_node(const Scene *scene, int i)
{
	static const char *const classes[] = {
		[MOOD_GOOD] = "good",[MOOD_WAITING] = "waiting",[MOOD_BAD] = "bad",[MOOD_SILENT] = "silent"
	};
	const CrelayDiagramNode *n = &scene->nodes[i];
	Text		lines = {0};

	label(scene, n, &lines);
	crelay_scene_put(scene, "  n%d[\"", i);
	put_mermaid(scene, &lines);
	crelay_scene_put(scene, "\"]:::%s\n", classes[crelay_diagram_mood(n)]);
	if (n->parent < 0 && n->depth > 0)
		crelay_scene_put(scene, "  u%d((\"%s\"))\n", i,
						 n->state == CRELAY_STATE_CYCLE ? "#8635;" : "?");
}

/*
 * Returns true if there is an edge to the node, which is then one more that
 * linkStyle counts.
 */
static bool
put_mermaid_edge(const Scene *scene, int i)
{
	const CrelayDiagramNode *n = &scene->nodes[i];
	uint64_t	kept = n->parent >= 0 ? crelay_diagram_kept(scene, &scene->nodes[n->parent]) : 0;
	Text		bytes = {0};

	if (n->parent < 0 && n->depth == 0)
		return false;
	if (n->parent < 0)
	{
		crelay_scene_put(scene, "  u%d -.-> n%d\n", i, i);
		return true;
	}
	crelay_scene_put(scene, "  n%d %s", n->parent, crelay_diagram_edge(n) == EDGE_SOLID ? "-->" : "-.->");
	if (n->on_path && kept > 0)
	{
		crelay_words_bytes(kept, &bytes);
		crelay_scene_put(scene, "|%s|", bytes.s);
	}
	crelay_scene_put(scene, " n%d\n", i);
	return true;
}

void
crelay_diagram_mermaid(const Scene *scene)
{
	Text		lines = {0};
	int			edges = 0;

	/* a comment: a title would need a block of YAML in front */
	head(scene, &lines);
	for (int i = 0; i < lines.len; i++)
	{
		if (lines.s[i] == '\n')
			lines.s[i] = SIGN_DASH[0];
	}
	crelay_scene_put(scene, "flowchart LR\n  %%%% ");
	put_mermaid(scene, &lines);
	crelay_scene_put(scene, "\n");
	for (int i = 0; i < scene->n; i++)
	{
		if (!scene->nodes[i].hidden)
			put_mermaid_node(scene, i);
	}
	for (int i = 0; i < scene->n; i++)
	{
		if (scene->nodes[i].hidden || !put_mermaid_edge(scene, i))
			continue;
		if (scene->nodes[i].on_path)
			crelay_scene_put(scene, "  linkStyle %d stroke:#dd7711,stroke-width:4px\n", edges);
		edges++;
	}
	crelay_scene_put(scene, "  classDef good stroke:#2e8b57,stroke-width:2px\n"
					 "  classDef waiting stroke:#c99700,stroke-width:2px\n"
					 "  classDef bad stroke:#c0392b,stroke-width:4px\n"
					 "  classDef silent stroke:#8c96a6,stroke-dasharray:4\n");
}
