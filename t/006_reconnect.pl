# The upstream goes away in every way that it can, and the worker finds back.
#
#	p -> i -> l	l is stopped: p must keep WAL for it all the time
#	|    `-> k	moves below j, and back
#	`-> j
#
# p restarts (fast, immediate, killed); the session that i reports through is
# terminated; the socket is closed under the worker at every stage of the
# exchange, by a proxy between i and p; the extension is dropped on p and comes
# back, in another schema; primary_conninfo, upstream_conninfo and node_name
# change by a reload.  Each time the worker is back within seconds, p's hold is
# where it was, and the WAL is there.  While p is down for many attempts, i logs
# one line and not one for each attempt.  At the end i is killed, and l catches
# up from p with every row.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IO::Select;
use IO::Socket::UNIX;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# What the longest backoff, an attempt and a loaded machine may take together.
my $bound = at_most(15);

my $p = new_primary('p');
my $i = new_standby('i', $p);
my $j = new_standby('j', $p);
my $l = new_standby('l', $i);
my $k = new_standby('k', $i);

my $rows = 0;
my ($pin, $pinned_file);

# A report that was sent and answered from now on, and soon.
sub finds_back
{
	my ($node, $what, $schema) = @_;
	my $status = ($schema // 'public') . '.cascade_status';
	my $begin = time;
	my $now = value($node, 'SELECT clock_timestamp()');

	wait_for($node,
		"SELECT upstream_state = 'connected' AND last_report_time > '$now' FROM $status",
		$node->name . " finds back: $what");
	my $took = time - $begin;
	note sprintf('it took %.1f s', $took);
	cmp_ok($took, '<', $bound, "within $bound s: $what");
	return;
}

# WAL is written, and removed wherever it may be; p keeps what it holds for i,
# or what i is called then, and the hold has not moved.
sub still_pinned
{
	my ($when, $name) = @_;

	$name //= 'i';
	$p->safe_psql('postgres', 'INSERT INTO story VALUES (' . ++$rows . ')');
	remove_wal(2, $p);
	is(hold_lsn($p, $name), $pin, "the hold for $name has not moved: $when");
	ok((grep { $_ eq $pinned_file } wal_files($p)), "the segment is there: $when");
	return;
}

sub reload_with
{
	my ($node, $setting, $value) = @_;

	$node->append_conf('postgresql.conf', "$setting = '" . ($value =~ s/'/''/gr) . "'");
	$node->reload;
	return;
}

# What the extension has logged since the log had that size.
sub log_lines
{
	my ($node, $offset) = @_;

	return grep { /cascade_relay:/ } split /\n/, slurp_file($node->logfile, $offset);
}

wait_protected($l, $k, $j);
$p->safe_psql('postgres', 'CREATE TABLE story (n int)');
wait_caught_up($p, $l);
$l->stop;
remove_wal(3, $p, $i);
$pin = value($i, 'SELECT hold_target_lsn FROM cascade_status');
wait_for($p, "SELECT restart_lsn = '$pin' FROM cascade_holds WHERE name = 'i'",
	'p holds what l needs');
$pinned_file = value($p, "SELECT pg_walfile_name('$pin'::pg_lsn + 1)");
still_pinned('before anything happens');

# p restarts
$p->restart;
finds_back($i, 'p was restarted');
still_pinned('p was restarted');
$p->stop('immediate');
$p->start;
finds_back($i, 'p was stopped in immediate mode');
still_pinned('p was stopped in immediate mode');
kill_node($p);
start_after_kill($p);
finds_back($i, 'p was killed');
still_pinned('p was killed');

# i restarts: l, which does not call, counts by its hold, and nothing that i
# says in between lets p go further
for my $mode ('fast', 'immediate')
{
	$i->stop($mode);
	still_pinned("i is down after $mode");
	$i->start;
	finds_back($i, "i was restarted, $mode");
	still_pinned("i was restarted, $mode");
}
wait_caught_up($p, $k);
finds_back($k, 'its upstream was restarted');

# its session is terminated
for my $round (1 .. 3)
{
	value($p,
		"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
		  . "WHERE application_name = 'cascade_relay' AND backend_type = 'client backend'");
	finds_back($i, "its session was terminated, round $round");
}
still_pinned('the sessions were terminated');

# ---- a proxy between i and p ----

my $proxy_dir = PostgreSQL::Test::Utils::tempdir_short();
my $proxy_pid;

# Passes on what comes, and after so many bytes from the server closes the
# connection; 0 is for ever.
sub run_proxy
{
	my ($listener, $limit) = @_;
	my $target = $p->host . '/.s.PGSQL.' . $p->port;
	my (%other, %is_server, %passed);
	my $select = IO::Select->new($listener);

	while (my @ready = $select->can_read)
	{
		for my $from (@ready)
		{
			if ($from == $listener)
			{
				my $client = $listener->accept or next;
				my $server = IO::Socket::UNIX->new(Peer => $target) or next;

				$other{$client} = $server;
				$other{$server} = $client;
				$is_server{$server} = 1;
				$passed{$server} = 0;
				$select->add($client, $server);
				next;
			}
			next unless $other{$from};
			my $to = $other{$from};
			my $n = sysread($from, my $data, 8192);

			if ($n && $limit && $is_server{$from})
			{
				$data = substr($data, 0, $limit - $passed{$from});
				$passed{$from} += length $data;
				syswrite($to, $data);
				$n = 0 if $passed{$from} >= $limit;
			}
			elsif ($n)
			{
				syswrite($to, $data);
			}
			if (!$n)
			{
				$select->remove($from, $to);
				delete @other{ $from, $to };
				close $from;
				close $to;
			}
		}
	}
	return;
}

sub start_proxy
{
	my ($limit) = @_;
	my $path = "$proxy_dir/.s.PGSQL.5432";

	unlink $path;
	my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 5) or die "$path: $!";
	$proxy_pid = fork // die "fork: $!";
	if ($proxy_pid == 0)
	{
		local $SIG{PIPE} = 'IGNORE';
		eval { run_proxy($listener, $limit) };
		kill 'KILL', $$;
	}
	close $listener;
	return;
}

# The kernel closes its sockets.
sub kill_proxy
{
	kill 'KILL', $proxy_pid;
	waitpid $proxy_pid, 0;
	undef $proxy_pid;
	return;
}

END { kill 'KILL', $proxy_pid if $proxy_pid; }

start_proxy(0);
reload_with($i, 'cascade_relay.upstream_conninfo', "host=$proxy_dir port=5432");
finds_back($i, 'upstream_conninfo leads through the proxy');
kill_proxy();
wait_for($i, "SELECT upstream_state = 'waiting' FROM cascade_status", 'the socket was closed under i');
start_proxy(0);
finds_back($i, 'the proxy is back');

# Cut off at every stage: after the authentication, among the parameters of the
# session, in the answer that names the schema, in the replies to the hello and
# to the report.
for my $limit (9, 300, 500, 650, 900)
{
	my $failed = value($i, 'SELECT reports_failed FROM cascade_status');

	kill_proxy();
	start_proxy($limit);
	wait_for($i, "SELECT reports_failed > $failed FROM cascade_status",
		"cut off after $limit bytes");
	like(value($i, 'SELECT last_error FROM cascade_status'),
		qr/closed the connection/, 'and i says so');
	kill_proxy();
	start_proxy(0);
	finds_back($i, "was cut off after $limit bytes");
}
kill_proxy();
reload_with($i, 'cascade_relay.upstream_conninfo', '');
finds_back($i, 'upstream_conninfo is empty again');
still_pinned('connections were cut');

# ---- the extension is dropped, and created again ----

my $offset = -s $i->logfile;
$p->safe_psql('postgres', 'DROP EXTENSION cascade_relay');
$i->wait_for_log(qr/cascade_relay: (cannot report|the upstream refused).*\n.*HINT:.*CREATE EXTENSION/,
	$offset);
is(hold_lsn($p, 'i'), $pin, 'without the extension the hold stays');
$p->safe_psql('postgres',
	'CREATE SCHEMA "An other"; CREATE EXTENSION cascade_relay SCHEMA "An other"');
wait_caught_up($p, $i);
finds_back($i, 'the extension is there again, in another schema', '"An other"');
like(
	value($i, 'SELECT last_error FROM "An other".cascade_status'),
	qr/CREATE EXTENSION/,
	'the last error said what was missing');
$p->safe_psql('postgres', 'ALTER EXTENSION cascade_relay SET SCHEMA public');
wait_caught_up($p, $i);
finds_back($i, 'the extension was moved');
still_pinned('the extension was dropped');

# ---- quiet while p is down ----

$offset = -s $i->logfile;
my $failed = value($i, 'SELECT reports_failed FROM cascade_status');
$p->stop;
wait_for($i, "SELECT reports_failed >= $failed + 3 FROM cascade_status", 'p is down');
my @early = log_lines($i, $offset);
wait_for($i, "SELECT reports_failed >= $failed + 6 FROM cascade_status", 'and down');
my @late = log_lines($i, $offset);
# a stop has three faces: a session that ends, a refusal, nobody there
cmp_ok(scalar(@early), '<=', 3, 'hardly a line when the upstream goes') or diag(join "\n", @early);
is(scalar(@late), scalar(@early), 'and none for each attempt') or diag(join "\n", @late);
is(value($i, 'SELECT upstream_state, last_error IS NOT NULL FROM cascade_status'),
	'waiting|t', 'and what is wrong can be seen');
$offset = -s $i->logfile;
$p->start;
finds_back($i, 'p was down for many attempts');
@late = log_lines($i, $offset);
cmp_ok(scalar(@late), '<=', 2, 'hardly a line when it is back') or diag(join "\n", @late);
is((grep { /reporting to upstream "p"/ } @late), 1, 'one says so');
still_pinned('p was down');

# ---- k moves below j, and back ----

my $k_started = value($k, 'SELECT pg_postmaster_start_time()');
my $k_worker = value($k, 'SELECT worker_pid FROM cascade_status');
my $k_hold = hold_lsn($i, 'k');
value($j, "SELECT pg_create_physical_replication_slot('k', true)");
point_at($k, $j);
$k->reload;
wait_for($k, "SELECT upstream_name = 'j' FROM cascade_status", 'k follows its primary_conninfo');
finds_back($k, 'below j');
wait_protected($k);
isnt(hold_lsn($j, 'k'), '', 'j has a hold for it');
ok(lsn_le($i, $k_hold, hold_lsn($i, 'k')), 'the hold on i has not moved back');
write_segments($p, 2);
wait_caught_up($p, $k);
is(tree_state($j, 'k'), 'streaming', 'and j feeds it');
still_pinned('k is below j');
my $j_hold = hold_lsn($j, 'k');
point_at($k, $i);
$k->reload;
wait_for($k, "SELECT upstream_name = 'i' FROM cascade_status", 'k follows it back');
finds_back($k, 'below i again');
wait_protected($k);
wait_caught_up($p, $k);
ok(lsn_le($j, $j_hold, hold_lsn($j, 'k')), 'the hold on j has not moved back');
is(value($k, 'SELECT pg_postmaster_start_time(), worker_pid FROM cascade_status'),
	"$k_started|$k_worker", 'no restart was needed');
still_pinned('k is below i again');

# ---- the proof ----

slot_from_hold($p, 'i', 'l');
kill_node($i);
point_at($l, $p);
$l->start;
wait_caught_up($p, $l);
is(value($l, 'SELECT count(*), sum(n) FROM story'),
	$rows . '|' . $rows * ($rows + 1) / 2, 'l has every row, from p');

$_->stop for $k, $l, $j, $p;
done_testing();
