# That a node is protected promises it a place, and what is not known of a node
# is not held against it.
#
#	p -> i -> a, b, c	max_wal_senders = 3 on p, later 2
#
# c lost its slot on i before it came up for the first time (repmgr#474): it has
# never streamed, so that nobody can know whether it is voting.  It is not refused
# as if it were, least of all by its own upstream; cascade_follow to that upstream
# gives it a slot.
#
# Then synchronous_standby_names = 'i', and a calls itself "i" too (patroni#3548):
# p waits for its own standby, not for the namesake below, which is no voting
# node and no finding.  With 'ANY 1 (*)' b votes while it streams from p, and may
# go back to i all the same.  When i is not called so any more, a is voting.
#
# All of a, b and c are protected: p holds their WAL.  But when i dies, its
# walsender and the free one are two places for three nodes (GitLab, January 2017).
# Every node says so while all is well, and the runbook sends two of them to p.
# The error of the third says what is missing.  The same with replication slots.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use CascadeRelay;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = "cascade_relay.stale_timeout = 2s\n";
my $p = new_primary('p', conf => "$conf max_wal_senders = 3\nsynchronous_commit = local\n");
my $i = new_standby('i', $p, conf => $conf);
my $a = new_standby('a', $i, conf => $conf);
my $b = new_standby('b', $i, conf => $conf, backup => 'for_a');
my $c = new_standby('c', $i, conf => $conf, backup => 'for_a', no_start => 1);
$i->safe_psql('postgres', q{SELECT pg_drop_replication_slot('c')});
$c->start;

set_conf($_, "cascade_relay.advertised_conninfo = '" . ($_->connstr =~ s/'/''/gr) . "'") for $p, $i;

# ---- a class that is not known ----

wait_connected($i, $a, $b, $c);
wait_for($_, q{SELECT count(*) = 5 FROM cascade_topology}, $_->name . ' knows all nodes') for $p, $i, $c;
for my $node ($p, $i, $c)
{
	is(value($node, q{SELECT replica_class IS NULL FROM cascade_topology WHERE node_name = 'c'}), 't',
		$node->name . ' does not know the class of c');
	is(value($node, q{SELECT upstream_name || ' ' || verdict || coalesce(' ' || reason, '') FROM cascade_upstream_candidates('c') WHERE upstream_name IN ('i', 'p') ORDER BY 1}),
		"i unproven class-unknown\np safe", '... and refuses it neither its upstream nor the primary');
	is(value($node, q{SELECT upstream_name, is_cascade, refusal FROM cascade_plan_upstream('c', requested => 'i')}),
		'i|t|', '... nor the plan that it has');
}
is(value($p, q{SELECT upstream_name, is_cascade, refusal FROM cascade_plan_upstream('a', requested => 'i')}),
	'i|t|', 'the class of a plan is the one that the node is known to have');
is(value($p, q{SELECT upstream_name, is_cascade, refusal FROM cascade_plan_upstream('a', 'voting', 'i')}),
	'p|f|voting-member-direct-only', '... unless another is given');

like(value($c, q{SELECT cascade_follow('i', timeout => '30s')}), qr/^streaming/, 'cascade_follow to its own upstream gives it a slot');
wait_protected($i, $a, $b, $c);
show_tree('the classes', 'node_name, replica_class',
	[ 'p|', map { "$_|read_replica" } qw(i a b c) ], $p, $c);

# ---- a name that two standbys have ----

set_conf($p, "synchronous_standby_names = 'i'\n");
point_at($a, $i, conninfo => 'application_name=i');
$a->reload;
wait_for($i, q{SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'i'}, 'a is called i too');
my $classes = q{SELECT string_agg(node_name || ' ' || replica_class || coalesce(' ' || refusal, ''), ', ' ORDER BY node_name) FROM cascade_topology WHERE role = 'standby'};
wait_for($_, $classes, $_->name . ': i is voting, and its namesake is not',
	'a read_replica, b read_replica, c read_replica, i voting') for $p, $i, $a;

# i restarts: for that time nobody else is taken for it
$i->restart;
wait_connected($i, $a, $b, $c);
wait_protected($i, $a, $b, $c);
wait_for($p, $classes, 'nor after a restart of i', 'a read_replica, b read_replica, c read_replica, i voting');

# whoever streams from p votes: once a node has left it does not
set_conf($p, "synchronous_standby_names = 'ANY 1 (*)'\n");
wait_for($p, $classes, 'whoever streams from p is voting', 'a read_replica, b read_replica, c read_replica, i voting');
wait_for($i, q{SELECT verdict, reason FROM cascade_upstream_candidates('i') WHERE upstream_name = 'p'}, 'i is where it may be', 'safe|');
like(value($b, q{SELECT cascade_follow('p')}), qr/^streaming/, 'b moves to p');
wait_for($_, $classes, 'b votes while it is there, says ' . $_->name,
	'a read_replica, b voting, c read_replica, i voting') for $p, $b;
is(value($b, q{SELECT verdict, reason FROM cascade_upstream_candidates('b') WHERE upstream_name = 'i'}),
	'unproven|voting-by-asterisk', '... and is not refused the way back');
like(value($b, q{SELECT cascade_follow('i')}), qr/^streaming/, 'b goes back');
wait_for($_, $classes, 'and votes no more, says ' . $_->name,
	'a read_replica, b read_replica, c read_replica, i voting') for $p, $b;
wait_protected($b);
set_conf($p, "synchronous_standby_names = 'i'\n");

# nobody else has the name any more
point_at($i, $p, conninfo => 'application_name=other');
$i->reload;
wait_for($p, $classes, 'then the namesake is who p waits for',
	'a voting voting-member-direct-only, b read_replica, c read_replica, i read_replica');
wait_for($p, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'voting_cascades' AND node_name = 'a'}, '... and cascades');
set_conf($p, "synchronous_standby_names = ''\n");
point_at($i, $p);
point_at($a, $i);
$_->reload for $i, $a;
wait_for($p, $classes, 'all are read replicas', 'a read_replica, b read_replica, c read_replica, i read_replica');
wait_connected($i, $a, $b, $c);
wait_protected($i, $a, $b, $c);

# ---- fewer places than nodes ----

wait_for($p, 'SELECT count(*) = 2 FROM pg_replication_slots', 'what p held for b is gone');
$p->append_conf('postgresql.conf', "max_wal_senders = 2\n");
$p->restart;
wait_connected($i, $a, $b, $c);
wait_protected($i, $a, $b, $c);
for my $node ($p, $i, $c)
{
	wait_for($node, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'no_room' AND severity = 'warning' AND node_name = 'i'
		AND message ~ 'only 2 of the 3 nodes' AND hint ~ 'max_wal_senders'}, $node->name . ' says that p has two places for three nodes')
	  or diag value($node, 'SELECT * FROM cascade_check');
}
my $runbook = q{SELECT node_name, upstream_name, verdict, reason FROM cascade_upstream_candidates(%s without => 'i') WHERE upstream_name = 'p' ORDER BY 1};
is(value($p, sprintf($runbook, '')), "a|p|safe|\nb|p|safe|\nc|p|refused|no-room", 'the runbook sends two of them to p');
is(value($c, sprintf($runbook, q{'c',})), 'c|p|refused|no-room', '... also when only c is asked about');
is(value($c, sprintf($runbook, q{'b',})), 'b|p|safe|', '... or only b');

# two more walsenders, and slots for two
$p->append_conf('postgresql.conf', "max_wal_senders = 4\nmax_replication_slots = 4\n");
$p->restart;
wait_connected($i, $a, $b, $c);
wait_protected($i, $a, $b, $c);
wait_for($_, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'no_room' AND node_name = 'i'
	AND message ~ 'only 2 of the 3 nodes' AND hint ~ 'max_replication_slots'}, $_->name . ' says that p has slots for two')
  for $p, $c;

# room for all
$p->append_conf('postgresql.conf', "max_replication_slots = 6\n");
$p->restart;
wait_for($_, q{SELECT count(*) = 0 FROM cascade_check WHERE code = 'no_room'}, $_->name . ' has no such finding any more') for $p, $c;
$p->append_conf('postgresql.conf', "max_wal_senders = 2\n");
$p->restart;
wait_connected($i, $a, $b, $c);
wait_protected($i, $a, $b, $c);

# ---- and so it is ----

kill_node($i);
like(value($_, q{SELECT cascade_follow('p', timeout => '30s')}), qr/^streaming/, $_->name . ' finds a place') for $a, $b;
my ($rc, $out, $err) = $c->psql('postgres', q{SELECT cascade_follow('p', timeout => '5s')});
isnt($rc, 0, 'c does not');
like($err, qr/max_wal_senders/, '... and says what is missing') or diag $err;

done_testing();
