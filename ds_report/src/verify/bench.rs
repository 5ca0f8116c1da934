//! How fast: a large call of each op and dtype beside the device's own copy, in turn, because the
//! speed of a machine that is shared changes while one looks.

use std::{io, time::Instant};

use ds_core::{
    Buffer, Device, Result, Stream,
    op::{Op, Placed, RunsOn, Size},
    worker::Teller,
};
use serde::{Deserialize, Serialize};

use super::worker::Line;
use crate::view::Refusal;

/// Rounds; odd, so that there is a middle one.
pub(super) const ROUNDS: usize = 5;
/// How long a round takes at least: far more than reading the clock and waiting for the device do.
pub(super) const ROUND_SECONDS: f64 = 10e-3;
/// Most launches in a round.
const MAX_LAUNCHES: f64 = 1000.0;
/// Bytes that the copy reads, and as many that it writes: beyond caches.
pub(super) const COPY_BYTES: u64 = 128 << 20;

#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Bench {
    /// The device's own copy, what it reads and what it writes together.
    pub(super) copy_gb_per_s: Option<f64>,
    /// Why it could not be measured.
    pub(super) copy_reason: Option<String>,
    pub(super) speeds: Vec<Speed>,
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Speed {
    pub(super) op: String,
    pub(super) case: String,
    #[serde(flatten)]
    pub(super) figures: Option<Figures>,
    /// Why there are none.
    pub(super) reason: Option<String>,
    /// Whether it ended its process, or had to be ended.
    pub(super) crashed: bool,
}

impl Speed {
    pub(super) fn of_crash(op: String, case: String, reason: String) -> Self {
        Self {
            op,
            case,
            figures: None,
            reason: Some(reason),
            crashed: true,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Figures {
    kernel: String,
    /// Median of a launch.
    pub(super) us: f64,
    /// Inputs read once and outputs written once, each second; what is updated counts as both.
    pub(super) gb_per_s: f64,
    /// That, to the copy of the same round; the median.
    pub(super) of_copy: Option<f64>,
}

/// Measures the large calls of `ops` on `device`, behind the first `from` of them.
///
/// # Errors
/// When nobody listens any more.
pub(super) fn measure(
    device: Device,
    ops: &[&'static Op],
    from: usize,
    teller: &mut Teller,
) -> io::Result<()> {
    let copy = Stream::new(device).and_then(Copy::new);
    if let Err(e) = &copy {
        teller.tell(&Line::NoCopy(Refusal::from(e).line()))?;
    }
    let cases = ops.iter().flat_map(|op| op.cases(Size::Large));
    for case in cases.skip(from) {
        let [op, name] = [case.op(), case.name()].map(str::to_owned);
        teller.tell(&Line::Large {
            op: op.clone(),
            case: name.clone(),
        })?;
        let mut copies = Vec::new();
        let done = Stream::new(device).and_then(|stream| {
            let placed = Placed::new(&stream, &case, &case.call()?)?;
            time(&stream, &placed, copy.as_ref().ok(), &mut copies, teller)
        });
        let (figures, reason) = match done {
            Ok(Ok(figures)) => (Some(figures), None),
            Ok(Err(reason)) => (None, Some(reason)),
            Err(e) => (None, Some(Refusal::from(&e).line())),
        };
        let speed = Speed {
            op,
            case: name,
            figures,
            reason,
            crashed: false,
        };
        teller.tell(&Line::Speed { speed, copies })?;
    }
    Ok(())
}

/// The figures, or why it is not measured: the reference would take minutes, and nobody runs it for
/// its speed.
fn time(
    stream: &Stream,
    placed: &Placed,
    copy: Option<&Copy>,
    copies: &mut Vec<f64>,
    teller: &mut Teller,
) -> Result<Result<Figures, String>> {
    if stream.device().is_watched() {
        let why = "under DS_DEBUG=sync or shadow every launch is waited for";
        return Ok(Err(why.to_owned()));
    }
    let runs_on = placed.resolve(stream)?;
    let kernel = match &runs_on {
        RunsOn::Kernel(name) => (*name).to_owned(),
        RunsOn::Reference(why) => return Ok(Err(format!("on the host reference: {why}"))),
        RunsOn::Nothing => return Ok(Err("no element is written".to_owned())),
    };
    // Between the rounds, and without a look whether somebody listens: it is the next line's.
    let _ = teller.tell(&Line::ready(&runs_on, &[]));
    let gb = gigabytes(placed.traffic().bytes());
    let launches = launches(seconds(stream, 1, || placed.launch(stream))?);
    let (mut times, mut ratios) = (Vec::new(), Vec::new());
    // A first round is not counted.
    for round in 0..=ROUNDS {
        let _ = teller.tell(&Line::Round);
        let copied = copy.map(Copy::gb_per_s).transpose()?;
        let took = seconds(stream, launches, || placed.launch(stream))?;
        if round > 0 {
            times.push(took);
            copies.extend(copied);
            ratios.extend(copied.map(|copied| gb / took / copied));
        }
    }
    let took = median(times);
    Ok(Ok(Figures {
        kernel,
        us: took * 1e6,
        gb_per_s: gb / took,
        of_copy: (!ratios.is_empty()).then(|| median(ratios)),
    }))
}

/// The device's own copy.
struct Copy {
    stream: Stream,
    from: Buffer,
    to: Buffer,
    launches: u32,
}

impl Copy {
    fn new(stream: Stream) -> Result<Self> {
        let from = Buffer::new(&stream, COPY_BYTES)?;
        let to = Buffer::new(&stream, COPY_BYTES)?;
        // Memory that was never written may not be there yet.
        from.fill(&stream, 1)?;
        to.fill(&stream, 2)?;
        let mut copy = Self {
            stream,
            from,
            to,
            launches: 1,
        };
        copy.launches = launches(copy.seconds()?);
        Ok(copy)
    }

    fn seconds(&self) -> Result<f64> {
        seconds(&self.stream, self.launches, || {
            self.to
                .copy_from(&self.stream, 0, &self.from, 0, COPY_BYTES)
        })
    }

    fn gb_per_s(&self) -> Result<f64> {
        Ok(gigabytes(2 * COPY_BYTES) / self.seconds()?)
    }
}

/// Mean seconds of a launch; the device is idle before and waited for behind.
fn seconds(stream: &Stream, launches: u32, launch: impl Fn() -> Result<()>) -> Result<f64> {
    stream.synchronize()?;
    let start = Instant::now();
    for _ in 0..launches {
        launch()?;
    }
    stream.synchronize()?;
    Ok(start.elapsed().as_secs_f64() / f64::from(launches))
}

/// How many launches of that length a round has.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 1 and 1000"
)]
fn launches(seconds: f64) -> u32 {
    (ROUND_SECONDS / seconds).ceil().clamp(1.0, MAX_LAUNCHES) as u32
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "figures are read to three digits"
)]
fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_long_enough_and_end() {
        assert_eq!(
            [launches(1.0), launches(0.004), launches(0.0)],
            [1, 3, 1000]
        );
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
