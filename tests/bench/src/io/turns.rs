//! Turns of contenders on one disk: what each cost, round by round, and the rows that it becomes.
//!
//! The speed of a virtual disk drifts by a factor of two. So a ratio is of turns of one round, and the
//! round begins with another contender each time.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    Result,
    sample::{Spread, paired, print},
};

/// Between two turns: what a turn before has left with the kernel goes quiet.
const SETTLE: Duration = Duration::from_millis(50);

/// What a turn took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) seconds: f64,
    /// User and system, of all threads.
    pub(super) cpu_seconds: f64,
}

impl Cost {
    /// Of `work` in this process.
    pub(super) fn of(work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let (start, cpu_before) = (Instant::now(), cpu());
        work()?;
        Ok(Self {
            seconds: start.elapsed().as_secs_f64(),
            cpu_seconds: (cpu().saturating_sub(cpu_before)).as_secs_f64(),
        })
    }
}

/// What this process has taken of the processor so far: as `getrusage`, without its rounding.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

/// One that takes turns.
pub(super) struct Contender<'a, T = Cost> {
    name: String,
    turn: Box<dyn FnMut() -> Result<T> + 'a>,
}

impl<'a, T> Contender<'a, T> {
    pub(super) fn new(name: impl Into<String>, turn: impl FnMut() -> Result<T> + 'a) -> Self {
        Self {
            name: name.into(),
            turn: Box::new(turn),
        }
    }
}

/// What one had in each round.
pub(super) struct Turns<T = Cost> {
    name: String,
    pub(super) rounds: Vec<T>,
}

/// Turns of all, `rounds` of them after one that is not counted.
pub(super) fn alternate<T>(
    rounds: usize,
    mut contenders: Vec<Contender<'_, T>>,
) -> Result<Vec<Turns<T>>> {
    let mut costs: Vec<Vec<T>> = contenders.iter().map(|_| Vec::new()).collect();
    let count = contenders.len();
    for round in 0..=rounds {
        for turn in 0..count {
            let index = (round + turn) % count;
            thread::sleep(SETTLE);
            let contender = &mut contenders[index];
            let cost = (contender.turn)().map_err(|e| format!("{}: {e}", contender.name))?;
            if round > 0 {
                costs[index].push(cost);
            }
        }
    }
    let of = |(contender, rounds): (Contender<'_, T>, _)| Turns {
        name: contender.name,
        rounds,
    };
    Ok(contenders.into_iter().zip(costs).map(of).collect())
}

/// Least ratio of speeds, and most of CPU seconds, that the first contender is to have to the others.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) speed: f64,
    pub(super) cpu: Option<f64>,
}

/// Rows of turns that each moved `amount`: the speed of each contender, and the first one's ratio to
/// those of other programs, whose names do not begin with `ours`.
pub(super) fn rows(case: &str, amount: f64, unit: &str, turns: &[Turns], limits: Option<Limits>) {
    for side in turns {
        let cpu = Spread::of(side.rounds.iter().map(|cost| cost.cpu_seconds));
        print(
            &format!("{case}: {}", side.name),
            speed(side, amount),
            unit,
            "",
            &format!("{} rounds; CPU {cpu} s a turn", side.rounds.len()),
        );
    }
    let Some((first, others)) = turns.split_first() else {
        return;
    };
    for other in others
        .iter()
        .filter(|other| !other.name.starts_with("ours"))
    {
        let ratio = of_both(other, first, |cost| cost.seconds);
        print(
            &format!("{case}: {} to {}", first.name, other.name),
            ratio.spread,
            "x",
            &limits.map_or(String::new(), |limits| format!(">= {}", limits.speed)),
            &format!("speed by speed; of the medians {}", ratio.of_medians),
        );
        if let Some(limit) = limits.and_then(|limits| limits.cpu) {
            let ratio = of_both(first, other, |cost| cost.cpu_seconds);
            print(
                &format!("{case}: {} to {}, CPU", first.name, other.name),
                ratio.spread,
                "x",
                &format!("<= {limit}"),
                &format!("s by s; of the medians {}", ratio.of_medians),
            );
        }
    }
}

fn speed(turns: &Turns, amount: f64) -> Spread {
    Spread::of(turns.rounds.iter().map(|cost| amount / cost.seconds))
}

/// A ratio of two contenders.
pub(super) struct Ratio {
    /// Of the rounds' own ratios.
    pub(super) spread: Spread,
    /// Of one's median to the other's, as text.
    pub(super) of_medians: String,
}

/// `of(a) / of(b)`.
pub(super) fn of_both<T>(a: &Turns<T>, b: &Turns<T>, of: impl Fn(&T) -> f64) -> Ratio {
    let [a, b] = [a, b].map(|turns| turns.rounds.iter().map(&of).collect::<Vec<_>>());
    let medians = [&a, &b].map(|values| Spread::of(values.iter().copied()).median());
    Ratio {
        spread: paired(&a, &b, |a, b| a / b),
        of_medians: Spread::of([medians[0] / medians[1]]).middle(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_the_next_one_and_the_first_is_not_counted() {
        let order = std::cell::RefCell::new(String::new());
        let contender = |name: char| {
            let order = &order;
            Contender::new(name, move || {
                order.borrow_mut().push(name);
                Ok(name)
            })
        };
        let turns = alternate(2, vec![contender('a'), contender('b'), contender('c')]).unwrap();
        assert_eq!(*order.borrow(), "abcbcacab");
        let rounds: Vec<_> = turns.iter().map(|turns| &turns.rounds[..]).collect();
        assert_eq!(rounds, [['a'; 2], ['b'; 2], ['c'; 2]]);
    }

    #[test]
    fn a_ratio_is_of_the_same_round() {
        let turns = |rounds: &[f64]| Turns {
            name: String::new(),
            rounds: rounds.to_vec(),
        };
        let ratio = of_both(&turns(&[1.0, 2.0, 8.0]), &turns(&[1.0, 4.0, 2.0]), |v| *v);
        assert_eq!((ratio.spread.median(), &*ratio.of_medians), (1.0, "1.00"));
        let ratio = of_both(&turns(&[1.0, 2.0, 6.0]), &turns(&[2.0, 8.0, 1.0]), |v| *v);
        assert_eq!((ratio.spread.median(), &*ratio.of_medians), (0.5, "1.00"));
    }
}
