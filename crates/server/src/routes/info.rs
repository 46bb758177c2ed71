//! Routes that only report.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};

use crate::api_error::ApiError;
use crate::app::{App, Loaded};

/// `GET /health`
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    match app.loaded() {
        Ok(_) => Json(json!({"status": "ok"})).into_response(),
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"status": "loading"})),
        )
            .into_response(),
    }
}

/// `GET /metrics`
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], app.metrics.render()).into_response()
}

/// `GET /v1/models`
pub(crate) async fn list_models(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let loaded = app.loaded()?;
    let data: Vec<Value> = loaded
        .names
        .iter()
        .map(|name| model_json(name, loaded))
        .collect();
    Ok(Json(json!({"object": "list", "data": data})))
}

/// `GET /v1/models/{id}`; the id may hold slashes.
pub(crate) async fn get_model(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let loaded = app.named(&id)?;
    Ok(Json(model_json(&id, loaded)))
}

fn model_json(name: &str, loaded: &Loaded) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": loaded.created,
        "owned_by": "tritburn",
        "max_model_len": loaded.model.max_context(),
    })
}

/// `GET /`: one file, which loads nothing from elsewhere.
pub(crate) async fn page() -> Response {
    let policy = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; \
                  style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
    let headers = [(header::CONTENT_SECURITY_POLICY, policy)];
    (headers, Html(include_str!("../chat.html"))).into_response()
}
