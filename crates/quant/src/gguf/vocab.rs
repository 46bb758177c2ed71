//! The tokenizer of a folder as metadata.

use std::path::Path;

use serde_json::Value;

use super::metadata::Pairs;
use crate::config::ModelConfig;
use crate::error::{QuantError, Result};

/// Largest text file that is read.
const MAX_BYTES: u64 = 1 << 28;
/// Types of tokens.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// How GPT-2 cuts text into words.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// How Llama 3 does.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How Qwen 2 does.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// llama.cpp's names of ways to cut text, each a list of patterns used one after another.
const PRE: [(&str, &[&str]); 5] = [
    ("gpt-2", &[GPT2]),
    ("smollm", &[r"\p{N}", GPT2]),
    (
        "default",
        &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    ),
    ("llama-bpe", &[LLAMA3]),
    ("qwen2", &[QWEN2]),
];

/// Writes tokenizer, special tokens and chat template of a folder, as far as it has them.
///
/// # Errors
/// [`QuantError::Config`] for a tokenizer that the metadata cannot describe.
pub(super) fn write(pairs: &mut Pairs, folder: &Path, config: &ModelConfig) -> Result<()> {
    let path = folder.join("tokenizer.json");
    let json = read_json(&path)?;
    let settings_path = folder.join("tokenizer_config.json");
    let settings = read_json(&settings_path)?.unwrap_or_default();
    let mut ids = [config.bos_token_id, config.eos_token_id];
    if let Some(json) = json {
        let at = |message: String| QuantError::config(&path, message);
        let vocab = vocabulary(&json, config.vocab_size).map_err(at)?;
        let pre = pre(&json).map_err(at)?;
        let ends = Ends::of(&json).map_err(at)?;
        pairs.text("tokenizer.ggml.model", "gpt2");
        pairs.text("tokenizer.ggml.pre", pre);
        let texts = vocab.iter().map(|(text, _)| text.as_str());
        pairs.texts("tokenizer.ggml.tokens", texts);
        let kinds = vocab.iter().map(|(_, kind)| *kind);
        pairs.ints("tokenizer.ggml.token_type", kinds);
        let merges = merges(&json).map_err(at)?;
        pairs.texts("tokenizer.ggml.merges", merges.iter().map(String::as_str));
        pairs.flag("tokenizer.ggml.add_bos_token", ends.bos.is_some());
        pairs.flag("tokenizer.ggml.add_eos_token", ends.eos.is_some());
        // What templates and the tokenizer mean by these names goes before what config.json says.
        for (id, (key, added)) in ids
            .iter_mut()
            .zip([("bos_token", &ends.bos), ("eos_token", &ends.eos)])
        {
            let named = token_of(&settings[key]);
            if let (Some(named), Some(added)) = (named, added)
                && named != added
            {
                return Err(at(format!(
                    "`post_processor` adds {added:?}, but `{key}` in tokenizer_config.json is \
                     {named:?}: GGUF has one such token"
                )));
            }
            if let Some(text) = added.as_deref().or(named) {
                let found = vocab.iter().position(|(token, _)| token == text);
                let found = found.and_then(|i| u32::try_from(i).ok());
                *id =
                    Some(found.ok_or_else(|| {
                        at(format!("has no token {text:?}, which is the `{key}`"))
                    })?);
            }
        }
    }
    let turn = config
        .eos_token_id
        .filter(|_| ids[1] != config.eos_token_id);
    for (key, id) in [
        ("bos", ids[0]),
        ("eos", ids[1]),
        // Both end a text; readers look for a second one here.
        ("eot", turn),
        ("padding", config.pad_token_id),
    ] {
        if let Some(id) = id {
            pairs.int(&format!("tokenizer.ggml.{key}_token_id"), id);
        }
    }
    let jinja = read(&folder.join("chat_template.jinja"))?;
    if let Some(template) = jinja.or_else(|| template_of(&settings)) {
        pairs.text("tokenizer.chat_template", &template);
    }
    Ok(())
}

/// A text file, `None` where there is none.
fn read(path: &Path) -> Result<Option<String>> {
    let io = |source| QuantError::Io {
        path: path.to_path_buf(),
        source,
    };
    if !path.exists() {
        return Ok(None);
    }
    if std::fs::metadata(path).map_err(io)?.len() > MAX_BYTES {
        return Err(QuantError::config(path, "larger than any such file"));
    }
    std::fs::read_to_string(path).map(Some).map_err(io)
}

fn read_json(path: &Path) -> Result<Option<Value>> {
    let parse = |text: String| {
        serde_json::from_str(&text).map_err(|e| QuantError::config(path, format!("not JSON: {e}")))
    };
    read(path)?.map(parse).transpose()
}

fn token_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

fn template_of(settings: &Value) -> Option<String> {
    let template = &settings["chat_template"];
    let named = template.as_array().and_then(|list| {
        let default = list.iter().find(|t| t["name"] == "default")?;
        default["template"].as_str()
    });
    template.as_str().or(named).map(str::to_owned)
}

/// Text and type of every token; rows of the embedding without a token get one that no text makes.
fn vocabulary(json: &Value, size: usize) -> std::result::Result<Vec<(String, i32)>, String> {
    let model = &json["model"];
    let named = |key: &str| model[key].as_str().is_some_and(|s| !s.is_empty());
    if model["type"] != "BPE"
        || model["byte_fallback"] == true
        || named("continuing_subword_prefix")
        || named("end_of_word_suffix")
        || json["decoder"]["type"] != "ByteLevel"
    {
        return Err(
            "`model`: only byte-level BPE is written to GGUF files; without tokenizer.json in the \
             folder the weights are written alone"
                .into(),
        );
    }
    let vocab = model["vocab"].as_object();
    let vocab = vocab.ok_or("`model.vocab` is missing or no object")?;
    let mut tokens: Vec<Option<(String, i32)>> = vec![None; size];
    let mut set = |text: &str, id: &Value, kind: i32| {
        let at = id.as_u64().and_then(|id| usize::try_from(id).ok());
        let slot = at.and_then(|at| tokens.get_mut(at)).ok_or_else(|| {
            format!("token {text:?} has id {id}, but `vocab_size` of the model is {size}")
        })?;
        match slot {
            Some((other, _)) if other != text => {
                Err(format!("tokens {other:?} and {text:?} both have id {id}"))
            }
            _ => {
                *slot = Some((text.to_owned(), kind));
                Ok(())
            }
        }
    };
    for (text, id) in vocab {
        set(text, id, NORMAL)?;
    }
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let text = token["content"].as_str().unwrap_or_default();
        for key in ["single_word", "lstrip", "rstrip"] {
            if token[key] == true {
                return Err(format!(
                    "`added_tokens` {text:?}: `{key}` is true, which GGUF cannot say"
                ));
            }
        }
        let kind = if token["special"] == true {
            CONTROL
        } else {
            USER_DEFINED
        };
        set(text, &token["id"], kind)?;
    }
    let fill = |(i, t): (usize, Option<_>)| t.unwrap_or_else(|| (format!("[PAD{i}]"), UNUSED));
    Ok(tokens.into_iter().enumerate().map(fill).collect())
}

fn merges(json: &Value) -> std::result::Result<Vec<String>, String> {
    let merges = json["model"]["merges"].as_array();
    let merges = merges.ok_or("`model.merges` is missing or no list")?;
    let text = |merge: &Value| -> Option<String> {
        if let Some(text) = merge.as_str() {
            return Some(text.to_owned());
        }
        let [left, right] = merge.as_array()?.as_slice() else {
            return None;
        };
        Some(format!("{} {}", left.as_str()?, right.as_str()?))
    };
    let checked = |merge: &Value| {
        // A space within a part would be taken for the one between the parts.
        let found = text(merge).filter(|t| t.matches(' ').count() == 1);
        found.ok_or_else(|| format!("`model.merges`: {merge} is no pair of byte-level texts"))
    };
    merges.iter().map(checked).collect()
}

/// llama.cpp's name for how a tokenizer cuts text before its merges.
fn pre(json: &Value) -> std::result::Result<&'static str, String> {
    let cut = &json["pre_tokenizer"];
    let steps: Vec<&Value> = match cut["pretokenizers"].as_array() {
        Some(steps) if cut["type"] == "Sequence" => steps.iter().collect(),
        _ => vec![cut],
    };
    let pattern = |step: &&Value| match step["type"].as_str() {
        Some("Split") if step["behavior"] == "Isolated" && step["invert"] != true => {
            Some(step["pattern"]["Regex"].as_str()?.to_owned())
        }
        Some("Digits") if step["individual_digits"] == true => Some(r"\p{N}".to_owned()),
        Some("ByteLevel") if step["add_prefix_space"] != true => {
            let cuts = step["use_regex"] != false;
            Some(if cuts { GPT2 } else { "" }.to_owned())
        }
        _ => None,
    };
    let byte_level = steps.last().is_some_and(|s| s["type"] == "ByteLevel");
    let patterns: Option<Vec<String>> = steps.iter().map(pattern).collect();
    let mut patterns = patterns.filter(|_| byte_level).unwrap_or_default();
    patterns.retain(|p| !p.is_empty());
    let found = PRE.iter().find(|(_, known)| patterns == *known);
    let &(name, _) = found.ok_or_else(|| {
        let names = PRE.map(|(name, _)| name).join(", ");
        format!(
            "`pre_tokenizer`: cuts text in a way that GGUF has no name for here; known are {names}"
        )
    })?;
    let normalizer = &json["normalizer"];
    let fits = normalizer.is_null() || (name == "qwen2" && normalizer["type"] == "NFC");
    if !fits {
        return Err(format!(
            "`normalizer`: GGUF has no words for it (`tokenizer.ggml.pre` \"{name}\")"
        ));
    }
    if (json["model"]["ignore_merges"] == true) != (name == "llama-bpe") {
        return Err(format!(
            "`model.ignore_merges` is {}, which is not what `tokenizer.ggml.pre` \"{name}\" means",
            json["model"]["ignore_merges"]
        ));
    }
    Ok(name)
}

/// Tokens that are put around a text.
#[derive(Debug, Default)]
struct Ends {
    bos: Option<String>,
    eos: Option<String>,
}

impl Ends {
    fn of(json: &Value) -> std::result::Result<Self, String> {
        let post = &json["post_processor"];
        let steps: Vec<&Value> = match post["processors"].as_array() {
            Some(steps) if post["type"] == "Sequence" => steps.iter().collect(),
            _ => vec![post],
        };
        let mut this = Self::default();
        let unknown = |step: &Value| {
            format!("`post_processor` {step}: GGUF knows one token before and one after a text")
        };
        for step in steps {
            match step["type"].as_str() {
                None | Some("ByteLevel") => continue,
                Some("TemplateProcessing") => {}
                Some(_) => return Err(unknown(&step["type"])),
            }
            let mut text_seen = false;
            for part in step["single"].as_array().into_iter().flatten() {
                if part.get("Sequence").is_some() {
                    text_seen = true;
                    continue;
                }
                let end = if text_seen {
                    &mut this.eos
                } else {
                    &mut this.bos
                };
                match part["SpecialToken"]["id"].as_str() {
                    Some(text) if end.is_none() => *end = Some(text.to_owned()),
                    _ => return Err(unknown(part)),
                }
            }
        }
        Ok(this)
    }
}
