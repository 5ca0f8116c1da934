//! Values for launch scalars and static attributes: names to schema order, defaults filled in.

use crate::{Attr, BindError, BindRule, Scalar, Schema, error::did_you_mean};

impl Schema {
    /// The static attributes in schema order, from those that the call names and the defaults.
    ///
    /// # Errors
    /// When a name is unknown or given twice, a value is of another type, or one without a default
    /// is missing.
    pub fn resolve_attributes(&self, given: &[(&str, Attr)]) -> Result<Vec<Attr>, BindError> {
        self.resolve("attribute", &self.attributes, given)
    }

    /// The launch scalars in schema order, from those that the call names and the defaults.
    ///
    /// # Errors
    /// As [`Schema::resolve_attributes`].
    pub fn resolve_scalars(&self, given: &[(&str, Attr)]) -> Result<Vec<Attr>, BindError> {
        self.resolve("scalar", &self.scalars, given)
    }

    /// Checks attributes that are already in schema order.
    ///
    /// # Errors
    /// When their number or a type is not the schema's.
    pub fn check_attributes(&self, attributes: &[Attr]) -> Result<(), BindError> {
        self.check_values("attribute", &self.attributes, attributes)
    }

    /// Checks launch scalars that are already in schema order.
    ///
    /// # Errors
    /// When their number or a type is not the schema's.
    pub fn check_scalars(&self, scalars: &[Attr]) -> Result<(), BindError> {
        self.check_values("scalar", &self.scalars, scalars)
    }

    fn resolve(
        &self,
        what: &str,
        scalars: &[Scalar],
        given: &[(&str, Attr)],
    ) -> Result<Vec<Attr>, BindError> {
        for (index, (name, _)) in given.iter().enumerate() {
            if !scalars.iter().any(|scalar| scalar.name == *name) {
                let hint = did_you_mean(name, scalars.iter().map(|scalar| &scalar.name));
                return Err(self.refuse_scalar(format!("there is no {what} '{name}'{hint}")));
            }
            if given[..index].iter().any(|(other, _)| other == name) {
                return Err(self.refuse_scalar(format!("{what} '{name}' is given twice")));
            }
        }
        let value = |scalar: &Scalar| {
            let named = given.iter().find(|(name, _)| *name == scalar.name);
            named
                .map(|&(_, value)| value)
                .or(scalar.default)
                .ok_or_else(|| {
                    self.refuse_scalar(format!("{what} '{}' has no default, give it", scalar.name))
                })
        };
        let values = scalars.iter().map(value).collect::<Result<Vec<_>, _>>()?;
        self.check_values(what, scalars, &values)?;
        Ok(values)
    }

    fn check_values(
        &self,
        what: &str,
        scalars: &[Scalar],
        values: &[Attr],
    ) -> Result<(), BindError> {
        if values.len() != scalars.len() {
            let (takes, has) = (scalars.len(), values.len());
            let plural = if takes == 1 { "" } else { "s" };
            let names: Vec<_> = scalars.iter().map(|scalar| scalar.name.as_str()).collect();
            let names = match names.as_slice() {
                [] => String::new(),
                names => format!(" ({})", names.join(", ")),
            };
            return Err(self.refuse_scalar(format!(
                "takes {takes} {what}{plural}{names}, the call has {has}"
            )));
        }
        for (scalar, value) in scalars.iter().zip(values) {
            if value.kind() != scalar.kind {
                let (name, wanted) = (&scalar.name, scalar.kind.name());
                let found = value.kind().name();
                return Err(self.refuse_scalar(format!("{what} '{name}' is {wanted}, not {found}")));
            }
        }
        Ok(())
    }

    fn refuse_scalar(&self, message: String) -> BindError {
        BindError {
            op: self.name.clone(),
            rule: BindRule::Scalar,
            argument: None,
            message,
        }
    }
}
