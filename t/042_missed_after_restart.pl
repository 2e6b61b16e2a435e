# A hold is dropped after its owner was restarted, or while that was down, and
# its node has not called since.
#
#	p ── i ── l
#
# l is down, and i is restarted: all that i knows of l is the hold.  Somebody
# drops it, before i has looked around, or later.  i misses it, places it again
# as low as something covers it, and says so.  If nothing does, i says what is
# lost there, and goes on asking p for what l needs, so that p has it.  The same
# on p, for i.
#
# Nobody misses the hold of a former life that was forgotten, or of a node that is
# above by now:
#
#	i ── p
#
# p was i's upstream, and has a hold for it; as a standby of i it lets it go.
#
# Then p is down, and i is to let go of it in turn, while nothing can be written
# in its folder of slots: what it could not write down then it does later, or it
# would miss after a restart what nobody misses.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use File::Path qw(rmtree);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p', conf => "cascade_relay.stale_timeout = 10min\n");
my $i = new_standby('i', $p);
my $l = new_standby('l', $i);

wait_protected($i, $l);
my %hold = map { ($_->name => 'cascade_relay_' . $_->name . '_' . incarnation($_)) } ($i, $l);

sub drop_hold
{
	my ($node, $name) = @_;

	value($node, "SELECT pg_drop_replication_slot('$hold{$name}')");
	return;
}

# As if it had been dropped after the start, before anybody has looked around.
sub erase_hold
{
	my ($node, $name) = @_;
	my $dir = $node->data_dir . "/pg_replslot/$hold{$name}";

	ok(-d $dir, $node->name . " has saved the hold of $name");
	rmtree($dir);
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

sub holds_from
{
	my ($node, $name, $lsn) = @_;

	wait_for($node,
		"SELECT div(restart_lsn - '0/0', 1048576) <= div('$lsn'::pg_lsn - '0/0', 1048576) FROM cascade_holds WHERE slot_name = '$hold{$name}'",
		$node->name . " holds for $name again");
	wait_for($node, "SELECT state FROM cascade_topology WHERE node_name = '$name'", 'which is down', 'down');
	return;
}

sub placed
{
	my ($node, $name, $offset) = @_;
	my @lines = slurp_file($node->logfile, $offset) =~ /hold "$hold{$name}" had been dropped by somebody else, and was placed again/g;

	return scalar @lines;
}

sub need_of
{
	my ($node, $name) = @_;

	return value($node, "SELECT frontier_lsn FROM cascade_topology WHERE node_name = '$name'");
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

# ---- on a standby, after a restart ----

$l->stop;
wait_for($i, q{SELECT state FROM cascade_topology WHERE node_name = 'l'}, 'i knows that l is away', 'down');
my $need = need_of($i, 'l');
remove_wal(4, $p, $i);
$i->restart;
wait_protected($i);
my $log = -s $i->logfile;
drop_hold($i, 'l');
holds_from($i, 'l', $need);
found($_, 'warning', 'l', 'placed again') for ($i, $p);
is(placed($i, 'l', $log), 1, 'the log says so, once');

# while it was down; and that time it had crashed
for my $how (qw(fast immediate))
{
	$i->stop($how);
	erase_hold($i, 'l');
	$log = -s $i->logfile;
	$i->start;
	holds_from($i, 'l', $need);
	found($i, 'warning', 'l', 'placed again');
	is(placed($i, 'l', $log), 1, "it was placed again after a stop: $how");
}
wait_protected($i);
remove_wal(4, $p, $i);
ok(has_segment($_, $need), $_->name . ' keeps what l needs') for ($i, $p);

# ---- on p, the same ----

$i->stop;
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'i'}, 'p knows that i is away', 'down');
slot_from_hold($p, 'i', 'cover');
$p->stop;
erase_hold($p, 'i');
$p->start;
holds_from($p, 'i', $need);
found($p, 'warning', 'i', 'placed again');
value($p, q{SELECT pg_drop_replication_slot('cover')});
$i->start;
wait_protected($i);
remove_wal(4, $p, $i);
ok(has_segment($p, $need), 'p keeps what l needs by the hold alone');

# ---- nothing covers it ----

# with l's slot goes all that covers the hold of l; there is WAL that l needs on
# i no more, but on p there is, as i goes on asking for it
$i->restart;
wait_protected($i);
value($i, q{SELECT pg_drop_replication_slot('l')});
drop_hold($i, 'l');
found($i, 'critical', 'l', 'could be placed again only at');
is(value($i, q{SELECT count(*) FROM cascade_check WHERE code = 'hold_dropped' AND severity = 'warning' AND node_name = 'l'}), 0, 'which is said once');
remove_wal(4, $p, $i);
remove_wal(4, $p, $i);
ok(!has_segment($i, $need), 'i has lost what l needs');
ok(has_segment($p, $need), 'p keeps it');
is(value($i, q{SELECT counted, reason FROM cascade_holds WHERE name = 'l'}), 't|managed, by its hold until it calls', 'for l counts');

# so that is where l goes
add_rows($p, 3);
reattach($p, 'i', $l);
wait_protected($l);

# ---- another name ----

point_at($l, $i);
value($i, q{SELECT pg_create_physical_replication_slot('l', true)});
my $former = 'cascade_relay_l_' . incarnation($l);
$l->append_conf('postgresql.conf', "cascade_relay.node_name = 'renamed'");
$l->restart;
wait_protected($l);
value($i, "SELECT cascade_forget('$former', true)");
wait_for($i, "SELECT count(*) FROM cascade_holds WHERE name IN ('l', 'renamed')", 'what i held for its former life was forgotten', 1);
$l->stop;
wait_for($i, q{SELECT state FROM cascade_topology WHERE node_name = 'renamed'}, 'it is away', 'down');
let_it_look($i);
$i->restart;
wait_protected($i);
let_it_look($i);
is(value($i, q{SELECT string_agg(DISTINCT name, ' ') FROM cascade_holds}), 'renamed', 'and is not missed after a restart');
is(value($i, q{SELECT count(*) FROM cascade_check WHERE code = 'hold_dropped' AND node_name IN ('l', 'renamed')}), 0, 'nor is it said');

# ---- upside down ----

# p keeps nothing for i that anybody misses, now that it is below
add_rows($p, 1);
wait_caught_up($p, $i);
$p->stop;
$i->promote;
$p->set_standby_mode;
point_at($p, $i);
$p->start;
wait_for($p, q{SELECT path FROM cascade_topology WHERE is_local}, 'p is below i', '{i,p}');
is(value($p, "SELECT count(*) FROM cascade_holds WHERE slot_name = '$hold{i}'"), 1, 'and has a hold for it still');
wait_for($p, "SELECT reason FROM cascade_holds WHERE slot_name = '$hold{i}'", 'which is of the past', 'belongs to a node on the own path');
let_it_look($p);
drop_hold($p, 'i');
let_it_look($p);
is(hold_lsn($p, 'i'), '', 'it is gone for good');
is(value($p, q{SELECT count(*) FROM cascade_check WHERE code = 'hold_dropped'}), 0, 'and nobody misses it');
is(tree_state($p, 'i'), 'running', 'i is drawn where it is');
$p->restart;
wait_for($p, q{SELECT path FROM cascade_topology WHERE is_local}, 'p is below i after a restart', '{i,p}');
let_it_look($p);
is(hold_lsn($p, 'i'), '', 'and misses nothing then');

# ---- a folder that cannot be written to ----

my $replslot = $i->data_dir . '/pg_replslot';

sub file_has
{
	my ($section) = @_;

	return scalar grep { /^$hold{p} / } state_lines($i, $section);
}

wait_protected($p);
$hold{p} = 'cascade_relay_p_' . incarnation($p);
$p->stop;
wait_for($i, q{SELECT state FROM cascade_topology WHERE node_name = 'p'}, 'p is away', 'down');
let_it_look($i);
is(file_has('hold'), 1, 'i has written down that it holds for p');
my $held = hold_lsn($i, 'p');
chmod 0500, $replslot or die $!;
my ($ret, undef, $stderr) = $i->psql('postgres', q{SELECT cascade_release('p')});
like($stderr, qr/ERROR:  could not write file "pg_replslot\/cascade_relay\.state\.tmp"/, 'a release that cannot be written down is an error');
($ret, undef, $stderr) = $i->psql('postgres', q{SELECT cascade_forget('p', true)});
like($stderr, qr/ERROR:  could not write file "pg_replslot\/cascade_relay\.state\.tmp"/, 'and so is forgetting');
look_around($i);
is(hold_lsn($i, 'p'), $held, 'the hold stands where it stood');
is(value($i, q{SELECT counted, reason FROM cascade_holds WHERE name = 'p'}), 't|managed, by its last report', 'and counts');
chmod 0700, $replslot or die $!;
value($i, q{SELECT cascade_release('p')});
is(file_has('released'), 1, 'when it can be written, it is on disk at once');

done_testing();
