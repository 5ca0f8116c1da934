//! What to measure in the time that there is, and which of it to recommend.

use ds_io::EngineKind;

/// How often each is to be measured; odd, so that there is a middle one.
pub(super) const ROUNDS: usize = 5;
/// How far below the fastest a setting may be that is recommended: what the same disk gives twice
/// differs by as much.
pub(super) const TOLERANCE: f64 = 0.05;
/// DeepSpeed's defaults, and those of `ds_io::AioConfig`.
pub(super) const DEFAULT: Shape = Shape {
    block_bytes: 1 << 20,
    depth: 8,
};

const BLOCKS: [u64; 3] = [128 << 10, 1 << 20, 8 << 20];
const DEPTHS: [u32; 3] = [8, 32, 128];
/// A sample moves as much memory at most: it is a tensor that is there all the time.
const MOST_SAMPLE_BYTES: u64 = 256 << 20;
/// A sample moves so many times what is in flight, so that not all of it is beginning and end.
const TIMES_IN_FLIGHT: u64 = 2;
const PAGE_BYTES: u64 = 4096;

/// Size and number of the requests that the kernel has at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) block_bytes: u64,
    pub(super) depth: u32,
}

impl Shape {
    pub(super) fn in_flight_bytes(self) -> u64 {
        self.block_bytes * u64::from(self.depth)
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) engine: EngineKind,
    pub(super) shape: Shape,
}

/// The most that a sample moves in a file of that size.
pub(super) fn most_sample_bytes(file_bytes: u64) -> u64 {
    file_bytes.min(MOST_SAMPLE_BYTES)
}

/// The settings that can be measured in `seconds`, and how much a sample of each moves, on a disk of
/// about this speed: a slow one has shorter samples, and is not asked for what they cannot show.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "an estimate, cut to what the file has"
)]
pub(super) fn plan(
    engines: &[EngineKind],
    file_bytes: u64,
    bytes_per_second: f64,
    seconds: f64,
) -> (Vec<Setting>, u64) {
    let mut shapes: Vec<Shape> = BLOCKS
        .into_iter()
        .flat_map(|block_bytes| DEPTHS.map(|depth| Shape { block_bytes, depth }))
        .collect();
    shapes.sort_by_key(|shape| shape.in_flight_bytes());
    let mut sample_bytes = most_sample_bytes(file_bytes);
    while let Some(largest) = shapes.last() {
        let samples = 2 * ROUNDS * engines.len() * shapes.len();
        let share = bytes_per_second * seconds / samples as f64;
        let needed = TIMES_IN_FLIGHT * largest.in_flight_bytes();
        let given = (share as u64).min(most_sample_bytes(file_bytes)) / PAGE_BYTES * PAGE_BYTES;
        if given >= needed || shapes.len() == 1 {
            sample_bytes = given.max(needed).min(most_sample_bytes(file_bytes));
            break;
        }
        shapes.pop();
    }
    let of_engine = |engine: &EngineKind| {
        let engine = *engine;
        let settings = shapes.iter().map(move |&shape| Setting { engine, shape });
        settings.collect::<Vec<_>>()
    };
    let settings = engines.iter().flat_map(of_engine).collect();
    (settings, sample_bytes)
}

/// A setting that was measured: reading and writing summed, as DeepSpeed's `ds_nvme_tune` judges.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) setting: Setting,
    /// Of the middle rounds.
    pub(super) speed: f64,
    /// Of each round.
    pub(super) rounds: Vec<f64>,
}

/// Which one to recommend. The engine is the one that a program gets anyway, unless another one is
/// faster by more than the tolerance, and in every round: a variable to set has to pay. The setting is
/// the one with the least memory in flight, of those that are as good as that engine's fastest.
pub(super) fn recommend(measured: &[Judged], gets: EngineKind) -> Option<usize> {
    let fastest = |of: &dyn Fn(&Judged) -> bool| {
        let some = measured.iter().filter(|judged| of(judged));
        some.max_by(|a, b| a.speed.total_cmp(&b.speed))
    };
    let any = fastest(&|_| true)?;
    let own = fastest(&|judged| judged.setting.engine == gets).unwrap_or(any);
    let mut rounds = any.rounds.iter().zip(&own.rounds);
    let pays = own.speed < (1.0 - TOLERANCE) * any.speed && rounds.all(|(any, own)| any > own);
    let best = if pays { any } else { own };
    let good = |judged: &Judged| {
        judged.setting.engine == best.setting.engine
            && judged.speed >= (1.0 - TOLERANCE) * best.speed
    };
    let good = measured
        .iter()
        .enumerate()
        .filter(|(_, judged)| good(judged));
    good.min_by_key(|(_, judged)| judged.setting.shape.in_flight_bytes())
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [EngineKind; 1] = [EngineKind::Threads];

    #[test]
    fn a_slow_disk_is_asked_for_less() {
        let (all, sample) = plan(&EngineKind::ALL, 1 << 30, 1e12, 15.0);
        assert_eq!((all.len(), sample), (3 * 7, 256 << 20));
        let (few, short) = plan(&EngineKind::ALL, 1 << 30, 0.2e9, 15.0);
        assert!(few.len() < all.len() && short < sample);
        for (settings, sample) in [(all, sample), (few, short)] {
            assert!(settings.iter().any(|setting| setting.shape == DEFAULT));
            let most = settings.iter().map(|s| s.shape.in_flight_bytes()).max();
            assert!(most <= Some(sample / TIMES_IN_FLIGHT));
        }
    }

    #[test]
    fn something_is_measured_whatever_there_is() {
        for (file, speed, seconds) in [
            (2 << 20, 1e9, 1.0),
            (1 << 30, 1.0, 1.0),
            (64 << 20, 0.0, 0.0),
        ] {
            let (settings, sample) = plan(&ONE, file, speed, seconds);
            assert!(
                !settings.is_empty() && sample > 0 && sample <= file,
                "{sample}"
            );
        }
    }

    #[test]
    fn what_is_as_fast_and_costs_less_is_recommended() {
        let of = |engine, block_bytes, rounds: [f64; 3]| Judged {
            setting: Setting {
                engine,
                shape: Shape {
                    block_bytes,
                    depth: 8,
                },
            },
            speed: rounds[1],
            rounds: rounds.into(),
        };
        let (uring, aio) = (EngineKind::IoUring, EngineKind::Aio);
        let large = of(uring, 8 << 20, [1.9, 2.0, 2.1]);
        let small = of(uring, 1 << 20, [1.8, 1.91, 2.0]);
        let slow = of(uring, 128 << 10, [1.4, 1.5, 1.6]);
        let other = of(aio, 128 << 10, [2.0, 2.05, 2.2]);
        let all = [slow.clone(), large, small, other.clone()];
        assert_eq!(recommend(&all, uring), Some(2));
        // Another engine has to be faster, and always.
        assert_eq!(recommend(&[slow.clone(), other.clone()], uring), Some(1));
        let moody = of(aio, 128 << 10, [1.3, 2.05, 2.2]);
        assert_eq!(recommend(&[slow.clone(), moody], uring), Some(0));
        // The one that a program gets could not be measured.
        assert_eq!(recommend(&[slow, other], EngineKind::Threads), Some(1));
        assert_eq!(recommend(&[], uring), None);
    }
}
