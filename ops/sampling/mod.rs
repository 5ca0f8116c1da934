//! Tokens drawn from logits.

mod cases;
mod reference;

use ds_core::{DType, Error, ErrorKind, Result, RngState, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[("sample", reference::sample)];

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// What logits are divided by; 0 takes the greatest logit, and draws nothing.
    pub temperature: f64,
    /// Tokens that are less probable than the `top_k`-th one are not drawn; 0 draws from all.
    pub top_k: i64,
    /// Of those, the fewest that are together at least so probable, and those that are as probable as the
    /// last of them; 1 draws from all.
    pub top_p: f64,
    /// Where the draw begins: of a generator's [`ds_core::Generator::take`] with [`words`].
    pub state: RngState,
}

/// Words of a generator that drawing for so many rows takes.
pub fn words(rows: u64) -> u64 {
    2 * rows
}

/// A token of each row, and the logarithm of its probability among those that it was drawn from; 0 where
/// the temperature is 0, as only one is.
///
/// The token is the first one of which, with all before it, the probability is more than number `r` of the
/// draw, from 0 to 1: 53 bits of words `2 r` and `2 r + 1`. Every accelerator gives this one, but where the
/// number falls within the rounding of such a sum; probabilities are in f32.
///
/// A row in which a logit is NaN, or whose greatest one is not finite, has the token -1 and NaN.
///
/// # Shapes
/// `logits`: `[R, V]`; gives tokens `[R]` of i64 and logarithms `[R]` of f32.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for a temperature that is negative or not finite, a negative `top_k`, a
/// `top_p` that is not within 0 to 1, or a dtype that the schema does not list.
///
/// # Upstream
/// DeepSpeed has none. Temperature, top-k and top-p are, in this order, the `LogitsWarper`s of Hugging Face
/// `transformers`; of equally probable tokens at the edge of `top_p`, those keep some.
///
/// # Source
/// Holtzman et al. 2020, "The curious case of neural text degeneration", for `top_p`.
pub fn sample(stream: &Stream, logits: &Tensor, sampling: Sampling) -> Result<(Tensor, Tensor)> {
    static OP: OpCell = OpCell::new("sample");
    let Sampling {
        temperature,
        top_k,
        top_p,
        state,
    } = sampling;
    let is_scale = temperature.is_finite() && temperature >= 0.0;
    if !is_scale || top_k < 0 || !(0.0..=1.0).contains(&top_p) {
        let text = format!(
            "temperature {temperature}, top_k {top_k}, top_p {top_p}: they are from 0 on, and top_p to 1"
        );
        return Err(Error::new(ErrorKind::InvalidArgument, "sample", text));
    }
    let rows = &logits.shape()[..logits.shape().len().min(1)];
    let tokens = Tensor::empty(stream, DType::I64, rows)?;
    let logprobs = Tensor::empty(stream, DType::F32, rows)?;
    let scalars = [
        Attr::I64(state.seed.cast_signed()),
        Attr::I64(state.offset.cast_signed()),
        Attr::F64(temperature),
        Attr::I64(top_k),
        Attr::F64(top_p),
    ];
    let args: [op::Args<'_>; 3] = [&[logits], &[&tokens], &[&logprobs]];
    op::launch(OP.op()?, stream, &args, &[], &scalars)?;
    Ok((tokens, logprobs))
}
