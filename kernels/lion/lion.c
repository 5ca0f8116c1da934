/* One step of Lion over a list of parameters, in place, on a CPU.
 *
 * Limit: memory. Every element of params and of the moment is read and written, of grads read: with
 * all in f32 20 bytes an element, bf16 with f32 moments 14, all bf16 10.
 */
#include "ds_cpu_math.h"
#include "ds_cpu_step.h"

/* lion_step(params, grads, exp_avg, found_inf?; lr, beta1, beta2, weight_decay). */
enum { FOUND_INF = 3 };
enum { LR, BETA1, BETA2, WEIGHT_DECAY };

static void plan(const ds_call *call, ds_plan *out) { ds_list_plan(call, DS_PARAMS, out); }

typedef struct constants {
    float beta1, beta2, one_minus_beta1, one_minus_beta2;
    float lr;
    float kept; /* 1 - lr * weight decay, of the parameter */
} constants;

static constants constants_of(const ds_call *call) {
    const ds_value *s = call->scalars;
    return (constants){
        .beta1 = (float)s[BETA1].f,
        .beta2 = (float)s[BETA2].f,
        .one_minus_beta1 = (float)(1 - s[BETA1].f),
        .one_minus_beta2 = (float)(1 - s[BETA2].f),
        .lr = (float)s[LR].f,
        .kept = (float)(1 - s[LR].f * s[WEIGHT_DECAY].f),
    };
}

/* Products are rounded before they are added, on every processor alike: a sign that hangs on the last
 * bit is the one that the schema defines. */
DS_INLINE ds_lanes updated(const void *of_call, ds_lanes v) {
    const constants *k = of_call;
    ds_vec direction = v.first * k->beta1 + v.grad * k->one_minus_beta1;
    ds_vec update = ds_vcopysign(ds_splat(k->lr), direction);
    /* The sign bit of a NaN means nothing: the parameter shows it. */
    update = ds_vselect(direction == direction, update, direction);
    v.param = v.param * k->kept - update;
    v.first = v.first * k->beta2 + v.grad * k->one_minus_beta2;
    return v;
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const ds_optimizer lion = {updated, 1};
    if (phase == 0) {
        ds_list_count(call, DS_PARAMS);
    } else if (!ds_list_skips(call, FOUND_INF)) {
        const constants k = constants_of(call);
        DS_WITH_PAIR(p, m, call, ds_step(call, begin, end, lion, &k, p, m));
    }
}

DS_KERNEL(ds_lion_step, plan, run);
