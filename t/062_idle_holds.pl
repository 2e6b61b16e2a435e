# idle_replication_slot_timeout (18 and later) takes no hold for unused.
#
#	p ── i ── l		both p and i give up slots that nobody uses
#
# A hold waits for a node that is away: that is its use.  How long it waits is
# said by hold_timeout, which releases it in order and tells of it before.  i and
# l stop; p gives up a slot that is really idle, and keeps the hold, also while
# reports are off.  i comes back and finds all its WAL.  Then hold_timeout lets
# the hold go: what the server does to it after that is no finding.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p', conf => "cascade_relay.stale_timeout = 1s\ncascade_relay.report_interval = 100ms\n");

if ($p->pg_version->major < 18)
{
	$p->stop;
	plan skip_all => 'this server has no idle_replication_slot_timeout';
}
my $i = new_standby('i', $p, conf => "cascade_relay.report_interval = 100ms\n", slotless => 1);
my $l = new_standby('l', $i, conf => "cascade_relay.report_interval = 100ms\n", slotless => 1);

sub hold
{
	my ($columns) = @_;
	return value($p, "SELECT $columns FROM cascade_holds WHERE name = 'i'");
}

# Makes a slot, and checkpoints until the server has given it up as idle: whatever
# else was idle before that it has given up as well.
sub outlast_timeout
{
	my ($name) = @_;

	value($p, "SELECT pg_create_physical_replication_slot('$name', true)");
	wait_until("$name is given up as idle",
		sub {
			write_segments($p, 1);
			$p->safe_psql('postgres', 'CHECKPOINT');
			return value($p, "SELECT invalidation_reason FROM pg_replication_slots WHERE slot_name = '$name'") eq 'idle_timeout';
		});
	return;
}

add_rows($p, 2);
wait_connected($i, $l);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
set_conf($_, "idle_replication_slot_timeout = 2s\n") for $p, $i;
$l->stop;
$i->stop;
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'i'}, 'i is away');
add_rows($p, 3);

my $held = hold('restart_lsn');
outlast_timeout('idle1');
is(hold('restart_lsn'), $held, 'the hold of i is not idle');
set_conf($p, "cascade_relay.enabled = off\n");
outlast_timeout('idle2');
is(hold('restart_lsn'), $held, 'nor while reports are off');
ok(has_segment($p, $held), 'and keeps its WAL');
set_conf($p, "cascade_relay.enabled = on\n");
is(value($p, q{SELECT count(*) FROM cascade_check WHERE code = 'hold_dropped'}), '0', 'no finding says otherwise');

$i->start;
$l->start;
same_rows($p, $i, $l);
ok(!$_->log_contains(qr/has already been removed/), $_->name . ' has missed nothing') for $i, $l;
checkpoint_all($p, $i, $l);
wait_protected($i, $l);

# ---- an ordinary slot of a standby ----

value($i, q{SELECT pg_create_physical_replication_slot('here', true)});
look_around($i);
wait_until('i gives up a slot that is idle',
	sub {
		write_segments($p, 1);
		checkpoint_all($p, $i);
		return value($i, q{SELECT invalidation_reason FROM pg_replication_slots WHERE slot_name = 'here'}) eq 'idle_timeout';
	});
wait_for($i, q{SELECT counted, reason FROM cascade_downstreams WHERE slot_name = 'here'}, 'it counts by what it kept',
	't|invalidated slot, by what it kept before');
like(value($i, q{SELECT message FROM cascade_check WHERE code = 'slot_lost'}), qr/\(idle_replication_slot_timeout\)/, 'which is said');
value($i, q{SELECT pg_drop_replication_slot('here')});

# ---- let go ----

$l->stop;
$i->stop;
set_conf($p, "cascade_relay.hold_timeout = 1s\n");
wait_for($p, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'hold_timeout' AND severity = 'critical'}, 'hold_timeout has passed, which is said');
outlast_timeout('idle3');
is(value($p, q{SELECT count(*) FROM cascade_check WHERE code = 'hold_dropped'}), '0', 'and that is all');

$p->stop;
done_testing();
