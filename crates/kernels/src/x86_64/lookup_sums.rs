//! Where sums from tables go before they would overflow.

use crate::lookup::LOW_BITS;

/// Blocks whose high parts add up in a byte: two of −8…7 each.
pub(super) const RUN: usize = 8;
/// Blocks whose parts add up in 16 bits: low ones of at most 126, unsigned.
pub(super) const FLUSH: usize = 512;

/// Sums of `2 · N` rows as `[low of even rows, low of odd rows, high of even rows, high of odd
/// rows]`, the low ones unsigned.
pub(super) struct LookupSums<const N: usize>(pub(super) [[i16; N]; 4]);

impl<const N: usize> Default for LookupSums<N> {
    fn default() -> Self {
        Self([[0; N]; 4])
    }
}

impl<const N: usize> LookupSums<N> {
    /// Adds the whole sums.
    pub(super) fn add_to(&self, acc: &mut [i32]) {
        let [even, odd, high_even, high_odd] = &self.0;
        let whole =
            |low: i16, high: i16| i32::from(low.cast_unsigned()) + (i32::from(high) << LOW_BITS);
        for (i, acc) in acc.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            acc[0] += whole(even[i], high_even[i]);
            acc[1] += whole(odd[i], high_odd[i]);
        }
    }
}
