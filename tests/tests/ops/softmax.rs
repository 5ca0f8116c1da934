//! Softmax and its logarithm: layouts, rows left nothing, gradients, large results.

use std::process::Command;

use ds_core::{
    DType, ErrorKind, Tensor,
    op::{self, RunsOn},
};
use ds_ops::softmax::{
    SoftmaxConfig, log_softmax, log_softmax_backward, softmax, softmax_backward,
};
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, copy, tensor},
    compare::values,
};

use crate::{AGAIN, FLOATS, check, stream};

/// As [`check`], and the call does not fall back: the kernel takes what it says it does. In the
/// runs of other settings there may be no kernel.
pub(crate) fn check_kernel(name: &str, args: &[&[&Tensor]], attributes: &[Attr], scalars: &[Attr]) {
    let op = op::find(name).unwrap();
    let on = op::resolve(op, stream(), args, attributes, scalars).unwrap();
    let is_kernel = matches!(on, RunsOn::Kernel(_) | RunsOn::Nothing);
    assert!(is_kernel || std::env::var_os(AGAIN).is_some(), "{on:?}");
    check(name, args, attributes, scalars);
}

/// The slope of `loss` at `x` in every direction, by central differences. With a step of 2^-6 the
/// error is about its square times a third derivative of unit scale, 2^-12, and rounding in f32 adds
/// 2^-24 / 2^-6.
pub(crate) fn slopes(x: &[f64], loss: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1.0 / 64.0;
    let at = |index: usize, step: f64| {
        let mut moved = x.to_vec();
        moved[index] += step;
        loss(&moved)
    };
    let slope = |index| (at(index, STEP) - at(index, -STEP)) / (2.0 * STEP);
    (0..x.len()).map(slope).collect()
}

/// Holds a gradient against [`slopes`].
pub(crate) fn hold_slopes(what: &str, gradient: &[f64], slopes: &[f64]) {
    assert_eq!(gradient.len(), slopes.len());
    for (index, (got, want)) in gradient.iter().zip(slopes).enumerate() {
        let near = (got - want).abs() <= 2e-3 * (1.0 + want.abs());
        assert!(near, "{what}[{index}] is {got}, differences give {want}");
    }
    assert!(slopes.iter().any(|s| s.abs() > 1e-2), "{what} is flat");
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `of` a tensor that is large enough to go past the caches is that of its parts, bit for bit. Rows
/// of this length are not all aligned to a vector.
pub(crate) fn many_rows_are_each(what: &str, dtype: DType, of: impl Fn(&Tensor) -> Tensor) {
    const D: i64 = 4102;
    const ROWS: i64 = 45;
    if std::env::var_os(AGAIN).is_some() {
        // Without a kernel there is one way only, and it takes long for so many elements.
        return;
    }
    let s = stream();
    let copies = if dtype == DType::F32 { 46 } else { 92 };
    let few = Numbers::new(9).tensor(s, dtype, &[ROWS, D]).unwrap();
    let bytes = few.to_bytes(s).unwrap().repeat(copies);
    let rows = ROWS * i64::try_from(copies).unwrap();
    let many = Tensor::from_bytes(s, dtype, &[rows, D], &bytes).unwrap();
    let few = of(&few).to_bytes(s).unwrap();
    let many = of(&many).to_bytes(s).unwrap();
    assert!(many.len() >= 32 << 20, "too few to be large");
    for copy in many.chunks_exact(few.len()) {
        assert!(copy == few.as_slice(), "{what} {dtype}");
    }
}

/// The bytes of these are equal in processes of 1, 2 and 3 threads, which run the test `name` again.
#[allow(clippy::print_stdout, reason = "the process that asks reads it")]
pub(crate) fn bits_are_equal_whatever_the_threads(name: &str, results: &[&Tensor]) {
    let bytes = results.iter().map(|t| t.to_bytes(stream()).unwrap());
    let bits = format!(
        "bits: {}",
        blake3::hash(&bytes.collect::<Vec<_>>().concat())
    );
    println!("{bits}");
    if std::env::var_os(AGAIN).is_some() {
        return;
    }
    for threads in ["1", "2", "3"] {
        let done = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .envs([(AGAIN, "1"), ("DS_CPU_THREADS", threads)])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&done.stdout);
        assert!(told.contains(&bits), "{threads} threads: {told}");
    }
}

const PLAIN: (&[Attr], &[Attr]) = (&[Attr::Bool(false)], &[Attr::F64(0.7)]);

#[test]
fn softmax_takes_rows_with_gaps_and_leaves_the_gaps_alone() {
    let s = stream();
    for dtype in FLOATS {
        let mut numbers = Numbers::new(2);
        let x = numbers.tensor(s, dtype, &[6, 50]).unwrap();
        let wide = numbers.tensor(s, dtype, &[6, 40]).unwrap();
        let before = values(s, &wide).unwrap();
        let (x, y) = (x.narrow(1, 2, 33).unwrap(), wide.narrow(1, 3, 33).unwrap());
        let (attributes, scalars) = PLAIN;
        check_kernel("softmax", &[&[&x], &[], &[&y]], attributes, scalars);
        check_kernel("log_softmax", &[&[&x], &[&y]], &[], &[]);
        check_kernel("softmax_backward", &[&[&x], &[&x], &[&y]], &[], scalars);
        check_kernel("log_softmax_backward", &[&[&x], &[&x], &[&y]], &[], &[]);
        let after = values(s, &wide).unwrap();
        for (index, (before, after)) in before.iter().zip(&after).enumerate() {
            if !(3..36).contains(&(index % 40)) {
                assert_eq!(before, after, "element {index} lies in a gap");
            }
        }
    }
}

#[test]
fn softmax_works_in_place() {
    let s = stream();
    let mut numbers = Numbers::new(3);
    let mut t = || numbers.tensor(s, DType::BF16, &[5, 2100]).unwrap();
    let (x, dy, y) = (t(), t(), t());
    let (attributes, scalars) = PLAIN;
    check_kernel("softmax", &[&[&x], &[], &[&x]], attributes, scalars);
    check_kernel("log_softmax", &[&[&x], &[&x]], &[], &[]);
    check_kernel("softmax_backward", &[&[&dy], &[&y], &[&dy]], &[], scalars);
    check_kernel("log_softmax_backward", &[&[&dy], &[&y], &[&y]], &[], &[]);
}

/// Masks repeat over batches, over rows and over columns, and may be transposed.
#[test]
fn softmax_takes_masks_of_any_strides() {
    let s = stream();
    for dtype in FLOATS {
        let mut numbers = Numbers::new(4);
        let mut t = |shape: &[i64]| numbers.tensor(s, dtype, shape).unwrap();
        let shape = [2, 3, 77];
        let x = t(&shape);
        let y = copy(s, &x).unwrap();
        let masks = [
            t(&[77]).expand(&shape).unwrap(),
            t(&[2, 1, 77]).expand(&shape).unwrap(),
            t(&[3, 1]).expand(&shape).unwrap(),
            t(&[2, 77, 3]).transpose(1, 2).unwrap(),
        ];
        for mask in &masks {
            for causal in [false, true] {
                let attributes = [Attr::Bool(causal)];
                let args: [&[&Tensor]; 3] = [&[&x], &[mask], &[&y]];
                check_kernel("softmax", &args, &attributes, PLAIN.1);
            }
        }
    }
}

#[test]
fn rows_that_are_left_nothing_are_zero_and_rows_of_nothing_are_nan() {
    let s = stream();
    let hidden = tensor(s, DType::F32, &[2, 3], &[f64::NEG_INFINITY; 6]).unwrap();
    let x = tensor(s, DType::F32, &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let mask = Some(&hidden);
    let masked = SoftmaxConfig {
        mask,
        ..SoftmaxConfig::default()
    };
    let y = softmax(s, &x, &masked).unwrap();
    assert_eq!(values(s, &y).unwrap(), [0.0; 6]);
    // Five queries of three keys: the first two come before every key.
    let x = Numbers::new(1).tensor(s, DType::F32, &[5, 3]).unwrap();
    let causal = SoftmaxConfig {
        causal: true,
        ..SoftmaxConfig::default()
    };
    let y = values(s, &softmax(s, &x, &causal).unwrap()).unwrap();
    assert_eq!(y[..9], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    assert!((y[9] + y[10] - 1.0).abs() < 1e-6 && y[11] == 0.0, "{y:?}");
    let y = softmax(s, &hidden, &SoftmaxConfig::default()).unwrap();
    assert!(values(s, &y).unwrap().iter().all(|v| v.is_nan()));
}

#[test]
fn gradients_of_softmax_are_the_slopes() {
    let s = stream();
    let shape = [2, 9];
    let mut numbers = Numbers::new(5);
    let mut draw = || (0..18).map(|_| numbers.draw()).collect::<Vec<_>>();
    let (x, dy) = (draw(), draw());
    let upload = |v: &[f64]| tensor(s, DType::F32, &shape, v).unwrap();
    let config = SoftmaxConfig {
        scale: 0.7,
        ..SoftmaxConfig::default()
    };
    let y = |x: &[f64]| softmax(s, &upload(x), &config).unwrap();
    let dx = softmax_backward(s, &upload(&dy), &y(&x), 0.7).unwrap();
    let want = slopes(&x, |x| dot(&dy, &values(s, &y(x)).unwrap()));
    hold_slopes("softmax dx", &values(s, &dx).unwrap(), &want);

    let y = |x: &[f64]| log_softmax(s, &upload(x)).unwrap();
    let dx = log_softmax_backward(s, &upload(&dy), &y(&x)).unwrap();
    let want = slopes(&x, |x| dot(&dy, &values(s, &y(x)).unwrap()));
    hold_slopes("log_softmax dx", &values(s, &dx).unwrap(), &want);
}

#[test]
fn softmax_of_many_rows_is_that_of_each() {
    let s = stream();
    for dtype in FLOATS {
        many_rows_are_each("softmax", dtype, |x| {
            softmax(s, x, &SoftmaxConfig::default()).unwrap()
        });
        many_rows_are_each("softmax_backward", dtype, |x| {
            softmax_backward(s, x, x, 0.5).unwrap()
        });
    }
}

#[test]
fn softmax_gives_equal_bits_whatever_the_threads() {
    let s = stream();
    let x = Numbers::new(7).tensor(s, DType::F32, &[130, 3001]).unwrap();
    let y = softmax(s, &x, &SoftmaxConfig::default()).unwrap();
    let dx = softmax_backward(s, &x, &y, 0.5).unwrap();
    let name = "softmax::softmax_gives_equal_bits_whatever_the_threads";
    bits_are_equal_whatever_the_threads(name, &[&y, &dx, &log_softmax(s, &x).unwrap()]);
}

#[test]
fn a_mask_of_another_shape_is_refused_by_name() {
    let s = stream();
    let mut numbers = Numbers::new(6);
    let mut t = |shape: &[i64]| numbers.tensor(s, DType::F32, shape).unwrap();
    let (x, mask) = (t(&[4, 8]), t(&[1, 8]));
    let config = SoftmaxConfig {
        mask: Some(&mask),
        ..SoftmaxConfig::default()
    };
    let error = softmax(s, &x, &config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("argument 'mask'"), "{error}");
}
