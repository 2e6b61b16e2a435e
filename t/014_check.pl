# cascade_check says what is wrong, how bad it is, and what to do.
#
#	p ── i ── l
#
# A healthy cascade, about which there is nothing to say; then one thing after
# another goes wrong, and each is said, by the nodes that can know it and about
# the node that it is about, and not any more when it is over.  What takes time
# to be over is begun first.
#
#	p ── m     first a node with l's name, then one that gets no hold, then
#	           one that leaves without
#	q          a server that has no room for the worker
#
# In the end i is promoted, and l, which follows it, still reports to p.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# "Long" is ten times stale_timeout, and news of the tree from two hops away
# must arrive within one.
my %quick = (
	conf => qq{
cascade_relay.report_interval = 50ms
cascade_relay.stale_timeout = 800ms
wal_receiver_status_interval = 1s
max_slot_wal_keep_size = 1GB
});

# The findings of one code (default: all) as a node shows them.
sub findings
{
	my ($node, $code) = @_;
	return value($node,
		'SELECT severity, level, code, node_name FROM cascade_check'
		  . ($code ? " WHERE code = '$code'" : ''));
}

# Waits for a finding; it must have a message and a hint.
sub found
{
	my ($node, $severity, $code, $about, $message) = @_;
	my $name = $node->name;

	$message //= '.';
	wait_for($node,
		"SELECT count(*) = 1 FROM cascade_check WHERE severity = '$severity' AND code = '$code'
		 AND node_name = '$about' AND message ~ '$message' AND hint <> ''
		 AND level = CASE severity WHEN 'critical' THEN 2 WHEN 'warning' THEN 1 ELSE 0 END",
		"$name says $code of $about") or diag findings($node);
	return;
}

# Waits until a code is not there any more, of a node or at all.
sub gone
{
	my ($node, $code, $about) = @_;
	my $of = $about ? " AND node_name = '$about'" : '';

	wait_for($node, "SELECT count(*) = 0 FROM cascade_check WHERE code = '$code' $of",
		$node->name . " does not say $code any more") or diag findings($node);
	return;
}

# Waits until a node has nothing to say, but that the cascade is asynchronous.
sub healthy
{
	for my $node (@_)
	{
		my $name = $node->name;

		wait_for($node,
			"SELECT count(*) = 1 AND bool_and(severity = 'ok' AND level = 0 AND node_name = '$name' AND message <> '' AND (code = 'ok' AND hint IS NULL OR code = 'no_candidate')) FROM cascade_check",
			"$name has nothing to say") or diag findings($node);
	}
	return;
}

sub set
{
	my ($node, @settings) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $_") for @settings;
	$node->reload;
	return;
}

sub reset_to
{
	my ($node, @settings) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM RESET $_") for @settings;
	$node->reload;
	return;
}

sub other_value
{
	my ($node, $sql) = @_;
	return $node->safe_psql('other', $sql);
}

# ---- nothing ----

my $p = new_primary('p', %quick);
my $i = new_standby('i', $p, %quick);
my $l = new_standby('l', $i, %quick);

# a second database with the extension, to ask while the first has none
$p->safe_psql('postgres', 'CREATE DATABASE other');
$p->safe_psql('other', 'CREATE EXTENSION cascade_relay');
wait_connected($i, $l);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
healthy($p, $i, $l);
is(value($p, 'SELECT max(level) FROM cascade_check'), '0', 'for Nagios: ok');

# ---- what takes time to be over: somebody else has l's name ----

my $m = new_standby('m', $i, %quick, slotless => 1, no_start => 1);
$m->append_conf('postgresql.conf', "cascade_relay.node_name = 'l'");
$m->start;
found($m, 'critical', 'duplicate_name', 'l');
found($m, 'critical', 'upstream_refused', 'l', 'another live node');
found($_, 'critical', 'duplicate_name', 'l') for ($l, $i, $p);
is(value($p, 'SELECT max(level) FROM cascade_check'), '2', 'for Nagios: critical');
$m->stop;

# ---- and somebody drops a hold ----

my $hold = 'cascade_relay_i_' . incarnation($i);
value($p, "SELECT pg_drop_replication_slot('$hold')");
found($_, 'warning', 'hold_dropped', 'i', 'placed again') for ($p, $i);
wait_protected($i);

# ---- the exchange ----

# without the extension in the database
$p->safe_psql('postgres', 'DROP EXTENSION cascade_relay');
ok( $i->poll_query_until(
		'other',
		q{SELECT count(*) = 1 FROM cascade_check WHERE severity = 'critical' AND code = 'extension_missing' AND node_name = 'i' AND hint ~ 'CREATE EXTENSION'}),
	'i misses the extension');
is(other_value($i, q{SELECT count(*) FROM cascade_check WHERE code = 'upstream_refused' AND node_name = 'i'}),
	'0', 'which is more than to say that it was refused');
$p->safe_psql('postgres', 'CREATE EXTENSION cascade_relay');
wait_caught_up($p, $i, $l);
gone($i, 'extension_missing');

# refused
set($p, 'cascade_relay.enabled = off');
found($i, 'critical', 'upstream_refused', 'i', 'enabled is off');
found($l, 'critical', 'upstream_refused', 'i', 'node "i" says');
reset_to($p, 'cascade_relay.enabled');
gone($_, 'upstream_refused') for ($i, $l);

# silent: switched off here; not reached
set($i, 'cascade_relay.enabled = off');
found($i, 'warning', 'upstream_silent', 'i', 'switched off');
reset_to($i, 'cascade_relay.enabled');
gone($i, 'upstream_silent');
set($i, q{cascade_relay.upstream_conninfo = 'port=1'});
found($i, 'critical', 'upstream_silent', 'i', 'no reply from the upstream for');
found($l, 'critical', 'upstream_silent', 'i', 'node "i" says');
found($i, 'warning', 'stale_node', 'p');
reset_to($i, 'cascade_relay.upstream_conninfo');
gone($_, 'upstream_silent') for ($i, $l);

# in a circle
my $circle = $l->connstr;
set($i, "cascade_relay.upstream_conninfo = '" . ($circle =~ s/'/''/gr) . "'");
found($i, 'critical', 'cycle', 'i');
reset_to($i, 'cascade_relay.upstream_conninfo');
gone($i, 'cycle');

# ---- settings ----

# nothing is bounded: worth knowing; with much WAL, a warning
set($p, 'max_slot_wal_keep_size = -1');
found($p, 'ok', 'unbounded', 'p');
is(value($p, 'SELECT max(level) FROM cascade_check WHERE code = \'unbounded\''), '0', 'for Nagios: still ok');
set($p, q{max_wal_size = '2MB'});
$l->stop;
write_segments($p, 4);
found($p, 'warning', 'unbounded', 'p');

# ---- l is away ----

found($_, 'warning', 'stale_node', 'l') for ($p, $i);

# what it needs is given up
set($p, q{cascade_relay.max_hold_size = '2MB'});
found($p, 'critical', 'hold_clamped', 'i', 'WAL that node "l" needs');
found($i, 'critical', 'hold_clamped', 'i', 'pinned by node "l"');
reset_to($p, 'cascade_relay.max_hold_size', 'max_slot_wal_keep_size', 'max_wal_size');
gone($p, 'unbounded');
found($p, 'critical', 'hold_clamped', 'i', 'WAL that node "l" needs');

# it is long ago that it called
found($_, 'warning', 'pinned_long', 'l', 'keeping this node') for ($p, $i);

# its hold goes while it is away: i places it again, unless it is switched off
set($i, 'cascade_relay.enabled = off');
found($i, 'warning', 'upstream_silent', 'i', 'switched off');
value($i, "SELECT pg_drop_replication_slot('cascade_relay_l_" . incarnation_of($i, 'l') . "')");
found($i, 'critical', 'hold_dropped', 'l', 'is not held');
reset_to($i, 'cascade_relay.enabled');
found($_, 'warning', 'hold_dropped', 'l', 'placed again') for ($p, $i);
$l->start;
wait_caught_up($p, $l);
gone($_, 'pinned_long') for ($p, $i);
gone($_, 'hold_clamped') for ($p, $i);
gone($_, 'stale_node', 'l') for ($p, $i);

# ---- slots ----

value($p, q{CHECKPOINT; SELECT pg_create_physical_replication_slot('nobodys', true)});
is(findings($p, 'orphan_slot'), '', 'a slot that keeps nothing yet is nobody\'s business');
write_segments($p, 2);
found($p, 'warning', 'orphan_slot', 'nobodys', 'no known node');
value($p, q{SELECT pg_drop_replication_slot('nobodys')});
gone($p, 'orphan_slot');

# i has two slots in use, for l and its hold; one is left, then none
value($i, "SELECT pg_create_physical_replication_slot('x$_')") for (1 .. 7);
found($i, 'warning', 'no_free_slot', 'i', 'one of 10');

# so m gets no hold
$m->append_conf('postgresql.conf', "cascade_relay.node_name = 'm'");
$m->start;
found($_, 'critical', 'no_free_slot', 'm') for ($m, $i, $p);
found($_, 'warning', 'unprotected', 'm') for ($m, $i, $p);
value($i, q{SELECT pg_create_physical_replication_slot('x8')});
found($i, 'critical', 'no_free_slot', 'i', 'all of 10');

# and when it leaves, that is worse
$m->stop;
found($_, 'critical', 'unprotected', 'm') for ($i, $p);
value($i, "SELECT pg_drop_replication_slot('x$_')") for (1 .. 8);
$m->start;
wait_protected($m);
gone($_, 'unprotected') for ($m, $i, $p);
gone($_, 'no_free_slot') for ($m, $i, $p);

# ---- settings of a leaf ----

set($l, 'cascade_relay.replica_class = voting');
found($_, 'warning', 'voting_cascades', 'l', 'streams from "i"') for ($p, $i, $l);
reset_to($l, 'cascade_relay.replica_class');
gone($_, 'voting_cascades') for ($p, $i, $l);

set($l, 'hot_standby_feedback = on');
found($_, 'warning', 'feedback_off', 'i', 'on at node "l", but off at "i"') for ($p, $i, $l);
set($i, 'hot_standby_feedback = on');
gone($_, 'feedback_off') for ($p, $i, $l);

my $query = $l->background_psql('postgres');
$query->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$query->query_safe('SELECT count(*) FROM pg_class');
value($p, 'SELECT pg_current_xact_id()') for (1 .. 3);
found($p, 'warning', 'vacuum_held_back', 'l');
is(findings($i, 'vacuum_held_back'), '', 'which is the primary\'s to say');
$query->quit;
gone($p, 'vacuum_held_back');

set($l, q{recovery_min_apply_delay = '1h'});
found($l, 'ok', 'delayed_standby', 'l', 'replays 60 min late');
reset_to($l, 'recovery_min_apply_delay');
gone($l, 'delayed_standby');

# ---- a server without room for the worker ----

my $q = new_primary('q', conf => "max_worker_processes = 0\n");
is(findings($q), 'critical|2|no_free_worker|q', 'q has no worker, and knows nothing else');
$q->append_conf('postgresql.conf', 'max_worker_processes = 8');
$q->restart;
healthy($q);
$q->stop('immediate');

# ---- everything is over ----

gone($_, 'duplicate_name') for ($p, $i, $l);
gone($_, 'hold_dropped') for ($p, $i);
wait_connected($i, $l, $m);
checkpoint_all($p, $i, $l, $m);
healthy($p, $i, $l, $m);

# ---- two histories ----

$m->stop('immediate');
$i->promote;
write_segments($p, 2);
write_segments($i, 2);
wait_for($l, q{SELECT timeline = 2 AND upstream_state = 'connected' FROM cascade_status}, 'l follows i');
set($l, "cascade_relay.upstream_conninfo = '" . ($p->connstr =~ s/'/''/gr) . "'");
found($_, 'critical', 'diverged', 'l') for ($p, $l);
reset_to($l, 'cascade_relay.upstream_conninfo');
wait_for($l, q{SELECT upstream_name = 'i' AND protected FROM cascade_status}, 'l reports to i again');
gone($_, 'diverged') for ($p, $l);

# and what p has left of i is old
found($p, 'warning', 'stale_node', 'i');

done_testing();

sub incarnation_of
{
	my ($node, $name) = @_;
	return value($node,
		"SELECT right(slot_name, 8) FROM cascade_holds WHERE name = '$name' AND slot_name IS NOT NULL");
}
