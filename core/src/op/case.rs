//! Cases: calls whose inputs are the same at every run, small ones to verify an op with and large
//! ones to measure it. They lie with their ops; here is what they are made of.

use std::fmt;

use ds_schema::DType;

use super::reference::{HostCall, HostTensor};
use crate::{Result, RngState, Stream, Tensor};

/// A call of an op, made when it is asked for: a large one takes hundreds of megabytes.
pub struct Case {
    op: &'static str,
    name: String,
    make: Box<Make>,
    transposed: &'static [usize],
    operations: f64,
    traffic: Option<Traffic>,
}

/// Bytes that a call has to move between a device and its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Read.
    pub read_bytes: u64,
    /// Written.
    pub written_bytes: u64,
}

impl Traffic {
    /// Both.
    pub fn bytes(self) -> u64 {
        self.read_bytes + self.written_bytes
    }
}

type Make = dyn Fn(&mut Numbers) -> Result<HostCall> + Send + Sync;

/// Which cases of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// To verify with: every dtype, odd extents, optional arguments, edges; milliseconds each.
    Small,
    /// To measure where the caches hold it: one for each dtype, tensors of 64 KiB to 1 MiB.
    Cached,
    /// To measure: one for each dtype, beyond every cache.
    Large,
}

/// Gives the cases of the ops of a folder.
pub type CasesFn = fn(Size) -> Vec<Case>;

impl Case {
    /// A case of `op`. `name` says what it has of its own, such as `f32 3x7`. `make` gives the call;
    /// what it gives for a written argument is the content before the call.
    pub fn new(
        op: &'static str,
        name: impl Into<String>,
        make: impl Fn(&mut Numbers) -> Result<HostCall> + Send + Sync + 'static,
    ) -> Self {
        Self {
            op,
            name: name.into(),
            make: Box::new(make),
            transposed: &[],
            operations: 0.0,
            traffic: None,
        }
    }

    /// The same with these arguments, by index, as transposed views: the last two dimensions lie the
    /// other way round in memory.
    #[must_use]
    pub fn transposed(mut self, arguments: &'static [usize]) -> Self {
        self.transposed = arguments;
        self
    }

    /// The same, with the arithmetic that it cannot do without: so many additions and
    /// multiplications, those of elementary functions among them, for each element of `shape`.
    /// None where it is not told.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        reason = "figures are read to three digits"
    )]
    pub fn operations(mut self, each: f64, shape: &[i64]) -> Self {
        self.operations = each * shape.iter().map(|&extent| extent as f64).product::<f64>();
        self
    }

    /// The same, with what it has to move where that is not each input and each output once, as
    /// when rows are gathered.
    #[must_use]
    pub fn traffic(mut self, traffic: Traffic) -> Self {
        self.traffic = Some(traffic);
        self
    }

    /// The arithmetic that was told.
    pub fn operation_count(&self) -> f64 {
        self.operations
    }

    /// What was told that it has to move.
    pub(super) fn told_traffic(&self) -> Option<Traffic> {
        self.traffic
    }

    /// The op's name.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// What tells it from the op's other cases.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The call; equal at every run.
    ///
    /// # Errors
    /// When the case asks for numbers of a dtype that no float converts to.
    pub fn call(&self) -> Result<HostCall> {
        (self.make)(&mut Numbers::new(1))
    }

    /// Whether argument `index` is a transposed view.
    pub(super) fn is_transposed(&self, index: usize) -> bool {
        self.transposed.contains(&index)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({} {})", self.op, self.name)
    }
}

/// Numbers around zero of about unit scale, the same for equal seeds: sums of uniforms, which is
/// close enough to normal and has no tails that would overflow half types.
#[derive(Debug)]
pub struct Numbers {
    state: RngState,
    next: u64,
}

impl Numbers {
    /// Elements after which a tensor's numbers come again: large ones are made fast.
    const PERIOD: usize = 1 << 16;

    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self {
            state: RngState { seed, offset: 0 },
            next: 0,
        }
    }

    /// The next number.
    pub fn draw(&mut self) -> f64 {
        let uniform = |i| f64::from(self.state.uniform(self.next + i));
        let sum = uniform(0) + uniform(1) + uniform(2) + uniform(3) - 2.0;
        self.next += 4;
        // Four uniforms have variance 1/3.
        sum * 3.0_f64.sqrt()
    }

    /// A tensor of such numbers.
    ///
    /// # Errors
    /// For a dtype that no float converts to.
    pub fn host(&mut self, dtype: DType, shape: &[i64]) -> Result<HostTensor> {
        self.host_of(dtype, shape, |number| number)
    }

    /// A tensor of what `of` makes of such numbers.
    ///
    /// # Errors
    /// For a dtype that no float converts to.
    pub fn host_of(
        &mut self,
        dtype: DType,
        shape: &[i64],
        of: impl Fn(f64) -> f64,
    ) -> Result<HostTensor> {
        let count = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
        let period = count.min(Self::PERIOD);
        let values: Vec<f64> = (0..period).map(|_| of(self.draw())).collect();
        let mut host = HostTensor::from_f64(dtype, shape, &values)?;
        if count > period {
            host.bytes = host.bytes.repeat(count.div_ceil(period));
            host.bytes.truncate(count * dtype.size_bytes());
        }
        Ok(host)
    }

    /// A tensor of integers from 0 up to `end`, evenly drawn: indices, classes, bytes.
    ///
    /// # Errors
    /// When `end` is more than the dtype holds.
    pub fn integers(&mut self, dtype: DType, shape: &[i64], end: i64) -> Result<HostTensor> {
        let count = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
        let below = |word: u32| (u64::from(word) * end.unsigned_abs()) >> 32;
        #[allow(clippy::cast_precision_loss, reason = "below 2^32")]
        let values: Vec<f64> = (0..count)
            .map(|_| {
                self.next += 1;
                below(self.state.word(self.next - 1)) as f64
            })
            .collect();
        HostTensor::from_f64(dtype, shape, &values)
    }

    /// A contiguous tensor of such numbers on a device.
    ///
    /// # Errors
    /// When the device has no memory.
    pub fn tensor(&mut self, stream: &Stream, dtype: DType, shape: &[i64]) -> Result<Tensor> {
        let host = self.host(dtype, shape)?;
        Tensor::from_bytes(stream, dtype, shape, &host.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_their_seed_and_come_again_in_large_tensors() {
        let host = |seed, n| Numbers::new(seed).host(DType::F32, &[n]).unwrap();
        assert_eq!(host(1, 100).bytes, host(1, 100).bytes);
        assert_ne!(host(1, 100).bytes, host(2, 100).bytes);
        let period = i64::try_from(Numbers::PERIOD).unwrap();
        let long = host(1, 2 * period + 3).to_f64().unwrap();
        assert_eq!(long.len(), 2 * Numbers::PERIOD + 3);
        assert_eq!(long[..3], long[2 * Numbers::PERIOD..]);
    }
}
