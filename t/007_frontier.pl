# What a node may let go of: the frontier, who pins it, and what bounds it.
#
#	p ─┬─ a ── b ─┬─ c
#	   │          └─ u	no extension, a slot of its own on b
#	   └─ d			replays with a delay, for a while
#
# First everybody keeps up, and the frontier is the own applied LSN, at every
# level.  c stops: every node above says that c pins it, until c is released on
# b; when it has come back it counts again.  However often c reconnects, its
# hold does not move back.  u, of which nobody knows more than a slot, pins the
# same way, and a copy of u that names its slot does not get it.  Then everything
# that is not a downstream turns up on p: slots that are ignored, temporary,
# logical, unreserved or invalidated, pg_receivewal and pg_basebackup.  d receives all and applies nothing: what it has applied is
# what it needs, until max_hold_size or max_slot_wal_keep_size bounds what it
# may cost; then the hold moves on, the server has no reason to invalidate it,
# and d says that it is not protected, until it has caught up.  The time that a
# leaf's confirmation takes to the root is measured.  d leaves for good: it has
# what it was released at, and does not count all the same.  At last c stops
# once more, b and a are killed, and c has every row, from p.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $p = new_primary('p', conf => "wal_level = logical\n");

add_rows($p, 2);
my $a = new_standby('a', $p);
my $b = new_standby('b', $a);
my $c = new_standby('c', $b);
my $u = new_standby('u', $b, unmanaged => 1);
my $d = new_standby('d', $p);
my @managed = ($p, $a, $b, $c, $d);

# Nobody pins anybody: each has its own applied LSN for a frontier, and that is
# the end of the WAL.
sub at_rest
{
	my ($what, @nodes) = @_;
	my $lsn = value($p, 'SELECT pg_current_wal_flush_lsn()');

	for my $node (@nodes ? @nodes : @managed)
	{
		wait_for($node,
			"SELECT frontier_lsn = replay_lsn AND pinned_by = node_name AND replay_lsn >= '$lsn' FROM cascade_status",
			'the frontier of ' . $node->name . " is its own applied LSN: $what");
	}
	return;
}

# Every node given says that it is pinned by that one, at that LSN.
sub pinned
{
	my ($by, $lsn, @nodes) = @_;

	for my $node (@nodes)
	{
		wait_for($node, 'SELECT pinned_by, frontier_lsn FROM cascade_status',
			$node->name . " is pinned by $by", "$by|$lsn");
	}
	return;
}

# p removes a segment, as soon as holds and slots have moved past it.
sub removed
{
	my ($lsn) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		remove_wal(1, $p);
		last unless has_segment($p, $lsn);
		usleep(100_000);
	}
	ok(!has_segment($p, $lsn), "p has removed the WAL at $lsn");
	return;
}

sub reload_with
{
	my ($node, $conf) = @_;

	$node->append_conf('postgresql.conf', $conf);
	$node->reload;
	return;
}

# counted and reason of a row of cascade_downstreams.
sub verdict
{
	my ($node, $where) = @_;

	return value($node, "SELECT counted, reason FROM cascade_downstreams WHERE $where");
}

# ---- everybody keeps up ----

wait_protected(@managed);
at_rest('in the beginning');
write_segments($p, 3);
at_rest('after some WAL');
is( value($p, "SELECT node_name, frontier_lsn = replay_lsn FROM cascade_topology WHERE managed AND NOT is_local AND frontier_lsn IS NULL"),
	'', 'the root knows the frontier of every managed node');

# ---- c stops, and is released ----

$c->stop;
my $c_applied = value($p, 'SELECT pg_current_wal_flush_lsn()');
write_segments($p, 3);
my $c_frontier = value($b, "SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'c'");
ok(lsn_le($p, $c_frontier, $c_applied), 'b does not know more than c has applied');
pinned('c', $c_frontier, $p, $a, $b);
wait_for($p,
	"SELECT string_agg(node_name || ' ' || pinned_by || ' ' || frontier_lsn, ', ' ORDER BY depth) "
	  . "= 'a c $c_frontier, b c $c_frontier, c c $c_frontier' "
	  . "FROM cascade_topology WHERE node_name IN ('a', 'b', 'c')",
	'the root names c at every level');
is( value($p, "SELECT pinned_by, counted, reason FROM cascade_holds WHERE name = 'a'"),
	'c|t|managed, by its last report', 'and behind the hold that keeps the WAL');
remove_wal(2, $p, $a, $b);
ok(has_segment($_, $c_frontier), $_->name . ' has the segment that c needs') for $p, $a, $b;

my ($ret, $stdout, $stderr) = $p->psql('postgres', "SELECT cascade_release('c')");
like($stderr, qr/"c" is not a direct downstream of this node/, 'it is not released where it is unknown');
my $redo = value($b, "SELECT cascade_release('c')");
is($redo, value($b, 'SELECT redo_lsn FROM pg_control_checkpoint()'), 'it is released at the redo pointer of b');
is(hold_lsn($b, 'c'), $redo, 'and its hold moved there');
at_rest('c was released', $p, $a, $b);
is(verdict($b, "name = 'c' AND kind = 'hold'"), 'f|released', 'its hold does not count');
is(verdict($b, "slot_name = 'c'"), 'f|managed, counted by its hold', 'nor does its slot');
checkpoint_all($p, $a, $b, $d);
removed($c_frontier);
$c->start;
wait_for($b, "SELECT counted AND reason = 'managed, by its last report' FROM cascade_holds WHERE name = 'c'",
	'c counts again when it has come back');
same_rows($p, $c);
at_rest('c is back');
wait_protected($c);
$c->stop;
write_segments($p, 2);
pinned('c', value($b, "SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'c'"), $p, $a, $b);
$c->start;
at_rest('c is back again');

# ---- c comes and goes ----

my $last = hold_lsn($b, 'c');
for my $mode ('fast', 'immediate', 'fast')
{
	$c->stop($mode);
	write_segments($p, 2);
	my $stopped = hold_lsn($b, 'c');
	ok(lsn_le($b, $last, $stopped), 'the hold of c has not moved back');
	$c->start;
	wait_for($c,
		"SELECT upstream_state = 'connected' AND last_report_time > pg_postmaster_start_time() FROM cascade_status",
		"c reports after a restart, $mode");
	$last = hold_lsn($b, 'c');
	ok(lsn_le($b, $stopped, $last), "nor by its first report, $mode");
}
at_rest('c came and went');

# A report that asks for less than is held gets what is held, and is told so.
my $system_identifier = value($p, 'SELECT system_identifier FROM pg_control_system()');
my @replies = split /\n/, value($b,
	join '; ',
	map { "SELECT " . report_sql($_) }
	  encode_hello(system_identifier => $system_identifier, incarnation => 0xfa4e, node_name => 'fake'),
	map { encode_report(frontier_lsn => $_, hold_target_lsn => $_) } $last, $c_frontier);
is(decode_reply($replies[1])->{held_lsn}, $last, 'a hold is placed');
is(decode_reply($replies[2])->{held_lsn}, $last, 'and is not moved back');
is(decode_reply($replies[2])->{refusal}, 'later', 'and its node is told so');
is(hold_lsn($b, 'fake'), $last, 'it stands where it stood');
value($b, "SELECT cascade_release('fake')");
at_rest('the fake one was released', $p, $a, $b);

# ---- u stops, of which nobody knows more than its slot ----

$u->stop;
write_segments($p, 2);
my $u_needs = value($b, "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'u'");
pinned('u', $u_needs, $p, $a, $b);
is(verdict($b, "slot_name = 'u'"), 't|physical slot', 'u counts by its slot');
remove_wal(2, $p, $a, $b);
ok(has_segment($_, $u_needs), $_->name . ' has the segment that u needs') for $p, $a, $b;
$u->start;
at_rest('u is back', $p, $a, $b);
same_rows($p, $u);

# A node that was copied from u with its settings, and a name of its own: it
# reports the slot that u has.  That is not taken from u; but should it be e that
# comes first, it is its.
my $e = new_standby('e', $b, slotless => 1, conf => "primary_slot_name = 'u'\n", conninfo => 'application_name=u');
ok($e->wait_for_log(qr/replication slot "u" is active/), 'e cannot have the slot of u');
wait_for($e, q{SELECT upstream_state = 'connected' AND reports_sent > 8 FROM cascade_status}, 'e reports all the same');
wait_for($b, "SELECT string_agg(node_name || ' ' || state, ', ' ORDER BY node_name) FROM cascade_topology WHERE node_name IN ('e', 'u')",
	'both are drawn', 'e archive, u streaming');
# e says that it streams for the moment of each attempt
wait_for($b, "SELECT counted, reason FROM cascade_downstreams WHERE slot_name = 'u'", 'u counts by its slot still', 't|physical slot');
$u->stop;
wait_for($b, "SELECT name, counted, reason FROM cascade_downstreams WHERE slot_name = 'u' AND active",
	'when u is away e has the slot', 'e|f|managed, counted by its hold');
wait_for($b, "SELECT string_agg(node_name || ' ' || state, ', ' ORDER BY node_name) FROM cascade_topology WHERE node_name IN ('e', 'u')",
	'and is drawn as what streams through it', 'e streaming');
$e->stop;
value($b, q{SELECT cascade_forget('e', true)});
$u->start;
at_rest('u is back again', $p, $a, $b);
wait_for($b, "SELECT name, counted, reason FROM cascade_downstreams WHERE slot_name = 'u' AND active",
	'and has its slot', 'u|t|physical slot');
same_rows($p, $u);

# ---- everything that is not a downstream ----

reload_with($p, "cascade_relay.ignore_slots = 'barman_%, nobody'\nmax_slot_wal_keep_size = 2MB\n");
value($p, "SELECT pg_create_physical_replication_slot('lost', true)");
wait_for($p, "SELECT counted FROM cascade_downstreams WHERE slot_name = 'lost'",
	'a slot that was never seen streaming counts');
write_segments($p, 5);
wait_caught_up($p, $a, $b, $c, $u, $d);
$p->safe_psql('postgres', 'CHECKPOINT');
is(value($p, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'lost'"),
	'lost', 'and is invalidated');
reload_with($p, "max_slot_wal_keep_size = -1\n");
wait_for($p, 'SHOW max_slot_wal_keep_size', 'the bound is gone', '-1');

value($p,
	"SELECT pg_create_physical_replication_slot('barman_one', true), pg_create_physical_replication_slot('fresh'), "
	  . "pg_create_logical_replication_slot('decoded', 'pgoutput')");
my $session = $p->background_psql('postgres');
$session->query_safe("SELECT pg_create_physical_replication_slot('passing', true, true)");
my $backup_dir = PostgreSQL::Test::Utils::tempdir();
my $backup = IPC::Run::start(
	[
		'pg_basebackup', '-D', "$backup_dir/b", '-d', $p->connstr . ' application_name=backup',
		'--max-rate=32k', '-X', 'stream', '-c', 'fast', '--no-sync'
	],
	'>', \my $backup_out, '2>', \my $backup_err);
my $receive = IPC::Run::start(
	[
		'pg_receivewal', '-D', $backup_dir, '-d', $p->connstr . ' application_name=receive',
		'--no-loop'
	],
	'>', \my $receive_out, '2>', \my $receive_err);
my @namesakes = map {
	mkdir "$backup_dir/$_" or die;
	IPC::Run::start(
		[ 'pg_receivewal', '-D', "$backup_dir/$_", '-d', $p->connstr . ' application_name=nobody', '--no-loop' ],
		'>', \my $out, '2>', \my $err)
} qw(one two);
wait_for($p,
	"SELECT count(*) = 4 FROM pg_stat_replication WHERE (application_name, state) IN (('backup', 'backup'), ('receive', 'streaming'), ('nobody', 'streaming'))",
	'a base backup and three times pg_receivewal are at work');
write_segments($p, 3);
wait_for($p,
	"SELECT count(*) = 1 FROM pg_replication_slots WHERE temporary AND slot_name LIKE 'pg_basebackup%' AND active",
	'the base backup streams as well');
is(verdict($p, "slot_name = 'lost'"), 'f|invalidated slot', 'an invalidated slot');
is(verdict($p, "slot_name = 'barman_one'"), 'f|matches ignore_slots', 'an ignored slot');
is(verdict($p, "slot_name = 'fresh'"), 'f|no restart_lsn', 'an unreserved slot');
is(verdict($p, "slot_name = 'decoded'"), 'f|logical slot', 'a logical slot');
is(verdict($p, "slot_name = 'passing'"), 'f|temporary slot', 'a temporary slot');
is(verdict($p, "kind = 'walsender' AND name = 'receive'"),
	'f|has not confirmed any LSN', 'pg_receivewal without a slot');
is(verdict($p, "kind = 'walsender' AND name ~ '^nobody#'"),
	"f|matches ignore_slots\nf|matches ignore_slots", 'two that are ignored by the name that they have in common');
is(verdict($p, "kind = 'walsender' AND name ~ '^backup' AND state IS NULL"), 'f|base backup', 'a base backup');
is(verdict($p, "slot_name ~ '^pg_basebackup'"), 'f|temporary slot', 'and what it streams');
is( value($p,
		"SELECT string_agg(DISTINCT split_part(name, '#', 1), ' ' ORDER BY split_part(name, '#', 1)), min(retained_bytes), max(retained_bytes) "
		  . "FROM cascade_downstreams WHERE slot_name IS NULL OR restart_lsn IS NULL"),
	'backup fresh lost nobody receive|0|0', 'what keeps no WAL keeps 0 bytes');
is( value($p,
		'SELECT restart_lsn = (SELECT min(restart_lsn) FROM pg_replication_slots) FROM cascade_downstreams ORDER BY retained_bytes DESC LIMIT 1'),
	't', 'and does not come before what keeps the most');
at_rest('there is nobody but those who do not count');
is( value($p, "SELECT string_agg(node_name, ' ' ORDER BY node_name) FROM cascade_topology"),
	'a b c d fake p u', 'none of them is drawn as a node');
$session->quit;
value($p,
	"SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name IN ('backup', 'receive', 'nobody')");
$_->finish for $backup, $receive, @namesakes;
value($p, "SELECT pg_drop_replication_slot(s) FROM unnest(ARRAY['lost', 'barman_one', 'fresh', 'decoded']) s");

value($p, "SELECT pg_create_physical_replication_slot('received', true)");
$receive = IPC::Run::start(
	[
		'pg_receivewal', '-D', $backup_dir, '-d', $p->connstr, '--no-loop', '-S',
		'received', '--synchronous'
	],
	'>', \$receive_out, '2>', \$receive_err);
wait_for($p, "SELECT active FROM pg_replication_slots WHERE slot_name = 'received'",
	'pg_receivewal with a slot is at work');
write_segments($p, 1);
is(verdict($p, "slot_name = 'received'"), 't|physical slot', 'pg_receivewal with a slot counts');
$receive->signal('STOP');
write_segments($p, 2);
pinned('received', value($p, "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'received'"), $p);
$receive->signal('CONT');
$receive->signal('KILL');
$receive->finish;
wait_for($p, "SELECT active FROM pg_replication_slots WHERE slot_name = 'received'", 'it has left', 'f');
value($p, "SELECT pg_drop_replication_slot('received')");
at_rest('they have all left');

# ---- d receives and does not apply ----

reload_with($d, "recovery_min_apply_delay = '1h'\n");
wait_for($d, 'SHOW recovery_min_apply_delay', 'd is delayed', '1h');
add_rows($p, 3);
my $end = value($p, 'SELECT pg_current_wal_flush_lsn()');
wait_for($p, "SELECT restart_lsn >= '$end' FROM pg_replication_slots WHERE slot_name = 'd'", 'd has received it all');
wait_for($p, "SELECT pinned_by FROM cascade_status", 'and pins', 'd');
my $d_applied = value($d, 'SELECT pg_last_wal_replay_lsn()');
ok(!lsn_le($d, $end, $d_applied), 'it has not applied it all');
pinned('d', $d_applied, $p);
is(verdict($p, "slot_name = 'd'"), 'f|managed, counted by its hold', 'by its hold, not by its slot');
wait_protected($d);
remove_wal(2, $p, $a);
ok(has_segment($p, $d_applied), 'p keeps what d has not applied');
at_rest('they are not above d', $a, $b, $c);

# Waits until whoever moves holds here has done so a few times: until then it
# may go by an old setting.
sub some_reports
{
	my ($node) = @_;
	my $seen = value($node, 'SELECT reports_received FROM cascade_status');

	wait_for($node, "SELECT reports_received >= $seen + 8 FROM cascade_status", 'reports go on');
	return;
}

# A hold within the bound, whatever d needs.
sub clamped
{
	my ($setting, $bound) = @_;

	wait_for($p,
		"SELECT restart_lsn > '$d_applied' AND pg_wal_lsn_diff(pg_current_wal_flush_lsn(), restart_lsn) <= $bound "
		  . "FROM cascade_holds WHERE name = 'd'",
		"$setting moves the hold");
	wait_for($d, 'SELECT protected FROM cascade_status', "d says that it is not protected: $setting", 'f');
	wait_for($p, "SELECT protected FROM cascade_topology WHERE node_name = 'd'", "p says so, too: $setting", 'f');
	is(value($p, "SELECT string_agg(wal_status, ' ') FROM cascade_holds WHERE wal_status NOT IN ('reserved', 'extended')"),
		'', "no hold is in danger: $setting");
	return;
}

my $log = -s $p->logfile;
reload_with($p, "cascade_relay.max_hold_size = 3MB\n");
write_segments($p, 2);
clamped('max_hold_size', 3 * 1024 * 1024);
removed($d_applied);
ok(has_segment($p, hold_lsn($p, 'd')), 'but what it holds');
my $lines = () = slurp_file($p->logfile, $log) =~ /cascade_relay: hold "cascade_relay_d_\w+" was moved/g;
cmp_ok($lines, '>=', 1, 'the log says so');
reload_with($p, "cascade_relay.max_hold_size = -1\n");
wait_for($p, 'SHOW cascade_relay.max_hold_size', 'the bound is gone', '-1');
some_reports($p);
my $held = hold_lsn($p, 'd');
write_segments($p, 2);
some_reports($p);
is(hold_lsn($p, 'd'), $held, 'without the bound the hold stays');
is(value($d, 'SELECT protected FROM cascade_status'), 'f', 'and d is not protected by that');
reload_with($d, "recovery_min_apply_delay = 0\n");
same_rows($p, $d);
wait_protected($d);
at_rest('d has caught up');

# The server's own bound: it would invalidate a slot that stays behind, and
# never gets to see one of ours there.
reload_with($d, "recovery_min_apply_delay = '1h'\n");
wait_for($d, 'SHOW recovery_min_apply_delay', 'd is delayed again', '1h');
add_rows($p, 1);
$d_applied = value($d, 'SELECT pg_last_wal_replay_lsn()');
reload_with($p, "max_slot_wal_keep_size = 6MB\n");
$log = -s $p->logfile;
for my $round (1 .. 12)
{
	write_segments($p, 1);
	$p->poll_query_until('postgres',
		"SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), restart_lsn) < 5 * 1024 * 1024 FROM cascade_holds WHERE name = 'd'")
	  or die 'the hold does not move';
	$p->safe_psql('postgres', 'CHECKPOINT');
}
clamped('max_slot_wal_keep_size', 5 * 1024 * 1024);
unlike(slurp_file($p->logfile, $log), qr/invalidating/, 'the server has invalidated nothing');
ok(has_segment($p, hold_lsn($p, 'd')), 'p has what it holds');
reload_with($p, "max_slot_wal_keep_size = -1\n");
reload_with($d, "recovery_min_apply_delay = 0\n");
same_rows($p, $d);
wait_protected($d);
at_rest('d has caught up again');

# ---- from a leaf's confirmation to the root ----

# c replays nothing for a while; p looks every millisecond.
my @took;
for my $round (1 .. 3)
{
	value($c, 'SELECT pg_wal_replay_pause()');
	wait_for($c, 'SELECT pg_get_wal_replay_pause_state()', 'c does not replay', 'paused');
	write_segments($p, 3);
	my $stands = value($c, 'SELECT pg_last_wal_replay_lsn()');
	wait_caught_up($p, $a, $b);
	pinned('c', $stands, $p, $a, $b);

	my $watch = $p->background_psql('postgres');
	$watch->query_until(qr/watching/, qq{\\echo watching
DO \$\$ BEGIN
	WHILE (SELECT frontier_lsn FROM cascade_status) <= '$stands'::pg_lsn + 1024 * 1024 LOOP
		PERFORM pg_sleep(0.001);
	END LOOP;
	PERFORM set_config('t.seen', extract(epoch FROM clock_timestamp())::text, false);
END \$\$;
});
	my $resumed = value($c, 'SELECT extract(epoch FROM clock_timestamp()), pg_wal_replay_resume()');
	my $seen = $watch->query_safe("SELECT current_setting('t.seen')");
	$watch->quit;
	push @took, 1000 * ($seen - (split /\|/, $resumed)[0]);
}
note sprintf('from the resumed replay of the leaf to the frontier of the root, three hops: %s ms',
	join ', ', map { sprintf '%.0f', $_ } @took);
cmp_ok($_, '<', 1000 * at_most(5), 'a confirmation that frees a segment reaches the root') for @took;
at_rest('c replays again');

# ---- d leaves for good, with nothing to catch up ----

$d->stop;
write_segments($p, 1);
pinned('d', value($p, "SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'd'"), $p);
value($p, "SELECT cascade_release('d')");
at_rest('d was released', $p, $a, $b, $c);
write_segments($p, 1);
at_rest('and stays so', $p, $a, $b, $c);
value($p,
	"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'd' OR slot_name ~ '^cascade_relay_d_'");
write_segments($p, 1);
at_rest('without its slots, too', $p, $a, $b, $c);
is(verdict($p, "name = 'd'"), 'f|released', 'd does not count');

# ---- and nothing is lost ----

wait_protected($c);
$c->stop;
add_rows($p, 3);
remove_wal(3, $p, $a, $b);
slot_from_hold($p, 'a', 'c');
kill_node($b);
kill_node($a);
add_rows($p, 2);
checkpoint_all($p);
checkpoint_all($p);
point_at($c, $p);
$c->start;
same_rows($p, $c);

$_->stop for $c, $u, $p;
done_testing();
