// Vectors of f32 for CPU kernels: as wide as the target, loaded from and stored to any float dtype.
//
// A kernel's inner function takes dtypes as constant arguments and is always inlined, so that the
// choice below is made by the compiler.
#ifndef DS_SIMD_H
#define DS_SIMD_H

#include <string.h>

#include "ds_cpu.h"
#include "ds_math.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define DS_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define DS_LANES 16
#elif defined(__AVX2__)
#define DS_LANES 8
#else
#define DS_LANES 4
#endif

typedef float ds_v __attribute__((vector_size(4 * DS_LANES)));
typedef uint32_t ds_vu __attribute__((vector_size(4 * DS_LANES)));
typedef uint16_t ds_vh __attribute__((vector_size(2 * DS_LANES)));

DS_INLINE int64_t ds_size(uint32_t dtype) { return dtype == DS_F32 ? 4 : 2; }

DS_INLINE ds_v ds_splat(float f) { return f - (ds_v){0}; }

// a * b + c, rounded once where the target can.
DS_INLINE ds_v ds_fma(ds_v a, ds_v b, ds_v c) {
#if defined(__AVX512F__)
  return (ds_v)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (ds_v)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

DS_INLINE ds_v ds_sqrt(ds_v a) {
#if defined(__AVX512F__)
  return (ds_v)_mm512_sqrt_ps((__m512)a);
#elif defined(__AVX2__)
  return (ds_v)_mm256_sqrt_ps((__m256)a);
#elif defined(__x86_64__)
  return (ds_v)_mm_sqrt_ps((__m128)a);
#else
  for (int l = 0; l < DS_LANES; l++) a[l] = __builtin_sqrtf(a[l]);
  return a;
#endif
}

// Sum of all lanes, in a fixed order.
DS_INLINE float ds_sum(ds_v a) {
  float s[DS_LANES];
  memcpy(s, &a, sizeof a);
  for (int w = DS_LANES / 2; w > 0; w /= 2)
    for (int l = 0; l < w; l++) s[l] += s[l + w];
  return s[0];
}

DS_INLINE float ds_load1(const void *p, int64_t i, uint32_t dtype) {
  if (dtype == DS_F32) return ((const float *)p)[i];
  if (dtype == DS_BF16) return ds_bf16_to_f32(((const uint16_t *)p)[i]);
  return ds_f16_to_f32(((const uint16_t *)p)[i]);
}

DS_INLINE void ds_store1(void *p, int64_t i, uint32_t dtype, float f) {
  if (dtype == DS_F32)
    ((float *)p)[i] = f;
  else
    ((uint16_t *)p)[i] = dtype == DS_BF16 ? ds_f32_to_bf16(f) : ds_f32_to_f16(f);
}

// Elements i .. i + DS_LANES.
DS_INLINE ds_v ds_load(const void *p, int64_t i, uint32_t dtype) {
  ds_v v;
  if (dtype == DS_F32) {
    memcpy(&v, (const float *)p + i, sizeof v);
    return v;
  }
  ds_vh h;
  memcpy(&h, (const uint16_t *)p + i, sizeof h);
  if (dtype == DS_BF16) {
    ds_vu u = __builtin_convertvector(h, ds_vu) << 16;
    memcpy(&v, &u, sizeof v);
    return v;
  }
#if defined(__AVX512F__)
  return (ds_v)_mm512_cvtph_ps((__m256i)h);
#elif defined(__F16C__)
  return (ds_v)_mm256_cvtph_ps((__m128i)h);
#else
  for (int l = 0; l < DS_LANES; l++) v[l] = ds_f16_to_f32(h[l]);
  return v;
#endif
}

// Rounds to the dtype, to nearest with ties to even. `stream` goes past the cache and wants the
// address aligned to the vector of stored elements.
DS_INLINE void ds_store(void *p, int64_t i, uint32_t dtype, ds_v v, int stream) {
  if (dtype == DS_F32) {
    float *to = (float *)p + i;
#if defined(__AVX512F__)
    if (stream) {
      _mm512_stream_ps(to, (__m512)v);
      return;
    }
#elif defined(__AVX2__)
    if (stream) {
      _mm256_stream_ps(to, (__m256)v);
      return;
    }
#endif
    memcpy(to, &v, sizeof v);
    return;
  }
  uint16_t *to = (uint16_t *)p + i;
  ds_vh h;
  if (dtype == DS_BF16) {
    ds_vu u, quiet;
    memcpy(&u, &v, sizeof u);
    ds_vu nan = (ds_vu)((u & 0x7fffffffu) > 0x7f800000u);
    quiet = (u >> 16) | 0x40u;
    u = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    u = (nan & quiet) | (~nan & u);
    h = __builtin_convertvector(u, ds_vh);
  } else {
#if defined(__AVX512F__)
    h = (ds_vh)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__F16C__)
    h = (ds_vh)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    for (int l = 0; l < DS_LANES; l++) h[l] = ds_f32_to_f16(v[l]);
#endif
  }
#if defined(__AVX512F__)
  if (stream) {
    _mm256_stream_si256((__m256i *)to, (__m256i)h);
    return;
  }
#elif defined(__AVX2__)
  if (stream) {
    _mm_stream_si128((__m128i *)to, (__m128i)h);
    return;
  }
#endif
  (void)stream;
  memcpy(to, &h, sizeof h);
}

// Makes streamed stores visible to other threads before the phase ends.
DS_INLINE void ds_stream_fence(void) {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Whether a tensor is written past the cache: it is larger than what a later kernel could find
// there, and its rows begin on a store's boundary.
DS_INLINE int ds_streams(const ds_tensor *t, int64_t row) {
  const int64_t bytes = ds_size(t->dtype);
  return ds_elements(t) * bytes >= (32 << 20) && row % DS_LANES == 0 &&
         (uintptr_t)t->data % (DS_LANES * bytes) == 0;
}

#endif
