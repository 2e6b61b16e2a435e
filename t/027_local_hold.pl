# A failover candidate holds WAL, too: the root dies, and then the intermediate.
#
#	p ─┬─ s			synchronous, so it will be the next primary
#	   └─ i ── l		l stops, and lags
#
# p holds what l needs, and s the same on itself, although nobody streams from
# it: it moves with the tree's minimum, and only forward.  p dies with all its
# data.  s is promoted, i attaches to it:
#
#	s ─┬─ i		l is still away, and only s and i have what it needs
#
# Then i dies as well, and l attaches to s and finds every row.  When p is
# forgotten, nothing is left of the past, and the WAL goes.
#
#	p ─┬─ r			the same, but r is set to be a read_replica
#	   └─ i ── l
#
# r holds nothing, and l is lost.
#
#	p ─┬─ a			both voting by their setting
#	   ├─ b
#	   └─ l			away
#
# a and b hold what l needs.  a gets another name, a bound, is no candidate for a
# while, and has no slot to spare.  Then it is promoted while p is stopped.  b
# attaches to it, and goes on holding what l needs, because a does.  p comes back
# as its standby, and l: then a has nothing left of its time as a standby.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my %quick = (conf => "cascade_relay.stale_timeout = 2s\n");

# The segment of an LSN is there, on whatever timeline.
sub has_wal
{
	my ($node, $lsn) = @_;
	my $segment = substr(segment_of($lsn), 8);

	return scalar grep { substr($_, 8) eq $segment } wal_files($node);
}

# A node removes what was needed, as soon as it may, while those, the primary
# first, write and remove.
sub removed
{
	my ($lsn, $node, @nodes) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last unless has_wal($node, $lsn);
		usleep(100_000);
		remove_wal(1, @nodes);
	}
	ok(!has_wal($node, $lsn), $node->name . " has removed $lsn");
	return;
}

# A node streams from there from now on, by ALTER SYSTEM as a DBA does it.
sub repoint
{
	my ($node, $upstream) = @_;
	my $conninfo = $upstream->connstr . ' application_name=' . $node->name;

	value($node, "ALTER SYSTEM SET primary_conninfo = '" . ($conninfo =~ s/'/''/gr) . "'");
	value($node, 'SELECT pg_reload_conf()');
	return;
}

# The machine is gone, and its disk too.
sub lose_node
{
	my ($node) = @_;

	kill_node($node);
	rename $node->data_dir, $node->data_dir . '_lost' or die $!;
	return;
}

# p, its synchronous standby, and a chain beside it.
sub build
{
	my ($p, $s, $i_name, $l_name) = @_;
	my $i = new_standby($i_name, $p, %quick);
	my $l = new_standby($l_name, $i, %quick);

	set_conf($p, "synchronous_standby_names = '" . $s->name . "'");
	add_rows($p, 2);
	same_rows($p, $s, $i, $l);
	wait_protected($s, $i, $l);
	checkpoint_all($p, $l, $i, $s);
	return ($i, $l);
}

# ---- the root dies, and then the intermediate ----

my $p = new_primary('p', %quick);
my $s = new_standby('s', $p, %quick);
my ($i, $l) = build($p, $s, 'i', 'l');

wait_for($s, "SELECT reason FROM cascade_holds WHERE name = 's' AND NOT counted", 's has a hold on itself', "the node's own hold");
like($s->safe_psql('postgres', 'SELECT slot_name FROM cascade_holds'), qr/^cascade_relay_s_[0-9a-f]{8}$/, 'named after itself');
$l->stop;
my $need = value($i, "SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'l'");
add_rows($p, 3);
wait_for($p, "SELECT pinned_by FROM cascade_status", 'l pins p', 'l');
wait_for($s, "SELECT restart_lsn >= '" . hold_lsn($i, 'l') . "'::pg_lsn - 1024 * 1024 FROM cascade_holds", 's holds where the tree needs it');
remove_wal(4, $p, $i, $s);
my $held = hold_lsn($s, 's');
ok(lsn_le($s, $held, $need), 's holds what l needs');
ok(has_wal($s, $need), 'and has it');
wait_for($s, 'SELECT pinned_by, frontier_lsn = replay_lsn FROM cascade_status', 'it does not count there', 's|t');
is(value($p, "SELECT frontier_lsn > '$need' FROM cascade_topology WHERE node_name = 's'"), 't', 'nor for p');
is(value($_, "SELECT count(*) FROM cascade_check WHERE level > 0 AND node_name = 's'"), '0', 'all is well with s, says ' . $_->name)
  for $p, $s;

# it survives a crash where it stood, and is nobody else's
$s->stop('immediate');
$s->start;
wait_connected($s);
wait_for($s, "SELECT reason, restart_lsn <= '$held' FROM cascade_holds", 'it is there after a crash', "the node's own hold|t");
is(value($s, "SELECT count(*) FROM cascade_topology WHERE node_name = 's'"), '1', 's does not see itself below itself');
wait_for($s, "SELECT count(*) FROM cascade_topology", 's knows the tree again', '4');

add_rows($p, 1);
wait_caught_up($p, $s, $i);
lose_node($p);
remove_wal_without_root($s, $i);
$s->promote;
value($s, "ALTER SYSTEM SET synchronous_standby_names = ''");
value($s, 'SELECT pg_reload_conf()');
add_rows($s, 2);
my $held_at = hold_lsn($s, 's');
ok(lsn_le($s, $held_at, $need), 'the hold stays where it was');
wait_for($s, "SELECT severity, hint ~ 'cascade_forget' FROM cascade_check WHERE code = 'orphan_slot' AND message ~ '\"i\" and 2 more'",
	's says whom it waits for', 'warning|t');

# restartpoints while there is no root
sub remove_wal_without_root
{
	$_->safe_psql('postgres', 'CHECKPOINT') for @_;
	return;
}

is(value($s, "SELECT (pg_create_physical_replication_slot('i', true)).slot_name"), 'i', 'a slot for i');
repoint($i, $s);
same_rows($s, $i);
wait_for($s, "SELECT pinned_by FROM cascade_holds WHERE name = 'i'", 's hears of l from i', 'l');
remove_wal(4, $s, $i);
ok(has_wal($s, $need), 's has what l needs, still');
lose_node($i);
remove_wal(2, $s);
ok(has_wal($s, $need), 'and now only s has it');

slot_from_hold($s, 's', 'l');
point_at($l, $s);
$l->start;
same_rows($s, $l);
wait_protected($l);

# ---- nothing is left of the past, when the past is forgotten ----

wait_for($s, "SELECT severity, node_name FROM cascade_check WHERE code = 'orphan_slot' AND message ~ 'since this node was promoted'",
	's waits for p', 'warning|s');
my $command = value($s, "SELECT substring(hint from 'SELECT .*;') FROM cascade_check WHERE code = 'orphan_slot' AND message ~ 'since this node was promoted'");
is(value($s, $command), '{}', 'somebody knows that p will not come back');
value($s, "SELECT pg_drop_replication_slot(slot_name) FROM cascade_downstreams WHERE name = 'i' AND slot_name IS NOT NULL");
removed($need, $s, $s, $l);
same_rows($s, $l);
is(value($s, "SELECT count(*) FROM cascade_holds WHERE name = 's'"), '0', 'a primary places no hold on itself');
$_->stop('immediate') for $s, $l;

# ---- the control: without it the leaf is lost ----

$p = new_primary('p2', %quick);
my $r = new_standby('r', $p, conf => "cascade_relay.stale_timeout = 2s\ncascade_relay.replica_class = read_replica\n");
($i, $l) = build($p, $r, 'i2', 'l2');
$l->stop;
$need = value($i, "SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'l2'");
add_rows($p, 3);
remove_wal(4, $p, $i, $r);
is(holds($r), '', 'a read_replica holds nothing on itself, synchronous or not');
ok(has_wal($p, $need), 'p has what l needs');
ok(!has_wal($r, $need), 'r has not');
lose_node($p);
$r->promote;
add_rows($r, 1);
lose_node($i);
value($r, "SELECT pg_create_physical_replication_slot('l2', true)");
point_at($l, $r);
my $log = -s $l->logfile;
$l->start;
ok($l->wait_for_log(qr/requested WAL segment \w+ has already been removed/, $log), 'l is lost');
$_->stop('immediate') for $r, $l;

# ---- two candidates ----

my %voting = (conf => "cascade_relay.stale_timeout = 2s\ncascade_relay.replica_class = voting\n");
$p = new_primary('p3', %quick);
my $a = new_standby('a', $p, %voting);
my $b = new_standby('b', $p, %voting);
$l = new_standby('l3', $p, %quick);
add_rows($p, 2);
same_rows($p, $a, $b, $l);
wait_protected($a, $b, $l);
checkpoint_all($p, $l, $a, $b);
wait_for($_, "SELECT count(*) FROM cascade_holds WHERE restart_lsn >= '" . value($l, 'SELECT redo_lsn FROM pg_control_checkpoint()') . "'::pg_lsn - 1024 * 1024",
	$_->name . ' holds where the tree is', '1') for $a, $b;
$l->stop;
$need = value($p, "SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'l3'");
add_rows($p, 3);
remove_wal(4, $p, $a, $b);
for my $node ($a, $b)
{
	ok(lsn_le($node, hold_lsn($node, $node->name), $need), $node->name . ' holds what l needs');
	ok(has_wal($node, $need), 'and has it');
}

# another name: the local hold of its former life covers the new one, and goes with
# the command that is printed
my $former = value($a, 'SELECT slot_name FROM cascade_holds');
$a->append_conf('postgresql.conf', "cascade_relay.node_name = 'a_b'\n");
$a->restart;
wait_for($a, "SELECT restart_lsn <= '$need' FROM cascade_holds WHERE name = 'a_b'", 'under another name a holds as low', 't');
is(value($a, "SELECT counted, reason FROM cascade_holds WHERE slot_name = '$former'"), "f|the node's own hold", 'what it held under its former name does not count');
is(value($a, q{SELECT hint FROM cascade_check WHERE code = 'former_life' AND message ~ '^local hold'}), "It is not needed any more: SELECT public.cascade_forget('$former');", 'and is listed, with the command');
value($a, "SELECT cascade_forget('$former')");
is(value($a, q{SELECT string_agg(name, ' ') FROM cascade_holds}), 'a_b', 'which lets go of it');
wait_for($p, "SELECT state FROM cascade_topology WHERE node_name = 'a_b'", 'p knows it by that name', 'streaming');
wait_protected($a);
value($p, q{SELECT cascade_forget(slot_name, true) FROM cascade_holds WHERE name = 'a'});

# what it holds is bounded like every hold
set_conf($b, "cascade_relay.max_hold_size = 2MB\n");
wait_for($b, "SELECT restart_lsn >= pg_last_wal_replay_lsn() - 2 * 1024 * 1024 FROM cascade_holds", 'a bound moves the hold of b');
removed($need, $b, $p, $a, $b);
set_conf($b, "cascade_relay.max_hold_size = -1\n");

# a candidate no more, and once more
set_conf($b, "cascade_relay.replica_class = read_replica\n");
wait_for($b, 'SELECT count(*) FROM cascade_holds', 'b is no candidate by its setting, and holds nothing', '0');

# with a folder in the way of its hold it says so once, however long that lasts
my $in_the_way = $b->data_dir . '/pg_replslot/cascade_relay_b_' . incarnation($b);
mkdir $in_the_way or die $!;
append_to_file("$in_the_way/something", 'there');
$log = -s $b->logfile;
set_conf($b, "cascade_relay.replica_class = voting\n");
ok($b->wait_for_log(qr/could not rename \S+ "pg_replslot\/cascade_relay_b_/, $log), 'b cannot make its hold');
for (1 .. 10)
{
	write_segments($p, 1);
	wait_caught_up($p, $b);
	look_around($b);
}
is(() = slurp_file($b->logfile, $log) =~ /could not rename \S+ "pg_replslot\/cascade_relay_b_/g, 1, 'which it says once');
unlink "$in_the_way/something" or die $!;
rmdir $in_the_way or die $!;
wait_for($b, 'SELECT count(*) FROM cascade_holds', 'when it can, it does', '1');
set_conf($b, "cascade_relay.replica_class = read_replica\n");
wait_for($b, 'SELECT count(*) FROM cascade_holds', 'and once more it is no candidate', '0');
$b->append_conf('postgresql.conf', "cascade_relay.replica_class = voting\nmax_replication_slots = 1\n");
$log = -s $b->logfile;
$b->restart;
wait_connected($b);
ok($b->wait_for_log(qr/there is no replication slot to spare for hold "cascade_relay_b_/, $log), 'b says that it has no slot to spare');
is(holds($b), '', 'the last free slot is not taken');
$b->append_conf('postgresql.conf', "max_replication_slots = 10\n");
$b->restart;
wait_for($b, 'SELECT count(*) FROM cascade_holds', 'b holds again', '1');

# ---- a switchover, and all come back ----

add_rows($p, 1);
wait_caught_up($p, $a, $b);
$p->stop;
$a->promote;
add_rows($a, 2);
value($a, "SELECT pg_create_physical_replication_slot('b', true)");
repoint($b, $a);
same_rows($a, $b);
wait_protected($b);
my $b_held = value($b, 'SELECT restart_lsn FROM cascade_holds');
add_rows($a, 3);
remove_wal(3, $a, $b);
wait_for($a, "SELECT hold_target_lsn - 1024 * 1024 > '$b_held'::pg_lsn FROM cascade_status", 'what a and b need has moved on');
my $reports = value($b, 'SELECT reports_sent FROM cascade_status');
wait_for($b, "SELECT reports_sent > $reports + 5 FROM cascade_status", 'and b has been told so');
is(value($b, 'SELECT restart_lsn FROM cascade_holds'), $b_held, 'b goes on holding where it did, because a waits for the others');
ok(has_wal($a, $need), 'a has what l needs');

$p->set_standby_mode;
value($a, "SELECT pg_create_physical_replication_slot('p3', true)");
$p->append_conf('postgresql.conf', "primary_slot_name = 'p3'");
point_at($p, $a);
$p->start;
same_rows($a, $p);
is(value($a, "SELECT count(*) FROM cascade_holds WHERE name = 'a_b'"), '1', 'a waits for l alone');
slot_from_hold($a, 'a_b', 'l3');
point_at($l, $a);
$log = -s $a->logfile;
$l->start;
same_rows($a, $l);
ok($a->wait_for_log(qr/dropped hold "cascade_relay_a_b_\w+", because every node that was known before the promotion is protected here/, 0),
	'a says that all are back');
is(value($a, "SELECT count(*) FROM cascade_holds WHERE name = 'a_b'"), '0', 'its own hold is gone');
wait_protected($b, $l, $p);

# what p kept for the others is of the past
value($p, 'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active');
removed($need, $_, $a, $b, $l, $p) for $a, $b, $l, $p;
same_rows($a, $b, $l, $p);

# ---- and who never comes back is not waited for for ever ----

wait_for($b, "SELECT count(*) FROM cascade_holds WHERE name = 'b'", 'b holds for all of them', '1');
$_->stop for $l, $p;
wait_for($b, q{SELECT count(*) FROM cascade_topology WHERE node_name IN ('l3', 'p3') AND state = 'down'}, 'b knows who is away', '2');
$a->stop;
set_conf($b, 'cascade_relay.hold_timeout = 3s');
$b->promote;
ok($b->wait_for_log(qr/dropped hold "cascade_relay_b_\w+", because "cascade_relay.hold_timeout" has passed since this node was promoted/), 'b gives them up when hold_timeout is over');
is(value($b, "SELECT count(*) FROM cascade_holds WHERE name = 'b'"), '0', 'and its hold is gone');
done_testing();
