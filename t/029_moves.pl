# A node that has moved lets go of what it left behind, with all that is below it.
#
#	p ─┬─ i              m comes here, and goes straight back
#	   └─ m ─── l
#
# i gets a hold for m.  m is back below p while l's worker is stopped, so that l hears
# nothing of it.  Nothing but m's move counter says that the hold is not
# needed: m raises it when it is protected below p again with all that l needs.
#
# The counter that m has told is on disk at i before it is believed to be higher:
# killed with -9, i still knows it, and a counter that is not higher releases
# nothing.  So while m is away, and a role with REPLICATION says that m is below a
# node of its own, with the counter that is known, i holds on.  With no counter at
# all it is the same.
#
# Last, i and l are rebuilt, each as another incarnation under the old name.  What p
# holds for the former i goes with the command that is printed: the former l below it
# blocks nothing, because l is live and protected.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $quick = "cascade_relay.stale_timeout = 2s\n";
my $p = new_primary('p', conf => $quick);
my $i = new_standby('i', $p, conf => $quick);
my $m = new_standby('m', $p, conf => $quick);
my $l = new_standby('l', $m, conf => $quick);

# The counter of a node as it knows it, and as another one was told it.
sub moves { my ($node) = @_; return (split ' ', (state_lines($node, 'moves'))[0])[1]; }

sub told
{
	my ($node, $child) = @_;
	my $incarnation = (split ' ', (state_lines($child, 'node'))[0])[1];
	my ($line) = grep { /^$incarnation / } state_lines($node, 'told');

	return defined $line ? (split ' ', $line)[1] : 0;
}

wait_protected($i, $m, $l);
checkpoint_all($p, $i, $m, $l);
wait_protected($i, $m, $l);

# ---- a short visit ----

my ($before, $below) = (moves($m), moves($l));
my $worker = stop_worker($l);
value($i, q{SELECT pg_create_physical_replication_slot('m', true)});
point_at($m, $i);
$m->reload;
wait_for($i, q{SELECT count(*) FROM cascade_holds WHERE name = 'm'}, 'i holds for m', '1');
point_at($m, $p);
$m->reload;
wait_for($m, q{SELECT upstream_name FROM cascade_status WHERE upstream_state = 'connected'}, 'm is back below p', 'p');
wait_for($m, q{SELECT path FROM cascade_topology WHERE is_local}, 'by its path', '{p,m}');
kill 'CONT', $worker or die "$worker: $!";
wait_protected($m);
wait_until('m has raised its counter', sub { moves($m) > $before });
wait_for($i, q{SELECT count(*) FROM cascade_holds WHERE name = 'm'}, 'i lets go of m', '0');
is(moves($l), $below, 'l has not moved, and needed not to');
is(value($i, q{SELECT count(*) FROM cascade_check WHERE node_name = 'm'}), '0', 'nothing is left to be said of m');

# ---- what was told survives ----

value($i, q{SELECT pg_drop_replication_slot('m')});
value($i, q{SELECT cascade_adopt('m')});
$m->append_conf('postgresql.conf', "primary_slot_name = 'cascade_adopted_m'");
point_at($m, $i);
$m->reload;
wait_for($m, q{SELECT upstream_name = 'i' AND protected FROM cascade_status}, 'm is protected below i');
wait_until('i has written down what m has told', sub { told($i, $m) == moves($m) });
wait_for($p, q{SELECT count(*) FROM cascade_holds WHERE name = 'm'}, 'p lets go of m', '0');
$m->stop;
my $known = told($i, $m);
my $incarnation = hex((split ' ', (state_lines($m, 'node'))[0])[1]);
kill_node($i);
start_after_kill($i);
wait_connected($i);
is(told($i, $m), $known, 'killed with -9, i knows it still');

$p->safe_psql('postgres', 'CREATE ROLE mallory REPLICATION LOGIN');
my $system = value($p, 'SELECT system_identifier FROM pg_control_system()');
my $session = $p->background_psql('postgres', extra_params => [ '-U', 'mallory' ]);
is(decode_reply($session->query_safe('SELECT public.' . report_sql(
				encode_hello(node_name => 'h', incarnation => 0xbad, start_id => 666, system_identifier => $system, report_interval_ms => 60000))))->{answer},
	'ok', 'a node of mallory says hello');
for my $claim (undef, $known)
{
	my $row = encode_row(name => 'm', incarnation => $incarnation, managed => 1, state => 2, protected => 2,
		replay_lsn => 'ff/0', upstream_name => 'h', upstream_incarnation => 0xbad, moves => $claim);
	my $message = unpack('H*', encode_report(of => 0xbad, report_interval_ms => 60000, pinned_by => 'h', tree => [$row]));
	my $what = defined $claim ? "the counter that is known" : "no counter";

	# that again and again, for longer than stale_timeout
	$session->query_safe("DO \$\$ BEGIN FOR n IN 1 .. 30 LOOP PERFORM public.cascade_report('\\x$message'), pg_sleep(0.1); END LOOP; END \$\$");
	is(value($i, q{SELECT upstream_name FROM cascade_topology WHERE node_name = 'm'}), 'h', "with $what: i draws m below h");
	is(value($i, q{SELECT counted FROM cascade_holds WHERE name = 'm'}), 't', 'and holds for it all the same');
	like(value($i, q{SELECT message FROM cascade_check WHERE code = 'orphan_slot' AND node_name = 'm' AND message ~ 'cascade_relay_m'}) . 'none',
		qr/its node is seen below "h", and its move is not confirmed|^none$/, 'and says what it is about');
}
$session->quit;
$m->start;
wait_connected($m, $l);
wait_protected($m, $l);

# ---- rebuilt, and former lives below ----

point_at($l, $p);
value($p, q{SELECT pg_create_physical_replication_slot('l', true)});
$l->reload;
wait_protected($l);
my $i2 = $i;
point_at($m, $p);
value($p, q{SELECT cascade_adopt('m')});
$m->reload;
wait_for($m, q{SELECT upstream_name = 'p' AND protected FROM cascade_status}, 'm is below p');
value($i, q{SELECT pg_create_physical_replication_slot('l', true)});
point_at($l, $i);
$l->reload;
wait_for($l, q{SELECT upstream_name = 'i' AND protected FROM cascade_status}, 'l is below i');
wait_for($p, q{SELECT upstream_name FROM cascade_topology WHERE node_name = 'l'}, 'as p knows', 'i');
my $former = value($p, q{SELECT slot_name FROM cascade_holds WHERE name = 'i'});
$_->stop for $l, $i;
$i = new_standby('i2', $p, conf => "${quick}cascade_relay.node_name = 'i'\n");
$l = new_standby('l2', $i, conf => "${quick}cascade_relay.node_name = 'l'\n");
wait_protected($i, $l);
wait_for($p, q{SELECT count(*) FROM cascade_topology WHERE node_name = 'l' AND protected AND state = 'streaming'}, 'p knows the new l', '1');
value($p, "SELECT cascade_forget('$former')");
is(value($p, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$former'"), '0', 'the former life of i is forgotten, though l was below it');

done_testing();
