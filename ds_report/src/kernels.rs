//! Kernels in words: of what kind they are, and which calls they take.

use ds_schema::{ExtentRange, Kernel, KernelFlag, Layout, Schema};
use serde::Serialize;

/// How a kernel does its work, as far as its description says: by the band of its score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Class {
    /// A kernel of its own.
    Native,
    /// A function of a vendor's library.
    Library,
    /// Made of other ops.
    Decomposed,
}

impl Class {
    pub(crate) const ALL: [Self; 3] = [Self::Native, Self::Library, Self::Decomposed];

    /// The bands are those of [`ds_schema::ScoreBand`].
    pub(crate) fn of(kernel: &Kernel) -> Self {
        let best = kernel.score.iter().map(|band| band.score).max();
        match best.unwrap_or(0) {
            ..=99 => Self::Decomposed,
            200..=299 => Self::Library,
            _ => Self::Native,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Library => "library",
            Self::Decomposed => "decomposed",
        }
    }
}

/// What a score says of a kernel.
pub(crate) fn score_words(score: i32) -> &'static str {
    match score {
        ..=99 => "made of other ops",
        100..=199 => "generic",
        200..=299 => "of a vendor's library",
        300..=999 => "tuned",
        _ => "your override",
    }
}

/// What `kernel` takes, a phrase for each constraint.
pub(crate) fn takes(kernel: &Kernel, schema: &Schema) -> Vec<String> {
    let constraints = &kernel.constraints;
    let mut phrases = Vec::new();
    for (variable, dtypes) in &constraints.dtypes {
        let names: Vec<&str> = dtypes.iter().map(|dtype| dtype.name()).collect();
        phrases.push(format!("{variable} is {}", or(&names)));
    }
    for (attribute, values) in &constraints.attributes {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        phrases.push(format!("{attribute} is {}", or(&values)));
    }
    let arguments = || schema.arguments().iter().map(|a| a.name.as_str());
    for argument in arguments() {
        if let Some((least, greatest)) = constraints.rank.get(argument) {
            phrases.push(format!("{argument} has {least} to {greatest} dimensions"));
        }
    }
    for (variable, range) in &constraints.dims {
        phrases.extend(extent(variable, *range));
    }
    phrases.extend(layouts(kernel, schema));
    let mut alignments: Vec<(u64, Vec<&str>)> = Vec::new();
    for argument in arguments() {
        let Some(&bytes) = constraints.alignment_bytes.get(argument) else {
            continue;
        };
        match alignments.iter_mut().find(|(of, _)| *of == bytes) {
            Some((_, aligned)) => aligned.push(argument),
            None => alignments.push((bytes, vec![argument])),
        }
    }
    for (bytes, aligned) in alignments {
        let which = all_or_named(&aligned, schema);
        phrases.push(format!("{which} aligned to {bytes} bytes"));
    }
    if let Some(most) = constraints.max_elements {
        phrases.push(format!("at most {most} elements in a tensor"));
    }
    for feature in &constraints.target {
        phrases.push(format!("a target with {feature}"));
    }
    if !kernel.has(KernelFlag::ZeroSize) {
        phrases.push("no tensors without elements".to_owned());
    }
    if kernel.has(KernelFlag::InPlace) {
        phrases.push("in place too".to_owned());
    }
    phrases
}

/// The scores by size.
pub(crate) fn scores(kernel: &Kernel) -> String {
    let bands = kernel.score.iter().map(|band| match band.elements {
        (0, None) => format!("score {}", band.score),
        (least, None) => format!("score {} from {least} elements", band.score),
        (least, Some(greatest)) => {
            format!("score {} for {least} to {greatest} elements", band.score)
        }
    });
    bands.collect::<Vec<_>>().join(", ")
}

fn extent(variable: &str, range: ExtentRange) -> Option<String> {
    let ExtentRange { min, max, multiple } = range;
    let bounds = match (min, max) {
        (0, i64::MAX) => None,
        (_, i64::MAX) => Some(format!("at least {min}")),
        (0, _) => Some(format!("at most {max}")),
        (_, _) if min == max => Some(format!("{min}")),
        (_, _) => Some(format!("{min} to {max}")),
    };
    let multiple = (multiple > 1).then(|| format!("a multiple of {multiple}"));
    let both: Vec<String> = bounds.into_iter().chain(multiple).collect();
    (!both.is_empty()).then(|| format!("{variable} is {}", and(&both)))
}

/// Every argument has a layout: one that the kernel does not name is contiguous.
fn layouts(kernel: &Kernel, schema: &Schema) -> Vec<String> {
    let of = |layout: Layout| -> Vec<&str> {
        let names = schema.arguments().iter().map(|a| a.name.as_str());
        let stated = |name: &str| kernel.constraints.layout.get(name).copied();
        names
            .filter(|name| stated(name).unwrap_or(Layout::Contiguous) == layout)
            .collect()
    };
    let mut phrases = Vec::new();
    for (layout, words) in [
        (Layout::Strided, "with any strides"),
        (Layout::Rows, "with contiguous rows"),
        (Layout::Contiguous, "contiguous"),
    ] {
        let arguments = of(layout);
        if !arguments.is_empty() {
            phrases.push(format!("{} {words}", all_or_named(&arguments, schema)));
        }
    }
    phrases
}

fn all_or_named(arguments: &[&str], schema: &Schema) -> String {
    match arguments.len() {
        n if n > 1 && n == schema.arguments().len() => "all arguments".to_owned(),
        _ => and(arguments),
    }
}

/// `a`, `a and b`, `a, b and c`.
fn and(items: &[impl AsRef<str>]) -> String {
    listed(items, "and")
}

fn or(items: &[impl AsRef<str>]) -> String {
    listed(items, "or")
}

fn listed(items: &[impl AsRef<str>], word: &str) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match items.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} {word} {last}", rest.join(", ")),
        _ => items.concat(),
    }
}

#[cfg(test)]
mod tests {
    use ds_schema::SchemaFile;

    use super::*;

    #[test]
    fn every_constraint_has_its_words() {
        let text = "op f(x: T[S..., D], w: T[D], a: static bool) -> y: T[S..., D] where T: f32 | f16 | bf16";
        let file = SchemaFile::parse(text).unwrap();
        let kernel: Kernel = serde_json::from_str(
            r#"{"name": "k", "op": "f", "accelerator": "a", "constraints": {
                "dtypes": {"T": ["f32", "bf16"]}, "attributes": {"a": [true]}, "rank": {"x": [1, 4]},
                "dims": {"D": {"min": 1, "max": 8192, "multiple": 8}, "S": {}}, "layout": {"x": "rows", "y": "rows"},
                "alignment_bytes": {"x": 16, "y": 16}, "max_elements": 100, "target": ["avx2"]},
                "score": [{"elements": [0, 9], "score": 10}, {"elements": [10, null], "score": 250}], "flags": ["in_place"]}"#,
        )
        .unwrap();
        kernel.check(&file.ops()[0]).unwrap();
        assert_eq!(
            takes(&kernel, &file.ops()[0]).join("; "),
            "T is f32 or bf16; a is true; x has 1 to 4 dimensions; D is 1 to 8192 and a multiple of 8; \
             x and y with contiguous rows; w contiguous; x and y aligned to 16 bytes; at most 100 \
             elements in a tensor; a target with avx2; no tensors without elements; in place too"
        );
        assert_eq!(
            scores(&kernel),
            "score 10 for 0 to 9 elements, score 250 from 10 elements"
        );
        assert_eq!(Class::of(&kernel), Class::Library);
    }
}
