//! Probabilities of given tokens.

use tritburn_kernels::ops::argmax;

use crate::engine::Engine;
use crate::error::{EngineError, Result};

impl Engine {
    /// Sum of the log-probabilities of `continuation` after `context`, and whether greedy
    /// decoding would have produced it.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`] where either is empty, [`EngineError::ContextTooLong`],
    /// [`EngineError::TokenOutOfRange`] or [`EngineError::NotFinite`].
    pub fn loglikelihood(&self, context: &[u32], continuation: &[u32]) -> Result<(f64, bool)> {
        if context.is_empty() || continuation.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let tokens = [context, continuation].concat();
        let mut sum = 0.0;
        let mut greedy = true;
        self.each_logprob(&tokens, context.len(), &mut |logprob, is_best| {
            sum += logprob;
            greedy &= is_best;
        })?;
        Ok((sum, greedy))
    }

    /// Log-probability of each token after the first, given those before it. Their mean, negated
    /// and exponentiated, is the perplexity.
    ///
    /// # Errors
    /// As [`Self::loglikelihood`].
    pub fn token_logprobs(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let mut all = Vec::with_capacity(tokens.len());
        self.each_logprob(tokens, 1, &mut |logprob, _| all.push(logprob as f32))?;
        Ok(all)
    }

    /// Shows log-probability and argmax hit of `tokens[first..]`, `first` at least 1.
    fn each_logprob(
        &self,
        tokens: &[u32],
        first: usize,
        each: &mut dyn FnMut(f64, bool),
    ) -> Result<()> {
        let Some((&last, seen)) = tokens.split_last() else {
            return Err(EngineError::EmptyPrompt);
        };
        let mut session = self.new_session(tokens.len());
        session.check(&[last])?;
        if seen.is_empty() {
            return Ok(());
        }
        let mut finite = true;
        session.each_logits(seen, first - 1, &mut |i, logits| {
            let target = tokens[i + 1] as usize;
            let logprob = f64::from(logits[target]) - log_sum_exp(logits);
            finite &= logprob.is_finite();
            each(logprob, argmax(logits) == Some(target));
        })?;
        if finite {
            Ok(())
        } else {
            Err(EngineError::NotFinite)
        }
    }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
    let sum: f64 = logits.iter().map(|&v| f64::from((v - max).exp())).sum();
    f64::from(max) + sum.ln()
}
