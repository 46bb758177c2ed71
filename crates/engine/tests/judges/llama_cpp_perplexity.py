"""What `llama-perplexity` computes, through the llama.cpp in the package cyllama.

    llama_cpp_perplexity.py -m MODEL -f TEXT -c CHUNK [other options of llama-perplexity]

Perplexity of the later half of each chunk of CHUNK tokens. Exits with 3 where the package is not
there.
"""

import math
import sys

try:
    import cyllama.llama.llama_cpp as llama
except Exception as e:  # a broken installation fails in many ways
    print(f"not usable: {e}")
    sys.exit(3)


class Model(llama.LlamaModel):
    """With what the package's own contexts ask for."""

    @property
    def n_vocab(self):
        return self.get_vocab().n_vocab


def log_prob(logits, token):
    largest = max(logits)
    total = math.fsum(math.exp(v - largest) for v in logits)
    return logits[token] - largest - math.log(total)


def main():
    given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    chunk = int(given["-c"])
    llama.llama_backend_init()
    model = Model(given["-m"], llama.LlamaModelParams())
    params = llama.LlamaContextParams()
    params.n_ctx = params.n_batch = params.n_ubatch = chunk
    params.n_threads = params.n_threads_batch = int(given.get("-t", "1"))
    context = llama.LlamaContext(model, params)
    vocab = model.get_vocab()
    with open(given["-f"], encoding="utf-8") as file:
        text = file.read()
    tokens = list(vocab.tokenize(text, vocab.get_add_bos(), True))
    total, count = 0.0, 0
    for start in range(0, len(tokens) - chunk + 1, chunk):
        some = tokens[start : start + chunk]
        if vocab.get_add_bos():
            some[0] = vocab.token_bos()
        context.kv_cache_clear()
        batch = llama.LlamaBatch(n_tokens=chunk, embd=0, n_seq_max=1)
        batch.set_batch(some, 0, True)
        if context.decode(batch) != 0:
            sys.exit("decoding failed")
        for at in range(chunk // 2, chunk - 1):
            total -= log_prob(context.get_logits_ith(at), some[at + 1])
            count += 1
    print(f"cyllama with ggml {llama.ggml_version()} {llama.ggml_commit()}, {len(tokens)} tokens")
    print(f"Final estimate: PPL = {math.exp(total / count):.6f}")


main()
