//! What the op means, in f64.

use ds_core::{Result, op::HostCall};

/// `matmul(a, b) -> c`.
pub(super) fn matmul(call: &mut HostCall) -> Result<()> {
    let (a, b) = (call.one(0)?, call.one(1)?);
    let (m, k) = last_two(&a.shape);
    let (_, n) = last_two(&b.shape);
    let (a, b) = (a.to_f64()?, b.to_f64()?);
    let mut c = call.one(2)?.zeros();
    if m * n > 0 {
        for (index, c) in c.chunks_exact_mut(m * n).enumerate() {
            for (row, c) in c.chunks_exact_mut(n).enumerate() {
                for l in 0..k {
                    let left = a[(index * m + row) * k + l];
                    let right = &b[(index * k + l) * n..][..n];
                    c.iter_mut()
                        .zip(right)
                        .for_each(|(sum, right)| *sum += left * right);
                }
            }
        }
    }
    call.one_mut(2)?.set_f64(&c)
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
