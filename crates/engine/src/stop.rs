//! Stop strings over a stream of text.

/// Passes text on, but never a stop string nor what may become one.
#[derive(Debug)]
pub(crate) struct StopMatcher<'a> {
    stops: &'a [String],
    held: String,
    stopped: bool,
}

impl<'a> StopMatcher<'a> {
    pub(crate) fn new(stops: &'a [String]) -> Self {
        Self {
            stops,
            held: String::new(),
            stopped: false,
        }
    }

    /// Whether a stop string was found.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }

    /// Takes more text; returns what may be shown and whether a stop string was found.
    pub(crate) fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|s| self.held.find(s)).min() {
            self.held.truncate(at);
            self.stopped = true;
            return (std::mem::take(&mut self.held), true);
        }
        let hold = self.stops.iter().map(|s| overlap(&self.held, s)).max();
        let rest = self.held.split_off(self.held.len() - hold.unwrap_or(0));
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, once no more text comes.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that `stop` begins with.
fn overlap(text: &str, stop: &str) -> usize {
    let starts = stop.char_indices().map(|(i, _)| i).rev();
    starts
        .into_iter()
        .find(|&len| text.ends_with(&stop[..len]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_strings_never_leak_however_the_text_is_cut() {
        let stops = ["END".to_owned(), "né".to_owned()];
        let text = "a ENENDb";
        for cut in 0..=text.len() {
            let mut matcher = StopMatcher::new(&stops);
            let (mut out, mut stopped) = matcher.push(&text[..cut]);
            if !stopped {
                let (more, now) = matcher.push(&text[cut..]);
                out.push_str(&more);
                stopped = now;
            }
            assert_eq!((out.as_str(), stopped), ("a EN", true));
        }
        let mut matcher = StopMatcher::new(&stops);
        assert_eq!(matcher.push("xn"), ("x".into(), false));
        assert_eq!(matcher.push("o E"), ("no ".into(), false));
        assert_eq!(matcher.finish(), "E");
    }

    #[test]
    fn the_earliest_stop_wins() {
        let stops = ["cd".to_owned(), "bcde".to_owned()];
        let mut matcher = StopMatcher::new(&stops);
        assert_eq!(matcher.push("ab"), ("a".into(), false));
        assert_eq!(matcher.push("cdef"), (String::new(), true));
    }
}
