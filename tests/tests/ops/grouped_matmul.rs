//! Products of experts: each one's layer on its rows, whatever starts say.

use ds_core::{DType, ErrorKind, Tensor};
use ds_ops::{
    activation::Activation,
    matmul::{grouped_matmul, linear},
};
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};

use crate::{FLOATS, equal_on_any_threads, stream};

/// No rows, one, few, many; rows of none at both ends.
const STARTS: [i64; 7] = [3, 4, 4, 9, 17, 40, 340];
const ROWS: i64 = 345;

fn starts(of: &[i64], dtype: DType) -> Tensor {
    let count = i64::try_from(of.len()).unwrap();
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let values: Vec<f64> = of.iter().map(|&start| start as f64).collect();
    tensor(stream(), dtype, &[count], &values).unwrap()
}

#[test]
fn each_expert_is_a_layer_of_its_rows() {
    let s = stream();
    for dtype in FLOATS {
        let mut numbers = Numbers::new(5);
        let [n, k] = [210, 60];
        let x = numbers.tensor(s, dtype, &[ROWS, k]).unwrap();
        let bias = numbers.tensor(s, dtype, &[6, n]).unwrap();
        for columns in [false, true] {
            let shape = if columns { [6, k, n] } else { [6, n, k] };
            let mut w = numbers.tensor(s, dtype, &shape).unwrap();
            if columns {
                w = w.transpose(1, 2).unwrap();
            }
            let index = starts(&STARTS, DType::I32);
            let y = grouped_matmul(s, &x, &w, &index, Some(&bias), Activation::Relu).unwrap();
            for (e, group) in STARTS.windows(2).enumerate() {
                let (begin, rows) = (group[0], group[1] - group[0]);
                let e = i64::try_from(e).unwrap();
                let one = |of: &Tensor, shape: &[i64]| {
                    let size = i64::try_from(dtype.size_bytes()).unwrap();
                    let offset = (e * of.strides()[0] * size).unsigned_abs();
                    Tensor::view_of(of.buffer(), offset, dtype, shape, &of.strides()[1..]).unwrap()
                };
                let part = x.narrow(0, begin, rows).unwrap();
                let (w, bias) = (one(&w, &[n, k]), one(&bias, &[n]));
                let want = linear(s, &part, &w, Some(&bias), None, Activation::Relu).unwrap();
                let got = y.narrow(0, begin, rows).unwrap();
                let (got, want) = (values(s, &got).unwrap(), values(s, &want).unwrap());
                let tolerance = if dtype == DType::F32 { 1e-5 } else { 8e-3 };
                for (got, want) in got.iter().zip(&want) {
                    assert!(
                        (got - want).abs() <= tolerance * (1.0 + want.abs()),
                        "{dtype} {e}: {got}, not {want}"
                    );
                }
            }
            for (begin, rows) in [(0, 3), (340, 5)] {
                let none = values(s, &y.narrow(0, begin, rows).unwrap()).unwrap();
                assert!(none.iter().all(|v| *v == 0.0), "{dtype}: rows of no expert");
            }
        }
    }
}

/// Upstream reads whatever rows these say.
#[test]
fn starts_that_are_none_are_not_followed() {
    let s = stream();
    let mut numbers = Numbers::new(6);
    let x = numbers.tensor(s, DType::F32, &[9, 8]).unwrap();
    let w = numbers.tensor(s, DType::F32, &[2, 300, 8]).unwrap();
    for dtype in [DType::I32, DType::I64] {
        for bad in [
            [0, 5, 3],
            [0, 4, 10],
            [-1, 4, 9],
            [0, 1 << 30, 9],
            [9, 9, -(1 << 30)],
        ] {
            let y = grouped_matmul(s, &x, &w, &starts(&bad, dtype), None, Activation::Identity);
            let y = values(s, &y.unwrap()).unwrap();
            assert!(y.iter().all(|v| v.is_nan()), "{bad:?}");
        }
    }
}

#[test]
fn extents_that_do_not_fit_are_refused() {
    let s = stream();
    let empty = |shape: &[i64]| Tensor::empty(s, DType::F32, shape).unwrap();
    let run = |x: &[i64], w: &[i64], count: usize| {
        let index = starts(&vec![0; count], DType::I64);
        grouped_matmul(s, &empty(x), &empty(w), &index, None, Activation::Identity).unwrap_err()
    };
    for (error, words) in [
        (
            run(&[2, 3], &[4, 3], 3),
            "x is [2, 3] and w is [4, 3]: they have to be [R, K] and [E, N, K]",
        ),
        (
            run(&[2, 3], &[4, 5, 3], 4),
            "starts is [4] for 4 experts, it has to be [5]",
        ),
        (run(&[2, 3], &[4, 5, 6], 5), "K"),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// The gradient of x is the product with the other view of w, as finite differences have it.
#[test]
fn the_gradient_of_rows_is_a_grouped_product_too() {
    let s = stream();
    let mut numbers = Numbers::new(7);
    let [rows, n, k] = [12, 7, 5];
    let index = starts(&[1, 4, 4, 11], DType::I64);
    let x = numbers.tensor(s, DType::F32, &[rows, k]).unwrap();
    let w = numbers.tensor(s, DType::F32, &[3, n, k]).unwrap();
    let dy = numbers.tensor(s, DType::F32, &[rows, n]).unwrap();
    let view = w.transpose(1, 2).unwrap();
    let dx = grouped_matmul(s, &dy, &view, &index, None, Activation::Identity).unwrap();
    let (at, dy, dx) = (
        values(s, &x).unwrap(),
        values(s, &dy).unwrap(),
        values(s, &dx).unwrap(),
    );
    let loss = |x: &[f64]| -> f64 {
        let x = tensor(s, DType::F32, &[rows, k], x).unwrap();
        let y = grouped_matmul(s, &x, &w, &index, None, Activation::Identity).unwrap();
        values(s, &y)
            .unwrap()
            .iter()
            .zip(&dy)
            .map(|(y, dy)| y * dy)
            .sum()
    };
    for i in 0..at.len() {
        // The op is linear in x, so a step of 1 has no error but of rounding.
        let (mut up, mut down) = (at.clone(), at.clone());
        up[i] += 0.5;
        down[i] -= 0.5;
        let slope = loss(&up) - loss(&down);
        assert!((slope - dx[i]).abs() < 1e-3, "[{i}]: {} for {slope}", dx[i]);
    }
}

#[test]
fn grouped_products_on_any_threads_have_equal_bits() {
    let s = stream();
    let mut results = Vec::new();
    for dtype in FLOATS {
        let mut numbers = Numbers::new(8);
        let x = numbers.tensor(s, dtype, &[ROWS, 300]).unwrap();
        let w = numbers.tensor(s, dtype, &[6, 500, 300]).unwrap();
        let index = starts(&STARTS, DType::I32);
        results.push(grouped_matmul(s, &x, &w, &index, None, Activation::Gelu).unwrap());
    }
    let results: Vec<&Tensor> = results.iter().collect();
    equal_on_any_threads("grouped_products_on_any_threads", &results);
}
