//! Comparing two evaluations of the same rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{EvalError, Result};
use crate::generation::TextSample;
use crate::sample_files::Samples;
use crate::stats::{McNemar, mcnemar, stderr_of_mean};
use crate::task::Sample;

/// Which outcome to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// [`Sample::acc`].
    Acc,
    /// [`Sample::acc_norm`].
    AccNorm,
    /// [`Sample::exact_match`].
    ExactMatch,
}

impl Metric {
    fn of(self, sample: &Sample) -> f64 {
        f64::from(match self {
            Self::Acc => sample.acc,
            Self::AccNorm => sample.acc_norm,
            Self::ExactMatch => sample.exact_match,
        })
    }

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::ExactMatch => "exact_match",
        }
    }
}

/// Two models on the same rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What was compared, by its name in results.
    pub metric: String,
    /// Rows.
    pub samples: u64,
    /// Mean of the first model.
    pub first: f64,
    /// Mean of the second model.
    pub second: f64,
    /// Standard error of the difference of the means, from the differences row by row.
    pub stderr: f64,
    /// The paired test, where a row is right or wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcnemar: Option<McNemar>,
}

/// Compares two evaluations row by row: labels by `metric`, texts by the F-measure of ROUGE-Lsum.
///
/// # Errors
/// If they are not of the same rows with the same targets.
pub fn compare(first: &Samples, second: &Samples, metric: Metric) -> Result<Comparison> {
    match (first, second) {
        (Samples::Choices(first), Samples::Choices(second)) => {
            let pairs = pair(first, second, |sample| metric.of(sample))?;
            let only = |right: usize| {
                let counted = pairs.iter().filter(|p| p[right] > p[1 - right]);
                counted.count() as u64
            };
            let test = mcnemar(only(0), only(1));
            Ok(summarise(metric.name(), &pairs, Some(test)))
        }
        (Samples::Texts(first), Samples::Texts(second)) => {
            let pairs = pair(first, second, |sample| sample.rouge_lsum)?;
            Ok(summarise("rougeLsum", &pairs, None))
        }
        _ => Err(EvalError::Unpaired {
            message: "one chooses labels, the other generates text".to_owned(),
        }),
    }
}

fn summarise(metric: &str, pairs: &[[f64; 2]], mcnemar: Option<McNemar>) -> Comparison {
    let mean = |side: usize| pairs.iter().map(|p| p[side]).sum::<f64>() / pairs.len() as f64;
    let differences: Vec<f64> = pairs.iter().map(|p| p[0] - p[1]).collect();
    Comparison {
        metric: metric.to_owned(),
        samples: pairs.len() as u64,
        first: mean(0),
        second: mean(1),
        stderr: stderr_of_mean(&differences).1,
        mcnemar,
    }
}

/// What tells whether two samples are of the same row.
trait Identity {
    type Target: PartialEq;
    fn identity(&self) -> (u64, &Map<String, Value>, &Self::Target);
}

impl Identity for Sample {
    type Target = usize;
    fn identity(&self) -> (u64, &Map<String, Value>, &usize) {
        (self.doc_id, &self.doc, &self.target)
    }
}

impl Identity for TextSample {
    type Target = String;
    fn identity(&self) -> (u64, &Map<String, Value>, &String) {
        (self.doc_id, &self.doc, &self.target)
    }
}

/// The outcomes of both models on every row.
fn pair<S: Identity>(
    first: &[S],
    second: &[S],
    outcome: impl Fn(&S) -> f64,
) -> Result<Vec<[f64; 2]>> {
    let unpaired = |message: String| EvalError::Unpaired { message };
    if first.len() != second.len() || first.is_empty() {
        return Err(unpaired(format!(
            "{} and {} samples; evaluate both with the same split and --limit",
            first.len(),
            second.len()
        )));
    }
    let by_id: BTreeMap<u64, &S> = second.iter().map(|s| (s.identity().0, s)).collect();
    if by_id.len() != second.len() {
        return Err(unpaired("a row occurs twice in the second".to_owned()));
    }
    let mut pairs = Vec::with_capacity(first.len());
    for a in first {
        let (doc_id, doc, target) = a.identity();
        let b = by_id
            .get(&doc_id)
            .ok_or_else(|| unpaired(format!("row {doc_id} is in the first only")))?;
        if b.identity() != (doc_id, doc, target) {
            return Err(unpaired(format!("row {doc_id} differs in text or label")));
        }
        pairs.push([outcome(a), outcome(b)]);
    }
    Ok(pairs)
}
