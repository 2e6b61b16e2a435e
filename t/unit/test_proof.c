/*-------------------------------------------------------------------------
 *
 * test_proof.c
 *	  Tests of what a node proves by a value, as a plain program that prints
 *	  TAP.
 *
 * Owns: what proof.h promises, seen from outside: the chain; what follows from
 * what, and at what cost.
 *
 *	  cc -std=gnu99 -Isrc -It/unit -g -fsanitize=address,undefined \
 *		  t/unit/test_proof.c t/unit/toy_hash.c src/proof.c -o test_proof && ./test_proof
 *
 *-------------------------------------------------------------------------
 */
#include "proof.h"
#include "tap.h"

#include <time.h>

#define NODE			0xa1b2c3d4u
#define OTHER_NODE		0xa1b2c3d5u
#define CLAIMS			1000

/* Numbers to begin with: low ones take long to be made. */
#define FAR				(CRELAY_PROOF_MAX - 2 * CRELAY_PROOF_REACH)

extern bool crelay_toy_hash_fails;

static const uint8_t seed[CRELAY_PROOF_SIZE] = "0123456789abcde";

static CrelayProof
nth(uint32_t count)
{
	CrelayProof proof;

	crelay_proof_make(seed, NODE, count, &proof);
	return proof;
}

static bool
follows(uint32_t known_count, uint32_t claim_count)
{
	CrelayProof known = nth(known_count);
	CrelayProof claim = nth(claim_count);

	return crelay_proof_follows(&known, &claim, NODE);
}

static void
test_chain(void)
{
	CrelayProof first = nth(1);
	CrelayProof last = nth(CRELAY_PROOF_MAX);
	uint8_t		next_seed[CRELAY_PROOF_SIZE];

	ok(first.count == 1 && nth(1).value[0] == first.value[0], "a value is always the same");
	ok(memcmp(first.value, nth(2).value, CRELAY_PROOF_SIZE) != 0, "the next one is another");
	ok(memcmp(last.value, seed, CRELAY_PROOF_SIZE) != 0, "the seed is never shown");
	is_number(nth(0).count, 0, "there is none before the first");
	is_number(nth(CRELAY_PROOF_MAX + 1).count, 0, "and none after the last");
	memcpy(next_seed, seed, sizeof(seed));
	next_seed[0] ^= 1;
	crelay_proof_make(next_seed, NODE, 1, &last);
	ok(memcmp(first.value, last.value, CRELAY_PROOF_SIZE) != 0, "another seed is another chain");
	crelay_proof_make(seed, OTHER_NODE, 1, &last);
	ok(memcmp(first.value, last.value, CRELAY_PROOF_SIZE) != 0, "and so is another node");
}

static void
test_follows(void)
{
	CrelayProof none = {0};
	CrelayProof known = nth(FAR);
	CrelayProof claim = nth(FAR + 1);

	ok(follows(FAR, FAR + 1), "one move");
	ok(follows(FAR - 1, FAR + 1), "two of them");
	ok(follows(CRELAY_PROOF_MAX - 1, CRELAY_PROOF_MAX), "the last one");
	ok(follows(FAR, FAR + CRELAY_PROOF_REACH), "as many as may have been missed");
	ok(!follows(FAR, FAR + 1 + CRELAY_PROOF_REACH), "one more is too many");
	ok(!follows(FAR, FAR), "what is known already proves nothing");
	ok(!follows(FAR, FAR - 1), "nor does what was known before");
	ok(crelay_proof_follows(&none, &claim, NODE) && crelay_proof_follows(&none, &none, NODE),
	   "of who has shown nothing all is believed");
	ok(!crelay_proof_follows(&known, &none, NODE), "who has does not stop doing so");
	ok(!crelay_proof_follows(&known, &claim, OTHER_NODE), "it is proven for this node alone");
	claim.count = FAR + 2;
	ok(!crelay_proof_follows(&known, &claim, NODE), "a value belongs to its number");
	claim = nth(FAR + 1);
	for (int i = 0; i < CRELAY_PROOF_SIZE; i++)
	{
		claim.value[i] ^= 0x80;
		if (crelay_proof_follows(&known, &claim, NODE))
			break;
		claim.value[i] ^= 0x80;
		if (i == CRELAY_PROOF_SIZE - 1)
			ok(true, "every byte of it counts");
	}
	claim = known;
	claim.count = UINT32_MAX;
	ok(!crelay_proof_follows(&known, &claim, NODE), "a number that cannot be");
	known.count = UINT32_MAX;
	claim.count = 1;
	ok(!crelay_proof_follows(&known, &claim, NODE), "nor one after it");
}

static void
test_find(void)
{
	static CrelayProof claims[CLAIMS];
	static const CrelayProof *room[CLAIMS];
	CrelayProof known = nth(FAR);
	CrelayProof none = {0};
	uint32_t	left;
	clock_t		begin;
	double		ms;

	is_number((uint64_t) crelay_proof_find(&known, NODE, room, 0) + 1, 0, "none in no claims");
	is_number((uint64_t) crelay_proof_find(&none, NODE, room, 0) + 1, 0, "whatever is known");
	for (int i = 0; i < CLAIMS; i++)
	{
		claims[i] = known;
		claims[i].count = FAR + 1;
		room[i] = &claims[i];
	}
	is_number((uint64_t) crelay_proof_find(&none, NODE, room, CLAIMS), 0, "the first, if anything is believed");
	is_number((uint64_t) crelay_proof_find(&known, NODE, room, CLAIMS) + 1, 0, "none of a thousand");
	claims[CLAIMS - 1] = nth(FAR + 1);
	is_number((uint64_t) crelay_proof_find(&known, NODE, room, CLAIMS), CLAIMS - 1, "the last of a thousand");
	claims[CLAIMS - 1] = nth(FAR + 20);
	is_number((uint64_t) crelay_proof_find(&known, NODE, room, CLAIMS), CLAIMS - 1, "farther away, if there is time for it");

	for (int i = 0; i < CLAIMS; i++)
		claims[i].count = FAR + CRELAY_PROOF_REACH - (uint32_t) i;
	claims[CLAIMS / 2] = nth(FAR + 1);
	is_number((uint64_t) crelay_proof_find(&known, NODE, room, CLAIMS), CLAIMS / 2,
			  "the nearest is looked at before all the work is done");
	claims[CLAIMS / 2].count = FAR + CRELAY_PROOF_REACH;
	begin = clock();
	is_number((uint64_t) crelay_proof_find(&known, NODE, room, CLAIMS) + 1, 0, "a thousand far away");
	ms = (double) (clock() - begin) * 1000 / CLOCKS_PER_SEC;
	printf("# %.3f ms of processor time\n", ms);

	/* one budget for several questions */
	for (int i = 0; i < 10; i++)
	{
		claims[i] = known;
		claims[i].count = FAR + 100;
	}
	left = 1000;
	is_number((uint64_t) crelay_proof_find_within(&known, NODE, room, 6, &left) + 1, 0, "six claims of a hundred moves");
	is_number(left, 400, "take six hundred hashes");
	is_number((uint64_t) crelay_proof_find_within(&known, NODE, room, 6, &left) + 1, 0, "six more");
	is_number(left, 0, "take what is left");
	claims[3] = nth(FAR + 1);
	ok(crelay_proof_find_within(&known, NODE, room, 6, &left) == -1, "then nothing is looked at");
	left = 1;
	is_number((uint64_t) crelay_proof_find_within(&known, NODE, room, 6, &left), 3, "and with one hash the nearest");
}

/* A server whose library refuses the hash proves nothing, and believes nothing. */
static void
test_without_hash(void)
{
	CrelayProof none = {0};
	CrelayProof known = nth(FAR);
	CrelayProof claim = nth(FAR + 1);
	const CrelayProof *room[] = {&claim};

	crelay_toy_hash_fails = true;
	is_number(nth(FAR).count, 0, "without a hash a node shows nothing");
	ok(!crelay_proof_follows(&known, &claim, NODE), "... and nothing follows");
	ok(crelay_proof_find(&known, NODE, room, 1) == -1, "... whoever says so");
	ok(crelay_proof_follows(&none, &claim, NODE), "... but from nothing");
	crelay_toy_hash_fails = false;
}

int
main(void)
{
	test_chain();
	test_follows();
	test_find();
	test_without_hash();
	return done_testing();
}
