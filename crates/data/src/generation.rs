//! Tasks whose answer is a text: rows, prompts and training examples.

use std::path::Path;

use crate::error::{DataError, Result};
use crate::examples::{Example, Examples};
use crate::rows::RowReader;
use crate::split::SplitFiles;
use crate::task::TaskSpec;
use crate::tokenizer::Tokenizer;

/// A row of a task that generates text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRow {
    /// Position in the split, from 0.
    pub doc_id: u64,
    /// Texts in the order of [`TaskSpec::columns`].
    pub texts: Vec<String>,
    /// The answer wanted.
    pub target: String,
}

/// Reads a split of a task that generates text, at most `limit` rows of it.
///
/// # Errors
/// If the task chooses labels instead; as [`SplitFiles::find`] and [`RowReader::open`]; and if a
/// row is null or not UTF-8.
pub fn read_text_rows(
    path: &Path,
    split: &str,
    spec: &TaskSpec,
    limit: Option<usize>,
) -> Result<Vec<TextRow>> {
    let target = target_column(spec)?;
    let files = SplitFiles::find(path, split)?.files;
    let columns: Vec<&str> = spec.columns.iter().map(String::as_str).collect();
    let columns = [columns.as_slice(), &[target]].concat();
    RowReader::open(&files, &columns, None)?
        .take(limit.unwrap_or(usize::MAX))
        .enumerate()
        .map(|(doc_id, row)| {
            let mut texts = row?.texts;
            let target = texts.pop().unwrap_or_default();
            Ok(TextRow {
                doc_id: doc_id as u64,
                texts,
                target,
            })
        })
        .collect()
}

fn target_column(spec: &TaskSpec) -> Result<&str> {
    spec.target_column
        .as_deref()
        .ok_or_else(|| DataError::Task {
            task: spec.name.clone(),
            message: "chooses a label; a task that generates text has a target_column".to_owned(),
        })
}

/// A task that generates text, bound to a tokenizer and a length limit.
///
/// Where a row is too long, the first of [`TaskSpec::columns`] loses its end: what a summary is
/// about stands in front, and the words behind it in the template ask for the answer.
#[derive(Debug, Clone)]
pub struct TextEncoder<'a> {
    spec: &'a TaskSpec,
    tokenizer: &'a Tokenizer,
    max_tokens: usize,
}

impl<'a> TextEncoder<'a> {
    /// Binds a task; prompt, answer and eos together hold at most `max_tokens` tokens.
    ///
    /// # Errors
    /// If the task chooses labels, or if `max_tokens` leaves no room for a prompt.
    pub fn new(spec: &'a TaskSpec, tokenizer: &'a Tokenizer, max_tokens: usize) -> Result<Self> {
        target_column(spec)?;
        let encoder = Self {
            spec,
            tokenizer,
            max_tokens,
        };
        let empty = vec![String::new(); spec.columns.len()];
        let around = encoder.encode(&empty)?.len();
        // Two tokens of text, one of the answer, and eos.
        if max_tokens < around + 4 {
            return Err(DataError::Task {
                task: spec.name.clone(),
                message: format!(
                    "max length {max_tokens} leaves no room beside a prompt of {around} tokens; set it to {} or more",
                    around + 4
                ),
            });
        }
        Ok(encoder)
    }

    fn encode(&self, texts: &[String]) -> Result<Vec<u32>> {
        let prompt = self.tokenizer.encode(&self.spec.prompt(texts)?, false)?;
        Ok(self.tokenizer.bos().into_iter().chain(prompt).collect())
    }

    /// `[bos] prompt` of a row in at most `max_tokens` less `answer` tokens, and whether its text
    /// was cut for that.
    ///
    /// # Errors
    /// If the template or the tokenizer fails, or if what must not be cut is longer.
    pub fn prompt(&self, texts: &[String], answer: usize) -> Result<(Vec<u32>, bool)> {
        let room = self.max_tokens.saturating_sub(answer);
        let whole = self.encode(texts)?;
        if whole.len() <= room {
            return Ok((whole, false));
        }
        let mut texts = texts.to_vec();
        let mut excess = whole.len() - room;
        // A cut text may take a token more at the seam, so once may not be enough.
        while let Some(text) = texts.first().filter(|text| !text.is_empty()) {
            texts[0] = self.tokenizer.without_last(text, excess)?.to_owned();
            let prompt = self.encode(&texts)?;
            if prompt.len() <= room {
                return Ok((prompt, true));
            }
            excess = prompt.len() - room;
        }
        Err(DataError::Task {
            task: self.spec.name.clone(),
            message: format!(
                "a prompt without its first text takes more than {room} tokens; raise the max length"
            ),
        })
    }

    /// Training examples of rows. An answer takes at most half of the length limit and loses its
    /// end, and eos with it, where it is longer.
    ///
    /// # Errors
    /// As [`TextEncoder::prompt`].
    pub fn examples(&self, rows: &[TextRow]) -> Result<Examples> {
        let mut truncated = 0;
        let examples = rows
            .iter()
            .map(|row| {
                let answer = format!(" {}", row.target.trim());
                let mut answer = self.tokenizer.encode(&answer, false)?;
                answer.push(self.tokenizer.eos());
                answer.truncate((self.max_tokens / 2).max(1));
                let (mut tokens, cut) = self.prompt(&row.texts, answer.len())?;
                truncated += usize::from(cut);
                let answer_start = tokens.len();
                tokens.extend(answer);
                Ok(Example {
                    tokens,
                    answer_start,
                    label: None,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        if truncated > 0 {
            tracing::warn!(
                task = self.spec.name,
                truncated,
                rows = rows.len(),
                max_tokens = self.max_tokens,
                "texts cut at their end"
            );
        }
        Ok(Examples {
            examples,
            truncated,
        })
    }
}

#[cfg(test)]
#[path = "generation_tests.rs"]
mod tests;
