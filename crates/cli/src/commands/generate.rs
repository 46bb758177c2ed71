//! `tritburn generate`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read;
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tritburn_engine::{
    ChatMessage, Engine, Event, FinishReason, Generation, GenerationParams, SamplingParams,
};

use crate::engine_args::EngineArgs;
use crate::{model_path, output};

/// Largest prompt taken from stdin, in bytes.
const MAX_PROMPT: u64 = 1 << 26;

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of an export, a run, a stage or a checkpoint
    model: PathBuf,
    /// Text to continue; `-` reads it from stdin
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: String,
    /// Most tokens to write
    #[arg(long, value_name = "N", default_value_t = GenerationParams::default().max_tokens)]
    max_tokens: usize,
    /// Divides the logits; 0 takes the most likely token each time
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Keep the K most likely tokens; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Keep the most likely tokens whose probabilities add up to P
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Drop tokens less likely than this share of the most likely
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Make tokens that stand in the text less likely; 1 is off
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Makes the choices repeatable [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Text that ends the answer and is left out; may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Take the prompt as the user's turn of a chat
    #[arg(long)]
    chat: bool,
    /// The system's turn of the chat
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Print one JSON object at the end and no text before
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    text: &'a str,
    tokens: &'a [u32],
    finish_reason: &'static str,
    prompt_tokens: usize,
    completion_tokens: usize,
    prompt_tok_s: Option<f64>,
    decode_tok_s: Option<f64>,
}

impl<'a> Report<'a> {
    fn new(done: &'a Generation) -> Self {
        Self {
            text: &done.text,
            tokens: &done.tokens,
            finish_reason: match done.finish_reason {
                FinishReason::Stop => "stop",
                FinishReason::Length => "length",
                FinishReason::Cancelled => "cancelled",
            },
            prompt_tokens: done.prompt_tokens,
            completion_tokens: done.completion_tokens,
            prompt_tok_s: rate(done.prompt_tokens, done.prompt_seconds),
            // The pass over the prompt has given the first token.
            decode_tok_s: rate(
                done.completion_tokens.saturating_sub(1),
                done.decode_seconds,
            ),
        }
    }
}

/// Generates.
pub(crate) fn run(args: Args) -> Result<()> {
    let folder = model_path::resolve(&args.model)?;
    let seed = args
        .seed
        .unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let sampling = SamplingParams {
        temperature: args.temperature,
        top_k: Some(args.top_k),
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        seed,
        ..SamplingParams::default()
    };
    // Before the model is loaded, which may take long.
    sampling.validate()?;
    let text = if args.prompt == "-" {
        read_stdin()?
    } else {
        args.prompt.clone()
    };
    let engine = args.engine.load(&folder)?;
    let prompt = encode(&args, &engine, text)?;
    let params = GenerationParams {
        sampling,
        max_tokens: args.max_tokens,
        stop: args.stop,
        ..GenerationParams::default()
    };
    let mut written = Ok(());
    let done = engine.generate(&prompt, &params, &mut |event| {
        match event {
            Event::Text(text) if !args.json => written = output::print(text),
            _ => {}
        }
        if written.is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    written?;
    let report = Report::new(&done);
    if args.json {
        output::print(format_args!("{}\n", serde_json::to_string(&report)?))?;
    } else {
        output::print("\n")?;
    }
    let shown = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.1}"));
    let drawn = if args.temperature > 0.0 {
        format!(", seed {seed}")
    } else {
        String::new()
    };
    output::say(format_args!(
        "prompt: {} tokens, {} tok/s; answer: {} tokens, {} tok/s ({}{drawn})",
        report.prompt_tokens,
        shown(report.prompt_tok_s),
        report.completion_tokens,
        shown(report.decode_tok_s),
        report.finish_reason,
    ));
    output::say(output::memory(&engine));
    Ok(())
}

fn encode(args: &Args, engine: &Engine, text: String) -> Result<Vec<u32>> {
    if !args.chat {
        return Ok(engine.encode(&text, true)?);
    }
    let turn = |role: &str, content| ChatMessage {
        role: role.to_owned(),
        content,
    };
    let system = args.system.clone().map(|text| turn("system", text));
    let messages: Vec<ChatMessage> = system.into_iter().chain([turn("user", text)]).collect();
    Ok(engine.encode_chat(&messages)?)
}

fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_PROMPT + 1)
        .read_to_end(&mut bytes)
        .context("cannot read the prompt from stdin")?;
    if bytes.len() as u64 > MAX_PROMPT {
        bail!("the prompt on stdin is longer than {MAX_PROMPT} bytes; give a shorter one");
    }
    String::from_utf8(bytes).context("the prompt on stdin is not UTF-8; re-encode it")
}

/// Tokens a second; `None` where there is nothing to measure.
fn rate(tokens: usize, seconds: f64) -> Option<f64> {
    (tokens > 0 && seconds > 0.0).then(|| tokens as f64 / seconds)
}
