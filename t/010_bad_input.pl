# Bad input: what a node is told may be wrong, hostile or too much.
#
#	p ─┬─ i ─── (huge)      i is real, and reports all the time; its slot, its
#	   ├─ (f)               hold and its protection are what must not suffer
#	   └─ (g), (n), (e1) …  these exist only as messages that this test sends
#
# First f is an orderly child, said in SQL: it gets a hold and a place in the
# tree.  Then its session sends everything that cannot be read: one error each,
# nothing changes, no memory is kept.  Nodes with impossible names are refused,
# and i too, while it calls itself p.  Who speaks for f is fought over by
# several sessions.  Somebody claims to be at the end of all LSNs, to p and to
# i.  The slots run out, then the room in the registry, then strangers get hold
# of a hold.  Each time i, and whoever held something before, is as well off
# afterwards as before.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $huge = 'ffffffff/ffffffff';

my $p = new_primary('p', conf => "wal_level = logical\nmax_connections = 40\ncascade_relay.max_nodes = 8");
my $i = new_standby('i', $p, conf => "cascade_relay.max_nodes = 8");
wait_connected($i);
checkpoint_all($p, $i);
wait_protected($i);

my $system = value($p, 'SELECT system_identifier FROM pg_control_system()');
my $i_incarnation = incarnation($i);
my $i_hold = "cascade_relay_i_$i_incarnation";

# What cannot be read, as one line: SQLSTATE, message and detail.
$p->safe_psql('postgres', q{
	CREATE FUNCTION try(message bytea) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		message_text text;
		detail text;
	BEGIN
		PERFORM cascade_report(message);
		RETURN 'taken';
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS message_text = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
		RETURN concat_ws('|', SQLSTATE, message_text, detail);
	END $$});

sub session
{
	my ($node) = @_;
	return $node->background_psql('postgres', on_error_stop => 0);
}

sub bytea { my ($message) = @_; return q{'\x} . unpack('H*', $message) . q{'::bytea}; }

# Sends a message that can be read, and reads the reply.
sub ask
{
	my ($session, $message) = @_;
	my ($reply, $failed) = $session->query('SELECT ' . report_sql($message));

	die $session->{stderr} if $failed;
	return decode_reply($reply);
}

# A fake node: its hello and its reports.
sub fake
{
	my ($name, $incarnation) = @_;
	return { name => $name, incarnation => $incarnation, start_id => 1000 + $incarnation };
}

sub hello
{
	my ($fake, %m) = @_;
	return encode_hello(
		system_identifier => $system,
		node_name => $fake->{name},
		incarnation => $fake->{incarnation},
		start_id => $fake->{start_id},
		report_interval_ms => 200,
		%m);
}

sub report
{
	my ($fake, $lsn, %m) = @_;
	return encode_report(
		sequence => ++$fake->{sequence},
		report_interval_ms => 200,
		pinned_by => $fake->{name},
		(map { ($_ => $lsn) } qw(flush_lsn replay_lsn frontier_lsn hold_target_lsn)),
		%m);
}

sub hold_of
{
	my ($fake) = @_;
	return sprintf('cascade_relay_%s_%08x', $fake->{name}, $fake->{incarnation});
}

sub current_lsn
{
	my ($node) = @_;
	return value($node, 'SELECT pg_current_wal_flush_lsn()');
}

sub slot
{
	my ($node, $name, $columns) = @_;
	return value($node, "SELECT $columns FROM pg_replication_slots WHERE slot_name = '$name'");
}

# All that p remembers of its downstreams, but for i, which goes on reporting.
sub remembered
{
	return value($p, q{
		SELECT coalesce(string_agg(d::text, E'\n' ORDER BY d::text), 'nothing')
		FROM (SELECT name, kind, slot_name, active, restart_lsn, counted, reason, last_report_time
			  FROM cascade_downstreams WHERE name <> 'i') d})
	  . value($p, 'SELECT array_agg(node_name) FROM cascade_topology');
}

# i must never notice.
sub i_is_well
{
	my ($what) = @_;
	wait_for($i, "SELECT upstream_state = 'connected' AND protected AND last_report_time > now() - interval '2s' FROM cascade_status",
		"$what: i reports and is protected");
	is(slot($p, $i_hold, 'active, xmin IS NULL, catalog_xmin IS NULL'), 'f|t|t', "$what: i has its hold");
}

i_is_well('at first');

# ---- an orderly child, said in SQL ----

my $f = fake('f', 0xf);
my $f_session = session($p);
my $start = current_lsn($p);
my $reply = ask($f_session, hello($f));
is("$reply->{answer}, $reply->{refusal}, $reply->{sequence}", 'ok, none, 0', 'a hello is accepted');
is("$reply->{node_name}, " . sprintf('%08x', $reply->{incarnation}), 'p, ' . incarnation($p), 'and p introduces itself');
is_deeply([ map { $_->[0] } @{ $reply->{path} } ], ['p'], 'as the root of the path');
is(slot($p, hold_of($f), 'slot_name'), '', 'a hello holds nothing');

$reply = ask(
	$f_session,
	report($f, $start,
		tree => [
			encode_row(name => 'below', incarnation => 0xb, upstream_name => 'f',
				upstream_incarnation => 0xf, managed => 1, replay_lsn => $start),
			encode_row(name => 'walreceiver', upstream_name => 'below', upstream_incarnation => 0xb)
		],
		application_name => 'f',
		location => 'here'));
is("$reply->{answer}, $reply->{sequence}", 'ok, 1', 'a report is accepted');
is(slot($p, hold_of($f), 'restart_lsn'), $reply->{held_lsn}, 'the reply says where its hold stands');
is(slot($p, hold_of($f), 'slot_type, temporary, active, xmin IS NULL'), 'physical|f|f|t', 'a hold like any other');
is($reply->{rows}, 2, 'the reply has the rows that f does not know: p and i');
is(value($p, q{SELECT string_agg(path::text, ' ') FROM cascade_topology}),
	'{p} {p,f} {p,f,below} {p,f,below,walreceiver} {p,i}', 'f and what it reports are in the tree');
is(value($p, q{SELECT state, managed, location FROM cascade_topology WHERE node_name = 'f'}),
	'streaming|t|here', 'with what it says of itself');

# Forward it moves.  Back it does not, at least not to where no other slot
# stands that would keep the WAL meanwhile.
my $old = value($p, "SELECT min(restart_lsn) - 1048576 FROM pg_replication_slots");
write_segments($p, 2);
my $later = current_lsn($p);
$reply = ask($f_session, report($f, $later));
is("$reply->{refusal}, $reply->{held_lsn}", "none, $later", 'the hold follows a report forward');
$reply = ask($f_session, report($f, $old));
is("$reply->{answer}, $reply->{refusal}, $reply->{held_lsn}", "ok, later, $later", 'and not back, which is said');
is(slot($p, hold_of($f), 'restart_lsn'), $later, 'nor did it move');

# The first report after a refusal still says what the node was until then.
ask($f_session, report($f, $old, state => 8));
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'f'}, 'whose reports are taken is no duplicate', 'archive');

# ---- what cannot be read ----

# p has seen all that f has said
wait_for($p, "SELECT frontier_lsn = '$old' AND pinned_by = 'f' FROM cascade_status", 'f pins p');

my $good_hello = hello($f);
my $good = report($f, $later, tree => [ encode_row(name => 'below', upstream_name => 'f', upstream_incarnation => 0xf) ]);
my %bad = (
	'nothing at all' => [ '', 'Message is truncated' ],
	'something else' => [ 'GET / HTTP/1.1 and so on', 'Not a message of cascade_relay' ],
	'a version of nothing' => [ hello($f, sender_version => 0), 'Message has no version' ],
	'an unknown kind' => [ hello($f, kind => 77), 'Unknown message kind' ],
	'a reply' => [ hello($f, kind => 3), 'A reply is not accepted here' ],
	'a hello that says it is a report' => [ hello($f, kind => 2), 'A mandatory section is missing' ],
	'a length that is too long' => [ hello($f, length => 4000), 'Message is truncated' ],
	'a length that is too short' => [ hello($f, length => 12), 'Message is longer than it says' ],
	'bytes behind the end' => [ "$good\0", 'Message is longer than it says' ],
	'a name of 80 characters' => [ hello($f, node_name => 'x' x 80), 'A string is too long' ],
	'a name that is not ASCII' => [ hello($f, node_name => "f\xfcnf"), 'A name is not printable ASCII' ],
	'a name with a zero in it' => [ hello($f, node_name => "f\0"), 'A name is not printable ASCII' ],
	'no incarnation' => [ hello($f, incarnation => 0), 'An incarnation does not fit its node' ],
	'a state that does not exist' => [ report($f, $later, state => 99), 'A value is out of range' ],
	'a way to be fed that does not exist' => [ report($f, $later, feed => 99), 'A value is out of range' ],
	'a pause that does not exist' => [ report($f, $later, feed => 1, pause => 99), 'A value is out of range' ],
	'a class that does not exist' => [ report($f, $later, replica_class => 4), 'A value is out of range' ],
	'a row without a name' => [ report($f, $later, tree => [ encode_row() ]), 'A name is empty' ],
	'a row that is cut' => [ report($f, $later, tree => [ substr(encode_row(name => 'x'), 0, 30) ]), 'A section is too short' ],
	'a managed row without an incarnation' => [ report($f, $later, tree => [ encode_row(name => 'x', managed => 1) ]), 'An incarnation does not fit its node' ],
	'a truth that is neither' => [ report($f, $later, tree => [ encode_row(name => 'x', managed => 2) ]), 'A boolean is neither 0 nor 1' ]);
my $before = remembered();
is(scalar $f_session->query('SELECT try(' . bytea(hello($f, sender_version => 9, reader_version => 2)) . ')'),
	'08P01|the cascade_relay of the upstream is too old for that of the reporting node|The upstream has version 1.0.',
	'a version that is too new');
for my $what (sort keys %bad)
{
	my ($message, $detail) = @{ $bad{$what} };
	is(scalar $f_session->query('SELECT try(' . bytea($message) . ')'),
		"08P01|invalid cascade_relay message|$detail.", $what);
}

my $prefixes = sub {
	my ($message) = @_;
	return scalar $f_session->query(
		'SELECT count(*) FILTER (WHERE try(substring(m FOR n)) LIKE \'08P01|%\'), count(*) FROM (SELECT '
		  . bytea($message) . '::bytea) t(m), generate_series(0, length(m) - 1) n');
};
is($prefixes->($good_hello), join('|', (length $good_hello) x 2), 'a hello cut anywhere');
is($prefixes->($good), join('|', (length $good) x 2), 'a report cut anywhere');
is( scalar $f_session->query(
		'SELECT try(overlay(' . bytea($good) . q{|| decode(repeat('00', 16 * 1024 * 1024), 'hex') PLACING decode(lpad(to_hex(}
		  . (length($good) + 16 * 1024 * 1024) . q{), 8, '0'), 'hex') FROM 9 FOR 4))}),
	'08P01|invalid cascade_relay message|Message is too long.',
	'more than 16 MB');
my (undef, $failed) = $f_session->query('SELECT cascade_report(' . bytea($good . "\0") . ')');
ok($failed && $f_session->{stderr} =~ /ERROR:  invalid cascade_relay message\n.*DETAIL:  Message is longer than it says\./s,
	'one error that nobody catches');
$f_session->{stderr} = '';

is(remembered(), $before, 'nothing has changed');
is(slot($p, hold_of($f), 'active, restart_lsn'), "f|$later", 'and no slot was left acquired');
$reply = ask($f_session, report($f, $later));
is("$reply->{answer}, $reply->{refusal}", 'ok, none', 'the session that sent all this still speaks for f');
i_is_well('bad messages');

# ---- no memory is kept ----

my $calls = sub {
	my ($n, $sql) = @_;
	$f_session->query("DO \$\$ BEGIN FOR i IN 1 .. $n LOOP PERFORM $sql; END LOOP; END \$\$");
	return;
};
my $memory = 'SELECT sum(total_bytes) FROM pg_backend_memory_contexts';
my @work = (
	[ 'messages that cannot be read', 'try(' . bytea("$good\0") . ')', 5000 ],
	[ 'messages of more than 16 MB', q{try('CRLY\001\001\001\000'::bytea || decode(repeat('00', 16 * 1024 * 1024), 'hex'))}, 10 ],
	[ 'hellos', report_sql($good_hello), 5000 ],
	[ 'reports', report_sql($good), 5000 ]);
for (@work)
{
	my ($what, $sql, $n) = @$_;
	$calls->($n / 10, $sql);
	my $kept = $f_session->query($memory);
	$calls->($n, $sql);
	my $grown = $f_session->query($memory) - $kept;
	cmp_ok($grown, '<', 64 * 1024, "$n $what: no memory is kept");
}
# at top level, where nobody catches them
$f_session->query(join(";\n", ('SELECT cascade_report(' . bytea("$good\0") . ')') x 20));
my $kept = $f_session->query($memory);
$f_session->query(join(";\n", ('SELECT cascade_report(' . bytea("$good\0") . ')') x 500));
cmp_ok($f_session->query($memory) - $kept, '<', 64 * 1024, '500 errors that nobody catches: no memory is kept');
$f_session->{stderr} = '';

# ---- names ----

$before = remembered();
my $n_session = session($p);
for my $name ('', 'Upper', 'with space', 'dash-ed', 'x' x 41, 'x' x 79, q{"; DROP TABLE x; --})
{
	$reply = ask($n_session, hello(fake($name, 0xabc)));
	is("$reply->{answer}, $reply->{refusal}", 'refused, name', "no node name: \"$name\"");
}
$reply = ask($n_session, hello(fake('p', 0xabc)));
is("$reply->{answer}, $reply->{refusal}", 'refused, own_name', 'the name of p itself');
$reply = ask($n_session, hello(fake('x', hex incarnation($p))));
is("$reply->{answer}, $reply->{refusal}", 'refused, duplicate', 'the incarnation of p itself, which did not call');
$reply = ask($n_session, hello(fake('x', 0xabc), system_identifier => 1));
is("$reply->{answer}, $reply->{refusal}", 'refused, system', 'another cluster');
is($reply->{detail}, "its system identifier is $system", 'which says what it is');
$reply = ask($n_session, report(fake('x', 0xabc), $later));
is("$reply->{answer}, $reply->{refusal}", 'refused, no_hello', 'and none of them may report');
is(remembered(), $before, 'nobody of them is remembered');

# the longest name there may be
my $long = fake('l' x 40, 0xabc);
$reply = ask($n_session, hello($long));
is($reply->{answer}, 'ok', 'a name of 40 characters');
$reply = ask($n_session, report($long, $later));
is(slot($p, 'cascade_relay_' . 'l' x 40 . '_00000abc', 'restart_lsn'), $reply->{held_lsn}, 'has a hold under its full name');

# a real node shows what it is told
my $log = -s $i->logfile;
my $former = value($p, q{SELECT slot_name FROM cascade_holds WHERE name = 'i'});
$i->append_conf('postgresql.conf', "cascade_relay.node_name = 'p'");
$i->restart;
wait_for($i, "SELECT upstream_state = 'refused' AND NOT coalesce(protected, false) FROM cascade_status", 'i calls itself p, and is refused');
like(value($i, 'SELECT last_error FROM cascade_status'),
	qr/same node name as this node.*HINT: Give each node a cascade_relay\.node_name of its own/, 'it says why, and what to do');
is(value($i, q{SELECT warnings && '{duplicate_name}' FROM cascade_topology WHERE is_local}), 't', 'and warns');
wait_for($i, q{SELECT node_name || ' ' || state FROM cascade_topology WHERE is_local}, 'and shows as a duplicate', 'p duplicate');
is(value($p, q{SELECT node_name, state FROM cascade_topology WHERE node_name = 'p'}), 'p|running', 'p itself does not');
$i->append_conf('postgresql.conf', "cascade_relay.node_name = 'i'");
$i->restart;
wait_connected($i);
wait_protected($i);
value($p, "SELECT cascade_forget('$former', true)");
$i_incarnation = incarnation($i);
$i_hold = "cascade_relay_i_$i_incarnation";
wait_for($i, q{SELECT state FROM cascade_topology WHERE is_local}, 'i is no duplicate any more', 'streaming');
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'i'}, 'as p sees it, too', 'streaming');
i_is_well('after it had another name');

# ---- who speaks for a node ----

my $other = session($p);
my $twin = { %$f, start_id => 4711 };
$reply = ask($f_session, report($f, $later));
$reply = ask($other, hello($twin));
is("$reply->{answer}, $reply->{refusal}", 'refused, duplicate', 'a live node of the same name and incarnation');
like($reply->{detail}, qr/^node "f" with incarnation 0000000f is connected from /, 'which is told where the other one is');
$reply = ask($other, report($twin, current_lsn($p)));
is($reply->{refusal}, 'no_hello', 'it may not report');
$reply = ask($f_session, report($f, $later));
is("$reply->{answer}, $reply->{held_lsn}", "ok, $later", 'the owner goes on, its hold has not moved');
ok($reply->{warnings} & 1, 'and is told of the duplicate');

# the same worker connects anew, as after a silent cut
my $superseded = $f_session->query_safe('SELECT pg_backend_pid()');
$reply = ask($other, hello($f));
is($reply->{answer}, 'ok', 'the same worker takes over at once');
wait_for($p, "SELECT count(*) FROM pg_stat_activity WHERE pid = $superseded", 'the session that was superseded is ended', 0);
is(slot($p, hold_of($f), 'restart_lsn'), $later, 'the hold has not moved');
eval { $f_session->quit };
$f_session = session($p);
$reply = ask($other, report($f, $later));
is("$reply->{answer}, $reply->{held_lsn}", "ok, $later", 'the new session reports');

# in silence the owner loses its node, and keeps its hold
my $taken = 0;
for (1 .. 100)
{
	$reply = ask($f_session, hello($twin));
	last if $reply->{answer} eq 'ok';
	$taken++;
	$f_session->query('SELECT pg_sleep(0.1)');
}
is($reply->{answer}, 'ok', 'after some silence another start takes over');
cmp_ok($taken, '>', 0, 'not before');
is(slot($p, hold_of($f), 'restart_lsn'), $later, 'the hold stays where it was');
$f->{start_id} = $twin->{start_id};
$reply = ask($f_session, report($f, $later));
is("$reply->{answer}, $reply->{held_lsn}", "ok, $later", 'and is told to the new owner');
eval { $other->quit };
i_is_well('the fight over f');

# ---- the end of all LSNs ----

my $huge_fake = fake('huge', 0xffffffff);
my $h_session = session($p);
my $i_session = session($i);
for ([ $p, $h_session ], [ $i, $i_session ])
{
	my ($node, $session) = @$_;
	my $name = $node->name;

	is(ask($session, hello($huge_fake))->{answer}, 'ok', "a braggart says hello to $name");
	$reply = ask($session,
		report($huge_fake, $huge, oldest_wal_lsn => $huge, backend_xmin => 0xffffffff, warnings => 0xffffffff,
			tree => [ encode_row(name => 'braggart', upstream_name => 'huge', upstream_incarnation => 0xffffffff,
					age => 0xfffffffe, replay_lag => '9223372036854775807', timeline => 0xffffffff,
					map { $_ => $huge } qw(flush_lsn replay_lsn frontier_lsn oldest_wal_lsn)) ]));
	is($reply->{answer}, 'ok', "$name takes its word");
	if ($node eq $p)
	{
		# a standby is never ahead of its primary
		is("$reply->{refusal}, $reply->{held_lsn}", 'diverged, 0/0', 'but holds nothing for it');
		is(slot($p, hold_of($huge_fake), 'restart_lsn'), '', 'there is no hold');
		next;
	}
	is(slot($node, hold_of($huge_fake), q{restart_lsn <= pg_last_wal_receive_lsn()}), 't',
		"its hold on $name is no further than $name is");
	is(slot($node, hold_of($huge_fake), 'restart_lsn'), $reply->{held_lsn}, 'which is what it is told');
}
# it pins nobody, and nobody moves on because of it
wait_for($p, "SELECT frontier_lsn = '$later' AND pinned_by = 'f' FROM cascade_status", 'f still pins p');
write_segments($p, 2);
wait_caught_up($p, $i);
wait_for($i, 'SELECT frontier_lsn = replay_lsn AND pinned_by = node_name AND hold_target_lsn <= frontier_lsn FROM cascade_status', 'i goes by its own LSN');
wait_for($p, "SELECT (SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '$i_hold') <= (SELECT replay_lsn FROM cascade_topology WHERE node_name = 'i')", 'and its hold is not beyond it');
for my $node ($p, $i)
{
	is(value($node, q{SELECT count(*) > 0 AND bool_and(replay_lag_bytes IS NULL OR replay_lag_bytes >= 0) FROM cascade_topology WHERE node_name = 'braggart'}),
		't', 'no lag is negative');
	ok(value($node, q{SELECT string_agg(t, E'\n') FROM cascade_tree() t}) =~ /braggart/, 'the tree can be drawn');
}
$reply = ask($h_session, report($huge_fake, $old));
is("$reply->{answer}, $reply->{refusal}", 'ok, diverged', 'it had other WAL, and still has');
$reply = ask($h_session, report($huge_fake, $old, feed => 1));
is("$reply->{answer}, $reply->{refusal}", 'ok, later', 'it may come to its senses, when it streams');
$h_session->quit;
$i_session->quit;
i_is_well('the braggart');

# ---- the slots run out ----

sub free_slots
{
	return value($p, q{SELECT current_setting('max_replication_slots')::int - count(*) FROM pg_replication_slots});
}

$p->safe_psql('postgres', "SELECT pg_create_physical_replication_slot('filler_' || n) FROM generate_series(1, " . (free_slots() - 1) . ') n');
is(free_slots(), 1, 'one slot is free');
my $g = fake('g', 0x9);
my $g_session = session($p);
is(ask($g_session, hello($g))->{answer}, 'ok', 'g says hello');
$reply = ask($g_session, report($g, $later));
is("$reply->{answer}, $reply->{refusal}, $reply->{held_lsn}", 'ok, no_free_slot, 0/0', 'it is told that nothing is held');
is(free_slots(), 1, 'the last free slot stays free');
is(value($p, q{SELECT counted, reason FROM cascade_downstreams WHERE name = 'g'}), 't|managed, by its last report', 'it counts all the same');

# the room for another hold is lost, and then a hold: in this order, or it would
# be placed again in between
$p->safe_psql('postgres', "SELECT pg_create_physical_replication_slot('filler_0')");
$p->safe_psql('postgres', "SELECT pg_drop_replication_slot('$i_hold')");
wait_for($i, 'SELECT NOT protected AND upstream_held_lsn IS NULL FROM cascade_status', 'i loses its hold, and says that it is not protected');
like(value($i, 'SELECT last_error FROM cascade_status'),
	qr/no replication slot to spare for a hold HINT: Raise max_replication_slots/, 'and why, and what to do');
is(value($i, q{SELECT upstream_state FROM cascade_status}), 'connected', 'it goes on reporting');
for my $node ($i, $p)
{
	wait_for($node, q{SELECT warnings @> '{no_free_slot,unprotected}' FROM cascade_topology WHERE node_name = 'i'}, $node->name . ' shows the warnings');
}
is(free_slots(), 1, 'the last free slot stays free');

$p->safe_psql('postgres', q{SELECT pg_drop_replication_slot('filler_0')});
wait_protected($i);
i_is_well('as soon as there is room');
wait_for($p, q{SELECT NOT warnings && '{no_free_slot,unprotected}' FROM cascade_topology WHERE node_name = 'i'}, 'the warnings are gone');
$reply = ask($g_session, report($g, $later));
is($reply->{refusal}, 'no_free_slot', 'i took the room, so there is none for g');

# Many come at once: however they race, one slot stays free.
$p->safe_psql('postgres', q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'filler%'});
$p->safe_psql('postgres', "SELECT pg_create_physical_replication_slot('filler_' || n) FROM generate_series(1, " . (free_slots() - 2) . ') n');
# the holds are dropped between the rounds; p leaves them to nodes that are live
my %patient = (report_interval_ms => 60000);
my @racers = ($g, map { fake("e$_", 0xe0 + $_) } 1 .. 3);
my @sessions = ($g_session, map { session($p) } 1 .. 3);
my $starter = session($p);
my ($fewest, $unclear) = (2, 0);
$sessions[$_]->query('SELECT ' . report_sql(hello($racers[$_], %patient))) for 0 .. 3;
for my $round (1 .. 15)
{
	$starter->query('SELECT pg_advisory_lock(1)');
	for (0 .. 3)
	{
		$sessions[$_]->query_until(qr/ready/,
			"\\echo ready\nSELECT pg_advisory_lock_shared(1);\nSELECT "
			  . report_sql(report($racers[$_], $later, %patient)) . ";\n");
	}
	$p->poll_query_until('postgres', q{SELECT count(*) = 4 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted});
	$starter->query('SELECT pg_advisory_unlock(1)');
	$_->query('SELECT pg_advisory_unlock_all()') for @sessions;
	my $free = free_slots();
	$fewest = $free if $free < $fewest;

	# whoever withdrew for another's sake comes again
	my @held = grep { ask($sessions[$_], report($racers[$_], $later, %patient))->{held_lsn} ne '0/0' } 0 .. 3;
	$unclear++ if @held != 1 || free_slots() != 1;
	$p->safe_psql('postgres', "SELECT pg_drop_replication_slot('" . hold_of($racers[$_]) . q{')}) for @held;
}
is($fewest, 1, 'however they race for the last two slots, one stays free');
is($unclear, 0, 'and the other is taken in the end');

# ---- the registry is full ----

# i, f, the long one, the braggart, g and three more: these are eight
my $h = fake('h', 0x8);
$log = -s $p->logfile;
$reply = ask($starter, hello($h));
is("$reply->{answer}, $reply->{refusal}", 'refused, full', 'there is no room for a ninth child');
ok($p->wait_for_log(qr/more nodes than "cascade_relay\.max_nodes" \(8\).*\n.*DETAIL:  Role "\w+" speaks for 8 of them\.\n.*Raise "cascade_relay\.max_nodes" and restart/, $log), 'the log says so');
like(slurp_file($p->logfile, $log), qr/refused node "h" with incarnation 00000008 from .*\n.*it has no room for another node/, 'and who it was');
is(value($p, q{SELECT warnings @> '{registry_full}' FROM cascade_topology WHERE is_local}), 't', 'the tree shows a warning');
$reply = ask($f_session, report($f, $later));
is("$reply->{answer}, $reply->{held_lsn}", "ok, $later", 'f reports as before');
$reply = ask($g_session, hello($g));
is($reply->{answer}, 'ok', 'a node that is known may come back');

# More below one child than there is room for: the braggart below huge, on p
# and, with huge, on i, has taken three of eight.
$reply = ask($f_session,
	report($f, $later,
		tree => [ map { encode_row(name => "leaf_$_", upstream_name => 'f', upstream_incarnation => 0xf) } 1 .. 20 ]));
is("$reply->{answer}, $reply->{held_lsn}", "ok, $later", 'a large tree below f is taken as far as there is room');
is(value($p, q{SELECT count(*) FILTER (WHERE node_name LIKE 'leaf%'), count(*) FILTER (WHERE node_name IN ('i', 'f', 'g')) FROM cascade_topology}),
	'5|3', 'and nobody else makes room for it');
i_is_well('a full registry');

# a real node is refused with a hint
$p->safe_psql('postgres', q{SELECT pg_drop_replication_slot('filler_1')});
my $late = new_standby('late', $p, slotless => 1);
wait_for($late, q{SELECT upstream_state = 'refused' FROM cascade_status}, 'a real ninth child is refused');
like(value($late, 'SELECT last_error FROM cascade_status'),
	qr/no room for another node HINT: Raise cascade_relay\.max_nodes on the upstream and restart it/, 'it says why, and what to do');
is(value($late, q{SELECT protected IS NULL FROM cascade_status}), 't', 'it does not know whether it is protected');
$late->stop;
i_is_well('the one who came late');
$_->quit for (@sessions[ 1 .. 3 ], $starter, $n_session);

# the holds of those who raced were dropped for room, not for good
for my $racer (@racers[ 1 .. 3 ])
{
	wait_for($p, "SELECT state = 'down' FROM cascade_topology WHERE node_name = '$racer->{name}'", "$racer->{name} has gone");
	value($p, "SELECT cascade_forget('$racer->{name}', true)");
}

# ---- strangers get hold of a hold ----

# Somebody streams through it.
my $dir = PostgreSQL::Test::Utils::tempdir();
my $out = '';
my $receiver = IPC::Run::start(
	[ 'pg_receivewal', '-D', $dir, '-S', $i_hold, '-s', '1', '--synchronous', '-d', $p->connstr('postgres') ],
	'>', \$out, '2>&1');
wait_for($i, 'SELECT NOT protected AND upstream_held_lsn IS NULL FROM cascade_status', 'somebody streams through the hold of i, which says that it is not protected');
like(value($i, 'SELECT last_error FROM cascade_status'),
	qr/somebody else has acquired this node's hold HINT: Nothing may stream through a slot/, 'and why, and what to do');
is(value($p, q{SELECT active, pid IS NOT NULL FROM cascade_holds WHERE name = 'i'}), 't|t', 'p shows who it is');
is(value($i, q{SELECT upstream_state FROM cascade_status}), 'connected', 'i goes on reporting');
# and drops it: that is a loss of the hold, although it was not to be had before
$p->safe_psql('postgres', qq{
	SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE slot_name = '$i_hold' AND active_pid IS NOT NULL;
	SELECT pg_drop_replication_slot('$i_hold')});
wait_for($p, q{SELECT count(*) FROM cascade_check WHERE code = 'hold_dropped' AND node_name = 'i'}, 'p says that somebody has dropped it', 1);
$receiver->kill_kill;
wait_for($p, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$i_hold' AND NOT active", 'the hold is there again', 1);
wait_protected($i);
i_is_well('without the stranger');

# Somebody moves it: the hold is back where it belongs only when i comes by.
write_segments($p, 1);
wait_caught_up($p, $i);
is(value($p, "SELECT end_lsn <= pg_current_wal_lsn() FROM pg_replication_slot_advance('$i_hold', pg_current_wal_lsn())"), 't', 'somebody moves the hold of i ahead');
i_is_well('moved by somebody');

# A logical slot has the name of a hold.
my $foreign = hold_of($g);
# g is silent, so p itself places its hold again: whoever comes first has the name
for (1 .. 20)
{
	$p->psql('postgres', "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '$foreign';
		SELECT pg_create_logical_replication_slot('$foreign', 'pgoutput')");
	last if slot($p, $foreign, 'slot_type') eq 'logical';
}
my $as_it_was = slot($p, $foreign, 'slot_type, restart_lsn, confirmed_flush_lsn, catalog_xmin, active');
$reply = ask($g_session, report($g, current_lsn($p)));
is("$reply->{answer}, $reply->{refusal}, $reply->{held_lsn}", 'ok, foreign_slot, 0/0', 'a logical slot is no hold');
is(slot($p, $foreign, 'slot_type, restart_lsn, confirmed_flush_lsn, catalog_xmin, active'), $as_it_was, 'and is left alone');
is(value($p, "SELECT kind, counted, reason FROM cascade_downstreams WHERE slot_name = '$foreign' AND kind <> 'hold'"), 'slot|f|logical slot', 'p shows it for what it is');
$p->safe_psql('postgres', "SELECT pg_drop_replication_slot('$foreign')");
$reply = ask($g_session, report($g, $later));
isnt($reply->{held_lsn}, '0/0', 'when it is gone, g has its hold');

$_->quit for ($f_session, $g_session);
for my $name (qw(f g))
{
	wait_for($p, "SELECT state = 'down' FROM cascade_topology WHERE node_name = '$name'", "$name has gone");
}
is(slot($p, hold_of($f), 'restart_lsn'), $later, 'and what was held for f is held');
i_is_well('at last');
is(value($p, q{SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'cascade_relay_%' AND (active OR xmin IS NOT NULL)}), '0', 'no hold is left acquired, or has an xmin');

# A leaf that all this went on around attaches and catches up: the hold of i
# still holds what i needs.
$p->safe_psql('postgres', 'CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)');
$i->stop;
write_segments($p, 5);
checkpoint_all($p);
checkpoint_all($p);
$p->safe_psql('postgres', q{SELECT pg_drop_replication_slot('i')});
write_segments($p, 2);
checkpoint_all($p);
checkpoint_all($p);
slot_from_hold($p, 'i', 'i');
$i->start;
wait_caught_up($p, $i);
is(value($i, 'SELECT n FROM kept'), '1', 'i has every row');

done_testing();
