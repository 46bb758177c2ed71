//! Rows of a task as token sequences with the answer marked.

use std::path::Path;

use crate::error::{DataError, Result};
use crate::generation::{TextEncoder, read_text_rows};
use crate::rows::{Label, Row, RowReader};
use crate::split::SplitFiles;
use crate::task::TaskSpec;
use crate::tokenizer::Tokenizer;

/// A row of a task with its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    /// Position in the split, from 0.
    pub doc_id: u64,
    /// Texts in the order of [`TaskSpec::columns`].
    pub texts: Vec<String>,
    /// Class number.
    pub label: usize,
}

/// A token sequence to train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// `[bos] prompt answer eos`.
    pub tokens: Vec<u32>,
    /// Index of the first token of the answer: the loss counts from there on.
    pub answer_start: usize,
    /// Class number, if the example comes from a classification task.
    pub label: Option<usize>,
}

/// Examples, and how many prompts had to be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examples {
    /// One per row, in the rows' order.
    pub examples: Vec<Example>,
    /// Rows whose prompt lost tokens on the left.
    pub truncated: usize,
}

/// Reads a split of a task, at most `limit` rows of it.
///
/// # Errors
/// As [`SplitFiles::find`] and [`RowReader::open`], and if a row is null, is not UTF-8, or has a
/// label that is not one of the task's.
pub fn read_task(
    path: &Path,
    split: &str,
    spec: &TaskSpec,
    limit: Option<usize>,
) -> Result<Vec<TaskRow>> {
    let files = SplitFiles::find(path, split)?.files;
    let columns: Vec<&str> = spec.columns.iter().map(String::as_str).collect();
    RowReader::open(&files, &columns, Some(&spec.label_column))?
        .take(limit.unwrap_or(usize::MAX))
        .enumerate()
        .map(|(doc_id, row)| {
            let mut row = row?;
            let label = class_of(&row, spec)?;
            Ok(TaskRow {
                doc_id: doc_id as u64,
                texts: std::mem::take(&mut row.texts),
                label,
            })
        })
        .collect()
}

fn class_of(row: &Row, spec: &TaskSpec) -> Result<usize> {
    let names = if spec.label_values.is_empty() {
        &spec.labels
    } else {
        &spec.label_values
    };
    let (found, text) = match &row.label {
        Some(Label::Int(-1)) => {
            return Err(DataError::Unlabelled {
                path: row.file.to_path_buf(),
                column: spec.label_column.clone(),
                row: row.row,
            });
        }
        Some(Label::Int(number)) => {
            let class = usize::try_from(*number)
                .ok()
                .filter(|&class| class < spec.labels.len());
            (class, number.to_string())
        }
        Some(Label::Text(text)) => (names.iter().position(|name| name == text), text.clone()),
        None => (None, "null".to_owned()),
    };
    found.ok_or_else(|| DataError::UnknownLabel {
        path: row.file.to_path_buf(),
        column: spec.label_column.clone(),
        row: row.row,
        label: text,
        classes: names.clone(),
    })
}

/// A task bound to a tokenizer and a length limit; makes examples and evaluation requests.
#[derive(Debug, Clone)]
pub struct TaskEncoder<'a> {
    spec: &'a TaskSpec,
    tokenizer: &'a Tokenizer,
    answers: Vec<Vec<u32>>,
    max_tokens: usize,
}

impl<'a> TaskEncoder<'a> {
    /// Binds a task; sequences hold at most `max_tokens` tokens, answer and eos included.
    ///
    /// # Errors
    /// If a label has no tokens, or if the longest answer leaves no room for a prompt.
    pub fn new(spec: &'a TaskSpec, tokenizer: &'a Tokenizer, max_tokens: usize) -> Result<Self> {
        let fault = |message: String| DataError::Task {
            task: spec.name.clone(),
            message,
        };
        if spec.labels.is_empty() {
            return Err(fault(
                "generates text; there are no labels to choose".to_owned(),
            ));
        }
        let answers = (0..spec.labels.len())
            .filter_map(|label| spec.answer(label))
            .map(|answer| tokenizer.encode(&answer, false))
            .collect::<Result<Vec<_>>>()?;
        if let Some(empty) = answers.iter().position(Vec::is_empty) {
            return Err(fault(format!(
                "label {:?} has no tokens",
                spec.labels[empty]
            )));
        }
        let longest = answers.iter().map(Vec::len).max().unwrap_or(0);
        // bos, one token of prompt, and eos.
        if max_tokens < longest + 3 {
            return Err(fault(format!(
                "max length {max_tokens} leaves no room for a prompt before an answer of {longest} tokens; set it to {} or more",
                longest + 3
            )));
        }
        Ok(Self {
            spec,
            tokenizer,
            answers,
            max_tokens,
        })
    }

    /// Tokens of each label's answer, without eos, in class order.
    pub fn answers(&self) -> &[Vec<u32>] {
        &self.answers
    }

    /// `[bos] prompt` of a row, and whether it lost tokens on the left to leave room for the
    /// longest answer. All labels of a row so see the same prompt.
    ///
    /// # Errors
    /// If the template or the tokenizer fails.
    pub fn prompt(&self, texts: &[String]) -> Result<(Vec<u32>, bool)> {
        let prompt = self.tokenizer.encode(&self.spec.prompt(texts)?, false)?;
        let longest = self.answers.iter().map(Vec::len).max().unwrap_or(0);
        let bos = self.tokenizer.bos();
        let room = self.max_tokens - longest - 1 - usize::from(bos.is_some());
        let cut = prompt.len().saturating_sub(room);
        Ok((
            bos.into_iter()
                .chain(prompt[cut..].iter().copied())
                .collect(),
            cut > 0,
        ))
    }

    /// Training examples of rows.
    ///
    /// # Errors
    /// As [`TaskEncoder::prompt`].
    pub fn examples(&self, rows: &[TaskRow]) -> Result<Examples> {
        let mut truncated = 0;
        let examples = rows
            .iter()
            .map(|row| {
                let (mut tokens, cut) = self.prompt(&row.texts)?;
                truncated += usize::from(cut);
                let answer_start = tokens.len();
                let answer = self.answers.get(row.label).ok_or_else(|| DataError::Task {
                    task: self.spec.name.clone(),
                    message: format!("row {} has class {}", row.doc_id, row.label),
                })?;
                tokens.extend_from_slice(answer);
                tokens.push(self.tokenizer.eos());
                Ok(Example {
                    tokens,
                    answer_start,
                    label: Some(row.label),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        if truncated > 0 {
            tracing::warn!(
                task = self.spec.name,
                truncated,
                rows = rows.len(),
                max_tokens = self.max_tokens,
                "prompts cut on the left"
            );
        }
        Ok(Examples {
            examples,
            truncated,
        })
    }
}

/// Reads at most `limit` rows of a split as training examples, whatever kind of answer the task has;
/// sequences hold at most `max_tokens` tokens.
///
/// # Errors
/// As [`read_task`] and [`TaskEncoder::examples`], or their counterparts for text answers.
pub fn read_examples(
    path: &Path,
    split: &str,
    spec: &TaskSpec,
    tokenizer: &Tokenizer,
    max_tokens: usize,
    limit: Option<usize>,
) -> Result<Examples> {
    if spec.generates() {
        let rows = read_text_rows(path, split, spec, limit)?;
        TextEncoder::new(spec, tokenizer, max_tokens)?.examples(&rows)
    } else {
        let rows = read_task(path, split, spec, limit)?;
        TaskEncoder::new(spec, tokenizer, max_tokens)?.examples(&rows)
    }
}

/// Reads prompts and answers of at most `limit` rows of a split as plain text, to train a tokenizer
/// on.
///
/// # Errors
/// As [`read_examples`].
pub fn read_prompts(
    path: &Path,
    split: &str,
    spec: &TaskSpec,
    limit: Option<usize>,
) -> Result<Vec<String>> {
    if !spec.generates() {
        return render_texts(spec, &read_task(path, split, spec, limit)?);
    }
    read_text_rows(path, split, spec, limit)?
        .iter()
        .map(|row| Ok(format!("{} {}", spec.prompt(&row.texts)?, row.target)))
        .collect()
}

/// Prompts and answers of rows as plain text, to train a tokenizer on.
///
/// # Errors
/// If the template is malformed or names an unknown column.
pub fn render_texts(spec: &TaskSpec, rows: &[TaskRow]) -> Result<Vec<String>> {
    rows.iter()
        .map(|row| Ok(spec.prompt(&row.texts)? + &spec.answer(row.label).unwrap_or_default()))
        .collect()
}

#[cfg(test)]
#[path = "examples_tests.rs"]
mod tests;
