# Causal reads: what was written on the primary is read where it has arrived.
#
#	p ── i ─┬─ l
#	        └─ u    no extension preloaded
#
# An application commits on p, takes a bookmark, and reads on l what it wrote,
# every time.  A row that was committed without waiting for the disk is covered
# too.  While l's replay is paused l is no node that serves; while i's is, l is
# ahead of its feeder, and serves.
#
# p deletes rows and removes them, and takes a table away, while somebody waits
# on l for just that WAL: the waiter has no snapshot, and so does not block what
# it waits for, however patient l's recovery is; a reader beside it does, and
# the waiter outlasts it.  How soon a waiter wakes up is measured.
#
# A waiter can be cancelled, timed out and terminated, and does not hold up a
# shutdown.
#
# i goes away, p commits once more and dies, i is promoted: that commit is lost.
# Who waits for its bookmark, on i or on l, is told so; who waits for a bookmark
# of the new timeline has it in time; older ones are as good as before.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# A standby that never cancels a query to go on with replay.
my $patient = "max_standby_streaming_delay = -1\nmax_standby_archive_delay = -1\nhot_standby_feedback = off\n";

# What a session does not write to disk itself stays unwritten for long.
my $p = new_primary('p', conf => "wal_writer_delay = 10s\nwal_writer_flush_after = 1GB\n");
my $i = new_standby('i', $p,
	conf => $patient . "cascade_relay.advertised_conninfo = 'host=i.example port=5432'\n");
my $l = new_standby('l', $i, conf => $patient);
my $u = new_standby('u', $i, conf => $patient, unmanaged => 1);

# ---- helpers ----

sub bookmark { return value($_[0], 'SELECT cascade_bookmark()'); }

# What SQL says in one session, statement by statement.
sub session
{
	my ($node, @statements) = @_;

	return $node->safe_psql('postgres', join(";\n", @statements));
}

my $n_waiters = 0;

# Somebody who waits on a node, and is seen to.  Then what it says is for
# ended().  Options: timeout; settings, SQL to begin with.
sub waiter
{
	my ($node, $bookmark, %opt) = @_;
	my $timeout = $opt{timeout} // '3min';
	my $name = 'waiter_' . ++$n_waiters;
	my %waiter = (name => $name, out => '', err => '');
	my @statements = ($opt{settings} // (), "CALL cascade_wait_for('$bookmark', '$timeout')",
		'SELECT extract(epoch FROM clock_timestamp())');

	$waiter{run} = IPC::Run::start(
		[
			'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-v', 'ON_ERROR_STOP=1', '-d',
			$node->connstr('postgres') . " application_name=$name", map { ('-c', $_) } @statements
		],
		'<', \undef, '>', \$waiter{out}, '2>', \$waiter{err},
		IPC::Run::timeout(2 * $PostgreSQL::Test::Utils::timeout_default));
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = '$name' AND wait_event_type = 'Extension'")
	  or die "$name does not wait: $waiter{err}";
	return \%waiter;
}

# What a waiter says in the end: t or f, or its error.
sub ended
{
	my ($waiter) = @_;

	$waiter->{run}->finish;
	($waiter->{reached}, $waiter->{at}) = split /\n/, $waiter->{out};
	return $waiter->{err} || $waiter->{reached};
}

sub still_waits
{
	my ($node, $waiter) = @_;

	return value($node,
		"SELECT count(*) FROM pg_stat_activity WHERE application_name = '$waiter->{name}' AND wait_event_type = 'Extension'");
}

# From now on nothing is replayed on a node.
sub pause_replay
{
	my ($node) = @_;

	$node->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
	$p->safe_psql('postgres', 'SELECT pg_switch_wal()');
	$node->poll_query_until('postgres', "SELECT pg_get_wal_replay_pause_state() = 'paused'")
	  or die $node->name . ' does not pause';
	return;
}

sub resume_replay
{
	my ($node) = @_;

	return value($node,
		'SELECT extract(epoch FROM now) FROM (SELECT clock_timestamp() AS now) AS c, pg_wal_replay_resume()');
}

sub serving
{
	my ($node, $bookmark) = @_;

	return value($node, "SELECT string_agg(node_name, ',') FROM cascade_nodes_serving('$bookmark')")
}

sub can_serve
{
	my ($node, $name, $bookmark) = @_;

	return value($node, "SELECT coalesce(cascade_can_serve('$name', '$bookmark')::text, 'unknown')");
}

sub wait_serving
{
	my ($node, $bookmark, $expected) = @_;

	return wait_for($node, "SELECT string_agg(node_name, ',') FROM cascade_nodes_serving('$bookmark')",
		$node->name . " says that $expected serve", $expected);
}

wait_connected($i, $l);
value($p, 'CREATE TABLE notes (n int, how text)');

# ---- what one writes, one reads ----

my $missed = 0;
for my $n (1 .. 20)
{
	my $here = session($p, "INSERT INTO notes VALUES ($n, 'plain')", 'SELECT cascade_bookmark()');
	my $there = session($l, "CALL cascade_wait_for('$here', '1min')", "SELECT count(*) FROM notes WHERE n = $n");

	$missed++ if $there ne "t\n1";
}
is($missed, 0, 'of 20 rows, each is read right after it was written');

# Also what was committed without waiting for the disk, with nobody but the
# bookmark to see to it: when it is taken, it is there, and no crash can give
# its LSN to other changes.  The last one is another session's.
my $take = q{SELECT b, split_part(b, ':', 2)::pg_lsn <= pg_current_wal_flush_lsn() FROM (SELECT cascade_bookmark() AS b OFFSET 0) AS taken};
my %asynchronously = (
	session => [ 'SET synchronous_commit = off', "INSERT INTO notes VALUES (0, 'session')" ],
	transaction => [
		'BEGIN', 'SET LOCAL synchronous_commit = off',
		"INSERT INTO notes VALUES (0, 'transaction')", 'COMMIT'
	]);
for my $how (sort keys %asynchronously)
{
	my ($here, $on_disk) = split /\|/, session($p, @{ $asynchronously{$how} }, $take);

	is($on_disk, 't', "a bookmark is on disk, whatever its $how said");
	is(session($l, "CALL cascade_wait_for('$here', '1min')", "SELECT count(*) FROM notes WHERE how = '$how'"),
		"t\n1", "a row is read that was not written to disk, as its $how said");
}
session($p, 'SET synchronous_commit = off', "INSERT INTO notes VALUES (0, 'other')");
my ($here, $on_disk) = split /\|/, session($p, 'SET synchronous_commit = off', $take);
is($on_disk, 't', 'and whoever wrote what it covers');
is(session($l, "CALL cascade_wait_for('$here', '1min')", "SELECT count(*) FROM notes WHERE how = 'other'"),
	"t\n1", 'a row is read that another session did not write to disk');

# A bookmark is not ahead of the disk, and what fills its segment is reached.
value($p, 'SELECT pg_switch_wal()');
my $end = session($p, 'SET synchronous_commit = off', 'SELECT cascade_bookmark()');
like($end, qr{^1:[0-9A-F]+/[0-9A-F]+00000$}, 'a bookmark at the end of a segment');
is(value($l, "CALL cascade_wait_for('$end', '1min')"), 't', 'is reached');

unlike(slurp_file($p->logfile), qr/past end of generated WAL/, 'and asks for no WAL that there is not');

# Nor is it within a record that somebody else has not yet written to the end:
# no standby could get there.  Here the record is larger than what is buffered.
my $writer = $p->background_psql('postgres');
my $tail = $writer->query_safe("BEGIN; SELECT pg_logical_emit_message(false, 'fill', repeat('x', 3000000))");
my $flushed = value($p, "SELECT pg_current_wal_flush_lsn() || ' ' || (pg_current_wal_flush_lsn() < '$tail')");
like($flushed, qr/000 true$/, 'what is on disk ends within a record');
my $whole = bookmark($p);
is(value($p, "SELECT split_part('$whole', ':', 2)::pg_lsn >= '$tail'"), 't', 'a bookmark does not');
is(value($l, "CALL cascade_wait_for('$whole', '1min')"), 't', 'and is reached');
$writer->query_safe('ROLLBACK');
$writer->quit;

# Drivers do not speak as psql does: parse, bind and execute, and prepare.
my $script = $p->basedir . '/wait.sql';
append_to_file($script, "CALL cascade_wait_for('$end', '1min');\nBEGIN;\nCALL cascade_wait_for('$end', '1min');\nSELECT count(*) FROM notes;\nCOMMIT;\n");
for my $protocol (qw(extended prepared))
{
	command_ok(
		[
			'pgbench', '-n', '-t', '3', '-M', $protocol, '-f', $script, '-h', $l->host, '-p', $l->port, 'postgres'
		],
		"the $protocol protocol");
}

# A standby's bookmark is what it has seen; the primary has it, and itself.
my $seen = bookmark($l);
is(value($l, "SELECT '$seen' ~ '^1:' AND split_part('$seen', ':', 2)::pg_lsn = pg_last_wal_replay_lsn()"),
	't', 'the bookmark of a standby');
is(value($p, "CALL cascade_wait_for('$seen', '0')"), 't', 'is no news to the primary');
is(value($l, "CALL cascade_wait_for('$seen', '0')"), 't', 'nor to itself');

# No preloading is needed to wait, nor to take a bookmark.
my $everywhere = bookmark($p);
is(value($u, "CALL cascade_wait_for('$everywhere', '1min')"), 't', 'u waits, without preloading');
like(bookmark($u), qr{^1:}, 'and takes a bookmark');
my ($ret, $out, $err) = $u->psql('postgres', "SELECT cascade_can_serve('l', '$everywhere')");
like($err, qr/cascade_relay must be loaded via "shared_preload_libraries"/, 'but knows no tree');

# The frontier is one, too.
wait_for($p,
	q{SELECT split_part(frontier_bookmark, ':', 1)::int = timeline AND split_part(frontier_bookmark, ':', 2)::pg_lsn = frontier_lsn FROM cascade_status},
	'the frontier as a bookmark');
is(value($l, "CALL cascade_wait_for('" . value($p, 'SELECT frontier_bookmark FROM cascade_status') . "', '1min')"),
	't', 'and everybody has reached it');

# ---- who can serve ----

wait_serving($p, $everywhere, 'p,i,l,u');
wait_serving($i, $everywhere, 'p,i,l,u');
is( value($p, "SELECT conninfo, replay_lsn >= split_part('$everywhere', ':', 2)::pg_lsn, "
		  . "observed_at > now() - interval '1 minute' AND observed_at <= now() + interval '1 minute' "
		  . "FROM cascade_nodes_serving('$everywhere') WHERE node_name = 'i'"),
	'host=i.example port=5432|t|t', 'where a node is, how far, and as of when');
is(can_serve($p, $_, $everywhere), 'true', "$_ can serve") for qw(p i l u);
($ret, $out, $err) = $p->psql('postgres', "SELECT cascade_can_serve('nobody', '$everywhere')");
like($err, qr/node "nobody" is not known here/, 'a name that nobody has');

# l does not replay, and says so at once itself; the others serve
pause_replay($l);
my $later = session($p, "INSERT INTO notes VALUES (100, 'later')", 'SELECT cascade_bookmark()');
wait_serving($p, $later, 'p,i,u');
is(can_serve($_, 'l', $later), 'false', $_->name . ' says that l cannot serve') for ($p, $i, $l);
is(can_serve($_, 'l', $everywhere), 'true', $_->name . ' says that l can serve what is older') for ($p, $i, $l);
my $started = time;
is(value($l, "CALL cascade_wait_for('$later', '300 ms')"), 'f', 'a wait that is too short');
cmp_ok(time - $started, '>=', 0.3, 'has taken that long');
resume_replay($l);
is(value($l, "CALL cascade_wait_for('$later', '1min')"), 't', 'it is reached later');
is(can_serve($l, 'l', $later), 'true', 'which l knows at once');
wait_serving($p, $later, 'p,i,l,u');

# i does not: l is ahead of its feeder
pause_replay($i);
$later = session($p, "INSERT INTO notes VALUES (101, 'ahead')", 'SELECT cascade_bookmark()');
is(session($l, "CALL cascade_wait_for('$later', '1min')", 'SELECT count(*) FROM notes WHERE n = 101'),
	"t\n1", 'l has what i has not replayed');
wait_serving($p, $later, 'p,l,u');
wait_serving($i, $later, 'p,l,u');
is(can_serve($p, 'i', $later), 'false', 'i cannot serve');
resume_replay($i);
wait_serving($p, $later, 'p,i,l,u');

# one that is not there serves nobody, whatever it had
$l->stop;
wait_serving($p, $everywhere, 'p,i,u');
is(can_serve($p, 'l', $everywhere), 'unknown', 'who knows what a node can that is down');
$l->start;
wait_serving($p, $everywhere, 'p,i,l,u');

# ---- a waiter does not block what it waits for ----

# Rows that are deleted and removed, and a lock that nobody may hold meanwhile.
# With a reader that has seen the rows, replay stops at their removal.
value($p, 'CREATE TABLE prey AS SELECT g AS n FROM generate_series(1, 100) g');
is(value($l, "CALL cascade_wait_for('" . bookmark($p) . "', '1min')"), 't', 'l has the rows');
for my $beside (0, 1)
{
	my $reader = $l->background_psql('postgres');

	pause_replay($l);
	value($p, 'DELETE FROM prey WHERE n % 3 = ' . $beside);
	value($p, 'VACUUM prey');
	value($p, 'ALTER TABLE notes ADD COLUMN more' . $beside . ' int');
	my $after = bookmark($p);
	$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM prey') if $beside;
	my $one = waiter($l, $after);
	my $two = waiter($l, $after, settings => 'BEGIN');

	is( value($l,
			"SELECT count(*), count(backend_xmin), count(backend_xid) FROM pg_stat_activity WHERE application_name IN ('$one->{name}', '$two->{name}')"),
		'2|0|0', 'those who wait have no snapshot');
	is(value($l, 'SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()'),
		$beside, $beside ? 'a reader has' : 'and nobody else has');
	resume_replay($l);
	if ($beside)
	{
		wait_for($l, q{SELECT wait_event = 'RecoveryConflictSnapshot' FROM pg_stat_activity WHERE backend_type = 'startup'},
			'the reader stops the replay');
		is(still_waits($l, $_), 1, "$_->{name} waits on") for ($one, $two);
		$reader->query_safe('COMMIT');
	}
	is(ended($_), 't', "$_->{name} has reached it") for ($one, $two);
	is(value($l, 'SELECT sum(confl_snapshot + confl_lock) FROM pg_stat_database_conflicts'), 0,
		'nobody was cancelled for it');
	$reader->quit;
}

# Where recovery is not patient, it is the reader that goes.
$l->append_conf('postgresql.conf', 'max_standby_streaming_delay = 50ms');
$l->reload;
wait_for($l, "SELECT current_setting('max_standby_streaming_delay') = '50ms'", 'l is impatient');
{
	my $reader = $l->background_psql('postgres', on_error_stop => 0);

	pause_replay($l);
	value($p, 'DELETE FROM prey WHERE n % 3 = 2 AND n > 10');
	value($p, 'VACUUM prey');
	value($p, 'ALTER TABLE notes ADD COLUMN more2 int');
	my $after = bookmark($p);
	$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM prey');
	my $one = waiter($l, $after);
	# recovery has been patient long enough, and may cancel even this
	$l->psql('postgres', 'SELECT pg_wal_replay_resume()');
	is(ended($one), 't', 'who waits is not cancelled');
	wait_for($l, q{SELECT sum(confl_snapshot) > 0 FROM pg_stat_database_conflicts}, 'the reader is');
	$reader->quit;
}

# What a transaction has locked before, it keeps; such a wait can only time out.
$l->append_conf('postgresql.conf', $patient);
$l->reload;
wait_for($l, "SELECT current_setting('max_standby_streaming_delay') = '-1'", 'l is patient again');
pause_replay($l);
value($p, 'ALTER TABLE notes ADD COLUMN more3 int');
my $locked = bookmark($p);
my $holder = waiter($l, $locked, timeout => '1s', settings => 'BEGIN; SELECT FROM notes LIMIT 0');
resume_replay($l);
is(ended($holder), 'f', 'a wait behind a lock of its own times out');
is(value($l, "CALL cascade_wait_for('$locked', '1min')"), 't', 'and is over with its transaction');

# ---- how soon ----

# Measured, not judged: a loaded machine or an instrument would fail it.
my @late;
my $woken = 0;
for (1 .. 20)
{
	pause_replay($l);
	my $waiter = waiter($l, session($p, "INSERT INTO notes VALUES (200, 'soon')", 'SELECT cascade_bookmark()'));
	my $resumed = resume_replay($l);

	$woken++ if ended($waiter) eq 't';
	push @late, 1000 * ($waiter->{at} - $resumed);
}
@late = sort { $a <=> $b } @late;
note(sprintf('woken up after %.1f ms in the median, %.1f ms at best, %.1f ms at worst',
		$late[10], $late[0], $late[-1]));
is($woken, 20, 'each waiter is woken up by the replay');

# ---- and how it ends otherwise ----

my $never = '1:FFFFFFFF/FFFFFFFF';
for my $node ($p, $l)
{
	my $name = $node->name;
	my $waiter = waiter($node, $never);

	value($node, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = '$waiter->{name}'");
	like(ended($waiter), qr/ERROR:  57014: canceling statement due to user request/, "cancelled on $name");

	$waiter = waiter($node, $never, settings => "SET statement_timeout = '1s'");
	like(ended($waiter), qr/ERROR:  57014: canceling statement due to statement timeout/, "timed out on $name");

	$waiter = waiter($node, $never);
	value($node, "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = '$waiter->{name}'");
	like(ended($waiter), qr/FATAL:  57P01: terminating connection due to administrator command/, "terminated on $name");
}

# A future that comes: an LSN that is not there yet on the primary itself.
my $soon = value($p, "SELECT '1:' || pg_current_wal_insert_lsn() + 1000");
my $early = waiter($p, $soon);
value($p, "SELECT pg_logical_emit_message(true, 'fill', repeat('x', 2000))");
is(ended($early), 't', 'the primary gets there, too');

my $stopped = waiter($l, $never);
$started = time;
$l->stop('fast');
like(ended($stopped), qr/terminating connection due to administrator command/, 'shut down on l');
note(sprintf('l stopped in %.1f s', time - $started));
$l->start;

# ---- a failover ----

my $old = session($p, "INSERT INTO notes VALUES (300, 'old')", 'SELECT cascade_bookmark()');
is(value($_, "CALL cascade_wait_for('$old', '1min')"), 't', $_->name . ' has what comes before') for ($i, $l, $u);
$i->stop;
my $lost = session($p, "INSERT INTO notes VALUES (301, 'lost')", 'SELECT cascade_bookmark()');
$p->stop('immediate');
$i->start;

# Before it: nobody knows yet.  A timeline of the future may come, or not.
my @lost = map { waiter($_, $lost) } ($i, $l, $u);
my @next = map { waiter($_, '2:0/1') } ($i, $l, $u);
is(value($l, "CALL cascade_wait_for('$lost', '0')"), 'f', 'as long as nobody knows, it may come');
$i->promote;

for my $waiter (@lost)
{
	my $said = ended($waiter);

	like($said, qr/ERROR:  40000: bookmark "\Q$lost\E" was lost in a failover/, "$waiter->{name} is told that it was lost");
	like($said, qr{DETAIL:  The history of this server left timeline 1 at [0-9A-F]+/[0-9A-F]+, before the bookmark\.},
		'and where');
}
is(ended($_), 't', "$_->{name} has the new timeline") for @next;

my $new = session($i, "INSERT INTO notes VALUES (302, 'new')", 'SELECT cascade_bookmark()');
like($new, qr/^2:/, 'a bookmark of the new timeline');
is(session($_, "CALL cascade_wait_for('$new', '1min')", 'SELECT count(*) FROM notes WHERE n = 302'),
	"t\n1", 'is reached on ' . $_->name)
  for ($i, $l, $u);
is(value($_, "CALL cascade_wait_for('$old', '0')"), 't', 'the old one is still good on ' . $_->name) for ($i, $l, $u);
($ret, $out, $err) = $l->psql('postgres', "CALL cascade_wait_for('$lost', '0')");
like($err, qr/was lost in a failover/, 'the lost one is lost, whenever one asks');

wait_serving($i, $new, 'i,l,u');
is(serving($i, $old), 'i,l,u', 'who serves the old one');
is(serving($i, $lost), '', 'nobody serves the lost one');
is(can_serve($i, $_, $lost), 'false', "$_ cannot serve the lost one") for qw(i l u);
wait_for($i, q{SELECT frontier_bookmark ~ '^2:' FROM cascade_status}, 'the frontier is on the new timeline');

$_->stop for ($u, $l, $i);
done_testing();
