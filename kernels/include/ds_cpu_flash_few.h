/* Attention of few rows, as in a step of generation, on a CPU.
 *
 * Limit: memory, keys and values once. A tile would have most of its columns empty, so here it is keys
 * that lie on the lanes: products of a head become scores by turning them, a vector of keys at a time.
 */
#ifndef DS_CPU_FLASH_FEW_H
#define DS_CPU_FLASH_FEW_H

#include "ds_cpu_attend.h"
#include "ds_cpu_sequences.h"

enum { Q /* the first argument of each call */ };

typedef struct panel panel;

/* In what calls differ. */
typedef struct layout {
    int starts, alibi, o, lse; /* arguments; -1 for none */
    geometry (*geometry)(const ds_call *call);
    /* Where `n` keys of the panel's sequence and head from key `first` on lie, and their values. */
    void (*keys)(ds_heads *k, ds_heads *v, const panel *p, const ds_call *call, int64_t first, int64_t n);
    int has_long_sequences; /* packed ones, too, are worth being parted */
} layout;

typedef struct work {
    const layout *at;
    geometry g;
    uint32_t dtype;
    int vectors;         /* of rows in a panel */
    int64_t each, slots; /* rows in a panel, panels for a head of keys */
    int64_t parts, part; /* of the keys, and keys in each */
    int64_t partial;     /* numbers that a part leaves */
} work;

/* A panel of rows and what they see. */
struct panel {
    ds_panel of;
    sequence s;
    int64_t group, first, rows;           /* rows of the sequence and head */
    int64_t from, end;                    /* keys that some row sees, */
    int64_t all_from, all_end;            /* and those that all see */
    int64_t near, keys;                   /* keys that are near: the first, and how many */
    int has_slopes;
    int32_t seen_from[DS_GEMM_COLUMNS], seen_end[DS_GEMM_COLUMNS], meets[DS_GEMM_COLUMNS]; /* of each row */
    float slope[DS_GEMM_COLUMNS];
};

/* A row as a query and a head. */
typedef struct row {
    int64_t query, head;
} row;

static inline row row_at(const work *w, const panel *p, int64_t i) {
    int64_t head = first_head(&w->g, p->group), shared = first_head(&w->g, p->group + 1) - head;
    return (row){(p->first + i) / shared, head + (p->first + i) % shared};
}

enum { FEW_ROWS = 4 /* more of a sequence and head of keys are cheaper in a tile */ };

/* Scores of a row and the DS_LANES keys from `keys` on. */
DS_INLINE ds_vec score_of_keys(const float *q, const float *keys, int64_t stride) {
    ds_vec line[DS_LANES];
#pragma GCC unroll 16
    for (int i = 0; i < DS_LANES; i++) line[i] = ds_load(q, 0, DS_F32) * ds_load(keys, i * stride, DS_F32);
    for (int64_t c = DS_LANES; c < stride; c += DS_LANES) {
        ds_vec part = ds_load(q, c, DS_F32);
#pragma GCC unroll 16
        for (int i = 0; i < DS_LANES; i++) line[i] = ds_vfma(part, ds_load(keys, i * stride + c, DS_F32), line[i]);
    }
    ds_turn(line);
#pragma GCC unroll 4
    for (int half = DS_LANES / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; i++) line[i] += line[i + half];
    return line[0];
}

/* o = before * o + weights * values, a few vectors at a time. */
DS_INLINE void add_values(float *o, float before, const float *weights, const float *values, int64_t n, int64_t stride,
                          int vectors) {
    ds_vec sum[4];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) sum[j] = before * ds_load(o, j * DS_LANES, DS_F32);
    for (int64_t i = 0; i < n; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            sum[j] = ds_vfma(ds_splat(weights[i]), ds_load(values, i * stride + j * DS_LANES, DS_F32), sum[j]);
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) ds_store(o, j * DS_LANES, sum[j], DS_F32);
}

/* Weights of the keys that are near for row `i`, whose q is `q`. Gives what is to become of its results
 * so far; what it has seen is in lane `i`. */
DS_OUT_OF_LINE float weigh_few(panel *p, const float *q, int64_t i, int64_t d) {
    const ds_vec none = ds_splat(-__builtin_inff());
    float *scores = p->of.scores;
    ds_vec most = none, sum = ds_splat(0);
    for (int64_t at = 0; at < p->keys; at += DS_LANES) {
        ds_vec score = score_of_keys(q, p->of.k + at * ds_padded(d), ds_padded(d));
        ds_vec_i32 key;
        for (int l = 0; l < DS_LANES; l++) key[l] = (int32_t)(p->near + at) + l;
        score -= p->slope[i] * ds_vabs(__builtin_convertvector(p->meets[i] - key, ds_vec));
        score = ds_vselect((key >= p->seen_from[i]) & (key < p->seen_end[i]), score, none);
        most = ds_vmax(score, most);
        ds_store(scores, at, score, DS_F32);
    }
    float before = p->of.most[0][i], now = before;
    for (int l = 0; l < DS_LANES; l++) now = most[l] > now ? most[l] : now;
    for (int64_t at = 0; at < p->keys; at += DS_LANES) {
        ds_vec weight = ds_vexp2(ds_load(scores, at, DS_F32) - now);
        sum += weight;
        ds_store(scores, at, weight, DS_F32);
    }
    float factor = ds_vexp2(ds_splat(before - now))[0];
    p->of.most[0][i] = now;
    p->of.sum[0][i] = p->of.sum[0][i] * factor + (float)ds_vsum(sum);
    return factor;
}

/* Lets few rows see the keys from `from` to `end`. */
DS_OUT_OF_LINE void attend_few(panel *p, const ds_call *call, const work *w, int64_t from, int64_t end) {
    const tokens q = tokens_of(call, Q);
    const int64_t d = w->g.d, stride = ds_padded(d);
    _Alignas(64) float o[DS_GEMM_COLUMNS * DS_MOST_D]; /* rows */
    ds_heads heads, values;
    heads_of_rows(&heads, &q, &w->g, &p->s, p->group, p->first, p->rows);
    ds_bring(p->of.q, &heads, p->rows, d, q.dtype, DS_F32);
    for (int64_t i = 0; i < p->rows * stride; i++) p->of.q[i] *= (float)call->scalars[0].f * DS_LOG2_E;
    __builtin_memset(o, 0, (size_t)(w->each * stride) * 4);
    for (p->near = from / DS_NEAR_ROWS * DS_NEAR_ROWS; p->near < end; p->near += DS_NEAR_ROWS) {
        p->keys = ds_min(DS_NEAR_ROWS, end - p->near);
        w->at->keys(&heads, &values, p, call, p->near, p->keys);
        ds_bring(p->of.k, &heads, p->keys, d, w->dtype, DS_F32);
        ds_bring(p->of.v, &values, p->keys, d, w->dtype, DS_F32);
        for (int64_t i = 0; i < p->rows; i++) {
            float before = weigh_few(p, p->of.q + i * stride, i, d);
            for (int64_t c = 0; c < stride; c += 4 * DS_LANES) {
                float *sums = o + i * stride + c;
                if (c + 4 * DS_LANES <= stride) add_values(sums, before, p->of.scores, p->of.v + c, p->keys, stride, 4);
                else
                    for (int64_t b = c; b < stride; b += DS_LANES)
                        add_values(sums + b - c, before, p->of.scores, p->of.v + b, p->keys, stride, 1);
            }
        }
    }
    ds_turn_in(p->of.o, w->each, o, d, 1, DS_F32);
}

#endif
