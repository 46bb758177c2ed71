//! Names of tensors: those of Hugging Face, which the rest of the workspace uses, in those of
//! llama.cpp.

use crate::config::ModelConfig;

/// The llama.cpp name of tensor `name`; `None` for one that llama.cpp has no name for.
pub(super) fn gguf_name(config: &ModelConfig, name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".into()),
        "lm_head.weight" => return Some("output.weight".into()),
        "model.norm.weight" => return Some("output_norm.weight".into()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let post = config.post_norms();
    let plain = match module {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" if post => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "self_attn.attn_sub_norm" => "attn_sub_norm",
        "mlp.ffn_sub_norm" => "ffn_sub_norm",
        _ => {
            // The norm in front of a projection is called after it.
            let (module, norm) = match module.strip_suffix(".norm") {
                Some(module) => (module, "_norm_in"),
                None => (module, ""),
            };
            return Some(format!("blk.{layer}.{}{norm}.{kind}", projection(module)?));
        }
    };
    Some(format!("blk.{layer}.{plain}.{kind}"))
}

fn projection(module: &str) -> Option<&'static str> {
    Some(match module {
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    })
}
