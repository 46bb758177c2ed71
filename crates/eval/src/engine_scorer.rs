//! Evaluating what the engine runs: exports and checkpoints on the CPU.

use std::ops::ControlFlow;

use tritburn_engine::{Engine, EngineError, GenerationParams, Session};

use crate::error::Result;
use crate::scorer::{LogLikelihood, Scorer};

/// A [`Scorer`] over the engine.
#[derive(Debug)]
pub struct EngineScorer<'a> {
    engine: &'a Engine,
}

impl<'a> EngineScorer<'a> {
    /// Wraps an engine.
    pub fn new(engine: &'a Engine) -> Self {
        Self { engine }
    }
}

impl Scorer for EngineScorer<'_> {
    fn loglikelihood(&mut self, requests: &[(Vec<u32>, Vec<u32>)]) -> Result<Vec<LogLikelihood>> {
        let mut answers = Vec::with_capacity(requests.len());
        for same in requests.chunk_by(|a, b| a.0 == b.0) {
            if let [(context, continuation)] = same {
                let (sum, is_greedy) = self.engine.loglikelihood(context, continuation)?;
                answers.push(LogLikelihood { sum, is_greedy });
            } else {
                answers.extend(shared_context(self.engine, same)?);
            }
        }
        Ok(answers)
    }

    fn generate_greedy(
        &mut self,
        prompts: &[Vec<u32>],
        max_new: usize,
        stop: &[u32],
    ) -> Result<Vec<Vec<u32>>> {
        let params = GenerationParams {
            max_tokens: max_new,
            stop_token_ids: stop.to_vec(),
            // Only the caller's tokens end it, as with every scorer.
            ignore_eos: true,
            ..GenerationParams::default()
        };
        prompts
            .iter()
            .map(|prompt| {
                let done = self
                    .engine
                    .generate(prompt, &params, &mut |_| ControlFlow::Continue(()))?;
                Ok(done.tokens)
            })
            .collect()
    }
}

/// Reads the context once and goes back to its end for every continuation.
fn shared_context(engine: &Engine, same: &[(Vec<u32>, Vec<u32>)]) -> Result<Vec<LogLikelihood>> {
    let context = &same[0].0;
    let longest = same
        .iter()
        .map(|(_, continuation)| continuation.len())
        .max()
        .unwrap_or(0);
    let mut session = engine.new_session(context.len() + longest);
    let first = session.prefill(context)?.to_vec();
    same.iter()
        .map(|(_, continuation)| score(&mut session, &first, context.len(), continuation))
        .collect()
}

fn score(
    session: &mut Session,
    first: &[f32],
    context: usize,
    continuation: &[u32],
) -> Result<LogLikelihood> {
    let mut total = LogLikelihood {
        sum: 0.0,
        is_greedy: true,
    };
    let Some((&last, seen)) = continuation.split_last() else {
        return Err(EngineError::EmptyPrompt.into());
    };
    session.truncate(context);
    let rest = if seen.is_empty() {
        Vec::new()
    } else {
        session.prefill_all(seen)?
    };
    let rows = std::iter::once(first).chain(rest.chunks_exact(first.len()));
    for (logits, &target) in rows.zip(seen.iter().chain([&last])) {
        let Some(&logit) = logits.get(target as usize) else {
            return Err(EngineError::TokenOutOfRange {
                token: target,
                position: context,
                vocab_size: first.len(),
            }
            .into());
        };
        total.sum += f64::from(logit) - log_sum_exp(logits);
        // The first of equal logits counts as the best, as in greedy decoding.
        let better = |(index, &value): (usize, &f32)| {
            value > logit || (value == logit && index < target as usize)
        };
        total.is_greedy &= !logits.iter().enumerate().any(better);
    }
    Ok(total)
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|&logit| f64::from(logit - max).exp())
        .sum();
    f64::from(max) + sum.ln()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tritburn_engine::{EngineOptions, ModelConfig};

    use super::*;

    fn engine() -> Engine {
        let config: ModelConfig = serde_json::from_value(serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        }))
        .unwrap();
        Engine::random(&config, 3, EngineOptions::default()).unwrap()
    }

    #[test]
    fn a_shared_context_scores_like_a_fresh_one() {
        let engine = engine();
        let mut scorer = EngineScorer::new(&engine);
        let context = vec![1, 7, 9, 30];
        let answers = [vec![5], vec![6, 8, 40], vec![12, 2]];
        let requests: Vec<_> = answers
            .iter()
            .map(|a| (context.clone(), a.clone()))
            .collect();
        let together = scorer.loglikelihood(&requests).unwrap();
        for (request, shared) in requests.iter().zip(&together) {
            let alone = scorer.loglikelihood(std::slice::from_ref(request)).unwrap()[0];
            assert!(
                (alone.sum - shared.sum).abs() < 1e-4,
                "{alone:?} {shared:?}"
            );
            assert_eq!(alone.is_greedy, shared.is_greedy);
        }
    }

    #[test]
    fn what_it_generates_is_what_it_calls_greedy() {
        let engine = engine();
        let mut scorer = EngineScorer::new(&engine);
        let context = vec![1, 7, 9, 30];
        let text = scorer
            .generate_greedy(std::slice::from_ref(&context), 3, &[])
            .unwrap()
            .remove(0);
        assert_eq!(text.len(), 3);
        let scores =
            scorer.loglikelihood(&[(context.clone(), text.clone()), (context.clone(), vec![63])]);
        assert!(scores.unwrap()[0].is_greedy);
        let stopped = scorer.generate_greedy(&[context], 3, &[text[0]]).unwrap();
        assert_eq!(stopped, [Vec::<u32>::new()]);
    }

    #[test]
    fn bad_tokens_are_errors() {
        let engine = engine();
        let mut scorer = EngineScorer::new(&engine);
        for bad in [vec![64], vec![1, 64], vec![64, 1]] {
            let requests = [(vec![1], bad), (vec![1], vec![2])];
            let message = scorer.loglikelihood(&requests).unwrap_err().to_string();
            assert!(message.contains("vocabulary of 64"), "{message}");
        }
        assert!(scorer.loglikelihood(&[(vec![1; 40], vec![2])]).is_err());
    }
}
