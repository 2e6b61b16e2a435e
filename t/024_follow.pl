# One command: a node goes to another upstream, and says when it streams.
#
#	p ─── i ─┬─ l1		killed under load:	p ─┬─ l1
#	         ├─ l2						   ├─ l2
#	         └─ l3 ─── m				   └─ l3 ─── m
#
# Under write load with p's WAL being removed, l1 and l2 lag while i is killed
# with kill -9.  What cascade_upstream_candidates names as rank 1 is run as it
# is, on each leaf, which knows nobody since it was started again and yet finds
# p: both stream and have every row.  l3 takes its own leaf m along.  m goes to
# its grandparent, then back below l3 and up again: nothing is missing, the
# slots that nobody uses any more are gone, the reports go where the WAL comes
# from, and the tree is right.  A snapshot of the command itself does not hold
# back the replay that the command waits for.  At p ── l1 ── l2 ── m, l2 is
# killed and m goes to l1, a standby.  A password in primary_conninfo goes along
# and shows nowhere.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# What a node says of itself, so that others can come to it.
sub advertise
{
	my (@nodes) = @_;

	for my $node (@nodes)
	{
		my $address = 'host=' . $node->host . ' port=' . $node->port;

		$node->append_conf('postgresql.conf', "cascade_relay.advertised_conninfo = '$address'");
		$node->reload;
	}
	return;
}

my $secret = 'Tr0ub4dor and three';
my $p = new_primary('p');
$p->safe_psql('postgres', "CREATE ROLE repl LOGIN REPLICATION PASSWORD '$secret'");
add_rows($p, 2);
my $i = new_standby('i', $p);
my $l1 = new_standby('l1', $i);
my $l2 = new_standby('l2', $i, conninfo => "user=repl password=''$secret''" =~ s/''/'/gr);
my $l3 = new_standby('l3', $i);
my $m = new_standby('m', $l3);

# Where p is, the nodes below learn from i.
advertise($i, $l1, $l2, $l3, $m);
wait_connected($i, $l1, $l2, $l3, $m);
for my $node ($l1, $l2, $l3, $m)
{
	wait_for($node, q{SELECT count(*) = 5 FROM cascade_topology WHERE conninfo <> ''}, $node->name . ' knows where the others are');
}
wait_protected($i, $l1, $l2, $l3, $m);
for my $node ($l1, $l2)
{
	wait_until($node->name . ' has written down where they are', sub { state_lines($node, 'address') == 5 });
}


sub candidate
{
	my ($node, $leaf, $without) = @_;

	return value($node, "SELECT command FROM cascade_upstream_candidates(without => '$without') WHERE rank = 1 AND node_name = '$leaf'");
}

sub slots_of
{
	my ($node) = @_;

	return value($node, q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE slot_name !~ '^cascade_relay_'});
}

# The walreceiver is connected there and reports go there too.
sub is_below
{
	my ($node, $upstream) = @_;
	my ($name, $to) = ($node->name, $upstream->name);

	is(value($node, "SELECT slot_name, sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'"),
		"cascade_adopted_$name|" . $upstream->port, "$name streams from $to");
	wait_for($node, "SELECT upstream_state || ' ' || upstream_name FROM cascade_status", "$name reports to $to", "connected $to");
	wait_for($p, "SELECT upstream_name FROM cascade_topology WHERE node_name = '$name' AND state = 'streaming'",
		"p draws $name below $to", $to);
	return;
}

# ---- the intermediate dies under load ----

my ($before) = map { value($_, 'SELECT count(*) FROM kept') } $p;
$l1->stop;
$l2->stop;
add_rows($p, 12);
checkpoint_all($p, $i, $l3);
checkpoint_all($p, $i, $l3);
my $writer = $p->background_psql('postgres');
$writer->query_safe('SELECT 1');
$writer->{stdin} .= "DO \$\$ BEGIN FOR n IN 1 .. 400 LOOP INSERT INTO kept SELECT count(*) + 1 FROM kept; "
  . "PERFORM pg_logical_emit_message(false, 'fill', repeat('x', 9000)); COMMIT; PERFORM pg_sleep(0.005); END LOOP; END \$\$;\n\\echo written\n";
$writer->{run}->pump_nb;
wait_for($i, 'SELECT count(*) > 20 FROM kept', 'rows arrive at i');
kill_node($i);
$l1->start;
$l2->start;

is(value($l1, q{SELECT string_agg(node_name, ' ') FROM cascade_topology}), 'l1', 'l1 knows nobody');
for my $leaf ($l1, $l2, $l3)
{
	my $name = $leaf->name;
	my $started = time;
	my $command;

	is($command = candidate($p, $name, 'i'), "SELECT public.cascade_follow('p');", "what $name has to run");
	like(value($leaf, $command), qr{^streaming from "p" with slot "cascade_adopted_$name" from 0/[0-9A-F]+00000$}, "$name follows p");
	note(sprintf('%s: %.0f ms', $name, 1000 * (time - $started)));
	is_below($leaf, $p);
}
$writer->{run}->pump_nb;
ok(wait_for($p, 'SELECT count(*) >= 400 FROM kept', 'everything is written'), 'under load');
$writer->quit;
same_rows($p, $l1, $l2, $l3, $m);
like(slots_of($p), qr/^cascade_adopted_l1 cascade_adopted_l2 cascade_adopted_l3 i$/, 'each has a slot on p');
like(value($l1, q{SELECT cascade_follow('p')}), qr/^already streaming from "p" with slot "cascade_adopted_l1"/, 'it is there');

# ---- on purpose, to the grandparent, back and up again ----

add_rows($p, 3);
is(value($m, q{SELECT string_agg(upstream_name, ' ' ORDER BY rank) FROM cascade_upstream_candidates('m') WHERE rank <= 2}),
	'l3 p', 'm may stay, or go to p');
my ($out, $err);
is($m->psql('postgres', q{SELECT cascade_follow('p')}, stdout => \$out, stderr => \$err), 0, 'm goes to its grandparent');
like($err, qr/NOTICE:  replication slot "m" stays on "l3", where it keeps WAL/, 'the slot of its own making is not touched');
is_below($m, $p);
$l3->safe_psql('postgres', q{SELECT pg_drop_replication_slot('m')});
add_rows($p, 3);
same_rows($p, $m);

value($m, q{SELECT * FROM cascade_follow('l3')});
is_below($m, $l3);
unlike(slots_of($p), qr/adopted_m/, 'nothing of m is left on p');
add_rows($p, 3);
same_rows($p, $m, $l1, $l2, $l3);

# ---- how long it takes ----

my @took;
for my $to (('p', 'l3') x 5)
{
	my $started = time;

	value($m, "SELECT cascade_follow('$to')");
	push @took, 1000 * (time - $started);
}
@took = sort { $a <=> $b } @took;
note(sprintf('from the command to streaming: median of %d %.0f ms, %.0f to %.0f ms', scalar @took, $took[ @took / 2 ], @took[ 0, -1 ]));
is_below($m, $l3);
unlike(slots_of($p), qr/adopted_m/, 'and nothing is left after ten moves');
like(slots_of($l3), qr/^cascade_adopted_m$/, 'but for the slot in use');

# ---- where something is held up by the snapshot of the command ----

# What is to be replayed conflicts with every snapshot from before it.  A delay
# keeps it back until the command holds whatever it holds.
$p->safe_psql('postgres', 'CREATE TABLE dead (n int); INSERT INTO dead SELECT generate_series(1, 1000); SELECT pg_switch_wal()');
wait_caught_up($p, $m);
$m->append_conf('postgresql.conf', "max_standby_streaming_delay = -1\nrecovery_min_apply_delay = '1h'");
$m->reload;
wait_for($m, 'SHOW recovery_min_apply_delay', 'm replays later', '1h');
my $startup = value($m, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'});
kill 'STOP', $startup;
$p->safe_psql('postgres', 'DELETE FROM dead');
$p->safe_psql('postgres', 'VACUUM dead');
my $conflicts = $p->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
write_segments($p, 2);
wait_for($m, "SELECT pg_last_wal_receive_lsn() > '$conflicts'", 'm has received what conflicts, all at once');
kill 'CONT', $startup;
wait_for($m, q{SELECT wait_event = 'RecoveryApplyDelay' FROM pg_stat_activity WHERE backend_type = 'startup'}, '... and waits before the commit in it');
my $command = IPC::Run::start([ 'psql', '-XAt', '-d', $m->connstr('postgres'), '-c', q{SELECT cascade_follow('p', timeout => '15s')} ], '>', \$out, '2>', \$err);
wait_for($m, q{SELECT setting LIKE '% port=} . $p->port . q{ %' FROM pg_file_settings WHERE name = 'primary_conninfo' ORDER BY seqno DESC LIMIT 1},
	'the command waits');
$m->append_conf('postgresql.conf', 'recovery_min_apply_delay = 0');
$m->reload;
$command->finish;
like($out, qr/^streaming from "p"/, 'no conflict with itself') or diag($err);
ok(lsn_le($m, $conflicts, value($m, 'SELECT pg_last_wal_replay_lsn()')), 'it has replayed what its snapshot would have held back');
same_rows($p, $m);

# ---- at depth four the grandparent is a standby too ----

value($l2, q{SELECT cascade_follow('l1')});
is_below($l2, $l1);
value($m, q{SELECT cascade_follow('l2')});
is_below($m, $l2);
wait_for($m, q{SELECT array_to_string(path, ' ') FROM cascade_topology WHERE is_local}, 'four in a row', 'p l1 l2 m');
wait_protected($m);
$m->stop;
add_rows($p, 6);
checkpoint_all($p, $l1, $l2);
checkpoint_all($p, $l1, $l2);
kill_node($l2);
$m->start;
is(value($l1, q{SELECT command FROM cascade_upstream_candidates('m', without => 'l2') WHERE upstream_name = 'l1' AND verdict = 'safe'}),
	q{SELECT public.cascade_follow('l1');}, 'the grandparent knows the way');
like(value($m, q{SELECT cascade_follow('l1')}), qr/^streaming from "l1"/, 'm follows its grandparent');
is_below($m, $l1);
add_rows($p, 1);
same_rows($p, $l1, $m);

# ---- the password ----

like(slurp_file($l2->data_dir . '/postgresql.auto.conf'), qr/primary_conninfo = .*password=.*\Q$secret\E/, 'l2 has kept its password');
like(slurp_file($l2->data_dir . '/postgresql.auto.conf'), qr/application_name=l2/, 'and its name');
for my $node ($p, $l1, $l2, $l3, $m)
{
	unlike(slurp_file($node->logfile), qr/Tr0ub4dor(?!.*CREATE ROLE)/, $node->name . ' does not tell it in its log')
	  unless $node == $p;
}
like(slurp_file($l2->logfile), qr/parameter "primary_conninfo" changed; its value may contain a password/, 'the server says that it has changed');

done_testing();
