/*-------------------------------------------------------------------------
 *
 * fuzz_message.c
 *	  A libFuzzer target for the wire format.
 *
 * Owns: the claim that no input is read behind its end, and that what is read
 * can be written and is the same when read again.
 *
 *	  clang -std=gnu99 -g -O1 -fsanitize=fuzzer,address,undefined -Isrc \
 *		  tools/fuzz_message.c src/message.c -o fuzz_message
 *	  ./fuzz_message -max_total_time=60 -max_len=4096
 *
 * Each input is tried as it is, and as the body of a message of each kind
 * behind a good envelope, so that no time is lost on guessing the length.
 *
 *-------------------------------------------------------------------------
 */
#include "message.h"

#include <stdlib.h>
#include <string.h>

#define NOW				INT64_C(800000000000000)
#define ENVELOPE_SIZE	12

#define REQUIRE(condition) \
	do { \
		if (!(condition)) \
			abort(); \
	} while (0)

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
	}
	free(copy);
	return 0;
}
