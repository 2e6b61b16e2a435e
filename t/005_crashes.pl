# Processes die, at any moment.
#
#	p -> i -> l
#	p -> fake		(a child that only this test speaks for)
#
# l stops, so that p must keep WAL for it through all that follows.  Then the
# worker is killed, on p and on i, and takes its server down with it; it is
# terminated and cancelled; the sessions that i and the fake child report
# through are terminated and killed while they move holds; and reports run into
# errors that a plpgsql EXCEPTION block catches.  No slot stays acquired by
# somebody who is gone, no lock and no half of a slot is left, everybody finds
# back, and p still has every segment: then i is killed for good, and l catches
# up from p with every row.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $p = new_primary('p', conf => "restart_after_crash = on\n");
my $i = new_standby('i', $p);
my $l = new_standby('l', $i);

my $rows = 0;

sub insert_row
{
	$p->safe_psql('postgres', "INSERT INTO story VALUES (" . ++$rows . ")");
	return;
}

# From now on, not from before: a report that was sent and answered after this
# call.
sub wait_reports_again
{
	my ($node) = @_;
	my $now = value($node, 'SELECT clock_timestamp()');

	wait_for($node,
		"SELECT upstream_state = 'connected' AND last_report_time > '$now' FROM cascade_status",
		$node->name . ' reports again');
	return;
}

sub worker_pid
{
	my ($node) = @_;

	return value($node, 'SELECT worker_pid FROM cascade_status');
}

sub wait_new_worker
{
	my ($node, $old) = @_;

	wait_for($node,
		"SELECT worker_pid <> $old AND incarnation IS NOT NULL FROM cascade_status "
		  . 'JOIN pg_stat_activity ON pid = worker_pid',
		$node->name . ' has a new worker');
	return;
}

# WAL is written and removed wherever it may be; p keeps the segment that it
# holds for i, and the hold has not moved.
my ($pin, $pinned_file);

sub still_pinned
{
	my ($when) = @_;

	insert_row();
	remove_wal(2, $p);
	is(hold_lsn($p, 'i'), $pin, "hold for i has not moved: $when");
	ok((grep { $_ eq $pinned_file } wal_files($p)), "the segment is there: $when");
	return;
}

wait_protected($l);
$p->safe_psql('postgres', 'CREATE TABLE story (n int)');
insert_row();
wait_caught_up($p, $l);
$l->stop;
remove_wal(3, $p, $i);
$pin = value($i, 'SELECT hold_target_lsn FROM cascade_status');
is(value($i, 'SELECT pinned_by FROM cascade_status'), 'l', 'l pins');
wait_for($p, "SELECT restart_lsn = '$pin' FROM cascade_holds WHERE name = 'i'",
	'p holds what l needs');
$pinned_file = value($p, "SELECT pg_walfile_name('$pin'::pg_lsn + 1)");
still_pinned('before anything happens');

# The worker is killed, and with it the server restarts.
for my $node ($p, $i)
{
	my $name = $node->name;
	my $pid = worker_pid($node);
	my $log = -s $node->logfile;

	kill('KILL', $pid) or die "worker $pid: $!";
	$node->wait_for_log(qr/reinitializing/, $log);
	wait_new_worker($node, $pid);
	wait_reports_again($i);
	still_pinned("the worker of $name was killed");
}

# l has not called since i has crashed: it counts by its hold.
is( value($i, "SELECT counted, reason FROM cascade_holds WHERE name = 'l'"),
	't|managed, by its hold until it calls',
	'l counts by its hold after the crash of i');

# Terminated, it comes back; cancelled, it goes on.
for my $node ($p, $i)
{
	my $name = $node->name;
	my $pid = worker_pid($node);
	my $started = value($node, 'SELECT pg_postmaster_start_time()');

	is(value($node, "SELECT pg_terminate_backend($pid)"), 't', "terminated the worker of $name");
	wait_new_worker($node, $pid);
	$pid = worker_pid($node);
	for (1 .. 5)
	{
		value($node, "SELECT pg_cancel_backend($pid)");
		usleep(20_000);
	}
	wait_reports_again($i);
	is(worker_pid($node), $pid, "the worker of $name survives to be cancelled");
	is(value($node, 'SELECT pg_postmaster_start_time()'), $started, "$name has not restarted");
	still_pinned("the worker of $name was terminated and cancelled");
}

# The session that i reports through is ended, again and again.
for my $round (1 .. 8)
{
	my $session = "FROM pg_stat_activity WHERE application_name = 'cascade_relay' "
	  . "AND backend_type = 'client backend'";
	my $pid = value($p, "SELECT pid $session");

	write_segments($p, 1) if $round % 2;
	value($p, "SELECT pg_terminate_backend($pid)");
	$p->poll_query_until('postgres', "SELECT count(*) = 1 $session AND pid <> $pid")
	  or die 'no new report session';
	$p->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name LIKE 'cascade_relay_%' AND active_pid = $pid")
	  or die "slot acquired by process $pid, which is gone";
}
pass('i finds back each time that its session is terminated');
wait_reports_again($i);
still_pinned('the session of i was terminated');

# ---- the fake child ----

my $system_identifier = value($p, 'SELECT system_identifier FROM pg_control_system()');
my $incarnation = 0xfa4e0001;

sub hello_sql
{
	my ($name, $start_id) = @_;

	return report_sql(
		encode_hello(
			system_identifier => $system_identifier,
			start_id => $start_id // 1,
			incarnation => $incarnation,
			node_name => $name));
}

# A report whose frontier and hold target an SQL expression of type pg_lsn
# gives.
sub report_of_sql
{
	my ($lsn) = @_;
	my $mark = 0x11223344;
	my $report = encode_report(frontier_lsn => $mark, hold_target_lsn => $mark, pinned_by => 'fake');
	my $at = index($report, pack('Q>2', $mark, $mark));

	die 'no mark in the report' if $at < 0;
	my ($before, $after) =
	  map { "'\\x" . unpack('H*', $_) . "'::bytea" } (substr($report, 0, $at), substr($report, $at + 16));
	my $bytes = "int8send((($lsn) - '0/0'::pg_lsn)::int8)";
	return "cascade_report($before || $bytes || $bytes || $after)";
}

# A session that moves the fake child's hold forward, byte by byte, as fast as
# it can.
sub start_mover
{
	my ($node, $name, $from) = @_;
	my $sql = "DO \$\$ DECLARE lsn pg_lsn := '$from'; BEGIN PERFORM "
	  . hello_sql($name) . "; LOOP lsn := lsn + 1; PERFORM "
	  . report_of_sql('lsn') . '; END LOOP; END $$';
	my $mover = IPC::Run::start(
		[ 'psql', '-XqAt', '-d', $node->connstr('postgres') . ' application_name=mover', '-c', $sql ],
		'>', \my $out, '2>', \my $err);

	# what it does is seen in its hold
	$node->poll_query_until('postgres',
		"SELECT restart_lsn > '$from' FROM pg_replication_slots "
		  . "WHERE slot_name ~ '^cascade_relay_${name}_'")
	  or die "the hold of $name does not move: $err";
	return ($mover, value($node, "SELECT pid FROM pg_stat_activity WHERE application_name = 'mover'"));
}

# Holds nothing that a dead process had acquired, and takes the next report at
# once.
sub next_report_moves
{
	my ($node, $name, $why) = @_;
	my $slot = "pg_replication_slots WHERE slot_name ~ '^cascade_relay_${name}_'";
	my $before = value($node, "SELECT restart_lsn FROM $slot AND NOT active");

	isnt($before, '', "the hold is there and nobody has it acquired: $why");
	value($node, 'SELECT ' . hello_sql($name) . '; SELECT ' . report_of_sql("'$before'::pg_lsn + 1"));
	is(value($node, "SELECT restart_lsn = '$before'::pg_lsn + 1 FROM $slot"),
		't', "and it moves with the next report: $why");
	return;
}

# So that there is WAL behind the redo pointer, where new holds are placed.
checkpoint_all($p);
write_segments($p, 3);
wait_caught_up($p, $i);

for my $node ($p, $i)
{
	my $redo = value($node, 'SELECT redo_lsn FROM pg_control_checkpoint()');
	my $acquired = 0;

	for my $round (1 .. 10)
	{
		my ($mover, $pid) = start_mover($node, 'fake',
			$round == 1 ? $redo : hold_lsn($node, 'fake'));

		usleep(int(rand(20_000)));
		$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
		eval { $mover->finish };
		$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid")
		  or die 'it does not end';
		$acquired += value($node,
			"SELECT count(*) FROM pg_replication_slots WHERE slot_name ~ '^cascade_relay_fake_' AND active");
	}
	is($acquired, 0, 'no hold stays acquired on ' . $node->name . ' by a session that was terminated');
	next_report_moves($node, 'fake', 'terminated on ' . $node->name);
}

for my $round (1 .. 3)
{
	my $log = -s $p->logfile;
	my ($mover, $pid) = start_mover($p, 'fake', hold_lsn($p, 'fake'));

	usleep(int(rand(20_000)));
	kill('KILL', $pid) or die "session $pid: $!";
	eval { $mover->finish };
	$p->wait_for_log(qr/reinitializing/, $log);
	wait_for($p, "SELECT worker_pid > 0 AND incarnation IS NOT NULL FROM cascade_status", 'p is back');
	next_report_moves($p, 'fake', "killed, round $round");
}
wait_reports_again($i);
still_pinned('sessions were killed');

# ---- errors that somebody catches ----

# Makes the calls in one session, each in a block that catches what comes, and
# returns what each said.  After each one the session must have no slot.
sub caught
{
	my ($node, @calls) = @_;
	my $sql = "SET statement_timeout = '20s';\n";

	for my $call (@calls)
	{
		$sql .= qq{DO \$\$
		DECLARE
			said text := 'no error';
		BEGIN
			BEGIN
				PERFORM $call;
			EXCEPTION WHEN OTHERS THEN
				said := SQLSTATE || ' ' || SQLERRM;
			END;
			IF EXISTS (SELECT FROM pg_replication_slots WHERE active_pid = pg_backend_pid()) THEN
				said := 'slot acquired after: ' || said;
			END IF;
			PERFORM set_config('t.said', said, false);
		END \$\$;
		SELECT current_setting('t.said');\n};
	}
	return split /\n/, value($node, $sql);
}

sub slot_dirs
{
	my ($node, $name) = @_;

	return join ' ', grep { /^cascade_relay_${name}_/ } slurp_dir($node->data_dir . '/pg_replslot');
}

my $flush = value($p, 'SELECT pg_current_wal_flush_lsn()');
my $replslot = $p->data_dir . '/pg_replslot';
my $report = report_of_sql("'$flush'::pg_lsn");
$incarnation = 0xfa4e0002;

# The folder of the slots cannot be written to.
my $slots_before = value($p, 'SELECT count(*) FROM pg_replication_slots');
chmod 0500, $replslot or die $!;
my @said = caught($p, hello_sql('fake2'), $report, $report,
	"pg_create_physical_replication_slot('other')");
chmod 0700, $replslot or die $!;
is($said[0], 'no error', 'a hello needs no slot');
like($said[$_], qr/^42501 could not create directory/, "creating a hold fails, call $_")
  for 1, 2;
like($said[3], qr/^42501 could not create directory/, 'the same session, no lock in its way');
is(value($p, 'SELECT count(*) FROM pg_replication_slots'), $slots_before, 'no slot is left over');
is(slot_dirs($p, 'fake2'), '', 'and no folder');
@said = caught($p, hello_sql('fake2'), $report);
is("@said", 'no error no error', 'with the folder writable again it works');
is(hold_lsn($p, 'fake2'), $flush, 'and the hold is placed');

# It fails halfway, and in the next call of the same session it does not.
$incarnation = 0xfa4e0003;
my $in_the_way = sprintf '%s/cascade_relay_fake3_%08x', $replslot, $incarnation;
mkdir $in_the_way or die $!;
append_to_file("$in_the_way/something", 'there');
my $session = $p->background_psql('postgres', on_error_stop => 0);
$session->query("SET statement_timeout = '20s'");
$session->query('SELECT ' . hello_sql('fake3'));
$session->query(
	"DO \$\$ BEGIN PERFORM $report; EXCEPTION WHEN OTHERS THEN PERFORM set_config('t.said', SQLERRM, false); END \$\$");
like($session->query("SELECT current_setting('t.said')"), qr/could not rename/, 'a hold fails halfway');
unlink "$in_the_way/something" or die $!;
rmdir $in_the_way or die $!;
is(hold_lsn($p, 'fake3'), '', 'nothing of it is left');
$session->query("SELECT $report");
is(hold_lsn($p, 'fake3'), $flush, 'the same session goes on');
$session->quit;

# A hold that cannot be dropped is there still, and holds.
my $fake2 = sprintf 'cascade_relay_fake2_%08x', 0xfa4e0002;
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'fake2'}, 'fake2 is away', 'down');
chmod 0500, $replslot or die $!;
my (undef, undef, $complaint) = $p->psql('postgres', "SELECT cascade_forget('$fake2', true)");
chmod 0700, $replslot or die $!;
like($complaint, qr/ERROR:  could not write file "pg_replslot\/cascade_relay\.state\.tmp"/, 'what cannot be written down is not dropped');
is(value($p, "SELECT restart_lsn, temporary, active FROM pg_replication_slots WHERE slot_name = '$fake2'"),
	"$flush|f|f", 'it is there');
is(value($p, "SELECT cascade_forget('$fake2', true)"), '{}', 'with the folder writable again it works');
is(hold_lsn($p, 'fake2'), '', 'it is gone');
is(slot_dirs($p, 'fake2'), '', 'and so is its folder');

# It fails when the hold is already in place and is saved: a file is in the
# way, put there by a process that waits for the folder to appear.  What was not
# saved is no hold; the next one is, and survives a crash.
sub start_blocker
{
	my ($file) = @_;
	my $blocker = fork // die "fork: $!";

	if ($blocker == 0)
	{
		my $end = time + 30;

		1 until open(my $fh, '>', $file) || time > $end;
		kill 'KILL', $$;
	}
	return $blocker;
}

my $hit;
for my $round (1 .. 40)
{
	$incarnation = 0xfa4e1000 + $round;
	$session = $p->background_psql('postgres', on_error_stop => 0);
	$session->query("SET statement_timeout = '20s'");
	my $hello = hello_sql('fake4');
	my $blocker = start_blocker(sprintf '%s/cascade_relay_fake4_%08x/state.tmp', $replslot, $incarnation);

	$session->query("SELECT $hello");
	$session->query("SELECT set_config('t.said', 'no error', false)");
	$session->query(
		"DO \$\$ BEGIN PERFORM $report; EXCEPTION WHEN OTHERS THEN PERFORM set_config('t.said', SQLERRM, false); END \$\$");
	$hit = $session->query("SELECT current_setting('t.said')") =~ /could not create file .*state.tmp/;
	kill 'KILL', $blocker;
	waitpid $blocker, 0;
	last if $hit;
	$session->quit;
	# merely dropped, it would be placed again
	$p->poll_query_until('postgres', sprintf("SELECT cascade_forget('cascade_relay_fake4_%08x', true) IS NOT NULL", $incarnation));
}
ok($hit, 'saving a hold fails');
is($session->query('SELECT count(*) FROM pg_replication_slots WHERE active_pid = pg_backend_pid()'),
	'0', 'no slot is acquired');
is(hold_lsn($p, 'fake4'), '', 'no hold is left');
is(slot_dirs($p, 'fake4'), '', 'and no folder');
$session->query("SELECT $report");
$session->quit;
is(hold_lsn($p, 'fake4'), $flush, 'the same session places it then');
$p->stop('immediate');
$p->start;
isnt(hold_lsn($p, 'fake4'), '', 'and it survives a crash');
wait_reports_again($i);

# p has kept what l needs through all of it.
still_pinned('errors were caught');
slot_from_hold($p, 'i', 'l');
kill_node($i);
point_at($l, $p);
$l->start;
wait_caught_up($p, $l);
is(value($l, 'SELECT count(*), sum(n) FROM story'),
	$rows . '|' . $rows * ($rows + 1) / 2, 'l has every row, from p');
wait_protected($l);

# A hold that the server has invalidated is replaced; dropping it fails first.  So
# it does for the worker, whose business it is while fake4 does not report; it says
# so once.
my $worker = stop_worker($p);
set_conf($p, "max_slot_wal_keep_size = 1MB\n");
my $log = -s $p->logfile;
write_segments($p, 4);
$p->safe_psql('postgres', 'CHECKPOINT');
is(value($p, "SELECT wal_status FROM pg_replication_slots WHERE slot_name ~ '^cascade_relay_fake4_'"),
	'lost', 'the server has invalidated a hold');
chmod 0500, $replslot or die $!;
set_conf($p, "max_slot_wal_keep_size = -1\n");
kill 'CONT', $worker or die "$worker: $!";
$report = report_of_sql('pg_current_wal_flush_lsn()');
@said = caught($p, hello_sql('fake4'), $report, $report);
chmod 0700, $replslot or die $!;
like($said[$_], qr/^42501 could not rename/, "dropping it fails, call $_") for 1, 2;
is(() = slurp_file($p->logfile, $log) =~ /\] cascade_relay ERROR:  could not rename .*_fake3_\w+"/g, 1, 'the worker says once that it could not either');
@said = caught($p, hello_sql('fake4'), $report);
is("@said", 'no error no error', 'then it is replaced');
is( value($p,
		"SELECT count(*), min(wal_status) FROM pg_replication_slots WHERE slot_name ~ '^cascade_relay_fake4_'"),
	'1|reserved', 'there is one hold again, and it holds');

# A session that has another slot acquired, left there by an error.
value($p, "SELECT pg_create_physical_replication_slot('another', true)");
$p->psql(
	'postgres', qq{
	DO \$\$ BEGIN PERFORM pg_replication_slot_advance('another', '0/1'); EXCEPTION WHEN OTHERS THEN NULL; END \$\$;
	SELECT active_pid = pg_backend_pid() FROM pg_replication_slots WHERE slot_name = 'another';
	SELECT length(} . hello_sql('fake4') . qq{) > 0;
	DO \$\$ BEGIN PERFORM $report; EXCEPTION WHEN object_in_use THEN RAISE NOTICE '% %', SQLSTATE, SQLERRM; END \$\$;
	SELECT active_pid = pg_backend_pid() FROM pg_replication_slots WHERE slot_name = 'another';
	SELECT $report;
	SELECT active_pid IS NULL FROM pg_replication_slots WHERE slot_name = 'another';
	SELECT length($report) > 0;},
	stdout => \my $stdout, stderr => \my $stderr, on_error_stop => 0);
is($stdout, "t\nt\nt\nt\nt", 'the slot of the session is left alone, and without it the report is taken');
like($stderr, qr/NOTICE:  55006 this session has replication slot "another" acquired/,
	'a polite error');
like($stderr, qr/ERROR:  this session has replication slot "another" acquired/,
	'at top level too');

$l->stop;
$p->stop;
done_testing();
