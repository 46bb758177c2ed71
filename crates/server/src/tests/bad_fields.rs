//! Every refused field is named.

use serde_json::json;

use super::bad_input::{chat, refused};
use super::*;

#[tokio::test]
async fn wrong_fields_of_chat_are_named() {
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    for (extra, param, code) in [
        (json!({"temperature": "hot"}), "temperature", "invalid_type"),
        (json!({"temperature": 2.5}), "temperature", "invalid_value"),
        (json!({"temperature": -0.1}), "temperature", "invalid_value"),
        (json!({"top_p": 1.5}), "top_p", "invalid_value"),
        (json!({"top_k": -2}), "top_k", "invalid_value"),
        (json!({"top_k": 1.5}), "top_k", "invalid_type"),
        (json!({"min_p": 2}), "min_p", "invalid_value"),
        (
            json!({"repetition_penalty": 0}),
            "repetition_penalty",
            "invalid_value",
        ),
        (
            json!({"presence_penalty": 3}),
            "presence_penalty",
            "invalid_value",
        ),
        (
            json!({"frequency_penalty": []}),
            "frequency_penalty",
            "invalid_type",
        ),
        (json!({"seed": "x"}), "seed", "invalid_type"),
        (json!({"max_tokens": 0}), "max_tokens", "invalid_value"),
        (json!({"max_tokens": 2.5}), "max_tokens", "invalid_type"),
        (
            json!({"max_completion_tokens": -1}),
            "max_completion_tokens",
            "invalid_value",
        ),
        (
            json!({"max_tokens": 2, "max_completion_tokens": 3}),
            "max_tokens",
            "invalid_value",
        ),
        (json!({"stop": 7}), "stop", "invalid_type"),
        (json!({"stop": ["a", 7]}), "stop", "invalid_type"),
        (
            json!({"stop": ["a", "b", "c", "d", "e"]}),
            "stop",
            "invalid_value",
        ),
        (json!({"stop": ""}), "stop", "invalid_value"),
        (json!({"stream": "yes"}), "stream", "invalid_type"),
        (
            json!({"stream_options": {"include_usage": true}}),
            "stream_options",
            "invalid_value",
        ),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "stream_options.include_usage",
            "invalid_type",
        ),
        (
            json!({"stream": true, "stream_options": {"x": 1}}),
            "stream_options.x",
            "unknown_parameter",
        ),
        (
            json!({"stream": true, "stream_options": 1}),
            "stream_options",
            "invalid_type",
        ),
        (json!({"user": 3}), "user", "invalid_type"),
        (json!({"model": 3}), "model", "invalid_type"),
        (
            json!({"model": null}),
            "model",
            "missing_required_parameter",
        ),
        (
            json!({"messages": null}),
            "messages",
            "missing_required_parameter",
        ),
        (json!({"messages": "hi"}), "messages", "invalid_type"),
        (json!({"messages": []}), "messages", "invalid_value"),
        (json!({"messages": ["hi"]}), "messages[0]", "invalid_type"),
        (
            json!({"messages": [{"content": "a"}]}),
            "messages[0].role",
            "missing_required_parameter",
        ),
        (
            json!({"messages": [{"role": "god", "content": ""}]}),
            "messages[0].role",
            "invalid_value",
        ),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages[0].content",
            "missing_required_parameter",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a", "name": "b"}]}),
            "messages[0].name",
            "unsupported_parameter",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a", "mood": "b"}]}),
            "messages[0].mood",
            "unknown_parameter",
        ),
        (user(json!(1)), "messages[0].content", "invalid_type"),
        (user(json!(["a"])), "messages[0].content[0]", "invalid_type"),
        (
            user(json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}])),
            "messages[0].content[1].type",
            "unsupported_parameter",
        ),
        (
            user(json!([{"type": "text"}])),
            "messages[0].content[0].text",
            "missing_required_parameter",
        ),
        (json!({"n": 2}), "n", "unsupported_parameter"),
        (
            json!({"tools": [{"type": "function"}]}),
            "tools",
            "unsupported_parameter",
        ),
        (
            json!({"tool_choice": "required"}),
            "tool_choice",
            "unsupported_parameter",
        ),
        (
            json!({"logprobs": true}),
            "logprobs",
            "unsupported_parameter",
        ),
        (
            json!({"top_logprobs": 3}),
            "top_logprobs",
            "unsupported_parameter",
        ),
        (
            json!({"logit_bias": {"5": 1}}),
            "logit_bias",
            "unsupported_parameter",
        ),
        (
            json!({"response_format": {"type": "json_object"}}),
            "response_format",
            "unsupported_parameter",
        ),
        (
            json!({"audio": {"voice": "x"}}),
            "audio",
            "unsupported_parameter",
        ),
        (
            json!({"modalities": ["text", "audio"]}),
            "modalities",
            "unsupported_parameter",
        ),
        (json!({"temprature": 1}), "temprature", "unknown_parameter"),
    ] {
        let (status, error) = refused("/v1/chat/completions", chat(extra.clone())).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{extra}");
        assert_eq!(
            (&error["param"], &error["code"]),
            (&json!(param), &json!(code)),
            "{extra}"
        );
        assert_eq!(error["type"], "invalid_request_error");
        assert!(
            error["message"].as_str().unwrap().contains(param),
            "{error}"
        );
    }
}

#[tokio::test]
async fn wrong_fields_of_completions_are_named() {
    for (extra, param, code) in [
        (json!({}), "prompt", "missing_required_parameter"),
        (json!({"prompt": 3}), "prompt", "invalid_type"),
        (json!({"prompt": []}), "prompt", "invalid_value"),
        (json!({"prompt": ""}), "prompt", "invalid_value"),
        (json!({"prompt": [[]]}), "prompt", "invalid_value"),
        (json!({"prompt": [1, -1]}), "prompt", "invalid_value"),
        (json!({"prompt": [1, "a"]}), "prompt", "invalid_value"),
        (json!({"prompt": [256]}), "prompt", "invalid_value"),
        (json!({"prompt": ["a", 1]}), "prompt", "invalid_type"),
        (json!({"prompt": vec!["a"; 129]}), "prompt", "invalid_value"),
        (
            json!({"prompt": "a", "echo": true}),
            "echo",
            "unsupported_parameter",
        ),
        (
            json!({"prompt": "a", "logprobs": 1}),
            "logprobs",
            "unsupported_parameter",
        ),
        (
            json!({"prompt": "a", "best_of": 2}),
            "best_of",
            "unsupported_parameter",
        ),
        (
            json!({"prompt": "a", "suffix": "b"}),
            "suffix",
            "unsupported_parameter",
        ),
        (
            json!({"prompt": "a", "messages": []}),
            "messages",
            "unknown_parameter",
        ),
    ] {
        let mut body = json!({"model": "org/mock"});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let (status, error) = refused("/v1/completions", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{extra}");
        assert_eq!(
            (&error["param"], &error["code"]),
            (&json!(param), &json!(code)),
            "{extra}"
        );
    }
}
