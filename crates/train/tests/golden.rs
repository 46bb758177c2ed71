//! Losses and the optimiser against vectors made with PyTorch.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;

use burn::backend::{Autodiff, Flex, NdArray};
use burn::tensor::{Tensor, TensorData};
use tritburn_nn::attention::QkvStates;
use tritburn_nn::ops::{AdamWParam, AdamWStep, Kernels, Ops, TeacherHead};
use tritburn_quant::tensor_file::TensorFile;
use tritburn_train::loss::{RelationShape, distilled, relation_loss};
use tritburn_train::optim::clip_factor;
use tritburn_train::recipe::RelationForm;

type A<B> = Autodiff<B>;

fn open(name: &str) -> Option<TensorFile> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden");
    let dir = std::env::var("TRITBURN_GOLDEN_DIR").unwrap_or_else(|_| default.into());
    let dir = PathBuf::from(dir);
    if !dir.is_dir() {
        eprintln!("skipped: no golden vectors in {}", dir.display());
        return None;
    }
    Some(TensorFile::open(&dir.join(name)).unwrap())
}

fn get(file: &TensorFile, name: &str) -> (Vec<usize>, Vec<f32>) {
    let (_, shape) = file
        .info(name)
        .unwrap_or_else(|| panic!("{name} is missing"));
    let shape = shape.to_vec();
    let data = file.tensor_f32(name, &shape).unwrap();
    (shape, data)
}

fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let diff = found
        .iter()
        .zip(expected)
        .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(
        diff <= tolerance * largest,
        "{what}: differs by {diff}, largest value {largest}"
    );
}

fn host<B: burn::tensor::backend::Backend, const D: usize>(x: Tensor<B, D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn all_losses<B: Kernels + Ops>(tolerance: f32) {
    logits_kd_golden::<B>(tolerance);
    relations_golden::<B>(tolerance);
    adamw_golden::<B>();
}

#[test]
fn golden_losses_on_flex() {
    all_losses::<Flex>(1e-5);
}

#[test]
fn golden_losses_on_ndarray() {
    all_losses::<NdArray>(1e-5);
}

/// GPU products may take operands of f32 in fewer bits.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
const GPU: f32 = 1e-3;

#[cfg(feature = "cuda")]
#[test]
fn golden_losses_on_cuda() {
    all_losses::<burn::backend::Cuda>(GPU);
}

#[cfg(feature = "wgpu")]
#[test]
fn golden_losses_on_wgpu() {
    all_losses::<burn::backend::Wgpu>(GPU);
}

fn logits_kd_golden<B: Kernels + Ops>(tolerance: f32) {
    let Some(file) = open("quant_and_losses.safetensors") else {
        return;
    };
    let (shape, student) = get(&file, "kd.student_logits");
    let (_, teacher) = get(&file, "kd.teacher_logits");
    let (_, mask) = get(&file, "kd.mask");
    let vocab = shape[2];
    let valid: Vec<usize> = (0..mask.len()).filter(|&i| mask[i] > 0.0).collect();
    let pick = |all: &[f32]| -> Vec<f32> {
        valid
            .iter()
            .flat_map(|&r| all[r * vocab..(r + 1) * vocab].to_vec())
            .collect()
    };
    let device = Default::default();
    let rows = [valid.len(), vocab];
    for tau in [1.0, 5.0] {
        let s = Tensor::<A<B>, 2>::from_data(TensorData::new(pick(&student), rows), &device)
            .require_grad();
        let t = Tensor::<A<B>, 2>::from_data(TensorData::new(pick(&teacher), rows), &device);
        // With the unit matrix as head, hidden states are logits.
        let head = Tensor::<A<B>, 2>::eye(vocab, &device);
        let answers = (
            Tensor::zeros([rows[0]], &device),
            Tensor::zeros([rows[0]], &device),
        );
        let teacher = TeacherHead {
            hidden: t,
            head: head.clone().into(),
            temperature: tau,
        };
        let [_, loss] = distilled((s.clone(), head.into()), answers, teacher, false);
        let expected = get(&file, &format!("kd.tau{tau}.loss")).1;
        close("loss", &host(loss.clone().inner()), &expected, tolerance);
        let grads = loss.backward();
        let expected = get(&file, &format!("kd.tau{tau}.grad_student")).1;
        close(
            "grad",
            &host(s.grad(&grads).unwrap()),
            &pick(&expected),
            tolerance,
        );
    }
}

/// `[batch, heads, seq, d]` as `[batch · seq, heads · d]`.
fn joined<B: Kernels>(shape: &[usize], data: Vec<f32>) -> Tensor<A<B>, 2> {
    let (b, h, t, d) = (shape[0], shape[1], shape[2], shape[3]);
    Tensor::<A<B>, 1>::from_data(TensorData::new(data, [b * h * t * d]), &Default::default())
        .reshape([b, h, t, d])
        .swap_dims(1, 2)
        .reshape([b * t, h * d])
}

fn relation<B: Kernels + Ops>(
    file: &TensorFile,
    prefix: &str,
    heads: usize,
    mask: &[f32],
    form: RelationForm,
    tolerance: f32,
) {
    let states = |who: &str| {
        let part = |kind: &str| {
            let (shape, data) = get(file, &format!("{prefix}.{kind}.{who}"));
            joined::<B>(&shape, data).inner()
        };
        [part("q"), part("k"), part("v")].map(Tensor::<A<B>, 2>::from_inner)
    };
    let [q, k, v] = states("student").map(Tensor::require_grad);
    let student = QkvStates {
        q: q.clone(),
        k: k.clone(),
        v: v.clone(),
    };
    let [tq, tk, tv] = states("teacher");
    let teacher = QkvStates {
        q: tq,
        k: tk,
        v: tv,
    };
    let (shape, _) = get(file, &format!("{prefix}.q.student"));
    let shape = RelationShape {
        batch: shape[0],
        seq: shape[2],
        split_heads: heads,
    };
    let mask = Tensor::from_data(
        TensorData::new(mask.to_vec(), [mask.len()]),
        &Default::default(),
    );
    let loss = relation_loss(&student, &teacher, &mask, shape, form);
    close(
        prefix,
        &host(loss.clone().inner()),
        &get(file, &format!("{prefix}.loss")).1,
        tolerance,
    );
    let grads = loss.backward();
    for (kind, x) in [("q", q), ("k", k), ("v", v)] {
        let (shape, expected) = get(file, &format!("{prefix}.{kind}.grad"));
        let expected = host(joined::<B>(&shape, expected).inner());
        let what = format!("{prefix}.{kind}.grad");
        close(
            &what,
            &host(x.grad(&grads).unwrap()),
            &expected,
            2.0 * tolerance,
        );
    }
}

fn relations_golden<B: Kernels + Ops>(tolerance: f32) {
    let (Some(eq12), Some(more)) = (
        open("quant_and_losses.safetensors"),
        open("losses_and_more.safetensors"),
    ) else {
        return;
    };
    let (_, mask) = get(&eq12, "kd.mask");
    for heads in [4, 1] {
        let prefix = format!("rel.h{heads}");
        relation::<B>(&eq12, &prefix, heads, &mask, RelationForm::Eq12, tolerance);
    }
    let ones = vec![1.0; 2 * 9];
    for heads in [4, 8] {
        for (name, form) in [
            ("alg1", RelationForm::Alg1),
            ("official", RelationForm::Official),
        ] {
            let prefix = format!("{name}.h{heads}");
            relation::<B>(&more, &prefix, heads, &ones, form, tolerance);
        }
    }
}

fn adamw_golden<B: Kernels>() {
    let Some(file) = open("losses_and_more.safetensors") else {
        return;
    };
    let flat = |name: &str| {
        let data = get(&file, name).1;
        let n = data.len();
        Tensor::<B, 1>::from_data(TensorData::new(data, [n]), &Default::default())
    };
    let (mut w, mut n) = (flat("adamw.w0"), flat("adamw.n0"));
    let (mut wm, mut wv) = (w.zeros_like(), w.zeros_like());
    let (mut nm, mut nv) = (n.zeros_like(), n.zeros_like());
    for i in 0..5i32 {
        let (gw, gn) = (flat(&format!("adamw.gw{i}")), flat(&format!("adamw.gn{i}")));
        let square = (gw.clone() * gw.clone()).sum() + (gn.clone() * gn.clone()).sum();
        let norm = host(square.sqrt())[0];
        close(
            "norm",
            &[norm],
            &get(&file, &format!("adamw.norm{i}")).1,
            1e-5,
        );
        let step = AdamWStep {
            lr: 1e-2,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            grad_scale: clip_factor(norm, 1.0),
            bias1: 1.0 - 0.9f32.powi(i + 1),
            bias2: 1.0 - 0.95f32.powi(i + 1),
        };
        let param = |value, grad, m, v, weight_decay| AdamWParam {
            value,
            grad,
            m,
            v,
            weight_decay,
        };
        let both = vec![param(w, gw, wm, wv, 0.1), param(n, gn, nm, nv, 0.0)];
        let mut new = B::adamw(both, &step).into_iter();
        [w, wm, wv] = new.next().unwrap();
        [n, nm, nv] = new.next().unwrap();
        close(
            "w",
            &host(w.clone()),
            &get(&file, &format!("adamw.w{}", i + 1)).1,
            1e-5,
        );
        close(
            "n",
            &host(n.clone()),
            &get(&file, &format!("adamw.n{}", i + 1)).1,
            1e-5,
        );
    }
}
