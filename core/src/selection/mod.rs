//! Which accelerator to use: the grammar of `DS_ACCELERATOR`, and the choice.
//!
//! Pure: the caller brings the text, the environment and what it knows of each accelerator
//! ([`AcceleratorStatus`]); nothing here looks at the machine. Vendors' visibility variables have
//! been applied by then, so an index counts the devices that they leave.
//!
//! ```text
//! selection := group ( '>' group )*      the first group that can be used is taken
//! group     := term ( ';' term )*        all of them together
//! term      := ( name | '*' ) [ ':' item ( ',' item )* ]
//! item      := '*' | index | index '-' index | '{' variable '}'
//! ```

#![forbid(unsafe_code)]

mod parse;
mod resolve;

use std::fmt;

pub use parse::VARIABLE;
pub use resolve::{AcceleratorStatus, Chosen, Share, State};

use crate::manifest::AcceleratorName;

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Nothing: take the usable accelerator of the highest priority.
    Auto,
    /// The first of these that can be used. Never empty.
    Chain(Vec<Group>),
}

/// Terms that are taken together. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group(pub Vec<Term>);

/// Devices of one accelerator, or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Whose devices.
    pub accelerator: Wanted,
    /// Which of them; empty means all.
    pub items: Vec<Item>,
}

/// Whose devices are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// `*`: of every accelerator that can be used.
    Every,
    /// Of the one with this name or alias.
    Named(AcceleratorName),
}

/// Which devices of an accelerator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// `*`: all.
    All,
    /// One.
    Index(u32),
    /// From the first to the second, both included.
    Range(u32, u32),
    /// The one that the variable names.
    Variable {
        /// Name of the variable.
        name: String,
        /// Its value when the selection was read.
        index: u32,
    },
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => Ok(()),
            Self::Chain(groups) => joined(f, groups, ">"),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(f, &self.0, ";")
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.accelerator {
            Wanted::Every => f.write_str("*")?,
            Wanted::Named(name) => write!(f, "{name}")?,
        }
        if self.items.is_empty() {
            return Ok(());
        }
        f.write_str(":")?;
        joined(f, &self.items, ",")
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Index(index) => write!(f, "{index}"),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
            Self::Variable { name, .. } => write!(f, "{{{name}}}"),
        }
    }
}

fn joined<T: fmt::Display>(f: &mut fmt::Formatter<'_>, parts: &[T], sign: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(sign)?;
        }
        write!(f, "{part}")?;
    }
    Ok(())
}
