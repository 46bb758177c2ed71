//! What the server needs of a model.

use std::ops::ControlFlow;

use crate::error::Error;
use crate::generation::{Event, Generation, GenerationParams};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text of the turn.
    pub content: String,
}

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
    /// [`Error::Model`] when the tokenizer fails.
    fn encode_text(&self, text: &str) -> Result<Vec<u32>, Error>;

    /// Continues `prompt`, telling `on_event` of each piece of text as it comes; `Break` ends it.
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
