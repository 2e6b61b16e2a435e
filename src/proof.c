/*-------------------------------------------------------------------------
 *
 * proof.c
 *	  Whether a node has moved as it is said to have, as a pure decision.
 *
 * Owns, leaves out and locks: see proof.h.
 *
 *-------------------------------------------------------------------------
 */
#include "proof.h"

#include <string.h>

static void
put_word(uint8_t *p, uint32_t word)
{
	for (int i = 3; i >= 0; i--)
	{
		p[i] = (uint8_t) (word & 0xff);
		word >>= 8;
	}
}

/*
 * From the value of one number to that of the number before.  Whose it is and
 * which number go into it, so that no two chains, and no two places of one,
 * have anything in common that could be prepared for.
 */
static bool
step_back(CrelayProof *proof, uint32_t incarnation)
{
	static const char purpose[] = "cascade_relay attachment";
	uint8_t		data[sizeof(purpose) + 8 + CRELAY_PROOF_SIZE];
	uint8_t		digest[CRELAY_SHA256_SIZE];

	memcpy(data, purpose, sizeof(purpose));
	put_word(&data[sizeof(purpose)], incarnation);
	put_word(&data[sizeof(purpose) + 4], proof->count);
	memcpy(&data[sizeof(purpose) + 8], proof->value, CRELAY_PROOF_SIZE);
	if (!crelay_proof_hash(data, sizeof(data), digest))
		return false;
	memcpy(proof->value, digest, CRELAY_PROOF_SIZE);
	proof->count--;
	return true;
}

/*
 * What a node with that seed, of CRELAY_PROOF_SIZE bytes, shows for that
 * number, from 1 to CRELAY_PROOF_MAX; nothing for any other, or if it cannot be
 * computed.  The seed itself is never shown.
 */
void
crelay_proof_make(const uint8_t *seed, uint32_t incarnation, uint32_t count,
				  CrelayProof *proof)
{
	memset(proof, 0, sizeof(CrelayProof));
	if (count == 0 || count > CRELAY_PROOF_MAX)
		return;
	proof->count = CRELAY_PROOF_MAX + 1;
	memcpy(proof->value, seed, CRELAY_PROOF_SIZE);
	while (proof->count > count)
	{
		if (!step_back(proof, incarnation))
		{
			memset(proof, 0, sizeof(CrelayProof));
			return;
		}
	}
}

/*
 * How many moves lie between, 0 if a claim cannot follow from what is known.
 */
uint32_t
crelay_proof_distance(const CrelayProof *known, const CrelayProof *claim)
{
	if (claim->count <= known->count ||
		claim->count - known->count > CRELAY_PROOF_REACH)
		return 0;
	return claim->count - known->count;
}

/*
 * Whether it is worth looking whether a claim follows.
 */
bool
crelay_proof_may_follow(const CrelayProof *known, const CrelayProof *claim)
{
	return known->count == 0 || crelay_proof_distance(known, claim) != 0;
}

/*
 * Whether only the node of that incarnation can have shown the claim, and
 * since it showed what is known.  Of a node that has shown nothing, because
 * its library is older, everything is believed.
 */
bool
crelay_proof_follows(const CrelayProof *known, const CrelayProof *claim,
					 uint32_t incarnation)
{
	CrelayProof back = *claim;

	if (known->count == 0)
		return true;
	if (crelay_proof_distance(known, claim) == 0)
		return false;
	while (back.count > known->count)
	{
		if (!step_back(&back, incarnation))
			return false;
	}
	return memcmp(back.value, known->value, CRELAY_PROOF_SIZE) == 0;
}

/*
 * The first of n claims that follows, -1 if none does.  The nearest are looked
 * at first, because a node that has moved is one step ahead as a rule, and no
 * more work is done for all of them than for the farthest: whoever makes up many
 * can take nobody's time.
 */
int
crelay_proof_find(const CrelayProof *known, uint32_t incarnation,
				  const CrelayProof *const *claims, int n)
{
	uint32_t	left = CRELAY_PROOF_REACH;

	return crelay_proof_find_within(known, incarnation, claims, n, &left);
}

/*
 * The same with so many hashes left, for a decision that asks about several
 * nodes: what is used is taken off.
 */
int
crelay_proof_find_within(const CrelayProof *known, uint32_t incarnation,
						 const CrelayProof *const *claims, int n, uint32_t *left)
{
	if (known->count == 0)
		return n > 0 ? 0 : -1;
	for (uint32_t reach = 1; reach <= CRELAY_PROOF_REACH; reach *= 2)
	{
		for (int i = 0; i < n; i++)
		{
			uint32_t	steps = crelay_proof_distance(known, claims[i]);

			if (steps <= reach / 2 || steps > reach)
				continue;
			if (steps > *left)
				continue;
			*left -= steps;
			if (crelay_proof_follows(known, claims[i], incarnation))
				return i;
		}
	}
	return -1;
}
