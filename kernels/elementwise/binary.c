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

DS_INLINE void through(const span *s, lanes f) {
    const char *a = s->in[0], *b = s->in[1];
    uint32_t t = s->t;
    int streams = s->streams;
    int64_t a_step = s->step[0] * DS_LANES * ds_size(t), b_step = s->step[1] * DS_LANES * ds_size(t);
    for (int64_t i = 0; i < s->n; i += PAIR, a += 2 * a_step, b += 2 * b_step) {
        DS_ASK_EACH_TIME(t, streams);
        ds_prefetch2(a, AHEAD, t, 1), ds_prefetch2(b, AHEAD, t, 1);
        ds_vec2 x = ds_load2(a, 0, t), y = ds_load2(b, 0, t);
        ds_store2(s->out, i, (ds_vec2){f(x.a, y.a, s->k[0]), f(x.b, y.b, s->k[0])}, t, streams);
    }
}

#define BINARY(name, k, ...)                                                                  \
    DS_INLINE ds_vec name##_lanes(ds_vec a, ds_vec b, float alpha) {                          \
        (void)alpha;                                                                          \
        return __VA_ARGS__;                                                                   \
    }                                                                                         \
    static void name##_span(const span *s) { through(s, name##_lanes); }                      \
    static void run_##name(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) { \
        (void)phase;                                                                          \
        run_inputs(call, INPUTS, begin, end, name##_span, k, 0);                              \
    }                                                                                         \
    DS_KERNEL(ds_##name, plan, run_##name)

BINARY(add, 0, a + b);
BINARY(sub, 0, a - b);
BINARY(mul, 0, a * b);
BINARY(div, 0, a / b);
BINARY(maximum, 0, ds_vmaximum(a, b));
BINARY(minimum, 0, ds_vminimum(a, b));
BINARY(add_scaled, (float)call->scalars[0].f, ds_vfma(ds_splat(alpha), b, a));
