// SPDX-License-Identifier: Apache-2.0
// Generated from ops/*/*.ops by `cargo xtask headers`; edit those instead.
//
// A signature names its op and carries the hash of its schema (DsSignature.schema_hash). A kernel
// that compares it with the hash here never meets an op whose meaning has changed. A manifest's
// kernel says the same as text: "schema": DS_OP_<NAME>_SCHEMA_TEXT.

#ifndef DS_OPS_H
#define DS_OPS_H

// op adagrad_step(params: inout list P[S...], grads: list P[S...], exp_avg_sq: inout list M[S...], found_inf: optional f32[], lr: f64, eps: f64, weight_decay: f64) where (P, M): (f32, f32) | (f16, f32) | (f16, f16) | (bf16, f32) | (bf16, bf16)
#define DS_OP_ADAGRAD_STEP "adagrad_step"
#define DS_OP_ADAGRAD_STEP_SCHEMA_TEXT "124476448b5aea7ca7c80d05723bc340"
#define DS_OP_ADAGRAD_STEP_SCHEMA \
  {0x12, 0x44, 0x76, 0x44, 0x8b, 0x5a, 0xea, 0x7c, \
   0xa7, 0xc8, 0x0d, 0x05, 0x72, 0x3b, 0xc3, 0x40}

// op adagrad_step_sparse(param: inout P[R, D], indices: I[N], values: P[N, D], exp_avg_sq: inout M[R, D], found_inf: optional f32[], lr: f64, eps: f64, weight_decay: f64) where (P, M): (f32, f32) | (f16, f32) | (f16, f16) | (bf16, f32) | (bf16, bf16), I: i32 | i64
#define DS_OP_ADAGRAD_STEP_SPARSE "adagrad_step_sparse"
#define DS_OP_ADAGRAD_STEP_SPARSE_SCHEMA_TEXT "2a8cef941a3e2875c94514560a88b2ae"
#define DS_OP_ADAGRAD_STEP_SPARSE_SCHEMA \
  {0x2a, 0x8c, 0xef, 0x94, 0x1a, 0x3e, 0x28, 0x75, \
   0xc9, 0x45, 0x14, 0x56, 0x0a, 0x88, 0xb2, 0xae}

// op adam_step(params: inout list P[S...], grads: list P[S...], exp_avg: inout list M[S...], exp_avg_sq: inout list M[S...], found_inf: optional f32[], lr: f64, beta1: f64, beta2: f64, eps: f64, weight_decay: f64, step: i64, adamw: static bool = true, bias_correction: static bool = true) where (P, M): (f32, f32) | (f16, f32) | (f16, f16) | (bf16, f32) | (bf16, bf16)
#define DS_OP_ADAM_STEP "adam_step"
#define DS_OP_ADAM_STEP_SCHEMA_TEXT "5274c3fca0948f4a772ed41ca88f44c6"
#define DS_OP_ADAM_STEP_SCHEMA \
  {0x52, 0x74, 0xc3, 0xfc, 0xa0, 0x94, 0x8f, 0x4a, \
   0x77, 0x2e, 0xd4, 0x1c, 0xa8, 0x8f, 0x44, 0xc6}

// op adam_rollback(params: inout list f32[S...], grads: list f32[S...], exp_avg: inout list f32[S...], exp_avg_sq: inout list f32[S...], found_inf: optional f32[], lr: f64, beta1: f64, beta2: f64, eps: f64, weight_decay: f64, step: i64, adamw: static bool = true, bias_correction: static bool = true)
#define DS_OP_ADAM_ROLLBACK "adam_rollback"
#define DS_OP_ADAM_ROLLBACK_SCHEMA_TEXT "c54591137f121c228d617083a76156fa"
#define DS_OP_ADAM_ROLLBACK_SCHEMA \
  {0xc5, 0x45, 0x91, 0x13, 0x7f, 0x12, 0x1c, 0x22, \
   0x8d, 0x61, 0x70, 0x83, 0xa7, 0x61, 0x56, 0xfa}

// op cast(x: A[S...]) -> (y: B[S...]) where A: f32 | f16 | bf16, B: f32 | f16 | bf16
#define DS_OP_CAST "cast"
#define DS_OP_CAST_SCHEMA_TEXT "9c6170dfc31b01b06a41b59614ddcc9a"
#define DS_OP_CAST_SCHEMA \
  {0x9c, 0x61, 0x70, 0xdf, 0xc3, 0x1b, 0x01, 0xb0, \
   0x6a, 0x41, 0xb5, 0x96, 0x14, 0xdd, 0xcc, 0x9a}

// op grad_norm(grads: list T[S...]) -> (norm: f32[], found_inf: f32[]) where T: f32 | f16 | bf16
#define DS_OP_GRAD_NORM "grad_norm"
#define DS_OP_GRAD_NORM_SCHEMA_TEXT "79f40c66b0d7fe519ae376bc9b8bbcfd"
#define DS_OP_GRAD_NORM_SCHEMA \
  {0x79, 0xf4, 0x0c, 0x66, 0xb0, 0xd7, 0xfe, 0x51, \
   0x9a, 0xe3, 0x76, 0xbc, 0x9b, 0x8b, 0xbc, 0xfd}

// op grad_scale(grads: inout list T[S...], by: optional f32[], factor: f64) where T: f32 | f16 | bf16
#define DS_OP_GRAD_SCALE "grad_scale"
#define DS_OP_GRAD_SCALE_SCHEMA_TEXT "2587cb1b2856dec034d57463c8c7753c"
#define DS_OP_GRAD_SCALE_SCHEMA \
  {0x25, 0x87, 0xcb, 0x1b, 0x28, 0x56, 0xde, 0xc0, \
   0x34, 0xd5, 0x74, 0x63, 0xc8, 0xc7, 0x75, 0x3c}

// op grad_clip(grads: inout list T[S...], norm: f32[], max_norm: f64, factor: f64 = 1.0) where T: f32 | f16 | bf16
#define DS_OP_GRAD_CLIP "grad_clip"
#define DS_OP_GRAD_CLIP_SCHEMA_TEXT "90130ddf55bc0154ee015b22f6a7de8b"
#define DS_OP_GRAD_CLIP_SCHEMA \
  {0x90, 0x13, 0x0d, 0xdf, 0x55, 0xbc, 0x01, 0x54, \
   0xee, 0x01, 0x5b, 0x22, 0xf6, 0xa7, 0xde, 0x8b}

// op lamb_step(params: inout list f32[S...], grads: list G[S...], exp_avg: inout list f32[S...], exp_avg_sq: inout list f32[S...], found_inf: optional f32[], lr: f64, beta1: f64, beta2: f64, eps: f64, weight_decay: f64, max_coeff: f64, min_coeff: f64, grad_scale: f64, step: i64, eps_inside_sqrt: static bool = false, bias_correction: static bool = true) -> (ratios: list f32[]) where G: f32 | f16 | bf16
#define DS_OP_LAMB_STEP "lamb_step"
#define DS_OP_LAMB_STEP_SCHEMA_TEXT "533d9fdb951901c1214f584cbca4b0d1"
#define DS_OP_LAMB_STEP_SCHEMA \
  {0x53, 0x3d, 0x9f, 0xdb, 0x95, 0x19, 0x01, 0xc1, \
   0x21, 0x4f, 0x58, 0x4c, 0xbc, 0xa4, 0xb0, 0xd1}

// op lion_step(params: inout list P[S...], grads: list P[S...], exp_avg: inout list M[S...], found_inf: optional f32[], lr: f64, beta1: f64, beta2: f64, weight_decay: f64) where (P, M): (f32, f32) | (f16, f32) | (f16, f16) | (bf16, f32) | (bf16, bf16)
#define DS_OP_LION_STEP "lion_step"
#define DS_OP_LION_STEP_SCHEMA_TEXT "0c12c974e2b102c806508a34da97df15"
#define DS_OP_LION_STEP_SCHEMA \
  {0x0c, 0x12, 0xc9, 0x74, 0xe2, 0xb1, 0x02, 0xc8, \
   0x06, 0x50, 0x8a, 0x34, 0xda, 0x97, 0xdf, 0x15}

// op matmul(a: T[B..., M, K], b: T[B..., K, N]) -> (c: T[B..., M, N]) where T: f32 | bf16
#define DS_OP_MATMUL "matmul"
#define DS_OP_MATMUL_SCHEMA_TEXT "0fdf1956d5a49ba3a0d7d863a6d20bf6"
#define DS_OP_MATMUL_SCHEMA \
  {0x0f, 0xdf, 0x19, 0x56, 0xd5, 0xa4, 0x9b, 0xa3, \
   0xa0, 0xd7, 0xd8, 0x63, 0xa6, 0xd2, 0x0b, 0xf6}

// op muon_momentum(grad: G[S...], momentum: inout M[S...], found_inf: optional f32[], beta: f64, nesterov: static bool = true) -> (update: G[S...]) where (G, M): (f32, f32) | (f16, f32) | (f16, f16) | (bf16, f32) | (bf16, bf16)
#define DS_OP_MUON_MOMENTUM "muon_momentum"
#define DS_OP_MUON_MOMENTUM_SCHEMA_TEXT "5844e468d659a8b6a2afe8877435006c"
#define DS_OP_MUON_MOMENTUM_SCHEMA \
  {0x58, 0x44, 0xe4, 0x68, 0xd6, 0x59, 0xa8, 0xb6, \
   0xa2, 0xaf, 0xe8, 0x87, 0x74, 0x35, 0x00, 0x6c}

// op muon_normalize(x: A[S...], norm: f32[], eps: f64 = 1e-7) -> (y: B[S...]) where A: f32 | f16 | bf16, B: f32 | bf16
#define DS_OP_MUON_NORMALIZE "muon_normalize"
#define DS_OP_MUON_NORMALIZE_SCHEMA_TEXT "4cbca34efd1bd772e24b221fbb584d9b"
#define DS_OP_MUON_NORMALIZE_SCHEMA \
  {0x4c, 0xbc, 0xa3, 0x4e, 0xfd, 0x1b, 0xd7, 0x72, \
   0xe2, 0x4b, 0x22, 0x1f, 0xbb, 0x58, 0x4d, 0x9b}

// op muon_combine(x: T[S...], y: T[S...], a: f64, b: f64) -> (z: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_MUON_COMBINE "muon_combine"
#define DS_OP_MUON_COMBINE_SCHEMA_TEXT "81227743fb89956a56d5d603fed2b916"
#define DS_OP_MUON_COMBINE_SCHEMA \
  {0x81, 0x22, 0x77, 0x43, 0xfb, 0x89, 0x95, 0x6a, \
   0x56, 0xd5, 0xd6, 0x03, 0xfe, 0xd2, 0xb9, 0x16}

// op muon_apply(param: inout P[S...], update: U[S...], found_inf: optional f32[], lr: f64, weight_decay: f64, scale: f64) where P: f32 | f16 | bf16, U: f32 | bf16
#define DS_OP_MUON_APPLY "muon_apply"
#define DS_OP_MUON_APPLY_SCHEMA_TEXT "8811f4fea2f5772f60eb25751d769b31"
#define DS_OP_MUON_APPLY_SCHEMA \
  {0x88, 0x11, 0xf4, 0xfe, 0xa2, 0xf5, 0x77, 0x2f, \
   0x60, 0xeb, 0x25, 0x75, 0x1d, 0x76, 0x9b, 0x31}

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

// op sgd_step(params: inout list P[S...], grads: list P[S...], found_inf: optional f32[], lr: f64, weight_decay: f64) where P: f32 | f16 | bf16
#define DS_OP_SGD_STEP "sgd_step"
#define DS_OP_SGD_STEP_SCHEMA_TEXT "636f63723003f577edaa907f2a7daad8"
#define DS_OP_SGD_STEP_SCHEMA \
  {0x63, 0x6f, 0x63, 0x72, 0x30, 0x03, 0xf5, 0x77, \
   0xed, 0xaa, 0x90, 0x7f, 0x2a, 0x7d, 0xaa, 0xd8}

// op sgd_momentum_step(params: inout list P[S...], grads: list P[S...], momentum_buffer: inout list M[S...], found_inf: optional f32[], lr: f64, momentum: f64, dampening: f64, weight_decay: f64, step: i64, nesterov: static bool = false) where (P, M): (f32, f32) | (f16, f32) | (f16, f16) | (bf16, f32) | (bf16, bf16)
#define DS_OP_SGD_MOMENTUM_STEP "sgd_momentum_step"
#define DS_OP_SGD_MOMENTUM_STEP_SCHEMA_TEXT "163e03d85d36a66369dacae0bca8b29d"
#define DS_OP_SGD_MOMENTUM_STEP_SCHEMA \
  {0x16, 0x3e, 0x03, 0xd8, 0x5d, 0x36, 0xa6, 0x63, \
   0x69, 0xda, 0xca, 0xe0, 0xbc, 0xa8, 0xb2, 0x9d}

#endif // DS_OPS_H
