//! `kernel.json`: which kernels there are and which calls each takes, as data that the dispatcher,
//! the report and conformance read alike. Deciding about a call is the business of `admit`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Attr, DType, Layout, MAX_RANK, Schema,
    error::{did_you_mean, printable},
};

/// Largest `kernel.json` that is read, in bytes.
const MAX_FILE_BYTES: usize = 1024 * 1024;
/// The one format that this version reads.
const FORMAT: u32 = 1;

/// A `kernel.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelFile<K = Kernel> {
    /// Format of the file: 1.
    pub format: u32,
    /// The kernels.
    pub kernels: Vec<K>,
}

/// One implementation of an op on one accelerator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Its name, unique in the file.
    pub name: String,
    /// The op.
    pub op: String,
    /// Hash of the schema that it was written for, as text; told by `ds_ops.h`. Where it is there,
    /// an op whose schema has changed is not given to the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The accelerator, such as `cpu`.
    pub accelerator: String,
    /// Source files beside the `kernel.json`; none for a kernel of a vendor's library.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// The function in the artefact; none for a kernel of a vendor's library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// Whether it needs a built artefact; told by `sources` where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artefact: Option<ArtefactKind>,
    /// Which calls it takes.
    #[serde(default)]
    pub constraints: Constraints,
    /// How good it is, by size; ascending, without overlap.
    pub score: Vec<ScoreBand>,
    /// What else holds of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<KernelFlag>,
}

/// What has to be built before a kernel can be prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtefactKind {
    /// Nothing: it is in the plugin, or in a vendor's library.
    None,
    /// One artefact for all signatures.
    Shared,
    /// An artefact for each signature.
    PerSignature,
}

/// Which calls a kernel takes. What is not said is unconstrained, but for two things that a kernel
/// gets wrong silently: an argument without `layout` must be contiguous, and one without
/// `alignment_bytes` must be aligned for its elements.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Constraints {
    /// Dtypes by dtype variable.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dtypes: BTreeMap<String, Vec<DType>>,
    /// Least and greatest rank by argument.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rank: BTreeMap<String, (usize, usize)>,
    /// Layout by argument.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub layout: BTreeMap<String, Layout>,
    /// Alignment of the first element by argument, in bytes; a power of two.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub alignment_bytes: BTreeMap<String, u64>,
    /// Extents by dimension variable; of a variadic one, every extent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dims: BTreeMap<String, ExtentRange>,
    /// Most elements of one tensor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_elements: Option<i64>,
    /// Values by static attribute.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Vec<Attr>>,
    /// Parts that the device's target must have, such as `avx512f` in `x86-64+avx2+avx512f`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub target: Vec<String>,
}

/// Which extents a kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExtentRange {
    /// The least.
    pub min: i64,
    /// The greatest.
    pub max: i64,
    /// What they are a multiple of.
    pub multiple: i64,
}

impl Default for ExtentRange {
    fn default() -> Self {
        Self {
            min: 0,
            max: i64::MAX,
            multiple: 1,
        }
    }
}

/// The score of calls of some sizes.
///
/// | score | kernel |
/// |---|---|
/// | 0 | takes no such call |
/// | 1 to 99 | composite: made of other ops |
/// | 100 to 199 | generic |
/// | 200 to 299 | of a vendor's library |
/// | 300 to 399 | tuned for this machine |
/// | from 1000 | the user's override, never in a file |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreBand {
    /// Least and greatest size ([`crate::Binding::elements`]); `null` for no greatest.
    pub elements: (i64, Option<i64>),
    /// The score.
    pub score: i32,
}

/// Scores that a file may give.
const FILE_SCORES: std::ops::RangeInclusive<i32> = 1..=399;

/// What else holds of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelFlag {
    /// Equal calls on one device give equal bits.
    Deterministic,
    /// It takes tensors without elements, and empty lists.
    ZeroSize,
    /// What it writes may be the memory of another argument.
    InPlace,
}

/// A `kernel.json` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", kernel.as_ref().map_or(String::new(), |name| format!("kernel '{name}': ")))]
pub struct KernelError {
    /// The kernel, where it is one kernel.
    pub kernel: Option<String>,
    /// What was found and what to do.
    pub message: String,
}

impl KernelError {
    /// What the file wrote is shown with its control characters escaped.
    fn new(kernel: Option<&str>, message: &str) -> Self {
        Self {
            kernel: kernel.map(printable),
            message: printable(message),
        }
    }
}

impl KernelFile {
    /// Reads a `kernel.json`; [`KernelFile::check`] holds it against its schemas.
    ///
    /// # Errors
    /// When it is too large, no JSON of this shape, or of another format.
    pub fn parse(json: impl AsRef<[u8]>) -> Result<Self, KernelError> {
        Self::parse_as(json)
    }
}

impl<K: DeserializeOwned> KernelFile<K> {
    /// Reads a `kernel.json` with its kernels in another form, such as unread.
    ///
    /// # Errors
    /// As [`KernelFile::parse`].
    pub fn parse_as(json: impl AsRef<[u8]>) -> Result<Self, KernelError> {
        let json = json.as_ref();
        if json.len() > MAX_FILE_BYTES {
            let message = format!(
                "the file has {} bytes, the limit is {MAX_FILE_BYTES}",
                json.len()
            );
            return Err(KernelError::new(None, &message));
        }
        let file: Self = serde_json::from_slice(json)
            .map_err(|error| KernelError::new(None, &error.to_string()))?;
        if file.format != FORMAT {
            let message = format!(
                "format {} is unknown, this version reads {FORMAT}",
                file.format
            );
            return Err(KernelError::new(None, &message));
        }
        Ok(file)
    }
}

impl KernelFile {
    /// Checks every kernel against the schema of its op.
    ///
    /// # Errors
    /// When an op is unknown, a name is there twice, or [`Kernel::check`] refuses.
    pub fn check(&self, schemas: &[Schema]) -> Result<(), KernelError> {
        for (index, kernel) in self.kernels.iter().enumerate() {
            if self.kernels[..index]
                .iter()
                .any(|other| other.name == kernel.name)
            {
                return Err(kernel.error("the name is there twice"));
            }
            let Some(schema) = schemas.iter().find(|schema| schema.name() == kernel.op) else {
                let hint = did_you_mean(&kernel.op, schemas.iter().map(Schema::name));
                return Err(kernel.error(format!("there is no op '{}'{hint}", kernel.op)));
            };
            kernel.check(schema)?;
        }
        Ok(())
    }
}

impl Kernel {
    /// What has to be built before it can be prepared.
    pub fn artefact(&self) -> ArtefactKind {
        let told = if self.sources.is_empty() {
            ArtefactKind::None
        } else {
            ArtefactKind::Shared
        };
        self.artefact.unwrap_or(told)
    }

    /// Whether it carries `flag`.
    pub fn has(&self, flag: KernelFlag) -> bool {
        self.flags.contains(&flag)
    }

    /// Checks that everything it says makes sense for `schema`.
    ///
    /// # Errors
    /// When it names what the schema does not have, or a range is empty.
    pub fn check(&self, schema: &Schema) -> Result<(), KernelError> {
        if self.op != schema.name() {
            let message = format!("is for the op '{}', not '{}'", self.op, schema.name());
            return Err(self.error(message));
        }
        if let Some(hash) = &self.schema
            && *hash != schema.hash().to_string()
        {
            return Err(self.error(format!(
                "was written for schema {hash} of '{}', which is {} here",
                self.op,
                schema.hash()
            )));
        }
        if self.name.is_empty() || self.accelerator.is_empty() {
            return Err(self.error("a kernel needs a name and an accelerator"));
        }
        // They are shown in reports, and some of them become names of files.
        let names = [&self.name, &self.accelerator].into_iter();
        let mut names = names
            .chain(&self.sources)
            .chain(&self.symbol)
            .chain(&self.constraints.target);
        if let Some(name) = names.find(|name| name.chars().any(char::is_control)) {
            return Err(self.error(format!("'{name}' has control characters")));
        }
        let leaves_folder = |source: &&String| {
            source.is_empty()
                || source.starts_with('/')
                || source.split('/').any(|part| part == "..")
        };
        if let Some(source) = self.sources.iter().find(leaves_folder) {
            return Err(self.error(format!(
                "the source '{source}' is not beside the kernel.json"
            )));
        }
        if schema.is_deterministic() && !self.has(KernelFlag::Deterministic) {
            let message = format!(
                "the op '{}' is deterministic: see that the kernel is, and flag it 'deterministic'",
                self.op
            );
            return Err(self.error(message));
        }
        self.check_tensors(schema)?;
        self.check_dims(schema)?;
        self.check_attributes(schema)?;
        self.check_score()
    }

    fn check_tensors(&self, schema: &Schema) -> Result<(), KernelError> {
        let constraints = &self.constraints;
        let variables = schema.dtype_variables();
        for (variable, dtypes) in &constraints.dtypes {
            self.known("dtypes", variable, "dtype variable", variables)?;
            if dtypes.is_empty() {
                return Err(self.error(format!("dtypes of '{variable}': none is left")));
            }
        }
        let arguments = schema.arguments();
        let names: Vec<&String> = arguments.iter().map(|argument| &argument.name).collect();
        let layout = constraints.layout.keys().map(|name| ("layout", name));
        let alignment = constraints
            .alignment_bytes
            .keys()
            .map(|name| ("alignment_bytes", name));
        let rank = constraints.rank.keys().map(|name| ("rank", name));
        for (section, name) in layout.chain(alignment).chain(rank) {
            self.known(section, name, "argument", &names)?;
        }
        for (name, &(least, greatest)) in &constraints.rank {
            if least > greatest || greatest > MAX_RANK {
                let message = format!(
                    "rank of '{name}': {least} to {greatest} is no range within 0 to {MAX_RANK}"
                );
                return Err(self.error(message));
            }
        }
        for (name, bytes) in &constraints.alignment_bytes {
            if !bytes.is_power_of_two() {
                return Err(
                    self.error(format!("alignment of '{name}': {bytes} is no power of two"))
                );
            }
        }
        Ok(())
    }

    fn check_dims(&self, schema: &Schema) -> Result<(), KernelError> {
        let names: Vec<&String> = schema
            .dim_variables()
            .iter()
            .map(|variable| &variable.name)
            .collect();
        for (name, range) in &self.constraints.dims {
            self.known("dims", name, "dimension variable", &names)?;
            let ExtentRange { min, max, multiple } = *range;
            if min < 0 || min > max || multiple < 1 {
                let message = format!(
                    "dims of '{name}': need 0 <= min <= max and multiple >= 1, found {min}, {max}, {multiple}"
                );
                return Err(self.error(message));
            }
        }
        match self.constraints.max_elements {
            Some(most) if most < 1 => {
                Err(self.error(format!("max_elements {most} leaves nothing")))
            }
            _ => Ok(()),
        }
    }

    fn check_attributes(&self, schema: &Schema) -> Result<(), KernelError> {
        let names: Vec<&String> = schema
            .attributes()
            .iter()
            .map(|attribute| &attribute.name)
            .collect();
        for (name, values) in &self.constraints.attributes {
            let index = self.known("attributes", name, "static attribute", &names)?;
            let kind = schema.attributes()[index].kind;
            if let Some(value) = values.iter().find(|value| value.to_kind(kind).is_none()) {
                let message = format!("attributes of '{name}': {value} is no {}", kind.name());
                return Err(self.error(message));
            }
            if values.is_empty() {
                return Err(self.error(format!("attributes of '{name}': none is left")));
            }
        }
        Ok(())
    }

    fn check_score(&self) -> Result<(), KernelError> {
        if self.score.is_empty() {
            return Err(self.error("without a score it is never chosen"));
        }
        let mut free = Some(0);
        for band in &self.score {
            let (least, greatest) = band.elements;
            let ordered = free.is_some_and(|free| least >= free);
            if !ordered || greatest.is_some_and(|greatest| greatest < least) {
                return Err(self.error("the sizes of the scores must ascend without overlap"));
            }
            free = greatest.and_then(|greatest| greatest.checked_add(1));
            if !FILE_SCORES.contains(&band.score) {
                let message = format!(
                    "score {} is outside {} to {}",
                    band.score,
                    FILE_SCORES.start(),
                    FILE_SCORES.end()
                );
                return Err(self.error(message));
            }
        }
        Ok(())
    }

    fn known(
        &self,
        section: &str,
        name: &str,
        what: &str,
        names: &[impl AsRef<str>],
    ) -> Result<usize, KernelError> {
        names
            .iter()
            .position(|of| of.as_ref() == name)
            .ok_or_else(|| {
                let hint = did_you_mean(name, names);
                self.error(format!(
                    "{section}: '{}' has no {what} '{name}'{hint}",
                    self.op
                ))
            })
    }

    fn error(&self, message: impl Into<String>) -> KernelError {
        KernelError::new(Some(&self.name), &message.into())
    }
}
