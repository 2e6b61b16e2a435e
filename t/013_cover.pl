# Moving a hold back, under cover.
#
#	p ─┬─ (x)       exists as messages only; its hold is what this is about
#	   └─ l, m      real leaves without the extension, which are behind
#
# x is level with p, then a node below it turns up that needs older WAL: x asks
# for less than its hold has.  The WAL is there, because l's own slot keeps it,
# and that slot has been there since before the last checkpoint: under its
# cover the hold goes back, in the middle of a long checkpoint, when a move
# without cover would cost it everything.  Then the cover is taken away at
# once.  The hold alone keeps the WAL, and a leaf comes back from it.
#
# Without a cover, or under one that no checkpoint has seen yet, the hold stays;
# and so it does under one that has only just gone back itself, which the worker
# could not see.  A move that cannot be saved is none, however often it is asked for.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p', conf => 'shared_buffers = 64MB');
my $l = new_standby('l', $p, unmanaged => 1);
my $system = value($p, 'SELECT system_identifier FROM pg_control_system()');
my $hold = 'cascade_relay_x_0000000a';
my $session = $p->background_psql('postgres');
my $sequence = 0;

sub ask
{
	my ($message) = @_;
	my $reply = decode_reply($session->query_safe('SELECT ' . report_sql($message)));

	is($reply->{answer}, 'ok', 'the message is taken') unless $reply->{answer} eq 'ok';
	return $reply;
}

sub report
{
	my ($lsn) = @_;
	return ask(encode_report(
		sequence => ++$sequence,
		report_interval_ms => 200,
		pinned_by => 'x',
		map { ($_ => $lsn) } qw(flush_lsn replay_lsn frontier_lsn hold_target_lsn)));
}

# The worker looks at the slots by itself: ask until it has.
sub report_until
{
	my ($lsn, $expected, $what) = @_;
	my $reply;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$reply = report($lsn);
		last if $reply->{held_lsn} eq $expected;
		select undef, undef, undef, 0.1;
	}
	is($reply->{held_lsn}, $expected, $what);
	return $reply;
}

sub restart_lsn
{
	my ($slot) = @_;
	return value($p, "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '$slot'");
}

sub current_lsn { return value($p, 'SELECT pg_current_wal_flush_lsn()'); }

# The leaf stops; from here its slot is the only reason to keep its WAL.
add_rows($p, 10);
wait_caught_up($p, $l);
$l->stop;
my $old = restart_lsn('l');
write_segments($p, 5);
$p->safe_psql('postgres', 'CHECKPOINT');

ask(encode_hello(system_identifier => $system, node_name => 'x', incarnation => 10,
		start_id => 1, report_interval_ms => 200));
my $head = current_lsn();
report_until($head, $head, 'the hold of a node that is level stands at the head');

# --- in the middle of a long checkpoint ---

# One that WAL has triggered takes its time, if no more WAL is written then:
# nearly checkpoint_timeout, while there are buffers to write.
$p->safe_psql('postgres', 'CREATE TABLE ballast AS SELECT i, repeat(\'x\', 500) AS x FROM generate_series(1, 10000) i');
$p->safe_psql('postgres', 'CHECKPOINT');
$p->append_conf('postgresql.conf', 'max_wal_size = 40MB');
$p->reload;
my $log_at = -s $p->logfile;
$p->safe_psql('postgres', 'UPDATE ballast SET i = i + 1');
for (1 .. 100)
{
	last if slurp_file($p->logfile, $log_at) =~ /checkpoint starting: wal/;
	write_segments($p, 1);
}
$p->wait_for_log(qr/checkpoint starting: wal/, $log_at);

my $reply = report_until($old, $old, 'during a checkpoint the hold goes back under the cover of the slot');
is($reply->{refusal}, 'none', 'and covers what was asked for');
is(restart_lsn($hold), $old, 'the slot says so too');
$p->safe_psql('postgres', "SELECT pg_drop_replication_slot('l')");
unlike(slurp_file($p->logfile, $log_at), qr/checkpoint complete/, 'the checkpoint is still running');

# This makes the running one hurry up, and then runs another.
$p->safe_psql('postgres', 'CHECKPOINT');
$p->wait_for_log(qr/checkpoint complete/, $log_at);
write_segments($p, 3);
$p->safe_psql('postgres', 'CHECKPOINT');
is(restart_lsn($hold), $old, 'the checkpoints leave the hold where it is');
unlike(slurp_file($p->logfile), qr/invalidating/, 'and invalidate nothing');
ok(has_segment($p, $old), 'its WAL is there');
is(oldest_wal($p), segment_of($old), 'and nothing older');

# A crash must not bring back the higher LSN that was saved before.
$session->quit;
$p->stop('immediate');
$p->start;
is(restart_lsn($hold), $old, 'the hold that went back survives a crash');

# --- without cover ---

$session = $p->background_psql('postgres');
wait_for($p, 'SELECT worker_pid IS NOT NULL AND frontier_lsn IS NOT NULL FROM cascade_status', 'the worker is back');
ask(encode_hello(system_identifier => $system, node_name => 'x', incarnation => 10,
		start_id => 2, report_interval_ms => 200));
report_until($old, $old, 'x is held as before');
slot_from_hold($p, 'x', 'fresh');
$head = current_lsn();
report_until($head, $head, 'the hold goes forward');
$reply = report($old);
is($reply->{held_lsn}, $head, 'it does not go back under a slot that no checkpoint has seen');
is($reply->{refusal}, 'later', 'and says that it holds less than was asked for');
look_around($p);
$p->safe_psql('postgres', 'CHECKPOINT');
report_until($old, $old, 'it does once a checkpoint has begun since');
report_until($head, $head, 'the hold goes forward again');
$p->safe_psql('postgres', "SELECT pg_drop_replication_slot('fresh')");
$reply = report($old);
is($reply->{held_lsn}, $head, 'without any cover it stays');

# --- a cover that goes back itself ---

# As the slot of a delayed standby does that comes back.  Here it is dropped, and
# copied from one that keeps the WAL all the time, but is no cover: it is temporary.
# Meanwhile the worker is stopped, while it sleeps.
my $keeper = $p->background_psql('postgres');
my $below = $keeper->query_safe(q{SELECT lsn FROM pg_create_physical_replication_slot('keeper', true, true)});
write_segments($p, 3);
value($p, q{SELECT pg_create_physical_replication_slot('u', true)});
my $stood = value($p, q{SELECT end_lsn FROM pg_replication_slot_advance('u', pg_current_wal_lsn())});
write_segments($p, 3);
look_around($p);
$p->safe_psql('postgres', 'CHECKPOINT');
$head = current_lsn();
report_until($head, $head, 'the hold stands at the head');
report_until($stood, $stood, 'it goes back as far as a slot has stood');
report_until($head, $head, 'and forward');

my $worker = value($p, 'SELECT worker_pid FROM cascade_status');
my $asleep = '';
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	kill 'STOP', $worker or die "worker $worker: $!";
	$asleep = value($p, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $worker");
	last if $asleep eq 'Extension';
	kill 'CONT', $worker;
	select undef, undef, undef, 0.01;
}
is($asleep, 'Extension', 'the worker cannot look');
$keeper->query_safe(q{SELECT pg_drop_replication_slot('u'), pg_copy_physical_replication_slot('keeper', 'u', false)});
is(restart_lsn('u'), $below, 'that slot has gone back');
$keeper->quit;
$reply = report($below);
kill 'CONT', $worker;
is($reply->{held_lsn}, $head, 'further than it has stood it is no cover');
is($reply->{refusal}, 'later', 'and the node is told');
look_around($p);
$p->safe_psql('postgres', 'CHECKPOINT');
report_until($below, $below, 'once a checkpoint has seen it there it is');
report_until($head, $head, 'the hold goes forward again');

# --- a move that cannot be saved ---

sub complaint
{
	my ($lsn) = @_;
	my $message = encode_report(sequence => ++$sequence, report_interval_ms => 200, pinned_by => 'x',
		map { ($_ => $lsn) } qw(flush_lsn replay_lsn frontier_lsn hold_target_lsn));

	$session->query_safe(q{SELECT set_config('t.said', 'no error', false)});
	$session->query_safe('DO $$ BEGIN PERFORM ' . report_sql($message)
		  . q{; EXCEPTION WHEN OTHERS THEN PERFORM set_config('t.said', SQLERRM, false); END $$});
	return $session->query_safe(q{SELECT current_setting('t.said')});
}

# The checkpoint saves where the hold stands now: a crash would bring that back.
$p->safe_psql('postgres', 'CHECKPOINT');
my $folder = $p->data_dir . "/pg_replslot/$hold";
chmod 0500, $folder or die $!;
like(complaint($below), qr/could not create file .*state.tmp/, "it cannot be saved where it would be, time $_") for 1, 2;
is(restart_lsn($hold), $head, 'so it is not there');
chmod 0700, $folder or die $!;
report_until($below, $below, 'when it can, it is');
$session->quit;
$p->stop('immediate');
$p->start;
is(restart_lsn($hold), $below, 'and survives a crash');
$session = $p->background_psql('postgres');
wait_for($p, 'SELECT worker_pid IS NOT NULL AND frontier_lsn IS NOT NULL FROM cascade_status', 'the worker is back');
ask(encode_hello(system_identifier => $system, node_name => 'x', incarnation => 10,
		start_id => 2, report_interval_ms => 200));
$head = current_lsn();
report_until($head, $head, 'the hold goes forward once more');
$p->safe_psql('postgres', "SELECT pg_drop_replication_slot('u')");

# --- the proof ---

# What l needed went with the last slot that stood there.  So a new leaf stops,
# its own slot is the cover, and goes, and it comes back from the hold alone.
$session->quit;
my $m = new_standby('m', $p, unmanaged => 1);
add_rows($p, 10);
wait_caught_up($p, $m);
$m->stop;
my $need = restart_lsn('m');
write_segments($p, 3);
look_around($p);
$p->safe_psql('postgres', 'CHECKPOINT');
write_segments($p, 1);
$p->safe_psql('postgres', 'CHECKPOINT');

$session = $p->background_psql('postgres');
ask(encode_hello(system_identifier => $system, node_name => 'x', incarnation => 10,
		start_id => 2, report_interval_ms => 200));
report_until($need, $need, 'the hold goes back to what the leaf needs');
$p->safe_psql('postgres', "SELECT pg_drop_replication_slot('m')");
add_rows($p, 10);
remove_wal(5, $p);
ok(has_segment($p, $need), 'the hold alone keeps the WAL');
slot_from_hold($p, 'x', 'm');
$m->start;
wait_caught_up($p, $m);
same_rows($p, $m);

$session->quit;
$m->stop;
$p->stop;
done_testing();
