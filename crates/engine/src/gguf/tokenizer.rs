//! The tokenizer in a GGUF file as a `tokenizer.json`.

use serde_json::{Map, Value, json};
use tritburn_quant::QuantError;
use tritburn_quant::gguf::GgufFile;

/// Type of a token that stands for itself only and is no text.
const CONTROL: i64 = 3;
/// Type of a token that was added to the vocabulary and is text.
const USER_DEFINED: i64 = 4;

/// How GPT-2 cuts text into words.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// What of a file makes no tokenizer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GgufTokenizerError {
    #[error(transparent)]
    File(#[from] QuantError),
    #[error("{0}")]
    Unsupported(String),
}

type Result<T> = std::result::Result<T, GgufTokenizerError>;

/// `tokenizer.json` of the tokenizer in `file`, `None` where there is none.
pub(crate) fn tokenizer_json(file: &GgufFile) -> Result<Option<Value>> {
    let Some(model) = file.text("tokenizer.ggml.model")? else {
        return Ok(None);
    };
    if model != "gpt2" {
        return Err(GgufTokenizerError::Unsupported(format!(
            "`tokenizer.ggml.model` \"{model}\" is not supported; supported is gpt2 (byte-level \
             BPE). Use the model's Hugging Face folder, which has a tokenizer.json"
        )));
    }
    let pre = file.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let cut = Cut::of(pre).ok_or_else(|| {
        GgufTokenizerError::Unsupported(format!(
            "`tokenizer.ggml.pre` \"{pre}\" is not supported; supported are default, gpt-2, smollm, \
             llama-bpe, qwen2. Use the model's Hugging Face folder"
        ))
    })?;
    let missing = |key: &str| GgufTokenizerError::Unsupported(format!("`{key}` is missing"));
    let key = "tokenizer.ggml.tokens";
    let tokens = file.texts(key)?.ok_or_else(|| missing(key))?;
    let key = "tokenizer.ggml.merges";
    let merges = file.texts(key)?.ok_or_else(|| missing(key))?;
    let kinds = file.ints("tokenizer.ggml.token_type")?.unwrap_or_default();
    let added = tokens
        .iter()
        .zip(&kinds)
        .enumerate()
        .filter_map(|(id, (token, kind))| {
            let added = matches!(*kind, CONTROL | USER_DEFINED);
            added.then(|| {
                json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": *kind == CONTROL})
            })
        });
    let added: Vec<Value> = added.collect();
    let vocab: Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| ((*token).to_owned(), json!(id)))
        .collect();
    let byte_level = |use_regex: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
               "use_regex": use_regex})
    };
    let mut steps = cut.steps;
    steps.push(byte_level(false));
    let post = post_processor(file, &tokens, cut.add_bos)?;
    Ok(Some(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": cut.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": post,
        "decoder": byte_level(true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "ignore_merges": cut.ignore_merges,
                  "vocab": vocab, "merges": merges},
    })))
}

/// Texts of the tokens that start and end a text, empty where the file names none.
pub(crate) fn token_texts(file: &GgufFile) -> Result<[String; 2]> {
    let tokens = file.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
    let mut texts = [String::new(), String::new()];
    for (text, which) in texts.iter_mut().zip(["bos", "eos"]) {
        let id = special_id(file, which)?;
        *text = id
            .and_then(|id| tokens.get(id))
            .copied()
            .unwrap_or_default()
            .to_owned();
    }
    Ok(texts)
}

fn special_id(file: &GgufFile, which: &str) -> Result<Option<usize>> {
    let id = file.int(&format!("tokenizer.ggml.{which}_token_id"))?;
    Ok(id.and_then(|id| usize::try_from(id).ok()))
}

/// Puts the tokens around a document that the file asks for.
fn post_processor(file: &GgufFile, tokens: &[&str], add_bos: bool) -> Result<Value> {
    let add = |which: &str, default: bool| -> Result<Option<(usize, String)>> {
        let flag = file.flag(&format!("tokenizer.ggml.add_{which}_token"))?;
        let id = special_id(file, which)?.filter(|_| flag.unwrap_or(default));
        Ok(id.and_then(|id| Some((id, (*tokens.get(id)?).to_owned()))))
    };
    let (bos, eos) = (add("bos", add_bos)?, add("eos", false)?);
    if bos.is_none() && eos.is_none() {
        return Ok(Value::Null);
    }
    let special = |t: &(usize, String)| json!({"SpecialToken": {"id": t.1, "type_id": 0}});
    let text = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
    let around = |middle: Vec<Value>| -> Vec<Value> {
        let ends = (bos.iter().map(special), eos.iter().map(special));
        ends.0.chain(middle).chain(ends.1).collect()
    };
    let known = bos.iter().chain(&eos).map(|(id, text)| {
        (
            text.clone(),
            json!({"id": text, "ids": [id], "tokens": [text]}),
        )
    });
    Ok(json!({
        "type": "TemplateProcessing",
        "single": around(vec![text("A", 0)]),
        "pair": around(vec![text("A", 0), text("B", 1)]),
        "special_tokens": known.collect::<Map<String, Value>>(),
    }))
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
