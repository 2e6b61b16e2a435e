# "protected" is right, whatever happens.
#
#	p ─┬─ a ─┬─ b
#	   │     ├─ c
#	   │     └─ d      a fresh clone of a, joins on the way
#	   └─ e            a fresh clone of p, joins on the way
#
# A deck of events is shuffled and dealt: segments are written, checkpoints and
# restartpoints remove WAL, nodes stop (in order or not), start, stop replaying,
# catch up, two clones join, the root crashes.  After each event the tree is
# watched until it is quiet: who can be connected is, who can catch up has and
# says t, and two reports of everybody have changed nothing.  At every look on
# the way a node that says t must be right: the root has every segment from its
# replay_lsn on, and a slot that keeps them.  The same holds for nodes that have
# gone since, for what they needed when they last said t.
#
# At the end the holds are the only slots left on p, it writes and removes WAL,
# a is dead, and every node re-attaches to p from the hold, with every row.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use List::Util qw(max shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $seed = $ENV{CRELAY_SEED} // 20261120;
my $segment_size = 1024 * 1024;

note("seed $seed");
srand($seed);

my $p = new_primary('p');
add_rows($p, 2);
my %nodes = (a => new_standby('a', $p));
$nodes{$_} = new_standby($_, $nodes{a}) for qw(b c);
my %upstream = (a => 'p', b => 'a', c => 'a', d => 'a', e => 'p');
my %live = map { $_ => 1 } keys %nodes;
my %paused;
my %promised;    # where a node was when it last said t
my @story;
my %verdicts = (t => 0, f => 0, '' => 0);
my ($looks, $lagging, $wrong) = (0, 0, 0);

sub number
{
	my ($lsn) = @_;
	my ($high, $low) = map { hex } split m{/}, $lsn;

	return $high << 32 | $low;
}

sub is_reached
{
	my ($name) = @_;

	return $name eq 'p' || $live{$name} && is_reached($upstream{$name});
}

# WAL comes to this node, and is replayed.  A node that does not replay may pass
# on what it receives, but does not ask for more once its upstream has failed.
sub is_fed
{
	my ($name) = @_;

	return $name eq 'p' || $live{$name} && !$paused{$name} && is_fed($upstream{$name});
}

# What each live node says.  state is what must not change any more.
sub look_at_nodes
{
	my %seen;

	for my $name (grep { $live{$_} } sort keys %nodes)
	{
		my ($protected, $replay, $upstream, $reports, $state) = split /\|/, value($nodes{$name}, q{
			SELECT protected, pg_last_wal_replay_lsn(), upstream_state, reports_sent - reports_failed,
				concat_ws(' ', protected, pg_last_wal_replay_lsn(), frontier_lsn, hold_target_lsn, upstream_held_lsn,
					(SELECT string_agg(slot_name || ' ' || restart_lsn, ' ' ORDER BY slot_name)
					 FROM pg_replication_slots WHERE slot_name LIKE 'cascade_relay_%'))
			FROM cascade_status}), -1;

		$seen{$name} = {
			protected => $protected, need => number($replay), upstream => $upstream,
			reports => $reports, state => $state };
		$verdicts{$protected}++;
	}
	return \%seen;
}

# What the root has: the files, and from where on they are kept.
sub look_at_root
{
	my ($end, $kept, $state) = split /\|/, value($p, q{
		SELECT pg_current_wal_flush_lsn(), min(restart_lsn),
			string_agg(slot_name || ' ' || restart_lsn, ' ' ORDER BY slot_name)
		FROM pg_replication_slots WHERE restart_lsn IS NOT NULL AND wal_status <> 'lost'}), -1;

	return {
		end => number($end), kept => number($kept || 'FFFFFFFF/0'), state => $state,
		files => { map { $_ => 1 } wal_files($p) } };
}

sub check_need
{
	my ($root, $name, $need) = @_;
	my $first = int($need / $segment_size);

	for my $segment ($first .. int(($root->{end} - 1) / $segment_size))
	{
		my $file = segment_of(print_lsn($segment * $segment_size));
		next if $root->{files}{$file};
		diag("$name needs $file, which p does not have");
		$wrong++;
	}
	if (int($root->{kept} / $segment_size) > $first)
	{
		diag(sprintf('%s needs WAL from %X on, and no slot of p is before %X', $name, $need, $root->{kept}));
		$wrong++;
	}
	return;
}

# The root was looked at between two looks at the nodes.  Whoever said t before
# and after was protected at that moment too, and needed nothing that is older
# than what it needed before, and nothing newer than what it needs now.
sub check_verdicts
{
	my ($before, $root, $after) = @_;

	$looks++;
	for my $name (sort keys %nodes)
	{
		my ($was, $is) = ($before->{$name}, $after->{$name});

		if ($is && $was->{protected} eq 't' && $is->{protected} eq 't')
		{
			check_need($root, $name, $is->{need});
			$promised{$name} = $is->{need};
			$lagging++ if $root->{end} - $is->{need} > $segment_size;
		}
		elsif (defined $promised{$name})
		{
			check_need($root, "$name (down or in doubt)", max($promised{$name}, $is ? $is->{need} : 0));
		}
	}
	return;
}

# What is not as it must become, in words; nothing if all is well.
sub unsettled
{
	my ($seen, $root) = @_;

	for my $name (grep { is_reached($_) } sort keys %$seen)
	{
		return "$name is $seen->{$name}{upstream}" if $seen->{$name}{upstream} ne 'connected';
		next unless is_fed($name);
		return "$name is behind" if $seen->{$name}{need} < $root->{end};
		return "$name says that it is not protected" if $seen->{$name}{protected} ne 't';
	}
	return;
}

sub wait_until_quiet
{
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $before = look_at_nodes();
	my ($why, $state, %reports);

	while (time < $deadline)
	{
		my $root = look_at_root();
		my $seen = look_at_nodes();
		my $now = join "\n", $root->{state}, map { $seen->{$_}{state} } sort keys %$seen;

		check_verdicts($before, $root, $seen);
		$before = $seen;
		$why = unsettled($seen, $root);
		if (!$why && (!defined $state || $now ne $state))
		{
			$state = $now;
			%reports = map { $_ => $seen->{$_}{reports} } keys %$seen;
			$why = 'something still moves';
		}
		next if $why;
		return if !grep { is_reached($_) && $seen->{$_}{reports} < $reports{$_} + 2 } keys %$seen;
		$why = 'too few reports';
	}
	continue
	{
		usleep(20_000);
	}
	return $why;
}

# ---- the events ----

sub pick { my @from = @_; return $from[ int rand @from ]; }

sub start_node
{
	my ($name) = @_;

	$nodes{$name}->start;
	$live{$name} = 1;
	return "start $name";
}

sub resume_node
{
	my ($name) = @_;

	value($nodes{$name}, 'SELECT pg_wal_replay_resume()');
	delete $paused{$name};
	return "resume $name";
}

sub stop_or_start
{
	my ($name) = @_;
	my $how = pick(qw(fast immediate));

	return start_node($name) unless $live{$name};
	resume_node($name) if $paused{$name} && $how eq 'fast';
	$nodes{$name}->stop($how);
	delete $live{$name};
	delete $paused{$name};
	return "stop $name ($how)";
}

sub pause_or_resume
{
	my $name = pick(grep { $live{$_} } sort keys %nodes) // return 'nobody to pause';

	return resume_node($name) if $paused{$name};
	value($nodes{$name}, 'SELECT pg_wal_replay_pause()');
	$nodes{$name}->poll_query_until('postgres', 'SELECT pg_get_wal_replay_pause_state()', 'paused')
	  or die "$name does not pause";
	$paused{$name} = 1;
	return "pause $name";
}

sub catch_up
{
	my @done = map { resume_node($_) } sort keys %paused;

	# from the top down
	push @done, map { start_node($_) } grep { !$live{$_} } sort keys %nodes;
	return join(', ', @done) || 'everybody is there';
}

sub checkpoint
{
	my @who = grep { $live{$_} && rand() < 0.7 } sort keys %nodes;

	value($_, 'CHECKPOINT') for $p, map { $nodes{$_} } @who;
	return "checkpoint p @who";
}

sub join_clone
{
	my ($name) = @_;
	my $from = $upstream{$name};
	my $done = '';

	$done = start_node($from) . ', ' if $from ne 'p' && !$live{$from};
	$done .= resume_node($from) . ', ' if $paused{$from};
	$nodes{$name} = clone_standby($name, $from eq 'p' ? $p : $nodes{$from});
	$live{$name} = 1;
	return "${done}join $name";
}

my %events = (
	write => sub { my $n = 1 + int rand 4; add_rows($p, $n); return "write $n"; },
	checkpoint => \&checkpoint,
	leaf => sub { return stop_or_start(pick(grep { $_ ne 'a' } sort keys %nodes)); },
	a => sub { return stop_or_start('a'); },
	pause => \&pause_or_resume,
	catch_up => \&catch_up,
	d => sub { return join_clone('d'); },
	e => sub { return join_clone('e'); },
	crash => sub { $p->stop('immediate'); $p->start; return 'crash p'; });

is(wait_until_quiet(), undef, 'at first everybody is protected');
for my $card (shuffle((map { ($_) x 4 } qw(leaf pause)), (map { ($_) x 6 } qw(write checkpoint)),
		qw(a a a catch_up d e crash)))
{
	push @story, $events{$card}->();
	note("$#story: $story[-1]");
	my $why = wait_until_quiet();
	is($why, undef, "$story[-1]: everybody is where they can be") or last;
	is($wrong, 0, 'and every verdict was right') or last;
}
# Whatever the seed, and however slow the machine: one that lags for sure.
push @story, catch_up();
is(wait_until_quiet(), undef, 'everybody is protected again');
push @story, pause_or_resume();
$events{write}->() for 1 .. 3;
is(wait_until_quiet(), undef, 'one of them stands still');
is($wrong, 0, 'and every verdict was right');
diag("seed $seed: " . join('; ', @story)) unless Test::More->builder->is_passing;
note("$looks looks; of the verdicts $verdicts{t} t, $verdicts{f} f, $verdicts{''} unknown; $lagging times t with more than a segment to go");
cmp_ok($lagging, '>', 0, 'there was something to protect');

# Who was never protected was promised nothing; so it has to catch up first.
for my $name (grep { !defined $promised{$_} } sort keys %nodes)
{
	start_node($name) if !$live{$name};
	resume_node($name) if $paused{$name};
}
is(wait_until_quiet(), undef, 'everybody is or was protected');
is_deeply([ grep { !defined $promised{$_} } sort keys %nodes ], [], 'without exception');
is($wrong, 0, 'and every verdict was right');

# ---- the proof ----

for my $name (grep { $live{$_} } reverse sort keys %nodes)
{
	$nodes{$name}->stop($name eq 'a' ? 'immediate' : 'fast');
}
value($p, q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
			WHERE slot_name NOT LIKE 'cascade_relay_%' AND NOT active})
  if $p->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_replication');
is(value($p, q{SELECT count(*) FROM pg_replication_slots WHERE slot_name !~ '^cascade_relay_[ae]_'}), '0',
	'nothing but the holds is left on p');
add_rows($p, 5);
remove_wal(3, $p);

my $root = look_at_root();
is(segment_of(print_lsn($root->{kept})), oldest_wal($p),
	'p has removed what it may');
for my $name (sort keys %nodes)
{
	slot_from_hold($p, $upstream{$name} eq 'p' ? $name : $upstream{$name}, $name);
	point_at($nodes{$name}, $p);
	$nodes{$name}->start;
}
same_rows($p, map { $nodes{$_} } sort keys %nodes);
ok(!$nodes{$_}->log_contains(qr/has already been removed/), "$_ has missed nothing") for sort keys %nodes;

$nodes{$_}->stop for sort keys %nodes;
$p->stop;
done_testing();
