//! Porter's stemmer with the changes that NLTK makes to it by default.
//!
//! M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980. Google's rouge-score
//! stems with NLTK's variant, which treats some short and irregular words apart, so a stemmer of the
//! paper alone gives other scores.

/// Words that NLTK looks up instead of stemming.
const IRREGULAR: [(&str, &str); 14] = [
    ("skies", "sky"),
    ("sky", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
];
/// More of them; their stem is the word itself.
const UNCHANGED: [&str; 2] = ["exceed", "succeed"];

/// Suffix, and what takes its place.
type Rule = (&'static str, &'static str);

const STEP_2: &[Rule] = &[
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];

const STEP_3: &[Rule] = &[
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

const STEP_4: &[&str] = &[
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
];

/// Stem of a word of small letters and digits.
pub(super) fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(form, _)| *form == word) {
        return (*stem).to_owned();
    }
    if word.len() <= 2 || UNCHANGED.contains(&word) {
        return word.to_owned();
    }
    let mut word = word.to_owned();
    plural(&mut word);
    past_and_gerund(&mut word);
    final_y(&mut word);
    step_2(&mut word);
    step_3(&mut word);
    step_4(&mut word);
    final_e(&mut word);
    if word.ends_with("ll") && measure(&word[..word.len() - 1]) > 1 {
        word.pop();
    }
    word
}

/// Replaces the suffix of `old` by `new`.
fn swap(word: &mut String, old: &str, new: &str) {
    word.truncate(word.len() - old.len());
    word.push_str(new);
}

fn plural(word: &mut String) {
    if word.ends_with("ies") {
        // "dies" keeps its e, "flies" does not.
        let new = if word.len() == 4 { "ie" } else { "i" };
        swap(word, "ies", new);
    } else if word.ends_with("sses") {
        swap(word, "sses", "ss");
    } else if word.ends_with('s') && !word.ends_with("ss") {
        word.pop();
    }
}

fn past_and_gerund(word: &mut String) {
    if word.ends_with("ied") {
        let new = if word.len() == 4 { "ie" } else { "i" };
        swap(word, "ied", new);
        return;
    }
    if let Some(stem) = word.strip_suffix("eed") {
        if measure(stem) > 0 {
            word.pop();
        }
        return;
    }
    let removed = ["ed", "ing"]
        .into_iter()
        .find(|suffix| word.strip_suffix(suffix).is_some_and(has_vowel));
    let Some(suffix) = removed else {
        return;
    };
    swap(word, suffix, "");
    if ["at", "bl", "iz"].iter().any(|end| word.ends_with(end)) {
        word.push('e');
    } else if ends_in_double_consonant(word) {
        if !word.ends_with(['l', 's', 'z']) {
            word.pop();
        }
    } else if measure(word) == 1 && ends_cvc(word) {
        word.push('e');
    }
}

fn final_y(word: &mut String) {
    let stem = word.strip_suffix('y');
    if stem.is_some_and(|stem| stem.len() > 1 && ends_in_consonant(stem)) {
        swap(word, "y", "i");
    }
}

fn step_2(word: &mut String) {
    // Before the rest, which then sees the result.
    while word
        .strip_suffix("alli")
        .is_some_and(|stem| measure(stem) > 0)
    {
        swap(word, "alli", "al");
    }
    if apply(word, STEP_2) {
        return;
    }
    // The l counts with the stem, so that "geologi" is treated like "archaeologi".
    if word.ends_with("logi") && measure(&word[..word.len() - 3]) > 0 {
        word.pop();
    }
}

fn step_3(word: &mut String) {
    apply(word, STEP_3);
}

/// Applies the first rule whose suffix fits, if the stem has a measure above 0; says whether a
/// suffix fitted.
fn apply(word: &mut String, rules: &[Rule]) -> bool {
    let Some((old, new)) = rules.iter().find(|(old, _)| word.ends_with(old)) else {
        return false;
    };
    if measure(&word[..word.len() - old.len()]) > 0 {
        swap(word, old, new);
    }
    true
}

fn step_4(word: &mut String) {
    let Some(suffix) = STEP_4.iter().find(|suffix| word.ends_with(*suffix)) else {
        return;
    };
    let stem = &word[..word.len() - suffix.len()];
    if measure(stem) > 1 && (*suffix != "ion" || stem.ends_with(['s', 't'])) {
        swap(word, suffix, "");
    }
}

fn final_e(word: &mut String) {
    let Some(stem) = word.strip_suffix('e') else {
        return;
    };
    let m = measure(stem);
    if m > 1 || (m == 1 && !ends_cvc(stem)) {
        word.pop();
    }
}

/// For each letter whether it is a consonant: not a vowel, and not a y behind a consonant.
fn consonants(word: &str) -> impl Iterator<Item = bool> + '_ {
    let mut before = false;
    word.bytes().map(move |letter| {
        before = match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => !before,
            _ => true,
        };
        before
    })
}

/// The paper's m: how often a vowel is followed by a consonant.
fn measure(stem: &str) -> usize {
    let mut count = 0;
    let mut after_vowel = false;
    for consonant in consonants(stem) {
        count += usize::from(consonant && after_vowel);
        after_vowel = !consonant;
    }
    count
}

fn has_vowel(stem: &str) -> bool {
    consonants(stem).any(|consonant| !consonant)
}

fn ends_in_consonant(word: &str) -> bool {
    consonants(word).last().unwrap_or(false)
}

fn ends_in_double_consonant(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() >= 2 && bytes[bytes.len() - 1] == bytes[bytes.len() - 2] && ends_in_consonant(word)
}

/// Consonant, vowel, consonant other than w, x, y at the end; or a word of vowel and consonant.
fn ends_cvc(word: &str) -> bool {
    let kinds: Vec<bool> = consonants(word).collect();
    match kinds.as_slice() {
        [false, true] => true,
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_are_nltks() {
        // Each rule, and each of NLTK's own, at least once; checked against nltk 3.10.
        for (word, expected) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("dies", "die"),
            ("cats", "cat"),
            ("agreed", "agre"),
            ("feed", "feed"),
            ("died", "die"),
            ("spied", "spi"),
            ("plastered", "plaster"),
            ("sing", "sing"),
            ("conflated", "conflat"),
            ("troubled", "troubl"),
            ("sized", "size"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("happy", "happi"),
            ("enjoy", "enjoy"),
            ("relational", "relat"),
            ("radically", "radic"),
            ("geology", "geolog"),
            ("hopefully", "hope"),
            ("electricity", "electr"),
            ("adoption", "adopt"),
            ("replacement", "replac"),
            ("controlling", "control"),
            ("skies", "sky"),
            ("news", "news"),
            ("succeed", "succeed"),
            ("yyyying", "yyyi"),
            ("2014", "2014"),
            ("1990s", "1990"),
            ("using", "use"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }
}
