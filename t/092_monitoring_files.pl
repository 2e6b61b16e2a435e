# The files of monitoring/ agree with one another, and with what the code knows.
#
# No server runs here.  The alerts, their runbook, the codes of cascade_check and
# the pages point at one another: each link is followed.  Where promtool is
# installed, the alerts' own tests are run, and mistakes that are planted into the
# alerts must make them fail.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Utils;
use Test::More;

my $top = dirname(__FILE__) . '/..';
my $folder = "$top/monitoring/prometheus";
my $rules = slurp_file("$folder/cascade_relay.rules.yml");
my $runbook = slurp_file("$top/monitoring/README.md");
my $readme = slurp_file("$top/README.md");

# ---- links ----

# What GitHub makes of a heading, and anchors that stand in the text.
sub anchors
{
	my ($text) = @_;
	my %anchors = map { lc(s/[^\w\s-]//gr =~ tr/ /-/r) => 1 } $text =~ /^#+ (.+)$/mg;

	$anchors{$_} = 1 for $text =~ /<a id="([^"]+)">/g;
	return \%anchors;
}
my %anchors;

# Whether a page, named from the top, has a paragraph.
sub leads_somewhere
{
	my ($file, $anchor) = @_;

	return 0 unless -f "$top/$file";
	$anchors{$file} //= anchors(slurp_file("$top/$file"));
	return $anchors{$file}{$anchor};
}

# the source is in a folder of its own, or not
my $check = "$top/src/decide/check.c";
my ($function) = slurp_file($check) =~ /^crelay_check_code_text\(.*?^\}/ms ? $& : die 'no codes in check.c';
my @codes = grep { $_ ne 'ok' } $function =~ /return "(\w+)"/g;
cmp_ok(scalar @codes, '>', 20, 'the codes of cascade_check');

my @alerts = $rules =~ /^  - alert: (\w+)$/mg;
is(scalar(() = $rules =~ /^    annotations:/mg), scalar(() = $rules =~ /^      runbook_url:/mg) + scalar(() = $rules =~ /^    annotations: \*/mg),
	'each alert has a runbook_url');
for my $url (map { my $u = $_; $u =~ /\{\{ \$labels\.code \}\}/ ? map { $u =~ s/\{\{ \$labels\.code \}\}/$_/r } @codes : $u }
	($rules =~ m{^      runbook_url: "?(.*?)"?$}mg))
{
	my ($file, $anchor) = $url =~ m{^https://example\.org/cascade_relay/(.+\.md)#([\w-]+)$} or fail("$url is no link to a paragraph"), next;
	ok(leads_somewhere($file, $anchor), "$file has #$anchor");
}
my %seen;
for my $alert (grep { !$seen{$_}++ } @alerts)
{
	ok(leads_somewhere('monitoring/README.md', lc $alert), "the runbook has a paragraph on $alert");
	my ($paragraph) = $runbook =~ /^### $alert\n(.*?)^##/ms;
	like($paragraph // '', qr{^    \w*[=\$]|\]\(\.\./[\w/]+\.md\#|Stop|Bring}m, "and it says what to do");
}
for my $alert ($runbook =~ /^### (Cascade\w+)$/mg)
{
	ok($seen{$alert}, "$alert of the runbook is an alert");
}
for my $file ('README.md', 'monitoring/README.md')
{
	my $text = $file eq 'README.md' ? $readme : $runbook;
	for my $link ($text =~ /\]\(([^)\s]+)\)/g)
	{
		next if $link =~ /^https?:/;
		my ($path, $anchor) = $link =~ /^([^#]*)#?(.*)$/;
		my $target = $path eq '' ? $file : $file =~ m{/} && $path !~ s{^\.\./}{} ? "monitoring/$path" : $path;
		ok(-e "$top/$target", "$file: $link is there") if $path ne '';
		ok(leads_somewhere($target, $anchor), "$file: $link leads to a paragraph") if $anchor ne '';
	}
}

# ---- one query, everywhere ----

my ($columns) = slurp_file("$folder/postgres_exporter.yml") =~ /query: "(SELECT .*) FROM cascade_metrics"/;
my ($same) = slurp_file("$folder/sql_exporter.yml") =~ /query: "(SELECT .*) FROM cascade_metrics"/;
is($same, $columns, 'both exporters ask for the same');
is(join(', ', slurp_file("$folder/postgres_exporter.yml") =~ /^  - (\w+):/mg), $columns =~ s/^SELECT //r, 'each column is a label or the value');

# ---- the dashboard ----

my $dashboard = decode_json(slurp_file("$top/monitoring/grafana/cascade_relay.json"));
my %ids = map { $_->{id} => 1 } @{ $dashboard->{panels} };
is(scalar keys %ids, scalar @{ $dashboard->{panels} }, 'panels have ids of their own');
my %metrics = map { $_ => 1 } slurp_file($check =~ s/check\.c/metrics.c/r) =~ /"(cascade_\w+)"/g;
for my $expr ($rules =~ /^    expr: (.*?)^    for:/msg, map { $_->{expr} // () } map { @{ $_->{targets} } } @{ $dashboard->{panels} })
{
	my @unknown = grep { !$metrics{$_} } $expr =~ /\b(cascade_\w+)/g;
	is("@unknown", '', 'an expression uses metrics that exist');
}

# ---- the alerts' own tests ----

SKIP:
{
	skip 'promtool is not installed', 1 if system('command -v promtool >/dev/null 2>&1');
	command_like([ 'promtool', 'check', 'rules', "$folder/cascade_relay.rules.yml" ], qr/SUCCESS/, 'promtool takes the rules');
	command_like([ 'promtool', 'check', 'config', "$folder/prometheus.yml" ], qr/SUCCESS/, 'and the configuration');
	command_like([ 'promtool', 'test', 'rules', "$folder/cascade_relay.test.yml" ], qr/SUCCESS/, 'and the tests pass');

	my %mistakes = (
		'a condition that never holds' => sub { s/\(cascade_member_up\) == 0/(cascade_member_up) == 5/g },
		'an unloaded primary is taken for none' => sub { s/unless on \(cluster\) \(cascade_up == 0\)// },
		'an alert that waits' => sub { s/for: 2m/for: 20m/g },
		'each observer counts, not the best' => sub { s/max by \(cluster, member\) \(cascade_member_up\)/min by (cluster, member) (cascade_member_up)/g },
		'a server that is no part of a cascade' => sub { s/and on \(cluster\) max_over_time\(cascade_up\[1d\]\)// },
		'another horizon' => sub { s/1800/18000/ },
		'one root is one too many' => sub { s/> 1$/> 0/m },
		'a hold, not a node' => sub { s/max by \(cluster, node\) \(\n\s+predict/sum by (instance) (\n predict/ },
		'two alerts for one cause' => sub { s/unless on \(cluster, code, member\)\n/unless on (nothing)\n/ },
		'an ok finding' => sub { s/\(cascade_finding\) == 1/(cascade_finding) <= 1/ });
	for my $mistake (sort keys %mistakes)
	{
		my $dir = PostgreSQL::Test::Utils::tempdir();
		local $_ = $rules;
		$mistakes{$mistake}->();
		isnt($_, $rules, "planted: $mistake");
		append_to_file("$dir/cascade_relay.rules.yml", $_);
		append_to_file("$dir/cascade_relay.test.yml", slurp_file("$folder/cascade_relay.test.yml"));
		command_fails([ 'promtool', 'test', 'rules', "$dir/cascade_relay.test.yml" ], "found: $mistake");
	}
}

done_testing();
