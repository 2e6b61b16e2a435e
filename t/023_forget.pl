# Letting go: by hand, and by itself.
#
#	p ── i ─┬─ l      with the extension; goes away
#	        └─ u      without; streams on until i dies
#
# i is killed.  As long as l and u are not protected elsewhere, p refuses to
# forget i, and says for whom.  Both are attached to p: now cascade_check says
# that nobody needs what i left behind, and its commands free it.  Nothing pins
# any more, and i does not rise again, not from what the others report, nor
# after a restart of p.  But it may come back itself.
#
# i is rebuilt under its old name: its former life can be forgotten while the
# present one is live.
#
#	p ── i ── l       l goes back below i, and i lives
#
# What p has held for l itself goes by itself, and so does the slot that it had
# made for l.  What others have made stays.
#
# A release survives a restart.
#
#	q ─┬─ w           without a slot
#	   └─ (f)         exists only in what this test says
#
# It lasts as long as what was released: with a slot it goes, and a new one of
# that name counts, while w may go and come back.  There is room for all there are.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $quick = "cascade_relay.stale_timeout = 2s\n";
my $p = new_primary('p', conf => $quick);
add_rows($p, 2);
my $i = new_standby('i', $p, conf => $quick);
my $l = new_standby('l', $i, conf => $quick);
my $u = new_standby('u', $i, unmanaged => 1);

# What cascade_forget answers, or its error, detail and hint.
sub forget
{
	my ($node, $args) = @_;
	my ($ret, $stdout, $stderr) = $node->psql('postgres', "SELECT cascade_forget($args)");

	return $ret == 0 ? $stdout : $stderr;
}

sub finding
{
	my ($node, $code, $about) = @_;
	return value($node, "SELECT message FROM cascade_check WHERE code = '$code' AND node_name = '$about'");
}

# Only what the live nodes need is kept.
sub nothing_pins
{
	my ($primary, $oldest, @nodes) = @_;

	remove_wal(5, $primary, @nodes);
	wait_for($primary, 'SELECT count(*) = 0 FROM cascade_downstreams WHERE restart_lsn < pg_current_wal_lsn() - 4000000',
		'no slot lags');
	checkpoint_all($primary);
	ok(oldest_wal($primary) gt $oldest, 'WAL goes again on ' . $primary->name);
	return;
}

wait_connected($i, $l);
checkpoint_all($p, $i, $l, $u);
wait_protected($i, $l);

# ---- what is not to be forgotten ----

like(forget($p, "'i'"), qr/ERROR:  node "i" is live\nDETAIL:  .*\nHINT:  Stop it/, 'a live node');
like(forget($p, "'i', true"), qr/ERROR:  node "i" is live/, 'not by force either');
like(forget($p, "'" . value($p, "SELECT slot_name FROM cascade_holds") . "'"), qr/ERROR:  node "i" is live/, 'nor by its hold');
like(forget($i, "'u'"), qr/ERROR:  node "u" is live/, 'a live node without the extension');
like(forget($p, "'l'"), qr/ERROR:  node "l" is not a direct downstream of this node\nHINT:  Call cascade_forget on the node that it streamed from/,
	'not where it is not known');
like(forget($p, "'p'"), qr/ERROR:  node "p" is not a direct downstream/, 'not itself');
like(forget($p, "'nobody'"), qr/ERROR:  node "nobody" is not a direct downstream/, 'nor nobody');
is(forget($p, 'NULL'), '', 'nothing to do');

# ---- the intermediate dies ----

wait_for($p, 'SELECT frontier_lsn = pg_current_wal_lsn() FROM cascade_status', 'everything confirmed');
$l->stop;
wait_for($i, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'l'}, 'l is gone');
my $need = value($i, q{SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'l'});
add_rows($p, 4);
remove_wal(3, $p, $i);
wait_for($p, "SELECT pinned_by = 'l' AND frontier_lsn = '$need' FROM cascade_status", 'l pins the root');
wait_for($p, q{SELECT state = 'streaming' FROM cascade_topology WHERE node_name = 'u'}, 'p knows u');
kill_node($i);
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'i'}, 'i is lost');

like(forget($p, "'i'"),
	qr/ERROR:  node "i" cannot be forgotten: what is held for it may be needed\nDETAIL:  Not protected elsewhere: (l \(down\), u \(stale\)|u \(stale\), l \(down\))\.\nHINT:  .*cascade_forget\('i', true\)/,
	'i is not forgotten while its leaves need it');
my $hold = value($p, q{SELECT slot_name FROM cascade_holds WHERE name = 'i'});
is(hold_lsn($p, 'i'), value($p, "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '$hold'"), 'its hold stays');
is(finding($p, 'orphan_slot', 'i'), '', 'cascade_check does not say that it may go');

value($p, q{SELECT cascade_adopt('l'), cascade_adopt('u')});
remove_wal(3, $p);
$u->append_conf('postgresql.conf', "primary_slot_name = 'cascade_adopted_u'");
point_at($u, $p);
$u->reload;
wait_for($p, q{SELECT state = 'streaming' AND upstream_name = 'p' AND protected FROM cascade_topology WHERE node_name = 'u' AND state <> 'stale'},
	'u goes on from p, under its own name');
like(forget($p, "'i'"), qr/DETAIL:  Not protected elsewhere: l \(down\)\./, 'one leaf is not enough');
is(finding($p, 'orphan_slot', 'i'), '', 'and cascade_check knows it');
$l->append_conf('postgresql.conf', "primary_slot_name = 'cascade_adopted_l'");
point_at($l, $p);
$l->start;
same_rows($p, $l);
wait_protected($l);

# ---- nobody needs it any more ----

wait_for($p, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'orphan_slot' AND node_name = 'i' AND severity = 'warning'},
	'cascade_check says that what i left behind may go');
like(finding($p, 'orphan_slot', 'i'),
	qr/^node "i" is away, and all that streamed from it \((l, u|u, l)\) is protected elsewhere: its hold keeps \d+ [kM]B of WAL for it alone$/, 'and why');
my $hint = value($p, q{SELECT hint FROM cascade_check WHERE code = 'orphan_slot' AND node_name = 'i'});
is($hint, q{If it will not come back: SELECT public.cascade_forget('i'); SELECT pg_catalog.pg_drop_replication_slot('i');}, 'and how');
my $oldest = oldest_wal($p);
is($oldest, segment_of(hold_lsn($p, 'i')), 'its WAL is all there');

my ($ret, $stdout, $stderr) = $p->psql('postgres', q{SELECT cascade_forget('i')});
is($stdout, '{i}', 'i is forgotten, and the slot that others made is named');
like($stderr, qr/NOTICE:  replication slot "i" still keeps WAL from \S+ on\nHINT:  .*SELECT pg_catalog\.pg_drop_replication_slot\('i'\);/, 'in words too');
is(value($p, qq{SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$hold'}), '0', 'its hold is gone');
wait_for($p, q{SELECT count(*) = 0 FROM cascade_topology WHERE node_name = 'i'}, 'and so is it from the tree');
wait_for($p, q{SELECT NOT counted AND reason = 'released' FROM cascade_downstreams WHERE slot_name = 'i'}, 'its slot does not count');
wait_for($p, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'orphan_slot' AND message ~ '"i" keeps .* no known node uses it' AND hint ~ 'pg_drop_replication_slot'},
	'but cascade_check says that it keeps WAL');
value($p, q{SELECT pg_drop_replication_slot('i')});
wait_for($p, q{SELECT count(*) = 0 FROM cascade_check WHERE code = 'orphan_slot'}, 'there is nothing left');
nothing_pins($p, $oldest, $l, $u);

# It does not rise again: several rounds of the tree, and a restart.
my $reports = value($l, 'SELECT reports_sent FROM cascade_status');
wait_for($l, "SELECT reports_sent > $reports + 12 FROM cascade_status", 'l reports a dozen times');
for my $node ($p, $l)
{
	is(tree_of($node, qw(node_name upstream_name)), "p|\nl|p\nu|p", 'the tree of ' . $node->name);
}
$p->restart;
wait_connected($l);
wait_for($p, q{SELECT count(*) = 2 FROM cascade_topology WHERE upstream_name = 'p' AND state = 'streaming'}, 'p is back');
is(value($p, q{SELECT count(*) FROM cascade_topology WHERE node_name = 'i'}), '0', 'i is not');

# But by itself it may come back; what it would have needed is gone.
value($p, q{SELECT pg_create_physical_replication_slot('i', true)});
start_after_kill($i);
wait_connected($i);
$i->wait_for_log(qr/requested WAL segment \S+ has already been removed/);
wait_for($i, 'SELECT NOT protected FROM cascade_status', 'i knows that it is not protected');
my $first_life = incarnation($i);
is(value($p, q{SELECT slot_name FROM cascade_holds WHERE name = 'i'}), "cascade_relay_i_$first_life", 'but it is held for from now on');

# ---- a former life ----

$i->stop;
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'i'}, 'i is lost again');
my $i2 = new_standby('i2', $p, slotless => 1, conf => "${quick}cascade_relay.node_name = 'i'\nprimary_slot_name = 'i'\n",
	conninfo => 'application_name=i');
wait_connected($i2);
wait_protected($i2);
my $second_life = incarnation($i2);
is(value($p, q{SELECT count(*) FROM cascade_holds WHERE name = 'i'}), '2', 'i was rebuilt: two lives, two holds');
like(forget($p, "'cascade_relay_i_$second_life'"), qr/ERROR:  node "i" is live/, 'the present one is not forgotten');
is(forget($p, "'cascade_relay_i_$first_life'"), '{}', 'the former one is, and the slot is not its own');
is(value($p, q{SELECT slot_name FROM cascade_holds WHERE name = 'i'}), "cascade_relay_i_$second_life", 'one hold is left');
is(value($i2, 'SELECT upstream_state FROM cascade_status'), 'connected', 'the present life has not noticed');
is(value($p, q{SELECT node_name, state FROM cascade_topology WHERE node_name = 'i'}), 'i|streaming', 'p shows one');

# After a restart of p nobody knows what streamed from a node that is away.
$i2->stop;
$p->restart;
wait_for($p, q{SELECT count(*) = 1 FROM cascade_topology WHERE node_name = 'i' AND state = 'down'}, 'p remembers it by its hold');
like(forget($p, "'i'"),
	qr/ERROR:  node "i" cannot be forgotten: it is not known what streamed from it\nDETAIL:  It has not reported since.*\nHINT:  .*cascade_forget\('i', true\)/,
	'that is not taken for nobody');
$i2->start;
wait_connected($i2, $l);
wait_protected($i2, $l);

# ---- by itself ----

my $log_at = -s $p->logfile;
my $held = value($p, q{SELECT slot_name FROM cascade_holds WHERE name = 'l'});
value($p, q{SELECT pg_create_physical_replication_slot('l', true)});
is(value($i2, q{SELECT count(*) FROM pg_replication_slots}), '0', 'i has no slots');
ok(lsn_le($p, value($i2, q{SELECT cascade_adopt('l')}), value($l, 'SELECT pg_last_wal_replay_lsn()')), 'a standby adopts too');
$l->append_conf('postgresql.conf', "primary_slot_name = 'cascade_adopted_l'");
point_at($l, $i2);
$l->reload;
add_rows($p, 2);
same_rows($p, $l);
wait_for($l, q{SELECT upstream_name = 'i' AND protected FROM cascade_status}, 'l is protected below i');
wait_for($p, qq{SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name = '$held'}, 'its hold on p goes');
wait_for($p, q{SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name = 'cascade_adopted_l'}, 'and so does the slot that was made for it');
$p->wait_for_log(qr/dropped replication slot "$held": node "l" is live and protected elsewhere/, $log_at);
is(value($p, q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'l'}), '1', 'the slot that somebody else made stays');
value($p, q{SELECT pg_drop_replication_slot('l')});
is(tree_of($p, qw(node_name upstream_name)), "p|\ni|p\nl|i\nu|p", 'the tree of p');
$oldest = oldest_wal($p);
nothing_pins($p, $oldest, $i2, $l, $u);
same_rows($p, $i2, $l);

# A node that is away is not somewhere else.
$u->stop;
$l->stop;
wait_for($i2, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'l'}, 'l goes away');
is(forget($p, "'u'"), '{}', 'a node without the extension is forgotten, and the slot that was made for it');
is(value($p, q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cascade_adopted_u'}), '0', 'it is gone');
wait_for($p, q{SELECT count(*) = 0 FROM cascade_topology WHERE node_name = 'u'}, 'from the tree too');

# ---- a release survives ----

my $redo = value($i2, q{SELECT cascade_release('l')});
wait_for($i2, q{SELECT bool_and(NOT counted AND reason = 'released') FROM cascade_holds}, 'l is released');
like(join(',', state_lines($i2, 'released')), qr/^cascade_relay_l_[0-9a-f]{8} \Q$redo\E$/, 'on disk too, at once');
$i2->restart;
wait_connected($i2);
is(value($i2, q{SELECT counted, reason FROM cascade_holds}), 'f|released', 'still, after a restart');
$l->start;
same_rows($p, $l);
wait_for($i2, q{SELECT counted FROM cascade_holds}, 'it counts again once it has caught up');
wait_until('and that is on disk', sub { !state_lines($i2, 'released') });

$_->stop for $l, $i2, $p;

# ---- it lasts as long as what was released ----

my $q = new_primary('q', conf => "${quick}max_replication_slots = 80\n");
my $w = new_standby('w', $q, unmanaged => 1, slotless => 1);

sub verdict
{
	my ($slot) = @_;
	return value($q, "SELECT counted, reason FROM cascade_downstreams WHERE slot_name = '$slot'");
}

# What is released as q has it on disk: that is written last of all.
sub on_disk
{
	my ($names, $what) = @_;
	wait_until($what, sub { join(' ', sort map { (split ' ')[0] } state_lines($q, 'released')) eq $names });
	return;
}

wait_for($q, q{SELECT state FROM cascade_topology WHERE node_name = 'w'}, 'w streams', 'streaming');
value($q, q{SELECT pg_create_physical_replication_slot(s, true) FROM unnest('{old,x,y}'::text[]) s});
my $receiver = value($w, 'SELECT pid FROM pg_stat_wal_receiver');
kill 'STOP', $receiver;
write_segments($q, 3);
$q->safe_psql('postgres', 'CHECKPOINT');
$redo = value($q, q{SELECT cascade_release(s) FROM unnest('{w,x,y}'::text[]) s}) =~ s/\n.*//sr;
on_disk('w x y', 'a node without a slot and two slots are released');
is(verdict('x'), 'f|released', 'x does not count');
value($q, q{SELECT pg_drop_replication_slot('x')});
on_disk('w y', 'with the slot goes its release');
my $old = value($q, q{SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'old'});
ok(lsn_le($q, $old, $redo), 'another slot has older WAL');
value($q, q{SELECT pg_copy_physical_replication_slot('old', 'x')});
is(verdict('x'), 't|physical slot', 'its copy is called x, and counts');
is(verdict('y'), 'f|released', 'y does not');
ok(lsn_le($q, value($q, "SELECT cascade_adopt('somebody', 'y', '$old')"), $old), 'until it is for somebody else');
is(verdict('y'), 't|physical slot', 'then it counts at once');
on_disk('w', 'which is written, too');

kill_node($w);
kill 'KILL', $receiver;
wait_for($q, q{SELECT state FROM cascade_topology WHERE node_name = 'w'}, 'w is away', 'down');
value($q, q{SELECT cascade_release('y')});
value($q, q{SELECT pg_drop_replication_slot('y')});
on_disk('w', 'a node that has left may come back: its release stays');
is(forget($q, "'w'"), '{}', 'until it is forgotten');
on_disk('', 'then that goes');

# ---- many ----

my %f = (node_name => 'f', incarnation => 0xf, system_identifier => value($q, 'SELECT system_identifier FROM pg_control_system()'));
value($q,
	join ';', map { 'SELECT ' . report_sql($_) } encode_hello(%f),
	encode_report(tree => [], slot_name => 'f', map { ($_ => $old) } qw(flush_lsn replay_lsn frontier_lsn hold_target_lsn)));
wait_for($q, q{SELECT state FROM cascade_topology WHERE node_name = 'f'}, 'f is away', 'down');
value($q, q{SELECT pg_copy_physical_replication_slot('old', s) FROM generate_series(1, 70) n, concat('s', n) s});
value($q, q{SELECT pg_copy_physical_replication_slot('old', 'f')});
value($q, q{SELECT cascade_release('s' || n) FROM generate_series(1, 70) n});
is(value($q, q{SELECT count(*) FROM cascade_downstreams WHERE name ~ '^s\d+$' AND reason = 'released'}), '70',
	'as many are released as there are');
like(value($q, q{SELECT slot_name, restart_lsn, counted, reason FROM cascade_downstreams WHERE name = 'f' ORDER BY 1}),
	qr{^cascade_relay_f_0000000f\|0/\w+\|t\|.*\nf\|$old\|}, 'a hold and a slot are kept for f');
is(forget($q, q{'f', true}), '{f}', 'it can be forgotten still');
is(verdict('f'), 'f|released', 'and its slot does not count');

$q->stop;
done_testing();
