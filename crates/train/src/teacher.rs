//! The teacher of a distillation stage.

use std::path::PathBuf;

use tritburn_nn::CausalLm;
use tritburn_nn::folder::FolderSource;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_quant::config::ModelConfig;

use crate::error::{Result, TrainError};
use crate::objective::Distillation;
use crate::recipe::{DistillSection, StageSection};
use crate::stage::Context;

/// Loads the teacher of `section`, whose student `student` describes.
pub(crate) fn load<B: Kernels + Ops>(
    ctx: &Context<'_, B>,
    section: &StageSection,
    student: &ModelConfig,
) -> Result<Distillation<B>> {
    let wanted = &section.distill;
    let folder = match wanted.teacher.as_str() {
        "init" => PathBuf::from(&ctx.recipe.file.model.path),
        path if path.contains('/') => PathBuf::from(path),
        stage => ctx.run.stage(stage),
    };
    let config = ModelConfig::read(&folder.join("config.json"))?;
    let of_teacher = match wanted.teacher_layers.as_slice() {
        [] => &wanted.layers,
        layers => layers,
    };
    let student_layers = resolve(&wanted.layers, student.num_hidden_layers);
    let teacher_layers = resolve(of_teacher, config.num_hidden_layers);
    let problems = problems(wanted, &config, student);
    let (Some(student_layers), Some(teacher_layers), true) =
        (student_layers, teacher_layers, problems.is_empty())
    else {
        return Err(TrainError::Recipe {
            origin: format!("stage {}", section.name),
            problems,
        });
    };
    let mut teacher = CausalLm::new(&config, &mut FolderSource::open(&folder)?, ctx.device)?;
    teacher.set_compute(ctx.recipe.file.train.compute.on::<B>(ctx.device));
    teacher.freeze();
    Ok(Distillation {
        teacher,
        section: wanted.clone(),
        teacher_layers,
        student_layers,
    })
}

/// Layer numbers from 0; none where the model lacks one.
fn resolve(layers: &[i64], count: usize) -> Option<Vec<usize>> {
    let last = i64::try_from(count).ok()?;
    let from_start = |&l: &i64| usize::try_from(if l < 0 { l + last } else { l }).ok();
    let found: Option<Vec<usize>> = layers.iter().map(from_start).collect();
    found.filter(|found| found.iter().all(|l| *l < count))
}

/// Why the two cannot be compared, each with its field.
fn problems(wanted: &DistillSection, teacher: &ModelConfig, student: &ModelConfig) -> Vec<String> {
    let mut out = Vec::new();
    if teacher.vocab_size != student.vocab_size {
        out.push(format!(
            "distill.teacher: has a vocabulary of {}, the student one of {}; both must be the same",
            teacher.vocab_size, student.vocab_size
        ));
    }
    if teacher.max_position_embeddings < student.max_position_embeddings {
        out.push(format!(
            "distill.teacher: takes {} tokens, the student {}",
            teacher.max_position_embeddings, student.max_position_embeddings
        ));
    }
    let shape = |m: &ModelConfig| (m.num_hidden_layers, m.hidden_size);
    if wanted.hidden > 0.0 && shape(teacher) != shape(student) {
        let ((blocks, width), (own_blocks, own_width)) = (shape(teacher), shape(student));
        out.push(format!(
            "distill.hidden: the teacher has {blocks} blocks of width {width}, the student {own_blocks} of \
             {own_width}; hidden states are compared between equal shapes alone"
        ));
    }
    for (field, layers, model) in [
        ("layers", &wanted.layers, student),
        ("teacher_layers", &wanted.teacher_layers, teacher),
    ] {
        if resolve(layers, model.num_hidden_layers).is_none() {
            out.push(format!(
                "distill.{field}: names a layer that is not among {}",
                model.num_hidden_layers
            ));
        }
    }
    if wanted.teacher_layers.is_empty()
        && resolve(&wanted.layers, teacher.num_hidden_layers).is_none()
    {
        out.push(format!(
            "distill.layers: the teacher has only {} layers; set distill.teacher_layers",
            teacher.num_hidden_layers
        ));
    }
    for (who, model) in [("teacher", teacher), ("student", student)] {
        for width in [model.q_dim(), model.kv_dim()] {
            if !width.is_multiple_of(wanted.split_heads) {
                out.push(format!(
                    "distill.split_heads: {} does not divide the {who}'s {width}",
                    wanted.split_heads
                ));
            }
        }
    }
    out
}
