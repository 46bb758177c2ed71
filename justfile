# Targets call the binary and nothing else. Variables go before or after the target's name, or into
# the environment:   just train-mnli DATA=data/mnli MODEL=models/smollm2 DEVICE=cuda

# Folder with the data's parquet files; empty for what the recipe says.
export DATA := env("DATA", "")
# Model or run to work on; empty for what the recipe says, or for OUT.
export MODEL := env("MODEL", "")
# cpu, ndarray, wgpu or cuda.
export DEVICE := env("DEVICE", "cpu")
# Folder that `export` writes and that `eval`, `serve` and `chat` read.
export OUT := env("OUT", "exports/mnli")
# Port of `serve`; 0 picks a free one.
export PORT := env("PORT", "8080")
# What `chat` says to the model.
export PROMPT := env("PROMPT", "Hello!")

set positional-arguments

# Variables after the target's name arrive as its arguments: call just again with them in front.
again := quote(just_executable()) + ' "$@"'
features := if DEVICE =~ "^(cuda|wgpu)$" { " --features " + DEVICE } else { "" }
tritburn := "cargo run --release" + features + " --"
data := if DATA == "" { "data/mnli" } else { DATA }
model := if MODEL == "" { OUT } else { MODEL }
run := if MODEL == "" { '"$(ls -td runs/mnli-[0-9]* | head -n 1)"' } else { quote(MODEL) }
set_data := if DATA == "" { "" } else { " --set " + quote("data.dir=" + DATA) }
set_model := if MODEL == "" { "" } else { " --set " + quote("model.path=" + MODEL) }
train_args := set_data + set_model + " --device " + DEVICE
bench_what := if MODEL == "" { "--shape smollm2-135m" } else { quote(MODEL) }

_list:
    @{{ just_executable() }} --list

# Build, and report what this machine has
setup *vars:
    {{ if vars == "" { tritburn + " doctor" } else { again + " setup" } }}

# Teacher, baseline and BitDistill on the embedded data, exported, served and asked once
quickstart *vars:
    {{ if vars == "" { tritburn + " quickstart" } else { again + " quickstart" } }}

# Train on MNLI
train-mnli *vars:
    {{ if vars == "" { tritburn + " train recipes/mnli.toml" + train_args } else { again + " train-mnli" } }}

# Train on SST-2
train-sst2 *vars:
    {{ if vars == "" { tritburn + " train recipes/sst2.toml" + train_args } else { again + " train-sst2" } }}

# Evaluate MODEL (a run, a checkpoint or an export)
eval *vars:
    {{ if vars == "" { tritburn + " eval " + quote(model) + " --task mnli --data " + quote(data) + " --json eval.json" } else { again + " eval" } }}

# Write the packed model of MODEL, or of the newest MNLI run, to OUT
export *vars:
    {{ if vars == "" { tritburn + " export " + run + " --out " + quote(OUT) } else { again + " export" } }}

# Serve MODEL on PORT
serve *vars:
    {{ if vars == "" { tritburn + " serve " + quote(model) + " --host 127.0.0.1 --port " + PORT } else { again + " serve" } }}

# Say PROMPT to MODEL; `serve` has a page to talk on
chat *vars:
    {{ if vars == "" { tritburn + " generate " + quote(model) + " --prompt " + quote(PROMPT) + " --max-tokens 128" } else { again + " chat" } }}

# All tests
test:
    cargo test --release --workspace

# Measure the speed of MODEL, or of a known shape
bench *vars:
    {{ if vars == "" { tritburn + " bench " + bench_what + " --threads 1,2 --json bench.json" } else { again + " bench" } }}

# What a change must pass
ci:
    .ci/run
