/*-------------------------------------------------------------------------
 *
 * proof.c
 *	  Whether a node has moved as it is said to have, as a pure decision.
 *
 * Owns, leaves out and locks: see proof.h.
 *
 * SHA-256 is made here, for the few bytes that are needed.  The server's own
 * belongs to a resource owner, which a background worker without a transaction
 * does not have; it allocates, and may fail.  This cannot, and a test without a
 * server can call it.
 *
 *-------------------------------------------------------------------------
 */
#include "proof.h"

#include <string.h>

/* ---- SHA-256 of one block, by FIPS 180-4 ---- */

#define BLOCK_SIZE	64
#define ROUNDS		64

/* The fractional parts of the cube roots of the first 64 primes. */
static const uint32_t round_constants[ROUNDS] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
};

/* Those of the square roots of the first eight. */
static const uint32_t initial_state[8] = {
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
};

static uint32_t
rotate(uint32_t word, int bits)
{
	return word >> bits | word << (32 - bits);
}

static void
put_word(uint8_t *p, uint32_t word)
{
	for (int i = 3; i >= 0; i--)
	{
		p[i] = (uint8_t) (word & 0xff);
		word >>= 8;
	}
}

static void
expand_block(const uint8_t *block, uint32_t *words)
{
	for (int i = 0; i < 16; i++)
		words[i] = (uint32_t) block[4 * i] << 24 | (uint32_t) block[4 * i + 1] << 16 |
			(uint32_t) block[4 * i + 2] << 8 | block[4 * i + 3];
	for (int i = 16; i < ROUNDS; i++)
	{
		uint32_t	a = words[i - 15];
		uint32_t	b = words[i - 2];

		words[i] = words[i - 16] + words[i - 7] +
			(rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) +
			(rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
	}
}

static void
mix_block(const uint8_t *block, uint32_t *state)
{
	uint32_t	words[ROUNDS];
	uint32_t	s[8];

	expand_block(block, words);
	memcpy(s, state, sizeof(s));
	for (int i = 0; i < ROUNDS; i++)
	{
		uint32_t	first = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
		((s[4] & s[5]) ^ (~s[4] & s[6])) + round_constants[i] + words[i];
		uint32_t	second = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) +
		((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

		memmove(&s[1], &s[0], 7 * sizeof(uint32_t));
		s[4] += first;
		s[0] = first + second;
	}
	for (int i = 0; i < 8; i++)
		state[i] += s[i];
}

/*
 * The hash of at most CRELAY_SHA256_MAX bytes.
 */
void
crelay_sha256(const uint8_t *data, size_t len, uint8_t *digest)
{
	uint8_t		block[BLOCK_SIZE] = {0};
	uint32_t	state[8];

	if (len > CRELAY_SHA256_MAX)
		len = CRELAY_SHA256_MAX;
	memcpy(block, data, len);
	block[len] = 0x80;
	put_word(&block[BLOCK_SIZE - 4], (uint32_t) len * 8);
	memcpy(state, initial_state, sizeof(state));
	mix_block(block, state);
	for (int i = 0; i < 8; i++)
		put_word(&digest[4 * i], state[i]);
}

/* ---- the chain ---- */

/*
 * From the value of one number to that of the number before.  Whose it is and
 * which number go into it, so that no two chains, and no two places of one,
 * have anything in common that could be prepared for.
 */
static void
step_back(CrelayProof *proof, uint32_t incarnation)
{
	static const char purpose[] = "cascade_relay attachment";
	uint8_t		data[sizeof(purpose) + 8 + CRELAY_PROOF_SIZE];
	uint8_t		digest[CRELAY_SHA256_SIZE];

	memcpy(data, purpose, sizeof(purpose));
	put_word(&data[sizeof(purpose)], incarnation);
	put_word(&data[sizeof(purpose) + 4], proof->count);
	memcpy(&data[sizeof(purpose) + 8], proof->value, CRELAY_PROOF_SIZE);
	crelay_sha256(data, sizeof(data), digest);
	memcpy(proof->value, digest, CRELAY_PROOF_SIZE);
	proof->count--;
}

/*
 * What a node with that seed, of CRELAY_PROOF_SIZE bytes, shows for that
 * number, from 1 to CRELAY_PROOF_MAX; nothing for any other.  The seed itself
 * is never shown.
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
		step_back(proof, incarnation);
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
		step_back(&back, incarnation);
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

	if (known->count == 0)
		return n > 0 ? 0 : -1;
	for (uint32_t reach = 1; reach <= CRELAY_PROOF_REACH; reach *= 2)
	{
		for (int i = 0; i < n; i++)
		{
			uint32_t	steps = crelay_proof_distance(known, claims[i]);

			if (steps <= reach / 2 || steps > reach)
				continue;
			if (steps > left)
				continue;
			left -= steps;
			if (crelay_proof_follows(known, claims[i], incarnation))
				return i;
		}
	}
	return -1;
}
