//! The decoder-only language model.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use tritburn_quant::config::ModelConfig;

use crate::attention::{Attention, QkvStates};
use crate::mlp::Mlp;
use crate::norm::RmsNorm;
use crate::ops::Ops;
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

/// One transformer block: pre-norm attention and pre-norm feed-forward, each with a residual.
#[derive(Module, Debug)]
pub struct DecoderLayer<B: Backend> {
    /// Norm before attention.
    pub input_layernorm: RmsNorm<B>,
    /// Attention.
    pub self_attn: Attention<B>,
    /// Norm before the feed-forward block.
    pub post_attention_layernorm: RmsNorm<B>,
    /// Feed-forward block.
    pub mlp: Mlp<B>,
}

impl<B: Backend> DecoderLayer<B> {
    fn new(
        source: &mut dyn WeightSource,
        name: &str,
        config: &ModelConfig,
        device: &B::Device,
    ) -> Result<Self, NnError> {
        let (d, eps) = (config.hidden_size, config.rms_norm_eps);
        Ok(Self {
            input_layernorm: RmsNorm::new(
                source,
                &format!("{name}.input_layernorm"),
                d,
                eps,
                device,
            )?,
            self_attn: Attention::new(source, &format!("{name}.self_attn"), config, device)?,
            post_attention_layernorm: RmsNorm::new(
                source,
                &format!("{name}.post_attention_layernorm"),
                d,
                eps,
                device,
            )?,
            mlp: Mlp::new(source, &format!("{name}.mlp"), config, device)?,
        })
    }

    fn forward(
        &self,
        x: Tensor<B, 2>,
        rope: &Rope<B>,
        batch: usize,
        seq: usize,
        probe: &mut dyn Probe<B>,
    ) -> (Tensor<B, 2>, QkvStates<B>)
    where
        B: Ops,
    {
        let h = self.input_layernorm.forward(x.clone());
        let (attn, states) = self.self_attn.forward(h, rope, batch, seq, probe);
        let x = x + attn;
        let h = self.post_attention_layernorm.forward(x.clone());
        (x + self.mlp.forward(h, probe), states)
    }
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
    rope: Rope<B>,
}

/// A causal language model with Hugging Face's parameter names.
#[derive(Module, Debug)]
pub struct CausalLm<B: Backend> {
    /// Everything below the head.
    pub model: Decoder<B>,
    /// Output head `[vocab, hidden]`; absent where it is the embedding.
    pub lm_head: Option<Embedding<B>>,
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
    /// What the source reports: a missing tensor, another shape.
    pub fn new(
        config: &ModelConfig,
        source: &mut dyn WeightSource,
        device: &B::Device,
    ) -> Result<Self, NnError> {
        let shape = [config.vocab_size, config.hidden_size];
        let embed_tokens = Embedding::new(source, "model.embed_tokens", shape, device)?;
        let layers = (0..config.num_hidden_layers)
            .map(|i| DecoderLayer::new(source, &format!("model.layers.{i}"), config, device))
            .collect::<Result<_, _>>()?;
        let norm = RmsNorm::new(
            source,
            "model.norm",
            config.hidden_size,
            config.rms_norm_eps,
            device,
        )?;
        let rope = Rope::new(
            config.max_position_embeddings,
            config.head_dim(),
            config.rope_theta,
            device,
        );
        let lm_head = (!config.tie_word_embeddings)
            .then(|| Embedding::new(source, "lm_head", shape, device))
            .transpose()?;
        Ok(Self {
            model: Decoder {
                embed_tokens,
                layers,
                norm,
                rope,
            },
            lm_head,
        })
    }

    /// Sets λ of the quantisation warm-up in every projection (see
    /// [`LinearQuant::lambda`](crate::ops::LinearQuant::lambda)).
    pub fn set_lambda(&mut self, lambda: f32) {
        for layer in &mut self.model.layers {
            let attention = layer.self_attn.projections_mut();
            let all = attention.into_iter().chain(layer.mlp.projections_mut());
            all.for_each(|linear| linear.set_lambda(lambda));
        }
    }

    /// Longest sequence the model takes.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        self.model.rope.positions()
    }

    /// Runs the blocks. `capture` names the layers whose query, key and value states are wanted.
    ///
    /// Rows that are padded on the right need no mask: a causal position never sees what follows.
    ///
    /// # Shapes
    /// `tokens` `[batch, seq]`.
    #[must_use]
    pub fn forward(&self, tokens: Tensor<B, 2, Int>, capture: &[usize]) -> Forward<B>
    where
        B: Ops,
    {
        self.forward_probed(tokens, capture, &mut Blind)
    }

    /// [`CausalLm::forward`], with `probe` looking on.
    #[must_use]
    pub fn forward_probed(
        &self,
        tokens: Tensor<B, 2, Int>,
        capture: &[usize],
        probe: &mut dyn Probe<B>,
    ) -> Forward<B>
    where
        B: Ops,
    {
        let [batch, seq] = tokens.dims();
        let mut x = self
            .model
            .embed_tokens
            .weight
            .val()
            .select(0, tokens.reshape([batch * seq]));
        let mut captured: Vec<Option<QkvStates<B>>> = vec![None; capture.len()];
        for (i, layer) in self.model.layers.iter().enumerate() {
            let (y, states) = layer.forward(x, &self.model.rope, batch, seq, probe);
            x = y;
            for (slot, _) in captured
                .iter_mut()
                .zip(capture)
                .filter(|(_, wanted)| **wanted == i)
            {
                *slot = Some(states.clone());
            }
        }
        let hidden = self.model.norm.forward(x);
        Forward {
            hidden,
            states: captured.into_iter().flatten().collect(),
        }
    }

    /// The output head `[vocab, hidden]`: the embedding where they are tied.
    #[must_use]
    pub fn head(&self) -> Tensor<B, 2> {
        let head = self.lm_head.as_ref().unwrap_or(&self.model.embed_tokens);
        head.weight.val()
    }

    /// Logits of some rows of [`Forward::hidden`].
    ///
    /// # Shapes
    /// `[rows, hidden]` → `[rows, vocab]`.
    #[must_use]
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        hidden.matmul(self.head().transpose())
    }
}
