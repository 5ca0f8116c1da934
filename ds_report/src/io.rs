//! `ds_report io`: how files reach tensors here, and with `--measure` what a disk gives.

mod device;
mod engines;
mod locking;
mod measure;
mod place;
mod plan;
mod text;

use std::path::PathBuf;

use ds_core::Host;
use serde::Serialize;

use crate::{
    sizes::parse_size,
    view::{Outcome, Refusal, View},
};
use device::OnDevice;
pub(crate) use device::lock_a_page;
pub(crate) use engines::{Engine, Engines, Gets};
pub(crate) use locking::{Locking, RAISE};
use measure::Measured;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Measure the disk that this folder is on, and recommend an `aio` block for `ds_config.json`.
    /// The file that is written and read has no name and is gone when the command ends, however it
    /// ends; no other file is touched.
    #[arg(long, value_name = "FOLDER")]
    measure: Option<PathBuf>,
    /// Most that this file may take, such as 256M or 2G; a slow disk is given less, to be done in
    /// time.
    #[arg(long, requires = "measure", value_parser = parse_size)]
    size: Option<u64>,
    /// How long to measure, about.
    #[arg(long, requires = "measure", default_value_t = 15,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// The device whose host memory is read into and written from, in the words of `DS_ACCELERATOR`;
    /// else the one that a program gets.
    #[arg(long)]
    device: Option<String>,
}

/// How files reach tensors.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Io {
    /// Best first.
    engines: Vec<Engine>,
    /// The engine of a program that asks for none.
    program_gets: Gets,
    locked_memory: Locking,
    devices: Vec<OnDevice>,
    /// Why there are none.
    no_device: Option<Refusal>,
    /// What `--measure` found.
    measured: Option<Measured>,
}

pub(crate) fn view(host: &Host, options: &Options) -> Result<Io, Outcome> {
    // What is wrong with the folder is told before anything is opened.
    let place = options.measure.as_deref();
    let place = place
        .map(|folder| place::Place::open(folder, options.size))
        .transpose()?;
    let engines = Engines::probe();
    let (devices, no_device) = match device::tried(host, options.device.as_deref()) {
        Ok(devices) => (devices, None),
        Err(e) if options.device.is_some() => return Err(e.into()),
        Err(e) => (Vec::new(), Some(Refusal::from(&e))),
    };
    let measured = match place {
        None => None,
        Some(place) => {
            let opened = devices.iter().find_map(|device| device.opened);
            let why = || devices.iter().find_map(|device| device.refusal.as_ref());
            let device = opened.ok_or_else(|| {
                let why = why().or(no_device.as_ref()).map(Refusal::line);
                Outcome::failed(&format!(
                    "no device to measure with: {}",
                    why.unwrap_or_default()
                ))
            })?;
            Some(measure::measure(place, &engines, device, options.seconds)?)
        }
    };
    Ok(Io {
        engines: engines.all,
        program_gets: engines.gets,
        locked_memory: Locking::of_this_process(),
        devices,
        no_device,
        measured,
    })
}

impl View for Io {
    fn text(&self) -> String {
        text::print(self)
    }
}
