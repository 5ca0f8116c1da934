/* Elements of one tensor or another one, as a tensor of booleans says, on a CPU.
 *
 * Limit: memory. A byte and an element of each tensor are read, one is written. Nothing is computed,
 * so the dtype is its size.
 */
#include "elementwise.h"

/* select(condition, a, b) -> y; masked_fill(x, mask; value) -> y */
enum { CONDITION, A, B };
enum { X, MASK };
enum { AHEAD_BYTES = 2048 /* from what is read to what is fetched */ };

/* Lanes of `bytes` each, of `a` where the byte of the condition is not zero, else of `b`. Compilers take
 * the bytes apart, one by one. */
DS_INLINE ds_vec_u32 chosen(const void *c, ds_vec_u32 a, ds_vec_u32 b, int bytes) {
#if DS_LANES == 16
    __m512i x = (__m512i)a, z = (__m512i)b;
    if (bytes == 2) {
        __m256i v = _mm256_loadu_si256(c);
        return (ds_vec_u32)_mm512_mask_mov_epi16(z, _mm256_test_epi8_mask(v, v), x);
    }
    __m128i v = bytes == 4 ? _mm_loadu_si128(c) : _mm_loadl_epi64(c);
    __mmask16 is_a = _mm_test_epi8_mask(v, v);
    return (ds_vec_u32)(bytes == 4 ? _mm512_mask_mov_epi32(z, is_a, x) : _mm512_mask_mov_epi64(z, (__mmask8)is_a, x));
#else
    typedef uint16_t u16s __attribute__((vector_size(sizeof(ds_vec))));
    typedef uint64_t u64s __attribute__((vector_size(sizeof(ds_vec))));
    ds_vec_u32 is_b;
#if DS_LANES == 8
    int32_t four;
    __builtin_memcpy(&four, c, sizeof four);
    if (bytes == 2) is_b = (ds_vec_u32)((u16s)_mm256_cvtepu8_epi16(_mm_loadu_si128(c)) == 0);
    else if (bytes == 4) is_b = (ds_vec_u32)((ds_vec_u32)_mm256_cvtepu8_epi32(_mm_loadl_epi64(c)) == 0);
    else is_b = (ds_vec_u32)((u64s)_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four)) == 0);
#else
    const uint8_t *flag = c;
    u16s two = {0};
    ds_vec_u32 four = {0};
    u64s eight = {0};
    if (bytes == 2) for (int i = 0; i < 8; i++) two[i] = flag[i];
    else if (bytes == 4) for (int i = 0; i < 4; i++) four[i] = flag[i];
    else for (int i = 0; i < 2; i++) eight[i] = flag[i];
    is_b = bytes == 2 ? (ds_vec_u32)(two == 0) : bytes == 4 ? (ds_vec_u32)(four == 0) : (ds_vec_u32)(eight == 0);
#endif
    return (a & ~is_b) | (b & is_b);
#endif
}

#define SELECT(bytes)                                                                                                \
    static void select_##bytes(const span *s) {                                                                      \
        enum { WIDTH = sizeof(ds_vec), N = WIDTH / bytes };                                                          \
        const char *c = s->in[CONDITION], *a = s->in[A], *b = s->in[B];                                              \
        char *y = s->out, *end = y + s->n * bytes;                                                                   \
        const int64_t c_step = s->step[0] * N, a_step = s->step[1] * WIDTH, b_step = s->step[2] * WIDTH;             \
        for (; y < end; y += WIDTH, c += c_step, a += a_step, b += b_step) {                                         \
            ds_vec_u32 x, z;                                                                                         \
            __builtin_prefetch(c + AHEAD_BYTES, 0, 3);                                                               \
            __builtin_prefetch(a + AHEAD_BYTES, 0, 3), __builtin_prefetch(b + AHEAD_BYTES, 0, 3);                    \
            __builtin_memcpy(&x, a, sizeof x);                                                                       \
            __builtin_memcpy(&z, b, sizeof z);                                                                       \
            ds_put(y, chosen(c, x, z, bytes), s->streams);                                                           \
        }                                                                                                            \
    }

SELECT(2)
SELECT(4)
SELECT(8)

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
