# The scenes that people build, and the tree that every node of them shows.
#
# A master with two synchronous slaves, and slaves of the first:
#
#	master ─┬─ s1 ─┬─ c1		later also c3
#	        │      └─ c2
#	        └─ s2
#
# All five show the same five rows.  Then c1, c2 and c3 fall behind one after
# another: at the master they are one hold, and the slowest sets it, until it is
# released, or back.  c2 stops replaying: it serves a bookmark exactly up to
# what it has replayed.
#
# Three levels, declared under one another before there is anything above them:
#
#	p ── a ── b ── c		started from c upward
#
# Each waits for its upstream below "unknown", and the tree grows at its top.
# Then p is gone for good and a is promoted, with a second slave by then:
#
#	a ─┬─ b ── c
#	   └─ d
#
# All go on, the tree has a new root, and p is shown as what it was last known
# to be, not as running.  The new root keeps what b needs.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my %quick = (conf => "cascade_relay.stale_timeout = 2s\n");

# Waits until a node shows these rows, in this order, in these columns.
sub shows
{
	my ($node, $what, @rows) = @_;

	wait_for($node,
		'SELECT node_name, upstream_name, depth, path, role, replica_class, state, managed FROM cascade_topology',
		$node->name . " shows $what", join("\n", @rows))
	  or diag value($node, 'SELECT * FROM cascade_tree()');
	return;
}

# The segment of an LSN is there, on whatever timeline.
sub has_wal
{
	my ($node, $lsn) = @_;
	my $segment = substr(segment_of($lsn), 8);

	return scalar grep { substr($_, 8) eq $segment } wal_files($node);
}

# The first of those removes what that node needed, as soon as it may.
sub removed
{
	my ($needed_by, $lsn, @nodes) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last unless has_wal($nodes[0], $lsn);
		usleep(100_000);
		remove_wal(1, @nodes);
	}
	ok(!has_wal($nodes[0], $lsn), $nodes[0]->name . " has removed what $needed_by needed");
	return;
}

# A bookmark that many bytes further.
sub beyond
{
	my ($node, $bookmark, $bytes) = @_;
	my ($timeline, $lsn) = split /:/, $bookmark;

	return "$timeline:" . value($node, "SELECT '$lsn'::pg_lsn + $bytes");
}

# ---- a master with two synchronous slaves, and two slaves of the first ----

my $master = new_primary('master');
my $s1 = new_standby('s1', $master);
my $s2 = new_standby('s2', $master);
my $c1 = new_standby('c1', $s1);
my $c2 = new_standby('c2', $s1);

$master->append_conf('postgresql.conf', "synchronous_standby_names = 'FIRST 2 (s1, s2)'");
$master->reload;
add_rows($master, 2);
wait_protected($s1, $s2, $c1, $c2);
my @rows = (
	'master||0|{master}|primary||running|t',
	's1|master|1|{master,s1}|standby|voting|streaming|t',
	'c1|s1|2|{master,s1,c1}|standby|read_replica|streaming|t',
	'c2|s1|2|{master,s1,c2}|standby|read_replica|streaming|t',
	's2|master|1|{master,s2}|standby|voting|streaming|t');
shows($_, 'the five', @rows) for $master, $s1, $s2, $c1, $c2;
is(value($_, 'SELECT node_name FROM cascade_topology WHERE is_local'), $_->name, 'and knows which it is itself')
  for $master, $s1, $s2, $c1, $c2;
is(value($_, 'SELECT count(*) FROM cascade_topology WHERE refusal IS NOT NULL'), '0', 'where they stream from is right')
  for $master, $s1, $s2, $c1, $c2;

# the time that the upstream measures, while there is something to measure
for my $node ($c1, $master)
{
	my $lag = '';
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		add_rows($master, 1);
		$lag = value($node, "SELECT replay_lag BETWEEN '0' AND '1 h' FROM cascade_topology WHERE node_name = 'c1'");
		last if $lag;
		usleep(100_000);
	}
	is($lag, 't', $node->name . ' shows how long c1 takes to replay');
}

# ---- three leaves behind one are one hold, and the slowest sets it ----

my $c3 = new_standby('c3', $s1);
my $hold_of_s1 = "FROM cascade_holds WHERE name = 's1'";
my (%needs, %held);

# The hold for s1 stands where that leaf's hold on s1 does, and the frontier of
# the master where the leaf is.
sub held_for
{
	my ($leaf) = @_;

	wait_for($master, "SELECT pinned_by, restart_lsn $hold_of_s1", "$leaf sets the hold for s1", "$leaf|$held{$leaf}");
	wait_for($master, 'SELECT pinned_by, frontier_lsn FROM cascade_status',
		"$leaf sets the frontier of the master", "$leaf|$needs{$leaf}");
	ok(lsn_le($master, $held{$leaf}, $needs{$leaf}), 'which is not below the hold');
	return;
}

wait_protected($c3);
for my $leaf ($c1, $c2, $c3)
{
	my $name = $leaf->name;

	checkpoint_all($master, $leaf, $s1, $s2);
	wait_for($s1, "SELECT restart_lsn >= '" . value($leaf, 'SELECT redo_lsn FROM pg_control_checkpoint()') . "' FROM cascade_holds WHERE name = '$name'",
		"$name needs nothing older than its restartpoint");
	$leaf->stop;
	add_rows($master, 3);
	wait_for($s1, "SELECT state FROM cascade_topology WHERE node_name = '$name'", "s1 sees that $name is away", 'down');
	$needs{$name} = value($s1, "SELECT frontier_lsn FROM cascade_topology WHERE node_name = '$name'");
	$held{$name} = hold_lsn($s1, $name);
}
is(value($master, "SELECT count(*) $hold_of_s1"), '1', 'the master has one hold for s1');
is(value($master, 'SELECT count(*) FROM cascade_holds'), '2', 'and one for s2, and no others');
remove_wal(2, $master, $s1, $s2);
held_for('c1');
ok(has_wal($master, $held{c1}), 'the master has what c1 needs');
cmp_ok(segment_of($needs{$_->[0]}), 'lt', segment_of($held{$_->[1]}), "$_->[0] is behind $_->[1]")
  for [qw(c1 c2)], [qw(c2 c3)];

# a slow leaf that is released frees it
value($s1, "SELECT cascade_release('c1')");
held_for('c2');
removed('c1', $needs{c1}, $master, $s1, $s2);
ok(has_wal($master, $held{c2}), 'and has what c2 needs');

# one that is back does, too
$c2->start;
same_rows($master, $c2);
removed('c2', $needs{c2}, $master, $s1, $s2, $c2);
held_for('c3');
ok(has_wal($master, $held{c3}), 'and has what c3 needs');
$c3->start;
$c1->start;
same_rows($master, $c3, $c1);
wait_for($master, 'SELECT pinned_by, frontier_lsn = replay_lsn FROM cascade_status', 'nobody pins the master', 'master|t');

# ---- a leaf serves a bookmark exactly up to what it has replayed ----

my @others = ($master, $s1, $s2, $c1);
my $early = value($master, 'SELECT cascade_bookmark()');
wait_caught_up($master, $c2);
value($c2, 'SELECT pg_wal_replay_pause()');
wait_for($c2, 'SELECT pg_get_wal_replay_pause_state()', 'c2 does not replay', 'paused');
add_rows($master, 1);
wait_caught_up($master, $c1, $s1, $s2);
my $late = value($master, 'SELECT cascade_bookmark()');
my $replayed = value($c2, 'SELECT cascade_bookmark()');
my $next = beyond($c2, $replayed, 1);

for my $node (@others)
{
	wait_for($node, "SELECT cascade_can_serve('c1', '$late')", $node->name . ' says that c1 serves the late bookmark');
	wait_for($node,
		"SELECT cascade_can_serve('c2', '$early'), cascade_can_serve('c2', '$replayed'), cascade_can_serve('c2', '$next'), cascade_can_serve('c2', '$late')",
		$node->name . ' says that c2 serves exactly what it has replayed', 't|t|f|f');
}
wait_for($master, "SELECT string_agg(node_name, ' ' ORDER BY node_name) FROM cascade_nodes_serving('$late')",
	'c2 is not among those that serve the late one', 'c1 c3 master s1 s2');
is(value($c2, "CALL cascade_wait_for('$replayed', '0')"), 't', 'c2 has reached what it has replayed');
is(value($c2, "CALL cascade_wait_for('$next', '300ms')"), 'f', 'and not one byte more');
my $rows_of_c2 = value($c2, 'SELECT count(*) FROM kept');
value($c2, 'SELECT pg_wal_replay_resume()');
is(value($c2, "CALL cascade_wait_for('$late', '1min')"), 't', 'when it replays, it reaches the late one');
is(value($c2, 'SELECT count(*) FROM kept'), $rows_of_c2 + 1, 'and has what was behind that');
wait_for($_, "SELECT cascade_can_serve('c2', '$late')", $_->name . ' says so') for @others;
$_->stop for $c1, $c2, $c3, $master, $s1, $s2;

# ---- three levels declared under one another, from below ----

my $p = new_primary('p', %quick);
add_rows($p, 1);
$p->backup('prepared');
my ($a, $b, $c) =
  map { new_standby($_, $p, %quick, backup => 'prepared', slotless => 1, no_start => 1) } qw(a b c);
$_->append_conf('postgresql.conf', "primary_slot_name = '" . $_->name . "'") for $a, $b, $c;
point_at($b, $a);
point_at($c, $b);

$c->start;
shows($c, 'itself below nothing it knows', 'c|unknown|1|{unknown,c}|standby||archive|t');
wait_for($c, 'SELECT upstream_state, protected FROM cascade_status', 'c waits for b', 'waiting|');
is(value($c, 'SELECT replay_lag_bytes FROM cascade_topology'), '', 'and does not know how far it is behind');
$b->start;
value($b, "SELECT pg_create_physical_replication_slot('c', true)");
shows($_, 'the two below nothing they know',
	'b|unknown|1|{unknown,b}|standby||archive|t',
	'c|b|2|{unknown,b,c}|standby|read_replica|streaming|t') for $b, $c;
wait_for($b, 'SELECT upstream_state FROM cascade_status', 'b waits for a', 'waiting');
value($p, "SELECT pg_create_physical_replication_slot('a', true)");
$a->start;
value($a, "SELECT pg_create_physical_replication_slot('b', true)");
@rows = (
	'p||0|{p}|primary||running|t',
	'a|p|1|{p,a}|standby|read_replica|streaming|t',
	'b|a|2|{p,a,b}|standby|read_replica|streaming|t',
	'c|b|3|{p,a,b,c}|standby|read_replica|streaming|t');
shows($_, 'the four', @rows) for $p, $a, $b, $c;
wait_protected($a, $b, $c);
add_rows($p, 2);
same_rows($p, $a, $b, $c);

# ---- the master is gone for good, and its slave is promoted ----

my $d = new_standby('d', $a, %quick);
shows($_, 'the five', @rows, 'd|a|2|{p,a,d}|standby|read_replica|streaming|t') for $p, $a, $b, $c, $d;
add_rows($p, 1);
wait_caught_up($p, $a, $b, $c, $d);
$p->stop('immediate');
$a->promote;
add_rows($a, 3);
same_rows($a, $b, $c, $d);

@rows = (
	'a||0|{a}|primary||running|t',
	'b|a|1|{a,b}|standby|read_replica|streaming|t',
	'c|b|2|{a,b,c}|standby|read_replica|streaming|t',
	'd|a|1|{a,d}|standby|read_replica|streaming|t',
	'p||0|{p}|primary||stale|t');
shows($_, 'the new root, and the old one as last known', @rows) for $a, $b, $c, $d;
is( value($_, "SELECT replay_lag_bytes, timeline, warnings FROM cascade_topology WHERE node_name = 'p'"),
	'|1|{stale_node}', $_->name . ' does not know where the old one is') for $a, $b, $c, $d;
wait_for($_, "SELECT string_agg(DISTINCT timeline::text, ' ') FROM cascade_topology WHERE node_name <> 'p'",
	$_->name . ' shows the others on the new timeline', '2') for $a, $b, $c, $d;

# ---- the new root keeps what b needs ----

wait_protected($b, $c, $d);
checkpoint_all($a, $b, $c, $d);
$b->stop;
my $need = value($a, "SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'b'");
add_rows($a, 3);

# its hold alone: the slot of b goes
value($a, "SELECT pg_drop_replication_slot('b')");
remove_wal(3, $a, $d);
ok(has_wal($a, $need), 'the new root has what b needs');
slot_from_hold($a, 'b', 'b');
add_rows($a, 1);
$b->start;
same_rows($a, $b, $c, $d);
wait_protected($b, $c, $d);
removed('b', $need, $a, $b, $c, $d);

$_->stop for $c, $b, $d, $a;
done_testing();
