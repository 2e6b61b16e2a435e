/*-------------------------------------------------------------------------
 *
 * check_funcs.h
 *	  cascade_check(): what is wrong in the cascade, and what to do.
 *
 * Owns: gathering the facts, and the tuples.
 *
 * Not here: what makes a finding, and its words (check.c).
 *
 * Locking: none of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_CHECK_FUNCS_H
#define CRELAY_CHECK_FUNCS_H

#include "postgres.h"

#include "decide/check.h"
#include "node/tree.h"

extern void crelay_check_tree(const CrelayTree *tree, Oid function,
							  CrelayCheckSink sink, void *sink_arg);

#endif							/* CRELAY_CHECK_FUNCS_H */
