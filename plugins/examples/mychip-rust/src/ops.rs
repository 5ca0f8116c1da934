//! Kernels: what the manifest lists under `kernels`.

use std::slice;

use ds_plugin::{Error, LaunchView, Node, Result};

use crate::{memory::Address, stream::Stream};

/// A kernel ready to launch.
pub(crate) enum Kernel {
    /// `mychip_matmul`: `c = a b`.
    Matmul,
}

impl Kernel {
    /// The kernel that the host has chosen, once for each signature. What depends on dtypes and
    /// shapes is worked out here; the launch is the hot path.
    pub(crate) fn of(nodes: &[Node<'_, ()>]) -> Result<Self> {
        match nodes {
            [node] if node.kernel == "mychip_matmul" => Ok(Self::Matmul),
            _ => Err(Error::invalid_argument(format!(
                "mychip has no such kernel: {nodes:?}"
            ))),
        }
    }

    /// Queues it.
    ///
    /// # Safety
    /// The tensors are those of the signature, and valid until the stream has passed the launch.
    pub(crate) unsafe fn launch(&self, stream: &Stream, launch: LaunchView<'_>) -> Result<()> {
        match self {
            Self::Matmul => {
                // Shapes live for this call, memory until the stream has passed: copy the former.
                let [a, b, c] = [0, 1, 2].map(|index| launch.tensor(index));
                let (m, k, n) = (a.shape()[0], a.shape()[1], b.shape()[1]);
                let [m, k, n] = [m, k, n].map(|extent| usize::try_from(extent).unwrap_or(0));
                let [a, b, c] = [a, b, c].map(|tensor| Address(tensor.address()));
                stream.run(move || {
                    // SAFETY: contiguous tensors of f32 with these extents, as the manifest's
                    // constraints say; the host keeps them, and `c` overlaps neither input.
                    let (a, b, c) = unsafe {
                        (
                            slice::from_raw_parts(a.get::<f32>(), m * k),
                            slice::from_raw_parts(b.get::<f32>(), k * n),
                            slice::from_raw_parts_mut(c.get::<f32>(), m * n),
                        )
                    };
                    matmul(a, b, c, k, n);
                })
            }
        }
    }
}

/// The arithmetic, in the order that any textbook has.
fn matmul(a: &[f32], b: &[f32], c: &mut [f32], k: usize, n: usize) {
    for (row, out) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)) {
        for (j, out) in out.iter_mut().enumerate() {
            *out = (0..k).map(|i| row[i] * b[i * n + j]).sum();
        }
    }
}
