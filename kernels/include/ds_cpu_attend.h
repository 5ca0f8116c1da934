/* Attention of a panel of queries that never holds the matrix of scores, on a CPU (Dao 2023, arXiv 2307.08691).
 *
 * Limit: multiply-add instructions, 4 d flops for each key that a query sees; beside them the
 * exponentials take a tenth of the time where d is 64.
 *
 * Queries lie on the lanes of vectors: a panel has as many side by side as the register tile has columns. For
 * each block of keys, scores are a tile of keys x queries; a query's greatest score, its sum and its mask are
 * then lanes of a few vectors. Weights multiply values as they lie, into results that stay turned until all
 * keys were seen. Families differ in which keys they bring and what they do to scores.
 */
#ifndef DS_CPU_ATTEND_H
#define DS_CPU_ATTEND_H

#include "ds_cpu_panels.h"

/* What queries have seen so far. */
typedef struct ds_panel {
    ds_vec most[DS_GEMM_VECTORS], sum[DS_GEMM_VECTORS];
    float scale; /* what sums are multiplied by to make powers of two, where queries are not */
    _Alignas(64) float q[DS_MOST_D * DS_GEMM_COLUMNS];
    _Alignas(64) float o[(DS_MOST_D + DS_PANEL_SLACK) * DS_GEMM_COLUMNS];
    _Alignas(64) float k[DS_NEAR_ROWS * DS_MOST_D + DS_PANEL_SLACK];
    _Alignas(64) float v[DS_NEAR_ROWS * DS_MOST_D + DS_PANEL_SLACK];
    _Alignas(64) float scores[DS_NEAR_ROWS * DS_GEMM_COLUMNS];
} ds_panel;

/* A panel that has seen nothing. */
DS_OUT_OF_LINE void ds_panel_clear(ds_panel *p, int64_t d, int vectors) {
    for (int j = 0; j < vectors; j++) {
        p->most[j] = ds_splat(DS_LEAST_SCORE);
        p->sum[j] = ds_splat(0);
    }
    __builtin_memset(p->o, 0, (size_t)(ds_panel_lines(d) * vectors * DS_LANES) * 4);
}

/* Brings `n` queries. */
DS_OUT_OF_LINE void ds_panel_queries(ds_panel *p, const ds_heads *q, int64_t n, int64_t d, float scale, int vectors,
                                     uint32_t dtype) {
    const uint32_t form = ds_form_of_heads(dtype, d);
    const int64_t words = ds_words(d, form), stride = ds_padded(words), width = vectors * DS_LANES;
    ds_bring(p->k, q, n, d, dtype, form);
    __builtin_memset(p->k + n * stride, 0, (size_t)((width - n) * stride) * 4);
    p->scale = scale * DS_LOG2_E;
    ds_turn_in(p->q, width, p->k, words, p->scale, form);
}

/* Brings `n` keys and values. */
DS_OUT_OF_LINE void ds_panel_keys(ds_panel *p, const ds_heads *k, const ds_heads *v, int64_t n, int64_t d, uint32_t dtype) {
    const uint32_t form = ds_form_of_heads(dtype, d);
    const int64_t stride = ds_padded(ds_words(d, form));
    ds_bring(p->k, k, n, d, dtype, form);
    __builtin_memset(p->k + n * stride, 0, (size_t)((ds_panel_lines(n) - n) * stride) * 4);
    ds_bring_across(p->v, v, n, d, dtype, form);
}

/* Scores of the `n` keys that are near. `most` becomes the greatest ones. */
DS_INLINE void ds_panel_score(ds_panel *p, int64_t n, int64_t d, ds_vec *most, int vectors, uint32_t form) {
    const int64_t width = vectors * DS_LANES, words = ds_words(d, form), stride = ds_padded(words);
    for (int64_t i = 0; i < n; i += DS_GEMM_ROWS) {
        ds_sums sums;
        ds_sums_clear(sums);
        ds_panel_multiply(sums, p->k + i * stride, stride, 1, p->q, width, words, vectors, form);
        if (form == DS_PAIRS) {
#pragma GCC unroll 32
            for (int l = 0; l < DS_GEMM_ROWS * vectors; l++) sums[l] *= p->scale;
        }
        ds_sums_keep(p->scores + i * width, sums, vectors);
#pragma GCC unroll 32
        for (int l = 0; l < DS_GEMM_ROWS * vectors; l++)
            most[l % vectors] = ds_vmax(sums[l], most[l % vectors]); /* no NaN: the sum has it */
    }
}

/* Weights from scores, and what is to become of results so far. */
DS_INLINE void ds_panel_weigh(ds_panel *p, int64_t n, const ds_vec *most, ds_vec *before, int vectors, uint32_t form) {
    const int64_t width = vectors * DS_LANES;
    ds_vec sum[DS_GEMM_VECTORS];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) {
        before[j] = ds_vexp2(p->most[j] - most[j]);
        sum[j] = p->sum[j] * before[j];
        p->most[j] = most[j];
    }
    for (int64_t j = 0; form == DS_PAIRS && n % 2 && j < width; j++) p->scores[n * width + j] = -__builtin_inff();
    for (int64_t i = 0; i < n; i += form == DS_PAIRS ? 2 : 1)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) {
            const float *at = p->scores + i * width + j * DS_LANES;
            ds_vec weight = ds_vexp2(ds_load(at, 0, DS_F32) - most[j]);
            sum[j] += weight;
            if (form == DS_PAIRS) {
                ds_vec next = ds_vexp2(ds_load(at, width, DS_F32) - most[j]);
                sum[j] += next;
                weight = (ds_vec)ds_bf16_pair((ds_vec2){weight, next});
            }
            ds_store(p->scores, ds_words(i, form) * width + j * DS_LANES, weight, DS_F32);
        }
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) p->sum[j] = sum[j];
}

/* Lets the panel see the `n` keys that are near. `change`, where there is one, is called with `of`: it adds to
 * scores, hides keys from queries, and finds the greatest scores anew. */
DS_INLINE void ds_panel_see(ds_panel *p, int64_t n, int64_t d, int vectors, uint32_t form,
                            void (*change)(void *of, ds_vec *most), void *of) {
    ds_vec most[DS_GEMM_VECTORS], before[DS_GEMM_VECTORS];
    for (int j = 0; j < vectors; j++) most[j] = p->most[j];
    ds_panel_score(p, n, d, most, vectors, form);
    if (change) {
        for (int j = 0; j < vectors; j++) most[j] = p->most[j];
        change(of, most);
    }
    ds_panel_weigh(p, n, most, before, vectors, form);
    ds_add_rows(p->o, before, p->v, p->scores, n, d, vectors, form);
}

/* Leaves results as rows in `k`, and the logarithms of their sums. Of a query that has seen nothing they are
 * `none` and `no_log`. */
DS_OUT_OF_LINE void ds_panel_results(ds_panel *p, int64_t d, int vectors, float none, float no_log, float *log) {
    ds_vec scale[DS_GEMM_VECTORS];
    for (int j = 0; j < vectors; j++) {
        ds_vec_i32 is_seen = p->sum[j] != 0; /* NaN is */
        scale[j] = ds_vselect(is_seen, 1 / p->sum[j], ds_splat(none));
        /* log(2) times the greatest score, and the logarithm of the sum. */
        ds_vec both = ds_vfma(p->most[j], ds_splat(0x1.62e43p-1f), ds_vlog(p->sum[j]));
        ds_store(log, j * DS_LANES, ds_vselect(is_seen, both, ds_splat(no_log)), DS_F32);
    }
    ds_turn_out(p->k, p->o, vectors * DS_LANES, d, scale);
}

#endif
