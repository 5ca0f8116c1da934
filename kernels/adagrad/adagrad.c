/* One step of Adagrad over a list of parameters, in place, on a CPU.
 *
 * Limit: memory. Every element of params and of the sum is read and written, of grads read: with all
 * in f32 20 bytes an element, bf16 with f32 sums 14, all bf16 10.
 */
#include "adagrad.h"

/* adagrad_step(params, grads, exp_avg_sq, found_inf?; lr, eps, weight_decay). */
enum { FOUND_INF = 3 };

static void plan(const ds_call *call, ds_plan *out) { ds_list_plan(call, DS_PARAMS, out); }

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const ds_optimizer adagrad = {updated, 1};
    if (phase == 0) {
        ds_list_count(call, DS_PARAMS);
    } else if (!ds_list_skips(call, FOUND_INF)) {
        const constants k = constants_of(call);
        DS_WITH_PAIR(p, m, call, ds_step(call, begin, end, adagrad, &k, p, m));
    }
}

DS_KERNEL(ds_adagrad_step, plan, run);
