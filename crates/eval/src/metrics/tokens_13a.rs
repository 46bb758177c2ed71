//! The tokenisation of mteval-v13a, sacrebleu's default.

/// Splits a segment into words and marks.
pub(super) fn tokenize(segment: &str) -> Vec<String> {
    let mut text = segment
        .trim_end_matches(is_space)
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ");
    for (entity, plain) in [
        ("&quot;", "\""),
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
    ] {
        text = text.replace(entity, plain);
    }
    let text = set_marks_apart(&format!(" {text} "));
    let digit = |c: char| c.is_ascii_digit();
    let point = |c: char| matches!(c, '.' | ',');
    let text = pairs(&text, |a, b| !digit(a) && point(b), |a, b| [a, ' ', b, ' ']);
    let text = pairs(&text, |a, b| point(a) && !digit(b), |a, b| [' ', a, ' ', b]);
    let text = pairs(&text, |a, b| digit(a) && b == '-', |a, b| [a, ' ', b, ' ']);
    text.split(is_space)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What the reference implementation's language takes for white space.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Puts spaces around ASCII marks but `'`, `,`, `-` and `.`.
fn set_marks_apart(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        let apart = matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/');
        if apart {
            out.extend([' ', c, ' ']);
        } else {
            out.push(c);
        }
    }
    out
}

/// Replaces neighbours that `fit` from left to right; what was replaced is not looked at again.
fn pairs(
    text: &str,
    fit: impl Fn(char, char) -> bool,
    replace: impl Fn(char, char) -> [char; 4],
) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut chars = text.chars().peekable();
    while let Some(first) = chars.next() {
        match chars.next_if(|&second| fit(first, second)) {
            Some(second) => out.extend(replace(first, second)),
            None => out.push(first),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_sacrebleus() {
        // Checked against sacrebleu 2.6.0.
        for (text, expected) in [
            ("Hello, world!", "Hello , world !"),
            ("It's 1,000.50 today.", "It's 1,000.50 today ."),
            ("1990-2000 and re-read", "1990 - 2000 and re-read"),
            ("a...b,,c", "a . . . b , , c"),
            ("x &amp;lt; y\n", "x < y"),
            ("cut-\nted line\nnext", "cutted line next"),
            ("(CNN)$5@home/\u{a0}é.", "( CNN ) $ 5 @ home / é ."),
            ("3.", "3 ."),
            (".5 ,", ". 5 ,"),
        ] {
            assert_eq!(tokenize(text).join(" "), expected, "{text:?}");
        }
    }
}
