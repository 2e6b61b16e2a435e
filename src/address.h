/*-------------------------------------------------------------------------
 *
 * address.h
 *	  Addresses that mean something on one machine only.
 *
 * Owns: which addresses of nodes are not to be told to another machine, nor to
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

extern bool crelay_address_is_local(const char *conninfo);
extern void crelay_address_forget_local(char *conninfo);
extern bool crelay_host_is_local(const char *host);

#endif							/* CRELAY_ADDRESS_H */
