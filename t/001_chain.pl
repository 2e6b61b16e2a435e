# The chain holds: WAL that a leaf needs is kept by every node above it.
#
#	p ── i ─┬─ l   managed, a slot of its own on i
#	        ├─ m   managed, no slot
#	        ├─ s   no extension, no slot
#	        └─ u   no extension, a slot of its own on i
#
# First everybody is there: what counts on i, and how each node shows the tree.
# s hangs, and counts while it is connected; then it leaves, and is down and
# unprotected from then on, but not forgotten.  l, m and u stop; WAL is written
# and removed everywhere; i is killed.  l and u come up to p through slots
# copied from i's hold, m without one, and all have every row.  s, of which
# everybody said that it was unprotected, indeed cannot.
#
#	x ── y ── z    the same with the reports switched off: the control
#
# Here z is pointed at x and told that its WAL has already been removed.
#
#	q ── a ── b ── c ── d
#
# Five deep: the deepest leaf pins the root, and every node names it.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# What a node that has lost its WAL reads in its log.
my $already_removed = qr/requested WAL segment [0-9A-F]+ has already been removed/;

# ---- everybody is there ----

my $p = new_primary('p');
add_rows($p, 2);
my $i = new_standby('i', $p);
my $l = new_standby('l', $i);
my $m = new_standby('m', $i, slotless => 1);
my $s = new_standby('s', $i, slotless => 1, unmanaged => 1);
my $u = new_standby('u', $i, unmanaged => 1);

wait_connected($i, $l, $m);

# so that everybody's redo pointer is a fresh one
checkpoint_all($p, $i, $l, $m, $s, $u);
wait_protected($p, $i, $l, $m);

is( value(
		$p,
		"SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'cascade_topology'::regclass"
	),
	join(' ',
		qw(node_name upstream_name depth path role replica_class state managed
		  is_local timeline flush_lsn replay_lsn frontier_lsn pinned_by
		  pinned_on pinned_slot oldest_wal_lsn protected replay_lag_bytes replay_lag backend_xmin
		  xmin_pinned_by hot_standby_feedback location conninfo refusal warnings
		  replay_paused apply_delay observed_at incarnation version node_id upstream_id)),
	'the columns of cascade_topology');

my $everybody = join("\n",
	'p||0|{p}|primary|t',
	'i|p|1|{p,i}|standby|t',
	'l|i|2|{p,i,l}|standby|t',
	'm|i|2|{p,i,m}|standby|t',
	's|i|2|{p,i,s}|standby|f',
	'u|i|2|{p,i,u}|standby|f');
for my $node ($p, $i)
{
	wait_for($node, q{SELECT count(*) = 6 AND bool_and(state IN ('running', 'streaming')) FROM cascade_topology},
		$node->name . ' shows six nodes, each at work');
	is(tree_of($node, qw(node_name upstream_name depth path role managed)),
		$everybody, 'the tree as ' . $node->name . ' shows it');
	is(value($node, "SELECT string_agg(node_name, ',') FROM cascade_topology WHERE is_local"),
		$node->name, $node->name . ' knows which row is itself');
}

# Below, a node shows itself and its path to the root; more is not promised.
is(value($l, q{SELECT state, path, depth, upstream_name FROM cascade_topology WHERE is_local}),
	'streaming|{p,i,l}|2|i', 'l knows its own path');
is(value($l, q{SELECT string_agg(node_name || ' ' || depth, ', ' ORDER BY depth) FROM cascade_topology WHERE node_name = ANY ('{p,i,l}')}),
	'p 0, i 1, l 2', 'l shows every node on it');

# Nobody writes: everybody's frontier is the end of WAL, and nobody else pins.
wait_for($p,
	'SELECT bool_and(frontier_lsn = pg_current_wal_lsn() AND pinned_by = node_name) FROM cascade_topology WHERE managed',
	'with everybody keeping up each frontier is the own applied LSN');
wait_for($p, q{SELECT frontier_lsn = pg_current_wal_lsn() AND pinned_by = 'p' AND protected FROM cascade_status},
	'on the root too');
wait_for($p,
	'SELECT bool_and(flush_lsn = pg_current_wal_lsn() AND replay_lsn = pg_current_wal_lsn() AND replay_lag_bytes = 0) FROM cascade_topology',
	'figures of all six on p');
wait_for($i,
	'SELECT bool_and(flush_lsn = pg_last_wal_replay_lsn() AND replay_lsn = pg_last_wal_replay_lsn() AND replay_lag_bytes = 0) FROM cascade_topology',
	'figures of all six on i');
is(value($p, q{SELECT DISTINCT timeline, protected, refusal IS NULL, warnings FROM cascade_topology WHERE NOT (node_name = 's')}),
	'1|t|t|{}', 'everybody with a slot or the extension is protected, without warnings');
is(value($p, q{SELECT string_agg(node_name, ',') FROM cascade_topology WHERE observed_at IS NULL OR observed_at > clock_timestamp() OR observed_at < clock_timestamp() - interval '1 minute'}),
	'', 'every row says when it was seen, and that was not long ago');
is(value($p, q{SELECT DISTINCT location, conninfo IS NULL, hot_standby_feedback FROM cascade_topology WHERE role = 'standby' AND managed}),
	'default|t|f', 'settings of managed standbys');
is(value($p, q{SELECT count(*) FROM cascade_topology WHERE NOT managed AND (frontier_lsn IS NOT NULL OR oldest_wal_lsn IS NOT NULL OR hot_standby_feedback IS NOT NULL)}),
	'0', 'what nobody can know of a node without the extension is NULL');
for my $node ($p, $i)
{
	my $name = $node->name;

	# not of the primary's row: the name is of the file that holds the LSN
	wait_for($p,
		"SELECT pg_walfile_name(oldest_wal_lsn + 1) = '" . oldest_wal($node) . "' FROM cascade_topology WHERE node_name = '$name'",
		"the oldest WAL of $name is what is in its folder");
}

my $downstreams = q{
	SELECT name, kind, slot_name, active, counted, reason FROM cascade_downstreams
	ORDER BY name, kind};
is(value($p, $downstreams),
	join("\n",
		'i|hold|cascade_relay_i_' . incarnation($i) . '|f|t|managed, by its last report',
		'i|slot|i|t|f|managed, counted by its hold'),
	'what counts on p, and why');
is( value($i, $downstreams),
	join("\n",
		'l|hold|cascade_relay_l_' . incarnation($l) . '|f|t|managed, by its last report',
		'l|slot|l|t|f|managed, counted by its hold',
		'm|hold|cascade_relay_m_' . incarnation($m) . '|f|t|managed, by its last report',
		'm|walsender||t|f|managed, counted by its hold',
		's|walsender||t|t|connected without a slot',
		'u|slot|u|t|t|physical slot'),
	'what counts on i, and why');
is(value($i, 'SELECT count(*), bool_and(counted) FROM cascade_holds'), '2|t', 'cascade_holds shows the holds alone');
is(value($i, "SELECT count(*) FROM cascade_downstreams WHERE active AND (pid IS NULL OR state <> 'streaming')"),
	'0', 'who is active has a walsender');
is(value($p, "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'cascade_relay_%' AND (xmin IS NOT NULL OR catalog_xmin IS NOT NULL OR temporary)"),
	'0', 'no hold has an xmin');

# ---- s has no slot: it counts while it is connected ----

# A walreceiver that is stopped goes on being connected, and confirms nothing.
my $receiver = value($s, 'SELECT pid FROM pg_stat_wal_receiver');
kill('STOP', $receiver);
add_rows($p, 3);
wait_caught_up($p, $i, $l, $m, $u);
my $s_has = value($i, "SELECT restart_lsn FROM cascade_downstreams WHERE name = 's'");
ok(!lsn_le($p, value($p, 'SELECT pg_current_wal_lsn()'), $s_has), 's has not confirmed everything');
for my $node ($p, $i)
{
	wait_for($node,
		"SELECT bool_and(frontier_lsn = '$s_has' AND pinned_by = 's') FROM cascade_topology WHERE node_name IN ('p', 'i')",
		's pins everything above it, as ' . $node->name . ' says');
}
checkpoint_all($p, $i);
checkpoint_all($p, $i);
ok(has_segment($i, $s_has), 'i keeps what s needs');
ok(has_segment($p, $s_has), 'and so does p');
is(value($p, "SELECT pinned_by FROM cascade_holds WHERE name = 'i'"), 's', 'p names who is behind the hold');
kill('CONT', $receiver);
wait_caught_up($p, $s);
wait_for($p, q{SELECT frontier_lsn = pg_current_wal_lsn() AND pinned_by = 'p' FROM cascade_status},
	'and the root is free');

# It leaves: nothing holds WAL for it any more, and that is said.
my $s_need = value($s, 'SELECT pg_last_wal_replay_lsn()');
$s->stop;
for my $node ($p, $i)
{
	wait_for($node,
		q{SELECT count(*) = 1 AND bool_and(state = 'down' AND protected = false AND upstream_name = 'i' AND replay_lag_bytes IS NULL AND replay_lag IS NULL)
		FROM cascade_topology WHERE node_name = 's'},
		's is down and unprotected, as ' . $node->name . ' says');
}
is(value($i, "SELECT count(*) FROM cascade_downstreams WHERE name = 's'"), '0', 's does not count any more');

# The leaves that stay go on, so nothing keeps the WAL from then on.
add_rows($p, 4);
wait_caught_up($p, $i, $l, $m, $u);
checkpoint_all($p, $i, $l, $m);
wait_for($p,
	"SELECT restart_lsn > '$s_need'::pg_lsn + 2 * 1024 * 1024 FROM cascade_holds WHERE name = 'i'",
	'without s the hold goes on');
checkpoint_all($p, $i);
ok(!has_segment($p, $s_need), 'what s would need is gone');

# ---- the story ----

# One after the other, with WAL between: l needs the most.
wait_protected($l, $m);
wait_for($p, 'SELECT frontier_lsn = pg_current_wal_lsn() FROM cascade_status', 'everything confirmed');
$l->stop;
wait_for($i, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'l'}, 'l is gone');
my $need = value($i, q{SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'l'});
add_rows($p, 2);
wait_caught_up($p, $i, $m, $u);
$m->stop;
$u->stop;
for my $node ($p, $i)
{
	wait_for($node,
		q{SELECT count(*) = 3 AND bool_and(state = 'down' AND protected) FROM cascade_topology WHERE node_name IN ('l', 'm', 'u')},
		'l, m and u are down and protected, as ' . $node->name . ' says');
}

add_rows($p, 20);
checkpoint_all($p, $i);
checkpoint_all($p, $i);
for my $node ($p, $i)
{
	wait_for($node,
		"SELECT bool_and(frontier_lsn = '$need' AND pinned_by = 'l') FROM cascade_topology WHERE node_name IN ('p', 'i', 'l')",
		'l pins everything, as ' . $node->name . ' says');
}
my $held = hold_lsn($p, 'i');
ok(lsn_le($p, $held, $need), 'the hold on p covers what l needs');
is(value($p, "SELECT slot_name FROM cascade_downstreams ORDER BY retained_bytes DESC LIMIT 1"),
	'cascade_relay_i_' . incarnation($i), 'the hold is what keeps the most');
is(value($p, "SELECT pinned_by, counted, retained_bytes >= 20 * 1024 * 1024 FROM cascade_holds WHERE name = 'i'"),
	'l|t|t', 'and names l, twenty segments behind');
is(oldest_wal($p), segment_of($held), 'p has removed what is older than the hold, and nothing else');
is(value($p, "SELECT min(restart_lsn) >= '$need'::pg_lsn + 20 * 1024 * 1024 FROM pg_replication_slots WHERE slot_name NOT LIKE 'cascade_relay_%'"),
	't', 'no other slot would have kept it');

kill_node($i);
wait_for($p, 'SELECT count(*) = 0 FROM pg_stat_replication', 'i is gone');
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'i'}, 'p says so');
is(value($p, q{SELECT string_agg(DISTINCT state, ',') FROM cascade_topology WHERE node_name IN ('l', 'm', 'u', 's')}),
	'down', 'what was down below it stays down');
add_rows($p, 5);
$p->safe_psql('postgres', 'CHECKPOINT; CHECKPOINT');
is(hold_lsn($p, 'i'), $held, 'the hold stays where it was without news');
is(oldest_wal($p), segment_of($held), 'and what it holds is there');

slot_from_hold($p, 'i', 'l');
slot_from_hold($p, 'i', 'u');
point_at($_, $p) for ($l, $m, $u);
$_->start for ($l, $m, $u);
same_rows($p, $l, $m, $u);
ok(!$_->log_contains($already_removed), $_->name . ' has missed nothing') for ($l, $m, $u);

wait_connected($l, $m);
wait_protected($l, $m);
wait_for($p, q{SELECT count(*) = 3 AND bool_and(state = 'streaming') FROM cascade_topology WHERE node_name IN ('l', 'm', 'u') AND upstream_name = 'p'},
	'all stream from p');

# l and m moved; whether u is the one that i spoke of before it died, p cannot
# know.
is( tree_of($p, qw(node_name upstream_name depth path state)),
	join("\n",
		'p||0|{p}|running',
		'i|p|1|{p,i}|down',
		's|i|2|{p,i,s}|down',
		'u|i|2|{p,i,u}|down',
		'l|p|1|{p,l}|streaming',
		'm|p|1|{p,m}|streaming',
		'u|p|1|{p,u}|streaming'),
	'the tree after i');

# The verdict on s was true.
my $offset = -s $s->logfile;
point_at($s, $p);
$s->start;
ok($s->wait_for_log($already_removed, $offset), 's was unprotected, and cannot come back');
$_->stop('immediate') for ($s, $l, $m, $u, $p);

# ---- the control ----

my %disabled = (conf => "cascade_relay.enabled = off\n");
my $x = new_primary('x', %disabled);
add_rows($x, 2);
my $y = new_standby('y', $x, %disabled);
my $z = new_standby('z', $y, %disabled);
wait_caught_up($x, $z);
$need = value($z, 'SELECT pg_last_wal_replay_lsn()');
$z->stop;
add_rows($x, 20);
checkpoint_all($x, $y);
checkpoint_all($x, $y);
ok(has_segment($y, $need), 'y keeps what z needs');
ok(!has_segment($x, $need), 'and x does not');
kill_node($y);
is(holds($x), '', 'nothing was held');
$x->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('z', true)});
$offset = -s $z->logfile;
point_at($z, $x);
$z->start;
ok($z->wait_for_log($already_removed, $offset), 'without the reports z must be rebuilt');
$_->stop('immediate') for ($z, $x);

# ---- five deep ----

my $q = new_primary('q');
my @chain = ($q);
push @chain, new_standby($_, $chain[-1]) for qw(a b c d);
my (undef, $a, $b, $c, $d) = @chain;
wait_connected($a, $b, $c, $d);
add_rows($q, 2);
checkpoint_all($q, $a, $b, $c, $d);
wait_protected($a, $b, $c, $d);
wait_for($q, 'SELECT count(*) = 5 AND bool_and(protected) FROM cascade_topology', 'q knows that all of them are');
is( tree_of($q, qw(node_name upstream_name depth path)),
	join("\n",
		'q||0|{q}',
		'a|q|1|{q,a}',
		'b|a|2|{q,a,b}',
		'c|b|3|{q,a,b,c}',
		'd|c|4|{q,a,b,c,d}'),
	'q shows the chain');
is(value($d, q{SELECT path FROM cascade_topology WHERE is_local}), '{q,a,b,c,d}', 'd knows its path');

wait_for($q, 'SELECT frontier_lsn = pg_current_wal_lsn() FROM cascade_status', 'everything confirmed');
$d->stop;
wait_for($c, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'd'}, 'd is gone');
$need = value($c, q{SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'd'});
add_rows($q, 10);
checkpoint_all($q, $a, $b, $c);
checkpoint_all($q, $a, $b, $c);
for my $node ($q, $a, $b, $c)
{
	my $name = $node->name;

	wait_for($node, "SELECT frontier_lsn = '$need' AND pinned_by = 'd' FROM cascade_status", "d pins $name");
	wait_for($node,
		q{SELECT bool_and(pinned_by = 'd') FROM cascade_topology WHERE depth >= (SELECT depth FROM cascade_topology WHERE is_local)},
		"and is named in every row from $name down");
	ok(has_segment($node, $need), "$name keeps what d needs");
}
is(value($q, q{SELECT pinned_by FROM cascade_holds WHERE name = 'a'}), 'd', "the root's hold names d");
is(value($q, q{SELECT node_name, state, protected FROM cascade_topology WHERE node_name = 'd'}), 'd|down|t', 'd is down and protected');

kill_node($_) for ($c, $b, $a);
wait_for($q, 'SELECT count(*) = 0 FROM pg_stat_replication', 'everything between is gone');
$q->safe_psql('postgres', 'CHECKPOINT; CHECKPOINT');
slot_from_hold($q, 'a', 'd');
point_at($d, $q);
$d->start;
same_rows($q, $d);

done_testing();
