/* Gradient of cross entropy with respect to the logits or a tile of them, on a CPU.
 *
 * Limit: memory. A logit is read and its gradient written once, 2 of T an element; one exponential
 * an element is free. Rows that are ignored are written only.
 */
#include "ds_cpu_softmax.h"

enum {
    CHUNK_ELEMENTS = 16 * 1024, /* worth a thread's while */
    PAIR = 2 * DS_LANES,
    AHEAD = 2048, /* elements from what is read to what is fetched */
};

/* cross_entropy_backward(dloss, logits, targets, lse, vocabulary, offset, ignore_index,
 * label_smoothing, scale) -> dlogits; an item is a row. */
enum { DLOSS, LOGITS, TARGETS, LSE, DLOGITS };
enum { VOCABULARY, OFFSET, IGNORE_INDEX, LABEL_SMOOTHING, SCALE };

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *logits = ds_arg_tensor(call, LOGITS, 0);
    out->phases = 1;
    out->phase[0].items = logits->shape[0];
    out->phase[0].grain = ds_max(1, CHUNK_ELEMENTS / ds_max(1, logits->shape[1]));
}

DS_INLINE void fill(void *to, int64_t n, float value, uint32_t t, int streams) {
    ds_vec v = ds_splat(value);
    int64_t i = 0;
    for (; i + PAIR <= n; i += PAIR) ds_store2(to, i, (ds_vec2){v, v}, t, streams);
    for (; i < n; i += DS_LANES) ds_store_first(n - i, to, i, v, t);
}

/* factor * exp(x - lse) - share */
DS_INLINE ds_vec slope(ds_vec x, ds_vec lse, ds_vec factor, ds_vec share) {
    return ds_vfma(ds_vexp2((x - lse) * 0x1.715476p+0f), factor, -share);
}

DS_INLINE void slope_row(void *to, const void *x, int64_t n, float lse_, float factor_, float share_,
                         uint32_t t, int streams) {
    ds_vec lse = ds_splat(lse_), factor = ds_splat(factor_), share = ds_splat(share_);
    int64_t i = 0;
    for (; i + PAIR <= n; i += PAIR) {
        ds_vec2 v = ds_load2(x, i, t);
        ds_prefetch2(x, i + AHEAD, t, 1);
        v = (ds_vec2){slope(v.a, lse, factor, share), slope(v.b, lse, factor, share)};
        ds_store2(to, i, v, t, streams);
    }
    for (; i < n; i += DS_LANES)
        ds_store_first(n - i, to, i, slope(ds_load_first(n - i, x, i, t), lse, factor, share), t);
}

DS_INLINE void run(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *dloss = ds_arg_tensor(call, DLOSS, 0), *logits = ds_arg_tensor(call, LOGITS, 0);
    const ds_tensor *dlogits = ds_arg_tensor(call, DLOGITS, 0);
    const int64_t *targets = ds_arg_tensor(call, TARGETS, 0)->data;
    const float *lse = ds_arg_tensor(call, LSE, 0)->data;
    const ds_value *scalars = call->scalars;
    int64_t width = logits->shape[1], vocabulary = scalars[VOCABULARY].i, offset = scalars[OFFSET].i;
    double smoothing = scalars[LABEL_SMOOTHING].f;
    int large = ds_streams(ds_elements(dlogits), t) && logits->data != dlogits->data;
    for (int64_t row = begin; row < end; row++) {
        const void *x = ds_at(logits->data, ds_row_offset(logits, row), t);
        void *to = ds_at(dlogits->data, ds_row_offset(dlogits, row), t);
        int64_t lead = ds_lead(to, width, t, large);
        int64_t target = targets[row], column = target - offset;
        int is_ignored = target == scalars[IGNORE_INDEX].i, is_class = target >= 0 && target < vocabulary;
        if (is_ignored || !is_class) {
            float value = is_ignored ? 0 : __builtin_nanf("");
            fill(to, lead, value, t, 0);
            fill(ds_at(to, lead, t), width - lead, value, t, large);
            continue;
        }
        double factor = (double)((const float *)dloss->data)[row * dloss->strides[0]] * scalars[SCALE].f;
        double share = factor * smoothing / (double)vocabulary;
        int is_here = column >= 0 && column < width;
        /* Of the target itself, before the row takes its place; written after it. */
        ds_vec own = ds_splat(0);
        if (is_here) own = slope(ds_load_first(1, x, column, t), ds_splat(lse[row]), ds_splat((float)factor),
                                 ds_splat((float)(share + factor * (1 - smoothing))));
        for (int part = 0; part < 2; part++) {
            int64_t i = part ? lead : 0, n = part ? width - lead : lead;
            slope_row(ds_at(to, i, t), ds_at(x, i, t), n, lse[row], (float)factor, (float)share, t, large && part);
        }
        if (is_here) ds_store_first(1, to, column, own, t);
    }
    if (large) ds_fence();
}

static void run_any(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    DS_WITH_FLOAT(t, ds_arg_tensor(call, LOGITS, 0)->dtype, run(call, begin, end, t));
}

DS_KERNEL(ds_cross_entropy_backward, plan, run_any);
