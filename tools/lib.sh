# shellcheck shell=bash
#
# tools/lib.sh	what tools/test and tools/demo share; to be sourced by bash
#
# The one idea here is the private prefix: a PostgreSQL finds its libraries and
# its share folder relative to its own executable, so that a copy of bin beside
# links to the rest is an installation of its own.  The extension is installed
# there.  Neither root nor an ordinary user touches the system's installation,
# and two runs side by side share nothing.
#
# crelay_say TEXT			a line about what goes on
# crelay_die TEXT			the last line
# crelay_pick_postgres PACKAGE ...	sets PG_MAJOR and PG_CONFIG; the packages are
#					needed too, so that all that is missing is
#					installed, or named, in one go
# crelay_need_packages PACKAGE ...	install what is missing, or say so; adds it to
#					crelay_installed_packages
# crelay_has_formatter			true if pg_bsd_indent is there or can be installed
# crelay_scratch NAME			make the folder $crelay_scratch, gone at exit;
#					after crelay_pick_postgres, whose pg_ctl it uses
# crelay_copy_tree FROM TO		the sources without build products
# crelay_private_prefix DIR		a PostgreSQL in DIR; PG_CONFIG is then its own
# crelay_as_user COMMAND ...		as an unprivileged user, root or not
# crelay_small_disk			as root: from now on crelay_as_user has small
#					file systems of its own, CRELAY_SMALL_DISK.1 and .2
# crelay_make DIR TARGET ...		make in a copy of the sources, for PG_CONFIG
# crelay_sweep				stop what runs in $crelay_scratch, remove it

crelay_me=$(basename "$0")
crelay_keep=${CRELAY_KEEP:-}
crelay_scratch=
crelay_installed_packages=
crelay_createcluster=/etc/postgresql-common/createcluster.conf
crelay_namespace=()

# A dozen tests that together pass through every source: the chain, restarts,
# crashes, bounds, set-up, clones, promotion, moves, timelines.  For a major or a
# package for which the whole suite would take too long.
# shellcheck disable=SC2034	# used by tools/matrix and tools/package
crelay_dozen="t/001_chain.pl t/002_deep_restarts.pl t/004_new_leaf.pl t/005_crashes.pl \
	t/007_frontier.pl t/008_harmless.pl t/009_setup.pl t/011_causal.pl t/014_check.pl \
	t/024_follow.pl t/026_switchover.pl t/028_timelines.pl"

crelay_say() { printf '== %s: %s\n' "$crelay_me" "$*"; }

crelay_die()
{
	printf '%s: %s\n' "$crelay_me" "$*" >&2
	exit 1
}

crelay_is_root() { [ "$(id -u)" -eq 0 ]; }

# --- packages ---

crelay_installed()
{
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# On a system without dpkg nothing is known about packages: whoever builds
# there has brought a PostgreSQL, and the build says what else it lacks.
crelay_need_packages()
{
	local package missing=()
	command -v dpkg-query >/dev/null || return 0
	for package
	do
		crelay_installed "$package" || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	crelay_is_root ||
		crelay_die "these packages are missing, install them as root: ${missing[*]}"
	crelay_say "installing ${missing[*]}"
	crelay_apt update
	crelay_without_main_cluster "${missing[@]}"
	crelay_installed_packages="${crelay_installed_packages:+$crelay_installed_packages }${missing[*]}"
}

# Debian makes and starts a server for each PostgreSQL that is installed.  Nothing
# here has a use for one.  The setting that prevents it is the administrator's, so
# it is put back before this returns.
crelay_without_main_cluster()
{
	local conf=$crelay_createcluster
	[[ " $*" != *" postgresql"* ]] || crelay_installed postgresql-common ||
		crelay_apt install --no-install-recommends postgresql-common
	[ -e "$conf" ] || { crelay_apt install --no-install-recommends "$@"; return; }
	(
		trap 'mv -f "$conf.cascade_relay" "$conf"' EXIT
		cp -p "$conf" "$conf.cascade_relay"
		echo 'create_main_cluster = false' >>"$conf"
		crelay_apt install --no-install-recommends "$@"
	) || exit
}

# Newer Debians have no package of the formatter.
crelay_has_formatter()
{
	! command -v pg_bsd_indent >/dev/null || return 0
	command -v apt-cache >/dev/null || return 1
	# a fresh image has no package lists yet
	find /var/lib/apt/lists -name '*_Packages*' 2>/dev/null | grep -q . ||
		! crelay_is_root || crelay_apt update
	LC_ALL=C apt-cache policy pg-bsd-indent 2>/dev/null | grep -q '^ *Candidate: [^(]'
}

# Quiet while it works: the output is shown only when apt-get fails.
crelay_apt()
{
	local out
	out=$(DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=600 "$@" 2>&1 </dev/null) ||
		{ printf '%s\n' "$out" | tail -n 20 >&2; crelay_die "apt-get $1 failed"; }
}

# --- which PostgreSQL ---

# PG_CONFIG wins and must agree with PG_MAJOR; else PG_MAJOR; else the major
# that this Debian packages; else whatever pg_config is in PATH.
crelay_pick_postgres()
{
	local major
	if [ -z "${PG_CONFIG:-}" ] && [ -z "${PG_MAJOR:-}" ]
	then
		PG_MAJOR=$(crelay_debian_major)
		[ -n "$PG_MAJOR" ] || PG_CONFIG=$(command -v pg_config) ||
			crelay_die "found no PostgreSQL: install the packages postgresql postgresql-server-dev-all $* as root, or set PG_CONFIG"
	fi
	if [ -n "${PG_CONFIG:-}" ]
	then
		crelay_need_packages "$@"
	else
		crelay_need_packages "postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR" "$@"
		PG_CONFIG=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
	fi
	[ -x "$PG_CONFIG" ] || crelay_die "there is no $PG_CONFIG"
	major=$("$PG_CONFIG" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
	[ "${PG_MAJOR:-$major}" = "$major" ] ||
		crelay_die "PG_MAJOR is $PG_MAJOR, but $PG_CONFIG belongs to $major"
	PG_MAJOR=$major
	export PG_MAJOR PG_CONFIG
}

# The major is the first number in the version of the package "postgresql".
crelay_debian_major()
{
	command -v apt-cache >/dev/null || return 0
	crelay_candidate_major | grep . && return 0
	# a fresh image has no package lists yet
	! crelay_is_root || { crelay_apt update && crelay_candidate_major; }
}

crelay_candidate_major()
{
	LC_ALL=C apt-cache policy postgresql 2>/dev/null |
		sed -n 's/^ *Candidate: \([0-9]\+\)+.*/\1/p'
}

# --- scratch folder ---

# Everything that a run writes is in here.  CRELAY_KEEP=1 leaves it for a look.
crelay_scratch()
{
	crelay_scratch=$(mktemp -d "${TMPDIR:-/tmp}/cascade_relay_$1.XXXXXX")
	trap crelay_cleanup EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	! crelay_is_root || chown "$(crelay_user)" "$crelay_scratch"
}

crelay_cleanup()
{
	local status=$?
	trap - EXIT
	trap '' HUP INT TERM
	crelay_sweep
	exit "$status"
}

# Servers that an interrupted run left behind are stopped by their own folder,
# so that no other server on the machine can be hit.
crelay_sweep()
{
	local pidfile
	[ -n "$crelay_scratch" ] || return 0
	cd /
	while IFS= read -r -d '' pidfile
	do
		crelay_as_user "$("$PG_CONFIG" --bindir)/pg_ctl" stop -s -m immediate \
			-D "$(dirname "$pidfile")" >/dev/null 2>&1 || true
	done < <(find "$crelay_scratch" -name postmaster.pid -print0 2>/dev/null)
	if [ -n "$crelay_keep" ]
	then
		crelay_say "kept $crelay_scratch"
	else
		rm -rf --one-file-system "$crelay_scratch"
	fi
}

crelay_copy_tree()
{
	mkdir -p "$2"
	# tar reads .gitignore; there may be no git here, nor a repository
	tar -C "$1" --exclude-vcs --exclude-vcs-ignores -cf - . |
		tar -C "$2" --no-same-owner -xf -
	! crelay_is_root || chown -R "$(crelay_user)" "$2"
}

# --- unprivileged user ---

# PostgreSQL does not run as root.
crelay_user()
{
	if id postgres >/dev/null 2>&1
	then
		echo postgres
	else
		echo nobody
	fi
}

# setpriv rather than su or runuser: no PAM session, no shell, and the process
# stays in this one's group, so that Ctrl-C reaches it.
crelay_as_user()
{
	if crelay_is_root
	then
		HOME=$crelay_scratch "${crelay_namespace[@]}" setpriv --reuid="$(crelay_user)" \
			--regid="$(id -g "$(crelay_user)")" --init-groups -- "$@"
	else
		"$@"
	fi
}

# File systems that tests may fill, in a mount namespace that ends with the
# command.  In a chroot the propagation of mounts cannot be changed.  What may
# not mount at all goes without.
crelay_small_disk()
{
	local propagation dir=$crelay_scratch/small_disk
	crelay_is_root || return 0
	mkdir -p "$dir.1" "$dir.2"
	for propagation in private unchanged
	do
		crelay_namespace=(unshare --mount --propagation "$propagation" sh -c
			'for n in 1 2; do mount -t tmpfs -o "size=64m,mode=700,uid=$1" tmpfs "$2.$n" || exit; done
			shift 2 && exec "$@"'
			sh "$(id -u "$(crelay_user)")" "$dir")
		if "${crelay_namespace[@]}" true 2>/dev/null
		then
			export CRELAY_SMALL_DISK=$dir
			return 0
		fi
	done
	crelay_namespace=()
}

# --- private prefix ---

# Folders keep their absolute place below DIR, because PostgreSQL relocates by
# comparing its compiled-in paths with where it runs.  The programs are copied:
# they resolve links to learn where they are.  Everything else is linked.
crelay_private_prefix()
{
	local root=$1 bindir pkglibdir sharedir libdir includedir
	bindir=$("$PG_CONFIG" --bindir)
	pkglibdir=$("$PG_CONFIG" --pkglibdir)
	sharedir=$("$PG_CONFIG" --sharedir)
	libdir=$("$PG_CONFIG" --libdir)
	includedir=$("$PG_CONFIG" --includedir)

	mkdir -p "$root$bindir"
	cp -RL "$bindir/." "$root$bindir"
	crelay_link_farm "$pkglibdir" "$root$pkglibdir"
	crelay_link_farm "$sharedir" "$root$sharedir"
	crelay_link_missing "$libdir" "$root$libdir"
	crelay_link_missing "$includedir" "$root$includedir"
	# An installed cascade_relay must not be what is tested, nor be written
	# to through a link.
	find "$root$pkglibdir" "$root$sharedir" -name 'cascade_relay*' -prune -exec rm -rf {} +
	! crelay_is_root || chown -R -h "$(crelay_user)" "$root"

	PG_CONFIG=$root$bindir/pg_config
	[ "$("$PG_CONFIG" --pkglibdir)" = "$root$pkglibdir" ] ||
		crelay_die "this PostgreSQL cannot be relocated: $("$PG_CONFIG" --pkglibdir)"
	export PG_CONFIG
}

# Real folders, linked files: new files can be added.
crelay_link_farm()
{
	mkdir -p "$2"
	cp -Rs "$1/." "$2"
}

# One link where nothing is yet, links to what is missing where a farm has
# been made below already.
crelay_link_missing()
{
	local entry
	mkdir -p "$(dirname "$2")"
	[ -e "$2" ] || { ln -s "$1" "$2"; return; }
	for entry in "$1"/*
	do
		[ -e "$2/${entry##*/}" ] || ln -s "$entry" "$2/"
	done
}

# --- building ---

# Without clang the bitcode for PostgreSQL's JIT cannot be made, and is not
# needed either.
crelay_build_options()
{
	local clang
	clang=$(sed -n 's/^CLANG = //p' "$(dirname "$("$PG_CONFIG" --pgxs)")/../Makefile.global")
	command -v "${clang:-clang}" >/dev/null || echo with_llvm=no
}

crelay_make()
{
	local dir=$1 options
	shift
	options=$(crelay_build_options)
	crelay_as_user make -s --no-print-directory -C "$dir" PG_CONFIG="$PG_CONFIG" \
		${options:+"$options"} "$@"
}
