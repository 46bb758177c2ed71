//! Values as JSON, as transformers writes them: the library's own filter is for web pages and
//! escapes what they would take for tags.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

type Result<T> = std::result::Result<T, Error>;

/// The filter `tojson`: Python's `json.dumps`, with its spaces.
pub(super) fn tojson(value: Value, ensure_ascii: Option<bool>, args: Kwargs) -> Result<String> {
    let ascii = match ensure_ascii {
        Some(ascii) => ascii,
        None => args.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    let indent: Option<usize> = args.get("indent")?;
    let separators: Option<Vec<String>> = args.get("separators")?;
    args.assert_all_used()?;
    let [item, key] = match separators.unwrap_or_default().try_into() {
        Ok(both) => both,
        // Lines have no space at their end.
        Err(_) => [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned),
    };
    let mut writer = Writer {
        out: String::new(),
        ascii,
        indent,
        item,
        key,
        depth: 0,
    };
    writer.value(&value)?;
    Ok(writer.out)
}

/// Goes through values by recursion: whoever calls a filter has bounded their depth.
struct Writer {
    out: String,
    ascii: bool,
    indent: Option<usize>,
    item: String,
    key: String,
    depth: usize,
}

impl Writer {
    fn value(&mut self, value: &Value) -> Result<()> {
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&value.to_string()),
            ValueKind::String => self.text(value.as_str().unwrap_or_default())?,
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.items('[', &items, ']', Self::value)?;
            }
            ValueKind::Map => {
                let pairs = value.as_object().and_then(|map| map.try_iter_pairs());
                let pairs: Vec<(Value, Value)> = pairs.into_iter().flatten().collect();
                self.items('{', &pairs, '}', |this, (key, value)| {
                    this.text(&key.to_string())?;
                    this.out.push_str(&this.key);
                    this.value(value)
                })?;
            }
            kind => {
                let message = format!("{kind} is nothing that JSON has");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn items<T>(
        &mut self,
        open: char,
        items: &[T],
        close: char,
        write: impl Fn(&mut Self, &T) -> Result<()>,
    ) -> Result<()> {
        self.out.push(open);
        self.depth += 1;
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.out.push_str(&self.item);
            }
            self.line();
            write(self, item)?;
        }
        self.depth -= 1;
        if !items.is_empty() {
            self.line();
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            let spaces = std::iter::repeat_n(' ', indent * self.depth);
            self.out.extend(spaces);
        }
    }

    fn text(&mut self, text: &str) -> Result<()> {
        let json = serde_json::to_string(text);
        let json = json.map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))?;
        if !self.ascii {
            self.out.push_str(&json);
            return Ok(());
        }
        for c in json.chars() {
            if c.is_ascii() {
                self.out.push(c);
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a text does not fail.
                let _ = write!(self.out, "\\u{unit:04x}");
            }
        }
        Ok(())
    }
}
