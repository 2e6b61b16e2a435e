# Setting it up on a cascade that is there already, and all that can be missing.
#
#	p ── i ── l        without the extension at first
#	p ── t             reports to wherever it is told to
#	p ── h             hot_standby = off
#	q                  another cluster, and no room for its worker
#
# The leaf gets the library first, then the primary the extension, then i and
# at last p the library: every order is safe, and at each step everybody
# streams, has every row, and says what is missing yet.  Then t is sent astray
# in every way there is, and says each time what to do; one line that it prints
# is pasted as it is.  The extension is dropped and created anew, in a schema
# with an odd name, under the running workers; the reports are switched off and
# on; settings that make no sense are refused.  A password is used all the
# while, and in the end it is nowhere to be found.  Last of all l stops, WAL is
# removed, i is killed: l attaches to p, and t, which named them both, follows
# its WAL receiver there.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $secret = 'Xyzzy-Plugh-42';
my $wrong = 'Plover-Xyzzy-17';

# What a node's status says, looked up where the extension still is.
my $status_database = 'postgres';

sub status
{
	my ($node, $columns) = @_;
	return $node->safe_psql($status_database, "SELECT $columns FROM cascade_status");
}

sub wait_status
{
	my ($node, $condition, $what) = @_;
	ok($node->poll_query_until($status_database, "SELECT $condition FROM cascade_status"), $what)
	  or diag(status($node, '*'));
	return;
}

# A node shows that state, and an error that says what is wrong and what to do.
sub wait_error
{
	my ($node, $state, $error, $what) = @_;
	wait_status($node, "upstream_state = '$state' AND last_error ~ \$re\$$error\$re\$", "$what: $state, and says why");
	return status($node, 'last_error');
}

sub preload
{
	my ($node) = @_;
	my $name = $node->name;
	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = 'cascade_relay'\ncascade_relay.node_name = '$name'\ncascade_relay.report_interval = 200ms\n"
		  . "cascade_relay.min_free_percent = 0	# however full this machine's disk is\n");
	$node->restart;
	return;
}

sub not_preloaded
{
	my ($node) = @_;
	my ($rc, undef, $stderr) = $node->psql('postgres', 'SELECT * FROM cascade_status', extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($stderr, qr/ERROR:  55000: cascade_relay must be loaded via "shared_preload_libraries"\nHINT:  Add cascade_relay to/,
		$node->name . ' says that it lacks the library');
	return;
}

# ---- step by step, the leaf first ----

my $p = new_primary('p', unmanaged => 1, no_extension => 1, conf => "listen_addresses = '127.0.0.1'");
open my $hba, '>', $p->data_dir . '/pg_hba.conf' or die;
print $hba "local all all trust\nlocal replication all trust\n";
close $hba;
$p->restart;
add_rows($p, 2);
my $i = new_standby('i', $p, unmanaged => 1);
my $l = new_standby('l', $i, unmanaged => 1);

my $harmless = sub {
	my ($what) = @_;
	add_rows($p, 1);
	same_rows($p, $i, $l);
	note "so far: $what";
	return;
};
$harmless->('an existing cascade');

# Nothing is there yet; l has no function to ask either, but a log.
my $log = -s $l->logfile;
preload($l);
ok($l->wait_for_log(qr/the upstream refused to take reports: extension "cascade_relay" does not exist in database "postgres" of the upstream\n.*HINT:  Run CREATE EXTENSION cascade_relay in that database on the primary/, $log),
	'l looks for the extension, and says where it should be');
$harmless->('the library on l');

$p->safe_psql('postgres', 'CREATE EXTENSION cascade_relay');
wait_caught_up($p, $i, $l);
not_preloaded($_) for ($p, $i);
like(wait_error($l, 'refused', 'it does not preload cascade_relay, and nothing there bounds', 'the upstream lacks the library'),
	qr/HINT: Set max_slot_wal_keep_size there and reload; or add .*shared_preload_libraries there, and restart it/, 'and what to do there');
is(status($l, 'protected IS NULL, upstream_held_lsn IS NULL, upstream_name IS NULL'), 't|t|t', 'l knows nothing of a root');
wait_for($l, q{SELECT path = '{unknown,l}' AND state = 'streaming' FROM cascade_topology WHERE is_local},
	'its path begins with unknown');
$harmless->('the extension on p');

preload($i);
wait_connected($l);
wait_error($i, 'refused', 'it does not preload cascade_relay, and nothing there bounds', 'p lacks the library');
is(status($l, 'upstream_name, protected IS NULL'), 'i|t', 'l reports to i, but nobody knows a root');
is(value($l, q{SELECT path FROM cascade_topology WHERE is_local}), '{unknown,i,l}', 'its path is longer now');
wait_for($i, q{SELECT string_agg(node_name || ' ' || state, ',') = 'i streaming,l streaming' FROM cascade_topology},
	'i shows its own part of the tree');
wait_for($i, q{SELECT string_agg(name || ' ' || kind || ' ' || counted, ',' ORDER BY kind) FROM cascade_downstreams}, 'and what it keeps for whom', 'l hold true,l slot false');
not_preloaded($p);
$harmless->('the library on i');

preload($p);
wait_connected($i, $l);
checkpoint_all($p, $i, $l);
wait_protected($p, $i, $l);
wait_for($p, q{SELECT array_agg(path::text) = '{"{p}","{p,i}","{p,i,l}"}' AND bool_and(protected) FROM cascade_topology},
	'with p all are there, and protected');
$harmless->('the library on p');

# ---- sent astray ----

# TCP, a role, a password: nothing of it is set up on p.
$p->safe_psql('postgres', "SET log_statement = none; CREATE ROLE reporter LOGIN PASSWORD '$secret'");
$p->safe_psql('postgres', 'CREATE DATABASE other');
my $passfile = $p->basedir . '/passfile';
my $passline = sub {
	my ($line) = @_;
	open my $fh, '>', $passfile or die;
	print $fh "$line\n";
	close $fh;
	chmod 0600, $passfile;
	return;
};
my $port = $p->port;

# A password in the string itself is there before the start: a reload logs what
# has changed.
my $t = new_standby('t', $p, conf =>
	  "cascade_relay.upstream_conninfo = 'host=127.0.0.1 user=reporter password=$wrong'");
my $send_to = sub {
	my ($conninfo) = @_;
	$t->append_conf('postgresql.conf', "cascade_relay.upstream_conninfo = '$conninfo'");
	$t->reload;
	return;
};
my $error = wait_error($t, 'refused', 'no pg_hba.conf entry for host "127.0.0.1", user "reporter"', 'no entry in pg_hba.conf');
my ($line) = $error =~ /Add this line to pg_hba\.conf on the upstream, and reload there: (.*)$/;
is($line, 'host    postgres    reporter    127.0.0.1/32    scram-sha-256', 'and prints the line to add');
append_to_file($p->data_dir . '/pg_hba.conf', "$line\n");
$p->reload;
like(wait_error($t, 'refused', 'password authentication failed for user "reporter"', 'pasted, it leads on: a wrong password'),
	qr/HINT: The password given in the connection string is not the one that role "reporter" has/, 'and whose it is');

my $tcp = "host=127.0.0.1 user=reporter passfile=$passfile";
$send_to->($tcp);
$passline->("127.0.0.1:$port:replication:reporter:$secret");
$error = wait_error($t, 'refused', 'no password supplied', 'an entry for replication only');
($line) = $error =~ /The password file \S+ \(mode 0600\) of this server needs the line: (.*)$/;
is($line, "127.0.0.1:$port:postgres:reporter:<password>", 'and prints the line to add');
$passline->($line =~ s/<password>/$wrong/r);
wait_error($t, 'refused', 'password authentication failed for user "reporter"', 'a wrong entry');
$passline->($line =~ s/<password>/$secret/r);
like(wait_error($t, 'refused', 'permission denied to report to cascade_relay', 'a role without REPLICATION'),
	qr/HINT: .*ALTER ROLE "reporter" REPLICATION;/, 'and prints what to run');
my ($sql) = status($t, 'last_error') =~ /(ALTER ROLE .*;)/;
$p->safe_psql('postgres', $sql);
wait_connected($t);
is(status($t, 'upstream_name'), 'p', 'then t reports to p');

$log = -s $t->logfile;
for (
	[ "$tcp dbname=other", 'refused', 'no pg_hba.conf entry for host "127.0.0.1", user "reporter", database "other"', 'another database, by TCP',
		'host    other    reporter    127.0.0.1/32    scram-sha-256' ],
	[ 'dbname=other', 'refused', 'extension "cascade_relay" does not exist in database "other"', 'a database without the extension',
		'Run CREATE EXTENSION cascade_relay in that database' ],
	[ 'dbname=nowhere', 'refused', 'database "nowhere" does not exist', 'a database that is not there',
		'HINT: Name the database that has the extension' ],
	[ 'user=nobody', 'refused', 'role "nobody" does not exist', 'a role that is not there',
		'HINT: On the upstream, role "nobody" must exist with LOGIN and REPLICATION' ],
	[ 'port=' . $t->port, 'refused', 'it is this node itself', 'itself', 'HINT: .*they lead back to this server' ],
	[ 'host=' . $p->host . ',' . $i->host, 'waiting', 'upstream_conninfo must name one host', 'several hosts', 'HINT: .*one node' ],
	[ 'host=', 'connected', '', 'nothing special', '' ],
	[ 'port=1', 'waiting', '.', 'a port where nobody is', '' ],
	[ 'host=/nowhere', 'waiting', 'nowhere', 'a socket that is not there', '' ],
	[ q{host=''p}, 'waiting', 'cascade_relay\.upstream_conninfo cannot be parsed', 'a quote that does not end', 'HINT: Check its quoting' ])
{
	my ($conninfo, $state, $error, $what, $hint) = @$_;
	$send_to->($conninfo);
	like(wait_error($t, $state, $error, $what), qr/$hint/, "$what: and what to do");
}
is(value($t, q{SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'}), '1', 'all the while it streams');

# hot_standby is off: nobody can ask there, and its own worker cannot start.
my $h = new_standby('h', $p, conf => 'hot_standby = off', no_start => 1);
$log = -e $h->logfile ? -s $h->logfile : 0;
$h->start;
ok($h->wait_for_log(qr/as a standby this server would not report: "hot_standby" is off\n.*HINT:  Set "hot_standby" to on/, $log), 'h says that it would not report');
$send_to->('port=' . $h->port);
like(wait_error($t, 'waiting', 'not accepting connections', 'hot_standby is off there'),
	qr/HINT: The upstream is starting, stopping, or runs with hot_standby = off/, 'and what it may be');
$h->stop;
$p->safe_psql('postgres', q{SELECT pg_drop_replication_slot('h')});

# Another cluster, and at first one without room for the worker.
my $q = new_primary('q', conf => 'max_worker_processes = 1');
is($q->safe_psql('postgres', 'SELECT worker_pid IS NULL, incarnation IS NULL, upstream_state, protected IS NULL FROM cascade_status'), 't|t|none|t', 'without room for its worker q starts, and says that there is none');
is($q->safe_psql('postgres', 'SELECT count(*) FROM cascade_topology, cascade_downstreams, cascade_tree()'), '0', 'and its functions do no harm');
like(slurp_file($q->logfile), qr/too many background workers/, 'the log says why');
$send_to->('port=' . $q->port);
like(wait_error($t, 'waiting', 'its worker is not running yet', 'no worker there'), qr/HINT: .*max_worker_processes/, 'and what it may be');
$q->append_conf('postgresql.conf', 'max_worker_processes = 8');
$q->restart;
like(wait_error($t, 'refused', 'it belongs to another database cluster', 'another cluster'), qr/HINT: .*they lead to another cluster/, 'and what to look at');
is($q->safe_psql('postgres', 'SELECT count(*) FROM pg_replication_slots'), '0', 'q holds nothing for it');
is($q->safe_psql('postgres', q{SELECT string_agg(node_name, ',') FROM cascade_topology}), 'q', 'and does not show it');
$q->stop;

$send_to->('');
wait_connected($t);
wait_protected($t);

# ---- settings ----

for (
	[ q{node_name = 'Not A Name'}, 'A node name has 1 to 40 characters, each a lower case letter, a digit or an underscore' ],
	[ q{node_name = '} . 'x' x 41 . q{'}, 'A node name has 1 to 40 characters' ],
	[ q{location = E'a\nb'}, 'Only printable ASCII characters are allowed' ],
	[ q{location = E'caf\303\251'}, 'Only printable ASCII characters are allowed' ],
	[ q{location = '} . 'x' x 64 . q{'}, 'It must be shorter than 64 characters' ],
	[ q{advertised_conninfo = 'host=t password=} . reverse($secret) . q{'}, 'in keyword and value form and without a password' ],
	[ q{advertised_conninfo = 'postgres://u:} . reverse($secret) . q{@t/'}, 'in keyword and value form and without a password' ],
	[ q{ignore_slots = 'a,b\\'}, 'LIKE pattern must not end with escape character' ],
	[ q{ignore_slots = '"a'}, 'It must be a comma-separated list of LIKE patterns' ],
	[ q{report_interval = '1ms'}, 'outside the valid range' ],
	[ q{stale_timeout = '1ms'}, 'outside the valid range' ],
	[ q{replica_class = 'leader'}, 'Available values: auto, voting, read_replica' ],
	[ q{max_nodes = 7}, 'outside the valid range' ],
	[ q{max_hold_size = -2}, 'outside the valid range' ],
	[ q{enabled = perhaps}, 'requires a Boolean value' ])
{
	my ($setting, $complaint) = @$_;
	my (undef, undef, $stderr) = $t->psql('postgres', "SET log_min_error_statement = panic; SET log_statement = none;\nALTER SYSTEM SET cascade_relay.$setting");
	like($stderr, qr/ERROR:.*\Q$complaint\E/s, "refused: $setting");
	unlike($stderr, qr/@{[scalar reverse $secret]}/, 'without repeating it') if $setting =~ /advertised/;
}
my (undef, undef, $stderr) = $t->psql('postgres', 'SET cascade_relay.no_such_setting = 1');
like($stderr, qr/invalid configuration parameter name "cascade_relay\.no_such_setting"/, 'no setting can be made up');

# A file that has them is no worse than one that has not.
$log = -s $t->logfile;
$t->append_conf('postgresql.conf', "cascade_relay.location = 'attic'\ncascade_relay.advertised_conninfo = 'host=t password=" . reverse($secret) . "'");
$t->reload;
ok($t->wait_for_log(qr/invalid value for parameter "cascade_relay\.advertised_conninfo"/, $log), 'a bad value in the file is said in the log');
wait_for($p, q{SELECT location = 'attic' AND conninfo IS NULL FROM cascade_topology WHERE node_name = 't'}, 'the other values of the file count, on p too');
$t->append_conf('postgresql.conf', q{cascade_relay.advertised_conninfo = 'host=t.example port=5432'});
$t->reload;
wait_for($p, q{SELECT conninfo = 'host=t.example port=5432' FROM cascade_topology WHERE node_name = 't'}, 'and a good one arrives');

# ---- dropped and created again, elsewhere ----

# Where one can still look.
$p->safe_psql('other', 'CREATE EXTENSION cascade_relay');
wait_caught_up($p, $i, $l, $t);
$status_database = 'other';
my $hold = hold_lsn($p, 'i');
my %log = map { $_->name => -s $_->logfile } ($p, $i, $l, $t);
$p->safe_psql('postgres', 'DROP EXTENSION cascade_relay');
wait_error($_, 'refused', 'extension "cascade_relay" does not exist in database "postgres" of the upstream', $_->name . ' finds it dropped') for ($i, $l, $t);
write_segments($p, 2);
wait_caught_up($p, $i, $l, $t);
is(hold_lsn($p, 'i'), $hold, 'the hold of i stays where it was');
my $failed = status($i, 'reports_failed');
wait_status($i, "reports_failed >= $failed + 2", 'i tries again and again');
for my $node ($i, $l, $t)
{
	my @lines = slurp_file($node->logfile, $log{ $node->name }) =~ /(refused to take reports|cannot report to the upstream|reporting to upstream)/g;
	is("@lines", 'refused to take reports', $node->name . ' has said so once');
	unlike(slurp_file($node->logfile, $log{ $node->name }), qr/\] cascade_relay (ERROR|FATAL|PANIC)/, 'and its worker has had no error');
}
for my $node ($p, $i)
{
	my $text = slurp_file($node->logfile, $log{ $node->name });
	my @errors = $text =~ /ERROR:  (.*)/g;
	cmp_ok(scalar @errors, '<=', 2, $node->name . ' is not pestered: at most one error for each that called');
	unlike($text, qr/could not send data to client|connection to client lost/, 'and nobody hangs up on it');
}
is(status($p, 'worker_pid IS NOT NULL'), 't', 'p works on');

# Where somebody put it, quotes and all.
$p->safe_psql('postgres', q{CREATE SCHEMA "Odd ""Schema"" of 'mine'"; CREATE EXTENSION cascade_relay SCHEMA "Odd ""Schema"" of 'mine'"});
for my $node ($i, $l, $t)
{
	wait_status($node, q{upstream_state = 'connected' AND protected}, $node->name . ' finds it in another schema');
}
$p->safe_psql('postgres', 'ALTER EXTENSION cascade_relay SET SCHEMA public');
my $sent;
for my $node ($i, $l, $t)
{
	$sent = status($node, 'reports_sent');
	wait_status($node, "upstream_state = 'connected' AND protected AND reports_sent > $sent + 2", $node->name . ' follows it to yet another');
}
checkpoint_all($p, $i, $l);
my $i_hold = 'cascade_relay_i_' . status($i, 'incarnation');
ok($p->poll_query_until('postgres', "SELECT restart_lsn > '$hold' FROM pg_replication_slots WHERE slot_name = '$i_hold'"), 'and the hold of i moves again');
$p->safe_psql('other', 'DROP EXTENSION cascade_relay');
$status_database = 'postgres';

# ---- switched off and on ----

$hold = hold_lsn($p, 'i');
my $hold_of_l = hold_lsn($i, 'l');
$sent = status($i, 'reports_sent');
$i->append_conf('postgresql.conf', 'cascade_relay.enabled = off');
$i->reload;
wait_status($i, q{upstream_state = 'none'}, 'switched off, i reports no more');
like(wait_error($l, 'refused', 'cascade_relay.enabled is off there', 'l may not report to i'), qr/HINT: Set cascade_relay\.enabled to on there and reload/, 'and what to do');
write_segments($p, 4);
wait_caught_up($p, $i, $l);
checkpoint_all($p, $i, $l);
is(hold_lsn($p, 'i'), $hold, 'the hold of i stands still');
is(hold_lsn($i, 'l'), $hold_of_l, 'and so does the hold of l');
is(status($i, "reports_sent <= $sent + 1"), 't', 'i has sent nothing');
ok(has_segment($p, $hold) && has_segment($i, $hold_of_l), 'with the WAL behind it');
is(status($i, 'frontier_lsn IS NOT NULL, worker_pid IS NOT NULL'), 't|t', 'i itself is as awake as ever');
$i->append_conf('postgresql.conf', 'cascade_relay.enabled = on');
$i->reload;
wait_connected($i, $l);
wait_protected($i, $l);
wait_for($p, "SELECT restart_lsn > '$hold' FROM pg_replication_slots WHERE slot_name = '$i_hold'",
	'switched on, its hold moves again');

# ---- one that comes and goes ----

# When a connection ends, its slot goes a moment before the walsender does: what
# is left must not be taken for a node without a slot.
my $u = new_standby('u', $p, unmanaged => 1, conninfo => 'application_name=ghost');
my $nodes = '{i,l,p,t,u}';
wait_for($p, "SELECT array_agg(node_name ORDER BY node_name) = '$nodes' FROM cascade_topology", 'a standby without the extension is shown under the name of its slot');
$p->append_conf('postgresql.conf', 'cascade_relay.report_interval = 10ms');
$p->reload;
my $ghosts = 0;
for (1 .. 6)
{
	$p->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'ghost'});
	$p->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'ghost' AND replay_lsn IS NOT NULL});
	$ghosts++ if value($p, 'SELECT array_agg(node_name ORDER BY node_name) FROM cascade_topology') ne $nodes;
}
is($ghosts, 0, 'and under no other, however often it comes back');
$p->append_conf('postgresql.conf', 'cascade_relay.report_interval = 200ms');
$p->reload;
$u->stop;
$p->safe_psql('postgres', q{SELECT pg_drop_replication_slot('u')});

# ---- several hosts, and the proof ----

# t names i and p, in that order; only its WAL receiver knows which it is.
$i->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('t', true)});
$t->append_conf('postgresql.conf',
	sprintf("primary_conninfo = 'host=%s,%s port=%d,%d application_name=t'", $i->host, $p->host, $i->port, $p->port));
$t->reload;
wait_status($t, q{upstream_state = 'connected' AND upstream_name = 'i'}, 't reports to the host that it streams from');
checkpoint_all($p, $i, $t);
wait_protected($t);
is(value($t, q{SELECT path FROM cascade_topology WHERE is_local}), '{p,i,t}', 'below i');

$l->stop;
add_rows($p, 10);
wait_caught_up($p, $i, $t);
wait_for($p, q{SELECT pinned_by = 'l' FROM cascade_status}, 'l stops, and pins p');
checkpoint_all($p, $i);
checkpoint_all($p, $i);
kill_node($i);
slot_from_hold($p, 'i', 'l');
point_at($l, $p);
$l->start;
wait_connected($l);
wait_status($t, q{upstream_state = 'connected' AND upstream_name = 'p'}, 't follows its WAL receiver to p');
same_rows($p, $l, $t);

# ---- what there is to set, and what it is if nobody does ----

is( value($p, q{
	SELECT name, boot_val, unit, min_val, max_val, context FROM pg_settings
	WHERE name LIKE 'cascade\_relay.%' AND name <> 'cascade_relay.node_name' ORDER BY name COLLATE "C"}),
	<<'EOF' =~ s/\n\z//r, 'the settings are those of doc/settings.md');
cascade_relay.advertised_conninfo|||||sighup
cascade_relay.enabled|on||||sighup
cascade_relay.hold_timeout|0|s|0|2147483647|sighup
cascade_relay.ignore_slots|||||sighup
cascade_relay.location|default||||sighup
cascade_relay.max_hold_size|-1|MB|-1|2147483647|sighup
cascade_relay.max_nodes|1024||8|65000|postmaster
cascade_relay.min_free_percent|10||0|100|sighup
cascade_relay.replica_class|auto||||sighup
cascade_relay.report_interval|1000|ms|10|3600000|sighup
cascade_relay.stale_timeout|30000|ms|100|2147483647|sighup
cascade_relay.upstream_conninfo|||||sighup
EOF
is(value($p, q{SELECT boot_val, context FROM pg_settings WHERE name = 'cascade_relay.node_name'}),
	'|postmaster', 'so is node_name, whose default is made at the first start');

# ---- no password anywhere ----

for my $node ($p, $l, $t)
{
	my $shown = value($node, q{
		SELECT string_agg(x, E'\n') FROM (
			SELECT to_json(s)::text FROM cascade_status s
			UNION ALL SELECT to_json(s)::text FROM cascade_topology s
			UNION ALL SELECT to_json(s)::text FROM cascade_downstreams s
			UNION ALL SELECT t FROM cascade_tree() t
			UNION ALL SELECT to_json(s)::text FROM pg_stat_activity s WHERE pid <> pg_backend_pid()
			UNION ALL SELECT to_json(s)::text FROM pg_stat_wal_receiver s) v(x)});
	like($shown, qr/reports_sent/, $node->name . ' shows much');
	unlike($shown, qr/$secret|$wrong|@{[scalar reverse $secret]}/, 'and no password');
}
for my $node ($p, $i, $l, $t, $h, $q)
{
	my $text = slurp_file($node->logfile);
	unlike($text, qr/$secret|$wrong|@{[scalar reverse $secret]}/, 'no password in the log of ' . $node->name);
	unlike($text, qr/PANIC|TRAP|terminated by signal/, 'and nothing worse');
}

done_testing();
