//! The engine behind the routes, with random weights and without a tokenizer.

use serde_json::json;
use tritburn_engine::{Engine, EngineOptions, ModelConfig};

use super::*;
use crate::EngineModel;

fn router_over_engine() -> Router {
    let config: ModelConfig = serde_json::from_value(json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 50,
        "max_position_embeddings": 16,
    }))
    .unwrap();
    let options = EngineOptions {
        threads: Some(1),
        ..EngineOptions::default()
    };
    let engine = Engine::random(&config, 7, options).unwrap();
    let app = Arc::new(App::new(ServerConfig::default()));
    app.set_model(Arc::new(EngineModel::new("random", engine)));
    router(app)
}

#[tokio::test]
async fn token_prompts_are_continued_up_to_the_limit() {
    let router = router_over_engine();
    let body = json!({"model": "random", "prompt": [1, 2, 3], "max_tokens": 5, "seed": 3});
    let (status, answer) = json(send(&router, post("/v1/completions", body)).await).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8});
    assert_eq!(answer["usage"], usage);
    let metrics = text(send(&router, get("/metrics")).await).await;
    assert!(
        metrics.contains("\ntritburn_inter_token_latency_seconds_count 4\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn limits_at_their_ends_suit_the_engine() {
    let router = router_over_engine();
    for extra in [
        json!({"top_p": 0}),
        json!({"min_p": 1, "top_k": 1, "temperature": 2}),
        json!({"temperature": 0, "presence_penalty": -2, "frequency_penalty": -2}),
        json!({"repetition_penalty": 0.01}),
        json!({"repetition_penalty": 10, "top_k": i64::MAX}),
        json!({"max_tokens": 15}),
    ] {
        let mut body = json!({"model": "random", "prompt": [1], "max_tokens": 2});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let (status, answer) = json(send(&router, post("/v1/completions", body)).await).await;
        assert_eq!(status, StatusCode::OK, "{extra} gave {answer}");
    }
}

#[tokio::test]
async fn what_the_engine_refuses_is_the_clients_error() {
    let body = json!({"model": "random", "prompt": "text"});
    let response = send(&router_over_engine(), post("/v1/completions", body)).await;
    let (status, error) = json(response).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(error["error"]["code"], "invalid_prompt");
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("tokenizer.json")
    );
}
