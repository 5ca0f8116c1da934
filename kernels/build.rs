//! Writes what is embedded: every folder here with a `kernel.json`, so that adding one edits nothing
//! else. Refuses a `kernel.json` that is none, and one that names sources that are not there.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

use ds_schema::KernelFile;

/// The file that makes a folder a kernel set.
const DESCRIPTION: &str = "kernel.json";
/// Folder of the headers that every kernel may include.
const HEADERS: &str = "include";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=.");
    let here = env::var("CARGO_MANIFEST_DIR")?;
    let here = Path::new(&here);
    let mut rust = format!(
        "static HEADERS: &[File] = &{};\n",
        embedded(&here.join(HEADERS))?
    );
    rust.push_str("static SETS: &[KernelSet] = &[\n");
    for name in names(here)? {
        let folder = here.join(&name);
        let description = folder.join(DESCRIPTION);
        if description.is_file() {
            match set(&name, &folder, &description) {
                Ok(set) => writeln!(rust, "{set},")?,
                Err(why) => println!("cargo::error={}: {why}", description.display()),
            }
        }
    }
    rust.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("sets.rs"), rust)?;
    Ok(())
}

/// The `KernelSet` of a folder, as Rust.
fn set(name: &str, folder: &Path, description: &Path) -> Result<String, Box<dyn Error>> {
    let mut kernels = String::new();
    for kernel in KernelFile::parse(fs::read(description)?)?.kernels {
        let missing = |source: &&String| !folder.join(source).is_file();
        if let Some(source) = kernel.sources.iter().find(missing) {
            return Err(format!("kernel '{}': there is no {source} here", kernel.name).into());
        }
        let (name, accelerator, sources) = (kernel.name, kernel.accelerator, kernel.sources);
        let symbol = kernel.symbol.unwrap_or_default();
        write!(
            kernels,
            "Kernel {{ name: {name:?}, accelerator: {accelerator:?}, sources: &{sources:?}, \
             symbol: {symbol:?} }}, "
        )?;
    }
    let description = text(description)?;
    Ok(format!(
        "KernelSet {{ name: {name:?}, description: include_str!({description:?}), \
         files: &{}, kernels: &[{kernels}] }}",
        embedded(folder)?
    ))
}

/// The files in `folder`, but for its description, as a Rust array of names and contents.
fn embedded(folder: &Path) -> Result<String, Box<dyn Error>> {
    let mut list = String::from("[");
    for name in names(folder)? {
        let path = folder.join(&name);
        if name != DESCRIPTION && path.is_file() {
            write!(list, "({name:?}, include_bytes!({:?})), ", text(&path)?)?;
        }
    }
    Ok(list + "]")
}

/// A path as Rust's own literals can have it.
fn text(path: &Path) -> Result<&str, Box<dyn Error>> {
    Ok(path.to_str().ok_or("the folder's path is not UTF-8")?)
}

/// The names in `folder`, sorted.
fn names(folder: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string();
        names.push(name.map_err(|_| "a file's name is not UTF-8")?);
    }
    names.sort();
    Ok(names)
}
