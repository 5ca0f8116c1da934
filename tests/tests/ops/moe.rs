//! Mixture of experts beyond its cases: gradients, layouts, indices that are none, and what upstream
//! leaves to chance.

use ds_core::{DType, ErrorKind, Tensor};
use ds_ops::moe::{
    self, DropPolicy, Gate, Rows, moe_combine, moe_combine_backward, moe_dispatch, moe_gate,
    moe_gate_backward, moe_slots, top_k_gating,
};
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, copy, tensor},
    compare::values,
};

use crate::{
    AGAIN, FLOATS, equal_on_any_threads,
    norms::{bytes, dot, slopes},
    softmax::check_kernel,
    stream,
};

fn integers(shape: &[i64], values: &[f64]) -> Tensor {
    tensor(stream(), DType::I32, shape, values).unwrap()
}

fn floats(shape: &[i64], values: &[f64]) -> Tensor {
    tensor(stream(), DType::F32, shape, values).unwrap()
}

fn of(tensor: &Tensor) -> Vec<f64> {
    values(stream(), tensor).unwrap()
}

#[test]
fn capacities_are_upstreams() {
    // `_capacity` of DeepSpeed 0.19.8.
    assert_eq!(moe::capacity(24, 5, 1.1, 4), 6);
    assert_eq!(moe::capacity(1000, 3, 1.3, 0), 434);
    assert_eq!(moe::capacity(7, 64, 1.0, 4), 4);
    assert_eq!(moe::capacity(4096, 64, 1.25, 8), 80);
    assert_eq!(moe::capacity(10, 3, 0.3, 0), 1);
}

#[test]
fn tokens_go_to_their_experts_and_come_back() {
    let s = stream();
    for dtype in FLOATS {
        let mut numbers = Numbers::new(60);
        let logits = numbers.tensor(s, dtype, &[50, 6]).unwrap();
        let x = numbers.tensor(s, dtype, &[50, 33]).unwrap();
        let gating = top_k_gating(s, &logits, None, 2).unwrap();
        let (slots, ends) = moe_slots(
            s,
            &gating.assignments,
            &gating.offsets,
            &gating.expert_counts,
            Rows::Counted,
        )
        .unwrap();
        assert_eq!(of(&ends).last(), Some(&100.0));
        let mut all = of(&slots);
        all.sort_by(f64::total_cmp);
        assert_eq!(all, (0..100).map(f64::from).collect::<Vec<_>>());
        let y = moe_dispatch(s, &x, &slots, 100).unwrap();
        // Half of each of its two rows is the token again, in any of the dtypes.
        let halves = floats(&[50, 2], &[0.5; 100]);
        let back = moe_combine(s, &y, Some(&halves), &slots, false).unwrap();
        assert!(bytes(&back) == bytes(&x), "{dtype}");
        let normal = moe_combine(s, &y, Some(&halves), &slots, true).unwrap();
        assert!(bytes(&normal) == bytes(&x), "{dtype}");
    }
}

#[test]
fn a_row_that_nobody_has_is_zeros_and_an_index_that_is_none_is_not_followed() {
    let s = stream();
    let x = floats(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let far = f64::from(i32::MAX);
    let slots = integers(&[3, 2], &[3.0, -1.0, 4.0, far, f64::from(i32::MIN), 0.0]);
    let y = moe_dispatch(s, &x, &slots, 4).unwrap();
    assert_eq!(of(&y), [5.0, 6.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0]);
    let back = moe_combine(s, &y, None, &slots, false).unwrap();
    assert_eq!(of(&back), [1.0, 2.0, 0.0, 0.0, 5.0, 6.0]);
    let ones = floats(&[3, 2], &[1.0; 6]);
    let (dy, dweights) = moe_combine_backward(s, &x, &y, &ones, &slots, false).unwrap();
    assert_eq!(of(&dy), [5.0, 6.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0]);
    assert_eq!(of(&dweights), [5.0, 0.0, 0.0, 0.0, 0.0, 61.0]);

    let assignments = integers(&[1, 5], &[2.0, -1.0, 0.0, 0.0, far]);
    let offsets = integers(&[1, 5], &[0.0, 0.0, 2.0, 1.0, 0.0]);
    let counts = integers(&[2], &[2.0, 3.0]);
    let rows = |rows| moe_slots(s, &assignments, &offsets, &counts, rows).unwrap();
    let (slots, ends) = rows(Rows::Counted);
    assert_eq!(of(&slots), [-1.0, -1.0, -1.0, 1.0, -1.0]);
    assert_eq!(of(&ends), [2.0, 5.0]);
    let (slots, ends) = rows(Rows::Capacity(4));
    assert_eq!(of(&slots), [-1.0, -1.0, 2.0, 1.0, -1.0]);
    assert_eq!(of(&ends), [4.0, 8.0]);
}

#[test]
fn of_two_slots_that_are_one_row_the_last_one_stays() {
    let s = stream();
    let x = floats(&[3, 1], &[1.0, 2.0, 3.0]);
    let slots = integers(&[3, 2], &[1.0, 0.0, 1.0, 1.0, 2.0, 0.0]);
    assert_eq!(
        of(&moe_dispatch(s, &x, &slots, 3).unwrap()),
        [3.0, 2.0, 3.0]
    );
}

#[test]
fn rows_with_gaps_are_taken_and_gaps_are_left_alone() {
    let s = stream();
    for dtype in FLOATS {
        let mut numbers = Numbers::new(61);
        let mut t = |shape: &[i64]| numbers.tensor(s, dtype, shape).unwrap();
        let (wide_x, wide_y, wide_dy) = (t(&[5, 50]), t(&[12, 50]), t(&[12, 50]));
        let [x, y, dy] = [&wide_x, &wide_y, &wide_dy].map(|t| t.narrow(1, 3, 41).unwrap());
        let before = bytes(&copy(s, &wide_y.narrow(1, 44, 6).unwrap()).unwrap());
        let slots = integers(
            &[5, 2],
            &[9.0, 0.0, 11.0, 3.0, 2.0, -1.0, 4.0, 5.0, 7.0, 8.0],
        );
        let weights = floats(
            &[5, 2],
            &[0.5, -1.0, 2.0, 0.25, 1.5, 1.0, -0.5, 0.75, 3.0, 1.0],
        );
        let dweights = Tensor::empty(s, DType::F32, &[5, 2]).unwrap();
        let plain = [Attr::Bool(false)];
        check_kernel("moe_dispatch", &[&[&x], &[&slots], &[&y]], &[], &[]);
        let args: [&[&Tensor]; 6] = [&[&x], &[&y], &[&weights], &[&slots], &[&dy], &[&dweights]];
        check_kernel("moe_combine_backward", &args, &[], &plain);
        let args: [&[&Tensor]; 4] = [&[&y], &[&weights], &[&slots], &[&x]];
        check_kernel("moe_combine", &args, &[], &plain);
        let after = bytes(&copy(s, &wide_y.narrow(1, 44, 6).unwrap()).unwrap());
        assert!(before == after, "{dtype}");

        let logits = t(&[9, 20]).narrow(1, 1, 7).unwrap();
        let [scores, assignments, offsets] = [DType::F32, DType::I32, DType::I32]
            .map(|dtype| Tensor::empty(s, dtype, &[9, 3]).unwrap());
        let counts = Tensor::empty(s, DType::I32, &[7]).unwrap();
        let args: [&[&Tensor]; 6] = [
            &[&logits],
            &[],
            &[&scores],
            &[&assignments],
            &[&offsets],
            &[&counts],
        ];
        check_kernel("top_k_gating", &args, &[], &[]);
    }
}

/// Sixty-five places are more than the kernel takes: the reference does them.
#[test]
fn a_token_may_have_any_number_of_places() {
    let s = stream();
    let y = Numbers::new(62).tensor(s, DType::F32, &[65, 3]).unwrap();
    let all: Vec<f64> = (0..65).map(f64::from).collect();
    let x = moe_combine(s, &y, None, &integers(&[1, 65], &all), false).unwrap();
    let rows = of(&y);
    for (column, got) in of(&x).into_iter().enumerate() {
        let want: f64 = rows.iter().skip(column).step_by(3).sum();
        assert!((got - want).abs() < 1e-4, "{got} {want}");
    }
}

#[test]
fn gradients_are_slopes() {
    let s = stream();
    let mut numbers = Numbers::new(63);
    let mut t = |shape: &[i64]| numbers.tensor(s, DType::F32, shape).unwrap();
    let (x, y, dx, dy) = (t(&[4, 5]), t(&[9, 5]), t(&[4, 5]), t(&[9, 5]));
    let slots = integers(&[4, 2], &[8.0, 1.0, -1.0, 3.0, 0.0, 5.0, 4.0, 99.0]);
    let weights = floats(&[4, 2], &[0.5, 1.5, 0.25, 1.0, 2.0, 0.75, 1.25, 1.0]);
    for normalize in [false, true] {
        let (to_y, to_weights) =
            moe_combine_backward(s, &dx, &y, &weights, &slots, normalize).unwrap();
        let loss = |y: &Tensor, weights: &Tensor| {
            Ok(dot(
                &dx,
                &moe_combine(s, y, Some(weights), &slots, normalize)?,
            ))
        };
        slopes(&y, &to_y, |y| loss(y, &weights));
        slopes(&weights, &to_weights, |weights| loss(&y, weights));
    }
    // Dispatch and the combination without weights are each other's gradients.
    let to_x = moe_combine(s, &dy, None, &slots, false).unwrap();
    slopes(&x, &to_x, |x| Ok(dot(&dy, &moe_dispatch(s, x, &slots, 9)?)));
    let to_y = moe_dispatch(s, &dx, &slots, 9).unwrap();
    slopes(&y, &to_y, |y| {
        Ok(dot(&dx, &moe_combine(s, y, None, &slots, false)?))
    });
}

/// Logits are so far apart that a step of a difference changes no choice.
#[test]
fn gradients_of_gates_are_slopes() {
    let s = stream();
    let mut numbers = Numbers::new(64);
    let order = [0.0, 2.0, 1.0, 3.0, 3.0, 1.0, 0.0, 2.0, 1.0, 0.0, 2.0, 3.0];
    let logits: Vec<f64> = order.iter().map(|at| at * 0.4).collect();
    let logits = floats(&[3, 4], &logits);
    let dl_aux = floats(&[], &[0.7]);
    let some = tensor(s, DType::Bool, &[3], &[1.0, 0.0, 1.0]).unwrap();
    let priority = floats(&[3], &[0.1, 0.9, 0.5]);
    let gates = [
        Gate::top1(1, DropPolicy::ByPriority(&priority)),
        Gate {
            used: Some(&some),
            ..Gate::top1(9, DropPolicy::ByPosition)
        },
        Gate::top2(2, None),
        Gate::top_k(2, 1, DropPolicy::ByPosition),
        Gate::top_k(3, i64::MAX, DropPolicy::ByProbability),
    ];
    for gate in gates {
        let dweights = numbers.tensor(s, DType::F32, &[3, gate.k]).unwrap();
        let of = moe_gate(s, &logits, gate).unwrap();
        let to = moe_gate_backward(s, &dweights, &dl_aux, &logits, &of, gate.normalize).unwrap();
        slopes(&logits, &to, |logits| {
            let of = moe_gate(s, logits, gate)?;
            Ok(dot(&dweights, &of.weights) + dot(&dl_aux, &of.l_aux))
        });
    }
}

/// Upstream leaves open which of equal tokens an expert keeps, and in what order it takes them.
#[test]
fn equal_tokens_are_taken_in_their_order() {
    let s = stream();
    let logits = floats(&[5, 2], &[1.0; 10]);
    for drop in [
        DropPolicy::ByPosition,
        DropPolicy::ByProbability,
        DropPolicy::ByPriority(&floats(&[5], &[0.5; 5])),
    ] {
        let gate = moe_gate(s, &logits, Gate::top1(3, drop)).unwrap();
        assert_eq!(of(&gate.assignments), [0.0, 0.0, 0.0, -1.0, -1.0]);
        assert_eq!(of(&gate.offsets), [0.0, 1.0, 2.0, -1.0, -1.0]);
        assert_eq!(of(&gate.weights), [0.5, 0.5, 0.5, 0.0, 0.0]);
        assert_eq!(of(&gate.expert_counts), [5.0, 0.0]);
        assert_eq!(
            (of(&gate.load), of(&gate.l_aux)),
            (vec![2.0, 0.0], vec![1.0])
        );
    }
}

#[test]
fn a_nan_is_chosen_first_and_seen_in_the_scores() {
    let s = stream();
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let rows = [1.0, nan, 3.0, -inf, -inf, 2.0, 0.0, inf, 1.0];
    for dtype in FLOATS {
        let logits = tensor(s, dtype, &[3, 3], &rows).unwrap();
        let gating = top_k_gating(s, &logits, None, 3).unwrap();
        let experts = [1.0, 2.0, 0.0, 2.0, 0.0, 1.0, 1.0, 2.0, 0.0];
        assert_eq!(of(&gating.assignments), experts, "{dtype}");
        let scores = of(&gating.scores);
        assert!(scores[..3].iter().chain(&scores[6..]).all(|s| s.is_nan()));
        // Upstream would choose expert 2 again: what it takes out becomes minus infinity, too.
        assert_eq!(scores[3..6], [1.0, 0.0, 0.0]);
    }
}

#[test]
fn padding_goes_to_no_expert() {
    let s = stream();
    let logits = Numbers::new(65).tensor(s, DType::F32, &[6, 3]).unwrap();
    for (tokens, real) in [(4, 4), (0, 0), (-3, 0), (6, 6), (99, 6)] {
        let n_tokens = integers(&[], &[f64::from(tokens)]);
        let gating = top_k_gating(s, &logits, Some(&n_tokens), 1).unwrap();
        let (experts, offsets) = (of(&gating.assignments), of(&gating.offsets));
        assert!(
            experts[..real]
                .iter()
                .chain(&offsets[..real])
                .all(|&at| at >= 0.0)
        );
        assert!(
            experts[real..]
                .iter()
                .chain(&offsets[real..])
                .all(|&at| at == -1.0)
        );
        assert!(of(&gating.scores)[real..].iter().all(|&score| score == 0.0));
        let counted: f64 = of(&gating.expert_counts).iter().sum();
        assert_eq!(counted, f64::from(u32::try_from(real).unwrap()));
    }
}

#[test]
fn any_threads_give_the_same_bits() {
    let s = stream();
    let mut numbers = Numbers::new(66);
    let mut t = |shape: &[i64]| numbers.tensor(s, DType::F32, shape).unwrap();
    let (logits, x, dweights) = (t(&[3000, 16]), t(&[3000, 64]), t(&[3000, 2]));
    let gate = moe_gate(s, &logits, Gate::top_k(2, 300, DropPolicy::ByProbability)).unwrap();
    let one = floats(&[], &[1.0]);
    let dlogits = moe_gate_backward(s, &dweights, &one, &logits, &gate, true).unwrap();
    let rows = Rows::Capacity(300);
    let counts = &gate.expert_counts;
    let (slots, _) = moe_slots(s, &gate.assignments, &gate.offsets, counts, rows).unwrap();
    let y = moe_dispatch(s, &x, &slots, 4800).unwrap();
    let back = moe_combine(s, &y, Some(&gate.weights), &slots, false).unwrap();
    let (dy, to) = moe_combine_backward(s, &x, &y, &gate.weights, &slots, false).unwrap();
    let results = [
        &gate.weights,
        &gate.assignments,
        &gate.offsets,
        &gate.l_aux,
        &dlogits,
        &slots,
        &y,
        &back,
        &dy,
        &to,
    ];
    equal_on_any_threads("moe::any_threads_give_the_same_bits", &results);
}

/// Large results go past the caches.
#[test]
fn large_results_are_the_small_ones() {
    const ROWS: i64 = 2300;
    const D: i64 = 4102;
    if std::env::var_os(AGAIN).is_some() {
        return;
    }
    let s = stream();
    for dtype in [DType::F32, DType::BF16] {
        let x = Numbers::new(67).tensor(s, dtype, &[ROWS, D]).unwrap();
        let at: Vec<f64> = (0..ROWS)
            .map(|row| f64::from(i32::try_from(row * 7 % ROWS).unwrap()))
            .collect();
        let slots = integers(&[ROWS, 1], &at);
        let y = moe_dispatch(s, &x, &slots, ROWS + 1).unwrap();
        assert!(y.bytes() >= 16 << 20, "too few to be large");
        let (x_bytes, y_bytes) = (bytes(&x), bytes(&y));
        let row = usize::try_from(D).unwrap() * dtype.size_bytes();
        for (from, to) in at.iter().enumerate() {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "an index"
            )]
            let to = *to as usize;
            assert!(x_bytes[from * row..][..row] == y_bytes[to * row..][..row]);
        }
        assert!(y_bytes[y_bytes.len() - row..].iter().all(|byte| *byte == 0));
        let back = moe_combine(s, &y, None, &slots, false).unwrap();
        assert!(bytes(&back) == x_bytes, "{dtype}");
        let ones = floats(&[ROWS, 1], &vec![1.0; at.len()]);
        let (dy, _) = moe_combine_backward(s, &x, &y, &ones, &slots, false).unwrap();
        assert!(bytes(&dy) == y_bytes, "{dtype}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let s = stream();
    let logits = floats(&[2, 3], &[0.0; 6]);
    let told = |error: ds_core::Error| {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        error.to_string()
    };
    let error = told(top_k_gating(s, &logits, None, 4).unwrap_err());
    assert!(error.contains("k = 4"), "{error}");
    let error = told(moe_gate(s, &logits, Gate::top1(-1, DropPolicy::ByPosition)).unwrap_err());
    assert!(error.contains("a capacity of -1"), "{error}");
    let places = integers(&[2, 1], &[0.0; 2]);
    let error = told(moe_slots(s, &places, &places, &places, Rows::Capacity(-2)).unwrap_err());
    assert!(error.contains("-2 rows for each expert"), "{error}");
    let error = told(moe_combine(s, &logits, Some(&logits), &places, false).unwrap_err());
    assert!(error.contains("weights"), "{error}");
}
