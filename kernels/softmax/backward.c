/* Gradients of softmax and of its logarithm from their results, on a CPU.
 *
 * Limit: memory. dy and y are read and dx is written once, 3 of T an element. Both sums over a row
 * come first; its results follow while it is in a cache, and the next row is fetched meanwhile.
 */
#include "ds_cpu_softmax.h"

enum {
    CHUNK_ELEMENTS = 16 * 1024, /* worth a thread's while */
    PAIR = 2 * DS_LANES,
    BLOCK = 64 * DS_LANES, /* f32 sums of at most 32 terms a lane; between blocks, f64 */
    AHEAD = 1024,          /* elements from what is added to what is fetched */
};

/* softmax_backward(dy, y, scale) -> dx, log_softmax_backward(dy, y) -> dx; an item is a row. */
enum { DY, YY, DX };
enum { SCALE };

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *y = ds_arg_tensor(call, YY, 0);
    out->phases = 1;
    out->phase[0].items = ds_rows(y);
    out->phase[0].grain = ds_max(1, CHUNK_ELEMENTS / ds_max(1, ds_row_length(y)));
}

/* Sum of dy * y of a row, or of dy alone. */
DS_INLINE double sum_row(const void *dy, const void *y, int64_t d, uint32_t t, int log) {
    double total = 0;
    for (int64_t i = 0; i < d;) {
        int64_t end = ds_min(i + BLOCK, d);
        ds_vec2 sum = {{0}};
        for (; i + PAIR <= end; i += PAIR) {
            ds_vec2 g = ds_load2(dy, i, t);
            ds_prefetch2(dy, i + AHEAD, t, 1);
            ds_prefetch2(y, i + AHEAD, t, 1);
            if (log) {
                sum = (ds_vec2){sum.a + g.a, sum.b + g.b};
            } else {
                ds_vec2 p = ds_load2(y, i, t);
                sum = (ds_vec2){ds_vfma(g.a, p.a, sum.a), ds_vfma(g.b, p.b, sum.b)};
            }
        }
        for (; i < end; i += DS_LANES) {
            ds_vec g = ds_load_first(end - i, dy, i, t);
            sum.a += log ? g : g * ds_load_first(end - i, y, i, t);
        }
        total += ds_vsum(sum.a + sum.b);
    }
    return total;
}

/* scale * y * (dy - sum), or dy - exp(y) * sum. */
DS_INLINE ds_vec slope(ds_vec dy, ds_vec y, ds_vec sum, ds_vec scale, int log) {
    return log ? ds_vfma(-ds_vexp2(y * 0x1.715476p+0f), sum, dy) : scale * y * (dy - sum);
}

typedef struct {
    const void *dy, *y;
} row_pair;

DS_INLINE row_pair row_of(const ds_call *call, int64_t row, uint32_t t) {
    const ds_tensor *dy = ds_arg_tensor(call, DY, 0), *y = ds_arg_tensor(call, YY, 0);
    return (row_pair){ds_at(dy->data, ds_row_offset(dy, row), t), ds_at(y->data, ds_row_offset(y, row), t)};
}

/* dx of a row; fetches from `next`, where there is one. */
DS_INLINE void slope_row(void *dx, row_pair row, row_pair next, int64_t d, ds_vec sum, ds_vec scale,
                         uint32_t t, int log, int streams) {
    int64_t i = 0;
    for (int64_t end = ds_lead(dx, d, t, streams);; end = d) { /* up to where vectors are aligned, and on */
        for (; i + PAIR <= end; i += PAIR) {
            if (next.y) {
                ds_prefetch2(next.dy, i, t, 2);
                ds_prefetch2(next.y, i, t, 2);
            }
            ds_vec2 g = ds_load2(row.dy, i, t), y = ds_load2(row.y, i, t);
            ds_vec2 v = {slope(g.a, y.a, sum, scale, log), slope(g.b, y.b, sum, scale, log)};
            ds_store2(dx, i, v, t, streams);
        }
        for (; i < end; i += DS_LANES) {
            ds_vec g = ds_load_first(end - i, row.dy, i, t), y = ds_load_first(end - i, row.y, i, t);
            ds_store_first(end - i, dx, i, slope(g, y, sum, scale, log), t);
        }
        i = end;
        if (end == d) break;
    }
}

DS_INLINE void run(const ds_call *call, int64_t begin, int64_t end, uint32_t t, int log) {
    const ds_tensor *dx = ds_arg_tensor(call, DX, 0);
    int64_t d = ds_row_length(dx);
    int in_place = dx->data == ds_arg_tensor(call, DY, 0)->data || dx->data == ds_arg_tensor(call, YY, 0)->data;
    int large = ds_streams(ds_elements(dx), t) && !in_place;
    ds_vec scale = ds_splat(log ? 1 : (float)call->scalars[SCALE].f);
    for (int64_t row = begin; row < end; row++) {
        row_pair from = row_of(call, row, t);
        row_pair next = row + 1 < end ? row_of(call, row + 1, t) : (row_pair){0, 0};
        ds_vec sum = ds_splat((float)sum_row(from.dy, from.y, d, t, log));
        void *to = ds_at(dx->data, ds_row_offset(dx, row), t);
        slope_row(to, from, next, d, sum, scale, t, log, large);
    }
    if (large) ds_fence();
}

static void softmax_backward(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    DS_WITH_FLOAT(t, ds_arg_tensor(call, YY, 0)->dtype, run(call, begin, end, t, 0));
}

static void log_softmax_backward(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    DS_WITH_FLOAT(t, ds_arg_tensor(call, YY, 0)->dtype, run(call, begin, end, t, 1));
}

DS_KERNEL(ds_softmax_backward, plan, softmax_backward);
DS_KERNEL(ds_log_softmax_backward, plan, log_softmax_backward);
