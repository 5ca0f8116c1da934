//! Elementwise ops: inputs that repeat or lie otherwise, results in their place, what is refused.

use ds_core::{
    DType, ErrorKind, Tensor,
    op::{self, HostTensor},
};
use ds_ops::elementwise;
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, copy, tensor},
    compare::values,
};

use crate::{FLOATS, check, stream};

/// Shapes that have a common one: a scalar, a row, a column, both, a batch, one element more or less than
/// what is gathered at a time.
const BROADCAST: [(&[i64], &[i64]); 9] = [
    (&[], &[5]),
    (&[7, 33], &[33]),
    (&[7, 33], &[7, 1]),
    (&[7, 1], &[33]),
    (&[3, 1, 40], &[5, 1]),
    (&[2, 1, 3, 1, 2, 1], &[2, 1, 3, 1, 2]),
    (&[4, 600], &[]),
    (&[1], &[1, 1]),
    (&[0, 3], &[1, 3]),
];

fn common(a: &[i64], b: &[i64]) -> Vec<i64> {
    let rank = a.len().max(b.len());
    let at = |shape: &[i64], axis: usize| {
        let missing = rank - shape.len();
        axis.checked_sub(missing).map_or(1, |axis| shape[axis])
    };
    (0..rank)
        .map(|axis| {
            if at(a, axis) == 1 {
                at(b, axis)
            } else {
                at(a, axis)
            }
        })
        .collect()
}

#[test]
fn inputs_repeat_to_their_common_shape() {
    let s = stream();
    for dtype in FLOATS {
        for (left, right) in BROADCAST {
            for (left, right) in [(left, right), (right, left)] {
                let mut numbers = Numbers::new(1);
                let a = numbers.tensor(s, dtype, left).unwrap();
                let b = numbers.tensor(s, dtype, right).unwrap();
                let shape = common(left, right);
                let y = Tensor::empty(s, dtype, &shape).unwrap();
                let (wide_a, wide_b) = (a.expand(&shape).unwrap(), b.expand(&shape).unwrap());
                check("sub", &[&[&wide_a], &[&wide_b], &[&y]], &[], &[]);
                let typed = elementwise::sub(s, &a, &b).unwrap();
                assert_eq!(typed.shape(), shape);
                assert_eq!(values(s, &typed).unwrap(), values(s, &y).unwrap());
            }
        }
    }
}

#[test]
fn tensors_of_any_strides_are_read_and_written() {
    let s = stream();
    for dtype in FLOATS {
        let mut numbers = Numbers::new(2);
        let mut t = |shape: &[i64]| numbers.tensor(s, dtype, shape).unwrap();
        let turned = t(&[70, 1100]).transpose(0, 1).unwrap();
        let rows = t(&[1100, 90]).narrow(1, 7, 70).unwrap();
        let steps = t(&[1100, 70, 2]).narrow(2, 1, 1).unwrap();
        let steps = steps.transpose(1, 2).unwrap().narrow(1, 0, 1).unwrap();
        let y = t(&[1100, 70]);
        let gaps = t(&[1100, 71]).narrow(1, 1, 70).unwrap();
        let y_turned = t(&[70, 1100]).transpose(0, 1).unwrap();
        for y in [&y, &gaps, &y_turned] {
            check("mul", &[&[&turned], &[&rows], &[y]], &[], &[]);
            check(
                "scale",
                &[&[&turned], &[y]],
                &[],
                &[Attr::F64(2.0), Attr::F64(0.5)],
            );
        }
        let narrow = Tensor::empty(s, dtype, steps.shape()).unwrap();
        check("exp", &[&[&steps], &[&narrow]], &[], &[]);
    }
}

#[test]
fn what_lies_between_the_elements_of_a_result_stays() {
    let s = stream();
    let mut numbers = Numbers::new(3);
    let wide = numbers.tensor(s, DType::F32, &[6, 40]).unwrap();
    let before = values(s, &wide).unwrap();
    let x = numbers.tensor(s, DType::F32, &[6, 33]).unwrap();
    check(
        "neg",
        &[&[&x], &[&wide.narrow(1, 3, 33).unwrap()]],
        &[],
        &[],
    );
    let after = values(s, &wide).unwrap();
    for index in (0..240).filter(|index| !(3..36).contains(&(index % 40))) {
        assert_eq!(before[index].to_bits(), after[index].to_bits(), "{index}");
    }
}

#[test]
fn a_result_may_be_the_memory_of_an_input() {
    let s = stream();
    for dtype in FLOATS {
        let mut numbers = Numbers::new(4);
        let a = numbers.tensor(s, dtype, &[3, 1003]).unwrap();
        let b = numbers.tensor(s, dtype, &[1003]).unwrap();
        let b = b.expand(&[3, 1003]).unwrap();
        let want = elementwise::add_scaled(s, &a, &b, -0.5).unwrap();
        let op = op::find("add_scaled").unwrap();
        op::launch(op, s, &[&[&a], &[&b], &[&a]], &[], &[Attr::F64(-0.5)]).unwrap();
        assert_eq!(a.to_bytes(s).unwrap(), want.to_bytes(s).unwrap());
    }
}

/// Large results take another way to memory: they are the small ones, bit for bit.
#[test]
fn large_results_are_the_small_ones() {
    let s = stream();
    let x = Numbers::new(5).tensor(s, DType::BF16, &[1 << 16]).unwrap();
    let op = op::find("exp").unwrap();
    if let op::RunsOn::Reference(_) = op::resolve(op, s, &[&[&x], &[&x]], &[], &[]).unwrap() {
        return; // it has one way only
    }
    let bytes = x.to_bytes(s).unwrap().repeat(300);
    let many = Tensor::from_bytes(s, DType::BF16, &[300 << 16], &bytes).unwrap();
    let one = |x: &Tensor| {
        let y = elementwise::exp(s, x).unwrap();
        elementwise::add(s, &y, x).unwrap().to_bytes(s).unwrap()
    };
    let few = one(&x);
    assert!(one(&many).chunks_exact(few.len()).all(|copy| copy == few));
}

#[test]
fn select_and_masked_fill_take_masks_that_repeat() {
    let s = stream();
    let mask = HostTensor::from_f64(DType::Bool, &[3, 1], &[1.0, 0.0, 1.0]).unwrap();
    let mask = Tensor::from_bytes(s, DType::Bool, &[3, 1], &mask.bytes).unwrap();
    for dtype in FLOATS {
        let x = tensor(s, dtype, &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let zero = tensor(s, dtype, &[], &[0.0]).unwrap();
        let chosen = elementwise::select(s, &mask, &x, &zero).unwrap();
        assert_eq!(values(s, &chosen).unwrap(), [1.0, 2.0, 0.0, 0.0, 5.0, 6.0]);
        let filled = elementwise::masked_fill(s, &x, &mask, f64::NEG_INFINITY).unwrap();
        let none = f64::NEG_INFINITY;
        assert_eq!(
            values(s, &filled).unwrap(),
            [none, none, 3.0, 4.0, none, none]
        );
    }
}

#[test]
fn shapes_and_dtypes_that_do_not_fit_are_refused() {
    let s = stream();
    let t = |dtype, shape: &[i64]| Tensor::empty(s, dtype, shape).unwrap();
    let error = elementwise::add(s, &t(DType::F32, &[4, 3]), &t(DType::F32, &[4])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        error.to_string(),
        "add: [4, 3] and [4] have no common shape"
    );
    let error = elementwise::mul(s, &t(DType::F32, &[4]), &t(DType::BF16, &[4])).unwrap_err();
    assert!(error.to_string().contains("'b'"), "{error}");
    let mask = t(DType::Bool, &[5]);
    assert!(elementwise::masked_fill(s, &t(DType::F32, &[4]), &mask, 0.0).is_err());
    let x = t(DType::F32, &[1]);
    let repeated = x.expand(&[4]).unwrap();
    let op = op::find("neg").unwrap();
    let from = t(DType::F32, &[4]);
    assert!(op::launch(op, s, &[&[&from], &[&repeated]], &[], &[]).is_err());
    let y = copy(s, &from).unwrap();
    let (a, b) = (y.narrow(0, 0, 3).unwrap(), y.narrow(0, 1, 3).unwrap());
    let error = op::launch(op, s, &[&[&a], &[&b]], &[], &[]).unwrap_err();
    assert!(error.to_string().contains("overlap"), "{error}");
}
