# A command that fails has changed nothing, and one that returns is on disk.
#
#	p ─── i ─── l
#
# The hold for i is in use by pg_receivewal: cascade_release fails, and nothing on p
# has moved.  A cascade_adopt that fails leaves a released slot released.  The
# worker of i is stopped, so that it writes nothing: what cascade_release and
# cascade_forget have done is there after kill -9.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $quick = "cascade_relay.stale_timeout = 2s\n";
my $p = new_primary('p', conf => $quick);
my $i = new_standby('i', $p, conf => $quick);
my $l = new_standby('l', $i, conf => $quick);

wait_protected($i, $l);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
value($p, q{SELECT pg_create_physical_replication_slot('spare', true)});
$l->stop;
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'l'}, 'l is away', 'down');
add_rows($p, 5);
remove_wal(2, $p, $i);
$i->stop;
my $hold = value($p, q{SELECT slot_name FROM cascade_holds WHERE name = 'i'});
my $held = hold_lsn($p, 'i');

# ---- a hold in use ----

my $folder = $p->basedir . '/received';
mkdir $folder or die $!;
my $receiver = IPC::Run::start([ 'pg_receivewal', '-D', $folder, '-S', $hold, '-d', $p->connstr('postgres'), '--no-loop' ], '>', \my $out, '2>', \my $err);
wait_for($p, "SELECT active FROM pg_replication_slots WHERE slot_name = '$hold'", 'pg_receivewal has the hold');
my $before = value($p, q{SELECT string_agg(slot_name || counted || reason, ',' ORDER BY slot_name) FROM cascade_downstreams WHERE kind = 'hold'});
my (undef, undef, $stderr) = $p->psql('postgres', q{SELECT cascade_release('i')});
like($stderr, qr/ERROR:  hold "\Q$hold\E" is acquired by process \d+\nDETAIL:  Nothing was released\./, 'a release fails');
is_deeply([ state_lines($p, 'released') ], [], 'nothing is on disk');
look_around($p);
is(value($p, q{SELECT string_agg(slot_name || counted || reason, ',' ORDER BY slot_name) FROM cascade_downstreams WHERE kind = 'hold'}), $before, 'and nothing has changed');
(undef, undef, $stderr) = $p->psql('postgres', "SELECT cascade_forget('$hold', true)");
like($stderr, qr/ERROR:  replication slot "\Q$hold\E" of node "i" is in use\nDETAIL:  Nothing was dropped\./, 'so it is with cascade_forget');
is(value($p, q{SELECT count(*) FROM cascade_topology WHERE node_name IN ('i', 'l')}), '2', 'the tree has them still');
$receiver->signal('TERM');
$receiver->finish;
wait_for($p, "SELECT NOT active FROM pg_replication_slots WHERE slot_name = '$hold'", 'pg_receivewal has gone');

# ---- a slot that cannot be adopted ----

$i->start;
wait_protected($i);
value($p, q{SELECT cascade_release('spare')});
my ($released) = state_lines($p, 'released');
like($released, qr/^spare /, 'a released slot is on disk');
(undef, undef, $stderr) = $p->psql('postgres', q{SELECT cascade_adopt('x', 'spare', '0/100028')});
like($stderr, qr/ERROR:  cannot adopt node "x": WAL from 0\/0*100028 on is not here/, 'it cannot be adopted that low');
is_deeply([ state_lines($p, 'released') ], [$released], 'it is released on disk');
is(value($p, q{SELECT reason FROM cascade_downstreams WHERE slot_name = 'spare'}), 'released', 'and in memory');
value($p, q{SELECT pg_drop_replication_slot('spare')});

# ---- on disk before the command returns ----

sub crash_after
{
	my ($command) = @_;
	stop_worker($i);
	value($i, $command);
	kill_node($i);
	start_after_kill($i);
	wait_connected($i);
	return;
}

crash_after(q{SELECT cascade_release('l')});
is(value($i, q{SELECT counted, reason FROM cascade_holds WHERE name = 'l'}), 'f|released', 'a release survives kill -9');
value($i, q{SELECT pg_drop_replication_slot('l')});
crash_after(q{SELECT cascade_forget('l', true)});
look_around($i) for 1 .. 3;
is(value($i, q{SELECT count(*) FROM cascade_holds WHERE name = 'l'}), '0', 'what was forgotten is not placed again after kill -9');
is(value($i, q{SELECT count(*) FROM cascade_topology WHERE node_name = 'l'}), '0', 'nor drawn');
is(value($i, q{SELECT count(*) FROM cascade_check WHERE code = 'hold_dropped'}), '0', 'nor missed');

done_testing();
