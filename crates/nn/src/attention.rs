//! Grouped-query self-attention.

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use tritburn_quant::config::{ModelConfig, SubNorm};
use tritburn_quant::scheme::Input;

use crate::linear::{BitLinear, LinearSpec};
use crate::norm::RmsNorm;
use crate::ops::{AttentionShape, CacheQuant, Ops, Starts};
use crate::probe::Probe;
use crate::rope::Rope;
use crate::weights::WeightSource;
use crate::{NnError, Result};

/// How the rows of `[batch · seq, …]` make sequences.
#[derive(Debug, Clone)]
pub struct Layout<B: Backend> {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub seq: usize,
    /// Where documents that share a sequence begin.
    pub starts: Starts<B>,
}

/// Query, key and value states of one layer as relation distillation wants them: after the rotary
/// embedding, key and value heads not repeated.
#[derive(Debug, Clone)]
pub struct QkvStates<B: Backend> {
    /// `[batch · seq, heads · head_dim]`.
    pub q: Tensor<B, 2>,
    /// `[batch · seq, kv_heads · head_dim]`.
    pub k: Tensor<B, 2>,
    /// `[batch · seq, kv_heads · head_dim]`.
    pub v: Tensor<B, 2>,
}

/// `o_proj(attn_sub_norm(softmax(Q·Kᵀ/√d)·V))`, causal unless made [`Attention::bidirectional`]
/// (BitDistill Eq. 4 where the sub-norm is present).
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    /// Query projection.
    pub q_proj: BitLinear<B>,
    /// Key projection.
    pub k_proj: BitLinear<B>,
    /// Value projection.
    pub v_proj: BitLinear<B>,
    /// Output projection.
    pub o_proj: BitLinear<B>,
    /// Norm of every query head, before the rotary embedding.
    pub q_norm: Option<RmsNorm<B>>,
    /// Norm of every key head, before the rotary embedding.
    pub k_norm: Option<RmsNorm<B>>,
    /// SubLN on the joined heads.
    pub attn_sub_norm: Option<RmsNorm<B>>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Factor of queries, beside the `1/√head_dim` that attention has.
    query_scale: f32,
    #[module(skip)]
    causal: bool,
    #[module(skip)]
    window: Option<usize>,
    #[module(skip)]
    q_bits: Option<u8>,
    #[module(skip)]
    kv_bits: Option<u8>,
}

impl<B: Backend> Attention<B> {
    /// Takes `{name}.{q,k,v,o}_proj`, `{name}.{q,k}_norm` and `{name}.attn_sub_norm` of layer
    /// `layer` from `source`.
    ///
    /// # Errors
    /// What the source reports.
    pub fn new(
        source: &mut dyn WeightSource,
        name: &str,
        config: &ModelConfig,
        layer: usize,
        device: &B::Device,
    ) -> Result<Self, NnError> {
        let sub_norm = config.sub_norm();
        let (d, q, kv) = (config.hidden_size, config.q_dim(), config.kv_dim());
        let mut linear = |part: &str, input, d_in, d_out| {
            let module = format!("{name}.{part}");
            let bias = match input {
                Input::O => config.o_bias(),
                _ => config.qkv_bias(),
            };
            let spec = LinearSpec::of(config, &module, input, [d_in, d_out]).with_bias(bias);
            BitLinear::new(source, &module, spec, device)
        };
        let q_proj = linear("q_proj", Input::Qkv, d, q)?;
        let k_proj = linear("k_proj", Input::Qkv, d, kv)?;
        let v_proj = linear("v_proj", Input::Qkv, d, kv)?;
        let o_proj = linear("o_proj", Input::O, q, d)?;
        let attn_sub_norm = (sub_norm == SubNorm::SubLn)
            .then(|| {
                let name = format!("{name}.attn_sub_norm");
                RmsNorm::new(source, &name, q, config.rms_norm_eps, device)
            })
            .transpose()?;
        let mut head_norm = |part: &str| -> Result<Option<RmsNorm<B>>> {
            if !config.qk_norm() {
                return Ok(None);
            }
            let (name, eps) = (format!("{name}.{part}"), config.rms_norm_eps);
            let norm = RmsNorm::new(source, &name, config.head_dim(), eps, device)?;
            Ok(Some(norm.with_offset(config.norm_offset())))
        };
        let (q_norm, k_norm) = (head_norm("q_norm")?, head_norm("k_norm")?);
        #[allow(clippy::cast_precision_loss)]
        let query_scale = config.attention_scale() * (config.head_dim() as f32).sqrt();
        Ok(Self {
            q_norm,
            k_norm,
            query_scale,
            causal: true,
            window: config.layer_window(layer),
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            attn_sub_norm,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim(),
            q_bits: config.quant_scheme().and_then(|s| s.q_bits),
            kv_bits: config.quant_scheme().and_then(|s| s.kv_bits),
        })
    }

    /// The same attention, in which every token sees its whole sequence.
    #[must_use]
    pub fn bidirectional(self) -> Self {
        Self {
            causal: false,
            window: None,
            ..self
        }
    }

    /// Every projection.
    pub fn projections_mut(&mut self) -> [&mut BitLinear<B>; 4] {
        [
            &mut self.q_proj,
            &mut self.k_proj,
            &mut self.v_proj,
            &mut self.o_proj,
        ]
    }

    /// Without `rope`, where tokens stand is for `x` to say.
    ///
    /// # Shapes
    /// `[batch · seq, hidden]` → `[batch · seq, hidden]`, and the states for distillation.
    #[must_use]
    pub fn forward(
        &self,
        x: Tensor<B, 2>,
        rope: Option<&Rope<B>>,
        layout: &Layout<B>,
        probe: &mut dyn Probe<B>,
    ) -> (Tensor<B, 2>, QkvStates<B>)
    where
        B: Ops,
    {
        let &Layout { batch, seq, .. } = layout;
        probe.input(Input::Qkv, &x, &self.q_proj);
        let normed = |x: Tensor<B, 2>, norm: &Option<RmsNorm<B>>| match norm {
            Some(norm) => {
                let [tokens, width] = x.dims();
                let heads = x.reshape([tokens * width / self.head_dim, self.head_dim]);
                norm.forward(heads).reshape([tokens, width])
            }
            None => x,
        };
        let placed = |x: Tensor<B, 2>| match rope {
            Some(rope) => rope.forward(x, seq),
            None => x,
        };
        let q = placed(normed(self.q_proj.forward(x.clone()), &self.q_norm));
        let k = placed(normed(self.k_proj.forward(x.clone()), &self.k_norm));
        let v = self.v_proj.forward(x);
        let shape = AttentionShape {
            batch,
            seq,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            causal: self.causal,
            window: self.window,
        };
        let cached = |x: &Tensor<B, 2>, bits: Option<u8>| match bits {
            Some(bits) => {
                let head_dim = self.head_dim;
                let quant = CacheQuant {
                    bits,
                    head_dim,
                    seq,
                };
                B::cache_quant(x.clone(), quant)
            }
            None => x.clone(),
        };
        let query = cached(&q, self.q_bits);
        // Rounding of √d against 1/√d must not cost a pass over the queries.
        let query = if (self.query_scale - 1.0).abs() < 1e-6 {
            query
        } else {
            query * self.query_scale
        };
        let heads = B::self_attention(
            query,
            cached(&k, self.kv_bits),
            cached(&v, self.kv_bits),
            shape,
            layout.starts.clone(),
        );
        let heads = match &self.attn_sub_norm {
            Some(norm) => norm.forward(heads),
            None => heads,
        };
        probe.input(Input::O, &heads, &self.o_proj);
        (self.o_proj.forward(heads), QkvStates { q, k, v })
    }
}
