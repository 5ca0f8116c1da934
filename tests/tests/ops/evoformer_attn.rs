//! Attention with biases: views of one tensor, differences, biases of other shapes, and equal bits.

use ds_core::{DType, ErrorKind, Tensor};
use ds_ops::evoformer_attn::{Biases, evoformer_attn, evoformer_attn_backward};
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, tensor},
    compare::values,
};

use crate::{
    FLOATS,
    softmax::{bits_are_equal_whatever_the_threads, check_kernel, dot, hold_slopes, slopes},
    stream,
};

fn draw(seed: u64, dtype: DType, shape: &[i64]) -> Tensor {
    Numbers::new(seed).tensor(stream(), dtype, shape).unwrap()
}

/// Queries, keys and values of one tensor `[B, N, S, 3, H, D]`, and gradients into the places of others.
#[test]
fn queries_keys_and_values_may_be_views() {
    let s = stream();
    let (b, n, tokens, h, d) = (1, 3, 21, 2, 20);
    for dtype in FLOATS {
        let wide = |seed| draw(seed, dtype, &[b, n, tokens, 3 * h, d]);
        let parts = |of: &Tensor| [0, 1, 2].map(|index| of.narrow(3, index * h, h).unwrap());
        let [q, k, v] = parts(&wide(1));
        let [o, d_o, _] = parts(&wide(2));
        let [dq, dk, dv] = [3, 8, 9].map(|seed| parts(&wide(seed))[1].clone());
        let lse = Tensor::empty(s, DType::F32, &[b, n, h, tokens]).unwrap();
        let (keys, pairs) = (
            draw(4, dtype, &[b, n, 1, 1, tokens]),
            draw(5, dtype, &[b, 1, h, tokens, tokens]),
        );
        let scale = [Attr::F64(0.3)];
        let args: [&[&Tensor]; 7] = [&[&q], &[&k], &[&v], &[&keys], &[&pairs], &[&o], &[&lse]];
        check_kernel("evoformer_attn", &args, &[], &scale);
        let (dkeys, dpairs) = (draw(6, dtype, keys.shape()), draw(7, dtype, pairs.shape()));
        let biases = Biases {
            keys: Some(&keys),
            pairs: Some(&pairs),
        };
        let of = evoformer_attn(s, &q, &k, &v, biases).unwrap();
        let scale = [Attr::F64(1.0 / 20_f64.sqrt())];
        let args: [&[&Tensor]; 13] = [
            &[&d_o],
            &[&q],
            &[&k],
            &[&v],
            &[&of.o],
            &[&of.lse],
            &[&keys],
            &[&pairs],
            &[&dkeys],
            &[&dpairs],
            &[&dq],
            &[&dk],
            &[&dv],
        ];
        check_kernel("evoformer_attn_backward", &args, &[], &scale);
    }
}

#[test]
fn gradients_are_the_slopes() {
    let s = stream();
    let shapes: [&[i64]; 5] = [
        &[2, 2, 4, 2, 3],
        &[2, 2, 5, 2, 3],
        &[2, 2, 5, 2, 3],
        &[2, 2, 1, 1, 5],
        &[2, 1, 2, 4, 5],
    ];
    let mut numbers = Numbers::new(3);
    let mut draw = |shape: &[i64]| -> Vec<f64> {
        (0..shape.iter().product::<i64>())
            .map(|_| numbers.draw())
            .collect()
    };
    let x = shapes.map(&mut draw);
    let d_o = draw(shapes[0]);
    let upload = |index: usize, of: &[f64]| tensor(s, DType::F32, shapes[index], of).unwrap();
    let at = |x: &[Vec<f64>; 5]| [0, 1, 2, 3, 4].map(|index| upload(index, &x[index]));
    let forward = |x: &[Vec<f64>; 5]| {
        let [q, k, v, keys, pairs] = &at(x);
        let biases = Biases {
            keys: Some(keys),
            pairs: Some(pairs),
        };
        evoformer_attn(s, q, k, v, biases).unwrap()
    };
    let [q, k, v, keys, pairs] = &at(&x);
    let biases = Biases {
        keys: Some(keys),
        pairs: Some(pairs),
    };
    let (of, d) = (forward(&x), upload(0, &d_o));
    let to = evoformer_attn_backward(s, &d, q, k, v, &of, biases, [true, true]).unwrap();
    let gradients = [to.dq, to.dk, to.dv, to.keys.unwrap(), to.pairs.unwrap()];
    for (index, gradient) in gradients.iter().enumerate() {
        let loss = |moved: &[f64]| {
            let mut x = x.clone();
            x[index] = moved.to_vec();
            dot(&d_o, &values(s, &forward(&x).o).unwrap())
        };
        let what = ["dq", "dk", "dv", "dbias1", "dbias2"][index];
        hold_slopes(
            what,
            &values(s, gradient).unwrap(),
            &slopes(&x[index], loss),
        );
    }
}

#[test]
fn a_bias_of_another_shape_is_refused() {
    let s = stream();
    let t = draw(1, DType::F32, &[1, 2, 5, 3, 4]);
    let short = draw(2, DType::F32, &[1, 2, 1, 1, 4]);
    let of_each = draw(3, DType::F32, &[1, 2, 3, 5, 5]);
    let biases = Biases {
        keys: Some(&short),
        ..Biases::default()
    };
    let error = evoformer_attn(s, &t, &t, &t, biases).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        error.to_string(),
        "evoformer_attn: the bias of keys is [1, 2, 1, 1, 4]; \
         with these q and k it has to be [1, 2, 1, 1, 5]"
    );
    let biases = Biases {
        pairs: Some(&of_each),
        ..Biases::default()
    };
    let error = evoformer_attn(s, &t, &t, &t, biases).unwrap_err();
    let told =
        "the bias of pairs is [1, 2, 3, 5, 5]; with these q and k it has to be [1, 1, 3, 5, 5]";
    assert!(error.to_string().contains(told), "{error}");
    // Heads that differ, and a bias of another dtype.
    let two = t.narrow(3, 0, 2).unwrap();
    let error = evoformer_attn(s, &two, &t, &t, Biases::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let half = draw(4, DType::F16, &[1, 2, 1, 1, 5]);
    let biases = Biases {
        keys: Some(&half),
        ..Biases::default()
    };
    let error = evoformer_attn(s, &t, &t, &t, biases).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

/// The most negative number of f32 hides as -infinity does, even from a row that it leaves nothing.
#[test]
fn the_least_number_hides_a_key() {
    let s = stream();
    let t = draw(1, DType::F32, &[1, 2, 3, 1, 4]);
    let least = f64::from(f32::MIN);
    let mask = [least, 0.0, least, least, least, least];
    let mask = tensor(s, DType::F32, &[1, 2, 1, 1, 3], &mask).unwrap();
    let biases = Biases {
        keys: Some(&mask),
        ..Biases::default()
    };
    let of = evoformer_attn(s, &t, &t, &t, biases).unwrap();
    let (o, x) = (values(s, &of.o).unwrap(), values(s, &t).unwrap());
    for row in o[..12].chunks(4) {
        assert_eq!(row, &x[4..8], "the one key that is left");
    }
    assert_eq!(o[12..], [0.0; 12]);
    let lse = values(s, &of.lse).unwrap();
    assert_eq!(lse[3..], [f64::NEG_INFINITY; 3]);
    let to = evoformer_attn_backward(s, &t, &t, &t, &t, &of, biases, [true, true]).unwrap();
    assert_eq!(values(s, &to.dq).unwrap()[12..], [0.0; 12]);
    assert!(to.pairs.is_none(), "there is no bias of pairs");
    assert_eq!(values(s, &to.keys.unwrap()).unwrap()[3..], [0.0; 3]);
}

#[test]
fn biased_attention_gives_equal_bits_whatever_the_threads() {
    let s = stream();
    let t = |seed| draw(seed, DType::F32, &[1, 19, 70, 2, 16]);
    let (q, k, v, d_o) = (t(1), t(2), t(3), t(4));
    let (keys, pairs) = (
        draw(5, DType::F32, &[1, 19, 1, 1, 70]),
        draw(6, DType::F32, &[1, 1, 2, 70, 70]),
    );
    let biases = Biases {
        keys: Some(&keys),
        pairs: Some(&pairs),
    };
    let of = evoformer_attn(s, &q, &k, &v, biases).unwrap();
    let to = evoformer_attn_backward(s, &d_o, &q, &k, &v, &of, biases, [true, true]).unwrap();
    let (keys, pairs) = (to.keys.unwrap(), to.pairs.unwrap());
    let results = [&of.o, &of.lse, &to.dq, &to.dk, &to.dv, &keys, &pairs];
    let name = "evoformer_attn::biased_attention_gives_equal_bits_whatever_the_threads";
    bits_are_equal_whatever_the_threads(name, &results);
}
