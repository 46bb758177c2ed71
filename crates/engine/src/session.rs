//! One context: the tokens seen so far and the buffers to go on.

use std::sync::Arc;

use crate::engine::Core;
use crate::error::{EngineError, Result};
use crate::model::{Clock, KvCache, Scratch};

/// Tokens that go through the model at once; bounds the buffers of a long prompt.
pub(crate) const PREFILL_CHUNK: usize = 256;
/// Tokens whose logits are held at once.
const LOGITS_CHUNK: usize = 16;

/// The state of one conversation. Buffers are kept, so decoding allocates nothing once the cache
/// has grown.
#[derive(Debug)]
pub struct Session {
    core: Arc<Core>,
    cache: KvCache,
    scratch: Scratch,
}

impl Session {
    pub(crate) fn new(core: Arc<Core>, max_len: usize) -> Self {
        let config = &core.model.config;
        let cache = KvCache::new(
            config.num_hidden_layers,
            config.num_key_value_heads,
            config.head_dim(),
            max_len,
            core.kv,
        );
        let scratch = Scratch::new(config);
        Self {
            core,
            cache,
            scratch,
        }
    }

    /// Number of tokens in the context.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether the context holds no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most tokens that the context can hold.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.cache.max_len()
    }

    /// Makes room for `tokens` more than there are, which fit, so that they come without a pause.
    pub(crate) fn reserve(&mut self, tokens: usize) {
        self.cache.reserve(tokens);
    }

    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.cache.truncate(len);
    }

    /// Appends `tokens` and returns the logits, `[vocab]`, after the last.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`], [`EngineError::TokenOutOfRange`] or
    /// [`EngineError::ContextTooLong`]; the context is then as it was.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        self.each_logits(tokens, tokens.len().saturating_sub(1), &mut |_, _| {})?;
        Ok(self.last_logits())
    }

    /// Appends `tokens` and returns the logits after each of them, `[tokens, vocab]`.
    ///
    /// # Errors
    /// As [`Self::prefill`].
    pub fn prefill_all(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let mut all = Vec::with_capacity(tokens.len() * self.core.model.config.vocab_size);
        self.each_logits(tokens, 0, &mut |_, logits| all.extend_from_slice(logits))?;
        Ok(all)
    }

    /// Appends one token and returns the logits, `[vocab]`, after it.
    ///
    /// # Errors
    /// As [`Self::prefill`].
    pub fn decode(&mut self, token: u32) -> Result<&[f32]> {
        self.prefill(&[token])
    }

    /// Appends `tokens` and shows `each` the logits after token `first` and all later ones, by
    /// their place in `tokens`.
    pub(crate) fn each_logits(
        &mut self,
        tokens: &[u32],
        first: usize,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        self.check(tokens)?;
        let Self {
            core,
            cache,
            scratch,
        } = self;
        let (model, exec) = (&core.model, &core.exec);
        let vocab = model.config.vocab_size;
        // At once: a cache that grows with the chunks is held twice while it is copied.
        cache.reserve(tokens.len());
        for (i, chunk) in tokens.chunks(PREFILL_CHUNK).enumerate() {
            let start = i * PREFILL_CHUNK;
            model.forward(exec, chunk, cache, scratch);
            let wanted = first.saturating_sub(start)..chunk.len();
            for at in wanted.clone().step_by(LOGITS_CHUNK) {
                let n = LOGITS_CHUNK.min(wanted.end - at);
                model.logits(exec, at, n, scratch);
                for (k, logits) in scratch.logits().chunks_exact(vocab).enumerate() {
                    each(start + at + k, logits);
                }
            }
        }
        Ok(())
    }

    /// The logits that [`Self::prefill`] or [`Self::decode`] returned last.
    pub(crate) fn last_logits(&self) -> &[f32] {
        self.scratch.logits()
    }

    /// Bytes of weights that were not read so far since inputs were zero or gates closed.
    pub(crate) fn left_out(&self) -> u64 {
        self.scratch.left_out()
    }

    /// Measures from now on what each kind of operation takes, or no longer; returns the clock so
    /// far.
    pub(crate) fn set_clock(&mut self, clock: Option<Clock>) -> Option<Clock> {
        std::mem::replace(&mut self.scratch.clock, clock)
    }

    /// Whether `tokens` can be appended.
    pub(crate) fn check(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let vocab_size = self.core.model.config.vocab_size;
        if let Some(position) = tokens.iter().position(|&t| t as usize >= vocab_size) {
            return Err(EngineError::TokenOutOfRange {
                token: tokens[position],
                position,
                vocab_size,
            });
        }
        let total = self.len() + tokens.len();
        if total > self.max_len() {
            return Err(EngineError::ContextTooLong {
                tokens: total,
                max: self.max_len(),
            });
        }
        Ok(())
    }
}
