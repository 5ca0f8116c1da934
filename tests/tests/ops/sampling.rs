//! Sampling beyond its cases: which tokens are drawn, how often, and the same ones everywhere.

use ds_core::{DType, ErrorKind, RngState, Tensor};
use ds_ops::sampling::{Sampling, sample, words};
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, copy, tensor},
    compare::values,
};

use crate::{FLOATS, equal_on_any_threads, norms::bytes, softmax::check_kernel, stream};

const PLAIN: Sampling = Sampling {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    state: RngState { seed: 9, offset: 4 },
};

/// The logarithms of these probabilities, again and again.
fn rows(probabilities: &[f64], rows: u32) -> Tensor {
    let logits: Vec<f64> = probabilities.iter().map(|p| p.ln()).collect();
    let shape = [i64::from(rows), i64::try_from(logits.len()).unwrap()];
    let all = logits.repeat(rows as usize);
    tensor(stream(), DType::F32, &shape, &all).unwrap()
}

/// How often each of `width` tokens was drawn.
fn counts(logits: &Tensor, sampling: Sampling, width: usize) -> Vec<f64> {
    let (tokens, _) = sample(stream(), logits, sampling).unwrap();
    let mut counts = vec![0.0; width];
    for token in values(stream(), &tokens).unwrap() {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index"
        )]
        let token = token as usize;
        counts[token] += 1.0;
    }
    counts
}

/// The statistic of Pearson's test has as many degrees of freedom as there are tokens less one, and that
/// with twice the variance; six standard deviations are passed by chance once in more than a million times.
#[test]
fn tokens_come_as_often_as_they_are_probable() {
    const ROWS: u32 = 40_000;
    let all = [0.3, 0.05, 0.2, 0.0, 0.15, 0.05, 0.15, 0.1];
    let squared = all.map(|p: f64| p * p);
    let of = |sampling, weights: &[f64]| {
        let total: f64 = weights.iter().sum();
        let drawn = counts(&rows(&all, ROWS), sampling, all.len());
        let mut freedom = -1.0_f64;
        let mut statistic = 0.0;
        for (drawn, weight) in drawn.into_iter().zip(weights) {
            let expected = weight / total * f64::from(ROWS);
            if expected == 0.0 {
                assert_eq!(drawn, 0.0, "{sampling:?}");
                continue;
            }
            freedom += 1.0;
            statistic += (drawn - expected).powi(2) / expected;
        }
        let bound = freedom + 6.0 * (2.0 * freedom).sqrt();
        assert!(statistic <= bound, "{sampling:?}: {statistic} of {bound}");
    };
    of(PLAIN, &all);
    let half = Sampling {
        temperature: 0.5,
        ..PLAIN
    };
    of(half, &squared);
    // The fourth one is 0.15, twice: equal ones are kept together.
    let few = [0.3, 0.0, 0.2, 0.0, 0.15, 0.0, 0.15, 0.0];
    of(Sampling { top_k: 3, ..PLAIN }, &few);
    of(Sampling { top_k: 4, ..PLAIN }, &few);
    of(
        Sampling {
            top_p: 0.6,
            ..PLAIN
        },
        &few,
    );
    let two = [0.3, 0.0, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0];
    of(Sampling { top_k: 2, ..PLAIN }, &two);
    of(
        Sampling {
            top_p: 0.4,
            ..PLAIN
        },
        &two,
    );
    // Of what top-k left, 0.3 is three eighths.
    let both = Sampling {
        top_k: 4,
        top_p: 0.37,
        ..PLAIN
    };
    let one = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    of(both, &one);
    of(
        Sampling {
            top_p: 0.38,
            ..both
        },
        &two,
    );
    of(
        Sampling {
            top_p: 0.0,
            ..PLAIN
        },
        &one,
    );
}

/// The rule as it is told: the first token whose sum passes number `r`. What falls near an edge is left out.
#[test]
#[allow(clippy::cast_precision_loss, reason = "53 bits")]
fn the_token_is_that_of_the_hosts_number() {
    const ROWS: u32 = 3000;
    let all = [0.3, 0.05, 0.2, 0.15, 0.2, 0.1];
    for state in [
        PLAIN.state,
        RngState {
            seed: u64::MAX,
            offset: u64::MAX - 1003,
        },
    ] {
        let sampling = Sampling { state, ..PLAIN };
        let (tokens, logprobs) = sample(stream(), &rows(&all, ROWS), sampling).unwrap();
        let logprobs = values(stream(), &logprobs).unwrap();
        let mut near = 0;
        for (row, token) in (0..).zip(values(stream(), &tokens).unwrap()) {
            let [high, low] = [0, 1].map(|word| u64::from(state.word(words(row) + word)));
            let number = ((high << 32 | low) >> 11) as f64 / 2.0_f64.powi(53);
            let mut sum = 0.0;
            let mut want = 0;
            for (index, p) in all.iter().enumerate() {
                near += i32::from((number - sum).abs() < 1e-6);
                if sum <= number {
                    want = index;
                }
                sum += p;
            }
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "an index"
            )]
            let token = token as usize;
            assert!(token == want || near > 0, "{row}: {token}, not {want}");
            let logprob = logprobs[usize::try_from(row).unwrap()];
            assert!((logprob - all[token].ln()).abs() < 1e-5, "{logprob}");
        }
        assert_eq!(near, 0, "numbers near an edge");
    }
}

#[test]
fn without_a_temperature_it_is_the_first_of_the_greatest() {
    let s = stream();
    for dtype in FLOATS {
        let mut numbers = vec![-3.0; 5000];
        (numbers[700], numbers[4001], numbers[4002]) = (2.0, 2.5, 2.5);
        let logits = tensor(s, dtype, &[1, 5000], &numbers).unwrap();
        let greedy = Sampling {
            temperature: 0.0,
            ..PLAIN
        };
        let (tokens, logprobs) = sample(s, &logits, greedy).unwrap();
        assert_eq!(values(s, &tokens).unwrap(), [4001.0]);
        assert_eq!(values(s, &logprobs).unwrap(), [0.0]);
    }
}

#[test]
fn a_row_that_is_no_distribution_has_no_token() {
    let s = stream();
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    for temperature in [0.0, 1.0] {
        let logits = [
            [1.0, nan, 0.0],
            [inf, 1.0, 0.0],
            [-inf; 3],
            [-inf, -inf, 7.0],
        ];
        let logits = tensor(s, DType::F32, &[4, 3], logits.as_flattened()).unwrap();
        let sampling = Sampling {
            temperature,
            top_k: 2,
            top_p: 0.9,
            ..PLAIN
        };
        let (tokens, logprobs) = sample(s, &logits, sampling).unwrap();
        assert_eq!(values(s, &tokens).unwrap(), [-1.0, -1.0, -1.0, 2.0]);
        let logprobs = values(s, &logprobs).unwrap();
        assert!(logprobs[..3].iter().all(|p| p.is_nan()), "{logprobs:?}");
        assert_eq!(logprobs[3], 0.0);
    }
}

#[test]
fn rows_with_gaps_are_taken() {
    let s = stream();
    for dtype in FLOATS {
        let wide = Numbers::new(70).tensor(s, dtype, &[6, 3000]).unwrap();
        let logits = wide.narrow(1, 5, 2900).unwrap();
        let tokens = Tensor::empty(s, DType::I64, &[6]).unwrap();
        let logprobs = Tensor::empty(s, DType::F32, &[6]).unwrap();
        let scalars = [
            Attr::I64(9),
            Attr::I64(4),
            Attr::F64(0.9),
            Attr::I64(70),
            Attr::F64(0.8),
        ];
        let args: [&[&Tensor]; 3] = [&[&logits], &[&tokens], &[&logprobs]];
        check_kernel("sample", &args, &[], &scalars);
        let sampling = Sampling {
            temperature: 0.9,
            top_k: 70,
            top_p: 0.8,
            ..PLAIN
        };
        let (of_copy, _) = sample(s, &copy(s, &logits).unwrap(), sampling).unwrap();
        assert!(bytes(&of_copy) == bytes(&tokens), "{dtype}");
    }
}

#[test]
fn one_row_of_many_tokens_is_the_same_on_any_threads() {
    let s = stream();
    let logits = Numbers::new(71)
        .tensor(s, DType::F32, &[1, 200_003])
        .unwrap();
    let draw = |top_k, top_p, offset| {
        let state = RngState { seed: 3, offset };
        let sampling = Sampling {
            temperature: 0.8,
            top_k,
            top_p,
            state,
        };
        sample(s, &logits, sampling).unwrap()
    };
    let (all, few, nucleus) = (draw(0, 1.0, 0), draw(50, 1.0, 4), draw(0, 0.9, 8));
    let results = [&all.0, &all.1, &few.0, &few.1, &nucleus.0, &nucleus.1];
    equal_on_any_threads(
        "sampling::one_row_of_many_tokens_is_the_same_on_any_threads",
        &results,
    );
}

#[test]
fn what_is_no_way_to_draw_is_refused() {
    let s = stream();
    let logits = tensor(s, DType::F32, &[1, 2], &[0.0, 1.0]).unwrap();
    let wrong = [
        (-1.0, 0, 1.0),
        (f64::NAN, 0, 1.0),
        (f64::INFINITY, 0, 1.0),
        (1.0, -1, 1.0),
        (1.0, 0, -0.1),
        (1.0, 0, 1.1),
        (1.0, 0, f64::NAN),
    ];
    for (temperature, top_k, top_p) in wrong {
        let sampling = Sampling {
            temperature,
            top_k,
            top_p,
            ..PLAIN
        };
        let error = sample(s, &logits, sampling).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let told = error.to_string();
        assert!(told.contains("they are from 0 on"), "{told}");
    }
}
