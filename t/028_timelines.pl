# A leaf that is on the new timeline before the node that feeds it.
#
#	r ─┬─ s
#	   └─ i ── l		l also reads the archive
#
# r is gone, s is promoted, and its new timeline is in the archive.  i still waits
# for r.  l is restarted, and replays the new timeline from the archive, ahead of
# i, to which it reports:
#
#	i ·· l			of another timeline, but of one history
#
# Nothing is called diverged, i keeps what l needs, and asks for nothing that l
# does not.  Then i is pointed at s, and follows:
#
#	s ── i ── l
#
# l has streamed from i all along, as far as it shows: no row is missing, and the
# WAL goes.  At last i is ahead on a history of its own, promoted while s goes on:
# now l, which goes on with the archive, has really diverged.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $archive = PostgreSQL::Test::Utils::tempdir();
my $archiving = "archive_mode = on\narchive_command = 'cp \"%p\" \"$archive/%f\"'\n";
my %quick = (conf => "cascade_relay.stale_timeout = 2s\n");

my $columns = 'node_name, upstream_name, path, state, timeline';

my $r = new_primary('r', %quick);
my $s = new_standby('s', $r, conf => "$quick{conf}$archiving");
my $i = new_standby('i', $r, %quick);
my $l = new_standby('l', $i, conf => "$quick{conf}restore_command = 'cp \"$archive/%f\" \"%p\"'\n");
add_rows($r, 3);
same_rows($r, $s, $i, $l);
wait_protected($s, $i, $l);
checkpoint_all($r, $l, $i, $s);
show_tree('one timeline', $columns, [ 'r||{r}|running|1', 'i|r|{r,i}|streaming|1', 'l|i|{r,i,l}|streaming|1', 's|r|{r,s}|streaming|1' ],
	$r, $s, $i, $l);

# ---- s is promoted, and i does not know ----

my $old = incarnation($r);
$r->stop;
my $held = hold_lsn($i, 'l');
my $i_at = value($i, 'SELECT pg_last_wal_replay_lsn()');
$s->promote;
add_rows($s, 3);
my $end = value($s, 'SELECT pg_walfile_name(pg_switch_wal() - 1)');
wait_for($s, "SELECT substr(last_archived_wal, 9) >= substr('$end', 9) FROM pg_stat_archiver", 'the archive has it all');
$l->restart;
wait_for($l, 'SELECT timeline FROM cascade_status', 'l is on the new timeline', '2');
wait_for($l, 'SELECT count(*) FROM kept', 'and has the rows', value($s, 'SELECT count(*) FROM kept'));
is(value($i, 'SELECT timeline FROM cascade_status'), '1', 'i is on the old one');
is(value($i, 'SELECT pg_last_wal_replay_lsn()'), $i_at, 'and where it was');
show_tree('that l is ahead', $columns, [ 'r||{r}|stale|1', 'i|r|{r,i}|disconnected|1', 'l|i|{r,i,l}|archive|2', 's|r|{r,s}|stale|1' ], $i, $l);
for my $node ($i, $l)
{
	is(value($node, "SELECT count(*) FROM cascade_topology WHERE state = 'diverged'"), '0', $node->name . ' calls nobody diverged');
	is(value($node, "SELECT count(*) FROM cascade_check WHERE code = 'diverged'"), '0', 'nor does its check');
}
my $reports = value($l, 'SELECT reports_sent FROM cascade_status');
wait_for($l, "SELECT reports_sent > $reports + 5, upstream_state FROM cascade_status", 'l goes on reporting', 't|connected');
is(value($i, "SELECT replay_lsn > '$i_at' FROM cascade_topology WHERE node_name = 'l'"), 't', 'i knows how far l is');
is(value($i, 'SELECT frontier_lsn = replay_lsn, pinned_by FROM cascade_status'), 't|i', 'l does not pin i');
ok(lsn_le($i, hold_lsn($i, 'l'), $i_at), 'the hold for l is not where i has not been');
ok(lsn_le($i, $held, hold_lsn($i, 'l')), 'and has not gone back');
is(value($i, "SELECT bool_and(frontier_lsn <= '$i_at') FROM cascade_topology WHERE is_local"), 't', 'nor is its frontier');

# nobody says that i cannot follow where l has been
is(value($i, "SELECT verdict, reason FROM cascade_upstream_candidates('l') WHERE upstream_name = 'i'"),
	'refused|upstream-not-available', 'i is no place to be, because it has no root');

# ---- i follows ----

value($s, "SELECT pg_create_physical_replication_slot('i', true)");
point_at($i, $s);
$i->reload;
add_rows($s, 2);
same_rows($s, $i, $l);
my @well = ('s||{s}|running|2', 'i|s|{s,i}|streaming|2', 'l|i|{s,i,l}|streaming|2', 'r||{r}|stale|1');
show_tree('one timeline again', $columns, \@well, $s, $i, $l);
wait_protected($i, $l);
wait_for($_, 'SELECT pinned_by = node_name FROM cascade_status', 'nobody pins ' . $_->name) for $s, $i;

# what l needs is kept while it is away, on all of them
checkpoint_all($s, $l, $i);
wait_for($i, "SELECT restart_lsn >= '" . value($l, 'SELECT redo_lsn FROM pg_control_checkpoint()') . "' FROM cascade_holds WHERE name = 'l'",
	'the hold for l follows');
$l->append_conf('postgresql.conf', "restore_command = ''\n");
$l->stop;
my $need = value($i, "SELECT frontier_lsn FROM cascade_topology WHERE node_name = 'l'");
my $segment = substr(segment_of($need), 8);
add_rows($s, 3);
remove_wal(3, $s, $i);
for my $node ($s, $i)
{
	ok((grep { substr($_, 8) eq $segment } wal_files($node)), $node->name . ' has what l needs');
}
kill_node($i);
slot_from_hold($s, 'i', 'l');
point_at($l, $s);
$l->start;
same_rows($s, $l);

# ---- l on a history that i is not on ----

start_after_kill($i);
same_rows($s, $i);
# what s has told it of its walsender is the last that it hears of that
wait_for($l, 'SELECT state FROM cascade_topology WHERE is_local', 'l knows that it has caught up', 'streaming');
set_conf($l, "cascade_relay.upstream_conninfo = '" . ($i->connstr =~ s/'/''/gr) . "'\n");
# it streams from s still, and s draws it there
wait_for($i, "SELECT state FROM cascade_topology WHERE node_name = 'l' AND upstream_name = 'i'", 'l reports to i', 'streaming');
wait_for($i, "SELECT count(*) FROM cascade_holds WHERE name = 'l'", 'which holds for it', '1');
$i->promote;
add_rows($s, 2);
same_rows($s, $l);
add_rows($i, 1);
wait_for($_, "SELECT state FROM cascade_topology WHERE node_name = 'l' AND upstream_name = 'i'", $_->name . ' shows that l has diverged', 'diverged') for $i, $l;
$held = hold_lsn($i, 'l');
add_rows($s, 2);
same_rows($s, $l);
add_rows($i, 2);
$reports = value($l, 'SELECT reports_sent FROM cascade_status');
wait_for($l, "SELECT reports_sent > $reports + 5 FROM cascade_status", 'l goes on reporting');
is(hold_lsn($i, 'l'), $held, 'its hold stays');

# i comes back to the history of the others by pg_rewind, or not at all
is(value($i, "SELECT reason FROM cascade_upstream_candidates('l') WHERE upstream_name = 'i'"), 'timeline-diverged',
	'and l is told not to follow i');
done_testing();
