//! Conversations as text.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};
use tritburn_quant::gguf::GgufFile;

use crate::error::{EngineError, Result};
use crate::gguf::token_texts;
use crate::tokenizer::{read_json, read_text};

/// Instructions that a template may take; one that loops without end is stopped here.
const FUEL: u64 = 5_000_000;
/// Bytes that a template may write; more than any context holds.
const MAX_TEXT: usize = 64 << 20;
/// Name of the template inside its environment, seen in error messages.
const NAME: &str = "chat_template";

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
    environment: Option<Environment<'static>>,
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
        let environment = source.map(environment).transpose()?;
        Ok(Self {
            environment,
            bos_token,
            eos_token,
        })
    }

    /// Whether the model has a template of its own.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.environment.is_some()
    }

    /// The text of `messages` up to where the assistant's turn begins.
    ///
    /// # Errors
    /// [`EngineError::ChatTemplate`] where the template refuses the messages or does not end.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<String> {
        let Some(environment) = &self.environment else {
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
        };
        let mut text = Bounded::default();
        let template = environment.get_template(NAME);
        // A template may run into an error of the library that evaluates it.
        let run = || template.and_then(|t| t.render_captured_to(values, &mut text).map(drop));
        let done = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
            let what = "it cannot be evaluated; is it written for other programs?";
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, what))
        });
        if text.full {
            return Err(EngineError::ChatTemplate(format!(
                "it writes more than {MAX_TEXT} bytes for this conversation"
            )));
        }
        done.map_err(|e| EngineError::ChatTemplate(e.to_string()))?;
        String::from_utf8(text.bytes).map_err(|e| EngineError::ChatTemplate(e.to_string()))
    }
}

/// What a template writes, up to [`MAX_TEXT`].
#[derive(Debug, Default)]
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.full |= bytes.len() > MAX_TEXT - self.bytes.len();
        if self.full {
            return Err(io::Error::other("too long"));
        }
        self.bytes.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An environment that behaves as the one of transformers.
fn environment(source: String) -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function(
        "raise_exception",
        |message: String| -> std::result::Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment.add_template_owned(NAME, source)?;
    Ok(environment)
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn messages() -> Vec<ChatMessage> {
        let turn = |role: &str, content: &str| ChatMessage {
            role: role.into(),
            content: content.into(),
        };
        vec![turn("system", " Be brief. "), turn("user", "Hi")]
    }

    fn render(source: &str) -> Result<String> {
        let template = ChatTemplate::new(Some(source.into()), "<s>".into(), "</s>".into());
        template.unwrap().render(&messages())
    }

    #[test]
    fn templates_written_for_python_run() {
        let text = render(
            "{{ bos_token }}{% for m in messages %}\n    {% if m['role'] == 'user' %}\n\
             [{{ m['content'].strip() }}]\n    {% else %}\n({{ m.content | trim }})\n    \
             {% endif %}\n{% endfor %}\n{% if add_generation_prompt %}>{% endif %}",
        );
        assert_eq!(text.unwrap(), "<s>(Be brief.)\n[Hi]\n>");
    }

    #[test]
    fn refusals_and_endless_loops_are_errors() {
        let error = render("{{ raise_exception('no system turn') }}").unwrap_err();
        assert!(error.to_string().contains("no system turn"), "{error}");
        let long = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(matches!(render(long), Err(EngineError::ChatTemplate(_))));
        let grows = "{% set x = 'x' * 9999 %}{% for i in range(9999) %}{{ x }}{% endfor %}";
        let error = render(grows).unwrap_err().to_string();
        assert!(error.contains("more than"), "{error}");
        // The library reaches past the end of what it turns around twice.
        let error = render("{% for m in nothing[::-1][::-1] %}{% endfor %}").unwrap_err();
        assert!(error.to_string().contains("evaluated"), "{error}");
        assert!(ChatTemplate::new(Some("{% if %}".into()), "".into(), "".into()).is_err());
    }

    #[test]
    fn without_a_template_turns_are_lines() {
        let text = ChatTemplate::default().render(&messages()).unwrap();
        assert_eq!(text, "System:  Be brief. \nUser: Hi\nAssistant:");
    }

    #[test]
    fn templates_and_tokens_in_all_their_forms() {
        let config = serde_json::json!({
            "chat_template": [{"name": "tool_use", "template": "x"},
                              {"name": "default", "template": "y"}],
            "bos_token": {"content": "<s>"},
        });
        assert_eq!(template_of(&config).as_deref(), Some("y"));
        assert_eq!(token_of(&config["bos_token"]), "<s>");
        assert_eq!(token_of(&config["eos_token"]), "");
        assert_eq!(template_of(&serde_json::Value::Null), None);
    }
}
