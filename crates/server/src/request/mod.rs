//! Reading of request bodies: every field is checked, and none is dropped unread.

mod chat;
mod completion;
mod fields;
mod options;

pub(crate) use chat::ChatRequest;
pub(crate) use completion::{CompletionRequest, Prompt};
pub(crate) use fields::Fields;
pub(crate) use options::{Options, random_u64};
