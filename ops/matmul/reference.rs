//! What the ops mean, in f64.

use ds_core::{
    Result,
    op::{HostCall, HostTensor},
};

use crate::activation::function;

/// `matmul(a, b) -> c`.
pub(super) fn matmul(call: &mut HostCall) -> Result<()> {
    let (a, b) = (call.one(0)?, call.one(1)?);
    let (m, k) = last_two(&a.shape);
    let (_, n) = last_two(&b.shape);
    let (a, b) = (a.to_f64()?, b.to_f64()?);
    let mut c = call.one(2)?.zeros();
    if m * n > 0 {
        for (index, c) in c.chunks_exact_mut(m * n).enumerate() {
            product(
                &a[index * m * k..],
                k,
                |l, j| b[(index * k + l) * n + j],
                c,
                n,
            );
        }
    }
    call.one_mut(2)?.set_f64(&c)
}

/// `linear(x, w, bias, residual; kind) -> y`.
pub(super) fn linear(call: &mut HostCall) -> Result<()> {
    let (x, w) = (call.one(0)?, call.one(1)?);
    let (_, k) = last_two(&w.shape);
    let (x, w) = (x.to_f64()?, w.to_f64()?);
    layer(call, 2, &x, &w, k)
}

/// `f(x w^T + bias) + residual` for w of rows of `k`. The call's arguments from `bias` on are bias, residual
/// and y, its first attribute the function.
pub(crate) fn layer(
    call: &mut HostCall,
    bias: usize,
    x: &[f64],
    w: &[f64],
    k: usize,
) -> Result<()> {
    let f = function(HostCall::integer(&call.attributes, 0)?)?;
    let (_, n) = last_two(&call.one(bias + 2)?.shape);
    let mut y = call.one(bias + 2)?.zeros();
    if n > 0 {
        product(x, k, |l, j| w[j * k + l], &mut y, n);
        if let Some(bias) = call.args[bias].first() {
            let bias = bias.to_f64()?;
            y.chunks_exact_mut(n)
                .for_each(|y| y.iter_mut().zip(&bias).for_each(|(y, bias)| *y += bias));
        }
        for y in &mut y {
            *y = f(*y).0;
        }
        if let Some(residual) = call.args[bias + 1].first() {
            y.iter_mut()
                .zip(residual.to_f64()?)
                .for_each(|(y, residual)| *y += residual);
        }
    }
    call.one_mut(bias + 2)?.set_f64(&y)
}

/// `grouped_matmul(x, w, starts, bias; kind) -> y`.
pub(super) fn grouped_matmul(call: &mut HostCall) -> Result<()> {
    let (x, w) = (call.one(0)?, call.one(1)?);
    let (_, k) = last_two(&x.shape);
    let (x, w) = (x.to_f64()?, w.to_f64()?);
    grouped(call, 2, &x, &w, k)
}

/// The products of rows of `k` and the weights of their experts, where starts, bias and y are arguments
/// `starts` and those behind it.
pub(crate) fn grouped(
    call: &mut HostCall,
    starts: usize,
    x: &[f64],
    w: &[f64],
    k: usize,
) -> Result<()> {
    let f = function(HostCall::integer(&call.attributes, 0)?)?;
    let (rows, n) = last_two(&call.one(starts + 2)?.shape);
    let experts = call.one(1)?.shape[0];
    let told = call.one(starts)?.shape == [experts + 1];
    let begins: Vec<_> = call
        .one(starts)?
        .to_i64()?
        .iter()
        .flat_map(|&s| usize::try_from(s))
        .collect();
    let mut y = call.one(starts + 2)?.zeros();
    let told = told && i64::try_from(begins.len()) == Ok(experts + 1);
    if !told || !begins.is_sorted() || begins.last().is_some_and(|&end| end > rows) {
        y.fill(f64::NAN);
        return call.one_mut(starts + 2)?.set_f64(&y);
    }
    let bias = call.args[starts + 1]
        .first()
        .map(HostTensor::to_f64)
        .transpose()?;
    for (e, group) in begins.windows(2).enumerate().filter(|_| n > 0) {
        let (x, y) = (&x[group[0] * k..], &mut y[group[0] * n..group[1] * n]);
        product(x, k, |l, j| w[(e * n + j) * k + l], y, n);
        for (i, y) in y.iter_mut().enumerate() {
            *y = f(*y + bias.as_ref().map_or(0.0, |bias| bias[e * n + i % n])).0;
        }
    }
    call.one_mut(starts + 2)?.set_f64(&y)
}

/// Adds the product of a, of rows of `k`, and b to c, of rows of `n`.
fn product(a: &[f64], k: usize, b: impl Fn(usize, usize) -> f64, c: &mut [f64], n: usize) {
    for (row, c) in c.chunks_exact_mut(n).enumerate() {
        for l in 0..k {
            let left = a[row * k + l];
            c.iter_mut()
                .enumerate()
                .for_each(|(j, sum)| *sum += left * b(l, j));
        }
    }
}

fn last_two(shape: &[i64]) -> (usize, usize) {
    match shape {
        [.., rows, columns] => (
            usize::try_from(*rows).unwrap_or(0),
            usize::try_from(*columns).unwrap_or(0),
        ),
        _ => (0, 0),
    }
}
