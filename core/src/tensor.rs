//! Tensors: a buffer with a dtype, a shape and strides. No arithmetic here; that is what ops are for.

use std::fmt;

use ds_abi::DLDataType;
use ds_schema::{DType, MAX_RANK, TensorView};
use smallvec::SmallVec;

use crate::{Buffer, Device, Error, ErrorKind, Result, stream::Stream};

/// Extents, then as many strides, in elements; in place for the usual ranks.
#[derive(Clone)]
struct Dims(SmallVec<[i64; 2 * INLINE_RANK]>);

/// Tensors of a higher rank visit the heap.
const INLINE_RANK: usize = 4;

impl Dims {
    fn new(shape: &[i64], strides: &[i64]) -> Self {
        let mut dims = SmallVec::from_slice(shape);
        dims.extend_from_slice(strides);
        Self(dims)
    }

    #[inline]
    fn split(&self) -> (&[i64], &[i64]) {
        self.0.split_at(self.0.len() / 2)
    }

    #[inline]
    fn split_mut(&mut self) -> (&mut [i64], &mut [i64]) {
        let rank = self.0.len() / 2;
        self.0.split_at_mut(rank)
    }
}

/// A view of a buffer. Clones and views share the memory.
#[derive(Clone)]
pub struct Tensor {
    buffer: Buffer,
    dtype: DType,
    dims: Dims,
    /// Bytes from the buffer's start to the first element.
    offset_bytes: u64,
}

impl Tensor {
    /// A contiguous tensor of undefined content, ready for work on `stream`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a negative extent, too many dimensions or too many
    /// elements, [`ErrorKind::OutOfMemory`].
    #[allow(clippy::inline_always, reason = "else its result is copied twice")]
    #[inline(always)]
    pub fn empty(stream: &Stream, dtype: DType, shape: &[i64]) -> Result<Self> {
        let (dims, bytes) = contiguous(dtype, shape)?;
        let buffer = Buffer::new(stream, bytes)?;
        Ok(Self {
            buffer,
            dtype,
            dims,
            offset_bytes: 0,
        })
    }

    /// A contiguous tensor with the given elements.
    ///
    /// # Errors
    /// As [`Tensor::empty`], and when the number of elements is not the shape's.
    pub fn from_slice<T: Element>(stream: &Stream, shape: &[i64], elements: &[T]) -> Result<Self> {
        Self::from_bytes(stream, T::DTYPE, shape, T::bytes(elements))
    }

    /// A contiguous tensor from the bytes of its elements, in the machine's byte order.
    ///
    /// # Errors
    /// As [`Tensor::empty`], and when the number of bytes is not the shape's.
    pub fn from_bytes(stream: &Stream, dtype: DType, shape: &[i64], bytes: &[u8]) -> Result<Self> {
        let tensor = Self::empty(stream, dtype, shape)?;
        if tensor.buffer.bytes() != bytes.len() as u64 {
            return Err(invalid(
                "make a tensor",
                format!(
                    "{} bytes for {dtype} of shape {shape:?}, which has {}",
                    bytes.len(),
                    tensor.buffer.bytes()
                ),
            ));
        }
        tensor.buffer.write(stream, 0, bytes)?;
        Ok(tensor)
    }

    /// A view of `buffer`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when an element would lie outside the buffer, or a stride is
    /// missing.
    pub fn view_of(
        buffer: &Buffer,
        offset_bytes: u64,
        dtype: DType,
        shape: &[i64],
        strides: &[i64],
    ) -> Result<Self> {
        let op = "view a buffer";
        let (low, high) = view_span(op, offset_bytes, dtype, shape, strides)?;
        if low < 0 || high.unsigned_abs() > buffer.bytes() {
            return Err(invalid(
                op,
                format!(
                    "shape {shape:?} with strides {strides:?} of {dtype} at byte {offset_bytes} \
                     spans bytes {low} to {high}, the buffer has {}",
                    buffer.bytes()
                ),
            ));
        }
        Ok(Self {
            buffer: buffer.clone(),
            dtype,
            dims: Dims::new(shape, strides),
            offset_bytes,
        })
    }

    /// The elements in row-major order, after the work queued on `stream`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when `T` is not the dtype, or the failure of that work.
    pub fn to_vec<T: Element>(&self, stream: &Stream) -> Result<Vec<T>> {
        if T::DTYPE != self.dtype {
            return Err(invalid(
                "read a tensor",
                format!("it is {}, not {}", self.dtype, T::DTYPE),
            ));
        }
        Ok(T::from_bytes(&self.to_bytes(stream)?))
    }

    /// The bytes of the elements in row-major order, after the work queued on `stream`.
    ///
    /// # Errors
    /// The failure of that work.
    pub fn to_bytes(&self, stream: &Stream) -> Result<Vec<u8>> {
        let (low, high) = self.span_bytes().unwrap_or((0, 0));
        let mut span = vec![0; usize::try_from(high - low).unwrap_or(0)];
        self.buffer.read(stream, low.unsigned_abs(), &mut span)?;
        if self.is_contiguous() {
            return Ok(span);
        }
        let size = self.dtype.size_bytes();
        let start = i64::try_from(self.offset_bytes).unwrap_or(0) - low;
        let mut packed = host_room(self.bytes())?;
        for_each_offset(self.shape(), self.strides(), |offset| {
            let at = usize::try_from(start + offset * size.cast_signed() as i64).unwrap_or(0);
            packed.extend_from_slice(&span[at..at + size]);
        });
        Ok(packed)
    }

    /// Writes `bytes`, the elements in row-major order; the tensor must be contiguous.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a strided tensor or another number of bytes.
    pub fn write_bytes(&self, stream: &Stream, bytes: &[u8]) -> Result<()> {
        let op = "write a tensor";
        if !self.is_contiguous() {
            return Err(invalid(op, "its elements are not contiguous"));
        }
        if bytes.len() as u64 != self.bytes() {
            let text = format!("{} bytes for a tensor of {}", bytes.len(), self.bytes());
            return Err(invalid(op, text));
        }
        self.buffer.write(stream, self.offset_bytes, bytes)
    }

    /// A view with dimensions `a` and `b` exchanged.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a dimension that it does not have.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        let rank = self.shape().len();
        if a >= rank || b >= rank {
            let text = format!("dimensions {a} and {b} of a tensor with {rank}");
            return Err(invalid("transpose a tensor", text));
        }
        let mut view = self.clone();
        let (shape, strides) = view.dims.split_mut();
        shape.swap(a, b);
        strides.swap(a, b);
        Ok(view)
    }

    /// A view of `len` elements from `start` on along dimension `axis`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the range does not fit.
    pub fn narrow(&self, axis: usize, start: i64, len: i64) -> Result<Self> {
        let extent = self.shape().get(axis).copied().unwrap_or(-1);
        if start < 0 || len < 0 || start.checked_add(len).is_none_or(|end| end > extent) {
            return Err(invalid(
                "narrow a tensor",
                format!(
                    "{len} from {start} on along dimension {axis} of {:?}",
                    self.shape()
                ),
            ));
        }
        let mut view = self.clone();
        view.dims.split_mut().0[axis] = len;
        // Without elements there is no first one, and its place could lie behind the buffer's end.
        if !view.shape().contains(&0) {
            let size = self.dtype.size_bytes().cast_signed() as i64;
            let bytes = start * self.strides()[axis] * size;
            view.offset_bytes = view.offset_bytes.saturating_add_signed(bytes);
        }
        Ok(view)
    }

    /// A view of another shape with as many elements; the tensor must be contiguous.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a strided tensor or another number of elements.
    pub fn reshape(&self, shape: &[i64]) -> Result<Self> {
        let op = "reshape a tensor";
        let (dims, bytes) = contiguous(self.dtype, shape)?;
        if !self.is_contiguous() {
            return Err(invalid(op, "its elements are not contiguous"));
        }
        if bytes != self.bytes() {
            let text = format!("{:?} and {shape:?} differ in elements", self.shape());
            return Err(invalid(op, text));
        }
        Ok(Self {
            dims,
            ..self.clone()
        })
    }

    /// A view of the bytes of its elements, one dimension of u8; the tensor must be contiguous.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a strided tensor.
    pub fn view_bytes(&self) -> Result<Self> {
        if !self.is_contiguous() {
            let text = "its elements are not contiguous";
            return Err(invalid("view a tensor as bytes", text));
        }
        let bytes = i64::try_from(self.bytes()).unwrap_or(0);
        Self::view_of(&self.buffer, self.offset_bytes, DType::U8, &[bytes], &[1])
    }

    /// A view of the tensor broadcast to `shape`, as NumPy and PyTorch do: dimensions are matched from
    /// the last one, and one of extent 1, or that is missing, repeats with a stride of 0. To be read
    /// only: an op refuses to write it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when a dimension is neither 1 nor that of `shape`, and for a
    /// shape that no tensor has.
    pub fn expand(&self, shape: &[i64]) -> Result<Self> {
        let op = "expand a tensor";
        contiguous(self.dtype, shape)?;
        let (own, strides) = self.dims.split();
        let refuse = || invalid(op, format!("{own:?} does not repeat to {shape:?}"));
        let missing = shape.len().checked_sub(own.len()).ok_or_else(refuse)?;
        let mut repeated: SmallVec<[i64; INLINE_RANK]> = SmallVec::from_elem(0, shape.len());
        for (axis, (&extent, &stride)) in own.iter().zip(strides).enumerate() {
            if shape[missing + axis] == extent {
                repeated[missing + axis] = stride;
            } else if extent != 1 {
                return Err(refuse());
            }
        }
        Ok(Self {
            dims: Dims::new(shape, &repeated),
            ..self.clone()
        })
    }

    /// The memory behind it.
    #[inline]
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Where in that memory its first element lies, in bytes.
    #[inline]
    pub fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// The device that it lives on.
    #[inline]
    pub fn device(&self) -> Device {
        self.buffer.device()
    }

    /// Element type.
    #[inline]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents, in elements.
    #[inline]
    pub fn shape(&self) -> &[i64] {
        self.dims.split().0
    }

    /// Strides, in elements.
    #[inline]
    pub fn strides(&self) -> &[i64] {
        self.dims.split().1
    }

    /// Number of elements.
    pub fn elements(&self) -> i64 {
        // Beside an extent of 0 the product of the others need not be a number.
        if self.shape().contains(&0) {
            return 0;
        }
        self.shape().iter().product()
    }

    /// Size of its elements, in bytes.
    pub fn bytes(&self) -> u64 {
        self.elements().unsigned_abs() * self.dtype.size_bytes() as u64
    }

    /// Whether the elements lie one after another in row-major order.
    pub fn is_contiguous(&self) -> bool {
        self.view(0, None).layout() == ds_schema::Layout::Contiguous
    }

    /// Address of the first element.
    #[inline]
    pub(crate) fn address(&self) -> *mut std::ffi::c_void {
        let offset = usize::try_from(self.offset_bytes).unwrap_or(usize::MAX);
        self.buffer.address().wrapping_byte_add(offset)
    }

    /// What a signature says of it.
    #[inline]
    pub(crate) fn view(&self, alignment_log2: u8, alias_of: Option<u32>) -> TensorView<'_> {
        TensorView {
            dtype: self.dtype,
            shape: self.shape(),
            strides: self.strides(),
            alignment_log2,
            alias_of,
        }
    }

    /// First byte and the byte behind the last one, relative to the buffer; empty at its offset
    /// for a tensor without elements, `None` beyond 2^63.
    #[inline]
    pub(crate) fn span_bytes(&self) -> Option<(i64, i64)> {
        span(self.offset_bytes, self.dtype, self.shape(), self.strides())
    }
}

#[inline]
fn span(offset_bytes: u64, dtype: DType, shape: &[i64], strides: &[i64]) -> Option<(i64, i64)> {
    let size = i64::try_from(dtype.size_bytes()).ok()?;
    let (mut low, mut high) = (i64::try_from(offset_bytes).ok()?, 0_i64);
    high = high.checked_add(low)?;
    if shape.contains(&0) {
        return Some((low, high));
    }
    high = high.checked_add(size)?;
    for (&extent, &stride) in shape.iter().zip(strides) {
        let reach = (extent - 1).checked_mul(stride)?.checked_mul(size)?;
        if reach < 0 {
            low = low.checked_add(reach)?;
        } else {
            high = high.checked_add(reach)?;
        }
    }
    Some((low, high))
}

/// What a view spans, as [`Tensor::span_bytes`]; refuses what is no shape, and what has more
/// elements than can be counted, which strides of 0 make out of a few bytes.
pub(crate) fn view_span(
    op: &'static str,
    offset_bytes: u64,
    dtype: DType,
    shape: &[i64],
    strides: &[i64],
) -> Result<(i64, i64)> {
    if shape.len() > MAX_RANK {
        let text = format!(
            "shape has {} dimensions, the limit is {MAX_RANK}",
            shape.len()
        );
        return Err(invalid(op, text));
    }
    if shape.len() != strides.len() {
        let text = format!("{} extents, but {} strides", shape.len(), strides.len());
        return Err(invalid(op, text));
    }
    if shape.iter().any(|extent| *extent < 0) {
        return Err(invalid(
            op,
            format!("shape {shape:?} has a negative extent"),
        ));
    }
    let size = dtype.size_bytes().cast_signed() as i64;
    let mut extents = shape.iter();
    if !shape.contains(&0)
        && extents
            .try_fold(size, |n, &extent| n.checked_mul(extent))
            .is_none()
    {
        let text = format!("shape {shape:?} of {dtype} exceeds 2^63 bytes");
        return Err(invalid(op, text));
    }
    span(offset_bytes, dtype, shape, strides).ok_or_else(|| {
        invalid(
            op,
            format!(
                "shape {shape:?} with strides {strides:?} at byte {offset_bytes} exceeds 2^63 bytes"
            ),
        )
    })
}

/// Room for `bytes` bytes of host memory. A view may have far more elements than memory behind
/// them, so this is no place to abort.
fn host_room(bytes: u64) -> Result<Vec<u8>> {
    let mut room = Vec::new();
    let fits = usize::try_from(bytes).is_ok_and(|bytes| room.try_reserve_exact(bytes).is_ok());
    if fits {
        return Ok(room);
    }
    let text = format!("{bytes} bytes do not fit into host memory");
    Err(Error::new(ErrorKind::OutOfMemory, "read a tensor", text))
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Tensor({} {} {:?}",
            self.device(),
            self.dtype,
            self.shape()
        )?;
        if !self.is_contiguous() {
            write!(f, " strides {:?}", self.strides())?;
        }
        f.write_str(")")
    }
}

/// Calls `visit` with the offset of each element, in elements and in row-major order.
pub(crate) fn for_each_offset(shape: &[i64], strides: &[i64], mut visit: impl FnMut(i64)) {
    if shape.contains(&0) {
        return;
    }
    let mut index = [0_i64; MAX_RANK];
    let mut offset = 0;
    loop {
        visit(offset);
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            offset += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            offset -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
}

/// Dims and bytes of a contiguous tensor.
#[inline]
fn contiguous(dtype: DType, shape: &[i64]) -> Result<(Dims, u64)> {
    let rank = shape.len();
    if rank > MAX_RANK {
        return Err(not_a_shape(
            shape,
            &format!("has {rank} dimensions, the limit is {MAX_RANK}"),
        ));
    }
    let mut dims = if rank <= INLINE_RANK {
        SmallVec::from_buf_and_len([0; 2 * INLINE_RANK], 2 * rank)
    } else {
        SmallVec::from_elem(0, 2 * rank)
    };
    let mut elements = 1_i64;
    let mut empty = false;
    for axis in (0..rank).rev() {
        let extent = shape[axis];
        if extent < 0 {
            return Err(not_a_shape(shape, "has a negative extent"));
        }
        dims[axis] = extent;
        dims[rank + axis] = elements;
        empty |= extent == 0;
        elements = elements
            .checked_mul(extent.max(1))
            .ok_or_else(|| not_a_shape(shape, "exceeds 2^63 elements"))?;
    }
    let bytes = elements
        .checked_mul(dtype.size_bytes().cast_signed() as i64)
        .ok_or_else(|| not_a_shape(shape, "exceeds 2^63 bytes"))?;
    let bytes = if empty { 0 } else { bytes.unsigned_abs() };
    Ok((Dims(dims), bytes))
}

#[cold]
fn not_a_shape(shape: &[i64], why: &str) -> Error {
    invalid("make a tensor", format!("shape {shape:?} {why}"))
}

fn invalid(op: &'static str, context: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, op, context)
}

/// A Rust type that is the element of a tensor.
pub trait Element: Copy {
    /// Its dtype.
    const DTYPE: DType;

    /// The bytes of `elements`, in the machine's order.
    fn bytes(elements: &[Self]) -> &[u8];

    /// Elements from bytes in the machine's order.
    fn from_bytes(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! element {
    ($($ty:ty = $dtype:ident),* $(,)?) => {
        $(impl Element for $ty {
            const DTYPE: DType = DType::$dtype;

            fn bytes(elements: &[Self]) -> &[u8] {
                bytemuck::cast_slice(elements)
            }

            fn from_bytes(bytes: &[u8]) -> Vec<Self> {
                bytemuck::pod_collect_to_vec(bytes)
            }
        })*
    };
}

element! {
    f32 = F32, f64 = F64, half::f16 = F16, half::bf16 = BF16,
    i8 = I8, i16 = I16, i32 = I32, i64 = I64, u8 = U8,
}

/// The DLPack type of a dtype.
pub(crate) fn dl_dtype(dtype: DType) -> DLDataType {
    let (code, bits) = match dtype {
        DType::I8 => (0, 8),
        DType::I16 => (0, 16),
        DType::I32 => (0, 32),
        DType::I64 => (0, 64),
        DType::U8 => (1, 8),
        DType::F16 => (2, 16),
        DType::F32 => (2, 32),
        DType::F64 => (2, 64),
        DType::BF16 => (4, 16),
        DType::Bool => (6, 8),
        DType::F8E4M3 => (10, 8),
        DType::F8E5M2 => (12, 8),
    };
    DLDataType {
        code,
        bits,
        lanes: 1,
    }
}

/// The dtype of a DLPack type.
pub(crate) fn dtype_of(dl: DLDataType) -> Option<DType> {
    DType::ALL.into_iter().find(|dtype| dl_dtype(*dtype) == dl)
}
