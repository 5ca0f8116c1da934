/* Attention with biases, on a CPU, for one panel of queries: keys come near in runs, from wherever they lie,
 * and whenever there are as many as a block holds, scores, weights and results of them are tiles.
 *
 * Queries lie on the lanes of vectors, as in kernels/flash_attn/forward.c. Families differ in which keys they
 * let a panel see. A kernel calls `ds_attend_begin`, `ds_attend_to` for each run of keys, `ds_attend_end`.
 */
#ifndef DS_CPU_ATTEND_RUNS_H
#define DS_CPU_ATTEND_RUNS_H

#include "ds_cpu_runs.h"

/* Tokens of one head. */
typedef struct ds_head {
    void *data;
    int64_t token; /* stride */
    uint32_t dtype;
} ds_head;

/* What is added to scores, each NULL for none: a number of a key, and one of a query and a key. */
typedef struct ds_biases {
    const void *keys, *pairs;
    int64_t query; /* stride of pairs; keys are neighbours */
    uint32_t dtype;
} ds_biases;

/* What a panel is to see, and of what it is. */
typedef struct ds_attention {
    ds_head q, k, v;
    ds_biases bias;
    int64_t d;
    float scale;
    int causal; /* no key after the query's own number */
} ds_attention;

/* How many vectors make panels of `rows` rows cheapest: lanes stay empty at their end, and narrow tiles
 * read more for what they multiply. */
static inline int ds_panel_vectors(int64_t rows) {
    static const int64_t costs[] = {14, 11, 10}; /* of a vector in a tile of so many */
    int best = 1;
    int64_t least = INT64_MAX;
    for (int vectors = 1; vectors <= DS_TILE_VECTORS; vectors++) {
        int64_t cost = ds_div_up(rows, vectors * DS_LANES) * vectors * costs[vectors - 1];
        if (cost <= least) best = vectors;
        least = ds_min(least, cost);
    }
    return best;
}

typedef struct ds_panel {
    ds_attention of;
    int64_t first, rows; /* queries */
    int vectors;         /* of them */
    int64_t near;        /* keys that are near, */
    int32_t key[DS_NEAR_ROWS]; /* and their numbers */
    float bias[DS_NEAR_ROWS];  /* of those */
    ds_vec most[DS_TILE_VECTORS], sum[DS_TILE_VECTORS];
    _Alignas(64) float q[DS_MOST_D * DS_TILE_WIDTH];
    _Alignas(64) float o[(DS_MOST_D + DS_TILE_SLACK) * DS_TILE_WIDTH];
    _Alignas(64) float k[DS_NEAR_ROWS * DS_MOST_D + DS_TILE_SLACK];
    _Alignas(64) float v[DS_NEAR_ROWS * DS_MOST_D + DS_TILE_SLACK];
    _Alignas(64) float scores[DS_NEAR_ROWS * DS_TILE_WIDTH];
    _Alignas(64) float pairs[DS_TILE_WIDTH * DS_NEAR_ROWS]; /* biases, a line for a query, */
    _Alignas(64) float turned[DS_NEAR_ROWS * DS_TILE_WIDTH]; /* and a line for a key */
} ds_panel;

static inline void *ds_token(const ds_head *h, int64_t token) { return ds_at(h->data, token * h->token, h->dtype); }

DS_INLINE void ds_bring_biases_of(float *to, const void *from, int64_t across, int64_t rows, int64_t n, uint32_t t) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < n; c += DS_LANES)
            ds_store_first(n - c, to, i * DS_NEAR_ROWS + c, ds_load_first(n - c, from, i * across + c, t), DS_F32);
}

/* Copies `n` numbers of each of `rows` rows in f32 into lines of DS_NEAR_ROWS. */
DS_OUT_OF_LINE void ds_bring_biases(float *to, const void *from, int64_t across, int64_t rows, int64_t n, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, ds_bring_biases_of(to, from, across, rows, n, t));
}

/* A panel of queries from `first` on that has seen nothing. */
DS_OUT_OF_LINE void ds_attend_begin(ds_panel *p, const ds_attention *of, int64_t first, int64_t rows, int vectors) {
    const int64_t width = vectors * DS_LANES, stride = ds_padded(of->d);
    p->of = *of;
    p->first = first;
    p->rows = rows;
    p->vectors = vectors;
    p->near = 0;
    for (int j = 0; j < vectors; j++) {
        p->most[j] = ds_splat(DS_LEAST_SCORE);
        p->sum[j] = ds_splat(0);
    }
    __builtin_memset(p->o, 0, (size_t)(ds_tile_lines(of->d) * width) * 4);
    if (of->bias.pairs && rows < width) __builtin_memset(p->pairs, 0, sizeof p->pairs);
    ds_bring(p->k, ds_token(&of->q, first), of->q.token, rows, of->d, of->q.dtype);
    __builtin_memset(p->k + rows * stride, 0, (size_t)((width - rows) * stride) * 4);
    ds_turn_in(p->q, width, p->k, of->d, of->scale * DS_LOG2_E);
}

/* Scores of the keys that are near. `most` becomes the greatest ones, where nothing is added to them. */
DS_INLINE void ds_attend_score(ds_panel *p, ds_vec *most, int vectors) {
    const int64_t width = vectors * DS_LANES, stride = ds_padded(p->of.d);
    for (int64_t i = 0; i < p->near; i += DS_TILE_ROWS) {
        ds_tile sums;
        ds_tile_clear(sums);
        ds_tile_multiply(sums, p->k + i * stride, stride, 1, p->q, width, p->of.d, vectors);
        ds_tile_keep(p->scores + i * width, sums, vectors);
#pragma GCC unroll 32
        for (int l = 0; l < DS_TILE_ROWS * vectors; l++)
            most[l % vectors] = ds_vmax(sums[l], most[l % vectors]); /* no NaN: the sum has it */
    }
}

/* Adds biases to scores and hides what comes after a query. */
DS_OUT_OF_LINE void ds_attend_bias(ds_panel *p, ds_vec *most) {
    const int64_t width = p->vectors * DS_LANES;
    const int has_pairs = p->of.bias.pairs != 0, causal = p->of.causal;
    if (has_pairs) ds_turn_in(p->turned, width, p->pairs, DS_NEAR_ROWS, DS_LOG2_E);
    for (int64_t j = 0; j < width; j += DS_LANES) {
        ds_vec_i32 query;
        for (int l = 0; l < DS_LANES; l++) query[l] = (int32_t)(p->first + j) + l;
        most[j / DS_LANES] = p->most[j / DS_LANES];
        for (int64_t i = 0; i < p->near; i++) {
            ds_vec score = ds_load(p->scores, i * width + j, DS_F32) + p->bias[i];
            if (has_pairs) score += ds_load(p->turned, i * width + j, DS_F32);
            if (causal) score = ds_vselect(query >= p->key[i], score, ds_splat(-__builtin_inff()));
            most[j / DS_LANES] = ds_vmax(score, most[j / DS_LANES]);
            ds_store(p->scores, i * width + j, score, DS_F32);
        }
    }
}

/* Weights from scores, and what is to become of results so far. */
DS_INLINE void ds_attend_weigh(ds_panel *p, const ds_vec *most, ds_vec *before, int vectors) {
    const int64_t width = vectors * DS_LANES;
    ds_vec sum[DS_TILE_VECTORS];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) {
        before[j] = ds_vexp2(p->most[j] - most[j]);
        sum[j] = p->sum[j] * before[j];
        p->most[j] = most[j];
    }
    for (int64_t i = 0; i < p->near; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) {
            ds_vec weight = ds_vexp2(ds_load(p->scores, i * width + j * DS_LANES, DS_F32) - most[j]);
            sum[j] += weight;
            ds_store(p->scores, i * width + j * DS_LANES, weight, DS_F32);
        }
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) p->sum[j] = sum[j];
}

/* Lets the panel see the keys that are near. */
DS_INLINE void ds_attend_of(ds_panel *p, int vectors) {
    const int64_t n = p->near, stride = ds_padded(p->of.d);
    const int64_t whole = ds_tile_lines(n);
    __builtin_memset(p->k + n * stride, 0, (size_t)((whole - n) * stride) * 4);
    ds_vec most[DS_TILE_VECTORS], before[DS_TILE_VECTORS];
    for (int j = 0; j < vectors; j++) most[j] = p->most[j];
    ds_attend_score(p, most, vectors);
    if (whole > n || p->of.bias.keys || p->of.bias.pairs || p->of.causal) ds_attend_bias(p, most);
    ds_attend_weigh(p, most, before, vectors);
    ds_add_rows(p->o, before, p->v, p->scores, n, p->of.d, vectors);
    p->near = 0;
}

DS_OUT_OF_LINE void ds_attend(ds_panel *p) {
    if (p->near == 0) return;
    if (p->vectors == 1) ds_attend_of(p, 1);
    else if (p->vectors == 2) ds_attend_of(p, 2);
    else ds_attend_of(p, DS_TILE_VECTORS);
}

/* Brings `n` keys from `key` on near, and lets the panel see as many as make blocks. */
DS_OUT_OF_LINE void ds_attend_to(ds_panel *p, int64_t key, int64_t n) {
    const ds_attention *of = &p->of;
    const int64_t stride = ds_padded(of->d);
    for (int64_t now; n > 0; key += now, n -= now) {
        now = ds_min(DS_NEAR_ROWS - p->near, n);
        ds_bring(p->k + p->near * stride, ds_token(&of->k, key), of->k.token, now, of->d, of->k.dtype);
        ds_bring(p->v + p->near * stride, ds_token(&of->v, key), of->v.token, now, of->d, of->v.dtype);
        for (int64_t i = 0; i < now; i++) {
            p->key[p->near + i] = (int32_t)(key + i);
            p->bias[p->near + i] = 0;
        }
        if (of->bias.keys) {
            ds_bring_biases(p->bias + p->near, ds_at(of->bias.keys, key, of->bias.dtype), 0, 1, now, of->bias.dtype);
            for (int64_t i = 0; i < now; i++) p->bias[p->near + i] *= DS_LOG2_E;
        }
        if (of->bias.pairs)
            ds_bring_biases(p->pairs + p->near, ds_at(of->bias.pairs, p->first * of->bias.query + key, of->bias.dtype),
                            of->bias.query, p->rows, now, of->bias.dtype);
        p->near += now;
        if (p->near == DS_NEAR_ROWS) ds_attend(p);
    }
}

/* Writes the results of the panel's rows, and the logarithms of the first and those behind it. */
DS_OUT_OF_LINE void ds_attend_end(ds_panel *p, const ds_head *o, float *lse) {
    ds_attend(p);
    const ds_vec none = ds_splat(-__builtin_inff());
    ds_vec scale[DS_TILE_VECTORS];
    for (int j = 0; j < p->vectors; j++) {
        ds_vec_i32 is_seen = p->sum[j] != 0; /* NaN is */
        scale[j] = ds_vselect(is_seen, 1 / p->sum[j], ds_splat(0));
        ds_vec log = ds_vselect(is_seen, ds_vfma(p->most[j], ds_splat(0x1.62e43p-1f), ds_vlog(p->sum[j])), none);
        ds_store_first(ds_max(0, p->rows - j * DS_LANES), lse, j * DS_LANES, log, DS_F32);
    }
    ds_turn_out(p->k, p->o, p->vectors * DS_LANES, p->of.d, scale);
    for (int64_t i = 0; i < p->rows; i++)
        ds_put_head(ds_token(o, p->first + i), p->k + i * ds_padded(p->of.d), p->of.d, o->dtype);
}

#endif
