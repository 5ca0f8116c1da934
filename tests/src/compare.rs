//! Comparison of a device's results with the reference implementation, element by element.

use ds_core::{
    DType, Result, Stream, Tensor,
    op::{self, Args, HostCall, HostTensor},
};
use ds_schema::{Attr, Tolerance};

/// A difference beyond the tolerance.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The argument.
    pub argument: String,
    /// The element, in row-major order.
    pub element: usize,
    /// What the device gave.
    pub got: f64,
    /// What the reference gave, in f64.
    pub want: f64,
}

/// Runs `name` on `stream` and on the reference, and gives the first element of each written
/// argument that differs by more than the schema's tolerance.
///
/// The reference computes from the same inputs with f64 outputs, so nothing of it is rounded.
///
/// # Errors
/// When the call does not run.
pub fn with_reference(
    name: &str,
    stream: &Stream,
    args: &[Args<'_>],
    attributes: &[Attr],
    scalars: &[Attr],
) -> Result<Vec<Difference>> {
    let op = op::find(name)?;
    let want = reference(name, stream, args, attributes, scalars)?;
    op::launch(op, stream, args, attributes, scalars)?;
    let mut differences = Vec::new();
    for (index, argument) in op.schema().arguments().iter().enumerate() {
        if !argument.is_written() {
            continue;
        }
        for (tensor, want) in args[index].iter().zip(&want.args[index]) {
            let tolerance = op
                .schema()
                .tolerance(tensor.dtype())
                .unwrap_or(Tolerance::EXACT);
            let got = values(stream, tensor)?;
            let want = want.to_f64()?;
            let differs = |(_, (got, want)): &(usize, (&f64, &f64))| {
                // What rounds to infinity or stays NaN must do so exactly.
                let rounded = round(tensor.dtype(), **want);
                !(got.is_nan() && want.is_nan())
                    && **got != rounded
                    && !tolerance.accepts(**got, **want)
            };
            differences.extend(got.iter().zip(&want).enumerate().find(differs).map(
                |(element, (&got, &want))| Difference {
                    argument: argument.name.clone(),
                    element,
                    got,
                    want,
                },
            ));
        }
    }
    Ok(differences)
}

/// The reference's answer, its written arguments in f64.
///
/// # Errors
/// When the op has no reference.
pub fn reference(
    name: &str,
    stream: &Stream,
    args: &[Args<'_>],
    attributes: &[Attr],
    scalars: &[Attr],
) -> Result<HostCall> {
    let op = op::find(name)?;
    let written: Vec<bool> = op
        .schema()
        .arguments()
        .iter()
        .map(ds_schema::Argument::is_written)
        .collect();
    let host = |tensor: &Tensor, written: bool| -> Result<HostTensor> {
        let mut host = HostTensor {
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            bytes: tensor.to_bytes(stream)?,
        };
        if written {
            let values = host.to_f64()?;
            host.dtype = DType::F64;
            host.set_f64(&values)?;
        }
        Ok(host)
    };
    let mut call = HostCall {
        args: args
            .iter()
            .zip(written)
            .map(|(arg, written)| arg.iter().map(|t| host(t, written)).collect())
            .collect::<Result<_>>()?,
        attributes: attributes.to_vec(),
        scalars: scalars.to_vec(),
    };
    let Some(run) = op.reference() else {
        return Err(ds_core::Error::new(
            ds_core::ErrorKind::Unsupported,
            name.to_owned(),
            "the op has no reference implementation",
        ));
    };
    run(&mut call)?;
    Ok(call)
}

/// The elements of a tensor of any float dtype.
///
/// # Errors
/// When the device's work failed.
pub fn values(stream: &Stream, tensor: &Tensor) -> Result<Vec<f64>> {
    HostTensor {
        dtype: tensor.dtype(),
        shape: tensor.shape().to_vec(),
        bytes: tensor.to_bytes(stream)?,
    }
    .to_f64()
}

/// `value` rounded once to `dtype`.
fn round(dtype: DType, value: f64) -> f64 {
    let mut one = HostTensor {
        dtype,
        shape: vec![1],
        bytes: Vec::new(),
    };
    one.set_f64(&[value])
        .and_then(|()| one.to_f64())
        .map_or(value, |v| v[0])
}
