//! Refusals other than of single fields; all have OpenAI's shape.

use serde_json::json;

use super::*;

pub(super) async fn refused(path: &str, body: Value) -> (StatusCode, Value) {
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

pub(super) fn chat(extra: Value) -> Value {
    let mut body = json!({"model": "org/mock", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    body
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
