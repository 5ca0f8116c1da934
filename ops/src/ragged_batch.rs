//! What a scheduler of ragged inference keeps on the host, in integers alone: which blocks of a cache are
//! free, the tensors that tell of a batch, and attention's pieces of work. The ops that read them on the
//! device are those of [`crate::ragged`].

use ds_core::{DType, Error, ErrorKind, Result, Stream, Tensor};

/// Gives blocks of a cache to sequences and takes them back: the last one freed is the first given.
///
/// # Upstream
/// `inference/v2/ragged/blocked_allocator.py`, with the same order. A block told twice to one call of
/// `free` makes a ring of the list there; here it is refused.
#[derive(Clone, Debug)]
pub struct BlockedAllocator {
    /// The next one is the last.
    free: Vec<u32>,
    is_free: Vec<bool>,
}

impl BlockedAllocator {
    /// Of so many blocks, all free.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for no blocks.
    pub fn new(blocks: u32) -> Result<Self> {
        if blocks == 0 {
            return Err(invalid(
                "make a blocked allocator",
                "a cache has a block at least".into(),
            ));
        }
        Ok(Self {
            free: (0..blocks).rev().collect(),
            is_free: vec![true; blocks as usize],
        })
    }

    /// So many blocks; all of them or none.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when fewer are free.
    pub fn allocate(&mut self, blocks: usize) -> Result<Vec<u32>> {
        let free = self.free.len();
        let Some(left) = free.checked_sub(blocks) else {
            let text = format!("{blocks} blocks are asked for, and {free} are free");
            return Err(invalid("allocate blocks", text));
        };
        let given: Vec<u32> = self.free.drain(left..).rev().collect();
        for &block in &given {
            self.is_free[block as usize] = false;
        }
        Ok(given)
    }

    /// Takes blocks back, or none where one of them cannot be.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a block that is none, is free already, or is told twice.
    pub fn free(&mut self, blocks: &[u32]) -> Result<()> {
        let mut after = self.is_free.clone();
        for &block in blocks {
            let why = match after.get_mut(block as usize) {
                None => format!("there is no block {block} of {}", self.is_free.len()),
                Some(true) => format!("block {block} is free already"),
                Some(is_free) => {
                    *is_free = true;
                    continue;
                }
            };
            return Err(invalid("free blocks", why));
        }
        self.is_free = after;
        self.free.extend(blocks);
        Ok(())
    }

    /// Blocks that are free.
    pub fn free_blocks(&self) -> usize {
        self.free.len()
    }
}

/// A sequence of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflightSequence {
    /// Its first token in the batch.
    pub start: i32,
    /// Its tokens in the batch.
    pub tokens: i32,
    /// Those before them.
    pub seen: i32,
}

/// A batch as it grows: the tokens of sequences behind one another.
///
/// # Upstream
/// `inference/v2/ragged/ragged_wrapper.py`.
#[derive(Clone, Debug)]
pub struct RaggedBatch {
    max_tokens: usize,
    max_sequences: usize,
    ids: Vec<i64>,
    token_to_sequence: Vec<i32>,
    sequences: Vec<InflightSequence>,
    blocks: Vec<Vec<i32>>,
}

/// A batch on a device.
#[derive(Clone, Debug)]
pub struct DeviceBatch {
    /// `[S]` of i64; -1 for padding.
    pub ids: Tensor,
    /// `[S]` of i32: whose each token is; -1 for padding.
    pub token_to_sequence: Tensor,
    /// `[N + 1]` of i32, as [`crate::ragged::Sequences`] has them, and so are these.
    pub starts: Tensor,
    /// `[N]` of i32.
    pub seen: Tensor,
    /// `[N, P]` of i32.
    pub blocks: Tensor,
}

impl RaggedBatch {
    /// An empty one, for at most so many tokens and sequences.
    pub fn new(max_tokens: usize, max_sequences: usize) -> Self {
        Self {
            max_tokens,
            max_sequences,
            ids: Vec::new(),
            token_to_sequence: Vec::new(),
            sequences: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Adds tokens of a sequence that has seen `seen` before and has these blocks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the batch has no room, or numbers are beyond i32.
    pub fn insert(&mut self, ids: &[i64], seen: usize, blocks: &[i32]) -> Result<()> {
        const OP: &str = "insert a sequence into a batch";
        if self.sequences.len() == self.max_sequences {
            let text = format!("it has all of its {} sequences", self.max_sequences);
            return Err(invalid(OP, text));
        }
        let (has, more) = (self.ids.len(), ids.len());
        if has + more > self.max_tokens {
            let text = format!(
                "it has {has} tokens of {}, and {more} more are none",
                self.max_tokens
            );
            return Err(invalid(OP, text));
        }
        let number = |of: usize| {
            i32::try_from(of).map_err(|_| invalid(OP, format!("{of} tokens are more than i32 has")))
        };
        let sequence = InflightSequence {
            start: number(has)?,
            tokens: number(more)?,
            seen: number(seen)?,
        };
        number(has + more)?;
        let index = number(self.sequences.len())?;
        self.ids.extend(ids);
        self.token_to_sequence.resize(has + more, index);
        self.sequences.push(sequence);
        self.blocks.push(blocks.to_vec());
        Ok(())
    }

    /// Empties it.
    pub fn clear(&mut self) {
        *self = Self::new(self.max_tokens, self.max_sequences);
    }

    /// Its sequences.
    pub fn sequences(&self) -> &[InflightSequence] {
        &self.sequences
    }

    /// The ids of its tokens, with `padding` up to [`padded`] of them.
    pub fn ids(&self, padding: bool) -> Vec<i64> {
        self.with_padding(&self.ids, -1, padding)
    }

    /// The sequence of each token, likewise.
    pub fn token_to_sequence(&self, padding: bool) -> Vec<i32> {
        self.with_padding(&self.token_to_sequence, -1, padding)
    }

    /// Where each sequence starts, and the last one ends.
    pub fn starts(&self) -> Vec<i32> {
        let ends = self.sequences.iter().map(|s| s.start + s.tokens);
        std::iter::once(0).chain(ends).collect()
    }

    fn with_padding<T: Copy>(&self, of: &[T], none: T, padding: bool) -> Vec<T> {
        let mut of = of.to_vec();
        if padding {
            of.resize(padded(self.ids.len()), none);
        }
        of
    }

    /// Its tensors. Sequences with fewer blocks than the most have -1 behind them.
    ///
    /// # Errors
    /// When the device has no memory.
    pub fn to_device(&self, stream: &Stream, padding: bool) -> Result<DeviceBatch> {
        let most = self.blocks.iter().map(Vec::len).max().unwrap_or(0);
        let row = |row: &Vec<i32>| {
            let behind = std::iter::repeat_n(-1, most - row.len());
            row.iter().copied().chain(behind).collect::<Vec<_>>()
        };
        let table: Vec<i32> = self.blocks.iter().flat_map(row).collect();
        let numbers = |shape: &[usize], values: &[i32]| {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
            Tensor::from_bytes(stream, DType::I32, &extents(shape), &bytes)
        };
        let (ids, sequences) = (self.ids(padding), self.sequences.len());
        let seen: Vec<i32> = self.sequences.iter().map(|s| s.seen).collect();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_ne_bytes()).collect();
        Ok(DeviceBatch {
            ids: Tensor::from_bytes(stream, DType::I64, &extents(&[ids.len()]), &bytes)?,
            token_to_sequence: numbers(&[ids.len()], &self.token_to_sequence(padding))?,
            starts: numbers(&[sequences + 1], &self.starts())?,
            seen: numbers(&[sequences], &seen)?,
            blocks: numbers(&[sequences, most], &table)?,
        })
    }
}

fn extents(shape: &[usize]) -> Vec<i64> {
    let extent = |&of: &usize| i64::try_from(of).unwrap_or(i64::MAX);
    shape.iter().map(extent).collect()
}

/// Tokens of a batch with its padding: a multiple of 64, beyond 512 of 128.
pub fn padded(tokens: usize) -> usize {
    tokens.next_multiple_of(if tokens <= 512 { 64 } else { 128 })
}

/// A piece of attention's work: queries of one sequence, and the blocks that hold what they see.
///
/// # Upstream
/// `inference/v2/kernels/ragged_ops/blocked_flash/attention_atom.h`, where the sequence is a pointer to its
/// blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionAtom {
    /// Its number in the batch.
    pub sequence: usize,
    /// The first query in the batch, and how many.
    pub q_start: i32,
    /// How many.
    pub q_len: i32,
    /// Blocks with keys that some query sees.
    pub kv_blocks: i32,
    /// Keys in them.
    pub total_extent: i32,
    /// The first query in its sequence.
    pub global_q: i32,
}

/// The atoms of at most `q_block` queries, for blocks of `kv_block` keys.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for a block of nothing, or a sequence that is longer than i32 has.
///
/// # Upstream
/// `inference/v2/kernels/ragged_ops/atom_builder`, which writes beyond the end of a buffer that is too
/// small, and divides by whatever it is given.
pub fn build_atoms(
    sequences: &[InflightSequence],
    q_block: i32,
    kv_block: i32,
) -> Result<Vec<AttentionAtom>> {
    const OP: &str = "build atoms";
    if q_block < 1 || kv_block < 1 {
        let text = format!("blocks of {q_block} queries and {kv_block} keys are none");
        return Err(invalid(OP, text));
    }
    let mut atoms = Vec::new();
    for (index, of) in sequences.iter().enumerate() {
        if of.seen.checked_add(of.tokens).is_none() {
            return Err(invalid(
                OP,
                format!("sequence {index} is longer than i32 has"),
            ));
        }
        let mut done = 0;
        while done < of.tokens {
            let q_len = q_block.min(of.tokens - done);
            let total_extent = of.seen + done + q_len;
            atoms.push(AttentionAtom {
                sequence: index,
                q_start: of.start + done,
                q_len,
                kv_blocks: (total_extent - 1) / kv_block + 1,
                total_extent,
                global_q: of.seen + done,
            });
            done += q_len;
        }
    }
    Ok(atoms)
}

fn invalid(op: &'static str, text: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, op, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// Upstream's own answers to the same calls, `blocked_allocator.py` of deepspeed 0.19.8.
    #[test]
    fn blocks_come_in_upstream_s_order() {
        let mut blocks = BlockedAllocator::new(8).unwrap();
        assert_eq!(blocks.allocate(5).unwrap(), [0, 1, 2, 3, 4]);
        blocks.free(&[1, 3]).unwrap();
        assert_eq!(blocks.free_blocks(), 5);
        assert_eq!(blocks.allocate(3).unwrap(), [3, 1, 5]);
        blocks.free(&[0]).unwrap();
        blocks.free(&[5, 2, 4]).unwrap();
        assert_eq!(blocks.allocate(6).unwrap(), [4, 2, 5, 0, 6, 7]);
        assert_eq!(blocks.free_blocks(), 0);
        assert!(blocks.allocate(0).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_given_or_freed_changes_nothing() {
        let mut blocks = BlockedAllocator::new(4).unwrap();
        let told = |error: Error| error.to_string();
        let none = told(BlockedAllocator::new(0).unwrap_err());
        assert_eq!(
            none,
            "make a blocked allocator: a cache has a block at least"
        );
        assert_eq!(
            told(blocks.allocate(5).unwrap_err()),
            "allocate blocks: 5 blocks are asked for, and 4 are free"
        );
        assert_eq!(blocks.allocate(3).unwrap(), [0, 1, 2]);
        for (wrong, why) in [
            (&[0, 4][..], "there is no block 4 of 4"),
            (&[0, 3], "block 3 is free already"),
            (&[0, 1, 0], "block 0 is free already"),
        ] {
            let error = told(blocks.free(wrong).unwrap_err());
            assert_eq!(error, format!("free blocks: {why}"));
            assert_eq!(blocks.free_blocks(), 1);
        }
        assert_eq!(blocks.allocate(1).unwrap(), [3]);
    }

    fn batch() -> RaggedBatch {
        let mut batch = RaggedBatch::new(10, 4);
        batch.insert(&[5, 6, 7, 8], 0, &[2]).unwrap();
        batch.insert(&[9], 17, &[0, 4, 1]).unwrap();
        batch.insert(&[1, 2, 3], 130, &[]).unwrap();
        batch
    }

    /// The example that upstream's wrapper is documented with: 4, 1 and 3 tokens.
    #[test]
    fn a_batch_tells_of_its_sequences_as_upstream_s() {
        let mut batch = batch();
        assert_eq!(batch.ids(false), [5, 6, 7, 8, 9, 1, 2, 3]);
        assert_eq!(batch.token_to_sequence(false), [0, 0, 0, 0, 1, 2, 2, 2]);
        assert_eq!(batch.starts(), [0, 4, 5, 8]);
        let fields = |s: &InflightSequence| [s.start, s.tokens, s.seen];
        let told: Vec<_> = batch.sequences().iter().map(fields).collect();
        assert_eq!(told, [[0, 4, 0], [4, 1, 17], [5, 3, 130]]);
        let (ids, of) = (batch.ids(true), batch.token_to_sequence(true));
        assert_eq!((ids.len(), of.len()), (64, 64));
        assert!(ids[8..].iter().all(|id| *id == -1) && of[8..].iter().all(|of| *of == -1));
        batch.clear();
        assert_eq!(batch.starts(), [0]);
    }

    #[test]
    fn padding_is_upstream_s() {
        let known = [
            (0, 0),
            (1, 64),
            (64, 64),
            (65, 128),
            (512, 512),
            (513, 640),
            (641, 768),
        ];
        for (tokens, want) in known {
            assert_eq!(padded(tokens), want, "{tokens}");
        }
    }

    #[test]
    fn a_full_batch_takes_no_more() {
        let mut batch = batch();
        let error = batch.insert(&[1, 2, 3], 0, &[]).unwrap_err().to_string();
        assert_eq!(
            error,
            "insert a sequence into a batch: it has 8 tokens of 10, and 3 more are none"
        );
        batch.insert(&[4], 0, &[]).unwrap();
        let error = batch.insert(&[], 0, &[]).unwrap_err().to_string();
        assert_eq!(
            error,
            "insert a sequence into a batch: it has all of its 4 sequences"
        );
        assert_eq!(batch.sequences().len(), 4);
    }

    /// By hand from upstream's loop, with 64 queries and 128 keys: of 70 tokens after 100, the first atom
    /// ends at key 164, in the second block, and the second at 170; a sequence without tokens has none.
    #[test]
    fn atoms_are_upstream_s() {
        let of = |start, tokens, seen| InflightSequence {
            start,
            tokens,
            seen,
        };
        let sequences = [of(0, 70, 100), of(70, 0, 5), of(70, 1, 127), of(71, 128, 0)];
        let fields = |a: &AttentionAtom| {
            let queries = [a.q_start, a.q_len, a.kv_blocks, a.total_extent, a.global_q];
            (a.sequence, queries)
        };
        let atoms = build_atoms(&sequences, 64, 128).unwrap();
        assert_eq!(
            atoms.iter().map(fields).collect::<Vec<_>>(),
            [
                (0, [0, 64, 2, 164, 100]),
                (0, [64, 6, 2, 170, 164]),
                (2, [70, 1, 1, 128, 127]),
                (3, [71, 64, 1, 64, 0]),
                (3, [135, 64, 1, 128, 64]),
            ]
        );
        let error = build_atoms(&sequences, 64, 0).unwrap_err().to_string();
        assert_eq!(
            error,
            "build atoms: blocks of 64 queries and 0 keys are none"
        );
    }
}
