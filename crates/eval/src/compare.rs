//! Comparing two evaluations of the same rows.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{EvalError, Result};
use crate::stats::{McNemar, mcnemar};
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
    fn of(self, sample: &Sample) -> bool {
        let value = match self {
            Self::Acc => sample.acc,
            Self::AccNorm => sample.acc_norm,
            Self::ExactMatch => sample.exact_match,
        };
        value == 1
    }
}

/// Two models on the same rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Rows.
    pub samples: u64,
    /// Share that the first model got right.
    pub first: f64,
    /// Share that the second model got right.
    pub second: f64,
    /// The paired test.
    pub mcnemar: McNemar,
}

/// Reads a per-sample file.
///
/// # Errors
/// If the file cannot be read or a line is not a sample.
pub fn read_samples(path: &Path) -> Result<Vec<Sample>> {
    let text = std::fs::read_to_string(path).map_err(|source| EvalError::Io {
        path: path.to_owned(),
        action: "read",
        source,
    })?;
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| EvalError::Samples {
                path: path.to_owned(),
                line: index + 1,
                message: error.to_string(),
            })
        })
        .collect()
}

/// Compares two evaluations row by row.
///
/// # Errors
/// If they are not of the same rows with the same targets.
pub fn compare(first: &[Sample], second: &[Sample], metric: Metric) -> Result<Comparison> {
    let unpaired = |message: String| EvalError::Unpaired { message };
    if first.len() != second.len() || first.is_empty() {
        return Err(unpaired(format!(
            "{} and {} samples",
            first.len(),
            second.len()
        )));
    }
    let by_id: BTreeMap<u64, &Sample> = second.iter().map(|s| (s.doc_id, s)).collect();
    let (mut hits, mut only) = ([0_u64; 2], [0_u64; 2]);
    for a in first {
        let b = by_id
            .get(&a.doc_id)
            .ok_or_else(|| unpaired(format!("row {} is in the first only", a.doc_id)))?;
        if a.doc != b.doc || a.target != b.target {
            return Err(unpaired(format!(
                "row {} differs in text or label",
                a.doc_id
            )));
        }
        let outcomes = [metric.of(a), metric.of(b)];
        for side in 0..2 {
            hits[side] += u64::from(outcomes[side]);
            only[side] += u64::from(outcomes[side] && !outcomes[1 - side]);
        }
    }
    let samples = first.len() as u64;
    Ok(Comparison {
        samples,
        first: hits[0] as f64 / samples as f64,
        second: hits[1] as f64 / samples as f64,
        mcnemar: mcnemar(only[0], only[1]),
    })
}
