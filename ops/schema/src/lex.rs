//! Tokens of a schema text. Knows characters, not meaning.

use std::fmt;

use crate::error::{Fault, Span};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TokenKind<'a> {
    /// A name, variable or keyword.
    Word(&'a str),
    /// A number as it is written.
    Number(&'a str),
    /// A string without its quotes.
    Text(&'a str),
    /// Punctuation.
    Mark(&'static str),
    /// The end of the text.
    End,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: TokenKind<'a>,
    pub(crate) span: Span,
}

/// Longest word, in characters: names go into tables and file names, and errors repeat words.
const MAX_WORD_CHARS: usize = 64;

/// Longer marks first, so that `->` is not read as a sign.
const MARKS: [&str; 10] = ["...", "->", "(", ")", "[", "]", ":", ",", "|", "="];

pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(crate) fn next(&mut self) -> Result<Token<'a>, Fault> {
        self.skip_blanks_and_comments();
        let start = self.at;
        let rest = &self.text[start..];
        let (kind, len) = match rest.chars().next() {
            None => (TokenKind::End, 0),
            Some('"') => self.text_literal(rest)?,
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let len = prefix_len(rest, |c| c.is_ascii_alphanumeric() || c == '_');
                (TokenKind::Word(&rest[..len]), len)
            }
            Some(c) if c.is_ascii_digit() || (c == '-' && !rest.starts_with("->")) => {
                let len = number_len(rest);
                (TokenKind::Number(&rest[..len]), len)
            }
            Some(c) => {
                let mark = MARKS.into_iter().find(|mark| rest.starts_with(mark));
                let span = Span {
                    start,
                    end: start + c.len_utf8(),
                };
                let unexpected = || Fault::new(span, format!("unexpected character {c:?}"));
                let mark = mark.ok_or_else(unexpected)?;
                (TokenKind::Mark(mark), mark.len())
            }
        };
        let word = matches!(kind, TokenKind::Word(_) | TokenKind::Number(_));
        if word && len > MAX_WORD_CHARS {
            let span = Span {
                start,
                end: start + len,
            };
            let message = format!("a word has at most {MAX_WORD_CHARS} characters");
            return Err(Fault::new(span, message));
        }
        self.at = start + len;
        Ok(Token {
            kind,
            span: Span {
                start,
                end: self.at,
            },
        })
    }

    fn skip_blanks_and_comments(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let blanks = prefix_len(rest, |c| c.is_ascii_whitespace());
            let comment = &rest[blanks..];
            self.at += blanks;
            if !comment.starts_with('#') {
                return;
            }
            self.at += prefix_len(comment, |c| c != '\n');
        }
    }

    fn text_literal(&self, rest: &'a str) -> Result<(TokenKind<'a>, usize), Fault> {
        let body = &rest[1..];
        let len = prefix_len(body, |c| c != '"' && !c.is_control());
        if !body[len..].starts_with('"') {
            let span = Span {
                start: self.at,
                end: self.at + 1 + len,
            };
            return Err(Fault::new(
                span,
                "a string must end with '\"' on its own line",
            ));
        }
        Ok((TokenKind::Text(&body[..len]), len + 2))
    }
}

impl fmt::Display for TokenKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Number(text) => write!(f, "'{text}'"),
            Self::Text(_) => f.write_str("a string"),
            Self::Mark(mark) => write!(f, "'{mark}'"),
            Self::End => f.write_str("the end of the text"),
        }
    }
}

fn prefix_len(text: &str, keep: impl Fn(char) -> bool) -> usize {
    text.find(|c| !keep(c)).unwrap_or(text.len())
}

/// Length of anything that starts like a number; whether it is one, its reader decides.
fn number_len(text: &str) -> usize {
    let mut previous = ' ';
    text.char_indices()
        .find(|&(at, c)| {
            let sign = matches!(c, '-' | '+') && (at == 0 || matches!(previous, 'e' | 'E'));
            previous = c;
            !(sign || c == '.' || c.is_ascii_alphanumeric())
        })
        .map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<TokenKind<'_>> {
        let mut lexer = Lexer::new(text);
        let mut kinds = Vec::new();
        loop {
            match lexer.next().unwrap().kind {
                TokenKind::End => return kinds,
                kind => kinds.push(kind),
            }
        }
    }

    #[test]
    fn marks_numbers_words_and_comments() {
        use TokenKind::{Mark, Number, Text, Word};
        assert_eq!(
            kinds("x: T[S..., 4] -> -1e-6 # no\n\"a # b\""),
            [
                Word("x"),
                Mark(":"),
                Word("T"),
                Mark("["),
                Word("S"),
                Mark("..."),
                Mark(","),
                Number("4"),
                Mark("]"),
                Mark("->"),
                Number("-1e-6"),
                Text("a # b"),
            ]
        );
    }

    #[test]
    fn strings_end_on_their_line() {
        assert!(Lexer::new("\"open\n\"").next().is_err());
        assert!(Lexer::new("é").next().is_err());
    }
}
