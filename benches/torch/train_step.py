"""A training step in PyTorch, beside `tritburn bench train --mode fp,qat,distill`.

bf16 autocast, f32 master weights, fused AdamW, SDPA, gradients clipped to 1. `qat` is BitNet b1.58
with SubLN by straight-through fake quantisation, `distill` the same under a full-precision teacher
of the same shape: logits KL over all tokens and the relation loss of one layer. One JSON object a
mode and way: `eager`, `compiled` (torch.compile of the whole loss) and `blocks` (torch.compile of a
block, of the losses and of nothing between them, which compiles in a fraction of the time).
"""

import argparse
import json
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

SHAPES = {
    "smollm2-135m": dict(d=576, ffn=1536, layers=30, heads=9, kv=3, head_dim=64, vocab=49152, theta=1e5),
    "qwen3-0.6b": dict(
        d=1024, ffn=3072, layers=28, heads=16, kv=8, head_dim=128, vocab=151936, theta=1e6, qk_norm=True
    ),
}
TAU = 5.0


class BitLinear(nn.Linear):
    def forward(self, x):
        scale = 127.0 / x.float().abs().amax(-1, keepdim=True).clamp(min=1e-5)
        xq = ((x.float() * scale).round().clamp(-128, 127) / scale).to(x.dtype)
        mean = self.weight.abs().mean().clamp(min=1e-5)
        wq = (self.weight / mean).round().clamp(-1, 1) * mean
        return F.linear(x + (xq - x).detach(), self.weight + (wq - self.weight).detach())


class Block(nn.Module):
    def __init__(self, s, bit):
        super().__init__()
        self.s = s
        linear = BitLinear if bit else nn.Linear
        q, kv = s["heads"] * s["head_dim"], s["kv"] * s["head_dim"]
        self.norm1, self.norm2 = nn.RMSNorm(s["d"], 1e-5), nn.RMSNorm(s["d"], 1e-5)
        self.q, self.k, self.v = (linear(s["d"], n, bias=False) for n in (q, kv, kv))
        self.o = linear(q, s["d"], bias=False)
        self.gate, self.up = (linear(s["d"], s["ffn"], bias=False) for _ in range(2))
        self.down = linear(s["ffn"], s["d"], bias=False)
        self.sub1 = nn.RMSNorm(q, 1e-5) if bit else nn.Identity()
        self.sub2 = nn.RMSNorm(s["ffn"], 1e-5) if bit else nn.Identity()
        per_head = s.get("qk_norm")
        self.q_norm = nn.RMSNorm(s["head_dim"], 1e-6) if per_head else nn.Identity()
        self.k_norm = nn.RMSNorm(s["head_dim"], 1e-6) if per_head else nn.Identity()

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        h = self.norm1(x)

        def turn(y):
            a, c = y.chunk(2, -1)
            return y * cos + torch.cat((-c, a), -1) * sin

        def heads(y, n):
            return y.view(b, t, n, self.s["head_dim"]).transpose(1, 2)

        q = turn(self.q_norm(heads(self.q(h), self.s["heads"])))
        k = turn(self.k_norm(heads(self.k(h), self.s["kv"])))
        v = heads(self.v(h), self.s["kv"])
        q, k = q.to(v.dtype), k.to(v.dtype)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(self.sub1(y.transpose(1, 2).reshape(b, t, -1)))
        h = self.norm2(x)
        return x + self.down(self.sub2(F.silu(self.gate(h)) * self.up(h))), (q, k, v)


class Model(nn.Module):
    def __init__(self, s, bit):
        super().__init__()
        self.s = s
        self.embed = nn.Embedding(s["vocab"], s["d"])
        nn.init.normal_(self.embed.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(s, bit) for _ in range(s["layers"]))
        self.norm = nn.RMSNorm(s["d"], 1e-5)
        inv = s["theta"] ** (-torch.arange(0, s["head_dim"], 2) / s["head_dim"])
        angles = torch.outer(torch.arange(8192), inv).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, ids):
        t = ids.shape[1]
        x, states = self.embed(ids), None
        for i, block in enumerate(self.blocks):
            x, qkv = block(x, self.cos[:t], self.sin[:t])
            if i == len(self.blocks) - 2:
                states = qkv
        return self.norm(x), states


def relation(student, teacher, heads):
    def rows(x):
        b, _, t, _ = x.shape
        x = x.transpose(1, 2).reshape(b, t, heads, -1).transpose(1, 2)
        x = F.normalize(x.float(), dim=-1)
        return x @ x.transpose(-1, -2)

    total = 0.0
    for a, b in zip(student, teacher):
        p, q = rows(b).softmax(-1).clamp(min=1e-8), rows(a).softmax(-1).clamp(min=1e-8)
        total = total + (p * (p.log() - q.log())).sum(-1).mean()
    return total


def head_losses(hidden, weight, targets, taught):
    flat = F.linear(hidden, weight).flatten(0, 1).float()
    out = F.cross_entropy(flat, targets.flatten())
    if taught is not None:
        aim = (taught.flatten(0, 1).float() / TAU).log_softmax(-1)
        ours = (flat / TAU).log_softmax(-1)
        out = out + F.kl_div(ours, aim, log_target=True, reduction="batchmean")
    return out


def measure(shape, mode, way, args):
    torch.manual_seed(0)
    torch._dynamo.reset()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    s = SHAPES[shape]
    model = Model(s, mode != "fp").cuda()
    teacher = Model(s, False).cuda().eval() if mode == "distill" else None
    optim = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    ids, targets = (torch.randint(s["vocab"], (args.batch, args.seq), device="cuda") for _ in range(2))

    part = torch.compile if way == "blocks" else lambda f: f
    losses, relations = part(head_losses), part(relation)
    if way == "blocks":
        for block in [*model.blocks, *(teacher.blocks if teacher else [])]:
            block.compile()

    def loss():
        with torch.autocast("cuda", torch.bfloat16):
            hidden, states = model(ids)
            taught = None
            if teacher is not None:
                with torch.no_grad():
                    last, theirs = teacher(ids)
                    taught = F.linear(last, teacher.embed.weight)
            out = losses(hidden, model.embed.weight, targets, taught)
            if teacher is not None:
                out = out + relations(states, theirs, s["kv"])
            return out

    run = torch.compile(loss) if way == "compiled" else loss

    def step():
        run().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        optim.zero_grad(set_to_none=True)

    times = []
    for _ in range(args.warmup + args.steps):
        torch.cuda.synchronize()
        started = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - started) * 1e3)
    timed = sorted(times[args.warmup :])
    ms = timed[len(timed) // 2]
    row = dict(way=f"torch {way}", shape=shape, mode=mode)
    row |= dict(batch=args.batch, seq=args.seq, ms_per_step=round(ms, 2), tok_s=round(args.batch * args.seq / ms * 1e3))
    row |= dict(first_step_s=round(times[0] / 1e3, 1), peak_bytes=torch.cuda.max_memory_reserved())
    print(json.dumps(row), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", default="smollm2-135m", choices=SHAPES)
    parser.add_argument("--mode", default="fp,qat,distill")
    parser.add_argument("--ways", default="eager,compiled")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5)
    args = parser.parse_args()
    for mode in args.mode.split(","):
        for way in args.ways.split(","):
            measure(args.shape, mode, way, args)


if __name__ == "__main__":
    main()
