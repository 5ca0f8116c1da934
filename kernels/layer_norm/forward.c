/* Layer normalisation over the last dimension, alone and of a sum with a residual, on a CPU.
 *
 * Limit: memory. layer_norm moves 2 elements of T an element (x in, y out), add_layer_norm 4 (x and
 * residual in, sum and y out). As in rms_norm, one loop computes the results of a row, by now in a
 * cache, and the moments of the next one, which comes from memory. A sum is made twice rather than
 * kept: reading it again would keep it from going past the caches. About 8 flops an element are free.
 *
 * The moments of a block are those of its deviations from a number near its mean, and blocks are put
 * together in f64 (Chan, Golub and LeVeque 1983), so that rows far from zero keep their variance.
 */
#include "ds_cpu_norm.h"

/* What a call works on; of layer_norm `sum` is NULL. */
typedef struct {
    ds_norm_input in;
    const ds_tensor *sum, *y;
    const void *weight, *bias; /* missing ones are NULL */
    float *mean, *rstd;
} operands;

/* layer_norm(x, weight?, bias?; eps) -> (y, mean, rstd) */
DS_INLINE operands of_norm(const ds_call *call) {
    enum { X, WEIGHT, BIAS, Y, MEAN, RSTD };
    return (operands){
        .in = {.x = ds_arg_tensor(call, X, 0)},
        .y = ds_arg_tensor(call, Y, 0),
        .weight = ds_optional(call, WEIGHT),
        .bias = ds_optional(call, BIAS),
        .mean = ds_arg_tensor(call, MEAN, 0)->data,
        .rstd = ds_arg_tensor(call, RSTD, 0)->data,
    };
}

/* add_layer_norm(x, residual, add_bias?, weight?, bias?; eps) -> (sum, y, mean, rstd) */
DS_INLINE operands of_add(const ds_call *call) {
    enum { X, RESIDUAL, ADD_BIAS, WEIGHT, BIAS, SUM, Y, MEAN, RSTD };
    return (operands){
        .in = {ds_arg_tensor(call, X, 0), ds_arg_tensor(call, RESIDUAL, 0), ds_optional(call, ADD_BIAS)},
        .sum = ds_arg_tensor(call, SUM, 0),
        .y = ds_arg_tensor(call, Y, 0),
        .weight = ds_optional(call, WEIGHT),
        .bias = ds_optional(call, BIAS),
        .mean = ds_arg_tensor(call, MEAN, 0)->data,
        .rstd = ds_arg_tensor(call, RSTD, 0)->data,
    };
}

/* Number, mean and squared deviations of the elements so far. */
typedef struct {
    double count, mean, squares;
} moments;

/* The sums of a block's deviations from `pivot` and of their squares. */
typedef struct {
    ds_vec pivot;
    ds_vec2 sum, squares;
} deviations;

/* Begins the block of elements from `i` to `end`: its pivot is the mean of its first ones, which one
 * element far from all others cannot take far from the block's mean. */
DS_INLINE deviations deviations_from(ds_norm_row s, int64_t i, int64_t end, uint32_t t, int add) {
    double near;
    if (i + DS_PAIR <= end) {
        ds_vec2 v = ds_norm_pair(s, i, t, add);
        near = ds_vsum(v.a + v.b) / DS_PAIR;
    } else {
        int64_t n = ds_min(DS_LANES, end - i);
        near = ds_vsum(ds_norm_first(n, s, i, t, add)) / (double)n;
    }
    return (deviations){.pivot = ds_splat((float)near)};
}

DS_INLINE void add_pair(deviations *sums, ds_norm_row s, int64_t i, uint32_t t, int add) {
    ds_vec2 v = ds_norm_pair(s, i, t, add);
    v = (ds_vec2){v.a - sums->pivot, v.b - sums->pivot};
    sums->sum = (ds_vec2){sums->sum.a + v.a, sums->sum.b + v.b};
    sums->squares = (ds_vec2){ds_vfma(v.a, v.a, sums->squares.a), ds_vfma(v.b, v.b, sums->squares.b)};
}

DS_INLINE void add_first(int64_t n, deviations *sums, ds_norm_row s, int64_t i, uint32_t t, int add) {
    ds_vec v = ds_keep_first(n, ds_norm_first(n, s, i, t, add) - sums->pivot);
    sums->sum.a += v;
    sums->squares.a = ds_vfma(v, v, sums->squares.a);
}

/* Puts a block of `n` elements to those before it. */
DS_INLINE void add_block(moments *m, const deviations *block, int64_t n) {
    double sum = ds_vsum(block->sum.a + block->sum.b), squares = ds_vsum(block->squares.a + block->squares.b);
    double count = (double)n, off = (double)block->pivot[0] + sum / count - m->mean;
    double share = count / (m->count + count);
    m->squares += squares - sum * sum / count + off * off * m->count * share;
    m->mean += off * share;
    m->count += count;
}

/* The moments of a row of `d`. */
DS_INLINE moments moments_of(ds_norm_row s, int64_t d, uint32_t t, int add) {
    moments m = {0};
    for (int64_t i = 0; i < d;) {
        int64_t begin = i, end = ds_min(i + DS_BLOCK, d);
        deviations sums = deviations_from(s, i, end, t, add);
        for (; i + DS_PAIR <= end; i += DS_PAIR) add_pair(&sums, s, i, t, add);
        for (; i < end; i += DS_LANES) add_first(ds_min(DS_LANES, end - i), &sums, s, i, t, add);
        add_block(&m, &sums, end - begin);
    }
    return m;
}

/* Where a row's results go, and its factors. */
typedef struct {
    void *sum, *y;
    const void *weight, *bias;
    ds_vec mean, rstd, rest; /* `rest` is what f32 leaves of the mean, times -rstd */
} result;

DS_INLINE ds_vec normal(const result *to, ds_vec v) { return ds_vfma(v - to->mean, to->rstd, to->rest); }

DS_INLINE void write_pair(const result *to, ds_norm_row s, int64_t i, uint32_t t, int add, int streams) {
    ds_vec2 v = ds_norm_pair(s, i, t, add);
    if (add) ds_store2(to->sum, i, v, t, streams);
    v = (ds_vec2){normal(to, v.a), normal(to, v.b)};
    if (to->weight) {
        ds_vec2 w = ds_load2(to->weight, i, t);
        v = (ds_vec2){v.a * w.a, v.b * w.b};
    }
    if (to->bias) {
        ds_vec2 b = ds_load2(to->bias, i, t);
        v = (ds_vec2){v.a + b.a, v.b + b.b};
    }
    ds_store2(to->y, i, v, t, streams);
}

DS_INLINE void write_first(int64_t n, const result *to, ds_norm_row s, int64_t i, uint32_t t, int add) {
    ds_vec v = ds_norm_first(n, s, i, t, add);
    if (add) ds_store_first(n, to->sum, i, v, t);
    v = normal(to, v);
    if (to->weight) v *= ds_load_first(n, to->weight, i, t);
    if (to->bias) v += ds_load_first(n, to->bias, i, t);
    ds_store_first(n, to->y, i, v, t);
}

/* The results of the row `from`; returns the moments of the row `next`, where there is one. */
DS_INLINE moments write_row(const result *to, ds_norm_row from, ds_norm_row next, int64_t d, uint32_t t, int add,
                            int streams) {
    moments m = {0};
    for (int64_t i = 0; i < d;) {
        int64_t begin = i, end = ds_min(i + DS_BLOCK, d);
        deviations sums = {.pivot = {0}};
        if (next.x) sums = deviations_from(next, i, end, t, add);
        for (; i + DS_PAIR <= end; i += DS_PAIR) {
            write_pair(to, from, i, t, add, streams);
            if (!next.x) continue;
            ds_norm_fetch(next, i, t, add);
            add_pair(&sums, next, i, t, add);
        }
        for (; i < end; i += DS_LANES) {
            int64_t n = ds_min(DS_LANES, end - i);
            write_first(n, to, from, i, t, add);
            if (next.x) add_first(n, &sums, next, i, t, add);
        }
        if (next.x) add_block(&m, &sums, end - begin);
    }
    return m;
}

DS_INLINE void forward(const ds_call *call, const operands *o, int64_t begin, int64_t end, uint32_t t, int add) {
    int64_t d = ds_row_length(o->in.x);
    int large = ds_streams(ds_elements(o->y), t);
    ds_norm_row from = ds_norm_row_of(&o->in, begin, t, add);
    moments m = moments_of(from, d, t, add);
    for (int64_t row = begin; row < end; row++) {
        ds_norm_row next = row + 1 < end ? ds_norm_row_of(&o->in, row + 1, t, add) : (ds_norm_row){0};
        double variance = m.squares < 0 ? 0 : m.squares / (double)d;
        double rstd = 1.0 / ds_sqrt(variance + call->scalars[0].f);
        m.mean += m.squares - m.squares; /* nothing, but NaN where there is no variance */
        o->mean[row] = (float)m.mean;
        o->rstd[row] = (float)rstd;
        result to = {
            .sum = add ? ds_at(o->sum->data, ds_row_offset(o->sum, row), t) : 0,
            .y = ds_at(o->y->data, ds_row_offset(o->y, row), t),
            .weight = o->weight,
            .bias = o->bias,
            .mean = ds_splat((float)m.mean),
            .rstd = ds_splat((float)rstd),
            .rest = ds_splat((float)(((double)(float)m.mean - m.mean) * rstd)),
        };
        int streams = large && ds_aligned(to.y) && ds_aligned(to.sum);
        m = write_row(&to, from, next, d, t, add, streams);
        from = next;
    }
    if (large) ds_fence();
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    operands o = of_norm(call);
    DS_WITH_FLOAT(t, o.in.x->dtype, forward(call, &o, begin, end, t, 0));
}

static void run_add(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    operands o = of_add(call);
    DS_WITH_FLOAT(t, o.in.x->dtype, forward(call, &o, begin, end, t, 1));
}

DS_KERNEL(ds_layer_norm, ds_norm_plan, run);
DS_KERNEL(ds_add_layer_norm, ds_norm_plan, run_add);
