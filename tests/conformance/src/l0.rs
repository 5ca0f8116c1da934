//! L0: the folder, without running any of it.

use ds_core::{elf, op};
use ds_schema::{Kernel, SchemaFile};

use crate::{
    check::{Check, Problem, hold},
    subject::Subject,
};

pub(crate) fn checks(subject: &Subject) -> Vec<Check> {
    let verdict = subject.candidate().verdict.clone();
    let mut checks = vec![Check::new(
        "nothing speaks against the folder",
        move || match verdict.refusal() {
            None => Ok(()),
            Some(refusal) => Err(Problem::Wrong(format!(
                "{}: {}",
                verdict.name(),
                refusal.reason
            ))),
        },
    )];
    let Some(manifest) = subject.manifest().cloned() else {
        return checks;
    };
    let (folder, name) = (subject.folder(), manifest.accelerator.clone());

    let licence = manifest.license.clone();
    checks.push(Check::new("a licence is named", move || {
        hold!(!licence.trim().is_empty(), "`license` is empty");
        Ok(())
    }));

    let library = subject.candidate().library.clone();
    checks.push(Check::new(
        "the library exports its entry alone",
        move || {
            let Some(library) = library else {
                return Err(Problem::Unavailable("there is no library file".into()));
            };
            elf::check_plugin(&library.path)?;
            Ok(())
        },
    ));

    // Schemas are read here and not registered: whoever opens the plugin does that.
    let mut own = Vec::new();
    for path in &manifest.schemas {
        let text = folder
            .as_ref()
            .map(|f| std::fs::read(f.join(path.as_path())));
        let parsed = text.map(|text| {
            let text = text.map_err(|e| e.to_string())?;
            SchemaFile::parse(text).map_err(|e| e.to_string())
        });
        if let Some(Ok(file)) = &parsed {
            own.extend(file.ops().to_vec());
        }
        checks.push(Check::new(
            format!("schema {}", path.as_path().display()),
            move || match parsed {
                Some(Err(why)) => Err(Problem::Wrong(why)),
                _ => Ok(()),
            },
        ));
    }

    let mut names: Vec<String> = Vec::new();
    for (index, entry) in subject.kernels().iter().enumerate() {
        let parsed = serde_json::from_str::<Kernel>(entry.text());
        let label = parsed
            .as_ref()
            .map_or_else(|_| format!("number {index}"), |k| k.name.clone());
        let twice = names.contains(&label);
        names.push(label.clone());
        let (accelerator, own) = (name.to_string(), own.clone());
        checks.push(Check::new(format!("kernel {label}"), move || {
            let kernel = parsed.map_err(|e| Problem::Wrong(e.to_string()))?;
            hold!(!twice, "the name is there twice");
            hold!(
                kernel.accelerator == accelerator,
                "accelerator: it is for '{}'",
                kernel.accelerator
            );
            let schema = own.iter().find(|schema| schema.name() == kernel.op);
            let schema = match schema {
                Some(schema) => schema,
                None => op::find(&kernel.op)?.schema(),
            };
            kernel.check(schema).map_err(|e| Problem::Wrong(e.message))
        }));
    }
    checks
}
