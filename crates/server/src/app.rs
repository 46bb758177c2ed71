//! Shared state, the route table and the layers around it.

use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::api_error::ApiError;
use crate::metrics::Metrics;
use crate::model::TextModel;
use crate::request::random_u64;
use crate::routes;
use crate::scheduler::Scheduler;
use crate::serve::ServerConfig;

/// What every route sees.
pub(crate) struct App {
    pub(crate) config: ServerConfig,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) scheduler: Scheduler,
    model: OnceLock<Loaded>,
}

/// The model, once it is there.
pub(crate) struct Loaded {
    pub(crate) model: Arc<dyn TextModel>,
    /// The model's own name, then its aliases.
    pub(crate) names: Vec<String>,
    /// Unix time of loading, in seconds.
    pub(crate) created: u64,
}

impl App {
    pub(crate) fn new(config: ServerConfig) -> Self {
        let metrics = Arc::new(Metrics::new());
        let scheduler = Scheduler::new(config.queue, metrics.clone());
        Self {
            config,
            metrics,
            scheduler,
            model: OnceLock::new(),
        }
    }

    /// Makes the model available; the first one stays.
    pub(crate) fn set_model(&self, model: Arc<dyn TextModel>) {
        let mut names = vec![model.id().to_owned()];
        for alias in &self.config.aliases {
            if !names.contains(alias) {
                names.push(alias.clone());
            }
        }
        self.model.get_or_init(|| Loaded {
            model,
            names,
            created: unix_time(),
        });
    }

    /// The model, or 503 while it is loading.
    pub(crate) fn loaded(&self) -> Result<&Loaded, ApiError> {
        self.model.get().ok_or_else(ApiError::loading)
    }

    /// The model under the name that a client gave.
    pub(crate) fn named(&self, name: &str) -> Result<&Loaded, ApiError> {
        let loaded = self.loaded()?;
        if loaded.names.iter().any(|served| served == name) {
            Ok(loaded)
        } else {
            Err(ApiError::model_not_found(name, &loaded.names))
        }
    }
}

/// Seconds since 1970.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// All routes. Only those under `/v1` ask for the key.
pub(crate) fn router(app: Arc<App>) -> Router {
    let api = Router::new()
        .route("/v1/chat/completions", post(routes::chat))
        .route("/v1/completions", post(routes::completions))
        .route("/v1/models", get(routes::list_models))
        .route("/v1/models/{*id}", get(routes::get_model))
        .route_layer(middleware::from_fn_with_state(app.clone(), check_key));
    Router::new()
        .route("/", get(routes::page))
        .route("/health", get(routes::health))
        .route("/metrics", get(routes::metrics))
        .merge(api)
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(trace))
        .with_state(app)
}

async fn no_route(method: Method, uri: Uri) -> ApiError {
    ApiError::no_route(method.as_str(), uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::wrong_method(method.as_str(), uri.path())
}

async fn check_key(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if let Some(key) = &app.config.api_key {
        let header = request.headers().get(header::AUTHORIZATION);
        let given = header.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if !given.is_some_and(|given| same(given, key.as_bytes())) {
            return ApiError::unauthorized().into_response();
        }
    }
    next.run(request).await
}

/// Equality whose time does not tell how much of the key was right.
fn same(given: &[u8], key: &[u8]) -> bool {
    let differing = given.iter().zip(key).fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == key.len() && std::hint::black_box(differing) == 0
}

/// Logs each request and gives it an id, which clients quote in bug reports.
async fn trace(request: Request, next: Next) -> Response {
    let id = format!("req_{:016x}", random_u64());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let started = Instant::now();
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let millis = started.elapsed().as_millis();
    tracing::info!(%id, %method, path, status, millis, "request");
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}
