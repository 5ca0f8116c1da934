//! Adagrad, one step over a list of parameters or over rows of an embedding.

mod cases;
mod reference;

use ds_core::{Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("adagrad_step", reference::adagrad_step),
    ("adagrad_step_sparse", reference::adagrad_step_sparse),
];

static ADAGRAD_STEP: OpCell = OpCell::new("adagrad_step");
static ADAGRAD_STEP_SPARSE: OpCell = OpCell::new("adagrad_step_sparse");

/// What a step of Adagrad depends on beside the tensors; the defaults are upstream's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdagradConfig {
    /// Learning rate.
    pub lr: f64,
    /// Added to the root of the sum of squares.
    pub eps: f64,
    /// Weight decay (L2), which joins the gradient.
    pub weight_decay: f64,
}

impl Default for AdagradConfig {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            eps: 1e-10,
            weight_decay: 0.0,
        }
    }
}

impl AdagradConfig {
    fn scalars(&self) -> [Attr; 3] {
        [self.lr, self.eps, self.weight_decay].map(Attr::F64)
    }
}

/// The lists that a step reads and writes, of equal length.
#[derive(Clone, Copy, Debug)]
pub struct AdagradTensors<'a> {
    /// Parameters, updated in place.
    pub params: &'a [&'a Tensor],
    /// Their gradients.
    pub grads: &'a [&'a Tensor],
    /// Sums of squares, updated in place; upstream's name.
    pub exp_avg_sq: &'a [&'a Tensor],
}

/// An embedding, and the gradient of some of its rows.
#[derive(Clone, Copy, Debug)]
pub struct AdagradRows<'a> {
    /// The embedding, of which rows are updated in place.
    pub param: &'a Tensor,
    /// The row of each gradient.
    pub indices: &'a Tensor,
    /// The gradients.
    pub values: &'a Tensor,
    /// The embedding's sums of squares, of which rows are updated in place.
    pub exp_avg_sq: &'a Tensor,
}

/// One step of Adagrad, in place: `v = v + g^2`, then `p = p - lr g / (sqrt(v) + eps)`, where `g` is
/// the gradient with `weight_decay * p`.
///
/// With `found_inf`, a value other than 0 on the device leaves everything as it is.
///
/// # Shapes
/// Three lists of equal length; the tensors at one index have equal shapes. `params` and `grads`
/// share a dtype: (f32, f32), (f16, f16), (f16, f32), (bf16, bf16) or (bf16, f32) with `exp_avg_sq`.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/adagrad/cpu_adagrad.cpp`; unlike there, gradients are only read, where its scalar tail
/// writes the update over them, strided parameters are updated, and `found_inf` is honoured.
///
/// # Source
/// Duchi, Hazan and Singer 2011, JMLR 12.
pub fn adagrad_step(
    stream: &Stream,
    tensors: AdagradTensors<'_>,
    found_inf: Option<&Tensor>,
    config: &AdagradConfig,
) -> Result<()> {
    op::launch(
        ADAGRAD_STEP.op()?,
        stream,
        &[
            tensors.params,
            tensors.grads,
            tensors.exp_avg_sq,
            found_inf.as_slice(),
        ],
        &[],
        &config.scalars(),
    )
}

/// As [`adagrad_step`] for the rows of an embedding that `indices` name, and no others.
///
/// Gradients of a row that comes several times are added up first. An index that is negative or
/// beyond the embedding is passed over, as that of padding.
///
/// # Shapes
/// `param`, `exp_avg_sq`: `[R, D]`, `indices`: `[N]` of i64 or i32, `values`: `[N, D]`; dtypes as
/// [`adagrad_step`] has them.
///
/// # Errors
/// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// The sparse branch of `deepspeed/ops/adagrad/cpu_adagrad.py`, which needs gradients that are
/// coalesced and copies the rows to and fro.
pub fn adagrad_step_sparse(
    stream: &Stream,
    rows: AdagradRows<'_>,
    found_inf: Option<&Tensor>,
    config: &AdagradConfig,
) -> Result<()> {
    op::launch(
        ADAGRAD_STEP_SPARSE.op()?,
        stream,
        &[
            &[rows.param],
            &[rows.indices],
            &[rows.values],
            &[rows.exp_avg_sq],
            found_inf.as_slice(),
        ],
        &[],
        &config.scalars(),
    )
}
