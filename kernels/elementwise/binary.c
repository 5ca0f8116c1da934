/* Arithmetic of two tensors, element by element, on a CPU.
 *
 * Limit: memory. Two elements are read and one is written; of an input that repeats, such as a row, a
 * column or a scalar, the caches hold what comes again. A large result goes past the caches.
 */
#include "elementwise.h"

/* op(a, b; ..) -> y */
enum { INPUTS = 2 };

typedef ds_vec (*lanes)(ds_vec a, ds_vec b, float k);

static void plan(const ds_call *call, ds_plan *out) { plan_inputs(call, INPUTS, out); }

DS_INLINE void through(const span *s, uint32_t t, lanes f) {
    const char *a = s->in[0], *b = s->in[1];
    int64_t a_step = s->step[0] * DS_LANES * ds_size(t), b_step = s->step[1] * DS_LANES * ds_size(t), i = 0;
    for (; i + PAIR <= s->n; i += PAIR, a += 2 * a_step, b += 2 * b_step) {
        ds_vec2 x = ds_load2(a, 0, t), y = ds_load2(b, 0, t);
        ds_store2(s->out, i, (ds_vec2){f(x.a, y.a, s->k[0]), f(x.b, y.b, s->k[0])}, t, s->streams);
    }
    for (; i < s->n; i += DS_LANES, a += a_step, b += b_step) {
        int64_t n = s->n - i;
        ds_store_first(n, s->out, i, f(ds_load_first(n, a, 0, t), ds_load_first(n, b, 0, t), s->k[0]), t);
    }
}

#define BINARY(name, k, ...)                                                                  \
    DS_INLINE ds_vec name##_lanes(ds_vec a, ds_vec b, float alpha) {                          \
        (void)alpha;                                                                          \
        return __VA_ARGS__;                                                                   \
    }                                                                                         \
    FLOAT_SPANS(name, through, name##_lanes)                                                  \
    static void run_##name(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) { \
        (void)phase;                                                                          \
        run_inputs(call, INPUTS, begin, end, name##_of(ds_arg_tensor(call, 0, 0)->dtype), k, 0); \
    }                                                                                         \
    DS_KERNEL(ds_##name, plan, run_##name)

BINARY(add, 0, a + b);
BINARY(sub, 0, a - b);
BINARY(mul, 0, a * b);
BINARY(div, 0, a / b);
/* ds_vmax and ds_vmin give `b` where one of the two is a NaN. */
BINARY(maximum, 0, ds_vselect(a != a, a, ds_vmax(a, b)));
BINARY(minimum, 0, ds_vselect(a != a, a, ds_vmin(a, b)));
BINARY(add_scaled, (float)call->scalars[0].f, ds_vfma(ds_splat(alpha), b, a));
