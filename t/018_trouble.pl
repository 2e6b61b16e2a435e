# What goes wrong in a cascade, as every node shows it.
#
#	p ── a ── b ── c
#
# A long query on c holds back vacuum on p, three hops away: p names c, until
# the query ends.  Then a reports to itself, then to b, which is below it, and
# at last streams from b: each time the cycle is drawn, nobody on it pins
# anybody, and when a is pointed back all is well.  p dies: the others show what
# they last knew, and do not know how far they are behind.
#
#	r ··> archive ··> i ── l
#
# i has no walreceiver, but reports to r.  l stops, i dies, and l finds
# everything that it needs on r.  Then i comes back, as a standby of r:
#
#	r ─┬─ l			l streams from r, but reports to i
#	   └─ i
#
# i is promoted while r goes on: l is on another history than the node that it
# reports to.  Its hold stays where it is.  At last r is made a standby of i as
# it is, without pg_rewind, and is on another history, too.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# From now on a node reports there, wherever it streams from.
sub report_to
{
	my ($node, $upstream) = @_;
	my $conninfo = $upstream ? $upstream->connstr =~ s/'/''/gr : '';

	set_conf($node, "cascade_relay.upstream_conninfo = '$conninfo'");
	return;
}

# Waits until these nodes show these rows, of these columns.
# Whoever streams follows p, whatever it reports to whom, and pins nobody.
sub frontiers_follow
{
	my ($p, @nodes) = @_;

	write_segments($p, 2);
	my $lsn = value($p, 'SELECT pg_current_wal_flush_lsn()');
	for my $node (@nodes)
	{
		wait_for($node,
			"SELECT frontier_lsn >= '$lsn' AND frontier_lsn = replay_lsn AND pinned_by = node_name FROM cascade_status",
			'the frontier of ' . $node->name . ' goes on');
	}
	return;
}

# ---- who holds back vacuum, three hops away ----

my %conf = (conf => qq{
hot_standby_feedback = on
wal_receiver_status_interval = 1s
cascade_relay.stale_timeout = 10min
});
my $p = new_primary('p', %conf);
my $a = new_standby('a', $p, %conf);
my $b = new_standby('b', $a, %conf);
my $c = new_standby('c', $b, %conf);
my @all = ($p, $a, $b, $c);
my $place = 'node_name, upstream_name, path, state, warnings, refusal';
my @well = (
	'p||{p}|running|{}|',
	'a|p|{p,a}|streaming|{}|',
	'b|a|{p,a,b}|streaming|{}|',
	'c|b|{p,a,b,c}|streaming|{}|');

# The xid from which on VACUUM may not remove what is dead.
sub cutoff
{
	my ($stdout, $stderr);

	$p->psql('postgres', 'VACUUM (VERBOSE) kept', stdout => \$stdout, stderr => \$stderr);
	return $stderr =~ /removable cutoff: (\d+)/ ? $1 : $stderr;
}

add_rows($p, 3);
same_rows($p, $a, $b, $c);
show_tree('a tree that is well', $place, \@well, @all);
my $query = $c->background_psql('postgres');
$query->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$query->query_safe('SELECT count(*) FROM kept');
my $xmin = $query->query_safe('SELECT backend_xmin FROM pg_stat_activity WHERE pid = pg_backend_pid()');
value($p, 'UPDATE kept SET n = n') for 1 .. 3;
cmp_ok(value($p, 'SELECT pg_current_xact_id()'), '>', $xmin + 2, 'the primary has gone on');
show_tree('who holds back vacuum', 'node_name, backend_xmin, xmin_pinned_by, hot_standby_feedback',
	[ "p|$xmin|c|", "a|$xmin|c|t", "b|$xmin|c|t", "c|$xmin|c|t" ], @all);
is(cutoff(), $xmin, 'and that is where vacuum stops');
$query->query_safe('COMMIT');
for my $node ($p, $a, $b)
{
	wait_for($node, "SELECT coalesce(bool_and(backend_xmin::text::bigint > $xmin), true) FROM cascade_topology",
		'the query has ended, says ' . $node->name);
}
cmp_ok(cutoff(), '>', $xmin + 2, 'and vacuum goes on');
$query->quit;

# ---- a reports to itself ----

my $log = -s $a->logfile;
my @to_itself = ('a|unknown|{unknown,a}|cycle|t', 'b|a|{unknown,a,b}|streaming|f');
my @to_one_another = ('a|unknown|{unknown,a}|cycle|t', 'b|a|{unknown,a,b}|cycle|t');
my $on_it = "node_name, upstream_name, path, state, warnings @> '{cycle}'";

# Those on the cycle show it, and those below it know it from them.  Who of
# several comes later is refused.
sub show_cycle
{
	my ($what, $error, $late, @cycle) = @_;

	wait_until("one is refused: $what",
		sub { grep { value($_, "SELECT upstream_state, last_error ~ '$error' FROM cascade_status") eq 'refused|t' } @$late });
	for my $node ($a, $b, $c)
	{
		wait_for($node,
			"SELECT $on_it FROM cascade_topology WHERE node_name IN ('a', 'b')", $node->name . " shows it: $what",
			join("\n", @cycle));
		wait_for($node, "SELECT path, state, warnings @> '{cycle}' FROM cascade_topology WHERE node_name = 'c'",
			'c is below it, and streams', '{unknown,a,b,c}|streaming|f');
		like(value($node, 'SELECT * FROM cascade_tree()'), qr/^\? a\*? +standby +cycle +-.* !cycle/m, 'and draws it');
		wait_for($node, 'SELECT count(replay_lag_bytes), count(replay_lag) FROM cascade_topology',
			'and does not know how far anybody is behind', '0|0');
	}
	wait_for($a, "SELECT severity, hint <> '' FROM cascade_check WHERE code = 'cycle' AND node_name = 'a'",
		'and a says what to do', 'critical|t');
	wait_for($p, "SELECT state, protected FROM cascade_topology WHERE node_name = 'a'",
		'p sees it stream, and holds what it asked for last', 'streaming|t');
	return;
}

report_to($a, $a);
show_cycle('a reports to itself', 'it is this node itself', [$a], @to_itself);
$a->wait_for_log(qr/WARNING:  cascade_relay: node "a" should not stream from upstream "a": self-reference/, $log);
frontiers_follow($p, $a, $b, $c);
report_to($a);
show_tree('that all is well again', $place, \@well, @all);
wait_for($p, q{SELECT protected FROM cascade_topology WHERE node_name = 'a'}, 'and p knows that a is protected');

# what p is told next is what it will hold: not that a has just come back
wait_protected($a);
wait_for($p, q{SELECT protected FROM cascade_topology WHERE node_name = 'a'}, 'p knows that a is protected again');

# ---- a reports to b, and b to a ----

report_to($a, $b);
show_cycle('a reports to b', 'its own path to the root leads through this node', [$a], @to_one_another);
frontiers_follow($p, $a, $b, $c);

# neither remembers what was before
$_->restart for $b, $a;
show_cycle('after a restart', 'its own path to the root leads through this node', [ $a, $b ], @to_one_another);
frontiers_follow($p, $a, $b, $c);
report_to($a);
show_tree('that all is well once more', $place, \@well, @all);
wait_protected($a, $b, $c);

# ---- a streams from b, and b from a ----

point_at($a, $b);
$a->reload;
wait_for($a, "SELECT state, warnings @> '{cycle}' FROM cascade_topology WHERE node_name = 'a'",
	'a shows that it streams from b', 'cycle|t');
wait_for($b, "SELECT state FROM cascade_topology WHERE node_name IN ('a', 'b')", 'b shows it, too', "cycle\ncycle");
wait_for($p, "SELECT state FROM cascade_topology WHERE node_name = 'a'", 'p sees that it has left', 'down');
add_rows($p, 2);
wait_for($_, 'SELECT frontier_lsn = replay_lsn, pinned_by = node_name FROM cascade_status',
	'the frontier of ' . $_->name . ' is its own', 't|t') for $a, $b;
point_at($a, $p);
$a->reload;
same_rows($p, $a, $b, $c);
show_tree('that all is well at last', $place, \@well, @all);

# ---- the root dies ----

kill_node($p);
wait_for($a, 'SELECT upstream_state FROM cascade_status', 'a has no upstream', 'waiting');
wait_for($_, 'SELECT count(replay_lag_bytes), count(replay_lag) FROM cascade_topology',
	$_->name . ' does not know how far anybody is behind', '0|0') for $a, $b, $c;
set_conf($_, 'cascade_relay.stale_timeout = 3s') for $a, $b, $c;
for my $node ($a, $b, $c)
{
	wait_for($node, 'SELECT node_name, upstream_name, path, role, state FROM cascade_topology',
		$node->name . ' shows what it last knew', join("\n",
			'p||{p}|primary|stale', 'a|p|{p,a}|standby|disconnected',
			'b|a|{p,a,b}|standby|streaming', 'c|b|{p,a,b,c}|standby|streaming'));
	wait_for($node, 'SELECT protected FROM cascade_status', 'and is not sure of its protection any more', '');
	is(value($node, "SELECT warnings, observed_at < now() - interval '3 s' FROM cascade_topology WHERE node_name = 'p'"),
		'{stale_node}|t', 'since when, too');
	is(value($node, 'SELECT count(replay_lag_bytes), count(replay_lag) FROM cascade_topology'), '0|0', 'and no lag');
}
wait_for($c, "SELECT warnings @> '{upstream_silent}' FROM cascade_topology WHERE node_name = 'a'",
	'c knows that a has no upstream');
$a->stop('immediate');
for my $node ($b, $c)
{
	wait_for($node, "SELECT state FROM cascade_topology WHERE node_name IN ('p', 'a')",
		$node->name . ' has no news of a either', "stale\nstale");
}
$_->stop('immediate') for $c, $b;

# ---- an archive feeds an intermediate ----

my $archive = PostgreSQL::Test::Utils::tempdir();
my $r = new_primary('r', conf => "archive_mode = on\narchive_command = 'cp \"%p\" \"$archive/%f\"'\n");
my $i = new_standby('i', $r, slotless => 1, no_start => 1);


# its walsenders look for what it has replayed when they are spoken to
my $talk = "wal_receiver_status_interval = 1s\n";
$i->append_conf('postgresql.conf', "archive_mode = off\nprimary_conninfo = ''\nrestore_command = 'cp \"$archive/%f\" \"%p\"'");
$i->append_conf('postgresql.conf', "cascade_relay.upstream_conninfo = '" . ($r->connstr =~ s/'/''/gr) . "'");
$i->start;
add_rows($r, 2);
my $l = new_standby('l', $i, conf => $talk);
add_rows($r, 2);
same_rows_below_archive();
wait_protected($i, $l);
show_tree('that i lives on an archive', 'node_name, upstream_name, path, state, managed, protected',
	[ 'r||{r}|running|t|t', 'i|r|{r,i}|archive|t|t', 'l|i|{r,i,l}|streaming|t|t' ], $r, $i, $l);
is(value($i, 'SELECT count(*) FROM pg_stat_wal_receiver'), '0', 'i has no walreceiver');
is(value($r, 'SELECT count(*) FROM pg_stat_replication'), '0', 'nobody streams from r');

# l has what the archive has, which is all but the last segment.
sub same_rows_below_archive
{
	my $count = 'SELECT count(*) FROM kept';

	wait_for($_, $count, $_->name . ' has every row', value($r, $count)) for $i, $l;
	return;
}

$l->stop;
my $need = value($i, "SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'l'");
add_rows($r, 4);
wait_for($i, 'SELECT count(*) FROM kept', 'i goes on', value($r, 'SELECT count(*) FROM kept'));
wait_for($r, "SELECT pinned_by FROM cascade_holds WHERE name = 'i'", 'l pins r, through i', 'l');
remove_wal(3, $r);
ok(lsn_le($r, hold_lsn($r, 'i'), $need), 'r holds what l needs');
ok(has_segment($r, $need), 'and has it');
kill_node($i);
slot_from_hold($r, 'i', 'l');
point_at($l, $r);
$l->start;
same_rows($r, $l);

# ---- two histories ----

$i->append_conf('postgresql.conf', "restore_command = ''\ncascade_relay.upstream_conninfo = ''");
point_at($i, $r);
start_after_kill($i);
add_rows($r, 1);
same_rows($r, $i, $l);
report_to($l, $i);
# r, which feeds it and hears nothing from it, draws it too
wait_for($i, "SELECT upstream_name FROM cascade_topology WHERE node_name = 'l' AND managed", 'l reports to i', 'i');
wait_connected($l);
checkpoint_all($r, $i, $l);
wait_for($i, "SELECT restart_lsn IS NOT NULL FROM cascade_holds WHERE name = 'l'", 'i holds for l');
$i->promote;
add_rows($r, 3);
same_rows($r, $l);
add_rows($i, 3);
wait_for($_, "SELECT state FROM cascade_topology WHERE node_name = 'l' AND managed", $_->name . ' shows that l has diverged', 'diverged')
  for $i, $l;
wait_for($_, "SELECT severity, hint <> '' FROM cascade_check WHERE code = 'diverged' AND node_name = 'l'",
	$_->name . ' says what to do', 'critical|t') for $i, $l;
is(value($_, "SELECT replay_lag_bytes FROM cascade_topology WHERE node_name = 'l' AND managed"), '', 'it is not behind ' . $_->name)
  for $i, $l;
my $held = hold_lsn($i, 'l');
add_rows($r, 2);
same_rows($r, $l);
checkpoint_all($r, $l);
remove_wal(3, $i);
my $reports = value($l, 'SELECT reports_sent FROM cascade_status');
wait_for($l, "SELECT reports_sent > $reports + 5 FROM cascade_status", 'l goes on reporting');
is(hold_lsn($i, 'l'), $held, 'its hold stays where it was');
ok((grep { substr($_, 8) eq substr(segment_of($held), 8) } wal_files($i)), 'and keeps what it kept');
report_to($l);
wait_for($l, 'SELECT upstream_name, protected FROM cascade_status', 'l is well where it streams from', 'r|t');
wait_for($l, "SELECT state FROM cascade_topology WHERE node_name = 'l'", 'and has not diverged', 'streaming');

# the old primary, without pg_rewind
$r->stop;
$r->set_standby_mode;
point_at($r, $i);
$r->start;
wait_for($_, "SELECT upstream_name, state FROM cascade_topology WHERE node_name = 'r'",
	$_->name . ' shows that r has diverged', 'i|diverged') for $i, $r;
wait_for($_, "SELECT severity, hint <> '' FROM cascade_check WHERE code = 'diverged' AND node_name = 'r'",
	$_->name . ' says what to do', 'critical|t') for $i, $r;
is(hold_lsn($i, 'r'), '', 'nothing is held for what it would need');
wait_for($r, 'SELECT replay_lag_bytes, protected FROM cascade_topology WHERE is_local',
	'and r does not think that it is close, or protected', '|f');

done_testing();
