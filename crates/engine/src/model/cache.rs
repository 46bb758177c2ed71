//! Keys and values of the tokens seen so far.

use tritburn_kernels::kv::{KvFormat, KvRows};

/// Room that the first token makes.
const FIRST_CAPACITY: usize = 128;

/// Keys and values of one layer, `[kv_heads · capacity, head_dim]` each.
#[derive(Debug)]
struct Layer {
    keys: KvRows,
    values: KvRows,
}

/// The cache of all layers. It grows by half up to the length it was made for.
#[derive(Debug)]
pub(crate) struct KvCache {
    layers: Vec<Layer>,
    format: KvFormat,
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    max_len: usize,
    len: usize,
}

impl KvCache {
    pub(crate) fn new(
        layers: usize,
        kv_heads: usize,
        head_dim: usize,
        max_len: usize,
        format: KvFormat,
    ) -> Self {
        let layer = |_| Layer {
            keys: KvRows::keys(format, kv_heads, 0, head_dim),
            values: KvRows::values(format, kv_heads, 0, head_dim),
        };
        Self {
            layers: (0..layers).map(layer).collect(),
            format,
            kv_heads,
            head_dim,
            capacity: 0,
            max_len,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn max_len(&self) -> usize {
        self.max_len
    }

    /// Forgets all but the first `len` tokens.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Counts `tokens` more, whose keys and values every [layer](Self::layer) has been given.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }

    /// Makes room for `tokens` more; the caller has checked that they fit `max_len`.
    pub(crate) fn reserve(&mut self, tokens: usize) {
        let needed = self.len + tokens;
        if needed <= self.capacity {
            return;
        }
        let capacity = needed
            .max(self.capacity + self.capacity / 2)
            .max(FIRST_CAPACITY)
            .min(self.max_len);
        let (heads, d) = (self.kv_heads, self.head_dim);
        for layer in &mut self.layers {
            // One after the other, so that little is held twice.
            let mut keys = KvRows::keys(self.format, heads, capacity, d);
            keys.copy_positions(&layer.keys, self.len);
            layer.keys = keys;
            let mut values = KvRows::values(self.format, heads, capacity, d);
            values.copy_positions(&layer.values, self.len);
            layer.values = values;
        }
        self.capacity = capacity;
    }

    /// Keys and values of a layer, and the position that comes next.
    pub(crate) fn layer(&mut self, layer: usize) -> ((&mut KvRows, &mut KvRows), usize) {
        let layer = &mut self.layers[layer];
        ((&mut layer.keys, &mut layer.values), self.len)
    }
}

#[cfg(test)]
mod tests {
    use tritburn_kernels::Exec;
    use tritburn_kernels::attention::{Heads, causal};

    use super::*;

    #[test]
    fn growing_keeps_what_was_written() {
        let mut cache = KvCache::new(1, 2, 1, 1000, KvFormat::F32);
        for t in 0..700 {
            cache.reserve(1);
            let v = t as f32;
            let ((keys, values), at) = cache.layer(0);
            for (head, [k, v]) in [[v, 10.0 + v], [-v, 20.0 + v]].into_iter().enumerate() {
                keys.set(head, at, &[k]);
                values.set(head, at, &[v]);
            }
            cache.advance(1);
        }
        assert!(cache.capacity <= 1000);
        let exec = Exec::new(None, Some(1)).expect("one thread");
        // Attention over one key is its value.
        let mut value = |t: usize| {
            let heads = Heads {
                kv_heads: 2,
                group: 1,
                head_dim: 1,
            };
            let mut out = [0.0; 2];
            let ((keys, values), _) = cache.layer(0);
            let stored = (&*keys, &*values);
            causal(&exec, heads, &[1.0; 2], stored, t, Some(1), &mut out);
            (out[0], out[1])
        };
        for t in 0..700 {
            assert_eq!(value(t), (10.0 + t as f32, 20.0 + t as f32));
        }
        cache.truncate(3);
        assert_eq!(cache.len(), 3);
        cache.truncate(9);
        assert_eq!(cache.len(), 3);
    }
}
