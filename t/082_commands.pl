# Every command that is printed works as it is printed.
#
#	p ── i ── l      and m, below i
#
# The extension is in a schema that has to be quoted, and is not in the
# search_path of whoever pastes; a role that may create in public has planted
# functions there that are called like those of the extension.  Then a role owns
# the schema of the extension, and gives what nodes call an overload, so that a
# call by name would be ambiguous.  Reports go on, a move works, and the finding
# says what to do.  After that one thing after another happens that has a command
# in its finding, its notice or its error: each is run where it is to be run, and
# what it was printed for is over.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %quick = (
	conf => qq{
cascade_relay.report_interval = 100ms
cascade_relay.stale_timeout = 1s
wal_receiver_status_interval = 1s
max_wal_size = 4MB
});

# Runs something as whoever pastes it does; returns what is said.
sub paste
{
	my ($node, $sql) = @_;
	my ($out, $err) = ('', '');

	local $ENV{PGOPTIONS} = '-c search_path=public';
	my $rc = $node->psql('postgres', $sql, stdout => \$out, stderr => \$err);
	return ($rc, $out, $err);
}

# What is printed runs without an error; returns the notices.
sub works
{
	my ($node, $sql, $what) = @_;
	my ($rc, undef, $err) = paste($node, $sql);

	is($rc, 0, "$what: $sql") or diag $err;
	return $err;
}

# Waits for a finding, and returns its hint.
sub hint
{
	my ($node, $code, $about) = @_;

	wait_for($node, "SELECT count(*) > 0 FROM cascade_check WHERE code = '$code' AND node_name = '$about'",
		$node->name . " says $code of $about")
	  or diag value($node, 'SELECT * FROM cascade_check');
	return value($node, "SELECT hint FROM cascade_check WHERE code = '$code' AND node_name = '$about' LIMIT 1");
}

# The commands in a text, in order.
sub commands { my ($text) = @_; return $text =~ /((?:SELECT|REVOKE|CREATE SCHEMA|ALTER EXTENSION) [^;]*;)/g; }

sub gone
{
	my ($node, $code, $about) = @_;

	wait_for($node, "SELECT count(*) FROM cascade_check WHERE code = '$code' AND node_name = '$about'",
		$node->name . " does not say $code of $about any more", '0')
	  or diag value($node, 'SELECT * FROM cascade_check');
	return;
}

# ---- none is forgotten ----

my @bare;
for my $file (glob 'src/*.c src/*/*.c')
{
	my $text = slurp_file($file);
	push @bare, "$file: $1" while $text =~ /(SELECT (?:cascade_|pg_(?!catalog))\w+\(.*)/g;
}
cmp_ok(scalar(my @sources = glob 'src/*.c src/*/*.c'), '>', 50, 'the sources are here');
is(join("\n", @bare), '', 'whatever is printed names the schema');

my $p = new_primary('p', %quick);
$p->safe_psql('postgres', q{
	CREATE ROLE joe;
	CREATE SCHEMA "c r" AUTHORIZATION joe;
	ALTER EXTENSION cascade_relay SET SCHEMA "c r";
	ALTER DATABASE postgres SET search_path = "c r", cascade_relay, public;
	GRANT CREATE ON SCHEMA public TO joe;
	CREATE TABLE public.sprung (what text);
	SET ROLE joe;
	CREATE FUNCTION public.cascade_follow(text) RETURNS text LANGUAGE sql AS $$ SELECT (1/0)::text $$;
	CREATE FUNCTION public.cascade_forget(text) RETURNS text LANGUAGE sql AS $$ SELECT (1/0)::text $$;
	CREATE FUNCTION public.cascade_forget(text, bool) RETURNS text LANGUAGE sql AS $$ SELECT (1/0)::text $$;
	CREATE FUNCTION public.cascade_release(text) RETURNS text LANGUAGE sql AS $$ SELECT (1/0)::text $$;
	CREATE FUNCTION public.pg_drop_replication_slot(text) RETURNS text LANGUAGE sql AS $$ SELECT (1/0)::text $$;
	-- and where the extension is
	CREATE FUNCTION "c r".cascade_report(bytea, int DEFAULT 0) RETURNS bytea LANGUAGE sql AS $$ SELECT NULL::bytea $$;
	CREATE FUNCTION "c r".cascade_adopt(text, text, pg_lsn, int DEFAULT 0) RETURNS pg_lsn LANGUAGE sql AS $$ SELECT NULL::pg_lsn $$;
});
my ($rc, undef, $err) = $p->psql('postgres', q{SELECT cascade_report('x')});
like((paste($p, q{SELECT "c r".cascade_report('x'::bytea)}))[2], qr/is not unique/, 'by its name the function cannot be called');

# ---- the schema belongs to somebody ----

my $i = new_standby('i', $p, %quick);
my $l = new_standby('l', $i, %quick);
my $m = new_standby('m', $i, %quick);
wait_connected($i, $l, $m);
wait_protected($i, $l, $m);
like((works($l, q{SELECT "c r".cascade_follow('p', conninfo => '} . $p->connstr . q{')}, 'a move calls the other node')), qr/NOTICE/, 'which adopts');
like(value($l, q{SELECT "c r".cascade_follow('i', conninfo => '} . $i->connstr . q{')}), qr/i/, 'and back');
wait_protected($l);
my $hint = hint($p, 'schema_open', 'p');
works($p, $_, 'the schema') for commands($hint);
gone($p, 'schema_open', 'p');
wait_caught_up($p, $i, $l, $m);
gone($_, 'schema_open', $_->name) for $i, $l;
$_->safe_psql('postgres', 'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $$cascade_relay$$') for $p, $i;
wait_connected($i, $l, $m);
$p->safe_psql('postgres', 'GRANT CREATE ON SCHEMA cascade_relay TO joe');
works($p, $_, 'a grant') for commands(hint($p, 'schema_open', 'p'));
gone($p, 'schema_open', 'p');

# ---- slots that nobody uses ----

$_->append_conf('postgresql.conf', "cascade_relay.ignore_slots = 'ignored%'") for $i;
$i->reload;
value($i, q{SELECT pg_create_physical_replication_slot('ignored_1', true), pg_create_physical_replication_slot('unknown_1', true)});
write_segments($p, 6);
wait_caught_up($p, $i, $l, $m);
works($i, $_, 'an unknown slot') for commands(hint($i, 'orphan_slot', 'unknown_1'));
gone($i, 'orphan_slot', 'unknown_1');
works($i, $_, 'an ignored slot') for commands(hint($i, 'idle_slot', 'ignored_1'));
gone($i, 'idle_slot', 'ignored_1');

# ---- a leaf is gone for good ----

$m->stop;
$hint = hint($p, 'stale_node', 'm');
like($hint, qr/on node "i": SELECT cascade_relay\.cascade_forget\('m'\);$/, 'p says where it is to be forgotten');
my $said = works($i, (commands($hint))[0], 'a node that is gone');
works($i, $_, 'its slot') for commands($said);
is(value($i, q{SELECT count(*) FROM cascade_downstreams WHERE name = 'm'}), '0', 'nothing is left of it');
gone($_, 'stale_node', 'm') for $i, $p;

# ---- an intermediate is, and what was below it is not attached elsewhere ----

$i->stop;
wait_for($p, q{SELECT state FROM cascade_topology WHERE node_name = 'i'}, 'i is away', 'down');
($rc, undef, $err) = paste($p, q{SELECT cascade_relay.cascade_forget('i')});
isnt($rc, 0, 'i cannot be forgotten');
like($err, qr/HINT: .*SELECT cascade_relay\.cascade_forget\('i', true\);/, 'and it is said how it can');

# the leaf moves by the command that p has for it
my $command = value($p, q{SELECT command FROM cascade_upstream_candidates('l', without => 'i') WHERE rank = 1});
like($command, qr/cascade_relay\.cascade_(?:follow|adopt)\(/, 'the way for l');
SKIP:
{
	skip 'its address is not known', 1 unless $command =~ /^SELECT cascade_relay\.cascade_follow/;
	works($l, $command, 'l moves');
	wait_protected($l);
}
# a slot that is named and is not there is nothing to speak of
my $n = new_standby('n', $p, %quick, slotless => 1, conf => $quick{conf} . "primary_slot_name = 'nowhere'\nwal_receiver_create_temp_slot = off\n");
wait_connected($n);
unlike(works($n, q{SELECT cascade_relay.cascade_follow('p', conninfo => '} . $p->connstr . q{')}, 'n gets a slot'), qr/nowhere/, 'and no other stays');

$said = works($p, (commands($err))[0], 'i is given up');
works($p, $_, 'its slot') for commands($said);
is(value($p, q{SELECT count(*) FROM cascade_downstreams WHERE name = 'i'}), '0', 'nothing is left of it');

done_testing();
