/*-------------------------------------------------------------------------
 *
 * message.c
 *	  The report that a node sends its upstream, and the reply to it.
 *
 * Owns: the wire format, in network byte order throughout:
 *
 *	  envelope	"CRLY", u8 sender version, u8 oldest reader version, u8 kind,
 *				u8 zero, u32 length of the whole message
 *	  section	u16 tag, u32 length, payload; as many as fill the message
 *	  string	u8 length (u16 for a conninfo or address), printable ASCII, no zero
 *	  ROWS		u32 count, then the rows, each with a u16 length before it
 *	  HOPS		u8 count, then the hops, likewise
 *
 * What may grow: sections with new tags, which are skipped here; fields at the
 * end of a section, a row or a hop, which are ignored; and, except for the
 * answer, the values of enums, which read as unknown if the sender is newer.
 * A field that was appended later may be missing, and then is unknown; what is
 * shorter than the fields of version 1 is malformed.  Sections come in
 * ascending order of their tags; that makes a duplicate, known or not, visible
 * without keeping a list of those seen.
 *
 * When that is not enough, a sender raises the oldest reader that it speaks to,
 * and a reader the oldest sender that it listens to.  Whoever finds that out
 * says which side is to be upgraded, nothing of the message is used, and what
 * is held stays held.
 *
 * The writer checks enums, keys and counts as the reader does, so that a
 * sender learns of its own mistake from CrelayCursor.error instead of from a
 * refusal by another machine.  What is only shown to people is made to fit
 * instead: a byte that is not printable ASCII becomes a question mark, and a
 * negative lag becomes unknown.
 *
 * Not here: what a message means to the receiver (report_funcs.c), and how
 * it travels (upstream.c).  No PostgreSQL header, no allocation, no clock.
 *
 * Locking: none; all state is the caller's.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/message.h"

#include "decide/address.h"

#include <string.h>

#define MAGIC				"CRLY"
#define MAGIC_LEN			4

/* Offsets in the envelope, and its size. */
#define ENVELOPE_SENDER		4
#define ENVELOPE_READER		5
#define ENVELOPE_KIND		6
#define ENVELOPE_RESERVED	7
#define ENVELOPE_LENGTH		8
#define ENVELOPE_SIZE		12

#define SECTION_HEADER_SIZE	6

/*
 * The rows have the highest tag: they are streamed after everything that is
 * known when a message begins, and sections yet to be invented go before them.
 */
#define TAG_HELLO			1
#define TAG_REPORT			2
#define TAG_REPLY			3
#define TAG_ABOUT			4
#define TAG_HOPS			5
#define TAG_HISTORY			6
#define TAG_SYNC_NAMES		7
#define TAG_TREE_HOLD		8
#define TAG_SOFTWARE		9
#define TAG_ROWS			0x7000

/*
 * The most that one row takes.  A string takes as much as its buffer: the
 * length is where the terminating zero was, and the conninfo's has one byte
 * more.
 */
#define FEED_SIZE			6
#define ROOM_SIZE			5
#define ROW_NUMBERS			(6 * 4 + 7 * 1 + 5 * 8 + 4 + 4 + FEED_SIZE + ROOM_SIZE)
#define ROW_BOUND			(2 + ROW_NUMBERS + 4 * CRELAY_NAME_LEN + \
							 CRELAY_LOCATION_LEN + CRELAY_CONNINFO_LEN + 1 + \
							 CRELAY_VERSION_LEN + CRELAY_ADDRESS_LEN + 1 + \
							 CRELAY_NODE_NAME_MAX + 1 + CRELAY_SLOT_LEN + GROWTH)

/*
 * t/037_upgrade.pl builds a library of a version to come with
 * CRELAY_MESSAGE_GROWN: it appends to everything that may grow.
 */
#ifdef CRELAY_MESSAGE_GROWN
#define GROWTH				4
#define TAG_GROWTH			(TAG_ROWS - 1)
#else
#define GROWTH				0
#endif

/* More than the rest of any message takes; the largest is a reply's. */
#define FIXED_BOUND			(1024 + CRELAY_MAX_DEPTH * (CRELAY_NODE_NAME_MAX + 16) + \
							 CRELAY_MAX_SYNC_NAMES * CRELAY_SLOT_LEN)

static const char *const err_buffer = "buffer is too small";
static const char *const err_truncated = "message is truncated";
static const char *const err_short = "a section is too short";
static const char *const err_missing = "a mandatory section is missing";
static const char *const err_order = "a section is repeated or out of order";
static const char *const err_kind = "unknown message kind";
static const char *const err_other_kind = "not the kind of message expected";
static const char *const err_range = "a value is out of range";
static const char *const err_bool = "a boolean is neither 0 nor 1";
static const char *const err_lag = "a lag is negative";
static const char *const err_long = "a string is too long";
static const char *const err_ascii = "a name is not printable ASCII";
static const char *const err_name = "a name is not a node name";
static const char *const err_slot = "a name is not a slot name";
static const char *const err_empty = "a name is empty";
static const char *const err_incarnation = "an incarnation does not fit its node";
static const char *const err_hops = "too many hops";
static const char *const err_history = "too many timelines";
static const char *const err_rows = "too many rows";
static const char *const err_half_tree = "half of the tree part is missing";
static const char *const err_no_tree = "a row without a tree part";

static bool
is_printable(unsigned char c)
{
	return c >= 0x20 && c <= 0x7e;
}

/*
 * Returns true if a name consists of one to max of the characters that a slot
 * name may have.
 */
static bool
is_plain_name(const char *name, size_t max)
{
	for (size_t len = 0; len <= max; len++)
	{
		char		c = name[len];

		if (c == '\0')
			return len > 0;
		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'))
			return false;
	}
	return false;
}

bool
crelay_node_name_is_valid(const char *name)
{
	return is_plain_name(name, CRELAY_NODE_NAME_MAX);
}

/*
 * Whether a conninfo is in keyword and value form and has none of libpq's
 * keywords for a secret.
 */
bool
crelay_conninfo_is_public(const char *conninfo)
{
	static const char *const secret[] = {"password", "scram_", "secret", "://"};

	for (size_t i = 0; i < sizeof(secret) / sizeof(secret[0]); i++)
	{
		if (strstr(conninfo, secret[i]) != NULL)
			return false;
	}
	return true;
}

/* The first error is the one that explains the others. */
static void
fail(CrelayCursor *cur, const char *error)
{
	if (cur->error == NULL)
		cur->error = error;
}

/*
 * The next n bytes, for writing or reading, or NULL with the given error if
 * there are fewer.  After an error there are none any more, so that callers
 * need to look only once, at the end.
 */
static uint8_t *
take(CrelayCursor *cur, size_t n, const char *error)
{
	uint8_t    *p;

	if (cur->error != NULL)
		return NULL;
	if (cur->size - cur->at < n)
	{
		fail(cur, error);
		return NULL;
	}
	p = cur->data + cur->at;
	cur->at += n;
	return p;
}

static void
store_uint(uint8_t *p, uint64_t value, size_t width)
{
	while (width > 0)
	{
		p[--width] = (uint8_t) (value & 0xff);
		value >>= 8;
	}
}

static uint64_t
load_uint(const uint8_t *p, size_t width)
{
	uint64_t	value = 0;
	size_t		i;

	for (i = 0; i < width; i++)
		value = (value << 8) | p[i];
	return value;
}

/*
 * Whether the key and the parent of a row are what they claim to be; NULL if
 * so, else the error.  Only managed nodes have an incarnation, and only they
 * have children that name them by it.
 */
static const char *
row_key_error(const CrelayNode *row)
{
	if (row->managed != (row->incarnation != 0))
		return err_incarnation;
	if (row->managed && !crelay_node_name_is_valid(row->name))
		return err_name;
	if (row->name[0] == '\0')
		return err_empty;
	if (row->upstream_incarnation != 0 &&
		!crelay_node_name_is_valid(row->upstream_name))
		return err_name;
	return NULL;
}


/*
 * Writing
 */

static void
put_uint(CrelayCursor *cur, uint64_t value, size_t width)
{
	uint8_t    *p = take(cur, width, err_buffer);

	if (p != NULL)
		store_uint(p, value, width);
}

static void
put_u8(CrelayCursor *cur, uint8_t value)
{
	put_uint(cur, value, 1);
}

static void
put_u16(CrelayCursor *cur, uint16_t value)
{
	put_uint(cur, value, 2);
}

static void
put_u32(CrelayCursor *cur, uint32_t value)
{
	put_uint(cur, value, 4);
}

static void
put_u64(CrelayCursor *cur, uint64_t value)
{
	put_uint(cur, value, 8);
}

static void
put_enum(CrelayCursor *cur, unsigned value, unsigned first, unsigned last)
{
	if (value < first || value > last)
		fail(cur, err_range);
	put_u8(cur, (uint8_t) value);
}

/*
 * A string out of a buffer of buflen bytes, after a length of that width.  A
 * buffer without a terminating zero is cut, never read past.
 */
static void
put_string(CrelayCursor *cur, const char *str, size_t buflen, size_t width)
{
	const char *zero = memchr(str, '\0', buflen);
	size_t		len = zero != NULL ? (size_t) (zero - str) : buflen - 1;
	uint8_t    *p;
	size_t		i;

	put_uint(cur, len, width);
	p = take(cur, len, err_buffer);
	if (p == NULL)
		return;
	for (i = 0; i < len; i++)
		p[i] = is_printable((unsigned char) str[i]) ? (uint8_t) str[i] : '?';
}

/* Where a pin is; its name went before.  A node pins on itself. */
static void
put_place(CrelayCursor *cur, const CrelayPin *pin)
{
	put_enum(cur, pin->kind, 0, CRELAY_PIN_LAST);
	if (pin->kind == CRELAY_PIN_NODE)
		return;
	put_string(cur, pin->on, sizeof(pin->on), 1);
	put_string(cur, pin->slot, sizeof(pin->slot), 1);
}

static void
put_room(CrelayCursor *cur, const CrelayRoom *room)
{
	put_u8(cur, room->known ? 1 : 0);
	put_u16(cur, room->senders);
	put_u16(cur, room->slots);
}

/* Where a node is, unless that means nothing where the message goes. */
static void
put_address(CrelayCursor *cur, const char *address, size_t size)
{
	if (cur->other_machine && crelay_address_is_local(address))
		put_string(cur, "", 1, 2);
	else
		put_string(cur, address, size, 2);
}

/* How long ago that was; a time ahead of now is a clock step, not a wonder. */
static uint32_t
age_of(int64_t observed_at, int64_t now)
{
	uint64_t	age;

	if (observed_at == 0)
		return CRELAY_AGE_UNKNOWN;
	if (observed_at >= now)
		return 0;
	/* unsigned, for the difference of two int64 may not fit one */
	age = ((uint64_t) now - (uint64_t) observed_at) / 1000;
	return age < CRELAY_AGE_UNKNOWN ? (uint32_t) age : CRELAY_AGE_UNKNOWN - 1;
}

static void
begin_message(CrelayCursor *cur, uint8_t *buf, size_t size, CrelayMessageKind kind)
{
	uint8_t    *magic;

	memset(cur, 0, sizeof(*cur));
	cur->data = buf;
	cur->size = size < CRELAY_MESSAGE_MAX ? size : CRELAY_MESSAGE_MAX;

	magic = take(cur, MAGIC_LEN, err_buffer);
	if (magic != NULL)
		memcpy(magic, MAGIC, MAGIC_LEN);
	put_u8(cur, CRELAY_MESSAGE_VERSION);
	put_u8(cur, CRELAY_MESSAGE_READER);
	put_u8(cur, (uint8_t) kind);
	put_u8(cur, 0);
	put_u32(cur, 0);
}

/* What a version to come appends to a section, a row or a hop. */
static void
grow(CrelayCursor *cur)
{
	if (GROWTH > 0)
		put_uint(cur, 0xffffffff, GROWTH);
}

/* section_start is 0 while no section is open. */
static void
begin_section(CrelayCursor *cur, uint16_t tag)
{
	put_u16(cur, tag);
	cur->section_start = cur->at;
	put_u32(cur, 0);
}

static void
end_section(CrelayCursor *cur)
{
	size_t		start = cur->section_start;

	grow(cur);
	cur->section_start = 0;
	if (cur->error == NULL)
		store_uint(cur->data + start, cur->at - start - 4, 4);
}

/* Rows and hops have a length of their own; it is filled in by end_item(). */
static size_t
begin_item(CrelayCursor *cur)
{
	size_t		start = cur->at;

	put_u16(cur, 0);
	return start;
}

static void
end_item(CrelayCursor *cur, size_t start)
{
	grow(cur);
	if (cur->error == NULL)
		store_uint(cur->data + start, cur->at - start - 2, 2);
}

/* A section that nobody knows yet, last but for the rows. */
static void
put_grown_section(CrelayCursor *cur)
{
#ifdef CRELAY_MESSAGE_GROWN
	begin_section(cur, TAG_GROWTH);
	end_section(cur);
#endif
}

/* Opens the section of the rows; crelay_message_end() closes it. */
static void
begin_rows(CrelayCursor *cur)
{
	put_grown_section(cur);
	begin_section(cur, TAG_ROWS);
	put_u32(cur, 0);
}

static void
end_rows(CrelayCursor *cur)
{
	if (cur->error == NULL)
		store_uint(cur->data + cur->section_start + 4, cur->rows, 4);
	end_section(cur);
}

/* How a node gets its WAL, and what keeps it from replaying that. */
static void
put_feed(CrelayCursor *cur, CrelayFeed feed, CrelayPause pause, uint32_t apply_delay_ms)
{
	put_enum(cur, feed, 0, CRELAY_FEED_LAST);
	put_enum(cur, pause, 0, CRELAY_PAUSE_LAST);
	put_u32(cur, apply_delay_ms);
}

static void
put_about(CrelayCursor *cur, const CrelayAbout *about)
{
	begin_section(cur, TAG_ABOUT);
	put_string(cur, about->slot_name, sizeof(about->slot_name), 1);
	put_string(cur, about->application_name, sizeof(about->application_name), 1);
	put_string(cur, about->location, sizeof(about->location), 1);
	put_string(cur, about->conninfo, sizeof(about->conninfo), 2);
	end_section(cur);
}

static void
put_software(CrelayCursor *cur, const CrelayAbout *about)
{
	begin_section(cur, TAG_SOFTWARE);
	put_string(cur, about->version, sizeof(about->version), 1);
	put_string(cur, about->upstream_address, sizeof(about->upstream_address), 2);
	put_room(cur, &about->room);
	end_section(cur);
}

static void
put_history(CrelayCursor *cur, const CrelayHistory *history)
{
	uint32_t	i;

	if (history->n > CRELAY_MAX_HISTORY)
	{
		fail(cur, err_history);
		return;
	}

	begin_section(cur, TAG_HISTORY);
	put_u32(cur, history->timeline);
	put_u8(cur, (uint8_t) history->n);
	for (i = 0; i < history->n; i++)
	{
		put_u32(cur, history->left[i].timeline);
		put_u64(cur, history->left[i].lsn);
	}
	end_section(cur);
}

static void
put_hops(CrelayCursor *cur, const CrelayReply *reply)
{
	uint32_t	i;

	if (reply->nhops > CRELAY_MAX_DEPTH)
	{
		fail(cur, err_hops);
		return;
	}

	begin_section(cur, TAG_HOPS);
	put_u8(cur, (uint8_t) reply->nhops);
	for (i = 0; i < reply->nhops; i++)
	{
		const CrelayHop *hop = &reply->hops[i];
		size_t		start = begin_item(cur);

		if (!crelay_node_name_is_valid(hop->name))
			fail(cur, err_name);
		put_u32(cur, hop->incarnation);
		put_u64(cur, hop->held_lsn);
		put_string(cur, hop->name, sizeof(hop->name), 1);
		end_item(cur, start);
	}
	end_section(cur);
}

static void
put_sync_names(CrelayCursor *cur, const CrelaySyncNames *sync_names)
{
	uint32_t	i;

	if (sync_names->n > CRELAY_MAX_SYNC_NAMES)
	{
		fail(cur, err_range);
		return;
	}

	begin_section(cur, TAG_SYNC_NAMES);
	put_u8(cur, (uint8_t) sync_names->n);
	for (i = 0; i < sync_names->n; i++)
		put_string(cur, sync_names->names[i], sizeof(sync_names->names[i]), 1);
	end_section(cur);
}

static void
put_tree_hold(CrelayCursor *cur, uint64_t lsn)
{
	begin_section(cur, TAG_TREE_HOLD);
	put_u64(cur, lsn);
	end_section(cur);
}

size_t
crelay_message_put_hello(uint8_t *buf, size_t size, const CrelayHello *hello)
{
	CrelayCursor cur;

	begin_message(&cur, buf, size, CRELAY_MSG_HELLO);
	if (hello->incarnation == 0)
		fail(&cur, err_incarnation);
	begin_section(&cur, TAG_HELLO);
	put_u64(&cur, hello->system_identifier);
	put_u64(&cur, hello->start_id);
	put_u32(&cur, hello->incarnation);
	put_u32(&cur, hello->report_interval_ms);
	put_string(&cur, hello->node_name, sizeof(hello->node_name), 1);
	end_section(&cur);
	return crelay_message_end(&cur);
}

void
crelay_message_begin_report(CrelayCursor *cur, uint8_t *buf, size_t size,
							const CrelayReport *report)
{
	begin_message(cur, buf, size, CRELAY_MSG_REPORT);
	begin_section(cur, TAG_REPORT);
	put_u64(cur, report->sequence);
	put_u32(cur, report->report_interval_ms);
	put_u32(cur, report->timeline);
	put_enum(cur, report->state, 0, CRELAY_STATE_LAST);
	put_enum(cur, report->replica_class, 0, CRELAY_CLASS_LAST);
	put_enum(cur, report->protected, 0, CRELAY_TRUE);
	put_enum(cur, report->hot_standby_feedback, 0, CRELAY_TRUE);
	put_u32(cur, report->warnings);
	put_u32(cur, report->backend_xmin);
	put_u64(cur, report->flush_lsn);
	put_u64(cur, report->replay_lsn);
	put_u64(cur, report->frontier_lsn);
	put_u64(cur, report->hold_target_lsn);
	put_u64(cur, report->oldest_wal_lsn);
	put_string(cur, report->pin.by, sizeof(report->pin.by), 1);
	put_string(cur, report->xmin_pinned_by, sizeof(report->xmin_pinned_by), 1);
	put_u32(cur, report->incarnation);
	put_u32(cur, report->moves);
	put_place(cur, &report->pin);
	put_feed(cur, report->feed, report->pause, report->apply_delay_ms);
	end_section(cur);

	if (report->has_tree)
	{
		put_about(cur, &report->about);
		put_history(cur, &report->history);
		put_software(cur, &report->about);
		begin_rows(cur);
	}
}

void
crelay_message_begin_reply(CrelayCursor *cur, uint8_t *buf, size_t size,
						   const CrelayReply *reply)
{
	begin_message(cur, buf, size, CRELAY_MSG_REPLY);
	if (!crelay_node_name_is_valid(reply->node_name))
		fail(cur, err_name);
	begin_section(cur, TAG_REPLY);
	put_enum(cur, reply->answer, CRELAY_ANSWER_OK, CRELAY_ANSWER_CLOSING);
	put_u16(cur, (uint16_t) reply->refusal);
	put_u64(cur, reply->sequence);
	put_u64(cur, reply->held_lsn);
	put_u32(cur, reply->incarnation);
	put_enum(cur, reply->state, 0, CRELAY_STATE_LAST);
	put_enum(cur, reply->replica_class, 0, CRELAY_CLASS_LAST);
	put_u32(cur, reply->warnings);
	put_u8(cur, reply->root_known ? 1 : 0);
	put_u64(cur, reply->root_lsn);
	put_string(cur, reply->node_name, sizeof(reply->node_name), 1);
	put_string(cur, reply->detail, sizeof(reply->detail), 1);
	put_u64(cur, (uint64_t) (reply->replay_lag < 0 ? -1 : reply->replay_lag));
	put_u32(cur, reply->root_age_ms);
	put_u32(cur, reply->path_interval_ms);
	put_u64(cur, reply->oldest_wal_lsn);
	put_enum(cur, reply->slot_fate, 0, CRELAY_SLOT_FATE_LAST);
	end_section(cur);

	put_hops(cur, reply);
	if (reply->sync_names.known)
		put_sync_names(cur, &reply->sync_names);
	if (reply->tree_hold_lsn != 0)
		put_tree_hold(cur, reply->tree_hold_lsn);
	if (reply->has_tree)
		begin_rows(cur);
}

void
crelay_message_put_row(CrelayCursor *cur, const CrelayNode *row, int64_t now)
{
	const char *error = row_key_error(row);
	size_t		start;

	if (cur->section_start == 0)
		error = err_no_tree;
	else if (cur->rows >= CRELAY_MESSAGE_MAX_ROWS)
		error = err_rows;
	if (error != NULL)
	{
		fail(cur, error);
		return;
	}

	start = begin_item(cur);
	put_u32(cur, row->incarnation);
	put_u32(cur, row->upstream_incarnation);
	put_enum(cur, row->role, 0, CRELAY_ROLE_STANDBY);
	put_enum(cur, row->replica_class, 0, CRELAY_CLASS_LAST);
	put_enum(cur, row->state, 0, CRELAY_STATE_LAST);
	put_u8(cur, row->managed ? 1 : 0);
	put_enum(cur, row->protected, 0, CRELAY_TRUE);
	put_enum(cur, row->hot_standby_feedback, 0, CRELAY_TRUE);
	put_u32(cur, row->timeline);
	put_u32(cur, row->warnings);
	put_u64(cur, row->flush_lsn);
	put_u64(cur, row->replay_lsn);
	put_u64(cur, row->frontier_lsn);
	put_u64(cur, row->oldest_wal_lsn);
	put_u64(cur, (uint64_t) (row->replay_lag < 0 ? -1 : row->replay_lag));
	put_u32(cur, row->backend_xmin);
	put_u32(cur, age_of(row->observed_at, now));
	put_string(cur, row->name, sizeof(row->name), 1);
	put_string(cur, row->upstream_name, sizeof(row->upstream_name), 1);
	put_string(cur, row->pin.by, sizeof(row->pin.by), 1);
	put_string(cur, row->location, sizeof(row->location), 1);
	put_address(cur, row->conninfo, sizeof(row->conninfo));
	put_string(cur, row->xmin_pinned_by, sizeof(row->xmin_pinned_by), 1);
	put_string(cur, row->version, sizeof(row->version), 1);
	put_address(cur, row->upstream_address, sizeof(row->upstream_address));
	put_u32(cur, row->moves);
	put_u32(cur, row->path_interval_ms);
	put_place(cur, &row->pin);
	put_feed(cur, row->feed, row->pause, row->apply_delay_ms);
	put_room(cur, &row->room);
	end_item(cur, start);
	cur->rows++;
}

size_t
crelay_message_end(CrelayCursor *cur)
{
	if (cur->section_start != 0)
		end_rows(cur);
	else
		put_grown_section(cur);
	if (cur->error != NULL)
		return 0;
	store_uint(cur->data + ENVELOPE_LENGTH, cur->at, 4);
	return cur->at;
}

size_t
crelay_message_size_bound(uint32_t nrows)
{
	if (nrows > (CRELAY_MESSAGE_MAX - FIXED_BOUND) / ROW_BOUND)
		return CRELAY_MESSAGE_MAX;
	return FIXED_BOUND + (size_t) nrows * ROW_BOUND;
}


/*
 * Reading
 */

static uint64_t
get_uint(CrelayCursor *cur, size_t width)
{
	const uint8_t *p = take(cur, width, err_short);

	return p != NULL ? load_uint(p, width) : 0;
}

static uint8_t
get_u8(CrelayCursor *cur)
{
	return (uint8_t) get_uint(cur, 1);
}

static uint16_t
get_u16(CrelayCursor *cur)
{
	return (uint16_t) get_uint(cur, 2);
}

static uint32_t
get_u32(CrelayCursor *cur)
{
	return (uint32_t) get_uint(cur, 4);
}

static uint64_t
get_u64(CrelayCursor *cur)
{
	return get_uint(cur, 8);
}

/*
 * Never returns what is out of range, not even beside an error.  What a newer
 * sender knows and this library does not is unknown, if that is a value.
 */
static unsigned
get_enum(CrelayCursor *cur, unsigned first, unsigned last)
{
	unsigned	value = get_u8(cur);

	if (value >= first && value <= last)
		return value;
	if (cur->newer && first == 0)
		return 0;
	fail(cur, err_range);
	return first;
}

static bool
get_bool(CrelayCursor *cur)
{
	uint8_t		value = get_u8(cur);

	if (value > 1)
		fail(cur, err_bool);
	return value == 1;
}

static int64_t
get_lag(CrelayCursor *cur)
{
	uint64_t	value = get_u64(cur);

	if (value == UINT64_MAX)
		return -1;
	if (value > INT64_MAX)
	{
		fail(cur, err_lag);
		return -1;
	}
	return (int64_t) value;
}

static int64_t
get_observed_at(CrelayCursor *cur, int64_t now)
{
	uint32_t	age = get_u32(cur);

	if (age == CRELAY_AGE_UNKNOWN)
		return 0;
	return (int64_t) ((uint64_t) now - (uint64_t) age * 1000);
}

/* A string into a buffer of buflen bytes; it is terminated in any case. */
static void
get_string(CrelayCursor *cur, char *str, size_t buflen, size_t width)
{
	size_t		len = (size_t) get_uint(cur, width);
	const uint8_t *p;
	size_t		i;

	str[0] = '\0';
	if (len >= buflen)
	{
		fail(cur, err_long);
		return;
	}
	p = take(cur, len, err_short);
	if (p == NULL)
		return;
	for (i = 0; i < len; i++)
	{
		if (!is_printable(p[i]))
		{
			fail(cur, err_ascii);
			return;
		}
	}
	memcpy(str, p, len);
	str[len] = '\0';
}

/*
 * A cursor over the next n bytes of another one, which moves behind them.  An
 * error of the part is not one of the whole until the caller says so.
 */
static CrelayCursor
slice(CrelayCursor *cur, size_t n, const char *error)
{
	CrelayCursor part;

	memset(&part, 0, sizeof(part));
	part.data = cur->data;
	part.newer = cur->newer;
	if (take(cur, n, error) != NULL)
	{
		part.at = cur->at - n;
		part.size = cur->at;
	}
	part.error = cur->error;
	return part;
}

/* A row or a hop: what is behind the fields known here is left unread. */
static CrelayCursor
get_item(CrelayCursor *cur)
{
	return slice(cur, get_u16(cur), err_short);
}

/* A string that was appended to its section or row later; else empty. */
static void
get_later_string(CrelayCursor *cur, char *str, size_t buflen, size_t width)
{
	str[0] = '\0';
	if (cur->error == NULL && cur->at < cur->size)
		get_string(cur, str, buflen, width);
}

/* A number that was appended later; else what it is when it is unknown. */
static uint32_t
get_later_u32(CrelayCursor *cur, uint32_t unknown)
{
	if (cur->error != NULL || cur->at == cur->size)
		return unknown;
	return get_u32(cur);
}

/*
 * Likewise for the place of a pin.  It goes into commands that are printed, so
 * both names consist of nothing but the characters of a slot name.
 */
static void
get_later_place(CrelayCursor *cur, CrelayPin *pin)
{
	if (cur->error == NULL && cur->at < cur->size)
		pin->kind = (CrelayPinKind) get_enum(cur, 0, CRELAY_PIN_LAST);
	if (pin->kind == CRELAY_PIN_NODE)
	{
		if (crelay_node_name_is_valid(pin->by))
			strcpy(pin->on, pin->by);
		return;
	}
	get_string(cur, pin->on, sizeof(pin->on), 1);
	get_string(cur, pin->slot, sizeof(pin->slot), 1);
	if (pin->on[0] != '\0' && !crelay_node_name_is_valid(pin->on))
		fail(cur, err_name);
	if (pin->slot[0] != '\0' && !is_plain_name(pin->slot, CRELAY_SLOT_LEN - 1))
		fail(cur, err_slot);
}

/* How a node gets its WAL; unknown if it is of a sender that does not say. */
static void
get_later_feed(CrelayCursor *cur, CrelayFeed *feed, CrelayPause *pause,
			   uint32_t *apply_delay_ms)
{
	if (cur->error != NULL || cur->at == cur->size)
		return;
	*feed = (CrelayFeed) get_enum(cur, 0, CRELAY_FEED_LAST);
	*pause = (CrelayPause) get_enum(cur, 0, CRELAY_PAUSE_LAST);
	*apply_delay_ms = get_u32(cur);
}

/* Likewise; else it is not known. */
static void
get_later_room(CrelayCursor *cur, CrelayRoom *room)
{
	memset(room, 0, sizeof(*room));
	if (cur->error != NULL || cur->at == cur->size)
		return;
	room->known = get_bool(cur);
	room->senders = get_u16(cur);
	room->slots = get_u16(cur);
}

const char *
crelay_message_software(void)
{
	return CRELAY_VERSION;
}

CrelayFit
crelay_message_fit(const uint8_t *buf, size_t size)
{
	if (size < ENVELOPE_SIZE || memcmp(buf, MAGIC, MAGIC_LEN) != 0 ||
		buf[ENVELOPE_SENDER] == 0)
		return CRELAY_FIT_OK;
	if (buf[ENVELOPE_READER] > CRELAY_MESSAGE_VERSION)
		return CRELAY_FIT_READER_TOO_OLD;
	if (buf[ENVELOPE_SENDER] < CRELAY_MESSAGE_OLDEST)
		return CRELAY_FIT_SENDER_TOO_OLD;
	return CRELAY_FIT_OK;
}

CrelayMessageKind
crelay_message_kind(const uint8_t *buf, size_t size, const char **error)
{
	*error = NULL;
	if (size < ENVELOPE_SIZE)
		*error = err_truncated;
	else if (memcmp(buf, MAGIC, MAGIC_LEN) != 0)
		*error = "not a message of cascade_relay";
	else if (buf[ENVELOPE_SENDER] == 0)
		*error = "message has no version";
	else if (crelay_message_fit(buf, size) == CRELAY_FIT_READER_TOO_OLD)
		*error = "message needs a newer version of cascade_relay";
	else if (crelay_message_fit(buf, size) == CRELAY_FIT_SENDER_TOO_OLD)
		*error = "message is of a version of cascade_relay that is too old";
	else if (size > CRELAY_MESSAGE_MAX)
		*error = "message is too long";
	else if (load_uint(buf + ENVELOPE_LENGTH, 4) > size)
		*error = err_truncated;
	else if (load_uint(buf + ENVELOPE_LENGTH, 4) < size)
		*error = "message is longer than it says";
	else if (buf[ENVELOPE_RESERVED] != 0)
		*error = "reserved byte is not zero";
	else
	{
		switch (buf[ENVELOPE_KIND])
		{
			case CRELAY_MSG_HELLO:
			case CRELAY_MSG_REPORT:
			case CRELAY_MSG_REPLY:
				return (CrelayMessageKind) buf[ENVELOPE_KIND];
		}
		*error = err_kind;
	}
	return (CrelayMessageKind) 0;
}

/* The next section of a message; false at its end, or with an error. */
static bool
next_section(CrelayCursor *message, uint16_t *tag, CrelayCursor *section)
{
	const uint8_t *header;

	if (message->error != NULL || message->at == message->size)
		return false;
	header = take(message, SECTION_HEADER_SIZE, err_truncated);
	if (header == NULL)
		return false;
	*tag = (uint16_t) load_uint(header, 2);
	*section = slice(message, load_uint(header + 2, 4), err_truncated);
	return message->error == NULL;
}

static void
check_sections(CrelayCursor message, const char **error)
{
	CrelayCursor section;
	uint16_t	tag;
	int			last = -1;

	while (next_section(&message, &tag, &section))
	{
		if ((int) tag <= last)
			fail(&message, err_order);
		last = tag;
	}
	*error = message.error;
}

/*
 * A cursor over the sections of a message of that kind.  Once this has
 * returned true, walking them cannot fail.
 */
static bool
open_message(CrelayCursor *message, const uint8_t *buf, size_t size,
			 CrelayMessageKind kind, const char **error)
{
	CrelayMessageKind found = crelay_message_kind(buf, size, error);

	memset(message, 0, sizeof(*message));
	if (*error != NULL)
		return false;
	if (found != kind)
	{
		*error = err_other_kind;
		return false;
	}
	/* a reader's cursor is never written through */
	message->data = (uint8_t *) buf;
	message->size = size;
	message->at = ENVELOPE_SIZE;
	message->newer = buf[ENVELOPE_SENDER] > CRELAY_MESSAGE_VERSION;
	check_sections(*message, error);
	return *error == NULL;
}

static bool
find_section(CrelayCursor message, uint16_t wanted, CrelayCursor *section)
{
	uint16_t	tag;

	while (next_section(&message, &tag, section))
	{
		if (tag == wanted)
			return true;
	}
	memset(section, 0, sizeof(*section));
	return false;
}

/* As above; one that is missing reads as an error. */
static CrelayCursor
need_section(CrelayCursor message, uint16_t wanted)
{
	CrelayCursor section;

	if (!find_section(message, wanted, &section))
		fail(&section, err_missing);
	return section;
}

static void
get_one_row(CrelayCursor *rows, CrelayNode *row, int64_t now)
{
	CrelayCursor cur = get_item(rows);
	const char *error;

	memset(row, 0, sizeof(*row));
	row->incarnation = get_u32(&cur);
	row->upstream_incarnation = get_u32(&cur);
	row->role = (CrelayRole) get_enum(&cur, 0, CRELAY_ROLE_STANDBY);
	row->replica_class = (CrelayClass) get_enum(&cur, 0, CRELAY_CLASS_LAST);
	row->state = (CrelayState) get_enum(&cur, 0, CRELAY_STATE_LAST);
	row->managed = get_bool(&cur);
	row->protected = (CrelayTruth) get_enum(&cur, 0, CRELAY_TRUE);
	row->hot_standby_feedback = (CrelayTruth) get_enum(&cur, 0, CRELAY_TRUE);
	row->timeline = get_u32(&cur);
	row->warnings = get_u32(&cur);
	row->flush_lsn = get_u64(&cur);
	row->replay_lsn = get_u64(&cur);
	row->frontier_lsn = get_u64(&cur);
	row->oldest_wal_lsn = get_u64(&cur);
	row->replay_lag = get_lag(&cur);
	row->backend_xmin = get_u32(&cur);
	row->observed_at = get_observed_at(&cur, now);
	get_string(&cur, row->name, sizeof(row->name), 1);
	get_string(&cur, row->upstream_name, sizeof(row->upstream_name), 1);
	get_string(&cur, row->pin.by, sizeof(row->pin.by), 1);
	get_string(&cur, row->location, sizeof(row->location), 1);
	get_string(&cur, row->conninfo, sizeof(row->conninfo), 2);
	get_string(&cur, row->xmin_pinned_by, sizeof(row->xmin_pinned_by), 1);
	get_later_string(&cur, row->version, sizeof(row->version), 1);
	get_later_string(&cur, row->upstream_address, sizeof(row->upstream_address), 2);
	row->moves = get_later_u32(&cur, 0);
	row->path_interval_ms = get_later_u32(&cur, 0);
	get_later_place(&cur, &row->pin);
	get_later_feed(&cur, &row->feed, &row->pause, &row->apply_delay_ms);
	get_later_room(&cur, &row->room);

	error = cur.error != NULL ? cur.error : row_key_error(row);
	if (error != NULL)
		fail(rows, error);
	if (rows->other_machine)
	{
		crelay_address_forget_local(row->conninfo);
		crelay_address_forget_local(row->upstream_address);
	}
}

/*
 * Sets the caller's cursor to the first row, after a walk over all of them.
 * Returns the error, or NULL.
 */
static const char *
open_rows(CrelayCursor section, CrelayCursor *rows)
{
	CrelayCursor walk;
	CrelayNode	row;

	section.section_end = section.size;
	section.rows_total = get_u32(&section);
	if (section.rows_total > CRELAY_MESSAGE_MAX_ROWS)
		fail(&section, err_rows);
	section.rows = section.rows_total;

	walk = section;
	while (walk.error == NULL && walk.rows > 0)
	{
		get_one_row(&walk, &row, 0);
		walk.rows--;
	}
	if (walk.error == NULL)
		*rows = section;
	return walk.error;
}

static const char *
get_about(CrelayCursor cur, CrelayAbout *about)
{
	get_string(&cur, about->slot_name, sizeof(about->slot_name), 1);
	get_string(&cur, about->application_name, sizeof(about->application_name), 1);
	get_string(&cur, about->location, sizeof(about->location), 1);
	get_string(&cur, about->conninfo, sizeof(about->conninfo), 2);
	return cur.error;
}

static const char *
get_software(CrelayCursor cur, CrelayAbout *about)
{
	get_string(&cur, about->version, sizeof(about->version), 1);
	get_later_string(&cur, about->upstream_address, sizeof(about->upstream_address), 2);
	get_later_room(&cur, &about->room);
	return cur.error;
}

static const char *
get_history(CrelayCursor cur, CrelayHistory *history)
{
	uint32_t	i;

	history->timeline = get_u32(&cur);
	history->n = get_u8(&cur);
	if (cur.error == NULL && history->n > CRELAY_MAX_HISTORY)
	{
		fail(&cur, err_history);
		history->n = 0;
	}
	for (i = 0; i < history->n && cur.error == NULL; i++)
	{
		history->left[i].timeline = get_u32(&cur);
		history->left[i].lsn = get_u64(&cur);
	}
	return cur.error;
}

static void
get_one_hop(CrelayCursor *hops, CrelayHop *hop)
{
	CrelayCursor cur = get_item(hops);

	hop->incarnation = get_u32(&cur);
	hop->held_lsn = get_u64(&cur);
	get_string(&cur, hop->name, sizeof(hop->name), 1);
	if (cur.error == NULL && !crelay_node_name_is_valid(hop->name))
		fail(&cur, err_name);
	if (cur.error != NULL)
		fail(hops, cur.error);
}

static const char *
get_hops(CrelayCursor cur, CrelayReply *reply)
{
	uint32_t	nhops = get_u8(&cur);
	uint32_t	i;

	if (nhops > CRELAY_MAX_DEPTH)
	{
		fail(&cur, err_hops);
		return cur.error;
	}
	for (i = 0; i < nhops && cur.error == NULL; i++)
		get_one_hop(&cur, &reply->hops[i]);
	reply->nhops = nhops;
	return cur.error;
}

/* Somebody may list more names than there is room for: the rest is left. */
static const char *
get_sync_names(CrelayCursor cur, CrelaySyncNames *sync_names)
{
	uint32_t	n = get_u8(&cur);
	uint32_t	i;

	if (n > CRELAY_MAX_SYNC_NAMES)
		n = CRELAY_MAX_SYNC_NAMES;
	for (i = 0; i < n && cur.error == NULL; i++)
		get_string(&cur, sync_names->names[i], sizeof(sync_names->names[i]), 1);
	sync_names->n = n;
	sync_names->known = cur.error == NULL;
	return cur.error;
}

bool
crelay_message_get_hello(const uint8_t *buf, size_t size, CrelayHello *hello,
						 const char **error)
{
	CrelayCursor message;
	CrelayCursor cur;

	memset(hello, 0, sizeof(*hello));
	if (!open_message(&message, buf, size, CRELAY_MSG_HELLO, error))
		return false;

	cur = need_section(message, TAG_HELLO);
	hello->system_identifier = get_u64(&cur);
	hello->start_id = get_u64(&cur);
	hello->incarnation = get_u32(&cur);
	hello->report_interval_ms = get_u32(&cur);
	get_string(&cur, hello->node_name, sizeof(hello->node_name), 1);
	/* it would be a managed node that no row can carry */
	if (hello->incarnation == 0)
		fail(&cur, err_incarnation);
	*error = cur.error;
	return *error == NULL;
}

/* The fixed part of a report; returns the error, or NULL. */
static const char *
get_report_part(CrelayCursor cur, CrelayReport *report)
{
	report->sequence = get_u64(&cur);
	report->report_interval_ms = get_u32(&cur);
	report->timeline = get_u32(&cur);
	report->state = (CrelayState) get_enum(&cur, 0, CRELAY_STATE_LAST);
	report->replica_class = (CrelayClass) get_enum(&cur, 0, CRELAY_CLASS_LAST);
	report->protected = (CrelayTruth) get_enum(&cur, 0, CRELAY_TRUE);
	report->hot_standby_feedback = (CrelayTruth) get_enum(&cur, 0, CRELAY_TRUE);
	report->warnings = get_u32(&cur);
	report->backend_xmin = get_u32(&cur);
	report->flush_lsn = get_u64(&cur);
	report->replay_lsn = get_u64(&cur);
	report->frontier_lsn = get_u64(&cur);
	report->hold_target_lsn = get_u64(&cur);
	report->oldest_wal_lsn = get_u64(&cur);
	get_string(&cur, report->pin.by, sizeof(report->pin.by), 1);
	get_string(&cur, report->xmin_pinned_by, sizeof(report->xmin_pinned_by), 1);
	report->incarnation = get_u32(&cur);
	report->moves = get_u32(&cur);
	/* from here on an older sender may have less to say */
	get_later_place(&cur, &report->pin);
	if (cur.error == NULL && cur.size - cur.at >= FEED_SIZE)
		get_later_feed(&cur, &report->feed, &report->pause, &report->apply_delay_ms);
	return cur.error;
}

bool
crelay_message_get_report(const uint8_t *buf, size_t size, CrelayReport *report,
						  CrelayCursor *rows, const char **error)
{
	CrelayCursor message;
	CrelayCursor about;
	CrelayCursor history;
	CrelayCursor software;
	CrelayCursor tree;
	bool		has_about;

	memset(report, 0, sizeof(*report));
	memset(rows, 0, sizeof(*rows));
	if (!open_message(&message, buf, size, CRELAY_MSG_REPORT, error))
		return false;

	*error = get_report_part(need_section(message, TAG_REPORT), report);
	if (*error != NULL)
		return false;

	has_about = find_section(message, TAG_ABOUT, &about);
	report->has_tree = find_section(message, TAG_ROWS, &tree);
	if (has_about != report->has_tree)
		*error = err_half_tree;
	else if (has_about)
	{
		*error = get_about(about, &report->about);
		if (*error == NULL && find_section(message, TAG_HISTORY, &history))
			*error = get_history(history, &report->history);
		if (*error == NULL && find_section(message, TAG_SOFTWARE, &software))
			*error = get_software(software, &report->about);
		if (*error == NULL)
			*error = open_rows(tree, rows);
		report->nrows = rows->rows_total;
	}
	return *error == NULL;
}

/* The fixed part of a reply; returns the error, or NULL. */
static const char *
get_reply_part(CrelayCursor cur, CrelayReply *reply)
{
	reply->answer = (CrelayAnswer) get_enum(&cur, CRELAY_ANSWER_OK, CRELAY_ANSWER_CLOSING);
	/* a newer upstream may know more reasons */
	reply->refusal = (CrelayRefusal) get_u16(&cur);
	reply->sequence = get_u64(&cur);
	reply->held_lsn = get_u64(&cur);
	reply->incarnation = get_u32(&cur);
	reply->state = (CrelayState) get_enum(&cur, 0, CRELAY_STATE_LAST);
	reply->replica_class = (CrelayClass) get_enum(&cur, 0, CRELAY_CLASS_LAST);
	reply->warnings = get_u32(&cur);
	reply->root_known = get_bool(&cur);
	reply->root_lsn = get_u64(&cur);
	get_string(&cur, reply->node_name, sizeof(reply->node_name), 1);
	get_string(&cur, reply->detail, sizeof(reply->detail), 1);
	reply->replay_lag = get_lag(&cur);
	reply->root_age_ms = get_u32(&cur);
	reply->path_interval_ms = get_u32(&cur);
	reply->oldest_wal_lsn = get_u64(&cur);
	reply->slot_fate = (CrelaySlotFate) get_enum(&cur, 0, CRELAY_SLOT_FATE_LAST);
	if (cur.error == NULL && !crelay_node_name_is_valid(reply->node_name))
		fail(&cur, err_name);
	return cur.error;
}

bool
crelay_message_get_reply(const uint8_t *buf, size_t size, CrelayReply *reply,
						 CrelayCursor *rows, const char **error)
{
	CrelayCursor message;
	CrelayCursor names;
	CrelayCursor tree_hold;
	CrelayCursor tree;

	memset(reply, 0, sizeof(*reply));
	memset(rows, 0, sizeof(*rows));
	if (!open_message(&message, buf, size, CRELAY_MSG_REPLY, error))
		return false;

	*error = get_reply_part(need_section(message, TAG_REPLY), reply);
	if (*error == NULL)
		*error = get_hops(need_section(message, TAG_HOPS), reply);
	if (*error == NULL && find_section(message, TAG_SYNC_NAMES, &names))
		*error = get_sync_names(names, &reply->sync_names);
	if (*error == NULL && find_section(message, TAG_TREE_HOLD, &tree_hold))
	{
		reply->tree_hold_lsn = get_u64(&tree_hold);
		*error = tree_hold.error;
	}
	if (*error != NULL)
		return false;

	reply->has_tree = find_section(message, TAG_ROWS, &tree);
	if (reply->has_tree)
		*error = open_rows(tree, rows);
	reply->nrows = rows->rows_total;
	return *error == NULL;
}

bool
crelay_message_get_row(CrelayCursor *cur, CrelayNode *row, int64_t now)
{
	if (cur->error != NULL || cur->rows == 0)
		return false;
	get_one_row(cur, row, now);
	cur->rows--;
	return cur->error == NULL;
}

const char *
crelay_refusal_text(CrelayRefusal refusal)
{
	switch (refusal)
	{
		case CRELAY_REFUSE_NONE:
			return "no reason given";
		case CRELAY_REFUSE_SYSTEM:
			return "it belongs to another database cluster";
		case CRELAY_REFUSE_SELF:
			return "it is this node itself";
		case CRELAY_REFUSE_OWN_NAME:
			return "it has the same node name as this node";
		case CRELAY_REFUSE_DUPLICATE:
			return "another live node has this node's name or incarnation";
		case CRELAY_REFUSE_CYCLE:
			return "its own path to the root leads through this node";
		case CRELAY_REFUSE_NAME:
			return "this node's name is not a valid node name";
		case CRELAY_REFUSE_FULL:
			return "it has no room for another node";
		case CRELAY_REFUSE_DISABLED:
			return "cascade_relay.enabled is off there";
		case CRELAY_REFUSE_NO_HELLO:
			return "it expected a hello first";
		case CRELAY_REFUSE_OUSTED:
			return "a newer session speaks for this node";
		case CRELAY_REFUSE_NO_WORKER:
			return "its worker is not running yet";
		case CRELAY_HELD_NO_FREE_SLOT:
			return "it has no replication slot to spare for a hold";
		case CRELAY_HELD_NO_WAL:
			return "the WAL that this node needs is not there";
		case CRELAY_HELD_LATER:
			return "it holds WAL from a later LSN only";
		case CRELAY_HELD_FOREIGN_SLOT:
			return "a slot with the name of this node's hold is not a persistent physical slot";
		case CRELAY_HELD_BUSY:
			return "somebody else has acquired this node's hold";
		case CRELAY_HELD_DIVERGED:
			return "this node is on another history of timelines";
		case CRELAY_REFUSE_UNBOUNDED:
			return "it does not preload cascade_relay, and nothing there bounds the WAL that slots keep";
		case CRELAY_HELD_WAL_LEVEL:
			return "with the wal_level that it has it can keep no replication slot";
		case CRELAY_HELD_KEEP_SIZE:
			return "max_slot_wal_keep_size there is less than one WAL segment, so nothing can be held";
	}
	return "a reason that this version does not know";
}

const char *
crelay_refusal_hint(CrelayRefusal refusal)
{
	switch (refusal)
	{
		case CRELAY_REFUSE_NONE:
			return "";
		case CRELAY_REFUSE_SYSTEM:
			return "Check primary_conninfo and cascade_relay.upstream_conninfo: they lead to another cluster.";
		case CRELAY_REFUSE_SELF:
			return "Check primary_conninfo and cascade_relay.upstream_conninfo: they lead back to this server.";
		case CRELAY_REFUSE_OWN_NAME:
		case CRELAY_REFUSE_DUPLICATE:
			return "Give each node a cascade_relay.node_name of its own; for a cloned volume, stop the clone, remove pg_replslot/cascade_relay.state there and start it.";
		case CRELAY_REFUSE_CYCLE:
			return "Point primary_conninfo of one of the nodes on the cycle at a node outside of it.";
		case CRELAY_REFUSE_NAME:
			return "Set cascade_relay.node_name to at most 40 lower case letters, digits and underscores.";
		case CRELAY_REFUSE_FULL:
			return "Raise cascade_relay.max_nodes on the upstream and restart it.";
		case CRELAY_REFUSE_DISABLED:
			return "Set cascade_relay.enabled to on there and reload.";
		case CRELAY_REFUSE_NO_HELLO:
		case CRELAY_REFUSE_OUSTED:
			return "";
		case CRELAY_REFUSE_NO_WORKER:
			return "If this lasts, look for the cascade_relay worker in the upstream's log; it needs a free slot in max_worker_processes.";
		case CRELAY_HELD_NO_FREE_SLOT:
			return "Raise max_replication_slots on the upstream; the last free slot is left for a replacement standby.";
		case CRELAY_HELD_NO_WAL:
		case CRELAY_HELD_LATER:
			return "The node is protected as soon as it has caught up.";
		case CRELAY_HELD_FOREIGN_SLOT:
			return "Drop that slot on the upstream.";
		case CRELAY_HELD_DIVERGED:
			return "One of the two has WAL that the other one will never have: rewind it with pg_rewind, or rebuild it.";
		case CRELAY_HELD_BUSY:
			return "Nothing may stream through a slot whose name begins with cascade_relay_.";
		case CRELAY_REFUSE_UNBOUNDED:
			return "Set max_slot_wal_keep_size there and reload; or add cascade_relay to shared_preload_libraries there, and restart it.";
		case CRELAY_HELD_WAL_LEVEL:
			return "Set wal_level to replica, or logical, on the upstream and restart it.";
		case CRELAY_HELD_KEEP_SIZE:
			return "Set max_slot_wal_keep_size on the upstream to what its disk can bear, several WAL segments at least, or to -1, and reload.";
	}
	return "";
}
