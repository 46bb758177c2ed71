//! From the text of a `config.json` of any transformers version.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::ModelConfig;
use super::features::Family;
use super::rope::RopeScaling;
use crate::error::{QuantError, Result};

/// Largest `config.json` that is read, in bytes.
const MAX_BYTES: u64 = 1 << 24;

impl ModelConfig {
    /// Reads and validates `config.json`.
    ///
    /// # Errors
    /// [`QuantError::Io`] where the file cannot be read, [`QuantError::Config`] where it is not
    /// the configuration of a supported model; the message names file and field.
    pub fn read(path: &Path) -> Result<Self> {
        let io = |source| QuantError::Io {
            path: path.to_path_buf(),
            source,
        };
        if std::fs::metadata(path).map_err(io)?.len() > MAX_BYTES {
            return Err(QuantError::config(path, "larger than any config.json"));
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        Self::from_json(&text).map_err(|message| QuantError::config(path, message))
    }

    /// Parses and validates the text of a `config.json` of any transformers version.
    ///
    /// # Errors
    /// Everything that is wrong, as one text that names the fields.
    pub fn from_json(text: &str) -> std::result::Result<Self, String> {
        // Through a map, where the last of two equal keys wins: published BitNet folders repeat
        // `quantization_config`.
        let mut map: Map<String, Value> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let mut problems = modernise(&mut map);
        match deserialize::<Self>(Value::Object(map)) {
            Ok(config) => {
                problems.extend(config.problems());
                if problems.is_empty() {
                    return Ok(config);
                }
            }
            Err(problem) => problems.push(problem),
        }
        Err(problems.join("; "))
    }
}

/// Deserialises with the path of the field in the error.
fn deserialize<T: for<'a> Deserialize<'a>>(value: Value) -> std::result::Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|e| match e.path().to_string().as_str() {
        "." => e.inner().to_string(),
        path => format!("`{path}`: {}", e.inner()),
    })
}

/// Brings what transformers versions and model families write in different ways to the form of
/// [`ModelConfig`], and reports what the model needs but no field of it can say.
fn modernise(map: &mut Map<String, Value>) -> Vec<String> {
    let mut problems = Vec::new();
    drop_nulls(map);
    let model_type = map.get("model_type").and_then(Value::as_str);
    let family = model_type.and_then(Family::of);
    refuse_features(map, &mut problems);
    rope(map, &mut problems);
    windows(map, family, &mut problems);
    activation(map, family, &mut problems);
    one_bit_llm(map, &mut problems);
    if let Some(family) = family {
        fill_defaults(map, family);
    }
    // Llama 3 lists several: the first is the token that ends a text.
    if let Some(Value::Array(ids)) = map.get("eos_token_id") {
        match ids.first().cloned() {
            Some(first) => map.insert("eos_token_id".into(), first),
            None => map.remove("eos_token_id"),
        };
    }
    if let Some(dtype) = map.remove("dtype") {
        map.insert("torch_dtype".into(), dtype);
    }
    problems
}

/// null means absent everywhere in these files.
fn drop_nulls(map: &mut Map<String, Value>) {
    map.retain(|_, v| !v.is_null());
    for key in ["quantization_config", "rope_parameters", "rope_scaling"] {
        if let Some(Value::Object(section)) = map.get_mut(key) {
            section.retain(|_, v| !v.is_null());
        }
    }
}

/// What would change the result and is computed nowhere here.
fn refuse_features(map: &Map<String, Value>, problems: &mut Vec<String>) {
    for (key, why) in [
        (
            "mlp_bias",
            "biases of the feed-forward block are not supported",
        ),
        (
            "use_sliding_window",
            "sliding windows are supported for gemma3_text only; if the window is longer than every \
             text you have, set it to false",
        ),
        (
            "use_bidirectional_attention",
            "only attention to earlier tokens is supported",
        ),
    ] {
        if map.get(key) == Some(&Value::Bool(true)) {
            problems.push(format!("`{key}` is true: {why}"));
        }
    }
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if let Some(cap) = map.get(key) {
            problems.push(format!("`{key}` is {cap}: soft caps are not supported"));
        }
    }
    partial_rotation("partial_rotary_factor", map, problems);
}

fn partial_rotation(name: &str, map: &Map<String, Value>, problems: &mut Vec<String>) {
    let factor = map.get("partial_rotary_factor");
    if let Some(factor) = factor.filter(|f| f.as_f64() != Some(1.0)) {
        problems.push(format!(
            "`{name}` is {factor}: heads are turned as a whole or not at all"
        ));
    }
}

/// transformers 5 has `rope_parameters`, for Gemma one for each kind of layer; earlier versions
/// have `rope_theta` and `rope_scaling`.
fn rope(map: &mut Map<String, Value>, problems: &mut Vec<String>) {
    let legacy = map.remove("rope_scaling").map(|v| ("rope_scaling", v));
    let new = map.remove("rope_parameters");
    let Some((key, section)) = new.map(|v| ("rope_parameters", v)).or(legacy) else {
        return;
    };
    let Value::Object(mut section) = section else {
        problems.push(format!("`{key}` is {section}, it must be an object"));
        return;
    };
    if let Some(local) = section.remove("sliding_attention") {
        if let Some(theta) = local.get("rope_theta") {
            map.insert("rope_local_base_freq".into(), theta.clone());
        }
        if local.get("rope_type").is_some_and(|t| t != "default") {
            problems.push(format!(
                "`{key}.sliding_attention.rope_type` is {}, supported is \"default\"",
                local["rope_type"]
            ));
        }
    }
    if let Some(Value::Object(global)) = section.remove("full_attention") {
        section = global;
    }
    if let Some(theta) = section.remove("rope_theta") {
        map.insert("rope_theta".into(), theta);
    }
    partial_rotation(&format!("{key}.partial_rotary_factor"), &section, problems);
    let kind = section.remove("type");
    let kind = section.remove("rope_type").or(kind);
    let kind = match &kind {
        None => return,
        Some(Value::String(kind)) => kind.as_str(),
        Some(_) => "of no type",
    };
    match kind {
        "default" => {}
        "linear" | "llama3" => {
            section.insert("rope_type".into(), kind.into());
            match deserialize::<RopeScaling>(Value::Object(section.clone())) {
                Ok(_) => {
                    map.insert("rope_scaling".into(), Value::Object(section));
                }
                Err(problem) => problems.push(format!("`{key}` of type {kind}: {problem}")),
            }
        }
        other => problems.push(format!(
            "`{key}.rope_type` \"{other}\" is not supported; supported are default, linear, llama3"
        )),
    }
}

/// Gemma 3 says which layers see a window by `layer_types` or by a pattern; others have these keys
/// too, without effect.
fn windows(map: &mut Map<String, Value>, family: Option<Family>, problems: &mut Vec<String>) {
    let patterns = ["sliding_window_pattern", "_sliding_window_pattern"];
    if family != Some(Family::Gemma3) {
        let sliding = |types: &Vec<Value>| types.iter().any(|t| t != "full_attention");
        if map
            .get("layer_types")
            .and_then(Value::as_array)
            .is_some_and(sliding)
        {
            problems.push(
                "`layer_types` has layers that do not see all tokens: supported for gemma3_text only"
                    .into(),
            );
        }
        for key in ["layer_types", "sliding_window", "rope_local_base_freq"] {
            map.remove(key);
        }
        return;
    }
    if map.contains_key("layer_types") {
        return;
    }
    let pattern = patterns.iter().find_map(|&key| Some((key, map.get(key)?)));
    let (key, every) = match pattern {
        Some((key, every)) => (key, every.as_u64().unwrap_or(0)),
        None => (patterns[0], 6),
    };
    let layers = map.get("num_hidden_layers").and_then(Value::as_u64);
    if every == 0 {
        problems.push(format!("`{key}` must be a number of at least 1"));
    } else if let Some(layers) = layers.filter(|&n| n <= super::check::MAX_LAYERS as u64) {
        let kind = |i: u64| match i % every {
            0 => "full_attention",
            _ => "sliding_attention",
        };
        map.insert("layer_types".into(), (1..=layers).map(kind).collect());
    }
}

/// Gemma calls the gate `hidden_activation`.
fn activation(map: &mut Map<String, Value>, family: Option<Family>, problems: &mut Vec<String>) {
    let gemma = map.remove("hidden_activation");
    if family == Some(Family::Gemma3)
        && let Some(act) = gemma
    {
        map.insert("hidden_act".into(), act);
    }
    let default = family.map_or_else(Default::default, ModelConfig::default_act);
    let act = map.get("hidden_act");
    if let Some(act) = act
        && serde_json::from_value::<super::HiddenAct>(act.clone()).is_err()
    {
        problems.push(format!(
            "`hidden_act` {act} is not supported; supported are silu, relu2, gelu_pytorch_tanh"
        ));
        map.remove("hidden_act");
    }
    map.entry("hidden_act").or_insert_with(|| json!(default));
}

/// 1bitLLM's checkpoints of b1.58 say `weight_bits` 1 and `input_bits` 8 and hold master weights.
fn one_bit_llm(map: &mut Map<String, Value>, problems: &mut Vec<String>) {
    let Some(bits) = map.get("weight_bits") else {
        return;
    };
    let inputs = map.get("input_bits").cloned().unwrap_or(json!(8));
    if *bits != json!(1) || inputs != json!(8) {
        problems.push(format!(
            "`weight_bits` {bits} with `input_bits` {inputs} is not supported; supported are 1 and 8"
        ));
        map.remove("weight_bits");
    } else if !map.contains_key("quantization_config") {
        let online = json!({
            "quant_method": "bitnet", "linear_class": "autobitlinear",
            "quantization_mode": "online", "modules_to_not_convert": ["lm_head"],
        });
        map.insert("quantization_config".into(), online);
    }
}

/// What transformers assumes where a file is silent. Its own files are silent about tied
/// embeddings where they are tied in every model of the family.
fn fill_defaults(map: &mut Map<String, Value>, family: Family) {
    let mut default = |key: &str, value: Value| {
        map.entry(key).or_insert(value);
    };
    match family {
        Family::Llama | Family::Qwen2 => {}
        Family::Bitnet => default("rope_theta", json!(5e5)),
        Family::Qwen3 => default("head_dim", json!(128)),
        Family::Gemma3 => {
            default("head_dim", json!(256));
            default("query_pre_attn_scalar", json!(256));
            default("sliding_window", json!(4096));
            default("rope_theta", json!(1e6));
            default("rope_local_base_freq", json!(1e4));
            default("tie_word_embeddings", json!(true));
        }
    }
    if let Some(heads) = map.get("num_attention_heads").cloned() {
        map.entry("num_key_value_heads").or_insert(heads);
    }
}
