//! `ds_report explain` as somebody runs it who wonders why a call is slow.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::House;

#[test]
fn a_call_is_explained_kernel_by_kernel() {
    let house = House::new();
    let call = "explain rms_norm x=f32[8192,4096] weight=f32[4096]";
    house.run(call).says(
        0,
        &[
            "rms_norm on cpu:0",
            "  y       f32[8192,4096]  (follows)",
            "  rstd    f32[8192]  (follows)",
            "runs on cpu_rms_norm: score 300 (tuned), built at first use",
        ],
    );
    house.run("build rms_norm").says(0, &[]);
    house.run(call).says(0, &["built, in the cache"]);
    let json = house.json(call);
    assert_eq!(json["explained"], "call");
    assert_eq!(json["runs_on"]["name"], "cpu_rms_norm");
    assert_eq!(json["kernels"][0]["artefact"], "cached");
    assert_eq!(json["arguments"][1]["is_inferred"], false);
    house
        .run("explain fp_dequantize codes=u8[4,8,1] step=f32[4] y=f32[4,8,1]")
        .says(
            0,
            &[
                "runs on cpu_fp_dequantize_8: score 300 (tuned), built at first use",
                "not on  cpu_fp_dequantize_12  takes mantissa in {4, 7}, the call has 3",
            ],
        );
}

#[test]
fn lists_attributes_and_chosen_dtypes_are_read() {
    let house = House::new();
    house
        .run("explain adam_step params=bf16[10],bf16[20] M=f32 adamw=false lr=1e-3")
        .says(
            0,
            &[
                "exp_avg          f32[10], f32[20]  (follows)",
                "found_inf        none",
                "adamw            false\n",
                "bias_correction  true  (default)",
                "runs on cpu_adam_step",
            ],
        );
    house.run("explain rms_norm x=f32[4,8][1,4]").says(
        0,
        &[
            "runs on the host reference, through host memory: no kernel can take it",
            "takes x rows, the call has it strided",
        ],
    );
    house
        .run("explain rms_norm x=f32[0,16]")
        .says(0, &["runs on nothing: no element is written"]);
}

#[test]
fn what_cannot_be_built_takes_no_call() {
    let house = House::new();
    let call = "explain cast x=f32[8] B=f16";
    house.run_with(call, &[("CC", "nowhere")]).says(
        0,
        &[
            "runs on the host reference",
            "its artefact cannot be had: no `cc` compiler",
        ],
    );
    let deny = [("CC", "nowhere"), ("DS_FALLBACK", "deny")];
    house
        .run_with(call, &deny)
        .says(0, &["runs on nothing", "DS_FALLBACK=deny"]);
    house
        .run_with(call, &[("DS_JIT", "cache-only")])
        .says(0, &["runs on the host reference", "DS_JIT=cache-only"]);
    house.run_with("build cast", &[("CC", "bad")]).says(1, &[]);
    house.run_with(call, &[("CC", "bad")]).says(
        0,
        &["runs on the host reference", "no such thing (remembered"],
    );
}

#[test]
fn errors_name_the_argument_and_the_rule_and_show_the_schema() {
    let house = House::new();
    for (call, rule) in [
        (
            "x=f32[8,16] weight=f32[17]",
            "argument 'weight': dimension D is 17, but 'x' has D = 16",
        ),
        (
            "x=f32[8,16] y=bf16[8,16]",
            "argument 'y': is bf16, but 'x' makes T f32",
        ),
        ("x=i32[8]", "T is i32, the schema takes f32 | f16 | bf16"),
        (
            "weight=f32[8]",
            "argument 'x': no argument that is given says what S... is",
        ),
        ("x=f31[2]", "argument 'x': unknown dtype 'f31'"),
        (
            "x=f32[2",
            "argument 'x': 'f32[2' is no tensor; a tensor is DTYPE[SHAPE]",
        ),
        ("x=f32[2] x=f32[2]", "argument 'x' is given twice"),
        (
            "x=f32[2],f32[3]",
            "argument 'x': has 2 tensors, but it takes one",
        ),
        ("x=f32[-2]", "argument 'x': has the negative extent -2"),
        (
            "x=f32[9223372036854775807]",
            "argument 'x': its size exceeds 2^63 bytes",
        ),
        (
            "x=f32[2] eps=small",
            "scalar 'eps' is f64: a number, not 'small'",
        ),
        (
            "x=f32[2] z=1",
            "there is no argument, attribute or scalar 'z'",
        ),
        (
            "f32[2]",
            "'f32[2]' is neither ARG=DTYPE[SHAPE] nor NAME=VALUE",
        ),
    ] {
        let ran = house.run(&format!("explain rms_norm {call}"));
        ran.says(
            2,
            &[
                "error: rms_norm: ",
                rule,
                "the schema is\nop rms_norm(\n    x: T[S..., D],\n",
            ],
        );
    }
    house.run("explain adam_step params=bf16[10]").says(
        2,
        &["argument 'exp_avg': the inputs do not say what M is, choose f32 or bf16 with M=DTYPE"],
    );
    house
        .run("explain nonsense")
        .says(2, &["there is no op 'nonsense'", "rms_norm_backward"]);
    house
        .run("explain cast x=f32[2] B=f16 --device cpu:7")
        .says(1, &["there is no cpu:7"]);
    house
        .run("explain cast x=f32[2] B=f16 --device cpu:x")
        .says(2, &["'cpu:x' is no device"]);
}

#[test]
fn an_op_alone_is_told_with_its_kernels() {
    let Some(house) = House::with_sim() else {
        return;
    };
    house.run("explain rms_norm").says(
        0,
        &[
            "op rms_norm(\n    x: T[S..., D],\n    weight: T[D],\n    eps: f64 = 1e-6,\n) -> (",
            "tolerance f32 1e-5 1e-6 | ",
            "op sets         inference_core_ops, transformer_inference",
            "on cpu:0, target ",
            "cpu_rms_norm  native, score 300, built at first use\n      \
             T is f32, f16 or bf16; D is at least 1; x and y with contiguous rows; weight and rstd contiguous",
            "on sim:0-1, target sim-1\n  sim_rms_norm  native, score 300, built per signature, at first use\n",
            "all arguments contiguous; all arguments aligned to 256 bytes",
        ],
    );
    house
        .run("explain rms_norm --device sim:1")
        .says(0, &["on sim:1, target sim-1"])
        .is_silent_of("on cpu");
    house.run("explain axpby").says(
        0,
        &[
            "on cpu:0",
            "no kernel\n",
            "none: what no kernel takes is refused",
        ],
    );
}

#[test]
fn what_is_no_op_and_no_device_is_told_once() {
    let house = House::new();
    house.run("explain fused_adam").says(
        2,
        &[
            "'fused_adam' is an op set, not an op",
            "hint: its ops are adam_rollback, adam_step",
        ],
    );
    house
        .run("explain cast --device cpu:4")
        .says(1, &["there is no cpu:4: cpu has one device"]);
    let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins");
    house
        .run_with(
            "explain cast --device cuda",
            &[("DS_PLUGIN_PATH", manifests)],
        )
        .says(
            1,
            &["error: load an accelerator: the NVIDIA plugin is not built yet"],
        );
}

#[test]
fn a_device_of_a_plugin_is_asked_by_its_name() {
    let Some(house) = House::with_sim() else {
        return;
    };
    // New memory is aligned as the device aligns it.
    house.run("explain rms_norm x=f32[8,16] --device sim").says(
        0,
        &[
            "rms_norm on sim:0",
            "runs on sim_rms_norm",
            "built per signature, at first use",
        ],
    );
    house
        .run("explain rms_norm x=f32[8,16]@16 --device sim:1")
        .says(
            0,
            &[
                "rms_norm on sim:1",
                "runs on the host reference",
                "takes x aligned to 256 bytes, the call has it aligned to 16",
            ],
        );
    house
        .run("explain adam_step params=f32[10] --device sim")
        .says(
            0,
            &["runs on the host reference, through host memory: there is no kernel for it"],
        );
    house.run("explain axpby x=f32[10]").says(
        0,
        &["runs on nothing: no kernel takes it, and the op has no host reference"],
    );
}

#[test]
fn a_kernel_that_may_give_other_bits_is_refused_where_that_is_asked_for() {
    let Some(house) = House::with_sim() else {
        return;
    };
    let kernel = "\"deterministic\", \"zero_size\", \"in_place\"";
    for (file, says, instead) in [
        ("plugins/sim-c/axpby.ops", "\ndeterministic\n", "\n"),
        ("plugins/sim-c/plugin.json", kernel, "\"zero_size\""),
    ] {
        let text = std::fs::read_to_string(house.path(file)).unwrap();
        assert!(text.contains(says), "{file}: {text}");
        std::fs::write(house.path(file), text.replace(says, instead)).unwrap();
    }
    let call = "explain axpby x=f32[8] y=f32[8] --device sim:0";
    house.run(call).says(0, &["runs on sim_axpby"]);
    house.run_with(call, &[("DS_DETERMINISTIC", "1")]).says(
        0,
        &[
            "runs on nothing",
            "is not flagged 'deterministic', and DS_DETERMINISTIC is 1",
        ],
    );
}
