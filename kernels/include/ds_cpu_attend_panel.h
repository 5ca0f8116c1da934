/* What the ways of attention have in common: a call, a panel of its rows, and what these have seen.
 */
#ifndef DS_CPU_ATTEND_PANEL_H
#define DS_CPU_ATTEND_PANEL_H

#include "ds_cpu_attention.h"

enum { Q /* the first argument of each call */ };

typedef struct panel panel;

/* In what calls differ. */
typedef struct layout {
    int starts, alibi, o, lse; /* arguments; -1 for none */
    geometry (*geometry)(const ds_call *call);
    /* Brings `n` keys of the panel's sequence and head from key `first` on near, and their values. */
    void (*bring)(panel *p, const ds_call *call, const geometry *g, int64_t first, int64_t n);
    int has_long_sequences; /* packed ones, too, are worth being parted */
} layout;

/* Scores start here: -infinity has no difference to itself. */
#define LEAST (-0x1.fffffep127f)

typedef struct work {
    const layout *at;
    geometry g;
    int vectors;         /* of rows in a panel */
    int64_t each, slots; /* rows in a panel, panels for a head of keys */
    int64_t parts, part; /* of the keys, and keys in each */
    int64_t partial;     /* numbers that a part leaves */
} work;

/* A panel of rows and what they have seen so far. */
struct panel {
    sequence s;
    int64_t group, first, rows;           /* rows of the sequence and head */
    int64_t from, end;                    /* keys that some row sees, */
    int64_t all_from, all_end;            /* and those that all see */
    int has_slopes;
    int32_t seen_from[WIDTH], seen_end[WIDTH], meets[WIDTH]; /* of each row */
    float slope[WIDTH];
    ds_vec most[VECTORS], sum[VECTORS];
    _Alignas(64) float q[MOST_D * WIDTH];
    _Alignas(64) float o[(MOST_D + SLACK) * WIDTH];
    _Alignas(64) float k[BLOCK * MOST_D + SLACK];
    _Alignas(64) float v[(BLOCK + WIDTH) * MOST_D]; /* and results of few rows behind them */
    _Alignas(64) float scores[BLOCK * WIDTH];
};

/* A row as a query and a head. */
typedef struct row {
    int64_t query, head;
} row;

static inline row row_at(const work *w, const panel *p, int64_t i) {
    int64_t head = first_head(&w->g, p->group), shared = first_head(&w->g, p->group + 1) - head;
    return (row){(p->first + i) / shared, head + (p->first + i) % shared};
}

#endif
