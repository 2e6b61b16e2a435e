# A node that nobody hears of loses its hold in the end, and not before.
#
#	p ─┬─ i		streams through a slot all the time, and stops reporting
#	   ├─ j		has no slot: its hold is all that keeps WAL for it
#	   └─ k		reports all the time
#
# p has a hold_timeout of some seconds.  While p takes no reports, while its
# worker is stopped by a signal, and across a restart of p, nobody is released
# early.  j goes: that is said at half time and at the end, its hold is let go
# of, and WAL that only it kept is removed, then and later; k is not touched.  i
# does not report: its hold is released, although it streams; it reports again,
# and is protected again.  j is built anew.  f, which exists only as messages and
# has no hold, counts no longer than a node that has one.  In a burst that neither
# i nor the worker of p sees, the server itself gives up the hold of i, which is
# placed again.  18 also gives up what nobody has touched for long: the hold of a
# node that reports is not that, and j's is placed again when it is back.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $p = new_primary('p', conf => "cascade_relay.stale_timeout = 800ms\n");
my $i = new_standby('i', $p);
my $j = new_standby('j', $p, slotless => 1);
my $k = new_standby('k', $p);
wait_connected($i, $j, $k);
checkpoint_all($p, $i, $j, $k);
wait_protected($i, $j, $k);

sub set
{
	my ($node, $name, $value) = @_;

	$node->append_conf('postgresql.conf', "$name = $value");
	$node->reload;
	wait_for($node, "SHOW $name", "$name is $value", $value);
	return;
}

sub findings
{
	return value($p,
		q{SELECT coalesce(string_agg(severity || ' ' || node_name, ', ' ORDER BY node_name), 'none') FROM cascade_check WHERE code = 'hold_timeout'});
}

# Waits for a finding about a node, or for none, and fails with what is said.
sub found
{
	my ($expected, $what) = @_;

	wait_for($p, q{SELECT coalesce(string_agg(severity || ' ' || node_name, ', ' ORDER BY node_name), 'none') FROM cascade_check WHERE code = 'hold_timeout'},
		$what, $expected);
	return;
}

sub released
{
	my ($name, $from) = @_;

	return slurp_file($p->logfile, $from) =~ /released hold "cascade_relay_${name}_[0-9a-f]{8}", because node "$name" has not reported for \d+ s/;
}

# Time that must pass without anything coming of it.
sub let_pass
{
	my ($seconds) = @_;
	my $until = time + $seconds;

	usleep(100_000) while time < $until;
	return;
}

my $log = -s $p->logfile;
my $timeout = at_most(3);
set($p, 'cascade_relay.hold_timeout', "${timeout}s");
is(findings(), 'none', 'nobody is silent');

# ---- who does not listen hears nothing ----

set($p, 'cascade_relay.enabled', 'off');
let_pass($timeout + 1);
is(findings(), 'none', 'while p takes no reports, nobody counts as silent');
# they come back after a while, which is silence
set($p, 'cascade_relay.hold_timeout', '10min');
set($p, 'cascade_relay.enabled', 'on');
wait_connected($i, $j, $k);

$timeout = at_most(6);
set($p, 'cascade_relay.hold_timeout', "${timeout}s");
my $hold = hold_lsn($p, 'j');
my $worker = value($p, 'SELECT worker_pid FROM cascade_status');
kill 'STOP', $worker;
$j->stop;
let_pass($timeout + 1);
kill 'CONT', $worker;
look_around($p);
ok(!released('j', $log), 'nor while its worker sleeps');

# ---- across a restart ----

found('warning j', 'j has been silent for half the time');
is( value($p, q{SELECT message ~ '^node "j" has not reported for \d+ s; in another \d+ s its hold is released$' AND hint ~ 'hold_timeout'
		FROM cascade_check WHERE code = 'hold_timeout'}),
	't', 'in words');
$p->append_conf('postgresql.conf', 'cascade_relay.hold_timeout = 0');
my $started = time;
$p->restart;
add_rows($p, 6);
checkpoint_all($p, $i, $k);
is(hold_lsn($p, 'j'), $hold, 'the hold of j stays');
ok(has_segment($p, $hold), 'and keeps WAL');

# ---- j is silent ----

set($p, 'cascade_relay.hold_timeout', '4s');
found('critical j', 'j has been silent for all of the time');
cmp_ok(time - $started, '>=', 4, 'since p was started, which was not before');
ok(released('j', $log), 'the log says so');
is(value($p, q{SELECT counted, reason FROM cascade_holds WHERE name = 'j'}), 'f|released', 'it does not count any more');
checkpoint_all($p, $i, $k);
ok(!has_segment($p, $hold), 'WAL that it kept is gone');
my $segment;
for my $round (1 .. 2)
{
	$segment = value($p, 'SELECT pg_current_wal_flush_lsn()');
	add_rows($p, 2);
	checkpoint_all($p, $i, $k);
	wait_for($p,
		q{SELECT bool_and(pg_walfile_name(restart_lsn + 1) >= redo_wal_file) FROM cascade_holds, pg_control_checkpoint()},
		'its hold follows the redo position, as the others do theirs');
	checkpoint_all($p, $i, $k);
	ok(!has_segment($p, $segment), "so that WAL goes on being removed, round $round");
}
wait_protected($i, $k);
is(findings(), 'critical j', 'nobody else is silent');

# ---- i streams, and says nothing ----

$log = -s $p->logfile;
set($i, 'cascade_relay.enabled', 'off');
found('critical i, critical j', 'i has been silent for all of the time');
ok(released('i', $log), 'the log says so');
is(value($p, q{SELECT state FROM cascade_topology WHERE node_name = 'i'}), 'streaming', 'it streams all the same');
set($i, 'cascade_relay.enabled', 'on');
found('critical j', 'i reports again');
add_rows($p, 1);
wait_caught_up($p, $i);
checkpoint_all($p, $i, $k);
wait_protected($i);
wait_for($p, q{SELECT counted AND reason = 'managed, by its last report' FROM cascade_holds WHERE name = 'i'}, 'and counts again');
same_rows($p, $i, $k);

# ---- j comes back ----

# what it lacks is not here any more, so it takes a clone
my $incarnation = value($p, q{SELECT right(slot_name, 8) FROM cascade_holds WHERE name = 'j'});
value($p, qq{SELECT pg_drop_replication_slot('cascade_relay_j_$incarnation')});
found('none', 'without its slots nobody waits for it');
my $j2 = PostgreSQL::Test::Cluster->new('j2');
$p->backup('for_j2');
$j2->init_from_backup($p, 'for_j2', has_streaming => 1);
$j2->append_conf('postgresql.conf', "cascade_relay.node_name = 'j'");
point_at($j2, $p);
$j2->start;
wait_protected($j2);
is(findings(), 'none', 'j lives again');
same_rows($p, $j2);

# ---- a node without a hold is silent ----

# f reports what it needs, but nothing to hold: it counts by its report alone.
my %f = (node_name => 'f', incarnation => 0xf, system_identifier => value($p, 'SELECT system_identifier FROM pg_control_system()'));
my $f_need = value($p, 'SELECT pg_current_wal_flush_lsn()');
my $f_reports = join('; ', map { 'SELECT ' . report_sql($_) } encode_hello(%f), encode_report(of => 0xf, pinned_by => 'f', frontier_lsn => $f_need));

write_segments($p, 2);
set($p, 'cascade_relay.hold_timeout', '0');
for my $round (1 .. 2)
{
	$log = -s $p->logfile;
	value($p, $f_reports);
	wait_for($p, q{SELECT pinned_by || ' ' || frontier_lsn FROM cascade_status}, "f pins p, round $round", "f $f_need");
	is(value($p, q{SELECT counted, reason, slot_name FROM cascade_downstreams WHERE name = 'f'}), 't|managed, by its last report|', 'without a hold');
	set($p, 'cascade_relay.hold_timeout', '2s');
	wait_for($p, q{SELECT pinned_by FROM cascade_status}, 'until it has been silent for all of the time', 'p');
	is(value($p, q{SELECT counted, reason FROM cascade_downstreams WHERE name = 'f'}), 'f|released', 'then it does not count any more');
	like(slurp_file($p->logfile, $log), qr/node "f" does not count any more, because it has not reported for \d+ s/, 'which the log says');
	set($p, 'cascade_relay.hold_timeout', '0');
	look_around($p);
	isnt(value($p, q{SELECT pinned_by FROM cascade_status}), 'f', 'and not because nobody is asked any more');
}
value($p, q{SELECT cascade_forget('f', true)});

# ---- a burst that nobody looks at ----

# The server gives up a slot at max_slot_wal_keep_size.  The bound of holds keeps
# clear of that, unless neither i nor the worker of p moves its hold in time.
set($p, 'cascade_relay.hold_timeout', '0');
set($p, 'max_slot_wal_keep_size', '4MB');
$log = -s $p->logfile;
my @workers = map { value($_, 'SELECT worker_pid FROM cascade_status') } ($i, $p);
kill 'STOP', @workers;
for (1 .. 4)
{
	# i streams meanwhile, so that nothing is lost for it
	write_segments($p, 3);
	wait_caught_up($p, $i);
}
$p->safe_psql('postgres', 'CHECKPOINT');
is(value($p, q{SELECT wal_status FROM cascade_holds WHERE name = 'i'}), 'lost', 'the server has invalidated the hold of i');
kill 'CONT', @workers;
ok($p->wait_for_log(qr/hold "cascade_relay_i_[0-9a-f]{8}" had been invalidated by the server, and was placed again at .*\n.*HINT.*max_slot_wal_keep_size/, $log),
	'it is placed again, and the log says so');
wait_for($_, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'hold_dropped' AND node_name = 'i'}, $_->name . ' says so, too') for ($p, $i);
checkpoint_all($p, $i, $k);
wait_protected($i);
same_rows($p, $i);
set($p, 'max_slot_wal_keep_size', '-1');

# ---- a server that gives up idle slots by itself ----

SKIP:
{
	skip 'this server does not give up idle slots', 1 if $p->pg_version < 18;

	set($p, 'idle_replication_slot_timeout', '1s');
	let_pass(2);
	$log = -s $p->logfile;
	$p->safe_psql('postgres', 'CHECKPOINT');
	is(value($p, q{SELECT string_agg(name, ' ' ORDER BY name) FROM cascade_holds WHERE wal_status <> 'lost'}),
		'i j k', 'holds of nodes that report are not idle');
	set($p, 'cascade_relay.enabled', 'off');
	let_pass(2);
	$p->safe_psql('postgres', 'CHECKPOINT');
	is(value($p, q{SELECT string_agg(name, ' ' ORDER BY name) FROM cascade_holds WHERE wal_status <> 'lost'}),
		'i j k', 'nor are they while no reports are taken');
	set($p, 'cascade_relay.enabled', 'on');
	wait_connected($i, $j2, $k);
	$j2->stop;
	let_pass(2);
	$p->safe_psql('postgres', 'CHECKPOINT');
	wait_for($p, q{SELECT count(*) = 1 FROM cascade_check WHERE severity = 'critical' AND code = 'hold_dropped' AND node_name = 'j' AND message ~ 'invalidated'},
		'that of a node that is away is, and it is said');
	$j2->start;
	wait_protected($j2);
	ok($p->wait_for_log(qr/hold "cascade_relay_j_[0-9a-f]{8}" had been invalidated by the server, and was placed again/, $log),
		'it is placed again when the node is back');
	wait_for($p, q{SELECT count(*) = 1 FROM cascade_check WHERE severity = 'warning' AND code = 'hold_dropped' AND node_name = 'j'}, 'which is said, too');
	same_rows($p, $j2);

	# one on another history reports, and moves nothing by that
	my $lsn = value($p, 'SELECT pg_current_wal_flush_lsn()');
	my %at = map { ($_ => $lsn) } qw(flush_lsn replay_lsn frontier_lsn hold_target_lsn);
	my $strange = $p->background_psql('postgres');
	$strange->query_safe(
		'SELECT '
		  . report_sql(
			encode_hello(
				system_identifier => value($p, 'SELECT system_identifier FROM pg_control_system()'),
				incarnation => 0xfa4e,
				node_name => 'strange')));
	$strange->query_safe('SELECT ' . report_sql(encode_report(%at)));
	isnt(hold_lsn($p, 'strange'), '', 'one more hold');
	for (1 .. 12)
	{
		$strange->query_safe('SELECT ' . report_sql(encode_report(%at, timeline => 7)));
		let_pass(0.2);
	}
	is(value($p, q{SELECT state FROM cascade_topology WHERE node_name = 'strange'}), 'diverged', 'its node has diverged');
	$p->safe_psql('postgres', 'CHECKPOINT');
	is(value($p, q{SELECT wal_status <> 'lost' FROM cascade_holds WHERE name = 'strange'}), 't', 'and is held as it was');
	$strange->quit;
}

done_testing();
