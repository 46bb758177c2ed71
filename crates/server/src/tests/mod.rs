#![allow(clippy::unwrap_used)]

mod bad_fields;
mod bad_input;
mod engine;
mod loopback;
mod mock;
mod queue;
mod router;
mod streaming;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use serde_json::Value;
use tower::ServiceExt;

use crate::ServerConfig;
use crate::app::{App, router};
use mock::Mock;

/// A router over a mock; `None` leaves the model out, as while loading.
fn app(config: ServerConfig, model: Option<Mock>) -> (Arc<App>, Router) {
    let app = Arc::new(App::new(config));
    if let Some(model) = model {
        app.set_model(Arc::new(model));
    }
    (app.clone(), router(app))
}

fn default_router() -> Router {
    app(ServerConfig::default(), Some(Mock::default())).1
}

async fn send(router: &Router, request: Request<Body>) -> Response {
    router.clone().oneshot(request).await.unwrap()
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post(path: &str, body: impl ToString) -> Request<Body> {
    Request::post(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

async fn text(response: Response) -> String {
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn json(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let body = text(response).await;
    (
        status,
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("not JSON: {body}")),
    )
}

/// Polls until `condition` holds; fails after ten seconds.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "did not happen: {what}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
