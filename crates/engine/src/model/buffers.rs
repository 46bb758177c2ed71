//! Buffers that threads keep, so that a decoded token allocates nothing.

use std::cell::RefCell;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` values that it has to overwrite.
pub(crate) fn with_buffer<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    buffer.resize(len.max(buffer.len()), 0.0);
    let result = f(&mut buffer[..len]);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_buffers_are_two_and_stay() {
        let address = || {
            with_buffer(8, |outer| {
                outer.fill(1.0);
                let inner = with_buffer(4, |inner| {
                    inner.fill(2.0);
                    inner.as_ptr() as usize
                });
                assert_eq!(outer, [1.0; 8]);
                (outer.as_ptr() as usize, inner)
            })
        };
        let (outer, inner) = address();
        assert_ne!(outer, inner);
        let (again, _) = address();
        assert!(again == outer || again == inner);
    }
}
