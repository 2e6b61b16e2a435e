/*-------------------------------------------------------------------------
 *
 * state_file.c
 *	  The state file: all that this node remembers over a restart.
 *
 * Owns, leaves out and locks: see state_file.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

#include "server/state_file.h"

#define TMP_FILE		CRELAY_STATE_FILE ".tmp"
#define DAMAGED_FILE	CRELAY_STATE_FILE ".damaged"

/* The first line, without its newline. */
#define VERSION_WORD	"cascade_relay_state"
#define VERSION			1

/* The last line: "crc ", eight hex digits, a newline. */
#define CRC_LINE_LEN	13

/* Maximum size of a file that is read; a larger one is damaged. */
#define MAX_SIZE		(16 * 1024 * 1024)

/* Interval between attempts to write a section that could not be written. */
#define RETRY_US		INT64CONST(2000000)

static const char *const keywords[CRELAY_SECTIONS] = {
	[CRELAY_SECTION_NODE] = "node",
	[CRELAY_SECTION_MOVES] = "moves",
	[CRELAY_SECTION_TOLD] = "told",
	[CRELAY_SECTION_HOLD] = "hold",
	[CRELAY_SECTION_SLOT] = "slot",
	[CRELAY_SECTION_USER] = "user",
	[CRELAY_SECTION_RELEASED] = "released",
	[CRELAY_SECTION_ADDRESS] = "address",
	[CRELAY_SECTION_PRIMARY] = "primary",
	[CRELAY_SECTION_AWAITED] = "awaited",
};

static LWLock *state_lock;		/* NULL: the library is not preloaded */
static bool is_owner;

/*
 * The sections of the owner.  A render function is remembered from its first
 * use on, so that all of them can be written anew when the file
 * has got lost.
 */
static CrelayRender renders[CRELAY_SECTIONS];
static bool due[CRELAY_SECTIONS];	/* not written yet */
static TimestampTz tried_at;

/*
 * Tells the lock to use; for the shared memory startup hook.
 */
void
crelay_state_use_lock(LWLock *lock)
{
	state_lock = lock;
}

/*
 * Makes this process the one that sets a damaged file aside: the worker, or
 * without one the session that establishes the node's identity.
 */
void
crelay_state_own(void)
{
	is_owner = true;
}

static void
lock_state(void)
{
	if (state_lock != NULL)
		LWLockAcquire(state_lock, LW_EXCLUSIVE);
}

static void
unlock_state(void)
{
	if (state_lock != NULL)
		LWLockRelease(state_lock);
}

/* ---- reading ---- */

/*
 * Reads the whole file into a palloc'd string, NULL if there is none.  Returns
 * false if it exists and cannot be read; errno says why.
 */
static bool
slurp(char **content)
{
	int			fd = OpenTransientFile(CRELAY_STATE_FILE, O_RDONLY | PG_BINARY);
	struct stat st;
	ssize_t		got = -1;

	*content = NULL;
	if (fd < 0)
		return errno == ENOENT;
	if (fstat(fd, &st) == 0)
	{
		size_t		size = (size_t) Min(st.st_size, MAX_SIZE + 1);

		*content = palloc(size + 1);
		got = read(fd, *content, size);
		if (got >= 0)
			(*content)[got] = '\0';
	}
	CloseTransientFile(fd);
	return got >= 0;
}

static pg_crc32c
crc_of(const char *data, size_t len)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, data, len);
	FIN_CRC32C(crc);
	return crc;
}

/*
 * Returns true if the content is whole, and cuts its last line off.  Sets
 * *version; the lines of another version than VERSION mean nothing here.
 */
static bool
is_whole(char *content, int *version)
{
	size_t		len = strlen(content);
	unsigned int crc;

	*version = 0;
	if (len > MAX_SIZE || len <= CRC_LINE_LEN || content[len - 1] != '\n' ||
		content[len - CRC_LINE_LEN - 1] != '\n' ||
		sscanf(&content[len - CRC_LINE_LEN], "crc %8X", &crc) != 1 ||
		crc != crc_of(content, len - CRC_LINE_LEN) ||
		sscanf(content, VERSION_WORD " %d", version) != 1)
		return false;
	content[len - CRC_LINE_LEN] = '\0';
	return true;
}

/*
 * Sets a damaged file aside, for a person to look at.  Returns false, after a
 * report of that level, in a process that does not own the file.
 */
static bool
set_aside(int elevel)
{
	if (!is_owner)
	{
		ereport(elevel,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("state file \"%s\" is damaged", CRELAY_STATE_FILE),
				 errhint("The worker of cascade_relay writes it anew when it is restarted: SELECT pg_catalog.pg_terminate_backend(worker_pid) FROM cascade_status; nothing is lost by that.")));
		return false;
	}
	(void) durable_rename(CRELAY_STATE_FILE, DAMAGED_FILE, LOG);
	ereport(WARNING,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("cascade_relay: state file \"%s\" is damaged, and was renamed to \"%s\"",
					CRELAY_STATE_FILE, DAMAGED_FILE),
			 errhint("Look for failing storage.")));
	return true;
}

/*
 * Reads the lines between the first and the last one, NULL if there is no file,
 * or only a damaged one.  Returns false, after a report of that level, if the
 * file cannot be read.  The caller holds the state lock.
 */
static bool
read_lines(char **lines, int elevel)
{
	char	   *content;
	int			version;

	*lines = NULL;
	if (!slurp(&content))
	{
		ereport(elevel,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", CRELAY_STATE_FILE)));
		return false;
	}
	if (content == NULL)
		return true;
	if (!is_whole(content, &version))
		return set_aside(elevel);
	if (version != VERSION)
	{
		ereport(elevel,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("state file \"%s\" has version %d", CRELAY_STATE_FILE, version),
				 errdetail("This cascade_relay reads version %d.", VERSION),
				 errhint("Install the version of cascade_relay that this server had before.")));
		return false;
	}
	*lines = strchr(content, '\n') + 1;
	return true;
}

/*
 * Returns the rest of a line after its keyword if it belongs to a section, else
 * NULL.
 */
static const char *
in_section(const char *line, CrelaySection section)
{
	size_t		len = strlen(keywords[section]);

	return strncmp(line, keywords[section], len) == 0 && line[len] == ' ' ?
		line + len + 1 : NULL;
}

static char *
lines_of(char *lines, CrelaySection section)
{
	StringInfoData found;
	char	   *line;

	initStringInfo(&found);
	while ((line = crelay_state_next(&lines)) != NULL)
	{
		const char *rest = in_section(line, section);

		if (rest != NULL)
			appendStringInfo(&found, "%s\n", rest);
	}
	return found.data;
}

/*
 * Reads a section: its lines without their keyword, for crelay_state_next().
 * Raises an error if the file cannot be read.
 */
char *
crelay_state_read(CrelaySection section)
{
	char	   *lines;

	lock_state();
	(void) read_lines(&lines, ERROR);
	unlock_state();
	return lines != NULL ? lines_of(lines, section) : pstrdup("");
}

/*
 * Reads a section where an error is out of place, as while the server starts.
 * A file that cannot be read, or is damaged, has no lines, and stays as it is.
 */
char *
crelay_state_peek(CrelaySection section)
{
	char	   *content;
	int			version;

	if (!slurp(&content) || content == NULL || !is_whole(content, &version) ||
		version != VERSION)
		return pstrdup("");
	return lines_of(content, section);
}

/*
 * Takes the next line off, NULL if none is left.  Writes into the string.
 */
char *
crelay_state_next(char **lines)
{
	char	   *line = *lines;
	size_t		len;

	if (*line == '\0')
		return NULL;
	len = strcspn(line, "\n");
	*lines = line + len + (line[len] == '\n' ? 1 : 0);
	line[len] = '\0';
	return line;
}

/* ---- writing ---- */

static void
append_section(StringInfo content, CrelaySection section, char *lines)
{
	char	   *line;

	while ((line = crelay_state_next(&lines)) != NULL)
		appendStringInfo(content, "%s %s\n", keywords[section], line);
}

static void
append_rendered(StringInfo content, CrelaySection section, CrelayRender render)
{
	StringInfoData lines;

	initStringInfo(&lines);
	render(&lines);
	append_section(content, section, lines.data);
	pfree(lines.data);
}

/*
 * Puts a content in place of the file.  Reports with that level why it cannot,
 * and returns false.
 */
static bool
replace_file(const StringInfo content, int elevel)
{
	int			fd = OpenTransientFile(TMP_FILE, O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);
	bool		written = false;

	if (fd >= 0)
	{
		errno = 0;
		written = write(fd, content->data, content->len) == content->len;
		/* a short write without an error means that the disk is full */
		if (!written && errno == 0)
			errno = ENOSPC;
	}
	if (!written)
		ereport(elevel,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", TMP_FILE)));
	if (fd >= 0)
		CloseTransientFile(fd);
	/* durable_rename() syncs the file first */
	return written && durable_rename(TMP_FILE, CRELAY_STATE_FILE, elevel) == 0;
}

/*
 * Replaces a section of the file.  Where there is no file, the other sections
 * that this process can render come along.  Returns false, after a report of that
 * level, if it cannot be done.
 */
static bool
write_section(CrelaySection section, CrelayRender render, int elevel)
{
	StringInfoData content;
	char	   *before;
	bool		written;

	if (is_owner)
		renders[section] = render;
	lock_state();
	if (!read_lines(&before, elevel))
	{
		unlock_state();
		return false;
	}
	initStringInfo(&content);
	appendStringInfo(&content, VERSION_WORD " %d\n", VERSION);
	for (int i = 0; i < CRELAY_SECTIONS; i++)
	{
		if (i == (int) section)
			append_rendered(&content, section, render);
		else if (before == NULL && renders[i] != NULL)
			append_rendered(&content, (CrelaySection) i, renders[i]);
		else if (before != NULL)
			append_section(&content, (CrelaySection) i,
						   lines_of(pstrdup(before), (CrelaySection) i));
	}
	appendStringInfo(&content, "crc %08X\n", crc_of(content.data, content.len));
	written = replace_file(&content, elevel);
	unlock_state();
	pfree(content.data);
	return written;
}

/*
 * Replaces a section.  It is on disk when this returns; else an error is
 * raised, and the file is as before.
 */
void
crelay_state_write(CrelaySection section, CrelayRender render)
{
	(void) write_section(section, render, ERROR);
}

/*
 * Replaces a section as well as it can be done, for a session that does not
 * depend on it.  Returns false if it could not.
 */
bool
crelay_state_try(CrelaySection section, CrelayRender render)
{
	return write_section(section, render, LOG);
}

static bool
is_anything_due(void)
{
	for (int i = 0; i < CRELAY_SECTIONS; i++)
	{
		if (due[i])
			return true;
	}
	return false;
}

/*
 * Replaces a section, for the worker.  If that cannot be done, it is reported
 * unless an attempt before failed too, the section is written by a later pass,
 * and false is returned.
 */
bool
crelay_state_keep(CrelaySection section, CrelayRender render)
{
	bool		again = is_anything_due();

	due[section] = true;
	due[section] = !write_section(section, render, again ? DEBUG1 : LOG);
	if (due[section])
		tried_at = GetCurrentTimestamp();
	return !due[section];
}

/*
 * One pass of the worker: writes what could not be written before.
 */
void
crelay_state_retry(TimestampTz now)
{
	if (now >= tried_at && now - tried_at < RETRY_US)
		return;
	for (int i = 0; i < CRELAY_SECTIONS; i++)
	{
		if (due[i] && !crelay_state_keep((CrelaySection) i, renders[i]))
			return;
	}
}
