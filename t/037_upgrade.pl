# A rolling upgrade: nodes of two versions report to one another.
#
#	p ── i ── l        each with an installation of its own
#
# The next version has more in every message, other SQL objects, and is put in
# the place of this one node by node, as a DBA does it: new files, a restart.
# The leaf comes first, so a newer node reports to an older one; then p, so a
# newer node answers an older one, and the new library finds the old SQL
# objects; then ALTER EXTENSION UPDATE, while i has the old library still and
# finds objects that it does not know; and i at last.  At every step holds move,
# everybody is protected, and cascade_check says who is behind, and at the end
# nobody.
#
# Then i gets a version that has broken with the past: one that nobody can
# read, and one that can read nobody.  Each refusal says which side to upgrade;
# the holds stay where they are, and the WAL stays with them.  l stops, WAL is
# removed, i is killed: l attaches to p and has every row.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use File::Copy qw(copy);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# built by "make installcheck"; the library itself is beside them
my $build = $ENV{TESTDIR} // '.';

# ---- installations ----

sub output_of
{
	my (@command) = @_;
	my ($stdout, $stderr) = run_command(\@command);
	die "@command: $stderr" if $? != 0;
	return $stdout;
}

my $pg_config = output_of('pg_config', '--bindir') . '/pg_config';
my %prefix_config;

# Puts a file where another one may be in use.
sub put_file
{
	my ($from, $to) = @_;
	copy($from, "$to.new") or die "$from: $!";
	rename("$to.new", $to) or die "$to: $!";
	return;
}

sub put_library
{
	my ($name, $library) = @_;
	put_file($library, output_of($prefix_config{$name}, '--pkglibdir') . '/cascade_relay.so');
	return;
}

# A PostgreSQL for one node, with this version of the extension.  Returns the
# folder above its bin.
sub new_installation
{
	my ($name) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $config = output_of('bash', '-c',
		'set -eu; . tools/lib.sh; PG_CONFIG=$1; crelay_private_prefix "$2"; echo "$PG_CONFIG"',
		'bash', $pg_config, $dir);

	$prefix_config{$name} = $config;
	put_library($name, "$build/cascade_relay.so");
	my $extension = output_of($config, '--sharedir') . '/extension';
	put_file('cascade_relay.control', "$extension/cascade_relay.control");
	put_file('sql/cascade_relay--1.0.sql', "$extension/cascade_relay--1.0.sql");
	return $config =~ s{/bin/pg_config$}{}r;
}

# What the next version's ALTER EXTENSION UPDATE would run: it adds columns to
# a function, and a function.
sub put_next_script
{
	my ($name) = @_;
	my $extension = output_of($prefix_config{$name}, '--sharedir') . '/extension';
	my ($function) = slurp_file('sql/cascade_relay--1.0.sql') =~ /^(CREATE FUNCTION cascade_topology\(.*?;\n)/ms;
	my $control = slurp_file('cascade_relay.control');
	my $graphs = join '', slurp_file('sql/cascade_relay--1.0.sql') =~ /^(CREATE VIEW cascade_graph_\w+ AS.*?;\n)/msg;

	$function =~ s/(OUT upstream_id text)\)/$1,\n\tOUT planet text,\n\tOUT moons int)/ or die $function;
	append_to_file("$extension/cascade_relay--1.0--1.1.sql", qq{
DROP VIEW cascade_topology, cascade_graph_nodes, cascade_graph_edges;
DROP FUNCTION cascade_topology();
$function
CREATE VIEW cascade_topology AS SELECT * FROM cascade_topology();
$graphs
REVOKE ALL ON FUNCTION cascade_topology() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION cascade_topology() TO pg_monitor;
GRANT SELECT ON cascade_topology, cascade_graph_nodes, cascade_graph_edges TO pg_monitor;
CREATE FUNCTION cascade_next() RETURNS text LANGUAGE sql AS 'SELECT text ''1.1''';
});
	append_to_file("$extension/cascade_relay.control.new",
		$control =~ s/^default_version = '1.0'/default_version = '1.1'/mr);
	rename("$extension/cascade_relay.control.new", "$extension/cascade_relay.control") or die $!;
	return;
}

# New files, then a restart.
sub upgrade
{
	my ($node, $version) = @_;
	put_library($node->name, "$build/tmp_upgrade/$version.so");
	$node->restart;
	return;
}

my $conf = "max_slot_wal_keep_size = 1GB\n";
my $p = new_primary('p', conf => $conf, install_path => new_installation('p'));
my $i = new_standby('i', $p, conf => $conf, install_path => new_installation('i'));
my $l = new_standby('l', $i, conf => $conf, install_path => new_installation('l'));
my %log;

# ---- what must be true at each step ----

# Who is behind, as a node says: about whom.
sub mixed
{
	my ($node, $expected, $what) = @_;
	my $name = $node->name;
	wait_for($node,
		"SELECT coalesce(string_agg(node_name, ' ' ORDER BY node_name), '') FROM cascade_check WHERE code = 'version_mixed'",
		"$what: $name says who is behind", $expected);
	return;
}

sub in_order
{
	my ($what, %version) = @_;
	my $before = hold_lsn($p, 'i');
	my $versions = join ' ', map { "$_ $version{$_}" } qw(p i l);

	wait_connected($i, $l);
	checkpoint_all($p, $i, $l);
	wait_protected($i, $l);
	for my $node ($p, $i, $l)
	{
		wait_for($node, q{SELECT string_agg(node_name || ' ' || version, ' ' ORDER BY depth) FROM cascade_topology},
			"$what: " . $node->name . ' shows the versions', $versions);
	}
	remove_wal(2, $p, $i, $l);
	wait_for($p, "SELECT restart_lsn > '$before' FROM cascade_holds", "$what: the hold of i moves");
	wait_for($l, q{SELECT bool_and(protected AND state IN ('running', 'streaming')) FROM cascade_topology}, "$what: all are there");
	for my $node ($p, $i, $l)
	{
		my $text = slurp_file($node->logfile, $log{ $node->name } // 0);
		unlike($text, qr/(?:ERROR|PANIC|WARNING): |TRAP|terminated by signal/, "$what: " . $node->name . ' has no complaint');
		$log{ $node->name } = -s $node->logfile;
	}
	return;
}

# ---- node by node ----

add_rows($p, 3);
in_order('this version', p => '1.0', i => '1.0', l => '1.0');
mixed($_, '', 'this version') for ($p, $i, $l);

upgrade($l, 'next');
in_order('the leaf first', p => '1.0', i => '1.0', l => '1.1');
mixed($_, 'i p', 'the leaf first') for ($p, $i);
mixed($l, 'i l p', 'the leaf first, which has the old objects');
is(value($p, q{SELECT message || ' ' || hint FROM cascade_check WHERE code = 'version_mixed' AND node_name = 'i'}),
	'node "i" runs cascade_relay 1.0, and node "l" runs 1.1 Install the same version of cascade_relay on that node too, and restart it.',
	'and what to do');

upgrade($p, 'next');
in_order('then the primary', p => '1.1', i => '1.0', l => '1.1');
mixed($i, 'i', 'then the primary');
mixed($p, 'i p', 'then the primary, with the old objects');
is(value($p, q{SELECT extversion FROM pg_extension WHERE extname = 'cascade_relay'}), '1.0', 'the old objects');
for my $call (
	'cascade_status', 'cascade_topology', 'cascade_downstreams', 'cascade_holds', 'cascade_check', 'cascade_tree()',
	q{cascade_plan_upstream('l')}, 'cascade_upstream_candidates()', 'cascade_policy()',
	q{cascade_nodes_serving(cascade_bookmark())}, 'cascade_oldest_wal_file()')
{
	cmp_ok(value($p, "SELECT count(*) FROM $call"), '>', 0, "with the new library, $call works");
}
is(value($p, 'CALL cascade_wait_for(cascade_bookmark())'), 't', 'and so does waiting');

# Objects of a version before this one declare less than the library knows: the
# first two columns of everything that returns rows.
value($p, q{
	CREATE SCHEMA old;
	DO $do$
	DECLARE
		f pg_proc;
		arguments text;
	BEGIN
		FOR f IN SELECT p.* FROM pg_proc p JOIN pg_language l ON l.oid = prolang
			WHERE lanname = 'c' AND probin = '$libdir/cascade_relay' AND prorettype = 'record'::regtype AND prokind = 'f'
		LOOP
			SELECT string_agg(CASE mode WHEN 'o' THEN format('OUT %I %s', name, type::regtype) ELSE type::regtype::text END, ', ' ORDER BY at)
			INTO arguments
			FROM (SELECT a.*, row_number() OVER (PARTITION BY mode ORDER BY at) AS nth
				  FROM unnest(f.proallargtypes, f.proargmodes, f.proargnames) WITH ORDINALITY AS a(type, mode, name, at)) AS a
			WHERE mode = 'i' OR nth <= 2;
			EXECUTE format('CREATE FUNCTION old.%I(%s) RETURNS %s record AS %L, %L LANGUAGE C',
				f.proname, arguments, CASE WHEN f.proretset THEN 'SETOF' END, f.probin, f.prosrc);
		END LOOP;
	END $do$;});
my @old = (
	'cascade_check()', 'cascade_downstreams()', 'cascade_metrics()', q{cascade_nodes_serving('1:0/200000')},
	q{cascade_plan_upstream('l', 'voting', 'i', NULL)}, 'cascade_policy(NULL)', 'cascade_status()',
	'cascade_topology()', 'cascade_upstream_candidates(NULL, NULL, NULL)');
is( value($p, q{SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc WHERE pronamespace = 'old'::regnamespace}),
	join(' ', map { s/\(.*//r } @old), 'objects of an older version');
for my $call (@old)
{
	my $all = value($p, "SELECT * FROM $call");

	is(value($p, "SELECT * FROM old.$call"), join("\n", map { join '|', (split /\|/, $_, -1)[ 0, 1 ] } split /\n/, $all),
		"a $call that declares less has the same in it");
}
value($p, 'DROP SCHEMA old CASCADE');

# ---- the objects, before i has the library for them ----

put_next_script('p');
is(value($p, q{SELECT string_agg(path, ' ') FROM pg_extension_update_paths('cascade_relay') WHERE path IS NOT NULL}),
	'1.0--1.1', 'there is a way to the next version');
$p->safe_psql('postgres', 'ALTER EXTENSION cascade_relay UPDATE');
wait_caught_up($p, $i, $l);
for my $node ($p, $i, $l)
{
	is(value($node, 'SELECT cascade_next()'), '1.1', $node->name . ' has the new objects');
	is(value($node, 'SELECT count(*), count(planet), count(moons) FROM cascade_topology'), '3|0|0',
		'and of what its library does not know it knows nothing');
}
mixed($i, 'i i', 'the objects are newer');
is(value($i, q{SELECT hint FROM cascade_check WHERE message ~ 'SQL objects'}),
	'Install the same version of cascade_relay on this node too, and restart it.', 'and what to do');
in_order('with new objects', p => '1.1', i => '1.0', l => '1.1');

upgrade($i, 'next');
in_order('all', p => '1.1', i => '1.1', l => '1.1');
mixed($_, '', 'all') for ($p, $i, $l);

# Made at once, or updated: it is the same.
my $members = q{
	SELECT string_agg(pg_describe_object(classid, objid, 0), ', ' ORDER BY pg_describe_object(classid, objid, 0) COLLATE "C")
	FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND classid <> 'pg_type'::regclass
	  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cascade_relay')};
$p->safe_psql('postgres', 'CREATE DATABASE fresh');
$p->safe_psql('fresh', 'CREATE EXTENSION cascade_relay');
is($p->safe_psql('fresh', $members), value($p, $members), 'a new one has the same objects as one that was updated');
$p->safe_psql('postgres', 'DROP DATABASE fresh');

# ---- versions that cannot talk ----

# The nodes that do not get along say so; nothing that is held is let go.
sub broken
{
	my ($version, %error) = @_;
	my %hold = (i => hold_lsn($p, 'i'), l => hold_lsn($i, 'l'));

	upgrade($i, $version);
	for my $node ($i, $l)
	{
		my ($error, $hint) = @{ $error{ $node->name } };
		wait_for($node, "SELECT upstream_state = 'refused' AND last_error ~ '^the cascade_relay of $error.* HINT: Upgrade cascade_relay on $hint' FROM cascade_status",
			"$version: " . $node->name . ' says which side is too old')
		  or diag(value($node, 'SELECT last_error FROM cascade_status'));
		wait_for($node, "SELECT count(*) = 1 FROM cascade_check WHERE severity = 'critical' AND code = 'upstream_refused' AND node_name = '"
			  . $node->name . "' AND hint ~ '^Upgrade cascade_relay on $hint'", 'and so does its check');
	}
	remove_wal(4, $p, $i, $l);
	is(hold_lsn($p, 'i'), $hold{i}, "$version: the hold of i stays where it is");
	is(hold_lsn($i, 'l'), $hold{l}, 'and so does that of l');
	ok(has_segment($p, $hold{i}) && has_segment($i, $hold{l}), 'with the WAL behind it');
	return;
}

broken('loud',
	i => [ 'the upstream is too old for that of the reporting node', 'the upstream' ],
	l => [ 'this node is too old for that of its upstream', 'this node' ]);
broken('deaf',
	i => [ 'the upstream is too old for that of this node', 'the upstream' ],
	l => [ 'the reporting node is too old for that of the upstream', 'the reporting node' ]);

# ---- the proof ----

$l->stop;
add_rows($p, 6);
wait_caught_up($p, $i);
checkpoint_all($p, $i);
checkpoint_all($p, $i);
kill_node($i);
slot_from_hold($p, 'i', 'l');
point_at($l, $p);
$l->start;
same_rows($p, $l);
wait_connected($l);
wait_protected($l);
mixed($_, '', 'without i') for ($p, $l);

done_testing();
