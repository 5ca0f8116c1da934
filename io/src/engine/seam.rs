//! Where tests stand between an engine and the kernel. In the product there is nothing here.

use std::io;

use rustix::io::Errno;

use super::{Completion, EngineKind, Request};

/// What a test does to the kernel's side of an engine.
#[cfg(test)]
pub(crate) trait Faults: Send + Sync {
    /// Why the kernel does not let an engine of this kind be made.
    fn open(&self, _kind: EngineKind) -> Option<Errno> {
        None
    }

    /// How the call that hands `count` requests over fails, in place of it.
    fn submit(&self, _count: usize) -> Option<Errno> {
        None
    }

    /// Changes a request before the kernel sees it.
    fn request(&self, _request: &mut Request) {}

    /// Changes how a request ended before the engine sees it.
    fn completion(&self, _completion: &mut Completion) {}
}

/// The kernel, or what a test puts before it.
#[derive(Clone, Default)]
pub(crate) struct Seam {
    #[cfg(test)]
    pub(crate) faults: Option<std::sync::Arc<dyn Faults>>,
}

#[cfg_attr(
    not(test),
    allow(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        unused_variables,
        reason = "what is empty in the product is not in tests"
    )
)]
impl Seam {
    pub(super) fn open(&self, kind: EngineKind) -> io::Result<()> {
        #[cfg(test)]
        if let Some(errno) = self.faults.as_ref().and_then(|faults| faults.open(kind)) {
            return Err(errno.into());
        }
        Ok(())
    }

    pub(super) fn submit(&self, count: usize) -> Result<(), Errno> {
        #[cfg(test)]
        if let Some(errno) = self.faults.as_ref().and_then(|faults| faults.submit(count)) {
            return Err(errno);
        }
        Ok(())
    }

    pub(super) fn request(&self, request: Request) -> Request {
        #[cfg(test)]
        if let Some(faults) = &self.faults {
            let mut changed = request;
            faults.request(&mut changed);
            return changed;
        }
        request
    }

    pub(super) fn completion(&self, completion: Completion) -> Completion {
        #[cfg(test)]
        if let Some(faults) = &self.faults {
            let mut changed = completion;
            faults.completion(&mut changed);
            return changed;
        }
        completion
    }
}
