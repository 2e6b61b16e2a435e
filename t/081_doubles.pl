# Two nodes with one name, or with one incarnation, are seen from above.
#
#	p ── i ── l
#	│    ├─ c     a clone of i that kept its name
#	│    └─ v     then a copy of i's volume: its incarnation too
#	├─ d          a clone of p that kept its name
#	└─ w          a copy of l's volume, below another upstream than l
#
# Clones copy the settings of what they were made from, and pods share one
# file, so that a standby comes up under the name of its own upstream.  That one
# refuses it; but whoever looks at monitoring looks at the primary.  Each double
# is critical on the upstream that refuses it and on the root, with the address
# that it calls from; and when it has a name of its own, it is gone.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use File::Copy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %quick = (
	conf => qq{
cascade_relay.report_interval = 100ms
cascade_relay.stale_timeout = 2s
wal_receiver_status_interval = 1s
});

# Each node says that there are two of this name.
sub doubled
{
	my ($name, @nodes) = @_;

	for my $node (@nodes)
	{
		wait_for($node, "SELECT count(*) = 1 FROM cascade_check WHERE severity = 'critical' AND code = 'duplicate_name' AND node_name = '$name'",
			$node->name . " says that there are two nodes $name")
		  or diag value($node, 'SELECT * FROM cascade_check');
	}
	return;
}

sub single
{
	my ($name, @nodes) = @_;

	for my $node (@nodes)
	{
		wait_for($node, "SELECT count(*) = 0 FROM cascade_check WHERE code = 'duplicate_name' AND node_name = '$name'",
			$node->name . " says that there is one node $name");
	}
	return;
}

# The incarnation of a node, as a copy of its volume has it.
sub copy_incarnation
{
	my ($from, $to) = @_;
	my $file = 'pg_replslot/cascade_relay.state';

	copy($from->data_dir . "/$file", $to->data_dir . "/$file") or die $!;
	return;
}

my $p = new_primary('p', %quick);
my $i = new_standby('i', $p, %quick);
my $l = new_standby('l', $i, %quick);
my $c = new_standby('c', $i, conf => $quick{conf} . "cascade_relay.node_name = 'i'\n");
my $d = new_standby('d', $p, conf => $quick{conf} . "cascade_relay.node_name = 'p'\n");

# ---- the name of the upstream ----

doubled('i', $c, $i, $p, $l);
doubled('p', $d, $p, $i);
like(value($i, q{SELECT message FROM cascade_check WHERE code = 'duplicate_name' AND node_name = 'i'}),
	qr/: the other one \([0-9a-f]{8}\) calls from \S+, and is refused$/, 'i says where the other one is');
is(value($i, q{SELECT state FROM cascade_topology WHERE is_local}), 'streaming', 'i itself is no duplicate');
is(value($i, 'SELECT protected, upstream_state FROM cascade_status'), 't|connected', 'and protected');
is(value($p, q{SELECT level FROM cascade_check LIMIT 1}), '2', 'the exit code of p is that of something critical');
$_->append_conf('postgresql.conf', "cascade_relay.node_name = '" . $_->name . "'") for $c, $d;
$_->restart for $c, $d;
wait_connected($c, $d);

# ---- the incarnation of the upstream ----

my $v = new_standby('v', $i, %quick, no_start => 1);
copy_incarnation($i, $v);
$v->append_conf('postgresql.conf', "cascade_relay.node_name = 'i'");
$v->start;
wait_for($v, q{SELECT last_error ~ 'another live node has this node''s name or incarnation .the upstream itself is node "i"' FROM cascade_status},
	'the copy is told that it is one, and not that it called itself');
doubled('i', $i, $p);

# ---- the same below another upstream ----

my $w = new_standby('w', $p, %quick, no_start => 1);
copy_incarnation($l, $w);
$w->append_conf('postgresql.conf', "cascade_relay.node_name = 'l'");
$w->start;
wait_connected($w);
doubled('l', $p);

# ---- and when it is mended ----

for my $node ($v, $w)
{
	$node->stop;
	unlink $node->data_dir . '/pg_replslot/cascade_relay.state' or die $!;
	$node->append_conf('postgresql.conf', "cascade_relay.node_name = '" . $node->name . "'");
	$node->start;
}
wait_connected($v, $w);
single($_, $p, $i) for qw(l p);

done_testing();
