//! Data that moves: any strides, lists, indices that name nothing; and what `utils` and `random_ltd` make of it.

use ds_core::{DType, Tensor, op};
use ds_ops::{movement, random_ltd, utils};
use ds_tests::{cases::Numbers, compare::values};

use crate::{FLOATS, check, stream};

fn numbers(seed: u64, dtype: DType, shape: &[i64]) -> Tensor {
    let host = Numbers::new(seed).integers(dtype, shape, 2).unwrap();
    Tensor::from_bytes(stream(), dtype, shape, &host.bytes).unwrap()
}

fn indices(values: &[i32], shape: &[i64]) -> Tensor {
    Tensor::from_slice(stream(), shape, values).unwrap()
}

#[test]
fn copies_go_between_any_strides() {
    let s = stream();
    for dtype in [DType::U8, DType::BF16, DType::F32, DType::I64] {
        let x = if dtype.is_float() {
            Numbers::new(1).tensor(s, dtype, &[3, 50, 4, 70]).unwrap()
        } else {
            numbers(1, dtype, &[3, 50, 4, 70])
        };
        let swaps = [(0, 1), (0, 3), (1, 3), (2, 3), (1, 2)];
        for (a, b) in swaps {
            let from = x.transpose(a, b).unwrap();
            let y = Tensor::empty(s, dtype, from.shape()).unwrap();
            check("copy", &[&[&from], &[&y]], &[], &[]);
            let shape = from.shape().to_vec();
            let to = numbers(2, dtype, &shape).transpose(a, b).unwrap();
            check("copy", &[&[&x], &[&to]], &[], &[]);
        }
        let wide = numbers(3, dtype, &[3, 50, 4, 90]);
        let gaps = wide.narrow(3, 11, 70).unwrap();
        let before = wide.to_bytes(s).unwrap();
        check("copy", &[&[&x], &[&gaps]], &[], &[]);
        let size = dtype.size_bytes();
        let after = wide.to_bytes(s).unwrap();
        for (index, (before, after)) in before.chunks(size).zip(after.chunks(size)).enumerate() {
            assert!(
                (11..81).contains(&(index % 90)) || before == after,
                "{index}"
            );
        }
        let one = x.narrow(1, 3, 1).unwrap();
        let repeated = one.expand(&[3, 50, 4, 70]).unwrap();
        let y = movement::contiguous(s, &repeated).unwrap();
        assert_eq!(y.to_bytes(s).unwrap(), repeated.to_bytes(s).unwrap());
    }
}

/// Large copies take another way to memory.
#[test]
fn large_copies_are_right_everywhere() {
    let s = stream();
    let x = Numbers::new(4)
        .tensor(s, DType::F32, &[2900, 3001])
        .unwrap();
    let y = Tensor::empty(s, DType::F32, &[2900, 3001]).unwrap();
    movement::copy(s, &x, &y).unwrap();
    assert!(x.to_bytes(s).unwrap() == y.to_bytes(s).unwrap());
    let turned = movement::contiguous(s, &x.transpose(0, 1).unwrap()).unwrap();
    assert!(turned.transpose(0, 1).unwrap().to_bytes(s).unwrap() == x.to_bytes(s).unwrap());
}

#[test]
fn tensors_come_one_behind_the_other_along_any_dimension() {
    let s = stream();
    let of = |first: f32, shape: &[i64]| {
        let count = shape.iter().product::<i64>();
        let values = std::iter::successors(Some(first), |value| Some(value + 1.0));
        let values: Vec<f32> = (0..count).zip(values).map(|(_, value)| value).collect();
        Tensor::from_slice(s, shape, &values).unwrap()
    };
    let (a, b) = (of(0.0, &[2, 2]), of(10.0, &[2, 1]));
    let y = movement::concat(s, &[&a, &b], 1).unwrap();
    assert_eq!(y.shape(), [2, 3]);
    assert_eq!(values(s, &y).unwrap(), [0.0, 1.0, 10.0, 2.0, 3.0, 11.0]);
    let y = movement::concat(s, &[&a, &of(20.0, &[0, 2]), &of(30.0, &[1, 2])], 0).unwrap();
    assert_eq!(values(s, &y).unwrap(), [0.0, 1.0, 2.0, 3.0, 30.0, 31.0]);
    for (tensors, axis) in [(vec![], 0), (vec![&a, &b], 0), (vec![&a], 2)] {
        assert!(movement::concat(s, &tensors, axis).is_err());
    }
    let half = Tensor::empty(s, DType::BF16, &[2, 2]).unwrap();
    let error = movement::concat(s, &[&a, &half], 0).unwrap_err();
    assert!(error.to_string().contains("bf16"), "{error}");
}

/// The sum of `weight * index_select(x)` is linear in x: its gradient is what `scatter_add` makes of the
/// weight.
#[test]
fn scatter_add_is_the_gradient_of_index_select() {
    let s = stream();
    let mut n = Numbers::new(5);
    let (x, weight) = (
        n.tensor(s, DType::F32, &[4, 3]).unwrap(),
        n.tensor(s, DType::F32, &[6, 3]).unwrap(),
    );
    let index = indices(&[3, 0, 3, -1, 9, 1], &[6]);
    let loss = |x: &Tensor| {
        let rows = values(s, &movement::index_select(s, x, &index).unwrap()).unwrap();
        let weight = values(s, &weight).unwrap();
        rows.iter().zip(weight).map(|(v, w)| v * w).sum::<f64>()
    };
    let gradient = Tensor::from_slice(s, &[4, 3], &[0.0_f32; 12]).unwrap();
    movement::scatter_add(s, &gradient, &index, &weight).unwrap();
    let from = x.to_vec::<f32>(s).unwrap();
    for (element, gradient) in values(s, &gradient).unwrap().iter().enumerate() {
        let mut moved = from.clone();
        moved[element] += 1.0;
        let moved = Tensor::from_slice(s, &[4, 3], &moved).unwrap();
        let difference = loss(&moved) - loss(&x);
        assert!(
            (difference - gradient).abs() < 1e-5,
            "{difference} {gradient}"
        );
    }
}

#[test]
fn top_k_is_sorted_whatever_the_order_of_its_input() {
    let s = stream();
    for dtype in FLOATS {
        let ascending: Vec<f64> = (0..500).map(f64::from).collect();
        for values in [ascending.clone(), ascending.iter().rev().copied().collect()] {
            let x = ds_tests::cases::tensor(s, dtype, &[500], &values).unwrap();
            for k in [1, 2, 16, 499, 500] {
                let kept = Tensor::empty(s, dtype, &[k]).unwrap();
                let index = Tensor::empty(s, DType::I64, &[k]).unwrap();
                check("top_k", &[&[&x], &[&kept], &[&index]], &[], &[]);
            }
        }
    }
    let x = Tensor::empty(s, DType::F32, &[2, 5]).unwrap();
    for k in [-1, 6] {
        let error = movement::top_k(s, &x, k).unwrap_err();
        assert!(error.to_string().contains(&format!("k = {k}")), "{error}");
    }
}

#[test]
fn copies_onto_themselves_in_part_are_refused() {
    let s = stream();
    let x = Tensor::empty(s, DType::F32, &[4, 4]).unwrap();
    let error = movement::copy(s, &x.transpose(0, 1).unwrap(), &x).unwrap_err();
    assert!(error.to_string().contains("overlap"), "{error}");
}

#[test]
fn lists_become_a_row_and_come_back() {
    let s = stream();
    let mut n = Numbers::new(6);
    let shapes: [&[i64]; 4] = [&[3, 5], &[], &[0, 2], &[40_001]];
    let tensors: Vec<Tensor> = (shapes.iter())
        .map(|shape| n.tensor(s, DType::BF16, shape).unwrap())
        .collect();
    let list: Vec<&Tensor> = tensors.iter().collect();
    let flat = utils::flatten(s, &list).unwrap();
    assert_eq!(flat.shape(), [40_017]);
    let views = utils::unflatten(&flat, &list).unwrap();
    for (view, tensor) in views.iter().zip(&tensors) {
        assert_eq!(view.shape(), tensor.shape());
        assert_eq!(view.to_bytes(s).unwrap(), tensor.to_bytes(s).unwrap());
        assert!(view.buffer().same_as(flat.buffer()), "a view");
    }
    assert!(utils::flatten(s, &[]).is_err());
    assert!(utils::unflatten(&flat.narrow(0, 0, 5).unwrap(), &list).is_err());
    let strided = tensors[0].transpose(0, 1).unwrap();
    let flat = utils::flatten(s, &[&strided]).unwrap();
    assert_eq!(flat.to_bytes(s).unwrap(), strided.to_bytes(s).unwrap());
    assert!(utils::cast_to_byte_tensor(&strided).is_err());
    let part = tensors[0].narrow(0, 1, 2).unwrap();
    let bytes = utils::cast_to_byte_tensor(&part).unwrap();
    assert_eq!((bytes.dtype(), bytes.shape()), (DType::U8, &[20][..]));
    assert_eq!(bytes.to_bytes(s).unwrap(), part.to_bytes(s).unwrap());
    assert!(bytes.buffer().same_as(tensors[0].buffer()), "a view");
}

#[test]
fn tokens_are_gathered_and_put_back_in_either_order() {
    let s = stream();
    for dtype in FLOATS {
        let x = Numbers::new(7).tensor(s, dtype, &[2, 5, 9]).unwrap();
        let kept = indices(&[0, 2, 4, 1, 2, 3], &[2, 3]);
        let batch_first = random_ltd::token_gather(s, &x, &kept, true).unwrap();
        assert_eq!(batch_first.shape(), [2, 3, 9]);
        let turned = movement::contiguous(s, &x.transpose(0, 1).unwrap()).unwrap();
        let seq_first = random_ltd::token_gather(s, &turned, &kept, false).unwrap();
        assert_eq!(seq_first.shape(), [3, 2, 9]);
        let back = seq_first.transpose(0, 1).unwrap();
        assert_eq!(values(s, &back).unwrap(), values(s, &batch_first).unwrap());
        for (y, rows, is_batch_first) in [(&x, &batch_first, true), (&turned, &seq_first, false)] {
            let all = ds_tests::cases::copy(s, y).unwrap();
            all.buffer().fill(s, 0).unwrap();
            random_ltd::token_scatter_(s, &all, rows, &kept, is_batch_first).unwrap();
            let again = random_ltd::token_gather(s, &all, &kept, is_batch_first).unwrap();
            assert_eq!(values(s, &again).unwrap(), values(s, rows).unwrap());
            let sum = |t: &Tensor| values(s, t).unwrap().iter().filter(|v| **v != 0.0).count();
            assert_eq!(sum(&all), sum(rows), "what is not kept stays");
        }
    }
    let flat = Tensor::empty(s, DType::F32, &[4, 4]).unwrap();
    assert!(random_ltd::token_gather(s, &flat, &indices(&[0], &[1, 1]), true).is_err());
}

#[test]
fn masks_keep_the_rows_and_columns_of_their_tokens() {
    let s = stream();
    let values_of = |t: &Tensor| values(s, t).unwrap();
    let mask: Vec<f32> = (0..9_u8).map(f32::from).collect();
    let mask = Tensor::from_slice(s, &[1, 1, 3, 3], &mask).unwrap();
    let layers = indices(&[0, 2, 1, 7], &[2, 1, 2]);
    let y = random_ltd::mask_gather_bert(s, &mask, &layers).unwrap();
    assert_eq!(y.shape(), [2, 1, 1, 2, 2]);
    assert_eq!(values_of(&y), [0.0, 2.0, 6.0, 8.0, 4.0, 0.0, 0.0, 0.0]);
    let y = random_ltd::mask_gather_gpt(s, &mask, 2).unwrap();
    assert_eq!(values_of(&y), [0.0, 1.0, 3.0, 4.0]);
    for kept in [-1, 4] {
        assert!(random_ltd::mask_gather_gpt(s, &mask, kept).is_err());
    }
    let ids = indices(&[3, 1, 2, 9, -4, 9], &[2, 3]);
    random_ltd::token_sort_(s, &ids).unwrap();
    assert_eq!(ids.to_vec::<i32>(s).unwrap(), [1, 2, 3, -4, 9, 9]);
    let op = op::find("token_gather").unwrap();
    let x = Tensor::empty(s, DType::F32, &[1, 3, 4]).unwrap();
    let y = Tensor::empty(s, DType::F32, &[1, 2, 4]).unwrap();
    let error = op::launch(op, s, &[&[&x], &[&ids], &[&y]], &[], &[]).unwrap_err();
    assert!(error.to_string().contains("'indices'"), "{error}");
}
