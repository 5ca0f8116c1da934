//! Norms beyond their cases: fused forms are their parts bit for bit, gradients are slopes, large
//! results are the small ones, and what kernels claim of layouts holds.

use ds_core::{DType, Result, Tensor};
use ds_ops::{
    layer_norm::{self, AddLayerNorm},
    rms_norm::{self, AddRmsNorm},
};
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};

use crate::{FLOATS, check, equal_on_any_threads, stream};

const EPS: f64 = 1e-5;

pub(crate) fn bytes(tensor: &Tensor) -> Vec<u8> {
    tensor.to_bytes(stream()).unwrap()
}

#[test]
fn the_norm_of_a_sum_is_the_norm_of_what_is_kept_of_it() {
    let s = stream();
    for dtype in FLOATS {
        let mut numbers = Numbers::new(20);
        let mut t = |shape: &[i64]| numbers.tensor(s, dtype, shape).unwrap();
        let (x, residual) = (t(&[7, 1100]), t(&[7, 1100]));
        let (add_bias, weight, bias) = (t(&[1100]), t(&[1100]), t(&[1100]));
        let (sum, y, rstd) = rms_norm::add_rms_norm(
            s,
            AddRmsNorm {
                x: &x,
                residual: &residual,
                bias: Some(&add_bias),
                weight: &weight,
                eps: EPS,
            },
        )
        .unwrap();
        let (alone, alone_rstd) = rms_norm::rms_norm(s, &sum, &weight, EPS).unwrap();
        assert!(bytes(&y) == bytes(&alone) && bytes(&rstd) == bytes(&alone_rstd));
        let (again, norm) = layer_norm::add_layer_norm(
            s,
            AddLayerNorm {
                x: &x,
                residual: &residual,
                add_bias: Some(&add_bias),
                weight: Some(&weight),
                bias: Some(&bias),
                eps: EPS,
            },
        )
        .unwrap();
        assert!(bytes(&sum) == bytes(&again));
        let alone = layer_norm::layer_norm(s, &sum, Some(&weight), Some(&bias), EPS).unwrap();
        for (fused, alone) in [
            (&norm.y, &alone.y),
            (&norm.mean, &alone.mean),
            (&norm.rstd, &alone.rstd),
        ] {
            assert!(bytes(fused) == bytes(alone), "{dtype}");
        }
    }
}

/// The sum of products of two tensors' elements.
pub(crate) fn dot(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (values(stream(), a).unwrap(), values(stream(), b).unwrap());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Holds `gradient` against the slopes of `of` in the directions of the elements of `at`.
///
/// The step is 2^-6: what a central difference leaves out is its square, 2e-4 of a third derivative
/// of order 1, and the roundings of f32 come to 1e-6 / 2^-5. 5e-3 is far from both, and from the
/// gradients, which are of order 1.
pub(crate) fn slopes(at: &Tensor, gradient: &Tensor, of: impl Fn(&Tensor) -> Result<f64>) {
    const STEP: f64 = 1.0 / 64.0;
    let (middle, gradient) = (
        values(stream(), at).unwrap(),
        values(stream(), gradient).unwrap(),
    );
    for (index, want) in gradient.iter().enumerate() {
        let side = |step: f64| {
            let mut there = middle.clone();
            there[index] += step;
            of(&tensor(stream(), DType::F32, at.shape(), &there).unwrap()).unwrap()
        };
        let slope = (side(STEP) - side(-STEP)) / (2.0 * STEP);
        assert!(
            (slope - want).abs() < 5e-3 * (1.0 + want.abs()),
            "element {index}: the slope is {slope}, the gradient {want}"
        );
    }
}

#[test]
fn gradients_are_slopes() {
    let s = stream();
    let mut numbers = Numbers::new(21);
    let mut t = |shape: &[i64]| numbers.tensor(s, DType::F32, shape).unwrap();
    let (x, residual, dy, dsum) = (t(&[3, 9]), t(&[3, 9]), t(&[3, 9]), t(&[3, 9]));
    let (weight, bias) = (t(&[9]), t(&[9]));
    let layer = |x: &Tensor, weight: &Tensor, bias: &Tensor| {
        let call = AddLayerNorm {
            x,
            residual: &residual,
            add_bias: None,
            weight: Some(weight),
            bias: Some(bias),
            eps: EPS,
        };
        layer_norm::add_layer_norm(s, call)
    };
    let loss = |x: &Tensor, weight: &Tensor, bias: &Tensor| -> Result<f64> {
        let (sum, norm) = layer(x, weight, bias)?;
        Ok(dot(&dy, &norm.y) + dot(&dsum, &sum))
    };
    let (sum, norm) = layer(&x, &weight, &bias).unwrap();
    let to = layer_norm::add_layer_norm_backward(
        s,
        &dy,
        &dsum,
        &sum,
        Some(&weight),
        &norm.mean,
        &norm.rstd,
    )
    .unwrap();
    slopes(&x, &to.dx, |x| loss(x, &weight, &bias));
    slopes(&weight, &to.dweight, |weight| loss(&x, weight, &bias));
    slopes(&bias, &to.dbias, |bias| loss(&x, &weight, bias));

    let rms = |x: &Tensor, weight: &Tensor| {
        rms_norm::add_rms_norm(
            s,
            AddRmsNorm {
                x,
                residual: &residual,
                bias: None,
                weight,
                eps: EPS,
            },
        )
    };
    let loss = |x: &Tensor, weight: &Tensor| -> Result<f64> {
        let (sum, y, _) = rms(x, weight)?;
        Ok(dot(&dy, &y) + dot(&dsum, &sum))
    };
    let (sum, _, rstd) = rms(&x, &weight).unwrap();
    let (dx, dweight) =
        rms_norm::add_rms_norm_backward(s, &dy, &dsum, &sum, &weight, &rstd).unwrap();
    slopes(&x, &dx, |x| loss(x, &weight));
    slopes(&weight, &dweight, |weight| loss(&x, weight));
}

#[test]
fn norms_give_equal_bits_whatever_the_threads() {
    let s = stream();
    let mut numbers = Numbers::new(22);
    let mut t = |shape: &[i64]| numbers.tensor(s, DType::F32, shape).unwrap();
    let (x, residual, dy) = (t(&[300, 257]), t(&[300, 257]), t(&[300, 257]));
    let (weight, bias) = (t(&[257]), t(&[257]));
    let call = AddLayerNorm {
        x: &x,
        residual: &residual,
        add_bias: None,
        weight: Some(&weight),
        bias: Some(&bias),
        eps: EPS,
    };
    let (sum, norm) = layer_norm::add_layer_norm(s, call).unwrap();
    let layer_norm::LayerNorm { y, mean, rstd } = &norm;
    let to = layer_norm::layer_norm_backward(s, &dy, &sum, Some(&weight), mean, rstd).unwrap();
    let (dx, dweight) = rms_norm::add_rms_norm_backward(s, &dy, &x, &sum, &weight, rstd).unwrap();
    equal_on_any_threads(
        "norms_give_equal_bits",
        &[
            &sum,
            y,
            mean,
            rstd,
            &to.dx,
            &to.dweight,
            &to.dbias,
            &dx,
            &dweight,
        ],
    );
}

/// Results beyond 32 MiB go past the caches; they are those of one row after the other. Rows of this
/// length are not all aligned to a vector.
#[test]
fn norms_of_many_rows_are_those_of_each() {
    const D: i64 = 4100;
    const ROWS: i64 = 89;
    let s = stream();
    let mut numbers = Numbers::new(23);
    let mut two = |shape: &[i64]| {
        let few = numbers.tensor(s, DType::F32, shape).unwrap();
        let many = bytes(&few).repeat(23);
        [
            few,
            Tensor::from_bytes(s, DType::F32, &[23 * ROWS, D], &many).unwrap(),
        ]
    };
    let ([x, xs], [residual, residuals]) = (two(&[ROWS, D]), two(&[ROWS, D]));
    let weight = numbers.tensor(s, DType::F32, &[D]).unwrap();
    let both = |x: &Tensor, residual: &Tensor| {
        let call = AddLayerNorm {
            x,
            residual,
            add_bias: Some(&weight),
            weight: Some(&weight),
            bias: None,
            eps: EPS,
        };
        let (sum, norm) = layer_norm::add_layer_norm(s, call).unwrap();
        let layer_norm::LayerNorm { y, mean, rstd } = &norm;
        let to =
            layer_norm::add_layer_norm_backward(s, residual, x, &sum, None, mean, rstd).unwrap();
        [bytes(&sum), bytes(y), bytes(&to.dx)]
    };
    // The reference has one way only, and takes long for so many elements.
    let op = ds_core::op::find("layer_norm").unwrap();
    let norm = layer_norm::layer_norm(s, &x, None, None, EPS).unwrap();
    let args: [&[&Tensor]; 6] = [&[&x], &[], &[], &[&residual], &[&norm.mean], &[&norm.rstd]];
    let on = ds_core::op::resolve(op, s, &args, &[], &[Attr::F64(EPS)]).unwrap();
    if let ds_core::op::RunsOn::Reference(_) = on {
        return;
    }
    for (few, many) in both(&x, &residual).iter().zip(both(&xs, &residuals)) {
        assert!(many.len() >= 32 << 20, "too few to be large");
        for copy in many.chunks_exact(few.len()) {
            assert!(copy == few.as_slice());
        }
    }
}

#[test]
fn norms_take_rows_with_gaps_and_leave_the_gaps_alone() {
    let s = stream();
    let mut numbers = Numbers::new(24);
    let mut wide = || {
        let whole = numbers.tensor(s, DType::F32, &[6, 80]).unwrap();
        let part = whole.narrow(1, 3, 65).unwrap();
        (whole, part)
    };
    let ((_, x), (_, residual), (_, weights)) = (wide(), wide(), wide());
    let ((sums, sum), (ys, y), (dxs, dx)) = (wide(), wide(), wide());
    let before = [&sums, &ys, &dxs].map(|t| values(s, t).unwrap());
    let empty = |shape: &[i64]| Tensor::empty(s, DType::F32, shape).unwrap();
    let (mean, rstd, dweight, dbias) = (empty(&[6]), empty(&[6]), empty(&[65]), empty(&[65]));
    let weight = weights.narrow(0, 2, 1).unwrap().reshape(&[65]).unwrap();
    let eps = [Attr::F64(EPS)];
    let args: [&[&Tensor]; 9] = [
        &[&x],
        &[&residual],
        &[],
        &[&weight],
        &[&weight],
        &[&sum],
        &[&y],
        &[&mean],
        &[&rstd],
    ];
    check("add_layer_norm", &args, &[], &eps);
    let args: [&[&Tensor]; 9] = [
        &[&x],
        &[&residual],
        &[&sum],
        &[&weight],
        &[&mean],
        &[&rstd],
        &[&dx],
        &[&dweight],
        &[&dbias],
    ];
    check("add_layer_norm_backward", &args, &[], &[]);
    let args: [&[&Tensor]; 7] = [
        &[&x],
        &[&residual],
        &[],
        &[&weight],
        &[&sum],
        &[&y],
        &[&rstd],
    ];
    check("add_rms_norm", &args, &[], &eps);
    let args: [&[&Tensor]; 7] = [
        &[&x],
        &[&residual],
        &[&sum],
        &[&weight],
        &[&rstd],
        &[&dx],
        &[&dweight],
    ];
    check("add_rms_norm_backward", &args, &[], &[]);
    for (before, after) in before.iter().zip([&sums, &ys, &dxs]) {
        let after = values(s, after).unwrap();
        for (index, (before, after)) in before.iter().zip(&after).enumerate() {
            if !(3..68).contains(&(index % 80)) {
                assert_eq!(before, after, "element {index} lies in a gap");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let s = stream();
    let mut numbers = Numbers::new(25);
    let mut t = |shape: &[i64]| numbers.tensor(s, DType::F32, shape).unwrap();
    let (x, other, short) = (t(&[4, 8]), t(&[4, 7]), t(&[7]));
    let error = layer_norm::layer_norm(s, &x, None, Some(&short), EPS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer_norm: argument 'bias': dimension D is 7, but 'x' has D = 8"
    );
    let call = AddRmsNorm {
        x: &x,
        residual: &other,
        bias: None,
        weight: &short,
        eps: EPS,
    };
    let error = rms_norm::add_rms_norm(s, call).unwrap_err();
    assert_eq!(
        error.to_string(),
        "add_rms_norm: argument 'residual': dimension D is 7, but 'x' has D = 8"
    );
}
