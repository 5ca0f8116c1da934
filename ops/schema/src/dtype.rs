//! Element types of tensors.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An element type. Its [`index`](DType::index) is the boundary's `DS_DTYPE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16: binary32 with 8 bits of precision.
    BF16,
    /// IEEE binary64.
    F64,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// Boolean in a byte, 0 or 1.
    Bool,
    /// OCP FP8 with 4 exponent bits.
    F8E4M3,
    /// OCP FP8 with 5 exponent bits.
    F8E5M2,
}

impl DType {
    /// Every dtype, in the order of [`DType::index`].
    pub const ALL: [Self; 12] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::F64,
        Self::I8,
        Self::U8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::Bool,
        Self::F8E4M3,
        Self::F8E5M2,
    ];

    /// The boundary's `DS_DTYPE_*`.
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// The dtype of a `DS_DTYPE_*`, if this version knows it.
    pub fn from_index(index: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(index).ok()?).copied()
    }

    /// The name in schemas, `kernel.json` and reports, such as `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F64 => "f64",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::Bool => "bool",
            Self::F8E4M3 => "f8e4m3",
            Self::F8E5M2 => "f8e5m2",
        }
    }

    /// The dtype of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes of one element.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool | Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// Binary logarithm of the alignment that an element needs, in bytes.
    pub const fn alignment_log2(self) -> u8 {
        match self.size_bytes() {
            1 => 0,
            2 => 1,
            4 => 2,
            _ => 3,
        }
    }

    /// Whether it stands for real numbers, so that results are compared within a tolerance.
    pub const fn is_float(self) -> bool {
        matches!(
            self,
            Self::F32 | Self::F16 | Self::BF16 | Self::F64 | Self::F8E4M3 | Self::F8E5M2
        )
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::from_name(name).ok_or_else(|| format!("unknown dtype '{name}'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_the_boundarys() {
        let boundary = [
            ds_abi::DS_DTYPE_F32,
            ds_abi::DS_DTYPE_F16,
            ds_abi::DS_DTYPE_BF16,
            ds_abi::DS_DTYPE_F64,
            ds_abi::DS_DTYPE_I8,
            ds_abi::DS_DTYPE_U8,
            ds_abi::DS_DTYPE_I16,
            ds_abi::DS_DTYPE_I32,
            ds_abi::DS_DTYPE_I64,
            ds_abi::DS_DTYPE_BOOL,
            ds_abi::DS_DTYPE_F8E4M3,
            ds_abi::DS_DTYPE_F8E5M2,
        ];
        assert_eq!(DType::ALL.map(DType::index), boundary);
        assert_eq!(
            DType::ALL.map(|dtype| DType::from_index(dtype.index())),
            DType::ALL.map(Some)
        );
        assert_eq!(DType::from_index(12), None);
    }

    #[test]
    fn serde_uses_the_name() {
        for dtype in DType::ALL {
            let json = serde_json::to_string(&dtype).unwrap();
            assert_eq!(json, format!("\"{}\"", dtype.name()));
            assert_eq!(serde_json::from_str::<DType>(&json).unwrap(), dtype);
            assert_eq!(dtype.name().parse(), Ok(dtype));
            assert_eq!(1 << dtype.alignment_log2(), dtype.size_bytes());
        }
    }
}
