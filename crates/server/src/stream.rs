//! Server-sent events of one answer.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::response::sse::Event;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::Stream;

use crate::api_error::ApiError;
use crate::response::Answer;
use crate::scheduler::Update;

/// Turns updates into events; ends with `[DONE]`.
///
/// Dropping it, as happens when the client leaves, drops the receiver and so cancels the request.
pub(crate) struct ChunkStream {
    answer: Answer,
    include_usage: bool,
    updates: mpsc::UnboundedReceiver<Update>,
    ready: VecDeque<Event>,
    ended: bool,
}

impl ChunkStream {
    pub(crate) fn new(
        answer: Answer,
        include_usage: bool,
        updates: mpsc::UnboundedReceiver<Update>,
    ) -> Self {
        let mut stream = Self {
            answer,
            include_usage,
            updates,
            ready: VecDeque::new(),
            ended: false,
        };
        if let Some(chunk) = stream.answer.opening_chunk() {
            stream.push(chunk);
        }
        stream
    }

    fn push(&mut self, mut chunk: Value) {
        // `usage` is in every chunk, null but for the last, exactly when it was asked for.
        if !self.include_usage
            && let Some(object) = chunk.as_object_mut()
        {
            object.shift_remove("usage");
        }
        self.ready
            .push_back(Event::default().data(chunk.to_string()));
    }

    fn end(&mut self) {
        self.ready.push_back(Event::default().data("[DONE]"));
        self.ended = true;
    }

    fn update(&mut self, update: Update) {
        match update {
            Update::Text { index, text } => {
                let chunk = self.answer.text_chunk(index, &text);
                self.push(chunk);
            }
            Update::Done {
                index,
                finish_reason,
            } => {
                let chunk = self.answer.closing_chunk(index, finish_reason);
                self.push(chunk);
            }
            Update::Usage(usage) => {
                if self.include_usage {
                    let chunk = self.answer.usage_chunk(usage);
                    self.push(chunk);
                }
                self.end();
            }
            Update::Failed(error) => self.fail(&error),
        }
    }

    /// The status line is long gone, so the error travels as an event.
    fn fail(&mut self, error: &ApiError) {
        self.ready
            .push_back(Event::default().data(error.body().to_string()));
        self.end();
    }
}

impl Stream for ChunkStream {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match self.updates.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(update)) => self.update(update),
                Poll::Ready(None) => self.fail(&lost()),
            }
        }
    }
}

/// For a generation whose thread went away without a last word.
pub(crate) fn lost() -> ApiError {
    ApiError::internal("the generation ended unexpectedly; see the server's log")
}
