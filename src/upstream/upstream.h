/*-------------------------------------------------------------------------
 *
 * upstream.h
 *	  The connection to the upstream node, as a state machine.
 *
 * Owns: one libpq connection, what it waits for, and until when.  It connects,
 * finds the schema that the extension lives in over there, and then carries
 * one message at a time: bytes out, bytes back.
 *
 * Not here: what the bytes mean (message.c), when to send and how long to wait
 * after a failure (worker.c).  libpq is seen by this room alone, which is
 * upstream.c, upstream_target.c and upstream_error.c.
 *
 * Locking: none.  Nothing here blocks, except name resolution in libpq when no
 * hostaddr is known.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_UPSTREAM_H
#define CRELAY_UPSTREAM_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* Where to connect to: keywords and values of a conninfo, in plain C strings. */
typedef struct CrelayTarget
{
	char	   *host;			/* what the walreceiver uses; NULL unknown */
	int			port;			/* likewise; 0 unknown */
	const char *primary_conninfo;	/* raw settings, never shown to anyone */
	const char *upstream_conninfo;
} CrelayTarget;

typedef enum CrelayLinkState
{
	CRELAY_LINK_CLOSED,			/* nothing open */
	CRELAY_LINK_CONNECTING,
	CRELAY_LINK_LOOKUP,			/* asking for the extension's schema */
	CRELAY_LINK_READY,			/* may send */
	CRELAY_LINK_BUSY			/* sent, waiting for the answer */
} CrelayLinkState;

typedef enum CrelayLinkEvent
{
	CRELAY_LINK_NOTHING,		/* still waiting */
	CRELAY_LINK_OPENED,			/* now READY: send the hello */
	CRELAY_LINK_ANSWERED,		/* an answer is there; READY again */
	CRELAY_LINK_REFUSED,		/* the server said no; CLOSED */
	CRELAY_LINK_FAILED			/* the network or the server failed; CLOSED */
} CrelayLinkEvent;

#define CRELAY_ERROR_LEN	512
#define CRELAY_HINT_LEN		512

typedef struct CrelayLink CrelayLink;

/*
 * Allocates a link in the given context; nothing is opened.
 */
extern CrelayLink *crelay_link_create(MemoryContext context);

/*
 * Starts to connect.  deadline_ms bounds each step, connecting included: the
 * time for that begins with the first call of crelay_link_step(), because this
 * one may wait for name resolution.  Returns false,
 * with error and hint set, if the target does not say where to go, or if libpq
 * could not even start.
 */
extern bool crelay_link_open(CrelayLink *link, const CrelayTarget *target,
							 int deadline_ms);

/* Closes whatever is open, without a word to the other side. */
extern void crelay_link_close(CrelayLink *link);

/*
 * Moves the link on as far as it goes without waiting.  Call it when the
 * socket is ready, when the deadline has passed, and after open and send.
 */
extern CrelayLinkEvent crelay_link_step(CrelayLink *link, TimestampTz now);

/* Sends one message; only when READY.  False if the link broke (then CLOSED). */
extern bool crelay_link_send(CrelayLink *link, const uint8 *data, Size len,
							 TimestampTz now);

/* The answer that ANSWERED announced; valid until the next call. */
extern const uint8 *crelay_link_answer(CrelayLink *link, Size *len);

extern CrelayLinkState crelay_link_state(const CrelayLink *link);

/* What to wait for: the socket (PGINVALID_SOCKET if none), WL_SOCKET_* bits. */
extern pgsocket crelay_link_socket(const CrelayLink *link, int *events);

/* When crelay_link_step() must be called at the latest; 0 for never. */
extern TimestampTz crelay_link_deadline(const CrelayLink *link);

/* Changes whenever the socket may have been closed or replaced. */
extern uint64 crelay_link_generation(const CrelayLink *link);

/* Of the last REFUSED or FAILED; no password ever.  hint may be empty. */
extern const char *crelay_link_error(const CrelayLink *link);
extern const char *crelay_link_hint(const CrelayLink *link);

/* Returns true if the connection leads to this machine, as far as it tells. */
extern bool crelay_link_is_local(const CrelayLink *link);

/* Whether the last REFUSED was for want of the extension over there. */
extern bool crelay_link_lacks_extension(const CrelayLink *link);

/*
 * A digest of everything a target says, to notice a changed setting without
 * keeping a password around.
 */
extern uint64 crelay_target_fingerprint(const CrelayTarget *target);

/*
 * Where the walreceiver has found its upstream, as a conninfo: its host and
 * port, with the hostaddr that primary_conninfo gives for them.  Returns false
 * if primary_conninfo does not lead to that host, or if it does not fit.
 */
extern bool crelay_target_address(const char *primary_conninfo, const char *host,
								  int port, char *address, Size size);

/*
 * The application_name that the walreceiver of this server gives, following
 * primary_conninfo, then cluster_name.
 */
extern void crelay_target_application_name(const char *primary_conninfo,
										   char *name, Size size);

#endif							/* CRELAY_UPSTREAM_H */
