# One name, two lives.
#
#	p ── i ── l      the first life of i; l goes away, and i is lost
#	p ── i           rebuilt by pg_basebackup under its old name: i2 here
#	p ── i, p ── i   i2, and a second live node that calls itself i: i3
#	p ── i, p ── i   i2, and a clone of its volume, pg_replslot included
#
# pg_basebackup carries no incarnation, so the rebuilt node gets a hold of its
# own, and the hold of its first life stays for l, which comes up to p from it
# with every row.  A second live node of the name is refused, in words that
# help, and both say so; it does not move the owner's hold, however far it is.
# The clone has the owner's very incarnation, and the same happens.  But a node
# that merely restarts, and be it at once, is never called a duplicate.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p');
add_rows($p, 2);
my $i = new_standby('i', $p);
my $l = new_standby('l', $i);

wait_connected($i, $l);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
my $first_life = incarnation($i);
like($first_life, qr/^[0-9a-f]{8}$/, 'i has an incarnation');

# ---- l goes away, i is lost and rebuilt ----

wait_for($p, 'SELECT frontier_lsn = pg_current_wal_lsn() FROM cascade_status', 'everything confirmed');
$l->stop;
wait_for($i, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'l'}, 'l is gone');
my $need = value($i, q{SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'l'});
add_rows($p, 5);
checkpoint_all($p, $i);
wait_for($p, "SELECT frontier_lsn = '$need' AND pinned_by = 'l' FROM cascade_status", 'l pins the root');
kill_node($i);
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'i'}, 'i is lost');
my $hold = hold_lsn($p, 'i');

# Its data are new, its name and its slot on p are not.
my $i2 = new_standby(
	'i2', $p,
	slotless => 1,
	conf => "cascade_relay.node_name = 'i'\nprimary_slot_name = 'i'\n",
	conninfo => 'application_name=i');
wait_connected($i2);
wait_protected($i2);
my $second_life = incarnation($i2);
isnt($second_life, $first_life, 'the rebuilt i has another incarnation');

sub hold_of_life
{
	my ($life) = @_;

	return value($p,
		"SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'cascade_relay_i_$life'");
}

is(hold_of_life($first_life), $hold, 'the hold of its first life stays where it was');
ok(lsn_le($p, $need, hold_of_life($second_life)), 'the new one has a hold of its own, and needs less');
is(value($p, q{SELECT state, count(*) FROM cascade_topology WHERE node_name = 'i' GROUP BY 1 ORDER BY 1}),
	"down|1\nstreaming|1", 'both lives are drawn, one is down');

add_rows($p, 10);
checkpoint_all($p, $i2);
checkpoint_all($p, $i2);
is(hold_of_life($first_life), $hold, 'the new life never moves it');
wait_for($p, "SELECT frontier_lsn = '$need' AND pinned_by = 'l' FROM cascade_status", 'l still pins the root');
is(value($p, "SELECT count(*) FILTER (WHERE counted) FROM cascade_holds WHERE name = 'i'"), '2', 'both holds count');
is(oldest_wal($p), segment_of($hold), 'p keeps what it holds, and nothing older');
is(value($p, "SELECT min(restart_lsn) > '$need'::pg_lsn + 5 * 1024 * 1024 FROM pg_replication_slots WHERE slot_name <> 'cascade_relay_i_$first_life'"),
	't', 'nothing else would have kept it');

reattach($p, 'i', $l);
wait_connected($l);
wait_protected($l);

# The hold has done its work.  It is let go by its slot's name, which is not
# the live node's.
value($p, "SELECT cascade_release('cascade_relay_i_$first_life')");
wait_for($p, q{SELECT frontier_lsn = pg_current_wal_lsn() FROM cascade_status}, 'the root is free');
ok(lsn_le($p, $need, hold_of_life($first_life)), 'the old hold has moved on');
is(value($p, "SELECT counted, reason FROM cascade_holds WHERE slot_name = 'cascade_relay_i_$second_life'"),
	't|managed, by its last report', 'the hold of the live one counts');

# ---- a second live node of the same name ----

# Both refused nodes are checked alike.
sub is_refused
{
	my ($node, $what) = @_;

	wait_for($node, q{SELECT upstream_state = 'refused' FROM cascade_status}, "$what is refused");
	like(value($node, 'SELECT last_error FROM cascade_status'),
		qr/^another live node has this node's name or incarnation \(.*node "i" with incarnation $second_life is connected from .*\) HINT: .*cascade_relay\.node_name/,
		"$what is told by whom, and what to do");
	is(value($node, 'SELECT protected IS NOT TRUE, upstream_held_lsn IS NULL, reports_sent FROM cascade_status'),
		't|t|0', "$what is not protected, and has reported nothing");
	wait_for($node, q{SELECT 'duplicate_name' = ANY (warnings) FROM cascade_topology WHERE is_local}, "$what says so");
	is(value($node, q{SELECT state, replay_lag_bytes FROM cascade_topology WHERE is_local}), 'duplicate|', "$what is a duplicate");
	like(value($node, 'SELECT * FROM cascade_tree()'), qr/^\? i\* +standby +duplicate +- .*!duplicate_name/m, "$what is drawn so");
	is( value($node, q{SELECT severity, code, node_name FROM cascade_check WHERE code IN ('duplicate_name', 'upstream_refused')}),
		"critical|upstream_refused|i\ncritical|duplicate_name|i", "$what is reported");
	wait_for($i2, q{SELECT 'duplicate_name' = ANY (warnings) FROM cascade_topology WHERE is_local}, 'the owner says so');
	for my $above ($p, $i2)
	{
		wait_for($above,
			q{SELECT count(*) = 1 FROM cascade_topology WHERE node_name = 'i' AND managed AND state = 'streaming' AND 'duplicate_name' = ANY (warnings)},
			'the row of the owner says so on ' . $above->name);
	}

	# Far ahead of the owner, whose restartpoints have ceased.
	my $owner = hold_of_life($second_life);
	my $holds = holds($p);
	add_rows($p, 5);
	checkpoint_all($p, $node);
	my $tries = value($node, 'SELECT reports_failed FROM cascade_status');
	wait_for($node, "SELECT reports_failed >= $tries + 2 FROM cascade_status", "$what has tried again since");
	is(value($p, "SELECT count(*) FROM cascade_holds WHERE name = 'i'"), '2', "$what has got no hold");
	is(hold_of_life($second_life), $owner, "the owner's hold has not moved because of it");
	is(holds($p), $holds, 'and no other');
	is(value($i2, 'SELECT upstream_state, protected FROM cascade_status'), 'connected|t', 'the owner goes on');
	is(value($i2, 'SELECT state FROM cascade_topology WHERE is_local'), 'streaming', 'and is no duplicate');
	is(value($p, q{SELECT count(*) FROM cascade_topology WHERE state = 'duplicate'}), '0', 'p shows none');
	is(value($p, q{SELECT count(*) FROM cascade_upstream_candidates('new') WHERE upstream_name = 'i' AND verdict = 'safe'}),
		'1', 'from which another node may stream');
	ok($p->log_contains(qr/refused node "i"/), 'the log of p says so');
	return;
}

is(value($i2, 'SELECT warnings FROM cascade_topology WHERE is_local'), '{}', 'the owner has no warnings');
my $i3 = new_standby('i3', $p, conf => "cascade_relay.node_name = 'i'\n");
isnt(incarnation($i3), $second_life, 'i3 is a node of its own');
is_refused($i3, 'i3');
is(value($i3, 'SELECT count(*) FROM pg_stat_wal_receiver'), '1', 'it streams all the same');
$i3->stop;

# ---- a cloned volume ----

$i2->stop;
my $clone = PostgreSQL::Test::Cluster->new('clone');
my $slot = $clone->name;
system_or_bail('cp', '-a', $i2->data_dir, $clone->data_dir);
$clone->append_conf('postgresql.conf', 'port = ' . $clone->port);
$clone->append_conf('postgresql.conf', "primary_slot_name = '$slot'");
point_at($clone, $p);
value($p, "SELECT pg_create_physical_replication_slot('$slot', true)");

# i2 comes back meanwhile; it was away, and is not taken for its own double
my $offset = -s $p->logfile;
$i2->start;
wait_connected($i2);
wait_protected($i2);
$clone->start;
is(incarnation($clone), $second_life, 'the clone has the incarnation of i2');
is_refused($clone, 'the clone');
$clone->stop;

# ---- a node that restarts ----

# Not even for a moment: a refusal would be a line in p's log.
$offset = -s $p->logfile;
for my $mode ('fast', 'immediate', 'fast', 'immediate')
{
	$i2->stop($mode);
	$i2->start;
	wait_connected($i2);
	is(incarnation($i2), $second_life, "after a restart ($mode) i2 is still itself");
}
ok(!$p->log_contains(qr/refused node/, $offset), 'p has never refused it');
wait_protected($i2);

done_testing();
