# All come back at once to an upstream that was away.
#
#	p ─┬─ n1
#	   ├─ …
#	   └─ n6
#
# p has room for one session of each child, and for few others.  It is killed, and
# while it is away each child tries less and less often.  When it is back, all of
# them are within a few attempts, none of which finds p full, and whoever else
# wants to connect can.  All are protected as before.
#
# CHILDREN=50 in the environment makes it fifty.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use List::Util qw(max min sum);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $n = $ENV{CHILDREN} || 6;

# a standby must have as much as its primary
my $conf = 'max_connections = ' . ($n + 8) . "\nmax_wal_senders = " . ($n + 5) . "\nmax_replication_slots = " . (2 * $n + 5) . "\n";
my $p = new_primary('p', conf => "${conf}log_connections = on\n");

$p->backup('all');
my @children = map { new_standby("n$_", $p, backup => 'all', conf => $conf) } 1 .. $n;

sub failed { return map { value($_, 'SELECT reports_failed FROM cascade_status') } @_; }

# Who is in p's log from a place on, and how many were turned away.
sub sessions_since
{
	my ($log) = @_;
	my $text = slurp_file($p->logfile, $log);
	my @came = $text =~ /connection authorized: .*application_name=cascade_relay/g;

	unlike($text, qr/too many clients|remaining connection slots are reserved/, 'nobody found p full');
	return scalar @came;
}

wait_protected(@children);
my @before = failed(@children);

# ---- away ----

my $start = time;
kill_node($p);
for my $at (0 .. $#children)
{
	wait_for($children[$at], "SELECT reports_failed >= $before[$at] + 4 FROM cascade_status", "n" . ($at + 1) . ' tries again');
}
my @tries = failed(@children);
$tries[$_] -= $before[$_] for 0 .. $#tries;
my $away = time - $start;
# the first at once, the next after 250, 500, 1000 ms and so on up to 10 s, less a quarter
my $least = 0.75 * sum(map { min(10, 0.25 * 2**($_ - 2)) } 2 .. max(@tries));
cmp_ok($away, '>=', $least, sprintf('%d attempts of %d in %.1f s, none of more than %d', sum(@tries), $n, $away, max(@tries)));

# ---- back ----

my $log = -s $p->logfile;
start_after_kill($p);
is(value($p, 'SELECT 1'), 1, 'anybody can connect');
wait_for($p, 'SELECT count(*) FROM cascade_holds WHERE counted AND last_report_time > pg_postmaster_start_time()', 'all report, and are held', $n);
wait_protected(@children);
is(value($p, q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cascade_relay'}), $n, 'with one session each');
# some may come before p's worker is ready, and try again
my $came = sessions_since($log);
cmp_ok($came, '<=', 4 * $n, "after few attempts: $came");

done_testing();
