/*-------------------------------------------------------------------------
 *
 * test_address.c
 *	  Tests of addresses that mean something on one machine only, as a plain
 *	  program that prints TAP.
 *
 * Owns: what address.h promises, seen from outside.
 *
 *	  cc -std=gnu99 -Isrc -It/unit -g -fsanitize=address,undefined \
 *		  t/unit/test_address.c src/address.c -o test_address && ./test_address
 *
 *-------------------------------------------------------------------------
 */
#include "decide/address.h"
#include "tap.h"

static const char *const local[] = {
	"host=localhost port=5432", "host=LOCALHOST", "host=localhost.localdomain", "host=127.0.0.1",
	"host=127.8.9.10 port=1", "host=::1", "host='::1' port=5432", "host=/tmp port=5433", "host=@abstract",
	"host=::ffff:127.0.0.1", "host=0.0.0.0", "host=::", "port=5432", "dbname=x",
	"host=prim.test hostaddr=127.0.0.1", "hostaddr=::1", "hostaddr = '127.0.0.1' host = 'a b'",
	"host='/with space/sock' port=1", "host=\\/tmp", "host=a,127.0.0.1", "host=127.0.0.1,a"
};

static const char *const elsewhere[] = {
	"", "host=db1 port=5432", "host=10.0.0.1", "host=127.example.com", "host=localhosted",
	"host=localhost hostaddr=10.0.0.1", "host=2001:db8::1", "host=128.0.0.1", "hostaddr=10.0.0.1",
	"host=a hostaddr=b", "host='it''s' port=5432", "host=1270.0.0.1 port=5432"
};

int
main(void)
{
	static const char *const broken[] = {"=", "=x", "host", "host=", "host='", "host=\\", "host='a\\", "   ", "''", "a b c"};
	static const char *const no_place[] = {
		"", "port=5432", "host=a,b", "hostaddr=a,b", "host=a port=1,2", "host=a port='x; y'", "host=a junk",
		"postgresql://a/b", "host=a = b = "
	};
	CrelayAddress address;
	char		buf[4096];

	for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++)
		ok(crelay_address_is_local(local[i]), "of one machine: %s", local[i]);
	for (size_t i = 0; i < sizeof(elsewhere) / sizeof(elsewhere[0]); i++)
		ok(!crelay_address_is_local(elsewhere[i]), "of any machine: \"%s\"", elsewhere[i]);

	/* whatever is said of them, nothing is read beyond their end */
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
		(void) crelay_address_is_local(broken[i]);
	memset(buf, 'h', sizeof(buf));
	buf[sizeof(buf) - 1] = '\0';

	ok(crelay_address_is_local(buf), "one without a host");
	memcpy(buf, "host=", 5);
	ok(!crelay_address_is_local(buf), "a host of any length");

	ok(crelay_address_read("host=db1 hostaddr = '10.0.0.1' port=5433 sslmode=disable user=x", &address) &&
	   strcmp(address.host, "db1") == 0 && strcmp(address.hostaddr, "10.0.0.1") == 0 &&
	   strcmp(address.port, "5433") == 0, "a place is read, and nothing else");
	ok(crelay_address_read("host='it\\'s \\\\'", &address) && strcmp(address.host, "it's \\") == 0 &&
	   address.port[0] == '\0', "with quotes");
	for (size_t i = 0; i < sizeof(no_place) / sizeof(no_place[0]); i++)
		ok(!crelay_address_read(no_place[i], &address), "no place: \"%s\"", no_place[i]);

	strcpy(buf, "host=localhost port=5432");
	crelay_address_forget_local(buf);
	is_text(buf, "", "it is forgotten");
	strcpy(buf, "host=db1 port=5432");
	crelay_address_forget_local(buf);
	is_text(buf, "host=db1 port=5432", "another one is not");

	ok(crelay_host_is_local("127.1.2.3") && crelay_host_is_local("::1") && crelay_host_is_local("/tmp"), "hosts of this machine");
	ok(!crelay_host_is_local("10.0.0.1") && !crelay_host_is_local("") && !crelay_host_is_local("unknown"), "hosts elsewhere");
	return done_testing();
}
