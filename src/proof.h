/*-------------------------------------------------------------------------
 *
 * proof.h
 *	  Whether a node has moved as it is said to have, as a pure decision.
 *
 * Owns: the chain of values that a node shows one after another, and what
 * follows from one of them.
 *
 * A node keeps a seed to itself, and shows with each of its rows how often it
 * has become protected in a new place, and the value of that number: the seed
 * hashed once for each move that is left.  So a value leads to those shown
 * before, and none of those leads to it.  Who holds something for a node that
 * is away compares what the node last showed here with what is said of it
 * elsewhere: what does not follow, the node has not shown, whoever says so.
 *
 * It proves no more than that: since it was here, the node has been in another
 * place, and protected there.  That is all that it takes to let go of what is
 * held for it here.
 *
 * Not here: the seed, and when a node shows the next value (attachment.c); what
 * it means if nothing is proven (departed.c, downstream.c, check.c).
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_PROOF_H
#define CRELAY_PROOF_H

#include "node.h"

/*
 * So often a node can move with one seed.  Each move takes as many hashes, less
 * the moves before: some milliseconds.
 */
#define CRELAY_PROOF_MAX		4096

/*
 * So many moves may have been missed, and so much work is done for one
 * decision, however many rows there are to choose from.
 */
#define CRELAY_PROOF_REACH		1024

#define CRELAY_SHA256_SIZE		32

extern void crelay_proof_make(const uint8_t *seed, uint32_t incarnation,
							  uint32_t count, CrelayProof *proof);
extern bool crelay_proof_may_follow(const CrelayProof *known, const CrelayProof *claim);
extern bool crelay_proof_follows(const CrelayProof *known, const CrelayProof *claim,
								 uint32_t incarnation);
extern uint32_t crelay_proof_distance(const CrelayProof *known, const CrelayProof *claim);
extern int	crelay_proof_find(const CrelayProof *known, uint32_t incarnation,
							  const CrelayProof *const *claims, int n);
extern int	crelay_proof_find_within(const CrelayProof *known, uint32_t incarnation,
									 const CrelayProof *const *claims, int n,
									 uint32_t *left);

/*
 * The hash, of whoever links the decision: SHA-256 in the server
 * (proof_hash.c).  False if it could not be computed; then nothing is proven.
 */
extern bool crelay_proof_hash(const uint8_t *data, size_t len, uint8_t *digest);

#endif							/* CRELAY_PROOF_H */
