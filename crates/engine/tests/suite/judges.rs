//! Our exports in other programs. Each test says why where it does not run.
//!
//! - `TRITBURN_JUDGE_PYTHON`: a Python with transformers and torch.
//! - `TRITBURN_LLAMA_PERPLEXITY`, `TRITBURN_BITNET_PERPLEXITY`: `llama-perplexity` of llama.cpp and
//!   of bitnet.cpp. Where the first is not given, the llama.cpp in the package cyllama of that Python
//!   stands in for it.
//! - `TRITBURN_JUDGE_MODELS`: packed model folders with a tokenizer, separated by colons, to be
//!   judged beside those that the tests make; `TRITBURN_JUDGE_TEXT`: a file with a text for them.
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tritburn_engine::{Engine, EngineOptions};
use tritburn_quant::config::SubNorm;
use tritburn_quant::gguf::{GgufEmbedding, GgufTernary, write_gguf};

use crate::common::{Form, VOCAB, config, tensors, write, write_tokenizer};

/// Tokens of a chunk of text whose later half is predicted.
const CHUNK: usize = 128;

fn program(variable: &str) -> Option<OsString> {
    let found = std::env::var_os(variable).filter(|v| !v.is_empty());
    if found.is_none() {
        eprintln!("skipped: {variable} names no program");
    }
    found
}

fn given_models() -> Vec<PathBuf> {
    let given = std::env::var_os("TRITBURN_JUDGE_MODELS").unwrap_or_default();
    std::env::split_paths(&given)
        .filter(|p| !p.as_os_str().is_empty())
        .collect()
}

fn load(path: &Path) -> Engine {
    Engine::load(path, EngineOptions::exact()).unwrap()
}

/// A model with projections in `form`, whose widths fit every ternary type and whose logits are far
/// apart, so that differences show.
fn model(dir: &Path, model_type: &str, act: &str, form: Form) {
    let sub_norm = if model_type == "bitnet" {
        SubNorm::SubLn
    } else {
        SubNorm::None
    };
    let mut config = config(sub_norm, form);
    config["model_type"] = json!(model_type);
    config["hidden_act"] = json!(act);
    (config["hidden_size"], config["intermediate_size"]) = (json!(256), json!(512));
    config["head_dim"] = json!(64);
    config["max_position_embeddings"] = json!(512);
    config["rope_theta"] = json!(10_000.0);
    if model_type == "gemma3_text" {
        // llama.cpp wants a layer without a window too: the sixth.
        config["num_hidden_layers"] = json!(6);
        config["sliding_window"] = json!(64);
        config["query_pre_attn_scalar"] = json!(64);
    }
    let mut all = tensors(&config, form);
    for t in &mut all {
        if t.name.contains("embed_tokens") || t.name == "lm_head.weight" {
            for b in t.bytes.as_chunks_mut().0 {
                *b = (f32::from_le_bytes(*b) * 0.5).to_le_bytes();
            }
        }
    }
    write(dir, &config, &all);
    write_tokenizer(dir);
    let mut tokenizer: Value =
        serde_json::from_slice(&std::fs::read(dir.join("tokenizer.json")).unwrap()).unwrap();
    // llama.cpp refuses a vocabulary without merges.
    tokenizer["model"]["vocab"]["th"] = json!(257);
    tokenizer["model"]["vocab"]["in"] = json!(258);
    tokenizer["model"]["merges"] = json!(["t h", "i n"]);
    std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

/// What transformers makes of a folder.
struct Judged {
    /// Logits after each token.
    logits: Vec<f32>,
    /// The same with the products of `AutoBitLinear` over whole codes, where it has such layers.
    codes: Option<Vec<f32>>,
}

/// Judges each folder on `tokens`; `None` where the packages are not there.
fn transformers_logits(
    python: &OsString,
    folders: &[PathBuf],
    tokens: &[u32],
) -> Option<Vec<Judged>> {
    let out = tempfile::tempdir().unwrap();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/judges/transformers_logits.py"
    );
    let tokens: Vec<String> = tokens.iter().map(u32::to_string).collect();
    let mut command = Command::new(python);
    command.arg(script).arg(tokens.join(","));
    let files: Vec<PathBuf> = (0..folders.len())
        .map(|i| out.path().join(i.to_string()))
        .collect();
    for (folder, file) in folders.iter().zip(&files) {
        command.arg(folder).arg(file);
    }
    let run = command.output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    if run.status.code() == Some(3) {
        eprintln!("skipped: {said}");
        return None;
    }
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}{error}");
    eprint!("{said}");
    let read = |file: &Path| -> Vec<f32> {
        let bytes = std::fs::read(file).unwrap();
        let words = bytes.as_chunks().0.iter();
        words.map(|b| f32::from_le_bytes(*b)).collect()
    };
    let judged = |file: &PathBuf| {
        let codes = file.with_extension("codes");
        Judged {
            logits: read(file),
            codes: codes.exists().then(|| read(&codes)),
        }
    };
    Some(files.iter().map(judged).collect())
}

/// How many tokens from the first have the same logits, and the largest difference of all, as a
/// share of the largest logit.
fn agreement(ours: &[f32], theirs: &[f32], vocab: usize) -> (usize, f32) {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0f32, |m, v| m.max(v.abs()));
    let rows = ours.chunks(vocab).zip(theirs.chunks(vocab));
    let off = rows.map(|(ours, theirs)| {
        let pairs = ours.iter().zip(theirs);
        pairs.fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
    });
    let off: Vec<f32> = off.collect();
    let same = off.iter().take_while(|d| **d < 1e-5).count();
    (same, off.iter().fold(0f32, |m, d| m.max(*d)))
}

/// Activations that lie between two codes are rounded either way, according to the last bit of what
/// came before: from that token on, logits differ by a step of some activation. `AutoBitLinear`
/// rounds its sums, so there it happens often; where sums are exact, most models have no such token.
#[test]
fn transformers_computes_our_logits() {
    let Some(python) = program("TRITBURN_JUDGE_PYTHON") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut folders = given_models();
    let given = folders.len();
    for (model_type, act) in [
        ("bitnet", "silu"),
        ("bitnet", "relu2"),
        ("llama", "silu"),
        ("qwen2", "silu"),
        ("qwen3", "silu"),
        ("gemma3_text", "gelu_pytorch_tanh"),
    ] {
        for (name, form) in [("auto", Form::AutoBitLinear), ("bit", Form::BitLinear)] {
            if (model_type, form) == ("qwen2", Form::AutoBitLinear) {
                // There transformers multiplies the bias by the scale of the weights too.
                continue;
            }
            let folder = dir.path().join(format!("{model_type}-{act}-{name}"));
            std::fs::create_dir(&folder).unwrap();
            model(&folder, model_type, act, form);
            folders.push(folder);
        }
    }
    let tokens: Vec<u32> = (0..24).map(|i| i * 37 % VOCAB as u32).collect();
    let Some(all) = transformers_logits(&python, &folders, &tokens) else {
        return;
    };
    for (i, (folder, theirs)) in folders.iter().zip(all).enumerate() {
        let engine = load(folder);
        let vocab = engine.config().vocab_size;
        let ours = engine.new_session(64).prefill_all(&tokens).unwrap();
        let mut sharpest = 0;
        for (way, theirs) in [
            ("as it is", Some(theirs.logits)),
            ("over whole codes", theirs.codes),
        ] {
            let Some(theirs) = theirs else { continue };
            let (same, worst) = agreement(&ours, &theirs, vocab);
            eprintln!(
                "{}, {way}: {same} of {} tokens the same, at most {worst:.1e} off",
                folder.display(),
                tokens.len()
            );
            assert!(worst < 5e-2, "{}: {worst}", folder.display());
            sharpest = same;
        }
        // Gemma's have a token of that kind, and given ones may.
        let certain = i >= given && !folder.to_string_lossy().contains("gemma3_text");
        assert!(
            !certain || sharpest == tokens.len(),
            "{}: only {sharpest} tokens",
            folder.display()
        );
    }
}

/// Perplexity of the later half of each chunk, as `llama-perplexity` defines it.
fn perplexity(path: &Path, text: &str) -> f64 {
    let engine = load(path);
    let tokens = engine.encode(text, true).unwrap();
    let (mut sum, mut count) = (0.0, 0);
    for chunk in tokens.chunks_exact(CHUNK) {
        let logprobs = engine.token_logprobs(chunk).unwrap();
        // The first is that of the second token.
        let counted = &logprobs[CHUNK / 2..];
        sum -= counted.iter().map(|&p| f64::from(p)).sum::<f64>();
        count += counted.len();
    }
    (sum / f64::from(count as u32)).exp()
}

/// `None` where the program says that it cannot run here.
fn their_perplexity(program: &[OsString], path: &Path, text: &Path) -> Option<f64> {
    let chunk = CHUNK.to_string();
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]);
    command.arg("-m").arg(path).arg("-f").arg(text);
    command.args(["-c", &chunk, "-b", &chunk, "-t", "1"]);
    let run = command.output().unwrap();
    let said = [run.stdout, run.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if run.status.code() == Some(3) {
        eprintln!("skipped: {said}");
        return None;
    }
    let found = said
        .split("PPL = ")
        .nth(1)
        .and_then(|s| s.split_whitespace().next());
    let Some(found) = found.filter(|_| run.status.success()) else {
        panic!("{}: {:?} {said}", path.display(), run.status);
    };
    Some(found.parse().unwrap())
}

/// Compares perplexities of the given models, which may differ by 0.5%, and of models made after
/// `cases`, in all `types`.
fn compare(program: &[OsString], cases: &[(&str, &str)], types: &[(GgufTernary, GgufEmbedding)]) {
    let dir = tempfile::tempdir().unwrap();
    let mut folders = given_models();
    let given = folders.len();
    for (model_type, act) in cases {
        let folder = dir.path().join(format!("{model_type}-{act}"));
        std::fs::create_dir(&folder).unwrap();
        model(&folder, model_type, act, Form::AutoBitLinear);
        folders.push(folder);
    }
    let text = std::env::var_os("TRITBURN_JUDGE_TEXT").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../CONTRIBUTING.md"
            ))
        },
        PathBuf::from,
    );
    let words = std::fs::read_to_string(&text).unwrap();
    for (i, folder) in folders.into_iter().enumerate() {
        // The logits of models that were not trained are far apart, and what rounding does with them.
        let most = if i < given { 5e-3 } else { 3e-2 };
        for &(ternary, embedding) in types {
            let path = dir.path().join("model.gguf");
            write_gguf(&folder, &path, ternary, embedding).unwrap();
            let ours = perplexity(&path, &words);
            let Some(theirs) = their_perplexity(program, &path, &text) else {
                return;
            };
            let off = (ours / theirs - 1.0).abs();
            eprintln!(
                "{} {} {}: ours {ours:.4}, theirs {theirs:.4}, {:.3}%",
                folder.display(),
                ternary.name(),
                embedding.name(),
                100.0 * off
            );
            assert!(off < most, "{} {ternary:?} {embedding:?}", folder.display());
        }
    }
}

#[test]
fn llama_cpp_has_our_perplexity() {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/judges/llama_cpp_perplexity.py"
    );
    let program = match program("TRITBURN_LLAMA_PERPLEXITY") {
        Some(program) => vec![program],
        None => match program("TRITBURN_JUDGE_PYTHON") {
            Some(python) => vec![python, script.into()],
            None => return,
        },
    };
    let types = [
        (GgufTernary::Tq1_0, GgufEmbedding::F16),
        (GgufTernary::Tq2_0, GgufEmbedding::F16),
        (GgufTernary::Tq2_0, GgufEmbedding::Q8_0),
        (GgufTernary::Tq2_0, GgufEmbedding::Q6K),
    ];
    let cases = [
        ("llama", "silu"),
        ("bitnet", "silu"),
        ("qwen2", "silu"),
        ("qwen3", "silu"),
        ("gemma3_text", "gelu_pytorch_tanh"),
    ];
    compare(&program, &cases, &types);
}

#[test]
fn bitnet_cpp_has_our_perplexity() {
    let Some(program) = program("TRITBURN_BITNET_PERPLEXITY") else {
        return;
    };
    let program = [program];
    let types = [(GgufTernary::I2S, GgufEmbedding::F16)];
    let cases = [("llama", "silu"), ("bitnet", "silu"), ("bitnet", "relu2")];
    compare(&program, &cases, &types);
}
