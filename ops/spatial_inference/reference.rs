//! What the ops mean, in f64.

use ds_core::{Result, op::HostCall};

/// The sum of all arguments but the last, in which a bias comes again for each row, into that one.
pub(super) fn sum(call: &mut HostCall) -> Result<()> {
    let mut y = call.one(0)?.to_f64()?;
    let last = call.args.len() - 1;
    for input in 1..last {
        let terms = call.one(input)?.to_f64()?;
        y.iter_mut()
            .zip(terms.iter().cycle())
            .for_each(|(sum, v)| *sum += v);
    }
    call.one_mut(last)?.set_f64(&y)
}
