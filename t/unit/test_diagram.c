/*-------------------------------------------------------------------------
 *
 * test_diagram.c
 *	  Unit tests of the pictures: layout, folding, words, escaping.
 *
 *-------------------------------------------------------------------------
 */
#include "tap.h"

#include <stdlib.h>

#include "decide/diagram.h"

#define NOW			INT64_C(800000000000000)
#define SECOND		INT64_C(1000000)
#define MB			INT64_C(1048576)
#define MAX_NODES	1200
#define TOP			(-1)		/* a root */
#define LOST		(-2)		/* an orphan */

static CrelayNode nodes[MAX_NODES];
static CrelayDiagramNode drawn[MAX_NODES];
static int	count;

static char output[4 * 1024 * 1024];
static size_t output_len;

static void
collect(void *arg, const char *text, size_t len)
{
	if (output_len + len >= sizeof(output))
		abort();
	memcpy(output + output_len, text, len);
	output_len += len;
	output[output_len] = '\0';
}

static void
begin(void)
{
	memset(nodes, 0, sizeof(nodes));
	/* the former content of the workspace must not matter */
	memset(drawn, 0x5a, sizeof(drawn));
	count = 0;
}

/* A protected node without lag, seen 3 s ago; its index. */
static int
add(const char *name, int parent, CrelayState state)
{
	CrelayNode *node = &nodes[count];
	CrelayDiagramNode *n = &drawn[count];

	snprintf(node->name, sizeof(node->name), "%s", name);
	snprintf(node->pin.by, sizeof(node->pin.by), "%s", name);
	snprintf(node->pin.on, sizeof(node->pin.on), "%s", name);
	node->incarnation = (uint32_t) count + 1;
	node->role = parent == TOP ? CRELAY_ROLE_PRIMARY : CRELAY_ROLE_STANDBY;
	node->state = state;
	node->managed = true;
	node->protected = CRELAY_TRUE;
	node->timeline = 1;
	node->flush_lsn = (uint64_t) (1000 * MB);
	node->replay_lsn = node->flush_lsn;
	node->frontier_lsn = node->flush_lsn;
	node->observed_at = NOW - 3 * SECOND;
	n->node = node;
	n->state = state;
	n->parent = parent < 0 ? -1 : parent;
	n->depth = parent == TOP ? 0 : parent == LOST ? 1 : drawn[parent].depth + 1;
	n->local = false;
	n->warnings = 0;
	n->lag = 0;
	return count++;
}

static void
pin(int i, int64_t bytes, const char *name)
{
	nodes[i].frontier_lsn = nodes[i].flush_lsn - (uint64_t) bytes;
	snprintf(nodes[i].pin.by, sizeof(nodes[i].pin.by), "%s", name);
	snprintf(nodes[i].pin.on, sizeof(nodes[i].pin.on), "%.40s", name);
}

static const char *
draw(CrelayDiagramFormat format)
{
	CrelayDiagram diagram = {0};

	diagram.n = count;
	diagram.nodes = drawn;
	diagram.now = NOW;
	diagram.time = "2026-11-30 03:51:22 UTC";
	diagram.segment_size = 16 * MB;
	diagram.lsn_digits = 1;
	output_len = 0;
	output[0] = '\0';
	crelay_diagram_draw(&diagram, format, collect, NULL);
	return output;
}

static bool
has(const char *piece)
{
	return strstr(output, piece) != NULL;
}

static int
times(const char *piece)
{
	int			n = 0;

	for (const char *p = output; (p = strstr(p, piece)) != NULL; p += strlen(piece))
		n++;
	return n;
}

/* p, with i and l below it, and m beside; l is down, and i and p keep WAL for it. */
static void
small_tree(void)
{
	int			p;
	int			i;
	int			l;

	begin();
	p = add("p", TOP, CRELAY_STATE_RUNNING);
	i = add("i", p, CRELAY_STATE_STREAMING);
	l = add("l", i, CRELAY_STATE_DOWN);
	add("m", p, CRELAY_STATE_CATCHUP);
	drawn[p].local = true;
	nodes[l].observed_at = NOW - 200 * SECOND;
	nodes[i].replica_class = CRELAY_CLASS_VOTING;
	drawn[3].lag = 900 * MB;
	nodes[3].protected = CRELAY_FALSE;
	pin(p, 28 * MB, "l");
	pin(i, 25 * MB, "l");
}

/* ---- well-formedness ---- */

/*
 * Returns true if all is printable ASCII and line feeds, tags match one
 * another, and no text or attribute has a bare delimiter.
 */
static bool
is_well_formed(const char *xml)
{
	char		stack[16][16];
	int			depth = 0;
	const char *p = xml;

	for (const char *c = xml; *c != '\0'; c++)
	{
		if (*c != '\n' && (*c < 0x20 || *c > 0x7e))
			return false;
	}
	while ((p = strchr(p, '<')) != NULL)
	{
		const char *end = strchr(p, '>');
		char		name[16];
		int			quotes = 0;

		if (end == NULL || sscanf(p + 1, "%15[a-z/]", name) != 1)
			return false;
		for (const char *c = p + 1; c < end; c++)
		{
			quotes += *c == '"';
			if (*c == '<')
				return false;
		}
		if (quotes % 2 != 0)
			return false;
		if (name[0] == '/')
		{
			if (depth == 0 || strcmp(stack[--depth], name + 1) != 0)
				return false;
		}
		else if (end[-1] != '/')
		{
			if (depth == 16)
				return false;
			strcpy(stack[depth++], name);
		}
		p = end + 1;
	}
	for (p = xml; (p = strchr(p, '&')) != NULL; p++)
	{
		char		c;

		if (sscanf(p, "&#%*u%c", &c) != 1 || c != ';')
			return false;
	}
	return depth == 0;
}

typedef struct Card
{
	int			x;
	int			y;
} Card;

/*
 * Returns true if no two cards of the SVG touch; how many there are in *n.
 */
static bool
cards_are_apart(int *n)
{
	static Card cards[MAX_NODES];
	bool		apart = true;

	*n = 0;
	for (const char *p = output; (p = strstr(p, "<g")) != NULL; p++)
	{
		Card		card;
		const char *at = strstr(p, "translate(");

		if (at == NULL || at - p > 30 || sscanf(at, "translate(%d,%d)", &card.x, &card.y) != 2)
			continue;
		for (int i = 0; i < *n; i++)
		{
			if (abs(cards[i].x - card.x) < 240 && abs(cards[i].y - card.y) < 74)
				apart = false;
		}
		cards[(*n)++] = card;
	}
	return apart;
}

/* ---- tests ---- */

static void
test_mermaid(void)
{
	small_tree();
	is_text(draw(CRELAY_DIAGRAM_MERMAID),
			"flowchart LR\n"
			"  %% Cascade of p#8212;4 nodes: 1 running, 1 streaming, 1 catchup, 1 down #8212; m unprotected#8212;p keeps 28 MB of WAL on its disk for l, which is down#8212;as p #9666; saw it, 2026-11-30 03:51:22 UTC\n"
			"  n0[\"p #9666;<br/>primary #183; running<br/>keeps 28 MB\"]:::good\n"
			"  n1[\"i<br/>streaming #183; voting, level<br/>keeps 25 MB\"]:::good\n"
			"  n2[\"l<br/>down, seen 3 min ago<br/>pins the WAL of all above\"]:::bad\n"
			"  n3[\"m<br/>catchup, 900 MB behind<br/>UNPROTECTED\"]:::waiting\n"
			"  n0 -->|28 MB| n1\n"
			"  linkStyle 0 stroke:#dd7711,stroke-width:4px\n"
			"  n1 -.->|25 MB| n2\n"
			"  linkStyle 1 stroke:#dd7711,stroke-width:4px\n"
			"  n0 -.-> n3\n"
			"  classDef good stroke:#2e8b57,stroke-width:2px\n"
			"  classDef waiting stroke:#c99700,stroke-width:2px\n"
			"  classDef bad stroke:#c0392b,stroke-width:4px\n"
			"  classDef silent stroke:#8c96a6,stroke-dasharray:4\n",
			"Mermaid: the whole text");
}

static void
test_svg(void)
{
	int			n;

	small_tree();
	draw(CRELAY_DIAGRAM_SVG);
	ok(is_well_formed(output), "SVG is well-formed");
	ok(cards_are_apart(&n) && n == 4, "a card for each node, and none upon another one");
	is_number((uint64_t) times("class=\"z"), 3, "the path from p to l is orange, and the legend says so");
	is_number((uint64_t) times(">UNPROTECTED<"), 1, "m has a red pill");
	ok(has("p keeps 28 MB of WAL on its disk for l, which is down"), "the story is told");
	ok(has("<title>l&#10;standby, down, protected"), "a tooltip says all");
	ok(has("timeline 1, replayed 0/3E800000"), "an LSN as the server prints it");
	ok(!has("<script") && !has("http://www.w3.org/1999") && !has("@import") && !has("url("),
	   "nothing comes from elsewhere");
	ok(has("prefers-color-scheme:dark"), "there is a dark one in it");

	/* a segment comes and goes with each report */
	pin(0, 16 * MB, "l");
	draw(CRELAY_DIAGRAM_SVG);
	ok(!has("keeps 16 MB") && times("class=\"z") == 1, "one segment is no story");
}

static void
test_dot(void)
{
	small_tree();
	draw(CRELAY_DIAGRAM_DOT);
	is_number((uint64_t) times(" -> "), 3, "DOT: three edges");
	ok(has("n0 -> n1 [style=solid, color=\"#dd7711\", penwidth=4, label=\"28 MB\""), "the path is thick");
	ok(has("n1 -> n2 [style=dotted, color="), "and dotted to a node that is down");
	ok(has("n0 -> n3 [style=dashed];"), "and the others are not");
}

/*
 * An application_name is arbitrary, and so is a location.
 */
static void
test_hostile_names(void)
{
	static const char *const names[] = {
		"</text><script>alert(1)</script>", "a\"b'c&d;", "back\\slash\\n", "]]>",
		"\"];n9[\"x", "#quot;x", "caf\xc3\xa9\x01\x1f\x7f", "`**x**`", "%%{init: {}}%%",
		"click n0 href \"javascript:x\"", " ", "--> n1"
	};

	begin();
	add("p", TOP, CRELAY_STATE_RUNNING);
	drawn[0].local = true;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		int			n = add(names[i], 0, CRELAY_STATE_STREAMING);

		nodes[n].managed = false;
		snprintf(nodes[n].location, sizeof(nodes[n].location), "%s", names[i]);
	}
	pin(0, 100 * MB, names[0]);

	draw(CRELAY_DIAGRAM_SVG);
	ok(is_well_formed(output), "SVG with hostile names is well-formed");
	ok(!has("<script") && !has("alert(1)<"), "and has no script");
	ok(has("caf?????"), "a byte that is not printable is a question mark");
	draw(CRELAY_DIAGRAM_DOT);
	ok(!has("script>") && !has("back\\slash") && has("back&#92;slash&#92;n"), "DOT: escaped");
	is_number((uint64_t) times("\" -> "), 0, "DOT: no name makes an edge");
	draw(CRELAY_DIAGRAM_MERMAID);
	ok(!has("<script") && !has("&") && !has("`"), "Mermaid: escaped");
	is_number((uint64_t) times("[\""), sizeof(names) / sizeof(names[0]) + 1, "Mermaid: a label for each node");
	is_number((uint64_t) times("%%"), 1, "Mermaid: no name is a directive");
}

static void
test_places(void)
{
	int			cycle;

	begin();
	add("lost", LOST, CRELAY_STATE_ARCHIVE);
	drawn[0].local = true;
	nodes[0].protected = CRELAY_UNKNOWN;
	cycle = add("loop_a", LOST, CRELAY_STATE_CYCLE);
	add("loop_b", cycle, CRELAY_STATE_CYCLE);
	draw(CRELAY_DIAGRAM_SVG);
	ok(is_well_formed(output), "an orphan and a cycle: well-formed");
	ok(has("Cascade without a known primary"), "there is no root, and that is said");
	ok(has(">?</text>") && has(">&#8635;</text>"), "they hang from signs of their own");
	ok(has("protection not known of 1"), "unknown protection is not called protected");
	begin();
	draw(CRELAY_DIAGRAM_SVG);
	ok(is_well_formed(output) && has("Nothing is known"), "no node at all is a picture, too");
	draw(CRELAY_DIAGRAM_DOT);
	draw(CRELAY_DIAGRAM_MERMAID);
	ok(has("flowchart LR"), "in each format");

	begin();
	add("p", TOP, CRELAY_STATE_RUNNING);
	add("q", TOP, CRELAY_STATE_RUNNING);
	draw(CRELAY_DIAGRAM_SVG);
	ok(has("Cascade of p, and 2 primaries at once"), "two primaries are seen at a glance");
}

static void
test_words(void)
{
	int			l;

	begin();
	add("p", TOP, CRELAY_STATE_RUNNING);
	l = add("a_node_with_a_rather_long_name_of_site_2", 0, CRELAY_STATE_STALE);
	nodes[l].observed_at = NOW - 3 * 24 * 3600 * SECOND;
	draw(CRELAY_DIAGRAM_SVG);
	ok(has(">a_node_with_&#8230;site_2<") || has("&#8230;"), "a long name is cut in the middle");
	ok(has("site_2</text>"), "and keeps its end");
	ok(has("seen 3 days ago"), "days are told as such");
	ok(has("all protected when last seen"), "old news are called so");
	nodes[l].observed_at = 0;
	draw(CRELAY_DIAGRAM_SVG);
	ok(has("not seen yet"), "a node that has not called yet");

	/* a delayed standby is late because it is told to be */
	nodes[l].observed_at = NOW;
	drawn[l].state = CRELAY_STATE_STREAMING;
	nodes[l].apply_delay_ms = 3600 * 1000;
	pin(0, 900 * MB, nodes[l].name);
	drawn[l].lag = 900 * MB;
	draw(CRELAY_DIAGRAM_SVG);
	ok(has(", which replays 60 min late<"), "a delay is told");
	drawn[l].warnings = CRELAY_WARN_REPLAY_PAUSED;
	draw(CRELAY_DIAGRAM_SVG);
	ok(has(", whose replay is paused<"), "and a pause");
	drawn[l].warnings = 0;
	nodes[l].apply_delay_ms = 0;
	drawn[l].state = CRELAY_STATE_DOWN;

	/* the slot of a node that was never seen streaming pins, and is not drawn */
	pin(0, 58 * 1024 * MB, "some_slot");
	nodes[0].pin.kind = CRELAY_PIN_SLOT;
	strcpy(nodes[0].pin.slot, "some_slot");
	strcpy(nodes[0].pin.on, "p");
	nodes[0].flush_lsn = (uint64_t) (100 * 1024 * MB);
	nodes[0].frontier_lsn = (uint64_t) (42 * 1024 * MB);
	draw(CRELAY_DIAGRAM_SVG);
	ok(has("p keeps 58 GB of WAL on its disk for slot some_slot<"), "the story without a card to lead to");
	is_number((uint64_t) times("class=\"z"), 1, "has no path");

	/* nor does a slot that is called like a node prove that the node pins */
	small_tree();
	nodes[0].pin.kind = CRELAY_PIN_SLOT;
	strcpy(nodes[0].pin.by, "m");
	strcpy(nodes[0].pin.slot, "m");
	strcpy(nodes[0].pin.on, "i");
	draw(CRELAY_DIAGRAM_SVG);
	ok(has("on its disk for slot m on i<"), "a pin is a place");
	is_number((uint64_t) times("class=\"z"), 2, "the path leads to that place");
	ok(!has("pins the WAL"), "and accuses no node");
}

/*
 * 300 nodes: 30 relays of 9 leaves each.
 */
static void
wide_tree(CrelayState third)
{
	begin();
	add("p", TOP, CRELAY_STATE_RUNNING);
	drawn[0].local = true;
	for (int i = 0; i < 300; i++)
	{
		bool		relay = i % 10 == 0;
		char		name[32];
		int			n;

		snprintf(name, sizeof(name), "%s_%03d", relay ? "relay" : "leaf", i);
		n = add(name, relay ? 0 : i - i % 10 + 1, i % 3 == 2 ? third : CRELAY_STATE_STREAMING);
		snprintf(nodes[n].location, sizeof(nodes[n].location), "region_%d", i % 7);
		drawn[n].lag = i % 10 * MB * 10;
	}
}

static void
test_folding(void)
{
	int			n;

	wide_tree(CRELAY_STATE_STREAMING);
	draw(CRELAY_DIAGRAM_SVG);
	ok(cards_are_apart(&n) && n <= 40, "300 healthy nodes are few cards");
	ok(has(">280 more<") && has(">7 more<"), "whose words say how many they stand for");
	ok(has("streaming, at most 90 MB behind"), "and how far behind they are at most");
	ok(output_len < 20000, "and few bytes");

	wide_tree(CRELAY_STATE_DOWN);
	for (int i = 0; i < count; i++)
	{
		if (drawn[i].state == CRELAY_STATE_DOWN)
			nodes[i].protected = CRELAY_FALSE;
	}
	draw(CRELAY_DIAGRAM_SVG);
	ok(is_well_formed(output), "100 nodes that are down: well-formed");
	is_number((uint64_t) times("\">UNPROTECTED<"), 100, "none of them is folded");
	ok(output_len < 200000, "in less than 200 kB");
	ok(has("and 96 more unprotected"), "the head names some");

	for (int i = 0; i < count; i++)
		drawn[i].warnings = CRELAY_WARN_HOLD_CLAMPED | CRELAY_WARN_NO_FREE_SLOT;
	draw(CRELAY_DIAGRAM_SVG);
	ok(cards_are_apart(&n) && n == 301, "300 nodes with warnings are 301 cards");
	ok(output_len < 200000, "in %zu bytes", output_len);

	wide_tree(CRELAY_STATE_STREAMING);
	for (int i = 0; i < count; i++)
	{
		if (drawn[i].depth == 2 && i % 10 > 4)
			drawn[i].state = CRELAY_STATE_STALE;
	}
	draw(CRELAY_DIAGRAM_SVG);
	ok(has("no news of them"), "what was cut off together is folded, too");
	draw(CRELAY_DIAGRAM_DOT);
	ok(has("no news of them"), "in each format");
}

/*
 * Trees of any shape: whatever is drawn is well-formed, nothing lies upon
 * something else, and each edge has both its ends.
 */
static void
test_random(void)
{
	int			bad_form = 0;
	int			overlaps = 0;
	int			lost_ends = 0;

	for (int round = 0; round < 300; round++)
	{
		int			n = (int) random_below(120);
		int			cards;
		int			last = -1;

		begin();
		for (int i = 0; i < n; i++)
		{
			char		name[32];
			int			parent = i == 0 ? (random_below(3) ? TOP : LOST) : last;

			/*
			 * the tree's order: below the last one, or beside it or one above
			 * it
			 */
			while (parent >= 0 && random_below(3) > 0 && drawn[parent].parent >= 0)
				parent = drawn[parent].parent;
			if (i > 0 && random_below(20) == 0)
				parent = LOST;
			snprintf(name, sizeof(name), "n%d<&\"%d", i, (int) random_below(100));
			last = add(name, parent, (CrelayState) random_below(CRELAY_STATE_LAST + 1));
			drawn[last].warnings = random_below(4) ? 0 : random_below(1u << 16);
			nodes[last].protected = (CrelayTruth) random_below(3);
			nodes[last].managed = random_below(4) > 0;
			drawn[last].lag = (int64_t) random_below(300) * MB - 1;
			pin(last, (int64_t) random_below(100) * MB, nodes[random_below((uint32_t) i + 1)].name);
		}
		if (n > 0)
			drawn[random_below((uint32_t) n)].local = true;
		draw(CRELAY_DIAGRAM_SVG);
		bad_form += !is_well_formed(output);
		overlaps += !cards_are_apart(&cards);
		draw(CRELAY_DIAGRAM_MERMAID);
		for (const char *p = output; (p = strstr(p, "> n")) != NULL; p++)
		{
			char		node[32];
			int			to = atoi(p + 3);

			snprintf(node, sizeof(node), "\n  n%d[", to);
			lost_ends += !has(node);
		}
		draw(CRELAY_DIAGRAM_DOT);
	}
	is_number((uint64_t) bad_form, 0, "random trees: all well-formed");
	is_number((uint64_t) overlaps, 0, "random trees: no card upon another one");
	is_number((uint64_t) lost_ends, 0, "random trees: each edge leads to a node");
}

static void
test_formats(void)
{
	CrelayDiagramFormat format;

	ok(crelay_diagram_format_parse("svg", &format) && format == CRELAY_DIAGRAM_SVG, "svg");
	ok(crelay_diagram_format_parse("dot", &format) && format == CRELAY_DIAGRAM_DOT, "dot");
	ok(crelay_diagram_format_parse("mermaid", &format) && format == CRELAY_DIAGRAM_MERMAID, "mermaid");
	ok(!crelay_diagram_format_parse("SVG", &format) && !crelay_diagram_format_parse("", &format),
	   "and no other");
}

int
main(void)
{
	test_formats();
	test_mermaid();
	test_svg();
	test_dot();
	test_hostile_names();
	test_places();
	test_words();
	test_folding();
	test_random();
	return done_testing();
}
