/*-------------------------------------------------------------------------
 *
 * upstream_session.h
 *	  A short conversation with another node, for a session of this server.
 *
 * Owns: one libpq connection that waits for its answers, with a deadline for
 * each, and gives way to cancel and terminate meanwhile.  The other server
 * ends it once nothing was asked for ten seconds: open it again then.
 *
 * Not here: what is asked (follow.c), the worker's connection (upstream.c).
 * Like that one this belongs to the only room that sees libpq.
 *
 * Failing: a server's or a network's fault comes back as false, with error and
 * hint, which never contain a password.  An interrupt is thrown and leaves the
 * session as it is; whoever made it closes it.
 *
 * Locking: none.  Nothing blocks without looking for interrupts, except name
 * resolution in libpq when no hostaddr is known.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_UPSTREAM_SESSION_H
#define CRELAY_UPSTREAM_SESSION_H

#include "postgres.h"

#include "upstream/upstream.h"

typedef enum CrelaySessionKind
{
	CRELAY_SESSION_SQL,			/* where the reports go, for SQL */
	CRELAY_SESSION_REPLICATION	/* as a walreceiver, for its commands */
} CrelaySessionKind;

typedef struct CrelaySession CrelaySession;

/* Allocates a session in the given context; nothing is opened. */
extern CrelaySession *crelay_session_create(MemoryContext context);

/*
 * Connects, closing what was open.  A session for SQL has found the schema of
 * the extension when this returns true.
 */
extern bool crelay_session_open(CrelaySession *session, CrelaySessionKind kind,
								const CrelayTarget *target, int timeout_ms);

/*
 * Asks, and waits for the answer.  False if it was an error (then the session
 * is still open) or if the connection is lost (then it is closed).  Parameters
 * are for SQL only.
 */
extern bool crelay_session_ask(CrelaySession *session, const char *query,
							   int nparams, const char *const *params,
							   int timeout_ms);

/* The last answer; values are valid until the next call, NULL for NULL. */
extern int	crelay_session_rows(const CrelaySession *session);
extern const char *crelay_session_value(const CrelaySession *session, int row,
										int column);

extern bool crelay_session_is_open(const CrelaySession *session);
extern void crelay_session_close(CrelaySession *session);

/* The extension's schema over there, quoted. */
extern const char *crelay_session_schema(const CrelaySession *session);

/* Of the last false; hint may be empty, and sqlstate if no server said it. */
extern const char *crelay_session_error(const CrelaySession *session);
extern const char *crelay_session_hint(const CrelaySession *session);
extern const char *crelay_session_sqlstate(const CrelaySession *session);
extern bool crelay_session_lacks_extension(const CrelaySession *session);

/*-------------------------------------------------------------------------
 * Where another node is
 *-------------------------------------------------------------------------
 */

#define CRELAY_PLACE_LEN	256

/* One place to go to; what is not known is empty, the port never is. */
typedef struct CrelayPlace
{
	char		host[CRELAY_PLACE_LEN];
	char		hostaddr[CRELAY_PLACE_LEN];
	char		port[16];
} CrelayPlace;

/*
 * Reads the place that a conninfo names.  False, with error set to a constant,
 * if it does not name exactly one.
 */
extern bool crelay_place_read(CrelayPlace *place, const char *conninfo,
							  const char **error);

/*
 * Writes a conninfo that leads there, and is otherwise the given one: user,
 * password, TLS, application_name and the rest.  What only chooses among hosts
 * is left out.  False, with error set to a constant, if that cannot be done.
 */
extern bool crelay_place_redirect(const CrelayPlace *place,
								  const char *conninfo, char *dst, Size size,
								  const char **error);

/*
 * Returns true if a conninfo says more than where to go to, with the first
 * keyword that does.
 */
extern bool crelay_conninfo_exceeds_place(const char *conninfo, char *keyword, Size size);

/* Whether a conninfo says itself where to go to. */
extern bool crelay_conninfo_names_host(const char *conninfo);

#endif							/* CRELAY_UPSTREAM_SESSION_H */
