// Scalar arithmetic that C, CUDA, HIP and OpenCL C all accept: functions by value, no pointers, no
// loops, no includes. bf16 and f16 are carried as their bits.
#ifndef DS_MATH_H
#define DS_MATH_H

#ifndef DS_FN
#define DS_FN static inline
#endif

typedef unsigned short ds_u16;
typedef unsigned int ds_u32;

typedef union ds_bits32 {
  float f;
  ds_u32 u;
} ds_bits32;

DS_FN float ds_bf16_to_f32(ds_u16 h) {
  ds_bits32 b;
  b.u = (ds_u32)h << 16;
  return b.f;
}

// To nearest, ties to even; a NaN stays one (its quiet bit is set, lest the cut leaves infinity).
DS_FN ds_u16 ds_f32_to_bf16(float f) {
  ds_bits32 b;
  b.f = f;
  if ((b.u & 0x7fffffffu) > 0x7f800000u) return (ds_u16)((b.u >> 16) | 0x40u);
  return (ds_u16)((b.u + 0x7fffu + ((b.u >> 16) & 1u)) >> 16);
}

DS_FN float ds_f16_to_f32(ds_u16 h) {
  ds_bits32 b, magic;
  ds_u32 exponent = h & 0x7c00u;
  b.u = (ds_u32)(h & 0x7fffu) << 13;
  if (exponent == 0x7c00u) {
    b.u += (255u - 31u) << 23;
  } else if (exponent == 0) {
    // A subnormal: let the subtraction normalise it.
    magic.u = 113u << 23;
    b.u += 1u << 23;
    b.u += 112u << 23;
    b.f -= magic.f;
  } else {
    b.u += 112u << 23;
  }
  b.u |= (ds_u32)(h & 0x8000u) << 16;
  return b.f;
}

// To nearest, ties to even; beyond the range infinity; a NaN stays one.
DS_FN ds_u16 ds_f32_to_f16(float f) {
  ds_bits32 b, magic;
  ds_u32 sign, result;
  b.f = f;
  sign = b.u & 0x80000000u;
  b.u ^= sign;
  if (b.u >= 0x47800000u) {
    result = b.u > 0x7f800000u ? 0x7e00u | ((b.u >> 13) & 0x3ffu) : 0x7c00u;
  } else if (b.u < 0x38800000u) {
    // A subnormal: adding a number whose last bit is the result's lets the addition round.
    magic.u = 126u << 23;
    b.f += magic.f;
    result = b.u - magic.u;
  } else {
    b.u += 0xc8000fffu + ((b.u >> 13) & 1u);
    result = b.u >> 13;
  }
  return (ds_u16)(result | (sign >> 16));
}

#endif
