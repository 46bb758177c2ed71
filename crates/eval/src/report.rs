//! What every kind of evaluation amounts to: named numbers, and rows to look at.

use serde_json::Value;
use tritburn_data::TaskSpec;

/// A score of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Its name in lm-eval's results.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// Its standard error, where that is defined.
    pub stderr: Option<f64>,
}

/// The outcome of a task in a form that tables and files are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The task.
    pub spec: TaskSpec,
    /// lm-eval's word for how the model was asked.
    pub output_type: &'static str,
    /// All scores, the main one first. Higher is better in each.
    pub scores: Vec<Score>,
    /// Each evaluated row; a line of `samples_<task>.jsonl`.
    pub samples: Vec<Value>,
    /// What lm-eval has no place for.
    pub extra: Value,
}

impl Report {
    /// A row a score, in the columns of [`Report::HEADER`].
    pub fn rows(&self) -> Vec<Vec<String>> {
        self.scores
            .iter()
            .map(|score| {
                vec![
                    self.spec.name.clone(),
                    self.spec.eval_split.clone(),
                    self.samples.len().to_string(),
                    score.name.to_owned(),
                    format!("{:.4}", score.value),
                    score
                        .stderr
                        .map_or_else(|| "–".to_owned(), |stderr| format!("±{stderr:.4}")),
                ]
            })
            .collect()
    }

    /// Columns of [`Report::rows`].
    pub const HEADER: [&str; 6] = ["task", "split", "rows", "metric", "value", "stderr"];

    /// The scores as a Markdown table.
    pub fn markdown(&self) -> String {
        markdown(&Self::HEADER, &self.rows())
    }
}

/// A Markdown table; numbers, from the third column on, stand to the right.
pub fn markdown(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<String> = cells.map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = line(&mut header.iter().map(|&name| name.to_owned()));
    let rule = |index: usize| if index < 2 { "---" } else { "---:" }.to_owned();
    text.push_str(&line(&mut (0..header.len()).map(rule)));
    for row in rows {
        text.push_str(&line(&mut row.iter().cloned()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_markdown() {
        let rows = [["a|b", "c", "1"].map(str::to_owned).to_vec()];
        let expected = "| x | y | z |\n| --- | --- | ---: |\n| a\\|b | c | 1 |\n";
        assert_eq!(markdown(&["x", "y", "z"], &rows), expected);
    }
}
