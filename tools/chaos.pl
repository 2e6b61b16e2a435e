# tools/chaos.pl BINDIR DIRECTORY ROUNDS SEED	random faults; see tools/chaos
#
# One primary and its standbys, three to eight nodes, in a random tree.  A writer
# inserts rows and writes WAL all the time; segments are of 1 MB, and nothing
# keeps WAL but slots, so that what takes days elsewhere takes seconds.  In each
# round
#
#   - a node is made to lag: stopped, frozen, cut off, or not replaying;
#   - one or two faults come, anywhere;
#   - WAL is written, and removed wherever it may be;
#   - a node, a lagging one if there is one, loses its upstream (killed, frozen
#     or cut off) and is re-attached to an ancestor of it that cascade_relay says
#     is able to take it: the node has said protected = true, or the ancestor's
#     cascade_upstream_candidates says safe.  It must catch up;
#   - everything is healed and must become quiet.
#
# Violations, of which the first ends the run:
#
#   removed	a re-attach that was said to work meets "requested WAL segment
#		... has already been removed", or does not catch up
#   rows	a node that has caught up lacks a row
#   promise	a node says protected = true, or has said so before it went, and
#		the root's pg_wal lacks a file from its position on
#   frontier	the root's frontier is above what a protected node has replayed
#   crash	a server crashed that nobody killed: PANIC, TRAP, a signal
#   unsettled	after healing: a worker that is not back, a node that does not
#		stream or is not protected, a frontier that does not move, a tree
#		that is not complete on each node, within a minute
#
# What a DBA would do, this does: it starts what was killed, recreates a slot
# that an upstream has lost with its disk, rewinds or rebuilds what cannot go on
# and was not said to be protected, and drops slots that nobody uses any more,
# once all is quiet.
#
# Nodes reach one another through doors: a small forwarder has a port for each
# node and knows by the user name who calls (each node has a role of its own
# name).  It cuts a link without a word, or with a reset.
#
# The servers run with fsync = off.  Only processes are killed here, and what
# they have written stays in the kernel; a machine that loses its power is
# another matter.
#
# Needs Linux's /proc, and no Perl modules but those that come with it.

use strict;
use warnings FATAL => 'all';

use Fcntl qw(:DEFAULT);
use File::Path qw(remove_tree);
use IO::Handle;
use List::Util qw(first max min shuffle sum0);
use POSIX qw(:sys_wait_h strftime);
use Socket;
use Time::HiRes qw(time usleep);

my ($bindir, $run, $rounds, $seed) = @ARGV;
die "usage: chaos.pl BINDIR DIRECTORY ROUNDS SEED\n" unless defined $seed;

my $segment_size = 1024 * 1024;
my $patience = 60;          # seconds until what should become so has not
my $max_nodes = $ENV{CHAOS_NODES} || 8;
my @only = split ' ', $ENV{CHAOS_FAULTS} // '';

my %nodes;                  # by name
my $root;                   # the name of the primary
my @healing;                # what undoes the faults of this round: [about, code]
my %promised;               # node => {need, root}: when it last said protected
my $doubtful_until = 0;     # verdicts may lag behind what was done by hand
my @story;                  # of this round
my %count;                  # for the last line
my %log_offset;
my %killed;                 # pids that died by our hand
my %frozen;
my ($has_follow, $has_forget);    # what this version can do
my (%missing_wal, %diverged);    # nodes whose log has said so in this round
my %known_trap;
my %left_behind;            # "node slot" => since when
my ($proxy, $writer);
my $started = time;
my $first_port = $ENV{CHAOS_PORT} || 10000 + int(rand(20000));
my $main_pid = $$;

# ---- words ----

sub say_line
{
	my ($text) = @_;

	printf "[%4d s] %s\n", time - $started, $text;
	return;
}

sub note_event
{
	my ($text) = @_;

	push @story, $text;
	open my $fh, '>>', "$run/log/story" or die "$run/log/story: $!\n";
	print $fh strftime('%H:%M:%S', localtime) . sprintf('.%03d ', (time * 1000) % 1000) . "$text\n";
	close $fh;
	return;
}

sub violation
{
	my ($kind, $text) = @_;

	die "violation: $kind: $text\n";
}

sub pick { my @from = @_; return $from[ int rand @from ]; }

sub chance { my ($probability) = @_; return rand() < $probability; }

sub number
{
	my ($lsn) = @_;

	return unless defined $lsn && $lsn =~ m{^([0-9A-F]+)/([0-9A-F]+)$};
	return hex($1) << 32 | hex($2);
}

sub lsn { my ($n) = @_; return sprintf('%X/%X', $n >> 32, $n & 0xffffffff); }

sub segment { my ($n) = @_; return int($n / $segment_size); }

# ---- talking to a server ----
#
# The protocol is spoken here rather than by psql: a look at eight nodes many
# times a second has to be cheap, and no answer may be waited for for ever from
# a server whose processes are stopped.

sub wait_io
{
	my ($socket, $write, $deadline) = @_;
	my $bits = '';

	vec($bits, fileno $socket, 1) = 1;
	while (1)
	{
		my $left = $deadline - time;

		die "no answer\n" if $left <= 0;
		my ($r, $w) = ($write ? undef : $bits, $write ? $bits : undef);
		my $n = select($r, $w, undef, $left);
		return if $n > 0;
		die "select: $!\n" if $n < 0 && !$!{EINTR};
	}
	return;
}

sub send_all
{
	my ($socket, $data, $deadline) = @_;

	while (length $data)
	{
		my $n = syswrite($socket, $data);

		if (defined $n) { substr($data, 0, $n) = ''; next; }
		die "write: $!\n" unless $!{EAGAIN} || $!{EINTR};
		wait_io($socket, 1, $deadline);
	}
	return;
}

sub read_message
{
	my ($c, $deadline) = @_;

	while (1)
	{
		if (length $c->{buffer} >= 5)
		{
			my ($type, $length) = unpack('a N', $c->{buffer});

			if (length $c->{buffer} > $length)
			{
				my $body = substr($c->{buffer}, 5, $length - 4);

				substr($c->{buffer}, 0, $length + 1) = '';
				return ($type, $body);
			}
		}
		my $n = sysread($c->{socket}, $c->{buffer}, 65536, length $c->{buffer});

		next if $n;
		die "connection closed\n" if defined $n;
		die "read: $!\n" unless $!{EAGAIN} || $!{EINTR};
		wait_io($c->{socket}, 0, $deadline);
	}
	return;
}

# Reads up to ReadyForQuery; the rows, or dies with the server's words.
sub read_answer
{
	my ($c, $deadline) = @_;
	my (@rows, $error);

	while (1)
	{
		my ($type, $body) = read_message($c, $deadline);

		if ($type eq 'Z') { last; }
		elsif ($type eq 'D')
		{
			my ($n, @row) = unpack('n', $body);
			my $at = 2;

			for (1 .. $n)
			{
				my $length = unpack('l>', substr($body, $at, 4));

				$at += 4;
				push @row, $length < 0 ? undef : substr($body, $at, $length);
				$at += $length if $length > 0;
			}
			push @rows, \@row;
		}
		elsif ($type eq 'E')
		{
			my %field = map { substr($_, 0, 1) => substr($_, 1) } grep { length } split /\0/, $body;

			$error = "$field{S}: $field{M}" . ($field{D} ? " DETAIL: $field{D}" : '');
			die "$error\n" if $field{S} eq 'FATAL' || $field{S} eq 'PANIC';
		}
		elsif ($type eq 'R') { die "wants a password\n" if unpack('N', $body) != 0; }
	}
	die "$error\n" if defined $error;
	return \@rows;
}

sub pg_connect
{
	my ($port, $deadline) = @_;

	socket(my $socket, PF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
	$socket->blocking(0);
	until (connect($socket, pack_sockaddr_un("$run/s/.s.PGSQL.$port")))
	{
		die "connect: $!\n" unless ($!{EAGAIN} || $!{EINTR}) && time < $deadline;
		usleep(50_000);
	}
	my $c = { socket => $socket, buffer => '' };
	my $startup = pack('N', 196608)
	  . join('', map { "$_\0" } user => 'postgres', database => 'postgres', application_name => 'chaos') . "\0";

	send_all($socket, pack('N', 4 + length $startup) . $startup, $deadline);
	read_answer($c, $deadline);
	return $c;
}

sub pg_query
{
	my ($c, $sql, $deadline) = @_;

	send_all($c->{socket}, 'Q' . pack('N', 5 + length $sql) . "$sql\0", $deadline);
	return read_answer($c, $deadline);
}

# The rows of a query on a node, in a session of its own; dies if there is no
# answer in time.
sub rows
{
	my ($name, $sql, $timeout) = @_;
	my $deadline = time + ($timeout // 10);
	my $c = pg_connect($nodes{$name}{port}, $deadline);
	my $rows = pg_query($c, $sql, $deadline);

	eval { send_all($c->{socket}, 'X' . pack('N', 4), $deadline) };
	return $rows;
}

sub value
{
	my ($name, $sql, $timeout) = @_;
	my $rows = rows($name, $sql, $timeout);

	return @$rows ? $rows->[0][0] : undef;
}

# The same, or undef if that is not to be had.
sub try_value
{
	my ($name, $sql, $timeout) = @_;
	my $value = eval { value($name, $sql, $timeout // 3) };

	return $value;
}

# ---- helpers in processes of their own ----

# A child with a socket to this one.  It ends when this one does.
sub spawn
{
	my ($code) = @_;

	socketpair(my $mine, my $its, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!\n";
	my $pid = fork() // die "fork: $!\n";
	if (!$pid)
	{
		close $mine;
		$SIG{INT} = $SIG{TERM} = $SIG{HUP} = 'DEFAULT';
		$SIG{PIPE} = 'IGNORE';
		eval { $code->($its) };
		print STDERR "chaos: a helper died: $@" if $@;
		POSIX::_exit(1);
	}
	close $its;
	$mine->autoflush(1);
	return { pid => $pid, socket => $mine };
}

# --- the forwarder ---

# What is not known yet of a new connection: who calls.  Encryption is declined.
sub read_startup
{
	my ($link) = @_;

	while (length $link->{in}{buffer} >= 8)
	{
		my ($length, $code) = unpack('N N', $link->{in}{buffer});

		if ($code == 80877103 || $code == 80877104)
		{
			substr($link->{in}{buffer}, 0, 8) = '';
			syswrite($link->{in}{socket}, 'N');
			next;
		}
		return if length $link->{in}{buffer} < $length;
		$link->{from} = $code == 80877102 ? '' :
		  $link->{in}{buffer} =~ /\0user\0([^\0]+)\0/ || substr($link->{in}{buffer}, 8) =~ /^user\0([^\0]+)\0/ ? $1 : '';
		return;
	}
	return;
}

sub close_link
{
	my ($links, $link, $reset) = @_;

	for my $end (grep { $_->{socket} } $link->{in}, $link->{out})
	{
		setsockopt($end->{socket}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0)) if $reset;
		close $end->{socket};
	}
	delete $links->{$link};
	return;
}

sub tcp_listen
{
	my ($port) = @_;

	socket(my $socket, PF_INET, SOCK_STREAM, 0) or die "socket: $!\n";
	setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1);
	bind($socket, pack_sockaddr_in($port, INADDR_LOOPBACK)) or die "port $port: $!\n";
	listen($socket, 64) or die "listen: $!\n";
	$socket->blocking(0);
	return $socket;
}

sub accept_link
{
	my ($links, $door) = @_;

	accept(my $in, $door->{socket}) or return;
	$in->blocking(0);
	socket(my $out, PF_INET, SOCK_STREAM, 0) or return;
	$out->blocking(0);
	connect($out, pack_sockaddr_in($door->{port}, INADDR_LOOPBACK));
	my $link = {
		to => $door->{name},
		in => { socket => $in, buffer => '' },
		out => { socket => $out, buffer => '' } };
	$links->{$link} = $link;
	return;
}

# Reads from one end for the other.  False at the end.
sub pump_in
{
	my ($end) = @_;
	my $n = sysread($end->{socket}, $end->{buffer}, 65536, length $end->{buffer});

	return $n || !defined $n && ($!{EAGAIN} || $!{EINTR} || $!{ENOTCONN});
}

sub pump_out
{
	my ($from, $to) = @_;

	return 1 unless length $from->{buffer};
	my $n = syswrite($to->{socket}, $from->{buffer});

	substr($from->{buffer}, 0, $n) = '' if $n;
	return $n || $!{EAGAIN} || $!{EINTR} || $!{ENOTCONN} || $!{EINPROGRESS};
}

# Commands: "silent|reset|open FROM TO"; * is any node.
sub forward
{
	my ($control, @doors) = @_;
	my (%links, %rules);
	my $commands = '';

	$control->blocking(0);
	while (1)
	{
		my ($r, $w) = ('', '');
		my $rule = sub {
			my ($link) = @_;
			my ($from, $to) = @$link{qw(from to)};

			return '' unless defined $from;
			return $rules{"$from $to"} // $rules{"$from *"} // $rules{"* $to"} // '';
		};

		vec($r, fileno $control, 1) = 1;
		vec($r, fileno $_->{socket}, 1) = 1 for @doors;
		for my $link (values %links)
		{
			my $is = $rule->($link);

			if ($is eq 'reset') { close_link(\%links, $link, 1); next; }
			next if $is eq 'silent';
			for my $pair ([ $link->{in}, $link->{out} ], [ $link->{out}, $link->{in} ])
			{
				my ($from, $to) = @$pair;

				vec($r, fileno $from->{socket}, 1) = 1 if length $from->{buffer} < 262144;
				vec($w, fileno $to->{socket}, 1) = 1 if length $from->{buffer} && defined $link->{from};
			}
		}
		my $n = select($r, $w, undef, 1);

		next if $n < 0;
		if (vec($r, fileno $control, 1))
		{
			my $got = sysread($control, $commands, 4096, length $commands);

			POSIX::_exit(0) if defined $got && $got == 0;
			while ($commands =~ s/^(\w+) (\S+ \S+)\n//)
			{
				if ($1 eq 'open') { delete $rules{$2}; }
				else { $rules{$2} = $1; }
			}
			next;
		}
		for my $door (@doors)
		{
			accept_link(\%links, $door) if vec($r, fileno $door->{socket}, 1);
		}
		for my $link (values %links)
		{
			next if $rule->($link);
			my ($in, $out) = @$link{qw(in out)};
			my $ok = 1;

			$ok &&= pump_in($in) if vec($r, fileno $in->{socket}, 1);
			$ok &&= pump_in($out) if vec($r, fileno $out->{socket}, 1);
			read_startup($link) if !defined $link->{from};
			next if !defined $link->{from} && $ok;
			$ok = pump_out($in, $out) && pump_out($out, $in) && $ok unless $rule->($link);
			close_link(\%links, $link, 0) unless $ok;
		}
	}
	return;
}

sub proxy { my ($command) = @_; print { $proxy->{socket} } "$command\n"; return; }

# --- the writer ---

# Commands: "root PORT", "pause" (answered), "go", "burst SEGMENTS" (answered).
# Row numbers are never used twice, so that a row that may or may not have been
# committed does no harm.
sub write_load
{
	my ($control) = @_;
	my ($port, $c);
	my ($paused, $burst, $n, $commands) = (1, 0, 0, '');

	$control->blocking(0);
	while (1)
	{
		my $r = '';

		vec($r, fileno $control, 1) = 1;
		if (select($r, undef, undef, $burst ? 0 : 0.05) > 0)
		{
			my $got = sysread($control, $commands, 4096, length $commands);

			POSIX::_exit(0) if defined $got && $got == 0;
			while ($commands =~ s/^(\w+) ?(\d*)\n//)
			{
				if ($1 eq 'root') { $port = $2; undef $c; }
				elsif ($1 eq 'pause') { $paused = 1; syswrite($control, "\n"); }
				elsif ($1 eq 'go') { $paused = 0; }
				else { $burst = 4 * $2; }
			}
		}
		next if $paused && !$burst || !$port;
		eval {
			my $deadline = time + 2;

			$c //= pg_connect($port, $deadline);
			my $size = $burst ? 260_000 : 20_000;

			$n++;
			pg_query($c, "INSERT INTO kept SELECT n, repeat('x', 100) FROM generate_series(5 * $n, 5 * $n + 4) n", $deadline);
			pg_query($c, "SELECT pg_logical_emit_message(false, 'fill', repeat('x', $size))", $deadline);
			1;
		} or do { undef $c; usleep(100_000); syswrite($control, "\n") if $burst; $burst = 0; next; };
		syswrite($control, "\n") if $burst && --$burst == 0;
	}
	return;
}

sub writer
{
	my ($command, $answer) = @_;

	print { $writer->{socket} } "$command\n";
	return unless $answer;
	my $deadline = time + 20;

	wait_io($writer->{socket}, 0, $deadline);
	sysread($writer->{socket}, my $answered, 1) or die "the writer is gone\n";
	return;
}

sub write_segments { my ($n) = @_; writer("burst $n", 1); return; }

# ---- programs ----

# Runs a program, with a bound on its time; its output goes to the log.
sub run_program
{
	my ($timeout, @command) = @_;
	my $pid = fork() // die "fork: $!\n";

	if (!$pid)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$run/log/programs";
		open STDERR, '>&', \*STDOUT;
		$SIG{INT} = $SIG{TERM} = $SIG{HUP} = $SIG{PIPE} = 'DEFAULT';
		print STDERR join(' ', strftime('%H:%M:%S', localtime), @command), "\n";
		exec @command or POSIX::_exit(127);
	}
	my $deadline = time + $timeout;

	while (waitpid($pid, WNOHANG) == 0)
	{
		if (time > $deadline)
		{
			kill 'KILL', $pid;
			waitpid($pid, 0);
			note_event("$command[0] took more than $timeout s");
			return 0;
		}
		usleep(20_000);
	}
	return $? == 0;
}

sub pg_ctl
{
	my ($name, @arguments) = @_;

	return run_program(70, "$bindir/pg_ctl", '-s', '-D', $nodes{$name}{dir}, @arguments);
}

# ---- nodes ----

sub new_node
{
	my ($name) = @_;
	my ($i) = $name =~ /(\d+)/;

	$nodes{$name} = {
		name => $name, port => $first_port + $i, door => $first_port + 20 + $i,
		dir => "$run/$name", log => "$run/log/$name", upstream => undef, slot => $name, conf => {} };
	return $nodes{$name};
}

sub in_order { return sort { substr($a, 1) <=> substr($b, 1) } @_; }

sub standbys { return grep { $_ ne $root } in_order(keys %nodes); }

sub children { my ($name) = @_; return grep { ($nodes{$_}{upstream} // '') eq $name } in_order(keys %nodes); }

# From its upstream to the root.
sub ancestors
{
	my ($name) = @_;
	my @above;

	while (defined(my $up = $nodes{$name}{upstream}))
	{
		push @above, $up;
		$name = $up;
	}
	return @above;
}

sub is_below
{
	my ($name, $above) = @_;

	return scalar grep { $_ eq $above } ancestors($name);
}

sub subtree
{
	my ($name) = @_;

	return ($name, map { subtree($_) } children($name));
}

sub postmaster_pid
{
	my ($name) = @_;

	open my $fh, '<', "$nodes{$name}{dir}/postmaster.pid" or return;
	my $pid = <$fh>;

	return unless defined $pid && $pid =~ /^(\d+)$/;
	return $1 if (readlink("/proc/$1/cwd") // '') eq $nodes{$name}{dir};
	return;
}

sub is_up { my ($name) = @_; return defined postmaster_pid($name); }

# Processes of a node, by what ps shows of them: pid => title.
sub processes
{
	my ($name) = @_;
	my %found;

	for my $proc (glob '/proc/[0-9]*')
	{
		next unless (readlink("$proc/cwd") // '') eq $nodes{$name}{dir};
		open my $fh, '<', "$proc/cmdline" or next;
		my $title = do { local $/; <$fh> } // '';

		$title =~ s/\0.*//s;
		$found{ substr($proc, 6) } = $title;
	}
	return \%found;
}

my %titles = (
	worker => qr/^postgres: cascade_relay/,
	walsender => qr/^postgres: walsender/,
	walreceiver => qr/^postgres: walreceiver/,
	startup => qr/^postgres: startup/,
	checkpointer => qr/^postgres: checkpointer/,
	session => qr/^postgres: n\d+ postgres /);

sub process_of
{
	my ($name, $kind) = @_;
	my $found = processes($name);

	return pick(sort { $a <=> $b } grep { $found->{$_} =~ $titles{$kind} } keys %$found);
}

# All of a node's settings that are its own; the common ones are in
# postgresql.conf, which base backups carry along.
sub write_conf
{
	my ($name) = @_;
	my $node = $nodes{$name};
	my %conf = (
		port => $node->{port},
		'cascade_relay.node_name' => $name,
		'cascade_relay.advertised_conninfo' => "host=127.0.0.1 port=$node->{door}",
		%{ $node->{conf} });
	my $file = "$node->{dir}/postgresql.auto.conf";

	if (defined $node->{upstream})
	{
		$conf{primary_conninfo} =
		  "host=127.0.0.1 port=$nodes{$node->{upstream}}{door} user=$name application_name=$name sslmode=disable gssencmode=disable";
		$conf{primary_slot_name} = $node->{slot};
	}
	open my $fh, '>', "$file.new" or die "$file: $!\n";
	print $fh "$_ = '" . ($conf{$_} =~ s/'/''/gr) . "'\n" for sort keys %conf;
	close $fh;
	rename "$file.new", $file or die "$file: $!\n";
	return;
}

sub reload
{
	my ($name) = @_;
	my $pid = postmaster_pid($name) // return;

	write_conf($name);
	kill 'HUP', $pid;
	return;
}

sub make_standby_signal
{
	my ($name) = @_;

	open my $fh, '>', "$nodes{$name}{dir}/standby.signal" or die "standby.signal: $!\n";
	return;
}

# A server that was killed has left its lock file, and its pid may belong to a
# process again, if only to a dead one that nobody has buried yet.
sub remove_lock_file
{
	my ($name) = @_;

	unlink "$nodes{$name}{dir}/postmaster.pid" unless %{ processes($name) };
	return;
}

# Starts a node.  One that was killed has left processes that hold its shared
# memory for a moment longer.
sub start_node
{
	my ($name) = @_;
	my $deadline = time + $patience;

	return if is_up($name);
	write_conf($name);
	remove_lock_file($name);
	until (pg_ctl($name, '-w', '-t', 60, '-l', $nodes{$name}{log}, 'start'))
	{
		scan_logs();
		violation('unsettled', "$name does not start") if time > $deadline;
		usleep(200_000);
		remove_lock_file($name);
	}
	return;
}

sub stop_node
{
	my ($name, $mode) = @_;

	return unless is_up($name);
	pg_ctl($name, '-w', '-t', 60, '-m', $mode, 'stop')
	  or violation('unsettled', "$name does not stop ($mode)");
	return;
}

# The whole node is gone at once.
sub kill_node
{
	my ($name) = @_;
	my $found = processes($name);

	$killed{$_} = 1 for keys %$found;
	kill 'KILL', keys %$found;
	while (%{ processes($name) }) { usleep(20_000); }
	return;
}

sub freeze { my (@pids) = @_; $frozen{$_} = 1 for @pids; kill 'STOP', @pids; return; }
sub thaw { my (@pids) = @_; kill 'CONT', @pids; delete @frozen{@pids}; return; }

sub await
{
	my ($what, $code) = @_;
	my $deadline = time + $patience;

	until ($code->())
	{
		violation('unsettled', "not so after $patience s: $what") if time > $deadline;
		watch();
		usleep(100_000);
	}
	return;
}

sub await_sql
{
	my ($name, $sql, $what) = @_;

	return await($what // "$name: $sql", sub { return (try_value($name, $sql) // '') eq 't' });
}

sub root_lsn { return value($root, 'SELECT pg_current_wal_flush_lsn()'); }

sub drop_slot
{
	my ($name, $slot) = @_;

	try_value($name, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '$slot' AND active");
	await("slot $slot of $name can be dropped",
		sub {
			return eval {
				rows($name, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '$slot'");
				1; } });
	return;
}

# ---- making a tree ----

sub init_primary
{
	my ($name) = @_;
	my $node = new_node($name);

	run_program(120, "$bindir/initdb", '-D', $node->{dir}, '-U', 'postgres', '-A', 'trust',
		'--locale=C', '-E', 'UTF8', '--wal-segsize=1', '--no-sync')
	  or die "initdb failed, see $run/log/programs\n";
	open my $fh, '>>', "$node->{dir}/postgresql.conf" or die "postgresql.conf: $!\n";
	print $fh <<"END";
listen_addresses = '127.0.0.1'
unix_socket_directories = '$run/s'
shared_preload_libraries = 'cascade_relay'
cascade_relay.report_interval = 200ms
cascade_relay.stale_timeout = 2s
cascade_relay.min_free_percent = 0
wal_keep_size = 0
min_wal_size = 2MB
max_wal_size = 8MB
checkpoint_timeout = 30s
checkpoint_warning = 0
wal_log_hints = on
fsync = off
wal_retrieve_retry_interval = 200ms
wal_receiver_timeout = 3s
wal_sender_timeout = 3s
max_wal_senders = 20
max_replication_slots = 20
max_connections = 40
shared_buffers = 16MB
autovacuum = off
jit = off
log_line_prefix = '%m [%p] %b %q%a '
END
	close $fh;
	if ($seed % 2)
	{
		# a voting node, which holds for all when it is promoted
		open $fh, '>>', "$node->{dir}/postgresql.conf" or die "postgresql.conf: $!\n";
		print $fh "synchronous_standby_names = 'ANY 1 (n2, n3)'\nsynchronous_commit = local\n";
		close $fh;
	}
	start_node($name);
	rows($name, 'CREATE EXTENSION cascade_relay');
	$has_follow = value($name, q{SELECT to_regproc('cascade_follow') IS NOT NULL}) eq 't';
	$has_forget = value($name, q{SELECT to_regproc('cascade_forget') IS NOT NULL}) eq 't';
	rows($name, 'CREATE TABLE kept (n bigint, t text)');
	rows($name, "CREATE ROLE n$_ LOGIN REPLICATION") for 1 .. $max_nodes;
	return;
}

# A clone, with the slot made by pg_basebackup.
sub clone_node
{
	my ($name, $from) = @_;
	my $node = $nodes{$name} // new_node($name);

	for my $try (1 .. 3)
	{
		drop_slot($from, $name);
		remove_tree($node->{dir});
		last if run_program(120, "$bindir/pg_basebackup", '-D', $node->{dir}, '-h', "$run/s", '-p', $nodes{$from}{port},
			'-U', 'postgres', '-X', 'stream', '-c', 'fast', '-C', '-S', $name, '--no-sync');
		violation('unsettled', "pg_basebackup of $name from $from failed") if $try == 3;
	}
	$node->{upstream} = $from;
	$node->{slot} = $name;
	$node->{conf} = {};
	make_standby_signal($name);
	delete $promised{$name};
	start_node($name);
	make_slots_for_children($name);
	return;
}

# A node that was built anew, or rewound, has lost the slots of those that
# stream from it.
sub make_slots_for_children
{
	my ($name) = @_;

	for my $slot (map { $nodes{$_}{slot} } children($name))
	{
		rows($name, "SELECT pg_create_physical_replication_slot('$slot', true) WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '$slot')");
	}
	return;
}

sub free_name { return first { !$nodes{$_} } map { "n$_" } 1 .. $max_nodes; }

# Deep rather than wide: what is interesting happens below an intermediate.
sub random_upstream
{
	my (@from) = @_;

	return pick(map { ($_) x (1 + ancestors($_)) } @from);
}

# ---- looking ----

# What each node says of itself; nodes that do not answer are not in it.
sub look
{
	my %seen;

	for my $name ($root, standbys())
	{
		next unless is_up($name);
		my $rows = eval {
			rows($name, q{
				SELECT s.incarnation, s.role, s.protected, s.upstream_name, s.upstream_state, s.worker_pid,
					CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END,
					s.frontier_lsn, s.pinned_by, s.upstream_held_lsn, s.hold_target_lsn,
					(SELECT path[1] FROM cascade_topology WHERE is_local LIMIT 1),
					(SELECT status FROM pg_stat_wal_receiver),
					CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() END,
					s.last_error, extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())
				FROM cascade_status s}, 2);
		} // next;
		my %s;

		@s{qw(incarnation role protected upstream upstream_state worker applied frontier
			  pinned_by held target root receiver received error age)} = @{ $rows->[0] // next };
		$s{$_} = number($s{$_}) for qw(applied frontier held target received);
		$s{protected} //= '';
		$seen{$name} = \%s;
	}
	return \%seen;
}

# The segments that a node has, whatever their timeline.
sub segments_of
{
	my ($name) = @_;
	my %have;

	opendir my $dir, "$nodes{$name}{dir}/pg_wal" or return \%have;
	for (readdir $dir)
	{
		$have{ hex($1) * 4096 + hex($2) } = 1 if /^[0-9A-F]{8}([0-9A-F]{8})([0-9A-F]{8})$/;
	}
	return \%have;
}

sub check_need
{
	my ($who, $need, $have, $end) = @_;

	for my $segment (segment($need) .. segment($end - 1))
	{
		next if $have->{$segment};
		violation('promise',
			"$who needs WAL from " . lsn($need) . " on, and $root lacks segment " . lsn($segment * $segment_size)
			  . ' (its flush position is ' . lsn($end) . ')');
	}
	return;
}

# The root's files were looked at between two looks at the nodes.  Whoever said
# true before and after was protected at that moment, and needed nothing newer
# than what it needs now.  Who has gone needs what it needed when it last said
# so.
sub check_promises
{
	my ($before, $have, $after) = @_;
	my $end = $before->{$root}{applied};
	my $in_doubt = time < $doubtful_until;

	for my $name (standbys())
	{
		my ($was, $is) = ($before->{$name}, $after->{$name});
		my $said = $was && $is && $was->{protected} eq 't' && $is->{protected} eq 't'
		  && ($was->{root} // '') eq $root && ($is->{root} // '') eq $root;

		if ($said)
		{
			next if $in_doubt;
			check_need($name, $is->{applied}, $have, $end);
			$promised{$name} = { need => $is->{applied}, root => $root };
			if ($is->{age} > 5 && segment($before->{$root}{frontier} // 0) > segment($is->{applied}))
			{
				violation('frontier', "$root has " . lsn($before->{$root}{frontier}) . ", and $name, which is protected, has replayed "
					  . lsn($is->{applied}));
			}
		}
		elsif ($promised{$name} && $promised{$name}{root} eq $root)
		{
			check_need("$name (down or in doubt)", max($promised{$name}{need}, $is ? $is->{applied} : 0), $have, $end);
		}
	}
	return;
}

my $last_look;

# One look at everything; called wherever something is waited for.
sub watch
{
	if (!defined $last_look || !$last_look->{$root} || $last_look->{$root}{role} ne 'primary')
	{
		$last_look = look();
	}
	my $have = segments_of($root);
	my $seen = look();

	check_promises($last_look, $have, $seen)
	  if $last_look->{$root} && $last_look->{$root}{role} eq 'primary' && $seen->{$root};
	$last_look = $seen;
	scan_logs();
	return $seen;
}

# What the servers have logged since the last time.
sub scan_logs
{
	for my $name (in_order(keys %nodes))
	{
		open my $fh, '<', $nodes{$name}{log} or next;
		seek $fh, $log_offset{$name} // 0, 0;
		while (my $line = <$fh>)
		{
			last unless $line =~ /\n$/;
			$log_offset{$name} = tell $fh;
			# PostgreSQL's own: a cascading walsender that has sent the first half
			# of a record on the old timeline, when the new one begins before it;
			# and a process that takes the place of one that was asleep when the
			# postmaster died
			if ($line =~ /TRAP:.*(sentPtr <= SendRqstPtr|latch->maybe_sleeping == false)/)
			{
				$known_trap{$name} = 1;
				$count{"PostgreSQL's own assertion: $1"}++;
			}
			elsif ($line =~ /terminated by signal 6/ && delete $known_trap{$name}) { next; }
			elsif ($line =~ /PANIC:|TRAP:|AddressSanitizer|runtime error:|\bstack smashing\b/
				|| $line =~ /terminated by signal (\d+)/ && $1 != 9)
			{
				violation('crash', "$name: $line");
			}
			$missing_wal{$name} = time if $line =~ /requested WAL segment \S+ has already been removed/;
			$diverged{$name} = time
			  if $line =~ /forked off current database system timeline|is behind recovery timeline|is not in this server's history/;
			$count{"log: " . ($line =~ s/^.*?(ERROR:.*)/$1/sr =~ s/\d+/N/gr =~ s/\s+$//r)}++
			  if $line =~ /\] cascade_relay .*ERROR:/;
		}
	}
	return;
}

# ---- faults: each does it, tells how to undo it, and returns what it did ----

sub undo_later
{
	my ($about, $code) = @_;

	push @healing, [ $about, $code ];
	return;
}

# Undoes what concerns these nodes, or everything; the last first.
sub heal
{
	my (@names) = @_;
	my %wanted = map { $_ => 1 } @names;
	my @kept;

	while (my $h = pop @healing)
	{
		if (@names && !grep { $wanted{$_} } @{ $h->[0] }) { unshift @kept, $h; next; }
		$h->[1]->();
	}
	@healing = @kept;
	return;
}

sub kill_process
{
	my ($name, $kind) = @_;
	my $pid = process_of($name, $kind) // return;

	$killed{$pid} = 1;
	kill 'KILL', $pid;
	return "kill $kind of $name";
}

sub freeze_process
{
	my ($name, $kind) = @_;
	my $pid = process_of($name, $kind) // return;

	freeze($pid);
	undo_later([$name], sub { thaw($pid); });
	return "freeze $kind of $name";
}

sub crash_node
{
	my ($name) = @_;

	kill_node($name);
	undo_later([$name], sub { start_node($name); });
	return "kill -9 all of $name";
}

# The postmaster only: its children notice, and go.
sub kill_postmaster
{
	my ($name) = @_;
	my $pid = postmaster_pid($name) // return;

	$killed{$pid} = 1;
	kill 'KILL', $pid;
	undo_later([$name], sub { start_node($name); });
	return "kill postmaster of $name";
}

sub freeze_node
{
	my ($name) = @_;
	my @pids = keys %{ processes($name) };

	freeze(@pids);
	undo_later([$name], sub { thaw(@pids); });
	return "freeze $name";
}

sub restart_node
{
	my ($name) = @_;
	my $mode = pick(qw(immediate fast smart));

	# a smart shutdown waits for sessions; the writer's is one
	writer('root 0') if $name eq $root;
	stop_node($name, $mode);
	start_node($name);
	writer("root $nodes{$root}{port}") if $name eq $root;
	return "restart $name ($mode)";
}

sub stop_for_a_while
{
	my ($name) = @_;
	my $mode = pick(qw(immediate fast));

	stop_node($name, $mode);
	undo_later([$name], sub { start_node($name); });
	return "stop $name ($mode)";
}

sub cut_link
{
	my ($name) = @_;
	my $up = $nodes{$name}{upstream} // return;
	my $how = pick(qw(silent reset));

	proxy("$how $name $up");
	undo_later([$name], sub { proxy("open $name $up"); });
	return "cut $name from $up ($how)";
}

sub isolate
{
	my ($name) = @_;
	my $how = pick(qw(silent reset));

	proxy("$how $name *");
	proxy("$how * $name");
	undo_later([$name], sub { proxy("open $name *"); proxy("open * $name"); });
	return "isolate $name ($how)";
}

sub pause_replay
{
	my ($name) = @_;

	return if $name eq $root;
	defined try_value($name, 'SELECT pg_wal_replay_pause() IS NULL') or return;
	undo_later([$name], sub { try_value($name, 'SELECT pg_wal_replay_resume()') if is_up($name); });
	return "pause $name";
}

# Nothing is done yet to these.
sub sound
{
	my %busy = map { $_ => 1 } map { @{ $_->[0] } } @healing;

	return grep { !$busy{$_} } @_;
}

# Like an HA manager that does not know it.
sub drop_hold
{
	my ($name) = @_;
	my $holds = eval { rows($name, 'SELECT slot_name, name FROM cascade_holds WHERE restart_lsn IS NOT NULL', 3) } // return;
	my ($slot, $child) = @{ pick(@$holds) // return };

	eval { rows($name, "SELECT pg_drop_replication_slot('$slot')", 3) } // return;
	give_up_promises($child);
	return "drop the hold for $child on $name";
}

# By hand, or by a setting, WAL was given up that these may need: nothing is
# promised any more, and what they say may be late.
sub give_up_promises
{
	my ($name, $seconds) = @_;

	delete @promised{ $nodes{$name} ? subtree($name) : () };
	$doubtful_until = max($doubtful_until, time + ($seconds // 4));
	return;
}

sub fill_slots
{
	my ($name) = @_;
	my $n = 0;

	$n++ while defined try_value($name, "SELECT pg_create_physical_replication_slot('filler_$n')");
	return unless $n;
	undo_later([$name],
		sub {
			await_sql($name, q{SELECT count(pg_drop_replication_slot(slot_name)) >= 0 FROM pg_replication_slots WHERE slot_name ~ '^filler'})
			  if is_up($name); });
	return "fill the slots of $name";
}

sub change_setting
{
	my ($name) = @_;
	my ($setting, $value) = @{ pick(
			[ 'cascade_relay.max_hold_size' => '3MB' ], [ 'cascade_relay.enabled' => 'off' ],
			[ 'cascade_relay.report_interval' => '2s' ], [ 'hot_standby_feedback' => 'on' ],
			[ 'max_slot_wal_keep_size' => '100MB' ]) };

	return if !is_up($name);
	if ($setting =~ /max_hold_size/)
	{
		give_up_promises($_, 3600) for $name, standbys();
	}
	$nodes{$name}{conf}{$setting} = $value;
	reload($name);
	undo_later([$name],
		sub {
			delete $nodes{$name}{conf}{$setting};
			is_up($name) ? reload($name) : write_conf($name);
			if ($setting =~ /max_hold_size/) { $doubtful_until = 0; give_up_promises($_) for standbys(); } });
	return "$setting = $value on $name";
}

my %faults = (
	crash => sub { return crash_node($_[0]); },
	postmaster => sub { return kill_postmaster($_[0]); },
	worker => sub { return kill_process($_[0], 'worker'); },
	walsender => sub { return kill_process($_[0], 'walsender'); },
	walreceiver => sub { return kill_process($_[0], 'walreceiver'); },
	session => sub { return kill_process($_[0], 'session'); },
	freeze => sub { return chance(0.4) ? freeze_node($_[0]) : freeze_process($_[0], pick(sort keys %titles)); },
	restart => sub { return restart_node($_[0]); },
	cut => sub { return cut_link($_[0]); },
	isolate => sub { return isolate($_[0]); },
	hold => \&drop_hold,
	slots => \&fill_slots,
	setting => \&change_setting);

my %ways_to_lag = (
	stop => \&stop_for_a_while,
	crash => \&crash_node,
	freeze => \&freeze_node,
	receiver => sub { return freeze_process($_[0], 'walreceiver'); },
	cut => \&cut_link,
	pause => \&pause_replay);

sub cause_fault
{
	my $kind = pick(@only ? @only : sort keys %faults);
	my $name = pick(sound(in_order(keys %nodes))) // return;
	# where everybody is now: what a node that goes down had promised to need
	watch();
	my $done = $faults{$kind}->($name) // return;

	$count{"fault $kind"}++;
	note_event($done);
	return;
}

# ---- a node goes to another upstream ----

# The one below $above on the way to $name.
sub branch_of
{
	my ($name, $above) = @_;

	return first { ($nodes{$_}{upstream} // '') eq $above } $name, ancestors($name);
}

# Whether the extension says that $name can go on from $above: how it says so.
sub verdict
{
	my ($name, $above, $seen) = @_;
	my $is = $seen->{$name};

	return 'protected' if $is && $is->{protected} eq 't' && ($is->{root} // '') eq $root && time >= $doubtful_until;
	return 'was protected' if !$is && $promised{$name} && $promised{$name}{root} eq $root;
	my $word = try_value($above,
		"SELECT verdict FROM cascade_upstream_candidates('$name', without => '$nodes{$name}{upstream}') WHERE upstream_name = '$above'");

	return 'safe' if ($word // '') eq 'safe';
	return;
}

sub point_at
{
	my ($name, $above) = @_;

	$nodes{$name}{upstream} = $above;
	write_conf($name);
	reload($name);
	return;
}

# The slot is copied from the hold, as doc/concepts.md has it by hand.
sub attach_by_copy
{
	my ($name, $above) = @_;
	my $branch = branch_of($name, $above);

	drop_slot($above, $name);
	my $made = value($above,
		"SELECT (pg_copy_physical_replication_slot(slot_name, '$name')).slot_name FROM cascade_holds WHERE name = '$branch' ORDER BY restart_lsn LIMIT 1");

	violation('removed', "$above has no hold for $branch, and $name was said to be protected") unless defined $made;
	$nodes{$name}{slot} = $name;
	point_at($name, $above);
	return;
}

sub attach_by_adopt
{
	my ($name, $above) = @_;

	# where it is, the new upstream has heard of late, if it was cut off
	my $at = try_value($name, q{SELECT quote_literal(pg_last_wal_replay_lsn())}, 1) // 'NULL';

	# as the node itself would: anybody with REPLICATION may
	eval { rows($above, "SET ROLE $name; SELECT cascade_adopt('$name', lsn => $at)"); 1; } or do {
		my $error = $@ =~ s/\n//r;

		note_event("adopt of $name on $above: $error");

		# of a node that is down, where it was last seen is all that is known
		if ($error =~ /is not here/ && $at eq 'NULL')
		{
			$count{'adopt refused: heard of too long ago'}++;
			return attach_by_copy($name, $above);
		}
		die "$error\n" unless $error =~ /cannot be kept/;

		# as the hint has it
		$count{'adopt: not before a checkpoint'}++;
		rows($above, 'CHECKPOINT');
		await("$above adopts $name after a checkpoint",
			sub { return eval { rows($above, "SET ROLE $name; SELECT cascade_adopt('$name', lsn => $at)"); 1; } });
	};
	$nodes{$name}{slot} = "cascade_adopted_$name";
	point_at($name, $above);
	return;
}

sub attach_by_follow
{
	my ($name, $above) = @_;

	my $deadline = time + 6;
	my $address = '';

	# what it knows of the others may be a moment old; and who was restarted
	# while its upstream was gone knows nobody
	until (eval { rows($name, "SELECT cascade_follow('$above', timeout => '30s'$address)", 40); 1; })
	{
		my $error = $@ =~ s/\n//r;

		die $@ if $error !~ /^ERROR: cannot follow/ || time > $deadline;
		note_event("follow of $name to $above: $error");
		if ($error =~ /does not say where it is|unknown-upstream/)
		{
			$address = ", 'host=127.0.0.1 port=$nodes{$above}{door}'";
			$count{'follow: had to be told the address'}++;
		}
		elsif ($error =~ /cannot be kept/)
		{
			$count{'follow: not before a checkpoint'}++;
			rows($above, 'CHECKPOINT');
		}
		else { $count{'follow: refused at first'}++; }
		usleep(500_000);
	}
	$nodes{$name}{upstream} = $above;
	$nodes{$name}{slot} = value($name, 'SHOW primary_slot_name');
	return;
}

# A slot of the ordinary kind, for a node that needs nothing old.
sub attach_by_slot
{
	my ($name, $above) = @_;

	drop_slot($above, $name);
	rows($above, "SELECT pg_create_physical_replication_slot('$name', true)");
	$nodes{$name}{slot} = $name;
	point_at($name, $above);
	return;
}

my %ways_to_attach = (
	copy => \&attach_by_copy,
	adopt => \&attach_by_adopt,
	follow => \&attach_by_follow,
	slot => \&attach_by_slot);

# How to attach, of several ways: what is there, and what can be done to a node
# that may be down.
sub way_to_attach
{
	my ($name, @ways) = @_;

	@ways = grep { $_ ne 'follow' || $has_follow && defined try_value($name, 'SELECT 1', 1) } @ways;
	return pick(@ways);
}

sub lose_upstream
{
	my ($name) = @_;
	my $up = $nodes{$name}{upstream};
	my $how = sound($up) ? pick(qw(crash stop freeze silent reset)) : 'crash';

	if ($how eq 'crash') { crash_node($up); }
	elsif ($how eq 'stop') { stop_node($up, 'immediate'); undo_later([$up], sub { start_node($up); }); }
	elsif ($how eq 'freeze') { freeze_node($up); }
	else
	{
		proxy("$how $name $up");
		undo_later([$up], sub { proxy("open $name $up"); });
	}
	return "$up lost ($how)";
}

sub caught_up
{
	my ($name, $lsn) = @_;

	return (try_value($name, "SELECT pg_last_wal_replay_lsn() >= '$lsn'", 2) // '') eq 't';
}

sub lag_of
{
	my ($name, $seen) = @_;
	my $at = $seen->{$name} ? $seen->{$name}{applied} : $promised{$name} ? $promised{$name}{need} : undef;

	return 0 unless defined $at && $seen->{$root};
	return segment($seen->{$root}{applied}) - segment($at);
}

sub reattach
{
	my $seen = watch();
	my @able = grep { $nodes{$_}{upstream} ne $root } standbys();
	my @lagging = grep { lag_of($_, $seen) >= 2 } @able;

	return unless @able;
	my $name = pick(@lagging && chance(0.9) ? @lagging : @able);
	my ($up, @above) = ancestors($name);
	my $above = pick(@above);
	# who is to feed it must be able to
	heal($above, ancestors($above));
	await("$above and what is above it is fed",
		sub {
			my $now = watch();
			return !grep { !$now->{$_} || $_ ne $root && ($now->{$_}{receiver} // '') ne 'streaming' } $above, ancestors($above);
		});
	my $says = verdict($name, $above, watch());

	if (!defined $says)
	{
		$count{'re-attach: nobody able'}++;
		note_event("$name cannot go to $above");
		return;
	}
	my $lag = lag_of($name, watch());

	delete $missing_wal{$name};
	note_event("$name to go to $above: $says, $lag segments behind");
	note_event(lose_upstream($name));
	if ($says ne 'safe' && chance(0.5))
	{
		write_segments(1 + int rand 5);
		eval { rows($_, 'CHECKPOINT') } for $root, $above;
	}
	my $lsn = root_lsn();
	my $began = time;

	my $way = way_to_attach($name, $says eq 'safe' ? qw(adopt follow) : qw(copy adopt follow));

	if ($way eq 'follow')
	{
		# it has to be at work for that; but back to its upstream it must not
		heal($name);
		proxy("reset $name $up");
		undo_later([$up], sub { proxy("open $name $up"); });
	}
	$ways_to_attach{$way}->($name, $above);
	heal($name);
	$count{"re-attach: $says"}++;
	$count{"re-attach by $way"}++;
	await("$name catches up with $lsn below $above ($says)",
		sub {
			scan_logs();
			violation('removed', "$name was to go on below $above ($says), and the WAL is not there")
			  if $missing_wal{$name};
			return caught_up($name, $lsn);
		});
	$count{'re-attach of one that lagged, as promised'}++ if $says ne 'safe' && $lag >= 2;
	note_event(sprintf('%s: %s -> %s (%s, %s, %d behind, %.1f s)', $name, $up, $above, $says, $way, $lag, time - $began));
	return;
}

# A planned move, to anywhere that is said to be safe: so that trees do not
# become flat.
sub move
{
	my $name = pick(standbys());
	my @to = grep { $_ ne $name && $_ ne $nodes{$name}{upstream} && !is_below($_, $name) } in_order(keys %nodes);
	my $up = $nodes{$name}{upstream};
	my $above = random_upstream(@to) // return;
	my $word = try_value($above, "SELECT verdict FROM cascade_upstream_candidates('$name') WHERE upstream_name = '$above'");

	return note_event("$name may not move to $above") if ($word // '') ne 'safe';
	my $way = way_to_attach($name, qw(adopt follow slot));
	my $lsn = root_lsn();

	delete $missing_wal{$name};
	$ways_to_attach{$way}->($name, $above);
	await("$name catches up with $lsn below $above (moved by $way)",
		sub {
			scan_logs();
			violation('removed', "$name was to move to $above ($way), and the WAL is not there")
			  if $missing_wal{$name};
			return caught_up($name, $lsn)
			  && (try_value($name, 'SELECT upstream_name FROM cascade_status WHERE last_report_time IS NOT NULL', 2) // '') eq $above;
		});
	$count{"move by $way"}++;
	note_event("move $name: $up -> $above ($way)");
	return;
}

# ---- nodes come, go, and are built anew ----

sub join_node
{
	my $name = free_name() // return;
	my $from = random_upstream(in_order(keys %nodes));

	clone_node($name, $from);
	$count{join}++;
	note_event("join $name below $from");
	return;
}

# Of a node that was stopped this moment the upstream may see sessions still.
sub forget_stopped
{
	my ($node, $sql) = @_;
	my $deadline = time + 10;

	until (eval { rows($node, $sql); 1; })
	{
		die $@ if $@ !~ /is live/ || time > $deadline;
		usleep(50_000);
	}
	return;
}

sub remove_node
{
	my $name = pick(grep { !children($_) } standbys()) // return;
	my $up = $nodes{$name}{upstream};

	return if keys %nodes < 4;
	kill_node($name);
	remove_tree($nodes{$name}{dir});
	# also where it was before, if it has left there a moment ago
	for my $node (grep { $_ ne $name } in_order(keys %nodes))
	{
		next unless value($node, "SELECT count(*) > 0 FROM cascade_holds WHERE name = '$name'") eq 't';
		forget_stopped($node, $has_forget ? "SELECT cascade_forget('$name', true)" : "SELECT cascade_release('$name')");
	}
	drop_slot($up, $_)
	  for map { $_->[0] } @{ rows($up, "SELECT slot_name FROM pg_replication_slots WHERE slot_name IN ('$nodes{$name}{slot}') OR slot_name LIKE 'cascade_relay_${name}_%'") };
	delete $promised{$name};
	delete $nodes{$name};
	$count{remove}++;
	note_event("remove $name from $up");
	return;
}

# Its disk is gone.  Those below it go on, if they can.
sub rebuild_node
{
	my $name = pick(standbys());
	my $from = random_upstream(grep { $_ ne $name && !is_below($_, $name) } in_order(keys %nodes));

	kill_node($name);
	clone_node($name, $from);
	$count{rebuild}++;
	note_event("rebuild $name from $from");
	return;
}

# A node that is on another history than the primary.
sub rewind_node
{
	my ($name, $above) = @_;

	stop_node($name, 'fast');
	remove_lock_file($name);
	if (!run_program(120, "$bindir/pg_rewind", '-D', $nodes{$name}{dir}, '--no-sync',
			"--source-server=host=$run/s port=$nodes{$root}{port} user=postgres dbname=postgres"))
	{
		$count{'rebuild: pg_rewind could not'}++;
		note_event("rebuild $name, which pg_rewind could not");
		return clone_node($name, $above);
	}
	delete $promised{$name};
	$count{rewind}++;
	note_event("rewind $name");
	attach_rewound($name, $above);
	return;
}

sub attach_rewound
{
	my ($name, $above) = @_;

	$nodes{$name}{upstream} = $above;
	$nodes{$name}{slot} = $name;
	make_standby_signal($name);
	eval { attach_by_adopt($name, $above); 1; } or do {
		note_event("adopt of $name on $above: " . ($@ =~ s/\n//r));
		attach_by_slot($name, $above);
	};
	write_conf($name);
	remove_lock_file($name);

	# it goes on from the last checkpoint that it shares with the new primary,
	# and nobody has held the WAL from there on for it
	if (!pg_ctl($name, '-w', '-t', 15, '-l', $nodes{$name}{log}, 'start'))
	{
		kill_node($name);
		remove_lock_file($name);
		$count{'rebuild: no WAL after pg_rewind'}++;
		note_event("rebuild $name, which has no WAL after pg_rewind");
		return clone_node($name, $above);
	}
	make_slots_for_children($name);
	return;
}

# Where the new primary left the old timeline.
sub switch_point
{
	my $timeline = value($root, q{SELECT upper(lpad(to_hex(timeline_id), 8, '0')) FROM pg_control_checkpoint()});
	my $history = value($root, "SELECT pg_read_file('pg_wal/$timeline.history')");

	return number((split ' ', (split /\n/, $history)[-1])[1]);
}

# Until a node that receives nothing any more has replayed what there is.  The
# last record may be half there.
sub await_replayed
{
	my ($name) = @_;
	my $last = '';

	await("$name has replayed all that it has",
		sub {
			my $now = try_value($name, q{SELECT pg_last_wal_replay_lsn()
				WHERE NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')}) // return;
			my $same = $now eq $last;

			$last = $now;
			usleep(300_000);
			return $same;
		});
	return;
}

# What a node has, of which nothing may be beyond the switch.
sub has_received
{
	my ($name) = @_;

	return number(value($name, 'SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())'));
}

# A child of the primary takes over: a failover, or a switchover.  What was
# below it goes on there; the others have to follow it, rewound if they have
# more than it; and so has the old primary.
sub promote
{
	my $old = $root;
	my $planned = chance(0.4);
	my @able = children($old);
	my $seen = watch();

	@able = grep { $seen->{$_} && ($seen->{$_}{receiver} // '') eq 'streaming' } @able;
	return unless @able;
	my $new = chance(0.7) ? (sort { $seen->{$b}{received} <=> $seen->{$a}{received} } @able)[0] : pick(@able);

	writer('root 0');
	$planned ? stop_node($old, 'fast') : kill_node($old);
	await_replayed($new);
	rows($new, 'SELECT pg_promote()', 70);
	$root = $new;
	$nodes{$new}{upstream} = undef;
	%promised = ();
	$last_look = undef;
	write_conf($new);
	await_sql($new, 'SELECT NOT pg_is_in_recovery()');
	rows($new, 'CHECKPOINT');
	writer("root $nodes{$new}{port}");
	note_event(($planned ? 'switchover' : 'failover') . " from $old to $new");
	$count{ $planned ? 'switchover' : 'failover' }++;

	my $switch = switch_point();

	for my $top (grep { $_ ne $new } children($old))
	{
		for my $name (subtree($top))
		{
			my $to = $name eq $top ? $new : $nodes{$name}{upstream};

			if (has_received($name) > $switch) { rewind_node($name, $to); }
			elsif ($name eq $top) { follow_new_primary($name); }
		}
	}
	rewind_node($old, chance(0.5) ? $new : random_upstream(subtree($new)));
	return;
}

# The new primary may have what it needs, but nothing was held there for it.
sub follow_new_primary
{
	my ($name) = @_;

	eval { attach_by_adopt($name, $root); 1; } or do {
		note_event("adopt of $name on $root: " . ($@ =~ s/\n//r));
		attach_by_slot($name, $root);
	};
	return;
}

# What cannot go on where it is: it goes to the root, if that was promised, else
# it is built anew.
sub repair
{
	my ($name) = @_;

	note_event("$name cannot go on below $nodes{$name}{upstream}");
	if ($diverged{$name})
	{
		delete $diverged{$name};
		return rewind_node($name, $nodes{$name}{upstream});
	}
	delete $missing_wal{$name};
	my $says = verdict($name, $root, watch());

	if (defined $says && $nodes{$name}{upstream} ne $root)
	{
		attach_by_adopt($name, $root);
		$count{"repair: $says"}++;
		note_event("$name -> $root ($says)");
		return;
	}
	violation('removed', "$name cannot go on below $root, and it was said to be $says") if defined $says && $says ne 'safe';
	kill_node($name);
	clone_node($name, $root);
	$count{'repair: rebuilt, was not protected'}++;
	note_event("rebuild $name, which was not protected");
	return;
}

# ---- afterwards ----

# What is not yet as it must become; nothing if all is well.
sub unsettled
{
	my ($lsn) = @_;
	my $seen = watch();
	my $need = number($lsn);

	for my $name ($root, standbys())
	{
		my $is = $seen->{$name} or return "$name does not answer";

		return "$name has no worker" unless $is->{worker};
		next if $name eq $root;
		return "$name does not stream" if ($is->{receiver} // '') ne 'streaming';
		return "$name is behind: " . lsn($is->{applied}) . " of $lsn" if $is->{applied} < $need;
		return "$name is $is->{upstream_state}: " . ($is->{error} // '') if $is->{upstream_state} ne 'connected';
		return "$name reports to " . ($is->{upstream} // 'nobody') . ", not to $nodes{$name}{upstream}"
		  if ($is->{upstream} // '') ne $nodes{$name}{upstream};
		return "$name is not protected ($is->{protected})" if $is->{protected} ne 't';
	}
	for my $name ($root, standbys())
	{
		my $is = $seen->{$name};

		return "the frontier of $name is at " . lsn($is->{frontier} // 0) . ", not yet at $lsn; pinned by " . ($is->{pinned_by} // '')
		  if segment($is->{frontier} // 0) < segment($need);
	}
	return tree_is_wrong($seen);
}

# Every node must show every node, live and below its upstream.
sub tree_is_wrong
{
	my ($seen) = @_;
	my $expected = join ', ', map { "$_ < " . ($nodes{$_}{upstream} // '-') . " $seen->{$_}{incarnation}" } in_order(keys %nodes);

	for my $name ($root, standbys())
	{
		my $rows = eval {
			rows($name, q{SELECT node_name, upstream_name, state FROM cascade_topology
				WHERE managed AND state IN ('running', 'streaming', 'catchup')}, 3);
		} // return "$name does not show the tree: $@";
		my %row = map { $_->[0] => $_->[1] // '-' } @$rows;
		my $shown = join ', ', map { "$_ < $row{$_}" } in_order(keys %row);
		my $wanted = join ', ', map { "$_ < " . ($nodes{$_}{upstream} // '-') } in_order(keys %nodes);

		return "$name shows $shown, not $wanted" if $shown ne $wanted || @$rows != keys %row;
	}
	return;
}

sub settle
{
	my $deadline = time + $patience;
	my $began = time;
	my ($lsn, $why);

	heal();
	$began = time;

	# so that who is stuck is left behind
	write_segments(2);
	writer('pause', 1);
	await("$root answers", sub { return defined($lsn = try_value($root, 'SELECT pg_current_wal_flush_lsn()')); });

	while (defined($why = unsettled($lsn)))
	{
		violation('unsettled', "$patience s after healing: $why") if time > $deadline;
		take_hints() if $why =~ /^the frontier/ && time > $began + 2;
		for my $name (grep { $nodes{$_} && max($missing_wal{$_} // 0, $diverged{$_} // 0) > $began } standbys())
		{
			next if $why !~ /^$name does not stream/ || time < $began + 2;
			repair($name);
			$deadline = time + $patience;
		}
		usleep(100_000);
	}
	check_rows();
	tidy();
	writer('go');
	return time - $began;
}

sub check_rows
{
	my $sql = "SELECT count(*) || ' rows, sum ' || coalesce(sum(n), 0) || ', last ' || coalesce(max(n), 0) FROM kept";
	my $expected = value($root, $sql);

	for my $name (standbys())
	{
		my $has = value($name, $sql);

		violation('rows', "$name has $has, and $root has $expected") if $has ne $expected;
	}
	return;
}

# Slots and holds of nodes that stream from here, and of this node itself.
sub slots_in_use
{
	my ($name) = @_;
	my %use = map { ("cascade_relay_${_}_$last_look->{$_}{incarnation}" => 1, $nodes{$_}{slot} => 1) } children($name);

	$use{"cascade_relay_${name}_$last_look->{$name}{incarnation}"} = 1;
	return \%use;
}

# What cascade_check of a node says that a DBA should do about what is left of
# moves and of former lives: [command, slot or node].
sub hints
{
	my ($name) = @_;
	my $use = slots_in_use($name);
	my %mine = map { $_ => 1 } children($name);
	my @found;

	for my $hint (map { $_->[0] } @{ rows($name, q{SELECT hint FROM cascade_check WHERE code = 'orphan_slot'}) })
	{
		push @found, [ $1, $2 ] while $hint =~ /SELECT \w+\.(cascade_forget|pg_drop_replication_slot)\('(\w+)'\)/g;
	}
	return grep { !$use->{ $_->[1] } && !($_->[0] eq 'cascade_forget' && $mine{ $_->[1] }) } @found;
}

sub take_hint
{
	my ($name, $command, $slot) = @_;

	note_event("$command('$slot') on $name, as cascade_check says");
	return drop_slot($name, $slot) if $command eq 'pg_drop_replication_slot';
	return if eval { rows($name, "SELECT cascade_forget('$slot')"); 1; };
	return if $@ =~ /is not a direct downstream/;    # it has gone by itself meanwhile
	note_event("$name: $@" =~ s/\n//r);
	$count{'forget: had to be forced'}++;
	rows($name, "SELECT cascade_forget('$slot', true)");
	return;
}

# What is left and keeps the frontier from going on: cascade_check has to name
# it, and the command.
sub take_hints
{
	for my $name (in_order(keys %nodes))
	{
		for my $hint (hints($name))
		{
			my ($command, $slot) = @$hint;

			$count{ $slot =~ /^cascade_relay/ ? 'hold that pinned, by hint' : 'slot that pinned, by hint' }++;
			take_hint($name, $command, $slot);
		}
	}
	return;
}

# What else is left of moves: ordinary slots, which a DBA drops; and holds, which
# go by themselves, or cascade_check says what to do.
sub tidy
{
	for my $name (in_order(keys %nodes))
	{
		my $use = slots_in_use($name);
		my %hints = map { $_->[1] => $_ } hints($name);
		my @left = grep { !$use->{$_} }
		  map { $_->[0] } @{ rows($name, 'SELECT slot_name FROM pg_replication_slots WHERE NOT active') };
		my %still = map { ("$name $_" => 1) } @left;

		for my $slot (@left)
		{
			my $since = $left_behind{"$name $slot"} //= time;

			if ($slot !~ /^cascade_relay_/)
			{
				$count{'slot left behind'}++;
				drop_slot($name, $slot);
			}
			elsif (time - $since > 10)
			{
				violation('unsettled', "hold $slot of $name is left, and cascade_check there does not say what to do about it")
				  unless $hints{$slot} || time - $since < 30;
				next unless $hints{$slot};
				$count{'hold left behind, by hint'}++;
				take_hint($name, $hints{$slot}[0], $slot);
			}
		}
		for my $gone (grep { /^$name / && !$still{$_} } keys %left_behind)
		{
			$count{'hold left behind, went by itself'}++ if $gone =~ /cascade_relay/ && time - $left_behind{$gone} <= 10;
			delete $left_behind{$gone};
		}
	}
	return;
}

# ---- a round ----

sub make_lag
{
	my $name = pick(standbys());
	my $done = $ways_to_lag{ pick(sort keys %ways_to_lag) }->($name) // return;

	note_event($done);
	return;
}

sub play_round
{
	return promote() if chance(0.07);
	if (chance(0.15)) { pick(\&join_node, \&join_node, \&remove_node, \&rebuild_node)->(); }
	for (1 .. 3) { move() if chance((grep { ancestors($_) > 1 } standbys()) < keys(%nodes) / 2 ? 0.8 : 0.2); }
	make_lag() if chance(0.8);
	cause_fault() for 1 .. 1 + int rand 2;
	my $segments = 1 + int rand 6;

	write_segments($segments);
	for my $name (grep { chance(0.6) } in_order(keys %nodes))
	{
		eval { rows($name, 'CHECKPOINT', 2) } if is_up($name);
	}
	linger(rand 6) if chance(0.4);
	watch();
	reattach();
	return;
}

# Long enough for some that a cut is noticed.
sub linger
{
	my ($seconds) = @_;
	my $until = time + $seconds;

	while (time < $until) { watch(); usleep(200_000); }
	return;
}

sub show_everything
{
	for my $name (in_order(keys %nodes))
	{
		print "---- $name, upstream " . ($nodes{$name}{upstream} // '-') . ', ' . (is_up($name) ? 'up' : 'down') . "\n";
		for my $sql ('SELECT * FROM cascade_tree()', 'SELECT s::text FROM cascade_status s',
			'SELECT d::text FROM cascade_downstreams d', 'SELECT c::text FROM cascade_check c',
			'SELECT slot_name, active, restart_lsn, wal_status FROM pg_replication_slots')
		{
			my $rows = eval { rows($name, $sql, 2) } // do { print "  $@"; last; };
			print map { '  ' . join('|', map { $_ // '' } @$_) . "\n" } @$rows;
		}
		my @have = sort { $a <=> $b } keys %{ segments_of($name) };
		print '  pg_wal from ' . lsn($have[0] * $segment_size) . ' to ' . lsn($have[-1] * $segment_size) . "\n" if @have;
	}
	return;
}

sub stop_everything
{
	return if $$ != $main_pid;
	thaw(keys %frozen) if %frozen;
	for my $helper (grep { defined } $writer, $proxy)
	{
		kill 'TERM', $helper->{pid};
		waitpid($helper->{pid}, 0);
	}
	for my $name (keys %nodes)
	{
		pg_ctl($name, '-m', 'immediate', 'stop') if is_up($name);
	}
	return;
}

sub show_counts
{
	my $minutes = (time - $started) / 60;

	printf "%d nodes at the end, %.1f minutes\n", scalar keys %nodes, $minutes;
	print "  $_: $count{$_}\n" for sort keys %count;
	return;
}

sub main
{
	mkdir "$run/log";
	mkdir "$run/s";
	chdir $run or die "$run: $!\n";
	$| = 1;
	srand($seed);
	print "chaos: seed $seed, $rounds rounds, in $run\n";

	$proxy = spawn(sub {
			my ($control) = @_;
			forward($control, map { {
						name => "n$_", port => $first_port + $_,
						socket => tcp_listen($first_port + 20 + $_) } } 1 .. $max_nodes); });
	$writer = spawn(\&write_load);
	$root = 'n1';
	init_primary('n1');
	my $nodes = 3 + int rand($max_nodes - 2);

	clone_node("n$_", random_upstream(in_order(keys %nodes))) for 2 .. $nodes;
	writer("root $nodes{n1}{port}");
	writer('go');
	settle();
	say_line(join ', ', map { "$_ below $nodes{$_}{upstream}" } standbys());

	for my $round (1 .. $rounds)
	{
		srand($seed + 1000003 * $round);
		@story = ();
		%missing_wal = %diverged = ();
		note_event("round $round");
		play_round();
		my $took = settle();

		shift @story;
		say_line(sprintf('round %d: %s; settled in %.1f s', $round, join('; ', @story), $took));
		$count{rounds}++;
	}
	# whoever calls everybody unprotected breaks no promise, and is of no use
	die "in $rounds rounds no node that lagged was re-attached: they have shown nothing\n"
	  if $rounds >= 6 && !$count{'re-attach of one that lagged, as promised'};
	return;
}

$SIG{PIPE} = 'IGNORE';
$SIG{$_} = sub { die "interrupted\n" } for qw(INT TERM HUP);
my $ok = eval { main(); 1; };
my $error = $@;

if (!$ok)
{
	print "\n", join('; ', @story), "\n\n";
	print "chaos: $error";
	eval { show_everything(); };
}
stop_everything();
show_counts();
print $ok ? "chaos: PASS - $rounds rounds, seed $seed\n" :
  "chaos: FAIL - seed $seed; logs are in $run/log, the story in $run/log/story\n";
exit($ok ? 0 : 1);
