# No password gets anywhere, by whatever way it came.
#
#	p ── i ── l          over TCP, each with a password of its own kind:
#	                     in primary_conninfo, in a passfile, in a service file
#
# Every password is a word of its own, so that what is found says where it came
# from.  All servers log everything that they can, the messages between the
# nodes included, which are searched for what the words look like there.  First
# the three kinds, each in turn: right ones, wrong ones, and conninfos with a
# syntax error in the middle of them.  A server that repeats a password in its
# messages is played by a role, a database and a host of that name.  Then an
# address with a password is advertised, and refused
# whatever the keyword.  i is promoted, which is when PostgreSQL 15 puts the
# whole conninfo into shared memory, and into its own pg_stat_wal_receiver.  At
# the end every log, all that was shown on the way and every file beside the
# slots is searched for each of the words.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# What may not be found anywhere, and who has it.
my %secret = map { $_ => "xyzzy${_}plugh" }
  qw(inconninfo inpassfile inservice wrong broken brokenuri advertised sslkey asname seen);
my @places;

# Settings are written into the file and reloaded: ALTER SYSTEM would be a
# statement, which the server logs.  It also logs each setting that a reload
# has changed, with its value, whatever it is; those lines are its own.
sub status
{
	my ($node, $columns) = @_;
	return value($node, "SELECT $columns FROM cascade_status");
}

# All that a node shows to whoever may look, kept for the search.
sub look
{
	my ($node) = @_;
	my $shown = value($node, q{
		SELECT string_agg(x, E'\n') FROM (
			SELECT to_json(s)::text FROM cascade_status s
			UNION ALL SELECT to_json(s)::text FROM cascade_topology s
			UNION ALL SELECT to_json(s)::text FROM cascade_downstreams s
			UNION ALL SELECT to_json(s)::text FROM cascade_check s
			UNION ALL SELECT to_json(s)::text FROM cascade_upstream_candidates() s
			UNION ALL SELECT to_json(s)::text FROM cascade_plan_upstream('x', 'read_replica', 'i') s
			UNION ALL SELECT t FROM cascade_tree() t
			UNION ALL SELECT to_json(s)::text FROM pg_stat_activity s WHERE pid <> pg_backend_pid()
			UNION ALL SELECT to_json(s)::text FROM pg_stat_replication s) v(x)});

	push @places, [ 'what ' . $node->name . ' shows', $shown ];
	return;
}

# The node says that it cannot report, in these words.
sub wait_error
{
	my ($node, $error, $what) = @_;

	wait_for($node, "SELECT upstream_state IN ('refused', 'waiting') AND last_error ~ \$re\$$error\$re\$ FROM cascade_status", $what)
	  or diag(status($node, 'upstream_state, last_error'));
	look($node);
	return;
}

# ---- three nodes, three ways to know a password ----

my $loud = q{
listen_addresses = '127.0.0.1'
log_min_messages = debug2
log_connections = on
log_statement = all
log_replication_commands = on
};
my $p = new_primary('p', conf => $loud);
my $port = $p->port;
$p->safe_psql('postgres', qq{
	SET log_statement = none;
	SET log_min_messages = fatal;
	SET log_min_error_statement = panic;
	SET password_encryption = 'scram-sha-256';
	CREATE ROLE inconninfo REPLICATION LOGIN PASSWORD '$secret{inconninfo}';
	CREATE ROLE inpassfile REPLICATION LOGIN PASSWORD '$secret{inpassfile}';
	CREATE ROLE inservice REPLICATION LOGIN PASSWORD '$secret{inservice}';
});
my $hba = "local all all trust\nlocal replication all trust\n"
  . join('', map { "host $_ all 127.0.0.1/32 scram-sha-256\n" } qw(all replication));

sub let_in
{
	my ($node) = @_;
	my $file = $node->data_dir . '/pg_hba.conf';

	open my $fh, '>', $file or die "$file: $!";
	print $fh $hba;
	close $fh;
	return;
}

sub private_file
{
	my ($name, $content) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . "/$name";

	open my $fh, '>', $file or die "$file: $!";
	print $fh $content;
	close $fh;
	chmod 0600, $file;
	return $file;
}

let_in($p);
$p->reload;
my $i = new_standby('i', $p, conf => $loud, no_start => 1);
let_in($i);

my $passfile = private_file('passfile', "127.0.0.1:*:*:inpassfile:$secret{inpassfile}\n");
my $wrong_passfile = private_file('wrong_passfile', "127.0.0.1:*:*:inpassfile:$secret{wrong}\n");
my $service_file = private_file('services', "[way]\nhost=127.0.0.1\nport=$port\nuser=inservice\npassword=$secret{inservice}\n"
	  . "[wrong_way]\nhost=127.0.0.1\nport=$port\nuser=inservice\npassword=$secret{wrong}\n");
my %way = (
	inconninfo => "host=127.0.0.1 port=$port user=inconninfo password=$secret{inconninfo} application_name=i",
	inpassfile => "host=127.0.0.1 port=$port user=inpassfile passfile=$passfile application_name=i",
	inservice => 'service=way application_name=i',
	uri => "postgresql://inconninfo:$secret{inconninfo}\@127.0.0.1:$port/?application_name=i");

$ENV{PGSERVICEFILE} = $service_file;
$i->append_conf('postgresql.conf', "primary_conninfo = '$way{inconninfo}'");
$i->start;
wait_connected($i);
my $l = new_standby('l', $i, conf => $loud, no_start => 1);
let_in($l);
$l->append_conf('postgresql.conf', "primary_conninfo = '" . ($way{inpassfile} =~ s/port=$port/'port=' . $i->port/er =~ s/_name=i/_name=l/r) . "'");
$l->start;
delete $ENV{PGSERVICEFILE};
wait_connected($l);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
look($_) for ($p, $i, $l);

# ---- right ones, wrong ones, broken ones ----

for my $kind (qw(inpassfile inservice uri inconninfo))
{
	my $connected = status($i, 'reports_sent');

	set_conf($i, "primary_conninfo = '$way{$kind}'");
	wait_for($i, "SELECT upstream_state = 'connected' AND reports_sent > $connected FROM cascade_status", "a password $kind leads to p");
	look($i);
}
for (
	[ "host=127.0.0.1 port=$port user=inconninfo password=$secret{wrong}", 'password authentication failed for user "inconninfo"', 'a wrong one in primary_conninfo' ],
	[ "host=127.0.0.1 port=$port user=inpassfile passfile=$wrong_passfile", 'password authentication failed for user "inpassfile"', 'a wrong one in a passfile' ],
	[ 'service=wrong_way', 'password authentication failed for user "inservice"', 'a wrong one in a service' ],
	[ "postgresql://inconninfo:$secret{wrong}\@127.0.0.1:$port/", 'password authentication failed for user "inconninfo"', 'a wrong one in a URI' ],
	[ "host=127.0.0.1 port=$port user=$secret{asname} password=$secret{asname}", 'in words that contain a password', 'one that is the name of a role, too' ],
	[ "host=127.0.0.1 port=$port user=inconninfo dbname=$secret{asname} password=$secret{asname}", '.', 'one that is the name of a database, too' ],
	[ "host=127.0.0.1 port=1 user=inconninfo password=$secret{wrong}", 'refused', 'one for a port where nobody is' ],
	[ "host=$secret{asname}.invalid port=1 user=inconninfo password=$secret{asname}", '.', 'one that is the name of a host, too' ])
{
	my ($conninfo, $error, $what) = @$_;

	set_conf($i, "cascade_relay.upstream_conninfo = '$conninfo'");
	wait_error($i, $error, $what);
}
for my $conninfo (
	"host=127.0.0.1 port=$port user=inconninfo password=''$secret{broken}",
	"host=127.0.0.1 password $secret{broken}",
	"host=127.0.0.1 passwort=$secret{broken}",
	"host=127.0.0.1 password = ''a'' $secret{broken}",
	"$secret{broken}",
	"postgresql://inconninfo:$secret{brokenuri}\@[127.0.0.1:$port/",
	"postgresql://inconninfo:$secret{brokenuri}%zz\@127.0.0.1/",
	"postgresql://inconninfo\@127.0.0.1/?password$secret{brokenuri}",
	"postgresql://inconninfo\@127.0.0.1/?pass=$secret{brokenuri}")
{
	set_conf($i, "cascade_relay.upstream_conninfo = '$conninfo'");
	wait_error($i, 'cascade_relay.upstream_conninfo cannot be parsed', 'a conninfo that cannot be parsed');
	like(status($i, 'last_error'), qr/HINT: Check its quoting/, 'is not repeated');
	set_conf($i, q{cascade_relay.upstream_conninfo = ''});
	wait_connected($i);
}
# a key of its own over those of primary_conninfo
set_conf($i, "cascade_relay.upstream_conninfo = 'user=inconninfo password=$secret{inconninfo} sslpassword=$secret{sslkey} sslmode=prefer'");
wait_connected($i);
look($i);
set_conf($i, q{cascade_relay.upstream_conninfo = ''});
# what is broken in primary_conninfo
set_conf($i, "primary_conninfo = 'host=127.0.0.1 password=''$secret{broken}'");
wait_error($i, 'primary_conninfo cannot be parsed', 'a primary_conninfo that cannot be parsed');
set_conf($i, "primary_conninfo = '$way{inconninfo}'");
wait_connected($i);

# who may see the setting
$p->safe_psql('postgres', 'CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher; CREATE ROLE joe LOGIN');
wait_caught_up($p, $i);
set_conf($i, "cascade_relay.upstream_conninfo = 'user=inconninfo password=$secret{inconninfo}'");
wait_connected($i);
for my $sql ('SHOW cascade_relay.upstream_conninfo', q{SELECT current_setting('cascade_relay.upstream_conninfo')})
{
	my ($rc, $stdout, $stderr) = $i->psql('postgres', $sql, extra_params => [ '-U', 'joe' ]);
	isnt($rc, 0, "joe may not $sql");
	push @places, [ "what joe gets by $sql", $stdout . $stderr ];
}
is($i->safe_psql('postgres', q{SELECT count(*) FROM pg_settings WHERE name = 'cascade_relay.upstream_conninfo'}, extra_params => [ '-U', 'joe' ]), '0', 'nor find it in pg_settings');
is($i->safe_psql('postgres', 'SELECT count(*) FROM cascade_status', extra_params => [ '-U', 'watcher' ]), '1', 'a monitor sees the rest');

# ---- an address that is advertised ----

for my $conninfo (
	"host=i password=$secret{advertised}",
	"host=i PGPASSWORD=1 password=$secret{advertised}",
	"host=i password = $secret{advertised}",
	"host=i sslpassword=$secret{advertised}",
	"host=i scram_client_key=$secret{advertised}",
	"host=i scram_server_key=$secret{advertised}",
	"host=i oauth_client_secret=$secret{advertised}",
	"postgres://u:$secret{advertised}\@i/",
	"postgresql://i/?password=$secret{advertised}")
{
	my $log = -s $i->logfile;

	set_conf($i, "cascade_relay.advertised_conninfo = '$conninfo'");
	ok($i->wait_for_log(qr/invalid value for parameter "cascade_relay\.advertised_conninfo"\n/, $log), 'an address with a password is refused')
	  or diag $conninfo =~ s/$secret{advertised}/***/r;
	is(value($i, 'SHOW cascade_relay.advertised_conninfo'), '', 'and not taken');
	my (undef, undef, $stderr) = $i->psql('postgres', "SET log_min_error_statement = panic; SET log_statement = none;\nALTER SYSTEM SET cascade_relay.advertised_conninfo = '$conninfo'");
	like($stderr, qr/ERROR:.*advertised_conninfo"\n.*DETAIL:.*without a password/s, 'by ALTER SYSTEM, too');
	push @places, [ 'what ALTER SYSTEM says', $stderr ];
}
set_conf($i, q{cascade_relay.advertised_conninfo = 'host=i.example port=5432'});
wait_for($p, q{SELECT conninfo = 'host=i.example port=5432' FROM cascade_topology WHERE node_name = 'i'}, 'one without is');
look($_) for ($p, $i, $l);

# ---- a timeline switch ----

# i is promoted; l goes on below it, by its passfile.  Then l is sent on with a
# password in primary_conninfo, over another switch, when WalRcv->conninfo has
# it in clear on 15.
set_conf($l, "primary_conninfo = 'host=127.0.0.1 port=" . $i->port . " user=inconninfo password=$secret{inconninfo} application_name=l'");
wait_connected($l);
$p->stop;
$i->promote;
wait_for($l, q{SELECT upstream_state = 'connected' AND timeline = 2 FROM cascade_status}, 'l follows i to its timeline');
add_rows($i, 2);
wait_for($l, q{SELECT state FROM cascade_topology WHERE is_local}, 'and streams', 'streaming');
wait_protected($l);
look($_) for ($i, $l);
$i->stop('immediate');
wait_for($l, q{SELECT upstream_state = 'waiting' FROM cascade_status}, 'l loses i');
look($l);
$i->start;
wait_connected($l);
same_rows($i, $l);

# ---- the search ----

for my $node ($p, $i, $l)
{
	my $log = slurp_file($node->logfile) =~ s/^.* LOG:  parameter "[^"]*conninfo" changed to .*\n//gmr;

	push @places, [ 'the log of ' . $node->name, $log ];
	ok($log !~ /PANIC|TRAP:|terminated by signal/, $node->name . ' has had nothing worse');
	for my $file (glob($node->data_dir . '/pg_replslot/*'), glob($node->data_dir . '/pg_replslot/*/*'), glob($node->data_dir . '/pg_stat_tmp/*'))
	{
		push @places, [ "$file", slurp_file($file) ] if -f $file;
	}
}
cmp_ok(scalar(@places), '>', 50, 'much was looked at');
# the words are what is looked for, not their names
for my $word (sort keys %secret)
{
	# a server may log which role, or which database, it does not have
	my $hex = unpack('H*', $secret{$word});
	my @found = grep { $_->[1] =~ /$secret{$word}|$hex/ && ($word ne 'asname' || $_->[0] ne 'the log of p') } @places;

	ok(!@found, "the password \"$word\" is nowhere")
	  or diag join("\n", map {
		my ($where, $text) = @$_;
		"in $where: " . join("\n", map { s/$secret{$word}/***/gr } grep { /$secret{$word}/ } split /\n/, $text)
	  } @found);
}
# and the search works
push @places, [ 'a note', "here is $secret{seen}" ];
is(scalar(grep { $_->[1] =~ /$secret{seen}/ } @places), 1, 'what is somewhere is found');
my $shown = unpack('H*', 'host=i.example port=5432');
is(scalar(grep { $_->[0] =~ /^the log of/ && $_->[1] =~ /OPERATOR\(public\.\@<-\).*\n.*$shown/ } @places), 1, 'in messages, too');

done_testing();
