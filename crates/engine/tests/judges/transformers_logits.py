"""Logits of model folders as transformers computes them.

    transformers_logits.py TOKENS FOLDER OUT [FOLDER OUT]...

TOKENS are ids with commas between them. Writes float32 logits, one row a token, to each OUT; for a
model of AutoBitLinear layers also to OUT.codes, with their products over whole codes (see `codes`).
Needs the packages transformers, torch and accelerate; exits with 3 where they are not there.
"""

import os
import sys
from functools import partial

# Graph compilation needs a C++ compiler at run time and changes nothing here.
os.environ["TORCHDYNAMO_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

try:
    import accelerate
    import torch
    import transformers
    from transformers import AutoModelForCausalLM
    from transformers.integrations.bitnet import AutoBitLinear
except Exception as e:  # a broken installation fails in many ways
    print(f"not usable: {e}")
    sys.exit(3)


def codes(layer, x):
    """AutoBitLinear's product in the order of BitLinear's: whole codes, whose sums are exact, and
    then the scales. AutoBitLinear itself divides the codes by their scale first, so its sums are
    rounded."""
    scale = 127 / x.abs().max(dim=-1, keepdim=True).values.clamp(min=1e-5)
    x = (x * scale).round().clamp(-128, 127)
    y = torch.nn.functional.linear(x, layer.weight) / scale * layer.weight_scale
    return y if layer.bias is None else y + layer.bias


def write_logits(model, tokens, out):
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].float()
    with open(out, "wb") as file:
        file.write(logits.contiguous().numpy().tobytes())


def judge(tokens, folder, out):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    # Weights that were not there are drawn at random, those of no use are dropped: both with no
    # more than a warning.
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[key]:
            sys.exit(f"{folder}: {key}: {sorted(info[key])}")
    print(f"{type(model).__name__} of {folder}")
    write_logits(model, tokens, out)
    layers = [m for m in model.modules() if isinstance(m, AutoBitLinear)]
    for layer in layers:
        layer.forward = partial(codes, layer)
    if layers:
        write_logits(model, tokens, out + ".codes")


def main():
    versions = [f"{m.__name__} {m.__version__}" for m in (transformers, torch, accelerate)]
    print(", ".join(versions))
    torch.set_num_threads(1)
    tokens = [int(t) for t in sys.argv[1].split(",")]
    for folder, out in zip(sys.argv[2::2], sys.argv[3::2]):
        judge(tokens, folder, out)


main()
