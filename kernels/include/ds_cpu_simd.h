/* Vectors of f32 for CPU kernels, as wide as the compiler's target: 16 lanes with AVX-512, 8 with
 * AVX2 (and FMA and F16C), 4 elsewhere. Kernels compute in f32 and load and store any dtype.
 *
 * A `ds_vec` is a vector type of GNU C: + - * / work on it lane by lane.
 */
#ifndef DS_CPU_SIMD_H
#define DS_CPU_SIMD_H

#include "ds_cpu.h"
#include "ds_math.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define DS_LANES 16
#include <immintrin.h>
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define DS_LANES 8
#include <immintrin.h>
#else
#define DS_LANES 4
#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#endif

/* Whether products of pairs of bf16 (AVX512_BF16) are twice as fast as those of f32. On Intel's CPUs, which are
 * those with AVX512_FP16, vdpbf16ps takes four times as long as an FMA, measured on Sapphire Rapids. */
#if DS_LANES == 16 && defined(__AVX512BF16__) && !defined(__AVX512FP16__)
#define DS_HAS_PAIRS 1
#else
#define DS_HAS_PAIRS 0
#endif

typedef float ds_vec __attribute__((vector_size(DS_LANES * 4)));
typedef uint32_t ds_vec_u32 __attribute__((vector_size(DS_LANES * 4)));
typedef uint16_t ds_vec_u16 __attribute__((vector_size(DS_LANES * 2)));

DS_INLINE ds_vec ds_splat(float a) {
#if DS_LANES == 16
    return (ds_vec)_mm512_set1_ps(a);
#elif DS_LANES == 8
    return (ds_vec)_mm256_set1_ps(a);
#else
    return (ds_vec){a, a, a, a};
#endif
}

/* a * b + c, rounded once where the target can. */
DS_INLINE ds_vec ds_vfma(ds_vec a, ds_vec b, ds_vec c) {
#if DS_LANES == 16
    return (ds_vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif DS_LANES == 8
    return (ds_vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (ds_vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    for (int i = 0; i < DS_LANES; i++) c[i] = ds_fma(a[i], b[i], c[i]);
    return c;
#endif
}

DS_INLINE ds_vec ds_vsqrt(ds_vec a) {
#if DS_LANES == 16
    return (ds_vec)_mm512_sqrt_ps((__m512)a);
#elif DS_LANES == 8
    return (ds_vec)_mm256_sqrt_ps((__m256)a);
#elif defined(__SSE2__)
    return (ds_vec)_mm_sqrt_ps((__m128)a);
#elif defined(__aarch64__)
    return (ds_vec)vsqrtq_f32((float32x4_t)a);
#else
    for (int i = 0; i < DS_LANES; i++) a[i] = __builtin_sqrtf(a[i]);
    return a;
#endif
}

/* a / b, of which the last bit may differ. With AVX-512 a division takes ten cycles; an approximate
 * inverse and one correction take four, on units that have time. Where that ends in a NaN, because
 * something was zero, infinite or out of range on the way, the division itself decides. */
DS_INLINE ds_vec ds_vdiv(ds_vec a, ds_vec b) {
#if DS_LANES == 16
    __m512 inverse = _mm512_rcp14_ps((__m512)b), guess = _mm512_mul_ps((__m512)a, inverse);
    __m512 error = _mm512_fnmadd_ps(guess, (__m512)b, (__m512)a);
    __m512 quotient = _mm512_fmadd_ps(error, inverse, guess);
    if (!_mm512_cmp_ps_mask(quotient, quotient, _CMP_UNORD_Q)) return (ds_vec)quotient;
#endif
    return a / b;
}

/* Square root of a scalar, without errno. */
DS_INLINE double ds_sqrt(double a) {
#if defined(__SSE2__)
    return _mm_cvtsd_f64(_mm_sqrt_pd(_mm_set_sd(a)));
#elif defined(__aarch64__)
    return vget_lane_f64(vsqrt_f64(vdup_n_f64(a)), 0);
#else
    return __builtin_sqrt(a);
#endif
}

/* Sum of the lanes, in f64 so that it adds no error of its own. */
DS_INLINE double ds_vsum(ds_vec a) {
#if DS_LANES == 16
    __m256 low = _mm512_castps512_ps256((__m512)a);
    __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd((__m512d)a, 1));
    return _mm512_reduce_add_pd(_mm512_add_pd(_mm512_cvtps_pd(low), _mm512_cvtps_pd(high)));
#else
    double sum = 0;
    for (int i = 0; i < DS_LANES; i++) sum += (double)a[i];
    return sum;
#endif
}

/* Whole vectors from and to `data + offset`; no alignment beyond the element's is needed. */

DS_INLINE ds_vec ds_load(const void *data, int64_t offset, uint32_t dtype) {
    const void *p = ds_at(data, offset, dtype);
    if (dtype == DS_F32) {
        ds_vec v;
        __builtin_memcpy(&v, p, sizeof v);
        return v;
    }
    ds_vec_u16 h;
    __builtin_memcpy(&h, p, sizeof h);
    if (dtype == DS_BF16) {
#if DS_LANES == 16 /* compilers split the conversion in two */
        return (ds_vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)h), 16);
#else
        return (ds_vec)(__builtin_convertvector(h, ds_vec_u32) << 16);
#endif
    }
#if DS_LANES == 16
    return (ds_vec)_mm512_cvtph_ps((__m256i)h);
#elif DS_LANES == 8
    return (ds_vec)_mm256_cvtph_ps((__m128i)h);
#elif defined(__aarch64__)
    return (ds_vec)vcvt_f32_f16((float16x4_t)h);
#else
    ds_vec v;
    for (int i = 0; i < DS_LANES; i++) v[i] = ds_f16_to_f32(h[i]);
    return v;
#endif
}

/* f32 of which the upper halves are the bf16: ds_f32_to_bf16 without the last shift. The CPU's own
 * instruction would flush denormals. */
DS_INLINE ds_vec_u32 ds_bf16_round(ds_vec v) {
    ds_vec_u32 u = (ds_vec_u32)v, rounded = u + 0x7fff + (u >> 16 & 1), quiet = u | 0x400000;
#if DS_LANES == 16
    __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
    return (ds_vec_u32)_mm512_mask_mov_epi32((__m512i)rounded, nan, (__m512i)quiet);
#else
    ds_vec_u32 nan = (ds_vec_u32)(v != v);
    return (nan & quiet) | (~nan & rounded);
#endif
}

DS_INLINE ds_vec_u16 ds_vec_to_half(ds_vec v, uint32_t dtype) {
    if (dtype == DS_BF16) {
#if DS_LANES == 16
        return (ds_vec_u16)_mm512_cvtepi32_epi16((__m512i)(ds_bf16_round(v) >> 16));
#else
        return __builtin_convertvector(ds_bf16_round(v) >> 16, ds_vec_u16);
#endif
    }
#if DS_LANES == 16
    return (ds_vec_u16)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif DS_LANES == 8
    return (ds_vec_u16)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__aarch64__)
    return (ds_vec_u16)vcvt_f16_f32((float32x4_t)v);
#else
    ds_vec_u16 h;
    for (int i = 0; i < DS_LANES; i++) h[i] = ds_f32_to_f16(v[i]);
    return h;
#endif
}

DS_INLINE void ds_store(void *data, int64_t offset, ds_vec v, uint32_t dtype) {
    void *p = ds_at(data, offset, dtype);
    if (dtype == DS_F32) {
        __builtin_memcpy(p, &v, sizeof v);
    } else {
        ds_vec_u16 h = ds_vec_to_half(v, dtype);
        __builtin_memcpy(p, &h, sizeof h);
    }
}

/* Twice as many elements at a time: a whole cache line of 16-bit ones with AVX-512. */
typedef struct ds_vec2 {
    ds_vec a, b;
} ds_vec2;

/* The first halves of a and b taking turns, then the second ones. */
DS_INLINE ds_vec2 ds_zip(ds_vec a, ds_vec b) {
#if DS_LANES == 16
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return (ds_vec2){(ds_vec)_mm512_permutex2var_ps((__m512)a, low, (__m512)b),
                     (ds_vec)_mm512_permutex2var_ps((__m512)a, high, (__m512)b)};
#elif DS_LANES == 8
    __m256 low = _mm256_unpacklo_ps((__m256)a, (__m256)b), high = _mm256_unpackhi_ps((__m256)a, (__m256)b);
    return (ds_vec2){(ds_vec)_mm256_permute2f128_ps(low, high, 0x20), (ds_vec)_mm256_permute2f128_ps(low, high, 0x31)};
#else
    return (ds_vec2){(ds_vec){a[0], b[0], a[1], b[1]}, (ds_vec){a[2], b[2], a[3], b[3]}};
#endif
}

/* In an order that is the dtype's own, and `ds_store2` undoes: use pairs of one dtype together. bf16
 * are taken apart by a shift and a mask, the even ones from the odd ones. */
DS_INLINE ds_vec2 ds_load2(const void *data, int64_t offset, uint32_t dtype) {
    if (dtype != DS_BF16) return (ds_vec2){ds_load(data, offset, dtype), ds_load(data, offset + DS_LANES, dtype)};
    ds_vec_u32 both;
    __builtin_memcpy(&both, ds_at(data, offset, dtype), sizeof both);
    return (ds_vec2){(ds_vec)(both << 16), (ds_vec)(both & 0xffff0000)};
}

/* One vector, past the caches where `streams` and the address is aligned to it. */
DS_INLINE void ds_put(void *p, ds_vec_u32 bits, int streams) {
#if DS_LANES == 16
    if (streams) return _mm512_stream_si512(p, (__m512i)bits);
#elif DS_LANES == 8
    if (streams) return _mm256_stream_si256(p, (__m256i)bits);
#elif defined(__SSE2__)
    if (streams) return _mm_stream_si128(p, (__m128i)bits);
#endif
    (void)streams;
    __builtin_memcpy(p, &bits, sizeof bits);
}

/* The same of half a vector. */
DS_INLINE void ds_put_half(void *p, ds_vec_u16 bits, int streams) {
#if DS_LANES == 16
    if (streams) return _mm256_stream_si256(p, (__m256i)bits);
#elif DS_LANES == 8
    if (streams) return _mm_stream_si128(p, (__m128i)bits);
#endif
    (void)streams;
    __builtin_memcpy(p, &bits, sizeof bits);
}

/* bf16 of a pair, even and odd ones in turns. */
DS_INLINE ds_vec_u32 ds_bf16_pair(ds_vec2 v) {
#if defined(__AVX512BF16__) /* makes what is below 2^-126 zero, unlike `ds_store`: casts keep it */
    const __m512i in_turns = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                              23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return (ds_vec_u32)_mm512_permutexvar_epi16(in_turns, (__m512i)_mm512_cvtne2ps_pbh((__m512)v.b, (__m512)v.a));
#else
    return ds_bf16_round(v.a) >> 16 | (ds_bf16_round(v.b) & 0xffff0000);
#endif
}

/* f16 of a pair, one vector after the other. */
DS_INLINE ds_vec_u32 ds_f16_pair(ds_vec2 v) {
    ds_vec_u16 half[2] = {ds_vec_to_half(v.a, DS_F16), ds_vec_to_half(v.b, DS_F16)};
#if DS_LANES == 16 /* compilers take the way through memory, and the load waits for both stores */
    return (ds_vec_u32)_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)half[0]), (__m256i)half[1], 1);
#elif DS_LANES == 8
    return (ds_vec_u32)_mm256_inserti128_si256(_mm256_castsi128_si256((__m128i)half[0]), (__m128i)half[1], 1);
#else
    ds_vec_u32 bits;
    __builtin_memcpy(&bits, half, sizeof bits);
    return bits;
#endif
}

DS_INLINE void ds_store2(void *data, int64_t offset, ds_vec2 v, uint32_t dtype, int streams) {
    char *p = ds_at(data, offset, dtype);
    if (dtype != DS_F32) {
        ds_put(p, dtype == DS_BF16 ? ds_bf16_pair(v) : ds_f16_pair(v), streams);
    } else {
        ds_put(p, (ds_vec_u32)v.a, streams);
        ds_put(p + sizeof v.a, (ds_vec_u32)v.b, streams);
    }
}

/* Asks for the cache lines of a pair that will be read soon: into the first level of the caches what
 * is next, into the second what the first has no room for yet. The address need not exist. */
DS_INLINE void ds_prefetch2(const void *data, int64_t offset, uint32_t dtype, int level) {
    const char *p = ds_at(data, offset, dtype);
    for (int line = 0; line < (dtype == DS_F32 && DS_LANES == 16 ? 2 : 1); line++) {
        if (level == 1) __builtin_prefetch(p + 64 * line, 0, 3);
        else __builtin_prefetch(p + 64 * line, 0, 2);
    }
}

/* Whether a result of so many elements should go past the caches: it is so much larger than what a core
 * has of its own that even who reads it at once gains, because a plain store would first read what it
 * overwrites. (8 MiB written and read were slower so, 16 MiB faster.) `ds_fence` ends such stores, before
 * others may read them. */
DS_INLINE int ds_streams(int64_t elements, uint32_t dtype) {
    return elements * ds_size(dtype) >= 16 << 20;
}

/* Whether a row can be stored so. */
DS_INLINE int ds_aligned(const void *p) { return (uintptr_t)p % sizeof(ds_vec) == 0; }

DS_INLINE void ds_fence(void) {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

/* The same for the first `n` lanes; loads give 0 in the others. For the end of a row. */

DS_INLINE ds_vec ds_load_first(int64_t n, const void *data, int64_t offset, uint32_t dtype) {
    if (n >= DS_LANES) return ds_load(data, offset, dtype);
    const void *p = ds_at(data, offset, dtype);
#if DS_LANES == 16
    __mmask16 first = (__mmask16)((1u << n) - 1);
    if (dtype == DS_F32) return (ds_vec)_mm512_maskz_loadu_ps(first, p);
    ds_vec_u16 h = (ds_vec_u16)_mm256_maskz_loadu_epi16(first, p);
    return ds_load(&h, 0, dtype);
#else
    uint16_t half[DS_LANES] = {0};
    float full[DS_LANES] = {0};
    for (int64_t i = 0; i < n; i++) {
        if (dtype == DS_F32) full[i] = ((const float *)p)[i];
        else half[i] = ((const uint16_t *)p)[i];
    }
    return dtype == DS_F32 ? ds_load(full, 0, DS_F32) : ds_load(half, 0, dtype);
#endif
}

DS_INLINE void ds_store_first(int64_t n, void *data, int64_t offset, ds_vec v, uint32_t dtype) {
    if (n >= DS_LANES) {
        ds_store(data, offset, v, dtype);
        return;
    }
    void *p = ds_at(data, offset, dtype);
#if DS_LANES == 16
    __mmask16 first = (__mmask16)((1u << n) - 1);
    if (dtype == DS_F32) _mm512_mask_storeu_ps(p, first, (__m512)v);
    else _mm256_mask_storeu_epi16(p, first, (__m256i)ds_vec_to_half(v, dtype));
#else
    if (dtype == DS_F32) {
        for (int64_t i = 0; i < n; i++) ((float *)p)[i] = v[i];
    } else {
        ds_vec_u16 h = ds_vec_to_half(v, dtype);
        for (int64_t i = 0; i < n; i++) ((uint16_t *)p)[i] = h[i];
    }
#endif
}

#endif
