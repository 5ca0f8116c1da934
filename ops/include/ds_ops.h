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

// op cast(x: A[S...]) -> (y: B[S...]) where A: f32 | f16 | bf16 | f64 | i8 | u8 | i16 | i32 | i64 | bool | f8e4m3 | f8e5m2, B: f32 | f16 | bf16 | f64 | i8 | u8 | i16 | i32 | i64 | bool | f8e4m3 | f8e5m2
#define DS_OP_CAST "cast"
#define DS_OP_CAST_SCHEMA_TEXT "12594ea2b298c7389e273439f3946892"
#define DS_OP_CAST_SCHEMA \
  {0x12, 0x59, 0x4e, 0xa2, 0xb2, 0x98, 0xc7, 0x38, \
   0x9e, 0x27, 0x34, 0x39, 0xf3, 0x94, 0x68, 0x92}

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

// op add(a: T[S...], b: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_ADD "add"
#define DS_OP_ADD_SCHEMA_TEXT "50659e25d732e135b6036af77820b379"
#define DS_OP_ADD_SCHEMA \
  {0x50, 0x65, 0x9e, 0x25, 0xd7, 0x32, 0xe1, 0x35, \
   0xb6, 0x03, 0x6a, 0xf7, 0x78, 0x20, 0xb3, 0x79}

// op sub(a: T[S...], b: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_SUB "sub"
#define DS_OP_SUB_SCHEMA_TEXT "31f2c7b4281930292dd39d8a361d305e"
#define DS_OP_SUB_SCHEMA \
  {0x31, 0xf2, 0xc7, 0xb4, 0x28, 0x19, 0x30, 0x29, \
   0x2d, 0xd3, 0x9d, 0x8a, 0x36, 0x1d, 0x30, 0x5e}

// op mul(a: T[S...], b: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_MUL "mul"
#define DS_OP_MUL_SCHEMA_TEXT "15bebbcf92e7925a0dd2fa3267728c8c"
#define DS_OP_MUL_SCHEMA \
  {0x15, 0xbe, 0xbb, 0xcf, 0x92, 0xe7, 0x92, 0x5a, \
   0x0d, 0xd2, 0xfa, 0x32, 0x67, 0x72, 0x8c, 0x8c}

// op div(a: T[S...], b: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_DIV "div"
#define DS_OP_DIV_SCHEMA_TEXT "521037cc0a5e9e426ce216dca0dd63c9"
#define DS_OP_DIV_SCHEMA \
  {0x52, 0x10, 0x37, 0xcc, 0x0a, 0x5e, 0x9e, 0x42, \
   0x6c, 0xe2, 0x16, 0xdc, 0xa0, 0xdd, 0x63, 0xc9}

// op maximum(a: T[S...], b: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_MAXIMUM "maximum"
#define DS_OP_MAXIMUM_SCHEMA_TEXT "0a14af6bc8781e31a1f4412d435f9f56"
#define DS_OP_MAXIMUM_SCHEMA \
  {0x0a, 0x14, 0xaf, 0x6b, 0xc8, 0x78, 0x1e, 0x31, \
   0xa1, 0xf4, 0x41, 0x2d, 0x43, 0x5f, 0x9f, 0x56}

// op minimum(a: T[S...], b: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_MINIMUM "minimum"
#define DS_OP_MINIMUM_SCHEMA_TEXT "8280fdba4210067dffec83b6651c12fa"
#define DS_OP_MINIMUM_SCHEMA \
  {0x82, 0x80, 0xfd, 0xba, 0x42, 0x10, 0x06, 0x7d, \
   0xff, 0xec, 0x83, 0xb6, 0x65, 0x1c, 0x12, 0xfa}

// op add_scaled(a: T[S...], b: T[S...], alpha: f64) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_ADD_SCALED "add_scaled"
#define DS_OP_ADD_SCALED_SCHEMA_TEXT "c1fb78bd5abf0699bd83b57aa771ed60"
#define DS_OP_ADD_SCALED_SCHEMA \
  {0xc1, 0xfb, 0x78, 0xbd, 0x5a, 0xbf, 0x06, 0x99, \
   0xbd, 0x83, 0xb5, 0x7a, 0xa7, 0x71, 0xed, 0x60}

// op scale(x: T[S...], factor: f64, shift: f64 = 0.0) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_SCALE "scale"
#define DS_OP_SCALE_SCHEMA_TEXT "6c9d63619281caa36bae8dd16e18b676"
#define DS_OP_SCALE_SCHEMA \
  {0x6c, 0x9d, 0x63, 0x61, 0x92, 0x81, 0xca, 0xa3, \
   0x6b, 0xae, 0x8d, 0xd1, 0x6e, 0x18, 0xb6, 0x76}

// op clamp(x: T[S...], min: f64, max: f64) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_CLAMP "clamp"
#define DS_OP_CLAMP_SCHEMA_TEXT "deff1d47e826042d69a848cba01bc732"
#define DS_OP_CLAMP_SCHEMA \
  {0xde, 0xff, 0x1d, 0x47, 0xe8, 0x26, 0x04, 0x2d, \
   0x69, 0xa8, 0x48, 0xcb, 0xa0, 0x1b, 0xc7, 0x32}

// op neg(x: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_NEG "neg"
#define DS_OP_NEG_SCHEMA_TEXT "baff06c422b756a79b6e830117bea026"
#define DS_OP_NEG_SCHEMA \
  {0xba, 0xff, 0x06, 0xc4, 0x22, 0xb7, 0x56, 0xa7, \
   0x9b, 0x6e, 0x83, 0x01, 0x17, 0xbe, 0xa0, 0x26}

// op abs(x: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_ABS "abs"
#define DS_OP_ABS_SCHEMA_TEXT "2790900a7e14eb06f662a62c85360992"
#define DS_OP_ABS_SCHEMA \
  {0x27, 0x90, 0x90, 0x0a, 0x7e, 0x14, 0xeb, 0x06, \
   0xf6, 0x62, 0xa6, 0x2c, 0x85, 0x36, 0x09, 0x92}

// op sqrt(x: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_SQRT "sqrt"
#define DS_OP_SQRT_SCHEMA_TEXT "a4ce4aed85d50fda23397520564b1e50"
#define DS_OP_SQRT_SCHEMA \
  {0xa4, 0xce, 0x4a, 0xed, 0x85, 0xd5, 0x0f, 0xda, \
   0x23, 0x39, 0x75, 0x20, 0x56, 0x4b, 0x1e, 0x50}

// op square(x: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_SQUARE "square"
#define DS_OP_SQUARE_SCHEMA_TEXT "42c97c66fe9e9f2e8086148f53fd1fd1"
#define DS_OP_SQUARE_SCHEMA \
  {0x42, 0xc9, 0x7c, 0x66, 0xfe, 0x9e, 0x9f, 0x2e, \
   0x80, 0x86, 0x14, 0x8f, 0x53, 0xfd, 0x1f, 0xd1}

// op reciprocal(x: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_RECIPROCAL "reciprocal"
#define DS_OP_RECIPROCAL_SCHEMA_TEXT "37955a06d1fdebaee930dc181359e05c"
#define DS_OP_RECIPROCAL_SCHEMA \
  {0x37, 0x95, 0x5a, 0x06, 0xd1, 0xfd, 0xeb, 0xae, \
   0xe9, 0x30, 0xdc, 0x18, 0x13, 0x59, 0xe0, 0x5c}

// op exp(x: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_EXP "exp"
#define DS_OP_EXP_SCHEMA_TEXT "63f0856a9a9471756ff7363d29ebc52c"
#define DS_OP_EXP_SCHEMA \
  {0x63, 0xf0, 0x85, 0x6a, 0x9a, 0x94, 0x71, 0x75, \
   0x6f, 0xf7, 0x36, 0x3d, 0x29, 0xeb, 0xc5, 0x2c}

// op log(x: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_LOG "log"
#define DS_OP_LOG_SCHEMA_TEXT "25a52d0e0fd3ca6a48e9f8c59c4a61b5"
#define DS_OP_LOG_SCHEMA \
  {0x25, 0xa5, 0x2d, 0x0e, 0x0f, 0xd3, 0xca, 0x6a, \
   0x48, 0xe9, 0xf8, 0xc5, 0x9c, 0x4a, 0x61, 0xb5}

// op rsqrt(x: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_RSQRT "rsqrt"
#define DS_OP_RSQRT_SCHEMA_TEXT "2303597708c1f1b6927aaeb173a0f19b"
#define DS_OP_RSQRT_SCHEMA \
  {0x23, 0x03, 0x59, 0x77, 0x08, 0xc1, 0xf1, 0xb6, \
   0x92, 0x7a, 0xae, 0xb1, 0x73, 0xa0, 0xf1, 0x9b}

// op select(condition: bool[S...], a: T[S...], b: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16 | i32 | i64
#define DS_OP_SELECT "select"
#define DS_OP_SELECT_SCHEMA_TEXT "1947619c591228130b7c640a70a2bcba"
#define DS_OP_SELECT_SCHEMA \
  {0x19, 0x47, 0x61, 0x9c, 0x59, 0x12, 0x28, 0x13, \
   0x0b, 0x7c, 0x64, 0x0a, 0x70, 0xa2, 0xbc, 0xba}

// op masked_fill(x: T[S...], mask: bool[S...], value: f64) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_MASKED_FILL "masked_fill"
#define DS_OP_MASKED_FILL_SCHEMA_TEXT "5ab205cda9d8cdba3a7d683a10388e79"
#define DS_OP_MASKED_FILL_SCHEMA \
  {0x5a, 0xb2, 0x05, 0xcd, 0xa9, 0xd8, 0xcd, 0xba, \
   0x3a, 0x7d, 0x68, 0x3a, 0x10, 0x38, 0x8e, 0x79}

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

// op evoformer_attn(q: T[B, N, S, H, D], k: T[B, N, L, H, D], v: T[B, N, L, H, D], bias1: optional T[B, N, 1, 1, L], bias2: optional T[B, 1, H, S, L], scale: f64) -> (o: T[B, N, S, H, D], lse: f32[B, N, H, S]) where T: f32 | f16 | bf16
#define DS_OP_EVOFORMER_ATTN "evoformer_attn"
#define DS_OP_EVOFORMER_ATTN_SCHEMA_TEXT "aeb96afe22f5bf6fd8a66eb8c9ba121d"
#define DS_OP_EVOFORMER_ATTN_SCHEMA \
  {0xae, 0xb9, 0x6a, 0xfe, 0x22, 0xf5, 0xbf, 0x6f, \
   0xd8, 0xa6, 0x6e, 0xb8, 0xc9, 0xba, 0x12, 0x1d}

// op evoformer_attn_backward(do: T[B, N, S, H, D], q: T[B, N, S, H, D], k: T[B, N, L, H, D], v: T[B, N, L, H, D], o: T[B, N, S, H, D], lse: f32[B, N, H, S], bias1: optional T[B, N, 1, 1, L], bias2: optional T[B, 1, H, S, L], dbias1: inout optional T[B, N, 1, 1, L], dbias2: inout optional T[B, 1, H, S, L], scale: f64) -> (dq: T[B, N, S, H, D], dk: T[B, N, L, H, D], dv: T[B, N, L, H, D]) where T: f32 | f16 | bf16
#define DS_OP_EVOFORMER_ATTN_BACKWARD "evoformer_attn_backward"
#define DS_OP_EVOFORMER_ATTN_BACKWARD_SCHEMA_TEXT "e9b83d45fbb1f8cfb70a304f47a55f1e"
#define DS_OP_EVOFORMER_ATTN_BACKWARD_SCHEMA \
  {0xe9, 0xb8, 0x3d, 0x45, 0xfb, 0xb1, 0xf8, 0xcf, \
   0xb7, 0x0a, 0x30, 0x4f, 0x47, 0xa5, 0x5f, 0x1e}

// op flash_attn(q: T[B, S, H, D], k: T[B, L, G, D], v: T[B, L, G, D], alibi: optional f32[H], scale: f64, causal: static bool = false, window_left: static i64 = -1, window_right: static i64 = -1) -> (o: T[B, S, H, D], lse: f32[B, H, S]) where T: f32 | f16 | bf16
#define DS_OP_FLASH_ATTN "flash_attn"
#define DS_OP_FLASH_ATTN_SCHEMA_TEXT "da0df105ee79edf32187e80f4a40731a"
#define DS_OP_FLASH_ATTN_SCHEMA \
  {0xda, 0x0d, 0xf1, 0x05, 0xee, 0x79, 0xed, 0xf3, \
   0x21, 0x87, 0xe8, 0x0f, 0x4a, 0x40, 0x73, 0x1a}

// op flash_attn_varlen(q: T[S, H, D], k: T[L, G, D], v: T[L, G, D], q_starts: I[N1], kv_starts: I[N1], alibi: optional f32[H], scale: f64, causal: static bool = false, window_left: static i64 = -1, window_right: static i64 = -1) -> (o: T[S, H, D], lse: f32[H, S]) where T: f32 | f16 | bf16, I: i32 | i64
#define DS_OP_FLASH_ATTN_VARLEN "flash_attn_varlen"
#define DS_OP_FLASH_ATTN_VARLEN_SCHEMA_TEXT "580df6028ec18b4b447a6ce15dda58e8"
#define DS_OP_FLASH_ATTN_VARLEN_SCHEMA \
  {0x58, 0x0d, 0xf6, 0x02, 0x8e, 0xc1, 0x8b, 0x4b, \
   0x44, 0x7a, 0x6c, 0xe1, 0x5d, 0xda, 0x58, 0xe8}

// op flash_attn_backward(do: T[B, S, H, D], q: T[B, S, H, D], k: T[B, L, G, D], v: T[B, L, G, D], o: T[B, S, H, D], lse: f32[B, H, S], alibi: optional f32[H], scale: f64, causal: static bool = false, window_left: static i64 = -1, window_right: static i64 = -1) -> (dq: T[B, S, H, D], dk: T[B, L, G, D], dv: T[B, L, G, D]) where T: f32 | f16 | bf16
#define DS_OP_FLASH_ATTN_BACKWARD "flash_attn_backward"
#define DS_OP_FLASH_ATTN_BACKWARD_SCHEMA_TEXT "fe86b7cbc5b1fb1412309ccf42511440"
#define DS_OP_FLASH_ATTN_BACKWARD_SCHEMA \
  {0xfe, 0x86, 0xb7, 0xcb, 0xc5, 0xb1, 0xfb, 0x14, \
   0x12, 0x30, 0x9c, 0xcf, 0x42, 0x51, 0x14, 0x40}

// op flash_attn_varlen_backward(do: T[S, H, D], q: T[S, H, D], k: T[L, G, D], v: T[L, G, D], o: T[S, H, D], lse: f32[H, S], q_starts: I[N1], kv_starts: I[N1], alibi: optional f32[H], scale: f64, causal: static bool = false, window_left: static i64 = -1, window_right: static i64 = -1) -> (dq: T[S, H, D], dk: T[L, G, D], dv: T[L, G, D]) where T: f32 | f16 | bf16, I: i32 | i64
#define DS_OP_FLASH_ATTN_VARLEN_BACKWARD "flash_attn_varlen_backward"
#define DS_OP_FLASH_ATTN_VARLEN_BACKWARD_SCHEMA_TEXT "81675a2baa7fe54666ab2d39afd50eae"
#define DS_OP_FLASH_ATTN_VARLEN_BACKWARD_SCHEMA \
  {0x81, 0x67, 0x5a, 0x2b, 0xaa, 0x7f, 0xe5, 0x46, \
   0x66, 0xab, 0x2d, 0x39, 0xaf, 0xd5, 0x0e, 0xae}

// op fp_quantize(x: T[G, H, P], codes: inout u8[G, H, B], seed: i64 = 0, offset: i64 = 0, mantissa: static i64 = 3, stochastic: static bool = false) -> (step: f32[G]) where T: f32 | f16 | bf16
#define DS_OP_FP_QUANTIZE "fp_quantize"
#define DS_OP_FP_QUANTIZE_SCHEMA_TEXT "7d4eb6a056bbb319fcc0df0c211e4fd2"
#define DS_OP_FP_QUANTIZE_SCHEMA \
  {0x7d, 0x4e, 0xb6, 0xa0, 0x56, 0xbb, 0xb3, 0x19, \
   0xfc, 0xc0, 0xdf, 0x0c, 0x21, 0x1e, 0x4f, 0xd2}

// op fp_dequantize(codes: u8[G, H, B], step: f32[G], y: inout T[G, H, P], mantissa: static i64 = 3) where T: f32 | f16 | bf16
#define DS_OP_FP_DEQUANTIZE "fp_dequantize"
#define DS_OP_FP_DEQUANTIZE_SCHEMA_TEXT "0c6fb6efa3f190cbaaed0b66fabe973d"
#define DS_OP_FP_DEQUANTIZE_SCHEMA \
  {0x0c, 0x6f, 0xb6, 0xef, 0xa3, 0xf1, 0x90, 0xcb, \
   0xaa, 0xed, 0x0b, 0x66, 0xfa, 0xbe, 0x97, 0x3d}

// op fp_selective_dequantize(codes: u8[R, G, H, B], step: f32[R, G], index: I[K], y: inout T[K, G, H, P], mantissa: static i64 = 3) where I: i32 | i64, T: f32 | f16 | bf16
#define DS_OP_FP_SELECTIVE_DEQUANTIZE "fp_selective_dequantize"
#define DS_OP_FP_SELECTIVE_DEQUANTIZE_SCHEMA_TEXT "7ac143f6ce11dbac786e4b2b0eb098dc"
#define DS_OP_FP_SELECTIVE_DEQUANTIZE_SCHEMA \
  {0x7a, 0xc1, 0x43, 0xf6, 0xce, 0x11, 0xdb, 0xac, \
   0x78, 0x6e, 0x4b, 0x2b, 0x0e, 0xb0, 0x98, 0xdc}

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

// op lion_step(params: inout list P[S...], grads: list P[S...], exp_avg: inout list M[S...], found_inf: optional f32[], lr: f64, beta1: f64, beta2: f64, weight_decay: f64) where (P, M): (f32, f32) | (f16, f32) | (f16, f16) | (bf16, f32) | (bf16, bf16)
#define DS_OP_LION_STEP "lion_step"
#define DS_OP_LION_STEP_SCHEMA_TEXT "0c12c974e2b102c806508a34da97df15"
#define DS_OP_LION_STEP_SCHEMA \
  {0x0c, 0x12, 0xc9, 0x74, 0xe2, 0xb1, 0x02, 0xc8, \
   0x06, 0x50, 0x8a, 0x34, 0xda, 0x97, 0xdf, 0x15}

// op matmul(a: T[B..., M, K], b: T[B..., K, N]) -> (c: T[B..., M, N]) where T: f32 | f16 | bf16
#define DS_OP_MATMUL "matmul"
#define DS_OP_MATMUL_SCHEMA_TEXT "60e2c888ad085a3d8fdeab7f3e9946b4"
#define DS_OP_MATMUL_SCHEMA \
  {0x60, 0xe2, 0xc8, 0x88, 0xad, 0x08, 0x5a, 0x3d, \
   0x8f, 0xde, 0xab, 0x7f, 0x3e, 0x99, 0x46, 0xb4}

// op linear(x: T[M, K], w: T[N, K], bias: optional T[N], residual: optional T[M, N], kind: static i64 = 0) -> (y: T[M, N]) where T: f32 | f16 | bf16
#define DS_OP_LINEAR "linear"
#define DS_OP_LINEAR_SCHEMA_TEXT "5bfd58dd9a9426e42f1ac3cf64b6e329"
#define DS_OP_LINEAR_SCHEMA \
  {0x5b, 0xfd, 0x58, 0xdd, 0x9a, 0x94, 0x26, 0xe4, \
   0x2f, 0x1a, 0xc3, 0xcf, 0x64, 0xb6, 0xe3, 0x29}

// op grouped_matmul(x: T[R, K], w: T[E, N, K], starts: I[E1], bias: optional T[E, N], kind: static i64 = 0) -> (y: T[R, N]) where T: f32 | f16 | bf16, I: i32 | i64
#define DS_OP_GROUPED_MATMUL "grouped_matmul"
#define DS_OP_GROUPED_MATMUL_SCHEMA_TEXT "155e822f1c7c61c1d3ac1ca0b8636d13"
#define DS_OP_GROUPED_MATMUL_SCHEMA \
  {0x15, 0x5e, 0x82, 0x2f, 0x1c, 0x7c, 0x61, 0xc1, \
   0xd3, 0xac, 0x1c, 0xa0, 0xb8, 0x63, 0x6d, 0x13}

// op top_k_gating(logits: T[R, E], n_tokens: optional i32[], scores: inout f32[R, K], assignments: inout i32[R, K], offsets: inout i32[R, K]) -> (expert_counts: i32[E]) where T: f32 | f16 | bf16
#define DS_OP_TOP_K_GATING "top_k_gating"
#define DS_OP_TOP_K_GATING_SCHEMA_TEXT "c213e851f0ed61143c90e281261f9871"
#define DS_OP_TOP_K_GATING_SCHEMA \
  {0xc2, 0x13, 0xe8, 0x51, 0xf0, 0xed, 0x61, 0x14, \
   0x3c, 0x90, 0xe2, 0x81, 0x26, 0x1f, 0x98, 0x71}

// op moe_gate(logits: f32[S, E], noise: optional f32[S, E], used: optional bool[S], priority: optional f32[S], weights: inout f32[S, K], assignments: inout i32[S, K], offsets: inout i32[S, K], capacity: i64, choice_major: static bool, by_probability: static bool, normalize: static bool) -> (expert_counts: i64[E], load: f32[E], l_aux: f32[])
#define DS_OP_MOE_GATE "moe_gate"
#define DS_OP_MOE_GATE_SCHEMA_TEXT "74ae29b402cd3cd40cd2bdd73cd631f0"
#define DS_OP_MOE_GATE_SCHEMA \
  {0x74, 0xae, 0x29, 0xb4, 0x02, 0xcd, 0x3c, 0xd4, \
   0x0c, 0xd2, 0xbd, 0xd7, 0x3c, 0xd6, 0x31, 0xf0}

// op moe_gate_backward(dweights: f32[S, K], dl_aux: f32[], logits: f32[S, E], assignments: i32[S, K], load: f32[E], normalize: static bool) -> (dlogits: f32[S, E])
#define DS_OP_MOE_GATE_BACKWARD "moe_gate_backward"
#define DS_OP_MOE_GATE_BACKWARD_SCHEMA_TEXT "42574856139bd7e1cf1f0416e033bcbe"
#define DS_OP_MOE_GATE_BACKWARD_SCHEMA \
  {0x42, 0x57, 0x48, 0x56, 0x13, 0x9b, 0xd7, 0xe1, \
   0xcf, 0x1f, 0x04, 0x16, 0xe0, 0x33, 0xbc, 0xbe}

// op moe_slots(assignments: i32[S, K], offsets: i32[S, K], expert_counts: I[E], capacity: i64 = -1) -> (slots: i32[S, K], ends: i64[E]) where I: i32 | i64
#define DS_OP_MOE_SLOTS "moe_slots"
#define DS_OP_MOE_SLOTS_SCHEMA_TEXT "f5a9916f462e29f0167ddf89f6ab823e"
#define DS_OP_MOE_SLOTS_SCHEMA \
  {0xf5, 0xa9, 0x91, 0x6f, 0x46, 0x2e, 0x29, 0xf0, \
   0x16, 0x7d, 0xdf, 0x89, 0xf6, 0xab, 0x82, 0x3e}

// op moe_dispatch(x: T[S, D], slots: i32[S, K], y: inout T[P, D]) where T: f32 | f16 | bf16
#define DS_OP_MOE_DISPATCH "moe_dispatch"
#define DS_OP_MOE_DISPATCH_SCHEMA_TEXT "68247f180b2e01f88a1f26566cec5295"
#define DS_OP_MOE_DISPATCH_SCHEMA \
  {0x68, 0x24, 0x7f, 0x18, 0x0b, 0x2e, 0x01, 0xf8, \
   0x8a, 0x1f, 0x26, 0x56, 0x6c, 0xec, 0x52, 0x95}

// op moe_combine(y: T[P, D], weights: optional f32[S, K], slots: i32[S, K], normalize: bool = false) -> (x: T[S, D]) where T: f32 | f16 | bf16
#define DS_OP_MOE_COMBINE "moe_combine"
#define DS_OP_MOE_COMBINE_SCHEMA_TEXT "61791c7940b9fe2d28b6abefaeb4ae7f"
#define DS_OP_MOE_COMBINE_SCHEMA \
  {0x61, 0x79, 0x1c, 0x79, 0x40, 0xb9, 0xfe, 0x2d, \
   0x28, 0xb6, 0xab, 0xef, 0xae, 0xb4, 0xae, 0x7f}

// op moe_combine_backward(dx: T[S, D], y: T[P, D], weights: f32[S, K], slots: i32[S, K], normalize: bool = false) -> (dy: T[P, D], dweights: f32[S, K]) where T: f32 | f16 | bf16
#define DS_OP_MOE_COMBINE_BACKWARD "moe_combine_backward"
#define DS_OP_MOE_COMBINE_BACKWARD_SCHEMA_TEXT "051ff776bb874e4e2c3ccbb983042719"
#define DS_OP_MOE_COMBINE_BACKWARD_SCHEMA \
  {0x05, 0x1f, 0xf7, 0x76, 0xbb, 0x87, 0x4e, 0x4e, \
   0x2c, 0x3c, 0xcb, 0xb9, 0x83, 0x04, 0x27, 0x19}

// op copy(x: T[S...]) -> (y: T[S...]) where T: f32 | f16 | bf16 | f64 | i8 | u8 | i16 | i32 | i64 | bool
#define DS_OP_COPY "copy"
#define DS_OP_COPY_SCHEMA_TEXT "b3eabfd3dcf6725e35e56e76e9cc1268"
#define DS_OP_COPY_SCHEMA \
  {0xb3, 0xea, 0xbf, 0xd3, 0xdc, 0xf6, 0x72, 0x5e, \
   0x35, 0xe5, 0x6e, 0x76, 0xe9, 0xcc, 0x12, 0x68}

// op index_select(x: T[N, S...], index: I[M]) -> (y: T[M, S...]) where T: f32 | f16 | bf16 | i32 | i64, I: i32 | i64
#define DS_OP_INDEX_SELECT "index_select"
#define DS_OP_INDEX_SELECT_SCHEMA_TEXT "1da20f76b372cc21d173c3e2a90a8d30"
#define DS_OP_INDEX_SELECT_SCHEMA \
  {0x1d, 0xa2, 0x0f, 0x76, 0xb3, 0x72, 0xcc, 0x21, \
   0xd1, 0x73, 0xc3, 0xe2, 0xa9, 0x0a, 0x8d, 0x30}

// op scatter_add(y: inout f32[N, S...], index: I[M], x: T[M, S...]) where I: i32 | i64, T: f32 | f16 | bf16
#define DS_OP_SCATTER_ADD "scatter_add"
#define DS_OP_SCATTER_ADD_SCHEMA_TEXT "89048bd8da699c2a680e088a42e93498"
#define DS_OP_SCATTER_ADD_SCHEMA \
  {0x89, 0x04, 0x8b, 0xd8, 0xda, 0x69, 0x9c, 0x2a, \
   0x68, 0x0e, 0x08, 0x8a, 0x42, 0xe9, 0x34, 0x98}

// op top_k(x: T[S..., D], values: inout T[S..., K], indices: inout i64[S..., K]) where T: f32 | f16 | bf16
#define DS_OP_TOP_K "top_k"
#define DS_OP_TOP_K_SCHEMA_TEXT "28599e46c857dfbc690eb220b6ba7cfd"
#define DS_OP_TOP_K_SCHEMA \
  {0x28, 0x59, 0x9e, 0x46, 0xc8, 0x57, 0xdf, 0xbc, \
   0x69, 0x0e, 0xb2, 0x20, 0xb6, 0xba, 0x7c, 0xfd}

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

// op packbits(x: T[N, 8]) -> (bits: u8[N]) where T: f32 | f16 | bf16 | u8 | bool
#define DS_OP_PACKBITS "packbits"
#define DS_OP_PACKBITS_SCHEMA_TEXT "33eb17687a25d2960f52ff8c9ea3e865"
#define DS_OP_PACKBITS_SCHEMA \
  {0x33, 0xeb, 0x17, 0x68, 0x7a, 0x25, 0xd2, 0x96, \
   0x0f, 0x52, 0xff, 0x8c, 0x9e, 0xa3, 0xe8, 0x65}

// op unpackbits(bits: u8[N], signs: static bool = false) -> (x: T[N, 8]) where T: f32 | f16 | bf16 | u8 | bool
#define DS_OP_UNPACKBITS "unpackbits"
#define DS_OP_UNPACKBITS_SCHEMA_TEXT "83b754f8ab612c9b3f750c652ec06213"
#define DS_OP_UNPACKBITS_SCHEMA \
  {0x83, 0xb7, 0x54, 0xf8, 0xab, 0x61, 0x2c, 0x9b, \
   0x3f, 0x75, 0x0c, 0x65, 0x2e, 0xc0, 0x62, 0x13}

// op quantized_linear(x: T[M, G, H, P], q: i8[N, G, H], params: f32[N, G, 2], bias: optional T[N], residual: optional T[M, N], kind: static i64 = 0) -> (y: T[M, N]) where T: f32 | f16 | bf16
#define DS_OP_QUANTIZED_LINEAR "quantized_linear"
#define DS_OP_QUANTIZED_LINEAR_SCHEMA_TEXT "02d5b633e60807d0d2dd7690ec9f3046"
#define DS_OP_QUANTIZED_LINEAR_SCHEMA \
  {0x02, 0xd5, 0xb6, 0x33, 0xe6, 0x08, 0x07, 0xd0, \
   0xd2, 0xdd, 0x76, 0x90, 0xec, 0x9f, 0x30, 0x46}

// op quantized_grouped_matmul(x: T[M, G, H, P], q: i8[E, N, G, H], params: f32[E, N, G, 2], starts: I[E1], bias: optional T[E, N], kind: static i64 = 0) -> (y: T[M, N]) where T: f32 | f16 | bf16, I: i32 | i64
#define DS_OP_QUANTIZED_GROUPED_MATMUL "quantized_grouped_matmul"
#define DS_OP_QUANTIZED_GROUPED_MATMUL_SCHEMA_TEXT "eca2075428bd89d722b24d765dd22918"
#define DS_OP_QUANTIZED_GROUPED_MATMUL_SCHEMA \
  {0xec, 0xa2, 0x07, 0x54, 0x28, 0xbd, 0x89, 0xd7, \
   0x22, 0xb2, 0x4d, 0x76, 0x5d, 0xd2, 0x29, 0x18}

// op fp_linear(x: T[M, G, H, P], codes: u8[N, G, H, B], step: f32[N, G], bias: optional T[N], residual: optional T[M, N], kind: static i64 = 0, mantissa: static i64 = 3) -> (y: T[M, N]) where T: f32 | f16 | bf16
#define DS_OP_FP_LINEAR "fp_linear"
#define DS_OP_FP_LINEAR_SCHEMA_TEXT "dd2e5ea3db8fbaefb86633cc9f5d8564"
#define DS_OP_FP_LINEAR_SCHEMA \
  {0xdd, 0x2e, 0x5e, 0xa3, 0xdb, 0x8f, 0xba, 0xef, \
   0xb8, 0x66, 0x33, 0xcc, 0x9f, 0x5d, 0x85, 0x64}

// op quantize(x: T[G, H, P], symmetric: static bool = true) -> (q: i8[G, H], params: f32[G, 2]) where T: f32 | f16 | bf16
#define DS_OP_QUANTIZE "quantize"
#define DS_OP_QUANTIZE_SCHEMA_TEXT "02285ef67b7a0a77c4537f67754cdbac"
#define DS_OP_QUANTIZE_SCHEMA \
  {0x02, 0x28, 0x5e, 0xf6, 0x7b, 0x7a, 0x0a, 0x77, \
   0xc4, 0x53, 0x7f, 0x67, 0x75, 0x4c, 0xdb, 0xac}

// op dequantize(q: i8[G, H], params: f32[G, 2], y: inout T[G, H, P]) where T: f32 | f16 | bf16
#define DS_OP_DEQUANTIZE "dequantize"
#define DS_OP_DEQUANTIZE_SCHEMA_TEXT "51eb9c0711704616dcb98444b861a32a"
#define DS_OP_DEQUANTIZE_SCHEMA \
  {0x51, 0xeb, 0x9c, 0x07, 0x11, 0x70, 0x46, 0x16, \
   0xdc, 0xb9, 0x84, 0x44, 0xb8, 0x61, 0xa3, 0x2a}

// op fake_quantize(x: T[G, N], seed: i64 = 0, offset: i64 = 0, bits: static i64 = 8, symmetric: static bool = true, stochastic: static bool = false) -> (y: T[G, N]) where T: f32 | f16 | bf16
#define DS_OP_FAKE_QUANTIZE "fake_quantize"
#define DS_OP_FAKE_QUANTIZE_SCHEMA_TEXT "ea15ee8ce545dfdee780c18e9aa2a6d6"
#define DS_OP_FAKE_QUANTIZE_SCHEMA \
  {0xea, 0x15, 0xee, 0x8c, 0xe5, 0x45, 0xdf, 0xde, \
   0xe7, 0x80, 0xc1, 0x8e, 0x9a, 0xa2, 0xa6, 0xd6}

// op swizzle_quantize(x: T[M, D, L, C, H, P], symmetric: static bool = true) -> (q: i8[L, D, M, C, H], params: f32[L, D, M, C, 2]) where T: f32 | f16 | bf16
#define DS_OP_SWIZZLE_QUANTIZE "swizzle_quantize"
#define DS_OP_SWIZZLE_QUANTIZE_SCHEMA_TEXT "a6f875f30f09083039e8471050c13f48"
#define DS_OP_SWIZZLE_QUANTIZE_SCHEMA \
  {0xa6, 0xf8, 0x75, 0xf3, 0x0f, 0x09, 0x08, 0x30, \
   0x39, 0xe8, 0x47, 0x10, 0x50, 0xc1, 0x3f, 0x48}

// op loco_swizzle_quantize(x: T[M, D, L, C, H, P], err: inout T[L, D, M, C, H, P], err_beta: f64, symmetric: static bool = true) -> (q: i8[L, D, M, C, H], params: f32[L, D, M, C, 2]) where T: f32 | f16 | bf16
#define DS_OP_LOCO_SWIZZLE_QUANTIZE "loco_swizzle_quantize"
#define DS_OP_LOCO_SWIZZLE_QUANTIZE_SCHEMA_TEXT "c3e431fac8f4b32b008cba6eac6afe70"
#define DS_OP_LOCO_SWIZZLE_QUANTIZE_SCHEMA \
  {0xc3, 0xe4, 0x31, 0xfa, 0xc8, 0xf4, 0xb3, 0x2b, \
   0x00, 0x8c, 0xba, 0x6e, 0xac, 0x6a, 0xfe, 0x70}

// op quantized_reduction(q: i8[D, G, H], params: f32[D, G, 2], bits: static i64 = 8, symmetric: static bool = true) -> (out: i8[G, H], out_params: f32[G, 2])
#define DS_OP_QUANTIZED_REDUCTION "quantized_reduction"
#define DS_OP_QUANTIZED_REDUCTION_SCHEMA_TEXT "49e9a57018bc465478bf2dc6879cd322"
#define DS_OP_QUANTIZED_REDUCTION_SCHEMA \
  {0x49, 0xe9, 0xa5, 0x70, 0x18, 0xbc, 0x46, 0x54, \
   0x78, 0xbf, 0x2d, 0xc6, 0x87, 0x9c, 0xd3, 0x22}

// op loco_quantized_reduction(q: i8[D, G, H], params: f32[D, G, 2], err: inout T[G, H, P], err_beta: f64, symmetric: static bool = true) -> (out: i8[G, H], out_params: f32[G, 2]) where T: f32 | f16 | bf16
#define DS_OP_LOCO_QUANTIZED_REDUCTION "loco_quantized_reduction"
#define DS_OP_LOCO_QUANTIZED_REDUCTION_SCHEMA_TEXT "1edc71a3ccf116ac68eef3cc20dc5967"
#define DS_OP_LOCO_QUANTIZED_REDUCTION_SCHEMA \
  {0x1e, 0xdc, 0x71, 0xa3, 0xcc, 0xf1, 0x16, 0xac, \
   0x68, 0xee, 0xf3, 0xcc, 0x20, 0xdc, 0x59, 0x67}

// op paged_attention(q: T[S, H, D], cache: T[B, K, 2, G, D], q_starts: I[N1], seen: I[N], blocks: I[N, P], alibi: optional f32[H], scale: f64, causal: static bool = true, window_left: static i64 = -1, window_right: static i64 = -1) -> (o: T[S, H, D]) where T: f32 | f16 | bf16, I: i32 | i64
#define DS_OP_PAGED_ATTENTION "paged_attention"
#define DS_OP_PAGED_ATTENTION_SCHEMA_TEXT "22dfa73a51ec9d2852f981053f036c78"
#define DS_OP_PAGED_ATTENTION_SCHEMA \
  {0x22, 0xdf, 0xa7, 0x3a, 0x51, 0xec, 0x9d, 0x28, \
   0x52, 0xf9, 0x81, 0x05, 0x3f, 0x03, 0x6c, 0x78}

// op kv_append(qkv: inout T[S, X, D], cache: inout T[B, K, 2, G, D], q_starts: I[N1], seen: I[N], blocks: I[N, P], cos: optional f32[M, R], sin: optional f32[M, R], interleaved: static bool = false) where T: f32 | f16 | bf16, I: i32 | i64
#define DS_OP_KV_APPEND "kv_append"
#define DS_OP_KV_APPEND_SCHEMA_TEXT "7eda3e9c57e0bb64230f7c790a7ef0cb"
#define DS_OP_KV_APPEND_SCHEMA \
  {0x7e, 0xda, 0x3e, 0x9c, 0x57, 0xe0, 0xbb, 0x64, \
   0x23, 0x0f, 0x7c, 0x79, 0x0a, 0x7e, 0xf0, 0xcb}

// op ragged_embed(weight: T[V, D], ids: J[S], positions: T[M, D], q_starts: I[N1], seen: I[N], offset: i64 = 0) -> (y: T[S, D]) where T: f32 | f16 | bf16, J: i32 | i64, I: i32 | i64
#define DS_OP_RAGGED_EMBED "ragged_embed"
#define DS_OP_RAGGED_EMBED_SCHEMA_TEXT "9726b61468866bb9bef247f1ce971084"
#define DS_OP_RAGGED_EMBED_SCHEMA \
  {0x97, 0x26, 0xb6, 0x14, 0x68, 0x86, 0x6b, 0xb9, \
   0xbe, 0xf2, 0x47, 0xf1, 0xce, 0x97, 0x10, 0x84}

// op logits_gather(x: T[S, D], starts: I[N], ends: I[N]) -> (y: T[N, D]) where T: f32 | f16 | bf16, I: i32 | i64
#define DS_OP_LOGITS_GATHER "logits_gather"
#define DS_OP_LOGITS_GATHER_SCHEMA_TEXT "a5f38eb56e9a5da1531856d1f6ed87e4"
#define DS_OP_LOGITS_GATHER_SCHEMA \
  {0xa5, 0xf3, 0x8e, 0xb5, 0x6e, 0x9a, 0x5d, 0xa1, \
   0x53, 0x18, 0x56, 0xd1, 0xf6, 0xed, 0x87, 0xe4}

// op token_sort_(ids: inout i32[S..., R])
#define DS_OP_TOKEN_SORT_ "token_sort_"
#define DS_OP_TOKEN_SORT__SCHEMA_TEXT "373fab42ca3b3317025c0bfa353c3ac3"
#define DS_OP_TOKEN_SORT__SCHEMA \
  {0x37, 0x3f, 0xab, 0x42, 0xca, 0x3b, 0x33, 0x17, \
   0x02, 0x5c, 0x0b, 0xfa, 0x35, 0x3c, 0x3a, 0xc3}

// op token_gather(x: T[N, S, C], indices: i32[N, R]) -> (y: T[N, R, C]) where T: f32 | f16 | bf16
#define DS_OP_TOKEN_GATHER "token_gather"
#define DS_OP_TOKEN_GATHER_SCHEMA_TEXT "329e4b1f334cd377e4efb7eddd27ec98"
#define DS_OP_TOKEN_GATHER_SCHEMA \
  {0x32, 0x9e, 0x4b, 0x1f, 0x33, 0x4c, 0xd3, 0x77, \
   0xe4, 0xef, 0xb7, 0xed, 0xdd, 0x27, 0xec, 0x98}

// op token_scatter_(y: inout T[N, S, C], x: T[N, R, C], indices: i32[N, R]) where T: f32 | f16 | bf16
#define DS_OP_TOKEN_SCATTER_ "token_scatter_"
#define DS_OP_TOKEN_SCATTER__SCHEMA_TEXT "8ce710cf45595e7d1396778b0e3134f1"
#define DS_OP_TOKEN_SCATTER__SCHEMA \
  {0x8c, 0xe7, 0x10, 0xcf, 0x45, 0x59, 0x5e, 0x7d, \
   0x13, 0x96, 0x77, 0x8b, 0x0e, 0x31, 0x34, 0xf1}

// op mask_gather_bert(mask: T[N, 1, S, S], indices: i32[L, N, R]) -> (y: T[L, N, 1, R, R]) where T: f32 | f16 | bf16
#define DS_OP_MASK_GATHER_BERT "mask_gather_bert"
#define DS_OP_MASK_GATHER_BERT_SCHEMA_TEXT "8b62fd1d12dc8c3ae51090276ba6fbe4"
#define DS_OP_MASK_GATHER_BERT_SCHEMA \
  {0x8b, 0x62, 0xfd, 0x1d, 0x12, 0xdc, 0x8c, 0x3a, \
   0xe5, 0x10, 0x90, 0x27, 0x6b, 0xa6, 0xfb, 0xe4}

// op sum_last(x: T[S..., D]) -> (y: R[S...]) where (T, R): (f32, f32) | (f16, f32) | (f16, f16) | (bf16, f32) | (bf16, bf16)
#define DS_OP_SUM_LAST "sum_last"
#define DS_OP_SUM_LAST_SCHEMA_TEXT "5f150a30a16a0c2c66b9d3ce58a49e81"
#define DS_OP_SUM_LAST_SCHEMA \
  {0x5f, 0x15, 0x0a, 0x30, 0xa1, 0x6a, 0x0c, 0x2c, \
   0x66, 0xb9, 0xd3, 0xce, 0x58, 0xa4, 0x9e, 0x81}

// op mean_last(x: T[S..., D]) -> (y: R[S...]) where (T, R): (f32, f32) | (f16, f32) | (f16, f16) | (bf16, f32) | (bf16, bf16)
#define DS_OP_MEAN_LAST "mean_last"
#define DS_OP_MEAN_LAST_SCHEMA_TEXT "37bc65256213ba565c1968f1d6c5ab4e"
#define DS_OP_MEAN_LAST_SCHEMA \
  {0x37, 0xbc, 0x65, 0x25, 0x62, 0x13, 0xba, 0x56, \
   0x5c, 0x19, 0x68, 0xf1, 0xd6, 0xc5, 0xab, 0x4e}

// op norm_last(x: T[S..., D]) -> (y: R[S...]) where (T, R): (f32, f32) | (f16, f32) | (f16, f16) | (bf16, f32) | (bf16, bf16)
#define DS_OP_NORM_LAST "norm_last"
#define DS_OP_NORM_LAST_SCHEMA_TEXT "dc0664375ea5e01dc5597ab3a65b22b1"
#define DS_OP_NORM_LAST_SCHEMA \
  {0xdc, 0x06, 0x64, 0x37, 0x5e, 0xa5, 0xe0, 0x1d, \
   0xc5, 0x59, 0x7a, 0xb3, 0xa6, 0x5b, 0x22, 0xb1}

// op max_last(x: T[S..., D]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_MAX_LAST "max_last"
#define DS_OP_MAX_LAST_SCHEMA_TEXT "5d4ffbf315b9b92b9b6b31fd98d7095a"
#define DS_OP_MAX_LAST_SCHEMA \
  {0x5d, 0x4f, 0xfb, 0xf3, 0x15, 0xb9, 0xb9, 0x2b, \
   0x9b, 0x6b, 0x31, 0xfd, 0x98, 0xd7, 0x09, 0x5a}

// op min_last(x: T[S..., D]) -> (y: T[S...]) where T: f32 | f16 | bf16
#define DS_OP_MIN_LAST "min_last"
#define DS_OP_MIN_LAST_SCHEMA_TEXT "5f0425d48404bb80d72a615a79eba5fe"
#define DS_OP_MIN_LAST_SCHEMA \
  {0x5f, 0x04, 0x25, 0xd4, 0x84, 0x04, 0xbb, 0x80, \
   0xd7, 0x2a, 0x61, 0x5a, 0x79, 0xeb, 0xa5, 0xfe}

// op argmax_last(x: T[S..., D]) -> (y: i64[S...]) where T: f32 | f16 | bf16
#define DS_OP_ARGMAX_LAST "argmax_last"
#define DS_OP_ARGMAX_LAST_SCHEMA_TEXT "56b77157ea4828894e98f49053bef40f"
#define DS_OP_ARGMAX_LAST_SCHEMA \
  {0x56, 0xb7, 0x71, 0x57, 0xea, 0x48, 0x28, 0x89, \
   0x4e, 0x98, 0xf4, 0x90, 0x53, 0xbe, 0xf4, 0x0f}

// op sum_leading(x: T[S..., D]) -> (y: R[D]) where (T, R): (f32, f32) | (f16, f32) | (f16, f16) | (bf16, f32) | (bf16, bf16)
#define DS_OP_SUM_LEADING "sum_leading"
#define DS_OP_SUM_LEADING_SCHEMA_TEXT "25b9205bf08926cb02278cb0c09bb048"
#define DS_OP_SUM_LEADING_SCHEMA \
  {0x25, 0xb9, 0x20, 0x5b, 0xf0, 0x89, 0x26, 0xcb, \
   0x02, 0x27, 0x8c, 0xb0, 0xc0, 0x9b, 0xb0, 0x48}

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

// op rope(x: T[B, S, H, D], cos: f32[P, R], sin: f32[P, R], positions: optional I[B, S], offset: i64 = 0, inverse: bool = false, interleaved: static bool = false) -> (y: T[B, S, H, D]) where T: f32 | f16 | bf16, I: i32 | i64
#define DS_OP_ROPE "rope"
#define DS_OP_ROPE_SCHEMA_TEXT "c7c2a2d4567715a355b08033106ce3fc"
#define DS_OP_ROPE_SCHEMA \
  {0xc7, 0xc2, 0xa2, 0xd4, 0x56, 0x77, 0x15, 0xa3, \
   0x55, 0xb0, 0x80, 0x33, 0x10, 0x6c, 0xe3, 0xfc}

// op sample(logits: T[R, V], seed: i64, offset: i64, temperature: f64, top_k: i64, top_p: f64) -> (tokens: i64[R], logprobs: f32[R]) where T: f32 | f16 | bf16
#define DS_OP_SAMPLE "sample"
#define DS_OP_SAMPLE_SCHEMA_TEXT "8103f85421ece22e6e8d63928db5698d"
#define DS_OP_SAMPLE_SCHEMA \
  {0x81, 0x03, 0xf8, 0x54, 0x21, 0xec, 0xe2, 0x2e, \
   0x6e, 0x8d, 0x63, 0x92, 0x8d, 0xb5, 0x69, 0x8d}

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

// op sparse_attn(q: T[B, S, H, D], k: T[B, S, H, D], v: T[B, S, H, D], layout: I[H, M, M], key_padding_mask: optional f32[B, S], attn_mask: optional f32[S, S], scale: f64, causal: static bool = false) -> (o: T[B, S, H, D], lse: f32[B, H, S]) where T: f32 | f16 | bf16, I: u8 | i32 | i64 | bool
#define DS_OP_SPARSE_ATTN "sparse_attn"
#define DS_OP_SPARSE_ATTN_SCHEMA_TEXT "d09b678a09fda50722d7293513cb4908"
#define DS_OP_SPARSE_ATTN_SCHEMA \
  {0xd0, 0x9b, 0x67, 0x8a, 0x09, 0xfd, 0xa5, 0x07, \
   0x22, 0xd7, 0x29, 0x35, 0x13, 0xcb, 0x49, 0x08}

// op sparse_attn_backward(do: T[B, S, H, D], q: T[B, S, H, D], k: T[B, S, H, D], v: T[B, S, H, D], o: T[B, S, H, D], lse: f32[B, H, S], layout: I[H, M, M], key_padding_mask: optional f32[B, S], attn_mask: optional f32[S, S], scale: f64, causal: static bool = false) -> (dq: T[B, S, H, D], dk: T[B, S, H, D], dv: T[B, S, H, D]) where T: f32 | f16 | bf16, I: u8 | i32 | i64 | bool
#define DS_OP_SPARSE_ATTN_BACKWARD "sparse_attn_backward"
#define DS_OP_SPARSE_ATTN_BACKWARD_SCHEMA_TEXT "86960711aa6ed5fffc0fa5e97990bc48"
#define DS_OP_SPARSE_ATTN_BACKWARD_SCHEMA \
  {0x86, 0x96, 0x07, 0x11, 0xaa, 0x6e, 0xd5, 0xff, \
   0xfc, 0x0f, 0xa5, 0xe9, 0x79, 0x90, 0xbc, 0x48}

// op nhwc_bias_add(x: T[S..., C], bias: T[C]) -> (y: T[S..., C]) where T: f32 | f16 | bf16
#define DS_OP_NHWC_BIAS_ADD "nhwc_bias_add"
#define DS_OP_NHWC_BIAS_ADD_SCHEMA_TEXT "f678cf5d12287bf46742b9bed5a42734"
#define DS_OP_NHWC_BIAS_ADD_SCHEMA \
  {0xf6, 0x78, 0xcf, 0x5d, 0x12, 0x28, 0x7b, 0xf4, \
   0x67, 0x42, 0xb9, 0xbe, 0xd5, 0xa4, 0x27, 0x34}

// op nhwc_bias_add_add(x: T[S..., C], bias: T[C], other: T[S..., C]) -> (y: T[S..., C]) where T: f32 | f16 | bf16
#define DS_OP_NHWC_BIAS_ADD_ADD "nhwc_bias_add_add"
#define DS_OP_NHWC_BIAS_ADD_ADD_SCHEMA_TEXT "3985eb3392a0a0e8dfa82233e1fed5da"
#define DS_OP_NHWC_BIAS_ADD_ADD_SCHEMA \
  {0x39, 0x85, 0xeb, 0x33, 0x92, 0xa0, 0xa0, 0xe8, \
   0xdf, 0xa8, 0x22, 0x33, 0xe1, 0xfe, 0xd5, 0xda}

// op nhwc_bias_add_bias_add(x: T[S..., C], bias: T[C], other: T[S..., C], other_bias: T[C]) -> (y: T[S..., C]) where T: f32 | f16 | bf16
#define DS_OP_NHWC_BIAS_ADD_BIAS_ADD "nhwc_bias_add_bias_add"
#define DS_OP_NHWC_BIAS_ADD_BIAS_ADD_SCHEMA_TEXT "46d0d12d10644b6fb5917838677f3e63"
#define DS_OP_NHWC_BIAS_ADD_BIAS_ADD_SCHEMA \
  {0x46, 0xd0, 0xd1, 0x2d, 0x10, 0x64, 0x4b, 0x6f, \
   0xb5, 0x91, 0x78, 0x38, 0x67, 0x7f, 0x3e, 0x63}

// op flatten(tensors: list T[S...], flat: inout T[N]) where T: f32 | f16 | bf16
#define DS_OP_FLATTEN "flatten"
#define DS_OP_FLATTEN_SCHEMA_TEXT "f28571a294e76b83988329123cf70168"
#define DS_OP_FLATTEN_SCHEMA \
  {0xf2, 0x85, 0x71, 0xa2, 0x94, 0xe7, 0x6b, 0x83, \
   0x98, 0x83, 0x29, 0x12, 0x3c, 0xf7, 0x01, 0x68}

#endif // DS_OPS_H
