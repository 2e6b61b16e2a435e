# What the workers use stays bounded, however long they run.
#
#	p ── i ─┬─ a
#	        ├─ b
#	        └─ (fake)      a session that reports faster than any worker
#
# The fake's need goes up and down by a segment, so that i's worker is woken,
# looks around and reports to p ten thousand times.  Then its connection is
# changed a thousand times, so that it comes back with a session of its own each
# time.  Neither it nor the session on p that answers it has grown by more than
# noise, and it has no file or socket left open.
#
# Then somebody locks on p what a new session needs: i's worker comes again and
# again, and never finds the session of its last attempt still waiting there.
# Then i is away for a while: its children try less and less often, and all are
# back with one session each.  They are led to somebody who only hangs up, and come
# there after pauses that are not the same for both.  At last functions that return many rows make them
# without taking more memory for more of them.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IO::Select;
use IO::Socket::INET;
use List::Util qw(max min sum);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $exchanges = 10_000;
my $reconnects = 1_000;

# What may come and go without being a leak, in kB.  A leak of 40 bytes per
# exchange, or of 400 per reconnect, is more.  Under valgrind what was freed is
# kept for a while, up to so much.
my $noise = 384 + ($ENV{CASCADE_RELAY_FREED_KB} // 0);

my $p = new_primary('p');
my $i = new_standby('i', $p, conf => "include_if_exists = 'relay.conf'\nlog_connections = on\n");
my ($a, $b) = map { new_standby($_, $i) } qw(a b);

# ---- what a process uses ----

# Its own memory in kB, without what it shares.
sub memory
{
	my ($pid) = @_;
	my ($kb) = slurp_file("/proc/$pid/smaps_rollup") =~ /^Anonymous:\s+(\d+) kB/m;
	return $kb;
}

sub descriptors
{
	my ($pid) = @_;
	return scalar slurp_dir("/proc/$pid/fd");
}

sub worker_of { return value($_[0], 'SELECT worker_pid FROM cascade_status'); }

# Who answers i on p.
sub session_on_p
{
	return value($p, q{SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE application_name = 'cascade_relay'});
}

sub flat
{
	my ($before, $after, $what) = @_;
	note("$what: $before kB before, $after kB after");
	cmp_ok($after - $before, '<=', $noise, "$what: its memory is flat");
	return;
}

# ---- ten thousand exchanges ----

wait_connected($i, $a, $b);
remove_wal(3, $p, $i, $a, $b);
wait_protected($i, $a, $b);

my $system = value($p, 'SELECT system_identifier FROM pg_control_system()');
my $lsn = value($p, q{SELECT pg_walfile_name(pg_current_wal_lsn()), pg_current_wal_lsn()}) =~ s/.*\|//r;
my @segments = split /\|/, value($p, "SELECT '$lsn'::pg_lsn - 1048576, '$lsn'::pg_lsn - 2 * 1048576");
my %hello = (system_identifier => $system, node_name => 'fake', incarnation => 0xfa, report_interval_ms => 60000);
my @reports = map {
	report_sql(encode_report(flush_lsn => $_, replay_lsn => $_, frontier_lsn => $_, pinned_by => 'fake'))
} @segments;

# In one session on i: reports in turn, each when the worker has sent what came
# of the last one.
sub drive
{
	my ($n) = @_;
	my $hello = report_sql(encode_hello(%hello));
	$i->safe_psql('postgres', qq{
DO \$\$
DECLARE
	sent bigint;
	until bigint;
	seen bigint;
	waited int;
BEGIN
	PERFORM $hello;
	SELECT reports_sent, reports_sent + $n INTO sent, until FROM cascade_status();
	WHILE sent < until LOOP
		IF sent % 2 = 0 THEN PERFORM $reports[0]; ELSE PERFORM $reports[1]; END IF;
		waited := 0;
		LOOP
			SELECT reports_sent INTO seen FROM cascade_status();
			EXIT WHEN seen > sent;
			waited := waited + 1;
			EXIT WHEN waited > 500;
			IF waited > 20 THEN PERFORM pg_sleep(0.0005); END IF;
		END LOOP;
		sent := seen;
	END LOOP;
END \$\$});
	return;
}

my $worker = worker_of($i);
drive($exchanges / 10);
my $session = session_on_p();
my %before = (worker => memory($worker), session => memory($session), fds => descriptors($worker));
my $start = time;
drive($exchanges);
note(sprintf('%d exchanges in %.1f s', $exchanges, time - $start));
is(worker_of($i), $worker, 'it is the same worker');
is(session_on_p(), $session, 'and the same session');
flat($before{worker}, memory($worker), "$exchanges exchanges, the worker");
flat($before{session}, memory($session), "$exchanges exchanges, the session that answers");
is(descriptors($worker), $before{fds}, 'and it has no more files open');

# ---- a thousand reconnects ----

# In one session on i: another connection string, a reload of the worker alone,
# and the first report of the next connection, each time; no report comes
# between.
sub reconnect
{
	my ($n) = @_;
	my $file = $i->data_dir . '/relay.conf';
	$i->safe_psql('postgres', qq{
DO \$\$
DECLARE
	sent bigint;
	seen bigint;
	waited int;
BEGIN
	FOR n IN 1 .. $n LOOP
		SELECT reports_sent INTO sent FROM cascade_status();
		EXECUTE format('COPY (VALUES (%L), (%L)) TO PROGRAM %L',
			'cascade_relay.report_interval = 1h',
			format('cascade_relay.upstream_conninfo = ''connect_timeout=%s''', 10 + n % 2),
			'cat >"$file" && kill -HUP $worker');
		waited := 0;
		LOOP
			SELECT reports_sent INTO seen FROM cascade_status();
			EXIT WHEN seen > sent;
			waited := waited + 1;
			IF waited > 100000 THEN RAISE 'no reconnect'; END IF;
			PERFORM pg_sleep(0.001);
		END LOOP;
	END LOOP;
END \$\$});
	return;
}

# the reports that come of a change of interval, and of the tree, are over
reconnect(50);
%before = (worker => memory($worker), fds => descriptors($worker));
$start = time;
reconnect($reconnects);
note(sprintf('%d reconnects in %.1f s', $reconnects, time - $start));
wait_for($p, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'cascade_relay'}, 'one session is left of them');
is(worker_of($i), $worker, 'it is still the same worker');
flat($before{worker}, memory($worker), "$reconnects reconnects, the worker");
is(descriptors($worker), $before{fds}, 'and it has no more files open');
unlink $i->data_dir . '/relay.conf' or die;
$i->reload;
wait_connected($i, $a, $b);

# ---- a lock on p ----

# Who locks is who looks, because nobody else can: how many sessions of i there
# were at the same time at most, until there were so many in all.
$p->safe_psql('postgres', q{
CREATE FUNCTION watch_attempts(attempts int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	now_pids int[];
	all_pids int[] := '{}';
	most int := 0;
BEGIN
	PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cascade_relay';
	WHILE cardinality(all_pids) < attempts LOOP
		PERFORM pg_stat_clear_snapshot();
		SELECT coalesce(array_agg(pid), '{}') INTO now_pids FROM pg_stat_activity
			WHERE application_name = 'cascade_relay' AND wait_event_type = 'Lock';
		most := greatest(most, cardinality(now_pids));
		SELECT coalesce(array_agg(DISTINCT pid), '{}') INTO all_pids FROM unnest(all_pids || now_pids) pid;
		PERFORM pg_sleep(0.02);
	END LOOP;
	RETURN most;
END $$});
my $failed = value($i, 'SELECT reports_failed FROM cascade_status');
my $locker = $p->background_psql('postgres');
$locker->query_safe('BEGIN');
$locker->query_safe('LOCK TABLE pg_catalog.pg_extension, pg_catalog.pg_proc');
is($locker->query_safe('SELECT watch_attempts(3)'), '1', 'of three attempts that found a lock, none was there with another');
$locker->query_safe('COMMIT');
$locker->quit;
wait_connected($i, $a, $b);
cmp_ok(value($i, 'SELECT reports_failed FROM cascade_status'), '>=', $failed + 2, 'the lock was given up, and tried again');
wait_for($p, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'cascade_relay'}, 'one session is left');
is(descriptors($worker), $before{fds}, 'and i has no more files open');

# ---- an upstream that is away ----

my %fds = map { $_->name => descriptors(worker_of($_)) } ($a, $b);
my %failed = map { $_->name => value($_, 'SELECT reports_failed FROM cascade_status') } ($a, $b);
$start = time;
$i->stop('immediate');
for my $node ($a, $b)
{
	my $name = $node->name;
	wait_for($node, "SELECT reports_failed >= $failed{$name} + 5 FROM cascade_status", "$name has tried four times again");
}
# 250, 500, 1000 and 2000 ms, less a quarter; on a slow machine there are more, of up to 10 s
for my $node ($a, $b)
{
	my $tries = value($node, 'SELECT reports_failed FROM cascade_status') - $failed{ $node->name } - 1;
	my $least = 0.75 * sum(map { min(10, 0.25 * 2**($_ - 1)) } 1 .. $tries);
	cmp_ok(time - $start, '>=', $least, $node->name . " has tried $tries times, less and less often");
}
my $log = -s $i->logfile;
$i->start;
wait_connected($a, $b, $i);
wait_for($i, q{SELECT count(*) = 2 FROM pg_stat_activity WHERE application_name = 'cascade_relay'}, 'all are back, with one session each');
my @came = slurp_file($i->logfile, $log) =~ /connection authorized: .*application_name=cascade_relay/g;
cmp_ok(scalar @came, '<=', 6, 'after few attempts: ' . scalar @came);
wait_for($_, 'SELECT protected FROM cascade_status', $_->name . ' is protected') for ($i, $a, $b);
is(descriptors(worker_of($_)), $fds{ $_->name }, $_->name . ' has no more files open') for ($a, $b);

# ---- an upstream that hangs up ----

# After each failure it takes twice as long, and not the same for two nodes, or
# all would come back at once.  Whoever listens here notes when they come, and
# hangs up.
sub pauses
{
	my ($tries, @nodes) = @_;
	my $select = IO::Select->new;
	my (%name, %came);

	for my $node (@nodes)
	{
		my $listener = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die "socket: $!";

		$name{$listener} = $node->name;
		$came{ $node->name } = [];
		$select->add($listener);
		set_conf($node, "cascade_relay.upstream_conninfo = 'host=127.0.0.1 sslmode=disable gssencmode=disable port=" . $listener->sockport . "'");
	}
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	while (time < $end && grep { @$_ <= $tries } values %came)
	{
		for my $listener ($select->can_read(1))
		{
			close($listener->accept);
			push @{ $came{ $name{$listener} } }, time;
		}
	}
	set_conf($_, "cascade_relay.upstream_conninfo = ''") for @nodes;
	my @pauses;
	for my $came (map { $came{ $_->name } } @nodes)
	{
		push @pauses, [ map { $came->[$_] - $came->[ $_ - 1 ] } 1 .. $tries ];
	}
	return @pauses;
}

my @steps = (0.25, 0.5, 1, 2, 4);
my @pauses = pauses(scalar @steps, $a, $b);
my $apart = 0;
for my $n (0 .. $#steps)
{
	my @of = map { $_->[$n] / $steps[$n] } @pauses;

	cmp_ok($_, '>=', 0.74, sprintf('pause %d is %.2f of %s s', $n + 1, $_, $steps[$n])) for @of;
	# in short ones the machine has its part
	$apart = max($apart, map { abs($_ - 1) } @of) if $steps[$n] >= 1;
}
cmp_ok($apart, '>', 0.02, 'they are not those that everybody has');
wait_connected($a, $b);

# ---- many rows ----

# What a process has had at most, in kB.
sub peak
{
	my ($pid) = @_;
	my ($kb) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB/m;
	return $kb;
}

my $nodes = 250;
my $many = $p->background_psql('postgres');
$many->query_safe('SELECT ' . report_sql(encode_hello(%hello, node_name => 'many', incarnation => 0xfb)));
$many->query_safe('SELECT ' . report_sql(encode_report(
			(map { ($_ => $lsn) } qw(flush_lsn replay_lsn frontier_lsn hold_target_lsn)),
			oldest_wal_lsn => $segments[1],
			pinned_by => 'many',
			replica_class => 2,
			tree => [ map {
				encode_row(name => "n$_", incarnation => 1000 + $_, upstream_name => 'many', upstream_incarnation => 0xfb,
					managed => 1, replica_class => 2, replay_lsn => $lsn, oldest_wal_lsn => $segments[1])
			} 1 .. $nodes ])));
my $reader = $p->background_psql('postgres');
my $reader_pid = $reader->query_safe('SELECT pg_backend_pid()');
$reader->query_safe(q{SET work_mem = '64kB'; SELECT count(*) FROM cascade_topology, cascade_tree(), cascade_policy('p; i < p')});
for (
	[ q{cascade_policy('} . join('; ', 'n0', map { "n$_ < n0" } 1 .. $nodes) . q{')}, 2 * ($nodes + 2) * ($nodes + 4) ],
	[ q{cascade_upstream_candidates() WHERE command IS NOT NULL}, $nodes * $nodes ])
{
	my ($function, $rows) = @$_;
	my ($name) = $function =~ /^(\w+)/;
	my $before = peak($reader_pid);
	cmp_ok($reader->query_safe("SELECT count(*) FROM $function"), '>=', $rows, "$name returns $rows rows or more");
	my $grown = peak($reader_pid) - $before;
	cmp_ok($grown, '<', 8 * 1024, "$name: $grown kB for them");
}
$_->quit for $reader, $many;
value($p, q{SELECT cascade_forget('many', true)});

unlike(slurp_file($_->logfile), qr/PANIC|TRAP|terminated by signal|out of memory/, $_->name . ' logs nothing worse') for ($p, $i, $a, $b);
done_testing();
