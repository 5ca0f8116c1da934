//! Dropout whose mask is a function of seed and position, alone and before a residual connection.

mod cases;
mod reference;

use ds_core::{Error, ErrorKind, Result, RngState, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("dropout", reference::dropout),
    ("bias_dropout_add", reference::bias_dropout_add),
];

static DROPOUT: OpCell = OpCell::new("dropout");
static BIAS_DROPOUT_ADD: OpCell = OpCell::new("bias_dropout_add");

/// Which elements go, and how much of the generator's words that takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The probability with which an element becomes 0; the others are multiplied with `1 / (1 - p)`.
    pub p: f64,
    /// Where the draw begins: of a generator's [`ds_core::Generator::take`] with one word for each
    /// element. The same state makes the same mask, which is how a backward pass has it.
    pub state: RngState,
}

impl Dropout {
    /// The schema's launch scalars.
    fn scalars(&self) -> Result<[Attr; 3]> {
        if !(0.0..=1.0).contains(&self.p) {
            let text = format!("p is {}, a probability is from 0 to 1", self.p);
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "drop elements out",
                text,
            ));
        }
        Ok([
            Attr::I64(self.state.seed.cast_signed()),
            Attr::I64(self.state.offset.cast_signed()),
            Attr::F64(self.p),
        ])
    }
}

/// `x / (1 - p)` where uniform number `i` of the draw is at least `p`, else 0, also where `x` was NaN;
/// `i` counts the elements in row-major order.
///
/// # Shapes
/// `x` of any shape; the result has the same.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for a `p` that is no probability, or a dtype that the schema does
/// not list.
///
/// # Upstream
/// `csrc/transformer/dropout_kernels.cu`, which writes a mask down for the backward pass.
///
/// # Source
/// Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
pub fn dropout(stream: &Stream, x: &Tensor, dropout: Dropout) -> Result<Tensor> {
    let scalars = dropout.scalars()?;
    let y = Tensor::empty(stream, x.dtype(), x.shape())?;
    op::launch(DROPOUT.op()?, stream, &[&[x], &[&y]], &[], &scalars)?;
    Ok(y)
}

/// The gradient of [`dropout`], from the state that it drew from: [`dropout`] of `dy`.
///
/// # Shapes
/// `dy` of any shape; the result has the same.
///
/// # Errors
/// As [`dropout`].
pub fn dropout_backward(stream: &Stream, dy: &Tensor, of: Dropout) -> Result<Tensor> {
    dropout(stream, dy, of)
}

/// `residual + dropout(x + bias)`. The gradient of `residual` is `dy`, that of `x` is
/// [`dropout_backward`] of it, and that of `bias` the sum of the latter over its rows.
///
/// # Shapes
/// `x`, `residual`: `[.., D]`, `bias`: `[D]`; the result is as `x`.
///
/// # Errors
/// As [`dropout`].
///
/// # Upstream
/// `dropout_act_bias` and `dropout` with a residual of `csrc/transformer/dropout_kernels.cu`.
pub fn bias_dropout_add(
    stream: &Stream,
    x: &Tensor,
    residual: &Tensor,
    bias: Option<&Tensor>,
    dropout: Dropout,
) -> Result<Tensor> {
    let scalars = dropout.scalars()?;
    let y = Tensor::empty(stream, x.dtype(), x.shape())?;
    let args: [&[&Tensor]; 4] = [&[x], &[residual], bias.as_slice(), &[&y]];
    op::launch(BIAS_DROPOUT_ADD.op()?, stream, &args, &[], &scalars)?;
    Ok(y)
}
