//! Biases of images whose channels are the last dimension, as diffusion models add them.

mod cases;
mod reference;

use ds_core::{Result, Stream, Tensor, op};

use crate::OpCell;

pub(crate) use cases::cases;

pub(crate) const REFERENCES: &[(&str, op::ReferenceFn)] = &[
    ("nhwc_bias_add", reference::sum),
    ("nhwc_bias_add_add", reference::sum),
    ("nhwc_bias_add_bias_add", reference::sum),
];

/// The typed calls; they differ in their inputs only.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($input:ident),*);)*) => {$(
        $(#[$doc])*
        ///
        /// # Shapes
        /// Images are `[.., C]`, channels last, biases `[C]`; the result is as `x`. An image
        /// `[N, C, H, W]` in channels-last memory is contiguous as `[N, H, W, C]`.
        ///
        /// # Errors
        /// [`ds_core::ErrorKind::InvalidArgument`] naming the argument and the rule that it breaks.
        ///
        /// # Upstream
        /// `csrc/spatial/csrc/opt_bias_add.cu`; unlike there, every float dtype, sums in f32 rounded once,
        /// and any number of channels.
        pub fn $name(stream: &Stream, x: &Tensor, $($input: &Tensor),*) -> Result<Tensor> {
            static OP: OpCell = OpCell::new(stringify!($name));
            let y = Tensor::empty(stream, x.dtype(), x.shape())?;
            op::launch(OP.op()?, stream, &[&[x], $(&[$input],)* &[&y]], &[], &[])?;
            Ok(y)
        }
    )*};
}

calls! {
    /// `x + bias`.
    nhwc_bias_add(bias);
    /// `x + bias + other`.
    nhwc_bias_add_add(bias, other);
    /// `(x + bias) + (other + other_bias)`.
    nhwc_bias_add_bias_add(bias, other, other_bias);
}
