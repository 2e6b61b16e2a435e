# A max_slot_wal_keep_size of less than one WAL segment.
#
#	p ── i ── l		p has max_slot_wal_keep_size = 0; i is voting
#
# The server then gives every slot up at the next checkpoint.  So p can hold
# nothing, and says so: no node is protected, with that reason, also not before
# the first checkpoint.  What the server invalidates is not taken for the work of
# an HA manager, neither while it is so nor afterwards: the setting is mended, the
# hold is placed again, and all are protected.  The same setting on i keeps i from
# holding anything for l, or for itself.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $quick = "cascade_relay.stale_timeout = 1s\ncascade_relay.report_interval = 100ms\n";
my $p = new_primary('p', conf => $quick);
my $i = new_standby('i', $p, conf => "${quick}cascade_relay.replica_class = voting\n", slotless => 1);
my $l = new_standby('l', $i, conf => $quick);

sub findings
{
	my ($node, $codes) = @_;
	return value($node,
		"SELECT string_agg(concat_ws(' ', severity, code, node_name), ', ' ORDER BY code, node_name) FROM cascade_check WHERE code ~ '$codes'");
}

sub text_of
{
	my ($node, $code) = @_;
	return value($node, "SELECT string_agg(message || ' / ' || hint, E'\\n') FROM cascade_check WHERE code = '$code'");
}

sub wal_status { return value($p, q{SELECT wal_status FROM cascade_holds WHERE name = 'i'}); }

wait_connected($i, $l);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
is(findings($p, 'keep_size|hold_'), '', 'nothing to say');

# ---- nothing can be held ----

set_conf($p, "max_slot_wal_keep_size = 0\n");
wait_for($i, 'SELECT NOT protected AND upstream_held_lsn IS NULL FROM cascade_status', 'i is told that nothing is held');
wait_for($l, 'SELECT NOT protected FROM cascade_status', 'l too');
isnt(wal_status(), 'lost', 'before the server has given the hold up');
like(text_of($i, 'unprotected'), qr/max_slot_wal_keep_size there is less than one WAL segment.* \/ .*Set max_slot_wal_keep_size on the upstream/,
	'with the reason, and what to do');
wait_for($p, q{SELECT count(*) = 1 FROM cascade_check WHERE severity = 'critical' AND code = 'keep_size_too_low' AND node_name = 'p'},
	'p says it of itself');

write_segments($p, 4);
wait_caught_up($p, $i, $l);
checkpoint_all($p);
is(wal_status(), 'lost', 'the server gives the hold up');
look_around($_) for $p, $p, $i, $p;
is(value($p, 'SELECT count(*) FROM cascade_downstreams WHERE counted'), '1', 'i counts still, by its reports');
is(findings($p, 'hold_dropped'), '', 'which is nobody else\'s work');
is(value($p, q{SELECT protected FROM cascade_topology WHERE node_name = 'l'}), 'f', 'l is not protected');

# i goes away meanwhile, and is not taken for robbed either
$i->stop;
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'i'}, 'i is away');
look_around($p) for 1 .. 2;
is(findings($p, 'hold_dropped'), '', 'nor is it of a node that is away');
ok(!$p->log_contains(qr/dropped by somebody else/), 'nor in the log');
$i->start;
wait_connected($i);

# ---- mended ----

my $log = -s $p->logfile;
set_conf($p, "max_slot_wal_keep_size = -1\n");
wait_for($i, 'SELECT upstream_held_lsn IS NOT NULL FROM cascade_status', 'i is held again');
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
$p->wait_for_log(qr/hold "cascade_relay_i_[0-9a-f]{8}" had been invalidated by the server, and was placed again.*\n.*HINT:  .*max_slot_wal_keep_size/, $log);
is(findings($p, 'keep_size'), '', 'p can hold again');
for my $node ($p, $i, $l)
{
	wait_for($node, q{SELECT warnings @> '{hold_invalidated}' AND NOT warnings @> '{hold_dropped}' FROM cascade_topology WHERE node_name = 'i'},
		$node->name . ' shows that the server had given the hold up');
	like(text_of($node, 'hold_dropped'), qr/^the hold of node "i" on "p" was invalidated by the server \(max_slot_wal_keep_size\), and was placed again.* \/ Raise max_slot_wal_keep_size there/,
		'and says so');
}

# ---- on a standby that holds for itself, too ----

wait_for($i, q{SELECT count(*) = 2 FROM pg_replication_slots WHERE slot_name LIKE 'cascade_relay_%' AND wal_status = 'reserved'},
	'i holds for l, and for when it is promoted');
$log = -s $i->logfile;
set_conf($i, "max_slot_wal_keep_size = 0\n");
wait_for($l, 'SELECT NOT protected FROM cascade_status', 'l is not protected');
wait_for($i, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'keep_size_too_low' AND node_name = 'i'}, 'i says why');
write_segments($p, 3);
checkpoint_all($p, $i);
$i->wait_for_log(qr/"max_slot_wal_keep_size" is too low for hold "cascade_relay_i_[0-9a-f]{8}"/, $log);
set_conf($i, "max_slot_wal_keep_size = -1\n");
checkpoint_all($p, $i, $l);
wait_protected($i, $l);

$_->stop for $l, $i, $p;
done_testing();
