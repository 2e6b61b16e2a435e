# A hold that stands where no WAL is protects nobody, and says so.
#
#	p ── i ── l
#
# l stops, and p holds for it.  Somebody who needs room deletes, while p is down,
# the oldest file of its pg_wal: the very one at the hold.  The slot is where it
# was, so only the look at the file tells: i is not protected, and says why.  i has
# the file still, so l catches up there; the hold follows, and what it holds is there
# again.  The proof is as ever: l stops, WAL is removed, i is killed, and l has every
# row from p.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p');
my $i = new_standby('i', $p);
my $l = new_standby('l', $i);

add_rows($p, 2);
wait_protected($i, $l);
$l->stop;
remove_wal(5, $p, $i);
my $need = hold_lsn($p, 'i');
is(oldest_wal($p), segment_of($need), 'p keeps WAL from the hold on, and no more');
wait_for($i, q{SELECT upstream_held_lsn FROM cascade_status}, 'and i knows', $need);
is(value($i, 'SELECT protected FROM cascade_status'), 't', 'i is protected');

$p->stop;
unlink $p->data_dir . '/pg_wal/' . segment_of($need) or die $!;
my $log = -s $i->logfile;
$p->start;

wait_for($i, 'SELECT NOT protected AND upstream_held_lsn IS NULL FROM cascade_status', 'i is not protected any more')
  or diag(value($i, 'SELECT * FROM cascade_status'));
is(hold_lsn($p, 'i'), $need, 'although its hold is where it was');
wait_for($i, q{SELECT message FROM cascade_check WHERE code = 'unprotected' AND node_name = 'i'}, 'i says why',
	'this node is not protected: of its upstream, the WAL that this node needs is not there');
wait_for($p, q{SELECT protected FROM cascade_topology WHERE node_name = 'i'}, 'p shows it', 'f');

# i has what l needs; after that the hold stands where there is WAL
$l->start;
same_rows($p, $i, $l);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
wait_for($i, 'SELECT upstream_held_lsn IS NOT NULL FROM cascade_status', 'i is told again what is held');
ok(has_segment($p, hold_lsn($p, 'i')), 'which is there');

# ---- the proof ----

$l->stop;
add_rows($p, 5);
wait_caught_up($p, $i);
remove_wal(5, $p, $i);
kill_node($i);
reattach($p, 'i', $l);

done_testing();
