/*-------------------------------------------------------------------------
 *
 * proof_hash.c
 *	  SHA-256 for proof.c.
 *
 * Owns: the way to PostgreSQL's own implementation, or that of the library it
 * was built with.
 *
 * Not here: what is hashed, and why (proof.c).
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "proof.h"

/*
 * One for the life of the process: a chain takes thousands of hashes.  Without
 * OpenSSL it is allocated in the current memory context.  What OpenSSL allocates
 * for it belongs to the current resource owner, and a worker has none.
 */
static pg_cryptohash_ctx *hash;

static void
prepare(void)
{
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext context;

	if (hash != NULL)
		return;
	context = MemoryContextSwitchTo(TopMemoryContext);
	CurrentResourceOwner = ResourceOwnerCreate(NULL, "cascade_relay hash");
	hash = pg_cryptohash_create(PG_SHA256);
	if (hash == NULL)
		ResourceOwnerDelete(CurrentResourceOwner);
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(context);
}

bool
crelay_proof_hash(const uint8_t *data, size_t len, uint8_t *digest)
{
	StaticAssertStmt(CRELAY_SHA256_SIZE == PG_SHA256_DIGEST_LENGTH, "size of a digest");
	prepare();
	return hash != NULL && pg_cryptohash_init(hash) >= 0 &&
		pg_cryptohash_update(hash, data, len) >= 0 &&
		pg_cryptohash_final(hash, digest, CRELAY_SHA256_SIZE) >= 0;
}
