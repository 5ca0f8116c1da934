//! Lets cargo see a new folder: what `include_dir!` read is only known for the files that were there.

fn main() {
    println!("cargo::rerun-if-changed=.");
}
