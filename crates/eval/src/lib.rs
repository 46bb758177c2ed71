//! Evaluation: tasks, perplexity, metrics of summaries, result files in lm-eval's form, and paired comparisons. Models
//! come in through the [`Scorer`] trait.

mod compare;
mod engine_scorer;
mod error;
mod metrics;
mod perplexity;
mod results;
mod scorer;
mod stats;
mod task;
#[cfg(test)]
mod test_scorer;

pub use compare::{Comparison, Metric, compare, read_samples};
pub use engine_scorer::EngineScorer;
pub use error::{EvalError, Result};
pub use metrics::{Bleu, BleuCounts, Rouge, RougeScore, RougeScorer, f1, matthews};
pub use perplexity::{PerplexityReport, Windows, perplexity};
pub use results::{RunInfo, model_sha256, results_json, samples_path, write_results};
pub use scorer::{LogLikelihood, Scorer};
pub use stats::{McNemar, mcnemar, stderr_of_share};
pub use task::{Sample, Share, TaskEvaluation, evaluate_task};
