//! `ds_ops.h`: names and schema hashes of the catalogue's ops, for plugins in C.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use ds_schema::{Schema, SchemaFile};

use crate::dist::stage::files_below;

/// Where the header lies.
pub(crate) const HEADER: &str = "ops/include/ds_ops.h";

const HEAD: &str = "\
// SPDX-License-Identifier: Apache-2.0
// Generated from ops/*/*.ops by `cargo xtask headers`; edit those instead.
//
// A signature names its op and carries the hash of its schema (DsSignature.schema_hash). A kernel
// that compares it with the hash here never meets an op whose meaning has changed. A manifest's
// kernel says the same as text: \"schema\": DS_OP_<NAME>_SCHEMA_TEXT.

#ifndef DS_OPS_H
#define DS_OPS_H
";

/// The text of the header.
pub(crate) fn generate(root: &Path) -> Result<String, String> {
    let folder = root.join("ops");
    let mut text = HEAD.to_owned();
    for file in files_below(&folder)? {
        let in_its_folder = file
            .strip_suffix(".ops")
            .and_then(|path| path.split_once('/'))
            .is_some_and(|(set, name)| set == name);
        if !in_its_folder {
            continue;
        }
        let path = folder.join(&file);
        let source = fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let parsed = SchemaFile::parse(source).map_err(|e| e.render(&format!("ops/{file}")))?;
        for op in parsed.ops() {
            describe(&mut text, op);
        }
    }
    text.push_str("\n#endif // DS_OPS_H\n");
    Ok(text)
}

fn describe(text: &mut String, op: &Schema) {
    let (name, hash) = (op.name(), op.hash());
    let symbol = name.to_uppercase();
    let bytes: Vec<String> = hash.0.iter().map(|byte| format!("0x{byte:02x}")).collect();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let _ = write!(
        text,
        "\n// {}\n#define DS_OP_{symbol} \"{name}\"\n\
         #define DS_OP_{symbol}_SCHEMA_TEXT \"{hash}\"\n\
         #define DS_OP_{symbol}_SCHEMA \\\n  {{{}, \\\n   {}}}\n",
        op.canonical().trim_end().replace('\n', "\n// "),
        first.join(", "),
        second.join(", "),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_op_is_told_as_text_and_as_bytes() {
        let file = SchemaFile::parse("set s\nop f(x: f32[]) -> y: f32[]\n").unwrap();
        let mut text = String::new();
        describe(&mut text, &file.ops()[0]);
        let hash = file.ops()[0].hash();
        assert!(text.contains("#define DS_OP_F \"f\"\n"), "{text}");
        assert!(text.contains(&format!("\"{hash}\"")), "{text}");
        assert!(text.contains(&format!("{{0x{:02x}, ", hash.0[0])), "{text}");
        assert!(text.contains(&format!("0x{:02x}}}", hash.0[15])), "{text}");
    }
}
