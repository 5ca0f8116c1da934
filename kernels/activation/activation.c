/* Activation functions with a bias before them, and their gradients, on a CPU.
 *
 * Limit: memory. Forward moves 2 elements an element, backward 3 (dy and x in, dx out). Backward
 * computes the function's slope from x again: that is cheaper than reading it. The
 * functions have 10 to 25 operations an element; 16-bit results leave room for 18 forward on two ports of 16
 * lanes, which is why they have forms of their own.
 */
#include "functions.h"

/* activation(x, bias?; kind) -> y */
static const ds_elementwise FORWARD = {.matrices = 1, .vectors = 1, .outputs = 1};

static void forward_plan(const ds_call *call, ds_plan *out) { ds_plan_elementwise(call, out, FORWARD); }

/* A tile of x becomes its values. */
static void forward_tile(ds_tile *x, int64_t kind) { EACH_OF(v, k, kind, x->v[v] = ds_function_for(x->v[v], k).value) }

static void forward(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    ds_tile x;
    DS_ELEMENTWISE(call, FORWARD, begin, end, at, i, t, streams, {
        ds_load_tile(&x, at.in[0], at.in[1], i, t);
        forward_tile(&x, kind_of(call, t));
        ds_store_tile(at.out[0], i, &x, t, streams);
    });
}

/* activation_backward(dy, x, bias?; kind) -> dx */
static const ds_elementwise BACKWARD = {.matrices = 2, .vectors = 1, .outputs = 1};

static void backward_plan(const ds_call *call, ds_plan *out) { ds_plan_elementwise(call, out, BACKWARD); }

/* A tile of x becomes its slopes. */
static void backward_tile(ds_tile *x, int64_t kind) { EACH_OF(v, k, kind, x->v[v] = ds_function_for(x->v[v], k).slope) }

static void backward(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    ds_tile x;
    DS_ELEMENTWISE(call, BACKWARD, begin, end, at, i, t, streams, {
        ds_load_tile(&x, at.in[1], at.in[2], i, t);
        backward_tile(&x, kind_of(call, t));
        ds_store_product(at.out[0], i, &x, at.in[0], 0, t, streams);
    });
}

DS_KERNEL(ds_activation, forward_plan, forward);
DS_KERNEL(ds_activation_backward, backward_plan, backward);
