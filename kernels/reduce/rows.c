/* Sums, extremes and norms of rows, on a CPU.
 *
 * Limit: memory. An element is read once, and next to nothing is written. A row that is longer than a
 * block is shared by threads; the shares are combined in their order.
 */
#include "ds_cpu_lanes.h"

/* op(x) -> y. Phase 0: an item is a block of a row; where a row is one block, its result is written at
 * once. Phase 1: an item is a row, the shares of its blocks, in the workspace, are combined. */
enum { X, Y };
enum {
    PAIR = 2 * DS_LANES,
    FOUR = 2 * PAIR,
    BLOCK = 16 * 1024,
    SUM_BLOCK = 64 * DS_LANES, /* f32 sums of at most 16 terms a lane; between these, f64 */
    AHEAD = 2048, /* elements from what is read to what is fetched: arithmetic leaves too few loads on their way */
};

static int64_t blocks_of(const ds_tensor *x) { return ds_div_up(ds_row_length(x), BLOCK); }

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    int64_t rows = ds_rows(x), blocks = ds_max(1, blocks_of(x));
    out->phases = blocks > 1 ? 2 : 1;
    out->phase[0].items = rows * blocks;
    out->phase[0].grain = ds_max(1, BLOCK / ds_max(1, ds_row_length(x)));
    if (blocks == 1) return;
    out->phase[1].items = rows;
    out->phase[1].grain = 1024;
    out->workspace_bytes = rows * blocks * 8;
}

/* Sum of f(x[i]); four vectors at a time, because an addition takes as long as four loads. Of f32 that
 * is little enough to have many lines on their way. */
typedef ds_vec (*term_fn)(ds_vec x, ds_vec sum);

DS_INLINE ds_vec add_one(ds_vec x, ds_vec sum) { return sum + x; }
DS_INLINE ds_vec add_square(ds_vec x, ds_vec sum) { return ds_vfma(x, x, sum); }

DS_INLINE double sum_of(const void *x, int64_t n, uint32_t t, term_fn f) {
    double total = 0;
    for (int64_t i = 0; i < n;) {
        int64_t end = ds_min(i + SUM_BLOCK, n);
        const ds_vec zero = {0};
        ds_vec2 a = {zero, zero}, b = {zero, zero};
        for (; i + FOUR <= end; i += FOUR) {
            if (t != DS_F32) ds_prefetch2(x, i + AHEAD, t, 1), ds_prefetch2(x, i + PAIR + AHEAD, t, 1);
            ds_vec2 v = ds_load2(x, i, t), w = ds_load2(x, i + PAIR, t);
            a = (ds_vec2){f(v.a, a.a), f(v.b, a.b)};
            b = (ds_vec2){f(w.a, b.a), f(w.b, b.b)};
        }
        for (; i < end; i += DS_LANES) a.a = f(ds_load_first(end - i, x, i, t), a.a);
        total += ds_vsum((a.a + a.b) + (b.a + b.b));
    }
    return total;
}

/* The greatest, or, of the negated, the least; NaN where there is one. */
DS_INLINE double greatest_of(const void *x, int64_t n, uint32_t t, uint32_t sign) {
    const ds_vec none = ds_splat(-__builtin_inff());
    ds_vec_u32 flip = (ds_vec_u32){0} + sign;
    ds_vec2 most = {none, none};
    uint32_t nan = 0;
    int64_t i = 0;
    for (; i + PAIR <= n; i += PAIR) {
        ds_prefetch2(x, i + AHEAD, t, 1);
        ds_vec2 v = ds_load2(x, i, t);
        v = (ds_vec2){(ds_vec)((ds_vec_u32)v.a ^ flip), (ds_vec)((ds_vec_u32)v.b ^ flip)};
        nan |= ds_unordered(v.a, v.b);
        most = (ds_vec2){ds_vmax(v.a, most.a), ds_vmax(v.b, most.b)};
    }
    for (; i < n; i += DS_LANES) {
        ds_vec v = (ds_vec)((ds_vec_u32)ds_load_first(n - i, x, i, t) ^ flip);
        v = ds_fill_behind(n - i, v, none);
        nan |= ds_unordered(v, v);
        most.a = ds_vmax(v, most.a);
    }
    return nan ? __builtin_nan("") : (double)ds_greatest_lane(ds_vmax(most.a, most.b));
}

DS_INLINE double sum_block(const void *x, int64_t n, uint32_t t) { return sum_of(x, n, t, add_one); }
DS_INLINE double squares_block(const void *x, int64_t n, uint32_t t) { return sum_of(x, n, t, add_square); }
DS_INLINE double max_block(const void *x, int64_t n, uint32_t t) { return greatest_of(x, n, t, 0); }
DS_INLINE double min_block(const void *x, int64_t n, uint32_t t) { return greatest_of(x, n, t, 0x80000000); }

/* How shares are combined, and what becomes of the last one. */
static double add(double a, double b) { return a + b; }
static double greater(double a, double b) { return a > b || a != a ? a : b; }
static double itself(double v, int64_t n) { return (void)n, v; }
static double mean(double v, int64_t n) { return v / (double)n; }
static double root(double v, int64_t n) { return (void)n, ds_sqrt(v); }
static double negated(double v, int64_t n) { return (void)n, -v; }

typedef struct {
    double (*combine)(double, double);
    double (*finish)(double, int64_t n);
} kind;

/* An f64 rounded once: through f32 whose last bit is odd where it is not exact. */
static void put(const ds_tensor *y, int64_t i, double v) {
    float f = (float)v;
    if (y->dtype == DS_F32) {
        ((float *)y->data)[i] = f;
        return;
    }
    uint32_t bits = DS_BITS_OF(f);
    double back = f;
    if (back != v && v == v && !(bits & 1) && (bits & 0x7f800000) != 0x7f800000) {
        int outward = (v < 0 ? -v : v) > (back < 0 ? -back : back);
        f = DS_FLOAT_OF(bits + (outward ? 1 : (uint32_t)-1));
    }
    ((uint16_t *)y->data)[i] = y->dtype == DS_BF16 ? ds_f32_to_bf16(f) : ds_f32_to_f16(f);
}

typedef double (*block_fn)(const void *x, int64_t n);

static void run_phase(const ds_call *call, uint32_t phase, int64_t begin, int64_t end, block_fn block, kind k) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, Y, 0);
    int64_t n = ds_row_length(x), blocks = ds_max(1, blocks_of(x));
    double *shares = call->workspace;
    for (int64_t item = begin; item < end; item++) {
        if (phase == 1) {
            double v = shares[item * blocks];
            for (int64_t b = 1; b < blocks; b++) v = k.combine(v, shares[item * blocks + b]);
            put(y, item, k.finish(v, n));
            continue;
        }
        int64_t row = blocks == 1 ? item : item / blocks, i = (item - row * blocks) * BLOCK;
        double v = block(ds_at(x->data, ds_row_offset(x, row) + i, x->dtype), ds_min(BLOCK, n - i));
        if (blocks == 1) put(y, item, k.finish(v, n));
        else shares[item] = v;
    }
}

#define BLOCKS(name)                                                                       \
    static double name##_f32(const void *x, int64_t n) { return name(x, n, DS_F32); }       \
    static double name##_bf16(const void *x, int64_t n) { return name(x, n, DS_BF16); }     \
    static double name##_f16(const void *x, int64_t n) { return name(x, n, DS_F16); }
#define ROWS(name, block, ...)                                                              \
    static void run_##name(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) { \
        uint32_t t = ds_arg_tensor(call, X, 0)->dtype;                                      \
        run_phase(call, phase, begin, end, t == DS_F32 ? block##_f32 : t == DS_BF16 ? block##_bf16 : block##_f16, \
                  (kind){__VA_ARGS__});                                                     \
    }                                                                                       \
    DS_KERNEL(ds_##name, plan, run_##name)

BLOCKS(sum_block)
BLOCKS(squares_block)
BLOCKS(max_block)
BLOCKS(min_block)

ROWS(sum_last, sum_block, add, itself);
ROWS(mean_last, sum_block, add, mean);
ROWS(norm_last, squares_block, add, root);
ROWS(max_last, max_block, greater, itself);
ROWS(min_last, min_block, greater, negated);

/* argmax_last(x) -> y: i64. An item is a row. The first of the greatest, or the first NaN; -1 of nothing. */
static void plan_argmax(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    out->phases = 1;
    out->phase[0].items = ds_rows(x);
    out->phase[0].grain = ds_max(1, BLOCK / ds_max(1, ds_row_length(x)));
}

/* Elements that are looked at together. Of the greatest such block the first element is looked for
 * again; the others are read once. */
enum { SOUGHT = 64 * DS_LANES };

/* The place of the first `wanted` there is, or of the first NaN where that is one. */
DS_INLINE int64_t find(const void *x, int64_t n, uint32_t t, float wanted) {
    ds_vec all = ds_splat(wanted);
    for (int64_t i = 0; i < n; i += DS_LANES) {
        ds_vec v = ds_load_first(n - i, x, i, t);
        uint32_t found = wanted != wanted ? ds_unordered(v, v) : ds_equal(v, all);
        if (found) return i + __builtin_ctz(found);
    }
    return -1; /* never */
}

DS_INLINE int64_t argmax(const void *x, int64_t n, uint32_t t, block_fn block) {
    double greatest = 0;
    int64_t at = -1;
    for (int64_t i = 0; i < n && greatest == greatest; i += SOUGHT) {
        double v = block(ds_at(x, i, t), ds_min(SOUGHT, n - i));
        if (i == 0 || !(v <= greatest)) greatest = v, at = i;
    }
    return at < 0 ? at : at + find(ds_at(x, at, t), ds_min(SOUGHT, n - at), t, (float)greatest);
}

DS_INLINE void run_rows(const ds_call *call, int64_t begin, int64_t end, uint32_t t, block_fn block) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    int64_t *y = ds_arg_tensor(call, Y, 0)->data, n = ds_row_length(x);
    for (int64_t row = begin; row < end; row++) y[row] = argmax(ds_at(x->data, ds_row_offset(x, row), t), n, t, block);
}

static void run_argmax(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    switch (ds_arg_tensor(call, X, 0)->dtype) {
    case DS_F32: run_rows(call, begin, end, DS_F32, max_block_f32); break;
    case DS_BF16: run_rows(call, begin, end, DS_BF16, max_block_bf16); break;
    default: run_rows(call, begin, end, DS_F16, max_block_f16); break;
    }
}

DS_KERNEL(ds_argmax_last, plan_argmax, run_argmax);
