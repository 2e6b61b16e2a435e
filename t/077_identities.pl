# Who a node is does not depend on who else is there, nor on where it reports.
#
#	p -> i -> a, b	without cascade_relay, without slots, both called "15/main"
#	p -> i -> l	a clone of i
#
# Debian gives all nodes of a cluster one cluster_name, and so a and b are known as
# "15/main#pid" while both are connected, and by the name alone while one is.  They
# come and go: two standbys are two nodes all the time (repmgr#238), one that is
# there is never "down", and nobody is said to be away once both are back.  Neither
# is after a restart of the worker of i.
#
# l was cloned from i with its postgresql.auto.conf, where upstream_conninfo says p,
# and advertised_conninfo where i is (repmgr#395).  So l streams from i and reports
# to p.  It is one node, drawn where it streams from; all nodes say so, with the
# setting to mend, and that two nodes have one address.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use CascadeRelay;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = "cascade_relay.stale_timeout = 2s\n";
my $p = new_primary('p', conf => $conf);
my $i = new_standby('i', $p, conf => $conf);
my %alike = (unmanaged => 1, slotless => 1, conninfo => 'application_name=15/main',
	conf => "wal_receiver_status_interval = 1s\n");
my $a = new_standby('a', $i, %alike);
my $b = new_standby('b', $i, %alike, backup => 'for_a');

my $names = q{SELECT string_agg(regexp_replace(node_name, '#\d+$', '#'), ', ' ORDER BY node_name) FROM cascade_topology WHERE upstream_name = 'i' AND %s};
my $there = sprintf($names, q{state = 'streaming'});
my $away = sprintf($names, q{state <> 'streaming'});
my $critical = q{SELECT count(*) = 0 FROM cascade_check WHERE severity = 'critical'};

# ---- two of one name ----

wait_protected($i);
for my $node ($p, $i)
{
	my $name = $node->name;

	wait_for($node, $there, "$name knows both", '15/main#, 15/main#');
	is(value($node, $away), '', '... and nobody else');
}
for my $round (1 .. 2)
{
	for my $node ($a, $b)
	{
		my $name = $node->name;

		$node->stop;
		wait_for($_, $there, "$round: without $name, the other one is there under the name alone, says " . $_->name, '15/main')
		  for $i, $p;
		is(value($i, $away), '15/main#', '... and one is away');
		is(value($i, q{SELECT count(*) FROM cascade_topology}), 4, '... of two in all');
		$node->start;
		wait_for($_, $there, "$round: $name is back, says " . $_->name, '15/main#, 15/main#') for $i, $p;
	}
}
$i->safe_psql('postgres', 'SELECT pg_terminate_backend(worker_pid) FROM cascade_status');
wait_protected($i);
look_around($i);
for my $node ($i, $p)
{
	my $name = $node->name;

	is(value($node, $away), '', "nobody else was ever there, says $name");
	wait_for($node, $critical, '... and nothing is critical') or diag value($node, 'SELECT * FROM cascade_check');
}

# a walsender that outlives its connection, as after a cut of the network, is
# not a third node
my $left = value($i, q{SELECT pid FROM pg_stat_replication ORDER BY backend_start DESC LIMIT 1});
kill 'STOP', $left or die $!;
$b->stop;
wait_for($i, "SELECT clock_timestamp() - reply_time > interval '2.5 s' FROM pg_stat_replication WHERE pid = $left",
	'it has not been heard for longer than stale_timeout');
$b->start;
wait_for($i, $there, 'b is back, and its former walsender still there', '15/main#, 15/main#, 15/main#');
kill 'CONT', $left or die $!;
wait_for($_, $there, 'that one has ended, says ' . $_->name, '15/main#, 15/main#') for $i, $p;
is(value($_, $away), '', '... and nobody is away, says ' . $_->name) for $i, $p;

# one stays away, and can be forgotten
$a->stop;
wait_for($i, $away, 'a is away', '15/main#');
wait_for($i, q{SELECT count(*) = 1 FROM cascade_check WHERE severity = 'critical' AND code = 'unprotected' AND node_name ~ '^15/main#'},
	'... which is critical, because nothing holds its WAL');
$i->safe_psql('postgres', q{SELECT cascade_forget(node_name) FROM cascade_topology WHERE upstream_name = 'i' AND state = 'down'});
wait_for($_, q{SELECT count(*) = 3 FROM cascade_topology}, 'after cascade_forget only b is left, says ' . $_->name) for $i, $p;
$b->stop;
wait_for($i, $away, 'b is away', '15/main');
$i->safe_psql('postgres', q{SELECT cascade_forget('15/main')});
wait_for($_, q{SELECT count(*) = 2 FROM cascade_topology}, '... and then nobody, says ' . $_->name) for $i, $p;

# ---- streams from one, reports to another ----

my $to_p = $p->connstr =~ s/'/''/gr;
my $at_i = $i->connstr =~ s/'/''/gr;
set_conf($i, "cascade_relay.advertised_conninfo = '$at_i'\n");
my $l = new_standby('l', $i, conf => $conf . "cascade_relay.upstream_conninfo = '$to_p'\ncascade_relay.advertised_conninfo = '$at_i'\n");

wait_connected($l);
is(value($l, 'SELECT upstream_name FROM cascade_status'), 'p', 'l reports to p');
for my $node ($p, $i, $l)
{
	my $name = $node->name;

	wait_for($node, q{SELECT string_agg(upstream_name || ' ' || managed || ' ' || state, ', ') FROM cascade_topology WHERE node_name = 'l'},
		"$name draws l once, where it streams from", 'i true streaming') or diag value($node, 'SELECT * FROM cascade_tree()');
	wait_for($node, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'reports_elsewhere' AND severity = 'warning' AND node_name = 'l'
		AND message ~ '"i"' AND message ~ '"p"' AND hint ~ 'cascade_relay.upstream_conninfo'}, '... and says which setting is wrong')
	  or diag value($node, 'SELECT * FROM cascade_check');
	wait_for($node, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'duplicate_address' AND severity = 'warning'
		AND message ~ '"i"' AND message ~ '"l"' AND hint ~ 'cascade_relay.advertised_conninfo'}, '... and that i and l have one address')
	  or diag value($node, 'SELECT * FROM cascade_check');
}
wait_for($l, 'SELECT protected FROM cascade_status', 'p holds what l needs all the same');
set_conf($l, "cascade_relay.upstream_conninfo = ''\ncascade_relay.advertised_conninfo = ''\n");
wait_for($l, q{SELECT upstream_name = 'i' AND upstream_state = 'connected' FROM cascade_status}, 'then l reports to i');
for my $node ($p, $i, $l)
{
	wait_for($node, q{SELECT count(*) = 0 FROM cascade_check WHERE code IN ('reports_elsewhere', 'duplicate_address')},
		'the findings are gone, says ' . $node->name) or diag value($node, 'SELECT * FROM cascade_check');
	wait_for($node, q{SELECT string_agg(upstream_name || ' ' || managed, ', ') FROM cascade_topology WHERE node_name = 'l'}, 'and l is where it was', 'i true');
}

done_testing();
