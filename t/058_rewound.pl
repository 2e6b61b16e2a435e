# An intermediate that was promoted by mistake comes back by pg_rewind.
#
#	p ─── i ─┬─ l        away in the meantime
#	         └─ k        follows i to its timeline
#
# i is promoted, and writes.  pg_rewind takes i and k back to p's history, and deletes
# their slots and state files: each is another incarnation.  l, which was away, is not,
# and streams from i again, as k does.  The hold of i's former life stays on p until
# the command is run that cascade_check prints.  The command works: l and k were below
# the former life, and l and the present life of k are live and protected.  The former
# life of k will never call again, and blocks nothing.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use File::Copy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = "cascade_relay.stale_timeout = 2s\nwal_log_hints = on\n";
my $p = new_primary('p', conf => $conf);
my $i = new_standby('i', $p, conf => $conf);
my $l = new_standby('l', $i, conf => $conf);
my $k = new_standby('k', $i, conf => "${conf}wal_keep_size = 64MB\n");	# pg_rewind reads back to where the histories part

# Takes a stopped node back to p's history; its settings stay its own.
sub rewind
{
	my ($node) = @_;
	my $kept = $node->basedir . '/kept.conf';

	copy($node->data_dir . '/postgresql.conf', $kept) or die $!;
	command_ok([ 'pg_rewind', '--source-server', $p->connstr('postgres'), '-D', $node->data_dir ], $node->name . ' is rewound');
	copy($kept, $node->data_dir . '/postgresql.conf') or die $!;
	$node->set_standby_mode;
	is(join(' ', state_lines($node, 'node')), '', $node->name . ' has no state file any more');
	return;
}

wait_protected($i, $l, $k);
add_rows($p, 2);
same_rows($p, $i, $l, $k);
wait_protected($i, $l, $k);
my $former = value($p, q{SELECT slot_name FROM cascade_holds WHERE name = 'i'});
my %life = map { $_->name => incarnation($_) } ($i, $l, $k);
$l->stop;
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'l'}, 'l is away', 'down');

# ---- a mistake, and back ----

$i->promote;
$i->safe_psql('postgres', 'CREATE TABLE mistake (x int)');
checkpoint_all($i, $k);
is(value($k, q{SELECT count(*) FROM pg_class WHERE relname = 'mistake'}), '1', 'k has followed i');
$_->stop for $k, $i;
rewind($_) for $i, $k;
$i->start;
value($i, "SELECT pg_create_physical_replication_slot('$_', true)") for qw(l k);
$_->start for $l, $k;
add_rows($p, 2);
same_rows($p, $i, $l, $k);
wait_protected($i, $l, $k);
isnt(incarnation($_), $life{ $_->name }, $_->name . ' is another incarnation') for $i, $k;
is(incarnation($l), $life{l}, 'l is who it was');
is(value($p, q{SELECT count(*) FROM cascade_holds WHERE name = 'i'}), '2', 'p holds for both lives');

# ---- the command that is printed ----

write_segments($p, 3);
checkpoint_all($p, $i, $l, $k);
wait_protected($i, $l, $k);
wait_for($p, "SELECT bool_or(state = 'streaming') FROM cascade_topology WHERE node_name = '$_'", "p knows that $_ is there", 't') for qw(l k);
wait_for($p, "SELECT count(*) FROM cascade_check WHERE code = 'orphan_slot' AND hint ~ '$former'", 'cascade_check lists the former life', '1');
my $command = value($p, "SELECT substring(hint from 'SELECT .*;') FROM cascade_check WHERE code = 'orphan_slot' AND hint ~ '$former'");
unlike($command, qr/true/, 'without force');
value($p, $command);
is(value($p, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$former'"), '0', 'the command works as printed');
is(value($p, q{SELECT string_agg(node_name || ' ' || state, ', ' ORDER BY node_name) FROM cascade_topology WHERE node_name <> 'p'}),
	'i streaming, k streaming, l streaming', 'and each node is drawn once');

done_testing();
