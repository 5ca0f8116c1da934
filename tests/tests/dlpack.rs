//! DLPack: who owns what at each step, and every way in which a tensor from elsewhere can be wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    ffi::c_void,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use ds_abi::{DLDataType, DLDevice, DLTensor};
use ds_core::{DType, DlManagedTensor, DlVersion, ErrorKind, Stream, Tensor};
use ds_tests::{cpu, sim};

/// A tensor of somebody else, with what its struct points to.
struct Given {
    managed: DlManagedTensor,
    _data: Vec<f32>,
    shape: Vec<i64>,
    strides: Vec<i64>,
    returned: AtomicUsize,
}

impl Given {
    /// 2 x 3 numbers from 0 on.
    fn new() -> Box<Self> {
        unsafe extern "C" fn deleter(managed: *mut DlManagedTensor) {
            // SAFETY: the context is the box below, which outlives the test's tensors.
            let given = unsafe { &*(*managed).manager_ctx.cast::<AtomicUsize>() };
            given.fetch_add(1, Ordering::SeqCst);
        }
        let mut data: Vec<f32> = (0..6_u8).map(f32::from).collect();
        let managed = DlManagedTensor {
            version: DlVersion { major: 1, minor: 0 },
            manager_ctx: ptr::null_mut(),
            deleter: Some(deleter),
            flags: 0,
            dl_tensor: DLTensor {
                data: data.as_mut_ptr().cast(),
                device: DLDevice {
                    device_type: 1,
                    device_id: 0,
                },
                ndim: 2,
                dtype: DLDataType {
                    code: 2,
                    bits: 32,
                    lanes: 1,
                },
                shape: ptr::null(),
                strides: ptr::null(),
                byte_offset: 0,
            },
        };
        let mut given = Box::new(Self {
            managed,
            _data: data,
            shape: vec![2, 3],
            strides: vec![3, 1],
            returned: AtomicUsize::new(0),
        });
        given.managed.manager_ctx = ptr::from_ref(&given.returned).cast_mut().cast();
        given.point();
        given
    }

    /// Lets the struct point to the extents as they are now.
    fn point(&mut self) {
        self.managed.dl_tensor.shape = self.shape.as_ptr();
        self.managed.dl_tensor.strides = self.strides.as_ptr();
    }

    fn import(&mut self) -> ds_core::Result<Tensor> {
        // SAFETY: the data lives as long as `self`, which outlives every tensor of these tests.
        unsafe { Tensor::from_dlpack(cpu().unwrap(), &raw mut self.managed) }
    }

    fn returned(&self) -> usize {
        self.returned.load(Ordering::SeqCst)
    }
}

fn stream() -> &'static Stream {
    cpu().unwrap().default_stream().unwrap()
}

#[test]
fn a_tensor_is_given_back_once_when_its_last_view_is_gone() {
    let mut given = Given::new();
    let tensor = given.import().unwrap();
    assert_eq!((tensor.dtype(), tensor.shape()), (DType::F32, &[2, 3][..]));
    let row = tensor.narrow(0, 1, 1).unwrap();
    drop(tensor);
    assert_eq!(given.returned(), 0);
    assert_eq!(row.to_vec::<f32>(stream()).unwrap(), [3.0, 4.0, 5.0]);
    drop(row);
    assert_eq!(given.returned(), 1);
}

#[test]
fn null_strides_are_those_of_a_contiguous_tensor() {
    let mut given = Given::new();
    given.managed.dl_tensor.strides = ptr::null();
    let tensor = given.import().unwrap();
    assert_eq!(tensor.strides(), [3, 1]);
    drop(tensor);
    assert_eq!(given.returned(), 1);
}

#[test]
fn an_offset_a_transposition_and_a_flip_come_through() {
    let mut given = Given::new();
    given.managed.dl_tensor.byte_offset = 12;
    (given.shape, given.strides) = (vec![3, 1], vec![1, 0]);
    given.point();
    let offset = given.import().unwrap();
    assert_eq!(offset.to_vec::<f32>(stream()).unwrap(), [3.0, 4.0, 5.0]);
    let mut given = Given::new();
    given.managed.dl_tensor.byte_offset = 20;
    (given.shape, given.strides) = (vec![3, 2], vec![-1, -3]);
    given.point();
    let flipped = given.import().unwrap();
    assert_eq!(
        flipped.to_vec::<f32>(stream()).unwrap(),
        [5.0, 2.0, 4.0, 1.0, 3.0, 0.0]
    );
}

// The one test of this file that takes memory of the CPU's pool, whose numbers it looks at.
#[test]
fn what_went_out_comes_back_with_the_same_memory() {
    let s = stream();
    let tensor = Tensor::from_slice(s, &[2, 3], &[0_i32, 1, 2, 3, 4, 5]).unwrap();
    let live = cpu().unwrap().memory_stats().allocations;
    let view = tensor.narrow(1, 1, 2).unwrap().transpose(0, 1).unwrap();
    let address = tensor.buffer().address();
    drop(tensor);
    let managed = view.into_dlpack();
    // SAFETY: made above, and given back by the import only.
    let back = unsafe { Tensor::from_dlpack(cpu().unwrap(), managed) }.unwrap();
    assert_eq!((back.shape(), back.strides()), (&[2, 2][..], &[1, 3][..]));
    assert_eq!(back.to_vec::<i32>(s).unwrap(), [1, 4, 2, 5]);
    assert_eq!(back.buffer().address(), address);
    assert_eq!(cpu().unwrap().memory_stats().allocations, live);
    drop(back);
    assert_eq!(cpu().unwrap().memory_stats().allocations, live - 1);

    // What nobody takes is freed by its deleter.
    let managed = Tensor::empty(s, DType::BF16, &[5]).unwrap().into_dlpack();
    assert_eq!(cpu().unwrap().memory_stats().allocations, live);
    // SAFETY: made above; its deleter is called this once.
    unsafe { (*managed).deleter.unwrap()(managed) };
    assert_eq!(cpu().unwrap().memory_stats().allocations, live - 1);
}

#[test]
fn what_is_refused_stays_the_callers() {
    type Spoil = fn(&mut Given);
    let cases: &[(Spoil, ErrorKind, &str)] = &[
        (
            |g| g.managed.version.major = 2,
            ErrorKind::Unsupported,
            "it is version 2.0, this reads 1.x",
        ),
        (|g| g.managed.flags = 1, ErrorKind::Unsupported, "read-only"),
        (
            |g| g.managed.dl_tensor.device.device_type = 2,
            ErrorKind::InvalidArgument,
            "it lies on device type 2 number 0, cpu:0 is type 1 number 0",
        ),
        (
            |g| g.managed.dl_tensor.device.device_id = 1,
            ErrorKind::InvalidArgument,
            "device type 1 number 1",
        ),
        (
            |g| g.managed.dl_tensor.dtype.code = 99,
            ErrorKind::Unsupported,
            "code: 99",
        ),
        (
            |g| g.managed.dl_tensor.dtype.lanes = 2,
            ErrorKind::Unsupported,
            "lanes: 2",
        ),
        (
            |g| g.managed.dl_tensor.ndim = 9,
            ErrorKind::InvalidArgument,
            "it has 9 dimensions, the limit is 8",
        ),
        (
            |g| g.managed.dl_tensor.ndim = -1,
            ErrorKind::InvalidArgument,
            "it has -1 dimensions",
        ),
        (
            |g| g.managed.dl_tensor.shape = ptr::null(),
            ErrorKind::InvalidArgument,
            "its shape is null",
        ),
        (
            |g| g.managed.dl_tensor.data = ptr::null_mut(),
            ErrorKind::InvalidArgument,
            "its data is null",
        ),
        (
            |g| g.shape[0] = -2,
            ErrorKind::InvalidArgument,
            "shape [-2, 3] has a negative extent",
        ),
        (
            |g| g.strides[0] = -3,
            ErrorKind::InvalidArgument,
            "strides [-3, 1] at byte 0 reaches before its data",
        ),
        (
            |g| g.shape[0] = i64::MAX,
            ErrorKind::InvalidArgument,
            "exceeds 2^63 bytes",
        ),
        // A few bytes that claim to be 2^64 elements.
        (
            |g| {
                g.shape.fill(1 << 32);
                g.strides.fill(0);
            },
            ErrorKind::InvalidArgument,
            "exceeds 2^63 bytes",
        ),
        (
            |g| g.strides[0] = i64::MAX,
            ErrorKind::InvalidArgument,
            "exceeds 2^63 bytes",
        ),
        (
            |g| g.managed.dl_tensor.byte_offset = 1 << 63,
            ErrorKind::InvalidArgument,
            "exceeds 2^63 bytes",
        ),
        (
            |g| g.managed.dl_tensor.data = ptr::without_provenance_mut::<c_void>(usize::MAX - 7),
            ErrorKind::InvalidArgument,
            "reach out of memory",
        ),
    ];
    for (spoil, kind, said) in cases {
        let mut given = Given::new();
        spoil(&mut given);
        let error = given.import().unwrap_err();
        assert_eq!(error.kind(), *kind, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(given.returned(), 0, "{error}");
    }
    // SAFETY: null is refused before anything is read.
    let error = unsafe { Tensor::from_dlpack(cpu().unwrap(), ptr::null_mut()) }.unwrap_err();
    assert!(error.to_string().contains("the pointer is null"), "{error}");
}

#[test]
fn a_tensor_without_elements_may_have_no_data() {
    let mut given = Given::new();
    given.managed.dl_tensor.data = ptr::null_mut();
    given.shape = vec![0, i64::MAX];
    given.strides = vec![i64::MAX, 1];
    given.point();
    let tensor = given.import().unwrap();
    assert_eq!((tensor.elements(), tensor.bytes()), (0, 0));
    assert!(tensor.to_vec::<f32>(stream()).unwrap().is_empty());
    drop(tensor);
    assert_eq!(given.returned(), 1);
}

#[test]
fn a_tensor_of_a_device_is_taken_by_that_device_alone() {
    let Some([one, two]) = sim::devices() else {
        return;
    };
    let s = one.default_stream().unwrap();
    let tensor = Tensor::from_slice(s, &[3], &[1.0_f32, 2.0, 3.0]).unwrap();
    s.synchronize().unwrap();
    let managed = tensor.into_dlpack();
    for other in [two, cpu().unwrap()] {
        // SAFETY: made above, and still the test's own as long as it is refused.
        let error = unsafe { Tensor::from_dlpack(other, managed) }.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    // SAFETY: as above; this import takes it.
    let back = unsafe { Tensor::from_dlpack(one, managed) }.unwrap();
    assert_eq!(back.to_vec::<f32>(s).unwrap(), [1.0, 2.0, 3.0]);
}
