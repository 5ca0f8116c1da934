// SPDX-License-Identifier: Apache-2.0
// Generated from ops/*/*.ops by `cargo xtask headers`; edit those instead.
//
// A signature names its op and carries the hash of its schema (DsSignature.schema_hash). A kernel
// that compares it with the hash here never meets an op whose meaning has changed. A manifest's
// kernel says the same as text: "schema": DS_OP_<NAME>_SCHEMA_TEXT.

#ifndef DS_OPS_H
#define DS_OPS_H

// op adam_step(params: inout list P[S...], grads: list P[S...], exp_avg: inout list M[S...], exp_avg_sq: inout list M[S...], found_inf: optional f32[], lr: f64, beta1: f64, beta2: f64, eps: f64, weight_decay: f64, step: i64, adamw: static bool = true, bias_correction: static bool = true) where (P, M): (f32, f32) | (f16, f32) | (f16, f16) | (bf16, f32) | (bf16, bf16)
#define DS_OP_ADAM_STEP "adam_step"
#define DS_OP_ADAM_STEP_SCHEMA_TEXT "5274c3fca0948f4a772ed41ca88f44c6"
#define DS_OP_ADAM_STEP_SCHEMA \
  {0x52, 0x74, 0xc3, 0xfc, 0xa0, 0x94, 0x8f, 0x4a, \
   0x77, 0x2e, 0xd4, 0x1c, 0xa8, 0x8f, 0x44, 0xc6}

// op cast(x: A[S...]) -> (y: B[S...]) where A: f32 | f16 | bf16, B: f32 | f16 | bf16
#define DS_OP_CAST "cast"
#define DS_OP_CAST_SCHEMA_TEXT "9c6170dfc31b01b06a41b59614ddcc9a"
#define DS_OP_CAST_SCHEMA \
  {0x9c, 0x61, 0x70, 0xdf, 0xc3, 0x1b, 0x01, 0xb0, \
   0x6a, 0x41, 0xb5, 0x96, 0x14, 0xdd, 0xcc, 0x9a}

// op matmul(a: T[B..., M, K], b: T[B..., K, N]) -> (c: T[B..., M, N]) where T: f32 | bf16
#define DS_OP_MATMUL "matmul"
#define DS_OP_MATMUL_SCHEMA_TEXT "0fdf1956d5a49ba3a0d7d863a6d20bf6"
#define DS_OP_MATMUL_SCHEMA \
  {0x0f, 0xdf, 0x19, 0x56, 0xd5, 0xa4, 0x9b, 0xa3, \
   0xa0, 0xd7, 0xd8, 0x63, 0xa6, 0xd2, 0x0b, 0xf6}

// op rms_norm(x: T[S..., D], weight: T[D], eps: f64 = 1e-6) -> (y: T[S..., D], rstd: f32[S...]) where T: f32 | f16 | bf16
#define DS_OP_RMS_NORM "rms_norm"
#define DS_OP_RMS_NORM_SCHEMA_TEXT "9159f2135d66f1648b870fbfe7363695"
#define DS_OP_RMS_NORM_SCHEMA \
  {0x91, 0x59, 0xf2, 0x13, 0x5d, 0x66, 0xf1, 0x64, \
   0x8b, 0x87, 0x0f, 0xbf, 0xe7, 0x36, 0x36, 0x95}

// op rms_norm_backward(dy: T[S..., D], x: T[S..., D], weight: T[D], rstd: f32[S...]) -> (dx: T[S..., D], dweight: T[D]) where T: f32 | f16 | bf16
#define DS_OP_RMS_NORM_BACKWARD "rms_norm_backward"
#define DS_OP_RMS_NORM_BACKWARD_SCHEMA_TEXT "9befffc387498331405dc02823e0eb75"
#define DS_OP_RMS_NORM_BACKWARD_SCHEMA \
  {0x9b, 0xef, 0xff, 0xc3, 0x87, 0x49, 0x83, 0x31, \
   0x40, 0x5d, 0xc0, 0x28, 0x23, 0xe0, 0xeb, 0x75}

#endif // DS_OPS_H
