//! Templates that would take all memory, all time or all of the stack.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use super::tests::messages;
use super::{ChatMessage, ChatTemplate};

/// What a template makes of a conversation, or why it is refused, when read or when run.
fn outcome(source: &str) -> Result<String, String> {
    let began = Instant::now();
    let template = ChatTemplate::new(Some(source.into()), "<s>".into(), "</s>".into());
    let text = match template {
        Ok(template) => template.render(&messages()).map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    };
    let took = began.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}: {source:.200}");
    text
}

/// `{{ x }}` after `step` was done to the variable 99 999 times.
fn again(step: &str, end: &str) -> String {
    format!(
        "{{% set n = namespace(x='ab', y=[1]) %}}{{% for i in range(99999) %}}\
         {{% set n.x = {step} %}}{{% endfor %}}{{{{ {end} }}}}"
    )
}

#[test]
fn values_do_not_grow_without_bound() {
    for step in [
        "n.x ~ n.x",
        "n.x + n.x",
        "[n.x, n.x]",
        "(n.x, n.x)",
        "{'a': n.x, 'b': n.x}",
        "dict(a=n.x, b=n.x)",
        "n.x|list + n.x|list",
        "n.x * 2",
        "[n.x] * 2",
        "2 * (n.x,)",
        "n.x|replace('a', 'aa')",
        "n.x.replace('a', n.x)",
        "n.x|join(n.x)",
        "n.x.join(n.x)",
        "[n.x, n.x]|join",
        "'%s%s'|format(n.x, n.x)",
        "'{}{}'.format(n.x, n.x)",
        "n.x|tojson ~ n.x|tojson",
        "n.x|string|indent(9, true)",
        "[n.x]|map('replace', 'a', n.x)|first",
        "[n.x]|batch(2, n.x)|list",
        "n.x|list|zip(n.x|list)",
        "n.x|chain(n.x)",
    ] {
        for end in ["n.x", "n.x|length", "n.x == n.x", "n.x in [n.x]"] {
            let error = outcome(&again(step, end)).unwrap_err();
            assert!(error.contains("the template "), "{step}: {error}");
        }
    }
}

#[test]
fn nothing_is_nested_without_bound() {
    for step in [
        "[n.x]",
        "(n.x,)",
        "{'a': n.x}",
        "dict(a=n.x)",
        "n",
        "[n]",
        "namespace(a=n.x)",
        "[n.x]|batch(1)|list",
    ] {
        let error = outcome(&again(step, "n.x")).unwrap_err();
        let word = ["deep", "namespace"].iter().any(|w| error.contains(w));
        assert!(word, "{step}: {error}");
    }
    // Views of views are lists.
    for step in [
        "n.x[0:]",
        "n.x[::-1]",
        "n.x|reverse",
        "n.x|list|map('reverse')|list",
        "dict(a=1).items()",
    ] {
        assert!(outcome(&again(step, "n.x|length")).is_ok(), "{step}");
    }
}

#[test]
fn one_instruction_does_not_do_too_much() {
    for source in [
        "{{ 'x' * 99999999 }}",
        "{{ ('x' * 99999999)|length }}",
        "{% set x = (1,) * 99999999 %}",
        "{% set x = 'x' * 99999 * 99999 %}",
        "{{ '%999999999d'|format(1) }}",
        "{{ '%*d'|format(999999999, 1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 999999999) }}",
        "{{ 'x'|indent(999999999, true) }}",
        "{{ [1]|batch(999999999, 'x')|list }}",
        "{{ [1]|slice(999999999)|list }}",
        "{{ [[1]]|tojson(indent=999999999) }}",
        "{{ [[1]]|tojson(999999999) }}",
        "{% set x = 'ab' * 999999 %}{{ x|list|tojson(separators=(x, x))|length }}",
        "{% set x = 'ab' * 999999 %}{{ x|join(x)|length }}",
        "{% set x = 'ab' * 999999 %}{{ x.replace('a', x)|length }}",
        "{% set x = 'ab' * 999999 %}{{ x.strip(x)|length }}",
        "{% set x = ('ab' * 99999)|list %}{{ x|select('in', x)|list|length }}",
        "{% set x = 'ab' * 999999 %}{% set c %}{% for i in range(9999) %}{{ x }}{% endfor %}\
         {% endset %}{{ c|length }}",
        "{% set x = 'ab' * 999999 %}{% for i in range(99999) %}{% if x == x ~ '' %}{% endif %}\
         {% endfor %}",
        "{% set x = ('ab' * 99999)|list %}{% for i in range(99999) %}{{ 1 if 3 in x }}{% endfor %}",
        "{% set x = 'x' * 9999 %}{% for i in range(99999) %}{{ x }}{% endfor %}",
    ] {
        let error = outcome(source).unwrap_err();
        assert!(error.contains("the template "), "{source}: {error}");
    }
    let raw = "a".repeat(99_999);
    let raw =
        format!("{{% set c %}}{{% for i in range(99999) %}}{raw}{{% endfor %}}{{% endset %}}");
    assert!(outcome(&raw).unwrap_err().contains("more than"));
}

#[test]
fn sources_are_bounded_before_they_are_read() {
    for source in [
        format!("{{{{ 'a'{} }}}}", " ~ 'a'".repeat(100_000)),
        format!("{{{{ a{} }}}}", "|e".repeat(100_000)),
        format!("{{{{ a{} }}}}", ".a".repeat(100_000)),
        format!("{{{{ {}a }}}}", "not ".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "1 if 1 else ".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "(".repeat(100_000)),
        format!("{{{{ 1{} }}}}", " ** 1".repeat(100_000)),
        format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(50_000)),
        format!(
            "{}{}",
            "{% if a %}".repeat(50_000),
            "{% endif %}".repeat(50_000)
        ),
        " ".repeat(2 << 20),
    ] {
        assert!(outcome(&source).is_err(), "{source:.100}");
    }
    // As long as the bounds allow.
    for (start, part) in [
        ("'a'", " ~ 'a'"),
        ("a", ".a"),
        ("a", "|e"),
        ("1", " ** 1"),
        ("", " not"),
    ] {
        let times = super::program::MAX_TAG / 2 - 2;
        let source = format!("{{{{ {start}{} {start} }}}}", part.repeat(times));
        drop(outcome(&source));
    }
    let elifs = "{% elif a %}b".repeat(super::program::MAX_ELIFS);
    assert_eq!(
        outcome(&format!("{{% if a %}}{elifs}{{% else %}}c{{% endif %}}")).unwrap(),
        "c"
    );
}

#[test]
fn what_is_metered_means_the_same() {
    for (source, text) in [
        (
            "{{ 2 * 3 * 4 }} {{ 1.5 * 2 }} {{ 'ab' * 2 }} {{ 3 * 'x' }} {{ [1] * 2 }}",
            "24 3.0 abab xxx [1, 1]",
        ),
        (
            "{% set l = [1, 2, 3] %}{{ l[1:] }} {{ l[::-1] }} {{ l + [4] }} {{ (1, 2) }}",
            "[2, 3] [3, 2, 1] [1, 2, 3, 4] (1, 2)",
        ),
        (
            "{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 'a' in 'cat' }} {{ 4 not in [1] }}",
            "True False True True",
        ),
        (
            "{% macro m(a, b='z') %}<{{ a }}{{ b }}>{% endmacro %}{{ m('x') }}{{ m('x', b='y') }}",
            "<xz><xy>",
        ),
        (
            "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}in{% endcall %}",
            "[in]",
        ),
        (
            "{% for a in [[1, [2]], [3]] recursive %}{% if a is iterable %}({{ loop(a) }}){% else %}{{ a }}{% endif %}{% endfor %}",
            "(1(2))(3)",
        ),
        (
            "{% set n = namespace(a=1) %}{% for i in range(3) %}{% set n.a = n.a * 2 %}{% endfor %}{{ n.a }}",
            "8",
        ),
        (
            "{% for k, v in {'a': 1, 'b': 2}.items() if v > 1 %}{{ k }}{{ loop.last }}{% else %}-{% endfor %}",
            "bTrue",
        ),
        (
            "{% filter upper %}a{% endfilter %}{% set x %}b{{ 1 }}{% endset %}{{ x|length }}",
            "A2",
        ),
        (
            "{{ y is defined }} {{ y|default('d') }} {{ 'a b'.split(' ')|last }} {{ messages[0].z|default('e') }}",
            "False d b e",
        ),
        (
            "{% for m in messages %}{{ loop.index }}{{ m.role if not loop.first else '' }}{% endfor %}",
            "12user",
        ),
        (
            "{% if false %}a{% elif true and not false %}b{% else %}c{% endif %}{{ 0 or 5 }}",
            "b5",
        ),
        (
            "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "013",
        ),
        (
            "{% block b %}x{% endblock %}{{ '%05.1f|%s' | format(2.25, none) }}",
            "x002.2|None",
        ),
        (
            "{{ [3, 1, 2]|sort|join(', ') }} {{ {'a': [1]}|tojson(indent=2) }}",
            "1, 2, 3 {\n  \"a\": [\n    1\n  ]\n}",
        ),
        (
            "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join }}",
            "Hi",
        ),
    ] {
        assert_eq!(outcome(source).as_deref(), Ok(text), "{source}");
    }
}

#[test]
fn long_conversations_are_no_excess() {
    // With steps that grow with the square of the turns, and every text taken apart.
    let source = "{% for m in messages %}{{ messages[loop.index0:]|length }}\
                  {{ messages|selectattr('role', 'equalto', 'assistant')|list|length }}\
                  {{ m.content.split('</think>')[-1].strip() }}{% endfor %}";
    let template = ChatTemplate::new(Some(source.into()), "<s>".into(), "</s>".into()).unwrap();
    let turn = |i| ChatMessage {
        role: if i % 2 == 0 { "user" } else { "assistant" }.into(),
        content: "word ".repeat(500),
    };
    let turns: Vec<_> = (0..200).map(turn).collect();
    let text = template.render(&turns).unwrap();
    assert!(text.len() > 200 * 2499, "{}", text.len());
}
