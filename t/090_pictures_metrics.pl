# What monitors and people are shown: metrics, the graph for Grafana, pictures.
#
#	p ── i ─┬─ l
#	        └─ u    without cascade_relay; its application_name is markup
#
# Everything is asked by a role that has only pg_monitor, on the root, on the
# leaf, and on the leaf once it is an orphan.  l stops, and i and p keep WAL for
# it: the picture says so.  Then i dies, and l comes back without an upstream:
# it says that it is cut off, and accuses no other node.  In the end a child tells p
# of 300 nodes below it, which must not take long to draw.
#
# The queries of monitoring/ are run in each of these states, and so are the plugin
# for Nagios and the script for node_exporter's textfile collector.
#
# Where graphviz and librsvg2-bin are installed, they must take the pictures.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use File::Basename qw(dirname);
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %quick = (
	conf => qq{
cascade_relay.report_interval = 100ms
cascade_relay.stale_timeout = 2s
cascade_relay.max_hold_size = 1GB
});
my $monitoring = dirname(__FILE__) . '/../monitoring';
my $hostile = '</text><script>';

my $p = new_primary('p', %quick);
my $i = new_standby('i', $p, %quick, conf => $quick{conf} . "cascade_relay.location = 'east & \"west\"'\n");
my $l = new_standby('l', $i, %quick);

$p->safe_psql('postgres', 'CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher');
wait_protected($i, $l);
wait_caught_up($p, $i, $l);

# a walsender without a slot, known by its application_name alone
my $u = new_standby('u', $i, unmanaged => 1, slotless => 1, conninfo => "application_name=$hostile");
my $shown = "SELECT count(*) FROM cascade_topology WHERE node_name = '$hostile'";
wait_for($p, $shown, 'p knows u', '1');

# The answer to a role that may monitor, and nothing else.
sub seen
{
	my ($node, $sql) = @_;
	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', 'watcher' ]);
}

# The value of each metric that fits the condition, as lines of name, member and value.
sub metrics
{
	my ($node, $where) = @_;
	return seen($node, "SELECT name, member, value FROM cascade_metrics WHERE $where ORDER BY 1, 2");
}

sub available { my ($program) = @_; return !system("command -v $program >/dev/null 2>&1"); }
my %has = map { $_ => available($_) } qw(dot rsvg-convert promtool);
diag("not tried, because it is not installed: $_") for sort grep { !$has{$_} } keys %has;

my $files = 0;
my @panels = map { $_->{rawSql} // () } map { @{ $_->{targets} } } @{ decode_json(slurp_file("$monitoring/grafana/cascade_relay.json"))->{panels} };

# What a program of monitoring/ says when it asks a node: its status and its output.
sub runs
{
	my ($node, $program, @arguments) = @_;
	my $output = '';

	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres', PGUSER => 'watcher');
	IPC::Run::run([ "$monitoring/$program", @arguments ], '>', \$output, '2>', \my $error);
	return ($? >> 8, $output);
}

# The picture, which the program must take if it is there; what the program prints.
sub take
{
	my ($text, $program, @arguments) = @_;
	return unless $has{$program};
	my $file = PostgreSQL::Test::Utils::tempdir() . '/picture' . ++$files;
	append_to_file($file, $text);
	my ($stdout, $stderr) = run_command([ $program, @arguments, $file ]);
	is($stderr, '', "$program has nothing to complain of");
	return $stdout;
}

# Every row that a monitor reads is in order, and every picture is whole.
sub in_order
{
	my ($node, $what) = @_;

	is(seen($node, 'SELECT count(*) FROM cascade_metrics m WHERE (m IS NOT NULL) IS NOT TRUE'), '0', "$what: no NULL in cascade_metrics");
	is(seen($node, q{SELECT count(*) FROM (SELECT 1 FROM cascade_metrics
		GROUP BY name, node, member, kind, pinned_by, upstream, role, state, code, severity HAVING count(*) > 1) twice}),
		'0', "$what: no sample twice");
	is(seen($node, q{SELECT count(*) FROM cascade_openmetrics() line WHERE line NOT LIKE '#%'}),
		seen($node, 'SELECT count(*) FROM cascade_metrics'), "$what: as many in the text format");
	is(seen($node, q{SELECT count(*) FROM (SELECT id FROM cascade_graph_nodes GROUP BY id HAVING count(*) > 1 OR id IS NULL OR id ~ '\s') bad}),
		'0', "$what: ids of nodes are unique, and have no spaces");
	is(seen($node, q{SELECT count(*), count(*) FILTER (WHERE source IN (SELECT id FROM cascade_graph_nodes)
			AND target IN (SELECT id FROM cascade_graph_nodes)), count(DISTINCT id), count(*) FILTER (WHERE id ~ '\s') FROM cascade_graph_edges}),
		join('|', (seen($node, q{SELECT count(*) FROM cascade_topology WHERE upstream_id IS NOT NULL})) x 3, 0),
		"$what: an edge to each node but the root, both its ends are nodes");
	is(seen($node, 'SELECT count(*) FROM cascade_graph_nodes WHERE arc__good + arc__waiting + arc__bad + arc__silent <> 1'),
		'0', "$what: the arcs add up to 1");
	is(seen($node, 'SELECT count(*) FROM cascade_topology WHERE node_id = incarnation'),
		seen($node, 'SELECT count(*) FROM cascade_topology WHERE managed'), "$what: a managed node is known by its incarnation");

	cmp_ok(scalar @panels, '>=', 4, "$what: panels with SQL");
	seen($node, $_) for @panels;

	my $svg = seen($node, 'SELECT cascade_diagram()');
	like($svg, qr{^<svg xmlns="http://www\.w3\.org/2000/svg".*</svg>\n?\z}s, "$what: an SVG");
	unlike($svg, qr/<script|[^\x20-\x7e\n]/, "$what: without a script, in ASCII");
	take($svg, 'rsvg-convert', '-o', PostgreSQL::Test::Utils::tempdir() . '/picture.png');
	my $dot = seen($node, q{SELECT cascade_diagram('dot')});
	my $plain = take($dot, 'dot', '-Tplain');
	my $rows = seen($node, 'SELECT count(*), count(*) FILTER (WHERE upstream_id IS NOT NULL), count(*) FILTER (WHERE depth = 1 AND upstream_id = $$unknown$$) FROM cascade_topology');
	my ($nodes, $edges, $lost) = split /\|/, $rows;
	is(join('|', scalar(() = $plain =~ /^node /mg), scalar(() = $plain =~ /^edge /mg)), ($nodes + $lost) . "|$edges", "$what: graphviz sees all nodes and edges")
	  if defined $plain;
	like(seen($node, q{SELECT cascade_diagram('mermaid')}), qr/^flowchart LR\n/, "$what: Mermaid");
	return $svg;
}

# ---- health ----

in_order($p, 'p');
in_order($l, 'l');
is(metrics($p, q{name IN ('cascade_up', 'cascade_protected', 'cascade_upstream_connected')}), "cascade_protected||1\ncascade_up||1", 'p is up, protected, and has no upstream');
is(metrics($l, q{name IN ('cascade_up', 'cascade_protected', 'cascade_upstream_connected')}),
	"cascade_protected||1\ncascade_up||1\ncascade_upstream_connected||1", 'l reports');
is(metrics($p, q{name = 'cascade_member_up'}), "cascade_member_up|$hostile|1\ncascade_member_up|i|1\ncascade_member_up|l|1", 'p tells of all below it');
is(metrics($l, q{name ~ 'member'}), '', 'l of none');
is(seen($p, q{SELECT role, upstream, value FROM cascade_metrics WHERE name = 'cascade_node_info'}), 'primary||1', 'what p is');
is(seen($i, q{SELECT role, upstream, value FROM cascade_metrics WHERE name = 'cascade_node_info'}), 'standby|p|1', 'what i is');
is(seen($p, q{SELECT node_id, upstream_id FROM cascade_topology WHERE node_name = 'l'}),
	incarnation($l) . '|' . incarnation($i), 'ids are incarnations');
is(seen($p, "SELECT node_id, upstream_id FROM cascade_topology WHERE node_name = '$hostile'"),
	incarnation($i) . '/%3C%2Ftext%3E%3Cscript%3E|' . incarnation($i), 'an unmanaged node is known by its upstream and its name');
is(seen($i, q{SELECT d.replay_lsn = r.replay_lsn FROM cascade_downstreams d JOIN pg_stat_replication r USING (pid) WHERE d.name = 'l'}), 't',
	'replay_lsn of a downstream is that of its walsender');
is(seen($p, q{SELECT count(*) FROM cascade_metrics WHERE name = 'cascade_safe_wal_bytes' AND value > 0}), '1', 'how much room is left');
if ($has{promtool})
{
	my ($stdout, $stderr) = ('', '');
	IPC::Run::run([ 'promtool', 'check', 'metrics' ], '<', \(seen($p, 'SELECT cascade_openmetrics()') . "\n"), '>', \$stdout, '2>', \$stderr);
	is($stdout . $stderr, '', 'promtool takes the metrics, and has no remarks');
}

my ($status, $said) = runs($p, 'nagios/check_cascade_relay');
is($status, 0, 'Nagios: OK');
like($said, qr/^CASCADE OK - p: no findings \| nodes=4 away=0 unprotected=0 retained=\d+B safe=\d+B findings=0\n\z/, 'with figures');
my $textfile = PostgreSQL::Test::Utils::tempdir() . '/cascade.prom';
is((runs($p, 'prometheus/cascade_relay_textfile', $textfile))[0], 0, 'the textfile is written');
like(slurp_file($textfile), qr/^# TYPE cascade_up gauge\ncascade_up\{node="p"\} 1$/m, 'with the metrics');

# ---- a leaf is down, and WAL is kept for it ----

$l->stop;
write_segments($p, 5);
wait_for($p, q{SELECT pinned_by = 'l' AND flush_lsn - frontier_lsn > 3 * 1024 * 1024 FROM cascade_topology WHERE is_local}, 'p keeps WAL for l');
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'l'}, 'which is down');
my $svg = in_order($p, 'p, with l down');
like($svg, qr{>p keeps [\d.]+ MB of WAL on its disk for l, which is down<}, 'the picture tells the story');
like($svg, qr{<path class="z z2"}, 'with the path to l');
is(seen($p, q{SELECT string_agg(t.node_name, ' ' ORDER BY t.depth) FROM cascade_graph_edges e JOIN cascade_topology t ON t.node_id = e.target WHERE e.color = 'orange'}), 'i l',
	"so does Grafana's graph");
is(metrics($p, q{name = 'cascade_member_up' AND member = 'l'}), 'cascade_member_up|l|0', 'p says that l is down');
wait_for($p, q{SELECT count(*) FROM cascade_check WHERE level > 0}, 'that is a finding', '1');
($status, $said) = runs($p, 'nagios/check_cascade_relay');
is($status, 1, 'Nagios: WARNING');
like($said, qr/^CASCADE WARNING - p: stale_node l \| nodes=4 away=1 .* findings=1\nstale_node l: no news of node "l"[^|\n]*\n\z/, 'with the finding, and what to do');
($status, $said) = runs($l, 'nagios/check_cascade_relay');
is($status, 3, 'Nagios: what cannot be asked is UNKNOWN');
like($said, qr/^CASCADE UNKNOWN - /, 'and says why');
isnt((runs($l, 'prometheus/cascade_relay_textfile', $textfile))[0], 0, 'nothing comes from a server that is down');
ok(!-e $textfile, 'and old metrics go');
$p->safe_psql('postgres', 'REVOKE pg_monitor FROM watcher');
is((runs($p, 'nagios/check_cascade_relay'))[0], 3, 'Nagios: a missing grant is UNKNOWN, too');
$p->safe_psql('postgres', 'GRANT pg_monitor TO watcher');
is(seen($p, q{SELECT value > 3 * 1024 * 1024 FROM cascade_metrics WHERE name = 'cascade_pinned_bytes' AND pinned_by = 'l'}), 't', 'and how much it keeps for it');

# ---- an orphan ----

kill_node($i);
$u->stop;
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'i'}, 'i is down');
is(metrics($p, q{name = 'cascade_member_up' AND member IN ('i', 'l')}), "cascade_member_up|i|0\ncascade_member_up|l|0", 'the death of i does not hide that of l');
$l->start;
wait_for($l, q{SELECT count(*) = 1 FROM cascade_metrics WHERE name = 'cascade_upstream_connected' AND value = 0}, 'l has lost its upstream');
wait_for($l, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'upstream_silent'}, 'and says so');
$svg = in_order($l, 'l, an orphan');
like($svg, qr/Cascade without a known primary/, 'its picture has no root');
is(seen($l, q{SELECT count(*) FROM cascade_graph_nodes WHERE id = 'unknown'}), '1', 'there is a node for what it does not know');
is(seen($l, q{SELECT string_agg(DISTINCT member, ' ') FROM cascade_metrics WHERE name = 'cascade_finding'}), 'l', 'it has findings about itself alone');
is((runs($l, 'nagios/check_cascade_relay'))[0], 2, 'Nagios: CRITICAL');
is(seen($l, q{SELECT count(*) FROM cascade_check WHERE below AND node_name <> 'l'}), '0', 'as cascade_check does where below');

# ---- many ----

my $f = $p->background_psql('postgres', on_error_stop => 1);
my $lsn = value($p, 'SELECT pg_current_wal_lsn()');
my %at = map { ($_ => $lsn) } qw(flush_lsn replay_lsn frontier_lsn hold_target_lsn);
my $hello = decode_reply($f->query_safe('SELECT ' . report_sql(encode_hello(
	system_identifier => value($p, 'SELECT system_identifier FROM pg_control_system()'), start_id => 7,
	incarnation => 0xf, report_interval_ms => 60000, node_name => 'f'))));
is($hello->{answer}, 'ok', 'f says hello');
is(decode_reply($f->query_safe('SELECT ' . report_sql(encode_report(%at, of => 0xf, report_interval_ms => 60000, pinned_by => 'f', tree => [
	map { encode_row(%at, name => "leaf_$_", incarnation => 0x1000 + $_, managed => 1, upstream_name => 'f', upstream_incarnation => 0xf, protected => $_ % 2 ? 1 : 2, pinned_by => "leaf_$_") } 1 .. 300 ]))))->{answer},
	'ok', 'and tells of 300 nodes');
wait_for($p, q{SELECT count(*) FROM cascade_topology WHERE node_name LIKE 'leaf_%'}, 'p knows them', '300');
my $best = value($p, q{
	CREATE FUNCTION pg_temp.milliseconds() RETURNS float8 LANGUAGE plpgsql AS $$
	DECLARE best float8 := 1e9; began timestamptz;
	BEGIN
		FOR i IN 1 .. 20 LOOP
			began := clock_timestamp();
			PERFORM cascade_diagram();
			best := least(best, 1000 * extract(epoch FROM clock_timestamp() - began));
		END LOOP;
		RETURN best;
	END $$;
	SELECT round(pg_temp.milliseconds()::numeric, 2)});
note("300 nodes are drawn in $best ms");
cmp_ok($best, '<', at_most(10), 'that they are drawn takes less than 10 ms');
cmp_ok(length(seen($p, 'SELECT cascade_diagram()')), '<', 200_000, 'and less than 200 kB');
$f->quit;

done_testing();
