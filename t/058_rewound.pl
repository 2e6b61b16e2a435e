# An intermediate that was promoted by mistake comes back by pg_rewind.
#
#	p ─── i ─── l
#
# i is promoted, and writes.  pg_rewind takes it back to p's history, and deletes its
# slots and its state file: i is another incarnation.  l, which was away, streams
# from it again.  The hold of i's former life stays on p until the command is run
# that cascade_check prints.  The command works: l was below the former life, and is
# live and protected under the present one.
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

wait_protected($i, $l);
add_rows($p, 2);
same_rows($p, $i, $l);
wait_protected($i, $l);
my $former = value($p, q{SELECT slot_name FROM cascade_holds WHERE name = 'i'});
my $life = incarnation($i);
$l->stop;
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'l'}, 'l is away', 'down');

# ---- a mistake, and back ----

$i->promote;
$i->safe_psql('postgres', 'CREATE TABLE mistake (x int); CHECKPOINT');
$i->stop;
my $kept = $i->basedir . '/kept.conf';
copy($i->data_dir . '/postgresql.conf', $kept) or die $!;
command_ok([ 'pg_rewind', '--source-server', $p->connstr('postgres'), '-D', $i->data_dir ], 'i is rewound');
copy($kept, $i->data_dir . '/postgresql.conf') or die $!;
$i->set_standby_mode;
is(join(' ', state_lines($i, 'node')), '', 'it has no state file any more');
$i->start;
value($i, q{SELECT pg_create_physical_replication_slot('l', true)});
$l->start;
add_rows($p, 2);
same_rows($p, $i, $l);
wait_protected($i, $l);
isnt(incarnation($i), $life, 'i is another incarnation');
is(value($p, q{SELECT count(*) FROM cascade_holds WHERE name = 'i'}), '2', 'p holds for both lives');

# ---- the command that is printed ----

write_segments($p, 3);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
wait_for($p, q{SELECT bool_or(state = 'streaming') FROM cascade_topology WHERE node_name = 'l'}, 'p knows that l is there', 't');
wait_for($p, "SELECT count(*) FROM cascade_check WHERE code = 'orphan_slot' AND hint ~ '$former'", 'cascade_check lists the former life', '1');
my $command = value($p, "SELECT substring(hint from 'SELECT .*;') FROM cascade_check WHERE code = 'orphan_slot' AND hint ~ '$former'");
unlike($command, qr/true/, 'without force');
value($p, $command);
is(value($p, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$former'"), '0', 'the command works as printed');
is(value($p, q{SELECT string_agg(node_name || ' ' || state, ', ' ORDER BY node_name) FROM cascade_topology WHERE node_name <> 'p'}),
	'i streaming, l streaming', 'and each node is drawn once');

done_testing();
