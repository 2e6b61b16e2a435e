/*-------------------------------------------------------------------------
 *
 * tap.h
 *	  What the unit tests share: TAP on stdout, and a generator of numbers.
 *
 * To be included once, by the test program itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_TAP_H
#define CRELAY_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int	tests = 0;
static int	failures = 0;

static void ok(bool passed, const char *fmt,...) __attribute__((format(printf, 2, 3)));

static void
ok(bool passed, const char *fmt,...)
{
	va_list		args;

	printf("%sok %d - ", passed ? "" : "not ", ++tests);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	if (!passed)
		failures++;
}

static inline void
is_text(const char *got, const char *expected, const char *what)
{
	bool		same = got != NULL && strcmp(got, expected) == 0;

	ok(same, "%s", what);
	if (!same)
		printf("#   got: %s\n#   expected: %s\n", got ? got : "(none)", expected);
}

static inline void
is_number(uint64_t got, uint64_t expected, const char *what)
{
	ok(got == expected, "%s", what);
	if (got != expected)
		printf("#   got: %llu\n#   expected: %llu\n",
			   (unsigned long long) got, (unsigned long long) expected);
}

/* The same numbers in every run: what fails once fails again. */
static uint64_t random_state = UINT64_C(0x9e3779b97f4a7c15);

static inline uint32_t
random_below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t) ((random_state >> 32) % n);
}

static inline int
done_testing(void)
{
	printf("1..%d\n", tests);
	return failures > 0 ? 1 : 0;
}

#endif							/* CRELAY_TAP_H */
