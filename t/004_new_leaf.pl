# A leaf that is new, or further behind than anybody that was counted.
#
#	p ── i ── n      cloned from i while i's hold on p is a fresh one
#	p ── i ── k      cloned from i once the hold stands at i's redo
#	p ─┬─ i          m: cloned from i, too, but starts below p
#	   └─ m
#	p ── i ─┬─ n     goes away, and is held for
#	        └─ j     joins below i, further behind than that
#
# A fresh hold begins at the redo pointer of p.  While i's own lies behind it, a
# clone of i needs WAL that p does not hold: it says that it is not protected,
# and is once it has caught up.  From i's next restartpoint on the hold stands
# at or below i's redo, and a clone is protected from its start: k never says
# otherwise, and m, whose very first WAL comes from p, finds it all.
#
# Then j comes, for whom i keeps WAL and p does not, while a long checkpoint
# runs on p.  To move the hold back for it would make that checkpoint remove what
# the hold protects (on 15 and 17), and no other slot covers the move: so the
# hold stays, j says that it is not protected until it has caught up, and n finds
# every row on p.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $delayed = "recovery_min_apply_delay = '1h'\n";

sub set_and_reload
{
	my ($node, $line) = @_;

	$node->append_conf('postgresql.conf', $line);
	$node->reload;
	return;
}

# Every verdict that a node gives from now on until the expected one: NULL, as
# long as it has not heard of the root, else it must be the expected one.
sub first_verdict
{
	my ($node, $expected, $what) = @_;
	my @other;
	my $seen;

	for (1 .. 50 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$seen = value($node, 'SELECT protected FROM cascade_status');
		last if $seen eq $expected;
		push @other, $seen if $seen ne '';
		usleep(20_000);
	}
	is($seen, $expected, $what);
	is_deeply(\@other, [], 'and nothing else before');
	return;
}

# ---- the hold is a fresh one ----

my $p = new_primary('p', conf => "shared_buffers = 16MB\n");
add_rows($p, 2);
my $i = new_standby('i', $p, conf => "cascade_relay.enabled = off\n");
wait_caught_up($p, $i);
value($i, 'SELECT pg_wal_replay_pause()');
wait_for($i, 'SELECT pg_get_wal_replay_pause_state()', 'i replays no further', 'paused');
my $x = value($i, 'SELECT pg_last_wal_replay_lsn()');
add_rows($p, 5);
my $end = value($p, 'SELECT pg_current_wal_lsn()');
wait_for($p, "SELECT flush_lsn >= '$end' FROM pg_stat_replication", 'but receives everything');
$p->safe_psql('postgres', 'CHECKPOINT; CHECKPOINT');
is(holds($p), '', 'nobody has reported to p');

set_and_reload($i, "cascade_relay.enabled = on\n");
wait_connected($i);
my $redo = value($p, 'SELECT redo_lsn FROM pg_control_checkpoint()');
is(hold_lsn($p, 'i'), $redo, 'the first hold stands at the redo pointer of p');
ok(!lsn_le($p, $redo, $x), 'which is later than where i is');
ok(!has_segment($p, $x), 'p has nothing of before');
wait_for($i, 'SELECT NOT protected FROM cascade_status', 'i says that it is not protected');

my $n = clone_standby('n', $i, conf => $delayed);
first_verdict($n, 'f', 'n says so too, from its start');
is(value($n, "SELECT pg_last_wal_replay_lsn() <= '$redo'"), 't', 'it is where i was');
wait_connected($n);
for my $node ($p, $i)
{
	wait_for($node,
		q{SELECT count(*) = 2 AND bool_and(NOT protected AND 'unprotected' = ANY (warnings)) FROM cascade_topology WHERE node_name IN ('i', 'n')},
		$node->name . ' knows');
}

# n overtakes i, which serves WAL that it has not replayed.
set_and_reload($n, "recovery_min_apply_delay = 0\n");
wait_caught_up($p, $n);
wait_for($n, 'SELECT protected FROM cascade_status', 'having caught up, n is protected');
is(value($i, 'SELECT protected FROM cascade_status'), 'f', 'while i is not');
value($i, 'SELECT pg_wal_replay_resume()');
wait_caught_up($p, $i);
wait_protected($i, $n);
is(hold_lsn($p, 'i'), $redo, 'the hold has never moved');

# ---- the hold stands at i's redo ----

add_rows($p, 3);
checkpoint_all($p, $i, $n);
wait_for($p, "SELECT restart_lsn > '$redo' FROM cascade_holds WHERE name = 'i'", 'the hold has moved on');
ok(lsn_le($p, hold_lsn($p, 'i'), value($i, 'SELECT redo_lsn FROM pg_control_checkpoint()')),
	"and stands at or below i's redo");

my $m = clone_standby('m', $i, no_start => 1);
my $k = clone_standby('k', $i);
first_verdict($k, 't', 'k is protected from its start');

# m has not been started yet; all that i has of it is the slot.
my ($start) = slurp_file($m->data_dir . '/backup_label') =~ /^START WAL LOCATION: (\S+)/m;
add_rows($p, 5);
checkpoint_all($p, $i, $n, $k);
checkpoint_all($p, $i, $n, $k);
wait_for($p, q{SELECT pinned_by = 'm' FROM cascade_status}, 'm pins the root before it was ever started');
ok(lsn_le($p, hold_lsn($p, 'i'), $start), 'its first WAL is held');
is(oldest_wal($p), segment_of(hold_lsn($p, 'i')), 'and no more than that is kept');
slot_from_hold($p, 'i', 'm');
point_at($m, $p);
$m->start;
same_rows($p, $m);
value($i, q{SELECT pg_drop_replication_slot('m')});

# ---- somebody joins below i who is further behind ----

# For a start i does not count j, and keeps WAL for it all the same.
set_and_reload($i, "cascade_relay.ignore_slots = 'j'\n");
my $j = new_standby('j', $i, unmanaged => 1);
wait_caught_up($p, $j);
is(value($i, "SELECT counted, reason FROM cascade_downstreams WHERE name = 'j'"), 'f|matches ignore_slots', 'j does not count');
$j->stop;
my $j_needs = value($i, q{SELECT restart_lsn FROM cascade_downstreams WHERE name = 'j'});

add_rows($p, 5);
checkpoint_all($p, $i, $n, $k, $m);
wait_for($p, "SELECT restart_lsn >= '$j_needs'::pg_lsn + 4 * 1024 * 1024 FROM cascade_holds WHERE name = 'i'",
	'the hold goes on without j');
wait_for($p, 'SELECT frontier_lsn = pg_current_wal_lsn() FROM cascade_status', 'everything else confirmed');
$n->stop;
wait_for($i, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'n'}, 'n is gone');
my $n_needs = value($i, q{SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'n'});
add_rows($p, 5);
wait_caught_up($p, $i, $k, $m);
wait_for($p, "SELECT frontier_lsn = '$n_needs' AND pinned_by = 'n' FROM cascade_status", 'n pins the root');
my $hold = hold_lsn($p, 'i');
ok(lsn_le($p, $hold, $n_needs), 'and is held for');
ok(has_segment($i, $j_needs), 'what j needs is kept by i');

# The temptation: the file is there, but nothing keeps it.  The next checkpoint
# removes it, and reads when it starts how far it may go.
ok(has_segment($p, $j_needs), 'and p has not removed it yet');
is(value($p, "SELECT count(*) FROM pg_replication_slots WHERE restart_lsn < '$hold'"), '0', 'but no slot holds it there');

# A checkpoint that takes its time: it sleeps after each of many buffers, until
# somebody asks for another one at once.
value($p, 'CREATE TABLE dirty AS SELECT n, repeat(\'x\', 1000) FROM generate_series(1, 5000) n');
my $backup = IPC::Run::start(
	[ 'psql', '-XAtq', '-d', $p->connstr('postgres'), '-c', q{SELECT pg_backup_start('long', false)} ],
	'>', \my $backup_out, '2>', \my $backup_err);
my $runs = q{SELECT wait_event = 'CheckpointWriteDelay' FROM pg_stat_activity WHERE backend_type = 'checkpointer'};
wait_for($p, $runs, 'a long checkpoint runs on p');

# Every position of the hold from here on.
my @positions;
my $hold_position =
  q{SELECT restart_lsn, wal_status <> 'lost' FROM pg_replication_slots WHERE slot_name ~ '^cascade_relay_i_'};

sub watch_until
{
	my ($node, $sql, $what) = @_;
	my $seen = '';

	for (1 .. 50 * $PostgreSQL::Test::Utils::timeout_default)
	{
		push @positions, value($p, $hold_position);
		$seen = value($node, $sql);
		last if $seen eq 't';
		usleep(20_000);
	}
	is($seen, 't', $what);
	return;
}

set_and_reload($i, "cascade_relay.ignore_slots = ''\n");
watch_until($i, "SELECT frontier_lsn <= '$j_needs' AND pinned_by = 'j' FROM cascade_status", 'i counts j now');
$j->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'cascade_relay'
cascade_relay.node_name = 'j'
cascade_relay.report_interval = 200ms
$delayed});
$j->start;
first_verdict($j, 'f', 'j says that it is not protected');
watch_until($j, q{SELECT upstream_state = 'connected' FROM cascade_status}, 'j reports to i');
watch_until($p, "SELECT frontier_lsn < '$n_needs' AND pinned_by = 'j' FROM cascade_status", 'j pins the root');
watch_until($p, q{SELECT NOT protected FROM cascade_topology WHERE node_name = 'j'}, 'p knows that j is not protected');
is(value($p, q{SELECT protected FROM cascade_topology WHERE node_name = 'n'}), 't', 'and that n is');
is(value($i, 'SELECT upstream_held_lsn FROM cascade_status'), $hold, 'i is told what is held');
is(value($p, $runs), 't', 'the checkpoint still runs');

# It ends, and what was to be removed is removed.
value($p, 'CHECKPOINT');
$backup->finish;
is($backup_err, '', 'the long checkpoint has ended well');
value($p, 'CHECKPOINT');
watch_until($p, "SELECT NOT EXISTS (SELECT FROM cascade_holds WHERE restart_lsn IS DISTINCT FROM '$hold' AND name = 'i')",
	'the hold is where it was');
ok(has_segment($p, $hold), 'the WAL that it protects is there');
is(oldest_wal($p), segment_of($hold), 'and nothing older is');
is(value($j, 'SELECT protected FROM cascade_status'), 'f', 'j is as unprotected as before');
is(value($i, 'SELECT protected FROM cascade_status'), 't', 'and i is protected');

set_and_reload($j, "recovery_min_apply_delay = 0\n");
watch_until($j, 'SELECT protected FROM cascade_status', 'having caught up, j is protected');
watch_until($p, q{SELECT protected FROM cascade_topology WHERE node_name = 'j'}, 'and p knows');
watch_until($p, "SELECT frontier_lsn = '$n_needs' AND pinned_by = 'n' FROM cascade_status", 'n pins the root again');
# each wait has looked at least once; how often is a matter of the machine
cmp_ok(scalar @positions, '>=', 7, 'the hold was looked at at each step');
is_deeply([ grep { $_ ne "$hold|t" } @positions ], [], 'and was always in the same place');

kill_node($i);
wait_for($p, q{SELECT count(*) = 0 FROM pg_stat_replication WHERE application_name = 'i'}, 'i is gone');
slot_from_hold($p, 'i', $_->name) for ($n, $j);
point_at($_, $p) for ($n, $j);
$n->start;
$j->reload;
same_rows($p, $n, $j);
ok(!$_->log_contains(qr/has already been removed/), $_->name . ' has missed nothing') for ($n, $j);

done_testing();
