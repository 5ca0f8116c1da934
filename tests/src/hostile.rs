//! Plugins that nobody should open, made of C source, and how a host with a helper tells them.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::Command,
};

use ds_core::{Host, selection::State};

/// The head of the entry, whose body follows.
pub const ENTRY: &str = "DsStatus ds_plugin_v1(const DsHost *h, DsPlugin *p, DsErrorSink *e)";

/// A plugin `name` made of C source, in a folder of its own in `folder`; `false` where there is no C
/// compiler, which is said.
///
/// # Errors
/// When a file cannot be written, or the compiler refuses the source.
pub fn plugin(folder: &Path, name: &str, source: &str) -> io::Result<bool> {
    let plugin = folder.join(name);
    fs::create_dir_all(&plugin)?;
    let c = plugin.join("plugin.c");
    let heads = "ds_plugin.h fenv.h locale.h pthread.h signal.h stdio.h stdlib.h string.h unistd.h \
                 sys/stat.h";
    let includes = heads.split(' ').map(|head| format!("#include <{head}>\n"));
    fs::write(&c, includes.collect::<String>() + source)?;
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/abi/include");
    let built = Command::new("cc")
        .args(["-std=c11", "-D_GNU_SOURCE", "-fPIC", "-shared", "-pthread"])
        .args(["-fvisibility=hidden", "-I"])
        .arg(include)
        .arg(&c)
        .arg("-o")
        .arg(plugin.join("lib.so"))
        .arg("-lm")
        .output();
    match built {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // Past the test runner, which keeps what is printed, so that nobody takes it for a pass.
            writeln!(io::stderr(), "skipped: no C compiler (tried cc)")?;
            return Ok(false);
        }
        Err(e) => return Err(e),
        Ok(done) if !done.status.success() => {
            let words = String::from_utf8_lossy(&done.stderr);
            return Err(io::Error::other(words.into_owned()));
        }
        Ok(_) => {}
    }
    fs::remove_file(c)?;
    fs::write(plugin.join("plugin.json"), manifest(name))?;
    Ok(true)
}

/// What the plugin `name` says of itself: nothing that is not so, but that it creates no threads.
pub fn manifest(name: &str) -> String {
    let id = name.replace('_', "-");
    format!(
        r#"{{"format": 1, "id": "org.example.{id}", "version": "1.0.0", "vendor": "Example",
            "license": "Apache-2.0", "accelerator": "{name}", "priority": 0, "description": "Bad.",
            "library": {{"linux-x86_64": [{{"path": "lib.so"}}],
                         "linux-aarch64": [{{"path": "lib.so"}}]}},
            "abi": {{"major": 1, "min_minor": 0, "max_minor": 0}}, "tables": ["device"],
            "dlpack_type": 12, "match": [{{"always": true}}], "behaviour": {{"panic": "none"}},
            "seen_on": {{"on": "simulator", "note": "bad on purpose"}}}}"#
    )
}

/// The source of a plugin with one device that does as it should, but for what is put in: at the
/// top, and at the beginning of its entry, of `count` and of `describe`.
pub fn source(top: &str, entry: &str, count: &str, describe: &str) -> String {
    format!(
        "{top}
         static DsStatus n(uint32_t *d, DsErrorSink *e) {{ {count}; *d = 1; return DS_OK; }}
         static DsStatus i(uint32_t x, DsDeviceInfo *d, DsErrorSink *e) {{
             {describe}; d->alignment_bytes = 1; return DS_OK; }}
         static DsStatus o(uint32_t x, DsDevice *d, DsErrorSink *e) {{ return DS_IO; }}
         static void c(DsDevice d) {{ }}
         static DsDeviceTable t = {{ sizeof t, .count = n, .describe = i, .open = o, .close = c }};
         {ENTRY} {{ p->device = &t; {entry}; return DS_OK; }}"
    )
}

/// How `name` stands: its devices, or the reason why it has none.
///
/// # Errors
/// The reason.
pub fn status(host: &Host, name: &str) -> Result<u32, String> {
    let statuses = host.statuses();
    let Some(status) = statuses.into_iter().find(|s| s.name.as_str() == name) else {
        return Err(format!("{name} is not known"));
    };
    match status.state {
        State::Usable { device_count } => Ok(device_count),
        State::Unusable { reason, .. } => Err(reason),
    }
}
