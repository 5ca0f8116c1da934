/* The greatest score of a row and the sum of its exponentials in one pass, on a CPU: what softmax and
 * cross entropy begin with.
 *
 * Exponentials are of differences to the greatest of the row's first scores. What is greater makes them
 * large, but seldom too large for f32: only then the sum so far is scaled down (Milakov and Gimelshein
 * 2018, arXiv 1805.02867), and the block is looked at again.
 */
#ifndef DS_CPU_SOFTMAX_H
#define DS_CPU_SOFTMAX_H

#include "ds_cpu_math.h"
#include "ds_cpu_rows.h"

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
    float from;   /* what differences are taken to; DS_LEAST_SCORE where every score is -infinity */
    float max;    /* of `ds_raw2`; DS_LEAST_SCORE again */
    double sum;   /* of exp(score - from): 0 where all are -infinity, NaN with +infinity or NaN */
    double total; /* of `ds_raw2` */
} ds_softmax;

DS_INLINE ds_softmax ds_softmax_none(void) { return (ds_softmax){DS_LEAST_SCORE, DS_LEAST_SCORE, 0, 0}; }

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
    if (!masked) return s->scale < 0 ? (ds_vec2){-x.a, -x.b} : x;
    ds_vec factor = ds_splat(s->scale);
    ds_vec2 mask = ds_mask2(s, i, t);
    return (ds_vec2){ds_vfma(x.a, factor, mask.a), ds_vfma(x.b, factor, mask.b)};
}

/* The same of the first `n` lanes. */
DS_INLINE ds_vec ds_raw_first(int64_t n, const ds_scores *s, int64_t i, uint32_t t, int masked) {
    ds_vec x = ds_load_first(n, s->x, i, t);
    if (!masked) return s->scale < 0 ? -x : x;
    return ds_vfma(x, ds_splat(s->scale), ds_mask_first(n, s, i, t));
}

/* The last of a row, less than a pair, one vector after the other; 0 in the other lanes. */
DS_ONCE ds_vec2 ds_raw_rest(int64_t n, const ds_scores *s, int64_t i, uint32_t dtype) {
    ds_vec2 rest = {ds_raw_first(n, s, i, dtype, s->mask != 0), ds_splat(0)};
    if (n > DS_LANES) rest.b = ds_raw_first(n - DS_LANES, s, i + DS_LANES, dtype, s->mask != 0);
    return rest;
}

/* What a difference of those has to be multiplied with to be one of scores. */
DS_INLINE float ds_raw_scale(const ds_scores *s, int masked) {
    return masked ? 1 : s->scale < 0 ? -s->scale : s->scale;
}

/* Whether a product and a sum are rounded once. */
#if DS_LANES > 4 || defined(__aarch64__)
#define DS_IS_FUSED 1
#else
#define DS_IS_FUSED 0
#endif

/* How a power of two follows from a raw score: the difference to `from` times `scale`. Where scores are
 * not large, one operation makes it of their product, and the 2^-16 at most that the product of `from`
 * lost in rounding are made good by a factor. */
typedef struct ds_powers {
    ds_vec from, scale;
    double correction;
    int is_far; /* the difference comes first */
} ds_powers;

DS_INLINE ds_powers ds_powers_from(const ds_scores *s, float from, int masked) {
    float scale = 0x1.715476p+0f * ds_raw_scale(s, masked), product = from * scale;
    int is_far = !DS_IS_FUSED || !(product > -512 && product < 512);
    double lost = (double)from * (double)scale - (double)product;
    return (ds_powers){.from = ds_splat(is_far ? from : product),
                       .scale = ds_splat(scale),
                       .correction = is_far ? 1 : 1 - 0x1.62e43p-1 * lost,
                       .is_far = is_far};
}

DS_INLINE ds_vec ds_power(const ds_powers *p, ds_vec raw) {
    return p->is_far ? (raw - p->from) * p->scale : ds_vfma(raw, p->scale, -p->from);
}

/* What the exponentials are for. */
enum { DS_FOR_RESULTS, DS_FOR_LOGARITHM, DS_FOR_LOSS /* and the scores are added, too */ };

DS_INLINE ds_vec ds_exp2_for(int purpose, ds_vec power, uint32_t t) {
    return t == DS_F32 || purpose != DS_FOR_RESULTS ? ds_vexp2(power) : ds_vexp2_half(power);
}

/* What a look at a block finds. */
typedef struct ds_softmax_sums {
    ds_vec2 most, sum, total;
} ds_softmax_sums;

/* Looks at the scores from `i` to `end`. Their powers are left in `kept`, where there is such, whole
 * pairs. */
DS_INLINE ds_softmax_sums ds_softmax_look(const ds_scores *s, int64_t i, int64_t end, const ds_powers *powers,
                                          float *kept, uint32_t t, int purpose) {
    const int masked = s->mask != 0;
    const ds_vec zero = ds_splat(0), least = ds_splat(DS_LEAST_SCORE), none = ds_splat(-__builtin_inff());
    ds_softmax_sums of = {{least, least}, {zero, zero}, {zero, zero}};
    for (; i < end; i += DS_SCORE_PAIR) {
        const int is_rest = end - i < DS_SCORE_PAIR;
        ds_fetch_pair(s->x, i, t);
        ds_vec2 raw = is_rest ? ds_raw_rest(end - i, s, i, t) : ds_raw2(s, i, t, masked);
        if (purpose == DS_FOR_LOSS) of.total = (ds_vec2){of.total.a + raw.a, of.total.b + raw.b};
        if (is_rest) {
            raw.a = ds_vselect(ds_lanes_below(end - i), raw.a, none);
            raw.b = ds_vselect(ds_lanes_below(end - i - DS_LANES), raw.b, none);
        }
        /* A NaN is the first operand, so it is not in `most`: such scores are left to the sum. */
        of.most = (ds_vec2){ds_vmax(raw.a, of.most.a), ds_vmax(raw.b, of.most.b)};
        ds_vec2 power = {ds_power(powers, raw.a), ds_power(powers, raw.b)};
        power = (ds_vec2){ds_exp2_for(purpose, power.a, t), ds_exp2_for(purpose, power.b, t)};
        of.sum = (ds_vec2){of.sum.a + power.a, of.sum.b + power.b};
        if (kept) ds_store2(kept, i, power, DS_F32, 0);
    }
    return of;
}

/* Takes differences to the greatest score from now on. */
DS_ONCE void ds_softmax_settle(ds_softmax *of, float scale) {
    if (of->max == of->from) return;
    of->sum *= (double)ds_exp((of->from - of->max) * scale);
    of->from = of->max;
}

/* What the powers of a block have to be multiplied with to be exponentials of differences to `from`. */
typedef struct ds_kept_block {
    float from, correction;
} ds_kept_block;

/* Adds the scores from `i` to `end`, a block at most. */
DS_INLINE ds_kept_block ds_softmax_block_of(ds_softmax *of, const ds_scores *s, int64_t i, int64_t end, float *kept,
                                            uint32_t t, int purpose) {
    const int masked = s->mask != 0;
    if (of->from == DS_LEAST_SCORE && i + DS_SCORE_PAIR <= end) { /* nothing yet to take differences to */
        ds_vec2 first = ds_raw2(s, i, t, masked);
        of->from = of->max = ds_vgreatest(ds_vmax(first.a, ds_vmax(first.b, ds_splat(DS_LEAST_SCORE))));
    }
    for (int again = 0;; again = 1) {
        ds_powers powers = ds_powers_from(s, of->from, masked);
        ds_softmax_sums seen = ds_softmax_look(s, i, end, &powers, kept, t, purpose);
        double sum = ds_vsum(seen.sum.a + seen.sum.b) * powers.correction;
        float max = ds_vgreatest(ds_vmax(seen.most.a, seen.most.b));
        of->max = max > of->max ? max : of->max;
        if (sum < 0x1p64 || again) { /* NaN stays one */
            of->sum += sum;
            if (purpose == DS_FOR_LOSS) of->total += ds_vsum(seen.total.a + seen.total.b);
            return (ds_kept_block){of->from, (float)powers.correction};
        }
        ds_softmax_settle(of, ds_raw_scale(s, masked));
    }
}

/* One body a dtype: what else tells calls apart is asked at run time, which memory hides. */
DS_ONCE ds_kept_block ds_softmax_block(ds_softmax *of, const ds_scores *s, int64_t i, int64_t end, float *kept,
                                       uint32_t dtype, int purpose) {
    DS_WITH_FLOAT(t, dtype, return ds_softmax_block_of(of, s, i, end, kept, t, purpose));
    return (ds_kept_block){0, 0};
}

/* Adds the first `n` scores of a row. */
DS_INLINE void ds_softmax_add(ds_softmax *of, const ds_scores *s, int64_t n, uint32_t t, int purpose) {
    for (int64_t i = 0; i < n; i += DS_SCORE_BLOCK)
        ds_softmax_block(of, s, i, ds_min(i + DS_SCORE_BLOCK, n), 0, t, purpose);
    if (purpose != DS_FOR_RESULTS) ds_softmax_settle(of, ds_raw_scale(s, s->mask != 0));
}

#endif
