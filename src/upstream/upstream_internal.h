/*-------------------------------------------------------------------------
 *
 * upstream_internal.h
 *	  What the four files of the upstream room say to each other.
 *
 * For upstream.c, upstream_session.c, upstream_target.c and upstream_error.c
 * only; everyone else includes upstream.h or upstream_session.h.
 *
 *	upstream.c			the state machine: when to do what, and libpq's calls
 *	upstream_session.c	a conversation that waits for its answers
 *	upstream_target.c	from a target to libpq's parameters, and what libpq
 *						made of them
 *	upstream_error.c	from a complaint to an event, an error and a hint; plain
 *						strings in and out, no libpq
 *
 * Nothing declared here throws or allocates in PostgreSQL's memory, because
 * libpq's memory is held while it runs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_UPSTREAM_INTERNAL_H
#define CRELAY_UPSTREAM_INTERNAL_H

#include "postgres.h"

#include <netdb.h>

#include "upstream/upstream.h"

/* libpq's PGconn, PGresult and PQconninfoOption, without its header. */
struct pg_conn;
struct pg_result;
struct _PQconninfoOption;

/*-------------------------------------------------------------------------
 * upstream_target.c
 *-------------------------------------------------------------------------
 */

/* libpq knows about fifty keywords. */
#define CRELAY_PARAMS_MAX		128

/* Maximum number of addresses of one name that are tried. */
#define CRELAY_ADDRESSES_MAX	8

/* Keywords and values for libpq; they point into what was parsed, or here. */
typedef struct CrelayParams
{
	const char *keywords[CRELAY_PARAMS_MAX + 1];
	const char *values[CRELAY_PARAMS_MAX + 1];

	/* The rest is for upstream_target.c alone. */
	int			count;
	const CrelayTarget *target;
	struct _PQconninfoOption *primary;	/* both parsed; NULL for a blank one */
	struct _PQconninfoOption *upstream;
	char		host[MAXPGPATH];
	char		hostaddr[MAXPGPATH];
	char		port[32];
	char		options[512];
	char		hosts[CRELAY_ADDRESSES_MAX * (NI_MAXHOST + 1)];
	char		hostaddrs[CRELAY_ADDRESSES_MAX * 64];
	int			naddresses;		/* of the host's name; 0: not looked up */
} CrelayParams;

/*
 * All parameters of a connection to the target, which must outlive them.  The
 * server over there ends the session once it is idle for idle_ms, 0 for never.
 * A name with several addresses is looked up, and its addresses are rotated by
 * turn: libpq tries them in order, so that an address that does not answer spends
 * the time of one attempt only.
 * Returns false, with error and hint set to constants, if the target does not
 * name one place to go to.  Either way crelay_params_free() comes after.
 */
extern bool crelay_params_build(CrelayParams *params,
								const CrelayTarget *target, int deadline_ms,
								int idle_ms, int turn,
								const char **error, const char **hint);

/*
 * Replaces the host by the one that the walreceiver is connected to.  Returns
 * false, with nothing changed, if that one is unknown or does not count.
 */
extern bool crelay_params_follow_walreceiver(CrelayParams *params);

/* Makes it the connection that a walreceiver would open there. */
extern void crelay_params_set_replication(CrelayParams *params);

extern void crelay_params_free(CrelayParams *params);

/*
 * Whether libpq would choose among hosts that neither string showed, because
 * they come from a service or the environment.
 */
extern bool crelay_conn_chooses_host(struct pg_conn *conn);

/* What one attempt to connect may take of the time for a name. */
extern int	crelay_connect_share_ms(int deadline_ms, int naddresses, int connect_timeout_ms);

/* connect_timeout as libpq knows it, in ms, or more than any deadline. */
extern int	crelay_conn_timeout_ms(struct pg_conn *conn);

#define CRELAY_SECRETS_MAX		16

/*
 * Who talks to whom, in libpq's strings: they are valid until the peer is
 * freed or the connection is finished or polled.  Unless said otherwise a
 * string is not NULL.
 */
typedef struct CrelayPeer
{
	const char *user;
	const char *database;
	const char *host;
	const char *port;
	const char *passfile;		/* NULL unknown */
	bool		password_given; /* in the parameters or the environment */
	bool		needs_password; /* it was asked for, and there was none */
	bool		lost;			/* the connection is of no use any more */

	/* Every password; never to be shown. */
	const char *secrets[CRELAY_SECRETS_MAX];
	int			secret_count;
	bool		more_secrets;	/* there may be others */

	struct _PQconninfoOption *options;	/* owns some of the above */
} CrelayPeer;

/* Reads the peer; of no connection, one without names and secrets. */
extern void crelay_peer_read(CrelayPeer *peer, struct pg_conn *conn);
extern void crelay_peer_free(CrelayPeer *peer);

/*-------------------------------------------------------------------------
 * upstream.c
 *-------------------------------------------------------------------------
 */

/* Asks for the schema that the extension lives in, quoted; no row: nowhere. */
extern const char crelay_lookup_query[];

/*-------------------------------------------------------------------------
 * upstream_error.c
 *-------------------------------------------------------------------------
 */

#define CRELAY_SQLSTATE_LEN		5

/* A server's complaint, taken apart.  Without sqlstate it is libpq's own. */
typedef struct CrelayComplaint
{
	char		sqlstate[CRELAY_SQLSTATE_LEN + 1];
	char		message[1024];
	char		detail[1024];
	char		hint[512];
} CrelayComplaint;

/*
 * What a failure comes to.  The texts are printable ASCII on one line, because
 * they are shown in databases of any encoding, and free of passwords.
 */
typedef struct CrelayFailure
{
	bool		refused;		/* else failed */
	bool		lacks_extension;	/* that is why it was refused */
	char		error[CRELAY_ERROR_LEN];
	char		hint[CRELAY_HINT_LEN];
} CrelayFailure;

/* From the fields of a result; any may be NULL. */
extern void crelay_complaint_set(CrelayComplaint *complaint,
								 const char *sqlstate, const char *message,
								 const char *detail, const char *hint);

/* The same from libpq's result; in upstream.c, where libpq is known. */
extern void crelay_complaint_read_result(CrelayComplaint *complaint,
										 const struct pg_result *result);

/* From libpq's account of a failed connect, which must be a verbose one. */
extern void crelay_complaint_read_connect(CrelayComplaint *complaint,
										  const char *account);

/* From libpq's message about a connection that was up. */
extern void crelay_complaint_read_lost(CrelayComplaint *complaint,
									   const char *message);

/* The server's complaint, or libpq's; state is where the link stood. */
extern void crelay_failure_complaint(CrelayFailure *failure,
									 const CrelayPeer *peer,
									 CrelayLinkState state,
									 const CrelayComplaint *complaint);

/* The extension is not in the database. */
extern void crelay_failure_missing(CrelayFailure *failure,
								   const CrelayPeer *peer);

/* Nothing came within step_ms. */
extern void crelay_failure_timeout(CrelayFailure *failure,
								   const CrelayPeer *peer,
								   CrelayLinkState state, int step_ms);

/* A failure in our own words. */
extern void crelay_failure_words(CrelayFailure *failure,
								 const CrelayPeer *peer,
								 const char *error, const char *hint);

#endif							/* CRELAY_UPSTREAM_INTERNAL_H */
