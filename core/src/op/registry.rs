//! The registry: every op that is known, by name.
//!
//! The catalogue's ops come from `inventory` ([`OpSource`]), a vendor's own from schema files that
//! its manifest names ([`register`]).

use std::{
    collections::BTreeMap,
    sync::{OnceLock, PoisonError, RwLock, RwLockWriteGuard},
};

use ds_schema::{Schema, SchemaFile};

use super::{
    case::{Case, CasesFn, Size},
    reference::ReferenceFn,
};
use crate::{Error, ErrorKind, Result};

/// A schema file of the catalogue, the reference implementations of its ops and their cases.
#[derive(Debug)]
pub struct OpSource {
    /// Text of the `.ops` file.
    pub text: &'static str,
    /// Where it is from, for messages.
    pub path: &'static str,
    /// Reference implementation by op name.
    pub references: &'static [(&'static str, ReferenceFn)],
    /// The cases of its ops.
    pub cases: CasesFn,
}

ds_plugin::private::inventory::collect!(OpSource);

/// One op: its schema, the sets it belongs to, its reference implementation, its cases.
#[derive(Debug)]
pub struct Op {
    schema: Schema,
    sets: Vec<String>,
    reference: Option<ReferenceFn>,
    cases: Option<CasesFn>,
}

impl Op {
    /// Its name.
    pub fn name(&self) -> &str {
        self.schema.name()
    }

    /// Its schema.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// DeepSpeed's names of the op sets that it belongs to.
    pub fn sets(&self) -> &[String] {
        &self.sets
    }

    /// Its reference implementation; `None` for a vendor's own op.
    pub fn reference(&self) -> Option<ReferenceFn> {
        self.reference
    }

    /// Its cases; none for a vendor's own op.
    pub fn cases(&self, size: Size) -> Vec<Case> {
        let mut cases = self.cases.map_or_else(Vec::new, |cases| cases(size));
        cases.retain(|case| case.op() == self.name());
        cases
    }
}

/// What is known of ops.
struct Registry {
    ops: BTreeMap<String, &'static Op>,
    /// The catalogue's files that nobody has asked for an op of: a program uses few of them, and to
    /// read them all takes longer than its first call.
    unread: Vec<&'static OpSource>,
}

impl Registry {
    /// Reads the files that `is_wanted`.
    fn read(&mut self, is_wanted: impl Fn(&OpSource) -> bool) {
        for source in self.unread.extract_if(.., |source| is_wanted(source)) {
            let OpSource {
                text,
                path,
                references,
                cases,
            } = source;
            let add = parse(text, path, references, Some(*cases))
                .and_then(|ops| ops.into_iter().try_for_each(|op| insert(&mut self.ops, op)));
            if let Err(e) = add {
                log::error!("{e}");
            }
        }
    }
}

fn registry() -> &'static RwLock<Registry> {
    static REGISTRY: OnceLock<RwLock<Registry>> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        RwLock::new(Registry {
            ops: BTreeMap::new(),
            unread: ds_plugin::private::inventory::iter::<OpSource>
                .into_iter()
                .collect(),
        })
    })
}

/// The registry, with all of the catalogue read.
fn whole() -> RwLockWriteGuard<'static, Registry> {
    let mut registry = registry().write().unwrap_or_else(PoisonError::into_inner);
    registry.read(|_| true);
    registry
}

/// The op of that name.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] with every name that is known.
pub fn find(name: &str) -> Result<&'static Op> {
    let known = |registry: &Registry| registry.ops.get(name).copied();
    let read = registry().read().unwrap_or_else(PoisonError::into_inner);
    if let Some(op) = known(&read) {
        return Ok(op);
    }
    drop(read);
    let mut registry = registry().write().unwrap_or_else(PoisonError::into_inner);
    registry.read(|source| source.references.iter().any(|(of, _)| *of == name));
    // One that has no reference implementation is in a file that only reading finds.
    if known(&registry).is_none() {
        registry.read(|_| true);
    }
    known(&registry).ok_or_else(|| {
        let names: Vec<_> = registry.ops.keys().map(String::as_str).collect();
        Error::new(
            ErrorKind::InvalidArgument,
            "find an op",
            format!("there is no op '{name}'; known are {}", names.join(", ")),
        )
    })
}

/// Every op, sorted by name.
pub fn ops() -> Vec<&'static Op> {
    whole().ops.values().copied().collect()
}

/// Adds the ops of a schema file that a manifest names.
///
/// # Errors
/// [`ErrorKind::Incompatible`] when it does not parse, or when an op of that name is there with
/// another schema.
pub fn register(text: impl AsRef<[u8]>, path: &str) -> Result<Vec<&'static Op>> {
    let parsed = parse(text, path, &[], None)?;
    // The catalogue first, so that its ops are the ones that are known already.
    let ops = &mut whole().ops;
    let names: Vec<_> = parsed.iter().map(|op| op.name().to_owned()).collect();
    parsed.into_iter().try_for_each(|op| insert(ops, op))?;
    Ok(names
        .iter()
        .filter_map(|name| ops.get(name).copied())
        .collect())
}

fn parse(
    text: impl AsRef<[u8]>,
    path: &str,
    references: &[(&'static str, ReferenceFn)],
    cases: Option<CasesFn>,
) -> Result<Vec<Op>> {
    let refuse = |why: String| Error::new(ErrorKind::Incompatible, format!("read {path}"), why);
    let file = SchemaFile::parse(text).map_err(|e| refuse(e.to_string()))?;
    let sets = file.sets().to_vec();
    let reference = |name: &str| references.iter().find(|(of, _)| *of == name).map(|r| r.1);
    for (name, _) in references {
        if !file.ops().iter().any(|schema| schema.name() == *name) {
            return Err(refuse(format!(
                "a reference implementation is for '{name}', not an op"
            )));
        }
    }
    Ok(file
        .ops()
        .iter()
        .map(|schema| Op {
            schema: schema.clone(),
            sets: sets.clone(),
            reference: reference(schema.name()),
            cases,
        })
        .collect())
}

fn insert(ops: &mut BTreeMap<String, &'static Op>, op: Op) -> Result<()> {
    match ops.get(op.name()) {
        // The same schema twice, say from two versions of a plugin, is one op.
        Some(known) if known.schema.hash() == op.schema.hash() => Ok(()),
        Some(known) => Err(Error::new(
            ErrorKind::Incompatible,
            "register an op",
            format!(
                "'{}' is known with schema {}, this one has {}",
                op.name(),
                known.schema.hash(),
                op.schema.hash()
            ),
        )),
        None => {
            ops.insert(op.name().to_owned(), Box::leak(Box::new(op)));
            Ok(())
        }
    }
}
