//! Cross entropy: tiles and parts against the whole, gradients, targets that are no classes.

use ds_core::{DType, ErrorKind, Tensor};
use ds_ops::cross_entropy::{
    CrossEntropyConfig, STATE_COLUMNS, VocabularyPart, cross_entropy, cross_entropy_backward,
    cross_entropy_finish, cross_entropy_mean, cross_entropy_tile,
};
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, copy, tensor},
    compare::values,
};

use crate::{
    FLOATS,
    softmax::{
        bits_are_equal_whatever_the_threads, check_kernel, dot, hold_slopes, many_rows_are_each,
        slopes,
    },
    stream,
};

const ROWS: i64 = 6;
const CLASSES: i64 = 101;
/// Two of them ignored, or no class.
const TARGETS: [f64; 6] = [0.0, 100.0, -100.0, 57.0, 101.0, 33.0];

fn config(label_smoothing: f64) -> CrossEntropyConfig {
    CrossEntropyConfig {
        label_smoothing,
        ..CrossEntropyConfig::default()
    }
}

fn targets(values: &[f64]) -> Tensor {
    let rows = i64::try_from(values.len()).unwrap();
    tensor(stream(), DType::I64, &[rows], values).unwrap()
}

fn hold_near(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    let (got, want) = (
        values(stream(), got).unwrap(),
        values(stream(), want).unwrap(),
    );
    assert_eq!(got.len(), want.len());
    for (index, (got, want)) in got.iter().zip(&want).enumerate() {
        let near = (got - want).abs() <= tolerance * (1.0 + want.abs());
        let same = near || (got.is_nan() && want.is_nan());
        assert!(same, "{what}[{index}] is {got}, the whole gives {want}");
    }
}

/// A vocabulary in tiles of 40, 40 and 21 is the whole, whether one state passes over all of them or
/// each is a rank's part; and the tiles' gradients, each in place in a view, are the whole's.
#[test]
fn tiles_of_the_vocabulary_are_the_whole() {
    const TILES: [(i64, i64); 3] = [(0, 40), (40, 40), (80, 21)];
    let s = stream();
    for dtype in FLOATS {
        for smoothing in [0.0, 0.1] {
            let config = config(smoothing);
            let logits = Numbers::new(1).tensor(s, dtype, &[ROWS, CLASSES]).unwrap();
            let targets = targets(&TARGETS);
            let (loss, lse) = cross_entropy(s, &logits, &targets, config).unwrap();
            let states = Tensor::empty(s, DType::F32, &[4, ROWS, STATE_COLUMNS]).unwrap();
            let state = |part| {
                let part = states.narrow(0, part, 1).unwrap();
                part.reshape(&[ROWS, STATE_COLUMNS]).unwrap()
            };
            for (part, (offset, width)) in (1..).zip(TILES) {
                let tile = logits.narrow(1, offset, width).unwrap();
                cross_entropy_tile(s, &tile, &targets, &state(0), offset, offset == 0).unwrap();
                cross_entropy_tile(s, &tile, &targets, &state(part), offset, true).unwrap();
            }
            for (first, parts) in [(0, 1), (1, 3)] {
                let parts = states.narrow(0, first, parts).unwrap();
                let done = cross_entropy_finish(s, &parts, &targets, CLASSES, config).unwrap();
                hold_near("loss", &done.0, &loss, 1e-5);
                hold_near("lse", &done.1, &lse, 1e-5);
            }
            let dloss = tensor(s, DType::F32, &[], &[0.25]).unwrap();
            let dloss = dloss.expand(&[ROWS]).unwrap();
            let gradient = |logits: &Tensor, offset| {
                let part = VocabularyPart {
                    offset,
                    vocabulary: CLASSES,
                };
                cross_entropy_backward(
                    s, &dloss, logits, &targets, &lse, logits, part, config, 8.0,
                )
                .unwrap();
            };
            let (whole, tiled) = (copy(s, &logits).unwrap(), copy(s, &logits).unwrap());
            gradient(&whole, 0);
            for (offset, width) in TILES {
                gradient(&tiled.narrow(1, offset, width).unwrap(), offset);
            }
            hold_near("dlogits", &tiled, &whole, 1e-6);
        }
    }
}

#[test]
fn the_gradient_of_the_mean_is_the_slope() {
    const SHAPE: [i64; 2] = [4, 7];
    let s = stream();
    let targets = targets(&[3.0, -100.0, 0.0, 6.0]);
    let logits: Vec<f64> = {
        let mut numbers = Numbers::new(2);
        (0..28).map(|_| numbers.draw()).collect()
    };
    for smoothing in [0.0, 0.2] {
        let config = config(smoothing);
        let upload = |v: &[f64]| tensor(s, DType::F32, &SHAPE, v).unwrap();
        let mean = |logits: &[f64]| {
            let (loss, lse) = cross_entropy(s, &upload(logits), &targets, config).unwrap();
            let (mean, weight) = cross_entropy_mean(s, &loss, &targets, -100).unwrap();
            (values(s, &mean).unwrap()[0], lse, weight)
        };
        let (_, lse, weight) = mean(&logits);
        let dlogits = upload(&logits);
        let part = VocabularyPart {
            offset: 0,
            vocabulary: SHAPE[1],
        };
        let dloss = weight.expand(&[4]).unwrap();
        cross_entropy_backward(
            s, &dloss, &dlogits, &targets, &lse, &dlogits, part, config, 1.0,
        )
        .unwrap();
        let want = slopes(&logits, |logits| mean(logits).0);
        let got = values(s, &dlogits).unwrap();
        hold_slopes("dlogits", &got, &want);
        assert!(got[7..14].iter().all(|v| *v == 0.0), "an ignored row");
        let ones = [1.0; 28];
        assert!(dot(&got, &ones).abs() < 1e-6, "a softmax adds up to 1");
    }
}

#[test]
fn a_target_that_is_no_class_makes_its_row_nan_and_no_other() {
    let s = stream();
    let logits = Numbers::new(3)
        .tensor(s, DType::F32, &[ROWS, CLASSES])
        .unwrap();
    let targets = targets(&TARGETS);
    let (loss, lse) = cross_entropy(s, &logits, &targets, config(0.0)).unwrap();
    let (loss, lse_values) = (values(s, &loss).unwrap(), values(s, &lse).unwrap());
    assert!(loss[4].is_nan() && loss[2] == 0.0, "{loss:?}");
    assert!(lse_values.iter().all(|v| v.is_finite()), "{lse_values:?}");
    assert_eq!(loss.iter().filter(|v| v.is_finite()).count(), 5);
}

#[test]
fn the_mean_of_rows_that_are_all_ignored_is_nan() {
    let s = stream();
    let loss = tensor(s, DType::F32, &[2], &[0.0; 2]).unwrap();
    let (mean, _) = cross_entropy_mean(s, &loss, &targets(&[7.0; 2]), 7).unwrap();
    assert!(values(s, &mean).unwrap()[0].is_nan());
}

#[test]
fn cross_entropy_takes_rows_with_gaps_and_repeated_gradients() {
    let s = stream();
    let mut numbers = Numbers::new(4);
    let mut t = |shape: &[i64]| numbers.tensor(s, DType::BF16, shape).unwrap();
    let logits = t(&[ROWS, 2222]).narrow(1, 5, 2111).unwrap();
    let dlogits = t(&[ROWS, 2200]).narrow(1, 1, 2111).unwrap();
    let dloss = tensor(s, DType::F32, &[], &[0.5])
        .unwrap()
        .expand(&[ROWS])
        .unwrap();
    let targets = targets(&TARGETS);
    let (loss, lse) = cross_entropy(s, &logits, &targets, config(0.0)).unwrap();
    let scalars = [Attr::I64(-100), Attr::F64(0.1)];
    let args: [&[&Tensor]; 4] = [&[&logits], &[&targets], &[&loss], &[&lse]];
    check_kernel("cross_entropy", &args, &[], &scalars);
    let scalars = [
        Attr::I64(2111),
        Attr::I64(0),
        Attr::I64(-100),
        Attr::F64(0.1),
        Attr::F64(1.0),
    ];
    let args: [&[&Tensor]; 5] = [&[&dloss], &[&logits], &[&targets], &[&lse], &[&dlogits]];
    check_kernel("cross_entropy_backward", &args, &[], &scalars);
    let args: [&[&Tensor]; 5] = [&[&dloss], &[&logits], &[&targets], &[&lse], &[&logits]];
    check_kernel("cross_entropy_backward", &args, &[], &scalars);
}

#[test]
fn gradients_of_many_rows_are_those_of_each() {
    let s = stream();
    for dtype in FLOATS {
        many_rows_are_each("cross_entropy_backward", dtype, |logits| {
            let (rows, classes) = (logits.shape()[0], logits.shape()[1]);
            // 45 rows come again and again: ignored ones, wrong ones, classes at both ends.
            let of = |row: i64| match row % 45 {
                3 => -100.0,
                4 => -7.0,
                5 => 4101.0,
                other => f64::from(i32::try_from(other * 91).unwrap()),
            };
            let targets = targets(&(0..rows).map(of).collect::<Vec<_>>());
            let (_, lse) = cross_entropy(s, logits, &targets, config(0.0)).unwrap();
            let dloss = tensor(s, DType::F32, &[], &[0.5]).unwrap();
            let dloss = dloss.expand(&[rows]).unwrap();
            let dlogits = Tensor::empty(s, dtype, &[rows, classes]).unwrap();
            let part = VocabularyPart {
                offset: 0,
                vocabulary: classes,
            };
            let config = config(0.1);
            cross_entropy_backward(
                s, &dloss, logits, &targets, &lse, &dlogits, part, config, 1.0,
            )
            .unwrap();
            dlogits
        });
    }
}

#[test]
fn losses_and_their_mean_have_equal_bits_whatever_the_threads() {
    let s = stream();
    let logits = Numbers::new(6).tensor(s, DType::F32, &[300, 1501]).unwrap();
    let targets = targets(&(0..300).map(f64::from).collect::<Vec<_>>());
    let (loss, lse) = cross_entropy(s, &logits, &targets, config(0.1)).unwrap();
    let (mean, weight) = cross_entropy_mean(s, &loss, &targets, 17).unwrap();
    let part = VocabularyPart {
        offset: 0,
        vocabulary: 1501,
    };
    let dloss = weight.expand(&[300]).unwrap();
    cross_entropy_backward(
        s,
        &dloss,
        &logits,
        &targets,
        &lse,
        &logits,
        part,
        config(0.1),
        1.0,
    )
    .unwrap();
    let name = "cross_entropy::losses_and_their_mean_have_equal_bits_whatever_the_threads";
    bits_are_equal_whatever_the_threads(name, &[&loss, &lse, &mean, &logits]);
}

#[test]
fn targets_of_another_length_are_refused_by_name() {
    let s = stream();
    let logits = Numbers::new(5).tensor(s, DType::F32, &[3, 4]).unwrap();
    let error = cross_entropy(s, &logits, &targets(&[0.0; 2]), config(0.0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("argument 'targets'"), "{error}");
}
