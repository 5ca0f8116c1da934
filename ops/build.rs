//! Finds the op folders: every folder here with a `.ops` file of its own name is a module, so that
//! adding an op edits nothing else.

use std::{env, error::Error, fmt::Write, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let here = env::var("CARGO_MANIFEST_DIR")?;
    println!("cargo::rerun-if-changed={here}");
    let mut names = Vec::new();
    for entry in fs::read_dir(&here)? {
        let name = entry?
            .file_name()
            .into_string()
            .map_err(|_| "a folder's name is not UTF-8")?;
        if Path::new(&here)
            .join(&name)
            .join(format!("{name}.ops"))
            .is_file()
        {
            names.push(name);
        }
    }
    names.sort();
    let mut text = String::new();
    for name in &names {
        writeln!(text, "#[path = \"{here}/{name}/mod.rs\"]\npub mod {name};")?;
        writeln!(
            text,
            "inventory::submit! {{ op::OpSource {{ text: include_str!(\"{here}/{name}/{name}.ops\"), \
             path: \"ops/{name}/{name}.ops\", references: {name}::REFERENCES, cases: {name}::cases }} }}"
        )?;
    }
    fs::write(Path::new(&env::var("OUT_DIR")?).join("catalogue.rs"), text)?;
    Ok(())
}
