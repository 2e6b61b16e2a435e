# A move that cannot be made: each reason is said, and nothing has changed.
#
#	p ─┬─ i ─── l ─── m
#	   ├─ t			with one replication slot, and few walsenders
#	   └─ d			promoted: on a history of its own
#	q				another cluster
#
# l is asked to follow whom it may not, cannot, or must not: itself, its own
# leaf, nobody, a node that is down, that lets nobody in, that has no slot or
# no walsender left, that lacks the WAL, that is another one.  Then moves fail
# halfway: the time runs out, they are cancelled, their session is terminated.
# Each time l streams from i as before, the settings are what they were, no
# slot is left on the target, and the password shows nowhere.  A crash in the
# middle is the one thing that is not taken back: the move is finished.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use File::Copy;
use IO::Socket::INET;
use IPC::Run ();
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $secret = 'hunter2 and more';
my $conf = "max_wal_senders = 5\n";
my $p = new_primary('p', conf => $conf);
$p->safe_psql('postgres', "CREATE ROLE repl LOGIN REPLICATION PASSWORD '$secret'");
add_rows($p, 2);
my $i = new_standby('i', $p, conf => $conf);
my $t = new_standby('t', $p, conf => $conf . "max_replication_slots = 1\n", slotless => 1);
my $d = new_standby('d', $p, conf => $conf, slotless => 1);
my $l = new_standby('l', $i, conf => $conf);
my $m = new_standby('m', $l, conf => $conf);
my $q = new_primary('q', conf => $conf);

sub address_of { my ($node) = @_; return 'host=' . $node->host . ' port=' . $node->port; }

for my $node ($p, $i, $t, $m)
{
	$node->append_conf('postgresql.conf', "cascade_relay.advertised_conninfo = '" . address_of($node) . "'");
	$node->reload;
}

# One of l's settings comes from either file.
my $conninfo = address_of($i) . " user=repl password='$secret' application_name=l" =~ s/'/''/gr;
$l->safe_psql('postgres', "ALTER SYSTEM SET primary_conninfo = '$conninfo'");
$l->reload;
wait_connected($i, $t, $l, $m);
wait_for($l, q{SELECT string_agg(node_name, ' ' ORDER BY node_name) FROM cascade_topology WHERE conninfo <> ''},
	'l knows where they are', 'i m p t');
wait_protected($l, $m);

# ---- what has to be as it was ----

my $settings = q{SELECT name, setting FROM pg_file_settings WHERE name LIKE 'primary%' AND sourcefile ~ 'auto.conf' ORDER BY name};
my $effective = q{SELECT name, setting FROM pg_settings WHERE name LIKE 'primary%' ORDER BY name};
my $file = $l->data_dir . '/postgresql.auto.conf';
my ($settings_before, $effective_before) = map { value($l, $_) } ($settings, $effective);
my $file_before = slurp_file($file);
my @everybody = ($p, $i, $t, $m);
my ($out, $err);

like($settings_before, qr/^primary_conninfo\|.*hunter2.*$/, 'one of the two is in postgresql.auto.conf');
is(value($l, q{SELECT sourcefile ~ 'postgresql.conf$' FROM pg_settings WHERE name = 'primary_slot_name'}), 't', 'and one is not');

sub adopted_on
{
	my ($node) = @_;

	return value($node, q{SELECT count(*) FROM pg_replication_slots WHERE slot_name ~ '^cascade_adopted_'});
}

# l streams from i, through its old slot, and what is written comes.
sub nothing_has_changed
{
	my ($what, @targets) = @_;

	is(value($l, $settings), $settings_before, "$what: the settings are in the file as before");
	is(adopted_on($_), '0', "$what: no slot is left on " . $_->name) for @targets;
	wait_for($l, q{SELECT slot_name || ' ' || sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'},
		"$what: it streams from i", 'l ' . $i->port);
	add_rows($p, 1);
	my $rows = value($p, 'SELECT count(*) FROM kept');
	wait_for($l, 'SELECT count(*) FROM kept', "$what: rows arrive", $rows);
	is(value($l, $effective), $effective_before, "$what: and in effect");
	return;
}

# Refused before anything is changed.
sub refused
{
	my ($arguments, $reason, $what) = @_;

	isnt($l->psql('postgres', "SELECT cascade_follow($arguments)", stdout => \$out, stderr => \$err), 0, $what);
	like($err, $reason, '... for that reason');
	unlike($err, qr/hunter2/, '... without a secret');
	is(slurp_file($file), $file_before, '... and the file is the same');
	return;
}

# ---- who it may not follow ----

refused(q{'l'}, qr/cannot follow "l": it is this node\nDETAIL:  The reason is "self-reference"/, 'itself');
refused(q{'m'}, qr/cannot follow "m": it streams, directly or not, from this node\nDETAIL:  The reason is "would-create-cycle"/, 'its own leaf');
refused(q{'nobody'}, qr/cannot follow "nobody": this node does not know a node of that name\nDETAIL:  The reason is "unknown-upstream"\.\nHINT:  Check the name, or give its host and port/, 'nobody');
refused(q{'d'}, qr/cannot follow "d": it does not say where it is\nHINT:  Set "cascade_relay.advertised_conninfo" on "d"/, 'one that hides');
refused(q{'d', conninfo => 'host=a,b'}, qr/invalid conninfo: it names several hosts/, 'two at once');
refused(q{'d', conninfo => 'service=x'}, qr/it names no host/, 'a service');
for my $keyword ("sslmode=disable", "user=postgres", "password=elsewhere", "dbname=''", "target_session_attrs=any")
{
	my ($name) = $keyword =~ /^(\w+)/;

	refused("'t', conninfo => " . quoted(address_of($t) . " $keyword"), qr/conninfo must not set "$name"\nDETAIL:  Only host, hostaddr and port/, "more than an address: $name");
}
refused(q{'t', conninfo => 'postgresql://someone@h/'}, qr/conninfo must not set "user"/, '... as a URI');

sub quoted { my ($text) = @_; return q{'} . $text =~ s/'/''/gr . q{'}; }
refused(q{'p', timeout => '-1s'}, qr/timeout must be positive/, 'no time');
refused(q{NULL}, qr/upstream_name must not be null/, 'NULL');

set_class('voting');
refused(q{'t'}, qr/cannot follow "t": it is a standby, and this node is on the durability path .*\nDETAIL:  The reason is "voting-member-direct-only"/, 'a voting node follows the primary only');
set_class('auto');

sub set_class
{
	my ($class) = @_;

	$l->append_conf('postgresql.conf', "cascade_relay.replica_class = $class");
	$l->reload;
	wait_for($l, q{SELECT replica_class FROM cascade_topology WHERE is_local}, "l is $class now",
		$class eq 'auto' ? 'read_replica' : $class);
	return;
}

# ---- who it cannot follow ----

refused("'q', conninfo => '" . address_of($q) . q{'}, qr/cannot follow "q": it refuses the login\nDETAIL:  role "repl" does not exist/, 'a stranger');
$q->safe_psql('postgres', "CREATE ROLE repl LOGIN REPLICATION PASSWORD '$secret'");
refused("'q', conninfo => '" . address_of($q) . q{'}, qr/cannot follow "q": it belongs to another database cluster/, 'another cluster');
refused("'t', conninfo => '" . address_of($p) . q{'}, qr/cannot follow "t": its address leads to another node\nDETAIL:  That node is called "p"/, 'another one than it is said to be');
$t->append_conf('postgresql.conf', q{cascade_relay.node_name = ''});
$t->restart;
wait_connected($t);
refused("'other', conninfo => '" . address_of($t) . q{'}, qr/cannot follow "other": its address leads to another node\nDETAIL:  That node is called "t"/, 'another one, whose name is not set');

$d->promote;
$d->safe_psql('postgres', 'CREATE TABLE elsewhere (n int)');
add_rows($p, 2);
wait_caught_up($p, $l);
refused("'d', conninfo => '" . address_of($d) . q{'}, qr/cannot follow "d": it is on another history of timelines\nDETAIL:  The reason is "timeline-diverged"\. It is on timeline 2 at/, 'one on another timeline');
$d->stop;
refused("'d', conninfo => '" . address_of($d) . q{'}, qr/cannot follow "d": it cannot be reached\nDETAIL:  The reason is "upstream-not-available"\. Connection to server .* failed/, 'one that is down');

# Where nobody answers, and where somebody else does.
my $listener = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die "socket: $!";
my $mute = 'host=127.0.0.1 port=' . $listener->sockport;
refused("'t', '$mute', '1s'", qr/cannot follow "t": it cannot be reached\nDETAIL:  The reason is "upstream-not-available"\. No answer from the upstream within \S+ s while connecting/, 'one that never answers');
my $hangs_up = fork // die "fork: $!";
if ($hangs_up == 0)
{
	while (my $client = $listener->accept) { close $client; }
	POSIX::_exit(0);
}
refused("'t', '$mute', '1min'", qr/cannot follow "t": it cannot be reached\nDETAIL:  The reason is "upstream-not-available"\. .*server closed the connection unexpectedly/, 'one that hangs up');
kill 'KILL', $hangs_up;
waitpid $hangs_up, 0;

$p->safe_psql('postgres', 'CREATE DATABASE empty');
wait_caught_up($p, $t, $l);
set_conf($l, "cascade_relay.upstream_conninfo = 'dbname=empty'");
wait_for($l, q{SHOW cascade_relay.upstream_conninfo}, 'l looks into another database', 'dbname=empty');
refused(q{'t'}, qr/cannot follow "t": it has no cascade_relay where it was asked\nDETAIL:  Extension "cascade_relay" does not exist in database "empty"/, 'one without the extension there');
set_conf($l, "cascade_relay.upstream_conninfo = ''");
wait_connected($l);

# Lets t's clients in as a line of pg_hba.conf says, before all others.
sub hba
{
	my ($line) = @_;

	$t->safe_psql('postgres', q{SELECT 1});
	my $lines = slurp_file($t->data_dir . '/pg_hba.conf') =~ s/^# first.*\n.*\n//r;
	unlink $t->data_dir . '/pg_hba.conf';
	$t->append_conf('pg_hba.conf', ($line ? "# first\n$line\n" : '') . $lines);
	$t->reload;
	return;
}

hba('local replication repl reject');
wait_for($t, q{SELECT count(*) = 1 FROM pg_hba_file_rules WHERE auth_method = 'reject'}, 't lets no walreceiver in');
refused(q{'t'}, qr/cannot follow "t": it refuses the login\nDETAIL:  pg_hba.conf rejects replication connection .*\nHINT:  Role "repl" must exist there/, 'no login for replication');
hba('local postgres repl reject');
refused(q{'t'}, qr/cannot follow "t": it refuses the login\nDETAIL:  pg_hba.conf rejects connection/, 'no login for SQL');
hba('');

$t->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('taken', true)});
refused(q{'t'}, qr/cannot follow "t": it has no free replication slot\n/, 'no free slot');
$t->safe_psql('postgres', q{SELECT pg_drop_replication_slot('taken')});

my @senders;
for (1 .. 5)
{
	my %s = (in => '', out => '', err => '');

	$s{h} = IPC::Run::start([ 'psql', '-XAt', '-d', address_of($t) . ' dbname=postgres replication=true' ],
		'<', \$s{in}, '>', \$s{out}, '2>', \$s{err}, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$s{in} .= "IDENTIFY_SYSTEM;\n";
	$s{h}->pump until $s{out} =~ /\|1\|/;
	push @senders, \%s;
}
refused(q{'t'}, qr/cannot follow "t": it has no free walsender\n.*\nHINT:  Raise "max_wal_senders"/, 'no free walsender');
for my $s (@senders)
{
	$s->{in} .= "\\q\n";
	$s->{h}->finish;
}
nothing_has_changed('all that', @everybody);

# l needs what it has not replayed: t has removed that, and p too once somebody
# has dropped the holds, d's among them.
$l->append_conf('postgresql.conf', "recovery_min_apply_delay = '1h'");
$l->reload;
add_rows($p, 3);
remove_wal(8, $p, $i, $t);
wait_for($l, q{SELECT verdict || ' ' || reason FROM cascade_upstream_candidates('l') WHERE upstream_name = 't'},
	't has removed what l needs', 'refused wal-unavailable');
refused(q{'t'}, qr/cannot follow "t": it no longer has the WAL that this node would ask for\nDETAIL:  The reason is "wal-unavailable"/, 'one that lacks the WAL, as the tree says');
value($p, q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name ~ '^cascade_relay_[di]_'});
wait_for($p, q{SELECT count(*) FROM pg_replication_slots WHERE slot_name ~ '^cascade_relay_i_'}, 'the hold is placed again', 1);
remove_wal(8, $p, $i, $t);
refused(q{'p'}, qr/cannot follow "p": it cannot adopt this node\nDETAIL:  cannot adopt node "l": WAL from .* on is not here/, 'one that lacks the WAL, as it says itself');
is(adopted_on($_), '0', 'no slot is left on ' . $_->name) for @everybody;
$l->append_conf('postgresql.conf', 'recovery_min_apply_delay = 0');
$l->reload;
nothing_has_changed('lack of WAL', @everybody);
wait_protected($l);

# ---- where, when and by whom it must not be done ----

isnt($p->psql('postgres', q{SELECT cascade_follow('i')}, stderr => \$err), 0, 'a primary follows nobody');
like($err, qr/recovery is not in progress/, '... for that reason');
value($l, 'SELECT pg_wal_replay_pause()');
refused(q{'p'}, qr/cannot follow "p": recovery is paused here/, 'a node that stands still');
value($l, 'SELECT pg_wal_replay_resume()');

$p->safe_psql('postgres', 'CREATE ROLE mover LOGIN; GRANT EXECUTE ON FUNCTION cascade_follow TO mover; CREATE ROLE other LOGIN');
wait_caught_up($p, $l);
isnt($l->psql('postgres', q{SELECT cascade_follow('p')}, stderr => \$err, extra_params => [ '-U', 'other' ]), 0, 'not everybody may');
like($err, qr/permission denied for function cascade_follow/, '... for want of EXECUTE');
isnt($l->psql('postgres', q{SELECT cascade_follow('p')}, stderr => \$err, extra_params => [ '-U', 'mover' ]), 0, 'nor who may call it');
like($err, qr/permission denied to set parameter "primary_conninfo"/, '... for want of ALTER SYSTEM');

# A sign of a manager: present, refused, gone again.
sub managed
{
	my ($manager, $path, $content) = @_;
	my $old = -e $path ? slurp_file($path) : undef;

	open my $fh, '>', $path or die "$path: $!";
	print $fh $content, $old // '';
	close $fh;
	$l->reload;
	wait_for($l, q{SELECT current_setting('cnpg.config_sha256', true) IS NOT NULL}, 'the setting is there') if $content =~ /cnpg/;
	refused(q{'p'}, qr/$manager owns "primary_conninfo" of this server\nDETAIL:  .*\nHINT: /, $manager);
	if (defined $old)
	{
		open $fh, '>', $path or die "$path: $!";
		print $fh $old;
		close $fh;
	}
	else
	{
		unlink $path;
	}
	$l->reload;
	wait_for($l, q{SELECT coalesce(current_setting('cnpg.config_sha256', true), '') = ''}, 'and is not any more') if $content =~ /cnpg/;
	return;
}

my $data = $l->data_dir;
managed('Patroni', "$data/patroni.dynamic.json", '{"ttl": 30}');
managed('Patroni', "$data/postgresql.conf", "# Do not edit this file manually!\n# It will be overwritten by Patroni!\n");
managed('pg_auto_failover', "$data/postgresql-auto-failover-standby.conf", "# Generated\n");
managed('CloudNativePG', "$data/postgresql.conf", "cnpg.config_sha256 = '3cfa683e'\n");
chmod 0400, $file;
refused(q{'p'}, qr/"postgresql.auto.conf" cannot be written: Permission denied/, 'a file that is read-only');
chmod 0600, $file;

# Any library will do for the other one.
my $library = PostgreSQL::Test::Utils::tempdir_short() . '/repmgr';
copy($l->config_data('--pkglibdir') . '/dict_snowball.so', "$library.so") or die $!;
$l->append_conf('postgresql.conf', "shared_preload_libraries = 'cascade_relay,$library'");
$l->restart;
wait_connected($l);
refused(q{'p'}, qr/repmgr owns "primary_conninfo"/, 'repmgr');
$l->append_conf('postgresql.conf', "shared_preload_libraries = 'cascade_relay'");
$l->stop;
command_ok([ 'pg_ctl', '-s', '-w', '-D', $data, '-l', $l->logfile, '-o', '-c primary_slot_name=l', 'start' ], 'l with a setting on its command line');
$l->_update_pid(1);
wait_connected($l);
refused(q{'p'}, qr/"primary_slot_name" was given on this server's command line/, 'where it would have no effect');
$l->stop;
$l->start;
wait_connected($l);
SKIP:
{
	skip 'PostgreSQL before 17', 4 if value($l, q{SELECT current_setting('server_version_num')::int < 170000}) eq 't';
	$l->append_conf('postgresql.conf', 'allow_alter_system = off');
	$l->reload;
	wait_for($l, 'SHOW allow_alter_system', 'no ALTER SYSTEM', 'off');
	refused(q{'p'}, qr/"allow_alter_system" is off/, 'where ALTER SYSTEM is off');
	$l->append_conf('postgresql.conf', 'allow_alter_system = on');
	$l->reload;
}
nothing_has_changed('managers', @everybody);

# ---- for programs ----

# Each refusal has an SQLSTATE of its own, and its code in the detail.
for (
	[ q{'l'}, 'RL001', 'self-reference' ],
	[ q{'m'}, 'RL002', 'would-create-cycle' ],
	[ q{'nobody'}, 'RL003', 'unknown-upstream' ],
	[ quoted('d') . ', conninfo => ' . quoted(address_of($d)), 'RL007', 'upstream-not-available' ],
	[ quoted('d'), 'RL009', undef ],
	[ quoted('t') . ', conninfo => ' . quoted(address_of($p)), 'RL010', undef ],
	[ quoted('q') . ', conninfo => ' . quoted(address_of($q)), 'RL011', undef ])
{
	my ($arguments, $state, $code) = @$_;

	$l->psql('postgres', "\\set VERBOSITY verbose\nSELECT cascade_follow($arguments)", stderr => \$err);
	like($err, qr/ERROR:  $state: cannot follow "\w+": [a-z]/, "$state for $arguments");
	like($err, qr/DETAIL:  The reason is "$code"\./, "... which is $code") if $code;
}

# Nothing is changed by asking only.
$l->psql('postgres', q{SELECT cascade_follow('p', dry_run => true)}, stdout => \$out, stderr => \$err);
is($out, 'would stream from "p" at host "' . $p->host . '", port ' . $p->port . ' with slot "cascade_adopted_l"; nothing was changed', 'a dry run says what would be');
is($err, '', '... and no more');
is(slurp_file($file), $file_before, '... the file is the same');
refused(q{'m', dry_run => true}, qr/cannot follow "m": it streams, directly or not, from this node/, 'a dry run of what is refused');
nothing_has_changed('a dry run', @everybody);

# ---- halfway ----

# Starts a move whose settings the server does not come to see: its startup
# process stands still.  Returns the session once they are written.
sub halfway
{
	my ($timeout, @more) = @_;
	my %s = (out => '', err => '');

	$s{startup} = value($l, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'});
	kill 'STOP', $s{startup};
	$s{h} = IPC::Run::start([ 'psql', '-XAt', '-d', $l->connstr('postgres'), '-c', "SELECT cascade_follow('p', timeout => '$timeout')", map { ('-c', $_) } @more ],
		'>', \$s{out}, '2>', \$s{err});
	wait_for($l, q{SELECT setting LIKE 'host=% port=% user=repl password=%' AND setting LIKE '% port=} . $p->port . q{ %' FROM pg_file_settings WHERE name = 'primary_conninfo' ORDER BY seqno DESC LIMIT 1},
		'the move is halfway');
	is(adopted_on($p), '1', 'its slot is there');
	$s{pid} = value($l, q{SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT cascade_follow(%'});
	return \%s;
}

sub ended
{
	my ($s, $reason, $what) = @_;

	$s->{h}->finish;
	is($s->{out}, '', "$what: it has not moved");
	like($s->{err}, $reason, "$what: it says so");
	unlike($s->{err}, qr/hunter2|WARNING/, "$what: and no more");
	is(value($l, $settings), $settings_before, "$what: the settings are in the file as before");
	is(adopted_on($p), '0', "$what: no slot is left");
	kill 'CONT', $s->{startup};
	nothing_has_changed($what, $p);
	return;
}

my $short = at_most(4);
my $s = halfway("${short}s");
ended($s, qr/ERROR:  cannot follow "p": no streaming within $short s\nDETAIL:  (?:The WAL receiver does not stay connected to it, or was not started|Replay is at)/, 'timeout');

# what another session has set meanwhile stays, and what it has not set goes back
$s = halfway('1h');
$l->safe_psql('postgres', q{ALTER SYSTEM SET primary_slot_name = 'of_another'});
value($l, "SELECT pg_cancel_backend($s->{pid})");
$s->{h}->finish;
like($s->{err}, qr/WARNING:  parameter "primary_slot_name" was changed by another session meanwhile, and stays as that has set it/, 'another session has the last word');
is(value($l, $settings), "$settings_before\nprimary_slot_name|of_another", '... and the other setting is as before');
is(adopted_on($p), '0', '... and no slot is left');
$l->safe_psql('postgres', 'ALTER SYSTEM RESET primary_slot_name');
$l->reload;
kill 'CONT', $s->{startup};
nothing_has_changed('another session', $p);

$s = halfway('1h');
isnt($l->psql('postgres', q{SELECT cascade_follow('p')}, stderr => \$err), 0, 'one at a time');
like($err, qr/another session is moving this node already/, '... and it says so');
value($l, "SELECT pg_cancel_backend($s->{pid})");
ended($s, qr/ERROR:  canceling statement due to user request/, 'cancel');

$s = halfway('1h');
value($l, "SELECT pg_terminate_backend($s->{pid})");
ended($s, qr/FATAL:  terminating connection due to administrator command/, 'terminate');

# the target dies after it has adopted: it cannot be told, which is said
$s = halfway('1h');
$p->stop('immediate');
value($l, "SELECT pg_cancel_backend($s->{pid})");
$s->{h}->finish;
like($s->{err}, qr/WARNING:  replication slot "cascade_adopted_l" may be left behind on "p"\nHINT:  .*pg_drop_replication_slot/, 'what could not be cleaned up is said');
kill 'CONT', $s->{startup};
$p->start;
is(adopted_on($p), '1', '... and it is so');
value($p, q{SELECT pg_drop_replication_slot('cascade_adopted_l')});
wait_connected($i);
nothing_has_changed('a dead target', $p);

# what it has to replay first is more than the time allows
$l->append_conf('postgresql.conf', "recovery_min_apply_delay = '1h'");
$l->reload;
wait_for($l, 'SHOW recovery_min_apply_delay', 'l lags behind', '1h');
$p->safe_psql('postgres', 'INSERT INTO kept SELECT count(*) + 1 FROM kept');
wait_for($l, 'SELECT pg_last_wal_replay_lsn() < pg_last_wal_receive_lsn()', '... by a commit');
isnt($l->psql('postgres', "SELECT cascade_follow('p', timeout => '${short}s')", stderr => \$err), 0, 'a delayed node takes longer');
like($err, qr/no streaming within $short s\nDETAIL:  Replay is at .*\nHINT:  See what holds up replay here: "recovery_min_apply_delay"/, '... and it says why');
$l->append_conf('postgresql.conf', 'recovery_min_apply_delay = 0');
$l->reload;
nothing_has_changed('delay', $p);

# ---- who may, does ----

$p->safe_psql('postgres', 'GRANT ALTER SYSTEM ON PARAMETER primary_conninfo, primary_slot_name TO mover');
wait_caught_up($p, $l);
is($l->psql('postgres', q{SELECT cascade_follow('p')}, stdout => \$out, stderr => \$err, extra_params => [ '-U', 'mover' ]), 0, 'a role with the rights moves it')
  or diag($err);
like($out, qr/^streaming from "p"/, '... to p');
value($l, q{SELECT cascade_follow('i')});
is(adopted_on($p), '0', '... and back, and nothing is left');
like(value($l, $settings), qr/^primary_conninfo\|host=\S+ port=\d+ user=repl password='hunter2 and more' application_name=l\nprimary_slot_name\|cascade_adopted_l$/, 'both are set now');

# another notation, and words that choose among hosts
my $uri = 'postgresql://repl:hunter2%20and%20more@' . $i->host =~ s{/}{%2F}gr . ':' . $i->port . '/?application_name=l&target_session_attrs=any';
$l->safe_psql('postgres', "ALTER SYSTEM SET primary_conninfo = '$uri'");
$l->reload;
wait_for($l, q{SELECT current_setting('primary_conninfo') LIKE 'postgresql:%'}, 'a URI');
value($l, q{SELECT cascade_follow('p')});
like(value($l, $settings), qr/^primary_conninfo\|host=\S+ port=${\$p->port} user=repl password='hunter2 and more' application_name=l\n/, 'what was in it is there still');
value($l, q{SELECT cascade_follow('i')});

# the way leads elsewhere only for a superuser: the password goes along
isnt($l->psql('postgres', "SELECT cascade_follow('p', conninfo => '" . address_of($p) . "')", stderr => \$err, extra_params => [ '-U', 'mover' ]), 0, 'an address is not for everybody');
like($err, qr/permission denied to give cascade_follow an address\nDETAIL:  The password in "primary_conninfo" would be sent there/, '... for that reason');

# ---- where it is already ----

# Moves l, and returns what was said beside the answer.
sub moves
{
	my ($arguments, $to) = @_;

	is($l->psql('postgres', $arguments =~ /^SELECT/ ? $arguments : "SELECT cascade_follow($arguments)", stdout => \$out, stderr => \$err), 0, "$arguments moves it")
	  or diag($err);
	like($out, qr/^streaming from "$to"[^\n]*\z/m, "... to $to");
	return $err;
}

# Nobody reports, so that l does not know that it is there.
set_conf($l, 'cascade_relay.enabled = off');
wait_for($l, 'SELECT upstream_state FROM cascade_status', 'l does not report', 'none');
is(moves(q{'i'}, 'i'), '', 'where it is already, there is nothing to leave');
is(adopted_on($i), '1', '... and the slot stays');

# The same node by another address.
my $alias = PostgreSQL::Test::Utils::tempdir_short() . '/alias';
symlink $i->host, $alias or die "$alias: $!";
is(moves("'i', conninfo => 'host=$alias port=" . $i->port . q{'}, 'i'), '', 'nor by another address');
wait_for($l, q{SELECT sender_host || ' ' || slot_name FROM pg_stat_wal_receiver WHERE status = 'streaming'},
	'it streams from there', "$alias cascade_adopted_l");
is(moves("'i', conninfo => '" . address_of($i) . q{'}, 'i'), '', '... and back');
wait_for($l, q{SELECT sender_host || ' ' || slot_name FROM pg_stat_wal_receiver WHERE status = 'streaming'},
	'... as it was', $i->host . ' cascade_adopted_l');

# While reports are sent, too: the node that is asked for is the one that it
# streams from, but not there.
set_conf($l, 'cascade_relay.enabled = on');
wait_connected($l);
like(value($l, "SELECT cascade_follow('i', conninfo => '" . address_of($i) . q{')}), qr/^already streaming from "i"/, 'by the address that it has, it is there');
is(moves("'i', conninfo => 'host=$alias port=" . $i->port . q{'}, 'i'), '', 'by another one it moves');
is(value($l, q{SELECT sender_host || ' ' || slot_name FROM pg_stat_wal_receiver WHERE status = 'streaming'}), "$alias cascade_adopted_l", '... and streams from there');
is(moves("'i', conninfo => '" . address_of($i) . q{'}, 'i'), '', '... and back');
set_conf($l, 'cascade_relay.enabled = off');
wait_for($l, 'SELECT upstream_state FROM cascade_status', 'l does not report', 'none');

# Reports that go elsewhere do not lead to what is left, nor are they where WAL comes from.
set_conf($l, "cascade_relay.upstream_conninfo = '" . address_of($p) . q{'});
set_conf($l, 'cascade_relay.enabled = on');
wait_for($l, q{SELECT upstream_name FROM cascade_status WHERE upstream_state = 'connected'}, 'l reports to p, and streams from i', 'p');
like(moves(q{'p'}, 'p'), qr/\A\S+ WARNING:  this node goes on reporting to the host in "cascade_relay.upstream_conninfo"\nHINT:  [^\n]*\z/, 'it says where the reports go, and nothing else');
is(adopted_on($_->[0]), $_->[1], 'slots on ' . $_->[0]->name) for [ $i, '0' ], [ $p, '1' ];
moves(q{'i'}, 'i');
is(adopted_on($_->[0]), $_->[1], 'and back: slots on ' . $_->[0]->name) for [ $i, '1' ], [ $p, '0' ];
set_conf($l, "cascade_relay.upstream_conninfo = ''");
wait_for($l, q{SELECT upstream_name FROM cascade_status WHERE upstream_state = 'connected'}, 'l reports to i again', 'i');

# Twice in one message: between the two, the session does not read its settings.
is(moves(q{SELECT cascade_follow('p') \; SELECT cascade_follow('i')}, 'i'), '', 'there and back at once leaves nothing behind');
is(adopted_on($_->[0]), $_->[1], 'slots on ' . $_->[0]->name) for [ $i, '1' ], [ $p, '0' ];

# ---- what cannot be undone ----

# The data folder cannot be written to from the start: nothing is to be undone.
$settings_before = value($l, $settings);
chmod 0500, $data or die "$data: $!";
$l->psql('postgres', q{SELECT cascade_follow('p')}, stderr => \$err);
chmod 0700, $data;
like($err, qr/ERROR:  could not open file "postgresql.auto.conf.tmp": Permission denied/, 'settings that cannot be written');
unlike($err, qr/WARNING|hunter2/, '... and there is nothing else to say');
is(value($l, $settings), $settings_before, '... the settings are as before');
is(adopted_on($p), '0', '... and no slot is left');

# Or from then on.  After that the session can still be interrupted, or it would
# hold up a shutdown, and DROP DATABASE's replay.
$s = halfway('1h', q{SET statement_timeout = '200ms'}, 'SELECT pg_sleep(20)');
chmod 0500, $data or die "$data: $!";
value($l, "SELECT pg_cancel_backend($s->{pid})");
$s->{h}->finish;
chmod 0700, $data;
$err = $s->{err};
like($err, qr/WARNING:  could not restore "primary_conninfo" and "primary_slot_name": could not open file "postgresql.auto.conf.tmp": Permission denied/, 'settings that cannot be restored: it says so');
like($err, qr/WARNING:  replication slot "cascade_adopted_l" stays on "p"\nDETAIL:  The settings may name it/, '... and keeps the slot that they may name');
like($err, qr/ERROR:  canceling statement due to user request/, '... and what went wrong first');
like($err, qr/ERROR:  canceling statement due to statement timeout/, '... and the session can be interrupted');
unlike($err, qr/hunter2/, '... without a secret');
$l->safe_psql('postgres', "ALTER SYSTEM SET primary_conninfo = '" . ($settings_before =~ s/^primary_conninfo\|(.*)\n.*/$1/sr =~ s/'/''/gr) . q{'});
is(value($l, $settings), $settings_before, '... which has to be put back by hand');
$l->reload;
kill 'CONT', $s->{startup};
value($p, q{SELECT pg_drop_replication_slot('cascade_adopted_l')});

# ---- a crash is not taken back ----

$s = halfway('1h');
kill 'KILL', $s->{pid};
kill 'CONT', $s->{startup};
$s->{h}->finish;
start_after_kill($l);
wait_for($l, q{SELECT slot_name || ' ' || sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'},
	'after a crash it is where it was to go', 'cascade_adopted_l ' . $p->port);
same_rows($p, $l, $m);

unlike(slurp_file($_->logfile) =~ s/.*CREATE ROLE repl.*//gr =~ s/.*ALTER SYSTEM SET primary_conninfo.*//gr, qr/hunter2/, $_->name . ' does not tell the password in its log')
  for ($p, $i, $t, $l, $m);

done_testing();
