# The tree and the frontier, against an oracle.
#
#	(n) ─┬─ (n) ─┬─ (n)     thousands of random trees, most of them odd
#	     └─ (n)  └─ (n)
#
# t/unit/tree_dump.c makes trees of every kind - chains, bushes, cycles, nodes
# that feed themselves, orphans, namesakes, second rows of one node, primaries
# below standbys, unknown and equal LSNs, downstreams that do not count - and
# says for each node what the C sources decide: its row, parent, depth, cycle,
# whether it counts, its frontier and hold target, and who pins it.  There each
# node sees its children's reports alone.  The oracle knows nothing of reports:
# it follows the upstreams in SQL, by recursion over everything below a node or
# above it, and must come to the same answers.  No server here has the extension.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{CRELAY_SEED} // 20261120;
my $trees = 4000;
# built by "make installcheck", and by "make tmp_unit/tree_dump"
my $tree_dump = ($ENV{TESTDIR} // '.') . '/tmp_unit/tree_dump';

note("seed $seed");
my $node = PostgreSQL::Test::Cluster->new('oracle');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nautovacuum = off\nwork_mem = '64MB'\njit = off\n");
$node->start;

my $dump = $node->basedir . '/trees';
command_ok([ 'sh', '-c', '"$0" "$1" "$2" >"$3"', $tree_dump, $seed, $trees, $dump ],
	"$trees random trees of seed $seed");

$node->safe_psql('postgres', q{
CREATE TABLE dumped (
	tree int, idx int, name text COLLATE "C", incarnation bigint,
	up_name text COLLATE "C", up_incarnation bigint, is_primary bool, state text,
	observed_at bigint, applied bigint, redo bigint, slot_lsn bigint, kind text,
	active bool, reported bool, released bool, elsewhere bool, invalidated bool,
	own bool, logical bool, temporary bool, ignored bool, backup bool, via_hold bool,
	got_row int, got_parent int, got_depth int, got_cyclic bool, got_counted bool,
	got_frontier bigint, got_target bigint, got_pinned_by text COLLATE "C")});
$node->safe_psql('postgres', "\\copy dumped FROM '$dump'");

# Of several rows of one node there remains one: who sees it connected, the one
# given first; else who saw it last.  An unmanaged node is one by its name and
# its feeder, if that is known.  rank is the order of siblings.
$node->safe_psql('postgres', q{
CREATE TABLE node AS
SELECT *, row_number() OVER (PARTITION BY tree
							 ORDER BY name, incarnation, up_name, up_incarnation, idx)::int AS rank
FROM (SELECT *, row_number() OVER (
			PARTITION BY tree, name, incarnation,
				CASE WHEN incarnation = 0 THEN up_name END,
				CASE WHEN incarnation = 0 THEN up_incarnation END,
				CASE WHEN incarnation = 0 AND up_incarnation = 0 THEN idx END
			ORDER BY state IN ('down', 'stale'),
				CASE WHEN state IN ('down', 'stale') THEN -observed_at ELSE idx END,
				up_name, up_incarnation, idx) AS nth
	  FROM dumped) d
WHERE nth = 1;

-- who streams from whom, and the closure of it
CREATE TABLE link AS
SELECT c.tree, c.idx, p.idx AS parent
FROM node c JOIN node p ON p.tree = c.tree AND p.name = c.up_name
						AND p.incarnation = c.up_incarnation AND p.incarnation <> 0;
ANALYZE node, link;

CREATE TABLE above AS
WITH RECURSIVE above AS (
	SELECT tree, idx, parent AS ancestor FROM link
	UNION
	SELECT a.tree, a.idx, l.parent
	FROM above a JOIN link l ON l.tree = a.tree AND l.idx = a.ancestor)
SELECT * FROM above;
ANALYZE above;
});

# A stale row of another life of a node that is live is not drawn, unless there
# is another row below it that is.
$node->safe_psql('postgres', q{
CREATE TABLE over AS
SELECT n.tree, n.idx FROM node n
WHERE n.incarnation <> 0 AND n.state = 'stale'
	AND EXISTS (SELECT FROM node l WHERE l.tree = n.tree AND l.name = n.name
				AND l.incarnation <> 0 AND l.state IN ('running', 'streaming', 'catchup', 'archive', 'disconnected'));
CREATE TABLE former AS
SELECT tree, idx FROM over o
WHERE NOT EXISTS (SELECT FROM above a WHERE a.tree = o.tree AND a.ancestor = o.idx
				  AND NOT EXISTS (SELECT FROM over b WHERE b.tree = a.tree AND b.idx = a.idx));
-- nor is one without an incarnation that has a managed namesake beside it
INSERT INTO former
SELECT n.tree, n.idx FROM node n JOIN link l USING (tree, idx)
WHERE n.incarnation = 0
	AND EXISTS (SELECT FROM node m JOIN link k USING (tree, idx)
				WHERE m.tree = n.tree AND m.name = n.name AND m.incarnation <> 0
				AND k.parent = l.parent AND k.idx <> k.parent AND m.state NOT IN ('down', 'stale'));
DELETE FROM node USING former f WHERE f.tree = node.tree AND f.idx = node.idx;
DELETE FROM link USING former f WHERE f.tree = link.tree AND f.idx IN (link.idx, link.parent);
DELETE FROM above USING former f WHERE f.tree = above.tree AND f.idx IN (above.idx, above.ancestor);
ANALYZE node, link, above;
});

# ---- the tree ----

# A cycle is cut at its first member.  What hangs from that comes last, the
# groups in the order of the first of all their names.
$node->safe_psql('postgres', q{
CREATE TABLE cut AS
SELECT DISTINCT ON (r.tree, r.idx) r.tree, r.idx, m.idx AS top
FROM (SELECT tree, idx, ancestor FROM above) r
	JOIN above self ON self.tree = r.tree AND self.idx = r.ancestor AND self.ancestor = r.ancestor
	JOIN node m ON m.tree = r.tree AND m.idx = r.ancestor
ORDER BY r.tree, r.idx, m.rank;

CREATE TABLE expected_tree AS
WITH RECURSIVE top AS (
	SELECT n.tree, n.idx, CASE WHEN NOT n.is_primary THEN 2
		WHEN n.state IN ('running', 'streaming', 'catchup', 'archive', 'disconnected') THEN 0 ELSE 1 END AS part,
		n.rank AS place
	FROM node n WHERE NOT EXISTS (SELECT FROM link l WHERE l.tree = n.tree AND l.idx = n.idx)
	UNION ALL
	SELECT c.tree, c.top, 3, min(n.rank)
	FROM cut c JOIN node n ON n.tree = c.tree AND n.idx = c.idx
	GROUP BY c.tree, c.top
), drawn AS (
	SELECT tree, idx, NULL::int AS parent, CASE WHEN part < 2 THEN 0 ELSE 1 END AS depth,
		ARRAY[part, place] AS place
	FROM top
	UNION ALL
	SELECT d.tree, l.idx, d.idx, d.depth + 1, d.place || n.rank
	FROM drawn d
		JOIN link l ON l.tree = d.tree AND l.parent = d.idx
		JOIN node n ON n.tree = l.tree AND n.idx = l.idx
	WHERE NOT EXISTS (SELECT FROM top t WHERE t.tree = l.tree AND t.idx = l.idx)
)
SELECT tree, idx, (row_number() OVER (PARTITION BY tree ORDER BY place) - 1)::int AS "row",
	parent, depth,
	EXISTS (SELECT FROM above a WHERE a.tree = d.tree AND a.idx = d.idx AND a.ancestor = d.idx) AS cyclic
FROM drawn d});

# ---- the frontier ----

# What counts is the design's list; that something is via_hold changes nothing,
# because there is no hold beside it.  A child that has reported is followed into
# its own tree, unless it does not know its own position; then its slot speaks
# for it, as for everything else that counts.  The first in depth-first order,
# a node before what is below it, pins.  The target knows also the redo of each
# node that was followed, and its hold.
$node->safe_psql('postgres', q{
CREATE TABLE edge AS
SELECT n.tree, n.idx, l.parent, n.slot_lsn, n.name, n.applied, n.redo, counted,
	counted AND kind = 'hold' AND reported AND applied <> 0 AS followed
FROM node n JOIN link l USING (tree, idx),
	LATERAL (SELECT n.idx = l.parent
			 OR EXISTS (SELECT FROM above a WHERE a.tree = n.tree AND a.idx = l.parent
						AND a.ancestor = n.idx) AS on_path) p,
	LATERAL (SELECT NOT on_path AND NOT released AND CASE kind
			 WHEN 'hold' THEN NOT own AND NOT elsewhere AND (reported OR NOT invalidated AND slot_lsn <> 0)
			 WHEN 'slot' THEN NOT (logical OR temporary OR ignored OR invalidated)
				AND slot_lsn <> 0 AND (active OR NOT elsewhere)
			 WHEN 'walsender' THEN NOT (backup OR logical OR ignored) AND slot_lsn <> 0
			 END AS counted) c;
ANALYZE edge;

CREATE TABLE expected_frontier AS
WITH RECURSIVE down AS (
	SELECT tree, idx AS of, idx, '{}'::int[] AS place, name, applied AS confirmed,
		ARRAY[applied, redo] AS wanted, applied <> 0 AS followed
	FROM node WHERE incarnation <> 0
	UNION ALL
	SELECT d.tree, d.of, e.idx, d.place || e.idx, e.name,
		CASE WHEN e.followed THEN e.applied ELSE e.slot_lsn END,
		CASE WHEN e.followed THEN ARRAY[e.applied, e.redo, e.slot_lsn] ELSE ARRAY[e.slot_lsn] END,
		e.followed
	FROM down d JOIN edge e ON e.tree = d.tree AND e.parent = d.idx AND e.counted AND d.followed
), first AS (
	SELECT DISTINCT ON (tree, of) tree, of, confirmed, name
	FROM down WHERE confirmed <> 0 OR of = idx
	ORDER BY tree, of, confirmed, place
), target AS (
	SELECT tree, of, min(lsn) AS lsn FROM down, unnest(wanted) lsn
	WHERE lsn <> 0 GROUP BY tree, of
)
SELECT tree, of AS idx, f.confirmed AS frontier,
	CASE WHEN f.confirmed = 0 THEN 0 ELSE t.lsn END AS target, f.name AS pinned_by
FROM first f LEFT JOIN target t USING (tree, of)});

# ---- the same? ----

sub same
{
	my ($what, $got, $expected) = @_;
	my ($differ, $first) = split /\|/, $node->safe_psql('postgres', qq{
		WITH got AS ($got), expected AS ($expected), differ AS (
			(SELECT 'expected' AS what, * FROM (TABLE expected EXCEPT ALL TABLE got) e)
			UNION ALL (SELECT 'got', * FROM (TABLE got EXCEPT ALL TABLE expected) g))
		SELECT count(*), (SELECT string_agg(d::text, E' ' ORDER BY d.tree, d.idx, d.what)
			FROM (SELECT * FROM differ ORDER BY tree, idx, what LIMIT 6) d)
		FROM differ});

	is($differ, 0, $what) or diag("seed $seed: $first");
	return;
}

same('the same nodes are left of those that two rows speak of',
	'SELECT tree, idx FROM dumped WHERE got_row IS NOT NULL', 'SELECT tree, idx FROM node');
same('order, upstream and depth of every node, and which lie on a cycle',
	'SELECT tree, idx, got_row, got_parent, got_depth, got_cyclic FROM dumped WHERE got_row IS NOT NULL',
	'SELECT tree, idx, "row", parent, depth, cyclic FROM expected_tree');
same('what counts',
	'SELECT tree, idx, got_counted FROM dumped WHERE got_counted IS NOT NULL',
	'SELECT tree, idx, counted FROM edge');
same('the frontier of every node, and who pins it',
	'SELECT tree, idx, got_frontier, got_pinned_by FROM dumped WHERE got_frontier IS NOT NULL',
	'SELECT tree, idx, frontier, pinned_by FROM expected_frontier');
same('what every node asks its upstream to hold',
	'SELECT tree, idx, got_target FROM dumped WHERE got_frontier IS NOT NULL',
	'SELECT tree, idx, target FROM expected_frontier');

# An oracle that is only asked easy questions proves nothing.
my %seen;
@seen{qw(trees nodes dropped cyclic orphaned below_cycle deep uncounted pinned_below tied unknown former old_first)} =
  split /\|/, $node->safe_psql('postgres', q{
	SELECT count(DISTINCT tree), count(*), count(*) FILTER (WHERE got_row IS NULL),
		count(DISTINCT tree) FILTER (WHERE got_cyclic),
		count(*) FILTER (WHERE got_depth = 1 AND got_parent IS NULL AND NOT got_cyclic),
		count(*) FILTER (WHERE NOT got_cyclic AND EXISTS (
			SELECT FROM cut c WHERE c.tree = dumped.tree AND c.idx = dumped.idx)),
		count(*) FILTER (WHERE got_depth > 10),
		count(*) FILTER (WHERE NOT got_counted),
		count(*) FILTER (WHERE got_pinned_by <> name),
		(SELECT count(*) FROM edge e JOIN expected_frontier c USING (tree, idx)
			JOIN expected_frontier p ON p.tree = e.tree AND p.idx = e.parent
			WHERE e.followed AND c.frontier = p.frontier AND c.pinned_by <> p.pinned_by),
		count(*) FILTER (WHERE got_frontier = 0), (SELECT count(*) FROM former),
		(SELECT count(*) FROM node a JOIN node b USING (tree)
			WHERE a.is_primary AND b.is_primary AND a.state = 'stale' AND b.state = 'running' AND a.rank < b.rank)
	FROM dumped});
note(join ', ', map { "$_ $seen{$_}" } sort keys %seen);
is($seen{trees}, $trees, 'every tree was looked at');
cmp_ok($seen{$_}, '>=', 100, "enough of them: $_")
  for qw(dropped cyclic orphaned below_cycle deep uncounted pinned_below tied unknown former old_first);

$node->stop;
done_testing();
