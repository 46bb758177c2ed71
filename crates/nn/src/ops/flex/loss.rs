//! Losses over the vocabulary and over relations, one task a block of rows.

use rayon::prelude::*;

use super::super::Relation;
use super::super::reference::{MIN_NORM, MIN_PROBABILITY};
use super::rows::{dot, exp, max, sum};
use super::tile::{Padded, times, transpose};
use super::wide;

/// Rows in one task: a row is a whole vocabulary.
const ROWS: usize = 8;

/// Turns `x` into `softmax(x / τ)` in place and returns `log Σ e^(x / τ)`.
#[inline(always)]
fn softmax(x: &mut [f32], inv_tau: f32) -> f32 {
    let top = max(x) * inv_tau;
    for x in x.iter_mut() {
        *x = exp(*x * inv_tau - top);
    }
    let total = sum(x);
    let inv = 1.0 / total;
    for x in x.iter_mut() {
        *x *= inv;
    }
    total.ln() + top
}

/// `log Σ e^(x / τ)`
#[inline(always)]
fn log_sum_exp(x: &[f32], inv_tau: f32, scratch: &mut [f32]) -> f32 {
    let top = max(x) * inv_tau;
    for (s, x) in scratch.iter_mut().zip(x) {
        *s = exp(x * inv_tau - top);
    }
    sum(scratch).ln() + top
}

pub(super) fn nll(logits: &[f32], vocab: usize, targets: &[usize]) -> Vec<f32> {
    let mut out = vec![0.0; targets.len()];
    out.par_chunks_mut(ROWS)
        .zip(logits.par_chunks(ROWS * vocab))
        .zip(targets.par_chunks(ROWS))
        .for_each_init(
            || vec![0.0; vocab],
            |scratch, ((out, logits), targets)| {
                wide(
                    #[inline(always)]
                    || {
                        let rows = logits.chunks_exact(vocab).zip(targets);
                        for (out, (logits, &target)) in out.iter_mut().zip(rows) {
                            *out = log_sum_exp(logits, 1.0, scratch) - logits[target];
                        }
                    },
                );
            },
        );
    out
}

pub(super) fn nll_grad(logits: &[f32], vocab: usize, targets: &[usize], grad: &[f32]) -> Vec<f32> {
    let mut out = logits.to_vec();
    out.par_chunks_mut(ROWS * vocab)
        .zip(targets.par_chunks(ROWS))
        .zip(grad.par_chunks(ROWS))
        .for_each(|((out, targets), grad)| {
            wide(
                #[inline(always)]
                || {
                    let rows = targets.iter().zip(grad);
                    for (out, (&target, &grad)) in out.chunks_exact_mut(vocab).zip(rows) {
                        softmax(out, 1.0);
                        out[target] -= 1.0;
                        for x in out.iter_mut() {
                            *x *= grad;
                        }
                    }
                },
            );
        });
    out
}

pub(super) fn kl(student: &[f32], teacher: &[f32], vocab: usize, inv_tau: f32) -> Vec<f32> {
    let mut out = vec![0.0; student.len() / vocab];
    out.par_chunks_mut(ROWS)
        .zip(student.par_chunks(ROWS * vocab))
        .zip(teacher.par_chunks(ROWS * vocab))
        .for_each_init(
            || (vec![0.0; vocab], vec![0.0; vocab]),
            |(p, scratch), ((out, student), teacher)| {
                wide(
                    #[inline(always)]
                    || {
                        let rows = student.chunks_exact(vocab).zip(teacher.chunks_exact(vocab));
                        for (out, (student, teacher)) in out.iter_mut().zip(rows) {
                            let log_s = log_sum_exp(student, inv_tau, scratch);
                            p.copy_from_slice(teacher);
                            let log_t = softmax(p, inv_tau);
                            let logits = student.iter().zip(teacher);
                            for (d, (s, t)) in scratch.iter_mut().zip(logits) {
                                *d = (t - s) * inv_tau;
                            }
                            // Σ p (log t − log s), the normalisers taken out of the sum.
                            *out = dot(p, scratch) + log_s - log_t;
                        }
                    },
                );
            },
        );
    out
}

pub(super) fn kl_grad(
    student: &[f32],
    teacher: &[f32],
    vocab: usize,
    inv_tau: f32,
    grad: &[f32],
) -> Vec<f32> {
    let mut out = student.to_vec();
    out.par_chunks_mut(ROWS * vocab)
        .zip(teacher.par_chunks(ROWS * vocab))
        .zip(grad.par_chunks(ROWS))
        .for_each_init(
            || vec![0.0; vocab],
            |p, ((out, teacher), grad)| {
                wide(
                    #[inline(always)]
                    || {
                        let rows = teacher.chunks_exact(vocab).zip(grad);
                        for (out, (teacher, grad)) in out.chunks_exact_mut(vocab).zip(rows) {
                            softmax(out, inv_tau);
                            p.copy_from_slice(teacher);
                            softmax(p, inv_tau);
                            let factor = grad * inv_tau;
                            for (x, p) in out.iter_mut().zip(p.iter()) {
                                *x = (*x - p) * factor;
                            }
                        }
                    },
                );
            },
        );
    out
}

/// One head's states and the probabilities of their relations.
struct Side {
    width: usize,
    scale: f32,
    cosine: bool,
    a: Padded,
    norms: Vec<f32>,
    transposed: Padded,
    p: Padded,
}

impl Side {
    #[allow(clippy::cast_precision_loss)]
    fn new(width: usize, r: Relation) -> Self {
        Self {
            width,
            scale: if r.cosine {
                1.0
            } else {
                1.0 / (width as f32).sqrt()
            },
            cosine: r.cosine,
            a: Padded::new(r.seq, width),
            norms: vec![1.0; r.seq],
            transposed: Padded::new(width, r.seq),
            p: Padded::new(r.seq, r.seq),
        }
    }

    /// Loads a head of `[seq, heads · width]` and fills `p`.
    #[inline(always)]
    fn load(&mut self, states: &[f32], head: usize, r: Relation) {
        let d = self.width;
        self.a.gather(states, d * r.heads, head, d);
        if self.cosine {
            for (i, norm) in self.norms.iter_mut().enumerate() {
                let row = &mut self.a.row_mut(i)[..d];
                *norm = dot(row, row).sqrt().max(MIN_NORM as f32);
                let inv = 1.0 / *norm;
                for x in row {
                    *x *= inv;
                }
            }
        }
        transpose(&self.a, r.seq, d, &mut self.transposed);
        times(&self.a, &self.transposed, r.seq, d, &mut self.p);
        for i in 0..r.seq {
            softmax(&mut self.p.row_mut(i)[..r.seq], self.scale);
        }
    }

    /// Smallest probability that a logarithm sees.
    #[allow(clippy::cast_possible_truncation)]
    fn floor(&self) -> f32 {
        if self.cosine {
            MIN_PROBABILITY as f32
        } else {
            f32::MIN_POSITIVE
        }
    }
}

pub(super) fn relation_kl(student: &[f32], teacher: &[f32], r: Relation) -> Vec<f32> {
    let widths = [student, teacher].map(|x| x.len() / (r.batch * r.seq * r.heads));
    let [student_row, teacher_row] = widths.map(|w| w * r.heads * r.seq);
    let mut out = vec![0.0; r.batch * r.heads * r.seq];
    out.par_chunks_mut(r.heads * r.seq)
        .zip(student.par_chunks(student_row))
        .zip(teacher.par_chunks(teacher_row))
        .for_each_init(
            || widths.map(|w| Side::new(w, r)),
            |[s, t], ((out, student), teacher)| {
                wide(
                    #[inline(always)]
                    || {
                        for (head, out) in out.chunks_exact_mut(r.seq).enumerate() {
                            s.load(student, head, r);
                            t.load(teacher, head, r);
                            let floor = s.floor();
                            for (i, out) in out.iter_mut().enumerate() {
                                let rows = t.p.row(i)[..r.seq].iter().zip(s.p.row(i));
                                *out = rows
                                    .map(|(t, s)| {
                                        let (t, s) = (t.max(floor), s.max(floor));
                                        t * (t / s).ln()
                                    })
                                    .sum();
                            }
                        }
                    },
                );
            },
        );
    out
}

pub(super) fn relation_kl_grad(
    student: &[f32],
    teacher: &[f32],
    r: Relation,
    grad: &[f32],
) -> Vec<f32> {
    let widths = [student, teacher].map(|x| x.len() / (r.batch * r.seq * r.heads));
    let [student_row, teacher_row] = widths.map(|w| w * r.heads * r.seq);
    let (seq, d) = (r.seq, widths[0]);
    let mut out = vec![0.0; student.len()];
    out.par_chunks_mut(student_row)
        .zip(student.par_chunks(student_row))
        .zip(teacher.par_chunks(teacher_row))
        .zip(grad.par_chunks(r.heads * seq))
        .for_each_init(
            || {
                let square = || Padded::new(seq, seq);
                (
                    widths.map(|w| Side::new(w, r)),
                    square(),
                    square(),
                    Padded::new(seq, d),
                )
            },
            |([s, t], ds, ds_t, da), (((out, student), teacher), grad)| {
                wide(
                    #[inline(always)]
                    || {
                        for (head, grad) in grad.chunks_exact(seq).enumerate() {
                            s.load(student, head, r);
                            t.load(teacher, head, r);
                            let floor = s.floor();
                            for (i, &grad) in grad.iter().enumerate() {
                                let (p, u) = (&s.p.row(i)[..seq], &mut t.p.row_mut(i)[..seq]);
                                // Where the logarithm's argument is clamped, no gradient flows.
                                for (u, p) in u.iter_mut().zip(p) {
                                    *u = if *p > floor { u.max(floor) } else { 0.0 };
                                }
                                let (total, factor) = (sum(u), grad * s.scale);
                                let row = &mut ds.row_mut(i)[..seq];
                                for (d, (p, u)) in row.iter_mut().zip(p.iter().zip(u)) {
                                    *d = factor * (p * total - *u);
                                }
                            }
                            // Scores are a · aᵀ: both factors receive a gradient.
                            transpose(ds, seq, seq, ds_t);
                            for (d, t) in ds.data.iter_mut().zip(&ds_t.data) {
                                *d += t;
                            }
                            times(ds, &s.a, seq, seq, da);
                            if s.cosine {
                                for i in 0..seq {
                                    let (a, da) = (&s.a.row(i)[..d], &mut da.row_mut(i)[..d]);
                                    let (along, inv) = (dot(a, da), 1.0 / s.norms[i]);
                                    for (da, a) in da.iter_mut().zip(a) {
                                        *da = (*da - a * along) * inv;
                                    }
                                }
                            }
                            da.add_to_head(d * r.heads, head, d, out);
                        }
                    },
                );
            },
        );
    out
}
