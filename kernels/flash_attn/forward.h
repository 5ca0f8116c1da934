/* What the ways of attention have in common: a call, a panel of its rows, and what these have seen.
 */
#ifndef DS_FORWARD_H
#define DS_FORWARD_H

#include "attention.h"

enum { Q, K, V };

typedef struct layout {
    int starts, alibi, o, lse; /* arguments */
} layout;

typedef struct work {
    geometry g;
    int vectors;         /* of rows in a panel */
    int64_t each, slots; /* rows in a panel, panels for a head of keys */
    int64_t parts, part; /* of the keys, and keys in each */
    int64_t partial;     /* numbers that a part leaves */
} work;

/* A panel of rows and what they have seen so far. */
typedef struct panel {
    sequence s;
    int64_t group, first, rows;           /* rows of the sequence and head */
    int64_t from, end;                    /* keys that some row sees, */
    int64_t all_from, all_end;            /* and those that all see */
    int has_slopes;
    int32_t seen_from[DS_TILE_WIDTH], seen_end[DS_TILE_WIDTH], meets[DS_TILE_WIDTH]; /* of each row */
    float slope[DS_TILE_WIDTH];
    ds_vec most[DS_TILE_VECTORS], sum[DS_TILE_VECTORS];
    _Alignas(64) float q[DS_MOST_D * DS_TILE_WIDTH];
    _Alignas(64) float o[(DS_MOST_D + DS_TILE_SLACK) * DS_TILE_WIDTH];
    _Alignas(64) float k[DS_NEAR_ROWS * DS_MOST_D + DS_TILE_SLACK];
    _Alignas(64) float v[(DS_NEAR_ROWS + DS_TILE_WIDTH) * DS_MOST_D]; /* and results of few rows behind them */
    _Alignas(64) float scores[DS_NEAR_ROWS * DS_TILE_WIDTH];
} panel;

/* A row as a query and a head. */
typedef struct row {
    int64_t query, head;
} row;

static inline row row_at(const work *w, const panel *p, int64_t i) {
    int64_t head = first_head(&w->g, p->group), shared = first_head(&w->g, p->group + 1) - head;
    return (row){(p->first + i) / shared, head + (p->first + i) % shared};
}

#endif
