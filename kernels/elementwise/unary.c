/* Functions of one tensor, element by element, on a CPU.
 *
 * Limit: memory. An element is read and one is written. The longest function, the logarithm, takes
 * about 25 operations an element, which two threads do in the time that f32 take to come and go.
 */
#include "elementwise.h"

/* op(x; ..) -> y */
enum { INPUTS = 1 };

typedef ds_vec (*lanes)(ds_vec x, float k0, float k1);

static void plan(const ds_call *call, ds_plan *out) { plan_inputs(call, INPUTS, out); }

DS_INLINE void through(const span *s, lanes f) {
    const char *x = s->in[0];
    uint32_t t = s->t;
    int streams = s->streams;
    int64_t step = s->step[0] * DS_LANES * ds_size(t);
    for (int64_t i = 0; i < s->n; i += PAIR, x += 2 * step) {
        DS_ASK_EACH_TIME(t, streams);
        ds_prefetch2(x, AHEAD, t, 1);
        ds_vec2 v = ds_load2(x, 0, t);
        ds_store2(s->out, i, (ds_vec2){f(v.a, s->k[0], s->k[1]), f(v.b, s->k[0], s->k[1])}, t, streams);
    }
}

#define RUN(name, first, second)                                                              \
    static void run_##name(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) { \
        (void)phase;                                                                          \
        run_inputs(call, INPUTS, begin, end, name##_span, first, second);                     \
    }                                                                                         \
    DS_KERNEL(ds_##name, plan, run_##name)

/* What changes the sign alone, on elements of any dtype. */
DS_INLINE void through_bits(const span *s, int flips) {
    const char *x = s->in[0];
    char *y = s->out;
    int64_t bytes = s->n * ds_size(s->t), width = sizeof(ds_vec), step = s->step[0] * width;
    const ds_vec_u32 sign = (ds_vec_u32){0} + (s->t == DS_F32 ? 0x80000000 : 0x80008000);
    for (int64_t i = 0; i < bytes; i += width, x += step) {
        __builtin_prefetch(ds_at(x, AHEAD, s->t), 0, 3);
        ds_vec_u32 bits;
        __builtin_memcpy(&bits, x, sizeof bits);
        ds_put(y + i, flips ? bits ^ sign : bits & ~sign, s->streams);
    }
}

#define SIGN(name, flips)                                                                     \
    static void name##_span(const span *s) { through_bits(s, flips); }                        \
    RUN(name, 0, 0)

#define UNARY_OF(name, first, second, ...)                                                    \
    DS_INLINE ds_vec name##_lanes(ds_vec x, float k0, float k1) {                             \
        (void)k0, (void)k1;                                                                   \
        return __VA_ARGS__;                                                                   \
    }                                                                                         \
    static void name##_span(const span *s) { through(s, name##_lanes); }                      \
    RUN(name, first, second)
#define UNARY(name, ...) UNARY_OF(name, 0, 0, __VA_ARGS__)
#define SCALAR(index) (float)call->scalars[index].f

/* The root of x, rounded once, or its inverse. With AVX-512 the processor's own take 12 cycles each for 16
 * lanes; an approximate inverse, a step of Goldschmidt's from there, which brings both to the last place, and a
 * correction (Markstein 1990) take six. What comes near the ends of the range, and zero, is left to the
 * processor; what is below zero is NaN either way. */
DS_INLINE ds_vec root_of(ds_vec x, int inverse) {
#if DS_LANES == 16
    const __m512 v = (__m512)x, half = _mm512_set1_ps(0.5f);
    const int32_t least = 0x0d800000, past = 0x7f800000; /* 2^-100 and infinity */
    __m512 guess = _mm512_rsqrt14_ps(v), root = _mm512_mul_ps(v, guess), halved = _mm512_mul_ps(guess, half);
    __m512 lacks = _mm512_fnmadd_ps(halved, root, half);
    root = _mm512_fmadd_ps(root, lacks, root), halved = _mm512_fmadd_ps(halved, lacks, halved);
    __m512 y = _mm512_add_ps(halved, halved);
    if (!inverse) y = _mm512_fmadd_ps(_mm512_fnmadd_ps(root, root, v), halved, root);
    __m512i above = _mm512_sub_epi32((__m512i)v, _mm512_set1_epi32(least));
    __mmask16 apart = _mm512_cmpge_epu32_mask(above, _mm512_set1_epi32(past - least));
    apart = _mm512_mask_cmp_ps_mask(apart, v, _mm512_setzero_ps(), _CMP_NLT_UQ);
    if (apart) {
        __m512 own = _mm512_sqrt_ps(v);
        y = _mm512_mask_mov_ps(y, apart, inverse ? _mm512_div_ps(_mm512_set1_ps(1), own) : own);
    }
    return (ds_vec)y;
#else
    return inverse ? 1 / ds_vsqrt(x) : ds_vsqrt(x);
#endif
}

SIGN(neg, 1);
SIGN(abs, 0);
UNARY(exp, ds_vexp(x));
UNARY(log, ds_vlog(x));
UNARY(square_root, root_of(x, 0)); /* ds_sqrt is that of a scalar */
UNARY(rsqrt, root_of(x, 1));
UNARY(square, x * x);
UNARY(reciprocal, 1 / x);
UNARY_OF(scale, SCALAR(0), SCALAR(1), ds_vfma(x, ds_splat(k0), ds_splat(k1)));
/* ds_vmax and ds_vmin give the second operand where one is a NaN: x stays one. */
UNARY_OF(clamp, SCALAR(0), SCALAR(1), ds_vmin(ds_splat(k1), ds_vmax(ds_splat(k0), x)));
