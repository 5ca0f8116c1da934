//! The schemas that ship: they parse, and their hashes are what plugins elsewhere were built with.

use ds_schema::{DType, SchemaFile, Tolerance};

const FILES: [(&str, &str); 4] = [
    ("rms_norm", include_str!("../../rms_norm/rms_norm.ops")),
    ("adam", include_str!("../../adam/adam.ops")),
    ("matmul", include_str!("../../matmul/matmul.ops")),
    ("cast", include_str!("../../cast/cast.ops")),
];

/// A change here means that every plugin with such a kernel must be built again.
const HASHES: [(&str, &str); 10] = [
    ("rms_norm", "9159f2135d66f1648b870fbfe7363695"),
    ("rms_norm_backward", "9befffc387498331405dc02823e0eb75"),
    ("add_rms_norm", "f41070d3eca2cb32bc038e95462f9ce7"),
    ("add_rms_norm_backward", "7250a31fcd471df5981c413f75901588"),
    ("adam_step", "5274c3fca0948f4a772ed41ca88f44c6"),
    ("adam_rollback", "c54591137f121c228d617083a76156fa"),
    ("matmul", "60e2c888ad085a3d8fdeab7f3e9946b4"),
    ("linear", "5bfd58dd9a9426e42f1ac3cf64b6e329"),
    ("grouped_matmul", "155e822f1c7c61c1d3ac1ca0b8636d13"),
    ("cast", "12594ea2b298c7389e273439f3946892"),
];

fn files() -> impl Iterator<Item = SchemaFile> {
    FILES.into_iter().map(|(name, text)| {
        SchemaFile::parse(text).unwrap_or_else(|error| panic!("{}", error.render(name)))
    })
}

#[test]
fn hashes_are_golden() {
    let found: Vec<(String, String)> = files()
        .flat_map(|file| file.ops().to_vec())
        .map(|op| (op.name().to_owned(), op.hash().to_string()))
        .collect();
    let golden = HASHES.map(|(name, hash)| (name.to_owned(), hash.to_owned()));
    assert_eq!(found, golden);
}

#[test]
fn canonical_texts_read_well() {
    let texts: Vec<String> = files()
        .flat_map(|file| file.ops().to_vec())
        .map(|op| op.canonical())
        .collect();
    assert_eq!(
        texts,
        [
            "op rms_norm(x: T[S..., D], weight: T[D], eps: f64 = 1e-6) \
             -> (y: T[S..., D], rstd: f32[S...]) where T: f32 | f16 | bf16",
            "op rms_norm_backward(dy: T[S..., D], x: T[S..., D], weight: T[D], rstd: f32[S...]) \
             -> (dx: T[S..., D], dweight: T[D]) where T: f32 | f16 | bf16",
            "op add_rms_norm(x: T[S..., D], residual: T[S..., D], bias: optional T[D], \
             weight: T[D], eps: f64 = 1e-6) -> (sum: T[S..., D], y: T[S..., D], rstd: f32[S...]) \
             where T: f32 | f16 | bf16",
            "op add_rms_norm_backward(dy: T[S..., D], dsum: T[S..., D], sum: T[S..., D], \
             weight: T[D], rstd: f32[S...]) -> (dx: T[S..., D], dweight: T[D]) \
             where T: f32 | f16 | bf16",
            "op adam_step(params: inout list P[S...], grads: list P[S...], \
             exp_avg: inout list M[S...], exp_avg_sq: inout list M[S...], \
             found_inf: optional f32[], lr: f64, beta1: f64, beta2: f64, eps: f64, \
             weight_decay: f64, step: i64, adamw: static bool = true, \
             bias_correction: static bool = true) where (P, M): (f32, f32) | (f16, f32) \
             | (f16, f16) | (bf16, f32) | (bf16, bf16)",
            "op adam_rollback(params: inout list f32[S...], grads: list f32[S...], \
             exp_avg: inout list f32[S...], exp_avg_sq: inout list f32[S...], \
             found_inf: optional f32[], lr: f64, beta1: f64, beta2: f64, eps: f64, \
             weight_decay: f64, step: i64, adamw: static bool = true, \
             bias_correction: static bool = true)",
            "op matmul(a: T[B..., M, K], b: T[B..., K, N]) -> (c: T[B..., M, N]) \
             where T: f32 | f16 | bf16",
            "op linear(x: T[M, K], w: T[N, K], bias: optional T[N], residual: optional T[M, N], \
             kind: static i64 = 0) -> (y: T[M, N]) where T: f32 | f16 | bf16",
            "op grouped_matmul(x: T[R, K], w: T[E, N, K], starts: I[E1], bias: optional T[E, N], \
             kind: static i64 = 0) -> (y: T[R, N]) where T: f32 | f16 | bf16, I: i32 | i64",
            "op cast(x: A[S...]) -> (y: B[S...]) \
             where A: f32 | f16 | bf16 | f64 | i8 | u8 | i16 | i32 | i64 | bool | f8e4m3 | f8e5m2, \
             B: f32 | f16 | bf16 | f64 | i8 | u8 | i16 | i32 | i64 | bool | f8e4m3 | f8e5m2",
        ]
    );
}

#[test]
fn every_result_has_a_tolerance_with_a_reason() {
    for op in files().flat_map(|file| file.ops().to_vec()) {
        assert!(op.tolerance_reason().is_some(), "{}", op.name());
        for argument in op
            .arguments()
            .iter()
            .filter(|argument| argument.is_written())
        {
            for dtype in op.dtypes(argument.element) {
                assert!(op.tolerance(dtype).is_some(), "{} {dtype}", op.name());
            }
        }
    }
}

#[test]
fn sets_are_deepspeeds() {
    let sets: Vec<Vec<String>> = files().map(|file| file.sets().to_vec()).collect();
    assert_eq!(
        sets,
        [
            vec!["inference_core_ops", "transformer_inference"],
            vec!["cpu_adam", "fused_adam"],
            vec!["gemm", "cutlass_ops"],
            vec!["cast"],
        ]
    );
    let adam = files().nth(1).unwrap();
    let adam = adam.op("adam_step").unwrap();
    assert!(adam.is_deterministic());
    assert_eq!(
        adam.tolerance(DType::F16),
        Some(Tolerance {
            rtol: 1e-3,
            atol: 1e-6
        })
    );
}
