/* One step of Adam or AdamW over a list of parameters, in place, on a CPU.
 *
 * Limit: memory. Every element of params and both moments is read and written, of grads read: with
 * all in f32 28 bytes an element, bf16 with f32 moments 22, all bf16 14. The dozen flops, a square
 * root and a division hide behind that.
 */
#include "adam.h"

DS_INLINE ds_lanes updated(const void *of_call, ds_lanes v) {
    const constants *k = of_call;
    if (k->decay == L2) v.grad = ds_vfma(ds_splat(k->l2), v.param, v.grad);
    v.first = ds_vfma(v.grad, ds_splat(k->one_minus_beta1), v.first * k->beta1);
    v.second = ds_vfma(v.grad * v.grad, ds_splat(k->one_minus_beta2), v.second * k->beta2);
    ds_vec root = ds_vfma(ds_vsqrt(v.second), ds_splat(k->inverse_root), ds_splat(k->eps));
    if (k->decay == DECOUPLED) v.param = ds_vfma(ds_splat(k->decoupled), v.param, v.param);
    v.param = ds_vfma(ds_vdiv(v.first, root), ds_splat(k->step_size), v.param);
    return v;
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const ds_optimizer adam = {updated, 2};
    if (phase == 0) {
        ds_list_count(call, DS_PARAMS);
    } else if (!ds_list_skips(call, FOUND_INF)) {
        const constants k = constants_of(call);
        DS_WITH_PAIR(p, m, call, ds_step(call, begin, end, adam, &k, p, m));
    }
}

DS_KERNEL(ds_adam_step, plan, run);
