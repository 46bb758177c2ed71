//! The decoder-only language model.

use burn::module::{Module, Param};
use burn::tensor::{DType, Int, Tensor, TensorData, backend::Backend};
use tritburn_quant::config::ModelConfig;

use crate::attention::{Attention, Layout, QkvStates};
use crate::linear::{BitLinear, freeze};
use crate::mlp::Mlp;
use crate::norm::RmsNorm;
use crate::ops::{Compute, Head, Kernels, Ops, Starts};
use crate::packed::pack_all;
use crate::probe::{Blind, Probe};
use crate::rope::Rope;
use crate::weights::WeightSource;
use crate::{NnError, Result};

/// Token embedding.
#[derive(Module, Debug)]
pub struct Embedding<B: Backend> {
    /// `[vocab, hidden]`.
    pub weight: Param<Tensor<B, 2>>,
}

impl<B: Backend> Embedding<B> {
    fn new(
        source: &mut dyn WeightSource,
        name: &str,
        shape: [usize; 2],
        device: &B::Device,
    ) -> Result<Self, NnError> {
        let data = source.matrix(&format!("{name}.weight"), shape)?;
        let weight = Tensor::from_data(TensorData::new(data, shape), device);
        Ok(Self {
            weight: Param::from_tensor(weight),
        })
    }
}

/// One transformer block: pre-norm attention and pre-norm feed-forward, each with a residual. Norms
/// have Hugging Face's names, by which `post_attention_layernorm` stands in front of the
/// feed-forward block, or, where there is a `pre_feedforward_layernorm`, behind attention.
#[derive(Module, Debug)]
pub struct DecoderLayer<B: Backend> {
    /// Norm before attention.
    pub input_layernorm: RmsNorm<B>,
    /// Attention.
    pub self_attn: Attention<B>,
    /// Norm before the feed-forward block, or of what attention adds.
    pub post_attention_layernorm: RmsNorm<B>,
    /// Norm before the feed-forward block.
    pub pre_feedforward_layernorm: Option<RmsNorm<B>>,
    /// Norm of what the feed-forward block adds.
    pub post_feedforward_layernorm: Option<RmsNorm<B>>,
    /// Feed-forward block.
    pub mlp: Mlp<B>,
}

impl<B: Backend> DecoderLayer<B> {
    fn new(
        source: &mut dyn WeightSource,
        layer: usize,
        config: &ModelConfig,
        device: &B::Device,
    ) -> Result<Self, NnError> {
        let name = format!("model.layers.{layer}");
        let mut norm =
            |part: &str| backbone_norm(source, &format!("{name}.{part}"), config, device);
        let post = config.post_norms();
        let mut post_norm = |part: &str| post.then(|| norm(part)).transpose();
        let pre_feedforward_layernorm = post_norm("pre_feedforward_layernorm")?;
        let post_feedforward_layernorm = post_norm("post_feedforward_layernorm")?;
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            pre_feedforward_layernorm,
            post_feedforward_layernorm,
            self_attn: Attention::new(source, &format!("{name}.self_attn"), config, layer, device)?,
            mlp: Mlp::new(source, &format!("{name}.mlp"), config, device)?,
        })
    }

    fn forward(
        &self,
        x: Tensor<B, 2>,
        rope: &Rope<B>,
        layout: &Layout<B>,
        probe: &mut dyn Probe<B>,
    ) -> (Tensor<B, 2>, QkvStates<B>)
    where
        B: Ops,
    {
        let h = self.input_layernorm.forward(x.clone());
        let (attn, states) = self.self_attn.forward(h, Some(rope), layout, probe);
        let (attn, ffn_norm) = match &self.pre_feedforward_layernorm {
            Some(pre) => (self.post_attention_layernorm.forward(attn), pre),
            None => (attn, &self.post_attention_layernorm),
        };
        let x = x + attn;
        let h = self.mlp.forward(ffn_norm.forward(x.clone()), probe);
        let h = match &self.post_feedforward_layernorm {
            Some(norm) => norm.forward(h),
            None => h,
        };
        (x + h, states)
    }
}

/// A norm of the backbone, as against those that the ternary form adds.
fn backbone_norm<B: Backend>(
    source: &mut dyn WeightSource,
    name: &str,
    config: &ModelConfig,
    device: &B::Device,
) -> Result<RmsNorm<B>> {
    let norm = RmsNorm::new(
        source,
        name,
        config.hidden_size,
        config.rms_norm_eps,
        device,
    )?;
    Ok(norm.with_offset(config.norm_offset()))
}

/// Embedding, blocks and final norm.
#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    /// Token embedding.
    pub embed_tokens: Embedding<B>,
    /// Transformer blocks.
    pub layers: Vec<DecoderLayer<B>>,
    /// Final norm.
    pub norm: RmsNorm<B>,
    /// The different rotations of the layers.
    ropes: Vec<Rope<B>>,
    /// Which of them a layer has.
    #[module(skip)]
    rope_of: Vec<usize>,
    /// Factor of the embedding.
    embed_scale: f32,
}

/// A causal language model with Hugging Face's parameter names.
#[derive(Module, Debug)]
pub struct CausalLm<B: Backend> {
    /// Everything below the head.
    pub model: Decoder<B>,
    /// Output head `[vocab, hidden]`; absent where it is the embedding.
    pub lm_head: Option<Embedding<B>>,
    #[module(skip)]
    compute: Compute,
}

/// What a forward pass takes.
#[derive(Debug, Clone)]
pub struct Tokens<B: Backend> {
    /// `[batch, seq]`.
    pub ids: Tensor<B, 2, Int>,
    /// Where documents that share a row begin. Positions go on from one to the next: between two
    /// tokens a rotary embedding knows their distance alone.
    pub starts: Starts<B>,
}

impl<B: Backend> From<Tensor<B, 2, Int>> for Tokens<B> {
    fn from(ids: Tensor<B, 2, Int>) -> Self {
        Self { ids, starts: None }
    }
}

/// What a forward pass leaves behind.
#[derive(Debug, Clone)]
pub struct Forward<B: Backend> {
    /// After the final norm, `[batch · seq, hidden]`.
    pub hidden: Tensor<B, 2>,
    /// States of the layers asked for, in the order asked.
    pub states: Vec<QkvStates<B>>,
}

impl<B: Backend> CausalLm<B> {
    /// Builds the model of `config` with the weights of `source`.
    ///
    /// # Errors
    /// What the source reports: a missing tensor, another shape, a file that changed meanwhile.
    pub fn new(
        config: &ModelConfig,
        source: &mut dyn WeightSource,
        device: &B::Device,
    ) -> Result<Self, NnError> {
        let shape = [config.vocab_size, config.hidden_size];
        let embed_tokens = Embedding::new(source, "model.embed_tokens", shape, device)?;
        let layers = (0..config.num_hidden_layers)
            .map(|i| DecoderLayer::new(source, i, config, device))
            .collect::<Result<_, _>>()?;
        let norm = backbone_norm(source, "model.norm", config, device)?;
        let mut angles: Vec<Vec<f32>> = Vec::new();
        let rope_of = (0..config.num_hidden_layers).map(|i| {
            let inv_freq = config.layer_inv_freq(i);
            let known = angles.iter().position(|a| *a == inv_freq);
            known.unwrap_or_else(|| {
                angles.push(inv_freq);
                angles.len() - 1
            })
        });
        let rope_of = rope_of.collect();
        let positions = config.max_position_embeddings;
        let ropes = angles
            .iter()
            .map(|a| Rope::new(positions, a, device))
            .collect();
        let lm_head = (!config.tie_word_embeddings)
            .then(|| Embedding::new(source, "lm_head", shape, device))
            .transpose()?;
        source.finish()?;
        Ok(Self {
            model: Decoder {
                embed_tokens,
                layers,
                norm,
                ropes,
                rope_of,
                embed_scale: config.embed_scale(),
            },
            lm_head,
            compute: Compute::default(),
        })
    }

    fn projections_mut(&mut self) -> impl Iterator<Item = &mut BitLinear<B>> {
        self.model.layers.iter_mut().flat_map(|layer| {
            let attention = layer.self_attn.projections_mut();
            attention.into_iter().chain(layer.mlp.projections_mut())
        })
    }

    /// Sets λ of the quantisation warm-up in every projection (see
    /// [`LinearQuant::lambda`](crate::ops::LinearQuant::lambda)).
    pub fn set_lambda(&mut self, lambda: f32) {
        self.projections_mut()
            .for_each(|linear| linear.set_lambda(lambda));
    }

    /// Sets how gradients for the inputs of projections are computed (see
    /// [`LinearQuant::int8_grad_input`](crate::ops::LinearQuant::int8_grad_input)).
    pub fn set_int8_grad_input(&mut self, int8: bool) {
        self.projections_mut()
            .for_each(|linear| linear.set_int8_grad_input(int8));
    }

    /// Sets how products with weights in full precision are computed, the output head's among them.
    pub fn set_compute(&mut self, compute: Compute) {
        self.compute = compute;
        self.projections_mut()
            .for_each(|linear| linear.set_compute(compute));
    }

    /// Quantises every weight once for all forward passes until [`CausalLm::release_weights`]:
    /// micro-batches of one optimiser step share the codes.
    pub fn hold_weights(&mut self)
    where
        B: Ops,
    {
        BitLinear::hold_weights(self.projections_mut());
    }

    /// Quantises weights in every forward pass again; due before they change.
    pub fn release_weights(&mut self) {
        self.projections_mut().for_each(BitLinear::release_weight);
    }

    /// Keeps weights in full precision as they are multiplied fastest, for a model that is not trained any more:
    /// a teacher. Due after [`CausalLm::set_compute`].
    pub fn freeze(&mut self)
    where
        B: Kernels,
    {
        self.projections_mut().for_each(BitLinear::freeze);
        let tables = [Some(&mut self.model.embed_tokens), self.lm_head.as_mut()];
        for table in tables.into_iter().flatten() {
            freeze(&mut table.weight, self.compute);
        }
    }

    /// Packs every projection that can be (see [`BitLinear::pack`]), and says how many that were.
    ///
    /// # Errors
    /// As [`BitLinear::pack`].
    pub fn pack(&mut self) -> Result<usize>
    where
        B: Kernels,
    {
        pack_all(self.projections_mut())
    }

    /// Longest sequence the model takes.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        self.model.ropes.first().map_or(0, Rope::positions)
    }

    /// Runs the blocks. `capture` names the layers whose query, key and value states are wanted.
    ///
    /// Rows that are padded on the right need no mask: a causal position never sees what follows.
    /// For rows that are padded on the left there is [`CausalLm::forward_left_padded`].
    ///
    /// # Shapes
    /// `tokens` `[batch, seq]`.
    #[must_use]
    pub fn forward(&self, tokens: impl Into<Tokens<B>>, capture: &[usize]) -> Forward<B>
    where
        B: Ops,
    {
        self.forward_probed(tokens, capture, &mut Blind)
    }

    /// [`CausalLm::forward`], with `probe` looking on.
    #[must_use]
    pub fn forward_probed(
        &self,
        tokens: impl Into<Tokens<B>>,
        capture: &[usize],
        probe: &mut dyn Probe<B>,
    ) -> Forward<B>
    where
        B: Ops,
    {
        let Tokens { ids, starts } = tokens.into();
        let [batch, seq] = ids.dims();
        let layout = Layout { batch, seq, starts };
        let mut x = probe.residual(self.embed(ids));
        let mut captured: Vec<Option<QkvStates<B>>> = vec![None; capture.len()];
        for i in 0..self.model.layers.len() {
            let (y, states) = self.block(i, x, &layout, probe);
            x = probe.residual(y);
            for (slot, _) in captured
                .iter_mut()
                .zip(capture)
                .filter(|(_, wanted)| **wanted == i)
            {
                *slot = Some(states.clone());
            }
        }
        Forward {
            hidden: self.model.norm.forward(x),
            states: captured.into_iter().flatten().collect(),
        }
    }

    /// What the first block takes: the embedding of `ids` `[batch, seq]`, `[batch · seq, hidden]`.
    #[must_use]
    pub fn embed(&self, ids: Tensor<B, 2, Int>) -> Tensor<B, 2>
    where
        B: Ops,
    {
        let table = self.model.embed_tokens.weight.val();
        let held = B::activation_type(self.compute, &table.device());
        let [batch, seq] = ids.dims();
        let x = B::take_rows(table, ids.reshape([batch * seq])).cast(held);
        if self.model.embed_scale == 1.0 {
            return x;
        }
        x * self.model.embed_scale
    }

    /// Block `i`: `[batch · seq, hidden]` → `[batch · seq, hidden]`, and its states.
    ///
    /// # Panics
    /// Where there is no block `i`.
    #[must_use]
    pub fn block(
        &self,
        i: usize,
        x: Tensor<B, 2>,
        layout: &Layout<B>,
        probe: &mut dyn Probe<B>,
    ) -> (Tensor<B, 2>, QkvStates<B>)
    where
        B: Ops,
    {
        let rope = &self.model.ropes[self.model.rope_of[i]];
        self.model.layers[i].forward(x, rope, layout, probe)
    }

    /// [`CausalLm::forward`] of rows that begin with padding, `padding[i]` tokens in row `i`: what
    /// follows them stands at the positions from 0 on and does not see them. In what is returned,
    /// the places of padding mean nothing.
    ///
    /// # Shapes
    /// `tokens` `[batch, seq]`; all results in the order of `tokens`.
    ///
    /// # Panics
    /// Where `padding` has not one number a row, or one is larger than `seq`.
    #[must_use]
    pub fn forward_left_padded(
        &self,
        tokens: Tensor<B, 2, Int>,
        padding: &[usize],
        capture: &[usize],
    ) -> Forward<B>
    where
        B: Ops,
    {
        let [batch, seq] = tokens.dims();
        assert_eq!(padding.len(), batch, "one padding for each row");
        assert!(padding.iter().all(|p| *p <= seq), "padding within {seq}");
        let device = tokens.device();
        // Turned until it stands behind them, padding is as good as masked.
        let order = |from: fn(usize, usize, usize) -> usize| {
            let rows = padding.iter().enumerate();
            let places = rows
                .flat_map(|(row, &p)| (0..seq).map(move |at| row * seq + from(at, p, seq) % seq));
            let places: Vec<i64> = places.map(|i| i as i64).collect();
            Tensor::<B, 1, Int>::from_data(TensorData::new(places, [batch * seq]), &device)
        };
        let to_right = order(|at, p, _| at + p);
        let to_left = order(|at, p, seq| at + seq - p);
        let tokens = tokens.reshape([batch * seq]).select(0, to_right);
        let Forward { hidden, states } = self.forward(tokens.reshape([batch, seq]), capture);
        let back = |x: Tensor<B, 2>| x.select(0, to_left.clone());
        let states = states.into_iter().map(|s| QkvStates {
            q: back(s.q),
            k: back(s.k),
            v: back(s.v),
        });
        Forward {
            hidden: back(hidden),
            states: states.collect(),
        }
    }

    /// The output head: the embedding where they are tied.
    #[must_use]
    pub fn head(&self) -> Head<B> {
        let head = self.lm_head.as_ref().unwrap_or(&self.model.embed_tokens);
        Head {
            weight: head.weight.val(),
            compute: self.compute,
        }
    }

    /// Logits of some rows of [`Forward::hidden`].
    ///
    /// # Shapes
    /// `[rows, hidden]` → `[rows, vocab]`, in f32.
    #[must_use]
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2>
    where
        B: Ops,
    {
        let Head { weight, compute } = self.head();
        B::dense_matmul(hidden.cast(DType::F32), weight, compute)
    }
}
