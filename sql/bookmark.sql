--
-- Causal reads on a server that does not preload cascade_relay: what is a
-- bookmark, how long one may wait, from where, and who may.
--
-- Taking and awaiting a bookmark needs nothing but the server's own WAL
-- position; asking after another node needs the tree.
--
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE EXTENSION cascade_relay;

-- what has been committed here is here
SELECT cascade_bookmark() ~ '^1:[0-9A-F]+/[0-9A-F]+$' AS looks_like_one;
CALL cascade_wait_for(cascade_bookmark());
CALL cascade_wait_for(cascade_bookmark(), '0');
CALL cascade_wait_for(timeout => '1 minute', bookmark => '1:0/1');

-- a bookmark of what came last, also when it has not been written to disk, and
-- when it fills its segment to the end
SET synchronous_commit = off;
CREATE TABLE regress_cascade_marked AS SELECT 1 AS n;
CALL cascade_wait_for(cascade_bookmark(), '0');
SELECT pg_switch_wal() IS NOT NULL AS switched;
CALL cascade_wait_for(cascade_bookmark(), '0');
SELECT split_part(cascade_bookmark(), ':', 2)::pg_lsn <= pg_current_wal_flush_lsn() AS on_disk;
RESET synchronous_commit;
DROP TABLE regress_cascade_marked;

-- what has not come yet: an LSN, or a timeline, of the future
CALL cascade_wait_for('1:FFFFFFFF/FFFFFFFF', '0');
CALL cascade_wait_for('1:FFFFFFFF/FFFFFFFF', '20 ms');
CALL cascade_wait_for('4294967295:0/1', '20 ms');

-- no bookmarks
CALL cascade_wait_for('');
CALL cascade_wait_for('0/3000060');
CALL cascade_wait_for('1:0/3000060 ');
CALL cascade_wait_for('-1:0/3000060');
CALL cascade_wait_for('0:0/3000060');
CALL cascade_wait_for('1:0/0');
CALL cascade_wait_for('1:100000000/0');
CALL cascade_wait_for('4294967296:0/1');
CALL cascade_wait_for(repeat('long ', 100000));
CALL cascade_wait_for(NULL);
SELECT cascade_can_serve('leaf', 'x');
SELECT * FROM cascade_nodes_serving('x');

-- no timeouts
CALL cascade_wait_for('1:0/1', '-1 microsecond');
CALL cascade_wait_for('1:0/1', '-1 month');
CALL cascade_wait_for('1:0/1', NULL);
-- longer than can be counted
CALL cascade_wait_for('1:0/1', '178000000 years');
SET statement_timeout = '20ms';
CALL cascade_wait_for('1:FFFFFFFF/FFFFFFFF', '178000000 years');
RESET statement_timeout;

-- where a snapshot is in the way
\set VERBOSITY sqlstate
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL cascade_wait_for('1:0/1');
ROLLBACK;
BEGIN;
DECLARE regress_cascade_cursor CURSOR FOR SELECT 1;
CALL cascade_wait_for('1:0/1');
ROLLBACK;
CREATE FUNCTION regress_cascade_waits() RETURNS bool LANGUAGE plpgsql AS $$
DECLARE reached bool;
BEGIN
	CALL cascade_wait_for('1:0/1', '1s', reached);
	RETURN reached;
END $$;
SELECT regress_cascade_waits();
DO $$
DECLARE ok bool; r record;
BEGIN
	FOR r IN SELECT 1 LOOP CALL cascade_wait_for('1:0/1', '1s', ok); END LOOP;
END $$;
BEGIN;
DO $$
DECLARE ok bool; r record;
BEGIN
	CALL cascade_wait_for('1:0/1', '1s', ok);
END $$;
ROLLBACK;
\set VERBOSITY default
-- refused in a block whose error is caught, and nothing is amiss after it
DO $$
DECLARE reached bool;
BEGIN
	CALL cascade_wait_for('1:0/1', '1s', reached);
EXCEPTION WHEN active_sql_transaction THEN
	IF (SELECT count(*) FROM pg_class WHERE relname = 'pg_class') <> 1 THEN
		RAISE 'the snapshot is gone';
	END IF;
	RAISE WARNING '%', SQLERRM;
END $$;

-- where it can be given up, and is back afterwards
BEGIN;
CALL cascade_wait_for('1:0/1');
SELECT count(*) FROM pg_class WHERE relname = 'pg_class';
SAVEPOINT a;
CALL cascade_wait_for('1:0/1');
ROLLBACK TO a;
CALL cascade_wait_for('1:0/1');
SELECT count(*) FROM pg_class WHERE relname = 'pg_class';
COMMIT;
CREATE PROCEDURE regress_cascade_reads(INOUT n int) LANGUAGE plpgsql AS $$
DECLARE reached bool;
BEGIN
	CALL cascade_wait_for('1:0/1', '1s', reached);
	SELECT count(*) INTO n FROM pg_class WHERE relname = 'pg_class' AND reached;
	COMMIT;
	CALL cascade_wait_for(cascade_bookmark(), '1s', reached);
	n := n + CASE WHEN reached THEN 1 END;
END $$;
CALL regress_cascade_reads(NULL);

-- a row lock is no change
CREATE TABLE locked (a int);
INSERT INTO locked VALUES (1);
BEGIN;
SELECT a FROM locked FOR UPDATE;
SELECT cascade_bookmark() IS NOT NULL AS after_lock;
SAVEPOINT s;
INSERT INTO locked VALUES (2);
SELECT cascade_bookmark();
ROLLBACK TO s;
SELECT cascade_bookmark() IS NOT NULL AS after_rollback_to_savepoint;
ROLLBACK;
BEGIN;
CREATE TABLE uncommitted (a int);
SELECT cascade_bookmark();
ROLLBACK;
DROP TABLE locked;
-- what is not committed yet has no bookmark
BEGIN;
CREATE TEMP TABLE regress_cascade_open (n int);
SELECT cascade_bookmark();
ROLLBACK;

--
-- Who may: an application takes and awaits bookmarks as itself; whoever asks
-- after nodes monitors
--
CREATE ROLE regress_cascade_app;
CREATE ROLE regress_cascade_monitor;
GRANT pg_monitor TO regress_cascade_monitor;
\set VERBOSITY sqlstate
SET ROLE regress_cascade_app;
CALL cascade_wait_for(cascade_bookmark(), '0');
SELECT cascade_can_serve('leaf', '1:0/1');
SELECT * FROM cascade_nodes_serving('1:0/1');
SET ROLE regress_cascade_monitor;
SELECT cascade_can_serve('leaf', '1:0/1');
SELECT * FROM cascade_nodes_serving('1:0/1');
-- a missing argument needs no tree
SELECT cascade_can_serve(NULL, '1:0/1') IS NULL AND cascade_can_serve('leaf', NULL) IS NULL AS unknown;
SELECT count(*) FROM cascade_nodes_serving(NULL);
RESET ROLE;
\set VERBOSITY default

DROP FUNCTION regress_cascade_waits();
DROP PROCEDURE regress_cascade_reads(int);
DROP EXTENSION cascade_relay;
DROP ROLE regress_cascade_app, regress_cascade_monitor;
