/*-------------------------------------------------------------------------
 *
 * fuzz_message.c
 *	  A libFuzzer target for the wire format.
 *
 * Owns: the claim that no input is read behind its end, and that what is read
 * can be written and is the same when read again; that every tree that can be
 * told can be drawn; and a mutator that knows where lengths are, so that most of
 * what it makes is read to its end.
 *
 * Not here: the seeds (fuzz_seeds.c), building and running it (tools/fuzz).
 *
 * Each input is tried as it is, and as the body of a message of each kind
 * behind a good envelope, so that no time is lost on guessing the length.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/diagram.h"
#include "decide/message.h"
#include "decide/topology.h"

#include <stdlib.h>
#include <string.h>

#define NOW				INT64_C(800000000000000)
#define ENVELOPE_SIZE	12
#define MAX_DRAWN		48

#define REQUIRE(condition) \
	do { \
		if (!(condition)) \
			abort(); \
	} while (0)

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size,
									  size_t max_size, unsigned int seed);
extern size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static uint8_t *
allocate(size_t size)
{
	uint8_t    *p = malloc(size > 0 ? size : 1);

	REQUIRE(p != NULL);
	return p;
}

static void
try_hello(const uint8_t *data, size_t size)
{
	CrelayHello first;
	CrelayHello second;
	uint8_t		buf[256];
	size_t		len;
	const char *error;

	if (!crelay_message_get_hello(data, size, &first, &error))
	{
		REQUIRE(error != NULL);
		return;
	}
	len = crelay_message_put_hello(buf, sizeof(buf), &first);
	REQUIRE(len > 0);
	REQUIRE(crelay_message_get_hello(buf, len, &second, &error));
	REQUIRE(memcmp(&first, &second, sizeof(first)) == 0);
}

/* Copies the rows into a message begun in cur; their number. */
static uint32_t
copy_rows(CrelayCursor *cur, CrelayCursor *rows)
{
	CrelayNode	row;
	uint32_t	n = 0;

	while (crelay_message_get_row(rows, &row, NOW))
	{
		crelay_message_put_row(cur, &row, NOW);
		n++;
	}
	return n;
}

static void
compare_rows(CrelayCursor *one, CrelayCursor *other)
{
	CrelayNode	first;
	CrelayNode	second;

	while (crelay_message_get_row(one, &first, NOW))
	{
		REQUIRE(crelay_message_get_row(other, &second, NOW));
		REQUIRE(memcmp(&first, &second, sizeof(first)) == 0);
	}
	REQUIRE(!crelay_message_get_row(other, &second, NOW));
}

/* A picture is printable ASCII, and no name in it is markup. */
static void
check_picture(void *arg, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		REQUIRE(text[i] == '\n' || (text[i] >= 0x20 && text[i] <= 0x7e));
	for (size_t i = 0; i + 7 <= len; i++)
		REQUIRE(memcmp(text + i, "<script", 7) != 0);
}

/* Puts the rows in the tree's order and draws them, in each format. */
static void
draw_rows(CrelayCursor rows)
{
	static CrelayNode nodes[MAX_DRAWN];
	static CrelayTreeLink links[MAX_DRAWN];
	static CrelayTreeRow tree[MAX_DRAWN];
	static CrelayDiagramNode drawn[MAX_DRAWN];
	CrelayDiagram diagram = {0};
	int			n = 0;

	while (n < MAX_DRAWN && crelay_message_get_row(&rows, &nodes[n], NOW))
		n++;
	diagram.n = crelay_topology_assemble(nodes, n, links, tree);
	diagram.nodes = drawn;
	diagram.now = NOW;
	diagram.time = "";
	diagram.segment_size = 1 << 20;
	for (int r = 0; r < diagram.n; r++)
	{
		drawn[r].node = &nodes[tree[r].node];
		drawn[r].state = tree[r].cyclic ? CRELAY_STATE_CYCLE : drawn[r].node->state;
		drawn[r].parent = tree[r].parent;
		drawn[r].depth = tree[r].depth;
		drawn[r].local = r == 1;
		drawn[r].warnings = drawn[r].node->warnings;
		drawn[r].lag = (int64_t) (drawn[r].node->replay_lsn >> 1) - 1;
	}
	crelay_diagram_draw(&diagram, CRELAY_DIAGRAM_SVG, check_picture, NULL);
	crelay_diagram_draw(&diagram, CRELAY_DIAGRAM_DOT, check_picture, NULL);
	crelay_diagram_draw(&diagram, CRELAY_DIAGRAM_MERMAID, check_picture, NULL);
}

static void
try_report(const uint8_t *data, size_t size)
{
	CrelayReport first;
	CrelayReport second;
	CrelayCursor rows;
	CrelayCursor again;
	CrelayCursor cur;
	uint8_t    *buf;
	size_t		bound;
	size_t		len;
	const char *error;

	if (!crelay_message_get_report(data, size, &first, &rows, &error))
	{
		REQUIRE(error != NULL);
		return;
	}
	/* drawing takes longer than reading: a share of the inputs is enough */
	if (size % 16 == 0)
		draw_rows(rows);
	bound = crelay_message_size_bound(first.nrows);
	buf = allocate(bound);
	again = rows;
	crelay_message_begin_report(&cur, buf, bound, &first);
	REQUIRE(copy_rows(&cur, &again) == first.nrows);
	len = crelay_message_end(&cur);
	REQUIRE(len > 0);
	REQUIRE(crelay_message_get_report(buf, len, &second, &again, &error));
	REQUIRE(memcmp(&first, &second, sizeof(first)) == 0);
	compare_rows(&rows, &again);
	free(buf);
}

static void
try_reply(const uint8_t *data, size_t size)
{
	CrelayReply first;
	CrelayReply second;
	CrelayCursor rows;
	CrelayCursor again;
	CrelayCursor cur;
	uint8_t    *buf;
	size_t		bound;
	size_t		len;
	const char *error;

	if (!crelay_message_get_reply(data, size, &first, &rows, &error))
	{
		REQUIRE(error != NULL);
		return;
	}
	/* it may be newer than we are, and is shown all the same */
	REQUIRE(crelay_refusal_text(first.refusal) != NULL);
	REQUIRE(crelay_refusal_hint(first.refusal) != NULL);
	/* drawing takes longer than reading: a share of the inputs is enough */
	if (size % 16 == 0)
		draw_rows(rows);
	bound = crelay_message_size_bound(first.nrows);
	buf = allocate(bound);
	again = rows;
	crelay_message_begin_reply(&cur, buf, bound, &first);
	REQUIRE(copy_rows(&cur, &again) == first.nrows);
	len = crelay_message_end(&cur);
	REQUIRE(len > 0);
	REQUIRE(crelay_message_get_reply(buf, len, &second, &again, &error));
	REQUIRE(memcmp(&first, &second, sizeof(first)) == 0);
	compare_rows(&rows, &again);
	free(buf);
}

static void
try_all(const uint8_t *data, size_t size)
{
	try_hello(data, size);
	try_report(data, size);
	try_reply(data, size);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t		whole = ENVELOPE_SIZE + size;
	uint8_t    *copy;
	int			kind;

	try_all(data, size);
	REQUIRE((unsigned) crelay_message_fit(data, size) <= CRELAY_FIT_SENDER_TOO_OLD);

	copy = allocate(whole);
	memcpy(copy, "CRLY\1\1\0\0", 8);
	copy[8] = (uint8_t) (whole >> 24);
	copy[9] = (uint8_t) (whole >> 16);
	copy[10] = (uint8_t) (whole >> 8);
	copy[11] = (uint8_t) whole;
	memcpy(copy + ENVELOPE_SIZE, data, size);
	for (kind = CRELAY_MSG_HELLO; kind <= CRELAY_MSG_REPLY; kind++)
	{
		copy[6] = (uint8_t) kind;
		try_all(copy, whole);
		/* of a newer sender more is let pass */
		copy[4] = CRELAY_MESSAGE_VERSION + 1;
		try_all(copy, whole);
		copy[4] = CRELAY_MESSAGE_VERSION;
	}
	free(copy);
	return 0;
}

/* ---- mutating what is there, with its lengths kept right ---- */

#define MAX_PARTS		80

/* A section, or a row or a hop in one. */
typedef struct Part
{
	unsigned	tag;			/* of a section */
	const uint8_t *data;
	size_t		len;
} Part;

static size_t
load(const uint8_t *p, size_t width)
{
	size_t		value = 0;

	while (width-- > 0)
		value = value << 8 | *p++;
	return value;
}

static void
store(uint8_t *p, size_t value, size_t width)
{
	while (width > 0)
	{
		p[--width] = (uint8_t) value;
		value >>= 8;
	}
}

/* Takes data apart as far as its lengths hold; the number of parts. */
static int
split(const uint8_t *data, size_t size, size_t tag_width, size_t len_width,
	  Part *parts)
{
	size_t		header = tag_width + len_width;
	size_t		at = 0;
	int			n = 0;

	while (n < MAX_PARTS && size - at >= header)
	{
		size_t		len = load(data + at + tag_width, len_width);

		parts[n].tag = (unsigned) load(data + at, tag_width);
		at += header;
		parts[n].data = data + at;
		parts[n].len = len < size - at ? len : size - at;
		at += parts[n++].len;
	}
	return n;
}

/* Puts parts together again, as many as fit; the size. */
static size_t
join(const Part *parts, int n, size_t tag_width, size_t len_width,
	 uint8_t *to, size_t room)
{
	size_t		header = tag_width + len_width;
	size_t		at = 0;

	for (int i = 0; i < n && room - at >= header + parts[i].len; i++)
	{
		store(to + at, parts[i].tag, tag_width);
		store(to + at + tag_width, parts[i].len, len_width);
		memcpy(to + at + header, parts[i].data, parts[i].len);
		at += header + parts[i].len;
	}
	return at;
}

/* One part goes, comes twice, changes places or is changed in itself. */
static int
mutate_parts(Part *parts, int n, unsigned dice, uint8_t *buf, size_t room)
{
	int			at = (int) (dice / 16 % (unsigned) n);
	Part		other = parts[dice / 256 % (unsigned) n];

	switch (dice % 16)
	{
		case 0:
			memmove(&parts[at], &parts[at + 1], sizeof(Part) * (size_t) (n - at - 1));
			return n - 1;
		case 1:
			if (n == MAX_PARTS)
				return n;
			memmove(&parts[at + 1], &parts[at], sizeof(Part) * (size_t) (n - at));
			return n + 1;
		case 2:
			other.tag = parts[at].tag;
			parts[at] = other;
			return n;
		default:
			if (parts[at].len > room)
				return n;
			memcpy(buf, parts[at].data, parts[at].len);
			parts[at].len = LLVMFuzzerMutate(buf, parts[at].len, room);
			parts[at].data = buf;
			return n;
	}
}

/* The rows behind their count, or the hops behind theirs. */
static size_t
mutate_items(const Part *section, size_t count_width, unsigned dice,
			 uint8_t *to, size_t room)
{
	Part		items[MAX_PARTS];
	uint8_t		buf[1024];
	size_t		size;
	int			n;

	if (section->len < count_width || room < count_width)
		return 0;
	n = split(section->data + count_width, section->len - count_width, 0, 2, items);
	if (n > 0)
		n = mutate_parts(items, n, dice, buf, sizeof(buf));
	size = join(items, n, 0, 2, to + count_width, room - count_width);
	store(to, (size_t) n, count_width);
	return count_width + size;
}

/*
 * A quarter of the inputs are mutated blindly, so that wrong lengths are tried
 * too.
 */
size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
						unsigned int seed)
{
	Part		sections[MAX_PARTS];
	unsigned	dice = seed / 4;
	uint8_t    *result;
	uint8_t    *buf;
	int			n = split(data, size, 2, 4, sections);

	if (seed % 4 == 0 || n == 0)
		return LLVMFuzzerMutate(data, size, max_size);

	buf = allocate(max_size);
	result = allocate(max_size);
	for (int i = 0; i < n; i++)
	{
		size_t		count_width = sections[i].tag == 0x7000 ? 4 :
		sections[i].tag == 5 ? 1 : 0;

		if (count_width == 0 || dice % 3 != 0)
			continue;
		sections[i].len = mutate_items(&sections[i], count_width, dice / 3, buf, max_size);
		sections[i].data = buf;
		break;
	}
	if (dice % 3 != 0)
		n = mutate_parts(sections, n, dice / 3, buf, max_size);
	size = join(sections, n, 2, 4, result, max_size);
	memcpy(data, result, size);
	free(buf);
	free(result);
	return size;
}
