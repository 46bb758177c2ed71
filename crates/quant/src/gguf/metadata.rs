//! The configuration of a model as metadata: the inverse of [`super::config`].

use super::config::{Arch, GEMMA_27B_LAYERS, GEMMA_PATTERN};
use crate::config::{HiddenAct, LayerType, ModelConfig, RopeScaling, SubNorm};
use crate::scheme::{QuantScheme, WeightQuant};

/// Metadata entries in the form they have in a file.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u64,
}

/// Appends a text with its length.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Pairs {
    fn key(&mut self, key: &str, kind: u32) {
        put_text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        self.count += 1;
    }

    fn array(&mut self, key: &str, kind: u32, len: usize) {
        self.key(key, 9);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((len as u64).to_le_bytes());
    }

    pub(super) fn int(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn flag(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.bytes.push(u8::from(value));
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        put_text(&mut self.bytes, value);
    }

    fn float(&mut self, key: &str, value: f64) {
        self.key(key, 6);
        self.bytes.extend((value as f32).to_le_bytes());
    }

    pub(super) fn texts<'a>(&mut self, key: &str, values: impl ExactSizeIterator<Item = &'a str>) {
        self.array(key, 8, values.len());
        values.for_each(|text| put_text(&mut self.bytes, text));
    }

    pub(super) fn ints(&mut self, key: &str, values: impl ExactSizeIterator<Item = i32>) {
        self.array(key, 5, values.len());
        values.for_each(|v| self.bytes.extend(v.to_le_bytes()));
    }
}

/// The architecture that computes what `config` says.
///
/// # Errors
/// A sentence that names the field for which there is none.
pub(super) fn arch(config: &ModelConfig) -> Result<Arch, String> {
    let family = config.model_type.as_str();
    // A llama with these norms is the model that llama.cpp calls bitnet.
    let bitnet = config.sub_norm() == SubNorm::SubLn && matches!(family, "llama" | "bitnet");
    let (arch, act) = match (family, config.hidden_act) {
        _ if bitnet && config.hidden_act == HiddenAct::Relu2 => {
            (Arch::BitnetB158, HiddenAct::Relu2)
        }
        _ if bitnet => (Arch::Bitnet, HiddenAct::Silu),
        ("llama", _) => (Arch::Llama, HiddenAct::Silu),
        ("qwen2", _) => (Arch::Qwen2, HiddenAct::Silu),
        ("qwen3", _) => (Arch::Qwen3, HiddenAct::Silu),
        ("gemma3_text", _) => (Arch::Gemma3, HiddenAct::GeluTanh),
        ("bitnet", _) => {
            return Err(
                "`tritburn.sub_norm`: GGUF knows bitnet models with `sub_ln` norms only".into(),
            );
        }
        (other, _) => {
            return Err(format!(
                "`model_type` \"{other}\" has no GGUF architecture here"
            ));
        }
    };
    if config.hidden_act != act {
        return Err(format!(
            "`hidden_act` is {:?}, but GGUF architecture {} computes {act:?}",
            config.hidden_act,
            arch.name()
        ));
    }
    match refusal(config, arch) {
        None => Ok(arch),
        Some(why) => Err(why),
    }
}

/// What the metadata of `arch` cannot say.
fn refusal(config: &ModelConfig, arch: Arch) -> Option<String> {
    let name = arch.name();
    let quant = config.tritburn.as_ref().and_then(|t| t.quant);
    // Codes and scales say all of a quantiser of weights.
    let sayable = |quant: QuantScheme| {
        let weights = QuantScheme::default().weights;
        quant.weights != WeightQuant::None
            && QuantScheme { weights, ..quant } == QuantScheme::default()
    };
    if quant.is_some_and(|q| !sayable(q)) {
        return Some(
            "`tritburn.quant`: GGUF has no words for other quantisers of activations, queries, keys \
             and values than those of BitNet b1.58 (8-bit activations); write a Hugging Face folder"
                .into(),
        );
    }
    if config.sub_norm() == SubNorm::LayerNorm {
        return Some("`tritburn.sub_norm` is layer_norm: GGUF has no name for such norms".into());
    }
    if config.sub_norm() == SubNorm::All && config.projection_norm().1 != config.rms_norm_eps {
        let field = match &config.quantization_config {
            Some(q) if q.use_rms_norm => "quantization_config.rms_norm_eps",
            _ => "tritburn.norm_eps",
        };
        return Some(format!(
            "`{field}` is not `rms_norm_eps`: GGUF has one epsilon for all norms"
        ));
    }
    if config.attention_bias && !matches!(arch, Arch::Llama | Arch::Qwen2) {
        return Some(format!(
            "`attention_bias` is true: GGUF architecture {name} has no biases"
        ));
    }
    let width = if arch == Arch::Gemma3 && config.num_hidden_layers == GEMMA_27B_LAYERS {
        (config.hidden_size / config.num_attention_heads.max(1)) as f64
    } else {
        config.head_dim() as f64
    };
    if let Some(scalar) = config.query_pre_attn_scalar.filter(|&v| v != width) {
        return Some(format!(
            "`query_pre_attn_scalar` is {scalar}, but GGUF architecture {name} computes with {width}"
        ));
    }
    match config.rope_scaling {
        Some(RopeScaling::Llama3 {
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
            ..
        }) if arch != Arch::Llama
            || (low_freq_factor, high_freq_factor) != (1.0, 4.0)
            || original_max_position_embeddings != 8192 =>
        {
            Some(
                "`rope_scaling` of type llama3 is written for model_type llama, with \
                 `low_freq_factor` 1, `high_freq_factor` 4 and \
                 `original_max_position_embeddings` 8192 only"
                    .into(),
            )
        }
        _ => None,
    }
}

/// Divisors of the frequencies, which stand for Llama 3's scaling.
pub(super) fn rope_factors(config: &ModelConfig) -> Option<Vec<f32>> {
    let Some(RopeScaling::Llama3 { .. }) = config.rope_scaling else {
        return None;
    };
    let plain = ModelConfig {
        rope_scaling: None,
        ..config.clone()
    };
    let pairs = plain.layer_inv_freq(0).into_iter();
    let pairs = pairs.zip(config.layer_inv_freq(0));
    Some(pairs.map(|(plain, scaled)| plain / scaled).collect())
}

/// Writes what describes the architecture.
///
/// # Errors
/// A sentence that names the field that does not fit.
pub(super) fn write(pairs: &mut Pairs, arch: Arch, config: &ModelConfig) -> Result<(), String> {
    let name = arch.name();
    pairs.text("general.architecture", name);
    let c = config;
    for (key, field, value) in [
        ("block_count", "num_hidden_layers", c.num_hidden_layers),
        (
            "context_length",
            "max_position_embeddings",
            c.max_position_embeddings,
        ),
        ("embedding_length", "hidden_size", c.hidden_size),
        (
            "feed_forward_length",
            "intermediate_size",
            c.intermediate_size,
        ),
        (
            "attention.head_count",
            "num_attention_heads",
            c.num_attention_heads,
        ),
        (
            "attention.head_count_kv",
            "num_key_value_heads",
            c.num_key_value_heads,
        ),
        ("attention.key_length", "head_dim", c.head_dim()),
        ("attention.value_length", "head_dim", c.head_dim()),
        ("rope.dimension_count", "head_dim", c.head_dim()),
        ("vocab_size", "vocab_size", c.vocab_size),
    ] {
        let value = u32::try_from(value);
        let value = value.map_err(|_| format!("`{field}` does not fit 32 bits"))?;
        pairs.int(&format!("{name}.{key}"), value);
    }
    let eps = "attention.layer_norm_rms_epsilon";
    pairs.float(&format!("{name}.{eps}"), c.rms_norm_eps);
    pairs.float(&format!("{name}.rope.freq_base"), c.rope_theta);
    if let Some(RopeScaling::Linear { factor }) = c.rope_scaling {
        pairs.text(&format!("{name}.rope.scaling.type"), "linear");
        pairs.float(&format!("{name}.rope.scaling.factor"), factor);
    }
    match windows(c)? {
        Some((window, every)) if arch == Arch::Gemma3 => {
            let local = c.rope_local_base_freq.unwrap_or(c.rope_theta);
            pairs.float(&format!("{name}.rope.freq_base_swa"), local);
            pairs.int(&format!("{name}.attention.sliding_window"), window);
            pairs.int(&format!("{name}.attention.sliding_window_pattern"), every);
            Ok(())
        }
        Some(_) => Err(format!(
            "`layer_types`: GGUF architecture {name} has no sliding windows"
        )),
        None => Ok(()),
    }
}

/// The window, and every how many layers one sees all tokens; `None` where all do.
fn windows(config: &ModelConfig) -> Result<Option<(u32, u32)>, String> {
    let (Some(types), Some(window)) = (&config.layer_types, config.sliding_window) else {
        return Ok(None);
    };
    if !types.contains(&LayerType::SlidingAttention) {
        return Ok(None);
    }
    let fits = |every: &u64| {
        let full = |i: usize| (i as u64 + 1).is_multiple_of(*every);
        let mut types = types.iter().enumerate();
        types.all(|(i, t)| (*t == LayerType::FullAttention) == full(i))
    };
    // Many patterns may fit a short model: then the one that readers assume.
    let mut patterns = std::iter::once(GEMMA_PATTERN).chain(2..=types.len() as u64 + 1);
    let every = patterns.find(fits).and_then(|n| u32::try_from(n).ok());
    let every = every.ok_or(
        "`layer_types`: GGUF knows full attention in every n-th layer only, and these layers \
         follow no such pattern",
    )?;
    let window = u32::try_from(window).map_err(|_| "`sliding_window` does not fit 32 bits")?;
    Ok(Some((window, every)))
}
