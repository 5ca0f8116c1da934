//! Random layerwise token dropping: the tokens that a layer keeps, gathered before it and put back after.

mod cases;
mod reference;

use ds_core::{Error, ErrorKind, Result, Stream, Tensor, op};

use crate::{OpCell, movement};

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("token_sort_", reference::token_sort),
    ("token_gather", reference::token_gather),
    ("token_scatter_", reference::token_scatter),
    ("mask_gather_bert", reference::mask_gather_bert),
];

/// Sorts each row of token numbers in place, ascending.
///
/// # Shapes
/// `ids`: `[.., R]` of i32; upstream's are `[layers, batch, R]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for another dtype.
///
/// # Upstream
/// `csrc/random_ltd/token_sort.cu`; unlike there, any number of tokens is sorted (there at most 2048 that
/// are kept), any numbers, also equal ones, and nobody has to say how many tokens there were.
pub fn token_sort_(stream: &Stream, ids: &Tensor) -> Result<()> {
    static OP: OpCell = OpCell::new("token_sort_");
    op::launch(OP.op()?, stream, &[&[ids]], &[], &[])
}

/// The tokens that `indices` name. An index that names none gives zeros.
///
/// Its gradient with respect to `x` is [`token_scatter_`] of the gradients to zeros, where no index is
/// there twice.
///
/// # Shapes
/// `x`: `[batch, tokens, channels]`, or with `batch_first` false `[tokens, batch, channels]`; `indices`:
/// `[batch, R]` of i32; gives `x`'s shape with R tokens.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/random_ltd/gather_scatter.cu`; unlike there, the channels need not be a multiple of 8 (f32: 4)
/// and an index beyond the sequence reads nothing.
pub fn token_gather(
    stream: &Stream,
    x: &Tensor,
    indices: &Tensor,
    batch_first: bool,
) -> Result<Tensor> {
    static OP: OpCell = OpCell::new("token_gather");
    let batch_major = batch_first_view("token_gather", x, batch_first)?;
    let mut shape = x.shape().to_vec();
    if let Some(&kept) = indices.shape().get(1) {
        shape[usize::from(batch_first)] = kept;
    }
    let y = Tensor::empty(stream, x.dtype(), &shape)?;
    let to = batch_first_view("token_gather", &y, batch_first)?;
    let args: [op::Args<'_>; 3] = [&[&batch_major], &[indices], &[&to]];
    op::launch(OP.op()?, stream, &args, &[], &[])?;
    Ok(y)
}

/// Puts the tokens of `x` into `y` where `indices` say: of equal indices the last one stays, one that names
/// no token is passed over.
///
/// # Shapes
/// `y`: `[batch, tokens, channels]`, `x`: `[batch, R, channels]`, or with `batch_first` false both with
/// their first two dimensions exchanged; `indices`: `[batch, R]` of i32.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/random_ltd/gather_scatter.cu`; see [`token_gather`].
pub fn token_scatter_(
    stream: &Stream,
    y: &Tensor,
    x: &Tensor,
    indices: &Tensor,
    batch_first: bool,
) -> Result<()> {
    static OP: OpCell = OpCell::new("token_scatter_");
    let y = batch_first_view("token_scatter_", y, batch_first)?;
    let x = batch_first_view("token_scatter_", x, batch_first)?;
    let args: [op::Args<'_>; 3] = [&[&y], &[&x], &[indices]];
    op::launch(OP.op()?, stream, &args, &[], &[])
}

/// The rows and columns of an attention mask that the indices of each layer name.
///
/// # Shapes
/// `mask`: `[batch, 1, tokens, tokens]`, `indices`: `[layers, batch, R]` of i32; gives
/// `[layers, batch, 1, R, R]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/random_ltd/slice_attn_masks.cu`; unlike there, each layer has its own indices: upstream's kernel
/// reads those of the first layer for all.
pub fn mask_gather_bert(stream: &Stream, mask: &Tensor, indices: &Tensor) -> Result<Tensor> {
    static OP: OpCell = OpCell::new("mask_gather_bert");
    let &[layers, batch, kept] = indices.shape() else {
        let text = format!("indices are {indices:?}, not [layers, batch, R]");
        return Err(invalid("mask_gather_bert", text));
    };
    let y = Tensor::empty(stream, mask.dtype(), &[layers, batch, 1, kept, kept])?;
    op::launch(OP.op()?, stream, &[&[mask], &[indices], &[&y]], &[], &[])?;
    Ok(y)
}

/// The first `kept` rows and columns of a causal attention mask, which are those of any tokens.
///
/// # Shapes
/// `mask`: `[batch, 1, tokens, tokens]`; gives `[batch, 1, kept, kept]`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for another shape, or more than there are.
///
/// # Upstream
/// `csrc/random_ltd/slice_attn_masks.cu`.
pub fn mask_gather_gpt(stream: &Stream, mask: &Tensor, kept: i64) -> Result<Tensor> {
    if mask.shape().len() != 4 {
        let text = format!("the mask is {mask:?}, not [batch, 1, tokens, tokens]");
        return Err(invalid("mask_gather_gpt", text));
    }
    let corner = mask.narrow(2, 0, kept)?.narrow(3, 0, kept)?;
    let y = Tensor::empty(stream, mask.dtype(), corner.shape())?;
    movement::copy(stream, &corner, &y)?;
    Ok(y)
}

/// `[batch, tokens, channels]` of either order.
fn batch_first_view(op: &'static str, x: &Tensor, batch_first: bool) -> Result<Tensor> {
    match x.shape().len() {
        3 if batch_first => Ok(x.clone()),
        3 => x.transpose(0, 1),
        _ => Err(invalid(
            op,
            format!("activations are {x:?}, which is not 3 dimensions"),
        )),
    }
}

fn invalid(op: &'static str, text: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, op, text)
}
