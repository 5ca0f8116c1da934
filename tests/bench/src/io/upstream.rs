//! `DeepSpeed`'s aio handle, in a Python process that lives over the rounds (`peers/aio.py`).

use std::path::Path;

use super::{Shape, turns::Cost};
use crate::{
    Result,
    peer::{Heap, Peer},
};

/// Where its tensor lies.
#[derive(Clone, Copy)]
pub(super) enum Memory {
    Pinned,
    Ordinary,
}

/// The process, with a tensor of each kind that was asked for.
pub(super) struct Upstream(Peer);

impl Upstream {
    /// Starts it; none where no Python is given.
    pub(super) fn start(heap: Heap) -> Result<Option<Self>> {
        let Some(mut peer) = Peer::script("aio.py", heap)? else {
            return Ok(None);
        };
        eprintln!("DeepSpeed's async_io is loaded; it takes minutes the first time");
        peer.ask("ready")?;
        Ok(Some(Self(peer)))
    }

    /// Moves a tensor of `bytes` to or from the file.
    pub(super) fn run(
        &mut self,
        memory: Memory,
        file: &Path,
        shape: Shape,
        bytes: u64,
    ) -> Result<Cost> {
        let kind = match memory {
            Memory::Pinned => "pinned",
            Memory::Ordinary => "ordinary",
        };
        let Shape {
            direction,
            block_bytes,
            depth,
            ..
        } = shape;
        let line = format!(
            "{kind} {} {bytes} {block_bytes} {depth} {}",
            direction.name(),
            file.display()
        );
        let [seconds, cpu_seconds] = self.0.ask_for(&line)?;
        Ok(Cost {
            seconds,
            cpu_seconds,
        })
    }
}
