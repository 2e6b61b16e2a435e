# A node that streams from the same upstream through another slot than before.
#
#	p ─── n      first through slot n, then through the one that cascade_adopt
#	             makes for it
#
# A leaf that has been away, or whose upstream has come back, is re-attached to a
# node where its former slot still is.  That slot is not used any more.  It keeps
# WAL, and the whole tree's frontier stands still for it: cascade_check has to
# say so, with the command, whether p knows whose it was from a report or from
# before a restart.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $orphan = q{FROM cascade_check WHERE code = 'orphan_slot' AND node_name = 'n'
	AND hint LIKE '%SELECT pg_drop_replication_slot(''n'');%'};

my $p = new_primary('p', conf => 'cascade_relay.stale_timeout = 2s');
my $n = new_standby('n', $p);

wait_protected($n);
is(value($p, "SELECT count(*) $orphan"), '0', 'the slot that n streams through is nothing to speak of');

value($p, "SELECT cascade_adopt('n')");
$n->append_conf('postgresql.conf', "primary_slot_name = 'cascade_adopted_n'");
$n->reload;
wait_for($p, q{SELECT string_agg(slot_name, ' ') FROM pg_replication_slots WHERE active},
	'n streams through its new slot', 'cascade_adopted_n');
add_rows($p, 3);
same_rows($p, $n);

wait_for($p, "SELECT count(*) = 1 $orphan", 'the former slot is named, with the command');
is(value($p, "SELECT message LIKE '%its node streams without it%' $orphan"), 't', 'and with the reason');

$p->restart;
wait_connected($n);
wait_for($p, "SELECT count(*) = 1 $orphan", 'it is still named after a restart');

my $lsn = value($p, 'SELECT pg_current_wal_flush_lsn()');
value($p, "SELECT pg_drop_replication_slot('n')");
wait_for($p, "SELECT frontier_lsn >= '$lsn' FROM cascade_status", 'without it the frontier goes on');
wait_for($p, "SELECT count(*) = 0 $orphan", 'and there is nothing to be said');

$n->stop;
$p->stop;
done_testing();
