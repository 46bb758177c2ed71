//! The search for the step of a group.

use pulp::{Simd, WithSimd};

use super::chunk::GROUP;
use super::encode::ROUND;
use crate::layout::LANES;

/// 16 columns of 16 rows, `[column][row]`.
pub(super) type Group = [[f32; LANES]; GROUP];

/// Codes that are tried for the value furthest from zero, which give the steps to start from. At −33 it
/// is cut off; at the others some of the range is unused; any may round the rest better. Whole numbers,
/// since a group that has these codes from another quantiser then gets them back.
const ENDS: [f32; 7] = [-32.0, -33.0, -31.0, -30.0, -29.0, -28.0, -27.0];

/// Finds the step of each row and group that leaves a small squared error on its 16 columns; 0 where all of
/// them are 0, and where one of them is no number.
///
/// Codes q of values x leave the least error at the step Σxq / Σq², and it is Σx² − (Σxq)² / Σq² there:
/// of all codes tried, those with the largest (Σxq)² / Σq² are best.
pub(super) struct Search<'a> {
    pub(super) groups: &'a [Group],
    pub(super) steps: &'a mut [[f32; LANES]],
}

impl WithSimd for Search<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (group, steps) in self.groups.iter().zip(self.steps) {
            let (steps, _) = S::as_mut_simd_f32s(steps);
            for (i, step) in steps.iter_mut().enumerate() {
                let mut x = [simd.splat_f32s(0.0); GROUP];
                for (x, column) in x.iter_mut().zip(group) {
                    *x = S::as_simd_f32s(column).0[i];
                }
                *step = best_step(simd, &x);
            }
        }
    }
}

/// The steps of as many rows as a vector has lanes. Nothing is fused, so all processors give the
/// same bits.
#[inline(always)]
fn best_step<S: Simd>(simd: S, x: &[S::f32s; GROUP]) -> S::f32s {
    let [zero, one, infinity] = [0.0, 1.0, f32::INFINITY].map(|v| simd.splat_f32s(v));
    let [least, most, round] = [-32.0, 31.0, ROUND].map(|v| simd.splat_f32s(v));
    let mut far = zero;
    for &x in x {
        let further = simd.greater_than_f32s(simd.abs_f32s(x), simd.abs_f32s(far));
        far = simd.select_f32s(further, x, far);
    }
    // Values below the normal ones count as 0, since their inverse is too large.
    let inverse = simd.div_f32s(one, far);
    let normal = simd.less_than_f32s(simd.abs_f32s(inverse), infinity);
    let inverse = simd.select_f32s(normal, inverse, zero);
    let (mut best, mut best_squares) = (zero, one);
    for end in ENDS {
        let factor = simd.mul_f32s(simd.splat_f32s(end), inverse);
        // Two sums each, since an addition waits for the one before it.
        let (mut products, mut squares) = ([zero; 2], [zero; 2]);
        for (i, &x) in x.iter().enumerate() {
            let code = simd.max_f32s(simd.mul_f32s(x, factor), least);
            let code = simd.add_f32s(simd.min_f32s(code, most), round);
            let code = simd.sub_f32s(code, round);
            products[i % 2] = simd.add_f32s(products[i % 2], simd.mul_f32s(x, code));
            squares[i % 2] = simd.add_f32s(squares[i % 2], simd.mul_f32s(code, code));
        }
        let products = simd.add_f32s(products[0], products[1]);
        let squares = simd.add_f32s(squares[0], squares[1]);
        // As shares of the furthest value, whose square may be beyond f32.
        let product = simd.mul_f32s(products, inverse);
        let new = simd.mul_f32s(simd.mul_f32s(product, product), best_squares);
        let old = simd.mul_f32s(simd.mul_f32s(best, best), squares);
        let better = simd.greater_than_f32s(new, old);
        best = simd.select_f32s(better, product, best);
        best_squares = simd.select_f32s(better, squares, best_squares);
    }
    let step = simd.mul_f32s(simd.div_f32s(best, best_squares), far);
    let finite = simd.less_than_f32s(simd.abs_f32s(step), infinity);
    simd.select_f32s(finite, step, zero)
}
