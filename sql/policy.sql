--
-- The policy: where a node should stream from, for every question that can be
-- asked about a tree.  The trees are described as text, so nothing is
-- preloaded here; a change of a rule shows as a difference in a table.
--
SET client_min_messages = warning;
CREATE EXTENSION cascade_relay;
\pset null '-'

--
-- The whole table for a healthy tree: a synchronous standby, and an
-- intermediate with two leaves.  A NULL node is one that is not there yet, a
-- NULL request asks for nothing.
--
--		p ---- s (voting)
--		 `---- i ---- l1
--		        `---- l2
--
\set healthy 'p; s < p class=voting; i < p; l1 < i; l2 < i'
SELECT * FROM cascade_policy(:'healthy');

-- what holds for every answer to every question: somebody else, and never
-- somebody below; a voting member streams from the primary; who is refused too
SELECT count(*) AS questions,
	count(*) FILTER (WHERE upstream_name = node_name) AS themselves,
	count(*) FILTER (WHERE replica_class = 'voting' AND is_cascade) AS voting_cascades,
	count(*) FILTER (WHERE refusal IS NOT NULL AND upstream_name <> 'p') AS refused_elsewhere,
	count(*) FILTER (WHERE refusal IS NULL AND upstream_name <> coalesce(requested, 'p')) AS changed_silently,
	count(*) FILTER (WHERE is_cascade <> (upstream_name <> 'p')) AS wrong_cascades
FROM cascade_policy(:'healthy');

--
-- One trouble after the other: what a read replica is told that asks for the
-- node in trouble, or that is it
--
-- states
SELECT state, node_name, requested, upstream_name, is_cascade, refusal
FROM unnest('{streaming,catchup,archive,stale,down,diverged,duplicate,cycle}'::text[]) WITH ORDINALITY AS s(state, n),
	LATERAL cascade_policy('p; i < p state=' || state || '; l < p')
WHERE replica_class = 'read_replica' AND node_name = 'l' AND requested = 'i'
ORDER BY n;
-- WAL: what l needs begins at 0/5000000; the upstream has it from here on
SELECT oldest, upstream_name, is_cascade, refusal
FROM unnest('{0/0,0/4000000,0/5000000,0/5000001,0/6000000}'::text[]) WITH ORDINALITY AS o(oldest, n),
	LATERAL cascade_policy('p; i < p oldest=' || oldest || '; l < p replay=0/5ABCDEF')
WHERE replica_class = 'read_replica' AND node_name = 'l' AND requested = 'i'
ORDER BY n;
-- ... which is no matter while it streams from there
SELECT upstream_name, is_cascade, refusal
FROM cascade_policy('p; i < p oldest=0/6000000; l < i replay=0/5ABCDEF')
WHERE replica_class = 'read_replica' AND node_name = 'l' AND requested = 'i';
-- timelines: a primary will never be where a node from its future is; of
-- standbys too little is known here
SELECT requested, upstream_name, is_cascade, refusal
FROM cascade_policy('p timeline=2; q timeline=1; i < p timeline=2; l < p timeline=2')
WHERE replica_class = 'read_replica' AND node_name = 'l' AND requested IN ('p', 'q', 'i');

--
-- Which primary: the one that is there, then the latest
--
SELECT tree, upstream_name
FROM (VALUES ('old state=stale timeline=1; new timeline=2; l < new timeline=2'),
	('old timeline=1; new timeline=2; l < new timeline=2'),
	('old timeline=1; new state=stale timeline=2; l < new timeline=2'),
	('p state=down; l < p')) AS t(tree),
	LATERAL cascade_policy(tree)
WHERE replica_class = 'voting' AND node_name = 'l' AND requested IS NULL;

--
-- No primary at all: whoever is asked for by name will do, and else nobody
--
SELECT * FROM cascade_policy('i < gone; l < i');

--
-- Cycles, drawn cut open: who is on one may ask for nobody else on it
--
SELECT * FROM cascade_policy('p; a < c; b < a; c < b; d < c')
WHERE replica_class = 'read_replica' AND (requested IN ('a', 'b', 'c', 'd') OR requested IS NULL);
SELECT * FROM cascade_policy('p; a < a')
WHERE replica_class = 'read_replica' AND has_conninfo = false AND requested <> 'unknown';

--
-- Several reasons at once: the first by precedence is given
--
SELECT tree, node_name, replica_class, requested, refusal
FROM (VALUES
	-- itself, voting, down
	('p; i < p state=down', 'i', 'voting', 'i'),
	-- below itself, voting
	('p; i < p; l < i', 'i', 'voting', 'l'),
	-- unknown, voting
	('p', NULL, 'voting', 'unknown'),
	-- voting, diverged
	('p; i < p state=diverged; s < p', 's', 'voting', 'i'),
	-- diverged, down
	('p; q timeline=1 state=down; l < p timeline=2', 'l', 'read_replica', 'q'),
	-- down, without the WAL
	('p; i < p state=down oldest=0/7000000; l < p', 'l', 'read_replica', 'i'))
	AS t(tree, asking, class, asked),
	LATERAL cascade_policy(tree)
WHERE node_name IS NOT DISTINCT FROM asking AND replica_class = class
	AND requested = asked AND NOT has_conninfo;

--
-- A node that is full
--
SELECT node_name, requested, upstream_name, refusal
FROM cascade_policy('p room=0/9; i < p room=3/0; j < p room=1/1; l < j')
WHERE node_name = 'l' AND replica_class = 'read_replica' AND NOT has_conninfo;

--
-- Trees that are none
--
SELECT * FROM cascade_policy('') WHERE replica_class = 'voting';
SELECT count(*) FROM cascade_policy(E' ;; \n ; ');
\set VERBOSITY terse
SELECT * FROM cascade_policy('p; p');
SELECT * FROM cascade_policy('p <');
SELECT * FROM cascade_policy('p < a < b');
SELECT * FROM cascade_policy('p state');
SELECT * FROM cascade_policy('p state=');
SELECT * FROM cascade_policy('p state=happy');
SELECT * FROM cascade_policy('p class=auto');
SELECT * FROM cascade_policy('p colour=red');
SELECT * FROM cascade_policy('p timeline=x');
SELECT * FROM cascade_policy('p timeline=99999999999');
SELECT * FROM cascade_policy('p replay=here');
SELECT * FROM cascade_policy('p location=');
SELECT * FROM cascade_policy('p room=3');
SELECT * FROM cascade_policy('p room=x/3');
SELECT * FROM cascade_policy(repeat('x', 80));
SELECT count(*) FROM cascade_policy(repeat('x', 79));
\set VERBOSITY default
SELECT * FROM cascade_policy('p state=happy');

--
-- The real tree takes the library preloaded
--
\set VERBOSITY sqlstate
SELECT * FROM cascade_policy();
SELECT * FROM cascade_plan_upstream('l');
SELECT * FROM cascade_upstream_candidates();
SELECT cascade_oldest_wal_file();
-- what is wrong in itself is said first
SELECT * FROM cascade_plan_upstream('l', 'janitor');

-- there is an end to it
SELECT count(*) FROM cascade_policy((SELECT string_agg('n' || n || CASE n WHEN 1 THEN '' ELSE ' < n1' END, ';') FROM generate_series(1, 60) n));
SELECT count(*) FROM cascade_policy((SELECT string_agg('n' || n, ';') FROM generate_series(1, 501) n));
SELECT count(*) FROM cascade_policy(repeat(';', 100000));
SELECT count(*) FROM cascade_policy('p ' || repeat('x', 1024 * 1024));

DROP EXTENSION cascade_relay;
