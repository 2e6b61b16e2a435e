# Somebody drops the hold of a node that is away, and it is placed again.
#
#	p ─┬─ i ─┬─ l
#	   │     └─ m
#	   └─ j
#
# l stops, and p, i remove what WAL they may.  Then an HA manager that does not
# know the holds drops them, and checkpoints follow: that of l on i, and that of
# i on p once i is away too.  Nobody reports, so the workers place them again by
# themselves, as low as other slots cover; they say so; and what they hold is
# worth it, for l finds every row on i, and after i has lost its disk on p.
#
# Not where it is not wanted: switched off, released, forgotten, live again, or
# without a free slot.  That is said once, not with each attempt.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p');
my $i = new_standby('i', $p);
my $l = new_standby('l', $i);
my $m = new_standby('m', $i);
my $j = new_standby('j', $p);
my @standbys = ($i, $l, $m, $j);

wait_protected(@standbys);
my %hold = map { ($_->name => 'cascade_relay_' . $_->name . '_' . incarnation($_)) } @standbys;

sub set
{
	my ($node, $conf) = @_;

	$node->append_conf('postgresql.conf', $conf);
	$node->reload;
	return;
}

sub drop_hold
{
	my ($node, $name) = @_;

	value($node, "SELECT pg_drop_replication_slot('$hold{$name}')");
	return;
}

sub found
{
	my ($node, $severity, $about, $message) = @_;

	wait_for($node,
		"SELECT count(*) = 1 FROM cascade_check WHERE code = 'hold_dropped'
		 AND severity = '$severity' AND node_name = '$about' AND message ~ '$message'",
		$node->name . " says that the hold of $about was dropped: $severity");
	return;
}

# The hold stands at or below that LSN.
sub holds_from
{
	my ($node, $name, $lsn) = @_;

	wait_for($node,
		"SELECT div(restart_lsn - '0/0', 1048576) <= div('$lsn'::pg_lsn - '0/0', 1048576) FROM cascade_holds WHERE slot_name = '$hold{$name}'",
		$node->name . " holds for $name again");
	return;
}

sub wait_down
{
	my ($node, $name) = @_;

	wait_for($node, "SELECT state = 'down' FROM cascade_topology WHERE node_name = '$name'", $node->name . " knows that $name is away");
	return;
}

# The worker has gone round a few times since.
sub let_it_look
{
	my ($node) = @_;
	my $seen = "SELECT observed_at FROM cascade_topology WHERE is_local";

	for (1 .. 3)
	{
		my $then = value($node, $seen);

		$node->poll_query_until('postgres', "SELECT ($seen) > '$then'") or die;
	}
	return;
}

sub placed
{
	my ($node, $name, $offset) = @_;
	my @lines = slurp_file($node->logfile, $offset) =~ /hold "$hold{$name}" had been dropped by somebody else, and was placed again/g;

	return scalar @lines;
}

# ---- the hold of l on i ----

# l's need is covered by its own slot on i, which nobody drops; m's hold goes on
$l->stop;
wait_down($i, 'l');
my $need = value($i, q{SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'l'});
remove_wal(5, $p, $i, $m, $j);
my $log = -s $i->logfile;
drop_hold($i, 'l');
holds_from($i, 'l', $need);
found($i, 'warning', 'l', 'placed again');
found($p, 'warning', 'l', 'placed again');
is(placed($i, 'l', $log), 1, 'the log says so, once');

# now it covers itself, so that the slot may go, and WAL be removed
value($i, q{SELECT pg_drop_replication_slot('l')});
remove_wal(5, $p, $i, $m, $j);
ok(has_segment($i, $need), 'i keeps what l needs by the hold alone');
ok(has_segment($p, $need), 'and p does');

# ---- that of i on p, with all that is kept for l ----

# j stands in for whoever covers it: it is away for as long as l is
$j->stop;
wait_down($p, 'j');
$i->stop;
wait_down($p, 'i');
my $held = hold_lsn($p, 'i');
ok(lsn_le($p, $held, $need), 'p holds for i what l needs');
slot_from_hold($p, 'i', 'cover');
value($p, 'CHECKPOINT');
let_it_look($p);
write_segments($p, 1);
value($p, 'CHECKPOINT');
let_it_look($p);
$log = -s $p->logfile;
drop_hold($p, 'i');
holds_from($p, 'i', $need);
found($p, 'warning', 'i', 'placed again');
value($p, q{SELECT pg_drop_replication_slot('cover')});
add_rows($p, 3);
value($p, 'CHECKPOINT');
write_segments($p, 1);
value($p, 'CHECKPOINT');
ok(has_segment($p, $need), 'p keeps what l needs by the hold alone');

# ---- again and again ----

# each time it is a new loss, and with i's own slot for a cover it is where i is
for (1 .. 3)
{
	drop_hold($p, 'j');
	wait_for($p, "SELECT count(*) FROM cascade_holds WHERE slot_name = '$hold{j}'", 'the hold of j is back', 1);
}
is(placed($p, 'j', $log), 3, 'and each time the log says so');
is(placed($p, 'i', $log), 1, 'that of i was placed once');

# ---- one that cannot be placed is no obstacle to the other ----

# whichever of the two is looked at first: a folder is in its way
slot_from_hold($p, 'i', 'cover');
let_it_look($p);
value($p, 'CHECKPOINT');
write_segments($p, 1);
value($p, 'CHECKPOINT');
let_it_look($p);
for (['i', 'j'], ['j', 'i'])
{
	my ($blocked, $other) = @$_;
	my $in_the_way = $p->data_dir . "/pg_replslot/$hold{$blocked}";

	# both are dropped while nobody places them
	set($p, 'cascade_relay.enabled = off');
	wait_for($p, 'SHOW cascade_relay.enabled', 'switched off', 'off');
	let_it_look($p);
	drop_hold($p, $_) for $blocked, $other;
	mkdir $in_the_way or die $!;
	append_to_file("$in_the_way/something", 'there');
	$log = -s $p->logfile;
	set($p, 'cascade_relay.enabled = on');
	$p->wait_for_log(qr/could not rename \S+ "pg_replslot\/$hold{$blocked}/, $log);
	wait_for($p, "SELECT count(*) FROM cascade_holds WHERE slot_name = '$hold{$other}'", "the hold of $other is back", 1);
	is(hold_lsn($p, $blocked), '', "that of $blocked cannot be made");
	found($p, 'critical', $blocked, 'which is away');
	unlink "$in_the_way/something" or die $!;
	rmdir $in_the_way or die $!;
	wait_for($p, "SELECT count(*) FROM cascade_holds WHERE slot_name = '$hold{$blocked}'", "when it can, that of $blocked is back", 1);
}
holds_from($p, 'i', $need);
value($p, q{SELECT pg_drop_replication_slot('cover')});

# ---- where it is not wanted ----

# switched off
set($p, 'cascade_relay.enabled = off');
wait_for($p, 'SHOW cascade_relay.enabled', 'switched off', 'off');
let_it_look($p);
drop_hold($p, 'j');
let_it_look($p);
is(hold_lsn($p, 'j'), '', 'switched off, nothing is placed');
found($p, 'critical', 'j', 'which is away');

# no slot to spare: said once
my $n = value($p, q{SELECT 9 - count(*) FROM pg_replication_slots});
value($p, "SELECT pg_create_physical_replication_slot('filler_$_')") for 1 .. $n;
$log = -s $p->logfile;
set($p, 'cascade_relay.enabled = on');
$p->wait_for_log(qr/hold "$hold{j}" was dropped by somebody else, and cannot be placed again: .*\n.*HINT/, $log);
my $at = value($p, 'SELECT clock_timestamp()');
wait_for($p, "SELECT clock_timestamp() > timestamptz '$at' + interval '2.5 s'", 'some attempts later');
is(() = slurp_file($p->logfile, $log) =~ /cannot be placed again/g, 1, 'the log has it once');
found($p, 'critical', 'j', 'which is away');
is(value($p, 'SELECT count(*) FROM pg_replication_slots'), 9, 'the last slot is free');
value($p, q{SELECT pg_drop_replication_slot('filler_1')});
wait_for($p, "SELECT count(*) FROM cascade_holds WHERE slot_name = '$hold{j}'", 'with a slot to spare it is placed', 1);
value($p, "SELECT pg_drop_replication_slot('filler_$_')") for 2 .. $n;

# released
value($p, q{SELECT cascade_release('j')});
drop_hold($p, 'j');
let_it_look($p);
is(hold_lsn($p, 'j'), '', 'what was released is not missed');
is(value($p, q{SELECT count(*) FROM cascade_check WHERE code = 'hold_dropped' AND node_name = 'j' AND level = 2}), 0, 'by anybody');

# back again: it places its own hold
$j->start;
wait_protected($j);
holds_from($p, 'j', value($p, 'SELECT pg_current_wal_lsn()'));

# forgotten, with the hold there and without
$j->stop;
wait_down($p, 'j');
value($p, q{SELECT cascade_forget('j', true)});
let_it_look($p);
is(hold_lsn($p, 'j'), '', 'what was forgotten is not missed');
is(tree_state($p, 'j'), '', 'nor drawn');
$j->start;
wait_protected($j);
$j->stop;
wait_down($p, 'j');
set($p, 'cascade_relay.enabled = off');
wait_for($p, 'SHOW cascade_relay.enabled', 'switched off', 'off');
let_it_look($p);
drop_hold($p, 'j');
found($p, 'critical', 'j', 'which is away');
value($p, q{SELECT cascade_forget('j', true)});
set($p, 'cascade_relay.enabled = on');
let_it_look($p);
is(hold_lsn($p, 'j'), '', 'nor if it was missed already');
is(value($p, q{SELECT count(*) FROM cascade_check WHERE code = 'hold_dropped' AND node_name = 'j' AND level = 2}), 0, 'by anybody');

# ---- the proof ----

# i is gone with its disk; l finds everything on p
reattach($p, 'i', $l);

done_testing();
