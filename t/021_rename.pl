# A node is given another name.
#
#	p ─── i ─── l        l is away, and pins p
#
# i is restarted under another name.  It is the same incarnation, so that it is
# no other node: its new hold goes back under the cover of the old one, to what
# l needs, and only then the old one goes, and the old name with it.  Then i
# dies, and l comes back from the new hold.
#
# A new name while the old hold is still fresh, before any checkpoint has
# counted it, leaves both until the node has caught up with the new one.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p');
my $i = new_standby('i', $p);
my $l = new_standby('l', $i);
my $inc = '';

sub hold_names
{
	return value($p, q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM cascade_holds});
}

sub rename_to
{
	my ($name) = @_;
	$i->append_conf('postgresql.conf', "cascade_relay.node_name = '$name'");
	$i->restart;
	wait_connected($i);
	wait_for($p, "SELECT state = 'streaming' FROM cascade_topology WHERE node_name = '$name'", "p knows $name");
}

wait_connected($i, $l);
$inc = incarnation($i);
is(hold_names(), "cascade_relay_i_$inc", 'one hold to begin with');

# --- the old hold is fresh ---

rename_to('early');
is(incarnation($i), $inc, 'it is the same incarnation');
checkpoint_all($p, $i);
write_segments($p, 1);
checkpoint_all($p, $i);
wait_for($p, "SELECT string_agg(slot_name, ' ') = 'cascade_relay_early_$inc' FROM cascade_holds",
	'having caught up with its new hold, it needs the old one no more');
wait_for($p, q{SELECT count(*) = 0 FROM cascade_topology WHERE node_name = 'i'}, 'and nobody knows its old name');

# --- the old hold covers the new one ---

wait_protected($i, $l);
add_rows($p, 3);
wait_caught_up($p, $i, $l);
$l->stop;
add_rows($p, 10);
remove_wal(2, $p, $i);
wait_for($p, q{SELECT pinned_by = 'l' FROM cascade_status}, 'l pins p');
my $need = hold_lsn($p, 'early');
ok(has_segment($p, $need), 'p has what l needs');
rename_to('late');
wait_for($p, "SELECT string_agg(slot_name, ' ') = 'cascade_relay_late_$inc' FROM cascade_holds",
	'the new hold takes the place of the old one');
is(segment_of(hold_lsn($p, 'late')), segment_of($need), 'where that one stood');
wait_for($p, q{SELECT string_agg(node_name, ' ') = 'p late l' FROM cascade_topology}, 'the tree has each node once');
wait_for($p, q{SELECT protected FROM cascade_topology WHERE node_name = 'late'}, 'it is protected');

# --- the proof ---

kill_node($i);
remove_wal(3, $p);
ok(has_segment($p, $need), 'the new hold keeps it');
slot_from_hold($p, 'late', 'l');
point_at($l, $p);
$l->start;
same_rows($p, $l);

$l->stop;
$p->stop;
done_testing();
