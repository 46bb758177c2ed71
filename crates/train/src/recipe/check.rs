//! What types cannot say: ranges, and references between sections.

use tritburn_quant::config::SubNorm;

use super::common::{Pace, check_train};
use super::{
    NormInit, QuantSection, RecipeFile, StageKind, StageSection, scratch_config, stage_config,
};

/// Every problem, each starting with the path of its field.
pub(super) fn problems(file: &RecipeFile) -> Vec<String> {
    let mut out = Vec::new();
    let mut say = |ok: bool, path: &str, message: &str| {
        if !ok {
            out.push(format!("{path}: {message}"));
        }
    };
    say(is_name(&file.name), "name", NAME);
    let model = &file.model;
    if model.path.is_empty() {
        for (key, value) in [
            ("hidden_size", model.hidden_size),
            ("intermediate_size", model.intermediate_size),
            ("num_hidden_layers", model.num_hidden_layers),
            ("num_attention_heads", model.num_attention_heads),
            ("num_key_value_heads", model.num_key_value_heads),
            ("max_position_embeddings", model.max_position_embeddings),
        ] {
            say(value > 0, &format!("model.{key}"), "must be at least 1");
        }
        let heads = model.num_attention_heads.max(1);
        say(
            model.hidden_size.is_multiple_of(2 * heads),
            "model.num_attention_heads",
            "must divide hidden_size into heads of even width",
        );
        say(
            heads.is_multiple_of(model.num_key_value_heads.max(1)),
            "model.num_key_value_heads",
            "must divide num_attention_heads",
        );
        say(model.init_std > 0.0, "model.init_std", "must be positive");
        say(
            model.rms_norm_eps > 0.0,
            "model.rms_norm_eps",
            "must be positive",
        );
        say(
            model.rope_theta > 0.0,
            "model.rope_theta",
            "must be positive",
        );
        say(
            file.data.max_length <= model.max_position_embeddings,
            "data.max_length",
            "is longer than model.max_position_embeddings",
        );
    }
    say(
        !file.tokenizer.path.is_empty() || file.tokenizer.vocab_size >= 259,
        "tokenizer.vocab_size",
        "must be at least 259 (256 bytes and 3 special tokens)",
    );
    say(
        file.data.pad_multiple > 0,
        "data.pad_multiple",
        "must be at least 1",
    );
    say(
        file.data.max_length > 0,
        "data.max_length",
        "must be at least 1",
    );
    check_train(&file.train, &mut say);
    say(
        !file.stage.is_empty(),
        "stage",
        "a recipe needs at least one [[stage]]",
    );
    let uses = |kinds: &[StageKind]| file.stage.iter().any(|s| kinds.contains(&s.kind));
    say(
        !file.data.dir.is_empty() || !uses(&[StageKind::Sft, StageKind::Distill]),
        "data.dir",
        "names no folder, but a stage trains on the task",
    );
    let streamed = file.data.stream.as_ref();
    say(
        !file.data.corpus.is_empty()
            || streamed.is_some_and(|s| !s.shards.is_empty())
            || !uses(&[StageKind::Lm]),
        "data.corpus",
        "names no folder, but a stage trains on a corpus",
    );
    if let Some(stream) = streamed {
        out.extend(stream.faults().iter().map(ToString::to_string));
    }
    for (i, stage) in file.stage.iter().enumerate() {
        let earlier: Vec<&str> = file.stage[..i].iter().map(|s| s.name.as_str()).collect();
        stage_problems(stage, &format!("stage[{i}]"), &earlier, file, &mut out);
    }
    out
}

impl StageSection {
    /// Whether a teacher is followed.
    #[must_use]
    pub fn is_taught(&self) -> bool {
        match self.kind {
            StageKind::Distill => true,
            StageKind::Lm => !self.distill.teacher.is_empty(),
            StageKind::Sft => false,
        }
    }

    fn pace(&self) -> Pace {
        Pace {
            steps: self.steps,
            batch_size: self.batch_size,
            grad_accum: self.grad_accum,
            lr: self.lr,
            warmup: self.warmup,
            weight_decay: self.weight_decay,
            betas: self.betas,
            eps: self.eps,
            ema: self.ema,
            clip: self.clip,
        }
    }
}

fn stage_problems(
    stage: &StageSection,
    at: &str,
    earlier: &[&str],
    file: &RecipeFile,
    out: &mut Vec<String>,
) {
    let mut say = |ok: bool, key: &str, message: &str| {
        if !ok {
            out.push(format!("{at}.{key}: {message}"));
        }
    };
    say(is_name(&stage.name), "name", NAME);
    say(
        !earlier.contains(&stage.name.as_str()),
        "name",
        "is the name of an earlier stage",
    );
    say(
        stage.from == "init" || earlier.contains(&stage.from.as_str()) || stage.from.contains('/'),
        "from",
        "must be \"init\", the name of an earlier stage, or a path with a `/`",
    );
    stage.pace().check(&mut say);
    say(
        stage.ternary || stage.quant == QuantSection::default(),
        "quant",
        "needs `ternary = true`",
    );
    say(
        stage.quant.warmup < stage.steps.max(1),
        "quant.warmup",
        "must be shorter than steps: a stage ends fully quantised",
    );
    say(
        !stage.keep_optimizer || earlier.contains(&stage.from.as_str()),
        "keep_optimizer",
        "needs `from` to name the stage that ran the optimiser",
    );
    say(
        stage.norm_init == NormInit::One || stage.sub_norm != Some(SubNorm::LayerNorm),
        "norm_init",
        "norms of layout `layer_norm` have no weights to calibrate",
    );
    let source = file.stage.iter().find(|s| s.name == stage.from);
    say(
        !stage.keep_optimizer || source.is_none_or(|s| s.ema == 0.0),
        "keep_optimizer",
        "cannot go on from a stage with `ema`, which ends with averaged weights",
    );
    if stage.kind == StageKind::Lm {
        say(stage.seq_len > 1, "seq_len", "must be at least 2");
        say(
            !file.model.path.is_empty() || stage.seq_len <= file.model.max_position_embeddings,
            "seq_len",
            "is longer than model.max_position_embeddings",
        );
    }
    if stage.ternary && file.model.path.is_empty() {
        let config = stage_config(&scratch_config(&file.model), stage);
        let found = config.scheme_problems(&stage.quant.scheme());
        out.extend(found.iter().map(|p| format!("{at}.{p}")));
    }
    let mut say = |ok: bool, key: &str, message: &str| {
        if !ok {
            out.push(format!("{at}.{key}: {message}"));
        }
    };
    let relation = stage.is_taught() && stage.distill.relation > 0.0;
    say(
        !relation || !stage.distill.layers.is_empty(),
        "distill.layers",
        "names no layer, but distill.relation is positive",
    );
    if stage.is_taught() {
        let d = &stage.distill;
        say(
            earlier.contains(&d.teacher.as_str())
                || d.teacher.contains('/')
                || d.teacher == "init" && !file.model.path.is_empty(),
            "distill.teacher",
            "must be the name of an earlier stage, a path with a `/`, or \"init\" for the model of \
             `model.path`",
        );
        say(
            d.teacher_layers.is_empty() || d.teacher_layers.len() == d.layers.len(),
            "distill.teacher_layers",
            "must name as many layers as distill.layers, or none",
        );
        say(
            d.temperature > 0.0,
            "distill.temperature",
            "must be positive",
        );
        say(d.logits >= 0.0, "distill.logits", "must not be negative");
        say(
            d.relation >= 0.0,
            "distill.relation",
            "must not be negative",
        );
        say(
            d.hidden >= 0.0 && d.hidden.is_finite(),
            "distill.hidden",
            "must be zero or a positive number",
        );
        let width = file.model.hidden_size / file.model.num_attention_heads.max(1)
            * file.model.num_key_value_heads;
        say(
            d.split_heads > 0
                && (!file.model.path.is_empty() || width.is_multiple_of(d.split_heads)),
            "distill.split_heads",
            "must divide the width of all key heads",
        );
        let layers = i64::try_from(file.model.num_hidden_layers).unwrap_or(i64::MAX);
        say(
            !file.model.path.is_empty() || d.layers.iter().all(|&l| l < layers && l >= -layers),
            "distill.layers",
            "names a layer that the model does not have",
        );
    }
}

/// What [`is_name`] asks for.
pub(super) const NAME: &str = "must be letters, digits, `-` or `_`, and not empty";

/// Whether a run and its folders can be called so.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}
