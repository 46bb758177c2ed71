//! Request bodies, within limits of size and time.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use tokio_stream::StreamExt;

use crate::api_error::ApiError;
use crate::request::Fields;

/// A body that takes longer than this to arrive is given up.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A body over the limit is read on and thrown away up to this many bytes: most clients look for
/// the answer only once they have sent everything.
const DISCARD: u64 = 64 << 20;

/// Reads a JSON object of at most `limit` bytes.
pub(crate) async fn read_json(request: Request, limit: usize) -> Result<Fields, ApiError> {
    let json = is_json(request.headers());
    let bytes = tokio::time::timeout(TIMEOUT, read(request, limit))
        .await
        .map_err(|_| ApiError::slow_body(TIMEOUT.as_secs()))??;
    let fields = Fields::parse(&bytes)?;
    // A page of another origin can post JSON only under another content type, unless the
    // browser asks first, and this server gives no such permission.
    if json {
        Ok(fields)
    } else {
        Err(ApiError::not_json())
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

async fn read(request: Request, limit: usize) -> Result<Vec<u8>, ApiError> {
    let limit_bytes = limit as u64;
    let discard = DISCARD.max(limit_bytes);
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > discard) {
        return Err(ApiError::body_too_large(limit));
    }
    let mut stream = request.into_body().into_data_stream();
    let (mut bytes, mut total) = (Vec::new(), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk
            .map_err(|error| ApiError::bad_request(format!("cannot read the body: {error}")))?;
        total += chunk.len() as u64;
        if total <= limit_bytes {
            bytes.extend_from_slice(&chunk);
        } else if total > discard {
            break;
        }
    }
    if total > limit_bytes {
        Err(ApiError::body_too_large(limit))
    } else {
        Ok(bytes)
    }
}
