//! L1: the entry, as hosts of other versions and sizes would call it.

use ds_abi::{
    DS_ABI_MINOR, DS_EXTENSION_MUST_UNDERSTAND, DS_INCOMPATIBLE_ABI, DS_NO_DEVICE, DS_OK,
    DS_PANIC_ABORT, DsPlugin, DsPluginEntry,
};
use ds_core::manifest::{Manifest, PanicStrategy};

use crate::{
    check::{Check, Held, Problem, hold},
    raw::{Entered, HostSays, SMALLEST_INFO_BYTES, enter},
    subject::Subject,
};

/// Room for a message, as the host gives it.
const MESSAGE: Option<usize> = Some(512);

pub(crate) fn checks(subject: &Subject) -> Result<Vec<Check>, String> {
    let entry = subject.entry()?;
    let manifest = subject.manifest().cloned().ok_or("there is no manifest")?;
    let mut checks = vec![
        Check::new("it says of itself what its manifest does", move || {
            says_what_the_manifest_does(entry, &manifest)
        }),
        Check::new("it writes only what it has been given", move || {
            let told = usual(entry, FULL)?;
            hold!(
                told.plugin.struct_size as usize <= FULL,
                "it says that it filled {} bytes of {FULL}",
                told.plugin.struct_size
            );
            Ok(())
        }),
        Check::new(
            "a struct that is too small for it stays as it is behind its end",
            move || {
                let size = size_of::<DsPlugin>() - size_of::<usize>();
                let told = enter(entry, HostSays::USUAL, size, MESSAGE);
                hold!(
                    told.within,
                    "bytes behind the {size} that it was told were written"
                );
                Ok(())
            },
        ),
        Check::new("it works with a host that is larger", move || {
            accepted(&enter(
                entry,
                HostSays {
                    larger_by: 64,
                    ..HostSays::USUAL
                },
                FULL,
                MESSAGE,
            ))
        }),
        Check::new("it works without an error sink", move || {
            accepted(&enter(entry, HostSays::USUAL, FULL, None))
        }),
        Check::new(
            "an extension that it does not know is no reason to refuse",
            move || {
                let says = HostSays {
                    extension: Some(0),
                    ..HostSays::USUAL
                };
                accepted(&enter(entry, says, FULL, MESSAGE))
            },
        ),
        Check::new(
            "an extension that must be understood is refused or its own",
            move || {
                let flags = DS_EXTENSION_MUST_UNDERSTAND;
                let says = HostSays {
                    extension: Some(flags),
                    ..HostSays::USUAL
                };
                refused(&enter(entry, says, FULL, MESSAGE))
            },
        ),
        Check::new(
            "a refusal fits into what there is for its words",
            move || {
                let says = HostSays {
                    extension: Some(DS_EXTENSION_MUST_UNDERSTAND),
                    ..HostSays::USUAL
                };
                let told = enter(entry, says, FULL, Some(8));
                hold!(
                    told.message.len() <= 8,
                    "'{}' has more than 8 bytes",
                    told.message
                );
                Ok(())
            },
        ),
        Check::new("a device that is not there is told so", move || {
            no_such_device(entry)
        }),
        Check::new(
            "a device is described within what there is room for",
            move || describes_within(entry),
        ),
    ];
    for ahead in 0..=2 {
        let minor = DS_ABI_MINOR + ahead;
        checks.push(Check::new(format!("host 1.{minor}"), move || {
            let told = enter(
                entry,
                HostSays {
                    minor,
                    ..HostSays::USUAL
                },
                FULL,
                MESSAGE,
            );
            // Whoever is older is asked whether it accepts that; a newer host always is.
            if told.status == DS_OK && told.plugin.min_host_minor > minor {
                return Ok(());
            }
            accepted(&told)
        }));
        checks.push(Check::new(
            format!("host 1.{minor} that wants plugins of 1.{minor}"),
            move || {
                let says = HostSays {
                    minor,
                    min_plugin_minor: minor,
                    ..HostSays::USUAL
                };
                let told = enter(entry, says, FULL, MESSAGE);
                match told.status {
                    DS_OK => Ok(()),
                    _ => refused(&told),
                }
            },
        ));
    }
    Ok(checks)
}

/// What the host gives.
const FULL: usize = size_of::<DsPlugin>();

fn usual(entry: DsPluginEntry, size: usize) -> Result<Entered, Problem> {
    let told = enter(entry, HostSays::USUAL, size, MESSAGE);
    accepted(&told).map(|()| told)
}

fn accepted(told: &Entered) -> Held {
    hold!(
        told.status == DS_OK,
        "status {}: {}",
        told.status,
        told.message
    );
    hold!(told.within, "bytes behind its struct were written");
    Ok(())
}

fn refused(told: &Entered) -> Held {
    hold!(
        told.status == DS_INCOMPATIBLE_ABI,
        "status {} instead of {DS_INCOMPATIBLE_ABI}, incompatible: {}",
        told.status,
        told.message
    );
    hold!(!told.message.is_empty(), "it refuses without a word");
    Ok(())
}

fn says_what_the_manifest_does(entry: DsPluginEntry, manifest: &Manifest) -> Held {
    let told = usual(entry, FULL)?;
    hold!(
        told.id() == manifest.id.as_str() && told.version() == manifest.version,
        "the manifest says {} {}, the entry {} {}",
        manifest.id,
        manifest.version,
        told.id(),
        told.version()
    );
    let mut tables: Vec<_> = manifest.tables.iter().map(ToString::to_string).collect();
    tables.sort();
    let mut given = told.tables();
    given.sort_unstable();
    hold!(
        tables == given,
        "the manifest has the tables {}, the entry gives {}",
        tables.join(", "),
        given.join(", ")
    );
    hold!(
        told.plugin.panic_strategy != DS_PANIC_ABORT
            && manifest.behaviour.panic != PanicStrategy::Abort,
        "a panic would end the process"
    );
    Ok(())
}

fn no_such_device(entry: DsPluginEntry) -> Held {
    let told = usual(entry, FULL)?;
    let Ok(count) = told.count() else {
        return Err(Problem::Unavailable(
            "its devices cannot be counted here".into(),
        ));
    };
    for index in [count, u32::MAX] {
        let (status, message, within) = told.describe(index, info_bytes(), 512);
        hold!(
            status == DS_NO_DEVICE,
            "describing device {index} of {count} gives status {status} instead of {DS_NO_DEVICE}"
        );
        hold!(
            !message.is_empty(),
            "device {index} is refused without a word"
        );
        hold!(within, "bytes were written where nothing may be");
    }
    let (_, message, within) = told.describe(count, info_bytes(), 4);
    hold!(
        within && message.len() <= 4,
        "a message of 4 bytes became '{message}'"
    );
    Ok(())
}

fn describes_within(entry: DsPluginEntry) -> Held {
    let told = usual(entry, FULL)?;
    if told.count().unwrap_or(0) == 0 {
        return Err(Problem::Unavailable("there is no device".into()));
    }
    for size in [info_bytes(), info_bytes() - 8, SMALLEST_INFO_BYTES] {
        let (_, _, within) = told.describe(0, size, 512);
        hold!(
            within,
            "told {size} bytes of the info, it wrote behind them"
        );
    }
    let (status, message, _) = told.describe(0, info_bytes(), 512);
    hold!(status == DS_OK, "status {status}: {message}");
    Ok(())
}

fn info_bytes() -> usize {
    size_of::<ds_abi::DsDeviceInfo>()
}
