//! The search for the step of a group.

use super::chunk::{BIAS, GROUP};
use crate::layout::LANES;
use crate::ops::round_small;
use crate::vectors::vectorized;

/// What the value furthest from zero is divided by. The range of codes ends at −32; a divisor
/// beyond it cuts that value off, one below leaves some of the range unused, and both may round the
/// others better.
const ENDS: [f32; 16] = [
    -32.0, -33.5, -33.2, -32.9, -32.6, -32.3, -31.7, -31.4, -31.1, -30.8, -30.5, -30.2, -29.9,
    -29.6, -29.3, -29.0,
];

/// The nearest code of a value of `v` steps; 0 for NaN.
#[inline(always)]
fn code(v: f32) -> i32 {
    let v = if v < -32.0 { -32.0 } else { v };
    round_small(if v > 31.0 { 31.0 } else { v })
}

/// The step of each row that leaves the smallest squared error on 16 columns, `[column][row]`; 0
/// where all of them are 0.
pub(super) fn best_steps(columns: &[[f32; LANES]; GROUP]) -> [f32; LANES] {
    vectorized(
        #[inline(always)]
        || {
            let mut far = [0f32; LANES];
            for column in columns {
                for (far, v) in far.iter_mut().zip(column) {
                    *far = if v.abs() > far.abs() { *v } else { *far };
                }
            }
            let (mut best, mut least) = ([0f32; LANES], [f32::INFINITY; LANES]);
            for end in ENDS {
                let mut loss = [0f32; LANES];
                let step = far.map(|far| far / end);
                let inverse = far.map(|far| end / far);
                for column in columns {
                    for lane in 0..LANES {
                        let back = code(column[lane] * inverse[lane]) as f32 * step[lane];
                        let error = column[lane] - back;
                        loss[lane] += error * error;
                    }
                }
                for lane in 0..LANES {
                    let better = loss[lane] < least[lane];
                    best[lane] = if better { step[lane] } else { best[lane] };
                    least[lane] = if better { loss[lane] } else { least[lane] };
                }
            }
            best
        },
    )
}

/// Steps as levels of `unit`, the nearest ones, and codes plus [`BIAS`] for the steps that these give.
pub(super) fn encode(
    columns: &[[f32; LANES]; GROUP],
    steps: &[f32; LANES],
    unit: &[f32; LANES],
) -> ([i8; LANES], [[u8; LANES]; GROUP]) {
    vectorized(
        #[inline(always)]
        || {
            let (mut levels, mut inverse) = ([0i8; LANES], [0f32; LANES]);
            for lane in 0..LANES {
                let level = round_small(steps[lane] / unit[lane]);
                levels[lane] = level as i8;
                inverse[lane] = 1.0 / (level as f32 * unit[lane]);
            }
            let mut codes = [[0u8; LANES]; GROUP];
            for (codes, column) in codes.iter_mut().zip(columns) {
                for lane in 0..LANES {
                    codes[lane] = (code(column[lane] * inverse[lane]) + BIAS) as u8;
                }
            }
            (levels, codes)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_without_a_step_get_none() {
        for v in [0.0, -0.0, f32::NAN, f32::INFINITY, 1e-45] {
            let columns = [[v; LANES]; GROUP];
            let steps = best_steps(&columns);
            let unit = steps.map(|s| s.abs() / 127.0);
            let (levels, codes) = encode(&columns, &steps, &unit);
            assert!(codes.iter().flatten().all(|c| *c < 64), "{v}");
            assert!(levels.iter().all(|l| *l >= -127), "{v}");
        }
    }

    #[test]
    fn a_row_that_codes_can_hold_is_kept() {
        for sign in [-1.0, 1.0] {
            let column = |c: usize| [sign * 0.25 * [-32.0, 31.0, 5.0, 0.0][c % 4]; LANES];
            let columns = std::array::from_fn(column);
            assert_eq!(best_steps(&columns), [sign * 0.25; LANES]);
            let (levels, codes) = encode(&columns, &[sign * 0.25; LANES], &[0.25 / 127.0; LANES]);
            assert_eq!(levels, [127 * sign as i8; LANES]);
            for (codes, want) in codes.iter().zip([0, 63, 37, 32].iter().cycle()) {
                assert_eq!(codes, &[*want; LANES]);
            }
        }
    }
}
