# bench/measure.pl BINDIR CLIENT DIRECTORY RAW SMOKE NAME ...	the measurements; see bench/run
#
# DIRECTORY gets the servers, RAW the raw figures: one file for each measurement,
# and table.tsv.  Each measurement is a sub of that name below; bench/README.md
# says what it does and why.
#
# Needs Linux's /proc, and no Perl modules but those that come with it.

use strict;
use warnings FATAL => 'all';

use IO::Handle;
use IO::Socket::INET;
use IPC::Open2;
use List::Util qw(max min sum0);
use POSIX qw(ceil floor);
use Time::HiRes qw(time sleep);

my ($bindir, $client, $run, $raw, $smoke, @names) = @ARGV;
die "usage: see bench/run\n" unless @names;

my $segment_size = 1024 * 1024;
my $patience = 180;          # seconds that anything may take
my %servers;                 # by name: {name, dir, port}
my %clients;                 # by process
my $next_port = 10000 + int rand 20000;
my @table;
my $raw_file;
my $main_pid = $$;

# ---- figures ----

# Seconds, rounds and sizes: what the smoke test takes instead.
sub less { my ($full, $little) = @_; return $smoke ? $little : $full; }

sub keep_raw { my ($what, @values) = @_; print $raw_file join("\t", $what, @values) . "\n"; return; }

sub quantile
{
	my ($share, @values) = @_;
	my @sorted = sort { $a <=> $b } @values;

	return unless @sorted;
	my $at = $share * $#sorted;
	my ($low, $high) = ($sorted[ floor $at ], $sorted[ ceil $at ]);
	return $low + ($at - floor $at) * ($high - $low);
}

sub median { return quantile(0.5, @_); }

# The middle half of the values, and how many there are.
sub spread
{
	my ($format, @values) = @_;

	return sprintf "$format to $format, n %d", quantile(0.25, @values), quantile(0.75, @values), scalar @values;
}

# A line of the table.  limit undef: nothing is promised.  The sense is '<=' or
# '>='.  A value that could not be had is undef.
sub result
{
	my ($what, $sense, $limit, $unit, $value, $spread) = @_;
	my $verdict = '-';

	$verdict = ($sense eq '<=' ? $value <= $limit : $value >= $limit) ? 'reached' : 'missed'
	  if defined $limit && defined $value;
	$verdict = 'missed' if defined $limit && !defined $value;
	my @row = ($what, defined $limit ? "$sense " . figure($limit) . " $unit" : '-',
		defined $value ? figure($value) . " $unit" : 'none', $spread // '', $verdict);
	push @table, \@row;
	printf "   %-54s %-16s %-16s %-30s %s\n", @row;
	return;
}

# Three digits that count.
sub figure
{
	my ($value) = @_;

	return $value if $value == 0 || $value !~ /\./;
	my $digits = max(0, 2 - floor(log(abs $value) / log 10));
	return sprintf "%.${digits}f", $value;
}

# ---- servers ----

sub run_program
{
	my ($what, @command) = @_;

	open my $pipe, '-|', 'sh', '-c', 'exec "$@" 2>&1', 'sh', @command or die "$what: $!\n";
	my $output = do { local $/ = undef; <$pipe> // '' };
	close $pipe or die "$what failed: $output\n";
	return $output;
}

sub conninfo
{
	my ($name, $extra) = @_;

	return "host=127.0.0.1 port=$servers{$name}{port} user=postgres dbname=postgres" . ($extra ? " $extra" : '');
}

sub sql
{
	my ($name, @queries) = @_;
	my $output = run_program("$name: $queries[0]", "$bindir/psql", '-XqAt', '-v', 'ON_ERROR_STOP=1',
		'-d', conninfo($name), map { ('-c', $_) } @queries);

	chomp $output;
	return $output;
}

# Waits until the query says t.
sub await
{
	my ($name, $query, $seconds) = @_;
	my $end = time + ($seconds // $patience);

	while (sql($name, $query) ne 't')
	{
		die "$name: still not: $query\n" if time > $end;
		sleep 0.1;
	}
	return;
}

sub free_port
{
	while (1)
	{
		my $port = $next_port++;
		my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 1) or next;

		close $socket;
		return $port;
	}
	return;
}

sub pg_ctl
{
	my ($name, @arguments) = @_;

	return run_program("pg_ctl $arguments[0] $name", "$bindir/pg_ctl", '-s', '-w', '-t', $patience,
		'-D', $servers{$name}{dir}, '-l', "$run/log.$name", @arguments);
}

sub new_server
{
	my ($name) = @_;

	$servers{$name} = { name => $name, dir => "$run/$name", port => free_port() };
	return $servers{$name}{dir};
}

sub configure
{
	my ($name, $conf) = @_;

	open my $fh, '>>', "$servers{$name}{dir}/postgresql.conf" or die "$name: $!\n";
	print $fh $conf;
	close $fh;
	return;
}

# Settings of the product are left as they are installed, but for the names.
sub common_conf
{
	my ($name) = @_;

	return <<"END";
shared_preload_libraries = 'cascade_relay'
cascade_relay.node_name = '$name'
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
port = $servers{$name}{port}
fsync = off
shared_buffers = 16MB
wal_keep_size = 0
max_wal_size = 2GB
checkpoint_timeout = 1h
autovacuum = off
hot_standby_feedback = on
wal_receiver_status_interval = 1s
max_standby_streaming_delay = -1
max_wal_senders = 30
max_replication_slots = 30
log_line_prefix = '%m [%p] '
END
}

sub new_primary
{
	my ($name, $conf) = @_;
	my $dir = new_server($name);

	run_program('initdb', "$bindir/initdb", '-D', $dir, '-A', 'trust', '-U', 'postgres', '--no-sync',
		'--wal-segsize=1', '--no-locale', '-E', 'UTF8');
	configure($name, common_conf($name) . ($conf // ''));
	pg_ctl($name, 'start');
	sql($name, 'CREATE EXTENSION cascade_relay');
	return;
}

sub new_standby
{
	my ($name, $upstream, $conf) = @_;
	my $dir = new_server($name);

	run_program("pg_basebackup of $name", "$bindir/pg_basebackup", '-D', $dir, '-d', conninfo($upstream),
		'-c', 'fast', '--no-sync', '-C', '-S', $name);
	open my $fh, '>', "$dir/standby.signal" or die "$dir: $!\n";
	close $fh;
	configure($name, common_conf($name) . "primary_slot_name = '$name'\n"
		  . "primary_conninfo = '" . conninfo($upstream, "application_name=$name") . "'\n" . ($conf // ''));
	pg_ctl($name, 'start');
	return;
}

# p, with a below it, b below that, and so on.
sub new_chain
{
	my @chain = @_;

	new_primary($chain[0]);
	new_standby($chain[$_], $chain[ $_ - 1 ]) for 1 .. $#chain;
	await($_, 'SELECT coalesce(protected, false) FROM cascade_status') for @chain;
	return;
}

sub stop_all
{
	stop_client($_) for keys %clients;
	for my $name (keys %servers)
	{
		!-e "$servers{$name}{dir}/postmaster.pid" or eval { pg_ctl($name, 'stop', '-m', 'immediate'); 1 }
		  or print STDERR "$name: $@";
		system 'rm', '-rf', $servers{$name}{dir};
	}
	%servers = ();
	return;
}

# ---- bench/client, and other programs that go on beside ----

sub start_client
{
	my (@command) = @_;
	my ($out, $in);
	my $pid = open2($out, $in, @command);

	$clients{$pid} = { pid => $pid, out => $out, in => $in };
	return $clients{$pid};
}

sub await_line
{
	my ($c, $pattern) = @_;
	my $out = $c->{out};

	while (my $line = <$out>)
	{
		return $line if $line =~ $pattern;
	}
	die "a client has ended early\n";
}

# Ends its input, and returns what it has printed.
sub stop_client
{
	my ($pid) = @_;
	my $c = delete $clients{$pid} or return;

	close $c->{in};
	my $out = $c->{out};
	my @lines = <$out>;
	waitpid $pid, 0;
	chomp @lines;
	return @lines;
}

# ---- a process, as the kernel counts ----

sub read_file
{
	my ($path) = @_;

	open my $fh, '<', $path or return '';
	local $/ = undef;
	return scalar <$fh>;
}

# Seconds of CPU that it has had.
sub cpu { my ($pid) = @_; return (split ' ', read_file("/proc/$pid/schedstat"))[0] / 1e9; }

sub private_kb
{
	my ($pid) = @_;

	return sum0(read_file("/proc/$pid/smaps_rollup") =~ /^Private_\w+:\s+(\d+)/mg);
}

sub worker_of { my ($name) = @_; return sql($name, 'SELECT worker_pid FROM cascade_status'); }

# ---- latency ----

sub lsn_number
{
	my ($text) = @_;

	return $text =~ m{^([0-9A-F]+)/([0-9A-F]+)$} ? hex($1) * 2**32 + hex($2) : 0;
}

# From what bench/client watch has printed: for each segment that the leaf's
# replay has left, how long it took until the root knew.
sub frontier_delays
{
	my (@lines) = @_;
	my (@left, @delays, $before);

	for my $line (@lines)
	{
		my ($what, $value, $at) = split / /, $line;
		my $segment = floor(lsn_number($value) / $segment_size);

		if ($what eq 'leaf')
		{
			push @left, [ $segment, $at ] if defined $before && $segment > $before;
			$before = $segment;
		}
		elsif ($what eq 'root')
		{
			push @delays, ($at - (shift @left)->[1]) * 1000 while @left && $left[0][0] <= $segment;
		}
	}
	return @delays;
}

# How long it took until the root's xmin moved, after the end of each transaction
# that held it back.
sub xmin_delays
{
	my ($ends, @lines) = @_;
	my @delays;

	for my $end (@$ends)
	{
		my ($at) = map { /^xmin \d+ (\S+)/ && $1 > $end ? $1 : () } @lines;

		push @delays, ($at - $end) * 1000 if defined $at;
	}
	return @delays;
}

# One phase: in each round a transaction on the leaf holds xmin back, a segment
# is filled, and the transaction ends, each after a random pause.
sub latency_phase
{
	my ($phase, $rounds, $shortest, $with_xmin) = @_;
	my $watch = start_client($client, 'watch', conninfo('c'), conninfo('p'), 'a');
	my @ends;

	for (1 .. $rounds)
	{
		my $holder = $with_xmin ? start_client("$bindir/psql", '-XqAt', '-d', conninfo('c')) : undef;

		if ($with_xmin)
		{
			print { $holder->{in} } "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 'there';\n";
			$holder->{in}->flush;
			await_line($holder, qr/there/);
		}
		sleep $shortest + rand 1;
		sql('p', 'SELECT txid_current()', 'SELECT pg_switch_wal()');
		next unless $with_xmin;
		sleep $shortest + rand 1;
		push @ends, time;
		print { $holder->{in} } "COMMIT;\n";
		$holder->{in}->flush;
		# three hops, of at most a second and a bit each
		sleep 4;
		stop_client($holder->{pid});
	}
	sleep 1.5;
	my @lines = stop_client($watch->{pid});
	my @frontier = frontier_delays(@lines);
	my @xmin = xmin_delays(\@ends, @lines);
	keep_raw("$phase frontier ms", @frontier);
	keep_raw("$phase xmin ms", @xmin);
	return (\@frontier, \@xmin);
}

sub round_trip_ms
{
	my ($name) = @_;
	my @lines = run_program('client time', $client, 'time', conninfo($name), 200, 10, 'SELECT 1') =~ /ms (\S+)/g;

	return median(@lines);
}

sub latency
{
	new_chain(qw(p a b c));
	my $trips = 4 * round_trip_ms('p');
	run_program('pgbench -i', "$bindir/pgbench", '-i', '-q', '-s', 5, conninfo('p'));
	sleep 3;
	my ($idle, $idle_xmin) = latency_phase('idle', less(15, 2), 2.2, 1);
	my ($lately) = latency_phase('moved lately', less(25, 3), 0.2, 0);
	my $load = start_client("$bindir/pgbench", '-n', '-c', 4, '-R', 1000, '-T', 3600, conninfo('p'));
	my ($loaded, $loaded_xmin) = latency_phase('under load', less(10, 1), 2.2, 1);
	kill 'INT', $load->{pid};
	stop_client($load->{pid});

	for (['idle', $trips + 100, 20, $idle, $idle_xmin], [ 'under pgbench', $trips + 50, 20, $loaded, $loaded_xmin ],
		[ 'moved lately', undef, undef, $lately, [] ])
	{
		my ($phase, $limit, $times, $frontier, $xmin) = @$_;

		result("frontier, leaf to root of four, $phase", '<=', $limit, 'ms', median(@$frontier), spread('%.0f', @$frontier));
		next unless @$xmin;
		result("xmin by hot_standby_feedback, $phase", '<=', undef, 'ms', median(@$xmin), spread('%.0f', @$xmin));
		result("times faster than it, $phase", '>=', $times, 'x', median(@$xmin) / median(@$frontier));
	}
	return;
}

# ---- idle ----

sub idle
{
	my @chain = qw(p a b c);
	my %role = (p => 'root', a => 'middle', b => 'second middle', c => 'leaf');
	my $seconds = less(120, 5);
	my (%pid, %before, %used);

	new_chain(@chain);
	for my $name (@chain)
	{
		$pid{"$name worker"} = worker_of($name);
		$pid{"$name walreceiver"} = sql($name, 'SELECT pid FROM pg_stat_wal_receiver') if $name ne 'p';
		my ($session) = report_sessions($name);
		$pid{"$name session"} = $session if $session;
	}
	sleep less(10, 1);
	my $reports = reports_received('p');
	$before{$_} = cpu($pid{$_}) for keys %pid;
	sleep $seconds;
	$used{$_} = (cpu($pid{$_}) - $before{$_}) / $seconds * 100 for keys %pid;
	$reports = reports_received('p') - $reports;
	keep_raw("$_ % of a core", $used{$_}) for sort keys %used;

	for my $name (@chain)
	{
		result("idle worker, $role{$name}", '<=', 0.1, '% of a core', $used{"$name worker"});
		next unless defined $used{"$name walreceiver"};
		result("  beside its walreceiver", '<=', 1.0, 'x', $used{"$name worker"} / $used{"$name walreceiver"},
			sprintf 'walreceiver %.3f %%', $used{"$name walreceiver"});
	}
	result('a report of a to p', '<=', undef, 'us of CPU', $used{'p session'} / 100 * $seconds / $reports * 1e6);
	memory($pid{'p worker'});
	return;
}

# Its own memory, and what a process of the server has that does nothing.
sub memory
{
	my ($worker) = @_;
	my $shared = sql('p', q{SELECT sum(allocated_size) / 1024 FROM pg_shmem_allocations WHERE name LIKE 'cascade_relay%'});
	my $bare = private_kb(sql('p', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'}));

	keep_raw('memory kB', "shared $shared", 'worker ' . private_kb($worker), "walwriter $bare");
	result('memory, shared and of the worker', '<=', 8.0, 'MB', ($shared + private_kb($worker) - $bare) / 1024,
		sprintf '%.1f MB shared', $shared / 1024);
	return;
}

# ---- functions ----

my @functions = (
	[ 'cascade_topology()', 'SELECT * FROM cascade_topology()', 50 ],
	[ 'candidates of all, rank 1', 'SELECT * FROM cascade_upstream_candidates() WHERE rank = 1', 500 ],
	[ 'candidates of one', q{SELECT * FROM cascade_upstream_candidates('node0001')} ],
	[ 'candidates without one', q{SELECT * FROM cascade_upstream_candidates(without => 'node0001') WHERE rank = 1} ],
	[ 'cascade_policy()', 'SELECT * FROM cascade_policy()' ],
	[ 'cascade_plan_upstream()', q{SELECT * FROM cascade_plan_upstream('node0001', requested => 'node0002')} ],
	[ 'cascade_tree()', 'SELECT * FROM cascade_tree()' ],
	[ 'cascade_check()', 'SELECT * FROM cascade_check()' ],
	[ 'cascade_metrics()', 'SELECT * FROM cascade_metrics()' ],
	[ 'cascade_openmetrics()', 'SELECT * FROM cascade_openmetrics()' ],
	[ 'cascade_diagram(svg)', 'SELECT cascade_diagram()' ],
	[ 'cascade_diagram(dot)', q{SELECT cascade_diagram('dot')} ],
	[ 'cascade_graph_nodes', 'SELECT * FROM cascade_graph_nodes' ],
	[ 'cascade_graph_edges', 'SELECT * FROM cascade_graph_edges' ],
	[ 'cascade_status()', 'SELECT * FROM cascade_status()' ],
	[ 'cascade_downstreams()', 'SELECT * FROM cascade_downstreams()' ],
	[ 'cascade_oldest_wal_file()', 'SELECT cascade_oldest_wal_file()' ],
	[ 'cascade_bookmark()', 'SELECT cascade_bookmark()' ],
	[ 'cascade_can_serve()', q{SELECT cascade_can_serve('node0001', '1:0/1')} ],
	[ 'cascade_nodes_serving()', q{SELECT * FROM cascade_nodes_serving('1:0/1')} ],
);

# One server for each size, so that the sizes are asked in turn.  Ten children
# report; they do so seldom, so that little else goes on.
sub functions
{
	my @sizes = $smoke ? (10, 100) : (100, 1000, 10000);
	my (%ms, %error);

	for my $size (@sizes)
	{
		new_primary("n$size", "cascade_relay.max_nodes = 20000\ncascade_relay.stale_timeout = '1h'\n");
		my $filler = start_client($client, 'report', conninfo("n$size"), 10, $size / 10 - 1, 60000, 0, 0);
		await_line($filler, qr/^ready/);
		await("n$size", "SELECT count(*) = $size + 1 FROM cascade_topology");
	}
	for my $round (1 .. less(3, 1))
	{
		for my $size (@sizes)
		{
			my $limit = less(20, 5);
			my $lines = run_program('client time', $client, 'time',
				conninfo("n$size", "options='-c statement_timeout=${limit}s'"), less(5, 2), less(60, 5), map { $_->[1] } @functions);

			while ($lines =~ /^(\d+) (\S+) (\S+)/mg)
			{
				$error{$1}{$size} = $2 eq '57014' ? "over $limit s" : "error $2" if $2 ne 'ms';
				push @{ $ms{$1}{$size} }, $3;
				keep_raw("$functions[$1][0] at $size, ms", $error{$1}{$size} // $3);
			}
		}
	}
	for my $i (0 .. $#functions)
	{
		my ($name, undef, $limit) = @{ $functions[$i] };
		my ($before, $last) = map { $error{$i}{$_} ? undef : median(@{ $ms{$i}{$_} }) } @sizes[ -2, -1 ];

		result("$name at $sizes[-1] nodes", '<=', $smoke ? undef : $limit, 'ms', $last,
			$error{$i}{ $sizes[-1] } // spread('%.2f', @{ $ms{$i}{ $sizes[-1] } }));
		# what does not even take a tenth of a millisecond does not grow
		my $exponent = !defined $last || !defined $before ? undef
		  : $last < 0.1 ? 0.0 : log($last / $before) / log($sizes[-1] / $sizes[-2]);
		result("  grows like n to the power of", '<=', $smoke ? undef : 1.15, '', $exponent,
			$error{$i}{ $sizes[-2] } // sprintf 'at %d: %.2f ms', $sizes[-2], $before);
	}
	return;
}

# ---- reports ----

# The sessions through which children report.
sub report_sessions
{
	my ($name) = @_;

	return split ' ', sql($name, q{SELECT string_agg(pid::text, ' ') FROM pg_stat_activity }
		  . q{WHERE backend_type = 'client backend' AND query LIKE '%@<-%' AND pid <> pg_backend_pid()});
}

sub reports_received { my ($name) = @_; return sql($name, 'SELECT reports_received FROM cascade_status'); }

# What simulated children cost the sessions that serve them.
sub serve_reports
{
	my ($children, $interval, $seconds) = @_;
	my $reporter = start_client($client, 'report', conninfo('p'), $children, 0, $interval, 0, 1);

	await_line($reporter, qr/^ready/);
	my @sessions = report_sessions('p');
	sleep less(6, 1);
	my ($cpu, $reports, $start) = (sum0(map { cpu($_) } @sessions), reports_received('p'), time);
	sleep $seconds;
	$cpu = sum0(map { cpu($_) } @sessions) - $cpu;
	$reports = reports_received('p') - $reports;
	my $passed = time - $start;
	my %said = map { /^(\w+) (\S+)$/ ? ($1, $2) : () } stop_client($reporter->{pid});
	keep_raw("$children children, interval $interval ms", "reports $reports", "seconds $passed", "cpu $cpu",
		map { "$_ $said{$_}" } sort keys %said);
	return ($reports / $passed, $cpu / $reports * 1e6, $said{message_bytes});
}

sub reports
{
	my ($rate, $us, $bytes);

	new_primary('p', "max_connections = 200\nmax_replication_slots = 100\n");
	($rate, $us) = serve_reports($_, 0, less(10, 2)), result("reports, hot, through $_ sessions", '>=', undef, 'per s', $rate, sprintf '%.0f us of CPU each', $us)
	  for 1, 8;
	($rate, $us, $bytes) = serve_reports(50, 1000, less(60, 3));
	result('a report, one per second from each of 50', '<=', 150, 'us of CPU', $us, sprintf '%.1f per s', $rate);
	result('a report without tree', '<=', 256, 'bytes', $bytes);
	return;
}

# ---- wire ----

sub wire
{
	my @sizes = $smoke ? (3, 10) : (10, 30, 100, 300, 1000);
	my %rate;

	new_primary('p', "max_connections = 1100\nmax_files_per_process = 100\n");
	for my $n (@sizes)
	{
		my $output = run_program('client report', $client, 'report', conninfo('p'), $n, 0, 1000, less(30, 2), 0);
		my %said = $output =~ /^(\w+) (\S+)$/mg;

		$rate{$n} = ($said{bytes_up} + $said{bytes_down}) / $said{seconds} / 1000;
		keep_raw("$n children", map { "$_ $said{$_}" } sort keys %said);
		result("trees on the wire, $n children, idle", '<=', $n == 300 ? 100 : undef, 'kB/s', $rate{$n},
			sprintf '%.0f rows down per s', $said{rows_down} / $said{seconds});
		# whoever has left is remembered: the next size begins anew
		pg_ctl('p', 'restart', '-m', 'fast');
	}
	result('  grows like n to the power of', '<=', $smoke ? undef : 1.15, '',
		log($rate{ $sizes[-1] } / $rate{ $sizes[-2] }) / log($sizes[-1] / $sizes[-2]));
	return;
}

# ---- passes ----

# The CPU of one pass.  A signal makes a pass, as anything that wakes the worker.
sub pass_us
{
	my $worker = worker_of('p');
	my @us;

	sleep 2;
	for (1 .. less(7, 2))
	{
		my $passes = 40;
		my $before = cpu($worker);

		for (1 .. $passes)
		{
			kill 'USR1', $worker or die "worker $worker: $!\n";
			sleep 0.03;
		}
		push @us, (cpu($worker) - $before) / $passes * 1e6;
	}
	return @us;
}

sub passes
{
	my @sizes = $smoke ? (10, 20) : (10, 100, 1000);
	my $most = $sizes[-1];
	my %beside = (
		slots => sub { sql('p', "SELECT count(pg_create_physical_replication_slot('slot' || i, true)) FROM generate_series(1, $_[0]) i"); },
		walsenders => sub { await_line(start_client($client, 'senders', conninfo('p'), $_[0]), qr/^ready/); },
		'children, holds, slots' => sub {
			sql('p', "SELECT count(pg_create_physical_replication_slot('node' || to_char(i, 'FM0000'), true)) FROM generate_series(0, $_[0] - 1) i");
			run_program('client report', $client, 'report', conninfo('p'), $_[0], 0, -1, 0, 1);
		});

	for my $what (sort keys %beside)
	{
		my %us;

		for my $n (@sizes)
		{
			next if $what eq 'walsenders' && $n > 100;
			new_primary('p', 'max_replication_slots = ' . (2 * $most + 20) . "\nmax_wal_senders = 120\nwal_sender_timeout = 0\n");
			$beside{$what}->($n);
			my @us = pass_us();
			keep_raw("$n $what, us", @us);
			result("a pass, $n $what", '<=', $what =~ /children/ && $n == 1000 ? 1500 : undef, 'us of CPU', median(@us), spread('%.0f', @us));
			$us{$n} = median(@us);
			stop_all();
		}
		my ($before, $last) = (sort { $a <=> $b } keys %us)[ -2, -1 ];
		result('  grows like n to the power of', '<=', $smoke ? undef : 1.15, '', log($us{$last} / $us{$before}) / log($last / $before));
	}
	return;
}

# ---- tps ----

# Transactions per second, with the extension preloaded or without.
sub tps
{
	my ($children) = @_;
	my $seconds = less(15, 2);
	my @pairs;

	for my $children (0, less(50, 5))
	{
		my @ratios;

		new_primary('p', "max_connections = 200\nmax_replication_slots = 100\n");
		run_program('pgbench -i', "$bindir/pgbench", '-i', '-q', '-s', 10, conninfo('p'));
		for my $pair (1 .. less(10, 1))
		{
			my %tps;

			# the one that goes first has the colder caches
			for my $preload ($pair % 2 ? ('', 'cascade_relay') : ('cascade_relay', ''))
			{
				pg_ctl('p', 'restart', '-m', 'fast', '-o', "-c shared_preload_libraries=$preload");
				my $reporter;
				if ($preload && $children)
				{
					$reporter = start_client($client, 'report', conninfo('p'), $children, 0, 1000, 0, 1);
					await_line($reporter, qr/^ready/);
				}
				sql('p', 'CHECKPOINT');
				run_program('pgbench', "$bindir/pgbench", '-n', '-c', 2, '-T', less(3, 1), conninfo('p'));
				my ($tps) = run_program('pgbench', "$bindir/pgbench", '-n', '-c', 2, '-T', $seconds, conninfo('p')) =~ /^tps = (\S+)/m;
				$tps{$preload} = $tps;
				stop_client($reporter->{pid}) if $reporter;
			}
			keep_raw("$children children, tps", "with $tps{cascade_relay}", "without $tps{''}");
			push @ratios, $tps{cascade_relay} / $tps{''};
		}
		result("TPS with, to TPS without, $children children", '>=', $smoke ? undef : 0.995, 'x', median(@ratios), spread('%.3f', @ratios));
		stop_all();
	}
	return;
}

# ---- repmgr ----

sub repmgr
{
	my @chain = qw(p a b c);
	my (%ms, %id);

	if (!-x "$bindir/repmgr")
	{
		print "   left out: there is no repmgr for this PostgreSQL\n";
		return;
	}
	new_chain(@chain);
	sql('p', 'CREATE EXTENSION repmgr');
	for my $i (0 .. $#chain)
	{
		my $name = $chain[$i];

		$id{$name} = $i + 1;
		open my $fh, '>', "$run/repmgr.$name.conf" or die "repmgr.$name.conf: $!\n";
		print $fh "node_id=$id{$name}\nnode_name='$name'\nconninfo='" . conninfo($name) . "'\n"
		  . "data_directory='$servers{$name}{dir}'\npg_bindir='$bindir'\n";
		close $fh;
		run_program("repmgr register $name", "$bindir/repmgr", '-f', "$run/repmgr.$name.conf",
			$name eq 'p' ? 'primary' : 'standby', 'register', '-F',
			$name eq 'p' ? () : ('--upstream-node-id', $id{ $chain[ $i - 1 ] }));
	}
	my $topology = 'SELECT * FROM cascade_topology()';
	for (1 .. less(15, 2))
	{
		for my $what (['repmgr cluster show', "$bindir/repmgr", '-f', "$run/repmgr.p.conf", 'cluster', 'show'],
			[ 'cascade_topology() by psql', "$bindir/psql", '-Xq', '-d', conninfo('p'), '-c', $topology ])
		{
			my ($name, @command) = @$what;
			my $start = time;

			# its status says what it thinks of the cluster
			system(join(' ', map { "'$_'" } @command) . ' >/dev/null 2>&1');
			push @{ $ms{$name} }, (time - $start) * 1000;
		}
		push @{ $ms{'cascade_topology() in an open session'} },
		  run_program('client time', $client, 'time', conninfo('p'), 5, 10, $topology) =~ / ms (\S+)/g;
	}
	for my $what (sort keys %ms)
	{
		keep_raw("$what, ms", @{ $ms{$what} });
		result("$what, four nodes", '<=', undef, 'ms', median(@{ $ms{$what} }), spread('%.2f', @{ $ms{$what} }));
	}
	result('times faster than repmgr, by psql', '>=', undef, 'x', median(@{ $ms{'repmgr cluster show'} }) / median(@{ $ms{'cascade_topology() by psql'} }));
	result('times faster than repmgr, in an open session', '>=', undef, 'x',
		median(@{ $ms{'repmgr cluster show'} }) / median(@{ $ms{'cascade_topology() in an open session'} }));
	return;
}

# ---- fleet ----

# What has gone over the report connections of these processes, as TCP counted.
sub report_bytes
{
	my (@workers) = @_;
	my %is_worker = map { $_ => 1 } @workers;
	my $bytes = 0;
	my $output = run_program('ss', 'ss', '-Htinp', 'state', 'established');

	# one line for a connection, then one with its figures
	while ($output =~ /^(\S.*)\n(\s.*)$/mg)
	{
		my ($connection, $figures) = ($1, $2);

		next unless $connection =~ /pid=(\d+)/ && $is_worker{$1};
		$bytes += $_ for $figures =~ /bytes_(?:acked|received):(\d+)/g;
	}
	return $bytes;
}

# Sixty standbys in three levels, all copied from one base backup.
sub fleet
{
	my @levels = $smoke ? (1, 2, 3) : (4, 16, 40);
	my @above = ('p');
	my @standbys;

	new_primary('p', "max_connections = 50\n");
	run_program('pg_basebackup', "$bindir/pg_basebackup", '-D', "$run/backup", '-d', conninfo('p'), '-c', 'fast', '--no-sync');
	for my $level (0 .. $#levels)
	{
		my @here;

		for my $i (1 .. $levels[$level])
		{
			my $upstream = $above[ $i % @above ];
			my $name = ('a' .. 'c')[$level] . $i;
			my $dir = new_server($name);

			run_program('cp', 'cp', '-a', "$run/backup", $dir);
			open my $fh, '>', "$dir/standby.signal" or die "$dir: $!\n";
			close $fh;
			# the last line counts
			configure($name, common_conf($name) . "max_connections = 50\nmax_wal_size = 100MB\nprimary_slot_name = '$name'\n"
				  . "primary_conninfo = '" . conninfo($upstream, "application_name=$name") . "'\n");
			sql($upstream, "SELECT pg_create_physical_replication_slot('$name', true)");
			pg_ctl($name, 'start');
			push @here, $name;
		}
		push @standbys, @here;
		@above = @here;
	}
	my $start = time;
	my $n = @standbys;
	my $whole = "SELECT count(*) = $n + 1 AND bool_and(state IN ('running', 'streaming') AND protected) FROM cascade_topology";
	await('p', $whole);
	my $at_root = time - $start;
	await($_, $whole) for @standbys;
	result("$n standbys: the tree is whole at the root", '<=', undef, 's', $at_root, 'after the last start');
	result('  and at every node', '<=', undef, 's', time - $start);

	my %worker = map { ($_ => worker_of($_)) } 'p', @standbys;
	my $seconds = less(60, 3);
	sleep less(10, 1);
	my %before = map { ($_ => cpu($worker{$_})) } keys %worker;
	my $bytes = report_bytes(values %worker);
	sleep $seconds;
	$bytes = report_bytes(values %worker) - $bytes;
	my @used = map { (cpu($worker{$_}) - $before{$_}) / $seconds * 100 } sort keys %worker;
	keep_raw('worker % of a core', @used);
	result('  a worker', '<=', 0.1, '% of a core', median(@used), spread('%.3f', @used));
	result('  the busiest worker', '<=', 0.1, '% of a core', max(@used));
	result('  reports and replies, idle', '<=', undef, 'kB/s', $bytes / $seconds / 1000);
	run_program('rm', 'rm', '-rf', "$run/backup");
	return;
}

# ---- run ----

my %measurements = (
	latency => \&latency,
	idle => \&idle,
	functions => \&functions,
	reports => \&reports,
	wire => \&wire,
	passes => \&passes,
	tps => \&tps,
	repmgr => \&repmgr,
	fleet => \&fleet,
);

END
{
	if ($$ == $main_pid)
	{
		my $status = $?;
		stop_all();
		$? = $status;
	}
}
$SIG{$_} = sub { print STDERR "ended by SIG$_[0]\n"; exit 130 } for qw(HUP INT TERM);

@names = sort keys %measurements if "@names" eq 'all';
for my $name (@names)
{
	my $measurement = $measurements{$name} or die "there is no measurement \"$name\": " . join(' ', sort keys %measurements) . "\n";
	my $start = time;

	open $raw_file, '>', "$raw/$name.tsv" or die "$raw/$name.tsv: $!\n";
	print "== $name\n";
	$measurement->();
	close $raw_file;
	stop_all();
	printf "   %d s\n", time - $start;
}

open my $fh, '>', "$raw/table.tsv" or die "$raw/table.tsv: $!\n";
print $fh join("\t", @$_) . "\n" for [ 'what', 'goal', 'measured', 'spread', 'verdict' ], @table;
close $fh;
my %count;
$count{ $_->[4] }++ for @table;
printf "%d goals reached, %d missed\n", $count{reached} // 0, $count{missed} // 0;
