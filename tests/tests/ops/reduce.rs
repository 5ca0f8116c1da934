//! Sums and extremes: rows with gaps, gradients, equal bits on any number of threads.

use std::process::Command;

use ds_core::{DType, Tensor};
use ds_ops::{elementwise, movement, reduce};
use ds_tests::{cases::Numbers, compare::values};

use crate::{AGAIN, FLOATS, check, stream};

#[test]
fn rows_with_gaps_are_reduced_as_others() {
    let s = stream();
    for dtype in FLOATS {
        for (rows, d) in [(5, 33), (2, 20_000), (300, 70)] {
            let wide = Numbers::new(1).tensor(s, dtype, &[rows, d + 9]).unwrap();
            let x = wide.narrow(1, 4, d).unwrap();
            let y = Tensor::empty(s, dtype, &[rows]).unwrap();
            for name in ["sum_last", "mean_last", "norm_last", "max_last", "min_last"] {
                check(name, &[&[&x], &[&y]], &[], &[]);
            }
            let index = Tensor::empty(s, DType::I64, &[rows]).unwrap();
            check("argmax_last", &[&[&x], &[&index]], &[], &[]);
            let sum = Tensor::empty(s, DType::F32, &[d]).unwrap();
            check("sum_leading", &[&[&x], &[&sum]], &[], &[]);
        }
    }
}

#[test]
fn typed_calls_have_the_shapes_that_they_tell() {
    let s = stream();
    let x = Tensor::from_slice(s, &[2, 3], &[1.0_f32, -4.0, 2.0, 0.5, 0.25, 3.0]).unwrap();
    let of = |t: Tensor| (t.shape().to_vec(), values(s, &t).unwrap());
    let f32 = DType::F32;
    assert_eq!(
        of(reduce::sum_last(s, &x, f32).unwrap()),
        (vec![2], vec![-1.0, 3.75])
    );
    assert_eq!(
        of(reduce::mean_last(s, &x, f32).unwrap()),
        (vec![2], vec![f64::from(-1.0_f32 / 3.0), 1.25])
    );
    assert_eq!(
        of(reduce::max_last(s, &x).unwrap()),
        (vec![2], vec![2.0, 3.0])
    );
    assert_eq!(
        of(reduce::min_last(s, &x).unwrap()),
        (vec![2], vec![-4.0, 0.25])
    );
    assert_eq!(
        of(reduce::argmax_last(s, &x).unwrap()),
        (vec![2], vec![2.0, 2.0])
    );
    assert_eq!(
        of(reduce::sum_all(s, &x, f32).unwrap()),
        (vec![], vec![2.75])
    );
    assert_eq!(
        of(reduce::sum_leading(s, &x, f32).unwrap()),
        (vec![3], vec![1.5, -3.75, 5.0])
    );
    let error = reduce::sum_last(s, &x, DType::BF16).unwrap_err();
    assert!(error.to_string().contains("bf16"), "{error}");
    let scalar = Tensor::empty(s, DType::F32, &[]).unwrap();
    assert!(reduce::max_last(s, &scalar).is_err());
}

/// The gradient of sum(weight * (x + bias)) with respect to the bias, by differences: it is linear in the
/// bias, so a step of any size will do, and one of 1 loses no digits.
#[test]
fn sum_leading_is_the_gradient_of_a_row_that_repeats() {
    let s = stream();
    let mut numbers = Numbers::new(2);
    let mut t = |shape: &[i64]| numbers.tensor(s, DType::F32, shape).unwrap();
    let (x, weight, bias) = (t(&[50, 7]), t(&[50, 7]), t(&[7]));
    let loss = |bias: &Tensor| {
        let y = elementwise::add(s, &x, bias).unwrap();
        let y = elementwise::mul(s, &weight, &y).unwrap();
        values(s, &reduce::sum_all(s, &y, DType::F32).unwrap()).unwrap()[0]
    };
    let gradient = values(s, &reduce::sum_leading(s, &weight, DType::F32).unwrap()).unwrap();
    for (column, gradient) in gradient.iter().enumerate() {
        let mut moved = bias.to_vec::<f32>(s).unwrap();
        moved[column] += 1.0;
        let moved = Tensor::from_slice(s, &[7], &moved).unwrap();
        let difference = loss(&moved) - loss(&bias);
        assert!(
            (difference - gradient).abs() < 1e-3,
            "{difference} {gradient}"
        );
    }
}

#[test]
fn equal_bits_whatever_the_threads() {
    let s = stream();
    let mut numbers = Numbers::new(3);
    let x = numbers.tensor(s, DType::F32, &[700, 300]).unwrap();
    let index = numbers.integers(DType::I64, &[700], 40).unwrap();
    let index = Tensor::from_bytes(s, DType::I64, &[700], &index.bytes).unwrap();
    let sums = Tensor::from_slice(s, &[40, 300], &vec![0.0_f32; 12_000]).unwrap();
    movement::scatter_add(s, &sums, &index, &x).unwrap();
    let f32 = DType::F32;
    let results = [
        reduce::sum_all(s, &x, f32).unwrap(),
        reduce::sum_last(s, &x, f32).unwrap(),
        reduce::sum_leading(s, &x, f32).unwrap(),
        sums,
    ];
    let bits: Vec<u8> = results
        .iter()
        .flat_map(|t| t.to_bytes(s).unwrap())
        .collect();
    let hash = bits.iter().fold(14_695_981_039_346_656_037_u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(1_099_511_628_211)
    });
    println!("bits: {hash:x}");
    if std::env::var_os(AGAIN).is_some() {
        return;
    }
    for threads in ["1", "2", "3"] {
        let done = Command::new(std::env::current_exe().unwrap())
            .args(["reduce::equal_bits", "--nocapture"])
            .envs([(AGAIN, "1"), ("DS_CPU_THREADS", threads)])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&done.stdout);
        assert!(
            told.contains(&format!("bits: {hash:x}")),
            "{threads} threads: {told}"
        );
    }
}
