//! The parts of a model and how a [`Source`] fills them.

use tritburn_kernels::Format;
use tritburn_quant::config::{ModelConfig, QuantizationConfig, SubNorm};

use super::linear::{Linear, Weight};
use super::norm::RmsNorm;
use super::source::Source;
use super::table::{HeadFormat, Table};
use crate::engine::EngineOptions;
use crate::error::Result;

/// One transformer block.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) input_norm: RmsNorm,
    pub(crate) q_proj: Linear,
    pub(crate) k_proj: Linear,
    pub(crate) v_proj: Linear,
    pub(crate) o_proj: Linear,
    pub(crate) post_attention_norm: RmsNorm,
    pub(crate) gate_proj: Linear,
    pub(crate) up_proj: Linear,
    pub(crate) down_proj: Linear,
}

impl Layer {
    fn projections(&self) -> [&Linear; 7] {
        [
            &self.q_proj,
            &self.k_proj,
            &self.v_proj,
            &self.o_proj,
            &self.gate_proj,
            &self.up_proj,
            &self.down_proj,
        ]
    }
}

/// All weights, ready to be multiplied with.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) embed: Table,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: RmsNorm,
    /// `None` where the embedding is the head.
    lm_head: Option<Table>,
}

impl Model {
    /// The output head.
    pub(crate) fn head(&self) -> &Table {
        self.lm_head.as_ref().unwrap_or(&self.embed)
    }

    /// Bytes that all matrices take.
    pub(crate) fn weights_bytes(&self) -> usize {
        let layers = self.layers.iter().flat_map(Layer::projections);
        let head = self.lm_head.as_ref().map_or(0, Table::bytes);
        layers.map(Linear::bytes).sum::<usize>() + self.embed.bytes() + head
    }

    /// Bytes of weights that one decoded token reads.
    pub(crate) fn bytes_per_token(&self) -> usize {
        let layers = self.layers.iter().flat_map(Layer::projections);
        layers.map(Linear::bytes).sum::<usize>() + self.head().bytes()
    }

    /// Multiplications of one token in the blocks, without attention.
    pub(crate) fn products_per_token(&self) -> usize {
        let layers = self.layers.iter().flat_map(Layer::projections);
        layers.map(Linear::weights).sum()
    }

    /// How the projections are stored, for reports.
    pub(crate) fn format(&self) -> &'static str {
        match self.ternary_format() {
            Some(Format::TwoBit) => "ternary-2bit",
            Some(Format::Base3) => "ternary-base3",
            None => "f32",
        }
    }

    /// Whether any projection is ternary.
    pub(crate) fn is_ternary(&self) -> bool {
        self.ternary_format().is_some()
    }

    /// How ternary projections are packed, where there are any.
    pub(crate) fn ternary_format(&self) -> Option<Format> {
        let mut all = self.layers.iter().flat_map(Layer::projections);
        all.find_map(|l| match &l.weight {
            Weight::Ternary(w) => Some(w.format()),
            Weight::Dense(_) => None,
        })
    }

    /// How output head and embedding are stored.
    pub(crate) fn head_format(&self) -> HeadFormat {
        self.embed.format()
    }
}

/// How weights are stored in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WeightFormats {
    pub(crate) ternary: Format,
    pub(crate) head: HeadFormat,
}

impl WeightFormats {
    /// What the options ask for.
    pub(crate) fn of(config: &ModelConfig, options: &EngineOptions) -> Self {
        let head = match config.is_ternary() {
            true => HeadFormat::Int8,
            false => HeadFormat::F32,
        };
        Self {
            ternary: options.format,
            head: options.head.unwrap_or(head),
        }
    }
}

/// Builds the model that `config` describes.
pub(crate) fn build(
    config: &ModelConfig,
    source: &mut dyn Source,
    formats: &WeightFormats,
) -> Result<Model> {
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let embed = source.table("model.embed_tokens.weight", vocab, hidden, formats.head)?;
    let lm_head = if config.tie_word_embeddings {
        None
    } else {
        Some(source.table("lm_head.weight", vocab, hidden, formats.head)?)
    };
    let format = formats.ternary;
    let mut parts = Parts {
        config,
        source,
        format,
    };
    let layers = (0..config.num_hidden_layers)
        .map(|i| parts.layer(&format!("model.layers.{i}")))
        .collect::<Result<_>>()?;
    Ok(Model {
        config: config.clone(),
        embed,
        layers,
        norm: parts.norm("model.norm", hidden)?,
        lm_head,
    })
}

struct Parts<'a> {
    config: &'a ModelConfig,
    source: &'a mut dyn Source,
    format: Format,
}

impl Parts<'_> {
    fn norm(&mut self, module: &str, width: usize) -> Result<RmsNorm> {
        Ok(RmsNorm {
            weight: self.source.vector(&format!("{module}.weight"), width)?,
            eps: self.config.rms_norm_eps as f32,
        })
    }

    /// A projection; `sub_norm` names the norm in front of it where the layout is SubLN.
    fn linear(
        &mut self,
        module: &str,
        rows: usize,
        cols: usize,
        sub_norm: Option<&str>,
    ) -> Result<Linear> {
        let norm = match (self.config.sub_norm(), sub_norm) {
            (SubNorm::All, _) => Some(self.norm(&format!("{module}.norm"), cols)?),
            (SubNorm::SubLn, Some(name)) => Some(self.norm(name, cols)?),
            _ => None,
        };
        let quantization = self.config.quantization_config.as_ref();
        let quantization = quantization.filter(|q| !is_excluded(q, module));
        let weight = self
            .source
            .projection(module, rows, cols, quantization, self.format)?;
        Ok(Linear { norm, weight })
    }

    fn layer(&mut self, prefix: &str) -> Result<Layer> {
        let c = self.config;
        let (hidden, ffn) = (c.hidden_size, c.intermediate_size);
        let attn = |name: &str| format!("{prefix}.self_attn.{name}");
        let mlp = |name: &str| format!("{prefix}.mlp.{name}");
        let (attn_sub, ffn_sub) = (attn("attn_sub_norm"), mlp("ffn_sub_norm"));
        Ok(Layer {
            input_norm: self.norm(&format!("{prefix}.input_layernorm"), hidden)?,
            q_proj: self.linear(&attn("q_proj"), c.q_dim(), hidden, None)?,
            k_proj: self.linear(&attn("k_proj"), c.kv_dim(), hidden, None)?,
            v_proj: self.linear(&attn("v_proj"), c.kv_dim(), hidden, None)?,
            o_proj: self.linear(&attn("o_proj"), hidden, c.q_dim(), Some(&attn_sub))?,
            post_attention_norm: self
                .norm(&format!("{prefix}.post_attention_layernorm"), hidden)?,
            gate_proj: self.linear(&mlp("gate_proj"), ffn, hidden, None)?,
            up_proj: self.linear(&mlp("up_proj"), ffn, hidden, None)?,
            down_proj: self.linear(&mlp("down_proj"), hidden, ffn, Some(&ffn_sub))?,
        })
    }
}

/// Whether `modules_to_not_convert` names the module or a module that contains it.
fn is_excluded(quantization: &QuantizationConfig, module: &str) -> bool {
    let module = format!(".{module}.");
    let names = quantization.modules_to_not_convert.iter().flatten();
    names
        .into_iter()
        .any(|n| module.contains(&format!(".{n}.")))
}

#[cfg(test)]
mod tests {
    use tritburn_quant::config::QuantizationMode;

    use super::*;

    #[test]
    fn exclusion_is_by_whole_names() {
        let mut q = QuantizationConfig::bitnet(QuantizationMode::Offline);
        let module = "model.layers.1.self_attn.q_proj";
        assert!(!is_excluded(&q, module));
        for (name, excluded) in [
            ("q_proj", true),
            ("model.layers.1", true),
            ("model.layers", true),
            ("proj", false),
            ("model.layers.11", false),
        ] {
            q.modules_to_not_convert = Some(vec!["lm_head".into(), name.into()]);
            assert_eq!(is_excluded(&q, module), excluded, "{name}");
        }
    }
}
