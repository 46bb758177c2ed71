//! SentencePiece BPE, as Llama 2 and Gemma have it.

use std::collections::HashMap;

use serde_json::{Value, json};
use tritburn_quant::gguf::GgufFile;

use super::tokenizer::{GgufTokenizerError, NORMAL, Parts, Result, missing};

/// Stands for a space in the vocabulary.
const SPACE: &str = "\u{2581}";
/// Longest piece that is cut in two in all ways, each of which takes a look at all of it.
const MAX_PIECE: usize = 1024;

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
        merges: merges(tokens, kinds, &scores)?,
        unknown: json!(unknown),
        byte_fallback: true,
        ignore_merges: false,
        add_bos: true,
    })
}

/// SentencePiece joins the two neighbours whose piece has the highest score. As a list of merges:
/// every way to cut a piece in two pieces, the best piece first, among equals the earlier parts.
fn merges(tokens: &[String], kinds: &[i64], scores: &[f64]) -> Result<Value> {
    let ids = tokens.iter().enumerate().map(|(i, t)| (t.as_str(), i));
    let ids: HashMap<&str, usize> = ids.collect();
    let mut found = Vec::new();
    for (id, (token, score)) in tokens.iter().zip(scores).enumerate() {
        if kinds.get(id).is_some_and(|&kind| kind != NORMAL) {
            continue;
        }
        if token.len() > MAX_PIECE {
            return Err(GgufTokenizerError::Unsupported(format!(
                "token {id} of `tokenizer.ggml.tokens` has {} bytes, more than {MAX_PIECE}; convert or \
                 download the file again",
                token.len()
            )));
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
    Ok(pairs.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pieces_too_long_to_be_cut_are_refused() {
        let tokens = ["a".to_owned(), "a".repeat(8 << 20)];
        let error = merges(&tokens, &[NORMAL, NORMAL], &[0.0, 0.0]).unwrap_err();
        assert!(error.to_string().contains("token 1 "), "{error}");
        let control = 3;
        merges(&tokens, &[NORMAL, control], &[0.0, 0.0]).unwrap();
    }
}
