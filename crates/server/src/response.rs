//! Bodies of whole answers and of stream chunks.

use serde_json::{Value, json};

use crate::scheduler::Usage;

/// Which of the two completion routes is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Chat,
    Text,
}

/// What all parts of one answer share.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) kind: Kind,
    /// `chatcmpl-…` or `cmpl-…`.
    pub(crate) id: String,
    /// Unix time in seconds.
    pub(crate) created: u64,
    /// Model name as the client gave it.
    pub(crate) model: String,
}

/// One finished choice.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    pub(crate) text: String,
    pub(crate) finish_reason: &'static str,
}

impl Answer {
    fn body(&self, object: &str, choices: Vec<Value>, usage: Value) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "usage": usage,
        })
    }

    /// The whole answer.
    pub(crate) fn whole(&self, choices: &[Choice], usage: Usage) -> Value {
        let object = match self.kind {
            Kind::Chat => "chat.completion",
            Kind::Text => "text_completion",
        };
        let choices = choices
            .iter()
            .enumerate()
            .map(|(index, choice)| match self.kind {
                Kind::Chat => json!({
                    "index": index,
                    "message": {"role": "assistant", "content": choice.text, "refusal": null},
                    "logprobs": null,
                    "finish_reason": choice.finish_reason,
                }),
                Kind::Text => json!({
                    "index": index,
                    "text": choice.text,
                    "logprobs": null,
                    "finish_reason": choice.finish_reason,
                }),
            });
        self.body(object, choices.collect(), usage_json(usage))
    }

    /// The chunk that opens a choice: the role, for chat.
    pub(crate) fn opening_chunk(&self) -> Option<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        (self.kind == Kind::Chat).then(|| self.chunk(0, delta, Value::Null))
    }

    /// A chunk with a piece of text.
    pub(crate) fn text_chunk(&self, index: usize, text: &str) -> Value {
        self.chunk(index, json!({"content": text}), Value::Null)
    }

    /// The chunk that closes a choice.
    pub(crate) fn closing_chunk(&self, index: usize, finish_reason: &str) -> Value {
        self.chunk(index, json!({}), json!(finish_reason))
    }

    /// The chunk with the token counts, which has no choices.
    pub(crate) fn usage_chunk(&self, usage: Usage) -> Value {
        self.body(self.chunk_object(), Vec::new(), usage_json(usage))
    }

    fn chunk_object(&self) -> &'static str {
        match self.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Text => "text_completion",
        }
    }

    fn chunk(&self, index: usize, delta: Value, finish_reason: Value) -> Value {
        let choice = match self.kind {
            Kind::Chat => json!({
                "index": index,
                "delta": delta,
                "logprobs": null,
                "finish_reason": finish_reason,
            }),
            Kind::Text => json!({
                "index": index,
                "text": delta.get("content").cloned().unwrap_or_else(|| json!("")),
                "logprobs": null,
                "finish_reason": finish_reason,
            }),
        };
        self.body(self.chunk_object(), vec![choice], Value::Null)
    }
}

fn usage_json(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}
