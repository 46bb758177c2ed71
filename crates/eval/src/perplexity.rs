//! Perplexity of running text.

use serde::{Deserialize, Serialize};
use tritburn_data::Tokenizer;

use crate::error::{EvalError, Result};
use crate::scorer::Scorer;

/// Windows given to the scorer at once.
const WINDOWS_AT_ONCE: usize = 16;

/// How long documents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// Tokens that the model sees at once, at most.
    pub window: usize,
    /// Tokens scored per window. `window − 1` cuts the text into pieces that share one token of
    /// context, as lm-eval's rolling log-likelihood does; a smaller stride gives every token at
    /// least `window − stride` tokens of context and costs more.
    pub stride: usize,
}

impl Windows {
    /// Pieces without overlap but for one token of context.
    pub fn disjoint(window: usize) -> Self {
        Self {
            window,
            stride: window.saturating_sub(1),
        }
    }
}

/// Perplexity of a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PerplexityReport {
    /// Documents.
    pub documents: usize,
    /// Tokens scored.
    pub tokens: usize,
    /// Bytes of UTF-8 text.
    pub bytes: usize,
    /// Sum of the negative natural log-likelihoods.
    pub nll: f64,
    /// `exp(nll / tokens)`; depends on the tokenizer.
    pub ppl: f64,
    /// `nll / (bytes · ln 2)`; comparable between tokenizers.
    pub bits_per_byte: f64,
    /// How the text was cut.
    pub windows: Windows,
}

/// Scores every token of every document exactly once, given those before it in its window. The
/// first token follows the start token; without one in the tokenizer it follows the end token, as
/// in lm-eval.
///
/// `progress` is told documents done and documents in all.
///
/// # Errors
/// If the windows do not fit, if there is no text, or if the scorer fails.
pub fn perplexity(
    scorer: &mut dyn Scorer,
    tokenizer: &Tokenizer,
    documents: &[String],
    windows: Windows,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<PerplexityReport> {
    let Windows { window, stride } = windows;
    if window < 2 || stride == 0 || stride >= window {
        return Err(EvalError::Window { window, stride });
    }
    let start = tokenizer.bos().unwrap_or(tokenizer.eos());
    let (mut nll, mut tokens, mut bytes) = (0.0, 0, 0);
    for (index, document) in documents.iter().enumerate() {
        let ids: Vec<u32> = std::iter::once(start)
            .chain(tokenizer.encode(document, false)?)
            .collect();
        let requests = cut(&ids, windows);
        for some in requests.chunks(WINDOWS_AT_ONCE) {
            let scores = scorer.loglikelihood(some)?;
            if scores.len() != some.len() {
                return Err(EvalError::AnswerCount {
                    asked: some.len(),
                    got: scores.len(),
                });
            }
            nll -= scores.iter().map(|score| score.sum).sum::<f64>();
        }
        tokens += ids.len() - 1;
        bytes += document.len();
        progress(index + 1, documents.len());
    }
    if tokens == 0 {
        return Err(EvalError::Nothing {
            message: "the corpus holds no text".to_owned(),
        });
    }
    Ok(PerplexityReport {
        documents: documents.len(),
        tokens,
        bytes,
        nll,
        ppl: (nll / tokens as f64).exp(),
        bits_per_byte: nll / (bytes as f64 * std::f64::consts::LN_2),
        windows,
    })
}

/// `(context, scored)` pairs that cover `ids[1..]` once.
fn cut(ids: &[u32], Windows { window, stride }: Windows) -> Vec<(Vec<u32>, Vec<u32>)> {
    let mut pieces = Vec::new();
    let mut from = 1;
    while from < ids.len() {
        // The first window has no earlier text, so it can score as much as fits.
        let scored = if from == 1 { window - 1 } else { stride };
        let to = (from + scored).min(ids.len());
        let context = (to.saturating_sub(window)).min(from - 1);
        pieces.push((ids[context..from].to_vec(), ids[from..to].to_vec()));
        from = to;
    }
    pieces
}

#[cfg(test)]
#[path = "perplexity_tests.rs"]
mod tests;
