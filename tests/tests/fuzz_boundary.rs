//! What plugins and other libraries hand over as structs, with every number wrong that may be: sizes,
//! counts, versions, slots, flags. Addresses are right, because nobody can check those.
//!
//! The seeds are fixed, as in `fuzz.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    cell::RefCell,
    ffi::c_void,
    mem::offset_of,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use ds_abi::{
    DLDataType, DLDevice, DLTensor, DS_ABI_MINOR, DS_OK, DS_PANIC_ABORT, DsDeviceTable,
    DsErrorSink, DsExtension, DsHost, DsJitTable, DsMemoryTable, DsOpTable, DsPlugin, DsStatus,
    DsStr, DsStreamTable,
};
use ds_core::{DlManagedTensor, DlVersion, Error, Tensor, plugin::Plugin};
use ds_tests::{cpu, drill, mutate::Dice};

/// What the entry of the plugin under test hands over.
struct Told {
    status: DsStatus,
    message: Vec<u8>,
    message_len: u32,
    plugin: DsPlugin,
}

thread_local! {
    static TOLD: RefCell<Option<Told>> = const { RefCell::new(None) };
}

unsafe extern "C" fn entry(
    _host: *const DsHost,
    plugin: *mut DsPlugin,
    error: *mut DsErrorSink,
) -> DsStatus {
    TOLD.with_borrow(|told| {
        let told = told.as_ref().unwrap();
        // SAFETY: the host's struct and sink are writable for the call, in the sizes of today.
        unsafe {
            plugin.write(told.plugin);
            let sink = &mut *error;
            // All of it is written, so that a length that lies shows nothing worse.
            let text = sink.message.cast::<u8>();
            text.write_bytes(b'.', sink.message_capacity as usize);
            text.copy_from_nonoverlapping(told.message.as_ptr(), told.message.len());
            sink.message_len = told.message_len;
        }
        told.status
    })
}

unsafe extern "C" fn function() {}

/// A table of `words` words: the size that it states, and slots that are there or not.
fn table(dice: &mut Dice, words: usize) -> Vec<usize> {
    let address = function as *const () as usize;
    let all = dice.once_in(2);
    let slot = |dice: &mut Dice| if all || !dice.once_in(12) { address } else { 0 };
    let mut table: Vec<usize> = (0..words).map(|_| slot(dice)).collect();
    // More than there is may be stated by a plugin of tomorrow; the host reads what it knows.
    table[0] = match dice.below(4) {
        0 => dice.below(words * 8 + 1),
        1 => words * 8 + dice.below(1 << 20),
        _ => words * 8,
    };
    // No more than is stated, so that valgrind sees who reads beyond.
    table.truncate(table[0].div_ceil(8).max(1));
    table
}

/// Whether the slots at `offsets` are all there.
fn has(table: &[usize], offsets: &[usize]) -> bool {
    let there = |at: &usize| at + 8 <= table[0] && table[at / 8] != 0;
    table[0] >= 16 && offsets.iter().all(there)
}

macro_rules! offsets {
    ($table:ty: $($slot:ident)*) => { &[$(offset_of!($table, $slot)),*] };
}

fn is_one_line(text: &str) {
    assert!(
        !text.trim().is_empty() && !text.chars().any(char::is_control),
        "{text:?}"
    );
}

#[test]
fn descriptions_of_plugins() {
    let required: [(&str, &[usize], usize); 5] = [
        (
            "device",
            offsets!(DsDeviceTable: count describe open close),
            size_of::<DsDeviceTable>(),
        ),
        (
            "memory",
            offsets!(DsMemoryTable: allocate free info copy),
            size_of::<DsMemoryTable>(),
        ),
        (
            "stream",
            offsets!(DsStreamTable: stream_create stream_destroy stream_synchronize stream_query
                event_create event_destroy event_record event_wait event_signal event_query
                event_synchronize),
            size_of::<DsStreamTable>(),
        ),
        (
            "op",
            offsets!(DsOpTable: prepare launch release),
            size_of::<DsOpTable>(),
        ),
        (
            "jit",
            offsets!(DsJitTable: toolchain_count toolchain request load),
            size_of::<DsJitTable>(),
        ),
    ];
    // Compared as a number that grows.
    let host_minor = std::hint::black_box(DS_ABI_MINOR);
    let mut dice = Dice::new(1);
    let times = drill::times(20_000, 2_000_000);
    let mut accepted = 0;
    for _ in 0..times {
        let tables = required.map(|(_, _, bytes)| table(&mut dice, bytes / 8));
        let given = [(); 5].map(|()| !dice.once_in(20));
        let at = |index: usize| {
            let table = tables[index].as_ptr().cast::<c_void>();
            if given[index] { table } else { ptr::null() }
        };
        let mut extensions: Vec<DsExtension> = (0..dice.below(3))
            .map(|_| DsExtension {
                struct_size: 32,
                flags: u32::from(dice.once_in(8)),
                type_id: [7; 16],
                next: ptr::null(),
            })
            .collect();
        // A chain, which may bite its own tail.
        let (first, count) = (extensions.as_mut_ptr(), extensions.len());
        let loops = dice.once_in(4);
        for index in 0..count {
            let next = match index + 1 {
                next if next < count => first.wrapping_add(next),
                _ if loops => first,
                _ => ptr::null_mut(),
            };
            // SAFETY: the index is below the count.
            unsafe { (*first.add(index)).next = next };
        }
        let text: Vec<u8> = (0..dice.below(40))
            .map(|_| dice.number().to_le_bytes()[0])
            .collect();
        let string = |len| DsStr {
            data: text.as_ptr().cast(),
            len,
        };
        let small = |dice: &mut Dice, odd: u32| {
            if dice.once_in(12) {
                odd.wrapping_add(u32::try_from(dice.below(4)).unwrap())
            } else {
                0
            }
        };
        let plugin = DsPlugin {
            struct_size: if dice.once_in(12) {
                u32::try_from(dice.below(1 << 10)).unwrap()
            } else {
                u32::try_from(size_of::<DsPlugin>()).unwrap()
            },
            abi_minor: small(&mut dice, 1),
            min_host_minor: small(&mut dice, u32::MAX - 2),
            panic_strategy: small(&mut dice, 1),
            features_required: u64::from(small(&mut dice, 1)),
            features_offered: dice.number(),
            extensions: if count == 0 { ptr::null() } else { first },
            id: string(text.len()),
            version: if dice.once_in(4) {
                DsStr {
                    data: ptr::null(),
                    len: 9,
                }
            } else {
                string(text.len() / 2)
            },
            device: at(0).cast(),
            memory: at(1).cast(),
            stream: at(2).cast(),
            op: at(3).cast(),
            jit: at(4).cast(),
            comm: ptr::null(),
            graph: ptr::null(),
        };
        let status = if dice.once_in(20) {
            dice.odd_number()
        } else {
            0
        };
        let told = Told {
            status: DsStatus::try_from(status & 0x7FFF).unwrap(),
            message: text.clone(),
            message_len: u32::try_from(dice.odd_number() & 0xFFFF_FFFF).unwrap(),
            plugin,
        };
        let fails = told.status != DS_OK;
        TOLD.set(Some(told));
        // SAFETY: the entry above keeps the contract, but for the numbers; nothing is called.
        let entered = unsafe { Plugin::enter("fuzzed", entry) };

        // A size beyond reason is taken for damage.
        let sane = |bytes: usize| bytes <= 64 << 10;
        let whole = |index: usize| has(&tables[index], required[index].1) && sane(tables[index][0]);
        let known = !extensions.iter().any(|extension| extension.flags != 0);
        let fits = !fails
            && plugin.struct_size as usize >= size_of::<DsPlugin>()
            && sane(plugin.struct_size as usize)
            && plugin.min_host_minor <= host_minor
            && plugin.panic_strategy != DS_PANIC_ABORT
            && plugin.features_required & !7 == 0
            && known
            && given[0]
            && whole(0);
        match entered {
            Ok(entered) => {
                assert!(fits, "{plugin:?} {tables:?}");
                assert_eq!(entered.agreement().minor, plugin.abi_minor.min(host_minor));
                let dropped: Vec<_> = entered.agreement().dropped.iter().map(|d| d.0).collect();
                let lacking = (1..5).filter(|index| given[*index] && !whole(*index));
                assert_eq!(
                    dropped,
                    lacking.map(|index| required[index].0).collect::<Vec<_>>()
                );
                let told = format!("{}{}", entered.id(), entered.version());
                assert!(!told.chars().any(char::is_control), "{told:?}");
                accepted += 1;
            }
            Err(error) => {
                assert!(!fits, "{error}: {plugin:?} {tables:?}");
                is_one_line(&error.to_string());
            }
        }
    }
    assert!(accepted > times / 10, "{accepted} of {times}");
    let found = format!("{times} inputs, {accepted} accepted, 0 panics");
    drill::tell("fuzz", "plugin description", &found);
}

/// Where a tensor's bytes begin and end, beside its data; worked out on its own.
fn span(tensor: &DLTensor, shape: &[i64], strides: Option<&[i64]>) -> (i128, i128) {
    let size = i128::from(tensor.dtype.bits) / 8;
    let offset = i128::from(tensor.byte_offset);
    if shape.contains(&0) {
        return (offset, offset);
    }
    let (mut low, mut high, mut step) = (0, 0, 1);
    for axis in (0..shape.len()).rev() {
        let stride = strides.map_or(step, |strides| i128::from(strides[axis]));
        let reach = (i128::from(shape[axis]) - 1) * stride;
        low += reach.min(0);
        high += reach.max(0);
        step *= i128::from(shape[axis]);
    }
    (offset + low * size, offset + (high + 1) * size)
}

#[test]
fn tensors_of_others() {
    unsafe extern "C" fn deleter(managed: *mut DlManagedTensor) {
        // SAFETY: the counter of the test, which outlives its tensors.
        let returned = unsafe { &*(*managed).manager_ctx.cast::<AtomicUsize>() };
        returned.fetch_add(1, Ordering::SeqCst);
    }
    let device = cpu().unwrap();
    let mut data = vec![0_u64; 64];
    let mut dice = Dice::new(2);
    let times = drill::times(20_000, 2_000_000);
    let mut accepted = 0;
    for _ in 0..times {
        let extent = |dice: &mut Dice| match dice.below(8) {
            0 => dice.odd_number().cast_signed(),
            1 => 0,
            _ => i64::try_from(dice.below(5)).unwrap(),
        };
        let shape: Vec<i64> = (0..9).map(|_| extent(&mut dice)).collect();
        let strides: Vec<i64> = (0..9).map(|_| extent(&mut dice)).collect();
        let without_strides = dice.once_in(3);
        let returned = AtomicUsize::new(0);
        let odd = |dice: &mut Dice, usual: u64| {
            if dice.once_in(15) {
                dice.odd_number()
            } else {
                usual
            }
        };
        let narrow = |number: u64| u32::try_from(number & 0xFFFF_FFFF).unwrap();
        let code = *dice.one_of(&[0_u8, 1, 2, 2, 4, 6, 9]);
        let mut managed = DlManagedTensor {
            version: DlVersion {
                major: narrow(odd(&mut dice, 1)),
                minor: narrow(dice.odd_number()),
            },
            manager_ctx: ptr::from_ref(&returned).cast_mut().cast(),
            deleter: Some(deleter),
            flags: odd(&mut dice, 0),
            dl_tensor: DLTensor {
                data: if dice.once_in(12) {
                    ptr::null_mut()
                } else {
                    data.as_mut_ptr().cast()
                },
                device: DLDevice {
                    device_type: narrow(odd(&mut dice, 1)).cast_signed(),
                    device_id: narrow(odd(&mut dice, 0)).cast_signed(),
                },
                ndim: if dice.once_in(12) {
                    narrow(dice.odd_number()).cast_signed()
                } else {
                    i32::try_from(dice.below(4)).unwrap()
                },
                dtype: DLDataType {
                    code,
                    bits: *dice.one_of(&[8, 16, 32, 64, 0, 1, 4]),
                    lanes: if dice.once_in(12) { 4 } else { 1 },
                },
                shape: if dice.once_in(20) {
                    ptr::null()
                } else {
                    shape.as_ptr()
                },
                strides: if without_strides {
                    ptr::null()
                } else {
                    strides.as_ptr()
                },
                byte_offset: odd(&mut dice, 0),
            },
        };
        // SAFETY: the memory is there for as much as the host itself touches, which is none: the
        // tensor is dropped again.
        let imported: Result<Tensor, Error> =
            unsafe { Tensor::from_dlpack(device, &raw mut managed) };
        match imported {
            Ok(tensor) => {
                let dl = &managed.dl_tensor;
                let rank = usize::try_from(dl.ndim).unwrap();
                assert_eq!(tensor.shape(), &shape[..rank]);
                let strides = (!without_strides).then_some(&strides[..rank]);
                let (low, high) = span(dl, &shape[..rank], strides);
                let start = dl.data.addr() as i128;
                assert!(
                    low >= 0 && start + high <= i128::from(u64::MAX),
                    "{managed:?} {shape:?}"
                );
                assert!(!dl.data.is_null() || shape[..rank].contains(&0));
                assert_eq!(returned.load(Ordering::SeqCst), 0);
                drop(tensor);
                assert_eq!(returned.load(Ordering::SeqCst), 1, "given back once");
                accepted += 1;
            }
            Err(error) => {
                is_one_line(&error.to_string());
                assert_eq!(
                    returned.load(Ordering::SeqCst),
                    0,
                    "the caller still owns it"
                );
            }
        }
    }
    assert!(accepted > times / 50, "{accepted} of {times}");
    let found = format!("{times} inputs, {accepted} accepted, 0 panics");
    drill::tell("fuzz", "DLPack", &found);
}
