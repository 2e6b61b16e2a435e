# The clock of a standby is set back, that of a primary goes to and fro, and names
# are slow to resolve.
#
#	p ─── l
#
# l was started with its clock some hours ahead, as on a machine that has yet to
# ask for the time, and reports.  The clock is set back by an hour: it goes on
# reporting, and p, which lets go of whoever is silent for some seconds, does
# not let go of its hold.  Then l gets no WAL any more, and only reports.  p
# goes down, and l waits to try again; the clock is set back again: what l knew
# of p is forgotten in its time, and when p is back, it reports to p again.
# l looks up p's name, which takes longer than connecting may: that is not
# counted as connecting.
#
# Last, l stops, and p's own clock is set ahead by more than p waits for whoever is
# silent, and back: silence is what p has listened to, and the hold stays.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $library = ($ENV{TESTDIR} // '.') . '/tmp_unit/other_clock.so';
my $dir = PostgreSQL::Test::Utils::tempdir();
my $clock = "$dir/clock_of_l";
my $clock_of_p = "$dir/clock_of_p";
my $hour = 3600;

# That clock is so far ahead of the true one.
sub set_clock
{
	my ($ahead, $clock) = (@_, $clock);

	open my $fh, '>', "$clock.new" or die "$clock.new: $!";
	print $fh $ahead;
	close $fh;
	rename "$clock.new", $clock or die "$clock: $!";
	return;
}

# Starts a node that lives by that clock.
sub start_by_clock
{
	my ($node, $clock, $resolver_ms) = @_;
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{OTHER_CLOCK} = $clock;
	local $ENV{OTHER_RESOLVER_MS} = $resolver_ms;

	$node->start;
	return;
}

set_clock(10 * $hour);
my $p = new_primary('p', conf => "listen_addresses = '127.0.0.1'\ncascade_relay.hold_timeout = 2s\n");
my $l = new_standby('l', $p, no_start => 1, conf => "cascade_relay.stale_timeout = 1s\n");
start_by_clock($l, $clock, 0);
wait_connected($l);
checkpoint_all($p, $l);
wait_protected($l);
is(value($l, q{SELECT clock_timestamp() > now() - interval '1 minute'}), 't', 'l has a clock');
cmp_ok(value($l, 'SELECT extract(epoch FROM clock_timestamp())'), '>', time + 9 * $hour, '... that is ahead');
my $hold = value($p, q{SELECT slot_name FROM cascade_holds WHERE name = 'l'});

# l reports as often as makes up a time.
sub reports_for
{
	my ($seconds, $what) = @_;
	my $interval = value($l, q{SELECT extract(epoch FROM setting::interval) FROM (SELECT current_setting('cascade_relay.report_interval') AS setting) s});
	my $enough = value($p, 'SELECT reports_received FROM cascade_status') + $seconds / $interval;

	wait_for($p, "SELECT reports_received >= $enough FROM cascade_status", $what);
	return;
}

# ---- connected ----

set_clock(9 * $hour);
reports_for(6, 'it goes on reporting when the clock is set back');
is(value($p, q{SELECT slot_name FROM cascade_holds WHERE name = 'l'}), $hold, '... and is held');
unlike(slurp_file($p->logfile), qr/released hold/, '... all the time');
sleeps(value($l, 'SELECT worker_pid FROM cascade_status'), 'connected, after the clock was set back');

# ---- waiting to try again ----

$l->append_conf('postgresql.conf', "primary_conninfo = 'host=$clock.nowhere'");
$l->append_conf('postgresql.conf', "cascade_relay.upstream_conninfo = 'host=" . $p->host . ' port=' . $p->port . q{'});
$l->reload;
wait_for($l, 'SELECT count(*) = 0 FROM pg_stat_wal_receiver', 'l gets no WAL any more');
wait_for($l, q{SELECT upstream_state, upstream_name FROM cascade_status}, '... but reports', 'connected|p');
$p->stop('immediate');
wait_for($l, q{SELECT upstream_state FROM cascade_status}, 'l waits to try again', 'waiting');
set_clock(8 * $hour);
sleeps(value($l, 'SELECT worker_pid FROM cascade_status'), 'waiting, after the clock was set back');
wait_for($l, 'SELECT protected IS NULL FROM cascade_status', 'what it knew of the root is forgotten all the same');
$p->start;
wait_for($l, q{SELECT upstream_state FROM cascade_status}, 'and it reports again', 'connected');

# ---- slow names ----

$l->append_conf('postgresql.conf', "cascade_relay.upstream_conninfo = 'host=localhost port=" . $p->port . " connect_timeout=2'");
$l->stop;
start_by_clock($l, $clock, 2500);
wait_for($l, q{SELECT upstream_state FROM cascade_status}, 'it connects where looking up the name takes longer than connecting may', 'connected');


# ---- the clock of p ----

# l streams again, and p is started by a clock that is right, for now
$l->stop;
$p->stop;
point_at($l, $p);
set_clock(0, $clock_of_p);
start_by_clock($p, $clock_of_p, 0);
set_conf($p, q{cascade_relay.hold_timeout = '10min'});
$l->start;
wait_protected($l);
my $offset = -s $p->logfile;
my $spared = q{SELECT count(*) FROM cascade_check WHERE code = 'hold_timeout'};

sub goes_on
{
	my ($what) = @_;

	# not by what time it is: that is what has just changed
	for (1 .. 3)
	{
		my $then = value($p, 'SELECT observed_at FROM cascade_topology WHERE is_local');

		wait_for($p, "SELECT observed_at <> '$then' FROM cascade_topology WHERE is_local", "p looks around: $what");
	}
	is(value($p, $spared), '0', "nobody is said to have been silent: $what");
	ok(lsn_le($p, hold_lsn($p, 'l'), value($p, q{SELECT replay_lsn FROM cascade_topology WHERE node_name = 'l'})), 'l is held');
	return;
}

for my $away (0, 1)
{
	my $l_is = $away ? 'while l is away' : 'while l reports';

	if ($away)
	{
		$l->stop;
		wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'l'}, 'l is away', 'down');
		add_rows($p, 3);
	}
	set_clock(10 * $hour, $clock_of_p);
	goes_on("ten hours later, $l_is");
	set_clock(-10 * $hour, $clock_of_p);
	goes_on("ten hours before, $l_is");
	set_clock(0, $clock_of_p);
	goes_on("back again, $l_is");
}
unlike(slurp_file($p->logfile, $offset), qr/cascade_relay: released hold/, 'and nothing was released');
$l->start;
same_rows($p, $l);
wait_protected($l);

done_testing();
