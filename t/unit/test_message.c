/*-------------------------------------------------------------------------
 *
 * test_message.c
 *	  Tests of the wire format, as a plain program that prints TAP.
 *
 * Owns: what message.h promises, seen from outside, and the layout of version
 * 1, which may not change once it has been released: the offsets below are
 * written down here a second time on purpose.
 *
 *	  cc -std=gnu99 -Isrc -It/unit -g -fsanitize=address,undefined \
 *		  t/unit/test_message.c src/message.c -o test_message && ./test_message
 *
 * Messages are read from allocations of exactly their size, so that a
 * sanitizer sees a read behind the end.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/message.h"
#include "tap.h"

#include <stdlib.h>
#include <string.h>

#define NOW				INT64_C(800000000000000)

#define SECTIONS_AT		12		/* behind the envelope */
#define TAG_HELLO		1
#define TAG_REPORT		2
#define TAG_REPLY		3
#define TAG_ABOUT		4
#define TAG_HOPS		5
#define TAG_SYNC_NAMES	7
#define TAG_TREE_HOLD	8
#define TAG_SOFTWARE	9
#define TAG_ROWS		0x7000

typedef struct Message
{
	uint8_t    *data;
	size_t		size;
} Message;

/* A string as long as its buffer allows. */
static void
fill(char *str, size_t buflen, char c)
{
	memset(str, c, buflen - 1);
	str[buflen - 1] = '\0';
}

static Message
message_of(const uint8_t *data, size_t size)
{
	Message		m;

	m.data = malloc(size > 0 ? size : 1);
	if (m.data == NULL)
		abort();
	memcpy(m.data, data, size);
	m.size = size;
	return m;
}

static void
store(uint8_t *p, uint64_t value, size_t width)
{
	while (width > 0)
	{
		p[--width] = (uint8_t) value;
		value >>= 8;
	}
}

static uint64_t
load(const uint8_t *p, size_t width)
{
	uint64_t	value = 0;

	while (width-- > 0)
		value = value << 8 | *p++;
	return value;
}

/* Where the section with that tag begins, header included. */
static size_t
section_at(Message m, unsigned tag)
{
	size_t		at = SECTIONS_AT;

	while (at < m.size)
	{
		if (load(m.data + at, 2) == tag)
			return at;
		at += 6 + load(m.data + at + 2, 4);
	}
	printf("Bail out! no section %u\n", tag);
	exit(1);
}

/* A copy with n bytes put in, and the length of the whole adjusted. */
static Message
with_bytes(Message m, size_t at, const void *bytes, size_t n)
{
	Message		r;

	r.size = m.size + n;
	r.data = malloc(r.size);
	if (r.data == NULL)
		abort();
	memcpy(r.data, m.data, at);
	memcpy(r.data + at, bytes, n);
	memcpy(r.data + at + n, m.data + at, m.size - at);
	store(r.data + 8, r.size, 4);
	return r;
}

/* A copy with n bytes cut out. */
static Message
without_bytes(Message m, size_t at, size_t n)
{
	Message		r = message_of(m.data, m.size - n);

	memcpy(r.data + at, m.data + at + n, m.size - at - n);
	store(r.data + 8, r.size, 4);
	return r;
}

static Message
with_byte(Message m, size_t at, uint8_t value)
{
	Message		r = message_of(m.data, m.size);

	r.data[at] = value;
	return r;
}

/* A copy in which the section's payload is n bytes longer. */
static Message
with_longer_section(Message m, unsigned tag, const void *bytes, size_t n)
{
	size_t		at = section_at(m, tag);
	size_t		len = load(m.data + at + 2, 4);
	Message		r = with_bytes(m, at + 6 + len, bytes, n);

	store(r.data + at + 2, len + n, 4);
	return r;
}

static Message
without_section(Message m, unsigned tag)
{
	size_t		at = section_at(m, tag);

	return without_bytes(m, at, 6 + load(m.data + at + 2, 4));
}

/*
 * Decodes a message as what it says it is, all rows included.  Returns the
 * error, or NULL.
 */
static const char *
decode(Message m)
{
	const char *error = "unset";
	CrelayHello hello;
	CrelayReport report;
	CrelayReply reply;
	CrelayCursor rows;
	CrelayNode	row;
	uint32_t	n = 0;
	uint32_t	expected = 0;
	bool		good = false;
	CrelayMessageKind kind = crelay_message_kind(m.data, m.size, &error);

	if (kind == 0)
		return error != NULL ? error : "no kind and no error";
	memset(&rows, 0, sizeof(rows));
	switch (kind)
	{
		case CRELAY_MSG_HELLO:
			good = crelay_message_get_hello(m.data, m.size, &hello, &error);
			break;
		case CRELAY_MSG_REPORT:
			good = crelay_message_get_report(m.data, m.size, &report, &rows, &error);
			expected = report.nrows;
			break;
		case CRELAY_MSG_REPLY:
			good = crelay_message_get_reply(m.data, m.size, &reply, &rows, &error);
			expected = reply.nrows;
			break;
	}
	if (!good)
		return error != NULL ? error : "failed without an error";
	if (error != NULL)
		return "succeeded with an error";
	while (crelay_message_get_row(&rows, &row, NOW))
		n++;
	if (n != expected)
		return "fewer rows than promised";
	return NULL;
}

static const char *
decode_and_free(Message m)
{
	const char *error = decode(m);

	free(m.data);
	return error;
}

static void
rejects(Message m, const char *error, const char *what)
{
	is_text(decode_and_free(m), error, what);
}

static void
accepts(Message m, const char *what)
{
	const char *error = decode_and_free(m);

	ok(error == NULL, "%s", what);
	if (error != NULL)
		printf("#   rejected: %s\n", error);
}


/*
 * Samples.  Every field has a value of its own, so that two that change places
 * are seen.  They are zeroed first, as the reader does, to be compared whole.
 */

static CrelayHello
sample_hello(void)
{
	CrelayHello hello;

	memset(&hello, 0, sizeof(hello));
	hello.system_identifier = UINT64_C(0x7123456789abcdef);
	hello.start_id = UINT64_C(0xfedcba9876543210);
	hello.incarnation = 0xa1b2c3d4;
	hello.report_interval_ms = 1000;
	strcpy(hello.node_name, "leaf_1");
	return hello;
}

/* A place of each kind in turn. */
static CrelayPin
sample_pin(uint32_t i)
{
	CrelayPin	pin;

	memset(&pin, 0, sizeof(pin));
	pin.kind = (CrelayPinKind) (i % (CRELAY_PIN_LAST + 1));
	strcpy(pin.by, pin.kind == CRELAY_PIN_WALSENDER ? "walreceiver#4711" : "node_0007");
	strcpy(pin.on, pin.kind == CRELAY_PIN_NODE ? "node_0007" : "node_0008");
	if (pin.kind == CRELAY_PIN_SLOT || pin.kind == CRELAY_PIN_HOLD)
		strcpy(pin.slot, "leaf_slot");
	return pin;
}

/* The longest place that can be. */
static void
fill_pin(CrelayPin *pin)
{
	memset(pin, 0, sizeof(*pin));
	pin->kind = CRELAY_PIN_SLOT;
	fill(pin->by, sizeof(pin->by), '#');
	fill(pin->on, sizeof(pin->on), 'n');
	fill(pin->slot, sizeof(pin->slot), 's');
}

static CrelayReport
sample_report(bool has_tree)
{
	CrelayReport report;

	memset(&report, 0, sizeof(report));
	report.sequence = UINT64_C(0x0102030405060708);
	report.report_interval_ms = 1500;
	report.timeline = 3;
	report.state = CRELAY_STATE_CATCHUP;
	report.replica_class = CRELAY_CLASS_READ_REPLICA;
	report.protected = CRELAY_FALSE;
	report.hot_standby_feedback = CRELAY_TRUE;
	report.warnings = CRELAY_WARN_UNPROTECTED | (1u << 31);
	report.backend_xmin = 0xfffffff0;
	report.flush_lsn = UINT64_C(0x1000000000000001);
	report.replay_lsn = UINT64_C(0x2000000000000002);
	report.frontier_lsn = UINT64_C(0x3000000000000003);
	report.hold_target_lsn = UINT64_C(0x4000000000000004);
	report.oldest_wal_lsn = UINT64_C(0x5000000000000005);
	report.pin = sample_pin(CRELAY_PIN_NODE);
	strcpy(report.xmin_pinned_by, "reporting");
	report.incarnation = 0xa1b2c3d4;
	report.feed = CRELAY_FEED_SLOT_LOST;
	report.pause = CRELAY_PAUSE_SETTINGS;
	report.apply_delay_ms = 3600001;
	report.has_tree = has_tree;
	if (has_tree)
	{
		strcpy(report.about.slot_name, "leaf_slot");
		strcpy(report.about.application_name, "Leaf One");
		strcpy(report.about.location, "eu-west");
		strcpy(report.about.conninfo, "host=10.0.0.5 port=5432");
		strcpy(report.about.version, "1.10");
		strcpy(report.about.upstream_address, "host=10.0.0.2 port=5433");
		report.about.room.known = true;
		report.about.room.senders = 7;
		report.about.room.slots = 300;
	}
	return report;
}

static CrelayReply
sample_reply(uint32_t nhops, bool has_tree)
{
	CrelayReply reply;
	uint32_t	i;

	memset(&reply, 0, sizeof(reply));
	reply.answer = CRELAY_ANSWER_OK;
	reply.refusal = CRELAY_HELD_LATER;
	strcpy(reply.detail, "slot \"cascade_relay_leaf_1_a1b2c3d4\" begins later");
	reply.sequence = 77;
	reply.held_lsn = UINT64_C(0x0000000300006000);
	strcpy(reply.node_name, "relay");
	reply.incarnation = 0x11223344;
	reply.state = CRELAY_STATE_STREAMING;
	reply.replica_class = CRELAY_CLASS_VOTING;
	reply.replay_lag = 1234567;
	reply.warnings = CRELAY_WARN_DUPLICATE_NAME;
	reply.root_known = true;
	reply.root_lsn = UINT64_C(0x0000000400000028);
	reply.oldest_wal_lsn = UINT64_C(0x0000000100000000);
	reply.slot_fate = CRELAY_SLOT_MISSING;
	reply.root_age_ms = 2345;
	reply.path_interval_ms = 30000;
	reply.nhops = nhops;
	for (i = 0; i < nhops; i++)
	{
		snprintf(reply.hops[i].name, sizeof(reply.hops[i].name), "hop_%u", i);
		reply.hops[i].incarnation = i;
		reply.hops[i].held_lsn = UINT64_C(0x100000000) * i;
	}
	reply.sync_names.known = true;
	reply.sync_names.n = 2;
	strcpy(reply.sync_names.names[0], "walreceiver");
	strcpy(reply.sync_names.names[1], "It's \"me\"");
	reply.tree_hold_lsn = UINT64_C(0x0000000200001234);
	reply.has_tree = has_tree;
	return reply;
}

static CrelayNode
sample_row(uint32_t i)
{
	CrelayNode	row;

	memset(&row, 0, sizeof(row));
	row.managed = i % 3 != 2;
	snprintf(row.name, sizeof(row.name),
			 row.managed ? "node_%04u" : "Barman 3.10 #%u", i);
	row.incarnation = row.managed ? 0xc0000000 + i : 0;
	if (i > 0)
	{
		strcpy(row.upstream_name, "node_0000");
		row.upstream_incarnation = 0xc0000000;
	}
	row.role = CRELAY_ROLE_STANDBY;
	row.replica_class = CRELAY_CLASS_VOTING;
	row.state = (CrelayState) (i % (CRELAY_STATE_LAST + 1));
	row.protected = CRELAY_TRUE;
	row.hot_standby_feedback = CRELAY_FALSE;
	row.timeline = 10 + i;
	row.warnings = 0x80000000 + i;
	row.flush_lsn = UINT64_C(0x600000000) + i;
	row.replay_lsn = UINT64_C(0x700000000) + i;
	row.frontier_lsn = UINT64_C(0x800000000) + i;
	row.oldest_wal_lsn = UINT64_C(0x900000000) + i;
	row.replay_lag = i == 0 ? -1 : (int64_t) i * 1000001;
	row.backend_xmin = 700 + i;
	row.pin = sample_pin(i);
	row.feed = (CrelayFeed) (i % (CRELAY_FEED_LAST + 1));
	row.pause = (CrelayPause) (i % (CRELAY_PAUSE_LAST + 1));
	row.apply_delay_ms = 1000 * i;
	strcpy(row.xmin_pinned_by, "node_0009");
	strcpy(row.location, "default");
	strcpy(row.conninfo, "host=10.0.0.5 port=5432");
	strcpy(row.version, row.managed ? "1.0" : "");
	strcpy(row.upstream_address, row.managed ? "host=10.0.0.1 port=5432" : "");
	if (i % 3 == 0)
		row.moves = 1 + i;
	row.path_interval_ms = 1000 * i;
	row.room.known = i % 2 == 0;
	row.room.senders = (uint16_t) (65535 - i);
	row.room.slots = (uint16_t) i;
	row.observed_at = i == 1 ? 0 : NOW - 1000 * (int64_t) i;
	return row;
}

/* The longest row that can be. */
static CrelayNode
largest_row(void)
{
	CrelayNode	row = sample_row(2);

	fill(row.name, sizeof(row.name), '~');
	fill(row.upstream_name, sizeof(row.upstream_name), ' ');
	row.upstream_incarnation = 0;
	fill_pin(&row.pin);
	fill(row.xmin_pinned_by, sizeof(row.xmin_pinned_by), '%');
	fill(row.location, sizeof(row.location), '/');
	fill(row.conninfo, sizeof(row.conninfo), '=');
	fill(row.version, sizeof(row.version), '9');
	fill(row.upstream_address, sizeof(row.upstream_address), '8');
	row.moves = UINT32_MAX;
	return row;
}

static Message
encode_hello(const CrelayHello *hello)
{
	uint8_t		buf[1024];

	return message_of(buf, crelay_message_put_hello(buf, sizeof(buf), hello));
}

static Message
encode_report(const CrelayReport *report, uint32_t nrows)
{
	size_t		size = crelay_message_size_bound(nrows);
	uint8_t    *buf = malloc(size);
	CrelayCursor cur;
	uint32_t	i;
	Message		m;

	if (buf == NULL)
		abort();
	crelay_message_begin_report(&cur, buf, size, report);
	for (i = 0; i < nrows; i++)
	{
		CrelayNode	row = sample_row(i);

		crelay_message_put_row(&cur, &row, NOW);
	}
	m = message_of(buf, crelay_message_end(&cur));
	free(buf);
	return m;
}

static Message
encode_reply(const CrelayReply *reply, uint32_t nrows)
{
	size_t		size = crelay_message_size_bound(nrows);
	uint8_t    *buf = malloc(size);
	CrelayCursor cur;
	uint32_t	i;
	Message		m;

	if (buf == NULL)
		abort();
	crelay_message_begin_reply(&cur, buf, size, reply);
	for (i = 0; i < nrows; i++)
	{
		CrelayNode	row = sample_row(i);

		crelay_message_put_row(&cur, &row, NOW);
	}
	m = message_of(buf, crelay_message_end(&cur));
	free(buf);
	return m;
}

static Message
hello_message(void)
{
	CrelayHello hello = sample_hello();

	return encode_hello(&hello);
}

static Message
report_message(uint32_t nrows)
{
	CrelayReport report = sample_report(true);

	return encode_report(&report, nrows);
}

static Message
reply_message(uint32_t nhops, uint32_t nrows)
{
	CrelayReply reply = sample_reply(nhops, true);

	return encode_reply(&reply, nrows);
}

/* A report whose only row is the given one; size 0 if it was refused. */
static Message
row_message(const CrelayNode *row, const char **error)
{
	uint8_t		buf[4096];
	CrelayReport report = sample_report(true);
	CrelayCursor cur;
	size_t		size;

	crelay_message_begin_report(&cur, buf, sizeof(buf), &report);
	crelay_message_put_row(&cur, row, NOW);
	size = crelay_message_end(&cur);
	*error = cur.error;
	return message_of(buf, size);
}


static void
test_hello(void)
{
	CrelayHello hello = sample_hello();
	CrelayHello got;
	Message		m = encode_hello(&hello);
	const char *error;

	is_number(crelay_message_kind(m.data, m.size, &error), CRELAY_MSG_HELLO, "a hello is a hello");
	ok(memcmp(m.data, "CRLY\1\1\1\0", 8) == 0, "the envelope is as documented");
	is_number(load(m.data + 8, 4), m.size, "it carries its length");
	is_number(load(m.data + 18, 8), hello.system_identifier, "in network byte order");
	ok(crelay_message_get_hello(m.data, m.size, &got, &error), "a hello is read");
	ok(memcmp(&hello, &got, sizeof(got)) == 0, "a hello comes back as it was");
	free(m.data);

	fill(hello.node_name, sizeof(hello.node_name), 'X');
	m = encode_hello(&hello);
	is_number(m.size, 122, "the longest hello");
	ok(crelay_message_get_hello(m.data, m.size, &got, &error) &&
	   strcmp(got.node_name, hello.node_name) == 0,
	   "a hello's name is not checked to be a node name");
	free(m.data);

	strcpy(hello.node_name, "");
	accepts(encode_hello(&hello), "nor to be there");

	m = hello_message();
	rejects(with_byte(m, m.size - 1, '\n'), "a name is not printable ASCII", "a hello's name has no newline");
	store(m.data + 34, 0, 4);
	is_text(decode(m), "an incarnation does not fit its node", "a hello without incarnation is rejected");
	free(m.data);

	hello.incarnation = 0;
	m = encode_hello(&hello);
	is_number(m.size, 0, "and not written");
	free(m.data);
}

static void
test_report(void)
{
	CrelayReport report = sample_report(false);
	CrelayReport got;
	CrelayCursor rows;
	CrelayNode	row;
	Message		m = encode_report(&report, 0);
	const char *error;

	ok(crelay_message_get_report(m.data, m.size, &got, &rows, &error), "a report without a tree is read");
	ok(memcmp(&report, &got, sizeof(got)) == 0, "it comes back as it was");
	ok(!crelay_message_get_row(&rows, &row, NOW), "it has no row");
	free(m.data);

	memset(&report, 0xff, sizeof(report));
	report.state = CRELAY_STATE_LAST;
	report.replica_class = CRELAY_CLASS_READ_REPLICA;
	report.protected = CRELAY_TRUE;
	report.hot_standby_feedback = CRELAY_TRUE;
	report.feed = CRELAY_FEED_LAST;
	report.pause = CRELAY_PAUSE_LAST;
	report.has_tree = false;
	fill_pin(&report.pin);
	fill(report.xmin_pinned_by, sizeof(report.xmin_pinned_by), 'y');
	m = encode_report(&report, 0);
	is_number(m.size, 366, "a report without a tree takes at most 366 bytes");
	ok(decode(m) == NULL, "and can be read");
	free(m.data);

	report = sample_report(true);
	m = encode_report(&report, 0);
	ok(crelay_message_get_report(m.data, m.size, &got, &rows, &error), "a report with a tree of no rows is read");
	ok(memcmp(&report, &got, sizeof(got)) == 0, "it comes back as it was, about included");
	free(m.data);

	fill_pin(&report.pin);
	fill(report.about.slot_name, sizeof(report.about.slot_name), 'b');
	fill(report.about.application_name, sizeof(report.about.application_name), 'c');
	fill(report.about.location, sizeof(report.about.location), 'd');
	fill(report.about.conninfo, sizeof(report.about.conninfo), 'e');
	fill(report.about.version, sizeof(report.about.version), 'f');
	fill(report.about.upstream_address, sizeof(report.about.upstream_address), 'g');
	m = encode_report(&report, 0);
	ok(crelay_message_get_report(m.data, m.size, &got, &rows, &error) &&
	   memcmp(&report, &got, sizeof(got)) == 0, "so does one with the longest strings");
	free(m.data);
}

static void
test_reply(void)
{
	CrelayReply reply = sample_reply(3, false);
	CrelayReply got;
	CrelayCursor rows;
	Message		m = encode_reply(&reply, 0);
	const char *error;
	uint32_t	i;

	ok(crelay_message_get_reply(m.data, m.size, &got, &rows, &error), "a reply is read");
	ok(memcmp(&reply, &got, sizeof(got)) == 0, "it comes back as it was");
	free(m.data);

	reply = sample_reply(CRELAY_MAX_DEPTH, true);
	fill(reply.detail, sizeof(reply.detail), 'd');
	fill(reply.node_name, sizeof(reply.node_name), 'n');
	for (i = 0; i < CRELAY_MAX_DEPTH; i++)
		fill(reply.hops[i].name, sizeof(reply.hops[i].name), 'h');
	reply.sync_names.n = CRELAY_MAX_SYNC_NAMES;
	for (i = 0; i < CRELAY_MAX_SYNC_NAMES; i++)
		fill(reply.sync_names.names[i], sizeof(reply.sync_names.names[i]), 'y');
	m = encode_reply(&reply, 0);
	ok(m.size > 0 && m.size <= crelay_message_size_bound(0), "the longest reply without rows is within the bound");
	ok(crelay_message_get_reply(m.data, m.size, &got, &rows, &error), "it is read");
	ok(memcmp(&reply, &got, sizeof(got)) == 0, "it comes back as it was");
	free(m.data);

	/* a root that lists nobody is another thing than one not heard of */
	reply = sample_reply(0, false);
	memset(&reply.sync_names, 0, sizeof(reply.sync_names));
	m = encode_reply(&reply, 0);
	ok(crelay_message_get_reply(m.data, m.size, &got, &rows, &error) && !got.sync_names.known,
	   "synchronous standbys not known");
	free(m.data);
	reply.sync_names.known = true;
	m = encode_reply(&reply, 0);
	ok(crelay_message_get_reply(m.data, m.size, &got, &rows, &error) &&
	   got.sync_names.known && got.sync_names.n == 0, "no synchronous standbys");
	free(m.data);
	reply.sync_names.n = CRELAY_MAX_SYNC_NAMES + 1;
	m = encode_reply(&reply, 0);
	is_number(m.size, 0, "more of them than there is room for are the sender's mistake");
	free(m.data);

	/* an older root does not say what the tree needs */
	reply = sample_reply(0, false);
	reply.tree_hold_lsn = 0;
	m = encode_reply(&reply, 0);
	ok(crelay_message_get_reply(m.data, m.size, &got, &rows, &error) && got.tree_hold_lsn == 0,
	   "what the tree needs is not known");
	free(m.data);

	reply = sample_reply(0, false);
	reply.answer = CRELAY_ANSWER_REFUSED;
	reply.refusal = (CrelayRefusal) (CRELAY_REFUSAL_LAST + 1000);
	m = encode_reply(&reply, 0);
	ok(crelay_message_get_reply(m.data, m.size, &got, &rows, &error), "a reason that is not known here is no error");
	is_number(got.refusal, CRELAY_REFUSAL_LAST + 1000, "and is kept as it is");
	free(m.data);
}

static void
test_rows(void)
{
	CrelayReport report = sample_report(true);
	CrelayReport got;
	CrelayReply reply = sample_reply(2, true);
	CrelayReply got_reply;
	CrelayCursor rows;
	CrelayNode	row;
	CrelayNode	expected;
	Message		m = encode_report(&report, 1000);
	const char *error;
	uint32_t	i;

	ok(crelay_message_get_report(m.data, m.size, &got, &rows, &error), "a report of 1000 rows is read");
	is_number(got.nrows, 1000, "it has 1000 rows");
	for (i = 0; crelay_message_get_row(&rows, &row, NOW); i++)
	{
		expected = sample_row(i);
		if (memcmp(&row, &expected, sizeof(row)) != 0)
			break;
	}
	is_number(i, 1000, "each row comes back as it was");
	ok(!crelay_message_get_row(&rows, &row, NOW), "and then there is none, again and again");
	free(m.data);

	m = encode_reply(&reply, 10);
	ok(crelay_message_get_reply(m.data, m.size, &got_reply, &rows, &error), "a reply with rows is read");
	is_number(got_reply.nrows, 10, "it has 10 rows");
	for (i = 0; crelay_message_get_row(&rows, &row, NOW); i++)
	{
		expected = sample_row(i);
		if (memcmp(&row, &expected, sizeof(row)) != 0)
			break;
	}
	is_number(i, 10, "each row comes back as it was in a reply too");
	free(m.data);

	expected = largest_row();
	m = row_message(&expected, &error);
	ok(crelay_message_get_report(m.data, m.size, &got, &rows, &error), "the longest row is read");
	ok(crelay_message_get_row(&rows, &row, NOW) && memcmp(&row, &expected, sizeof(row)) == 0,
	   "it comes back as it was");
	i = (uint32_t) m.size;
	free(m.data);
	m = encode_report(&report, 0);
	is_number(i - m.size, crelay_message_size_bound(2) - crelay_message_size_bound(1),
			  "the longest row takes what the bound says");
	is_number(i - m.size, 1191, "that is, 1191 bytes");
	free(m.data);
	expected = sample_row(3);
	m = row_message(&expected, &error);
	printf("# a typical row takes %zu bytes\n", (size_t) load(m.data + section_at(m, TAG_ROWS) + 10, 2) + 2);
	free(m.data);
}

static int64_t
observed_after(int64_t observed_at, int64_t sent, int64_t received)
{
	CrelayReport report = sample_report(true);
	CrelayNode	row = sample_row(0);
	CrelayCursor cur;
	uint8_t		buf[1024];
	const char *error;
	size_t		size;

	row.observed_at = observed_at;
	crelay_message_begin_report(&cur, buf, sizeof(buf), &report);
	crelay_message_put_row(&cur, &row, sent);
	size = crelay_message_end(&cur);
	if (!crelay_message_get_report(buf, size, &report, &cur, &error) ||
		!crelay_message_get_row(&cur, &row, received))
		return INT64_MIN;
	return row.observed_at;
}

static void
test_ages(void)
{
	int64_t		other = NOW + INT64_C(3600000000);
	int64_t		days50 = INT64_C(50) * 24 * 3600 * 1000000;

	ok(observed_after(NOW, NOW, other) == other, "what was seen now is seen now by the receiver's clock");
	ok(observed_after(NOW - 5000, NOW, other) == other - 5000, "what was seen 5 ms ago was so there");
	ok(observed_after(NOW - 5999, NOW, other) == other - 5000, "ages are whole milliseconds");
	ok(observed_after(NOW + 1, NOW, other) == other, "a time ahead of now is age 0");
	ok(observed_after(INT64_MAX, NOW, other) == other, "however far ahead");
	ok(observed_after(0, NOW, other) == 0, "never is never");
	ok(observed_after(NOW - days50, NOW, NOW) == NOW - INT64_C(4294967294000),
	   "an age beyond the range is the oldest, but not never");
	ok(observed_after(NOW - INT64_C(4294967295000), NOW, NOW) == NOW - INT64_C(4294967294000),
	   "nor is the one whose number means never");
	ok(observed_after(INT64_MIN, INT64_MAX, NOW) == NOW - INT64_C(4294967294000),
	   "the extremes of the clock do not overflow");
}

static void
test_lags(void)
{
	CrelayNode	row = sample_row(0);
	CrelayReport report;
	CrelayCursor rows;
	const char *error;
	Message		m;
	size_t		at;

	row.replay_lag = INT64_MAX;
	m = row_message(&row, &error);
	ok(crelay_message_get_report(m.data, m.size, &report, &rows, &error) &&
	   crelay_message_get_row(&rows, &row, NOW) && row.replay_lag == INT64_MAX, "the longest lag comes back");

	at = section_at(m, TAG_ROWS) + 6 + 4 + 2 + 54;
	is_number(load(m.data + at, 8), INT64_MAX, "(the lag is where this test looks for it)");
	store(m.data + at, (uint64_t) -2, 8);
	is_text(decode(m), "a lag is negative", "a lag of -2 is rejected");
	store(m.data + at, (uint64_t) INT64_MIN, 8);
	is_text(decode(m), "a lag is negative", "so is the most negative one");
	store(m.data + at, (uint64_t) -1, 8);
	ok(decode(m) == NULL, "a lag of -1 is not");
	free(m.data);

	row.replay_lag = 0;
	m = row_message(&row, &error);
	ok(crelay_message_get_report(m.data, m.size, &report, &rows, &error) &&
	   crelay_message_get_row(&rows, &row, NOW) && row.replay_lag == 0, "no lag is not an unknown lag");
	free(m.data);

	row.replay_lag = -500;
	m = row_message(&row, &error);
	ok(crelay_message_get_report(m.data, m.size, &report, &rows, &error) &&
	   crelay_message_get_row(&rows, &row, NOW) && row.replay_lag == -1, "a negative lag is sent as unknown");
	free(m.data);
}

/*
 * Every proper prefix of a message is rejected, with the length it had and
 * with the length of the prefix written into it.
 */
static void
test_truncation(Message m, int optional)
{
	size_t		len;
	size_t		accepted = 0;
	size_t		accepted_fixed = 0;
	size_t		wrong_text = 0;

	for (len = 0; len < m.size; len++)
	{
		Message		part = message_of(m.data, len);
		const char *error = decode(part);

		if (error == NULL)
			accepted++;
		else if (strcmp(error, "message is truncated") != 0)
			wrong_text++;
		if (len >= 12)
		{
			store(part.data + 8, len, 4);
			if (decode(part) == NULL)
				accepted_fixed++;
		}
		free(part.data);
	}
	is_number(accepted, 0, "no prefix is accepted");
	is_number(wrong_text, 0, "each is called truncated");
	/* the exceptions: what is left without a section that may be missing */
	is_number(accepted_fixed, optional, "nor one that claims to be whole");
	rejects(message_of(m.data, 0), "message is truncated", "nothing is no message");
	free(m.data);
}

/*
 * Each section of a message, cut by each number of bytes.  The bytes that a
 * section grew by may be missing.
 */
static void
test_short_section(Message m, unsigned tag, size_t grown, const char *what)
{
	size_t		at = section_at(m, tag);
	size_t		len = load(m.data + at + 2, 4);
	size_t		n;
	size_t		wrong = 0;

	for (n = 1; n <= len; n++)
	{
		Message		part = without_bytes(m, at + 6 + len - n, n);
		const char *error;

		store(part.data + at + 2, len - n, 4);
		error = decode_and_free(part);
		if (n <= grown ? error != NULL :
			error == NULL || strcmp(error, "a section is too short") != 0)
			wrong++;
	}
	ok(len > 0 && wrong == 0, "%s section that is too short is rejected", what);
	free(m.data);
}

static void
test_trailing(Message m, const char *what)
{
	Message		longer = with_bytes(m, m.size, "x", 1);

	is_text(decode(longer), "message is truncated", "a byte behind the last section");
	store(longer.data + 8, m.size, 4);
	is_text(decode_and_free(longer), "message is longer than it says", what);
	free(m.data);
}

static void
test_envelope(void)
{
	Message		m = hello_message();
	CrelayHello hello;
	CrelayReport report;
	CrelayReply reply;
	CrelayCursor rows;
	Message		other;
	const char *error;
	uint8_t    *large;

	rejects(with_byte(m, 0, 'c'), "not a message of cascade_relay", "wrong magic");
	rejects(with_byte(m, 3, 0), "not a message of cascade_relay", "wrong end of the magic");
	rejects(with_byte(m, 4, 0), "message has no version", "sender version 0");
	accepts(with_byte(m, 4, 2), "a newer sender");
	accepts(with_byte(m, 4, 255), "the newest sender there can be");
	rejects(with_byte(m, 5, CRELAY_MESSAGE_VERSION + 1), "message needs a newer version of cascade_relay",
			"a message that needs a newer reader");
	accepts(with_byte(m, 5, 0), "one that needs no reader in particular");
	rejects(with_byte(m, 6, 0), "unknown message kind", "kind 0");
	rejects(with_byte(m, 6, 4), "unknown message kind", "kind 4");
	rejects(with_byte(m, 6, 255), "unknown message kind", "kind 255");
	rejects(with_byte(m, 6, CRELAY_MSG_REPORT), "a mandatory section is missing", "a hello that says it is a report");
	rejects(with_byte(m, 7, 1), "reserved byte is not zero", "the reserved byte");
	rejects(with_byte(m, 8, 1), "message is truncated", "a longer length");
	rejects(with_byte(m, 11, 11), "message is longer than it says", "a shorter length");

	ok(!crelay_message_get_report(m.data, m.size, &report, &rows, &error), "a hello is not read as a report");
	is_text(error, "not the kind of message expected", "the reason is the kind");
	ok(rows.rows == 0 && report.sequence == 0, "and nothing is left behind");
	ok(!crelay_message_get_reply(m.data, m.size, &reply, &rows, &error), "nor as a reply");
	other = reply_message(1, 1);
	ok(!crelay_message_get_hello(other.data, other.size, &hello, &error), "nor a reply as a hello");
	free(other.data);

	large = calloc(1, CRELAY_MESSAGE_MAX + 1);
	if (large == NULL)
		abort();
	memcpy(large, m.data, m.size);
	store(large + 8, CRELAY_MESSAGE_MAX + 1, 4);
	is_number(crelay_message_kind(large, CRELAY_MESSAGE_MAX + 1, &error), 0, "a message longer than allowed");
	is_text(error, "message is too long", "has its own reason");

	/* one unknown section fills the rest */
	store(large + 8, CRELAY_MESSAGE_MAX, 4);
	store(large + m.size, 0x6000, 2);
	store(large + m.size + 2, CRELAY_MESSAGE_MAX - m.size - 6, 4);
	ok(crelay_message_get_hello(large, CRELAY_MESSAGE_MAX, &hello, &error), "one as long as allowed is read");
	free(large);
	free(m.data);
}

static void
test_sections(void)
{
	static const uint8_t unknown[] = {0x60, 0x00, 0, 0, 0, 3, 0xff, 0x00, 0x0a};
	static const uint8_t unknown_low[] = {0x00, 0x00, 0, 0, 0, 0};
	static const uint8_t unknown_high[] = {0xff, 0xff, 0, 0, 0, 1, 'x'};
	static const uint8_t overlong[] = {0x60, 0x00, 0xff, 0xff, 0xff, 0xff};
	Message		hello = hello_message();
	Message		report = report_message(3);
	Message		reply = reply_message(3, 3);
	Message		part;
	Message		whole;
	char		many[64];
	CrelayReport got;
	CrelayNode	row;
	CrelayNode	expected = sample_row(2);
	CrelayCursor rows;
	const char *error;
	size_t		at;
	size_t		len;

	accepts(with_bytes(hello, hello.size, unknown, sizeof(unknown)), "an unknown section in a hello is skipped");
	accepts(with_bytes(report, section_at(report, TAG_ROWS), unknown, sizeof(unknown)), "one in the middle of a report too");
	accepts(with_bytes(reply, 12, unknown_low, sizeof(unknown_low)), "one before all others");
	accepts(with_bytes(reply, reply.size, unknown_high, sizeof(unknown_high)), "one behind all others");
	rejects(with_bytes(hello, hello.size, overlong, sizeof(overlong)), "message is truncated",
			"a section that ends behind the message");

	part = with_bytes(hello, hello.size, unknown, sizeof(unknown));
	rejects(with_bytes(part, part.size, unknown, sizeof(unknown)), "a section is repeated or out of order",
			"an unknown section twice");
	free(part.data);
	rejects(with_bytes(hello, hello.size, hello.data + 12, hello.size - 12),
			"a section is repeated or out of order", "a hello section twice");
	at = section_at(report, TAG_ABOUT);
	len = load(report.data + at + 2, 4) + 6;
	rejects(with_bytes(report, at, report.data + at, len), "a section is repeated or out of order",
			"an about section twice");
	at = section_at(report, TAG_ROWS);
	rejects(with_bytes(report, report.size, report.data + at, report.size - at),
			"a section is repeated or out of order", "a rows section twice");

	rejects(without_section(hello, TAG_HELLO), "a mandatory section is missing", "a hello without its section");
	rejects(without_section(report, TAG_REPORT), "a mandatory section is missing", "a report without its section");
	rejects(without_section(reply, TAG_REPLY), "a mandatory section is missing", "a reply without its section");
	rejects(without_section(reply, TAG_HOPS), "a mandatory section is missing", "a reply without hops");
	rejects(without_section(report, TAG_ABOUT), "half of the tree part is missing", "a report with rows only");
	rejects(without_section(report, TAG_ROWS), "half of the tree part is missing", "a report with about only");
	accepts(without_section(reply, TAG_ROWS), "a reply without rows");
	accepts(without_section(reply, TAG_SYNC_NAMES), "a reply without synchronous standbys");
	accepts(without_section(reply, TAG_TREE_HOLD), "a reply that does not say what the tree needs");

	accepts(with_longer_section(hello, TAG_HELLO, "new", 3), "a longer hello section is accepted");
	accepts(with_longer_section(report, TAG_REPORT, "new", 3), "a longer report section is accepted");
	accepts(with_longer_section(report, TAG_ABOUT, "\0\1\2", 3), "a longer about section is accepted");
	accepts(with_longer_section(reply, TAG_REPLY, "new", 3), "a longer reply section is accepted");
	accepts(with_longer_section(reply, TAG_HOPS, "new", 3), "a longer hops section is accepted");
	accepts(with_longer_section(reply, TAG_SYNC_NAMES, "new", 3), "a longer list of synchronous standbys is accepted");
	accepts(with_longer_section(reply, TAG_TREE_HOLD, "new", 3), "more about what the tree needs is accepted");
	accepts(with_longer_section(reply, TAG_ROWS, "new", 3), "a longer rows section is accepted");

	/* as many names as somebody with more room might send */
	at = section_at(reply, TAG_SYNC_NAMES) + 6;
	part = with_byte(reply, at, 3);
	rejects(part, "a section is too short", "fewer synchronous standbys than are announced");
	for (len = 0; len < sizeof(many); len += 2)
		memcpy(many + len, "\1n", 2);
	part = with_bytes(reply, at + 1, many, sizeof(many));
	store(part.data + at, 2 + sizeof(many) / 2, 1);
	store(part.data + at - 4, load(part.data + at - 4, 4) + sizeof(many), 4);
	accepts(part, "more synchronous standbys than there is room for");

	/* the second of the three rows gets a field that is not known here */
	at = section_at(report, TAG_ROWS) + 10;
	at += 2 + load(report.data + at, 2);
	len = load(report.data + at, 2);
	part = with_bytes(report, at + 2 + len, "new field", 9);
	store(part.data + at, len + 9, 2);
	whole = with_bytes(part, 12, unknown_low, sizeof(unknown_low));
	at = section_at(whole, TAG_ROWS) + 2;
	store(whole.data + at, load(whole.data + at, 4) + 9, 4);
	ok(crelay_message_get_report(whole.data, whole.size, &got, &rows, &error), "a longer row is accepted");
	crelay_message_get_row(&rows, &row, NOW);
	crelay_message_get_row(&rows, &row, NOW);
	ok(crelay_message_get_row(&rows, &row, NOW) && memcmp(&row, &expected, sizeof(row)) == 0,
	   "and the row behind it is found");
	free(part.data);
	free(whole.data);

	/* likewise the first hop */
	at = section_at(reply, TAG_HOPS) + 7;
	len = load(reply.data + at, 2);
	part = with_bytes(reply, at + 2 + len, "new", 3);
	store(part.data + at, len + 3, 2);
	at = section_at(reply, TAG_HOPS) + 2;
	store(part.data + at, load(part.data + at, 4) + 3, 4);
	accepts(part, "a longer hop is accepted");

	/* a length of a row that points behind its section, and one too short */
	at = section_at(report, TAG_ROWS) + 10;
	rejects(with_byte(report, at, 0xff), "a section is too short", "a row longer than its section");
	part = message_of(report.data, report.size);
	store(part.data + at, load(part.data + at, 2) - 1, 2);
	is_text(decode_and_free(part), "a section is too short", "a row shorter than its fields");

	free(hello.data);
	free(report.data);
	free(reply.data);
}

static void
test_names(void)
{
	char		name[CRELAY_NAME_LEN];
	char		unterminated[CRELAY_NODE_NAME_MAX + 1];
	CrelayNode	row;
	CrelayReply reply;
	Message		m;
	const char *error;
	size_t		at;

	ok(crelay_node_name_is_valid("a") && crelay_node_name_is_valid("_9z"), "names");
	ok(!crelay_node_name_is_valid(""), "the empty name is none");
	ok(!crelay_node_name_is_valid("A") && !crelay_node_name_is_valid("a-b") &&
	   !crelay_node_name_is_valid("a b") && !crelay_node_name_is_valid("a.b") &&
	   !crelay_node_name_is_valid("n\303\266de") && !crelay_node_name_is_valid("a\n") &&
	   !crelay_node_name_is_valid("`") && !crelay_node_name_is_valid("{") &&
	   !crelay_node_name_is_valid("/") && !crelay_node_name_is_valid(":"), "nor are these");
	memset(name, 0, sizeof(name));
	memset(name, 'x', CRELAY_NODE_NAME_MAX);
	ok(crelay_node_name_is_valid(name), "40 characters are a name");
	name[CRELAY_NODE_NAME_MAX] = 'x';
	ok(!crelay_node_name_is_valid(name), "41 are not");
	memset(unterminated, 'x', sizeof(unterminated));
	ok(!crelay_node_name_is_valid(unterminated), "a buffer without an end is not");

	/* the row's name is the first string, behind 74 bytes of numbers */
	row = sample_row(0);
	row.upstream_address[0] = '\0';
	row.conninfo[0] = '\0';
	row.moves = 0;
	row.version[0] = '\0';
	row.location[0] = '\0';
	m = row_message(&row, &error);
	at = section_at(m, TAG_ROWS) + 6 + 4 + 2 + 70;
	is_number(m.data[at], strlen(row.name), "(the name is where this test looks for it)");
	rejects(with_byte(m, at + 1, 'N'), "a name is not a node name", "a managed row with another name is rejected");
	rejects(with_byte(m, at + 1, 0), "a name is not printable ASCII", "a zero in a name is rejected");
	rejects(with_byte(m, at + 1, 0x7f), "a name is not printable ASCII", "so is a delete");
	rejects(with_byte(m, at + 1, 0x1f), "a name is not printable ASCII", "so is a control character");
	rejects(with_byte(m, at + 1, 0xc3), "a name is not printable ASCII", "so is UTF-8");
	rejects(with_byte(m, at, CRELAY_NAME_LEN), "a string is too long", "a name longer than its buffer is rejected");
	rejects(with_byte(m, at, CRELAY_NAME_LEN - 1), "a section is too short", "one that would fit its buffer, but not its row, too");
	free(m.data);

	row = sample_row(2);
	strcpy(row.name, "~ !");
	m = row_message(&row, &error);
	ok(decode(m) == NULL, "an unmanaged row may have any printable name");
	at = section_at(m, TAG_ROWS) + 10;
	store(m.data + at + 2, 5, 4);
	is_text(decode(m), "an incarnation does not fit its node", "but no incarnation");
	free(m.data);

	row = sample_row(1);
	m = row_message(&row, &error);
	at = section_at(m, TAG_ROWS) + 10;
	store(m.data + at + 2, 0, 4);
	is_text(decode(m), "an incarnation does not fit its node", "a managed row has an incarnation");
	free(m.data);

	/* the upstream: any printable name, but a node's if it has an incarnation */
	row = sample_row(1);
	strcpy(row.upstream_name, "Barman 3.10");
	row.upstream_incarnation = 0;
	m = row_message(&row, &error);
	ok(decode(m) == NULL, "an upstream without incarnation may have any printable name");
	at = section_at(m, TAG_ROWS) + 10;
	store(m.data + at + 6, 5, 4);
	is_text(decode(m), "a name is not a node name", "one with an incarnation may not");
	free(m.data);
	strcpy(row.upstream_name, "");
	m = row_message(&row, &error);
	ok(decode(m) == NULL, "a row may have no upstream");
	free(m.data);

	/* in a hop, and as the answering node */
	m = reply_message(1, 0);
	at = section_at(m, TAG_HOPS) + 7 + 2 + 12;
	is_number(m.data[at], 5, "(the hop's name is where this test looks for it)");
	rejects(with_byte(m, at + 1, 'H'), "a name is not a node name", "a hop has a node name");
	rejects(with_byte(m, at, 0), "a name is not a node name", "a hop's name is not empty");
	rejects(with_byte(m, at, CRELAY_NODE_NAME_MAX + 1), "a string is too long", "a hop's name is as short as a node's");
	at = section_at(m, TAG_REPLY) + 6 + 38;
	is_number(m.data[at], 5, "(so is the reply's)");
	rejects(with_byte(m, at + 1, 'R'), "a name is not a node name", "a reply has a node name");
	rejects(with_byte(m, at + 6 + 1, 0x0a), "a name is not printable ASCII", "a reply's detail is one line");
	free(m.data);

	/* the writer refuses what the reader would */
	row = sample_row(0);
	strcpy(row.name, "Node");
	m = row_message(&row, &error);
	is_number(m.size, 0, "a managed row with another name is not written");
	is_text(error, "a name is not a node name", "and the writer says why");
	free(m.data);
	row = sample_row(2);
	strcpy(row.name, "");
	m = row_message(&row, &error);
	is_number(m.size, 0, "nor is one without any");
	is_text(error, "a name is empty", "and the writer says why");
	free(m.data);
	reply = sample_reply(0, false);
	strcpy(reply.node_name, "");
	m = encode_reply(&reply, 0);
	is_number(m.size, 0, "nor a reply of nobody");
	free(m.data);
	reply = sample_reply(2, false);
	strcpy(reply.hops[1].name, "x y");
	m = encode_reply(&reply, 0);
	is_number(m.size, 0, "nor a hop that is no node");
	free(m.data);
}

static void
test_empty_name(void)
{
	CrelayNode	row = sample_row(2);
	Message		m;
	Message		part;
	const char *error;
	size_t		at;

	strcpy(row.name, "x");
	m = row_message(&row, &error);
	at = section_at(m, TAG_ROWS);
	part = without_bytes(m, at + 12 + 70 + 1, 1);
	part.data[at + 12 + 70] = 0;
	store(part.data + at + 2, load(part.data + at + 2, 4) - 1, 4);
	store(part.data + at + 10, load(part.data + at + 10, 2) - 1, 2);
	is_text(decode_and_free(part), "a name is empty", "an unmanaged row has a name");
	free(m.data);
}

/* What people read is made to fit; that is not worth losing a report. */
static void
test_cleaning(void)
{
	CrelayReport report = sample_report(true);
	CrelayReport got;
	CrelayCursor rows;
	Message		m;
	const char *error;

	strcpy(report.pin.by, "caf\303\251\n");
	memset(report.about.conninfo, 'c', sizeof(report.about.conninfo));
	memset(report.about.location, 0x80, sizeof(report.about.location));
	m = encode_report(&report, 0);
	ok(crelay_message_get_report(m.data, m.size, &got, &rows, &error), "strange text is sent in a form that is read");
	is_text(got.pin.by, "caf???", "each byte that is not printable is a question mark");
	is_number(strlen(got.about.conninfo), CRELAY_CONNINFO_LEN - 1, "a string without an end is cut");
	is_number(strlen(got.about.location), CRELAY_LOCATION_LEN - 1, "any string is");
	free(m.data);
}

/*
 * The place of a pin goes into commands that are printed: nothing but the
 * characters of a slot name gets there.
 */
static void
test_places(void)
{
	static const char *const bad[] = {"x'; DROP TABLE t; --", "X", "a-b", "a b"};
	CrelayNode	row = sample_row(0);
	const char *error;
	Message		m;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		row.pin = sample_pin(CRELAY_PIN_SLOT);
		strcpy(row.pin.slot, bad[i]);
		rejects(row_message(&row, &error), "a name is not a slot name", bad[i]);
		row.pin = sample_pin(CRELAY_PIN_HOLD);
		strcpy(row.pin.on, bad[i]);
		rejects(row_message(&row, &error), "a name is not a node name", bad[i]);
	}
	row.pin = sample_pin(CRELAY_PIN_SLOT);
	row.pin.on[0] = '\0';
	row.pin.slot[0] = '\0';
	accepts(row_message(&row, &error), "a place that is not known");
	row.pin.kind = (CrelayPinKind) (CRELAY_PIN_LAST + 1);
	m = row_message(&row, &error);
	is_text(error, "a value is out of range", "an unknown kind of pin is not written");
	free(m.data);
}

/* The byte at that place may have values from first to last only. */
static void
test_range(Message m, size_t at, unsigned first, unsigned last, const char *error, const char *what)
{
	unsigned	value;
	unsigned	wrong = 0;

	for (value = 0; value < 256; value++)
	{
		const char *got = decode_and_free(with_byte(m, at, (uint8_t) value));

		if (value >= first && value <= last)
			wrong += got != NULL;
		else
			wrong += got == NULL || strcmp(got, error) != 0;
	}
	is_number(wrong, 0, what);
}

static void
test_enums(void)
{
	const char *range = "a value is out of range";
	const char *boolean = "a boolean is neither 0 nor 1";
	CrelayReport report = sample_report(false);
	CrelayReply reply = sample_reply(0, false);
	CrelayNode	row = sample_row(0);
	Message		m = report_message(1);
	const char *error;
	size_t		at = section_at(m, TAG_REPORT) + 6 + 16;

	test_range(m, at + 0, 0, CRELAY_STATE_LAST, range, "a report's state");
	test_range(m, at + 1, 0, CRELAY_CLASS_LAST, range, "a report's class");
	test_range(m, at + 2, 0, CRELAY_TRUE, range, "a report's protected");
	test_range(m, at + 3, 0, CRELAY_TRUE, range, "a report's feedback");
	at = section_at(m, TAG_ROWS) + 12 + 8;
	test_range(m, at + 0, 0, CRELAY_ROLE_STANDBY, range, "a row's role");
	test_range(m, at + 1, 0, CRELAY_CLASS_LAST, range, "a row's class");
	test_range(m, at + 2, 0, CRELAY_STATE_LAST, range, "a row's state");
	test_range(m, at + 4, 0, CRELAY_TRUE, range, "a row's protected");
	test_range(m, at + 5, 0, CRELAY_TRUE, range, "a row's feedback");
	rejects(with_byte(m, at + 3, 2), boolean, "a row's managed");
	free(m.data);

	m = reply_message(1, 0);
	at = section_at(m, TAG_REPLY) + 6;
	test_range(m, at, CRELAY_ANSWER_OK, CRELAY_ANSWER_CLOSING, range, "a reply's answer");
	test_range(m, at + 23, 0, CRELAY_STATE_LAST, range, "a reply's state");
	test_range(m, at + 24, 0, CRELAY_CLASS_LAST, range, "a reply's class");
	test_range(m, at + 29, 0, 1, boolean, "a reply's root_known");
	free(m.data);

	report.state = (CrelayState) (CRELAY_STATE_LAST + 1);
	m = encode_report(&report, 0);
	is_number(m.size, 0, "a state out of range is not written");
	free(m.data);
	reply.answer = (CrelayAnswer) 0;
	m = encode_reply(&reply, 0);
	is_number(m.size, 0, "nor an answer");
	free(m.data);
	row.role = (CrelayRole) 256;
	m = row_message(&row, &error);
	is_number(m.size, 0, "nor a role that would look right in a byte");
	is_text(error, range, "and the writer says why");
	free(m.data);
}

/* From a newer sender a value is unknown, where there is such a value. */
static void
test_newer_sender(void)
{
	CrelayReport report;
	CrelayReply reply;
	CrelayCursor rows;
	CrelayNode	row;
	const char *error;
	Message		m = report_message(1);
	size_t		at;

	m.data[4] = CRELAY_MESSAGE_VERSION + 1;
	at = section_at(m, TAG_REPORT) + 6 + 16;
	m.data[at] = CRELAY_STATE_LAST + 1;
	m.data[at + 1] = 200;
	m.data[section_at(m, TAG_ROWS) + 12 + 8 + 2] = 255;
	ok(crelay_message_get_report(m.data, m.size, &report, &rows, &error) &&
	   report.state == CRELAY_STATE_UNKNOWN && report.replica_class == CRELAY_CLASS_UNKNOWN &&
	   report.protected == CRELAY_FALSE, "a newer sender's state is unknown");
	ok(crelay_message_get_row(&rows, &row, NOW) && row.state == CRELAY_STATE_UNKNOWN &&
	   strcmp(row.name, "node_0000") == 0, "in a row too");
	free(m.data);

	m = reply_message(1, 0);
	m.data[4] = 255;
	at = section_at(m, TAG_REPLY) + 6;
	m.data[at + 23] = 200;
	ok(crelay_message_get_reply(m.data, m.size, &reply, &rows, &error) &&
	   reply.state == CRELAY_STATE_UNKNOWN, "and in a reply");
	rejects(with_byte(m, at, 4), "a value is out of range", "but an answer must be understood");
	rejects(with_byte(m, at + 29, 2), "a boolean is neither 0 nor 1", "and a boolean is one");
	free(m.data);
}

/* The message less the last bytes of its only row. */
static Message
without_row_end(Message m, size_t bytes)
{
	Message		shorter = without_bytes(m, m.size - bytes, bytes);
	size_t		at = section_at(m, TAG_ROWS);

	store(shorter.data + at + 2, load(m.data + at + 2, 4) - bytes, 4);
	store(shorter.data + at + 10, load(m.data + at + 10, 2) - bytes, 2);
	return shorter;
}

/* From an older sender, what was appended later is missing. */
static void
test_older_sender(void)
{
	CrelayReport report;
	CrelayCursor rows;
	CrelayNode	row;
	const char *error;
	Message		whole = report_message(1);
	Message		m = without_section(whole, TAG_SOFTWARE);
	Message		shorter;
	size_t		room = 5;
	size_t		feed = 6;
	size_t		place = 1 + feed;	/* a node's own */
	size_t		interval = 4 + place + room;
	size_t		moves = 4 + interval;
	size_t		address = 2 + strlen("host=10.0.0.1 port=5432") + moves;

	free(whole.data);

	ok(crelay_message_get_report(m.data, m.size, &report, &rows, &error) &&
	   report.about.version[0] == '\0' && strcmp(report.about.slot_name, "leaf_slot") == 0,
	   "a sender that does not tell its version");

	/* the last fields of the only row: a length and a text, or a number */
	shorter = without_row_end(m, feed + room);
	ok(crelay_message_get_report(shorter.data, shorter.size, &report, &rows, &error) &&
	   crelay_message_get_row(&rows, &row, NOW) && row.feed == CRELAY_FEED_UNKNOWN &&
	   row.pause == CRELAY_PAUSE_UNKNOWN && strcmp(row.version, "1.0") == 0, "a row that does not say what feeds its node");
	free(shorter.data);
	shorter = without_row_end(m, interval);
	ok(crelay_message_get_report(shorter.data, shorter.size, &report, &rows, &error) &&
	   crelay_message_get_row(&rows, &row, NOW) && row.path_interval_ms == 0 &&
	   row.moves != 0, "a row without the intervals of its path");
	free(shorter.data);
	shorter = without_row_end(m, moves);
	ok(crelay_message_get_report(shorter.data, shorter.size, &report, &rows, &error) &&
	   crelay_message_get_row(&rows, &row, NOW) && row.moves == 0 &&
	   strcmp(row.upstream_address, "host=10.0.0.1 port=5432") == 0, "a row without a move counter");
	free(shorter.data);
	shorter = without_row_end(m, address);
	ok(crelay_message_get_report(shorter.data, shorter.size, &report, &rows, &error) &&
	   crelay_message_get_row(&rows, &row, NOW) && row.upstream_address[0] == '\0' &&
	   strcmp(row.version, "1.0") == 0, "a row without where it found its upstream");
	free(shorter.data);
	shorter = without_row_end(m, address + 4);
	ok(crelay_message_get_report(shorter.data, shorter.size, &report, &rows, &error) &&
	   crelay_message_get_row(&rows, &row, NOW) && row.version[0] == '\0' &&
	   strcmp(row.xmin_pinned_by, "node_0009") == 0, "and without a version");
	free(shorter.data);

	rejects(without_row_end(m, 1), "a section is too short", "half a number of places is none");
	rejects(without_row_end(m, room + 1), "a section is too short", "half a delay is none");
	rejects(without_row_end(m, room + place + 1), "a section is too short", "half an interval is none");
	rejects(without_row_end(m, interval + 1), "a section is too short", "half a move counter is none");
	rejects(without_row_end(m, moves + 1), "a section is too short", "half an address is none");
	rejects(without_row_end(m, address + 1), "a section is too short", "half a version is none");
	free(m.data);
}

static void
test_fit(void)
{
	Message		m = hello_message();

	is_number(crelay_message_fit(m.data, m.size), CRELAY_FIT_OK, "this version fits itself");
	m.data[4] = 255;
	is_number(crelay_message_fit(m.data, m.size), CRELAY_FIT_OK, "a newer sender that speaks to us fits");
	m.data[5] = CRELAY_MESSAGE_VERSION + 1;
	is_number(crelay_message_fit(m.data, m.size), CRELAY_FIT_READER_TOO_OLD, "one that does not finds us too old");
	is_text(decode(m), "message needs a newer version of cascade_relay", "and nothing of it is read");
	is_number(crelay_message_fit(m.data, 11), CRELAY_FIT_OK, "what is no message says nothing of versions");
	m.data[0] = 'X';
	is_number(crelay_message_fit(m.data, m.size), CRELAY_FIT_OK, "nor does another one's");
	free(m.data);
	is_text(crelay_message_software(), CRELAY_VERSION, "this library tells its version");
}

static void
test_too_many(void)
{
	CrelayReply reply = sample_reply(CRELAY_MAX_DEPTH, false);
	CrelayReport report = sample_report(true);
	CrelayReport got;
	CrelayNode	row;
	CrelayCursor cur;
	Message		m = encode_reply(&reply, 0);
	const char *error;
	uint8_t    *buf;
	size_t		size;
	uint32_t	i;

	rejects(with_byte(m, section_at(m, TAG_HOPS) + 6, CRELAY_MAX_DEPTH + 1), "too many hops", "65 hops are rejected");
	rejects(with_byte(m, section_at(m, TAG_HOPS) + 6, 255), "too many hops", "so are 255");
	accepts(with_byte(m, section_at(m, TAG_HOPS) + 6, CRELAY_MAX_DEPTH - 1), "63 of 64 are not: a newer sender may have appended");
	free(m.data);
	reply.nhops = CRELAY_MAX_DEPTH + 1;
	m = encode_reply(&reply, 0);
	is_number(m.size, 0, "65 hops are not written");
	free(m.data);

	m = report_message(3);
	i = (uint32_t) section_at(m, TAG_ROWS) + 6;
	store(m.data + i, 4, 4);
	is_text(decode(m), "a section is too short", "a row that is not there");
	store(m.data + i, CRELAY_MESSAGE_MAX_ROWS, 4);
	is_text(decode(m), "a section is too short", "65535 rows that are not there");
	store(m.data + i, CRELAY_MESSAGE_MAX_ROWS + 1, 4);
	is_text(decode(m), "too many rows", "65536 rows");
	store(m.data + i, UINT32_MAX, 4);
	is_text(decode(m), "too many rows", "four billion rows");
	free(m.data);

	buf = malloc(CRELAY_MESSAGE_MAX + 1024);
	if (buf == NULL)
		abort();
	crelay_message_begin_report(&cur, buf, CRELAY_MESSAGE_MAX + 1024, &report);
	for (i = 0; i < CRELAY_MESSAGE_MAX_ROWS; i++)
	{
		row = sample_row(i);
		crelay_message_put_row(&cur, &row, NOW);
	}
	size = crelay_message_end(&cur);
	ok(size > 0, "65535 typical rows fit");
	ok(crelay_message_get_report(buf, size, &got, &cur, &error), "and are read");
	is_number(got.nrows, CRELAY_MESSAGE_MAX_ROWS, "all of them");
	for (i = 0; crelay_message_get_row(&cur, &row, NOW); i++)
		;
	is_number(i, CRELAY_MESSAGE_MAX_ROWS, "one by one");

	crelay_message_begin_report(&cur, buf, CRELAY_MESSAGE_MAX + 1024, &report);
	row = sample_row(2);
	for (i = 0; i <= CRELAY_MESSAGE_MAX_ROWS; i++)
		crelay_message_put_row(&cur, &row, NOW);
	is_number(crelay_message_end(&cur), 0, "65536 rows are not written");
	is_text(cur.error, "too many rows", "and the writer says why");

	crelay_message_begin_report(&cur, buf, CRELAY_MESSAGE_MAX + 1024, &report);
	row = largest_row();
	for (i = 0; i < CRELAY_MESSAGE_MAX / 633 + 1; i++)
		crelay_message_put_row(&cur, &row, NOW);
	is_number(crelay_message_end(&cur), 0, "no message longer than allowed is written, whatever the buffer");
	free(buf);

	is_number(crelay_message_size_bound(CRELAY_MESSAGE_MAX_ROWS), CRELAY_MESSAGE_MAX, "no bound is beyond the limit");
	is_number(crelay_message_size_bound(UINT32_MAX), CRELAY_MESSAGE_MAX, "nor overflows");

	report.has_tree = false;
	m = encode_report(&report, 1);
	is_number(m.size, 0, "a row without a tree part is not written");
	free(m.data);
}

/* Each size from 0 to one less than needed; the byte behind it stays. */
static void
test_small_buffer(void)
{
	CrelayHello hello = sample_hello();
	CrelayReport report = sample_report(true);
	CrelayReply reply = sample_reply(2, true);
	CrelayNode	row = sample_row(0);
	CrelayCursor cur;
	size_t		need[3];
	int			kind;

	need[0] = 49;
	need[1] = 0;
	need[2] = 0;
	for (kind = 0; kind < 3; kind++)
	{
		size_t		size;
		size_t		first = 0;
		size_t		got = 0;

		for (size = 0; size < 2048 && first == 0; size++)
		{
			uint8_t    *buf = malloc(size > 0 ? size : 1);

			if (buf == NULL)
				abort();
			if (kind == 0)
				got = crelay_message_put_hello(buf, size, &hello);
			else
			{
				if (kind == 1)
					crelay_message_begin_report(&cur, buf, size, &report);
				else
					crelay_message_begin_reply(&cur, buf, size, &reply);
				crelay_message_put_row(&cur, &row, NOW);
				crelay_message_put_row(&cur, &row, NOW);
				got = crelay_message_end(&cur);
				if (got == 0 && strcmp(cur.error, "buffer is too small") != 0)
					first = SIZE_MAX;
			}
			if (got != 0)
				first = size;
			free(buf);
		}
		ok(first == got && got > 0, "a buffer that is too small gives 0, one that just fits does not");
		if (need[kind] != 0)
			is_number(got, need[kind], "a typical hello");
	}
}

/* Each byte in turn takes each value; ASan and UBSan watch. */
static void
test_corruption(Message m, const char *what)
{
	size_t		at;
	unsigned	value;
	size_t		rejected = 0;
	size_t		broken = 0;

	for (at = 0; at < m.size; at++)
	{
		uint8_t		before = m.data[at];

		for (value = 0; value < 256; value++)
		{
			const char *error;

			m.data[at] = (uint8_t) value;
			error = decode(m);
			rejected += error != NULL;
			if (error != NULL &&
				(strcmp(error, "fewer rows than promised") == 0 ||
				 strcmp(error, "succeeded with an error") == 0 ||
				 strcmp(error, "failed without an error") == 0))
				broken++;
		}
		m.data[at] = before;
	}
	ok(broken == 0 && rejected > m.size, "a %s with any byte changed is read whole or rejected with a reason", what);
	ok(decode(m) == NULL, "(and is a good one without)");
	free(m.data);
}

static uint64_t
next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Noise behind a good envelope, and good messages with several wrong bytes. */
static void
test_random(void)
{
	uint64_t	state = UINT64_C(0x9e3779b97f4a7c15);
	Message		samples[3];
	size_t		broken = 0;
	size_t		accepted = 0;
	size_t		rejected = 0;
	int			i;
	size_t		j;

	samples[0] = hello_message();
	samples[1] = report_message(2);
	samples[2] = reply_message(3, 2);
	for (i = 0; i < 200000; i++)
	{
		Message		m;
		const char *error;

		if (i % 4 == 3)
		{
			size_t		size = 12 + next_random(&state) % 200;

			m.data = malloc(size);
			if (m.data == NULL)
				abort();
			m.size = size;
			for (j = 0; j < size; j++)
				m.data[j] = (uint8_t) next_random(&state);
			memcpy(m.data, "CRLY\1\1", 6);
			m.data[6] = (uint8_t) (1 + next_random(&state) % 3);
			m.data[7] = 0;
			store(m.data + 8, size, 4);
		}
		else
		{
			m = message_of(samples[i % 4].data, samples[i % 4].size);
			for (j = 0; j < 1 + (size_t) i % 5; j++)
				m.data[next_random(&state) % m.size] = (uint8_t) next_random(&state);
		}
		error = decode_and_free(m);
		if (error == NULL)
			accepted++;
		else if (strcmp(error, "fewer rows than promised") == 0 ||
				 strcmp(error, "succeeded with an error") == 0 ||
				 strcmp(error, "failed without an error") == 0)
			broken++;
		else
			rejected++;
	}
	is_number(broken, 0, "random messages are read whole or rejected with a reason");
	ok(accepted > 1000 && rejected > 1000, "and there were both");
	for (i = 0; i < 3; i++)
		free(samples[i].data);
}

/*
 * Each refusal has a text of its own; it and the hint go into a sentence and a
 * log line.
 */
static void
test_refusals(void)
{
	for (int r = CRELAY_REFUSE_NONE; r <= CRELAY_REFUSAL_LAST; r++)
	{
		const char *text = crelay_refusal_text(r);
		const char *hint = crelay_refusal_hint(r);
		bool		alone = true;

		for (int other = CRELAY_REFUSE_NONE; other < r; other++)
			alone = alone && strcmp(text, crelay_refusal_text(other)) != 0;
		ok(alone && text[0] >= 'a' && text[0] <= 'z' && text[strlen(text) - 1] != '.' &&
		   (hint[0] == '\0' || hint[strlen(hint) - 1] == '.'), "refusal %d: %s", r, text);
	}
	is_text(crelay_refusal_text(CRELAY_REFUSAL_LAST + 1), "a reason that this version does not know",
			"a refusal of a version to come");
	is_text(crelay_refusal_hint(CRELAY_REFUSAL_LAST + 1), "", "... has no hint");
}

static void
test_secrets(void)
{
	ok(crelay_conninfo_is_public(""), "no address is no secret");
	ok(crelay_conninfo_is_public("host=a port=5432 dbname=x passfile=/p sslmode=require"), "nor is an address");
	ok(!crelay_conninfo_is_public("host=a password=x"), "a password is one");
	ok(!crelay_conninfo_is_public("host=a sslpassword=x"), "... that of a key, too");
	ok(!crelay_conninfo_is_public("host=a scram_client_key=x"), "... and what stands for one");
	ok(!crelay_conninfo_is_public("host=a oauth_client_secret=x"), "... in any way");
	ok(!crelay_conninfo_is_public("postgresql://u:p@a/"), "in a URI one may hide");
}

/* A node that has seen many promotions says as much as there is room for. */
static void
test_history(void)
{
	CrelayReport report = sample_report(true);
	CrelayReport got;
	CrelayCursor cur;
	Message		m;
	const char *error;
	uint8_t		buf[4096];

	report.history.timeline = 4;
	report.history.n = CRELAY_MAX_HISTORY;
	for (uint32_t i = 0; i < CRELAY_MAX_HISTORY; i++)
	{
		report.history.left[i].timeline = 100 - i;
		report.history.left[i].lsn = UINT64_C(0x100000000) * (100 - i);
	}
	m = encode_report(&report, 0);
	ok(crelay_message_get_report(m.data, m.size, &got, &cur, &error), "a report with a history is read");
	ok(memcmp(&got.history, &report.history, sizeof(CrelayHistory)) == 0, "... that arrives whole");
	free(m.data);

	report.history.n = CRELAY_MAX_HISTORY + 1;
	crelay_message_begin_report(&cur, buf, sizeof(buf), &report);
	is_number(crelay_message_end(&cur), 0, "one that is too long is not sent");
	is_text(cur.error, "too many timelines", "... for that reason");
}

/*
 * Addresses that one machine alone can use are neither told to another one nor
 * believed of it.
 */
static void
test_addresses(void)
{
	static uint8_t buf[1 << 16];
	CrelayReport report = {0};
	CrelayNode	row = {0};
	CrelayNode	got;

	report.has_tree = true;
	report.incarnation = 1;
	strcpy(report.about.location, "default");
	strcpy(row.name, "n");
	row.managed = true;
	row.incarnation = 2;
	strcpy(row.conninfo, "host=/tmp port=5433");
	for (int told = 0; told <= 1; told++)
	{
		for (int believed = 0; believed <= 1; believed++)
		{
			CrelayReport got_report;
			CrelayCursor cur;
			CrelayCursor rows;
			const char *error;
			size_t		len;

			strcpy(row.upstream_address, "host=127.0.0.1 port=5432");
			crelay_message_begin_report(&cur, buf, sizeof(buf), &report);
			cur.other_machine = told == 0;
			crelay_message_put_row(&cur, &row, NOW);
			strcpy(row.upstream_address, "host=db1 hostaddr=10.0.0.1 port=5432");
			crelay_message_put_row(&cur, &row, NOW);
			len = crelay_message_end(&cur);
			ok(crelay_message_get_report(buf, len, &got_report, &rows, &error), "a report with addresses");
			rows.other_machine = believed == 0;
			ok(crelay_message_get_row(&rows, &got, NOW) &&
			   (got.conninfo[0] != '\0') == (told && believed) &&
			   (got.upstream_address[0] != '\0') == (told && believed),
			   "an address of one machine: told %d, believed %d", told, believed);
			ok(crelay_message_get_row(&rows, &got, NOW) &&
			   strcmp(got.upstream_address, "host=db1 hostaddr=10.0.0.1 port=5432") == 0,
			   "an address of any machine");
		}
	}
}

int
main(void)
{
	test_hello();
	test_report();
	test_reply();
	test_rows();
	test_ages();
	test_lags();
	test_truncation(hello_message(), 0);
	test_truncation(report_message(3), 1);
	test_truncation(reply_message(3, 3), 3);
	test_short_section(hello_message(), TAG_HELLO, 0, "a hello");
	test_short_section(report_message(3), TAG_REPORT, 7, "a report");
	test_short_section(report_message(3), TAG_ABOUT, 0, "an about");
	test_short_section(report_message(3), TAG_ROWS, 0, "a rows");
	test_short_section(reply_message(3, 3), TAG_REPLY, 0, "a reply");
	test_short_section(reply_message(3, 3), TAG_HOPS, 0, "a hops");
	test_short_section(reply_message(3, 3), TAG_TREE_HOLD, 0, "a tree's hold");
	test_trailing(hello_message(), "garbage behind a hello");
	test_trailing(report_message(2), "garbage behind a report");
	test_trailing(reply_message(2, 2), "garbage behind a reply");
	test_envelope();
	test_sections();
	test_names();
	test_addresses();
	test_empty_name();
	test_cleaning();
	test_enums();
	test_newer_sender();
	test_older_sender();
	test_places();
	test_fit();
	test_too_many();
	test_small_buffer();
	test_corruption(hello_message(), "hello");
	test_corruption(report_message(2), "report");
	test_corruption(reply_message(3, 2), "reply");
	test_refusals();
	test_secrets();
	test_history();
	test_random();

	return done_testing();
}
