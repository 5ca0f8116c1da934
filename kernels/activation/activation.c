/* Activation functions with a bias before them, and their gradients, on a CPU.
 *
 * Limit: memory. Forward moves 2 elements an element, backward 3 (dy and x in, dx out). Backward
 * computes the function's slope from x again: that is cheaper than reading it. The
 * functions have 20 to 40 operations an element, fewer than memory takes for f32.
 */
#include "functions.h"

/* activation(x, bias?; kind) -> y */
static const ds_elementwise FORWARD = {.matrices = 1, .vectors = 1, .outputs = 1};

DS_INLINE void forward_pair(const ds_block *at, int64_t i, uint32_t t, int streams, int kind) {
    ds_vec2 v = ds_biased(at->in[0], at->in[1], i, t);
    v = (ds_vec2){function_of(v.a, kind).value, function_of(v.b, kind).value};
    ds_store2(at->out[0], i, v, t, streams);
}

static void forward_plan(const ds_call *call, ds_plan *out) { ds_plan_elementwise(call, out, FORWARD); }

static void forward(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    WITH_KIND(kind, call->attributes[0].i,
              DS_ELEMENTWISE(call, FORWARD, begin, end, at, i, t, streams, forward_pair(&at, i, t, streams, kind)))
}

/* activation_backward(dy, x, bias?; kind) -> dx */
static const ds_elementwise BACKWARD = {.matrices = 2, .vectors = 1, .outputs = 1};

DS_INLINE void backward_pair(const ds_block *at, int64_t i, uint32_t t, int streams, int kind) {
    ds_vec2 dy = ds_load2(at->in[0], i, t), v = ds_biased(at->in[1], at->in[2], i, t);
    v = (ds_vec2){dy.a * function_of(v.a, kind).slope, dy.b * function_of(v.b, kind).slope};
    ds_store2(at->out[0], i, v, t, streams);
}

static void backward_plan(const ds_call *call, ds_plan *out) { ds_plan_elementwise(call, out, BACKWARD); }

static void backward(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    WITH_KIND(kind, call->attributes[0].i,
              DS_ELEMENTWISE(call, BACKWARD, begin, end, at, i, t, streams, backward_pair(&at, i, t, streams, kind)))
}

DS_KERNEL(ds_activation, forward_plan, forward);
DS_KERNEL(ds_activation_backward, backward_plan, backward);
