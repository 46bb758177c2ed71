//! Byte-level BPE, as GPT-2, Llama 3, Qwen and SmolLM have it.

use serde_json::{Value, json};
use tritburn_quant::gguf::GgufFile;

use super::tokenizer::{GgufTokenizerError, Parts, Result, missing};

/// How GPT-2 cuts text into words.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

pub(super) fn parts(file: &GgufFile) -> Result<Parts> {
    let pre = file.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let cut = Cut::of(pre).ok_or_else(|| {
        GgufTokenizerError::Unsupported(format!(
            "`tokenizer.ggml.pre` \"{pre}\" is not supported; supported are default, gpt-2, smollm, \
             llama-bpe, qwen2. Use the model's Hugging Face folder"
        ))
    })?;
    let key = "tokenizer.ggml.merges";
    let merges = file.texts(key)?.ok_or_else(|| missing(key))?;
    let byte_level = |use_regex: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
               "use_regex": use_regex})
    };
    let mut steps = cut.steps;
    steps.push(byte_level(false));
    Ok(Parts {
        normalizer: cut.normalizer,
        pre_tokenizer: json!({"type": "Sequence", "pretokenizers": steps}),
        decoder: byte_level(true),
        merges: json!(merges),
        unknown: Value::Null,
        byte_fallback: false,
        ignore_merges: cut.ignore_merges,
        add_bos: cut.add_bos,
    })
}

/// How a model cuts text before its merges, by the name llama.cpp has for it.
struct Cut {
    steps: Vec<Value>,
    normalizer: Value,
    /// Words of the vocabulary are taken whole.
    ignore_merges: bool,
    /// Whether a document starts with a token of its own where the file does not say.
    add_bos: bool,
}

impl Cut {
    fn of(pre: &str) -> Option<Self> {
        let plain = |patterns: &[&str]| Self {
            steps: patterns.iter().map(|p| split(p)).collect(),
            normalizer: Value::Null,
            ignore_merges: false,
            add_bos: false,
        };
        Some(match pre {
            "gpt-2" => plain(&[GPT2]),
            "smollm" => plain(&[r"\p{N}", GPT2]),
            "default" => plain(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" => Self {
                ignore_merges: true,
                add_bos: true,
                ..plain(&[&words(r"\p{N}{1,3}")])
            },
            "qwen2" => Self {
                normalizer: json!({"type": "NFC"}),
                ..plain(&[&words(r"\p{N}")])
            },
            _ => return None,
        })
    }
}

fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

/// How GPT-4 and its followers cut text into words; they differ in the digits they keep together.
fn words(digits: &str) -> String {
    let endings = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    format!(
        r"{endings}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}
