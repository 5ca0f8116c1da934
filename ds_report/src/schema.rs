//! The JSON schema of each view, committed in `ds_report/schema`: what programs that read `--json`
//! rely on. `DS_WRITE_SCHEMAS=1 cargo test -p ds_report schema` writes them anew.

use std::{env, fs, path::Path};

use schemars::Schema;

use crate::{build, cache, explain, io, ops, plugin, plugins, report, toolchains, verify};

#[test]
fn the_committed_schemas_are_those_of_the_views() {
    let mut views: Vec<(&str, Schema)> = vec![
        ("build", schemars::schema_for!(build::Build)),
        ("cache", schemars::schema_for!(cache::List)),
        ("cache-copy", schemars::schema_for!(cache::Copied)),
        ("cache-prune", schemars::schema_for!(cache::PruneDone)),
        ("explain", schemars::schema_for!(explain::Explain)),
        ("io", schemars::schema_for!(io::Io)),
        ("ops", schemars::schema_for!(ops::Ops)),
        ("plugins", schemars::schema_for!(plugins::Plugins)),
        ("report", schemars::schema_for!(report::Report)),
        ("toolchains", schemars::schema_for!(toolchains::Toolchains)),
        ("verify", schemars::schema_for!(verify::Verification)),
    ];
    views.extend(plugin::schemas());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    for (view, schema) in views {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let path = folder.join(format!("{view}.json"));
        if env::var_os("DS_WRITE_SCHEMAS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "{} is not what `--json` writes; DS_WRITE_SCHEMAS=1 cargo test -p ds_report schema",
            path.display()
        );
    }
}
