//! Tensors (DLPack inside a sized wrapper), values, and signatures.

use core::ffi::c_void;

use crate::DsStr;

/// Index of a dtype in dtype masks ([`crate::DsDeviceInfo::dtypes`]).
pub const DS_DTYPE_F32: u32 = 0;
/// IEEE binary16.
pub const DS_DTYPE_F16: u32 = 1;
/// bfloat16.
pub const DS_DTYPE_BF16: u32 = 2;
/// IEEE binary64.
pub const DS_DTYPE_F64: u32 = 3;
/// Signed 8-bit integer.
pub const DS_DTYPE_I8: u32 = 4;
/// Unsigned 8-bit integer.
pub const DS_DTYPE_U8: u32 = 5;
/// Signed 16-bit integer.
pub const DS_DTYPE_I16: u32 = 6;
/// Signed 32-bit integer.
pub const DS_DTYPE_I32: u32 = 7;
/// Signed 64-bit integer.
pub const DS_DTYPE_I64: u32 = 8;
/// Boolean in a byte, 0 or 1.
pub const DS_DTYPE_BOOL: u32 = 9;
/// OCP FP8 with 4 exponent bits.
pub const DS_DTYPE_F8E4M3: u32 = 10;
/// OCP FP8 with 5 exponent bits.
pub const DS_DTYPE_F8E5M2: u32 = 11;

/// DLPack's element type. Codes are DLPack's: 0 int, 1 uint, 2 float, 4 bfloat, 6 bool, 10
/// `float8_e4m3fn`, 12 `float8_e5m2`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DLDataType {
    /// DLPack's type code.
    pub code: u8,
    /// Bits of one lane.
    pub bits: u8,
    /// Lanes; 1 for all that this boundary knows.
    pub lanes: u16,
}

/// DLPack's device.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DLDevice {
    /// DLPack's device type, such as 1 for CPU and 12 for an extension device.
    pub device_type: i32,
    /// Index among the devices of that type.
    pub device_id: i32,
}

/// DLPack's tensor, field for field as in DLPack 1.x.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DLTensor {
    /// Start of the data; an address of the device's memory.
    pub data: *mut c_void,
    /// Where it lies.
    pub device: DLDevice,
    /// Number of dimensions.
    pub ndim: i32,
    /// Element type.
    pub dtype: DLDataType,
    /// `ndim` extents, in elements.
    pub shape: *const i64,
    /// `ndim` strides, in elements; never null across this boundary.
    pub strides: *const i64,
    /// Bytes from `data` to the first element.
    pub byte_offset: u64,
}

/// A tensor of a launch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsTensor {
    /// Size of this struct as the host knows it, in bytes.
    pub struct_size: u32,
    /// Zero.
    pub flags: u32,
    /// The tensor itself.
    pub dl: DLTensor,
}

/// The value is `integer`, 0 or 1.
pub const DS_VALUE_BOOL: u32 = 1;
/// The value is `integer`.
pub const DS_VALUE_I64: u32 = 2;
/// The value is `real`.
pub const DS_VALUE_F64: u32 = 3;

/// A scalar: a static attribute of a signature, or a launch scalar.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DsValue {
    /// `DS_VALUE_*`.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// The value that `kind` says.
    pub value: DsValueBits,
}

/// The eight bytes of a [`DsValue`].
#[repr(C)]
#[derive(Clone, Copy)]
pub union DsValueBits {
    /// For `DS_VALUE_BOOL` and `DS_VALUE_I64`.
    pub integer: i64,
    /// For `DS_VALUE_F64`.
    pub real: f64,
}

/// Elements lie one after another in row-major order.
pub const DS_LAYOUT_CONTIGUOUS: u8 = 0;
/// Rows of the last dimension are contiguous, other strides are free but positive.
pub const DS_LAYOUT_ROWS: u8 = 1;
/// Any strides.
pub const DS_LAYOUT_STRIDED: u8 = 2;

/// Extent that a prepared kernel must take as it comes.
pub const DS_DIM_DYNAMIC: i64 = -1;

/// What a signature says of one tensor: everything but its address.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsTensorSignature {
    /// Element type.
    pub dtype: DLDataType,
    /// Number of dimensions.
    pub ndim: i32,
    /// `ndim` extents, [`DS_DIM_DYNAMIC`] where it may differ from launch to launch.
    pub shape: *const i64,
    /// `ndim` strides in elements; for dynamic extents only the layout holds.
    pub strides: *const i64,
    /// `DS_LAYOUT_*`.
    pub layout: u8,
    /// Binary logarithm of the alignment of the first element in bytes, at most 12.
    pub alignment_log2: u8,
    /// Zero.
    pub reserved: u16,
    /// Index of the tensor of this call whose memory this one is, or -1.
    pub alias_of: i32,
}

/// Which tensors serve one argument of the schema: a list has any number, a missing optional has
/// none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DsArgument {
    /// Index of its first tensor.
    pub first: u32,
    /// How many tensors.
    pub count: u32,
}

/// A call without addresses and launch scalars: what a kernel is prepared for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DsSignature {
    /// Size of this struct as the host knows it, in bytes.
    pub struct_size: u32,
    /// Zero.
    pub flags: u32,
    /// The op's name.
    pub op: DsStr,
    /// First 16 bytes of the BLAKE3 hash of the schema's canonical text.
    pub schema_hash: [u8; 16],
    /// Arguments in schema order, inputs before outputs; scalars have none.
    pub arguments: *const DsArgument,
    /// How many arguments.
    pub argument_count: u32,
    /// How many tensors.
    pub tensor_count: u32,
    /// The tensors, in argument order.
    pub tensors: *const DsTensorSignature,
    /// Bytes from one element of `tensors` to the next.
    pub tensor_stride: u32,
    /// How many static attributes.
    pub attribute_count: u32,
    /// Static attributes in schema order.
    pub attributes: *const DsValue,
}
