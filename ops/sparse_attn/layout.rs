//! Which blocks of a sequence see which: the layouts of block-sparse attention, as plain numbers.

use std::ops::Range;

use ds_core::{DType, Error, ErrorKind, Result, Stream, Tensor};

/// Whether each block of queries sees each block of keys, for each head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    heads: usize,
    blocks: usize,
    /// 1 where it does, in row-major order of head, block of queries and block of keys.
    cells: Vec<u8>,
}

impl Layout {
    /// 1 for each block that is seen, in row-major order of head, block of queries and block of keys.
    pub fn cells(&self) -> &[u8] {
        &self.cells
    }

    /// Blocks of a sequence.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// The part of all pairs of blocks that is seen.
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub fn density(&self) -> f64 {
        let seen = self.cells.iter().filter(|cell| **cell != 0).count();
        seen as f64 / self.cells.len().max(1) as f64
    }

    /// As [`sparse_attn`](super::sparse_attn) takes it: `[H, M, M]` of u8.
    ///
    /// # Errors
    /// What [`Tensor::from_bytes`] says.
    pub fn tensor(&self, stream: &Stream) -> Result<Tensor> {
        let [heads, blocks] =
            [self.heads, self.blocks].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        Tensor::from_bytes(stream, DType::U8, &[heads, blocks, blocks], &self.cells)
    }

    fn set(&mut self, head: usize, rows: Range<usize>, columns: Range<usize>) {
        let columns = columns.start.min(self.blocks)..columns.end.min(self.blocks);
        for row in rows.start..rows.end.min(self.blocks) {
            let first = (head * self.blocks + row) * self.blocks;
            if !columns.is_empty() {
                self.cells[first + columns.start..first + columns.end].fill(1);
            }
        }
    }

    /// Clears what is above the diagonal.
    fn clear_future(&mut self, head: usize) {
        for row in 0..self.blocks {
            let first = (head * self.blocks + row) * self.blocks;
            self.cells[first + row + 1..first + self.blocks].fill(0);
        }
    }

    /// Windows of `blocks` on each side of the diagonal; only before it where `ahead` is not set.
    fn set_windows(&mut self, head: usize, blocks: usize, ahead: bool) {
        for row in 0..self.blocks {
            let end = if ahead { row + blocks + 1 } else { row + 1 };
            self.set(head, row..row + 1, row.saturating_sub(blocks)..end);
        }
    }
}

/// What layout heads have. Defaults are upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparsityConfig {
    /// Heads of queries.
    pub heads: usize,
    /// Tokens of a block.
    pub block: usize,
    /// Whether each head has random blocks and global patterns of its own; else all have those of the
    /// first one.
    pub different_layout_per_head: bool,
    /// Which blocks see which.
    pub sparsity: Sparsity,
}

/// Which blocks see which. Where `unidirectional`, none sees a block behind it; within the blocks on the
/// diagonal every token sees every other, but for a causal call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sparsity {
    /// All see all.
    Dense,
    /// Windows side by side, of which some blocks are seen by all (Child and others 2019, arXiv 1904.10509).
    Fixed {
        /// Blocks in a window: 4.
        local_blocks: usize,
        /// Blocks of it, from its end on, that all see: 1.
        global_blocks: usize,
        /// Whether none sees a block behind it: not.
        unidirectional: bool,
        /// Whether what all see also sees all: not.
        horizontal_global: bool,
        /// How many patterns heads take turns with, each with the global blocks before those of the
        /// last one: 1.
        global_patterns: usize,
    },
    /// Windows of several lengths, given global blocks, and random ones.
    Variable {
        /// In each row: 0.
        random_blocks: usize,
        /// Blocks in each window; the last one repeats: `[4]`.
        windows: Vec<usize>,
        /// What all see, as ranges of blocks: `[0..1]`.
        global: Vec<Range<usize>>,
        /// Whether none sees a block behind it, random ones apart: not.
        unidirectional: bool,
        /// Whether what all see also sees all: not.
        horizontal_global: bool,
        /// Of the random blocks.
        seed: u64,
    },
    /// A window around each block, first blocks that see all and are seen by all, and random ones
    /// (Zaheer and others 2020, arXiv 2007.14062).
    BigBird {
        /// In each row: 1.
        random_blocks: usize,
        /// Blocks of a window, its middle included: 3.
        window_blocks: usize,
        /// First blocks that see all and are seen by all: 1.
        global_blocks: usize,
        /// Whether none sees a block behind it: not.
        unidirectional: bool,
        /// Of the random blocks.
        seed: u64,
    },
    /// A window around each block, and blocks that see all and are seen by all (Beltagy and others 2020,
    /// arXiv 2004.05150).
    BsLongformer {
        /// Blocks of a window, its middle included: 3.
        window_blocks: usize,
        /// What sees all and is seen by all, as ranges of blocks: `[0..1]`.
        global: Vec<Range<usize>>,
        /// Whether none sees a block behind it: not.
        unidirectional: bool,
    },
    /// A window around each block.
    LocalSlidingWindow {
        /// Blocks of a window, its middle included: 3.
        window_blocks: usize,
        /// Whether none sees a block behind it; here upstream's default is that none does.
        unidirectional: bool,
    },
}

impl SparsityConfig {
    /// The layout for sequences of so many tokens.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] where `block` does not divide `tokens`, or a number of blocks is
    /// impossible.
    ///
    /// # Upstream
    /// `deepspeed/ops/sparse_attention/sparsity_config.py`, number for number, but for random blocks: those
    /// come from a seed of their own rather than from Python's global generator, and where a row of a
    /// unidirectional `BigBird` has fewer blocks than are to be drawn, all of them are taken, which upstream
    /// cannot do. Ranges that are to end at their beginning are refused, as there, and so are windows of
    /// no blocks, which there are an error of Python's.
    pub fn layout(&self, tokens: usize) -> Result<Layout> {
        if self.block == 0 || !tokens.is_multiple_of(self.block) {
            let block = self.block;
            return refuse(format!(
                "{tokens} tokens are no whole number of blocks of {block}"
            ));
        }
        let blocks = tokens / self.block;
        self.check(blocks)?;
        let mut layout = Layout {
            heads: self.heads,
            blocks,
            cells: vec![0; self.heads * blocks * blocks],
        };
        let own = if self.different_layout_per_head {
            self.heads
        } else {
            self.heads.min(1)
        };
        let mut random = Random(match self.sparsity {
            Sparsity::Variable { seed, .. } | Sparsity::BigBird { seed, .. } => seed,
            _ => 0,
        });
        for head in 0..own {
            self.sparsity.set(&mut layout, head, &mut random);
        }
        for head in own..self.heads {
            layout
                .cells
                .copy_within(0..blocks * blocks, head * blocks * blocks);
        }
        Ok(layout)
    }

    /// Refuses what is impossible in a sequence of `blocks` blocks.
    fn check(&self, blocks: usize) -> Result<()> {
        let fits = |what: &str, n: usize| {
            if n > blocks {
                refuse(format!("{n} {what} blocks of a sequence that has {blocks}"))
            } else {
                Ok(())
            }
        };
        let only_both_ways = |unidirectional: bool, horizontal: bool| {
            if unidirectional && horizontal {
                refuse("horizontal global blocks would see what is behind them".to_owned())
            } else {
                Ok(())
            }
        };
        let ranges = |of: &[Range<usize>]| match of.iter().find(|range| range.is_empty()) {
            Some(range) => refuse(format!("global blocks {range:?} are none")),
            None => Ok(()),
        };
        match &self.sparsity {
            Sparsity::Dense => Ok(()),
            Sparsity::Fixed {
                local_blocks,
                global_blocks,
                unidirectional,
                horizontal_global,
                global_patterns,
            } => {
                only_both_ways(*unidirectional, *horizontal_global)?;
                if *global_blocks == 0
                    || *local_blocks == 0
                    || !local_blocks.is_multiple_of(*global_blocks)
                {
                    return refuse(format!(
                        "{global_blocks} global blocks do not divide a window of {local_blocks}"
                    ));
                }
                let most = local_blocks / global_blocks;
                if *global_patterns == 0 || *global_patterns > most {
                    return refuse(format!(
                        "{global_patterns} global patterns; a window of {local_blocks} has from 1 to {most}"
                    ));
                }
                if *global_patterns > 1 && !self.different_layout_per_head {
                    return refuse(format!(
                        "{global_patterns} global patterns, but one layout for all heads: \
                         set different_layout_per_head"
                    ));
                }
                Ok(())
            }
            Sparsity::Variable {
                random_blocks,
                windows,
                global,
                unidirectional,
                horizontal_global,
                ..
            } => {
                only_both_ways(*unidirectional, *horizontal_global)?;
                ranges(global)?;
                if windows.last().is_none_or(|last| *last == 0) {
                    return refuse("the last window, which repeats, has no blocks".to_owned());
                }
                fits("random", *random_blocks)
            }
            Sparsity::BigBird {
                random_blocks,
                window_blocks,
                global_blocks,
                ..
            } => {
                fits("random", *random_blocks)?;
                fits("window", *window_blocks)?;
                fits("global", *global_blocks)
            }
            Sparsity::BsLongformer {
                window_blocks,
                global,
                ..
            } => {
                ranges(global)?;
                fits("window", *window_blocks)
            }
            Sparsity::LocalSlidingWindow { window_blocks, .. } => fits("window", *window_blocks),
        }
    }
}

impl Sparsity {
    fn set(&self, layout: &mut Layout, head: usize, random: &mut Random) {
        let all = 0..layout.blocks;
        match self {
            Self::Dense => layout.set(head, all.clone(), all),
            Self::Fixed {
                local_blocks,
                global_blocks,
                unidirectional,
                horizontal_global,
                global_patterns,
            } => {
                set_window_after_window(layout, head, &[*local_blocks], *unidirectional);
                let before = (1 + head % global_patterns) * global_blocks;
                for global in fixed_globals(layout.blocks, *local_blocks, *global_blocks, before) {
                    set_global(layout, head, global, *unidirectional, *horizontal_global);
                }
            }
            Self::Variable {
                random_blocks,
                windows,
                global,
                unidirectional,
                horizontal_global,
                ..
            } => {
                for row in all {
                    set_random(layout, head, row, layout.blocks, *random_blocks, random);
                }
                set_window_after_window(layout, head, windows, *unidirectional);
                for global in global {
                    set_global(
                        layout,
                        head,
                        global.clone(),
                        *unidirectional,
                        *horizontal_global,
                    );
                }
            }
            Self::BigBird {
                random_blocks,
                window_blocks,
                global_blocks,
                unidirectional,
                ..
            } => {
                for row in all {
                    let of = if *unidirectional {
                        row + 1
                    } else {
                        layout.blocks
                    };
                    set_random(layout, head, row, of, *random_blocks, random);
                }
                layout.set_windows(head, window_blocks / 2, true);
                set_global(layout, head, 0..*global_blocks, false, true);
                if *unidirectional {
                    layout.clear_future(head);
                }
            }
            Self::BsLongformer {
                window_blocks,
                global,
                unidirectional,
            } => {
                layout.set_windows(head, window_blocks / 2, true);
                for global in global {
                    set_global(layout, head, global.clone(), false, true);
                }
                if *unidirectional {
                    layout.clear_future(head);
                }
            }
            Self::LocalSlidingWindow {
                window_blocks,
                unidirectional,
            } => layout.set_windows(head, window_blocks / 2, !unidirectional),
        }
    }
}

/// Windows side by side, within which blocks see each other; the last length repeats.
fn set_window_after_window(
    layout: &mut Layout,
    head: usize,
    windows: &[usize],
    unidirectional: bool,
) {
    let last = windows.last().copied().unwrap_or(layout.blocks).max(1);
    let mut lengths = windows.iter().copied().chain(std::iter::repeat(last));
    let mut start = 0;
    while start < layout.blocks {
        let end = start + lengths.next().unwrap_or(last);
        for row in start..end.min(layout.blocks) {
            let seen = if unidirectional { row + 1 } else { end };
            layout.set(head, row..row + 1, start..seen);
        }
        start = end;
    }
}

/// The global blocks of each window, which begin `before` its end; a last window that is too short for
/// them has its last blocks.
fn fixed_globals(blocks: usize, local: usize, global: usize, before: usize) -> Vec<Range<usize>> {
    let first = local - before;
    let whole = blocks - blocks % local;
    let starts = (0..whole / local).map(|window| window * local + first);
    let mut globals: Vec<_> = starts.map(|start| start..start + global).collect();
    if whole < blocks {
        let start = match (blocks.checked_sub(global), blocks < global) {
            (Some(last), _) => last.min(whole + first),
            // Upstream's start is negative here, and Python counts it from the end.
            (None, _) => (2 * blocks).saturating_sub(global),
        };
        globals.push(start..(start + global).min(blocks));
    }
    globals
}

/// Lets all, or those from the first on, see `global`, and where `horizontal` these see all.
fn set_global(
    layout: &mut Layout,
    head: usize,
    global: Range<usize>,
    only_behind: bool,
    horizontal: bool,
) {
    let all = 0..layout.blocks;
    if horizontal {
        layout.set(head, global.clone(), all.clone());
    }
    let first = if only_behind { global.start } else { 0 };
    layout.set(head, first..all.end, global);
}

/// Lets a row see `n` different blocks of the first `of`, or all of them.
fn set_random(
    layout: &mut Layout,
    head: usize,
    row: usize,
    of: usize,
    n: usize,
    random: &mut Random,
) {
    let mut left: Vec<usize> = (0..of).collect();
    for _ in 0..n.min(of) {
        let column = left.swap_remove(random.below(left.len()));
        layout.set(head, row..row + 1, column..column + 1);
    }
}

/// `SplitMix64` (Steele and others 2014, doi 10.1145/2660193.2660195).
struct Random(u64);

impl Random {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the result is below a usize"
    )]
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        ((u128::from(z) * n as u128) >> 64) as usize
    }
}

fn refuse<T>(text: String) -> Result<T> {
    Err(Error::new(
        ErrorKind::InvalidArgument,
        "sparse_attn layout",
        text,
    ))
}
