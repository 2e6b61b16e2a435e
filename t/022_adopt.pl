# The new upstream makes the slots.
#
#	p ── i ─┬─ l1     away, behind
#	        └─ l2     here, but its replay is paused
#
# p has removed all WAL but what its hold for i keeps.  i is killed.  On p,
# cascade_adopt makes a slot for each leaf, as the role that reports, from where
# the hold has what that leaf needs: l1 is behind l2.  Both go on from p, with
# every row.
#
# Then a standby that does not exist yet: n.  Nobody knows what it needs, so its
# slot is made where the lowest hold stands, and the clone that is taken of l2
# goes on from there.
#
# And all that is refused, which leaves nothing behind.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p', conf => "max_replication_slots = 8\nshared_buffers = 64MB\n");
value($p, 'CREATE ROLE reporter LOGIN REPLICATION; CREATE ROLE nobody LOGIN');
add_rows($p, 2);
my $i = new_standby('i', $p);
my $l1 = new_standby('l1', $i);
my $l2 = new_standby('l2', $i);

# What cascade_adopt answers to the role that reports, or its error, detail and
# hint.
sub adopt
{
	my ($node, $args, $role) = @_;
	my ($ret, $stdout, $stderr) = $node->psql('postgres',
		'SET ROLE ' . ($role // 'reporter') . "; SELECT cascade_adopt($args)");

	return $ret == 0 ? $stdout : $stderr;
}

sub slots
{
	my ($node) = @_;
	return value($node, 'SELECT slot_name FROM pg_replication_slots ORDER BY 1');
}

wait_connected($i, $l1, $l2);
checkpoint_all($p, $i, $l1, $l2);
checkpoint_all($p, $i, $l1, $l2);
wait_protected($i, $l1, $l2);

# ---- the intermediate dies ----

wait_for($p, 'SELECT frontier_lsn = pg_current_wal_lsn() FROM cascade_status', 'everything confirmed');
$l1->stop;
wait_for($i, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'l1'}, 'l1 is gone');
my $need1 = value($i, q{SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'l1'});
add_rows($p, 4);
wait_caught_up($p, $i, $l2);
value($l2, 'SELECT pg_wal_replay_pause()');
add_rows($p, 4);
remove_wal(3, $p, $i);
wait_for($p, "SELECT pinned_by = 'l1' AND frontier_lsn = '$need1' FROM cascade_status", 'l1 pins the root');
wait_for($p, qq{SELECT replay_lsn > '$need1' AND state = 'streaming' FROM cascade_topology WHERE node_name = 'l2'},
	'p knows how far l2 is');
my $need2 = value($l2, 'SELECT pg_last_wal_replay_lsn()');
my $hold = hold_lsn($p, 'i');
kill_node($i);
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'i'}, 'i is lost');
is(hold_lsn($p, 'i'), $hold, 'the hold for it stays');

my $redo = value($p, 'SELECT redo_lsn FROM pg_control_checkpoint()');
ok(lsn_le($p, $need2, $redo) && segment_of($need2) lt segment_of($redo), 'both need more than a new slot would have');
my $slot1 = adopt($p, "'l1'");
ok(lsn_le($p, $slot1, $need1), 'the slot for l1 keeps what it needs');
is($slot1, $hold, 'it is a copy of the hold');
my $slot2 = adopt($p, "'l2'");
ok(lsn_le($p, $slot2, $need2), 'and so does the one for l2');
is(value($p, q{SELECT slot_name, slot_type, temporary, xmin, active, restart_lsn FROM pg_replication_slots WHERE slot_name LIKE 'cascade_adopted%' ORDER BY 1}),
	"cascade_adopted_l1|physical|f||f|$slot1\ncascade_adopted_l2|physical|f||f|$slot2", 'they are there');
is(adopt($p, "'l1'"), $slot1, 'once more makes no difference');
wait_for($p, q{SELECT count(*) = 2 FROM cascade_downstreams WHERE slot_name LIKE 'cascade_adopted%' AND counted AND reason = 'physical slot'},
	'they count like other slots');

# A crash of p now must not lose them.
$p->stop('immediate');
$p->start;
is(value($p, q{SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'cascade_adopted_l1'}), $slot1, 'a crash does not lose them');
value($p, q{SELECT pg_drop_replication_slot('cascade_adopted_l1')});
is(adopt($p, "'l1'"), $slot1, 'what was there before the start is cover from the start');
remove_wal(3, $p);
ok(has_segment($p, $slot1), 'what l1 needs is there');

$l1->append_conf('postgresql.conf', "primary_slot_name = 'cascade_adopted_l1'");
point_at($l1, $p);
$l1->start;
$l2->safe_psql('postgres', "ALTER SYSTEM SET primary_conninfo = '" . $p->connstr . " application_name=l2'");
$l2->safe_psql('postgres', q{ALTER SYSTEM SET primary_slot_name = 'cascade_adopted_l2'});
$l2->reload;
value($l2, 'SELECT pg_wal_replay_resume()');
add_rows($p, 1);
same_rows($p, $l1, $l2);
wait_connected($l1, $l2);
wait_protected($l1, $l2);
is(tree_of($p, qw(node_name upstream_name state managed)), "p||running|t\ni|p|down|t\nl1|p|streaming|t\nl2|p|streaming|t",
	'the tree shows them below p');
is(value($p, q{SELECT name, reason FROM cascade_downstreams WHERE slot_name LIKE 'cascade_adopted%' ORDER BY 1}),
	"l1|managed, counted by its hold\nl2|managed, counted by its hold", 'the slots are known to be theirs');


# ---- a standby that is yet to be cloned ----

# l1 and l2 go on; what is left of i keeps the past.  The clone is taken of l2,
# and begins where its last restartpoint does.
add_rows($p, 3);
remove_wal(2, $p, $l1);
wait_caught_up($p, $l1, $l2);
# holds move on as l1 and l2 do
my $lowest = q{SELECT min(restart_lsn) FROM cascade_holds};
my $from = value($p, $lowest);
my $slot3 = adopt($p, "'n'");
my $to = value($p, $lowest);
ok(segment_of($from) le segment_of($slot3) && segment_of($slot3) le segment_of($to),
	"for a node that nobody knows, the slot is where the lowest hold is: $slot3");
$l2->backup('for_n');
my $start = slurp_file($l2->backup_dir . '/for_n/backup_label');
$start =~ m{^START WAL LOCATION: (\S+)}m or die $start;
ok(segment_of($1) ge segment_of($slot3), 'which is before what the clone needs');
value($p, qq{SELECT pg_drop_replication_slot('i')});
add_rows($p, 3);
remove_wal(2, $p);
my $n = PostgreSQL::Test::Cluster->new('n');
$n->init_from_backup($l2, 'for_n', has_streaming => 1);
$n->append_conf('postgresql.conf', "cascade_relay.node_name = 'n'\n");
$n->append_conf('postgresql.auto.conf',
	"primary_conninfo = '" . $p->connstr . " application_name=n'\nprimary_slot_name = 'cascade_adopted_n'\n");
$n->start;
same_rows($p, $n);
wait_protected($n);

# ---- arguments and roles ----

my $slots = slots($p);
like(adopt($p, "'x'", 'nobody'), qr/ERROR:  permission denied to adopt a node\nDETAIL:  .*REPLICATION/, 'who may not make slots may not adopt');
like(adopt($p, 'NULL'), qr/ERROR:  node_name must not be null/, 'nobody');
like(adopt($p, "'p'"), qr/ERROR:  node "p" cannot adopt itself/, 'itself');
like(adopt($p, "'Not a name'"), qr/ERROR:  "Not a name" is not a node name\n.*\nHINT:  .*give the name of its slot/, 'no name');
like(adopt($p, "'x', 'No slot'"), qr/ERROR:  replication slot name "No slot" contains invalid character/, 'no slot name');
like(adopt($p, "'x', repeat('x', 64)"), qr/ERROR:  replication slot name ".*" is too long/, 'a slot name that is too long');
like(adopt($p, "'x', '" . value($p, "SELECT slot_name FROM cascade_holds WHERE name = 'l1'") . "'"),
	qr/ERROR:  replication slot "cascade_relay_l1_\w+" is a hold for node "l1"\nDETAIL:  Nothing may stream through a hold/, 'a hold');
like(adopt($p, "'x', NULL, '0/0'"), qr{ERROR:  0/0 is not a position}, 'no position');
like(adopt($p, "'x', 'cascade_adopted_l1'"), qr/ERROR:  replication slot "cascade_adopted_l1" is in use by process \d+\n/, 'the slot of another node, in use');
my $fit = adopt($p, "'l1'");
ok(lsn_le($p, $fit, value($p, q{SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'cascade_adopted_l1'})),
	'the slot that the node itself streams through is fit as it is, and goes on');
my ($ret, $stdout, $stderr) = $p->psql('postgres',
	q{SELECT pg_create_physical_replication_slot('temp', true, true); SELECT cascade_adopt('x', 'temp')});
like($stderr, qr/ERROR:  this session has replication slot "temp" acquired|ERROR:  replication slot "temp" is not a persistent physical slot/,
	'a temporary slot');

# ---- WAL that is not here, or that nothing keeps ----

my $gone = print_lsn(0x400028);
like(adopt($p, "'x', NULL, '$gone'"),
	qr{ERROR:  cannot adopt node "x": WAL from $gone on is not here\nDETAIL:  The oldest WAL file of this server begins at 0/\w+\.\nHINT:  cascade_upstream_candidates},
	'WAL that was removed');
is(slots($p), $slots, 'nothing is left behind');

# It is there by chance: no slot keeps it.
$p->append_conf('postgresql.conf', "wal_keep_size = 32MB\n");
$p->reload;
value($p, "SELECT cascade_forget('i', true)");
my $chance = value($p, 'SELECT pg_current_wal_lsn()');
add_rows($p, 4);
wait_caught_up($p, $l1, $l2, $n);
checkpoint_all($p, $l1, $l2, $n);
checkpoint_all($p, $l1, $l2, $n);
wait_for($p, "SELECT bool_and(restart_lsn > '$chance'::pg_lsn + 1048576) FROM cascade_downstreams", 'no slot is that far behind');
ok(has_segment($p, $chance), 'WAL is kept by a setting');
$slots = slots($p);
like(adopt($p, "'x', NULL, '$chance'"),
	qr{ERROR:  cannot adopt node "x": WAL from $chance on is here, but cannot be kept\nDETAIL:  No slot has stood there since before the last checkpoint.*\nHINT:  },
	'WAL that nothing keeps');
is(slots($p), $slots, 'nothing is left behind');

# ---- a slot that is there already ----

my $redo_now = value($p, 'SELECT redo_lsn FROM pg_control_checkpoint()');
value($p, q{SELECT pg_create_physical_replication_slot('bare')});
is(adopt($p, "'x', 'bare', '$redo_now'"), $redo_now, 'one that reserves nothing does now');
is(adopt($p, "'x', 'bare', pg_current_wal_lsn()"), $redo_now, 'one that reserves more than is needed stays');
$l1->stop;
my $need = value($p, q{SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'cascade_adopted_l1'});
value($p, q{SELECT pg_replication_slot_advance('bare', pg_current_wal_lsn())});
add_rows($p, 4);
wait_caught_up($p, $l2, $n);
checkpoint_all($p, $l2, $n);
my $high = value($p, q{SELECT lsn FROM pg_create_physical_replication_slot('high', true)});
ok(segment_of($high) gt segment_of($need), 'a new slot reserves too little');
wait_for($p, q{SELECT count(*) = 1 FROM cascade_downstreams WHERE slot_name = 'high'}, 'p has seen it');
my $back = adopt($p, "'x', 'high', '$need'");
ok(segment_of($back) le segment_of($need), 'it goes back under the cover of the slot of l1');
is(value($p, q{SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'high'}), $back, 'and stands there');
like(adopt($p, "'x', 'high', '$gone'"), qr/WAL from $gone on is not here/, 'further it cannot go');
is(value($p, q{SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'high'}), $back, 'and stays where it is');

# ---- during a checkpoint ----

# One that WAL has triggered takes its time, while there are buffers to write.  The cover goes as soon as the slot
# is there.
value($p, q{SELECT pg_drop_replication_slot('high'), pg_drop_replication_slot('bare')});
$p->append_conf('postgresql.conf', "wal_keep_size = 0\nmax_wal_size = 40MB\n");
$p->safe_psql('postgres', 'CREATE TABLE ballast AS SELECT i, repeat(\'x\', 500) AS x FROM generate_series(1, 10000) i');
$p->safe_psql('postgres', 'CHECKPOINT');
$p->reload;
my $log_at = -s $p->logfile;
$p->safe_psql('postgres', 'UPDATE ballast SET i = i + 1');
for (1 .. 100)
{
	last if slurp_file($p->logfile, $log_at) =~ /checkpoint starting: wal/;
	write_segments($p, 1);
}
$p->wait_for_log(qr/checkpoint starting: wal/, $log_at);
$need = adopt($p, "'l1', 'l1', '$need'");
ok(segment_of($need) le segment_of(value($p, q{SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'cascade_adopted_l1'})),
	'during a checkpoint the slot is made under the cover of another');
value($p, q{SELECT pg_drop_replication_slot('cascade_adopted_l1'), cascade_forget('l1', true)});
is(value($p, "SELECT string_agg(slot_name, ' ') FROM pg_replication_slots WHERE restart_lsn < '$need'::pg_lsn + 1048576"), 'l1',
	'it stands there alone');
unlike(slurp_file($p->logfile, $log_at), qr/checkpoint complete/, 'the checkpoint is still running');
$p->safe_psql('postgres', 'CHECKPOINT');
$p->wait_for_log(qr/checkpoint complete/, $log_at);
remove_wal(2, $p);
unlike(slurp_file($p->logfile), qr/invalidating/, 'no checkpoint has invalidated anything');
is(oldest_wal($p), segment_of($need), 'its WAL is there, and nothing older');
$l1->append_conf('postgresql.conf', "primary_slot_name = 'l1'");
$l1->start;
same_rows($p, $l1);

# ---- no free slot ----

# Holds leave the last one, for exactly this.
my $used = value($p, 'SELECT count(*) FROM pg_replication_slots');
value($p, "SELECT pg_create_physical_replication_slot('fill_' || i) FROM generate_series(1, 7 - $used) i");
like(adopt($p, "'x'"), qr{^0/\w+$}, 'the last free slot may be taken');
like(adopt($p, "'y'"), qr/ERROR:  cannot adopt node "y": all replication slots are in use\nHINT:  .*max_replication_slots/, 'there is no other');
value($p, q{SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE slot_name LIKE 'fill%'});

# ---- a slot that was invalidated ----

value($p, q{SELECT pg_drop_replication_slot('cascade_adopted_x'), pg_create_physical_replication_slot('lost', true)});
$p->append_conf('postgresql.conf', "max_slot_wal_keep_size = 2MB\n");
$p->reload;
write_segments($p, 5);
checkpoint_all($p, $l1, $l2, $n);
wait_for($p, q{SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = 'lost'}, 'a slot is lost');
like(adopt($p, "'x', 'lost'"), qr/ERROR:  replication slot "lost" was invalidated by the server\nHINT:  Drop it/, 'it is refused');

$_->stop for $n, $l1, $l2, $p;
done_testing();
