/* Gradients of attention for a panel of keys, on a CPU (Dao 2023, arXiv 2307.08691): weights come again from
 * the logarithms that the forward pass left.
 *
 * Limit: multiply-add instructions, 10 d flops for each key that a query sees, of five products.
 *
 * Keys lie on the lanes of vectors: a panel of them keeps the gradients of its keys and values until all
 * queries that see it have passed. Gradients of queries are added up in memory of the caller, panel after
 * panel, so that each product is computed once.
 */
#ifndef DS_CPU_ATTEND_BACKWARD_H
#define DS_CPU_ATTEND_BACKWARD_H

#include "ds_cpu_panels.h"

enum { DS_NEAR_NUMBERS = DS_NEAR_ROWS * DS_MOST_D };

typedef struct ds_gradient_panel {
    float scale;                                      /* of products of queries and keys */
    float lse[DS_NEAR_ROWS], dot[DS_NEAR_ROWS];       /* of queries: logarithm to base 2, and sum(do * o) */
    float *dq[DS_NEAR_ROWS];                          /* where their gradients are added up; still without scale */
    _Alignas(64) float keys[DS_GEMM_COLUMNS * DS_MOST_D]; /* as rows whose words are across, */
    _Alignas(64) float k[DS_MOST_D * DS_GEMM_COLUMNS];    /* and turned */
    _Alignas(64) float v[DS_MOST_D * DS_GEMM_COLUMNS];
    _Alignas(64) float dk[(DS_MOST_D + DS_PANEL_SLACK) * DS_GEMM_COLUMNS];
    _Alignas(64) float dv[(DS_MOST_D + DS_PANEL_SLACK) * DS_GEMM_COLUMNS];
    /* Queries: pairs take half of the room twice, words along heads and words across them. */
    _Alignas(64) float q[DS_NEAR_NUMBERS + DS_PANEL_SLACK];
    _Alignas(64) float d_o[DS_NEAR_NUMBERS + DS_PANEL_SLACK];
    _Alignas(64) float weights[DS_NEAR_ROWS * DS_GEMM_COLUMNS];
    _Alignas(64) float d_scores[DS_NEAR_ROWS * DS_GEMM_COLUMNS]; /* gradients of scores */
    int keeps_d_scores;                                          /* where pairs suffice, too */
    _Alignas(64) float across[DS_NEAR_ROWS / 2 * DS_GEMM_COLUMNS]; /* d_scores as pairs of queries */
    _Alignas(64) float along[DS_NEAR_ROWS * DS_GEMM_COLUMNS / 2];  /* and of keys */
} ds_gradient_panel;

/* Where words of queries across heads begin. */
DS_INLINE int64_t ds_across_at(uint32_t form) { return form == DS_PAIRS ? DS_NEAR_NUMBERS / 2 : 0; }

DS_OUT_OF_LINE void ds_gradient_turn(ds_gradient_panel *p, float *panel, const ds_heads *h, int64_t n, int64_t d, float scale,
                                     int vectors, uint32_t dtype) {
    const uint32_t form = ds_form_of_heads(dtype, d);
    const int64_t words = ds_words(d, form), stride = ds_padded(words), width = vectors * DS_LANES;
    ds_bring(p->keys, h, n, d, dtype, form);
    __builtin_memset(p->keys + n * stride, 0, (size_t)((width - n) * stride) * 4);
    ds_turn_in(panel, width, p->keys, words, scale, form);
}

/* Brings `n` keys and values that no query has seen. */
DS_OUT_OF_LINE void ds_gradient_keys(ds_gradient_panel *p, const ds_heads *k, const ds_heads *v, int64_t n, int64_t d,
                                     float scale, int vectors, uint32_t dtype) {
    const uint32_t form = ds_form_of_heads(dtype, d);
    const int64_t width = vectors * DS_LANES, lines = ds_words(n, form), stride = ds_padded(d);
    p->scale = scale * DS_LOG2_E;
    ds_gradient_turn(p, p->v, v, n, d, 1, vectors, dtype);
    ds_gradient_turn(p, p->k, k, n, d, p->scale, vectors, dtype);
    if (form == DS_PAIRS) ds_bring_across(p->keys, k, n, d, dtype, form);
    __builtin_memset(p->keys + lines * stride, 0, (size_t)((ds_words(width, form) - lines) * stride) * 4);
    __builtin_memset(p->dk, 0, (size_t)(ds_panel_lines(d) * width) * 4);
    __builtin_memset(p->dv, 0, (size_t)(ds_panel_lines(d) * width) * 4);
}

/* Brings `n` queries and the gradients of their results, and as many without weights as make tiles whole;
 * what else a panel has of each is the caller's to set. */
DS_OUT_OF_LINE void ds_gradient_queries(ds_gradient_panel *p, const ds_heads *q, const ds_heads *d_o, int64_t n, int64_t d,
                                        uint32_t dtype) {
    const uint32_t form = ds_form_of_heads(dtype, d);
    const int64_t stride = ds_padded(ds_words(d, form)), whole = ds_panel_lines(n), across = ds_padded(d);
    const int64_t second = ds_across_at(form), lines = ds_words(n, form);
    for (int is_d_o = 0; is_d_o < 2; is_d_o++) {
        float *to = is_d_o ? p->d_o : p->q;
        const ds_heads *from = is_d_o ? d_o : q;
        ds_bring(to, from, n, d, dtype, form);
        __builtin_memset(to + n * stride, 0, (size_t)((whole - n) * stride) * 4);
        if (form == DS_F32) continue;
        ds_bring_across(to + second, from, n, d, dtype, form);
        __builtin_memset(to + second + lines * across, 0, (size_t)((ds_words(whole, form) - lines) * across) * 4);
    }
    for (int64_t i = n; i < whole; i++) {
        p->lse[i] = __builtin_inff();
        p->dot[i] = 0;
    }
}

/* Stores two lines of sums of a tile, `width` apart, as words across. */
DS_INLINE void ds_keep_pair(float *to, int64_t line, int64_t width, int64_t column, ds_vec a, ds_vec b) {
    ds_store(to, line / 2 * width + column, (ds_vec)ds_bf16_pair((ds_vec2){a, b}), DS_F32);
}

/* Weights of the `n` queries that are near, and the gradients of their scores. `change` as in attention. */
DS_INLINE void ds_gradient_scores(ds_gradient_panel *p, int64_t n, int64_t d, int vectors, uint32_t form,
                                  void (*change)(void *of), void *of) {
    const int64_t words = ds_words(d, form), stride = ds_padded(words), width = vectors * DS_LANES;
    ds_sums sums;
    for (int64_t i = 0; i < n; i += DS_GEMM_ROWS) {
        ds_sums_clear(sums);
        ds_panel_multiply(sums, p->q + i * stride, stride, 1, p->k, width, words, vectors, form);
        if (form == DS_PAIRS) {
#pragma GCC unroll 32
            for (int l = 0; l < DS_GEMM_ROWS * vectors; l++) sums[l] *= p->scale;
        }
        ds_sums_keep(p->weights + i * width, sums, vectors);
    }
    if (change) change(of);
    for (int64_t i = 0; i < n; i += DS_GEMM_ROWS) {
        ds_sums_clear(sums);
        ds_panel_multiply(sums, p->d_o + i * stride, stride, 1, p->v, width, words, vectors, form);
#pragma GCC unroll 16
        for (int l = 0; l < DS_GEMM_ROWS; l += 2)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++) {
                const int64_t at = (i + l) * width + j * DS_LANES;
                ds_vec *of_a = &sums[l * vectors + j], *of_b = of_a + vectors;
                ds_vec a = ds_vexp2(ds_load(p->weights, at, DS_F32) - p->lse[i + l]);
                ds_vec b = ds_vexp2(ds_load(p->weights, at + width, DS_F32) - p->lse[i + l + 1]);
                *of_a = a * (*of_a - p->dot[i + l]);
                *of_b = b * (*of_b - p->dot[i + l + 1]);
                if (form == DS_PAIRS) {
                    ds_keep_pair(p->weights, i + l, width, j * DS_LANES, a, b);
                    ds_keep_pair(p->across, i + l, width, j * DS_LANES, *of_a, *of_b);
                    ds_store(p->along, at, *of_a, DS_BF16);
                    ds_store(p->along, at + width, *of_b, DS_BF16);
                } else {
                    ds_store(p->weights, at, a, DS_F32);
                    ds_store(p->weights, at + width, b, DS_F32);
                }
            }
        if (form == DS_F32 || p->keeps_d_scores) ds_sums_keep(p->d_scores + i * width, sums, vectors);
    }
}

/* Columns of the gradients of at most a tile of the queries, from number `i` on += d_scores * keys. */
DS_INLINE void ds_gradient_columns(ds_gradient_panel *p, int64_t i, int64_t n, int64_t d, int64_t column, int64_t width,
                                   int vectors, uint32_t form) {
    const float *d_scores = form == DS_PAIRS ? p->along : p->d_scores;
    const int64_t words = ds_words(width, form);
    ds_sums sums;
    ds_sums_clear(sums);
    ds_panel_multiply(sums, d_scores + i * words, words, 1, p->keys + column, ds_padded(d), words, vectors, form);
#pragma GCC unroll 16
    for (int l = 0; l < DS_GEMM_ROWS; l++) {
        if (i + l >= n) break;
        float *to = p->dq[i + l] + column;
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            ds_store(to, j * DS_LANES, ds_load(to, j * DS_LANES, DS_F32) + sums[l * vectors + j], DS_F32);
    }
}

/* Adds to the gradients of the `n` queries that are near what comes by the panel's keys. */
DS_INLINE void ds_gradient_add_queries(ds_gradient_panel *p, int64_t n, int64_t d, int64_t width, uint32_t form) {
    const int64_t vectors = ds_padded(d) / DS_LANES;
    for (int64_t i = 0; i < n; i += DS_GEMM_ROWS)
        for (int64_t c = 0; c < vectors;) {
            const int64_t left = vectors - c; /* four are twice two: of one, a tile has too few sums */
            if (DS_GEMM_VECTORS > 2 && left > 2 && left != 4) {
                ds_gradient_columns(p, i, n, d, c * DS_LANES, width, DS_GEMM_VECTORS, form);
                c += DS_GEMM_VECTORS;
            } else if (left > 1) {
                ds_gradient_columns(p, i, n, d, c * DS_LANES, width, 2, form);
                c += 2;
            } else {
                ds_gradient_columns(p, i, n, d, c * DS_LANES, width, 1, form);
                c += 1;
            }
        }
}

/* Lets the `n` queries that are near see the panel. */
DS_INLINE void ds_gradient_see(ds_gradient_panel *p, int64_t n, int64_t d, int vectors, uint32_t form,
                               void (*change)(void *of), void *of) {
    const int64_t second = ds_across_at(form);
    ds_gradient_scores(p, n, d, vectors, form, change, of);
    ds_add_rows(p->dv, 0, p->d_o + second, p->weights, n, d, vectors, form);
    ds_add_rows(p->dk, 0, p->q + second, form == DS_PAIRS ? p->across : p->d_scores, n, d, vectors, form);
    ds_gradient_add_queries(p, n, d, vectors * DS_LANES, form);
}

/* Leaves the gradients of keys or values as rows in `keys`. */
DS_OUT_OF_LINE void ds_gradient_results(ds_gradient_panel *p, const float *panel, int64_t d, float scale, int vectors) {
    ds_vec scales[DS_GEMM_VECTORS];
    for (int j = 0; j < vectors; j++) scales[j] = ds_splat(scale);
    ds_turn_out(p->keys, panel, vectors * DS_LANES, d, scales);
}

#endif
