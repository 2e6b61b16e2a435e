# shellcheck shell=bash
#
# tools/chroot.sh	Debian chroots for tools/matrix and tools/package; to be sourced by bash
#
# Every chroot starts as a copy of a bare one of its suite, which debootstrap
# makes once.  All of them are kept in $CASCADE_RELAY_CACHE (default
# /var/cache/cascade_relay).  Needs root.
#
# chroot_suite MAJOR			the Debian suite that carries that PostgreSQL
# chroot_copy MAJOR DIR			a fresh bare chroot in DIR
# chroot_enter DIR COMMAND ...		run COMMAND in DIR, in namespaces of its own
# chroot_apt DIR ARGUMENT ...		apt-get there; its output is shown if it fails
# chroot_lock NAME			one user of what NAME stands for at a time
#
# Mounts are made in the namespace of chroot_enter only, and end with it.

chroot_me=$(basename "$0")
chroot_cache=${CASCADE_RELAY_CACHE:-/var/cache/cascade_relay}

die() { printf '%s: %s\n' "$chroot_me" "$*" >&2; exit 1; }
say() { printf '== %s: %s\n' "$chroot_me" "$*"; }

[ "$(id -u)" -eq 0 ] || die "needs root, for debootstrap and chroot"
mkdir -p "$chroot_cache"

chroot_suite()
{
	case $1 in
		15) echo bookworm ;;
		17) echo trixie ;;
		18 | 19) echo sid ;;
		*) die "no Debian suite is known to carry PostgreSQL $1" ;;
	esac
}

# The Debian mirror that this machine itself uses, by the end of its address:
# "debian" or "debian-security".  Reads deb822 files first, then one-line ones.
chroot_mirror()
{
	{
		cat /etc/apt/sources.list.d/*.sources 2>/dev/null |
			sed -n 's/^URIs:[[:space:]]*//p'
		cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
			sed -n 's/^deb[[:space:]]\+\(\[[^]]*\][[:space:]]*\)\?\([^[:space:]]*\).*/\2/p'
	} | tr ' ' '\n' | grep -E "/$1/?\$" | head -n 1
}

# Runs a command in a chroot, in namespaces that take all its processes and
# mounts with them when the command ends.  With $chroot_debs, that folder is where
# apt keeps what it downloads.
chroot_enter()
{
	local dir=$1
	shift
	unshare --mount --propagation private --pid --fork --kill-child \
		sh -c 'mount -t proc proc "$0/proc" &&
			mount -t tmpfs tmpfs "$0/dev/shm" &&
			{ [ -z "$1" ] || mount --bind "$1" "$0/var/cache/apt/archives"; } && shift &&
			exec chroot "$0" "$@"' \
		"$dir" "${chroot_debs:-}" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive \
		${CI:+CI="$CI"} ${PROVE_TESTS:+PROVE_TESTS="$PROVE_TESTS"} \
		${TEST_JOBS:+TEST_JOBS="$TEST_JOBS"} ${MUTANTS:+MUTANTS="$MUTANTS"} ${CHILDREN:+CHILDREN="$CHILDREN"} \
		${MUTATE_SEED:+MUTATE_SEED="$MUTATE_SEED"} ${CRELAY_SEED:+CRELAY_SEED="$CRELAY_SEED"} \
		${PG_TEST_TIMEOUT_DEFAULT:+PG_TEST_TIMEOUT_DEFAULT="$PG_TEST_TIMEOUT_DEFAULT"} "$@"
}

# All chroots of a suite share what is downloaded, one at a time: apt does not wait
# for the lock on that folder.
chroot_apt()
{
	local dir=$1 out chroot_debs
	shift
	chroot_debs=$chroot_cache/debs-$(cat "$dir/etc/cascade_relay_suite")
	mkdir -p "$chroot_debs/partial"
	out=$({ flock 8 && chroot_enter "$dir" apt-get -y -qq "$@" 2>&1 </dev/null; } 8>"$chroot_debs.lock") ||
		{ printf '%s\n' "$out" | tail -n 20 >&2; die "apt-get $1 failed in $dir"; }
	printf '%s\n' "$out" >>"$dir.log"
}

# Holds until the shell ends, or until descriptor 9 is closed.
chroot_lock()
{
	exec 9>"$chroot_cache/$1.lock"
	flock 9
}

chroot_copy()
{
	local suite base
	suite=$(chroot_suite "$1")
	base=$chroot_cache/base-$suite
	(chroot_lock "base-$suite" && chroot_make_base "$suite" "$base") || exit
	rm -rf --one-file-system "$2"
	cp -a --reflink=auto "$base" "$2"
	: >"$2.log"
}

# Makes the bare chroot of a suite, unless a complete one is there that is
# younger than four weeks.  A half-made one is thrown away: it has no .ready.
chroot_make_base()
{
	local suite=$1 dir=$2 mirror security script=
	[ -z "$(find "$dir/.ready" -mtime -28 2>/dev/null)" ] || return 0
	mirror=$(chroot_mirror debian)
	security=$(chroot_mirror debian-security)
	[ -n "$mirror" ] || die "found no Debian mirror in this machine's apt sources"
	command -v debootstrap >/dev/null ||
		{ apt-get update -qq && apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends debootstrap; }
	say "making a bare $suite chroot"
	rm -rf --one-file-system "$dir"
	mkdir -p "$dir"
	[ -e "/usr/share/debootstrap/scripts/$suite" ] || script=sid
	debootstrap --variant=minbase "$suite" "$dir" "$mirror" ${script:+"$script"} >"$dir.log" 2>&1 ||
		{ tail -n 20 "$dir.log"; die "debootstrap of $suite failed"; }
	echo "$suite" >"$dir/etc/cascade_relay_suite"
	printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d"
	chmod 755 "$dir/usr/sbin/policy-rc.d"
	# a mirror that is a snapshot has Release files past their date: what this
	# machine's own apt was told about that holds in the chroot too
	apt-config dump Acquire::Check-Valid-Until >"$dir/etc/apt/apt.conf.d/90validity"
	apt-config dump Acquire::Check-Date >>"$dir/etc/apt/apt.conf.d/90validity"
	# a stable suite's main archive lags behind PostgreSQL's minor releases
	if [ "$suite" != sid ] && [ -n "$security" ]
	then
		echo "deb $security $suite-security main" >"$dir/etc/apt/sources.list.d/security.list"
	fi
	chroot_apt "$dir" update
	touch "$dir/.ready"
}

# Experimental carries the next major before its release.
chroot_add_experimental()
{
	echo "deb $(chroot_mirror debian) experimental main" >"$1/etc/apt/sources.list.d/experimental.list"
	chroot_apt "$1" update
}

# chroot_put_tree FROM DIR PLACE: the tree as it is, uncommitted changes too,
# but nothing that git ignores.  Without git, which refuses a checkout that
# belongs to another user.
chroot_put_tree()
{
	rm -rf --one-file-system "${2:?}/$3"
	mkdir -p "$2/$3"
	tar -C "$1" --exclude-vcs --exclude-vcs-ignores -cf - . |
		tar -xf - -C "$2/$3" --no-same-owner
}
