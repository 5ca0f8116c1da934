//! Errors of schema texts: where, what, and what was probably meant.

use std::fmt::Write as _;

/// A schema text that cannot be used. `Display` is one line, [`SchemaError::render`] shows the
/// source with a caret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct SchemaError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What was found and what was expected.
    pub message: String,
    /// What to do about it, where that can be told.
    pub hint: Option<String>,
    excerpt: Excerpt,
}

impl SchemaError {
    pub(crate) fn new(text: &str, fault: Fault) -> Self {
        let start = fault.span.start.min(text.len());
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_text = text[line_start..].split('\n').next().unwrap_or_default();
        let column = text[line_start..start].chars().count() + 1;
        let end = fault.span.end.min(line_start + line_text.len()).max(start);
        Self {
            line: text[..start].matches('\n').count() + 1,
            column,
            message: fault.message,
            hint: fault.hint,
            excerpt: Excerpt::new(line_text, column, text[start..end].chars().count()),
        }
    }

    /// Several lines for a terminal: the message, the place in `path`, the source line, a caret
    /// under the fault, and the hint.
    pub fn render(&self, path: &str) -> String {
        let Self {
            line,
            column,
            message,
            hint,
            excerpt,
        } = self;
        let gutter = " ".repeat(line.to_string().len());
        let mut out = format!("error: {message}\n{gutter}--> {path}:{line}:{column}\n");
        let _ = writeln!(out, "{gutter} |\n{line} | {}", excerpt.text);
        let _ = writeln!(
            out,
            "{gutter} | {}{}",
            " ".repeat(excerpt.indent),
            "^".repeat(excerpt.width)
        );
        if let Some(hint) = hint {
            let _ = writeln!(out, "{gutter} = help: {hint}");
        }
        out
    }
}

/// The part of the source line that is shown, and where the caret goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    text: String,
    indent: usize,
    width: usize,
}

impl Excerpt {
    /// Characters of a line that are shown; a generated line may have a quarter of a megabyte.
    const SHOWN_CHARS: usize = 120;

    fn new(line: &str, column: usize, width: usize) -> Self {
        let before = column - 1;
        let skipped = before.saturating_sub(Self::SHOWN_CHARS / 2);
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let shown = line.chars().skip(skipped).take(Self::SHOWN_CHARS);
        let indent = before - skipped;
        Self {
            text: shown
                .map(printable)
                .collect::<String>()
                .trim_end()
                .to_owned(),
            indent,
            width: width.clamp(1, Self::SHOWN_CHARS - indent),
        }
    }
}

/// Bytes `start..end` of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A fault on its way out of the parser, before line and column are known.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Adds "did you mean", when one of `candidates` is near `word`.
    pub(crate) fn suggesting<'a>(
        self,
        word: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        match nearest(word, candidates) {
            Some(candidate) => self.with_hint(format!("did you mean '{candidate}'?")),
            None => self,
        }
    }
}

/// The candidate nearest to `word`, if a few edits lead there: at most a third of its letters.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Longer words are no slip of the pen, and the distance is quadratic.
    const MAX_CHARS: usize = 64;
    let length = word.chars().count();
    if length > MAX_CHARS {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|&(distance, _)| distance <= length / 3)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean 'x'?`, or nothing.
pub(crate) fn did_you_mean(word: &str, names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let names: Vec<_> = names.into_iter().collect();
    nearest(word, names.iter().map(AsRef::as_ref))
        .map_or_else(String::new, |name| format!("; did you mean '{name}'?"))
}

/// `text` with its control characters escaped: what a file wrote goes to nobody's terminal as it is.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Levenshtein's distance in characters, letter case ignored.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().map(|c| c.to_ascii_lowercase()).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_near_or_absent() {
        let names = ["f32", "bf16", "bool"];
        assert_eq!(nearest("fp32", names), Some("f32"));
        assert_eq!(nearest("BF16", names), Some("bf16"));
        assert_eq!(nearest("quantized", names), None);
    }

    #[test]
    fn the_caret_stands_under_the_fault() {
        let text = "op f(\n\tx: fp32[N],\n)";
        let span = Span { start: 10, end: 14 };
        let error = SchemaError::new(text, Fault::new(span, "unknown dtype").with_hint("f32"));
        assert_eq!(
            error.render("f.ops"),
            "error: unknown dtype\n --> f.ops:2:5\n  |\n2 |  x: fp32[N],\n  |     ^^^^\n  = help: f32\n"
        );
        assert_eq!(error.to_string(), "2:5: unknown dtype");
    }

    #[test]
    fn long_lines_are_cut_around_the_fault() {
        let text = "ä".repeat(10_000);
        let span = Span {
            start: 10_000,
            end: 20_000,
        };
        let rendered = SchemaError::new(&text, Fault::new(span, "x")).render("f");
        assert!(
            rendered.lines().all(|line| line.chars().count() < 140),
            "{rendered}"
        );
    }
}
