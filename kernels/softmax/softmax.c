/* Softmax over the last dimension and its logarithm, on a CPU.
 *
 * Limit: memory. An element is read and written once, 2 of T an element. A row is looked at a second
 * time for its results, when it is in a cache: the first level holds about 10000 of f32, the second
 * half a million, so only what is longer comes from memory twice.
 * An exponential is some 5 cycles of a vector of 16 with AVX-512; half types, and rows that need two,
 * take longer for them than memory does where a core has much of it for itself.
 */
#include "ds_cpu_softmax.h"

enum {
    CHUNK_ELEMENTS = 16 * 1024, /* worth a thread's while */
    KEPT = 4096,                /* exponentials of a row that are not computed twice */
    TILE = 4 * DS_SCORE_PAIR,   /* elements between which dtypes are asked for */
};

/* softmax(x, mask, scale, causal) -> y; an item is a row. log_softmax(x) -> y. */
enum { X, MASK, Y, LOG_Y = 1 };
enum { SCALE };
enum { CAUSAL };

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    out->phases = 1;
    out->phase[0].items = ds_rows(x);
    out->phase[0].grain = ds_max(1, CHUNK_ELEMENTS / ds_max(1, ds_row_length(x)));
}

/* What a sum of exponentials has to be multiplied with. A row that a mask leaves nothing of is all 0,
 * as in PyTorch's attention; without a mask infinity times 0 makes it NaN, as in PyTorch's softmax. */
DS_ONCE float inverse(const ds_softmax *row, int is_masked) {
    return row->sum == 0 && is_masked ? 0 : (float)(1 / row->sum);
}

/* The row `s` of `n` scores. */
typedef struct {
    ds_scores s;
    int64_t n;
} score_row;

/* A row that fits in the first level of the caches twice: its exponentials are kept as they are
 * summed, each block's to what differences were taken to by then. */
DS_INLINE void short_row(void *y, const score_row *row, uint32_t t, int streams) {
    _Alignas(64) float kept[KEPT + DS_SCORE_PAIR];
    ds_kept_block blocks[KEPT / DS_SCORE_BLOCK];
    ds_softmax seen = ds_softmax_none();
    int64_t n = row->n;
    for (int64_t i = 0; i < n; i += DS_SCORE_BLOCK)
        blocks[i / DS_SCORE_BLOCK] =
            ds_softmax_block(&seen, &row->s, i, ds_min(i + DS_SCORE_BLOCK, n), kept, t, DS_FOR_RESULTS);
    float whole = inverse(&seen, 0);
    for (int64_t i = 0; i < n;) {
        ds_kept_block block = blocks[i / DS_SCORE_BLOCK];
        float below = (block.from - seen.from) * ds_raw_scale(&row->s, 0);
        ds_vec factor = ds_splat(whole * block.correction * (below == 0 ? 1 : ds_exp(below)));
        int64_t end = ds_min(i + DS_SCORE_BLOCK, n);
        for (; i + DS_SCORE_PAIR <= end; i += DS_SCORE_PAIR) {
            ds_vec2 v = ds_load2(kept, i, DS_F32);
            ds_store2(y, i, (ds_vec2){v.a * factor, v.b * factor}, t, streams);
        }
        for (; i < end; i += DS_LANES) ds_store_first(end - i, y, i, ds_load(kept, i, DS_F32) * factor, t);
    }
}

/* What results of a row follow from. */
typedef struct {
    ds_powers powers;
    ds_vec from, log_sum, factor;
    int log;
} row_result;

DS_INLINE ds_vec log_of(const row_result *r, ds_vec raw) { return raw - r->from - r->log_sum; }

/* Results of whole pairs from `i` to `end`, where there is no mask, the scale is positive and no score is
 * far from 0; returns where they end. Nothing is asked on the way, so that many of them are under way. */
DS_INLINE int64_t write_pairs(void *y, int64_t i, int64_t end, const void *x, const row_result *of, uint32_t t,
                              int streams) {
    const row_result r = *of;
    const ds_vec from = -r.powers.from;
    for (; r.log && i + DS_SCORE_PAIR <= end; i += DS_SCORE_PAIR) {
        ds_vec2 v = ds_load2(x, i, t);
        ds_store2(y, i, (ds_vec2){log_of(&r, v.a), log_of(&r, v.b)}, t, streams);
    }
    for (; i + DS_SCORE_PAIR <= end; i += DS_SCORE_PAIR) {
        ds_vec2 v = ds_load2(x, i, t);
        v = (ds_vec2){ds_vfma(v.a, r.powers.scale, from), ds_vfma(v.b, r.powers.scale, from)};
        v = (ds_vec2){ds_exp2_for(DS_FOR_RESULTS, v.a, t), ds_exp2_for(DS_FOR_RESULTS, v.b, t)};
        ds_store2(y, i, (ds_vec2){v.a * r.factor, v.b * r.factor}, t, streams);
    }
    return i;
}

/* A tile of `n` elements from `i`: whole pairs, then vectors. It is for rests, and for rows that masks or
 * large scores make rare: dtypes are asked at run time, one body for all. */
typedef struct {
    ds_vec v[TILE / DS_LANES];
} score_tile;

DS_INLINE void load_raw(score_tile *to, const ds_scores *s, int64_t i, int64_t n, uint32_t t) {
    int64_t k = 0;
    for (; k + DS_SCORE_PAIR <= n; k += DS_SCORE_PAIR) {
        ds_vec2 v = ds_raw2(s, i + k, t, s->mask != 0);
        to->v[k / DS_LANES] = v.a;
        to->v[k / DS_LANES + 1] = v.b;
    }
    if (k == n) return;
    ds_vec2 v = ds_raw_rest(n - k, s, i + k, t);
    to->v[k / DS_LANES] = v.a;
    to->v[k / DS_LANES + 1] = v.b;
}

DS_INLINE void store_tile(void *y, int64_t i, int64_t n, const score_tile *from, uint32_t t, int streams) {
    int64_t k = 0;
    for (; k + DS_SCORE_PAIR <= n; k += DS_SCORE_PAIR)
        ds_store2(y, i + k, (ds_vec2){from->v[k / DS_LANES], from->v[k / DS_LANES + 1]}, t, streams);
    for (; k < n; k += DS_LANES) ds_store_first(n - k, y, i + k, from->v[k / DS_LANES], t);
}

/* A longer row, a masked one, or one of which the logarithm is wanted: it is looked at once more. */
DS_ONCE void long_row(void *y, const score_row *row, uint32_t dtype, int log, int streams) {
    const ds_scores *s = &row->s;
    const int masked = s->mask != 0;
    ds_softmax seen = ds_softmax_none();
    int64_t n = row->n, i = 0;
    ds_softmax_add(&seen, s, n, dtype, log ? DS_FOR_LOGARITHM : DS_FOR_RESULTS);
    row_result r = {.powers = ds_powers_from(s, seen.from, masked), .from = ds_splat(seen.from), .log = log};
    r.factor = ds_splat(inverse(&seen, masked) * (float)r.powers.correction);
    r.log_sum = ds_splat(ds_log((float)seen.sum));
    const int plain = log || (!masked && !r.powers.is_far && s->scale >= 0);
    for (int64_t end = ds_lead(y, n, dtype, streams);; end = n) { /* up to where vectors are aligned, and on */
        if (plain) DS_WITH_FLOAT(t, dtype, i = write_pairs(y, i, end, s->x, &r, t, streams));
        for (; i < end; i += TILE) {
            score_tile tile;
            int64_t some = ds_min(TILE, end - i);
            load_raw(&tile, s, i, some, dtype);
            for (int64_t k = 0; k * DS_LANES < some; k++)
                tile.v[k] = log ? log_of(&r, tile.v[k])
                                : ds_exp2_for(DS_FOR_RESULTS, ds_power(&r.powers, tile.v[k]), dtype) * r.factor;
            store_tile(y, i, some, &tile, dtype, streams);
        }
        i = end;
        if (end == n) break;
    }
}

/* Columns that row `row` sees. */
static int64_t visible(const ds_tensor *x, int64_t row, int64_t causal) {
    int64_t d = ds_row_length(x);
    if (!causal) return d;
    int64_t queries = x->ndim > 1 ? x->shape[x->ndim - 2] : 1;
    return ds_max(0, ds_min(d, d - queries + row % queries + 1));
}

DS_INLINE void run(const ds_call *call, int64_t begin, int64_t end, uint32_t t, int log) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, log ? LOG_Y : Y, 0);
    const ds_tensor *mask = !log && call->args[MASK].count ? ds_arg_tensor(call, MASK, 0) : 0;
    int64_t causal = log ? 0 : call->attributes[CAUSAL].i, d = ds_row_length(x);
    int large = ds_streams(ds_elements(y), t) && x->data != y->data;
    score_row from = {.s.scale = log ? 1 : (float)call->scalars[SCALE].f};
    for (int64_t row = begin; row < end; row++) {
        from.s.x = ds_at(x->data, ds_row_offset(x, row), t);
        if (mask) {
            from.s.mask = ds_at(mask->data, ds_row_offset(mask, row), t);
            from.s.mask_stride = mask->strides[mask->ndim - 1];
        }
        int64_t n = from.n = visible(x, row, causal);
        void *to = ds_at(y->data, ds_row_offset(y, row), t);
        if (n <= KEPT && !mask && !log) short_row(to, &from, t, large && ds_aligned(to));
        else long_row(to, &from, t, log, large);
        __builtin_memset(ds_at(to, n, t), 0, (size_t)((d - n) * ds_size(t)));
    }
    if (large) ds_fence();
}

/* One body a dtype serves both kernels, with a mask and without. */
DS_ONCE void rows(const ds_call *call, int64_t begin, int64_t end, int log) {
    DS_WITH_FLOAT(t, ds_arg_tensor(call, X, 0)->dtype, run(call, begin, end, t, log));
}

static void softmax(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    rows(call, begin, end, 0);
}

static void log_softmax(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    rows(call, begin, end, 1);
}

DS_KERNEL(ds_softmax_rows, plan, softmax);
DS_KERNEL(ds_log_softmax, plan, log_softmax);
