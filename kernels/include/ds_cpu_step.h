/* One step of an optimizer over lists of tensors, in place: the loop that they share. An optimizer is
 * a rule for one vector of a parameter, its gradient and up to two states.
 *
 * The arguments of the op begin with params, grads and the lists of states; the flag that skips the
 * step follows them. Parameters and gradients are of one dtype, states of one.
 */
#ifndef DS_CPU_STEP_H
#define DS_CPU_STEP_H

#include "ds_cpu_list.h"
#include "ds_cpu_mixed.h"

enum { DS_PARAMS, DS_GRADS, DS_FIRST, DS_SECOND };
enum { DS_STEP_AHEAD_BYTES = 1024, DS_STEP_PAIR = 2 * DS_LANES };

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

/* Pairs of one dtype in the order that is its own, of two in memory's. */
DS_INLINE ds_vec2 ds_step_load(const void *data, int64_t i, uint32_t t, int in_order) {
    return in_order ? ds_load2_in_order(data, i, t) : ds_load2(data, i, t);
}

DS_INLINE void ds_step_store(void *data, int64_t i, ds_vec2 v, uint32_t t, int in_order) {
    if (!in_order) {
        ds_store2(data, i, v, t, 0);
    } else if (t == DS_F16) { /* each on its own way needs no step that joins them */
        ds_store(data, i, v.a, t);
        ds_store(data, i + DS_LANES, v.b, t);
    } else {
        ds_store2_in_order(data, i, v, t, 1, 0);
    }
}

/* A pair of vectors at element `i`, with params and grads of dtype `p` and states of `m`. */
DS_INLINE void ds_update2(ds_optimizer o, const void *k, ds_arrays at, int64_t i, uint32_t p, uint32_t m) {
    int in_order = p != m;
    ds_vec2 param = ds_step_load(at.param, i, p, in_order), grad = ds_step_load(at.grad, i, p, in_order);
    ds_vec2 first = {{0}, {0}}, second = {{0}, {0}};
    if (o.states > 0) first = ds_step_load(at.first, i, m, in_order);
    if (o.states > 1) second = ds_step_load(at.second, i, m, in_order);
    ds_lanes a = o.rule(k, (ds_lanes){param.a, grad.a, first.a, second.a});
    ds_lanes b = o.rule(k, (ds_lanes){param.b, grad.b, first.b, second.b});
    ds_step_store(at.param, i, (ds_vec2){a.param, b.param}, p, in_order);
    if (o.states > 0) ds_step_store(at.first, i, (ds_vec2){a.first, b.first}, m, in_order);
    if (o.states > 1) ds_step_store(at.second, i, (ds_vec2){a.second, b.second}, m, in_order);
}

/* The end of a tensor, less than a pair, with room around it: so a loop has one body. */
typedef struct ds_step_rest {
    uint32_t param[DS_STEP_PAIR], grad[DS_STEP_PAIR], first[DS_STEP_PAIR], second[DS_STEP_PAIR];
} ds_step_rest;

static __attribute__((noinline)) ds_arrays ds_step_rest_of(ds_step_rest *rest, ds_arrays at, int64_t i, int64_t n,
                                                           uint32_t p, uint32_t m) {
    ds_arrays copy = {rest->param, rest->grad, rest->first, rest->second};
    __builtin_memset(rest, 0, sizeof *rest);
    __builtin_memcpy(rest->param, ds_at(at.param, i, p), (size_t)(n * ds_size(p)));
    __builtin_memcpy(rest->grad, ds_at(at.grad, i, p), (size_t)(n * ds_size(p)));
    if (at.first) __builtin_memcpy(rest->first, ds_at(at.first, i, m), (size_t)(n * ds_size(m)));
    if (at.second) __builtin_memcpy(rest->second, ds_at(at.second, i, m), (size_t)(n * ds_size(m)));
    return copy;
}

static __attribute__((noinline)) void ds_step_rest_back(const ds_step_rest *rest, ds_arrays at, int64_t i, int64_t n,
                                                        uint32_t p, uint32_t m) {
    __builtin_memcpy(ds_at(at.param, i, p), rest->param, (size_t)(n * ds_size(p)));
    if (at.first) __builtin_memcpy(ds_at(at.first, i, m), rest->first, (size_t)(n * ds_size(m)));
    if (at.second) __builtin_memcpy(ds_at(at.second, i, m), rest->second, (size_t)(n * ds_size(m)));
}

/* Asks for the pair that lies `ahead` bytes behind element `i`. */
DS_INLINE void ds_step_prefetch(ds_optimizer o, ds_arrays at, int64_t i, int64_t ahead, uint32_t p, uint32_t m) {
    int64_t of_params = i + ahead / ds_size(p), of_states = i + ahead / ds_size(m);
    ds_prefetch2(at.param, of_params, p, 1);
    ds_prefetch2(at.grad, of_params, p, 1);
    if (o.states > 0) ds_prefetch2(at.first, of_states, m, 1);
    if (o.states > 1) ds_prefetch2(at.second, of_states, m, 1);
}

/* Elements from `i` to `end`. What comes next, `ahead` bytes on in `soon`, is fetched: the processor
 * alone does not fetch enough for so many arrays and a loop this long. */
DS_INLINE void ds_step_part(ds_optimizer o, const void *k, ds_arrays at, ds_arrays soon, int64_t i, int64_t ahead,
                            int64_t end, uint32_t p, uint32_t m) {
    for (; i < end; i += DS_STEP_PAIR) {
        int64_t n = end - i, j = i;
        ds_arrays here = at;
        ds_step_rest rest;
        if (n < DS_STEP_PAIR) {
            here = ds_step_rest_of(&rest, at, i, n, p, m);
            j = 0;
        }
        ds_step_prefetch(o, soon, i, ahead, p, m);
        ds_update2(o, k, here, j, p, m);
        if (n < DS_STEP_PAIR) ds_step_rest_back(&rest, at, i, n, p, m);
    }
}

/* The blocks from `begin` to `end`. */
DS_INLINE void ds_step(const ds_call *call, int64_t begin, int64_t end, ds_optimizer o, const void *k, uint32_t p,
                       uint32_t m) {
    DS_LIST_BLOCKS(call, DS_PARAMS, block, begin, end) {
        ds_arrays at = {.param = ds_arg_tensor(call, DS_PARAMS, block.tensor)->data,
                        .grad = ds_arg_tensor(call, DS_GRADS, block.tensor)->data};
        if (o.states > 0) at.first = ds_arg_tensor(call, DS_FIRST, block.tensor)->data;
        if (o.states > 1) at.second = ds_arg_tensor(call, DS_SECOND, block.tensor)->data;
        ds_step_part(o, k, at, at, block.begin, DS_STEP_AHEAD_BYTES, block.end, p, m);
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
