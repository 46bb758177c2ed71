//! Share of activations that are zero, in the form of BitNet a4.8's Table 2 (arXiv 2411.04965).

use burn::tensor::{Int, Tensor};
use tritburn_quant::config::{HiddenAct, ModelConfig};
use tritburn_quant::scheme::Input;

use crate::CausalLm;
use crate::linear::BitLinear;
use crate::ops::{Kernels, Ops};
use crate::probe::Probe;
use crate::weights::to_host;

/// Shares of zeros, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sparsity {
    /// Input of `q_proj`, `k_proj`, `v_proj`.
    pub qkv: f64,
    /// Input of `o_proj`.
    pub out: f64,
    /// Products of `up_proj` that need not be computed: its input is zero, or its output meets a
    /// zero of the gate.
    pub up: f64,
    /// Input of `gate_proj`.
    pub gate: f64,
    /// Input of `down_proj`.
    pub down: f64,
    /// All projections, each with its number of weights.
    pub overall: f64,
    /// Weights of the projections that meet no zero, of all layers.
    pub activated: f64,
}

impl Sparsity {
    /// Columns of the paper's table, by name.
    #[must_use]
    pub fn columns(&self) -> [(&'static str, f64); 7] {
        [
            ("qkv", self.qkv),
            ("out", self.out),
            ("up", self.up),
            ("gate", self.gate),
            ("down", self.down),
            ("overall", self.overall),
            ("activated", self.activated),
        ]
    }
}

/// Runs `model`, which `config` describes, on `tokens` `[batch, seq]` and counts zeros at the
/// positions `rows` of the flattened batch.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn sparsity<B: Kernels + Ops>(
    model: &CausalLm<B>,
    config: &ModelConfig,
    tokens: Tensor<B, 2, Int>,
    rows: Tensor<B, 1, Int>,
) -> Sparsity {
    let mut count = Count {
        rows,
        relu: config.hidden_act == HiddenAct::Relu2,
        zeros: [0.0; 5],
    };
    let _ = model.forward_probed(tokens, &[], &mut count);
    let layers = config.num_hidden_layers as f64;
    let [qkv, out, gate, down, gated] = count.zeros.map(|z| z / layers);
    let up = 1.0 - (1.0 - gate) * (1.0 - gated);
    let (d, q, kv) = (config.hidden_size, config.q_dim(), config.kv_dim());
    let ffn = (d * config.intermediate_size) as f64;
    let parts = [
        (qkv, (d * (q + 2 * kv)) as f64),
        (out, (q * d) as f64),
        (up, ffn),
        (gate, ffn),
        (down, ffn),
    ];
    let weights: f64 = parts.iter().map(|(_, n)| n).sum();
    let overall = parts.iter().map(|(zeros, n)| zeros * n).sum::<f64>() / weights;
    Sparsity {
        qkv,
        out,
        up,
        gate,
        down,
        overall,
        activated: layers * weights * (1.0 - overall),
    }
}

/// Sums over layers: inputs of q/k/v, o, gate/up and down, then the gate's output.
struct Count<B: Kernels> {
    rows: Tensor<B, 1, Int>,
    relu: bool,
    zeros: [f64; 5],
}

impl<B: Kernels + Ops> Count<B> {
    fn share(&self, x: Tensor<B, 2>) -> f64 {
        let zero = x.select(0, self.rows.clone()).equal_elem(0.0);
        f64::from(to_host(zero.float().mean())[0])
    }
}

impl<B: Kernels + Ops> Probe<B> for Count<B> {
    fn input(&mut self, input: Input, x: &Tensor<B, 2>, linear: &BitLinear<B>) {
        let x = match linear.input_codes(x.clone()) {
            Some(acts) => acts.codes.float(),
            None => x.clone(),
        };
        let slot = match input {
            Input::Qkv => 0,
            Input::O => 1,
            Input::GateUp => 2,
            Input::Down => 3,
        };
        self.zeros[slot] += self.share(x);
    }

    fn gate(&mut self, gate: &Tensor<B, 2>) {
        // ReLU² of a small gate may underflow; what counts is that the gate is not positive.
        if self.relu {
            self.zeros[4] += self.share(gate.clone().clamp_min(0.0));
        }
    }
}
