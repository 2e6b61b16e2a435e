# The primary is set back to a snapshot: its standbys have WAL that it will
# never have, on one timeline.
#
#	p (primary) -- i -- l
#	            \- k
#
# p is copied while it is stopped, as a volume is.  It goes on, and i and l with
# it.  Then p fails, and the copy is put back: p writes other WAL on the same
# timeline, and i is ahead of it.  Nothing that p holds can help i or l, however
# level the positions look: i and k have diverged, on every node; none is protected;
# no lag is known of them; p is no candidate for l; the hold of i stays where it is.
#
# Then p gets back the WAL that it has lost, as when the wrong volume was restored:
# all go on, and are protected again.
#
# The second time p passes i, with other WAL, and it must stay so.  k is down
# meanwhile.  When it comes back no position tells anything; but it cannot be fed,
# and that says enough.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::Bin;

use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;

use CascadeRelay;

my $quick = "cascade_relay.stale_timeout = 1s\n";
my $p = new_primary('p', conf => $quick);
my $i = new_standby('i', $p, conf => $quick);
my $l = new_standby('l', $i, conf => $quick);
my $k = new_standby('k', $p, conf => $quick);

# A copy of p's volume, taken while p is stopped.
sub take_snapshot
{
	my ($name) = @_;
	my $copy = $p->data_dir . ".$name";

	$p->stop;
	PostgreSQL::Test::RecursiveCopy::copypath($p->data_dir, $copy);
	chmod 0700, $copy or die "$copy: $!";
	$p->start;
	wait_connected($i, $l, $k);
	return;
}

# p fails.  Its volume goes to $to, and that of $from becomes p's.
sub swap_volume
{
	my ($to, $from) = @_;
	my $dir = $p->data_dir;

	$p->stop('immediate');
	rename $dir, "$dir.$to" or die "$dir.$to: $!";
	rename "$dir.$from", $dir or die "$dir.$from: $!";
	$p->start;
	return;
}

# What p loses: WAL that ends somewhere in a segment.
sub write_what_is_lost
{
	add_rows($p, 4);
	$p->safe_psql('postgres', 'DROP TABLE IF EXISTS lost; CREATE TABLE lost AS SELECT generate_series(1, 100)');
	wait_caught_up($p, $i, $l, $k);
	return value($i, 'SELECT pg_last_wal_replay_lsn()');
}

sub are_unprotected
{
	my ($when) = @_;

	wait_for($_, q{SELECT bool_and(protected IS FALSE) FROM cascade_topology WHERE node_name IN ('i', 'l')},
		$_->name . " calls neither protected $when")
	  for $p, $i, $l;
	return;
}

sub has_diverged
{
	my ($when) = @_;

	are_unprotected($when);
	for my $node ($p, $i, $l)
	{
		my $name = $node->name;

		wait_for($node, q{SELECT state FROM cascade_topology WHERE node_name = 'i'},
			"$name shows that i has diverged $when", 'diverged');
		wait_for($node, q{SELECT severity || ' ' || node_name FROM cascade_check WHERE code = 'diverged' AND node_name = 'i'},
			"and says so", 'critical i');
		is(value($node, q{SELECT count(replay_lag_bytes) FROM cascade_topology WHERE node_name IN ('i', 'l')}), '0',
			"$name knows no lag of either");
		is(value($node, q{SELECT verdict FROM cascade_upstream_candidates('l') WHERE upstream_name = 'p'}),
			'refused', "$name does not send l to p");
	}
	return;
}

add_rows($p, 1);
checkpoint_all($p, $i, $l, $k);
wait_protected($i, $l, $k);

# ---- p is set back ----

take_snapshot('old');
my $had = write_what_is_lost();
swap_volume('lost', 'old');
my $hold;

has_diverged('while i is ahead');
like(value($p, q{SELECT message FROM cascade_check WHERE code = 'diverged' AND node_name = 'i'}),
	qr/^node "i" has WAL, up to [0-9A-F\/]+, that its upstream "p" does not have and will never have: both are on timeline 1$/,
	'the finding says what is the matter');

# ---- p gets its WAL back ----

swap_volume('short', 'lost');
add_rows($p, 1);
same_rows($p, $i, $l, $k);
wait_protected($i, $l, $k);
wait_for($_, q{SELECT string_agg(node_name || ' ' || state, ', ') FROM cascade_topology WHERE node_name <> 'p'},
	$_->name . ' shows that all stream', 'i streaming, l streaming, k streaming')
  for $p, $i, $l;
wait_for($_, q{SELECT count(*) FROM cascade_check WHERE code IN ('diverged', 'not_streaming', 'unprotected')},
	$_->name . ' has nothing to say of it any more', '0')
  for $p, $i, $l;

# ---- p is set back again, and passes them with other WAL ----

take_snapshot('older');
$had = write_what_is_lost();
$k->stop;
swap_volume('newer', 'older');
has_diverged('while i is ahead again');
$hold = hold_lsn($p, 'i');
$p->safe_psql('postgres',
	q{SELECT pg_logical_emit_message(false, 'other', repeat('x', 900000)) FROM generate_series(1, 8); CHECKPOINT});
is(value($p, "SELECT pg_current_wal_lsn() > '$had'"), 't', 'p has passed i');
look_around($_) for $p, $i, $l;
has_diverged('when p has passed it');
is(hold_lsn($p, 'i'), $hold, 'the hold of i has stayed where it was');

# ---- k comes back, of which p has not seen that it was ahead ----

$k->start;
wait_for($_, q{SELECT count(*) FROM cascade_check WHERE severity = 'critical' AND node_name = 'k' AND code IN ('diverged', 'not_streaming')},
	$_->name . ' says that k cannot be fed', '1')
  for $p, $k, $l;
wait_for($_, q{SELECT protected FROM cascade_topology WHERE node_name = 'k'},
	$_->name . ' does not call it protected', 'f')
  for $p, $k, $l;

done_testing();
