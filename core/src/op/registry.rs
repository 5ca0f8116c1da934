//! The registry: every op that is known, by name.
//!
//! The catalogue's ops come from `inventory` ([`OpSource`]), a vendor's own from schema files that
//! its manifest names ([`register`]).

use std::{
    collections::BTreeMap,
    sync::{OnceLock, PoisonError, RwLock},
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

type Registry = RwLock<BTreeMap<String, &'static Op>>;

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let mut ops = BTreeMap::new();
        for source in ds_plugin::private::inventory::iter::<OpSource> {
            let add = parse(
                source.text,
                source.path,
                source.references,
                Some(source.cases),
            )
            .and_then(|parsed| parsed.into_iter().try_for_each(|op| insert(&mut ops, op)));
            if let Err(e) = add {
                log::error!("{e}");
            }
        }
        RwLock::new(ops)
    })
}

/// The op of that name.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] with every name that is known.
pub fn find(name: &str) -> Result<&'static Op> {
    let ops = registry().read().unwrap_or_else(PoisonError::into_inner);
    ops.get(name).copied().ok_or_else(|| {
        let known: Vec<_> = ops.keys().map(String::as_str).collect();
        Error::new(
            ErrorKind::InvalidArgument,
            "find an op",
            format!("there is no op '{name}'; known are {}", known.join(", ")),
        )
    })
}

/// Every op, sorted by name.
pub fn ops() -> Vec<&'static Op> {
    registry()
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .values()
        .copied()
        .collect()
}

/// Adds the ops of a schema file that a manifest names.
///
/// # Errors
/// [`ErrorKind::Incompatible`] when it does not parse, or when an op of that name is there with
/// another schema.
pub fn register(text: impl AsRef<[u8]>, path: &str) -> Result<Vec<&'static Op>> {
    let parsed = parse(text, path, &[], None)?;
    let mut ops = registry().write().unwrap_or_else(PoisonError::into_inner);
    let names: Vec<_> = parsed.iter().map(|op| op.name().to_owned()).collect();
    parsed.into_iter().try_for_each(|op| insert(&mut ops, op))?;
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
