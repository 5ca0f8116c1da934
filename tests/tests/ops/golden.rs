//! Ops against what PyTorch and DeepSpeed themselves answered: the fixtures of `tests/golden`.

use std::{collections::BTreeMap, fs, path::Path};

use ds_core::{
    DType, Tensor,
    op::{self, HostTensor, Op},
};
use ds_schema::{Attr, Scalar, ScalarKind};
use serde::Deserialize;
use serde_json::Value;

use crate::stream;

/// A file of calls that one script made.
#[derive(Deserialize)]
struct Fixture {
    calls: Vec<Call>,
}

#[derive(Deserialize)]
struct Call {
    op: String,
    name: String,
    /// Arguments by name, those that are only written left out.
    before: BTreeMap<String, Vec<Given>>,
    /// What the written ones are afterwards.
    after: BTreeMap<String, Vec<Given>>,
    attributes: BTreeMap<String, Value>,
    scalars: BTreeMap<String, Value>,
    /// Relative and absolute, where the peer computes less exactly than the schema allows.
    tolerance: Option<(f64, f64)>,
}

#[derive(Deserialize)]
struct Given {
    dtype: DType,
    shape: Vec<i64>,
    values: Vec<Number>,
}

/// What JSON has no number for is text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(f64),
    Text(String),
}

impl Given {
    /// The elements, of which the fixture has as many digits as tell the dtype's numbers apart.
    fn host(&self) -> HostTensor {
        let value = |number: &Number| match number {
            Number::Number(value) => *value,
            Number::Text(text) => text.parse().unwrap(),
        };
        let values: Vec<f64> = self.values.iter().map(value).collect();
        HostTensor::from_f64(self.dtype, &self.shape, &values).unwrap()
    }

    fn tensor(&self) -> Tensor {
        let host = self.host();
        Tensor::from_bytes(stream(), self.dtype, &self.shape, &host.bytes).unwrap()
    }
}

#[test]
fn ops_answer_as_pytorch_and_deepspeed_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let files = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let mut held = 0;
    for file in files.filter(|f| f.extension().is_some_and(|e| e == "json")) {
        let fixture: Fixture = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        for call in &fixture.calls {
            hold(call);
            held += 1;
        }
    }
    assert!(held > 0, "no fixture was found");
}

fn hold(call: &Call) {
    let op = op::find(&call.op).unwrap();
    let name = format!("{} {}", call.op, call.name);
    let arguments = op.schema().arguments();
    let known = |given: &String| arguments.iter().any(|a| a.name == *given);
    let strange: Vec<_> = call.before.keys().chain(call.after.keys()).collect();
    assert!(
        strange.iter().all(|given| known(given)),
        "{name}: {strange:?}"
    );
    let args: Vec<Vec<Tensor>> = arguments
        .iter()
        .map(|argument| match call.before.get(&argument.name) {
            Some(given) => given.iter().map(Given::tensor).collect(),
            None => empty(call.after.get(&argument.name).map_or(&[], Vec::as_slice)),
        })
        .collect();
    let lists: Vec<Vec<&Tensor>> = args.iter().map(|arg| arg.iter().collect()).collect();
    let lists: Vec<&[&Tensor]> = lists.iter().map(Vec::as_slice).collect();
    let attributes = scalars(&name, op.schema().attributes(), &call.attributes);
    let values = scalars(&name, op.schema().scalars(), &call.scalars);
    op::launch(op, stream(), &lists, &attributes, &values)
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    for (argument, tensors) in arguments.iter().zip(&args) {
        let Some(want) = call.after.get(&argument.name) else {
            continue;
        };
        assert_eq!(tensors.len(), want.len(), "{name} {}", argument.name);
        for (tensor, want) in tensors.iter().zip(want) {
            let what = format!("{name} {}", argument.name);
            compare(op, &what, tensor, want, call.tolerance);
        }
    }
}

fn empty(like: &[Given]) -> Vec<Tensor> {
    let one = |given: &Given| Tensor::empty(stream(), given.dtype, &given.shape).unwrap();
    like.iter().map(one).collect()
}

fn compare(op: &Op, what: &str, tensor: &Tensor, want: &Given, own: Option<(f64, f64)>) {
    let got = ds_tests::compare::values(stream(), tensor).unwrap();
    let stated = op.schema().tolerance(tensor.dtype()).unwrap();
    let (rtol, atol) = own.unwrap_or((stated.rtol, stated.atol));
    for (index, (got, want)) in got
        .into_iter()
        .zip(want.host().to_f64().unwrap())
        .enumerate()
    {
        let near = (got - want).abs() <= atol + rtol * want.abs();
        // Infinities are equal, and NaN stands for NaN.
        let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
        assert!(
            near || same,
            "{what}[{index}] is {got}, the peer has {want}"
        );
    }
}

/// In schema order; what is not given has its default.
fn scalars(name: &str, schema: &[Scalar], given: &BTreeMap<String, Value>) -> Vec<Attr> {
    let known = |given: &String| schema.iter().any(|scalar| scalar.name == *given);
    assert!(given.keys().all(known), "{name}: {given:?}");
    let value = |scalar: &Scalar| match given.get(&scalar.name) {
        None => scalar
            .default
            .unwrap_or_else(|| panic!("{name}: no {}", scalar.name)),
        Some(value) => match scalar.kind {
            ScalarKind::Bool => Attr::Bool(value.as_bool().unwrap()),
            ScalarKind::I64 => Attr::I64(value.as_i64().unwrap()),
            ScalarKind::F64 => Attr::F64(value.as_f64().unwrap()),
        },
    };
    schema.iter().map(value).collect()
}
