//! The orthogonal Hadamard transform in front of a quantiser (BitNet v2, arXiv 2504.18415, §2.2).

use burn::module::Module;
use burn::tensor::{DType, Tensor, TensorData, backend::Backend};
use tritburn_quant::hadamard::Factors;

/// `x · H / √d`, with `H` the Kronecker product of two small matrices, so that a token costs
/// `d · (a + b)` products instead of `d²`.
#[derive(Module, Debug)]
pub struct Hadamard<B: Backend> {
    /// `[a, a]`, transposed.
    left: Tensor<B, 2>,
    /// `[b, b]`, divided by `√d`.
    right: Tensor<B, 2>,
}

impl<B: Backend> Hadamard<B> {
    /// The transform of tokens of `width` values; none where no matrix of that order is built in.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn new(width: usize, device: &B::Device) -> Option<Self> {
        let f = Factors::of(width)?;
        let left = Tensor::from_data(TensorData::new(f.left, [f.a, f.a]), device);
        let right = Tensor::<B, 2>::from_data(TensorData::new(f.right, [f.b, f.b]), device);
        Some(Self {
            left: left.transpose(),
            right: right / (width as f64).sqrt(),
        })
    }

    /// # Shapes
    /// `[tokens, width]` → `[tokens, width]`.
    #[must_use]
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let [tokens, width] = x.dims();
        let ([a, _], [b, _]) = (self.left.dims(), self.right.dims());
        let dtype = x.dtype();
        let x = x.cast(DType::F32).reshape([tokens * a, b]);
        let x = x.matmul(self.right.clone());
        let left = self.left.clone().unsqueeze_dim::<3>(0);
        let x = left
            .expand([tokens, a, a])
            .matmul(x.reshape([tokens, a, b]));
        x.reshape([tokens, width]).cast(dtype)
    }
}
