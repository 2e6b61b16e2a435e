# A node moves with all that is below it.
#
#	p ─┬─ a ─ m ─ l
#	   └─ b             m moves here
#
# l stops, and p, a hold for it.  Then m moves below b.  m itself is protected
# there at once; but b has no cover to hold what l needs, and says so.  As long
# as that is so a goes on keeping what it keeps, and p for a, whatever else
# happens: b restarts, and then asks for no more than its hold says; p removes
# what it may.  m moves back and forth between two checkpoints of p, and nothing
# changes.  m dies; l finds every row on p.
#
# When nobody is left behind, a lets go of m.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = "cascade_relay.stale_timeout = 4s\n";
my $p = new_primary('p', conf => $conf);
my $a = new_standby('a', $p, conf => $conf);
my $b = new_standby('b', $p, conf => $conf);
my $m = new_standby('m', $a, conf => $conf);
my $l = new_standby('l', $m, conf => $conf);

# What a says of the hold of m.
my $verdict = q{SELECT reason FROM cascade_downstreams WHERE kind = 'hold' AND name = 'm'};

sub move
{
	my ($to) = @_;

	point_at($m, $to);
	$m->reload;
	wait_for($m, q{SELECT upstream_name FROM cascade_status WHERE upstream_state = 'connected'}, 'm has moved to ' . $to->name, $to->name);
	wait_protected($m);
	my $then = value($p, 'SELECT clock_timestamp()');
	for my $node ($a, $b)
	{
		wait_for($node, "SELECT upstream_name = '" . $to->name . "' AND protected AND observed_at > '$then' FROM cascade_topology WHERE node_name = 'm'",
			$node->name . ' has seen that m is protected there');
		look_around($node) for 1 .. 3;
	}
	return;
}

add_rows($p, 2);
wait_protected($a, $b, $m, $l);
$l->stop;
remove_wal(5, $p, $a, $b, $m);
checkpoint_all($p, $a, $b, $m);
my $need = value($a, q{SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'l'});
ok(has_segment($p, $need) && has_segment($a, $need), 'p and a keep what l needs');
ok(!has_segment($b, $need), 'b does not');
value($b, q{SELECT pg_create_physical_replication_slot('m', true)});

# ---- there ----

move($b);
wait_for($b, $verdict, 'b counts m', 'managed, by its last report');
ok(!lsn_le($p, hold_lsn($b, 'm'), $need), 'and holds for m what it can');
is(value($a, $verdict), 'managed, by its last report', 'a has not let go: l is not held there');

$b->restart;
wait_for($b, $verdict, 'b is back', 'managed, by its last report');
remove_wal(3, $p, $a, $b, $m);
look_around($_) for ($a, $b, $p);
remove_wal(3, $p, $a, $b, $m);
ok(has_segment($p, $need), 'p keeps what l needs through all that');
ok(has_segment($a, $need), 'and so does a');

# ---- and back, and there again ----

move($a);
move($b);
remove_wal(3, $p, $a, $b, $m);
ok(has_segment($p, $need), 'p keeps it still');

# ---- the proof ----

kill_node($m);
reattach($p, 'a', $l);

# with nobody left behind, a lets go of m
start_after_kill($m);
wait_protected($m, $l);
wait_for($a, $verdict, 'a lets go of m', '');

done_testing();
