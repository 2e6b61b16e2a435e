/*-------------------------------------------------------------------------
 *
 * guc.h
 *	  The settings of cascade_relay, and a plain copy of them.
 *
 * Owns: the cascade_relay.* parameters, their checks and defaults.
 *
 * Not here: what a setting does; the decisions get values, not settings.
 *
 * Locking: none; parameters are local to each process.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_GUC_H
#define CRELAY_GUC_H

#include "postgres.h"

#include "decide/node.h"

/* What cascade_relay.replica_class says; auto leaves it to what is seen. */
typedef enum CrelayClassSetting
{
	CRELAY_CLASS_SETTING_AUTO,
	CRELAY_CLASS_SETTING_VOTING,
	CRELAY_CLASS_SETTING_READ_REPLICA
} CrelayClassSetting;

typedef struct CrelaySettings
{
	char		node_name[CRELAY_NODE_NAME_MAX + 1];
	char		location[CRELAY_LOCATION_LEN];
	char		advertised_conninfo[CRELAY_CONNINFO_LEN];
	const char *upstream_conninfo;	/* may carry a password: never shown */
	int			report_interval_ms;
	int			stale_timeout_ms;
	CrelayClassSetting replica_class;
	int64		max_hold_size;	/* bytes, -1 no bound */
	int			min_free_percent;	/* of pg_wal's file system, 0 no bound */
	int			hold_timeout_s; /* 0 never */
	bool		enabled;
} CrelaySettings;

extern void crelay_guc_define(bool preloading);
extern void crelay_guc_keep_node_name(const char *name);
extern const char *crelay_guc_passed_over_name(void);
extern void crelay_guc_copy(CrelaySettings *settings);
extern int	crelay_guc_max_nodes(void);
extern bool crelay_guc_ignores(const char *name);

#endif							/* CRELAY_GUC_H */
