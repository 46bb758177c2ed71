#!/usr/bin/env bash
# From parquet to a served model in a scratch folder: train, eval, export, generate, serve, curl.
#
#   TRITBURN_BIN            the binary (default: the release build)
#   TRITBURN_OPENAI_PYTHON  a Python with the `openai` package; without it that check is left out
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}")
bin=$(realpath "${TRITBURN_BIN:-$target/release/tritburn}")
[[ -z ${TRITBURN_OPENAI_PYTHON:-} ]] || python=$(realpath -s "$TRITBURN_OPENAI_PYTHON")

work=$(mktemp -d)
server=
finish() {
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

fail() {
    printf 'smoke: %s\n' "$*" >&2
    exit 1
}

say() {
    printf 'smoke: %s\n' "$*"
}

# expect FILE TEXT: the file holds the text.
expect() {
    grep -qF -- "$2" "$1" || {
        cat "$1" >&2
        fail "no $2 in $1"
    }
}

cd "$work"
ln -s "$root/data" data
ln -s "$root/recipes" recipes

say "doctor"
"$bin" doctor --json >doctor.json
expect doctor.json '{'

say "train"
"$bin" train recipes/mnli-smoke.toml --device cpu
run=$(find runs -mindepth 1 -maxdepth 1 -type d -name 'mnli-smoke-*')
[[ -d $run ]] || fail "expected one run, found: $run"
[[ -s $run/metrics.jsonl ]] || fail "$run/metrics.jsonl is missing or empty"

say "eval"
"$bin" eval "$run" --task mnli --data data/mnli --limit 32 --json eval.json
expect eval.json '"acc,none"'

say "export"
"$bin" export "$run" --out export
for file in config.json model.safetensors tokenizer.json; do
    [[ -s export/$file ]] || fail "export/$file is missing or empty"
done

say "eval of the export"
"$bin" eval export --task mnli --data data/mnli --limit 32 --json eval-export.json
expect eval-export.json '"acc,none"'

say "generate"
"$bin" generate export --prompt "A man is sleeping." --max-tokens 8 --temperature 0 >generated.txt

say "serve"
"$bin" serve export --host 127.0.0.1 --port 0 2>serve.log &
server=$!
url=
for _ in $(seq 300); do
    url=$(sed -n 's/^.*listening on \(http:[^ ]*\).*$/\1/p' serve.log | head -n 1)
    [[ -z $url ]] || break
    kill -0 "$server" 2>/dev/null || {
        cat serve.log >&2
        fail "the server ended before it was ready"
    }
    sleep 0.1
done
[[ -n $url ]] || fail "the server was not ready within 30 s"

say "curl $url"
curl -fsS "$url/health" >health.json
expect health.json '{"status":"ok"}'
curl -fsS "$url/v1/models" >models.json
model=$(sed -n 's/.*"data":\[{"id":"\([^"]*\)".*/\1/p' models.json)
[[ -n $model ]] || fail "no model in $(cat models.json)"
request="{\"model\":\"$model\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"max_tokens\":4"
post() {
    curl -sS -H 'Content-Type: application/json' -d "$2" "$url$1"
}
post /v1/chat/completions "$request}" >chat.json
expect chat.json '"object":"chat.completion"'
expect chat.json '"usage":{"prompt_tokens":'
post /v1/chat/completions "$request,\"stream\":true}" >stream.txt
expect stream.txt '"finish_reason":"'
expect stream.txt 'data: [DONE]'
post /v1/chat/completions "$request,\"n\":2}" >error.json
expect error.json '"param":"n"'
curl -fsS "$url/metrics" >metrics.txt
expect metrics.txt 'tritburn_generation_tokens_total'

if [[ -n ${python:-} ]]; then
    say "the openai client"
    "$python" "$root/tests/python/openai_smoke.py" "$url"
else
    say "no openai client: set TRITBURN_OPENAI_PYTHON to a Python that has it"
fi

say "stop"
kill -TERM "$server"
wait "$server" || fail "the server did not stop in order: $(cat serve.log)"
server=
say "passed"
