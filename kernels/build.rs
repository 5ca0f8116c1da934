//! Lets cargo see a new folder: what `include_dir!` read is only known for the files that were
//! there. Refuses what a program could only pass over: a `kernel.json` that is none, and sources
//! that are not there.

use std::{env, error::Error, fs, path::Path};

use ds_schema::KernelFile;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=.");
    for entry in fs::read_dir(env::var("CARGO_MANIFEST_DIR")?)? {
        let folder = entry?.path();
        let description = folder.join("kernel.json");
        if description.is_file()
            && let Err(why) = check(&folder, &description)
        {
            println!("cargo::error={}: {why}", description.display());
        }
    }
    Ok(())
}

fn check(folder: &Path, description: &Path) -> Result<(), Box<dyn Error>> {
    for kernel in KernelFile::parse(fs::read(description)?)?.kernels {
        for source in kernel.sources {
            if !folder.join(&source).is_file() {
                return Err(format!("kernel '{}': there is no {source} here", kernel.name).into());
            }
        }
    }
    Ok(())
}
