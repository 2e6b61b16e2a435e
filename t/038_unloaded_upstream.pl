# A primary that cannot be restarted yet protects its cascade all the same.
#
#	p ─┬─ i ── l
#	   └─ u ── m     p and u have the extension, but do not preload it
#
# p runs as it did for years; CREATE EXTENSION is all that happens to it.  That
# is not enough: nothing there would bound what a hold keeps, so i is refused,
# and says what to set.  With max_slot_wal_keep_size, a reload, p places and
# moves i's hold, is the root of its path, and says what it cannot do.  It does
# so through a crash.  Two that claim to be one node are kept apart, and the
# same worker takes over from its own earlier session.
#
# u is a standby that does the same for m: it holds WAL, but knows no root.
#
# l stops, WAL is removed, i is killed: l attaches to p and has every row, and
# from then on is held there itself.  p stops smartly though l reports to it, is
# started with the library preloaded at last, and everything goes over by itself.
# Without it again, the server gives up a hold that has grown too large, and
# that is told.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p', unmanaged => 1, conf => "cascade_relay.node_name = 'p'\ncascade_relay.max_nodes = 100\ncascade_relay.min_free_percent = 0\n");
my $u = new_standby('u', $p, unmanaged => 1,
	conf => "cascade_relay.node_name = 'u'\nmax_slot_wal_keep_size = 1GB\ncascade_relay.min_free_percent = 0\n");
add_rows($p, 2);
my $i = new_standby('i', $p);
my $l = new_standby('l', $i);
my $m = new_standby('m', $u);
my $started = value($p, 'SELECT pg_postmaster_start_time()');

sub found
{
	my ($node, $severity, $code, $about, $hint) = @_;
	my $name = $node->name;
	wait_for($node,
		"SELECT count(*) = 1 FROM cascade_check WHERE severity = '$severity' AND code = '$code' AND node_name = '$about' AND hint ~ '$hint'",
		"$name says $code of $about")
	  or diag(value($node, 'SELECT * FROM cascade_check'));
	return;
}

sub gone
{
	my ($node, $code) = @_;
	wait_for($node, "SELECT count(*) = 0 FROM cascade_check WHERE code = '$code'",
		$node->name . " does not say $code any more");
	return;
}

sub own_files
{
	my ($node) = @_;
	return join ' ', grep { /^cascade_relay\./ } slurp_dir($node->data_dir . '/pg_replslot');
}

# ---- CREATE EXTENSION alone ----

wait_for($i, q{SELECT upstream_state = 'refused' AND last_error ~ 'does not preload cascade_relay, and nothing there bounds .* HINT: Set max_slot_wal_keep_size there and reload' FROM cascade_status},
	'without a bound i is refused, and says why');
found($i, 'critical', 'extension_missing', 'i', 'max_slot_wal_keep_size');
is(holds($p), '', 'p holds nothing');
is(own_files($p), '', 'and has nothing of ours but the extension');
is(value($i, 'SELECT protected IS NULL, upstream_held_lsn IS NULL FROM cascade_status'), 't|t', 'nothing is called protected');

# ---- and a bound ----

$p->append_conf('postgresql.conf', 'max_slot_wal_keep_size = 1GB');
$p->reload;
wait_connected($i, $l);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
is(value($p, 'SELECT pg_postmaster_start_time()'), $started, 'p was not restarted');
like(holds($p), qr/^cascade_relay_i_[0-9a-f]{8}\|[0-9A-F\/]+$/, 'it holds for i');
is(own_files($p), 'cascade_relay.state', 'and knows who it is');
is(value($i, q{SELECT upstream_name, last_error IS NOT NULL, role FROM cascade_status}), 'p|t|standby', 'i knows it by its name');
wait_for($l, q{SELECT array_agg(path::text) = '{"{p}","{p,i}","{p,i,l}"}' AND bool_and(protected) AND bool_and(state IN ('running', 'streaming')) FROM cascade_topology},
	'l has the path from p, and all on it are protected');
is(value($l, q{SELECT role, managed, warnings, version IS NOT NULL, replay_lag_bytes IS NOT NULL FROM cascade_topology WHERE node_name = 'p'}),
	'primary|t|{not_preloaded}|t|t', 'p is the root, and says what it lacks');
found($_, 'warning', 'not_preloaded', 'p', 'shared_preload_libraries') for ($i, $l);
gone($i, 'extension_missing');
like(value($l, q{SELECT string_agg(t, E'\n') FROM cascade_tree() t}), qr/^p .*!not_preloaded/, 'the drawing too');
my (undef, undef, $stderr) = $p->psql('postgres', 'SELECT * FROM cascade_status');
like($stderr, qr/must be loaded via "shared_preload_libraries"/, 'p itself has no tree to show');

my $before = hold_lsn($p, 'i');
remove_wal(3, $p, $i, $l);
wait_for($p, "SELECT restart_lsn > '$before' FROM pg_replication_slots WHERE slot_name ~ '^cascade_relay_i_'", 'the hold moves');
wait_protected($i, $l);

# ---- a standby that does the same ----

wait_connected($m);
like(holds($u), qr/^cascade_relay_m_/, 'u holds for m');
is(value($m, q{SELECT upstream_name, protected IS NULL, upstream_held_lsn IS NOT NULL FROM cascade_status}), 'u|t|t',
	'm is not called protected: u knows no root');
is(value($m, q{SELECT path FROM cascade_topology WHERE is_local}), '{unknown,u,m}', 'nor does m');
found($m, 'warning', 'not_preloaded', 'u', 'shared_preload_libraries');

# ---- who may speak for a node ----

my $system = value($p, 'SELECT system_identifier FROM pg_control_system()');
my $lsn = value($p, 'SELECT pg_current_wal_flush_lsn()');
my $sequence = 0;

sub session { return $p->background_psql('postgres', on_error_stop => 0); }

sub ask
{
	my ($session, $message) = @_;
	my ($reply, $failed) = $session->query('SELECT ' . report_sql($message));
	die $session->{stderr} if $failed;
	$reply = decode_reply($reply);
	return "$reply->{answer} $reply->{refusal}";
}

sub hello
{
	my (%m) = @_;
	return encode_hello(system_identifier => $system, node_name => 'fake', incarnation => 0xfa, start_id => 5, %m);
}

sub report
{
	my ($at, %m) = @_;
	return encode_report(sequence => ++$sequence, (map { ($_ => $at) } qw(flush_lsn replay_lsn frontier_lsn hold_target_lsn)), %m);
}

my $a = session();
my $b = session();
my $a_pid = $a->query('SELECT pg_backend_pid()');
is(ask($a, report($lsn)), 'refused no_hello', 'a report without a hello');
is(ask($a, hello(system_identifier => 1)), 'refused system', 'another cluster');
is(ask($a, hello(node_name => 'p')), 'refused own_name', 'the name of p');
is(ask($a, hello(node_name => 'Not A Name')), 'refused name', 'a name that is none');
is(ask($a, hello()), 'ok none', 'a hello');
is(ask($b, hello(start_id => 6)), 'refused duplicate', 'another one of that name and incarnation');
is(ask($b, hello(start_id => 6, incarnation => 0xfb)), 'refused duplicate', 'of that name');
is(ask($b, hello(start_id => 6, node_name => 'other')), 'refused duplicate', 'of that incarnation');
is(ask($b, report($lsn)), 'refused no_hello', 'who was refused may not report');
is(ask($a, report($lsn)), 'ok none', 'the first one goes on');
$a->query('SELECT ' . report_sql(hello(node_name => 'other', incarnation => 0xfc)));
like($a->{stderr}, qr/this session speaks for node "fake"/, 'no other node may use its session');
$a->{stderr} = '';
is(ask($a, report('0/100000')), 'ok later', 'but its hold does not go back');
is(value($p, q{SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'cascade_relay_fake_000000fa'}), $lsn, 'it stands where it was');
is(ask($a, report($lsn, timeline => 7)), 'ok diverged', 'nor does it move on another history');
$a->query('SELECT pg_advisory_unlock_all()');
is(ask($a, report($lsn)), 'ok none', 'advisory locks of its own are not in its way');
is(ask($b, hello()), 'ok none', 'the very same worker takes over');
wait_for($p, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $a_pid", 'and its earlier session is ended');
is(ask($b, report($lsn)), 'ok none', 'its hold is in the hands of the new one');
$p->safe_psql('postgres', q{SELECT pg_drop_replication_slot('cascade_relay_fake_000000fa')});
my ($reply) = $b->query('SELECT ' . report_sql(report($lsn)));
is(decode_reply($reply)->{warnings} & 1 << 6, 1 << 6, 'a hold that somebody else has dropped is told of');
$b->quit;
my $c = session();
is(ask($c, hello(start_id => 6)), 'ok none', 'who leaves makes room');
$c->quit;
eval { $a->quit };
$c = session();
is(ask($c, hello(node_name => 'fake_renamed')), 'ok none', 'and may come back under another name');
is(ask($c, report(value($p, 'SELECT pg_current_wal_flush_lsn()'))), 'ok none', 'where it is held from now on');
is(value($p, q{SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE slot_name ~ '^cascade_relay_fake'}),
	'cascade_relay_fake_000000fa cascade_relay_fake_renamed_000000fa', 'what was held under the old name stays');
$c->quit;
$p->safe_psql('postgres', q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name ~ '^cascade_relay_fake'});

# ---- through a crash, and the proof ----

my ($identity) = state_lines($p, 'node');
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
$l->stop;
$before = value($i, q{SELECT restart_lsn FROM cascade_holds WHERE name = 'l'});
add_rows($p, 3);
wait_caught_up($p, $i);
checkpoint_all($p, $i);
kill_node($p);
start_after_kill($p);
wait_connected($i);
add_rows($p, 5);
wait_caught_up($p, $i);
checkpoint_all($p, $i);
checkpoint_all($p, $i);
ok(has_segment($p, $before), 'p has kept what l needs, through a crash');
is((state_lines($p, 'node'))[0], $identity, 'and is who it was');
is(value($i, q{SELECT protected FROM cascade_topology WHERE node_name = 'l'}), 't', 'i shows that l is protected');
kill_node($i);
slot_from_hold($p, 'i', 'l');
point_at($l, $p);
$l->start;
same_rows($p, $l);
wait_connected($l);
checkpoint_all($p, $l);
wait_protected($l);
like(holds($p), qr/^cascade_relay_l_/m, 'now p holds for l itself');

# ---- at last it is preloaded ----

$m->stop;
$u->stop;
my $hold = hold_lsn($p, 'l');
$p->stop('smart');
ok(1, 'a smart shutdown does not wait for the reports');
$p->append_conf('postgresql.conf', "shared_preload_libraries = 'cascade_relay'");
$p->start;
wait_connected($l);
checkpoint_all($p, $l);
wait_protected($l);
gone($l, 'not_preloaded');
is((state_lines($p, 'node'))[0], $identity, 'p is who it was');
wait_for($p, q{SELECT string_agg(node_name, ' ' ORDER BY node_name) FILTER (WHERE state IN ('running', 'streaming')) = 'l p' FROM cascade_topology}, 'and has a tree');
is(value($p, q{SELECT count(*) FROM cascade_holds WHERE name = 'l'}), '1', 'the hold of l is the one that it was');
remove_wal(2, $p, $l);
wait_for($p, "SELECT restart_lsn > '$hold' FROM cascade_holds WHERE name = 'l'", 'and moves');

# ---- without it again: the server's own bound ----

$p->append_conf('postgresql.conf', "shared_preload_libraries = ''\nmax_slot_wal_keep_size = 4MB");
$p->restart;
wait_connected($l);
$l->stop;
remove_wal(8, $p);
is(value($p, q{SELECT wal_status FROM pg_replication_slots WHERE slot_name ~ '^cascade_relay_l_'}), 'lost', 'while l is away the server gives up its hold');
$p->append_conf('postgresql.conf', 'max_slot_wal_keep_size = -1');
$p->reload;
my $d = session();
is(ask($d, hello()), 'refused unbounded', 'without a bound nobody is served any more');
$p->append_conf('postgresql.conf', 'max_slot_wal_keep_size = 4MB');
$p->reload;
my $l_incarnation = hex substr value($p, q{SELECT slot_name FROM pg_replication_slots WHERE slot_name ~ '^cascade_relay_l_'}), -8;
$p->poll_query_until('postgres', q{SELECT setting = '4' FROM pg_settings WHERE name = 'max_slot_wal_keep_size'});
is(ask($d, hello(node_name => 'l', incarnation => $l_incarnation)), 'ok none', 'a node whose hold was given up');
$lsn = value($p, 'SELECT pg_current_wal_flush_lsn()');
($reply) = $d->query('SELECT ' . report_sql(report($lsn)));
$reply = decode_reply($reply);
is("$reply->{answer} $reply->{refusal} " . ($reply->{warnings} & (1 << 6 | 1 << 11)), 'ok none 2048',
	'has it placed again, and is told that the server had given it up');
$d->quit;

unlike(slurp_file($_->logfile), qr/PANIC|TRAP|terminated by signal 1[01]|invalid configuration parameter/, $_->name . ' logs nothing worse') for ($p, $u, $i, $l, $m);
done_testing();
