//! Evaluation: tasks, perplexity, metrics of summaries, result files in lm-eval's form, and paired comparisons. Models
//! come in through the [`Scorer`] trait.

mod compare;
mod engine_scorer;
mod error;
mod generation;
mod metrics;
mod perplexity;
mod report;
mod results;
mod sample_files;
mod scorer;
mod stats;
mod task;
#[cfg(test)]
mod test_scorer;

pub use compare::{Comparison, Metric, compare};
pub use engine_scorer::EngineScorer;
pub use error::{EvalError, Result};
pub use generation::{GenerationEvaluation, GenerationOptions, TextSample, evaluate_generation};
pub use metrics::{Bleu, BleuCounts, Rouge, RougeScore, RougeScorer, f1, matthews};
pub use perplexity::{PerplexityReport, Windows, perplexity};
pub use report::{Report, Score, markdown};
pub use results::{RunInfo, Written, model_sha256, results_json, samples_path, write_results};
pub use sample_files::{Samples, find_samples, read_samples, results_in_run};
pub use scorer::{LogLikelihood, Scorer};
pub use stats::{McNemar, mcnemar, stderr_of_mean, stderr_of_share};
pub use task::{Sample, Share, TaskEvaluation, evaluate_task};
