# A slot that the server has invalidated still says what its node needs.
#
#	p ── i ── v		i has max_slot_wal_keep_size = 6MB, p has no bound;
#				v is without the extension, and uses slot v on i
#
# v stops, and i's server gives its slot up.  The WAL that v needs is gone on i, but
# p has it: i goes on asking for it, also after a crash, and says where v can go.  v
# is pointed at p and finds all its WAL.  When the slot is dropped on i nothing asks
# for that WAL any more; one that is made anew under its name inherits nothing.
#
#	x, y, z			slots on i that nobody streams through
#	l				below i, with the extension and without a slot
#
# The same holds for l, whose hold on i has met the bound there: a restart of i does
# not make it forget what l needs.
#
# It ends when p has given that WAL up as well, or after hold_timeout: then the slot
# is lost, which is critical.  A slot that was lost before it was seen asks for
# nothing; nor does one on a primary, where there is nobody above.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $quick = "cascade_relay.stale_timeout = 1s\ncascade_relay.report_interval = 100ms\n";
my $p = new_primary('p', conf => $quick);
my $i = new_standby('i', $p, conf => "${quick}max_slot_wal_keep_size = 6MB\n", slotless => 1);
my $v = new_standby('v', $i, unmanaged => 1);

sub slot
{
	my ($node, $slot, $columns) = @_;
	return value($node, "SELECT $columns FROM cascade_downstreams WHERE slot_name = '$slot'");
}

sub finding
{
	my ($node, $slot) = @_;
	return value($node,
		"SELECT string_agg(concat_ws('|', severity, message, hint), E'\\n') FROM cascade_check WHERE code = 'slot_lost' AND message LIKE '%\"$slot\"%'");
}

# The server of a node gives a slot up, which has been seen before.
sub lose
{
	my ($node, $slot) = @_;
	my $need = slot($node, $slot, 'restart_lsn');

	write_segments($p, 9);
	checkpoint_all($p, $node->name eq 'p' ? () : $node);
	is(value($node, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = '$slot'"), 'lost',
		"$slot is lost on " . $node->name);
	return $need;
}

# The hold of i on p keeps what that slot needs, or does not.
sub held_above
{
	my ($need, $what) = @_;
	return wait_for($p, "SELECT restart_lsn <= '$need' FROM cascade_holds WHERE name = 'i'", $what);
}

sub not_held_above
{
	my ($need, $what) = @_;

	wait_until($what,
		sub {
			checkpoint_all($p, $i);
			return value($p, "SELECT restart_lsn > '$need' FROM cascade_holds WHERE name = 'i'") eq 't';
		});
	return;
}

my $counts = 't|invalidated slot, by what it kept before';
my $lost = 'f|invalidated slot';

add_rows($p, 2);
wait_connected($i);
checkpoint_all($p, $i, $v);
wait_protected($i);
wait_for($i, q{SELECT state = 'streaming' FROM cascade_topology WHERE node_name = 'v'}, 'i knows v');

# ---- v needs it still ----

$v->stop;
wait_for($i, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'v'}, 'v is away');
add_rows($p, 2);
my $need = lose($i, 'v');
wait_for($i, q{SELECT counted, reason FROM cascade_downstreams WHERE slot_name = 'v'}, 'the slot counts still', $counts);
is(value($i, 'SELECT pinned_by FROM cascade_status'), 'v', 'v pins i');
like(finding($i, 'v'), qr/^warning\|replication slot "v" was invalidated by the server \(max_slot_wal_keep_size\).*p.*\|.*pg_catalog\.pg_drop_replication_slot\('v'\)/,
	'which is said, with what to do');
held_above($need, 'p holds what v needs');

kill_node($i);
start_after_kill($i);
wait_connected($i);
wait_for($i, q{SELECT counted, reason FROM cascade_downstreams WHERE slot_name = 'v'}, 'after a crash too', $counts);
add_rows($p, 3);
checkpoint_all($p, $i);
checkpoint_all($p, $i);
held_above($need, 'p goes on holding it');
$i->restart;
wait_connected($i);
add_rows($p, 1);
checkpoint_all($p, $i);
held_above($need, 'after a restart as well');
reattach($p, 'i', $v);

# ---- until the slot is gone ----

value($i, q{SELECT pg_drop_replication_slot('v')});
not_held_above($need, 'without the slot nothing asks for it any more');
value($i, q{SELECT pg_create_physical_replication_slot('v')});
look_around($i);
is(slot($i, 'v', 'counted, reason'), 'f|no restart_lsn', 'a new slot of that name inherits nothing');
value($i, q{SELECT pg_drop_replication_slot('v')});

# ---- or p has given it up ----

value($i, q{SELECT pg_create_physical_replication_slot('x', true)});
look_around($i);
$need = lose($i, 'x');
wait_for($i, q{SELECT counted, reason FROM cascade_downstreams WHERE slot_name = 'x'}, 'another slot counts when it is lost', $counts);
held_above($need, 'p holds for it');
set_conf($p, "cascade_relay.max_hold_size = 2MB\n");
wait_for($i, q{SELECT counted, reason FROM cascade_downstreams WHERE slot_name = 'x'}, 'until p has given that up', $lost);
like(finding($i, 'x'), qr/^critical\|replication slot "x" was invalidated by the server \(max_slot_wal_keep_size\).*\|.*SELECT pg_catalog\.pg_drop_replication_slot\('x'\)/,
	'then it is lost');
set_conf($p, "cascade_relay.max_hold_size = -1\n");
$i->restart;
wait_connected($i);
look_around($i);
is(slot($i, 'x', 'counted, reason'), $lost, 'for good');
value($i, q{SELECT pg_drop_replication_slot('x')});

# ---- or it takes too long ----

value($i, q{SELECT pg_create_physical_replication_slot('y', true)});
look_around($i);
$need = lose($i, 'y');
held_above($need, 'p holds for y');
set_conf($i, "cascade_relay.hold_timeout = 1s\n");
wait_for($i, q{SELECT counted, reason FROM cascade_downstreams WHERE slot_name = 'y'}, 'hold_timeout ends it', $lost);
like(finding($i, 'y'), qr/^critical\|/, 'y is lost');
not_held_above($need, 'p lets it go');
value($i, q{SELECT pg_drop_replication_slot('y')});
set_conf($i, "cascade_relay.hold_timeout = 0\n");

# ---- so it is with a hold that its bound has moved ----

my $l = new_standby('l', $i, conf => $quick, slotless => 1);
wait_connected($l);
checkpoint_all($p, $i, $l);
wait_protected($l);
$l->stop;
wait_for($i, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'l'}, 'l is away');
$need = value($i, q{SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'l'});
add_rows($p, 2);
write_segments($p, 8);
checkpoint_all($p, $i);
wait_for($i, "SELECT restart_lsn > '$need' FROM cascade_holds WHERE name = 'l'", 'the hold of l has met its bound on i');
held_above($need, 'p holds what l needs');
$i->restart;
wait_connected($i);
my $reports = value($i, 'SELECT reports_sent FROM cascade_status');
wait_for($i, "SELECT reports_sent > $reports + 3 FROM cascade_status", 'i reports again');
checkpoint_all($p, $i);
checkpoint_all($p, $i);
held_above($need, 'p goes on holding it after a restart of i');
reattach($p, 'i', $l);

# ---- what was never seen, and what is nowhere above ----

my $worker = value($i, 'SELECT worker_pid FROM cascade_status');
kill 'STOP', $worker;
value($i, q{SELECT pg_create_physical_replication_slot('z', true)});
write_segments($p, 9);
checkpoint_all($p, $i);
kill 'CONT', $worker;
look_around($i);
is(slot($i, 'z', 'counted, reason'), $lost, 'a slot that was lost before it was seen asks for nothing');

set_conf($p, "max_slot_wal_keep_size = 6MB\n");
value($p, q{SELECT pg_create_physical_replication_slot('w', true)});
look_around($p);
lose($p, 'w');
look_around($p);
is(slot($p, 'w', 'counted, reason'), $lost, 'on a primary a slot is lost at once');
like(finding($p, 'w'), qr/^critical\|/, 'which is said');

$_->stop for $v, $l, $i, $p;
done_testing();
