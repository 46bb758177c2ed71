//! `{column}` placeholders in prompt templates, and `{column|full_stop}` for a text that is to end
//! in one.

use std::borrow::Cow;

use crate::error::{DataError, Result};

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(String, Filter),
}

/// What is done to a column's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    None,
    /// Trimmed, with a full stop behind it unless there is one.
    FullStop,
}

impl Filter {
    fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::None => Cow::Borrowed(text),
            Self::FullStop if text.trim().ends_with('.') => Cow::Borrowed(text.trim()),
            Self::FullStop => Cow::Owned(format!("{}.", text.trim())),
        }
    }
}

/// A template whose placeholders are matched with columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BoundTemplate {
    source: String,
    parts: Vec<BoundPart>,
    columns: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum BoundPart {
    Text(String),
    Column(usize, Filter),
}

impl Template {
    /// Parses a template; `{{` and `}}` stand for single braces.
    ///
    /// # Errors
    /// If a brace has no partner or a placeholder is empty.
    pub(crate) fn parse(source: &str) -> Result<Self> {
        let fault = |message: String| DataError::Template {
            template: source.to_owned(),
            message,
        };
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut chars = source.char_indices().peekable();
        while let Some((at, char)) = chars.next() {
            match char {
                '{' | '}' if chars.peek().is_some_and(|&(_, next)| next == char) => {
                    chars.next();
                    text.push(char);
                }
                '{' => {
                    let rest = &source[at + 1..];
                    let name = rest
                        .split_once('}')
                        .map(|(name, _)| name)
                        .filter(|name| !name.contains('{'))
                        .ok_or_else(|| {
                            fault(format!(
                                "\"{{\" at byte {at} is not closed; write {{{{ for a brace"
                            ))
                        })?;
                    if name.trim().is_empty() {
                        return Err(fault(format!("empty placeholder at byte {at}")));
                    }
                    if !text.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut text)));
                    }
                    let (column, filter) = match name.split_once('|') {
                        None => (name, Filter::None),
                        Some((column, filter)) if filter.trim() == "full_stop" => {
                            (column, Filter::FullStop)
                        }
                        Some((_, filter)) => {
                            return Err(fault(format!(
                                "unknown filter \"{}\" at byte {at}; there is full_stop",
                                filter.trim()
                            )));
                        }
                    };
                    parts.push(Part::Column(column.trim().to_owned(), filter));
                    while chars
                        .next_if(|&(next, _)| next <= at + 1 + name.len())
                        .is_some()
                    {}
                }
                '}' => {
                    return Err(fault(format!(
                        "\"}}\" at byte {at} was not opened; write }}}} for a brace"
                    )));
                }
                _ => text.push(char),
            }
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Self {
            source: source.to_owned(),
            parts,
        })
    }

    /// Matches the placeholders with `columns`.
    ///
    /// # Errors
    /// If a placeholder names no column, or if there is no placeholder at all.
    pub(crate) fn bind(&self, columns: &[String]) -> Result<BoundTemplate> {
        let fault = |message: String| DataError::Template {
            template: self.source.clone(),
            message,
        };
        let parts = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => Ok(BoundPart::Text(text.clone())),
                Part::Column(name, filter) => columns
                    .iter()
                    .position(|column| column == name)
                    .map(|index| BoundPart::Column(index, *filter))
                    .ok_or_else(|| {
                        let known = columns.join(", ");
                        fault(format!("unknown placeholder {{{name}}}; columns: {known}"))
                    }),
            })
            .collect::<Result<Vec<_>>>()?;
        if !parts
            .iter()
            .any(|part| matches!(part, BoundPart::Column(..)))
        {
            return Err(fault(
                "no placeholder; every prompt would be the same".to_owned(),
            ));
        }
        Ok(BoundTemplate {
            source: self.source.clone(),
            parts,
            columns: columns.len(),
        })
    }
}

impl BoundTemplate {
    /// Fills in one text per column.
    ///
    /// # Errors
    /// If the number of texts is not that of the columns.
    pub(crate) fn render(&self, texts: &[String]) -> Result<String> {
        if texts.len() != self.columns {
            return Err(DataError::Template {
                template: self.source.clone(),
                message: format!("{} texts for {} columns", texts.len(), self.columns),
            });
        }
        Ok(self
            .parts
            .iter()
            .map(|part| match part {
                BoundPart::Text(text) => Cow::Borrowed(text.as_str()),
                BoundPart::Column(index, filter) => filter.apply(&texts[*index]),
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn render(source: &str, columns: &[&str], texts: &[&str]) -> Result<String> {
        let columns: Vec<String> = columns.iter().map(|&c| c.to_owned()).collect();
        let texts: Vec<String> = texts.iter().map(|&t| t.to_owned()).collect();
        Template::parse(source)?.bind(&columns)?.render(&texts)
    }

    #[test]
    fn fills_in_and_unescapes() {
        assert_eq!(
            render("{b}-{a}-{ b }", &["a", "b"], &["1", "{x}"]).unwrap(),
            "{x}-1-{x}"
        );
        assert_eq!(render("{{{a}}} é{a}é", &["a"], &["1"]).unwrap(), "{1} é1é");
    }

    #[test]
    fn a_full_stop_is_put_where_none_is() {
        for text in ["so it is", " so it is.", "so it is. "] {
            let filled = render("{a|full_stop} Yes?", &["a"], &[text]).unwrap();
            assert_eq!(filled, "so it is. Yes?");
        }
    }

    #[test]
    fn faults_say_where() {
        let message = |source| render(source, &["a"], &["1"]).unwrap_err().to_string();
        assert!(message("{text}").contains("unknown placeholder {text}; columns: a"));
        assert!(message("ab{a").contains("byte 2 is not closed"));
        assert!(message("{a}}").contains("byte 3 was not opened"));
        assert!(message("{ }").contains("empty placeholder"));
        assert!(message("{a|upper}").contains("unknown filter \"upper\""));
        assert!(message("plain").contains("no placeholder"));
        assert!(
            render("{a}", &["a"], &[])
                .unwrap_err()
                .to_string()
                .contains("0 texts")
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics(source in "[{}|a-cé ]{0,12}") {
            let _ = render(&source, &["a"], &["x"]);
        }

        #[test]
        fn escaped_text_comes_back(text in "[{}a-z]{0,12}") {
            let escaped = text.replace('{', "{{").replace('}', "}}");
            // The space keeps a trailing brace apart from the placeholder.
            let rendered = render(&format!("{escaped} {{a}}"), &["a"], &["1"]).unwrap();
            prop_assert_eq!(rendered, format!("{text} 1"));
        }
    }
}
