# A failover candidate keeps its local hold while it is not synchronous.
#
#	p ─┬─ v              synchronous, but for a moment
#	   └─ i ─── l        l lags
#
# synchronous_standby_names is emptied for longer than stale_timeout, as HA managers
# do, and set again.  v keeps its hold all the time, where the tree needs it.  p and
# i die, v is promoted, and is killed with -9 before the others have come back.  It
# knows from its state file which nodes it waits for, and l finds all its WAL on it.
# When p and i are back as well, the hold goes by itself.
#
# Without any voting standby the root says that nothing is kept for its death.  A
# former candidate that streams from another standby for long gives its hold up.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $quick = "cascade_relay.stale_timeout = 1s\n";
my $p = new_primary('p', conf => $quick);
my $v = new_standby('v', $p, conf => $quick);
my $i = new_standby('i', $p, conf => $quick);
my $l = new_standby('l', $i, conf => $quick);

wait_protected($v, $i, $l);
is(value($p, q{SELECT severity FROM cascade_check WHERE code = 'no_candidate'}), 'ok', 'p says that nobody holds for its death');
set_conf($p, "synchronous_standby_names = 'v'\n");
wait_for($v, q{SELECT count(*) FROM cascade_holds WHERE name = 'v'}, 'v holds on itself', '1');
wait_for($p, q{SELECT count(*) FROM cascade_check WHERE code = 'no_candidate'}, 'and p says nothing more', '0');
add_rows($p, 2);
wait_caught_up($p, $v, $i, $l);
checkpoint_all($p, $v, $i, $l);
wait_protected($v, $i, $l);
look_around($v);
$l->stop;
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'l'}, 'l is away', 'down');
my $need = value($p, q{SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'l'});
add_rows($p, 4);
remove_wal(2, $p, $v, $i);
ok(lsn_le($p, hold_lsn($v, 'v'), $need) && has_segment($v, $need), 'v has what l needs');

# ---- not synchronous for a moment ----

my $hold = value($v, q{SELECT slot_name FROM cascade_holds WHERE name = 'v'});
set_conf($p, "synchronous_standby_names = ''\n");
wait_for($v, q{SELECT replica_class FROM cascade_topology WHERE is_local}, 'v is not voting', 'read_replica');
my $since = value($v, 'SELECT clock_timestamp()');
wait_for($v, "SELECT clock_timestamp() - '$since' > interval '3 s'", 'for longer than stale_timeout');
look_around($v);
is(value($v, qq{SELECT restart_lsn <= '$need' FROM cascade_holds WHERE slot_name = '$hold'}), 't', 'its hold stands where it stood');
set_conf($p, "synchronous_standby_names = 'v'\n");
wait_for($v, q{SELECT replica_class FROM cascade_topology WHERE is_local}, 'v is voting again', 'voting');
add_rows($p, 2);
remove_wal(2, $p, $v, $i);
is(value($v, qq{SELECT restart_lsn <= '$need' FROM cascade_holds WHERE slot_name = '$hold'}), 't', 'and goes on holding');
ok(has_segment($v, $need), 'the WAL is there');
is(value($v, q{SELECT count(*) FROM cascade_check WHERE code = 'local_hold_high'}), '0', 'no finding');

# ---- the disaster ----

kill_node($_) for $p, $i;
$v->promote;
wait_for($v, q{SELECT role FROM cascade_status}, 'v is the primary', 'primary');
wait_until('v has written down which nodes it waits for', sub { 3 == grep { / [pil]$/ } state_lines($v, 'awaited') });
kill_node($v);
start_after_kill($v);
wait_for($v, q{SELECT count(*) FROM cascade_check WHERE code = 'orphan_slot' AND message ~ 'since this node was promoted.* for node "i" and 2 more$' AND hint ~ 'cascade_forget'},
	'killed with -9, v knows which nodes it waits for', '1');
remove_wal(2, $v);
ok((grep { substr($_, 8) eq substr(segment_of($need), 8) } wal_files($v)), 'v keeps what l needs');
reattach($v, 'v', $l);
wait_protected($l);
is(value($v, q{SELECT count(*) FROM cascade_holds WHERE name = 'v'}), '1', 'v waits for the others still');

my $log = -s $v->logfile;
for my $node ($i, $p)
{
	my $name = $node->name;

	value($v, "SELECT pg_create_physical_replication_slot('$name', true)");
	$node->set_standby_mode if $node == $p;
	$node->append_conf('postgresql.conf', "primary_slot_name = '$name'\nsynchronous_standby_names = ''\n");
	point_at($node, $v);
	start_after_kill($node);
}
wait_protected($i, $p, $l);
ok($v->wait_for_log(qr/dropped hold "\Q$hold\E", because every node that was known before the promotion is protected here/, $log), 'when all are back, the hold goes');
wait_until('and nothing is waited for', sub { !state_lines($v, 'awaited') });

# ---- a candidate that cascades ----

set_conf($i, "cascade_relay.replica_class = 'voting'\n");
wait_for($i, q{SELECT count(*) FROM cascade_holds WHERE name = 'i'}, 'i is a candidate', '1');
set_conf($i, "cascade_relay.replica_class = 'auto'\n");
point_at($i, $p);
$i->reload;
wait_for($i, q{SELECT path FROM cascade_topology WHERE is_local}, 'i cascades', '{v,p,i}');
wait_for($i, q{SELECT count(*) FROM cascade_holds WHERE name = 'i'}, 'and gives its hold up after a while', '0');

done_testing();
