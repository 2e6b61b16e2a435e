# A server runs out of something: it says what to raise, what is held stays
# held, and as soon as there is room again everything is as it was.
#
#	p ─┬─ i ── l
#	   └─ r1 … r12		pg_receivewal: light nodes without cascade_relay
#
# p has room for eight other nodes, and gets fourteen: they share the room, and
# nobody takes that of i and l; when they leave, all is shown again.  Then p
# has no connection left for i, which streams on; then no room for its worker;
# then settings that make no sense.  Each time WAL is written and removed: p
# keeps what i's branch needs.  (How replication slots run out is in
# 010_bad_input.pl and 014_check.pl.)
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %more = (
	conf => qq{
cascade_relay.stale_timeout = 1s
cascade_relay.max_nodes = 8
max_connections = 10
max_wal_senders = 20
max_replication_slots = 20
});
my $p = new_primary('p', %more);
$p->safe_psql('postgres', 'CREATE ROLE repl LOGIN REPLICATION; CREATE ROLE app LOGIN');
my $i = new_standby('i', $p, %more, conninfo => 'user=repl');
my $l = new_standby('l', $i, %more);
wait_connected($i, $l);
add_rows($p, 1);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);

# From now on l needs WAL that nobody else does.
my $need;

sub l_falls_behind
{
	wait_caught_up($p, $l);
	checkpoint_all($p, $i, $l);
	value($l, 'SELECT pg_wal_replay_pause()');
	add_rows($p, 2);
	wait_for($p, q{SELECT pinned_by = 'l' FROM cascade_status}, 'l pins p');
	$need = value($l, 'SELECT pg_last_wal_replay_lsn()');
	return;
}

sub still_held
{
	my ($what) = @_;

	remove_wal(3, $p);
	ok(lsn_le($p, hold_lsn($p, 'i'), $need), "$what: the hold of i stands where l needs it");
	ok(has_segment($p, $need), "$what: its WAL is there");
	return;
}

sub l_goes_on
{
	my ($what) = @_;

	wait_for($_, q{SELECT upstream_state = 'connected' AND protected FROM cascade_status}, "$what: " . $_->name . ' is protected')
	  for ($i, $l);
	value($l, 'SELECT pg_wal_replay_resume()');
	same_rows($p, $i, $l);
	checkpoint_all($p, $i, $l);
	wait_for($p, "SELECT restart_lsn > '$need' FROM cascade_holds WHERE name = 'i'", "$what: the hold of i moves on");
	return;
}

sub gone
{
	my ($code, @nodes) = @_;

	wait_for($_, "SELECT count(*) = 0 FROM cascade_check WHERE code = '$code'", $_->name . " does not say $code any more") for @nodes;
	return;
}

# ---- no room for nodes ----

my $log = -s $p->logfile;
l_falls_behind();
my $dir = PostgreSQL::Test::Utils::tempdir();
my @receivers;
for my $n (1 .. 12)
{
	mkdir "$dir/r$n";
	value($p, "SELECT pg_create_physical_replication_slot('r$n', true)");
	push @receivers,
	  IPC::Run::start([ 'pg_receivewal', '-D', "$dir/r$n", '-S', "r$n", '-d', $p->connstr('postgres') ], '>&', \my $out);
}
wait_for($p, q{SELECT count(*) = 12 FROM pg_replication_slots WHERE slot_name LIKE 'r%' AND active}, 'twelve stream from p');
wait_for($p, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'registry_full' AND node_name = 'p' AND severity = 'warning' AND hint ~ 'max_nodes'},
	'p says that it has no room for them');
wait_for($i, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'registry_full' AND node_name = 'p'}, 'i knows');
ok($p->wait_for_log(qr/more nodes than "cascade_relay\.max_nodes" \(8\).*\n.*HINT.*Raise "cascade_relay\.max_nodes" and restart/, $log),
	'the log says what to raise');
my $shown = q{SELECT count(*) FILTER (WHERE node_name IN ('p', 'i', 'l')), count(*) FILTER (WHERE node_name LIKE 'r%') FROM cascade_topology};
like(value($p, $shown), qr/^3\|[567]$/, 'p shows i and l, and as many others as there is room for');
is(value($i, q{SELECT count(*) FROM cascade_topology WHERE node_name IN ('p', 'i', 'l')}), '3', 'so does i');
is(value($p, q{SELECT count(*) FROM cascade_downstreams WHERE counted AND name LIKE 'r%'}), '12', 'all of them count');
still_held('a full registry');
for my $n (1 .. 12)
{
	$receivers[ $n - 1 ]->kill_kill;
	wait_for($p, "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'r$n'", "r$n leaves");
	value($p, "SELECT pg_drop_replication_slot('r$n')");
}
wait_for($p, $shown, 'they are forgotten', '3|0');
gone('registry_full', $p, $i);
l_goes_on('a full registry');

# ---- no connection ----

l_falls_behind();
$log = -s $i->logfile;
$i->append_conf('postgresql.conf', 'cascade_relay.enabled = off');
$i->reload;
wait_for($p, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'cascade_relay' AND usename = 'repl'}, 'i has left');
my @sessions;
for (1 .. 7)
{
	push @sessions, $p->background_psql('postgres', extra_params => [ '-U', 'app' ]);
}
my ($code, undef, $error) = $p->psql('postgres', 'SELECT 1', extra_params => [ '-U', 'app' ]);
isnt($code, 0, 'p has no ordinary connection left');
$i->append_conf('postgresql.conf', 'cascade_relay.enabled = on');
$i->reload;
wait_for($i, q{SELECT upstream_state <> 'connected' AND last_error ~ 'remaining connection slots are reserved.* HINT: Raise max_connections on the upstream' FROM cascade_status},
	'i is told so, and what to raise');
my $failed = value($i, 'SELECT reports_failed FROM cascade_status');
wait_for($i, "SELECT reports_failed >= $failed + 3 FROM cascade_status", 'it tries again and again');
is(value($i, q{SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'}), '1', 'and streams all the time');
still_held('no connection');
wait_for($i, q{SELECT count(*) = 1 FROM cascade_check WHERE code IN ('upstream_silent', 'upstream_refused') AND severity = 'critical' AND node_name = 'i'}, 'i says so');
$_->quit for @sessions;
l_goes_on('no connection');
is((() = slurp_file($i->logfile, $log) =~ /cannot report to the upstream|refused to take reports/g), 1, 'with one line in its log');
gone('upstream_silent', $i, $l);
gone('upstream_refused', $i, $l);

# ---- no worker ----

l_falls_behind();
$log = -s $p->logfile;
$p->append_conf('postgresql.conf', 'max_worker_processes = 0');
$p->restart;
is(value($p, q{SELECT severity, code, hint ~ 'max_worker_processes' FROM cascade_check}), 'critical|no_free_worker|t', 'p has no room for its worker');
like(slurp_file($p->logfile, $log), qr/too many background workers/, 'which the server itself says in its log');
wait_for($i, q{SELECT upstream_state = 'waiting' AND last_error ~ 'its worker is not running yet.* HINT:' FROM cascade_status}, 'i is told');
still_held('no worker');
$p->append_conf('postgresql.conf', 'max_worker_processes = 8');
$p->restart;
l_goes_on('no worker');
gone('no_free_worker', $p);

# ---- settings that make no sense ----

l_falls_behind();
$log = -s $p->logfile;
$p->stop;
$p->append_conf('postgresql.conf', 'cascade_relay.max_nodes = 65001');
$p->start;
is(value($p, 'SHOW cascade_relay.max_nodes'), '1024', 'a max_nodes out of range is not taken');
like(slurp_file($p->logfile, $log), qr/65001 is outside the valid range for parameter "cascade_relay\.max_nodes" \(8 \.\. 65000\)/, 'and why');
$p->append_conf('postgresql.conf', 'cascade_relay.max_nodes = 65000');
$p->restart;
like(slurp_file($p->logfile, $log), qr/"cascade_relay\.max_nodes" \(65000\) takes \d+ MB of shared memory/, 'with the largest one it does, and says what that takes');
still_held('much shared memory');
wait_for($p, $shown, 'the tree is there', '3|0');
l_goes_on('much shared memory');

# and where that is not to be had, as there are no huge pages here
l_falls_behind();
$p->stop;
$log = -s $p->logfile;
$p->append_conf('postgresql.conf', 'huge_pages = on');
is($p->start(fail_ok => 1), 0, 'p does not start');
like(slurp_file($p->logfile, $log),
	qr/"cascade_relay\.max_nodes" \(65000\) takes \d+ MB of shared memory\n.*HINT:  Lower it if .*\n(?:.*\n)*.*FATAL:  could not map anonymous shared memory/,
	'it has said what to lower');
$p->append_conf('postgresql.conf', "huge_pages = off\ncascade_relay.max_nodes = 1024");
$p->start;
still_held('no shared memory');
wait_for($p, $shown, 'the tree is there', '3|0');
l_goes_on('no shared memory');

done_testing();
