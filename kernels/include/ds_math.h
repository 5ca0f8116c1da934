/* Scalar arithmetic that C, CUDA, HIP and OpenCL C compile alike: functions by value, without
 * pointers, loops or includes, so that every accelerator rounds the same way.
 *
 * bf16 and f16 travel as their 16 bits. Conversions round to nearest, ties to even; infinities and
 * NaN keep their sign, NaN becomes quiet and keeps its upper payload; denormals are exact.
 */
#ifndef DS_MATH_H
#define DS_MATH_H

#if defined(__OPENCL_C_VERSION__)
#define DS_MATH_FN inline static
#define DS_BITS_OF(f) as_uint(f)
#define DS_FLOAT_OF(u) as_float(u)
#else
#if defined(__CUDACC__) || defined(__HIPCC__) || defined(__HIP__)
#define DS_MATH_FN static __host__ __device__ __forceinline__
#else
#define DS_MATH_FN static inline __attribute__((always_inline))
#endif
typedef union {
    float f;
    unsigned int u;
} ds_bits32;
DS_MATH_FN unsigned int DS_BITS_OF(float f) {
    ds_bits32 b;
    b.f = f;
    return b.u;
}
DS_MATH_FN float DS_FLOAT_OF(unsigned int u) {
    ds_bits32 b;
    b.u = u;
    return b.f;
}
#endif

/* a * b + c, rounded once; twice on a CPU that has no such instruction. */
DS_MATH_FN float ds_fma(float a, float b, float c) {
#if defined(__OPENCL_C_VERSION__)
    return fma(a, b, c);
#elif defined(__CUDACC__) || defined(__HIPCC__) || defined(__HIP__)
    return fmaf(a, b, c);
#elif defined(__FMA__) || defined(__aarch64__)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

DS_MATH_FN float ds_bf16_to_f32(unsigned short h) { return DS_FLOAT_OF((unsigned int)h << 16); }

DS_MATH_FN unsigned short ds_f32_to_bf16(float f) {
    unsigned int u = DS_BITS_OF(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (unsigned short)((u >> 16) | 0x40u);
    return (unsigned short)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

DS_MATH_FN float ds_f16_to_f32(unsigned short h) {
    unsigned int sign = (unsigned int)(h & 0x8000u) << 16;
    unsigned int magnitude = (unsigned int)(h & 0x7fffu);
    unsigned int u;
    if (magnitude > 0x7c00u) { /* NaN, made quiet */
        u = 0x7fc00000u | (magnitude << 13);
    } else if (magnitude == 0x7c00u) {
        u = 0x7f800000u;
    } else if (magnitude >= 0x0400u) { /* the exponent's bias grows from 15 to 127 */
        u = (magnitude << 13) + (112u << 23);
    } else { /* denormals count in steps of 2^-24 */
        u = DS_BITS_OF((float)magnitude * 5.9604644775390625e-8f);
    }
    return DS_FLOAT_OF(sign | u);
}

DS_MATH_FN unsigned short ds_f32_to_f16(float f) {
    unsigned int u = DS_BITS_OF(f);
    unsigned int sign = (u >> 16) & 0x8000u;
    unsigned int h;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) { /* NaN, made quiet */
        h = 0x7e00u | ((u >> 13) & 0x3ffu);
    } else if (u >= 0x47800000u) { /* 2^16 and more */
        h = 0x7c00u;
    } else if (u >= 0x38800000u) { /* 2^-14 and more; rounding may carry up to infinity */
        h = (u - (112u << 23) + 0xfffu + ((u >> 13) & 1u)) >> 13;
    } else { /* a sum with 0.5 has steps of 2^-24, those of f16's denormals */
        h = DS_BITS_OF(DS_FLOAT_OF(u) + 0.5f) - 0x3f000000u;
    }
    return (unsigned short)(sign | h);
}

#endif
