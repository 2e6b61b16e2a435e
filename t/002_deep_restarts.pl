# Everything above a leaf restarts, in any order, and its WAL is there.
#
#	p ── a ── b ── c
#
# First a restart of a alone, a clean one, while its hold for b has moved since
# a last saved its slots: the hold is found where it stood.
#
# Then c stops.  b and a are killed.  p crashes, writes and checkpoints with
# nobody below it, and is restarted cleanly: until a has called again p goes by
# the hold that survived.  a comes back, then b: until b has called, and c never
# does, each goes by its own holds.  They restart cleanly, run for a while, and
# go again, for good.  c comes up to p and has every row.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p');
add_rows($p, 2);
my $a = new_standby('a', $p);
my $b = new_standby('b', $a);
my $c = new_standby('c', $b);

wait_connected($a, $b, $c);
checkpoint_all($p, $a, $b, $c);
wait_protected($a, $b, $c);

# ---- a clean restart of a standby ----

# Last of all a does its restartpoint, with the slots as they are; only then b
# and c do theirs, which lets the hold for b go on.  At a's shutdown there is no
# restartpoint to be done, so the server itself saves nothing.
#
# A standby that was asked for a restartpoint and had nothing to do tries again
# by itself after 15 s.  Where that comes between, the next round is quiet.
my $before;
my $still;
for (1 .. 5)
{
	add_rows($p, 3);
	$p->safe_psql('postgres', 'CHECKPOINT');
	wait_caught_up($p, $a, $b, $c);
	$before = hold_lsn($a, 'b');
	$a->safe_psql('postgres', 'CHECKPOINT');
	$still = hold_lsn($a, 'b');
	last if $still eq $before;
}
is($still, $before, 'the hold for b is where it was when a saved its slots');
$_->safe_psql('postgres', 'CHECKPOINT') for ($b, $c);
wait_for($a, "SELECT restart_lsn > '$before' FROM cascade_holds WHERE name = 'b'", 'and has gone on since');
$b->stop;
my $moved = hold_lsn($a, 'b');
$a->restart;
is(hold_lsn($a, 'b'), $moved, 'after a clean restart of a it stands where it stood');
wait_connected($a);
is(value($a, "SELECT counted, reason, pinned_by FROM cascade_holds WHERE name = 'b'"),
	't|managed, by its hold until it calls|b', 'and counts before b has called');
ok(lsn_le($p, hold_lsn($p, 'a'), $moved), "p's hold does not run ahead of it");
$b->start;
wait_connected($b);
wait_protected($a, $b, $c);
is(value($a, "SELECT reason FROM cascade_holds WHERE name = 'b'"), 'managed, by its last report', 'then b has called');

# ---- c stops ----

wait_for($p, 'SELECT frontier_lsn = pg_current_wal_lsn() FROM cascade_status', 'everything confirmed');
$c->stop;
wait_for($b, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'c'}, 'c is gone');
my $need = value($b, q{SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'c'});

# Whatever happens: p has what c needs, and its hold has not passed it.
sub still_held
{
	my ($when) = @_;

	ok(lsn_le($p, hold_lsn($p, 'a'), $need), "$when: the hold has not passed what c needs");
	ok(has_segment($p, $need), "$when: the segment is there");
	return;
}

# p goes by the hold alone: it is what is left of everything below.
sub goes_by_the_hold
{
	my ($when) = @_;
	my $hold = hold_lsn($p, 'a');

	wait_for($p, "SELECT frontier_lsn = '$hold' AND pinned_by = 'a' FROM cascade_status",
		"$when: the hold is p's frontier");
	is(value($p, "SELECT counted, reason FROM cascade_holds WHERE name = 'a'"),
		't|managed, by its hold until it calls', "$when: it counts without a call");
	is(value($p, q{SELECT state, managed FROM cascade_topology WHERE node_name = 'a'}),
		'down|t', "$when: a is drawn, and down");
	still_held($when);
	return;
}

add_rows($p, 5);
checkpoint_all($p, $a, $b);
checkpoint_all($p, $a, $b);
wait_for($p, "SELECT frontier_lsn = '$need' AND pinned_by = 'c' FROM cascade_status", 'c pins the root');
still_held('c stopped');

# ---- everything between is killed, and the root restarts ----

kill_node($b);
kill_node($a);
wait_for($p, 'SELECT count(*) = 0 FROM pg_stat_replication', 'nobody streams from p');
add_rows($p, 3);
$p->safe_psql('postgres', 'CHECKPOINT; CHECKPOINT');
wait_for($p, "SELECT frontier_lsn = '$need' AND pinned_by = 'c' FROM cascade_status", 'c still pins it');
still_held('a and b killed');
my $hold = hold_lsn($p, 'a');

$p->stop('immediate');
$p->start;
is(hold_lsn($p, 'a'), $hold, 'the crash has cost the hold nothing');
goes_by_the_hold('after a crash of p');
add_rows($p, 10);
$p->safe_psql('postgres', 'CHECKPOINT; CHECKPOINT');
is(oldest_wal($p), segment_of($hold), 'p removes what is older than the hold, and nothing else');
is( value(
		$p,
		"SELECT slot_name, restart_lsn >= '$need'::pg_lsn + 4 * 1024 * 1024 FROM pg_replication_slots WHERE slot_name NOT LIKE 'cascade_relay_%'"
	),
	'a|t',
	'no other slot would have kept it');
goes_by_the_hold('crashed, written and checkpointed');

$p->restart;
is(hold_lsn($p, 'a'), $hold, 'nor has the clean restart');
goes_by_the_hold('after a clean restart of p');
add_rows($p, 3);
$p->safe_psql('postgres', 'CHECKPOINT; CHECKPOINT');
goes_by_the_hold('restarted, written and checkpointed');

# ---- a comes back, and then b ----

start_after_kill($a);
wait_connected($a);
wait_caught_up($p, $a);
checkpoint_all($p, $a);
checkpoint_all($p, $a);
is(value($a, "SELECT counted, reason FROM cascade_holds WHERE name = 'b'"),
	't|managed, by its hold until it calls', 'a goes by its hold for b');
wait_for($p, "SELECT frontier_lsn <= '$need' AND pinned_by = 'b' FROM cascade_status", 'p knows no more than that b pins');
still_held('a is back');
ok(has_segment($a, $need), 'a has the segment too');

start_after_kill($b);
wait_connected($b);
wait_caught_up($p, $b);
checkpoint_all($p, $a, $b);
checkpoint_all($p, $a, $b);
is(value($b, "SELECT counted, reason FROM cascade_holds WHERE name = 'c'"),
	't|managed, by its hold until it calls', 'b goes by its hold for c');
for my $node ($p, $a, $b)
{
	wait_for($node, "SELECT frontier_lsn <= '$need' AND pinned_by = 'c' FROM cascade_status",
		'c pins ' . $node->name . ' again');
	ok(has_segment($node, $need), 'and ' . $node->name . ' has the segment');
}
still_held('b is back');
wait_for($p, q{SELECT path = '{p,a,b,c}' AND state = 'down' FROM cascade_topology WHERE node_name = 'c'}, 'c is drawn again, and down');

# Clean restarts now, the lower one first and then the upper one first.
$b->restart;
$a->restart;
wait_connected($a, $b);
add_rows($p, 2);
checkpoint_all($p, $a, $b);
$a->restart;
$b->restart;
wait_connected($a, $b);
add_rows($p, 2);
checkpoint_all($p, $a, $b);
wait_for($p, "SELECT frontier_lsn <= '$need' AND pinned_by = 'c' FROM cascade_status", 'c pins p after clean restarts of both');
still_held('a and b restarted');

# ---- and go again ----

kill_node($a);
kill_node($b);
wait_for($p, 'SELECT count(*) = 0 FROM pg_stat_replication', 'nobody streams from p again');
add_rows($p, 3);
$p->safe_psql('postgres', 'CHECKPOINT; CHECKPOINT');
still_held('a and b gone for good');

reattach($p, 'a', $c);
wait_connected($c);
wait_protected($c);

done_testing();
