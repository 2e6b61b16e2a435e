# What bounds the disk goes on while cascade_relay.enabled is off.
#
#	p ── i ── l		i and l are stopped; only p's hold keeps WAL for them
#
# "Off" means: no reports, and holds stay where they are.  But a hold may keep
# no more than max_hold_size then either, and the server's own bound must not
# catch it: it goes on before, and cascade_check says what was given up.  Silence
# is not counted: hold_timeout releases nothing while p takes no reports.
#
# On again, nothing was released.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $quick = "cascade_relay.stale_timeout = 1s\ncascade_relay.report_interval = 100ms\n";
my $p = new_primary('p', conf => $quick);
my $i = new_standby('i', $p, conf => $quick, slotless => 1);
my $l = new_standby('l', $i, conf => $quick);

# The hold of i on p.
sub hold
{
	my ($columns) = @_;
	return value($p, "SELECT $columns FROM cascade_holds WHERE name = 'i'");
}

sub kept_mb { return hold('retained_bytes / 1048576'); }

wait_connected($i, $l);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
$l->stop;
$i->stop;
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'i'}, 'i is away');

# ---- frozen, but for the bounds ----

set_conf($p, "cascade_relay.enabled = off\ncascade_relay.hold_timeout = 1s\n");
look_around($p) for 1 .. 2;
my $before = hold('restart_lsn');
write_segments($p, 4);
checkpoint_all($p);
look_around($p) for 1 .. 12;
is(hold('restart_lsn'), $before, 'the hold stays where it is');
is(hold('counted'), 't', 'whatever hold_timeout says');
is(oldest_wal($p), segment_of($before), 'and keeps its WAL');

set_conf($p, "cascade_relay.max_hold_size = 5MB\n");
write_segments($p, 10);
wait_for($p, q{SELECT retained_bytes <= 5 * 1024 * 1024 FROM cascade_holds WHERE name = 'i'},
	'a hold keeps no more than max_hold_size');
checkpoint_all($p);
is(oldest_wal($p), segment_of(hold('restart_lsn')), 'and the disk is freed');
wait_for($p, q{SELECT severity FROM cascade_check WHERE code = 'hold_clamped' AND node_name = 'i'},
	'what was given up is said', 'critical');

set_conf($p, "cascade_relay.max_hold_size = -1\nmax_slot_wal_keep_size = 8MB\n");
for (1 .. 15)
{
	write_segments($p, 1);
	look_around($p);
	$p->safe_psql('postgres', 'CHECKPOINT');
}
is(hold('wal_status'), 'reserved', 'the server invalidates no hold') or diag(hold('*'));
is(hold('restart_lsn IS NOT NULL'), 't', 'which keeps what it may');
cmp_ok(kept_mb(), '>=', 3, 'and not less');

# ---- on again ----

set_conf($p, "cascade_relay.enabled = on\ncascade_relay.hold_timeout = 0\nmax_slot_wal_keep_size = -1\n");
is(hold('counted'), 't', 'nothing was released');
write_segments($p, 3);
checkpoint_all($p);
is(has_segment($p, hold('restart_lsn')), 1, 'the hold keeps WAL as before');

$p->stop;
done_testing();
