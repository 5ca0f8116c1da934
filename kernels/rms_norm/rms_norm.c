/* RMS normalisation over the last dimension and its gradients, on a CPU.
 *
 * Limit: memory. Forward moves 2 elements of T an element (x in, y out), backward 3 (dy and x in,
 * dx out). A row is needed twice, first for its sum and then for its results, so one loop computes
 * the results of a row, by now in a cache, and the sum of the next one, which comes from memory:
 * memory is never idle, and the weight is read once for both. Large results go past the caches,
 * else a store would first read what it overwrites. About 4 and 10 flops an element are free.
 */
#include "ds_cpu_simd.h"

enum {
    CHUNK_ELEMENTS = 16 * 1024, /* worth a thread's while */
    PAIR = 2 * DS_LANES,
    BLOCK = 64 * DS_LANES, /* f32 sums of at most 32 terms a lane; between blocks, f64 */
    AHEAD = 2048,          /* elements from what is read of the next row to what is fetched */
    MOST_PARTIALS = 64,    /* rows of dweight's partial sums, and so of its parallelism */
};

/* Fetches what is read soon: rows of f32 do not fit in the first level of the caches two at a time. */
DS_INLINE void fetch(const void *row, int64_t i, uint32_t t) { ds_prefetch2(row, i + AHEAD, t, t == DS_F32 ? 2 : 1); }

/* rms_norm(x, weight, eps) -> (y, rstd); an item is a row. */
enum { X, WEIGHT, Y, RSTD };

static void forward_plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    out->phases = 1;
    out->phase[0].items = ds_rows(x);
    out->phase[0].grain = ds_max(1, CHUNK_ELEMENTS / ds_max(1, ds_row_length(x)));
}

/* Adds x[i]^2 of a pair. */
DS_INLINE ds_vec2 add_squares(ds_vec2 sum, const void *x, int64_t i, uint32_t t) {
    ds_vec2 v = ds_load2(x, i, t);
    return (ds_vec2){ds_vfma(v.a, v.a, sum.a), ds_vfma(v.b, v.b, sum.b)};
}

/* The same of the first `n` lanes. */
DS_INLINE ds_vec add_squares_first(int64_t n, ds_vec sum, const void *x, int64_t i, uint32_t t) {
    ds_vec v = ds_load_first(n, x, i, t);
    return ds_vfma(v, v, sum);
}

/* Sum of x[i]^2 of a row of `d`. */
DS_INLINE double sum_of_squares(const void *x, int64_t d, uint32_t t) {
    double total = 0;
    for (int64_t i = 0; i < d;) {
        int64_t end = ds_min(i + BLOCK, d);
        ds_vec2 sum = {{0}};
        for (; i + PAIR <= end; i += PAIR) sum = add_squares(sum, x, i, t);
        for (; i < end; i += DS_LANES) sum.a = add_squares_first(end - i, sum.a, x, i, t);
        total += ds_vsum(sum.a + sum.b);
    }
    return total;
}

/* y of the row `x`; returns the sum of squares of the row `next`, where there is one. */
DS_INLINE double scale_row(const void *x, const void *weight, void *y, const void *next, int64_t d,
                           ds_vec scale, uint32_t t, int streams) {
    double total = 0;
    for (int64_t i = 0; i < d;) {
        int64_t end = ds_min(i + BLOCK, d);
        ds_vec2 sum = {{0}};
        for (; i + PAIR <= end; i += PAIR) {
            ds_vec2 v = ds_load2(x, i, t), w = ds_load2(weight, i, t);
            ds_store2(y, i, (ds_vec2){v.a * scale * w.a, v.b * scale * w.b}, t, streams);
            if (!next) continue;
            fetch(next, i, t);
            sum = add_squares(sum, next, i, t);
        }
        for (; i < end; i += DS_LANES) {
            ds_vec v = ds_load_first(end - i, x, i, t) * scale;
            ds_store_first(end - i, y, i, v * ds_load_first(end - i, weight, i, t), t);
            if (next) sum.a = add_squares_first(end - i, sum.a, next, i, t);
        }
        total += ds_vsum(sum.a + sum.b);
    }
    return total;
}

DS_INLINE void forward(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, Y, 0);
    const void *weight = ds_arg_tensor(call, WEIGHT, 0)->data;
    float *rstd = ds_arg_tensor(call, RSTD, 0)->data;
    int64_t d = ds_row_length(x);
    int large = ds_streams(ds_elements(y), t);
    const void *from = ds_at(x->data, ds_row_offset(x, begin), t);
    double sum = sum_of_squares(from, d, t);
    for (int64_t row = begin; row < end; row++) {
        const void *next = row + 1 < end ? ds_at(x->data, ds_row_offset(x, row + 1), t) : 0;
        void *to = ds_at(y->data, ds_row_offset(y, row), t);
        rstd[row] = (float)(1.0 / ds_sqrt(sum / (double)d + call->scalars[0].f));
        ds_vec scale = ds_splat(rstd[row]);
        if (large && ds_aligned(to)) sum = scale_row(from, weight, to, next, d, scale, t, 1);
        else sum = scale_row(from, weight, to, next, d, scale, t, 0);
        from = next;
    }
    if (large) ds_fence();
}

/* rms_norm_backward(dy, x, weight, rstd) -> (dx, dweight).
 *
 *   dx      = rstd * (weight * dy - x * rstd^2 * mean(weight * dy * x))
 *   dweight = sum over the rows of dy * x * rstd
 *
 * Phase 0: an item is a row, a chunk of rows leaves its share of dweight in the workspace, [chunks,
 * D] in f32. Phase 1: an item is a column, the shares are added in their order. */
enum { B_DY, B_X, B_WEIGHT, B_RSTD, B_DX, B_DWEIGHT };

static void backward_plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, B_X, 0);
    int64_t rows = ds_rows(x), d = ds_row_length(x);
    int64_t enough = ds_div_up(CHUNK_ELEMENTS, ds_max(1, d));
    out->phases = 2;
    out->phase[0].items = rows;
    out->phase[0].grain = ds_max(enough, ds_div_up(rows, MOST_PARTIALS));
    out->phase[1].items = d;
    out->phase[1].grain = 1024;
    out->workspace_bytes = ds_div_up(rows, out->phase[0].grain) * d * 4;
}

/* What a row of gradients is computed from. */
typedef struct {
    const void *dy, *x;
} row_pair;

DS_INLINE row_pair row_pair_of(const ds_call *call, int64_t row, uint32_t t) {
    const ds_tensor *dy = ds_arg_tensor(call, B_DY, 0), *x = ds_arg_tensor(call, B_X, 0);
    return (row_pair){ds_at(dy->data, ds_row_offset(dy, row), t), ds_at(x->data, ds_row_offset(x, row), t)};
}

/* Adds dy[i] * weight[i] * x[i] of a pair. */
DS_INLINE ds_vec2 add_products(ds_vec2 sum, row_pair row, ds_vec2 w, int64_t i, uint32_t t) {
    ds_vec2 g = ds_load2(row.dy, i, t), v = ds_load2(row.x, i, t);
    return (ds_vec2){ds_vfma(g.a * w.a, v.a, sum.a), ds_vfma(g.b * w.b, v.b, sum.b)};
}

/* The same of the first `n` lanes. */
DS_INLINE ds_vec add_products_first(int64_t n, ds_vec sum, row_pair row, ds_vec w, int64_t i, uint32_t t) {
    return ds_vfma(ds_load_first(n, row.dy, i, t) * w, ds_load_first(n, row.x, i, t), sum);
}

/* Sum of dy[i] * weight[i] * x[i] of a row of `d`. */
DS_INLINE double sum_of_products(row_pair row, const void *weight, int64_t d, uint32_t t) {
    double total = 0;
    for (int64_t i = 0; i < d;) {
        int64_t end = ds_min(i + BLOCK, d);
        ds_vec2 sum = {{0}};
        for (; i + PAIR <= end; i += PAIR) sum = add_products(sum, row, ds_load2(weight, i, t), i, t);
        for (; i < end; i += DS_LANES)
            sum.a = add_products_first(end - i, sum.a, row, ds_load_first(end - i, weight, i, t), i, t);
        total += ds_vsum(sum.a + sum.b);
    }
    return total;
}

/* Where the gradients of a row go, and its factors. */
typedef struct {
    void *dx;
    float *dweight; /* its share, in the order of pairs up to the last whole one */
    ds_vec rstd, slope;
} gradient;

/* The gradients of `row`; returns the sum of products of `next`, where there is one. */
DS_INLINE double gradient_row(gradient to, row_pair row, row_pair next, const void *weight, int64_t d,
                              uint32_t t, int streams) {
    double total = 0;
    for (int64_t i = 0; i < d;) {
        int64_t end = ds_min(i + BLOCK, d);
        ds_vec2 sum = {{0}};
        for (; i + PAIR <= end; i += PAIR) {
            ds_vec2 g = ds_load2(row.dy, i, t), v = ds_load2(row.x, i, t), w = ds_load2(weight, i, t);
            ds_vec2 dw = ds_load2(to.dweight, i, DS_F32);
            g = (ds_vec2){g.a * to.rstd, g.b * to.rstd};
            ds_vec2 dx = {ds_vfma(g.a, w.a, -(v.a * to.slope)), ds_vfma(g.b, w.b, -(v.b * to.slope))};
            ds_store2(to.dx, i, dx, t, streams);
            dw = (ds_vec2){ds_vfma(g.a, v.a, dw.a), ds_vfma(g.b, v.b, dw.b)};
            ds_store2(to.dweight, i, dw, DS_F32, 0);
            if (!next.x) continue;
            fetch(next.dy, i, t);
            fetch(next.x, i, t);
            sum = add_products(sum, next, w, i, t);
        }
        for (; i < end; i += DS_LANES) {
            int64_t n = end - i;
            ds_vec g = ds_load_first(n, row.dy, i, t) * to.rstd, v = ds_load_first(n, row.x, i, t);
            ds_vec w = ds_load_first(n, weight, i, t);
            ds_store_first(n, to.dx, i, ds_vfma(g, w, -(v * to.slope)), t);
            ds_store_first(n, to.dweight, i, ds_vfma(g, v, ds_load_first(n, to.dweight, i, DS_F32)), DS_F32);
            if (next.x) sum.a = add_products_first(n, sum.a, next, w, i, t);
        }
        total += ds_vsum(sum.a + sum.b);
    }
    return total;
}

DS_INLINE void backward_rows(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *dx = ds_arg_tensor(call, B_DX, 0);
    const void *weight = ds_arg_tensor(call, B_WEIGHT, 0)->data;
    const float *rstd = ds_arg_tensor(call, B_RSTD, 0)->data;
    int64_t d = ds_row_length(dx);
    int large = ds_streams(ds_elements(dx), t);
    ds_plan plan;
    backward_plan(call, &plan);
    int64_t grain = plan.phase[0].grain;
    row_pair from = row_pair_of(call, begin, t);
    double sum = sum_of_products(from, weight, d, t);
    for (int64_t row = begin; row < end; row++) {
        row_pair next = row + 1 < end ? row_pair_of(call, row + 1, t) : (row_pair){0, 0};
        double root = rstd[row], mean = sum / (double)d;
        gradient to = {
            .dx = ds_at(dx->data, ds_row_offset(dx, row), t),
            .dweight = (float *)call->workspace + row / grain * d,
            .rstd = ds_splat(rstd[row]),
            .slope = ds_splat((float)(root * root * root * mean)),
        };
        if (row % grain == 0) __builtin_memset(to.dweight, 0, (size_t)d * 4);
        if (large && ds_aligned(to.dx)) sum = gradient_row(to, from, next, weight, d, t, 1);
        else sum = gradient_row(to, from, next, weight, d, t, 0);
        from = next;
    }
    if (large) ds_fence();
}

DS_INLINE void backward_columns(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    void *dweight = ds_arg_tensor(call, B_DWEIGHT, 0)->data;
    int64_t d = ds_row_length(ds_arg_tensor(call, B_X, 0));
    ds_plan plan;
    backward_plan(call, &plan);
    const float *partials = call->workspace, *partials_end = partials + plan.workspace_bytes / 4;
    int64_t i = begin;
    /* Whole pairs of the row; `begin` is one's beginning. */
    for (; i + PAIR <= ds_min(end, d / PAIR * PAIR); i += PAIR) {
        ds_vec2 sum = {{0}};
        for (const float *p = partials; p < partials_end; p += d) {
            ds_vec2 share = ds_load2(p, i, DS_F32);
            sum = (ds_vec2){sum.a + share.a, sum.b + share.b};
        }
        ds_store2(dweight, i, sum, t, 0);
    }
    for (; i < end; i += DS_LANES) {
        int64_t n = ds_min(DS_LANES, end - i);
        ds_vec sum = {0};
        for (const float *p = partials; p < partials_end; p += d) sum += ds_load_first(n, p, i, DS_F32);
        ds_store_first(n, dweight, i, sum, t);
    }
}

#define KERNELS(name, t)                                                                     \
    static void forward_##name(const ds_call *c, uint32_t phase, int64_t begin, int64_t end) { \
        (void)phase;                                                                         \
        forward(c, begin, end, t);                                                           \
    }                                                                                        \
    static void backward_##name(const ds_call *c, uint32_t phase, int64_t begin, int64_t end) { \
        if (phase == 0) backward_rows(c, begin, end, t);                                     \
        else backward_columns(c, begin, end, t);                                             \
    }                                                                                        \
    DS_KERNEL(ds_rms_norm_##name, forward_plan, forward_##name);                             \
    DS_KERNEL(ds_rms_norm_backward_##name, backward_plan, backward_##name)

KERNELS(f32, DS_F32);
KERNELS(bf16, DS_BF16);
KERNELS(f16, DS_F16);
