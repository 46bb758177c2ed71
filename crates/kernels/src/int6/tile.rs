//! Quantises 16 rows.

use pulp::Arch;

use super::chunk::{Chunk, GROUP};
use super::encode::Encode;
use super::steps::{Group, Search};
use crate::layout::{DEPTH, LANES};
use crate::room::Buffer;
use crate::vectors::vectorized;

/// Largest absolute level of a group.
const MAX_LEVEL: f32 = 127.0;

/// 16 rows and what is found out about them.
#[derive(Default)]
pub(super) struct Tile {
    /// The rows, each padded with zeros to whole chunks.
    rows: Buffer<f32>,
    width: usize,
    groups: Buffer<Group>,
    steps: Buffer<[f32; LANES]>,
}

impl Tile {
    /// The first `n` rows of so many columns, all of which are to be written; other rows are zeros.
    pub(super) fn rows(&mut self, n: usize, cols: usize) -> impl Iterator<Item = &mut [f32]> {
        let width = cols.next_multiple_of(DEPTH);
        self.width = width;
        self.rows.resize(width * LANES);
        self.groups.resize(width / GROUP);
        self.steps.resize(width / GROUP);
        self.rows[n * width..].fill(0.0);
        self.rows.chunks_mut(width.max(1)).take(n).map(move |row| {
            row[cols..].fill(0.0);
            &mut row[..cols]
        })
    }

    /// Writes codes and levels to `out` and returns what a code of 1 stands for at level 1 in each row.
    pub(super) fn quantize(&mut self, out: &mut [Chunk]) -> [f32; LANES] {
        let Self {
            rows,
            width,
            groups,
            steps,
        } = self;
        transpose(rows, *width, groups);
        let arch = Arch::new();
        arch.dispatch(Search { groups, steps });
        let mut unit = [0f32; LANES];
        vectorized(
            #[inline(always)]
            || {
                for step in steps.iter() {
                    for (unit, step) in unit.iter_mut().zip(step) {
                        *unit = unit.max(step.abs() / MAX_LEVEL);
                    }
                }
            },
        );
        arch.dispatch(Encode {
            groups,
            steps,
            unit: &unit,
            out,
        });
        unit
    }
}

/// Rows of so many columns as columns.
fn transpose(rows: &[f32], width: usize, groups: &mut [Group]) {
    let rows: [&[[f32; GROUP]]; LANES] =
        std::array::from_fn(|lane| rows[lane * width..][..width].as_chunks().0);
    vectorized(
        #[inline(always)]
        || {
            for (g, columns) in groups.iter_mut().enumerate() {
                for (lane, row) in rows.iter().enumerate() {
                    let row = &row[g];
                    for c in 0..GROUP {
                        columns[c][lane] = row[c];
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Int6Matrix;
    use super::*;
    use crate::pool::Pool;
    use pulp::{Scalar, Simd};

    /// What is read of one row of the values.
    fn read(values: &[f32]) -> Vec<f32> {
        let pool = Pool::new(1).unwrap();
        let row = |_, out: &mut [f32]| out.copy_from_slice(values);
        let matrix = Int6Matrix::quantize(&pool, 1, values.len(), row).unwrap();
        let mut out = vec![f32::NAN; values.len()];
        matrix.row(0, &mut out);
        out
    }

    #[test]
    fn values_without_a_step_become_zeros() {
        for v in [
            0.0,
            -0.0,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            1e-45,
            1e-39,
        ] {
            assert_eq!(read(&[v; GROUP]), [0.0; GROUP], "{v}");
            // Other groups of the row are as they would be without it.
            let mut values = [0.25; 2 * GROUP];
            values[3] = v;
            assert_eq!(read(&values)[GROUP..], [0.25; GROUP], "{v}");
        }
    }

    #[test]
    fn the_largest_and_the_smallest_values_are_kept() {
        for scale in [1e-34, 1.0, 1e34] {
            let values: [f32; GROUP] = std::array::from_fn(|i| (i as f32 - 9.0) * scale);
            for (v, back) in values.iter().zip(read(&values)) {
                assert!((v - back).abs() < 0.2 * scale, "{v} {back}");
            }
        }
    }

    /// Groups of another quantiser of six bits, whose step is the row's only one.
    #[test]
    fn a_row_that_codes_can_hold_is_kept() {
        for step in [0.25, -0.25] {
            for end in [-32, -31, 31, -30, 30, -29, 29, -28, 28, -27, 27] {
                let codes = std::array::from_fn(|i| [end, 26, -11, 0, 5, -26, 1][i % 7]);
                let values: [f32; GROUP] = codes.map(|code| code as f32 * step);
                assert_eq!(read(&values), values, "{step} {end}");
            }
        }
    }

    #[test]
    fn plain_code_gives_the_same_bits() {
        let mut seed = 1u32;
        let mut value = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match seed >> 24 {
                0 => [f32::NAN, f32::INFINITY, 1e-40, 1e38][seed as usize >> 8 & 3],
                _ => f32::from_bits(0x3f80_0000 | seed >> 9) - 1.5,
            }
        };
        let mut group = || std::array::from_fn(|_| std::array::from_fn(|_| value()));
        let groups: Vec<Group> = (0..64).map(|_| group()).collect();
        let mut steps = [vec![[0f32; LANES]; 64], vec![[1.0; LANES]; 64]];
        let [ours, plain] = &mut steps;
        Arch::new().dispatch(Search {
            groups: &groups,
            steps: ours,
        });
        Scalar::new().vectorize(Search {
            groups: &groups,
            steps: plain,
        });
        let bits = |steps: &[[f32; LANES]]| -> Vec<u32> {
            steps.as_flattened().iter().map(|s| s.to_bits()).collect()
        };
        assert_eq!(bits(ours), bits(plain));
        assert!(ours.as_flattened().iter().all(|step| step.is_finite()));
        let zeros = Chunk::new(
            &Default::default(),
            &Default::default(),
            &Default::default(),
        );
        let mut unit = [0.5 / 31.0 / MAX_LEVEL; LANES];
        unit[3] = 0.0;
        let mut out = [vec![zeros; 16], vec![zeros; 16]];
        let [ours_out, plain_out] = &mut out;
        let of = |out| Encode {
            groups: &groups,
            steps: ours,
            unit: &unit,
            out,
        };
        Arch::new().dispatch(of(ours_out));
        Scalar::new().vectorize(of(plain_out));
        assert_eq!(ours_out, plain_out);
    }
}
