//! Dropout beyond its cases: the mask is the host's random numbers, wherever an element lies.

use ds_core::{DType, ErrorKind, RngState, Tensor};
use ds_ops::dropout::{self, Dropout};
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

const HALF: Dropout = Dropout {
    p: 0.5,
    state: RngState { seed: 3, offset: 4 },
};

/// Words as the kernel draws them, with every `p` that tells the word from its neighbours.
#[test]
fn an_element_is_kept_where_the_hosts_number_is_at_least_p() {
    let s = stream();
    for dtype in FLOATS {
        let ones = tensor(s, dtype, &[1, 2100], &vec![1.0; 2100]).unwrap();
        for seed in [0, 3, u64::MAX] {
            // The start of a draw and the middle of a counter; where the low half of a counter ends.
            for offset in [0, 4, 5, (1 << 34) - 1030, u64::MAX - 2047] {
                let state = RngState { seed, offset };
                let middle = f64::from(state.uniform(77));
                for p in [0.25, middle, middle.next_up(), middle.next_down()] {
                    let y = dropout::dropout(s, &ones, Dropout { p, state }).unwrap();
                    for (index, y) in (0..).zip(values(s, &y).unwrap()) {
                        let kept = f64::from(state.uniform(index)) >= p;
                        assert_eq!(y != 0.0, kept, "{dtype} {state:?} {p} {index}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_share_that_is_dropped_is_p_and_the_mean_stays() {
    let s = stream();
    let n = 1_000_000_u32;
    let ones = tensor(s, DType::F32, &[i64::from(n)], &vec![1.0; n as usize]).unwrap();
    let p = 0.1;
    let y = values(
        s,
        &dropout::dropout(s, &ones, Dropout { p, ..HALF }).unwrap(),
    )
    .unwrap();
    let mean = y.iter().sum::<f64>() / f64::from(n);
    // Six standard errors of a mean of numbers that are 0 or 1 / (1 - p).
    assert!(
        (mean - 1.0).abs() < 6.0 * (p / (1.0 - p) / f64::from(n)).sqrt(),
        "{mean}"
    );
}

#[test]
fn the_mask_of_views_and_of_memory_in_place_is_that_of_the_tensor() {
    let s = stream();
    for dtype in FLOATS {
        let wide = Numbers::new(40).tensor(s, dtype, &[5, 100]).unwrap();
        let x = wide.narrow(1, 2, 83).unwrap();
        let y = Tensor::empty(s, dtype, &[5, 83]).unwrap();
        let scalars = [Attr::I64(3), Attr::I64(4), Attr::F64(0.5)];
        check("dropout", &[&[&x], &[&y]], &[], &scalars);
        let whole = Tensor::from_bytes(s, dtype, &[5, 83], &bytes(&x)).unwrap();
        let of_whole = dropout::dropout(s, &whole, HALF).unwrap();
        assert!(bytes(&y) == bytes(&of_whole), "{dtype}");
        let op = ds_core::op::find("dropout").unwrap();
        ds_core::op::launch(op, s, &[&[&x], &[&x]], &[], &scalars).unwrap();
        assert!(bytes(&x) == bytes(&of_whole), "{dtype}");
    }
}

#[test]
fn the_backward_pass_has_the_mask_of_the_forward_one() {
    let s = stream();
    let mut numbers = Numbers::new(41);
    let mut t = |shape: &[i64]| numbers.tensor(s, DType::F32, shape).unwrap();
    let (x, residual, dy, bias) = (t(&[3, 7]), t(&[3, 7]), t(&[3, 7]), t(&[7]));
    let dx = dropout::dropout_backward(s, &dy, HALF).unwrap();
    slopes(&x, &dx, |x| {
        Ok(dot(
            &dy,
            &dropout::bias_dropout_add(s, x, &residual, Some(&bias), HALF)?,
        ))
    });
}

#[test]
fn dropped_elements_are_zero_whatever_they_were() {
    let s = stream();
    let x = tensor(s, DType::F32, &[3], &[f64::NAN, f64::INFINITY, -1.0]).unwrap();
    let y = dropout::dropout(s, &x, Dropout { p: 1.0, ..HALF }).unwrap();
    assert_eq!(bytes(&y), [0; 12]);
    let same = dropout::dropout(s, &x, Dropout { p: 0.0, ..HALF }).unwrap();
    assert_eq!(bytes(&same)[4..], bytes(&x)[4..]);
}

#[test]
fn large_results_are_the_small_ones_and_any_threads_give_them() {
    const N: i64 = 1 << 23;
    let s = stream();
    let x = Numbers::new(42).tensor(s, DType::F32, &[N]).unwrap();
    let y = dropout::dropout(s, &x, HALF).unwrap();
    assert!(y.bytes() >= 32 << 20, "too few to be large");
    let from = N - 70_001;
    let end = copy(s, &x.narrow(0, from, 70_001).unwrap()).unwrap();
    let state = RngState {
        offset: HALF.state.offset + from.unsigned_abs(),
        ..HALF.state
    };
    let of_end = dropout::dropout(s, &end, Dropout { state, ..HALF }).unwrap();
    assert!(bytes(&y)[4 * usize::try_from(from).unwrap()..] == bytes(&of_end));
    equal_on_any_threads("large_results_are_the_small_ones_and", &[&y]);
}

#[test]
fn what_is_no_probability_is_refused() {
    let s = stream();
    let x = tensor(s, DType::F32, &[1], &[1.0]).unwrap();
    for p in [-0.1, 1.1, f64::NAN] {
        let error = dropout::dropout(s, &x, Dropout { p, ..HALF }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let told = error.to_string();
        assert!(told.contains("a probability is from 0 to 1"), "{told}");
    }
}
