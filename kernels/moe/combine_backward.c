/* The gradients of rows that were summed with weights, on a CPU.
 *
 * Limit: memory. Reads a token's gradient and the rows of its slots, and writes each row of dy once.
 */
#include "moe.h"

/* moe_combine_backward(dx, y, weights, slots, normalize) -> dy, dweights. */
enum { B_DX, B_Y, B_WEIGHTS, B_SLOTS, B_DY, B_DWEIGHTS };

static void backward_plan(const ds_call *call, ds_plan *out) {
    moe_plan_owners(out, ds_arg_tensor(call, B_DY, 0), ds_arg_tensor(call, B_DX, 0));
}

/* dy = weight * dx, where the place has the row; gives the product of dx and y. */
DS_INLINE double backward_row(char *dy, const char *dx, const char *y, const char *next, float weight, int64_t d,
                              uint32_t t, int streams) {
    ds_vec w = ds_splat(weight);
    double product = 0;
    int64_t i = 0;
    while (i + DS_PAIR <= d) {
        ds_vec2 sum = {{0}, {0}};
        for (int64_t end = ds_min(i + DS_BLOCK, d); i + DS_PAIR <= end; i += DS_PAIR) {
            ds_vec2 a = ds_load2(dx, i, t), b = ds_load2(y, i, t);
            ds_prefetch2(next, i, t, t == DS_F32 ? 2 : 1);
            sum = (ds_vec2){ds_vfma(a.a, b.a, sum.a), ds_vfma(a.b, b.b, sum.b)};
            if (dy) ds_store2(dy, i, (ds_vec2){a.a * w, a.b * w}, t, streams);
        }
        product += ds_vsum(sum.a + sum.b);
    }
    for (; i < d; i += DS_LANES) {
        ds_vec a = ds_load_first(d - i, dx, i, t);
        product += ds_vsum(a * ds_load_first(d - i, y, i, t));
        if (dy) ds_store_first(d - i, dy, i, a * w, t);
    }
    return product;
}

DS_INLINE void backward_tokens(const ds_call *call, int64_t begin, int64_t end, int large, uint32_t t) {
    const ds_tensor *dx = ds_arg_tensor(call, B_DX, 0), *y = ds_arg_tensor(call, B_Y, 0);
    const ds_tensor *dy = ds_arg_tensor(call, B_DY, 0);
    const int32_t *slots = ds_arg_tensor(call, B_SLOTS, 0)->data;
    const float *given = ds_arg_tensor(call, B_WEIGHTS, 0)->data;
    float *dweights = ds_arg_tensor(call, B_DWEIGHTS, 0)->data;
    int64_t places = ds_arg_tensor(call, B_SLOTS, 0)->shape[1], d = ds_row_length(dx);
    int64_t last = dx->shape[0] * places - 1;
    const int64_t *owners = call->workspace;
    int normalize = call->scalars[0].i != 0;
    float weights[MOE_MOST_PLACES];
    double products[MOE_MOST_PLACES];
    for (int64_t token = begin; token < end; token++) {
        int64_t first = token * places;
        const char *from = moe_row(dx, token);
        float by = weights_of(weights, given + first, places, normalize);
        double shared = 0;
        for (int64_t k = 0; k < places; k++) {
            int64_t i = first + k;
            const char *row = moe_row(y, slots[i]), *next = moe_row(y, slots[ds_min(i + 1, last)]);
            products[k] = 0;
            if (!row) continue;
            char *to = owners[slots[i]] == i + 1 ? moe_row(dy, slots[i]) : 0;
            products[k] = backward_row(to, from, row, next ? next : row, weights[k], d, t, large && ds_aligned(to));
            shared += products[k] * (double)weights[k];
        }
        for (int64_t k = 0; k < places; k++)
            dweights[first + k] = (float)(by > 0 ? (products[k] - shared) / (double)by : products[k]);
    }
}

static void backward_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const ds_tensor *dy = ds_arg_tensor(call, B_DY, 0);
    int large = ds_streams(ds_elements(dy), dy->dtype);
    if (phase == 0) return moe_find_owners(call, dy, ds_arg_tensor(call, B_SLOTS, 0));
    if (phase == 1) moe_clear_rows(call, dy, begin, end, large);
    else DS_WITH_FLOAT(t, dy->dtype, backward_tokens(call, begin, end, large, t));
    if (large) ds_fence();
}

DS_KERNEL(ds_moe_combine_backward, backward_plan, backward_run);
