/* One step of an optimizer over lists of tensors, in place: the loop that they share. An optimizer is
 * a rule for one vector of a parameter, its gradient and up to two states.
 *
 * The arguments of the op begin with params, grads and the lists of states; the flag that skips the
 * step follows them. Parameters and gradients are of one dtype, states of one.
 */
#ifndef DS_CPU_STEP_H
#define DS_CPU_STEP_H

#include "ds_cpu_list.h"

enum { DS_PARAMS, DS_GRADS, DS_FIRST, DS_SECOND };
enum { DS_STEP_AHEAD_BYTES = 1024 };

/* One vector of each; a rule updates what the optimizer has. */
typedef struct ds_lanes {
    ds_vec param, grad, first, second;
} ds_lanes;

typedef ds_lanes (*ds_rule)(const void *constants, ds_lanes v);

/* What a step is made of; a constant of every call, so that it becomes a loop of its own. */
typedef struct ds_optimizer {
    ds_rule rule;
    int states; /* 0 to 2 */
} ds_optimizer;

typedef struct ds_arrays {
    void *param;
    const void *grad;
    void *first, *second;
} ds_arrays;

/* The first `n` lanes at element `i`, with params and grads of dtype `p` and states of `m`. */
DS_INLINE void ds_update(ds_optimizer o, const void *k, ds_arrays at, int64_t i, int64_t n, uint32_t p, uint32_t m) {
    ds_lanes v = {.param = ds_load_first(n, at.param, i, p), .grad = ds_load_first(n, at.grad, i, p)};
    if (o.states > 0) v.first = ds_load_first(n, at.first, i, m);
    if (o.states > 1) v.second = ds_load_first(n, at.second, i, m);
    v = o.rule(k, v);
    ds_store_first(n, at.param, i, v.param, p);
    if (o.states > 0) ds_store_first(n, at.first, i, v.first, m);
    if (o.states > 1) ds_store_first(n, at.second, i, v.second, m);
}

/* A pair of vectors at element `i`; all arrays of one dtype, or the orders would differ. */
DS_INLINE void ds_update2(ds_optimizer o, const void *k, ds_arrays at, int64_t i, uint32_t t) {
    ds_vec2 param = ds_load2(at.param, i, t), grad = ds_load2(at.grad, i, t);
    ds_vec2 first = {{0}, {0}}, second = {{0}, {0}};
    if (o.states > 0) first = ds_load2(at.first, i, t);
    if (o.states > 1) second = ds_load2(at.second, i, t);
    ds_lanes a = o.rule(k, (ds_lanes){param.a, grad.a, first.a, second.a});
    ds_lanes b = o.rule(k, (ds_lanes){param.b, grad.b, first.b, second.b});
    ds_store2(at.param, i, (ds_vec2){a.param, b.param}, t, 0);
    if (o.states > 0) ds_store2(at.first, i, (ds_vec2){a.first, b.first}, t, 0);
    if (o.states > 1) ds_store2(at.second, i, (ds_vec2){a.second, b.second}, t, 0);
}

/* What the processor fetches ahead by itself is not enough for so many arrays and a loop this long. */
DS_INLINE void ds_step_prefetch(ds_optimizer o, ds_arrays at, int64_t i, uint32_t p, uint32_t m) {
    int64_t of_params = i + DS_STEP_AHEAD_BYTES / ds_size(p), of_states = i + DS_STEP_AHEAD_BYTES / ds_size(m);
    ds_prefetch2(at.param, of_params, p, 1);
    ds_prefetch2(at.grad, of_params, p, 1);
    if (o.states > 0) ds_prefetch2(at.first, of_states, m, 1);
    if (o.states > 1) ds_prefetch2(at.second, of_states, m, 1);
}

/* The blocks from `begin` to `end`. */
DS_INLINE void ds_step(const ds_call *call, int64_t begin, int64_t end, ds_optimizer o, const void *k, uint32_t p,
                       uint32_t m) {
    DS_LIST_BLOCKS(call, DS_PARAMS, block, begin, end) {
        ds_arrays at = {.param = ds_arg_tensor(call, DS_PARAMS, block.tensor)->data,
                        .grad = ds_arg_tensor(call, DS_GRADS, block.tensor)->data};
        if (o.states > 0) at.first = ds_arg_tensor(call, DS_FIRST, block.tensor)->data;
        if (o.states > 1) at.second = ds_arg_tensor(call, DS_SECOND, block.tensor)->data;
        int64_t i = block.begin;
        for (; i + 2 * DS_LANES <= block.end; i += 2 * DS_LANES) {
            ds_step_prefetch(o, at, i, p, m);
            if (p == m) {
                ds_update2(o, k, at, i, p);
            } else {
                ds_update(o, k, at, i, DS_LANES, p, m);
                ds_update(o, k, at, i + DS_LANES, DS_LANES, p, m);
            }
        }
        for (; i < block.end; i += DS_LANES) ds_update(o, k, at, i, block.end - i, p, m);
    }
}

/* `DS_WITH_PAIR(p, m, call, statement)`: the statement with the dtypes of params and of the first
 * states as constants, for the five pairs that optimizers take. */
#define DS_WITH_PAIR(p, m, call, statement)                                               \
    DS_WITH_DTYPES(p, ds_arg_tensor(call, DS_PARAMS, 0)->dtype, m,                        \
                   ds_arg_tensor(call, DS_FIRST, 0)->dtype, statement)
#define DS_WITH_DTYPES(p, of_params, m, of_states, statement)                             \
    do {                                                                                  \
        switch (DS_PAIR(of_params, of_states)) {                                          \
        case DS_PAIR(DS_F32, DS_F32): DS_WITH2(p, DS_F32, m, DS_F32, statement)           \
        case DS_PAIR(DS_BF16, DS_F32): DS_WITH2(p, DS_BF16, m, DS_F32, statement)         \
        case DS_PAIR(DS_BF16, DS_BF16): DS_WITH2(p, DS_BF16, m, DS_BF16, statement)       \
        case DS_PAIR(DS_F16, DS_F32): DS_WITH2(p, DS_F16, m, DS_F32, statement)           \
        case DS_PAIR(DS_F16, DS_F16): DS_WITH2(p, DS_F16, m, DS_F16, statement)           \
        }                                                                                 \
    } while (0)
#define DS_PAIR(p, m) ((p) * 16 + (m))
#define DS_WITH2(p, first, m, second, statement) \
    {                                            \
        enum { p = first, m = second };          \
        statement;                               \
    }                                            \
    break;

#endif
