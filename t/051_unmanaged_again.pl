# The library is taken out of a leaf, which streams on.
#
#	p ── i ─┬─ l
#	        └─ m
#
# What i knows of l and of m is from when they reported; that it keeps for them,
# and shows where their walsenders are.  The hold of l is forgotten, which has to
# be forced as long as l streams; what m needs is released.  From then on each of
# them is a standby like any other without cascade_relay: its slot counts.  They
# stop, WAL is removed, i is killed; both find every row on p.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = "cascade_relay.stale_timeout = 1s\n";
my $p = new_primary('p', conf => $conf);
my $i = new_standby('i', $p, conf => $conf);
my $l = new_standby('l', $i, conf => $conf);
my $m = new_standby('m', $i, conf => $conf);
my %hold = map { ($_->name => 'cascade_relay_' . $_->name . '_' . incarnation($_)) } ($l, $m);

sub verdict
{
	my ($slot) = @_;

	return "SELECT counted, reason FROM cascade_downstreams WHERE slot_name = '$slot'";
}

add_rows($p, 2);
wait_protected($i, $l, $m);
for my $node ($l, $m)
{
	$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
	$node->restart;
	wait_for($i, "SELECT active FROM pg_replication_slots WHERE slot_name = '" . $node->name . "'", $node->name . ' streams again');
}
write_segments($p, 3);
wait_caught_up($p, $i, $l, $m);
my $lsn = value($p, 'SELECT pg_current_wal_flush_lsn()');
for my $name (qw(l m))
{
	wait_for($i, "SELECT count(*), bool_and(state = 'streaming' AND replay_lsn >= '$lsn' AND replay_lag_bytes < 1048576) FROM cascade_topology WHERE node_name = '$name'",
		"i shows $name once, and where its walsender is", '1|t');
	is(value($i, verdict($hold{$name})), 't|managed, by its last report', "what $name has said last is kept");
}

# ---- forgotten, and released ----

my (undef, undef, $error) = $i->psql('postgres', q{SELECT cascade_forget('l')});
like($error, qr/ERROR:  node "l" is live\n.*\nHINT:  .*SELECT public\.cascade_forget\('l', true\);/, 'l streams: that has to be forced');
is(value($i, q{SELECT cascade_forget('l', true)}), '{}', 'then it is forgotten');
is(hold_lsn($i, 'l'), '', 'with its hold');
wait_for($i, verdict('l'), 'its slot counts', 't|physical slot');
wait_for($i, q{SELECT managed, state FROM cascade_topology WHERE node_name = 'l'}, 'it is drawn as what it is', 'f|streaming');

value($i, q{SELECT cascade_release('m')});
wait_for($i, verdict($hold{m}), 'm is released', 'f|released');
write_segments($p, 1);
value($p, 'CHECKPOINT');
wait_caught_up($p, $i, $l, $m);
wait_for($i, verdict('m'), 'as soon as it has caught up, its slot counts', 't|physical slot');

# ---- the proof ----

$_->stop for $l, $m;
for my $name (qw(l m))
{
	wait_for($i, verdict($name), "the slot of $name counts while it is away", 't|physical slot');
}
add_rows($p, 5);
wait_caught_up($p, $i);
remove_wal(4, $p, $i);
kill_node($i);
reattach($p, 'i', $l, $m);

done_testing();
