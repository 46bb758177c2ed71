//! What templates do.
#![allow(clippy::unwrap_used)]
use super::*;

pub(super) fn messages() -> Vec<ChatMessage> {
    let turn = |role: &str, content: &str| ChatMessage {
        role: role.into(),
        content: content.into(),
    };
    vec![turn("system", " Be brief. "), turn("user", "Hi")]
}

fn render(source: &str) -> Result<String> {
    let template = ChatTemplate::new(Some(source.into()), "<s>".into(), "</s>".into());
    template.unwrap().render(&messages())
}

#[test]
fn templates_written_for_python_run() {
    let text = render(
        "{{ bos_token }}{% for m in messages %}\n    {% if m['role'] == 'user' %}\n\
         [{{ m['content'].strip() }}]\n    {% else %}\n({{ m.content | trim }})\n    \
         {% endif %}\n{% endfor %}\n{% if add_generation_prompt %}>{% endif %}",
    );
    assert_eq!(text.unwrap(), "<s>(Be brief.)\n[Hi]\n>");
}

#[test]
fn refusals_and_endless_loops_are_errors() {
    let error = render("{{ raise_exception('no system turn') }}").unwrap_err();
    assert!(error.to_string().contains("no system turn"), "{error}");
    let long = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    assert!(matches!(render(long), Err(EngineError::ChatTemplate(_))));
    // The library reaches past the end of what it turns around twice.
    let error = render("{% for m in nothing[::-1][::-1] %}{% endfor %}").unwrap_err();
    assert!(error.to_string().contains("evaluated"), "{error}");
    assert!(ChatTemplate::new(Some("{% if %}".into()), "".into(), "".into()).is_err());
}

/// Texts that transformers writes.
#[test]
fn json_is_that_of_python() {
    for (source, text) in [
        ("{{ '<a> \u{e9}&' | tojson }}", "\"<a> \u{e9}&\""),
        (
            "{{ {'a': [1, none], 'b': {}} | tojson }}",
            r#"{"a": [1, null], "b": {}}"#,
        ),
        (
            "{{ {'a': [1, []], 'b': {}} | tojson(indent=2) }}",
            "{\n  \"a\": [\n    1,\n    []\n  ],\n  \"b\": {}\n}",
        ),
        (
            "{{ [1, {'a': 2}] | tojson(separators=(',', ':')) }}",
            r#"[1,{"a":2}]"#,
        ),
        (
            "{{ '\u{e9}\u{1F600}' | tojson(ensure_ascii=true) }}",
            r#""\u00e9\ud83d\ude00""#,
        ),
    ] {
        assert_eq!(render(source).unwrap(), text, "{source}");
    }
    assert!(render("{{ 1 | tojson(colour=1) }}").is_err());
}

#[test]
fn what_transformers_knows_and_jinja_does_not() {
    let source = "{% for m in messages %}{% if m.role == 'user' %}{%- generation -%}\n [{{ m.content }}] \
                  {%- endgeneration %}{% endif %}{% endfor %}{{ generation is defined }}";
    assert_eq!(render(source).unwrap(), "[Hi]False");
    assert!(ChatTemplate::new(Some("{% generation %}".into()), "".into(), "".into()).is_err());
    let source = "{{ tools is none }}{{ documents is none }}{{ tools is defined }}";
    assert_eq!(render(source).unwrap(), "TrueTrueTrue");
}

#[test]
fn without_a_template_turns_are_lines() {
    let text = ChatTemplate::default().render(&messages()).unwrap();
    assert_eq!(text, "System:  Be brief. \nUser: Hi\nAssistant:");
}

#[test]
fn templates_and_tokens_in_all_their_forms() {
    let config = serde_json::json!({
        "chat_template": [{"name": "tool_use", "template": "x"},
                          {"name": "default", "template": "y"}],
        "bos_token": {"content": "<s>"},
    });
    assert_eq!(template_of(&config).as_deref(), Some("y"));
    assert_eq!(token_of(&config["bos_token"]), "<s>");
    assert_eq!(token_of(&config["eos_token"]), "");
    assert_eq!(template_of(&serde_json::Value::Null), None);
}
