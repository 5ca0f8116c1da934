//! An accelerator's kernels: which op each is for is known when it is loaded, the rest of a
//! description is read when its op is first asked for. A program uses few ops of many.

use std::{collections::BTreeMap, sync::OnceLock};

use ds_schema::Kernel;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use crate::op::{self, Op};

/// A kernel as it is written: an entry of `kernels` in a manifest or a `kernel.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KernelEntry(Box<RawValue>);

impl KernelEntry {
    /// Its JSON.
    pub fn text(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for KernelEntry {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

/// The kernels of one accelerator, by op.
#[derive(Debug)]
pub(crate) struct Kernels {
    accelerator: String,
    by_op: BTreeMap<String, Described>,
}

/// The kernels of one op: as they are described, and once they are read.
#[derive(Debug, Default)]
struct Described {
    entries: Vec<KernelEntry>,
    read: OnceLock<Vec<Kernel>>,
}

/// What tells whose an entry is.
#[derive(Deserialize)]
struct Head {
    name: String,
    op: String,
    accelerator: String,
}

impl Kernels {
    /// Those of `entries` that are for `accelerator`; one that is not is told at the level `others`.
    /// One that is wrong is left out with a warning, and hides no other.
    pub(crate) fn new(
        accelerator: &str,
        entries: impl IntoIterator<Item = KernelEntry>,
        others: log::Level,
    ) -> Self {
        let mut by_op: BTreeMap<String, Described> = BTreeMap::new();
        for (index, entry) in entries.into_iter().enumerate() {
            match read::<Head>(&entry) {
                Ok(head) if head.accelerator == accelerator => {
                    let op = head.op;
                    by_op.entry(op).or_default().entries.push(entry);
                }
                Ok(head) => log::log!(
                    others,
                    "{accelerator}: kernel '{}' is left out: accelerator: it is for '{}'",
                    head.name,
                    head.accelerator
                ),
                Err(why) => {
                    log::warn!("{accelerator}: kernel number {index} is left out: {why}");
                }
            }
        }
        Self {
            accelerator: accelerator.to_owned(),
            by_op,
        }
    }

    /// Those for `op`.
    pub(crate) fn of(&self, op: &Op) -> &[Kernel] {
        self.by_op
            .get(op.name())
            .map_or(&[], |described| self.read(described, || Ok(op)))
    }

    /// All of them, by op.
    pub(crate) fn all(&self) -> Vec<&Kernel> {
        let each = self.by_op.iter();
        each.flat_map(|(name, described)| self.read(described, || op::find(name)))
            .collect()
    }

    fn read<'a, 'b>(
        &self,
        described: &'a Described,
        find: impl FnOnce() -> crate::Result<&'b Op>,
    ) -> &'a [Kernel] {
        described.read.get_or_init(|| {
            let op = find();
            let checked = |entry: &KernelEntry| -> Result<Kernel, String> {
                let kernel: Kernel = read(entry)?;
                let schema = op.as_ref().map_err(ToString::to_string)?.schema();
                kernel.check(schema).map_err(|e| e.message)?;
                Ok(kernel)
            };
            let mut kernels = Vec::new();
            for entry in &described.entries {
                match checked(entry) {
                    Ok(kernel) => kernels.push(kernel),
                    Err(why) => {
                        let name = read::<Head>(entry).map_or(String::new(), |head| head.name);
                        let accelerator = &self.accelerator;
                        log::warn!("{accelerator}: kernel '{name}' is left out: {why}");
                    }
                }
            }
            kernels
        })
    }
}

/// Reads an entry; the path to what is wrong is only looked for where something is.
fn read<T: DeserializeOwned>(entry: &KernelEntry) -> Result<T, String> {
    serde_json::from_str(entry.text()).or_else(|_| {
        // Of a value, whose errors have no line and column: they would be those of the entry.
        let value: Value = serde_json::from_str(entry.text()).map_err(|e| e.to_string())?;
        serde_path_to_error::deserialize(value).map_err(|e| e.to_string())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(value: &Value) -> KernelEntry {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn a_description_that_is_wrong_is_left_out_and_hides_no_other() {
        let schema = "op kernels_rs(x: f32[S...]) -> y: f32[S...]\n\
                      tolerance f32 0 0\n    because \"a test\"\ndoc \"a test\"\n";
        let op = op::register(schema, "kernels.rs").unwrap()[0];
        let of = |name: &str, op: &str, accelerator: &str, score: Value| {
            entry(&json!({"name": name, "op": op, "accelerator": accelerator,
                "score": [{"elements": [0, null], "score": score}]}))
        };
        let entries = [
            entry(&json!([[]])),
            entry(&json!({"name": "without_op", "accelerator": "own"})),
            of("of_another", "kernels_rs", "other", 100.into()),
            of("score", "kernels_rs", "own", "high".into()),
            of("range", "kernels_rs", "own", 1000.into()),
            of("first", "kernels_rs", "own", 100.into()),
            of("unknown_op", "kernels_rs_not", "own", 100.into()),
            of("second", "kernels_rs", "own", 200.into()),
        ];
        let kernels = Kernels::new("own", entries, log::Level::Debug);
        let names = |kernels: &[Kernel]| kernels.iter().map(|k| k.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(kernels.of(op)), ["first", "second"]);
        let all: Vec<Kernel> = kernels.all().into_iter().cloned().collect();
        assert_eq!(names(&all), ["first", "second"]);
    }
}
