# The servers do not suffer from the extension.
#
#	p ── i ─┬─ l ── m
#	        └─ k
#
# All standbys send hot_standby_feedback, and reports go all the time.  An idle
# primary writes no WAL; no hold ever has an xmin; another database is dropped
# at once.  The leaf, the intermediate and the primary are stopped in every mode
# while their children report, and none of them waits for a child's session, not
# even for one that says nothing for an hour.  A
# node whose upstream does not answer, because the process there that takes its
# reports hangs, stops as fast.  i is promoted while it reports and is reported
# to: its worker goes on, l and k follow, and i is the root of its own tree.
#
# p, left alone, is set to a wal_level with which a server that has a slot does not
# start.  Whoever reports to it then is told why nothing is held.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# What a stop may take on a loaded machine; a session that is waited for would
# take for ever.
my $bound = at_most(10);

my $conf = "hot_standby_feedback = on\nwal_receiver_status_interval = 1\n";
my $p = new_primary('p', conf => $conf);
add_rows($p, 2);
my $i = new_standby('i', $p, conf => $conf);
my $l = new_standby('l', $i, conf => $conf);
my $k = new_standby('k', $i, conf => $conf);
my $m = new_standby('m', $l, conf => $conf);

sub reports_again
{
	my (@nodes) = @_;

	for my $node (@nodes)
	{
		my $now = value($node, 'SELECT clock_timestamp()');

		wait_for($node,
			"SELECT upstream_state = 'connected' AND last_report_time > '$now' FROM cascade_status",
			$node->name . ' reports');
	}
	return;
}

# Stops a server, and says whether that was fast.  Cluster.pm's stop() would
# end the test if it was not.
sub stops
{
	my ($node, $mode, $what) = @_;
	my $begin = time;
	my $ok = PostgreSQL::Test::Utils::run_log(
		[ 'pg_ctl', '-D', $node->data_dir, '-m', $mode, '-t', $bound, '-w', 'stop' ]);

	ok($ok, $node->name . " stops in $mode mode: $what");
	note sprintf('%.1f s', time - $begin);
	$node->stop('immediate') unless $ok;
	$node->_update_pid(0);
	return;
}

# Every hold there is, on every node.
sub no_xmin
{
	my ($when, @nodes) = @_;

	for my $node (@nodes)
	{
		is( value($node,
				"SELECT count(*) > 0, count(xmin) + count(catalog_xmin) FROM pg_replication_slots WHERE slot_name LIKE 'cascade_relay_%'"),
			't|0', 'no hold on ' . $node->name . " has an xmin: $when");
	}
	return;
}

wait_protected($i, $l, $k, $m);

# ---- no WAL ----

# The server itself logs its running transactions after a checkpoint, once, and
# then nothing as long as nothing happens.  The first look at a catalog may tidy
# a page there.
my $look = 'SELECT count(*) FROM cascade_topology; SELECT count(*) FROM cascade_downstreams; '
  . 'SELECT count(*) FROM cascade_status; SELECT cascade_tree()';
value($p, $look);
checkpoint_all($p, $i, $l, $k, $m);
value($p, $look);
my $quiet = '';
for my $try (1 .. 20)
{
	my $before = value($p, 'SELECT pg_current_wal_insert_lsn()');
	my $sent = value($p, 'SELECT reports_received FROM cascade_status');

	$p->poll_query_until('postgres', "SELECT reports_received >= $sent + 10 FROM cascade_status")
	  or die 'no reports arrive';
	$quiet = value($p, 'SELECT pg_current_wal_insert_lsn()') eq $before ? $before : '';
	last if $quiet;
}
isnt($quiet, '', 'p is idle');
my $received = value($i, 'SELECT reports_received FROM cascade_status');
my $sent = value($i, 'SELECT reports_sent FROM cascade_status');
wait_for($i, "SELECT reports_sent >= $sent + 12 AND reports_received >= $received + 24 FROM cascade_status",
	'reports arrive at i and at p');
is(value($p, 'SELECT pg_current_wal_insert_lsn()'), $quiet, 'no WAL is written by reports');
value($p, $look);
is(value($p, 'SELECT pg_current_wal_insert_lsn()'), $quiet, 'nor by looking');

# ---- no xmin ----

my $reader = $m->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$reader->query_safe('SELECT count(*) FROM kept');
add_rows($p, 2);
wait_for($p, "SELECT xmin IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'i'",
	'the feedback of m has come up to the slot of i');
write_segments($p, 2);
reports_again($m, $l, $i);
no_xmin('while a reader far below holds back vacuum', $p, $i, $l);
$reader->query_safe('COMMIT');
$reader->quit;

# ---- databases ----

$p->safe_psql('postgres', 'CREATE DATABASE another');
wait_caught_up($p, $i, $l, $k, $m);
is($p->psql('postgres', "SET statement_timeout = '${bound}s'; DROP DATABASE another"),
	0, 'another database is dropped at once');
# replaying it ends whoever is connected to it, and waits for nobody
wait_caught_up($p, $i, $l, $k, $m);
reports_again($i, $l, $k, $m);
is($p->psql('postgres', 'CREATE DATABASE copy TEMPLATE template1'), 0, 'nobody is in template1');

# ---- stopping ----

for my $mode ('smart', 'fast', 'immediate')
{
	for my $node ($mode eq 'immediate' ? ($i, $p) : ($m, $l, $i, $p))
	{
		stops($node, $mode, 'its children report');
		$node->start;
		wait_caught_up($p, $i, $l, $k, $m);
		reports_again($i, $l, $k, $m);
	}
}

# The session of a child that has nothing to say for a long time would be in the
# way of a smart stop.
my $system_identifier = value($p, 'SELECT system_identifier FROM pg_control_system()');
for my $node ($i, $p)
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query_safe(
		'SELECT '
		  . report_sql(
			encode_hello(
				system_identifier => $system_identifier,
				incarnation => 0xfa4e,
				node_name => 'silent',
				report_interval_ms => 3600 * 1000)));
	stops($node, 'smart', 'a child is connected and silent');
	eval { $session->quit };
	$node->start;
}
wait_caught_up($p, $i, $l, $k, $m);
reports_again($i, $l, $k, $m);
wait_protected($i, $l, $k, $m);
no_xmin('after all were stopped', $p, $i, $l);
same_rows($p, $i, $l, $k, $m);

# the worker ends their sessions for a smart stop: they are told why
like(slurp_file($i->logfile), qr/cascade_relay: cannot report to the upstream/, 'i has noticed that p stopped');

# ---- an upstream that hangs ----

for my $mode ('smart', 'fast', 'immediate')
{
	my $pid = value($p,
		"SELECT pid FROM pg_stat_activity WHERE application_name = 'cascade_relay' AND backend_type = 'client backend'");

	# the report that is under way then will not be answered
	kill 'STOP', $pid or die "session $pid: $!";
	wait_for($i, "SELECT clock_timestamp() - last_report_time > '1s' FROM cascade_status", 'i gets no answer');
	sleeps(value($i, 'SELECT worker_pid FROM cascade_status'), 'meanwhile');
	stops($i, $mode, 'its upstream hangs');
	kill 'CONT', $pid;
	$i->start;
	wait_caught_up($p, $i, $l, $k, $m);
	reports_again($i, $l, $k, $m);
}

# ---- a pass that fails ----

# For a while k cannot look at its own WAL, and has to, because its disk is said
# to be short.
{
	my $worker = value($k, 'SELECT worker_pid FROM cascade_status');
	my $held = hold_lsn($i, 'k');
	my $offset = -s $k->logfile;
	my $line = qr/cascade_relay ERROR:  could not open directory "pg_wal": Permission denied/;

	chmod 0300, $k->data_dir . '/pg_wal';
	set_conf($k, 'cascade_relay.min_free_percent = 100');
	ok($k->wait_for_log($line, $offset), 'a pass of k fails');
	my $failed_at = value($k, 'SELECT last_error_time FROM cascade_status');
	wait_for($k, "SELECT last_error_time > '$failed_at' FROM cascade_status", 'and another one');
	my @said = slurp_file($k->logfile, $offset) =~ /$line/g;
	is(scalar(@said), 1, 'which it has said once');
	add_rows($p, 1);
	wait_caught_up($p, $k);
	is(value($k, 'SELECT worker_pid, last_error FROM cascade_status'),
		"$worker|could not open directory \"pg_wal\": Permission denied", 'its worker goes on, and so does k');
	is(hold_lsn($i, 'k'), $held, 'what is held for it stays');
	is(value($k, 'SELECT upstream_state FROM cascade_status'), 'waiting', 'it does not say that it reports');
	set_conf($k, 'cascade_relay.stale_timeout = 1s');
	wait_for($k, q{SELECT count(*) FROM cascade_check WHERE severity = 'critical' AND code = 'no_free_worker' AND message LIKE '%has got nothing done for % s: could not open directory%'},
		'and says what is wrong', '1');
	chmod 0700, $k->data_dir . '/pg_wal';
	set_conf($k, 'cascade_relay.min_free_percent = 0');
	set_conf($k, 'cascade_relay.stale_timeout = 30s');
	reports_again($k);
	wait_protected($k);
	is(value($k, q{SELECT count(*) FROM cascade_check WHERE code = 'no_free_worker'}), '0', 'all is well again');

	# the same again is said again
	$offset = -s $k->logfile;
	chmod 0300, $k->data_dir . '/pg_wal';
	set_conf($k, 'cascade_relay.min_free_percent = 100');
	ok($k->wait_for_log($line, $offset), 'what comes back later is news');
	chmod 0700, $k->data_dir . '/pg_wal';
	set_conf($k, 'cascade_relay.min_free_percent = 0');
	reports_again($k);

	# m's session is not in the way of a smart stop of l, whose passes fail; then
	# l may look at its WAL again, as it has to in order to stop
	$offset = -s $l->logfile;
	chmod 0300, $l->data_dir . '/pg_wal';
	set_conf($l, 'cascade_relay.min_free_percent = 100');
	ok($l->wait_for_log($line, $offset), 'a pass of l fails');
	command_ok([ 'pg_ctl', '-s', '-W', '-m', 'smart', '-D', $l->data_dir, 'stop' ], 'l is told to stop');
	wait_for($m, q{SELECT upstream_state FROM cascade_status}, 'm has to leave', 'waiting');
	chmod 0700, $l->data_dir . '/pg_wal';
	wait_until('... and l stops', sub { !-e $l->data_dir . '/postmaster.pid' });
	$l->_update_pid(0);
	$l->append_conf('postgresql.conf', 'cascade_relay.min_free_percent = 0');
	$l->start;
	wait_caught_up($p, $l, $m);
	reports_again($l, $m);
}

# ---- promotion ----

my $worker = value($i, 'SELECT worker_pid FROM cascade_status');
my $begin = time;
$i->promote;
cmp_ok(time - $begin, '<', $bound, 'promotion is not held up');
wait_for($i, "SELECT role = 'primary' AND upstream_state = 'none' AND timeline = 2 FROM cascade_status",
	'i is a primary');
is(value($i, 'SELECT worker_pid FROM cascade_status'), $worker, 'its worker goes on');
add_rows($i, 3);
same_rows($i, $l, $k, $m);
reports_again($l, $k, $m);
wait_protected($l, $k, $m);
wait_for($i, "SELECT string_agg(node_name || ' ' || depth || ' ' || state, ', ' ORDER BY path) FROM cascade_topology WHERE path[1] = 'i'",
	'i is the root of its tree',
	'i 0 running, k 1 streaming, l 1 streaming, m 2 streaming');
wait_for($m, "SELECT path = '{i,l,m}' FROM cascade_topology WHERE is_local", 'm knows its new root');
wait_for($i, 'SELECT frontier_lsn = replay_lsn AND pinned_by = node_name FROM cascade_status',
	'and nobody pins it');
$m->stop;
add_rows($i, 3);
wait_for($i, 'SELECT pinned_by FROM cascade_status', 'm pins the new root', 'm');
remove_wal(3, $i, $l);
slot_from_hold($i, 'l', 'm');
kill_node($l);
point_at($m, $i);
$m->start;
same_rows($i, $m);
no_xmin('after all', $i);

# ---- no slots ----

value($p, q{SELECT cascade_forget('i', true)});
value($p, 'SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots');
$p->append_conf('postgresql.conf', "wal_level = minimal\nmax_wal_senders = 0");
$p->restart;
wait_for($p, 'SELECT incarnation IS NOT NULL AND frontier_lsn IS NOT NULL FROM cascade_status', 'p is back');
{
	my $session = $p->background_psql('postgres');
	my $lsn = value($p, 'SELECT pg_current_wal_flush_lsn()');

	$session->query_safe('SELECT ' . report_sql(encode_hello(system_identifier => $system_identifier, incarnation => 0xfa4f, node_name => 'x')));
	my $reply = decode_reply($session->query_safe('SELECT ' . report_sql(encode_report(sequence => 1, pinned_by => 'x',
					map { ($_ => $lsn) } qw(flush_lsn replay_lsn frontier_lsn hold_target_lsn)))));
	is("$reply->{answer}, $reply->{refusal}, $reply->{held_lsn}", 'ok, wal_level, 0/0', 'a node that reports is told that nothing is held, and why');
	$session->quit;
}
my (undef, undef, $error) = $p->psql('postgres', q{SELECT cascade_adopt('x')});
like($error, qr/ERROR:  cannot adopt node "x": "wal_level" is too low for replication slots\nHINT:  /, 'nor is a slot made for a node to stream through');
is(value($p, 'SELECT count(*) FROM pg_replication_slots'), 0, 'there is no slot');
$p->stop;
ok($p->start(fail_ok => 1), 'so that p starts again');

$_->stop for $m, $k, $i, $p;
done_testing();
