"""Forward and backward of a bf16 linear layer in PyTorch, beside `cargo bench --bench bit_linear`.

One JSON object a shape and way: `linear bf16` (cuBLAS), the same with straight-through fake
quantisation of weight and input, eager and compiled.
"""

import json
import time

import torch

TOKENS, WARM_UP, STEPS, ROUNDS = 8192, 10, 50, 9


def fake_quant(x, w):
    scale = 127.0 / x.float().abs().amax(-1, keepdim=True).clamp(min=1e-5)
    xq = (x.float() * scale).round().clamp(-128, 127) / scale
    mean = w.abs().mean().clamp(min=1e-5)
    wq = (w / mean).round().clamp(-1, 1) * mean
    return x + (xq - x).detach().to(x.dtype), w + (wq - w).detach()


def main():
    torch.manual_seed(0)
    for d_in, d_out in [(576, 1536), (1536, 576), (1024, 3072), (3072, 1024)]:
        x = torch.randn(TOKENS, d_in, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        master = (torch.randn(d_out, d_in, device="cuda") * 0.02).requires_grad_()
        half = master.detach().bfloat16().requires_grad_()
        grad = torch.ones(TOKENS, d_out, device="cuda", dtype=torch.bfloat16)

        def bit(x, w):
            xq, wq = fake_quant(x, w)
            return torch.nn.functional.linear(xq, wq.bfloat16())

        compiled = torch.compile(bit)
        ways = {
            "linear bf16": lambda: torch.nn.functional.linear(x, half).backward(grad),
            "fake quantisation": lambda: bit(x, master).backward(grad),
            "fake quantisation, compiled": lambda: compiled(x, master).backward(grad),
        }
        times = {name: [] for name in ways}

        def clear():
            x.grad = master.grad = half.grad = None

        for call in ways.values():
            for _ in range(WARM_UP):
                call()
                clear()
        for _ in range(ROUNDS):
            for name, call in ways.items():
                torch.cuda.synchronize()
                started = time.perf_counter()
                for _ in range(STEPS):
                    call()
                    clear()
                torch.cuda.synchronize()
                times[name].append((time.perf_counter() - started) * 1e3 / STEPS)
        medians = {name: sorted(t)[len(t) // 2] for name, t in times.items()}
        for name, ms in medians.items():
            tflops = 6 * TOKENS * d_in * d_out / ms / 1e9
            ratio = ms / medians["linear bf16"]
            row = {"way": f"torch {name}", "tokens": TOKENS, "in": d_in, "out": d_out}
            print(json.dumps(row | {"ms": round(ms, 4), "tflops": round(tflops), "ratio": round(ratio, 2)}))


if __name__ == "__main__":
    main()
