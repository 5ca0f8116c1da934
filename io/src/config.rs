//! The `aio` block of `ds_config.json`.

use ds_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// Direct I/O moves whole pages; a part of one goes through the page cache.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// The kernel moves less than 2 GiB in a call, and an engine's request counts in 32 bits.
const MOST_BLOCK_BYTES: u64 = 1 << 30;
/// What the kernel's tables take, with room to spare.
const MOST_DEPTH: u32 = 4096;
const MOST_LANES: u32 = 256;

/// How a handle reads and writes: DeepSpeed's `aio` block, with its names and defaults.
///
/// # Upstream
/// `deepspeed/runtime/swap_tensor/aio_config.py`. `thread_count` and `num_threads`, which its own
/// documents and tools write, are taken for `intra_op_parallelism`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AioConfig {
    /// How much one request moves at most, in bytes; a multiple of 4096.
    pub block_size: u64,
    /// How many requests a lane has with the kernel at most.
    pub queue_depth: u32,
    /// How many lanes, each a thread with a queue of its own, share every operation.
    #[serde(alias = "thread_count", alias = "num_threads")]
    pub intra_op_parallelism: u32,
    /// Hand requests to the kernel one by one rather than together.
    #[serde(deserialize_with = "boolean")]
    pub single_submit: bool,
    /// Ask for more as soon as something has completed, rather than when everything has.
    #[serde(deserialize_with = "boolean")]
    pub overlap_events: bool,
    /// Go from storage to the device's memory directly: [`crate::GdsHandle`].
    #[serde(deserialize_with = "boolean")]
    pub use_gds: bool,
}

impl Default for AioConfig {
    fn default() -> Self {
        Self {
            block_size: 1 << 20,
            queue_depth: 8,
            intra_op_parallelism: 1,
            single_submit: false,
            overlap_events: true,
            use_gds: false,
        }
    }
}

impl AioConfig {
    /// Reads the block, as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] with the key at fault, what it is and what it must be.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let parsed: Self = serde_json::from_slice(json).map_err(|e| {
            Error::new(
                ErrorKind::InvalidArgument,
                "read the aio block",
                e.to_string(),
            )
        })?;
        parsed.check()?;
        Ok(parsed)
    }

    /// Refuses what no handle can be made of.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |name: &str, found: u64, rule: &str| {
            let text = format!("{name} is {found}; it must be {rule}");
            Err(Error::new(
                ErrorKind::InvalidArgument,
                "make an aio handle",
                text,
            ))
        };
        let Self {
            block_size,
            queue_depth,
            intra_op_parallelism,
            ..
        } = *self;
        if block_size == 0 || block_size > MOST_BLOCK_BYTES || block_size % PAGE_BYTES != 0 {
            let rule = format!("a multiple of {PAGE_BYTES} up to {MOST_BLOCK_BYTES}");
            return refuse("block_size", block_size, &rule);
        }
        if !(1..=MOST_DEPTH).contains(&queue_depth) {
            let rule = format!("1 to {MOST_DEPTH}");
            return refuse("queue_depth", queue_depth.into(), &rule);
        }
        if !(1..=MOST_LANES).contains(&intra_op_parallelism) {
            let rule = format!("1 to {MOST_LANES}");
            return refuse("intra_op_parallelism", intra_op_parallelism.into(), &rule);
        }
        Ok(())
    }
}

/// A boolean, also as a text: what DeepSpeed's own `ds_nvme_tune` writes.
fn boolean<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Boolean(bool),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Boolean(value) => Ok(value),
        Written::Text(text) => match text.as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(serde::de::Error::custom(format!(
                "'{text}' is neither true nor false"
            ))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_upstream_writes_is_read() {
        let read = |text: &str| AioConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(read("{}"), AioConfig::default());
        // The block of DeepSpeed's documentation.
        let documented = read(
            r#"{"block_size": 1048576, "queue_depth": 8, "intra_op_parallelism": 1,
                "single_submit": false, "overlap_events": true, "use_gds": false}"#,
        );
        assert_eq!(documented, AioConfig::default());
        // What its ds_nvme_tune prints.
        let tuned = read(
            r#"{"single_submit": "false", "overlap_events": "true", "num_threads": 8,
                "queue_depth": 32, "block_size": 8388608}"#,
        );
        assert_eq!((tuned.intra_op_parallelism, tuned.queue_depth), (8, 32));
        assert_eq!(read(r#"{"thread_count": 4}"#).intra_op_parallelism, 4);
    }

    #[test]
    fn nonsense_is_refused_with_the_name_and_the_rule() {
        let typo = AioConfig::parse(br#"{"queue_dept": 8}"#).unwrap_err();
        assert!(typo.to_string().contains("queue_dept"), "{typo}");
        for (config, rule) in [
            (
                AioConfig {
                    block_size: 1000,
                    ..AioConfig::default()
                },
                "block_size is 1000",
            ),
            (
                AioConfig {
                    block_size: 0,
                    ..AioConfig::default()
                },
                "multiple of 4096",
            ),
            (
                AioConfig {
                    queue_depth: 0,
                    ..AioConfig::default()
                },
                "queue_depth is 0",
            ),
            (
                AioConfig {
                    intra_op_parallelism: 0,
                    ..AioConfig::default()
                },
                "1 to 256",
            ),
        ] {
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(rule), "{error}");
        }
    }
}
