//! Services among DeepSpeed's op sets: what a program gets of the host rather than of kernels. A
//! device is not opened to tell of them.

use std::collections::BTreeMap;

use ds_core::DeviceInfo;
use ds_io::{EngineKind, GdsHandle};

use super::OpState;
use crate::io::{Engine, Engines, Gets, Locking, RAISE};

/// DLPack's number of the host's own processor, `kDLCPU`, whose pinned memory is what the process
/// may lock.
const HOST_PROCESSOR: i32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Service {
    AsyncIo,
    PinMemory,
    Gds,
}

impl Service {
    const ALL: [Self; 3] = [Self::AsyncIo, Self::PinMemory, Self::Gds];

    /// The one that an op set is.
    pub(super) fn named(set: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == set)
    }

    fn name(self) -> &'static str {
        match self {
            Self::AsyncIo => "async_io",
            Self::PinMemory => "pin_memory",
            Self::Gds => "gds",
        }
    }
}

/// Why the service that a set is cannot be had on any device.
pub(crate) fn missing_everywhere(set: &str) -> Option<&'static str> {
    (Service::named(set)? == Service::Gds).then_some(
        "missing: boundary 1.0 has no table for a way between storage and a device's memory, so no \
         plugin offers one",
    )
}

/// What they depend on beside the device.
pub(super) struct Services {
    engines: Engines,
    locking: Locking,
}

impl Services {
    pub(super) fn of_this_process() -> Self {
        Self {
            engines: Engines::probe_what_a_program_gets(),
            locking: Locking::of_this_process(),
        }
    }

    /// How they stand on a device.
    pub(super) fn on(&self, device: &str, info: &DeviceInfo) -> BTreeMap<Service, OpState> {
        let state = |service| match service {
            Service::AsyncIo => self.async_io(info),
            Service::PinMemory => self.pin_memory(device, info),
            Service::Gds => OpState::Unserved {
                reason: format!("missing: {}", GdsHandle::missing_by(info)),
            },
        };
        Service::ALL.map(|service| (service, state(service))).into()
    }

    fn async_io(&self, info: &DeviceInfo) -> OpState {
        let (got, is_named) = match &self.engines.gets {
            Gets::Engine { kind, is_named, .. } => (*kind, *is_named),
            Gets::Nothing(refusal) => {
                return OpState::Unserved {
                    reason: refusal.line(),
                };
            }
        };
        let mut how = if is_named {
            format!("{got}, which DS_IO_ENGINE names")
        } else {
            best(&self.engines.all, got)
        };
        if !info.host_visible_memory {
            how += "; by way of host memory";
        }
        OpState::Served { how }
    }

    fn pin_memory(&self, device: &str, info: &DeviceInfo) -> OpState {
        if info.dlpack_type != HOST_PROCESSOR {
            let reason = format!(
                "only the open device tells: `ds_report io --device {device}` tries to lock a page"
            );
            return OpState::Untried { reason };
        }
        let words = self.locking.words();
        match self.locking.limit_bytes {
            Some(0) => OpState::Unserved {
                reason: format!("locks {words}; {RAISE}"),
            },
            _ => OpState::Served {
                how: format!("locks {words}"),
            },
        }
    }
}

/// The engine that a program gets, and why not what is better.
fn best(all: &[Engine], got: EngineKind) -> String {
    let refused = all.iter().filter_map(|engine| {
        let why = &engine.refusal.as_ref()?.reason;
        Some(format!("; {} is refused: {why}", engine.name))
    });
    format!("{got}{}", refused.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_engine_is_told_with_why_not_a_better_one() {
        let words = |refused: &[EngineKind]| {
            let Engines { all, gets } = Engines::refusing(refused);
            match gets {
                Gets::Engine { kind, .. } => best(&all, kind),
                Gets::Nothing(refusal) => refusal.line(),
            }
        };
        assert_eq!(words(&[]), "io_uring");
        assert_eq!(
            words(&[EngineKind::IoUring]),
            "aio; io_uring is refused: Operation not permitted"
        );
        assert!(words(&EngineKind::ALL).starts_with("the kernel allows no engine; `ds_report io`"));
    }
}
