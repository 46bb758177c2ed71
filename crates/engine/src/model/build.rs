//! The parts of a model and how a [`Source`] fills them.

use tritburn_kernels::kv::KvFormat;
use tritburn_kernels::memory::Region;
use tritburn_kernels::{Format, Kernel, Scales};
use tritburn_quant::config::{ModelConfig, SubNorm};
use tritburn_quant::scheme::{ActQuant, Input};

use super::clock::Op;
use super::input::InputQuant;
use super::linear::{Linear, Weight};
use super::norm::RmsNorm;
use super::source::Source;
use super::sparsity::Layouts;
use super::table::{HeadFormat, Table};
use crate::engine::EngineOptions;
use crate::error::{EngineError, Result};

/// One transformer block.
#[derive(Debug)]
pub(crate) struct Layer {
    /// In front of attention.
    pub(crate) attn_norm: RmsNorm,
    /// On each head of queries and keys.
    pub(crate) qk_norms: Option<[RmsNorm; 2]>,
    pub(crate) q_proj: Linear,
    pub(crate) k_proj: Linear,
    pub(crate) v_proj: Linear,
    pub(crate) o_proj: Linear,
    /// On the result of attention.
    pub(crate) attn_post_norm: Option<RmsNorm>,
    /// In front of the feed-forward block.
    pub(crate) ffn_norm: RmsNorm,
    pub(crate) gate_proj: Linear,
    pub(crate) up_proj: Linear,
    pub(crate) down_proj: Linear,
    /// On the result of the feed-forward block.
    pub(crate) ffn_post_norm: Option<RmsNorm>,
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

    /// Where the weights lie that one decoded token reads.
    pub(crate) fn regions_per_token(&self) -> Vec<Region<'_>> {
        let layers = self.layers.iter().flat_map(Layer::projections);
        let head = std::iter::once(self.head().region());
        layers.map(Linear::region).chain(head).collect()
    }

    /// Bytes of keys and values that a token reads after `seen` others, its own included.
    pub(crate) fn cache_bytes(&self, format: KvFormat, seen: usize) -> usize {
        let c = &self.config;
        let position = 2 * c.num_key_value_heads * format.row_bytes(c.head_dim());
        let positions = |layer| c.layer_window(layer).unwrap_or(usize::MAX).min(seen + 1);
        (0..c.num_hidden_layers).map(positions).sum::<usize>() * position
    }

    /// Bytes of weights of an operation.
    pub(crate) fn bytes_of(&self, op: Op) -> usize {
        let bytes = |l: &Layer| {
            let some: &[&Linear] = match op {
                Op::Qkv => &[&l.q_proj, &l.k_proj, &l.v_proj],
                Op::OutProjection => &[&l.o_proj],
                Op::GateUp => &[&l.gate_proj, &l.up_proj],
                Op::Down => &[&l.down_proj],
                _ => &[],
            };
            some.iter().map(|l| l.bytes()).sum::<usize>()
        };
        match op {
            Op::Head => self.head().bytes(),
            _ => self.layers.iter().map(bytes).sum(),
        }
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
            Some(Format::Lookup) => "ternary-lookup",
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
        all.find_map(|l| l.weight.format())
    }

    /// What a scale of the ternary projections covers, for reports.
    pub(crate) fn scales(&self) -> Option<&'static str> {
        let mut all = self.layers.iter().flat_map(Layer::projections);
        all.find_map(|l| l.weight.scales())
            .map(|scales| match scales {
                Scales::Tensor(_) => "tensor",
                Scales::Row(_) => "row",
                Scales::Group(_) => "group128",
            })
    }

    /// How output head and embedding are stored.
    pub(crate) fn head_format(&self) -> HeadFormat {
        self.embed.format()
    }
}

/// How weights are stored in memory.
#[derive(Debug)]
pub(crate) struct WeightFormats<'a> {
    head: HeadFormat,
    layouts: Layouts<'a>,
}

impl<'a> WeightFormats<'a> {
    /// What the options ask for, for products by `kernel`.
    pub(crate) fn of(
        config: &'a ModelConfig,
        options: &EngineOptions,
        kernel: &dyn Kernel,
    ) -> Self {
        let head = match config.is_ternary() {
            true => HeadFormat::Int6,
            false => HeadFormat::F32,
        };
        Self {
            head: options.head.unwrap_or(head),
            layouts: Layouts::new(config, kernel, options.format, options.sparsity),
        }
    }
}

/// Builds the model that `config` describes.
pub(crate) fn build(
    config: &ModelConfig,
    source: &mut dyn Source,
    formats: &WeightFormats<'_>,
) -> Result<Model> {
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let embed = source.table("model.embed_tokens.weight", vocab, hidden, formats.head)?;
    let lm_head = if config.tie_word_embeddings {
        None
    } else {
        Some(source.table("lm_head.weight", vocab, hidden, formats.head)?)
    };
    let mut parts = Parts {
        config,
        source,
        formats,
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
    formats: &'a WeightFormats<'a>,
}

impl Parts<'_> {
    /// A norm of the backbone.
    fn norm(&mut self, module: &str, width: usize) -> Result<RmsNorm> {
        let offset = self.config.norm_offset();
        let mut norm = self.extra_norm(module, width, self.config.rms_norm_eps)?;
        norm.weight.iter_mut().for_each(|w| *w += offset);
        Ok(norm)
    }

    /// A norm that the ternary form adds to the backbone.
    fn extra_norm(&mut self, module: &str, width: usize, eps: f64) -> Result<RmsNorm> {
        Ok(RmsNorm {
            weight: self.source.vector(&format!("{module}.weight"), width)?,
            eps: eps as f32,
            centred: false,
        })
    }

    /// A projection; `sub_norm` names the norm in front of it where the layout is SubLN.
    fn linear(
        &mut self,
        module: &str,
        input: Input,
        [rows, cols]: [usize; 2],
        sub_norm: Option<&str>,
        bias: bool,
    ) -> Result<Linear> {
        let config = self.config;
        let quantization = config.quantization_config.as_ref();
        let quantization = quantization.filter(|q| !q.excludes(module));
        let norm = match (config.sub_norm(), sub_norm) {
            (SubNorm::All, _) => {
                let (name, eps) = config.projection_norm();
                // Norms that come with the ternary module are not where it was not put.
                let left_out = config.tritburn.is_none() && quantization.is_none();
                let name = (!left_out).then(|| format!("{module}.{name}"));
                name.map(|name| self.extra_norm(&name, cols, eps))
                    .transpose()?
            }
            (SubNorm::LayerNorm, _) => Some(RmsNorm {
                weight: vec![1.0; cols],
                eps: config.rms_norm_eps as f32,
                centred: true,
            }),
            (SubNorm::SubLn, Some(name)) => {
                Some(self.extra_norm(name, cols, config.rms_norm_eps)?)
            }
            _ => None,
        };
        let scheme = config.quant_scheme().unwrap_or_default();
        let act = scheme.act(input);
        let quantiser = quantization
            .filter(|_| act != ActQuant::INT8)
            .map(|_| InputQuant::new(act, cols))
            .transpose();
        let quantization = quantization.map(|q| (q, scheme.weights));
        let layout = self.formats.layouts.of(input, module);
        let weight = self
            .source
            .projection(module, rows, cols, quantization, layout)?;
        let input = match &weight {
            Weight::Ternary(_) if self.source.has_full_inputs() => Ok(Some(InputQuant::Groups)),
            _ => quantiser,
        };
        let bias = bias.then(|| self.source.vector(&format!("{module}.bias"), rows));
        Ok(Linear {
            norm,
            input: input.map_err(EngineError::Unsupported)?,
            weight,
            bias: bias.transpose()?,
        })
    }

    fn layer(&mut self, prefix: &str) -> Result<Layer> {
        let c = self.config;
        let (hidden, ffn) = (c.hidden_size, c.intermediate_size);
        let attn = |name: &str| format!("{prefix}.self_attn.{name}");
        let mlp = |name: &str| format!("{prefix}.mlp.{name}");
        let norm = |name: &str| format!("{prefix}.{name}_layernorm");
        let [attn_sub, ffn_sub] = c.sub_norm_names().map(|name| format!("{prefix}.{name}"));
        let (q_shape, kv_shape) = ([c.q_dim(), hidden], [c.kv_dim(), hidden]);
        let qk_norms = if c.qk_norm() {
            let mut norm = |name| self.norm(&attn(name), c.head_dim());
            Some([norm("q_norm")?, norm("k_norm")?])
        } else {
            None
        };
        let post = c.post_norms();
        let ffn_norm = if post {
            "pre_feedforward"
        } else {
            "post_attention"
        };
        let mut post_norm = |name| post.then(|| self.norm(&norm(name), hidden)).transpose();
        Ok(Layer {
            attn_post_norm: post_norm("post_attention")?,
            ffn_post_norm: post_norm("post_feedforward")?,
            qk_norms,
            attn_norm: self.norm(&norm("input"), hidden)?,
            q_proj: self.linear(&attn("q_proj"), Input::Qkv, q_shape, None, c.qkv_bias())?,
            k_proj: self.linear(&attn("k_proj"), Input::Qkv, kv_shape, None, c.qkv_bias())?,
            v_proj: self.linear(&attn("v_proj"), Input::Qkv, kv_shape, None, c.qkv_bias())?,
            o_proj: self.linear(
                &attn("o_proj"),
                Input::O,
                [hidden, c.q_dim()],
                Some(&attn_sub),
                c.o_bias(),
            )?,
            ffn_norm: self.norm(&norm(ffn_norm), hidden)?,
            gate_proj: self.linear(&mlp("gate_proj"), Input::GateUp, [ffn, hidden], None, false)?,
            up_proj: self.linear(&mlp("up_proj"), Input::GateUp, [ffn, hidden], None, false)?,
            down_proj: self.linear(
                &mlp("down_proj"),
                Input::Down,
                [hidden, ffn],
                Some(&ffn_sub),
                false,
            )?,
        })
    }
}
