//! Muon: momentum whose update is orthogonalised by Newton-Schulz iterations. A composition:
//!
//! | step | op |
//! |---|---|
//! | are all gradients finite | [`crate::grads::grad_norm`] |
//! | momentum, Nesterov's look ahead | `muon_momentum` |
//! | `X = U / (|U| + 1e-7)` | `grad_norm`, `muon_normalize` |
//! | `A = X X^T`, `A A`, `B X` of each iteration | [`crate::matmul::matmul`], transposed by view |
//! | `B = b A + c A A`, `X = a X + B X` | `muon_combine` |
//! | `p = p (1 - lr weight_decay) - lr scale X` | `muon_apply` |

mod cases;
mod reference;

use ds_core::{DType, Error, ErrorKind, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::{OpCell, grads::grad_norm, matmul::matmul};

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("muon_momentum", reference::muon_momentum),
    ("muon_normalize", reference::muon_normalize),
    ("muon_combine", reference::muon_combine),
    ("muon_apply", reference::muon_apply),
];

static MUON_MOMENTUM: OpCell = OpCell::new("muon_momentum");
static MUON_NORMALIZE: OpCell = OpCell::new("muon_normalize");
static MUON_COMBINE: OpCell = OpCell::new("muon_combine");
static MUON_APPLY: OpCell = OpCell::new("muon_apply");

/// The quintic `a x + b x^3 + c x^5` of an iteration, of which the slope at zero is greatest.
const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);
/// Keeps a matrix of zeros from a division by zero.
const EPS: f64 = 1e-7;

/// What a step of Muon depends on beside the tensors; the defaults are upstream's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonConfig {
    /// Learning rate, in units of the spectral norm.
    pub lr: f64,
    /// Decay of the momentum.
    pub momentum: f64,
    /// Orthogonalise the momentum blended with the gradient once more.
    pub nesterov: bool,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Newton-Schulz iterations.
    pub ns_steps: u32,
    /// What they compute in: bf16 or f32.
    pub ns_dtype: DType,
}

impl Default for MuonConfig {
    fn default() -> Self {
        Self {
            lr: 0.02,
            momentum: 0.95,
            nesterov: true,
            weight_decay: 0.0,
            ns_steps: 5,
            ns_dtype: DType::BF16,
        }
    }
}

/// The lists that a step reads and writes, of equal length.
#[derive(Clone, Copy, Debug)]
pub struct MuonTensors<'a> {
    /// Parameters, updated in place.
    pub params: &'a [&'a Tensor],
    /// Their gradients.
    pub grads: &'a [&'a Tensor],
    /// Momentum, updated in place.
    pub momentum: &'a [&'a Tensor],
}

/// The orthogonal matrix near `x`, with singular values of about 0.7 to 1.2: `steps` iterations of
/// `A = X X^T; X = a X + (b A + c A A) X` from `x` over its Frobenius norm, in `dtype`. With more rows
/// than columns the small product is `X^T X`, and `X` is multiplied from the right.
///
/// # Shapes
/// `x`: `[R, C]` of f32, f16 or bf16; gives the same shape of `dtype`, f32 or bf16.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for what is no matrix, and naming the argument and the rule that it
/// breaks.
///
/// # Upstream
/// `zeropower_via_newtonschulz5` of `deepspeed/runtime/zero/muon/original_muon.py`; the norm is f32
/// whatever `x` is.
///
/// # Source
/// Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon>.
pub fn newton_schulz(stream: &Stream, x: &Tensor, steps: u32, dtype: DType) -> Result<Tensor> {
    let &[rows, columns] = x.shape() else {
        let text = format!("takes a matrix, but x has {} dimensions", x.shape().len());
        return Err(
            Error::new(ErrorKind::InvalidArgument, "newton_schulz", text)
                .with_hint("reshape it to [rows, columns]"),
        );
    };
    let (a, b, c) = COEFFICIENTS;
    let norm = grad_norm(stream, &[x])?.norm;
    let mut x = normalize(stream, x, &norm, dtype)?;
    for _ in 0..steps {
        let turned = x.transpose(0, 1)?;
        let (left, right) = if rows > columns {
            (&turned, &x)
        } else {
            (&x, &turned)
        };
        let gram = matmul(stream, left, right)?;
        let square = matmul(stream, &gram, &gram)?;
        let factor = combine(stream, &gram, &square, b, c)?;
        let moved = if rows > columns {
            matmul(stream, &x, &factor)?
        } else {
            matmul(stream, &factor, &x)?
        };
        x = combine(stream, &x, &moved, a, 1.0)?;
    }
    Ok(x)
}

/// One step of Muon, in place.
///
/// The update of a matrix is multiplied by the root of its rows over its columns, where there are
/// more rows. Where a gradient is not finite, nothing changes, without the host waiting.
///
/// # Shapes
/// Three lists of equal length; the tensors at one index have equal shapes, `[R, C]`, or as a filter
/// of a convolution `[R, .., .., ..]`, whose other dimensions are one and which is contiguous. `params`
/// share a dtype, `grads` do; `momentum` is of f32 or the gradients' dtype.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks; nothing has changed
/// then, but what tensors before it in the lists became.
///
/// # Upstream
/// `muon_update` and `SingleDeviceMuon` of `deepspeed/runtime/zero/muon/original_muon.py` with
/// `ns_method` `standard`; unlike there, the flag of all gradients decides for all. Heads and experts
/// of their own are views of their own in the lists. The scale is that of the last two dimensions, so
/// 1 for filters that are square.
pub fn muon_step(stream: &Stream, tensors: MuonTensors<'_>, config: &MuonConfig) -> Result<()> {
    let MuonTensors {
        params,
        grads,
        momentum,
    } = tensors;
    if params.len() != grads.len() || params.len() != momentum.len() {
        let text = format!(
            "lists have one length, but params has {}, grads {} and momentum {}",
            params.len(),
            grads.len(),
            momentum.len()
        );
        return Err(Error::new(ErrorKind::InvalidArgument, "muon_step", text));
    }
    let found_inf = grad_norm(stream, grads)?.found_inf;
    for ((param, grad), momentum) in params.iter().zip(grads).zip(momentum) {
        let update = blend(stream, grad, momentum, &found_inf, config)?;
        let update = newton_schulz(stream, &matrix(&update)?, config.ns_steps, config.ns_dtype)?;
        let scale = aspect_scale(param.shape());
        apply(
            stream,
            param,
            &update.reshape(param.shape())?,
            &found_inf,
            scale,
            config,
        )?;
    }
    Ok(())
}

/// A filter's dimensions but the first as one.
fn matrix(tensor: &Tensor) -> Result<Tensor> {
    match tensor.shape() {
        &[rows, _, _, _] => {
            let columns = tensor.shape()[1..].iter().product();
            tensor.reshape(&[rows, columns])
        }
        _ => Ok(tensor.clone()),
    }
}

/// The root of rows over columns, of the last two dimensions.
#[allow(clippy::cast_precision_loss, reason = "extents are far below 2^53")]
fn aspect_scale(shape: &[i64]) -> f64 {
    match shape {
        &[.., rows, columns] if rows > columns => (rows as f64 / columns as f64).sqrt(),
        _ => 1.0,
    }
}

/// The momentum, in place, and what it is to be orthogonalised.
fn blend(
    stream: &Stream,
    grad: &Tensor,
    momentum: &Tensor,
    found_inf: &Tensor,
    config: &MuonConfig,
) -> Result<Tensor> {
    let update = Tensor::empty(stream, grad.dtype(), grad.shape())?;
    op::launch(
        MUON_MOMENTUM.op()?,
        stream,
        &[&[grad], &[momentum], &[found_inf], &[&update]],
        &[Attr::Bool(config.nesterov)],
        &[Attr::F64(config.momentum)],
    )?;
    Ok(update)
}

/// `x / (norm + eps)` in `dtype`.
fn normalize(stream: &Stream, x: &Tensor, norm: &Tensor, dtype: DType) -> Result<Tensor> {
    let y = Tensor::empty(stream, dtype, x.shape())?;
    op::launch(
        MUON_NORMALIZE.op()?,
        stream,
        &[&[x], &[norm], &[&y]],
        &[],
        &[Attr::F64(EPS)],
    )?;
    Ok(y)
}

/// `a x + b y`, in the memory of `y`.
fn combine(stream: &Stream, x: &Tensor, y: &Tensor, a: f64, b: f64) -> Result<Tensor> {
    op::launch(
        MUON_COMBINE.op()?,
        stream,
        &[&[x], &[y], &[y]],
        &[],
        &[Attr::F64(a), Attr::F64(b)],
    )?;
    Ok(y.clone())
}

/// Moves `param` down its update, in place.
fn apply(
    stream: &Stream,
    param: &Tensor,
    update: &Tensor,
    found_inf: &Tensor,
    scale: f64,
    config: &MuonConfig,
) -> Result<()> {
    op::launch(
        MUON_APPLY.op()?,
        stream,
        &[&[param], &[update], &[found_inf]],
        &[],
        &[
            Attr::F64(config.lr),
            Attr::F64(config.weight_decay),
            Attr::F64(scale),
        ],
    )
}
