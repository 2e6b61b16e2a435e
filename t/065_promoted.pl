# The primary is lost, another node is promoted, and the rest follows that one.
#
#	p ─┬─ s			p dies, s is promoted:	s ─┬─ v
#	   ├─ v (voting)					   └─ i ─┬─ l
#	   └─ i ─┬─ l					         └─ d (delayed)
#	         └─ d (delayed)
#
# v and i have nobody who tells them that s is a primary now: their tree stopped
# when p died.  The candidates on s name the command, and it works as printed,
# for the voting node too.  Then s dies, and the leaf l is promoted:
#
#	l ─┬─ i ─── d
#	   └─ v
#
# i follows the node that streamed from it, and v the one that was two hops away.
# s comes back as the primary that it was, on the older timeline.  Nobody may
# follow it: what it commits is lost.  Not even d, which has not replayed either
# promotion yet, and so is on timeline 1; not after a restart without upstream.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = "wal_keep_size = 64MB\ncascade_relay.stale_timeout = 2s\n";
my $p = new_primary('p', conf => $conf);
add_rows($p, 2);
my $s = new_standby('s', $p, conf => $conf);
my $v = new_standby('v', $p, conf => $conf . "cascade_relay.replica_class = voting\n");
my $i = new_standby('i', $p, conf => $conf);
my $l = new_standby('l', $i, conf => $conf);
my $d = new_standby('d', $i, conf => $conf . "recovery_min_apply_delay = '1h'\n");
my @all = ($p, $s, $v, $i, $l, $d);

set_conf($_, q{cascade_relay.advertised_conninfo = 'host=} . $_->host . ' port=' . $_->port . q{'}) for @all;
wait_connected(@all[ 1 .. 5 ]);
wait_for($_, q{SELECT count(*) = 6 FROM cascade_topology WHERE conninfo <> ''}, $_->name . ' knows where the others are') for @all;
add_rows($p, 1);				# at which d stops to replay
same_rows($p, $s, $v, $i, $l);

# What a node hears when it asks to follow another one.
sub follows
{
	my ($node, $arguments) = @_;
	my ($out, $err);

	$node->psql('postgres', "SELECT cascade_follow($arguments)", stdout => \$out, stderr => \$err);
	return $out . $err;
}

# The primary is lost, but nobody has more of its WAL than the node that will be
# promoted: nothing writes by itself any more when that is looked at.
sub dies
{
	my ($node, @below) = @_;

	kill 'STOP', value($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'});
	wait_caught_up($node, @below);
	kill_node($node);
	return;
}

# ---- a sibling is promoted ----

dies($p, $s, $v, $i, $l);
$s->promote;
add_rows($s, 1);
is(value($v, q{SELECT role FROM cascade_topology WHERE node_name = 's'}), 'standby', 'v has not heard that s is promoted');
for my $node ($v, $i)
{
	my $name = $node->name;
	my $command = "SELECT command FROM cascade_upstream_candidates('$name') WHERE upstream_name = 's' AND verdict = 'safe'";

	wait_for($s, $command, "the new primary says what $name has to run", q{SELECT public.cascade_follow('s');})
	  or diag(value($s, "SELECT * FROM cascade_upstream_candidates('$name'); SELECT * FROM cascade_tree()"));
	like(value($node, value($s, $command)), qr/^streaming from "s"/, "$name follows s") or BAIL_OUT('nothing to go on with');
}
same_rows($s, $v, $i, $l);
wait_protected($v, $i, $l);
wait_for($d, q{SELECT path[1] FROM cascade_topology WHERE is_local}, 'd has heard of the new primary', 's');

# ---- a leaf is promoted ----

dies($s, $v, $i, $l);
$l->promote;
add_rows($l, 1);
like(follows($v, q{'i'}), qr/voting-member-direct-only/, 'v may not follow i, which is a standby still');
like(follows($i, q{'l'}), qr/^streaming from "l"/, 'i follows its own leaf');
like(follows($v, q{'l'}), qr/^streaming from "l"/, 'v follows the leaf');
same_rows($l, $i, $v);
wait_protected($i, $v);
like(follows($l, q{'i'}), qr/recovery is not in progress/, 'a primary follows nobody');

# ---- the old primary comes back ----

start_after_kill($s);
add_rows($s, 1);
wait_for($d, q{SELECT path[1] FROM cascade_topology WHERE is_local}, 'd has heard of the newest primary', 'l');
is(value($d, q{SELECT timeline FROM cascade_topology WHERE is_local}), '1', 'd has replayed neither promotion');
like(follows($_, q{'s'}), qr/two-primaries/, $_->name . ' may not follow the old primary') for $v, $i, $d;

# Not even when it knows nobody, because it was started without its upstream.
wait_until('d has written down the newest primary',
	sub { value($d, q{SELECT pg_read_file('pg_replslot/cascade_relay.state', 0, 10000, true)}) =~ /^primary 3\tl$/m });
$d->stop;
$i->stop;
$d->start;
is(value($d, q{SELECT string_agg(node_name, ' ') || ' ' || max(timeline) FROM cascade_topology}), 'd 1', 'd knows nobody, and is on timeline 1');
like(follows($d, q{'s'}), qr/ERROR:  cannot follow "s": it is a primary on an older timeline .*\nDETAIL:  The reason is "two-primaries"/, 'd has not forgotten the newest primary');
like(follows($d, q{'l', dry_run => true}), qr/^would stream from "l"/, '... which it may follow');
$i->start;
is(value($_, q{SELECT refusal FROM cascade_plan_upstream('v', 'voting', 's')}), 'two-primaries', 'nor does the plan let it, says ' . $_->name)
  for $v, $i, $l;

done_testing();
