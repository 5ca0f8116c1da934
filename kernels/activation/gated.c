/* Gated activation functions, as swiglu and geglu, and their gradients, on a CPU.
 *
 * Limit: memory. Forward moves 3 elements an element (gate and up in, y out), backward 5 (dy, gate and
 * up in, dgate and dup out).
 */
#include "functions.h"

/* gated_activation(gate, up, gate_bias?, up_bias?; kind) -> y */
static const ds_elementwise FORWARD = {.matrices = 2, .vectors = 2, .outputs = 1};

DS_INLINE void forward_pair(const ds_block *at, int64_t i, uint32_t t, int streams, int kind) {
    ds_vec2 gate = ds_biased(at->in[0], at->in[2], i, t), up = ds_biased(at->in[1], at->in[3], i, t);
    ds_vec2 y = {function_of(gate.a, kind).value * up.a, function_of(gate.b, kind).value * up.b};
    ds_store2(at->out[0], i, y, t, streams);
}

static void forward_plan(const ds_call *call, ds_plan *out) { ds_plan_elementwise(call, out, FORWARD); }

static void forward(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    WITH_KIND(kind, call->attributes[0].i,
              DS_ELEMENTWISE(call, FORWARD, begin, end, at, i, t, streams, forward_pair(&at, i, t, streams, kind)))
}

/* gated_activation_backward(dy, gate, up, gate_bias?, up_bias?; kind) -> (dgate, dup) */
static const ds_elementwise BACKWARD = {.matrices = 3, .vectors = 2, .outputs = 2};

DS_INLINE void backward_pair(const ds_block *at, int64_t i, uint32_t t, int streams, int kind) {
    ds_vec2 dy = ds_load2(at->in[0], i, t);
    ds_vec2 gate = ds_biased(at->in[1], at->in[3], i, t), up = ds_biased(at->in[2], at->in[4], i, t);
    function a = function_of(gate.a, kind), b = function_of(gate.b, kind);
    ds_store2(at->out[0], i, (ds_vec2){dy.a * up.a * a.slope, dy.b * up.b * b.slope}, t, streams);
    ds_store2(at->out[1], i, (ds_vec2){dy.a * a.value, dy.b * b.value}, t, streams);
}

static void backward_plan(const ds_call *call, ds_plan *out) { ds_plan_elementwise(call, out, BACKWARD); }

static void backward(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    WITH_KIND(kind, call->attributes[0].i,
              DS_ELEMENTWISE(call, BACKWARD, begin, end, at, i, t, streams, backward_pair(&at, i, t, streams, kind)))
}

DS_KERNEL(ds_gated_activation, forward_plan, forward);
DS_KERNEL(ds_gated_activation_backward, backward_plan, backward);
