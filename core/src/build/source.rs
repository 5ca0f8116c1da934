//! Texts of source files. A report asks for hundreds of builds that share their headers, so what is
//! the same is kept once and hashed once.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// The text of a source file. Copies are the same one.
#[derive(Clone)]
pub struct SourceText(Arc<Kept>);

struct Kept {
    content: Vec<u8>,
    hash: OnceLock<blake3::Hash>,
}

impl SourceText {
    /// A copy of `content`, or the one that was made when a file of that name last had it.
    pub(crate) fn of(name: &str, content: &[u8]) -> Self {
        static LAST: Mutex<BTreeMap<String, SourceText>> = Mutex::new(BTreeMap::new());
        let last = || LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last().get(name).cloned();
        if let Some(known) = known.filter(|known| **known == *content) {
            return known;
        }
        let text = Self::from(content);
        last().insert(name.to_owned(), text.clone());
        text
    }

    /// BLAKE3 of it.
    pub(super) fn hash(&self) -> blake3::Hash {
        *self.0.hash.get_or_init(|| blake3::hash(self))
    }
}

impl<T: Into<Vec<u8>>> From<T> for SourceText {
    fn from(content: T) -> Self {
        Self(Arc::new(Kept {
            content: content.into(),
            hash: OnceLock::new(),
        }))
    }
}

impl Deref for SourceText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.content
    }
}

impl PartialEq for SourceText {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || **self == **other
    }
}

impl Eq for SourceText {}

impl fmt::Debug for SourceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_comes_again_is_the_same_one_and_another_is_not() {
        let first = SourceText::of("source.rs test", b"int f;");
        let again = SourceText::of("source.rs test", b"int f;");
        assert!(Arc::ptr_eq(&first.0, &again.0));
        let other = SourceText::of("source.rs test", b"int g;");
        assert_ne!(first, other);
        assert_ne!(first.hash(), other.hash());
        assert_eq!(*first, *b"int f;");
        assert_eq!(first, SourceText::of("source.rs test", b"int f;"));
    }
}
