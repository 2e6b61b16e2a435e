# SmallDisk.pm: a file system that a test may fill.
#
# "use SmallDisk (1)" comes before everything else in a test; tests that may run at
# the same time take different numbers.  tools/test, as root, has mounted a few in
# a mount namespace of its own, and names them in CRELAY_SMALL_DISK.  Else the test starts itself anew in a user namespace,
# where an ordinary user may mount one.  Either way it is gone with the last
# process in there.  Where neither is possible the test is left out, but not in
# CI, where that would go unnoticed.
package SmallDisk;

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use File::Path qw(make_path);
use Test::More;

use constant SIZE => '64m';

# In the outer namespace this user is root, and may mount; in the inner one it
# is itself again, because PostgreSQL does not run as root.
sub _namespaces
{
	my ($dir) = @_;
	my ($uid, $gid) = ($>, (split ' ', $))[0]);

	return (
		'unshare', '--user', '--map-root-user', '--mount', '--',
		'sh', '-c', 'mount -t tmpfs -o size="$1",mode=700 tmpfs "$2" && shift 2 && exec "$@"', 'sh', SIZE, $dir,
		'unshare', '--user', "--map-user=$uid", "--map-group=$gid", '--');
}

my $dir;

sub import
{
	my (undef, $number) = @_;

	die 'use SmallDisk (number)' unless $number;
	if ($ENV{CRELAY_SMALL_DISK})
	{
		$dir = "$ENV{CRELAY_SMALL_DISK}.$number";
		return;
	}

	my $tmp = $ENV{TESTDATADIR} // ($ENV{TESTDIR} ? "$ENV{TESTDIR}/tmp_check" : 'tmp_check');
	make_path("$tmp/small_disk.$number");
	$dir = abs_path("$tmp/small_disk.$number");

	if ($> != 0 && system(join(' ', map { "'" . s/'/'\\''/gr . "'" } _namespaces($dir), 'true') . ' >&2') == 0)
	{
		$ENV{CRELAY_SMALL_DISK} = $dir =~ s/\.\d+$//r;
		exec _namespaces($dir), $^X, (map { "-I$_" } @INC), $0, @ARGV or die "exec: $!";
	}
	die "no small disk: neither a user namespace here, nor one from tools/test as root" if $ENV{CI};
	plan skip_all => 'needs a file system to fill: run tools/test as root, or allow user namespaces';
	return;
}

# Its folder.
sub dir
{
	return $dir;
}

# Its size, and what is free of it, in bytes.
sub room
{
	my (undef, $total, undef, $free) = split ' ', (split /\n/, `LC_ALL=C df -Pk '$dir'`)[1];

	return ($total * 1024, $free * 1024);
}

1;
