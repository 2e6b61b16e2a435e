# A name has two addresses, and the first one swallows whatever is sent to it.
#
#	p ─── i ─── l		p listens on 127.0.0.1; two.test is 127.0.0.2, where
#				nobody answers and nobody refuses, and 127.0.0.1
#
# i streams, and reports to two.test.  Each address has its share of the time, so
# that the reports come to p after the first one has had its own, and WAL goes.  When
# the connection is lost, i begins with the address that has answered.  l asks what a
# move to two.test would be, and hears it from p.  An address that refuses costs nothing.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Socket;
use Test::More;
use Time::HiRes qw(time);

# A library of another operating system's may not replace functions.
my $library = ($ENV{TESTDIR} // '.') . '/tmp_unit/other_clock.so';
plan skip_all => "no $library" unless -e $library;

my $p = new_primary('p', conf => "listen_addresses = '127.0.0.1'\n");
add_rows($p, 1);
my $i = new_standby('i', $p);
my $l = new_standby('l', $i);
wait_protected($i, $l);

# ---- an address that swallows ----

# Its queue is full, so the kernel drops what comes.
my $swallows = IO::Socket::INET->new(LocalAddr => '127.0.0.2', LocalPort => $p->port, Proto => 'tcp', Listen => 1, ReuseAddr => 1);
plan skip_all => "no address 127.0.0.2: $!" unless $swallows;
listen $swallows, 0;
my @queue = map { IO::Socket::INET->new(PeerAddr => '127.0.0.2', PeerPort => $p->port, Proto => 'tcp', Blocking => 0) } 1 .. 4;
my $probe = IO::Socket::INET->new(PeerAddr => '127.0.0.2', PeerPort => $p->port, Proto => 'tcp', Timeout => 1);
plan skip_all => 'the kernel does not drop what comes to a full queue' if $probe;

sub start_with_resolver
{
	my ($node) = @_;
	local $ENV{LD_PRELOAD} = $library;

	$node->restart;
	return;
}

# ---- the reports ----

set_conf($i, q{cascade_relay.upstream_conninfo = 'host=two.test connect_timeout=2 port=} . $p->port . q{'});
start_with_resolver($i);
my $start = time;
wait_connected($i);
note(sprintf('it took %.1f s', time - $start));
wait_protected($i, $l);
is(value($p, q{SELECT client_addr FROM pg_stat_activity WHERE application_name = 'cascade_relay'}), '127.0.0.1', 'the reports come by the address that answers');
my $need = value($p, 'SELECT frontier_lsn FROM cascade_status');
remove_wal(2, $p, $i, $l);
wait_for($p, "SELECT frontier_lsn > '$need' FROM cascade_status", 'and move what p keeps');

my $silence = qr/LOG:  cascade_relay: cannot report to the upstream: no answer from the upstream within 2(?:\.\d+)? s/;
my $failed = () = slurp_file($i->logfile) =~ /$silence/g;
is($failed, 1, 'one attempt has failed');
my $reports = value($i, 'SELECT reports_sent FROM cascade_status');
value($p, q{SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'cascade_relay'});
wait_for($i, "SELECT upstream_state = 'connected' AND reports_sent > $reports + 1 FROM cascade_status", 'i finds back');
$failed = () = slurp_file($i->logfile) =~ /$silence/g;
is($failed, 1, '... by the same address');

# ---- a move ----

set_conf($l, q{primary_conninfo = '} . ($i->connstr . ' application_name=l connect_timeout=2') =~ s/'/''/gr . q{'});
start_with_resolver($l);
wait_connected($l);
is(value($l, "SELECT cascade_follow('p', conninfo => 'host=two.test port=" . $p->port . q{', dry_run => true)}),
	'would stream from "p" at host "two.test", port ' . $p->port . ' with slot "cascade_adopted_l"; nothing was changed', 'a move finds p');

# ---- an address that refuses ----

close $_ for @queue, $swallows;
$i->stop;
my $log = -s $i->logfile;
{
	local $ENV{LD_PRELOAD} = $library;
	$i->start;
}
wait_connected($i);
unlike(slurp_file($i->logfile, $log), qr/cannot report to the upstream/, 'one that refuses costs no attempt');

done_testing();
