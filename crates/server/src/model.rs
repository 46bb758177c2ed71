//! What the server needs of a model, and the engine as such a model.

use std::ops::ControlFlow;

use tritburn_engine::{ChatMessage, Engine, EngineError, Event, Generation, GenerationParams};

use crate::error::Error;

/// A loaded model that turns prompts into text.
///
/// Object safe, and without HTTP, so that the routes can be tested with a mock.
pub trait TextModel: Send + Sync {
    /// Name under which the model is served.
    fn id(&self) -> &str;

    /// Most tokens that prompt and completion may have together.
    fn max_context(&self) -> usize;

    /// Token ids run from 0 up to this number.
    fn vocab_size(&self) -> usize;

    /// Tokens of a conversation, up to where the assistant's turn begins.
    ///
    /// # Errors
    /// [`Error::Prompt`] when the chat template refuses the messages, [`Error::Model`] otherwise.
    fn encode_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, Error>;

    /// Tokens of plain text, with the tokens that start a document.
    ///
    /// # Errors
    /// [`Error::Prompt`] when the tokenizer refuses the text, [`Error::Model`] otherwise.
    fn encode_text(&self, text: &str) -> Result<Vec<u32>, Error>;

    /// Continues `prompt`, telling `on_event` of every step; `Break` ends it.
    ///
    /// # Errors
    /// [`Error::Prompt`] when the prompt cannot be served, [`Error::Model`] when the model fails.
    fn generate(
        &self,
        prompt: &[u32],
        params: &GenerationParams,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, Error>;
}

/// The engine under a name.
#[derive(Debug)]
pub struct EngineModel {
    id: String,
    engine: Engine,
}

impl EngineModel {
    /// Serves `engine` as `id`.
    pub fn new(id: impl Into<String>, engine: Engine) -> Self {
        Self {
            id: id.into(),
            engine,
        }
    }
}

impl TextModel for EngineModel {
    fn id(&self) -> &str {
        &self.id
    }

    fn max_context(&self) -> usize {
        self.engine.config().max_position_embeddings
    }

    fn vocab_size(&self) -> usize {
        self.engine.config().vocab_size
    }

    fn encode_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, Error> {
        Ok(self.engine.encode_chat(messages)?)
    }

    fn encode_text(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.engine.encode(text, true)?)
    }

    fn generate(
        &self,
        prompt: &[u32],
        params: &GenerationParams,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, Error> {
        Ok(self.engine.generate(prompt, params, on_event)?)
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        match error {
            // What a client can cause.
            EngineError::NoTokenizer
            | EngineError::Encode(_)
            | EngineError::ChatTemplate(_)
            | EngineError::EmptyPrompt
            | EngineError::TokenOutOfRange { .. }
            | EngineError::ContextTooLong { .. }
            | EngineError::Parameter { .. } => Self::Prompt {
                message: error.to_string(),
            },
            other => Self::Model {
                source: other.into(),
            },
        }
    }
}
