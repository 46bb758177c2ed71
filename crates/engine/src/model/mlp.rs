//! The feed-forward block.

use tritburn_kernels::sparse::{FEW, RowMatrix};
use tritburn_kernels::ternary::{Next, Up, gemm_gated};
use tritburn_kernels::{Exec, ops};
use tritburn_quant::config::HiddenAct;

use super::build::{Layer, Model};
use super::clock::Op;
use super::forward::Scratch;
use super::gate::gelu_tanh_mul;
use super::linear::{Weight, project, project_next_onto, project_onto, quantize_for};

impl Model {
    /// Adds what the feed-forward block gives to the residual stream.
    pub(crate) fn mlp(&self, exec: &Exec, layer: &Layer, s: &mut Scratch) {
        let down = (&layer.down_proj, layer.ffn_post_norm.as_ref());
        if self.gated(exec, layer, s) {
            let buffers = [&mut s.h, &mut s.normed];
            project_next_onto(exec, down, &mut s.x, buffers, &mut s.linear);
        } else {
            project_onto(
                exec,
                &s.gate,
                self.config.intermediate_size,
                down,
                &mut s.x,
                [&mut s.h, &mut s.normed],
                &mut s.linear,
            );
        }
        s.lap(Op::Down);
    }

    /// Writes `act(gate) · up` to `s.gate`; tells whether `s.linear.next` holds what `down_proj` takes of it.
    fn gated(&self, exec: &Exec, layer: &Layer, s: &mut Scratch) -> bool {
        let hidden = self.config.hidden_size;
        let (gate, up) = (&layer.gate_proj, &layer.up_proj);
        let norm = Some(&layer.ffn_norm);
        let tokens = s.x.len() / hidden;
        s.gate.resize(tokens * gate.rows());
        let own_norms = gate.norm.is_some() || up.norm.is_some();
        let act = match self.config.hidden_act {
            HiddenAct::Silu => ops::silu_mul,
            HiddenAct::Relu2 => ops::relu2_mul,
            HiddenAct::GeluTanh => gelu_tanh_mul,
        };
        if let (Weight::Rows(rows), true) = (&up.weight, tokens <= FEW) {
            project(
                exec,
                &s.x,
                hidden,
                norm,
                [(gate, &mut *s.gate)],
                &mut s.linear,
            );
            if own_norms || matches!(gate.weight, Weight::Dense(_)) {
                quantize_for(exec, up, &s.x, hidden, norm, &mut s.linear);
            }
            open_rows(exec, rows, s);
            s.lap(Op::GateUp);
            return false;
        }
        let packed = match (&gate.weight, &up.weight) {
            _ if own_norms => None,
            (Weight::Ternary(gate), Weight::Ternary(up)) => Some((gate, Up::Packed(up))),
            (Weight::Ternary(gate), Weight::Rows(up)) => Some((gate, Up::Rows(up))),
            _ => None,
        };
        if let Some((gate_weight, up_weight)) = packed {
            quantize_for(exec, gate, &s.x, hidden, norm, &mut s.linear);
            let down = &layer.down_proj;
            let ternary = !matches!(down.weight, Weight::Dense(_));
            let quantizer = down.quantizer(None);
            let next = ternary.then_some(Next {
                quantizer: &quantizer,
                activations: &mut s.linear.next,
            });
            let x = &s.linear.activations;
            gemm_gated(exec, x, gate_weight, up_weight, &act, &mut s.gate, next);
            s.lap(Op::GateUp);
            return ternary;
        }
        s.up.resize(tokens * up.rows());
        let outputs = [(gate, &mut *s.gate), (up, &mut *s.up)];
        project(exec, &s.x, hidden, norm, outputs, &mut s.linear);
        s.lap(Op::GateUp);
        let ffn = self.config.intermediate_size;
        let up = &s.up;
        exec.rows(&mut s.gate, ffn, |t, gate| act(gate, &up[t * ffn..][..ffn]));
        s.lap(Op::Activation);
        false
    }
}

/// `gate = max(gate, 0)² · up`, of `up` only the rows whose gate is open.
fn open_rows(exec: &Exec, up: &RowMatrix, s: &mut Scratch) {
    let width = up.rows();
    for (token, gate) in s.gate.chunks_exact_mut(width.max(1)).enumerate() {
        s.open.resize(width);
        let mut open = 0;
        // Written always and kept where it counts: gates open in no order that could be foreseen.
        for (row, gate) in (0u32..).zip(gate.iter_mut()) {
            s.open[open] = row;
            open += usize::from(*gate > 0.0);
            *gate = if *gate > 0.0 { *gate } else { 0.0 };
        }
        let rows = &s.open[..open];
        s.up.resize(width);
        up.gemv(exec, &s.linear.activations, token, rows, &mut s.up[..open]);
        for (&row, up) in rows.iter().zip(&*s.up) {
            let gate = &mut gate[row as usize];
            *gate = *gate * *gate * up;
        }
        s.linear.left_out += ((width - open) * up.bytes() / width) as u64;
    }
}
