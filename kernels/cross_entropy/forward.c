/* Cross entropy of logits and classes, on a CPU; whole, or by tiles of the vocabulary.
 *
 * Limit: memory. A logit is read once, 1 of T an element; what a row leaves is nothing beside it.
 */
#include "ds_cpu_softmax.h"

enum { CHUNK_ELEMENTS = 16 * 1024 /* worth a thread's while */, CHUNK_ROWS = 1024 };

/* cross_entropy(logits, targets, ignore_index, label_smoothing) -> (loss, lse); an item is a row.
 * cross_entropy_tile(logits, targets, state, offset, first). */
enum { LOGITS, TARGETS, LOSS, LSE, STATE = 2 };
enum { IGNORE_INDEX, LABEL_SMOOTHING, OFFSET = 0, FIRST };

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *logits = ds_arg_tensor(call, LOGITS, 0);
    out->phases = 1;
    out->phase[0].items = logits->shape[0];
    out->phase[0].grain = ds_max(1, CHUNK_ELEMENTS / ds_max(1, logits->shape[1]));
}

/* One logit. */
static float element(const void *x, int64_t i, uint32_t dtype) {
    if (dtype == DS_F32) return ((const float *)x)[i];
    uint16_t bits = ((const uint16_t *)x)[i];
    return dtype == DS_BF16 ? ds_bf16_to_f32(bits) : ds_f16_to_f32(bits);
}

static const void *row_of(const ds_tensor *logits, int64_t row) {
    return ds_at(logits->data, ds_row_offset(logits, row), logits->dtype);
}

/* Adds a row of logits. */
DS_ONCE void add_row(ds_softmax *seen, const void *x, int64_t n, uint32_t dtype) {
    ds_scores s = {.x = x, .scale = 1};
    ds_softmax_add(seen, &s, n, dtype, 1);
}

/* What the loss of a row follows from. */
typedef struct {
    ds_softmax seen;
    float target_logit; /* read where there is such a class */
    int64_t target, classes;
} row_sums;

static void finish_row(row_sums r, int64_t ignore_index, double smoothing, float *loss, float *lse) {
    /* Differences to the greatest logit come first: they are small where logits are not. */
    double log_sum = (double)ds_log((float)r.seen.sum), max = (double)r.seen.max;
    *lse = (float)(max + log_sum);
    double value = log_sum - ((double)r.target_logit - max);
    if (smoothing != 0) {
        double uniform = log_sum - (r.seen.total / (double)r.classes - max);
        value = (1 - smoothing) * value + smoothing * uniform;
    }
    int is_class = r.target >= 0 && r.target < r.classes;
    *loss = r.target == ignore_index ? 0 : is_class ? (float)value : __builtin_nanf("");
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *logits = ds_arg_tensor(call, LOGITS, 0);
    const int64_t *targets = ds_arg_tensor(call, TARGETS, 0)->data;
    float *loss = ds_arg_tensor(call, LOSS, 0)->data, *lse = ds_arg_tensor(call, LSE, 0)->data;
    for (int64_t row = begin; row < end; row++) {
        const void *x = row_of(logits, row);
        row_sums r = {ds_softmax_none(), 0, targets[row], logits->shape[1]};
        if (r.target >= 0 && r.target < r.classes) r.target_logit = element(x, r.target, logits->dtype);
        add_row(&r.seen, x, r.classes, logits->dtype);
        finish_row(r, call->scalars[IGNORE_INDEX].i, call->scalars[LABEL_SMOOTHING].f, &loss[row], &lse[row]);
    }
}

/* The columns of a state. */
enum { MAX, SUM, TARGET_LOGIT, TOTAL, COLUMNS };

static void run_tile(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *logits = ds_arg_tensor(call, LOGITS, 0);
    const int64_t *targets = ds_arg_tensor(call, TARGETS, 0)->data;
    float *states = ds_arg_tensor(call, STATE, 0)->data;
    int64_t offset = call->scalars[OFFSET].i, width = logits->shape[1];
    for (int64_t row = begin; row < end; row++) {
        float *state = states + row * COLUMNS;
        ds_softmax seen = ds_softmax_none();
        if (call->scalars[FIRST].i) state[TARGET_LOGIT] = 0;
        else seen = (ds_softmax){state[MAX], (double)state[SUM], (double)state[TOTAL]};
        const void *x = row_of(logits, row);
        add_row(&seen, x, width, logits->dtype);
        int64_t target = targets[row];
        if (target >= offset && target - offset < width)
            state[TARGET_LOGIT] = element(x, target - offset, logits->dtype);
        state[MAX] = seen.max;
        state[SUM] = (float)seen.sum;
        state[TOTAL] = (float)seen.total;
    }
}

/* cross_entropy_finish(states, targets, vocabulary, ignore_index, label_smoothing) -> (loss, lse); an
 * item is a row. */
enum { STATES, F_TARGETS, F_LOSS, F_LSE };
enum { VOCABULARY, F_IGNORE_INDEX, F_LABEL_SMOOTHING };

static void finish_plan(const ds_call *call, ds_plan *out) {
    out->phases = 1;
    out->phase[0].items = ds_elements(ds_arg_tensor(call, F_TARGETS, 0));
    out->phase[0].grain = CHUNK_ROWS;
}

static void run_finish(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *states = ds_arg_tensor(call, STATES, 0);
    const int64_t *targets = ds_arg_tensor(call, F_TARGETS, 0)->data;
    float *loss = ds_arg_tensor(call, F_LOSS, 0)->data, *lse = ds_arg_tensor(call, F_LSE, 0)->data;
    const ds_value *scalars = call->scalars;
    int64_t parts = states->shape[0], rows = states->shape[1];
    for (int64_t row = begin; row < end; row++) {
        const float *first = (const float *)states->data + row * COLUMNS, *last = first + parts * rows * COLUMNS;
        row_sums r = {ds_softmax_none(), 0, targets[row], scalars[VOCABULARY].i};
        for (const float *state = first; state < last; state += rows * COLUMNS)
            r.seen.max = r.seen.max < state[MAX] ? state[MAX] : r.seen.max;
        for (const float *state = first; state < last; state += rows * COLUMNS) {
            r.seen.sum += (double)state[SUM] * (double)ds_exp(state[MAX] - r.seen.max);
            r.seen.total += (double)state[TOTAL];
            r.target_logit += state[TARGET_LOGIT];
        }
        finish_row(r, scalars[F_IGNORE_INDEX].i, scalars[F_LABEL_SMOOTHING].f, &loss[row], &lse[row]);
    }
}

/* cross_entropy_mean(loss, targets, ignore_index) -> (mean, weight); one item, for the order of the
 * sum. */
enum { M_LOSS, M_TARGETS, MEAN, WEIGHT };

static void mean_plan(const ds_call *call, ds_plan *out) {
    (void)call;
    out->phases = 1;
    out->phase[0].items = out->phase[0].grain = 1;
}

static void run_mean(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase, (void)begin, (void)end;
    const ds_tensor *loss = ds_arg_tensor(call, M_LOSS, 0);
    const int64_t *targets = ds_arg_tensor(call, M_TARGETS, 0)->data;
    double sum = 0, count = 0;
    for (int64_t row = 0; row < loss->shape[0]; row++) {
        if (targets[row] == call->scalars[0].i) continue;
        sum += (double)((const float *)loss->data)[row];
        count++;
    }
    *(float *)ds_arg_tensor(call, MEAN, 0)->data = (float)(sum / count);
    *(float *)ds_arg_tensor(call, WEIGHT, 0)->data = (float)(1 / count);
}

DS_KERNEL(ds_cross_entropy, plan, run);
DS_KERNEL(ds_cross_entropy_tile, plan, run_tile);
DS_KERNEL(ds_cross_entropy_finish, finish_plan, run_finish);
DS_KERNEL(ds_cross_entropy_mean, mean_plan, run_mean);
