# An intermediate is promoted, and the old primary comes back below it.
#
#	a ── m ─┬─ x		the old primary's name sorts first
#	        └─ y
#
# m is promoted while a goes on writing.  x and y go on, the new tree is theirs,
# and a is drawn below it, as stale.  a shows what it last knew.  Then a comes
# back with pg_rewind, as another incarnation without slots:
#
#	m ─┬─ a
#	   ├─ x
#	   └─ y
#
# Back again, this time as planned: m stops, a is promoted, and m returns as it
# is, with all slots and holds of its time as a primary.
#
#	a ── m ─┬─ x
#	        └─ y
#
# What m has for a is of the past: it does not count, the hold goes by itself, and
# cascade_check says how the slot goes.  x moves to a, and m is restarted: its
# slot for x is of the past, too, and m still knows whose it is.
#
#	a ─┬─ m ── y
#	   └─ x
#
# At the end of each act WAL goes on every node.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

# What is stale is so because it is known, not because time has passed.
my %conf = (conf => "cascade_relay.stale_timeout = 10min\nwal_log_hints = on\n");

# WAL that is there now goes from every node, the primary first.
my $columns = 'node_name, upstream_name, path, role, state, timeline';

sub wal_goes
{
	my (@nodes) = @_;
	my $now = substr(segment_of(value($nodes[0], 'SELECT pg_current_wal_lsn()')), 8);

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last unless grep { still_has($_, $now) } @nodes;
		remove_wal(1, @nodes);
		usleep(100_000);
	}
	ok(!still_has($_, $now), 'WAL goes on ' . $_->name) for @nodes;
	return;
}

sub still_has
{
	my ($node, $segment) = @_;

	return scalar grep { substr($_, 8) le $segment } wal_files($node);
}

# Nothing is wrong, on any of them.
sub all_is_well
{
	for my $node (@_)
	{
		wait_for($node, 'SELECT count(*) FROM cascade_check WHERE level > 0', 'all is well, says ' . $node->name, '0')
		  or diag value($node, 'SELECT code, message FROM cascade_check');
	}
	return;
}

my $a = new_primary('a', %conf);
my $m = new_standby('m', $a, %conf);
my $x = new_standby('x', $m, %conf);
my $y = new_standby('y', $m, %conf);
add_rows($a, 2);
same_rows($a, $m, $x, $y);
wait_protected($m, $x, $y);
show_tree('the cascade', $columns, [ 'a||{a}|primary|running|1', 'm|a|{a,m}|standby|streaming|1',
	'x|m|{a,m,x}|standby|streaming|1', 'y|m|{a,m,y}|standby|streaming|1' ], $a, $m, $x, $y);

# ---- m is promoted, and a does not know ----

$m->promote;
add_rows($a, 3);
add_rows($m, 2);
same_rows($m, $x, $y);
show_tree('the new root first, and the old one as it was', $columns, [ 'm||{m}|primary|running|2',
	'x|m|{m,x}|standby|streaming|2', 'y|m|{m,y}|standby|streaming|2', 'a||{a}|primary|stale|1' ], $m, $x, $y);
is(value($_, "SELECT replay_lag_bytes, replay_lag, warnings FROM cascade_topology WHERE node_name = 'a'"),
	'||{stale_node}', $_->name . ' does not know how far a is') for $m, $x, $y;
show_tree('what it last knew', $columns, [ 'a||{a}|primary|running|1', 'm|a|{a,m}|standby|down|1',
	'x|m|{a,m,x}|standby|stale|1', 'y|m|{a,m,y}|standby|stale|1' ], $a);
wait_protected($x, $y);
wait_for($_, 'SELECT DISTINCT pinned_by = node_name FROM cascade_topology WHERE node_name <> \'a\'',
	'nobody pins anybody, says ' . $_->name, 't') for $m, $x, $y;

# ---- a comes back, rewound ----

my $former = incarnation($a);
$a->stop;
my $config = slurp_file($a->data_dir . '/postgresql.conf');
# up to 15 pg_rewind takes the timeline of the source from its last checkpoint
value($m, 'CHECKPOINT');
command_ok([ 'pg_rewind', '-D', $a->data_dir, '--source-server', $m->connstr('postgres'), '--no-sync' ], 'a is rewound');
open my $fh, '>', $a->data_dir . '/postgresql.conf' or die $!;
print $fh $config;
close $fh;
value($m, "SELECT pg_create_physical_replication_slot('a', true)");
$a->append_conf('postgresql.conf', "primary_slot_name = 'a'");
$a->set_standby_mode;
point_at($a, $m);
$a->start;
set_conf($_, 'cascade_relay.stale_timeout = 2s') for $a, $m, $x, $y;
same_rows($m, $a, $x, $y);
wait_protected($a, $x, $y);
isnt(incarnation($a), $former, 'a is another incarnation');
is(value($a, 'SELECT count(*) FROM pg_replication_slots'), '0', 'a has no slots');
show_tree('that a is back', $columns, [ 'm||{m}|primary|running|2', 'a|m|{m,a}|standby|streaming|2',
	'x|m|{m,x}|standby|streaming|2', 'y|m|{m,y}|standby|streaming|2' ], $m, $a, $x, $y);
add_rows($m, 2);
wal_goes($m, $a, $x, $y);
all_is_well($m, $a, $x, $y);
same_rows($m, $a, $x, $y);

# ---- back again, as planned ----

$m->stop;
$a->promote;
show_tree('itself alone, and what it knew', $columns, [ 'a||{a}|primary|running|3', 'm||{m}|primary|stale|2',
	'x|m|{m,x}|standby|stale|2', 'y|m|{m,y}|standby|stale|2' ], $a);
value($a, "SELECT pg_create_physical_replication_slot('m', true)");
$m->set_standby_mode;
$m->append_conf('postgresql.conf', "primary_slot_name = 'm'");
point_at($m, $a);
$m->append_conf('postgresql.conf', 'cascade_relay.stale_timeout = 2s');
$m->start;
add_rows($a, 2);
same_rows($a, $m, $x, $y);
my @back = ('a||{a}|primary|running|3', 'm|a|{a,m}|standby|streaming|3',
	'x|m|{a,m,x}|standby|streaming|3', 'y|m|{a,m,y}|standby|streaming|3');
show_tree('the cascade as it was', $columns, \@back, $a, $m, $x, $y);
wait_protected($m, $x, $y);

# what m has for a does not count, and goes
wait_for($m, "SELECT counted, reason FROM cascade_downstreams WHERE slot_name = 'a'",
	'the slot for a does not count', 'f|belongs to a node on the own path');
wait_for($a, "SELECT pinned_by FROM cascade_status", 'nobody pins a', 'a');
wait_for($m, "SELECT count(*) FROM cascade_holds WHERE name = 'a'", 'the hold for a goes by itself', '0');
ok($m->wait_for_log(qr/dropped hold "cascade_relay_a_\w+", because this node streams from its node now/), 'and m says so');
is(value($m, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'a'"), '1', 'the slot is not ours to drop');
add_rows($a, 2);
clean_up($m, 'a');
wal_goes($a, $m, $x, $y);
all_is_well($a, $m, $x, $y);
same_rows($a, $m, $x, $y);

# cascade_check lists these slots of the past, and how they go: as it says.
sub clean_up
{
	my ($node, @slots) = @_;
	my $listed = "FROM cascade_check WHERE code = 'orphan_slot'";

	wait_for($node, "SELECT string_agg(substring(message from 'slot \"(\\w+)\"'), ' ' ORDER BY message COLLATE \"C\") $listed",
		$node->name . ' lists what is of the past', join(' ', @slots))
	  or diag value($node, 'SELECT * FROM cascade_check');
	value($node, $_) for split /\n/, value($node, "SELECT substring(hint from 'SELECT .*;') $listed");
	is(value($node, "SELECT count(*) FROM pg_replication_slots WHERE slot_name IN ('" . join("', '", @slots) . "')"),
		'0', 'and they are gone');
	return;
}

# ---- x moves, and m forgets everything but that ----

value($a, "SELECT pg_create_physical_replication_slot('x', true)");
point_at($x, $a);
$x->reload;
same_rows($a, $x);
@back = ('a||{a}|primary|running|3', 'm|a|{a,m}|standby|streaming|3',
	'y|m|{a,m,y}|standby|streaming|3', 'x|a|{a,x}|standby|streaming|3');
show_tree('where x is', $columns, \@back, $a, $m, $x, $y);
wait_protected($x);
$m->restart;
same_rows($a, $m, $x, $y);
show_tree('where x is, after a restart', $columns, \@back, $a, $m, $x, $y);
wait_for($m, "SELECT bool_or(counted), min(reason) FROM cascade_downstreams WHERE name = 'x'",
	'what m has for x does not count', 'f|its node is live and protected elsewhere');
wait_for($_, 'SELECT pinned_by = node_name FROM cascade_status', 'nobody pins ' . $_->name) for $a, $m;
add_rows($a, 2);
wait_for($m, "SELECT count(*) FROM cascade_holds WHERE name = 'x'", 'the hold for x goes by itself', '0');
clean_up($m, 'x');
wal_goes($a, $m, $x, $y);
all_is_well($a, $m, $x, $y);
same_rows($a, $m, $x, $y);

# ---- a slot that somebody else takes is not that node's any more ----

# y moves; then its slot on m is used by one without the extension, which goes
value($a, "SELECT pg_create_physical_replication_slot('y', true)");
point_at($y, $a);
$y->reload;
same_rows($a, $y);
wait_protected($y);
wait_for($m, "SELECT reason FROM cascade_downstreams WHERE slot_name = 'y'", 'the slot of y does not count',
	'its node is live and protected elsewhere');
my $z = new_standby('z', $m, unmanaged => 1, slotless => 1, conf => "primary_slot_name = 'y'\n");
wait_for($m, "SELECT active, counted FROM cascade_downstreams WHERE slot_name = 'y'", 'somebody else streams through it', 't|t');
same_rows($a, $z);
$z->stop;
my $need = value($m, "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'y'");
$m->restart;
wait_connected($m);
wait_for($m, "SELECT active, counted, reason FROM cascade_downstreams WHERE slot_name = 'y'", 'so it counts, when it is left', 'f|t|physical slot');
remove_wal(4, $a, $m, $x, $y);
wait_for($a, "SELECT frontier_lsn <= '$need' FROM cascade_status", 'and is held above');
ok(still_has($a, substr(segment_of($need), 8)), 'a has what it needs');
point_at($z, $m);
$z->start;
same_rows($a, $z);
done_testing();
