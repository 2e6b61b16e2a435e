/*-------------------------------------------------------------------------
 *
 * address.h
 *	  Addresses of nodes.
 *
 * Owns: where a conninfo that a node has told leads to, and nothing else of it;
 * which addresses of nodes are not to be told to another machine, nor to
 * be believed of one: a loopback address or a socket directory leads everybody
 * to a server of their own machine, and a login would be sent there.
 *
 * Not here: where an address comes from, and whether it is right.
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_ADDRESS_H
#define CRELAY_ADDRESS_H

#include <stdbool.h>

/* Longest word of a conninfo, and more than the longest conninfo of a node. */
#define CRELAY_ADDRESS_WORD	320

/* Where a conninfo leads to; what it does not say is empty. */
typedef struct CrelayAddress
{
	char		host[CRELAY_ADDRESS_WORD];
	char		hostaddr[CRELAY_ADDRESS_WORD];
	char		port[CRELAY_ADDRESS_WORD];
} CrelayAddress;

extern bool crelay_address_read(const char *conninfo, CrelayAddress *address);
extern bool crelay_address_is_local(const char *conninfo);
extern void crelay_address_forget_local(char *conninfo);
extern bool crelay_host_is_local(const char *host);

#endif							/* CRELAY_ADDRESS_H */
