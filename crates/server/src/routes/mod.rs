//! The handlers.

mod completions;
mod info;

pub(crate) use completions::{chat, completions};
pub(crate) use info::{get_model, health, list_models, metrics, page};
