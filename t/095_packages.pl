# What tools/demo and tools/test say when packages are missing.
#
#	(no cascade)
#
# A new user on bare Debian runs the demo, not as root.  It can install nothing, so
# it names what is missing.  It once named PostgreSQL's packages, and when those
# were there the compiler's: now all of them at once.  dpkg-query, apt-cache and
# id are stand-ins here, in a folder that comes first in PATH.
use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use Test::More;

my $lib = abs_path(dirname(__FILE__) . '/../tools/lib.sh');
my $bin = PostgreSQL::Test::Utils::tempdir();
my $log = "$bin/apt.log";
my $conf = "$bin/createcluster.conf";

sub stand_in
{
	my ($name, $script) = @_;

	append_to_file("$bin/$name", "#!/bin/sh\n$script\n");
	chmod 0755, "$bin/$name" or die "chmod $name: $!";
	return;
}

# Runs COMMAND with tools/lib.sh; nothing but INSTALLED is installed.
sub run_lib
{
	my ($command, @installed) = @_;
	my ($out, $err) = ('', '');

	local $ENV{BROKEN} = $ENV{BROKEN} // '';
	local $ENV{PATH} = "$bin:$ENV{PATH}";
	local $ENV{INSTALLED} = ' ' . join(' ', @installed) . ' ';
	local $ENV{APT_LOG} = $log;
	local $ENV{CONF} = $conf;
	delete local @ENV{qw(PG_CONFIG PG_MAJOR)};
	unlink $log;
	my $ok = IPC::Run::run([ 'bash', '-c', "set -euo pipefail; . '$lib'; crelay_createcluster=\$CONF; $command" ], '>', \$out, '2>', \$err);
	return ($ok ? 0 : 1, $out, $err);
}

stand_in('dpkg-query', 'for package; do :; done; case $INSTALLED in *" $package "*) echo installed ;; *) exit 1 ;; esac');
stand_in('apt-cache', 'printf "postgresql:\n  Candidate: 15+248\n"');
stand_in('apt-get', 'echo "$*" >>"$APT_LOG"; case $* in *install*) cat "$CONF" >>"$APT_LOG"; [ -z "$BROKEN" ] ;; esac');

# ---- who is not root ----

stand_in('id', 'echo 1000');
my @needed = qw(postgresql-15 postgresql-server-dev-15 libipc-run-perl gcc make);
my ($status, undef, $err) = run_lib('crelay_pick_postgres libipc-run-perl gcc make', 'make');
is($status, 1, 'without its packages nothing goes on');
like($err, qr/these packages are missing, install them as root: postgresql-15 postgresql-server-dev-15 libipc-run-perl gcc\n/, 'all that is missing is named at once');
ok(!-e $log, 'nobody but root runs apt-get');

($status, undef, $err) = run_lib('PG_CONFIG=/nowhere/pg_config crelay_pick_postgres gcc make', 'make');
like($err, qr/missing, install them as root: gcc\n/, 'with a PostgreSQL of one\'s own, its packages are not');

# ---- root ----

# Debian makes and starts a server for each PostgreSQL that is installed, unless a
# file says no.  It says no while packages are installed, and is put back.
my $default = "# the administrator's\nstart_conf = 'auto'\n";

unlink "$bin/id";
stand_in('id', 'echo 0');
append_to_file($conf, $default);
my @root = ('crelay_need_packages gcc postgresql-15; echo "installed: $crelay_installed_packages"', 'postgresql-common');
($status, my $out, $err) = run_lib(@root);
is($status, 0, 'root installs them') or diag($err);
like($out, qr/^installed: gcc postgresql-15$/m, 'and is told which ones');
like(slurp_file($log), qr/ install .*gcc postgresql-15\n\Q$default\Ecreate_main_cluster = false\n/, 'by apt-get, which makes no server');
is(slurp_file($conf), $default, 'the file is as it was');
{
	local $ENV{BROKEN} = 1;
	($status) = run_lib(@root);
	is($status, 1, 'if apt-get fails, that is said');
	is(slurp_file($conf), $default, 'and the file is as it was');
}

done_testing();
