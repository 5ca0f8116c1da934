//! Matrix products: every way that a kernel goes about them, views of all kinds, layers.

use ds_core::{DType, ErrorKind, Tensor, op};
use ds_ops::{
    activation::{Activation, activation},
    matmul::{linear, matmul},
};
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};

use crate::{FLOATS, softmax::check_kernel, stream};

/// Rows for one, a few, a tile and a rest, more than an item.
const ROWS: [i64; 6] = [1, 3, 7, 8, 21, 290];

fn product(a: &Tensor, b: &Tensor) {
    let mut shape = a.shape().to_vec();
    *shape.last_mut().unwrap() = *b.shape().last().unwrap();
    let c = Tensor::empty(stream(), a.dtype(), &shape).unwrap();
    check_kernel("matmul", &[&[a], &[b], &[&c]], &[], &[]);
}

/// A matrix of these strides, from element `first` of a tensor on.
fn view(of: &Tensor, first: u64, shape: [i64; 2], strides: [i64; 2]) -> Tensor {
    let offset = first * of.bytes() / u64::try_from(of.elements()).unwrap();
    Tensor::view_of(of.buffer(), offset, of.dtype(), &shape, &strides).unwrap()
}

#[test]
fn b_may_lie_in_any_way() {
    let s = stream();
    for dtype in FLOATS {
        let mut numbers = Numbers::new(1);
        let memory = numbers.tensor(s, dtype, &[40 * 400]).unwrap();
        for m in ROWS {
            let a = numbers.tensor(s, dtype, &[m, 37]).unwrap();
            // Columns side by side, values of k side by side, neither, all the same.
            for strides in [[401, 1], [1, 43], [120, 3], [2, 80], [0, 1], [1, 0]] {
                for n in [53, 96] {
                    product(&a, &view(&memory, 5, [37, n], strides));
                }
            }
        }
    }
}

#[test]
fn a_and_c_may_lie_in_any_way() {
    let s = stream();
    for dtype in FLOATS {
        let mut numbers = Numbers::new(2);
        let memory = numbers.tensor(s, dtype, &[40 * 400]).unwrap();
        let b = numbers.tensor(s, dtype, &[37, 53]).unwrap();
        for m in ROWS {
            for strides in [[43, 1], [1, 291], [0, 2]] {
                let a = view(&memory, 3, [m, 37], strides);
                product(&a, &b);
                let room = numbers.tensor(s, dtype, &[m * 120]).unwrap();
                for strides in [[60, 1], [1, m], [120, 2]] {
                    let c = view(&room, 1, [m, 53], strides);
                    check_kernel("matmul", &[&[&a], &[&b], &[&c]], &[], &[]);
                }
            }
        }
    }
}

/// Matrices of a batch that are one and the same are packed once, and read by all.
#[test]
fn a_batch_may_share_its_matrices() {
    let s = stream();
    for dtype in FLOATS {
        let mut numbers = Numbers::new(3);
        for m in [2, 150] {
            let a = numbers.tensor(s, dtype, &[4, m, 30]).unwrap();
            let b = numbers.tensor(s, dtype, &[4, 30, 70]).unwrap();
            let one = |t: &Tensor| t.narrow(0, 1, 1).unwrap().expand(t.shape()).unwrap();
            product(&one(&a), &b);
            product(&a, &one(&b));
            product(&one(&a), &one(&b));
        }
    }
}

/// More values of k than a block has, and sums of nothing.
#[test]
fn sums_are_long_or_of_nothing() {
    let s = stream();
    for dtype in FLOATS {
        let mut numbers = Numbers::new(4);
        for (m, k, n) in [
            (9, 2100, 50),
            (300, 1030, 20),
            (1, 2100, 30),
            (2, 0, 3),
            (20, 0, 30),
        ] {
            let a = numbers.tensor(s, dtype, &[m, k]).unwrap();
            product(&a, &numbers.tensor(s, dtype, &[k, n]).unwrap());
            let b = numbers.tensor(s, dtype, &[n, k]).unwrap();
            product(&a, &b.transpose(0, 1).unwrap());
        }
        let c = numbers.tensor(s, dtype, &[2, 3]).unwrap();
        let a = Tensor::empty(s, dtype, &[2, 0]).unwrap();
        let b = Tensor::empty(s, dtype, &[0, 3]).unwrap();
        check_kernel("matmul", &[&[&a], &[&b], &[&c]], &[], &[]);
        assert_eq!(values(s, &c).unwrap(), [0.0; 6], "a sum of nothing is zero");
    }
}

/// A number that is none reaches its row or column, and no other: not through what pads a tile either.
#[test]
fn what_is_no_number_stays_in_its_row_and_column() {
    let s = stream();
    for (m, k, n) in [(1, 20, 50), (6, 20, 50), (30, 20, 50)] {
        let mut a = vec![1.0; 20 * usize::try_from(m).unwrap()];
        let mut b = vec![1.0; 20 * 50];
        *a.last_mut().unwrap() = f64::NAN;
        b[49] = f64::INFINITY;
        let a = tensor(s, DType::F32, &[m, k], &a).unwrap();
        let b = tensor(s, DType::F32, &[k, n], &b).unwrap();
        for (index, c) in values(s, &matmul(s, &a, &b).unwrap())
            .unwrap()
            .iter()
            .enumerate()
        {
            let (row, column) = (index / 50, index % 50);
            if row + 1 == usize::try_from(m).unwrap() {
                assert!(c.is_nan(), "row {row}, column {column}: {c}");
            } else {
                let want = if column == 49 { f64::INFINITY } else { 20.0 };
                assert!(
                    (*c - want).abs() < 1e-5 || *c == want,
                    "row {row}, column {column}: {c}"
                );
            }
        }
    }
}

/// What a layer gives is what its parts give, rounded between them.
#[test]
fn a_layer_is_its_parts() {
    let s = stream();
    let mut numbers = Numbers::new(5);
    let mut of = |shape: &[i64]| numbers.tensor(s, DType::F32, shape).unwrap();
    let (x, w, bias, residual) = (of(&[2, 11, 40]), of(&[70, 40]), of(&[70]), of(&[2, 11, 70]));
    for kind in Activation::ALL {
        let y = linear(s, &x, &w, Some(&bias), Some(&residual), kind).unwrap();
        assert_eq!(y.shape(), [2, 11, 70]);
        let by = w.transpose(0, 1).unwrap().expand(&[2, 40, 70]).unwrap();
        let h = activation(s, &matmul(s, &x, &by).unwrap(), Some(&bias), kind).unwrap();
        let sum = ds_ops::elementwise::add(s, &h, &residual).unwrap();
        for (y, sum) in values(s, &y).unwrap().iter().zip(values(s, &sum).unwrap()) {
            // Forty products of unit scale: the sums themselves differ by their order alone.
            assert!(
                (y - sum).abs() < 2e-5 * (1.0 + sum.abs()),
                "{kind:?}: {y} and {sum}"
            );
        }
    }
}

#[test]
fn a_layer_of_nothing_and_wrong_arguments() {
    let s = stream();
    let of = |dtype, shape: &[i64]| Tensor::empty(s, dtype, shape).unwrap();
    let (x, w) = (of(DType::F32, &[0, 3, 4]), of(DType::F32, &[5, 4]));
    let y = linear(s, &x, &w, None, None, Activation::Gelu).unwrap();
    assert_eq!(y.shape(), [0, 3, 5]);

    let refused =
        |x: &Tensor, w: &Tensor, bias: Option<&Tensor>, residual: Option<&Tensor>, why: &str| {
            let e = linear(s, x, w, bias, residual, Activation::Identity).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}");
            assert!(e.to_string().contains(why), "{e}");
        };
    let x = of(DType::F32, &[3, 4]);
    refused(&x, &of(DType::F32, &[5, 3]), None, None, "argument 'w'");
    refused(&x, &of(DType::BF16, &[5, 4]), None, None, "argument 'w'");
    refused(&x, &w, Some(&of(DType::F32, &[4])), None, "argument 'bias'");
    refused(
        &x,
        &w,
        None,
        Some(&of(DType::F32, &[3, 4])),
        "argument 'residual'",
    );
    refused(&of(DType::F32, &[]), &w, None, None, "scalar");
    let y = of(DType::F32, &[3, 5]);
    let e = op::launch(
        op::find("linear").unwrap(),
        s,
        &[&[&x], &[&w], &[], &[], &[&y]],
        &[Attr::I64(7)],
        &[],
    );
    assert!(e.unwrap_err().to_string().contains("kind 7"));
}
