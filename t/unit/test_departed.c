/*-------------------------------------------------------------------------
 *
 * test_departed.c
 *	  Tests of departed.c, as a plain program that prints TAP.
 *
 * Owns: what departed.h promises, seen from outside: where a node lives that was
 * below a departed one, and whether it needs nothing of before.
 *
 *	  cc -std=gnu99 -Isrc -It/unit -g -fsanitize=address,undefined \
 *		  t/unit/test_departed.c src/departed.c src/topology.c \
 *		  -o test_departed && ./test_departed
 *
 *-------------------------------------------------------------------------
 */
#include "decide/departed.h"
#include "tap.h"

#define MAX_NODES	8
#define HERE		1			/* incarnation of the node that looks */

enum
{
	FROM_I = 0, FROM_OTHERS, FROM_UPSTREAM = -2
};

static CrelayNode nodes[MAX_NODES];
static CrelayKnown known[MAX_NODES];
static int	n;

static CrelayNode *
add(const char *name, uint32_t incarnation, const char *upstream,
	uint32_t upstream_incarnation, CrelayState state, CrelayTruth protected, int origin)
{
	CrelayNode *node = &nodes[n];

	memset(node, 0, sizeof(*node));
	snprintf(node->name, sizeof(node->name), "%s", name);
	node->incarnation = incarnation;
	snprintf(node->upstream_name, sizeof(node->upstream_name), "%s", upstream);
	node->upstream_incarnation = upstream_incarnation;
	node->role = upstream[0] ? CRELAY_ROLE_STANDBY : CRELAY_ROLE_PRIMARY;
	node->state = state;
	node->protected = protected;
	known[n].node = node;
	known[n++].origin = origin;
	return node;
}

/*
 * p has lost i, and what i said of a node with that name and incarnation is
 * old.  What is known of it otherwise?
 */
static uint32_t told = 1;		/* the counter that it told before */

static const char *
where_is(const char *name, uint32_t incarnation)
{
	static char place[CRELAY_NAME_LEN + 64];
	bool		safe;
	CrelayNode	old = {0};
	CrelayNode	gone = {0};
	const CrelayNode *found;

	snprintf(old.name, sizeof(old.name), "%s", name);
	old.incarnation = incarnation;
	old.moves = told;
	snprintf(gone.name, sizeof(gone.name), "i");
	gone.incarnation = 2;
	crelay_departed_sort(known, n);
	found = crelay_departed_find(known, n, &old, &gone, FROM_I, &safe);
	if (found == NULL)
		return "nowhere";
	snprintf(place, sizeof(place), "below %s%s%s", found->upstream_name,
			 found->protected == CRELAY_TRUE ? "" : ", unprotected",
			 found->protected == CRELAY_TRUE && !safe ? ", not confirmed" : "");
	return place;
}

static void
test_find(void)
{
	n = 0;
	is_text(where_is("l", 3), "nowhere", "nobody knows anything");

	n = 0;
	add("p", HERE, "", 0, CRELAY_STATE_RUNNING, CRELAY_TRUE, FROM_OTHERS);
	add("i", 2, "p", HERE, CRELAY_STATE_DOWN, CRELAY_TRUE, FROM_I);
	add("l", 3, "i", 2, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_I);
	is_text(where_is("l", 3), "nowhere", "what the one who is gone has said does not count");

	add("l", 3, "i", 2, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_UPSTREAM);
	is_text(where_is("l", 3), "nowhere", "nor that it is below him, as others have heard");

	add("l", 3, "j", 4, CRELAY_STATE_DOWN, CRELAY_TRUE, FROM_OTHERS);
	is_text(where_is("l", 3), "nowhere", "who is down is nowhere");

	add("l", 3, "j", 4, CRELAY_STATE_CATCHUP, CRELAY_FALSE, FROM_OTHERS);
	is_text(where_is("l", 3), "below j, unprotected", "it lives, but is not protected");

	add("l", 3, "p", HERE, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_OTHERS)->moves = 2;
	is_text(where_is("l", 3), "below p", "it lives and is protected");
	is_text(where_is("l", 0), "below p", "a node without incarnation goes by its name");
	is_text(where_is("k", 0), "nowhere", "and a name is all of it");

	n = 0;
	add("u", 0, "p", HERE, CRELAY_STATE_STREAMING, CRELAY_UNKNOWN, FROM_OTHERS);
	is_text(where_is("u", 0), "below p, unprotected", "unknown is not protected");
}

/* ---- the move counter ---- */

static void
test_counter(void)
{
	CrelayNode *row;

	n = 0;
	told = 7;
	row = add("l", 3, "h", 66, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_OTHERS);
	is_text(where_is("l", 3), "below h, not confirmed", "a row without a counter confirms no move");
	row->moves = 6;
	is_text(where_is("l", 3), "below h, not confirmed", "nor does a lower one");
	row->moves = 7;
	is_text(where_is("l", 3), "below h, not confirmed", "nor the one that was told before");
	row->moves = 8;
	is_text(where_is("l", 3), "below h", "a higher one does");
	row->protected = CRELAY_FALSE;
	is_text(where_is("l", 3), "below h, unprotected", "unless the node has lost its protection there");

	n = 0;
	add("l", 3, "a", 50, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_OTHERS);
	add("l", 3, "b", 51, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_OTHERS)->moves = 8;
	add("l", 3, "c", 52, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_UPSTREAM);
	is_text(where_is("l", 3), "below b", "the confirming row is found among others");

	n = 0;
	told = 0;
	add("l", 3, "h", 66, CRELAY_STATE_STREAMING, CRELAY_TRUE, FROM_OTHERS)->moves = 9;
	is_text(where_is("l", 3), "below h, not confirmed", "where nothing was told, no counter is higher");
	is_text(where_is("l", 9), "below h", "a former life needs nothing once the node is protected");
	told = 1;
}

int
main(void)
{
	test_find();
	test_counter();
	return done_testing();
}
