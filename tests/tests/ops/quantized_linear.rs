//! Layers with quantised weights: against the layer of the same weights as numbers, from weights that were
//! quantised by the ops themselves.

use ds_core::{DType, ErrorKind, Tensor};
use ds_ops::{
    activation::Activation,
    fp_quantizer::{self, fp_dequantize, fp_quantize},
    matmul::{grouped_matmul, linear},
    quantized_linear::{fp_linear, quantized_grouped_matmul, quantized_linear},
    quantizer::{Format, dequantize, quantize},
};
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};

use crate::{FLOATS, equal_on_any_threads, stream};

/// Rows for one, a few, and more than few; groups that are no whole vectors, of each way to read them.
const ROWS: [i64; 4] = [1, 3, 8, 20];
const GROUPS: [[i64; 2]; 5] = [[3, 20], [2, 48], [4, 64], [3, 128], [1, 512]];

fn near(name: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.shape(), want.shape(), "{name}");
    let (got, want) = (
        values(stream(), got).unwrap(),
        values(stream(), want).unwrap(),
    );
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        let off = (got - want).abs();
        assert!(
            off <= tolerance * (1.0 + want.abs()),
            "{name} [{i}]: {got}, not {want}"
        );
    }
}

/// The first weight of a byte is the one of its lower half, groups are those of a row, and each has its
/// offset: whatever of this were otherwise, the layer would not be that of the values.
#[test]
fn a_layer_is_that_of_the_weights_values() {
    let s = stream();
    for dtype in FLOATS {
        for (bits, symmetric) in [(8, true), (8, false), (4, true), (4, false)] {
            for [groups, length] in GROUPS {
                let (n, k) = (50, groups * length);
                let mut numbers = Numbers::new(7);
                let w = numbers.tensor(s, DType::F32, &[n, k]).unwrap();
                let codes = quantize(s, &w, n * groups, Format { bits, symmetric }).unwrap();
                let whole = dequantize(s, &codes, bits, DType::F32).unwrap();
                let whole = whole.reshape(&[n, k]).unwrap();
                for m in ROWS {
                    // Of two leading dimensions, which a layer keeps.
                    let x = numbers.tensor(s, dtype, &[m, 1, k]).unwrap();
                    let y = quantized_linear(s, &x, &codes, bits, None, None, Activation::Relu);
                    let wide = tensor(s, DType::F32, x.shape(), &values(s, &x).unwrap()).unwrap();
                    let want = linear(s, &wide, &whole, None, None, Activation::Relu).unwrap();
                    let tolerance = if dtype == DType::F32 { 2e-4 } else { 8e-3 };
                    let name = format!("{dtype} int{bits} {groups} x {length}, {m} rows");
                    near(&name, &y.unwrap(), &want, tolerance);
                }
            }
        }
    }
}

/// One row, few, many, and none, for experts whose weights were quantised together.
#[test]
fn experts_are_those_of_the_weights_values() {
    let s = stream();
    let starts = tensor(s, DType::I32, &[5], &[1.0, 2.0, 2.0, 7.0, 30.0]).unwrap();
    for dtype in FLOATS {
        for bits in [8, 4] {
            for [groups, length] in GROUPS {
                let (n, k) = (50, groups * length);
                let mut numbers = Numbers::new(11);
                let w = numbers.tensor(s, DType::F32, &[4, n, k]).unwrap();
                let bias = numbers.tensor(s, dtype, &[4, n]).unwrap();
                let symmetric = false;
                let codes = quantize(s, &w, 4 * n * groups, Format { bits, symmetric }).unwrap();
                let whole = dequantize(s, &codes, bits, DType::F32).unwrap();
                let whole = whole.reshape(&[4, n, k]).unwrap();
                let x = numbers.tensor(s, dtype, &[33, k]).unwrap();
                let (bias, relu) = (Some(&bias), Activation::Relu);
                let y = quantized_grouped_matmul(s, &x, &codes, bits, &starts, bias, relu).unwrap();
                let wide =
                    |t: &Tensor| tensor(s, DType::F32, t.shape(), &values(s, t).unwrap()).unwrap();
                let bias = bias.map(wide);
                let want =
                    grouped_matmul(s, &wide(&x), &whole, &starts, bias.as_ref(), relu).unwrap();
                let tolerance = if dtype == DType::F32 { 2e-4 } else { 8e-3 };
                near(
                    &format!("{dtype} int{bits} {groups} x {length}"),
                    &y,
                    &want,
                    tolerance,
                );
            }
        }
    }
}

#[test]
fn experts_that_weights_do_not_divide_among_are_refused() {
    let s = stream();
    let w = Numbers::new(8).tensor(s, DType::F32, &[6, 32]).unwrap();
    let symmetric = true;
    let codes = quantize(s, &w, 12, Format { bits: 8, symmetric }).unwrap();
    let told = |x: &[i64], starts: i64, words: &str| {
        let x = Tensor::empty(s, DType::F32, x).unwrap();
        let starts = Tensor::empty(s, DType::I64, &[starts]).unwrap();
        let none = Activation::Identity;
        let error = quantized_grouped_matmul(s, &x, &codes, 8, &starts, None, none).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(words), "{error}");
    };
    told(&[3, 1, 32], 3, "it has to be [R, K]");
    told(
        &[3, 32],
        5,
        "6 rows of weights do not divide among as many experts",
    );
    told(&[3, 32], 1, "do not divide among as many experts");
    told(&[3, 32], 0, "do not divide among as many experts");
}

#[test]
fn a_layer_of_narrow_floats_is_that_of_their_values() {
    use fp_quantizer::Format::{E2M1, E3M2, E4M3, E4M7, E5M2, E7M4};
    let s = stream();
    for dtype in FLOATS {
        for format in [E2M1, E3M2, E4M3, E5M2, E4M7, E7M4] {
            for [groups, length] in GROUPS {
                let (n, k) = (50, groups * length);
                let mut numbers = Numbers::new(7);
                let w = numbers.tensor(s, DType::F32, &[n, k]).unwrap();
                let codes = fp_quantize(s, &w, n * groups, format, None).unwrap();
                let whole = fp_dequantize(s, &codes, format, DType::F32).unwrap();
                let whole = whole.reshape(&[n, k]).unwrap();
                for m in ROWS {
                    let x = numbers.tensor(s, dtype, &[m, k]).unwrap();
                    let y = fp_linear(s, &x, &codes, format, None, None, Activation::Relu);
                    let wide = tensor(s, DType::F32, x.shape(), &values(s, &x).unwrap()).unwrap();
                    let want = linear(s, &wide, &whole, None, None, Activation::Relu).unwrap();
                    let tolerance = if dtype == DType::F32 { 2e-4 } else { 8e-3 };
                    let name = format!("{dtype} {format:?} {groups} x {length}, {m} rows");
                    near(&name, &y.unwrap(), &want, tolerance);
                }
            }
        }
    }
    let w = Numbers::new(8).tensor(s, DType::F32, &[6, 32]).unwrap();
    let codes = fp_quantize(s, &w, 12, E3M2, None).unwrap();
    let x = Tensor::empty(s, DType::F32, &[3, 31]).unwrap();
    let error = fp_linear(s, &x, &codes, E3M2, None, None, Activation::Identity).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("192 values, which are no rows of K = 31"),
        "{error}"
    );
}

/// The last row's codes end where memory does; steps that are none, and numbers that are none, are told.
#[test]
fn what_is_no_number_stays_in_its_column_or_row() {
    let s = stream();
    let (n, k) = (50, 256);
    for bits in [8, 4] {
        let mut w = vec![0.5; 50 * 256];
        w[7 * 256 + 130] = f64::NAN;
        let w = tensor(s, DType::F32, &[n, k], &w).unwrap();
        let symmetric = false;
        let codes = quantize(s, &w, 2 * n, Format { bits, symmetric }).unwrap();
        for m in ROWS {
            let mut x = vec![1.0; usize::try_from(m * k).unwrap()];
            if m > 1 {
                x[256 + 3] = f64::NAN;
            }
            let x = tensor(s, DType::F32, &[m, k], &x).unwrap();
            let y = quantized_linear(s, &x, &codes, bits, None, None, Activation::Identity);
            for (i, y) in values(s, &y.unwrap()).unwrap().into_iter().enumerate() {
                let (row, column) = (i / 50, i % 50);
                let none = column == 7 || (row == 1 && m > 1);
                assert_eq!(
                    y.is_nan(),
                    none,
                    "{bits} bits, {m} rows, [{row}, {column}]: {y}"
                );
                assert!(none || (y - 128.0).abs() < 1e-3, "[{row}, {column}]: {y}");
            }
        }
    }
}

#[test]
fn weights_of_another_extent_are_refused() {
    let s = stream();
    let mut numbers = Numbers::new(8);
    let w = numbers.tensor(s, DType::F32, &[6, 32]).unwrap();
    let format = |bits| Format {
        bits,
        symmetric: true,
    };
    let codes = quantize(s, &w, 12, format(8)).unwrap();
    let run = |x: &[i64], bits| {
        let x = Tensor::empty(s, DType::F32, x).unwrap();
        quantized_linear(s, &x, &codes, bits, None, None, Activation::Identity)
    };
    let told = |x: &[i64], bits, words: &str| {
        let error = run(x, bits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(words), "{error}");
    };
    told(&[3, 32], 5, "bits is 5, it can be 8 or 4");
    told(
        &[3, 31],
        8,
        "the weights are 192 values, which are no rows of K = 31",
    );
    told(&[], 8, "x has no dimensions");
    // 4 rows of 48 would have 3 groups each; 8 rows of 24 would have one and a half.
    assert_eq!(run(&[3, 48], 8).unwrap().shape(), [3, 4]);
    told(
        &[3, 24],
        8,
        "12 groups do not divide among 8 rows of weights",
    );
}

#[test]
fn quantized_layers_on_any_threads_have_equal_bits() {
    let s = stream();
    let mut results = Vec::new();
    for bits in [8, 4] {
        let mut numbers = Numbers::new(9);
        let w = numbers.tensor(s, DType::F32, &[700, 1280]).unwrap();
        let format = Format {
            bits,
            symmetric: false,
        };
        let codes = quantize(s, &w, 700 * 10, format).unwrap();
        for m in [1, 5, 70] {
            let x = numbers.tensor(s, DType::BF16, &[m, 1280]).unwrap();
            let y = quantized_linear(s, &x, &codes, bits, None, None, Activation::Gelu);
            results.push(y.unwrap());
        }
    }
    let results: Vec<&Tensor> = results.iter().collect();
    equal_on_any_threads("quantized_layers_on_any_threads", &results);
}
