# Who may do what, and what somebody who may report can do to the others.
#
#	p ─┬─ i ── l         real, and well
#	   ├─ (m …)          mallory's, who has REPLICATION and nothing else: they
#	   └─ …  i ── (m)    exist only as messages that she sends to p and to i
#
# First what each role may do, as one table that names everything there is:
# what is new has to be entered.  Then mallory speaks for nodes that are not
# hers: for several in one session, with a report of another one, for one that
# another role speaks for.  Then she does her worst as a child that anybody
# might have: nodes that only say hello, thousands of rows, rows about p, i and
# l with an address of her own, LSNs that make no sense, a slot that is somebody
# else's, needs that change all the time, standbys that come and go under ever new
# names.  Each time the others are as well off as before, and p says who it is.
# Last of all she leaves traps where SQL might look for our functions, and writes
# what should never be pasted.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $p = new_primary('p', conf => "cascade_relay.max_nodes = 16\nmax_connections = 50\nmax_wal_senders = 6\nmax_replication_slots = 20");
my $i = new_standby('i', $p, conf => "cascade_relay.max_nodes = 64\nmax_connections = 50\nmax_wal_senders = 6\nmax_replication_slots = 20\ncascade_relay.advertised_conninfo = 'host=i.example'");
my $l = new_standby('l', $i, conf => "max_connections = 50\nmax_replication_slots = 20\ncascade_relay.advertised_conninfo = 'host=l.example'");
wait_connected($i, $l);
checkpoint_all($p, $i, $l);
wait_protected($i, $l);

$p->safe_psql('postgres', q{
	CREATE ROLE boss SUPERUSER LOGIN;
	CREATE ROLE watcher LOGIN;
	GRANT pg_monitor TO watcher;
	CREATE ROLE mallory REPLICATION LOGIN;
	CREATE ROLE mandy REPLICATION LOGIN;
	CREATE ROLE joe LOGIN;
	CREATE TABLE canary AS SELECT 'alive' AS state;
});
wait_caught_up($p, $i, $l);
my $system = value($p, 'SELECT system_identifier FROM pg_control_system()');
my %incarnation = map { $_->name => incarnation($_) } ($p, $i, $l);

sub session
{
	my ($node, $role) = @_;
	return $node->background_psql('postgres', on_error_stop => 0,
		extra_params => [ '-U', $role // 'mallory', '-v', 'VERBOSITY=verbose' ]);
}

# Sends a message, and reads the reply, or the error.
sub ask
{
	my ($session, $message) = @_;
	my ($reply, $failed) = $session->query('SELECT public.' . report_sql($message));
	my $stderr = $session->{stderr};

	$session->{stderr} = '';
	return { error => $stderr } if $failed;
	return decode_reply($reply);
}

sub fake
{
	my ($name, $incarnation) = @_;
	return { name => $name, incarnation => $incarnation, start_id => 1000 + $incarnation };
}

sub hello
{
	my ($fake, %m) = @_;
	return encode_hello(system_identifier => $system, node_name => $fake->{name},
		incarnation => $fake->{incarnation}, start_id => $fake->{start_id},
		report_interval_ms => 60000, %m);
}

sub report
{
	my ($fake, $lsn, %m) = @_;
	return encode_report(sequence => ++$fake->{sequence}, report_interval_ms => 60000,
		pinned_by => $fake->{name},
		(map { ($_ => $lsn) } qw(flush_lsn replay_lsn frontier_lsn hold_target_lsn)), %m);
}

sub hold_of
{
	my ($fake) = @_;
	return sprintf('cascade_relay_%s_%08x', $fake->{name}, $fake->{incarnation});
}

sub slot_lsn
{
	my ($node, $name) = @_;
	return value($node, "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '$name'");
}

sub current_lsn { return value($p, 'SELECT pg_current_wal_flush_lsn()'); }

# What i and l must never notice.
sub others_are_well
{
	my ($what) = @_;

	for my $node ($i, $l)
	{
		wait_for($node, "SELECT upstream_state = 'connected' AND protected AND last_report_time > now() - interval '5s' FROM cascade_status",
			"$what: " . $node->name . ' reports and is protected');
	}
	wait_for($_, q{SELECT string_agg(path::text, ' ' ORDER BY path) FROM cascade_topology WHERE node_name IN ('p', 'i', 'l') AND state IN ('running', 'streaming') AND 'm' <> ALL (path)},
		"$what: " . $_->name . ' shows the others where they are', '{p} {p,i} {p,i,l}')
	  for ($p, $i, $l);
	return;
}

others_are_well('at first');

# ---- what each role may do ----

# Everything that the extension has made and that can be called or read.
my $rights = q{
	SELECT format('%-29s %s', o.name, string_agg(o.may, '  ' ORDER BY r.n))
	FROM (VALUES (1, 'boss'), (2, 'watcher'), (3, 'mallory'), (4, 'joe')) r(n, role),
	LATERAL (
		SELECT CASE prokind WHEN 'p' THEN 'CALL ' ELSE '' END || proname || '()' AS name, 2 AS kind,
			CASE WHEN has_function_privilege(role, f.oid, 'EXECUTE') THEN 'yes' ELSE '-  ' END AS may
		FROM pg_depend d JOIN pg_proc f ON d.classid = 'pg_proc'::regclass AND f.oid = d.objid
		WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cascade_relay')
		UNION ALL
		SELECT relname, 1, CASE WHEN has_table_privilege(role, c.oid, 'SELECT') THEN 'yes' ELSE '-  ' END
		FROM pg_depend d JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
		WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cascade_relay')
	) o
	GROUP BY o.kind, o.name
	ORDER BY o.kind, o.name COLLATE "C"};

# superuser, pg_monitor, REPLICATION, nothing.  cascade_report and cascade_adopt
# look for the REPLICATION attribute themselves.
is(value($p, $rights) . "\n", <<'TABLE', 'what each role may do');
cascade_check                 yes  yes  -    -  
cascade_downstreams           yes  yes  -    -  
cascade_graph_edges           yes  yes  -    -  
cascade_graph_nodes           yes  yes  -    -  
cascade_holds                 yes  yes  -    -  
cascade_metrics               yes  yes  -    -  
cascade_status                yes  yes  -    -  
cascade_topology              yes  yes  -    -  
CALL cascade_wait_for()       yes  yes  yes  yes
cascade_adopt()               yes  yes  yes  yes
cascade_adopt_at()            yes  yes  yes  yes
cascade_bookmark()            yes  yes  yes  yes
cascade_can_serve()           yes  yes  -    -  
cascade_check()               yes  yes  -    -  
cascade_diagram()             yes  yes  -    -  
cascade_downstreams()         yes  yes  -    -  
cascade_follow()              yes  -    -    -  
cascade_forget()              yes  -    -    -  
cascade_metrics()             yes  yes  -    -  
cascade_nodes_serving()       yes  yes  -    -  
cascade_oldest_wal_file()     yes  yes  -    -  
cascade_openmetrics()         yes  yes  -    -  
cascade_plan_upstream()       yes  yes  -    -  
cascade_policy()              yes  yes  -    -  
cascade_release()             yes  -    -    -  
cascade_report()              yes  yes  yes  yes
cascade_status()              yes  yes  -    -  
cascade_topology()            yes  yes  -    -  
cascade_tree()                yes  yes  -    -  
cascade_upstream_candidates() yes  yes  -    -  
TABLE

# And what happens when they do.
my $m = fake('m', 0xa);
for my $role (qw(boss watcher mallory joe))
{
	my $may_report = $role eq 'boss' || $role eq 'mallory';
	my $may_read = $role eq 'boss' || $role eq 'watcher';
	my %calls = (
		'SELECT count(*) FROM cascade_status' => $may_read,
		'SELECT count(*) FROM cascade_check()' => $may_read,
		"SELECT cascade_release('nobody')" => $role eq 'boss',
		'SELECT cascade_bookmark() IS NOT NULL' => 1,
		"CALL cascade_wait_for('1:0/1')" => 1,
		"SELECT cascade_adopt('nobody_yet')" => $may_report,
		'SELECT ' . report_sql(hello($m)) => $may_report);
	for my $sql (sort keys %calls)
	{
		my (undef, undef, $stderr) = $p->psql('postgres', $sql, extra_params => [ '-U', $role ]);
		my $denied = $stderr =~ /ERROR:  permission denied/ ? 1 : 0;

		is($denied, $calls{$sql} ? 0 : 1, "$role " . ($calls{$sql} ? 'may: ' : 'may not: ') . substr($sql, 0, 40))
		  or diag $stderr;
	}
}
$p->safe_psql('postgres', q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'nobody_yet'});
my $s = session($p, 'joe');
like(ask($s, hello($m))->{error}, qr/42501: permission denied to report to cascade_relay\nDETAIL:  Only roles with the REPLICATION attribute may report/,
	'who may not report is told why');
$s->quit;

# ---- a session speaks for one node ----

my $start = current_lsn();
my $reply;
$s = session($p);
my $n = fake('n', 0xb);
is(ask($s, report($m, $start))->{refusal}, 'no_hello', 'a report before any hello');
is(ask($s, hello($m))->{answer}, 'ok', 'm says hello');
is(ask($s, report($m, $start, of => 0xa))->{answer}, 'ok', 'and reports as m');
my $held = slot_lsn($p, hold_of($m));
isnt($held, '', 'm has a hold');
write_segments($p, 2);
like(ask($s, hello($n))->{error}, qr/08P01: this session speaks for node "m" with incarnation 0000000a\nDETAIL:  It was used by node "n" with incarnation 0000000b\.\nHINT: .*connection pooler/,
	'the same session cannot speak for n, too');
like(ask($s, report($n, current_lsn(), of => 0xb))->{error}, qr/08P01: this session speaks for node "m" with incarnation 0000000a/,
	'nor does a report of n count for m');
is(slot_lsn($p, hold_of($m)), $held, 'the hold of m has not moved');
is(slot_lsn($p, hold_of($n)), '', 'n has none');
is(ask($s, report($m, $start))->{answer}, 'ok', 'm goes on');

# Another name with the incarnation of a node,
# neither gets rid of that node's hold nor takes it over, whether its session is
# there or has ended.
my $still = session($p);
my $v = fake('v', 0xe);
my $w = { %{ fake('w', 0xe) }, start_id => 5 };
is(ask($still, hello($v, report_interval_ms => 100))->{answer}, 'ok', 'v says hello');
isnt(ask($still, report($v, $start, report_interval_ms => 100))->{held_lsn}, '0/0', 'and is held');
my $of_w = session($p);
for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	$reply = ask($of_w, hello($w));
	last if $reply->{answer} eq 'ok';
	usleep(100_000);
}
is($reply->{answer}, 'ok', 'after a while w is taken for the same node');
isnt(ask($of_w, report($w, current_lsn()))->{held_lsn}, '0/0', 'w is held');
isnt(slot_lsn($p, hold_of($v)), '', 'and v still is');
is(ask($still, report($v, $start, report_interval_ms => 100))->{answer}, 'ok', 'v goes on');
$still->quit;
wait_for($p, q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'mallory'}, 'v leaves', '2');
is(ask($of_w, report($w, current_lsn()))->{answer}, 'ok', 'w reports again');
isnt(slot_lsn($p, hold_of($v)), '', 'what is held for v stays');
$of_w->quit;
wait_for($p, q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'mallory'}, 'w leaves', '1');
value($p, q{SELECT cascade_forget(n, true) FROM unnest('{v,w}'::text[]) n});

# in the middle of it she loses the right
$p->safe_psql('postgres', 'ALTER ROLE mallory NOREPLICATION');
like(ask($s, report($m, current_lsn()))->{error}, qr/42501: permission denied/, 'a role that may not report any more');
is(slot_lsn($p, hold_of($m)), $held, 'moves nothing');
$p->safe_psql('postgres', 'ALTER ROLE mallory REPLICATION');

# another role, while m is there, and when it is away
my $other = session($p, 'mandy');
my $log = -s $p->logfile;
is(ask($s, report($m, $start))->{answer}, 'ok', 'm is there');
is(ask($other, hello({ %$m, start_id => 7 }))->{refusal}, 'duplicate', 'nobody takes over what is live');
is(ask($other, hello(fake('m', 0xc)))->{refusal}, 'duplicate', 'nor its name');
is(ask($other, hello({ %{ fake('k', 0xa) }, start_id => 7 }))->{refusal}, 'duplicate', 'nor its incarnation');
is(slot_lsn($p, hold_of($m)), $held, 'its hold is where it was');
for my $node ($i, $l)
{
	# so that they stay live however slow this machine is
	$node->append_conf('postgresql.conf', 'cascade_relay.report_interval = 2s');
	$node->reload;
	my $sent = value($node, 'SELECT reports_sent FROM cascade_status');
	wait_for($node, "SELECT reports_sent > $sent FROM cascade_status", $node->name . ' is live');
}
for my $name (qw(i l))
{
	my $node = $name eq 'i' ? $p : $i;
	my $imposter = session($node, 'mandy');
	is(ask($imposter, hello(fake($name, hex $incarnation{$name})))->{refusal}, 'duplicate', "nobody takes over $name");
	$imposter->quit;
}
for my $node ($i, $l)
{
	$node->append_conf('postgresql.conf', 'cascade_relay.report_interval = 200ms');
	$node->reload;
}
$s->quit;
wait_for($p, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'mallory'}, 'mallory leaves');
is(ask($other, hello({ %$m, start_id => 7 }))->{answer}, 'ok', 'another start of m, by another role');
ok($p->wait_for_log(qr/role "mandy" at \[local\] speaks for node "m" now, and no longer role "mallory"/, $log), 'is worth a line in the log');
# a name that is free to take, but not the hold that is there
is(ask($other, report($m, $start))->{held_lsn}, $held, 'what m asks for is what is held');
$other->quit;
others_are_well('after all this');

# ---- nodes that only say hello ----

# One session for each, as many as she likes: those that nobody speaks for any
# more make room.
for my $n (1 .. 40)
{
	my $reply = $p->safe_psql('postgres', 'SELECT ' . report_sql(hello(fake("greeter_$n", 0x1000 + $n))), extra_params => [ '-U', 'mallory' ]);
	next if decode_reply($reply)->{answer} eq 'ok';
	fail("greeter $n: " . decode_reply($reply)->{refusal});
	last;
}
is(value($p, q{SELECT count(*) <= 15 AND bool_or(node_name = 'greeter_40') FROM cascade_topology WHERE node_name LIKE 'greeter%'}), 't',
	'40 nodes say hello where 16 have room: the last of them are known');
is(value($p, q{SELECT count(*) FROM cascade_check WHERE code = 'registry_full'}), '0', 'nobody was refused');
is(value($p, q{SELECT state FROM cascade_topology WHERE node_name = 'm'}), 'down', 'm, which has a hold, is one of them');

# Those that have reported, and whose holds she drops before anybody has seen
# them, are no different.
my $worker = value($p, 'SELECT worker_pid FROM cascade_status');
kill 'STOP', $worker;
for my $n (1 .. 16)
{
	my $dropper = fake("dropper_$n", 0x1800 + $n);
	my $own = session($p);
	is(ask($own, hello($dropper))->{refusal}, $n <= 14 ? 'none' : 'full', "dropper $n says hello");
	if ($n <= 14)
	{
		ask($own, report($dropper, $start));
		$own->query_safe(q{SELECT pg_drop_replication_slot('} . hold_of($dropper) . q{')});
	}
	$own->quit;
}
kill 'CONT', $worker;
wait_for($p, q{SELECT count(*) > 13 FROM cascade_topology WHERE node_name ~ '^dropper' AND state = 'down'}, 'p sees that they are away');
for my $n (1 .. 15)
{
	my $reply = $p->safe_psql('postgres', 'SELECT ' . report_sql(hello(fake("late_$n", 0x1900 + $n))), extra_params => [ '-U', 'mallory' ]);
	next if decode_reply($reply)->{answer} eq 'ok';
	fail("late $n: " . decode_reply($reply)->{refusal});
	last;
}
$p->append_conf('postgresql.conf', 'cascade_relay.stale_timeout = 2s');
$p->reload;
wait_for($p, q{SELECT count(*) FROM cascade_topology WHERE node_name ~ '^(late|greeter)'}, 'who only said hello is soon not shown any more', '0');
wait_for($p, q{SELECT count(*) FROM cascade_check WHERE code = 'registry_full'}, 'nobody is refused any more', '0');
$p->append_conf('postgresql.conf', 'cascade_relay.stale_timeout = 30s');
$p->reload;

# All at once she can fill it.
my @greeters = map { session($p) } 1 .. 15;
my @answers = map { ask($greeters[$_], hello(fake("crowd_$_", 0x2000 + $_)))->{refusal} } 0 .. 14;
is(scalar(grep { $_ eq 'full' } @answers), 1, 'as long as they stay they take all the room but that of i and m');
wait_for($p, q{SELECT severity, message FROM cascade_check WHERE code = 'registry_full'}, 'p says so',
	'warning|node "p" knows of more nodes than it has room for; some are not shown; role "mallory" speaks for 14 of them');
others_are_well('a crowd');
$_->quit for @greeters;
wait_for($p, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'mallory'}, 'the crowd leaves');
$s = session($p);
is(ask($s, hello($m))->{answer}, 'ok', 'there is room again');
$p->append_conf('postgresql.conf', 'cascade_relay.stale_timeout = 4s');
$p->reload;
wait_for($p, q{SELECT count(*) FROM cascade_check WHERE code = 'registry_full'}, 'which p sees', '0');

# ---- rows without end ----

# l below i is one row, which it must keep; that m's are too many, p says.
my $sibling = session($p, 'mandy');
is(ask($sibling, hello($n))->{answer}, 'ok', 'n, an orderly child');
my @leaf = map { encode_row(name => "leaf_$_", incarnation => 0x300 + $_, managed => 1, upstream_name => 'n', upstream_incarnation => 0xb) } 1 .. 3;
$log = -s $p->logfile;
for my $rows (1000, 15, 3000)
{
	$reply = ask($s, report($m, $start,
			tree => [ map { encode_row(name => "m_$_", upstream_name => 'm', upstream_incarnation => 0xa) } 1 .. $rows ]));
	is($reply->{answer}, 'ok', "$rows rows below m are taken as far as there is room");
	ask($sibling, report($n, current_lsn(), tree => \@leaf));
	is(value($p, q{SELECT count(*) FILTER (WHERE node_name LIKE 'leaf_%'), count(*) FILTER (WHERE node_name = 'l'),
			count(*) FILTER (WHERE node_name LIKE 'm_%') > 0 FROM cascade_topology}), '3|1|t', 'and nobody else makes room for them');
}
wait_for($p, q{SELECT message ~ 'node "m" has reported [0-9]+ of them$' FROM cascade_check WHERE code = 'registry_full' AND node_name = 'p'}, 'p says who it is');
ok($p->wait_for_log(qr/more nodes than "cascade_relay\.max_nodes" \(16\); some are not shown\n.*Node "m" has reported \d+ of them/, $log), 'and so does its log');
$p->append_conf('postgresql.conf', 'cascade_relay.stale_timeout = 30s');
$p->reload;
others_are_well('rows without end');
is(ask($s, report($m, $start, tree => []))->{answer}, 'ok', 'm has nobody below it any more');

# Rows that nobody believes take no room from anybody, and it is not the others
# who are said to have too many.  Behind so many there may be some that are true:
# who has found no room is not nobody.
@leaf = map { encode_row(name => "leaf_$_", incarnation => 0x300 + $_, managed => 1, upstream_name => 'n', upstream_incarnation => 0xb) } 1 .. 12;
ask($sibling, report($n, current_lsn(), tree => \@leaf));
my $g = fake('g', 0xf);
my $gossip = session($p);
my @lies = map { encode_row(name => 'p', incarnation => hex $incarnation{p}, managed => 1, upstream_name => 'g', upstream_incarnation => 0xf) } 1 .. 3000;
is(ask($gossip, hello($g))->{answer}, 'ok', 'g says hello');
is(ask($gossip, report($g, $start, tree => [ @lies, encode_row(name => 'leaf_of_g', incarnation => 0x3ff, managed => 1, upstream_name => 'g', upstream_incarnation => 0xf) ]))->{answer},
	'ok', 'and says 3000 times that p is below it');
is(value($p, q{SELECT count(*) FROM cascade_topology WHERE node_name LIKE 'leaf_%'}), '12', 'n keeps the room it has');
is(value($p, q{SELECT count(*) FROM cascade_check WHERE code = 'registry_full' AND message ~ 'node "g" has reported 3001 of them'}), '1', 'p says who it is');
$gossip->quit;
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'g'}, 'g is away', 'down');
my (undef, undef, $unknown) = $p->psql('postgres', q{SELECT cascade_forget('g')});
like($unknown, qr/"g" cannot be forgotten: it is not known what streamed from it\nDETAIL:  There were more nodes below it than there was room for\./,
	'and is not forgotten without force');
value($p, q{SELECT cascade_forget('g', true)});
@leaf = @leaf[ 0 .. 2 ];
ask($sibling, report($n, current_lsn(), tree => \@leaf));

# ---- rows about others ----

# They say that p is below m, and a primary; that i is, and l, under their very
# own names and incarnations; and that there are others of their names.
my %evil = (conninfo => 'host=mallory.example', replay_lsn => 'ffffffff/ffffffff', flush_lsn => 'ffffffff/ffffffff', protected => 2, oldest_wal_lsn => '0/1');
my %below = (upstream_name => 'm', upstream_incarnation => 0xa, managed => 1);
my @spoof = (
	encode_row(%evil, %below, name => 'p', incarnation => hex $incarnation{p}, role => 1, state => 1),
	encode_row(%evil, name => 'p', incarnation => 0x501, managed => 1, role => 1, state => 1),
	encode_row(%evil, %below, name => 'q', incarnation => 0x502, role => 1, state => 1),
	encode_row(%evil, %below, name => 'i', incarnation => hex $incarnation{i}),
	encode_row(%evil, %below, name => 'l', incarnation => hex $incarnation{l}),
	encode_row(%evil, name => 'l', incarnation => hex $incarnation{l}, managed => 1, upstream_name => 'i', upstream_incarnation => hex $incarnation{i}),
	encode_row(%evil, name => 'z', incarnation => 0x503, managed => 1, upstream_name => 'i', upstream_incarnation => hex $incarnation{i}),
	encode_row(%evil, name => 'u', managed => 0, upstream_name => 'p', upstream_incarnation => hex $incarnation{p}),
	encode_row(%evil, %below, name => 'p', incarnation => 0x504),
	encode_row(%evil, %below, name => 'own', incarnation => 0x505));
is(ask($s, report($m, $start, tree => \@spoof))->{answer}, 'ok', 'm says things about others');
for my $node ($p, $i, $l)
{
	wait_for($node, q{SELECT string_agg(path::text, ' ' ORDER BY path) FROM cascade_topology WHERE conninfo = 'host=mallory.example'},
		$node->name . ' believes only what m says of those below it', '{p,m,own} {p,m,p}');
	is(value($node, q{SELECT string_agg(node_name, ',' ORDER BY path) FROM cascade_topology WHERE role = 'primary'}), 'p', 'there is one primary');
	is(value($node, q{SELECT string_agg(upstream_name || ' ' || coalesce(conninfo, 'nowhere'), ', ') FROM unnest('{p,i}'::text[]) u, cascade_plan_upstream('x', 'read_replica', u)}),
		'p nowhere, i host=i.example', 'whoever asks for p and i finds them');
}
wait_for($p, q{SELECT count(*) > 0 FROM cascade_check WHERE code = 'duplicate_name' AND severity = 'critical'}, 'and the namesake of p is reported');
# nor does a name lead to her that somebody else has: not now, and not when p is
# gone and is looked for where it was
for my $node ($i, $l)
{
	wait_until($node->name . ' has written down where the others are', sub { grep { /^own\thost=mallory.example/ } state_lines($node, 'address') });
	like(join("\n", state_lines($node, 'address')), qr/^p\thost=(?!mallory)/m, 'and that p is where it was');
	isnt($node->psql('postgres', q{SELECT cascade_follow('p')}, stderr => \my $refused), 0, $node->name . ' does not follow p by that name');
	like($refused, qr/cannot follow "p": more than one live node has that name\nDETAIL: .*\nHINT: .*conninfo/, 'because there are two');
}
# what is said a step further down is not believed either
my $t = session($i);
my $m_below = fake('mm', 0xd);
is(ask($t, hello($m_below))->{answer}, 'ok', 'mm, below i');
is(ask($t, report($m_below, $start, tree => [
			encode_row(%evil, %below, upstream_name => 'mm', upstream_incarnation => 0xd, name => 'p', incarnation => hex $incarnation{p}),
			encode_row(%evil, %below, upstream_name => 'mm', upstream_incarnation => 0xd, name => 'leaf_1', incarnation => 0x301),
			encode_row(%evil, %below, upstream_name => 'mm', upstream_incarnation => 0xd, name => 'l', incarnation => hex $incarnation{l}) ]))->{answer},
	'ok', 'mm says that p, l and a leaf of n are below it');
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'mm'}, 'p knows mm', 'streaming');
ask($sibling, report($n, current_lsn(), tree => \@leaf));
wait_for($_, q{SELECT string_agg(node_name || ' ' || upstream_name, ', ' ORDER BY node_name) FROM cascade_topology WHERE node_name IN ('leaf_1', 'mm', 'l')},
	$_->name . ' believes none of it', 'l i, leaf_1 n, mm i') for ($p, $i, $l);
others_are_well('rows about others');
ask($s, report($m, $start, tree => []));
ask($t, report($m_below, current_lsn(), tree => []));

# ---- more places than can be remembered ----

# Those that are not in the tree make room.
$l->stop;
rewrite_state($l, sub { $_[0] =~ s/^address .*\n//mgr . join('', map { "address gone_$_\thost=nowhere\n" } 1 .. 256) });
$l->start;
wait_until('l has found room for the nodes that it knows', sub { grep { /^i\thost=i.example/ } state_lines($l, 'address') });
is((grep { /^gone_/ } state_lines($l, 'address')) >= 250 ? 'most' : 'few',
	'most', 'and has not forgotten the others for it');

# Whoever says first that a node is live has the word.  But what n says of its
# own leaves is not lost for that: not when m has claimed one before, nor when
# she speaks for another.  When n dies, its hold is not to be given up for that.
my $o = fake('o', 0xe);
my @leaves = (
	encode_row(name => 'leaf_8', incarnation => 0x308, managed => 1, protected => 2, upstream_name => 'o', upstream_incarnation => 0xe, moves => 1),
	encode_row(name => 'leaf_9', incarnation => 0x309, managed => 1, protected => 2, upstream_name => 'o', upstream_incarnation => 0xe, moves => 1));
is(ask($s, report($m, $start, tree => [ encode_row(%below, name => 'leaf_8', incarnation => 0x308, protected => 2) ]))->{answer}, 'ok', 'm claims a leaf of o, which p does not know yet');
my $leaf = session($p, 'mallory');
is(ask($leaf, hello(fake('leaf_9', 0x309)))->{answer}, 'ok', 'and speaks for another');
is(ask($leaf, report(fake('leaf_9', 0x309), current_lsn(), protected => 2, tree => []))->{answer}, 'ok', 'which is protected, she says');
my $orderly = session($p, 'mandy');
is(ask($orderly, hello($o))->{answer}, 'ok', 'o says hello');
is(ask($orderly, report($o, $start, tree => \@leaves))->{answer}, 'ok', 'and what is below it');
is(value($p, q{SELECT string_agg(node_name || ' ' || upstream_name, ', ' ORDER BY node_name) FROM cascade_topology WHERE node_name IN ('leaf_8', 'leaf_9')}),
	'leaf_8 m, leaf_9 p', 'the leaves are drawn where they were first');
$orderly->quit;
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'o'}, 'o is away', 'down');
is(value($p, q{SELECT count(*) FROM cascade_check WHERE code = 'orphan_slot' AND node_name = 'o' AND message ~ 'is protected elsewhere'}), '0', 'nobody is told to forget it');
my (undef, undef, $refused) = $p->psql('postgres', q{SELECT cascade_forget('o')});
like($refused, qr/"o" cannot be forgotten.*\nDETAIL:  Not protected elsewhere: leaf_[89] \(seen below "[mp]", its move not confirmed\), leaf_[89] \(seen/,
	'nor is it forgotten without force');
$leaf->quit;
like(value($p, q{SELECT cascade_forget('o', true)}), qr/^\{\}$/, 'with force it is');
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'leaf_9'}, 'the leaf that was none is away', 'down');
value($p, q{SELECT cascade_forget('leaf_9', true)});
ask($s, report($m, $start, tree => []));

# ---- LSNs that make no sense ----

my $i_hold = "cascade_relay_i_$incarnation{i}";
my $before = slot_lsn($p, $i_hold);
for my $case (
	[ 'nothing at all', '0/0' ],
	[ 'the beginning of time', '0/1' ],
	[ 'the end of time', 'ffffffff/ffffffff' ])
{
	my ($what, $lsn) = @$case;

	is(ask($s, report($m, $lsn))->{answer}, 'ok', "m needs $what");
	is(ask($t, report($m_below, $lsn))->{answer}, 'ok', "and so does mm");
	write_segments($p, 1);
	wait_caught_up($p, $i, $l);
	others_are_well("m needs $what");
	is(value($_, q{SELECT count(*) FROM pg_replication_slots WHERE restart_lsn > CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn()) ELSE pg_current_wal_lsn() END}),
		'0', 'no slot on ' . $_->name . ' is ahead of it') for ($p, $i);
}
# What keeps p from moving on is the need that mm claims, as long as nothing
# bounds that; a bound is one for hers, too.
is(ask($t, report($m_below, '0/1'))->{answer}, 'ok', 'mm needs the beginning of time');
wait_for($i, q{SELECT frontier_lsn = '0/1' AND pinned_by = 'mm' FROM cascade_status}, 'which pins i');
wait_for($p, q{SELECT pinned_by FROM cascade_holds WHERE name = 'i'}, 'and through it p, which says so', 'mm');
is(slot_lsn($p, $i_hold) eq '' ? 'none' : 'held', 'held', 'the hold of i is there');
$_->append_conf('postgresql.conf', 'cascade_relay.max_hold_size = 4MB'), $_->reload for ($p, $i);
write_segments($p, 10);
wait_caught_up($p, $i, $l);
wait_for($p, "SELECT bool_and(pg_current_wal_lsn() - restart_lsn <= 5 * 1048576) FROM pg_replication_slots WHERE slot_name LIKE 'cascade_relay_%'",
	'no hold of p is further behind than the bound allows');
wait_for($i, "SELECT bool_and(pg_last_wal_replay_lsn() - restart_lsn <= 5 * 1048576) FROM pg_replication_slots WHERE slot_name LIKE 'cascade_relay_%'",
	'and none of i');
others_are_well('with a bound');
$_->append_conf('postgresql.conf', 'cascade_relay.max_hold_size = -1'), $_->reload for ($p, $i);

# ---- somebody else's slot ----

# u streams from i, and is not managed.  mm says that it is what streams through
# that slot, and needs nothing; first with a wrong guess of what u is called when
# it connects, then with the right one, from the address of u.
my $u = new_standby('u', $i, unmanaged => 1, conf => "max_connections = 50\nmax_replication_slots = 20");
wait_for($p, q{SELECT upstream_name || ' ' || state FROM cascade_topology WHERE node_name = 'u'}, 'u is drawn', 'i streaming');

sub slot_of_u
{
	my ($what) = @_;

	my $seen = value($i, 'SELECT observed_at FROM cascade_topology WHERE is_local');
	wait_for($i, "SELECT observed_at > '$seen' FROM cascade_topology WHERE is_local", "$what: i looks around");
	is(value($i, q{SELECT counted, reason FROM cascade_downstreams WHERE slot_name = 'u'}), 't|physical slot', "$what: the slot counts as anybody's");
	unlike(join("\n", state_lines($i, 'user')), qr/^u /m, "$what: i does not take it down as mm's");
	return;
}

for my $name (qw(guess u))
{
	is(ask($t, report($m_below, 'ffffffff/ffffffff', slot_name => 'u', application_name => $name, moves => 1, tree => []))->{answer}, 'ok', "mm says that u is its slot, as $name");
	slot_of_u("as $name");
	is(value($i, q{SELECT upstream_name || ' ' || state FROM cascade_topology WHERE node_name = 'u'}), 'i streaming', 'u is drawn still') if $name eq 'guess';
}
$u->stop;
write_segments($p, 2);
wait_caught_up($p, $i, $l);
my $need = slot_lsn($i, 'u');
slot_of_u('u is away');
wait_for($i, q{SELECT pinned_by || ' ' || frontier_lsn FROM cascade_status}, 'i is pinned by u', "u $need");
wait_for($p, q{SELECT pinned_by FROM cascade_holds WHERE name = 'i'}, 'and what p holds for i', 'u');
remove_wal(2, $p, $i, $l);
ok(has_segment($_, $need), $_->name . ' has what u needs') for ($p, $i);
$u->start;
add_rows($p, 1);
same_rows($p, $u);
$u->stop;
is(ask($t, report($m_below, current_lsn(), tree => []))->{answer}, 'ok', 'mm has no slot any more');
value($i, q{SELECT pg_drop_replication_slot('u')});
others_are_well("somebody else's slot");

# ---- a need that changes all the time ----

my $sent = value($i, 'SELECT reports_sent FROM cascade_status');
my $now = current_lsn();
my $low = unpack('H*', report($m_below, '0/100000'));
my $high = unpack('H*', report($m_below, $now));
$t->query_until(qr/off/, "\\echo off\nDO \$\$ BEGIN FOR n IN 1 .. 100000000 LOOP PERFORM public.cascade_report('\\x$low'::bytea), public.cascade_report('\\x$high'::bytea); END LOOP; END \$\$;\n");
wait_for($i, "SELECT reports_sent > $sent + 10 FROM cascade_status", 'i is heard all the same');
others_are_well('a need that changes all the time');
write_segments($p, 1);
wait_caught_up($p, $i, $l);
$p->safe_psql('postgres', 'SELECT 1');
$i->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'mallory'});
eval { $t->quit };
$_->quit for ($s, $sibling);

# ---- standbys that come and go ----

# Each time under another name, without a slot: what is remembered of those that
# left is as many as can be connected.
my $x = new_standby('x', $p, slotless => 1, unmanaged => 1);
for my $n (1 .. 9)
{
	$x->append_conf('postgresql.conf', "primary_conninfo = '" . ($p->connstr =~ s/'/''/gr) . " application_name=ghost_$n'");
	$x->reload;
	$p->poll_query_until('postgres', "SELECT state = 'streaming' FROM cascade_topology WHERE node_name = 'ghost_$n'") or fail("ghost_$n is not seen");
}
is(value($p, q{SELECT count(*) FILTER (WHERE state = 'down'), bool_or(node_name = 'ghost_8') FROM cascade_topology WHERE node_name ~ '^(ghost|x$)'}),
	'6|t', 'of nine that left, the last six are remembered');
$x->stop;
others_are_well('ghosts');

# ---- traps ----

# Whatever is looked up by name would find these first: the role's own search
# path begins with them.
$p->safe_psql('postgres', q{
	CREATE SCHEMA trap AUTHORIZATION mallory;
	GRANT CREATE ON SCHEMA public TO mallory;
	SET SESSION AUTHORIZATION mallory;
	CREATE FUNCTION trap.snap(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'TRAPPED by %', $1; RETURN $1; END $$;
	CREATE FUNCTION trap.cascade_report(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT trap.snap('cascade_report')::bytea $$;
	CREATE FUNCTION public.cascade_report(text) RETURNS text LANGUAGE sql AS $$ SELECT trap.snap('cascade_report text') $$;
	CREATE FUNCTION trap.quote_ident(name) RETURNS text LANGUAGE sql AS $$ SELECT trap.snap('quote_ident') $$;
	CREATE FUNCTION trap.cascade_status() RETURNS text LANGUAGE sql AS $$ SELECT trap.snap('cascade_status') $$;
	CREATE FUNCTION trap.cascade_downstreams() RETURNS text LANGUAGE sql AS $$ SELECT trap.snap('cascade_downstreams') $$;
	CREATE FUNCTION trap.same(oid, oid) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.snap('oid = oid'); RETURN true; END $$;
	CREATE FUNCTION trap.same(name, name) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.snap('name = name'); RETURN true; END $$;
	CREATE FUNCTION trap.same(text, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.snap('text = text'); RETURN true; END $$;
	CREATE OPERATOR trap.= (FUNCTION = trap.same, LEFTARG = oid, RIGHTARG = oid);
	CREATE OPERATOR trap.= (FUNCTION = trap.same, LEFTARG = name, RIGHTARG = name);
	CREATE OPERATOR trap.= (FUNCTION = trap.same, LEFTARG = text, RIGHTARG = text);
	CREATE VIEW trap.pg_extension AS SELECT trap.snap('pg_extension') AS extname;
	CREATE VIEW trap.pg_replication_slots AS SELECT trap.snap('pg_replication_slots') AS slot_name;
	CREATE DOMAIN trap.bytea AS text;
	RESET SESSION AUTHORIZATION;
	GRANT USAGE ON SCHEMA trap TO PUBLIC;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA trap TO PUBLIC;
	ALTER DATABASE postgres SET search_path = trap, pg_catalog, public;
});
$log = -s $p->logfile;
is(value($p, q{SHOW search_path}), 'trap, pg_catalog, public', 'the traps come first');
wait_caught_up($p, $i, $l);
for my $node ($i, $l)
{
	$node->restart;
}
wait_connected($i, $l);
wait_protected($i, $l);
is(value($p, q{SELECT count(*) > 0 FROM public.cascade_holds}), 't', 'the views mean what they meant');
for my $relation (qw(public.cascade_topology public.cascade_check public.cascade_downstreams public.cascade_tree()))
{
	$p->safe_psql('postgres', "SELECT * FROM $relation");
}
$p->safe_psql('postgres', 'DROP EXTENSION cascade_relay; CREATE SCHEMA elsewhere; CREATE EXTENSION cascade_relay SCHEMA elsewhere');
wait_for($i, q{SELECT upstream_state = 'connected' AND protected FROM elsewhere.cascade_status}, 'with the extension made anew among the traps, i reports');
is(value($p, q{SELECT count(*) > 0 FROM elsewhere.cascade_holds}), 't', 'and its views mean what they should');
ok(slurp_file($p->logfile, $log) !~ /LOG:  TRAPPED/, 'nobody has stepped into a trap');
like(value($p, q{SELECT trap.snap('test')}), qr/test/, 'they work');
ok($p->wait_for_log(qr/LOG:  TRAPPED by test/, $log), 'and would have been heard');
$p->safe_psql('postgres', 'ALTER DATABASE postgres RESET search_path; DROP EXTENSION cascade_relay; DROP SCHEMA trap CASCADE; DROP FUNCTION public.cascade_report(text); CREATE EXTENSION cascade_relay SCHEMA public');
wait_caught_up($p, $i, $l);
wait_connected($i, $l);

# ---- what should never be pasted ----

# Everything that a node may say of itself and of those below it.
my $touched = $p->data_dir . '/touched';
my @nasty = (
	q{'; DROP TABLE canary; --},
	q{'); DROP TABLE canary; SELECT ('},
	q{$$; DROP TABLE canary; $$},
	qq{host=a' \\! touch $touched},
	qq{host=a`touch $touched`},
	q{%s%n%n%n%s%1$n %L %I},
	q{host=a options='-c search_path=trap' \\gexec},
	q{\\';DROP TABLE canary;--},
	q{:'HOST' :DBNAME :"USER" ${HOME}});
$s = session($p);
$m->{start_id} = 99;
$reply = ask($s, hello($m));
is("$reply->{answer}, $reply->{refusal}", 'ok, none', 'm again');
for my $k (0 .. $#nasty)
{
	my $text = $nasty[$k];
	my $reply = ask($s, report($m, current_lsn(), feed => 1,
			slot_name => substr($text, 0, 63), application_name => substr($text, 0, 63),
			location => substr($text, 0, 63), conninfo => $text, pinned_by => substr($text, 0, 79), xmin_pinned_by => substr($text, 0, 79),
			tree => [
				encode_row(name => substr($text, 0, 79), upstream_name => 'm', upstream_incarnation => 0xa, conninfo => $text, location => substr($text, 0, 63), pinned_by => substr($text, 0, 79)) ]));

	is($reply->{answer}, 'ok', "what should not be pasted: $text");
	is(value($p, q{SELECT conninfo FROM cascade_topology WHERE node_name = 'm'}), $text, 'it is shown as it is');
	my $quoted = substr($text, 0, 79) =~ s/'/''/gr;
	is(value($p, "SELECT count(*) FROM cascade_topology WHERE node_name = '$quoted'"), '1', 'as a name, too');
	is(value($p, q{SELECT count(*) > 3 FROM cascade_tree() t}), 't', 'the tree is drawn');
	$p->safe_psql('postgres', 'SELECT * FROM cascade_check; SELECT * FROM cascade_downstreams; SELECT * FROM cascade_upstream_candidates()');

	# the commands, as they would be pasted into psql, and into a shell
	my $commands = value($p, q{SELECT string_agg(command, E'\n') FROM cascade_upstream_candidates() WHERE upstream_name = 'm' OR node_name !~ '^[a-z]$'});
	$p->psql('postgres', $commands, on_error_stop => 0);
	$p->safe_psql('postgres', 'ALTER SYSTEM RESET ALL; SELECT pg_reload_conf()');
	my $clone = value($p, q{SELECT command FROM cascade_upstream_candidates('brand_new') WHERE upstream_name = 'm'});
	my $ran = '';
	IPC::Run::run([ 'sh', '-c', "PGDATA=/nowhere; pg_basebackup() { printf '%s\\n' \"\$@\"; }; $clone" ], '>', \$ran, '2>&1') if $clone ne '';
	like($ran, qr/^-d\nhost=[^\n]*\n-X$/m, 'in a shell the address is one word') if $clone ne '';
	is(value($p, 'SELECT state FROM canary'), 'alive', 'the canary lives');
	ok(!-e $touched, 'and nothing was run');
}
cmp_ok(value($p, q{SELECT count(*) FROM cascade_upstream_candidates() WHERE upstream_name = 'm' AND command IS NOT NULL}), '>', 0, 'there were commands');
# what is not printable ASCII does not come this far
for my $bad ("a\nb", "a\0b", "\e[2J", "caf\xe9", "a\x7fb", "a\rb", "a\tb")
{
	for my $field (qw(application_name location conninfo slot_name pinned_by))
	{
		my $error = ask($s, report($m, current_lsn(), $field => $bad, tree => []))->{error};
		next if ($error // '') =~ /08P01: invalid cascade_relay message\nDETAIL:  A name is not printable ASCII/;
		fail("$field is taken with " . unpack('H*', $bad));
	}
}
$s->quit;
others_are_well('what should never be pasted');

for my $node ($p, $i, $l)
{
	ok(slurp_file($node->logfile) !~ /PANIC|TRAP:|terminated by signal/, $node->name . ' has lived through all this');
}
add_rows($p, 3);
same_rows($p, $i, $l);

done_testing();
