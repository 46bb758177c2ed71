//! Classification accuracy of a language model: by label log-likelihood and by what it generates.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tritburn_data::{TaskEncoder, TaskRow, TaskSpec, Tokenizer};

use crate::error::{EvalError, Result};
use crate::metrics::{f1, matthews};
use crate::report::{Report, Score};
use crate::scorer::Scorer;
use crate::stats::stderr_of_share;

/// Rows given to the scorer at once.
const ROWS_AT_ONCE: usize = 32;

/// A share of samples with its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Between 0 and 1.
    pub value: f64,
    /// `√(p(1 − p)/(n − 1))`.
    pub stderr: f64,
}

impl Share {
    fn of(hits: usize, samples: usize) -> Self {
        let value = hits as f64 / samples as f64;
        Self {
            value,
            stderr: stderr_of_share(value, samples),
        }
    }
}

/// One evaluated row; a line of `samples_<task>.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Row of the split.
    pub doc_id: u64,
    /// The row's columns.
    pub doc: Map<String, Value>,
    /// Class number.
    pub target: usize,
    /// `[log-likelihood, is greedy]` of each label, in class order.
    pub resps: Vec<(f64, bool)>,
    /// The label of the highest log-likelihood, and the generated text.
    pub filtered_resps: (String, String),
    /// 1 if the label of the highest log-likelihood is the target.
    pub acc: u8,
    /// As `acc`, with log-likelihoods divided by the label's number of characters.
    pub acc_norm: u8,
    /// 1 if the text generated greedily is the target's label.
    pub exact_match: u8,
}

/// The outcome of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskEvaluation {
    /// The task.
    pub spec: TaskSpec,
    /// Accuracy by summed log-likelihood of the labels.
    pub acc: Share,
    /// Accuracy by log-likelihood per character.
    pub acc_norm: Share,
    /// Share of rows whose greedy text, trimmed, equals the label.
    pub exact_match: Share,
    /// F1 of class 1 by log-likelihood; of tasks with two classes.
    pub f1: Option<Share>,
    /// Matthews correlation by log-likelihood; of tasks with two classes.
    pub mcc: Option<Share>,
    /// `confusion[target][prediction]`, by log-likelihood.
    pub confusion: Vec<Vec<u64>>,
    /// Rows whose prompt was cut on the left.
    pub truncated: usize,
    /// Every row, in order.
    pub samples: Vec<Sample>,
}

impl TaskEvaluation {
    /// All scores; the ones that GLUE reports for the task stand among them.
    pub fn scores(&self) -> Vec<Score> {
        let scores = [
            ("acc", Some(self.acc)),
            ("acc_norm", Some(self.acc_norm)),
            ("exact_match", Some(self.exact_match)),
            ("f1", self.f1),
            ("mcc", self.mcc),
        ];
        let defined = scores
            .into_iter()
            .filter_map(|(name, share)| Some((name, share?)));
        defined
            .map(|(name, share)| Score {
                name,
                value: share.value,
                stderr: Some(share.stderr),
            })
            .collect()
    }

    /// For tables and files.
    pub fn report(&self) -> Report {
        Report {
            spec: self.spec.clone(),
            output_type: "multiple_choice",
            scores: self.scores(),
            samples: self.samples.iter().map(|sample| json!(sample)).collect(),
            extra: json!({
                "confusion": self.confusion,
                "truncated": self.truncated,
                // What f1 is about.
                "positive_label": self.f1.and(self.spec.labels.get(1)),
            }),
        }
    }
}

/// Evaluates `rows` of a task.
///
/// `max_tokens` bounds prompt and answer together; longer prompts lose their front. `progress` is
/// told rows done and rows in all.
///
/// # Errors
/// If there are no rows, if the scorer fails, or if a log-likelihood is not a number.
pub fn evaluate_task(
    scorer: &mut dyn Scorer,
    tokenizer: &Tokenizer,
    spec: &TaskSpec,
    rows: &[TaskRow],
    max_tokens: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TaskEvaluation> {
    if rows.is_empty() {
        return Err(EvalError::Nothing {
            message: format!("task {} has no rows; raise --limit", spec.name),
        });
    }
    let encoder = TaskEncoder::new(spec, tokenizer, max_tokens)?;
    let longest = encoder.answers().iter().map(Vec::len).max().unwrap_or(0);
    let mut samples = Vec::with_capacity(rows.len());
    let mut truncated = 0;
    for chunk in rows.chunks(ROWS_AT_ONCE) {
        let mut prompts = Vec::with_capacity(chunk.len());
        for row in chunk {
            let (prompt, cut) = encoder.prompt(&row.texts)?;
            truncated += usize::from(cut);
            prompts.push(prompt);
        }
        let requests: Vec<(Vec<u32>, Vec<u32>)> = prompts
            .iter()
            .flat_map(|prompt| {
                encoder
                    .answers()
                    .iter()
                    .map(|a| (prompt.clone(), a.clone()))
            })
            .collect();
        let scores = scorer.loglikelihood(&requests)?;
        count(requests.len(), scores.len())?;
        // The answer and the end token, which must follow for a match.
        let texts = scorer.generate_greedy(&prompts, longest + 1, &[tokenizer.eos()])?;
        count(prompts.len(), texts.len())?;
        for ((row, scores), tokens) in chunk
            .iter()
            .zip(scores.chunks(spec.labels.len()))
            .zip(texts)
        {
            let resps: Vec<(f64, bool)> = scores.iter().map(|s| (s.sum, s.is_greedy)).collect();
            samples.push(judge(spec, row, resps, tokenizer.decode(&tokens, true)?)?);
        }
        progress(samples.len(), rows.len());
    }
    Ok(summarise(spec, samples, truncated))
}

fn count(asked: usize, got: usize) -> Result<()> {
    if asked == got {
        Ok(())
    } else {
        Err(EvalError::AnswerCount { asked, got })
    }
}

fn judge(
    spec: &TaskSpec,
    row: &TaskRow,
    resps: Vec<(f64, bool)>,
    generated: String,
) -> Result<Sample> {
    if let Some(bad) = resps
        .iter()
        .position(|(sum, _)| !(*sum <= 0.0 && sum.is_finite()))
    {
        return Err(EvalError::LogLikelihood {
            doc_id: row.doc_id,
            label: spec.labels[bad].clone(),
            value: resps[bad].0,
        });
    }
    let sums = resps.iter().map(|(sum, _)| *sum);
    let per_char = sums
        .clone()
        .zip(&spec.labels)
        .map(|(sum, l)| sum / l.chars().count() as f64);
    let best = argmax(sums);
    let best_norm = argmax(per_char);
    let generated = generated.trim().to_owned();
    let columns = spec
        .columns
        .iter()
        .cloned()
        .zip(row.texts.iter().cloned().map(Value::from));
    Ok(Sample {
        doc_id: row.doc_id,
        doc: columns
            .chain([(spec.label_column.clone(), Value::from(row.label))])
            .collect(),
        target: row.label,
        acc: u8::from(best == row.label),
        acc_norm: u8::from(best_norm == row.label),
        exact_match: u8::from(generated == spec.labels[row.label]),
        filtered_resps: (spec.labels[best].clone(), generated),
        resps,
    })
}

/// Index of the first of the largest values.
fn argmax(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (index, value) in values.enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

fn summarise(spec: &TaskSpec, samples: Vec<Sample>, truncated: usize) -> TaskEvaluation {
    let hits = |metric: fn(&Sample) -> u8| {
        Share::of(
            samples.iter().filter(|s| metric(s) == 1).count(),
            samples.len(),
        )
    };
    let classes = spec.labels.len();
    let mut confusion = vec![vec![0; classes]; classes];
    for sample in &samples {
        let predicted = argmax(sample.resps.iter().map(|(sum, _)| *sum));
        confusion[sample.target][predicted] += 1;
    }
    TaskEvaluation {
        spec: spec.clone(),
        acc: hits(|sample| sample.acc),
        acc_norm: hits(|sample| sample.acc_norm),
        exact_match: hits(|sample| sample.exact_match),
        f1: f1(&confusion),
        mcc: matthews(&confusion),
        confusion,
        truncated,
        samples,
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
