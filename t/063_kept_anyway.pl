# A hold is not given up where that would free nothing.
#
#	p ── l		p's pg_wal is on a file system of 64 MB; l is away, and
#				the hold of l is all that waits for it
#
# p runs short of room, and cascade_relay.min_free_percent would take the hold.  But
# the WAL is kept by something else as well: at first by an archiver that is stuck,
# then by a logical slot, by a physical slot that is ignored, by wal_keep_size, and
# where there is such a thing by a WAL summarizer that does not get on.  As long as
# one of them keeps it, the hold stays where it is, and cascade_check says which one
# that is.  When none does, the hold gives up what the disk needs, and no more.
use strict;
use warnings FATAL => 'all';

use lib 't';
use SmallDisk (2);
use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p',
	waldir => SmallDisk::dir() . '/pg_wal',
	conf => qq{
wal_level = logical
archive_mode = on
archive_command = 'false'
max_wal_size = 8MB
cascade_relay.min_free_percent = 10
cascade_relay.report_interval = 100ms
cascade_relay.stale_timeout = 800ms
cascade_relay.ignore_slots = 'ignored%'
});
my $summarizer;
my $l = new_standby('l', $p, slotless => 1);

value($p, q{SELECT pg_create_physical_replication_slot('ignored', true)});
value($p, q{SELECT pg_create_logical_replication_slot('logical', 'pgoutput')});

# A summarizer that gets as far as the slots stand, and not to the hold.
write_segments($p, 2);
if ($p->pg_version->major >= 17)
{
	set_conf($p, "summarize_wal = on\n");
	my $redo = value($p, q{SELECT redo_lsn FROM pg_control_checkpoint()});
	$p->safe_psql('postgres', 'CHECKPOINT');
	wait_for($p, "SELECT summarized_lsn >= '$redo' FROM pg_get_wal_summarizer_state()", 'WAL is summarized');
	$summarizer = value($p, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsummarizer'});
	kill 'STOP', $summarizer;
}
write_segments($p, 2);
wait_connected($l);
checkpoint_all($p, $l);
wait_protected($l);
wait_for($p, q{SELECT bool_and(h.restart_lsn >= s.restart_lsn + 2 * 1024 * 1024) FROM pg_replication_slots s, cascade_holds h
			   WHERE s.slot_name IN ('ignored', 'logical')}, 'the hold stands above the other slots');
$l->stop;
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'l'}, 'l is away');
my $held = hold_lsn($p, 'l');

# The findings about the disk and the hold: severity, code, and what is named.
sub findings
{
	return value($p,
		q{SELECT string_agg(concat_ws(' ', severity, code, substring(message FROM 'room: (.*) keeps the WAL')), ', ' ORDER BY code)
		  FROM cascade_check WHERE code IN ('disk_reserve', 'hold_clamped')});
}

# The worker looks again, also at the files, and the server may remove WAL.
sub look_and_checkpoint
{
	for (1 .. 2)
	{
		look_around($p) for 1 .. 4;
		$p->safe_psql('postgres', 'CHECKPOINT');
	}
	return;
}

# Writes WAL until the disk is short.
sub fill
{
	for (1 .. 60)
	{
		look_around($p);
		last if findings() =~ /critical/;
		$p->safe_psql('postgres', q{SELECT pg_logical_emit_message(false, 'fill', repeat('x', 2000000))});
	}
	return;
}

# As long as that keeps the WAL, the hold stays.
sub keeps
{
	my ($keeper, $what) = @_;

	look_and_checkpoint();
	wait_until("$what keeps the WAL, says cascade_check",
		sub {
			fill();
			return findings() eq "critical disk_reserve $keeper";
		}) or diag findings();
	is(hold_lsn($p, 'l'), $held, "the hold stays while $what keeps the WAL");
	ok(has_segment($p, $held), 'and so does its WAL');
	return;
}

# ---- kept by something else ----

keeps('the archiver', 'an archiver that is stuck');
set_conf($p, "archive_command = 'true'\n");
wait_for($p, q{SELECT count(*) = 0 FROM pg_ls_archive_statusdir() WHERE name ~ '^[0-9A-F]{24}\.ready$'}, 'all is archived');
keeps('replication slot "ignored"', 'a slot that does not count');
value($p, q{SELECT pg_drop_replication_slot('ignored')});
keeps('replication slot "logical"', 'a logical slot');

if ($summarizer)
{
	value($p, q{SELECT pg_drop_replication_slot('logical')});
	keeps('the WAL summarizer', 'a WAL summarizer that does not get on');
}
set_conf($p, "wal_keep_size = 100MB\n");
if ($summarizer)
{
	set_conf($p, "summarize_wal = off\n");
	kill 'CONT', $summarizer;
}
else
{
	value($p, q{SELECT pg_drop_replication_slot('logical')});
}
keeps('wal_keep_size', 'wal_keep_size');
ok(!$p->log_contains(qr/was moved to \S+ by its size limit/), 'nothing was given up so far');

# ---- and by nothing but the hold ----

set_conf($p, "wal_keep_size = 0\n");
wait_until('the hold gives up WAL',
	sub {
		fill();
		return hold_lsn($p, 'l') ne $held;
	});
like(findings(), qr/^critical disk_reserve, critical hold_clamped$/, 'which is said');
look_and_checkpoint();
my $kept = value($p, q{SELECT retained_bytes / 1048576 FROM cascade_holds WHERE name = 'l'});
cmp_ok($kept, '>', 25, "it keeps $kept MB: no more is given up than is needed");
my ($total, $free) = SmallDisk::room();
cmp_ok($free, '>=', $total / 10, 'the reserve is free again');

$p->stop;
done_testing();
