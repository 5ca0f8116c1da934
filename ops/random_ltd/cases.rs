//! Calls to verify and measure kernels with.

use ds_core::{
    DType, Result,
    op::{Case, HostCall, HostTensor, Numbers, Size, Traffic},
};

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Sequences, tokens, channels, and how many tokens are kept.
type Dims = (i64, i64, i64, i64);

pub(crate) fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    sorts(&mut cases, size);
    let shapes: &[Dims] = match size {
        Size::Small => &[
            (1, 1, 1, 1),
            (2, 7, 5, 4),
            (3, 64, 67, 30),
            (2, 5, 8, 0),
            (2, 9, 1027, 5),
        ],
        Size::Cached => &[(2, 128, 256, 64)],
        Size::Large => &[(16, 2048, 1024, 1024)],
    };
    for dtype in FLOATS {
        for &(batch, tokens, channels, kept) in shapes {
            let name = format!("{dtype} [{batch}, {tokens}, {channels}] kept {kept}");
            let moved = (batch * kept * channels).unsigned_abs() * dtype.size_bytes() as u64;
            let traffic = Traffic {
                read_bytes: moved,
                written_bytes: moved,
            };
            let (all, few) = ([batch, tokens, channels], [batch, kept, channels]);
            let gather = move |n: &mut Numbers| {
                let x = n.host(dtype, &all)?;
                let indices = indices(n, &[batch, kept], tokens)?;
                Ok(call(vec![x, indices, HostTensor::unwritten(dtype, &few)]))
            };
            cases.push(Case::new("token_gather", &name, gather).traffic(traffic));
            let scatter = move |n: &mut Numbers| {
                let (y, x) = (n.host(dtype, &all)?, n.host(dtype, &few)?);
                Ok(call(vec![y, x, indices(n, &[batch, kept], tokens)?]))
            };
            cases.push(Case::new("token_scatter_", &name, scatter).traffic(traffic));
        }
        masks(&mut cases, size, dtype);
    }
    cases
}

fn sorts(cases: &mut Vec<Case>, size: Size) {
    let shapes: &[&[i64]] = match size {
        Size::Small => &[&[1], &[2, 3, 77], &[4, 4099], &[0, 3], &[3, 0]],
        Size::Cached => &[&[24, 4, 512]],
        Size::Large => &[&[24, 512, 2048]],
    };
    for &shape in shapes {
        let below = |end: i64, what: &str| {
            let make = move |n: &mut Numbers| Ok(call(vec![n.integers(DType::I32, shape, end)?]));
            Case::new("token_sort_", format!("{shape:?} {what}"), make)
        };
        cases.push(below(4096, "of 4096"));
        // What training makes: no token is kept twice. An odd step reaches each once.
        if let Some(&kept) = shape.last().filter(|&&kept| kept <= 4096) {
            let distinct = move |_: &mut Numbers| {
                let count = i32::try_from(shape.iter().product::<i64>()).unwrap_or(0);
                let kept = i32::try_from(kept).unwrap_or(0).max(1);
                let id = |at: i32| f64::from((at / kept + at % kept * 1597) % 4096);
                let values: Vec<f64> = (0..count).map(id).collect();
                Ok(call(vec![HostTensor::from_f64(
                    DType::I32,
                    shape,
                    &values,
                )?]))
            };
            let name = format!("{shape:?} of 4096, distinct");
            cases.push(Case::new("token_sort_", name, distinct));
        }
        if size == Size::Small {
            cases.push(below(i64::from(i32::MAX), "of any size"));
            let both_signs = move |n: &mut Numbers| {
                let ids = n.host_of(DType::I32, shape, |value| (value * 1e8).round())?;
                Ok(call(vec![ids]))
            };
            let name = format!("{shape:?} of both signs");
            cases.push(Case::new("token_sort_", name, both_signs));
        }
    }
}

/// Layers, sequences, tokens, and how many of them are kept.
fn masks(cases: &mut Vec<Case>, size: Size, dtype: DType) {
    let shapes: &[Dims] = match size {
        Size::Small => &[(1, 1, 1, 1), (3, 2, 17, 9), (2, 2, 5, 0)],
        Size::Cached => &[(4, 2, 128, 64)],
        Size::Large => &[(12, 8, 1024, 512)],
    };
    for &(layers, batch, tokens, kept) in shapes {
        let make = move |n: &mut Numbers| {
            let mask = n.host(dtype, &[batch, 1, tokens, tokens])?;
            let indices = indices(n, &[layers, batch, kept], tokens)?;
            let y = HostTensor::unwritten(dtype, &[layers, batch, 1, kept, kept]);
            Ok(call(vec![mask, indices, y]))
        };
        let moved = (layers * batch * kept * kept).unsigned_abs() * dtype.size_bytes() as u64;
        let name = format!("{dtype} {layers} layers [{batch}, 1, {tokens}, {tokens}] kept {kept}");
        cases.push(Case::new("mask_gather_bert", name, make).traffic(Traffic {
            read_bytes: moved,
            written_bytes: moved,
        }));
    }
}

fn call(args: Vec<HostTensor>) -> HostCall {
    HostCall {
        args: args.into_iter().map(|tensor| vec![tensor]).collect(),
        attributes: vec![],
        scalars: vec![],
    }
}

/// Some come again; of a few, two name no token.
fn indices(numbers: &mut Numbers, shape: &[i64], tokens: i64) -> Result<HostTensor> {
    let indices = numbers.integers(DType::I32, shape, tokens)?;
    let mut values = indices.to_f64()?;
    let is_few = values.len() < 200;
    if let [.., before, last] = values.as_mut_slice()
        && is_few
    {
        (*before, *last) = (-1.0, f64::from(i32::MAX));
    }
    HostTensor::from_f64(DType::I32, shape, &values)
}
