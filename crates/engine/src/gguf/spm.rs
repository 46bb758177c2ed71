//! SentencePiece BPE, as Llama 2 and Gemma have it.

use std::collections::HashMap;

use serde_json::{Value, json};
use tritburn_quant::gguf::GgufFile;

use super::tokenizer::{NORMAL, Parts, Result, missing};

/// Stands for a space in the vocabulary.
const SPACE: &str = "\u{2581}";

pub(super) fn parts(file: &GgufFile, tokens: &[String], kinds: &[i64]) -> Result<Parts> {
    let key = "tokenizer.ggml.scores";
    let scores = file.floats(key)?.ok_or_else(|| missing(key))?;
    let unknown = file.int("tokenizer.ggml.unknown_token_id")?.unwrap_or(0);
    let unknown = usize::try_from(unknown).ok().and_then(|id| tokens.get(id));
    let prefix = file
        .flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(Parts {
        normalizer: Value::Null,
        pre_tokenizer: json!({"type": "Metaspace", "replacement": SPACE, "split": false,
                              "prepend_scheme": if prefix { "first" } else { "never" }}),
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        merges: merges(tokens, kinds, &scores),
        unknown: json!(unknown),
        byte_fallback: true,
        ignore_merges: false,
        add_bos: true,
    })
}

/// SentencePiece joins the two neighbours whose piece has the highest score. As a list of merges:
/// every way to cut a piece in two pieces, the best piece first, among equals the earlier parts.
fn merges(tokens: &[String], kinds: &[i64], scores: &[f64]) -> Value {
    let ids = tokens.iter().enumerate().map(|(i, t)| (t.as_str(), i));
    let ids: HashMap<&str, usize> = ids.collect();
    let mut found = Vec::new();
    for (id, (token, score)) in tokens.iter().zip(scores).enumerate() {
        if kinds.get(id).is_some_and(|&kind| kind != NORMAL) {
            continue;
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                found.push((*score, id, l, r));
            }
        }
    }
    found.sort_by(|a, b| {
        b.0.total_cmp(&a.0)
            .then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3)))
    });
    let pairs = found
        .iter()
        .map(|&(_, _, l, r)| json!([tokens[l], tokens[r]]));
    pairs.collect()
}
