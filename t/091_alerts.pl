# The alerts of monitoring/, live: the exact set of them, each time.
#
#	p ── i ─┬─ l1        and a postgres_exporter beside each, whose query and
#	        └─ l2        relabelling are those of monitoring/, and one Prometheus
#
# Twenty seconds of health under load: no alert.  Then l1 stops.  Then i dies, which
# must not hide that l1 is down, and l2 is an orphan.  Then l2 moves to p, i and l1
# come back, and all is quiet again.  Then a clone of l2 that has kept its name
# comes up beside it.  In the end p is started without the library, and must not
# be taken for a cascade without a primary.
#
# The rules are those of monitoring/, but a minute of their "for" is 200 ms.  Where
# prometheus and prometheus-postgres-exporter are not installed, the test is skipped.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use File::Basename qw(dirname);
use HTTP::Tiny;
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

for my $program (qw(prometheus prometheus-postgres-exporter))
{
	plan skip_all => "$program is not installed" if system("command -v $program >/dev/null 2>&1");
}

my $files = dirname(__FILE__) . '/../monitoring/prometheus';
my $folder = PostgreSQL::Test::Utils::tempdir();
my $http = HTTP::Tiny->new(timeout => 5);
my $health = $ENV{HEALTH_SECONDS} || 20;
my (%jobs, %ports, $prometheus);

END
{
	my $status = $?;
	$_->kill_kill(grace => 2) for values %jobs;
	$? = $status;
}

sub start_job
{
	my ($name, @command) = @_;
	my $log = "$PostgreSQL::Test::Utils::log_path/091_$name.log";

	$jobs{$name} = IPC::Run::start(\@command, '<', '/dev/null', '>', $log, '2>&1');
	return;
}

sub write_file
{
	my ($name, $text) = @_;
	append_to_file("$folder/$name", $text);
	return "$folder/$name";
}

# ---- the cascade, and what watches it ----

my %quick = (
	conf => qq{
cascade_relay.report_interval = 100ms
cascade_relay.stale_timeout = 3s
max_slot_wal_keep_size = 2GB
});
my $p = new_primary('p', %quick);
$p->safe_psql('postgres', 'CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher');
my $i = new_standby('i', $p, %quick);
my $l1 = new_standby('l1', $i, %quick);
my $l2 = new_standby('l2', $i, %quick);
wait_protected($i, $l1, $l2);

sub watch
{
	my ($node) = @_;
	my $name = $node->name;

	$ports{$name} //= PostgreSQL::Test::Cluster::get_free_port();
	local $ENV{DATA_SOURCE_NAME} = $node->connstr('postgres') . ' user=watcher sslmode=disable';
	start_job("exporter_$name", 'prometheus-postgres-exporter', "--web.listen-address=127.0.0.1:$ports{$name}",
		"--extend.query-path=$files/postgres_exporter.yml", '--disable-default-metrics', '--disable-settings-metrics');
	return;
}

sub start_prometheus
{
	my $rules = slurp_file("$files/cascade_relay.rules.yml");
	my $conf = slurp_file("$files/prometheus.yml");
	my $targets = join(', ', map { qq{"127.0.0.1:$ports{$_}"} } sort keys %ports);

	$rules =~ s/^(\s+for: )(\d+)m$/$1 . $2 * 200 . 'ms'/gme;
	$conf =~ s/(scrape|evaluation)_interval: \w+/$1_interval: 500ms/g;
	$conf =~ s/targets: \[.*\]/targets: [$targets]/;
	write_file('cascade_relay.rules.yml', $rules);
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	start_job('prometheus', 'prometheus', '--config.file=' . write_file('prometheus.yml', $conf),
		"--storage.tsdb.path=$folder/tsdb", "--web.listen-address=127.0.0.1:$port", '--log.level=warn');
	return "http://127.0.0.1:$port/api/v1";
}

sub ask_prometheus
{
	my ($path) = @_;
	my $answer = $http->get("$prometheus/$path");

	return unless $answer->{success};
	return decode_json($answer->{content})->{data};
}

sub query
{
	my ($expr) = @_;
	return ask_prometheus('query?query=' . ($expr =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger));
}

# What fires, one alert a line: its name, its severity, and what it is about.
sub firing
{
	my $data = ask_prometheus('alerts') or return 'no answer';
	my @lines = map
	{
		my $labels = $_->{labels};
		join(' ', $labels->{alertname}, $labels->{severity}, grep { defined } @$labels{qw(code member node)})
	} grep { $_->{state} eq 'firing' } @{ $data->{alerts} };
	return join("\n", sort @lines);
}

# Waits until exactly these alerts fire, and for so many seconds go on to.  Whether
# one more comes, that of a warning, takes five.
my $stable = 2;
sub fires
{
	my ($what, @expected) = @_;
	my $expected = join("\n", sort @expected);
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	my ($got, $since) = ('', 0);

	while (time < $end)
	{
		$got = firing();
		$since = $got eq $expected ? $since || time : 0;
		last if $since && time > $since + $stable;
		select undef, undef, undef, 0.25;
	}
	is($got, $expected, $what);
	return;
}

watch($_) for $p, $i, $l1, $l2;
# one that is not there yet
$ports{clone} = PostgreSQL::Test::Cluster::get_free_port();
$prometheus = start_prometheus();
wait_until('Prometheus has heard of all nodes', sub { my $d = query('count(cascade_up == 1)'); $d && @{ $d->{result} } && $d->{result}[0]{value}[1] == 4 });
my $names = query('count by (__name__) ({__name__=~"cascade_.*"})')->{result};
ok(!(grep { $_->{metric}{__name__} eq 'cascade_value' } @$names), 'the relabelling gives each metric its name');
is(scalar(@{ query('cascade_member_up{name!=""}')->{result} }), 0, 'and leaves no label behind');

# every query of the dashboard
my $dashboard = decode_json(slurp_file("$files/../grafana/cascade_relay.json"));
for my $target (grep { defined $_->{expr} } map { @{ $_->{targets} } } @{ $dashboard->{panels} })
{
	my $expr = $target->{expr} =~ s/\$cluster/fra/gr =~ s/\$node/p/gr;
	ok(query($expr), "Prometheus takes $expr");
}

# the other exporter tells as much
SKIP:
{
	skip 'prometheus-sql-exporter is not installed', 1 if system('command -v prometheus-sql-exporter >/dev/null 2>&1');
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $conf = slurp_file("$files/sql_exporter.yml");
	my ($host, $pg_port) = ($p->host, $p->port);
	$conf =~ s{postgres://\S+}{postgres://watcher@/postgres?host=$host&port=$pg_port&sslmode=disable"};
	start_job('sql_exporter', 'prometheus-sql-exporter', '-config.file', write_file('sql_exporter.yml', $conf), '-web.listen-address', "127.0.0.1:$port");
	my $expected = value($p, q{SELECT count(*) FROM cascade_metrics WHERE name <> 'cascade_edge_replay_lag_seconds'});
	my @got;
	wait_until('sql_exporter has asked p', sub {
		@got = grep { !/name="cascade_edge_replay_lag_seconds"/ } grep { /^sql_cascade_value\{/ } split /\n/, $http->get("http://127.0.0.1:$port/metrics")->{content};
		return @got == $expected;
	});
	ok((grep { /\bname="cascade_up"/ && /\bnode="p"/ && / 1$/ } @got) == 1, 'with the labels');
}

# ---- health, under load ----

value($p, 'CREATE TABLE load AS SELECT 1 AS n');
start_job('load', 'psql', '-X', '-d', $p->connstr('postgres'), '-c',
	'DO $$ BEGIN LOOP INSERT INTO load SELECT generate_series(1, 500); COMMIT; PERFORM pg_sleep(0.02); END LOOP; END $$');
my $healthy = time;
sleep $health;
my $fired = query("count by (alertname, code, member, node) (count_over_time(ALERTS{alertstate=\"firing\"}[" . int(time - $healthy) . "s]))")->{result};
is(join(', ', map { join ' ', map { $_ // '' } @{ $_->{metric} }{qw(alertname code member node)} } @$fired), '', "no alert in $health s of health under load");
cmp_ok(value($p, 'SELECT count(*) FROM load'), '>', 500 * $health, 'there was load');

# ---- a leaf stops ----

$l1->stop;
wait_for($p, q{SELECT count(*) = 1 FROM cascade_check WHERE code = 'stale_node' AND node_name = 'l1'}, 'p misses l1');
$stable = 5;
fires('l1 is down, one cause and one alert', 'CascadeNodeDown warning l1');
$stable = 2;

# ---- the intermediate dies: an orphan ----

kill_node($i);
fires('i is down too, and l2 cut off',
	'CascadeNodeDown warning i', 'CascadeNodeDown warning l1',
	'CascadeFinding warning stale_node l2',
	'CascadeUpstreamLost warning l2',
	'CascadeFinding critical upstream_silent l2');

# ---- a leaf moves ----

slot_from_hold($p, 'i', 'l2');
point_at($l2, $p);
$l2->reload;
fires('l2 has moved to p, i and l1 are down',
	'CascadeNodeDown warning i', 'CascadeNodeDown warning l1');

# ---- all are back ----

start_after_kill($i);
$l1->start;
wait_protected($i, $l1);
# l2 lives without the slot that it had there
fires('all are back, and l2 has left a slot on i', 'CascadeFinding warning orphan_slot l2');
my $command = value($i, q{SELECT substring(hint FROM 'SELECT .*;') FROM cascade_check WHERE code = 'orphan_slot'});
is($command, q{SELECT pg_catalog.pg_drop_replication_slot('l2');}, 'the finding says what to do');
value($i, $command);
$stable = 5;
fires('all is quiet again');
$stable = 2;

# ---- a duplicate ----

my $clone = new_standby('clone', $p, %quick, conf => $quick{conf} . "cascade_relay.node_name = 'l2'\n");
watch($clone);
fires('a clone of l2 under its name',
	'CascadeFinding critical duplicate_name l2',
	'CascadeFinding critical upstream_refused l2');
$clone->stop;
$jobs{exporter_clone}->kill_kill(grace => 2);
$p->safe_psql('postgres', q{SELECT pg_drop_replication_slot('clone')});
fires('it is gone');

# ---- a primary that does not preload the library ----

$jobs{load}->kill_kill(grace => 2);
$p->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$p->restart;
fires('p runs without the library',
	'CascadeWorkerDown critical p');

done_testing();
