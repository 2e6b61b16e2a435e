/*-------------------------------------------------------------------------
 *
 * repoint.c
 *	  The two settings that say where this server streams from.
 *
 * Owns, leaves out and locks: see repoint.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <unistd.h>

#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/varlena.h"

#include "server/compat.h"
#include "sql/repoint.h"

#define CONNINFO	"primary_conninfo"
#define SLOT_NAME	"primary_slot_name"

/*-------------------------------------------------------------------------
 * Whether they may be changed
 *-------------------------------------------------------------------------
 */

/*
 * The caller needs the same rights as for ALTER SYSTEM.
 */
void
crelay_repoint_check_rights(void)
{
	static const char *const names[] = {CONNINFO, SLOT_NAME};

	if (superuser())
		return;
	for (int i = 0; i < (int) lengthof(names); i++)
	{
		if (pg_parameter_aclcheck(names[i], GetUserId(), ACL_ALTER_SYSTEM) != ACLCHECK_OK)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied to set parameter \"%s\"", names[i]),
					 errhint("On the primary: GRANT ALTER SYSTEM ON PARAMETER %s, %s TO the role.",
							 CONNINFO, SLOT_NAME)));
	}
}

/*
 * ALTER SYSTEM would go unheard where the server got its value in a way that
 * no file overrides, and is refused where the file may not be written.
 */
void
crelay_repoint_check_effect(void)
{
	static const char *const names[] = {CONNINFO, SLOT_NAME};

	for (int i = 0; i < (int) lengthof(names); i++)
	{
		if (crelay_setting_is_overridden(names[i]))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("\"%s\" was given on this server's command line", names[i]),
					 errhint("ALTER SYSTEM would have no effect: start the server without it, and set it in %s.",
							 "postgresql.conf")));
	}
	if (!crelay_alter_system_is_allowed())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"%s\" is off: something else manages the settings of this server",
						"allow_alter_system"),
				 errhint("Change \"%s\" and \"%s\" there; CloudNativePG takes them from the cluster's manifest.",
						 CONNINFO, SLOT_NAME)));
	if (access(PG_AUTOCONF_FILENAME, W_OK) != 0 && errno != ENOENT)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"%s\" cannot be written: %m", PG_AUTOCONF_FILENAME),
				 errhint("If something else manages the settings of this server, change \"%s\" and \"%s\" there.",
						 CONNINFO, SLOT_NAME)));
}

/*
 * Whether a library of that name is preloaded, from whatever folder.
 */
static bool
is_preloaded(const char *library)
{
	char	   *names = pstrdup(shared_preload_libraries_string ?
								shared_preload_libraries_string : "");
	List	   *list;
	ListCell   *lc;
	bool		found = false;

	if (SplitDirectoriesString(names, ',', &list))
	{
		foreach(lc, list)
		{
			const char *name = lfirst(lc);
			const char *slash = strrchr(name, '/');

			found |= strcmp(slash ? slash + 1 : name, library) == 0;
		}
		list_free_deep(list);
	}
	pfree(names);
	return found;
}

/*
 * Whether the configuration file begins as the one that Patroni writes.
 */
static bool
is_patronis_file(void)
{
	char		line[256];
	bool		found = false;
	FILE	   *file;

	if (ConfigFileName == NULL || (file = AllocateFile(ConfigFileName, "r")) == NULL)
		return false;
	for (int i = 0; i < 4 && !found && fgets(line, sizeof(line), file) != NULL; i++)
		found = strstr(line, "overwritten by Patroni") != NULL;
	FreeFile(file);
	return found;
}

/*
 * Whether a setting that no library here defines has a value.  One that was
 * taken out of the file is remembered, as empty.
 */
static bool
is_set(const char *name)
{
	const char *value = GetConfigOption(name, true, false);

	return value != NULL && value[0] != '\0';
}

static void
refuse_manager(const char *manager, const char *sign, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s owns \"%s\" of this server", manager, CONNINFO),
			 errdetail("It can be told by this: %s.", sign),
			 errhint("%s", hint)));
}

/*
 * An HA manager would change the settings back, or be misled by them.  The
 * signs are its own files and settings, which a plain clone of its data folder
 * has too: then they have to be removed there first.
 */
void
crelay_repoint_check_manager(void)
{
	if (is_patronis_file())
		refuse_manager("Patroni", "it has written the configuration file",
					   "Set \"replicatefrom\" in the tags of this member, in Patroni's configuration, and reload that.");
	if (access("patroni.dynamic.json", F_OK) == 0)
		refuse_manager("Patroni", "patroni.dynamic.json in the data folder",
					   "Set \"replicatefrom\" in the tags of this member, in Patroni's configuration, and reload that. If Patroni does not run this server, remove the file.");
	if (is_set("cnpg.config_sha256"))
		refuse_manager("CloudNativePG", "the setting cnpg.config_sha256",
					   "Its replicas stream from the primary of the cluster; a replica cluster's source is set in the manifest.");
	if (is_preloaded("repmgr"))
		refuse_manager("repmgr", "repmgr in shared_preload_libraries, which repmgrd needs",
					   "Run \"repmgr standby follow --upstream-node-id\" on this node. If repmgrd is not used, take repmgr out of shared_preload_libraries.");
	if (access("postgresql-auto-failover-standby.conf", F_OK) == 0)
		refuse_manager("pg_auto_failover", "postgresql-auto-failover-standby.conf in the data folder",
					   "Its standbys stream from the primary. If pg_autoctl does not run this server, remove the file.");
}

/*-------------------------------------------------------------------------
 * Changing them
 *-------------------------------------------------------------------------
 */

static void
forget_setting(CrelaySavedSetting *setting)
{
	if (setting->value != NULL)
	{
		explicit_bzero(setting->value, strlen(setting->value));
		pfree(setting->value);
	}
	memset(setting, 0, sizeof(*setting));
}

static void
save_setting(CrelaySavedSetting *setting, const char *value)
{
	char	   *copy = MemoryContextStrdup(TopMemoryContext, value);

	forget_setting(setting);
	setting->present = true;
	setting->value = copy;
}

static void
forget_file(CrelayRepointFile *file)
{
	forget_setting(&file->conninfo);
	forget_setting(&file->slot_name);
}

/*
 * Reads what postgresql.auto.conf says, of which the last word counts.
 */
static void
read_file(CrelayRepointFile *file)
{
	ConfigVariable *head = NULL;
	ConfigVariable *tail = NULL;

	forget_file(file);
	if (access(PG_AUTOCONF_FILENAME, F_OK) != 0)
		return;
	if (!ParseConfigFile(PG_AUTOCONF_FILENAME, false, NULL, 0, 0, DEBUG5, &head, &tail))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("could not parse contents of file \"%s\"", PG_AUTOCONF_FILENAME),
				 errhint("%s lists what is wrong.", "pg_file_settings")));
	for (const ConfigVariable *item = head; item != NULL; item = item->next)
	{
		if (item->name != NULL && pg_strcasecmp(item->name, CONNINFO) == 0)
			save_setting(&file->conninfo, item->value);
		else if (item->name != NULL && pg_strcasecmp(item->name, SLOT_NAME) == 0)
			save_setting(&file->slot_name, item->value);
	}
	FreeConfigVariables(head);
}

void
crelay_repoint_save(CrelayRepoint *saved)
{
	read_file(&saved->before);
}

void
crelay_repoint_forget(CrelayRepoint *saved)
{
	forget_file(&saved->before);
	forget_file(&saved->ours);
}

/*
 * Returns true if these values are others than those in effect, which come from
 * postgresql.auto.conf if that has any.
 */
bool
crelay_repoint_changes(const CrelayRepoint *saved, const char *conninfo,
					   const char *slot_name)
{
	const char *old_conninfo = saved->before.conninfo.present ?
	saved->before.conninfo.value : PrimaryConnInfo;
	const char *old_slot_name = saved->before.slot_name.present ?
	saved->before.slot_name.value : PrimarySlotName;

	return old_conninfo == NULL || strcmp(old_conninfo, conninfo) != 0 ||
		old_slot_name == NULL || strcmp(old_slot_name, slot_name) != 0;
}

/*
 * ALTER SYSTEM SET, or RESET for NULL.  The server's errors may quote the
 * value, with a password in it: then it is told in other words.
 */
static void
alter_system(const char *name, const char *value)
{
	MemoryContext context = CurrentMemoryContext;
	VariableSetStmt *set = makeNode(VariableSetStmt);
	AlterSystemStmt *statement = makeNode(AlterSystemStmt);

	set->kind = value != NULL ? VAR_SET_VALUE : VAR_RESET;
	set->name = pstrdup(name);
	if (value != NULL)
	{
		A_Const    *constant = makeNode(A_Const);

		constant->val.sval.type = T_String;
		constant->val.sval.sval = pstrdup(value);
		constant->location = -1;
		set->args = list_make1(constant);
	}
	statement->setstmt = set;

	PG_TRY();
	{
		AlterSystemSetConfigFile(statement);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (value == NULL || value[0] == '\0' || error->message == NULL ||
			strstr(error->message, value) == NULL)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(error->sqlerrcode),
				 errmsg("could not set parameter \"%s\"", name),
				 errdetail("The server's own words quote the value, which may contain a password.")));
	}
	PG_END_TRY();
}

/*
 * As pg_reload_conf() does it.
 */
static void
reload(void)
{
	if (kill(PostmasterPid, SIGHUP) != 0)
		ereport(WARNING,
				(errmsg("failed to send signal to postmaster: %m")));
}

/*
 * Sets both, and lets the server know.
 */
void
crelay_repoint_set(CrelayRepoint *saved, const char *conninfo, const char *slot_name)
{
	save_setting(&saved->ours.conninfo, conninfo);
	save_setting(&saved->ours.slot_name, slot_name);
	saved->changed = true;
	alter_system(SLOT_NAME, slot_name);
	alter_system(CONNINFO, conninfo);
	reload();
}

static bool
is_same_setting(const CrelaySavedSetting *a, const CrelaySavedSetting *b)
{
	return a->present == b->present &&
		(!a->present || strcmp(a->value, b->value) == 0);
}

/*
 * Puts one of them back, unless another session has changed it since: what that
 * wants is newer than what was there before.
 */
static void
restore_setting(const char *name, const CrelaySavedSetting *before,
				const CrelaySavedSetting *ours, const CrelaySavedSetting *now)
{
	if (is_same_setting(now, before))
		return;
	if (is_same_setting(now, ours))
		alter_system(name, before->value);
	else
		ereport(WARNING,
				(errmsg("parameter \"%s\" was changed by another session meanwhile, and stays as that has set it",
						name)));
}

/*
 * Puts both back, and lets the server know.
 */
void
crelay_repoint_restore(CrelayRepoint *saved)
{
	CrelayRepointFile now = {0};

	if (!saved->changed)
		return;
	read_file(&now);
	restore_setting(CONNINFO, &saved->before.conninfo, &saved->ours.conninfo, &now.conninfo);
	restore_setting(SLOT_NAME, &saved->before.slot_name, &saved->ours.slot_name,
					&now.slot_name);
	forget_file(&now);
	reload();
	saved->changed = false;
}

/*-------------------------------------------------------------------------
 * The server's log
 *-------------------------------------------------------------------------
 */

/*
 * Whether a text may contain what libpq would not show.
 */
static bool
may_contain_secret(const char *text)
{
	static const char *const words[] = {"password", "://", "scram_", "secret"};

	for (int i = 0; i < (int) lengthof(words); i++)
	{
		if (strstr(text, words[i]) != NULL)
			return true;
	}
	return false;
}

/*
 * The postmaster logs each setting that a reload has changed, with its value.
 * Of a connection string that may contain a password it logs the name alone.
 */
void
crelay_repoint_redact(ErrorData *edata)
{
	static const char *const names[] = {CONNINFO, "cascade_relay.upstream_conninfo"};

	if (edata->message == NULL || edata->message_id == NULL ||
		strcmp(edata->message_id, "parameter \"%s\" changed to \"%s\"") != 0)
		return;
	for (int i = 0; i < (int) lengthof(names); i++)
	{
		char		quoted[64];

		snprintf(quoted, sizeof(quoted), "\"%s\"", names[i]);
		if (strstr(edata->message, quoted) != NULL && may_contain_secret(edata->message))
			edata->message = psprintf("parameter \"%s\" changed; its value may contain a password",
									  names[i]);
	}
}
