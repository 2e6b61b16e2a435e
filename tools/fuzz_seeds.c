/*-------------------------------------------------------------------------
 *
 * fuzz_seeds.c
 *	  Writes valid messages of every kind, for the fuzzer to begin with.
 *
 * Owns: a corpus in which every section, every field and every extreme of a
 * length occurs.  One file for each message, without its envelope, which the
 * target puts in front itself; the first of each kind with it, too.
 *
 *	  fuzz_seeds FOLDER
 *
 *-------------------------------------------------------------------------
 */
#include "decide/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOW				INT64_C(800000000000000)
#define ENVELOPE_SIZE	12

static const char *folder;
static uint8_t buf[CRELAY_MESSAGE_MAX];

static void
write_file(const char *name, const uint8_t *data, size_t size)
{
	char		path[4096];
	FILE	   *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "wb");
	if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0)
	{
		perror(path);
		exit(1);
	}
}

static void
write_seed(const char *name, size_t size)
{
	char		whole[128];

	if (size == 0)
	{
		fprintf(stderr, "%s cannot be encoded\n", name);
		exit(1);
	}
	write_file(name, buf + ENVELOPE_SIZE, size - ENVELOPE_SIZE);
	snprintf(whole, sizeof(whole), "whole_%s", name);
	write_file(whole, buf, size);
}

/* A string that fills its buffer. */
static void
fill(char *str, size_t buflen, char c)
{
	memset(str, c, buflen - 1);
	str[buflen - 1] = '\0';
}

static void
write_hellos(void)
{
	CrelayHello hello = {0};

	hello.system_identifier = UINT64_C(7300000000000000001);
	hello.start_id = UINT64_C(0xfedcba9876543210);
	hello.incarnation = 0xa1b2c3d4;
	hello.report_interval_ms = 1000;
	strcpy(hello.node_name, "leaf_1");
	write_seed("hello", crelay_message_put_hello(buf, sizeof(buf), &hello));
	fill(hello.node_name, sizeof(hello.node_name), 'x');
	write_seed("hello_long", crelay_message_put_hello(buf, sizeof(buf), &hello));
}

static void
put_rows(CrelayCursor *cur, int n, bool full)
{
	for (int i = 0; i < n; i++)
	{
		CrelayNode	row = {0};

		row.managed = i % 3 != 2;
		snprintf(row.name, sizeof(row.name), row.managed ? "node_%d" :
				 i % 2 ? "</text><script>\"'&\\]]>--%d" : "Barman #%d", i);
		row.incarnation = row.managed ? 0xc0000000u + (uint32_t) i : 0;
		strcpy(row.upstream_name, i > 0 ? "node_0" : "");
		row.upstream_incarnation = i > 0 ? 0xc0000000u : 0;
		row.role = (CrelayRole) (i % 3);
		row.replica_class = (CrelayClass) (i % 3);
		row.state = (CrelayState) (i % (CRELAY_STATE_LAST + 1));
		row.protected = (CrelayTruth) (i % 3);
		row.hot_standby_feedback = (CrelayTruth) ((i + 1) % 3);
		row.timeline = (uint32_t) i;
		row.warnings = 1u << (i % 32);
		row.flush_lsn = UINT64_C(0x300000000) + (uint64_t) i;
		row.replay_lsn = UINT64_C(0x200000000) + (uint64_t) i;
		row.frontier_lsn = UINT64_C(0x100000000) + (uint64_t) i;
		row.oldest_wal_lsn = (uint64_t) i << 20;
		row.replay_lag = i % 2 ? i * 1000 : -1;
		row.backend_xmin = (uint32_t) (700 + i);
		row.feed = (CrelayFeed) (i % (CRELAY_FEED_LAST + 1));
		row.pause = (CrelayPause) (i % (CRELAY_PAUSE_LAST + 1));
		row.apply_delay_ms = (uint32_t) (1000 * i);
		row.observed_at = i % 4 ? NOW - i * INT64_C(1000000) : 0;
		strcpy(row.pin.by, "node_0");
		strcpy(row.xmin_pinned_by, "node_1");
		strcpy(row.location, "eu-west");
		strcpy(row.conninfo, "host=10.0.0.5 port=5432");
		strcpy(row.version, i % 2 ? "1.0" : "");
		strcpy(row.upstream_address, i % 3 ? "host=10.0.0.1" : "");
		row.moves = i % 2 ? (uint32_t) i : 0;
		row.path_interval_ms = (uint32_t) i * 1000;
		row.room.known = i % 2 == 1;
		row.room.senders = (uint16_t) i;
		if (full)
		{
			fill(row.pin.by, sizeof(row.pin.by), 'p');
			fill(row.xmin_pinned_by, sizeof(row.xmin_pinned_by), 'q');
			fill(row.location, sizeof(row.location), 'l');
			fill(row.conninfo, sizeof(row.conninfo), 'c');
			fill(row.version, sizeof(row.version), '1');
			fill(row.upstream_address, sizeof(row.upstream_address), 'u');
		}
		crelay_message_put_row(cur, &row, NOW);
	}
}

static void
write_report(const char *name, bool tree, int history, int rows, bool full)
{
	CrelayReport report = {0};
	CrelayCursor cur;

	report.sequence = 77;
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
	report.oldest_wal_lsn = UINT64_MAX;
	strcpy(report.pin.by, "walreceiver#4711");
	strcpy(report.xmin_pinned_by, "reporting");
	report.incarnation = rows > 0 ? 0xa1b2c3d4 : 0;
	report.feed = rows > 0 ? CRELAY_FEED_WAL_GONE : CRELAY_FEED_STREAMS;
	report.pause = rows > 0 ? CRELAY_PAUSE_TARGET : CRELAY_PAUSE_NO;
	report.apply_delay_ms = rows > 0 ? 3600000 : 0;
	report.has_tree = tree;
	strcpy(report.about.slot_name, "leaf_slot");
	strcpy(report.about.application_name, "Leaf One");
	strcpy(report.about.location, "eu-west");
	strcpy(report.about.conninfo, "host=10.0.0.5 port=5432");
	strcpy(report.about.version, history % 2 ? "1.0" : "");
	report.about.room.known = rows % 2 == 1;
	strcpy(report.about.upstream_address, rows > 0 ? "host=10.0.0.1" : "");
	if (full)
	{
		fill(report.about.slot_name, sizeof(report.about.slot_name), 's');
		fill(report.about.application_name, sizeof(report.about.application_name), 'a');
		fill(report.about.location, sizeof(report.about.location), 'l');
		fill(report.about.conninfo, sizeof(report.about.conninfo), 'c');
		fill(report.about.version, sizeof(report.about.version), '1');
		fill(report.about.upstream_address, sizeof(report.about.upstream_address), 'u');
	}
	report.history.timeline = (uint32_t) history + 1;
	report.history.n = (uint32_t) history;
	for (int i = 0; i < history; i++)
	{
		report.history.left[i].timeline = (uint32_t) (history - i);
		report.history.left[i].lsn = UINT64_C(0x1000000) * (uint64_t) (history - i);
	}
	crelay_message_begin_report(&cur, buf, sizeof(buf), &report);
	if (tree)
		put_rows(&cur, rows, full);
	write_seed(name, crelay_message_end(&cur));
}

static void
write_reply(const char *name, int hops, int sync_names, bool tree, int rows, bool full)
{
	CrelayReply reply = {0};
	CrelayCursor cur;

	reply.answer = (CrelayAnswer) (CRELAY_ANSWER_OK + hops % 3);
	reply.refusal = (CrelayRefusal) (rows % (CRELAY_REFUSAL_LAST + 1));
	strcpy(reply.detail, "slot \"cascade_relay_leaf_1_a1b2c3d4\" begins later");
	if (full)
		fill(reply.detail, sizeof(reply.detail), 'd');
	reply.sequence = 77;
	reply.held_lsn = UINT64_C(0x300006000);
	strcpy(reply.node_name, "relay");
	reply.incarnation = 0x11223344;
	reply.oldest_wal_lsn = UINT64_C(0x100000000);
	reply.slot_fate = hops % 2 ? CRELAY_SLOT_MISSING : CRELAY_SLOT_LOST;
	reply.state = CRELAY_STATE_STREAMING;
	reply.replica_class = CRELAY_CLASS_VOTING;
	reply.warnings = CRELAY_WARN_DUPLICATE_NAME;
	reply.replay_lag = hops % 2 ? 1000 : -1;
	reply.tree_hold_lsn = sync_names > 0 ? UINT64_C(0x300000000) : 0;
	reply.root_known = true;
	reply.root_lsn = UINT64_C(0x400000028);
	reply.root_age_ms = hops % 2 ? 2000 : CRELAY_AGE_UNKNOWN;
	reply.path_interval_ms = (uint32_t) hops * 1000;
	reply.nhops = (uint32_t) hops;
	for (int i = 0; i < hops; i++)
	{
		snprintf(reply.hops[i].name, sizeof(reply.hops[i].name), "hop_%d", i);
		reply.hops[i].incarnation = (uint32_t) i;
		reply.hops[i].held_lsn = UINT64_C(0x100000000) * (uint64_t) i;
	}
	reply.sync_names.known = sync_names >= 0;
	reply.sync_names.n = sync_names >= 0 ? (uint32_t) sync_names : 0;
	for (int i = 0; i < sync_names; i++)
		snprintf(reply.sync_names.names[i], sizeof(reply.sync_names.names[i]), "Node %d", i);
	reply.has_tree = tree;
	crelay_message_begin_reply(&cur, buf, sizeof(buf), &reply);
	if (tree)
		put_rows(&cur, rows, full);
	write_seed(name, crelay_message_end(&cur));
}

int
main(int argc, char **argv)
{
	if (argc != 2)
	{
		fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
		return 1;
	}
	folder = argv[1];
	write_hellos();
	write_report("report", false, 0, 0, false);
	write_report("report_no_rows", true, 0, 0, false);
	write_report("report_one_row", true, 3, 1, false);
	write_report("report_rows", true, 3, 12, false);
	write_report("report_history", true, CRELAY_MAX_HISTORY, 1, false);
	write_report("report_full", true, 1, 4, true);
	write_reply("reply_hello", 1, -1, false, 0, false);
	write_reply("reply_no_sync_names", 2, 0, false, 0, false);
	write_reply("reply_tree", 3, 2, true, 12, false);
	write_reply("reply_deep", CRELAY_MAX_DEPTH, CRELAY_MAX_SYNC_NAMES, true, 1, false);
	write_reply("reply_full", 4, 1, true, 4, true);
	return 0;
}
