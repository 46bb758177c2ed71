//! What is done with a model of unknown origin, here and in `fuzz/`: all that its files can reach.
use std::path::Path;

use tritburn_engine::{ChatMessage, Engine, EngineOptions, TextTokenizer};

/// Texts with what tokenizers treat apart: digits, accents, special tokens, repetition, no letters.
const TEXTS: [&str; 4] = [
    "",
    "a b 12\u{e9}</s> aaaaaaaaaaaaaaaaaaaaaaaa",
    "\u{1F600}\u{301} \u{4f60}\u{597d}\r\n\t  x's 3.14",
    "\u{0}\u{feff}\u{2581}",
];

/// Chat templates in the manners of published models.
pub(crate) const TEMPLATES: [&str; 4] = [
    "{%- for m in messages %}{% if m['role'] == 'user' %}<|{{ m.role | upper }}|>\
     {{ m['content'].strip() }}{{ eos_token }}{% endif %}{% endfor %}\
     {% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
     {{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + \
     message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}",
    "{{- bos_token }}{%- if not date is defined %}{%- set date = '26 Jul' %}{%- endif %}\
     {%- set ns = namespace(last='', n=0) %}{%- for m in messages[::-1] %}\
     {%- set ns.n = ns.n + 1 %}{%- if m.role not in ['user', 'assistant', 'system'] %}\
     {{- raise_exception('no ' ~ m.role) }}{%- endif %}{%- set ns.last = m.content | trim %}\
     {{- '%s: %s' | format(m.role, ns.last) | replace('a', 'b') }}{%- endfor %}\
     {{- messages | map(attribute='role') | join(',') | tojson }}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m | tojson(indent=2) }}\
     {%- endgeneration %}{% elif tools is not none %}{{ tools | tojson }}{% else %}\
     {{ [m.content] | tojson(ensure_ascii=true, separators=(',', ':')) }}{% endif %}{% endfor %}",
];

/// Loads a folder or a GGUF file, and computes where that works.
pub(crate) fn model(path: &Path) {
    let options = EngineOptions {
        threads: Some(1),
        ..EngineOptions::default()
    };
    let Ok(engine) = Engine::load(path, options) else {
        return;
    };
    drop(
        engine
            .new_session(8)
            .prefill(&[1, 2, 3])
            .map(<[f32]>::to_vec),
    );
    drop(engine.encode(TEXTS[1], true));
    if let Some(t) = engine.tokenizer() {
        tokenizer(t);
    }
    drop(engine.render_chat(&conversation()));
}

/// Encodes, decodes, and decodes token by token.
pub(crate) fn tokenizer(tokenizer: &TextTokenizer) {
    for (text, special) in TEXTS.into_iter().zip([false, true].into_iter().cycle()) {
        let Ok(tokens) = tokenizer.encode(text, special) else {
            continue;
        };
        drop(tokenizer.decode(&tokens));
        let mut decoder = tokenizer.incremental_decoder();
        for &token in &tokens {
            std::hint::black_box(tokenizer.token(token).and_then(|t| tokenizer.token_id(&t)));
            drop(decoder.push(token));
        }
        drop(decoder.finish());
    }
    let all: Vec<u32> = (0..tokenizer.vocab_size().min(400) as u32).collect();
    drop(tokenizer.decode(&all));
}

/// Turns of all roles.
pub(crate) fn conversation() -> Vec<ChatMessage> {
    let turn = |(role, content): (&str, &str)| ChatMessage {
        role: role.into(),
        content: content.into(),
    };
    let turns = [
        ("system", " Be brief.\n"),
        ("user", "Hi {{ x }} <|im_end|>"),
        ("assistant", "<think>\nno</think> Hello"),
        ("user", "\u{e9}\u{1F600}"),
    ];
    turns.map(turn).into()
}
