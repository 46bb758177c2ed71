//! Fields that chat and plain completions share.

use std::hash::{BuildHasher, Hasher, RandomState};

use serde_json::Value;

use super::fields::Fields;
use crate::api_error::ApiError;
use tritburn_engine::{GenerationParams, SamplingParams};

const MAX_STOPS: usize = 4;

/// How to generate and how to answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    pub(crate) model: String,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) sampling: SamplingParams,
    pub(crate) stop: Vec<String>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

impl Options {
    /// Takes the shared fields; `defaults` stands where the client says nothing.
    pub(crate) fn take(fields: &mut Fields, defaults: &SamplingParams) -> Result<Self, ApiError> {
        let model = fields.require_string("model")?;
        let sampling = sampling(fields, defaults)?;
        let stop = stop(fields)?;
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let include_usage = include_usage(fields, stream)?;
        // A label of the end user, for abuse reports; nothing here could depend on it.
        fields.string("user")?;
        Ok(Self {
            model,
            max_tokens: None,
            sampling,
            stop,
            stream,
            include_usage,
        })
    }

    /// What the model is asked for, when `max_tokens` tokens may come.
    pub(crate) fn generation(&self, max_tokens: usize) -> GenerationParams {
        GenerationParams {
            sampling: self.sampling.clone(),
            max_tokens,
            stop: self.stop.clone(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
        }
    }
}

fn sampling(fields: &mut Fields, defaults: &SamplingParams) -> Result<SamplingParams, ApiError> {
    let mut sampling = defaults.clone();
    for (field, range, target) in [
        ("temperature", 0.0..=2.0, &mut sampling.temperature),
        ("top_p", 0.0..=1.0, &mut sampling.top_p),
        ("min_p", 0.0..=1.0, &mut sampling.min_p),
        (
            "repetition_penalty",
            0.01..=10.0,
            &mut sampling.repetition_penalty,
        ),
        (
            "presence_penalty",
            -2.0..=2.0,
            &mut sampling.presence_penalty,
        ),
        (
            "frequency_penalty",
            -2.0..=2.0,
            &mut sampling.frequency_penalty,
        ),
    ] {
        if let Some(value) = fields.number(field, range)? {
            *target = value;
        }
    }
    // The API allows 0, which leaves the most likely token alone; so does the smallest share.
    sampling.top_p = sampling.top_p.max(f32::MIN_POSITIVE);
    if let Some(top_k) = fields.integer("top_k")? {
        sampling.top_k = match top_k {
            // Both spellings of "off" are in use.
            -1 | 0 => None,
            1.. => Some(usize::try_from(top_k).unwrap_or(usize::MAX)),
            _ => {
                return Err(ApiError::wrong_value(
                    "top_k",
                    "at least 1, or -1 for no limit",
                ));
            }
        };
    }
    sampling.seed = match fields.integer("seed")? {
        // A negative seed is legal in the API; its two's complement is as good a seed as any.
        Some(seed) => seed as u64,
        None => random_u64(),
    };
    Ok(sampling)
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::wrong_type("stop", "a string or a list of strings");
    let stops = match fields.take("stop") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(items)) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                _ => Err(wrong()),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong()),
    };
    if stops.len() > MAX_STOPS {
        return Err(ApiError::wrong_value(
            "stop",
            &format!("at most {MAX_STOPS} strings"),
        ));
    }
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::wrong_value("stop", "without empty strings"));
    }
    Ok(stops)
}

fn include_usage(fields: &mut Fields, stream: bool) -> Result<bool, ApiError> {
    let Some(value) = fields.take("stream_options") else {
        return Ok(false);
    };
    if !stream {
        return Err(ApiError::wrong_value(
            "stream_options",
            "left out unless `stream` is true",
        ));
    }
    let mut options = Fields::nested(value, "stream_options".to_owned())?;
    let include_usage = options.boolean("include_usage")?.unwrap_or(false);
    options.refuse(&[("include_obfuscation", &["false"])])?;
    options.finish()?;
    Ok(include_usage)
}

/// `max_tokens` under one of its names: at least 1.
pub(crate) fn max_tokens(fields: &mut Fields, name: &str) -> Result<Option<usize>, ApiError> {
    match fields.integer(name)? {
        None => Ok(None),
        Some(value @ 1..) => Ok(Some(usize::try_from(value).unwrap_or(usize::MAX))),
        Some(_) => Err(ApiError::wrong_value(name, "at least 1")),
    }
}

/// A number that no one can guess, from the keys that std draws for its hash maps.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}
