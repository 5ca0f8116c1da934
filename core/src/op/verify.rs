//! Verification: a call on a device, held against the reference implementation element by element.
//!
//! The reference computes in f64 from the same inputs and nothing of it is rounded; the schema says
//! how near a result has to be. What a kernel must not touch is looked at too: inputs, and the bytes
//! behind each tensor.

use std::fmt;

use ds_schema::{Attr, DType, Multiplicity, TensorSpec, Tolerance};

use super::{
    Op,
    call::{Args, RunsOn, launch, plan, resolve},
    case::{Case, Traffic},
    plans::Way,
    reference::{self, HostCall, HostTensor},
    registry::find,
    unready::Unready,
    watch,
};
use crate::{Buffer, Error, ErrorKind, Result, settings::Fallback, stream::Stream, tensor::Tensor};

/// Bytes behind each tensor of a case that nobody may write: the widest vector, twice.
const GUARD: [u8; 128] = [0xa5; 128];

/// How a call stands against the reference.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What it ran on.
    pub runs_on: RunsOn,
    /// Kernels that it should have run on.
    pub broken: Vec<Unready>,
    /// The largest error of a written element, in units of the tolerance: at most 1 where all is
    /// right, 0 for what is the reference rounded once, infinite beside an exact tolerance.
    pub error: f64,
    /// What is wrong, at most one for each tensor and kind; nothing when all is right.
    pub wrong: Vec<Wrong>,
}

/// Something wrong with a tensor after a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// The argument, with its index where it is one of a list: `y`, `params[2]`.
    pub argument: String,
    /// What it is.
    pub what: What,
}

/// What may be wrong with a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Elements differ from the reference by more than the tolerance.
    Elements {
        /// Where the first of them is.
        index: Vec<i64>,
        /// What the device gave there.
        got: f64,
        /// What the reference gave, in f64.
        want: f64,
        /// By how much they may differ there.
        allowed: f64,
        /// How many differ.
        count: usize,
        /// How many there are.
        of: usize,
    },
    /// It is only read, and is not what it was.
    Changed,
    /// Bytes behind its end were written.
    Overrun,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.argument)?;
        match &self.what {
            What::Elements {
                index,
                got,
                want,
                allowed,
                count,
                of,
            } => {
                // The element of a scalar needs no index.
                if !index.is_empty() {
                    write!(f, "{index:?}")?;
                }
                let (got, want) = (digits(*got), digits(*want));
                write!(f, " is {got:?}, the reference has {want:?}")?;
                if *allowed == 0.0 {
                    f.write_str(" and allows no error")?;
                } else {
                    write!(f, " and allows {allowed:.1e}")?;
                }
                write!(f, "; {count} of {of} elements wrong")
            }
            What::Changed => f.write_str(" is only to be read, but was changed"),
            What::Overrun => f.write_str(": bytes behind its end were written"),
        }
    }
}

/// The number with as many digits as tell an f32 from its neighbours.
fn digits(value: f64) -> f64 {
    format!("{value:.8e}").parse().unwrap_or(value)
}

/// Runs a case on `stream` and on the reference, and compares. Just before the call, which may crash
/// or never end, `ready` is told what it is about to run on, and which kernels it should have run on.
///
/// # Errors
/// When the call does not run; [`ErrorKind::Unsupported`] when there is nothing to compare with:
/// no reference, or no tolerance for a dtype.
pub fn verify(
    stream: &Stream,
    case: &Case,
    ready: impl FnOnce(&RunsOn, &[Unready]),
) -> Result<Verified> {
    let host = case.call()?;
    let placed = Placed::new(stream, case, &host)?;
    let lists = placed.lists();
    let args: Vec<Args<'_>> = lists.iter().map(Vec::as_slice).collect();
    let mut verified = compare(placed.op, stream, &args, &host, ready)?;
    verified.wrong.extend(placed.overruns(stream)?);
    Ok(verified)
}

/// As [`verify`], for tensors that are on the device already, of whatever strides.
///
/// # Errors
/// As [`verify`].
pub fn verify_call(
    op: &'static Op,
    stream: &Stream,
    args: &[Args<'_>],
    attributes: &[Attr],
    scalars: &[Attr],
) -> Result<Verified> {
    let before = reference::download(stream, args, attributes, scalars)?;
    compare(op, stream, args, &before, |_, _| {})
}

/// Runs the call, whose tensors hold what `before` does, and compares.
fn compare(
    op: &'static Op,
    stream: &Stream,
    args: &[Args<'_>],
    before: &HostCall,
    ready: impl FnOnce(&RunsOn, &[Unready]),
) -> Result<Verified> {
    let want = exact(op, before)?;
    let (runs_on, broken) = run(op, stream, args, before, ready)?;
    let (error, wrong) = hold_call(op, stream, args, before, &want)?;
    Ok(Verified {
        runs_on,
        broken,
        error,
        wrong,
    })
}

/// Holds what a call left in its tensors against `want`, the reference's answer: the largest error
/// in units of the tolerance, and what is wrong.
pub(super) fn hold_call(
    op: &Op,
    stream: &Stream,
    args: &[Args<'_>],
    before: &HostCall,
    want: &HostCall,
) -> Result<(f64, Vec<Wrong>)> {
    let mut error = 0.0_f64;
    let mut wrong = Vec::new();
    for (index, argument) in op.schema().arguments().iter().enumerate() {
        for (at, tensor) in args[index].iter().enumerate() {
            let mut tell = |what| {
                wrong.push(Wrong {
                    argument: element_of(&argument.name, argument.multiplicity, at),
                    what,
                });
            };
            let bytes = tensor.to_bytes(stream)?;
            if !argument.is_written() {
                if bytes != before.args[index][at].bytes && !is_written_too(op, args, tensor) {
                    tell(What::Changed);
                }
                continue;
            }
            let tolerance = op.schema().tolerance(tensor.dtype());
            let tolerance = tolerance.ok_or_else(|| no_tolerance(op, tensor.dtype()))?;
            let got = HostTensor {
                dtype: tensor.dtype(),
                shape: tensor.shape().to_vec(),
                bytes,
            };
            let (worst, what) = hold(&got, &want.args[index][at].to_f64()?, tolerance)?;
            error = error.max(worst);
            what.into_iter().for_each(tell);
        }
    }
    Ok((error, wrong))
}

/// Holds what a device gave against what the reference did: the largest error in units of the
/// tolerance, and the first element beyond it.
fn hold(got: &HostTensor, want: &[f64], tolerance: Tolerance) -> Result<(f64, Option<What>)> {
    // The reference's answer in the dtype: what rounds to it is right whatever the tolerance, and
    // so is what overflows like it.
    let rounded = HostTensor::from_f64(got.dtype, &got.shape, want)?.to_f64()?;
    let values = got.to_f64()?;
    let mut worst = 0.0_f64;
    let mut first = None;
    let mut count = 0;
    for (index, ((&got, &want), &rounded)) in values.iter().zip(want).zip(&rounded).enumerate() {
        if got == rounded || (got.is_nan() && rounded.is_nan()) {
            continue;
        }
        let allowed = tolerance.atol + tolerance.rtol * want.abs();
        if tolerance.accepts(got, want) {
            // Where nothing is allowed, nothing is between the two.
            worst = worst.max((got - want).abs() / allowed.max(f64::MIN_POSITIVE));
            continue;
        }
        let units = (got - want).abs() / allowed;
        worst = worst.max(if units.is_nan() { f64::INFINITY } else { units });
        count += 1;
        first.get_or_insert((index, got, want, allowed));
    }
    let what = first.map(|(element, got_there, want, allowed)| What::Elements {
        index: index_of(element, &got.shape),
        got: got_there,
        want,
        allowed,
        count,
        of: values.len(),
    });
    Ok((worst, what))
}

/// The reference's answer, its written floats in f64; integers are exact in their own dtype.
pub(super) fn exact(op: &Op, before: &HostCall) -> Result<HostCall> {
    let Some(reference) = op.reference() else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("verify {}", op.name()),
            "the op has no reference implementation",
        ));
    };
    let mut call = before.clone();
    for (argument, tensors) in op.schema().arguments().iter().zip(&mut call.args) {
        let widened = |tensor: &&mut HostTensor| argument.is_written() && tensor.dtype.is_float();
        for tensor in tensors.iter_mut().filter(widened) {
            let values = tensor.to_f64()?;
            tensor.dtype = DType::F64;
            tensor.set_f64(&values)?;
        }
    }
    reference(&mut call)?;
    Ok(call)
}

/// Launches. What falls back does so without the warning that a program gets, and `DS_DEBUG=shadow`
/// does not look on: the caller is told, and holds the result against the reference itself.
fn run(
    op: &'static Op,
    stream: &Stream,
    args: &[Args<'_>],
    call: &HostCall,
    ready: impl FnOnce(&RunsOn, &[Unready]),
) -> Result<(RunsOn, Vec<Unready>)> {
    let device = stream.device();
    let plan = plan(op, device, args, &call.attributes, &call.scalars)?;
    let is_broken = |kernel: &&Unready| kernel.is_broken(device);
    let broken: Vec<Unready> = plan.unready.iter().filter(is_broken).cloned().collect();
    let runs_on = plan.runs_on();
    ready(&runs_on, &broken);
    match &plan.way {
        Way::Reference(_) if device.settings().fallback != Fallback::Deny => {
            reference::run(op, stream, args, &call.attributes, &call.scalars)?;
        }
        Way::Watched(prepared) => {
            watch::launch_unheld(op, prepared, stream, args, &call.scalars)?;
        }
        _ => launch(op, stream, args, &call.attributes, &call.scalars)?,
    }
    Ok((runs_on, broken))
}

/// Whether a tensor shares its memory with one that the op writes, as calls in place do.
fn is_written_too(op: &Op, args: &[Args<'_>], tensor: &Tensor) -> bool {
    let arguments = op.schema().arguments().iter().zip(args);
    arguments
        .filter(|(argument, _)| argument.is_written())
        .flat_map(|(_, tensors)| *tensors)
        .any(|written| written.buffer().same_as(tensor.buffer()))
}

fn element_of(name: &str, multiplicity: Multiplicity, at: usize) -> String {
    match multiplicity {
        Multiplicity::List => format!("{name}[{at}]"),
        _ => name.to_owned(),
    }
}

/// The index of an element in row-major order.
fn index_of(element: usize, shape: &[i64]) -> Vec<i64> {
    let mut rest = i64::try_from(element).unwrap_or(i64::MAX);
    let mut index = vec![0; shape.len()];
    for (at, extent) in index.iter_mut().zip(shape).rev() {
        (*at, rest) = (rest % extent, rest / extent);
    }
    index
}

fn no_tolerance(op: &Op, dtype: DType) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("verify {}", op.name()),
        format!("its schema states no tolerance for {dtype}"),
    )
}

/// A case's call with its tensors on a device, each with a guard behind it.
#[derive(Debug)]
pub struct Placed {
    op: &'static Op,
    args: Vec<Vec<Tensor>>,
    attributes: Vec<Attr>,
    scalars: Vec<Attr>,
    traffic: Option<Traffic>,
}

impl Placed {
    /// Puts the tensors of the case's call on the device of `stream`.
    ///
    /// # Errors
    /// When there is no such op, or the device has no memory.
    pub fn new(stream: &Stream, case: &Case, host: &HostCall) -> Result<Self> {
        let place = |(index, arg): (usize, &Vec<HostTensor>)| {
            let transposed = case.is_transposed(index);
            let tensors = arg.iter().map(|host| upload(stream, host, transposed));
            tensors.collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            op: find(case.op())?,
            args: (host.args.iter().enumerate())
                .map(place)
                .collect::<Result<_>>()?,
            attributes: host.attributes.clone(),
            scalars: host.scalars.clone(),
            traffic: case.told_traffic(),
        })
    }

    /// What [`Placed::launch`] runs on; built where that is not done yet.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn resolve(&self, stream: &Stream) -> Result<RunsOn> {
        let lists = self.lists();
        let args: Vec<Args<'_>> = lists.iter().map(Vec::as_slice).collect();
        resolve(self.op, stream, &args, &self.attributes, &self.scalars)
    }

    /// Queues the call; as often as one likes, because updated arguments stay what they are.
    ///
    /// # Errors
    /// As [`launch`].
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let lists = self.lists();
        let args: Vec<Args<'_>> = lists.iter().map(Vec::as_slice).collect();
        launch(self.op, stream, &args, &self.attributes, &self.scalars)
    }

    /// What the op has to move at least: what the case tells, or else each input read once, each
    /// output written once, what is updated both.
    pub fn traffic(&self) -> Traffic {
        if let Some(told) = self.traffic {
            return told;
        }
        let mut traffic = Traffic::default();
        for (argument, arg) in self.op.schema().arguments().iter().zip(&self.args) {
            let bytes = arg.iter().map(Tensor::bytes).sum::<u64>();
            if argument.role != ds_schema::Role::Out {
                traffic.read_bytes += bytes;
            }
            if argument.is_written() {
                traffic.written_bytes += bytes;
            }
        }
        traffic
    }

    fn lists(&self) -> Vec<Vec<&Tensor>> {
        self.args.iter().map(|arg| arg.iter().collect()).collect()
    }

    /// The tensors behind whose end something was written.
    fn overruns(&self, stream: &Stream) -> Result<Vec<Wrong>> {
        let mut wrong = Vec::new();
        for (argument, arg) in self.op.schema().arguments().iter().zip(&self.args) {
            for (at, tensor) in arg.iter().enumerate() {
                let mut behind = [0; GUARD.len()];
                tensor.buffer().read(stream, tensor.bytes(), &mut behind)?;
                if behind != GUARD {
                    wrong.push(Wrong {
                        argument: element_of(&argument.name, argument.multiplicity, at),
                        what: What::Overrun,
                    });
                }
            }
        }
        Ok(wrong)
    }
}

/// A tensor of these elements, contiguous or with its last two dimensions the other way round in
/// memory, and the guard behind it.
fn upload(stream: &Stream, host: &HostTensor, transposed: bool) -> Result<Tensor> {
    let mut spec = TensorSpec::contiguous(host.dtype, host.shape.clone());
    let rank = spec.shape.len();
    let transposed = transposed && rank >= 2;
    let mut bytes = host.bytes.clone();
    if transposed {
        spec.shape.swap(rank - 2, rank - 1);
        spec = TensorSpec::contiguous(spec.dtype, spec.shape);
        bytes = turned(host);
    }
    bytes.extend_from_slice(&GUARD);
    let buffer = Buffer::new(stream, bytes.len() as u64)?;
    buffer.write(stream, 0, &bytes)?;
    let tensor = Tensor::view_of(&buffer, 0, spec.dtype, &spec.shape, &spec.strides)?;
    if transposed {
        return tensor.transpose(rank - 2, rank - 1);
    }
    Ok(tensor)
}

/// The elements' bytes with the last two dimensions exchanged.
fn turned(host: &HostTensor) -> Vec<u8> {
    let size = host.dtype.size_bytes();
    let [.., rows, columns] = host.shape[..] else {
        return host.bytes.clone();
    };
    let [rows, columns] = [rows, columns].map(|n| usize::try_from(n).unwrap_or(0));
    let mut bytes = Vec::with_capacity(host.bytes.len());
    for matrix in host.bytes.chunks_exact((rows * columns * size).max(1)) {
        for column in 0..columns {
            for row in 0..rows {
                bytes.extend_from_slice(&matrix[(row * columns + column) * size..][..size]);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(dtype: DType, got: &[f64], want: &[f64], tolerance: Tolerance) -> (f64, Option<What>) {
        let shape = [2, i64::try_from(got.len() / 2).unwrap()];
        hold(
            &HostTensor::from_f64(dtype, &shape, got).unwrap(),
            want,
            tolerance,
        )
        .unwrap()
    }

    #[test]
    fn errors_are_in_units_of_the_tolerance_and_the_first_wrong_element_is_told() {
        let tolerance = Tolerance {
            rtol: 0.25,
            atol: 0.5,
        };
        let (error, what) = held(
            DType::F32,
            &[1.0, 2.5, 0.0, 0.0],
            &[1.0, 2.0, 0.0, 0.0],
            tolerance,
        );
        assert_eq!((error, what), (0.5, None));
        let (error, what) = held(
            DType::F32,
            &[1.0, 2.0, 0.0, 3.0, f64::NAN, 2.0],
            &[1.0, 2.0, 0.0, 0.0, 1.0, 2.0],
            tolerance,
        );
        assert_eq!(error, f64::INFINITY);
        let text = Wrong {
            argument: "y".to_owned(),
            what: what.unwrap(),
        }
        .to_string();
        assert_eq!(
            text,
            "y[1, 0] is 3.0, the reference has 0.0 and allows 5.0e-1; 2 of 6 elements wrong"
        );
    }

    #[test]
    fn rounding_once_and_overflowing_alike_are_right_whatever_the_tolerance() {
        let want = [0.1, 1e9, f64::NAN, f64::NEG_INFINITY];
        let (error, what) = held(DType::F16, &want, &want, Tolerance::EXACT);
        assert_eq!((error, what), (0.0, None));
        // Which has no infinity.
        let (error, what) = held(DType::F8E4M3, &want, &want, Tolerance::EXACT);
        assert_eq!((error, what), (0.0, None));
        let (error, what) = held(
            DType::F16,
            &[0.1, 65504.0, 0.0, 1.0],
            &want,
            Tolerance::EXACT,
        );
        assert_eq!(error, f64::INFINITY);
        assert!(matches!(what, Some(What::Elements { count: 3, .. })));
    }

    #[test]
    fn a_matrix_is_turned_within_its_batch() {
        let host = HostTensor {
            dtype: DType::U8,
            shape: vec![2, 2, 3],
            bytes: (0..12).collect(),
        };
        assert_eq!(turned(&host), [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }
}
