# Nothing feeds a standby: it retries for ever, and its reports are answered.
#
#	p (primary) -- i -- l
#
# That reports are answered does not mean that WAL comes.  Each scene takes away
# what feeds a node, and looks for the state disconnected and the finding
# not_streaming on that node and on every node above it, with the cause; then does
# what the finding says, or takes the cause away, and looks until it is gone.
#
#	1. l's slot on i is dropped while l is down.  What l needs is held all the same:
#	   it stays protected.
#	2. i may keep 3 MB for slots, and l is down for longer than that.  p still has
#	   what l needs.
#	3. p may keep no more either: what l needs is gone everywhere, and nobody says
#	   that it is kept, or that it comes.
#	4. p does not let the walreceiver of i in, but its reports.  i has a
#	   restore_command, as most have: it may wait for a file, but not when p is more
#	   than a segment ahead.  What keeps i from streaming is not known, so it is
#	   protected no more, nor is what is below it.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::Bin;

use PostgreSQL::Test::Utils;
use Test::More;

use CascadeRelay;

my $quick = "cascade_relay.stale_timeout = 1s\n";
my $p = new_primary('p', conf => $quick);
my $i = new_standby('i', $p, conf => $quick . "restore_command = 'false'\n");
my $l = new_standby('l', $i, conf => $quick);

# The node has the finding on each of these nodes; the message and the hint match.
sub is_cut
{
	my ($node, $message, $hint, @on) = @_;
	my $name = $node->name;

	for my $at (@on)
	{
		wait_for($at, "SELECT severity FROM cascade_check WHERE code = 'not_streaming' AND node_name = '$name'",
			$at->name . " says that nothing feeds $name", 'critical');
		wait_for($at, "SELECT state FROM cascade_topology WHERE node_name = '$name'", 'its state there', 'disconnected');
		wait_for($at, "SELECT 'not_streaming' = ANY (warnings) FROM cascade_topology WHERE node_name = '$name'", 'and its warning');
		# the cause is known once the upstream has looked for it
		wait_until('it names the cause',
			sub { value($at, "SELECT message FROM cascade_check WHERE code = 'not_streaming' AND node_name = '$name'") =~ $message });
		wait_until('and what to do',
			sub { value($at, "SELECT hint FROM cascade_check WHERE code = 'not_streaming' AND node_name = '$name'") =~ $hint });
	}
	return;
}

sub is_fed
{
	my ($node, @on) = @_;
	my $name = $node->name;

	wait_for($node, q{SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'}, "$name streams");
	wait_for($_, "SELECT count(*) FROM cascade_check WHERE code = 'not_streaming'", $_->name . ' does not say so any more', '0')
	  for @on;
	wait_for($_, "SELECT state FROM cascade_topology WHERE node_name = '$name'", $_->name . " shows that $name streams", 'streaming')
	  for @on;
	return;
}

# Runs the command that a node's finding has for it.
sub obey
{
	my ($node) = @_;
	my $hint = value($node, q{SELECT hint FROM cascade_check WHERE code = 'not_streaming'});

	ok($hint =~ /(SELECT \S*cascade_follow\('\w+'\);)/, "it has a command: $hint");
	like(value($node, $1), qr/^streaming from/, 'which works');
	return;
}

add_rows($p, 1);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
wait_for($l, q{SELECT replica_class FROM cascade_topology WHERE is_local}, 'l knows its class', 'read_replica');

# ---- 1. its slot is missing ----

$l->stop;
$i->safe_psql('postgres', q{SELECT pg_drop_replication_slot('l')});
$l->start;
is_cut($l, qr/^node "l" gets no WAL: its replication slot( "l")? does not exist on its upstream "i"$/,
	qr/^On node "l": SELECT \S*cascade_follow\('i'\); gives it a slot there\.$/, $p, $i, $l);
is(value($l, 'SELECT protected FROM cascade_status'), 't', 'what it needs is held: it is protected');
obey($l);
is_fed($l, $p, $i, $l);
add_rows($p, 1);
same_rows($p, $i, $l);

# ---- 2. the WAL is gone on its upstream, not on p ----

$l->stop;
set_conf($i, 'max_slot_wal_keep_size = 3MB');
add_rows($p, 10);
checkpoint_all($p, $i);
checkpoint_all($p, $i);
$l->start;
is_cut($l, qr{^node "l" gets no WAL: what it needs from [0-9A-F]+/[0-9A-F]+ on is gone on its upstream "i" \(the oldest there is [0-9A-F]+/[0-9A-F]+\)$},
	qr/^Node "p" still has it\. On node "l": SELECT \S*cascade_follow\('p'\);$/, $p, $i, $l);
obey($l);
is_fed($l, $p, $l);
same_rows($p, $i, $l);

# ---- 3. it is gone on p too ----

like(value($l, "SELECT cascade_follow('i', conninfo => 'host=" . $i->host . ' port=' . $i->port . "')"),
	qr/^streaming from/, 'l goes back to i');
is_fed($l, $p, $i, $l);
wait_protected($l);
$l->stop;
set_conf($p, 'max_slot_wal_keep_size = 3MB');
add_rows($p, 10);
checkpoint_all($p, $i);
checkpoint_all($p, $i);
$l->start;
is_cut($l, qr/is gone on its upstream "i"/, qr/rebuild node "l"\.$/, $p, $i, $l);
for my $node ($p, $i, $l)
{
	wait_for($node, q{SELECT message ~ 'is gone on its upstream "i"' FROM cascade_check WHERE code = 'unprotected' AND node_name = 'l'},
		$node->name . ' does not say that l only has to catch up');
	is(value($node, q{SELECT count(*) FROM cascade_check WHERE hint ~ 'as soon as'}), '0', 'nowhere');
}
for my $node ($p, $i)
{
	wait_for($node, q{SELECT message ~ '^what node "l"(, by way of "i",)? needs from \S+ on is gone here \(the oldest is \S+\); \d+ \S+ of later WAL are kept for it$' FROM cascade_check WHERE code = 'pinned_long'},
		$node->name . ' does not say that it keeps what is gone');
	cmp_ok(value($node, q{SELECT substring(message FROM '(\d+) \S+ of later WAL') FROM cascade_check WHERE code = 'pinned_long'}), '<', 9000,
		'nor more than there is');
}
$l->stop;
is(value($i, "SELECT cascade_forget('l', true) IS NOT NULL"), 't', 'l is given up');

# ---- 4. the login of its walreceiver fails ----

my $hba = $p->data_dir . '/pg_hba.conf';
my $allow = slurp_file($hba);

sub let_in
{
	my ($text) = @_;

	open my $fh, '>', $hba or die "$hba: $!";
	print $fh $text;
	close $fh;
	$p->reload;
	return;
}

let_in("local replication all reject\nhost replication all all reject\n$allow");
$p->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_replication});
wait_for($i, q{SELECT state FROM cascade_topology WHERE is_local}, 'i does not stream', 'archive');
stays($i, 3, q{SELECT count(*) FROM cascade_check WHERE code = 'not_streaming'}, '0',
	'it may wait for a file of the archive while p is where it is');
write_segments($p, 3);
is_cut($i, qr{^node "i" gets no WAL: nothing streams or is restored, and replay stands at [0-9A-F]+/[0-9A-F]+$},
	qr/log has what its walreceiver and its restore_command say/, $p, $i);
wait_for($i, q{SELECT protected FROM cascade_status}, 'it does not call itself protected', 'f');
let_in($allow);
is_fed($i, $p, $i);
wait_protected($i);

done_testing();
