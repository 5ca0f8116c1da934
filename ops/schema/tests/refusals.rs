//! Texts that are no schemas: each is refused at the right place, in words that help.

use ds_schema::{MAX_DIM_VARIABLES, MAX_DTYPE_VARIABLES, SchemaFile};

/// The fault is what stands between the two `«»`, or the whole text's place when there are none.
#[track_caller]
fn refuses(marked: &str, message: &str, hint: Option<&str>) {
    let text = marked.replace(['«', '»'], "");
    let start = marked.find('«').expect("a mark");
    let width = marked[start..].find('»').expect("a mark") - '«'.len_utf8();
    let line = marked[..start].matches('\n').count() + 1;
    let column = start - marked[..start].rfind('\n').map_or(0, |newline| newline + 1) + 1;

    let error = SchemaFile::parse(&text).expect_err(marked);
    assert_eq!(error.message, message, "{marked}");
    assert_eq!(
        (error.line, error.column),
        (line, column),
        "{marked}: {error}"
    );
    assert_eq!(error.hint.as_deref(), hint, "{marked}");
    let rendered = error.render("test.ops");
    let caret = rendered
        .lines()
        .find(|line| line.contains('^'))
        .expect("a caret");
    assert_eq!(caret.matches('^').count(), width.max(1), "{rendered}");
}

#[test]
fn names() {
    refuses(
        "op f(x: f32[N])\nop «f»(x: f32[N])",
        "op 'f' is there twice",
        None,
    );
    refuses(
        "op f(x: f32[N], «x»: i64)",
        "parameter 'x' is there twice",
        None,
    );
    refuses(
        "op f(x: f32[N]) -> «x»: f32[N]",
        "parameter 'x' is there twice",
        None,
    );
    refuses("set a «a» op f()", "set 'a' is named twice", None);
    refuses(
        "op «where»()",
        "expected the op's name, but 'where' is a keyword",
        None,
    );
    refuses(
        "op «F»()",
        "expected the op's name, in lower case",
        Some("upper case is for variables"),
    );
    let long = "f".repeat(65);
    refuses(
        &format!("op «{long}»()"),
        "a word has at most 64 characters",
        None,
    );
}

#[test]
fn dtypes() {
    refuses(
        "op f(\n  x: «fp32»[N],\n)",
        "unknown dtype 'fp32'",
        Some("did you mean 'f32'?"),
    );
    refuses(
        "op f(x: «T»[N])",
        "the dtype variable 'T' is undefined",
        Some("say what it may be: `where T: f32 | bf16`"),
    );
    refuses(
        "op f(x: T[N]) where T: f32, «U»: f32",
        "no tensor has the dtype 'U'",
        None,
    );
    refuses(
        "op f(x: Tile[N]) where «Tiles»: f32",
        "no tensor has the dtype 'Tiles'",
        Some("did you mean 'Tile'?"),
    );
    refuses(
        "op f(x: T[N]) where T: f32, «T»: f16",
        "a variable here already has its alternatives",
        None,
    );
    refuses(
        "op f(x: T[N]) where T: f32 | «f32»",
        "this alternative is there twice",
        None,
    );
    refuses(
        "op f(x: T[N], y: U[N]) where (T, U): (f32, f32) | «f32»",
        "this alternative must have as many dtypes as variables: 2",
        None,
    );
    refuses(
        "op f() where («)»: ()",
        "expected a dtype variable, found ')'",
        None,
    );
    refuses(
        "op f(x: T[«T»])",
        "'T' is a dtype, it cannot be a dimension too",
        None,
    );
    refuses(
        "op f(x: f32[N], y: «N»[])",
        "'N' is a dimension, it cannot be a dtype too",
        None,
    );
}

#[test]
fn shapes() {
    refuses(
        "op f(x: f32[S..., «R»...])",
        "a shape can have only one '...'",
        None,
    );
    refuses(
        "op f(x: f32[S...], y: f32[«S»])",
        "'S' stands both for one dimension and for 'S...'",
        None,
    );
    refuses(
        "op f(x: f32[«n»])",
        "'n' is no dimension variable",
        Some("variables are upper case, such as N"),
    );
    refuses(
        "op f(x: f32[«-1»])",
        "an extent must be an integer from 0",
        None,
    );
    refuses(
        "op f(x: f32[«1.5»])",
        "an extent must be an integer from 0",
        None,
    );
    refuses(
        "op f(x: f32[«99999999999999999999»])",
        "an extent must be an integer from 0",
        None,
    );
    refuses(
        "op f(x: f32«[»1,1,1,1,1,1,1,1,1])",
        "a tensor has at most 8 dimensions",
        None,
    );
    let follow = Some("the shapes of outputs must follow from the inputs");
    refuses(
        "op f(x: f32[N]) -> y: f32[«M»]",
        "no required input has 'M'",
        follow,
    );
    refuses(
        "op f(x: optional f32[N]) -> y: f32[«N»]",
        "no required input has 'N'",
        follow,
    );
    refuses(
        "op f(x: list f32[S...]) -> y: f32[«S»...]",
        "no required input has 'S...'",
        follow,
    );
    refuses(
        "op «f»(x: f32[N]) -> y: list f32[N]",
        "no input is a list, so 'y' has no length",
        None,
    );
}

#[test]
fn a_single_output_needs_more_than_a_list() {
    refuses(
        "op f(x: list f32[N]) -> (y: list f32[N], z: f32[«N»])",
        "no required input has 'N'",
        Some("the shapes of outputs must follow from the inputs"),
    );
}

#[test]
fn roles_and_scalars() {
    refuses("op f(x: «inout» f64)", "a scalar cannot be inout", None);
    refuses("op f(x: «static» f64[])", "a tensor cannot be static", None);
    refuses(
        "op f() -> x: «optional» f64[]",
        "an output cannot be optional",
        None,
    );
    refuses(
        "op f() -> x: «f64»",
        "an output cannot be a scalar",
        Some("a tensor without dimensions is written 'f64[]'"),
    );
    refuses(
        "op f(x: list optional «f32»[])",
        "a list cannot be optional too",
        Some("a list may be empty"),
    );
    refuses("op f(x: list «list» f32[])", "'list' is there twice", None);
    refuses(
        "op f(x: «f32»)",
        "'f32' is no type of a scalar: bool, i64 or f64",
        Some("a tensor without dimensions is written 'f32[]'"),
    );
    refuses("op f(x: bool = «1»)", "'1' is no value of type bool", None);
    refuses(
        "op f(x: i64 = «1.0»)",
        "'1.0' is no value of type i64",
        None,
    );
    refuses(
        "op f(x: f64 = «1e999»)",
        "'1e999' is no value of type f64",
        None,
    );
}

#[test]
fn clauses() {
    refuses(
        "op f() «wher» T: f32",
        "expected a clause or the next op, found 'wher'",
        Some("did you mean 'where'?"),
    );
    refuses(
        "op f() deterministic «deterministic»",
        "'deterministic' is there twice",
        None,
    );
    refuses(
        "op f() doc «\"\"»",
        "expected a line that says what the op does, in quotes, found a string",
        None,
    );
    refuses(
        "op f() doc «\"open»\n",
        "a string must end with '\"' on its own line",
        None,
    );
    refuses(
        "op f(x: inout f32[]) tolerance f32 1 1«»",
        "expected '|' or 'because', found the end of the text",
        Some("a tolerance carries its reason: `because \"sums are kept in f32\"`"),
    );
    refuses(
        "op f(x: inout f32[]) tolerance f32 «-1» 0 because \"x\"",
        "the relative tolerance must be a number from 0",
        None,
    );
    refuses(
        "op f(x: inout f32[]) tolerance «f16» 1 1 | f32 1 1 because \"x\"",
        "no result of 'f' is f16",
        None,
    );
    refuses(
        "op «f»(x: inout T[]) where T: f16 | f32 tolerance f32 1 1 because \"x\"",
        "a result of 'f' may be f16, but f16 has no tolerance",
        None,
    );
}

#[test]
fn texts() {
    let hint = Some("an op is declared as `op name(x: f32[N]) -> y: f32[N]`");
    refuses("# nothing«»", "the text declares no op", hint);
    refuses("op f() «%»", "unexpected character '%'", None);
    refuses(
        "«ops» f()",
        "expected 'set' or 'op', found 'ops'",
        Some("did you mean 'op'?"),
    );
    refuses("op f(x: f32[N] «y»: i64)", "expected ')', found 'y'", None);
}

#[test]
fn variables_are_bounded() {
    let shapes: Vec<String> = (0..=MAX_DIM_VARIABLES)
        .map(|index| format!("x{index}: f32[N{index}]"))
        .collect();
    let error = SchemaFile::parse(format!("op f({})", shapes.join(", "))).unwrap_err();
    assert_eq!(error.message, "an op has at most 16 dimension variables");
    let dtypes: Vec<String> = (0..=MAX_DTYPE_VARIABLES)
        .map(|index| format!("x{index}: T{index}[]"))
        .collect();
    let error = SchemaFile::parse(format!("op f({})", dtypes.join(", "))).unwrap_err();
    assert_eq!(error.message, "an op has at most 8 dtype variables");
}
