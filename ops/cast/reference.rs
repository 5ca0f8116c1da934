//! What the op means.

use ds_core::{Result, op::HostCall};

/// `cast(x) -> y`: f64 holds every value of the float dtypes, so there is one rounding.
pub(super) fn cast(call: &mut HostCall) -> Result<()> {
    let values = call.one(0)?.to_f64()?;
    call.one_mut(1)?.set_f64(&values)
}
