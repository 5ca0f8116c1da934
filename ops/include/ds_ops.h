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

// op cross_entropy(logits: T[N, V], targets: i64[N], ignore_index: i64 = -100, label_smoothing: f64 = 0.0) -> (loss: f32[N], lse: f32[N]) where T: f32 | f16 | bf16
#define DS_OP_CROSS_ENTROPY "cross_entropy"
#define DS_OP_CROSS_ENTROPY_SCHEMA_TEXT "fd25bbed3d2a678c267a536c16ad2816"
#define DS_OP_CROSS_ENTROPY_SCHEMA \
  {0xfd, 0x25, 0xbb, 0xed, 0x3d, 0x2a, 0x67, 0x8c, \
   0x26, 0x7a, 0x53, 0x6c, 0x16, 0xad, 0x28, 0x16}

// op cross_entropy_tile(logits: T[N, W], targets: i64[N], state: inout f32[N, 4], offset: i64, first: bool) where T: f32 | f16 | bf16
#define DS_OP_CROSS_ENTROPY_TILE "cross_entropy_tile"
#define DS_OP_CROSS_ENTROPY_TILE_SCHEMA_TEXT "cf0fdec7bf9f2dfc2ce19ccee95e92a2"
#define DS_OP_CROSS_ENTROPY_TILE_SCHEMA \
  {0xcf, 0x0f, 0xde, 0xc7, 0xbf, 0x9f, 0x2d, 0xfc, \
   0x2c, 0xe1, 0x9c, 0xce, 0xe9, 0x5e, 0x92, 0xa2}

// op cross_entropy_finish(states: f32[P, N, 4], targets: i64[N], vocabulary: i64, ignore_index: i64 = -100, label_smoothing: f64 = 0.0) -> (loss: f32[N], lse: f32[N])
#define DS_OP_CROSS_ENTROPY_FINISH "cross_entropy_finish"
#define DS_OP_CROSS_ENTROPY_FINISH_SCHEMA_TEXT "1258b4edbfc882b32628a6de8713fe30"
#define DS_OP_CROSS_ENTROPY_FINISH_SCHEMA \
  {0x12, 0x58, 0xb4, 0xed, 0xbf, 0xc8, 0x82, 0xb3, \
   0x26, 0x28, 0xa6, 0xde, 0x87, 0x13, 0xfe, 0x30}

// op cross_entropy_mean(loss: f32[N], targets: i64[N], ignore_index: i64 = -100) -> (mean: f32[], weight: f32[])
#define DS_OP_CROSS_ENTROPY_MEAN "cross_entropy_mean"
#define DS_OP_CROSS_ENTROPY_MEAN_SCHEMA_TEXT "577853dd41f50835f683ffc4bf72e586"
#define DS_OP_CROSS_ENTROPY_MEAN_SCHEMA \
  {0x57, 0x78, 0x53, 0xdd, 0x41, 0xf5, 0x08, 0x35, \
   0xf6, 0x83, 0xff, 0xc4, 0xbf, 0x72, 0xe5, 0x86}

// op cross_entropy_backward(dloss: f32[N], logits: T[N, W], targets: i64[N], lse: f32[N], vocabulary: i64, offset: i64 = 0, ignore_index: i64 = -100, label_smoothing: f64 = 0.0, scale: f64 = 1.0) -> (dlogits: T[N, W]) where T: f32 | f16 | bf16
#define DS_OP_CROSS_ENTROPY_BACKWARD "cross_entropy_backward"
#define DS_OP_CROSS_ENTROPY_BACKWARD_SCHEMA_TEXT "1d4c3e21f22d250b31e39b8dd2bf2f9a"
#define DS_OP_CROSS_ENTROPY_BACKWARD_SCHEMA \
  {0x1d, 0x4c, 0x3e, 0x21, 0xf2, 0x2d, 0x25, 0x0b, \
   0x31, 0xe3, 0x9b, 0x8d, 0xd2, 0xbf, 0x2f, 0x9a}

// op embedding(weight: T[V, D], indices: I[S...]) -> (y: T[S..., D]) where T: f32 | f16 | bf16, I: i32 | i64
#define DS_OP_EMBEDDING "embedding"
#define DS_OP_EMBEDDING_SCHEMA_TEXT "245b4d00a13b748501073ae76a399e3b"
#define DS_OP_EMBEDDING_SCHEMA \
  {0x24, 0x5b, 0x4d, 0x00, 0xa1, 0x3b, 0x74, 0x85, \
   0x01, 0x07, 0x3a, 0xe7, 0x6a, 0x39, 0x9e, 0x3b}

// op embedding_backward(dy: T[S..., D], indices: I[S...], dweight: inout T[V, D], padding_idx: i64 = -1, accumulate: bool = false) where T: f32 | f16 | bf16, I: i32 | i64
#define DS_OP_EMBEDDING_BACKWARD "embedding_backward"
#define DS_OP_EMBEDDING_BACKWARD_SCHEMA_TEXT "29e7e6d22aa68c42c5d2e548dc0cdba8"
#define DS_OP_EMBEDDING_BACKWARD_SCHEMA \
  {0x29, 0xe7, 0xe6, 0xd2, 0x2a, 0xa6, 0x8c, 0x42, \
   0xc5, 0xd2, 0xe5, 0x48, 0xdc, 0x0c, 0xdb, 0xa8}

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

// op rope(x: T[B, S, H, D], cos: f32[P, R], sin: f32[P, R], positions: optional I[B, S], offset: i64 = 0, inverse: bool = false, interleaved: static bool = false) -> (y: T[B, S, H, D]) where T: f32 | f16 | bf16, I: i32 | i64
#define DS_OP_ROPE "rope"
#define DS_OP_ROPE_SCHEMA_TEXT "c7c2a2d4567715a355b08033106ce3fc"
#define DS_OP_ROPE_SCHEMA \
  {0xc7, 0xc2, 0xa2, 0xd4, 0x56, 0x77, 0x15, 0xa3, \
   0x55, 0xb0, 0x80, 0x33, 0x10, 0x6c, 0xe3, 0xfc}

// op softmax(x: T[S..., D], mask: optional T[S..., D], scale: f64 = 1.0, causal: static bool = false) -> (y: T[S..., D]) where T: f32 | f16 | bf16
#define DS_OP_SOFTMAX "softmax"
#define DS_OP_SOFTMAX_SCHEMA_TEXT "68df78eb819e8a32d356eb2fc7578fd3"
#define DS_OP_SOFTMAX_SCHEMA \
  {0x68, 0xdf, 0x78, 0xeb, 0x81, 0x9e, 0x8a, 0x32, \
   0xd3, 0x56, 0xeb, 0x2f, 0xc7, 0x57, 0x8f, 0xd3}

// op softmax_backward(dy: T[S..., D], y: T[S..., D], scale: f64 = 1.0) -> (dx: T[S..., D]) where T: f32 | f16 | bf16
#define DS_OP_SOFTMAX_BACKWARD "softmax_backward"
#define DS_OP_SOFTMAX_BACKWARD_SCHEMA_TEXT "2772204ed4d7da52d4be040600c4262b"
#define DS_OP_SOFTMAX_BACKWARD_SCHEMA \
  {0x27, 0x72, 0x20, 0x4e, 0xd4, 0xd7, 0xda, 0x52, \
   0xd4, 0xbe, 0x04, 0x06, 0x00, 0xc4, 0x26, 0x2b}

// op log_softmax(x: T[S..., D]) -> (y: T[S..., D]) where T: f32 | f16 | bf16
#define DS_OP_LOG_SOFTMAX "log_softmax"
#define DS_OP_LOG_SOFTMAX_SCHEMA_TEXT "66f8cccdffa29fd6a1a2e630fe954369"
#define DS_OP_LOG_SOFTMAX_SCHEMA \
  {0x66, 0xf8, 0xcc, 0xcd, 0xff, 0xa2, 0x9f, 0xd6, \
   0xa1, 0xa2, 0xe6, 0x30, 0xfe, 0x95, 0x43, 0x69}

// op log_softmax_backward(dy: T[S..., D], y: T[S..., D]) -> (dx: T[S..., D]) where T: f32 | f16 | bf16
#define DS_OP_LOG_SOFTMAX_BACKWARD "log_softmax_backward"
#define DS_OP_LOG_SOFTMAX_BACKWARD_SCHEMA_TEXT "51b9de9f59cfd59e5db490ec31edf9eb"
#define DS_OP_LOG_SOFTMAX_BACKWARD_SCHEMA \
  {0x51, 0xb9, 0xde, 0x9f, 0x59, 0xcf, 0xd5, 0x9e, \
   0x5d, 0xb4, 0x90, 0xec, 0x31, 0xed, 0xf9, 0xeb}

#endif // DS_OPS_H
