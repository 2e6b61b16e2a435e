# The network is cut without a word: nothing is closed, and nothing arrives.
#
#	p ──(proxy)── i ── l	all that i and p say to one another goes through a
#	└── j			proxy, which is stopped by a signal
#
# While the proxy stands still, i notices within the deadline of its worker, and
# l is told; p notices too, keeps what i's branch needs, whatever is written and
# removed, and moves no hold for it.  At the same time the session that j
# reports through is stopped by a signal: j comes back through another one, not
# as a duplicate, and when the stopped session goes on, it has no say any more.  When the proxy goes on, everybody finds back, every row is
# there, no session is left behind, and the logs have a line for each change and
# not for each attempt.
#
# At last j is led to a port where what asks for a connection is dropped.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Socket;
use Test::More;

my $quick = qq{
cascade_relay.stale_timeout = 1s
wal_sender_timeout = 2s
wal_receiver_timeout = 2s
wal_receiver_status_interval = 1s
};

# ---- the proxy ----

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $proxy;

# Passes on what comes, either way, until one side closes.
sub pass_on
{
	my ($listener, $target) = @_;
	my $select = IO::Select->new($listener);
	my %other;

	while (my @ready = $select->can_read)
	{
		for my $from (@ready)
		{
			if ($from == $listener)
			{
				my $client = $listener->accept or next;
				my $server = IO::Socket::UNIX->new(Peer => $target);

				if (!$server)
				{
					close $client;
					next;
				}
				$other{$client} = $server;
				$other{$server} = $client;
				$select->add($client, $server);
			}
			elsif (my $to = $other{$from})
			{
				my $data;
				my $n = sysread($from, $data, 65536);

				next if $n && syswrite($to, $data);
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
	my ($node) = @_;
	my $target = $node->host . '/.s.PGSQL.' . $node->port;
	my $listener = IO::Socket::UNIX->new(Local => "$dir/.s.PGSQL.5432", Listen => 20) or die "proxy: $!";

	$proxy = fork // die "fork: $!";
	if ($proxy == 0)
	{
		local $SIG{PIPE} = 'IGNORE';
		eval { pass_on($listener, $target) };
		kill 'KILL', $$;
	}
	close $listener;
	return;
}

END { kill 'KILL', $proxy if $proxy; }

# ---- before ----

my $p = new_primary('p', conf => $quick);

# The processes that nodes report through on p.
sub sessions
{
	return map { int } split /\n/,
	  value($p, q{SELECT pid FROM pg_stat_activity WHERE application_name = 'cascade_relay' AND backend_type = 'client backend' ORDER BY 1});
}

start_proxy($p);
my $j = new_standby('j', $p, conf => $quick);
wait_connected($j);
my ($j_session) = sessions();
my $i = new_standby('i', $p, conf => $quick, conninfo => "host=$dir port=5432");
my $l = new_standby('l', $i, conf => $quick);
wait_connected($i, $l);
add_rows($p, 2);
checkpoint_all($p, $i, $j, $l);
wait_protected($i, $j, $l);
is(scalar sessions(), 2, 'p has a session of i and one of j');

# ---- silence ----

my $i_log = -s $i->logfile;
my $j_log = -s $j->logfile;
my $p_log = -s $p->logfile;
my $frozen_at = value($p, 'SELECT clock_timestamp()');
kill 'STOP', $proxy;
kill 'STOP', $j_session;

add_rows($p, 4);
checkpoint_all($p, $j);
wait_for($p, q{SELECT state = 'stale' FROM cascade_topology WHERE node_name = 'i'}, 'p shows that it hears nothing from i');
my $hold = hold_lsn($p, 'i');
wait_for($p, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'stale_node' AND node_name = 'i'}, 'and says so');
wait_for($i, q{SELECT upstream_state = 'waiting' AND last_error ~ '^no answer from the upstream within 10 s' FROM cascade_status},
	'i notices');
wait_for($i, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'upstream_silent' AND severity = 'critical' AND node_name = 'i'}, 'and says so');
wait_for($l, q{SELECT warnings @> '{upstream_silent}' FROM cascade_topology WHERE node_name = 'i'}, 'l is told');
is(value($l, q{SELECT upstream_state FROM cascade_status}), 'connected', 'which goes on reporting');
wait_for($l, 'SELECT protected IS NULL FROM cascade_status', 'and does not know any more whether it is protected');

# ---- j is back through another session ----

wait_for($j, "SELECT upstream_state = 'connected' AND last_report_time > '$frozen_at' AND protected FROM cascade_status",
	'j is back, while the session that it had stands still');
ok((grep { $_ == $j_session } sessions()), 'which is still there');
wait_for($p, 'SELECT count(*) = 1 FROM cascade_downstreams WHERE kind = \'hold\' AND name = \'j\' AND last_report_time > now() - interval \'2s\'',
	'p takes its reports');
kill 'CONT', $j_session;
wait_for($p, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $j_session", 'when the old session goes on, it ends');
my $reports = value($j, 'SELECT reports_sent FROM cascade_status');
my $failed = value($j, 'SELECT reports_failed FROM cascade_status');
wait_for($j, "SELECT reports_sent > $reports + 5 FROM cascade_status", 'j goes on');
is(value($j, 'SELECT upstream_state, reports_failed FROM cascade_status'), "connected|$failed", 'undisturbed');
is(tree_state($p, 'j'), 'streaming', 'p did not take it for gone');
unlike(slurp_file($p->logfile, $p_log), qr/refused node "j"/, 'nor for another one');

# ---- meanwhile nothing was lost ----

remove_wal(3, $p, $j);
is(hold_lsn($p, 'i'), $hold, 'the hold of i has not moved');
ok(has_segment($p, $hold), 'and WAL is there from it on');
my $need = value($l, 'SELECT pg_last_wal_replay_lsn()');
ok(lsn_le($p, $hold, $need) && has_segment($p, $need), 'which is what l needs');

# ---- and everybody finds back ----

kill 'CONT', $proxy;
wait_for($i, "SELECT upstream_state = 'connected' FROM cascade_status", 'i finds back');
same_rows($p, $i, $l);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
wait_for($p, q{SELECT state = 'streaming' FROM cascade_topology WHERE node_name = 'i'}, 'p hears it');
wait_for($p, "SELECT restart_lsn > '$hold' FROM cascade_holds WHERE name = 'i'", 'and moves its hold');
wait_for($p, q{SELECT count(*) = 2 FROM pg_stat_activity WHERE application_name = 'cascade_relay' AND backend_type = 'client backend'},
	'no session is left behind');
wait_for($_, q{SELECT count(*) = 0 FROM cascade_check WHERE code IN ('upstream_silent', 'stale_node', 'duplicate_name')}, $_->name . ' has nothing to say')
  for ($p, $i, $l);

for ([ $i, $i_log ], [ $j, $j_log ])
{
	my ($node, $from) = @$_;
	my @lines = grep { /cascade_relay:/ } split /\n/, slurp_file($node->logfile, $from);

	cmp_ok(scalar @lines, '<=', 4, $node->name . ' has a line for each change') or diag join("\n", @lines);
	is((grep { /reporting to upstream "p"/ } @lines), 1, 'one says that it is back');
}

# ---- nobody takes a connection ----

# What asks for one is dropped, as it is by a port whose queue is full.  The worker
# waits asleep, gives up, and what is held for its node stays.
socket(my $full, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
bind($full, sockaddr_in(0, INADDR_LOOPBACK)) or die "bind: $!";
listen($full, 0) or die "listen: $!";
my ($port) = sockaddr_in(getsockname $full);
my @queue = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Blocking => 0) } 1 .. 8;
$hold = hold_lsn($p, 'j');
set_conf($j, "cascade_relay.upstream_conninfo = 'host=127.0.0.1 port=$port'");
wait_for($j, q{SELECT upstream_state FROM cascade_status}, 'j tries to connect', 'connecting');
sleeps(value($j, 'SELECT worker_pid FROM cascade_status'), 'while nobody answers');
wait_for($j, q{SELECT last_error ~ '^no answer from the upstream within 10 s while connecting' FROM cascade_status}, 'and gives up after a while');
is(hold_lsn($p, 'j'), $hold, 'p holds what it has held');
ok(has_segment($p, $hold), 'and has it');
set_conf($j, q{cascade_relay.upstream_conninfo = ''});
wait_connected($j);
wait_protected($j);

done_testing();
