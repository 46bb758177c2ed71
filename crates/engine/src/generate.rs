//! Text generation: prefill, then sample and decode until something ends it.

use std::ops::ControlFlow;
use std::time::Instant;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::sampling::{Sampler, SamplingParams};
use crate::session::PREFILL_CHUNK;
use crate::stop::StopMatcher;
use crate::tokenizer::IncrementalDecoder;

/// What to generate and when to end.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationParams {
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Most tokens to generate; the context may end it before.
    pub max_tokens: usize,
    /// Texts that end the generation and are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end the generation, beside those of the model.
    pub stop_token_ids: Vec<u32>,
    /// Whether to go on after the model's own end-of-text tokens.
    pub ignore_eos: bool,
}

impl Default for GenerationParams {
    /// Greedy, up to 256 tokens.
    fn default() -> Self {
        Self {
            sampling: SamplingParams::default(),
            max_tokens: 256,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
        }
    }
}

/// What happens while a text is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// So many tokens of the prompt have been read.
    Prompt {
        /// Tokens read so far.
        done: usize,
        /// Tokens of the whole prompt.
        total: usize,
    },
    /// A token was chosen. Its text may come later, or never where it is part of a stop string.
    Token(u32),
    /// More text, whole characters only; never empty.
    Text(&'a str),
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-text token, a stop token or a stop string.
    Stop,
    /// `max_tokens`, or the context is full.
    Length,
    /// The receiver of events asked for it.
    Cancelled,
}

/// A finished generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The text, without special tokens and without the stop string. Empty where the model has no
    /// tokenizer.
    pub text: String,
    /// The tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Number of `tokens`.
    pub completion_tokens: usize,
    /// Seconds until the whole prompt was read.
    pub prompt_seconds: f64,
    /// Seconds from there to the end.
    pub decode_seconds: f64,
}

impl Engine {
    /// Continues `prompt`, telling `on_event` of every step; `Break` ends it.
    ///
    /// # Errors
    /// [`EngineError::EmptyPrompt`], [`EngineError::ContextTooLong`] where the prompt leaves no
    /// room for a token, [`EngineError::TokenOutOfRange`], [`EngineError::Parameter`], or
    /// [`EngineError::NotFinite`].
    pub fn generate(
        &self,
        prompt: &[u32],
        params: &GenerationParams,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generation> {
        if params.stop.iter().any(String::is_empty) {
            return Err(EngineError::Parameter {
                field: "stop",
                value: "\"\"".into(),
                expected: "an empty text cannot end a generation",
            });
        }
        let max = self.config().max_position_embeddings;
        if prompt.len() >= max {
            return Err(EngineError::ContextTooLong {
                tokens: prompt.len() + 1,
                max,
            });
        }
        let limit = params.max_tokens.min(max - prompt.len());
        let mut sampler = Sampler::new(params.sampling.clone(), prompt)?;
        let mut session = self.new_session(prompt.len() + limit);
        let mut run = Run {
            engine: self,
            params,
            limit,
            tokens: Vec::new(),
            text: String::new(),
            decoder: self.tokenizer().map(|t| t.incremental_decoder()),
            stops: StopMatcher::new(&params.stop),
            on_event,
        };

        let start = Instant::now();
        let mut finish = (limit == 0).then_some(FinishReason::Length);
        session.check(prompt)?;
        let total = prompt.len();
        let mut token = None;
        for chunk in prompt.chunks(PREFILL_CHUNK) {
            session.prefill(chunk)?;
            let done = session.len();
            if (run.on_event)(Event::Prompt { done, total }).is_break() {
                finish = Some(FinishReason::Cancelled);
                break;
            }
        }
        let prompt_seconds = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let finish_reason = loop {
            if let Some(reason) = finish {
                break reason;
            }
            if let Some(token) = token {
                session.decode(token)?;
            }
            let chosen = sampler.sample(session.last_logits())?;
            finish = run.accept(chosen)?;
            token = Some(chosen);
        };
        run.flush(finish_reason)?;
        Ok(Generation {
            completion_tokens: run.tokens.len(),
            text: run.text,
            tokens: run.tokens,
            finish_reason,
            prompt_tokens: prompt.len(),
            prompt_seconds,
            decode_seconds: start.elapsed().as_secs_f64(),
        })
    }
}

/// What has been generated so far.
struct Run<'a> {
    engine: &'a Engine,
    params: &'a GenerationParams,
    limit: usize,
    tokens: Vec<u32>,
    text: String,
    decoder: Option<IncrementalDecoder<'a>>,
    stops: StopMatcher<'a>,
    on_event: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
}

impl Run<'_> {
    /// Takes the chosen token; returns why the generation ends, where it does.
    fn accept(&mut self, token: u32) -> Result<Option<FinishReason>> {
        let eos = !self.params.ignore_eos && self.engine.eos.contains(&token);
        if eos || self.params.stop_token_ids.contains(&token) {
            return Ok(Some(FinishReason::Stop));
        }
        self.tokens.push(token);
        if (self.on_event)(Event::Token(token)).is_break() {
            return Ok(Some(FinishReason::Cancelled));
        }
        let delta = match &mut self.decoder {
            Some(decoder) => decoder.push(token)?,
            None => String::new(),
        };
        let (shown, stopped) = self.stops.push(&delta);
        let flow = self.show(&shown);
        Ok(if stopped {
            Some(FinishReason::Stop)
        } else if flow.is_break() {
            Some(FinishReason::Cancelled)
        } else if self.tokens.len() == self.limit {
            Some(FinishReason::Length)
        } else {
            None
        })
    }

    /// Shows what was held back for a character or a stop string that did not come.
    fn flush(&mut self, reason: FinishReason) -> Result<()> {
        let rest = match &mut self.decoder {
            Some(decoder) if reason != FinishReason::Cancelled => decoder.finish()?,
            _ => return Ok(()),
        };
        // After a stop string nothing is held, and what the decoder holds lies behind it.
        if !self.stops.stopped() {
            let (shown, stopped) = self.stops.push(&rest);
            let held = if stopped {
                String::new()
            } else {
                self.stops.finish()
            };
            // The generation is over: there is nothing left to break off.
            let _ = self.show(&(shown + &held));
        }
        Ok(())
    }

    fn show(&mut self, text: &str) -> ControlFlow<()> {
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        self.text.push_str(text);
        (self.on_event)(Event::Text(text))
    }
}
