//! Every operation in burn's plain tensor operations: runs on all backends, and is what faster
//! versions are compared with.

use burn::tensor::{Bool, IndexingUpdateOp, Int, Tensor, activation, backend::Backend};
use tritburn_quant::config::HiddenAct;

use super::{
    AdamWParam, AdamWStep, AttentionGrads, AttentionShape, LogitLosses, LogitTarget, Relation,
    Starts,
};
use crate::Result;
use crate::ranks::Rank;
use crate::weights::to_host;

/// Probabilities of relations are clamped from below before the logarithm (BitDistill Algorithm 1).
pub(super) const MIN_PROBABILITY: f64 = 1e-8;

/// √(2/π) and the weight of the cube in the tanh form of GELU (arXiv 1606.08415).
const GELU_SLOPE: f64 = 0.797_884_560_802_865_4;
const GELU_CUBIC: f64 = 0.044_715;

/// Norms are clamped from below when states are normalised, as in PyTorch's `normalize`.
pub(super) const MIN_NORM: f64 = 1e-12;

pub(super) fn rms_norm<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    eps: f64,
) -> Tensor<B, 2> {
    let inv = inv_rms(&x, eps);
    x * inv * weight.unsqueeze()
}

fn inv_rms<B: Backend>(x: &Tensor<B, 2>, eps: f64) -> Tensor<B, 2> {
    (x.clone() * x.clone())
        .mean_dim(1)
        .add_scalar(eps)
        .sqrt()
        .recip()
}

pub(super) fn rms_norm_grad<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    eps: f64,
    grad: Tensor<B, 2>,
) -> (Tensor<B, 2>, Tensor<B, 1>) {
    let inv = inv_rms(&x, eps);
    let normed = x * inv.clone();
    let grad_weight = (grad.clone() * normed.clone())
        .sum_dim(0)
        .squeeze_dim::<1>(0);
    let scaled = grad * weight.unsqueeze();
    let along = (scaled.clone() * normed.clone()).mean_dim(1);
    ((scaled - normed * along) * inv, grad_weight)
}

pub(super) fn gated_act<B: Backend>(
    gate: Tensor<B, 2>,
    up: Tensor<B, 2>,
    act: HiddenAct,
) -> Tensor<B, 2> {
    match act {
        HiddenAct::Silu => gate.clone() * activation::sigmoid(gate) * up,
        HiddenAct::Relu2 => {
            let r = activation::relu(gate);
            r.clone() * r * up
        }
        HiddenAct::GeluTanh => {
            let t = gelu_tanh(gate.clone());
            gate * (t + 1.0) * 0.5 * up
        }
    }
}

/// `tanh(√(2/π) · (x + 0.044715 · x³))`.
fn gelu_tanh<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let cubic = x.clone() * x.clone() * x.clone() * GELU_CUBIC;
    activation::tanh((x + cubic) * GELU_SLOPE)
}

pub(super) fn gated_act_grad<B: Backend>(
    gate: Tensor<B, 2>,
    up: Tensor<B, 2>,
    act: HiddenAct,
    grad: Tensor<B, 2>,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    match act {
        HiddenAct::Silu => {
            let s = activation::sigmoid(gate.clone());
            let slope = s.clone() * (gate.clone() * (s.clone().neg() + 1.0) + 1.0);
            (grad.clone() * up * slope, grad * gate * s)
        }
        HiddenAct::Relu2 => {
            let r = activation::relu(gate);
            (grad.clone() * up * r.clone() * 2.0, grad * r.clone() * r)
        }
        HiddenAct::GeluTanh => {
            let t = gelu_tanh(gate.clone());
            let inner = (gate.clone() * gate.clone() * (3.0 * GELU_CUBIC) + 1.0) * GELU_SLOPE;
            let rest = gate.clone() * ((t.clone() * t.clone()).neg() + 1.0) * inner;
            let slope = (t.clone() + 1.0 + rest) * 0.5;
            (grad.clone() * up * slope, grad * gate * (t + 1.0) * 0.5)
        }
    }
}

pub(super) fn rope<B: Backend>(
    x: Tensor<B, 2>,
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
    seq: usize,
) -> Tensor<B, 2> {
    let [rows, width] = x.dims();
    let head_dim = cos.dims()[1];
    let half = head_dim / 2;
    let x = x.reshape([rows / seq, seq, width / head_dim, head_dim]);
    let low = x.clone().narrow(3, 0, half);
    let high = x.clone().narrow(3, half, half);
    let turned = Tensor::cat(vec![high.neg(), low], 3);
    let table = |t: Tensor<B, 2>| t.reshape([1, seq, 1, head_dim]);
    (x * table(cos) + turned * table(sin)).reshape([rows, width])
}

/// `[batch · seq, heads · head_dim]` → `[batch, heads, seq, head_dim]`.
fn split_heads<B: Backend>(x: Tensor<B, 2>, s: AttentionShape, heads: usize) -> Tensor<B, 4> {
    x.reshape([s.batch, s.seq, heads, s.head_dim])
        .swap_dims(1, 2)
}

/// `[batch, heads, seq, head_dim]` → `[batch · seq, heads · head_dim]`.
fn join_heads<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 2> {
    let [batch, heads, seq, head_dim] = x.dims();
    x.swap_dims(1, 2).reshape([batch * seq, heads * head_dim])
}

/// Key and value heads repeated for the query heads they serve: `[batch, heads, seq, head_dim]`.
fn repeat_kv<B: Backend>(x: Tensor<B, 2>, s: AttentionShape) -> Tensor<B, 4> {
    let groups = s.heads / s.kv_heads;
    split_heads(x, s, s.kv_heads)
        .unsqueeze_dim::<5>(2)
        .expand([s.batch, s.kv_heads, groups, s.seq, s.head_dim])
        .reshape([s.batch, s.heads, s.seq, s.head_dim])
}

/// Sums the gradients of the query heads that shared a key or value head.
fn sum_kv<B: Backend>(grad: Tensor<B, 4>, s: AttentionShape) -> Tensor<B, 2> {
    let groups = s.heads / s.kv_heads;
    let grad = grad
        .reshape([s.batch, s.kv_heads, groups, s.seq, s.head_dim])
        .sum_dim(2)
        .reshape([s.batch, s.kv_heads, s.seq, s.head_dim]);
    join_heads(grad)
}

/// Attention probabilities `[batch, heads, seq, seq]`.
fn probabilities<B: Backend>(
    q: &Tensor<B, 4>,
    k: &Tensor<B, 4>,
    s: AttentionShape,
    starts: Starts<B>,
) -> Tensor<B, 4> {
    let scores = q.clone().matmul(k.clone().swap_dims(2, 3)) * scale(s);
    if !s.causal {
        return activation::softmax(scores, 3);
    }
    let square = [s.seq, s.seq];
    let future = Tensor::<B, 2, Bool>::tril_mask(square, 0, &q.device());
    let mut scores = scores.mask_fill(future.unsqueeze(), f32::NEG_INFINITY);
    if let Some(window) = s.window.filter(|&w| w < s.seq) {
        let offset = 1 - i64::try_from(window).unwrap_or(i64::MAX);
        let past = Tensor::<B, 2, Bool>::triu_mask(square, offset, &q.device());
        scores = scores.mask_fill(past.unsqueeze(), f32::NEG_INFINITY);
    }
    if let Some(starts) = starts {
        let all = [s.batch, 1, s.seq, s.seq];
        let keys = Tensor::arange(0..i64::try_from(s.seq).unwrap_or(i64::MAX), &q.device());
        let keys = keys.reshape([1, 1, 1, s.seq]).expand(all);
        let starts = starts.reshape([s.batch, 1, s.seq, 1]).expand(all);
        let unseen = keys.lower(starts).expand([s.batch, s.heads, s.seq, s.seq]);
        scores = scores.mask_fill(unseen, f32::NEG_INFINITY);
    }
    activation::softmax(scores, 3)
}

fn scale(s: AttentionShape) -> f64 {
    1.0 / (s.head_dim as f64).sqrt()
}

pub(super) fn self_attention<B: Backend>(
    q: Tensor<B, 2>,
    k: Tensor<B, 2>,
    v: Tensor<B, 2>,
    s: AttentionShape,
    starts: Starts<B>,
) -> Tensor<B, 2> {
    let p = probabilities(&split_heads(q, s, s.heads), &repeat_kv(k, s), s, starts);
    join_heads(p.matmul(repeat_kv(v, s)))
}

pub(super) fn self_attention_grad<B: Backend>(
    q: Tensor<B, 2>,
    k: Tensor<B, 2>,
    v: Tensor<B, 2>,
    s: AttentionShape,
    starts: Starts<B>,
    grad: Tensor<B, 2>,
) -> AttentionGrads<B> {
    let (q, k, v) = (split_heads(q, s, s.heads), repeat_kv(k, s), repeat_kv(v, s));
    let grad = split_heads(grad, s, s.heads);
    let p = probabilities(&q, &k, s, starts);
    let grad_v = p.clone().swap_dims(2, 3).matmul(grad.clone());
    let grad_p = grad.matmul(v.swap_dims(2, 3));
    let along = (grad_p.clone() * p.clone()).sum_dim(3);
    let grad_scores = (grad_p - along) * p * scale(s);
    let grad_q = grad_scores.clone().matmul(k);
    let grad_k = grad_scores.swap_dims(2, 3).matmul(q);
    (join_heads(grad_q), sum_kv(grad_k, s), sum_kv(grad_v, s))
}

/// Through the memory of the host, all tensors at once.
pub(super) fn all_reduce<B: Backend>(
    tensors: Vec<Tensor<B, 1>>,
    rank: &Rank,
) -> Result<Vec<Tensor<B, 1>>> {
    if rank.count() == 1 {
        return Ok(tensors);
    }
    let own: Vec<f32> = tensors.iter().cloned().flat_map(to_host).collect();
    let sums = rank.sum(&own)?;
    let mut left = &sums[..];
    let sum = |tensor: Tensor<B, 1>| {
        let (values, rest) = left.split_at(tensor.dims()[0]);
        left = rest;
        Tensor::from_data(values, &tensor.device())
    };
    Ok(tensors.into_iter().map(sum).collect())
}

pub(super) fn adamw<B: Backend>(param: AdamWParam<B>, s: &AdamWStep) -> [Tensor<B, 1>; 3] {
    let grad = param.grad * s.grad_scale;
    let m = param.m * s.beta1 + grad.clone() * (1.0 - s.beta1);
    let v = param.v * s.beta2 + grad.clone() * grad * (1.0 - s.beta2);
    let denom = (v.clone() / s.bias2).sqrt() + s.eps;
    let update = m.clone() / denom * (s.lr / s.bias1);
    let value = param.value * (1.0 - s.lr * param.weight_decay) - update;
    [value, m, v]
}

/// See [`Kernels::logit_losses`](super::Kernels::logit_losses).
pub(super) fn logit_losses<B: Backend>(
    logits: &Tensor<B, 2>,
    target: &LogitTarget<B>,
) -> LogitLosses<B> {
    let tokens = target.tokens.clone();
    let teacher = target.teacher.clone();
    LogitLosses {
        losses: [
            tokens.map(|tokens| nll(logits.clone(), tokens)),
            teacher.map(|(teacher, tau)| kl(logits.clone(), teacher, tau)),
        ],
        sums: None,
    }
}

/// See [`Kernels::logit_losses_grad`](super::Kernels::logit_losses_grad).
pub(super) fn logit_losses_grad<B: Backend>(
    logits: Tensor<B, 2>,
    target: LogitTarget<B>,
    [of_tokens, of_teacher]: [Tensor<B, 1>; 2],
) -> Tensor<B, 2> {
    match (target.tokens, target.teacher) {
        (Some(tokens), None) => nll_grad(logits, tokens, of_tokens),
        (None, Some((teacher, tau))) => kl_grad(logits, teacher, tau, of_teacher),
        (Some(tokens), Some((teacher, tau))) => {
            nll_grad(logits.clone(), tokens, of_tokens) + kl_grad(logits, teacher, tau, of_teacher)
        }
        (None, None) => logits.zeros_like(),
    }
}

/// `−log softmax(logits)[target]` of each row.
fn nll<B: Backend>(logits: Tensor<B, 2>, targets: Tensor<B, 1, Int>) -> Tensor<B, 1> {
    let log_probs = activation::log_softmax(logits, 1);
    let picked = log_probs.gather(1, targets.unsqueeze_dim(1));
    picked.squeeze_dim::<1>(1).neg()
}

fn nll_grad<B: Backend>(
    logits: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    grad: Tensor<B, 1>,
) -> Tensor<B, 2> {
    let grad = grad.unsqueeze_dim::<2>(1);
    let probs = activation::softmax(logits, 1) * grad.clone();
    probs.scatter(
        1,
        targets.unsqueeze_dim(1),
        grad.neg(),
        IndexingUpdateOp::Add,
    )
}

/// `KL(softmax(teacher / τ) ‖ softmax(student / τ))` of each row (BitDistill Eq. 9).
fn kl<B: Backend>(student: Tensor<B, 2>, teacher: Tensor<B, 2>, temperature: f32) -> Tensor<B, 1> {
    let log_s = activation::log_softmax(student / temperature, 1);
    let log_t = activation::log_softmax(teacher / temperature, 1);
    let kl = log_t.clone().exp() * (log_t - log_s);
    kl.sum_dim(1).squeeze_dim::<1>(1)
}

fn kl_grad<B: Backend>(
    student: Tensor<B, 2>,
    teacher: Tensor<B, 2>,
    temperature: f32,
    grad: Tensor<B, 1>,
) -> Tensor<B, 2> {
    let s = activation::softmax(student / temperature, 1);
    let t = activation::softmax(teacher / temperature, 1);
    (s - t) * (grad / temperature).unsqueeze_dim(1)
}

/// One side of a relation: states `[batch, heads, seq, width]`, their norms where normalised, and
/// probabilities `[batch, heads, seq, seq]`.
struct Side<B: Backend> {
    a: Tensor<B, 4>,
    norm: Option<Tensor<B, 4>>,
    scale: f64,
    p: Tensor<B, 4>,
}

impl<B: Backend> Side<B> {
    #[allow(clippy::cast_precision_loss)]
    fn new(states: Tensor<B, 2>, r: Relation) -> Self {
        let width = states.dims()[1] / r.heads;
        let a = states
            .reshape([r.batch, r.seq, r.heads, width])
            .swap_dims(1, 2);
        let (a, norm, scale) = if r.cosine {
            let norm = (a.clone() * a.clone()).sum_dim(3).sqrt();
            let norm = norm.clamp_min(MIN_NORM);
            (a / norm.clone(), Some(norm), 1.0)
        } else {
            (a, None, 1.0 / (width as f64).sqrt())
        };
        let scores = a.clone().matmul(a.clone().swap_dims(2, 3)) * scale;
        let p = activation::softmax(scores, 3);
        Self { a, norm, scale, p }
    }
}

fn floor(r: Relation) -> f64 {
    if r.cosine {
        MIN_PROBABILITY
    } else {
        f64::from(f32::MIN_POSITIVE)
    }
}

pub(super) fn relation_kl<B: Backend>(
    student: Tensor<B, 2>,
    teacher: Tensor<B, 2>,
    r: Relation,
) -> Tensor<B, 1> {
    let s = Side::new(student, r).p.clamp_min(floor(r));
    let t = Side::new(teacher, r).p.clamp_min(floor(r));
    let kl = t.clone() * (t.log() - s.log());
    kl.sum_dim(3).reshape([r.rows()])
}

pub(super) fn relation_kl_grad<B: Backend>(
    student: Tensor<B, 2>,
    teacher: Tensor<B, 2>,
    r: Relation,
    grad: Tensor<B, 1>,
) -> Tensor<B, 2> {
    let [tokens, width] = student.dims();
    let s = Side::new(student, r);
    let t = Side::new(teacher, r).p.clamp_min(floor(r));
    // Where the logarithm's argument is clamped, no gradient flows.
    let u = t.mask_fill(s.p.clone().lower_equal_elem(floor(r)), 0.0);
    let grad = grad.reshape([r.batch, r.heads, r.seq, 1]) * s.scale;
    let ds = (s.p * u.clone().sum_dim(3) - u) * grad;
    // Scores are a · aᵀ: both factors receive a gradient.
    let da = (ds.clone() + ds.swap_dims(2, 3)).matmul(s.a.clone());
    let dx = match s.norm {
        Some(norm) => {
            let along = (s.a.clone() * da.clone()).sum_dim(3);
            (da - s.a * along) / norm
        }
        None => da,
    };
    dx.swap_dims(1, 2).reshape([tokens, width])
}
