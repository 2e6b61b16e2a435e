# A node that was released while it is at work.
#
#	p ── i ─┬─ c
#	        └─ d
#
# c and d replay nothing for a while, and go on reporting.  Somebody lets go of
# what c needs.  From then on it does not count until it has caught up, so it is
# not protected, and says so, although d keeps the same WAL on i and on p: with
# d's first step that would go.  The hold of c stays where the release has moved
# it, whatever c reports.  d goes on, and WAL is removed; c catches up from its
# own slot, counts again, and is protected.  Then it stops, i is killed, and c
# finds every row on p.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p');
my $i = new_standby('i', $p);
my $c = new_standby('c', $i);
my $d = new_standby('d', $i);

sub verdict
{
	my ($slot) = @_;

	return "SELECT counted, reason FROM cascade_downstreams WHERE slot_name = '$slot'";
}

add_rows($p, 2);
wait_protected($i, $c, $d);
for my $node ($c, $d)
{
	value($node, 'SELECT pg_wal_replay_pause()');
	wait_for($node, 'SELECT pg_get_wal_replay_pause_state()', $node->name . ' does not replay', 'paused');
}
remove_wal(5, $p, $i);
checkpoint_all($p, $i);
wait_protected($c, $d);
my $hold = 'cascade_relay_c_' . incarnation($c);
my $need = value($c, 'SELECT pg_last_wal_replay_lsn()');
ok(has_segment($p, $need) && has_segment($i, $need), 'all is kept that they need');

my $released = value($i, q{SELECT cascade_release('c')});
wait_for($i, verdict($hold), 'c does not count', 'f|released');
wait_for($c, 'SELECT NOT protected FROM cascade_status', 'c is not protected, and knows it');
my $reports = value($c, 'SELECT reports_sent FROM cascade_status');
wait_for($c, "SELECT reports_sent > $reports + 5 FROM cascade_status", 'c reports');
is(hold_lsn($i, 'c'), $released, 'its hold stays where the release has moved it');
is(value($i, verdict($hold)), 'f|released', 'it does not count');
is(value($c, 'SELECT protected FROM cascade_status'), 'f', 'and is not protected still');
like(value($c, q{SELECT message FROM cascade_check WHERE code = 'unprotected' AND node_name = 'c'}), qr/a later LSN/, 'for its upstream holds from a later LSN on');
is(value($d, 'SELECT protected FROM cascade_status'), 't', 'd is');

value($d, 'SELECT pg_wal_replay_resume()');
wait_caught_up($p, $d);
checkpoint_all($p, $i, $d);
wait_for($p, "SELECT div(restart_lsn - '0/0', 1048576) > div('$need'::pg_lsn - '0/0', 1048576) FROM cascade_holds WHERE name = 'i'", 'p hears of it');
remove_wal(3, $p, $i, $d);
ok(!has_segment($p, $need), 'p removes what only c needed');

value($c, 'SELECT pg_wal_replay_resume()');
wait_caught_up($p, $c);
wait_for($i, verdict($hold), 'c counts again', 't|managed, by its last report');
checkpoint_all($p, $i, $c, $d);
wait_protected($c, $d);

$c->stop;
add_rows($p, 5);
wait_caught_up($p, $i, $d);
remove_wal(4, $p, $i, $d);
kill_node($i);
reattach($p, 'i', $c);

done_testing();
