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
DS_ONCE void add_row(ds_softmax *seen, const void *x, int64_t n, uint32_t dtype, int purpose) {
    ds_scores s = {.x = x, .scale = 1};
    ds_softmax_add(seen, &s, n, dtype, purpose);
}

/* What the loss of a row follows from. */
typedef struct {
    ds_softmax seen;
    float target_logit; /* read where there is such a class */
    int64_t target, classes;
} row_sums;

static void finish_row(row_sums r, double log_sum, int64_t ignore_index, double smoothing, float *loss, float *lse) {
    /* Differences to the greatest logit come first: they are small where logits are not. */
    double max = (double)r.seen.max;
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
    double smoothing = call->scalars[LABEL_SMOOTHING].f;
    for (int64_t row = begin; row < end; row++) {
        const void *x = row_of(logits, row);
        row_sums r = {ds_softmax_none(), 0, targets[row], logits->shape[1]};
        if (r.target >= 0 && r.target < r.classes) r.target_logit = element(x, r.target, logits->dtype);
        add_row(&r.seen, x, r.classes, logits->dtype, smoothing != 0 ? DS_FOR_LOSS : DS_FOR_LOGARITHM);
        double log_sum = (double)ds_log((float)r.seen.sum);
        finish_row(r, log_sum, call->scalars[IGNORE_INDEX].i, smoothing, &loss[row], &lse[row]);
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
        else seen = (ds_softmax){state[MAX], state[MAX], (double)state[SUM], (double)state[TOTAL]};
        const void *x = row_of(logits, row);
        add_row(&seen, x, width, logits->dtype, DS_FOR_LOSS);
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

/* The rows from `row` on, one a lane. */
static void finish_rows(const ds_call *call, int64_t row, int64_t n) {
    const ds_tensor *states = ds_arg_tensor(call, STATES, 0);
    const int64_t *targets = ds_arg_tensor(call, F_TARGETS, 0)->data;
    float *loss = ds_arg_tensor(call, F_LOSS, 0)->data, *lse = ds_arg_tensor(call, F_LSE, 0)->data;
    const ds_value *scalars = call->scalars;
    int64_t parts = states->shape[0], rows = states->shape[1];
    const float(*state)[COLUMNS] = (const float(*)[COLUMNS])states->data + row;
    row_sums sums[DS_LANES];
    float of_row[DS_LANES] = {0};
    for (int64_t k = 0; k < n; k++) {
        sums[k] = (row_sums){ds_softmax_none(), 0, targets[row + k], scalars[VOCABULARY].i};
        for (int64_t p = 0; p < parts; p++) {
            float max = state[p * rows + k][MAX];
            sums[k].seen.max = sums[k].seen.max < max ? max : sums[k].seen.max;
        }
    }
    for (int64_t p = 0; p < parts; p++) {
        for (int64_t k = 0; k < n; k++) of_row[k] = state[p * rows + k][MAX] - sums[k].seen.max;
        ds_store(of_row, 0, ds_vexp(ds_load(of_row, 0, DS_F32)), DS_F32);
        for (int64_t k = 0; k < n; k++) {
            const float *part = state[p * rows + k];
            sums[k].seen.sum += (double)part[SUM] * (double)of_row[k];
            sums[k].seen.total += (double)part[TOTAL];
            sums[k].target_logit += part[TARGET_LOGIT];
        }
    }
    for (int64_t k = 0; k < n; k++) of_row[k] = (float)sums[k].seen.sum;
    ds_store(of_row, 0, ds_vlog(ds_load(of_row, 0, DS_F32)), DS_F32);
    for (int64_t k = 0; k < n; k++)
        finish_row(sums[k], (double)of_row[k], scalars[F_IGNORE_INDEX].i, scalars[F_LABEL_SMOOTHING].f, &loss[row + k],
                   &lse[row + k]);
}

static void run_finish(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    for (int64_t row = begin; row < end; row += DS_LANES) finish_rows(call, row, ds_min(DS_LANES, end - row));
}

/* cross_entropy_mean(loss, targets, ignore_index) -> (mean, weight). Phase 0: an item is a row, a chunk of
 * them leaves its share of both sums in the workspace. Phase 1, one item: the shares are added in their
 * order. */
enum { M_LOSS, M_TARGETS, MEAN, WEIGHT };
enum { SUMS = 8 /* of every eighth row: one would wait for itself */ };

typedef struct {
    double loss, count;
} share_of_mean;

static void mean_plan(const ds_call *call, ds_plan *out) {
    int64_t rows = ds_elements(ds_arg_tensor(call, M_LOSS, 0));
    out->phases = 2;
    out->phase[0] = (ds_phase){.items = rows, .grain = CHUNK_ELEMENTS};
    out->phase[1] = (ds_phase){.items = 1, .grain = 1};
    out->workspace_bytes = ds_div_up(rows, CHUNK_ELEMENTS) * (int64_t)sizeof(share_of_mean);
}

static share_of_mean add_losses(const float *loss, const int64_t *targets, int64_t n, int64_t ignore_index) {
    double sums[SUMS] = {0}, counts[SUMS] = {0};
    share_of_mean all = {0, 0};
    int64_t row = 0;
    for (; row + SUMS <= n; row += SUMS)
        for (int k = 0; k < SUMS; k++) {
            int counted = targets[row + k] != ignore_index;
            sums[k] += counted ? (double)loss[row + k] : 0;
            counts[k] += counted;
        }
    for (; row < n; row++)
        if (targets[row] != ignore_index) all.loss += (double)loss[row], all.count++;
    for (int k = 0; k < SUMS; k++) all.loss += sums[k], all.count += counts[k];
    return all;
}

static void run_mean(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const ds_tensor *loss = ds_arg_tensor(call, M_LOSS, 0), *targets = ds_arg_tensor(call, M_TARGETS, 0);
    share_of_mean *shares = call->workspace, all = {0, 0};
    for (int64_t row = begin; phase == 0 && row < end; row += CHUNK_ELEMENTS)
        shares[row / CHUNK_ELEMENTS] = add_losses((const float *)loss->data + row, (const int64_t *)targets->data + row,
                                                  ds_min(CHUNK_ELEMENTS, end - row), call->scalars[0].i);
    if (phase == 0) return;
    for (int64_t i = 0; i < ds_div_up(ds_elements(loss), CHUNK_ELEMENTS); i++)
        all.loss += shares[i].loss, all.count += shares[i].count;
    *(float *)ds_arg_tensor(call, MEAN, 0)->data = (float)(all.loss / all.count);
    *(float *)ds_arg_tensor(call, WEIGHT, 0)->data = (float)(1 / all.count);
}

DS_KERNEL(ds_cross_entropy, plan, run);
DS_KERNEL(ds_cross_entropy_tile, plan, run_tile);
DS_KERNEL(ds_cross_entropy_finish, finish_plan, run_finish);
DS_KERNEL(ds_cross_entropy_mean, mean_plan, run_mean);
