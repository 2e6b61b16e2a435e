# A node that streams from the same upstream through another slot than before.
#
#	p ─┬─ n      first through slot n, then through the one that cascade_adopt
#	   └─ i      makes for it
#
# A leaf that has been away, or whose upstream has come back, is re-attached to a
# node where its former slot still is.  That slot is not used any more.  It keeps
# WAL, and the whole tree's frontier stands still for it: cascade_check has to
# say so, with the command, whether p knows whose it was from a report or from
# before a restart.
#
# Nor does that slot have a say in what n has told of its moves.  n goes to i and
# comes back: what p remembers for the time after a restart is the counter that n
# has now.  While p cannot write that down it tries again.
#
# Then n leaves for i, and the slot that was made for it on p is let go of in a
# while; but not if it was asked for again since, for then n may come back to it.
# When it has come, and has left again, it goes.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $orphan = q{FROM cascade_check WHERE code = 'orphan_slot' AND node_name = 'n'
	AND hint LIKE '%SELECT pg_catalog.pg_drop_replication_slot(''n'');%'};

my $p = new_primary('p', conf => 'cascade_relay.stale_timeout = 2s');
my $n = new_standby('n', $p);
my $i = new_standby('i', $p);

wait_protected($n, $i);
is(value($p, "SELECT count(*) $orphan"), '0', 'the slot that n streams through is nothing to speak of');

value($p, "SELECT cascade_adopt('n')");
$n->append_conf('postgresql.conf', "primary_slot_name = 'cascade_adopted_n'");
$n->reload;
wait_for($p, q{SELECT string_agg(slot_name, ' ') FROM pg_replication_slots WHERE active AND slot_name ~ 'n$'},
	'n streams through its new slot', 'cascade_adopted_n');
add_rows($p, 3);
same_rows($p, $n);

wait_for($p, "SELECT count(*) = 1 $orphan", 'the former slot is named, with the command');
is(value($p, "SELECT message LIKE '%its node streams without it%' $orphan"), 't', 'and with the reason');

$p->restart;
wait_connected($n);
wait_for($p, "SELECT count(*) = 1 $orphan", 'it is still named after a restart');

# --- it goes and comes back ---

sub asks { return value($_[0], "SELECT cascade_adopt('n')"); }

sub moves
{
	my ($upstream) = @_;

	point_at($n, $upstream);
	$n->reload;
	wait_for($n, q{SELECT upstream_state || ' ' || upstream_name FROM cascade_status}, 'n is below ' . $upstream->name, 'connected ' . $upstream->name);
	same_rows($p, $n);
	wait_protected($n);
	return;
}

# How often n has moved: as it knows itself, and as p remembers it.
sub moved { return (split ' ', (state_lines($n, 'moves'))[0])[1]; }

sub remembered
{
	my $incarnation = incarnation($n);
	my ($line) = grep { /^$incarnation / } state_lines($p, 'told');

	return defined $line ? (split ' ', $line)[1] : undef;
}

checkpoint_all($p, $n, $i);
wait_protected($n, $i);
my $before = moved();
asks($i);
moves($i);
wait_for($p, q{SELECT count(*) FROM cascade_holds WHERE name = 'n'}, 'p lets go of n', '0');
is(value($p, q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'n'}), '1', 'but for its former slot');
# this needs the disk; what follows does not
asks($p);
my $obstacle = $p->data_dir . '/pg_replslot/cascade_relay.state.tmp';
mkdir $obstacle or die "$obstacle: $!";
moves($p);
cmp_ok(moved(), '>=', $before + 2, 'n has shown that it has moved, and moved back');
ok($p->wait_for_log(qr/could not write file "pg_replslot\/cascade_relay\.state\.tmp"/), 'p cannot write that down');
isnt(remembered() // '', moved(), 'what it has written is old');
rmdir $obstacle or die "$obstacle: $!";
wait_until('it is written when it can be, as n shows it now', sub { (remembered() // '') eq moved() });

my $lsn = value($p, 'SELECT pg_current_wal_flush_lsn()');
value($p, "SELECT pg_drop_replication_slot('n')");
wait_for($p, "SELECT frontier_lsn >= '$lsn' FROM cascade_status", 'without it the frontier goes on');
wait_for($p, "SELECT count(*) = 0 $orphan", 'and there is nothing to be said');

# ---- asked for again ----

my $there = q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cascade_adopted_n'};
my $left = q{SELECT reason = 'its node is live and protected elsewhere' FROM cascade_downstreams WHERE slot_name = 'cascade_adopted_n'};
my $held = 'cascade_relay_n_' . incarnation($n);

# All look as if n had left just now, until it is said that this is long ago.
sub leave_for_i
{
	set_conf($p, 'cascade_relay.stale_timeout = 10min');
	value($i, q{SELECT cascade_adopt('n')});
	point_at($n, $i);
	$n->reload;
	wait_for($n, q{SELECT upstream_name = 'i' AND protected FROM cascade_status}, 'n is protected below i');
	wait_for($p, $left, 'p knows that its slot is left');
	return;
}

sub let_go
{
	set_conf($p, 'cascade_relay.stale_timeout = 2s');
	wait_for($p, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$held'", 'p lets go of what it holds for n', '0');
	return;
}

wait_protected($i);
leave_for_i();
value($p, q{SELECT cascade_adopt('n')});
let_go();
is(value($p, $there), '1', 'the slot that was asked for again stays');
is(value($p, q{SELECT counted FROM cascade_downstreams WHERE slot_name = 'cascade_adopted_n'}), 't', 'and counts');
unlike(join("\n", state_lines($p, 'user')), qr/cascade_adopted_n/, 'after a restart too');

point_at($n, $p);
$n->reload;
add_rows($p, 1);
same_rows($p, $n);
wait_for($n, q{SELECT upstream_name = 'p' AND protected FROM cascade_status}, 'n is back');
is(value($p, q{SELECT active FROM pg_replication_slots WHERE slot_name = 'cascade_adopted_n'}), 't', 'and uses it');
leave_for_i();
let_go();
wait_for($p, $there, 'when it leaves without being asked for, the slot goes', '0');

$_->stop for $n, $i, $p;
done_testing();
