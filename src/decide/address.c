/*-------------------------------------------------------------------------
 *
 * address.c
 *	  Addresses of nodes.
 *
 * Owns, leaves out and locks: see address.h.
 *
 *-------------------------------------------------------------------------
 */
#include "decide/address.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

#define MAX_WORD	CRELAY_ADDRESS_WORD

/*
 * Reads the next keyword and its value from a conninfo in keyword and value
 * form.  Returns what is behind them, NULL at the end, or if the text is of
 * another form.
 */
static const char *
next_pair(const char *p, char *keyword, char *value)
{
	bool		quoted;
	size_t		n = 0;

	while (isspace((unsigned char) *p))
		p++;
	while (*p != '\0' && *p != '=' && !isspace((unsigned char) *p) && n < MAX_WORD - 1)
		keyword[n++] = *p++;
	keyword[n] = '\0';
	while (isspace((unsigned char) *p))
		p++;
	if (n == 0 || *p != '=')
		return NULL;
	p++;
	while (isspace((unsigned char) *p))
		p++;
	quoted = *p == '\'';
	p += quoted ? 1 : 0;
	n = 0;
	while (*p != '\0' && (quoted ? *p != '\'' : !isspace((unsigned char) *p)))
	{
		if (*p == '\\' && p[1] != '\0')
			p++;
		if (n < MAX_WORD - 1)
			value[n++] = *p;
		p++;
	}
	value[n] = '\0';
	return quoted && *p == '\'' ? p + 1 : p;
}

static bool
is_name_or_below(const char *host, const char *name)
{
	size_t		len = strlen(name);

	if (strncmp(host, name, len) != 0)
		return false;
	return host[len] == '\0' || host[len] == '.';
}

/*
 * Returns true if a host, by name, number or socket directory, is the machine of
 * whoever connects to it.
 */
bool
crelay_host_is_local(const char *host)
{
	static const char *const exact[] = {"::1", "::", "0.0.0.0", "ip6-localhost", "ip6-loopback"};
	char		lower[MAX_WORD];
	size_t		n = 0;

	for (; host[n] != '\0' && n < MAX_WORD - 1; n++)
		lower[n] = (char) tolower((unsigned char) host[n]);
	lower[n] = '\0';
	if (lower[0] == '/' || lower[0] == '@')
		return true;
	for (size_t i = 0; i < sizeof(exact) / sizeof(exact[0]); i++)
	{
		if (strcmp(lower, exact[i]) == 0)
			return true;
	}
	if (strncmp(lower, "::ffff:127.", 11) == 0 || is_name_or_below(lower, "localhost"))
		return true;
	/* a number, not a name that begins with one */
	return strncmp(lower, "127.", 4) == 0 && lower[strspn(lower, "0123456789.")] == '\0';
}

/*
 * Reads where a conninfo in keyword and value form leads to.  Returns false if it
 * names no host, or if it is of another form.
 */
static bool
read_place(const char *conninfo, CrelayAddress *address)
{
	char		keyword[MAX_WORD];
	char		value[MAX_WORD];
	const char *p = conninfo;
	const char *end = conninfo;

	memset(address, 0, sizeof(*address));
	while ((p = next_pair(p, keyword, value)) != NULL)
	{
		if (strcmp(keyword, "host") == 0)
			memcpy(address->host, value, sizeof(address->host));
		else if (strcmp(keyword, "hostaddr") == 0)
			memcpy(address->hostaddr, value, sizeof(address->hostaddr));
		else if (strcmp(keyword, "port") == 0)
			memcpy(address->port, value, sizeof(address->port));
		end = p;
	}
	while (isspace((unsigned char) *end))
		end++;
	return *end == '\0' && (address->host[0] != '\0' || address->hostaddr[0] != '\0');
}

/*
 * Reads the one place that a conninfo in keyword and value form leads to, and
 * nothing else of it.  Returns false if it does not name exactly one.
 */
bool
crelay_address_read(const char *conninfo, CrelayAddress *address)
{
	return strlen(conninfo) < MAX_WORD && read_place(conninfo, address) &&
		strchr(address->host, ',') == NULL && strchr(address->hostaddr, ',') == NULL &&
		address->port[strspn(address->port, "0123456789")] == '\0';
}

/*
 * Returns true if a conninfo, in keyword and value form, leads to the machine of
 * whoever uses it.  The hostaddr decides where there is one; a conninfo without
 * either means the default socket directory.  Of several hosts any may be the
 * one that is used.
 */
bool
crelay_address_is_local(const char *conninfo)
{
	CrelayAddress address;
	char	   *list = address.hostaddr;
	char	   *rest;

	if (conninfo[0] == '\0')
		return false;
	(void) read_place(conninfo, &address);
	if (list[0] == '\0')
		list = address.host;
	if (list[0] == '\0')
		return true;
	for (char *one = strtok_r(list, ",", &rest); one != NULL; one = strtok_r(NULL, ",", &rest))
	{
		if (crelay_host_is_local(one))
			return true;
	}
	return false;
}

/*
 * Empties a conninfo that leads to the machine of whoever uses it.
 */
void
crelay_address_forget_local(char *conninfo)
{
	if (crelay_address_is_local(conninfo))
		conninfo[0] = '\0';
}
