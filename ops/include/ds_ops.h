// SPDX-License-Identifier: Apache-2.0
// Generated from ops/*/*.ops by `cargo xtask headers`; edit those instead.
//
// A signature names its op and carries the hash of its schema (DsSignature.schema_hash). A kernel
// that compares it with the hash here never meets an op whose meaning has changed. A manifest's
// kernel says the same as text: "schema": DS_OP_<NAME>_SCHEMA_TEXT.

#ifndef DS_OPS_H
#define DS_OPS_H

// op activation(x: T[S..., D], bias: optional T[D], kind: static i64) -> (y: T[S..., D]) where T: f32 | f16 | bf16
#define DS_OP_ACTIVATION "activation"
#define DS_OP_ACTIVATION_SCHEMA_TEXT "d282b6ef3728be8f32568d0006f71726"
#define DS_OP_ACTIVATION_SCHEMA \
  {0xd2, 0x82, 0xb6, 0xef, 0x37, 0x28, 0xbe, 0x8f, \
   0x32, 0x56, 0x8d, 0x00, 0x06, 0xf7, 0x17, 0x26}

// op activation_backward(dy: T[S..., D], x: T[S..., D], bias: optional T[D], kind: static i64) -> (dx: T[S..., D]) where T: f32 | f16 | bf16
#define DS_OP_ACTIVATION_BACKWARD "activation_backward"
#define DS_OP_ACTIVATION_BACKWARD_SCHEMA_TEXT "c8542842daa43869b0435c84da48d6e8"
#define DS_OP_ACTIVATION_BACKWARD_SCHEMA \
  {0xc8, 0x54, 0x28, 0x42, 0xda, 0xa4, 0x38, 0x69, \
   0xb0, 0x43, 0x5c, 0x84, 0xda, 0x48, 0xd6, 0xe8}

// op gated_activation(gate: T[S..., D], up: T[S..., D], gate_bias: optional T[D], up_bias: optional T[D], kind: static i64) -> (y: T[S..., D]) where T: f32 | f16 | bf16
#define DS_OP_GATED_ACTIVATION "gated_activation"
#define DS_OP_GATED_ACTIVATION_SCHEMA_TEXT "e2edbef7db0222a7c63cab6908272039"
#define DS_OP_GATED_ACTIVATION_SCHEMA \
  {0xe2, 0xed, 0xbe, 0xf7, 0xdb, 0x02, 0x22, 0xa7, \
   0xc6, 0x3c, 0xab, 0x69, 0x08, 0x27, 0x20, 0x39}

// op gated_activation_backward(dy: T[S..., D], gate: T[S..., D], up: T[S..., D], gate_bias: optional T[D], up_bias: optional T[D], kind: static i64) -> (dgate: T[S..., D], dup: T[S..., D]) where T: f32 | f16 | bf16
#define DS_OP_GATED_ACTIVATION_BACKWARD "gated_activation_backward"
#define DS_OP_GATED_ACTIVATION_BACKWARD_SCHEMA_TEXT "6933bd2393352fd228c4f77897b0280f"
#define DS_OP_GATED_ACTIVATION_BACKWARD_SCHEMA \
  {0x69, 0x33, 0xbd, 0x23, 0x93, 0x35, 0x2f, 0xd2, \
   0x28, 0xc4, 0xf7, 0x78, 0x97, 0xb0, 0x28, 0x0f}

// op bias_backward(dy: T[S..., D]) -> (dbias: T[D]) where T: f32 | f16 | bf16
#define DS_OP_BIAS_BACKWARD "bias_backward"
#define DS_OP_BIAS_BACKWARD_SCHEMA_TEXT "3393e73283cfbe39428c3b0e5967b1b2"
#define DS_OP_BIAS_BACKWARD_SCHEMA \
  {0x33, 0x93, 0xe7, 0x32, 0x83, 0xcf, 0xbe, 0x39, \
   0x42, 0x8c, 0x3b, 0x0e, 0x59, 0x67, 0xb1, 0xb2}

// op residual_add(x: T[S..., D], residual: T[S..., D], attention: optional T[S..., D], bias: optional T[D], attention_bias: optional T[D], residual_scale: f64 = 1.0, attention_scale: f64 = 1.0) -> (y: T[S..., D]) where T: f32 | f16 | bf16
#define DS_OP_RESIDUAL_ADD "residual_add"
#define DS_OP_RESIDUAL_ADD_SCHEMA_TEXT "969fa8cdf738a3368afb2fa2f170cd7d"
#define DS_OP_RESIDUAL_ADD_SCHEMA \
  {0x96, 0x9f, 0xa8, 0xcd, 0xf7, 0x38, 0xa3, 0x36, \
   0x8a, 0xfb, 0x2f, 0xa2, 0xf1, 0x70, 0xcd, 0x7d}

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

// op dropout(x: T[S...], seed: i64, offset: i64, p: f64) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_DROPOUT "dropout"
#define DS_OP_DROPOUT_SCHEMA_TEXT "e44becbc47a829271f66b8d9223127a3"
#define DS_OP_DROPOUT_SCHEMA \
  {0xe4, 0x4b, 0xec, 0xbc, 0x47, 0xa8, 0x29, 0x27, \
   0x1f, 0x66, 0xb8, 0xd9, 0x22, 0x31, 0x27, 0xa3}

// op bias_dropout_add(x: T[S..., D], residual: T[S..., D], bias: optional T[D], seed: i64, offset: i64, p: f64) -> (y: T[S..., D]) where T: f32 | f16 | bf16
#define DS_OP_BIAS_DROPOUT_ADD "bias_dropout_add"
#define DS_OP_BIAS_DROPOUT_ADD_SCHEMA_TEXT "657cc9f0bac57c57362b84e140a34667"
#define DS_OP_BIAS_DROPOUT_ADD_SCHEMA \
  {0x65, 0x7c, 0xc9, 0xf0, 0xba, 0xc5, 0x7c, 0x57, \
   0x36, 0x2b, 0x84, 0xe1, 0x40, 0xa3, 0x46, 0x67}

// op layer_norm(x: T[S..., D], weight: optional T[D], bias: optional T[D], eps: f64 = 1e-5) -> (y: T[S..., D], mean: f32[S...], rstd: f32[S...]) where T: f32 | f16 | bf16
#define DS_OP_LAYER_NORM "layer_norm"
#define DS_OP_LAYER_NORM_SCHEMA_TEXT "12a20d0b3244fb7d8b5cb20abc1f0e44"
#define DS_OP_LAYER_NORM_SCHEMA \
  {0x12, 0xa2, 0x0d, 0x0b, 0x32, 0x44, 0xfb, 0x7d, \
   0x8b, 0x5c, 0xb2, 0x0a, 0xbc, 0x1f, 0x0e, 0x44}

// op add_layer_norm(x: T[S..., D], residual: T[S..., D], add_bias: optional T[D], weight: optional T[D], bias: optional T[D], eps: f64 = 1e-5) -> (sum: T[S..., D], y: T[S..., D], mean: f32[S...], rstd: f32[S...]) where T: f32 | f16 | bf16
#define DS_OP_ADD_LAYER_NORM "add_layer_norm"
#define DS_OP_ADD_LAYER_NORM_SCHEMA_TEXT "fc023cde23cba61efa4a5a5791571cb0"
#define DS_OP_ADD_LAYER_NORM_SCHEMA \
  {0xfc, 0x02, 0x3c, 0xde, 0x23, 0xcb, 0xa6, 0x1e, \
   0xfa, 0x4a, 0x5a, 0x57, 0x91, 0x57, 0x1c, 0xb0}

// op layer_norm_backward(dy: T[S..., D], x: T[S..., D], weight: optional T[D], mean: f32[S...], rstd: f32[S...]) -> (dx: T[S..., D], dweight: T[D], dbias: T[D]) where T: f32 | f16 | bf16
#define DS_OP_LAYER_NORM_BACKWARD "layer_norm_backward"
#define DS_OP_LAYER_NORM_BACKWARD_SCHEMA_TEXT "ec2b23329ef7a9f399de982ad59750ae"
#define DS_OP_LAYER_NORM_BACKWARD_SCHEMA \
  {0xec, 0x2b, 0x23, 0x32, 0x9e, 0xf7, 0xa9, 0xf3, \
   0x99, 0xde, 0x98, 0x2a, 0xd5, 0x97, 0x50, 0xae}

// op add_layer_norm_backward(dy: T[S..., D], dsum: T[S..., D], sum: T[S..., D], weight: optional T[D], mean: f32[S...], rstd: f32[S...]) -> (dx: T[S..., D], dweight: T[D], dbias: T[D]) where T: f32 | f16 | bf16
#define DS_OP_ADD_LAYER_NORM_BACKWARD "add_layer_norm_backward"
#define DS_OP_ADD_LAYER_NORM_BACKWARD_SCHEMA_TEXT "7a41462b3a344c97607e6644afc66491"
#define DS_OP_ADD_LAYER_NORM_BACKWARD_SCHEMA \
  {0x7a, 0x41, 0x46, 0x2b, 0x3a, 0x34, 0x4c, 0x97, \
   0x60, 0x7e, 0x66, 0x44, 0xaf, 0xc6, 0x64, 0x91}

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

// op add_rms_norm(x: T[S..., D], residual: T[S..., D], bias: optional T[D], weight: T[D], eps: f64 = 1e-6) -> (sum: T[S..., D], y: T[S..., D], rstd: f32[S...]) where T: f32 | f16 | bf16
#define DS_OP_ADD_RMS_NORM "add_rms_norm"
#define DS_OP_ADD_RMS_NORM_SCHEMA_TEXT "f41070d3eca2cb32bc038e95462f9ce7"
#define DS_OP_ADD_RMS_NORM_SCHEMA \
  {0xf4, 0x10, 0x70, 0xd3, 0xec, 0xa2, 0xcb, 0x32, \
   0xbc, 0x03, 0x8e, 0x95, 0x46, 0x2f, 0x9c, 0xe7}

// op add_rms_norm_backward(dy: T[S..., D], dsum: T[S..., D], sum: T[S..., D], weight: T[D], rstd: f32[S...]) -> (dx: T[S..., D], dweight: T[D]) where T: f32 | f16 | bf16
#define DS_OP_ADD_RMS_NORM_BACKWARD "add_rms_norm_backward"
#define DS_OP_ADD_RMS_NORM_BACKWARD_SCHEMA_TEXT "7250a31fcd471df5981c413f75901588"
#define DS_OP_ADD_RMS_NORM_BACKWARD_SCHEMA \
  {0x72, 0x50, 0xa3, 0x1f, 0xcd, 0x47, 0x1d, 0xf5, \
   0x98, 0x1c, 0x41, 0x3f, 0x75, 0x90, 0x15, 0x88}

#endif // DS_OPS_H
