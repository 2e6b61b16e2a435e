# A pin is a place, not a name.
#
#	p ── i ── a        a   the slots of others are kept there: "b", "a" and "p",
#	└─ b                   called like nodes that are level
#
# A tool that is gone had made slots for every member on every standby, as HA
# managers do.  Slot "b" on a pins a, i and p, while node b is level and streams
# from p.  All three name the slot and the node on which it stands; what they
# print frees them when it is run there; and b is not blamed.  So it is with
# slots that are called like the node on which they stand, or like the root.
#
# Then i is cloned with its slots, as a volume snapshot is: the clone s pins p
# with the hold of a, which streams from i.  At last p is replaced as the
# primary by b: what a backup tool has left on p pins b, while that tool is level
# and streams from b.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# "Long" is ten times stale_timeout.
my %quick = (
	conf => qq{
cascade_relay.report_interval = 100ms
cascade_relay.stale_timeout = 700ms
wal_receiver_status_interval = 1s
});

my $p = new_primary('p', %quick);
my $i = new_standby('i', $p, %quick);
my $a = new_standby('a', $i, %quick);
my $b = new_standby('b', $p, %quick);

# Each of these says that its frontier is that of this slot there.
sub pinned_by
{
	my ($place, @nodes) = @_;

	for my $node (@nodes)
	{
		wait_for($node, 'SELECT pinned_by, pinned_on, pinned_slot FROM cascade_status',
			$node->name . " is pinned by $place", $place);
	}
	return;
}

# Nothing below keeps WAL from being removed there.
sub free
{
	for my $node (@_)
	{
		wait_for($node, 'SELECT pinned_by = node_name AND pinned_on = node_name AND pinned_slot IS NULL FROM cascade_status',
			$node->name . ' is free');
	}
	return;
}

# A finding, as one line: message and hint.
sub finding
{
	my ($node, $code, $about) = @_;

	wait_for($node, "SELECT count(*) = 1 FROM cascade_check WHERE code = '$code' AND node_name = '$about'",
		$node->name . " says $code of $about") or diag value($node, 'SELECT * FROM cascade_check');
	return value($node, "SELECT message || ' | ' || hint FROM cascade_check WHERE code = '$code' AND node_name = '$about'");
}

# Runs the first command of a finding as it is printed.
sub run_hint
{
	my ($node, $finding) = @_;
	my ($command) = $finding =~ /(SELECT [^;]*;)/;

	ok($command, "a command in: $finding");
	value($node, $command) if $command;
	return;
}

wait_connected($i, $a, $b);
wait_protected($i, $a, $b);
remove_wal(2, $p, $i, $a, $b);
wait_caught_up($p, $i, $a, $b);
free($p, $i, $a);

# ---- a slot that is called like a node that lives somewhere else ----

value($a, q{SELECT pg_create_physical_replication_slot('b', true)});
pinned_by('b|a|b', $a);
write_segments($p, 3);
wait_caught_up($p, $i, $a, $b);
pinned_by('b|a|b', $p, $i, $a);
is(value($p, q{SELECT pinned_by, pinned_on, pinned_slot FROM cascade_topology WHERE node_name IN ('p', 'i', 'a') GROUP BY 1, 2, 3}),
	'b|a|b', 'in the tree, on the whole way');
is(value($p, q{SELECT frontier_lsn = replay_lsn, pinned_on FROM cascade_topology WHERE node_name = 'b'}), 't|b', 'but b is level');
is(value($p, q{SELECT pinned_by, pinned_on, pinned_slot FROM cascade_holds WHERE name = 'i'}), 'b|a|b', 'p knows which hold keeps it');
is(value($a, q{SELECT pinned_by, pinned_on, pinned_slot FROM cascade_downstreams WHERE slot_name = 'b'}), 'b|a|b', 'and a, which slot');
is(value($p, q{SELECT substring(l, '[a-z]') || coalesce(substring(l, ' pinned.*'), '') FROM cascade_tree() l}),
	join("\n", 'p pinned by slot b on a', 'b', 'i pinned by slot b on a', 'a pinned by slot b'), 'the drawing says so');

my %said = map { $_->name => finding($_, 'pinned_long', 'b') } $p, $i, $a;
like($said{p}, qr/^slot "b" on node "a", by way of "i", has been keeping .* on node "a": SELECT [^;]*pg_drop_replication_slot\('b'\);/, 'p says where, and what can be done there');
like($said{i}, qr/^slot "b" on node "a" has been keeping .* on node "a": SELECT [^;]*pg_drop_replication_slot\('b'\);/, 'so does i');
unlike(join(' ', values %said), qr/cascade_release/, 'nobody is to release a node that is level');
like(finding($a, 'orphan_slot', 'b'), qr/^replication slot "b" keeps .*, not from here \| .*pg_drop_replication_slot\('b'\);/, 'a says that nobody uses it');
run_hint($a, $said{p});
free($p, $i, $a);
wait_for($_, q{SELECT count(*) = 0 FROM cascade_check WHERE code IN ('pinned_long', 'orphan_slot')}, $_->name . ' has nothing more to say of it')
  for $p, $i, $a;

# ---- one like the node itself, and one like the root ----

for my $name (qw(a p))
{
	value($a, "SELECT pg_create_physical_replication_slot('$name', true)");
	write_segments($p, 2);
	wait_caught_up($p, $i, $a, $b);
	pinned_by("$name|a|$name", $p, $i, $a);
	run_hint($a, finding($a, 'orphan_slot', $name));
	free($p, $i, $a);
}

# ---- a volume that was copied with its slots ----

$i->stop;
my $s = PostgreSQL::Test::Cluster->new('s');
$i->backup_fs_cold('volume');
$i->start;
$s->init_from_backup($i, 'volume');
unlink glob($s->data_dir . '/pg_replslot/cascade_relay.*');
$s->append_conf('postgresql.conf', "cascade_relay.node_name = 's'\nprimary_slot_name = 's'");
value($p, q{SELECT pg_create_physical_replication_slot('s', true)});
point_at($s, $p);
$s->start;
wait_connected($i, $a, $s);
remove_wal(3, $p, $i, $a, $b, $s);
my $copied = 'cascade_relay_a_' . incarnation($a);
for my $node ($p, $s)
{
	wait_for($node, 'SELECT pinned_by, pinned_on FROM cascade_status', $node->name . ' is pinned by what s has for a', 'a|s');
}
ok(value($p, 'SELECT pinned_slot FROM cascade_status') =~ /^(?:a|$copied)$/, 'by one of the copied slots');

# the hold may go by itself, once a has proven where it is
$s->psql('postgres', "SELECT cascade_forget('$copied', true)");
run_hint($s, finding($s, 'orphan_slot', 'a'));
free($p, $s);

# ---- what a backup tool has left on the old primary ----

value($p, q{SELECT pg_create_physical_replication_slot('barman', true)});
my $archive = PostgreSQL::Test::Utils::tempdir();
my $barman = IPC::Run::start([ 'pg_receivewal', '-D', $archive, '-S', 'barman', '--no-sync', '-d', $p->connstr ]);
wait_for($b, q{SELECT state FROM cascade_topology WHERE node_name = 'barman' AND upstream_name = 'p'}, 'b has heard of barman', 'streaming');
$barman->kill_kill;
$s->stop;
$i->stop;
$a->stop;
$p->stop;
$b->promote;
value($b, q{SELECT pg_create_physical_replication_slot('p', true)});
$p->append_conf('postgresql.conf', "primary_slot_name = 'p'");
$p->set_standby_mode;
point_at($p, $b);
$p->start;
wait_connected($p);
write_segments($b, 2);
wait_caught_up($b, $p);
pinned_by('barman|p|barman', $b, $p);
is(value($_, q{SELECT count(*) FROM cascade_topology WHERE node_name = 'barman'}), '0', $_->name . ' does not draw what p fed once') for $b, $p;
run_hint($p, finding($p, 'orphan_slot', 'barman'));
wait_for($b, q{SELECT pinned_slot IS DISTINCT FROM 'barman' FROM cascade_status}, 'then it is gone');

done_testing();
