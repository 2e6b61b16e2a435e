# Sessions whose other end has vanished without a word do not block a smart stop.
#
#	p ─── i ─── l		i reports to p, and l is moved to p, through a proxy
#				that forgets flows: what was connected gets
#				nothing any more, in either direction, and nobody
#				is told; what connects anew passes
#
# i is killed while its flow is forgotten, and reports through a new one.  Its
# former session on p, which waits for a message that cannot come, is ended at
# once, and p stops in smart mode.  Then the flow of a cascade_follow is forgotten
# while that waits for the WAL receiver, and the command is cancelled.  No list on p
# has its session, but that is bounded, and p stops again.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IO::Select;
use IO::Socket::UNIX;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $p = new_primary('p');
add_rows($p, 1);
my $i = new_standby('i', $p);
my $l = new_standby('l', $i);

# ---- the proxy ----

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $flows = "$dir/flows";

mkdir $flows or die "$flows: $!";

sub pass_on
{
	my ($client) = @_;
	my $server = IO::Socket::UNIX->new(Peer => $p->host . '/.s.PGSQL.' . $p->port) or return;
	my $select = IO::Select->new($client, $server);

	while (my @ready = $select->can_read)
	{
		for my $from (@ready)
		{
			my $n = sysread $from, my $data, 8192;

			return unless $n;
			syswrite $from == $client ? $server : $client, $data;
		}
	}
	return;
}

my $listener = IO::Socket::UNIX->new(Local => "$dir/.s.PGSQL." . $p->port, Listen => 10) or die "proxy: $!";
my $proxy = fork // die "fork: $!";
if ($proxy == 0)
{
	$SIG{CHLD} = 'IGNORE';
	while (1)
	{
		my $client = $listener->accept or next;
		my $pid = fork // next;

		next if $pid;
		close $listener;
		open my $fh, '>', "$flows/$$" or kill 'KILL', $$;
		pass_on($client);
		unlink "$flows/$$";
		kill 'KILL', $$;
	}
}
close $listener;

# A process that stands still has both ends open.
my @forgotten;
sub forget_flows
{
	my @pids = grep { /^\d+$/ } slurp_dir($flows);

	kill 'STOP', @pids;
	unlink map { "$flows/$_" } @pids;
	push @forgotten, @pids;
	return scalar @pids;
}

END { kill 'KILL', grep { defined } $proxy, @forgotten; }

# ---- what is seen on p ----

my $sessions = q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cascade_relay' AND backend_type = 'client backend'};

sub stops
{
	my ($what, $seconds) = @_;
	my $start = time;

	ok($p->stop('smart', fail_ok => 1, timeout => at_most(40)), "p stops in smart mode: $what");
	cmp_ok(time - $start, '<', at_most($seconds), "... within $seconds s");
	note(sprintf('%.1f s', time - $start));
	return;
}

# ---- reports ----

set_conf($i, "cascade_relay.upstream_conninfo = 'host=$dir'");
wait_for($p, $sessions, 'i reports to p', 1);
wait_connected($i, $l);
wait_protected($l);
wait_until('it does so through the proxy', sub { scalar grep { /^\d+$/ } slurp_dir($flows) });
my $former = value($p, "SELECT pid FROM pg_stat_activity WHERE application_name = 'cascade_relay'");
is(forget_flows(), 1, 'the flow is forgotten');
kill_node($i);
start_after_kill($i);
wait_connected($i);
wait_for($p, "SELECT count(*) FROM pg_stat_activity WHERE pid = $former", 'the former session is ended', 0);
is(value($p, $sessions), 1, 'the new one is there');
ok($p->wait_for_log(qr/\[$former\] .*FATAL:  terminating connection due to administrator command/), 'p says so');
stops('a superseded session', 10);

# ---- a move ----

$p->start;
wait_connected($i);
my $startup = value($l, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'});
kill 'STOP', $startup;
my ($out, $err) = ('', '');
my $move = IPC::Run::start([ 'psql', '-XAt', '-d', $l->connstr('postgres'),
	'-c', "SELECT cascade_follow('p', conninfo => 'host=$dir port=" . $p->port . q{', timeout => '1h')} ], '>', \$out, '2>', \$err);
wait_for($p, q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cascade_adopted_l'}, 'the move is halfway', 1);
wait_for($l, q{SELECT wait_event_type FROM pg_stat_activity WHERE query LIKE 'SELECT cascade_follow(%'}, '... and waits', 'Extension');
cmp_ok(forget_flows(), '>=', 1, 'its flow is forgotten');
value($l, q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT cascade_follow(%'});
$move->finish;
kill 'CONT', $startup;
like($err, qr/ERROR:  canceling statement due to user request/, 'it is cancelled');
is(value($p, $sessions . " AND query ~ 'text OPERATOR|pg_drop_replication_slot|pg_replication_slots'"), '1', 'its session is there still');
stops('the session of a move', 20);
$p->start;
wait_connected($i);
same_rows($p, $i, $l);
done_testing();
