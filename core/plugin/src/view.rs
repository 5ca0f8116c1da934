//! Borrowed views of the boundary's structs: checked once at the entry, plain slices after.

use std::{ffi::c_void, fmt, slice};

use ds_abi::{
    DLDataType, DS_VALUE_BOOL, DS_VALUE_F64, DS_VALUE_I64, DsArgument, DsLaunch, DsSignature,
    DsTensor, DsTensorSignature, DsValue,
};

use crate::{Error, Result};

/// A scalar's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A flag.
    Bool(bool),
    /// An integer.
    I64(i64),
    /// A real number.
    F64(f64),
}

impl Value {
    /// Reads a value; `None` for a kind that this version does not know.
    pub fn from_abi(value: &DsValue) -> Option<Self> {
        // SAFETY: both members are plain eight-byte numbers for which every bit pattern is valid.
        let (integer, real) = unsafe { (value.value.integer, value.value.real) };
        match value.kind {
            DS_VALUE_BOOL => Some(Self::Bool(integer != 0)),
            DS_VALUE_I64 => Some(Self::I64(integer)),
            DS_VALUE_F64 => Some(Self::F64(real)),
            _ => None,
        }
    }
}

/// Which tensors serve one argument.
pub type ArgumentView = DsArgument;

/// A call without addresses and launch scalars.
#[derive(Clone, Copy)]
pub struct SignatureView<'a> {
    raw: &'a DsSignature,
}

impl<'a> SignatureView<'a> {
    /// Checks the outer struct.
    ///
    /// # Safety
    /// `raw` is null or points to a signature whose pointers are valid for `'a`.
    pub(crate) unsafe fn new(raw: *const DsSignature) -> Result<Self> {
        // SAFETY: null, or a valid signature for `'a`.
        let raw = unsafe { raw.as_ref() }
            .ok_or_else(|| Error::invalid_argument("the signature is null"))?;
        if (raw.struct_size as usize) < size_of::<DsSignature>()
            || (raw.tensor_count > 0
                && (raw.tensor_stride as usize) < size_of::<DsTensorSignature>())
        {
            return Err(Error::invalid_argument(
                "the signature is older than this plugin accepts",
            ));
        }
        Ok(Self { raw })
    }

    /// The op's name.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn op(&self) -> Result<&'a str> {
        // SAFETY: `new` was promised valid pointers for `'a`.
        text(unsafe { self.raw.op.bytes() }, "the op's name")
    }

    /// The schema's hash.
    pub fn schema_hash(&self) -> [u8; 16] {
        self.raw.schema_hash
    }

    /// Which tensors serve each argument, in schema order, inputs before outputs.
    pub fn arguments(&self) -> &'a [ArgumentView] {
        // SAFETY: `new` was promised `argument_count` arguments at this pointer for `'a`.
        unsafe { slice_of(self.raw.arguments, self.raw.argument_count) }
    }

    /// How many tensors there are.
    pub fn tensor_count(&self) -> usize {
        self.raw.tensor_count as usize
    }

    /// Tensor `index`.
    ///
    /// # Panics
    /// When `index` is out of range.
    pub fn tensor(&self, index: usize) -> TensorSignatureView<'a> {
        assert!(
            index < self.tensor_count(),
            "tensor {index} of {}",
            self.tensor_count()
        );
        // SAFETY: `index` is in range, `new` was promised that many elements at that stride, and
        // checked that the stride covers the struct.
        let raw = unsafe {
            &*self
                .raw
                .tensors
                .byte_add(index * self.raw.tensor_stride as usize)
        };
        TensorSignatureView { raw }
    }

    /// Static attribute values, in schema order.
    ///
    /// # Errors
    /// For a kind of value that this version does not know.
    pub fn attributes(&self) -> Result<Vec<Value>> {
        // SAFETY: `new` was promised `attribute_count` values at this pointer.
        values(unsafe { slice_of(self.raw.attributes, self.raw.attribute_count) })
    }
}

impl fmt::Debug for SignatureView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignatureView")
            .field("op", &self.op())
            .field("arguments", &self.arguments())
            .finish_non_exhaustive()
    }
}

/// What a signature says of one tensor.
#[derive(Clone, Copy, Debug)]
pub struct TensorSignatureView<'a> {
    raw: &'a DsTensorSignature,
}

impl<'a> TensorSignatureView<'a> {
    /// Element type.
    pub fn dtype(&self) -> DLDataType {
        self.raw.dtype
    }

    /// Extents, in elements.
    pub fn shape(&self) -> &'a [i64] {
        // SAFETY: the signature was promised to hold `ndim` extents.
        unsafe { slice_of(self.raw.shape, rank(self.raw.ndim)) }
    }

    /// Strides, in elements.
    pub fn strides(&self) -> &'a [i64] {
        // SAFETY: the signature was promised to hold `ndim` strides.
        unsafe { slice_of(self.raw.strides, rank(self.raw.ndim)) }
    }

    /// `DS_LAYOUT_*`.
    pub fn layout(&self) -> u8 {
        self.raw.layout
    }

    /// Binary logarithm of the alignment in bytes.
    pub fn alignment_log2(&self) -> u8 {
        self.raw.alignment_log2
    }
}

/// One launch.
#[derive(Clone, Copy)]
pub struct LaunchView<'a> {
    raw: &'a DsLaunch,
}

impl<'a> LaunchView<'a> {
    /// Checks the outer struct.
    ///
    /// # Safety
    /// `raw` is null or points to a launch whose pointers are valid for `'a`.
    pub(crate) unsafe fn new(raw: *const DsLaunch) -> Result<Self> {
        // SAFETY: null, or a valid launch for `'a`.
        let raw =
            unsafe { raw.as_ref() }.ok_or_else(|| Error::invalid_argument("the launch is null"))?;
        if (raw.struct_size as usize) < size_of::<DsLaunch>()
            || (raw.tensor_count > 0 && (raw.tensor_stride as usize) < size_of::<DsTensor>())
        {
            return Err(Error::invalid_argument(
                "the launch is older than this plugin accepts",
            ));
        }
        Ok(Self { raw })
    }

    /// How many tensors there are.
    #[inline]
    pub fn tensor_count(&self) -> usize {
        self.raw.tensor_count as usize
    }

    /// Tensor `index`.
    ///
    /// # Panics
    /// When `index` is out of range.
    #[inline]
    pub fn tensor(&self, index: usize) -> TensorView<'a> {
        assert!(
            index < self.tensor_count(),
            "tensor {index} of {}",
            self.tensor_count()
        );
        // SAFETY: `index` is in range, `new` was promised that many elements at that stride, and
        // checked that the stride covers the struct.
        let raw = unsafe {
            &*self
                .raw
                .tensors
                .byte_add(index * self.raw.tensor_stride as usize)
        };
        TensorView { raw }
    }

    /// Launch scalars, in schema order.
    #[inline]
    pub fn scalars(&self) -> &'a [DsValue] {
        // SAFETY: `new` was promised `scalar_count` values at this pointer.
        unsafe { slice_of(self.raw.scalars, self.raw.scalar_count) }
    }

    /// The workspace; null when none was asked for.
    #[inline]
    pub fn workspace(&self) -> *mut c_void {
        self.raw.workspace
    }

    /// The workspace's size, in bytes.
    pub fn workspace_bytes(&self) -> u64 {
        self.raw.workspace_bytes
    }

    /// Number that ties this launch to traces and errors.
    pub fn correlation(&self) -> u64 {
        self.raw.correlation
    }
}

impl fmt::Debug for LaunchView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchView")
            .field("tensors", &self.tensor_count())
            .field("correlation", &self.correlation())
            .finish_non_exhaustive()
    }
}

/// A tensor of a launch.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    raw: &'a DsTensor,
}

impl<'a> TensorView<'a> {
    /// Address of the first element.
    #[inline]
    pub fn address(&self) -> *mut c_void {
        let offset = usize::try_from(self.raw.dl.byte_offset).unwrap_or(usize::MAX);
        self.raw.dl.data.wrapping_byte_add(offset)
    }

    /// Element type.
    #[inline]
    pub fn dtype(&self) -> DLDataType {
        self.raw.dl.dtype
    }

    /// Extents, in elements.
    #[inline]
    pub fn shape(&self) -> &'a [i64] {
        // SAFETY: the launch was promised to hold `ndim` extents.
        unsafe { slice_of(self.raw.dl.shape, rank(self.raw.dl.ndim)) }
    }

    /// Strides, in elements.
    #[inline]
    pub fn strides(&self) -> &'a [i64] {
        // SAFETY: the launch was promised to hold `ndim` strides.
        unsafe { slice_of(self.raw.dl.strides, rank(self.raw.dl.ndim)) }
    }
}

/// # Safety
/// `data` points to `count` elements that are valid for `'a`, or `count` is 0.
#[inline]
unsafe fn slice_of<'a, T>(data: *const T, count: u32) -> &'a [T] {
    if count == 0 || data.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(data, count as usize) }
}

/// A negative rank is no tensor's; it counts as 0 so that nothing is read.
#[inline]
fn rank(ndim: i32) -> u32 {
    ndim.max(0).cast_unsigned()
}

fn values(raw: &[DsValue]) -> Result<Vec<Value>> {
    raw.iter()
        .map(|v| {
            Value::from_abi(v).ok_or_else(|| {
                Error::unsupported(format!(
                    "a scalar is of kind {}, newer than this plugin",
                    v.kind
                ))
            })
        })
        .collect()
}

pub(crate) fn text<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| Error::invalid_argument(format!("{what} is not UTF-8")))
}
