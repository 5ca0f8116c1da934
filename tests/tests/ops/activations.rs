//! Activations beyond their cases: gradients are slopes, results are the same in place, in views and
//! when they are large, and what is no function is refused.

use ds_core::{DType, ErrorKind, Tensor, op};
use ds_ops::activation::{self, Activation, Gated, ResidualAdd};
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, copy, tensor},
    compare::values,
};

use crate::{
    FLOATS, check, equal_on_any_threads,
    norms::{bytes, dot, slopes},
    stream,
};

/// Without biases.
fn gated<'a>(kind: Activation, gate: &'a Tensor, up: &'a Tensor) -> Gated<'a> {
    Gated {
        kind,
        gate,
        up,
        gate_bias: None,
        up_bias: None,
    }
}

#[test]
fn gradients_of_every_function_are_slopes() {
    let s = stream();
    for kind in Activation::ALL {
        let mut numbers = Numbers::new(30);
        // Clear of zero by more than the step, where relu has no slope.
        let mut t = |shape: &[i64]| {
            let host = numbers
                .host_of(DType::F32, shape, |v| v + 0.1_f64.copysign(v))
                .unwrap();
            Tensor::from_bytes(s, DType::F32, shape, &host.bytes).unwrap()
        };
        let (x, up, dy) = (t(&[3, 7]), t(&[3, 7]), t(&[3, 7]));
        let dx = activation::activation_backward(s, &dy, &x, None, kind).unwrap();
        slopes(&x, &dx, |x| {
            Ok(dot(&dy, &activation::activation(s, x, None, kind)?))
        });
        let (dgate, dup) =
            activation::gated_activation_backward(s, &dy, gated(kind, &x, &up)).unwrap();
        slopes(&x, &dgate, |x| {
            Ok(dot(
                &dy,
                &activation::gated_activation(s, gated(kind, x, &up))?,
            ))
        });
        slopes(&up, &dup, |up| {
            Ok(dot(
                &dy,
                &activation::gated_activation(s, gated(kind, &x, up))?,
            ))
        });
    }
}

#[test]
fn gradients_of_biases_are_slopes() {
    let s = stream();
    let mut numbers = Numbers::new(31);
    let mut t = |shape: &[i64]| numbers.tensor(s, DType::F32, shape).unwrap();
    let (x, up, dy) = (t(&[5, 7]), t(&[5, 7]), t(&[5, 7]));
    let (bias, up_bias) = (t(&[7]), t(&[7]));
    let kind = Activation::Gelu;
    let dx = activation::activation_backward(s, &dy, &x, Some(&bias), kind).unwrap();
    let dbias = activation::bias_backward(s, &dx).unwrap();
    slopes(&bias, &dbias, |bias| {
        Ok(dot(&dy, &activation::activation(s, &x, Some(bias), kind)?))
    });
    let whole = Gated {
        gate_bias: Some(&bias),
        up_bias: Some(&up_bias),
        ..gated(kind, &x, &up)
    };
    let (dgate, dup) = activation::gated_activation_backward(s, &dy, whole).unwrap();
    let loss = |call: Gated<'_>| Ok(dot(&dy, &activation::gated_activation(s, call)?));
    let dbias = activation::bias_backward(s, &dgate).unwrap();
    slopes(&bias, &dbias, |bias| {
        loss(Gated {
            gate_bias: Some(bias),
            ..whole
        })
    });
    let dbias = activation::bias_backward(s, &dup).unwrap();
    slopes(&up_bias, &dbias, |up_bias| {
        loss(Gated {
            up_bias: Some(up_bias),
            ..whole
        })
    });
}

/// The halves of one tensor, as upstream has gate and value; the result over the gate's memory.
#[test]
fn halves_of_a_tensor_are_gated_in_place() {
    let s = stream();
    for dtype in FLOATS {
        let both = Numbers::new(32).tensor(s, dtype, &[5, 2 * 83]).unwrap();
        let (up, gate) = (
            both.narrow(1, 0, 83).unwrap(),
            both.narrow(1, 83, 83).unwrap(),
        );
        let before = values(s, &both).unwrap();
        let y = Tensor::empty(s, dtype, &[5, 83]).unwrap();
        let kind = [Attr::I64(Activation::Silu as i64)];
        let views: [&[&Tensor]; 5] = [&[&gate], &[&up], &[], &[], &[&y]];
        check("gated_activation", &views, &kind, &[]);
        let onto: [&[&Tensor]; 5] = [&[&gate], &[&up], &[], &[], &[&gate]];
        op::launch(op::find("gated_activation").unwrap(), s, &onto, &kind, &[]).unwrap();
        assert_eq!(values(s, &gate).unwrap(), values(s, &y).unwrap(), "{dtype}");
        let after = values(s, &both).unwrap();
        for (index, (before, after)) in before.iter().zip(&after).enumerate() {
            assert!(
                index % 166 >= 83 || before == after,
                "{dtype} element {index}"
            );
        }
    }
}

#[test]
fn gradients_may_take_the_place_of_what_they_are_of() {
    let s = stream();
    let mut numbers = Numbers::new(33);
    let mut t = || numbers.tensor(s, DType::BF16, &[3, 1000]).unwrap();
    let (dy, gate, up) = (t(), t(), t());
    let call = gated(Activation::GeluTanh, &gate, &up);
    let (dgate, dup) = activation::gated_activation_backward(s, &dy, call).unwrap();
    // Each over the other one's input, so that whoever writes before reading is seen.
    let (over_up, over_gate) = (copy(s, &up).unwrap(), copy(s, &gate).unwrap());
    let args: [&[&Tensor]; 7] = [
        &[&dy],
        &[&over_gate],
        &[&over_up],
        &[],
        &[],
        &[&over_up],
        &[&over_gate],
    ];
    let op = op::find("gated_activation_backward").unwrap();
    let kind = [Attr::I64(Activation::GeluTanh as i64)];
    op::launch(op, s, &args, &kind, &[]).unwrap();
    assert!(bytes(&over_up) == bytes(&dgate) && bytes(&over_gate) == bytes(&dup));
}

#[test]
fn large_results_are_the_small_ones() {
    const COPIES: usize = 97;
    let s = stream();
    let few = Numbers::new(34).tensor(s, DType::F32, &[100_003]).unwrap();
    let many = bytes(&few).repeat(COPIES);
    let many = Tensor::from_bytes(s, DType::F32, &[97 * 100_003], &many).unwrap();
    assert!(many.bytes() >= 32 << 20, "too few to be large");
    let kind = Activation::Relu;
    let few = bytes(&activation::activation(s, &few, None, kind).unwrap());
    let many = bytes(&activation::activation(s, &many, None, kind).unwrap());
    assert!(many.chunks_exact(few.len()).all(|copy| copy == few));
}

/// Of x, residual, attention, its bias, the bias and `mp_size`.
type Formula = fn(f64, f64, f64, f64, f64, f64) -> f64;

/// `residual_add_bias` of DeepSpeed's three variants, by its own fallback's formulas.
#[test]
fn residual_add_is_each_of_upstreams_variants() {
    let s = stream();
    let mut numbers = Numbers::new(35);
    let mut draw = |n: usize| -> Vec<f64> { (0..n).map(|_| numbers.draw()).collect() };
    let (x, residual, attention) = (draw(34), draw(34), draw(34));
    let (bias, attention_bias) = (draw(17), draw(17));
    let mp_size = 2.0;
    let matrix = |v: &[f64]| tensor(s, DType::F32, &[2, 17], v).unwrap();
    let vector = |v: &[f64]| tensor(s, DType::F32, &[17], v).unwrap();
    let tensors = [&x, &residual, &attention].map(|v| matrix(v));
    let biases = [&bias, &attention_bias].map(|v| vector(v));
    let whole = ResidualAdd {
        x: &tensors[0],
        residual: &tensors[1],
        attention: Some(&tensors[2]),
        bias: Some(&biases[0]),
        attention_bias: Some(&biases[1]),
        residual_scale: 1.0 / mp_size,
        attention_scale: 1.0 / mp_size,
    };
    let behind_norm = ResidualAdd {
        attention: None,
        attention_bias: None,
        residual_scale: 1.0,
        ..whole
    };
    let gpt_j = ResidualAdd {
        attention_scale: 1.0,
        ..whole
    };
    let variants: [(ResidualAdd<'_>, Formula); 3] = [
        (whole, |x, r, a, ab, b, mp| (r + a + ab + b) / mp + x),
        (behind_norm, |x, r, _, _, b, _| r + x + b),
        (gpt_j, |x, r, a, ab, b, mp| x + a + (r + b) / mp + ab / mp),
    ];
    for (call, formula) in variants {
        let y = values(s, &activation::residual_add(s, call).unwrap()).unwrap();
        for (i, y) in y.iter().enumerate() {
            let (b, ab) = (bias[i % 17], attention_bias[i % 17]);
            let want = formula(x[i], residual[i], attention[i], ab, b, mp_size);
            // Five numbers of unit scale, rounded to f32 and added in it.
            assert!((y - want).abs() < 2e-6, "element {i} is {y}, not {want}");
        }
    }
}

/// More than one chunk of rows, and more than once: workspaces come with what the last call left.
#[test]
fn sums_of_columns_are_right_and_give_equal_bits_whatever_the_threads() {
    let s = stream();
    let dy = Numbers::new(36).tensor(s, DType::F32, &[700, 257]).unwrap();
    let dbias = Tensor::empty(s, DType::F32, &[257]).unwrap();
    for _ in 0..3 {
        check("bias_backward", &[&[&dy], &[&dbias]], &[], &[]);
    }
    equal_on_any_threads("sums_of_columns_are_right", &[&dbias]);
}

#[test]
fn a_kind_that_is_no_function_is_refused() {
    let s = stream();
    let x = Numbers::new(37).tensor(s, DType::F32, &[4]).unwrap();
    let y = copy(s, &x).unwrap();
    let op = op::find("activation").unwrap();
    let args: [&[&Tensor]; 3] = [&[&x], &[], &[&y]];
    let error = op::launch(op, s, &args, &[Attr::I64(7)], &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let told = error.to_string();
    assert!(
        told.contains("kind 7 is no function; they are 0 to 6"),
        "{told}"
    );
    assert!(bytes(&x) == bytes(&y));
}
