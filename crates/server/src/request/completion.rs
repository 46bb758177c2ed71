//! The body of `/v1/completions`.

use serde_json::Value;

use super::fields::{Fields, integer};
use super::options::{Options, max_tokens};
use crate::api_error::ApiError;
use tritburn_engine::SamplingParams;

/// The API's default for this route.
const DEFAULT_MAX_TOKENS: usize = 16;
/// More prompts than this in one request would hold the queue for too long.
const MAX_PROMPTS: usize = 128;

/// Fields of the API that are not supported, with the values that ask for nothing.
const REFUSED: &[(&str, &[&str])] = &[
    ("n", &["1"]),
    ("best_of", &["1"]),
    ("echo", &["false"]),
    ("logprobs", &["false"]),
    ("logit_bias", &["{}"]),
    ("suffix", &["\"\""]),
    ("response_format", &[r#"{"type":"text"}"#]),
];

/// One prompt, as text or as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// A checked completion request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CompletionRequest {
    pub(crate) options: Options,
    /// At least one; each gets one choice.
    pub(crate) prompts: Vec<Prompt>,
}

impl CompletionRequest {
    /// Reads and checks a body.
    pub(crate) fn read(mut fields: Fields, defaults: &SamplingParams) -> Result<Self, ApiError> {
        let mut options = Options::take(&mut fields, defaults)?;
        options.max_tokens =
            Some(max_tokens(&mut fields, "max_tokens")?.unwrap_or(DEFAULT_MAX_TOKENS));
        let prompts = prompts(fields.require("prompt")?)?;
        fields.refuse(REFUSED)?;
        fields.finish()?;
        Ok(Self { options, prompts })
    }
}

fn prompts(value: Value) -> Result<Vec<Prompt>, ApiError> {
    let wrong = || {
        ApiError::wrong_type(
            "prompt",
            "a string, a list of strings, a list of token ids, or a list of lists of token ids",
        )
    };
    let items = match value {
        Value::String(text) => return Ok(vec![Prompt::Text(text)]),
        Value::Array(items) => items,
        _ => return Err(wrong()),
    };
    match items.first() {
        None => {
            return Err(ApiError::wrong_value(
                "prompt",
                "a list with at least one item",
            ));
        }
        Some(Value::Number(_)) => return Ok(vec![Prompt::Tokens(tokens(&items)?)]),
        Some(_) => {}
    }
    if items.len() > MAX_PROMPTS {
        let expected = format!("a list of at most {MAX_PROMPTS} prompts");
        return Err(ApiError::wrong_value("prompt", &expected));
    }
    items
        .into_iter()
        .map(|item| match item {
            Value::String(text) => Ok(Prompt::Text(text)),
            Value::Array(ids) => Ok(Prompt::Tokens(tokens(&ids)?)),
            _ => Err(wrong()),
        })
        .collect()
}

fn tokens(items: &[Value]) -> Result<Vec<u32>, ApiError> {
    items
        .iter()
        .map(|item| {
            let id = integer(item).and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| ApiError::wrong_value("prompt", "made of token ids (0 or more)"))
        })
        .collect()
}
