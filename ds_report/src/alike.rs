//! Devices that stand alike: of one accelerator and one target, so that every kernel that one of
//! them takes, and every artefact that is built for it, serves the others too.

use ds_core::{Accelerator, Host, selection::State};

#[derive(Clone, Debug)]
pub(crate) struct Alike {
    pub(crate) accelerator: Accelerator,
    pub(crate) target: String,
    /// Their indices, ascending.
    indices: Vec<u32>,
}

impl Alike {
    /// Those of every accelerator that can be used.
    pub(crate) fn all(host: &Host) -> Vec<Self> {
        host.statuses()
            .into_iter()
            .filter(|status| matches!(status.state, State::Usable { .. }))
            .filter_map(|status| host.accelerator(status.name.as_str()).ok())
            .flat_map(|accelerator| {
                let count = accelerator.device_count().unwrap_or(0);
                Self::of(accelerator, 0..count).unwrap_or_default()
            })
            .collect()
    }

    /// Those among the devices `indices` of an accelerator.
    ///
    /// # Errors
    /// Why a device does not say what it is.
    pub(crate) fn of(
        accelerator: Accelerator,
        indices: impl IntoIterator<Item = u32>,
    ) -> ds_core::Result<Vec<Self>> {
        let mut groups: Vec<Self> = Vec::new();
        for index in indices {
            let target = accelerator.device_info(index)?.target;
            match groups.iter_mut().find(|group| group.target == target) {
                Some(group) => group.indices.push(index),
                None => groups.push(Self {
                    accelerator,
                    target,
                    indices: vec![index],
                }),
            }
        }
        Ok(groups)
    }

    /// Their names, as a selection would name them: `cuda:0-3,6`.
    pub(crate) fn name(&self) -> String {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for &index in &self.indices {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == index => *last = index,
                _ => runs.push((index, index)),
            }
        }
        let runs: Vec<String> = runs
            .iter()
            .map(|(first, last)| match last - first {
                0 => first.to_string(),
                _ => format!("{first}-{last}"),
            })
            .collect();
        format!("{}:{}", self.accelerator.name(), runs.join(","))
    }
}
