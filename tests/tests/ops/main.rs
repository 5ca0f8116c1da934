//! Every op on the CPU accelerator against its reference: dtypes, odd shapes, strides, nothing at
//! all, and numbers that are none.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod activations;
mod cross_entropy;
mod dropout;
mod elementwise;
mod embedding;
mod evoformer_attn;
mod flash_attn;
mod fp_quantizer;
mod golden;
mod grads;
mod grouped_matmul;
mod inference;
mod matmul;
mod moe;
mod movement;
mod muon;
mod norms;
mod optimizers;
mod packbits;
mod quantized_linear;
mod quantizer;
mod ragged;
mod reduce;
mod rope;
mod sampling;
mod softmax;
mod sparse_attn;
mod transformer;

use std::{
    collections::HashSet, ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, process::Command,
};

use ds_core::{
    DType, ErrorKind, Stream, Tensor,
    op::{self, Case, HostCall, Size},
};
use ds_schema::{Attr, Multiplicity};
use ds_tests::{
    PLUGINS_VARIABLE,
    cases::{Numbers, copy, tensor},
    compare::{values, with_reference},
    cpu, example,
};

/// Set in the processes that run these tests again.
const AGAIN: &str = "DS_TESTS_AGAIN";

/// Runs the other tests of this file in a process with these variables.
fn again(variables: &[(&str, &Path)]) {
    if std::env::var_os(AGAIN).is_some() {
        return;
    }
    let done = Command::new(std::env::current_exe().unwrap())
        .envs(variables.iter().copied())
        .env(AGAIN, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && told.contains("test result: ok. "),
        "{variables:?}: {told}"
    );
}

#[test]
fn all_of_it_with_the_default_stream_asynchronous() {
    again(&[("DS_CPU_STREAMS", Path::new("async"))]);
}

#[test]
fn all_of_it_on_kernels_for_a_lesser_processor() {
    for level in ["default", "avx2"] {
        again(&[("DS_CPU_CAPABILITY", Path::new(level))]);
    }
}

#[test]
fn all_of_it_without_a_compiler() {
    let cache = tempfile::tempdir().unwrap();
    let nowhere = Path::new("/nonexistent");
    again(&[
        ("PATH", nowhere),
        ("CC", Path::new("")),
        ("DS_CACHE_DIR", cache.path()),
    ]);
    assert_eq!(
        std::fs::read_dir(cache.path()).unwrap().count(),
        0,
        "nothing was written"
    );
}

#[test]
fn all_of_it_without_a_place_for_the_cache() {
    again(&[("DS_CACHE_DIR", Path::new("/dev/null/cache"))]);
    let no_home = Path::new("");
    again(&[
        ("HOME", no_home),
        ("XDG_CACHE_HOME", no_home),
        ("DS_CACHE_DIR", no_home),
    ]);
}

#[test]
fn all_of_it_with_a_home_that_is_not_utf_8() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join(OsStr::from_bytes(b"h\xffme"));
    std::fs::create_dir(&home).unwrap();
    let unset = Path::new("");
    again(&[
        ("HOME", &home),
        ("XDG_CACHE_HOME", unset),
        ("DS_CACHE_DIR", unset),
    ]);
    let written = std::fs::read_dir(&home).unwrap().count();
    assert_eq!(written, 0, "nothing was written");
}

#[test]
fn all_of_it_on_the_plugin_as_a_file() {
    if std::env::var_os(AGAIN).is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    example::build_cpu(folder.path()).unwrap();
    again(&[(PLUGINS_VARIABLE, folder.path())]);
}

#[test]
fn equal_calls_give_equal_bits_whatever_the_threads() {
    let s = stream();
    let mut numbers = Numbers::new(8);
    let mut t = |shape: &[i64]| numbers.tensor(s, DType::F32, shape).unwrap();
    let (dy, x, weight) = (t(&[300, 257]), t(&[300, 257]), t(&[257]));
    let (a, b) = (t(&[130, 300]), t(&[300, 70]));
    let (y, rstd) = ds_ops::rms_norm::rms_norm(s, &x, &weight, 1e-6).unwrap();
    let (dx, dw) = ds_ops::rms_norm::rms_norm_backward(s, &dy, &x, &weight, &rstd).unwrap();
    let c = ds_ops::matmul::matmul(s, &a, &b).unwrap();
    equal_on_any_threads("equal_calls", &[&y, &rstd, &dx, &dw, &c]);
}

/// Holds the bits of these results of the test `name` against those that it has in processes with
/// other numbers of threads.
#[allow(clippy::print_stdout, reason = "how a process tells them to the other")]
fn equal_on_any_threads(name: &str, results: &[&Tensor]) {
    let mut sums = Vec::new();
    for tensor in results {
        let sum = tensor
            .to_bytes(stream())
            .unwrap()
            .iter()
            .fold(14_695_981_039_346_656_037, |h, b| {
                (h ^ u64::from(*b)).wrapping_mul(1_099_511_628_211_u64)
            });
        sums.push(format!("{sum:x}"));
    }
    let bits = sums.join(" ");
    println!("bits: {bits}");
    if std::env::var_os(AGAIN).is_some() {
        return;
    }
    for threads in ["1", "2", "3"] {
        let done = Command::new(std::env::current_exe().unwrap())
            .args([name, "--nocapture"])
            .envs([(AGAIN, "1"), ("DS_CPU_THREADS", threads)])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&done.stdout);
        assert!(
            told.contains(&format!("bits: {bits}")),
            "{threads} threads: {told}"
        );
    }
}

#[test]
fn every_case_of_the_catalogue_is_right() {
    for op in op::ops() {
        for case in op.cases(Size::Small) {
            let verified = op::verify(stream(), &case, |_, _| {}).unwrap();
            assert_eq!(verified.wrong, [], "{case:?} on {:?}", verified.runs_on);
        }
    }
}

/// The dtypes of each argument in these cases.
fn dtypes(cases: &[Case]) -> HashSet<(usize, DType)> {
    let calls = cases.iter().map(|case| case.call().unwrap());
    let of = |call: HostCall| -> Vec<_> {
        let args = call.args.iter().enumerate();
        args.flat_map(|(index, arg)| arg.iter().map(move |t| (index, t.dtype)))
            .collect()
    };
    calls.flat_map(of).collect()
}

/// What nobody tries is not verified: each dtype that a schema lists for an argument is in a case,
/// and in a large one too.
#[test]
fn cases_cover_every_dtype_of_every_argument() {
    if std::env::var_os(AGAIN).is_some() {
        return;
    }
    for op in op::ops() {
        // The large ones are as many gigabytes; that they are there has to do.
        assert!(!op.cases(Size::Large).is_empty(), "{}", op.name());
        for size in [Size::Small, Size::Cached] {
            let seen = dtypes(&op.cases(size));
            for (index, argument) in op.schema().arguments().iter().enumerate() {
                let is_optional = argument.multiplicity == Multiplicity::Optional;
                if is_optional && size != Size::Small {
                    continue;
                }
                for dtype in op.schema().dtypes(argument.element) {
                    let name = &argument.name;
                    let found = seen.contains(&(index, dtype));
                    assert!(found, "{} {name} {dtype} {size:?}", op.name());
                }
            }
        }
        let mut names: Vec<_> = op
            .cases(Size::Small)
            .iter()
            .map(|c| c.name().to_owned())
            .collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{} has two cases of a name", op.name());
    }
}

const FLOATS: [DType; 3] = [DType::F32, DType::BF16, DType::F16];
const EPS: Attr = Attr::F64(1e-6);

fn stream() -> &'static Stream {
    cpu().unwrap().default_stream().unwrap()
}

fn check(name: &str, args: &[&[&Tensor]], attributes: &[Attr], scalars: &[Attr]) {
    let differences = with_reference(name, stream(), args, attributes, scalars).unwrap();
    assert_eq!(
        differences,
        [],
        "{name} {args:?} {attributes:?} {scalars:?}"
    );
}

#[test]
fn rms_norm_is_right_for_every_dtype_and_odd_shape() {
    let shapes: [&[i64]; 9] = [
        &[1, 1],
        &[1, 64],
        &[3, 7],
        &[2, 3, 5],
        &[37, 129],
        &[4, 4096],
        &[1, 14432],
        &[5],
        &[0, 8],
    ];
    for dtype in FLOATS {
        for shape in shapes {
            let mut numbers = Numbers::new(1);
            let x = numbers.tensor(stream(), dtype, shape).unwrap();
            let d = *shape.last().unwrap();
            let weight = numbers.tensor(stream(), dtype, &[d]).unwrap();
            let y = Tensor::empty(stream(), dtype, shape).unwrap();
            let rstd = Tensor::empty(stream(), DType::F32, &shape[..shape.len() - 1]).unwrap();
            check(
                "rms_norm",
                &[&[&x], &[&weight], &[&y], &[&rstd]],
                &[],
                &[EPS],
            );
            let dy = numbers.tensor(stream(), dtype, shape).unwrap();
            let dx = Tensor::empty(stream(), dtype, shape).unwrap();
            let dw = Tensor::empty(stream(), dtype, &[d]).unwrap();
            let args: [&[&Tensor]; 6] = [&[&dy], &[&x], &[&weight], &[&rstd], &[&dx], &[&dw]];
            check("rms_norm_backward", &args, &[], &[]);
        }
    }
}

/// Large results take another way to memory: they are the small ones, bit for bit. Rows of this
/// length are not all aligned to a vector.
#[test]
fn rms_norm_of_many_rows_is_that_of_each() {
    const D: i64 = 4100;
    const ROWS: i64 = 89;
    const COPIES: i64 = 23;
    let s = stream();
    let mut numbers = Numbers::new(9);
    let mut two = |shape: &[i64]| {
        let few = numbers.tensor(s, DType::F32, shape).unwrap();
        let bytes = few.to_bytes(s).unwrap().repeat(23);
        let many = Tensor::from_bytes(s, DType::F32, &[COPIES * ROWS, D], &bytes).unwrap();
        [few, many]
    };
    let ([x, xs], [dy, dys]) = (two(&[ROWS, D]), two(&[ROWS, D]));
    let weight = numbers.tensor(s, DType::F32, &[D]).unwrap();
    let rstd = Tensor::empty(s, DType::F32, &[ROWS]).unwrap();
    let args: [&[&Tensor]; 4] = [&[&x], &[&weight], &[&dy], &[&rstd]];
    let op = op::find("rms_norm").unwrap();
    if let op::RunsOn::Reference(_) = op::resolve(op, s, &args, &[], &[EPS]).unwrap() {
        // It has one way only, and takes long for so many elements.
        return;
    }
    let both = |x: &Tensor, dy: &Tensor| {
        let (y, rstd) = ds_ops::rms_norm::rms_norm(s, x, &weight, 1e-6).unwrap();
        let (dx, _) = ds_ops::rms_norm::rms_norm_backward(s, dy, x, &weight, &rstd).unwrap();
        [y, dx].map(|t| t.to_bytes(s).unwrap())
    };
    for (few, many) in both(&x, &dy).iter().zip(both(&xs, &dys)) {
        assert!(many.len() >= 32 << 20, "too few to be large");
        for copy in many.chunks_exact(few.len()) {
            assert!(copy == few.as_slice());
        }
    }
}

#[test]
fn rms_norm_takes_rows_with_gaps_and_leaves_the_gaps_alone() {
    let mut numbers = Numbers::new(2);
    let wide = numbers.tensor(stream(), DType::F32, &[6, 40]).unwrap();
    let before = values(stream(), &wide).unwrap();
    let x = numbers.tensor(stream(), DType::F32, &[6, 33]).unwrap();
    let y = wide.narrow(1, 3, 33).unwrap();
    let weight = numbers.tensor(stream(), DType::F32, &[33]).unwrap();
    let rstd = Tensor::empty(stream(), DType::F32, &[6]).unwrap();
    check(
        "rms_norm",
        &[&[&x], &[&weight], &[&y], &[&rstd]],
        &[],
        &[EPS],
    );
    let after = values(stream(), &wide).unwrap();
    for (index, (before, after)) in before.iter().zip(&after).enumerate() {
        if !(3..36).contains(&(index % 40)) {
            assert_eq!(before, after, "element {index} lies in a gap");
        }
    }
}

#[test]
fn cast_is_exact_for_every_pair_and_length() {
    for from in FLOATS {
        for to in FLOATS {
            for n in [1, 15, 16, 17, 100_003] {
                let x = Numbers::new(3).tensor(stream(), from, &[n]).unwrap();
                let y = Tensor::empty(stream(), to, &[n]).unwrap();
                check("cast", &[&[&x], &[&y]], &[], &[]);
            }
        }
    }
}

/// The five pairs of parameter and state that upstream has.
const PAIRS: [(DType, DType); 5] = [
    (DType::F32, DType::F32),
    (DType::BF16, DType::F32),
    (DType::BF16, DType::BF16),
    (DType::F16, DType::F32),
    (DType::F16, DType::F16),
];

struct AdamCase {
    tensors: [Vec<Tensor>; 4],
}

impl AdamCase {
    fn new((param, state): (DType, DType), sizes: &[i64]) -> Self {
        let mut numbers = Numbers::new(6);
        let mut list = |dtype, square: bool| -> Vec<Tensor> {
            sizes
                .iter()
                .map(|&n| {
                    let values: Vec<f64> = (0..n).map(|_| numbers.draw()).collect();
                    let values = values.iter().map(|v| if square { v * v } else { *v });
                    tensor(stream(), dtype, &[n], &values.collect::<Vec<_>>()).unwrap()
                })
                .collect()
        };
        Self {
            tensors: [
                list(param, false),
                list(param, false),
                list(state, false),
                list(state, true),
            ],
        }
    }

    fn check(&self, found_inf: &[&Tensor], attributes: [bool; 2], step: i64, weight_decay: f64) {
        let lists: Vec<Vec<&Tensor>> = self.tensors.iter().map(|l| l.iter().collect()).collect();
        let args = [&lists[0][..], &lists[1], &lists[2], &lists[3], found_inf];
        let scalars = [
            Attr::F64(1e-2),
            Attr::F64(0.9),
            Attr::F64(0.999),
            Attr::F64(1e-8),
            Attr::F64(weight_decay),
            Attr::I64(step),
        ];
        check("adam_step", &args, &attributes.map(Attr::Bool), &scalars);
    }
}

#[test]
fn adam_is_right_for_every_pair_mode_and_length() {
    for pair in PAIRS {
        for attributes in [[true, true], [true, false], [false, true], [false, false]] {
            for step in [1, 100_000] {
                AdamCase::new(pair, &[1, 0, 37, 16, 20_000, 5]).check(&[], attributes, step, 0.1);
            }
        }
    }
}

#[test]
fn adam_of_an_empty_list_does_nothing() {
    AdamCase::new(PAIRS[0], &[]).check(&[], [true, true], 1, 0.0);
}

#[test]
fn adam_skips_the_step_when_the_device_says_so() {
    let flag = |value| tensor(stream(), DType::F32, &[], &[value]).unwrap();
    let case = AdamCase::new(PAIRS[0], &[100]);
    let before: Vec<_> = case
        .tensors
        .iter()
        .map(|l| values(stream(), &l[0]).unwrap())
        .collect();
    case.check(&[&flag(1.0)], [true, true], 1, 0.1);
    let after: Vec<_> = case
        .tensors
        .iter()
        .map(|l| values(stream(), &l[0]).unwrap())
        .collect();
    assert_eq!(before, after);
    case.check(&[&flag(0.0)], [true, true], 1, 0.1);
    assert_ne!(values(stream(), &case.tensors[0][0]).unwrap(), before[0]);
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_changes_nothing() {
    let s = stream();
    let mut numbers = Numbers::new(7);
    let mut t = |shape: &[i64]| numbers.tensor(s, DType::F32, shape).unwrap();
    let (x, weight, short) = (t(&[4, 8]), t(&[8]), t(&[7]));
    let y = copy(s, &x).unwrap();
    let rstd = t(&[4]);
    let run = |args: &[&[&Tensor]], scalars: &[Attr]| {
        let op = op::find("rms_norm").unwrap();
        op::launch(op, s, args, &[], scalars).unwrap_err()
    };
    let error = run(&[&[&x], &[&short], &[&y], &[&rstd]], &[EPS]);
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        error.to_string(),
        "rms_norm: argument 'weight': dimension D is 7, but 'x' has D = 8"
    );
    let error = run(&[&[&x], &[&weight], &[&y], &[&rstd]], &[]);
    assert_eq!(
        error.to_string(),
        "rms_norm: takes 1 scalar (eps), the call has 0"
    );
    let part = y.narrow(0, 1, 3).unwrap();
    let (three, rstd3) = (y.narrow(0, 0, 3).unwrap(), rstd.narrow(0, 0, 3).unwrap());
    let error = run(&[&[&three], &[&weight], &[&part], &[&rstd3]], &[EPS]);
    assert_eq!(
        error.to_string(),
        "rms_norm: arguments 'x' and 'y' overlap in memory, and one of them is written"
    );
    assert_eq!(values(s, &y).unwrap(), values(s, &x).unwrap());
}
