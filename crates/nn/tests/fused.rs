//! Fused CPU loops against the plain operations, values and gradients.
#![allow(clippy::unwrap_used, missing_docs)]

use burn::backend::{Autodiff, Flex, NdArray};
use burn::tensor::{Distribution, Int, Tensor, TensorData, bf16};
use tritburn_nn::ops::{
    AdamWParam, AdamWStep, AttentionShape, Compute, HeadTarget, Kernels, LinearQuant, Ops,
    Relation, TeacherHead,
};
use tritburn_quant::config::HiddenAct;

type Fused = Autodiff<Flex>;
type Plain = Autodiff<NdArray>;

fn random(shape: [usize; 2]) -> Vec<f32> {
    let x = Tensor::<Flex, 2>::random(shape, Distribution::Normal(0.0, 1.0), &Default::default());
    x.into_data().iter::<f32>().collect()
}

/// Runs `op` on inputs with a random output gradient; returns the output and all gradients.
fn run<B: Kernels>(
    inputs: &[(Vec<f32>, [usize; 2])],
    weight: &[f32],
    op: impl Fn(Vec<Tensor<Autodiff<B>, 2>>) -> Tensor<Autodiff<B>, 2>,
) -> Vec<Vec<f32>> {
    let device = B::Device::default();
    let leaves: Vec<Tensor<Autodiff<B>, 2>> = inputs
        .iter()
        .map(|(d, s)| Tensor::from_data(TensorData::new(d.clone(), *s), &device).require_grad())
        .collect();
    let y = op(leaves.clone());
    let dims = y.dims();
    let grad = Tensor::from_data(
        TensorData::new(weight[..dims[0] * dims[1]].to_vec(), dims),
        &device,
    );
    let grads = (y.clone() * grad).sum().backward();
    let mut out = vec![y.into_data().iter::<f32>().collect()];
    for leaf in leaves {
        out.push(
            leaf.grad(&grads)
                .unwrap()
                .into_data()
                .iter::<f32>()
                .collect(),
        );
    }
    out
}

fn same(what: &str, fused: &[Vec<f32>], plain: &[Vec<f32>]) {
    for (i, (a, b)) in fused.iter().zip(plain).enumerate() {
        // Gradients may cancel to nearly nothing: what they cancel from is of order 1.
        let largest = b.iter().fold(0.1f32, |m, x| m.max(x.abs()));
        for (a, b) in a.iter().zip(b) {
            assert!(
                (a - b).abs() <= 2e-5 * largest,
                "{what}, tensor {i}: {a} and {b}"
            );
        }
    }
}

/// Widths below, at and above the vector width, and single rows.
const SHAPES: [[usize; 2]; 6] = [[1, 1], [3, 7], [5, 16], [2, 33], [70, 64], [130, 257]];

#[test]
fn norms_agree() {
    for [rows, width] in SHAPES {
        let inputs = [
            (random([rows, width]), [rows, width]),
            (random([1, width]), [1, width]),
        ];
        let g = random([rows, width]);
        let fused = run::<Flex>(&inputs, &g, |x| {
            Fused::rms_norm(x[0].clone(), x[1].clone().reshape([width]), 1e-6)
        });
        let plain = run::<NdArray>(&inputs, &g, |x| {
            Plain::rms_norm(x[0].clone(), x[1].clone().reshape([width]), 1e-6)
        });
        same("rms_norm", &fused, &plain);
    }
}

#[test]
fn gates_agree() {
    for shape in SHAPES {
        for act in [HiddenAct::Silu, HiddenAct::Relu2, HiddenAct::GeluTanh] {
            let inputs = [(random(shape), shape), (random(shape), shape)];
            let g = random(shape);
            let fused = run::<Flex>(&inputs, &g, |x| {
                Fused::gated_act(x[0].clone(), x[1].clone(), act)
            });
            let plain = run::<NdArray>(&inputs, &g, |x| {
                Plain::gated_act(x[0].clone(), x[1].clone(), act)
            });
            same("gated_act", &fused, &plain);
        }
    }
}

#[test]
fn silu_survives_extreme_inputs() {
    let device = Default::default();
    let x = [-1e30f32, -200.0, -88.0, 0.0, 88.0, 200.0, 1e30];
    let gate = Tensor::<Flex, 1>::from_data(x, &device).reshape([1, 7]);
    let y = <Flex as Kernels>::gated_act(gate, Tensor::ones([1, 7], &device), HiddenAct::Silu);
    let y: Vec<f32> = y.into_data().iter::<f32>().collect();
    assert!(
        y[..3].iter().all(|v| v.abs() < 1e-6 || *v > -1e-5 * 1e30),
        "{y:?}"
    );
    assert_eq!(&y[3..], &[0.0, 88.0, 200.0, 1e30]);
}

#[test]
fn attention_agrees() {
    for (batch, seq, heads, kv_heads, head_dim, window) in [
        (1, 1, 1, 1, 2, None),
        (2, 5, 4, 2, 8, None),
        (3, 17, 4, 1, 16, None),
        (2, 48, 6, 3, 32, None),
        (2, 5, 4, 2, 8, Some(1)),
        (1, 17, 2, 1, 16, Some(4)),
        (2, 9, 2, 2, 8, Some(9)),
    ] {
        attention_agrees_at(AttentionShape {
            batch,
            seq,
            heads,
            kv_heads,
            head_dim,
            causal: true,
            window,
        });
    }
    for (batch, seq, heads, kv_heads, head_dim) in [
        (1, 1, 1, 1, 2),
        (2, 5, 4, 2, 8),
        (3, 16, 4, 1, 16),
        (2, 49, 6, 6, 32),
    ] {
        attention_agrees_at(AttentionShape {
            batch,
            seq,
            heads,
            kv_heads,
            head_dim,
            causal: false,
            window: None,
        });
    }
}

#[test]
fn attention_inside_documents_agrees() {
    for (seq, window, starts) in [
        (1, None, vec![0]),
        (7, None, vec![0, 0, 2, 2, 2, 5, 6]),
        (7, Some(2), vec![0, 0, 0, 0, 4, 4, 4]),
    ] {
        let shape = AttentionShape {
            batch: 2,
            seq,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            causal: true,
            window,
        };
        // The other row is one document.
        let starts: Vec<i32> = starts.into_iter().chain(vec![0; seq]).collect();
        agrees_with(shape, Some(TensorData::new(starts, [2, seq])));
    }
}

fn attention_agrees_at(shape: AttentionShape) {
    agrees_with(shape, None);
}

fn agrees_with(shape: AttentionShape, starts: Option<TensorData>) {
    let device = Default::default();
    let tokens = shape.batch * shape.seq;
    let q = [tokens, shape.heads * shape.head_dim];
    let kv = [tokens, shape.kv_heads * shape.head_dim];
    let inputs = [(random(q), q), (random(kv), kv), (random(kv), kv)];
    let g = random(q);
    let fused = run::<Flex>(&inputs, &g, |x| {
        let starts = starts.clone().map(|s| Tensor::from_data(s, &device));
        Fused::self_attention(x[0].clone(), x[1].clone(), x[2].clone(), shape, starts)
    });
    let plain = run::<NdArray>(&inputs, &g, |x| {
        let starts = starts
            .clone()
            .map(|s| Tensor::from_data(s, &Default::default()));
        Plain::self_attention(x[0].clone(), x[1].clone(), x[2].clone(), shape, starts)
    });
    same("attention", &fused, &plain);
}

#[test]
fn rope_agrees() {
    let (batch, seq, heads, head_dim) = (2, 9, 3, 8);
    let shape = [batch * seq, heads * head_dim];
    let inputs = [(random(shape), shape)];
    let (cos, sin) = (random([seq, head_dim]), random([seq, head_dim]));
    let table = [seq, head_dim];
    let g = random(shape);
    let fused = run::<Flex>(&inputs, &g, |x| {
        let t = |v: &Vec<f32>| Tensor::from_data(TensorData::new(v.clone(), table), &x[0].device());
        Fused::rope(x[0].clone(), t(&cos), t(&sin), seq)
    });
    let plain = run::<NdArray>(&inputs, &g, |x| {
        let t = |v: &Vec<f32>| Tensor::from_data(TensorData::new(v.clone(), table), &x[0].device());
        Plain::rope(x[0].clone(), t(&cos), t(&sin), seq)
    });
    same("rope", &fused[..1], &plain[..1]);
}

#[test]
fn bit_linear_forward_is_exact_over_codes() {
    let (rows, width, out) = (9, 100, 13);
    let device = Default::default();
    let x = Tensor::<Flex, 2>::from_data(
        TensorData::new(random([rows, width]), [rows, width]),
        &device,
    );
    let w =
        Tensor::<Flex, 2>::from_data(TensorData::new(random([out, width]), [out, width]), &device);
    let y: Vec<f32> = Flex::bit_linear(x.clone(), w.clone(), None, LinearQuant::B158)
        .into_data()
        .iter::<f32>()
        .collect();
    let x: Vec<f32> = x.into_data().iter::<f32>().collect();
    let w: Vec<f32> = w.into_data().iter::<f32>().collect();
    let scale = tritburn_quant::ternary::absmean(&w);
    let w = tritburn_quant::ternary::ternary_codes(&w, scale);
    for (r, x) in x.chunks_exact(width).enumerate() {
        let mut codes = vec![0i8; width];
        let step = tritburn_quant::act::absmax_int8(x, &mut codes);
        for (o, w) in w.chunks_exact(width).enumerate() {
            let acc: i32 = codes
                .iter()
                .zip(w)
                .map(|(a, b)| i32::from(*a) * i32::from(*b))
                .sum();
            #[allow(clippy::cast_precision_loss)]
            let exact = acc as f32 * (step * scale);
            assert_eq!(
                y[r * out + o].to_bits(),
                exact.to_bits(),
                "token {r}, output {o}"
            );
        }
    }
}

/// Mixed precision: the operands of all three products are bf16, sums and results f32.
#[test]
fn bf16_products_round_their_operands() {
    let (tokens, d_in, d_out) = (9, 24, 16);
    let inputs = [
        (random([tokens, d_in]), [tokens, d_in]),
        (random([d_out, d_in]), [d_out, d_in]),
    ];
    let g = random([tokens, d_out]);
    let half = |x: &[f32]| x.iter().map(|&v| bf16::from_f32(v).to_f32()).collect();
    let halves = inputs.clone().map(|(data, shape)| (half(&data), shape));
    let halved: Vec<f32> = half(&g);
    fn product<B: Kernels>(
        x: Vec<Tensor<Autodiff<B>, 2>>,
        compute: Compute,
    ) -> Tensor<Autodiff<B>, 2> {
        Autodiff::<B>::dense_matmul(x[0].clone(), x[1].clone(), compute)
    }
    let exact = run::<NdArray>(&halves, &halved, |x| product(x, Compute::F32));
    let whole = run::<NdArray>(&inputs, &g, |x| product(x, Compute::F32));
    for found in [
        run::<NdArray>(&inputs, &g, |x| product(x, Compute::Bf16)),
        run::<Flex>(&inputs, &g, |x| product(x, Compute::Bf16)),
    ] {
        same("bf16", &found, &exact);
    }
    assert_ne!(exact, whole, "there is something to round");
    // Ties, subnormal numbers, and what is already bf16.
    let edges: Vec<f32> = [
        0x3f80_8000,
        0x3f81_8000,
        0x3f80_8001,
        0x0001_0000,
        0xc049_0000,
        0,
    ]
    .map(f32::from_bits)
    .into();
    let one = Tensor::<Flex, 2>::ones([1, 1], &Default::default());
    let column = Tensor::<Flex, 2>::from_data(
        TensorData::new(edges.clone(), [edges.len(), 1]),
        &Default::default(),
    );
    let rounded = <Flex as Kernels>::dense_matmul(column, one, Compute::Bf16);
    let expected: Vec<f32> = half(&edges);
    assert_eq!(
        rounded.into_data().iter::<f32>().collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn adamw_agrees() {
    let n = 40_000;
    let step = AdamWStep {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        grad_scale: 0.5,
        bias1: 0.1,
        bias2: 0.05,
    };
    let data: Vec<Vec<f32>> = (0..4).map(|_| random([1, n])).collect();
    fn go<B: Kernels>(data: &[Vec<f32>], step: &AdamWStep) -> Vec<Vec<f32>> {
        let t = |i: usize| {
            let d = if i == 3 {
                data[3].iter().map(|x| x * x).collect()
            } else {
                data[i].clone()
            };
            Tensor::<B, 1>::from_data(TensorData::new(d, [data[i].len()]), &B::Device::default())
        };
        let param = AdamWParam {
            value: t(0),
            grad: t(1),
            m: t(2),
            v: t(3),
            weight_decay: 0.1,
        };
        let new = B::adamw(vec![param], step).remove(0);
        new.map(|x| x.into_data().iter::<f32>().collect()).to_vec()
    }
    same(
        "adamw",
        &go::<Flex>(&data, &step),
        &go::<NdArray>(&data, &step),
    );
}

fn targets<B: Kernels>(rows: usize, vocab: usize) -> Tensor<Autodiff<B>, 1, Int> {
    let ids: Vec<i32> = (0..rows).map(|i| ((i * 7 + 3) % vocab) as i32).collect();
    Tensor::from_data(TensorData::new(ids, [rows]), &Default::default())
}

#[test]
fn vocabulary_losses_agree() {
    for [rows, vocab] in [[1, 2], [3, 17], [9, 100], [20, 512]] {
        let width = 16;
        let weight = random([2 * rows, 1]);
        let inputs = [
            (random([rows, width]), [rows, width]),
            (random([vocab, width]), [vocab, width]),
        ];
        let teacher = [random([rows, TAUGHT]), random([vocab, TAUGHT])];
        for (by_tokens, temperature) in [
            (true, None),
            (false, Some(1.0)),
            (false, Some(5.0)),
            (true, Some(5.0)),
        ] {
            let target = (by_tokens, temperature);
            same(
                &format!("{target:?}"),
                &run::<Flex>(&inputs, &weight, |x| head_loss(x, &teacher, target)),
                &run::<NdArray>(&inputs, &weight, |x| head_loss(x, &teacher, target)),
            );
        }
        // Both losses at once are the one and the other.
        let losses = |weight: &[f32], target| {
            run::<Flex>(&inputs, weight, |x| head_loss(x, &teacher, target))
        };
        let (of_tokens, of_teacher) = weight.split_at(rows);
        let tokens = losses(of_tokens, (true, None));
        let teacher = losses(of_teacher, (false, Some(5.0)));
        let mut expected = vec![[&tokens[0][..], &teacher[0]].concat()];
        expected.extend([1, 2].map(|i| {
            let sums = tokens[i].iter().zip(&teacher[i]).map(|(a, b)| a + b);
            sums.collect::<Vec<f32>>()
        }));
        same("both", &losses(&weight, (true, Some(5.0))), &expected);
    }
}

/// Width of a teacher.
const TAUGHT: usize = 24;

/// Losses by tokens, by a teacher of these hidden states and head at a temperature, or both.
fn head_loss<B: Kernels>(
    x: Vec<Tensor<Autodiff<B>, 2>>,
    teacher: &[Vec<f32>; 2],
    (by_tokens, temperature): (bool, Option<f32>),
) -> Tensor<Autodiff<B>, 2> {
    let (rows, vocab) = (x[0].dims()[0], x[1].dims()[0]);
    let [hidden, head] = teacher.each_ref().map(|values| {
        let data = TensorData::new(values.clone(), [values.len() / TAUGHT, TAUGHT]);
        Tensor::from_data(data, &Default::default())
    });
    let target = HeadTarget {
        tokens: by_tokens.then(|| targets::<B>(rows, vocab)),
        teacher: temperature.map(|temperature| TeacherHead {
            hidden,
            head: head.into(),
            temperature,
        }),
    };
    Ops::head_loss(x[0].clone(), x[1].clone().into(), target).unsqueeze_dim(1)
}

/// More logits than are held at once: the same losses and gradients as row by row.
#[test]
fn a_large_vocabulary_is_taken_in_chunks() {
    let (rows, vocab, width) = (40, 1 << 19, 2);
    let device = Default::default();
    let make = |shape: [usize; 2]| TensorData::new(random(shape), shape);
    let (hidden, head, teacher) = (
        make([rows, width]),
        make([vocab, width]),
        make([rows, width]),
    );
    let whole = |from: usize, count: usize| {
        let part = |data: &TensorData| {
            Tensor::<Fused, 2>::from_data(data.clone(), &device)
                .narrow(0, from, count)
                .inner()
        };
        let hidden = Tensor::<Fused, 2>::from_inner(part(&hidden)).require_grad();
        let head = Tensor::<Fused, 2>::from_data(head.clone(), &device).require_grad();
        let target = TeacherHead {
            hidden: Tensor::from_inner(part(&teacher)),
            head: head.clone().detach().into(),
            temperature: 2.0,
        };
        let loss = Fused::head_loss(hidden.clone(), head.clone().into(), target.into());
        let grads = loss.clone().sum().backward();
        let host = |x: Tensor<Flex, 2>| x.into_data().iter::<f32>().collect::<Vec<_>>();
        let values: Vec<f32> = loss.inner().into_data().iter::<f32>().collect();
        (
            values,
            host(hidden.grad(&grads).unwrap()),
            host(head.grad(&grads).unwrap()),
        )
    };
    let (loss, grad_hidden, grad_head) = whole(0, rows);
    let largest = grad_hidden.iter().fold(0.0f32, |m, g| m.max(g.abs()));
    let mut sum = vec![0.0; vocab * width];
    for row in 0..rows {
        let (one, grad_one, head_one) = whole(row, 1);
        assert!((one[0] - loss[row]).abs() <= 1e-5 * loss[row].abs().max(1.0));
        for (a, b) in grad_one.iter().zip(&grad_hidden[row * width..]) {
            assert!((a - b).abs() <= 1e-3 * largest, "{a} and {b}");
        }
        sum.iter_mut().zip(&head_one).for_each(|(s, g)| *s += g);
    }
    assert!(
        sum.iter()
            .zip(&grad_head)
            .all(|(a, b)| (a - b).abs() <= 1e-6)
    );
}

#[test]
fn relations_agree() {
    for (batch, seq, heads, student, teacher) in [
        (1, 1, 1, 1, 1),
        (2, 3, 1, 5, 9),
        (3, 17, 2, 32, 64),
        (2, 40, 4, 64, 32),
    ] {
        for cosine in [false, true] {
            let shape = Relation {
                batch,
                seq,
                heads,
                cosine,
            };
            let weight = random([shape.rows(), 1]);
            let ins = [(random([batch * seq, student]), [batch * seq, student])];
            let data = TensorData::new(random([batch * seq, teacher]), [batch * seq, teacher]);
            let (fused, plain) = (
                Tensor::<Fused, 2>::from_data(data.clone(), &Default::default()),
                Tensor::<Plain, 2>::from_data(data, &Default::default()),
            );
            same(
                "relation",
                &run::<Flex>(&ins, &weight, |x| {
                    <Fused as Ops>::relation_kl(x[0].clone(), fused.clone(), shape).unsqueeze_dim(1)
                }),
                &run::<NdArray>(&ins, &weight, |x| {
                    <Plain as Ops>::relation_kl(x[0].clone(), plain.clone(), shape).unsqueeze_dim(1)
                }),
            );
        }
    }
}
