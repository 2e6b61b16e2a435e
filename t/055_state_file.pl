# The state file is damaged, cut off, unreadable, or its disk is full.
#
#	p ─── i ─── l        i's state file
#
# A restarted i with a file that is damaged is another incarnation: it sets the
# file aside and says so, and what p holds for its former life stays.  While the
# server runs, damage costs nothing: the worker writes the file anew from shared
# memory, and i stays who it is.  A file that cannot be read is waited for.  A
# file of a later version is not touched.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $p = new_primary('p', conf => "cascade_relay.stale_timeout = 2s\n");
my $i = new_standby('i', $p);
my $l = new_standby('l', $i);
my $file = $i->data_dir . '/pg_replslot/cascade_relay.state';

sub put
{
	my ($text) = @_;

	open my $out, '>', $file or die "$file: $!";
	print $out $text;
	close $out or die "$file: $!";
	return;
}

wait_protected($i, $l);
checkpoint_all($p, $i, $l);
wait_until('the file has what i knows', sub { state_lines($i, 'hold') && state_lines($i, 'user') && state_lines($i, 'told') });
my $whole = slurp_file($file);
my $life = incarnation($i);
like($whole, qr/\Acascade_relay_state 1\nnode i $life\n.*\ncrc [0-9A-F]{8}\n\z/s, 'a version, lines, and a CRC');
is((stat $file)[2] & 0777, 0600, 'for nobody else to read');

# ---- a restart with a whole file ----

$i->stop('immediate');
$i->start;
wait_protected($i, $l);
is(incarnation($i), $life, 'i is who it was');

# ---- damage while the server runs ----

my $log = -s $i->logfile;
my $worker = stop_worker($i);	# it would set the file aside when the command wakes it
put('garbage');
my ($ret, undef, $stderr) = $i->psql('postgres', q{SELECT cascade_release('l')});
like($stderr, qr/ERROR:  state file "pg_replslot\/cascade_relay\.state" is damaged\nHINT:  .*pg_terminate_backend/, 'a command fails, and says what to do');
like(value($i, q{SELECT counted FROM cascade_holds}), qr/^t$/, 'and has changed nothing');
kill 'CONT', $worker;
value($i, 'SELECT pg_terminate_backend(worker_pid) FROM cascade_status');
ok($i->wait_for_log(qr/WARNING: +cascade_relay: state file .* is damaged, and was renamed to "pg_replslot\/cascade_relay\.state\.damaged"/, $log), 'the worker sets it aside');
wait_protected($i, $l);
is(incarnation($i), $life, 'i is who it was');
wait_until('the file is whole again', sub { join(' ', map { scalar state_lines($i, $_) } qw(node moves told hold user)) eq '1 1 1 1 1' });
is(slurp_file("$file.damaged"), 'garbage', 'the damaged one is kept');
value($i, q{SELECT cascade_release('l')});
add_rows($p, 2);
checkpoint_all($p, $i, $l);
wait_for($i, 'SELECT counted FROM cascade_holds', 'l has caught up and counts again', 't');
wait_until('which is on disk', sub { !state_lines($i, 'released') });

# ---- a full disk ----

my $verdict = value($i, 'SELECT counted, reason FROM cascade_holds');
$log = -s $i->logfile;
symlink '/dev/full', "$file.tmp" or die "$file.tmp: $!";
look_around($i);
my $before = slurp_file($file);
(undef, undef, $stderr) = $i->psql('postgres', q{SELECT cascade_release('l')});
like($stderr, qr/ERROR:  could not write file "pg_replslot\/cascade_relay\.state\.tmp": No space left on device/, 'on a full disk a command fails');
is(value($i, 'SELECT counted, reason FROM cascade_holds'), $verdict, 'and has changed nothing');
value($i, q{SELECT pg_create_physical_replication_slot('another', true)});
ok($i->wait_for_log(qr/LOG: +could not write file .*: No space left on device/, $log), 'the worker says it');
look_around($i) for 1 .. 12;
is(() = slurp_file($i->logfile, $log) =~ /LOG: +could not write file/g, 1, 'once');
is(slurp_file($file), $before, 'the file is as before');
unlink "$file.tmp" or die "$file.tmp: $!";
wait_until('when there is room again it is written', sub { grep { /^another / } map { state_lines($i, $_) } qw(slot user) });
value($i, q{SELECT pg_drop_replication_slot('another')});

# ---- not readable ----

SKIP:
{
	skip 'the superuser reads everything', 2 if $> == 0;
	my $log = -s $i->logfile;
	chmod 0, $file or die $!;
	value($i, 'SELECT pg_terminate_backend(worker_pid) FROM cascade_status');
	ok($i->wait_for_log(qr/could not read file "pg_replslot\/cascade_relay\.state": Permission denied/, $log), 'the worker waits for a file that it cannot read');
	chmod 0600, $file or die $!;
	wait_protected($i, $l);
	is(incarnation($i), $life, 'i is who it was');
}

# ---- damaged before a start ----

my $holds = value($p, q{SELECT string_agg(slot_name || ' ' || counted, ',') FROM cascade_holds});
for my $damage ([ 'garbage', 'not a state file' ], [ substr($whole, 0, length($whole) / 2), 'cut off' ], [ $whole =~ s/node i/node x/r, 'one byte is wrong' ], [ '', 'empty' ])
{
	my ($text, $what) = @$damage;
	my $log = -s $i->logfile;
	my $before = incarnation($i);

	$i->stop;
	put($text);
	$i->start;
	ok($i->wait_for_log(qr/state file .* is damaged/, $log), "$what: it is said");
	wait_protected($i, $l);
	isnt(incarnation($i), $before, "$what: i is another incarnation");
	is(value($p, "SELECT counted FROM cascade_holds WHERE slot_name = 'cascade_relay_i_$before'"), 't', "$what: p holds on for the one before");
	value($p, "SELECT cascade_forget('cascade_relay_i_$before', true)");
}

# ---- of a later version ----

$i->stop;
rewrite_state($i, sub { $_[0] =~ s/\Acascade_relay_state 1/cascade_relay_state 2/r });
my $later = slurp_file($file);
$log = -s $i->logfile;
$i->start;
ok($i->wait_for_log(qr/state file .* has version 2\n.*DETAIL: .*reads version 1/, $log), 'a later version is not read');
is(slurp_file($file), $later, 'nor overwritten');
$i->stop;
rewrite_state($i, sub { $_[0] =~ s/\Acascade_relay_state 2/cascade_relay_state 1/r });
$life = (split ' ', (state_lines($i, 'node'))[0])[1];
$i->start;
wait_protected($i, $l);
is(incarnation($i), $life, 'with its own version i is who it was');

done_testing();
