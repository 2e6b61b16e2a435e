# A node that reports on another way than it streams on.
#
#	p ─── l      streams through p's socket, reports to 127.0.0.1
#
# Of the signs that the walsender is l's there are only as many as it takes not to
# draw it as a second node.  l stops, and its walsender on p stays a little longer
# than its session: l is one node all the while, and when it is back.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p', conf => "listen_addresses = '127.0.0.1'\n");
my $l = new_standby('l', $p, conf => "cascade_relay.upstream_conninfo = 'host=127.0.0.1'\n");
my $rows = q{SELECT state, managed FROM cascade_topology WHERE node_name = 'l'};
my $sender = q{SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'l' AND active};

wait_protected($l);
is(value($p, q{SELECT client_addr FROM pg_stat_activity WHERE application_name = 'cascade_relay'}), '127.0.0.1', 'l reports there');
is(value($p, 'SELECT client_addr FROM pg_stat_replication'), '', 'and streams from the socket');
wait_for($p, $rows, 'l is one node', 'streaming|t');

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

done_testing();
