/* Elements of one tensor or another one, as a tensor of booleans says, on a CPU.
 *
 * Limit: memory. A byte and an element of each tensor are read, one is written. Nothing is computed,
 * so the dtype is its size.
 */
#include "elementwise.h"

/* select(condition, a, b) -> y; masked_fill(x, mask; value) -> y */
enum { CONDITION, A, B };
enum { X, MASK };

/* Vectors of a size's elements, and of as many booleans. */
#define SELECT(type, bytes)                                                                                    \
    typedef type vec_##bytes __attribute__((vector_size(sizeof(ds_vec))));                                     \
    typedef uint8_t mask_##bytes __attribute__((vector_size(sizeof(ds_vec) / bytes)));                         \
    static void select_##bytes(const span *s) {                                                                \
        enum { N = sizeof(ds_vec) / bytes };                                                                   \
        const uint8_t *c = s->in[CONDITION];                                                                   \
        const type *a = s->in[A], *b = s->in[B];                                                               \
        type *y = s->out;                                                                                      \
        for (int64_t i = 0; i < s->n; i += N, c += s->step[0] * N, a += s->step[1] * N, b += s->step[2] * N) { \
            mask_##bytes mask;                                                                                 \
            vec_##bytes x, z;                                                                                  \
            __builtin_memcpy(&mask, c, sizeof mask);                                                           \
            __builtin_memcpy(&x, a, sizeof x);                                                                 \
            __builtin_memcpy(&z, b, sizeof z);                                                                 \
            vec_##bytes chosen = (vec_##bytes)(__builtin_convertvector(mask, vec_##bytes) != 0);               \
            ds_put(y + i, (ds_vec_u32)((chosen & x) | (~chosen & z)), s->streams);                             \
        }                                                                                                      \
    }

SELECT(uint16_t, 2)
SELECT(uint32_t, 4)
SELECT(uint64_t, 8)

static span_fn select_of(int64_t bytes) { return bytes == 2 ? select_2 : bytes == 4 ? select_4 : select_8; }

static void plan_select(const ds_call *call, ds_plan *out) { plan_inputs(call, 3, out); }

static void run_select(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    run_inputs(call, 3, begin, end, select_of(ds_size(ds_arg_tensor(call, A, 0)->dtype)), 0, 0);
}

DS_KERNEL(ds_select, plan_select, run_select);

/* The same with a value of the call's in place of `a`. */
static void fill(const span *s) {
    _Alignas(64) char value[REPEATED_BYTES];
    for (int64_t i = 0; i < REPEATED_BYTES / ds_size(s->t); i += DS_LANES) ds_store(value, i, ds_splat(s->k[0]), s->t);
    span filled = *s;
    filled.in[CONDITION] = s->in[MASK], filled.step[CONDITION] = s->step[MASK];
    filled.in[A] = value, filled.step[A] = 0;
    filled.in[B] = s->in[X], filled.step[B] = s->step[X];
    select_of(ds_size(s->t))(&filled);
}

static void plan_masked_fill(const ds_call *call, ds_plan *out) { plan_inputs(call, 2, out); }

static void run_masked_fill(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    run_inputs(call, 2, begin, end, fill, (float)call->scalars[0].f, 0);
}

DS_KERNEL(ds_masked_fill, plan_masked_fill, run_masked_fill);
