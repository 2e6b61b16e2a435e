/*-------------------------------------------------------------------------
 *
 * other_clock.c
 *	  A clock that can be set, and another resolver, to be preloaded.
 *
 * t/047_clock.pl starts a server with it.  The clock is ahead by as many
 * seconds as the file says that OTHER_CLOCK names; looking up a host's name
 * takes OTHER_RESOLVER_MS milliseconds more.  For t/069_two_addresses.pl the name
 * two.test has the addresses 127.0.0.2 and 127.0.0.1, in that order.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE

#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long
seconds_ahead(void)
{
	const char *path = getenv("OTHER_CLOCK");
	char		digits[32] = "";
	int			fd = path != NULL ? open(path, O_RDONLY) : -1;

	if (fd < 0)
		return 0;
	if (read(fd, digits, sizeof(digits) - 1) < 0)
		digits[0] = '\0';
	close(fd);
	return atol(digits);
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	struct timespec now;

	if (syscall(SYS_clock_gettime, CLOCK_REALTIME, &now) != 0)
		return -1;
	tv->tv_sec = now.tv_sec + seconds_ahead();
	tv->tv_usec = now.tv_nsec / 1000;
	return 0;
}

int
getaddrinfo(const char *restrict node, const char *restrict service,
			const struct addrinfo *restrict hints, struct addrinfo **restrict res)
{
	static int	(*real) (const char *, const char *, const struct addrinfo *,
						 struct addrinfo **);
	const char *slow = getenv("OTHER_RESOLVER_MS");

	if (real == NULL)
		*(void **) &real = dlsym(RTLD_NEXT, "getaddrinfo");
	if (slow != NULL && node != NULL)
	{
		long		ms = atol(slow);
		struct timespec pause = {ms / 1000, ms % 1000 * 1000000};

		nanosleep(&pause, NULL);
	}
	if (node != NULL && strcmp(node, "two.test") == 0)
	{
		struct addrinfo **end = res;
		int			error = real("127.0.0.2", service, hints, res);

		while (error == 0 && *end != NULL)
			end = &(*end)->ai_next;
		return error == 0 ? real("127.0.0.1", service, hints, end) : error;
	}
	return real(node, service, hints, res);
}
