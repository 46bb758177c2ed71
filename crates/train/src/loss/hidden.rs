//! Distillation of hidden states: what leaves a block of the student follows what leaves the teacher's (TinyBERT
//! Eq. 8, TernaryBERT Eq. 9).

use burn::tensor::{DType, Tensor};
use tritburn_nn::ops::Ops;

/// Added to the mean square of a token before its root is taken.
const EPS: f64 = 1e-6;

/// Mean square of the difference between two states `[tokens, width]`, each token brought to a mean square of one
/// first, over the tokens where `mask` `[tokens]` is 1; there are `count` of them.
///
/// The papers compare states as they are. In decoders a few channels of the first token are some thousand
/// times larger than all others, and would be all that counts.
#[must_use]
pub fn hidden_loss<B: Ops>(
    student: Tensor<B, 2>,
    teacher: Tensor<B, 2>,
    mask: &Tensor<B, 1>,
    count: f64,
) -> Tensor<B, 1> {
    let width = student.dims()[1];
    let ones = Tensor::ones([width], &student.device());
    let [student, teacher] = [student, teacher].map(|x| B::rms_norm(x, ones.clone(), EPS));
    let difference = (student - teacher).cast(DType::F32);
    let squares = difference.clone() * difference;
    let tokens = squares.mean_dim(1).squeeze_dim::<1>(1);
    (tokens * mask.clone()).sum() / count.max(1.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::Tensor;
    use tritburn_nn::weights::to_host;

    use super::hidden_loss;

    type A = Autodiff<Flex>;

    fn states(rows: [[f32; 4]; 3]) -> Tensor<A, 2> {
        Tensor::from_data(rows, &Default::default())
    }

    fn loss(student: Tensor<A, 2>, teacher: Tensor<A, 2>, mask: [f32; 3]) -> Tensor<A, 1> {
        let count = f64::from(mask.iter().sum::<f32>());
        let mask = Tensor::from_data(mask, &Default::default());
        hidden_loss(student, teacher, &mask, count)
    }

    const TEACHER: [[f32; 4]; 3] = [
        [1.0, -1.0, 1.0, -1.0],
        [2.0, 0.0, 0.0, 0.0],
        [300.0, 1.0, -2.0, 0.5],
    ];

    #[test]
    fn states_that_point_the_same_way_are_as_near_as_the_same_states() {
        let longer = TEACHER.map(|row| row.map(|x| x * 3.0));
        let value = loss(states(longer), states(TEACHER), [1.0; 3]);
        assert!(to_host(value.inner())[0] < 1e-6);
    }

    #[test]
    fn the_mean_is_over_tokens_and_channels() {
        let mut student = TEACHER;
        student[0] = [1.0, 1.0, 1.0, 1.0];
        student[1] = [0.0, 2.0, 0.0, 0.0];
        // Two of four channels are 2 apart, so 8 / 4; then two are as far as a mean square of one allows, 2, so again 8 / 4.
        let all = loss(states(student), states(TEACHER), [1.0; 3]);
        assert!((to_host(all.inner())[0] - 4.0 / 3.0).abs() < 1e-5);
        let one = loss(states(student), states(TEACHER), [1.0, 0.0, 1.0]);
        assert!((to_host(one.inner())[0] - 1.0).abs() < 1e-5);
    }

    #[test]
    fn padding_and_the_teacher_get_no_gradient() {
        let mut student = TEACHER;
        student[0][1] = 0.3;
        student[2][1] = 30.0;
        let [s, t] = [student, TEACHER].map(|x| states(x).require_grad());
        let grads = loss(s.clone(), t.clone().detach(), [1.0, 1.0, 0.0]).backward();
        assert!(t.grad(&grads).is_none());
        let grad = to_host(s.grad(&grads).unwrap());
        assert!(grad[..4].iter().any(|g| g.abs() > 1e-3), "{grad:?}");
        assert!(grad[4..].iter().all(|g| *g == 0.0), "{grad:?}");
    }
}
