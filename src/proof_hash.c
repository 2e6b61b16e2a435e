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
#include "utils/resowner.h"

#include "proof.h"

/*
 * What OpenSSL allocates belongs to a resource owner, and a worker without a
 * transaction has none.
 */
static ResourceOwner
some_owner(void)
{
	static ResourceOwner own;

	if (CurrentResourceOwner != NULL)
		return CurrentResourceOwner;
	if (own == NULL)
		own = ResourceOwnerCreate(NULL, "cascade_relay hash");
	return own;
}

bool
crelay_proof_hash(const uint8_t *data, size_t len, uint8_t *digest)
{
	ResourceOwner before = CurrentResourceOwner;
	pg_cryptohash_ctx *ctx;
	bool		done;

	StaticAssertStmt(CRELAY_SHA256_SIZE == PG_SHA256_DIGEST_LENGTH, "size of a digest");
	CurrentResourceOwner = some_owner();
	ctx = pg_cryptohash_create(PG_SHA256);
	done = ctx != NULL && pg_cryptohash_init(ctx) >= 0 &&
		pg_cryptohash_update(ctx, data, len) >= 0 &&
		pg_cryptohash_final(ctx, digest, CRELAY_SHA256_SIZE) >= 0;
	pg_cryptohash_free(ctx);
	CurrentResourceOwner = before;
	return done;
}
