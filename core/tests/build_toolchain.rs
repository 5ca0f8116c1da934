//! Finding compilers: which candidate is taken, what is said of the others, and how often they run.

mod build_support;

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    time::{Duration, SystemTime},
};

use build_support::{House, copy, description, spec};
use ds_core::{
    ErrorKind,
    build::{BuildEnvironment, Level, ProgramToolchain},
};

fn environment(variables: &[(&str, &str)]) -> BuildEnvironment {
    BuildEnvironment::from_variables(
        variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.into())),
    )
}

fn programs(programs: &str) -> ProgramToolchain {
    ProgramToolchain {
        programs: programs.into(),
        ..description()
    }
}

#[test]
fn a_variable_may_hold_a_program_and_its_arguments() {
    let house = House::new();
    let toolchain = house.toolchain();
    let identity = toolchain.identity();
    assert_eq!(identity.name, "cc");
    assert_eq!(identity.version, "fakecc 1.0");
    assert_eq!(identity.arguments, [house.path("fakecc").to_str().unwrap()]);
    assert_eq!(
        identity.environment,
        [("CPATH".to_owned(), "/inc".to_owned())].into()
    );
    // What runs is what was found; what identifies it is the file behind it.
    let found = toolchain.program();
    assert!(
        found.is_absolute() && found.ends_with("sh"),
        "{}",
        found.display()
    );
    assert_eq!(
        identity.path,
        fs::canonicalize(found).unwrap().to_str().unwrap()
    );
}

#[test]
fn the_version_is_asked_for_once_while_the_file_stays_the_same() {
    let house = House::new();
    let tools = house.path("tools");
    fs::create_dir(&tools).unwrap();
    // The interpreter alone is looked at, so that a copy of it stands for the compiler.
    fs::copy("/bin/sh", tools.join("fake")).unwrap();
    let cc = format!(
        "{} {}",
        tools.join("fake").display(),
        house.path("fakecc").display()
    );
    let environment = environment(&[("PATH", "/usr/bin:/bin"), ("CC", &cc)]);
    let resolve = || description().resolve(&environment, &house.cache()).unwrap();

    let first = resolve();
    assert_eq!(resolve().identity(), first.identity());
    assert_eq!(house.calls("--version"), 1);

    let later = SystemTime::now() + Duration::from_secs(7);
    File::options()
        .write(true)
        .open(tools.join("fake"))
        .unwrap()
        .set_modified(later)
        .unwrap();
    resolve();
    assert_eq!(house.calls("--version"), 2);

    let records = house.path("cache/v1/toolchains.json");
    let damaged = fs::read_to_string(&records)
        .unwrap()
        .replace("fakecc 1.0", "fakecc 2.0");
    fs::write(&records, damaged).unwrap();
    assert_eq!(resolve().identity().version, "fakecc 1.0");
    assert_eq!(house.calls("--version"), 3);
    resolve();
    assert_eq!(house.calls("--version"), 3);
}

#[test]
fn candidates_are_tried_in_order_and_each_verdict_is_told() {
    let house = House::new();
    let tools = house.path("tools");
    fs::create_dir(&tools).unwrap();
    symlink("/bin/false", tools.join("broken")).unwrap();
    symlink("/bin/echo", tools.join("good")).unwrap();
    fs::write(tools.join("plain"), b"no program").unwrap();
    let path = tools.to_str().unwrap();
    let environment = environment(&[("PATH", path), ("BAD", "nothing -x"), ("EMPTY", "")]);
    let resolve = |names: &str| programs(names).resolve(&environment, &house.cache());

    let good = resolve("$EMPTY plain missing broken good").unwrap();
    assert_eq!(good.program(), tools.join("good"));

    let error = resolve("$EMPTY $CC plain missing broken /opt/none/cc").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LibraryNotFound);
    assert_eq!(error.hint(), Some("apt install gcc"));
    assert_eq!(
        error.context(),
        format!(
            "no `cc` compiler: tried $EMPTY (unset), $CC (unset), plain, missing, broken \
             ({path}/broken exits with 1 with `--version`), /opt/none/cc (no such program) on \
             PATH={path}"
        )
    );

    // Somebody asked for that one; another would be a surprise.
    let error = resolve("$BAD good").unwrap_err();
    assert!(
        error.context().contains("$BAD is `nothing -x`: not found"),
        "{error}"
    );
    assert_eq!(error.hint(), Some("unset BAD, or apt install gcc"));
}

#[test]
fn a_smoke_compile_proves_a_toolchain_once() {
    let house = House::new();
    let (cache, toolchain) = (house.cache(), house.toolchain());
    let request = copy("int f;").request;
    let levels = [(); 2].map(|()| toolchain.prove(&cache, request.clone(), "x").unwrap().level);
    assert_eq!(levels, [Level::Built, Level::User]);
    assert_eq!(house.calls("copy"), 1);

    let request = spec("", &["refuse"]).request;
    let error = toolchain.prove(&cache, request, "x").unwrap_err();
    assert!(
        error.to_string().starts_with("build smoke compile: "),
        "{error}"
    );
}
