# A walsender that outlives the session of its node.
#
#	p ─┬─ l      streams through p's socket, reports to 127.0.0.1
#	   └─ i ─── m
#
# Of the signs that the walsender is l's there are only as many as it takes not to
# draw it as a second node.  l stops, and its walsender on p stays a little longer
# than its session: l is one node all the while, and when it is back.
#
# m goes on reporting, and only its WAL receiver goes, then it stops: its walsender
# on i is nobody else's.  Then m leaves i for p, without i's walsender noticing, as
# when the network is cut.  Nor is that somebody else who streams through m's slot
# on i: m is one node all the while, and its slot does not count any more once the
# walsender has gone.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $quick = "cascade_relay.stale_timeout = 2s\n";
my $p = new_primary('p', conf => "${quick}listen_addresses = '127.0.0.1'\n");
my $l = new_standby('l', $p, conf => "cascade_relay.upstream_conninfo = 'host=127.0.0.1 port=" . $p->port . "'\n");
my $rows = q{SELECT state, managed FROM cascade_topology WHERE node_name = 'l'};
my $sender = q{SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'l' AND active};

# By then it would know whether it streams, and has said so.
sub streams_for_a_while
{
	my ($node, $name) = @_;

	wait_for($node, "SELECT now() - backend_start > interval '4s' FROM pg_stat_replication WHERE application_name = '$name'", "$name has streamed for a while");
	look_around($node);
	return;
}

wait_protected($l);
is(value($p, q{SELECT client_addr FROM pg_stat_activity WHERE application_name = 'cascade_relay'}), '127.0.0.1', 'l reports there');
is(value($p, 'SELECT client_addr FROM pg_stat_replication'), '', 'and streams from the socket');
wait_for($p, $rows, 'l is one node', 'streaming|t');

streams_for_a_while($p, 'l');
my $pid = value($p, $sender);
kill 'STOP', $pid or die $!;
$l->stop;
wait_for($p, q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cascade_relay'}, 'the session of l has ended', '0');
look_around($p) for 1 .. 2;
is(value($p, $sender), $pid, 'its walsender is still there');
is(value($p, q{SELECT count(*) FROM cascade_topology WHERE node_name = 'l'}), '1', 'l is one node still');
kill 'CONT', $pid or die $!;
wait_for($p, "SELECT count(*) FROM ($sender) s", 'the walsender has ended', '0');
look_around($p);
is(value($p, $rows), 'down|t', 'and one that is down');

$l->start;
add_rows($p, 1);
same_rows($p, $l);
wait_protected($l);
wait_for($p, $rows, 'it is back', 'streaming|t');

# ---- one that only reports ----

my $i = new_standby('i', $p, conf => $quick);
my $m = new_standby('m', $i);
my $moved = q{SELECT upstream_name, state, managed FROM cascade_topology WHERE node_name = 'm'};

$sender =~ s/'l'/'m'/;
wait_protected($i, $m);
wait_for($i, $moved, 'm is below i', 'i|streaming|t');
streams_for_a_while($i, 'm');
$pid = value($i, $sender);
kill 'STOP', $pid or die $!;
set_conf($m, "primary_conninfo = ''\ncascade_relay.upstream_conninfo = '" . ($i->connstr =~ s/'/''/gr) . "'");
wait_for($m, 'SELECT count(*) FROM pg_stat_wal_receiver', 'm does not stream any more', '0');
my $reports = value($m, 'SELECT reports_sent FROM cascade_status');
wait_for($m, "SELECT reports_sent > $reports + 2 FROM cascade_status", 'and has said so');
look_around($i) for 1 .. 2;
is(value($i, $sender), $pid, 'its walsender is still there');
is(value($i, q{SELECT count(*) FROM cascade_topology WHERE node_name = 'm'}), '1', 'm is one node still');
kill 'CONT', $pid or die $!;
wait_for($i, $moved, 'i sees what it does', 'i|archive|t');
$m->stop;
wait_for($i, q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cascade_relay'}, 'm is gone', '0');
look_around($i);
is(value($i, $moved), 'i|down|t', 'and is one node that is down');
point_at($m, $i);
$m->append_conf('postgresql.conf', q{cascade_relay.upstream_conninfo = ''});
$m->start;
add_rows($p, 1);
same_rows($p, $m);

# ---- one that leaves ----

wait_protected($i, $m);
wait_for($i, $moved, 'm is below i', 'i|streaming|t');
streams_for_a_while($i, 'm');
$pid = value($i, $sender);
kill 'STOP', $pid or die $!;
value($p, q{SELECT pg_create_physical_replication_slot('m', true)});
point_at($m, $p);
$m->reload;
wait_for($m, q{SELECT upstream_name = 'p' AND protected FROM cascade_status}, 'm is protected below p');
wait_for($p, $moved, 'and p sees it', 'p|streaming|t');
my $heard = value($i, 'SELECT reports_sent FROM cascade_status');
wait_for($i, "SELECT reports_sent > $heard + 12 FROM cascade_status", 'i has heard of it: each fifth report asks for the tree');
look_around($i);
is(value($i, $sender), $pid, 'its walsender on i is still there');
is(value($i, q{SELECT count(*) FROM cascade_topology WHERE node_name = 'm'}), '1', 'it is one node on i, too');
kill 'CONT', $pid or die $!;
wait_for($i, "SELECT count(*) FROM ($sender) s", 'the walsender has ended', '0');
wait_for($i, $moved, 'i sees it below p', 'p|streaming|t');
wait_for($i, q{SELECT counted, reason FROM cascade_downstreams WHERE slot_name = 'm'}, 'its slot on i does not count', 'f|its node is live and protected elsewhere');
wait_for($i, q{SELECT count(*) FROM cascade_holds WHERE name = 'm'}, 'i lets go of it', '0');

done_testing();
