//! Tokens through the model.

use rayon::prelude::*;
use tritburn_kernels::Kernel;
use tritburn_quant::config::{HiddenAct, ModelConfig};

use super::attention::{self, Heads};
use super::build::{Layer, Model};
use super::cache::KvCache;
use super::linear::{LinearScratch, project};
use super::rope::Rope;

/// Gate values below which one thread is faster than several.
const MIN_PARALLEL: usize = 1 << 14;

/// Buffers of a forward pass, kept from call to call.
#[derive(Debug)]
pub(crate) struct Scratch {
    rope: Rope,
    linear: LinearScratch,
    /// Residual stream, `[tokens, hidden]`.
    x: Vec<f32>,
    /// Input or output of a sub-layer, `[tokens, hidden]`.
    h: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attn: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    logits: Vec<f32>,
}

impl Scratch {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        Self {
            rope: Rope::new(config.rope_theta, config.head_dim()),
            linear: LinearScratch::default(),
            x: Vec::new(),
            h: Vec::new(),
            q: Vec::new(),
            k: Vec::new(),
            v: Vec::new(),
            attn: Vec::new(),
            gate: Vec::new(),
            up: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// What [`Model::logits`] computed last.
    pub(crate) fn logits(&self) -> &[f32] {
        &self.logits
    }
}

impl Model {
    /// Takes `tokens` through all blocks and the final norm, and into the cache. The result is
    /// the same, bit for bit, however the tokens of a text are divided among calls.
    pub(crate) fn forward(
        &self,
        kernel: &dyn Kernel,
        tokens: &[u32],
        cache: &mut KvCache,
        s: &mut Scratch,
    ) {
        let hidden = self.config.hidden_size;
        cache.reserve(tokens.len());
        s.rope.set_positions(cache.len(), tokens.len());
        s.x.clear();
        for &token in tokens {
            s.x.extend_from_slice(self.embed.row(token as usize));
        }
        s.h.resize(tokens.len() * hidden, 0.0);
        for (i, layer) in self.layers.iter().enumerate() {
            self.attention(kernel, i, layer, cache, s);
            self.mlp(kernel, layer, s);
        }
        cache.advance(tokens.len());
        self.norm.forward(&s.x, &mut s.h);
    }

    /// Logits, `[tokens, vocab]`, of tokens `first..first + tokens` of the last forward pass.
    pub(crate) fn logits(&self, kernel: &dyn Kernel, first: usize, tokens: usize, s: &mut Scratch) {
        let hidden = self.config.hidden_size;
        s.logits.resize(tokens * self.config.vocab_size, 0.0);
        let x = &s.h[first * hidden..][..tokens * hidden];
        self.head().gemm(kernel, x, &mut s.logits);
    }

    fn attention(
        &self,
        kernel: &dyn Kernel,
        index: usize,
        layer: &Layer,
        cache: &mut KvCache,
        s: &mut Scratch,
    ) {
        let c = &self.config;
        layer.input_norm.forward(&s.x, &mut s.h);
        project(
            kernel,
            &s.h,
            c.hidden_size,
            &mut [
                (&layer.q_proj, &mut s.q),
                (&layer.k_proj, &mut s.k),
                (&layer.v_proj, &mut s.v),
            ],
            &mut s.linear,
        );
        s.rope.apply(&mut s.q, c.q_dim());
        s.rope.apply(&mut s.k, c.kv_dim());
        cache.write(index, &s.k, &s.v);
        s.attn.resize(s.q.len(), 0.0);
        let heads = Heads {
            kv_heads: c.num_key_value_heads,
            group: c.num_attention_heads / c.num_key_value_heads,
            head_dim: c.head_dim(),
        };
        attention::attend(kernel, cache, index, heads, &s.q, &mut s.attn);
        let out = &mut [(&layer.o_proj, &mut s.h)];
        project(kernel, &s.attn, c.q_dim(), out, &mut s.linear);
        add(&mut s.x, &s.h);
    }

    fn mlp(&self, kernel: &dyn Kernel, layer: &Layer, s: &mut Scratch) {
        let c = &self.config;
        layer.post_attention_norm.forward(&s.x, &mut s.h);
        let outputs = &mut [(&layer.gate_proj, &mut s.gate), (&layer.up_proj, &mut s.up)];
        project(kernel, &s.h, c.hidden_size, outputs, &mut s.linear);
        glu(c.hidden_act, &mut s.gate, &s.up);
        let out = &mut [(&layer.down_proj, &mut s.h)];
        project(kernel, &s.gate, c.intermediate_size, out, &mut s.linear);
        add(&mut s.x, &s.h);
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// `gate = act(gate) · up`.
fn glu(act: HiddenAct, gate: &mut [f32], up: &[f32]) {
    let part = |(gate, up): (&mut [f32], &[f32])| match act {
        HiddenAct::Silu => {
            for (g, u) in gate.iter_mut().zip(up) {
                *g = *g / (1.0 + (-*g).exp()) * u;
            }
        }
        HiddenAct::Relu2 => {
            for (g, u) in gate.iter_mut().zip(up) {
                let relu = g.max(0.0);
                *g = relu * relu * u;
            }
        }
    };
    if act == HiddenAct::Relu2 || gate.len() < MIN_PARALLEL || rayon::current_num_threads() == 1 {
        part((gate, up));
    } else {
        let size = MIN_PARALLEL / 4;
        gate.par_chunks_mut(size)
            .zip(up.par_chunks(size))
            .for_each(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates() {
        let mut gate = [-2.0, 0.0, 3.0];
        glu(HiddenAct::Relu2, &mut gate, &[1.0, 1.0, 0.5]);
        assert_eq!(gate, [0.0, 0.0, 4.5]);
        let mut gate = [0.0, 1.0, -1e9];
        glu(HiddenAct::Silu, &mut gate, &[1.0, 2.0, 1.0]);
        assert!((gate[1] - 2.0 * 0.731_058_6).abs() < 1e-6);
        assert!(gate[0] == 0.0 && gate[2] == 0.0);
    }
}
