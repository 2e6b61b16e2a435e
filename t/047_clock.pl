# The clock of a standby is set back, and names are slow to resolve.
#
#	p ─── l
#
# l was started with its clock some hours ahead, as on a machine that has yet to
# ask for the time, and reports.  The clock is set back by an hour: it goes on
# reporting, and p, which lets go of whoever is silent for some seconds, does
# not let go of its hold.  Then l gets no WAL any more, and only reports.  p
# goes down, and l waits to try again; the clock is set back again: what l knew
# of p is forgotten in its time, and when p is back, it reports to p again.
# Last, l looks up p's name, which takes longer than connecting may: that is
# not counted as connecting.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $library = ($ENV{TESTDIR} // '.') . '/tmp_unit/other_clock.so';
my $clock = PostgreSQL::Test::Utils::tempdir() . '/clock';
my $hour = 3600;

# The clock of l is so far ahead of the true one.
sub set_clock
{
	my ($ahead) = @_;

	open my $fh, '>', "$clock.new" or die "$clock.new: $!";
	print $fh $ahead;
	close $fh;
	rename "$clock.new", $clock or die "$clock: $!";
	return;
}

# Starts a node that lives by that clock.
sub start_by_clock
{
	my ($node, $resolver_ms) = @_;
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{OTHER_CLOCK} = $clock;
	local $ENV{OTHER_RESOLVER_MS} = $resolver_ms;

	$node->start;
	return;
}

set_clock(10 * $hour);
my $p = new_primary('p', conf => "listen_addresses = '127.0.0.1'\ncascade_relay.hold_timeout = 2s\n");
my $l = new_standby('l', $p, no_start => 1, conf => "cascade_relay.stale_timeout = 1s\n");
start_by_clock($l, 0);
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

# ---- waiting to try again ----

$l->append_conf('postgresql.conf', "primary_conninfo = 'host=$clock.nowhere'");
$l->append_conf('postgresql.conf', "cascade_relay.upstream_conninfo = 'host=" . $p->host . ' port=' . $p->port . q{'});
$l->reload;
wait_for($l, 'SELECT count(*) = 0 FROM pg_stat_wal_receiver', 'l gets no WAL any more');
wait_for($l, q{SELECT upstream_state, upstream_name FROM cascade_status}, '... but reports', 'connected|p');
$p->stop('immediate');
wait_for($l, q{SELECT upstream_state FROM cascade_status}, 'l waits to try again', 'waiting');
set_clock(8 * $hour);
wait_for($l, 'SELECT protected IS NULL FROM cascade_status', 'what it knew of the root is forgotten all the same');
$p->start;
wait_for($l, q{SELECT upstream_state FROM cascade_status}, 'and it reports again', 'connected');

# ---- slow names ----

$l->append_conf('postgresql.conf', "cascade_relay.upstream_conninfo = 'host=localhost port=" . $p->port . " connect_timeout=2'");
$l->stop;
start_by_clock($l, 2500);
wait_for($l, q{SELECT upstream_state FROM cascade_status}, 'it connects where looking up the name takes longer than connecting may', 'connected');

done_testing();
