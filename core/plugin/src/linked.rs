//! Plugins that are linked into the program rather than opened from a file.

use ds_abi::DsPluginEntry;

/// A plugin compiled into this program. It goes through the same entry, tables and checks as one
/// that is a file.
///
/// Registered with `inventory`, which finds only crates that the program names: write
/// `use ds_accelerator_cpu as _;` in the binary.
#[derive(Debug)]
pub struct LinkedPlugin {
    /// Text of the plugin's manifest.
    pub manifest: &'static str,
    /// Its kernels: texts of `kernel.json` files. A plugin that is a file has them in its manifest.
    pub kernels: fn() -> Vec<&'static str>,
    /// Its entry function.
    pub entry: DsPluginEntry,
}

inventory::collect!(LinkedPlugin);

impl LinkedPlugin {
    /// Every plugin linked into this program, in no particular order.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        inventory::iter::<Self>.into_iter()
    }
}
