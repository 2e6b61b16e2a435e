/*-------------------------------------------------------------------------
 *
 * draw_fleet.c
 *	  Draws made-up cascades as SVG, to be looked at.
 *
 * For tools/monitoring-check: "fleet" has one node of everything that a picture
 * can show, "many" has 300.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "decide/diagram.h"

#define NOW		INT64_C(800000000000000)
#define SECOND	INT64_C(1000000)
#define MB		INT64_C(1048576)
#define GB		(1024 * MB)
#define TOP		(-1)
#define LOST	(-2)

static CrelayNode nodes[400];
static CrelayDiagramNode drawn[400];
static int	count;

static int
add(const char *name, int parent, CrelayState state, const char *location, int64_t lag)
{
	CrelayNode *node = &nodes[count];
	CrelayDiagramNode *n = &drawn[count];

	snprintf(node->name, sizeof(node->name), "%s", name);
	snprintf(node->pin.by, sizeof(node->pin.by), "%s", name);
	snprintf(node->pin.on, sizeof(node->pin.on), "%s", name);
	snprintf(node->location, sizeof(node->location), "%s", location);
	node->incarnation = (uint32_t) count + 1;
	node->role = parent == TOP ? CRELAY_ROLE_PRIMARY : CRELAY_ROLE_STANDBY;
	node->state = state;
	node->managed = true;
	node->protected = CRELAY_TRUE;
	node->timeline = 3;
	node->flush_lsn = (uint64_t) (100 * GB);
	node->replay_lsn = node->flush_lsn - (uint64_t) (lag > 0 ? lag : 0);
	node->frontier_lsn = node->flush_lsn;
	node->observed_at = NOW - 2 * SECOND;
	n->node = node;
	n->state = state;
	n->parent = parent < 0 ? -1 : parent;
	n->depth = parent == TOP ? 0 : parent == LOST ? 1 : drawn[parent].depth + 1;
	n->lag = lag;
	return count++;
}

static void
pin(int i, int64_t bytes, const char *name)
{
	nodes[i].frontier_lsn = nodes[i].flush_lsn - (uint64_t) bytes;
	snprintf(nodes[i].pin.by, sizeof(nodes[i].pin.by), "%s", name);
	snprintf(nodes[i].pin.on, sizeof(nodes[i].pin.on), "%.40s", name);
}

static void
make_fleet(void)
{
	int			p = add("pg_fra_1", TOP, CRELAY_STATE_RUNNING, "fra", 0);
	int			voting = add("pg_fra_2", p, CRELAY_STATE_STREAMING, "fra", 0);
	int			report = add("report_fra", voting, CRELAY_STATE_STREAMING, "fra", 84 * MB);
	int			barman = add("barman", p, CRELAY_STATE_STREAMING, "", 0);
	int			iad = add("relay_iad", p, CRELAY_STATE_STREAMING, "iad", 2 * MB);
	int			syd;
	int			n;

	drawn[p].local = true;
	nodes[voting].replica_class = CRELAY_CLASS_VOTING;
	drawn[report].warnings = CRELAY_WARN_HOLD_CLAMPED;
	nodes[barman].managed = false;
	add("app_iad_1", iad, CRELAY_STATE_STREAMING, "iad", 30 * MB);
	nodes[add("app_iad_2", iad, CRELAY_STATE_CATCHUP, "iad", 900 * MB)].protected = CRELAY_FALSE;
	nodes[add("cdc_stream", iad, CRELAY_STATE_STREAMING, "", 68 * 1024)].managed = false;
	syd = add("relay_syd", p, CRELAY_STATE_STREAMING, "ap-southeast-2", 9 * MB);
	add("app_syd", syd, CRELAY_STATE_STREAMING, "ap-southeast-2", 9 * MB);
	nodes[add("dwh_syd", syd, CRELAY_STATE_DOWN, "syd", -1)].observed_at = NOW - 3 * 3600 * SECOND;
	n = add("old_analytics_replica_2", syd, CRELAY_STATE_STALE, "syd", -1);
	nodes[n].observed_at = NOW - 360 * SECOND;
	pin(p, 58 * GB, "dwh_syd");
	pin(syd, 57 * GB, "dwh_syd");
	nodes[add("lost_lab", LOST, CRELAY_STATE_ARCHIVE, "lab", -1)].protected = CRELAY_UNKNOWN;
	n = add("loop_a", LOST, CRELAY_STATE_CYCLE, "lab", -1);
	nodes[n].protected = CRELAY_FALSE;
	nodes[add("loop_b", n, CRELAY_STATE_CYCLE, "lab", -1)].protected = CRELAY_FALSE;
}

static void
make_many(void)
{
	add("p", TOP, CRELAY_STATE_RUNNING, "fra", 0);
	drawn[0].local = true;
	for (int i = 0; i < 300; i++)
	{
		char		name[32];
		int			n;

		snprintf(name, sizeof(name), "%s_%03d", i % 10 == 0 ? "relay" : "leaf", i);
		n = add(name, i % 10 == 0 ? 0 : i - i % 10 + 1, i == 57 ? CRELAY_STATE_DOWN : CRELAY_STATE_STREAMING,
				"fra", i % 7 * 9 * MB);
		if (i == 57)
			nodes[n].observed_at = NOW - 90 * SECOND;
	}
	pin(0, 12 * GB, "leaf_057");
	pin(51, 11 * GB, "leaf_057");
}

static void
put(void *arg, const char *text, size_t len)
{
	fwrite(text, 1, len, stdout);
}

int
main(int argc, char **argv)
{
	CrelayDiagram diagram = {0};

	if (argc > 1 && strcmp(argv[1], "many") == 0)
		make_many();
	else
		make_fleet();
	diagram.n = count;
	diagram.nodes = drawn;
	diagram.now = NOW;
	diagram.time = "2025-05-08 06:13:20 UTC";
	diagram.segment_size = 16 * (uint64_t) MB;
	diagram.lsn_digits = 1;
	crelay_diagram_draw(&diagram, CRELAY_DIAGRAM_SVG, put, NULL);
	return 0;
}
