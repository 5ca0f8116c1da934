/* Gated activation functions, as swiglu and geglu, and their gradients, on a CPU.
 *
 * Limit: memory. Forward moves 3 elements an element (gate and up in, y out), backward 5 (dy, gate and
 * up in, dgate and dup out).
 */
#include "functions.h"

/* gated_activation(gate, up, gate_bias?, up_bias?; kind) -> y */
static const ds_elementwise FORWARD = {.matrices = 2, .vectors = 2, .outputs = 1};

static void forward_plan(const ds_call *call, ds_plan *out) { ds_plan_elementwise(call, out, FORWARD); }

/* A tile of gate becomes its values. */
static void forward_tile(ds_tile *gate, int64_t kind) {
    EACH_OF(v, k, kind, gate->v[v] = ds_function_for(gate->v[v], k).value)
}

static void forward(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    ds_tile gate;
    DS_ELEMENTWISE(call, FORWARD, begin, end, at, i, t, streams, {
        ds_load_tile(&gate, at.in[0], at.in[2], i, t);
        forward_tile(&gate, kind_of(call, t));
        ds_store_product(at.out[0], i, &gate, at.in[1], at.in[3], t, streams);
    });
}

/* gated_activation_backward(dy, gate, up, gate_bias?, up_bias?; kind) -> (dgate, dup) */
static const ds_elementwise BACKWARD = {.matrices = 3, .vectors = 2, .outputs = 2};

static void backward_plan(const ds_call *call, ds_plan *out) { ds_plan_elementwise(call, out, BACKWARD); }

/* Five tensors are more than a tile has memory do at a time, so this goes pair by pair. Value and slope
 * share an exponential, which those forms that 16 bits have do not. */
DS_INLINE void backward_pair(const ds_block *at, int64_t i, uint32_t t, int streams, int64_t kind) {
    ds_vec2 dy = ds_biased(at->in[0], 0, i, t);
    ds_vec2 gate = ds_biased(at->in[1], at->in[3], i, t), up = ds_biased(at->in[2], at->in[4], i, t);
    ds_function a = {gate.a, gate.a}, b = {gate.b, gate.b};
    DS_WITH_KIND(k, kind, { a = ds_function_of(gate.a, k); b = ds_function_of(gate.b, k); })
    ds_store2(at->out[0], i, (ds_vec2){dy.a * up.a * a.slope, dy.b * up.b * b.slope}, t, streams);
    ds_store2(at->out[1], i, (ds_vec2){dy.a * a.value, dy.b * b.value}, t, streams);
}

static void backward(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    int64_t kind = call->attributes[0].i;
    DS_ELEMENTWISE(call, BACKWARD, begin, end, at, i, t, streams, {
        DS_ASK_EACH_TIME(t, streams);
        for (int64_t stop = i + DS_TILE; i < stop; i += DS_PAIR) backward_pair(&at, i, t, streams, kind);
    });
}

DS_KERNEL(ds_gated_activation, forward_plan, forward);
DS_KERNEL(ds_gated_activation_backward, backward_plan, backward);
