//! The two routes that generate.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;

use crate::api_error::ApiError;
use crate::app::{App, unix_time};
use crate::body::read_json;
use crate::error::Error;
use crate::model::TextModel;
use crate::request::{ChatRequest, CompletionRequest, Options, Prompt, random_u64};
use crate::response::{Answer, Choice, Kind};
use crate::scheduler::{Job, Update};
use crate::stream::{ChunkStream, lost};

/// `POST /v1/chat/completions`
pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let fields = read_json(request, app.config.max_body_bytes).await?;
    app.loaded()?;
    let ChatRequest { options, messages } = ChatRequest::read(fields, &app.config.sampling)?;
    let encode = move |model: &dyn TextModel| Ok(vec![model.encode_chat(&messages)?]);
    answer(&app, Kind::Chat, options, encode).await
}

/// `POST /v1/completions`
pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let fields = read_json(request, app.config.max_body_bytes).await?;
    app.loaded()?;
    let CompletionRequest { options, prompts } =
        CompletionRequest::read(fields, &app.config.sampling)?;
    let encode = move |model: &dyn TextModel| {
        let encode = |prompt| match prompt {
            Prompt::Text(text) => model.encode_text(&text),
            Prompt::Tokens(tokens) => Ok(tokens),
        };
        prompts.into_iter().map(encode).collect()
    };
    answer(&app, Kind::Text, options, encode).await
}

async fn answer(
    app: &App,
    kind: Kind,
    options: Options,
    encode: impl FnOnce(&dyn TextModel) -> Result<Vec<Vec<u32>>, Error> + Send + 'static,
) -> Result<Response, ApiError> {
    let model = app.named(&options.model)?.model.clone();
    // The place comes before the tokenizing, so that the queue bounds that work too.
    let place = app.scheduler.admit()?;
    let encoder = model.clone();
    let prompts = tokio::task::spawn_blocking(move || encode(encoder.as_ref()))
        .await
        .map_err(|_| ApiError::internal("the tokenizer failed; see the server's log"))??;
    let param = if kind == Kind::Chat {
        "messages"
    } else {
        "prompt"
    };
    let jobs = prompts
        .into_iter()
        .map(|prompt| job(model.as_ref(), prompt, &options, param))
        .collect::<Result<Vec<_>, _>>()?;
    let choices = jobs.len();
    let prefix = if kind == Kind::Chat {
        "chatcmpl"
    } else {
        "cmpl"
    };
    let answer = Answer {
        kind,
        id: format!("{prefix}-{:016x}{:016x}", random_u64(), random_u64()),
        created: unix_time(),
        model: options.model,
    };
    let updates = app.scheduler.start(place, model, jobs);
    if options.stream {
        let chunks = ChunkStream::new(answer, options.include_usage, updates);
        Ok(Sse::new(chunks)
            .keep_alive(KeepAlive::default())
            .into_response())
    } else {
        whole(answer, choices, updates).await
    }
}

/// Checks a prompt against the model and settles how many tokens may come.
fn job(
    model: &dyn TextModel,
    prompt: Vec<u32>,
    options: &Options,
    param: &str,
) -> Result<Job, ApiError> {
    if prompt.is_empty() {
        return Err(ApiError::wrong_value(param, "at least one token long"));
    }
    let vocab = model.vocab_size();
    if let Some(id) = prompt.iter().find(|id| **id as usize >= vocab) {
        let expected = format!("made of token ids below {vocab}, the vocabulary's size; got {id}");
        return Err(ApiError::wrong_value(param, &expected));
    }
    let (length, context) = (prompt.len(), model.max_context());
    let room = context.saturating_sub(length);
    let max_tokens = options.max_tokens.unwrap_or(room.max(1));
    if max_tokens > room {
        let message = format!(
            "the model's context is {context} tokens, but the prompt has {length} and the answer \
             was to have up to {max_tokens}; shorten the prompt or lower the token limit"
        );
        return Err(ApiError::context_too_long(param, message));
    }
    Ok(Job {
        prompt,
        params: options.generation(max_tokens),
    })
}

async fn whole(
    answer: Answer,
    choices: usize,
    mut updates: mpsc::UnboundedReceiver<Update>,
) -> Result<Response, ApiError> {
    let mut choices = vec![Choice::default(); choices];
    while let Some(update) = updates.recv().await {
        match update {
            Update::Text { index, text } => choices[index].text.push_str(&text),
            Update::Done {
                index,
                finish_reason,
            } => choices[index].finish_reason = finish_reason,
            Update::Usage(usage) => return Ok(Json(answer.whole(&choices, usage)).into_response()),
            Update::Failed(error) => return Err(error),
        }
    }
    Err(lost())
}
