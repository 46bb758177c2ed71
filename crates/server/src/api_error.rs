//! Errors as OpenAI clients expect them: `{"error":{"message","type","param","code"}}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::error::Error;

/// An error that a client sees.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// 400 about the body as a whole.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 400 for a field that is missing.
    pub(crate) fn missing(param: &str) -> Self {
        Self::bad_request(format!("`{param}` is required"))
            .param(param)
            .code("missing_required_parameter")
    }

    /// 400 for a field of the wrong type.
    pub(crate) fn wrong_type(param: &str, expected: &str) -> Self {
        Self::bad_request(format!("`{param}` must be {expected}"))
            .param(param)
            .code("invalid_type")
    }

    /// 400 for a field of the right type and a wrong value.
    pub(crate) fn wrong_value(param: &str, expected: &str) -> Self {
        Self::bad_request(format!("`{param}` must be {expected}"))
            .param(param)
            .code("invalid_value")
    }

    /// 400 for a field of the API that this server cannot honour.
    pub(crate) fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self::bad_request(message)
            .param(param)
            .code("unsupported_parameter")
    }

    /// 400 for a field that the API does not have.
    pub(crate) fn unknown_field(param: &str) -> Self {
        Self::bad_request(format!(
            "unrecognised request argument `{param}`; leave it out"
        ))
        .param(param)
        .code("unknown_parameter")
    }

    /// 400 for a prompt that leaves no room to answer.
    pub(crate) fn context_too_long(param: &str, message: String) -> Self {
        Self::bad_request(message)
            .param(param)
            .code("context_length_exceeded")
    }

    /// 401 for a missing or wrong key.
    pub(crate) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "authentication_error",
            "missing or wrong API key; send it as `Authorization: Bearer KEY`",
        )
        .code("invalid_api_key")
    }

    /// 404 for a model that is not served here.
    pub(crate) fn model_not_found(asked: &str, served: &[String]) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            format!(
                "the model `{asked}` is not served here; served: {}",
                served.join(", ")
            ),
        )
        .param("model")
        .code("model_not_found")
    }

    /// 404 for a path without a route.
    pub(crate) fn no_route(method: &str, path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            format!("no such route: {method} {path}"),
        )
        .code("unknown_url")
    }

    /// 405 for a path that has a route by another method.
    pub(crate) fn wrong_method(method: &str, path: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            format!("{path} does not take {method}"),
        )
        .code("method_not_allowed")
    }

    /// 408 for a body that does not arrive.
    pub(crate) fn slow_body(seconds: u64) -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request_error",
            format!("the request body did not arrive within {seconds} s"),
        )
        .code("request_timeout")
    }

    /// 413 for a body over the limit.
    pub(crate) fn body_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            format!("the request body is larger than {limit} bytes"),
        )
        .code("request_too_large")
    }

    /// 415 for a body that is not declared as JSON.
    pub(crate) fn not_json() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid_request_error",
            "send the header `Content-Type: application/json`",
        )
        .code("unsupported_content_type")
    }

    /// 429 when the queue is full.
    pub(crate) fn queue_full(queue: usize) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_error",
            format!("one request is running and {queue} are waiting; try again later"),
        )
        .code("queue_full")
    }

    /// 503 before the model is there.
    pub(crate) fn loading() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            "the model is still loading",
        )
        .code("model_loading")
    }

    /// 503 once the server is on its way out.
    pub(crate) fn shutting_down() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            "the server is shutting down",
        )
        .code("shutting_down")
    }

    /// 500 with the reason.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message).code("internal_error")
    }

    /// The body, also sent as an event when a stream has already begun.
    pub(crate) fn body(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }})
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Prompt { message } => Self::bad_request(message).code("invalid_prompt"),
            other => {
                tracing::error!(error = %other, "request failed");
                Self::internal(other.to_string())
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
