//! Codes of values whose steps are known.

use pulp::{Simd, WithSimd};

use super::chunk::{BIAS, Chunk, GROUPS, QUADS};
use super::steps::Group;
use crate::layout::{LANES, QUAD};

/// Added and taken away, it rounds numbers below 2²² to even; in between the integer is in the low bits.
pub(super) const ROUND: f32 = 12_582_912.0;

/// Writes steps as levels of `unit`, the nearest ones, and codes for the steps that these give.
pub(super) struct Encode<'a> {
    pub(super) groups: &'a [Group],
    pub(super) steps: &'a [[f32; LANES]],
    pub(super) unit: &'a [f32; LANES],
    pub(super) out: &'a mut [Chunk],
}

impl WithSimd for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let groups = self.groups.as_chunks::<GROUPS>().0;
        let steps = self.steps.as_chunks::<GROUPS>().0;
        for (chunk, (groups, steps)) in self.out.iter_mut().zip(groups.iter().zip(steps)) {
            let mut lanes = Lanes::default();
            for v in 0..LANES / S::F32_LANES {
                encode_some(simd, groups, steps, self.unit, v, &mut lanes);
            }
            *chunk = Chunk::new(&lanes.high, &lanes.low, &lanes.levels);
        }
    }
}

/// What [`Chunk::new`] takes.
#[derive(Default)]
struct Lanes {
    high: [[u32; LANES]; QUADS],
    low: [[[u32; LANES]; QUADS]; GROUPS / 2],
    levels: [[u32; LANES]; GROUPS],
}

/// Codes and levels of the rows in vector `v`.
#[inline(always)]
fn encode_some<S: Simd>(
    simd: S,
    groups: &[Group; GROUPS],
    steps: &[[f32; LANES]; GROUPS],
    unit: &[f32; LANES],
    v: usize,
    out: &mut Lanes,
) {
    let splat = |v: f32| simd.splat_f32s(v);
    let [zero, one, infinity, too_large] = [0.0, 1.0, f32::INFINITY, 128.0].map(splat);
    let [least, most, round, biased] = [-32.0, 31.0, ROUND, ROUND + BIAS as f32].map(splat);
    let [code_bits, high_bits, low_bits] =
        [63, 0x0303_0303, 0x0f0f_0f0f].map(|bits| simd.splat_u32s(bits));
    let shift = |bits: usize| simd.splat_u32s(bits as u32);
    let unit = S::as_simd_f32s(unit).0[v];
    let mut high = [simd.splat_u32s(0); QUADS];
    let mut low = [high; GROUPS / 2];
    for g in 0..GROUPS {
        // No number where the unit is 0.
        let level = simd.div_f32s(S::as_simd_f32s(&steps[g]).0[v], unit);
        let sound = simd.less_than_f32s(simd.abs_f32s(level), too_large);
        let level = simd.add_f32s(simd.select_f32s(sound, level, zero), round);
        S::as_mut_simd_u32s(&mut out.levels[g]).0[v] = simd.transmute_u32s_f32s(level);
        let step = simd.mul_f32s(simd.sub_f32s(level, round), unit);
        let inverse = simd.div_f32s(one, step);
        let normal = simd.less_than_f32s(simd.abs_f32s(inverse), infinity);
        let inverse = simd.select_f32s(normal, inverse, zero);
        for i in 0..QUADS {
            let mut quad = simd.splat_u32s(0);
            for c in 0..QUAD {
                let x = S::as_simd_f32s(&groups[g][i * QUAD + c]).0[v];
                let code = simd.mul_f32s(x, inverse);
                // Compared and not `max`, of which processors make different things for NaN.
                let code = simd.select_f32s(simd.greater_than_f32s(code, least), code, least);
                let code = simd.add_f32s(simd.min_f32s(code, most), biased);
                let code = simd.and_u32s(simd.transmute_u32s_f32s(code), code_bits);
                quad = simd.or_u32s(quad, simd.wrapping_dyn_shl_u32s(code, shift(8 * c)));
            }
            let bits = simd.and_u32s(simd.wrapping_dyn_shr_u32s(quad, shift(4)), high_bits);
            let bits = simd.wrapping_dyn_shl_u32s(bits, shift(2 * g));
            high[i] = simd.or_u32s(high[i], bits);
            let bits = simd.and_u32s(quad, low_bits);
            let bits = simd.wrapping_dyn_shl_u32s(bits, shift(4 * (g % 2)));
            low[g / 2][i] = simd.or_u32s(low[g / 2][i], bits);
        }
    }
    for (i, high) in high.into_iter().enumerate() {
        S::as_mut_simd_u32s(&mut out.high[i]).0[v] = high;
        for (p, low) in low.iter().enumerate() {
            S::as_mut_simd_u32s(&mut out.low[p][i]).0[v] = low[i];
        }
    }
}
