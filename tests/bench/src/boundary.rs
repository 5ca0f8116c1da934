//! What the boundary itself costs a launch: the host fills the structs, the call goes through the
//! table, the plugin's guard and views, and the accelerator behind them only looks at each tensor.

use std::{hint::black_box, ptr};

use ds_abi::{
    DLDataType, DLDevice, DLTensor, DsErrorSink, DsHost, DsLaunch, DsNode, DsPlugin, DsPrepared,
    DsSignature, DsStr, DsTensor, DsValue, DsValueBits,
};
use ds_plugin::{Accelerator, DeviceInfo, LaunchView, Node, Prepared, Table};

use crate::{
    Result,
    sample::{Side, Spread, alternate_for, mean_seconds, print},
};

const ROUNDS: usize = 99;
const CALLS: u32 = 2_000;
/// As `rms_norm` has: two inputs, two outputs.
const TENSORS: usize = 4;

/// An accelerator whose kernels do nothing.
struct Empty;

impl Accelerator for Empty {
    type Device = ();
    type Stream = ();
    type Event = ();
    type Module = ();
    type Prepared = ();

    const TABLES: &'static [Table] = &[Table::Stream, Table::Op];

    fn new(_host: ds_plugin::Host) -> ds_plugin::Result<Self> {
        Ok(Self)
    }

    fn device_count(&self) -> ds_plugin::Result<u32> {
        Ok(1)
    }

    fn describe(&self, _index: u32) -> ds_plugin::Result<DeviceInfo> {
        Ok(DeviceInfo::default())
    }

    fn open(&self, _index: u32) -> ds_plugin::Result<()> {
        Ok(())
    }

    fn stream_create(&self, _device: &(), _default: bool) -> ds_plugin::Result<()> {
        Ok(())
    }

    fn prepare(&self, _device: &(), _nodes: &[Node<'_, ()>]) -> ds_plugin::Result<Prepared<()>> {
        Ok(Prepared {
            handle: (),
            workspace_bytes: 0,
            workspace_alignment: 1,
        })
    }

    unsafe fn launch(
        &self,
        _prepared: &(),
        _stream: &(),
        launch: LaunchView<'_>,
    ) -> ds_plugin::Result<()> {
        for index in 0..launch.tensor_count() {
            black_box(launch.tensor(index).address());
        }
        black_box(launch.scalars());
        Ok(())
    }
}

ds_plugin::export_plugin!(@entry Empty, "org.deepspeed.bench.empty", , entry);

fn size_of_struct<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

pub(crate) fn figure() -> Result<()> {
    // SAFETY: all of these structs are plain numbers and pointers, of which null is one.
    let (mut host, mut plugin, mut sink): (DsHost, DsPlugin, DsErrorSink) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
    host.struct_size = size_of_struct::<DsHost>();
    plugin.struct_size = size_of_struct::<DsPlugin>();
    sink.struct_size = size_of_struct::<DsErrorSink>();
    // SAFETY: three structs that state their sizes and outlive the call.
    let status = unsafe { entry(&raw const host, &raw mut plugin, &raw mut sink) };
    if status != 0 {
        return Err(format!("the empty plugin refuses with status {status}").into());
    }
    // SAFETY: the entry succeeded, so its tables are there; they are static.
    let (device, stream, op) = unsafe { (&*plugin.device, &*plugin.stream, &*plugin.op) };
    let missing = "the empty plugin lacks a function";
    let (mut handle, mut queue) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: as above.
    let mut prepared: DsPrepared = unsafe { std::mem::zeroed() };
    prepared.struct_size = size_of_struct::<DsPrepared>();
    // SAFETY: as above.
    let mut signature: DsSignature = unsafe { std::mem::zeroed() };
    signature.struct_size = size_of_struct::<DsSignature>();
    let node = DsNode {
        struct_size: size_of_struct::<DsNode>(),
        flags: 0,
        kernel: DsStr::EMPTY,
        signature: &raw const signature,
        module: ptr::null_mut(),
    };
    // SAFETY: the functions' contracts: valid handles, writable results, a node that lives past it.
    let made = unsafe {
        let opened = device.open.ok_or(missing)?(0, &raw mut handle, &raw mut sink);
        let created =
            stream.stream_create.ok_or(missing)?(handle, 0, &raw mut queue, &raw mut sink);
        let ready = op.prepare.ok_or(missing)?(
            handle,
            &raw const node,
            1,
            size_of_struct::<DsNode>(),
            &raw mut prepared,
            &raw mut sink,
        );
        [opened, created, ready]
    };
    if made != [0; 3] {
        return Err(format!("the empty plugin answers with {made:?}").into());
    }
    let launch = op.launch.ok_or(missing)?;
    let (shape, strides) = ([1_i64, 64], [64_i64, 1]);
    let mut memory = [0_u8; 64];
    let address = memory.as_mut_ptr().cast();
    let mut call = || {
        let tensors = [(); TENSORS].map(|()| DsTensor {
            struct_size: size_of_struct::<DsTensor>(),
            flags: 0,
            dl: DLTensor {
                data: black_box(address),
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
                shape: shape.as_ptr(),
                strides: strides.as_ptr(),
                byte_offset: 0,
            },
        });
        let scalars = [DsValue {
            kind: ds_abi::DS_VALUE_F64,
            reserved: 0,
            value: DsValueBits { real: 1e-6 },
        }];
        let work = DsLaunch {
            struct_size: size_of_struct::<DsLaunch>(),
            flags: 0,
            stream: queue,
            tensors: tensors.as_ptr(),
            tensor_count: 4,
            tensor_stride: size_of_struct::<DsTensor>(),
            scalars: scalars.as_ptr(),
            scalar_count: 1,
            reserved: 0,
            workspace: ptr::null_mut(),
            workspace_bytes: 0,
            correlation: 0,
        };
        // SAFETY: a prepared kernel of this plugin, and structs that outlive the call.
        match unsafe { black_box(launch)(prepared.handle, &raw const work, &raw mut sink) } {
            0 => Ok(()),
            status => Err(format!("the launch answers with {status}").into()),
        }
    };
    let mut sides: [Side<'_>; 1] = [Box::new(|| mean_seconds(CALLS, &mut call))];
    let seconds = alternate_for(ROUNDS, &mut sides)?;
    print(
        "the boundary in a launch: structs, call, guard, views of 4 tensors",
        Spread::of(seconds[0].iter().map(|s| s * 1e9)),
        "ns",
        "60",
        &format!(
            "{ROUNDS} rounds, each the mean of {CALLS} launches of a kernel that does nothing"
        ),
    );
    Ok(())
}
