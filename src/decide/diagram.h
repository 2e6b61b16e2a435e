/*-------------------------------------------------------------------------
 *
 * diagram.h
 *	  A picture of the tree as text: SVG, Graphviz's DOT, or Mermaid.
 *
 * Owns: where each card stands, which nodes are folded into one card, the words
 * on the cards, and the escaping of names in each format.
 *
 * Not here: where the nodes come from (diagram_funcs.c), their order and their
 * depth (topology.c).  The output is printable ASCII and line feeds, whatever
 * the names are.
 *
 * Locking: none.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CRELAY_DIAGRAM_H
#define CRELAY_DIAGRAM_H

#include "decide/node.h"

typedef enum CrelayDiagramFormat
{
	CRELAY_DIAGRAM_SVG,
	CRELAY_DIAGRAM_DOT,
	CRELAY_DIAGRAM_MERMAID
} CrelayDiagramFormat;

/*
 * A node in the order of the tree: its upstream stands before it.  The caller
 * fills the first part; the second one is the workspace of crelay_diagram_draw().
 */
typedef struct CrelayDiagramNode
{
	const CrelayNode *node;
	CrelayState state;			/* as it is shown */
	int			parent;			/* index of its upstream, -1 at the top */
	int			depth;			/* 0: a root; 1: also the top of an orphaned
								 * part */
	bool		local;			/* the node that was asked */
	uint32_t	warnings;
	int64_t		lag;			/* bytes behind, -1 unknown */

	bool		quiet;			/* nothing to tell of it, nor of any below */
	bool		hidden;			/* it, or a node above it, is in a folded card */
	bool		pins;			/* the root keeps WAL for it */
	bool		on_path;		/* so the edge to it is part of that path */
	bool		has_children;	/* that are drawn */
	int			shown;			/* children that folding still leaves */
	int			fold;			/* the child whose card stands for its folded
								 * children; -1 none */
	int			folded;			/* nodes in the card that it stands for */
	int			size;			/* it and all below it */
	int64_t		worst_lag;		/* of these */
	int			y;				/* of its card's upper edge */
	int			first_y;		/* of its children */
	int			last_y;
} CrelayDiagramNode;

typedef struct CrelayDiagram
{
	int			n;
	CrelayDiagramNode *nodes;
	int64_t		now;
	const char *time;			/* now, as it is printed */
	uint64_t	segment_size;
	int			lsn_digits;		/* least number of them after the slash */
} CrelayDiagram;

typedef void (*CrelayDiagramSink) (void *arg, const char *text, size_t len);

extern void crelay_diagram_draw(CrelayDiagram *diagram, CrelayDiagramFormat format,
								CrelayDiagramSink sink, void *sink_arg);
extern bool crelay_diagram_format_parse(const char *name, CrelayDiagramFormat *format);

#endif							/* CRELAY_DIAGRAM_H */
