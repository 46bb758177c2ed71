//! Framing of server-sent events.

use serde_json::json;

use super::*;

/// The `data:` payloads of a stream, in order.
async fn events(router: &Router, path: &str, body: Value) -> Vec<String> {
    let response = send(router, post(path, body)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = text(response).await;
    assert!(text.ends_with("\n\n"), "{text:?}");
    let blocks = text.split("\n\n").filter(|block| !block.is_empty());
    blocks
        .map(|block| block.strip_prefix("data: ").unwrap().to_owned())
        .collect()
}

fn chunks(events: &[String]) -> Vec<Value> {
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    chunks
        .iter()
        .map(|chunk| serde_json::from_str(chunk).unwrap())
        .collect()
}

#[tokio::test]
async fn chat_streams_role_text_and_reason() {
    let body = json!({
        "model": "org/mock", "messages": [{"role": "user", "content": "ab"}], "stream": true,
    });
    let chunks = chunks(&events(&default_router(), "/v1/chat/completions", body).await);
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["id"], chunks[0]["id"]);
        assert!(chunk.get("usage").is_none());
        assert_eq!(chunk["choices"][0]["index"], 0);
    }
    let deltas: Vec<_> = chunks
        .iter()
        .map(|chunk| chunk["choices"][0]["delta"].clone())
        .collect();
    assert_eq!(
        deltas,
        [
            json!({"role": "assistant", "content": ""}),
            json!({"content": "b"}),
            json!({"content": "a"}),
            json!({}),
        ]
    );
    let reasons: Vec<_> = chunks
        .iter()
        .map(|c| c["choices"][0]["finish_reason"].clone())
        .collect();
    assert_eq!(
        reasons,
        [json!(null), json!(null), json!(null), json!("stop")]
    );
}

#[tokio::test]
async fn usage_comes_last_when_asked_for() {
    let body = json!({
        "model": "org/mock", "messages": [{"role": "user", "content": "ab"}], "stream": true,
        "stream_options": {"include_usage": true},
    });
    let chunks = chunks(&events(&default_router(), "/v1/chat/completions", body).await);
    let (last, others) = chunks.split_last().unwrap();
    assert!(
        others
            .iter()
            .all(|chunk| chunk.get("usage") == Some(&Value::Null))
    );
    assert_eq!(last["choices"], json!([]));
    let usage = json!({"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4});
    assert_eq!(last["usage"], usage);
}

#[tokio::test]
async fn completions_stream_every_choice() {
    let body = json!({"model": "org/mock", "prompt": ["ab", "c"], "stream": true});
    let chunks = chunks(&events(&default_router(), "/v1/completions", body).await);
    let seen: Vec<_> = chunks
        .iter()
        .map(|chunk| {
            assert_eq!(chunk["object"], "text_completion");
            let choice = &chunk["choices"][0];
            (
                choice["index"].clone(),
                choice["text"].clone(),
                choice["finish_reason"].clone(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (json!(0), json!("b"), json!(null)),
            (json!(0), json!("a"), json!(null)),
            (json!(0), json!(""), json!("stop")),
            (json!(1), json!("c"), json!(null)),
            (json!(1), json!(""), json!("stop")),
        ]
    );
}

#[tokio::test]
async fn a_failure_mid_stream_is_an_event() {
    for (fails, panics) in [(true, false), (false, true)] {
        let model = Mock {
            fails,
            panics,
            ..Mock::default()
        };
        let router = app(ServerConfig::default(), Some(model)).1;
        let body = json!({
            "model": "org/mock", "messages": [{"role": "user", "content": "ab"}], "stream": true,
        });
        let chunks = chunks(&events(&router, "/v1/chat/completions", body).await);
        let error = &chunks.last().unwrap()["error"];
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("server_error"), &json!("internal_error"))
        );
    }
}

#[tokio::test]
async fn bad_requests_get_a_status_even_when_streaming() {
    let body = json!({"model": "org/mock", "prompt": "a".repeat(100), "stream": true});
    let (status, error) = json(send(&default_router(), post("/v1/completions", body)).await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(error["error"]["code"], "context_length_exceeded");
}
