/* The sums of a residual connection, and the gradient of a bias, on a CPU.
 *
 * Limit: memory. residual_add moves 3 elements an element, 4 with attention; bias_backward reads each
 * element once.
 */
#include "ds_cpu_elementwise.h"

/* residual_add(x, residual, attention?, bias?, attention_bias?; residual_scale, attention_scale) -> y */
enum { X, RESIDUAL, ATTENTION, BIAS, ATTENTION_BIAS };
static const ds_elementwise RESIDUAL_ADD = {.matrices = 3, .vectors = 2, .outputs = 1};

DS_INLINE void residual_pair(const ds_block *at, int64_t i, uint32_t t, int streams, ds_vec residual_scale,
                             ds_vec attention_scale) {
    ds_vec2 v = ds_biased(at->in[X], 0, i, t), r = ds_biased(at->in[RESIDUAL], at->in[BIAS], i, t);
    if (at->in[ATTENTION_BIAS]) r = ds_add_pair(r, ds_load2(at->in[ATTENTION_BIAS], i, t));
    v = (ds_vec2){ds_vfma(r.a, residual_scale, v.a), ds_vfma(r.b, residual_scale, v.b)};
    if (at->in[ATTENTION]) {
        ds_vec2 a = ds_biased(at->in[ATTENTION], 0, i, t);
        v = (ds_vec2){ds_vfma(a.a, attention_scale, v.a), ds_vfma(a.b, attention_scale, v.b)};
    }
    ds_store2(at->out[0], i, v, t, streams);
}

static void residual_plan(const ds_call *call, ds_plan *out) { ds_plan_elementwise(call, out, RESIDUAL_ADD); }

static void residual_add(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    ds_vec residual_scale = ds_splat((float)call->scalars[0].f), attention_scale = ds_splat((float)call->scalars[1].f);
    DS_ELEMENTWISE(call, RESIDUAL_ADD, begin, end, at, i, t, streams, {
        for (int64_t stop = i + DS_TILE; i < stop; i += DS_PAIR) {
            DS_ASK_EACH_TIME(t, streams);
            residual_pair(&at, i, t, streams, residual_scale, attention_scale);
        }
    });
}

/* bias_backward(dy) -> dbias */
enum { SUMS = 1 };

static void bias_plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *dy = ds_arg_tensor(call, 0, 0);
    ds_plan_shares(out, ds_rows(dy), ds_row_length(dy), SUMS);
}

DS_INLINE void bias_backward(const ds_call *call, uint32_t phase, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *dy = ds_arg_tensor(call, 0, 0);
    int64_t rows = ds_rows(dy), d = ds_row_length(dy);
    if (phase == 1) {
        ds_sum_shares(call, rows, d, SUMS, 0, ds_arg_tensor(call, 1, 0)->data, begin, end, t);
        return;
    }
    for (int64_t row = begin; row < end; row++) {
        const void *from = ds_at(dy->data, ds_row_offset(dy, row), t);
        float *share = ds_share(call, row, rows, d, SUMS);
        int64_t i = 0;
        for (; i + DS_PAIR <= d; i += DS_PAIR) {
            ds_fetch_row(from, i, t);
            ds_add2(share, i, ds_load2(from, i, t));
        }
        for (; i < d; i += DS_LANES) ds_add_first(d - i, share, i, ds_load_first(d - i, from, i, t));
    }
}

static void run_bias_backward(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    DS_WITH_FLOAT(t, ds_arg_tensor(call, 0, 0)->dtype, bias_backward(call, phase, begin, end, t));
}

DS_KERNEL(ds_residual_add, residual_plan, residual_add);
DS_KERNEL(ds_bias_backward, bias_plan, run_bias_backward);
