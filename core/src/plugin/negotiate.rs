//! Negotiation: may this host and this plugin work together? A pure function of what both say.

use ds_abi::{
    DS_EXTENSION_MUST_UNDERSTAND, DS_PANIC_ABORT, DsDeviceTable, DsJitTable, DsMemoryTable,
    DsOpTable, DsPlugin, DsStreamTable,
};

/// One side's word on versions, features and extensions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Its own minor.
    pub minor: u32,
    /// The oldest minor of the other side that it accepts.
    pub oldest_other_minor: u32,
    /// `DS_FEATURE_*` bits that it has.
    pub features: u64,
    /// `DS_FEATURE_*` bits that the other side must have.
    pub features_required: u64,
    /// Extensions that it brings: identity and flags.
    pub extensions: Vec<([u8; 16], u32)>,
}

/// What a plugin says of itself beside its [`Side`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginShape {
    /// How many bytes of [`DsPlugin`] it filled.
    pub struct_size: usize,
    /// `DS_PANIC_*`.
    pub panic_strategy: u32,
    /// The tables that it has, with what they lack.
    pub tables: Vec<TableShape>,
}

/// One table of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// Its name: `device`, `memory`, `stream`, `op`, `jit`.
    pub name: &'static str,
    /// Its size as the plugin states it, in bytes.
    pub struct_size: usize,
    /// Required functions that are missing.
    pub missing: Vec<&'static str>,
}

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The lower of the two minors.
    pub minor: u32,
    /// Tables that are left out, with the reason.
    pub dropped: Vec<(&'static str, String)>,
}

/// The size of [`DsPlugin`] in version 1.0: less is no plugin of this major.
pub const PLUGIN_V1_0_BYTES: usize = size_of::<DsPlugin>();

/// A size beyond this was never set, or is no size: no later minor will have thousands of functions.
const MOST_BYTES: usize = 64 << 10;

/// Decides; the reason for a refusal is a sentence that names the rule and both values.
///
/// # Errors
/// The reason why the two cannot work together.
pub fn negotiate(host: &Side, plugin: &Side, shape: &PluginShape) -> Result<Agreement, String> {
    if shape.struct_size < PLUGIN_V1_0_BYTES {
        return Err(format!(
            "the plugin filled {} bytes of its description, version 1.0 has {PLUGIN_V1_0_BYTES}",
            shape.struct_size
        ));
    }
    if shape.struct_size > MOST_BYTES {
        return Err(format!(
            "the plugin filled {} bytes of its description, which has {PLUGIN_V1_0_BYTES}",
            shape.struct_size
        ));
    }
    if plugin.minor < host.oldest_other_minor {
        return Err(format!(
            "the plugin was made for ABI 1.{}, this host accepts 1.{} and later",
            plugin.minor, host.oldest_other_minor
        ));
    }
    if host.minor < plugin.oldest_other_minor {
        return Err(format!(
            "the plugin needs a host of ABI 1.{} or later, this one is 1.{}",
            plugin.oldest_other_minor, host.minor
        ));
    }
    for (who, needs, has) in [
        ("plugin", plugin.features_required, host.features),
        ("host", host.features_required, plugin.features),
    ] {
        let lacking = needs & !has;
        if lacking != 0 {
            return Err(format!(
                "the {who} requires features {lacking:#x} that the other lacks"
            ));
        }
    }
    for (who, mine, others) in [("plugin", plugin, host), ("host", host, plugin)] {
        let known = |id: &[u8; 16]| others.extensions.iter().any(|(other, _)| other == id);
        let unknown = mine
            .extensions
            .iter()
            .find(|(id, flags)| flags & DS_EXTENSION_MUST_UNDERSTAND != 0 && !known(id));
        if let Some((id, _)) = unknown {
            return Err(format!(
                "the {who} brings extension {} that must be understood, and is not",
                hex(id)
            ));
        }
    }
    if shape.panic_strategy == DS_PANIC_ABORT {
        return Err(
            "the plugin was built with panic = \"abort\", which would end this process; \
                    build it with panic = \"unwind\""
                .to_owned(),
        );
    }
    let mut dropped = Vec::new();
    for table in &shape.tables {
        if let Some(problem) = table_problem(table) {
            if table.name == "device" {
                return Err(format!("the device table is unusable: {problem}"));
            }
            dropped.push((table.name, problem));
        }
    }
    if !shape.tables.iter().any(|t| t.name == "device") {
        return Err("the plugin has no device table".to_owned());
    }
    Ok(Agreement {
        minor: host.minor.min(plugin.minor),
        dropped,
    })
}

fn table_problem(table: &TableShape) -> Option<String> {
    /// The first function ends here; a table without even that is nonsense.
    const LEAST_BYTES: usize = 16;
    if !(LEAST_BYTES..=MOST_BYTES).contains(&table.struct_size) {
        return Some(format!("its size is {} bytes", table.struct_size));
    }
    (!table.missing.is_empty()).then(|| format!("it lacks {}", table.missing.join(", ")))
}

fn hex(id: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}

/// Names and offsets of the functions that a table must have.
pub(crate) trait Required {
    /// The table's name.
    const NAME: &'static str;
    /// Its required slots: name and offset in bytes.
    const SLOTS: &'static [(&'static str, usize)];
}

macro_rules! required {
    ($($table:ident $name:literal { $($slot:ident),* $(,)? })*) => {
        $(impl Required for $table {
            const NAME: &'static str = $name;
            const SLOTS: &'static [(&'static str, usize)] =
                &[$((stringify!($slot), std::mem::offset_of!($table, $slot))),*];
        })*
    };
}

required! {
    DsDeviceTable "device" { count, describe, open, close }
    DsMemoryTable "memory" { allocate, free, info, copy }
    DsStreamTable "stream" {
        stream_create, stream_destroy, stream_synchronize, stream_query, event_create,
        event_destroy, event_record, event_wait, event_signal, event_query, event_synchronize,
    }
    DsOpTable "op" { prepare, launch, release }
    DsJitTable "jit" { toolchain_count, toolchain, request, load }
}

#[cfg(test)]
mod tests {
    use ds_abi::{DS_FEATURE_BUILD_PROGRAMS, DS_FEATURE_HOST_SIGNAL, DS_PANIC_UNWIND};

    use super::*;

    fn side(minor: u32, oldest_other_minor: u32) -> Side {
        Side {
            minor,
            oldest_other_minor,
            features: DS_FEATURE_HOST_SIGNAL | DS_FEATURE_BUILD_PROGRAMS,
            ..Side::default()
        }
    }

    fn shape() -> PluginShape {
        let table = |name| TableShape {
            name,
            struct_size: 64,
            missing: Vec::new(),
        };
        PluginShape {
            struct_size: PLUGIN_V1_0_BYTES,
            panic_strategy: DS_PANIC_UNWIND,
            tables: ["device", "memory", "stream", "op", "jit"]
                .map(table)
                .into(),
        }
    }

    #[test]
    fn the_version_matrix_agrees_exactly_when_both_ranges_hold() {
        let middle = 5u32;
        for host_minor in middle - 2..=middle + 2 {
            for plugin_minor in middle - 2..=middle + 2 {
                for host_oldest in 0..=host_minor {
                    for plugin_oldest in 0..=plugin_minor {
                        let agreed = negotiate(
                            &side(host_minor, host_oldest),
                            &side(plugin_minor, plugin_oldest),
                            &shape(),
                        );
                        let may = plugin_minor >= host_oldest && host_minor >= plugin_oldest;
                        assert_eq!(
                            agreed.as_ref().map(|a| a.minor).ok(),
                            may.then(|| host_minor.min(plugin_minor)),
                            "host 1.{host_minor} (from {host_oldest}), plugin 1.{plugin_minor} \
                             (from {plugin_oldest}): {agreed:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn sizes_may_be_larger_but_not_smaller_than_version_1_0() {
        let with = |struct_size| {
            let shape = PluginShape {
                struct_size,
                ..shape()
            };
            negotiate(&side(0, 0), &side(0, 0), &shape)
        };
        assert!(with(PLUGIN_V1_0_BYTES + 64).is_ok());
        assert!(
            with(PLUGIN_V1_0_BYTES - 1)
                .unwrap_err()
                .contains("bytes of its description")
        );
    }

    #[test]
    fn a_feature_that_either_side_requires_must_be_there() {
        let rare = 1 << 40;
        let needy = Side {
            features_required: rare,
            ..side(0, 0)
        };
        let able = Side {
            features: rare,
            ..side(0, 0)
        };
        let refusal = negotiate(&side(0, 0), &needy, &shape()).unwrap_err();
        assert_eq!(
            refusal,
            "the plugin requires features 0x10000000000 that the other lacks"
        );
        assert!(
            negotiate(&needy, &side(0, 0), &shape())
                .unwrap_err()
                .starts_with("the host")
        );
        assert!(negotiate(&able, &needy, &shape()).is_ok());
        assert!(negotiate(&needy, &able, &shape()).is_ok());
    }

    #[test]
    fn unknown_extensions_pass_unless_they_must_be_understood() {
        let with = |flags| Side {
            extensions: vec![([7; 16], flags)],
            ..side(0, 0)
        };
        assert!(negotiate(&side(0, 0), &with(0), &shape()).is_ok());
        let must = with(DS_EXTENSION_MUST_UNDERSTAND);
        let refusal = negotiate(&side(0, 0), &must, &shape()).unwrap_err();
        assert!(
            refusal.contains("07070707070707070707070707070707"),
            "{refusal}"
        );
        assert!(negotiate(&must, &side(0, 0), &shape()).is_err());
        assert!(negotiate(&with(0), &must, &shape()).is_ok(), "both know it");
    }

    #[test]
    fn a_plugin_that_aborts_on_panic_is_refused() {
        let shape = PluginShape {
            panic_strategy: DS_PANIC_ABORT,
            ..shape()
        };
        assert!(
            negotiate(&side(0, 0), &side(0, 0), &shape)
                .unwrap_err()
                .contains("abort")
        );
        let unknown = PluginShape {
            panic_strategy: 77,
            ..shape
        };
        assert!(
            negotiate(&side(0, 0), &side(0, 0), &unknown).is_ok(),
            "open sets stay open"
        );
    }

    #[test]
    fn a_broken_table_is_dropped_alone_unless_it_is_the_device_table() {
        for index in 0..5 {
            let mut broken = shape();
            broken.tables[index].missing = vec!["copy", "free"];
            let name = broken.tables[index].name;
            match negotiate(&side(0, 0), &side(0, 0), &broken) {
                Ok(agreed) => {
                    assert_eq!(agreed.dropped, [(name, "it lacks copy, free".to_owned())]);
                }
                Err(reason) => assert!(name == "device" && reason.contains("lacks copy")),
            }
            let mut tiny = shape();
            tiny.tables[index].struct_size = 8;
            assert_eq!(
                negotiate(&side(0, 0), &side(0, 0), &tiny).is_err(),
                name == "device"
            );
            let mut absent = shape();
            absent.tables.remove(index);
            assert_eq!(
                negotiate(&side(0, 0), &side(0, 0), &absent).is_err(),
                name == "device"
            );
        }
    }
}
