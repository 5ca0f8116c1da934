//! Chooses among the accelerators that there are. Pure, so that every case can be tested.

use serde::{Deserialize, Serialize};

use super::{Group, Item, Selection, Term, VARIABLE, Wanted};
use crate::{
    Error, ErrorKind, Result,
    manifest::{AcceleratorName, Manifest},
};

/// What is known of one accelerator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceleratorStatus {
    /// Its canonical name.
    pub name: AcceleratorName,
    /// Its other names.
    pub aliases: Vec<AcceleratorName>,
    /// Its rank when nobody chooses.
    pub priority: u32,
    /// Whether it can be used.
    pub state: State,
}

/// Whether an accelerator can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// It can.
    Usable {
        /// How many devices it has; 0 counts as unusable.
        device_count: u32,
    },
    /// It cannot.
    Unusable {
        /// What was found.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// The accelerator to use, and its devices.
    pub primary: Share,
    /// Further ones, where the selection asks for several.
    pub others: Vec<Share>,
    /// One line for the log: what was chosen, and why.
    pub why: String,
}

/// Devices of one accelerator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Canonical name.
    pub accelerator: AcceleratorName,
    /// Indices, in the order of their use. Never empty.
    pub devices: Vec<u32>,
}

impl AcceleratorStatus {
    /// The status of the accelerator that `manifest` describes.
    pub fn new(manifest: &Manifest, state: State) -> Self {
        Self {
            name: manifest.accelerator.clone(),
            aliases: manifest.aliases.clone(),
            priority: manifest.priority,
            state,
        }
    }

    fn device_count(&self) -> u32 {
        match self.state {
            State::Usable { device_count } => device_count,
            State::Unusable { .. } => 0,
        }
    }

    fn refusal(&self) -> &str {
        match &self.state {
            State::Usable { .. } => "it has no device",
            State::Unusable { reason, .. } => reason,
        }
    }
}

impl Selection {
    /// Chooses from `inventory`, which has one entry for each accelerator that a manifest names.
    ///
    /// # Errors
    ///
    /// `NotInstalled` for a name in no manifest, `NoDevice` if nothing that was asked for can be
    /// used, `InvalidArgument` for an index that is out of range or for a choice that has to be
    /// made by the user.
    pub fn resolve(&self, inventory: &[AcceleratorStatus]) -> Result<Chosen> {
        match self {
            Self::Auto => automatic(inventory),
            Self::Chain(groups) => self.chain(groups, inventory),
        }
    }

    fn chain(&self, groups: &[Group], inventory: &[AcceleratorStatus]) -> Result<Chosen> {
        // Names first: a typing error behind a working alternative would wait for the day when the
        // alternative fails.
        for term in groups.iter().flat_map(|group| &group.0) {
            if let Wanted::Named(name) = &term.accelerator {
                find(name, inventory)?;
            }
        }
        let mut refused: Vec<Refused<'_>> = Vec::new();
        for group in groups {
            match shares(group, inventory)? {
                Ok(mut shares) => {
                    let primary = shares.remove(0);
                    let taken: Vec<String> = std::iter::once(&primary)
                        .chain(&shares)
                        .map(describe)
                        .collect();
                    let skipped: Vec<String> = refused
                        .iter()
                        .map(|r| format!("; skipped {}: {}", r.what, r.why))
                        .collect();
                    let why = format!(
                        "{}: {VARIABLE}={self}{}",
                        taken.join(" and "),
                        skipped.concat()
                    );
                    return Ok(Chosen {
                        primary,
                        others: shares,
                        why: one_line(&why),
                    });
                }
                Err(refusal) => refused.push(refusal),
            }
        }
        let reasons: Vec<String> = refused
            .iter()
            .map(|r| format!("{}: {}", r.what, r.why))
            .collect();
        let mut hints: Vec<String> = refused
            .iter()
            .filter_map(|r| r.hint.map(str::to_owned))
            .collect();
        hints.push(usable_names(inventory));
        Err(Error::new(
            ErrorKind::NoDevice,
            OP,
            one_line(&format!(
                "{VARIABLE}={self} cannot be had: {}",
                reasons.join("; ")
            )),
        )
        .with_hint(hints.join("; ")))
    }
}

const OP: &str = "select accelerator";

/// The usable one of the highest priority.
fn automatic(inventory: &[AcceleratorStatus]) -> Result<Chosen> {
    // Priority 0 is for those that a user has to name: simulators, examples, the half-finished.
    let (usable, by_name): (Vec<_>, Vec<_>) =
        ranked(inventory).into_iter().partition(|s| s.priority > 0);
    let Some(best) = usable.first() else {
        return Err(nothing_usable(inventory));
    };
    let tied: Vec<&str> = usable
        .iter()
        .filter(|status| status.priority == best.priority)
        .map(|status| status.name.as_str())
        .collect();
    if tied.len() > 1 {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            OP,
            format!(
                "{} can be used with the same priority {}, and nothing says which",
                tied.join(" and "),
                best.priority
            ),
        )
        .with_hint(format!("set {VARIABLE}={} or another of them", tied[0])));
    }
    let primary = Share {
        accelerator: best.name.clone(),
        devices: (0..best.device_count()).collect(),
    };
    let others: Vec<String> = usable[1..]
        .iter()
        .map(|status| format!("{} (priority {})", status.name, status.priority))
        .collect();
    let by_name: Vec<&str> = by_name.iter().map(|status| status.name.as_str()).collect();
    let rank = match (others.is_empty(), by_name.is_empty(), inventory.len()) {
        (false, _, _) => format!("priority {} is above {}", best.priority, others.join(", ")),
        (true, false, _) => format!(
            "the only usable one beside {} (only by name)",
            by_name.join(" and ")
        ),
        (true, true, 1) => "the only known accelerator".to_owned(),
        (true, true, known) => format!("the only usable of {known} known accelerators"),
    };
    let why = format!("{}: {rank}; {VARIABLE} is not set", describe(&primary));
    Ok(Chosen {
        primary,
        others: Vec::new(),
        why,
    })
}

/// Why a group cannot be used.
struct Refused<'a> {
    what: String,
    why: String,
    hint: Option<&'a str>,
}

/// The devices of a group; inside, why it cannot be used, and outside, what is a mistake anyway.
fn shares<'a>(
    group: &Group,
    inventory: &'a [AcceleratorStatus],
) -> Result<Result<Vec<Share>, Refused<'a>>> {
    let mut shares: Vec<Share> = Vec::new();
    for term in &group.0 {
        let statuses = match &term.accelerator {
            Wanted::Named(name) => {
                let status = find(name, inventory)?;
                if status.device_count() == 0 {
                    return Ok(Err(refused(name, status)));
                }
                vec![status]
            }
            Wanted::Every => ranked(inventory),
        };
        if statuses.is_empty() {
            let why = all_reasons(inventory);
            return Ok(Err(Refused {
                what: "*".to_owned(),
                why,
                hint: None,
            }));
        }
        for status in statuses {
            let devices = devices(term, status)?;
            match shares
                .iter_mut()
                .find(|share| share.accelerator == status.name)
            {
                None => shares.push(Share {
                    accelerator: status.name.clone(),
                    devices,
                }),
                Some(share) => {
                    for device in devices {
                        if share.devices.contains(&device) {
                            return Err(twice(term, status, device));
                        }
                        share.devices.push(device);
                    }
                }
            }
        }
    }
    Ok(Ok(shares))
}

fn refused<'a>(asked: &AcceleratorName, status: &'a AcceleratorStatus) -> Refused<'a> {
    let what = if *asked == status.name {
        asked.to_string()
    } else {
        format!("{asked} ({})", status.name)
    };
    let hint = match &status.state {
        State::Unusable { hint, .. } => hint.as_deref(),
        State::Usable { .. } => None,
    };
    Refused {
        what,
        why: status.refusal().to_owned(),
        hint,
    }
}

/// The devices that `term` names among those of `status`, which has at least one.
fn devices(term: &Term, status: &AcceleratorStatus) -> Result<Vec<u32>> {
    let count = status.device_count();
    if term.items.is_empty() {
        return Ok((0..count).collect());
    }
    let mut devices = Vec::new();
    for item in &term.items {
        let (first, last) = match *item {
            Item::All => (0, count - 1),
            Item::Index(index) | Item::Variable { index, .. } => (index, index),
            Item::Range(first, last) => (first, last),
        };
        // Before the range is walked: it may be as long as numbers go.
        if last >= count {
            return Err(out_of_range(item, last, status));
        }
        for device in first..=last {
            if devices.contains(&device) {
                return Err(twice(term, status, device));
            }
            devices.push(device);
        }
    }
    Ok(devices)
}

fn out_of_range(item: &Item, index: u32, status: &AcceleratorStatus) -> Error {
    let (name, count) = (&status.name, status.device_count());
    let source = match item {
        Item::Variable { name, .. } => format!(" (from {name})"),
        _ => String::new(),
    };
    let (have, hint) = match count {
        1 => (
            "one device".to_owned(),
            format!("its only device is {name}:0"),
        ),
        _ => (
            format!("{count} devices"),
            format!("they are {name}:0 to {name}:{}", count - 1),
        ),
    };
    Error::new(
        ErrorKind::InvalidArgument,
        OP,
        format!("there is no {name}:{index}{source}: {name} has {have}"),
    )
    .with_hint(format!(
        "{hint}; visibility variables of the vendor may hide some"
    ))
}

fn twice(term: &Term, status: &AcceleratorStatus, device: u32) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        OP,
        format!(
            "{}:{device} is named twice in {VARIABLE} (again in `{term}`)",
            status.name
        ),
    )
    .with_hint("name each device once")
}

/// The accelerator that answers to `name`.
fn find<'a>(
    name: &AcceleratorName,
    inventory: &'a [AcceleratorStatus],
) -> Result<&'a AcceleratorStatus> {
    if let Some(status) = inventory.iter().find(|status| status.name == *name) {
        return Ok(status);
    }
    let mut by_alias = inventory
        .iter()
        .filter(|status| status.aliases.contains(name));
    match (by_alias.next(), by_alias.next()) {
        (Some(status), None) => Ok(status),
        (Some(first), Some(second)) => Err(Error::new(
            ErrorKind::InvalidArgument,
            OP,
            format!("`{name}` may mean {} or {}", first.name, second.name),
        )
        .with_hint(format!(
            "set {VARIABLE} to {} or {}",
            first.name, second.name
        ))),
        (None, _) => Err(unknown(name, inventory)),
    }
}

fn unknown(name: &AcceleratorName, inventory: &[AcceleratorStatus]) -> Error {
    let known: Vec<String> = inventory
        .iter()
        .map(|status| match &status.aliases[..] {
            [] => status.name.to_string(),
            aliases => {
                let aliases: Vec<&str> = aliases.iter().map(AcceleratorName::as_str).collect();
                format!("{} ({})", status.name, aliases.join(", "))
            }
        })
        .collect();
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    let nearest = inventory
        .iter()
        .flat_map(|status| std::iter::once(&status.name).chain(&status.aliases))
        .map(|known| (distance(name.as_str(), known.as_str()), known))
        .min_by_key(|(distance, _)| *distance)
        // Beyond half of the letters a guess is noise.
        .filter(|(distance, _)| *distance <= name.as_str().len().div_ceil(2));
    let hint = match nearest {
        Some((_, nearest)) => format!("did you mean {nearest}? known names: {known}"),
        None => format!("known names: {known}"),
    };
    Error::new(
        ErrorKind::NotInstalled,
        OP,
        format!("no plugin's manifest has the name `{name}`"),
    )
    .with_hint(hint)
}

/// Levenshtein's distance: how many letters to change, add or drop.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Those that can be used, best first; the name decides among equals.
fn ranked(inventory: &[AcceleratorStatus]) -> Vec<&AcceleratorStatus> {
    let mut usable: Vec<_> = inventory
        .iter()
        .filter(|status| status.device_count() > 0)
        .collect();
    usable.sort_by(|a, b| {
        b.priority
            .cmp(&a.priority)
            .then_with(|| a.name.cmp(&b.name))
    });
    usable
}

fn nothing_usable(inventory: &[AcceleratorStatus]) -> Error {
    if inventory.is_empty() {
        return Error::new(ErrorKind::NotInstalled, OP, "no plugin was found")
            .with_hint("link a plugin into the program, or name the folder of one in DS_PLUGIN_PATH; `ds_report plugins` lists the places that were searched");
    }
    let context = format!("no accelerator can be used: {}", all_reasons(inventory));
    Error::new(ErrorKind::NoDevice, OP, one_line(&context))
        .with_hint("ds_report says of each what is missing and how to get it")
}

fn all_reasons(inventory: &[AcceleratorStatus]) -> String {
    let reason = |status: &AcceleratorStatus| match (status.device_count(), status.priority) {
        (0, _) => Some(format!("{}: {}", status.name, status.refusal())),
        (_, 0) => Some(format!(
            "{0}: it has to be named, as {VARIABLE}={0}",
            status.name
        )),
        _ => None,
    };
    let reasons: Vec<String> = inventory.iter().filter_map(reason).collect();
    if reasons.is_empty() {
        "no plugin was found".to_owned()
    } else {
        reasons.join("; ")
    }
}

fn usable_names(inventory: &[AcceleratorStatus]) -> String {
    let usable: Vec<&str> = ranked(inventory)
        .iter()
        .map(|status| status.name.as_str())
        .collect();
    if usable.is_empty() {
        "no accelerator can be used on this machine".to_owned()
    } else {
        format!("usable on this machine: {}", usable.join(", "))
    }
}

/// `name:0,2-3 (3 devices)`.
fn describe(share: &Share) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &device in &share.devices {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(device) => *last = device,
            _ => ranges.push((device, device)),
        }
    }
    let ranges: Vec<String> = ranges
        .into_iter()
        .map(|(a, b)| {
            if a == b {
                a.to_string()
            } else {
                format!("{a}-{b}")
            }
        })
        .collect();
    let count = share.devices.len();
    let devices = if count == 1 { "device" } else { "devices" };
    format!(
        "{}:{} ({count} {devices})",
        share.accelerator,
        ranges.join(",")
    )
}

/// Reasons come from drivers and may have several lines; the log and an error's text have one.
fn one_line(text: &str) -> String {
    text.split(['\n', '\r'])
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests;
