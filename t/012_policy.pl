# Where a node should stream from: classes, plans, candidates and commands.
#
#	p ─┬─ s                 synchronous
#	   └─ i ─┬─ l1          all of i's branch is in another location
#	         └─ l2
#
# Every node knows the classes of all five, and gives the same answer to the
# same question.  l1 is asked for by the primary's synchronous_standby_names
# although it cascades: every node shows that, and l1 says so once in its log.
# Then i dies while l1 is away and behind, with its WAL removed from wherever
# nobody was to keep it: the commands that p prints, run as they are, bring
# both leaves up to p with every row.  A new node is cloned by the line that is
# printed for it, and a node without the extension that has an abominable name
# harms nobody.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

sub new_node
{
	my ($name, $upstream, $location) = @_;
	my $conf = "cascade_relay.location = '$location'\n";

	return $upstream ? new_standby($name, $upstream, conf => $conf) : new_primary($name, conf => $conf);
}

my $p = new_node('p', undef, 'east');
add_rows($p, 2);
my $s = new_node('s', $p, 'east');
my $i = new_node('i', $p, 'west');
my $l1 = new_node('l1', $i, 'west');
my $l2 = new_node('l2', $i, 'west');
my @nodes = ($p, $s, $i, $l1, $l2);

for my $node (@nodes)
{
	my $address = 'host=' . $node->host . ' port=' . $node->port;

	$node->append_conf('postgresql.conf', "cascade_relay.advertised_conninfo = '$address'");
	$node->reload;
}

# A setting of a running node, and what everybody says then.
sub set_and_reload
{
	my ($node, $name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	return;
}

# What everybody knows of all five, in the order of the tree.
sub wait_everywhere
{
	my ($columns, $expected, $what) = @_;

	for my $node (@nodes)
	{
		my $sql = "SELECT string_agg(concat_ws(' ', $columns), ', ' ORDER BY path) FROM cascade_topology";

		wait_for($node, $sql, "$what, as " . $node->name . ' sees it', $expected);
	}
	return;
}

# ---- classes ----

wait_connected($s, $i, $l1, $l2);
wait_everywhere('node_name, replica_class', 'p, i read_replica, l1 read_replica, l2 read_replica, s read_replica',
	'nobody is synchronous');
set_and_reload($p, 'synchronous_standby_names', 'FIRST 1 (s)');
wait_everywhere('node_name, replica_class', 'p, i read_replica, l1 read_replica, l2 read_replica, s voting',
	's is voting');
set_and_reload($p, 'synchronous_standby_names', '*');
wait_everywhere('node_name, replica_class', 'p, i voting, l1 read_replica, l2 read_replica, s voting',
	'whoever streams from p is voting; nobody is called by the name of *');
set_and_reload($p, 'synchronous_standby_names', 'ANY 1 (s)');
wait_everywhere('node_name, replica_class, refusal', 'p, i read_replica, l1 read_replica, l2 read_replica, s voting',
	's is voting, and nobody is where it should not be');

like(value($p, 'SELECT * FROM cascade_tree()'), qr/^p\* .*\n\|- i .*\n\|  \|- l1 .*\n\|  `- l2 .*\n`- s .*$/, 'the tree as it is drawn');
like(value($l2, 'SELECT * FROM cascade_tree()'), qr/^p .*\n\|- i .*\n\|  \|- l1 .*\n\|  `- l2\* .*\n`- s .*$/, 'and from its other end');

# ---- the plan ----

my %plans = (
	# nothing, the primary by name
	q{'l1'} => 'p|f|',
	q{'l1', 'read_replica'} => 'p|f|',
	q{'l1', 'read_replica', 'p'} => 'p|f|',
	q{'l1', NULL, ''} => 'p|f|',
	# an intermediate
	q{'l1', 'read_replica', 'i'} => 'i|t|',
	q{'l1', 'voting', 'i'} => 'p|f|voting-member-direct-only',
	# in the class that it is known to have, unknown for a new one
	q{'l1', NULL, 'i'} => 'i|t|',
	q{'s', requested => 'i'} => 'p|f|voting-member-direct-only',
	q{'nobody yet', requested => 'i'} => 'i|t|',
	q{'nobody yet', 'read_replica', 'l2'} => 'l2|t|',
	# itself, and below
	q{'i', 'read_replica', 'i'} => 'p|f|self-reference',
	q{'i', 'read_replica', 'l2'} => 'p|f|would-create-cycle',
	q{'p', 'read_replica', 'l2'} => '|f|would-create-cycle',
	q{'p'} => '|f|',
	# not there
	q{'l1', 'read_replica', 'x'} => 'p|f|unknown-upstream',
	q{'l1', 'read_replica', 'x', ''} => 'p|f|unknown-upstream',
	q{'l1', 'read_replica', 'x', 'host=x'} => 'x|t|',
	q{'l1', 'voting', 'x', 'host=x'} => 'p|f|voting-member-direct-only',
	# junk
	q{NULL, 'read_replica', 'i'} => 'i|t|',
	q{'', 'read_replica', E'\\n''; DROP TABLE kept'} => 'p|f|unknown-upstream',
	q{repeat('l', 100000), 'read_replica', repeat('i', 100000)} => 'p|f|unknown-upstream');
for my $node (@nodes)
{
	my %got = map { $_ => value($node, "SELECT upstream_name, is_cascade, refusal FROM cascade_plan_upstream($_)") } keys %plans;

	is_deeply(\%got, \%plans, 'every plan on ' . $node->name);
}
my $address_of_p = 'host=' . $p->host . ' port=' . $p->port;
for my $node (@nodes)
{
	wait_for($node, q{SELECT conninfo FROM cascade_plan_upstream('l1')},
		"the primary's address on " . $node->name, $address_of_p);
}
is(value($l1, q{SELECT conninfo FROM cascade_plan_upstream('l1', 'read_replica', 'x', 'host=x port=7')}),
	'host=x port=7', 'the address of somebody unknown is the one that was given');
is(value($l1, q{SELECT conninfo FROM cascade_plan_upstream('l1', 'voting', 'x', 'host=x port=7')}),
	$address_of_p, '... unless it is refused');

sub error_of
{
	my ($node, $sql) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	return $err =~ /ERROR:  (\w{5}: .*)/ ? $1 : "no error: $out";
}

is(error_of($p, q{SELECT * FROM cascade_plan_upstream('l1', 'janitor')}),
	'22023: unrecognized replica class: "janitor"', 'a class that is none');
is(error_of($p, q{SELECT * FROM cascade_upstream_candidates(without => 'x')}),
	'42704: node "x" does not exist in the tree', 'without somebody who is not there');
is(error_of($p, q{SELECT * FROM cascade_upstream_candidates('It''s me')}),
	q{22023: "It's me" is not a node of the tree, and no name for a new one}, 'no name for a node');

# the policy as a table, of the tree that there is
is( value($l2, q{SELECT count(*), count(*) FILTER (WHERE replica_class = 'voting' AND is_cascade), count(refusal) FROM cascade_policy()}),
	value($p, q{SELECT count(*), 0, count(refusal) FROM cascade_policy('p; s < p; i < p; l1 < i; l2 < i')}),
	'the whole policy, on a leaf, is that of the tree as it was meant');

# ---- candidates ----

my $ranks = q{SELECT string_agg(coalesce(rank::text, verdict || ' ' || reason) || ' ' || upstream_name, ', ' ORDER BY rank, upstream_name) FROM cascade_upstream_candidates};
for my $node (@nodes)
{
	wait_for($node, "$ranks('l1')", 'l1 stays where it is; then its own location, as seen by ' . $node->name,
		'1 i, 2 l2, 3 p, 4 s');
	is(value($node, "$ranks('s')"), '1 p, refused voting-member-direct-only i, '
		  . 'refused voting-member-direct-only l1, refused voting-member-direct-only l2',
		's stays with the primary');
	is(value($node, "$ranks('i', 'p')"), 'refused would-create-cycle l1, refused would-create-cycle l2, '
		  . 'refused upstream-not-available s', 'without a primary there is nowhere to go for i');
	is(value($node, "$ranks('new')"), '1 p, 2 i, 3 s, 4 l1, 5 l2', 'a new node');
	is(value($node, "$ranks('new', location => 'west')"), '1 i, 2 l1, 3 l2, 4 p, 5 s', 'a new node in the west');
	is(value($node, "$ranks('p')"), '', 'the primary has no upstream');
	is(value($node, 'SELECT string_agg(DISTINCT node_name, \' \' ORDER BY node_name) FROM cascade_upstream_candidates()'),
		'i l1 l2 s', 'everybody else has');
}
is(value($p, q{SELECT upstream_name, hops, same_location, missing_wal_bytes FROM cascade_upstream_candidates('l1') ORDER BY rank}),
	"i|2|t|0\nl2|3|t|0\np|1|f|0\ns|2|f|0", 'what is said of each');

# ---- a node that is where it should not be ----

my $log_of_l1 = -s $l1->logfile;
my $warning = qr/WARNING:  cascade_relay: node "l1" should not stream from upstream "i": voting-member-direct-only/;

set_and_reload($p, 'synchronous_standby_names', 'ANY 1 (s, "L1")');
wait_everywhere('node_name, replica_class, refusal',
	'p, i read_replica, l1 voting voting-member-direct-only, l2 read_replica, s voting',
	'l1 is asked for by name, and cascades');
$l1->wait_for_log($warning, $log_of_l1);
my $reports = value($l1, 'SELECT reports_sent FROM cascade_status');
wait_for($l1, "SELECT reports_sent > $reports + 8 FROM cascade_status", 'l1 goes on reporting');
my $logged = () = slurp_file($l1->logfile, $log_of_l1) =~ /$warning/g;
is($logged, 1, '... and has said it once');
is(value($p, "$ranks('l1')"),
	'1 p, refused voting-member-direct-only i, refused voting-member-direct-only l2, refused voting-member-direct-only s',
	'the candidates of l1 are those of a voting node');

# what is set counts more than what is seen
set_and_reload($l1, 'cascade_relay.replica_class', 'read_replica');
set_and_reload($l2, 'cascade_relay.replica_class', 'voting');
wait_everywhere('node_name, replica_class, refusal',
	'p, i read_replica, l1 read_replica, l2 voting voting-member-direct-only, s voting',
	'l1 is set to read_replica, and l2 to voting');
set_and_reload($l1, 'cascade_relay.replica_class', 'auto');
set_and_reload($l2, 'cascade_relay.replica_class', 'auto');
wait_everywhere('node_name, replica_class, refusal',
	'p, i read_replica, l1 voting voting-member-direct-only, l2 read_replica, s voting',
	'both are as they are seen again');
$log_of_l1 = -s $l1->logfile;
set_and_reload($p, 'synchronous_standby_names', 'ANY 1 (s)');
wait_everywhere('node_name, replica_class, refusal', 'p, i read_replica, l1 read_replica, l2 read_replica, s voting',
	'all is well again');

# the one connection that a node should never make
my $log_of_s = -s $s->logfile;
point_at($s, $s);
$s->reload;
$s->wait_for_log(qr/WARNING:  cascade_relay: node "s" should not stream from upstream "s": self-reference/, $log_of_s);
wait_for($s, q{SELECT state || ' ' || refusal FROM cascade_topology WHERE is_local}, 's shows it too', 'cycle self-reference');
point_at($s, $p);
$s->reload;
wait_for($s, q{SELECT state || ' ' || coalesce(refusal, 'fine') FROM cascade_topology WHERE is_local}, 's is back',
	'streaming fine');
wait_connected($s);
unlike(slurp_file($s->logfile, $log_of_s), qr/would-create-cycle/, '... and on its way was on no cycle');

# the class stays while the node is away
$s->stop;
wait_for($i, q{SELECT state, replica_class, refusal FROM cascade_topology WHERE node_name = 's'},
	'a node that is down was voting', 'down|voting|');
$s->start;
wait_connected($s);

# ---- the runbook ----

# asked beforehand, it is no other
my $runbook = q{SELECT node_name, rank, upstream_name, verdict, reason, hops, missing_wal_bytes, command IS NOT NULL
	FROM cascade_upstream_candidates(without => 'i') WHERE rank = 1 ORDER BY node_name};
is(value($s, $runbook), "l1|1|p|safe||1|0|t\nl2|1|p|safe||1|0|t\ns|1|p|safe||1|0|f", 'the runbook for the loss of i');

# s votes no more, and need not keep for its promotion what the leaves lack
set_and_reload($p, 'synchronous_standby_names', '');
wait_for($s, q{SELECT replica_class FROM cascade_topology WHERE is_local}, 's is a read replica', 'read_replica');
$s->safe_psql('postgres', q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name ~ '^cascade_relay_s_'});
wait_protected($l1, $l2);
$l1->stop;
add_rows($p, 8);
remove_wal(8, $p, $s, $i, $l2);
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'l1'}, 'p knows that l1 is away');
kill_node($i);
wait_for($p, q{SELECT state = 'down' FROM cascade_topology WHERE node_name = 'i'}, 'and that i is gone');
wait_for($p, $runbook, 'the runbook now', "l1|1|p|safe||1|0|t\nl2|1|p|safe||1|0|t\ns|1|p|safe||1|0|f");
is(value($s, q{SELECT verdict, reason, missing_wal_bytes > 0, command IS NULL FROM cascade_upstream_candidates('l1', 'i') WHERE upstream_name = 's'}),
	'refused|wal-unavailable|t|t', 's does not have the WAL, and offers no command')
  or diag(value($s, q{SELECT * FROM cascade_upstream_candidates('l1', 'i')}));

# The two parts of a command: what to run on whom.
sub command_of
{
	my ($node, $question, $to) = @_;
	my $command = value($node, "SELECT command FROM cascade_upstream_candidates($question) WHERE upstream_name = '$to'");
	my ($from, $there, $here) = $command =~ /\A-- on \Q$to\E:\n([^\n]*\n)-- on ([^\n]*):\n(.*)\z/s
	  or die "not a command: $command";

	return ($from, $here);
}

$l1->start;
for my $leaf ($l1, $l2)
{
	my $name = $leaf->name;
	my $command = value($p, "SELECT command FROM cascade_upstream_candidates('$name', 'i') WHERE upstream_name = 'p'");

	like(value($leaf, $command), qr/^streaming from "p"/, "$name runs $command");
}
same_rows($p, $l1, $l2);
for my $leaf ($l1, $l2)
{
	my $name = $leaf->name;

	is(value($p, "SELECT slot_name FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE application_name = '$name'"),
		"cascade_adopted_$name", "$name streams through a slot of its own and has kept its application_name");
	wait_for($p, "SELECT upstream_name FROM cascade_topology WHERE node_name = '$name'", "$name is below p", 'p');
	is(value($p, "SELECT rank, upstream_name, command IS NULL FROM cascade_upstream_candidates('$name') WHERE rank = 1"),
		'1|p|t', '... where it should be');
}

# ---- a node that is not there yet ----

my $line = value($p, q{SELECT command FROM cascade_upstream_candidates('n1') WHERE rank = 1});
my $n1 = PostgreSQL::Test::Cluster->new('n1');
my $backup = $p->backup_dir . '/n1';
{
	local $ENV{PGDATA} = $backup;
	is(system($line), 0, 'the line for a new node runs') or diag($line);
}
$n1->init_from_backup($p, 'n1');
$n1->append_conf('postgresql.conf', "cascade_relay.node_name = 'n1'");
$n1->start;
wait_connected($n1);
same_rows($p, $n1);
wait_for($p, q{SELECT upstream_name || ' ' || state FROM cascade_topology WHERE node_name = 'n1'},
	'the new node streams', 'p streaming');

# ---- a name as an application may choose it ----

my $odd = q{o'd"d $(id)\x; --:x};
my $o = PostgreSQL::Test::Cluster->new('o');
$p->backup('odd');
$o->init_from_backup($p, 'odd', has_streaming => 1);
my $quoted = $odd =~ s/(['\\])/\\$1/gr;
my $conninfo = "$address_of_p application_name='$quoted'" =~ s/(['\\])/$1$1/gr;
$o->append_conf('postgresql.conf', "shared_preload_libraries = ''\nprimary_conninfo = '$conninfo'\nprimary_slot_name = ''");
$o->start;
wait_for($p, "SELECT state FROM cascade_topology WHERE node_name = \$q\$$odd\$q\$", 'a node with an abominable name',
	'streaming');
my ($there, $here) = command_of($p, "\$q\$$odd\$q\$", 's');
$s->safe_psql('postgres', $there);
like(value($s, q{SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'o%'}),
	qr/^[a-z0-9_]+_[0-9a-f]{8}$/, 'it gets a slot with a name that is one');
$o->safe_psql('postgres', $here);
wait_for($s, 'SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid', 'and streams through it', '1');
same_rows($p, $o);

done_testing();
