//! Norm, scale and clip of gradients: what cases of one kernel cannot say.

use ds_core::{DType, ErrorKind, Tensor};
use ds_ops::grads::{grad_clip, grad_norm, grad_scale};
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};

use crate::{FLOATS, stream};

fn one(tensor: &Tensor) -> f64 {
    values(stream(), tensor).unwrap()[0]
}

fn filled(dtype: DType, n: usize, value: f64) -> Tensor {
    let n_i64 = i64::try_from(n).unwrap();
    tensor(stream(), dtype, &[n_i64], &vec![value; n]).unwrap()
}

#[test]
fn a_norm_is_neither_lost_nor_infinite_beyond_the_squares_of_f32() {
    // 10000 equal ones: the norm is 100 times each of them.
    for (value, norm) in [(1e-30, 1e-28), (1e25, 1e27), (1.5, 150.0), (0.0, 0.0)] {
        let grads = filled(DType::F32, 10_000, value);
        let found = grad_norm(stream(), &[&grads]).unwrap();
        let got = one(&found.norm);
        assert!((got - norm).abs() <= 1e-6 * norm, "{value}: {got}");
        assert_eq!(one(&found.found_inf), 0.0, "{value}");
    }
    let huge = grad_norm(stream(), &[&filled(DType::F32, 10_000, 3e38)]).unwrap();
    assert_eq!(one(&huge.norm), f64::INFINITY);
    assert_eq!(one(&huge.found_inf), 0.0, "every gradient is finite");
}

#[test]
fn one_element_that_is_not_finite_is_found_wherever_it_is() {
    for dtype in FLOATS {
        for n in [1, 15, 16, 17, 1000, 16_384, 40_001] {
            for at in [0, n / 2, n - 1] {
                for value in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
                    let mut numbers = vec![0.5; n];
                    numbers[at] = value;
                    let shape = [i64::try_from(n).unwrap()];
                    let bad = tensor(stream(), dtype, &shape, &numbers).unwrap();
                    let good = filled(dtype, 40, 1.0);
                    let found = grad_norm(stream(), &[&good, &bad, &good]).unwrap();
                    assert_eq!(one(&found.found_inf), 1.0, "{dtype} {value} at {at} of {n}");
                    assert_eq!(one(&found.norm).is_nan(), value.is_nan());
                }
            }
        }
    }
}

#[test]
fn clipping_makes_the_norm_what_was_asked_for_and_leaves_less_alone() {
    let mut numbers = Numbers::new(11);
    let mut list = || {
        let shapes: [&[i64]; 3] = [&[7], &[300, 70], &[0]];
        shapes.map(|shape| numbers.tensor(stream(), DType::F32, shape).unwrap())
    };
    let (first, second) = (list(), list());
    let first: Vec<&Tensor> = first.iter().collect();
    let norm = grad_norm(stream(), &first).unwrap().norm;
    let before = values(stream(), first[1]).unwrap();
    grad_clip(stream(), &first, &norm, 1e6, 1.0).unwrap();
    assert_eq!(values(stream(), first[1]).unwrap(), before);
    grad_clip(stream(), &first, &norm, 0.25, 1.0).unwrap();
    let clipped = one(&grad_norm(stream(), &first).unwrap().norm);
    assert!((clipped - 0.25).abs() < 1e-6, "{clipped}");

    // With a loss scale in them, at once and one after the other.
    let second: Vec<&Tensor> = second.iter().collect();
    grad_scale(stream(), &second, None, 1024.0).unwrap();
    let norm = grad_norm(stream(), &second).unwrap().norm;
    grad_clip(stream(), &second, &norm, 3.0, 1.0 / 1024.0).unwrap();
    let clipped = one(&grad_norm(stream(), &second).unwrap().norm);
    assert!((clipped - 3.0).abs() < 1e-5, "{clipped}");
}

#[test]
fn a_tensor_with_gaps_is_scaled_and_its_gaps_are_not() {
    let wide = Numbers::new(12)
        .tensor(stream(), DType::F32, &[6, 40])
        .unwrap();
    let before = values(stream(), &wide).unwrap();
    let part = wide.narrow(1, 3, 33).unwrap();
    let by = filled(DType::F32, 1, 0.5).reshape(&[]).unwrap();
    grad_scale(stream(), &[&part], Some(&by), 4.0).unwrap();
    let after = values(stream(), &wide).unwrap();
    for (index, (before, after)) in before.iter().zip(&after).enumerate() {
        let inside = (3..36).contains(&(index % 40));
        let want = if inside { 2.0 * before } else { *before };
        assert_eq!(want.to_bits(), after.to_bits(), "element {index}");
    }
}

#[test]
fn a_list_of_two_dtypes_is_refused() {
    let (a, b) = (filled(DType::F32, 3, 1.0), filled(DType::BF16, 3, 1.0));
    let error = grad_norm(stream(), &[&a, &b]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("grads"), "{error}");
}
