//! What a call looks like without its addresses: its signature, which a kernel is prepared for.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::{DType, ScalarKind};

/// What is known of one tensor but its address, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Extents, in elements.
    pub shape: &'a [i64],
    /// Strides, in elements; as many as extents.
    pub strides: &'a [i64],
    /// Binary logarithm of the alignment of the first element, in bytes.
    pub alignment_log2: u8,
    /// Index among the call's tensors of the one whose memory this is.
    pub alias_of: Option<u32>,
}

/// What is known of one tensor but its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorSpec {
    /// Element type.
    pub dtype: DType,
    /// Extents, in elements.
    pub shape: Vec<i64>,
    /// Strides, in elements; as many as extents.
    pub strides: Vec<i64>,
    /// Binary logarithm of the alignment of the first element, in bytes.
    pub alignment_log2: u8,
    /// Index among the call's tensors of the one whose memory this is.
    pub alias_of: Option<u32>,
}

/// The tensors of one argument: none for a missing optional, any number for a list.
pub type Arg = Vec<TensorSpec>;
/// The tensors of one argument, borrowed.
pub type ArgView<'a> = &'a [TensorView<'a>];

/// A scalar's value. Equal when the bits are: a NaN is itself, and 0 is not -0.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Attr {
    /// Of type `bool`.
    Bool(bool),
    /// Of type `i64`.
    I64(i64),
    /// Of type `f64`.
    F64(f64),
}

/// How a tensor's elements lie; each class contains those before it. The boundary's `DS_LAYOUT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One after another in row-major order.
    Contiguous,
    /// Rows of the last dimension are contiguous, other strides are free but positive.
    Rows,
    /// Any strides.
    Strided,
}

impl Layout {
    /// Its name in `kernel.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Contiguous => "contiguous",
            Self::Rows => "rows",
            Self::Strided => "strided",
        }
    }
}

impl TensorSpec {
    /// A contiguous tensor that is aligned for its elements and nothing else's memory.
    pub fn contiguous(dtype: DType, shape: Vec<i64>) -> Self {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = shape[axis].max(1).saturating_mul(strides[axis]);
        }
        Self {
            dtype,
            shape,
            strides,
            alignment_log2: dtype.alignment_log2(),
            alias_of: None,
        }
    }

    /// Borrows it.
    pub fn view(&self) -> TensorView<'_> {
        TensorView {
            dtype: self.dtype,
            shape: &self.shape,
            strides: &self.strides,
            alignment_log2: self.alignment_log2,
            alias_of: self.alias_of,
        }
    }

    /// See [`TensorView::layout`].
    pub fn layout(&self) -> Layout {
        self.view().layout()
    }
}

impl TensorView<'_> {
    /// The first layout class that fits. The stride of an extent of 1 means nothing, and a tensor
    /// without elements is contiguous.
    pub fn layout(&self) -> Layout {
        if self.shape.contains(&0) {
            return Layout::Contiguous;
        }
        let mut layout = Layout::Contiguous;
        let mut packed = Some(1_i64);
        let axes = self.shape.iter().zip(self.strides).enumerate().rev();
        for (axis, (&extent, &stride)) in axes.filter(|&(_, (&extent, _))| extent != 1) {
            if Some(stride) != packed {
                let is_row = axis + 1 == self.shape.len();
                if is_row || stride <= 0 || !self.has_packed_rows() {
                    return Layout::Strided;
                }
                layout = Layout::Rows;
            }
            packed = packed.and_then(|packed| packed.checked_mul(extent));
        }
        layout
    }

    fn has_packed_rows(&self) -> bool {
        match (self.shape.last(), self.strides.last()) {
            (Some(&extent), Some(&stride)) => extent == 1 || stride == 1,
            _ => true,
        }
    }

    /// Copies it.
    pub fn to_spec(&self) -> TensorSpec {
        TensorSpec {
            dtype: self.dtype,
            shape: self.shape.to_vec(),
            strides: self.strides.to_vec(),
            alignment_log2: self.alignment_log2,
            alias_of: self.alias_of,
        }
    }
}

impl Attr {
    /// Its type.
    pub fn kind(self) -> ScalarKind {
        match self {
            Self::Bool(_) => ScalarKind::Bool,
            Self::I64(_) => ScalarKind::I64,
            Self::F64(_) => ScalarKind::F64,
        }
    }

    /// The same value as `kind`: JSON writes the float 1.0 as 1.
    pub(crate) fn to_kind(self, kind: ScalarKind) -> Option<Self> {
        match (self, kind) {
            #[expect(clippy::cast_precision_loss, reason = "larger integers are refused")]
            (Self::I64(value), ScalarKind::F64) if value.unsigned_abs() <= 1 << 53 => {
                Some(Self::F64(value as f64))
            }
            _ => (self.kind() == kind).then_some(self),
        }
    }

    /// Its type and its bits: what tells two values apart.
    #[inline]
    pub fn bits(self) -> (ScalarKind, u64) {
        let bits = match self {
            Self::Bool(value) => u64::from(value),
            Self::I64(value) => value.cast_unsigned(),
            Self::F64(value) => value.to_bits(),
        };
        (self.kind(), bits)
    }
}

impl PartialEq for Attr {
    fn eq(&self, other: &Self) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for Attr {}

impl Hash for Attr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bits().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(shape: &[i64], strides: &[i64]) -> Layout {
        let dtype = DType::F32;
        TensorView {
            dtype,
            shape,
            strides,
            alignment_log2: 2,
            alias_of: None,
        }
        .layout()
    }

    #[test]
    fn layouts() {
        use Layout::{Contiguous, Rows, Strided};
        assert_eq!(layout(&[], &[]), Contiguous);
        assert_eq!(layout(&[2, 3], &[3, 1]), Contiguous);
        assert_eq!(layout(&[2, 3, 1], &[3, 1, 99]), Contiguous);
        assert_eq!(layout(&[1, 3], &[-7, 1]), Contiguous);
        assert_eq!(layout(&[0, 3], &[5, 5]), Contiguous);
        assert_eq!(layout(&[2, 3], &[4, 1]), Rows);
        assert_eq!(layout(&[3, 2, 3], &[3, 9, 1]), Rows);
        assert_eq!(layout(&[4, 1], &[5, 7]), Rows);
        assert_eq!(layout(&[2, 3], &[1, 2]), Strided);
        assert_eq!(layout(&[3], &[2]), Strided);
        assert_eq!(layout(&[2, 3], &[0, 1]), Strided);
        assert_eq!(layout(&[2, 3], &[-3, 1]), Strided);
        assert_eq!(layout(&[2, 2, 3], &[3, 0, 1]), Strided);
        assert_eq!(layout(&[2, i64::MAX, 3], &[1, 3, 1]), Rows);
        let boundary = [
            ds_abi::DS_LAYOUT_CONTIGUOUS,
            ds_abi::DS_LAYOUT_ROWS,
            ds_abi::DS_LAYOUT_STRIDED,
        ];
        assert_eq!([Contiguous as u8, Rows as u8, Strided as u8], boundary);
    }

    #[test]
    fn attributes_compare_by_type_and_bits() {
        assert_ne!(Attr::F64(0.0), Attr::F64(-0.0));
        assert_ne!(Attr::I64(1), Attr::Bool(true));
        assert_eq!(Attr::I64(2).to_kind(ScalarKind::F64), Some(Attr::F64(2.0)));
        assert_eq!(Attr::I64(i64::MAX).to_kind(ScalarKind::F64), None);
        assert_eq!(Attr::F64(2.0).to_kind(ScalarKind::I64), None);
        assert_eq!(serde_json::from_str::<Attr>("1.5").unwrap(), Attr::F64(1.5));
    }
}
