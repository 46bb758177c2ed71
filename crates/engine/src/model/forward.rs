//! Tokens through the model.

use tritburn_kernels::attention::{Heads, NewTokens, append};
use tritburn_kernels::head::WideActivations;
use tritburn_kernels::{Buffer, Exec};
use tritburn_quant::config::ModelConfig;

use super::build::{Layer, Model};
use super::cache::KvCache;
use super::clock::{Clock, Op};
use super::heads::HeadInput;
use super::linear::{LinearScratch, project, project_onto};
use super::rope::Rope;

/// Buffers of a forward pass, kept from call to call.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// The different rotations of the layers.
    ropes: Vec<Rope>,
    /// Which of them a layer has.
    rope_of: Vec<usize>,
    pub(super) linear: LinearScratch,
    wide: WideActivations,
    /// Residual stream, `[tokens, hidden]`.
    pub(super) x: Buffer<f32>,
    /// Queries; when they have been used, what a sub-layer gives that is not added as it comes, or the final
    /// norm.
    pub(super) h: Buffer<f32>,
    /// What is normalised in place.
    pub(super) normed: Buffer<f32>,
    /// What attention gives, and the new keys and values behind it; then what the gate does.
    pub(super) gate: Buffer<f32>,
    pub(super) up: Buffer<f32>,
    /// Channels that the gate of a token lets through.
    pub(super) open: Buffer<u32>,
    logits: Buffer<f32>,
    /// Where the time goes, while somebody asks.
    pub(crate) clock: Option<Clock>,
}

impl Scratch {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        let mut ropes: Vec<Rope> = Vec::new();
        let rope = |i| {
            let inv_freq = config.layer_inv_freq(i);
            let known = ropes.iter().position(|r| r.turns_by(&inv_freq));
            known.unwrap_or_else(|| {
                ropes.push(Rope::new(inv_freq));
                ropes.len() - 1
            })
        };
        let rope_of = (0..config.num_hidden_layers).map(rope).collect();
        Self {
            ropes,
            rope_of,
            linear: LinearScratch::default(),
            wide: WideActivations::new(),
            x: Buffer::new(),
            h: Buffer::new(),
            normed: Buffer::new(),
            gate: Buffer::new(),
            up: Buffer::new(),
            open: Buffer::new(),
            logits: Buffer::new(),
            clock: None,
        }
    }

    pub(super) fn lap(&mut self, op: Op) {
        if let Some(clock) = &mut self.clock {
            clock.lap(op, self.linear.left_out);
        }
    }

    /// Bytes of weights that were not read so far since inputs were zero or gates closed.
    pub(crate) fn left_out(&self) -> u64 {
        self.linear.left_out
    }

    /// What [`Model::logits`] computed last.
    pub(crate) fn logits(&self) -> &[f32] {
        &self.logits
    }
}

impl Model {
    /// Takes `tokens` through all blocks and into the cache. The result is the same, bit for bit, however the
    /// tokens of a text are divided among calls.
    pub(crate) fn forward(
        &self,
        exec: &Exec,
        tokens: &[u32],
        cache: &mut KvCache,
        s: &mut Scratch,
    ) {
        let hidden = self.config.hidden_size;
        let left_out = s.linear.left_out;
        s.clock.iter_mut().for_each(|clock| clock.start(left_out));
        cache.reserve(tokens.len());
        for rope in &mut s.ropes {
            rope.set_positions(cache.len(), tokens.len());
        }
        s.x.resize(tokens.len() * hidden);
        for (&token, x) in tokens.iter().zip(s.x.chunks_exact_mut(hidden)) {
            self.embed.row(token as usize, x);
        }
        let scale = self.config.embed_scale();
        if scale != 1.0 {
            s.x.iter_mut().for_each(|x| *x *= scale);
        }
        s.lap(Op::Embedding);
        for (i, layer) in self.layers.iter().enumerate() {
            self.attention(exec, i, layer, cache, s);
            self.mlp(exec, layer, s);
        }
        cache.advance(tokens.len());
    }

    /// Logits, `[tokens, vocab]`, of tokens `first..first + tokens` of the last forward pass.
    pub(crate) fn logits(&self, exec: &Exec, first: usize, tokens: usize, s: &mut Scratch) {
        let hidden = self.config.hidden_size;
        s.logits.resize(tokens * self.config.vocab_size);
        s.h.resize(tokens * hidden);
        let x = &s.x[first * hidden..][..tokens * hidden];
        self.norm.forward(exec, x, &mut s.h);
        s.lap(Op::FinalNorm);
        let head = self.head();
        head.logits(exec, &s.h, hidden, &mut s.wide, &mut s.logits);
        s.lap(Op::Head);
    }

    fn attention(
        &self,
        exec: &Exec,
        index: usize,
        layer: &Layer,
        cache: &mut KvCache,
        s: &mut Scratch,
    ) {
        let c = &self.config;
        let tokens = s.x.len() / c.hidden_size;
        let (q, kv) = (tokens * c.q_dim(), tokens * c.kv_dim());
        s.h.resize(q);
        s.gate.resize(q + 2 * kv);
        let (k, v) = s.gate[q..].split_at_mut(kv);
        let outputs = [
            (&layer.q_proj, &mut *s.h),
            (&layer.k_proj, k),
            (&layer.v_proj, v),
        ];
        let norm = Some(&layer.attn_norm);
        project(exec, &s.x, c.hidden_size, norm, outputs, &mut s.linear);
        s.lap(Op::Qkv);
        let heads = Heads {
            kv_heads: c.num_key_value_heads,
            group: c.num_attention_heads / c.num_key_value_heads,
            head_dim: c.head_dim(),
        };
        let (stored, first) = cache.layer(index);
        let rope = &s.ropes[s.rope_of[index]];
        let prepare = HeadInput::new(c, layer.qk_norms.as_ref(), rope, first);
        let (out, kv_new) = s.gate.split_at_mut(q);
        let (k, v) = kv_new.split_at_mut(kv);
        let new = NewTokens { q: &mut s.h, k, v };
        let window = c.layer_window(index);
        append(exec, heads, new, &prepare, stored, (first, window), out);
        s.lap(Op::Attention);
        project_onto(
            exec,
            &s.gate[..q],
            c.q_dim(),
            (&layer.o_proj, layer.attn_post_norm.as_ref()),
            &mut s.x,
            [&mut s.h, &mut s.normed],
            &mut s.linear,
        );
        s.lap(Op::OutProjection);
    }
}
