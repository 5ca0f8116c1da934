/* RMS normalisation over the last dimension and its gradients, on a CPU.
 *
 * Limit: memory. Forward moves 2 elements of T an element (x in, y out), backward 3 (dy and x in,
 * dx out); a store to memory that is not in cache first reads the line, which makes that 3 and 4.
 * A row is read twice, the second time from cache. About 4 and 10 flops an element are free.
 */
#include "ds_cpu_simd.h"

enum {
    CHUNK_ELEMENTS = 16 * 1024, /* worth a thread's while */
    BLOCK = 64 * DS_LANES,      /* f32 sums of at most 16 terms a lane; between blocks, f64 */
    SUMS = 4,                   /* independent sums, to hide the latency of an addition */
    MOST_PARTIALS = 64,         /* rows of dweight's partial sums, and so of its parallelism */
};

/* Sum of a[i] * b[i] * c[i]; without `b` and `c`, of a[i]^2. */
DS_INLINE double sum_products(const void *a, const void *b, const void *c, int64_t d, uint32_t t) {
    double total = 0;
    for (int64_t start = 0; start < d; start += BLOCK) {
        int64_t end = ds_min(start + BLOCK, d), i = start;
        ds_vec sums[SUMS] = {{0}};
        for (; i + SUMS * DS_LANES <= end; i += SUMS * DS_LANES) {
            for (int s = 0; s < SUMS; s++) {
                int64_t at = i + s * DS_LANES;
                ds_vec left = ds_load(a, at, t), right = b ? ds_load(b, at, t) * ds_load(c, at, t) : left;
                sums[s] = ds_vfma(left, right, sums[s]);
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

DS_INLINE void forward(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, Y, 0);
    const void *weight = ds_arg_tensor(call, WEIGHT, 0)->data;
    float *rstd = ds_arg_tensor(call, RSTD, 0)->data;
    int64_t d = ds_row_length(x);
    for (int64_t row = begin; row < end; row++) {
        const void *from = ds_at(x->data, ds_row_offset(x, row), t);
        void *to = ds_at(y->data, ds_row_offset(y, row), t);
        double mean = sum_products(from, 0, 0, d, t) / (double)d;
        rstd[row] = (float)(1.0 / ds_sqrt(mean + call->scalars[0].f));
        ds_vec scale = ds_splat(rstd[row]);
        int64_t i = 0;
        for (; i + DS_LANES <= d; i += DS_LANES)
            ds_store(to, i, ds_load(from, i, t) * scale * ds_load(weight, i, t), t);
        if (i < d) {
            ds_vec tail = ds_load_first(d - i, from, i, t) * scale;
            ds_store_first(d - i, to, i, tail * ds_load_first(d - i, weight, i, t), t);
        }
    }
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

/* dx of `n` elements from `i` on, and their share of dweight, added to `partial`. */
DS_INLINE void gradients(const void *dy, const void *x, const void *weight, void *dx, float *partial,
                         int64_t i, int64_t n, ds_vec rstd, ds_vec slope, uint32_t t) {
    ds_vec g = ds_load_first(n, dy, i, t), v = ds_load_first(n, x, i, t);
    ds_vec w = ds_load_first(n, weight, i, t), sum = ds_load_first(n, partial, i, DS_F32);
    ds_store_first(n, dx, i, ds_vfma(g * w, rstd, -(v * slope)), t);
    ds_store_first(n, partial, i, ds_vfma(g * rstd, v, sum), DS_F32);
}

DS_INLINE void backward_rows(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *dy = ds_arg_tensor(call, B_DY, 0), *x = ds_arg_tensor(call, B_X, 0);
    const ds_tensor *dx = ds_arg_tensor(call, B_DX, 0);
    const void *weight = ds_arg_tensor(call, B_WEIGHT, 0)->data;
    const float *rstd = ds_arg_tensor(call, B_RSTD, 0)->data;
    int64_t d = ds_row_length(x);
    ds_plan plan;
    backward_plan(call, &plan);
    for (int64_t row = begin; row < end; row++) {
        float *partial = (float *)call->workspace + row / plan.phase[0].grain * d;
        if (row % plan.phase[0].grain == 0) __builtin_memset(partial, 0, (size_t)d * 4);
        const void *g = ds_at(dy->data, ds_row_offset(dy, row), t);
        const void *v = ds_at(x->data, ds_row_offset(x, row), t);
        void *to = ds_at(dx->data, ds_row_offset(dx, row), t);
        double mean = sum_products(weight, g, v, d, t) / (double)d, r = rstd[row];
        ds_vec scale = ds_splat(rstd[row]), slope = ds_splat((float)(r * r * r * mean));
        int64_t i = 0;
        for (; i + DS_LANES <= d; i += DS_LANES)
            gradients(g, v, weight, to, partial, i, DS_LANES, scale, slope, t);
        if (i < d) gradients(g, v, weight, to, partial, i, d - i, scale, slope, t);
    }
}

DS_INLINE void backward_columns(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    void *dweight = ds_arg_tensor(call, B_DWEIGHT, 0)->data;
    int64_t d = ds_row_length(ds_arg_tensor(call, B_X, 0));
    ds_plan plan;
    backward_plan(call, &plan);
    const float *partials = call->workspace, *partials_end = partials + plan.workspace_bytes / 4;
    for (int64_t i = begin; i < end; i += DS_LANES) {
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
