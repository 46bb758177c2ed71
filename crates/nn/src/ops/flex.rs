//! Fused loops for the CPU backend: one pass over memory where the reference makes eight.
//!
//! Loops are compiled for the widest vectors the machine has (`pulp`), and split over threads in
//! chunks of a fixed number of rows, so results do not depend on the number of threads.

mod attention;
mod loss;
mod quantise;
mod rows;
mod tile;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Int, Shape, Tensor, TensorData};
use tritburn_quant::config::HiddenAct;
use tritburn_quant::scheme::{ActQuant, Granularity, Grid, WeightQuant};

use super::{
    AdamWParam, AdamWStep, Attended, AttentionGrads, AttentionShape, Kernels, LogitLosses,
    LogitTarget, QuantActs, QuantWeight, Relation, Starts, quant,
};
use crate::packed::Packed;

/// Compiles a loop for the widest vectors that the machine has, and runs it.
///
/// The bound is `FnMut` on purpose: a call by value goes through a shim that the compiler may leave
/// out of line, and what is not inlined here is compiled for the narrowest vectors.
#[inline(always)]
fn wide<F: FnMut()>(work: F) {
    struct Wide<F>(F);
    impl<F: FnMut()> pulp::NullaryFnOnce for Wide<F> {
        type Output = ();
        #[inline(always)]
        fn call(mut self) {
            (self.0)();
        }
    }
    pulp::Arch::new().dispatch(Wide(work));
}

/// The tensor in row-major order, so that [`values`] can see it as a slice.
fn contiguous<const D: usize>(x: Tensor<Flex, D>) -> FlexTensor {
    let x = x.into_primitive().tensor();
    if x.is_contiguous() {
        x
    } else {
        x.to_contiguous()
    }
}

fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice()
        .unwrap_or_else(|| unreachable!("made contiguous, and floats here are f32"))
}

fn tensor<const D: usize>(data: Vec<f32>, shape: [usize; D]) -> Tensor<Flex, D> {
    let data = FlexTensor::from_data(TensorData::new(data, Shape::from(shape)));
    Tensor::from_primitive(burn::tensor::TensorPrimitive::Float(data))
}

/// Class numbers on the host, each below `classes`.
fn indices(x: Tensor<Flex, 1, Int>, classes: usize) -> Vec<usize> {
    let x = x.into_data();
    x.iter::<i64>()
        .map(|i| usize::try_from(i).map_or(0, |i| i.min(classes.saturating_sub(1))))
        .collect()
}

/// For each token of each sequence the place of the first that it sees.
fn first_seen(starts: Starts<Flex>, shape: AttentionShape) -> Vec<usize> {
    let mut out: Vec<usize> = (0..shape.batch * shape.seq)
        .map(|i| shape.first_seen(i % shape.seq))
        .collect();
    if let Some(starts) = starts {
        for (first, start) in out.iter_mut().zip(starts.into_data().iter::<i64>()) {
            *first = (*first).max(usize::try_from(start).unwrap_or(0));
        }
    }
    out
}

/// Multiplies row `r` by `step[r] · scale`, in place where nobody else holds the tensor.
fn scale_rows(y: Tensor<Flex, 2>, step: &Tensor<Flex, 2>, scale: f32) -> Tensor<Flex, 2> {
    let features = y.dims()[1];
    let (mut y, step) = (contiguous(y), contiguous(step.clone()));
    if features > 0 {
        rows::scale_rows(y.storage_mut(), features, values(&step), scale);
    }
    Tensor::from_primitive(burn::tensor::TensorPrimitive::Float(y))
}

impl Kernels for Flex {
    const ON_HOST: bool = true;

    fn quantise_weight(weight: Tensor<Self, 2>, quant: WeightQuant) -> QuantWeight<Self> {
        let [out, width] = weight.dims();
        if quant == WeightQuant::None || out * width == 0 {
            return quant::weight(weight, quant);
        }
        let weight = contiguous(weight);
        if quant == WeightQuant::Absmean {
            let scale = tritburn_quant::ternary::absmean(values(&weight));
            let codes = rows::ternary(values(&weight), scale);
            return QuantWeight::float(tensor(codes, [out, width]), tensor(vec![scale], [1, 1]));
        }
        let (codes, scales) = quantise::weight(values(&weight), width, quant);
        let shape = match quant.granularity() {
            Granularity::Tensor => [1, 1],
            Granularity::Row => [out, 1],
            Granularity::Group(size) => [out, width / size],
        };
        QuantWeight::float(tensor(codes, [out, width]), tensor(scales, shape))
    }

    fn quantise_acts(x: Tensor<Self, 2>, quant: ActQuant) -> QuantActs<Self> {
        let [tokens, features] = x.dims();
        if quant.grid == Grid::None || tokens * features == 0 {
            return quant::acts(x, quant);
        }
        let x = contiguous(x);
        let (codes, step) = if quant == ActQuant::INT8 {
            rows::int8_tokens(values(&x), features)
        } else {
            quantise::acts(values(&x), features, quant)
        };
        QuantActs::float(tensor(codes, [tokens, features]), tensor(step, [tokens, 1]))
    }

    fn code_matmul(x: &QuantActs<Self>, weight: &QuantWeight<Self>) -> Tensor<Self, 2> {
        if weight.scale.dims() != [1, 1] {
            return quant::code_matmul(x, weight);
        }
        let y = x
            .codes
            .clone()
            .float()
            .matmul(weight.codes.clone().float().transpose());
        scale_rows(y, &x.step, values(&contiguous(weight.scale.clone()))[0])
    }

    fn code_matmul_grad(
        x: QuantActs<Self>,
        weight: QuantWeight<Self>,
        grad: Tensor<Self, 2>,
        int8_input: bool,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        let of_input = if int8_input {
            Self::quantise_acts(grad.clone(), ActQuant::INT8).dense()
        } else {
            grad.clone()
        };
        let grad_x = of_input.matmul(weight.dense());
        let grad_w = scale_rows(grad, &x.step, 1.0)
            .transpose()
            .matmul(x.codes.float());
        (grad_x, grad_w)
    }

    fn packed_matmul(x: Tensor<Self, 2>, weight: &Packed) -> Tensor<Self, 2> {
        if x.dtype() != DType::F32 {
            return quant::packed_matmul(x, weight);
        }
        let shape = [x.dims()[0], weight.shape()[0]];
        tensor(weight.multiply(values(&contiguous(x))), shape)
    }

    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        let shape = x.dims();
        let (x, weight) = (contiguous(x), contiguous(weight));
        tensor(rows::rms_norm(values(&x), values(&weight), eps), shape)
    }

    fn rms_norm_grad(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        eps: f64,
        grad: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 1>) {
        let shape = x.dims();
        let (x, weight, grad) = (contiguous(x), contiguous(weight), contiguous(grad));
        let (grad_x, grad_w) = rows::rms_norm_grad(values(&x), values(&weight), eps, values(&grad));
        (tensor(grad_x, shape), tensor(grad_w, [shape[1]]))
    }

    fn gated_act(gate: Tensor<Self, 2>, up: Tensor<Self, 2>, act: HiddenAct) -> Tensor<Self, 2> {
        let shape = gate.dims();
        let (gate, up) = (contiguous(gate), contiguous(up));
        tensor(rows::gated_act(values(&gate), values(&up), act), shape)
    }

    fn gated_act_grad(
        gate: Tensor<Self, 2>,
        up: Tensor<Self, 2>,
        act: HiddenAct,
        grad: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        let shape = gate.dims();
        let (gate, up, grad) = (contiguous(gate), contiguous(up), contiguous(grad));
        let (grad_gate, grad_up) =
            rows::gated_act_grad(values(&gate), values(&up), act, values(&grad));
        (tensor(grad_gate, shape), tensor(grad_up, shape))
    }

    fn rope(
        x: Tensor<Self, 2>,
        cos: Tensor<Self, 2>,
        sin: Tensor<Self, 2>,
        seq: usize,
    ) -> Tensor<Self, 2> {
        let shape = x.dims();
        let head_dim = cos.dims()[1];
        let (x, cos, sin) = (contiguous(x), contiguous(cos), contiguous(sin));
        let y = rows::rope(
            values(&x),
            shape[1],
            values(&cos),
            values(&sin),
            head_dim,
            seq,
        );
        tensor(y, shape)
    }

    fn self_attention(
        q: Tensor<Self, 2>,
        k: Tensor<Self, 2>,
        v: Tensor<Self, 2>,
        shape: AttentionShape,
        starts: Starts<Self>,
    ) -> Attended<Self> {
        let dims = q.dims();
        let (q, k, v) = (contiguous(q), contiguous(k), contiguous(v));
        let out = attention::forward(
            values(&q),
            values(&k),
            values(&v),
            shape,
            &first_seen(starts, shape),
        );
        tensor(out, dims).into()
    }

    fn self_attention_grad(
        q: Tensor<Self, 2>,
        k: Tensor<Self, 2>,
        v: Tensor<Self, 2>,
        shape: AttentionShape,
        starts: Starts<Self>,
        _attended: Attended<Self>,
        grad: Tensor<Self, 2>,
    ) -> AttentionGrads<Self> {
        let (q_dims, kv_dims) = (q.dims(), k.dims());
        let (q, k, v, grad) = (
            contiguous(q),
            contiguous(k),
            contiguous(v),
            contiguous(grad),
        );
        let (grad_q, grad_k, grad_v) = attention::grad(
            [&q, &k, &v, &grad].map(values),
            shape,
            &first_seen(starts, shape),
        );
        (
            tensor(grad_q, q_dims),
            tensor(grad_k, kv_dims),
            tensor(grad_v, kv_dims),
        )
    }

    fn logit_losses(logits: &Tensor<Self, 2>, target: &LogitTarget<Self>) -> LogitLosses<Self> {
        let [rows, vocab] = logits.dims();
        let logits = contiguous(logits.clone());
        let by_tokens = target.tokens.clone().map(|tokens| {
            let out = loss::nll(values(&logits), vocab, &indices(tokens, vocab));
            tensor(out, [rows])
        });
        let by_teacher = target.teacher.clone().map(|(teacher, tau)| {
            let teacher = contiguous(teacher);
            let out = loss::kl(values(&logits), values(&teacher), vocab, 1.0 / tau);
            tensor(out, [rows])
        });
        LogitLosses {
            losses: [by_tokens, by_teacher],
            sums: None,
        }
    }

    fn logit_losses_grad(
        logits: Tensor<Self, 2>,
        target: LogitTarget<Self>,
        _sums: Option<Tensor<Self, 2>>,
        grads: [Tensor<Self, 1>; 2],
    ) -> Tensor<Self, 2> {
        let dims = logits.dims();
        let logits = contiguous(logits);
        let [of_tokens, of_teacher] = grads.map(contiguous);
        let by_tokens = target.tokens.map(|tokens| {
            let tokens = indices(tokens, dims[1]);
            loss::nll_grad(values(&logits), dims[1], &tokens, values(&of_tokens))
        });
        let by_teacher = target.teacher.map(|(teacher, tau)| {
            let teacher = contiguous(teacher);
            let [student, teacher] = [&logits, &teacher].map(values);
            loss::kl_grad(student, teacher, dims[1], 1.0 / tau, values(&of_teacher))
        });
        match (by_tokens, by_teacher) {
            (Some(a), Some(b)) => tensor(a, dims) + tensor(b, dims),
            (Some(grad), None) | (None, Some(grad)) => tensor(grad, dims),
            (None, None) => Tensor::zeros(dims, &Default::default()),
        }
    }

    fn relation_kl(
        student: Tensor<Self, 2>,
        teacher: Tensor<Self, 2>,
        shape: Relation,
    ) -> Tensor<Self, 1> {
        let (student, teacher) = (contiguous(student), contiguous(teacher));
        let out = loss::relation_kl(values(&student), values(&teacher), shape);
        tensor(out, [shape.rows()])
    }

    fn relation_kl_grad(
        student: Tensor<Self, 2>,
        teacher: Tensor<Self, 2>,
        shape: Relation,
        grad: Tensor<Self, 1>,
    ) -> Tensor<Self, 2> {
        let dims = student.dims();
        let (student, teacher, grad) = (contiguous(student), contiguous(teacher), contiguous(grad));
        let out = loss::relation_kl_grad(values(&student), values(&teacher), shape, values(&grad));
        tensor(out, dims)
    }

    fn sum_squares(all: Vec<Tensor<Self, 1>>) -> Option<Tensor<Self, 1>> {
        let squares = all
            .into_iter()
            .map(|x| rows::sum_squares(values(&contiguous(x))));
        Some(tensor(vec![squares.reduce(|a, b| a + b)?], [1]))
    }

    fn adamw(params: Vec<AdamWParam<Self>>, step: &AdamWStep) -> Vec<[Tensor<Self, 1>; 3]> {
        let each = params.into_iter().map(|param| {
            let (n, decay) = (param.value.dims(), param.weight_decay);
            let all = [param.value, param.grad, param.m, param.v].map(contiguous);
            let new = rows::adamw(all.each_ref().map(values), decay, step);
            new.map(|x| tensor(x, n))
        });
        each.collect()
    }
}
