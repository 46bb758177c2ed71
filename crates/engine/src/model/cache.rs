//! Keys and values of the tokens seen so far.

/// Room that the first token makes.
const FIRST_CAPACITY: usize = 128;

/// Keys and values of one layer, `[kv_heads, capacity, head_dim]` each.
#[derive(Debug, Default)]
struct Layer {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// The f32 cache of all layers. It grows by doubling up to the length it was made for.
#[derive(Debug)]
pub(crate) struct KvCache {
    layers: Vec<Layer>,
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    max_len: usize,
    len: usize,
}

impl KvCache {
    pub(crate) fn new(layers: usize, kv_heads: usize, head_dim: usize, max_len: usize) -> Self {
        Self {
            layers: (0..layers).map(|_| Layer::default()).collect(),
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

    /// Counts `tokens` more, whose keys and values every layer has [written](Self::write).
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
            .next_power_of_two()
            .max(FIRST_CAPACITY)
            .min(self.max_len);
        let (old, new, used) = (
            self.capacity * self.head_dim,
            capacity * self.head_dim,
            self.len * self.head_dim,
        );
        for layer in &mut self.layers {
            for buffer in [&mut layer.keys, &mut layer.values] {
                let mut grown = vec![0.0; self.kv_heads * new];
                for head in 0..self.kv_heads {
                    grown[head * new..][..used].copy_from_slice(&buffer[head * old..][..used]);
                }
                *buffer = grown;
            }
        }
        self.capacity = capacity;
    }

    /// Stores keys and values, `[tokens, kv_heads · head_dim]`, of the tokens after the last.
    pub(crate) fn write(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let (d, stride) = (self.head_dim, self.capacity * self.head_dim);
        let layer = &mut self.layers[layer];
        for (buffer, rows) in [(&mut layer.keys, keys), (&mut layer.values, values)] {
            for (t, row) in rows.chunks_exact(self.kv_heads * d).enumerate() {
                for (head, row) in row.chunks_exact(d).enumerate() {
                    buffer[head * stride + (self.len + t) * d..][..d].copy_from_slice(row);
                }
            }
        }
    }

    /// Keys and values, `[len, head_dim]` each, of one head.
    pub(crate) fn head(&self, layer: usize, head: usize, len: usize) -> (&[f32], &[f32]) {
        let start = head * self.capacity * self.head_dim;
        let range = start..start + len * self.head_dim;
        let layer = &self.layers[layer];
        (&layer.keys[range.clone()], &layer.values[range])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_keeps_what_was_written() {
        let mut cache = KvCache::new(1, 2, 1, 1000);
        for t in 0..700 {
            cache.reserve(1);
            let v = t as f32;
            cache.write(0, &[v, -v], &[10.0 + v, 20.0 + v]);
            cache.advance(1);
        }
        assert!(cache.capacity <= 1000);
        for head in 0..2 {
            let (keys, values) = cache.head(0, head, 700);
            let sign = if head == 0 { 1.0 } else { -1.0 };
            assert!((0..700).all(|t| keys[t] == sign * t as f32));
            assert!((0..700).all(|t| values[t] == 10.0 * (head + 1) as f32 + t as f32));
        }
        cache.truncate(3);
        assert_eq!(cache.len(), 3);
        cache.truncate(9);
        assert_eq!(cache.len(), 3);
    }
}
