/* Layer normalisation over the last dimension, alone and of a sum with a residual, on a CPU.
 *
 * Limit: memory. layer_norm moves 2 elements of T an element (x in, y out), add_layer_norm 4 (x and
 * residual in, sum and y out). As in rms_norm, one loop computes the results of a row, by now in a
 * cache, and the moments of the next one, which comes from memory. About 8 flops an element are free.
 *
 * The moments of a block are those of its deviations from a number near its mean, and blocks are put
 * together in f64 (Chan, Golub and LeVeque 1983), so that rows far from zero keep their variance.
 */
#include "ds_cpu_norm.h"

/* What a call works on. */
typedef struct {
    ds_norm_input in;
    const ds_tensor *y;
    const void *weight, *bias; /* missing ones are NULL */
    float *mean, *rstd;
} operands;

/* layer_norm(x, weight?, bias?; eps) -> (y, mean, rstd) */
static operands of_norm(const ds_call *call) {
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
static operands of_add(const ds_call *call) {
    enum { X, RESIDUAL, ADD_BIAS, WEIGHT, BIAS, SUM, Y, MEAN, RSTD };
    return (operands){
        .in = {.x = ds_arg_tensor(call, X, 0),
               .residual = ds_arg_tensor(call, RESIDUAL, 0),
               .sum = ds_arg_tensor(call, SUM, 0),
               .bias = ds_optional(call, ADD_BIAS)},
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
DS_INLINE deviations deviations_from(ds_norm_row row, int64_t i, int64_t end, uint32_t t) {
    double near = 0;
    row.sum = row.kept = 0; /* only looked at */
    if (i + DS_PAIR <= end) {
        ds_vec2 v = ds_norm_pair(&row, i, t);
        near = ds_vsum(v.a + v.b) / DS_PAIR;
    } else {
        int64_t n = ds_min(DS_LANES, end - i);
        near = ds_vsum(ds_norm_first(n, &row, i, t)) / (double)n;
    }
    return (deviations){.pivot = ds_splat((float)near)};
}

DS_INLINE void add_pair(deviations *sums, ds_vec2 v) {
    v = (ds_vec2){v.a - sums->pivot, v.b - sums->pivot};
    sums->sum = (ds_vec2){sums->sum.a + v.a, sums->sum.b + v.b};
    sums->squares = (ds_vec2){ds_vfma(v.a, v.a, sums->squares.a), ds_vfma(v.b, v.b, sums->squares.b)};
}

DS_INLINE void add_first(int64_t n, deviations *sums, ds_vec v) {
    v = ds_keep_first(n, v - sums->pivot);
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

/* Where a row's results go, and its factors. */
typedef struct {
    void *y;
    const void *weight, *bias;
    ds_vec mean, rstd, rest; /* `rest` is what f32 leaves of the mean, times -rstd */
    int streams;
} result;

DS_INLINE ds_vec normal(const result *to, ds_vec v) { return ds_vfma(v - to->mean, to->rstd, to->rest); }

DS_INLINE ds_vec2 results(const result *to, ds_vec2 v, int64_t i, uint32_t t) {
    v = (ds_vec2){normal(to, v.a), normal(to, v.b)};
    if (to->weight) {
        ds_vec2 w = ds_load2(to->weight, i, t);
        v = (ds_vec2){v.a * w.a, v.b * w.b};
    }
    if (!to->bias) return v;
    ds_vec2 b = ds_load2(to->bias, i, t);
    return (ds_vec2){v.a + b.a, v.b + b.b};
}

/* A pair of the results of `from`, where there is such a row, and of the moments of `next`, where there
 * is. What is read of both comes before what is written: rows are as far apart as pages often are, and
 * a load waits for a store before it whose address has the same last 12 bits. */
DS_INLINE void step(const result *to, const ds_norm_row *from, const ds_norm_row *next, deviations *sums,
                    int64_t i, uint32_t t) {
    ds_vec2 y = {{0}, {0}};
    if (from->x) y = results(to, ds_norm_pair(from, i, t), i, t);
    if (next->x) {
        ds_norm_fetch(next, i, t);
        add_pair(sums, ds_norm_pair(next, i, t));
    }
    if (from->x) ds_store2(to->y, i, y, t, to->streams);
}

/* The same of the first `n` lanes. */
DS_INLINE void step_first(int64_t n, const result *to, const ds_norm_row *from, const ds_norm_row *next,
                          deviations *sums, int64_t i, uint32_t t) {
    if (from->x) {
        ds_vec v = normal(to, ds_norm_first(n, from, i, t));
        if (to->weight) v *= ds_load_first(n, to->weight, i, t);
        if (to->bias) v += ds_load_first(n, to->bias, i, t);
        ds_store_first(n, to->y, i, v, t);
    }
    if (next->x) add_first(n, sums, ds_norm_first(n, next, i, t));
}

/* The results of the row `from`; returns the moments of the row `next`. */
DS_INLINE moments row_of(const result *to, const ds_norm_row *from, const ds_norm_row *next, int64_t d, uint32_t t) {
    moments m = {0};
    for (int64_t i = 0; i < d;) {
        int64_t begin = i, end = ds_min(i + DS_BLOCK, d);
        deviations sums = {.pivot = {0}};
        if (next->x) sums = deviations_from(*next, i, end, t);
        for (; i + DS_PAIR <= end; i += DS_PAIR) step(to, from, next, &sums, i, t);
        for (; i < end; i += DS_LANES) step_first(ds_min(DS_LANES, end - i), to, from, next, &sums, i, t);
        add_block(&m, &sums, end - begin);
    }
    return m;
}

DS_INLINE void forward(const ds_call *call, const operands *o, int64_t begin, int64_t end, uint32_t t) {
    int64_t d = ds_row_length(o->in.x);
    int large = ds_streams(ds_elements(o->y), t);
    _Alignas(64) char kept[DS_KEPT_BYTES];
    ds_norm_row from = {0}, next = ds_norm_row_of(&o->in, begin, kept, t, large);
    result to = {.weight = o->weight, .bias = o->bias};
    for (int64_t row = begin; row <= end; row++) {
        moments m = row_of(&to, &from, &next, d, t);
        if (row == end) break;
        double variance = m.squares < 0 ? 0 : m.squares / (double)d;
        double rstd = 1.0 / ds_sqrt(variance + call->scalars[0].f);
        m.mean += m.squares - m.squares; /* nothing, but NaN where there is no variance */
        o->mean[row] = (float)m.mean;
        o->rstd[row] = (float)rstd;
        to.mean = ds_splat((float)m.mean);
        to.rstd = ds_splat((float)rstd);
        to.rest = ds_splat((float)(((double)(float)m.mean - m.mean) * rstd));
        to.y = ds_at(o->y->data, ds_row_offset(o->y, row), t);
        to.streams = large && ds_aligned(to.y);
        from = ds_norm_again(next);
        next = row + 1 < end ? ds_norm_row_of(&o->in, row + 1, kept, t, large) : (ds_norm_row){0};
    }
    if (large) ds_fence();
}

__attribute__((noinline)) static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end,
                                          int add) {
    (void)phase;
    operands o = add ? of_add(call) : of_norm(call);
    DS_WITH_FLOAT(t, o.in.x->dtype, forward(call, &o, begin, end, t));
}

DS_NORM_KERNELS(ds_layer_norm, ds_add_layer_norm, ds_norm_plan, run);
