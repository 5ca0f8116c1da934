//! Reference implementations: plain Rust on host memory, the oracle of the tests and the floor of
//! the product. Here is how a call gets there and back; the implementations live with their ops.

use ds_schema::{Attr, DType};

use super::{Op, call::Args, minifloat::MiniFloat};
use crate::{Error, ErrorKind, Result, stream::Stream, tensor::Tensor};

/// A reference implementation: reads inputs, writes outputs.
pub type ReferenceFn = fn(&mut HostCall) -> Result<()>;

/// A call on host memory.
#[derive(Clone, Debug)]
pub struct HostCall {
    /// Arguments in schema order, inputs before outputs; a missing optional has no tensor.
    pub args: Vec<Vec<HostTensor>>,
    /// Static attributes in schema order.
    pub attributes: Vec<Attr>,
    /// Launch scalars in schema order.
    pub scalars: Vec<Attr>,
}

/// A contiguous tensor in host memory.
#[derive(Clone, Debug)]
pub struct HostTensor {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Vec<i64>,
    /// The elements' bytes in row-major order.
    pub bytes: Vec<u8>,
}

impl HostCall {
    /// The one tensor of argument `index`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when there is none: the call was not bound to its schema.
    pub fn one(&self, index: usize) -> Result<&HostTensor> {
        self.args
            .get(index)
            .and_then(|arg| arg.first())
            .ok_or_else(|| missing("argument", index))
    }

    /// The one tensor of argument `index`, to be written.
    ///
    /// # Errors
    /// As [`HostCall::one`].
    pub fn one_mut(&mut self, index: usize) -> Result<&mut HostTensor> {
        self.args
            .get_mut(index)
            .and_then(|arg| arg.first_mut())
            .ok_or_else(|| missing("argument", index))
    }

    /// Launch scalar `index` as a real number.
    ///
    /// # Errors
    /// As [`HostCall::one`].
    #[allow(clippy::cast_precision_loss, reason = "step counts are far below 2^53")]
    pub fn scalar(&self, index: usize) -> Result<f64> {
        match self.scalars.get(index) {
            Some(Attr::F64(value)) => Ok(*value),
            Some(Attr::I64(value)) => Ok(*value as f64),
            Some(Attr::Bool(value)) => Ok(f64::from(u8::from(*value))),
            None => Err(missing("launch scalar", index)),
        }
    }

    /// Launch scalar or static attribute `index` of these, as an integer.
    ///
    /// # Errors
    /// As [`HostCall::one`].
    pub fn integer(values: &[Attr], index: usize) -> Result<i64> {
        match values.get(index) {
            Some(Attr::I64(value)) => Ok(*value),
            Some(Attr::Bool(value)) => Ok(i64::from(*value)),
            _ => Err(missing("integer", index)),
        }
    }

    /// Static attribute `index` as a flag.
    ///
    /// # Errors
    /// As [`HostCall::one`].
    pub fn flag(&self, index: usize) -> Result<bool> {
        match self.attributes.get(index) {
            Some(Attr::Bool(value)) => Ok(*value),
            _ => Err(missing("static attribute", index)),
        }
    }
}

fn missing(what: &str, index: usize) -> Error {
    let text = format!("{what} {index} is missing or of another kind");
    Error::new(ErrorKind::Internal, "run a reference implementation", text)
}

impl HostTensor {
    /// A tensor of these elements, rounded once to the dtype.
    ///
    /// # Errors
    /// As [`HostTensor::set_f64`].
    pub fn from_f64(dtype: DType, shape: &[i64], values: &[f64]) -> Result<Self> {
        let mut tensor = Self {
            dtype,
            shape: shape.to_vec(),
            bytes: Vec::new(),
        };
        tensor.set_f64(values)?;
        Ok(tensor)
    }

    /// A tensor whose every bit is set, for what an op shall write: NaN in floats, so that an
    /// element that stays unwritten is no result by chance.
    pub fn unwritten(dtype: DType, shape: &[i64]) -> Self {
        let elements = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
        Self {
            dtype,
            shape: shape.to_vec(),
            bytes: vec![0xff; elements * dtype.size_bytes()],
        }
    }

    /// The elements as f64; exact for every float dtype, and for integers up to 2^53.
    ///
    /// # Errors
    /// None for the dtypes that there are; one without a reference conversion would be
    /// [`ErrorKind::Unsupported`].
    #[allow(
        clippy::cast_precision_loss,
        reason = "what is beyond is compared as bits"
    )]
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        use half::{bf16, f16};
        let b = &self.bytes;
        Ok(match self.dtype {
            DType::F32 => pod::<f32>(b).into_iter().map(f64::from).collect(),
            DType::F64 => pod::<f64>(b),
            DType::F16 => pod::<f16>(b).into_iter().map(f64::from).collect(),
            DType::BF16 => pod::<bf16>(b).into_iter().map(f64::from).collect(),
            DType::I8 => pod::<i8>(b).into_iter().map(f64::from).collect(),
            DType::U8 | DType::Bool => b.iter().copied().map(f64::from).collect(),
            DType::I16 => pod::<i16>(b).into_iter().map(f64::from).collect(),
            DType::I32 => pod::<i32>(b).into_iter().map(f64::from).collect(),
            DType::I64 => pod::<i64>(b).into_iter().map(|v| v as f64).collect(),
            DType::F8E4M3 => f8(MiniFloat::E4M3, b),
            DType::F8E5M2 => f8(MiniFloat::E5M2, b),
        })
    }

    /// The elements of an integer dtype, or of booleans.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a float dtype.
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        let b = &self.bytes;
        Ok(match self.dtype {
            DType::I8 => pod::<i8>(b).into_iter().map(i64::from).collect(),
            DType::U8 | DType::Bool => b.iter().copied().map(i64::from).collect(),
            DType::I16 => pod::<i16>(b).into_iter().map(i64::from).collect(),
            DType::I32 => pod::<i32>(b).into_iter().map(i64::from).collect(),
            DType::I64 => pod::<i64>(b),
            other => return Err(unsupported(other, "integers")),
        })
    }

    /// As many zeros as it has elements.
    pub fn zeros(&self) -> Vec<f64> {
        vec![0.0; self.bytes.len() / self.dtype.size_bytes()]
    }

    /// Replaces the elements by `values`, rounded once to the dtype: to nearest, ties to even; beyond
    /// the range infinity, and NaN in `f8e4m3`, which has none.
    /// Integers have to be whole and within the dtype: how to round to them is the op's to say.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] for a value that is no integer of the dtype.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "rounding once is what this is for"
    )]
    pub fn set_f64(&mut self, values: &[f64]) -> Result<()> {
        use half::{bf16, f16};
        self.bytes = match self.dtype {
            DType::F32 => bytes(values.iter().map(|&v| v as f32)),
            DType::F64 => bytes(values.iter().copied()),
            DType::F16 => bytes(values.iter().map(|&v| f16::from_f32(to_odd(v)))),
            DType::BF16 => bytes(values.iter().map(|&v| bf16::from_f32(to_odd(v)))),
            DType::I8 => bytes(whole::<i8>(self.dtype, values)?.into_iter()),
            DType::U8 => whole::<u8>(self.dtype, values)?,
            DType::I16 => bytes(whole::<i16>(self.dtype, values)?.into_iter()),
            DType::I32 => bytes(whole::<i32>(self.dtype, values)?.into_iter()),
            DType::I64 => bytes(whole::<i64>(self.dtype, values)?.into_iter()),
            DType::Bool => {
                let bits = whole::<u8>(self.dtype, values)?;
                if let Some(&other) = bits.iter().find(|&&bit| bit > 1) {
                    return Err(no_integer(self.dtype, f64::from(other)));
                }
                bits
            }
            DType::F8E4M3 => f8_codes(MiniFloat::E4M3, values),
            DType::F8E5M2 => f8_codes(MiniFloat::E5M2, values),
        };
        Ok(())
    }
}

/// `value` as f32, rounded so that rounding it again to a 16-bit float is as if it were rounded
/// once: where it is not exact, to the neighbour with an odd last bit, which is no tie and on the
/// right side of every one.
///
/// # Source
/// Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums: proved algorithms using
/// rounding to odd".
#[allow(clippy::cast_possible_truncation, reason = "rounding is the point")]
fn to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    if back == value || !nearest.is_finite() || nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    // The even neighbour was nearer; the odd one is the next towards the value.
    let outward = (value.abs() > back.abs()) || nearest == 0.0;
    let bits = nearest.to_bits();
    f32::from_bits(if outward { bits + 1 } else { bits - 1 }).copysign(value as f32)
}

/// The values as integers that they already are.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "a value that changes is refused"
)]
fn whole<T: TryFrom<i64>>(dtype: DType, values: &[f64]) -> Result<Vec<T>> {
    let one = |&value: &f64| {
        let integer = value as i64;
        let same = integer as f64 == value;
        let fits = same.then(|| T::try_from(integer).ok()).flatten();
        fits.ok_or_else(|| no_integer(dtype, value))
    };
    values.iter().map(one).collect()
}

fn no_integer(dtype: DType, value: f64) -> Error {
    let text = format!("{value:?} is no value of {dtype}");
    Error::new(ErrorKind::Internal, "run a reference implementation", text)
}

fn f8(format: MiniFloat, codes: &[u8]) -> Vec<f64> {
    let one = |&code: &u8| format.to_f64(u32::from(code));
    codes.iter().map(one).collect()
}

#[allow(clippy::cast_possible_truncation, reason = "codes have 8 bits")]
fn f8_codes(format: MiniFloat, values: &[f64]) -> Vec<u8> {
    values.iter().map(|&v| format.from_f64(v) as u8).collect()
}

fn pod<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    bytemuck::pod_collect_to_vec(bytes)
}

fn bytes<T: bytemuck::Pod>(values: impl Iterator<Item = T>) -> Vec<u8> {
    bytemuck::cast_slice(&values.collect::<Vec<_>>()).to_vec()
}

fn unsupported(dtype: DType, to: &str) -> Error {
    let text = format!("{dtype} has no conversion to {to} here");
    Error::new(
        ErrorKind::Unsupported,
        "run a reference implementation",
        text,
    )
}

/// Runs `op` on the host: the inputs come over, the outputs go back, in the order of `stream`.
///
/// Returns when the result is queued on `stream`. The calling thread waits for the inputs, because
/// the host has to see them.
pub(super) fn run(
    op: &Op,
    stream: &Stream,
    args: &[Args<'_>],
    attributes: &[Attr],
    scalars: &[Attr],
) -> Result<()> {
    let Some(reference) = op.reference() else {
        return Err(Error::new(
            ErrorKind::NoKernel,
            format!("run {}", op.name()),
            "no kernel takes this call, and the op has no reference implementation",
        ));
    };
    let mut call = download(stream, args, attributes, scalars)?;
    reference(&mut call)?;
    for ((argument, arg), results) in op.schema().arguments().iter().zip(args).zip(&call.args) {
        if !argument.is_written() {
            continue;
        }
        for (tensor, result) in arg.iter().zip(results) {
            write_back(stream, tensor, result)?;
        }
    }
    Ok(())
}

/// The call with what its tensors hold, after the work queued on `stream`.
pub(super) fn download(
    stream: &Stream,
    args: &[Args<'_>],
    attributes: &[Attr],
    scalars: &[Attr],
) -> Result<HostCall> {
    let host = |tensor: &&Tensor| {
        Ok(HostTensor {
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            bytes: tensor.to_bytes(stream)?,
        })
    };
    Ok(HostCall {
        args: args
            .iter()
            .map(|arg| arg.iter().map(host).collect::<Result<_>>())
            .collect::<Result<_>>()?,
        attributes: attributes.to_vec(),
        scalars: scalars.to_vec(),
    })
}

/// Writes a result into a tensor of any strides, row by row where they are not contiguous.
fn write_back(stream: &Stream, tensor: &Tensor, result: &HostTensor) -> Result<()> {
    if result.bytes.len() as u64 != tensor.bytes() {
        let text = format!("{} bytes of result for {tensor:?}", result.bytes.len());
        return Err(Error::new(
            ErrorKind::Internal,
            "run a reference implementation",
            text,
        ));
    }
    if tensor.is_contiguous() {
        return tensor.write_bytes(stream, &result.bytes);
    }
    // Read, change, write: what lies between the elements belongs to somebody else and stays.
    let (low, high) = tensor.span_bytes().unwrap_or((0, 0));
    let mut span = vec![0; usize::try_from(high - low).unwrap_or(0)];
    tensor
        .buffer()
        .read(stream, low.unsigned_abs(), &mut span)?;
    let size = tensor.dtype().size_bytes();
    let first = tensor.address().addr() - tensor.buffer().address().addr();
    let first = i64::try_from(first).unwrap_or(0) - low;
    let mut elements = result.bytes.chunks_exact(size);
    crate::tensor::for_each_offset(tensor.shape(), tensor.strides(), |offset| {
        if let Some(element) = elements.next() {
            let at = usize::try_from(first + offset * size.cast_signed() as i64).unwrap_or(0);
            span[at..at + size].copy_from_slice(element);
        }
    });
    tensor.buffer().write(stream, low.unsigned_abs(), &span)
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn what_is_not_in_the_call_is_named_by_its_kind() {
        let call = HostCall {
            args: vec![vec![]],
            attributes: vec![Attr::I64(1)],
            scalars: vec![],
        };
        for (error, words) in [
            (call.one(0).unwrap_err(), "argument 0 is missing"),
            (call.scalar(0).unwrap_err(), "launch scalar 0 is missing"),
            (call.flag(0).unwrap_err(), "static attribute 0 is missing"),
        ] {
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn integers_come_back_and_what_is_none_is_refused() {
        for (dtype, least, greatest) in [
            (DType::I8, -128.0, 127.0),
            (DType::U8, 0.0, 255.0),
            (DType::I16, -32768.0, 32767.0),
            (DType::I32, -2_147_483_648.0, 2_147_483_647.0),
            (
                DType::I64,
                -9_007_199_254_740_992.0,
                9_007_199_254_740_992.0,
            ),
            (DType::Bool, 0.0, 1.0),
        ] {
            let host = HostTensor::from_f64(dtype, &[2], &[least, greatest]).unwrap();
            assert_eq!(host.to_f64().unwrap(), [least, greatest], "{dtype}");
            let back = host.to_i64().unwrap().into_iter().max().unwrap();
            assert_eq!(back.to_string(), greatest.to_string(), "{dtype}");
            for none in [0.5, f64::NAN, f64::INFINITY] {
                assert!(HostTensor::from_f64(dtype, &[1], &[none]).is_err());
            }
            if dtype != DType::I64 {
                assert!(HostTensor::from_f64(dtype, &[1], &[greatest + 1.0]).is_err());
                assert!(HostTensor::from_f64(dtype, &[1], &[least - 1.0]).is_err());
            }
        }
    }

    /// Every 16-bit float, the middle to its next neighbour, and the f64 on both sides of it.
    #[test]
    fn sixteen_bit_floats_are_rounded_once_with_ties_to_even() {
        for (dtype, to_f64) in [
            (
                DType::BF16,
                (|b| f64::from(bf16::from_bits(b))) as fn(u16) -> f64,
            ),
            (DType::F16, |b| f64::from(f16::from_bits(b))),
        ] {
            let round = |value: f64| {
                let mut one = HostTensor {
                    dtype,
                    shape: vec![1],
                    bytes: Vec::new(),
                };
                one.set_f64(&[value]).unwrap();
                u16::from_ne_bytes([one.bytes[0], one.bytes[1]])
            };
            for bits in 0..0x7fff_u16 {
                let (low, high) = (to_f64(bits), to_f64(bits + 1));
                if low.is_nan() || !high.is_finite() {
                    continue;
                }
                let middle = f64::midpoint(low, high);
                let even = if bits % 2 == 0 { bits } else { bits + 1 };
                assert_eq!(round(low), bits);
                assert_eq!(round(middle), even, "{dtype} {middle:e}");
                assert_eq!(round(-middle), even | 0x8000, "{dtype} -{middle:e}");
                assert_eq!(
                    round(middle.next_up()),
                    bits + 1,
                    "{dtype} above {middle:e}"
                );
                assert_eq!(round(middle.next_down()), bits, "{dtype} below {middle:e}");
            }
        }
    }
}
