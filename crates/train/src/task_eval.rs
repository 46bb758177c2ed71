//! Accuracy on the task's validation rows while training.

use tritburn_data::{TaskEncoder, TaskSpec, Tokenizer, read_task};
use tritburn_nn::CausalLm;
use tritburn_nn::ops::{Kernels, Ops};

use crate::error::Result;
use crate::recipe::Recipe;
use crate::scorer::{BATCH, ModelScorer};

/// Validation rows as requests: one for each label of each row.
#[derive(Debug)]
pub(crate) struct TaskEval {
    requests: Vec<(Vec<u32>, Vec<u32>)>,
    labels: Vec<usize>,
    choices: usize,
    pad: u32,
}

impl TaskEval {
    pub(crate) fn new(recipe: &Recipe, spec: &TaskSpec, tokenizer: &Tokenizer) -> Result<Self> {
        let dir = std::path::Path::new(&recipe.file.data.dir);
        let limit = Some(recipe.file.train.eval_rows);
        let rows = read_task(dir, &spec.eval_split, spec, limit)?;
        let encoder = TaskEncoder::new(spec, tokenizer, recipe.file.data.max_length)?;
        let mut requests = Vec::new();
        for row in &rows {
            let (prompt, _) = encoder.prompt(&row.texts)?;
            requests.extend(
                encoder
                    .answers()
                    .iter()
                    .map(|a| (prompt.clone(), a.clone())),
            );
        }
        Ok(Self {
            requests,
            labels: rows.iter().map(|r| r.label).collect(),
            choices: encoder.answers().len(),
            pad: tokenizer.pad(),
        })
    }

    /// Share of rows whose own label has the highest log-likelihood.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn accuracy<B: Kernels + Ops>(
        &self,
        model: &CausalLm<B>,
        device: &B::Device,
    ) -> f64 {
        let scorer = ModelScorer::new(model, device, self.pad);
        let scores: Vec<_> = self
            .requests
            .chunks(BATCH)
            .flat_map(|c| scorer.score(c))
            .collect();
        let right = scores
            .chunks(self.choices)
            .zip(&self.labels)
            .filter(|(scores, label)| {
                let best = scores
                    .iter()
                    .enumerate()
                    .max_by(|a, b| a.1.sum.total_cmp(&b.1.sum));
                best.is_some_and(|(i, _)| i == **label)
            });
        right.count() as f64 / self.labels.len().max(1) as f64
    }
}
