//! From storage to a device's memory without the host between: DeepSpeed's `gds`.

use ds_core::{Error, ErrorKind};

pub(crate) fn refusal(op: &'static str) -> Error {
    let text = "no accelerator here moves data between storage and its memory by itself";
    Error::new(ErrorKind::Unsupported, op, text)
        .with_hint("leave `use_gds` out: async_io stages through pinned host memory")
}
