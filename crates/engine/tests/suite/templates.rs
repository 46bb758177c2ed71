//! Chat templates here and in transformers, which the Python of `TRITBURN_JUDGE_PYTHON` has: our own,
//! and those of the folders in `TRITBURN_TOKENIZERS` and of the file `TRITBURN_SMOLLM2_GGUF`.
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tritburn_engine::{ChatMessage, ChatTemplate};
use tritburn_quant::gguf::GgufFile;

use crate::drive::{TEMPLATES, conversation};

/// What programs tend to do in different ways.
const AWKWARD: [&str; 16] = [
    "a\n",
    "a\n\n",
    "  {% if true %}\n  a\n  {% endif %}\nb",
    "  {%+ if true %}a{% endif +%}\nb",
    "{{ 'a' }}\nb",
    "{#- c -#}\n a",
    "{{ messages[0] | tojson }}",
    "{{ messages | tojson(indent=4) }}|{{ [] | tojson(indent=1) }}{{ {} | tojson }}",
    "{{ messages | tojson(ensure_ascii=true) }}{{ [1, 2.5, none, true] | tojson(separators=(',', ':')) }}",
    "{{ \"<&>'\\n\" | tojson }}<b>{{ messages[0].content }}</b>",
    "{% if tools is not none %}t{% endif %}{% if documents is defined %}d{% endif %}{{ tools is defined }}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}\
     {% else %}{{ m.content }}{% endif %}\n{%- endfor %}",
    "{% for m in messages %}{{ loop.index0 }}{{ m.content[:5] }}{{ m['content'][-3:] }}\
     {{ m.content | length }}{{ m.content.split('</think>')[-1].lstrip('\\n') }}{% endfor %}",
    "{{ (1 == 1) ~ none ~ 1.0 ~ 10 // 3 ~ -7 % 3 ~ 2 ** 3 }} {{ undefined }}{{ messages | map(attribute='role') | list }}",
    "{% set x = namespace(a=[]) %}{% for m in messages if m.role == 'user' %}{% set x.a = x.a + [m.content.upper()] %}\
     {% endfor %}{{ x.a | join('|') }}{{ x.a | first | upper }}",
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] | trim + eos_token }}{% else %}none{% endfor %}\
     {% if messages[-1].role != 'user' %}{{ raise_exception('user last') }}{% endif %}",
];

fn conversations() -> Vec<Vec<ChatMessage>> {
    let turn = |role: &str, content: &str| ChatMessage {
        role: role.into(),
        content: content.into(),
    };
    vec![
        conversation(),
        vec![turn("user", "Hi")],
        vec![turn("system", "Be brief."), turn("user", "  it's \u{e9}\n")],
        vec![turn("user", "a"), turn("assistant", "b")],
        vec![turn("tool", "odd")],
    ]
}

/// Templates with the tokens that they may write.
fn templates() -> Vec<[String; 3]> {
    let own = TEMPLATES.iter().chain(&AWKWARD);
    let mut all: Vec<_> = own.map(|t| [t, "<s>", "</s>"].map(str::to_owned)).collect();
    let folders = std::env::var_os("TRITBURN_TOKENIZERS").unwrap_or_default();
    for folder in std::env::split_paths(&folders) {
        let Ok(text) = std::fs::read(folder.join("tokenizer_config.json")) else {
            continue;
        };
        let config: Value = serde_json::from_slice(&text).unwrap();
        let token = |key: &str| {
            let text = config[key].as_str().or(config[key]["content"].as_str());
            text.unwrap_or_default().to_owned()
        };
        if let Some(template) = config["chat_template"].as_str() {
            eprintln!("with the template of {}", folder.display());
            all.push([template.into(), token("bos_token"), token("eos_token")]);
        }
    }
    if let Some(path) = std::env::var_os("TRITBURN_SMOLLM2_GGUF") {
        let file = GgufFile::open(path.as_ref()).unwrap();
        let template = file.text("tokenizer.chat_template").unwrap().unwrap();
        all.push([template, "<|im_start|>", "<|im_end|>"].map(str::to_owned));
    }
    all
}

/// Text for each template and conversation, `None` where it is refused; messages of refusals are of
/// either program.
fn judged(cases: &[Value]) -> Option<Vec<Option<String>>> {
    let Some(python) = std::env::var_os("TRITBURN_JUDGE_PYTHON").filter(|p| !p.is_empty()) else {
        eprintln!("skipped: TRITBURN_JUDGE_PYTHON names no program");
        return None;
    };
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/judges/chat_templates.py"
    );
    let mut run = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = run.stdin.take().unwrap();
    // What cannot be written was not read: its exit code says why.
    let _ = stdin.write_all(json!(cases).to_string().as_bytes());
    drop(stdin);
    let output = run.wait_with_output().unwrap();
    if output.status.code() == Some(3) {
        eprintln!("skipped: {}", String::from_utf8_lossy(&output.stdout));
        return None;
    }
    assert!(output.status.success());
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn templates_write_what_they_write_in_transformers() {
    let (templates, conversations) = (templates(), conversations());
    let pairs = || {
        templates
            .iter()
            .flat_map(|t| conversations.iter().map(move |c| (t, c)))
    };
    let case = |([template, bos, eos], messages): (&[String; 3], &Vec<ChatMessage>)| json!({"template": template, "bos_token": bos, "eos_token": eos, "messages": messages});
    let cases: Vec<Value> = pairs().map(case).collect();
    let Some(judged) = judged(&cases) else { return };
    assert_eq!(judged.len(), cases.len());
    let mut refused = 0;
    for (([template, bos, eos], messages), want) in pairs().zip(judged) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
        let tokens = json!({"bos_token": bos, "eos_token": eos}).to_string();
        std::fs::write(dir.path().join("tokenizer_config.json"), tokens).unwrap();
        let got = ChatTemplate::load(dir.path()).and_then(|t| t.render(messages));
        refused += usize::from(want.is_none());
        assert_eq!(got.ok(), want, "{template}\n{messages:?}");
    }
    eprintln!("{} texts, {refused} of them refused", cases.len());
    assert!(refused > 0 && refused < cases.len() / 2);
}
