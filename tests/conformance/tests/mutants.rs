//! Controls: the example in C with one thing wrong, which the check that is there for it has to find.
//! A suite that passes everything fails here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, process::Command, sync::Mutex, thread};

use ds_tests::{drill, example};

/// One thing wrong: what, in which file, this for that, and which check has to find it.
struct Mutant(
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const MUTANTS: &[Mutant] = &[
    // ---- The folder and the entry
    Mutant(
        "a kernel for an op that is not there",
        "plugin.json",
        "\"op\": \"cast\"",
        "\"op\": \"carst\"",
        "kernel sim_cast",
    ),
    Mutant(
        "a table that the manifest does not have",
        "plugin.json",
        "\"op\", \"jit\"]",
        "\"op\"]",
        "it says of itself what its manifest does",
    ),
    Mutant(
        "another id in the entry",
        "plugin.c",
        "sim_str(\"org.example.sim\")",
        "sim_str(\"org.example.other\")",
        "it says of itself what its manifest does",
    ),
    Mutant(
        "an extension that must be understood, ignored",
        "plugin.c",
        "            return true;",
        "            return false;",
        "an extension that must be understood is refused or its own",
    ),
    Mutant(
        "a struct filled beyond its size",
        "support.c",
        "memcpy(theirs, own, filled);",
        "memcpy(theirs, own, own_bytes);",
        "a device is described within what there is room for",
    ),
    // ---- Memory
    Mutant(
        "the last byte of a copy, forgotten",
        "memory.c",
        "memmove(destination, source, (size_t)copy->bytes);",
        "memmove(destination, source, (size_t)copy->bytes - 1);",
        "bytes come back from any place",
    ),
    Mutant(
        "one byte too many copied",
        "memory.c",
        "memmove(destination, source, (size_t)copy->bytes);",
        "memmove(destination, source, (size_t)copy->bytes + (copy->destination_device != NULL));",
        "copies on the device touch their range alone",
    ),
    Mutant(
        "memory given to two",
        "memory.c",
        "from = (*link)->offset + (*link)->bytes;",
        "from = (*link)->offset + (*link)->bytes / 2;",
        "blocks are aligned and apart",
    ),
    Mutant(
        "another status where memory ends",
        "memory.c",
        "{.code = DS_OUT_OF_MEMORY, .a = bytes",
        "{.code = DS_INTERNAL, .a = bytes",
        "memory ends without harm",
    ),
    // ---- Streams
    Mutant(
        "a wait, dropped",
        "event.c",
        "wait_for(wait->event, wait->value, DS_FOREVER, failure);",
        "(void)wait, (void)failure;",
        "a stream waits for another one",
    ),
    Mutant(
        "a record that does not wait for the work before it",
        "event.c",
        "    atomic_fetch_add(&event->references, 1);\n    item->work.run",
        "    atomic_fetch_add(&event->references, 1);\n    \
         struct sim_failure none = {.status = DS_OK};\n    \
         if (record) raise_to(event, value, &none);\n    item->work.run",
        "a stream waits for another one",
    ),
    Mutant(
        "a timeline that goes down",
        "event.c",
        "} else if (value > event->value) {",
        "} else {",
        "a timeline goes up only",
    ),
    Mutant(
        "a failure, swallowed",
        "event.c",
        "            event->failure = *failure;",
        "            event->value = UINT64_MAX;",
        "a failure goes with those who wait",
    ),
    Mutant(
        "a wait without an end",
        "event.c",
        "bool forever = timeout_ns == DS_FOREVER || deadline_ns < timeout_ns;",
        "bool forever = true;",
        "a wait ends in time",
    ),
    // ---- Ops
    Mutant(
        "epsilon off",
        "kernels.c",
        "(double)length + scalars[0])",
        "(double)length + 2 * scalars[0])",
        "cases of rms_norm",
    ),
    Mutant(
        "the tail, skipped",
        "kernels.c",
        "i < tensors[0].elements; i++) {\n        store(",
        "i < tensors[0].elements / 8 * 8; i++) {\n        store(",
        "sim_cast: inside its bounds",
    ),
    Mutant(
        "the input, returned",
        "kernels.c",
        "(float)(x[row * length + i] * scale * weight[i])",
        "x[row * length + i]",
        "sim_rms_norm: inside its bounds",
    ),
    Mutant(
        "a wrong stride",
        "kernels.c",
        "(float)(x[row * length + i] * scale",
        "(float)(x[row * (length - 1) + i] * scale",
        "sim_rms_norm: inside its bounds",
    ),
    Mutant(
        "another rounding",
        "kernels.c",
        "return kept + (rest > half || (rest == half && (kept & 1)));",
        "return kept + (rest >= half);",
        "cases of cast",
    ),
    Mutant(
        "NaN, lost",
        "kernels.c",
        "return (uint16_t)(bits >> 16 | 0x40); // quiet, and never cut down to infinity",
        "return 0;",
        "sim_cast: numbers that are none",
    ),
    Mutant(
        "a bound that is one off",
        "kernels.c",
        ".row_min = 1,",
        ".row_min = 2,",
        "sim_rms_norm: inside its bounds",
    ),
    Mutant(
        "a dtype that is not taken",
        "plugin.json",
        "\"dtypes\": { \"T\": [\"f32\"] }",
        "\"dtypes\": { \"T\": [\"f32\", \"f16\"] }",
        "sim_rms_norm: inside its bounds",
    ),
    Mutant(
        "a layout that is not taken",
        "plugin.json",
        "\"layout\": { \"x\": \"contiguous\", \"y\": \"contiguous\" }",
        "\"layout\": { \"x\": \"rows\", \"y\": \"contiguous\" }",
        "sim_cast: layouts",
    ),
    Mutant(
        "an alignment that does not do",
        "plugin.json",
        "\"alignment_bytes\": { \"x\": 256, \"y\": 256 }",
        "\"alignment_bytes\": { \"x\": 2, \"y\": 256 }",
        "sim_cast: places in memory",
    ),
    Mutant(
        "an element behind the end, written",
        "kernels.c",
        "rstd[row] = (float)scale;",
        "rstd[row] = (float)scale; rstd[tensors[3].elements] = 0;",
        "sim_rms_norm: inside its bounds",
    ),
    Mutant(
        "an input, changed",
        "kernels.c",
        "rstd[row] = (float)scale;",
        "rstd[row] = (float)scale; ((float *)tensors[1].data)[0] += 1;",
        "sim_rms_norm: inside its bounds",
    ),
    Mutant(
        "the last bit, by chance",
        "kernels.c",
        "rstd[row] = (float)scale;",
        "static int calls; rstd[row] = nextafterf((float)scale, calls++ % 7 ? 0 : 1e9f);",
        "sim_rms_norm: equal bits",
    ),
    Mutant(
        "a crash",
        "kernels.c",
        "rstd[row] = (float)scale;",
        "rstd[row] = *(volatile float *)8;",
        "sim_rms_norm: inside its bounds",
    ),
];

/// Builds the example with the mutation; `false` where there is no compiler.
fn build(mutant: &Mutant, folder: &Path) -> bool {
    let Mutant(what, file, old, new, _) = mutant;
    let (library, plugin) = ("libds_example_sim.so", folder.join("sim"));
    example::build_c_edited("sim-c", &[(file, old, new)], library, &plugin)
        .unwrap_or_else(|e| panic!("{what}: {e}"))
}

#[test]
fn each_is_found_by_its_check() {
    let next = Mutex::new(MUTANTS.iter());
    let lost = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(mutant) = next.lock().unwrap().next() else {
                return;
            };
            let Mutant(what, _, _, _, check) = mutant;
            let folder = tempfile::tempdir().unwrap();
            if !build(mutant, folder.path()) {
                return;
            }
            let done = Command::new(env!("CARGO_BIN_EXE_ds_conformance"))
                .arg(folder.path().join("sim"))
                .args(["--json", "--timeout", "5", "--only", check])
                .env("DS_CACHE_DIR", folder.path().join("cache"))
                .envs([("SIM_MAX_DELAY_US", "300"), ("SIM_COMPILE_MS", "0")])
                .output()
                .unwrap();
            let told = String::from_utf8(done.stdout).unwrap();
            let report: serde_json::Value = serde_json::from_str(&told).unwrap();
            let checks = report["checks"].as_array().unwrap();
            let failed = |c: &&serde_json::Value| c["outcome"] == "failed" && c["name"] == *check;
            let Some(found) = checks.iter().find(failed) else {
                lost.lock().unwrap().push(format!("{what}: {told}"));
                continue;
            };
            assert_eq!(done.status.code(), Some(1));
            let why = found["why"].as_str().unwrap().replace('\n', " ");
            drill::tell("mutants", what, &format!("{check}: {why}"));
        }
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let lost = lost.into_inner().unwrap();
    assert!(lost.is_empty(), "nobody found {}", lost.join("\n"));
}
