--
-- What works, and what is said, on a server that has the files of
-- cascade_relay but does not preload it.
--
-- There is no cascade here: messages are literals, and every decision that
-- this file sees is made before the shared memory would be needed.  What such a
-- server can do for a cascade is in t/038_unloaded_upstream.pl.
--
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE EXTENSION cascade_relay;
SELECT extversion, extrelocatable FROM pg_extension WHERE extname = 'cascade_relay';

-- everything that it brings, and nobody forgot to describe it; before 17 the
-- row types of views were no members
SELECT pg_describe_object(classid, objid, 0) AS member,
       obj_description(objid, classid::regclass::name) IS NOT NULL AS described
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cascade_relay')
  AND classid <> 'pg_type'::regclass
ORDER BY pg_describe_object(classid, objid, 0) COLLATE "C";
-- every column of a view is described, and every set has an estimate
SELECT a.attrelid::regclass, a.attname
FROM pg_attribute a JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = a.attrelid AND d.deptype = 'e'
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cascade_relay')
  AND a.attnum > 0 AND col_description(a.attrelid, a.attnum) IS NULL;
SELECT proname FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cascade_relay') AND proretset AND prorows = 1000;
SELECT obj_description(oid, 'pg_extension') IS NOT NULL AS described
FROM pg_extension WHERE extname = 'cascade_relay';

--
-- Every function that needs the shared memory says so
--
SELECT * FROM cascade_status;
\set VERBOSITY sqlstate
SELECT * FROM cascade_status;
SELECT * FROM cascade_status();
SELECT * FROM cascade_topology;
SELECT * FROM cascade_topology();
SELECT * FROM cascade_tree();
SELECT * FROM cascade_downstreams;
SELECT * FROM cascade_downstreams();
SELECT * FROM cascade_holds;
SELECT * FROM cascade_check;
SELECT * FROM cascade_check();
SELECT cascade_diagram();
SELECT cascade_diagram('dot');
SELECT * FROM cascade_graph_nodes;
SELECT * FROM cascade_graph_edges;
SELECT cascade_release('leaf');
SELECT cascade_adopt('leaf');
SELECT cascade_forget('leaf');
SELECT cascade_follow('root');
SELECT cascade_adopt(NULL);
\set VERBOSITY default
-- but for monitors: a failed query would look like a server that is down
SELECT name, type, node <> '' AS has_node, member, code, value FROM cascade_metrics;
SELECT regexp_replace(line, 'node=".*"', 'node="this"') AS line FROM cascade_openmetrics() line;
SELECT cascade_diagram('png');
SELECT cascade_diagram(NULL) IS NULL AS nothing;
-- a missing argument needs no shared memory
SELECT cascade_release(NULL) IS NULL AS nothing, cascade_report(NULL) IS NULL AS to_do;

--
-- Messages: looked at before anything else is
--
-- One that can be read is refused: this is another cluster than the sender's,
-- and nothing bounds what its slots keep.
CREATE FUNCTION answer(message bytea) RETURNS text LANGUAGE sql
AS $$ SELECT CASE get_byte(cascade_report(message), 18) WHEN 2 THEN 'refused' ELSE 'accepted' END $$;
-- a hello of node "leaf", and a report
\set hello '''\\x43524c59 01 01 01 00 0000002f  0001 0000001d 0123456789abcdef 000000000000002a feedbeef 000003e8 04 6c656166''::bytea'
\set report '''\\x43524c59 01 01 02 00 00000060  0002 0000004e 0000000000000001 000003e8 00000001 02000000 00000000 00000000 0000000003000000 0000000003000000 0000000003000000 0000000003000000 0000000000000000 00 00 00000000 00000000''::bytea'
SELECT answer(:hello);
SELECT answer(:report);
\set VERBOSITY sqlstate
SELECT cascade_report('');
\set VERBOSITY default
SELECT cascade_report('');
SELECT cascade_report('hello, world, how are you?');
SELECT cascade_report(substring(:hello FOR 11));
SELECT cascade_report(substring(:hello FOR 46));
SELECT cascade_report(:hello || '\x00');
-- magic; the sender's version, and the oldest reader's; kind; reserved; length
SELECT cascade_report(set_byte(:hello, 3, 88));
SELECT cascade_report(set_byte(:hello, 4, 0));
SELECT cascade_report(set_byte(:hello, 5, 2));
SELECT cascade_report(set_byte(:hello, 6, 4));
SELECT cascade_report(set_byte(:hello, 7, 1));
SELECT cascade_report(set_byte(:hello, 8, 255));
-- from a newer sender that an older reader may understand: taken
SELECT answer(set_byte(:hello, 4, 255));
-- one kind in the envelope, another one in it
SELECT cascade_report(set_byte(:hello, 6, 2));
SELECT cascade_report(set_byte(:report, 6, 1));
SELECT cascade_report(set_byte(:hello, 6, 3));
-- a section that is longer than the message; shorter than what is in it; twice
SELECT cascade_report(set_byte(:hello, 17, 30));
SELECT cascade_report(set_byte(substring(:hello FOR 46), 11, 46));
SELECT cascade_report(set_byte(set_byte(substring(:hello FOR 40), 11, 40), 17, 22));
SELECT cascade_report(set_byte(:hello || substring(:hello FROM 13), 11, 82));
-- an incarnation of zero; a name that is not ASCII; one that is empty can be
-- read, and is for the reply to refuse
SELECT cascade_report(overlay(:hello PLACING '\x00000000' FROM 35 FOR 4));
SELECT cascade_report(set_byte(:hello, 43, 200));
SELECT answer(set_byte(set_byte(set_byte(substring(:hello FOR 43), 11, 43), 17, 25), 42, 0));
-- a state, and a truth, that do not exist
SELECT cascade_report(set_byte(:report, 34, 99));
SELECT cascade_report(set_byte(:report, 36, 3));
-- 16 MB and a byte
SELECT cascade_report(:hello || decode(repeat('00', 16 * 1024 * 1024 - 46), 'hex'));

--
-- Who may do what
--
CREATE ROLE regress_cascade_monitor;
GRANT pg_monitor TO regress_cascade_monitor;
CREATE ROLE regress_cascade_reporter REPLICATION;
CREATE ROLE regress_cascade_nobody;

SELECT p.proname, r.rolname
FROM pg_proc p
  JOIN (VALUES ('regress_cascade_monitor'), ('regress_cascade_reporter'),
               ('regress_cascade_nobody')) r(rolname)
    ON has_function_privilege(r.rolname, p.oid, 'EXECUTE')
WHERE p.proname LIKE 'cascade\_%' ORDER BY p.proname COLLATE "C", r.rolname COLLATE "C";
SELECT c.relname, r.rolname, has_table_privilege(r.rolname, c.oid, 'SELECT') AS may_read
FROM pg_class c
  CROSS JOIN (VALUES ('regress_cascade_monitor'), ('regress_cascade_nobody')) r(rolname)
WHERE c.relname LIKE 'cascade\_%' AND c.relkind = 'v'
ORDER BY c.relname COLLATE "C", r.rolname COLLATE "C";

-- an ordinary role: refused before anything is looked at
SET ROLE regress_cascade_nobody;
SELECT cascade_report(:hello);
\set VERBOSITY sqlstate
SELECT answer(:hello);
SELECT cascade_report('');
SELECT * FROM cascade_status;
SELECT * FROM cascade_topology;
SELECT * FROM cascade_downstreams;
SELECT * FROM cascade_holds;
SELECT * FROM cascade_tree();
SELECT * FROM cascade_metrics;
SELECT * FROM cascade_openmetrics();
SELECT cascade_diagram();
SELECT * FROM cascade_graph_nodes;
SELECT * FROM cascade_graph_edges;
SELECT cascade_release('leaf');
SELECT cascade_adopt('leaf');
SELECT cascade_forget('leaf');
SELECT cascade_follow('root');
-- a role that may replicate: it may report, but it reads nothing
SET ROLE regress_cascade_reporter;
SELECT answer(:hello);
SELECT cascade_report('');
SELECT cascade_adopt('leaf');
SELECT cascade_follow('root');
SELECT * FROM cascade_status;
-- a role that monitors: reads, and does not act
SET ROLE regress_cascade_monitor;
SELECT count(*) FROM cascade_metrics;
SELECT count(*) FROM cascade_openmetrics();
SELECT cascade_diagram();
SELECT * FROM cascade_graph_nodes;
SELECT * FROM cascade_status;
SELECT * FROM cascade_topology;
SELECT * FROM cascade_downstreams;
SELECT * FROM cascade_holds;
SELECT * FROM cascade_tree();
SELECT answer(:hello);
SELECT cascade_release('leaf');
SELECT cascade_adopt('leaf');
SELECT cascade_forget('leaf');
SELECT cascade_follow('root');
RESET ROLE;
\set VERBOSITY default

--
-- It goes where it is told, and leaves nothing behind
--
CREATE SCHEMA regress_cascade_a;
CREATE SCHEMA regress_cascade_b;
DROP EXTENSION cascade_relay;
CREATE EXTENSION cascade_relay SCHEMA regress_cascade_a;
\set VERBOSITY sqlstate
SELECT * FROM regress_cascade_a.cascade_status;
ALTER EXTENSION cascade_relay SET SCHEMA regress_cascade_b;
SELECT * FROM regress_cascade_a.cascade_status;
SELECT * FROM regress_cascade_b.cascade_status;
SELECT * FROM regress_cascade_b.cascade_holds;
SELECT get_byte(regress_cascade_b.cascade_report(:hello), 18) = 2 AS refused;
\set VERBOSITY default
DROP EXTENSION cascade_relay;
SELECT count(*) AS left_behind FROM pg_proc WHERE proname LIKE 'cascade\_%';
SELECT count(*) AS left_behind FROM pg_class WHERE relname LIKE 'cascade\_%';

DROP FUNCTION answer(bytea);
DROP SCHEMA regress_cascade_a, regress_cascade_b;
DROP ROLE regress_cascade_monitor, regress_cascade_reporter, regress_cascade_nobody;
