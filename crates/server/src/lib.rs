//! OpenAI-compatible HTTP server over any [`TextModel`], normally the tritburn engine.
//!
//! | route | answer |
//! |---|---|
//! | `POST /v1/chat/completions` | chat, whole or streamed as server-sent events |
//! | `POST /v1/completions` | completion of text or token prompts |
//! | `GET /v1/models`, `GET /v1/models/{id}` | the served model and its aliases |
//! | `GET /health` | 503 while loading, then `{"status":"ok"}` |
//! | `GET /metrics` | Prometheus text, prefix `tritburn_` |
//! | `GET /` | a small chat page |
//!
//! One request generates at a time; the others wait in a bounded queue and get 429 when it is
//! full. A client that leaves takes its request with it. A field that this server cannot honour
//! is refused by name, never ignored.
//!
//! [`EngineModel`] is the engine as a [`TextModel`]. [`run`] blocks until SIGINT or SIGTERM; [`serve`] is the same for a caller with its own
//! runtime and signal; [`spawn`] serves from a background thread.

mod api_error;
mod app;
mod body;
mod error;
mod metrics;
mod model;
mod request;
mod response;
mod routes;
mod scheduler;
mod serve;
mod stream;

#[cfg(test)]
mod tests;

pub use error::{BoxError, Error};
pub use model::{EngineModel, TextModel};
pub use serve::{Handle, ServerConfig, run, serve, spawn};
