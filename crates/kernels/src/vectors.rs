//! Compiles plain loops for the widest vectors that the processor has.

use pulp::{Arch, NullaryFnOnce};

/// A closure that is called as `FnMut`: through `FnOnce` it would be called by way of a function
/// of its own, which is not compiled for the vectors.
struct Loop<F>(F);

impl<R, F: FnMut() -> R> NullaryFnOnce for Loop<F> {
    type Output = R;

    #[inline(always)]
    fn call(mut self) -> R {
        (self.0)()
    }
}

/// Runs `f`, a closure marked `#[inline(always)]`, compiled for the processor's vectors.
#[inline]
pub(crate) fn vectorized<R>(f: impl FnMut() -> R) -> R {
    Arch::new().dispatch(Loop(f))
}
