//! A model whose tokens are bytes and whose answer is the prompt, spelled backwards.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use tritburn_engine::{ChatMessage, Event, FinishReason, Generation, GenerationParams};

use crate::{Error, TextModel};

/// Holds generations at their first event until opened.
#[derive(Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let open = self.open.lock().unwrap();
        drop(self.changed.wait_while(open, |open| !*open).unwrap());
    }
}

/// What the mock has done.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) started: AtomicUsize,
    pub(crate) cancelled: AtomicUsize,
    pub(crate) finished: AtomicUsize,
    pub(crate) last_params: Mutex<Option<GenerationParams>>,
    pub(crate) last_messages: Mutex<Vec<ChatMessage>>,
}

#[derive(Default)]
pub(crate) struct Mock {
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) log: Arc<Log>,
    /// Goes on for ever, past `max_tokens`, until cancelled.
    pub(crate) endless: bool,
    /// Fails after the first piece of text.
    pub(crate) fails: bool,
    pub(crate) panics: bool,
}

impl TextModel for Mock {
    fn id(&self) -> &str {
        "org/mock"
    }

    fn max_context(&self) -> usize {
        64
    }

    fn vocab_size(&self) -> usize {
        256
    }

    fn encode_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, Error> {
        *self.log.last_messages.lock().unwrap() = messages.to_vec();
        let last = messages.last().unwrap();
        if last.role != "user" {
            return Err(Error::Prompt {
                message: "the last turn must be the user's".to_owned(),
            });
        }
        self.encode_text(&last.content)
    }

    fn encode_text(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn generate(
        &self,
        prompt: &[u32],
        params: &GenerationParams,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, Error> {
        self.log.started.fetch_add(1, Ordering::SeqCst);
        *self.log.last_params.lock().unwrap() = Some(params.clone());
        assert!(!self.panics, "asked to panic");
        let mut generation = Generation {
            text: String::new(),
            tokens: Vec::new(),
            finish_reason: FinishReason::Stop,
            prompt_tokens: prompt.len(),
            completion_tokens: 0,
            prompt_seconds: 0.0,
            decode_seconds: 0.0,
        };
        let reversed = prompt.iter().rev().copied();
        let tokens: Box<dyn Iterator<Item = u32>> = if self.endless {
            Box::new(reversed.cycle())
        } else {
            Box::new(reversed)
        };
        for token in tokens {
            if generation.completion_tokens == params.max_tokens && !self.endless {
                generation.finish_reason = FinishReason::Length;
                break;
            }
            let text = char::from(u8::try_from(token).unwrap()).to_string();
            if params.stop.contains(&text) {
                break;
            }
            if let Some(gate) = &self.gate {
                gate.wait();
            }
            generation.completion_tokens += 1;
            let told = [Event::Token(token), Event::Text(&text)].map(&mut *on_event);
            if told.iter().any(ControlFlow::is_break) {
                self.log.cancelled.fetch_add(1, Ordering::SeqCst);
                generation.finish_reason = FinishReason::Cancelled;
                break;
            }
            if self.fails {
                return Err(Error::Model {
                    source: "out of luck".into(),
                });
            }
            if self.endless {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        self.log.finished.fetch_add(1, Ordering::SeqCst);
        Ok(generation)
    }
}
