//! Conversations as text.

mod json;
mod meter;
mod program;

use std::path::Path;

use minijinja::{Environment, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};
use tritburn_quant::gguf::GgufFile;

use crate::error::{EngineError, Result};
use crate::gguf::token_texts;
use crate::tokenizer::{read_json, read_text};
use program::Program;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text of the turn.
    pub content: String,
}

/// The Jinja template of a model, or a plain form where it has none.
///
/// The plain form is a line `Role: content` for each turn and then `Assistant:`.
#[derive(Debug, Clone, Default)]
pub struct ChatTemplate {
    program: Option<Program>,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// Reads the template from `chat_template.jinja` or `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`] where a file is malformed or the template does not parse.
    pub fn load(folder: &Path) -> Result<Self> {
        let config_path = folder.join("tokenizer_config.json");
        let config = if config_path.exists() {
            read_json(&config_path)?
        } else {
            serde_json::Value::Null
        };
        let jinja = folder.join("chat_template.jinja");
        let (path, source) = if jinja.exists() {
            (jinja.clone(), Some(read_text(&jinja)?))
        } else {
            (config_path, template_of(&config))
        };
        let this = Self::new(
            source,
            token_of(&config["bos_token"]),
            token_of(&config["eos_token"]),
        );
        this.map_err(|e| EngineError::Tokenizer {
            path,
            message: format!("the chat template does not parse: {e}"),
        })
    }

    /// The template in a GGUF file.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`] where it does not parse.
    pub(crate) fn of_gguf(file: &GgufFile) -> Result<Self> {
        let error = |message| EngineError::Tokenizer {
            path: file.path().to_path_buf(),
            message,
        };
        let [bos, eos] = token_texts(file).map_err(|e| error(e.to_string()))?;
        let source = file.text("tokenizer.chat_template")?.map(str::to_owned);
        Self::new(source, bos, eos)
            .map_err(|e| error(format!("the chat template does not parse: {e}")))
    }

    fn new(
        source: Option<String>,
        bos_token: String,
        eos_token: String,
    ) -> std::result::Result<Self, minijinja::Error> {
        let program = source.map(|source| Program::new(&source, environment()));
        Ok(Self {
            program: program.transpose()?,
            bos_token,
            eos_token,
        })
    }

    /// Whether the model has a template of its own.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.program.is_some()
    }

    /// The text of `messages` up to where the assistant's turn begins.
    ///
    /// # Errors
    /// [`EngineError::ChatTemplate`] where the template refuses the messages, does not end, or takes
    /// more memory than any conversation needs.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<String> {
        let Some(program) = &self.program else {
            return Ok(plain(messages));
        };
        let turns = messages.iter().map(|m| {
            Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())])
        });
        let values = context! {
            messages => turns.collect::<Value>(),
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
            add_generation_prompt => true,
            // Templates ask whether these are none, which what is not defined is not.
            tools => (),
            documents => (),
        };
        let text = program.run(values);
        text.map_err(|e| EngineError::ChatTemplate(e.to_string()))
    }
}

/// Functions and methods as in transformers.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", json::tojson);
    environment.add_function(
        "raise_exception",
        |message: String| -> std::result::Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment
}

/// `chat_template`: a text, or a list of named ones of which `default` counts.
fn template_of(config: &serde_json::Value) -> Option<String> {
    let template = &config["chat_template"];
    let named = template.as_array().and_then(|list| {
        let default = list.iter().find(|t| t["name"] == "default");
        default.and_then(|t| t["template"].as_str())
    });
    template.as_str().or(named).map(str::to_owned)
}

/// A special token: a text, or an object with the text in `content`.
fn token_of(value: &serde_json::Value) -> String {
    let text = value.as_str().or_else(|| value["content"].as_str());
    text.unwrap_or_default().to_owned()
}

fn plain(messages: &[ChatMessage]) -> String {
    let mut text = String::new();
    for message in messages {
        let mut role = message.role.chars();
        let first = role.next().into_iter().flat_map(char::to_uppercase);
        text.extend(first.chain(role));
        text.push_str(": ");
        text.push_str(&message.content);
        text.push('\n');
    }
    text + "Assistant:"
}

#[cfg(test)]
mod bounds_tests;
#[cfg(test)]
mod tests;
