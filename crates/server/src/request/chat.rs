//! The body of `/v1/chat/completions`.

use serde_json::Value;

use super::fields::Fields;
use super::options::{Options, max_tokens};
use crate::api_error::ApiError;
use tritburn_engine::ChatMessage;
use tritburn_engine::SamplingParams;

/// Fields of the API that are not supported, with the values that ask for nothing.
const REFUSED: &[(&str, &[&str])] = &[
    ("n", &["1"]),
    ("tools", &["[]"]),
    ("tool_choice", &["\"none\"", "\"auto\""]),
    ("parallel_tool_calls", &["true", "false"]),
    ("functions", &["[]"]),
    ("function_call", &["\"none\"", "\"auto\""]),
    ("logprobs", &["false"]),
    ("top_logprobs", &["0"]),
    ("logit_bias", &["{}"]),
    ("response_format", &[r#"{"type":"text"}"#]),
    ("modalities", &[r#"["text"]"#]),
    ("audio", &[]),
    ("prediction", &[]),
    ("reasoning_effort", &[]),
    ("verbosity", &[]),
    ("web_search_options", &[]),
    ("metadata", &["{}"]),
    ("store", &["false"]),
    ("service_tier", &["\"auto\"", "\"default\""]),
];

/// Fields that clients send back with the assistant's earlier turns.
const REFUSED_IN_MESSAGE: &[(&str, &[&str])] = &[
    ("name", &[]),
    ("tool_calls", &["[]"]),
    ("tool_call_id", &[]),
    ("function_call", &[]),
    ("audio", &[]),
    ("refusal", &[]),
    ("annotations", &["[]"]),
];

/// A checked chat request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChatRequest {
    pub(crate) options: Options,
    pub(crate) messages: Vec<ChatMessage>,
}

impl ChatRequest {
    /// Reads and checks a body.
    pub(crate) fn read(mut fields: Fields, defaults: &SamplingParams) -> Result<Self, ApiError> {
        let mut options = Options::take(&mut fields, defaults)?;
        let newer = max_tokens(&mut fields, "max_completion_tokens")?;
        let older = max_tokens(&mut fields, "max_tokens")?;
        options.max_tokens = match (newer, older) {
            (Some(a), Some(b)) if a != b => {
                return Err(ApiError::wrong_value(
                    "max_tokens",
                    "left out, or equal to `max_completion_tokens`, its newer name",
                ));
            }
            (newer, older) => newer.or(older),
        };
        let messages = messages(fields.require("messages")?)?;
        fields.refuse(REFUSED)?;
        fields.finish()?;
        Ok(Self { options, messages })
    }
}

fn messages(value: Value) -> Result<Vec<ChatMessage>, ApiError> {
    let Value::Array(items) = value else {
        return Err(ApiError::wrong_type("messages", "a list of messages"));
    };
    if items.is_empty() {
        return Err(ApiError::wrong_value(
            "messages",
            "a list of at least one message",
        ));
    }
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| message(item, index))
        .collect()
}

fn message(value: Value, index: usize) -> Result<ChatMessage, ApiError> {
    let mut fields = Fields::nested(value, format!("messages[{index}]"))?;
    let role = fields.require_string("role")?;
    let role = match role.as_str() {
        "system" | "user" | "assistant" => role,
        // The newer name of the system role; chat templates know only the older one.
        "developer" => "system".to_owned(),
        _ => {
            return Err(ApiError::wrong_value(
                &fields.name("role"),
                "one of `system`, `developer`, `user`, `assistant`",
            ));
        }
    };
    fields.refuse(REFUSED_IN_MESSAGE)?;
    let path = fields.name("content");
    let content = content(fields.require("content")?, &path)?;
    fields.finish()?;
    Ok(ChatMessage { role, content })
}

/// A string, or the text parts of a list, one below the other.
fn content(value: Value, path: &str) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Array(parts) => {
            let texts = parts
                .into_iter()
                .enumerate()
                .map(|(index, part)| {
                    let mut part = Fields::nested(part, format!("{path}[{index}]"))?;
                    let kind = part.require_string("type")?;
                    if kind != "text" {
                        let name = part.name("type");
                        let message = format!(
                            "`{name}` is `{kind}`, but this server reads only parts of type `text`"
                        );
                        return Err(ApiError::unsupported(&name, message));
                    }
                    let text = part.require_string("text")?;
                    part.finish()?;
                    Ok(text)
                })
                .collect::<Result<Vec<_>, ApiError>>()?;
            Ok(texts.join("\n"))
        }
        _ => Err(ApiError::wrong_type(
            path,
            "a string or a list of text parts",
        )),
    }
}
