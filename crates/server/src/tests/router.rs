//! Whole answers, field by field.

use serde_json::json;

use super::*;
use tritburn_engine::ChatMessage;

#[tokio::test]
async fn chat_answers_with_usage() {
    let body = json!({"model": "org/mock", "messages": [{"role": "user", "content": "abc"}]});
    let (status, answer) =
        json(send(&default_router(), post("/v1/chat/completions", body)).await).await;
    assert_eq!(status, StatusCode::OK);
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(answer["model"], "org/mock");
    assert_eq!(
        answer["choices"],
        json!([{
            "index": 0,
            "message": {"role": "assistant", "content": "cba", "refusal": null},
            "logprobs": null,
            "finish_reason": "stop",
        }])
    );
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6});
    assert_eq!(answer["usage"], usage);
}

#[tokio::test]
async fn fields_reach_the_model() {
    let model = Mock::default();
    let log = model.log.clone();
    let router = app(ServerConfig::default(), Some(model)).1;
    let body = json!({
        "model": "org/mock",
        "messages": [
            {"role": "developer", "content": "be brief"},
            {"role": "assistant", "content": "yes", "refusal": null, "tool_calls": null},
            {"role": "user", "content": [
                {"type": "text", "text": "one"},
                {"type": "text", "text": "two"},
            ]},
        ],
        "max_completion_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05,
        "repetition_penalty": 1.5, "presence_penalty": -1, "frequency_penalty": 2, "seed": -1,
        "stop": ["!", "?"], "n": 1, "user": "someone", "logprobs": false, "tools": null,
        "response_format": {"type": "text"}, "stream": false,
    });
    let (status, answer) = json(send(&router, post("/v1/chat/completions", body)).await).await;
    assert_eq!(
        (status, &answer["choices"][0]["finish_reason"]),
        (StatusCode::OK, &json!("length"))
    );
    let turn = |role: &str, content: &str| ChatMessage {
        role: role.into(),
        content: content.into(),
    };
    assert_eq!(
        *log.last_messages.lock().unwrap(),
        [
            turn("system", "be brief"),
            turn("assistant", "yes"),
            turn("user", "one\ntwo")
        ]
    );
    let params = log.last_params.lock().unwrap().clone().unwrap();
    assert_eq!(
        (params.max_tokens, params.stop),
        (5, vec!["!".to_owned(), "?".to_owned()])
    );
    let sampling = params.sampling;
    assert_eq!(
        (sampling.temperature, sampling.top_p, sampling.min_p),
        (0.5, 0.9, 0.05)
    );
    assert_eq!((sampling.top_k, sampling.seed), (Some(40), u64::MAX));
    assert_eq!(
        (
            sampling.repetition_penalty,
            sampling.presence_penalty,
            sampling.frequency_penalty
        ),
        (1.5, -1.0, 2.0)
    );
}

#[tokio::test]
async fn a_request_without_limits_gets_the_rest_of_the_context_and_a_fresh_seed() {
    let model = Mock::default();
    let log = model.log.clone();
    let router = app(ServerConfig::default(), Some(model)).1;
    let body = json!({"model": "org/mock", "messages": [{"role": "user", "content": "abcd"}]});
    let mut seeds = Vec::new();
    for _ in 0..2 {
        send(&router, post("/v1/chat/completions", &body)).await;
        let params = log.last_params.lock().unwrap().clone().unwrap();
        assert_eq!(params.max_tokens, 60);
        seeds.push(params.sampling.seed);
    }
    assert_ne!(seeds[0], seeds[1]);
}

#[tokio::test]
async fn completions_take_every_form_of_prompt() {
    for (prompt, texts) in [
        (json!("ab"), vec!["ba"]),
        (json!(["ab", "xyz"]), vec!["ba", "zyx"]),
        (json!([97, 98]), vec!["ba"]),
        (json!([[97, 98], [99]]), vec!["ba", "c"]),
    ] {
        let body = json!({"model": "org/mock", "prompt": prompt});
        let (status, answer) =
            json(send(&default_router(), post("/v1/completions", body)).await).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["object"], "text_completion");
        assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
        let choices = answer["choices"].as_array().unwrap();
        let got: Vec<_> = choices
            .iter()
            .map(|c| c["text"].as_str().unwrap())
            .collect();
        assert_eq!(got, texts);
        let tokens: usize = texts.iter().map(|text| text.len()).sum();
        assert_eq!(answer["usage"]["completion_tokens"], tokens);
        assert_eq!(answer["usage"]["total_tokens"], 2 * tokens);
    }
}

#[tokio::test]
async fn completions_stop_where_told() {
    for (extra, text, reason) in [
        (json!({}), "ponmlkjihgfedcba", "length"),
        (json!({"max_tokens": 2}), "po", "length"),
        (json!({"stop": "n"}), "po", "stop"),
        (json!({"stop": ["n", "x"]}), "po", "stop"),
    ] {
        let mut body = json!({"model": "org/mock", "prompt": "_abcdefghijklmnop"});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let (_, answer) = json(send(&default_router(), post("/v1/completions", body)).await).await;
        assert_eq!(answer["choices"][0]["text"], text);
        assert_eq!(answer["choices"][0]["finish_reason"], reason);
    }
}

#[tokio::test]
async fn models_are_listed_and_found_by_alias() {
    let config = ServerConfig {
        aliases: vec!["gpt-x".to_owned()],
        ..ServerConfig::default()
    };
    let router = app(config, Some(Mock::default())).1;
    let (status, list) = json(send(&router, get("/v1/models")).await).await;
    assert_eq!((status, &list["object"]), (StatusCode::OK, &json!("list")));
    let ids: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["id"])
        .collect();
    assert_eq!(ids, ["org/mock", "gpt-x"]);
    for id in ["org/mock", "org%2Fmock", "gpt-x"] {
        let (status, model) = json(send(&router, get(&format!("/v1/models/{id}"))).await).await;
        assert_eq!(
            (status, &model["object"]),
            (StatusCode::OK, &json!("model")),
            "{id}"
        );
    }
    let body = json!({"model": "gpt-x", "prompt": "ab"});
    let (status, answer) = json(send(&router, post("/v1/completions", body)).await).await;
    assert_eq!(
        (status, &answer["model"]),
        (StatusCode::OK, &json!("gpt-x"))
    );
}

#[tokio::test]
async fn health_waits_for_the_model() {
    let (app, router) = app(ServerConfig::default(), None);
    assert_eq!(
        json(send(&router, get("/health")).await).await,
        (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({"status": "loading"})
        )
    );
    let body = json!({"model": "org/mock", "prompt": "ab"});
    let (status, error) = json(send(&router, post("/v1/completions", body)).await).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error["error"]["code"], "model_loading");
    app.set_model(Arc::new(Mock::default()));
    assert_eq!(
        json(send(&router, get("/health")).await).await,
        (StatusCode::OK, json!({"status": "ok"}))
    );
}

#[tokio::test]
async fn metrics_count_tokens_and_latencies() {
    let router = default_router();
    let body = json!({"model": "org/mock", "prompt": ["abc", "de"]});
    send(&router, post("/v1/completions", body)).await;
    let metrics = text(send(&router, get("/metrics")).await).await;
    for line in [
        "tritburn_prompt_tokens_total 5",
        "tritburn_generation_tokens_total 5",
        "tritburn_time_to_first_token_seconds_count 1",
        "tritburn_inter_token_latency_seconds_count 3",
        "# TYPE tritburn_time_to_first_token_seconds histogram",
        "# TYPE tritburn_num_requests_running gauge",
    ] {
        assert!(
            metrics.lines().any(|l| l == line),
            "no `{line}` in\n{metrics}"
        );
    }
}

#[tokio::test]
async fn the_page_is_one_file() {
    let response = send(&default_router(), get("/")).await;
    assert_eq!(
        response.headers()["content-type"],
        "text/html; charset=utf-8"
    );
    let page = text(response).await;
    assert!(page.contains("v1/chat/completions"));
    assert!(
        !page.contains("src=") && !page.contains("href="),
        "loads something from elsewhere"
    );
}
