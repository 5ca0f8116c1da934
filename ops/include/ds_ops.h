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

// op cast(x: A[S...]) -> (y: B[S...]) where A: f32 | f16 | bf16 | f64 | i8 | u8 | i16 | i32 | i64 | bool, B: f32 | f16 | bf16 | f64 | i8 | u8 | i16 | i32 | i64 | bool
#define DS_OP_CAST "cast"
#define DS_OP_CAST_SCHEMA_TEXT "005db1d6682cb4203df85f027b97c5e4"
#define DS_OP_CAST_SCHEMA \
  {0x00, 0x5d, 0xb1, 0xd6, 0x68, 0x2c, 0xb4, 0x20, \
   0x3d, 0xf8, 0x5f, 0x02, 0x7b, 0x97, 0xc5, 0xe4}

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

// op matmul(a: T[B..., M, K], b: T[B..., K, N]) -> (c: T[B..., M, N]) where T: f32 | bf16
#define DS_OP_MATMUL "matmul"
#define DS_OP_MATMUL_SCHEMA_TEXT "0fdf1956d5a49ba3a0d7d863a6d20bf6"
#define DS_OP_MATMUL_SCHEMA \
  {0x0f, 0xdf, 0x19, 0x56, 0xd5, 0xa4, 0x9b, 0xa3, \
   0xa0, 0xd7, 0xd8, 0x63, 0xa6, 0xd2, 0x0b, 0xf6}

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
