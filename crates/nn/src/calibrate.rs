//! What the norms of SubLN surgery start at, so that the model they are put into changes little.

use burn::tensor::{DType, Int, Tensor, backend::Backend};
use tritburn_quant::scheme::Input;

use crate::CausalLm;
use crate::linear::BitLinear;
use crate::norm::RmsNorm;
use crate::ops::Ops;
use crate::probe::Probe;
use crate::weights::to_host;

/// Typical size (root mean square) of a layer's inputs of projections.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct InputSizes {
    /// Of `q_proj`, `k_proj` and `v_proj`.
    pub qkv: f32,
    /// Of `o_proj`.
    pub o: f32,
    /// Of `gate_proj` and `up_proj`.
    pub gate_up: f32,
    /// Of `down_proj`.
    pub down: f32,
}

/// Runs `model` on `tokens` `[batch, seq]` and gives, for each layer, the median over the positions
/// `rows` of the flattened batch of what an RMSNorm divides the token by. The median, as a few tokens
/// of a language model are larger by orders of magnitude (arXiv 2402.17762).
#[must_use]
pub fn input_sizes<B: Ops>(
    model: &CausalLm<B>,
    tokens: Tensor<B, 2, Int>,
    rows: Tensor<B, 1, Int>,
) -> Vec<InputSizes> {
    let mut seen = Sizes {
        rows,
        layers: Vec::new(),
    };
    let _ = model.forward_probed(tokens, &[], &mut seen);
    seen.layers
}

struct Sizes<B: Backend> {
    rows: Tensor<B, 1, Int>,
    layers: Vec<InputSizes>,
}

impl<B: Backend> Probe<B> for Sizes<B> {
    fn input(&mut self, input: Input, x: &Tensor<B, 2>, _linear: &BitLinear<B>) {
        let x = x.clone().select(0, self.rows.clone()).cast(DType::F32);
        let sizes = (x.clone() * x).mean_dim(1).sqrt();
        let size = median(to_host(sizes));
        if input == Input::Qkv {
            self.layers.push(InputSizes::default());
        }
        let Some(layer) = self.layers.last_mut() else {
            return;
        };
        match input {
            Input::Qkv => layer.qkv = size,
            Input::O => layer.o = size,
            Input::GateUp => layer.gate_up = size,
            Input::Down => layer.down = size,
        }
    }
}

fn median(mut values: Vec<f32>) -> f32 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 1.0;
    }
    let (_, median, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    *median
}

impl<B: Backend> CausalLm<B> {
    /// Sets every weight of the norms that the ternary form adds to the size that its input has, where
    /// there is such a norm: a typical token then leaves the norm as it came.
    pub fn start_norms(&mut self, sizes: &[InputSizes]) {
        for (layer, sizes) in self.model.layers.iter_mut().zip(sizes) {
            let (attention, mlp) = (&mut layer.self_attn, &mut layer.mlp);
            let norms = [
                (attention.attn_sub_norm.as_mut(), sizes.o),
                (mlp.ffn_sub_norm.as_mut(), sizes.down),
                (attention.q_proj.norm.as_mut(), sizes.qkv),
                (attention.k_proj.norm.as_mut(), sizes.qkv),
                (attention.v_proj.norm.as_mut(), sizes.qkv),
                (attention.o_proj.norm.as_mut(), sizes.o),
                (mlp.gate_proj.norm.as_mut(), sizes.gate_up),
                (mlp.up_proj.norm.as_mut(), sizes.gate_up),
                (mlp.down_proj.norm.as_mut(), sizes.down),
            ];
            for (norm, size) in norms {
                if let Some(norm) = norm {
                    norm.fill(size);
                }
            }
        }
    }
}

impl<B: Backend> RmsNorm<B> {
    fn fill(&mut self, value: f32) {
        let weight = self.weight.clone();
        let tracked = weight.is_require_grad();
        let value = weight.val().detach().full_like(value);
        let value = value.set_require_grad(tracked);
        self.weight = burn::module::Param::initialized(weight.id, value);
    }
}
