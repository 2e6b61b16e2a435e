# doc/runbook.md, typed as it stands.
#
#	p (east) ── i (west) ─┬─ l1 (west)
#	                      └─ l2 (west)
#
# The page is read and run from top to bottom, line
# by line, on the node whose prompt stands before it; what a comment says that a
# query shows is waited for.  What the prose says happens beside it - a leaf that
# stays away, an intermediate that dies under load, a node that is started - this
# test does in between.  l2 moves to p and back, l3 is cloned from i, l2 fills the
# disks and is given up, i dies and its leaves go on from p, l3 is removed, and at
# last the extension.  A line that the page has and this test has not expected
# fails it, and so does a part of it that is gone.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $example_address = 'host=10.0.1.1 port=5432';
my %nodes;
my %address;

# ---- the page ----

# The steps of the page: each a heading, a node, how its prompt ends, what is
# typed, and what it says in the end, if that is said.
sub read_runbook
{
	my $page = slurp_file(dirname(__FILE__) . '/../doc/runbook.md');
	my ($heading, @steps) = ('');

	for my $line (split /\n/, $page)
	{
		$heading = $1 if $line =~ /^## (.*)/;
		next unless $line =~ /^    (\w+)(=#|\$) (.*)$/;
		my ($node, $prompt, $command, $expected) = ($1, $2, $3);
		$expected = $1 if $prompt eq '=#' && $command =~ s/;  -- (\w+)$/;/;
		push @steps,
		  { heading => $heading, node => $node, prompt => $prompt, command => $command, expected => $expected };
	}
	return @steps;
}

# ---- typing ----

sub type_sql
{
	my ($step) = @_;
	my $node = $nodes{$step->{node}} or die "there is no node $step->{node}";
	my $what = "$step->{node}=# $step->{command}";

	return wait_for($node, $step->{command}, "$what says $step->{expected}", $step->{expected})
	  if defined $step->{expected};
	my ($stdout, $stderr);
	my $status = $node->psql('postgres', $step->{command}, stdout => \$stdout, stderr => \$stderr);
	is($status, 0, $what) or diag($stderr);
	return $step->{said} = $stdout;
}

sub type_shell
{
	my ($step) = @_;
	my $node = $nodes{$step->{node}};
	my $user = value($nodes{p}, 'SELECT current_user');
	my $command = $step->{command} =~ s/\Q$example_address\E/$address{i}/r;

	local $ENV{PGDATA} = $node->data_dir;
	local $ENV{PGUSER} = $user;
	return command_ok([ 'sh', '-c', $command ], "$step->{node}\$ $step->{command}");
}

# ---- what happens beside it ----

sub removes_wal_of_l2
{
	my $lsn = $nodes{need_of_l2};

	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last unless has_segment($nodes{p}, $lsn) || has_segment($nodes{i}, $lsn);
		remove_wal(1, @nodes{qw(p i l1 l3)});
	}
	ok(!has_segment($nodes{p}, $lsn) && !has_segment($nodes{i}, $lsn), 'nobody keeps what l2 needs any more');
	return;
}

sub without_preload
{
	for my $name (qw(l1 p))
	{
		my $node = $nodes{$name};
		$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
		$node->restart;
	}
	return;
}

my %before = (
	'A disk is filling' => sub {
		$nodes{need_of_l2} = value($nodes{l2}, 'SELECT pg_last_wal_replay_lsn()');
		$nodes{l2}->stop;
		write_segments($nodes{p}, 8);
		remove_wal(2, @nodes{qw(p i l1 l3)});
		wait_for($nodes{p}, 'SELECT pinned_by FROM cascade_status', 'l2 pins the WAL of p', 'l2');
		ok(has_segment($_, $nodes{need_of_l2}), $_->name . ' keeps it for l2') for @nodes{qw(p i)};
	},
	'The intermediate is dead' => sub {
		$nodes{l1}->stop;
		add_rows($nodes{p}, 4);
		remove_wal(2, @nodes{qw(p i l3)});
		# a leaf that is down when i dies would have to be told where p is
		$nodes{l1}->start;
		wait_for($nodes{l1}, 'SELECT upstream_state FROM cascade_status', 'l1 is back', 'connected');
		wait_for($nodes{l1}, q{SELECT count(*) FROM cascade_topology WHERE node_name = 'p'}, 'and knows the tree', '1');
		kill_node($nodes{i});
		add_rows($nodes{p}, 2);
	},
	'Remove a node' => sub { $nodes{l3}->stop },);

# After a step that begins so.
my @after = (
	[ qr/^SELECT command FROM cascade_upstream_candidates/ => sub {
			my ($step, $next) = @_;
			is($step->{said} =~ s/\Q$address{i}\E/$example_address/r, $next->{command}, 'it names the next line');
		} ],
	[ qr/^echo "cascade_relay.node_name/ => sub {
			my $l3 = $nodes{l3};
			$l3->append_conf('postgresql.conf', 'port = ' . $l3->port);
			$l3->append_conf('postgresql.conf', "cascade_relay.advertised_conninfo = '$address{l3}'");
			$l3->start;
		} ],
	[ qr/^CHECKPOINT/ => sub { removes_wal_of_l2() if $_[0]{node} eq 'i' } ],
	[ qr/^SELECT count.*AND protected/ => sub { same_rows(@nodes{qw(p l1 l3)}) } ],
	[ qr/'version_mixed'/ => \&without_preload ],);

sub happens_after
{
	my ($step, $next) = @_;

	for my $rule (@after)
	{
		$rule->[1]->($step, $next) if $step->{command} =~ $rule->[0];
	}
	return;
}

# ---- the cascade ----

sub conf_of
{
	my ($location) = @_;

	return "cascade_relay.location = '$location'\ncascade_relay.stale_timeout = 5s\n";
}

sub advertise
{
	for my $name (@_)
	{
		my $node = $nodes{$name};
		$node->append_conf('postgresql.conf', "cascade_relay.advertised_conninfo = '$address{$name}'");
		$node->reload;
	}
	return;
}

$nodes{p} = new_primary('p', conf => conf_of('east'));
$nodes{i} = new_standby('i', $nodes{p}, conf => conf_of('west'));
$nodes{$_} = new_standby($_, $nodes{i}, conf => conf_of('west')) for qw(l1 l2);
$nodes{l3} = PostgreSQL::Test::Cluster->new('l3');
mkdir $nodes{l3}->basedir;
$address{$_} = 'host=' . $nodes{$_}->host . ' port=' . $nodes{$_}->port for keys %nodes;
advertise(qw(p i l1 l2));
add_rows($nodes{p}, 2);
wait_protected(@nodes{qw(i l1 l2)});
for my $name (qw(p l1 l2))
{
	wait_for($nodes{$name}, q{SELECT count(*) FROM cascade_topology WHERE conninfo <> ''}, "$name knows where all are", '4');
}

# ---- from top to bottom ----

my @steps = read_runbook();
my $heading = '';
my %seen;

for my $n (0 .. $#steps)
{
	my $step = $steps[$n];

	if ($step->{heading} ne $heading)
	{
		$heading = $step->{heading};
		$seen{$heading} = 1;
		note("### $heading");
		$before{$heading}->() if $before{$heading};
	}
	$step->{prompt} eq '$' ? type_shell($step) : type_sql($step);
	happens_after($step, $steps[ $n + 1 ]);
}

cmp_ok(scalar(@steps), '>=', 35, 'the runbook has lines');
ok($seen{$_}, "the runbook says what to do: $_") for keys %before;
is(value($nodes{p}, q{SELECT count(*) FROM pg_extension WHERE extname = 'cascade_relay'}), '0', 'and it is gone');
add_rows($nodes{p}, 1);
same_rows(@nodes{qw(p l1)});
is(value($nodes{p}, q{SELECT count(*) FROM pg_replication_slots WHERE NOT active}), '0', 'nothing pins for ever');

$nodes{$_}->stop for qw(l1 p);
done_testing();
