# A worker that is stopped must not speak for the root any more.
#
#	p -> i -> l -> m	reports every 200 ms, stale_timeout 2 s
#
# The worker of i is stopped with SIGSTOP, as a debugger, a frozen cgroup or a
# full disk under a core dump does it.  The sessions on i go on answering the
# reports of l with what that worker left behind: p knows me, p holds for l, p is
# at this LSN.  None of that is true any longer.  So each reply says how old its
# news of the root is, counted from when the report was sent that was answered;
# beyond max(stale_timeout, three times the report intervals of the path) the root
# is unknown: on i itself, on l, and on m, whose own upstream is well.  On p a
# finding says that i streams but does not report.  When the worker goes on, so
# does everything else.  The same with the worker of p itself.
#
# A long interval is no stuck worker: with a report_interval as long as
# stale_timeout allows, at depth 3, nobody is stale, unknown or a finding.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use CascadeRelay;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = "cascade_relay.stale_timeout = 2s\n";
my $p = new_primary('p', conf => $conf);
my $i = new_standby('i', $p, conf => $conf);
my $l = new_standby('l', $i, conf => $conf);
my $m = new_standby('m', $l, conf => $conf);
my @all = ($p, $i, $l, $m);

my $verdict = 'SELECT protected FROM cascade_status';
my $findings = q{SELECT code, node_name FROM cascade_check WHERE level > 0};

sub worker_pid { return value($_[0], 'SELECT worker_pid FROM cascade_status') }

# Whether a node says anything that it cannot know, with the root unknown.
sub knows_nothing
{
	my ($node) = @_;
	my $name = $node->name;

	wait_for($node, 'SELECT protected IS NULL FROM cascade_status', "$name does not know whether it is protected");
	is(value($node, "SELECT protected IS NULL AND replay_lag_bytes IS NULL FROM cascade_topology WHERE is_local"),
		't', "$name shows neither protection nor lag of itself in the tree");
	is(value($node, "SELECT count(replay_lag_bytes) FROM cascade_topology"),
		'0', "$name shows no lag of any node");
	ok(value($node, q{SELECT root_age > interval '1.9 s' FROM cascade_status}) eq 't',
		"$name says how old its news of the root is");
	return;
}

sub all_is_well
{
	my ($fresh) = @_;

	wait_protected(@all);
	wait_for($_, $findings, 'no findings on ' . $_->name, '') for @all;
	wait_for($_, "SELECT root_age < interval '$fresh' FROM cascade_status",
		$_->name . ' has fresh news of the root') for @all;
	return;
}

all_is_well('2 s');

# ---- the worker of i ----

my $pid = worker_pid($i);
kill 'STOP', $pid;
knows_nothing($_) for $i, $l, $m;
is(value($l, 'SELECT upstream_state FROM cascade_status'), 'connected',
	'while the upstream of l answers all the time');
wait_for($i, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'no_free_worker' AND severity = 'critical' AND node_name = 'i'},
	'i says that its worker hangs');
for my $node ($l, $m)
{
	my $name = $node->name;

	wait_for($node, qq{SELECT count(*) = 1 FROM cascade_check
		WHERE code = 'upstream_silent' AND severity = 'critical' AND node_name = '$name' AND message ~ 'on node "i"'},
		"$name has a critical finding that names i")
	  or diag value($node, 'SELECT * FROM cascade_check');
}
wait_for($p, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'stale_node' AND node_name = 'i' AND message ~ 'has not reported'},
	'p says that i streams and does not report') or diag value($p, 'SELECT * FROM cascade_check');
is(tree_state($p, 'i'), 'streaming', 'which it does');

# WAL goes on meanwhile, and what p holds for the branch does not move
write_segments($p, 3);
checkpoint_all($p);
ok(lsn_le($p, hold_lsn($p, 'i'), value($m, 'SELECT frontier_lsn FROM cascade_status')),
	'p still holds what m needs');

kill 'CONT', $pid;
all_is_well('2 s');

# ---- the worker of p ----

$pid = worker_pid($p);
kill 'STOP', $pid;
knows_nothing($_) for $i, $l, $m;
is(value($p, $verdict), 't', 'the root itself has all WAL');
wait_for($i, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'upstream_silent' AND node_name = 'i' AND message ~ 'on node "p"'},
	'i names p') or diag value($i, 'SELECT * FROM cascade_check');
kill 'CONT', $pid;
all_is_well('2 s');

# ---- intervals that are as long as stale_timeout ----

# shorter than 10 s and 30 s, and long enough for a machine that is busy
for my $node (@all)
{
	set_conf($node, "cascade_relay.report_interval = 3s\ncascade_relay.stale_timeout = 9s\n");
}
# three hops of 3 s each
all_is_well('10 s');
my $what = q{SELECT code || ' ' || node_name || ': ' || message FROM cascade_check WHERE level > 0
	UNION ALL SELECT node_name || ' is ' || state || ', protected: ' || coalesce(protected::text, 'unknown') FROM cascade_topology
		WHERE state NOT IN ('running', 'streaming') OR protected IS NOT TRUE};
my $rounds = 0;
my @trouble;
for (my $end = time + 10; time < $end || $rounds < 4; $rounds++)
{
	for my $node (@all)
	{
		my $seen = value($node, $what);

		push @trouble, 'round ' . ($rounds + 1) . ', ' . $node->name . ": $seen" if $seen ne '';
	}
}
is(join("\n", @trouble), '', "in $rounds rounds nobody was stale, unknown, or a finding");

done_testing();
