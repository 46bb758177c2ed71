//! What happens to heads between the projections and attention.

use tritburn_kernels::attention::Prepare;
use tritburn_quant::config::ModelConfig;
use tritburn_quant::scheme::QuantScheme;

use super::buffers::with_buffer;
use super::input::through_cache;
use super::norm::RmsNorm;
use super::rope::Rope;

/// Norms, rotation and the rounding of a quantised cache.
pub(crate) struct HeadInput<'a> {
    norms: Option<&'a [RmsNorm; 2]>,
    rope: &'a Rope,
    scheme: Option<QuantScheme>,
    /// Where scores are not scaled by `1 / √head_dim`, which the kernel does.
    q_factor: Option<f32>,
    /// Position of the first new token.
    first: usize,
}

impl<'a> HeadInput<'a> {
    pub(crate) fn new(
        config: &ModelConfig,
        norms: Option<&'a [RmsNorm; 2]>,
        rope: &'a Rope,
        first: usize,
    ) -> Self {
        let own = 1.0 / (config.head_dim() as f32).sqrt();
        let scale = config.attention_scale();
        Self {
            norms,
            rope,
            scheme: config.quant_scheme(),
            q_factor: (scale != own).then(|| scale / own),
            first,
        }
    }

    fn round(&self, token: usize, head: &mut [f32], bits: impl Fn(&QuantScheme) -> Option<u8>) {
        if let Some(bits) = self.scheme.as_ref().and_then(bits) {
            through_cache(head, bits, self.first + token);
        }
    }
}

impl Prepare for HeadInput<'_> {
    fn query(&self, token: usize, head: &mut [f32]) {
        if let Some([norm, _]) = self.norms {
            normalise(norm, head);
        }
        self.rope.apply(token, head);
        self.round(token, head, |scheme| scheme.q_bits);
        if let Some(factor) = self.q_factor {
            head.iter_mut().for_each(|q| *q *= factor);
        }
    }

    fn key(&self, token: usize, head: &mut [f32]) {
        if let Some([_, norm]) = self.norms {
            normalise(norm, head);
        }
        self.rope.apply(token, head);
        self.round(token, head, |scheme| scheme.kv_bits);
    }

    fn value(&self, token: usize, head: &mut [f32]) {
        self.round(token, head, |scheme| scheme.kv_bits);
    }
}

fn normalise(norm: &RmsNorm, head: &mut [f32]) {
    with_buffer(head.len(), |buffer| {
        buffer.copy_from_slice(head);
        norm.row(buffer, head);
    });
}
