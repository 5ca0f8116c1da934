/* RMS normalisation over the last dimension and its gradients, on a CPU.
 *
 * Limit: memory. Forward moves 2 elements of T an element (x in, y out), backward 3 (dy and x in,
 * dx out). A row is read twice, the second time from cache; meanwhile the next row is fetched, so
 * that memory is never idle. Large results go past the caches, else a store would first read what
 * it overwrites. About 4 and 10 flops an element are free.
 */
#include "ds_cpu_simd.h"

enum {
    CHUNK_ELEMENTS = 16 * 1024, /* worth a thread's while */
    PAIR = 2 * DS_LANES,
    BLOCK = 64 * DS_LANES,      /* f32 sums of at most 16 terms a lane; between blocks, f64 */
    MOST_PARTIALS = 64,         /* rows of dweight's partial sums, and so of its parallelism */
};

/* Sum of a[i] * b[i] * c[i]; without `b` and `c`, of a[i]^2. */
DS_INLINE double sum_products(const void *a, const void *b, const void *c, int64_t d, uint32_t t) {
    double total = 0;
    for (int64_t start = 0; start < d; start += BLOCK) {
        int64_t end = ds_min(start + BLOCK, d), i = start;
        ds_vec sums[4] = {{0}}; /* independent, to hide the latency of an addition */
        for (; i + 2 * PAIR <= end; i += 2 * PAIR) {
            for (int s = 0; s < 2; s++) {
                int64_t at = i + s * PAIR;
                ds_vec2 left = ds_load2_any(a, at, t), right = left;
                if (b) {
                    ds_vec2 v = ds_load2_any(b, at, t), w = ds_load2_any(c, at, t);
                    right = (ds_vec2){v.a * w.a, v.b * w.b};
                }
                sums[2 * s] = ds_vfma(left.a, right.a, sums[2 * s]);
                sums[2 * s + 1] = ds_vfma(left.b, right.b, sums[2 * s + 1]);
            }
        }
        for (; i < end; i += DS_LANES) {
            int64_t n = end - i;
            ds_vec left = ds_load_first(n, a, i, t);
            ds_vec right = b ? ds_load_first(n, b, i, t) * ds_load_first(n, c, i, t) : left;
            sums[0] = ds_vfma(left, right, sums[0]);
        }
        total += ds_vsum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
    return total;
}

/* rms_norm(x, weight, eps) -> (y, rstd); an item is a row. */
enum { X, WEIGHT, Y, RSTD };

static void forward_plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    out->phases = 1;
    out->phase[0].items = ds_rows(x);
    out->phase[0].grain = ds_max(1, CHUNK_ELEMENTS / ds_max(1, ds_row_length(x)));
}

/* y of one row; `next` is what is read after it. */
DS_INLINE void scale_row(const void *x, const void *weight, void *y, const void *next, int64_t d,
                         ds_vec scale, uint32_t t, int streams) {
    int64_t i = 0;
    for (; i + PAIR <= d; i += PAIR) {
        ds_vec2 v = ds_load2(x, i, t), w = ds_load2(weight, i, t);
        ds_prefetch2(next, i, t);
        ds_store2(y, i, (ds_vec2){v.a * scale * w.a, v.b * scale * w.b}, t, streams);
    }
    for (; i < d; i += DS_LANES) {
        ds_vec v = ds_load_first(d - i, x, i, t) * scale;
        ds_store_first(d - i, y, i, v * ds_load_first(d - i, weight, i, t), t);
    }
}

DS_INLINE void forward(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, Y, 0);
    const void *weight = ds_arg_tensor(call, WEIGHT, 0)->data;
    float *rstd = ds_arg_tensor(call, RSTD, 0)->data;
    int64_t d = ds_row_length(x);
    int large = ds_streams(ds_elements(y), t);
    const void *from = ds_at(x->data, ds_row_offset(x, begin), t);
    for (int64_t row = begin; row < end; row++) {
        const void *next = ds_at(x->data, ds_row_offset(x, ds_min(row + 1, end - 1)), t);
        void *to = ds_at(y->data, ds_row_offset(y, row), t);
        double mean = sum_products(from, 0, 0, d, t) / (double)d;
        rstd[row] = (float)(1.0 / ds_sqrt(mean + call->scalars[0].f));
        ds_vec scale = ds_splat(rstd[row]);
        if (large && ds_aligned(to)) scale_row(from, weight, to, next, d, scale, t, 1);
        else scale_row(from, weight, to, next, d, scale, t, 0);
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

/* What a row of gradients is made of. */
typedef struct {
    const void *dy, *x, *weight;
    void *dx;
    float *partial;
    ds_vec rstd, slope;
} gradient;

/* dx of a pair from `i` on, and its share of dweight, added to `partial`. */
DS_INLINE ds_vec gradient_of(const gradient *r, ds_vec g, ds_vec v, ds_vec w) {
    return ds_vfma(g * w, r->rstd, -(v * r->slope));
}

/* dx of one row and its share of dweight, added to `partial`: there in the order of pairs, up to
 * the last whole one. */
DS_INLINE void gradient_row(const gradient *r, const void *next_dy, const void *next_x, int64_t d,
                            uint32_t t, int streams) {
    int64_t i = 0;
    for (; i + PAIR <= d; i += PAIR) {
        ds_vec2 g = ds_load2(r->dy, i, t), v = ds_load2(r->x, i, t), w = ds_load2(r->weight, i, t);
        ds_vec2 sum = ds_load2(r->partial, i, DS_F32);
        ds_prefetch2(next_dy, i, t);
        ds_prefetch2(next_x, i, t);
        ds_vec2 dx = {gradient_of(r, g.a, v.a, w.a), gradient_of(r, g.b, v.b, w.b)};
        ds_store2(r->dx, i, dx, t, streams);
        sum = (ds_vec2){ds_vfma(g.a * r->rstd, v.a, sum.a), ds_vfma(g.b * r->rstd, v.b, sum.b)};
        ds_store2(r->partial, i, sum, DS_F32, 0);
    }
    for (; i < d; i += DS_LANES) {
        int64_t n = d - i;
        ds_vec g = ds_load_first(n, r->dy, i, t), v = ds_load_first(n, r->x, i, t);
        ds_vec sum = ds_load_first(n, r->partial, i, DS_F32);
        ds_store_first(n, r->dx, i, gradient_of(r, g, v, ds_load_first(n, r->weight, i, t)), t);
        ds_store_first(n, r->partial, i, ds_vfma(g * r->rstd, v, sum), DS_F32);
    }
}

DS_INLINE void backward_rows(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *dy = ds_arg_tensor(call, B_DY, 0), *x = ds_arg_tensor(call, B_X, 0);
    const ds_tensor *dx = ds_arg_tensor(call, B_DX, 0);
    const float *rstd = ds_arg_tensor(call, B_RSTD, 0)->data;
    int64_t d = ds_row_length(x);
    int large = ds_streams(ds_elements(dx), t);
    ds_plan plan;
    backward_plan(call, &plan);
    gradient r = {.weight = ds_arg_tensor(call, B_WEIGHT, 0)->data};
    for (int64_t row = begin; row < end; row++) {
        int64_t next = ds_min(row + 1, end - 1);
        const void *next_dy = ds_at(dy->data, ds_row_offset(dy, next), t);
        const void *next_x = ds_at(x->data, ds_row_offset(x, next), t);
        r.dy = ds_at(dy->data, ds_row_offset(dy, row), t);
        r.x = ds_at(x->data, ds_row_offset(x, row), t);
        r.dx = ds_at(dx->data, ds_row_offset(dx, row), t);
        r.partial = (float *)call->workspace + row / plan.phase[0].grain * d;
        if (row % plan.phase[0].grain == 0) __builtin_memset(r.partial, 0, (size_t)d * 4);
        double mean = sum_products(r.weight, r.dy, r.x, d, t) / (double)d, root = rstd[row];
        r.rstd = ds_splat(rstd[row]);
        r.slope = ds_splat((float)(root * root * root * mean));
        if (large && ds_aligned(r.dx)) gradient_row(&r, next_dy, next_x, d, t, 1);
        else gradient_row(&r, next_dy, next_x, d, t, 0);
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
