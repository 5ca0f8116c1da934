//! Every way in which a choice can go.

use super::*;

fn name(text: &str) -> AcceleratorName {
    text.parse().unwrap()
}

fn status(text: &str, aliases: &[&str], priority: u32, state: State) -> AcceleratorStatus {
    let aliases = aliases.iter().map(|alias| name(alias)).collect();
    AcceleratorStatus {
        name: name(text),
        aliases,
        priority,
        state,
    }
}

fn usable(device_count: u32) -> State {
    State::Usable { device_count }
}

fn unusable(reason: &str) -> State {
    State::Unusable {
        reason: reason.to_owned(),
        hint: Some(format!("fix: {reason}")),
    }
}

/// A machine with two fast devices, a broken driver, and a host that comes last by its number.
fn machine() -> Vec<AcceleratorStatus> {
    vec![
        status("host", &["processor"], 1, usable(1)),
        status("fast", &["quick"], 100, usable(2)),
        status(
            "broken",
            &["brk"],
            100,
            unusable("libbroken.so was not found"),
        ),
        status("many", &[], 50, usable(8)),
        status("empty", &[], 100, usable(0)),
    ]
}

fn resolve(text: &str, inventory: &[AcceleratorStatus]) -> Result<Chosen> {
    let env = |name: &str| (name == "LOCAL_RANK").then(|| "1".into());
    Selection::parse(text, env).unwrap().resolve(inventory)
}

fn share(text: &str, devices: &[u32]) -> Share {
    Share {
        accelerator: name(text),
        devices: devices.to_vec(),
    }
}

/// What was chosen, without the reason.
fn shares_of(text: &str) -> Vec<Share> {
    let chosen = resolve(text, &machine()).unwrap();
    assert!(!chosen.why.contains('\n'));
    let mut all = vec![chosen.primary];
    all.extend(chosen.others);
    all
}

#[test]
fn takes_what_is_named() {
    assert_eq!(shares_of("fast"), [share("fast", &[0, 1])]);
    assert_eq!(shares_of("quick"), [share("fast", &[0, 1])]);
    assert_eq!(shares_of("host"), [share("host", &[0])]);
    assert_eq!(shares_of("many:7,0,2-4"), [share("many", &[7, 0, 2, 3, 4])]);
    assert_eq!(
        shares_of("many:*"),
        [share("many", &[0, 1, 2, 3, 4, 5, 6, 7])]
    );
    assert_eq!(shares_of("fast:{LOCAL_RANK}"), [share("fast", &[1])]);
}

#[test]
fn takes_several() {
    assert_eq!(
        shares_of("many:1;fast"),
        [share("many", &[1]), share("fast", &[0, 1])]
    );
    assert_eq!(shares_of("many:1;many:0"), [share("many", &[1, 0])]);
    let all = [
        share("fast", &[0, 1]),
        share("many", &[0, 1, 2, 3, 4, 5, 6, 7]),
        share("host", &[0]),
    ];
    assert_eq!(shares_of("*"), all);
    assert_eq!(shares_of("*:0").len(), 3);
}

#[test]
fn walks_a_chain_and_says_what_it_skipped() {
    let chosen = resolve("broken>empty>fast>host", &machine()).unwrap();
    assert_eq!(chosen.primary, share("fast", &[0, 1]));
    assert_eq!(
        chosen.why,
        "fast:0-1 (2 devices): DS_ACCELERATOR=broken>empty>fast>host; skipped broken: \
         libbroken.so was not found; skipped empty: it has no device"
    );
    assert_eq!(
        resolve("fast>host", &machine()).unwrap().why,
        "fast:0-1 (2 devices): DS_ACCELERATOR=fast>host"
    );
}

#[test]
fn a_group_is_taken_whole_or_not_at_all() {
    let chosen = resolve("fast;broken>many:0", &machine()).unwrap();
    assert_eq!(chosen.primary, share("many", &[0]));
    assert!(chosen.others.is_empty());
    assert!(
        chosen
            .why
            .contains("skipped broken: libbroken.so was not found")
    );
}

#[test]
fn never_falls_to_what_was_not_asked_for() {
    let error = resolve("brk", &machine()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoDevice);
    assert_eq!(
        error.context(),
        "DS_ACCELERATOR=brk cannot be had: brk (broken): libbroken.so was not found"
    );
    assert_eq!(
        error.hint().unwrap(),
        "fix: libbroken.so was not found; usable on this machine: fast, many, host"
    );
    let error = resolve("broken>empty", &machine()).unwrap_err();
    assert!(
        error
            .context()
            .contains("broken: libbroken.so was not found; empty: it has no device")
    );
}

#[test]
fn an_unknown_name_is_an_error_even_behind_one_that_works() {
    for text in ["fats", "fast>fats", "fats>fast", "fast;fats"] {
        let error = resolve(text, &machine()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotInstalled, "{text}");
        assert_eq!(error.context(), "no plugin's manifest has the name `fats`");
        assert_eq!(
            error.hint().unwrap(),
            "did you mean fast? known names: host (processor), fast (quick), broken (brk), many, empty"
        );
    }
    let error = resolve("zzzzzz", &machine()).unwrap_err();
    assert!(error.hint().unwrap().starts_with("known names: host"));
    let error = resolve("quikc", &machine()).unwrap_err();
    assert!(error.hint().unwrap().starts_with("did you mean quick?"));
}

#[test]
fn an_index_beyond_the_last_says_how_many_there_are() {
    for (text, expected) in [
        ("fast:2", "there is no fast:2: fast has 2 devices"),
        ("fast:0-2>host", "there is no fast:2: fast has 2 devices"),
        (
            "host:{LOCAL_RANK}",
            "there is no host:1 (from LOCAL_RANK): host has one device",
        ),
        (
            "fast:0-4294967295",
            "there is no fast:4294967295: fast has 2 devices",
        ),
        ("*:1", "there is no host:1: host has one device"),
    ] {
        let error = resolve(text, &machine()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
        assert_eq!(error.context(), expected);
    }
}

#[test]
fn a_device_is_taken_once() {
    for text in [
        "many:1,1",
        "many:0-3,2",
        "many:*,0",
        "many;many:0",
        "*;fast",
        "fast:{LOCAL_RANK},1",
    ] {
        let error = resolve(text, &machine()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
        assert!(
            error.context().contains("is named twice"),
            "{text}: {error}"
        );
    }
}

#[test]
fn without_a_wish_the_highest_priority_wins() {
    let chosen = Selection::Auto.resolve(&machine()).unwrap();
    assert_eq!(chosen.primary, share("fast", &[0, 1]));
    assert!(chosen.others.is_empty());
    assert_eq!(
        chosen.why,
        "fast:0-1 (2 devices): priority 100 is above many (priority 50), host (priority 1); \
         DS_ACCELERATOR is not set"
    );
}

#[test]
fn the_host_is_last_by_its_number_and_not_by_its_name() {
    let mut inventory = machine();
    inventory[0].priority = 1000;
    assert_eq!(
        Selection::Auto
            .resolve(&inventory)
            .unwrap()
            .primary
            .accelerator,
        name("host")
    );
    let alone = [machine().remove(0), machine().remove(2)];
    let chosen = Selection::Auto.resolve(&alone).unwrap();
    assert_eq!(
        chosen.why,
        "host:0 (1 device): the only usable of 2 known accelerators; DS_ACCELERATOR is not set"
    );
    let mut beside = machine();
    beside.retain(|status| matches!(status.state, State::Usable { .. }));
    for status in &mut beside[1..] {
        status.priority = 0;
    }
    let why = Selection::Auto.resolve(&beside).unwrap().why;
    assert!(why.contains("(only by name)"), "{why}");
}

#[test]
fn a_tie_is_for_the_user_to_decide() {
    let mut inventory = machine();
    inventory[3].priority = 100;
    let error = Selection::Auto.resolve(&inventory).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(
        error
            .context()
            .starts_with("fast and many can be used with the same priority 100")
    );
    assert!(error.hint().unwrap().contains("set DS_ACCELERATOR=fast"));
    // Equal numbers further down, or of what cannot be used, are nobody's problem.
    inventory[3].priority = 1;
    assert!(Selection::Auto.resolve(&inventory).is_ok());
}

#[test]
fn priority_0_is_only_taken_by_name() {
    let mut inventory = machine();
    for status in &mut inventory {
        status.priority = 0;
    }
    let error = Selection::Auto.resolve(&inventory).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoDevice);
    assert!(
        error.context().contains("fast: it has to be named"),
        "{error}"
    );
    assert_eq!(
        resolve("fast", &inventory).unwrap().primary,
        share("fast", &[0, 1])
    );
}

#[test]
fn nothing_usable_lists_every_reason() {
    let inventory = [machine().remove(2), machine().remove(4)];
    for selection in [Selection::Auto, Selection::parse("*", |_| None).unwrap()] {
        let error = selection.resolve(&inventory).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoDevice);
        assert!(
            error
                .context()
                .contains("broken: libbroken.so was not found; empty: it has no device")
        );
    }
    assert_eq!(
        Selection::Auto.resolve(&[]).unwrap_err().kind(),
        ErrorKind::NotInstalled
    );
    assert!(
        resolve("*", &[])
            .unwrap_err()
            .context()
            .contains("no plugin was found")
    );
    assert_eq!(
        resolve("fast", &[]).unwrap_err().kind(),
        ErrorKind::NotInstalled
    );
}

#[test]
fn a_name_is_stronger_than_an_alias_and_two_aliases_are_none() {
    let mut inventory = machine();
    inventory[3].aliases = vec![name("fast"), name("quick")];
    assert_eq!(
        resolve("fast", &inventory).unwrap().primary.accelerator,
        name("fast")
    );
    let error = resolve("quick", &inventory).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(error.context(), "`quick` may mean fast or many");
}

#[test]
fn reasons_of_several_lines_become_one() {
    let inventory = [
        status(
            "broken",
            &[],
            1,
            unusable("open failed:\n  no such file\r\n"),
        ),
        status("host", &[], 0, usable(1)),
    ];
    let why = resolve("broken>host", &inventory).unwrap().why;
    assert!(
        why.ends_with("skipped broken: open failed: no such file"),
        "{why}"
    );
}

#[test]
fn distance_counts_edits() {
    for (a, b, expected) in [
        ("", "", 0),
        ("abc", "", 3),
        ("kitten", "sitting", 3),
        ("fast", "fsat", 2),
        ("x", "xyz", 2),
    ] {
        assert_eq!(distance(a, b), expected);
        assert_eq!(distance(b, a), expected);
    }
}
