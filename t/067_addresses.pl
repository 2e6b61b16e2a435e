# Nodes find each other by what they were reached by: name, address and port.
#
#	p ─── i ─── l		over TCP, by names that nobody can resolve, each
#				with its address (the usual way without DNS); with
#				certificates of both sides, verify-full by name,
#				and SCRAM bound to the channel
#
# Nobody advertises an address.  i dies, and l goes to p, by the name and the
# address that i has found it by: either alone would not do.  i comes back, and l
# goes back to it, because it has streamed from there.  Then l is started while
# both are gone, and knows both still.  A name of 130 characters is a name.
#
# What only means something on one machine is not told to another one: a socket
# directory that i advertises is shown on p as long as i comes over the loopback
# network, and not when it comes over another one.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %host = (
	p => 'prim.' . 'x' x 60 . '.' . 'y' x 60 . '.test',
	i => 'inter.test',
	l => 'leaf.test');
my $secret = 'open sesame';
my $tls = check_pg_config('#define USE_OPENSSL 1') && eval { run_log([ 'openssl', 'version' ]) };
my $dir = PostgreSQL::Test::Utils::tempdir();

# ---- certificates ----

# One that the authority has signed, for a name of any length.
sub certificate
{
	my ($name, $common, @names) = @_;
	my $conf = "$dir/$name.conf";

	open my $fh, '>', $conf or die "$conf: $!";
	print $fh "[req]\ndistinguished_name = dn\nprompt = no\n[dn]\nCN = $common\n[ext]\n",
	  @names ? 'subjectAltName = ' . join(',', map { "DNS:$_" } @names) . "\n" : "basicConstraints = critical,CA:TRUE\n";
	close $fh;
	system_or_bail('openssl', 'genrsa', '-out', "$dir/$name.key", '2048');
	chmod 0600, "$dir/$name.key";
	system_or_bail('openssl', 'req', '-new', '-config', $conf, '-key', "$dir/$name.key", '-out', "$dir/$name.csr");
	system_or_bail('openssl', 'x509', '-req', '-days', '3650', '-in', "$dir/$name.csr", '-extfile', $conf, '-extensions', 'ext',
		$name eq 'ca' ? ('-signkey', "$dir/ca.key") : ('-CA', "$dir/ca.crt", '-CAkey', "$dir/ca.key", '-CAcreateserial'),
		'-out', "$dir/$name.crt");
	return;
}

if ($tls)
{
	certificate('ca', 'cascade test');
	certificate($_, $_, $host{$_}) for sort keys %host;
	certificate('repl', 'repl', 'client.test');
}

# ---- the cascade ----

my $ssl_conf = $tls ? "ssl = on\nssl_ca_file = '$dir/ca.crt'\n" : '';
my $conf = "listen_addresses = '*'\npassword_encryption = 'scram-sha-256'\n$ssl_conf";
my $certs = sub { my ($n) = @_; return $tls ? "ssl_cert_file = '$dir/$n.crt'\nssl_key_file = '$dir/$n.key'\n" : ''; };

sub conninfo_of
{
	my ($upstream) = @_;

	return "host=$host{$upstream->name} hostaddr=127.0.0.1 port=" . $upstream->port . " user=repl password='$secret'"
	  . ($tls ? " sslmode=verify-full sslrootcert=$dir/ca.crt sslcert=$dir/repl.crt sslkey=$dir/repl.key channel_binding=require" : '');
}

# Whoever comes over TCP has to show who it is.
sub let_in
{
	my ($node) = @_;
	my $file = $node->data_dir . '/pg_hba.conf';

	unlink $file;
	$node->append_conf('pg_hba.conf', "local all,replication all trust\n"
		  . ($tls ? 'hostssl' : 'host') . ' all,replication repl all scram-sha-256' . ($tls ? ' clientcert=verify-full' : '') . "\n");
	$node->reload;
	return;
}

# By its name and address, instead of by the socket that the test uses.
sub point_by_name
{
	my ($node, $upstream) = @_;

	set_conf($node, q{primary_conninfo = '} . (conninfo_of($upstream) . ' application_name=' . $node->name) =~ s/'/''/gr . q{'});
	return;
}

my $p = new_primary('p', conf => $conf . $certs->('p'));
$p->safe_psql('postgres', "CREATE ROLE repl LOGIN REPLICATION PASSWORD '$secret'");
let_in($p);
add_rows($p, 1);
my $i = new_standby('i', $p, conf => $conf . $certs->('i'));
let_in($i);
my $l = new_standby('l', $i, conf => $conf . $certs->('l'));
let_in($l);
point_by_name($i, $p);
point_by_name($l, $i);

sub is_at
{
	my ($node, $upstream) = @_;
	my ($name, $above) = ($node->name, $upstream->name);

	wait_for($node, q{SELECT sender_host || ' ' || sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'},
		"$name streams from $above, by name", "$host{$above} " . $upstream->port);
	wait_for($node, q{SELECT upstream_state || ' ' || upstream_name FROM cascade_status}, "$name reports to $above", "connected $above");
	return;
}

is_at($i, $p);
is_at($l, $i);
same_rows($p, $i, $l);
wait_protected($i, $l);
SKIP:
{
	skip 'without OpenSSL', 1 unless $tls;
	is(value($p, q{SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE s.ssl AND s.client_dn LIKE '%CN=repl' AND a.usename = 'repl'}),
		2, 'walsender and reports are encrypted, with a certificate');
}
is(value($l, q{SELECT count(*) FROM cascade_topology WHERE conninfo IS NOT NULL}), 0, 'nobody advertises anything');

# The settings of a node as they are now, without what is only l's.
sub where_it_is
{
	my ($node) = @_;

	return value($node, q{SELECT array_to_string(regexp_match(current_setting('primary_conninfo'), '(host=\S+) (hostaddr=\S+) (port=\d+)'), ' ')});
}

sub address_of { my ($node) = @_; return "host=$host{$node->name} hostaddr=127.0.0.1 port=" . $node->port; }

# ---- i dies ----

wait_until('l has written down where p is', sub { value($l, q{SELECT pg_read_file('pg_replslot/cascade_relay.state', 0, 10000, true)}) =~ /address p\t\Q${\address_of($p)}\E/ });
kill_node($i);
like(value($l, q{SELECT cascade_follow('p')}), qr/^streaming from "p"/, 'l follows p');
is(where_it_is($l), address_of($p), '... by its name and address');
like(value($l, q{SHOW primary_conninfo}), qr/ user=repl password='open sesame' .*application_name=l\b/, '... and all else is as it was');
is_at($l, $p);
add_rows($p, 1);
same_rows($p, $l);

# ---- i comes back, and so does l ----

start_after_kill($i);
is_at($i, $p);
is(value($l, q{SELECT cascade_follow('i', dry_run => true)}),
	qq{would stream from "i" at host "$host{i}" (127.0.0.1), port } . $i->port . ' with slot "cascade_adopted_l"; nothing was changed', 'l knows where i was');
like(value($l, q{SELECT cascade_follow('i')}), qr/^streaming from "i"/, 'the way back');
is(where_it_is($l), address_of($i), '... by its name and address');
is_at($l, $i);
is(value($p, q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cascade_adopted_l'}), 0, 'nothing is left on p');

# at once, and after a start without anybody
like(value($l, q{SELECT cascade_follow('p')}), qr/^streaming from "p"/, 'and there again');
like(value($l, q{SELECT cascade_follow('i')}), qr/^streaming from "i"/, 'and back again');
$l->stop;
kill_node($i);
$l->start;
like(value($l, q{SELECT cascade_follow('p')}), qr/^streaming from "p"/, 'l remembers p after a start without i');
start_after_kill($i);
is_at($i, $p);
like(value($l, q{SELECT cascade_follow('i')}), qr/^streaming from "i"/, '... and i');
add_rows($p, 1);
same_rows($p, $i, $l);
wait_protected($i, $l);

unlike(slurp_file($_->logfile) =~ s/.*CREATE ROLE repl.*//gr, qr/open sesame/, 'no password in the log of ' . $_->name) for $p, $i, $l;

# ---- two machines ----

# An address of this machine that is not of the loopback network.
sub other_address
{
	my $socket = IO::Socket::INET->new(Proto => 'udp', PeerAddr => '192.0.2.1', PeerPort => 9) or return;
	my $address = $socket->sockhost;

	return $address =~ /^(127\.|0\.)/ ? undef : $address;
}

set_conf($i, q{cascade_relay.advertised_conninfo = 'host=} . $i->host . ' port=' . $i->port . q{'});
wait_for($p, q{SELECT conninfo FROM cascade_topology WHERE node_name = 'i'}, 'i is on the machine of p', 'host=' . $i->host . ' port=' . $i->port);
SKIP:
{
	my $address = other_address() // skip 'no other network', 3;

	$i->adjust_conf('postgresql.conf', 'primary_conninfo', q{'} . (conninfo_of($p) =~ s/127\.0\.0\.1/$address/r . ' application_name=i') =~ s/'/''/gr . q{'});
	$i->restart;
	is_at($i, $p);
	wait_for($p, q{SELECT conninfo IS NULL FROM cascade_topology WHERE node_name = 'i'}, 'p is not told a folder of another machine');
	wait_for($l, q{SELECT conninfo FROM cascade_topology WHERE node_name = 'i'}, 'l is, which is on the machine of i', 'host=' . $i->host . ' port=' . $i->port);
}

done_testing();
