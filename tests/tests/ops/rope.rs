//! Rotary embedding: views of one tensor, in place, late positions.

use ds_core::{DType, ErrorKind, Tensor};
use ds_ops::rope::{RopeConfig, RopeTables, rope, rope_backward, rope_into, rope_tables};
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, copy, tensor},
    compare::values,
};

use crate::{
    FLOATS,
    softmax::{check_kernel, dot, hold_slopes, many_rows_are_each, slopes},
    stream,
};

const THETA: f64 = 10_000.0;

fn tables(positions: i64, rotary_dim: i64) -> RopeTables {
    rope_tables(stream(), positions, rotary_dim, THETA).unwrap()
}

fn config(interleaved: bool) -> RopeConfig<'static> {
    RopeConfig {
        interleaved,
        ..RopeConfig::default()
    }
}

/// Queries and keys of one tensor `[B, S, 3, H, D]`, each turned in place; values stay.
#[test]
fn queries_and_keys_of_one_tensor_are_turned_in_place() {
    let s = stream();
    for dtype in FLOATS {
        let mut numbers = Numbers::new(1);
        let qkv = numbers.tensor(s, dtype, &[2, 5, 9, 80]).unwrap();
        let before = qkv.to_bytes(s).unwrap();
        let tables = tables(5, 40);
        for interleaved in [false, true] {
            for first in [0, 3] {
                let part = qkv.narrow(2, first, 3).unwrap();
                let args: [&[&Tensor]; 5] =
                    [&[&part], &[&tables.cos], &[&tables.sin], &[], &[&part]];
                let scalars = [Attr::I64(0), Attr::Bool(false)];
                check_kernel("rope", &args, &[Attr::Bool(interleaved)], &scalars);
            }
        }
        let after = qkv.to_bytes(s).unwrap();
        let head = before.len() / (2 * 5 * 9);
        for (index, (before, after)) in before.chunks(head).zip(after.chunks(head)).enumerate() {
            // The token at position 0 is turned by nothing.
            if index % 9 >= 6 || index / 9 % 5 == 0 {
                assert!(before == after, "head {index} is a value");
            } else {
                assert!(before != after, "head {index} was not turned");
                assert!(
                    before[head / 2..] == after[head / 2..],
                    "behind what is turned"
                );
            }
        }
    }
}

#[test]
fn positions_repeat_over_sequences() {
    let s = stream();
    let mut numbers = Numbers::new(2);
    let x = numbers.tensor(s, DType::F16, &[3, 4, 2, 64]).unwrap();
    let y = copy(s, &x).unwrap();
    let tables = tables(20, 64);
    let positions = tensor(s, DType::I32, &[4], &[7.0, 2.0, 19.0, 0.0]).unwrap();
    let positions = positions.expand(&[3, 4]).unwrap();
    let args: [&[&Tensor]; 5] = [&[&x], &[&tables.cos], &[&tables.sin], &[&positions], &[&y]];
    let scalars = [Attr::I64(0), Attr::Bool(false)];
    check_kernel("rope", &args, &[Attr::Bool(false)], &scalars);
}

/// Against the angle itself, at the position that upstream's test takes and at the last one of a long
/// context: f32 of the right cosine and sine, whatever the position.
#[test]
fn tables_are_right_to_the_last_bit_at_late_positions() {
    let s = stream();
    let tables = tables(131_072, 4);
    let (cos, sin) = (
        values(s, &tables.cos).unwrap(),
        values(s, &tables.sin).unwrap(),
    );
    // Of p radians, by arithmetic with 50 digits.
    let known = [
        (1, 0.540_302_305_868_139_7, 0.841_470_984_807_896_5),
        (4095, -0.065_975_996_558_064_9, -0.997_821_210_376_974_4),
        (131_071, -0.817_983_499_387_949_1, -0.575_241_683_754_789_4),
    ];
    for (position, c, s) in known {
        let (got_c, got_s) = (cos[position * 2], sin[position * 2]);
        assert!(
            (got_c - c).abs() < 3e-8,
            "cos {position} is {got_c}, not {c}"
        );
        assert!(
            (got_s - s).abs() < 3e-8,
            "sin {position} is {got_s}, not {s}"
        );
    }
}

#[test]
fn turning_back_gives_what_was_there_and_is_the_gradient() {
    let s = stream();
    let shape = [1, 3, 1, 6];
    let tables = tables(9, 4);
    let mut numbers = Numbers::new(3);
    let mut draw = || (0..18).map(|_| numbers.draw()).collect::<Vec<_>>();
    let (x, dy) = (draw(), draw());
    let upload = |v: &[f64]| tensor(s, DType::F32, &shape, v).unwrap();
    for interleaved in [false, true] {
        let config = RopeConfig {
            offset: 5,
            ..config(interleaved)
        };
        let y = |x: &[f64]| rope(s, &upload(x), &tables, config).unwrap();
        let back = rope_backward(s, &y(&x), &tables, config).unwrap();
        for (got, want) in values(s, &back).unwrap().iter().zip(&x) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
        let dx = rope_backward(s, &upload(&dy), &tables, config).unwrap();
        let want = slopes(&x, |x| dot(&dy, &values(s, &y(x)).unwrap()));
        hold_slopes("dx", &values(s, &dx).unwrap(), &want);
    }
}

#[test]
fn a_position_without_angles_gives_nan_and_reads_nothing() {
    let s = stream();
    let x = Numbers::new(4)
        .tensor(s, DType::F32, &[1, 3, 1, 6])
        .unwrap();
    let config = RopeConfig {
        offset: 1,
        ..config(false)
    };
    let y = values(s, &rope(s, &x, &tables(3, 4), config).unwrap()).unwrap();
    assert!(y[..12].iter().all(|v| v.is_finite()), "{y:?}");
    assert!(y[12..16].iter().all(|v| v.is_nan()), "{y:?}");
    assert_eq!(y[16..], values(s, &x).unwrap()[16..]);
}

#[test]
fn many_tokens_are_turned_as_each() {
    let s = stream();
    for dtype in FLOATS {
        for interleaved in [false, true] {
            many_rows_are_each("rope", dtype, |x| {
                let (rows, d) = (x.shape()[0], x.shape()[1]);
                let x = x.reshape(&[rows / 45, 45, 1, d]).unwrap();
                rope(s, &x, &tables(45, 4096), config(interleaved)).unwrap()
            });
        }
    }
}

#[test]
fn tables_that_are_too_wide_and_odd_dimensions_are_refused() {
    let s = stream();
    let x = Numbers::new(5)
        .tensor(s, DType::F32, &[1, 2, 1, 6])
        .unwrap();
    let error = rope_into(s, &x, &tables(2, 8), &x, config(false), false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        error.to_string(),
        "rope: the tables turn 8 elements, a head has 6"
    );
    let error = rope_tables(s, 2, 7, THETA).unwrap_err();
    assert!(error.to_string().contains("rotary_dim is 7"), "{error}");
}
