#!/usr/bin/env python3
"""Talks to a running server with the official `openai` client.

    python3 tests/python/openai_smoke.py http://127.0.0.1:8080 [API_KEY]

Exits 0 when every check passes, 1 when one fails, 2 when the client is missing or the call is
wrong.
"""

import sys
import traceback

try:
    import openai
except ImportError:
    print("the Python package `openai` is not installed: pip install openai", file=sys.stderr)
    sys.exit(2)

MESSAGES = [{"role": "user", "content": "Say something."}]


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def models(client):
    """The list holds the model that the other checks use, and it can be fetched by its id."""
    page = client.models.list()
    check(page.data, "no model is listed")
    model = page.data[0].id
    check(client.models.retrieve(model).id == model, "the listed model cannot be retrieved")
    return model


def chat(client, model):
    answer = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=8, temperature=0, seed=1
    )
    choice = answer.choices[0]
    check(answer.object == "chat.completion", f"object is {answer.object}")
    check(choice.message.role == "assistant", f"role is {choice.message.role}")
    check(isinstance(choice.message.content, str), "content is no string")
    check(choice.finish_reason in ("stop", "length"), f"finish_reason is {choice.finish_reason}")
    usage = answer.usage
    check(usage.prompt_tokens > 0, "no prompt tokens counted")
    check(usage.completion_tokens <= 8, "more tokens than asked for")
    check(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, "usage adds up")
    return choice.message.content


def chat_stream(client, model, whole):
    """Streams the same request: same text, role first, reason last, usage at the end."""
    stream = client.chat.completions.create(
        model=model,
        messages=MESSAGES,
        max_tokens=8,
        temperature=0,
        seed=1,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    usage = chunks.pop()
    check(usage.choices == [] and usage.usage.total_tokens > 0, "no usage in the last chunk")
    check(all(chunk.usage is None for chunk in chunks), "usage before the last chunk")
    check(chunks[0].choices[0].delta.role == "assistant", "the first delta has no role")
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    check(reasons[-1] in ("stop", "length"), f"the last finish_reason is {reasons[-1]}")
    check(not any(reasons[:-1]), "a finish_reason before the last chunk")
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    check(text == whole, f"the stream says {text!r}, the whole answer {whole!r}")


def completions(client, model):
    answer = client.completions.create(
        model=model, prompt=["One", "Two"], max_tokens=4, temperature=0
    )
    check([choice.index for choice in answer.choices] == [0, 1], "not one choice per prompt")
    check(answer.object == "text_completion", f"object is {answer.object}")
    stream = client.completions.create(
        model=model, prompt="One", max_tokens=4, temperature=0, stream=True
    )
    text = "".join(chunk.choices[0].text for chunk in stream)
    check(text == answer.choices[0].text, "the stream differs from the whole answer")


def errors(client, model):
    def expect(kind, code, param, **request):
        request = {"model": model, "messages": MESSAGES, "max_tokens": 1} | request
        try:
            client.chat.completions.create(**request)
        except kind as error:
            check(error.code == code, f"code is {error.code}, not {code}")
            check(error.param == param, f"param is {error.param}, not {param}")
            check(error.type, "no type")
            check(error.body["message"], "no message")
        else:
            raise AssertionError(f"{request} was not refused")

    bad = openai.BadRequestError
    expect(openai.NotFoundError, "model_not_found", "model", model="no-such-model")
    expect(bad, "invalid_value", "temperature", temperature=3)
    expect(bad, "unsupported_parameter", "n", n=2)
    expect(bad, "context_length_exceeded", "messages", max_tokens=1 << 40)
    expect(bad, "unknown_parameter", "no_such_field", extra_body={"no_such_field": 1})


def main():
    if len(sys.argv) not in (2, 3):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    base = sys.argv[1].rstrip("/")
    key = sys.argv[2] if len(sys.argv) == 3 else "none"
    client = openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0, timeout=120)
    try:
        model = models(client)
        print("ok models")
        whole = chat(client, model)
        print("ok chat")
        chat_stream(client, model, whole)
        print("ok chat stream")
        completions(client, model)
        print("ok completions")
        errors(client, model)
        print("ok errors")
    except (AssertionError, openai.OpenAIError) as error:
        traceback.print_exc()
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
