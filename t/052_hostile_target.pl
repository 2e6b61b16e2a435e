# A node is told to follow whoever is behind an address.
#
#	p ── l		(a server of this test's own, that knows the protocol)
#
# It lets l in and says all that l asks for, up to where the slot is to be made:
# that fails, and when l wants to undo it, the answers are empty where a value has
# to be.  l says what has gone wrong, goes on streaming from p, and no process of it
# has crashed.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p');
my $l = new_standby('l', $p);

add_rows($p, 1);
wait_protected($l);
# before, it would not go where only a read replica may
wait_for($l, 'SELECT replica_class FROM cascade_topology WHERE is_local', 'l knows its class', 'read_replica');

# ---- a server ----

sub message { my ($type, $body) = @_; return $type . pack('N', 4 + length $body) . $body; }

# A result of one row; a value that is not defined is NULL.
sub row
{
	my (@values) = @_;

	return message('T', pack('n', scalar @values) . join('', map { pack("Z*NnNnNn", "c$_", 0, 0, 25, -1, -1, 0) } 1 .. @values))
	  . message('D', pack('n', scalar @values) . join('', map { defined ? pack('N/a*', $_) : pack('N', 0xffffffff) } @values));
}

my %identity = (
	systemid => value($p, 'SELECT system_identifier FROM pg_control_system()'),
	lsn => '7F/0');

sub answer
{
	my ($query) = @_;

	return row($identity{systemid}, 1, $identity{lsn}, undef) if $query =~ /^IDENTIFY_SYSTEM/;
	return row('on') if $query =~ /^SHOW in_hot_standby/;
	return row('public') if $query =~ /pg_extension/;
	return row('fake') if $query =~ /node_name/;
	return message('E', "SERROR\0VERROR\0C42501\0Mnot for you\0\0") if $query =~ /\@<-/;
	return row(undef, undef) if $query =~ /pg_drop_replication_slot/;
	return '';
}

sub take
{
	my ($socket, $n) = @_;
	my $data = '';

	while (length $data < $n)
	{
		return undef unless sysread $socket, $data, $n - length $data, length $data;
	}
	return $data;
}

# Both ways to ask: a simple query, or one with parameters.
sub serve
{
	my ($socket, $seen) = @_;
	my $asked;

	# encryption, which it has not, is asked for first
	do
	{
		my $length = take($socket, 4) // return;

		$asked = unpack 'N', take($socket, unpack('N', $length) - 4) // return;
		syswrite $socket, 'N' if $asked >> 16 == 1234;
	} while $asked >> 16 == 1234;
	syswrite $socket, message('R', pack 'N', 0) . message('S', "server_version\0" . "15.0\0") . message('Z', 'I');
	my $reply = '';
	while (defined(my $head = take($socket, 5)))
	{
		my ($type, $size) = unpack 'aN', $head;
		my $body = take($socket, $size - 4) // return;
		my ($query) = $type eq 'Q' ? unpack('Z*', $body) : $type eq 'P' ? unpack('xZ*', $body) : '';

		if ($query ne '')
		{
			syswrite $seen, "$query\n";
			$reply .= ($type eq 'P' ? message('1', '') . message('2', '') : '') . answer($query);
			$reply .= message('C', "SELECT 1\0") if $reply !~ /not for you/;
		}
		next unless $type eq 'Q' || $type eq 'S';
		syswrite $socket, $reply . message('Z', 'I');
		$reply = '';
	}
	return;
}

my $listener = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die "socket: $!";
my $log = PostgreSQL::Test::Utils::tempdir() . '/queries';
my $server = fork // die "fork: $!";
if ($server == 0)
{
	open my $seen, '>>', $log or die "$log: $!";
	$seen->autoflush;
	while (my $socket = $listener->accept)
	{
		next if fork;
		serve($socket, $seen);
		close $socket;
		kill 'KILL', $$;
	}
	kill 'KILL', $$;
}

# ---- l asks it ----

my $started = value($l, 'SELECT pg_postmaster_start_time()');
my (undef, undef, $error) = $l->psql('postgres',
	"SELECT cascade_follow('fake', timeout => '10s', conninfo => 'host=127.0.0.1 port=" . $listener->sockport . "')");
kill 'KILL', $server;
waitpid $server, 0;
like($error, qr/ERROR:  cannot follow "fake": it cannot adopt this node/, 'l says what has gone wrong');
like($error, qr/not for you/, 'and what it was told');
like(slurp_file($log), qr/\@<-.*pg_drop_replication_slot/s, 'after it was refused, it has tried to undo it');
unlike($error, qr/server closed the connection/, 'and was not shaken by the answer');
is(value($l, 'SELECT pg_postmaster_start_time()'), $started, 'l has not stopped');
unlike(slurp_file($l->logfile), qr/terminated by signal|reinitializing/, 'nor has any process of it crashed');
add_rows($p, 1);
same_rows($p, $l);
wait_protected($l);

done_testing();
