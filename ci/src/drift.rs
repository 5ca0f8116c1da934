//! Files that are generated and committed: writing them, and noticing when they are stale.

use std::fs;
use std::path::Path;

use crate::step::Outcome;

/// Writes a generated file, and leaves one that is already right untouched.
pub(crate) fn write(root: &Path, file: &str, text: &str) -> Outcome {
    let path = root.join(file);
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    }
    fs::write(&path, text).map_err(|error| format!("cannot write {file}: {error}"))
}

/// Fails when a committed file is not what would be generated, and says how to renew it.
pub(crate) fn check(root: &Path, file: &str, text: &str, renew: &str) -> Outcome {
    let old = fs::read_to_string(root.join(file))
        .map_err(|error| format!("cannot read {file}: {error}; write it with `{renew}`"))?;
    if old == text {
        return Ok(());
    }
    let (number, was, is) = first_difference(&old, text);
    Err(format!(
        "{file} is stale from line {number}: it has `{was}` where `{is}` belongs; renew it with \
         `{renew}`"
    ))
}

/// The first line that differs, counted from 1, in both texts.
fn first_difference<'a>(old: &'a str, new: &'a str) -> (usize, &'a str, &'a str) {
    let (mut old, mut new) = (old.lines(), new.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (old.next(), new.next()) {
            (Some(was), Some(is)) if was == is => {}
            (None, None) => return (number, "", ""),
            (was, is) => return (number, was.unwrap_or_default(), is.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn the_first_differing_line_is_named() {
        assert_eq!(first_difference("a\nb\nc", "a\nx\nc"), (2, "b", "x"));
        assert_eq!(first_difference("a\n", "a\nb\n"), (2, "", "b"));
        assert_eq!(first_difference("a\nb\n", "a\n"), (2, "b", ""));
    }
}
