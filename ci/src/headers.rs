//! `headers`: writes `core/abi/include/` (the C header and the golden layout) from the crate
//! `ds-abi`, or checks that the committed header is what the crate says.
//!
//! cbindgen translates the declarations. This module only puts them in the order of the source,
//! module by module, so that the header reads like the crate.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::drift;
use crate::ops_header;
use crate::step::{Gate, Outcome, Verdict, cargo, run};

const CRATE: &str = "core/abi";
const HEADER: &str = "core/abi/include/ds_plugin.h";
const RENEW: &str = "cargo xtask headers";

/// Modules of `ds-abi`, each after those it uses: C wants names declared before they are used.
const MODULES: [&str; 8] = [
    "status", "tensor", "device", "stream", "memory", "jit", "op", "entry",
];

/// A Rust byte string, which the foot of the header spells as a C string.
const ENTRY_NAME: &str = "DS_PLUGIN_ENTRY_V1";

const TITLE: &str = "\
// SPDX-License-Identifier: Apache-2.0
// Generated from the crate ds-abi by `cargo xtask headers`; edit that crate instead.
//
";

const HEAD: &str = "\
#ifndef DS_PLUGIN_H
#define DS_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define DS_PLUGIN_EXPORT __declspec(dllexport)
#else
#define DS_PLUGIN_EXPORT __attribute__((visibility(\"default\")))
#endif

#ifdef __cplusplus
extern \"C\" {
#endif
";

const FOOT: &str = "
// Name of the entry symbol of major 1.
#define DS_PLUGIN_ENTRY_V1 \"ds_plugin_v1\"

// The entry of a plugin; see DsPluginEntry.
DS_PLUGIN_EXPORT DsStatus ds_plugin_v1(const DsHost *host, DsPlugin *plugin, DsErrorSink *error);

#ifdef __cplusplus
} // extern \"C\"
#endif

#endif // DS_PLUGIN_H
";

/// Which changes of the layout are let through.
#[derive(Clone, Copy)]
pub(crate) enum Layout {
    /// Additions, which plugins that are compiled already survive.
    Add,
    /// Any.
    Break,
}

/// Writes what `ds-abi` says, or fails when something else is committed.
pub(crate) fn step(gate: &Gate) -> Result<Verdict, String> {
    if gate.fix {
        write(gate.root, Layout::Add)?;
    } else {
        let text = generate(&gate.root.join(CRATE))?;
        drift::check(gate.root, HEADER, &text, RENEW)?;
        let ops = ops_header::generate(gate.root)?;
        drift::check(gate.root, ops_header::HEADER, &ops, RENEW)?;
        run(&mut layout_test(gate.root))?;
    }
    Ok(Verdict::Passed(Vec::new()))
}

/// Writes the header and the layout.
pub(crate) fn write(root: &Path, layout: Layout) -> Outcome {
    drift::write(root, HEADER, &generate(&root.join(CRATE))?)?;
    drift::write(root, ops_header::HEADER, &ops_header::generate(root)?)?;
    let mode = match layout {
        Layout::Add => "write",
        Layout::Break => "break",
    };
    run(layout_test(root).env("DS_ABI_LAYOUT", mode)).map(drop)
}

/// The test that compares the layout, and writes it when it is told to.
fn layout_test(root: &Path) -> Command {
    let mut command = cargo(root);
    command.args(["test", "--quiet", "--package", "ds-abi", "--test", "layout"]);
    command
}

/// The text of the header.
fn generate(package: &Path) -> Result<String, String> {
    let rules = Module::read(&package.join("src/lib.rs"))?.doc;
    let modules = MODULES
        .iter()
        .map(|name| Module::read(&package.join(format!("src/{name}.rs"))))
        .collect::<Result<Vec<_>, _>>()?;
    let mut declarations = Declarations::read(package, &modules)?;
    let mut text = format!("{TITLE}{}\n{HEAD}", comment(&rules));
    for module in &modules {
        let _ = write!(text, "\n// {}\n{}", "-".repeat(97), comment(&module.doc));
        for item in module.c_order(&declarations) {
            let _ = write!(text, "\n{}", declarations.take(item)?);
        }
    }
    text.push_str(FOOT);
    declarations.expect_empty()?;
    Ok(for_c(&text))
}

/// One source module of `ds-abi`.
struct Module {
    path: PathBuf,
    doc: Vec<String>,
    /// Public items in the order of the source.
    items: Vec<Item>,
}

struct Item {
    name: String,
    kind: Kind,
    doc: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Constant,
    Type,
    /// A struct behind a handle: C only learns that it exists.
    Opaque,
}

impl Module {
    fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let mut module = Self {
            path: path.to_owned(),
            doc: Vec::new(),
            items: Vec::new(),
        };
        let mut doc = Vec::new();
        for line in text.lines() {
            if let Some(line) = line.strip_prefix("//!") {
                module.doc.push(strip_blank(line).to_owned());
            } else if let Some(line) = line.strip_prefix("///") {
                doc.push(strip_blank(line).to_owned());
            } else if let Some((kind, name)) = public_item(line) {
                let doc = std::mem::take(&mut doc);
                module.items.push(Item { name, kind, doc });
            } else if line.trim() == "_private: [u8; 0]," {
                if let Some(item) = module.items.last_mut() {
                    item.kind = Kind::Opaque;
                }
            } else if !line.starts_with("#[") {
                doc.clear();
            }
        }
        Ok(module)
    }

    /// The items in an order that C accepts: types as cbindgen sorted them, each constant before
    /// the type that it precedes in the source.
    fn c_order(&self, declarations: &Declarations) -> Vec<&Item> {
        let items: Vec<_> = self
            .items
            .iter()
            .filter(|item| item.name != ENTRY_NAME)
            .collect();
        let mut groups: Vec<_> = items
            .split_inclusive(|item| item.kind != Kind::Constant)
            .collect();
        groups.sort_by_key(|group| group.last().map_or(0, |item| declarations.rank(item)));
        groups.concat()
    }
}

/// Recognises the first line of a public item.
fn public_item(line: &str) -> Option<(Kind, String)> {
    let mut words = line.strip_prefix("pub ")?.split([' ', ':', ';', '<', '(']);
    let kind = match words.next()? {
        "const" => Kind::Constant,
        "struct" | "union" | "type" => Kind::Type,
        _ => return None,
    };
    Some((kind, words.next()?.to_owned()))
}

/// What cbindgen wrote, by name.
struct Declarations {
    texts: HashMap<String, String>,
    order: HashMap<String, usize>,
}

impl Declarations {
    fn read(package: &Path, modules: &[Module]) -> Result<Self, String> {
        let mut config = cbindgen::Config::from_file(package.join("cbindgen.toml"))?;
        for item in modules.iter().flat_map(|module| &module.items) {
            match item.kind {
                Kind::Opaque => config.export.exclude.push(item.name.clone()),
                _ => config.export.include.push(item.name.clone()),
            }
        }
        let mut builder = cbindgen::Builder::new().with_config(config);
        for module in modules {
            builder = builder.with_src(&module.path);
        }
        let bindings = builder.generate().map_err(|error| error.to_string())?;
        let mut text = Vec::new();
        bindings.write(&mut text);
        // cbindgen does not see that an optional alias of a function pointer is a pointer in C.
        let text = String::from_utf8_lossy(&text).replace("struct Option_", "Option_");

        let mut found = Self {
            texts: HashMap::new(),
            order: HashMap::new(),
        };
        for block in text
            .split("\n\n")
            .map(str::trim)
            .filter(|block| !block.is_empty())
        {
            let name = declared_name(block)
                .ok_or_else(|| format!("cannot tell what cbindgen declares here:\n{block}"))?;
            if !name.starts_with("Option_") {
                found.order.insert(name.to_owned(), found.order.len());
                let text = block.replace("Option_", "");
                found
                    .texts
                    .insert(name.to_owned(), without_tags(&text, name));
            }
        }
        Ok(found)
    }

    /// Where an item comes in its module: opaque structs first, because handles point to them,
    /// and last the constants that no type follows.
    fn rank(&self, item: &Item) -> usize {
        match item.kind {
            Kind::Opaque => 0,
            Kind::Type => self.order.get(&item.name).map_or(0, |place| place + 1),
            Kind::Constant => usize::MAX,
        }
    }

    /// The declaration of an item, once.
    fn take(&mut self, item: &Item) -> Result<String, String> {
        let name = &item.name;
        if item.kind == Kind::Opaque {
            return Ok(format!(
                "{}typedef struct {name} {name};\n",
                comment(&item.doc)
            ));
        }
        let text = self
            .texts
            .remove(name)
            .ok_or_else(|| format!("cbindgen left out {name}"))?;
        Ok(if name.starts_with("DL") {
            format!("#ifndef DLPACK_DLPACK_H_ // dlpack.h, included before, has it\n{text}#endif\n")
        } else {
            text
        })
    }

    fn expect_empty(&self) -> Outcome {
        match self.texts.keys().min() {
            Some(name) => Err(format!("{name} is public, but no line of ds-abi starts it")),
            None => Ok(()),
        }
    }
}

/// The name that a declaration in C declares.
fn declared_name(block: &str) -> Option<&str> {
    let code = block.lines().find(|line| !line.starts_with("//"))?;
    if let Some(rest) = code.strip_prefix("#define ") {
        rest.split(' ').next()
    } else if let Some((_, rest)) = code.split_once("(*") {
        rest.split(')').next()
    } else {
        let last = block.lines().last()?.strip_suffix(';')?;
        last.rsplit([' ', '*']).next()
    }
}

fn strip_blank(line: &str) -> &str {
    line.strip_prefix(' ').unwrap_or(line)
}

/// Lines of documentation as a comment in C.
fn comment(doc: &[String]) -> String {
    doc.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{}", format!("// {line}").trim_end());
        text
    })
}

/// Every struct is declared under its plain name before it is used, but for a pointer to itself.
fn without_tags(declaration: &str, name: &str) -> String {
    let mut text = String::new();
    for line in declaration.lines() {
        let keep = line.starts_with("typedef struct ")
            || line.starts_with("typedef union ")
            || line.contains(&format!("struct {name} "));
        if keep {
            text.push_str(line);
        } else {
            let line = line.replace("struct Ds", "Ds").replace("struct DL", "DL");
            text.push_str(&line.replace("union Ds", "Ds"));
        }
        text.push('\n');
    }
    text
}

/// C readers see names, not rustdoc's links to them, and negative constants in parentheses.
fn for_c(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let line = match line.split_once("//") {
            Some((code, words)) => {
                let words = words.replace("[`", "`").replace("`]", "`");
                format!(
                    "{code}//{}",
                    words.replace("crate::", "").replace("::", ".")
                )
            }
            None => match line.split_once(" -") {
                Some((define, number)) if define.starts_with("#define ") => {
                    format!("{define} (-{number})")
                }
                _ => line.to_owned(),
            },
        };
        out.push_str(&line);
        out.push('\n');
    }
    out
}
