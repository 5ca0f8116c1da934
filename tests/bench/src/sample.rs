//! Rounds, their median and spread, and the row of a table that they become.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use crate::Result;

/// Rounds of every figure that is not over in milliseconds.
pub(crate) const ROUNDS: usize = 9;
/// Between two sides: `OpenMP`'s workers spin for about a millisecond after a loop, and would take the
/// next side's cores.
const SETTLE: Duration = Duration::from_millis(5);

/// One side of a comparison: does its work once and gives seconds.
pub(crate) type Side<'a> = Box<dyn FnMut() -> Result<f64> + 'a>;

/// Median, least and most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, min, max] = [self.median, self.min, self.max].map(digits);
        write!(f, "{median} ({min} .. {max})")
    }
}

impl Spread {
    /// The median, to three digits.
    pub(crate) fn middle(&self) -> String {
        digits(self.median)
    }

    pub(crate) fn median(&self) -> f64 {
        self.median
    }

    /// Of at least one value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let middle = sorted.len() / 2;
        Self {
            median: if sorted.len() % 2 == 1 {
                at(middle)
            } else {
                f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
            },
            min: at(0),
            max: at(sorted.len().wrapping_sub(1)),
        }
    }
}

/// [`alternate_for`] the usual rounds.
pub(crate) fn alternate(sides: &mut [Side<'_>]) -> Result<Vec<Vec<f64>>> {
    alternate_for(ROUNDS, sides)
}

/// Seconds of each side in each round: `[side][round]`. The sides take turns; a first round is not
/// counted.
pub(crate) fn alternate_for(rounds: usize, sides: &mut [Side<'_>]) -> Result<Vec<Vec<f64>>> {
    let mut seconds = vec![Vec::with_capacity(rounds); sides.len()];
    for round in 0..=rounds {
        for (side, seconds) in sides.iter_mut().zip(&mut seconds) {
            thread::sleep(SETTLE);
            let took = side()?;
            if round > 0 {
                seconds.push(took);
            }
        }
    }
    Ok(seconds)
}

/// Mean seconds of a call over `calls`, after one that is not counted.
pub(crate) fn mean_seconds(calls: u32, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    call()?;
    let start = Instant::now();
    for _ in 0..calls {
        call()?;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(calls))
}

/// `f(a, b)` of two sides, round by round.
pub(crate) fn paired(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> Spread {
    Spread::of(a.iter().zip(b).map(|(&a, &b)| f(a, b)))
}

/// The head of the table that [`print()`] writes rows of.
pub(crate) fn print_head() {
    println!("\n| figure | median | min .. max | unit | limit | formula |");
    println!("|---|---|---|---|---|---|");
}

/// One row.
pub(crate) fn print(figure: &str, spread: Spread, unit: &str, limit: &str, formula: &str) {
    println!(
        "| {figure} | {} | {} .. {} | {unit} | {limit} | {formula} |",
        digits(spread.median),
        digits(spread.min),
        digits(spread.max)
    );
}

/// Three digits, without an exponent.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_depend_on_the_order() {
        let odd = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!([odd.min, odd.median, odd.max], [1.0, 2.0, 3.0]);
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]).median, 2.5);
    }

    #[test]
    fn the_first_round_is_not_counted_and_sides_take_turns() {
        let order = std::cell::RefCell::new(Vec::new());
        let side = |name: u8| -> Side<'_> {
            let order = &order;
            Box::new(move || {
                order.borrow_mut().push(name);
                Ok(f64::from(name))
            })
        };
        let seconds = alternate(&mut [side(1), side(2)]).map_err(|e| e.to_string());
        assert_eq!(seconds, Ok(vec![vec![1.0; ROUNDS], vec![2.0; ROUNDS]]));
        assert_eq!(*order.borrow(), [1, 2].repeat(ROUNDS + 1));
    }
}
