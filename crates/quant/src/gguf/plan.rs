//! What a GGUF file of a folder consists of, before anything is written.

use std::collections::HashSet;

use safetensors::Dtype;

use super::config::{Arch, ROPE_FACTORS};
use super::kind::TensorKind;
use super::metadata::rope_factors;
use super::names::gguf_name;
use super::scales;
use crate::config::{ModelConfig, QuantizationMode, SubNorm};
use crate::error::{QuantError, Result};
use crate::tensor_file::{LEFT_OVER, TensorFile};

/// Where the values of a tensor come from.
#[derive(Debug)]
pub(super) enum Content {
    /// Values that stay what they are but for rounding to the type and an offset.
    Plain,
    /// A ternary projection.
    Ternary,
    /// Not in the folder.
    Given(Vec<f32>),
}

/// One tensor to be written.
#[derive(Debug)]
pub(super) struct Planned {
    /// Name in the folder.
    pub(super) source: String,
    /// Name in the GGUF file.
    pub(super) name: String,
    /// Rows and columns, or length.
    pub(super) shape: Vec<usize>,
    pub(super) kind: TensorKind,
    pub(super) content: Content,
    /// Width of heads whose rows llama.cpp has in another order.
    pub(super) head: Option<usize>,
    /// Added to every value.
    pub(super) offset: f32,
}

impl Planned {
    /// Rows, and values of a row.
    pub(super) fn matrix(&self) -> [usize; 2] {
        match *self.shape.as_slice() {
            [rows, cols] => [rows, cols],
            // A vector is turned value by value.
            _ => [self.shape.iter().product(), 1],
        }
    }

    /// Bytes of the tensor in the file.
    pub(super) fn bytes(&self) -> std::result::Result<usize, String> {
        let (cols, outer) = self.shape.split_last().unwrap_or((&1, &[]));
        self.kind.tensor_bytes(outer.iter().product(), *cols)
    }
}

struct Plan<'a> {
    config: &'a ModelConfig,
    arch: Arch,
    file: &'a TensorFile,
    ternary: TensorKind,
    table: TensorKind,
    used: HashSet<String>,
    out: Vec<Planned>,
}

/// All tensors of the model, in the order of the file: ternary projections of the first type,
/// embedding and head of the second.
///
/// # Errors
/// Where a width does not fit the type, a tensor is missing, or the folder has one more.
pub(super) fn plan(
    config: &ModelConfig,
    arch: Arch,
    file: &TensorFile,
    [ternary, table]: [TensorKind; 2],
) -> Result<Vec<Planned>> {
    let mut plan = Plan {
        config,
        arch,
        file,
        ternary,
        table,
        used: HashSet::new(),
        out: Vec::new(),
    };
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    plan.table("model.embed_tokens.weight", [vocab, hidden])?;
    if !config.tie_word_embeddings {
        plan.table("lm_head.weight", [vocab, hidden])?;
    }
    plan.vector("model.norm.weight", None, hidden)?;
    if let Some(factors) = rope_factors(config) {
        plan.out.push(Planned {
            source: ROPE_FACTORS.into(),
            name: ROPE_FACTORS.into(),
            shape: vec![factors.len()],
            kind: TensorKind::F32,
            content: Content::Given(factors),
            head: None,
            offset: 0.0,
        });
    }
    for i in 0..config.num_hidden_layers {
        plan.layer(&format!("model.layers.{i}"))?;
    }
    plan.all_used()?;
    Ok(plan.out)
}

impl Plan<'_> {
    fn layer(&mut self, prefix: &str) -> Result<()> {
        let c = self.config;
        let (hidden, ffn) = (c.hidden_size, c.intermediate_size);
        let mut norms = vec!["input_layernorm", "post_attention_layernorm"];
        if c.post_norms() {
            norms.extend(["pre_feedforward_layernorm", "post_feedforward_layernorm"]);
        }
        for norm in norms {
            self.vector(&format!("{prefix}.{norm}.weight"), None, hidden)?;
        }
        if c.qk_norm() {
            for norm in ["q_norm", "k_norm"] {
                let name = format!("{prefix}.self_attn.{norm}.weight");
                self.vector(&name, None, c.head_dim())?;
            }
        }
        let ours = ["self_attn.attn_sub_norm", "mlp.ffn_sub_norm"];
        if c.sub_norm() == SubNorm::SubLn {
            let widths = [c.q_dim(), ffn];
            for ((stored, ours), width) in c.sub_norm_names().into_iter().zip(ours).zip(widths) {
                let ours = format!("{prefix}.{ours}.weight");
                self.vector(&format!("{prefix}.{stored}.weight"), Some(&ours), width)?;
            }
        }
        for (module, shape, bias) in [
            ("self_attn.q_proj", [c.q_dim(), hidden], c.qkv_bias()),
            ("self_attn.k_proj", [c.kv_dim(), hidden], c.qkv_bias()),
            ("self_attn.v_proj", [c.kv_dim(), hidden], c.qkv_bias()),
            ("self_attn.o_proj", [hidden, c.q_dim()], c.o_bias()),
            ("mlp.gate_proj", [ffn, hidden], false),
            ("mlp.up_proj", [ffn, hidden], false),
            ("mlp.down_proj", [hidden, ffn], false),
        ] {
            self.projection(&format!("{prefix}.{module}"), shape, bias)?;
        }
        Ok(())
    }

    fn projection(&mut self, module: &str, shape: [usize; 2], bias: bool) -> Result<()> {
        let config = self.config;
        let quantization = config.quantization_config.as_ref();
        let ternary = quantization.filter(|q| !q.excludes(module));
        if config.sub_norm() == SubNorm::All {
            if ternary.is_none() && config.tritburn.is_none() {
                return Err(self.error(
                    module,
                    "is in `quantization_config.modules_to_not_convert` and has no norm, but GGUF \
                     files have norms in front of all projections or none",
                ));
            }
            let stored = format!("{module}.{}.weight", config.projection_norm().0);
            let ours = format!("{module}.norm.weight");
            self.vector(&stored, Some(&ours), shape[1])?;
        }
        if bias {
            self.vector(&format!("{module}.bias"), None, shape[0])?;
        }
        let name = format!("{module}.weight");
        let Some(quantization) = ternary else {
            let kind = match self.file.info(&name) {
                Some((Dtype::F16, _)) => TensorKind::F16,
                Some((Dtype::BF16, _)) => TensorKind::Bf16,
                _ => TensorKind::F32,
            };
            return self.push(&name, None, shape.to_vec(), kind, Content::Plain);
        };
        if quantization.quantization_mode == QuantizationMode::Offline {
            self.used.insert(format!("{module}.weight_scale"));
        }
        let (kind, cols, block) = (self.ternary, shape[1], self.ternary.block_len());
        if !cols.is_multiple_of(block) {
            let remedy = if cols.is_multiple_of(TensorKind::I2S.block_len()) {
                "q2_0 and i2_s take this width"
            } else if cols.is_multiple_of(TensorKind::Q2_0.block_len()) {
                "q2_0 takes this width"
            } else {
                "no ternary type takes this width: keep the Hugging Face folder, or train a model \
                 whose widths are multiples of 256"
            };
            return Err(self.error(
                &name,
                &format!(
                    "has rows of {cols} values, but {} stores rows in blocks of {block}; {remedy}",
                    kind.name()
                ),
            ));
        }
        let quant = config.quant_scheme().unwrap_or_default().weights;
        if let Some(problem) = scales::problem(kind, quant) {
            return Err(self.error(&name, &problem));
        }
        self.push(&name, None, shape.to_vec(), kind, Content::Ternary)
    }

    fn table(&mut self, name: &str, shape: [usize; 2]) -> Result<()> {
        let (cols, kind) = (shape[1], self.table);
        if !cols.is_multiple_of(kind.block_len()) {
            let remedy = if cols.is_multiple_of(TensorKind::Q8_0.block_len()) {
                "f16 and q8_0 take this width"
            } else {
                "f16 takes every width"
            };
            return Err(self.error(
                name,
                &format!(
                    "has rows of {cols} values, but {} stores rows in blocks of {}; {remedy}",
                    kind.name(),
                    kind.block_len()
                ),
            ));
        }
        self.push(name, None, shape.to_vec(), kind, Content::Plain)
    }

    fn vector(&mut self, name: &str, canonical: Option<&str>, len: usize) -> Result<()> {
        self.push(name, canonical, vec![len], TensorKind::F32, Content::Plain)
    }

    /// `canonical` is our name of a tensor that the folder calls otherwise.
    fn push(
        &mut self,
        source: &str,
        canonical: Option<&str>,
        shape: Vec<usize>,
        kind: TensorKind,
        content: Content,
    ) -> Result<()> {
        self.used.insert(source.to_owned());
        let known = canonical.unwrap_or(source);
        let name = gguf_name(self.config, known);
        let name = name.ok_or_else(|| self.error(source, "has no name in GGUF files"))?;
        if !self.file.contains(source) {
            return Err(self.error(
                source,
                "is missing; does config.json belong to these weights?",
            ));
        }
        self.out.push(Planned {
            source: source.to_owned(),
            name,
            shape,
            kind,
            content,
            head: self.arch.turns(known).then(|| self.config.head_dim()),
            offset: self.arch.offset(known),
        });
        Ok(())
    }

    /// A tensor that is left out would make another model of it.
    fn all_used(&self) -> Result<()> {
        let tied = self.config.tie_word_embeddings;
        match self.file.left_over(&self.used, tied) {
            None => Ok(()),
            Some(name) => Err(self.error(name, LEFT_OVER)),
        }
    }

    fn error(&self, name: &str, message: &str) -> QuantError {
        QuantError::tensor(self.file.path_of(name), format!("`{name}`: {message}"))
    }
}
