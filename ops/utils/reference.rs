//! What the op means.

use ds_core::{Result, op::HostCall};

/// `flatten(tensors, flat)`.
pub(super) fn flatten(call: &mut HostCall) -> Result<()> {
    let mut flat = call.one(1)?.to_f64()?;
    let mut room = flat.iter_mut();
    for tensor in &call.args[0] {
        room.by_ref()
            .zip(tensor.to_f64()?)
            .for_each(|(to, v)| *to = v);
    }
    call.one_mut(1)?.set_f64(&flat)
}
