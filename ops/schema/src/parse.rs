//! From text to [`Schema`], in one pass; the grammar stands at the head of the crate.
//! Names are resolved as they come (`resolve`), so a fault points at the word that is at fault.

use crate::{
    Argument, Attr, DType, Dim, MAX_RANK, Multiplicity, Role, Scalar, ScalarKind, Schema,
    SchemaFile, Tolerance,
    error::{Fault, Span},
    lex::{Lexer, Token, TokenKind},
    resolve::{OpBuilder, is_variable, sorted, unknown_dtype},
};

pub(crate) type Result<T> = std::result::Result<T, Fault>;

pub(crate) fn parse_file(text: &str) -> Result<SchemaFile> {
    let mut parser = Parser::new(text)?;
    let mut file = SchemaFile {
        sets: Vec::new(),
        ops: Vec::new(),
    };
    loop {
        let (kind, span) = (parser.token.kind, parser.token.span);
        match kind {
            TokenKind::Word("set") => parser.sets(&mut file.sets)?,
            TokenKind::Word("op") => {
                let (schema, name) = parser.op()?;
                if file.op(&schema.name).is_some() {
                    return Err(Fault::new(
                        name,
                        format!("op '{}' is there twice", schema.name),
                    ));
                }
                file.ops.push(schema);
            }
            TokenKind::End if file.ops.is_empty() => {
                return Err(Fault::new(span, "the text declares no op")
                    .with_hint("an op is declared as `op name(x: f32[N]) -> y: f32[N]`"));
            }
            TokenKind::End => return Ok(file),
            _ => return Err(parser.unexpected("'set' or 'op'", &["set", "op"])),
        }
    }
}

/// Words that mean something to the grammar and therefore name nothing.
const KEYWORDS: [&str; 13] = [
    "op",
    "set",
    "where",
    "tolerance",
    "because",
    "deterministic",
    "doc",
    "inout",
    "list",
    "optional",
    "static",
    "true",
    "false",
];
const CLAUSES: [&str; 6] = ["where", "tolerance", "deterministic", "doc", "op", "set"];

struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token<'a>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self> {
        let mut lexer = Lexer::new(text);
        let token = lexer.next()?;
        Ok(Self { lexer, token })
    }

    fn sets(&mut self, sets: &mut Vec<String>) -> Result<()> {
        self.advance()?;
        loop {
            let (name, span) = self.name("the name of an op set")?;
            if sets.contains(&name) {
                return Err(Fault::new(span, format!("set '{name}' is named twice")));
            }
            sets.push(name);
            if !matches!(self.token.kind, TokenKind::Word(word) if !KEYWORDS.contains(&word)) {
                return Ok(());
            }
        }
    }

    fn op(&mut self) -> Result<(Schema, Span)> {
        self.advance()?;
        let (name, name_span) = self.name("the op's name")?;
        let mut op = OpBuilder::default();
        self.expect("(")?;
        self.comma_separated(")", |parser| parser.parameter(&mut op, false))?;
        op.input_count = op.arguments.len();
        if self.accept("->")? {
            if self.accept("(")? {
                self.comma_separated(")", |parser| parser.parameter(&mut op, true))?;
            } else {
                self.parameter(&mut op, true)?;
            }
        }
        while let TokenKind::Word(word) = self.token.kind {
            match word {
                "where" => self.alternatives(&mut op)?,
                "tolerance" => self.tolerance(&mut op)?,
                "deterministic" if !op.deterministic => {
                    op.deterministic = true;
                    self.advance()?;
                }
                "doc" if op.doc.is_none() => {
                    self.advance()?;
                    op.doc = Some(self.string("a line that says what the op does")?);
                }
                "op" | "set" => break,
                _ if CLAUSES.contains(&word) => return Err(self.twice(word)),
                _ => return Err(self.unexpected("a clause or the next op", &CLAUSES)),
            }
        }
        Ok((op.finish(name, name_span)?, name_span))
    }

    fn parameter(&mut self, op: &mut OpBuilder, output: bool) -> Result<()> {
        let (name, span) = self.name("a parameter's name")?;
        if op.has_parameter(&name) {
            return Err(Fault::new(
                span,
                format!("parameter '{name}' is there twice"),
            ));
        }
        self.expect(":")?;
        let modifiers = self.modifiers()?;
        let (word, word_span) = self.word("a dtype, a dtype variable or a scalar type")?;
        let is_tensor = self.token.kind == TokenKind::Mark("[");
        if let Some(&(modifier, at)) = modifiers.iter().find(|(modifier, _)| {
            output && *modifier != "list" || is_tensor == (*modifier == "static")
        }) {
            let what = if output {
                "an output"
            } else if is_tensor {
                "a tensor"
            } else {
                "a scalar"
            };
            return Err(Fault::new(at, format!("{what} cannot be {modifier}")));
        }
        let has = |modifier| modifiers.iter().any(|(has, _)| *has == modifier);
        if is_tensor {
            let multiplicity = match (has("optional"), has("list")) {
                (false, false) => Multiplicity::One,
                (true, false) => Multiplicity::Optional,
                (false, true) => Multiplicity::List,
                (true, true) => {
                    return Err(Fault::new(word_span, "a list cannot be optional too")
                        .with_hint("a list may be empty"));
                }
            };
            let role = match (output, has("inout")) {
                (true, _) => Role::Out,
                (false, true) => Role::InOut,
                (false, false) => Role::In,
            };
            let element = op.element(word, word_span)?;
            let dims = self.dims(op, multiplicity, output)?;
            op.arguments.push(Argument {
                name,
                role,
                multiplicity,
                element,
                dims,
            });
            return Ok(());
        }
        let kind = scalar_kind(word, word_span)?;
        if output {
            return Err(Fault::new(word_span, "an output cannot be a scalar")
                .with_hint(format!("a tensor without dimensions is written '{word}[]'")));
        }
        let default = if self.accept("=")? {
            Some(self.value(kind)?)
        } else {
            None
        };
        let scalars = if has("static") {
            &mut op.attributes
        } else {
            &mut op.scalars
        };
        scalars.push(Scalar {
            name,
            kind,
            default,
        });
        Ok(())
    }

    fn modifiers(&mut self) -> Result<Vec<(&'a str, Span)>> {
        let mut modifiers: Vec<(&str, Span)> = Vec::new();
        while let TokenKind::Word(word @ ("inout" | "list" | "optional" | "static")) =
            self.token.kind
        {
            if modifiers.iter().any(|(modifier, _)| *modifier == word) {
                return Err(self.twice(word));
            }
            modifiers.push((word, self.token.span));
            self.advance()?;
        }
        Ok(modifiers)
    }

    fn dims(
        &mut self,
        op: &mut OpBuilder,
        multiplicity: Multiplicity,
        output: bool,
    ) -> Result<Vec<Dim>> {
        let open = self.token.span;
        let mut dims = Vec::new();
        self.expect("[")?;
        self.comma_separated("]", |parser| {
            let span = parser.token.span;
            let dim = if let TokenKind::Number(number) = parser.token.kind {
                parser.advance()?;
                let extent = number.parse().ok().filter(|extent| *extent >= 0);
                let no_extent = || Fault::new(span, "an extent must be an integer from 0");
                Dim::Constant(extent.ok_or_else(no_extent)?)
            } else {
                let (name, span) = parser.word("a dimension variable or an integer")?;
                let variadic = parser.accept("...")?;
                op.dim(name, variadic, span, multiplicity, output)?
            };
            let is_variadic = |dim: &Dim| matches!(dim, Dim::Variadic(_));
            if is_variadic(&dim) && dims.iter().any(is_variadic) {
                return Err(Fault::new(span, "a shape can have only one '...'"));
            }
            dims.push(dim);
            Ok(())
        })?;
        let fixed = dims
            .iter()
            .filter(|dim| !matches!(dim, Dim::Variadic(_)))
            .count();
        if fixed > MAX_RANK {
            return Err(Fault::new(
                open,
                format!("a tensor has at most {MAX_RANK} dimensions"),
            ));
        }
        Ok(dims)
    }

    fn alternatives(&mut self, op: &mut OpBuilder) -> Result<()> {
        self.advance()?;
        loop {
            let span = self.token.span;
            let mut variables = Vec::new();
            let joint = self.tuple(|parser| {
                let (name, span) = parser.word("a dtype variable")?;
                variables.push(op.used_dtype_variable(name, span)?);
                Ok(())
            })?;
            self.expect(":")?;
            let mut rows: Vec<Vec<DType>> = Vec::new();
            loop {
                let span = self.token.span;
                let mut row = Vec::new();
                let tuple = self.tuple(|parser| {
                    row.push(parser.dtype()?);
                    Ok(())
                })?;
                if tuple != joint || row.len() != variables.len() {
                    let expected = if joint { variables.len() } else { 1 };
                    return Err(Fault::new(
                        span,
                        format!(
                            "this alternative must have as many dtypes as variables: {expected}"
                        ),
                    ));
                }
                if rows.contains(&row) {
                    return Err(Fault::new(span, "this alternative is there twice"));
                }
                rows.push(row);
                if !self.accept("|")? {
                    break;
                }
            }
            op.alternatives.push(sorted(&variables, &rows));
            if op.has_repeated_alternatives() {
                return Err(Fault::new(
                    span,
                    "a variable here already has its alternatives",
                ));
            }
            // A trailing comma ends the clause, as it ends every list.
            let next_group = |kind| match kind {
                TokenKind::Word(word) => !CLAUSES.contains(&word),
                kind => kind == TokenKind::Mark("("),
            };
            if !(self.accept(",")? && next_group(self.token.kind)) {
                return Ok(());
            }
        }
    }

    fn tolerance(&mut self, op: &mut OpBuilder) -> Result<()> {
        if op.tolerance_reason.is_some() {
            return Err(self.twice("tolerance"));
        }
        self.advance()?;
        loop {
            let span = self.token.span;
            let dtype = self.dtype()?;
            if op.tolerances.iter().any(|(of, ..)| *of == dtype) {
                return Err(Fault::new(
                    span,
                    format!("'{dtype}' has its tolerance already"),
                ));
            }
            let rtol = self.tolerance_part("the relative tolerance")?;
            let atol = self.tolerance_part("the absolute tolerance")?;
            op.tolerances.push((dtype, Tolerance { rtol, atol }, span));
            if !self.accept("|")? {
                break;
            }
        }
        if self.token.kind != TokenKind::Word("because") {
            return Err(self
                .unexpected("'|' or 'because'", &["because"])
                .with_hint("a tolerance carries its reason: `because \"sums are kept in f32\"`"));
        }
        self.advance()?;
        op.tolerance_reason = Some(self.string("the reason of the tolerances")?);
        Ok(())
    }

    fn tolerance_part(&mut self, what: &str) -> Result<f64> {
        match self.token.kind {
            TokenKind::Number(number) => match number.parse::<f64>() {
                // `abs` turns -0 into 0.
                Ok(value) if value.is_finite() && value >= 0.0 => {
                    self.advance()?;
                    Ok(value.abs())
                }
                _ => Err(Fault::new(
                    self.token.span,
                    format!("{what} must be a number from 0"),
                )),
            },
            _ => Err(self.unexpected(what, &[])),
        }
    }

    /// A scalar's default.
    fn value(&mut self, kind: ScalarKind) -> Result<Attr> {
        let value = match (kind, self.token.kind) {
            (ScalarKind::Bool, TokenKind::Word(word)) => word.parse().ok().map(Attr::Bool),
            (ScalarKind::I64, TokenKind::Number(number)) => number.parse().ok().map(Attr::I64),
            (ScalarKind::F64, TokenKind::Number(number)) => number
                .parse()
                .ok()
                .filter(|value: &f64| value.is_finite())
                .map(Attr::F64),
            _ => None,
        };
        let Some(value) = value else {
            let message = format!("{} is no value of type {}", self.token.kind, kind.name());
            return Err(Fault::new(self.token.span, message));
        };
        self.advance()?;
        Ok(value)
    }

    fn dtype(&mut self) -> Result<DType> {
        let (word, span) = self.word("a dtype")?;
        DType::from_name(word).ok_or_else(|| unknown_dtype(word, span))
    }

    /// `item`, or `(item, item, ...)`; says whether there were parentheses.
    fn tuple(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<bool> {
        let parenthesised = self.accept("(")?;
        item(self)?;
        if parenthesised && !self.accept(")")? {
            self.expect(",")?;
            self.comma_separated(")", item)?;
        }
        Ok(parenthesised)
    }

    /// Items up to and including `close`; a comma may trail.
    fn comma_separated(
        &mut self,
        close: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        while !self.accept(close)? {
            item(self)?;
            if !self.accept(",")? {
                return self.expect(close);
            }
        }
        Ok(())
    }

    fn name(&mut self, what: &str) -> Result<(String, Span)> {
        let (word, span) = self.word(what)?;
        if KEYWORDS.contains(&word) {
            return Err(Fault::new(
                span,
                format!("expected {what}, but '{word}' is a keyword"),
            ));
        }
        if word.contains(|c: char| c.is_ascii_uppercase()) || word.starts_with('_') {
            return Err(Fault::new(span, format!("expected {what}, in lower case"))
                .with_hint("upper case is for variables"));
        }
        Ok((word.to_owned(), span))
    }

    fn word(&mut self, what: &str) -> Result<(&'a str, Span)> {
        match self.token.kind {
            TokenKind::Word(word) => {
                let span = self.token.span;
                self.advance()?;
                Ok((word, span))
            }
            _ => Err(self.unexpected(what, &[])),
        }
    }

    fn string(&mut self, what: &str) -> Result<String> {
        match self.token.kind {
            TokenKind::Text(text) if !text.trim().is_empty() => {
                self.advance()?;
                Ok(text.to_owned())
            }
            _ => Err(self.unexpected(&format!("{what}, in quotes"), &[])),
        }
    }

    fn expect(&mut self, mark: &'static str) -> Result<()> {
        if self.accept(mark)? {
            Ok(())
        } else {
            Err(self.unexpected(&format!("'{mark}'"), &[]))
        }
    }

    fn accept(&mut self, mark: &'static str) -> Result<bool> {
        let accepted = self.token.kind == TokenKind::Mark(mark);
        if accepted {
            self.advance()?;
        }
        Ok(accepted)
    }

    fn advance(&mut self) -> Result<()> {
        self.token = self.lexer.next()?;
        Ok(())
    }

    fn unexpected(&self, expected: &str, candidates: &[&'static str]) -> Fault {
        let Token { kind, span } = self.token;
        let fault = Fault::new(span, format!("expected {expected}, found {kind}"));
        match kind {
            TokenKind::Word(word) => fault.suggesting(word, candidates.iter().copied()),
            _ => fault,
        }
    }

    fn twice(&self, word: &str) -> Fault {
        Fault::new(self.token.span, format!("'{word}' is there twice"))
    }
}

fn scalar_kind(word: &str, span: Span) -> Result<ScalarKind> {
    let kinds = [ScalarKind::Bool, ScalarKind::I64, ScalarKind::F64];
    kinds
        .into_iter()
        .find(|kind| kind.name() == word)
        .ok_or_else(|| {
            let fault = Fault::new(
                span,
                format!("'{word}' is no type of a scalar: bool, i64 or f64"),
            );
            if DType::from_name(word).is_some() || is_variable(word) {
                fault.with_hint(format!("a tensor without dimensions is written '{word}[]'"))
            } else {
                fault.suggesting(word, kinds.map(ScalarKind::name))
            }
        })
}
