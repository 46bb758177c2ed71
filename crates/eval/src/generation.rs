//! Tasks that generate text, such as summaries: greedy decoding, ROUGE and BLEU.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tritburn_data::{TaskSpec, TextEncoder, TextRow, Tokenizer};

use crate::error::{EvalError, Result};
use crate::metrics::{Bleu, BleuCounts, Rouge, RougeScorer};
use crate::report::{Report, Score};
use crate::scorer::Scorer;
use crate::stats::stderr_of_mean;

/// Rows given to the scorer at once.
const ROWS_AT_ONCE: usize = 8;

/// How texts are generated and scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerationOptions {
    /// Bound of prompt and answer together; longer texts lose their end.
    pub max_tokens: usize,
    /// Most tokens of an answer.
    pub max_new: usize,
    /// How words are compared by ROUGE.
    pub rouge: RougeScorer,
}

/// One generated text; a line of `samples_<task>.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextSample {
    /// Row of the split.
    pub doc_id: u64,
    /// The row's columns.
    pub doc: Map<String, Value>,
    /// The answer wanted.
    pub target: String,
    /// What the model wrote.
    pub resps: (String,),
    /// The same without spaces around it; this is scored.
    pub filtered_resps: (String,),
    /// F-measure.
    pub rouge1: f64,
    /// F-measure.
    pub rouge2: f64,
    /// F-measure.
    #[serde(rename = "rougeL")]
    pub rouge_l: f64,
    /// F-measure.
    #[serde(rename = "rougeLsum")]
    pub rouge_lsum: f64,
}

/// A score of a row by its name in results.
type Kind = (&'static str, fn(&TextSample) -> f64);

/// The outcome of a task that generates text.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationEvaluation {
    /// The task.
    pub spec: TaskSpec,
    /// BLEU over all rows.
    pub bleu: Bleu,
    /// How the texts came about.
    pub options: GenerationOptions,
    /// Rows whose text was cut.
    pub truncated: usize,
    /// Answers that were ended by [`GenerationOptions::max_new`].
    pub unfinished: usize,
    /// Every row, in order.
    pub samples: Vec<TextSample>,
}

/// Evaluates `rows` of a task that generates text. `progress` is told rows done and rows in all.
///
/// # Errors
/// If there are no rows, if a prompt does not fit, or if the scorer fails.
pub fn evaluate_generation(
    scorer: &mut dyn Scorer,
    tokenizer: &Tokenizer,
    spec: &TaskSpec,
    rows: &[TextRow],
    options: GenerationOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<GenerationEvaluation> {
    if rows.is_empty() {
        return Err(EvalError::Nothing {
            message: format!("task {} has no rows; raise --limit", spec.name),
        });
    }
    let encoder = TextEncoder::new(spec, tokenizer, options.max_tokens)?;
    let mut samples = Vec::with_capacity(rows.len());
    let (mut truncated, mut unfinished) = (0, 0);
    let mut bleu = BleuCounts::default();
    for chunk in rows.chunks(ROWS_AT_ONCE) {
        let mut prompts = Vec::with_capacity(chunk.len());
        for row in chunk {
            let (prompt, cut) = encoder.prompt(&row.texts, options.max_new)?;
            truncated += usize::from(cut);
            prompts.push(prompt);
        }
        let texts = scorer.generate_greedy(&prompts, options.max_new, &[tokenizer.eos()])?;
        if texts.len() != prompts.len() {
            return Err(EvalError::AnswerCount {
                asked: prompts.len(),
                got: texts.len(),
            });
        }
        for (row, tokens) in chunk.iter().zip(texts) {
            unfinished += usize::from(tokens.len() >= options.max_new);
            let text = tokenizer.decode(&tokens, true)?;
            bleu.add(&row.target, text.trim());
            samples.push(sample(spec, row, text, options.rouge));
        }
        progress(samples.len(), rows.len());
    }
    Ok(GenerationEvaluation {
        spec: spec.clone(),
        bleu: bleu.score(),
        options,
        truncated,
        unfinished,
        samples,
    })
}

fn sample(spec: &TaskSpec, row: &TextRow, text: String, scorer: RougeScorer) -> TextSample {
    let trimmed = text.trim().to_owned();
    let rouge: Rouge = scorer.score(&row.target, &trimmed);
    let columns = spec.columns.iter().chain(&spec.target_column).cloned();
    let cells = row.texts.iter().chain([&row.target]);
    TextSample {
        doc_id: row.doc_id,
        doc: columns.zip(cells.cloned().map(Value::from)).collect(),
        target: row.target.clone(),
        resps: (text,),
        filtered_resps: (trimmed,),
        rouge1: rouge.rouge1.fmeasure,
        rouge2: rouge.rouge2.fmeasure,
        rouge_l: rouge.rouge_l.fmeasure,
        rouge_lsum: rouge.rouge_lsum.fmeasure,
    }
}

impl GenerationEvaluation {
    /// The scores, in percent as papers print them: means of the F-measures of ROUGE with their
    /// standard errors, and BLEU, which is of the corpus as a whole and has none.
    pub fn scores(&self) -> Vec<Score> {
        let kinds: [Kind; 4] = [
            ("rouge1", |s| s.rouge1),
            ("rouge2", |s| s.rouge2),
            ("rougeL", |s| s.rouge_l),
            ("rougeLsum", |s| s.rouge_lsum),
        ];
        let mut scores: Vec<Score> = kinds
            .iter()
            .map(|&(name, kind)| {
                let values: Vec<f64> = self.samples.iter().map(|s| 100.0 * kind(s)).collect();
                let (value, stderr) = stderr_of_mean(&values);
                Score {
                    name,
                    value,
                    stderr: Some(stderr),
                }
            })
            .collect();
        scores.push(Score {
            name: "bleu",
            value: self.bleu.score,
            stderr: None,
        });
        scores
    }

    /// For tables and files.
    pub fn report(&self) -> Report {
        Report {
            spec: self.spec.clone(),
            output_type: "generate_until",
            scores: self.scores(),
            samples: self.samples.iter().map(|sample| json!(sample)).collect(),
            extra: json!({
                "bleu": self.bleu,
                "bleu_signature": "tok:13a smooth:exp case:mixed",
                "rouge_stemmer": self.options.rouge.stemmer,
                "rougeLsum_sentences": "lines",
                "max_tokens": self.options.max_tokens,
                "max_new_tokens": self.options.max_new,
                "truncated": self.truncated,
                "unfinished": self.unfinished,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::compare::{Metric, compare};
    use crate::results::{RunInfo, write_results};
    use crate::sample_files::{Samples, read_samples};
    use crate::test_scorer::Fixed;

    fn evaluate(rows: &[TextRow]) -> Result<GenerationEvaluation> {
        let spec = TaskSpec::built_in("cnn_dailymail").unwrap();
        let texts = ["A dog ran home.", "It was late and dark."];
        let tokenizer = Tokenizer::train_bpe(texts.iter().copied().cycle().take(20), 300).unwrap();
        let mut scorer = Fixed {
            liked: Vec::new(),
            text: tokenizer.encode(" A dog ran home.\n", false).unwrap(),
            seen: Vec::new(),
        };
        let options = GenerationOptions {
            max_tokens: 200,
            max_new: 60,
            rouge: RougeScorer { stemmer: false },
        };
        let quiet = &mut |_, _| {};
        evaluate_generation(&mut scorer, &tokenizer, &spec, rows, options, quiet)
    }

    fn row(doc_id: u64, target: &str) -> TextRow {
        TextRow {
            doc_id,
            texts: vec!["It was late. A dog ran home.".to_owned()],
            target: target.to_owned(),
        }
    }

    #[test]
    fn scores_are_means_in_percent() {
        let done = evaluate(&[row(0, "A dog ran home."), row(1, "No.")]).unwrap();
        assert_eq!(done.samples[0].filtered_resps.0, "A dog ran home.");
        assert_eq!((done.unfinished, done.truncated), (0, 0));
        let report = done.report();
        assert_eq!(report.scores[0].value, 50.0);
        assert_eq!(report.scores[0].stderr, Some(50.0));
        assert_eq!(report.scores[4].name, "bleu");
        assert_eq!(report.scores[4].stderr, None);
        assert_eq!(report.samples[1]["rougeLsum"], 0.0);
        assert_eq!(report.samples[1]["doc"]["highlights"], "No.");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.json");
        let written = write_results(&path, &report, &RunInfo::default()).unwrap();
        let back = read_samples(&written.samples).unwrap();
        assert_eq!(back, Samples::Texts(done.samples));
        let same = compare(&back, &back, Metric::Acc).unwrap();
        assert_eq!((same.metric.as_str(), same.first), ("rougeLsum", 0.5));
        assert_eq!((same.stderr, same.mcnemar), (0.0, None));
    }

    #[test]
    fn no_rows_are_an_error() {
        assert!(matches!(evaluate(&[]), Err(EvalError::Nothing { .. })));
    }
}
