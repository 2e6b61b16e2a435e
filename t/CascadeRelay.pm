# CascadeRelay.pm: what the tests of cascade_relay share.
#
# Builds cascades of real servers, writes and removes real WAL, waits for
# states, and speaks the wire format of reports for the tests that send bad
# ones.
package CascadeRelay;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(
  new_primary new_standby clone_standby value wait_for write_segments
  checkpoint_all remove_wal wait_connected wait_protected wait_caught_up
  holds hold_lsn incarnation tree_state lsn_le point_at slot_from_hold
  wal_files kill_node start_after_kill add_rows same_rows segment_of
  has_segment oldest_wal tree_of encode_hello encode_report encode_row
  report_sql decode_reply at_most set_conf show_tree wait_until look_around
  may_crash sleeps reattach stays print_lsn state_lines rewrite_state
  stop_worker
);

# What every node of a test has: segments of 1 MB that are removed as soon as
# they may be, and no checkpoint but those that the test asks for.
sub _common_conf
{
	my ($node, %opt) = @_;
	my $name = $node->name;
	my $preload = $opt{unmanaged} ? '' : 'cascade_relay';

	$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = '$preload'
wal_keep_size = 0
min_wal_size = 2MB
max_wal_size = 1GB
checkpoint_timeout = 1h
wal_retrieve_retry_interval = 200ms
max_wal_senders = 10
max_replication_slots = 10
hot_standby = on
autovacuum = off
log_line_prefix = '%m [%p] %b %q%a '
});
	if (!$opt{unmanaged})
	{
		$node->append_conf('postgresql.conf', qq{
cascade_relay.node_name = '$name'
cascade_relay.report_interval = 200ms
cascade_relay.min_free_percent = 0	# however full this machine's disk is
});
	}
	$node->append_conf('postgresql.conf', $opt{conf}) if $opt{conf};
	return;
}

my @nodes;

sub _new_node
{
	my ($name, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name,
		$opt{install_path} ? (install_path => $opt{install_path}) : ());

	push @nodes, $node;
	return $node;
}

# What no server may log, whatever happens to it in a test: an assertion, a
# sanitizer or a panic, or a process that ended by a signal other than ours.
my $crash = qr/TRAP: |PANIC: |AddressSanitizer|runtime error: |\(PID \d+\) was terminated by signal (?!9\b)/;
my %may_crash;

# For a node that is to run into it.
sub may_crash
{
	my ($node) = @_;

	$may_crash{ $node->name } = 1;
	return;
}

sub _crashes
{
	my ($node) = @_;

	return () if $may_crash{ $node->name } || !-e $node->logfile;
	return map { $node->name . ": $_" } grep { /$crash/ } split /\n/, slurp_file($node->logfile);
}

# What is still up at the end is stopped the hard way; but then a server does
# not write down which lines it has reached.  A process that crashes may be
# missed by a test that expects a restart, or ends with it.
END
{
	my $status = $?;
	my $mode = $ENV{CASCADE_RELAY_COUNT_LINES} ? 'fast' : 'immediate';

	$_->stop($mode, fail_ok => 1) for @nodes;
	my @crashes = map { _crashes($_) } @nodes;
	diag("a server has crashed: $_") for @crashes;
	$? = $status || (@crashes ? 1 : 0);
}

# A started primary with the extension created in database postgres.
# Options: conf (text), unmanaged (no preload), no_extension, install_path (of
# another installation of PostgreSQL), waldir (a folder for pg_wal).
sub new_primary
{
	my ($name, %opt) = @_;
	my $node = _new_node($name, %opt);

	$node->init(
		allows_streaming => 1,
		extra => [ '--wal-segsize=1', $opt{waldir} ? "--waldir=$opt{waldir}" : () ]);
	_common_conf($node, %opt);
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION cascade_relay')
	  unless $opt{no_extension};
	return $node;
}

# A started standby of $upstream, streaming through a slot of its own name.
# Options: conf, unmanaged, install_path, slotless, no_start, conninfo (appended
# to primary_conninfo), and backup (one that was taken before).
sub new_standby
{
	my ($name, $upstream, %opt) = @_;
	my $node = _new_node($name, %opt);
	my $backup = $opt{backup} // "for_$name";

	$upstream->backup($backup) unless $opt{backup};
	$node->init_from_backup($upstream, $backup, has_streaming => 1);
	_strip_settings($node);
	_common_conf($node, %opt);
	if (!$opt{slotless})
	{
		$upstream->safe_psql('postgres',
			"SELECT pg_create_physical_replication_slot('$name', true)");
		$node->append_conf('postgresql.conf', "primary_slot_name = '$name'");
	}
	point_at($node, $upstream, %opt);
	$node->start unless $opt{no_start};
	return $node;
}

# A clone made the way a DBA does it: pg_basebackup -C -S.  Options as above.
sub clone_standby
{
	my ($name, $upstream, %opt) = @_;
	my $node = _new_node($name);
	my $backup = "clone_$name";
	my $dir = $upstream->backup_dir . "/$backup";

	$upstream->command_ok(
		[
			'pg_basebackup', '-D', $dir, '-h', $upstream->host, '-p', $upstream->port,
			'-X', 'stream', '-c', 'fast', '-C', '-S', $name, '--no-sync'
		],
		"pg_basebackup -C -S $name");
	$node->init_from_backup($upstream, $backup, has_streaming => 1);
	_strip_settings($node);
	_common_conf($node, %opt);
	$node->append_conf('postgresql.conf', "primary_slot_name = '$name'");
	point_at($node, $upstream, %opt);
	$node->start unless $opt{no_start};
	return $node;
}

# The settings of the node that was copied are not those of the copy.
sub _strip_settings
{
	my ($node) = @_;
	my $file = $node->data_dir . '/postgresql.conf';
	my $conf = slurp_file($file);

	$conf =~ s/^(cascade_relay\.\w+|primary_slot_name|primary_conninfo|restore_command|recovery_min_apply_delay)\s*=.*\n//mg;
	open my $fh, '>', $file or die "$file: $!";
	print $fh $conf;
	close $fh;
	return;
}

# Points a node at another upstream; for a running one a reload does it.
sub point_at
{
	my ($node, $upstream, %opt) = @_;
	my $name = $node->name;
	my $conninfo = $upstream->connstr . " application_name=$name " . ($opt{conninfo} // '');

	$node->append_conf('postgresql.conf', "primary_conninfo = '" . ($conninfo =~ s/'/''/gr) . "'");
	return;
}

sub value
{
	my ($node, $sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# Waits until the query says t, or whatever is expected; fails the test with
# what it says instead.
sub wait_for
{
	my ($node, $sql, $what, $expected) = @_;
	my $ok = $node->poll_query_until('postgres', $sql, $expected // 't');

	ok($ok, $what);
	return $ok;
}

# The same for what no query of one node can tell: until the sub says yes.
sub wait_until
{
	my ($what, $condition) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	my $met;

	while (!($met = $condition->()) && time < $end)
	{
		select undef, undef, undef, 0.1;
	}
	ok($met, $what);
	return $met;
}

# For what must not happen: looks for so many seconds whether the query says
# something else than what is expected.
sub stays
{
	my ($node, $seconds, $sql, $expected, $what) = @_;
	my $end = time + $seconds;
	my $got = value($node, $sql);

	while ($got eq $expected && time < $end)
	{
		select undef, undef, undef, 0.1;
		$got = value($node, $sql);
	}
	return is($got, $expected, $what);
}

# Waits for a whole pass of a node's worker: what is there now it has seen then.
sub look_around
{
	my ($node) = @_;
	my $now = value($node, 'SELECT clock_timestamp()');

	$node->poll_query_until('postgres',
		"SELECT observed_at > '$now' FROM cascade_topology WHERE is_local")
	  or die 'no pass of the worker of ' . $node->name;
	return;
}

# A process that waits for something, and does not look for it all the time, is
# mostly found asleep.
sub sleeps
{
	my ($pid, $what) = @_;
	my $asleep = 0;

	for (1 .. 20)
	{
		$asleep++ if slurp_file("/proc/$pid/stat") =~ /^\d+ \(.*\) S /;
		select undef, undef, undef, 0.1;
	}
	cmp_ok($asleep, '>', 7, "the worker sleeps: $what");
	return;
}

# Writes that many segments of WAL, one by one.
sub write_segments
{
	my ($node, $n) = @_;
	for (1 .. $n)
	{
		$node->safe_psql('postgres',
			"SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000)); SELECT pg_switch_wal()");
	}
	return;
}

# A checkpoint on the primary, replayed and followed by a restartpoint on each
# standby given: the moment when WAL is removed.
sub checkpoint_all
{
	my ($primary, @standbys) = @_;
	$primary->safe_psql('postgres', 'CHECKPOINT');
	my $lsn = $primary->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
	for my $standby (@standbys)
	{
		$standby->poll_query_until('postgres',
			"SELECT pg_last_wal_replay_lsn() >= '$lsn'::pg_lsn")
		  or die $standby->name . " did not replay $lsn";
		$standby->safe_psql('postgres', 'CHECKPOINT');
	}
	return;
}

# Writes segments and lets every server that may remove WAL remove it.
sub remove_wal
{
	my ($n, $primary, @standbys) = @_;
	write_segments($primary, $n);
	checkpoint_all($primary, @standbys);
	checkpoint_all($primary, @standbys);
	return;
}

# Settings, at once.
sub set_conf
{
	my ($node, $conf) = @_;

	$node->append_conf('postgresql.conf', $conf);
	$node->reload;
	return;
}

# Waits until these nodes show these columns and rows of the tree.
sub show_tree
{
	my ($what, $columns, $rows, @nodes) = @_;

	for my $node (@nodes)
	{
		wait_for($node, "SELECT $columns FROM cascade_topology", $node->name . " shows $what", join("\n", @$rows))
		  or diag value($node, 'SELECT * FROM cascade_tree()');
	}
	return;
}

sub wait_connected
{
	my (@nodes) = @_;
	for my $node (@nodes)
	{
		wait_for($node, "SELECT upstream_state = 'connected' FROM cascade_status",
			$node->name . ' reports to its upstream');
	}
	return;
}

sub wait_protected
{
	my (@nodes) = @_;
	for my $node (@nodes)
	{
		wait_for($node, 'SELECT protected FROM cascade_status', $node->name . ' is protected');
	}
	return;
}

# Every row that the primary has must be there, and the walreceiver at work.
sub wait_caught_up
{
	my ($primary, @nodes) = @_;
	my $lsn = $primary->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
	for my $node (@nodes)
	{
		wait_for($node, "SELECT pg_last_wal_replay_lsn() >= '$lsn'::pg_lsn",
			$node->name . ' has caught up');
	}
	return;
}

# A bound in seconds that only something that hangs would miss; longer where the
# tests were told to be patient, as under an instrument.
sub at_most
{
	my ($seconds) = @_;
	my $patience = $PostgreSQL::Test::Utils::timeout_default / 180;

	return int($seconds * ($patience > 1 ? $patience : 1));
}

# The hold slots of a node, as lines of name and restart_lsn.
sub holds
{
	my ($node) = @_;
	return $node->safe_psql('postgres',
		"SELECT slot_name, restart_lsn FROM pg_replication_slots WHERE slot_name LIKE 'cascade_relay_%' ORDER BY 1");
}

# The restart_lsn of the (only) hold for a node name.
sub hold_lsn
{
	my ($node, $name) = @_;
	return $node->safe_psql('postgres',
		"SELECT restart_lsn FROM pg_replication_slots WHERE slot_name ~ '^cascade_relay_${name}_[0-9a-f]{8}\$'");
}

sub incarnation
{
	my ($node) = @_;
	return $node->safe_psql('postgres', 'SELECT incarnation FROM cascade_status');
}

# Stops the worker of a node with SIGSTOP while it sleeps, so that it holds no lock.
# Returns its process.
sub stop_worker
{
	my ($node) = @_;
	my $worker = value($node, 'SELECT worker_pid FROM cascade_status');

	for (1 .. 100 * $PostgreSQL::Test::Utils::timeout_default)
	{
		kill 'STOP', $worker or die "worker $worker: $!";
		return $worker if value($node, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $worker") eq 'Extension';
		kill 'CONT', $worker;
		usleep(10_000);
	}
	die "worker $worker does not sleep";
}

# The lines of a section of a node's state file, without the keyword.
sub state_lines
{
	my ($node, $section) = @_;
	my $file = $node->data_dir . '/pg_replslot/cascade_relay.state';

	return -e $file ? map { /^$section (.*)/ ? $1 : () } split /\n/, slurp_file($file) : ();
}

# CRC-32C, as PostgreSQL computes it.
sub _crc32c
{
	my ($data) = @_;
	my $crc = 0xffffffff;

	for my $byte (unpack 'C*', $data)
	{
		$crc ^= $byte;
		$crc = $crc & 1 ? ($crc >> 1) ^ 0x82f63b78 : $crc >> 1 for 1 .. 8;
	}
	return $crc ^ 0xffffffff;
}

# Replaces the lines of the state file of a stopped node by what the sub makes of
# them; the last line, the CRC, is right again.
sub rewrite_state
{
	my ($node, $change) = @_;
	my $file = $node->data_dir . '/pg_replslot/cascade_relay.state';
	my $text = $change->(slurp_file($file) =~ s/^crc .*\n\z//mr);

	open my $out, '>', $file or die "$file: $!";
	print $out $text, sprintf("crc %08X\n", _crc32c($text));
	close $out or die "$file: $!";
	return;
}

# The state of a node as another one shows it.
sub tree_state
{
	my ($node, $name) = @_;
	return $node->safe_psql('postgres',
		"SELECT state FROM cascade_topology WHERE node_name = '$name'");
}

sub lsn_le
{
	my ($node, $a, $b) = @_;
	return $node->safe_psql('postgres', "SELECT '$a'::pg_lsn <= '$b'::pg_lsn") eq 't';
}

# An LSN, given as a number, as the servers of this test print it: from 19 on with
# eight digits after the slash.  0 is no LSN, and 0/0 everywhere.
sub print_lsn
{
	my ($lsn) = @_;
	my $padded = $lsn != 0 && $nodes[0]->pg_version->major >= 19;

	return sprintf('%X/%0*X', $lsn >> 32, $padded ? 8 : 1, $lsn & 0xffffffff);
}

# A streaming slot on a node, copied from a hold, for whoever comes up to it.
sub slot_from_hold
{
	my ($node, $hold_of, $slot) = @_;
	return $node->safe_psql('postgres',
		"SELECT (pg_copy_physical_replication_slot(slot_name, '$slot')).slot_name FROM pg_replication_slots "
		  . "WHERE slot_name ~ '^cascade_relay_${hold_of}_[0-9a-f]{8}\$' ORDER BY restart_lsn LIMIT 1");
}

# The WAL files of a node, in order.
sub wal_files
{
	my ($node) = @_;
	return sort grep { /^[0-9A-F]{24}$/ } slurp_dir($node->data_dir . '/pg_wal');
}

# The machine is gone: kill -9 for the postmaster, then for what it leaves.
sub kill_node
{
	my ($node) = @_;
	my $pids = '';

	$node->psql('postgres', 'SELECT pid FROM pg_stat_activity', stdout => \$pids);
	$node->kill9;
	kill 'KILL', split /\n/, $pids;
	return;
}

# Starts a server that was killed with -9: what it left behind holds the shared
# memory for a moment longer.
sub start_after_kill
{
	my ($node) = @_;

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		# a failed start takes what lies in the old pid file for its own
		$node->{_pid} = undef;
		return if $node->start(fail_ok => 1);
		usleep(100_000);
	}
	die $node->name . ' does not start again';
}

# ---- rows: that none is missing is the proof of everything ----

# Writes that many segments, each with a row of its own.
sub add_rows
{
	my ($primary, $n) = @_;

	$primary->safe_psql('postgres', 'CREATE TABLE IF NOT EXISTS kept (n int)');
	for (1 .. $n)
	{
		$primary->safe_psql('postgres',
			'INSERT INTO kept SELECT count(*) + 1 FROM kept; SELECT pg_switch_wal()');
	}
	return;
}

# The nodes stream, and have every row that the primary has.
sub same_rows
{
	my ($primary, @nodes) = @_;
	my $count = 'SELECT count(*), min(n), max(n) FROM kept';
	my $expected = value($primary, $count);

	wait_caught_up($primary, @nodes);
	for my $node (@nodes)
	{
		wait_for($node, q{SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'},
			$node->name . ' streams');
		is(value($node, $count), $expected, $node->name . ' has every row');
	}
	return;
}

# The proof that nothing was lost: nodes whose upstream is gone come up to
# another one, on which there is a hold for it, and find all their WAL there.
sub reattach
{
	my ($upstream, $hold_of, @nodes) = @_;

	for my $node (@nodes)
	{
		slot_from_hold($upstream, $hold_of, $node->name);
		point_at($node, $upstream);
		$node->start;
	}
	same_rows($upstream, @nodes);
	ok(!$_->log_contains(qr/has already been removed/), $_->name . ' has missed nothing') for @nodes;
	return;
}

# ---- WAL files, of segments of 1 MB ----

# The file that an LSN is in, on timeline 1.
sub segment_of
{
	my ($lsn) = @_;
	my ($high, $low) = map { hex } split m{/}, $lsn;

	return sprintf('%08X%08X%08X', 1, $high, $low >> 20);
}

sub has_segment
{
	my ($node, $lsn) = @_;

	return -f $node->data_dir . '/pg_wal/' . segment_of($lsn);
}

sub oldest_wal
{
	my ($node) = @_;

	return (wal_files($node))[0];
}

# The tree as a node shows it, in its order: one line for each node, of the
# columns given.
sub tree_of
{
	my ($node, @columns) = @_;

	return value($node, 'SELECT ' . join(', ', @columns) . ' FROM cascade_topology');
}

# ---- the wire format, for messages that no worker would send ----

sub _string { my ($s) = @_; return pack('C/a*', $s); }
sub _section { my ($tag, $payload) = @_; return pack('n N/a*', $tag, $payload); }

# A message in its envelope, as the current version writes it.  kind: 1 is a
# hello, 2 a report, 3 a reply.
sub _message
{
	my ($kind, $sections, %m) = @_;
	my $length = $m{length} // 12 + length $sections;

	return pack('a4 C4 N', $m{magic} // 'CRLY', $m{sender_version} // 1,
		$m{reader_version} // 1, $m{kind} // $kind, 0, $length) . $sections;
}

# A pg_lsn as a number; numbers pass through.
sub _lsn
{
	my ($lsn) = @_;

	return 0 unless defined $lsn;
	return hex($1) << 32 | hex($2) if $lsn =~ m{^([0-9A-F]+)/([0-9A-F]+)$}i;
	return $lsn;
}

# A hello.  Options: system_identifier, start_id, incarnation (numbers),
# report_interval_ms, node_name; and those of _message(), to spoil it.
sub encode_hello
{
	my (%m) = @_;

	return _message(1, _section(1,
			pack('Q> Q> N N', $m{system_identifier} // 0, $m{start_id} // 1,
				$m{incarnation} // 1, $m{report_interval_ms} // 1000)
			  . _string($m{node_name} // 'fake')), %m);
}

# A report.  LSNs may be given as text; "of" is the sender's incarnation.  With
# tree => [rows] it has the tree part: slot_name, application_name, location and
# conninfo of the sender, and the rows as strings that the caller has packed.
sub encode_report
{
	my (%m) = @_;
	my $sections = _section(2,
		pack('Q> N N C4 N N Q>5', $m{sequence} // 1, $m{report_interval_ms} // 1000,
			$m{timeline} // 1, $m{state} // 2, $m{replica_class} // 0,
			$m{protected} // 0, $m{hot_standby_feedback} // 0, $m{warnings} // 0,
			$m{backend_xmin} // 0,
			map { _lsn($m{$_}) } qw(flush_lsn replay_lsn frontier_lsn hold_target_lsn oldest_wal_lsn))
		  . _string($m{pinned_by} // '')
		  . _string($m{xmin_pinned_by} // '')
		  . pack('N N', $m{of} // 0, $m{moves} // 0)
		  . (defined $m{feed} ? pack('C3 N', 0, $m{feed}, $m{pause} // 0, $m{apply_delay_ms} // 0) : ''));

	if ($m{tree})
	{
		$sections .= _section(4,
			join('', map { _string($m{$_} // '') } qw(slot_name application_name location))
			  . pack('n/a*', $m{conninfo} // ''));
		$sections .= _section(0x7000,
			pack('N', scalar @{ $m{tree} }) . join('', map { pack('n/a*', $_) } @{ $m{tree} }));
	}
	return _message(2, $sections, %m);
}

# A row of the tree part.  moves => the node's move counter; unknown without.
sub encode_row
{
	my (%r) = @_;

	return pack('N N C6 N N', $r{incarnation} // 0, $r{upstream_incarnation} // 0,
		$r{role} // 2, $r{replica_class} // 0, $r{state} // 2, $r{managed} // 0,
		$r{protected} // 0, $r{hot_standby_feedback} // 0, $r{timeline} // 1,
		$r{warnings} // 0)
	  . pack('Q>4 q> N N', (map { _lsn($r{$_}) } qw(flush_lsn replay_lsn frontier_lsn oldest_wal_lsn)),
		$r{replay_lag} // -1, $r{backend_xmin} // 0, $r{age} // 0)
	  . join('', map { _string($r{$_} // '') } qw(name upstream_name pinned_by location))
	  . pack('n/a*', $r{conninfo} // '')
	  . _string($r{xmin_pinned_by} // '')
	  . (defined $r{moves} ? _string($r{version} // '') . pack('n/a*', $r{upstream_address} // '') . pack('N', $r{moves}) : '');
}

sub report_sql
{
	my ($message) = @_;
	return "cascade_report('\\x" . unpack('H*', $message) . "'::bytea)";
}

# A reply, as psql prints it: a hash with its fields, LSNs as text, the answer
# and the refusal by name, and the path as a list of [name, incarnation, LSN].
sub decode_reply
{
	my ($hex) = @_;
	my @answers = (undef, qw(ok refused closing));
	my @refusals = qw(none system self own_name duplicate cycle name full disabled
	  no_hello ousted no_worker no_free_slot no_wal later foreign_slot busy diverged
	  unbounded wal_level);
	my $message = pack('H*', $hex =~ s/^\\x//r);
	my ($magic, undef, undef, $kind) = unpack('a4 C4', $message);
	my (%sections, %reply);

	die "not a reply: $hex" unless $magic eq 'CRLY' && $kind == 3;
	for (my $at = 12; $at < length $message;)
	{
		my ($tag, $length) = unpack('n N', substr($message, $at));
		$sections{$tag} = substr($message, $at + 6, $length);
		$at += 6 + $length;
	}
	@reply{qw(answer refusal sequence held_lsn incarnation state replica_class
		  warnings root_known root_lsn node_name detail)} =
	  unpack('C n Q> Q> N C C N C Q> C/a C/a', $sections{3});
	$reply{answer} = $answers[ $reply{answer} ];
	$reply{refusal} = $refusals[ $reply{refusal} ];
	$reply{$_} = print_lsn($reply{$_}) for qw(held_lsn root_lsn);
	for my $hop (unpack('C/(n/a)', $sections{5}))
	{
		my ($incarnation, $held, $name) = unpack('N Q> C/a', $hop);
		push @{ $reply{path} }, [ $name, $incarnation, print_lsn($held) ];
	}
	$reply{rows} = unpack('N', $sections{0x7000}) if $sections{0x7000};
	return \%reply;
}

1;
