//! The operations as nodes of the autodiff tape.

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::backend::autodiff::{
    NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops as Node, OpsKind},
};
use burn::module::AutodiffModule;
use burn::tensor::{DType, Int, Tensor, TensorPrimitive, backend::BackendTypes};
use tritburn_quant::config::HiddenAct;
use tritburn_quant::scheme::WeightQuant;

use super::head::HeadLoss;
use super::product;
use super::quant::blend;
use super::{
    Attended, AttentionShape, CacheQuant, Codes, Compute, Head, HeadTarget, Kernels, LinearQuant,
    Ops, QuantActs, QuantWeight, Relation, Starts, TeacherHead,
};
use crate::packed::Packed;

type Primitive<B> = <B as BackendTypes>::FloatTensorPrimitive;

pub(super) fn raw<B: burn::tensor::backend::Backend, const D: usize>(
    x: Tensor<B, D>,
) -> Primitive<B> {
    x.into_primitive().tensor()
}

pub(super) fn wrap<B: burn::tensor::backend::Backend, const D: usize>(
    x: Primitive<B>,
) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

/// Hands each parent that wants one its gradient.
pub(super) fn register<B: burn::tensor::backend::Backend, const N: usize>(
    grads: &mut Gradients,
    parents: [Option<NodeId>; N],
    values: [Primitive<B>; N],
) {
    for (parent, value) in parents.into_iter().zip(values) {
        if let Some(parent) = parent {
            grads.register::<B>(parent, value);
        }
    }
}

/// Output of BitLinear and the operands that its backward pass needs.
pub(super) fn bit_linear_forward<B: Kernels>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    held: Option<QuantWeight<B>>,
    quant: LinearQuant,
) -> (Tensor<B, 2>, QuantActs<B>, QuantWeight<B>) {
    let mut xq = B::quantise_acts(x.clone(), quant.act);
    let mut wq = held.unwrap_or_else(|| B::quantise_weight(weight.clone(), quant.weight));
    if quant.lambda < 1.0 {
        let (dtype, step) = (xq.dtype, xq.step.ones_like());
        let codes = blend(x.cast(DType::F32), xq.dense(), quant.lambda);
        xq = QuantActs {
            codes: Codes::Float(codes),
            step,
            dtype,
        };
        let scale = Tensor::ones([1, 1], &weight.device());
        wq = QuantWeight::float(blend(weight, wq.dense(), quant.lambda), scale);
    }
    (B::code_matmul(&xq, &wq), xq, wq)
}

#[derive(Debug)]
struct BitLinear;

impl<B: Kernels> Backward<B, 2> for BitLinear {
    type State = (QuantActs<B>, QuantWeight<B>, bool);

    fn backward(
        self,
        node: Node<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (x, w, int8_input) = node.state;
        let grad = wrap::<B, 2>(grads.consume::<B>(&node.node));
        let (grad_x, grad_w) = B::code_matmul_grad(x, w, grad, int8_input);
        register::<B, _>(
            grads,
            node.parents.map(|p| p.map(|p| p.id)),
            [raw(grad_x), raw(grad_w)],
        );
    }
}

#[derive(Debug)]
struct Linear;

impl<B: Kernels> Backward<B, 2> for Linear {
    type State = (Tensor<B, 2>, Tensor<B, 2>, Compute);

    fn backward(
        self,
        node: Node<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (x, weight, compute) = node.state;
        let grad = wrap::<B, 2>(grads.consume::<B>(&node.node));
        let (grad_x, grad_w) = B::dense_matmul_grad(x, weight, compute, grad);
        register::<B, _>(
            grads,
            node.parents.map(|p| p.map(|p| p.id)),
            [raw(grad_x), raw(grad_w)],
        );
    }
}

#[derive(Debug)]
struct PackedMatmul;

impl<B: Kernels> Backward<B, 1> for PackedMatmul {
    type State = Arc<Packed>;

    fn backward(
        self,
        node: Node<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = wrap::<B, 2>(grads.consume::<B>(&node.node));
        let grad = B::packed_matmul_grad(&node.state, grad);
        register::<B, _>(grads, node.parents.map(|p| p.map(|p| p.id)), [raw(grad)]);
    }
}

#[derive(Debug)]
struct TakeRows;

impl<B: Kernels> Backward<B, 1> for TakeRows {
    type State = (Tensor<B, 1, Int>, usize);

    fn backward(
        self,
        node: Node<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (ids, rows) = node.state;
        let grad = wrap::<B, 2>(grads.consume::<B>(&node.node));
        let grad = B::take_rows_grad(ids, grad, rows);
        register::<B, _>(grads, node.parents.map(|p| p.map(|p| p.id)), [raw(grad)]);
    }
}

/// A quantiser that lets the gradient pass.
#[derive(Debug)]
struct StraightThrough;

impl<B: Kernels> Backward<B, 1> for StraightThrough {
    type State = ();

    fn backward(
        self,
        node: Node<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&node.node);
        register::<B, _>(grads, node.parents.map(|p| p.map(|p| p.id)), [grad]);
    }
}

#[derive(Debug)]
struct RmsNorm;

impl<B: Kernels> Backward<B, 2> for RmsNorm {
    type State = (Tensor<B, 2>, Tensor<B, 1>, f64);

    fn backward(
        self,
        node: Node<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (x, weight, eps) = node.state;
        let grad = wrap::<B, 2>(grads.consume::<B>(&node.node));
        let (grad_x, grad_w) = B::rms_norm_grad(x, weight, eps, grad);
        register::<B, _>(
            grads,
            node.parents.map(|p| p.map(|p| p.id)),
            [raw(grad_x), raw(grad_w)],
        );
    }
}

#[derive(Debug)]
struct GatedAct;

impl<B: Kernels> Backward<B, 2> for GatedAct {
    type State = (Tensor<B, 2>, Tensor<B, 2>, HiddenAct);

    fn backward(
        self,
        node: Node<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (gate, up, act) = node.state;
        let grad = wrap::<B, 2>(grads.consume::<B>(&node.node));
        let (grad_gate, grad_up) = B::gated_act_grad(gate, up, act, grad);
        register::<B, _>(
            grads,
            node.parents.map(|p| p.map(|p| p.id)),
            [raw(grad_gate), raw(grad_up)],
        );
    }
}

#[derive(Debug)]
struct Rope;

impl<B: Kernels> Backward<B, 1> for Rope {
    type State = (Tensor<B, 2>, Tensor<B, 2>, usize);

    fn backward(
        self,
        node: Node<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (cos, sin, seq) = node.state;
        let grad = wrap::<B, 2>(grads.consume::<B>(&node.node));
        let grad_x = <B as Kernels>::rope(grad, cos, sin.neg(), seq);
        register::<B, _>(grads, node.parents.map(|p| p.map(|p| p.id)), [raw(grad_x)]);
    }
}

#[derive(Debug)]
struct Attention;

impl<B: Kernels> Backward<B, 3> for Attention {
    type State = ([Tensor<B, 2>; 3], AttentionShape, Starts<B>, Attended<B>);

    fn backward(
        self,
        node: Node<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let ([q, k, v], shape, starts, attended) = node.state;
        let grad = wrap::<B, 2>(grads.consume::<B>(&node.node));
        let (grad_q, grad_k, grad_v) =
            B::self_attention_grad(q, k, v, shape, starts, attended, grad);
        register::<B, _>(
            grads,
            node.parents.map(|p| p.map(|p| p.id)),
            [grad_q, grad_k, grad_v].map(raw),
        );
    }
}

#[derive(Debug)]
struct HeadLossNode;

impl<B: Kernels> Backward<B, 2> for HeadLossNode {
    type State = HeadLoss<B>;

    fn backward(
        self,
        node: Node<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = wrap::<B, 1>(grads.consume::<B>(&node.node));
        let (grad_hidden, grad_head) = node.state.backward(grad);
        register::<B, _>(
            grads,
            node.parents.map(|p| p.map(|p| p.id)),
            [raw(grad_hidden), raw(grad_head)],
        );
    }
}

#[derive(Debug)]
struct RelationKl;

impl<B: Kernels> Backward<B, 1> for RelationKl {
    type State = (Tensor<B, 2>, Tensor<B, 2>, Relation);

    fn backward(
        self,
        node: Node<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (student, teacher, shape) = node.state;
        let grad = wrap::<B, 1>(grads.consume::<B>(&node.node));
        let grad = B::relation_kl_grad(student, teacher, shape, grad);
        register::<B, _>(grads, node.parents.map(|p| p.map(|p| p.id)), [raw(grad)]);
    }
}

impl<B: Kernels, C: CheckpointStrategy> Ops for Autodiff<B, C> {
    fn cache_quant(x: Tensor<Self, 2>, quant: CacheQuant) -> Tensor<Self, 2> {
        let x = raw(x);
        let y = raw(<B as Kernels>::cache_quant(wrap(x.primitive), quant));
        let prep = Backward::<B, 1>::prepare::<C>(StraightThrough, [x.node]);
        wrap(match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        })
    }

    fn bit_linear(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        held: Option<QuantWeight<Self>>,
        quant: LinearQuant,
    ) -> Tensor<Self, 2> {
        let (x, weight) = (raw(x), raw(weight));
        let (xi, wi) = (wrap(x.primitive.clone()), wrap(weight.primitive.clone()));
        let held = held.map(|weight| weight.valid());
        let (y, xq, wq) = bit_linear_forward::<B>(xi, wi, held, quant);
        let prep = Backward::<B, 2>::prepare::<C>(BitLinear, [x.node, weight.node]);
        wrap(match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((xq, wq, quant.int8_grad_input), raw(y)),
            OpsKind::UnTracked(prep) => prep.finish(raw(y)),
        })
    }

    fn activation_type(compute: Compute, device: &Self::Device) -> DType {
        product::activation_type::<B>(compute, device)
    }

    fn take_rows(table: Tensor<Self, 2>, ids: Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
        let rows = table.dims()[0];
        let (table, ids) = (raw(table), ids.inner());
        let y = raw(<B as Kernels>::take_rows(
            wrap(table.primitive),
            ids.clone(),
        ));
        let prep = Backward::<B, 1>::prepare::<C>(TakeRows, [table.node]);
        wrap(match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((ids, rows), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        })
    }

    fn dense_matmul(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        compute: Compute,
    ) -> Tensor<Self, 2> {
        let (x, weight) = (raw(x), raw(weight));
        let (xi, wi) = (wrap(x.primitive.clone()), wrap(weight.primitive.clone()));
        let y = raw(<B as Kernels>::dense_matmul(
            xi.clone(),
            wi.clone(),
            compute,
        ));
        let prep = Backward::<B, 2>::prepare::<C>(Linear, [x.node, weight.node]);
        wrap(match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((xi, wi, compute), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        })
    }

    fn packed_matmul(x: Tensor<Self, 2>, weight: &Arc<Packed>) -> Tensor<Self, 2> {
        let x = raw(x);
        let y = raw(<B as Kernels>::packed_matmul(wrap(x.primitive), weight));
        let prep = Backward::<B, 1>::prepare::<C>(PackedMatmul, [x.node]);
        wrap(match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(Arc::clone(weight), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        })
    }

    fn hold_weights(weights: Vec<(Tensor<Self, 2>, WeightQuant)>) -> Vec<QuantWeight<Self>> {
        let weights = weights
            .into_iter()
            .map(|(weight, quant)| (weight.inner(), quant));
        let held = B::quantise_weights(weights.collect());
        held.into_iter().map(QuantWeight::from_inner).collect()
    }

    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        let (x, weight) = (raw(x), raw(weight));
        let xi = wrap::<B, 2>(x.primitive.clone());
        let wi = wrap::<B, 1>(weight.primitive.clone());
        let y = raw(<B as Kernels>::rms_norm(xi.clone(), wi.clone(), eps));
        let prep = Backward::<B, 2>::prepare::<C>(RmsNorm, [x.node, weight.node]);
        wrap(match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((xi, wi, eps), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        })
    }

    fn gated_act(gate: Tensor<Self, 2>, up: Tensor<Self, 2>, act: HiddenAct) -> Tensor<Self, 2> {
        let (gate, up) = (raw(gate), raw(up));
        let gi = wrap::<B, 2>(gate.primitive.clone());
        let ui = wrap::<B, 2>(up.primitive.clone());
        let y = raw(<B as Kernels>::gated_act(gi.clone(), ui.clone(), act));
        let prep = Backward::<B, 2>::prepare::<C>(GatedAct, [gate.node, up.node]);
        wrap(match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((gi, ui, act), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        })
    }

    fn rope(
        x: Tensor<Self, 2>,
        cos: Tensor<Self, 2>,
        sin: Tensor<Self, 2>,
        seq: usize,
    ) -> Tensor<Self, 2> {
        let x = raw(x);
        let cos = wrap::<B, 2>(raw(cos).primitive);
        let sin = wrap::<B, 2>(raw(sin).primitive);
        let xi = wrap::<B, 2>(x.primitive);
        let y = raw(<B as Kernels>::rope(xi, cos.clone(), sin.clone(), seq));
        let prep = Backward::<B, 1>::prepare::<C>(Rope, [x.node]);
        wrap(match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((cos, sin, seq), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        })
    }

    fn self_attention(
        q: Tensor<Self, 2>,
        k: Tensor<Self, 2>,
        v: Tensor<Self, 2>,
        shape: AttentionShape,
        starts: Starts<Self>,
    ) -> Tensor<Self, 2> {
        let starts = starts.map(Tensor::inner);
        let (q, k, v) = (raw(q), raw(k), raw(v));
        let qi = wrap::<B, 2>(q.primitive.clone());
        let ki = wrap::<B, 2>(k.primitive.clone());
        let vi = wrap::<B, 2>(v.primitive.clone());
        let [q2, k2, v2] = [&qi, &ki, &vi].map(Tensor::clone);
        let attended = <B as Kernels>::self_attention(q2, k2, v2, shape, starts.clone());
        let y = raw(attended.out.clone());
        let prep = Backward::<B, 3>::prepare::<C>(Attention, [q.node, k.node, v.node]);
        wrap(match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(([qi, ki, vi], shape, starts, attended), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        })
    }

    fn head_loss(
        hidden: Tensor<Self, 2>,
        head: Head<Self>,
        target: HeadTarget<Self>,
    ) -> Tensor<Self, 1> {
        let compute = head.compute;
        let (hidden, head) = (raw(hidden), raw(head.weight));
        let inner = |x: Tensor<Self, 2>| wrap::<B, 2>(raw(x).primitive);
        let target = HeadTarget {
            tokens: target.tokens.map(Tensor::inner),
            teacher: target.teacher.map(|teacher| TeacherHead {
                hidden: inner(teacher.hidden),
                head: Head {
                    weight: inner(teacher.head.weight),
                    compute: teacher.head.compute,
                },
                temperature: teacher.temperature,
            }),
        };
        let (hi, weight) = (wrap(hidden.primitive.clone()), wrap(head.primitive.clone()));
        let (loss, kept) = HeadLoss::forward(hi, Head { weight, compute }, target);
        let prep = Backward::<B, 2>::prepare::<C>(HeadLossNode, [hidden.node, head.node]);
        wrap(match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(kept, raw(loss)),
            OpsKind::UnTracked(prep) => prep.finish(raw(loss)),
        })
    }

    fn relation_kl(
        student: Tensor<Self, 2>,
        teacher: Tensor<Self, 2>,
        shape: Relation,
    ) -> Tensor<Self, 1> {
        let student = raw(student);
        let ti = wrap::<B, 2>(raw(teacher).primitive);
        let si = wrap::<B, 2>(student.primitive.clone());
        let y = raw(<B as Kernels>::relation_kl(si.clone(), ti.clone(), shape));
        let prep = Backward::<B, 1>::prepare::<C>(RelationKl, [student.node]);
        wrap(match prep.compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((si, ti, shape), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        })
    }
}
