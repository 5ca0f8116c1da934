/* Gradients of attention with biases, on a CPU, for one panel of keys: queries come near in runs, and whenever
 * there are as many as a block holds, weights and gradients of scores are tiles.
 *
 * Keys lie on the lanes of vectors, as in kernels/flash_attn/backward.c. Gradients of queries and of biases are
 * added up in memory of the caller, panel after panel. A kernel calls `ds_slope_begin`, `ds_slope_to` for each
 * run of queries, `ds_slope_end`.
 */
#ifndef DS_CPU_ATTEND_BACKWARD_H
#define DS_CPU_ATTEND_BACKWARD_H

#include "ds_cpu_attend_runs.h"

/* What gradients come from, and where those in f32 go. */
typedef struct ds_slopes {
    ds_head d_o;
    const float *lse, *dots; /* of each query: its logarithm, and sum(do * o) */
    float *dq;               /* sums, ds_padded(d) of a query; still to be multiplied by scale */
    float *keys;             /* where not NULL, the sum for each key is written here, */
    float *pairs;            /* and the gradient of each score added here; */
    int64_t query;           /* stride of pairs */
} ds_slopes;

typedef struct ds_slope_panel {
    ds_attention of;
    ds_slopes from;
    int64_t first, keys;
    int vectors;
    int64_t near;
    int32_t query[DS_NEAR_ROWS];
    float lse[DS_NEAR_ROWS], dot[DS_NEAR_ROWS];
    ds_vec bias[DS_TILE_VECTORS], sum[DS_TILE_VECTORS]; /* of the keys */
    _Alignas(64) float rows[DS_TILE_WIDTH * DS_MOST_D]; /* keys as rows, */
    _Alignas(64) float k[DS_MOST_D * DS_TILE_WIDTH];    /* and as panels; times what makes powers of two */
    _Alignas(64) float v[DS_MOST_D * DS_TILE_WIDTH];
    _Alignas(64) float dk[(DS_MOST_D + DS_TILE_SLACK) * DS_TILE_WIDTH];
    _Alignas(64) float dv[(DS_MOST_D + DS_TILE_SLACK) * DS_TILE_WIDTH];
    _Alignas(64) float q[DS_NEAR_ROWS * DS_MOST_D + DS_TILE_SLACK];
    _Alignas(64) float d_o[DS_NEAR_ROWS * DS_MOST_D + DS_TILE_SLACK];
    _Alignas(64) float weights[DS_NEAR_ROWS * DS_TILE_WIDTH];
    _Alignas(64) float slants[DS_NEAR_ROWS * DS_TILE_WIDTH]; /* gradients of the scores */
} ds_slope_panel;

DS_OUT_OF_LINE void ds_slope_bring(ds_slope_panel *p, float *panel, const ds_head *t, float scale) {
    const int64_t stride = ds_padded(p->of.d), width = p->vectors * DS_LANES;
    ds_bring(p->rows, ds_token(t, p->first), t->token, p->keys, p->of.d, t->dtype);
    __builtin_memset(p->rows + p->keys * stride, 0, (size_t)((width - p->keys) * stride) * 4);
    ds_turn_in(panel, width, p->rows, p->of.d, scale);
}

/* A panel of keys from `first` on that no query has seen. */
DS_OUT_OF_LINE void ds_slope_begin(ds_slope_panel *p, const ds_attention *of, const ds_slopes *from, int64_t first,
                                   int64_t keys, int vectors) {
    const int64_t width = vectors * DS_LANES;
    p->of = *of;
    p->from = *from;
    p->first = first;
    p->keys = keys;
    p->vectors = vectors;
    p->near = 0;
    ds_slope_bring(p, p->v, &of->v, 1);
    ds_slope_bring(p, p->k, &of->k, of->scale * DS_LOG2_E);
    __builtin_memset(p->dk, 0, (size_t)(ds_tile_lines(of->d) * width) * 4);
    __builtin_memset(p->dv, 0, (size_t)(ds_tile_lines(of->d) * width) * 4);
    float biases[DS_NEAR_ROWS];
    if (of->bias.keys) ds_bring_biases(biases, ds_at(of->bias.keys, first, of->bias.dtype), 0, 1, keys, of->bias.dtype);
    for (int j = 0; j < vectors; j++) {
        p->sum[j] = ds_splat(0);
        for (int l = 0; l < DS_LANES; l++) {
            const int at = j * DS_LANES + l; /* a lane without a key weighs nothing */
            p->bias[j][l] = at >= keys ? -__builtin_inff() : of->bias.keys ? DS_LOG2_E * biases[at] : 0;
        }
    }
}

DS_INLINE void ds_slope_pairs_of(ds_slope_panel *p, uint32_t t) {
    const ds_biases *b = &p->of.bias;
    for (int64_t i = 0; i < p->near; i++)
        for (int j = 0; j < p->vectors; j++) {
            float *at = p->weights + (i * p->vectors + j) * DS_LANES;
            const void *from = ds_at(b->pairs, p->query[i] * b->query + p->first, t);
            ds_vec more = ds_load_first(ds_max(0, p->keys - j * DS_LANES), from, j * DS_LANES, t);
            ds_store(at, 0, ds_vfma(more, ds_splat(DS_LOG2_E), ds_load(at, 0, DS_F32)), DS_F32);
        }
}

/* Adds biases to scores and hides what comes after a query. */
DS_OUT_OF_LINE void ds_slope_bias(ds_slope_panel *p) {
    if (p->of.bias.pairs) DS_WITH_FLOAT(t, p->of.bias.dtype, ds_slope_pairs_of(p, t));
    const int causal = p->of.causal;
    for (int j = 0; j < p->vectors; j++) {
        ds_vec_i32 key;
        for (int l = 0; l < DS_LANES; l++) key[l] = (int32_t)p->first + j * DS_LANES + l;
        for (int64_t i = 0; i < p->near; i++) {
            float *at = p->weights + (i * p->vectors + j) * DS_LANES;
            ds_vec score = ds_load(at, 0, DS_F32) + p->bias[j];
            if (causal) score = ds_vselect(key <= p->query[i], score, ds_splat(-__builtin_inff()));
            ds_store(at, 0, score, DS_F32);
        }
    }
}

/* Weights of the queries that are near, and the gradients of their scores. */
DS_INLINE void ds_slope_scores(ds_slope_panel *p, int vectors) {
    const int64_t d = p->of.d, stride = ds_padded(d), width = vectors * DS_LANES, whole = ds_tile_lines(p->near);
    ds_tile sums;
    for (int64_t i = 0; i < whole; i += DS_TILE_ROWS) {
        ds_tile_clear(sums);
        ds_tile_multiply(sums, p->q + i * stride, stride, 1, p->k, width, d, vectors);
        ds_tile_keep(p->weights + i * width, sums, vectors);
    }
    if (p->keys < width || p->of.bias.keys || p->of.bias.pairs || p->of.causal) ds_slope_bias(p);
    for (int64_t i = 0; i < whole; i += DS_TILE_ROWS) {
        ds_tile_clear(sums);
        ds_tile_multiply(sums, p->d_o + i * stride, stride, 1, p->v, width, d, vectors);
#pragma GCC unroll 16
        for (int l = 0; l < DS_TILE_ROWS; l++)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++) {
                const int64_t at = (i + l) * width + j * DS_LANES;
                ds_vec weight = ds_vexp2(ds_load(p->weights, at, DS_F32) - p->lse[i + l]);
                ds_store(p->weights, at, weight, DS_F32);
                sums[l * vectors + j] = weight * (sums[l * vectors + j] - p->dot[i + l]);
            }
        ds_tile_keep(p->slants + i * width, sums, vectors);
    }
}

/* Adds to the gradients of biases. */
DS_OUT_OF_LINE void ds_slope_add_biases(ds_slope_panel *p) {
    for (int64_t i = 0; i < p->near; i++)
        for (int j = 0; j < p->vectors; j++) {
            ds_vec slant = ds_load(p->slants, (i * p->vectors + j) * DS_LANES, DS_F32);
            p->sum[j] += slant;
            const int64_t keys = p->keys - j * DS_LANES;
            if (!p->from.pairs || keys <= 0) continue;
            float *to = p->from.pairs + p->query[i] * p->from.query + p->first + j * DS_LANES;
            if (keys >= DS_LANES) ds_store(to, 0, ds_load(to, 0, DS_F32) + slant, DS_F32);
            else ds_store_first(keys, to, 0, ds_load_first(keys, to, 0, DS_F32) + slant, DS_F32);
        }
}

/* Columns of the gradients of at most a tile of queries from number `i` on += slants * keys. */
DS_INLINE void ds_slope_columns(ds_slope_panel *p, int64_t i, int64_t column, int vectors) {
    const int64_t stride = ds_padded(p->of.d), width = p->vectors * DS_LANES;
    ds_tile sums;
    ds_tile_clear(sums);
    ds_tile_multiply(sums, p->slants + i * width, width, 1, p->rows + column, stride, width, vectors);
#pragma GCC unroll 16
    for (int l = 0; l < DS_TILE_ROWS; l++) {
        if (i + l >= p->near) break;
        float *to = p->from.dq + p->query[i + l] * stride + column;
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            ds_store(to, j * DS_LANES, ds_load(to, j * DS_LANES, DS_F32) + sums[l * vectors + j], DS_F32);
    }
}

DS_OUT_OF_LINE void ds_slope_add_queries(ds_slope_panel *p) {
    const int64_t vectors = ds_padded(p->of.d) / DS_LANES;
    for (int64_t i = 0; i < p->near; i += DS_TILE_ROWS)
        for (int64_t c = 0; c < vectors;) {
            if (vectors - c > 1) {
                ds_slope_columns(p, i, c * DS_LANES, 2);
                c += 2;
            } else {
                ds_slope_columns(p, i, c * DS_LANES, 1);
                c += 1;
            }
        }
}

DS_INLINE void ds_slope_of(ds_slope_panel *p, int vectors) {
    const int64_t d = p->of.d, stride = ds_padded(d), n = p->near, whole = ds_tile_lines(n);
    __builtin_memset(p->q + n * stride, 0, (size_t)((whole - n) * stride) * 4);
    __builtin_memset(p->d_o + n * stride, 0, (size_t)((whole - n) * stride) * 4);
    for (int64_t i = n; i < whole; i++) {
        p->lse[i] = __builtin_inff(); /* no weights */
        p->dot[i] = 0;
    }
    ds_slope_scores(p, vectors);
    ds_add_rows(p->dv, 0, p->d_o, p->weights, n, d, vectors);
    ds_add_rows(p->dk, 0, p->q, p->slants, n, d, vectors);
    ds_slope_add_queries(p);
    if (p->from.keys || p->from.pairs) ds_slope_add_biases(p);
    p->near = 0;
}

DS_OUT_OF_LINE void ds_slope(ds_slope_panel *p) {
    if (p->near == 0) return;
    if (p->vectors == 1) ds_slope_of(p, 1);
    else if (p->vectors == 2) ds_slope_of(p, 2);
    else ds_slope_of(p, DS_TILE_VECTORS);
}

/* Brings `n` queries from `query` on near, and lets the panel be seen by as many as make blocks. */
DS_OUT_OF_LINE void ds_slope_to(ds_slope_panel *p, int64_t query, int64_t n) {
    const ds_attention *of = &p->of;
    const ds_head *d_o = &p->from.d_o;
    const int64_t stride = ds_padded(of->d);
    for (int64_t now; n > 0; query += now, n -= now) {
        now = ds_min(DS_NEAR_ROWS - p->near, n);
        ds_bring(p->q + p->near * stride, ds_token(&of->q, query), of->q.token, now, of->d, of->q.dtype);
        ds_bring(p->d_o + p->near * stride, ds_token(d_o, query), d_o->token, now, of->d, d_o->dtype);
        for (int64_t i = 0; i < now; i++) {
            const float sum = DS_LOG2_E * p->from.lse[query + i];
            p->query[p->near + i] = (int32_t)(query + i);
            p->lse[p->near + i] = sum == -__builtin_inff() ? -sum : sum; /* -infinity: it sees nothing */
            p->dot[p->near + i] = p->from.dots[query + i];
        }
        p->near += now;
        if (p->near == DS_NEAR_ROWS) ds_slope(p);
    }
}

DS_OUT_OF_LINE void ds_slope_put(ds_slope_panel *p, const ds_head *to, const float *panel, float scale) {
    ds_vec scales[DS_TILE_VECTORS];
    for (int j = 0; j < p->vectors; j++) scales[j] = ds_splat(scale);
    ds_turn_out(p->rows, panel, p->vectors * DS_LANES, p->of.d, scales);
    for (int64_t i = 0; i < p->keys; i++)
        ds_put_head(ds_token(to, p->first + i), p->rows + i * ds_padded(p->of.d), p->of.d, to->dtype);
}

/* Writes the gradients of the panel's keys and values, and the sums for its keys. */
DS_OUT_OF_LINE void ds_slope_end(ds_slope_panel *p, const ds_head *dk, const ds_head *dv) {
    ds_slope(p);
    ds_slope_put(p, dk, p->dk, p->of.scale);
    ds_slope_put(p, dv, p->dv, 1);
    if (!p->from.keys) return;
    for (int j = 0; j < p->vectors; j++)
        ds_store_first(ds_max(0, p->keys - j * DS_LANES), p->from.keys, p->first + j * DS_LANES, p->sum[j], DS_F32);
}

#endif
