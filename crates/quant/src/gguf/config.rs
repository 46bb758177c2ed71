//! The configuration of the model in a GGUF file.

use super::file::{GgufFile, TensorInfo};
use super::kind::UNTURNED;
use super::ternary;
use super::value::Value;
use crate::config::{
    HiddenAct, LayerType, ModelConfig, QuantizationConfig, QuantizationMode, RopeScaling, SubNorm,
    TritburnSection,
};
use crate::error::Result;

/// The tensor with which llama.cpp states Llama 3's RoPE scaling.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Every so many layers one sees all tokens, where a Gemma 3 file does not say.
pub(super) const GEMMA_PATTERN: u64 = 6;
/// Layers of Gemma 3 27B, the only size that scales its scores by another width than `head_dim`.
pub(super) const GEMMA_27B_LAYERS: usize = 62;

/// Begins the keys with which PrismML's files say that weights are stored turned, and that
/// activations have to be turned as well (`block_size`, `sign_mode`, `weight_names` and so on).
const HADAMARD: &str = "prism.hadamard.";

/// What llama.cpp calls an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arch {
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
    /// 1bitLLM's b1.58, with SiLU.
    Bitnet,
    /// Microsoft's 2B4T, with ReLU².
    BitnetB158,
}

impl Arch {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "llama" => Self::Llama,
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            "gemma3" => Self::Gemma3,
            "bitnet" => Self::Bitnet,
            "bitnet-b1.58" | "bitnet-25" => Self::BitnetB158,
            _ => return None,
        })
    }

    /// Value of `general.architecture`, in the spelling that is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3",
            Self::Bitnet => "bitnet",
            Self::BitnetB158 => "bitnet-b1.58",
        }
    }

    /// Whether the rows of tensor `name`, in Hugging Face's spelling, are in llama.cpp's order.
    pub(super) fn turns(self, name: &str) -> bool {
        let turned = [
            ".q_proj.weight",
            ".k_proj.weight",
            ".q_proj.bias",
            ".k_proj.bias",
        ];
        self == Self::Llama && turned.iter().any(|end| name.ends_with(end))
    }

    /// What is added to the values of tensor `name`, in Hugging Face's spelling, in the file.
    pub(super) fn offset(self, name: &str) -> f32 {
        let extra = name.ends_with("_proj.norm.weight") || name.ends_with("sub_norm.weight");
        if self == Self::Gemma3 && name.ends_with("norm.weight") && !extra {
            1.0
        } else {
            0.0
        }
    }

    fn model_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Llama => ("llama", "LlamaForCausalLM"),
            Self::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
            Self::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
            Self::Gemma3 => ("gemma3_text", "Gemma3ForCausalLM"),
            Self::Bitnet | Self::BitnetB158 => ("bitnet", "BitNetForCausalLM"),
        }
    }
}

/// Reads and checks the configuration.
pub(super) fn read(file: &GgufFile) -> Result<(Arch, ModelConfig)> {
    let name = file.text("general.architecture")?.unwrap_or_default();
    let arch = Arch::of(name).ok_or_else(|| {
        file.error(format!(
            "`general.architecture` \"{name}\" is not supported; supported are llama, qwen2, qwen3, \
             gemma3, bitnet, bitnet-b1.58"
        ))
    })?;
    let meta = Metadata { file, name };
    meta.refuse_others()?;
    let (model_type, class) = arch.model_type();
    let heads = meta.size("attention.head_count")?;
    let embedding = file.tensor("token_embd.weight").map(|t| t.shape.as_slice());
    let &[vocab_size, hidden_size] = embedding.unwrap_or_default() else {
        return Err(file.error("`token_embd.weight` is missing or no matrix"));
    };
    if let Some(width) = meta.optional("embedding_length")?
        && width != hidden_size
    {
        return Err(file.error(format!(
            "`token_embd.weight` has shape [{vocab_size}, {hidden_size}], but `{}` asks for \
             [{vocab_size}, {width}]; convert or download the model again",
            meta.key("embedding_length")
        )));
    }
    let mut config = ModelConfig {
        architectures: vec![class.into()],
        model_type: model_type.into(),
        hidden_size,
        intermediate_size: meta.size("feed_forward_length")?,
        num_hidden_layers: meta.size("block_count")?,
        num_attention_heads: heads,
        num_key_value_heads: meta.optional("attention.head_count_kv")?.unwrap_or(heads),
        head_dim: meta.optional("attention.key_length")?,
        vocab_size,
        max_position_embeddings: meta.size("context_length")?,
        rope_theta: meta.float("rope.freq_base")?.unwrap_or(10_000.0),
        rms_norm_eps: meta
            .float("attention.layer_norm_rms_epsilon")?
            .unwrap_or(1e-6),
        hidden_act: match arch {
            Arch::Gemma3 => HiddenAct::GeluTanh,
            Arch::BitnetB158 => HiddenAct::Relu2,
            _ => HiddenAct::Silu,
        },
        tie_word_embeddings: file.tensor("output.weight").is_none(),
        attention_bias: arch == Arch::Llama && file.tensor("blk.0.attn_q.bias").is_some(),
        bos_token_id: token(file, "bos")?,
        eos_token_id: token(file, "eos")?,
        pad_token_id: token(file, "padding")?,
        quantization_config: has_ternary(file)
            .then(|| QuantizationConfig::bitnet(QuantizationMode::Offline)),
        ..ModelConfig::default()
    };
    if arch == Arch::Gemma3 {
        meta.gemma(&mut config)?;
    }
    meta.extra_norms(&mut config);
    // Sizes must make sense before anything is computed from them.
    meta.check(&config)?;
    config.rope_scaling = meta.rope_scaling(&config)?;
    meta.check(&config)?;
    Ok((arch, config))
}

fn token(file: &GgufFile, which: &str) -> Result<Option<u32>> {
    let id = file.int(&format!("tokenizer.ggml.{which}_token_id"))?;
    Ok(id.and_then(|id| u32::try_from(id).ok()))
}

/// Whether any matrix but embedding and head is ternary.
fn has_ternary(file: &GgufFile) -> bool {
    let mut names = file.names().into_iter();
    names.any(|name| {
        let table = matches!(name, "token_embd.weight" | "output.weight");
        !table && file.tensor(name).is_some_and(|t| is_ternary(file, t))
    })
}

/// A type that can hold other values too is looked into, once more than when it is loaded: up to its first code of
/// another kind, else as a whole, and for the whole model up to the first matrix without one.
fn is_ternary(file: &GgufFile, tensor: &TensorInfo) -> bool {
    let (kind, cols) = (tensor.kind, tensor.shape.last().copied().unwrap_or(1));
    tensor.shape.len() == 2
        && kind.is_ternary()
        && !(kind.has_two() && matches!(ternary::decode(kind, file.bytes(tensor), cols), Ok(None)))
}

struct Metadata<'a> {
    file: &'a GgufFile,
    /// Prefix of the keys.
    name: &'a str,
}

impl Metadata<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    /// A size, or an array of equal sizes for each layer.
    fn optional(&self, key: &str) -> Result<Option<usize>> {
        let key = self.key(key);
        let value = if let Some(Value::Array(_)) = self.file.metadata().get(&key) {
            let all = self.file.ints(&key)?.unwrap_or_default();
            match all.split_first() {
                Some((first, rest)) if rest.iter().all(|v| v == first) => {
                    u64::try_from(*first).ok()
                }
                _ => {
                    let message = format!("`{key}` differs from layer to layer: not supported");
                    return Err(self.file.error(message));
                }
            }
        } else {
            self.file.int(&key)?
        };
        Ok(value.and_then(|v| usize::try_from(v).ok()))
    }

    fn size(&self, key: &str) -> Result<usize> {
        let missing = || self.file.error(format!("`{}` is missing", self.key(key)));
        self.optional(key)?.ok_or_else(missing)
    }

    fn float(&self, key: &str) -> Result<Option<f64>> {
        self.file.float(&self.key(key))
    }

    /// What would change the result and is computed nowhere here.
    fn refuse_others(&self) -> Result<()> {
        if self.file.int("split.count")?.is_some_and(|n| n > 1) {
            return Err(self.file.error(
                "`split.count`: one of several files; join them with llama-gguf-split --merge",
            ));
        }
        let mut keys = self.file.metadata().keys();
        if let Some(key) = keys.find(|key| key.starts_with(HADAMARD)) {
            let names = self.file.texts(&format!("{HADAMARD}weight_names"))?;
            let first = names.and_then(|names| names.into_iter().next());
            let what = first.map_or("the weights".into(), |name| format!("`{name}`"));
            return Err(self.file.error(format!(
                "`{key}`: {what} must meet activations after a Hadamard transform, which is not \
                 supported; {UNTURNED}"
            )));
        }
        for (key, why) in [
            ("expert_count", "mixtures of experts are not supported"),
            ("attn_logit_softcapping", "soft caps are not supported"),
            ("final_logit_softcapping", "soft caps are not supported"),
        ] {
            if self.float(key)?.is_some_and(|v| v != 0.0) {
                return Err(self.file.error(format!("`{}`: {why}", self.key(key))));
            }
        }
        if let (Some(key), Some(value)) = (
            self.optional("attention.key_length")?,
            self.optional("attention.value_length")?,
        ) && key != value
        {
            return Err(self.file.error(format!(
                "`{}` {value} is not the length of keys, {key}: not supported",
                self.key("attention.value_length")
            )));
        }
        Ok(())
    }

    fn check(&self, config: &ModelConfig) -> Result<()> {
        let mut problems = config.problems();
        if problems.is_empty() {
            let turned = self.optional("rope.dimension_count")?;
            if let Some(turned) = turned.filter(|&n| n != config.head_dim()) {
                problems.push(format!(
                    "`{}` is {turned}, but heads have {} values: they are turned as a whole",
                    self.key("rope.dimension_count"),
                    config.head_dim()
                ));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(self.file.error(problems.join("; ")))
    }

    fn gemma(&self, config: &mut ModelConfig) -> Result<()> {
        config.rope_theta = self.float("rope.freq_base")?.unwrap_or(1e6);
        config.rope_local_base_freq = Some(self.float("rope.freq_base_swa")?.unwrap_or(1e4));
        config.sliding_window = self.optional("attention.sliding_window")?;
        // Without a window nothing slides, as in llama.cpp.
        if config.sliding_window.is_some_and(|w| w > 0) {
            let every = self.file.int(&self.key("attention.sliding_window_pattern"));
            let every = every?.unwrap_or(GEMMA_PATTERN).max(1);
            let kind = |i: usize| match i as u64 % every {
                0 => LayerType::FullAttention,
                _ => LayerType::SlidingAttention,
            };
            let layers = config.num_hidden_layers.min(1 << 16);
            config.layer_types = Some((1..=layers).map(kind).collect());
        }
        if config.num_hidden_layers == GEMMA_27B_LAYERS {
            let width = config.hidden_size / config.num_attention_heads.max(1);
            config.query_pre_attn_scalar = Some(width as f64);
        }
        Ok(())
    }

    /// The norms of a ternary form on another backbone; the tensors say whether they are there.
    fn extra_norms(&self, config: &mut ModelConfig) {
        let has = |name| self.file.tensor(name).is_some();
        let found = if has("blk.0.attn_q_norm_in.weight") {
            SubNorm::All
        } else if has("blk.0.attn_sub_norm.weight") {
            SubNorm::SubLn
        } else {
            SubNorm::None
        };
        if found != config.sub_norm() {
            config.tritburn = Some(TritburnSection {
                norm_eps: None,
                quant: None,
                sub_norm: Some(found),
            });
        }
    }

    fn rope_scaling(&self, config: &ModelConfig) -> Result<Option<RopeScaling>> {
        let kind = self.file.text(&self.key("rope.scaling.type"))?;
        let factor = self.float("rope.scaling.factor")?;
        match kind {
            None | Some("none") => self.llama3(config),
            Some("linear") => Ok(factor
                .filter(|&f| f != 1.0)
                .map(|factor| RopeScaling::Linear { factor })),
            Some(other) => Err(self.file.error(format!(
                "`{}` \"{other}\" is not supported; supported are none, linear",
                self.key("rope.scaling.type")
            ))),
        }
    }

    /// llama.cpp states Llama 3's scaling by the divisors of the frequencies, not by the numbers
    /// that they come from: all published models have the same, but for the factor, which is the
    /// largest divisor.
    fn llama3(&self, config: &ModelConfig) -> Result<Option<RopeScaling>> {
        let Some(info) = self.file.tensor(ROPE_FACTORS) else {
            return Ok(None);
        };
        let divisors = super::model::vector(self.file, info, config.head_dim() / 2)
            .map_err(|e| self.file.error(format!("`{ROPE_FACTORS}` {e}")))?;
        let factor = divisors.iter().copied().fold(1.0f32, f32::max);
        let scaling = RopeScaling::Llama3 {
            factor: f64::from(factor),
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let plain = config.layer_inv_freq(0);
        let scaled = ModelConfig {
            rope_scaling: Some(scaling),
            ..config.clone()
        };
        let scaled = scaled.layer_inv_freq(0);
        let same = plain
            .iter()
            .zip(&scaled)
            .zip(&divisors)
            .all(|((plain, scaled), d)| (plain / d - scaled).abs() <= 1e-4 * scaled);
        if same {
            return Ok(Some(scaling).filter(|_| factor > 1.0));
        }
        Err(self.file.error(format!(
            "`{ROPE_FACTORS}` is not the RoPE scaling of Llama 3 with factor {factor}: not supported"
        )))
    }
}
