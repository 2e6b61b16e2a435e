# Makefile of cascade_relay, for PGXS
#
#	make				build against the pg_config found in PATH
#	make PG_CONFIG=...		build against another PostgreSQL
#	make install [DESTDIR=...]	install into that PostgreSQL
#	make installcheck		pg_regress on a running server, then t/ under prove
#	make installcheck TAP_TESTS=	pg_regress alone (before a package is installed)
#	make test-programs		what t/ needs built, to run it where there is no compiler
#	make unit			the C unit tests of the pure sources, no server needed
#	make bench-client		what bench/run measures with
#	make borders			check that each source file keeps to its room
#	make format, check-format	pgindent style
#	make dist			the archive for PGXN, of what is committed
#
# Out of tree: mkdir build && cd build && make -f ../Makefile VPATH=..
# "tools/test" does all of it in a scratch copy and a private PostgreSQL.

MODULE_big = cascade_relay
EXTENSION = cascade_relay
DATA = sql/cascade_relay--1.0.sql

# Lists, not wildcards: a wildcard looks into the build folder, so that an
# out-of-tree build would quietly install nothing.  From the highest folder down.
OBJS = \
	src/cascade_relay.o \
	src/sql/adopt_funcs.o \
	src/sql/causal_funcs.o \
	src/sql/check_funcs.o \
	src/sql/diagram_funcs.o \
	src/sql/follow.o \
	src/sql/follow_funcs.o \
	src/sql/forget_funcs.o \
	src/sql/hold_funcs.o \
	src/sql/metrics_funcs.o \
	src/sql/not_preloaded.o \
	src/sql/policy_funcs.o \
	src/sql/repoint.o \
	src/sql/report_funcs.o \
	src/sql/status_funcs.o \
	src/sql/topology_funcs.o \
	src/worker/addresses.o \
	src/worker/awaited.o \
	src/worker/exchange.o \
	src/worker/local_hold.o \
	src/worker/lost_holds.o \
	src/worker/lost_slots.o \
	src/worker/moves.o \
	src/worker/release.o \
	src/worker/slot_user.o \
	src/worker/survey.o \
	src/worker/worker.o \
	src/node/bounds.o \
	src/node/child_hold.o \
	src/node/downstream.o \
	src/node/hold.o \
	src/node/replay.o \
	src/node/tree.o \
	src/upstream/upstream.o \
	src/upstream/upstream_error.o \
	src/upstream/upstream_session.o \
	src/upstream/upstream_target.o \
	src/registry/registry.o \
	src/registry/registry_children.o \
	src/registry/registry_forget.o \
	src/registry/registry_rows.o \
	src/registry/registry_slots.o \
	src/server/guc.o \
	src/server/instance.o \
	src/server/state_file.o \
	src/decide/address.o \
	src/decide/backoff.o \
	src/decide/bookmark.o \
	src/decide/branch.o \
	src/decide/check.o \
	src/decide/departed.o \
	src/decide/diagram.o \
	src/decide/diagram_svg.o \
	src/decide/diagram_text.o \
	src/decide/feed.o \
	src/decide/frontier.o \
	src/decide/history.o \
	src/decide/message.o \
	src/decide/metrics.o \
	src/decide/policy.o \
	src/decide/topology.o

INTERNAL_HEADERS = \
	src/sql/check_funcs.h \
	src/sql/follow.h \
	src/sql/not_preloaded.h \
	src/sql/repoint.h \
	src/sql/tuple.h \
	src/worker/addresses.h \
	src/worker/awaited.h \
	src/worker/exchange.h \
	src/worker/local_hold.h \
	src/worker/lost_holds.h \
	src/worker/lost_slots.h \
	src/worker/moves.h \
	src/worker/release.h \
	src/worker/slot_user.h \
	src/worker/survey.h \
	src/worker/worker.h \
	src/node/bounds.h \
	src/node/child_hold.h \
	src/node/downstream.h \
	src/node/hold.h \
	src/node/replay.h \
	src/node/tree.h \
	src/upstream/upstream.h \
	src/upstream/upstream_internal.h \
	src/upstream/upstream_session.h \
	src/registry/registry.h \
	src/registry/registry_internal.h \
	src/server/advisory.h \
	src/server/clock.h \
	src/server/compat.h \
	src/server/guc.h \
	src/server/instance.h \
	src/server/state_file.h \
	src/decide/address.h \
	src/decide/backoff.h \
	src/decide/bookmark.h \
	src/decide/branch.h \
	src/decide/check.h \
	src/decide/departed.h \
	src/decide/diagram.h \
	src/decide/diagram_internal.h \
	src/decide/feed.h \
	src/decide/frontier.h \
	src/decide/history.h \
	src/decide/message.h \
	src/decide/metrics.h \
	src/decide/node.h \
	src/decide/policy.h \
	src/decide/topology.h

# The sources that see no PostgreSQL header: the unit tests are built from them alone.
PURE_SOURCES = $(filter src/decide/%,$(OBJS:.o=.c))
PURE_HEADERS = $(filter src/decide/%,$(INTERNAL_HEADERS))

REGRESS = unloaded bookmark policy

# Debian's packaging runs installcheck before the package is installed and
# switches the TAP tests off with "TAP_TESTS=".
TAP_TESTS ?= 1

EXTRA_CLEAN = tmp_bench tmp_unit tmp_upgrade tmp_regress exports.list cascade_relay-*.zip

# "override", so that a PG_CFLAGS or SHLIB_LINK given on the command line (for
# coverage, say) adds to these and does not replace them.  PG_CFLAGS is for the
# C compiler only: clang makes the bitcode from PG_CPPFLAGS.
override PG_CPPFLAGS += -I$(srcdir)/src -I$(libpq_srcdir)
override PG_CFLAGS += -Wall -Wextra -Wno-unused-parameter
override SHLIB_LINK += $(libpq)

PG_CONFIG ?= pg_config

# From 16 on PGXS itself compiles modules with -fvisibility=hidden.  The macros
# of 15 do not mark what must stay visible, so there the linker gets a list.
ifneq (,$(filter 15.% 15devel,$(word 2,$(shell $(PG_CONFIG) --version))))
SHLIB_EXPORTS = src/exports.txt
endif

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS tracks no header dependencies unless PostgreSQL was configured so; all
# objects on all headers is simple and cheap enough here.
$(OBJS) $(OBJS:.o=.bc): $(INTERNAL_HEADERS)

# Out of tree the folders of the objects are not there yet.  Absolute, because
# make would find a plain "src/node" in VPATH and think it made.
OBJECT_FOLDERS = $(patsubst %/,$(CURDIR)/%,$(sort $(dir $(OBJS))))
$(OBJS) $(OBJS:.o=.bc): | $(OBJECT_FOLDERS)
$(OBJECT_FOLDERS):
	$(MKDIR_P) $@

# The tests' own modules.  Absolute, because prove starts in $(srcdir), from
# where a relative VPATH leads elsewhere.
PG_PROVE_FLAGS += -I $(abspath $(srcdir))/t

# --- unit tests ---

PURE_OBJECTS = $(PURE_SOURCES:src/decide/%.c=tmp_unit/%.o)
UNIT_TESTS = $(patsubst $(srcdir)/t/unit/%.c,tmp_unit/%,$(wildcard $(srcdir)/t/unit/test_*.c))
UNIT_CFLAGS = -std=gnu99 -g -O1 -Wall -Wextra -Wno-unused-parameter \
	-I$(srcdir)/src -I$(srcdir)/t/unit
UNIT_SANITIZERS = -fsanitize=address,undefined -fno-sanitize-recover=all

# Run, not only linked: where ptrace or the address space is restricted, a
# program with sanitizers links and then cannot start.
tmp_unit/sanitizers:
	$(MKDIR_P) tmp_unit
	echo 'int main(void) { return 0; }' >tmp_unit/probe.c
	if $(CC) $(UNIT_SANITIZERS) tmp_unit/probe.c -o tmp_unit/probe 2>/dev/null && tmp_unit/probe 2>/dev/null; \
	then echo '$(UNIT_SANITIZERS)'; fi >$@

tmp_unit/%.o: src/decide/%.c $(PURE_HEADERS) tmp_unit/sanitizers
	$(CC) $(UNIT_CFLAGS) $(COPT) $$(cat tmp_unit/sanitizers) -c $< -o $@

tmp_unit/%.o: t/unit/%.c t/unit/tap.h $(PURE_HEADERS) tmp_unit/sanitizers
	$(CC) $(UNIT_CFLAGS) $(COPT) $$(cat tmp_unit/sanitizers) -c $< -o $@

tmp_unit/test_%: tmp_unit/test_%.o $(PURE_OBJECTS) tmp_unit/sanitizers
	$(CC) $$(cat tmp_unit/sanitizers) $(filter %.o,$^) -lm -o $@

# The trees that t/019_oracle.pl asks an oracle about.
tmp_unit/tree_dump: tmp_unit/tree_dump.o $(PURE_OBJECTS) tmp_unit/sanitizers
	$(CC) $$(cat tmp_unit/sanitizers) $(filter %.o,$^) -lm -o $@

.PRECIOUS: tmp_unit/%.o

# What t/047_clock.pl has a server preload.
tmp_unit/other_clock$(DLSUFFIX): t/unit/other_clock.c
	$(MKDIR_P) tmp_unit
	$(CC) $(UNIT_CFLAGS) $(COPT) -fPIC -shared $< -o $@ -ldl

# Libraries of versions to come, for t/037_upgrade.pl: the next one, with which
# this one gets along; one whose messages this one cannot read; and one that
# cannot read those of this one.  All that depends on the version is in
# message.o.
UPGRADES = tmp_upgrade/next$(DLSUFFIX) tmp_upgrade/loud$(DLSUFFIX) tmp_upgrade/deaf$(DLSUFFIX)
NEXT_FLAGS = -DCRELAY_VERSION='"1.1"' -DCRELAY_MESSAGE_VERSION=2 -DCRELAY_MESSAGE_GROWN
LOUD_FLAGS = -DCRELAY_VERSION='"8.0"' -DCRELAY_MESSAGE_VERSION=8 -DCRELAY_MESSAGE_READER=8
DEAF_FLAGS = -DCRELAY_VERSION='"9.0"' -DCRELAY_MESSAGE_VERSION=9 -DCRELAY_MESSAGE_OLDEST=9

tmp_upgrade/next.o: VERSION_FLAGS = $(NEXT_FLAGS)
tmp_upgrade/loud.o: VERSION_FLAGS = $(LOUD_FLAGS)
tmp_upgrade/deaf.o: VERSION_FLAGS = $(DEAF_FLAGS)
tmp_upgrade/%.o: src/decide/message.c src/decide/message.h src/decide/node.h
	$(MKDIR_P) tmp_upgrade
	$(CC) $(CFLAGS) $(CPPFLAGS) $(VERSION_FLAGS) -c -o $@ $<

tmp_upgrade/%$(DLSUFFIX): tmp_upgrade/%.o $(shlib) $(SHLIB_EXPORTS:%.txt=%.list)
	$(LINK.shared) -o $@ $< $(filter-out src/decide/message.o,$(OBJS)) $(LDFLAGS) $(LDFLAGS_SL) $(SHLIB_LINK)

.PRECIOUS: tmp_upgrade/%.o

TEST_PROGRAMS = tmp_unit/tree_dump tmp_unit/other_clock$(DLSUFFIX) $(UPGRADES)
test-programs: $(TEST_PROGRAMS)

ifneq (,$(TAP_TESTS))
installcheck: $(TEST_PROGRAMS)
endif

# No tests is a failure here: it would be a lost folder, not a success.
unit: $(UNIT_TESTS)
	@test -n "$(UNIT_TESTS)" || { echo "no unit tests in $(srcdir)/t/unit"; exit 1; }
	$(PROVE) $(PROVE_FLAGS) -e '' $(UNIT_TESTS)

# --- bench ---

BENCH_CFLAGS = -std=gnu99 -g -O2 -Wall -Wextra -Wno-unused-parameter \
	-I$(srcdir)/src -I$(libpq_srcdir)

tmp_bench/client: bench/client.c $(PURE_SOURCES) $(PURE_HEADERS)
	$(MKDIR_P) tmp_bench
	$(CC) $(BENCH_CFLAGS) $(COPT) $(filter %.c,$^) $(libpq) -lm -o $@

bench-client: tmp_bench/client

# --- checks of the sources ---

borders:
	$(abspath $(srcdir))/tools/borders

format:
	$(abspath $(srcdir))/tools/format

check-format:
	$(abspath $(srcdir))/tools/format --check

# --- distribution ---

# The archive for PGXN: what is committed, in a folder with name and version.
# META.json names example.org until the maintainers have put their addresses in.
DIST_VERSION = $(shell sed -n 's/^\t"version": "\(.*\)",$$/\1/p' $(srcdir)/META.json)
DIST = cascade_relay-$(DIST_VERSION)

dist:
	git -C $(srcdir) archive --format=zip --prefix=$(DIST)/ -9 HEAD >$(DIST).zip
	@! grep -q example.org $(srcdir)/META.json || \
		echo "not to be published: META.json has example.org where the project's addresses belong"

.PHONY: unit bench-client borders format check-format test-programs dist
