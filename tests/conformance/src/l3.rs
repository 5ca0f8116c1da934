//! L3: ops. Calls are made from what each kernel says that it takes: inside its bounds, on them and
//! just outside, in every layout, aliased, empty, with numbers that are none. Each is held against
//! the reference, within the schema's tolerance.

mod calls;
mod place;

use ds_core::{
    Device, Stream,
    op::{self, Op, RunsOn, Size, What, Wrong},
};
use ds_schema::{Kernel, KernelFlag, Layout, Role};

use crate::{
    check::{Check, Held, Problem, hold},
    l2,
    subject::Subject,
};
use calls::{Call, Fill, seeds};
use place::{Lay, Placed};

/// A name, and what is to hold of a kernel.
type Kind = (&'static str, fn(&Bench) -> Held);

/// The kinds of calls, each a check of every kernel.
const KINDS: &[Kind] = &[
    ("inside its bounds", inside),
    ("just outside its bounds", outside),
    ("layouts", layouts),
    ("places in memory", places),
    ("one memory for two", aliased),
    ("nothing at all", empty),
    ("numbers that are none", not_numbers),
    ("equal bits", equal_bits),
];

pub(crate) fn checks(subject: &Subject) -> Result<Vec<Check>, String> {
    let accelerator = subject.accelerator()?;
    let device = match l2::device(accelerator) {
        Ok(device) => device,
        Err(Problem::Unavailable(why) | Problem::Wrong(why)) => {
            return Ok(vec![Check::new("devices", || {
                Err(Problem::Unavailable(why))
            })]);
        }
    };
    let kernels = device.kernels();
    let mut checks = Vec::new();
    for &op in &op::ops() {
        // On a reference they would try the host, and that is not in question here.
        let has_kernel = kernels.iter().any(|kernel| kernel.op == op.name());
        if !has_kernel || op.cases(Size::Small).is_empty() {
            continue;
        }
        checks.push(Check::new(format!("cases of {}", op.name()), move || {
            cases(device, op)
        }));
    }
    for kernel in kernels {
        for &(kind, run) in KINDS {
            checks.push(Check::new(format!("{}: {kind}", kernel.name), move || {
                run(&Bench::new(device, kernel)?)
            }));
        }
    }
    Ok(checks)
}

/// The op's own cases, those that no kernel takes on the reference.
fn cases(device: Device, op: &'static Op) -> Held {
    let stream = Stream::new(device)?;
    for case in op.cases(Size::Small) {
        let verified = op::verify(&stream, &case, |_, _| {})?;
        if let Some(wrong) = verified.wrong.first() {
            hold!(false, "{}: {wrong}", case.name());
        }
    }
    Ok(())
}

/// What the calls of a kernel are made and run with.
struct Bench {
    stream: Stream,
    kernel: &'static Kernel,
    op: &'static Op,
    /// One call for each combination of dtypes and static attributes that the kernel takes.
    seeds: Vec<Call>,
}

impl Bench {
    fn new(device: Device, kernel: &'static Kernel) -> Result<Self, Problem> {
        let op = op::find(&kernel.op)?;
        if op.reference().is_none() {
            let why = format!("{} has no reference to compare with", op.name());
            return Err(Problem::Unavailable(why));
        }
        let seeds = seeds(op, kernel, device)?;
        if seeds.is_empty() {
            let why = format!("no case of {} is one that it takes", op.name());
            return Err(Problem::Unavailable(why));
        }
        Ok(Self {
            stream: Stream::new(device)?,
            kernel,
            op,
            seeds,
        })
    }

    fn has(&self, flag: KernelFlag) -> bool {
        self.kernel.has(flag)
    }

    /// The layout that the kernel takes for an argument.
    fn layout(&self, argument: usize) -> Layout {
        let name = &self.op.schema().arguments()[argument].name;
        let layouts = &self.kernel.constraints.layout;
        layouts.get(name).copied().unwrap_or(Layout::Contiguous)
    }

    /// Runs a call with its tensors laid so and holds it against the reference, and against what
    /// lies around each tensor. `by` says whether the kernel must be the one that runs.
    fn run(&self, call: &Call, lay: &Lay, by: By) -> Held {
        let told = || format!("{}{}", call.told(self.op), lay.told(self.op));
        let placed = Placed::new(&self.stream, call, lay)?;
        let lists = placed.lists();
        let args: Vec<&[&ds_core::Tensor]> = lists.iter().map(Vec::as_slice).collect();
        let verified = op::verify_call(
            self.op,
            &self.stream,
            &args,
            &call.attributes,
            &call.scalars,
        )
        .map_err(|e| Problem::Wrong(format!("{}: {e}", told())))?;
        let own = verified.runs_on == RunsOn::Kernel(&self.kernel.name);
        let why = match &verified.runs_on {
            RunsOn::Reference(why) => why.clone(),
            other => format!("{other:?}"),
        };
        match by {
            By::This => {
                // Another kernel may be better at it; a refusal is a broken word.
                let other = matches!(verified.runs_on, RunsOn::Kernel(_) | RunsOn::Nothing);
                hold!(
                    own || other,
                    "{}: its description takes it, but: {why}",
                    told()
                );
            }
            By::Another => hold!(!own, "{}: it ran, against its description", told()),
            By::Anything => {}
        }
        if let Some(wrong) = verified.wrong.iter().find(|wrong| !is_order(wrong)) {
            hold!(false, "{}: {wrong}", told());
        }
        if let Some(what) = placed.touched(&self.stream, self.op)? {
            hold!(false, "{}: {what}", told());
        }
        Ok(())
    }
}

/// Whether an infinity became NaN: in which of the two an overflow ends is a matter of the order of
/// operations, and that is the kernel's own.
fn is_order(wrong: &Wrong) -> bool {
    matches!(wrong.what, What::Elements { got, want, .. } if got.is_nan() && want.is_infinite())
}

/// Who is to run a call.
#[derive(Clone, Copy)]
enum By {
    /// The kernel, or a better one.
    This,
    /// Anything but the kernel.
    Another,
    /// Whatever takes it.
    Anything,
}

fn inside(bench: &Bench) -> Held {
    for seed in &bench.seeds {
        for call in seed.sizes(bench.op, bench.kernel) {
            bench.run(&call, &Lay::plain(), By::This)?;
        }
    }
    Ok(())
}

fn outside(bench: &Bench) -> Held {
    let mut any = false;
    for seed in bench.seeds.iter().take(1) {
        for call in seed.sizes_outside(bench.op, bench.kernel)? {
            any = true;
            bench.run(&call, &Lay::plain(), By::Another)?;
        }
    }
    if !any {
        return Err(Problem::Unavailable(
            "it takes every size that the op has".into(),
        ));
    }
    Ok(())
}

/// Rows with gaps and transposed views, of each argument alone and of all.
fn layouts(bench: &Bench) -> Held {
    let arguments = bench.op.schema().arguments().len();
    for seed in &bench.seeds {
        let call = seed.typical(bench.op, bench.kernel);
        for argument in 0..arguments {
            for (lay, needs) in [
                (Lay::gapped(argument), Layout::Rows),
                (Lay::transposed(argument), Layout::Strided),
            ] {
                if !lay.changes(&call) {
                    continue;
                }
                let takes = bench.layout(argument) >= needs;
                bench.run(&call, &lay, if takes { By::This } else { By::Another })?;
            }
        }
        bench.run(&call, &Lay::all_gapped(arguments), By::Anything)?;
    }
    Ok(())
}

/// Starts that are aligned for an element and nothing more.
fn places(bench: &Bench) -> Held {
    for seed in &bench.seeds {
        let call = seed.typical(bench.op, bench.kernel);
        for argument in 0..bench.op.schema().arguments().len() {
            let name = &bench.op.schema().arguments()[argument].name;
            let needs = bench.kernel.constraints.alignment_bytes.get(name);
            let lay = Lay::shifted(argument);
            let Some(bytes) = lay.shift_bytes(&call) else {
                continue;
            };
            let takes = needs.is_none_or(|&needs| bytes.is_multiple_of(needs));
            bench.run(&call, &lay, if takes { By::This } else { By::Another })?;
        }
    }
    Ok(())
}

/// An output in the memory of an input.
fn aliased(bench: &Bench) -> Held {
    let by = if bench.has(KernelFlag::InPlace) {
        By::This
    } else {
        By::Another
    };
    let arguments = bench.op.schema().arguments();
    let mut any = false;
    for seed in &bench.seeds {
        let call = seed.typical(bench.op, bench.kernel);
        for (output, _) in arguments
            .iter()
            .enumerate()
            .filter(|(_, a)| a.role == Role::Out)
        {
            for (input, _) in arguments
                .iter()
                .enumerate()
                .filter(|(_, a)| a.role == Role::In)
            {
                let lay = Lay::aliased(output, input);
                if lay.changes(&call) {
                    any = true;
                    bench.run(&call, &lay, by)?;
                }
            }
        }
    }
    if !any {
        return Err(Problem::Unavailable("no output is like an input".into()));
    }
    Ok(())
}

/// Extents of 0, one at a time, and lists of nothing.
fn empty(bench: &Bench) -> Held {
    let by = if bench.has(KernelFlag::ZeroSize) {
        By::This
    } else {
        By::Another
    };
    for seed in bench.seeds.iter().take(2) {
        for call in seed.empty(bench.op, bench.kernel) {
            bench.run(&call, &Lay::plain(), by)?;
        }
    }
    Ok(())
}

fn not_numbers(bench: &Bench) -> Held {
    for seed in &bench.seeds {
        let call = seed.typical(bench.op, bench.kernel);
        for fill in [Fill::Nan, Fill::Infinity, Fill::NegativeZero] {
            for argument in 0..bench.op.schema().inputs().len() {
                if let Some(call) = call.with(argument, fill)? {
                    bench.run(&call, &Lay::plain(), By::This)?;
                }
            }
        }
    }
    Ok(())
}

/// Equal calls give equal bits, wherever their tensors lie.
fn equal_bits(bench: &Bench) -> Held {
    if !bench.has(KernelFlag::Deterministic) {
        return Err(Problem::Unavailable("it does not promise that".into()));
    }
    for seed in &bench.seeds {
        let call = seed.typical(bench.op, bench.kernel);
        let mut results = Vec::new();
        for _ in 0..3 {
            let placed = Placed::new(&bench.stream, &call, &Lay::plain())?;
            let lists = placed.lists();
            let args: Vec<&[&ds_core::Tensor]> = lists.iter().map(Vec::as_slice).collect();
            op::launch(
                bench.op,
                &bench.stream,
                &args,
                &call.attributes,
                &call.scalars,
            )?;
            let written = (bench.op.schema().arguments().iter().zip(&lists))
                .filter(|(argument, _)| argument.is_written())
                .flat_map(|(_, tensors)| tensors);
            let bits: Result<Vec<_>, _> = written.map(|t| t.to_bytes(&bench.stream)).collect();
            results.push(bits?);
        }
        hold!(
            results.iter().all(|bits| *bits == results[0]),
            "{}: equal calls give different bits",
            call.told(bench.op)
        );
    }
    Ok(())
}
