//! Every refusal names its field and has OpenAI's shape.

use serde_json::json;

use super::*;

async fn refused(path: &str, body: Value) -> (StatusCode, Value) {
    let (status, answer) = json(send(&default_router(), post(path, &body)).await).await;
    let error = answer["error"]
        .as_object()
        .unwrap_or_else(|| panic!("{body} gave {answer}"));
    assert_eq!(
        error.keys().collect::<Vec<_>>(),
        ["message", "type", "param", "code"]
    );
    assert!(!error["message"].as_str().unwrap().is_empty());
    (status, answer["error"].clone())
}

fn chat(extra: Value) -> Value {
    let mut body = json!({"model": "org/mock", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    body
}

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

#[tokio::test]
async fn a_context_too_long_says_so() {
    for (body, path) in [
        (
            json!({"model": "org/mock", "prompt": "a".repeat(64)}),
            "/v1/completions",
        ),
        (
            json!({"model": "org/mock", "prompt": "abc", "max_tokens": 62}),
            "/v1/completions",
        ),
        (
            json!({"model": "org/mock", "prompt": "abc", "max_tokens": u64::MAX}),
            "/v1/completions",
        ),
        (
            chat(json!({"messages": [{"role": "user", "content": "a".repeat(64)}]})),
            "/v1/chat/completions",
        ),
    ] {
        let (status, error) = refused(path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(error["code"], "context_length_exceeded");
    }
    let body = json!({"model": "org/mock", "prompt": "abc", "max_tokens": 61});
    let response = send(&default_router(), post("/v1/completions", body)).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_chat_template_can_refuse() {
    let body = chat(json!({"messages": [{"role": "assistant", "content": "hi"}]}));
    let (status, error) = refused("/v1/chat/completions", body).await;
    assert_eq!(
        (status, &error["code"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_prompt"))
    );
}

#[tokio::test]
async fn unknown_models_and_routes_are_404() {
    let (status, error) = refused("/v1/chat/completions", chat(json!({"model": "gpt-4"}))).await;
    assert_eq!(
        (status, &error["code"]),
        (StatusCode::NOT_FOUND, &json!("model_not_found"))
    );
    assert_eq!(error["param"], "model");
    assert!(error["message"].as_str().unwrap().contains("org/mock"));
    let (status, error) = json(send(&default_router(), get("/v1/models/gpt-4")).await).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(error["error"]["code"], "model_not_found");
    let (status, error) = refused("/v1/embeddings", json!({})).await;
    assert_eq!(
        (status, &error["code"]),
        (StatusCode::NOT_FOUND, &json!("unknown_url"))
    );
    let response = send(&default_router(), get("/v1/completions")).await;
    assert_eq!(response.headers()["allow"], "POST");
    let (status, error) = json(response).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(error["error"]["code"], "method_not_allowed");
}

#[tokio::test]
async fn malformed_bodies_are_400() {
    let deep = "[".repeat(100_000);
    for body in [
        "",
        "{",
        "nonsense",
        "[1]",
        "3",
        "{\"model\": \"\u{0}\"}",
        &deep,
    ] {
        let (status, error) =
            json(send(&default_router(), post("/v1/chat/completions", body)).await).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(error["error"]["type"], "invalid_request_error");
    }
    let request = Request::post("/v1/completions")
        .body(Body::from(vec![0xff, 0xfe]))
        .unwrap();
    assert_eq!(
        send(&default_router(), request).await.status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn json_must_be_declared() {
    let body = json!({"model": "org/mock", "prompt": "ab"}).to_string();
    for (content_type, status) in [
        ("application/json; charset=utf-8", StatusCode::OK),
        ("Application/JSON", StatusCode::OK),
        ("text/plain", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (
            "application/x-www-form-urlencoded",
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
    ] {
        let request = Request::post("/v1/completions").header("content-type", content_type);
        let request = request.body(Body::from(body.clone())).unwrap();
        let response = send(&default_router(), request).await;
        assert_eq!(response.status(), status, "{content_type}");
    }
}

#[tokio::test]
async fn large_bodies_are_413() {
    let config = ServerConfig {
        max_body_bytes: 200,
        ..ServerConfig::default()
    };
    let router = app(config, Some(Mock::default())).1;
    let body = chat(json!({"user": "x".repeat(200)}));
    let (status, error) = json(send(&router, post("/v1/chat/completions", body)).await).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(error["error"]["code"], "request_too_large");
    let response = send(&router, post("/v1/chat/completions", chat(json!({})))).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_key_is_asked_for_under_v1_only() {
    let config = ServerConfig {
        api_key: Some("s3cret".to_owned()),
        ..ServerConfig::default()
    };
    let router = app(config, Some(Mock::default())).1;
    for given in [
        None,
        Some("Bearer s3cre"),
        Some("Bearer s3cret2"),
        Some("s3cret"),
        Some("Bearer "),
    ] {
        let mut request = get("/v1/models");
        if let Some(given) = given {
            request
                .headers_mut()
                .insert("authorization", given.parse().unwrap());
        }
        let response = send(&router, request).await;
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        let (status, error) = json(response).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{given:?}");
        assert_eq!(error["error"]["code"], "invalid_api_key");
    }
    let mut request = get("/v1/models");
    request
        .headers_mut()
        .insert("authorization", "Bearer s3cret".parse().unwrap());
    assert_eq!(send(&router, request).await.status(), StatusCode::OK);
    for path in ["/", "/health", "/metrics"] {
        assert_eq!(
            send(&router, get(path)).await.status(),
            StatusCode::OK,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_failing_model_is_500() {
    for (fails, panics) in [(true, false), (false, true)] {
        let model = Mock {
            fails,
            panics,
            ..Mock::default()
        };
        let router = app(ServerConfig::default(), Some(model)).1;
        let body = json!({"model": "org/mock", "prompt": "ab"});
        let (status, error) = json(send(&router, post("/v1/completions", &body)).await).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(error["error"]["type"], "server_error");
        // The turn is free again.
        let (status, _) = json(send(&router, post("/v1/completions", &body)).await).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
