# Messages that are almost right: thousands of mutants of real ones.
#
#	p ─┬─ i                  real: its messages and its replies are the models
#	   ├─ (f)                stands still: its hold must never move
#	   └─ (m1), (m2) …       each says hello, and then sends mutants
#
# What i says to p is taken from p's log.  Values are changed
# in it, and lengths, counts, sections and rows are dropped, doubled, swapped,
# cut and stretched.  Whatever p gets, it answers by a reply or by a protocol
# violation; it keeps no memory, no slot that is not the sender's moves, and i
# does not notice.  Then p is made to lie: it sends mutants of its replies, and
# i has to live with them.
#
# The seed is printed; MUTATE_SEED repeats a run, MUTANTS makes it longer.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{MUTATE_SEED} // int(rand(2**31));
my $mutants = $ENV{MUTANTS} // 4000;
diag "MUTATE_SEED=$seed";
srand($seed);

my %conf = (conf => "cascade_relay.max_nodes = 32\nmax_connections = 30\nmax_replication_slots = 20\nlog_statement = none");
my $p = new_primary('p', %conf, conf => "$conf{conf}\nwal_level = logical");
my $i = new_standby('i', $p, %conf);
my $l = new_standby('l', $i, %conf);
wait_connected($i, $l);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);
my $postmaster = slurp_file($p->data_dir . '/postmaster.pid');
my $system = value($p, 'SELECT system_identifier FROM pg_control_system()');

# ---- the models ----

# What i says to p, from its log.
$p->append_conf('postgresql.conf', 'log_statement = all');
$p->reload;
my $log = -s $p->logfile;
$i->restart;
wait_connected($l);
wait_for($i, 'SELECT reports_sent >= 12 FROM cascade_status', 'i has told p about itself and l');
$p->append_conf('postgresql.conf', 'log_statement = none');
$p->reload;
my @models = map { pack('H*', $_) } slurp_file($p->logfile, $log) =~ /parameters: \$1 = '\\x(43524c59[0-9a-f]+)'/gi;
my ($hello) = grep { unpack('x6 C', $_) == 1 } @models;
my ($report) = grep { unpack('x6 C', $_) == 2 && length($_) < 256 } @models;
my ($tree) = sort { length $b <=> length $a } grep { unpack('x6 C', $_) == 2 } @models;
ok($hello && $report && $tree, 'a hello and reports, with and without a tree, of a real node');

# ---- mutating ----

# Where the numbers are in a section, as offset and width.
my %numbers = (
	1 => [ [ 0, 8 ], [ 8, 8 ], [ 16, 4 ], [ 20, 4 ] ],
	2 => [ [ 0, 8 ], [ 8, 4 ], [ 12, 4 ], (map { [ 16 + $_, 1 ] } 0 .. 3), [ 20, 4 ], [ 24, 4 ], map { [ 28 + 8 * $_, 8 ] } 0 .. 4 ],
	3 => [ [ 0, 1 ], [ 1, 2 ], [ 3, 8 ], [ 11, 8 ], [ 19, 4 ], [ 23, 1 ], [ 24, 1 ], [ 25, 4 ], [ 29, 1 ], [ 30, 8 ] ]);
my @row_numbers = ([ 0, 4 ], [ 4, 4 ], (map { [ 8 + $_, 1 ] } 0 .. 5), [ 14, 4 ], [ 18, 4 ], (map { [ 22 + 8 * $_, 8 ] } 0 .. 4), [ 62, 4 ], [ 66, 4 ]);
my @known;    # incarnations of real nodes

sub pick { return $_[ int(rand(@_)) ]; }

sub number
{
	my ($width) = @_;
	my $max = $width == 8 ? ~0 : (1 << 8 * $width) - 1;
	my $value = pick(0, 1, 2, 3, 9, $max, $max - 1, $max >> 1, ($max >> 1) + 1,
		int(rand(2**31)), pick(@known, 5), 0x100000 * int(rand(64)), 0x100000 * int(rand(64)) + 40);

	return substr(pack('Q>', $value), 8 - $width);
}

sub split_sections
{
	my ($message) = @_;
	my @sections;

	for (my $at = 12; $at + 6 <= length $message;)
	{
		my ($tag, $length) = unpack('n N', substr($message, $at));
		push @sections, [ $tag, substr($message, $at + 6, $length) ];
		$at += 6 + $length;
	}
	return @sections;
}

sub join_message
{
	my ($model, @sections) = @_;
	my $body = join('', map { pack('n N/a*', @$_) } @sections);

	return substr($model, 0, 8) . pack('N', 12 + length $body) . $body;
}

sub split_items
{
	my ($payload, $counter) = @_;
	my @items;

	# an earlier change may have left half an item at the end
	for (my $at = length pack($counter, 0); $at + 2 <= length $payload;)
	{
		my $length = unpack('n', substr($payload, $at));
		push @items, substr($payload, $at + 2, $length);
		$at += 2 + $length;
	}
	return @items;
}

# One change to a payload: a number, a stretch of bytes, or its length.
sub change
{
	my ($payload, @numbers) = @_;
	my $dice = rand;

	@numbers = grep { $_->[0] + $_->[1] <= length $payload } @numbers;
	if (@numbers && $dice < 0.6)
	{
		my $field = pick(@numbers);
		substr($payload, $field->[0], $field->[1]) = number($field->[1]);
	}
	elsif ($dice < 0.8 && length $payload)
	{
		substr($payload, int(rand(length $payload)), 1) = chr(pick(0, 1, 0x20, 0x7e, 0x7f, 0xff, int(rand(256))));
	}
	elsif ($dice < 0.9)
	{
		substr($payload, int(rand(1 + length $payload)), int(rand(4))) = '';
	}
	else
	{
		substr($payload, int(rand(1 + length $payload)), 0) = pick("\0", "\xff" x 8, 'x' x 200, $payload);
	}
	return $payload;
}

# Rows or hops behind their count, which is kept right mostly.
sub change_items
{
	my ($payload, $counter, @numbers) = @_;
	my @items = split_items($payload, $counter);
	my $at = int(rand(@items || 1));
	my $dice = rand;

	if ($dice < 0.5 && @items) { $items[$at] = change($items[$at], @numbers); }
	elsif ($dice < 0.6) { splice @items, $at, 1; }
	elsif ($dice < 0.7 && @items) { push @items, ($items[$at]) x pick(1, 2, 40); }
	elsif ($dice < 0.9 && @items)
	{
		# a relative with a key of its own, below somebody
		push @items, number(4) . number(4) . (length $items[$at] > 8 ? substr($items[$at], 8) : '');
	}
	my $count = rand() < 0.9 ? scalar @items : pick(0, 1, scalar(@items) + 1, 255);
	return pack($counter, $count) . join('', map { pack('n/a*', $_) } @items);
}

sub mutate
{
	my ($message) = @_;
	my @sections = split_sections($message);

	for (1 .. pick(1, 1, 2, 3))
	{
		my $at = int(rand(@sections || 1));
		my $dice = rand;

		last if !@sections;
		if ($dice < 0.75)
		{
			my ($tag, $payload) = @{ $sections[$at] };

			$payload =
				$tag == 0x7000 ? change_items($payload, 'N', @row_numbers)
			  : $tag == 5 ? change_items($payload, 'C', [ 0, 4 ], [ 4, 8 ])
			  : change($payload, @{ $numbers{$tag} // [] });
			$sections[$at] = [ $tag, $payload ];
		}
		elsif ($dice < 0.8) { splice @sections, $at, 1; }
		elsif ($dice < 0.84) { splice @sections, $at, 0, $sections[$at]; }
		elsif ($dice < 0.88) { @sections[ 0, $at ] = @sections[ $at, 0 ]; }
		elsif ($dice < 0.94) { splice @sections, $at, 0, [ pick(0, 8, 100, 0x6fff, 0x7fff, 0xffff), 'y' x pick(0, 1, 300) ]; }
		else { $sections[$at] = [ pick(0 .. 9, 0x7000), $sections[$at][1] ]; }
	}
	$message = join_message($message, @sections);
	if (rand() < 0.05)
	{
		substr($message, int(rand(12)), 1) = chr(int(rand(256)));
	}
	elsif (rand() < 0.03)
	{
		$message = substr($message, 0, int(rand(length $message)));
	}
	return $message;
}

# Numbers only, so that most of it can be read.
sub mutate_gently
{
	my ($message) = @_;
	my @sections = split_sections($message);

	for (1 .. pick(1, 2, 3))
	{
		my $section = pick(@sections);
		my ($counter, @numbers) = $section->[0] == 3 ? (undef, @{ $numbers{3} }) : $section->[0] == 5 ? ('C', [ 0, 4 ], [ 4, 8 ]) : $section->[0] == 0x7000 ? ('N', @row_numbers) : next;
		my $field = pick(grep { $_->[1] > 1 } @numbers);

		if ($counter)
		{
			my @items = split_items($section->[1], $counter);

			next if !@items;
			substr($items[ int(rand(@items)) ], $field->[0], $field->[1]) = number($field->[1]);
			$section->[1] = pack($counter, scalar @items) . join('', map { pack('n/a*', $_) } @items);
		}
		else
		{
			substr($section->[1], $field->[0], $field->[1]) = number($field->[1]);
		}
	}
	return join_message($message, @sections);
}

@known = map { hex incarnation($_) } ($p, $i, $l);

# ---- to p ----

$p->safe_psql('postgres', q{
	CREATE ROLE mallory REPLICATION LOGIN;
	CREATE TABLE mutants (n int, message bytea);
	GRANT SELECT ON mutants TO mallory;
	CREATE FUNCTION try(message bytea) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		RETURN cascade_report(message);
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLSTATE || ' ' || SQLERRM;
	END $$});

sub hello_of
{
	my ($k) = @_;

	return encode_hello(system_identifier => $system, node_name => "m$k", incarnation => 0x100 + $k, start_id => 0x100 + $k,
		report_interval_ms => 60000);
}

# f stands still, with its session open.
my $f = $p->background_psql('postgres', extra_params => [ '-U', 'mallory' ]);
my $lsn = value($p, 'SELECT pg_current_wal_flush_lsn()');
$f->query_safe('SELECT ' . report_sql(encode_hello(system_identifier => $system, node_name => 'f', incarnation => 0xf, start_id => 1, report_interval_ms => 3600000)));
$f->query_safe('SELECT ' . report_sql(encode_report(map { $_ => $lsn } qw(flush_lsn replay_lsn frontier_lsn hold_target_lsn))));
push @known, 0xf;
$p->safe_psql('postgres', q{
	SELECT pg_create_physical_replication_slot('plain', true);
	SELECT pg_create_logical_replication_slot('logical', 'pgoutput')});

# What no mutant may move.
my $others = q{SELECT string_agg(s::text, ' ' ORDER BY slot_name) FROM (SELECT slot_name, slot_type, restart_lsn, xmin FROM pg_replication_slots WHERE slot_name IN ('plain', 'logical', 'cascade_relay_f_0000000f')) s};
my $before = value($p, $others);
my $worker = value($p, 'SELECT worker_pid FROM cascade_status');

# Memory that is a process's own, in kB; undef where nobody can tell.
sub own_memory
{
	my ($pid) = @_;

	return undef if !-r "/proc/$pid/status";
	return slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m ? $1 : undef;
}

my %outcomes;
my @wrong;

sub judge
{
	my ($message, $answer) = @_;

	if ($answer =~ /^\\x43524c59/)
	{
		my $reply = eval { decode_reply($answer) };
		$outcomes{ $reply ? "$reply->{answer}, " . ($reply->{refusal} // 'unknown') : 'unreadable' }++;
		push @wrong, [ $message, $answer ] if !$reply || !defined $reply->{answer};
	}
	elsif ($answer =~ /^08P01 (.*)/)
	{
		$outcomes{'protocol violation'}++;
	}
	else
	{
		$outcomes{$answer}++;
		push @wrong, [ $message, $answer ];
	}
	return;
}

sub load
{
	my (@messages) = @_;
	my $n = 0;

	$p->safe_psql('postgres', 'TRUNCATE mutants; INSERT INTO mutants VALUES '
		  . join(',', map { sprintf(q{(%d, '\x%s')}, $n++, unpack('H*', $_)) } @messages));
	return;
}

# Hellos, each in a session of its own, because a session has one node.
my @hellos = map { mutate(rand() < 0.5 ? $hello : hello_of(int(rand(5)))) } 1 .. $mutants / 20;
my @answers = split /\n/, $p->safe_psql('postgres',
	join("\n\\c\n", map { "SELECT try('\\x" . unpack('H*', $_) . "')" . ';' } @hellos), extra_params => [ '-U', 'mallory' ]);
is(scalar(@answers), scalar(@hellos), scalar(@hellos) . ' hellos are answered');
judge($hellos[$_], $answers[$_]) for 0 .. $#answers;

# Reports, by some nodes that have said hello.
my @rounds = (1 .. 8);
my $grown = 0;
my $worker_before;
for my $k (@rounds)
{
	# what i says of itself is said of the fake here, for the most part
	my ($own, $its) = (pack('N', 0x100 + $k), pack('N', $known[1]));
	my @messages = map { mutate(rand() < 0.9 ? s/\Q$its\E/$own/gr : $_) } map { rand() < 0.3 ? $report : $tree } 1 .. $mutants / @rounds;

	load(@messages);
	my @lines = split /\n/, $p->safe_psql('postgres',
		'SELECT ' . report_sql(hello_of($k)) . ' IS NOT NULL;'
		  . 'SELECT count(try(message)) FROM mutants WHERE n < 20;'
		  . 'CREATE TEMP TABLE kept AS SELECT sum(total_bytes) FROM pg_backend_memory_contexts;'
		  . 'SELECT try(message) FROM mutants ORDER BY n;'
		  . 'SELECT sum(total_bytes) - (SELECT * FROM kept) FROM pg_backend_memory_contexts',
		extra_params => [ '-U', 'postgres' ]);
	my $kept = pop @lines;
	$grown = $kept if $kept > $grown;
	splice @lines, 0, 2;
	is(scalar(@lines), scalar(@messages), scalar(@messages) . " reports of m$k are answered");
	judge($messages[$_], $lines[$_]) for 0 .. $#lines;
	is(value($p, $others), $before, 'what is held for others stays where it is');
	$worker_before //= own_memory($worker);

	# what the others need is not known to be less because of any of them
	$p->safe_psql('postgres', q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name ~ '^cascade_relay_' AND slot_name !~ '^cascade_relay_[fi]_'})
	  if $k % 4 == 0;
}
my $worker_after = own_memory($worker);

is(scalar(@wrong), 0, 'each answer is a reply, or a protocol violation')
  or diag join("\n", "MUTATE_SEED=$seed", map { unpack('H*', $_->[0]) . " => $_->[1]" } @wrong[ 0 .. ($#wrong < 4 ? $#wrong : 4) ]);
note join(', ', map { "$_: $outcomes{$_}" } sort keys %outcomes);
my $taken = 0;
$taken += $outcomes{$_} for grep { /^ok/ } keys %outcomes;
cmp_ok($taken, '>', $mutants / 10, 'many a mutant was taken for good');
cmp_ok($outcomes{'protocol violation'} // 0, '>', $mutants / 10, 'and many were not');
cmp_ok($grown, '<', 1024 * 1024, 'no session has kept memory');
cmp_ok($worker_after - $worker_before, '<', 4096, 'nor has the worker')
  if defined $worker_before && defined $worker_after;
is(value($p, 'SELECT worker_pid FROM cascade_status'), $worker, 'which is the same as before');
for my $view (qw(cascade_topology cascade_check cascade_downstreams cascade_tree() cascade_upstream_candidates() cascade_policy()))
{
	cmp_ok(value($p, "SELECT count(*) FROM $view"), '>', 0, "$view copes with what was said");
}
is(value($p, q{SELECT current_setting('max_replication_slots')::int > count(*) FROM pg_replication_slots}), 't', 'a slot is free');
for my $node ($i, $l)
{
	wait_for($node, "SELECT upstream_state = 'connected' AND protected FROM cascade_status", $node->name . ' has not noticed');
}
is(slurp_file($p->data_dir . '/postmaster.pid'), $postmaster, 'p runs as it did');
$f->quit;

# ---- from p ----

# The function that i calls lies four times out of five.
$p->safe_psql('postgres', q{
	CREATE TABLE lies (n int, reply bytea);
	CREATE SEQUENCE told;
	CREATE FUNCTION real_report(bytea) RETURNS bytea AS '$libdir/cascade_relay', 'cascade_report' LANGUAGE C STRICT;
	CREATE TABLE replies (n serial, reply bytea);
	CREATE OR REPLACE FUNCTION cascade_report(message bytea) RETURNS bytea LANGUAGE plpgsql AS $$
	DECLARE reply bytea := public.real_report($1);
	BEGIN
		IF NOT pg_is_in_recovery() THEN
			INSERT INTO public.replies (reply) VALUES (reply);
		END IF;
		RETURN reply;
	END $$});
wait_for($p, 'SELECT count(*) > 8 AND max(length(reply)) > 300 FROM replies', 'the replies to i are kept');
wait_connected($i);
my @replies = map { pack('H*', $_) } split /\n/, value($p, q{SELECT encode(reply, 'hex') FROM replies ORDER BY length(reply) DESC LIMIT 8});

# Most lies can be read: after one that cannot, i waits for longer and longer.
my @lies = map { rand() < 0.95 ? mutate_gently(pick(@replies)) : mutate(pick(@replies)) } 1 .. 2000;
my $n = 0;
$p->safe_psql('postgres', 'INSERT INTO lies VALUES ' . join(',', map { sprintf(q{(%d, '\x%s')}, $n++, unpack('H*', $_)) } @lies));
my $i_worker = value($i, 'SELECT worker_pid FROM cascade_status');
my $i_postmaster = slurp_file($i->data_dir . '/postmaster.pid');
my $i_log = -s $i->logfile;
$i->append_conf('postgresql.conf', 'cascade_relay.report_interval = 10ms');
$i->reload;
$p->safe_psql('postgres', q{
	CREATE OR REPLACE FUNCTION cascade_report(message bytea) RETURNS bytea LANGUAGE plpgsql AS $$
	DECLARE
		reply bytea := public.real_report($1);
		lie int;
	BEGIN
		IF random() < 0.8 AND NOT pg_is_in_recovery() THEN
			lie := nextval('public.told') % 2000;
			SELECT l.reply INTO STRICT reply FROM public.lies l WHERE l.n = lie;
		END IF;
		RETURN reply;
	END $$});

# A changed target is tried at once, however long i was going to wait.
for (my $round = 0; $round < 100 && value($p, 'SELECT last_value FROM told') < 150; $round++)
{
	$i->append_conf('postgresql.conf', 'cascade_relay.upstream_conninfo = \'connect_timeout=' . (10 + $round % 2) . "'");
	$i->reload;
	$i->poll_query_until('postgres', "SELECT upstream_state <> 'connecting' FROM cascade_status");
	for my $view (qw(cascade_topology cascade_status cascade_check cascade_downstreams cascade_tree() cascade_upstream_candidates()))
	{
		$i->safe_psql('postgres', "SELECT * FROM $view");
	}
	$p->safe_psql('postgres', 'SELECT pg_sleep(0.2)');
}
note value($p, 'SELECT last_value FROM told') . ' lies were told';
cmp_ok(value($p, 'SELECT last_value FROM told'), '>', 100, 'many lies were told');
is(value($i, 'SELECT worker_pid FROM cascade_status'), $i_worker, 'the worker of i lives with them');
is(slurp_file($i->data_dir . '/postmaster.pid'), $i_postmaster, 'and so does i');
ok(slurp_file($i->logfile, $i_log) !~ /\] cascade_relay (ERROR|FATAL|PANIC)/, 'without an error of its own');
$p->safe_psql('postgres', q{
	DROP FUNCTION real_report(bytea);
	CREATE OR REPLACE FUNCTION cascade_report(message bytea) RETURNS bytea AS '$libdir/cascade_relay', 'cascade_report' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE});
$i->append_conf('postgresql.conf', "cascade_relay.report_interval = 200ms\ncascade_relay.upstream_conninfo = ''");
$i->reload;
for my $node ($i, $l)
{
	wait_for($node, "SELECT upstream_state = 'connected' AND protected FROM cascade_status", $node->name . ' is well again when p tells the truth');
}
wait_for($_, q{SELECT string_agg(path::text, ' ' ORDER BY path) FROM cascade_topology WHERE node_name IN ('p', 'i', 'l') AND state IN ('running', 'streaming')}, $_->name . ' shows the tree as it is', '{p} {p,i} {p,i,l}')
  for ($p, $i, $l);
for my $node ($p, $i, $l)
{
	ok(slurp_file($node->logfile) !~ /PANIC|TRAP:|terminated by signal/, $node->name . ' has lived through all this')
	  or diag "MUTATE_SEED=$seed";
}
add_rows($p, 3);
same_rows($p, $i, $l);

done_testing();
