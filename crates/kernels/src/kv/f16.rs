//! Half precision.

#[cfg(target_arch = "aarch64")]
use crate::aarch64::halves;
#[cfg(target_arch = "x86_64")]
use crate::x86_64::halves;

/// Rounds half to even; NaN becomes infinite.
#[inline(always)]
pub(super) fn to_f16(v: f32) -> u16 {
    let sign = (v.to_bits() >> 16) as u16 & 0x8000;
    let v = v.abs().min(65_504.0);
    // Scaled so that f32 subnormals stand for those of f16, which rounds them rightly; others are
    // rounded at bit 13.
    let bits = if v < 6.103_515_6e-5 {
        (v + 0.5).to_bits() - 0.5f32.to_bits()
    } else {
        let b = v.to_bits();
        (b + 0xFFF + ((b >> 13) & 1) - (112 << 23)) >> 13
    };
    sign | bits.min(0x7BFF) as u16
}

/// Exact.
#[inline(always)]
fn from_f16(v: u16) -> f32 {
    let magnitude = u32::from(v & 0x7FFF) << 13;
    // Exponents differ by 112, also for subnormals.
    let value = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(value.to_bits() | u32::from(v & 0x8000) << 16)
}

/// The first `n` of `from` as f32, at the beginning of `buffer`; the others come next.
#[inline(always)]
pub(super) fn widen<'a>(from: &[u16], n: usize, buffer: &'a mut [f32]) -> &'a [f32] {
    let out = &mut buffer[..n];
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if halves::widen(from, out) {
        return out;
    }
    for (out, v) in out.iter_mut().zip(from) {
        *out = from_f16(*v);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_survives_and_f32_rounds_to_the_nearest() {
        for bits in 0..0x7C00u16 {
            for bits in [bits, bits | 0x8000] {
                assert_eq!(to_f16(from_f16(bits)), bits);
            }
            let (a, b) = (from_f16(bits), from_f16(bits + 1));
            if bits + 1 < 0x7C00 {
                let middle = f32::midpoint(a, b);
                assert_eq!(to_f16(middle), bits + (bits & 1), "half to even");
                assert_eq!(to_f16(middle.next_up()), bits + 1);
                assert_eq!(to_f16(middle.next_down()), bits);
            }
        }
        assert_eq!((from_f16(0x3C00), from_f16(0x7BFF)), (1.0, 65_504.0));
        assert_eq!((from_f16(1), to_f16(1e9)), (5.960_464_5e-8, 0x7BFF));
    }

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn the_processor_widens_to_the_same_bits() {
        let all: Vec<u16> = (0..0x7C00).flat_map(|v| [v, v | 0x8000]).collect();
        for n in [0, 1, 7, 8, 9, all.len()] {
            let mut out = vec![f32::NAN; n];
            if halves::widen(&all[..n], &mut out) {
                let want = all[..n].iter().map(|v| from_f16(*v).to_bits());
                assert!(out.iter().map(|v| v.to_bits()).eq(want), "{n}");
            }
        }
    }
}
