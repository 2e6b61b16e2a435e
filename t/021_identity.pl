# A node is its name and its incarnation, and both are kept in its state file.
#
#	p ─┬─ i ─── l        l has no slot, and lags
#	   ├─ d              has no cascade_relay.node_name
#	   └─ (c)            a copy of l's folder, with a name of its own
#
# d goes by its host name and port.  When its port changes it goes on under the
# name that it had, and says so: a host name that is another one at each start, as
# in a container, must not cost a hold.
#
# l stops.  Its folder is copied, and the copy is started under another name.  The
# copy is another node: i does not drop what it holds for l, and l finds all its WAL.
#
# i is given another name, while l lags again.  That is another node too.  What p
# holds for the former one stays where it is, because p cannot know whether i was
# renamed or its volume was cloned; i lists it with the command.  i dies, and l
# comes back from what p still holds for i's former life.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $quick = "cascade_relay.stale_timeout = 2s\n";
my $p = new_primary('p', conf => $quick);
my $i = new_standby('i', $p, conf => $quick);
my $l = new_standby('l', $i, slotless => 1, conf => $quick);
my $d = new_standby('d', $p, conf => "cascade_relay.node_name = ''\n");

wait_protected($i, $l, $d);

# ---- a default name ----

my $port = $d->port;
my $name = value($d, 'SELECT node_name FROM cascade_status');
my $life = incarnation($d);
like($name, qr/^[a-z0-9_]{1,40}$/, 'a default name is a node name');
like($name, qr/_$port$/, 'and ends with the port');
is(value($d, 'SHOW cascade_relay.node_name'), $name, 'it is what the setting shows');
is_deeply([ state_lines($d, 'node') ], ["$name $life"], 'and is in the state file');
is(value($d, q{SELECT count(*) FROM cascade_check WHERE code = 'kept_name'}), '0', 'there is nothing to say of it');

$d->stop;
$d->{_port} = PostgreSQL::Test::Cluster::get_free_port();
$d->append_conf('postgresql.conf', 'port = ' . $d->port);
$d->start;
wait_connected($d);
is(value($d, 'SELECT node_name FROM cascade_status'), $name, 'under another port it goes by the name that it had');
is(incarnation($d), $life, 'and is who it was');
like(value($d, q{SELECT severity, message FROM cascade_check WHERE code = 'kept_name'}),
	qr/^ok\|this node goes on as "$name"; by its host name and port it would be "\w+_${\ $d->port}"$/, 'it says so');
wait_for($p, qq{SELECT count(*) = 1 AND bool_and(reason = 'managed, by its last report') FROM cascade_holds WHERE name = '$name'}, 'p holds for it as before');

# ---- a copy under its own name ----

checkpoint_all($p, $i, $l);
add_rows($p, 2);
wait_caught_up($p, $i, $l);
my $held = value($i, q{SELECT slot_name FROM cascade_holds WHERE name = 'l'});
$l->stop;
add_rows($p, 5);
remove_wal(2, $p, $i);
my $c = PostgreSQL::Test::Cluster->new('c');
system_or_bail('cp', '-a', $l->data_dir, $c->data_dir);
$c->append_conf('postgresql.conf', 'port = ' . $c->port . "\ncascade_relay.node_name = 'c'");
$c->start;
wait_connected($c);
my ($copied) = map { (split ' ')[1] } grep { /^c / } state_lines($c, 'node');
isnt($copied, (split ' ', (state_lines($l, 'node'))[0])[1], 'the copy is another incarnation');
wait_protected($c);
add_rows($p, 3);
remove_wal(2, $p, $i, $c);
is(value($i, qq{SELECT count(*) FROM cascade_holds WHERE slot_name = '$held' AND counted}), '1', 'i goes on holding for l');
is(value($c, q{SELECT count(*) FROM cascade_check WHERE code = 'former_life'}), '1', 'the copy lists what l has left, which it takes for its own');
$c->stop;
$l->start;
same_rows($p, $l);
value($i, q{SELECT cascade_forget('c')});

# ---- another name ----

wait_protected($i, $l);
checkpoint_all($p, $i, $l);
$l->stop;
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'l'}, 'l is away', 'down');
add_rows($p, 5);
remove_wal(2, $p, $i);
wait_for($p, q{SELECT pinned_by = 'l' FROM cascade_status}, 'l pins p');
my $former = value($p, q{SELECT slot_name FROM cascade_holds WHERE name = 'i'});
my $need = hold_lsn($p, 'i');
my $before = incarnation($i);
ok(has_segment($p, $need), 'p has what l needs');

my $log = -s $i->logfile;
$i->append_conf('postgresql.conf', "cascade_relay.node_name = 'j'");
$i->reload;
ok($i->wait_for_log(qr/parameter "cascade_relay.node_name" cannot be changed without restarting the server/, $log), 'a reload says that it takes a restart');
is(value($i, 'SELECT node_name, incarnation FROM cascade_status'), "i|$before", 'and changes nothing');
$i->restart;
wait_connected($i);
is(value($i, 'SELECT node_name FROM cascade_status'), 'j', 'i is j now');
isnt(incarnation($i), $before, 'and another node');
is_deeply([ state_lines($i, 'node') ], [ 'j ' . incarnation($i), "i $before" ], 'that remembers who it was');
remove_wal(3, $p, $i);
is(hold_lsn($p, 'i'), $need, 'what p holds for the former life stays');
like(value($i, q{SELECT severity, message, hint FROM cascade_check WHERE code = 'former_life'}),
	qr/^warning\|this node was called "i" before, and node "p" goes on holding WAL for that\|.* on node "p": SELECT public\.cascade_forget\('$former', true\);$/,
	'j lists it, with the command');

kill_node($i);
remove_wal(2, $p);
ok(has_segment($p, $need), 'p has what l needs still');
reattach($p, 'i', $l);

# ---- and the command ----

start_after_kill($i);
wait_protected($i, $l);
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'j'}, 'p knows j', 'streaming');
wait_for($i, q{SELECT count(*) FROM cascade_holds WHERE name = 'l'}, 'j lets go of l, which has moved', '0');
value($p, "SELECT cascade_forget('$former', true)");
is(value($p, q{SELECT string_agg(name, ' ' ORDER BY name) FROM cascade_holds WHERE name IN ('i', 'j')}), 'j', 'the command lets go of the former life');
wait_for($i, q{SELECT count(*) FROM cascade_check WHERE code = 'former_life'}, 'and there is nothing more to say', '0');

done_testing();
