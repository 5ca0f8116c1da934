/* The greatest score of a row and the sum of its exponentials in one pass over memory, on a CPU:
 * what softmax and cross entropy begin with.
 *
 * A block of the row is looked at twice, for its maximum and, by now in a cache, for its sum; the
 * next block is fetched meanwhile. Where a block raises the maximum, the sum so far is scaled down
 * (Milakov and Gimelshein 2018, arXiv 1805.02867).
 */
#ifndef DS_CPU_SOFTMAX_H
#define DS_CPU_SOFTMAX_H

#include "ds_cpu_math.h"

enum {
    DS_SCORE_PAIR = 2 * DS_LANES,
    DS_SCORE_BLOCK = 64 * DS_LANES, /* f32 sums of at most 32 terms a lane; between blocks, f64 */
};

/* The least score there is. It stands for -infinity, from which no difference could be taken. */
#define DS_LEAST_SCORE (-0x1.fffffep127f)

/* Not worth a copy for each dtype. */
#define DS_ONCE static __attribute__((noinline, unused))

/* A row of scores: scale * x + mask. Without a mask, differences of x are taken before they are
 * scaled, so that they stay exact however large x is. */
typedef struct ds_scores {
    const void *x, *mask;
    int64_t mask_stride; /* in elements */
    float scale;
} ds_scores;

/* Elements from `p` to the first one where whole vectors may go past the caches; 0 where they shall
 * not. Rows of a vocabulary begin anywhere. */
DS_INLINE int64_t ds_lead(const void *p, int64_t n, uint32_t t, int streams) {
    int64_t over = (int64_t)((uintptr_t)p % sizeof(ds_vec));
    return streams && over ? ds_min(n, ((int64_t)sizeof(ds_vec) - over) / ds_size(t)) : 0;
}

/* What a pass has seen of a row so far. */
typedef struct ds_softmax {
    float max;    /* of `ds_raw2`; DS_LEAST_SCORE where every score is -infinity */
    double sum;   /* of exp(score - greatest): 0 where all are -infinity, NaN with +infinity or NaN */
    double total; /* of `ds_raw2` */
} ds_softmax;

DS_INLINE ds_softmax ds_softmax_none(void) { return (ds_softmax){DS_LEAST_SCORE, 0, 0}; }

/* Ones in the first `n` lanes. */
DS_INLINE ds_vec_i32 ds_lanes_below(int64_t n) {
    ds_vec_i32 lane;
    for (int i = 0; i < DS_LANES; i++) lane[i] = i;
    return lane < (int32_t)ds_min(n, DS_LANES);
}

/* The greatest lane; no NaN but where all are. */
DS_ONCE float ds_vgreatest(ds_vec a) {
#if DS_LANES == 16
    return _mm512_reduce_max_ps((__m512)a);
#endif
    float greatest = a[0];
    for (int i = 1; i < DS_LANES; i++) greatest = greatest < a[i] ? a[i] : greatest;
    return greatest;
}

DS_ONCE float ds_exp(float x) { return ds_vexp(ds_splat(x))[0]; }
DS_ONCE float ds_log(float x) { return ds_vlog(ds_splat(x))[0]; }

/* Copies `n` elements of a mask from `i` on that repeat or lie apart. */
DS_ONCE void ds_mask_gather(void *out, int64_t n, const ds_scores *s, int64_t i, uint32_t t) {
    for (int64_t k = 0; k < n; k++) {
        int64_t at = (i + k) * s->mask_stride;
        if (t == DS_F32) ((float *)out)[k] = ((const float *)s->mask)[at];
        else ((uint16_t *)out)[k] = ((const uint16_t *)s->mask)[at];
    }
}

/* Two vectors of the mask, in the order of ds_load2. */
DS_INLINE ds_vec2 ds_mask2(const ds_scores *s, int64_t i, uint32_t t) {
    if (s->mask_stride == 1) return ds_load2(s->mask, i, t);
    float near[DS_SCORE_PAIR];
    ds_mask_gather(near, DS_SCORE_PAIR, s, i, t);
    return ds_load2(near, 0, t);
}

/* The same of the first `n` lanes of one vector. */
DS_INLINE ds_vec ds_mask_first(int64_t n, const ds_scores *s, int64_t i, uint32_t t) {
    float near[DS_LANES] = {0};
    ds_mask_gather(near, ds_min(n, DS_LANES), s, i, t);
    return ds_load(near, 0, t);
}

/* What is compared: the scores with a mask, else x with the sign of scale. */
DS_INLINE ds_vec2 ds_raw2(const ds_scores *s, int64_t i, uint32_t t, int masked) {
    ds_vec2 x = ds_load2(s->x, i, t);
    ds_vec factor = ds_splat(masked ? s->scale : s->scale < 0 ? -1 : 1);
    if (!masked) return (ds_vec2){x.a * factor, x.b * factor};
    ds_vec2 mask = ds_mask2(s, i, t);
    return (ds_vec2){ds_vfma(x.a, factor, mask.a), ds_vfma(x.b, factor, mask.b)};
}

/* The same of the first `n` lanes. */
DS_INLINE ds_vec ds_raw_first(int64_t n, const ds_scores *s, int64_t i, uint32_t t, int masked) {
    ds_vec x = ds_load_first(n, s->x, i, t);
    ds_vec factor = ds_splat(masked ? s->scale : s->scale < 0 ? -1 : 1);
    return masked ? ds_vfma(x, factor, ds_mask_first(n, s, i, t)) : x * factor;
}

/* What a difference of those has to be multiplied with to be one of scores. */
DS_INLINE float ds_raw_scale(const ds_scores *s, int masked) {
    return masked ? 1 : s->scale < 0 ? -s->scale : s->scale;
}

/* The same for a score in powers of two. */
DS_INLINE float ds_log2_scale(const ds_scores *s, int masked) { return 0x1.715476p+0f * ds_raw_scale(s, masked); }

/* Differences to the raw score `from`, scaled. */
DS_INLINE ds_vec2 ds_scores2(const ds_scores *s, int64_t i, ds_vec from, ds_vec scale, uint32_t t, int masked) {
    ds_vec2 raw = ds_raw2(s, i, t, masked);
    return (ds_vec2){(raw.a - from) * scale, (raw.b - from) * scale};
}

/* The same of the first `n` lanes. */
DS_INLINE ds_vec ds_scores_first(int64_t n, const ds_scores *s, int64_t i, ds_vec from, ds_vec scale,
                                 uint32_t t, int masked) {
    return (ds_raw_first(n, s, i, t, masked) - from) * scale;
}

/* Adds the scores from `i` to `end`, a block at most; of `total` only where `totals`. Exponentials of
 * differences to the maximum so far are left in `kept`, where there is such, whole vectors. */
DS_INLINE void ds_softmax_block_of(ds_softmax *of, const ds_scores *s, int64_t i, int64_t end, float *kept,
                                   uint32_t t, int totals) {
    const int masked = s->mask != 0;
    const ds_vec zero = ds_splat(0);
    int64_t begin = i;
    ds_vec2 most = {ds_splat(of->max), ds_splat(of->max)}, all = {{0}};
    for (; i + DS_SCORE_PAIR <= end; i += DS_SCORE_PAIR) {
        ds_vec2 score = ds_raw2(s, i, t, masked);
        most = (ds_vec2){ds_vmax(score.a, most.a), ds_vmax(score.b, most.b)};
        if (totals) all = (ds_vec2){all.a + score.a, all.b + score.b};
    }
    for (; i < end; i += DS_LANES) {
        ds_vec score = ds_raw_first(end - i, s, i, t, masked);
        ds_vec_i32 there = ds_lanes_below(end - i);
        most.a = ds_vmax(ds_vselect(there, score, most.a), most.a);
        if (totals) all.a += ds_vselect(there, score, zero);
    }
    /* A NaN in `most` is the second operand, so it was none: NaN scores are left to the sum. A block
     * seldom raises the maximum, which the processor foresees: the sum need not wait for it. */
    float max = ds_vgreatest(ds_vmax(most.a, most.b));
    if (max > of->max) {
        of->sum *= (double)ds_exp((of->max - max) * ds_raw_scale(s, masked));
        of->max = max;
    }
    if (totals) of->total += ds_vsum(all.a + all.b);

    ds_vec from = ds_splat(of->max), scale = ds_splat(ds_log2_scale(s, masked));
    ds_vec2 sum = {{0}};
    for (i = begin; i + DS_SCORE_PAIR <= end; i += DS_SCORE_PAIR) {
        ds_prefetch2(s->x, i + 2 * DS_SCORE_BLOCK, t, 1);
        ds_vec2 power = ds_scores2(s, i, from, scale, t, masked);
        power = (ds_vec2){ds_vexp2(power.a), ds_vexp2(power.b)};
        sum = (ds_vec2){sum.a + power.a, sum.b + power.b};
        if (kept) ds_store2(kept, i, power, DS_F32, 0);
    }
    for (; i < end; i += DS_LANES) {
        ds_vec power = ds_vexp2(ds_scores_first(end - i, s, i, from, scale, t, masked));
        sum.a += ds_vselect(ds_lanes_below(end - i), power, zero);
        if (kept) ds_store(kept, i, power, DS_F32);
    }
    of->sum += ds_vsum(sum.a + sum.b);
}

/* One body a dtype: what else tells calls apart is asked at run time, which memory hides. */
DS_ONCE void ds_softmax_block(ds_softmax *of, const ds_scores *s, int64_t i, int64_t end, float *kept,
                              uint32_t dtype, int totals) {
    DS_WITH_FLOAT(t, dtype, ds_softmax_block_of(of, s, i, end, kept, t, totals));
}

/* Adds the first `n` scores of a row. */
DS_INLINE void ds_softmax_add(ds_softmax *of, const ds_scores *s, int64_t n, uint32_t t, int totals) {
    for (int64_t i = 0; i < n; i += DS_SCORE_BLOCK)
        ds_softmax_block(of, s, i, ds_min(i + DS_SCORE_BLOCK, n), 0, t, totals);
}

#endif
