/* cascade_relay--1.0.sql: the objects of version 1.0 */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION cascade_relay" to load this file. \quit

--
-- What nodes say to one another.  PUBLIC may call it; the function itself asks
-- for the REPLICATION attribute, so that the user of primary_conninfo needs no
-- grant.
--
CREATE FUNCTION cascade_report(message bytea) RETURNS bytea
AS 'MODULE_PATHNAME', 'cascade_report'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cascade_report(bytea) IS
'takes a report of a downstream node''s worker and returns the reply to it; for roles with the REPLICATION attribute';

--
-- Nodes call one another by operators.  A function is found by its name, and an
-- overload with a default argument makes a call ambiguous, so that a role that
-- may create in this schema could stop all reports; an operator with exactly
-- these operands there can only be this one.
--
CREATE OPERATOR @<- (RIGHTARG = bytea, FUNCTION = cascade_report);
COMMENT ON OPERATOR @<- (NONE, bytea) IS
'cascade_report, as nodes call it';

--
-- The tree
--
CREATE FUNCTION cascade_topology(
	OUT node_name text,
	OUT upstream_name text,
	OUT depth int,
	OUT path text[],
	OUT role text,
	OUT replica_class text,
	OUT state text,
	OUT managed bool,
	OUT is_local bool,
	OUT timeline int,
	OUT flush_lsn pg_lsn,
	OUT replay_lsn pg_lsn,
	OUT frontier_lsn pg_lsn,
	OUT pinned_by text,
	OUT pinned_on text,
	OUT pinned_slot text,
	OUT oldest_wal_lsn pg_lsn,
	OUT protected bool,
	OUT replay_lag_bytes bigint,
	OUT replay_lag interval,
	OUT backend_xmin xid,
	OUT xmin_pinned_by text,
	OUT hot_standby_feedback bool,
	OUT location text,
	OUT conninfo text,
	OUT refusal text,
	OUT warnings text[],
	OUT replay_paused bool,
	OUT apply_delay interval,
	OUT observed_at timestamptz,
	OUT incarnation text,
	OUT version text,
	OUT node_id text,
	OUT upstream_id text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'cascade_topology'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 20;
COMMENT ON FUNCTION cascade_topology() IS
'the cascade as this node knows it, one row for each node: the root first, then depth first, siblings by name';

CREATE VIEW cascade_topology AS SELECT * FROM cascade_topology();
COMMENT ON VIEW cascade_topology IS
'the cascade as this node knows it, one row for each node';

CREATE FUNCTION cascade_tree() RETURNS SETOF text
AS 'MODULE_PATHNAME', 'cascade_tree'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 20;
COMMENT ON FUNCTION cascade_tree() IS
'the cascade drawn for a terminal; the node that was asked has an asterisk';

--
-- This node
--
CREATE FUNCTION cascade_status(
	OUT node_name text,
	OUT incarnation text,
	OUT role text,
	OUT timeline int,
	OUT replay_lsn pg_lsn,
	OUT frontier_lsn pg_lsn,
	OUT frontier_bookmark text,
	OUT pinned_by text,
	OUT pinned_on text,
	OUT pinned_slot text,
	OUT hold_target_lsn pg_lsn,
	OUT upstream_name text,
	OUT upstream_state text,
	OUT upstream_held_lsn pg_lsn,
	OUT protected bool,
	OUT last_report_time timestamptz,
	OUT reports_sent bigint,
	OUT reports_failed bigint,
	OUT reports_received bigint,
	OUT last_error text,
	OUT last_error_time timestamptz,
	OUT worker_pid int,
	OUT version text,
	OUT root_age interval)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'cascade_status'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 1;
COMMENT ON FUNCTION cascade_status() IS
'this node: its place, its retention frontier, and its exchange with the upstream';

CREATE VIEW cascade_status AS SELECT * FROM cascade_status();
COMMENT ON VIEW cascade_status IS
'this node: its place, its retention frontier, and its exchange with the upstream';

CREATE FUNCTION cascade_downstreams(
	OUT name text,
	OUT kind text,
	OUT slot_name text,
	OUT active bool,
	OUT pid int,
	OUT state text,
	OUT sent_lsn pg_lsn,
	OUT restart_lsn pg_lsn,
	OUT retained_bytes bigint,
	OUT wal_status text,
	OUT safe_wal_size bigint,
	OUT pinned_by text,
	OUT pinned_on text,
	OUT pinned_slot text,
	OUT counted bool,
	OUT reason text,
	OUT last_report_time timestamptz,
	OUT replay_lsn pg_lsn,
	OUT replay_lag interval)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'cascade_downstreams'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 20;
COMMENT ON FUNCTION cascade_downstreams() IS
'every slot of this node, holds included, every slotless walsender, and every managed downstream without a hold, and whether it counts in the retention frontier';

CREATE VIEW cascade_downstreams AS SELECT * FROM cascade_downstreams();
COMMENT ON VIEW cascade_downstreams IS
'every slot of this node, holds included, every slotless walsender, and every managed downstream without a hold, and whether it counts in the retention frontier';

CREATE VIEW cascade_holds AS
	SELECT * FROM cascade_downstreams() WHERE kind = 'hold';
COMMENT ON VIEW cascade_holds IS
'the holds of this node: those for its managed downstreams, with a row also where the slot is missing, and its own, if it has one';

CREATE FUNCTION cascade_oldest_wal_file() RETURNS text
AS 'MODULE_PATHNAME', 'cascade_oldest_wal_file'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION cascade_oldest_wal_file() IS
'the oldest WAL file that any node of the cascade still needs, for pg_archivecleanup on a shared archive; NULL if that is not known';

--
-- Where a node should stream from
--
CREATE FUNCTION cascade_plan_upstream(
	node_name text,
	replica_class text DEFAULT NULL,
	requested text DEFAULT NULL,
	requested_conninfo text DEFAULT NULL,
	OUT upstream_name text,
	OUT is_cascade bool,
	OUT refusal text,
	OUT conninfo text)
AS 'MODULE_PATHNAME', 'cascade_plan_upstream'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION cascade_plan_upstream(text, text, text, text) IS
'where a node should stream from: from what was requested, or else from the primary, with the reason';

CREATE FUNCTION cascade_upstream_candidates(
	node_name text DEFAULT NULL,
	without text DEFAULT NULL,
	location text DEFAULT NULL,
	OUT node_name text,
	OUT rank int,
	OUT upstream_name text,
	OUT verdict text,
	OUT reason text,
	OUT hops int,
	OUT same_location bool,
	OUT oldest_wal_lsn pg_lsn,
	OUT missing_wal_bytes bigint,
	OUT command text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'cascade_upstream_candidates'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL RESTRICTED ROWS 50;
COMMENT ON FUNCTION cascade_upstream_candidates(text, text, text) IS
'what a node, or each one, could stream from, as if another node were gone: rank 1 is the best safe choice';

CREATE FUNCTION cascade_policy(
	tree text DEFAULT NULL,
	OUT node_name text,
	OUT replica_class text,
	OUT requested text,
	OUT has_conninfo bool,
	OUT upstream_name text,
	OUT is_cascade bool,
	OUT refusal text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'cascade_policy'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL RESTRICTED ROWS 500;
COMMENT ON FUNCTION cascade_policy(text) IS
'the answers of cascade_plan_upstream to every question about a tree: this one, or one described as in ''p; i < p; l < i class=voting''';

--
-- Causal reads.  An application takes and awaits bookmarks as itself: PUBLIC
-- may call cascade_bookmark and cascade_wait_for, which tell no more than
-- pg_current_wal_lsn() and wait no longer than pg_sleep().
--
CREATE FUNCTION cascade_bookmark() RETURNS text
AS 'MODULE_PATHNAME', 'cascade_bookmark'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION cascade_bookmark() IS
'a bookmark that covers what this session has committed; on a standby, what it has replayed';

CREATE PROCEDURE cascade_wait_for(
	bookmark text,
	timeout interval DEFAULT '10s',
	INOUT reached bool DEFAULT NULL)
AS 'MODULE_PATHNAME', 'cascade_wait_for'
LANGUAGE C;
COMMENT ON PROCEDURE cascade_wait_for(text, interval, bool) IS
'waits, without a snapshot, until this node has replayed what the bookmark covers';

CREATE FUNCTION cascade_can_serve(node_name text, bookmark text) RETURNS bool
AS 'MODULE_PATHNAME', 'cascade_can_serve'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION cascade_can_serve(text, text) IS
'whether a node, where it was last seen, has replayed what the bookmark covers; null if that is not known';

CREATE FUNCTION cascade_nodes_serving(
	bookmark text,
	OUT node_name text,
	OUT conninfo text,
	OUT replay_lsn pg_lsn,
	OUT observed_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'cascade_nodes_serving'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION cascade_nodes_serving(text) IS
'the live nodes that, where they were last seen, have replayed what the bookmark covers';

--
-- Health
--
CREATE FUNCTION cascade_check(
	OUT severity text,
	OUT level int,
	OUT code text,
	OUT node_name text,
	OUT message text,
	OUT hint text,
	OUT below bool)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'cascade_check'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 5;
COMMENT ON FUNCTION cascade_check() IS
'what is wrong in the cascade and what to do about it, the worst first; one row that says ok if nothing is';

CREATE VIEW cascade_check AS SELECT * FROM cascade_check();
COMMENT ON VIEW cascade_check IS
'what is wrong in the cascade and what to do about it, the worst first';

--
-- For monitors, and for people who look at pictures.  Neither cascade_metrics nor
-- cascade_openmetrics raises an error where the library is not preloaded.
--
CREATE FUNCTION cascade_metrics(
	OUT name text,
	OUT type text,
	OUT help text,
	OUT node text,
	OUT member text,
	OUT kind text,
	OUT pinned_by text,
	OUT upstream text,
	OUT role text,
	OUT state text,
	OUT code text,
	OUT severity text,
	OUT value float8)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'cascade_metrics'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 100;
COMMENT ON FUNCTION cascade_metrics() IS
'the metrics of this node, one row for each sample; an unused label is empty, and there is no NULL';

CREATE VIEW cascade_metrics AS SELECT * FROM cascade_metrics();
COMMENT ON VIEW cascade_metrics IS
'the metrics of this node, one row for each sample; an unused label is empty, and there is no NULL';

CREATE FUNCTION cascade_openmetrics() RETURNS SETOF text
AS 'MODULE_PATHNAME', 'cascade_openmetrics'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED ROWS 200;
COMMENT ON FUNCTION cascade_openmetrics() IS
'the metrics of this node as lines of the text format of Prometheus, for the textfile collector of node_exporter';

CREATE FUNCTION cascade_diagram(format text DEFAULT 'svg') RETURNS text
AS 'MODULE_PATHNAME', 'cascade_diagram'
LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION cascade_diagram(text) IS
'the cascade as this node knows it as a picture: svg, dot (Graphviz), or mermaid';

-- In the contract of Grafana's Node Graph panel: unique ids, and an edge's ends
-- are nodes, "unknown" included.
CREATE VIEW cascade_graph_nodes AS
	WITH t AS MATERIALIZED (SELECT * FROM cascade_topology())
	SELECT node_id AS id,
		   node_name AS title,
		   concat_ws(', ', role, state, CASE WHEN replica_class = 'voting' THEN 'voting' END) AS subtitle,
		   CASE WHEN protected = false THEN 'UNPROTECTED'
				WHEN depth > 0 AND replay_lag_bytes IS NOT NULL THEN pg_size_pretty(replay_lag_bytes) || ' behind'
				ELSE coalesce(state, 'not known') END AS mainstat,
		   CASE WHEN (pinned_by <> node_name OR pinned_slot IS NOT NULL) AND flush_lsn > frontier_lsn
				THEN 'keeps ' || pg_size_pretty(flush_lsn - frontier_lsn) ELSE '' END AS secondarystat,
		   (coalesce(state IN ('running', 'streaming'), false))::int::float8 AS arc__good,
		   (coalesce(state IN ('catchup', 'archive'), false))::int::float8 AS arc__waiting,
		   (coalesce(state IN ('down', 'disconnected', 'diverged', 'duplicate', 'cycle'), false))::int::float8 AS arc__bad,
		   (coalesce(state NOT IN ('running', 'streaming', 'catchup', 'archive', 'disconnected', 'down', 'diverged', 'duplicate', 'cycle'), true))::int::float8 AS arc__silent,
		   array_to_string(path, ' > ') AS detail__path,
		   coalesce(protected::text, 'not known') AS detail__protected,
		   coalesce(location, '') AS detail__location,
		   coalesce(timeline::text, '') AS detail__timeline,
		   coalesce(pinned_by, '') AS detail__pinned_by,
		   array_to_string(warnings, ', ') AS detail__warnings,
		   coalesce(round(extract(epoch FROM clock_timestamp() - observed_at))::text || ' s ago', 'not yet') AS detail__seen
	FROM t
	UNION ALL
	SELECT 'unknown', 'unknown', 'upstream not known', '', '', 0, 0, 0, 1, '', 'not known', '', '', '', '', 'not yet'
	WHERE EXISTS (SELECT FROM t WHERE upstream_id = 'unknown');
COMMENT ON VIEW cascade_graph_nodes IS
'the nodes of the cascade for the Node Graph panel of Grafana';

CREATE VIEW cascade_graph_edges AS
	WITH t AS MATERIALIZED (SELECT * FROM cascade_topology()),
	-- the path from the root to the node for which it keeps more than a segment,
	-- or to the one on which the slot stands that says so
	pin AS (
		SELECT leaf.path, root.flush_lsn - root.frontier_lsn AS bytes
		FROM (SELECT * FROM t WHERE depth = 0 AND state = 'running' LIMIT 1) root
		JOIN t leaf ON leaf.path[1] = root.node_name
		 AND (leaf.node_name = root.pinned_by AND root.pinned_on IN (leaf.node_name, leaf.upstream_name)
			  OR leaf.node_name = root.pinned_on AND leaf.managed)
		WHERE leaf.depth > 0
		  AND root.flush_lsn - root.frontier_lsn > pg_size_bytes(current_setting('wal_segment_size'))
		ORDER BY (leaf.node_name = root.pinned_by) DESC, (leaf.state = 'down') DESC LIMIT 1)
	SELECT t.upstream_id || '>' || t.node_id AS id,
		   t.upstream_id AS source,
		   t.node_id AS target,
		   CASE WHEN pin.path IS NOT NULL THEN pg_size_pretty(pin.bytes) || ' kept'
				ELSE coalesce(t.state, '') END AS mainstat,
		   coalesce(t.replay_lag::text, '') AS secondarystat,
		   CASE WHEN pin.path IS NOT NULL THEN 5 ELSE 1 END AS thickness,
		   CASE WHEN pin.path IS NOT NULL THEN 'orange'
				WHEN t.state IN ('running', 'streaming') THEN 'gray'
				WHEN t.state IN ('catchup', 'archive') THEN 'yellow'
				ELSE 'red' END AS color
	FROM t
	LEFT JOIN pin ON t.path = pin.path[:cardinality(t.path)]
	WHERE t.upstream_id IS NOT NULL;
COMMENT ON VIEW cascade_graph_edges IS
'the edges of the cascade, from upstream to downstream, for the Node Graph panel of Grafana';

--
-- Acting.  PUBLIC may call cascade_adopt; the function itself asks for the
-- REPLICATION attribute, with which a slot could be made anyway.
--
CREATE FUNCTION cascade_adopt(
	node_name text,
	slot_name text DEFAULT NULL,
	lsn pg_lsn DEFAULT NULL)
RETURNS pg_lsn
AS 'MODULE_PATHNAME', 'cascade_adopt'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cascade_adopt(text, text, pg_lsn) IS
'makes a replication slot for a node that is to stream from here, from where its WAL is held, and returns that LSN; for roles with the REPLICATION attribute';

CREATE FUNCTION cascade_adopt_at(node_name text, lsn pg_lsn) RETURNS pg_lsn
AS 'MODULE_PATHNAME', 'cascade_adopt_at'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cascade_adopt_at(text, pg_lsn) IS
'cascade_adopt with the slot of the node''s name; for roles with the REPLICATION attribute';
CREATE OPERATOR @<- (LEFTARG = text, RIGHTARG = pg_lsn, FUNCTION = cascade_adopt_at);
COMMENT ON OPERATOR @<- (text, pg_lsn) IS
'cascade_adopt_at, as cascade_follow calls it on another node';

CREATE FUNCTION cascade_follow(
	upstream_name text,
	conninfo text DEFAULT NULL,
	timeout interval DEFAULT '30s',
	dry_run bool DEFAULT false)
RETURNS text
AS 'MODULE_PATHNAME', 'cascade_follow'
LANGUAGE C CALLED ON NULL INPUT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cascade_follow(text, text, interval, bool) IS
'moves this standby to another upstream and returns once it streams from there; if that fails, everything is as it was';

CREATE FUNCTION cascade_release(node_name text) RETURNS pg_lsn
AS 'MODULE_PATHNAME', 'cascade_release'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cascade_release(text) IS
'lets go of the WAL that a direct downstream of this node needs, until it has reached the returned LSN';

CREATE FUNCTION cascade_forget(node_name text, force bool DEFAULT false) RETURNS text[]
AS 'MODULE_PATHNAME', 'cascade_forget'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION cascade_forget(text, bool) IS
'lets go of a direct downstream of this node that will not come back, and returns the slots that still keep WAL for it';

--
-- The columns of the views
--
COMMENT ON COLUMN cascade_topology.node_name IS 'name of the node';
COMMENT ON COLUMN cascade_topology.upstream_name IS 'name of the node that it streams from; NULL for the root, "unknown" if no node knows it';
COMMENT ON COLUMN cascade_topology.depth IS 'number of hops from the root';
COMMENT ON COLUMN cascade_topology.path IS 'names from the root to the node, both included';
COMMENT ON COLUMN cascade_topology.role IS 'primary or standby';
COMMENT ON COLUMN cascade_topology.replica_class IS 'voting: synchronous, must stream from the primary itself; or read_replica';
COMMENT ON COLUMN cascade_topology.state IS 'what it is doing: running, streaming, catchup, archive, stale, down, diverged, duplicate, cycle, …';
COMMENT ON COLUMN cascade_topology.managed IS 'true if it runs cascade_relay';
COMMENT ON COLUMN cascade_topology.is_local IS 'true for the node that was asked';
COMMENT ON COLUMN cascade_topology.timeline IS 'timeline that it is on';
COMMENT ON COLUMN cascade_topology.flush_lsn IS 'end of the WAL that it has on disk';
COMMENT ON COLUMN cascade_topology.replay_lsn IS 'what it has replayed; on a primary, what it has flushed';
COMMENT ON COLUMN cascade_topology.frontier_lsn IS 'its retention frontier: it, or a node below it, needs WAL from there on';
COMMENT ON COLUMN cascade_topology.pinned_by IS 'node, slot or application that the retention frontier comes from';
COMMENT ON COLUMN cascade_topology.pinned_on IS 'managed node on which the slot or walsender stands that pins; the node itself if its own position does';
COMMENT ON COLUMN cascade_topology.pinned_slot IS 'slot that pins; NULL for a position, or for a walsender without a slot';
COMMENT ON COLUMN cascade_topology.oldest_wal_lsn IS 'start of the oldest WAL file that it has';
COMMENT ON COLUMN cascade_topology.protected IS 'true if the root holds all WAL that it would need there; NULL unknown';
COMMENT ON COLUMN cascade_topology.replay_lag_bytes IS 'bytes that it is behind the root in replay';
COMMENT ON COLUMN cascade_topology.replay_lag IS 'time as measured by the walsender of its upstream';
COMMENT ON COLUMN cascade_topology.backend_xmin IS 'oldest xmin that it, or a node below it, keeps vacuum from passing';
COMMENT ON COLUMN cascade_topology.xmin_pinned_by IS 'whose backend_xmin it is';
COMMENT ON COLUMN cascade_topology.hot_standby_feedback IS 'its setting; NULL for a primary and for an unmanaged node';
COMMENT ON COLUMN cascade_topology.location IS 'its cascade_relay.location';
COMMENT ON COLUMN cascade_topology.conninfo IS 'its cascade_relay.advertised_conninfo';
COMMENT ON COLUMN cascade_topology.refusal IS 'rule that its present upstream breaks; NULL if none';
COMMENT ON COLUMN cascade_topology.warnings IS 'codes of cascade_check that it says of itself';
COMMENT ON COLUMN cascade_topology.replay_paused IS 'true if its replay was paused';
COMMENT ON COLUMN cascade_topology.apply_delay IS 'its recovery_min_apply_delay';
COMMENT ON COLUMN cascade_topology.observed_at IS 'when all of this was seen, by the clock of the node that was asked';
COMMENT ON COLUMN cascade_topology.incarnation IS 'which life of the node: another one after a rebuild';
COMMENT ON COLUMN cascade_topology.version IS 'version of its library';
COMMENT ON COLUMN cascade_topology.node_id IS 'identifies the row: unique in the tree';
COMMENT ON COLUMN cascade_topology.upstream_id IS 'node_id of the row of its upstream';

COMMENT ON COLUMN cascade_status.node_name IS 'name of this node';
COMMENT ON COLUMN cascade_status.incarnation IS 'which life of the node this is';
COMMENT ON COLUMN cascade_status.role IS 'primary or standby';
COMMENT ON COLUMN cascade_status.timeline IS 'timeline that it is on';
COMMENT ON COLUMN cascade_status.replay_lsn IS 'what it has replayed; on a primary, what it has flushed';
COMMENT ON COLUMN cascade_status.frontier_lsn IS 'its retention frontier, of the last pass of the worker';
COMMENT ON COLUMN cascade_status.frontier_bookmark IS 'timeline and retention frontier as a bookmark';
COMMENT ON COLUMN cascade_status.pinned_by IS 'node, slot or application that the retention frontier comes from';
COMMENT ON COLUMN cascade_status.pinned_on IS 'managed node on which the slot or walsender stands that pins; the node itself if its own position does';
COMMENT ON COLUMN cascade_status.pinned_slot IS 'slot that pins; NULL for a position, or for a walsender without a slot';
COMMENT ON COLUMN cascade_status.hold_target_lsn IS 'where it wants its hold on the upstream';
COMMENT ON COLUMN cascade_status.upstream_name IS 'node that answers its reports';
COMMENT ON COLUMN cascade_status.upstream_state IS 'none, connecting, connected, waiting or refused';
COMMENT ON COLUMN cascade_status.upstream_held_lsn IS 'where the upstream holds WAL for this node; NULL if it holds none';
COMMENT ON COLUMN cascade_status.protected IS 'true if the root holds all WAL that it would need there; NULL unknown';
COMMENT ON COLUMN cascade_status.last_report_time IS 'when the last report was sent that was answered';
COMMENT ON COLUMN cascade_status.reports_sent IS 'number of reports sent since the start';
COMMENT ON COLUMN cascade_status.reports_failed IS 'number of reports that were not answered';
COMMENT ON COLUMN cascade_status.reports_received IS 'number of reports from nodes below';
COMMENT ON COLUMN cascade_status.last_error IS 'last thing that kept it from reporting, without passwords';
COMMENT ON COLUMN cascade_status.last_error_time IS 'when that was';
COMMENT ON COLUMN cascade_status.worker_pid IS 'process of the worker; NULL if it does not run';
COMMENT ON COLUMN cascade_status.version IS 'version of the library';
COMMENT ON COLUMN cascade_status.root_age IS 'age of what is known of the root';

COMMENT ON COLUMN cascade_downstreams.name IS 'node, where it is known; else the slot or the application_name';
COMMENT ON COLUMN cascade_downstreams.kind IS 'slot, walsender or hold';
COMMENT ON COLUMN cascade_downstreams.slot_name IS 'slot; NULL without one';
COMMENT ON COLUMN cascade_downstreams.active IS 'true if a process uses the slot';
COMMENT ON COLUMN cascade_downstreams.pid IS 'that process';
COMMENT ON COLUMN cascade_downstreams.state IS 'state of the walsender';
COMMENT ON COLUMN cascade_downstreams.sent_lsn IS 'what was sent';
COMMENT ON COLUMN cascade_downstreams.restart_lsn IS 'oldest WAL that the slot keeps; of a walsender, what was flushed there';
COMMENT ON COLUMN cascade_downstreams.retained_bytes IS 'bytes of WAL that it keeps on this node';
COMMENT ON COLUMN cascade_downstreams.wal_status IS 'as in pg_replication_slots';
COMMENT ON COLUMN cascade_downstreams.safe_wal_size IS 'bytes that may yet be written before the nearest bound is met';
COMMENT ON COLUMN cascade_downstreams.pinned_by IS 'node, slot or application that the retention frontier comes from';
COMMENT ON COLUMN cascade_downstreams.pinned_on IS 'managed node on which the slot or walsender stands that pins; the node itself if its own position does';
COMMENT ON COLUMN cascade_downstreams.pinned_slot IS 'slot that pins; NULL for a position, or for a walsender without a slot';
COMMENT ON COLUMN cascade_downstreams.counted IS 'true if it counts in the retention frontier of this node';
COMMENT ON COLUMN cascade_downstreams.reason IS 'why it counts, or why not';
COMMENT ON COLUMN cascade_downstreams.last_report_time IS 'last report of the node of a hold';
COMMENT ON COLUMN cascade_downstreams.replay_lsn IS 'what was replayed there';
COMMENT ON COLUMN cascade_downstreams.replay_lag IS 'time as measured by the walsender';

COMMENT ON COLUMN cascade_holds.name IS 'node, where it is known; else the slot or the application_name';
COMMENT ON COLUMN cascade_holds.kind IS 'slot, walsender or hold';
COMMENT ON COLUMN cascade_holds.slot_name IS 'slot; NULL without one';
COMMENT ON COLUMN cascade_holds.active IS 'true if a process uses the slot';
COMMENT ON COLUMN cascade_holds.pid IS 'that process';
COMMENT ON COLUMN cascade_holds.state IS 'state of the walsender';
COMMENT ON COLUMN cascade_holds.sent_lsn IS 'what was sent';
COMMENT ON COLUMN cascade_holds.restart_lsn IS 'oldest WAL that the slot keeps; of a walsender, what was flushed there';
COMMENT ON COLUMN cascade_holds.retained_bytes IS 'bytes of WAL that it keeps on this node';
COMMENT ON COLUMN cascade_holds.wal_status IS 'as in pg_replication_slots';
COMMENT ON COLUMN cascade_holds.safe_wal_size IS 'bytes that may yet be written before the nearest bound is met';
COMMENT ON COLUMN cascade_holds.pinned_by IS 'node, slot or application that the retention frontier comes from';
COMMENT ON COLUMN cascade_holds.pinned_on IS 'managed node on which the slot or walsender stands that pins; the node itself if its own position does';
COMMENT ON COLUMN cascade_holds.pinned_slot IS 'slot that pins; NULL for a position, or for a walsender without a slot';
COMMENT ON COLUMN cascade_holds.counted IS 'true if it counts in the retention frontier of this node';
COMMENT ON COLUMN cascade_holds.reason IS 'why it counts, or why not';
COMMENT ON COLUMN cascade_holds.last_report_time IS 'last report of the node of a hold';
COMMENT ON COLUMN cascade_holds.replay_lsn IS 'what was replayed there';
COMMENT ON COLUMN cascade_holds.replay_lag IS 'time as measured by the walsender';

COMMENT ON COLUMN cascade_check.severity IS 'ok, warning or critical';
COMMENT ON COLUMN cascade_check.level IS '0, 1 or 2, as exit codes of monitoring plugins';
COMMENT ON COLUMN cascade_check.code IS 'code of the finding';
COMMENT ON COLUMN cascade_check.node_name IS 'node that it is about';
COMMENT ON COLUMN cascade_check.message IS 'what was found';
COMMENT ON COLUMN cascade_check.hint IS 'what to do, with the command; NULL for none';
COMMENT ON COLUMN cascade_check.below IS 'true if it is about the node that was asked, or one below it';

COMMENT ON COLUMN cascade_metrics.name IS 'name of the metric';
COMMENT ON COLUMN cascade_metrics.type IS 'gauge or counter';
COMMENT ON COLUMN cascade_metrics.help IS 'what it measures';
COMMENT ON COLUMN cascade_metrics.node IS 'node that was asked';
COMMENT ON COLUMN cascade_metrics.member IS 'node that the sample is about';
COMMENT ON COLUMN cascade_metrics.kind IS 'kind of downstream';
COMMENT ON COLUMN cascade_metrics.pinned_by IS 'whose need it is';
COMMENT ON COLUMN cascade_metrics.upstream IS 'upstream of the member';
COMMENT ON COLUMN cascade_metrics.role IS 'role of the member';
COMMENT ON COLUMN cascade_metrics.state IS 'state of the member';
COMMENT ON COLUMN cascade_metrics.code IS 'code of a finding';
COMMENT ON COLUMN cascade_metrics.severity IS 'severity of a finding';
COMMENT ON COLUMN cascade_metrics.value IS 'value of the sample';

COMMENT ON COLUMN cascade_graph_nodes.id IS 'node_id of the node';
COMMENT ON COLUMN cascade_graph_nodes.title IS 'name of the node';
COMMENT ON COLUMN cascade_graph_nodes.subtitle IS 'its role and state';
COMMENT ON COLUMN cascade_graph_nodes.mainstat IS 'how it is';
COMMENT ON COLUMN cascade_graph_nodes.secondarystat IS 'what it keeps';
COMMENT ON COLUMN cascade_graph_nodes.arc__good IS '1 if it is well';
COMMENT ON COLUMN cascade_graph_nodes.arc__waiting IS '1 if it is on its way';
COMMENT ON COLUMN cascade_graph_nodes.arc__bad IS '1 if something is wrong';
COMMENT ON COLUMN cascade_graph_nodes.arc__silent IS '1 if it is not heard of';
COMMENT ON COLUMN cascade_graph_nodes.detail__path IS 'names from the root';
COMMENT ON COLUMN cascade_graph_nodes.detail__protected IS 'whether it is protected';
COMMENT ON COLUMN cascade_graph_nodes.detail__location IS 'its location';
COMMENT ON COLUMN cascade_graph_nodes.detail__timeline IS 'its timeline';
COMMENT ON COLUMN cascade_graph_nodes.detail__pinned_by IS 'whose need it keeps WAL for';
COMMENT ON COLUMN cascade_graph_nodes.detail__warnings IS 'what it warns of';
COMMENT ON COLUMN cascade_graph_nodes.detail__seen IS 'how long ago it was seen';

COMMENT ON COLUMN cascade_graph_edges.id IS 'identifies the edge';
COMMENT ON COLUMN cascade_graph_edges.source IS 'node_id of the upstream';
COMMENT ON COLUMN cascade_graph_edges.target IS 'node_id of the downstream';
COMMENT ON COLUMN cascade_graph_edges.mainstat IS 'what is kept, or the state';
COMMENT ON COLUMN cascade_graph_edges.secondarystat IS 'replay lag';
COMMENT ON COLUMN cascade_graph_edges.thickness IS 'thickness of the line';
COMMENT ON COLUMN cascade_graph_edges.color IS 'color of the line';

--
-- Who may do what
--
REVOKE ALL ON FUNCTION cascade_topology() FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_tree() FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_status() FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_downstreams() FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_can_serve(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_nodes_serving(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_oldest_wal_file() FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_plan_upstream(text, text, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_upstream_candidates(text, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_policy(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_check() FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_metrics() FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_openmetrics() FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_diagram(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_follow(text, text, interval, bool) FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_release(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION cascade_forget(text, bool) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION cascade_topology() TO pg_monitor;
GRANT EXECUTE ON FUNCTION cascade_tree() TO pg_monitor;
GRANT EXECUTE ON FUNCTION cascade_status() TO pg_monitor;
GRANT EXECUTE ON FUNCTION cascade_downstreams() TO pg_monitor;
GRANT EXECUTE ON FUNCTION cascade_can_serve(text, text) TO pg_monitor;
GRANT EXECUTE ON FUNCTION cascade_nodes_serving(text) TO pg_monitor;
GRANT EXECUTE ON FUNCTION cascade_oldest_wal_file() TO pg_monitor;
GRANT EXECUTE ON FUNCTION cascade_plan_upstream(text, text, text, text) TO pg_monitor;
GRANT EXECUTE ON FUNCTION cascade_upstream_candidates(text, text, text) TO pg_monitor;
GRANT EXECUTE ON FUNCTION cascade_policy(text) TO pg_monitor;
GRANT EXECUTE ON FUNCTION cascade_check() TO pg_monitor;
GRANT EXECUTE ON FUNCTION cascade_metrics() TO pg_monitor;
GRANT EXECUTE ON FUNCTION cascade_openmetrics() TO pg_monitor;
GRANT EXECUTE ON FUNCTION cascade_diagram(text) TO pg_monitor;
GRANT SELECT ON cascade_topology, cascade_status, cascade_downstreams, cascade_holds, cascade_check,
	cascade_metrics, cascade_graph_nodes, cascade_graph_edges TO pg_monitor;
