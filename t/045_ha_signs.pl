# Somebody drops the hold of a node that is away, after a restart.
#
#	p ── i ── l
#
# That is what Patroni does with slots that it does not know, each time after
# PostgreSQL was started.  i is down; p is restarted, and has not heard of i
# since.  All that it knows of i is the hold, and that is dropped: p must say
# so, rather than forget that there was anybody, and place it again.  A node that
# is forgotten on purpose is no such case.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p');
my $i = new_standby('i', $p);
my $l = new_standby('l', $i);

wait_protected($_) for ($i, $l);
my %hold =
  map { ($_->name => 'cascade_relay_' . $_->name . '_' . incarnation($_)) } ($i, $l);

sub found
{
	my ($node, $severity, $about, $message) = @_;

	wait_for($node,
		"SELECT count(*) = 1 FROM cascade_check WHERE code = 'hold_dropped'
		 AND severity = '$severity' AND node_name = '$about' AND message ~ '$message'",
		$node->name . " says that the hold of $about was dropped: $severity");
	return;
}

sub silent
{
	my ($node, $about) = @_;

	is(value($node, "SELECT count(*) FROM cascade_check WHERE code = 'hold_dropped' AND node_name = '$about'"),
		0, $node->name . " does not say that the hold of $about was dropped");
	return;
}

# Restarts a node while one below it is down, and waits until it has seen who
# is below it.
sub restart_without
{
	my ($node, $child) = @_;
	my $name = $child->name;

	$child->stop;
	$node->restart;
	wait_for($node,
		"SELECT count(*) = 1 FROM cascade_topology WHERE node_name = '$name' AND state = 'down'",
		$node->name . " knows $name by its hold");
	return;
}

sub drop_hold
{
	my ($node, $child) = @_;

	value($node, "SELECT pg_drop_replication_slot('$hold{$child->name}')");
	return;
}

# ---- i is away, and p is restarted ----

slot_from_hold($p, 'i', 'cover');
restart_without($p, $i);
silent($p, 'i');
my $held = hold_lsn($p, 'i');
drop_hold($p, $i);
found($p, 'warning', 'i', 'placed again');
ok(lsn_le($p, hold_lsn($p, 'i'), $held), 'it is where it was');
is(tree_state($p, 'i'), 'down', 'i is in the tree still');
add_rows($p, 2);
$i->start;
wait_protected($_) for ($i, $l);
same_rows($p, $i, $l);
found($p, 'warning', 'i', 'placed again');
like(slurp_file($p->logfile), qr/hold "$hold{i}" had been dropped by somebody else/, 'the log says so');

# ---- forgotten on purpose ----

restart_without($p, $i);
value($p, q{SELECT cascade_forget('i', true)});
wait_for($p, q{SELECT count(*) = 0 FROM cascade_topology WHERE node_name = 'i'}, 'i is forgotten');
silent($p, 'i');
is(hold_lsn($p, 'i'), '', 'and nothing is held for it');

done_testing();
