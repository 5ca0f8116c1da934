//! Tensors and calls that are wrong, or right and unusual: each is refused by name and rule, or
//! gives the right numbers; nothing is written and nothing stays allocated.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ds_core::{Buffer, DType, ErrorKind, Result, Stream, Tensor, op};
use ds_ops::{
    adam::{AdamConfig, AdamTensors, adam_step},
    cast::cast,
    matmul::matmul,
    rms_norm::rms_norm,
};
use ds_schema::Attr;
use ds_tests::{
    cases::{Numbers, tensor},
    compare::{values, with_reference},
    cpu, sim,
};

const EPS: Attr = Attr::F64(1e-6);

fn stream() -> &'static Stream {
    cpu().unwrap().default_stream().unwrap()
}

/// The text of the error that refuses an argument.
fn refusal<T>(result: Result<T>) -> String {
    let error = result.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    error.to_string()
}

fn launch(name: &str, args: &[&[&Tensor]], scalars: &[Attr]) -> Result<()> {
    op::launch(op::find(name)?, stream(), args, &[], scalars)
}

#[test]
fn shapes_that_are_none_are_refused_with_the_shape() {
    let empty = |shape: &[i64]| refusal(Tensor::empty(stream(), DType::F32, shape));
    assert_eq!(
        empty(&[2, -1]),
        "make a tensor: shape [2, -1] has a negative extent"
    );
    assert_eq!(
        empty(&[1; 9]),
        "make a tensor: shape [1, 1, 1, 1, 1, 1, 1, 1, 1] has 9 dimensions, the limit is 8"
    );
    assert_eq!(
        empty(&[1 << 31, 1 << 32]),
        "make a tensor: shape [2147483648, 4294967296] exceeds 2^63 elements"
    );
    assert_eq!(
        empty(&[1 << 61]),
        "make a tensor: shape [2305843009213693952] exceeds 2^63 bytes"
    );
    assert_eq!(
        refusal(Tensor::from_slice(stream(), &[2, 2], &[1.0_f32; 3])),
        "make a tensor: 12 bytes for f32 of shape [2, 2], which has 16"
    );
    let x = Tensor::from_slice(stream(), &[2], &[1.0_f32, 2.0]).unwrap();
    assert_eq!(
        refusal(x.to_vec::<i32>(stream())),
        "read a tensor: it is f32, not i32"
    );
    assert_eq!(
        refusal(x.reshape(&[3])),
        "reshape a tensor: [2] and [3] differ in elements"
    );
    assert_eq!(
        refusal(x.narrow(0, 1, 2)),
        "narrow a tensor: 2 from 1 on along dimension 0 of [2]"
    );
    assert_eq!(
        refusal(x.narrow(0, i64::MAX, 1)),
        "narrow a tensor: 1 from 9223372036854775807 on along dimension 0 of [2]"
    );
    assert!(refusal(x.narrow(1, 0, 0)).contains("along dimension 1"));
    assert!(refusal(x.transpose(0, 1)).contains("dimensions 0 and 1 of a tensor with 1"));
}

#[test]
fn views_that_leave_their_buffer_are_refused_with_what_they_span() {
    let buffer = Buffer::new(stream(), 64).unwrap();
    let view = |offset, shape: &[i64], strides: &[i64]| {
        refusal(Tensor::view_of(&buffer, offset, DType::F32, shape, strides))
    };
    assert_eq!(
        view(0, &[17], &[1]),
        "view a buffer: shape [17] with strides [1] of f32 at byte 0 spans bytes 0 to 68, the \
         buffer has 64"
    );
    assert!(view(61, &[1], &[1]).contains("spans bytes 61 to 65"));
    assert!(view(0, &[2], &[-1]).contains("spans bytes -4 to 4"));
    assert!(view(65, &[0], &[1]).contains("spans bytes 65 to 65"));
    assert_eq!(
        view(0, &[-1], &[-1]),
        "view a buffer: shape [-1] has a negative extent"
    );
    assert_eq!(
        view(0, &[2, 2], &[1]),
        "view a buffer: 2 extents, but 1 strides"
    );
    assert!(view(0, &[1; 9], &[1; 9]).contains("9 dimensions"));
    assert!(view(0, &[2], &[i64::MAX]).contains("exceeds 2^63 bytes"));
    assert!(view(0, &[2], &[i64::MIN]).contains("exceeds 2^63 bytes"));
    assert!(view(u64::MAX, &[1], &[1]).contains("exceeds 2^63 bytes"));
    // Four bytes that claim to be 2^64 elements, and 2^61.
    assert!(view(0, &[1 << 32, 1 << 32], &[0, 0]).contains("exceeds 2^63 bytes"));
    assert!(view(0, &[1 << 61], &[0]).contains("exceeds 2^63 bytes"));
}

#[test]
fn nothing_can_be_had_of_a_view_wherever_it_lies() {
    let wide = tensor(stream(), DType::F32, &[2, 10], &[1.0; 20]).unwrap();
    // The place behind the last row of the right columns lies behind the buffer's end.
    let none = wide.narrow(1, 7, 3).unwrap().narrow(0, 2, 0).unwrap();
    assert_eq!(
        (none.shape(), none.elements(), none.bytes()),
        (&[0, 3][..], 0, 0)
    );
    assert!(none.to_vec::<f32>(stream()).unwrap().is_empty());
    none.write_bytes(stream(), &[]).unwrap();
    assert!(cast(stream(), &none, DType::BF16).unwrap().bytes() == 0);
    // Extents and strides beside an extent of 0 mean nothing, whatever they are.
    let shape = [i64::MAX, i64::MAX, 0];
    let odd = Tensor::view_of(wide.buffer(), 80, DType::F32, &shape, &[i64::MAX; 3]).unwrap();
    let odd = odd.narrow(0, 7, i64::MAX - 7).unwrap();
    assert_eq!((odd.elements(), odd.bytes()), (0, 0));
    assert!(odd.to_vec::<f32>(stream()).unwrap().is_empty());
}

#[test]
fn more_than_2_to_the_31_elements_are_counted_and_not_copied_blindly() {
    let one = tensor(stream(), DType::F32, &[1], &[3.0]).unwrap();
    let many =
        |extent: i64| Tensor::view_of(one.buffer(), 0, DType::F32, &[1, extent], &[0, 0]).unwrap();
    let x = many((1 << 31) + 7);
    assert_eq!(x.elements(), (1 << 31) + 7);
    assert_eq!(x.bytes(), 4 * ((1 << 31) + 7));
    let last = x.narrow(1, (1 << 31) + 5, 2).unwrap();
    assert_eq!(values(stream(), &last).unwrap(), [3.0, 3.0]);
    // More than any host has: an error, not an abort.
    let error = many(1 << 60).to_bytes(stream()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert_eq!(
        error.to_string(),
        "read a tensor: 4611686018427387904 bytes do not fit into host memory"
    );
    // For each size of the CPU's tiles a length at which the bytes of its workspace, counted in 64
    // bits, would be a few again. Nobody multiplies that many numbers.
    for tile_words in [46, 22, 20, 14] {
        let extent = i64::try_from((1_u128 << 64) / (4 * tile_words) + 1).unwrap();
        let error = matmul(
            stream(),
            &many(extent),
            &many(extent).transpose(0, 1).unwrap(),
        )
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    }
}

#[test]
fn memory_that_is_not_there_is_an_error_with_numbers() {
    let error = Tensor::empty(stream(), DType::U8, &[1 << 50]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    let text = error.to_string();
    assert!(
        text.starts_with("allocate memory: 1125899906842624 bytes on cpu:0: ")
            && text.contains("bytes are in live buffers"),
        "{text}"
    );
    assert!(error.hint().unwrap().contains("smaller batch"));
}

#[test]
fn a_tensor_of_another_device_is_named() {
    let Some([one, two]) = sim::devices() else {
        return;
    };
    let (s1, s2) = (one.default_stream().unwrap(), two.default_stream().unwrap());
    let x = tensor(s1, DType::F32, &[2, 4], &[1.0; 8]).unwrap();
    let weight = tensor(s2, DType::F32, &[4], &[1.0; 4]).unwrap();
    let error = rms_norm(s1, &x, &weight, 1e-6).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rms_norm: argument 'weight' is on sim:1, but the stream is on sim:0"
    );
    assert!(error.hint().unwrap().contains("copy the tensor"));
    let text = refusal(rms_norm(stream(), &x, &weight, 1e-6));
    assert!(text.contains("argument 'x' is on sim:0, but the stream is on cpu:0"));
    let text = refusal(x.to_bytes(s2));
    assert_eq!(
        text,
        "copy a buffer: the buffer is on sim:0, the stream on sim:1"
    );
    assert!(refusal(x.buffer().fill(stream(), 0)).starts_with("fill a buffer: "));
    // Another plugin's memory is out of reach, and the error says how to get there.
    let there = Buffer::new(stream(), 32).unwrap();
    let error = there.copy_from(stream(), 0, x.buffer(), 0, 32).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.hint().unwrap().contains("through host memory"));
}

#[test]
fn ranges_of_a_copy_are_held_against_both_buffers() {
    let s = stream();
    let a = Buffer::new(s, 64).unwrap();
    let b = Buffer::new(s, 32).unwrap();
    assert_eq!(
        refusal(a.copy_from(s, 0, &b, 1, 32)),
        "copy a buffer: 32 bytes at 1 exceed the buffer's 32 bytes"
    );
    assert!(refusal(a.copy_from(s, u64::MAX, &b, 0, 2)).contains("the buffer's 64 bytes"));
    assert!(refusal(a.write(s, 60, &[0; 5])).contains("5 bytes at 60"));
    assert!(refusal(a.read(s, 64, &mut [0])).contains("1 bytes at 64"));
    assert_eq!(
        refusal(a.copy_from(s, 0, &a, 31, 32)),
        "copy a buffer: both ranges overlap"
    );
    a.copy_from(s, 0, &a, 32, 32).unwrap();
}

#[test]
fn what_is_written_may_not_overlap_itself_or_another_argument() {
    let s = stream();
    let mut numbers = Numbers::new(21);
    let x = numbers.tensor(s, DType::F32, &[4, 8]).unwrap();
    let weight = numbers.tensor(s, DType::F32, &[8]).unwrap();
    let rstd = Tensor::empty(s, DType::F32, &[4]).unwrap();
    let room = tensor(s, DType::F32, &[40], &[7.0; 40]).unwrap();
    let y =
        |strides: &[i64]| Tensor::view_of(room.buffer(), 0, DType::F32, &[4, 8], strides).unwrap();
    let run = |y: &Tensor| launch("rms_norm", &[&[&x], &[&weight], &[y], &[&rstd]], &[EPS]);
    assert_eq!(
        refusal(run(&y(&[0, 1]))),
        "rms_norm: argument 'y': is written, but a stride of 0 makes its elements overlap"
    );
    assert_eq!(
        refusal(run(&y(&[5, 1]))),
        "rms_norm: argument 'y': is written, but strides [5, 1] of shape [4, 8] let its elements \
         overlap"
    );
    let text = refusal(launch(
        "rms_norm",
        &[
            &[&x],
            &[&weight],
            &[&x],
            &[&weight.narrow(0, 0, 4).unwrap()],
        ],
        &[EPS],
    ));
    assert_eq!(
        text,
        "rms_norm: arguments 'weight' and 'rstd' overlap in memory, and one of them is written"
    );
    // The same parameter twice in one step: whichever result stayed would be wrong.
    let p = || numbers_of(&[4.0; 6]);
    let (w, g, m, v) = (p(), p(), [p(), p()], [p(), p()]);
    let tensors = AdamTensors {
        params: &[&w, &w],
        grads: &[&g, &g],
        exp_avg: &[&m[0], &m[1]],
        exp_avg_sq: &[&v[0], &v[1]],
    };
    let text = refusal(adam_step(s, tensors, None, 1, &AdamConfig::default()));
    assert_eq!(
        text,
        "adam_step: arguments 'params[0]' and 'params[1]' overlap in memory, and both are written"
    );
    assert_eq!(values(s, &room).unwrap(), [7.0; 40]);
    assert_eq!(values(s, &w).unwrap(), [4.0; 6]);
}

fn numbers_of(values: &[f64]) -> Tensor {
    let extent = i64::try_from(values.len()).unwrap();
    tensor(stream(), DType::F32, &[extent], values).unwrap()
}

#[test]
fn misaligned_and_backward_views_give_the_right_numbers() {
    let s = stream();
    let mut numbers = Numbers::new(22);
    let x = numbers.tensor(s, DType::F32, &[3, 5]).unwrap();
    let weight = numbers.tensor(s, DType::F32, &[5]).unwrap();
    let rstd = Tensor::empty(s, DType::F32, &[3]).unwrap();
    let room = Buffer::new(s, 256).unwrap();
    let moved = |from: &Tensor, offset, strides: &[i64]| {
        let to = Tensor::view_of(&room, offset, DType::F32, from.shape(), strides).unwrap();
        // Written element by element, as a strided tensor is not written as a whole.
        for row in 0..from.shape()[0] {
            for column in 0..from.shape()[1] {
                let part = |t: &Tensor| {
                    let row = t.narrow(0, row, 1).unwrap();
                    row.narrow(1, column, 1).unwrap()
                };
                let bytes = part(from).to_bytes(s).unwrap();
                part(&to).write_bytes(s, &bytes).unwrap();
            }
        }
        assert_eq!(values(s, &to).unwrap(), values(s, from).unwrap());
        to
    };
    // One byte off, two bytes off; rows from last to first; everything from last to first.
    for (offset, strides) in [(1, [5, 1]), (2, [5, 1]), (40, [-5, 1]), (56, [-5, -1])] {
        let odd = moved(&x, offset, &strides);
        let y = Tensor::empty(s, DType::F32, &[3, 5]).unwrap();
        let args: [&[&Tensor]; 4] = [&[&odd], &[&weight], &[&y], &[&rstd]];
        let differences = with_reference("rms_norm", s, &args, &[], &[EPS]).unwrap();
        assert_eq!(differences, [], "read at {offset} with {strides:?}");
        // And the other way about: written there.
        let args: [&[&Tensor]; 4] = [&[&y], &[&weight], &[&odd], &[&rstd]];
        let differences = with_reference("rms_norm", s, &args, &[], &[EPS]).unwrap();
        assert_eq!(differences, [], "written at {offset} with {strides:?}");
    }
}

#[test]
fn a_tensor_expands_as_elsewhere_and_is_not_written_through() {
    let s = stream();
    let x = Tensor::from_slice(s, &[2, 1], &[1.0_f32, 2.0]).unwrap();
    let wide = x.expand(&[3, 2, 4]).unwrap();
    assert_eq!(wide.strides(), [0, 1, 0]);
    let row = [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0_f32];
    assert_eq!(wide.to_vec::<f32>(s).unwrap(), row.repeat(3));
    let none = x.expand(&[0, 2, 1]).unwrap();
    assert!(none.to_vec::<f32>(s).unwrap().is_empty());
    for shape in [&[3, 1][..], &[2], &[2, -1], &[], &[i64::MAX, 2, 4]] {
        assert!(x.expand(shape).is_err(), "{shape:?}");
    }
    let written = cast(s, &wide, DType::F16).unwrap();
    assert_eq!(written.shape(), [3, 2, 4]);
}
