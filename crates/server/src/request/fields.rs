//! A JSON object that is emptied field by field, so that what is left over is unknown.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::api_error::ApiError;

/// The fields of one object, at `path` of the body (empty for the body itself).
pub(crate) struct Fields {
    map: Map<String, Value>,
    path: String,
}

impl Fields {
    /// Parses a whole body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self {
                map,
                path: String::new(),
            }),
            Ok(_) => Err(ApiError::bad_request(
                "the request body must be a JSON object",
            )),
            Err(error) => Err(ApiError::bad_request(format!(
                "the request body is not valid JSON: {error}"
            ))),
        }
    }

    /// The fields of an object inside the body.
    pub(crate) fn nested(value: Value, path: String) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            _ => Err(ApiError::wrong_type(&path, "an object")),
        }
    }

    /// Full name of a field, as errors give it.
    pub(crate) fn name(&self, field: &str) -> String {
        if self.path.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.path)
        }
    }

    /// The field's value, or `None` when it is absent or null.
    pub(crate) fn take(&mut self, field: &str) -> Option<Value> {
        self.map.remove(field).filter(|value| !value.is_null())
    }

    /// The field's value, or an error when it is absent or null.
    pub(crate) fn require(&mut self, field: &str) -> Result<Value, ApiError> {
        self.take(field)
            .ok_or_else(|| ApiError::missing(&self.name(field)))
    }

    /// A string, if given.
    pub(crate) fn string(&mut self, field: &str) -> Result<Option<String>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::wrong_type(&self.name(field), "a string")),
        }
    }

    /// A required string.
    pub(crate) fn require_string(&mut self, field: &str) -> Result<String, ApiError> {
        self.string(field)?
            .ok_or_else(|| ApiError::missing(&self.name(field)))
    }

    /// A boolean, if given.
    pub(crate) fn boolean(&mut self, field: &str) -> Result<Option<bool>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(ApiError::wrong_type(&self.name(field), "true or false")),
        }
    }

    /// A number in `range`, if given.
    pub(crate) fn number(
        &mut self,
        field: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take(field) else {
            return Ok(None);
        };
        let name = self.name(field);
        let number = value
            .as_f64()
            .ok_or_else(|| ApiError::wrong_type(&name, "a number"))?;
        if !range.contains(&number) {
            let expected = format!("from {} to {}", range.start(), range.end());
            return Err(ApiError::wrong_value(&name, &expected));
        }
        Ok(Some(number as f32))
    }

    /// An integer, if given.
    pub(crate) fn integer(&mut self, field: &str) -> Result<Option<i128>, ApiError> {
        let Some(value) = self.take(field) else {
            return Ok(None);
        };
        integer(&value)
            .map(Some)
            .ok_or_else(|| ApiError::wrong_type(&self.name(field), "an integer"))
    }

    /// Refuses each field of `table` that asks for something. A table row names a field and the
    /// JSON values that ask for nothing; null always does.
    pub(crate) fn refuse(&mut self, table: &[(&str, &[&str])]) -> Result<(), ApiError> {
        for (field, harmless) in table {
            let Some(value) = self.take(field) else {
                continue;
            };
            if !harmless.contains(&value.to_string().as_str()) {
                let name = self.name(field);
                let message = match harmless.first() {
                    Some(value) => format!(
                        "`{name}` is not supported by this server; leave it out or send {value}"
                    ),
                    None => format!("`{name}` is not supported by this server; leave it out"),
                };
                return Err(ApiError::unsupported(&name, message));
            }
        }
        Ok(())
    }

    /// Refuses whatever has not been taken.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.map.iter().find(|(_, value)| !value.is_null()) {
            Some((field, _)) => Err(ApiError::unknown_field(&self.name(field))),
            None => Ok(()),
        }
    }
}

/// A JSON integer of either sign.
pub(crate) fn integer(value: &Value) -> Option<i128> {
    value
        .as_i64()
        .map(i128::from)
        .or_else(|| value.as_u64().map(i128::from))
}
