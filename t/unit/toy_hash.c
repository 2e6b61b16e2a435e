/*-------------------------------------------------------------------------
 *
 * toy_hash.c
 *	  A hash for the unit tests, which have no server to ask for SHA-256.
 *
 * It mixes well, and anybody could run it backwards: what follows from what
 * does not depend on that.
 *
 *-------------------------------------------------------------------------
 */
#include "proof.h"

bool		crelay_toy_hash_fails = false;

bool
crelay_proof_hash(const uint8_t *data, size_t len, uint8_t *digest)
{
	uint64_t	state = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < len; i++)
		state = (state ^ data[i]) * UINT64_C(0x100000001b3);
	for (int i = 0; i < CRELAY_SHA256_SIZE; i++)
	{
		state ^= state >> 29;
		state *= UINT64_C(0xbf58476d1ce4e5b9);
		state ^= state >> 32;
		digest[i] = (uint8_t) state;
	}
	return !crelay_toy_hash_fails;
}
