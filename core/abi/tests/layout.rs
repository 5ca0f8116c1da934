//! The layout of the boundary, guarded three ways: against the committed `include/layout.txt`, so
//! that no release moves a field; against the rules of the boundary; and against a C compiler's
//! reading of `include/ds_plugin.h`, so that C and Rust agree.
#![cfg(target_pointer_width = "64")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::mem::{align_of, offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ds_abi::*;

/// Lists every struct with its fields. A field that is left out does not compile.
macro_rules! structs {
    ($($name:ident { $($field:ident),* $(,)? })*) => {
        fn structs() -> Vec<Layout> {
            vec![$(Layout {
                name: stringify!($name),
                size: size_of::<$name>(),
                align: align_of::<$name>(),
                fields: vec![$(Field {
                    name: stringify!($field),
                    offset: offset_of!($name, $field),
                    size: size_of_field(|value: &$name| &value.$field),
                }),*],
            }),*]
        }

        $(const _: fn($name) = |value| {
            let $name { $($field: _),* } = value;
        };)*
    };
}

structs! {
    DsErrorSink {
        struct_size, code, vendor_code, flags, a, b, reason, message_len, message_capacity,
        reserved, message,
    }
    DsStr { data, len }
    DsBytes { data, len }
    DsExtension { struct_size, flags, type_id, next }
    DLDataType { code, bits, lanes }
    DLDevice { device_type, device_id }
    DLTensor { data, device, ndim, dtype, shape, strides, byte_offset }
    DsTensor { struct_size, flags, dl }
    DsValue { kind, reserved, value }
    DsTensorSignature { dtype, ndim, shape, strides, layout, alignment_log2, reserved, alias_of }
    DsArgument { first, count }
    DsSignature {
        struct_size, flags, op, schema_hash, arguments, argument_count, tensor_count, tensors,
        tensor_stride, attribute_count, attributes,
    }
    DsDeviceInfo {
        struct_size, numa_node, name, target, driver_version, uuid, pci, flags, dtypes,
        memory_bytes, alignment_bytes, compute_units, dlpack_type, reserved,
    }
    DsDeviceTable { struct_size, reserved, count, describe, open, close, synchronize }
    DsEventState { struct_size, status, value, time_ns }
    DsStreamTable {
        struct_size, reserved, stream_create, stream_destroy, stream_synchronize, stream_query,
        stream_native, stream_wrap, event_create, event_destroy, event_record, event_wait,
        event_signal, event_query, event_synchronize, event_on_ready,
    }
    DsMemoryInfo { struct_size, reserved, total_bytes, free_bytes }
    DsCopy { struct_size, direction, destination, source, bytes, peer }
    DsMemoryTable { struct_size, reserved, allocate, free, info, copy, fill }
    DsToolchain { struct_size, kind, name, programs, version, hint }
    DsSource { name, content }
    DsBuildRequest {
        struct_size, flags, toolchain, sources, source_count, source_stride, arguments,
        argument_count, reserved, output,
    }
    DsArtefact { struct_size, flags, kernel, path, content }
    DsJitTable { struct_size, reserved, toolchain_count, toolchain, request, compile, load }
    DsNode { struct_size, flags, kernel, signature, module }
    DsPrepared { struct_size, flags, handle, workspace_bytes, workspace_alignment }
    DsLaunch {
        struct_size, flags, stream, tensors, tensor_count, tensor_stride, scalars, scalar_count,
        reserved, workspace, workspace_bytes, correlation,
    }
    DsOpTable { struct_size, reserved, refine, prepare, launch, release }
    DsHost {
        struct_size, abi_minor, min_plugin_minor, reserved, features, extensions, context, log,
    }
    DsPlugin {
        struct_size, abi_minor, min_host_minor, panic_strategy, features_required,
        features_offered, extensions, id, version, device, memory, stream, op, jit, comm, graph,
    }
}

/// The one union. Reading its fields would be unsafe, so their types are stated, and proved by
/// building it from them.
fn union() -> Layout {
    const _: fn(i64) -> DsValueBits = |integer| DsValueBits { integer };
    const _: fn(f64) -> DsValueBits = |real| DsValueBits { real };
    Layout {
        name: "DsValueBits",
        size: size_of::<DsValueBits>(),
        align: align_of::<DsValueBits>(),
        fields: vec![
            Field {
                name: "integer",
                offset: offset_of!(DsValueBits, integer),
                size: size_of::<i64>(),
            },
            Field {
                name: "real",
                offset: offset_of!(DsValueBits, real),
                size: size_of::<f64>(),
            },
        ],
    }
}

/// Elements of arrays that carry their stride: they grow like a struct that states its size.
const STRIDED: [&str; 2] = ["DsSource", "DsTensorSignature"];

/// Structs that state no size and whose arrays have no stride. They never change.
const FROZEN: [&str; 8] = [
    "DLDataType",
    "DLDevice",
    "DLTensor",
    "DsArgument",
    "DsBytes",
    "DsStr",
    "DsValue",
    "DsValueBits",
];

struct Layout {
    name: &'static str,
    size: usize,
    align: usize,
    fields: Vec<Field>,
}

struct Field {
    name: &'static str,
    offset: usize,
    size: usize,
}

fn size_of_field<S, F>(_: for<'a> fn(&'a S) -> &'a F) -> usize {
    size_of::<F>()
}

fn layouts() -> Vec<Layout> {
    let mut layouts = structs();
    layouts.push(union());
    layouts
}

/// The text of `layout.txt`.
fn text() -> String {
    let mut text = String::from(
        "# Offset and size of every field of the boundary, in bytes, where pointers have 64 bits.\n\
         # Written by `cargo xtask headers`; lines are added, never changed.\n",
    );
    for layout in layouts() {
        let (name, size, align) = (layout.name, layout.size, layout.align);
        let _ = writeln!(text, "\n{name} size {size} align {align}");
        for Field { name, offset, size } in layout.fields {
            let _ = writeln!(text, "{offset:>5} {size:>3}  {name}");
        }
    }
    text
}

fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

/// What would break a plugin that was compiled with the old layout.
fn breaks(old: &str, new: &str) -> Vec<String> {
    let new = parse(new);
    let mut breaks = Vec::new();
    for (name, was) in parse(old) {
        let Some((_, is)) = new.iter().find(|(other, _)| *other == name) else {
            breaks.push(format!("{name} vanished"));
            continue;
        };
        if was.align != is.align {
            breaks.push(format!("{name}: `{}` became `{}`", was.align, is.align));
        }
        for (place, field) in was.fields.iter().enumerate() {
            let now = is.fields.get(place).unwrap_or(&"");
            if now != field {
                breaks.push(format!("{name}: `{field}` became `{now}`"));
            }
        }
        if FROZEN.contains(&name) && is.fields.len() > was.fields.len() {
            breaks.push(format!(
                "{name} grew, but nothing tells its size to an older side"
            ));
        }
    }
    breaks
}

struct Parsed<'a> {
    align: &'a str,
    fields: Vec<&'a str>,
}

/// Structs of a `layout.txt`, in its order.
fn parse(text: &str) -> Vec<(&str, Parsed<'_>)> {
    let mut structs: Vec<(&str, Parsed<'_>)> = Vec::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with(' ') {
            let (_, parsed) = structs.last_mut().expect("a field follows its struct");
            parsed.fields.push(line.trim());
        } else {
            let (name, rest) = line.split_once(" size ").expect("a struct states its size");
            let (_, align) = rest.split_once(' ').expect("and then its alignment");
            let fields = Vec::new();
            structs.push((name, Parsed { align, fields }));
        }
    }
    structs
}

/// Compares with what is committed. `cargo xtask headers` sets `DS_ABI_LAYOUT`: to `write` for
/// additions, to `break` for a change that existing plugins will not survive.
#[test]
fn layout_is_the_committed_one() {
    let file = include().join("layout.txt");
    let (old, new) = (std::fs::read_to_string(&file).unwrap_or_default(), text());
    let mode = std::env::var("DS_ABI_LAYOUT").unwrap_or_default();
    if mode != "break" {
        let breaks = breaks(&old, &new);
        assert!(
            breaks.is_empty(),
            "this breaks every plugin that is already compiled:\n  {}\nappend instead, or, while \
             nothing is released, run: cargo xtask headers --break-layout",
            breaks.join("\n  ")
        );
    }
    if mode.is_empty() {
        assert!(
            old == new,
            "fields were added; renew layout.txt with: cargo xtask headers"
        );
    } else if old != new {
        std::fs::write(file, new).expect("the include folder is writable");
    }
}

#[test]
fn only_additions_keep_old_plugins_alive() {
    let old = "# c\n\nDsHost size 8 align 4\n    0   4  a\n    4   4  b\n";
    let grown = format!("{old}    8   4  c\n").replace("size 8", "size 12");
    let none: [&str; 0] = [];
    assert_eq!(breaks(old, old), none);
    assert_eq!(breaks(old, &grown), none);
    assert_eq!(breaks(old, ""), ["DsHost vanished"]);
    assert_eq!(
        breaks(old, &old.replace("4  b", "4  x")),
        ["DsHost: `4   4  b` became `4   4  x`"]
    );
    assert_eq!(
        breaks(old, &old.replace("    4   4  b\n", "")),
        ["DsHost: `4   4  b` became ``"]
    );
    assert_eq!(
        breaks(old, &old.replace("align 4", "align 8")),
        ["DsHost: `align 4` became `align 8`"]
    );
    assert_eq!(
        breaks(
            &old.replace("DsHost", "DsStr"),
            &grown.replace("DsHost", "DsStr")
        ),
        ["DsStr grew, but nothing tells its size to an older side"]
    );
}

#[test]
fn every_struct_of_the_header_is_listed() {
    let header = std::fs::read_to_string(include().join("ds_plugin.h")).expect("header");
    let mut declared: Vec<_> = header
        .lines()
        .filter_map(|line| {
            let line = line.strip_suffix(" {")?;
            line.strip_prefix("typedef struct ")
                .or(line.strip_prefix("typedef union "))
        })
        .collect();
    let mut listed: Vec<_> = layouts().iter().map(|layout| layout.name).collect();
    declared.sort_unstable();
    listed.sort_unstable();
    assert_eq!(declared, listed);
}

#[test]
fn structs_tell_their_size_or_never_grow() {
    for layout in layouts() {
        let sized = layout.fields[0].name == "struct_size" && layout.fields[0].size == 4;
        let listed = STRIDED.contains(&layout.name) || FROZEN.contains(&layout.name);
        assert!(
            sized != listed,
            "{} must start with struct_size",
            layout.name
        );
    }
}

/// Bytes between fields travel uninitialised, and a field put there later would read them.
#[test]
fn structs_have_no_hidden_padding() {
    for layout in structs() {
        let name = layout.name;
        let mut end = 0;
        for field in &layout.fields {
            assert_eq!(field.offset, end, "padding before {name}.{}", field.name);
            end += field.size;
        }
        assert_eq!(layout.size, end, "padding at the end of {name}");
    }
}

#[test]
fn c_agrees_with_rust() {
    let mut source = String::from("#include \"ds_plugin.h\"\n#include <stdalign.h>\n");
    let mut claim = |claim: String| {
        let _ = writeln!(source, "CLAIM({claim}, \"\");");
    };
    for layout in layouts() {
        let name = layout.name;
        claim(format!("sizeof({name}) == {}", layout.size));
        claim(format!("alignof({name}) == {}", layout.align));
        for field in layout.fields {
            let Field {
                name: field,
                offset,
                size,
            } = field;
            claim(format!("offsetof({name}, {field}) == {offset}"));
            claim(format!("sizeof((({name} *)0)->{field}) == {size}"));
        }
    }
    for (name, value) in [
        ("DS_ABI_MAJOR", u64::from(DS_ABI_MAJOR)),
        ("DS_FOREVER", DS_FOREVER),
        ("DS_DEVICE_TRITON", DS_DEVICE_TRITON),
        (
            "sizeof(DS_PLUGIN_ENTRY_V1)",
            DS_PLUGIN_ENTRY_V1.len() as u64,
        ),
    ] {
        claim(format!("{name} == {value}u"));
    }
    claim(format!("DS_DIM_DYNAMIC == {DS_DIM_DYNAMIC}"));
    compile(
        "cc",
        &["-xc", "-std=c11", "-DCLAIM=_Static_assert"],
        &source,
    );
    compile(
        "c++",
        &["-xc++", "-std=c++17", "-DCLAIM=static_assert"],
        &source,
    );
}

/// Compiles a source that includes the header; every warning is an error.
fn compile(compiler: &str, arguments: &[&str], source: &str) {
    let child = Command::new(compiler)
        .args(arguments)
        .args(["-Wall", "-Wextra", "-pedantic", "-Werror"])
        .args(["-fsyntax-only", "-I"])
        .arg(include())
        .arg("-")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            let _ = writeln!(
                std::io::stderr(),
                "skipped: {compiler} does not run ({error}), so the header was not compiled with it"
            );
            return;
        }
    };
    let mut input = child.stdin.take().expect("stdin is piped");
    // A compiler that ends early has said why, which the exit status reports below.
    let _ = input.write_all(source.as_bytes());
    drop(input);
    let output = child.wait_with_output().expect("the compiler ends");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{compiler} disagrees with rustc:\n{log}"
    );
}
