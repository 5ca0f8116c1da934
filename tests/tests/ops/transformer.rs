//! A whole layer: against PyTorch's answers and gradients, and against its own differences with dropout.

use ds_core::{DType, ErrorKind, RngState, Tensor};
use ds_ops::transformer::{
    TransformerConfig, TransformerLayer, TransformerWeights, random_words, transformer_layer,
    transformer_layer_backward,
};
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};
use serde_json::Value;

use crate::stream;

const FIXTURE: &str = include_str!("../../golden/models/transformer.json");

const DRAWS: RngState = RngState { seed: 3, offset: 8 };

fn config(pre_layer_norm: bool) -> TransformerConfig {
    TransformerConfig {
        heads: 3,
        attn_dropout_ratio: 0.0,
        hidden_dropout_ratio: 0.0,
        layer_norm_eps: 1e-12,
        pre_layer_norm,
    }
}

fn weights(mut of: impl FnMut(&str) -> Tensor) -> TransformerWeights {
    TransformerWeights {
        attn_qkvw: of("attn_qkvw"),
        attn_qkvb: of("attn_qkvb"),
        attn_ow: of("attn_ow"),
        attn_ob: of("attn_ob"),
        attn_nw: of("attn_nw"),
        attn_nb: of("attn_nb"),
        inter_w: of("inter_w"),
        inter_b: of("inter_b"),
        output_w: of("output_w"),
        output_b: of("output_b"),
        norm_w: of("norm_w"),
        norm_b: of("norm_b"),
    }
}

fn each(weights: &TransformerWeights) -> [(&'static str, &Tensor); 12] {
    [
        ("attn_qkvw", &weights.attn_qkvw),
        ("attn_qkvb", &weights.attn_qkvb),
        ("attn_ow", &weights.attn_ow),
        ("attn_ob", &weights.attn_ob),
        ("attn_nw", &weights.attn_nw),
        ("attn_nb", &weights.attn_nb),
        ("inter_w", &weights.inter_w),
        ("inter_b", &weights.inter_b),
        ("output_w", &weights.output_w),
        ("output_b", &weights.output_b),
        ("norm_w", &weights.norm_w),
        ("norm_b", &weights.norm_b),
    ]
}

fn numbers_of(given: &Value) -> (Vec<i64>, Vec<f64>) {
    let shape = given[0]["shape"].as_array().unwrap();
    let values = given[0]["values"].as_array().unwrap();
    (
        shape
            .iter()
            .map(|extent| extent.as_i64().unwrap())
            .collect(),
        values.iter().map(|value| value.as_f64().unwrap()).collect(),
    )
}

#[test]
fn a_layer_and_its_gradients_are_pytorchs() {
    let s = stream();
    let fixture: Value = serde_json::from_str(FIXTURE).unwrap();
    for call in fixture["calls"].as_array().unwrap() {
        let of = |name: &str| {
            let (shape, values) = numbers_of(&call["before"][name]);
            tensor(s, DType::F32, &shape, &values).unwrap()
        };
        let config = config(call["attributes"]["pre_layer_norm"].as_bool().unwrap());
        let weights = weights(of);
        let layer =
            transformer_layer(s, config, &weights, &of("x"), Some(&of("mask")), DRAWS).unwrap();
        let (dx, gradients) = transformer_layer_backward(s, &layer, &weights, &of("dy")).unwrap();
        let hold = |name: &str, got: &Tensor| {
            let (shape, want) = numbers_of(&call["after"][name]);
            assert_eq!(got.shape(), shape, "{name}");
            for (index, (got, want)) in values(s, got).unwrap().iter().zip(want).enumerate() {
                // A chain of a dozen f32 ops whose values reach about ten, in units of 2^-24 each.
                let allowed = 2e-5 * (1.0 + want.abs());
                assert!(
                    (got - want).abs() < allowed,
                    "{}: {name}[{index}] is {got}, not {want}",
                    call["name"]
                );
            }
        };
        hold("y", &layer.y);
        hold("dx", &dx);
        for (name, gradient) in each(&gradients) {
            hold(&format!("d{name}"), gradient);
        }
    }
}

/// With every dropout at work the gradient is still that of the function: its masks are the forward's.
#[test]
fn dropout_drops_the_same_in_both_directions() {
    let s = stream();
    for pre_layer_norm in [true, false] {
        let config = TransformerConfig {
            attn_dropout_ratio: 0.3,
            hidden_dropout_ratio: 0.2,
            ..config(pre_layer_norm)
        };
        let mut numbers = Numbers::new(7);
        let mut of = |shape: &[i64]| numbers.tensor(s, DType::F32, shape).unwrap();
        let shape = [2, 4, 12];
        let (x, dy, direction) = (of(&shape), of(&shape), of(&shape));
        let weights = weights(|name| {
            of(match name {
                "attn_qkvw" => &[36, 12],
                "attn_qkvb" => &[36],
                "attn_ow" => &[12, 12],
                "inter_w" => &[20, 12],
                "inter_b" => &[20],
                "output_w" => &[12, 20],
                _ => &[12],
            })
        });
        let run = |x: &Tensor| transformer_layer(s, config, &weights, x, None, DRAWS).unwrap();
        let dot = |a: &Tensor, b: &Tensor| -> f64 {
            let (a, b) = (values(s, a).unwrap(), values(s, b).unwrap());
            a.iter().zip(b).map(|(a, b)| a * b).sum()
        };
        let moved = |step: f64| {
            let sum: Vec<f64> = values(s, &x)
                .unwrap()
                .iter()
                .zip(values(s, &direction).unwrap())
                .map(|(x, d)| x + step * d)
                .collect();
            dot(&dy, &run(&tensor(s, DType::F32, &shape, &sum).unwrap()).y)
        };
        let (dx, _) = transformer_layer_backward(s, &run(&x), &weights, &dy).unwrap();
        let slope = dot(&dx, &direction);
        // f32 keeps 2^-24 of a loss of some ten, over a step of 2^-9; the third derivative adds its square.
        let step = 1.0 / 512.0;
        let want = (moved(step) - moved(-step)) / (2.0 * step);
        assert!(
            (slope - want).abs() < 5e-3 * (1.0 + want.abs()),
            "{slope} and {want}"
        );
        let other = RngState { seed: 4, ..DRAWS };
        let other = transformer_layer(s, config, &weights, &x, None, other).unwrap();
        assert_ne!(values(s, &other.y).unwrap(), values(s, &run(&x).y).unwrap());
        // 2 x 3 x 4 x 4 shares of attention, and twice 2 x 4 x 12 elements.
        assert_eq!(random_words(config, &x).unwrap(), 96 + 96 + 96);
    }
}

#[test]
fn heads_that_do_not_divide_are_refused() {
    let s = stream();
    let of = |shape: &[i64]| Tensor::empty(s, DType::F32, shape).unwrap();
    let weights = weights(|_| of(&[12]));
    let refused = |heads, shape: &[i64], why: &str| {
        let config = TransformerConfig {
            heads,
            ..config(true)
        };
        let e = transformer_layer(s, config, &weights, &of(shape), None, DRAWS)
            .map(|layer: TransformerLayer| layer.y)
            .unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}");
        assert!(e.to_string().contains(why), "{e}");
    };
    refused(5, &[2, 4, 12], "5 heads do not divide a hidden size of 12");
    refused(0, &[2, 4, 12], "0 heads do not divide");
    refused(3, &[4, 12], "it has to be [batch, tokens, hidden size]");
    refused(3, &[2, 4, 12], "argument 'w'");
}
