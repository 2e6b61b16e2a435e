# Standbys that do not stream, or stand still, and are well.
#
#	p (primary) -- i (restores from the archive, and reports to p)
#	            |- d (an hour late on purpose)
#	            |- s (its replay is paused)
#	            `- l (streams)
#
# None of them may be called disconnected.  i gets nothing as long as p writes
# less than a segment; then it waits for a query that is in the way of replay, and
# for a restore_command that takes its time, while p goes on for several segments.
# d and s do not replay what they get.  p is restarted, and is away for a moment.
#
# What they do on purpose, or what holds them up, is told of where it costs
# something: that the replay of s is paused, and that d is late, is a column and a
# finding on p as well as on the node, in place of pinned_long and vacuum_held_back.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::Bin;

use PostgreSQL::Test::Utils;
use Test::More;

use CascadeRelay;

my $archive = PostgreSQL::Test::Utils::tempdir;
my $slow = "$archive/slow";
my $quick = "cascade_relay.stale_timeout = 1s\n";
my $p = new_primary('p', conf => $quick . qq{
archive_mode = on
archive_command = 'cp "%p" "$archive/%f"'
});
my $i = new_standby('i', $p, no_start => 1, slotless => 1, conf => $quick);
$i->append_conf('postgresql.conf', qq{
cascade_relay.upstream_conninfo = '} . $p->connstr . qq{'
primary_conninfo = ''
restore_command = 'while test -f "$slow"; do sleep 0.1; done; cp "$archive/%f" "%p"'
max_standby_archive_delay = -1
hot_standby_feedback = off
});
$i->start;
my $l = new_standby('l', $p, conf => $quick);
my @all = ($p, $i, $l);

sub nobody_is_cut
{
	my ($seconds, $when) = @_;

	for my $node (@all)
	{
		stays($node, $seconds, q{SELECT count(*) FROM cascade_check WHERE code = 'not_streaming'}, '0',
			$node->name . " says of no node that nothing feeds it $when");
		is(value($node, q{SELECT count(*) FROM cascade_topology WHERE state = 'disconnected'}), '0', 'nor shows it');
		$seconds = 0;
	}
	return;
}

add_rows($p, 3);
wait_caught_up($p, $l);
wait_for($i, 'SELECT count(*) = 3 FROM kept', 'i restores from the archive');
wait_connected($i, $l);

# ---- an archive that has no new file ----

$p->safe_psql('postgres', q{SELECT pg_logical_emit_message(false, 'x', 'less than a segment')});
nobody_is_cut(2, 'while there is no new file');
is(tree_state($_, 'i'), 'archive', $_->name . ' shows that i restores from the archive') for $p, $i;

# ---- a query in the way ----

my $reader = $i->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM kept');
$p->safe_psql('postgres', 'DELETE FROM kept WHERE n = 1; VACUUM kept; INSERT INTO kept VALUES (1)');
add_rows($p, 4);
wait_for($i, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event LIKE 'RecoveryConflict%'},
	'replay waits for a query');
nobody_is_cut(2, 'while replay waits for a query');
$reader->query_safe('COMMIT');
$reader->quit;
wait_for($i, 'SELECT count(*) = 7 FROM kept', 'i goes on');

# ---- a slow archive ----

append_to_file($slow, '');
add_rows($p, 4);
nobody_is_cut(2, 'while restore_command takes its time');
unlink $slow or die "$slow: $!";
wait_for($i, 'SELECT count(*) = 11 FROM kept', 'i goes on from the archive');

# ---- the primary is away, and comes back ----

$p->restart;
nobody_is_cut(2, 'after a restart of p');
$l->restart;
nobody_is_cut(2, 'after a restart of l');

# ---- late on purpose, and paused ----

my $d = new_standby('d', $p, conf => $quick . "recovery_min_apply_delay = '1h'\nhot_standby_feedback = on\n");
my $s = new_standby('s', $p, conf => $quick . "hot_standby_feedback = on\n");
push @all, $d, $s;
wait_connected($d, $s);
wait_caught_up($p, $s);
$s->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
add_rows($p, 6);
wait_for($_, q{SELECT string_agg(node_name || ' ' || replay_paused, ', ' ORDER BY node_name) FROM cascade_topology WHERE role = 'standby'},
	$_->name . ' shows whose replay is paused', 'd false, i false, l false, s true')
  for $p, $s, $d;
wait_for($_, q{SELECT string_agg(node_name || ' ' || apply_delay, ', ' ORDER BY node_name) FROM cascade_topology WHERE role = 'standby'},
	$_->name . ' shows who is late on purpose', 'd 01:00:00, i 00:00:00, l 00:00:00, s 00:00:00')
  for $p, $s, $d;
is(value($p, 'SELECT replay_paused IS NULL AND apply_delay IS NULL FROM cascade_topology WHERE is_local'), 't', 'of a primary neither is known');

# longer than what is called long, ten times stale_timeout
nobody_is_cut(11, 'though two of them do not replay');
for my $node ($p, $s, $d)
{
	my $name = $node->name;

	is(value($node, q{SELECT severity || ' ' || node_name FROM cascade_check WHERE code = 'replay_paused'}), 'warning s',
		"$name says whose replay is paused");
	is(value($node, q{SELECT severity || ' ' || node_name FROM cascade_check WHERE code = 'delayed_standby'}), 'ok d',
		"$name says who is late on purpose");
	is(value($node, q{SELECT count(*) FROM cascade_check WHERE code IN ('pinned_long', 'vacuum_held_back')}), '0',
		'and nothing of what follows from it')
	  or diag value($node, 'SELECT * FROM cascade_check') . value($node, 'SELECT * FROM cascade_tree()');
	is(value($node, q{SELECT COALESCE(max(level), 0) FROM cascade_check WHERE node_name = 'd'}), '0', 'a delay on purpose is no warning');
}
like(value($p, q{SELECT message FROM cascade_check WHERE code IN ('replay_paused', 'delayed_standby') AND message ~ 'keeps'}),
	qr/; this node keeps \d+ \w+ of WAL for it/, 'p says what it keeps for the one that needs most');
my $hint = value($s, q{SELECT hint FROM cascade_check WHERE code = 'replay_paused'});
ok($hint =~ /^On node "s": (SELECT pg_catalog\.pg_wal_replay_resume\(\);)$/, "the finding has a command: $hint");
$s->safe_psql('postgres', $1);
wait_for($p, q{SELECT count(*) FROM cascade_check WHERE code = 'replay_paused'}, 'which works', '0');

# ---- paused because a setting is too low ----

$p->append_conf('postgresql.conf', 'max_worker_processes = 20');
$p->restart;
for my $node ($p, $s)
{
	wait_for($node, q{SELECT message ~ 'because a setting is lower there than on the primary' AND hint !~ 'pg_wal_replay_resume' FROM cascade_check WHERE code = 'replay_paused' AND node_name = 's'},
		$node->name . ' says why the replay of s is paused, and not to resume it');
}
$s->append_conf('postgresql.conf', 'max_worker_processes = 20');
$s->restart;
wait_caught_up($p, $s);
wait_for($p, q{SELECT count(*) FROM cascade_check WHERE code = 'replay_paused' AND node_name = 's'}, 'with what p has it goes on', '0');

done_testing();
