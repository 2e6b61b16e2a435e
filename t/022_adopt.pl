# The new upstream makes the slots.
#
#	p ── i ─┬─ l1     away, behind
#	        └─ l2     here, but its replay is paused
#
# p has removed all WAL but what its hold for i keeps.  i is killed.  On p,
# cascade_adopt makes a slot for each leaf, as the role that reports, from where
# the hold has what that leaf needs: l1 is behind l2.  Both go on from p, with
# every row.
#
# Then a standby that does not exist yet: n.  Nobody knows what it needs, so its
# slot is made where the lowest hold stands, and the clone that is taken of l2
# goes on from there.
#
# And all that is refused, which leaves nothing behind.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p', conf => "max_replication_slots = 8\n");
value($p, 'CREATE ROLE reporter LOGIN REPLICATION; CREATE ROLE nobody LOGIN');
add_rows($p, 2);
my $i = new_standby('i', $p);
my $l1 = new_standby('l1', $i);
my $l2 = new_standby('l2', $i);

# What cascade_adopt answers to the role that reports, or its error, detail and
# hint.
sub adopt
{
	my ($node, $args, $role) = @_;
	my ($ret, $stdout, $stderr) = $node->psql('postgres',
		'SET ROLE ' . ($role // 'reporter') . "; SELECT cascade_adopt($args)");

	return $ret == 0 ? $stdout : $stderr;
}

sub slots
{
	my ($node) = @_;
	return value($node, 'SELECT slot_name, restart_lsn, active FROM pg_replication_slots ORDER BY 1');
}

wait_connected($i, $l1, $l2);
checkpoint_all($p, $i, $l1, $l2);
checkpoint_all($p, $i, $l1, $l2);
wait_protected($i, $l1, $l2);

# ---- the intermediate dies ----

wait_for($p, 'SELECT frontier_lsn = pg_current_wal_lsn() FROM cascade_status', 'everything confirmed');
$l1->stop;
wait_for($i, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'l1'}, 'l1 is gone');
my $need1 = value($i, q{SELECT replay_lsn FROM cascade_topology WHERE node_name = 'l1'});
add_rows($p, 4);
wait_caught_up($p, $i, $l2);
value($l2, 'SELECT pg_wal_replay_pause()');
add_rows($p, 4);
remove_wal(3, $p, $i);
wait_for($p, "SELECT pinned_by = 'l1' AND frontier_lsn = '$need1' FROM cascade_status", 'l1 pins the root');
wait_for($p, qq{SELECT replay_lsn > '$need1' AND state = 'streaming' FROM cascade_topology WHERE node_name = 'l2'},
	'p knows how far l2 is');
my $need2 = value($l2, 'SELECT pg_last_wal_replay_lsn()');
my $hold = hold_lsn($p, 'i');
kill_node($i);
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'i'}, 'i is lost');
is(hold_lsn($p, 'i'), $hold, 'the hold for it stays');

my $redo = value($p, 'SELECT redo_lsn FROM pg_control_checkpoint()');
ok(lsn_le($p, $need2, $redo) && segment_of($need2) lt segment_of($redo), 'both need more than a new slot would have');
my $slot1 = adopt($p, "'l1'");
ok(lsn_le($p, $slot1, $need1), 'the slot for l1 keeps what it needs');
is($slot1, $hold, 'it is a copy of the hold');
my $slot2 = adopt($p, "'l2'");
ok(lsn_le($p, $slot2, $need2), 'and so does the one for l2');
is(value($p, q{SELECT slot_name, slot_type, temporary, xmin, active, restart_lsn FROM pg_replication_slots WHERE slot_name LIKE 'cascade_adopted%' ORDER BY 1}),
	"cascade_adopted_l1|physical|f||f|$slot1\ncascade_adopted_l2|physical|f||f|$slot2", 'they are there');
is(adopt($p, "'l1'"), $slot1, 'once more makes no difference');
wait_for($p, q{SELECT count(*) = 2 FROM cascade_downstreams WHERE slot_name LIKE 'cascade_adopted%' AND counted AND reason = 'physical slot'},
	'they count like other slots');

# A crash of p now must not lose them.
$p->stop('immediate');
$p->start;
is(value($p, q{SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'cascade_adopted_l1'}), $slot1, 'a crash does not lose them');
remove_wal(3, $p);
ok(has_segment($p, $slot1), 'what l1 needs is there');

$l1->append_conf('postgresql.conf', "primary_slot_name = 'cascade_adopted_l1'");
point_at($l1, $p);
$l1->start;
$l2->safe_psql('postgres', "ALTER SYSTEM SET primary_conninfo = '" . $p->connstr . " application_name=l2'");
$l2->safe_psql('postgres', q{ALTER SYSTEM SET primary_slot_name = 'cascade_adopted_l2'});
$l2->reload;
value($l2, 'SELECT pg_wal_replay_resume()');
add_rows($p, 1);
same_rows($p, $l1, $l2);
wait_connected($l1, $l2);
wait_protected($l1, $l2);
is(tree_of($p, qw(node_name upstream_name state managed)), "p||running|t\ni|p|down|t\nl1|p|streaming|t\nl2|p|streaming|t",
	'the tree shows them below p');
is(value($p, q{SELECT name, reason FROM cascade_downstreams WHERE slot_name LIKE 'cascade_adopted%' ORDER BY 1}),
	"l1|managed, counted by its hold\nl2|managed, counted by its hold", 'the slots are known to be theirs');

done_testing();
