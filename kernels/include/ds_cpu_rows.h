/* What CPU kernels share that go over the rows of a matrix: a row being the last dimension, taken in
 * pairs of vectors and its sums in blocks; and sums down the columns, which must not depend on how
 * the rows are split among threads.
 */
#ifndef DS_CPU_ROWS_H
#define DS_CPU_ROWS_H

#include "ds_cpu_simd.h"

enum {
    DS_CHUNK_ELEMENTS = 16 * 1024, /* worth a thread's while */
    DS_PAIR = 2 * DS_LANES,
    DS_BLOCK = 64 * DS_LANES, /* f32 sums of at most 32 terms a lane; between blocks, f64 */
    DS_AHEAD = 2048,          /* elements from what is read of the next row to what is fetched */
    DS_MOST_SHARES = 64,      /* partial sums of a column, and so the parallelism of the rows */
};

/* Rows in a chunk, where no column is summed. */
DS_INLINE int64_t ds_row_grain(int64_t d) { return ds_max(1, DS_CHUNK_ELEMENTS / ds_max(1, d)); }

/* Fetches what is read soon: rows of f32 do not fit in the first level of the caches two at a time. */
DS_INLINE void ds_fetch_row(const void *row, int64_t i, uint32_t t) {
    ds_prefetch2(row, i + DS_AHEAD, t, t == DS_F32 ? 2 : 1);
}

/* The same in two steps for f32, where so much is read at a time that one step comes too late or too soon. */
DS_INLINE void ds_fetch_pair(const void *row, int64_t i, uint32_t t) {
    if (t == DS_F32) ds_prefetch2(row, i + 2 * DS_AHEAD, t, 2);
    ds_prefetch2(row, i + (t == DS_F32 ? DS_AHEAD / 4 : DS_AHEAD), t, 1);
}

/* Stores a pair in two places, past the caches in the first one where `streams`, in none that is NULL;
 * gives it as it is when it is loaded again. */
DS_INLINE ds_vec2 ds_store_round2(void *to, void *copy, int64_t i, ds_vec2 v, uint32_t t, int streams) {
    if (t == DS_F32) {
        if (to) ds_store2(to, i, v, t, streams);
        if (copy) ds_store2(copy, i, v, t, 0);
        return v;
    }
    ds_vec_u32 bits = t == DS_BF16 ? ds_bf16_pair(v) : ds_f16_pair(v);
    if (to) ds_put(ds_at(to, i, t), bits, streams);
    if (copy) ds_put(ds_at(copy, i, t), bits, 0);
    return ds_load2(&bits, 0, t);
}

/* A vector as it is when it has been stored as `t` and loaded again. */
DS_INLINE ds_vec ds_round(ds_vec v, uint32_t t) {
    if (t == DS_F32) return v;
    ds_vec_u16 bits = ds_vec_to_half(v, t);
    return ds_load(&bits, 0, t);
}

/* The first `n` lanes; the others are 0. */
DS_INLINE ds_vec ds_keep_first(int64_t n, ds_vec v) {
#if DS_LANES == 16
    return n < DS_LANES ? (ds_vec)_mm512_maskz_mov_ps((__mmask16)((1u << n) - 1), (__m512)v) : v;
#else
    for (int64_t i = n; i < DS_LANES; i++) v[i] = 0;
    return v;
#endif
}

/* Sums of columns take two phases. Phase 0: an item is a row, and each chunk of rows leaves its share
 * of `sums` sums of `d` columns in the workspace, f32 [chunks, sums, d]. Phase 1: an item is a
 * column, the shares are added in their order. */
DS_INLINE void ds_plan_shares(ds_plan *out, int64_t rows, int64_t d, int64_t sums) {
    int64_t enough = ds_div_up(DS_CHUNK_ELEMENTS, ds_max(1, d));
    out->phases = 2;
    out->phase[0].items = rows;
    out->phase[0].grain = ds_max(enough, ds_div_up(rows, DS_MOST_SHARES));
    out->phase[1].items = d;
    out->phase[1].grain = 1024;
    out->workspace_bytes = ds_div_up(rows, out->phase[0].grain) * sums * d * 4;
}

/* The shares that row `row` of a call so planned adds to, cleared where it is the first to. In the
 * order of pairs up to the last whole one, which is that of the dtype they were loaded with. */
DS_INLINE float *ds_share(const ds_call *call, int64_t row, int64_t rows, int64_t d, int64_t sums) {
    ds_plan plan;
    ds_plan_shares(&plan, rows, d, sums);
    int64_t grain = plan.phase[0].grain;
    float *share = (float *)call->workspace + row / grain * sums * d;
    if (row % grain == 0) __builtin_memset(share, 0, (size_t)(sums * d) * 4);
    return share;
}

/* Adds the pair `v` to that of a share at column `i`. */
DS_INLINE void ds_add2(float *share, int64_t i, ds_vec2 v) {
    ds_vec2 sum = ds_load2(share, i, DS_F32);
    ds_store2(share, i, (ds_vec2){sum.a + v.a, sum.b + v.b}, DS_F32, 0);
}

/* The same of the products of two pairs. */
DS_INLINE void ds_add_product2(float *share, int64_t i, ds_vec2 a, ds_vec2 b) {
    ds_vec2 sum = ds_load2(share, i, DS_F32);
    ds_store2(share, i, (ds_vec2){ds_vfma(a.a, b.a, sum.a), ds_vfma(a.b, b.b, sum.b)}, DS_F32, 0);
}

/* Adds the first `n` lanes of `v`. */
DS_INLINE void ds_add_first(int64_t n, float *share, int64_t i, ds_vec v) {
    ds_store_first(n, share, i, ds_load_first(n, share, i, DS_F32) + v, DS_F32);
}

/* Phase 1 of columns `begin` to `end`, of sum number `which`, into `out` of dtype `t`. */
DS_INLINE void ds_sum_shares(const ds_call *call, int64_t rows, int64_t d, int64_t sums, int64_t which,
                             void *out, int64_t begin, int64_t end, uint32_t t) {
    ds_plan plan;
    ds_plan_shares(&plan, rows, d, sums);
    const float *first = (const float *)call->workspace + which * d;
    const float *last = (const float *)call->workspace + plan.workspace_bytes / 4;
    int64_t i = begin;
    /* Whole pairs of the row; `begin` is one's beginning. */
    for (; i + DS_PAIR <= ds_min(end, d / DS_PAIR * DS_PAIR); i += DS_PAIR) {
        ds_vec2 sum = {{0}, {0}};
        for (const float *p = first; p < last; p += sums * d) {
            ds_vec2 share = ds_load2(p, i, DS_F32);
            sum = (ds_vec2){sum.a + share.a, sum.b + share.b};
        }
        ds_store2(out, i, sum, t, 0);
    }
    for (; i < end; i += DS_LANES) {
        int64_t n = ds_min(DS_LANES, end - i);
        ds_vec sum = {0};
        for (const float *p = first; p < last; p += sums * d) sum += ds_load_first(n, p, i, DS_F32);
        ds_store_first(n, out, i, sum, t);
    }
}

#endif
