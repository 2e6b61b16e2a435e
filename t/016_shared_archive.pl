# A shared archive: what of it is needed still.
#
#	p ── i ─┬─ l       p and i archive, l and u restore from there; no slots
#	        └─ u       no extension
#
# l and u stop, one after the other; WAL is written, and removed by every
# server that has no reason to keep it.  No server keeps any for u, which has
# left, nor for l once it was released.  Still no node names a file that is
# newer than what they need: pg_archivecleanup with that name is run for real
# after every step, and both come back through what is left.  While it is not
# known where somebody is, nobody says anything.  Then p is lost and i
# promoted: the name is on the timeline that the file is on.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $archive = PostgreSQL::Test::Utils::tempdir . '/archive';
mkdir $archive or die "$archive: $!";

my $p = new_primary('p', conf => "archive_mode = on\narchive_command = 'cp \"%p\" \"$archive/%f\"'\n");
add_rows($p, 2);
my $i = new_standby('i', $p, conf => "archive_mode = on\narchive_command = 'cp \"%p\" \"$archive/%f\"'\n");
my $l = new_standby('l', $i, slotless => 1, conf => "restore_command = 'cp \"$archive/%f\" \"%p\"'\n");
my $u = new_standby('u', $i, slotless => 1, unmanaged => 1, conf => "restore_command = 'cp \"$archive/%f\" \"%p\"'\n");
my $file = 'SELECT cascade_oldest_wal_file()';

sub archived
{
	return sort grep { /^[0-9A-F]{24}$/ } slurp_dir($archive);
}

# Everything that was written is in the archive.
sub wait_archived
{
	my ($node) = @_;
	my $last = value($node, 'SELECT pg_walfile_name(pg_switch_wal())');

	wait_for($node, "SELECT last_archived_wal >= '$last' FROM pg_stat_archiver", "$last is archived");
	return;
}

# The segment that a stopped node will ask for first.
sub replayed_by
{
	my ($node) = @_;

	return segment_of(value($node, 'SELECT pg_last_wal_replay_lsn()'));
}

# Removes what a node says may go; returns what is the oldest now.
sub cleanup
{
	my ($node) = @_;
	my $oldest = value($node, $file);

	$node->command_ok([ 'pg_archivecleanup', $archive, $oldest ],
		'pg_archivecleanup ' . $node->name . ": $oldest");
	return (archived())[0];
}

# ---- everybody is there ----

wait_connected($i, $l);
add_rows($p, 6);
checkpoint_all($p, $i, $l, $u);
same_rows($p, $i, $l, $u);
wait_archived($p);
wait_protected($p, $i, $l);
wait_for($p, "SELECT cascade_oldest_wal_file() = pg_walfile_name(hold_target_lsn) FROM cascade_status",
	'the root says what it holds');
my $before = (archived())[0];
cmp_ok(cleanup($p), 'gt', $before, 'files have gone');
for my $node ($i, $l)
{
	wait_for($node, 'SELECT cascade_oldest_wal_file() IS NOT NULL', $node->name . ' can say it too');
	cmp_ok(value($node, $file), 'le', value($p, $file), '... and nothing newer');
}

# ---- one is away, then two ----

my $need = replayed_by($l);
$l->stop;
remove_wal(5, $p, $i, $u);
my $need_of_u = replayed_by($u);
$u->stop;
cmp_ok($need_of_u, 'gt', $need, '(u was there longer)');
remove_wal(5, $p, $i);
wait_archived($p);
for my $node ($p, $i)
{
	cmp_ok(value($node, $file), 'le', $need, $node->name . ' thinks of l');
	cleanup($node);
	cmp_ok((archived())[0], 'le', $need, '... and what it needs is there');
}

# The servers keep nothing for them any more, the archive does.
$i->safe_psql('postgres', "SELECT cascade_release('l')");
wait_for($i, 'SELECT bool_and(NOT counted) FROM cascade_downstreams', 'neither of them counts');
wait_for($p, 'SELECT hold_target_lsn > (SELECT min(replay_lsn) FROM cascade_topology) FROM cascade_status',
	'the root does not hold for them');
remove_wal(5, $p, $i);
wait_archived($p);
ok(!-e $_->data_dir . "/pg_wal/$need", 'what l needs is gone from ' . $_->name) for ($p, $i);
cmp_ok(cleanup($p), 'le', $need, 'p thinks of l');
cmp_ok(cleanup($i), 'le', $need, 'i thinks of l');

$l->start;
same_rows($p, $l);
checkpoint_all($p, $i, $l);
wait_for($p, qq{SELECT cascade_oldest_wal_file() > '$need'}, 'l needs no more');
cmp_ok(cleanup($p), 'le', $need_of_u, 'p thinks of u');
cmp_ok(cleanup($i), 'le', $need_of_u, 'i thinks of u');
cmp_ok((archived())[0], 'gt', $need, '... and of nobody else');
$u->start;
same_rows($p, $u);
remove_wal(2, $p, $i, $l, $u);
wait_for($p, qq{SELECT cascade_oldest_wal_file() > '$need_of_u'}, 'u needs no more');

# ---- who has not called says nothing, and so does everybody else ----

$l->stop;
$i->restart;
wait_connected($i);
wait_for($p, q{SELECT state = 'down' AND replay_lsn IS NULL FROM cascade_topology WHERE node_name = 'l'},
	'nobody knows where l is');
is(value($_, "$file IS NULL"), 't', $_->name . ' does not know what is needed') for ($p, $i);
$l->start;
wait_connected($l);
wait_for($p, "$file IS NOT NULL", 'l has called');

# ---- a new timeline ----

same_rows($p, $i, $l, $u);
my $on_one = replayed_by($l);
$l->stop;
wait_for($i, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'l'}, 'i knows that l is away');
add_rows($p, 3);
same_rows($p, $i, $u);
$p->stop('immediate');
$i->promote;
wait_for($i, 'SELECT NOT pg_is_in_recovery()', 'i is promoted');
add_rows($i, 3);
wait_for($i, q{SELECT count(*) = 1 FROM cascade_topology WHERE node_name = 'i' AND role = 'primary'}, 'and says so');
wait_archived($i);
cmp_ok(value($i, $file), 'le', $on_one, 'the file is on the old timeline');
like(value($i, $file), qr/^00000001/, '... by its name');
cleanup($i);
$l->start;
same_rows($i, $l, $u);

done_testing();
