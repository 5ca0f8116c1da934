//! Random numbers that are the same on every accelerator: Philox4x32-10, a function of seed and
//! position, so that element `i` of a draw does not depend on how the draw is split among threads.
//!
//! # Source
//! Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; constants and known answers
//! from the Random123 library.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Error, ErrorKind, Result};

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;
/// Words that one counter gives.
const WORDS: u64 = 4;

/// The four words that Philox4x32-10 makes of a counter and a key.
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for _ in 0..ROUNDS {
        let [low0, high0] = wide(MULTIPLIERS[0], c[0]);
        let [low1, high1] = wide(MULTIPLIERS[1], c[2]);
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0];
        k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
    }
    c
}

/// Low and high half of the product.
fn wide(a: u32, b: u32) -> [u32; 2] {
    let product = u64::from(a) * u64::from(b);
    halves(product)
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "taking the halves apart is the point"
)]
fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// Where a generator stands: what a checkpoint keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RngState {
    /// The seed.
    pub seed: u64,
    /// Words drawn so far, a multiple of four.
    pub offset: u64,
}

impl RngState {
    /// Word `index` of a draw that starts at this state. Element `i` of a draw of 32-bit values is
    /// word `i`: lane `i % 4` of counter `offset / 4 + i / 4`, on every accelerator.
    pub fn word(self, index: u64) -> u32 {
        let position = self.offset.wrapping_add(index);
        let [low, high] = halves(position / WORDS);
        let words = philox4x32_10([low, high, 0, 0], halves(self.seed));
        words[usize::try_from(position % WORDS).unwrap_or(0)]
    }

    /// Uniform number `index` of a draw in `[0, 1)`: the upper 24 bits of its word, so that every
    /// value is exact in f32.
    #[allow(clippy::cast_precision_loss, reason = "24 bits fit f32 exactly")]
    pub fn uniform(self, index: u64) -> f32 {
        (self.word(index) >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// The state as bytes; upstream's `get_rng_state`.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.seed.to_le_bytes());
        bytes[8..].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    /// A state from its bytes; upstream's `set_rng_state`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for another length, or an offset that no draw leaves.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let refuse = |why| Error::new(ErrorKind::InvalidArgument, "set the rng state", why);
        let whole: [u8; 16] = bytes
            .try_into()
            .map_err(|_| refuse(format!("{} bytes, a state has 16", bytes.len())))?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| whole[at + index]));
        let state = Self {
            seed: word(0),
            offset: word(8),
        };
        if !state.offset.is_multiple_of(WORDS) {
            return Err(refuse(format!(
                "offset {} is no multiple of {WORDS}",
                state.offset
            )));
        }
        Ok(state)
    }
}

/// A device's generator; upstream's `default_generator`.
#[derive(Debug)]
pub struct Generator(Mutex<RngState>);

/// The seed of a generator that nobody has seeded; the number PyTorch uses.
const DEFAULT_SEED: u64 = 67_280_421_310_721;

impl Default for Generator {
    fn default() -> Self {
        Self(Mutex::new(RngState {
            seed: DEFAULT_SEED,
            offset: 0,
        }))
    }
}

impl Generator {
    /// Starts anew from `seed`; upstream's `manual_seed`.
    pub fn seed(&self, seed: u64) {
        *self.lock() = RngState { seed, offset: 0 };
    }

    /// The seed that it was started from; upstream's `initial_seed`.
    pub fn initial_seed(&self) -> u64 {
        self.lock().seed
    }

    /// Where it stands.
    pub fn state(&self) -> RngState {
        *self.lock()
    }

    /// Puts it where `state` says.
    pub fn set_state(&self, state: RngState) {
        *self.lock() = state;
    }

    /// Takes `words` words out: the state to draw them from; the generator moves behind them.
    pub fn take(&self, words: u64) -> RngState {
        let mut state = self.lock();
        let taken = *state;
        state.offset = taken.offset.wrapping_add(words.next_multiple_of(WORDS));
        taken
    }

    fn lock(&self) -> MutexGuard<'_, RngState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random123, `kat_vectors`, philox4x32 with 10 rounds.
    #[test]
    fn the_known_answers() {
        let answers = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [!0; 4],
                [!0; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, words) in answers {
            assert_eq!(philox4x32_10(counter, key), words);
        }
    }

    #[test]
    fn a_draw_in_two_parts_is_the_draw_in_one() {
        let whole = Generator::default();
        let parts = Generator::default();
        let at = whole.take(20);
        let (first, second) = (parts.take(8), parts.take(12));
        let halves = (0..8)
            .map(|i| first.word(i))
            .chain((0..12).map(|i| second.word(i)));
        assert!((0..20).map(|i| at.word(i)).eq(halves));
        assert_eq!(whole.state(), parts.state());
    }

    #[test]
    fn two_takes_never_share_a_word() {
        let generator = Generator::default();
        let (a, b) = (generator.take(3), generator.take(1));
        assert_eq!((a.offset, b.offset), (0, 4));
    }

    #[test]
    fn uniforms_lie_in_the_unit_interval_and_are_spread() {
        let state = RngState { seed: 7, offset: 0 };
        let n = 100_000_u32;
        let values: Vec<f64> = (0..n)
            .map(|i| f64::from(state.uniform(u64::from(i))))
            .collect();
        assert!(values.iter().all(|v| (0.0..1.0).contains(v)));
        let mean = values.iter().sum::<f64>() / f64::from(n);
        // Six standard errors of the mean of 1e5 uniforms.
        assert!(
            (mean - 0.5).abs() < 6.0 * (1.0 / 12.0_f64).sqrt() / f64::from(n).sqrt(),
            "{mean}"
        );
    }

    #[test]
    fn a_state_survives_its_bytes_and_a_wrong_one_is_refused() {
        let state = RngState {
            seed: 1 << 63 | 5,
            offset: 44,
        };
        assert_eq!(RngState::from_bytes(&state.to_bytes()).unwrap(), state);
        assert!(
            RngState::from_bytes(&[0; 15])
                .unwrap_err()
                .context()
                .contains("15 bytes")
        );
        let odd = RngState { seed: 0, offset: 3 };
        assert!(RngState::from_bytes(&odd.to_bytes()).is_err());
    }
}
