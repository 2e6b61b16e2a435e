# What cannot be moved by cascade_follow is moved by hand, with printed commands.
#
#	p ─── i ─┬─ u		without the extension; primary_conninfo is a URI
#	         └─ k		without it, too; keywords, with several hosts and
#			the choice among them
#
# i dies.  p prints what to run on p and on each of them, and that is run in psql as it
# is printed, under a search_path full of traps.  All stream from p then, as the user
# and with the TLS and passwords that they had.  What p advertises beside its address
# is not taken over, and no log shows the statement with the password.
use strict;
use warnings FATAL => 'all';

use CascadeRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $secret = 'hunter2 & more?';
my $p = new_primary('p');
$p->safe_psql('postgres', "SET log_statement = 'none'; CREATE ROLE repl LOGIN REPLICATION PASSWORD '$secret'");
add_rows($p, 1);
my $i = new_standby('i', $p);
my $u = new_standby('u', $i, unmanaged => 1);
my $k = new_standby('k', $i, unmanaged => 1);
my %before;

# A socket directory in a URI needs its slashes encoded.
sub encoded { my ($text) = @_; return $text =~ s/([^A-Za-z0-9_.-])/sprintf '%%%02X', ord $1/ger; }

sub set_conninfo
{
	my ($node, $conninfo) = @_;

	$before{ $node->name } = $conninfo;
	$node->append_conf('postgresql.conf', q{primary_conninfo = '} . $conninfo =~ s/'/''/gr . q{'});
	$node->restart;
	wait_for($node, q{SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'}, $node->name . ' streams from i', 1);
	return;
}

set_conninfo($u, 'postgresql://repl:' . encoded($secret) . '@' . encoded($i->host) . ':' . $i->port . '/?sslmode=prefer&application_name=u');
set_conninfo($k, 'host=' . $i->host . ',' . $p->host . ' port=' . $i->port . ',1 user=repl password=\'' . $secret . '\' target_session_attrs=standby application_name=k sslmode=prefer');

# Beside its address p says what others should do.
set_conf($p, q{cascade_relay.advertised_conninfo = 'sslmode=disable port=} . $p->port . q{ host=} . $p->host . q{ user=nobody options=-cwork_mem=64kB'});
wait_for($p, q{SELECT count(*) FROM cascade_topology WHERE node_name IN ('u', 'k') AND state = 'streaming' AND path[2] = 'i'}, 'p knows u and k', 2);
wait_caught_up($p, $i, $u, $k);
look_around($i);

# Whoever runs the commands has a search_path of traps.
$p->safe_psql('postgres', q{CREATE SCHEMA trap;
CREATE FUNCTION trap.format(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'SELECT 1/0 AS trapped' $$;
CREATE FUNCTION trap.concat(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'trapped'::text $$;
CREATE FUNCTION trap.eq(text, text) RETURNS bool LANGUAGE sql AS $$ SELECT false $$;
CREATE OPERATOR trap.~ (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.eq);
CREATE FUNCTION trap.pg_reload_conf() RETURNS bool LANGUAGE sql AS $$ SELECT false $$;
CREATE FUNCTION trap.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT 'trapped'::text $$;
ALTER DATABASE postgres SET search_path = trap, pg_catalog, public});
wait_caught_up($p, $i, $u, $k);

# ---- i dies ----

kill_node($i);
my %node = (p => $p, u => $u, k => $k);

# Runs what is printed, on the nodes that it names.
sub run_by_hand
{
	my ($name) = @_;
	my $command = value($p, "SELECT command FROM public.cascade_upstream_candidates('$name', without => 'i') WHERE upstream_name = 'p'");
	my @parts = split /^-- on (\w+):\n/m, $command;

	note($command);
	unlike($command, qr/hunter2|sslmode|nobody|work_mem/, "what is printed for $name tells no secret, and takes nothing but the address of p");
	is(shift @parts, '', 'it says where to begin');
	while (my ($on, $sql) = splice @parts, 0, 2)
	{
		my ($out, $err);

		$node{$on}->psql('postgres', $sql, stdout => \$out, stderr => \$err, on_error_stop => 1);
		is($err, '', "it runs on $on");
		unlike($out, qr/hunter2/, '... and shows no password');
	}
	return;
}

for my $name (qw(u k))
{
	my $node = $node{$name};

	run_by_hand($name);
	wait_for($node, q{SELECT sender_host || ' ' || sender_port || ' ' || slot_name FROM pg_stat_wal_receiver WHERE status = 'streaming'},
		"$name streams from p", $p->host . ' ' . $p->port . " $name");
	my $after = value($node, 'SHOW primary_conninfo');
	is(substr($after, 0, length $before{$name}), $before{$name}, "$name has kept all that was configured");
	is(value($p, "SELECT usename FROM pg_stat_replication WHERE application_name = '$name'"), 'repl', '... and comes as the user that it was');
	unlike(slurp_file($node->logfile), qr/statement: ALTER SYSTEM SET primary_conninfo/, '... and its log does not have the statement');
}
add_rows($p, 1);
same_rows($p, $u, $k);

# ---- a node that does not exist yet ----

my $clone = value($p, q{SELECT command FROM public.cascade_upstream_candidates('brand_new') WHERE upstream_name = 'p'});
is($clone, q{pg_basebackup -D "$PGDATA" -d 'host=} . $p->host . ' port=' . $p->port . q{' -X stream -c fast -C -S 'brand_new' -R}, 'a clone takes nothing but the address either');

done_testing();
