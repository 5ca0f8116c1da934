//! The narrow floats: every code of every format, upstream's error bound, rows by index.

#![allow(
    clippy::cast_precision_loss,
    reason = "counts of elements are far below 2^53"
)]

use ds_core::{
    DType, RngState, Tensor,
    op::{MiniFloat, Top},
};
use ds_ops::fp_quantizer::{
    Format, Quantized, fp_dequantize, fp_quantize, fp_selective_dequantize,
};
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};

use crate::{FLOATS, equal_on_any_threads, stream};

const FORMATS: [(Format, u32, u32, f64); 6] = [
    (Format::E2M1, 2, 1, 6.0),
    (Format::E3M2, 3, 2, 28.0),
    (Format::E4M3, 4, 3, 480.0),
    (Format::E5M2, 5, 2, 114_688.0),
    (Format::E4M7, 4, 7, 510.0),
    (Format::E7M4, 7, 4, 510.0),
];

/// A group whose greatest number is the format's keeps a step of 1, so codes are seen as they are.
#[test]
fn every_code_and_every_middle_between_two_is_that_of_the_definition() {
    for (format, exponent, mantissa, greatest) in FORMATS {
        let narrow = MiniFloat::new(exponent, mantissa, Top::Numbers);
        let half = 1_u32 << (exponent + mantissa);
        let mut x = vec![greatest];
        for code in 0..half - 1 {
            let (low, high) = (narrow.to_f64(code), narrow.to_f64(code + 1));
            let middle = f64::midpoint(low, high);
            x.extend([low, middle, middle * (1.0 + 1e-6), middle * (1.0 - 1e-6)]);
        }
        x.retain(|v| *v <= greatest);
        x.extend(x.clone().iter().map(|v| -v));
        x.resize(x.len().next_multiple_of(4), 0.0);
        let n = i64::try_from(x.len()).unwrap();
        let x = tensor(stream(), DType::F32, &[n], &x).unwrap();
        let done = fp_quantize(stream(), &x, 1, format, None).unwrap();
        assert_eq!(values(stream(), &done.step).unwrap(), [1.0]);
        let y = fp_dequantize(stream(), &done, format, DType::F32).unwrap();
        let (x, y) = (values(stream(), &x).unwrap(), values(stream(), &y).unwrap());
        for (x, y) in x.iter().zip(y) {
            let want = narrow.to_f64(narrow.from_f64(*x));
            assert_eq!(y, want, "{format:?} {x:e}");
        }
    }
}

/// Upstream's test: uniform numbers from 0 to 1, groups of 128.
#[test]
fn the_mean_error_is_that_of_a_float_so_narrow() {
    for (format, _, mantissa, _) in FORMATS {
        let x: Vec<f64> = (0..64 * 1024)
            .map(|i| f64::from(RngState { seed: 2, offset: 0 }.uniform(i)))
            .collect();
        let x = tensor(stream(), DType::BF16, &[64, 1024], &x).unwrap();
        let done = fp_quantize(stream(), &x, 512, format, None).unwrap();
        let y = fp_dequantize(stream(), &done, format, DType::BF16).unwrap();
        let (x, y) = (values(stream(), &x).unwrap(), values(stream(), &y).unwrap());
        let off = x.iter().zip(&y).map(|(x, y)| (x - y).abs()).sum::<f64>() / x.len() as f64;
        // A quarter of the greatest numbers' quantum, which is 2^-mantissa of the upper half, and
        // what bf16 rounds.
        let bound = 0.25 * 2.0_f64.powi(-mantissa.cast_signed()) + 2.0_f64.powi(-9);
        assert!(off <= bound, "{format:?}: {off}");
    }
}

/// Upstream launches nothing for groups of more than about 1536 elements.
#[test]
fn groups_of_any_size_are_quantised() {
    for dtype in FLOATS {
        let x = Numbers::new(3)
            .tensor(stream(), dtype, &[2, 100_004])
            .unwrap();
        let done = fp_quantize(stream(), &x, 2, Format::E4M7, None).unwrap();
        let y = fp_dequantize(stream(), &done, Format::E4M7, DType::F32).unwrap();
        let (x, y) = (values(stream(), &x).unwrap(), values(stream(), &y).unwrap());
        for (x, y) in x.iter().zip(&y) {
            // Half a unit of the last of 8 bits, or of the least number, with a step of 4 / 510.
            assert!((x - y).abs() <= x.abs() / 256.0 + 1e-6, "{dtype} {x} {y}");
        }
    }
}

#[test]
fn stochastic_rounding_keeps_the_expectation() {
    const N: i64 = 100_000;
    let mut x = vec![1.0 + 0.125 * 0.25; 100_000];
    x[0] = 480.0;
    let x = tensor(stream(), DType::F32, &[N], &x).unwrap();
    let state = RngState { seed: 5, offset: 0 };
    let done = fp_quantize(stream(), &x, 1, Format::E4M3, Some(state)).unwrap();
    let y = values(
        stream(),
        &fp_dequantize(stream(), &done, Format::E4M3, DType::F32).unwrap(),
    );
    let up = y.unwrap()[1..].iter().map(|y| (y - 1.0) * 8.0).sum::<f64>() / (N - 1) as f64;
    // Six standard errors of a coin that falls so one time in four.
    assert!((up - 0.25).abs() < 6.0 * (0.1875 / N as f64).sqrt(), "{up}");
}

#[test]
fn rows_by_index_are_those_rows_and_nan_where_there_is_none() {
    let x = Numbers::new(4)
        .tensor(stream(), DType::F32, &[5 * 2, 64])
        .unwrap();
    let format = Format::E3M2;
    let all = fp_quantize(stream(), &x, 10, format, None).unwrap();
    let whole = values(
        stream(),
        &fp_dequantize(stream(), &all, format, DType::F32).unwrap(),
    )
    .unwrap();
    let rows = Quantized {
        codes: all.codes.reshape(&[5, 2, 16, 3]).unwrap(),
        step: all.step.reshape(&[5, 2]).unwrap(),
    };
    for dtype in [DType::I32, DType::I64] {
        let index = tensor(stream(), dtype, &[4], &[3.0, 1.0, -1.0, 5.0]).unwrap();
        let y = fp_selective_dequantize(stream(), &rows, &index, format, DType::F32).unwrap();
        assert_eq!(y.shape(), [4, 2, 64]);
        let y = values(stream(), &y).unwrap();
        assert_eq!(y[..128], whole[3 * 128..4 * 128]);
        assert_eq!(y[128..256], whole[128..256]);
        assert!(y[256..].iter().all(|v| v.is_nan()));
    }
}

#[test]
fn what_fills_no_whole_bytes_is_refused() {
    let x = tensor(stream(), DType::F32, &[6], &[1.0; 6]).unwrap();
    let error = fp_quantize(stream(), &x, 1, Format::E3M2, None).unwrap_err();
    let words = "x has 6 elements, which are no 1 groups of equal length in whole bytes of E3M2";
    assert!(error.to_string().contains(words), "{error}");
    let codes = Tensor::empty(stream(), DType::U8, &[1, 6, 3]).unwrap();
    let step = Tensor::empty(stream(), DType::F32, &[1]).unwrap();
    let y = Tensor::empty(stream(), DType::F32, &[1, 6, 1]).unwrap();
    let args: [ds_core::op::Args<'_>; 3] = [&[&codes], &[&step], &[&y]];
    let op = ds_core::op::find("fp_dequantize").unwrap();
    let mantissa = [ds_schema::Attr::I64(3)];
    let error = ds_core::op::launch(op, stream(), &args, &mantissa, &[]).unwrap_err();
    assert!(error.to_string().contains("1 codes in 3 bytes"), "{error}");
}

/// Groups shorter than a chunk, and ones that threads share; with stochastic rounding, whose words belong
/// to elements.
#[test]
fn narrow_floats_on_any_threads_have_equal_bits() {
    let s = stream();
    let mut results = Vec::new();
    for (groups, length) in [(24, 5004), (3, 200_004)] {
        let x = Numbers::new(12)
            .tensor(s, DType::F32, &[groups * length])
            .unwrap();
        for (format, ..) in FORMATS {
            for random in [None, Some(RngState { seed: 5, offset: 8 })] {
                let done = fp_quantize(s, &x, groups, format, random).unwrap();
                results.push(fp_dequantize(s, &done, format, DType::F16).unwrap());
                results.extend([done.codes, done.step]);
            }
        }
    }
    let results: Vec<&Tensor> = results.iter().collect();
    equal_on_any_threads("narrow_floats_on_any_threads", &results);
}
