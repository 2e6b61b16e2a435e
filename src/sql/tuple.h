/*-------------------------------------------------------------------------
 *
 * tuple.h
 *	  Filling the columns of a result row, unknown values as NULL.
 *
 * Owns: the translation of this extension's plain values into Datums, and the
 * memory that they take.
 *
 * Not here: which columns there are.
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_TUPLE_H
#define CRELAY_TUPLE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "decide/node.h"

#define CRELAY_MAX_COLUMNS	64

/* A row being filled from left to right. */
typedef struct CrelayTuple
{
	Datum		values[CRELAY_MAX_COLUMNS];
	bool		nulls[CRELAY_MAX_COLUMNS];
	int			n;
	MemoryContext memory;		/* of this row alone, or NULL */
	MemoryContext outer;
} CrelayTuple;

/*
 * Memory for rows one after the other.  Without, what each of them is made of
 * would stay until the function ends.
 */
static inline MemoryContext
crelay_row_memory(void)
{
	return AllocSetContextCreate(CurrentMemoryContext, "cascade_relay row",
								 ALLOCSET_SMALL_SIZES);
}

/*
 * One of many rows begins: until it is stored, its memory is the current one.
 * Whoever waits for them all may have had enough.
 */
static inline void
crelay_tuple_begin(CrelayTuple *tuple, MemoryContext memory)
{
	CHECK_FOR_INTERRUPTS();
	tuple->n = 0;
	tuple->memory = memory;
	tuple->outer = MemoryContextSwitchTo(memory);
}

static inline void
crelay_put(CrelayTuple *tuple, Datum value, bool known)
{
	tuple->values[tuple->n] = known ? value : (Datum) 0;
	tuple->nulls[tuple->n++] = !known;
}

/* NULL for no text and for an empty one: nothing here is a known emptiness */
static inline void
crelay_put_text(CrelayTuple *tuple, const char *value)
{
	bool		known = value != NULL && value[0] != '\0';

	crelay_put(tuple, known ? CStringGetTextDatum(value) : (Datum) 0, known);
}

static inline void
crelay_put_lsn(CrelayTuple *tuple, uint64 lsn)
{
	crelay_put(tuple, LSNGetDatum(lsn), lsn != 0);
}

static inline void
crelay_put_int(CrelayTuple *tuple, int32 value, bool known)
{
	crelay_put(tuple, Int32GetDatum(value), known);
}

static inline void
crelay_put_bigint(CrelayTuple *tuple, int64 value, bool known)
{
	crelay_put(tuple, Int64GetDatum(value), known);
}

static inline void
crelay_put_bool(CrelayTuple *tuple, bool value)
{
	crelay_put(tuple, BoolGetDatum(value), true);
}

static inline void
crelay_put_truth(CrelayTuple *tuple, CrelayTruth value)
{
	crelay_put(tuple, BoolGetDatum(value == CRELAY_TRUE), value != CRELAY_UNKNOWN);
}

static inline void
crelay_put_time(CrelayTuple *tuple, TimestampTz value)
{
	crelay_put(tuple, TimestampTzGetDatum(value), value != 0);
}

static inline void
crelay_put_interval(CrelayTuple *tuple, int64 microseconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = microseconds;
	crelay_put(tuple, IntervalPGetDatum(interval), microseconds >= 0);
}

static inline void
crelay_put_xid(CrelayTuple *tuple, uint32 xid)
{
	crelay_put(tuple, TransactionIdGetDatum(xid), xid != 0);
}

/* 0 for who has none: an unmanaged node */
static inline void
crelay_put_incarnation(CrelayTuple *tuple, uint32 incarnation)
{
	crelay_put_text(tuple, incarnation != 0 ? psprintf("%08x", incarnation) : NULL);
}

/*
 * The schema of a function of ours, for a command in the name of the
 * extension: quoted, because the command is to work as it is printed, whatever
 * the search_path of the session is.
 */
static inline const char *
crelay_schema_of(Oid function)
{
	char	   *name = get_namespace_name(get_func_namespace(function));

	return quote_identifier(name != NULL ? name : "public");
}

/* The three columns pinned_by, pinned_on and pinned_slot. */
static inline void
crelay_put_pin(CrelayTuple *tuple, const CrelayPin *pin)
{
	crelay_put_text(tuple, pin->by);
	crelay_put_text(tuple, pin->on);
	crelay_put_text(tuple, pin->slot);
}

static inline void
crelay_put_null(CrelayTuple *tuple)
{
	crelay_put(tuple, (Datum) 0, false);
}

/*
 * To be called when the last column is filled.  The SQL objects may be of
 * another version than the library: columns come at the end, so those that this
 * one does not know are NULL, and those that are not declared are left out.
 */
static inline void
crelay_tuple_finish(CrelayTuple *tuple, TupleDesc desc)
{
	if (desc->natts > CRELAY_MAX_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("this version of the library of cascade_relay is too old for its SQL objects"),
				 errhint("Install the same version as on the primary, and restart this server.")));
	while (tuple->n < desc->natts)
		crelay_put_null(tuple);
}

/*
 * A row that is complete goes to the result of a set-returning function, and
 * what it was made of goes.
 */
static inline void
crelay_tuple_store(CrelayTuple *tuple, ReturnSetInfo *rsinfo)
{
	crelay_tuple_finish(tuple, rsinfo->setDesc);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc,
						 tuple->values, tuple->nulls);
	if (tuple->memory == NULL)
		return;
	MemoryContextSwitchTo(tuple->outer);
	MemoryContextReset(tuple->memory);
}

#endif							/* CRELAY_TUPLE_H */
