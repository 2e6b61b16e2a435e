# The disk of the primary is small, and holds do not fill it.
#
#	p ── i ── l		p's pg_wal is on a file system of 64 MB
#
# l does not replay, so p keeps WAL for it although i, which has no slot on p,
# keeps up.  p is written to until the disk is short: that is said before, and
# when it is so.  From then on the hold gives up WAL, oldest first; l is told
# that it is not protected, i stays protected, and several times what the disk
# can take is written.  A burst that the worker sleeps through does no harm
# either.  l replays again: it has caught up, is protected, nothing is left to
# say.  Then i goes down for good, and its hold is all that keeps WAL: again p
# goes on writing.  At last the bound is switched off, and p runs out of space.
use strict;
use warnings FATAL => 'all';

use lib 't';
use SmallDisk (1);
use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($total, $free) = SmallDisk::room();
cmp_ok($total, '<=', 64 * 1024 * 1024, 'the disk is small');

my $dir = SmallDisk::dir() . '/pg_wal';
my $p = new_primary('p',
	waldir => $dir,
	conf => qq{
max_wal_size = 8MB
cascade_relay.min_free_percent = 10
cascade_relay.stale_timeout = 800ms
});
my $i = new_standby('i', $p, slotless => 1);
my $l = new_standby('l', $i);
wait_connected($i, $l);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);

my $reserve = $total / 10;
my $written = 0;
my $least_free = $total;

# Writes that many MB of WAL.
sub fill
{
	my ($mb) = @_;

	$p->safe_psql('postgres',
		"SELECT count(pg_logical_emit_message(false, 'fill', repeat('x', 1000000))) FROM generate_series(1, $mb)");
	$written += $mb;
	return;
}

# The same in rounds, each with a checkpoint: as the server would do it, but
# never before the worker has looked twice, however busy the machine is.
sub rounds
{
	my ($n, $mb) = @_;

	for (1 .. $n)
	{
		fill($mb);
		look_around($p) for 1 .. 2;
		$p->safe_psql('postgres', 'CHECKPOINT');
		my (undef, $now_free) = SmallDisk::room();
		$least_free = $now_free if $now_free < $least_free;
	}
	look_around($p);
	return;
}

sub findings
{
	return value($p,
		q{SELECT string_agg(severity || ' ' || code || ' ' || node_name, ', ' ORDER BY code)
		  FROM cascade_check WHERE code IN ('disk_reserve', 'hold_clamped', 'unbounded')});
}

sub hold
{
	my ($columns) = @_;
	return value($p, "SELECT $columns FROM cascade_holds WHERE name = 'i'");
}

# Catching up includes that every row is there: what is in between was lost.
$p->safe_psql('postgres', 'CREATE TABLE story (n int)');

# ---- l does not replay ----

wait_caught_up($p, $i, $l);
value($l, 'SELECT pg_wal_replay_pause()');
rounds(1, 2);
is(findings(), '', 'nothing to say while there is room');
my $safe = hold('safe_wal_size');
cmp_ok($safe, '>', 20 * 1024 * 1024, "the hold may keep much more: $safe bytes");

rounds(5, 5);
cmp_ok(hold('safe_wal_size'), '<', $safe, 'and less when it keeps more');
is(hold('pinned_by'), 'l', 'l is to blame');
is(value($l, 'SELECT protected FROM cascade_status'), 't', 'l is protected');

# ---- shortly before the disk is short ----

my $warned = '';
for (1 .. 60)
{
	$warned = value($p, q{SELECT string_agg(concat_ws('|', severity, code, node_name, message, hint), ', ')
		FROM cascade_check WHERE code IN ('disk_reserve', 'hold_clamped')});
	last if $warned ne '';
	rounds(1, 1);
}
like($warned, qr/^warning\|disk_reserve\|p\|with \d+ MB free .* must soon give up WAL\|.*min_free_percent[^|]*$/,
	'it is said before it bites');
is(value($l, 'SELECT protected FROM cascade_status'), 't', 'l is still protected');

# ---- it is short ----

my $log = -s $p->logfile;
for (1 .. 60)
{
	last if findings() =~ /critical/;
	rounds(1, 1);
}
is(findings(), 'critical disk_reserve p, critical hold_clamped i', 'it is said when it bites');
ok($p->wait_for_log(qr/hold "cascade_relay_i_[0-9a-f]{8}" was moved to \S+ by its size limit\n.*DETAIL.*not protected until.*\n.*HINT.*cascade_relay\.min_free_percent/, $log),
	'and logged');
cmp_ok(hold('safe_wal_size'), '<=', 0, 'nothing more may be written for l');
wait_for($l, 'SELECT NOT protected FROM cascade_status', 'l is told that it is not protected');
wait_for($_, q{SELECT NOT protected AND warnings @> '{unprotected}' FROM cascade_topology WHERE node_name = 'l'},
	$_->name . ' knows') for ($i, $p);
is(value($i, 'SELECT protected FROM cascade_status'), 't', 'i is protected');
wait_for($i, q{SELECT warnings @> '{hold_clamped}' FROM cascade_topology WHERE is_local}, 'i knows of the bound');

# ---- much more than the disk can take ----

my $moved = hold('restart_lsn');
rounds(12, 6);
cmp_ok($written * 1000000, '>', $total, "$written MB were written to a disk of 64");
ok(lsn_le($p, $moved, hold('restart_lsn')) && hold('restart_lsn') ne $moved, 'the hold gives up the oldest WAL');
is(hold('pinned_by'), 'l', 'and keeps the rest');
cmp_ok(hold('retained_bytes'), '>', 15 * 1024 * 1024, 'which is no little');
is(value($i, 'SELECT protected FROM cascade_status'), 't', 'i is still protected');
is( (grep { !has_segment($p, $_) }
		split /\n/,
		value($p,
			q{SELECT '0/0'::pg_lsn + s FROM cascade_holds, generate_series(restart_lsn - '0/0', pg_current_wal_lsn() - '0/0', 1048576) s WHERE name = 'i'})
	),
	0,
	'every file from the hold on is there');

# A burst of what may come between two checkpoints, and one checkpoint, without
# any pass of the worker.
my $worker = value($p, 'SELECT worker_pid FROM cascade_status');
kill 'STOP', $worker;
fill(8);
$p->safe_psql('postgres', 'CHECKPOINT');
my (undef, $after_burst) = SmallDisk::room();
kill 'CONT', $worker;
cmp_ok($after_burst, '>=', $reserve / 2, "a burst that nobody looks at leaves $after_burst bytes");
rounds(3, 4);
cmp_ok($least_free, '>=', $reserve / 2, "there were never less than $least_free bytes free");

# ---- l catches up ----

$p->safe_psql('postgres', 'INSERT INTO story SELECT generate_series(1, 1000)');
value($l, 'SELECT pg_wal_replay_resume()');
wait_caught_up($p, $l);
is(value($l, 'SELECT count(*), sum(n) FROM story'), '1000|500500', 'l has every row');
checkpoint_all($p, $i, $l);
wait_protected($l, $i);
rounds(2, 1);
wait_for($p, q{SELECT count(*) = 0 FROM cascade_check WHERE code IN ('disk_reserve', 'hold_clamped')}, 'nothing is left to say');
wait_for($i, q{SELECT NOT warnings && '{hold_clamped,unprotected}' FROM cascade_topology WHERE is_local}, 'neither on i');
ok($p->wait_for_log(qr/hold "cascade_relay_i_[0-9a-f]{8}" is within its size limit again/, $log), 'and in the log');

# ---- i goes for good ----

$i->stop('immediate');
is(value($p, q{SELECT count(*) FROM pg_replication_slots WHERE slot_name NOT LIKE 'cascade_relay_%'}), '0',
	'the hold is all that keeps WAL');
$written = 0;
rounds(20, 4);
cmp_ok($written * 1000000, '>', $total, "$written MB were written to a disk of 64");
cmp_ok($least_free, '>=', $reserve / 2, "there were never less than $least_free bytes free");
is(findings(), 'critical disk_reserve p, critical hold_clamped i', 'what was given up is said');

# a restart forgets what i had asked for; what its hold has come to is known
$p->restart;
rounds(3, 4);
is(findings(), 'critical disk_reserve p, critical hold_clamped i', 'after a restart too');

# ---- and without the bound ----

may_crash($p);
$log = -s $p->logfile;
$p->append_conf('postgresql.conf', 'cascade_relay.min_free_percent = 0');
$p->reload;
wait_for($p, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'unbounded'}, 'without it, nothing is bounded');
my $full = 0;
for (1 .. 30)
{
	$full = $p->psql('postgres',
		q{SELECT count(pg_logical_emit_message(false, 'fill', repeat('x', 1000000))) FROM generate_series(1, 4)}) != 0;
	last if $full;
	$p->psql('postgres', 'CHECKPOINT');
}
ok($full, 'p does not go on');
like(slurp_file($p->logfile, $log), qr/PANIC: .*No space left on device/, 'because the disk is full');

$l->stop('immediate');
$p->stop('immediate', fail_ok => 1);
done_testing();
