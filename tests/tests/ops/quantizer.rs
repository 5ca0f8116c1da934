//! The integer quantisers: upstream's properties, error feedback, and what is refused.

#![allow(
    clippy::cast_precision_loss,
    reason = "counts of elements are far below 2^53"
)]

use ds_core::{DType, ErrorKind, RngState, Tensor};
use ds_ops::quantizer::{
    Format, Quantized, Rounding, Swizzle, dequantize, fake_quantize, loco_quantized_reduction,
    loco_swizzle_quantize, quantize, quantized_reduction, swizzle_quantize,
};
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};

use crate::{FLOATS, equal_on_any_threads, stream};

const FORMATS: [Format; 4] = [
    Format {
        bits: 8,
        symmetric: true,
    },
    Format {
        bits: 4,
        symmetric: true,
    },
    Format {
        bits: 8,
        symmetric: false,
    },
    Format {
        bits: 4,
        symmetric: false,
    },
];

fn of(values: &[f64], dtype: DType) -> Tensor {
    let n = i64::try_from(values.len()).unwrap();
    tensor(stream(), dtype, &[n], values).unwrap()
}

fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let mut numbers = Numbers::new(seed);
    (0..count).map(|_| numbers.draw()).collect()
}

fn back(from: &Quantized, format: Format) -> Vec<f64> {
    let y = dequantize(stream(), from, format.bits, DType::F32).unwrap();
    values(stream(), &y).unwrap()
}

/// The largest distance from a group's values to what plain f64 arithmetic makes of them.
fn error_in_f64(group: &[f64], format: Format) -> f64 {
    let levels = f64::from(1 << (format.bits - 1));
    let high = group.iter().copied().fold(f64::MIN, f64::max);
    let low = group.iter().copied().fold(f64::MAX, f64::min);
    let (reach, offset) = if format.symmetric {
        (high.max(-low), 0.0)
    } else {
        ((high - low) / 2.0, f64::midpoint(high, low))
    };
    let step = if reach == 0.0 { 1.0 } else { reach / levels };
    let error = |x: f64| {
        let q = ((x - offset) / step)
            .round_ties_even()
            .clamp(-levels, levels - 1.0);
        (x - (q * step + offset)).abs()
    };
    group.iter().copied().map(error).fold(0.0, f64::max)
}

/// Upstream's test: no element is farther off than 1.05 times what exact arithmetic leaves.
#[test]
fn quantised_values_come_back_as_near_as_exact_arithmetic_brings_them() {
    for format in FORMATS {
        for groups in [1, 13, 512] {
            for length in [8, 16, 130, 1024, 16384] {
                if groups * length > 1 << 20 {
                    continue;
                }
                let x = numbers(3, groups * length);
                let count = i64::try_from(groups).unwrap();
                let x32 = of(&x, DType::F32);
                let got = quantize(stream(), &x32, count, format).unwrap();
                let x = values(stream(), &x32).unwrap();
                let y = back(&got, format);
                for (x, y) in x.chunks(length).zip(y.chunks(length)) {
                    let off = x.iter().zip(y).map(|(x, y)| (x - y).abs());
                    let most = off.fold(0.0, f64::max);
                    let allowed = 1.05 * error_in_f64(x, format) + 1e-6;
                    assert!(most <= allowed, "{format:?} {groups}x{length}: {most}");
                }
            }
        }
    }
}

#[test]
fn zeros_stay_zeros_and_what_is_no_number_poisons_its_group_alone() {
    for format in FORMATS {
        let mut x = vec![0.0; 30];
        x[11] = f64::INFINITY;
        x[22] = f64::NAN;
        let got = quantize(stream(), &of(&x, DType::F32), 3, format).unwrap();
        let y = back(&got, format);
        assert_eq!(y[..10], [0.0; 10]);
        assert!(y[10..].iter().all(|y| y.is_nan()), "{format:?} {y:?}");
    }
}

/// Upstream leaves the input as it is when a group has more than a million elements.
#[test]
fn groups_of_any_size_are_quantised() {
    let format = FORMATS[0];
    let x = Numbers::new(5)
        .tensor(stream(), DType::BF16, &[(1 << 21) + 6])
        .unwrap();
    let y = Tensor::empty(stream(), DType::BF16, x.shape()).unwrap();
    fake_quantize(stream(), &x, &y, 1, format, Rounding::Nearest).unwrap();
    let y = values(stream(), &y).unwrap();
    let mut kinds: Vec<_> = y.iter().map(|v| v.to_bits()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert!(kinds.len() <= 256, "{} different values", kinds.len());
    let quantised = quantize(stream(), &x, 1, format).unwrap();
    let same = dequantize(stream(), &quantised, 8, DType::BF16).unwrap();
    assert_eq!(values(stream(), &same).unwrap(), y);
}

#[test]
fn fake_quantisation_in_place_is_that_out_of_place() {
    for dtype in FLOATS {
        for length in [40, 5000, 70_001] {
            let x = Numbers::new(6)
                .tensor(stream(), dtype, &[3, length])
                .unwrap();
            let y = Tensor::empty(stream(), dtype, &[3, length]).unwrap();
            let state = RngState { seed: 9, offset: 8 };
            let run = |x: &Tensor, y: &Tensor| {
                fake_quantize(stream(), x, y, 3, FORMATS[2], Rounding::Stochastic(state)).unwrap();
                y.to_bytes(stream()).unwrap()
            };
            assert_eq!(run(&x, &y), run(&x, &x), "{dtype} {length}");
        }
    }
}

/// The mean of many draws of one value, which lies a quarter of a step above a whole number.
#[test]
fn stochastic_rounding_keeps_the_expectation() {
    const N: usize = 100_000;
    let mut x = vec![0.25 / 128.0; N];
    x[0] = 1.0;
    let x = of(&x, DType::F32);
    let y = Tensor::empty(stream(), DType::F32, x.shape()).unwrap();
    let state = RngState { seed: 1, offset: 0 };
    fake_quantize(stream(), &x, &y, 1, FORMATS[0], Rounding::Stochastic(state)).unwrap();
    let sum: f64 = values(stream(), &y).unwrap()[1..].iter().sum();
    let mean = sum / (N - 1) as f64 * 128.0;
    // Six standard errors of a coin that falls so one time in four.
    assert!(
        (mean - 0.25).abs() < 6.0 * (0.1875 / N as f64).sqrt(),
        "{mean}"
    );
}

/// The groups of 2 nodes of 4 devices, as the comment at upstream's kernel has them.
#[test]
fn a_swizzle_sends_the_groups_device_by_device() {
    let format = FORMATS[0];
    let x: Vec<f64> = (0..8)
        .flat_map(|group| [f64::from(group) + 1.0; 4])
        .collect();
    let swizzle = Swizzle {
        groups: 8,
        nodes: 2,
        devices: 4,
        slices: 1,
    };
    let got = swizzle_quantize(stream(), &of(&x, DType::F32), swizzle, format).unwrap();
    let params = values(stream(), &got.params).unwrap();
    let order: Vec<f64> = params
        .chunks(2)
        .map(|pair| (pair[0] * 128.0).round() - 1.0)
        .collect();
    assert_eq!(order, [0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]);
}

/// What was sent and what stayed behind are what there was, after both steps; upstream's test.
#[test]
fn error_feedback_loses_nothing() {
    for format in FORMATS {
        for (side, devices) in [(16, 4), (64, 8)] {
            let n = side * side;
            let (x, e) = (numbers(7, n), numbers(8, n));
            let e: Vec<f64> = e.iter().map(|v| 0.01 * v).collect();
            let (x, err) = (of(&x, DType::F32), of(&e, DType::F32));
            // One node: the order stays.
            let swizzle = Swizzle {
                groups: 16,
                nodes: 1,
                devices,
                slices: 1,
            };
            let before = sums(&[&x, &err]);
            let sent = loco_swizzle_quantize(stream(), &x, &err, 0.0, swizzle, format).unwrap();
            let left = values(stream(), &err).unwrap();
            for ((sent, left), before) in back(&sent, format).iter().zip(&left).zip(&before) {
                assert!((sent + left - before).abs() <= 1e-6, "{format:?}");
            }

            let shard = n / usize::try_from(devices).unwrap();
            let err = of(&e[..shard], DType::F32);
            let shards = back(&sent, format);
            let sum: Vec<f64> = (0..shard)
                .map(|i| e[i] + shards.chunks(shard).map(|shard| shard[i]).sum::<f64>())
                .collect();
            let reduced =
                loco_quantized_reduction(stream(), &sent, &err, 0.0, devices, format).unwrap();
            let left = values(stream(), &err).unwrap();
            for ((got, left), before) in back(&reduced, format).iter().zip(&left).zip(&sum) {
                // Sums of 8 numbers of about 8, each rounded in f32.
                assert!((got + left - before).abs() <= 1e-5, "{format:?}");
            }
            // Without errors before, it is the plain op.
            let none = of(&vec![0.0; shard], DType::F32);
            let fed =
                loco_quantized_reduction(stream(), &sent, &none, 0.0, devices, format).unwrap();
            let plain = quantized_reduction(stream(), &sent, devices, format).unwrap();
            assert_eq!(
                fed.q.to_bytes(stream()).unwrap(),
                plain.q.to_bytes(stream()).unwrap()
            );
        }
    }
}

fn sums(tensors: &[&Tensor]) -> Vec<f64> {
    let all: Vec<Vec<f64>> = tensors
        .iter()
        .map(|t| values(stream(), t).unwrap())
        .collect();
    (0..all[0].len())
        .map(|i| all.iter().map(|t| t[i]).sum())
        .collect()
}

#[test]
fn what_does_not_divide_is_refused_by_name() {
    let x = of(&[1.0; 30], DType::F32);
    let refused = |error: ds_core::Error, words: &str| {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(words), "{error}");
    };
    let four = FORMATS[1];
    let error = quantize(stream(), &x, 2, four).unwrap_err();
    refused(error, "x has 30 elements, which are no 2 groups");
    let error = quantize(
        stream(),
        &x,
        2,
        Format {
            bits: 3,
            symmetric: true,
        },
    )
    .unwrap_err();
    refused(error, "bits is 3, it can be 8 or 4");
    let swizzle = Swizzle {
        groups: 6,
        nodes: 2,
        devices: 2,
        slices: 1,
    };
    let error = swizzle_quantize(stream(), &x, swizzle, FORMATS[0]).unwrap_err();
    refused(
        error,
        "6 groups do not divide among 2 nodes of 2 devices with 1 slices",
    );
    let done = quantize(stream(), &x, 3, FORMATS[0]).unwrap();
    let error = quantized_reduction(stream(), &done, 2, FORMATS[0]).unwrap_err();
    refused(error, "3 groups do not divide among 2 devices");
    let bits = Format {
        bits: 17,
        symmetric: true,
    };
    let error = fake_quantize(stream(), &x, &x, 1, bits, Rounding::Nearest).unwrap_err();
    refused(error, "bits is 17, it can be 2 to 16");
}

/// Groups shorter than a chunk, and one that threads share; with stochastic rounding, whose words belong
/// to elements.
#[test]
fn quantised_on_any_threads_gives_equal_bits() {
    let s = stream();
    let mut numbers = Numbers::new(11);
    let mut results = Vec::new();
    for (groups, length) in [(24, 5002), (4, 200_004)] {
        let x = numbers.tensor(s, DType::F32, &[groups * length]).unwrap();
        let err = numbers.tensor(s, DType::F32, &[groups * length]).unwrap();
        let swizzle = Swizzle {
            groups,
            nodes: 2,
            devices: 2,
            slices: 1,
        };
        for format in FORMATS {
            let done = quantize(s, &x, groups, format).unwrap();
            let reduced = quantized_reduction(s, &done, 2, format).unwrap();
            results.push(dequantize(s, &done, format.bits, DType::BF16).unwrap());
            let part = err.narrow(0, 0, groups * length / 2).unwrap();
            let summed = loco_quantized_reduction(s, &done, &part, 0.3, 2, format).unwrap();
            let sent = loco_swizzle_quantize(s, &x, &err, 0.3, swizzle, format).unwrap();
            for q in [done, reduced, summed, sent] {
                results.extend([q.q, q.params]);
            }
            let y = Tensor::empty(s, DType::F32, x.shape()).unwrap();
            let state = RngState { seed: 5, offset: 8 };
            fake_quantize(s, &x, &y, groups, format, Rounding::Stochastic(state)).unwrap();
            results.push(y);
        }
        results.push(err);
    }
    let results: Vec<&Tensor> = results.iter().collect();
    equal_on_any_threads("quantised_on_any_threads", &results);
}
