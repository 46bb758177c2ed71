//! What callers say of the choice of a token.

use crate::error::{EngineError, Result};

/// How the next token is chosen. Applied in this order: penalties, temperature, top-k, top-p,
/// min-p.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Keeps the `k` most likely tokens; `None` or 0 keeps all.
    pub top_k: Option<usize>,
    /// Keeps the most likely tokens whose probabilities add up to this; 1 keeps all.
    pub top_p: f32,
    /// Drops tokens less likely than this share of the most likely; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in prompt or completion; 1 is off.
    pub repetition_penalty: f32,
    /// Taken off the logit of a token for each time it stands in the completion; 0 is off.
    pub frequency_penalty: f32,
    /// Taken off the logit of every token that stands in the completion; 0 is off.
    pub presence_penalty: f32,
    /// The same seed gives the same choices.
    pub seed: u64,
}

impl Default for SamplingParams {
    /// Greedy.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// Checks every field.
    ///
    /// # Errors
    /// [`EngineError::Parameter`] for the first field out of range.
    pub fn validate(&self) -> Result<()> {
        let checks = [
            (
                "temperature",
                self.temperature,
                0.0..=100.0,
                "it must be between 0 and 100",
            ),
            (
                "top_p",
                self.top_p,
                f32::MIN_POSITIVE..=1.0,
                "it must be above 0 and at most 1",
            ),
            ("min_p", self.min_p, 0.0..=1.0, "it must be between 0 and 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                f32::MIN_POSITIVE..=1e6,
                "it must be positive",
            ),
            (
                "frequency_penalty",
                self.frequency_penalty,
                -2.0..=2.0,
                "it must be between −2 and 2",
            ),
            (
                "presence_penalty",
                self.presence_penalty,
                -2.0..=2.0,
                "it must be between −2 and 2",
            ),
        ];
        for (field, value, range, expected) in checks {
            if !range.contains(&value) {
                return Err(EngineError::Parameter {
                    field,
                    value: value.to_string(),
                    expected,
                });
            }
        }
        Ok(())
    }

    /// Whether logits of known tokens change.
    pub(super) fn penalises(&self) -> bool {
        let counted = self.frequency_penalty != 0.0 || self.presence_penalty != 0.0;
        self.repetition_penalty != 1.0 || counted
    }
}
