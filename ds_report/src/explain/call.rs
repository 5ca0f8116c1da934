//! A call as it is written on a command line: `x=f32[8192,4096]`, `adamw=true`.

use ds_core::DType;
use ds_schema::{Arg, Attr, Scalar, ScalarKind, Schema, TensorSpec};

/// How a tensor is written.
const TENSOR: &str = "a tensor is DTYPE[SHAPE], such as f32[8192,4096], with [STRIDES] behind it where it is not \
     contiguous, and @BYTES where it is not aligned as a new one";

/// What a command line tells of a call.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// In schema order; nothing for an argument that is left out.
    pub(super) args: Vec<Option<Arg>>,
    pub(super) attributes: Vec<(String, Attr)>,
    pub(super) scalars: Vec<(String, Attr)>,
    /// Dtype variables that no argument binds.
    pub(super) dtypes: Vec<(String, DType)>,
}

impl Told {
    /// Reads `NAME=...` words; a tensor whose alignment is not told has that of `alignment_log2`.
    ///
    /// # Errors
    /// The name, and what is wrong with it.
    pub(super) fn read(
        schema: &Schema,
        words: &[String],
        alignment_log2: u8,
    ) -> Result<Self, String> {
        let mut told = Self {
            args: vec![None; schema.arguments().len()],
            ..Self::default()
        };
        for word in words {
            let (name, value) = word
                .split_once('=')
                .ok_or_else(|| format!("'{word}' is neither ARG=DTYPE[SHAPE] nor NAME=VALUE"))?;
            told.add(schema, name, value, alignment_log2)?;
        }
        Ok(told)
    }

    fn add(
        &mut self,
        schema: &Schema,
        name: &str,
        value: &str,
        alignment_log2: u8,
    ) -> Result<(), String> {
        let is_named = |scalar: &&Scalar| scalar.name == name;
        if let Some(index) = schema.arguments().iter().position(|a| a.name == name) {
            if self.args[index].is_some() {
                return Err(format!(
                    "argument '{name}' is given twice; a list is written {name}=f32[10],f32[20]"
                ));
            }
            let arg = tensors(value, alignment_log2)
                .map_err(|what| format!("argument '{name}': {what}; {TENSOR}"))?;
            self.args[index] = Some(arg);
        } else if let Some(scalar) = schema.attributes().iter().find(is_named) {
            let value = scalar_value("attribute", scalar, value)?;
            self.attributes.push((name.to_owned(), value));
        } else if let Some(scalar) = schema.scalars().iter().find(is_named) {
            let value = scalar_value("scalar", scalar, value)?;
            self.scalars.push((name.to_owned(), value));
        } else if schema.dtype_variables().iter().any(|of| of == name) {
            let dtype = value.parse().map_err(|what| format!("{name}: {what}"))?;
            self.dtypes.push((name.to_owned(), dtype));
        } else {
            return Err(format!(
                "there is no argument, attribute or scalar '{name}'"
            ));
        }
        Ok(())
    }
}

fn scalar_value(what: &str, scalar: &Scalar, text: &str) -> Result<Attr, String> {
    let value = match scalar.kind {
        ScalarKind::Bool => text.parse().ok().map(Attr::Bool),
        ScalarKind::I64 => text.parse().ok().map(Attr::I64),
        ScalarKind::F64 => text.parse().ok().map(Attr::F64),
    };
    let example = match scalar.kind {
        ScalarKind::Bool => "true or false",
        ScalarKind::I64 => "an integer",
        ScalarKind::F64 => "a number",
    };
    let (name, kind) = (&scalar.name, scalar.kind.name());
    value.ok_or_else(|| format!("{what} '{name}' is {kind}: {example}, not '{text}'"))
}

/// Tensors separated by commas; none for an empty text.
fn tensors(text: &str, alignment_log2: u8) -> Result<Arg, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut depth = 0_i32;
    let parts = text.split(|c| {
        depth += match c {
            '[' => 1,
            ']' => -1,
            _ => 0,
        };
        c == ',' && depth == 0
    });
    parts.map(|part| tensor(part, alignment_log2)).collect()
}

fn tensor(text: &str, alignment_log2: u8) -> Result<TensorSpec, String> {
    let malformed = || format!("'{text}' is no tensor");
    let (text_of, alignment_log2) = match text.split_once('@') {
        None => (text, alignment_log2),
        Some((rest, bytes)) => {
            let log2 = bytes.parse().ok().filter(|b: &u64| b.is_power_of_two());
            let log2 = log2.and_then(|bytes| u8::try_from(bytes.ilog2()).ok());
            let log2 = log2.ok_or_else(|| format!("'{bytes}' is no power of two"))?;
            (rest, log2)
        }
    };
    let (dtype, rest) = text_of.split_once('[').ok_or_else(malformed)?;
    let dtype: DType = dtype.parse()?;
    let (shape, rest) = rest.split_once(']').ok_or_else(malformed)?;
    let mut spec = TensorSpec::contiguous(dtype, numbers(shape)?);
    spec.alignment_log2 = alignment_log2;
    if let Some(rest) = rest.strip_prefix('[') {
        let strides = rest.strip_suffix(']').ok_or_else(malformed)?;
        spec.strides = numbers(strides)?;
    } else if !rest.is_empty() {
        return Err(malformed());
    }
    Ok(spec)
}

fn numbers(text: &str) -> Result<Vec<i64>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let number = |part: &str| {
        let part = part.trim();
        part.parse()
            .map_err(|_| format!("'{part}' is no whole number"))
    };
    text.split(',').map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_read() {
        let one = tensor("f32[2, 3]", 6).unwrap();
        assert_eq!(
            (one.shape.as_slice(), one.strides.as_slice()),
            (&[2, 3][..], &[3, 1][..])
        );
        assert_eq!(one.alignment_log2, 6);
        assert_eq!(tensor("bf16[]@2", 6).unwrap().alignment_log2, 1);
        assert_eq!(tensor("f32[2,3][1,2]@16", 6).unwrap().strides, [1, 2]);
        let shapes: Vec<_> = tensors("f32[10],f32[2,3][1,2],f32[]", 6)
            .unwrap()
            .into_iter()
            .map(|spec| spec.shape)
            .collect();
        assert_eq!(shapes, [vec![10], vec![2, 3], vec![]]);
        assert!(tensors("", 6).unwrap().is_empty());
        for text in [
            "f32",
            "f32[",
            "f32]2[",
            "[2]",
            "f33[2]",
            "f32[2]x",
            "f32[2][1",
            "f32[a]",
            "f32[2,]",
            "f32[2]@3",
            "f32[2]@",
            "f32[2],",
            "f32[99999999999999999999]",
        ] {
            assert!(tensors(text, 6).is_err(), "{text}");
        }
    }
}
