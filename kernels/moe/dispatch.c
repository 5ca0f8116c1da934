/* Slots of tokens, and their rows put there, on a CPU.
 *
 * Limit: memory. moe_dispatch reads a token's row once, whatever its slots are, and writes each row of y
 * once. moe_slots moves a few bytes for each place of a token.
 */
#include "moe.h"

/* moe_slots(assignments, offsets, expert_counts) -> slots, ends. Phase 0, one item: where experts end.
 * Phase 1: an item is a place of a token. */
enum { ASSIGNMENTS, OFFSETS, COUNTS, SLOTS, ENDS };

static void plan_slots(const ds_call *call, ds_plan *out) {
    out->phases = 2;
    out->phase[0].items = out->phase[0].grain = 1;
    out->phase[1].items = ds_elements(ds_arg_tensor(call, SLOTS, 0));
    out->phase[1].grain = DS_CHUNK_ELEMENTS;
}

static void run_slots(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const ds_tensor *counts = ds_arg_tensor(call, COUNTS, 0);
    int64_t *ends = ds_arg_tensor(call, ENDS, 0)->data;
    int64_t experts = counts->shape[0], capacity = call->scalars[0].i, last = 0;
    if (phase == 0) {
        for (int64_t e = 0; e < experts; e++)
            ends[e] = last += capacity < 0 ? ds_max(0, ds_index_at(counts, e)) : capacity;
        return;
    }
    const int32_t *expert = ds_arg_tensor(call, ASSIGNMENTS, 0)->data, *offset = ds_arg_tensor(call, OFFSETS, 0)->data;
    int32_t *slots = ds_arg_tensor(call, SLOTS, 0)->data;
    for (int64_t i = begin; i < end; i++) {
        slots[i] = -1;
        if (expert[i] < 0 || expert[i] >= experts || offset[i] < 0) continue;
        int64_t slot = (expert[i] ? ends[expert[i] - 1] : 0) + offset[i];
        if (slot < ends[expert[i]] && slot <= INT32_MAX) slots[i] = (int32_t)slot;
    }
}

DS_KERNEL(ds_moe_slots, plan_slots, run_slots);

/* moe_dispatch(x, slots, y). */
enum { D_X, D_SLOTS, D_Y };

static void plan_dispatch(const ds_call *call, ds_plan *out) {
    moe_plan_owners(out, ds_arg_tensor(call, D_Y, 0), ds_arg_tensor(call, D_X, 0));
}

static void run_dispatch(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const ds_tensor *x = ds_arg_tensor(call, D_X, 0), *y = ds_arg_tensor(call, D_Y, 0);
    const ds_tensor *slots = ds_arg_tensor(call, D_SLOTS, 0);
    int large = ds_streams(ds_elements(y), y->dtype);
    if (phase == 0) return moe_find_owners(call, y, slots);
    if (phase == 1) {
        moe_clear_rows(call, y, begin, end, large);
    } else {
        const int64_t *owners = call->workspace;
        int64_t places = slots->shape[1], bytes = ds_row_length(x) * ds_size(x->dtype);
        for (int64_t token = begin; token < end; token++) {
            const char *from = moe_row(x, token), *next = moe_row(x, ds_min(token + 1, end - 1));
            for (int64_t i = token * places; i < (token + 1) * places; i++) {
                int64_t slot = ((const int32_t *)slots->data)[i];
                char *to = moe_row(y, slot);
                if (to && owners[slot] == i + 1) ds_copy_bytes(to, from, next, bytes, large);
            }
        }
    }
    if (large) ds_fence();
}

DS_KERNEL(ds_moe_dispatch, plan_dispatch, run_dispatch);
