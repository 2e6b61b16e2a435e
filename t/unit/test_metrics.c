/*-------------------------------------------------------------------------
 *
 * test_metrics.c
 *	  Unit tests of what a monitor is told.
 *
 *-------------------------------------------------------------------------
 */
#include "tap.h"

#include "decide/metrics.h"

#define NOW		INT64_C(800000000000000)
#define MB		INT64_C(1048576)

static CrelayMetricsFacts facts;
static CrelayNode nodes[16];
static CrelayDownstream downstreams[16];
static CrelayMetricsMember members[16];
static CrelayMetricsEdge edges[16];
static CrelayMetricsFinding findings[16];

static char told[200][CRELAY_METRICS_LINE];
static int	ntold;

static void
collect(void *arg, const CrelaySample *sample)
{
	crelay_metrics_format(sample, told[ntold++], CRELAY_METRICS_LINE);
}

static void
run(void)
{
	ntold = 0;
	crelay_metrics_run(&facts, collect, NULL);
}

static bool
says(const char *line)
{
	for (int i = 0; i < ntold; i++)
	{
		if (strcmp(told[i], line) == 0)
			return true;
	}
	printf("# not told: %s\n", line);
	return false;
}

static int
times(const char *beginning)
{
	int			n = 0;

	for (int i = 0; i < ntold; i++)
		n += strncmp(told[i], beginning, strlen(beginning)) == 0;
	return n;
}

/*
 * Collectors refuse a scrape in which two samples have the same labels.
 */
static bool
all_differ(void)
{
	for (int i = 0; i < ntold; i++)
	{
		for (int j = 0; j < i; j++)
		{
			size_t		len = (size_t) (strrchr(told[i], ' ') - told[i]);

			if (strncmp(told[i], told[j], len) == 0 && told[j][len] == ' ')
			{
				printf("# twice: %s\n", told[i]);
				return false;
			}
		}
	}
	return true;
}

static void
begin(void)
{
	memset(&facts, 0, sizeof(facts));
	memset(nodes, 0, sizeof(nodes));
	memset(downstreams, 0, sizeof(downstreams));
	facts.name = "i";
	facts.loaded = true;
	facts.up = true;
	facts.now = NOW;
	facts.role = "standby";
	facts.state = "streaming";
	facts.upstream = "p";
	facts.has_upstream = true;
	facts.connected = true;
	facts.protected = CRELAY_TRUE;
	facts.applied_lsn = UINT64_C(0x3000000);
	facts.own_lsn = UINT64_C(0x10000000);
	facts.frontier_lsn = UINT64_C(0x2000000);
	facts.last_report_time = NOW;
	facts.reports_sent = 7;
	facts.members = members;
	facts.edges = edges;
	facts.findings = findings;
}

static CrelayMetricsMember *
add_member(const char *name, CrelayState state)
{
	CrelayMetricsMember *member = &members[facts.nmembers];
	CrelayNode *node = &nodes[facts.nmembers++];

	snprintf(node->name, sizeof(node->name), "%s", name);
	node->managed = true;
	node->protected = CRELAY_TRUE;
	node->observed_at = NOW - 1500000;
	member->node = node;
	member->state = state;
	member->upstream = "i";
	return member;
}

static CrelayDownstream *
add_edge(const char *name, const char *pinned_by, int64_t kept)
{
	CrelayDownstream *d = &downstreams[facts.nedges];

	edges[facts.nedges].downstream = d;
	edges[facts.nedges++].safe_bytes = -1;
	snprintf(d->name, sizeof(d->name), "%s", name);
	snprintf(d->slot_name, sizeof(d->slot_name), "slot_%s", name);
	snprintf(d->pin.by, sizeof(d->pin.by), "%s", pinned_by);
	d->counted = true;
	d->restart_lsn = facts.own_lsn - (uint64_t) kept;
	d->replay_lag = -1;
	return d;
}

static void
test_self(void)
{
	begin();
	run();
	ok(says("cascade_up{node=\"i\"} 1"), "it is up");
	ok(says("cascade_node_info{node=\"i\",upstream=\"p\",role=\"standby\",state=\"streaming\"} 1"), "what it is");
	ok(says("cascade_protected{node=\"i\"} 1"), "it is protected");
	ok(says("cascade_upstream_connected{node=\"i\"} 1"), "it reports");
	ok(says("cascade_wal_position_bytes{node=\"i\"} 50331648"), "where it is");
	ok(says("cascade_last_report_timestamp_seconds{node=\"i\"} 1746684800"), "a time is in seconds since 1970");
	ok(says("cascade_retained_bytes{node=\"i\"} 0"), "it keeps nothing");
	ok(says("cascade_reports_sent_total{node=\"i\"} 7"), "it counts");

	facts.protected = CRELAY_UNKNOWN;
	facts.has_upstream = false;
	facts.frontier_lsn = 0;
	facts.last_report_time = 0;
	run();
	is_number((uint64_t) (times("cascade_protected") + times("cascade_upstream_connected") +
						  times("cascade_frontier") + times("cascade_last_report") +
						  times("cascade_safe_wal")), 0,
			  "an unknown figure has no sample");

	facts.loaded = false;
	facts.up = false;
	run();
	ok(ntold == 1 && says("cascade_up{node=\"i\"} 0"), "without preloading there is one sample");
}

static void
test_members(void)
{
	begin();
	add_member("l", CRELAY_STATE_DOWN);
	add_member("m", CRELAY_STATE_STALE);
	nodes[1].protected = CRELAY_FALSE;
	add_member("n", CRELAY_STATE_CATCHUP);
	nodes[2].protected = CRELAY_UNKNOWN;
	nodes[2].managed = false;
	run();
	ok(says("cascade_member_up{node=\"i\",member=\"l\",kind=\"managed\",upstream=\"i\"} 0"), "l is down");
	ok(says("cascade_member_protected{node=\"i\",member=\"l\",kind=\"managed\",upstream=\"i\"} 1"), "and protected");
	ok(says("cascade_member_observed_age_seconds{node=\"i\",member=\"l\",kind=\"managed\",upstream=\"i\"} 1.5"), "seen then");
	ok(says("cascade_member_up{node=\"i\",member=\"n\",kind=\"unmanaged\",upstream=\"i\"} 1"), "n is up");
	is_number((uint64_t) times("cascade_member_up"), 2, "of m there is no news, and no claim");
	is_number((uint64_t) times("cascade_member_protected"), 1, "nor of an unknown truth");

	/* a node that was rebuilt: its former life is down, and not an alert */
	begin();
	add_member("l", CRELAY_STATE_DOWN);
	add_member("l", CRELAY_STATE_STREAMING);
	add_member("l", CRELAY_STATE_STALE);
	run();
	ok(says("cascade_member_up{node=\"i\",member=\"l\",kind=\"managed\",upstream=\"i\"} 1"), "the life that is up counts");
	ok(all_differ(), "and is told once");

	begin();
	add_member("l", CRELAY_STATE_STALE);
	add_member("l", CRELAY_STATE_DOWN);
	run();
	is_number((uint64_t) times("cascade_member_up"), 1, "the row with news goes first");
}

static void
test_kept(void)
{
	begin();
	add_edge("a", "deep", 100 * MB);
	add_edge("b", "deep", 40 * MB);
	add_edge("c", "c", 10 * MB);
	add_edge("d", "", 900 * MB)->counted = false;
	edges[1].safe_bytes = 5 * MB;
	edges[2].safe_bytes = 3 * MB;
	edges[3].safe_bytes = 0;
	run();
	ok(says("cascade_retained_bytes{node=\"i\"} 104857600"), "the most of what counts");
	ok(says("cascade_pinned_bytes{node=\"i\",pinned_by=\"deep\"} 104857600"), "by the node that needs it");
	ok(says("cascade_pinned_bytes{node=\"i\",pinned_by=\"c\"} 10485760"), "and the other one");
	is_number((uint64_t) times("cascade_pinned_bytes"), 2, "once each");
	ok(says("cascade_safe_wal_bytes{node=\"i\"} 3145728"), "the least that is left");
}

static void
test_edges(void)
{
	CrelayDownstream *d;

	begin();
	d = add_edge("a", "a", 0);
	d->pid = 1;
	d->replay_lsn = facts.own_lsn - 4096;
	d->replay_lag = 250000;
	d = add_edge("a", "a", 0);
	d->pid = 2;
	d->replay_lsn = facts.own_lsn - 9999999;
	d = add_edge("idle", "idle", 0);
	d->pid = 3;
	d->replay_lsn = facts.own_lsn + 5;
	add_edge("gone", "gone", 0)->replay_lsn = 1;
	d = add_edge("backup", "backup", 0);
	d->pid = 4;
	d->backup = true;
	d->replay_lsn = 1;
	run();
	ok(says("cascade_edge_replay_lag_bytes{node=\"i\",member=\"a\"} 4096"), "what a walsender says");
	ok(says("cascade_edge_replay_lag_seconds{node=\"i\",member=\"a\"} 0.25"), "in seconds, too");
	ok(says("cascade_edge_replay_lag_bytes{node=\"i\",member=\"idle\"} 0"), "none is ahead");
	is_number((uint64_t) times("cascade_edge"), 3, "nothing of what does not stream, or has no time");
	ok(all_differ(), "and nothing twice");
}

static void
add_finding(const char *code, const char *member, int level)
{
	CrelayMetricsFinding *finding = &findings[facts.nfindings++];

	finding->code = code;
	finding->member = member;
	finding->level = level;
	finding->severity = level == 2 ? "critical" : level == 1 ? "warning" : "ok";
}

static void
test_findings(void)
{
	begin();
	add_finding("orphan_slot", "l", 1);
	add_finding("unprotected", "l", 2);
	add_finding("orphan_slot", "l", 1);
	add_finding("orphan_slot", "m", 1);
	add_finding("unprotected", "l", 1);
	run();
	ok(says("cascade_finding{node=\"i\",member=\"l\",code=\"unprotected\",severity=\"critical\"} 2"), "the worst counts");
	is_number((uint64_t) times("cascade_finding"), 3, "one of each code and node");
	ok(all_differ(), "all differ");
}

static void
test_format(void)
{
	begin();
	add_member("a\"b\\c\nd", CRELAY_STATE_STREAMING);
	run();
	ok(says("cascade_member_up{node=\"i\",member=\"a\\\"b\\\\c\\nd\",kind=\"managed\",upstream=\"i\"} 1"),
	   "what has a meaning in the text format is escaped");
	facts.name = "";
	facts.loaded = false;
	run();
	ok(says("cascade_up 1"), "without labels there are no braces");
}

int
main(void)
{
	test_self();
	test_members();
	test_kept();
	test_edges();
	test_findings();
	test_format();
	return done_testing();
}
