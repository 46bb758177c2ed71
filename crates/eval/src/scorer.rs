//! The one thing an evaluation needs of a model.

use crate::error::Result;

/// Log-likelihood of a continuation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogLikelihood {
    /// Sum of the natural log-probabilities of the continuation's tokens.
    pub sum: f64,
    /// Whether every token was the most likely one.
    pub is_greedy: bool,
}

/// A model that can be evaluated: the engine, or a model in training.
pub trait Scorer {
    /// Scores `(context, continuation)` pairs, neither of which is empty; one answer per pair, in
    /// order. Pairs with the same context follow one another.
    ///
    /// # Errors
    /// If the model fails, for example on a sequence longer than its context.
    fn loglikelihood(&mut self, requests: &[(Vec<u32>, Vec<u32>)]) -> Result<Vec<LogLikelihood>>;

    /// Continues each prompt greedily up to one of the `stop` tokens, which is left out, or up to
    /// `max_new` tokens.
    ///
    /// # Errors
    /// If the model fails.
    fn generate_greedy(
        &mut self,
        prompts: &[Vec<u32>],
        max_new: usize,
        stop: &[u32],
    ) -> Result<Vec<Vec<u32>>>;
}
