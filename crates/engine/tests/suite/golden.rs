//! Logits against those that transformers computed.
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use tritburn_engine::{
    Engine, EngineOptions, Event, Format, GenerationParams, HeadFormat, KvFormat,
};
use tritburn_quant::Dtype;
use tritburn_quant::tensor_file::TensorFile;

/// Models without ternary projections.
const DENSE: [&str; 6] = [
    "llama",
    "llama3_rope",
    "qwen2",
    "qwen3",
    "gemma3",
    "bitnet_unquantised",
];

/// Tokens of a greedy continuation.
const NEW: usize = 12;

fn model(name: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("TRITBURN_GOLDEN_DIR").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../../shared/golden"
            ))
        },
        PathBuf::from,
    );
    let dir = dir.join(name);
    if !dir.join("golden.safetensors").exists() {
        eprintln!("skipped: no golden vectors in {}", dir.display());
        return None;
    }
    Some(dir)
}

fn ids(file: &TensorFile, name: &str) -> (Vec<u32>, [usize; 2]) {
    let (_, shape) = file.info(name).unwrap();
    let shape = [shape[0], shape[1]];
    let bytes = file.bytes(name, Dtype::I32, &shape).unwrap();
    let ids = bytes.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b));
    (ids.collect(), shape)
}

/// One row of the golden batch: its tokens up to the padding, and the logits after each.
struct Row {
    tokens: Vec<u32>,
    logits: Vec<f32>,
}

fn rows(dir: &Path) -> Vec<Row> {
    let file = TensorFile::open(&dir.join("golden.safetensors")).unwrap();
    let (tokens, [batch, len]) = ids(&file, "input_ids");
    let (mask, _) = ids(&file, "attention_mask");
    let vocab = file.info("logits").unwrap().1[2];
    let logits = file.tensor_f32("logits", &[batch, len, vocab]).unwrap();
    let row = |b: usize| {
        let valid = mask[b * len..][..len].iter().filter(|&&m| m == 1).count();
        Row {
            tokens: tokens[b * len..][..valid].to_vec(),
            logits: logits[b * len * vocab..][..valid * vocab].to_vec(),
        }
    };
    (0..batch).map(row).collect()
}

/// Largest difference, as a share of the largest logit.
fn max_relative(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    let diff = got.iter().zip(want).map(|(g, w)| (g - w).abs());
    diff.fold(0f32, f32::max) / scale
}

fn options(kernel: &str) -> EngineOptions {
    EngineOptions {
        threads: Some(2),
        kernel: Some(kernel.into()),
        ..EngineOptions::exact()
    }
}

/// Every kernel's logits of folder `name` against the golden ones of folder `reference`.
fn check(name: &str, reference: &str, tolerance: f32) {
    let (Some(dir), Some(reference)) = (model(name), model(reference)) else {
        return;
    };
    for kernel in tritburn_kernels::available() {
        let engine = Engine::load(&dir, options(kernel.name())).unwrap();
        for row in rows(&reference) {
            let logits = engine.new_session(64).prefill_all(&row.tokens).unwrap();
            let diff = max_relative(&logits, &row.logits);
            eprintln!("{name} {}: relative difference {diff:e}", kernel.name());
            assert!(diff < tolerance, "{name} {}: {diff}", kernel.name());
        }
    }
}

#[test]
fn golden_backbones() {
    for name in DENSE {
        check(name, name, 1e-5);
    }
}

/// An activation next to a rounding boundary may fall on its other side, which moves one product
/// by a step of 1/127 of a token's maximum.
#[test]
fn golden_bitnet_online() {
    check(
        "bitnet_online_autobitlinear",
        "bitnet_online_autobitlinear",
        1e-4,
    );
}

/// The packed weights are those of the online model; transformers computes their logits partly in
/// bf16, so the sharper reference is the online one.
#[test]
fn golden_bitnet_offline() {
    check(
        "bitnet_offline_autobitlinear",
        "bitnet_online_autobitlinear",
        1e-4,
    );
}

#[test]
fn golden_bitnet_offline_is_near_its_own_bf16_logits() {
    check(
        "bitnet_offline_autobitlinear",
        "bitnet_offline_autobitlinear",
        5e-3,
    );
}

/// What runs by default, six bits for head and embedding and f16 for keys and values, in each ternary
/// format; a head of eight bits; and a more compact cache.
#[test]
fn golden_bitnet_in_default_formats() {
    let name = "bitnet_online_autobitlinear";
    let Some(dir) = model(name) else { return };
    for (format, head, kv, tolerance) in [
        (Format::TwoBit, None, None, 2e-2),
        (Format::TwoBit, Some(HeadFormat::Int8), None, 1e-2),
        (Format::Base3, None, None, 2e-2),
        (Format::Base3, None, Some(KvFormat::Int8), 3e-2),
    ] {
        let options = EngineOptions {
            format,
            head,
            kv,
            ..EngineOptions::default()
        };
        let engine = Engine::load(&dir, options).unwrap();
        assert_eq!(engine.info().head, head.unwrap_or(HeadFormat::Int6));
        for row in rows(&dir) {
            let logits = engine.new_session(64).prefill_all(&row.tokens).unwrap();
            let diff = max_relative(&logits, &row.logits);
            eprintln!("{format:?} {head:?} {kv:?}: relative difference {diff:e}");
            assert!(diff < tolerance, "{format:?} {kv:?}: {diff}");
        }
    }
}

fn argmax(logits: &[f32]) -> u32 {
    let better = |b: usize, i: usize| if logits[i] > logits[b] { i } else { b };
    (0..logits.len()).fold(0, better) as u32
}

/// Greedy continuation token for token, with the cache and from scratch at every step.
#[test]
fn golden_greedy() {
    for name in DENSE {
        let Some(dir) = model(name) else { return };
        let file = TensorFile::open(&dir.join("golden.safetensors")).unwrap();
        let (greedy, [_, len]) = ids(&file, "greedy");
        let engine = Engine::load(&dir, EngineOptions::exact()).unwrap();
        let prompt = &greedy[..len - NEW];
        let mut session = engine.new_session(len);
        let mut tokens = prompt.to_vec();
        tokens.push(argmax(session.prefill(prompt).unwrap()));
        while tokens.len() < len {
            let next = argmax(session.decode(*tokens.last().unwrap()).unwrap());
            let scratch = engine
                .new_session(len)
                .prefill(&tokens)
                .map(argmax)
                .unwrap();
            assert_eq!(next, scratch);
            tokens.push(next);
        }
        assert_eq!(tokens, greedy, "{name}");
    }
}

/// Several texts at once: sessions of one engine that take turns token by token, then generations
/// on threads of their own.
#[test]
fn golden_greedy_beside_others() {
    for name in DENSE {
        let Some(dir) = model(name) else { return };
        let file = TensorFile::open(&dir.join("golden.safetensors")).unwrap();
        let (greedy, [_, len]) = ids(&file, "greedy");
        let engine = Engine::load(&dir, EngineOptions::exact()).unwrap();
        let mut prompts: Vec<Vec<u32>> = rows(&dir).into_iter().map(|row| row.tokens).collect();
        assert_eq!(prompts[0], greedy[..len - NEW]);
        prompts.push((0..40).map(|i| i * 37 % 384).collect());
        let mut sessions: Vec<_> = prompts.iter().map(|_| engine.new_session(64)).collect();
        let mut texts = prompts.clone();
        for step in 0..NEW {
            for (session, text) in sessions.iter_mut().zip(&mut texts) {
                let seen = if step == 0 { 0 } else { text.len() - 1 };
                text.push(argmax(session.prefill(&text[seen..]).unwrap()));
            }
        }
        assert_eq!(texts[0], greedy, "{name}");

        let params = GenerationParams {
            max_tokens: NEW,
            ignore_eos: true,
            ..GenerationParams::default()
        };
        let generate = |prompt: &Vec<u32>| {
            let go_on = &mut |_: Event<'_>| ControlFlow::Continue(());
            let new = engine.generate(prompt, &params, go_on).unwrap().tokens;
            [prompt.clone(), new].concat()
        };
        let generated: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = prompts
                .iter()
                .map(|prompt| scope.spawn(|| generate(prompt)))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(generated, texts, "{name}");
    }
}

/// A context takes no mask: padding at the end of a row changes nothing before it, and padding at
/// its beginning is left out, or was forgotten.
#[test]
fn golden_rows_with_padding() {
    for name in DENSE.into_iter().chain(["bitnet_online_autobitlinear"]) {
        let Some(dir) = model(name) else { return };
        let engine = Engine::load(&dir, EngineOptions::exact()).unwrap();
        for row in rows(&dir) {
            let alone = engine.new_session(64).prefill_all(&row.tokens).unwrap();
            let diff = max_relative(&alone, &row.logits);
            assert!(diff < 1e-4, "{name}: {diff}");
            let padding = [7; 9];
            let padded = [&row.tokens[..], &padding].concat();
            let right = engine.new_session(64).prefill_all(&padded).unwrap();
            assert!(right[..alone.len()] == alone, "{name}, at the end");
            let mut session = engine.new_session(64);
            session.prefill(&padding).unwrap();
            session.truncate(0);
            let left = session.prefill_all(&row.tokens).unwrap();
            assert!(left == alone, "{name}, at the beginning");
        }
    }
}

/// A text at once, in pieces and token by token gives the same bits.
#[test]
fn golden_pieces() {
    for name in DENSE {
        let Some(dir) = model(name) else { return };
        let engine = Engine::load(&dir, EngineOptions::exact()).unwrap();
        let tokens: Vec<u32> = (0..60).map(|i| i * 37 % 384).collect();
        let whole = engine.new_session(60).prefill_all(&tokens).unwrap();
        for piece in [1, 7, 32] {
            let mut session = engine.new_session(60);
            let pieces = tokens
                .chunks(piece)
                .map(|c| session.prefill_all(c).unwrap());
            assert!(
                pieces.collect::<Vec<_>>().concat() == whole,
                "{name} {piece}"
            );
        }
    }
}
