# That a node lives elsewhere is not to be believed of whoever says so.
#
#	p ─┬─ i ─┬─ n         goes away, and lags
#	   │     ├─ l1, l2    go away with i, later
#	   │     └─ (c …)     mallory's, only messages: control
#	   └─ (h)             mallory's, too
#
# n is away, and h says that n streams from it and is protected there: showing
# nothing for it, what n has shown before, and what it makes up.  All nodes draw
# it, but i goes on holding what n needs, and so does p, for longer than c is
# held, who has never shown anything, and of whom h says the same.  It goes on so
# when i and p are restarted.  Then n comes back, below p, and finds all its WAL;
# and because n says so itself, i lets go of it.
#
# l1 and l2 are away, and h says that they are with it; then i dies.  Nobody is
# told to forget i, until they have really moved.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $quick = "cascade_relay.stale_timeout = 2s\n";
my $p = new_primary('p', conf => $quick);
my $i = new_standby('i', $p, conf => $quick);
my $n = new_standby('n', $i, conf => $quick);
my $l1 = new_standby('l1', $i, conf => $quick);
my $l2 = new_standby('l2', $i, conf => $quick);
my %h = (node_name => 'h', incarnation => 0xbad, start_id => 666);

wait_connected($i, $n, $l1, $l2);
checkpoint_all($p, $i, $n, $l1, $l2);
wait_protected($i, $n, $l1, $l2);
$p->safe_psql('postgres', 'CREATE ROLE mallory REPLICATION LOGIN');
add_rows($p, 2);
wait_caught_up($p, $i, $n, $l1, $l2);
my $system = value($p, 'SELECT system_identifier FROM pg_control_system()');
my %incarnation = map { $_->name => hex incarnation($_) } ($i, $n, $l1, $l2);

# ---- mallory ----

sub session
{
	my ($node) = @_;

	return $node->background_psql('postgres', extra_params => [ '-U', 'mallory' ]);
}

# What the nodes below a node have shown there last, by their incarnations.
sub shown_at
{
	my ($node) = @_;
	my %shown;

	for my $line (split /\n/, slurp_file($node->data_dir . '/pg_replslot/cascade_relay.shown'))
	{
		my ($incarnation, $number, $value) = split / /, $line;
		$shown{ hex $incarnation } = [ $number, pack('H*', $value) ];
	}
	return \%shown;
}

# All that can be said of a node without knowing what it alone knows.
sub claims
{
	my ($name, $incarnation, $shown) = @_;
	my ($number, $value) = $shown ? @$shown : (7, 'x' x 16);

	return map {
		encode_row(name => $name, incarnation => $incarnation, managed => 1, state => 2, protected => 2,
			replay_lsn => 'ff/0', upstream_name => 'h', upstream_incarnation => $h{incarnation}, proof => $_)
	} (undef, [ $number, $value ], [ $number + 1, $value ], [ $number + 1, 'garbage garbage!' ],
		[ $number + 5000, $value ], [ 1, 'first of all ...' ], [ 0xffffffff, "\0" x 16 ]);
}

# h begins to say that, again and again.
sub say
{
	my (@rows) = @_;
	my $session = session($p);
	my $message = unpack('H*', encode_report(of => $h{incarnation}, report_interval_ms => 60000, pinned_by => 'h', tree => \@rows));

	is(decode_reply($session->query_safe('SELECT public.' . report_sql(encode_hello(%h, system_identifier => $system, report_interval_ms => 60000))))->{answer},
		'ok', 'h says hello');
	$session->query_until(qr/begins/, "\\echo begins\nDO \$\$ BEGIN FOR n IN 1 .. 100000 LOOP PERFORM public.cascade_report('\\x$message'), pg_sleep(0.1); END LOOP; END \$\$;\n");
	return $session;
}

sub be_silent
{
	my ($session) = @_;

	value($p, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'mallory'});
	eval { $session->quit };
	wait_for($p, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'mallory'}, 'h is silent');
	return;
}

# A node that shows nothing gets a hold on i, and is away.
sub control
{
	my ($name, $incarnation) = @_;
	my $session = session($i);
	my $lsn = value($i, 'SELECT pg_last_wal_replay_lsn()');
	my $reply;

	$session->query_safe('SELECT public.' . report_sql(encode_hello(node_name => $name, incarnation => $incarnation, system_identifier => $system)));
	$reply = decode_reply($session->query_safe('SELECT public.' . report_sql(encode_report(of => $incarnation, pinned_by => $name, tree => [],
					map { ($_ => $lsn) } qw(flush_lsn replay_lsn frontier_lsn hold_target_lsn)))));
	isnt($reply->{held_lsn}, '0/0', "$name is held");
	$session->quit;
	return;
}

# i and p hold what n needs, and count it, when c is not held any more.
sub n_is_held
{
	my ($need, $control, $what) = @_;

	wait_for($i, q{SELECT upstream_name FROM cascade_topology WHERE node_name = 'n'}, "$what: i draws n below h", 'h');
	wait_for($i, "SELECT count(*) = 0 FROM cascade_holds WHERE name = '$control'", "$what: $control is not held any more");
	is(value($i, q{SELECT counted, reason FROM cascade_downstreams WHERE kind = 'hold' AND name = 'n'}) =~ /^t\|managed, by its (?:last report|hold until it calls)$/ ? 'counted' : 'let go',
		'counted', "$what: n counts");
	is(value($i, q{SELECT pinned_by FROM cascade_status}), 'n', "$what: and pins i");
	for my $node ($p, $i)
	{
		my $hold = hold_lsn($node, $node == $p ? 'i' : 'n');
		ok($hold ne '' && lsn_le($p, $hold, $need), "$what: " . $node->name . " holds what n needs");
		remove_wal(2, $p, $i);
		ok(has_segment($node, $need), "$what: and has it");
	}
	return;
}

# ---- n is away ----

my $shown = shown_at($i);
is(join(' ', sort keys %$shown), join(' ', sort map { $incarnation{$_} } qw(n l1 l2)), 'i knows what its nodes have shown');
control('c1', 0xc1);
control('c2', 0xc2);
$n->stop;
wait_for($i, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'n'}, 'n is away');
my $need = value($i, q{SELECT replay_lsn FROM cascade_topology WHERE node_name = 'n'});
add_rows($p, 5);
remove_wal(3, $p, $i);
wait_for($p, "SELECT pinned_by = 'n' AND frontier_lsn = '$need' FROM cascade_status", 'n pins the root');

my $h = say(claims('n', $incarnation{n}, $shown->{ $incarnation{n} }), claims('c1', 0xc1));
n_is_held($need, 'c1', 'what h says');
wait_for($i, q{SELECT message || ' ' || hint FROM cascade_check WHERE code = 'orphan_slot' AND node_name = 'n' AND message ~ '^replication slot "cascade_relay_n'} =~ s/message \|\| ' ' \|\| hint/message ~ 'is said to live below "h", which it has not proven\$' AND hint ~ 'cascade_forget[(]''cascade_relay_n_[0-9a-f]{8}'', true[)]'/r,
	'cascade_check on i says what it is about');
my ($ret, undef, $stderr) = $i->psql('postgres', q{SELECT cascade_forget('n')});
like($stderr, qr/"n" cannot be forgotten.*\nDETAIL:  Not protected elsewhere: n \(said to be protected below "h", which it has not proven\)/, 'n is not forgotten without force');

# ---- and after restarts ----

be_silent($h);
$i->restart;
$p->restart;
$i->restart;
wait_connected($i, $l1, $l2);
is_deeply(shown_at($i)->{ $incarnation{n} }, $shown->{ $incarnation{n} }, 'i remembers what n has shown');
$h = say(claims('n', $incarnation{n}, $shown->{ $incarnation{n} }), claims('c2', 0xc2));
n_is_held($need, 'c2', 'after restarts');
wait_for($p, "SELECT pinned_by = 'n' AND frontier_lsn <= '$need' FROM cascade_status", 'n pins the root');

# ---- n comes back, below p ----

my $log = -s $i->logfile;
value($p, q{SELECT cascade_adopt('n')});
$n->append_conf('postgresql.conf', "primary_slot_name = 'cascade_adopted_n'");
point_at($n, $p);
$n->start;
same_rows($p, $n);
wait_protected($n);
wait_for($i, q{SELECT count(*) = 0 FROM cascade_holds WHERE name = 'n'}, 'n has moved, and i lets go of it');
like(slurp_file($i->logfile, $log), qr/dropped replication slot "cascade_relay_n_[0-9a-f]{8}": node "n" is live and protected elsewhere/, 'and says so');
is(tree_of($p, 'node_name', 'upstream_name') =~ /^n\|p$/m ? 'p' : 'elsewhere', 'p', 'p draws it where it is');
be_silent($h);

# ---- i dies, and its leaves are said to be elsewhere ----

$_->stop for ($l1, $l2);
wait_for($i, q{SELECT count(*) = 2 FROM cascade_topology WHERE node_name IN ('l1', 'l2') AND state = 'down'}, 'the leaves are away');
add_rows($p, 3);
wait_for($p, q{SELECT count(*) = 2 FROM cascade_topology WHERE node_name IN ('l1', 'l2') AND state = 'down'}, 'as p knows');
$shown = shown_at($i);
$h = say(map { claims($_, $incarnation{$_}, $shown->{ $incarnation{$_} }) } qw(l1 l2));
wait_for($p, q{SELECT count(*) = 2 FROM cascade_topology WHERE node_name IN ('l1', 'l2') AND upstream_name = 'h' AND state = 'streaming' AND protected},
	'p draws the leaves below h');
# i goes on saying that they have left, with every fifth report at least
my $sent = value($i, 'SELECT reports_sent FROM cascade_status');
wait_for($i, "SELECT reports_sent > $sent + 12 FROM cascade_status", 'i reports, with its tree');
kill_node($i);
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'i'}, 'i is lost');
is(value($p, q{SELECT string_agg(message, ' ') FROM cascade_check WHERE code = 'orphan_slot' AND node_name = 'i'}), '',
	'cascade_check does not say that i may be forgotten');
($ret, undef, $stderr) = $p->psql('postgres', q{SELECT cascade_forget('i')});
like($stderr, qr/"i" cannot be forgotten.*\nDETAIL:  Not protected elsewhere: l[12] \(said to be protected below "h", which it has not proven\), l[12] \(said/,
	'nor may it');
for my $leaf ($l1, $l2)
{
	my $slot = 'cascade_adopted_' . $leaf->name;

	value($p, "SELECT cascade_adopt('" . $leaf->name . "')");
	$leaf->append_conf('postgresql.conf', "primary_slot_name = '$slot'");
	point_at($leaf, $p);
	$leaf->start;
}
same_rows($p, $l1, $l2);
wait_protected($l1, $l2);
wait_for($p, q{SELECT count(*) FROM cascade_check WHERE code = 'orphan_slot' AND node_name = 'i' AND message ~ 'all that streamed from it \((l1, l2|l2, l1)\) is protected elsewhere'},
	'when they have really moved, it does', '1');
like(value($p, q{SELECT cascade_forget('i')}), qr/^\{i\}$/, 'and i is forgotten');
be_silent($h);

# ---- who has moved far remembers how often ----

my ($before) = slurp_file($n->data_dir . '/pg_replslot/cascade_relay.seed') =~ /^[0-9a-f]{8} [0-9a-f]{32} (\d+) /;
$n->restart;
wait_connected($n);
wait_protected($n);
my ($after) = slurp_file($n->data_dir . '/pg_replslot/cascade_relay.seed') =~ /^[0-9a-f]{8} [0-9a-f]{32} (\d+) /;
is($after, $before, 'a restart in the same place is no move');
is((stat($n->data_dir . '/pg_replslot/cascade_relay.seed'))[2] & 0777, 0600, 'what it proves its moves with is for nobody else to read');

done_testing();
