//! Rotary position embedding, in the layouts of GPT-NeoX and of GPT-J.

mod cases;
mod reference;

use ds_core::{Error, ErrorKind, Result, Stream, Tensor, op};
use ds_schema::Attr;

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[("rope", reference::rope)];

static ROPE: OpCell = OpCell::new("rope");

/// Cosines and sines of the angles of every position.
#[derive(Clone, Debug)]
pub struct RopeTables {
    /// `[positions, rotary_dim / 2]` of f32.
    pub cos: Tensor,
    /// Likewise.
    pub sin: Tensor,
}

/// The tables of `positions` positions: the angle of point `r` at position `p` is
/// `p * theta^(-2r / rotary_dim)`, computed in f64, so that late positions are as right as early ones.
///
/// They are made on the host, once for a model.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] for a `rotary_dim` that is odd or negative.
///
/// # Upstream
/// `csrc/transformer/inference/csrc/apply_rotary_pos_emb.cu` takes the angle in f32 for each element:
/// at position 131071 its error is up to 0.008.
///
/// # Source
/// Su and others 2021, arXiv 2104.09864.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "positions are below 2^53, and the tables are f32"
)]
pub fn rope_tables(
    stream: &Stream,
    positions: i64,
    rotary_dim: i64,
    theta: f64,
) -> Result<RopeTables> {
    if rotary_dim < 0 || rotary_dim % 2 != 0 {
        let text = format!("rotary_dim is {rotary_dim}, and points have two coordinates");
        return Err(invalid("make tables for rope", text));
    }
    let frequency = |r: i64| theta.powf(-2.0 * r as f64 / rotary_dim as f64);
    let frequencies: Vec<f64> = (0..rotary_dim / 2).map(frequency).collect();
    let angles = (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f64 * f));
    let (sin, cos): (Vec<f32>, Vec<f32>) = angles
        .map(|angle| (angle.sin() as f32, angle.cos() as f32))
        .unzip();
    let shape = [positions, rotary_dim / 2];
    Ok(RopeTables {
        cos: Tensor::from_slice(stream, &shape, &cos)?,
        sin: Tensor::from_slice(stream, &shape, &sin)?,
    })
}

/// Which points are turned, and by which angles.
#[derive(Clone, Copy, Debug, Default)]
pub struct RopeConfig<'a> {
    /// Points are neighbours (GPT-J); else the halves of what is turned face each other (GPT-NeoX,
    /// Llama).
    pub interleaved: bool,
    /// The position of each token, `[B, S]` of i64 or i32; else its index in the sequence.
    pub positions: Option<&'a Tensor>,
    /// Added to the position.
    pub offset: i64,
}

/// `x` with the first `2 R` elements of each head turned by the angles of its position, where tables
/// are `[P, R]`; what is behind them is copied. A position that the tables do not have gives NaN.
///
/// Queries and keys may be views of one tensor. To work in place, use [`rope_into`].
///
/// # Shapes
/// `x`: `[B, S, H, D]` with `2 R <= D`; gives the same shape and dtype.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
///
/// # Upstream
/// `csrc/transformer/inference/csrc/apply_rotary_pos_emb.cu`, where heads have to be multiples of 16
/// bytes and positions are those of one sequence.
pub fn rope(
    stream: &Stream,
    x: &Tensor,
    tables: &RopeTables,
    config: RopeConfig<'_>,
) -> Result<Tensor> {
    let y = Tensor::empty(stream, x.dtype(), x.shape())?;
    rope_into(stream, x, tables, &y, config, false)?;
    Ok(y)
}

/// Gradient of [`rope`]: the same, turned back.
///
/// # Shapes
/// `dy`: `[B, S, H, D]`; gives the same shape and dtype.
///
/// # Errors
/// As [`rope`].
pub fn rope_backward(
    stream: &Stream,
    dy: &Tensor,
    tables: &RopeTables,
    config: RopeConfig<'_>,
) -> Result<Tensor> {
    let dx = Tensor::empty(stream, dy.dtype(), dy.shape())?;
    rope_into(stream, dy, tables, &dx, config, true)?;
    Ok(dx)
}

/// As [`rope`], and with `inverse` [`rope_backward`], into `y`, which may be `x` itself.
///
/// # Shapes
/// `x`, `y`: `[B, S, H, D]`.
///
/// # Errors
/// As [`rope`].
pub fn rope_into(
    stream: &Stream,
    x: &Tensor,
    tables: &RopeTables,
    y: &Tensor,
    config: RopeConfig<'_>,
    inverse: bool,
) -> Result<()> {
    if let (Some(points), Some(d)) = (tables.cos.shape().last(), x.shape().last())
        && points * 2 > *d
    {
        let text = format!("the tables turn {} elements, a head has {d}", points * 2);
        return Err(invalid("rope", text));
    }
    op::launch(
        ROPE.op()?,
        stream,
        &[
            &[x],
            &[&tables.cos],
            &[&tables.sin],
            config.positions.as_slice(),
            &[y],
        ],
        &[Attr::Bool(config.interleaved)],
        &[Attr::I64(config.offset), Attr::Bool(inverse)],
    )
}

fn invalid(op: &'static str, text: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, op, text)
}
