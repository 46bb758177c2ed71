//! Pairs of texts without labels, made from the rows of a task: what a teacher answers for a student where
//! labelled rows are few.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use parquet::basic::Compression;

use crate::dice::Dice;
use crate::error::{DataError, Result};
use crate::rows::RowReader;
use crate::split::SplitFiles;
use crate::synth::save;
use crate::task::TaskSpec;

/// Which pairs to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairSetup {
    /// Whether each row's two texts change places.
    pub swapped: bool,
    /// How many times each first text meets the second text of another row.
    pub shuffled: usize,
    /// Seed of the order.
    pub seed: u64,
}

/// Writes pairs from the texts of a split's rows to the parquet file `out`, and says how many. A pair that is a
/// row itself, or was made before, is left out.
///
/// # Errors
/// If the task has not two texts a row, as [`RowReader::open`], and if `out` cannot be written.
pub fn write_pairs(
    path: &Path,
    split: &str,
    spec: &TaskSpec,
    setup: PairSetup,
    out: &Path,
) -> Result<usize> {
    let [first, second] = &spec.columns[..] else {
        return Err(DataError::Task {
            task: spec.name.clone(),
            message: format!(
                "has {} texts a row; pairs are made of two",
                spec.columns.len()
            ),
        });
    };
    let files: Vec<PathBuf> = SplitFiles::find(path, split)?.files;
    let rows = RowReader::open(&files, &[first, second], None)?
        .map(|row| {
            let texts = row?.texts;
            let [a, b] = <[String; 2]>::try_from(texts)
                .unwrap_or_else(|_| unreachable!("two columns were asked for"));
            Ok([a, b])
        })
        .collect::<Result<Vec<_>>>()?;
    let pairs = pairs(&rows, setup);
    let column = |i: usize| {
        let texts = pairs.iter().map(|pair| pair[i]);
        Arc::new(StringArray::from_iter_values(texts)) as ArrayRef
    };
    let batch = RecordBatch::try_from_iter([(first, column(0)), (second, column(1))]);
    save(out, &batch, Compression::SNAPPY)?;
    Ok(pairs.len())
}

fn pairs(rows: &[[String; 2]], setup: PairSetup) -> Vec<[&str; 2]> {
    let texts = rows.iter().map(|row| row.each_ref().map(String::as_str));
    let mut known: HashSet<[&str; 2]> = texts.clone().collect();
    let mut made = Vec::new();
    if setup.swapped {
        let swapped = texts.clone().map(|[a, b]| [b, a]);
        made.extend(swapped.filter(|&pair| known.insert(pair)));
    }
    let mut dice = Dice::new(setup.seed, 0);
    for _ in 0..setup.shuffled {
        let mut others: Vec<usize> = (0..rows.len()).collect();
        dice.shuffle(&mut others);
        let met = texts.clone().zip(others);
        let met = met.map(|([a, _], other)| [a, rows[other][1].as_str()]);
        made.extend(met.filter(|&pair| known.insert(pair)));
    }
    made
}

#[cfg(test)]
#[path = "pairs_tests.rs"]
mod tests;
