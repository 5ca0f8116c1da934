//! Reads `DS_ACCELERATOR`. Every mistake is an error with a caret under it.

use std::ffi::{OsStr, OsString};

use super::{Group, Item, Selection, Term, Wanted};
use crate::{Error, ErrorKind, Result};

/// The variable that holds the selection.
pub const VARIABLE: &str = "DS_ACCELERATOR";

impl Selection {
    /// Reads the variable's value; unset and blank mean [`Selection::Auto`]. `lookup` gives the
    /// value of a variable that the text refers to.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` as [`Selection::parse`], and if the value is not UTF-8.
    pub fn from_env(
        value: Option<&OsStr>,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let Some(value) = value else {
            return Ok(Self::Auto);
        };
        let Some(text) = value.to_str() else {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                OP,
                format!(
                    "the value of {VARIABLE} is not UTF-8: {}",
                    value.to_string_lossy()
                ),
            )
            .with_hint(EXAMPLES));
        };
        if text.trim().is_empty() {
            Ok(Self::Auto)
        } else {
            Self::parse(text, lookup)
        }
    }

    /// Reads a selection, such as `name:0,2-3>other`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`; the hint shows the text with a caret under the mistake.
    pub fn parse(text: &str, lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let mut parser = Parser {
            text,
            at: 0,
            lookup: &lookup,
        };
        let mut groups = vec![parser.group()?];
        while parser.take('>') {
            groups.push(parser.group()?);
        }
        match parser.peek() {
            None => Ok(Self::Chain(groups)),
            Some(found) => Err(parser.unexpected(found)),
        }
    }
}

const OP: &str = "select accelerator";
const EXAMPLES: &str = "write a name, name:0,2-3, name:{LOCAL_RANK}, name>other, or * for all";

struct Parser<'a> {
    text: &'a str,
    /// Byte offset of what comes next.
    at: usize,
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
}

impl<'a> Parser<'a> {
    fn group(&mut self) -> Result<Group> {
        let mut terms = vec![self.term()?];
        while self.take(';') {
            terms.push(self.term()?);
        }
        Ok(Group(terms))
    }

    fn term(&mut self) -> Result<Term> {
        let accelerator = if self.take('*') {
            Wanted::Every
        } else {
            Wanted::Named(self.accelerator()?)
        };
        let mut items = Vec::new();
        if self.take(':') {
            items.push(self.item()?);
            while self.take(',') {
                items.push(self.item()?);
            }
        }
        Ok(Term { accelerator, items })
    }

    fn accelerator(&mut self) -> Result<crate::manifest::AcceleratorName> {
        let (start, word) = self.word(|c| c.is_alphanumeric() || c == '_' || c == '-');
        if word.is_empty() {
            let what = match self.peek() {
                None => "a name should follow, and the text ends".to_owned(),
                Some(found) => format!("a name should stand here, not `{}`", found.escape_debug()),
            };
            return Err(self.mistake(start, what, EXAMPLES));
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.mistake(
                start,
                "an index needs an accelerator before it",
                &format!("write name:{word}"),
            ));
        }
        word.parse().map_err(|_| {
            let lower = word.to_lowercase();
            let advice = if lower.parse::<crate::manifest::AcceleratorName>().is_ok() {
                format!("names are lower case: write {lower}")
            } else {
                EXAMPLES.to_owned()
            };
            self.mistake(
                start,
                format!("`{word}` cannot be the name of an accelerator"),
                &advice,
            )
        })
    }

    fn item(&mut self) -> Result<Item> {
        if self.take('*') {
            return Ok(Item::All);
        }
        if self.take('{') {
            return self.variable();
        }
        let (start, first) = self.index()?;
        if !self.take('-') {
            return Ok(Item::Index(first));
        }
        let (_, last) = self.index()?;
        if last < first {
            return Err(self.mistake(
                start,
                "the range ends before it begins",
                &format!("write {last}-{first}"),
            ));
        }
        Ok(Item::Range(first, last))
    }

    fn index(&mut self) -> Result<(usize, u32)> {
        let (start, digits) = self.word(|c| c.is_ascii_digit());
        if digits.is_empty() {
            let found = match self.peek() {
                None => "the text ends".to_owned(),
                Some(found) => format!("not `{}`", found.escape_debug()),
            };
            return Err(self.mistake(
                start,
                format!("the index of a device should stand here, {found}"),
                "write an index such as 0, a range such as 0-3, {LOCAL_RANK}, or *",
            ));
        }
        match digits.parse() {
            Ok(index) => Ok((start, index)),
            Err(_) => Err(self.mistake(start, "no machine has that many devices", EXAMPLES)),
        }
    }

    /// The rest of `{NAME}`, and what the variable holds.
    fn variable(&mut self) -> Result<Item> {
        let (start, name) = self.word(|c| c.is_ascii_alphanumeric() || c == '_');
        if name.is_empty() {
            return Err(self.mistake(
                start,
                "the name of a variable should stand here",
                "write for instance {LOCAL_RANK}",
            ));
        }
        if !self.take('}') {
            return Err(self.mistake(
                self.at,
                format!("the brace before {name} is not closed"),
                &format!("write {{{name}}}"),
            ));
        }
        let Some(value) = (self.lookup)(name) else {
            return Err(self.mistake(
                start,
                format!("the variable {name} is not set"),
                "launchers set it for each process; set it by hand, or write the index itself",
            ));
        };
        match value.to_str().and_then(|text| text.trim().parse().ok()) {
            Some(index) => Ok(Item::Variable {
                name: name.to_owned(),
                index,
            }),
            None => Err(self.mistake(
                start,
                format!(
                    "the variable {name} holds \"{}\", which is no index of a device",
                    value.to_string_lossy().escape_debug()
                ),
                "it has to hold one number, such as 0",
            )),
        }
    }

    /// The run of characters for which `inner` holds, and where it starts.
    fn word(&mut self, inner: impl Fn(char) -> bool) -> (usize, &'a str) {
        self.skip_blanks();
        let start = self.at;
        let rest = &self.text[start..];
        let length = rest.find(|c| !inner(c)).unwrap_or(rest.len());
        self.at += length;
        (start, &rest[..length])
    }

    fn take(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(sign);
        if found {
            self.at += sign.len_utf8();
        }
        found
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_blanks();
        self.text[self.at..].chars().next()
    }

    fn skip_blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn unexpected(&self, found: char) -> Error {
        let advice = match found {
            '|' => "alternatives are separated by `>`, as in name>other",
            ',' => "accelerators are joined by `;` and alternatives by `>`",
            _ => EXAMPLES,
        };
        self.mistake(
            self.at,
            format!("`{}` has no meaning here", found.escape_debug()),
            advice,
        )
    }

    /// An error with a caret under `at`. The text is shown escaped: a variable can hold anything.
    fn mistake(&self, at: usize, what: impl Into<String>, advice: &str) -> Error {
        let shown = self.text.escape_debug().to_string();
        let column = self.text[..at].escape_debug().count();
        Error::new(
            ErrorKind::InvalidArgument,
            OP,
            format!("\"{shown}\", column {}: {}", column + 1, what.into()),
        )
        .with_hint(format!("{shown}\n{}^ {advice}", " ".repeat(column)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn env(name: &str) -> Option<OsString> {
        match name {
            "LOCAL_RANK" => Some("3".into()),
            "EMPTY" => Some("".into()),
            "LIST" => Some("0,1".into()),
            _ => None,
        }
    }

    fn parse(text: &str) -> Result<Selection> {
        Selection::parse(text, env)
    }

    fn named(name: &str, items: &[Item]) -> Term {
        Term {
            accelerator: Wanted::Named(name.parse().unwrap()),
            items: items.to_vec(),
        }
    }

    fn chain(groups: &[&[Term]]) -> Selection {
        Selection::Chain(groups.iter().map(|terms| Group(terms.to_vec())).collect())
    }

    #[test]
    fn reads_the_grammar() {
        let every = |items: &[Item]| Term {
            accelerator: Wanted::Every,
            items: items.to_vec(),
        };
        let rank = Item::Variable {
            name: "LOCAL_RANK".to_owned(),
            index: 3,
        };
        for (text, expected) in [
            ("fast", chain(&[&[named("fast", &[])]])),
            (
                "fast:0,2-3",
                chain(&[&[named("fast", &[Item::Index(0), Item::Range(2, 3)])]]),
            ),
            (
                "slow>fast>host",
                chain(&[
                    &[named("slow", &[])],
                    &[named("fast", &[])],
                    &[named("host", &[])],
                ]),
            ),
            ("fast:{LOCAL_RANK}", chain(&[&[named("fast", &[rank])]])),
            ("*", chain(&[&[every(&[])]])),
            (
                "*:0 > host",
                chain(&[&[every(&[Item::Index(0)])], &[named("host", &[])]]),
            ),
            (
                "a:*;b_2",
                chain(&[&[named("a", &[Item::All]), named("b_2", &[])]]),
            ),
            (
                " a-b : 1 - 2 , 4 ",
                chain(&[&[named("a-b", &[Item::Range(1, 2), Item::Index(4)])]]),
            ),
            (
                "a:4294967295",
                chain(&[&[named("a", &[Item::Index(u32::MAX)])]]),
            ),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn unset_and_blank_mean_no_wish() {
        assert_eq!(Selection::from_env(None, env).unwrap(), Selection::Auto);
        assert_eq!(
            Selection::from_env(Some(OsStr::new(" ")), env).unwrap(),
            Selection::Auto
        );
        let set = Selection::from_env(Some(OsStr::new("host")), env).unwrap();
        assert_eq!(set.to_string(), "host");
    }

    #[test]
    fn refuses_bytes_that_are_not_utf8() {
        use std::os::unix::ffi::OsStrExt;
        let error = Selection::from_env(Some(OsStr::from_bytes(b"ho\xffst")), env).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.context().contains("DS_ACCELERATOR is not UTF-8"));
    }

    #[test]
    fn puts_the_caret_under_the_mistake() {
        for (text, column, expected) in [
            ("", 1, "a name should follow"),
            ("fast>", 6, "a name should follow"),
            ("fast>>host", 6, "not `>`"),
            (
                "fast:",
                6,
                "the index of a device should stand here, the text ends",
            ),
            ("fast:1,", 8, "the text ends"),
            ("fast:x", 6, "not `x`"),
            ("fast:-1", 6, "not `-`"),
            ("fast:3-1", 6, "ends before it begins"),
            ("fast:1-", 8, "the text ends"),
            ("fast:99999999999", 6, "that many devices"),
            ("0,1", 1, "an index needs an accelerator"),
            ("FAST", 1, "`FAST` cannot be the name"),
            ("fast,host", 5, "`,` has no meaning here"),
            ("fast|host", 5, "`|` has no meaning here"),
            ("fast host", 6, "`h` has no meaning here"),
            ("fast:{}", 7, "name of a variable"),
            ("fast:{LOCAL_RANK", 17, "is not closed"),
            ("fast:{RANK}", 7, "the variable RANK is not set"),
            ("fast:{EMPTY}", 7, "holds \"\""),
            ("fast:{LIST}", 7, "holds \"0,1\""),
            ("é", 1, "`é` cannot be the name"),
            ("a\n:\u{1b}", 5, "not `\\u{1b}`"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            let (context, hint) = (error.context(), error.hint().unwrap());
            assert!(context.contains(expected), "{text}: {context}");
            assert!(
                context.contains(&format!("column {column}: ")),
                "{text}: {context}"
            );
            assert!(!context.contains('\n'), "{text}: {context}");
            let (shown, caret) = hint.split_once('\n').unwrap();
            assert_eq!(shown, text.escape_debug().to_string());
            assert_eq!(caret.find('^'), Some(column - 1), "{text}: {hint}");
        }
        let error = parse("FAST").unwrap_err();
        assert!(
            error
                .hint()
                .unwrap()
                .ends_with("names are lower case: write fast")
        );
    }

    fn item() -> impl Strategy<Value = Item> {
        prop_oneof![
            Just(Item::All),
            any::<u32>().prop_map(Item::Index),
            any::<(u32, u32)>().prop_map(|(a, b)| Item::Range(a.min(b), a.max(b))),
            Just(Item::Variable {
                name: "LOCAL_RANK".to_owned(),
                index: 3
            }),
        ]
    }

    fn term() -> impl Strategy<Value = Term> {
        let accelerator = prop_oneof![
            Just(Wanted::Every),
            "[a-z][a-z0-9_-]{0,31}".prop_map(|name| Wanted::Named(name.parse().unwrap())),
        ];
        (accelerator, prop::collection::vec(item(), 0..4))
            .prop_map(|(accelerator, items)| Term { accelerator, items })
    }

    fn selection() -> impl Strategy<Value = Selection> {
        let group = prop::collection::vec(term(), 1..4).prop_map(Group);
        prop::collection::vec(group, 1..4).prop_map(Selection::Chain)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_shown_is_read_back(selection in selection()) {
            prop_assert_eq!(parse(&selection.to_string()).unwrap(), selection);
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn near_misses_end_in_an_answer(text in "[a-c*:;>,0-9{}LOCAL_RANK \\-é]{0,24}") {
            if let Ok(selection) = parse(&text) {
                prop_assert_eq!(parse(&selection.to_string()).unwrap(), selection);
            }
        }
    }
}
